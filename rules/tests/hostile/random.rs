//! Random words, bytes and items.

use std::fmt::Write as _;

use proptest::prelude::*;
use purser_rules::format::Format;
use purser_rules::{Catalogue, LoadOptions, RuleSet, Source, parse};

fn load(text: impl AsRef<[u8]>) {
    let _ = RuleSet::load(&[Source { name: "rules.yaml", text: text.as_ref() }], &LoadOptions::default());
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
        load(&bytes);
    }

    #[test]
    fn any_condition_and_output(condition in ".{0,60}", output in ".{1,40}") {
        let text = serde_json::json!([{
            "rule": "r", "desc": "d", "priority": "INFO", "condition": condition, "output": output
        }]);
        load(text.to_string());
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
        load(&text);
    }
}
