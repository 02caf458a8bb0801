//! Conditions, regular expressions and outputs that are deep, wide or long.

use purser_rules::Catalogue;
use purser_rules::format::Format;

use crate::measure::load;
use crate::{joined, named_rule, rule};

const MANY: usize = 100_000;

#[test]
fn deep_conditions() {
    for open in ["(", "not (", "not(", "a and (", "a or(", "a and("] {
        for count in [1_500, MANY] {
            let condition = format!("{}proc.name=a{}", open.repeat(count), ")".repeat(count));
            let error = load(&format!("{count} of '{open}'"), rule(&condition)).expect_err(open);
            assert!(error.contains("nested"), "{open}: {error:.200}");
        }
    }
    for open in ["(", "not (fd.num=1 and ", "not (fd.num=1 or ", "fd.num=1 and (fd.num=2 or ("] {
        let count = 900 / open.matches('(').count();
        let condition = format!("{}evt.type=open{}", open.repeat(count), ")".repeat(900));
        assert_eq!(load(&format!("900 levels of '{open}'"), rule(&condition)), Ok(1));
    }
    assert_eq!(load("100,000 times not", rule(&format!("{}evt.type=open", "not ".repeat(MANY)))), Ok(1));
    for name in ["tolower(", "join(\",\", (", "concat(proc.name, ", "getopt(("] {
        for count in [101, MANY] {
            let deep = format!("{}proc.name{} = a", name.repeat(count), ")".repeat(count));
            let error = load(&format!("{count} of '{name}'"), rule(&deep)).expect_err("deep");
            assert!(error.contains("nested"), "{error:.200}");
        }
    }
    let deep = format!("proc.name = {}proc.name{}", "tolower(".repeat(99), ")".repeat(99));
    assert_eq!(load("99 levels of transformers on the right", rule(&deep)), Ok(1));
}

#[test]
fn wide_conditions() {
    let fields = ["proc.name", "fd.name", "proc.cmdline", "proc.exepath", "proc.pname", "user.name", "container.id"];
    let wide =
        |between: &str, item: &dyn Fn(usize) -> String| format!("evt.type=open and ({})", joined(MANY, between, item));
    let same = |nth| format!("proc.name=a{nth}");
    assert_eq!(load("100,000-way or, one field", rule(&wide(" or ", &same))), Ok(1));
    assert_eq!(load("100,000-way and, one field", rule(&wide(" and ", &same))), Ok(1));
    let other = |nth: usize| format!("{}=a{nth}", fields[nth % fields.len()]);
    assert_eq!(load("100,000-way or, seven fields", rule(&wide(" or ", &other))), Ok(1));
    let args = |nth: usize| format!("proc.env[V{nth}]=a{nth}");
    assert_eq!(load("100,000-way or, 100,000 fields", rule(&wide(" or ", &args))), Ok(1));
    let ancestors = |nth: usize| format!("proc.aname=a{nth}");
    assert_eq!(load("100,000-way or, any ancestor", rule(&wide(" or ", &ancestors))), Ok(1));
    let ops = ["=", "!=", "contains ", "startswith ", "endswith ", "glob ", "icontains ", "pmatch (", "in ("];
    let kinds = |nth: usize| {
        let op = ops[nth % ops.len()];
        format!("proc.name {op}a{nth}{}", if op.ends_with('(') { ")" } else { "" })
    };
    assert_eq!(load("100,000-way or, all operators", rule(&wide(" or ", &kinds))), Ok(1));
    let negated = |nth: usize| format!("not proc.name=a{nth}");
    assert_eq!(load("100,000-way or of not", rule(&wide(" or ", &negated))), Ok(1));
    assert_eq!(load("100,000-way and of not", rule(&wide(" and ", &negated))), Ok(1));
    assert_eq!(load("100,000-way or of one check", rule(&wide(" or ", &|_| "proc.name=a".to_owned()))), Ok(1));
    let pairs = |nth: usize| format!("(proc.name=a{nth} and fd.name=b{nth})");
    assert!(load("100,000-way or of and", rule(&wide(" or ", &pairs))).expect_err("pairs").contains("too large"));
    let numbers = |nth: usize| format!("fd.num={nth}");
    assert_eq!(load("100,000-way or of numbers", rule(&wide(" or ", &numbers))), Ok(1));
    let events = |nth: usize| format!("evt.type={}", ["open", "openat", "execve"][nth % 3]);
    assert_eq!(load("100,000-way or of event names", rule(&joined(MANY, " or ", events))), Ok(1));
    let nets = |nth: usize| format!("fd.snet=10.{}.{}.0/24", nth / 256 % 256, nth % 256);
    assert_eq!(load("100,000-way or of networks", rule(&wide(" or ", &nets))), Ok(1));
}

