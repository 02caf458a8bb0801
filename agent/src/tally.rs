//! The pipeline's counters, looked up once: what the hot path counts costs one addition.

use std::sync::Arc;

use crate::event::EventType;
use crate::manifest::Verdict;
use crate::metrics::{Counter, Family, Metrics, QUEUE_LENGTH, counter, gauge};
use crate::process::ProcessCounters;
use crate::pushdown::Filter;

/// Processes that no event introduced, and what became of them.
const PROCESSES: Family = counter("purser_process_lookups", "Processes first seen midway, by result", &["result"]);
/// Processes in the table.
const PROCESSES_KNOWN: Family = gauge("purser_processes", "Processes known, ended ones for a while included", &[]);

/// Counters by what the pipeline has in hand.
#[derive(Debug)]
pub struct Tally {
    metrics: Arc<Metrics>,
    events: Vec<Counter>,
    verdicts: Vec<(Verdict, Counter)>,
    /// Records that could not be decoded, by the decoder's reason.
    pub decode: Vec<(&'static str, Counter)>,
    /// Events that went on without their container's image: the runtime did not answer in time.
    pub identity_timeout: Counter,
    /// The same, because too many events waited.
    pub identity_overflow: Counter,
    /// Events whose cgroup was gone before anyone could say whether it was a container's.
    pub identity_gone: Counter,
    /// Rules undecided because too many events waited for a verdict.
    pub verdict_overflow: Counter,
    /// Rules undecided because the agent ended first.
    pub verdict_shutdown: Counter,
    /// Rules undecided although the verdict came.
    pub verdict_unknown: Counter,
}

impl Tally {
    /// Counters of `metrics`, all exported from now on.
    pub fn new(metrics: &Arc<Metrics>) -> Self {
        let mut events = vec![Counter::default(); 256];
        for event in EventType::ALL {
            events[usize::from(event.code())] = metrics.event(event.name());
        }
        Self {
            metrics: Arc::clone(metrics),
            events,
            verdicts: Verdict::ALL.iter().map(|verdict| (*verdict, metrics.verdict(verdict.as_str()))).collect(),
            decode: crate::decode::DecodeError::REASONS
                .iter()
                .map(|reason| (*reason, metrics.lost("decode", reason)))
                .collect(),
            identity_timeout: metrics.lost("identity", "timeout"),
            identity_overflow: metrics.lost("identity", "overflow"),
            identity_gone: metrics.lost("identity", "gone"),
            verdict_overflow: metrics.lost("verdict", "overflow"),
            verdict_shutdown: metrics.lost("verdict", "shutdown"),
            verdict_unknown: metrics.lost("verdict", "unknown"),
        }
    }

    /// Counts what rules are asked of events.
    pub(crate) fn filter(&self) -> Filter {
        Filter::new(&self.metrics)
    }

    /// The process table's own counts, and how many processes, held events and parked events there are.
    pub fn publish(&self, processes: ProcessCounters, [known, held, parked]: [u64; 3]) {
        let ProcessCounters { from_procfs, incomplete, evicted } = processes;
        for (result, count) in [("from_procfs", from_procfs), ("incomplete", incomplete), ("evicted", evicted)] {
            self.metrics.counter(PROCESSES, &[result]).raise_to(count);
        }
        self.metrics.gauge(PROCESSES_KNOWN, &[], known);
        self.metrics.gauge(QUEUE_LENGTH, &["identity"], held);
        self.metrics.gauge(QUEUE_LENGTH, &["verdict"], parked);
    }

    /// An event came.
    pub fn event(&self, event: EventType) {
        self.events[usize::from(event.code())].increment();
    }

    /// A record could not be decoded.
    pub fn undecodable(&self, reason: &str) {
        if let Some((_, counter)) = self.decode.iter().find(|(known, _)| *known == reason) {
            counter.increment();
        }
    }

    /// A verdict was given.
    pub fn verdict(&self, verdict: Verdict) {
        if let Some((_, counter)) = self.verdicts.iter().find(|(known, _)| *known == verdict) {
            counter.increment();
        }
    }
}
