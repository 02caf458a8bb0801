//! Streams of events through the whole pipeline: what is raised and what is said to be folded is what matched.

use std::sync::Mutex;

use proptest::prelude::*;
use purser_rules::format::Clock;
use purser_rules::{LoadOptions, Priority, RuleMatching, Source};

use super::*;
use crate::active::ActiveRules;
use crate::config::{Config, Scope};
use crate::metrics::RULE_MATCHES;
use crate::pipeline::{Pipeline, PipelineConfig};
use crate::sample::{Fake, container, event, exec, open, task};
use crate::tally::Tally;

const SECOND: u64 = 1_000_000_000;
const PATHS: [&str; 4] = ["/etc/a", "/etc/b", "/opt/a", "/opt/b"];
/// Three rules; the sensitive one is not to be folded.
const RULES: &str = r"
- {rule: Etc, desc: x, condition: evt.type = openat and fd.name startswith /etc, output: 'e %fd.name %evt.num', priority: NOTICE, tags: [files]}
- {rule: Any file, desc: x, condition: evt.type = openat, output: 'a %fd.name %evt.num', priority: WARNING, tags: [files, noisy]}
- {rule: Sensitive, desc: x, condition: evt.type = openat and fd.name = /etc/b, output: 's %evt.num', priority: CRITICAL, tags: [files]}
";

struct Bench {
    pipeline: Pipeline<Fake>,
    raised: Arc<Mutex<Vec<Alert>>>,
    metrics: Arc<Metrics>,
    config: Config,
}

fn rules(text: &str) -> Arc<RuleSet> {
    let sources = [Source { name: "test", text: text.as_bytes() }];
    Arc::new(RuleSet::load(&sources, &LoadOptions::default()).expect("the rules load").0)
}

fn bench(throttle: &str) -> Bench {
    let text = format!("throttle: {throttle}");
    let config = Config::parse("test".as_ref(), &text).expect("a configuration");
    let metrics = Arc::new(Metrics::new());
    let raised = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&raised);
    let settings = PipelineConfig {
        scope: Scope::All,
        alerts: AlertOptions::default(),
        hold_time: Duration::from_secs(2),
        hold_events: 16,
    };
    let rules = rules(RULES);
    let deliver = Box::new(move |alert| sink.lock().expect("lock").push(alert));
    let outside = Fake { containers: vec![Arc::new(container(false))], ..Fake::default() };
    let tally = Tally::new(&metrics);
    let active = ActiveRules::new(Arc::clone(&rules), RuleMatching::All, &metrics);
    let mut pipeline = Pipeline::new(settings, outside, active, tally, 0, deliver);
    pipeline.set_throttle(Throttle::new(&config.throttle, &rules, &metrics));
    Bench { pipeline, raised, metrics, config }
}

impl Bench {
    fn open(&mut self, at_ns: u64, in_container: bool, path: &'static str) {
        let mut task = task(10, 1, (1, 0), "sh");
        task.cgroup_id = if in_container { 5 } else { 1 };
        self.pipeline.event(event(at_ns, task, open(path, path, "", "")));
    }

    fn take(&self) -> Vec<Alert> {
        std::mem::take(&mut *self.raised.lock().expect("lock"))
    }

    fn messages(&self) -> Vec<String> {
        self.take()
            .into_iter()
            .map(|alert| alert.message.split(" container_id").next().unwrap_or_default().to_owned())
            .collect()
    }

    fn reload(&mut self) {
        self.pipeline.set_throttle(Throttle::new(&self.config.throttle, &rules(RULES), &self.metrics));
    }

    fn count(&self, family: Family, rule: &str) -> u64 {
        self.metrics.read(family).iter().filter(|(labels, _)| labels[0] == rule).map(|(_, count)| count).sum()
    }
}

fn folded(alert: &Alert) -> Option<u64> {
    alert.output_fields.get("folded").and_then(Json::as_u64)
}

