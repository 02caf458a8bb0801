//! The agent's numbers: what Prometheus reads, and what the summary at the end is made of. It counts; it decides nothing.
//!
//! The hot path holds a [`Counter`] that was looked up once; no label is looked up per event. Modules that count with
//! atomics of their own are read at each scrape ([`Metrics::observe`]).

use std::{
    collections::BTreeMap,
    fmt, fs,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, text},
    metrics::MetricType,
    registry::Registry,
};

use crate::alert::Priority;

/// The content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// One number that only rises. A clone counts the same thing; counting is one relaxed atomic addition.
#[derive(Debug, Clone, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// One more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// `n` more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Brings it up to a total that is counted elsewhere.
    pub fn raise_to(&self, total: u64) {
        self.0.fetch_max(total, Ordering::Relaxed);
    }

    /// The count.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A family of numbers: `# HELP` and `# TYPE`, and the labels of each of its series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Family {
    /// Name without `_total`, which the encoder adds to counters.
    pub name: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// What it may do.
    pub kind: Kind,
    /// Names of its labels.
    pub labels: &'static [&'static str],
}

/// What a number may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only rise.
    Counter,
    /// Rise and fall.
    Gauge,
    /// A gauge of time: set in nanoseconds, exported in seconds.
    Seconds,
}

impl Kind {
    fn encode(self, value: u64, metric: &mut MetricEncoder<'_>) -> fmt::Result {
        match self {
            Self::Counter => metric.encode_counter::<[(&str, &str); 0], _, u64>(&value, None),
            Self::Gauge => metric.encode_gauge(&value),
            Self::Seconds => metric.encode_gauge(&Duration::from_nanos(value).as_secs_f64()),
        }
    }
}

/// Events that reached user space, by type.
pub const EVENTS: Family = counter("purser_events", "Events decoded, by type", &["type"]);
/// Everything that was dropped, anywhere between the kernel and the last sink.
pub const LOST: Family =
    counter("purser_events_lost", "Events or alerts lost, by stage and reason", &["stage", "reason"]);
/// Rules that fired, whether their alert was raised or folded.
pub const RULE_MATCHES: Family =
    counter("purser_rule_matches", "Alerts, folded ones included, by rule", &["rule", "priority"]);
/// Verdicts given.
pub const VERDICTS: Family = counter("purser_verdicts", "Verdicts of manifests, by verdict", &["verdict"]);
/// Alerts that a sink took.
pub const SINK_SENT: Family = counter("purser_sink_sent", "Alerts delivered, by sink", &["sink"]);
/// Failed attempts of a sink; the alerts are tried again.
pub const SINK_ERRORS: Family =
    counter("purser_sink_errors", "Failed attempts to deliver, by sink and reason", &["sink", "reason"]);
/// What waits in each queue.
pub const QUEUE_LENGTH: Family = gauge("purser_queue_length", "What waits in the queue now", &["queue"]);
/// What each queue can hold.
pub const QUEUE_CAPACITY: Family = gauge("purser_queue_capacity", "What the queue can hold", &["queue"]);

/// A counter family; `name` is without `_total`.
pub const fn counter(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Family {
    Family { name, help, kind: Kind::Counter, labels }
}

/// A gauge family.
pub const fn gauge(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Family {
    Family { name, help, kind: Kind::Gauge, labels }
}

/// A family of times, set in nanoseconds and exported in seconds.
pub const fn seconds(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Family {
    Family { name, help, kind: Kind::Seconds, labels }
}

/// All numbers of the agent.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    store: Arc<Store>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// With the numbers of the process itself and `purser_build_info`.
    pub fn new() -> Self {
        let store = Arc::new(Store::default());
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Arc::clone(&store)));
        registry.register_collector(Box::new(Process::new()));
        Self { registry: Mutex::new(registry), store }
    }

    /// The counter of one series, made at 0 if it is new. Look it up once, at the start.
    pub fn counter(&self, family: Family, labels: &[&str]) -> Counter {
        let mut families = self.store.lock();
        let series = families.entry(family.name).or_insert_with(|| (family, BTreeMap::new()));
        match series.1.entry(owned(labels)).or_insert_with(|| Source::Counter(Counter::default())) {
            Source::Counter(counter) => counter.clone(),
            // Counted elsewhere: a counter of one's own beside it would be exported twice.
            Source::Observed(_) => Counter::default(),
        }
    }

    /// A series whose number `read` tells at each scrape; it must neither block nor use these metrics.
    pub fn observe(&self, family: Family, labels: &[&str], read: impl Fn() -> u64 + Send + Sync + 'static) {
        let mut families = self.store.lock();
        let series = families.entry(family.name).or_insert_with(|| (family, BTreeMap::new()));
        series.1.insert(owned(labels), Source::Observed(Box::new(read)));
    }

    /// Sets a gauge.
    pub fn gauge(&self, family: Family, labels: &[&str], value: u64) {
        self.counter(family, labels).0.store(value, Ordering::Relaxed);
    }

    /// Takes one series off, such as the queue of a thread that has ended.
    pub fn remove(&self, family: Family, labels: &[&str]) {
        if let Some((_, series)) = self.store.lock().get_mut(family.name) {
            series.remove(&owned(labels));
        }
    }

    /// The counter of one event type.
    pub fn event(&self, name: &str) -> Counter {
        self.counter(EVENTS, &[name])
    }

    /// The counter of one reason for a loss; asking for it exports it as 0.
    pub fn lost(&self, stage: &str, reason: &str) -> Counter {
        self.counter(LOST, &[stage, reason])
    }

    /// The counter of one rule's alerts.
    pub fn rule_matches(&self, rule: &str, priority: Priority) -> Counter {
        self.counter(RULE_MATCHES, &[rule, priority.name()])
    }

    /// The counter of one verdict.
    pub fn verdict(&self, verdict: &str) -> Counter {
        self.counter(VERDICTS, &[verdict])
    }

    /// The gauges of one queue.
    pub fn queue(&self, name: &str, capacity: u64, length: impl Fn() -> u64 + Send + Sync + 'static) {
        self.observe(QUEUE_LENGTH, &[name], length);
        self.observe(QUEUE_CAPACITY, &[name], move || capacity);
    }

    /// Adds a collector of one's own (histograms, families with labels that come and go).
    pub fn register(&self, collector: Box<dyn Collector>) {
        lock(&self.registry).register_collector(collector);
    }

    /// The `OpenMetrics` text of everything.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut out = String::with_capacity(16 << 10);
        text::encode(&mut out, &lock(&self.registry))?;
        Ok(out)
    }

    /// The numbers of one family, by labels.
    pub fn read(&self, family: Family) -> Vec<(Vec<String>, u64)> {
        self.store.lock().get(family.name).map_or_else(Vec::new, |(_, series)| {
            series.iter().map(|(labels, source)| (labels.clone(), source.get())).collect()
        })
    }
}

