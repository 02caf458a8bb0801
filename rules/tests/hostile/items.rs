//! Items that are many, refer to each other, or are changed again and again.

use crate::measure::{load, load_all};
use crate::{joined, named_rule, rule};

const MANY: usize = 100_000;

#[test]
fn macros_and_lists_that_double() {
    let mut macros = "- macro: m0\n  condition: proc.name=a or proc.name=b\n".to_owned();
    for nth in 1..60 {
        macros.push_str(&format!("- macro: m{nth}\n  condition: m{0} and m{0}\n", nth - 1));
    }
    macros.push_str(&rule("evt.type=open and m59"));
    assert!(load("macros that double, 60 levels", macros).expect_err("doubling").contains("too large"));
    let mut lists = joined(40, "", |nth| format!("- list: l{nth}\n  items: [l{0}, l{0}]\n", nth + 1));
    lists.push_str(&rule("evt.type=open and proc.name in (l0)"));
    assert!(load("lists that double, 40 levels", lists).expect_err("doubling").contains("too large"));
    let mut wide =
        joined(4, "", |nth| format!("- list: l{nth}\n  items: [{}]\n", vec![format!("l{}", nth + 1); 1_000].join(",")));
    wide.push_str(&rule("evt.type=open and proc.name in (l0)"));
    assert!(load("lists that grow a thousandfold, 4 levels", wide).expect_err("wide").contains("too large"));
}

#[test]
fn chains() {
    let mut macros = "- macro: m0\n  condition: proc.name=a\n".to_owned();
    for nth in 1..5_000 {
        macros.push_str(&format!("- macro: m{nth}\n  condition: not (m{} and fd.name=b{nth})\n", nth - 1));
    }
    macros.push_str(&rule("evt.type=open and m4999"));
    assert!(load("a chain of 5,000 macros", macros).expect_err("chain").contains("too large"));
    let lists = joined(MANY, "", |nth| format!("- list: l{nth}\n  items: [l{}]\n", nth + 1));
    let uses = rule("evt.type=open and proc.name in (l0)");
    assert!(load("a chain of 100,000 lists", format!("{lists}{uses}")).is_ok());
    // Each macro is as deep as may be, and the first refers to the last: nothing of it is resolved before.
    let deep = |inner: &str| format!("{}{inner}{}", "not (fd.num=1 and ".repeat(990), ")".repeat(990));
    let mut forward = joined(99, "", |nth| format!("- macro: m{nth}\n  condition: proc.name=a\n"));
    for nth in 0..98 {
        forward.push_str(&format!("- macro: m{nth}\n  condition: {}\n", deep(&format!("m{}", nth + 1))));
    }
    forward.push_str(&rule("evt.type=open and m0"));
    assert!(load("98 deep macros that refer forward", forward).expect_err("deep").contains("too large"));
}

#[test]
fn macros_and_lists_that_refer_to_themselves() {
    let cycle = "- macro: a\n  condition: proc.name=x\n- macro: b\n  condition: a\n- macro: a\n  condition: b\n";
    assert!(load("a cycle of macros", cycle).expect_err("cycle").contains("loop"));
    let own = "- macro: a\n  condition: proc.name=x\n- macro: a\n  condition: or a\n  override: {condition: append}\n";
    assert!(load("a macro of itself", own).expect_err("self").contains("loop"));
    let lists = "- list: a\n  items: [b]\n- list: b\n  items: [a]\n";
    let text = format!("{lists}{}", rule("evt.type=open and proc.name in (a, b)"));
    assert_eq!(load("a cycle of lists", text), Ok(1));
    let own = format!("- list: a\n  items: [a, a]\n{}", rule("evt.type=open and proc.name in (a)"));
    assert_eq!(load("a list of itself", own), Ok(1));
    let names = joined(1_000, "", |nth| format!("- macro: m{nth}\n  condition: proc.name=x\n"));
    let ring = joined(1_000, "", |nth| format!("- macro: m{nth}\n  condition: m{}\n", (nth + 1) % 1_000));
    let error = load("a ring of 1,000 macros", format!("{names}{ring}")).expect_err("ring");
    assert!(error.contains("loop") || error.contains("deep"), "{error}");
}

