//! From an exec in a container to its alert on the agent's stdout, for programs that nobody has seen: each has to be hashed.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

use super::{Bench, PROGRAM, progress, quantile};

const EXECS: u32 = 200;
const PAUSE_MS: u32 = 15;

/// Times in ms.
#[derive(Debug, Serialize)]
pub(super) struct Latency {
    pub(super) execs: u32,
    /// Execs whose alert came.
    pub(super) alerted: usize,
    pub(super) p50_ms: f64,
    pub(super) p95_ms: f64,
    pub(super) max_ms: f64,
}

pub(super) fn measure(bench: &Bench<'_>) -> Result<Latency> {
    progress(&format!("{EXECS} execs of new programs, until each is alerted"));
    let agent = bench.agent()?;
    let (count, pause) = (EXECS.to_string(), PAUSE_MS.to_string());
    let stamps = bench.container().exec_ok(&[PROGRAM, "stamped", &count, &pause, PROGRAM, "/tmp/late"])?;
    let mut lines = Vec::new();
    while let Some(line) = agent.next_line(Duration::from_secs(1)) {
        lines.push(line);
    }
    lines.extend(agent.stop()?.0);
    // The first alert of each program: further rules may name it, too.
    let mut alerted: HashMap<String, u64> = HashMap::new();
    for line in lines {
        let program = line.alert.ok().and_then(|alert| alert.field("proc.exepath").map(str::to_owned));
        if let Some(program) = program {
            alerted.entry(program).or_insert(line.monotonic_ns);
        }
    }
    let mut times = Vec::new();
    for stamp in stamps.lines() {
        let (at, started) = stamp.split_once(' ').context("a stamp has two words")?;
        let started: u64 = started.parse().with_context(|| format!("a stamp is no number: {stamp}"))?;
        if let Some(seen) = alerted.get(&format!("/tmp/late-{at}")) {
            times.push(seen.saturating_sub(started) as f64 / 1e6);
        }
    }
    ensure!(!times.is_empty(), "none of {EXECS} execs of new programs was alerted");
    Ok(Latency {
        execs: EXECS,
        alerted: times.len(),
        p50_ms: quantile(&times, 0.5),
        p95_ms: quantile(&times, 0.95),
        max_ms: quantile(&times, 1.0),
    })
}
