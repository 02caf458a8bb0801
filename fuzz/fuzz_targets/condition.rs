//! A condition, up to the first NUL, and an event after it. Nothing panics; what is printed parses to what is printed the same
//! and means the same; a rule with the condition matches when the condition does.
#![no_main]

use libfuzzer_sys::fuzz_target;
use purser_fuzz::{Bytes, split};
use purser_rules::{
    Catalogue, Facts as _, Filter, LoadOptions, Matches, Outcome, RuleIndex, RuleSet, Source, condition_events, parse,
};

fuzz_target!(|data: &[u8]| {
    let (text, facts) = split(data);
    let Ok(tree) = parse::parse(text, 100) else { return };
    let facts = Bytes::new(facts);
    let catalogue = Catalogue::builtin();
    let outcome = Filter::new(&tree, catalogue).map(|(filter, _)| filter.evaluate(&facts));
    let printed = parse::print(&tree);
    // Bytes that are no text may print as what does not parse; what does is printed alike, and means the same. An even number
    // of `not` cancels when it is read, but not when parentheses keep the words apart.
    if let Ok(again) = parse::parse(&printed, 1_000) {
        let cancels = printed.windows(8).any(|words| words == b"not not ");
        assert!(cancels || parse::print(&again) == printed, "{}", printed.escape_ascii());
        if let (Ok(first), Ok((second, _))) = (&outcome, Filter::new(&again, catalogue)) {
            assert_eq!(*first, second.evaluate(&facts));
        }
    }
    let _ = condition_events(&tree);
    let Ok(condition) = std::str::from_utf8(text) else { return };
    let rule =
        serde_json::json!([{"rule": "r", "desc": "d", "priority": "INFO", "output": "o", "condition": condition}]);
    let rule = rule.to_string();
    let source = Source { name: "fuzz", text: rule.as_bytes() };
    let Ok((rules, _)) = RuleSet::load(&[source], &LoadOptions::default()) else { return };
    let mut matches = Matches::new();
    rules.evaluate(&facts, &mut matches);
    let outcome = outcome.expect("a condition that compiles in a rule compiles alone");
    let expected = rules.rules()[0].events.contains(facts.event()).then_some(outcome);
    assert_eq!(!matches.matched().is_empty(), expected == Some(Outcome::True));
    assert_eq!(!matches.pending().is_empty(), expected == Some(Outcome::Pending));
    assert_eq!(rules.evaluate_rule(RuleIndex(0), &facts), expected.unwrap_or(Outcome::False));
});
