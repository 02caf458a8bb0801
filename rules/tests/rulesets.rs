//! Our own rules against their cases, and upstream's rule files as they are.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test fails by panicking and skips aloud"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use purser_rules::cases::{Case, CaseFile};
use purser_rules::parse::{self, Expr, Right};
use purser_rules::{DEFAULT_RULES, EventSet, LoadOptions, Rule, RuleIndex, RuleSet, Source, default_sources};
use serde_yaml::Value as Yaml;

/// Each rule file of ours with its cases.
fn own_files() -> [(&'static str, &'static str, CaseFile); 2] {
    let [(first, first_text), (second, second_text)] = DEFAULT_RULES else { panic!("two files: {DEFAULT_RULES:?}") };
    let supply_chain = CaseFile::parse(include_str!("../rulesets/supply-chain_test.yaml")).expect("cases");
    let runtime = CaseFile::parse(include_str!("../rulesets/runtime_test.yaml")).expect("cases");
    [(first, first_text, supply_chain), (second, second_text, runtime)]
}

fn loaded(sources: &[Source<'_>]) -> RuleSet {
    let (rules, diagnostics) = RuleSet::load(sources, &LoadOptions::default()).expect("our own rules load");
    let shown: Vec<String> = diagnostics.iter().map(ToString::to_string).collect();
    assert!(shown.is_empty(), "{}", shown.join("\n"));
    rules
}

fn own_rules() -> RuleSet {
    loaded(&default_sources())
}

#[test]
fn own_rules_fire_and_stay_silent_as_their_cases_say() {
    let all = own_rules();
    for (name, text, cases) in own_files() {
        assert_eq!(cases.rules, [name]);
        // A file can be loaded alone, and together with the other no rule says the same thing twice.
        let alone = loaded(&[Source { name, text: text.as_bytes() }]);
        for rules in [&alone, &all] {
            let results = cases.run(rules).expect("cases");
            let wrong: Vec<_> = results.iter().filter(|result| !result.passed()).collect();
            assert!(wrong.is_empty(), "{name}: {wrong:#?}");
        }
    }
}

#[test]
fn every_rule_of_ours_has_a_case_that_fires_it_and_a_near_one_that_does_not() {
    for (name, text, cases) in own_files() {
        let rules = loaded(&[Source { name, text: text.as_bytes() }]);
        for rule in rules.rules() {
            let (fired, silent): (Vec<_>, Vec<_>) =
                cases.cases.iter().filter(|case| asks(case, rule)).partition(|case| case.fires.contains(&rule.name));
            assert!(!fired.is_empty(), "{}: no case fires it", rule.name);
            let near = silent.iter().any(|silent| fired.iter().any(|fired| distance(&cases, fired, silent) <= NEAR));
            assert!(near, "{}: no silent case differs in at most {NEAR} fields from one that fires it", rule.name);
        }
    }
}

/// A program, its command line and one thing more.
const NEAR: usize = 3;

/// Whether a case evaluates a rule.
fn asks(case: &Case, rule: &Rule) -> bool {
    let event = EventSet::named(&case.event);
    (rule.enabled || case.enable.contains(&rule.name)) && !rule.events.intersection(&event).is_empty()
}

/// In how many fields two cases differ.
fn distance(file: &CaseFile, one: &Case, other: &Case) -> usize {
    let value = |case: &Case, field: &String| case.fields.get(field).or(file.defaults.get(field)).cloned();
    let fields: BTreeSet<_> = one.fields.keys().chain(other.fields.keys()).collect();
    fields.into_iter().filter(|field| value(one, field) != value(other, field)).count()
}

#[test]
fn every_exception_of_ours_excuses_a_case() {
    for (name, text, cases) in own_files() {
        let items: Vec<Yaml> = serde_yaml::from_str(text).expect("YAML");
        let mut tried = 0;
        for item in items.iter().filter(|item| item.get("exceptions").is_some()) {
            let rule = item["rule"].as_str().expect("a rule");
            let exceptions = item["exceptions"].as_sequence().expect("exceptions");
            for nth in (0..exceptions.len()).filter(|nth| exceptions[*nth].get("values").is_some()) {
                let mut without = item.clone();
                without["exceptions"][nth].as_mapping_mut().expect("an exception").remove("values");
                let excused = fires_on_a_silent_case(rule, without, &items, &cases);
                assert!(excused, "{rule}: no case needs the exception {:?}", exceptions[nth]["name"]);
                tried += 1;
            }
        }
        assert!(name != "runtime.yaml" || tried > 30, "{name}: {tried}");
    }
}

/// Whether `rule`, changed to `changed`, fires on one of the cases on which it is to stay silent.
fn fires_on_a_silent_case(rule: &str, changed: Yaml, items: &[Yaml], cases: &CaseFile) -> bool {
    let mut file: Vec<_> = items.iter().filter(|item| item.get("rule").is_none()).cloned().collect();
    file.push(changed);
    let text = serde_yaml::to_string(&file).expect("YAML");
    let source = Source { name: "changed.yaml", text: text.as_bytes() };
    let (rules, _) = RuleSet::load(&[source], &LoadOptions::default()).expect("the changed rule loads");
    let mut cases = cases.clone();
    cases.cases.retain(|case| !case.fires.iter().any(|fires| fires == rule));
    for case in &mut cases.cases {
        case.fires.clear();
        case.enable.retain(|enabled| enabled == rule);
    }
    cases.run(&rules).expect("cases").iter().any(|result| !result.passed())
}

#[test]
fn words_that_both_files_have_are_alike() {
    let mut words: BTreeMap<String, Yaml> = BTreeMap::new();
    let mut shared = 0;
    for (name, text, _) in own_files() {
        let items: Vec<Yaml> = serde_yaml::from_str(text).expect("YAML");
        for item in items {
            let Some(word) = item.get("macro").or(item.get("list")).and_then(Yaml::as_str) else { continue };
            if let Some(earlier) = words.insert(word.to_owned(), item.clone()) {
                assert_eq!(earlier, item, "{name}: {word}");
                shared += 1;
            }
        }
    }
    assert!(shared > 0);
}

#[test]
fn every_rule_of_ours_says_what_it_is_about() {
    for rule in own_rules().rules() {
        let has = |wanted: &dyn Fn(&str) -> bool| rule.tags.iter().any(|tag| wanted(tag));
        let technique = |tag: &str| {
            tag.strip_prefix('T').is_some_and(|number| {
                number.split('.').map(str::len).eq([4]) || number.split('.').map(str::len).eq([4, 3])
            })
        };
        assert!(has(&|tag| tag.starts_with("mitre_")) && has(&technique), "{}: {:?}", rule.name, rule.tags);
        assert!(has(&|tag| tag == "container" || tag == "host"), "{}: {:?}", rule.name, rule.tags);
        assert_eq!(rule.enabled, !rule.desc.contains("Off by default"), "{}: why is it off?", rule.name);
    }
}

#[test]
fn a_case_that_expects_the_wrong_rule_fails() {
    let cases =
        CaseFile::parse("cases: [{name: n, event: finit_module, fields: {container.id: a}, fires: [Program moved]}]")
            .expect("cases");
    let results = cases.run(&own_rules()).expect("cases");
    assert_eq!(results[0].missing, ["Program moved"]);
    assert_eq!(results[0].unexpected, ["Kernel module loaded from a container"]);
}

#[test]
fn a_case_can_turn_a_rule_on() {
    let case = |more: &str| {
        let text = format!(
            "cases: [{{name: n, event: execve, {more}, fields: {{container.id: a, evt.failed: false, \
             manifest.verdict: foreign, proc.cmdline: x -a b}}}}]"
        );
        CaseFile::parse(&text).expect("cases").run(&own_rules())
    };
    let fires = "fires: [Program of another image]";
    assert_eq!(case(fires).expect("cases")[0].missing, ["Program of another image"]);
    assert!(case(&format!("enable: [Program of another image], {fires}")).expect("cases")[0].passed());
    let unknown = case("enable: [No such rule]").expect_err("no such rule").to_string();
    assert!(unknown.contains("there is no rule \"No such rule\""), "{unknown}");
}

#[test]
fn what_follows_from_fields_of_a_case_need_not_be_given() {
    let rules = "
- rule: Follows
  desc: d
  condition: >
    evt.type = execve and proc.name = nc and proc.args = \"-e sh\" and proc.args[1] = sh and proc.cmdnargs = 2
    and proc.pname = bash and proc.aname[2] = sshd and proc.pexepath = /bin/bash and not proc.aexepath[2] exists
  output: o
  priority: NOTICE
";
    let rules = loaded(&[Source { name: "follows.yaml", text: rules.as_bytes() }]);
    let cases = "
defaults: {proc.cmdline: id, proc.aexepath: [/bin/x, /bin/y]}
cases:
  - name: follows
    event: execve
    fields: {proc.cmdline: nc -e sh, proc.aname: [bash, sshd], proc.aexepath: [/bin/bash]}
    fires: [Follows]
  - {name: another command, event: execve, fields: {proc.aname: [bash, sshd], proc.aexepath: [/bin/bash]}}
";
    let results = CaseFile::parse(cases).expect("cases").run(&rules).expect("cases");
    assert!(results.iter().all(purser_rules::cases::CaseResult::passed), "{results:?}");
}

#[test]
fn own_rules_need_little_of_the_sensor() {
    let rules = own_rules();
    let needs = rules.needs();
    assert!(!needs.environment(), "no rule that is on reads the environment");
    assert!(needs.opens.read && needs.opens.write);
    let names = needs.events.names();
    for never in ["read", "write", "mmap", "close", "stat", "getdents64"] {
        assert!(!names.contains(&never), "{names:?}");
    }
    // What a host does all the time stays in the kernel unless it is done in a container.
    let of_host = needs.events.intersection(&needs.container_only.complement());
    assert_eq!(of_host.names(), ["bpf", "execve", "execveat", "ptrace", "setresuid", "setuid"]);
    for open in ["open", "openat", "openat2", "creat"] {
        assert!(needs.events.names().contains(&open) && !needs.failed.names().contains(&open), "{open}");
    }
}

fn upstream() -> Option<PathBuf> {
    let dir = std::env::var_os("PURSER_FALCO_RULES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/falco/rules"), PathBuf::from);
    if dir.is_dir() {
        return Some(dir);
    }
    eprintln!("SKIPPED: no upstream rule files at {} (set PURSER_FALCO_RULES)", dir.display());
    None
}

