//! How rule files are to be loaded: what exists (fields, sources, plugins) and what the configuration selects and adds.

use std::sync::Arc;

use crate::catalogue::Catalogue;
use crate::rule::Priority;

/// A rule file, read.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Its name in diagnostics, usually its path.
    pub name: &'a str,
    /// Its content.
    pub text: &'a [u8],
}

/// A version of three numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

/// Settings for [`RuleSet::load`](crate::RuleSet::load). The default is Purser's own.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Known fields; none means [`Catalogue::builtin`].
    pub catalogue: Option<Arc<Catalogue>>,
    /// Event sources that are configured.
    pub sources: Vec<String>,
    /// The version of Falco's engine that files may ask for.
    pub engine_version: Version,
    /// Plugins that files may ask for; none means that requirements are not checked.
    pub plugins: Option<Vec<(String, Version)>>,
    /// What to add to outputs.
    pub append_output: Vec<AppendOutput>,
    /// Rules less urgent than this are not evaluated.
    pub min_priority: Priority,
    /// Rules to turn on and off, applied in this order after what the files say.
    pub selection: Vec<Selection>,
}

/// Turns rules on or off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// On or off.
    pub enable: bool,
    /// Which rules.
    pub by: Selector,
}

/// Names rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// The rule with this name; all if empty.
    Exact(String),
    /// Rules with this in their name; all if empty.
    Substring(String),
    /// Rules whose name fits; `*` stands for any characters.
    Wildcard(String),
    /// Rules with any of these tags.
    Tags(Vec<String>),
}

/// Adds to the output of rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppendOutput {
    /// Only for rules of this source.
    pub source: Option<String>,
    /// Only for rules that have all these tags.
    pub tags: Vec<String>,
    /// Only for the rule with this name.
    pub rule: Option<String>,
    /// Appended to the output after a space.
    pub extra_output: Option<String>,
    /// Keys added to `output_fields`.
    pub extra_fields: Vec<ExtraFieldSpec>,
    /// Appends `name=%name` for every suggested field, dots as underscores in the name.
    pub suggested_output: bool,
}

/// A key added to `output_fields`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExtraFieldSpec {
    /// A field under its own name, as a typed value.
    Raw(String),
    /// A key with a format, as text.
    Formatted(String, String),
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            catalogue: None,
            sources: vec!["syscall".to_owned()],
            engine_version: Version(0, 63, 0),
            plugins: Some(vec![("container".to_owned(), Version(0, 7, 0))]),
            append_output: vec![AppendOutput { suggested_output: true, ..AppendOutput::default() }],
            min_priority: Priority::Debug,
            selection: Vec::new(),
        }
    }
}

impl Version {
    /// Reads `1.2.3`. What follows the three numbers, as in `1.2.3-rc1`, does not count.
    pub fn parse(text: &str) -> Option<Self> {
        let (major, rest) = text.split_once('.')?;
        let (minor, rest) = rest.split_once('.')?;
        let end = rest.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
        let number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok()).flatten();
        Some(Self(number(major)?, number(minor)?, number(&rest[..end])?))
    }
}
