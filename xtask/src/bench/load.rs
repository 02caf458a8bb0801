//! The agent at rest with some images known, and under a flood of opens that all have to be looked at.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::{Bench, IMAGES, PROGRAM, interrupt, progress};

const IDLE: Duration = Duration::from_secs(10);
const FLOOD_SECONDS: u32 = 5;
const FLOOD_RATE: u32 = 300_000;

/// A rule that has to see every open and matches none, so that what is measured is not the writing of alerts.
const EVERY_OPEN: &str = "\
- rule: Every open
  desc: Makes every open leave the kernel.
  condition: evt.type in (open, openat, openat2) and proc.name = no-program-has-this-name
  output: never
  priority: INFO
";

#[derive(Debug, Serialize)]
pub(super) struct Load {
    pub(super) images: u32,
    /// CPU over ten seconds without work of ours, percent of one core. The machine's other programs are watched meanwhile.
    pub(super) idle_percent: f64,
    /// Resident memory after that, bytes.
    pub(super) idle_rss: u64,
    /// Opens asked for, made and reported, in the flood.
    pub(super) flood_asked: u64,
    pub(super) flood_opened: u64,
    pub(super) flood_events: u64,
    pub(super) flood_lost: u64,
    /// The agent's CPU in the flood, percent of one core.
    pub(super) flood_percent: f64,
    /// Highest resident memory in the flood, bytes.
    pub(super) flood_rss: u64,
}

pub(super) fn measure(bench: &Bench<'_>) -> Result<Load> {
    progress(&format!("{} s at rest", IDLE.as_secs()));
    let agent = bench.agent()?;
    for container in &bench.containers {
        container.exec_ok(&[PROGRAM])?; // its verdict needs the image's manifest
    }
    std::thread::sleep(Duration::from_secs(2));
    interrupt::check()?;
    let (cpu, start) = (agent.cpu_ns()?, Instant::now());
    std::thread::sleep(IDLE);
    let idle_percent = percent(agent.cpu_ns()?.saturating_sub(cpu), start);
    let (idle_rss, _) = agent.memory()?;
    agent.stop()?;

    interrupt::check()?;
    progress(&format!("{FLOOD_RATE} opens a second for {FLOOD_SECONDS} s"));
    let rules = bench.directory.path().join("every-open.yaml");
    fs::write(&rules, EVERY_OPEN).context("cannot write a rule")?;
    let agent = bench.agent_with(vec![rules])?;
    let (cpu, start) = (agent.cpu_ns()?, Instant::now());
    let (seconds, rate) = (FLOOD_SECONDS.to_string(), FLOOD_RATE.to_string());
    let opened = bench.container().exec_ok(&[PROGRAM, "repeat-open", "/etc/group", &seconds, &rate])?;
    let flood_percent = percent(agent.cpu_ns()?.saturating_sub(cpu), start);
    let (_, flood_rss) = agent.memory()?;
    let (_, summary) = agent.stop()?;
    let opens = |name: &str| ["open", "openat", "openat2"].contains(&name);
    Ok(Load {
        images: IMAGES,
        idle_percent,
        idle_rss,
        flood_asked: u64::from(FLOOD_RATE * FLOOD_SECONDS),
        flood_opened: opened.trim().parse().with_context(|| format!("`repeat-open` printed {opened}"))?,
        flood_events: summary.events.iter().filter(|(name, _)| opens(name)).map(|(_, count)| count).sum(),
        flood_lost: summary.lost(),
        flood_percent,
        flood_rss,
    })
}

fn percent(cpu_ns: u64, since: Instant) -> f64 {
    cpu_ns as f64 / since.elapsed().as_nanos() as f64 * 100.0
}
