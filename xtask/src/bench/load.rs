//! The agent at rest with some images known, and under floods of opens.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use serde::Serialize;

use super::{Bench, IMAGES, PROGRAM, interrupt, progress};

const IDLE: Duration = Duration::from_secs(10);

/// Rules that match none of the opens, so that what is measured is not the writing of alerts. The first has to see every
/// open; of the second the kernel learns that none can match.
const EVERY_OPEN: &str = "evt.type in (open, openat, openat2) and proc.name = no-program-has-this-name";
const NO_OPEN: &str = "evt.type in (open, openat, openat2) and fd.name = /no/file/has/this/name";

/// Opens of one file, at a rate.
struct Asked {
    what: &'static str,
    condition: &'static str,
    cores: u32,
    /// Opens a second of each core.
    rate: u32,
    seconds: u32,
}

const FLOODS: [Asked; 2] = [
    Asked {
        what: "all of which leave the kernel, from one core",
        condition: EVERY_OPEN,
        cores: 1,
        rate: 300_000,
        seconds: 5,
    },
    Asked {
        what: "none of which can match, from both cores",
        condition: NO_OPEN,
        cores: 2,
        rate: 500_000,
        seconds: 10,
    },
];

#[derive(Debug, Serialize)]
pub(super) struct Load {
    pub(super) images: u32,
    /// CPU over ten seconds without work of ours, percent of one core. The machine's other programs are watched meanwhile.
    pub(super) idle_percent: f64,
    /// Resident memory after that, bytes.
    pub(super) idle_rss: u64,
    pub(super) floods: Vec<Flood>,
}

/// What became of a flood.
#[derive(Debug, Serialize)]
pub(super) struct Flood {
    pub(super) what: &'static str,
    pub(super) seconds: u32,
    /// Opens asked for, made and reported.
    pub(super) asked: u64,
    pub(super) opened: u64,
    pub(super) events: u64,
    pub(super) lost: u64,
    /// The agent's CPU meanwhile, percent of one core.
    pub(super) percent: f64,
    /// Highest resident memory, bytes.
    pub(super) rss: u64,
}

pub(super) fn measure(bench: &Bench<'_>) -> Result<Load> {
    progress(&format!("{} s at rest", IDLE.as_secs()));
    let agent = bench.agent()?;
    for container in &bench.containers {
        container.exec_ok(&[PROGRAM])?; // its verdict needs the image's manifest
    }
    thread::sleep(Duration::from_secs(2));
    interrupt::check()?;
    let (cpu, start) = (agent.cpu_ns()?, Instant::now());
    thread::sleep(IDLE);
    let idle_percent = percent(agent.cpu_ns()?.saturating_sub(cpu), start);
    let (idle_rss, _) = agent.memory()?;
    agent.stop()?;

    let floods = FLOODS.iter().map(|asked| flood(bench, asked)).collect::<Result<_>>()?;
    Ok(Load { images: IMAGES, idle_percent, idle_rss, floods })
}

fn flood(bench: &Bench<'_>, asked: &Asked) -> Result<Flood> {
    let Asked { what, condition, cores, rate, seconds } = asked;
    interrupt::check()?;
    progress(&format!("{rate} opens a second for {seconds} s, {what}"));
    let rules = bench.directory.path().join("opens.yaml");
    let text =
        format!("- rule: Opens\n  desc: None matches.\n  condition: {condition}\n  output: never\n  priority: INFO\n");
    fs::write(&rules, text).context("cannot write a rule")?;
    let agent = bench.agent_with(vec![rules])?;
    let (cpu, start) = (agent.cpu_ns()?, Instant::now());
    let opened = thread::scope(|scope| {
        let repeat = || {
            let (seconds, rate) = (seconds.to_string(), rate.to_string());
            let opened = bench.container().exec_ok(&[PROGRAM, "repeat-open", "/etc/group", &seconds, &rate])?;
            opened.trim().parse::<u64>().with_context(|| format!("`repeat-open` printed {opened}"))
        };
        let running: Vec<_> = (0..*cores).map(|_| scope.spawn(repeat)).collect();
        running
            .into_iter()
            .map(|one| one.join().unwrap_or_else(|_| Err(anyhow!("a thread panicked"))))
            .sum::<Result<u64>>()
    })?;
    let percent = percent(agent.cpu_ns()?.saturating_sub(cpu), start);
    let (_, rss) = agent.memory()?;
    let (_, summary) = agent.stop()?;
    let opens = |name: &str| ["open", "openat", "openat2"].contains(&name);
    Ok(Flood {
        what,
        seconds: *seconds,
        asked: u64::from(cores * rate * seconds),
        opened,
        events: summary.events.iter().filter(|(name, _)| opens(name)).map(|(_, count)| count).sum(),
        lost: summary.lost(),
        percent,
        rss,
    })
}

fn percent(cpu_ns: u64, since: Instant) -> f64 {
    cpu_ns as f64 / since.elapsed().as_nanos() as f64 * 100.0
}
