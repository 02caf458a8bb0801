//! Texts that are no rule file, or barely.

use purser_rules::{LoadOptions, RuleSet, Source};

use crate::measure::load;
use crate::{joined, named_rule, rule};

const TEN_MEGABYTES: usize = 10 << 20;

#[test]
fn yaml_bombs() {
    let mut bomb = "- list: a\n  items: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for nth in 1..12 {
        bomb.push_str(&format!("- k: &a{nth} [{}]\n", vec![format!("*a{}", nth - 1); 9].join(",")));
    }
    assert!(load("yaml: aliases of aliases", bomb).expect_err("bomb").contains("too large"));
    let aliases = format!("- list: a\n  items: &a [x, y]\n- k: [{}]\n", vec!["*a"; 900_000].join(","));
    assert!(load("yaml: one alias 900,000 times", aliases).expect_err("aliases").contains("too large"));
    let anchors = joined(200_000, "\n", |nth| format!("- &a{nth} x{nth}"));
    assert!(load("yaml: 200,000 anchors", anchors).expect_err("anchors").contains("must be a map"));
    assert!(load("yaml: an alias inside of its anchor", "- &a [*a]").expect_err("alias").contains("alias"));
    assert!(load("yaml: an alias without anchor", "- *a").expect_err("alias").contains("alias"));
    let merges = format!("- &a {{{}}}\n- <<: *a\n", joined(100_000, ", ", |nth| format!("k{nth}: v")));
    assert_eq!(load("yaml: a merge key", merges), Ok(0));
}

#[test]
fn yaml_that_is_deep() {
    for open in ["[", "{a: ", "- ", "[{a: ", "? ", "!!seq [", "&a [", "- - - ", "a:\n- "] {
        let text = open.repeat(100_000);
        assert!(load(&format!("yaml: 100,000 of '{}'", open.escape_debug()), text).is_err(), "{open}");
    }
    let closed = format!("- list: l\n  items: {}{}\n", "[".repeat(100_000), "]".repeat(100_000));
    assert!(load("yaml: 100,000-deep flow sequence", closed).expect_err("deep").contains("deep"));
    let indented = joined(3_000, "", |nth| format!("{}a:\n", " ".repeat(nth)));
    assert!(load("yaml: 3,000-deep block maps", indented).expect_err("deep").contains("deep"));
}

#[test]
fn texts_that_are_no_rule_file() {
    assert!(load("bytes: not UTF-8", [0x2d, 0x20, 0xff, 0xfe]).expect_err("bytes").contains("UTF-8"));
    let late = format!("{}\u{e9}", "# x\n".repeat(2_000_000)).into_bytes();
    let cut = late[..late.len() - 1].to_vec();
    assert!(load("bytes: cut off in a character after 8 MB", cut).expect_err("bytes").contains("UTF-8"));
    assert!(load("bytes: NUL", b"- rule: \0\n").is_err());
    assert!(load("bytes: 10 MB of NUL", vec![0; TEN_MEGABYTES]).is_err());
    assert_eq!(load("bytes: 10 MB of line ends", vec![b'\n'; TEN_MEGABYTES]), Ok(0));
    assert_eq!(load("bytes: 10 MB of blanks", vec![b' '; TEN_MEGABYTES]), Ok(0));
    assert_eq!(load("bytes: a 10 MB comment", [b"#".as_slice(), &vec![b'x'; TEN_MEGABYTES]].concat()), Ok(0));
    assert!(load("bytes: a 10 MB word", vec![b'x'; TEN_MEGABYTES]).is_err());
    assert!(load("bytes: 10 MB of an open quote", [b"\"".as_slice(), &vec![b'x'; TEN_MEGABYTES]].concat()).is_err());
    assert!(load("bytes: 10 MB of backslashes in quotes", format!("- \"{}\"", "\\\\".repeat(5 << 20))).is_err());
    assert!(load("bytes: 10 MB of tabs", vec![b'\t'; TEN_MEGABYTES]).is_err());
    assert!(load("bytes: 10 MB of tags", "!".repeat(TEN_MEGABYTES)).is_err());
    assert!(load("bytes: 10 MB of directives", "%YAML 1.1\n".repeat(1 << 20)).is_err());
    assert!(load("bytes: 5 MB of colons", ": ".repeat(5 << 19)).is_err());
    assert!(load("bytes: 10 MB of question marks", "? ".repeat(5 << 20)).is_err());
    assert!(load("bytes: 3 million documents", "---\n".repeat(3 << 20)).expect_err("documents").contains("too large"));
    assert!(load("bytes: 3 million empty items", "- \n".repeat(3 << 20)).expect_err("items").contains("too large"));
}

