//! `purser doctor`: what the agent would find on this machine, and what it could not see. It attaches nothing and changes
//! nothing, so it may run beside an agent; what it is not allowed to find out it says.
//!
//! A file of `doctor/` per section; each gives [`Check`]s. How they are printed is decided here alone.

mod containers;
mod files;
mod hooks;
mod limits;
mod machine;
mod pushdown;

use std::fmt::Write as _;
use std::path::PathBuf;

use anstyle::{AnsiColor, Style};
use anyhow::bail;
use clap::Args;
use serde::Serialize;

use super::{Color, one_line, print};

/// What to look at, and how to say it.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code 0 if nothing essential is missing, else 1. Without root it says what it could not check."
)]
pub struct DoctorArgs {
    /// The configuration [default: /etc/purser/purser.yaml if it exists]
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A rule file, or a directory of them, instead of the configured ones; may be repeated
    #[arg(long, short, value_name = "FILE|DIR")]
    rules: Vec<PathBuf>,
    /// As one JSON object
    #[arg(long)]
    json: bool,
    /// What no kernel, or some kernels, do not let be seen, as a page of Markdown; looks at nothing
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
    /// Instead of all this: event by event and rule by rule, what stays in the kernel, and what cannot and why
    #[arg(long, conflicts_with = "markdown")]
    pushdown: bool,
    /// When to print in colour
    #[arg(long, value_enum, value_name = "WHEN", default_value_t)]
    color: Color,
}

/// What came of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// As it should be.
    Ok,
    /// A fact that is neither good nor bad, or something not there that nothing needs.
    Info,
    /// Something is not seen, or works less well.
    Limited,
    /// It could not be found out, mostly for want of permission.
    Unchecked,
    /// The agent cannot start, or not as it is configured.
    Missing,
}

impl State {
    const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Info => "info",
            Self::Limited => "limited",
            Self::Unchecked => "unchecked",
            Self::Missing => "missing",
        }
    }

    const fn style(self) -> Style {
        let color = match self {
            Self::Ok => AnsiColor::Green,
            Self::Info => return Style::new().dimmed(),
            Self::Limited => AnsiColor::Yellow,
            Self::Unchecked => AnsiColor::Cyan,
            Self::Missing => AnsiColor::Red,
        };
        color.on_default().bold()
    }
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Check {
    name: String,
    state: State,
    /// What was found, and what to do about it.
    text: String,
}

impl Check {
    fn new(state: State, name: impl Into<String>, text: impl AsRef<str>) -> Self {
        // Names of files and errors are foreign text.
        Self { name: name.into(), state, text: one_line(text.as_ref()) }
    }

    fn ok(name: impl Into<String>, text: impl AsRef<str>) -> Self {
        Self::new(State::Ok, name, text)
    }
}

/// Checks that belong together.
#[derive(Debug, Serialize)]
struct Section {
    name: &'static str,
    checks: Vec<Check>,
}

/// Everything that was found.
#[derive(Debug, Serialize)]
struct Report {
    /// Rises when a key changes its meaning or goes; new sections, checks and keys may come without.
    schema: u32,
    /// Nothing essential is missing.
    healthy: bool,
    /// How many checks could not be made.
    unchecked: usize,
    sections: Vec<Section>,
}

pub(super) fn execute(arguments: &DoctorArgs) -> anyhow::Result<()> {
    if arguments.markdown {
        return print(limits::page().as_bytes());
    }
    if arguments.pushdown {
        let files = files::look(arguments);
        let Some((set, policy)) = &files.rules else {
            let wrong = files.checks.iter().find(|check| check.state == State::Missing);
            bail!("{}", wrong.map_or("the rules cannot be used", |check| &check.text));
        };
        let explained = pushdown::Explained::of(set, policy, files.config.sensor.pushdown);
        return say(arguments, &explained, &explained.as_text());
    }
    let report = Report::of(arguments);
    say(arguments, &report, &report.as_text())?;
    if !report.healthy {
        bail!("something essential is missing: see what is marked so above");
    }
    Ok(())
}

/// For a program, or for a person.
fn say(arguments: &DoctorArgs, value: &impl Serialize, text: &str) -> anyhow::Result<()> {
    if arguments.json {
        return print(format!("{}\n", serde_json::to_string(value)?).as_bytes());
    }
    let mut out = anstream::AutoStream::new(Vec::new(), arguments.color.choice());
    std::io::Write::write_all(&mut out, text.as_bytes())?;
    print(&out.into_inner())
}

impl Report {
    fn of(arguments: &DoctorArgs) -> Self {
        let files = files::look(arguments);
        let hooks = hooks::look(&files);
        let sections = vec![
            Section { name: "machine", checks: machine::checks() },
            Section { name: "files", checks: files.checks },
            Section { name: "hooks", checks: hooks.checks },
            Section { name: "containers", checks: containers::checks(&files.config.containers()) },
            Section { name: "limits", checks: limits::checks(hooks.circumstances) },
        ];
        Self::new(sections)
    }

    fn new(sections: Vec<Section>) -> Self {
        let count =
            |state| sections.iter().flat_map(|section| &section.checks).filter(|check| check.state == state).count();
        Self { schema: 1, healthy: count(State::Missing) == 0, unchecked: count(State::Unchecked), sections }
    }

    fn as_text(&self) -> String {
        let mut out = String::new();
        for section in &self.sections {
            let _ = writeln!(out, "{BOLD}{}{BOLD:#}", section.name);
            let width = section.checks.iter().map(|check| check.name.len()).max().unwrap_or(0).min(WIDEST);
            for Check { name, state, text } in &section.checks {
                let (style, word) = (state.style(), state.name());
                let _ = writeln!(out, "  {style}{word:9}{style:#}  {name:width$}  {text}");
            }
        }
        if self.unchecked > 0 {
            let remedy = if rustix::process::geteuid().is_root() { "" } else { ": run it as root" };
            let _ = writeln!(out, "{} could not be checked{remedy}", self.unchecked);
        }
        out
    }
}

const BOLD: Style = Style::new().bold();
/// Names beyond this break the column.
const WIDEST: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn report(states: &[State]) -> Report {
        let checks = states.iter().map(|state| Check::new(*state, "a\tb", "x\n\u{1b}[31my")).collect();
        Report::new(vec![Section { name: "machine", checks }])
    }

    #[test]
    fn only_what_is_missing_is_unhealthy() {
        let good = report(&[State::Ok, State::Info, State::Limited, State::Unchecked]);
        assert_eq!((good.healthy, good.unchecked), (true, 1));
        assert!(!report(&[State::Ok, State::Missing]).healthy);
    }

    #[test]
    fn foreign_text_stays_on_its_line() {
        let text = anstream::adapter::strip_str(&report(&[State::Limited]).as_text()).to_string();
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.contains("x \u{fffd}[31my"), "{text}");
    }

    #[test]
    fn the_json_has_its_keys() {
        let json = serde_json::to_value(report(&[State::Unchecked])).expect("JSON");
        let check = serde_json::json!({"name": "a\tb", "state": "unchecked", "text": "x \u{fffd}[31my"});
        let sections = serde_json::json!([{"name": "machine", "checks": [check]}]);
        let whole = serde_json::json!({"schema": 1, "healthy": true, "unchecked": 1, "sections": sections});
        assert_eq!(json, whole);
    }
}
