//! Evaluates a recording: the pipeline of `purser run` with the recorded machine around it, and no other clock than the
//! recording's.

use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use purser_rules::format::Clock;

use super::entry::{Ended, Entry, Reported, Start};
use super::read::{ReadError, Reader};
use super::replayed::Replayed;
use crate::active::ActiveRules;
use crate::alert::Format;
use crate::cli::{RuleFile, Summary};
use crate::config::{Config, Pushdown};
use crate::losses;
use crate::metrics::Metrics;
use crate::pipeline::Pipeline;
use crate::reload::{self, files};
use crate::tally::Tally;
use crate::throttle::Throttle;

/// Rule texts are at most so large together.
const MAX_RULES: usize = 64 << 20;
/// Events wait for an answer at most in this number, whatever the recording asks for.
const MAX_WAITING: usize = 1 << 20;
/// Reasons for losses are a few dozen.
const MAX_LOSSES: usize = 1000;

/// What is to be other than in the recording.
#[derive(Debug, Default)]
pub struct Choice {
    /// The rules.
    pub rules: Option<Vec<RuleFile>>,
    /// The configuration: of it, the keys that alerts depend on.
    pub config: Option<Config>,
    /// Alerts as JSON objects.
    pub json: bool,
}

/// How a replay went.
#[derive(Debug)]
pub struct Replay {
    /// What was counted, the recorder's losses included.
    pub summary: Summary,
    /// What a reader of the alerts has to know.
    pub notes: Vec<String>,
    /// Why the recording ends, or why it cannot be read on.
    pub ended: Result<Ended, ReadError>,
    /// Whether the alerts could be written, all of them.
    pub written: io::Result<()>,
}

/// An input, kept until its answers are read.
enum Pending {
    Scan,
    Record(Vec<u8>),
    Tick(u64),
    Clock(i32),
    Raise(Box<super::entry::Raised>),
    Finish,
}

/// Takes a record through the pipeline by calling what it is given, once: whoever measures does so around it.
pub type Around<'a> = dyn FnMut(&[u8], &mut dyn FnMut()) + 'a;

/// Evaluates the recording, and writes the alerts, one a line, as long as that can be done.
///
/// # Errors
/// It cannot be begun: no recording, or rules or a configuration that cannot be used.
pub fn replay(source: impl Read, choice: &Choice, output: impl Write + Send + 'static) -> Result<Replay> {
    replay_around(source, choice, output, &mut |_, pass| pass())
}

/// Does what [`replay`] does, each record within `around`.
///
/// # Errors
/// Those of [`replay`].
pub fn replay_around(
    source: impl Read,
    choice: &Choice,
    output: impl Write + Send + 'static,
    around: &mut Around<'_>,
) -> Result<Replay> {
    let mut reader = Reader::new(source)?;
    let (start, recorded) = opening(&mut reader)?;
    let config = match &choice.config {
        Some(config) => config.clone(),
        None => Config::parse(Path::new("the recording's configuration"), &start.config)?,
    };
    let texts = choice.rules.as_ref().unwrap_or(&recorded);
    let (set, warnings) =
        files::compile(&config, texts).context("the rules cannot be used; see `purser rules check`")?;
    let mut notes: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    let metrics = Arc::new(Metrics::new());
    let rules = ActiveRules::new(set, config.rule_matching.into(), &metrics);
    let wanted = reload::policy(&rules.set, config.scope, Pushdown::Off);
    notes.extend(lacking(&start, &Reported::of(&wanted), choice.rules.is_some()));

    let mut format = Format::from(&config);
    format.json |= choice.json;
    format.options.hostname.clone_from(&start.hostname);
    format.options.clock = clock(start.clock).unwrap_or_default();
    let mut settings = reload::settings(&config);
    settings.alerts = format.options.clone();
    settings.hold_events = settings.hold_events.min(MAX_WAITING);
    let output = Arc::new(Mutex::new(Output { format, to: Box::new(output), failure: None, line: Vec::new() }));
    let deliver = Arc::clone(&output);
    let mut pipeline = Pipeline::new(
        settings,
        Replayed::new(&start),
        Arc::clone(&rules),
        Tally::new(&metrics),
        start.started_boot_ns,
        Box::new(move |alert| deliver.lock().unwrap_or_else(PoisonError::into_inner).write(&alert)),
    );
    pipeline.set_throttle(Throttle::new(&config.throttle, &rules.set, &metrics));

    let mut finished = false;
    let ended = inputs(&mut reader, &mut pipeline, &metrics, &mut finished, &output, around);
    if !finished {
        pipeline.finish();
    }
    pipeline.publish();
    notes.extend(unknown(pipeline.outside()));
    let summary = Summary::of(&metrics, start.tier, start.hooks, rules.enabled());
    let written = output.lock().unwrap_or_else(PoisonError::into_inner).end();
    Ok(Replay { summary, notes, ended, written })
}

struct Output {
    format: Format,
    to: Box<dyn Write + Send>,
    failure: Option<io::Error>,
    line: Vec<u8>,
}

impl Output {
    fn write(&mut self, raised: &purser_rules::Alert) {
        if self.failure.is_none() {
            self.line.clear();
            self.format.write_raised(raised, &mut self.line);
            self.failure = self.to.write_all(&self.line).err();
        }
    }

    fn end(&mut self) -> io::Result<()> {
        self.failure.take().map_or_else(|| self.to.flush(), Err)
    }
}

