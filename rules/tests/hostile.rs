//! Bad and hostile input: a clear error or success, never a panic, a stack overflow or endless work.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test fails by panicking and skips aloud"
)]

use std::fmt::Write as _;

use proptest::prelude::*;
use purser_rules::format::Format;
use purser_rules::{Catalogue, LoadOptions, RuleSet, Source, parse};

fn load(text: impl AsRef<[u8]>) -> Result<usize, String> {
    let source = Source { name: "rules.yaml", text: text.as_ref() };
    match RuleSet::load(&[source], &LoadOptions::default()) {
        Ok((rules, _)) => Ok(rules.rules().len()),
        Err(error) => Err(error.to_string()),
    }
}

fn rule(condition: &str) -> String {
    let condition = serde_json::to_string(condition).expect("JSON");
    format!("- rule: r\n  desc: d\n  priority: INFO\n  output: o\n  condition: {condition}\n")
}

#[test]
fn deep_conditions() {
    for open in ["(", "not (", "not(", "a and (", "a or(", "a and("] {
        for count in [1_500, 100_000] {
            let condition = format!("{}proc.name=a{}", open.repeat(count), ")".repeat(count));
            let error = load(rule(&condition)).expect_err(open);
            assert!(error.contains("nested"), "{open}: {error:.200}");
        }
    }
    let fits = format!("{}evt.type=open{}", "(".repeat(900), ")".repeat(900));
    assert_eq!(load(rule(&fits)), Ok(1));
    assert_eq!(load(rule(&format!("{}evt.type=open", "not ".repeat(100_000)))), Ok(1));
    for count in [101, 100_000] {
        let deep = format!("{}proc.name{} = a", "tolower(".repeat(count), ")".repeat(count));
        assert!(load(rule(&deep)).expect_err("deep").contains("nested"));
    }
}

#[test]
fn wide_conditions() {
    let mut condition = "evt.type=open and (".to_owned();
    for nth in 0..100_000 {
        let _ = write!(condition, "{}proc.name=a{nth}", if nth > 0 { " or " } else { "" });
    }
    condition.push(')');
    assert_eq!(load(rule(&condition)), Ok(1));
    let list: Vec<String> = (0..100_000).map(|nth| format!("a{nth}")).collect();
    assert_eq!(load(rule(&format!("evt.type=open and proc.name in ({})", list.join(",")))), Ok(1));
}

#[test]
fn macros_that_double() {
    let mut text = "- macro: m0\n  condition: proc.name=a or proc.name=b\n".to_owned();
    for nth in 1..60 {
        let _ = writeln!(text, "- macro: m{nth}\n  condition: m{} and m{}", nth - 1, nth - 1);
    }
    text.push_str(&rule("evt.type=open and m59"));
    assert!(load(&text).expect_err("doubling").contains("too large"));
}

#[test]
fn a_long_chain_of_macros() {
    let mut text = "- macro: m0\n  condition: proc.name=a\n".to_owned();
    for nth in 1..5_000 {
        let _ = writeln!(text, "- macro: m{nth}\n  condition: not (m{} and fd.name=b{nth})", nth - 1);
    }
    text.push_str(&rule("evt.type=open and m4999"));
    assert!(load(&text).expect_err("chain").contains("too large"));
}

#[test]
fn macros_and_lists_that_refer_to_themselves() {
    let cycle = "- macro: a\n  condition: proc.name=x\n- macro: b\n  condition: a\n- macro: a\n  condition: b\n";
    assert!(load(cycle).expect_err("cycle").contains("loop"));
    let own = "- macro: a\n  condition: proc.name=x\n- macro: a\n  condition: or a\n  override: {condition: append}\n";
    assert!(load(own).expect_err("self").contains("loop"));
    let lists = "- list: a\n  items: [b]\n- list: b\n  items: [a]\n";
    assert_eq!(load(format!("{lists}{}", rule("evt.type=open and proc.name in (a, b)"))), Ok(1));
}

