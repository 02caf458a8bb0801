//! What the files define so far, by name and in order of first definition, and what was found to say about it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::item::{List, Macro, Order, Origin, RuleItem};
use super::warnings::Warnings;
use crate::catalogue::Catalogue;
use crate::compile::known_operand;
use crate::diagnostic::Code;
use crate::options::Version;
use crate::parse;
use crate::program::Graph;
use crate::ruleset::MAX_ERRORS;

/// An error or warning before its place is looked up in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) code: Code,
    pub(crate) message: String,
    pub(crate) origin: Origin,
    pub(crate) context: Vec<(&'static str, String)>,
    /// The exact spot, where it is known.
    pub(crate) spot: Option<Origin>,
    /// Kind and name of what does not exist, if that is the trouble.
    pub(crate) missing: Option<Box<(&'static str, String)>>,
}

impl Trouble {
    pub(crate) fn new(code: Code, message: String, origin: Origin) -> Self {
        Self { code, message, origin, context: Vec::new(), spot: None, missing: None }
    }
}

/// Everything the files define.
#[derive(Debug)]
pub(crate) struct Collection {
    lists: Vec<List>,
    macros: Vec<Macro>,
    rules: Vec<RuleItem>,
    list_names: HashMap<String, usize>,
    macro_names: HashMap<String, usize>,
    rule_names: HashMap<String, usize>,
    counter: usize,
    catalogue: Arc<Catalogue>,
    pub(crate) required_engine: Option<Version>,
    pub(crate) required_plugins: Vec<Vec<(String, Version)>>,
    pub(crate) warnings: Warnings,
    /// Set where all errors are wanted and not the first alone.
    pub(crate) recovery: Option<Recovery>,
}

/// Goes on after errors, without reporting what they cause.
#[derive(Debug, Default)]
pub(crate) struct Recovery {
    pub(crate) errors: Vec<Trouble>,
    /// Kind and name of items that are not there because of an error.
    broken: HashSet<(&'static str, String)>,
    /// A whole file could not be read: anything may be missing.
    unread: bool,
}

impl Recovery {
    /// Notes an error of an item, unless another error causes it. Gives it back when there are too many.
    pub(crate) fn note(&mut self, trouble: Trouble, kind: &'static str, name: String) -> Result<(), Trouble> {
        let caused = trouble.missing.as_ref().is_some_and(|missing| self.unread || self.broken.contains(missing));
        self.broken.insert((kind, name));
        if caused || self.errors.contains(&trouble) {
            return Ok(());
        }
        if self.errors.len() + 1 >= MAX_ERRORS {
            return Err(trouble);
        }
        self.errors.push(trouble);
        Ok(())
    }

    /// Notes that a whole file could not be read.
    pub(crate) fn unread(&mut self) {
        self.unread = true;
    }
}

impl Collection {
    pub(crate) fn new(catalogue: Arc<Catalogue>) -> Self {
        Self {
            lists: Vec::new(),
            macros: Vec::new(),
            rules: Vec::new(),
            list_names: HashMap::new(),
            macro_names: HashMap::new(),
            rule_names: HashMap::new(),
            counter: 0,
            catalogue,
            required_engine: None,
            required_plugins: Vec::new(),
            warnings: Warnings::default(),
            recovery: None,
        }
    }

    pub(crate) fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    pub(crate) fn lists(&self) -> &[List] {
        &self.lists
    }

    pub(crate) fn macros(&self) -> &[Macro] {
        &self.macros
    }

    pub(crate) fn rules(&self) -> &[RuleItem] {
        &self.rules
    }

    pub(crate) fn list(&self, name: &str) -> Option<usize> {
        self.list_names.get(name).copied()
    }

    pub(crate) fn list_mut(&mut self, name: &str) -> Option<&mut List> {
        self.list_names.get(name).map(|at| &mut self.lists[*at])
    }

    pub(crate) fn macro_mut(&mut self, name: &str) -> Option<&mut Macro> {
        self.macro_names.get(name).map(|at| &mut self.macros[*at])
    }

    pub(crate) fn rule_mut(&mut self, name: &str) -> Option<&mut RuleItem> {
        self.rule_names.get(name).map(|at| &mut self.rules[*at])
    }

    pub(crate) fn add_list(&mut self, list: List) {
        self.list_names.insert(list.name.clone(), self.lists.len());
        self.lists.push(list);
    }

    pub(crate) fn add_macro(&mut self, item: Macro) {
        self.macro_names.insert(item.name.clone(), self.macros.len());
        self.macros.push(item);
    }

    pub(crate) fn add_rule(&mut self, rule: RuleItem) {
        self.rule_names.insert(rule.name.clone(), self.rules.len());
        self.rules.push(rule);
    }

    /// An item cannot be used: the end of loading, unless all errors are wanted.
    pub(crate) fn failed(&mut self, trouble: Trouble, kind: &'static str, name: String) -> Result<(), Trouble> {
        match &mut self.recovery {
            Some(recovery) => recovery.note(trouble, kind, name),
            None => Err(trouble),
        }
    }

    /// The macro called `name`.
    pub(crate) fn find_macro(&self, name: &str) -> Option<&Macro> {
        self.macro_names.get(name).map(|at| &self.macros[*at])
    }

    /// The next number of the running counter, for a first definition.
    pub(crate) fn next_order(&mut self) -> Order {
        self.counter += 1;
        Order { index: self.counter, visibility: self.counter }
    }

    /// Whether a text names a field, or is something in parentheses that can be asked whether it exists.
    pub(crate) fn is_field(&self, text: &str) -> bool {
        if text.contains('(') {
            let condition = format!("{text} exists");
            return parse::parse(condition.as_bytes(), parse::MAX_DEPTH)
                .is_ok_and(|expr| Graph::default().add(&expr, &self.catalogue, &mut Vec::new()).is_ok());
        }
        parse::parse_operand_prefix(text.as_bytes(), true)
            .is_ok_and(|(operand, length)| length == text.len() && known_operand(&operand, &self.catalogue).is_some())
    }

    pub(crate) fn warn(&mut self, code: Code, message: String, origin: Origin, kind: &'static str, name: &str) {
        self.warn_in(code, message, origin, &[(kind, name)]);
    }

    pub(crate) fn warn_in(&mut self, code: Code, message: String, origin: Origin, context: &[(&'static str, &str)]) {
        let context =
            context.iter().filter(|(kind, _)| !kind.is_empty()).map(|(kind, name)| (*kind, (*name).to_owned()));
        let context = context.collect();
        self.warnings.push(Trouble { context, ..Trouble::new(code, message, origin) });
    }
}
