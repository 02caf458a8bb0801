//! Falco's rule language: read rule files, check and compile them, evaluate events, print alerts.
//!
//! The crate knows nothing of eBPF, containers or files: an event is whatever implements [`Facts`]. It can be tested,
//! fuzzed and measured without privileges.

#![allow(clippy::format_push_string, reason = "texts for people, off the hot path")]
#![allow(clippy::single_match_else, reason = "both arms of equal weight read better as a match")]

pub mod alert;
pub mod cases;
pub mod catalogue;
mod compile;
pub mod diagnostic;
mod eval;
pub mod event;
mod facts;
pub mod format;
mod load;
mod matches;
mod nearest;
mod needs;
mod options;
pub mod parse;
mod program;
mod rule;
mod ruleset;
mod select;
mod types;

/// Purser's own rules: name and text of each file, in the order in which they are loaded.
pub const DEFAULT_RULES: &[(&str, &str)] = &[
    ("supply-chain.yaml", include_str!("../rulesets/supply-chain.yaml")),
    ("runtime.yaml", include_str!("../rulesets/runtime.yaml")),
];

/// Purser's own rules, ready to be loaded.
pub fn default_sources() -> Vec<Source<'static>> {
    DEFAULT_RULES.iter().map(|(name, text)| Source { name, text: text.as_bytes() }).collect()
}

pub use alert::{Alert, AlertOptions};
pub use catalogue::{Catalogue, Field, FieldId};
pub use compile::{CompileError, Hint, service_name};
pub use diagnostic::{Code, Diagnostic};
pub use eval::{PathSet, TransformError, transform_type, transform_values};
pub use event::{EventCode, EventSet};
pub use facts::{Arg, Fact, Facts, FieldRef, Reason, Value};
pub use load::{Definitions, Schema, check_schema, plugins_satisfy, resolve_macros, suspicions, too_deep};
pub use matches::{Decision, Matches, Outcome, RuleMatching};
pub use nearest::nearest;
pub use needs::{Needs, Opens};
pub use options::{AppendOutput, ExtraFieldSpec, LoadOptions, Selection, Selector, Source, Version};
pub use program::{EventsError, condition_events};
pub use rule::{Priority, Rule, RuleIndex};
pub use ruleset::{Checked, Filter, LoadError, MAX_ERRORS, Reading, RuleSet};
pub use select::matches_wildcard;
pub use types::{Class, PrintFormat, Type};
