//! Fuzzing: makes a first corpus of what is in the repository, and beside it, and runs one target for some time.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::Value as Json;

use crate::workspace;

/// What can be fuzzed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Target {
    /// Records of the kernel.
    Decode,
    /// Recordings: read, replay.
    Recording,
    /// Conditions: parse, print, compile, evaluate.
    Condition,
    /// Rule files: load, evaluate, alert.
    Loader,
    /// Outputs: parse and print.
    Format,
}

impl Target {
    const fn name(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Recording => "recording",
            Self::Condition => "condition",
            Self::Loader => "loader",
            Self::Format => "format",
        }
    }

    /// It is a part of the agent, not of the rules alone.
    const fn needs_agent(self) -> bool {
        matches!(self, Self::Decode | Self::Recording)
    }
}

/// Runs a target for `seconds`; what it finds is below `fuzz/artifacts`.
///
/// # Errors
/// cargo-fuzz or a nightly compiler is missing, or there is a finding.
pub(crate) fn run(target: Target, seconds: u32) -> Result<()> {
    let help = workspace::cargo(&["fuzz", "--version"])?.output().context("cannot run cargo")?;
    if !help.status.success() {
        bail!(
            "fuzzing needs cargo-fuzz and a nightly compiler: `cargo install cargo-fuzz` and `rustup toolchain install nightly`"
        );
    }
    let corpus = workspace::root().join("fuzz/corpus").join(target.name());
    fs::create_dir_all(&corpus).with_context(|| format!("cannot create {}", corpus.display()))?;
    let seeds = seeds(target)?;
    for (nth, seed) in seeds.iter().enumerate() {
        fs::write(corpus.join(format!("seed-{nth}")), seed).context("cannot write a seed")?;
    }
    eprintln!("fuzz: {} seeds in {}", seeds.len(), corpus.display());
    let mut fuzz = workspace::program("rustup")?;
    fuzz.args(["run", "nightly", "cargo", "fuzz", "run"]);
    if !target.needs_agent() {
        // Without the agent, which takes long to build.
        fuzz.arg("--no-default-features");
    }
    fuzz.args([target.name(), "--", "-max_len=4096", "-timeout=10", "-print_final_stats=1"]);
    fuzz.arg(format!("-max_total_time={seconds}"));
    if !target.needs_agent() {
        fuzz.arg(format!("-dict={}", workspace::root().join("fuzz/rules.dict").display()));
    }
    workspace::check(&mut fuzz)
        .with_context(|| format!("{} has a finding; its input is below fuzz/artifacts", target.name()))
}

/// An event for the seeds: text, then every byte.
fn event() -> Vec<u8> {
    let mut event = b"\x03\x0b\x05/bin/sh\0-c curl|sh".to_vec();
    event.extend(0..=u8::MAX);
    event
}

/// Rule files of the repository item by item, and what the corpus of upstream's cases has, where that is there.
fn seeds(target: Target) -> Result<Vec<Vec<u8>>> {
    let mut texts: Vec<String> = Vec::new();
    for dir in ["rules/rulesets", "../shared/falco/rules"] {
        for text in files(&workspace::root().join(dir), "yaml")? {
            let items = text.split("\n- ").map(|item| format!("- {}", item.trim_start_matches("- ")));
            texts.extend(items.flat_map(|item| match target {
                Target::Loader => vec![format!("{item}\n\0")],
                Target::Condition => value(&item, "condition"),
                Target::Format => value(&item, "output"),
                Target::Decode | Target::Recording => Vec::new(),
            }));
        }
    }
    let corpus = std::env::var_os("PURSER_CORPUS")
        .map_or_else(|| workspace::root().join("../shared/falco/corpus/open"), Into::into);
    for text in files(&corpus, "jsonl")? {
        for case in text.lines().filter_map(|line| serde_json::from_str::<Json>(line).ok()) {
            let key = match target {
                Target::Loader => {
                    let files =
                        case["files"].as_array().into_iter().flatten().filter_map(|file| file["content"].as_str());
                    let files: Vec<_> = files.chain([""]).take(2).collect();
                    texts.extend((files.len() == 2).then(|| files.join("\0")));
                    continue;
                }
                Target::Condition => "expr",
                Target::Format => "format",
                Target::Decode | Target::Recording => continue,
            };
            texts.extend(case[key].as_str().map(ToOwned::to_owned));
        }
    }
    let event = event();
    Ok(texts
        .into_iter()
        .map(|text| [text.as_bytes(), &[0], &event].concat())
        .filter(|seed| seed.len() < 4096)
        .collect())
}

/// The value of a key of an item of a rule file, its lines joined; no more of YAML is needed for a seed.
fn value(item: &str, key: &str) -> Vec<String> {
    let Some((_, rest)) = item.split_once(&format!("\n  {key}:")) else { return Vec::new() };
    let lines = rest.lines().enumerate().take_while(|(nth, line)| *nth == 0 || line.starts_with("   "));
    let text: Vec<_> = lines.map(|(_, line)| line.trim().trim_start_matches(['>', '|', '-'])).collect();
    vec![text.join(" ").trim().to_owned()]
}

fn files(dir: &Path, extension: &str) -> Result<Vec<String>> {
    let Ok(entries) = fs::read_dir(dir) else { return Ok(Vec::new()) };
    let mut texts = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("cannot list {}", dir.display()))?.path();
        if path.extension().is_some_and(|known| known == extension) {
            texts.push(fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?);
        }
    }
    Ok(texts)
}
