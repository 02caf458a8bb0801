//! An alert, and how Falco writes it: one line of text, or one JSON object. It is never fed back into the pipeline,
//! and it knows nothing of where it goes.

use std::{fmt, mem::MaybeUninit, str::FromStr, sync::Arc};

use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::config::Config;

/// How severe, as rules and users write it. The most severe is the least: `Emergency < Debug`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "syslog's words")]
pub enum Priority {
    Emergency,
    Alert,
    Critical,
    Error,
    Warning,
    Notice,
    Informational,
    Debug,
}

/// What a rule raised. Cheap to share between sinks (`Arc<Alert>`).
#[derive(Debug, Clone, PartialEq)]
pub struct Alert {
    /// UUID version 7: the alert's name for ever, also when it is sent twice.
    pub id: Uuid,
    /// Running number since the agent's start, from 1; a gap is a loss.
    pub sequence: u64,
    /// The event's time, ns since the epoch.
    pub time_ns: u64,
    /// The rule's priority.
    pub priority: Priority,
    /// The rule's name.
    pub rule: Arc<str>,
    /// The rule's source.
    pub source: Arc<str>,
    /// The rule's tags, sorted.
    pub tags: Arc<[String]>,
    /// The rule's output, formatted, without time and priority.
    pub message: String,
    /// The values of the output's fields; a missing one is null.
    pub output_fields: Map<String, Value>,
    /// The machine.
    pub hostname: Arc<str>,
}

/// Gives each alert its id and number.
#[derive(Debug, Default)]
pub struct Numbering {
    last: u64,
}

impl Numbering {
    /// The next id and sequence number.
    pub fn next(&mut self) -> (Uuid, u64) {
        self.last += 1;
        (Uuid::now_v7(), self.last)
    }
}

/// How alerts are written: Falco's switches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a key of the configuration")]
pub struct Format {
    /// `json_output`
    pub json: bool,
    /// `json_include_output_property`
    pub include_output: bool,
    /// `json_include_message_property`
    pub include_message: bool,
    /// `json_include_tags_property`
    pub include_tags: bool,
    /// `json_include_output_fields_property`
    pub include_output_fields: bool,
    /// `time_format_iso_8601`
    pub iso_8601: bool,
}

impl From<&Config> for Format {
    fn from(config: &Config) -> Self {
        Self {
            json: config.json_output,
            include_output: config.json_include_output_property,
            include_message: config.json_include_message_property,
            include_tags: config.json_include_tags_property,
            include_output_fields: config.json_include_output_fields_property,
            iso_8601: config.time_format_iso_8601,
        }
    }
}

impl Format {
    /// Appends the alert as one line, with its newline.
    pub fn write(&self, alert: &Alert, out: &mut Vec<u8>) {
        let start = out.len();
        if self.json {
            // Strings, numbers and a Vec: neither the data nor the writer can fail.
            if serde_json::to_writer(&mut *out, &Object { alert, format: *self }).is_err() {
                out.truncate(start);
                return;
            }
        } else {
            let line = self.line(alert);
            if serde_json::to_writer(&mut *out, &line).is_err() {
                out.truncate(start);
                return;
            }
            // The line is escaped as JSON but stands without the quotes.
            out.pop();
            out.remove(start);
        }
        out.push(b'\n');
    }

    /// `13:53:31.726060287: Warning MESSAGE`, not escaped.
    pub fn line(&self, alert: &Alert) -> String {
        let time = if self.iso_8601 { iso_8601(alert.time_ns, "+0000") } else { local_time(alert.time_ns) };
        format!("{time}: {} {}", alert.priority, alert.message)
    }

    fn time_field(self) -> &'static str {
        if self.iso_8601 { "evt.time.iso8601" } else { "evt.time" }
    }
}

/// Falco's object, its keys sorted.
struct Object<'a> {
    alert: &'a Alert,
    format: Format,
}

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { alert, format } = self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("hostname", &*alert.hostname)?;
        if format.include_message {
            map.serialize_entry("message", &alert.message)?;
        }
        if format.include_output {
            map.serialize_entry("output", &format.line(alert))?;
        }
        if format.include_output_fields {
            map.serialize_entry("output_fields", &Fields { alert, format: *format })?;
        }
        map.serialize_entry("priority", alert.priority.word())?;
        map.serialize_entry("rule", &*alert.rule)?;
        map.serialize_entry("source", &*alert.source)?;
        if format.include_tags {
            map.serialize_entry("tags", &*alert.tags)?;
        }
        map.serialize_entry("time", &iso_8601(alert.time_ns, "Z"))?;
        map.end()
    }
}

/// `output_fields` with the time of the prefix among them, in its place.
struct Fields<'a> {
    alert: &'a Alert,
    format: Format,
}

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let time = self.format.time_field();
        let time_ns = Value::from(self.alert.time_ns);
        let fields = &self.alert.output_fields;
        // `serde_json::Map` is sorted, unless some crate of the tree turns on `preserve_order`.
        let mut sorted: Vec<_> = fields.iter().filter(|(name, _)| *name != time).collect();
        let time = time.to_owned();
        sorted.push((&time, &time_ns));
        sorted.sort_unstable_by_key(|(name, _)| *name);
        serializer.collect_map(sorted)
    }
}

impl From<purser_rules::Priority> for Priority {
    fn from(priority: purser_rules::Priority) -> Self {
        Self::ALL[priority as usize]
    }
}

impl Priority {
    /// All, the most severe first.
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

    /// Falco's word.
    pub fn word(self) -> &'static str {
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
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl FromStr for Priority {
    type Err = String;

    /// Any case; `info` is `Informational`, as in Falco.
    fn from_str(text: &str) -> Result<Self, String> {
        let text = if text.eq_ignore_ascii_case("info") { "Informational" } else { text };
        Self::ALL.into_iter().find(|priority| priority.word().eq_ignore_ascii_case(text)).ok_or_else(|| {
            let words: Vec<_> = Self::ALL.iter().map(|priority| priority.word().to_ascii_lowercase()).collect();
            format!("unknown priority `{text}`; known are {}", words.join(", "))
        })
    }
}

/// The machine's name: `FALCO_HOSTNAME` (a pod is told its node so), else the kernel's.
pub fn hostname() -> String {
    std::env::var("FALCO_HOSTNAME").ok().filter(|name| !name.is_empty()).unwrap_or_else(|| {
        let uname = rustix::system::uname();
        uname.nodename().to_string_lossy().into_owned()
    })
}

/// `2026-01-31T13:53:31.726060287` and the zone as given.
fn iso_8601(time_ns: u64, zone: &str) -> String {
    let Ok(time) = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(time_ns)) else {
        return format!("{time_ns}{zone}"); // past the year 9999
    };
    let (year, month, day) = (time.year(), u8::from(time.month()), time.day());
    let (hour, minute, second, ns) = time.to_hms_nano();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ns:09}{zone}")
}

/// `13:53:31.726060287` in the machine's zone.
fn local_time(time_ns: u64) -> String {
    let seconds = (time_ns / 1_000_000_000) as libc::time_t;
    let mut parts = MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are to live, writable values of their types; the zeroed `tm` is valid (integers and a
    // nullable pointer), so it may be read whether or not the call succeeds. The zone's lock is glibc's own.
    let parts = unsafe {
        libc::localtime_r(&raw const seconds, parts.as_mut_ptr());
        parts.assume_init()
    };
    format!("{:02}:{:02}:{:02}.{:09}", parts.tm_hour, parts.tm_min, parts.tm_sec, time_ns % 1_000_000_000)
}
