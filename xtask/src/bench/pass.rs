//! What the agent's own work on an event takes, one core, no kernel: `agent/benches/pass` measures on a recording that is made
//! here unless one is given.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use xtask::rig::command;
use xtask::rig::containerd::Containerd;

use super::report::Machine;
use super::{Bench, progress, rules};
use crate::setup::{self, Purpose};
use crate::{build, interrupt, machine, workspace};

/// The measuring program, built for release.
const BENCH: [&str; 6] = ["bench", "--quiet", "-p", "agent", "--bench", "pass"];
/// Our own rules, which are measured first; upstream's come second.
const OWN_RULES: [&str; 2] = ["rules/rulesets/runtime.yaml", "rules/rulesets/supply-chain.yaml"];

/// Has the kernel report what few rules ask for, and matches none of it.
const MIX: &str = "\
- rule: Mix
  desc: Makes all of these leave the kernel.
  condition: >
    evt.type in (open, openat, openat2, connect, rename, renameat, renameat2, unlink, unlinkat, mkdir, mkdirat, chmod,
    fchmodat, socket) and proc.name = no-program-has-this-name
  output: never
  priority: INFO
";
/// The shell's part of the mix, on the host and in the container.
const SCRIPT: &str = "cd /tmp; n=0; while [ $n -lt 12 ]; do n=$((n+1)); cat /etc/group /etc/hosts >/dev/null; mkdir mix.$n; \
     echo $n >mix.$n/x; cp mix.$n/x mix.$n/y; mv mix.$n/y mix.$n/z; chmod 600 mix.$n/z; rm -r mix.$n; done";

/// What is replayed.
pub(crate) enum Recording {
    /// This one.
    At(PathBuf),
    /// One that this agent makes, or a new build, kept if there is a place for it.
    New { binary: Option<PathBuf>, keep: Option<PathBuf> },
}

#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    own_rules: Figures,
    upstream: Option<Figures>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Figures {
    rounds: u32,
    rules: usize,
    matches: u64,
    clock_ns: f64,
    all: Spread,
    types: BTreeMap<String, Spread>,
}

/// Over the events.
#[derive(Debug, Serialize, Deserialize)]
struct Spread {
    events: usize,
    /// Median of each event's shortest time.
    min_median_ns: f64,
    /// Median of each event's median.
    median_ns: f64,
    p99_ns: f64,
    mean_ns: f64,
    /// Per event.
    allocations: f64,
}