#[test]
fn nothing_is_folded_unless_it_is_asked_for() {
    let mut bench = bench("{}");
    assert!(Throttle::new(&bench.config.throttle, &rules(RULES), &bench.metrics).0.is_none());
    for at in 0..1000 {
        bench.open(at, true, "/etc/b");
    }
    let raised = bench.take();
    assert_eq!(raised.len(), 3000);
    assert!(raised.iter().all(|alert| folded(alert).is_none()));
    bench.pipeline.finish();
    assert!(bench.take().is_empty());
    assert!(bench.metrics.read(FOLDED).is_empty());
}

#[test]
fn a_repeated_alert_is_raised_once_and_summed_up_at_the_windows_end() {
    let mut bench = bench("{dedup: {window: 60s, key: [container.id, fd.name]}}");
    for second in 0..38 {
        bench.open(SECOND * (10 + second), true, "/etc/a");
    }
    bench.open(SECOND * 50, false, "/etc/a");
    assert_eq!(bench.messages(), ["e /etc/a 1", "a /etc/a 1", "e /etc/a 39", "a /etc/a 39"], "the host is another key");
    // The first event of the next window ends the last one.
    bench.open(SECOND * 70, true, "/etc/a");
    let raised = bench.take();
    let text = "37 more of \\\"Etc\\\" in 60 s (container.id=0123456789ab fd.name=/etc/a)";
    assert_eq!(raised[0].message, text);
    assert!(raised[0].output.ends_with(&format!(": Notice {text}")), "{}", raised[0].output);
    assert_eq!((raised[0].rule.as_str(), raised[0].priority), ("Etc", Priority::Notice));
    assert_eq!((raised[0].source.as_str(), raised[0].tags.as_slice()), ("syscall", &["files".to_owned()][..]));
    let epoch = 1_700_000_000 * SECOND;
    let fields = Json::Object(raised[0].output_fields.clone());
    assert_eq!(raised[0].time_ns, epoch + 47 * SECOND);
    assert_eq!(
        fields,
        serde_json::json!({
            "evt.time": epoch + 47 * SECOND, "folded": 37, "folded_first": epoch + 11 * SECOND,
            "folded_last": epoch + 47 * SECOND, "folded_reason": "dedup", "folded_window": 60 * SECOND,
            "container.id": "0123456789ab", "fd.name": "/etc/a", "container.name": "sample",
            "container.image.repository": null, "container.image.tag": null,
            "k8s.pod.name": null, "k8s.ns.name": null,
        })
    );
    assert_eq!(folded(&raised[2]), None, "summaries come before the alert that shows their time is over");
    let rest: Vec<_> = raised[1..].iter().map(|alert| (alert.rule.as_str(), folded(alert))).collect();
    assert_eq!(rest, [("Any file", Some(37)), ("Etc", None), ("Any file", None)]);
    assert_eq!((bench.count(FOLDED, "Etc"), bench.count(RULE_MATCHES, "Etc")), (37, 40));
}

#[test]
fn a_rate_limit_counts_what_is_over_it_per_rule_and_container() {
    let mut bench = bench("{rate: {alerts: 2, window: 10s}}");
    for (at, path) in [(0, "/opt/a"), (1, "/opt/b"), (2, "/etc/a"), (3, "/opt/a")] {
        bench.open(at, true, path);
    }
    bench.open(4, false, "/opt/a");
    assert_eq!(bench.messages(), ["a /opt/a 1", "a /opt/b 2", "e /etc/a 3", "a /opt/a 5"]);
    bench.pipeline.finish();
    assert_eq!(
        bench.messages(),
        ["2 more of \\\"Any file\\\" in 10 s over the limit of 2 (container.id=0123456789ab)"]
    );
}

