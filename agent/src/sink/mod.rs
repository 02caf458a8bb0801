//! Where alerts go. Each sink has a bounded queue and a thread of its own, so that none slows the worker or another
//! sink; what does not fit, or cannot be delivered before the end, is counted as lost.

mod file;
mod line;
mod queue;
mod stdout;

use std::{
    io, panic,
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use self::queue::{Queue, Wake};
pub use self::{file::File, stdout::Stdout};
use crate::{
    alert::{Alert, LiveFormat},
    config::Config,
    metrics::{Counter, Metrics, SINK_ERRORS, SINK_SENT},
};

/// Alerts handed to a sink at once at most.
const BATCH: usize = 256;
/// Pause after the first failed attempt; doubled after each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// The longest pause between attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A way out of the process.
pub trait Sink: Send + 'static {
    /// Its name in metrics and logs.
    fn name(&self) -> &'static str;
    /// Delivers the alerts in order. May block: it has a thread of its own.
    fn deliver(&mut self, alerts: &[Arc<Alert>]) -> Result<(), Failure>;
    /// Opens its target anew (log rotation).
    fn reopen(&mut self) {}
}

/// An attempt that did not deliver everything.
#[derive(Debug)]
pub struct Failure {
    /// How many alerts, from the front, are delivered; they are not offered again.
    pub delivered: usize,
    /// What happened.
    pub error: io::Error,
    /// Nobody will ever read there again: trying further is in vain.
    pub permanent: bool,
}

/// Why sinks cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The file cannot be opened.
    #[error("cannot open the alert file {}: {source}; see file_output.filename in the configuration", .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No thread.
    #[error("cannot start the thread of the sink {name}: {source}")]
    Thread {
        /// The sink.
        name: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// The running sinks.
#[derive(Debug)]
pub struct Sinks {
    outlets: Vec<Outlet>,
}

#[derive(Debug)]
struct Outlet {
    name: &'static str,
    queue: Arc<Queue>,
    losses: Losses,
}

/// Counters of `purser_events_lost_total{stage="sink"}`.
#[derive(Debug, Clone)]
struct Losses {
    queue_full: Counter,
    closed: Counter,
    shutdown: Counter,
    panicked: Counter,
}

impl Sinks {
    /// Starts the sinks that the configuration names; they write in `format`.
    pub fn start(config: &Config, format: &LiveFormat, metrics: &Metrics) -> Result<Self, SinkError> {
        let mut sinks: Vec<Box<dyn Sink>> = Vec::new();
        if config.stdout_output.enabled {
            let stdout = Stdout::open(format.clone())
                .map_err(|source| SinkError::Open { path: "/dev/stdout".into(), source })?;
            sinks.push(Box::new(stdout));
        }
        if config.file_output.enabled {
            let (path, keep) = (&config.file_output.filename, config.file_output.keep_alive);
            let file = File::open(path, keep, format.clone())
                .map_err(|source| SinkError::Open { path: path.clone(), source })?;
            sinks.push(Box::new(file));
        }
        Self::with(sinks, config.outputs_queue.capacity as usize, metrics)
    }

    /// Starts the given sinks.
    pub fn with(sinks: Vec<Box<dyn Sink>>, capacity: usize, metrics: &Metrics) -> Result<Self, SinkError> {
        let losses = Losses {
            queue_full: metrics.lost("sink", "queue_full"),
            closed: metrics.lost("sink", "closed"),
            shutdown: metrics.lost("sink", "shutdown"),
            panicked: metrics.lost("sink", "panic"),
        };
        let outlets = sinks
            .into_iter()
            .map(|sink| Outlet::start(sink, capacity, losses.clone(), metrics))
            .collect::<Result<_, _>>()?;
        Ok(Self { outlets })
    }

    /// Hands the alert to every sink. Never blocks; a full queue loses it there, counted.
    pub fn send(&self, alert: &Arc<Alert>) {
        for outlet in &self.outlets {
            if !outlet.queue.push(Arc::clone(alert)) {
                outlet.losses.queue_full.increment();
            }
        }
    }

    /// Has every sink open its target anew, at its next batch.
    pub fn reopen(&self) {
        for outlet in &self.outlets {
            outlet.queue.reopen();
        }
    }

    /// Delivers what is queued, for at most `limit`; what is left then is lost and counted. True if nothing was left.
    pub fn finish(self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        for outlet in &self.outlets {
            outlet.queue.close(deadline);
        }
        let mut whole = true;
        for outlet in &self.outlets {
            let left = outlet.queue.wait_until_done(deadline);
            if left > 0 {
                whole = false;
                outlet.losses.shutdown.add(left);
                tracing::warn!(sink = outlet.name, alerts = left, "not delivered before the end");
            }
        }
        whole
    }
}

impl Outlet {
    fn start(sink: Box<dyn Sink>, capacity: usize, losses: Losses, metrics: &Metrics) -> Result<Self, SinkError> {
        let name = sink.name();
        let queue = Arc::new(Queue::new(capacity));
        let length = Arc::clone(&queue);
        metrics.queue(&format!("sink.{name}"), capacity as u64, move || length.len() as u64);
        let sent = metrics.counter(SINK_SENT, &[name]);
        // Exported as 0 from the start.
        let errors = REASONS.map(|reason| (reason, metrics.counter(SINK_ERRORS, &[name, reason])));
        let worker = Worker { sink, queue: Arc::clone(&queue), sent, errors, losses: losses.clone(), closed: false };
        thread::Builder::new()
            .name(format!("sink-{name}"))
            .spawn(move || worker.run())
            .map_err(|source| SinkError::Thread { name, source })?;
        Ok(Self { name, queue, losses })
    }
}

/// Label values of `purser_sink_errors_total{reason}`.
const REASONS: [&str; 7] = ["no_space", "closed", "permission", "not_found", "would_block", "interrupted", "io"];

fn reason(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => "no_space",
        io::ErrorKind::BrokenPipe => "closed",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => "permission",
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => "not_found",
        io::ErrorKind::WouldBlock => "would_block",
        io::ErrorKind::Interrupted => "interrupted",
        _ => "io",
    }
}

