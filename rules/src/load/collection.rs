//! What the files define so far, by name and in order of first definition, and what was found to say about it.

use std::collections::HashMap;
use std::sync::Arc;

use super::item::{List, Macro, Order, Origin, RuleItem};
use super::report::{Trouble, Warnings};
use crate::catalogue::Catalogue;
use crate::compile::known_operand;
use crate::diagnostic::Code;
use crate::options::Version;
use crate::parse;

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
    pub(super) warnings: Warnings,
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

    /// The next number of the running counter, for a first definition.
    pub(crate) fn next_order(&mut self) -> Order {
        self.counter += 1;
        Order { index: self.counter, visibility: self.counter }
    }

    /// Whether a text names a field, or a transformed one.
    pub(crate) fn is_field(&self, text: &str) -> bool {
        parse::parse_operand_prefix(text.as_bytes(), true)
            .is_ok_and(|(operand, length)| length == text.len() && known_operand(&operand, &self.catalogue).is_some())
    }

    pub(crate) fn warn(&mut self, code: Code, message: String, origin: Origin, kind: &'static str, name: &str) {
        self.warn_in(code, message, origin, &[(kind, name)]);
    }

    pub(crate) fn warn_in(&mut self, code: Code, message: String, origin: Origin, context: &[(&'static str, &str)]) {
        self.warnings.push(Trouble::new(code, message, origin).within(context));
    }
}
