//! The order of things, with events and a world made up: what waits, what does not, and what fires once.

use std::sync::Mutex;

use purser_rules::{LoadOptions, RuleSet, Source};

use super::*;
use crate::event::Task;
use crate::manifest::judge::{FileDigest, ManifestState, Subject, judge};
use crate::manifest::{Digest, Reason};
use crate::metrics::{LOST, Metrics, VERDICTS};
use crate::sample::{Fake, container, event, exec, open, task};

type Raised = Arc<Mutex<Vec<String>>>;

struct Bench {
    pipeline: Pipeline<Fake>,
    raised: Raised,
    metrics: Arc<Metrics>,
}

fn bench(rules: &str, matching: RuleMatching, hold_events: usize, outside: Fake) -> Bench {
    let text = rules.as_bytes();
    let (rules, warnings) =
        RuleSet::load(&[Source { name: "test", text }], &LoadOptions::default()).expect("the rules load");
    assert!(warnings.is_empty(), "{warnings:?}");
    let metrics = Arc::new(Metrics::new());
    let rules = ActiveRules::new(rules, matching, &metrics);
    let raised = Raised::default();
    let sink = Arc::clone(&raised);
    let config = PipelineConfig {
        scope: Scope::All,
        alerts: AlertOptions::default(),
        hold_time: Duration::from_secs(2),
        hold_events,
    };
    let tally = Tally::new(&metrics);
    let deliver = Box::new(move |alert: Alert| {
        let line = format!("{}: {}", alert.rule, alert.message.split(" container_id").next().unwrap_or_default());
        sink.lock().expect("lock").push(line);
    });
    Bench { pipeline: Pipeline::new(config, outside, rules, tally, 0, deliver), raised, metrics }
}

impl Bench {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.raised.lock().expect("lock"))
    }

    fn lost(&self, stage: &str, reason: &str) -> u64 {
        let wanted = [stage.to_owned(), reason.to_owned()];
        self.metrics.read(LOST).into_iter().find(|(labels, _)| *labels == wanted).map_or(0, |(_, count)| count)
    }

    fn answer(&mut self, ticket: u64, verdict: Verdict) {
        self.pipeline.outside.answers.judgements.push((ticket, judgement(verdict)));
        self.pipeline.tick(Instant::now());
    }
}

fn judgement(verdict: Verdict) -> Judgement {
    let state = ManifestState::Missing(Reason::NoImage);
    let identity = crate::event::FileIdentity::default();
    let digest = Ok(FileDigest { digest: Digest::default(), capabilities: None, settled: true });
    let subject = Subject { identity: &identity, rootfs_path: None, in_host_mount_namespace: false, digest };
    Judgement { verdict, ..judge(&state, &subject, |_| None) }
}

fn rule(name: &str, condition: &str, output: &str) -> String {
    format!("- rule: {name}\n  desc: x\n  condition: {condition}\n  output: \"{output}\"\n  priority: NOTICE\n")
}

fn sh() -> Task {
    task(10, 1, (1, 0), "sh")
}

fn in_container() -> Fake {
    Fake { containers: vec![Arc::new(container(false))], ..Fake::default() }
}

#[test]
fn only_a_rule_that_reads_the_verdict_waits_for_it() {
    let rules = rule("Shadow", "evt.type = openat and fd.name = /etc/shadow", "%fd.name")
        + &rule("Stowaway", "evt.type = execve and manifest.verdict = unlisted", "%proc.exepath %manifest.verdict");
    let mut bench = bench(&rules, RuleMatching::All, 16, in_container());
    bench.pipeline.event(event(1, sh(), exec("/bin/sh")));
    bench.pipeline.event(event(2, sh(), open("/etc/shadow", "/etc/shadow", "", "")));
    assert_eq!(bench.take(), ["Shadow: /etc/shadow"], "the verdict is not known yet");
    assert!(bench.pipeline.is_waiting());
    assert_eq!(bench.pipeline.outside.asked.len(), 1);
    bench.answer(1, Verdict::Unlisted);
    assert_eq!(bench.take(), ["Stowaway: /bin/sh unlisted"]);
    assert!(!bench.pipeline.is_waiting());
    // Now it is known: nothing is asked and nothing waits.
    bench.pipeline.event(event(3, task(11, 2, (10, 1), "sh"), exec("/bin/other")));
    bench.answer(2, Verdict::Expected);
    assert!(bench.take().is_empty());
}

