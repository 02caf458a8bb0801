//! Alerts in Falco's shape: the text line and the JSON object.

use serde_json::{Map, Value as Json};

use crate::format::{Clock, iso8601, time_text};
use crate::{FieldId, Rule};

/// How alerts look.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "Falco's own switches")]
pub struct AlertOptions {
    /// Host name in the JSON object.
    pub hostname: String,
    /// The text begins with the time in ISO 8601, UTC, instead of the local clock time.
    pub time_format_iso_8601: bool,
    /// Local time in which the text begins; what an event's facts say of it ([`Facts::clock`](crate::Facts::clock)) should
    /// be the same.
    pub clock: Clock,
    /// JSON has `output`.
    pub json_include_output_property: bool,
    /// JSON has `tags`.
    pub json_include_tags_property: bool,
    /// JSON has `message`, the output without time and priority.
    pub json_include_message_property: bool,
    /// JSON has `output_fields`.
    pub json_include_output_fields_property: bool,
}

/// A rule that fired on an event.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    /// Name of the rule.
    pub rule: String,
    /// Its priority.
    pub priority: crate::Priority,
    /// The event source.
    pub source: String,
    /// The rule's tags, ordered.
    pub tags: Vec<String>,
    /// Nanoseconds since the epoch.
    pub time_ns: u64,
    /// The line: time, priority, message.
    pub output: String,
    /// The message without time and priority.
    pub message: String,
    /// The values of the fields in the output.
    pub output_fields: Map<String, Json>,
}

impl Default for AlertOptions {
    fn default() -> Self {
        Self {
            hostname: String::new(),
            time_format_iso_8601: false,
            clock: Clock::default(),
            json_include_output_property: true,
            json_include_tags_property: true,
            json_include_message_property: false,
            json_include_output_fields_property: true,
        }
    }
}

impl Alert {
    /// An alert of a rule: the line gets time and priority, `output_fields` get the time if they do not have it.
    pub fn new(
        rule: &Rule,
        time_ns: u64,
        message: &str,
        mut output_fields: Map<String, Json>,
        options: &AlertOptions,
    ) -> Self {
        let (time_key, time) = if options.time_format_iso_8601 {
            ("evt.time.iso8601", iso8601(time_ns, "+0000"))
        } else {
            ("evt.time", time_text(FieldId::EVT_TIME, time_ns, options.clock))
        };
        output_fields.entry(time_key).or_insert_with(|| Json::from(time_ns));
        Self {
            rule: rule.name.clone(),
            priority: rule.priority,
            source: rule.source.clone(),
            tags: rule.tags.clone(),
            time_ns,
            output: escaped(&format!("{time}: {} {message}", rule.priority.name())),
            message: escaped(message),
            output_fields,
        }
    }

    /// The JSON object; keys are sorted.
    pub fn to_json(&self, options: &AlertOptions) -> Map<String, Json> {
        let mut object = Map::new();
        object.insert("hostname".to_owned(), options.hostname.as_str().into());
        if options.json_include_message_property {
            object.insert("message".to_owned(), self.message.as_str().into());
        }
        if options.json_include_output_property {
            object.insert("output".to_owned(), self.output.as_str().into());
        }
        if options.json_include_output_fields_property {
            object.insert("output_fields".to_owned(), Json::Object(self.output_fields.clone()));
        }
        object.insert("priority".to_owned(), self.priority.name().into());
        object.insert("rule".to_owned(), self.rule.as_str().into());
        object.insert("source".to_owned(), self.source.as_str().into());
        if options.json_include_tags_property {
            object.insert("tags".to_owned(), self.tags.clone().into());
        }
        object.insert("time".to_owned(), iso8601(self.time_ns, "Z").into());
        object
    }
}

/// The text with control characters, quotes and backslashes escaped as in JSON.
fn escaped(text: &str) -> String {
    let quoted = Json::from(text).to_string();
    quoted.get(1..quoted.len() - 1).unwrap_or_default().to_owned()
}
