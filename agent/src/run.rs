//! `purser run`: starts everything in order, works until it is told to end, and sums up.
//!
//! The worker is this thread. It waits for the kernel's ring and for answers from other threads on one `poll`.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use tokio::signal::unix::{SignalKind, signal};

use crate::active::{self, ActiveRules};
use crate::alert::{Format, LiveFormat, Numbering};
use crate::cli::{RecordArgs, RuleFile, RunArgs, Summary};
use crate::config::{Compat32, Config, Pushdown, TierChoice};
use crate::container::Containers;
use crate::event::EventType;
use crate::http::{Health, Server};
use crate::live::{self, Live};
use crate::losses::{DROPPED, LossWatch};
use crate::manifest::{DiskCache, ManifestStore, VerdictService};
use crate::metrics::Metrics;
use crate::outside::Outside;
use crate::pipeline::Pipeline;
use crate::process::Procfs;
use crate::pushdown::REJECTED;
use crate::recording::{self, Recording, Reported, Start, Writer, Written};
use crate::reload::files::{self, Content, Files};
use crate::reload::{self, Reload, Surroundings};
use crate::sensor::{HookState, Policy, Sensor, SensorConfig, Tier};
use crate::sink::Sinks;
use crate::tally::Tally;
use crate::throttle::Throttle;

/// How long the end may take: for verdicts that are still to come, and for sinks.
const END: Duration = Duration::from_secs(5);
/// The longest sleep of the worker: what nobody wakes it for (memory of ended processes, clocks) is done then.
const IDLE: Duration = Duration::from_secs(1);
/// How often counts of other modules are brought into the metrics.
const PUBLISH: Duration = Duration::from_millis(500);

/// Runs the agent until `args.duration` is over, or SIGINT or SIGTERM comes. `config` is what `args` name, read.
pub fn run(config: &Config, args: &RunArgs) -> Result<Summary> {
    Ok(work(config, args, Mode::Run, |live, _| Ok(live))?.0)
}

/// The same, with a recording of all that alerts follow from. Rules stay what they are at its start.
pub fn record(config: &Config, args: &RecordArgs) -> Result<(Summary, Written)> {
    let everything = args.run.rules.is_empty();
    let (summary, recording) = work(config, &args.run, Mode::Record { everything }, |live, begun| {
        let waker = begun.wake.clone();
        let writer = Writer::create(&args.write, args.limits(), Box::new(move || waker.wake()))?;
        let start = start(config, &live, begun)?;
        Ok(Recording::new(live, writer, &start, begun.texts))
    })?;
    Ok((summary, recording.finish()?))
}

/// What the agent is started for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Run,
    /// `everything`: for any rules.
    Record {
        everything: bool,
    },
}

/// The machine as the worker has it: as it is, or with a recorder in between.
trait Machine: Outside {
    fn live(&mut self) -> &mut Live;
    /// Takes note of what was counted.
    fn note(&mut self, _metrics: &Metrics) {}
    /// There is no use in going on.
    fn has_ended(&self) -> bool {
        false
    }
}

impl Machine for Live {
    fn live(&mut self) -> &mut Live {
        self
    }
}

impl Machine for Recording<Live> {
    fn live(&mut self) -> &mut Live {
        self.inner()
    }

    fn note(&mut self, metrics: &Metrics) {
        self.losses(metrics);
    }

    fn has_ended(&self) -> bool {
        self.has_ended()
    }
}

/// What is known when the sensor runs and the pipeline does not.
struct Begun<'a> {
    sensor: &'a Sensor,
    policy: &'a Policy,
    rules: &'a ActiveRules,
    texts: &'a [RuleFile],
    wake: &'a Wake,
    started_boot_ns: u64,
}

fn start(config: &Config, live: &Live, begun: &Begun<'_>) -> Result<Start> {
    let uname = rustix::system::uname();
    let options = crate::alert::options(config);
    Ok(Start {
        kernel: uname.release().to_string_lossy().into_owned(),
        machine: std::env::consts::ARCH.to_owned(),
        hostname: options.hostname,
        started_boot_ns: begun.started_boot_ns,
        epoch_offset_ns: live.epoch_offset_ns(),
        clock: options.clock.offset.whole_seconds(),
        tier: begun.sensor.tier().in_use.to_string(),
        hooks: attached(begun.sensor),
        reported: Reported::of(begun.policy),
        domains: begun.rules.set.needs().domains.clone(),
        config: recording::settings::recorded(config)?,
        rules: u32::try_from(begun.texts.len()).context("too many rule files")?,
    })
}

