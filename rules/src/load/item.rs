//! The items of rule files as read: lists, macros, rules, requirements.

use std::collections::HashMap;

use super::yaml::Place;
use crate::rule::Priority;

/// Where an item or a part of it is.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Origin {
    /// Number of the source.
    pub(crate) file: usize,
    pub(crate) at: Place,
}

/// Place in the order of definitions, and from where others are seen.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Order {
    /// Number of the first definition.
    pub(crate) index: usize,
    /// Number of the last change.
    pub(crate) visibility: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct List {
    pub(crate) name: String,
    pub(crate) items: Vec<String>,
    pub(crate) order: Order,
    pub(crate) origin: Origin,
}

#[derive(Clone, Debug)]
pub(crate) struct Macro {
    pub(crate) name: String,
    pub(crate) condition: String,
    pub(crate) order: Order,
    pub(crate) origin: Origin,
    pub(crate) condition_origin: Origin,
    /// Where in `condition` each part begins that was appended, and where that part is.
    pub(crate) appended: Vec<(usize, Origin)>,
}

#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "the keys of a rule")]
pub(crate) struct RuleItem {
    pub(crate) name: String,
    pub(crate) condition: String,
    pub(crate) output: String,
    pub(crate) desc: String,
    pub(crate) priority: Priority,
    pub(crate) source: String,
    pub(crate) enabled: bool,
    pub(crate) capture: bool,
    pub(crate) capture_duration: u32,
    pub(crate) warn_evttypes: bool,
    pub(crate) skip_if_unknown_filter: bool,
    pub(crate) tags: std::collections::BTreeSet<String>,
    pub(crate) exceptions: Exceptions,
    pub(crate) order: Order,
    pub(crate) origin: Origin,
    pub(crate) condition_origin: Origin,
    pub(crate) output_origin: Origin,
    /// Where in `condition` each part begins that was appended, and where that part is.
    pub(crate) appended: Vec<(usize, Origin)>,
    pub(crate) unknown_source: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Exception {
    pub(crate) name: String,
    pub(crate) fields: Option<Entry>,
    pub(crate) comps: Option<Entry>,
    pub(crate) values: Vec<Entry>,
    pub(crate) origin: Origin,
}

/// Exceptions of a rule, in order and by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Exceptions {
    all: Vec<Exception>,
    /// The first with a name.
    by_name: HashMap<String, usize>,
}

impl Exceptions {
    pub(crate) fn new(all: Vec<Exception>) -> Self {
        let mut exceptions = Self::default();
        for exception in all {
            exceptions.push(exception);
        }
        exceptions
    }

    pub(crate) fn push(&mut self, exception: Exception) {
        self.by_name.entry(exception.name.clone()).or_insert(self.all.len());
        self.all.push(exception);
    }

    pub(crate) fn get_mut(&mut self, name: &str) -> Option<&mut Exception> {
        self.by_name.get(name).and_then(|at| self.all.get_mut(*at))
    }

    /// To change them, but for their names.
    pub(crate) fn all_mut(&mut self) -> &mut [Exception] {
        &mut self.all
    }

    pub(crate) fn all(&self) -> &[Exception] {
        &self.all
    }
}

/// A scalar or a list of entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    One(String),
    Many(Vec<Self>),
}

impl Entry {
    /// Whether it says anything.
    pub(crate) fn is_given(&self) -> bool {
        match self {
            Self::One(text) => !text.is_empty(),
            Self::Many(items) => !items.is_empty(),
        }
    }

    /// Without blanks around its texts.
    pub(crate) fn trimmed(self) -> Self {
        match self {
            Self::One(text) => Self::One(text.trim_matches(BLANKS).to_owned()),
            Self::Many(items) => Self::Many(items.into_iter().map(Self::trimmed).collect()),
        }
    }
}

/// White space as the C library sees it.
pub(crate) const BLANKS: [char; 6] = [' ', '\t', '\n', '\r', '\u{b}', '\u{c}'];