#[test]
fn lists_that_double() {
    let mut text = String::new();
    for nth in 0..40 {
        let _ = writeln!(text, "- list: l{nth}\n  items: [l{0}, l{0}]", nth + 1);
    }
    text.push_str(&rule("evt.type=open and proc.name in (l0)"));
    assert!(load(&text).expect_err("doubling").contains("too large"));
}

#[test]
fn yaml_bombs() {
    let mut bomb = "- list: a\n  items: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for nth in 1..12 {
        let _ = writeln!(bomb, "- k: &a{nth} [{}]", vec![format!("*a{}", nth - 1); 9].join(","));
    }
    assert!(load(&bomb).expect_err("bomb").contains("too large"));
    for open in ["[", "{a: ", "- "] {
        assert!(load(open.repeat(100_000)).is_err(), "{open}");
    }
    assert!(load("- &a [*a]").is_err());
    assert!(load([0x2d, 0x20, 0xff, 0xfe]).expect_err("bytes").contains("UTF-8"));
    assert!(load(b"- rule: \0\n").is_err());
}

#[test]
fn a_file_of_ten_megabytes() {
    let mut text = "- list: big\n  items:\n".to_owned();
    while text.len() < 10 << 20 {
        text.push_str("    - some_program_name\n");
    }
    text.push_str(&rule("evt.type=open and proc.name in (big)"));
    assert_eq!(load(&text), Ok(1));
}

#[test]
fn expressions_and_formats() {
    for pattern in ["(a+)+$", "((a*)*)*", "(((((a{99}){99}){99}){99}){99})", "[[:nope:]]", "a{1001}", "(?i)a"] {
        let _ = load(rule(&format!("evt.type=open and fd.name regex \"{pattern}\"")));
    }
    let catalogue = Catalogue::builtin();
    assert!(Format::parse("%proc.name ".repeat(100_000).as_bytes(), catalogue).is_ok());
    assert!(Format::parse(b"%99999999999999999999proc.name", catalogue).is_ok());
    assert!(Format::parse(format!("%{}", "tolower(".repeat(100_000)).as_bytes(), catalogue).is_err());
    assert!(Format::parse("%".repeat(100_000).as_bytes(), catalogue).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn conditions_print_to_themselves(words in prop::collection::vec(prop::sample::select(vec![
        "proc.name", "fd.name", "evt.type", "=", "!=", "in", "(", ")", ",", "and ", "or ", "not ", "exists", "a", "\"b c\"",
        "contains ", "tolower(", "proc.aname[1]", "'", "\\", "val(", " ", "1", "oneof ",
    ]), 0..30)) {
        let text = words.concat();
        if let Ok(tree) = parse::parse(text.as_bytes(), 100) {
            let printed = parse::print(&tree);
            if let Ok(again) = parse::parse(&printed, 1000) {
                prop_assert_eq!(parse::print(&again), printed);
            }
        }
    }

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse::parse(&bytes, 100);
        let _ = Format::parse(&bytes, Catalogue::builtin());
        let _ = load(&bytes);
    }

    #[test]
    fn any_condition_and_output(condition in ".{0,60}", output in ".{1,40}") {
        let text = serde_json::json!([{
            "rule": "r", "desc": "d", "priority": "INFO", "condition": condition, "output": output
        }]);
        let _ = load(text.to_string());
    }

    #[test]
    fn any_items(items in prop::collection::vec((
        prop::sample::select(vec!["rule", "macro", "list", "condition", "items", "override", "append", "exceptions", "tags",
            "output", "priority", "desc", "enabled", "source", "required_engine_version"]),
        prop::sample::select(vec!["a", "[a]", "{a: b}", "[[a]]", "true", "~", "evt.type=open", "INFO", "{condition: append}",
            "[{name: a, fields: proc.name, values: [b]}]", "0.1.0"]),
    ), 0..12)) {
        let mut text = String::new();
        for (nth, (key, value)) in items.iter().enumerate() {
            let _ = writeln!(text, "{} {key}: {value}", if nth % 5 == 0 { "-" } else { " " });
        }
        let _ = load(&text);
    }
}
