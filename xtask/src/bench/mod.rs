//! What the agent costs and how fast it is: operations with and without it, interleaved so that the machine's moods hit both alike;
//! its own CPU, memory and losses; the time from an exec to its alert. Figures, no verdicts: nothing here passes or fails.

mod costs;
pub(crate) mod hooks;
mod latency;
mod load;
mod manifest;
pub(crate) mod pass;
mod report;
pub(crate) mod rules;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tempfile::TempDir;
use xtask::agent::{Agent, Options};
use xtask::rig::containerd::{Container, Containerd};
use xtask::rig::image::{Image, Layer};
use xtask::rig::{payload, unique_name};

use crate::setup::{self, Purpose};
use crate::{build, demo, interrupt, machine};

/// The program of the benchmark's image.
const PROGRAM: &str = "/app/server";
/// As many images as a small node has.
const IMAGES: u32 = 5;

/// Runs all benchmarks with the agent `binary`, or a new build, prints Markdown, and writes JSON to `json`.
pub(crate) fn run(binary: Option<PathBuf>, json: Option<&Path>, rounds: u32) -> Result<()> {
    machine::require_ebpf("bench")?;
    setup::install(Purpose::Everything)?;
    let binary = build::given_or_new(binary)?;
    interrupt::defer()?;
    let containerd = Containerd::start()?;
    let bench = Bench::prepare(&binary, &containerd, IMAGES)?;
    let report = report::Report {
        machine: report::Machine::this(),
        costs: costs::measure(&bench, rounds)?,
        latency: latency::measure(&bench)?,
        load: load::measure(&bench)?,
        hooks: hooks::measure(rounds)?,
        manifest: manifest::measure(&bench)?,
    };
    print!("{}", report.markdown());
    if let Some(path) = json {
        let text = serde_json::to_vec_pretty(&report)?;
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// What every benchmark runs on: the agent's binary and some containers.
struct Bench<'a> {
    binary: PathBuf,
    directory: TempDir,
    config: String,
    containers: Vec<Container<'a>>,
}

impl<'a> Bench<'a> {
    fn prepare(binary: &Path, containerd: &'a Containerd, images: u32) -> Result<Self> {
        let directory =
            tempfile::Builder::new().prefix("purser-bench-").tempdir().context("cannot make a directory")?;
        let mut containers = Vec::new();
        for at in 0..images {
            let archive = directory.path().join("image.tar");
            let image = Image::new(format!("local.test/{}:1", unique_name("bench")))
                .layer(Layer::busybox(&["sh", "cat", "cp", "mv", "mkdir", "chmod", "rm"])?)
                .layer(Layer::new().dir("/app", 0o755).file(PROGRAM, payload::unique()?, 0o755))
                .entrypoint(&[PROGRAM, "sleep", "100000"])
                .write_archive(&archive)?;
            containerd.import(&archive)?;
            containers.push(containerd.start_container(&image.reference, &unique_name("bench"), &[])?);
            progress(&format!("container {} of {images} runs", at + 1));
        }
        let config = demo::configuration(containerd, &directory.path().join("manifests"));
        Ok(Self { binary: binary.to_owned(), directory, config, containers })
    }

    /// A new agent with its default rules, ready.
    fn agent(&self) -> Result<Agent> {
        self.agent_with(Vec::new())
    }

    fn agent_with(&self, rules: Vec<PathBuf>) -> Result<Agent> {
        Agent::start(&self.binary, &Options { config: self.config.clone(), rules, ..Options::default() })
    }

    fn container(&self) -> &Container<'a> {
        &self.containers[0]
    }
}

fn progress(text: &str) {
    eprintln!("bench: {text}");
}

/// The value below which `fraction` of the values lie; `values` must not be empty.
fn quantile(values: &[f64], fraction: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (fraction * sorted.len() as f64).ceil() as usize;
    sorted.get(at.saturating_sub(1).min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::quantile;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let values = [5.0, 1.0, 3.0, 2.0, 4.0];
        for (fraction, expected) in [(0.0, 1.0), (0.5, 3.0), (0.95, 5.0), (1.0, 5.0)] {
            assert!((quantile(&values, fraction) - expected).abs() < f64::EPSILON, "{fraction}");
        }
        assert!(quantile(&[], 0.5).is_nan());
    }
}