#[test]
fn an_immediate_verdict_lets_nothing_wait() {
    let rules = rule("Stowaway", "evt.type = execve and manifest.verdict = modified", "%proc.exepath");
    let outside = Fake { judgement: Some(judgement(Verdict::Modified)), ..in_container() };
    let mut bench = bench(&rules, RuleMatching::First, 16, outside);
    bench.pipeline.event(event(1, sh(), exec("/bin/sh")));
    assert_eq!(bench.take(), ["Stowaway: /bin/sh"]);
    assert!(!bench.pipeline.is_waiting());
}

#[test]
fn the_first_rule_wins_even_if_it_is_known_last() {
    let rules = rule("Earlier", "evt.type = execve and manifest.verdict = unlisted", "a")
        + &rule("Later", "evt.type = execve and proc.name = sh", "b");
    for (verdict, expected) in [(Verdict::Unlisted, "Earlier: a"), (Verdict::Expected, "Later: b")] {
        let mut bench = bench(&rules, RuleMatching::First, 16, in_container());
        bench.pipeline.event(event(1, sh(), exec("/bin/sh")));
        assert!(bench.take().is_empty(), "which is first is not known yet");
        bench.answer(1, verdict);
        assert_eq!(bench.take(), [expected]);
    }
    let mut bench = bench(&rules, RuleMatching::All, 16, in_container());
    bench.pipeline.event(event(1, sh(), exec("/bin/sh")));
    assert_eq!(bench.take(), ["Later: b"]);
    bench.answer(1, Verdict::Unlisted);
    assert_eq!(bench.take(), ["Earlier: a"]);
}

#[test]
fn a_file_is_looked_at_under_each_of_its_names_and_a_rule_fires_once() {
    let rules = rule("Shadow", "evt.type = openat and fd.name = /etc/shadow", "%fd.name")
        + &rule("Any", "evt.type = openat and fd.name startswith /", "%fd.name");
    for (path, name, dir, fs_path, shadow) in [
        ("/etc/shadow", "/tmp/link", "", "", true),
        ("/mnt/x", "/mnt/x", "", "/etc/shadow", true),
        ("/data/shadow", "shadow", "/etc", "", true),
        ("/data/shadow", "../etc/./shadow", "/usr", "", true),
        ("/data/shadow", "/data/shadow", "", "", false),
    ] {
        let mut bench = bench(&rules, RuleMatching::All, 16, Fake::default());
        bench.pipeline.event(event(1, sh(), open(path, name, dir, fs_path)));
        let mut raised = bench.take();
        raised.sort();
        let any = format!("Any: {path}");
        let expected = if shadow { vec![any, "Shadow: /etc/shadow".to_owned()] } else { vec![any] };
        assert_eq!(raised, expected, "{path} {name} {dir} {fs_path}");
    }
}

#[test]
fn a_name_is_judged_by_the_whole_rule() {
    // With any-of inside a predicate this would never fire for the alias.
    let rules = rule("Elsewhere", "evt.type = openat and not fd.name startswith /etc", "%fd.name");
    let mut bench = bench(&rules, RuleMatching::First, 16, Fake::default());
    bench.pipeline.event(event(1, sh(), open("/etc/shadow", "/etc/shadow", "", "")));
    assert!(bench.take().is_empty());
    bench.pipeline.event(event(2, sh(), open("/etc/shadow", "/tmp/link", "", "")));
    assert_eq!(bench.take(), ["Elsewhere: /tmp/link"]);
}

