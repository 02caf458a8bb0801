//! Operations with and without the agent. Each round measures both, the one that goes first alternating; between the two the agent
//! is started, waited for, and ended: an agent that is merely stopped still has its hooks attached.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result};
use serde::Serialize;
use xtask::rig::{command, payload};

use super::{Bench, PROGRAM, interrupt, progress, quantile};

/// An operation, timed by the payload itself or, for the compiler, from here.
struct Operation {
    name: &'static str,
    /// The payload's word for it, or `compile`.
    word: &'static str,
    count: u32,
    in_container: bool,
}

const fn operation(name: &'static str, word: &'static str, count: u32, in_container: bool) -> Operation {
    Operation { name, word, count, in_container }
}

const OPERATIONS: &[Operation] = &[
    operation("getpid", "getpid", 400_000, false),
    operation("read", "read", 300_000, false),
    operation("write", "write", 300_000, false),
    operation("open+close", "open", 100_000, false),
    operation("fork+exec+wait", "exec", 300, false),
    operation("connect+close", "connect", 3_000, false),
    operation("compile a C file", "compile", 3, false),
    operation("open+close, in a container", "open", 100_000, true),
    operation("fork+exec+wait, in a container", "exec", 300, true),
];

/// One operation's times, ns.
#[derive(Debug, Serialize)]
pub(super) struct Cost {
    pub(super) operation: &'static str,
    pub(super) without_min: f64,
    pub(super) without_median: f64,
    pub(super) with_min: f64,
    pub(super) with_median: f64,
}

/// All operations, and the agent meanwhile.
#[derive(Debug, Serialize)]
pub(super) struct Costs {
    pub(super) rounds: u32,
    pub(super) operations: Vec<Cost>,
    /// Events that reached the agent in all rounds.
    pub(super) events: u64,
    /// Events lost in all rounds, whatever the stage.
    pub(super) lost: u64,
    /// The agent's CPU from ready to the end of each round, summed, divided by `events`.
    pub(super) cpu_ns_per_event: f64,
    /// Median time from start to `/healthz` 200.
    pub(super) ready_ms: f64,
}

pub(super) fn measure(bench: &Bench<'_>, rounds: u32) -> Result<Costs> {
    let files = Files::write(bench.directory.path())?;
    let mut without = vec![Vec::new(); OPERATIONS.len()];
    let mut with = vec![Vec::new(); OPERATIONS.len()];
    let (mut events, mut lost, mut cpu_ns, mut ready) = (0, 0, 0, Vec::new());
    for round in 0..rounds {
        for agent_runs in [round % 2 == 0, round % 2 != 0] {
            interrupt::check()?;
            let side = if agent_runs { "with" } else { "without" };
            progress(&format!("round {} of {rounds}, {side} the agent", round + 1));
            if agent_runs {
                let agent = bench.agent()?;
                ready.push(agent.ready_after().as_secs_f64() * 1e3);
                let before = agent.cpu_ns()?;
                measure_once(bench, &files, &mut with)?;
                cpu_ns += agent.cpu_ns()?.saturating_sub(before);
                let (_, summary) = agent.stop()?;
                events += summary.events();
                lost += summary.lost();
            } else {
                measure_once(bench, &files, &mut without)?;
            }
        }
    }
    let operations = OPERATIONS
        .iter()
        .zip(without.iter().zip(&with))
        .map(|(operation, (without, with))| Cost {
            operation: operation.name,
            without_min: quantile(without, 0.0),
            without_median: quantile(without, 0.5),
            with_min: quantile(with, 0.0),
            with_median: quantile(with, 0.5),
        })
        .collect();
    let cpu_ns_per_event = cpu_ns as f64 / events.max(1) as f64;
    Ok(Costs { rounds, operations, events, lost, cpu_ns_per_event, ready_ms: quantile(&ready, 0.5) })
}

fn measure_once(bench: &Bench<'_>, files: &Files, times: &mut [Vec<f64>]) -> Result<()> {
    for (operation, times) in OPERATIONS.iter().zip(times) {
        let path = if operation.word == "exec" { &files.program } else { &files.data };
        let count = operation.count.to_string();
        let printed = if operation.word == "compile" {
            times.push(files.compile(operation.count)?);
            continue;
        } else if operation.in_container {
            let path = if operation.word == "exec" { PROGRAM } else { "/etc/group" };
            bench.container().exec_ok(&[PROGRAM, "measure", operation.word, &count, path])?
        } else {
            // On one processor, so that it does not wander in the middle of a measurement.
            let mut measure = Command::new("taskset");
            measure.args(["--cpu-list", &files.processor]).arg(&files.program);
            command::stdout(measure.args(["measure", operation.word, &count]).arg(path))?
        };
        let time = printed.trim().parse().with_context(|| format!("`measure {}` printed {printed}", operation.word))?;
        times.push(time);
    }
    Ok(())
}

/// What the operations work on.
struct Files {
    program: PathBuf,
    data: PathBuf,
    source: PathBuf,
    processor: String,
}

impl Files {
    fn write(directory: &Path) -> Result<Self> {
        let files = Self {
            program: directory.join("payload"),
            data: directory.join("some/folder/deeper/data"),
            source: directory.join("small.c"),
            processor: std::thread::available_parallelism().map_or(0, |count| count.get() - 1).to_string(),
        };
        fs::write(&files.program, payload::program())?;
        fs::set_permissions(&files.program, fs::Permissions::from_mode(0o755))?;
        fs::create_dir_all(directory.join("some/folder/deeper"))?;
        fs::write(&files.data, "data")?;
        fs::write(
            &files.source,
            "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include <unistd.h>\n\
             int main(int c, char **v) { char b[64]; snprintf(b, sizeof b, \"%d %s\", c, v[0]); return puts(b) < 0; }\n",
        )?;
        Ok(files)
    }

    /// ns for one compilation and link: several programs and some hundred files.
    fn compile(&self, count: u32) -> Result<f64> {
        let start = Instant::now();
        for _ in 0..count {
            let output = self.source.with_extension("out");
            command::stdout(Command::new("gcc").arg("-O2").arg("-o").arg(output).arg(&self.source))?;
        }
        Ok(start.elapsed().as_nanos() as f64 / f64::from(count))
    }
}
