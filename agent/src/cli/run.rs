//! `purser run`: the options, laid over the configuration, and what is said at the end.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::{Args, builder::PossibleValuesParser, builder::TypedValueParser as _};

use super::{Summary, load, log, say};
use crate::config::{Config, Scope, Span};

/// The agent: runs until the duration is over or a signal asks it to end, and gives what it counted. The arguments
/// are what a changed configuration file is read with again.
pub type Run = fn(&Config, &RunArgs) -> anyhow::Result<Summary>;

/// Options of `purser run`. They win over the configuration file.
#[derive(Debug, Clone, Args, Default)]
#[command(after_help = "Alerts go to standard output, one a line; everything else goes to standard error.\n\
                        It ends on Ctrl-C, on SIGTERM, or after --duration, with a summary.")]
pub struct RunArgs {
    /// The configuration [default: /etc/purser/purser.yaml if it exists]
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A rule file, or a directory of them, instead of the default set; may be repeated
    #[arg(long, short, value_name = "FILE|DIR")]
    pub rules: Vec<PathBuf>,
    /// Alerts as JSON objects, one a line
    #[arg(long)]
    pub json: bool,
    /// End after this time, such as 10s or 5m
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub duration: Option<Duration>,
    /// Write a summary there as JSON at the end
    #[arg(long, value_name = "FILE")]
    pub summary: Option<PathBuf>,
    /// Where metrics and health are served [default: 127.0.0.1:8765]
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,
    /// Which processes are watched [default: all]
    #[arg(long, value_name = "SCOPE", value_parser = PossibleValuesParser::new(Scope::WORDS).try_map(|word| Scope::from_str(&word)))]
    pub scope: Option<Scope>,
}

impl RunArgs {
    /// The configuration of the file with these options laid over it.
    pub fn configuration(&self) -> anyhow::Result<Config> {
        let mut config = load(self.config.as_deref())?;
        if !self.rules.is_empty() {
            config.rules_files.clone_from(&self.rules);
        }
        config.json_output |= self.json;
        if let Some(listen) = self.listen {
            config.webserver.enabled = true;
            config.webserver.listen_address = listen.ip();
            config.webserver.listen_port = listen.port();
        }
        if let Some(scope) = self.scope {
            config.scope = scope;
        }
        Ok(config)
    }
}

pub(super) fn execute(args: &RunArgs, run: Run) -> anyhow::Result<()> {
    let config = args.configuration()?;
    log(config.log_level);
    if let Some(path) = &args.summary {
        // Hours later would be too late to hear of it.
        check_directory(path)?;
    }
    let summary = run(&config, args)?;
    say(&summary);
    match &args.summary {
        Some(path) => summary.write(path).with_context(|| format!("cannot write the summary {}", path.display())),
        None => Ok(()),
    }
}

pub(super) fn check_directory(summary: &Path) -> anyhow::Result<()> {
    let directory = Summary::directory(summary);
    if summary.is_dir() {
        bail!("--summary {}: it is a directory; name a file", summary.display());
    }
    if !directory.is_dir() {
        bail!("--summary {}: there is no directory {}; make it first", summary.display(), directory.display());
    }
    Ok(())
}

fn duration(text: &str) -> Result<Duration, String> {
    match Span::from_str(text) {
        Ok(span) if span.0.is_zero() => Err("must be longer than 0".to_owned()),
        Ok(span) => Ok(span.0),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::{super::Cli, super::Command, *};

    fn parse(arguments: &[&str]) -> Result<RunArgs, String> {
        match Cli::try_parse_from(["purser", "run"].iter().chain(arguments)) {
            Ok(Cli { command: Command::Run(args) }) => Ok(*args),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn options_win_over_the_file() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let text = "rules_files: [/a.yaml]\nscope: containers\nwebserver: {enabled: false}\njson_output: true\n";
        std::fs::write(file.path(), text).expect("written");
        let path = file.path().to_str().expect("UTF-8");
        let config = parse(&["--config", path]).expect("parsed").configuration().expect("valid");
        assert_eq!((config.scope, config.json_output, config.listen()), (Scope::Containers, true, None));
        let args = ["--config", path, "--rules", "b", "--rules", "c", "--scope", "all", "--listen", "[::1]:9"];
        let config = parse(&args).expect("parsed").configuration().expect("valid");
        assert_eq!(config.rules_files, [PathBuf::from("b"), PathBuf::from("c")]);
        assert_eq!((config.scope, config.listen()), (Scope::All, "[::1]:9".parse().ok()));
    }

    #[test]
    fn wrong_options_say_what_is_right() {
        for (arguments, want) in [
            (["--duration", "10"], "has no unit: use one of ns, us, ms, s, m, h, d"),
            (["--duration", "0s"], "must be longer than 0"),
            (["--scope", "container"], "[possible values: all, containers]"),
            (["--listen", "localhost"], "invalid socket address"),
            (["--jsn", "x"], "--json"),
        ] {
            let error = parse(&arguments).expect_err("refused");
            assert!(error.contains(want), "{arguments:?}: {error}");
        }
        assert_eq!(parse(&["--duration", "1m30s"]).expect("parsed").duration, Some(Duration::from_secs(90)));
    }

    #[test]
    fn a_summary_needs_its_directory() {
        let directory = tempfile::tempdir().expect("a directory");
        assert!(check_directory(&directory.path().join("summary.json")).is_ok());
        let missing = check_directory(&directory.path().join("no/summary.json")).expect_err("no directory");
        assert!(missing.to_string().contains("make it first"), "{missing}");
        assert!(check_directory(directory.path()).expect_err("a directory").to_string().contains("name a file"));
        assert!(check_directory(Path::new("summary.json")).is_ok(), "in the working directory");
    }
}