#[test]
fn a_hundred_thousand_items() {
    let macros = joined(MANY, "", |nth| format!("- macro: m{nth}\n  condition: proc.name=a{nth}\n"));
    assert_eq!(load("100,000 macros, unused", macros.clone()), Ok(0));
    let all = rule(&format!("evt.type=open and ({})", joined(MANY, " or ", |nth| format!("m{nth}"))));
    assert_eq!(load("100,000 macros in one rule", format!("{macros}{all}")), Ok(1));
    let lists = joined(MANY, "", |nth| format!("- list: l{nth}\n  items: [a{nth}]\n"));
    assert_eq!(load("100,000 lists, unused", lists.clone()), Ok(0));
    let all = rule(&format!("evt.type=open and proc.name in ({})", joined(MANY, ", ", |nth| format!("l{nth}"))));
    assert_eq!(load("100,000 lists in one rule", format!("{lists}{all}")), Ok(1));
    let odd = joined(MANY, "", |nth| format!("- list: l {nth}\n  items: [a{nth}]\n"));
    let some = joined(1_000, "", |nth| named_rule(&format!("r{nth}"), "evt.type=open and proc.name in (l 1, a b)"));
    let _ = load("100,000 lists with a blank in their name, 1,000 rules", format!("{odd}{some}"));
    let rules = joined(MANY, "", |nth| named_rule(&format!("r{nth}"), "evt.type=open and proc.name=a"));
    assert!(load("100,000 rules", rules).expect_err("rules").contains("20000 rules"));
    let rules =
        joined(20_000, "", |nth| named_rule(&format!("r{nth}"), &format!("evt.type=open and proc.name=a{nth}")));
    assert_eq!(load("20,000 rules", rules), Ok(20_000));
    let switches = joined(MANY, "", |_| "- rule: r\n  enabled: false\n".to_owned());
    assert_eq!(load("a rule switched off 100,000 times", rule("evt.type=open") + &switches), Ok(1));
    let again = joined(20_000, "", |nth| named_rule("r", &format!("evt.type=open and proc.name=a{nth}")));
    assert_eq!(load("a rule defined 20,000 times", again), Ok(1));
    let keys = joined(MANY, "", |nth| format!("  k{nth}: v\n"));
    assert_eq!(load("100,000 unknown keys", rule("evt.type=open") + &keys), Ok(1));
    let key = format!("  ? {}\n  : v\n", "k".repeat(1 << 20));
    assert_eq!(load("an unknown key of 1 MB", rule("evt.type=open") + &key), Ok(1));
    let tags = format!("  tags: [{}]\n", joined(MANY, ", ", |nth| format!("t{nth}")));
    assert_eq!(load("100,000 tags", rule("evt.type=open") + &tags), Ok(1));
    let unknown = joined(MANY, "", |nth| format!("- thing: {nth}\n"));
    assert_eq!(load("100,000 unknown items", unknown), Ok(0));
    let files = (0..200).map(|nth| named_rule(&format!("r{nth}"), "evt.type=open and proc.name=a").into_bytes());
    assert_eq!(load_all("200 files", files.collect()), Ok(200));
    let versions = "- required_engine_version: 0.26.0\n".repeat(MANY);
    assert_eq!(load("100,000 required engine versions", versions), Ok(0));
    let plugins = format!("- required_plugin_versions:\n{}", "  - {name: container, version: 0.2.2}\n".repeat(MANY));
    assert_eq!(load("100,000 required plugins", plugins), Ok(0));
}

#[test]
fn a_hundred_thousand_exceptions() {
    let names =
        joined(MANY, "", |nth| format!("    - {{name: e{nth}, fields: proc.name, comps: in, values: [a{nth}]}}\n"));
    let text = format!("{}  exceptions:\n{names}", rule("evt.type=open"));
    assert!(load("100,000 exceptions of a rule", text).expect_err("exceptions").contains("too large"));
    let names =
        joined(20_000, "", |nth| format!("    - {{name: e{nth}, fields: proc.name, comps: in, values: [a{nth}]}}\n"));
    let text = format!("{}  exceptions:\n{names}", rule("evt.type=open"));
    assert_eq!(load("20,000 exceptions of a rule", text), Ok(1));
    let values = joined(MANY, ", ", |nth| format!("a{nth}"));
    let text =
        format!("{}  exceptions:\n    - {{name: e, fields: proc.name, values: [{values}]}}\n", rule("evt.type=open"));
    assert_eq!(load("100,000 values of an exception", text), Ok(1));
    let tuples = joined(MANY, ", ", |nth| format!("[a{nth}, /b{nth}]"));
    let text = format!(
        "{}  exceptions:\n    - {{name: e, fields: [proc.name, fd.name], comps: [=, startswith], values: [{tuples}]}}\n",
        rule("evt.type=open")
    );
    assert!(load("100,000 tuples of an exception", text).expect_err("tuples").contains("too large"));
    let fields = vec!["proc.name"; 50_000].join(", ");
    let values = vec!["a"; 50_000].join(", ");
    let text = format!(
        "{}  exceptions:\n    - {{name: e, fields: [{fields}], values: [[{values}]]}}\n",
        rule("evt.type=open")
    );
    assert_eq!(load("an exception of 50,000 fields", text), Ok(1));
}

