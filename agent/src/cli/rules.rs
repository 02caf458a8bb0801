//! `purser rules`: checks, lists and tests rules without a kernel or root.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use purser_rules::cases::CaseFile;
use purser_rules::{LoadOptions, RuleSet, Source};

mod check;
mod events;
mod fields;
mod list;
mod notes;
mod page;
mod snippet;

use super::{Color, load, one_line, print};
use crate::config;

/// What to do with rules.
#[derive(Debug, Subcommand)]
pub enum RulesCommand {
    /// Load rules and say what is wrong with them; exit code 1 if they cannot be used.
    Check(Check),
    /// List the rules: enabled or not, priority, name; with --json everything about each.
    List(List),
    /// Run files of cases: events written down as field values, and the rules that must fire on each, exactly those.
    Test(Cases),
    /// List the fields that rules can use, and which never have a value in this build.
    Fields(Listing),
    /// List the events that rules can name, their parameters, and which of them this build delivers.
    Events(Listing),
}

/// What to list, and how.
#[derive(Debug, Args)]
pub struct Listing {
    /// Only what has a name that begins so, such as `proc.`
    prefix: Option<String>,
    /// As one JSON array
    #[arg(long)]
    json: bool,
    /// As a page of Markdown
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
}

/// How to print a listing.
enum Form {
    Text,
    Json,
    Markdown,
}

impl Listing {
    fn form(&self) -> Form {
        form(self.json, self.markdown)
    }
}

fn form(json: bool, markdown: bool) -> Form {
    match (json, markdown) {
        (true, _) => Form::Json,
        (_, true) => Form::Markdown,
        _ => Form::Text,
    }
}

/// Which rules.
#[derive(Debug, Args)]
struct Files {
    /// Rule files, or directories of them [default: those of the configuration, else the embedded ones]
    #[arg(value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,
    /// The configuration: which rules it selects, and what it appends to their output
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// What to check, and how to say it.
#[derive(Debug, Args)]
pub struct Check {
    #[command(flatten)]
    files: Files,
    /// As one JSON object, with the keys that Falco's `--validate` has
    #[arg(long)]
    json: bool,
    /// Warnings fail the check, too
    #[arg(long, short = 'W')]
    strict: bool,
    /// When to print in colour
    #[arg(long, value_enum, value_name = "WHEN", default_value_t)]
    color: Color,
}

/// What to list, and how.
#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    files: Files,
    /// As one JSON array
    #[arg(long)]
    json: bool,
    /// As a page of Markdown
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
}

/// What to test, and with which rules.
#[derive(Debug, Args)]
pub struct Cases {
    /// Files of cases; each names its rule files, relative to itself
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Rules for files that name none, a file or a directory; may be repeated [default: as for check]
    #[arg(long, short, value_name = "FILE|DIR")]
    rules: Vec<PathBuf>,
    /// The configuration: which rules it selects, and what it appends to their output
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) fn execute(command: &RulesCommand) -> anyhow::Result<()> {
    match command {
        RulesCommand::Check(arguments) => check::execute(arguments),
        RulesCommand::List(arguments) => list(arguments),
        RulesCommand::Test(cases) => test(cases),
        RulesCommand::Fields(listing) => print(fields::show(listing)?.as_bytes()),
        RulesCommand::Events(listing) => print(events::show(listing)?.as_bytes()),
    }
}

/// The largest public rule files have a few hundred KiB.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// Name and content of a rule file.
pub type RuleFile = (String, Vec<u8>);

/// The rules in the binary.
pub fn embedded() -> Vec<RuleFile> {
    let embedded = |(name, text): &(&str, &str)| (format!("{name} (embedded)"), text.as_bytes().to_vec());
    purser_rules::DEFAULT_RULES.iter().map(embedded).collect()
}

/// The text of one rule file.
pub fn read_file(path: &Path) -> std::io::Result<Vec<u8>> {
    config::read_at_most(path, MAX_FILE_BYTES)
}

/// The text of the rule files at `paths`, directories opened up; without paths, of the embedded rules.
pub(super) fn read(paths: &[PathBuf]) -> anyhow::Result<Vec<RuleFile>> {
    if paths.is_empty() {
        return Ok(embedded());
    }
    let read = |path: PathBuf| {
        let text = read_file(&path).with_context(|| format!("cannot read the rules {}", path.display()))?;
        Ok((path.to_string_lossy().into_owned(), text))
    };
    config::rule_paths(paths)?.into_iter().map(read).collect()
}

fn list(list: &List) -> anyhow::Result<()> {
    let (texts, options) = list.files.open()?;
    let (set, _) = RuleSet::load(&sources(&texts), &options)?;
    print(list::show(&set, &form(list.json, list.markdown)).as_bytes())
}

fn test(cases: &Cases) -> anyhow::Result<()> {
    let config = load(cases.config.as_deref())?;
    let (mut passed, mut failed) = (0, 0);
    for path in &cases.files {
        let wrong = || format!("cannot test {}", path.display());
        let text = String::from_utf8(read_file(path).with_context(wrong)?).with_context(wrong)?;
        let file = CaseFile::parse(&text).with_context(wrong)?;
        let beside = path.parent().unwrap_or(Path::new(""));
        let named: Vec<PathBuf> = file.rules.iter().map(|rules| beside.join(rules)).collect();
        let choices = [&named, &cases.rules, &config.rules_files];
        let rules = choices.into_iter().find(|paths| !paths.is_empty()).map_or(&[][..], Vec::as_slice);
        let texts = read(rules).with_context(wrong)?;
        let (set, _) = RuleSet::load(&sources(&texts), &config.load_options()).with_context(wrong)?;
        let results = file.run(&set).with_context(wrong)?;
        if results.is_empty() {
            bail!("{} has no cases", path.display());
        }
        let mut out = String::new();
        for result in results {
            if result.passed() {
                passed += 1;
                continue;
            }
            failed += 1;
            writeln!(out, "FAILED  {}: {}", path.display(), one_line(&result.name))?;
            for (what, rules) in [("did not fire", result.missing), ("fired", result.unexpected)] {
                for rule in rules {
                    writeln!(out, "        {what}: {}", one_line(&rule))?;
                }
            }
        }
        print(out.as_bytes())?;
    }
    print(format!("{passed} cases passed, {failed} failed\n").as_bytes())?;
    if failed > 0 {
        bail!("{failed} cases failed: correct the rules or the cases above");
    }
    Ok(())
}

impl Files {
    fn open(&self) -> anyhow::Result<(Vec<RuleFile>, LoadOptions)> {
        let config = load(self.config.as_deref())?;
        let paths = if self.paths.is_empty() { &config.rules_files } else { &self.paths };
        Ok((read(paths)?, config.load_options()))
    }
}

fn sources(texts: &[RuleFile]) -> Vec<Source<'_>> {
    texts.iter().map(|(name, text)| Source { name, text }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_that_never_end_are_refused() {
        let error = read(&["/dev/zero".into()]).expect_err("endless");
        assert_eq!(format!("{error:#}"), "cannot read the rules /dev/zero: it is larger than 16MiB");
    }
}
