//! The pages that `purser rules` and `purser doctor` write are those in `docs`.
#![allow(clippy::expect_used, clippy::panic, reason = "a failed expectation is a failed test")]

use std::{fs, path::Path, process::Command};

fn up_to_date(page: &str, command: &[&str]) {
    let arguments = [command, &["--markdown"]].concat();
    let output = Command::new(env!("CARGO_BIN_EXE_purser")).args(&arguments).output().expect("started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(page);
    if std::env::var_os("PURSER_BLESS").is_some() {
        fs::write(&path, &text).expect("written");
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == text,
        "docs/{page} is not what `purser {}` says: run `PURSER_BLESS=1 cargo test -p agent --test docs`",
        arguments.join(" ")
    );
}

#[test]
fn fields() {
    up_to_date("fields.md", &["rules", "fields"]);
}

#[test]
fn events() {
    up_to_date("events.md", &["rules", "events"]);
}

#[test]
fn rules() {
    up_to_date("rules.md", &["rules", "list"]);
}

#[test]
fn limits() {
    up_to_date("limits.md", &["doctor"]);
}