#[test]
fn conditions_know_the_local_time_of_the_moment() {
    let rules = rule("Night", "evt.type = openat and evt.time.s startswith \"23:\"", "%evt.time.s");
    let mut bench = bench(&rules, RuleMatching::First, 16, Fake::default());
    bench.pipeline.event(event(1, sh(), open("/a", "/a", "", "")));
    assert!(bench.take().is_empty(), "in UTC it is 22:13");
    let offset = time::UtcOffset::from_hms(1, 0, 0).expect("an offset");
    bench.pipeline.set_clock(Clock { offset });
    bench.pipeline.event(event(2, sh(), open("/a", "/a", "", "")));
    assert_eq!(bench.take(), ["Night: 23:13:20"]);
}

#[test]
fn events_wait_for_the_image_in_order_and_not_for_ever() {
    let rules = rule("Open", "evt.type = openat and container.id != host", "%fd.name %container.identity");
    let outside = || Fake { containers: vec![Arc::new(container(true))], ..Fake::default() };
    let mut bench = bench(&rules, RuleMatching::First, 2, outside());
    bench.pipeline.event(event(1, sh(), open("/a", "/a", "", "")));
    bench.pipeline.event(event(2, sh(), open("/b", "/b", "", "")));
    assert!(bench.take().is_empty());
    bench.pipeline.event(event(3, sh(), open("/c", "/c", "", "")));
    assert_eq!(bench.take(), ["Open: /c pending"], "no room to wait");
    assert_eq!(bench.lost("identity", "overflow"), 1);
    let known = Arc::new(container(false));
    bench.pipeline.outside.answers.containers.push(Arc::clone(&known));
    bench.pipeline.outside.containers = vec![known];
    bench.pipeline.tick(Instant::now());
    assert_eq!(bench.take(), ["Open: /a known", "Open: /b known"]);

    let mut bench = self::bench(&rules, RuleMatching::First, 2, outside());
    bench.pipeline.event(event(1, sh(), open("/a", "/a", "", "")));
    let deadline = bench.pipeline.tick(Instant::now()).expect("a deadline");
    bench.pipeline.tick(deadline);
    assert_eq!(bench.take(), ["Open: /a pending"]);
    assert_eq!(bench.lost("identity", "timeout"), 1);
    bench.pipeline.event(event(2, sh(), open("/b", "/b", "", "")));
    assert_eq!(bench.take(), ["Open: /b pending"], "a silent runtime is waited for once");
}

#[test]
fn what_cannot_wait_for_a_verdict_is_counted() {
    let rules = rule("Open", "evt.type = openat and manifest.verdict = unlisted", "%fd.name");
    let mut bench = bench(&rules, RuleMatching::First, 1, in_container());
    bench.pipeline.event(event(1, sh(), exec("/bin/sh")));
    bench.pipeline.event(event(2, sh(), open("/a", "/a", "", "")));
    bench.pipeline.event(event(3, sh(), open("/b", "/b", "", "")));
    assert_eq!(bench.lost("verdict", "overflow"), 1);
    bench.pipeline.finish();
    assert_eq!(bench.lost("verdict", "shutdown"), 1);
    assert!(bench.take().is_empty());
}

#[test]
fn the_runtimes_own_program_is_marked_and_a_program_of_the_image_is_not() {
    let rules = rule("None", "evt.type = execve and manifest.verdict = x", "x");
    let mut bench = bench(&rules, RuleMatching::First, 16, in_container());
    // The shim, on the host, in the host's mount namespace.
    let shim = Task { cgroup_id: 1, ..task(5, 1, (1, 0), "shim") };
    bench.pipeline.event(event(1, shim, exec("/usr/bin/shim")));
    bench.pipeline.event(event(2, task(10, 2, (5, 1), "runc"), exec("memfd:runc")));
    bench.pipeline.event(event(3, Task { mnt_ns: 77, ..task(10, 2, (5, 1), "app") }, exec("/app")));
    let own: Vec<bool> = bench.pipeline.outside.asked.iter().map(|(_, file)| file.in_host_mount_namespace).collect();
    assert_eq!(own, [true, false]);
}

