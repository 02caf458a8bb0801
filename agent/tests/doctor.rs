//! `purser doctor` on this very machine: as root, and as somebody who may do nothing.
#![allow(clippy::expect_used, clippy::panic, reason = "a failed expectation is a failed test")]

use std::os::unix::{fs::PermissionsExt as _, process::CommandExt as _};
use std::{fs, path::Path, process::Command};

use serde_json::Value;

const NOBODY: u32 = 65534;

/// Exit code, standard output, standard error.
fn doctor(program: &Path, user: Option<u32>, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(program);
    command.arg("doctor").args(arguments);
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    let output = command.output().expect("started");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn own() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_purser"))
}

/// A check's state, by section and name.
fn state<'a>(report: &'a Value, section: &str, name: &str) -> &'a str {
    let sections = report["sections"].as_array().expect("sections");
    let section = sections.iter().find(|found| found["name"] == section).expect("the section");
    let checks = section["checks"].as_array().expect("checks");
    let check = checks.iter().find(|check| check["name"] == name);
    check.and_then(|check| check["state"].as_str()).unwrap_or_else(|| panic!("no {name} in {section}"))
}

/// What a program may rely on.
fn follows_the_schema(report: &Value) {
    assert_eq!(report["schema"], 1);
    assert!(report["healthy"].is_boolean() && report["unchecked"].is_u64(), "{report}");
    let sections = report["sections"].as_array().expect("sections");
    let names: Vec<_> = sections.iter().filter_map(|section| section["name"].as_str()).collect();
    assert_eq!(names, ["machine", "files", "hooks", "containers", "limits"]);
    for check in sections.iter().flat_map(|section| section["checks"].as_array().expect("checks")) {
        assert!(check["name"].as_str().is_some_and(|name| !name.is_empty()), "{check}");
        assert!(check["text"].as_str().is_some_and(|text| !text.is_empty() && !text.contains('\n')), "{check}");
        let state = check["state"].as_str().expect("a state");
        assert!(["ok", "info", "limited", "unchecked", "missing"].contains(&state), "{check}");
    }
}

#[test]
fn root_learns_everything() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let (code, out, err) = doctor(own(), None, &["--json"]);
    let report: Value = serde_json::from_str(&out).expect("JSON");
    follows_the_schema(&report);
    assert_eq!((code, &report["healthy"], err.as_str()), (Some(0), &Value::Bool(true), ""), "{out}");
    for (section, name) in [("machine", "CAP_BPF"), ("hooks", "tp_btf/sched_process_exec"), ("hooks", "ring")] {
        assert_eq!(state(&report, section, name), "ok", "{name}");
    }
    assert_eq!(state(&report, "limits", "blocking"), "limited");
    // Fitting the programs is what shows it: it was read, and understood.
    assert_eq!(state(&report, "machine", "BTF"), "ok");

    let (code, text, _) = doctor(own(), None, &[]);
    assert_eq!(code, Some(0));
    assert!(text.starts_with("machine\n") && !text.contains('\u{1b}'), "no colour but on a terminal: {text}");
    let (_, text, _) = doctor(own(), None, &["--color", "always"]);
    assert!(text.contains("\u{1b}[32m") || text.contains("\u{1b}[1m\u{1b}[32m"), "{text}");
}

#[test]
fn what_no_rule_needs_is_said() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let rules = directory.path().join("rules.yaml");
    let rule = "- rule: A\n  desc: x\n  condition: evt.type = procexit\n  output: x\n  priority: NOTICE\n";
    fs::write(&rules, rule).expect("written");
    let (code, out, _) = doctor(own(), None, &["--json", "--rules", rules.to_str().expect("UTF-8")]);
    let report: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, state(&report, "hooks", "tp_btf/sys_exit")), (Some(0), "info"), "{out}");
    assert_eq!(state(&report, "hooks", "tp_btf/sched_process_exit"), "ok");
}

#[test]
fn what_is_wrong_with_files_is_said_and_fails() {
    let directory = tempfile::tempdir().expect("a directory");
    let (config, rules) = (directory.path().join("c.yaml"), directory.path().join("r.yaml"));
    let (config, rules) = (config.to_str().expect("UTF-8"), rules.to_str().expect("UTF-8"));
    fs::write(config, "sensr: {}\n").expect("written");
    fs::write(rules, "- rule: A\n  desc: x\n  condition: no.such = 1\n  output: x\n  priority: NOTICE\n").expect("");
    let (code, out, err) = doctor(own(), None, &["--json", "--config", config]);
    let report: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, state(&report, "files", "configuration")), (Some(1), "missing"), "{out}");
    assert!(out.contains("sensr") && err.starts_with("purser: error: something essential"), "{out}{err}");
    let (code, out, _) = doctor(own(), None, &["--json", "--rules", rules]);
    let report: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, state(&report, "files", "rules")), (Some(1), "missing"), "{out}");
    assert!(out.contains("no.such"), "{out}");
}

#[test]
fn nobody_is_told_what_could_not_be_checked() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root, to become nobody");
        return;
    }
    // Where nobody may come.
    let directory = tempfile::tempdir().expect("a directory");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("set");
    let program = directory.path().join("purser");
    fs::copy(own(), &program).expect("copied");
    let (code, out, err) = doctor(&program, Some(NOBODY), &["--json"]);
    let report: Value = serde_json::from_str(&out).expect("JSON");
    follows_the_schema(&report);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    for (section, name) in [("machine", "user"), ("machine", "CAP_BPF"), ("hooks", "programs")] {
        assert_eq!(state(&report, section, name), "unchecked", "{name}");
    }
    assert_eq!(state(&report, "files", "rules"), "ok", "{out}");
    let (_, text, _) = doctor(&program, Some(NOBODY), &[]);
    assert!(text.ends_with(" could not be checked: run it as root\n"), "{text}");
}
