//! Corners of the rule language that are easy to get wrong, each in a case of its own.

#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use purser_rules::format::Format;
use purser_rules::parse::{self, Expr, Operand, TransformArg};
use purser_rules::{
    Arg, Catalogue, EventCode, EventSet, Fact, Facts, FieldId, FieldRef, Filter, LoadError, LoadOptions, Outcome,
    Reason, RuleSet, Source, Value, condition_events,
};
use serde_json::json;

/// An event with a few facts.
struct Event;

impl Facts for Event {
    fn event(&self) -> EventCode {
        EventCode::OPEN
    }

    fn fact(&self, field: FieldRef<'_>) -> Fact<'_> {
        match (field.id, field.arg) {
            (FieldId::PROC_NAME, Arg::None) => Fact::text(b"Cat"),
            (FieldId::PROC_PNAME, Arg::None) => Fact::text(b"Bash"),
            (FieldId::PROC_EXE, Arg::None) => Fact::text(b"a\0/b"),
            (FieldId::EVT_RAWTIME, Arg::None) => Fact::One(Value::U64(5)),
            _ => Fact::Missing(Reason::Unknown),
        }
    }

    fn element(&self, _: FieldRef<'_>, _: usize) -> Fact<'_> {
        Fact::Missing(Reason::Unknown)
    }
}

fn compiled(condition: &str) -> Result<(Filter, usize), String> {
    let tree = parse::parse(condition.as_bytes(), 100).map_err(|error| error.to_string())?;
    let (filter, hints) = Filter::new(&tree, Catalogue::builtin()).map_err(|error| error.to_string())?;
    Ok((filter, hints.len()))
}

fn holds(condition: &str) -> bool {
    compiled(condition).unwrap_or_else(|error| panic!("{condition}: {error}")).0.evaluate(&Event) == Outcome::True
}

fn events(condition: &str) -> Option<EventSet> {
    condition_events(&parse::parse(condition.as_bytes(), 100).expect("a condition")).ok()
}

#[test]
fn getopt_lists_a_missing_argument_as_an_empty_text_alone() {
    assert!(holds(r#"len(getopt(("-v", "-o"), "vo:")) = 2"#));
    assert!(holds(r#"getopt(("-v", "-o"), "vo:") intersects ("")"#));
    assert!(!holds(r#"getopt(("-v", "-o"), "vo:") intersects (o)"#));
    // An option may be given twice in the list of options; one colon is enough.
    assert!(holds(r#"getopt(("-o", "x"), "oo:")[o] = x"#));
}

#[test]
fn what_getopt_makes_is_a_single_text_to_other_transformers() {
    assert!(compiled(r#"join("-", getopt(("-a"), "a")) = a"#).is_err());
    assert!(holds(r#"concat(getopt(("-a", "-b"), "ab"), "z") = az"#));
    assert!(compiled(r#"concat(getopt(("x"), "a"), "z") exists"#).is_ok());
    assert!(!holds(r#"concat(getopt(("x"), "a"), "z") exists"#));
}

#[test]
fn transformers_see_the_whole_value() {
    assert!(holds("basename(proc.exe) = b"));
    assert!(holds("len(proc.exe) = 1"));
}

#[test]
fn literals_that_look_like_something_else_are_pointed_at() {
    for (condition, hints) in [
        // An anchor or a wildcard counts at the very end only.
        ("proc.name regex ^cat$", 1),
        ("proc.name regex .*cat", 1),
        ("proc.name regex ^.*cat", 0),
        ("proc.name regex cat.*$", 0),
        ("proc.name regex .*.+", 1),
        ("proc.name regex c.t", 0),
        // Blanks do not count; what is in the parentheses does not either.
        ("proc.name = \" proc.pname\"", 1),
        ("proc.name = \"val(proc.pname)\"", 1),
        ("proc.name = \"tolower(anything)\"", 1),
        ("proc.name = \"lower(proc.pname)\"", 0),
        ("proc.name in (\"len()\", proc.nosuch, proc.pname)", 2),
    ] {
        assert_eq!(compiled(condition).map(|found| found.1), Ok(hints), "{condition}");
    }
}

#[test]
fn buffers_and_numbers_have_bounds() {
    let digits = |bytes: usize| format!("evt.buffer bcontains {}", "ab".repeat(bytes));
    assert!(compiled(&digits(255)).is_ok());
    assert!(compiled(&digits(256)).is_err());
    assert!(compiled("fd.snet = 10.0.0.0/264").is_ok());
    assert!(compiled("fd.snet = 10.0.0.0/99999999999999999999999").is_err());
}

#[test]
fn indices_may_have_a_sign() {
    assert!(compiled("proc.aname[+2] = cat").is_ok());
    assert!(compiled("proc.aname[-1] = cat").is_ok());
    assert!(compiled("proc.aname[1.5] = cat").is_err());
    assert!(compiled("proc.aname[-] = cat").is_err());
}

#[test]
fn only_own_events_have_a_type_field() {
    assert!(compiled("evt.type.is.openat = 1").is_ok());
    assert!(compiled("evt.type.is.uname = 1").is_err());
}

#[test]
fn event_sets_follow_what_the_literals_are_at_run_time() {
    let all = Some(EventSet::all());
    let none = Some(EventSet::EMPTY);
    for (condition, want) in [
        ("evt.num < 1", none),
        ("evt.num < 0x10", all),
        ("not evt.num >= 1.5", all),
        ("evt.num < 18446744073709551615", all),
        ("not evt.num >= 1", none),
        ("evt.num[1] = 0", all),
        ("evt.num in (0, 00)", none),
        ("tolower(proc.name) exists", all),
        ("tolower(evt.type) exists", None),
        ("tolower(evt.type) contains open", all),
        // The left side alone decides.
        ("proc.name = val(evt.type)", all),
        ("evt.type = val(proc.name)", None),
        // Of a list inside of a transformer the last element counts.
        ("join(\"-\", (proc.name, evt.type)) = x", None),
        ("join(\"-\", (evt.type, proc.name)) = x", all),
    ] {
        assert_eq!(events(condition), want, "{condition}");
    }
}

#[test]
fn places_are_where_things_begin() {
    let place = |condition: &str| {
        let tree = parse::parse(condition.as_bytes(), 100).expect("a condition");
        (tree.pos().index, tree)
    };
    assert_eq!(place("  proc.name=a and proc.name=b").0, 2);
    assert_eq!(place("  proc.name=a or proc.name=b").0, 0);
    assert_eq!(place("not (  proc.name=a or proc.name=b)").0, 0);
    let (_, tree) = place("not (  proc.name=a or proc.name=b)");
    let Expr::Not(child, _) = tree.as_ref() else { panic!("not a negation") };
    assert_eq!(child.pos().index, 7);
    let (_, tree) = place("concat(proc.name, proc.exe) = a");
    let Expr::Check { left: Operand::Transform { args, .. }, .. } = tree.as_ref() else { panic!("not a check") };
    let [_, TransformArg::Operand(second)] = args.as_slice() else { panic!("not two arguments") };
    assert_eq!(second.pos().index, 17);
}

#[test]
fn a_bad_escape_empties_a_list_that_ends_right_there() {
    assert!(parse::parse(br#"proc.name in ("a\q")"#, 100).is_ok());
    assert!(parse::parse(br#"proc.name in ("a\q" )"#, 100).is_err());
    assert!(parse::parse(b"proc.name in ( )", 100).is_ok());
}

#[test]
fn bare_texts_end_at_any_white_space() {
    assert!(parse::parse(b"proc.name = a\x0bb", 100).is_err());
    assert!(parse::parse(b"proc.name = a\x08b", 100).is_ok());
}

#[test]
fn formats_report_the_transformed_values_that_were_not_transformed_again() {
    let keys = |format: &str| {
        let format = Format::parse(format.as_bytes(), Catalogue::builtin()).expect("a format");
        let found = format.json(&Event, true).expect("values");
        found.as_object().expect("an object").keys().cloned().collect::<Vec<_>>()
    };
    assert_eq!(keys("%tolower(toupper(proc.name))"), ["proc.name", "tolower(toupper(proc.name))"]);
    assert_eq!(
        keys("%concat(tolower(proc.name),proc.pname)"),
        ["concat(tolower(proc.name),proc.pname)", "proc.name", "proc.pname", "tolower(proc.name)"]
    );
    assert_eq!(
        keys("%concat(proc.name,tolower(proc.pname))"),
        ["concat(proc.name,tolower(proc.pname))", "proc.name", "proc.pname"]
    );
}

fn load(text: &str) -> Result<(RuleSet, Vec<String>), String> {
    let sources = [Source { name: "rules.yaml", text: text.as_bytes() }];
    // Without what the configuration adds to outputs.
    let options = LoadOptions { append_output: Vec::new(), ..LoadOptions::default() };
    match RuleSet::load(&sources, &options) {
        Ok((set, found)) => Ok((set, found.iter().map(|found| found.code.name().to_owned()).collect())),
        Err(LoadError { diagnostics }) => {
            Err(diagnostics.last().map(|last| last.code.name().to_owned()).unwrap_or_default())
        }
    }
}

fn error(text: &str) -> String {
    load(text).err().unwrap_or_else(|| panic!("loaded: {text}"))
}

/// A rule, and more of it.
fn rule(more: &str) -> String {
    let more = if more.is_empty() { String::new() } else { format!("  {}\n", more.replace('\n', "\n  ")) };
    format!("- rule: r\n  desc: d\n  condition: evt.type=open\n  output: o\n  priority: INFO\n{more}")
}

#[test]
fn shapes_are_checked_before_what_an_item_changes() {
    // There is no such rule, but that the value is no boolean comes first.
    let text = "- rule: x\n  enabled: maybe\n  override: {enabled: replace}\n";
    assert_eq!(error(text), "LOAD_ERR_YAML_VALIDATE");
    // There is no such rule: what else is wrong with the keys is not looked at.
    let text = "- rule: x\n  desc: d\n  output: o\n  override: {desc: append}\n";
    assert_eq!(error(text), "LOAD_ERR_VALIDATE");
    let text = rule("") + "- rule: r\n  desc: d\n  output: o\n  override: {desc: append}\n";
    assert_eq!(error(&text), "LOAD_ERR_YAML_VALIDATE");
    // A redefinition with another source and a wrong value.
    let text = rule("") + &rule("source: other\nenabled: 1");
    assert_eq!(error(&text), "LOAD_ERR_YAML_VALIDATE");
    let text = "- required_plugin_versions:\n  - {name: a, version: x, alternatives: [{name: b}]}\n";
    assert_eq!(error(text), "LOAD_ERR_YAML_VALIDATE");
}

#[test]
fn exceptions_that_say_nothing() {
    assert_eq!(error(&rule("exceptions: [{name: e, fields: []}]")), "LOAD_ERR_VALIDATE");
    assert_eq!(error(&rule("exceptions: [{name: e, fields: }]")), "LOAD_ERR_VALIDATE");
    assert_eq!(error(&rule("exceptions: [{name: e, fields: \"\"}]")), "LOAD_ERR_YAML_VALIDATE");
    assert_eq!(
        error(&rule("exceptions: [{name: e, fields: [proc.name], values: [[\"\"]]}]")),
        "LOAD_ERR_YAML_VALIDATE"
    );
    assert_eq!(error(&rule("exceptions: [{name: e, fields: [[proc.name]]}]")), "LOAD_ERR_VALIDATE");
    let text = rule("exceptions: [{name: e, fields: [proc.name], comps: [], values: [[cat]]}]");
    let (set, _) = load(&text).expect("rules");
    assert_eq!(set.rules()[0].condition, "(evt.type = open and not proc.name = cat)");
    let text = rule("exceptions: [{name: e, fields: proc.name, values: [cat]}]")
        + "- rule: r\n  exceptions: [{name: e, fields: [], values: [dog]}]\n  override: {exceptions: append}\n";
    let (set, _) = load(&text).expect("rules");
    assert_eq!(set.rules()[0].condition, "(evt.type = open and not proc.name in (cat, dog))");
    // Values keep the blanks around them; operators do not.
    let text = rule("exceptions: [{name: e, fields: [proc.name], comps: [\" != \"], values: [[\" cat\"]]}]");
    let (set, _) = load(&text).expect("rules");
    assert_eq!(set.rules()[0].condition, "(evt.type = open and not proc.name != \" cat\")");
    assert!(load(&(rule("") + "- rule: r\n  exceptions:\n  append: true\n")).is_ok());
}

#[test]
fn empty_texts_in_lists_are_items() {
    let text = "- list: l\n  items: [\"\", a]\n".to_owned()
        + &rule("tags: [\"\"]").replace("evt.type=open", "evt.type=open and proc.name in (l)");
    let (set, _) = load(&text).expect("rules");
    assert_eq!(set.rules()[0].condition, "(evt.type = open and proc.name in (a))");
    assert_eq!(set.rules()[0].tags, [""]);
    assert_eq!(error(&rule("source: \"\"")), "LOAD_ERR_YAML_VALIDATE");
}

#[test]
fn numbers_and_versions_of_files() {
    assert!(load(&rule("capture_duration: 0x10")).is_ok_and(|(set, _)| set.rules()[0].capture_duration == 16));
    assert_eq!(error(&rule("capture_duration: -1")), "LOAD_ERR_YAML_VALIDATE");
    for (version, want) in [
        ("0x3f", Ok(())),
        ("0.26.0-rc1", Ok(())),
        ("64", Err("LOAD_ERR_VALIDATE")),
        ("0.26", Err("LOAD_ERR_YAML_VALIDATE")),
        ("x.1.2", Err("LOAD_ERR_YAML_VALIDATE")),
    ] {
        let got = load(&format!("- required_engine_version: {version}\n")).map(|_| ());
        assert_eq!(got, want.map_err(str::to_owned), "{version}");
    }
}

#[test]
fn outputs_that_do_not_compile() {
    let skipping =
        |output: &str| rule("skip-if-unknown-filter: true").replace("output: o", &format!("output: {output}"));
    assert_eq!(load(&skipping("'%nosuch.field'")).expect("rules").1, ["LOAD_UNKNOWN_FILTER"]);
    assert_eq!(error(&skipping("'100%'")), "LOAD_ERR_COMPILE_OUTPUT");
    assert_eq!(error(&skipping("'%5'")), "LOAD_ERR_COMPILE_OUTPUT");
}

#[test]
fn places_in_files_of_any_kind() {
    let place = |text: &[u8]| {
        let result = RuleSet::load(&[Source { name: "rules.yaml", text }], &LoadOptions::default());
        let error = result.map(|_| ()).expect_err("an error");
        let last = error.diagnostics.last().expect("a diagnostic").clone();
        let place = last.place().expect("a place").clone();
        json!([last.code.name(), place.line, place.column, last.snippet])
    };
    let wrong = "- rule: r\n  desc: d\n  condition: evt.type=open\n  output: o\n  priority: soon\n";
    let want = json!(["LOAD_ERR_YAML_VALIDATE", 5, 13, "  priority: soon"]);
    assert_eq!(place(wrong.as_bytes()), want);
    assert_eq!(place(wrong.replace('\n', "\r\n").as_bytes()), want);
    assert_eq!(place(format!("\u{feff}{wrong}").as_bytes()), want);
    let text = wrong.replace("priority: soon", "priority: {\"\u{e4}\u{20ac}\": soon}");
    assert_eq!(
        place(text.as_bytes()),
        json!(["LOAD_ERR_YAML_VALIDATE", 5, 13, "  priority: {\"\u{e4}\u{20ac}\": soon}"])
    );
    assert_eq!(place(b"- rule: r\n\tdesc: d\n")[1], 2);
}
