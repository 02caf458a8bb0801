//! An output, up to the first NUL, and an event after it. Nothing panics; an alert's texts are text, and its JSON is JSON.
#![no_main]

use libfuzzer_sys::fuzz_target;
use purser_fuzz::{Bytes, split};
use purser_rules::format::Format;
use purser_rules::{AlertOptions, Catalogue, LoadOptions, RuleIndex, RuleSet, Source};

fuzz_target!(|data: &[u8]| {
    let (text, facts) = split(data);
    let facts = Bytes::new(facts);
    if let Ok(format) = Format::parse(text, Catalogue::builtin()) {
        for transformed in [false, true] {
            let json = format.json(&facts, transformed);
            let texts = format.texts(&facts, transformed);
            // One of both is missing if the other is: they hold the same fields.
            if let (Some(json), Some(texts)) = (json, texts) {
                assert_eq!(json.as_object().map_or(0, serde_json::Map::len), texts.len());
            }
        }
        if text.first() == Some(&b'*') {
            assert!(format.text(&facts).is_some());
        }
    }
    let Ok(output) = std::str::from_utf8(text) else { return };
    let rule = serde_json::json!([
        {"rule": "r", "desc": "d", "priority": "INFO", "condition": "evt.type = open", "output": output}
    ]);
    let rule = rule.to_string();
    let source = Source { name: "fuzz", text: rule.as_bytes() };
    let Ok((rules, _)) = RuleSet::load(&[source], &LoadOptions::default()) else { return };
    for time_format_iso_8601 in [false, true] {
        let options = AlertOptions { time_format_iso_8601, ..AlertOptions::default() };
        let alert = rules.alert(RuleIndex(0), &facts, &options);
        // Escaped as in JSON: one line, whatever the container's processes are called.
        for text in [&alert.output, &alert.message] {
            let quoted = format!("\"{text}\"");
            assert!(serde_json::from_str::<String>(&quoted).is_ok(), "{quoted}");
        }
    }
});