#[test]
fn files_of_ten_megabytes() {
    let line = "    - some_program_name\n";
    let list = format!("- list: big\n  items:\n{}", line.repeat(TEN_MEGABYTES / line.len()));
    let uses = rule("evt.type=open and proc.name in (big)");
    assert_eq!(load("10 MB: one list of one word", format!("{list}{uses}")), Ok(1));
    let words = joined(TEN_MEGABYTES / 17, "\n", |nth| format!("    - prog_{nth:08}"));
    assert_eq!(load("10 MB: one list of 616,000 words", format!("- list: big\n  items:\n{words}\n{uses}")), Ok(1));
    let letters = format!("- list: big\n  items: [{}a]\n{uses}", "a,".repeat(5 << 20));
    assert!(load("10 MB: one list of single letters", letters).expect_err("letters").contains("too large"));
    let paths = joined(TEN_MEGABYTES / 24, "\n", |nth| format!("    - /usr/lib/a_b/{nth:08}"));
    let text = format!("- list: big\n  items:\n{paths}\n{}", rule("evt.type=open and fd.name pmatch (big)"));
    assert_eq!(load("10 MB: one list of paths for pmatch", text), Ok(1));

    let small = |nth| named_rule(&format!("rule {nth}"), &format!("evt.type=open and proc.name=a{nth}"));
    let count = TEN_MEGABYTES / small(50_000).len();
    let error = load("10 MB: many small rules", joined(count, "", small)).expect_err("rules");
    assert!(error.contains("20000 rules") || error.contains("too large"), "{error}");
    let wide = joined(TEN_MEGABYTES / 22, " or ", |nth| format!("proc.name=a{nth:07}"));
    let wide = rule(&format!("evt.type=open and ({wide})"));
    assert!(load("10 MB: one rule of or", wide).expect_err("wide").contains("too large"));
    let string = rule(&format!("evt.type=open and proc.name=\"{}\"", "a".repeat(TEN_MEGABYTES)));
    assert!(load("10 MB: one string in a condition", string).expect_err("string").contains("255"));
    let blanks = rule(&format!("evt.type=open and {} proc.name=a", " ".repeat(TEN_MEGABYTES)));
    assert_eq!(load("10 MB: blanks in a condition", blanks), Ok(1));
    let word = rule(&"a".repeat(TEN_MEGABYTES));
    assert!(load("10 MB: one macro's name", word).is_err());
    let field = rule(&format!("evt.type=open and {}a=b", "a.".repeat(5 << 20)));
    assert!(load("10 MB: one field's name", field).expect_err("field").contains("nonexistent"));
    let output =
        |text: &str| format!("- rule: r\n  desc: d\n  priority: INFO\n  condition: evt.type=open\n  output: {text}\n");
    assert!(load("10 MB: one output", output(&"x".repeat(TEN_MEGABYTES))).expect_err("output").contains("longer"));
    assert!(load("10 MB: an output of fields", output(&"x%proc.name".repeat(TEN_MEGABYTES / 11))).is_err());
    assert!(load("10 MB: an output of unknown fields", output(&format!("x%{}", "a.".repeat(5 << 20)))).is_err());
    assert!(
        load("10 MB: an output of open transformers", output(&format!("x%{}", "tolower(".repeat(5 << 18)))).is_err()
    );
    let long = output(&format!("x%proc.name.{}", "aname.".repeat(5 << 18)));
    assert!(load("7 MB: an output's field with a long tail", long).is_err());
    assert_eq!(load("10 MB: a description", format!("{}  x: {}\n", small(1), "d".repeat(TEN_MEGABYTES))), Ok(1));
}

/// Found by fuzzing: a block scalar that the end of the file cuts off in a character of many bytes, or without a line's end.
#[test]
fn texts_that_end_early() {
    let whole = "- macro: m\n  condition: >\n    (proc.name=\"a\" and\n      fd.name startswith /etc/ssh/\u{e9})\n- list: &a l\n  items: ['x', *a]\n";
    for (end, _) in whole.char_indices() {
        let source = Source { name: "rules.yaml", text: &whole.as_bytes()[..end] };
        let _ = RuleSet::load(&[source], &LoadOptions::default());
    }
    let text = "- macro: m\n  condition: >\n    proc.name=a\n      or x";
    assert!(
        load("a block scalar without a last line's end", text).expect_err("a macro").contains("undefined macro 'x'")
    );
}