/// How many rules the files have, and the codes of what is said of them.
fn upstream_says(dir: &Path, files: &[&str]) -> (usize, Vec<String>) {
    let texts: Vec<_> = files.iter().map(|file| std::fs::read(dir.join(file)).expect("rule file")).collect();
    let sources: Vec<_> = files.iter().zip(&texts).map(|(name, text)| Source { name, text }).collect();
    let (rules, diagnostics) = RuleSet::load(&sources, &LoadOptions::default()).expect("upstream's rules load");
    (rules.rules().len(), diagnostics.iter().map(|found| found.code.name().to_owned()).collect())
}

const MATURITY: [&str; 3] = ["falco_rules.yaml", "falco-incubating_rules.yaml", "falco-sandbox_rules.yaml"];

#[test]
fn upstream_files_load_without_a_word_that_upstream_does_not_say() {
    let Some(dir) = upstream() else { return };
    let silent = |rules| (rules, Vec::<String>::new());
    for (file, rules) in MATURITY.iter().zip([25, 31, 37]) {
        assert_eq!(upstream_says(&dir, &[file]), silent(rules), "{file}");
    }
    assert_eq!(upstream_says(&dir, &MATURITY), silent(93));
    assert_eq!(upstream_says(&dir, &MATURITY[..2]), silent(56));
    let said = |code: &str, times| vec![code.to_owned(); times];
    // The archives: one compares with a field that is deprecated, the other has macros alone, some of which nothing uses.
    assert_eq!(upstream_says(&dir, &["falco-deprecated_rules.yaml"]), (4, said("LOAD_DEPRECATED_ITEM", 4)));
    assert_eq!(upstream_says(&dir, &["application_rules.yaml"]), (0, said("LOAD_UNUSED_MACRO", 12)));
    // Macros of the deprecated file replace those of the same name that eight rules of the others use.
    let four = [MATURITY.as_slice(), &["falco-deprecated_rules.yaml"]].concat();
    assert_eq!(upstream_says(&dir, &four), (97, said("LOAD_DEPRECATED_ITEM", 12)));
    // Every file that is added compiles all of them again, and says it again.
    let five = [four.as_slice(), &["application_rules.yaml"]].concat();
    let again = [said("LOAD_DEPRECATED_ITEM", 24), said("LOAD_UNUSED_MACRO", 12)].concat();
    let (rules, mut codes) = upstream_says(&dir, &five);
    codes.sort();
    assert_eq!((rules, codes), (97, again));
}