#[test]
fn what_is_folded_as_a_repetition_does_not_use_up_the_rate_and_the_other_way_round() {
    let mut bench = bench("{rate: {alerts: 2, window: 10s, key: []}, dedup: {window: 5s, key: [fd.name]}}");
    for (at, path) in [(0, "/opt/a"), (1, "/opt/a"), (2, "/opt/a"), (3, "/opt/b"), (4, "/tmp/c"), (5, "/tmp/c")] {
        bench.open(at, true, path);
    }
    assert_eq!(bench.messages(), ["a /opt/a 1", "a /opt/b 4"]);
    bench.pipeline.finish();
    let rate = "2 more of \\\"Any file\\\" in 10 s over the limit of 2";
    assert_eq!(bench.messages(), ["2 more of \\\"Any file\\\" in 5 s (fd.name=/opt/a)", rate]);
}

#[test]
fn critical_rules_are_exempt_until_they_are_named() {
    let off = bench("{dedup: {window: 60s, key: []}}");
    let named = bench("{dedup: {window: 60s, key: []}, rules: [{rule: 'Sens*', exempt_priority: none}]}");
    let all = bench("{dedup: {window: 60s, key: []}, exempt_priority: none}");
    for (mut bench, expected) in [(off, 10), (named, 1), (all, 1)] {
        for at in 0..10 {
            bench.open(at, true, "/etc/b");
        }
        assert_eq!(bench.take().iter().filter(|alert| alert.rule == "Sensitive").count(), expected);
    }
}

#[test]
fn rules_have_their_own_limits_by_name_and_by_tag() {
    let config = "{rules: [{tag: files, rate: {alerts: 3, key: []}}, {tag: noisy, rate: {alerts: 1}}, \
                  {rule: Etc, dedup: {window: 1s, key: [fd.name]}}]}";
    let mut bench = bench(config);
    for path in ["/etc/a", "/etc/c", "/etc/c", "/etc/d", "/etc/e", "/etc/b"] {
        bench.open(7, true, path);
    }
    let etc = ["e /etc/a 1", "a /etc/a 1", "e /etc/c 2", "e /etc/d 4", "s 6"];
    assert_eq!(bench.messages(), etc);
}

#[test]
fn the_workers_clock_ends_a_window_when_no_event_does() {
    let mut bench = bench("{dedup: {window: 60s}}");
    assert_eq!(bench.pipeline.tick(Instant::now()), None, "nothing to wake for");
    for at in 0..5 {
        bench.open(SECOND + at, true, "/opt/a");
    }
    assert_eq!(bench.take().len(), 1);
    let now = Instant::now();
    let deadline = bench.pipeline.tick(now).expect("a deadline");
    let wait = deadline.duration_since(now);
    assert!(wait > Duration::from_secs(59) && wait <= Duration::from_mins(1) + LATE, "{wait:?}");
    bench.pipeline.tick(deadline.checked_sub(Duration::from_millis(1)).expect("after boot"));
    assert!(bench.take().is_empty());
    assert_eq!(bench.pipeline.tick(deadline), None);
    assert_eq!(bench.take().iter().map(folded).collect::<Vec<_>>(), [Some(4)]);
}

#[test]
fn a_window_that_has_to_go_says_what_was_folded() {
    let mut bench =
        bench("{dedup: {window: 60s, key: [fd.name]}, max_keys: 2, rules: [{rule: Etc, dedup: {window: 0s}}]}");
    for path in ["/opt/a", "/opt/a", "/opt/b", "/opt/c", "/opt/a"] {
        bench.open(1, true, path);
    }
    let expected =
        ["a /opt/a 1", "a /opt/b 3", "1 more of \\\"Any file\\\" in 60 s (fd.name=/opt/a)", "a /opt/c 4", "a /opt/a 5"];
    assert_eq!(bench.messages(), expected);
    assert_eq!(bench.count(EVICTED, "dedup"), 2);
}

