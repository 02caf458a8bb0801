//! Our own rules against their cases, and upstream's rule files as they are.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test fails by panicking and skips aloud"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use purser_rules::cases::CaseFile;
use purser_rules::{LoadOptions, RuleSet, Source, default_sources};

fn own_rules() -> RuleSet {
    let (rules, diagnostics) = RuleSet::load(&default_sources(), &LoadOptions::default()).expect("our own rules load");
    let shown: Vec<String> = diagnostics.iter().map(ToString::to_string).collect();
    assert!(shown.is_empty(), "{}", shown.join("\n"));
    rules
}

fn own_cases() -> CaseFile {
    CaseFile::parse(include_str!("../rulesets/purser_test.yaml")).expect("cases")
}

#[test]
fn own_rules_fire_and_stay_silent_as_their_cases_say() {
    let results = own_cases().run(&own_rules()).expect("cases");
    let wrong: Vec<_> = results.iter().filter(|result| !result.passed()).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_enabled_rule_of_ours_has_a_case_that_fires_it() {
    let fired: BTreeSet<String> = own_cases().cases.into_iter().flat_map(|case| case.fires).collect();
    let rules = own_rules();
    let untested: Vec<_> = rules.rules().iter().filter(|rule| rule.enabled && !fired.contains(&rule.name)).collect();
    assert!(untested.is_empty(), "{untested:#?}");
    assert!(rules.rules().len() >= 10);
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
fn own_rules_need_little_of_the_sensor() {
    let rules = own_rules();
    let needs = rules.needs();
    assert!(!needs.environment(), "no rule reads the environment");
    assert!(needs.opens.read && needs.opens.write);
    let names: Vec<&str> = needs.events.names();
    assert!(!names.contains(&"read") && !names.contains(&"unlink"), "{names:?}");
    assert_eq!(needs.container_only, needs.events, "every rule of ours is about containers");
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

fn warnings(dir: &Path, files: &[&str]) -> Vec<String> {
    let texts: Vec<_> = files.iter().map(|file| std::fs::read(dir.join(file)).expect("rule file")).collect();
    let sources: Vec<_> = files.iter().zip(&texts).map(|(name, text)| Source { name, text }).collect();
    let (rules, diagnostics) = RuleSet::load(&sources, &LoadOptions::default()).expect("upstream's rules load");
    assert!(!rules.rules().is_empty());
    diagnostics.iter().map(|found| found.code.name().to_owned()).collect()
}

const MATURITY: [&str; 3] = ["falco_rules.yaml", "falco-incubating_rules.yaml", "falco-sandbox_rules.yaml"];

#[test]
fn upstream_files_load_without_a_word() {
    let Some(dir) = upstream() else { return };
    for file in MATURITY {
        assert_eq!(warnings(&dir, &[file]), Vec::<String>::new(), "{file}");
    }
    assert_eq!(warnings(&dir, &MATURITY), Vec::<String>::new());
    // The archive compares with fields that upstream has deprecated; it says so, too.
    assert_eq!(warnings(&dir, &["falco-deprecated_rules.yaml"]), ["LOAD_DEPRECATED_ITEM"; 4]);
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
}
