//! The binary's commands that need neither root nor a kernel, as a user's scripts call them.
#![allow(clippy::expect_used, clippy::panic, reason = "a failed expectation is a failed test")]

use std::{fs, path::Path, process::Command};

use clap::Parser as _;

/// Exit code, standard output, standard error.
fn purser(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_purser")).args(arguments).output().expect("started");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

const RULES: &str = "- rule: Shadow read\n  desc: d\n  condition: evt.type = openat and fd.name = /etc/shadow\n  \
                     output: \"%fd.name\"\n  priority: WARNING\n";

#[test]
fn rules_are_tested_with_the_files_that_the_cases_name() {
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).expect("written");
        path.to_str().expect("UTF-8").to_owned()
    };
    let rules = write("mine.yaml", RULES);
    let case = |rules: &str, file: &str, fires: &str| {
        format!("{rules}\ncases: [{{name: one, event: openat, fields: {{fd.name: {file}}}, fires: [{fires}]}}]\n")
    };
    let good = write("good.yaml", &case("rules: [mine.yaml]", "/etc/shadow", "Shadow read"));
    let silent = write("silent.yaml", &case("", "/etc/passwd", ""));
    let (code, out, err) = purser(&["rules", "test", &good, &silent, "--rules", &rules]);
    assert_eq!((code, out.as_str(), err.as_str()), (Some(0), "2 cases passed, 0 failed\n", ""));

    let misses = write("misses.yaml", &case("rules: [mine.yaml]", "/etc/passwd", "Shadow read"));
    let fires = write("fires.yaml", &case("rules: [mine.yaml]", "/etc/shadow", ""));
    let (code, out, err) = purser(&["rules", "test", &misses, &fires, &good]);
    assert_eq!(code, Some(1));
    assert!(out.contains("misses.yaml: one\n        did not fire: Shadow read\n"), "{out}");
    assert!(out.contains("fires.yaml: one\n        fired: Shadow read\n"), "{out}");
    assert!(out.ends_with("1 cases passed, 2 failed\n"), "{out}");
    assert!(err.starts_with("purser: error: 2 cases failed"), "{err}");

    for (text, want) in [
        (case("rules: [mine.yaml]", "/x", "No such rule"), "there is no rule"),
        (case("rules: [absent.yaml]", "/x", ""), "absent.yaml"),
        ("cases: []\n".to_owned(), "has no cases"),
        ("events: []\n".to_owned(), "unknown field"),
    ] {
        let (code, out, err) = purser(&["rules", "test", &write("bad.yaml", &text)]);
        assert_eq!((code, out.as_str(), err.lines().count()), (Some(1), "", 1), "{err}");
        assert!(err.contains("bad.yaml") && err.contains(want), "{err}");
    }
}

#[test]
fn our_own_rules_pass_their_cases() {
    let supply_chain = concat!(env!("CARGO_MANIFEST_DIR"), "/../rules/rulesets/supply-chain_test.yaml");
    let runtime = concat!(env!("CARGO_MANIFEST_DIR"), "/../rules/rulesets/runtime_test.yaml");
    let (code, out, err) = purser(&["rules", "test", supply_chain, runtime]);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    assert!(out.ends_with(" cases passed, 0 failed\n") && !out.starts_with("0 "), "{out}");
}

#[test]
fn a_wrong_field_is_named_with_its_place() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("wrong.yaml");
    fs::write(&path, RULES.replace("fd.name =", "fd.nmae =")).expect("written");
    let (code, out, err) = purser(&["rules", "check", path.to_str().expect("UTF-8")]);
    assert_eq!(code, Some(1));
    assert!(
        out.contains("wrong.yaml") && out.contains("fd.nmae") && out.contains("LOAD_ERR_COMPILE_CONDITION"),
        "{out}"
    );
    assert!(out.contains(":3:"), "the line of the condition: {out}");
    assert!(err.starts_with("purser: error: the rules cannot be used"), "{err}");
    fs::write(&path, RULES).expect("written");
    let (code, out, _) = purser(&["rules", "check", path.to_str().expect("UTF-8")]);
    assert_eq!((code, out.as_str()), (Some(0), "ok: 1 rule in 1 file, 0 warnings\n"));
}

#[test]
fn the_readme_names_commands_that_exist() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).expect("README.md");
    let commands: Vec<&str> = readme
        .lines()
        .filter_map(|line| line.strip_prefix("# ").or(line.strip_prefix("$ ")))
        .filter(|line| line.starts_with("purser "))
        .map(|line| line.split(" # ").next().unwrap_or(line).trim())
        .collect();
    assert!(commands.len() >= 8, "{commands:?}");
    for command in commands {
        let parsed = purser::cli::Cli::try_parse_from(command.split_whitespace());
        assert!(parsed.is_ok(), "{command}: {}", parsed.expect_err("refused"));
    }
}
