//! Hot reload on the real agent: rules are swapped under a stream of events that must all be seen once, files that cannot
//! be used change nothing, and the configuration is followed.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, or prints figures"
)]

mod common;
mod openmetrics;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use purser::reload::RULE as FAILED;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use xtask::agent::{Agent, Alert, Options};

/// A directory as the kubelet fills it: the files are links through `..data`, which is swapped as a whole.
struct ConfigMap {
    directory: PathBuf,
    version: u64,
}

impl ConfigMap {
    fn new(directory: &Path, files: &[(&str, String)]) -> Self {
        fs::create_dir(directory).expect("made");
        let mut map = Self { directory: directory.to_owned(), version: 0 };
        map.update(files);
        for (name, _) in files {
            symlink(Path::new("..data").join(name), directory.join(name)).expect("linked");
        }
        map
    }

    fn update(&mut self, files: &[(&str, String)]) {
        let name = |version: u64| format!("..2026_01_31_{version}");
        self.version += 1;
        let new = self.directory.join(name(self.version));
        fs::create_dir(&new).expect("made");
        for (file, text) in files {
            fs::write(new.join(file), text).expect("written");
        }
        symlink(name(self.version), self.directory.join("..data_tmp")).expect("linked");
        fs::rename(self.directory.join("..data_tmp"), self.directory.join("..data")).expect("swapped");
        // The first version has none before it.
        let _ = fs::remove_dir_all(self.directory.join(name(self.version - 1)));
    }
}

/// A number of the agent's, as Prometheus would read it.
fn metric(agent: &Agent, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let (status, body) = agent.get("/metrics").expect("metrics");
    assert_eq!(status, 200);
    openmetrics::parse(&body).expect("OpenMetrics").value(name, labels)
}

fn reloads(agent: &Agent, result: &str) -> u64 {
    metric(agent, "purser_rules_reloads_total", &[("result", result)]).expect("exported") as u64
}

/// Changes something and waits until the reload that it causes is over.
fn reloaded(agent: &Agent, result: &str, change: impl FnOnce()) {
    let before = reloads(agent, result);
    change();
    common::until(&format!("a reload is {result}"), || reloads(agent, result) > before);
}

fn rule(name: &str, condition: &str, output: &str, tag: &str) -> String {
    format!(
        "- rule: {name}\n  desc: x\n  condition: {condition}\n  output: {output}\n  priority: NOTICE\n  tags: [{tag}]\n"
    )
}

/// Starts a program whose argument is the marker.
fn run(marker: &str) {
    assert!(Command::new("/bin/true").arg(marker).status().expect("ran").success());
}

fn on_exec(name: &str, marker: &str) -> String {
    rule(name, &format!("evt.type = execve and proc.args contains {marker}"), "args=%proc.args", "own")
}

/// Programs that start and files that are opened, each with its number, until it is told to end.
struct Stream {
    end: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Stream {
    fn start(directory: &Path, mark: &'static str) -> Self {
        let (end, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (over, count, directory) = (Arc::clone(&end), Arc::clone(&sent), directory.to_owned());
        let thread = std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let number = count.load(Ordering::Relaxed);
                run(&format!("{mark}-{number}"));
                let file = directory.join(format!("{mark}-{number}"));
                fs::write(&file, "").expect("written");
                fs::remove_file(&file).expect("removed");
                count.store(number + 1, Ordering::Relaxed);
            }
        });
        Self { end, sent, thread }
    }

    fn end(self) -> u64 {
        self.end.store(true, Ordering::Relaxed);
        self.thread.join().expect("joined");
        self.sent.load(Ordering::Relaxed)
    }
}

/// Two rules on each event of these kinds in the stream with a mark; both say which set they are of.
fn counting(set: &str, kinds: &[&str], mark: &str) -> String {
    let exec = format!("evt.type = execve and proc.args startswith {mark}-");
    let open =
        format!("evt.type in (open, openat, openat2) and evt.is_open_write = true and fd.filename startswith {mark}-");
    let mut text = String::new();
    for half in ["first", "second"] {
        for (kind, condition, field) in [("exec", &exec, "proc.args"), ("open", &open, "fd.filename")] {
            if kinds.contains(&kind) {
                text += &rule(&format!("{kind} {half}"), condition, &format!("set={set} {kind}=%{field}"), "x");
            }
        }
    }
    text
}

/// `set=A exec=MARK-7` to its words.
fn words(alert: &Alert) -> (String, String, u64) {
    let (_, text) = alert.output.split_once("set=").expect("of a numbered event");
    let mut words = text.split(' ');
    let set = words.next().expect("a set").to_owned();
    let (kind, name) = words.next().and_then(|word| word.split_once('=')).expect("a kind");
    let (_, number) = name.rsplit_once('-').expect("a number");
    (set, kind.to_owned(), number.parse().expect("a number"))
}

