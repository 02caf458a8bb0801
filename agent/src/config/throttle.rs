//! The section `throttle`: which alerts are folded into a count. What it means is done by `crate::throttle`.

use std::time::Duration;

use purser_rules::{Catalogue, FieldId, format::Format};
use serde::{Deserialize, Deserializer};

use super::schema::{self, Value, sections};
use super::{MinimumPriority, Span};
use crate::alert::Priority;

/// A summary that comes later is of no use to anyone.
const LONGEST_WINDOW: Duration = Duration::from_hours(24);
const MOST_FIELDS: usize = 16;
const LONGEST_FIELD: usize = 512;

sections! {
    /// Folding of alerts.
    Throttle {
        /// A rate limit. Off by default, as is `dedup`: what may be missed is for the owner of the machine to say, and a
        /// stream that was made for Falco stays as it was.
        rate: RateLimit = RateLimit::default(),
        /// De-duplication. It comes first: what it folds does not count for the rate limit.
        dedup: Dedup = Dedup::default(),
        /// Alerts of this priority and above are never folded; `none` folds those, too. Critical, as nobody should hear
        /// of the second break-in by a number.
        exempt_priority: ExemptPriority = ExemptPriority(Some(Priority::Critical)),
        /// How many windows may be open for the rate limit, and as many for de-duplication. On overflow the one that would
        /// end first ends at once, with its summary, and is counted; its key begins anew.
        max_keys: u32 = 4096,
        /// Other values for some rules; where several entries name a rule, the last one that has the key wins.
        rules: Vec<ThrottleRule> = Vec::new(),
    }

    /// At most so many alerts.
    RateLimit {
        /// Alerts of one rule and one key that are raised in a window; the others are folded. 0: no limit.
        alerts: u32 = 0,
        /// The length of a window, at most 1d. It begins with its first alert and does not slide.
        window: Span = Span(Duration::from_mins(1)),
        /// The fields that are counted together. The rule always is part of the key: `[]` is one limit for each rule. A field
        /// that has no value counts as a value of its own.
        key: Vec<String> = vec!["container.id".to_owned()],
    }

    /// One alert of several that say the same.
    Dedup {
        /// The length of a window, at most 1d: the first alert of a key is raised and begins it, the others of the same rule
        /// and key are folded until it ends. 0s: off.
        window: Span = Span(Duration::ZERO),
        /// The fields that make two alerts of a rule the same.
        key: Vec<String> = ["container.id", "proc.exepath", "fd.name"].map(str::to_owned).to_vec(),
    }

    /// Other values for the rules of a name or a tag: exactly one of `rule` and `tag`.
    ThrottleRule {
        /// The rule's name; `*` matches any run of characters.
        rule: Option<String> = None,
        /// A tag.
        tag: Option<String> = None,
        /// Keys of `throttle.rate`; those that are not given stay.
        rate: RateOverride = RateOverride::default(),
        /// Keys of `throttle.dedup`; those that are not given stay.
        dedup: DedupOverride = DedupOverride::default(),
        /// As `throttle.exempt_priority`.
        exempt_priority: Option<ExemptPriority> = None,
    }

    /// Keys of `throttle.rate`.
    RateOverride {
        /// As `throttle.rate.alerts`.
        alerts: Option<u32> = None,
        /// As `throttle.rate.window`.
        window: Option<Span> = None,
        /// As `throttle.rate.key`.
        key: Option<Vec<String>> = None,
    }

    /// Keys of `throttle.dedup`.
    DedupOverride {
        /// As `throttle.dedup.window`.
        window: Option<Span> = None,
        /// As `throttle.dedup.key`.
        key: Option<Vec<String>> = None,
    }
}

/// The least urgent priority that is never folded; `None`: all may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExemptPriority(pub Option<Priority>);