/// The thread of one sink.
struct Worker {
    sink: Box<dyn Sink>,
    queue: Arc<Queue>,
    sent: Counter,
    errors: [(&'static str, Counter); REASONS.len()],
    losses: Losses,
    /// Its reader is gone: said once, not once a batch.
    closed: bool,
}

impl Worker {
    fn run(mut self) {
        // A bug in one sink must not leave `finish` waiting, nor its queue filling without a word.
        let ended = panic::catch_unwind(panic::AssertUnwindSafe(|| self.work()));
        if ended.is_err() {
            tracing::error!(sink = self.sink.name(), "the sink has failed for good: this is a bug");
            self.losses.panicked.add(self.queue.abandon());
        }
    }

    fn work(&mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let wake = self.queue.take(&mut batch, BATCH);
            if let Wake::Reopen = wake {
                self.sink.reopen();
                continue;
            }
            if let Wake::End = wake {
                return;
            }
            if !self.deliver(&mut batch) {
                return;
            }
        }
    }

    /// Delivers a batch, however many attempts it takes. False: the time is over.
    fn deliver(&mut self, batch: &mut Vec<Arc<Alert>>) -> bool {
        let mut pause = FIRST_PAUSE;
        let mut said = false;
        while !batch.is_empty() {
            let delivered = match self.sink.deliver(batch) {
                Ok(()) => batch.len(),
                Err(failure) => {
                    self.count(&failure.error);
                    if !said && !self.closed {
                        let (name, error) = (self.sink.name(), &failure.error);
                        tracing::warn!(sink = name, %error, waiting = batch.len(), "cannot deliver alerts");
                        said = true;
                    }
                    if failure.permanent {
                        self.give_up(batch, failure.delivered);
                        return true;
                    }
                    failure.delivered
                }
            };
            self.sent.add(delivered as u64);
            self.queue.done(delivered);
            batch.drain(..delivered);
            if batch.is_empty() {
                break;
            }
            if delivered > 0 {
                pause = FIRST_PAUSE;
            }
            match self.queue.pause(pause) {
                Wake::End => return false,
                Wake::Reopen => self.sink.reopen(),
                Wake::Work => pause = (pause * 2).min(LONGEST_PAUSE),
            }
        }
        if said {
            tracing::info!(sink = self.sink.name(), "alerts are delivered again");
        }
        true
    }

    /// Nobody reads there any more: the batch is lost. Later ones are tried, should the target be opened anew.
    fn give_up(&mut self, batch: &mut Vec<Arc<Alert>>, delivered: usize) {
        self.closed = true;
        self.sent.add(delivered as u64);
        self.losses.closed.add((batch.len() - delivered) as u64);
        self.queue.done(batch.len());
        batch.clear();
    }

    fn count(&self, error: &io::Error) {
        let reason = reason(error);
        if let Some((_, counter)) = self.errors.iter().find(|(name, _)| *name == reason) {
            counter.increment();
        }
    }
}
