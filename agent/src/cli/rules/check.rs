//! `purser rules check`: what is wrong with rule files, for people and for programs.

use std::fmt::Write as _;
use std::path::PathBuf;

use anstyle::{AnsiColor, Style};
use anyhow::bail;
use purser_rules::diagnostic::{Context, Severity, Spot};
use purser_rules::{Code, Diagnostic, LoadOptions, MAX_ERRORS, RuleSet};
use serde_json::{Value, json};

use super::super::print;
use super::notes::{self, Note};
use super::snippet::{Snippet, harmless_text};
use super::{Check, RuleFile, sources};
use crate::cli::load;

/// What came of a check.
struct Report {
    files: Vec<RuleFile>,
    /// The lines of each file, and where each begins.
    lines: Vec<Vec<(usize, String)>>,
    diagnostics: Vec<Diagnostic>,
    /// How many rules there are, if they can be used.
    rules: Option<usize>,
    notes: Vec<Note>,
}

pub(super) fn execute(check: &Check) -> anyhow::Result<()> {
    let config = load(check.files.config.as_deref())?;
    let paths = if check.files.paths.is_empty() { &config.rules_files } else { &check.files.paths };
    let report = Report::of(paths, &config.load_options());
    if check.json {
        print(format!("{}\n", report.as_json()).as_bytes())?;
    } else {
        let choice = check.color.choice();
        let mut out = anstream::AutoStream::new(Vec::new(), choice);
        std::io::Write::write_all(&mut out, report.as_text().as_bytes())?;
        print(&out.into_inner())?;
    }
    if report.rules.is_none() {
        bail!("the rules cannot be used: correct the error above");
    }
    if check.strict && report.count(Severity::Warning) > 0 {
        bail!("there are warnings, which --strict does not allow: correct them, or leave out --strict");
    }
    Ok(())
}

impl Report {
    fn of(paths: &[PathBuf], options: &LoadOptions) -> Self {
        let (files, unreadable) = read_each(paths);
        let checked = RuleSet::check(&sources(&files), options);
        let mut diagnostics = unreadable;
        let readable = diagnostics.is_empty();
        diagnostics.extend(checked.diagnostics);
        // As they are read, whatever was found first.
        let file = |name: &str| files.iter().position(|(known, _)| known == name);
        diagnostics.sort_by_cached_key(|found| found.at().map(|at| (file(&at.file), at.line, at.column)));
        let notes = checked.rules.as_ref().map(notes::of).unwrap_or_default();
        let rules = checked.rules.filter(|_| readable).map(|set| set.rules().len());
        let lines = files.iter().map(|(_, text)| lines(text)).collect();
        Self { files, lines, diagnostics, rules, notes }
    }

    fn count(&self, severity: Severity) -> usize {
        self.diagnostics.iter().filter(|found| found.severity() == severity).count()
    }

    /// A line, and where it begins in its file.
    fn line(&self, at: &Spot) -> Option<&(usize, String)> {
        let file = self.files.iter().position(|(name, _)| *name == at.file)?;
        self.lines.get(file)?.get(at.line.checked_sub(1)?)
    }

    fn snippet(&self, at: &Spot) -> Option<Snippet> {
        self.line(at).map(|(_, line)| Snippet::new(line, at.column))
    }

    fn as_text(&self) -> String {
        let mut out = String::new();
        for found in &self.diagnostics {
            let style = severity_style(found.severity());
            let severity = format!("{style}{} {}{style:#}", found.severity().name(), found.code.name());
            let inside = found.inside();
            let inside = if inside.is_empty() { inside } else { format!(" ({inside})") };
            let message = harmless_text(&format!("{}{inside}", found.message));
            let Some(at) = found.at() else {
                let _ = writeln!(out, "{severity}: {message}");
                continue;
            };
            let _ =
                writeln!(out, "{}: {severity}: {BOLD}{message}{BOLD:#}", placed(&at.file, at.line, Some(at.column)));
            if let Some(mut snippet) = self.snippet(&at) {
                // Where a long text begins, its first word is not what is wrong.
                let is_text = found.place().is_some_and(|place| matches!(place.kind, "condition" | "output"));
                if is_text && found.spot.is_none() {
                    snippet.marked = 1;
                }
                let line = at.line.to_string();
                let (bar, blank) = (format!("{DIM}|{DIM:#}"), " ".repeat(line.len()));
                let mark = format!("{}{style}{}{style:#}", " ".repeat(snippet.indent), "^".repeat(snippet.marked));
                let _ = writeln!(out, "{blank} {bar}\n{DIM}{line}{DIM:#} {bar} {}\n{blank} {bar} {mark}", snippet.line);
            }
        }
        for note in &self.notes {
            let message = harmless_text(&note.message);
            let _ = writeln!(out, "{}: {NOTE}note{NOTE:#}: {message}", placed(&note.file, note.line, None));
        }
        out.push_str(&self.summary());
        out
    }