fn work<O: Machine>(
    config: &Config,
    args: &RunArgs,
    mode: Mode,
    machine: impl FnOnce(Live, &Begun<'_>) -> Result<O>,
) -> Result<(Summary, O)> {
    if !rustix::process::geteuid().is_root() {
        bail!("this needs root, to load eBPF programs and to look into containers; start it with sudo");
    }
    let metrics = Arc::new(Metrics::new());
    let health = Arc::new(Health::default());
    let (hooks_attached, rules_loaded) = (health.condition("hooks attached"), health.condition("rules loaded"));
    let (files, texts, rules) = load(config, args, &metrics)?;
    rules_loaded.set(true);
    let wake = Wake::new()?;
    let signals = Signals::start(wake.clone())?;
    let server = match config.listen() {
        Some(address) => {
            let server = Server::start(address, &config.webserver, Arc::clone(&metrics), Arc::clone(&health))?;
            tracing::info!("metrics and health at http://{}", server.address());
            Some(server)
        }
        None => None,
    };
    let format = LiveFormat::from(Format::from(config));
    let sinks = Arc::new(Sinks::start(config, &format, &metrics)?);
    let live = outside(config, &wake)?;
    let containers_wake = live.wake_fd()?;
    let policy = match mode {
        Mode::Record { everything: true } => Policy::everything(),
        // What other rules may ask for has to be there.
        Mode::Record { everything: false } => reload::policy(&rules.set, config.scope, Pushdown::Off),
        Mode::Run => reload::policy(&rules.set, config.scope, config.sensor.pushdown),
    };
    let mut sensor = Sensor::start(&sensor_config(config), &policy)?;
    sensor.watch(wake.fd())?;
    sensor.watch(containers_wake.as_fd())?;
    let started_boot_ns = live::boot_ns();
    let (begun_policy, begun_rules) = (&policy, &*rules);
    let begun = Begun {
        sensor: &sensor,
        policy: begun_policy,
        rules: begun_rules,
        texts: &texts,
        wake: &wake,
        started_boot_ns,
    };
    let outside = machine(live, &begun)?;
    let mut pipeline = pipeline(config, outside, &rules, &metrics, Arc::clone(&sinks), started_boot_ns);
    pipeline.set_filter(sensor.generation(), &policy.own);
    pipeline.scan();
    let mut reloads = if mode == Mode::Run {
        let surroundings = Surroundings { metrics: Arc::clone(&metrics), wake: wake.clone(), format };
        let content = Content::new(config.clone(), &texts);
        Some(Reload::start(files, content, (&rules, policy), surroundings)?)
    } else {
        None
    };
    drop(texts);
    hooks_attached.set(true);
    greet(&sensor, &rules);
    drop(rules);

    publish(&mut sensor, &mut pipeline, &metrics);
    let mut losses = LossWatch::new(&config.syscall_event_drops, &metrics, Instant::now(), live::epoch_ns());
    let mut published = Instant::now();
    let end = args.duration.and_then(|duration| Instant::now().checked_add(duration));
    while !signals.stop() && !pipeline.outside().has_ended() && end.is_none_or(|end| Instant::now() < end) {
        if signals.reopen() {
            sinks.reopen();
        }
        if signals.reload() {
            if let Some((reload, _)) = &reloads {
                reload.request();
            } else {
                tracing::warn!("rules and configuration stay as they are while they are recorded");
            }
        }
        let limit = end.map_or(IDLE, |end| end.saturating_duration_since(Instant::now()).min(IDLE));
        round(&mut sensor, &mut pipeline, &wake, limit)?;
        if let Some((_, orders)) = &mut reloads {
            orders.obey(&mut sensor, &mut pipeline);
        }
        if published.elapsed() >= PUBLISH {
            publish(&mut sensor, &mut pipeline, &metrics);
            pipeline.set_clock(crate::alert::clock());
            published = Instant::now();
            let found = losses.look(&metrics, published, live::epoch_ns(), pipeline.alert_options());
            if let Some(alert) = found.alert {
                pipeline.raise(alert);
            }
            if found.exit {
                bail!("events were lost, and syscall_event_drops.actions has `exit`: see purser_events_lost_total");
            }
        }
    }
    if let Some((reload, mut orders)) = reloads.take() {
        drop(reload);
        orders.obey(&mut sensor, &mut pipeline);
    }
    let (tier, hooks) = (sensor.tier().in_use.to_string(), attached(&sensor));
    finish(&mut sensor, &mut pipeline, &wake)?;
    publish(&mut sensor, &mut pipeline, &metrics);
    if let Some(alert) = losses.finish(&metrics, Instant::now(), live::epoch_ns(), pipeline.alert_options()) {
        pipeline.raise(alert);
    }
    let enabled = pipeline.rules().enabled();
    let outside = pipeline.into_outside();
    if let Ok(sinks) = Arc::try_unwrap(sinks) {
        sinks.finish(END);
    }
    drop(server);
    Ok((Summary::of(&metrics, tier, hooks, enabled), outside))
}

/// The rules of the start, with what a reload goes on from.
fn load(config: &Config, args: &RunArgs, metrics: &Metrics) -> Result<(Files, Vec<RuleFile>, Arc<ActiveRules>)> {
    let mut files = Files::new(args.clone(), config);
    let texts = files.rules(config, true)?;
    let (set, warnings) =
        files::compile(config, &texts).context("the rules cannot be used; see `purser rules check`")?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let rules = ActiveRules::new(set, config.rule_matching.into(), metrics);
    Ok((files, texts, rules))
}

fn outside(config: &Config, wake: &Wake) -> Result<Live> {
    let mut containers = Containers::new(&config.containers())?;
    containers.scan();
    let procfs = Procfs::new("/proc", containers.cgroup2_mount().map(Path::to_owned));
    let waker = wake.clone();
    let verdicts = VerdictService::start(config.verdicts(), manifest_store(config), Box::new(move || waker.wake()))
        .context("cannot start the threads that judge programs")?;
    Ok(Live::new(procfs, containers, verdicts))
}

fn manifest_store(config: &Config) -> ManifestStore {
    let directory = &config.manifest.cache_dir;
    let cache = DiskCache::open(directory, config.manifest.cache_max_bytes.0);
    if let Err(error) = &cache {
        tracing::warn!("manifests are not kept between runs: {error}");
    }
    ManifestStore::new(cache.ok(), config.layer_limits())
}

pub(crate) fn sensor_config(config: &Config) -> SensorConfig {
    SensorConfig {
        ring_bytes: u32::try_from(config.sensor.ring_bytes.0).unwrap_or(u32::MAX),
        compat_calls: config.sensor.compat32 == Compat32::Auto,
        tier: match config.sensor.tier {
            TierChoice::Auto => None,
            TierChoice::A => Some(Tier::A),
            TierChoice::B => Some(Tier::B),
            TierChoice::C => Some(Tier::C),
        },
        ..SensorConfig::default()
    }
}

fn attached(sensor: &Sensor) -> Vec<String> {
    let attached = sensor.hooks().iter().filter(|hook| hook.state == HookState::Attached);
    attached.map(|hook| hook.name.to_owned()).collect()
}

/// Brings what other modules count into the metrics.
fn publish<O: Machine>(sensor: &mut Sensor, pipeline: &mut Pipeline<O>, metrics: &Metrics) {
    for cgroup in pipeline.outside().live().take_settled_hosts() {
        if let Err(error) = sensor.add_host_cgroup(cgroup) {
            tracing::debug!(cgroup, %error, "its events are sorted out by the agent");
        }
    }
    for (stage, reason, count) in sensor.losses() {
        metrics.lost(stage, reason).raise_to(count);
    }
    for (family, counts) in [(DROPPED, by_name(sensor.dropped())), (REJECTED, by_name(sensor.rejected()))] {
        for (name, count) in counts {
            metrics.counter(family, &[name]).raise_to(count);
        }
    }
    pipeline.publish();
    pipeline.outside().live().publish(metrics);
    pipeline.outside().note(metrics);
}

/// Some types have one name: a call, and the same by `io_uring`.
fn by_name(counts: impl IntoIterator<Item = (EventType, u64)>) -> BTreeMap<&'static str, u64> {
    let mut sums = BTreeMap::new();
    for (event, count) in counts {
        *sums.entry(event.name()).or_default() += count;
    }
    sums
}

