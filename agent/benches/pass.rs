//! What the agent's own work on an event takes, from the bytes of the kernel's ring to what the rules say of it:
//! `cargo xtask bench pass`, or `cargo bench -p agent --bench pass -- ROUNDS RECORDING [RULES]...`. Needs no privileges. Prints
//! figures as JSON.
//!
//! A recording is replayed in its order, each record once a round: caches and branch predictor know no more than in the
//! agent. What is read of the machine is the recording's word, from tables as in the agent. The alerts of events that
//! match are composed and dropped.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a tool for the terminal")]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]

#[path = "../../rules/tests/counting/mod.rs"]
mod counting;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use counting::counted;
use purser::decode::decode;
use purser::event::EventType;
use purser::recording::replay::{Choice, replay_around};
use serde_json::{Value as Json, json};

/// What one event took.
struct Passed {
    event: EventType,
    /// In each round, ns.
    times: Vec<f64>,
    allocations: usize,
}

fn main() -> ExitCode {
    match run() {
        Ok(figures) => {
            println!("{figures}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<Json> {
    // Cargo adds --bench.
    let mut args = std::env::args_os().skip(1).filter(|arg| arg != "--bench");
    let usage = "usage: pass ROUNDS RECORDING [RULES]...";
    let rounds: usize = args.next().and_then(|word| word.to_str()?.parse().ok()).context(usage)?;
    let recording = args.next().map(PathBuf::from).context(usage)?;
    let recording = std::fs::read(&recording).with_context(|| format!("cannot read {}", recording.display()))?;
    let read = |path: std::ffi::OsString| -> Result<(String, Vec<u8>)> {
        let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok((path.to_string_lossy().into_owned(), text))
    };
    let rules: Vec<_> = args.map(read).collect::<Result<_>>()?;
    let choice = Choice { rules: (!rules.is_empty()).then_some(rules), ..Choice::default() };
    let clock = clock_ns();
    let mut passed: Vec<Passed> = Vec::new();
    let (mut rules, mut matches) = (0, 0);
    for round in 0..=rounds {
        let mut at = 0;
        let replayed = replay_around(&recording[..], &choice, io::sink(), &mut |record, pass| {
            // The first round counts allocations, and tells what the events are.
            if round == 0 {
                let ((), taken) = counted(pass);
                if let Ok(event) = decode(record) {
                    let event = event.header.event;
                    passed.push(Passed { event, times: Vec::with_capacity(rounds), allocations: taken.allocations });
                }
                return;
            }
            let start = Instant::now();
            pass();
            let ns = start.elapsed().as_nanos() as f64;
            if let Some(passed) = passed.get_mut(at) {
                passed.times.push((ns - clock).max(0.0));
            }
            at += 1;
        })?;
        replayed.ended?;
        rules = replayed.summary.rules;
        matches = replayed.summary.alerts.values().sum();
        ensure!(round == 0 || at == passed.len(), "the recording has records that cannot be decoded");
    }
    let mut types: BTreeMap<&str, Vec<&Passed>> = BTreeMap::new();
    for passed in &passed {
        types.entry(passed.event.name()).or_default().push(passed);
    }
    let types: BTreeMap<&str, Json> = types.into_iter().map(|(name, passed)| (name, figures(&passed))).collect();
    let all = figures(&passed.iter().collect::<Vec<_>>());
    Ok(json!({ "rounds": rounds, "rules": rules, "matches": matches, "clock_ns": clock, "all": all, "types": types }))
}

/// Of each event the median of the rounds counts; of these the median and the 99th percentile are shown.
fn figures(passed: &[&Passed]) -> Json {
    let mut times: Vec<f64> = passed.iter().map(|passed| quantile(&mut passed.times.clone(), 0.5)).collect();
    let mut least: Vec<f64> = passed.iter().map(|passed| quantile(&mut passed.times.clone(), 0.0)).collect();
    let allocations: usize = passed.iter().map(|passed| passed.allocations).sum();
    json!({
        "events": passed.len(),
        "min_median_ns": quantile(&mut least, 0.5),
        "median_ns": quantile(&mut times, 0.5),
        "p99_ns": quantile(&mut times, 0.99),
        "mean_ns": times.iter().sum::<f64>() / times.len() as f64,
        "allocations": allocations as f64 / passed.len() as f64,
    })
}

/// What two looks at the clock take, ns.
fn clock_ns() -> f64 {
    let mut times: Vec<f64> = (0..10_000).map(|_| Instant::now().elapsed().as_nanos() as f64).collect();
    quantile(&mut times, 0.5)
}

/// The value below which `fraction` of the values lie.
fn quantile(values: &mut [f64], fraction: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (fraction * values.len() as f64).ceil() as usize;
    values.get(at.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}
