//! An alert on its way to the sinks, and its line there: Falco's text or Falco's JSON object. It is never fed back into
//! the pipeline, and it knows nothing of where it goes.

use std::mem::MaybeUninit;
use std::sync::{Arc, Mutex, PoisonError};

use purser_rules::{AlertOptions, format::Clock};
use uuid::Uuid;

use crate::config::Config;

pub use purser_rules::Priority;

/// What a rule raised. Sinks share it (`Arc<Alert>`).
#[derive(Debug, Clone, PartialEq)]
pub struct Alert {
    /// UUID version 7: the alert's name for ever, also when it is sent twice.
    pub id: Uuid,
    /// Running number since the agent's start, from 1; a gap is a loss.
    pub sequence: u64,
    /// What the rule said.
    pub raised: purser_rules::Alert,
}

/// Gives each alert its id and number.
#[derive(Debug, Default)]
pub struct Numbering {
    last: u64,
}

impl Numbering {
    /// The next alert.
    pub fn number(&mut self, raised: purser_rules::Alert) -> Alert {
        self.last += 1;
        Alert { id: Uuid::now_v7(), sequence: self.last, raised }
    }
}

/// How alerts are written.
#[derive(Debug, Clone)]
pub struct Format {
    /// `json_output`
    pub json: bool,
    /// Falco's other switches.
    pub options: AlertOptions,
}

impl From<&Config> for Format {
    fn from(config: &Config) -> Self {
        Self { json: config.json_output, options: options(config) }
    }
}

impl Format {
    /// Appends the alert as one line, with its newline.
    pub fn write(&self, alert: &Alert, out: &mut Vec<u8>) {
        self.write_raised(&alert.raised, out);
    }

    /// The same of an alert that has no number: it is not in the line.
    pub fn write_raised(&self, alert: &purser_rules::Alert, out: &mut Vec<u8>) {
        let start = out.len();
        let written = if self.json {
            serde_json::to_writer(&mut *out, &alert.to_json(&self.options))
        } else {
            // Escaped as JSON, so that no container can break the line or drive the terminal, but without the quotes.
            serde_json::to_writer(&mut *out, &alert.output).map(|()| {
                out.pop();
                out.remove(start);
            })
        };
        // Strings, numbers and a Vec: neither the data nor the writer can fail.
        debug_assert!(written.is_ok());
        escape(out, start);
        out.push(b'\n');
    }
}

/// Escapes what JSON lets through and a terminal may act on: in JSON it stands inside strings, where it means the same.
fn escape(out: &mut Vec<u8>, start: usize) {
    // The first bytes of what there is to escape; most lines have none.
    let Some(first) = out[start..].iter().position(|byte| matches!(byte, 0x7f | 0xc2 | 0xd8 | 0xe2)) else { return };
    let tail = out.split_off(start + first);
    for c in String::from_utf8_lossy(&tail).chars() {
        if is_harmless(c) {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        } else {
            out.extend_from_slice(format!("\\u{:04x}", u32::from(c)).as_bytes());
        }
    }
}

/// Whether a character neither drives a terminal, nor breaks a line, nor turns the order of letters round.
pub fn is_harmless(c: char) -> bool {
    let turns = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let breaks = matches!(c, '\u{2028}' | '\u{2029}');
    !(c.is_control() || turns || breaks)
}

/// The format that sinks write in now; a clone follows the same one.
#[derive(Debug, Clone)]
pub struct LiveFormat(Arc<Mutex<Arc<Format>>>);

impl LiveFormat {
    /// The format.
    pub fn get(&self) -> Arc<Format> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Another one, from the next batch of each sink on.
    pub fn set(&self, format: Format) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(format);
    }
}

impl From<Format> for LiveFormat {
    fn from(format: Format) -> Self {
        Self(Arc::new(Mutex::new(Arc::new(format))))
    }
}

/// An alert of the agent itself; the text begins with `rule`.
pub fn internal(
    rule: &str,
    priority: Priority,
    text: &str,
    output_fields: serde_json::Map<String, serde_json::Value>,
    time_ns: u64,
    options: &AlertOptions,
) -> purser_rules::Alert {
    let message = format!("{rule}: {text}");
    purser_rules::Alert {
        rule: rule.to_owned(),
        priority,
        source: INTERNAL.to_owned(),
        tags: Vec::new(),
        time_ns,
        output: format!("{}: {} {message}", time(options, time_ns), priority.name()),
        message,
        output_fields,
    }
}

/// The source of such alerts.
pub const INTERNAL: &str = "internal";

/// The time at the start of the text, as an alert of a rule has it.
fn time(options: &AlertOptions, time_ns: u64) -> String {
    if options.time_format_iso_8601 {
        return purser_rules::format::iso8601(time_ns, "+0000");
    }
    purser_rules::format::time_text(purser_rules::FieldId::EVT_TIME, time_ns, options.clock)
}

/// How the rules crate is to word alerts, with this machine's name and time zone.
pub fn options(config: &Config) -> AlertOptions {
    AlertOptions {
        hostname: hostname(),
        time_format_iso_8601: config.time_format_iso_8601,
        clock: clock(),
        json_include_output_property: config.json_include_output_property,
        json_include_tags_property: config.json_include_tags_property,
        json_include_message_property: config.json_include_message_property,
        json_include_output_fields_property: config.json_include_output_fields_property,
    }
}

