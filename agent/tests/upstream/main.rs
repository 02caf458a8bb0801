//! Upstream's rule files as they are, on this kernel and with real containers: each rule that they enable is fired by
//! one trigger and left alone by its near miss.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test fails by panicking, says why it skips, and prints a line per rule"
)]

#[path = "../common/mod.rs"]
mod common;
mod fields;
mod stage;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use purser::event::EventType;
use purser_rules::{LoadOptions, RuleSet, Source};
use stage::{KUBERNETES, Stage};
use table::{LOCAL, Live, Step, TRIALS};
use xtask::agent::{Agent, Alert, Line, Options};
use xtask::rig::containerd::Containerd;

const MATURITY: [&str; 3] = ["falco_rules.yaml", "falco-incubating_rules.yaml", "falco-sandbox_rules.yaml"];

fn upstream() -> Option<Vec<PathBuf>> {
    let directory = std::env::var_os("PURSER_FALCO_RULES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/falco/rules"), PathBuf::from);
    if directory.is_dir() {
        return Some(MATURITY.iter().map(|file| directory.join(file)).collect());
    }
    eprintln!("SKIPPED: no upstream rule files at {} (set PURSER_FALCO_RULES)", directory.display());
    None
}

fn load(files: &[PathBuf]) -> RuleSet {
    let texts: Vec<_> = files.iter().map(|file| (file.display().to_string(), fs::read(file).expect("rules"))).collect();
    let sources: Vec<_> = texts.iter().map(|(name, text)| Source { name, text }).collect();
    RuleSet::load(&sources, &LoadOptions::default()).expect("upstream's rules load").0
}

#[test]
fn the_table_has_every_enabled_rule() {
    let Some(files) = upstream() else { return };
    let rules = load(&files);
    let enabled: BTreeSet<&str> =
        rules.rules().iter().filter(|rule| rule.enabled).map(|rule| rule.name.as_str()).collect();
    let tried: BTreeSet<&str> = TRIALS.iter().map(|(rule, _)| *rule).collect();
    assert_eq!(tried.len(), TRIALS.len(), "a rule is tried once");
    assert_eq!(tried, enabled);
}

/// The events of a rule, if the sensor delivers none of them: its trigger is pulled, but cannot fire it yet.
fn postponed(rules: &RuleSet, name: &str) -> Option<String> {
    let rule = rules.rule(rules.find(name).expect("the rule is there"));
    // Every rule receives asynchronous events, too; its condition then asks for others.
    let events: Vec<&str> =
        rule.event_names().into_iter().filter(|event| !["asyncevent", "container"].contains(event)).collect();
    let delivered = events.iter().any(|name| EventType::ALL.iter().any(|event| event.name() == *name));
    (!delivered).then(|| events.join(", "))
}