#[test]
fn wide_lists() {
    let list = joined(MANY, ", ", |nth| format!("a{nth}"));
    for test in
        ["in", "intersects", "pmatch", "= oneof", "contains anyof", "startswith allof", "glob oneof", "icontains anyof"]
    {
        let condition = format!("evt.type=open and proc.name {test} ({list})");
        assert_eq!(load(&format!("100,000 values of '{test}'"), rule(&condition)), Ok(1));
    }
    let numbers = joined(MANY, ", ", |nth| format!("{nth}"));
    assert_eq!(load("100,000 numbers", rule(&format!("evt.type=open and fd.num in ({numbers})"))), Ok(1));
    let nets = joined(MANY, ", ", |nth| format!("10.{}.{}.0/24", nth / 256 % 256, nth % 256));
    assert_eq!(load("100,000 networks", rule(&format!("evt.type=open and fd.snet in ({nets})"))), Ok(1));
    let fields = joined(MANY, ", ", |nth| format!("\"proc.aname[{nth}]\""));
    assert_eq!(
        load("100,000 literals that look like fields", rule(&format!("evt.type=open and proc.name in ({fields})"))),
        Ok(1)
    );
    let args = vec!["proc.name"; MANY].join(", ");
    assert_eq!(load("100,000 arguments of concat", rule(&format!("evt.type=open and concat({args}) = a"))), Ok(1));
}

#[test]
fn wide_and_deep_conditions() {
    let nested = |or: &str| {
        let level = |nth: usize| format!("{or}{}", joined(110, " or ", |at| format!("proc.name=a{}", nth * 110 + at)));
        format!(
            "evt.type=open and (proc.name=x {}{})",
            joined(900, " ", level),
            ")".repeat(or.matches('(').count() * 900)
        )
    };
    assert_eq!(load("900 levels of 110-way or, same kind", rule(&nested("or ("))), Ok(1));
    assert_eq!(load("900 levels of 110-way or in and", rule(&nested("and ("))), Ok(1));
    assert_eq!(load("900 levels of 110-way or in not", rule(&nested("or not ("))), Ok(1));
}

#[test]
fn expressions() {
    let with = |pattern: &str| rule(&format!("evt.type=open and fd.name regex \"{pattern}\""));
    for pattern in ["(a+)+$", "((a*)*)*", "(a|a)*b", "(a|aa)+$", "(.*)*x", ".*.*.*.*.*.*.*.*x", "(?i)a"] {
        let _ = load(&format!("regex {pattern}"), with(pattern));
    }
    for pattern in
        ["(((((a{99}){99}){99}){99}){99})", "a{1001}", "[[:nope:]]", "a{99999999999999999999}", "(", "a{2,1}"]
    {
        assert!(load(&format!("regex {pattern}"), with(pattern)).is_err(), "{pattern}");
    }
    for pattern in [".{1,1000}{1,1000}", "((a{1,100}){1,100}){1,100}", "[[:alpha:]]{1000}", "(.{1000}|.{999}){9}"] {
        let _ = load(&format!("regex {pattern}"), with(pattern));
    }
    assert!(load("regex of 100,000 groups", with(&format!("{}a{}", "(".repeat(MANY), ")".repeat(MANY)))).is_err());
    let many = |pattern: &dyn Fn(usize) -> String| {
        let all = joined(1_000, " or ", |nth| format!("fd.name regex '{}'", pattern(nth)));
        rule(&format!("evt.type=open and ({all})"))
    };
    assert_eq!(load("1,000 regexes", many(&|nth| format!("/usr/(lib|bin)/[a-z]+{nth}[.]so([.][0-9]+)*"))), Ok(1));
    let _ = load("1,000 large regexes", many(&|nth| format!("a.{{1,200}}{nth}.{{1,200}}")));
    let _ = load(
        "1,000 rules with a huge regex",
        joined(1_000, "", |nth| {
            named_rule(&format!("r{nth}"), &format!("evt.type=open and fd.name regex '.{{1000}}{nth}'"))
        }),
    );
    let _ = load(
        "one list of 1,000 regexes",
        rule(&format!(
            "evt.type=open and fd.name regex anyof ({})",
            joined(1_000, ", ", |nth| format!("'.{{1,300}}x{nth}'"))
        )),
    );
    let stars = joined(20, "", |_| "*a".to_owned());
    assert_eq!(load("a glob of many stars", rule(&format!("evt.type=open and fd.name glob '{stars}*c'"))), Ok(1));
}