#[test]
fn another_set_of_rules_begins_anew_and_sums_up_the_last() {
    let mut throttle = bench("{dedup: {window: 60s}}").config.throttle;
    throttle.exempt_priority = config::ExemptPriority(None);
    let (metrics, first) = (Arc::new(Metrics::new()), rules(RULES));
    let mut throttle = Throttle::new(&throttle, &first, &metrics);
    let (outside, arena) = (Fake::default(), bumpalo::Bump::new());
    let event = event(5, task(10, 1, (1, 0), "sh"), exec("/bin/sh"));
    let process = crate::process::ProcessTable::default().apply(&event, &outside);
    let sight = Sight {
        number: 1,
        event: &event,
        process: &process,
        lineage: crate::facts::Lineage::Kept(&[]),
        container: None,
        name: b"",
        epoch_offset_ns: 0,
        started_boot_ns: 0,
        previous_boot_ns: 0,
        clock: Clock::default(),
        outside: &outside,
        arena: &arena,
        user: std::cell::OnceCell::new(),
    };
    let options = AlertOptions::default();
    let (etc, sensitive) = (RuleIndex(0), RuleIndex(2));
    assert!(throttle.admits(&first, etc, &sight, &options));
    assert!(!throttle.admits(&first, etc, &sight, &options));
    // In the next set the same number is another rule, and there are fewer.
    let next = rules(RULES.lines().rev().take(1).collect::<Vec<_>>().join("\n").as_str());
    assert!(throttle.admits(&next, RuleIndex(0), &sight, &options));
    let due: Vec<_> = throttle.take_due().iter().map(|alert| (alert.rule.clone(), folded(alert))).collect();
    assert_eq!(due, [("Etc".to_owned(), Some(1))]);
    assert_eq!(throttle.open(), 1);
    assert_eq!(next.rule(RuleIndex(0)).name, first.rule(sensitive).name);
}

#[test]
fn what_a_container_makes_long_is_cut_in_the_summary_and_told_apart_by_all_of_it() {
    let long: &'static str = Box::leak("é".repeat(300).into_boxed_str());
    let longer: &'static str = Box::leak(format!("{long}x").into_boxed_str());
    let mut bench = bench("{dedup: {window: 60s, key: [fd.name]}}");
    for path in [long, long, longer, longer] {
        bench.open(1, true, path);
    }
    assert_eq!(bench.take().len(), 2, "two keys");
    bench.pipeline.finish();
    let cut = format!("{}...", "é".repeat(128));
    let shown: Vec<_> = bench.take().iter().map(|alert| alert.output_fields["fd.name"].clone()).collect();
    assert_eq!(shown, [Json::from(cut.clone()), Json::from(cut)]);
}

#[derive(Debug, Clone)]
enum Step {
    Open { after: u64, late: bool, in_container: bool, path: usize },
    Tick { after: u64 },
    Reload,
}

fn step() -> impl Strategy<Value = Step> {
    let open = (0..4 * SECOND, prop::bool::weighted(0.1), any::<bool>(), 0..PATHS.len());
    prop_oneof![
        30 => open.prop_map(|(after, late, in_container, path)| Step::Open { after, late, in_container, path }),
        2 => (0_u64..30).prop_map(|after| Step::Tick { after }),
        1 => Just(Step::Reload),
    ]
}

fn throttle() -> impl Strategy<Value = String> {
    let key = prop::sample::subsequence(vec!["container.id", "fd.name", "proc.exepath"], 0..=3);
    (0_u32..5, 1_u64..20, key.clone(), 0_u64..20, key, 1_u32..5, any::<bool>()).prop_map(
        |(alerts, span, rate, window, dedup, keys, exempt)| {
            let exempt = if exempt { "critical" } else { "none" };
            format!(
                "{{rate: {{alerts: {alerts}, window: {span}s, key: [{}]}}, dedup: {{window: {window}s, key: [{}]}}, \
                 max_keys: {keys}, exempt_priority: {exempt}}}",
                rate.join(", "),
                dedup.join(", ")
            )
        },
    )
}

