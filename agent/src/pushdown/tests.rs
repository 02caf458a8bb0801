//! Alerts are the same with events kept back as without: rules made up, on records made up, that come again and again.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use proptest::sample::select;
use purser_rules::{Alert, AlertOptions, LoadOptions, RuleMatching, Source};

use super::*;
use crate::active::ActiveRules;
use crate::config::{Pushdown, Scope};
use crate::pipeline::{Pipeline, PipelineConfig};
use crate::reload;
use crate::sample::records::{Record, any_record};
use crate::sample::{Fake, container};
use crate::tally::Tally;

const KEY: [u64; 2] = [5, 6];
/// The cgroup of the container; the others are the host's, and known to be.
const CONTAINER: u64 = 5;

fn load(text: &str) -> Option<RuleSet> {
    let sources = [Source { name: "test", text: text.as_bytes() }];
    RuleSet::load(&sources, &LoadOptions::default()).ok().map(|(set, _)| set)
}

/// Alerts, how many records stayed in the kernel, and how many would have come.
struct Outcome {
    alerts: Vec<Alert>,
    rejected: usize,
}

/// Runs records through the rules as the kernel would let them: `hashing` decides of which the hash is asked for.
fn run(text: &str, records: &[Record], pushdown: Pushdown, hash: impl Fn(&Record, bool, u8) -> Option<u64>) -> Outcome {
    let set = load(text).expect("the rules load");
    let policy = reload::policy(&set, Scope::All, pushdown);
    let metrics = Arc::new(Metrics::new());
    let rules = ActiveRules::new(set, RuleMatching::All, &metrics);
    let alerts = Arc::<Mutex<Vec<Alert>>>::default();
    let delivered = Arc::clone(&alerts);
    let settings = PipelineConfig {
        scope: Scope::All,
        alerts: AlertOptions::default(),
        hold_time: std::time::Duration::from_secs(1),
        hold_events: 16,
    };
    let outside = Fake { containers: vec![Arc::new(container(false))], ..Fake::default() };
    let deliver = Box::new(move |alert| delivered.lock().expect("lock").push(alert));
    let mut pipeline = Pipeline::new(settings, outside, rules, Tally::new(&metrics), 0, deliver);
    pipeline.set_filter(1, &policy.own);
    let mut unmatched = std::collections::HashSet::new();
    let mut rejected = 0;
    for (nth, record) in records.iter().enumerate() {
        if !policy.events.contains(record.event) {
            continue;
        }
        let own = policy.own.of(record.event.code());
        let mut record = record.clone();
        let host = record.fixed.task().cgroup_id != CONTAINER;
        let hash = hash(&record, host, own).unwrap_or(0);
        if hash != 0 && unmatched.contains(&hash) {
            rejected += 1;
            continue;
        }
        pipeline.record(&record.bytes(1_000 + nth as u64, hash, host, own));
        unmatched.extend(pipeline.take_unmatched());
    }
    drop(pipeline);
    let alerts = std::mem::take(&mut *alerts.lock().expect("lock"));
    Outcome { alerts, rejected }
}

