//! The root tests of the sensor on stock Debian kernels, each in a machine of its own, on an overlay file system as in a container,
//! with each tier of hooks forced.

mod boot;
pub(crate) mod icount;
mod initramfs;
mod kernels;
mod outcome;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use serde_json::Value;
use tempfile::TempDir;
use xtask::rig::command;

use self::boot::{Ended, Machine};
use self::kernels::{KERNELS, Kernel};
use self::outcome::{Outcome, PINNED};
use crate::setup::{self, Purpose};
use crate::workspace;

/// What is run in a machine, after `init.sh`.
const SCRIPT: &str = r#"export PATH=/usr/bin:/bin TMPDIR=/tmp
busybox ip link set lo up
/tests/sensor --test-threads=1 --nocapture $PURSER_TEST_IGNORED $PURSER_TEST_FILTER
echo "=== END $?"
busybox poweroff -f
"#;

/// A machine that takes longer hangs. Emulated, the tests take about a minute of a processor, which others may want as well.
const LIMIT: Duration = Duration::from_mins(15);

/// The hooks that the sensor is told to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPER")]
pub(crate) enum Tier {
    /// BPF LSM.
    A,
    /// Trampolines.
    B,
    /// Tracepoints.
    C,
}

impl Tier {
    /// The security modules of the kernel: BPF's only where the tier needs it.
    fn modules(self) -> &'static str {
        match self {
            Self::A => "landlock,lockdown,yama,bpf",
            Self::B | Self::C => "landlock,lockdown,yama",
        }
    }
}

/// Runs the tests on the kernels named (all, if none is), with one tier or all that are pinned; false where something failed.
pub(crate) fn run(series: &[String], tier: Option<Tier>, filter: Option<&str>) -> Result<bool> {
    let mut wanted: Vec<&'static Kernel> = series.iter().map(|name| Kernel::named(name)).collect::<Result<_>>()?;
    if wanted.is_empty() {
        wanted.extend(KERNELS);
    }
    let mut jobs: Vec<Job> = Vec::new();
    for kernel in wanted {
        let pinned = PINNED.iter().filter(|row| row.0 == kernel.series).map(|row| row.1);
        jobs.extend(tier.map_or_else(|| pinned.collect(), |tier| vec![tier]).into_iter().map(|tier| (kernel, tier)));
    }
    if jobs.is_empty() {
        bail!("no tier is pinned for these kernels: name one with --tier");
    }
    setup::install(Purpose::Everything)?;
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace::root().join("target"), PathBuf::from);
    let outcomes = matrix(&target, jobs, filter)?;
    Ok(outcomes.iter().all(Outcome::is_good))
}

/// Every kernel and tier that is pinned, for `cargo xtask test`.
pub(crate) fn all(target: &Path) -> Result<Vec<Outcome>> {
    let jobs = PINNED.iter().map(|(series, tier, _)| Ok((Kernel::named(series)?, *tier)));
    matrix(target, jobs.collect::<Result<_>>()?, None)
}

fn matrix(target: &Path, jobs: Vec<Job>, filter: Option<&str>) -> Result<Vec<Outcome>> {
    let images = Images::build(target, &jobs)?;
    let outcomes = each(jobs, |kernel, tier| one(&images, kernel, tier, filter))?;
    println!();
    for outcome in &outcomes {
        println!("{outcome}");
    }
    Ok(outcomes)
}

/// One machine.
type Job = (&'static Kernel, Tier);

/// Does `work` for each job, as many at once as there are processors, and gives the results in the order of the jobs.
fn each<T: Send>(jobs: Vec<Job>, work: impl Fn(&'static Kernel, Tier) -> Result<T> + Sync) -> Result<Vec<T>> {
    let queue = Mutex::new(jobs.into_iter().enumerate());
    let done = Mutex::new(Vec::new());
    let together = thread::available_parallelism().map_or(1, usize::from).min(4);
    let take = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    thread::scope(|scope| {
        let work = || -> Result<()> {
            while let Some((nth, (kernel, tier))) = take() {
                let result = work(kernel, tier)?;
                done.lock().unwrap_or_else(PoisonError::into_inner).push((nth, result));
            }
            Ok(())
        };
        let workers: Vec<_> = (0..together).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(nth, _)| *nth);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

/// What machines start from.
struct Images {
    folder: TempDir,
    kernels: Vec<(&'static Kernel, PathBuf)>,
}

impl Images {
    fn build(target: &Path, jobs: &[Job]) -> Result<Self> {
        let mut images = Self {
            folder: tempfile::tempdir().context("cannot create a directory for the machines")?,
            kernels: Vec::new(),
        };
        let tests = tests(target, &images.folder)?;
        for (kernel, _) in jobs {
            if images.kernels.iter().any(|(known, _)| known == kernel) {
                continue;
            }
            let files = kernel.files()?;
            let path = images.initramfs(kernel);
            fs::write(&path, initramfs::build(&files.overlay, &[&tests], SCRIPT)?)
                .with_context(|| format!("cannot write {}", path.display()))?;
            images.kernels.push((kernel, files.image));
        }
        Ok(images)
    }

    fn initramfs(&self, kernel: &Kernel) -> PathBuf {
        self.folder.path().join(kernel.series)
    }

    /// Runs the tests with more environment, `environment`, in a machine of its own, and tells what they say.
    fn run(&self, kernel: &Kernel, tier: Tier, environment: &str, qemu: &[&str]) -> Result<Ended> {
        let image = &self.kernels.iter().find(|(known, _)| *known == kernel).context("a kernel without image")?.1;
        let arguments = format!("lsm={} PURSER_TEST_TIER={tier:?} {environment}", tier.modules());
        let initramfs = self.initramfs(kernel);
        let machine = Machine { kernel: image, initramfs: &initramfs, arguments: &arguments, qemu, limit: LIMIT };
        let name = format!("{} {tier:?}", kernel.series);
        let ended = machine.run(&mut |line| println!("[{name}] {line}"))?;
        if ended.trouble.is_some() {
            let lines: Vec<&str> = ended.console.lines().collect();
            for line in &lines[lines.len().saturating_sub(60)..] {
                println!("[{name} kernel] {line}");
            }
        }
        Ok(ended)
    }
}

fn one(images: &Images, kernel: &'static Kernel, tier: Tier, filter: Option<&str>) -> Result<Outcome> {
    let environment = filter.map_or_else(String::new, |filter| format!("PURSER_TEST_FILTER={filter}"));
    let start = Instant::now();
    let ended = images.run(kernel, tier, &environment, &["-accel", "tcg,thread=multi", "-smp", "2"])?;
    Ok(Outcome::of(kernel.series, tier, filter.is_some(), start.elapsed(), &ended))
}

/// Builds the sensor's tests and gives a copy without debug information: it goes through an emulated machine's memory.
fn tests(target: &Path, folder: &TempDir) -> Result<PathBuf> {
    let mut build = workspace::cargo(&["test", "--locked", "--package", "agent", "--test", "sensor", "--no-run"])?;
    build.args(["--message-format", "json-render-diagnostics"]).env("CARGO_TARGET_DIR", target);
    let output = build.output().context("cannot run cargo test")?;
    if !output.status.success() {
        bail!("the tests do not compile: {}", String::from_utf8_lossy(&output.stderr));
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let built = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == "sensor")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .context("cargo does not say where the tests are")?;
    let stripped = folder.path().join("sensor");
    command::stdout(std::process::Command::new("strip").arg("--strip-debug").arg("-o").arg(&stripped).arg(built))?;
    Ok(stripped)
}