/// Plays a stream to its end; gives what came out.
fn play(bench: &mut Bench, steps: &[Step]) -> Vec<Alert> {
    let mut at = 100 * SECOND;
    for step in steps {
        match step {
            Step::Open { after, late, in_container, path } => {
                at += after;
                // An event that had to wait is older than the latest.
                let event_at = if *late { at - 50 * SECOND } else { at };
                bench.open(event_at, *in_container, PATHS[*path]);
            }
            Step::Tick { after } => {
                bench.pipeline.tick(Instant::now() + Duration::from_secs(*after));
            }
            Step::Reload => bench.reload(),
        }
    }
    bench.pipeline.finish();
    bench.take()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn raised_and_folded_is_what_matched(config in throttle(), steps in prop::collection::vec(step(), 0..120)) {
        let mut bench = bench(&config);
        let alerts = play(&mut bench, &steps);
        let opens: Vec<usize> = steps.iter().filter_map(|step| match step {
            Step::Open { path, .. } => Some(*path),
            _ => None,
        }).collect();
        let expected = |rule: &str| opens.iter().filter(|path| match rule {
            "Etc" => PATHS[**path].starts_with("/etc"),
            "Sensitive" => PATHS[**path] == "/etc/b",
            _ => true,
        }).count() as u64;
        for rule in ["Etc", "Any file", "Sensitive"] {
            let of_rule: Vec<_> = alerts.iter().filter(|alert| alert.rule == rule).collect();
            let raised: Vec<u64> = of_rule.iter().filter(|alert| folded(alert).is_none())
                .map(|alert| alert.output_fields["evt.num"].as_u64().expect("a number")).collect();
            let said: u64 = of_rule.iter().filter_map(|alert| folded(alert)).sum();
            prop_assert_eq!(bench.count(RULE_MATCHES, rule), expected(rule));
            prop_assert_eq!(raised.len() as u64 + said, expected(rule), "{}", rule);
            prop_assert_eq!(bench.count(FOLDED, rule), said);
            prop_assert!(raised.is_sorted_by(|a, b| a < b), "in order: {:?}", raised);
            for alert in of_rule.iter().filter(|alert| folded(alert).is_some()) {
                let time = |name: &str| alert.output_fields[name].as_u64().expect("a time");
                prop_assert!(folded(alert) > Some(0) && time("folded_first") <= time("folded_last"));
            }
        }
        if config.contains("exempt_priority: critical") {
            prop_assert_eq!(bench.count(FOLDED, "Sensitive"), 0);
        }
    }

    /// A second implementation, as plain as can be: what is raised depends on the events alone, not on when the worker looks.
    #[test]
    fn a_plain_model_raises_the_same(
        window in 1_u64..20,
        alerts in 1_u32..4,
        steps in prop::collection::vec((0..4 * SECOND, any::<bool>(), 0..PATHS.len()), 0..120),
    ) {
        let config = format!("{{rate: {{alerts: {alerts}, window: {window}s, key: [container.id]}}, exempt_priority: none}}");
        let (mut bench, mut at) = (bench(&config), 0);
        let mut seen: Vec<(u64, bool, usize)> = Vec::new();
        for (after, in_container, path) in steps {
            at += after;
            bench.open(at, in_container, PATHS[path]);
            bench.pipeline.tick(Instant::now());
            seen.push((at, in_container, path));
        }
        bench.pipeline.finish();
        let raised: Vec<u64> = bench.take().iter().filter(|alert| alert.rule == "Any file" && folded(alert).is_none())
            .map(|alert| alert.output_fields["evt.num"].as_u64().expect("a number")).collect();
        let mut model = Vec::new();
        for container in [true, false] {
            let (mut begun, mut count) = (None, 0);
            for (number, (at, _, _)) in seen.iter().enumerate().filter(|(_, (_, its, _))| *its == container) {
                if begun.is_none_or(|begun: u64| *at >= begun + window * SECOND) {
                    (begun, count) = (Some(*at), 0);
                }
                count += 1;
                if count <= alerts {
                    model.push(number as u64 + 1);
                }
            }
        }
        model.sort_unstable();
        prop_assert_eq!(raised, model);
    }
}