/// The agent, in a mount namespace where the name of the Kubernetes API has an address; mounts of the machine still
/// come in, and nothing goes out.
fn agent(directory: &Path, rules: Vec<PathBuf>) -> Agent {
    let hosts = directory.join("hosts");
    fs::write(&hosts, format!("127.0.0.1 localhost\n{} {}\n", KUBERNETES.0, KUBERNETES.1)).expect("hosts");
    let wrapper = directory.join("agent");
    let inner = format!("mount --bind '{}' /etc/hosts && exec \"$@\"", hosts.display());
    let script = format!(
        "#!/bin/sh\nexec unshare --mount --propagation slave sh -c {} sh {} \"$@\"\n",
        shell_word(&inner),
        shell_word(env!("CARGO_BIN_EXE_purser")),
    );
    fs::write(&wrapper, script).expect("wrapper");
    fs::set_permissions(&wrapper, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("mode");
    let config = format!(
        "rule_matching: all\n\
         append_output: [{{suggested_output: true}}, {{extra_fields: [{{trigger: \"%proc.env[TRIGGER]\"}}]}}]\n\
         sensor: {{ring_bytes: 64MiB}}\n\
         manifest: {{cache_dir: {}}}\n",
        directory.join("cache").display()
    );
    let agent = Agent::start(&wrapper, &Options { config, rules, args: Vec::new() }).expect("the agent starts");
    common::until("the name of the Kubernetes API is resolved", || {
        agent.get("/metrics").is_ok_and(|(_, text)| text.contains("purser_domains{state=\"known\"} 1"))
    });
    agent
}

fn shell_word(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// What the alert is about: the last argument of a process that the runtime started, or the variable that it was given.
fn token(alert: &Alert) -> Option<String> {
    let argument = alert.output.split_once("trigger=").and_then(|(_, rest)| rest.split(' ').next());
    // A variable that is not set is empty.
    argument.or(alert.field("trigger")).filter(|token| !token.is_empty()).map(str::to_owned)
}

/// The steps of the table, each with its token.
fn steps() -> Vec<(String, Step)> {
    let mut steps = Vec::new();
    for (at, (_, Live(fires, near))) in TRIALS.iter().enumerate() {
        steps.push((token_of(at, "fires", *fires), *fires));
        steps.push((token_of(at, "near", *near), *near));
    }
    steps
}

fn token_of(at: usize, kind: &str, step: Step) -> String {
    match step {
        Step::PlainStarts => "plain-starts".to_owned(),
        Step::PrivilegedStarts => "privileged-starts".to_owned(),
        Step::TrustedStarts => "trusted-starts".to_owned(),
        _ => format!("{kind}-{at}"),
    }
}

/// Names of the programs that the steps run beside the payload.
fn programs(steps: &[(String, Step)]) -> BTreeSet<&'static str> {
    let mut programs = BTreeSet::from(["payload"]);
    for (_, step) in steps {
        let (Step::Run(_, args) | Step::Slow(_, args) | Step::Exec(args) | Step::ExecWithTerminal(args)) = step else {
            continue;
        };
        programs.insert(args[0].rsplit('/').next().unwrap_or(args[0]));
        // What others start or become.
        for pair in args.windows(3) {
            if matches!(pair[0], "times" | "user" | "with") {
                programs.insert(pair[2]);
            }
        }
        if let Some(at) = args.iter().position(|arg| *arg == "terminal") {
            programs.extend(args.get(at + 1));
        }
    }
    programs
}

#[test]
fn every_enabled_rule_fires_on_its_trigger_and_not_on_its_near_miss() {
    let Some(files) = upstream() else { return };
    if !common::is_root() {
        return;
    }
    let steps = steps();
    for _ in 0..3 {
        let (fired, statuses, lost) = pull(&files, &steps);
        if lost.values().all(|lost| *lost == 0) {
            let wrong = judge(&load(&files), &fired, &statuses);
            assert!(wrong.is_empty(), "{wrong:#?}");
            return;
        }
        println!("once more: this machine does so much else that events were lost: {lost:?}");
    }
    panic!("events were lost each time");
}

/// Pulls every trigger once: rules by token, wait statuses by token, and what of the whole machine's events was lost on the
/// way to the rules.
#[expect(clippy::type_complexity, reason = "three maps for one reader")]
fn pull(
    files: &[PathBuf],
    steps: &[(String, Step)],
) -> (BTreeMap<String, BTreeSet<String>>, BTreeMap<String, i32>, BTreeMap<String, u64>) {
    let directory = tempfile::tempdir().expect("directory");
    let programs = programs(steps);
    let rig = Containerd::start().expect("containerd");
    stage::import(&rig, directory.path(), &programs);
    let local = common::rules_file(directory.path(), LOCAL);
    let agent = agent(directory.path(), [files, &[local]].concat());

    let mut stage = Stage::new(&rig, directory.path(), &programs, |step| token_of(0, "", step));
    stage.run(steps);
    // Every event is in the kernel's ring by now; an agent that ends reads it to its end.
    let (lines, summary) = agent.stop().expect("summary");
    let stages = ["kernel", "decode", "sink"].map(|stage| summary.lost.get(stage).cloned().unwrap_or_default());
    (fired(lines, steps), std::mem::take(&mut stage.statuses), stages.into_iter().flatten().collect())
}

/// Rules by token.
fn fired(lines: Vec<Line>, steps: &[(String, Step)]) -> BTreeMap<String, BTreeSet<String>> {
    let known: BTreeSet<&str> = steps.iter().map(|(token, _)| token.as_str()).collect();
    let mut fired: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in lines {
        let alert = line.alert.expect("an alert");
        if let Some(token) = token(&alert).filter(|token| known.contains(token.as_str())) {
            fired.entry(token).or_default().insert(alert.rule);
        }
    }
    fired
}

/// Prints a line per rule; gives what is wrong.
fn judge(rules: &RuleSet, fired: &BTreeMap<String, BTreeSet<String>>, statuses: &BTreeMap<String, i32>) -> Vec<String> {
    let mut wrong = Vec::new();
    let (mut live, mut later) = (0, 0);
    for (at, (rule, Live(fires, near))) in TRIALS.iter().enumerate() {
        let (fires, near) = (token_of(at, "fires", *fires), token_of(at, "near", *near));
        let has = |token: &String| fired.get(token).is_some_and(|rules| rules.contains(*rule));
        // A trigger that was never pulled proves nothing, a near miss neither.
        let broken = [&fires, &near].map(|token| statuses.get(token).is_some_and(|status| *status != 0));
        let verdict = match (has(&fires), has(&near), broken, postponed(rules, rule)) {
            (_, _, [true, _], _) => "WRONG: its trigger failed",
            (_, _, [_, true], _) => "WRONG: its near miss failed",
            (true, _, _, Some(_)) | (_, true, _, Some(_)) => "WRONG: fired without any of its events",
            (false, false, _, Some(events)) => {
                println!("later   {rule}: comes with {events}");
                later += 1;
                continue;
            }
            (false, ..) => "WRONG: silent",
            (true, true, ..) => "WRONG: fired on its near miss",
            (true, false, ..) => {
                println!("fired   {rule}; its near miss was silent");
                live += 1;
                continue;
            }
        };
        println!("{verdict}: {rule}");
        wrong.push(format!("{rule}: {verdict} ({fires}: {:?}, {near}: {:?})", fired.get(&fires), fired.get(&near)));
    }
    println!("{live} fired with a silent near miss, {} wrong, {later} later, of {} rules", wrong.len(), TRIALS.len());
    wrong
}
