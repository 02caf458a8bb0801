//! No condition, nor any rule file, makes the parser or the loader panic; what is printed parses to what is printed the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use purser_rules::{LoadOptions, RuleSet, Source, parse};

fuzz_target!(|text: &[u8]| {
    if let Ok(tree) = parse::parse(text, 100) {
        let printed = parse::print(&tree);
        // Bytes that are no text may print as what does not parse; what does is printed alike.
        if let Ok(again) = parse::parse(&printed, 1_000) {
            assert_eq!(parse::print(&again), printed);
        }
    }
    // As a rule file, and as the condition of a rule that is whole otherwise.
    load(text);
    if let Ok(condition) = std::str::from_utf8(text) {
        let rule =
            serde_json::json!([{"rule": "r", "desc": "d", "priority": "INFO", "output": "o", "condition": condition}]);
        load(rule.to_string().as_bytes());
    }
});

fn load(text: &[u8]) {
    let _ = RuleSet::load(&[Source { name: "fuzz", text }], &LoadOptions::default());
}
