//! The command line: what `purser` takes, and how it answers. Commands are checked here and carried out elsewhere.
//!
//! Every error ends as one line `purser: error: ...` with what to do about it, and exit code 1 (2 for a wrong
//! command line).

mod doctor;
mod generate;
mod manifest;
mod record;
mod replay;
mod rules;
mod run;
mod summary;

use std::{
    fmt, io,
    io::{IsTerminal as _, Write as _},
    process::ExitCode,
    sync::OnceLock,
};

use clap::{Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

pub use self::{
    record::{Record, RecordArgs},
    rules::{RuleFile, embedded as embedded_rules, read_file as read_rule_file},
    run::{Run, RunArgs},
    summary::Summary,
};
use crate::config::{Config, LogLevel};

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "purser",
    version,
    about = "Kubernetes runtime detection against the expected manifest of each image",
    long_about = "Purser traces programs, files and connections per container with eBPF, matches them against Falco \
                  rules, and tells for every program that starts in a container whether its image contains it.",
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch this machine and print alerts (needs root).
    Run(Box<RunArgs>),
    /// Say what this kernel and machine allow, what is not seen here, and what is wrong with the configuration.
    Doctor(doctor::DoctorArgs),
    /// Watch this machine as `run` does, and record all that alerts follow from (needs root).
    Record(Box<RecordArgs>),
    /// Evaluate a recording: the same alerts again, or those of other rules.
    Replay(replay::ReplayArgs),
    /// Check, list and describe rules.
    #[command(subcommand)]
    Rules(rules::RulesCommand),
    /// Build and show the expected manifest of an image.
    #[command(subcommand)]
    Manifest(manifest::ManifestCommand),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page (troff), or write the pages of all commands to a directory.
    Man {
        /// The directory for one page per command.
        #[arg(long, value_name = "DIR")]
        dir: Option<std::path::PathBuf>,
    },
}

/// When to print in colour.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Color {
    /// To a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Color {
    fn choice(self) -> anstream::ColorChoice {
        match self {
            Self::Auto => anstream::AutoStream::choice(&io::stdout()),
            Self::Always => anstream::ColorChoice::AlwaysAnsi,
            Self::Never => anstream::ColorChoice::Never,
        }
    }
}

/// Parses the command line and carries it out; `run` and `record` are the agent.
pub fn main(run: Run, record: Record) -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Run(args) => run::execute(&args, run),
        Command::Doctor(args) => doctor::execute(&args),
        Command::Record(args) => record::execute(&args, record),
        Command::Replay(args) => replay::execute(&args),
        Command::Rules(command) => rules::execute(&command),
        Command::Manifest(command) => manifest::execute(&command),
        Command::Completions { shell } => generate::completions(shell),
        Command::Man { dir } => generate::man(dir.as_deref()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(format_args!("purser: error: {}", explain(&error)));
            ExitCode::FAILURE
        }
    }
}

/// Changes the level of the log once it is started.
type SetLevel = Box<dyn Fn(LogLevel) + Send + Sync>;

static SET_LEVEL: OnceLock<SetLevel> = OnceLock::new();

/// Starts the agent's own log, on standard error; a later call changes its level.
pub fn log(level: LogLevel) {
    if let Some(set) = SET_LEVEL.get() {
        return set(level);
    }
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(level))
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .with_filter_reloading();
    let handle = builder.reload_handle();
    if builder.try_init().is_ok() {
        // It fails only where the log is gone, which lives as long as the process.
        let set = move |level| drop(handle.reload(filter(level)));
        let _first = SET_LEVEL.set(Box::new(set));
    }
}

fn filter(level: LogLevel) -> EnvFilter {
    let (own, others) = match level {
        LogLevel::Error => ("error", "error"),
        LogLevel::Warning => ("warn", "warn"),
        LogLevel::Info => ("info", "warn"),
        LogLevel::Debug => ("debug", "info"),
        LogLevel::Trace => ("trace", "debug"),
    };
    EnvFilter::new(format!("{others},purser={own}"))
}

/// The configuration of the file at `path` (or of the default place).
pub fn load(path: Option<&std::path::Path>) -> anyhow::Result<Config> {
    Ok(Config::load(path)?)
}

/// A line on standard error. When nobody reads there, there is nobody to tell.
fn say(line: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Writes to standard output; a reader that has left (`| head`) is no error.
fn print(text: &[u8]) -> anyhow::Result<()> {
    match io::stdout().write_all(text).and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// The error and its causes on one line. Most errors say their cause themselves: it is not said twice.
pub(crate) fn explain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    one_line(&text)
}

/// Foreign text in an error (a file's name, a parser's snippet) must not break the line.
pub(crate) fn one_line(text: &str) -> String {
    text.trim_end()
        .chars()
        .map(|c| match c {
            '\n' | '\t' => ' ',
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_cause_is_said_once() {
        use anyhow::Context as _;
        let cause = || io::Error::other("no room");
        let plain = Err::<(), _>(cause()).context("cannot write").expect_err("an error");
        assert_eq!(explain(&plain), "cannot write: no room");
        let path = "/a".into();
        let own = anyhow::Error::from(crate::config::ConfigError::Read { path, source: cause() });
        assert_eq!(explain(&own), "cannot read the configuration /a: no room");
    }

    #[test]
    fn errors_stay_on_one_line() {
        assert_eq!(one_line("a\nb\u{1b}[2Jc\t\n"), "a b\u{fffd}[2Jc");
    }
}