#[test]
fn bytes_that_are_no_record_are_counted_by_reason() {
    let mut bench = bench(&rule("None", "evt.type = openat", "x"), RuleMatching::First, 16, Fake::default());
    bench.pipeline.record(b"");
    bench.pipeline.record(&[0xff; 400]);
    let lost: u64 = crate::decode::DecodeError::REASONS.iter().map(|reason| bench.lost("decode", reason)).sum();
    assert_eq!(lost, 2);
}

#[test]
fn a_container_that_vanished_is_no_host_unnoticed() {
    let verdicts = |bench: &Bench| -> u64 {
        let host = ["host".to_owned()];
        bench.metrics.read(VERDICTS).into_iter().find(|(labels, _)| *labels == host).map_or(0, |(_, count)| count)
    };
    let rules = rule("Exec", "evt.type = execve", "%proc.exepath");
    let mut bench = bench(&rules, RuleMatching::First, 16, Fake { gone: vec![6], ..Fake::default() });
    bench.pipeline.event(event(1, Task { cgroup_id: 6, ..sh() }, exec("/bin/sh")));
    assert_eq!((bench.lost("identity", "gone"), verdicts(&bench)), (1, 0));
    assert_eq!(bench.take(), ["Exec: /bin/sh"], "rules that need no container see it");
    bench.pipeline.event(event(2, sh(), exec("/bin/sh")));
    assert_eq!((bench.lost("identity", "gone"), verdicts(&bench)), (1, 1));
}

#[test]
fn what_waits_is_judged_by_the_rules_that_it_came_under() {
    let stowaway = |name: &str| rule(name, "evt.type = execve and manifest.verdict = unlisted", "%proc.exepath");
    let exec_rule = |name: &str| rule(name, "evt.type = execve", "%proc.exepath");
    let load = |bench: &Bench, text: &str| {
        let sources = [Source { name: "test", text: text.as_bytes() }];
        let (set, _) = RuleSet::load(&sources, &LoadOptions::default()).expect("the rules load");
        ActiveRules::new(set, RuleMatching::All, &bench.metrics)
    };
    // Parked for a verdict. The number of its rule is another rule's in the new set.
    let old = exec_rule("Old other") + &stowaway("Old");
    let mut bench = bench(&old, RuleMatching::All, 16, in_container());
    bench.pipeline.event(event(1, sh(), exec("/bin/sh")));
    assert_eq!(bench.take(), ["Old other: /bin/sh"]);
    let new = load(&bench, &(stowaway("New") + &exec_rule("New other")));
    let settings = bench.pipeline.config.clone();
    bench.pipeline.replace(settings.clone(), new, Throttle::default());
    bench.answer(1, Verdict::Unlisted);
    assert_eq!(bench.take(), ["Old: /bin/sh"]);
    bench.pipeline.event(event(2, task(11, 2, (10, 1), "sh"), exec("/bin/new")));
    bench.answer(2, Verdict::Unlisted);
    assert_eq!(bench.take(), ["New other: /bin/new", "New: /bin/new"]);
    // Held for its image.
    let pending = Arc::new(container(true));
    bench.pipeline.outside.containers = vec![pending];
    bench.pipeline.event(event(3, sh(), exec("/bin/held")));
    let fewer = load(&bench, &rule("None", "evt.type = openat", "x"));
    bench.pipeline.replace(settings, fewer, Throttle::default());
    let known = Arc::new(container(false));
    bench.pipeline.outside.answers.containers.push(Arc::clone(&known));
    bench.pipeline.tick(Instant::now());
    assert_eq!(bench.take(), ["New other: /bin/held"]);
    let counted: Vec<_> = bench.metrics.read(crate::metrics::RULE_MATCHES).into_iter().collect();
    let count = |name: &str| counted.iter().find(|(labels, _)| labels[0] == name).map(|(_, count)| *count);
    assert_eq!((count("Old"), count("Old other"), count("New other")), (Some(1), Some(1), Some(2)));
}
