//! Rule files, up to the first NUL each, and an event after the second. Whatever they hold, loading and then evaluating and
//! alerting does not panic, and an error says where it is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use purser_fuzz::{Bytes, split};
use purser_rules::diagnostic::Severity;
use purser_rules::{AlertOptions, LoadOptions, Matches, RuleIndex, RuleSet, Source, check_schema, plugins_satisfy};

fuzz_target!(|data: &[u8]| {
    let (first, rest) = split(data);
    let (second, facts) = split(rest);
    let options = LoadOptions::default();
    let sources = [Source { name: "first", text: first }, Source { name: "second", text: second }];
    let _ = plugins_satisfy(&sources[0], &options);
    if let Ok(text) = std::str::from_utf8(first) {
        let _ = check_schema(text);
    }
    let rules = match RuleSet::load(&sources, &options) {
        Ok((rules, warnings)) => {
            assert!(warnings.iter().all(|warning| !warning.to_string().is_empty()));
            rules
        }
        Err(error) => {
            let last = error.diagnostics.last().expect("an error has a diagnostic");
            assert!(last.severity() == Severity::Error, "{last:?}");
            assert!(!last.message.is_empty() && last.context.iter().all(|step| step.line > 0), "{last:?}");
            return;
        }
    };
    let facts = Bytes::new(facts);
    let mut matches = Matches::new();
    rules.evaluate(&facts, &mut matches);
    for at in 0..rules.rules().len() as u32 {
        let _ = rules.evaluate_rule(RuleIndex(at), &facts);
        let _ = rules.alert(RuleIndex(at), &facts, &AlertOptions::default());
    }
});
