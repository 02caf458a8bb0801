//! A compiled rule, as the agent and the command line see it.

use serde_json::json;

use crate::catalogue::{Catalogue, FieldId};
use crate::event::{EventSet, generic_calls};
use crate::format::Format;

/// Number of a rule in its [`RuleSet`](crate::RuleSet), in rule order (the order of first definition).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleIndex(pub u32);

/// How urgent a rule is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "syslog's words; the first is the most urgent")]
pub enum Priority {
    Emergency,
    Alert,
    Critical,
    Error,
    Warning,
    Notice,
    Informational,
    #[default]
    Debug,
}

/// A rule.
#[derive(Debug)]
pub struct Rule {
    /// Its name.
    pub name: String,
    /// Its description.
    pub desc: String,
    /// Its priority.
    pub priority: Priority,
    /// The event source it is for.
    pub source: String,
    /// Its tags, ordered.
    pub tags: Vec<String>,
    /// Whether it is evaluated, after `enabled`, the selection and the minimum priority.
    pub enabled: bool,
    /// Whether the file enables it (`enabled: true`), whatever the selection and the minimum priority say.
    pub enabled_by_file: bool,
    /// The condition as written, with appended parts, before lists and macros are put in.
    pub condition_text: String,
    /// The compiled condition, printed canonically, lists and macros in place.
    pub condition: String,
    /// The output as written, with what the configuration appends.
    pub output_text: String,
    /// The events it can match.
    pub events: EventSet,
    /// The fields its condition and output read, each once, ordered.
    pub fields: Vec<FieldId>,
    /// The fields that its condition reads: those that decide whether it fires, each once, ordered.
    pub condition_fields: Vec<FieldId>,
    /// Asks for a capture file when it fires.
    pub capture: bool,
    /// Length of the capture in milliseconds.
    pub capture_duration: u32,
    /// Where it is defined: name of the source, line.
    pub defined: (String, usize),
    pub(crate) format: Format,
    /// Fields that only appear in the JSON output.
    pub(crate) extra: Vec<ExtraField>,
}

/// An entry that the configuration adds to `output_fields`.
#[derive(Debug)]
pub(crate) struct ExtraField {
    pub(crate) key: String,
    pub(crate) value: Format,
    /// The raw, typed value and not text.
    pub(crate) raw: bool,
}

impl Priority {
    /// All, the most urgent first.
    pub const ALL: [Self; 8] = [
        Self::Emergency,
        Self::Alert,
        Self::Critical,
        Self::Error,
        Self::Warning,
        Self::Notice,
        Self::Informational,
        Self::Debug,
    ];

    /// The word in alerts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Emergency => "Emergency",
            Self::Alert => "Alert",
            Self::Critical => "Critical",
            Self::Error => "Error",
            Self::Warning => "Warning",
            Self::Notice => "Notice",
            Self::Informational => "Informational",
            Self::Debug => "Debug",
        }
    }

    /// Reads a word in any case; `info` is informational.
    pub fn parse(word: &str) -> Option<Self> {
        if word.eq_ignore_ascii_case("info") {
            return Some(Self::Informational);
        }
        Self::ALL.into_iter().find(|priority| priority.name().eq_ignore_ascii_case(word))
    }
}

impl Rule {
    /// Names of the events it can match; for the generic event those of all calls that share it.
    pub fn event_names(&self) -> Vec<&'static str> {
        let mut names = self.events.names();
        if names.contains(&EventSet::GENERIC) {
            names.retain(|name| *name != EventSet::GENERIC);
            names.extend(generic_calls());
            names.sort_unstable();
            names.dedup();
        }
        names
    }

    /// The rule for a listing: name, priority, tags, enabled, event types, fields, condition (compiled, and as written),
    /// output, where it is defined.
    pub fn describe(&self, catalogue: &Catalogue) -> serde_json::Value {
        let fields: Vec<_> = catalogue
            .fields()
            .iter()
            .filter(|field| self.fields.contains(&field.id))
            .map(|field| field.name.as_ref())
            .collect();
        json!({
            "name": self.name,
            "description": self.desc,
            "priority": self.priority.name(),
            "source": self.source,
            "tags": self.tags,
            "enabled": self.enabled,
            "events": self.event_names(),
            "fields": fields,
            "condition": self.condition,
            "condition_text": self.condition_text,
            "output": self.output_text,
            "file": self.defined.0,
            "line": self.defined.1,
        })
    }
}
