//! `purser record`: the options of a recording, and what is said at its end.

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Context as _;
use clap::Args;

use super::{RunArgs, Summary, log, run, say};
use crate::config::{Config, Size};
use crate::recording::{Ended, Limits, MIN_BYTES, Written};

/// The agent with a recorder: runs as [`Run`](super::Run) does.
pub type Record = fn(&Config, &RecordArgs) -> anyhow::Result<(Summary, Written)>;

/// Options of `purser record`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Without --rules it records everything that the kernel can report, so that any rules can be replayed; with \
                        --rules, what these need. Alerts go to standard output as with `run`; sinks of the configuration \
                        are left alone, metrics are served only where --listen says so, and rules are not loaded anew.\n\
                        A recording holds what processes did, with arguments, environments and data: it is made readable by its \
                        owner alone."
)]
pub struct RecordArgs {
    /// The file to make
    #[arg(long, short, value_name = "FILE")]
    pub write: PathBuf,
    /// End when the file has this size
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = size)]
    pub max_size: Size,
    /// Replace the file if it is there
    #[arg(long)]
    pub force: bool,
    /// What is watched.
    #[command(flatten)]
    pub run: RunArgs,
}

impl RecordArgs {
    /// How the file is bounded and made.
    pub fn limits(&self) -> Limits {
        Limits { max_bytes: self.max_size.0, force: self.force }
    }
}

pub(super) fn execute(args: &RecordArgs, record: Record) -> anyhow::Result<()> {
    let mut config = args.run.configuration()?;
    // An agent that runs beside this one has them.
    config.webserver.enabled = args.run.listen.is_some();
    config.file_output.enabled = false;
    config.stdout_output.enabled = true;
    log(config.log_level);
    if let Some(path) = &args.run.summary {
        run::check_directory(path)?;
    }
    let (summary, written) = record(&config, args)?;
    say(&summary);
    let Written { records, bytes, ended } = written;
    let path = args.write.display();
    say(format_args!("purser: recorded {records} events in {bytes} bytes: {path}"));
    if ended == Ended::Full {
        say(format_args!("purser: the recording ended at --max-size {}; later events are not in it", args.max_size));
    }
    match &args.run.summary {
        Some(path) => summary.write(path).with_context(|| format!("cannot write the summary {}", path.display())),
        None => Ok(()),
    }
}

fn size(text: &str) -> Result<Size, String> {
    let size = Size::from_str(text).map_err(|error| error.to_string())?;
    if size.0 < MIN_BYTES.max(1 << 20) {
        return Err("must be at least 1MiB".to_owned());
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use anyhow::bail;
    use clap::Parser as _;

    use super::{super::Cli, super::Command, *};

    fn parse(arguments: &[&str]) -> anyhow::Result<RecordArgs> {
        match Cli::try_parse_from(["purser", "record"].iter().chain(arguments))?.command {
            Command::Record(args) => Ok(*args),
            other => bail!("{other:?}"),
        }
    }

    #[test]
    fn options_of_a_recording_and_of_a_run() {
        let args = parse(&["-w", "x", "--rules", "a", "--max-size", "2MiB", "--duration", "1s"]).expect("parsed");
        assert_eq!((args.max_size.0, args.force, args.run.rules.len()), (2 << 20, false, 1));
        assert_eq!(parse(&["-w", "x"]).expect("parsed").max_size.0, 1 << 30);
        for (arguments, want) in [(&["--force"][..], "--write"), (&["-w", "x", "--max-size", "1KiB"], "at least 1MiB")]
        {
            let error = parse(arguments).expect_err("refused").to_string();
            assert!(error.contains(want), "{error}");
        }
    }
}
