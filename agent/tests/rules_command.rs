//! `purser rules`: listings and checks, as users and their scripts see them. Needs neither root nor a kernel.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a failed expectation is a failed test, and a skip is said aloud"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{fs, process::Command};

use serde_json::Value;

/// Exit code, standard output, standard error.
fn purser(arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_purser"));
    let output = command.args(arguments).env_remove("NO_COLOR").output().expect("started");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// The one JSON document that a command prints.
fn json(arguments: &[&str]) -> Value {
    let (_, out, err) = purser(arguments);
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}\n{out}\n{err}"))
}

/// Files of a directory that goes away with the value.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        let path = self.0.path().join(name);
        fs::write(&path, text).expect("written");
        path.to_str().expect("UTF-8").to_owned()
    }
}

fn rule(name: &str, condition: &str) -> String {
    format!("- rule: {name}\n  desc: d\n  condition: {condition}\n  output: out\n  priority: WARNING\n")
}

/// What a check prints of a file.
fn check(text: impl AsRef<[u8]>) -> String {
    let files = Files::new();
    purser(&["rules", "check", &files.write("r.yaml", text)]).1
}

#[test]
fn fields_are_listed_by_class_with_what_keeps_them_empty() {
    let all = json(&["rules", "fields", "--json"]);
    let all = all.as_array().expect("an array");
    let find = |name: &str| all.iter().find(|field| field["name"] == name).unwrap_or_else(|| panic!("{name}"));
    assert!(all.len() > 230, "{}", all.len());
    let aname = find("proc.aname");
    assert_eq!(
        (&aname["type"], &aname["class"], &aname["argument"]),
        (&"CHARBUF".into(), &"proc".into(), &"index".into())
    );
    assert_eq!((&aname["has_value"], &aname["no_value_because"]), (&true.into(), &Value::Null));
    assert_eq!(find("fd.types")["list"], true);
    assert_eq!(find("fd.ip")["filter_only"], true);
    assert_eq!(find("evt.outputtime")["print_only"], true);
    assert_eq!(find("evt.dir")["deprecated"], true);
    assert_eq!(find("evt.arg")["argument_required"], true);
    assert_eq!(find("manifest.verdict")["declared_by"], "purser");
    let legacy = find("k8s.rc.name");
    assert_eq!(legacy["has_value"], false);
    assert!(legacy["no_value_because"].as_str().is_some_and(|reason| !reason.is_empty()));

    let (code, out, _) = purser(&["rules", "fields", "k8s.rc"]);
    assert_eq!(code, Some(0));
    assert!(out.starts_with("k8s: ") && out.contains("never has a value: "), "{out}");
    assert!(!out.contains("proc.name"), "{out}");
    let (code, out, err) = purser(&["rules", "fields", "proc.nmae"]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(err.contains("did you mean `proc.name`?") && err.lines().count() == 1, "{err}");
    assert_eq!(purser(&["rules", "fields", "--json", "--markdown"]).0, Some(2));
}

#[test]
fn events_are_listed_with_parameters_and_hooks() {
    let all = json(&["rules", "events", "--json"]);
    let all = all.as_array().expect("an array");
    let find = |name: &str| all.iter().find(|event| event["name"] == name).unwrap_or_else(|| panic!("{name}"));
    let names: BTreeSet<&str> = all.iter().filter_map(|event| event["name"].as_str()).collect();
    assert_eq!(names.len(), all.len(), "each name once");
    assert!(all.len() > 400 && !names.contains("syscall"), "{}", all.len());
    let openat = find("openat");
    assert_eq!(openat["delivered"], true);
    assert!(openat["hooks"].as_array().is_some_and(|hooks| hooks.contains(&"tp_btf/sys_exit".into())), "{openat}");
    assert_eq!(openat["parameters"][0], serde_json::json!({"name": "fd", "type": "FD", "has_value": true}));
    assert_eq!((&find("k8s")["delivered"], &find("k8s")["hooks"]), (&false.into(), &serde_json::json!([])));
    assert_eq!(find("uname")["kind"], "system call, generic");

    let (code, out, _) = purser(&["rules", "events", "execve"]);
    assert_eq!(code, Some(0));
    assert!(out.contains("execve(ERRNO res, CHARBUF exe,") && out.contains("from tp_btf/sched_process_exec"), "{out}");
    let (code, _, err) = purser(&["rules", "events", "exevce"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("did you mean `execve`?"), "{err}");
}

#[test]
fn rules_are_listed_as_one_array() {
    let files = Files::new();
    let first = files.write(
        "a.yaml",
        "- list: shells\n  items: [sh, bash]\n- macro: spawned\n  condition: evt.type = execve\n".to_owned()
            + &rule("One", "spawned and proc.name in (shells)")
            + "  tags: [b, a]\n  exceptions: [{name: e, fields: user.name, values: [root]}]\n",
    );
    let second = files.write("b.yaml", rule("Two", "evt.type = openat") + "  enabled: false\n");
    let listed = json(&["rules", "list", "--json", &first, &second]);
    let [one, two] = listed.as_array().expect("an array").as_slice() else { panic!("{listed}") };
    assert_eq!(
        (&one["name"], &one["description"], &one["priority"], &one["source"], &one["enabled"]),
        (&"One".into(), &"d".into(), &"Warning".into(), &"syscall".into(), &true.into())
    );
    assert_eq!(one["tags"], serde_json::json!(["a", "b"]));
    assert_eq!(one["condition"], "((evt.type = execve and proc.name in (sh, bash)) and not user.name in (root))");
    assert!(one["condition_text"].as_str().is_some_and(|text| text.contains("spawned")), "{one}");
    assert!(one["events"].as_array().is_some_and(|events| events.contains(&"execve".into())), "{one}");
    let fields = one["fields"].as_array().expect("fields");
    assert!(["evt.type", "proc.name", "user.name"].iter().all(|name| fields.contains(&(*name).into())), "{one}");
    assert_eq!((&one["file"], &one["line"]), (&first.as_str().into(), &5.into()));
    assert_eq!((&two["enabled"], &two["file"]), (&false.into(), &second.as_str().into()));

    let (code, out, _) = purser(&["rules", "list", &first, &second]);
    assert_eq!((code, out.as_str()), (Some(0), "enabled   Warning        One\ndisabled  Warning        Two\n"));
}

#[test]
fn one_run_names_every_error_and_none_that_another_causes() {
    let files = Files::new();
    let first = files.write(
        "a.yaml",
        "- macro: broken\n  condition: proc.name startwith x\n".to_owned()
            + "- macro: nothing\n"
            + &rule("Uses them", "broken or nothing")
            + &rule("Wrong field", "evt.type = open and fd.nmae = x")
            + &rule("Right", "evt.type = open"),
    );
    let second = files.write("b.yaml", rule("Wrong event", "evt.type = opne"));
    let (code, out, err) = purser(&["rules", "check", &first, &second, "/no/such.yaml"]);
    assert_eq!(code, Some(1));
    assert!(err.starts_with("purser: error: the rules cannot be used"), "{err}");
    let errors: Vec<&str> = out.lines().filter(|line| line.contains(" error LOAD_")).collect();
    assert_eq!(errors.len(), 5, "{out}");
    for (line, want) in [
        ("a.yaml:2:24: ", "did you mean 'startswith'?"),
        ("a.yaml:3:3: ", "no mapping for key 'condition'"),
        ("a.yaml:11:34: ", "did you mean 'fd.name'?"),
        ("b.yaml:3:25: ", "did you mean 'open'?"),
        ("/no/such.yaml:1:1: ", "LOAD_ERR_FILE_READ"),
    ] {
        assert!(errors.iter().any(|error| error.contains(line) && error.contains(want)), "{line} {want}\n{out}");
    }
    assert!(out.ends_with("failed: 2 files, 5 errors, 0 warnings\n"), "{out}");
    // A file that is no YAML: what it would have defined is not missed elsewhere.
    let bad = files.write("bad.yaml", "- macro: m\n  condition: [\n");
    let user = files.write("user.yaml", rule("User", "m and evt.type = open") + &rule("Bad", "evt.tpye = open"));
    let (_, out, _) = purser(&["rules", "check", &bad, &user]);
    assert!(out.contains("LOAD_ERR_YAML_PARSE") && out.contains("did you mean 'evt.type'?"), "{out}");
    assert!(out.ends_with("2 errors, 0 warnings\n"), "{out}");
}

#[test]
fn what_was_meant_is_suggested() {
    let item = |text: &str| text.to_owned();
    let base = rule("A", "evt.type = open")
        + "- macro: spawned\n  condition: evt.type = execve\n- list: shells\n  items: [sh]\n";
    for (text, want) in [
        (rule("X", "porc.name = x"), "'proc.name'"),
        (rule("X", "evt.arg.nmae = x"), "'evt.arg.name'"),
        (rule("X", "evt.type.is.opne = 1"), "'evt.type.is.open'"),
        (rule("X", "proc.name contian x"), "'contains'"),
        (rule("X", "tolwer(proc.name) = x"), "'tolower'"),
        (rule("X", "spawnd"), "'spawned'"),
        (rule("X", "evt.type = open").replace("WARNING", "warnin"), "'WARNING'"),
        (rule("X", "evt.type = open").replace("WARNING", "much"), "known are EMERGENCY, ALERT"),
        (rule("X", "evt.type = open").replace("priority", "priorty"), "'priorty'"),
        (rule("X", "evt.type = open").replace("output: out", "output: on %porc.name now"), "'%proc.name'"),
        (rule("X", "evt.type = open") + "  enabld: true\n", "'enabled'"),
        (item("- list: shels\n  items: [x]\n  override: {items: append}\n"), "'shells'"),
        (item("- macro: spawnd\n  condition: or evt.type = open\n  override: {condition: append}\n"), "'spawned'"),
        (item("- rule: B\n  condition: or evt.type = open\n  override: {condition: append}\n"), "no rule by that name"),
        (item("- rul: x\n"), "'rule'"),
        (
            rule("X", "evt.type = open") + "  exceptions: [{name: e, fields: [porc.name], values: [[x]]}]\n",
            "'proc.name'",
        ),
        (
            rule("X", "evt.type = open")
                + "  exceptions: [{name: e, fields: [proc.name], comps: [startwith], values: [[x]]}]\n",
            "'startswith'",
        ),
    ] {
        let out = check(base.clone() + &text);
        assert!(out.contains(want), "{text}\n{out}");
    }
}

/// The line of a check that has the caret, and the one above it.
fn marked(out: &str) -> (String, String) {
    let lines: Vec<&str> = out.lines().collect();
    let at = lines.iter().position(|line| line.trim_end().ends_with('^')).unwrap_or_else(|| panic!("{out}"));
    (lines[at - 1].to_owned(), lines[at].to_owned())
}

#[test]
fn the_caret_is_below_the_word() {
    for (text, line, column, word) in [
        (rule("X", "a.b = 1"), 3, 14, "a.b"),
        (rule("X", ">\n    evt.type = open and\n    not porc.name = x"), 5, 9, "porc.name"),
        (rule("X", "|\n    evt.type = open\n\n    and porc.name = x"), 6, 9, "porc.name"),
        (rule("X", "\"evt.type = \\\"open\\\" and porc.name = x\""), 3, 39, "porc.name"),
        (rule("X", "'evt.type = open and proc.name = ''é'' and porc.name = x'"), 3, 57, "porc.name"),
        (rule("X", "evt.type = open and (proc.name in (a, b) and proc.pid startswith x)"), 3, 59, "proc.pid"),
        (
            rule("X", "evt.type = open")
                + "- rule: X\n  condition: and porc.name = x\n  override: {condition: append}\n",
            7,
            18,
            "porc.name",
        ),
        (
            "- macro: m\n  condition: (evt.type = open and porc.name = x)\n".to_owned() + &rule("X", "m"),
            2,
            35,
            "porc.name",
        ),
        (
            "- list: l\n  items: [aaaaaaaaaaaaaaaaaa, b]\n".to_owned()
                + &rule("X", "proc.name in (l) and porc.name in (l)"),
            5,
            35,
            "porc.name",
        ),
    ] {
        let out = check(&text);
        assert!(out.contains(&format!("r.yaml:{line}:{column}: error")), "{line}:{column}\n{text}\n{out}");
        let (shown, carets) = marked(&out);
        let start = carets.find('^').expect("marked");
        let below: String = shown.chars().skip(start).take(carets.len() - start).collect();
        assert_eq!(below, word, "{out}");
    }
}

#[test]
fn nothing_in_a_file_drives_the_terminal() {
    let hostile = "\u{1b}[2J\u{9b}31m\u{202e}\u{7}";
    let text = rule(
        &format!("\"X{}\"", hostile.escape_unicode().to_string().replace("\\u{", "\\U").replace('}', "")),
        "a.b = 1",
    );
    for text in [
        // YAML does not allow most control characters as they are.
        rule("X", &format!("proc.name = \"{hostile}\" and a.b = 1")),
        rule("X", "proc.name = '\u{202e}\u{2066}' and a.b = 1"),
        text.replace("\\U1b", "\\x1b").replace("\\U9b", "\\x9b").replace("\\U202e", "\\u202e").replace("\\U7", "\\x07"),
        format!("- rule: X\n  {hostile}: 1\n"),
    ] {
        let out = check(&text);
        assert!(out.contains(" error LOAD_"), "{out}");
        let bad = |c: char| (c.is_control() && c != '\n') || ('\u{202a}'..='\u{202e}').contains(&c) || c == '\u{2066}';
        assert!(!out.contains(bad), "{out:?}");
    }
    assert!(check(b"- rule: \xff\n").contains("not valid UTF-8"));
    let long = check(rule("X", &format!("evt.type = open {} and a.b = 1", "and proc.name = x ".repeat(10_000))));
    assert!(long.lines().all(|line| line.len() < 300), "{}", long.lines().map(str::len).max().unwrap_or(0));
    let (shown, carets) = marked(&long);
    assert!(
        shown.contains("...") && shown[carets.find('^').expect("marked")..].starts_with("a.b"),
        "{shown}\n{carets}"
    );
}

#[test]
fn colour_is_for_terminals_and_for_who_asks() {
    let files = Files::new();
    let path = files.write("r.yaml", rule("X", "a.b = 1"));
    assert!(!purser(&["rules", "check", &path]).1.contains('\u{1b}'), "standard output is no terminal");
    let (_, always, _) = purser(&["rules", "check", "--color", "always", &path]);
    assert!(always.contains("\u{1b}[31merror LOAD_"), "{always:?}");
    let (_, never, _) = purser(&["rules", "check", "--color", "never", &path]);
    assert!(!never.contains('\u{1b}'));
    assert_eq!(purser(&["rules", "check", "--color", "some", &path]).0, Some(2));
}

#[test]
fn json_has_the_shape_of_upstreams() {
    let files = Files::new();
    let good =
        files.write("good.yaml", rule("A", "evt.type = open") + "- macro: unused\n  condition: evt.type = open\n");
    let bad = files.write("bad.yaml", rule("B", ">\n    evt.type = open\n    and é.x = 1 or porc.name = x"));
    let (code, out, _) = purser(&["rules", "check", "--json", &good, &bad]);
    assert_eq!(code, Some(1));
    let report: Value = serde_json::from_str(&out).expect("one document");
    assert_eq!(report.as_object().map(serde_json::Map::len), Some(1));
    let [first, second] = report["falco_load_results"].as_array().expect("results").as_slice() else { panic!("{out}") };
    assert_eq!((&first["name"], &first["successful"]), (&good.as_str().into(), &true.into()));
    assert_eq!(first["errors"], serde_json::json!([]));
    let warning = &first["warnings"][0];
    assert_eq!((&warning["code"], first["warnings"].as_array().map(Vec::len)), (&"LOAD_UNUSED_MACRO".into(), Some(1)));
    assert!(["codedesc", "message"].iter().all(|key| warning[key].as_str().is_some_and(|text| !text.is_empty())));
    assert_eq!((&second["name"], &second["successful"]), (&bad.as_str().into(), &false.into()));
    let error = &second["errors"][0];
    assert_eq!(error["code"], "LOAD_ERR_COMPILE_CONDITION");
    let locations = error["context"]["locations"].as_array().expect("locations");
    let kinds: Vec<_> = locations.iter().map(|at| at["item_type"].as_str().expect("text")).collect();
    assert_eq!(kinds, ["rules content", "rule", "rule condition", "condition expression"]);
    assert_eq!(locations[1]["item_name"], "B");
    for location in locations {
        let position = &location["position"];
        assert_eq!(position["name"], bad.as_str());
        assert!(["line", "column", "offset"].iter().all(|key| position[key].is_u64()), "{position}");
    }
    let offset = locations[3]["position"]["offset"].as_u64().expect("a number") as usize;
    assert!(fs::read(&bad).expect("read")[offset..].starts_with("é.x".as_bytes()), "{out}");
    assert!(error["context"]["snippet"].as_str().is_some_and(|snippet| snippet.ends_with("^\n")), "{error}");

    let (code, out, err) = purser(&["rules", "check", "--json", &good]);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
}

#[test]
fn files_of_cases_that_cannot_be_used_are_named_with_what_is_wrong() {
    let files = Files::new();
    files.write("r.yaml", rule("Opened", "evt.type = openat"));
    let test = |cases: &str| {
        let text = format!("rules: [r.yaml]\ncases:\n  - name: n\n{cases}\n");
        let (code, out, err) = purser(&["rules", "test", &files.write("cases.yaml", text)]);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{cases}\n{err}");
        err
    };
    for (cases, want) in [
        ("    event: opneat", "case \"n\": there is no event 'opneat'; did you mean 'openat'?"),
        ("    event: acct\n    fires: [Opend]", "there is no rule \"Opend\"; did you mean 'Opened'?"),
        ("    event: openat\n    fields: {fd.nmae: /x}", "nonexistent field 'fd.nmae'; did you mean 'fd.name'?"),
        ("    event: openat\n    fields: {fd.name: /x, fd.name: /y}", "field 'fd.name' is given twice at line 5"),
        (&format!("    event: {}", "[".repeat(1 << 20)), "it is nested too deeply at line 4 column"),
    ] {
        assert!(test(cases).contains(want), "{want}");
    }
    let (code, _, err) = purser(&["rules", "test", "/dev/zero"]);
    assert_eq!((code, err.as_str()), (Some(1), "purser: error: cannot test /dev/zero: it is larger than 16MiB\n"));
}

#[test]
fn strict_makes_warnings_fail() {
    let files = Files::new();
    let warns = files.write("w.yaml", rule("A", "evt.type = open") + "- macro: unused\n  condition: evt.type = open\n");
    let (code, out, err) = purser(&["rules", "check", &warns]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.contains("w.yaml:6:3: warning LOAD_UNUSED_MACRO: "), "{out}");
    assert!(out.ends_with("ok: 1 rule in 1 file, 1 warning\n"), "{out}");
    for option in ["--strict", "-W"] {
        let (code, _, err) = purser(&["rules", "check", option, &warns]);
        assert_eq!(code, Some(1));
        assert!(err.contains("--strict"), "{err}");
    }
    let notes = files.write("n.yaml", rule("A", "evt.type = page_fault"));
    assert_eq!(purser(&["rules", "check", "--strict", &notes]).0, Some(0), "a note is no warning");
}

#[test]
fn notes_say_what_rules_cannot_see() {
    let files = Files::new();
    for (condition, cannot_fire, names) in [
        ("evt.type = page_fault", true, &["page_fault"][..]),
        ("evt.type in (page_fault, switch)", true, &["page_fault", "switch"]),
        ("evt.type = open and k8s.rc.name = x", true, &["k8s.rc.name"]),
        ("evt.type = open and not k8s.rc.name = x", false, &["k8s.rc.name"]),
        ("evt.type = open and (k8s.rc.name = x or proc.name = y)", false, &["k8s.rc.name"]),
        ("(evt.type = page_fault or evt.type = open) and proc.name = x", false, &["page_fault"]),
        (
            "(evt.type = page_fault and proc.name = x) or (evt.type = open and k8s.rc.name = y)",
            true,
            &["page_fault", "k8s.rc.name"],
        ),
        ("evt.type = procexit and evt.arg.reaper_tid = 1", true, &["evt.arg.reaper_tid"]),
        ("evt.type = open and toupper(k8s.rc.label[a]) = X", true, &["k8s.rc.label"]),
    ] {
        let path = files.write("n.yaml", rule("R", condition));
        let report = json(&["rules", "check", "--json", &path]);
        let result = &report["falco_load_results"][0];
        assert_eq!((&result["successful"], &result["warnings"]), (&true.into(), &serde_json::json!([])), "{condition}");
        let note = &result["notes"][0];
        assert_eq!(
            (&note["rule"], &note["line"], &note["cannot_fire"]),
            (&"R".into(), &1.into(), &cannot_fire.into()),
            "{condition}"
        );
        let message = note["message"].as_str().expect("text");
        assert!(names.iter().all(|name| message.contains(name)), "{condition}: {message}");
        let (code, out, _) = purser(&["rules", "check", &path]);
        assert_eq!(code, Some(0));
        assert!(out.contains("n.yaml:1: note: rule \"R\" ") && out.contains("1 note"), "{out}");
    }
    let list = "- list: shell_binaries\n  items: [sh]\n";
    let path =
        files.write("n.yaml", list.to_owned() + &rule("R", "evt.type = open and proc.name in (shell_binarys, sh_x)"));
    let (code, out, _) = purser(&["rules", "check", &path]);
    assert_eq!(code, Some(0));
    assert!(out.contains("shell_binarys is compared as text; did you mean the list 'shell_binaries'?"), "{out}");
    assert!(!out.contains("sh_x is"), "{out}");
    let path = files.write("n.yaml", rule("R", "evt.type in (open, openat) and proc.name = x"));
    assert_eq!(purser(&["rules", "check", &path]).1, "ok: 1 rule in 1 file, 0 warnings\n");
}

#[test]
fn upstreams_files_are_without_fault() {
    let dir = std::env::var_os("PURSER_FALCO_RULES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/falco/rules"), PathBuf::from);
    if !dir.is_dir() {
        eprintln!("SKIPPED: no upstream rule files at {} (set PURSER_FALCO_RULES)", dir.display());
        return;
    }
    let files =
        ["falco_rules.yaml", "falco-incubating_rules.yaml", "falco-sandbox_rules.yaml"].map(|name| dir.join(name));
    let files: Vec<&str> = files.iter().map(|path| path.to_str().expect("UTF-8")).collect();
    let (code, out, _) = purser(&[&["rules", "check", "--strict"], files.as_slice()].concat());
    assert_eq!(code, Some(0), "{out}");
    assert!(!out.contains(" warning ") && out.contains("ok: 93 rules in 3 files, 0 warnings"), "{out}");
    let listed = json(&[&["rules", "list", "--json"], files.as_slice()].concat());
    assert_eq!(listed.as_array().map(Vec::len), Some(93));
}
