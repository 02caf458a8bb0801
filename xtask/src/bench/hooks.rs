//! What the programs in the kernel add to operations, policy by policy: `agent/benches/hooks` measures, this asks for it and
//! prints it.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use xtask::rig::command;

use super::report::{Machine, added};
use crate::setup::{self, Purpose};
use crate::{machine, workspace};

/// The measuring program, built for release.
const BENCH: [&str; 6] = ["bench", "--quiet", "-p", "agent", "--bench", "hooks"];

#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    #[serde(flatten)]
    figures: Figures,
}

/// What the measuring program prints.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Figures {
    rounds: u32,
    rows: Vec<Row>,
    lost: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Row {
    name: String,
    without: Spread,
    with: Spread,
}

/// Over the rounds, ns.
#[derive(Debug, Serialize, Deserialize)]
struct Spread {
    min: f64,
    median: f64,
}

/// Measures, prints Markdown, and writes JSON to `json`.
pub(crate) fn run(json: Option<&Path>, rounds: u32) -> Result<()> {
    machine::require_ebpf("bench hooks")?;
    setup::install(Purpose::Build)?;
    let machine = Machine::this();
    let figures = measure(rounds)?;
    let Machine { kernel, processor, processors, load } = &machine;
    println!("\nLinux {kernel}, {processors} x {processor}, load {load} before\n\n{}", figures.markdown());
    if let Some(path) = json {
        std::fs::write(path, serde_json::to_vec_pretty(&Report { machine, figures })?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

pub(super) fn measure(rounds: u32) -> Result<Figures> {
    workspace::check(workspace::program("cargo")?.args(BENCH).arg("--no-run"))?;
    let printed = command::stdout(workspace::program("cargo")?.args(BENCH).arg("--").arg(rounds.to_string()))?;
    serde_json::from_str(&printed).context("the benchmark printed no figures")
}

impl Figures {
    pub(super) fn markdown(&self) -> String {
        let mut lines = vec![
            format!("{} rounds, {} events lost", self.rounds, self.lost),
            String::new(),
            "| hooks (ns) | without, min | without, median | with, min | with, median | added, min | added, median |"
                .to_owned(),
            "|---|--:|--:|--:|--:|--:|--:|".to_owned(),
        ];
        lines.extend(self.rows.iter().map(|Row { name, without, with }| {
            format!(
                "| {name} | {:.0} | {:.0} | {:.0} | {:.0} | {} | {} |",
                without.min,
                without.median,
                with.min,
                with.median,
                added(without.min, with.min),
                added(without.median, with.median),
            )
        }));
        lines.push(String::new());
        lines.join("\n")
    }
}