/// Swaps two sets that both count the stream; `busy` are further rules of one of them, which make it need other things of
/// the kernel. Each event of `kinds` must be judged by one of the sets as a whole, and raise each alert once.
/// Tests may run at the same time, and each agent sees the other's stream: so each has a mark of its own.
fn swap_under_load(mark: &'static str, kinds: &[&str], busy: [String; 2]) {
    if !common::is_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("directory");
    let [before, between] = busy;
    let sets = [before + &counting("A", kinds, mark) + &between, counting("B", kinds, mark)];
    let mut map = ConfigMap::new(&directory.path().join("map"), &[("rules.yaml", sets[0].clone())]);
    let rules = vec![directory.path().join("map")];
    // A debug build beside other work may have to wait for a processor: that is not what is tested.
    let config = "rule_matching: all\noutputs_queue: {capacity: 1000000}\nsensor: {ring_bytes: 64MiB}\n".to_owned();
    let agent = common::start(&Options { rules, config, ..Options::default() });
    let stream = Stream::start(directory.path(), mark);
    for swap in 1..=24 {
        let running = stream.sent.load(Ordering::Relaxed);
        reloaded(&agent, "ok", || map.update(&[("rules.yaml", sets[swap % 2].clone())]));
        common::until("events flow", || stream.sent.load(Ordering::Relaxed) > running + 5);
    }
    let sent = stream.end();
    let duration = metric(&agent, "purser_rules_reload_duration_seconds", &[]).expect("exported");
    let (lines, summary) = agent.stop().expect("stopped");
    assert_eq!(summary.lost(), 0, "{:?}", summary.lost);
    assert_eq!((summary.reloads["ok"], summary.reloads["failed"]), (24, 0));
    let mut seen: BTreeMap<(String, u64), BTreeMap<String, Vec<String>>> = BTreeMap::new();
    for line in lines {
        let alert = line.alert.expect("an alert");
        let (set, kind, number) = words(&alert);
        seen.entry((kind, number)).or_default().entry(set).or_default().push(alert.rule);
    }
    let mut by_set: BTreeMap<&str, u64> = BTreeMap::new();
    for kind in kinds {
        for number in 0..sent {
            let sets = seen.get(&((*kind).to_owned(), number));
            let sets = sets.unwrap_or_else(|| panic!("{kind} {number} of {sent} is lost"));
            assert_eq!(sets.len(), 1, "{kind} {number} was judged by half of each set: {sets:?}");
            let (set, rules) = sets.iter().next().expect("one");
            assert_eq!(rules.len(), 2, "{kind} {number}: each rule once: {rules:?}");
            *by_set.entry(set.as_str()).or_default() += 1;
        }
    }
    assert_eq!(seen.len() as u64, kinds.len() as u64 * sent);
    assert!(by_set.len() == 2, "both sets were in force: {by_set:?}");
    println!("{sent} rounds of {kinds:?} over 24 reloads, the last of {:.1} ms: {by_set:?}", duration * 1e3);
}

#[test]
fn nothing_is_lost_or_doubled_while_rules_are_swapped() {
    let connect = rule("Failed", "evt.type = connect and evt.failed = true and fd.name = /none", "x", "x");
    let environment = rule("Environment", "evt.type = execve and proc.env contains no-such-variable", "x", "x");
    swap_under_load("swapped", &["exec", "open"], [connect, environment]);
}

#[test]
fn nothing_is_lost_while_hooks_come_and_go() {
    let open = rule("Open", "evt.type = openat and evt.is_open_write = true and fd.name = /none", "x", "x");
    let connect = rule("Connect", "evt.type = connect and evt.res = SUCCESS and fd.name = /none", "x", "x");
    swap_under_load("hooked", &["exec"], [open, connect]);
}

/// An agent with one rule file of its own.
fn agent(directory: &TempDir, rules: &str, config: &str) -> (Agent, PathBuf) {
    let path = directory.path().join("rules.yaml");
    fs::write(&path, rules).expect("written");
    let config = format!("rules_files: [{}]\n{config}", path.display());
    (common::start(&Options { config, ..Options::default() }), path)
}

/// The rules that fire on one program with this argument, up to `Last`, which always does.
fn fired(agent: &Agent, marker: &str) -> Vec<String> {
    let rules = RefCell::new(Vec::new());
    run(marker);
    common::wait_for(agent, marker, |alert| {
        if alert.output.contains(marker) {
            rules.borrow_mut().push(alert.rule.clone());
        }
        alert.output.contains(marker) && alert.rule == "Last"
    });
    rules.into_inner()
}

