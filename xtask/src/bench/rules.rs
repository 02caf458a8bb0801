//! What the rules engine costs on recorded events, one core, no privileges: `rules/benches/evaluation` measures, this asks for
//! it and prints it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use xtask::rig::command;

use super::report::Machine;
use crate::workspace;

/// Upstream's rules by maturity: 93 of them.
const FILES: [&str; 3] = ["falco_rules.yaml", "falco-incubating_rules.yaml", "falco-sandbox_rules.yaml"];

/// The measuring program, built for release.
const BENCH: [&str; 6] = ["bench", "--quiet", "-p", "purser-rules", "--bench", "evaluation"];

#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    #[serde(flatten)]
    figures: Figures,
}

#[derive(Debug, Serialize, Deserialize)]
struct Figures {
    rounds: u32,
    /// Events evaluated, by type; one for each name of a file.
    events: BTreeMap<String, u64>,
    /// The files' rules, and ten copies of them.
    sets: [Set; 2],
    load_ms: Spread,
    memory: Memory,
}

#[derive(Debug, Serialize, Deserialize)]
struct Set {
    rules: usize,
    median_ns: Spread,
    p99_ns: Spread,
    in_order_mean_ns: Spread,
    median_ns_by_type: BTreeMap<String, Spread>,
    matched: u64,
    allocations_unmatched: u64,
}

/// Over the rounds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Spread {
    min: f64,
    median: f64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Memory {
    live_bytes: u64,
    peak_bytes: u64,
}

/// Measures upstream's rules, prints Markdown, and writes JSON to `json`.
pub(crate) fn run(json: Option<&Path>, rounds: u32) -> Result<()> {
    let files = upstream()?;
    let built = workspace::program("cargo")?.args(BENCH).arg("--no-run").status().context("cannot run cargo")?;
    if !built.success() {
        bail!("cannot build the benchmark");
    }
    let machine = Machine::this();
    // On one processor, so that it does not wander in the middle of a measurement.
    let mut bench = workspace::program("taskset")?;
    let processor = machine.processors.saturating_sub(1).to_string();
    bench.args(["--cpu-list", &processor, "cargo"]).args(BENCH).arg("--").arg(rounds.to_string()).args(&files);
    let printed = command::stdout(&mut bench)?;
    let figures: Figures = serde_json::from_str(&printed).context("the benchmark printed no figures")?;
    let report = Report { machine, figures };
    print!("{}", report.markdown());
    if let Some(path) = json {
        std::fs::write(path, serde_json::to_vec_pretty(&report)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Upstream's rule files.
pub(super) fn upstream() -> Result<Vec<PathBuf>> {
    let root = workspace::root();
    let directory =
        std::env::var_os("PURSER_FALCO_RULES").map_or_else(|| root.join("../shared/falco/rules"), PathBuf::from);
    let files: Vec<PathBuf> = FILES.iter().map(|file| directory.join(file)).collect();
    if let Some(missing) = files.iter().find(|file| !file.is_file()) {
        bail!(
            "there is no {}: set PURSER_FALCO_RULES to a directory with {} of https://github.com/falcosecurity/rules",
            missing.display(),
            FILES.join(", ")
        );
    }
    Ok(files)
}

impl Report {
    fn markdown(&self) -> String {
        let Machine { kernel, processor, processors, load } = &self.machine;
        let Figures { rounds, events, sets, load_ms, memory } = &self.figures;
        let [once, copies] = sets;
        let total: u64 = events.values().sum();
        let mix: Vec<String> = events.iter().map(|(name, count)| format!("{count} {name}")).collect();
        let mut lines = vec![
            format!("\nLinux {kernel}, one of {processors} x {processor}, load {load} before, {rounds} rounds\n"),
            format!(
                "{total} events evaluated, once per name of a file, recorded of a package installation and a compilation in a \
                 container: {}. Facts are looked up in the recording's table: as in the agent nothing is copied, but texts \
                 that it composes (command lines, names of sockets) are there already.\n",
                mix.join(", ")
            ),
            format!(
                "| ns per event | {} rules, min | median | {} rules, min | median | ratio of medians |",
                once.rules, copies.rules
            ),
            "|---|--:|--:|--:|--:|--:|".to_owned(),
            row("median", once.median_ns, copies.median_ns),
            row("99th percentile", once.p99_ns, copies.p99_ns),
            row("mean, each event once, in order", once.in_order_mean_ns, copies.in_order_mean_ns),
        ];
        for (name, spread) in &once.median_ns_by_type {
            if let Some(other) = copies.median_ns_by_type.get(name) {
                lines.push(row(&format!("median of {name}"), *spread, *other));
            }
        }
        lines.push("\n| | |\n|---|--:|".to_owned());
        lines.push(format!("| loading {} rules, min | {:.1} ms |", once.rules, load_ms.min));
        lines.push(format!("| loading, median | {:.1} ms |", load_ms.median));
        lines.push(format!("| memory of the loaded set | {:.1} MB |", memory.live_bytes as f64 / 1e6));
        lines.push(format!("| most memory while loading | {:.1} MB |", memory.peak_bytes as f64 / 1e6));
        lines.push(format!("| events that some rule matched | {} of {total} |", once.matched));
        lines.push(format!("| allocations for the others | {} |", once.allocations_unmatched));
        lines.push(String::new());
        lines.join("\n")
    }
}

fn row(name: &str, once: Spread, copies: Spread) -> String {
    format!(
        "| {name} | {:.0} | {:.0} | {:.0} | {:.0} | {:.2} |",
        once.min,
        once.median,
        copies.min,
        copies.median,
        copies.median / once.median
    )
}