fn condition() -> impl Strategy<Value = String> {
    let one_of = |all: &'static [&'static str]| select(all.to_vec()).prop_map(str::to_owned);
    let own = one_of(&[
        "evt.type = openat",
        "evt.type in (open, openat, connect, ptrace)",
        "evt.type in (execve, execveat)",
        "evt.type != bpf",
        "not evt.type in (chmod, unlink)",
        "evt.is_open_write = true",
        "evt.is_open_read = true",
        "evt.is_open_create = true",
        "evt.is_open_exec = true",
        "evt.failed = true",
        "evt.res = SUCCESS",
        "evt.res in (ENOENT, EINTR)",
        "evt.rawres >= 0",
        "evt.rawres = -2",
        "evt.rawres = 4",
        "fd.num >= 0",
        "fd.num in (3, 4)",
        "fd.name = /etc/shadow",
        "fd.name contains shadow",
        "fd.name startswith /tmp",
        "fd.name endswith a",
        "fd.name glob /*/a",
        "fd.name regex ^.*/s.*w$",
        "fd.name pmatch (/etc, /tmp/deep)",
        "fd.name in (/etc/shadow, /tmp/b)",
        "fd.name icontains SHADOW",
        "fd.nameraw = shadow",
        "fd.directory = /etc",
        "fd.filename in (a, b)",
        "fd.realpath startswith /etc",
        "fd.type = directory",
        "fd.type in (ipv4, unix)",
        "fd.typechar = 4",
        "fd.ino > 100",
        "fd.is_upper_layer = true",
        "fd.sip = 10.0.0.0",
        "fd.snet in (127.0.0.0/8)",
        "fd.net != 10.0.0.0/8",
        "fd.net = 127.0.0.0/8",
        "fd.sport = 53",
        "fd.port in (80, 443)",
        "fd.port != 53",
        "fd.cport = 80",
        "fd.lport = 443",
        "fd.rport = 80",
        "fd.ip = 8.0.0.0",
        "fd.l4proto = tcp",
        "fd.connected = true",
        "fd.name_changed = true",
        "fd.sproto = http",
        "fs.path.name startswith /etc",
        "fs.path.target exists",
        "evt.arg.flags contains O_TRUNC",
        "evt.arg.flags contains FD_UPPER_LAYER",
        "evt.arg.mode contains 7",
        "evt.arg.name = shadow",
        "evt.arg.path endswith shadow",
        "evt.arg.request = PTRACE_ATTACH",
        "evt.arg.cmd = 1",
        "evt.arg.option = 1",
        "evt.arg.uid = 0",
        "evt.arg.comm = sh",
        "evt.arg.exe contains s",
        "evt.arg.args contains a",
        "evt.arg.cap_effective exists",
        "evt.arg[4] = 11",
        "evt.arg[1] contains a",
        "evt.arg.res = SUCCESS",
        "evt.arg.fd contains shadow",
        "evt.rawarg.uid = 3",
        "evt.abspath startswith /etc",
        "evt.args contains shadow",
        "tolower(fd.name) = /etc/shadow",
        "basename(fd.name) = a",
        "len(fd.name) > 6",
        "concat(fd.name, proc.name) endswith cat",
        "evt.arg_source = user",
        "fd.name = val(fs.path.name)",
        "fd.filename = val(proc.name)",
    ]);
    let foreign = one_of(&[
        "proc.name = sh",
        "proc.name != sh",
        "proc.name in (cat, dog)",
        "proc.pid = 11",
        "user.uid = 0",
        "user.uid != 0",
        "container.id = host",
        "container.id != host",
        "container.name exists",
        "container.image.repository = x",
        "thread.cap_effective contains CAP_CHOWN",
        "proc.aname = init",
        "manifest.verdict = host",
        "manifest.verdict = unexpected",
        "evt.num > 10",
        "fd.sip.name = example.com",
        "evt.cpu = 0",
    ]);
    let leaf = prop_oneof![4 => own, 1 => foreign];
    leaf.prop_recursive(4, 16, 3, |inner| {
        prop_oneof![
            2 => prop::collection::vec(inner.clone(), 2..4).prop_map(|all| format!("({})", all.join(" and "))),
            1 => prop::collection::vec(inner.clone(), 2..4).prop_map(|all| format!("({})", all.join(" or "))),
            1 => inner.prop_map(|one| format!("not ({one})")),
        ]
    })
}

/// Conditions of rules; often so many have a test in common that it is made once for all of them.
fn conditions() -> impl Strategy<Value = Vec<String>> {
    let all = prop::collection::vec(condition(), 1..4);
    let sharing = (condition(), prop::collection::vec(condition(), 4..8))
        .prop_map(|(shared, all)| all.iter().map(|one| format!("({shared}) and ({one})")).collect());
    prop_oneof![3 => all, 1 => sharing]
}

