//! `purser replay`: the options, and where its alerts and errors go.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read};
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use super::{load, one_line, rules, run, say};
use crate::recording::Ended;
use crate::recording::replay::{Choice, replay};

/// Options of `purser replay`.
#[derive(Debug, Args)]
#[command(
    after_help = "It needs neither root nor the machine of the recording. Without --rules and --config it writes the alerts \
                        that `purser record` wrote, byte for byte. Of a recording that is cut or damaged it writes the \
                        alerts of what is whole, says where it stops, and exits with 1."
)]
pub struct ReplayArgs {
    /// The recording; `-` is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// A rule file, or a directory of them, instead of the recorded rules; may be repeated
    #[arg(long, short, value_name = "FILE|DIR")]
    rules: Vec<PathBuf>,
    /// The configuration instead of the recorded one: of it, what alerts depend on
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Alerts as JSON objects, one a line
    #[arg(long)]
    json: bool,
    /// Write a summary there as JSON at the end
    #[arg(long, value_name = "FILE")]
    summary: Option<PathBuf>,
}

pub(super) fn execute(args: &ReplayArgs) -> anyhow::Result<()> {
    if let Some(path) = &args.summary {
        run::check_directory(path)?;
    }
    let config = args.config.as_deref().map(|path| load(Some(path))).transpose()?;
    let rules = if args.rules.is_empty() { None } else { Some(rules::read(&args.rules)?) };
    let name = args.file.display().to_string();
    let source: Box<dyn Read> = if name == "-" {
        Box::new(io::stdin().lock())
    } else {
        Box::new(File::open(&args.file).with_context(|| format!("cannot open the recording {name}"))?)
    };
    let choice = Choice { rules, config, json: args.json };
    let output = BufWriter::new(io::stdout());
    let replayed = replay(BufReader::new(source), &choice, output).with_context(|| name.clone())?;
    for note in &replayed.notes {
        say(format_args!("purser: {}", one_line(note)));
    }
    say(&replayed.summary);
    if let Some(path) = &args.summary {
        replayed.summary.write(path).with_context(|| format!("cannot write the summary {}", path.display()))?;
    }
    match replayed.written {
        // The reader has seen enough (`| head`).
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
        written => written.context("cannot write the alerts")?,
    }
    match replayed.ended {
        Ok(Ended::Asked) => Ok(()),
        Ok(Ended::Full) => {
            say("purser: the recording ended at its largest size; later events are not in it");
            Ok(())
        }
        Err(error) => Err(error).context(name),
    }
}