/// The machine's name: `FALCO_HOSTNAME` (a pod is told its node so), else the kernel's.
pub fn hostname() -> String {
    std::env::var("FALCO_HOSTNAME").ok().filter(|name| !name.is_empty()).unwrap_or_else(|| {
        let uname = rustix::system::uname();
        uname.nodename().to_string_lossy().into_owned()
    })
}

/// The machine's distance from UTC now; summer time moves it, so a long-running caller asks again.
pub fn clock() -> Clock {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec;
    let mut parts = MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are to live, writable values of their types. Nothing in the agent changes the environment,
    // which is what `localtime_r` reads the zone from.
    let known = !unsafe { libc::localtime_r(&raw const now, parts.as_mut_ptr()) }.is_null();
    // SAFETY: integers and a nullable pointer: the zeroed value is valid, whether or not the call wrote it.
    let seconds = unsafe { parts.assume_init() }.tm_gmtoff;
    let offset = i32::try_from(seconds).ok().filter(|_| known);
    offset
        .and_then(|seconds| time::UtcOffset::from_whole_seconds(seconds).ok())
        .map_or_else(Clock::default, |offset| Clock { offset })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(output: &str) -> Alert {
        let json = serde_json::json!({"evt.time": 1_700_000_000_123_456_789_u64, "proc.name": "cat", "fd.name": null});
        Numbering::default().number(purser_rules::Alert {
            rule: "Read \"it\"".to_owned(),
            priority: Priority::Informational,
            source: "syscall".to_owned(),
            tags: vec!["a".to_owned(), "b".to_owned()],
            time_ns: 1_700_000_000_123_456_789,
            output: output.to_owned(),
            message: "m".to_owned(),
            output_fields: json.as_object().cloned().unwrap_or_default(),
        })
    }

    fn line(format: &Format, alert: &Alert) -> String {
        let mut out = b"before\n".to_vec();
        format.write(alert, &mut out);
        String::from_utf8(out).expect("UTF-8").strip_prefix("before\n").expect("appended").to_owned()
    }

    fn format(json: bool) -> Format {
        Format { json, options: AlertOptions { hostname: "node".to_owned(), ..AlertOptions::default() } }
    }

    #[test]
    fn text_is_one_escaped_line() {
        let hostile = "22:13:20.123456789: Informational a\nb\r\u{1b}[31m\"q\"\\ \u{fffd}é";
        assert_eq!(
            line(&format(false), &alert(hostile)),
            "22:13:20.123456789: Informational a\\nb\\r\\u001b[31m\\\"q\\\"\\\\ \u{fffd}é\n"
        );
    }

    #[test]
    fn nothing_in_a_line_drives_a_terminal_or_turns_letters_round() {
        let hostile = "a\u{7f}\u{9b}31m\u{202e}\u{2028}\u{61c}\u{2066}é日";
        let alert = alert(hostile);
        assert_eq!(line(&format(false), &alert), "a\\u007f\\u009b31m\\u202e\\u2028\\u061c\\u2066é日\n");
        let json = line(&format(true), &alert);
        assert!(json.trim_end().chars().all(is_harmless), "{json:?}");
        let object: serde_json::Value = serde_json::from_str(&json).expect("one object");
        assert_eq!(object["output"], hostile, "the same text");
    }

    #[test]
    fn json_is_falcos_object_key_by_key() {
        assert_eq!(
            line(&format(true), &alert("text \"line\"")),
            concat!(
                r#"{"hostname":"node","output":"text \"line\"","output_fields":{"evt.time":1700000000123456789,"#,
                r#""fd.name":null,"proc.name":"cat"},"priority":"Informational","rule":"Read \"it\"","#,
                r#""source":"syscall","tags":["a","b"],"time":"2023-11-14T22:13:20.123456789Z"}"#,
                "\n"
            )
        );
    }

    #[test]
    fn each_switch_moves_its_own_key() {
        let mut config = Config { json_output: true, ..Config::default() };
        let keys = |config: &Config| -> Vec<String> {
            let object: serde_json::Map<String, serde_json::Value> =
                serde_json::from_str(&line(&Format::from(config), &alert("x"))).expect("an object");
            object.keys().cloned().collect()
        };
        let all = keys(&config);
        assert_eq!(all, ["hostname", "output", "output_fields", "priority", "rule", "source", "tags", "time"]);
        config.json_include_output_property = false;
        assert!(!keys(&config).contains(&"output".to_owned()));
        config.json_include_tags_property = false;
        assert!(!keys(&config).contains(&"tags".to_owned()));
        config.json_include_output_fields_property = false;
        assert!(!keys(&config).contains(&"output_fields".to_owned()));
        config.json_include_message_property = true;
        assert_eq!(keys(&config), ["hostname", "message", "priority", "rule", "source", "time"]);
    }

    #[test]
    fn ids_are_version_7_rising_and_numbers_have_no_gap() {
        let mut numbering = Numbering::default();
        let template = alert("x").raised;
        let alerts: Vec<_> = (0..1000).map(|_| numbering.number(template.clone())).collect();
        assert!(alerts.iter().all(|alert| alert.id.get_version_num() == 7));
        assert!(alerts.windows(2).all(|pair| pair[0].id < pair[1].id && pair[0].sequence + 1 == pair[1].sequence));
    }
}