#[test]
fn huge_numbers_and_long_names() {
    for number in
        ["99999999999999999999999999999999999999999999", "-99999999999999999999999999999999999999", "0x1", "1e+9"]
    {
        let _ = load(&format!("number {number}"), rule(&format!("evt.type=open and fd.num = {number}")));
    }
    assert!(
        load("a number of 1 MB", rule(&format!("evt.type=open and fd.num < {}", "9".repeat(1 << 20))))
            .is_ok_and(|rules| rules == 1)
    );
    for index in ["99999999999999999999", "18446744073709551615", "-1", &"9".repeat(MANY)] {
        let _ = load("an index", rule(&format!("evt.type=open and proc.aname[{index}] = a")));
        let _ = load("an argument", rule(&format!("evt.type=open and evt.arg[{index}] = a")));
    }
    let long = "n".repeat(1 << 20);
    assert_eq!(load("a rule's name of 1 MB", named_rule(&long, "evt.type=open")), Ok(1));
    let list = format!("- list: {long}\n  items: [a]\n{}", rule(&format!("evt.type=open and proc.name in ({long})")));
    assert_eq!(load("a list's name of 1 MB", list), Ok(1));
    let item = format!("- macro: {long}\n  condition: proc.name=a\n{}", rule(&format!("evt.type=open and {long}")));
    assert_eq!(load("a macro's name of 1 MB", item), Ok(1));
    assert!(
        load("an engine version of 1 MB", format!("- required_engine_version: {}\n", "9".repeat(1 << 20))).is_err()
    );
    let duration = format!("{}  capture_duration: {}\n", rule("evt.type=open"), "9".repeat(100));
    assert!(load("a capture of 100 digits", duration).is_err());
    let argument = rule(&format!("evt.type=open and proc.env[{long}] = a"));
    assert_eq!(load("an argument of 1 MB", argument), Ok(1));
}

#[test]
fn outputs() {
    let catalogue = Catalogue::builtin();
    assert!(Format::parse("%proc.name".repeat(MANY).as_bytes(), catalogue).is_err());
    assert!(Format::parse("%proc.name".repeat(1_000).as_bytes(), catalogue).is_ok());
    assert!(Format::parse(b"%99999999999999999999proc.name", catalogue).is_ok());
    assert!(Format::parse(format!("%{}", "tolower(".repeat(MANY)).as_bytes(), catalogue).is_err());
    assert!(Format::parse("%".repeat(MANY).as_bytes(), catalogue).is_err());
    let output = |text: &str| {
        let text = serde_json::to_string(text).expect("JSON");
        format!("- rule: r\n  desc: d\n  priority: INFO\n  condition: evt.type=open\n  output: {text}\n")
    };
    assert!(
        load("an output of 100,000 fields", output(&"%proc.name".repeat(MANY)))
            .expect_err("fields")
            .contains("more than")
    );
    assert!(
        load("an output of 20,000 widest fields", output(&"%999999999proc.name ".repeat(20_000)))
            .expect_err("wide")
            .contains("wider")
    );
    let nested = format!("%{}proc.name{}", "tolower(".repeat(99), ")".repeat(99));
    assert_eq!(load("an output of 99 transformers, 500 times", output(&nested.repeat(500))), Ok(1));
    assert!(load("an output of 900 open brackets", output(&"%proc.aname[".repeat(900))).is_ok());
    assert_eq!(
        load("an output of 50,000 container.info", output(&format!("x{}", "%container.info".repeat(50_000)))),
        Ok(1)
    );
    let close = "%proc.aname[1".repeat(900);
    assert_eq!(load("an output of brackets that never close", output(&close)), Ok(1));
    let join = format!("%join(\",\", ({}))", vec!["proc.name"; 50_000].join(", "));
    assert!(load("an output that joins 50,000 fields", output(&join)).is_ok());
}