type Series = BTreeMap<Vec<String>, Source>;

enum Source {
    Counter(Counter),
    Observed(Box<dyn Fn() -> u64 + Send + Sync>),
}

impl Source {
    fn get(&self) -> u64 {
        match self {
            Self::Counter(counter) => counter.get(),
            Self::Observed(read) => read(),
        }
    }
}

/// Every family and its series, sorted by name.
#[derive(Default)]
struct Store(Mutex<BTreeMap<&'static str, (Family, Series)>>);

impl Store {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, (Family, Series)>> {
        lock(&self.0)
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.lock().keys()).finish()
    }
}

impl Collector for Store {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (family, series) in self.lock().values() {
            let kind = match family.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge | Kind::Seconds => MetricType::Gauge,
            };
            let mut metric = encoder.encode_descriptor(family.name, family.help, None, kind)?;
            for (labels, source) in series {
                let pairs: Vec<(&str, &str)> =
                    family.labels.iter().copied().zip(labels.iter().map(String::as_str)).collect();
                // Empty braces are allowed, but not every reader takes them.
                if pairs.is_empty() {
                    family.kind.encode(source.get(), &mut metric)?;
                } else {
                    family.kind.encode(source.get(), &mut metric.encode_family(&pairs)?)?;
                }
            }
        }
        Ok(())
    }
}

/// The process itself, under the names that every Prometheus client library uses, and the build.
#[derive(Debug)]
struct Process {
    start_seconds: f64,
}

impl Process {
    fn new() -> Self {
        Self { start_seconds: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64()) }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let cpu = Duration::new(cpu.tv_sec as u64, cpu.tv_nsec as u32).as_secs_f64();
        encoder
            .encode_descriptor("process_cpu_seconds", "User and system time spent", None, MetricType::Counter)?
            .encode_counter::<[(&str, &str); 0], _, u64>(&cpu, None)?;
        encoder
            .encode_descriptor("process_start_time_seconds", "Start, seconds since the epoch", None, MetricType::Gauge)?
            .encode_gauge(&self.start_seconds)?;
        // Without /proc these are absent, not zero.
        if let Some(rss) = resident_bytes() {
            encoder
                .encode_descriptor("process_resident_memory_bytes", "Resident memory", None, MetricType::Gauge)?
                .encode_gauge(&rss)?;
        }
        if let Ok(descriptors) = fs::read_dir("/proc/self/fd") {
            encoder
                .encode_descriptor("process_open_fds", "Open file descriptors", None, MetricType::Gauge)?
                .encode_gauge(&(descriptors.count() as u64))?;
        }
        let build = [("version", env!("CARGO_PKG_VERSION")), ("arch", std::env::consts::ARCH)];
        encoder.encode_descriptor("purser_build", "The agent's build", None, MetricType::Info)?.encode_info(&build)
    }
}

/// Resident memory of this process in bytes, from `/proc/self/statm`.
pub fn resident_bytes() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

fn owned(labels: &[&str]) -> Vec<String> {
    labels.iter().map(|&label| label.to_owned()).collect()
}

/// What these locks guard is whole after a panic too: a map of counters.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
