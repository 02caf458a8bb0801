//! Alerts in Falco's shape: the text line and the JSON object.

use serde_json::{Map, Value as Json};

use crate::format::Clock;

/// How alerts look.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "Falco's own switches")]
pub struct AlertOptions {
    /// Host name in the JSON object.
    pub hostname: String,
    /// The text begins with the time in ISO 8601, UTC, instead of the local clock time.
    pub time_format_iso_8601: bool,
    /// Local time's distance from UTC.
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
        object.insert("time".to_owned(), crate::format::iso8601(self.time_ns, "Z").into());
        object
    }
}