#[test]
fn a_bad_file_changes_nothing_and_a_good_one_does() {
    if !common::is_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("directory");
    let good = on_exec("Old", "marker") + &on_exec("Last", "marker");
    let (agent, path) = agent(&directory, &good, "rule_matching: all\n");
    assert_eq!(fired(&agent, "marker-1"), ["Old", "Last"]);
    let failed = || metric(&agent, "purser_rules_reload_failed", &[]);
    let alert_on = |what: &str| common::wait_for(&agent, what, |alert| alert.rule == FAILED);

    // A condition that does not compile: file, line and error are named.
    let bad = good.clone() + &rule("New", "no.such.field = 1", "x", "x");
    reloaded(&agent, "failed", || fs::write(&path, &bad).expect("written"));
    let alert = alert_on("a bad file");
    assert_eq!((alert.source.as_str(), alert.priority.as_str()), ("internal", "Critical"));
    assert_eq!(alert.field("file"), path.to_str());
    assert!(alert.output_fields["line"].as_u64().is_some_and(|line| line > 12), "{alert:?}");
    assert!(alert.field("error").is_some_and(|error| error.contains("no.such.field")), "{alert:?}");
    assert!(alert.output.contains(": Critical Purser internal: rules reload failed: "), "{}", alert.output);
    assert_eq!(failed(), Some(1.0));
    assert_eq!(fired(&agent, "marker-2"), ["Old", "Last"], "the old rules are in force");

    // The same error again is no other state: nothing more is said.
    fs::write(&path, &bad).expect("written");
    assert_eq!(fired(&agent, "marker-3"), ["Old", "Last"]);
    assert_eq!(agent.log().matches("rules and configuration stay as they were").count(), 1, "{}", agent.log());

    // Another one is; a file that is gone, too.
    reloaded(&agent, "failed", || fs::write(&path, "- rule: [\n").expect("written"));
    assert_eq!(alert_on("another error").field("file"), path.to_str());
    reloaded(&agent, "failed", || fs::remove_file(&path).expect("removed"));
    assert!(alert_on("a missing file").field("error").is_some_and(|error| error.contains("No such file")));
    assert_eq!(fired(&agent, "marker-4"), ["Old", "Last"]);

    // What it was before ends the failed state; the new rule comes with a file that is right.
    reloaded(&agent, "ok", || fs::write(&path, &good).expect("written"));
    assert_eq!(failed(), Some(0.0));
    assert_eq!(fired(&agent, "marker-5"), ["Old", "Last"]);
    reloaded(&agent, "ok", || fs::write(&path, on_exec("New", "marker") + &good).expect("written"));
    assert_eq!(fired(&agent, "marker-6"), ["New", "Old", "Last"]);
    // A touched file is no change.
    fs::write(&path, on_exec("New", "marker") + &good).expect("written");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(reloads(&agent, "ok"), 2);
    let count = |rule| metric(&agent, "purser_rule_matches_total", &[("rule", rule), ("priority", "Notice")]);
    assert_eq!((count("Old"), count("New")), (Some(6.0), Some(1.0)), "counters count on");
    let (_, summary) = agent.stop().expect("stopped");
    assert_eq!((summary.reloads["ok"], summary.reloads["failed"], summary.rules), (2, 3, 3));
    assert_eq!(summary.alerts[FAILED], 3);
}

#[test]
fn no_rule_at_all_is_said_aloud() {
    if !common::is_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("directory");
    let warning = "no rule is enabled";
    let (agent, path) = agent(&directory, &on_exec("Last", "marker"), "");
    assert!(!agent.log().contains(warning), "{}", agent.log());
    // As a file that was saved to a full disk.
    reloaded(&agent, "ok", || fs::write(&path, "").expect("written"));
    common::until("it is said", || agent.log().contains(warning));
    agent.stop().expect("stopped");
}