/// Rules with conditions, the second with an exception.
fn rules(conditions: &[String]) -> String {
    let mut text = String::new();
    for (nth, condition) in conditions.iter().enumerate() {
        writeln!(text, "- rule: R{nth}\n  desc: x\n  condition: {condition}\n  output: x\n  priority: NOTICE")
            .expect("into a text");
        if nth == 1 {
            text += "  exceptions:\n    - name: known\n      fields: [fd.name, proc.name]\n      comps: [startswith, =]\n      values:\n        - [/tmp, sh]\n        - [/etc, cat]\n";
        }
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn alerts_are_the_same_with_events_kept_back(
        conditions in conditions(),
        records in prop::collection::vec(any_record(), 1..5),
        order in prop::collection::vec((any::<prop::sample::Index>(), 10..13_u32, select(vec![CONTAINER, 6]), select(vec![0, 1000_u32])), 12..40),
    ) {
        let text = rules(&conditions);
        // What the rule language refuses is no rule.
        if load(&text).is_none() {
            return Ok(());
        }
        // The same records again and again, by others.
        let records: Vec<Record> = order.iter().map(|(at, tgid, cgroup_id, uid)| {
            let mut record = at.get(&records).clone();
            let task = record.fixed.task();
            (task.tgid, task.tid, task.cgroup_id, task.euid) = (*tgid, *tgid, *cgroup_id, *uid);
            record
        }).collect();
        let with = run(&text, &records, Pushdown::On, |record, host, own| record.hash(host, own, KEY));
        let without = run(&text, &records, Pushdown::Off, |_, _, _| None);
        // `evt.num` in a condition counts what comes; it is documented to differ.
        let counts = conditions.iter().any(|condition| condition.contains("evt.num"));
        if !counts {
            prop_assert_eq!(with.alerts, without.alerts, "{}", text);
        }
    }
}

const SHADOW: &str =
    "- rule: R\n  desc: x\n  condition: evt.type = openat and fd.name = /etc/shadow\n  output: x\n  priority: NOTICE\n";

fn open(name: &'static str) -> Record {
    use agent_common::OpenRecord;
    let mut record = OpenRecord { result: -2, name_length: name.len() as u32, ..OpenRecord::default() };
    record.task.tgid = 10;
    let fixed = crate::sample::records::Fixed::Open(Box::new(record));
    Record { event: EventType::Openat, fixed, sections: name.as_bytes().to_vec() }
}

#[test]
fn from_the_third_time_on_an_event_that_matches_nothing_stays() {
    let records: Vec<Record> =
        std::iter::repeat_n(open("/tmp/a"), 10).chain(std::iter::repeat_n(open("/etc/shadow"), 10)).collect();
    let outcome = run(SHADOW, &records, Pushdown::On, |record, host, own| record.hash(host, own, KEY));
    assert_eq!((outcome.rejected, outcome.alerts.len()), (8, 10));
}

#[test]
fn a_hash_that_leaves_out_a_name_would_be_noticed() {
    let records: Vec<Record> =
        std::iter::repeat_n(open("/tmp/abcdefgh"), 3).chain(std::iter::repeat_n(open("/etc/shadow\0\0"), 10)).collect();
    let nameless =
        |record: &Record, host: bool, own: u8| Record { sections: Vec::new(), ..record.clone() }.hash(host, own, KEY);
    let outcome = run(SHADOW, &records, Pushdown::On, nameless);
    assert_eq!(outcome.alerts.len(), 0, "all 10 are taken for the first");
}

#[test]
fn a_rule_about_processes_alone_has_nothing_hashed() {
    let own = |condition: &str, event: EventType| {
        let text = format!("- rule: R\n  desc: x\n  condition: {condition}\n  output: x\n  priority: NOTICE\n");
        let set = load(&text).expect("a rule");
        reload::policy(&set, Scope::All, Pushdown::On).own.of(event.code())
    };
    assert_eq!(own("evt.type = openat and proc.name = sh", EventType::Openat), 0);
    assert_eq!(own("evt.type = openat and fd.name = /a and proc.name = sh", EventType::Openat), OwnFacts::HASHED);
    assert_eq!(own("evt.type = openat and (fd.name = /a or proc.name = sh)", EventType::Openat), 0);
    assert_eq!(own("evt.type = openat and fd.name = /a", EventType::Open), 0, "which is not reported at all");
    assert_eq!(own("evt.type = ptrace and evt.arg.request = PTRACE_ATTACH", EventType::Ptrace), OwnFacts::HASHED | 1);
    let mixed = own("evt.type = openat and (fd.name = /a or container.id != host)", EventType::Openat);
    assert_eq!(mixed, OwnFacts::HASHED | OwnFacts::HOST);
    let contained = own("evt.type = openat and fd.name = /a and container.id != host", EventType::Openat);
    assert_eq!(contained, OwnFacts::HASHED, "which does not come of the host");
    assert_eq!(own("evt.type = execve and proc.name = a", EventType::Execve), 0);
}

#[test]
fn an_answer_counts_for_its_policy_alone() {
    let mut filter = Filter::new(&Metrics::new());
    let own = OwnFacts([OwnFacts::HASHED; 256]);
    assert_eq!(filter.asks(EventType::Openat, 0, 7), None, "no policy");
    filter.set(Some((4, &own)));
    assert_eq!(filter.asks(EventType::Openat, 3, 7), None, "of the policy before");
    assert_eq!(filter.asks(EventType::Openat, 4, 0), None, "not hashed");
    assert_eq!(filter.asks(EventType::Openat, 4, 7), None, "the first time");
    assert_eq!(filter.asks(EventType::Openat, 4, 7), Some(OwnFacts::HASHED));
    filter.answer(7, true);
    assert_eq!(filter.asks(EventType::Openat, 4, 7), None, "is asked once");
    assert_eq!(filter.asks(EventType::Openat, 4, 8), None);
    assert!(filter.asks(EventType::Openat, 4, 8).is_some());
    filter.answer(8, false);
    filter.set(None);
    assert!(filter.take_unmatched().is_empty(), "what is not sent yet belongs to the policy before");
}
