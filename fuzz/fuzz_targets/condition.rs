//! A condition, up to the first NUL, and an event after it. Nothing panics; what is printed parses to what is printed the same
//! and means the same; a rule with the condition matches when the condition does.
#![no_main]

use libfuzzer_sys::fuzz_target;
use purser_fuzz::{Bytes, split};
use purser_rules::parse::{Expr, Operand, Right, TransformArg};
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
    // An even number of `not` cancels when it is read, but not when parentheses keep the words apart.
    let cancels = printed.windows(8).any(|words| words == b"not not ");
    if !cancels && prints_unambiguously(&tree) {
        let again = parse::parse(&printed, 1_000).expect("a printed condition parses");
        assert!(parse::print(&again) == printed, "{}", printed.escape_ascii());
        if let (Ok(first), Ok((second, _))) = (&outcome, Filter::new(&again, catalogue)) {
            assert_eq!(*first, second.evaluate(&facts), "{}", printed.escape_ascii());
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

/// Whether all literals are words: quotes are printed only around some of what needs them, as upstream does.
fn prints_unambiguously(expr: &Expr) -> bool {
    match expr {
        Expr::And(children, _) | Expr::Or(children, _) => children.iter().all(|child| prints_unambiguously(child)),
        Expr::Not(child, _) => prints_unambiguously(child),
        Expr::Macro(..) => true,
        Expr::Exists(operand, _) => is_plain(operand),
        Expr::Check { left, right, .. } => {
            is_plain(left)
                && match right {
                    Right::Value(value, _) => is_word(value),
                    Right::List(values, _) => values.iter().all(|value| is_word(value)),
                    Right::Operand(operand) => is_plain(operand),
                }
        }
    }
}

fn is_plain(operand: &Operand) -> bool {
    let (Operand::Field { arg, .. } | Operand::Transform { arg, .. }) = operand;
    let args: &[TransformArg] = match operand {
        Operand::Field { .. } => &[],
        Operand::Transform { args, .. } => args,
    };
    fn fits(arg: &TransformArg) -> bool {
        match arg {
            TransformArg::Operand(operand) => is_plain(operand),
            TransformArg::Value(..) => false,
            TransformArg::List(items, _) => items.iter().all(fits),
        }
    }
    arg.as_ref().is_none_or(|arg| is_word(arg)) && args.iter().all(fits)
}

fn is_word(value: &[u8]) -> bool {
    !value.is_empty() && value.iter().all(|byte| byte.is_ascii_alphanumeric() || b"._-/ \n\"'=".contains(byte))
}