    fn summary(&self) -> String {
        let (errors, warnings) = (self.count(Severity::Error), self.count(Severity::Warning));
        let mut counts = Vec::new();
        if errors > 0 {
            counts.push(counted(errors, "error"));
        }
        counts.push(counted(warnings, "warning"));
        if !self.notes.is_empty() {
            let silent = self.notes.iter().filter(|note| note.cannot_fire).count();
            let silent = if silent > 0 { format!(" ({silent} cannot fire)") } else { String::new() };
            counts.push(format!("{}{silent}", counted(self.notes.len(), "note")));
        }
        let (counts, files) = (counts.join(", "), counted(self.files.len(), "file"));
        match self.rules {
            Some(rules) => format!("{OK}ok{OK:#}: {} in {files}, {counts}\n", counted(rules, "rule")),
            None if errors >= MAX_ERRORS => {
                format!("{ERROR}failed{ERROR:#}: {files}, {counts}; the check ends with so many, there may be more\n")
            }
            None => format!("{ERROR}failed{ERROR:#}: {files}, {counts}\n"),
        }
    }

    /// The object of upstream's `--validate` with `json_output`, and the notes.
    fn as_json(&self) -> Value {
        let mut names: Vec<&str> = self.files.iter().map(|(name, _)| name.as_str()).collect();
        let found_in = self.diagnostics.iter().filter_map(|found| Some(found.place()?.file.as_str()));
        for name in found_in {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let result = |name: &&str| {
            let of = |severity| -> Vec<Value> {
                let here = |found: &&Diagnostic| found.place().is_none_or(|place| place.file == **name);
                let found = self.diagnostics.iter().filter(|found| found.severity() == severity).filter(here);
                found.map(|found| self.diagnostic(found)).collect()
            };
            let errors = of(Severity::Error);
            let notes: Vec<&Note> = self.notes.iter().filter(|note| note.file == **name).collect();
            json!({
                "name": name,
                "successful": errors.is_empty(),
                "errors": errors,
                "warnings": of(Severity::Warning),
                "notes": notes,
            })
        };
        json!({"falco_load_results": names.iter().map(result).collect::<Vec<_>>()})
    }

    fn diagnostic(&self, found: &Diagnostic) -> Value {
        let location = |kind: &str, name: &str, at: &Spot| {
            let position = json!({"name": at.file, "line": at.line, "column": at.column, "offset": self.offset(at)});
            json!({"item_type": kind, "item_name": name, "position": position})
        };
        let of_step = |step: &Context| Spot { file: step.file.clone(), line: step.line, column: step.column };
        let mut around = "";
        let mut locations = Vec::new();
        for step in &found.context {
            // Upstream says whose condition or output it is.
            let kind = match (around, step.kind) {
                ("rule" | "macro", "condition" | "output") => format!("{around} {}", step.kind),
                (_, kind) => kind.to_owned(),
            };
            locations.push(location(&kind, &step.name, &of_step(step)));
            around = step.kind;
        }
        let kind = if around == "condition" { "condition expression" } else { "value for" };
        locations.extend(found.spot.as_ref().map(|spot| location(kind, "", spot)));
        let snippet = found.at().and_then(|at| self.snippet(&at)).map(|snippet| snippet.plain()).unwrap_or_default();
        json!({
            "context": {"locations": locations, "snippet": snippet},
            "code": found.code.name(),
            "codedesc": found.code.description(),
            "message": found.message,
        })
    }

    /// Bytes from the start of the file.
    fn offset(&self, at: &Spot) -> usize {
        let Some((start, line)) = self.line(at) else { return 0 };
        start + line.chars().take(at.column.saturating_sub(1)).map(char::len_utf8).sum::<usize>()
    }
}

/// The lines of a text, each with its first byte.
fn lines(text: &[u8]) -> Vec<(usize, String)> {
    let mut start = 0;
    let lines = text.split(|byte| *byte == b'\n').map(|line| {
        let begins = start;
        start += line.len() + 1;
        (begins, String::from_utf8_lossy(line).trim_end_matches('\r').to_owned())
    });
    lines.collect()
}

/// Reads each file; one that cannot be read does not keep the others from being checked.
fn read_each(paths: &[PathBuf]) -> (Vec<RuleFile>, Vec<Diagnostic>) {
    let (mut files, mut errors) = (Vec::new(), Vec::new());
    let all: Vec<&[PathBuf]> = if paths.is_empty() { vec![paths] } else { paths.chunks(1).collect() };
    for paths in all {
        match super::read(paths) {
            Ok(more) => files.extend(more),
            Err(error) => {
                let file = paths.first().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
                let place = Context { kind: "rules content", name: String::new(), file, line: 1, column: 1 };
                errors.push(Diagnostic {
                    code: Code::FileRead,
                    message: crate::cli::explain(&error),
                    context: vec![place],
                    snippet: String::new(),
                    spot: None,
                });
            }
        }
    }
    (files, errors)
}

const BOLD: Style = Style::new().bold();
const DIM: Style = AnsiColor::Blue.on_default().bold();
const ERROR: Style = AnsiColor::Red.on_default().bold();
const WARNING: Style = AnsiColor::Yellow.on_default().bold();
const NOTE: Style = AnsiColor::Cyan.on_default().bold();
const OK: Style = AnsiColor::Green.on_default().bold();

const fn severity_style(severity: Severity) -> Style {
    match severity {
        Severity::Error => ERROR,
        Severity::Warning => WARNING,
    }
}

/// `file:line:column`, as editors and terminals find it.
fn placed(file: &str, line: usize, column: Option<usize>) -> String {
    let column = column.map(|column| format!(":{column}")).unwrap_or_default();
    format!("{BOLD}{}:{line}{column}{BOLD:#}", harmless_text(file))
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