/// Measures `recording`, or a new one, prints Markdown, and writes JSON to `json`.
pub(crate) fn run(recording: Recording, json: Option<&Path>, rounds: u32) -> Result<()> {
    let directory = tempfile::tempdir().context("cannot make a directory")?;
    let recording = match recording {
        Recording::At(file) => fs::canonicalize(&file).with_context(|| format!("there is no {}", file.display()))?,
        Recording::New { binary, keep } => record(binary, keep.unwrap_or_else(|| directory.path().join("recording")))?,
    };
    workspace::check(workspace::program("cargo")?.args(BENCH).arg("--no-run"))?;
    let machine = Machine::this();
    let own_rules = measure(&recording, rounds, &[])?;
    let upstream = match rules::upstream() {
        Ok(mut files) => {
            let mix = directory.path().join("mix.yaml");
            fs::write(&mix, MIX).context("cannot write a rule")?;
            files.push(mix);
            Some(measure(&recording, rounds, &files)?)
        }
        Err(missing) => {
            progress(&format!("upstream's rules are not measured: {missing}"));
            None
        }
    };
    let report = Report { machine, own_rules, upstream };
    print!("{}", report.markdown());
    if let Some(path) = json {
        fs::write(path, serde_json::to_vec_pretty(&report)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn measure(recording: &Path, rounds: u32, rules: &[PathBuf]) -> Result<Figures> {
    // On one processor, so that it does not wander in the middle of a measurement.
    let processor = thread::available_parallelism().map_or(0, |count| count.get() - 1).to_string();
    let mut bench = workspace::program("taskset")?;
    bench.args(["--cpu-list", &processor, "cargo"]).args(BENCH).arg("--").arg(rounds.to_string());
    let printed = command::stdout(bench.arg(recording).args(rules))?;
    serde_json::from_str(&printed).context("the benchmark printed no figures")
}

/// Records some work on the host and in a container.
fn record(binary: Option<PathBuf>, recording: PathBuf) -> Result<PathBuf> {
    machine::require_ebpf("bench pass")?;
    setup::install(Purpose::Everything)?;
    let binary = build::given_or_new(binary)?;
    interrupt::defer()?;
    let containerd = Containerd::start()?;
    let bench = Bench::prepare(&binary, &containerd, 1)?;
    let directory = bench.directory.path();
    let (mix, config, log) = (directory.join("mix.yaml"), directory.join("config.yaml"), directory.join("log"));
    fs::write(&mix, MIX).context("cannot write a rule")?;
    fs::write(&config, &bench.config).context("cannot write a configuration")?;
    let mut record = Command::new(&binary);
    record.args(["record", "--force", "--write"]).arg(&recording).arg("--config").arg(&config);
    for rules in OWN_RULES.map(|rules| workspace::root().join(rules)).iter().chain([&mix]) {
        record.arg("--rules").arg(rules);
    }
    record.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log)?);
    let mut recorder = Recorder(record.spawn().context("cannot run purser record")?);
    let start = Instant::now();
    while !fs::read_to_string(&log).is_ok_and(|log| log.contains("enabled of")) {
        if start.elapsed() > Duration::from_secs(30) || recorder.0.try_wait()?.is_some() {
            bail!("the recorder does not start: {}", fs::read_to_string(&log).unwrap_or_default());
        }
        thread::sleep(Duration::from_millis(20));
    }
    progress("recording work on the host and in a container");
    work(&bench)?;
    let pid = Pid::from_raw(recorder.0.id().cast_signed()).context("the recorder has no pid")?;
    kill_process(pid, Signal::INT).context("cannot end the recorder")?;
    let status = recorder.0.wait()?;
    if !status.success() {
        bail!("the recorder ended with {status}: {}", fs::read_to_string(&log).unwrap_or_default());
    }
    Ok(recording)
}

fn work(bench: &Bench<'_>) -> Result<()> {
    let container = bench.container();
    container.exec_ok(&["/bin/sh", "-c", SCRIPT])?;
    command::stdout(Command::new("/bin/sh").args(["-c", SCRIPT]))?;
    container.exec_ok(&[super::PROGRAM, "measure", "connect", "150", "/"])?;
    container.exec_ok(&[super::PROGRAM, "measure", "open", "500", "/etc/group"])?;
    let source = bench.directory.path().join("small.c");
    fs::write(&source, "#include <stdio.h>\nint main(void) { return puts(\"x\") < 0; }\n")?;
    command::stdout(Command::new("gcc").arg("-o").arg(source.with_extension("out")).arg(&source))?;
    Ok(())
}

/// Killed where it is not ended.
struct Recorder(Child);

impl Drop for Recorder {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Report {
    fn markdown(&self) -> String {
        let Machine { kernel, processor, processors, load } = &self.machine;
        let mut lines = vec![format!("\nLinux {kernel}, one of {processors} x {processor}, load {load} before")];
        for (name, figures) in [("Own rules", Some(&self.own_rules)), ("Upstream's rules", self.upstream.as_ref())] {
            let Some(Figures { rounds, rules, matches, clock_ns, all, types }) = figures else { continue };
            lines.push(format!(
                "\n{name}: {rules} rules, {matches} matches, {rounds} rounds in the recording's order; two looks at the clock, \
                 {clock_ns:.0} ns, are taken off.\n"
            ));
            lines.push(
                "| ns from the record to what rules say | events | min, median | median, median | median, p99 | median, mean | allocations |"
                    .to_owned(),
            );
            lines.push("|---|--:|--:|--:|--:|--:|--:|".to_owned());
            for (name, spread) in std::iter::once(("all", all)).chain(types.iter().map(|(name, s)| (name.as_str(), s)))
            {
                let Spread { events, min_median_ns, median_ns, p99_ns, mean_ns, allocations } = spread;
                lines.push(format!(
                    "| {name} | {events} | {min_median_ns:.0} | {median_ns:.0} | {p99_ns:.0} | {mean_ns:.0} | {allocations:.1} |"
                ));
            }
        }
        lines.push(String::new());
        lines.join("\n")
    }
}