fn pipeline<O: Outside>(
    config: &Config,
    outside: O,
    rules: &Arc<ActiveRules>,
    metrics: &Arc<Metrics>,
    sinks: Arc<Sinks>,
    started_boot_ns: u64,
) -> Pipeline<O> {
    let mut numbering = Numbering::default();
    let deliver = Box::new(move |raised| sinks.send(&Arc::new(numbering.number(raised))));
    let settings = reload::settings(config);
    let mut pipeline =
        Pipeline::new(settings, outside, Arc::clone(rules), Tally::new(metrics), started_boot_ns, deliver);
    pipeline.set_throttle(Throttle::new(&config.throttle, &rules.set, metrics));
    pipeline
}

/// What a user wants to know first.
fn greet(sensor: &Sensor, rules: &ActiveRules) {
    let uname = rustix::system::uname();
    tracing::info!("kernel {} {}", uname.release().to_string_lossy(), uname.machine().to_string_lossy());
    tracing::info!("sensor: {}", sensor.tier());
    tracing::info!("hooks: {}", attached(sensor).join(", "));
    for hook in sensor.hooks() {
        if let HookState::Unavailable(reason) = &hook.state {
            tracing::warn!("hook {} is not to be had here: {reason}", hook.name);
        }
    }
    tracing::info!("{} rules enabled of {}", rules.enabled(), rules.set.rules().len());
    active::warn_of_none(rules.enabled());
}