#[test]
fn upstream_files_together_have_all_rules() {
    let Some(dir) = upstream() else { return };
    let texts: Vec<_> = MATURITY.iter().map(|file| std::fs::read(dir.join(file)).expect("rule file")).collect();
    let sources: Vec<_> = MATURITY.iter().zip(&texts).map(|(name, text)| Source { name, text }).collect();
    let (rules, _) = RuleSet::load(&sources, &LoadOptions::default()).expect("upstream's rules load");
    assert_eq!(rules.rules().len(), 93);
    assert_eq!(rules.rules().iter().filter(|rule| rule.enabled).count(), 81);
    assert!(rules.needs().environment(), "two incubating rules read the environment");
    assert!(!rules.needs().events.names().contains(&"getpid"));
    // The rule about miners, which mentions many names more, is not enabled.
    assert_eq!(rules.needs().domains, ["kubernetes.default.svc.cluster.local"]);
}

/// A tree without the places of its nodes.
fn shape(expr: &Expr) -> String {
    let shown = format!("{expr:?}");
    let mut parts = shown.split("Pos { index: ");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.split_once('}').map_or(part, |(_, rest)| rest))
}

/// Whether Falco's print of a condition cannot be read again: it has no quotes around an empty text, none around one with a
/// parenthesis or a comma unless there is something else to quote, and a backslash at the end of a text keeps it open.
fn is_lossy(expr: &Expr) -> bool {
    let is_lost = |value: &Vec<u8>| {
        let is_bare = value.iter().any(|byte| b"(),".contains(byte)) && parse::escape(value) == *value;
        value.is_empty() || is_bare || value.ends_with(b"\\")
    };
    match expr {
        Expr::And(children, _) | Expr::Or(children, _) => children.iter().any(|child| is_lossy(child)),
        Expr::Not(child, _) => is_lossy(child),
        Expr::Check { right: Right::Value(value, _), .. } => is_lost(value),
        Expr::Check { right: Right::List(values, _), .. } => values.iter().any(is_lost),
        Expr::Macro(..) | Expr::Exists(..) | Expr::Check { .. } => false,
    }
}