#[test]
fn items_appended_to_again_and_again() {
    const TIMES: usize = 10_000;
    let append = |item: &str, over: &str| format!("{item}  override: {{{over}: append}}\n");
    let condition =
        joined(TIMES, "", |nth| append(&format!("- rule: r\n  condition: or proc.name=a{nth}\n"), "condition"));
    assert_eq!(load("a condition appended to 10,000 times", rule("evt.type=open") + &condition), Ok(1));
    let legacy = joined(TIMES, "", |nth| format!("- rule: r\n  append: true\n  condition: or proc.name=a{nth}\n"));
    assert_eq!(load("a condition appended to 10,000 times, the old way", rule("evt.type=open") + &legacy), Ok(1));
    let output = joined(TIMES, "", |nth| append(&format!("- rule: r\n  output: and %proc.name {nth}\n"), "output"));
    assert!(
        load("an output appended to 10,000 times", rule("evt.type=open") + &output)
            .expect_err("output")
            .contains("more than")
    );
    let exceptions = joined(TIMES, "", |nth| {
        append(&format!("- rule: r\n  exceptions: [{{name: e{nth}, fields: proc.name, values: [a]}}]\n"), "exceptions")
    });
    assert_eq!(load("10,000 exceptions appended one by one", rule("evt.type=open") + &exceptions), Ok(1));
    let first = "  exceptions: [{name: e, fields: proc.name, values: [x]}]\n";
    let values = joined(TIMES, "", |nth| {
        append(&format!("- rule: r\n  exceptions: [{{name: e, values: [a{nth}]}}]\n"), "exceptions")
    });
    assert_eq!(load("10,000 exception values appended one by one", rule("evt.type=open") + first + &values), Ok(1));
    let tags = joined(TIMES, "", |nth| append(&format!("- rule: r\n  tags: [t{nth}]\n"), "tags"));
    assert_eq!(load("10,000 tags appended one by one", rule("evt.type=open") + &tags), Ok(1));
    let list = joined(TIMES, "", |nth| append(&format!("- list: l\n  items: [a{nth}]\n"), "items"));
    let text = format!("- list: l\n  items: []\n{list}{}", rule("evt.type=open and proc.name in (l)"));
    assert_eq!(load("a list appended to 10,000 times", text), Ok(1));
    let items =
        joined(TIMES, "", |nth| append(&format!("- macro: m\n  condition: or proc.name=a{nth}\n"), "condition"));
    let text = format!("- macro: m\n  condition: proc.name=x\n{items}{}", rule("evt.type=open and m"));
    assert_eq!(load("a macro appended to 10,000 times", text), Ok(1));
    let replaced = joined(TIMES, "", |nth| {
        format!(
            "- rule: r\n  condition: evt.type=open and proc.name=a{nth}\n  enabled: false\n  override: {{condition: replace, enabled: replace}}\n"
        )
    });
    assert_eq!(load("a rule overridden 10,000 times", rule("evt.type=open") + &replaced), Ok(1));
    let long = format!(
        "{}{}",
        rule(&format!("evt.type=open and proc.name in ({}a)", "abcdefgh, ".repeat(100_000))),
        condition
    );
    assert_eq!(load("a condition of 1 MB appended to 10,000 times", long), Ok(1));
}

#[test]
fn what_many_rules_share() {
    let list = format!("- list: l\n  items: [{}]\n", joined(50_000, ", ", |nth| format!("a{nth}")));
    let uses = |count: usize, condition: &str| {
        joined(count, "", |nth| named_rule(&format!("r{nth}"), &format!("{condition}{nth}")))
    };
    let _ = load(
        "2,000 rules with a list of 50,000",
        list.clone() + &uses(2_000, "evt.type=open and proc.name in (l) and fd.num="),
    );
    let wide = format!("- macro: m\n  condition: {}\n", joined(50_000, " or ", |nth| format!("proc.name=a{nth}")));
    let _ = load("2,000 rules with a macro of 50,000", wide.clone() + &uses(2_000, "evt.type=open and m and fd.num="));
    let _ = load("2,000 rules that add to a macro of 50,000", wide + &uses(2_000, "m or fd.num="));
    let _ = load(
        "2,000 macros with a list of 50,000",
        list + &joined(2_000, "", |nth| format!("- macro: m{nth}\n  condition: proc.name in (l) or fd.num={nth}\n")),
    );
    let big = "x".repeat(100_000);
    let aliases = format!(
        "- list: l\n  items: [&a {big}]\n{}",
        joined(5_000, "", |nth| {
            format!("- rule: r{nth}\n  desc: *a\n  output: *a\n  priority: INFO\n  condition: evt.type=open\n")
        })
    );
    let _ = load("5,000 rules with one description of 100 KB by alias", aliases);
}