/// How the recording began, and its rules.
fn opening<R: Read>(reader: &mut Reader<R>) -> Result<(Start, Vec<RuleFile>)> {
    let position = reader.position();
    let (Entry::Start(start), _) = reader.next_entry()? else {
        return Err(ReadError::Entry(position, "no beginning").into());
    };
    let (mut rules, mut all) = (Vec::new(), 0);
    for _ in 0..start.rules {
        let position = reader.position();
        let (Entry::Rules(name, text), bytes) = reader.next_entry()? else {
            return Err(ReadError::Entry(position, "no rules").into());
        };
        all += bytes;
        if all > MAX_RULES {
            return Err(ReadError::Entry(position, "too many rules").into());
        }
        rules.push((name, text.to_vec()));
    }
    Ok((*start, rules))
}

/// Carries out the inputs, each with its answers.
fn inputs<R: Read>(
    reader: &mut Reader<R>,
    pipeline: &mut Pipeline<Replayed>,
    metrics: &Metrics,
    finished: &mut bool,
    output: &Mutex<Output>,
    around: &mut Around<'_>,
) -> Result<Ended, ReadError> {
    let mut pending: Option<Pending> = None;
    loop {
        let (next, end) = match reader.next_entry() {
            Ok((entry, bytes)) => match entry {
                Entry::Answer(answer) => {
                    let taken = if pending.is_some() {
                        pipeline.outside().take(answer, bytes)
                    } else {
                        Err("an answer to nothing")
                    };
                    taken.map_err(|what| ReadError::Entry(reader.position(), what))?;
                    continue;
                }
                Entry::Losses(losses) => {
                    for (stage, reason, count) in losses.iter().take(MAX_LOSSES) {
                        metrics.lost(stage, reason).raise_to(*count);
                    }
                    continue;
                }
                Entry::Scan => (Some(Pending::Scan), None),
                Entry::Record(record) => (Some(Pending::Record(record.to_vec())), None),
                Entry::Tick(ns) => (Some(Pending::Tick(ns)), None),
                Entry::Clock(seconds) => (Some(Pending::Clock(seconds)), None),
                Entry::Raise(raised) => (Some(Pending::Raise(raised)), None),
                Entry::Finish => (Some(Pending::Finish), None),
                Entry::End(ended) => (None, Some(Ok(ended))),
                Entry::Start(_) | Entry::Rules(..) => {
                    return Err(ReadError::Entry(reader.position(), "a second beginning"));
                }
            },
            // Frames end between two inputs: the last one is whole.
            Err(error) => (None, Some(Err(error))),
        };
        if let Some(input) = std::mem::replace(&mut pending, next) {
            carry_out(input, pipeline, metrics, finished, around)
                .map_err(|what| ReadError::Entry(reader.position(), what))?;
        }
        if let Some(ended) = end {
            return ended;
        }
        if output.lock().unwrap_or_else(PoisonError::into_inner).failure.is_some() {
            return Ok(Ended::Asked);
        }
    }
}

fn carry_out(
    input: Pending,
    pipeline: &mut Pipeline<Replayed>,
    metrics: &Metrics,
    finished: &mut bool,
    around: &mut Around<'_>,
) -> Result<(), &'static str> {
    // What was lost is told of when all is counted.
    if *finished && !matches!(input, Pending::Raise(_)) {
        return Err("an input after the end");
    }
    match input {
        Pending::Scan => pipeline.scan(),
        Pending::Record(record) => around(&record, &mut || pipeline.record(&record)),
        Pending::Tick(ns) => {
            let now = pipeline.outside().at(ns)?;
            pipeline.outside().set_now(now);
            pipeline.tick(now);
        }
        Pending::Clock(seconds) => pipeline.set_clock(clock(seconds).ok_or("an impossible time zone")?),
        Pending::Raise(raised) => {
            let alert = raised.alert().ok_or("an alert that is none")?;
            if alert.rule == losses::RULE {
                metrics.rule_matches(losses::RULE, alert.priority).increment();
            }
            pipeline.raise(alert);
        }
        Pending::Finish => {
            pipeline.finish();
            *finished = true;
        }
    }
    pipeline.outside().done();
    Ok(())
}

fn clock(seconds: i32) -> Option<Clock> {
    time::UtcOffset::from_whole_seconds(seconds).ok().map(|offset| Clock { offset })
}

/// What rules ask for and the recording does not have.
fn lacking(start: &Start, wanted: &Reported, other_rules: bool) -> Vec<String> {
    let mut notes = Vec::new();
    if start.machine != std::env::consts::ARCH {
        notes.push(format!(
            "it was recorded on {}, this is {}: numbers of flags may mean something else",
            start.machine,
            std::env::consts::ARCH
        ));
    }
    if start.reported.everything || !other_rules {
        return notes;
    }
    notes.push("it was recorded for its own rules: what only other rules need is not in it".to_owned());
    let missing = start.reported.missing(wanted);
    if !missing.is_empty() {
        notes.push(format!("not recorded, so that rules cannot match it: {}", missing.join(", ")));
    }
    notes
}

/// What was asked for and not answered.
fn unknown(outside: &Replayed) -> Vec<String> {
    let mut notes = Vec::new();
    if !outside.unknown_domains().is_empty() {
        let names = outside.unknown_domains().join(", ");
        notes.push(format!("these domain names were not resolved when it was recorded, no address is theirs: {names}"));
    }
    for (what, count) in outside.unknown() {
        notes.push(format!("unknown, because nobody asked for them when it was recorded: {count} {what}"));
    }
    notes
}