/// Prints all conditions and reads them again: each is what it was. Gives the rules of which
/// that is not so, because their print is lossy.
fn printed_otherwise(rules: &RuleSet) -> Vec<&str> {
    let mut otherwise = Vec::new();
    for (rule, index) in rules.rules().iter().zip((0..).map(RuleIndex)) {
        let tree = rules.condition(index);
        let again = parse::parse(&parse::print(tree), parse::MAX_DEPTH);
        if is_lossy(tree) {
            assert_ne!(again.map(|again| shape(&again)), Ok(shape(tree)), "{}", rule.name);
            otherwise.push(rule.name.as_str());
        } else {
            assert_eq!(again.map(|again| shape(&again)), Ok(shape(tree)), "{}", rule.name);
        }
    }
    otherwise
}

#[test]
fn conditions_print_as_what_they_are() {
    let ours = own_rules();
    assert!(printed_otherwise(&ours).len() < ours.rules().len());
    let Some(dir) = upstream() else { return };
    let files = [MATURITY.as_slice(), &["falco-deprecated_rules.yaml"]].concat();
    let texts: Vec<_> = files.iter().map(|file| std::fs::read(dir.join(file)).expect("rule file")).collect();
    let sources: Vec<_> = files.iter().zip(&texts).map(|(name, text)| Source { name, text }).collect();
    let (rules, _) = RuleSet::load(&sources, &LoadOptions::default()).expect("upstream's rules load");
    let otherwise = printed_otherwise(&rules);
    assert_eq!(otherwise.len(), 7, "{otherwise:?}");
    assert!(otherwise.contains(&"Read sensitive file untrusted"), "it has a list with an empty item");
    assert!(otherwise.contains(&"Sudo Potential Privilege Escalation"), "it has a text that ends with a backslash");
}
