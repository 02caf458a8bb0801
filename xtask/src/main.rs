//! `cargo xtask`: everything that a developer or CI does with Purser, from a bare machine on. Each command first installs what it
//! needs, says in one line what it cannot do, and then does all of it or nothing.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool: progress on stderr, results on stdout"
)]

mod arm64;
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
mod bench;
mod build;
mod demo;
mod fuzz;
mod interrupt;
mod machine;
mod setup;
mod test;
mod vm;
mod workspace;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Purser's development tasks.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Install whatever the other commands need; quick where all is there.
    Setup,
    /// Build the release binary, target/release/purser.
    Build,
    /// Build, and run `purser run ARGS` over the whole machine.
    #[command(disable_help_flag = true)]
    Run {
        /// Arguments of `purser run`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Pass every test.
    Test {
        /// Only the tests that need neither root nor eBPF.
        #[arg(long)]
        quick: bool,
    },
    /// Show it: stowaways start in a container, and each is alerted.
    Demo {
        /// Print the result as one JSON object.
        #[arg(long)]
        json: bool,
        /// This agent, instead of building one.
        #[arg(long, value_name = "FILE")]
        binary: Option<PathBuf>,
    },
    /// Measure what the agent costs, as a Markdown table.
    #[command(args_conflicts_with_subcommands = true)]
    Bench {
        #[command(subcommand)]
        part: Option<BenchPart>,
        /// Count the instructions that are added to calls, in emulated machines, instead.
        #[arg(long, conflicts_with_all = ["json", "rounds", "binary"])]
        icount: bool,
        /// Write the figures as JSON to this file, too.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// Rounds, each with and without the agent.
        #[arg(long, default_value_t = 11, value_parser = clap::value_parser!(u32).range(9..))]
        rounds: u32,
        /// This agent, instead of building one.
        #[arg(long, value_name = "FILE")]
        binary: Option<PathBuf>,
    },
    /// Pass the sensor's tests on stock Debian kernels, each in an emulated machine.
    Vm {
        /// Which kernels, as 6.1; all, if none is named.
        #[arg(value_name = "KERNEL")]
        kernels: Vec<String>,
        /// With only these hooks; else with each tier whose number of skipped tests is pinned.
        #[arg(long)]
        tier: Option<vm::Tier>,
        /// Only tests whose name contains this.
        #[arg(long, value_name = "NAME")]
        filter: Option<String>,
    },
    /// Compile the agent for 64-bit arm.
    Arm64,
    /// Fuzz one target; needs cargo-fuzz and a nightly compiler.
    Fuzz {
        /// What to fuzz.
        target: fuzz::Target,
        /// For how long.
        #[arg(long, default_value_t = 900)]
        seconds: u32,
    },
    /// Write the man page and shell completions to target/docs.
    Docs,
}

#[derive(Debug, Subcommand)]
enum BenchPart {
    /// Only the rules engine: upstream's rules on recorded events, without privileges.
    Rules {
        /// Write the figures as JSON to this file, too.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// Rounds, each with the rules and with ten copies of them.
        #[arg(long, default_value_t = 11, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
    },
    /// Only the agent's own work on an event, from the kernel's record to what rules say: on a recording, without privileges.
    Pass {
        /// This recording, of `purser record`, instead of making one, for which it has to be root.
        #[arg(long, value_name = "FILE")]
        recording: Option<PathBuf>,
        /// Keep the recording that is made there.
        #[arg(long, value_name = "FILE", conflicts_with = "recording")]
        keep: Option<PathBuf>,
        /// Record with this agent, instead of building one.
        #[arg(long, value_name = "FILE", conflicts_with = "recording")]
        binary: Option<PathBuf>,
        /// Write the figures as JSON to this file, too.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// How often the recording is replayed.
        #[arg(long, default_value_t = 21, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
    },
    /// Only what the programs in the kernel add to operations, policy by policy.
    Hooks {
        /// Write the figures as JSON to this file, too.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// Rounds, each with and without each policy.
        #[arg(long, default_value_t = 11, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
    },
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Setup => setup::install(setup::Purpose::Everything).map(|()| true),
        Task::Build => build::release().map(|binary| {
            println!("{}", binary.display());
            true
        }),
        Task::Run { args } => build::run(&args).map(|()| true),
        Task::Test { quick } => test::run(quick),
        Task::Demo { json, binary } => demo::run(binary, json),
        Task::Bench { part: Some(BenchPart::Rules { json, rounds }), .. } => {
            bench::rules::run(json.as_deref(), rounds).map(|()| true)
        }
        Task::Bench { part: Some(BenchPart::Pass { recording, keep, binary, json, rounds }), .. } => {
            let new = bench::pass::Recording::New { binary, keep };
            bench::pass::run(recording.map_or(new, bench::pass::Recording::At), json.as_deref(), rounds).map(|()| true)
        }
        Task::Bench { part: Some(BenchPart::Hooks { json, rounds }), .. } => {
            bench::hooks::run(json.as_deref(), rounds).map(|()| true)
        }
        Task::Bench { part: None, icount: true, .. } => vm::icount::run(),
        Task::Bench { part: None, json, rounds, binary, .. } => {
            bench::run(binary, json.as_deref(), rounds).map(|()| true)
        }
        Task::Vm { kernels, tier, filter } => vm::run(&kernels, tier, filter.as_deref()),
        Task::Arm64 => setup::install(setup::Purpose::Everything)
            .and_then(|()| arm64::check(&workspace::root().join("target")))
            .map(|()| true),
        Task::Fuzz { target, seconds } => fuzz::run(target, seconds).map(|()| true),
        Task::Docs => build::docs().map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