impl Throttle {
    /// What holds for a rule of this name and these tags.
    pub fn of_rule(&self, name: &str, tags: &[String]) -> (RateLimit, Dedup, ExemptPriority) {
        let (mut rate, mut dedup, mut exempt) = (self.rate.clone(), self.dedup.clone(), self.exempt_priority);
        let named = |entry: &&ThrottleRule| {
            entry.rule.as_ref().is_some_and(|pattern| purser_rules::matches_wildcard(pattern, name))
                || entry.tag.as_ref().is_some_and(|tag| tags.contains(tag))
        };
        for entry in self.rules.iter().filter(named) {
            rate.alerts = entry.rate.alerts.unwrap_or(rate.alerts);
            rate.window = entry.rate.window.unwrap_or(rate.window);
            rate.key = entry.rate.key.clone().unwrap_or(rate.key);
            dedup.window = entry.dedup.window.unwrap_or(dedup.window);
            dedup.key = entry.dedup.key.clone().unwrap_or(dedup.key);
            exempt = entry.exempt_priority.unwrap_or(exempt);
        }
        (rate, dedup, exempt)
    }

    /// Whether no rule at all can be folded.
    pub fn is_off(&self) -> bool {
        let mut alerts = self.rules.iter().filter_map(|entry| entry.rate.alerts).chain([self.rate.alerts]);
        let mut windows = self.rules.iter().filter_map(|entry| entry.dedup.window).chain([self.dedup.window]);
        alerts.all(|alerts| alerts == 0) && windows.all(|window| window.0.is_zero())
    }

    /// The first key that is wrong, and what is allowed there.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        if !(1..=1 << 20).contains(&self.max_keys) {
            return Err(("throttle.max_keys", "must be from 1 to 1048576".to_owned()));
        }
        window("throttle.rate.window", self.rate.window, false)?;
        window("throttle.dedup.window", self.dedup.window, true)?;
        key("throttle.rate.key", &self.rate.key)?;
        key("throttle.dedup.key", &self.dedup.key)?;
        for entry in &self.rules {
            if entry.rule.is_some() == entry.tag.is_some() {
                return Err(("throttle.rules", "each item has either `rule:` or `tag:`".to_owned()));
            }
            window("throttle.rules.rate.window", entry.rate.window.unwrap_or(self.rate.window), false)?;
            window("throttle.rules.dedup.window", entry.dedup.window.unwrap_or(self.dedup.window), true)?;
            key("throttle.rules.rate.key", entry.rate.key.as_deref().unwrap_or_default())?;
            key("throttle.rules.dedup.key", entry.dedup.key.as_deref().unwrap_or_default())?;
        }
        Ok(())
    }
}

fn window(place: &'static str, window: Span, may_be_zero: bool) -> Result<(), (&'static str, String)> {
    if window.0 > LONGEST_WINDOW {
        return Err((place, format!("{window} is longer than 1d: the summary comes at the window's end")));
    }
    if window.0.is_zero() && !may_be_zero {
        return Err((place, "must be longer than 0; `alerts: 0` lifts the limit".to_owned()));
    }
    Ok(())
}

fn key(place: &'static str, fields: &[String]) -> Result<(), (&'static str, String)> {
    if fields.len() > MOST_FIELDS {
        return Err((place, format!("has {} fields; at most {MOST_FIELDS} are allowed", fields.len())));
    }
    for field in fields {
        if field.len() > LONGEST_FIELD {
            return Err((place, format!("has a name of {} bytes; at most {LONGEST_FIELD} are allowed", field.len())));
        }
        let catalogue = Catalogue::builtin();
        let Ok(format) = Format::field(field, catalogue) else {
            let advice = match catalogue.nearest(field) {
                _ if field == "rule" => "; the rule always is part of the key".to_owned(),
                Some(near) => format!("; the nearest is `{near}`"),
                None => "; `purser rules fields` lists them".to_owned(),
            };
            return Err((place, format!("`{}` is not a field{advice}", schema::printable(field))));
        };
        if format.fields().iter().any(|id| matches!(*id, FieldId::PROC_ENV | FieldId::PROC_AENV)) {
            return Err((place, format!("`{field}`: the environment is collected for rules alone")));
        }
    }
    Ok(())
}

impl std::str::FromStr for ExemptPriority {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        if word.eq_ignore_ascii_case("none") {
            return Ok(Self(None));
        }
        word.parse().map(|MinimumPriority(priority)| Self(Some(priority)))
    }
}

impl Value for ExemptPriority {
    fn kind() -> String {
        format!("{} \\| `none`", MinimumPriority::kind())
    }

    fn show(&self) -> String {
        self.0.map_or_else(|| "none".to_owned(), |priority| MinimumPriority(priority).show())
    }
}

impl<'de> Deserialize<'de> for ExemptPriority {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        schema::parsed(deserializer, "a priority such as `critical`, or `none`")
    }
}