#[test]
fn the_configuration_is_followed() {
    if !common::is_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("directory");
    let tagged = on_exec("Noisy", "marker").replace("tags: [own]", "tags: [noisy]");
    let (agent, path) = agent(&directory, &(tagged + &on_exec("Last", "marker")), "rule_matching: all\n");
    let config = |more: &str| {
        let text = format!("rules_files: [{}]\nrule_matching: all\n{more}", path.display());
        fs::write(agent.config_path(), text).expect("written");
    };
    assert_eq!(fired(&agent, "marker-1"), ["Noisy", "Last"]);
    reloaded(&agent, "ok", || config("rules: [{disable: {tag: noisy}}]\n"));
    assert_eq!(fired(&agent, "marker-2"), ["Last"]);
    reloaded(&agent, "ok", || config("rules: [{disable: {tag: noisy}}, {enable: {rule: N*}}]\n"));
    assert_eq!(fired(&agent, "marker-3"), ["Noisy", "Last"]);

    // A wrong key: as a whole it is not taken over.
    reloaded(&agent, "failed", || config("rules: [{disable: {tag: noisy}}]\nno_such_key: 1\n"));
    let alert = common::wait_for(&agent, "a bad configuration", |alert| alert.rule == FAILED);
    assert_eq!((alert.field("file"), alert.output_fields["line"].as_u64()), (agent.config_path().to_str(), Some(4)));
    assert_eq!(fired(&agent, "marker-4"), ["Noisy", "Last"]);

    // What needs a restart is named, the rest is taken over.
    let restart = "outputs_queue: {capacity: 5}\nsensor: {ring_bytes: 1MiB}\n";
    reloaded(&agent, "ok", || config(&format!("append_output: [{{extra_output: appended}}]\n{restart}")));
    assert_eq!(metric(&agent, "purser_config_restart_pending", &[]), Some(2.0));
    assert!(agent.log().contains("until the agent is started anew: outputs_queue.capacity, sensor.ring_bytes"));
    run("marker-5");
    common::wait_for(&agent, "appended text", |alert| alert.output.ends_with("marker-5 appended"));
    reloaded(&agent, "ok", || config(""));
    assert_eq!(metric(&agent, "purser_config_restart_pending", &[]), Some(0.0));

    // Not watched any more: SIGHUP alone has the files read.
    reloaded(&agent, "ok", || config("watch_config_files: false\n"));
    fs::write(&path, on_exec("Last", "marker")).expect("written");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(fired(&agent, "marker-6"), ["Noisy", "Last"]);
    let pid = Pid::from_raw(agent.pid().cast_signed()).expect("a pid");
    reloaded(&agent, "ok", || kill_process(pid, Signal::HUP).expect("signalled"));
    assert_eq!(fired(&agent, "marker-7"), ["Last"]);
    reloaded(&agent, "ok", || kill_process(pid, Signal::HUP).expect("signalled"));
}

/// Upstream's rule files, if they are there.
fn upstream() -> Option<Vec<(&'static str, String)>> {
    let directory = std::env::var_os("PURSER_FALCO_RULES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/falco/rules"), PathBuf::from);
    let files = ["falco_rules.yaml", "falco-incubating_rules.yaml", "falco-sandbox_rules.yaml"];
    let read = |name| fs::read_to_string(directory.join(name)).ok().map(|text| (name, text));
    let files: Option<Vec<_>> = files.into_iter().map(read).collect();
    if files.is_none() {
        println!("SKIPPED: no upstream rule files at {} (set PURSER_FALCO_RULES)", directory.display());
    }
    files
}

/// How long a reload of upstream's files takes, printed: by the agent's own account, and as seen from outside, where
/// waiting for quiet is included.
#[test]
fn upstreams_files_are_reloaded() {
    if !common::is_root() {
        return;
    }
    let Some(files) = upstream() else { return };
    let directory = tempfile::tempdir().expect("directory");
    let round = |round: u32| -> Vec<(&str, String)> {
        files.iter().map(|(name, text)| (*name, format!("{text}\n# {round}\n"))).collect()
    };
    let mut map = ConfigMap::new(&directory.path().join("map"), &round(0));
    let rules: Vec<PathBuf> = files.iter().map(|(name, _)| directory.path().join("map").join(name)).collect();
    let config = "rules: [{enable: {rule: '*'}}]\nsensor: {ring_bytes: 64MiB}\n".to_owned();
    let agent = common::start(&Options { rules, config, ..Options::default() });
    let mut took = Vec::new();
    for number in 1..=15 {
        reloaded(&agent, "ok", || map.update(&round(number)));
        took.push(metric(&agent, "purser_rules_reload_duration_seconds", &[]).expect("exported") * 1e3);
    }
    let log = agent.log();
    assert_eq!(log.matches("rules reloaded: 93 enabled of 93").count(), 15, "{log}");
    let after: Vec<&str> = log.split(" ms (").skip(1).filter_map(|rest| rest.split(' ').next()).collect();
    took.sort_by(f64::total_cmp);
    println!("upstream's three files, all rules enabled: median {:.1} ms, most {:.1} ms", took[7], took[14]);
    println!("from the change, with the wait for quiet, ms: {}", after.join(" "));
    let (_, summary) = agent.stop().expect("stopped");
    assert_eq!(summary.lost(), 0, "{:?}", summary.lost);
}
