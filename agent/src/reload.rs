//! Hot reload: a thread that watches the configuration and the rule files, loads and compiles what changed, and has the
//! worker put it in force between two events. All or nothing: files that cannot be used leave the last good set and
//! configuration running, raise an alert, and count.
//!
//! Files are compared by content; what watches them is only a hint to read them again.

mod activate;
pub(crate) mod files;
mod paths;
mod report;
mod watch;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::active::{self, ActiveRules};
use crate::alert::{Format, LiveFormat};
use crate::cli::{self, RuleFile};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::run::Wake;
use crate::sensor::{Policy, give_back_memory};
use crate::throttle::Throttle;

use self::activate::{Change, Order};
pub(crate) use self::activate::{Orders, policy, settings};
use self::files::{Content, Failure, Files};
use self::report::Report;
pub use self::report::{RELOADS, RULE};
use self::watch::{PATIENCE, Watcher, Woken};

/// What was loaded at the start is loaded on the main thread: deeply nested rules get no less stack later.
const STACK: usize = 8 << 20;

/// What the thread needs of the rest of the agent.
pub(crate) struct Surroundings {
    pub(crate) metrics: Arc<Metrics>,
    /// Wakes the worker.
    pub(crate) wake: Wake,
    pub(crate) format: LiveFormat,
}

/// The thread, seen from the worker. Dropping it ends the thread.
pub(crate) struct Reload {
    control: Arc<Control>,
}

struct Control {
    wake: Wake,
    asked: AtomicBool,
    ended: AtomicBool,
}

impl Reload {
    /// Starts the thread; `content` and `rules` are in force, and so is `policy` in the kernel.
    pub(crate) fn start(
        files: Files,
        content: Content,
        (rules, policy): (&ActiveRules, Policy),
        surroundings: Surroundings,
    ) -> Result<(Self, Orders)> {
        let wake = Wake::new()?;
        let control = Arc::new(Control { wake, asked: AtomicBool::new(false), ended: AtomicBool::new(false) });
        let (sender, receiver) = mpsc::channel();
        let pushdown = content.config.sensor.pushdown;
        let reloader = Reloader {
            report: Report::new(&surroundings.metrics, &content.sha256, rules.enabled()),
            watcher: Watcher::new(&surroundings.metrics),
            running: content.config.clone(),
            rules_files: content.config.rules_files.clone(),
            files,
            content,
            refused: None,
            failure: None,
            restart: Vec::new(),
            orders: sender,
            surroundings,
        };
        let theirs = Arc::clone(&control);
        thread::Builder::new()
            .name("reload".to_owned())
            .stack_size(STACK)
            .spawn(move || reloader.run(&theirs))
            .context("cannot start the thread that reloads rules")?;
        Ok((Self { control }, Orders::new(receiver, policy, pushdown)))
    }

    /// Has everything read and put in force anew, whether or not it has changed.
    pub(crate) fn request(&self) {
        self.control.asked.store(true, Ordering::Release);
        self.control.wake.wake();
    }
}

impl Drop for Reload {
    fn drop(&mut self) {
        self.control.ended.store(true, Ordering::Release);
        self.control.wake.wake();
    }
}

struct Reloader {
    files: Files,
    watcher: Watcher,
    /// What the files said when they were last put in force.
    content: Content,
    /// The configuration in force: of keys that need a restart, what the agent was started with.
    running: Config,
    /// Those of the configuration that was read last, in force or not: what would have to change for it to be.
    rules_files: Vec<PathBuf>,
    /// What could be read and not be used.
    refused: Option<Content>,
    failure: Option<Failure>,
    /// Keys that wait for a restart, as they were logged.
    restart: Vec<String>,
    orders: Sender<Order>,
    report: Report,
    surroundings: Surroundings,
}

/// The agent has ended.
struct Ended;

impl Reloader {
    fn run(mut self, control: &Control) {
        let mut woken = Woken::Time; // A change since the start was seen by nobody yet.
        let mut asked = false;
        loop {
            let seen = Instant::now();
            if woken == Woken::Changed {
                self.watcher.settle(seen, &self.watched());
            }
            if (asked || woken != Woken::Called) && self.attempt(seen, asked).is_err() {
                return;
            }
            woken = self.watcher.wait(control.wake.fd(), self.running.watch_config_files);
            control.wake.clear();
            if control.ended.load(Ordering::Acquire) {
                return;
            }
            asked = control.asked.swap(false, Ordering::AcqRel);
        }
    }

    /// Reads everything and puts it in force if it is something else, or if that was `asked` for.
    fn attempt(&mut self, seen: Instant, asked: bool) -> Result<(), Ended> {
        let begun = Instant::now();
        let result = match self.read(seen) {
            Ok((content, _)) if content == self.content && self.failure.is_none() && !asked => return Ok(()),
            Ok((content, _)) if self.refused.as_ref() == Some(&content) && !asked => return Ok(()),
            Ok((content, texts)) => {
                let activated = self.activate(&content, &texts, seen, begun)?;
                if activated.is_err() {
                    self.refused = Some(content);
                }
                activated
            }
            // It is still what it was at the last look.
            Err(failure) if self.failure.as_ref() == Some(&failure) && !asked => return Ok(()),
            Err(failure) => {
                self.refused = None;
                Err(failure)
            }
        };
        match result {
            Ok(()) => Ok(()),
            Err(failure) => self.fail(failure, asked),
        }
    }

