//! Times as text.

use time::{OffsetDateTime, UtcOffset};

use crate::catalogue::FieldId;

/// Local time's distance from UTC. Fixed when the agent starts: asking the C library for the time zone is not safe with
/// several threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// What to add to UTC.
    pub offset: UtcOffset,
}

impl Default for Clock {
    fn default() -> Self {
        Self { offset: UtcOffset::UTC }
    }
}

/// A time in ISO 8601, UTC, with nanoseconds and `suffix`.
pub fn iso8601(ns: u64, suffix: &str) -> String {
    let at = at(ns, UtcOffset::UTC);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:09}{suffix}",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second(),
        at.nanosecond()
    )
}

/// The moment `ns` nanoseconds after the epoch; every u64 is within the range of the calendar.
pub(super) fn at(ns: u64, offset: UtcOffset) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(ns)).unwrap_or(OffsetDateTime::UNIX_EPOCH).to_offset(offset)
}

/// The text of a clock field (`evt.time`, `evt.datetime` ...) for a time.
pub fn time_text(field: FieldId, ns: u64, clock: Clock) -> String {
    if field == FieldId::EVT_TIME_ISO8601 {
        return iso8601(ns, "+0000");
    }
    let at = at(ns, clock.offset);
    let date = matches!(field, FieldId::EVT_DATETIME | FieldId::EVT_DATETIME_S);
    let mut out = String::new();
    if date {
        out.push_str(&format!("{:04}-{:02}-{:02} ", at.year(), u8::from(at.month()), at.day()));
    }
    out.push_str(&format!("{:02}:{:02}:{:02}", at.hour(), at.minute(), at.second()));
    if !matches!(field, FieldId::EVT_TIME_S | FieldId::EVT_DATETIME_S) {
        out.push_str(&format!(".{:09}", at.nanosecond()));
    }
    out
}