/// Waits for something to do, for at most `limit`, and does it.
fn round<O: Outside>(sensor: &mut Sensor, pipeline: &mut Pipeline<O>, wake: &Wake, limit: Duration) -> Result<()> {
    let now = Instant::now();
    let deadline = pipeline.tick(now).map_or(limit, |at| at.saturating_duration_since(now).min(limit));
    sensor.poll(deadline, &mut |record| pipeline.record(record))?;
    wake.clear();
    for hash in pipeline.take_unmatched() {
        if let Err(error) = sensor.reject(hash) {
            tracing::debug!(%error, "the like of an event goes on to come");
        }
    }
    Ok(())
}

/// What the kernel has still to say, then what still waits for answers, for a bounded time.
fn finish<O: Outside>(sensor: &mut Sensor, pipeline: &mut Pipeline<O>, wake: &Wake) -> Result<()> {
    sensor.set_policy(&Policy::default())?;
    let deadline = Instant::now() + END;
    loop {
        let found = sensor.poll(Duration::ZERO, &mut |record| pipeline.record(record))?;
        pipeline.tick(Instant::now());
        let left = deadline.saturating_duration_since(Instant::now());
        if (found == 0 && !pipeline.is_waiting()) || left.is_zero() {
            break;
        }
        wake.wait(left.min(Duration::from_millis(20)))?;
    }
    pipeline.finish();
    Ok(())
}

/// Wakes the worker from other threads.
#[derive(Debug, Clone)]
pub struct Wake(Arc<OwnedFd>);

impl Wake {
    pub(crate) fn new() -> Result<Self> {
        let fd = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .context("cannot make an eventfd")?;
        Ok(Self(Arc::new(fd)))
    }

    /// Ends the worker's sleep, or its next one.
    pub fn wake(&self) {
        // Full means that it is awake already.
        let _ = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
    }

    pub(crate) fn clear(&self) {
        let _ = rustix::io::read(&*self.0, &mut [0; 8]);
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    fn wait(&self, limit: Duration) -> Result<()> {
        let timeout = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: limit.subsec_nanos().into() };
        match rustix::event::poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait"),
        }
        self.clear();
        Ok(())
    }
}

/// Signals, seen by a thread that waits for them.
#[derive(Debug)]
struct Signals {
    stop: Arc<AtomicBool>,
    reopen: Arc<AtomicBool>,
    reload: Arc<AtomicBool>,
}

impl Signals {
    fn start(wake: Wake) -> Result<Self> {
        let flag = || Arc::new(AtomicBool::new(false));
        let (stop, reopen, reload) = (flag(), flag(), flag());
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start tokio")?;
        let (ended, rotated, changed) = (Arc::clone(&stop), Arc::clone(&reopen), Arc::clone(&reload));
        let in_runtime = runtime.enter();
        let listen = |kind| signal(kind).context("cannot listen for signals");
        let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
        let (mut hangup, mut user) = (listen(SignalKind::hangup())?, listen(SignalKind::user_defined1())?);
        drop(in_runtime);
        let wait = async move {
            loop {
                let set: &[&AtomicBool] = tokio::select! {
                    _ = interrupt.recv() => &[&ended],
                    _ = terminate.recv() => &[&ended],
                    // Daemons are told so of changed files, and by log rotation of rotated ones.
                    _ = hangup.recv() => &[&rotated, &changed],
                    _ = user.recv() => &[&rotated],
                };
                for flag in set {
                    flag.store(true, Ordering::Release);
                }
                wake.wake();
            }
        };
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || runtime.block_on(wait))
            .context("cannot start the thread for signals")?;
        Ok(Self { stop, reopen, reload })
    }

    fn stop(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn reopen(&self) -> bool {
        self.reopen.swap(false, Ordering::AcqRel)
    }

    fn reload(&self) -> bool {
        self.reload.swap(false, Ordering::AcqRel)
    }
}