    /// What the files say, read in one piece: what changes meanwhile is waited for and read again.
    fn read(&mut self, since: Instant) -> Result<(Content, Vec<RuleFile>), Failure> {
        loop {
            self.watch();
            // A file that was just truncated is read as it is going to be, not as it is.
            if !self.watcher.has_changed() || since.elapsed() >= PATIENCE {
                let read = self.read_once();
                if !self.watcher.has_changed() || since.elapsed() >= PATIENCE {
                    return read;
                }
            }
            self.watcher.settle(since, &self.watched());
        }
    }

    fn read_once(&mut self) -> Result<(Content, Vec<RuleFile>), Failure> {
        let config = self.files.config()?;
        if config.rules_files != self.rules_files {
            self.rules_files.clone_from(&config.rules_files);
            self.watch();
        }
        let texts = self.files.rules(&config, false)?;
        Ok((Content::new(config, &texts), texts))
    }

    fn watch(&mut self) {
        if self.running.watch_config_files {
            let watched = self.watched();
            self.watcher.arm(&watched);
        } else {
            self.watcher.disarm();
        }
    }

    fn watched(&self) -> Vec<PathBuf> {
        let config = self.files.config_path().to_owned();
        std::iter::once(config).chain(self.rules_files.iter().cloned()).collect()
    }

    fn activate(
        &mut self,
        content: &Content,
        texts: &[RuleFile],
        seen: Instant,
        begun: Instant,
    ) -> Result<Result<(), Failure>, Ended> {
        let (config, restart) = self.running.adopting(&content.config);
        // A bug in the loader must not end reloading for good, unnoticed.
        let compiled = catch_unwind(AssertUnwindSafe(|| files::compile(&config, texts)));
        let (set, warnings) = match compiled {
            Ok(Ok(loaded)) => loaded,
            Ok(Err(error)) => return Ok(Err(error.into())),
            Err(_) => return Ok(Err(Failure::plain("loading the rules has failed: this is a bug".to_owned()))),
        };
        let rules = ActiveRules::new(set, config.rule_matching.into(), &self.surroundings.metrics);
        let (enabled, all) = (rules.enabled(), rules.set.rules().len());
        let (reply, answer) = mpsc::sync_channel(1);
        let throttle = Throttle::new(&config.throttle, &rules.set, &self.surroundings.metrics);
        let change = Change { rules, scope: config.scope, settings: settings(&config), throttle };
        self.order(Order::Activate(change, reply))?;
        let done = match answer.recv() {
            Ok(Ok(done)) => done,
            Ok(Err(error)) => return Ok(Err(Failure::plain(error))),
            Err(_) => return Err(Ended),
        };
        let (took, since_seen) = (done.at.duration_since(begun), done.at.duration_since(seen));
        drop(done);
        give_back_memory();
        cli::log(config.log_level);
        self.surroundings.format.set(Format::from(&config));
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        self.report.succeeded(&content.sha256, enabled, took);
        if self.failure.take().is_some() {
            tracing::info!("configuration and rules can be used again");
        }
        tracing::info!(
            "rules reloaded: {enabled} enabled of {all}, sha256 {}, in {} ms ({} ms after the change)",
            content.sha256,
            millis(took),
            millis(since_seen)
        );
        active::warn_of_none(enabled);
        self.running = config;
        self.content = content.clone();
        self.refused = None;
        self.tell_restart(restart);
        // Watching may have been switched on or off.
        self.watch();
        Ok(Ok(()))
    }

    /// The last good set stays in force. The same failure is told once.
    fn fail(&mut self, failure: Failure, asked: bool) -> Result<(), Ended> {
        self.report.failed();
        let told = self.failure.as_ref() == Some(&failure);
        if !told || asked {
            tracing::error!("rules and configuration stay as they were: {failure}");
        }
        if !told {
            let alert = self.report.alert(&failure, &settings(&self.running).alerts);
            self.order(Order::Raise(alert))?;
        }
        self.failure = Some(failure);
        Ok(())
    }

    fn tell_restart(&mut self, restart: Vec<String>) {
        self.report.restart_pending(restart.len());
        if restart == self.restart {
            return;
        }
        if !restart.is_empty() {
            let keys = restart.join(", ");
            tracing::warn!("these keys have changed and keep their old value until the agent is started anew: {keys}");
        }
        self.restart = restart;
    }

    fn order(&self, order: Order) -> Result<(), Ended> {
        self.orders.send(order).map_err(|_ended| Ended)?;
        self.surroundings.wake.wake();
        Ok(())
    }
}

fn millis(time: Duration) -> f64 {
    // Tenths are enough to read.
    (time.as_secs_f64() * 10_000.0).round() / 10.0
}
