//! Times loading and evaluation of rule files on recorded events, and prints figures as JSON. `cargo xtask bench rules` runs
//! it and prints them for people: `cargo bench -p purser-rules --bench evaluation -- ROUNDS FILE...`

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a tool for the terminal")]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]

#[path = "../../tests/counting/mod.rs"]
mod counting;
mod recording;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

use counting::counted;
use purser_rules::{Facts as _, LoadOptions, Matches, RuleSet, Selection, Selector, Source};
use recording::Recorded;
use serde_json::{Value as Json, json};

/// How often each event is evaluated between two looks at the clock.
const REPETITIONS: u32 = 20;
/// How often that is done for each event in a round. The shortest counts: what another program takes away is not a cost.
const BATCHES: usize = 5;
/// Copies of each rule, each under a name of its own, to see how cost grows.
const COPIES: usize = 10;

type Texts = Vec<(String, Vec<u8>)>;

fn main() -> ExitCode {
    match run() {
        Ok(figures) => {
            println!("{figures}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<Json, String> {
    // Cargo adds --bench.
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let rounds: usize = args.next().and_then(|word| word.parse().ok()).ok_or("usage: evaluation ROUNDS FILE...")?;
    let read = |name: String| match std::fs::read(&name) {
        Ok(text) => Ok((name, text)),
        Err(error) => Err(format!("cannot read {name}: {error}")),
    };
    let once: Texts = args.map(read).collect::<Result<_, _>>()?;
    let copies: Texts = (0..COPIES).flat_map(|copy| once.iter().map(move |file| renamed(file, copy))).collect();
    let events = recording::read()?;
    let load = load_times(&once, rounds)?;
    let memory = memory(&once)?;
    let sets = [load_all(&once)?, load_all(&copies)?];
    let mut figures = [Figures::default(), Figures::default()];
    for round in 0..rounds {
        // The one that goes first alternates.
        for at in [round % 2, 1 - round % 2] {
            eprintln!("round {} of {rounds}, {} rules", round + 1, sets[at].rules().len());
            figures[at].round(&sets[at], &events);
        }
    }
    let shown: Vec<Json> = sets.iter().zip(&figures).map(|(set, figures)| figures.shown(set)).collect();
    Ok(json!({ "rounds": rounds, "events": counts(&events), "sets": shown, "load_ms": load, "memory": memory }))
}

/// A file whose rules have other names. Lists and macros may be defined again with the same meaning.
fn renamed((name, text): &(String, Vec<u8>), copy: usize) -> (String, Vec<u8>) {
    let text = String::from_utf8_lossy(text).replace("- rule: ", &format!("- rule: copy {copy} of "));
    (name.clone(), text.into_bytes())
}

/// All rules of the files, those that the files disable as well.
fn load_all(texts: &Texts) -> Result<RuleSet, String> {
    let sources: Vec<_> = texts.iter().map(|(name, text)| Source { name, text }).collect();
    let all = Selection { enable: true, by: Selector::Wildcard("*".to_owned()) };
    let options = LoadOptions { selection: vec![all], ..LoadOptions::default() };
    RuleSet::load(&sources, &options).map(|(rules, _)| rules).map_err(|error| error.to_string())
}

fn load_times(texts: &Texts, rounds: usize) -> Result<Json, String> {
    let mut times = Vec::new();
    for _ in 0..rounds.max(10) {
        let start = Instant::now();
        let rules = load_all(texts)?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
        drop(black_box(rules));
    }
    Ok(json!({ "min": quantile(&mut times, 0.0), "median": quantile(&mut times, 0.5) }))
}

/// Bytes that a loaded set holds, and the most that loading it took.
fn memory(texts: &Texts) -> Result<Json, String> {
    let (rules, taken) = counted(|| load_all(texts));
    let rules = rules?;
    drop(black_box(rules));
    Ok(json!({ "live_bytes": taken.kept, "peak_bytes": taken.peak }))
}

fn counts(events: &[Recorded]) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for event in events {
        *counts.entry(event.event().name()).or_default() += 1;
    }
    counts
}

/// What one set took in each round, ns.
#[derive(Default)]
struct Figures {
    median: Vec<f64>,
    p99: Vec<f64>,
    /// All events in the order they came, none repeated: caches and branch predictor know less.
    in_order: Vec<f64>,
    /// Median by type of event.
    types: BTreeMap<&'static str, Vec<f64>>,
    /// Events that some rule matched.
    matched: usize,
    /// Allocations for events that no rule matched.
    allocations: usize,
}

impl Figures {
    fn round(&mut self, rules: &RuleSet, events: &[Recorded]) {
        let mut matches = Matches::new();
        let start = Instant::now();
        for event in events {
            rules.evaluate(black_box(event), &mut matches);
        }
        self.in_order.push(start.elapsed().as_nanos() as f64 / events.len() as f64);
        let mut all = Vec::with_capacity(events.len());
        let mut types: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
        (self.matched, self.allocations) = (0, 0);
        for event in events {
            let batch = |_| {
                let start = Instant::now();
                for _ in 0..REPETITIONS {
                    rules.evaluate(black_box(event), &mut matches);
                }
                start.elapsed().as_nanos() as f64 / f64::from(REPETITIONS)
            };
            let (ns, taken) = counted(|| (0..BATCHES).map(batch).fold(f64::INFINITY, f64::min));
            if matches.is_empty() {
                self.allocations += taken.allocations;
            } else {
                self.matched += 1;
            }
            all.push(ns);
            types.entry(event.event().name()).or_default().push(ns);
        }
        self.median.push(quantile(&mut all, 0.5));
        self.p99.push(quantile(&mut all, 0.99));
        for (name, mut times) in types {
            self.types.entry(name).or_default().push(quantile(&mut times, 0.5));
        }
    }

    fn shown(&self, rules: &RuleSet) -> Json {
        let figure = |values: &[f64]| {
            let mut values = values.to_vec();
            json!({ "min": quantile(&mut values, 0.0), "median": quantile(&mut values, 0.5) })
        };
        let types: BTreeMap<_, _> = self.types.iter().map(|(name, medians)| (*name, figure(medians))).collect();
        json!({
            "rules": rules.rules().iter().filter(|rule| rule.enabled).count(),
            "median_ns": figure(&self.median),
            "p99_ns": figure(&self.p99),
            "in_order_mean_ns": figure(&self.in_order),
            "median_ns_by_type": types,
            "matched": self.matched,
            "allocations_unmatched": self.allocations,
        })
    }
}

/// The value below which `fraction` of the values lie.
fn quantile(values: &mut [f64], fraction: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (fraction * values.len() as f64).ceil() as usize;
    values.get(at.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}
