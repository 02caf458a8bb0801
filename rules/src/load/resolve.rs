//! Puts lists and macros into conditions.
//!
//! Lists are replaced in the text, before it is parsed; macros in the tree, by reference, so that macros of macros do
//! not multiply memory.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::collection::Collection;
use crate::nearest::did_you_mean;
use crate::parse::Expr;
use crate::program::{MAX_DEPTH, MAX_NODES};

/// Longest condition with its lists put in.
const MAX_TEXT: usize = 16 << 20;

/// Lists with their items; an item that names an earlier list is replaced by that list's items as written.
pub(crate) fn lists(collection: &Collection) -> Vec<(String, Vec<String>)> {
    let items = |list: &super::item::List| {
        let mut items = Vec::with_capacity(list.items.len());
        for item in &list.items {
            match collection.list(item).map(|at| &collection.lists()[at]) {
                Some(other) if other.order.index < list.order.visibility => items.extend(other.items.iter().cloned()),
                _ => items.push(item.clone()),
            }
        }
        items
    };
    collection.lists().iter().map(|list| (list.name.clone(), items(list))).collect()
}

/// Lists with the lists in their items put in, and which of them are used.
pub(crate) struct Lists<'a> {
    names: Vec<&'a str>,
    values: Vec<String>,
    is_empty: Vec<bool>,
    by_name: HashMap<&'a str, usize>,
    /// Lists whose name holds a delimiter: they are not found word by word.
    odd: Vec<usize>,
    pub(crate) used: HashSet<usize>,
}

impl<'a> Lists<'a> {
    pub(crate) fn new(collection: &'a Collection) -> Self {
        let mut used = HashSet::new();
        let mut values = Vec::new();
        let mut is_empty = Vec::new();
        for list in collection.lists() {
            let mut items: Vec<String> = Vec::with_capacity(list.items.len());
            for item in &list.items {
                let other =
                    collection.list(item).filter(|at| collection.lists()[*at].order.index < list.order.visibility);
                match other {
                    Some(at) => {
                        used.insert(at);
                        items.extend(collection.lists()[at].items.iter().map(|item| super::exception::quoted(item)));
                    }
                    None => items.push(super::exception::quoted(item)),
                }
            }
            // Empty texts at the start leave no comma, as upstream.
            let first = items.iter().position(|item| !item.is_empty()).unwrap_or(items.len());
            let value = items[first..].join(", ");
            is_empty.push(value.is_empty());
            values.push(value);
        }
        let names: Vec<&str> = collection.lists().iter().map(|list| list.name.as_str()).collect();
        let by_name = names.iter().enumerate().map(|(at, name)| (*name, at)).collect();
        let odd = (0..names.len()).filter(|at| names[*at].bytes().any(is_delimiter)).collect();
        Self { names, values, is_empty, by_name, odd, used }
    }

    /// Replaces list names in a condition, list by list in order of definition.
    pub(crate) fn substitute(&mut self, condition: &str) -> Result<String, String> {
        let mut text = condition.to_owned();
        let mut wanted: BTreeSet<usize> = self.odd.iter().copied().collect();
        self.find(&text, 0, &mut wanted);
        while let Some(at) = wanted.pop_first() {
            let name = self.names[at];
            let value = &self.values[at];
            let mut changed = false;
            let mut out = String::with_capacity(text.len());
            let mut rest = text.as_str();
            let mut searched = 0;
            while let Some(found) = rest[searched..].find(name) {
                let start = searched + found;
                let end = start + name.len();
                let before = rest[..start].bytes().next_back().or_else(|| out.bytes().next_back());
                let after = rest[end..].bytes().next();
                if name.is_empty() || !before.is_none_or(is_delimiter) || !after.is_none_or(is_delimiter) {
                    searched = start + rest[start..].chars().next().map_or(1, char::len_utf8);
                    continue;
                }
                changed = true;
                out.push_str(rest[..start].trim_end_matches(BLANKS));
                rest = rest[end..].trim_start_matches(BLANKS);
                if self.is_empty[at] {
                    if out.ends_with(',') {
                        out.pop();
                    } else {
                        rest = rest.strip_prefix(',').unwrap_or(rest);
                    }
                }
                if !out.is_empty() {
                    out.push(' ');
                }
                out.push_str(value);
                out.push(' ');
                searched = 0;
                if out.len() + rest.len() > MAX_TEXT {
                    return Err("the condition is too large with its lists put in".to_owned());
                }
            }
            if !changed {
                continue;
            }
            self.used.insert(at);
            out.push_str(rest);
            text = out;
            let value = self.values[at].clone();
            self.find(&value, at + 1, &mut wanted);
        }
        Ok(text)
    }

    /// Lists from number `from` on whose name is a word of the text.
    fn find(&self, text: &str, from: usize, wanted: &mut BTreeSet<usize>) {
        let words = text.split(|c: char| c.is_ascii() && is_delimiter(c as u8));
        wanted.extend(words.filter_map(|word| self.by_name.get(word)).filter(|at| **at >= from));
    }
}

const BLANKS: [char; 4] = [' ', '\t', '\n', '\r'];

const fn is_delimiter(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b'(' | b')' | b',' | b'=')
}

/// A tree without macros, and how large it is with all that it refers to.
#[derive(Clone, Debug)]
pub(crate) struct Resolved {
    pub(crate) expr: Arc<Expr>,
    nodes: usize,
    depth: usize,
}

/// Why a macro cannot be put in.
pub(crate) enum MacroError {
    /// There is no macro of this name: the name, and a suggestion.
    Undefined(String, String),
    /// It refers to itself.
    Loop(String),
    /// The condition grows beyond all bounds.
    TooLarge(String),
}

impl MacroError {
    pub(crate) fn message(&self) -> String {
        match self {
            Self::Undefined(name, hint) => format!("undefined macro '{name}' used in filter{hint}"),
            Self::Loop(name) => format!("reference loop in macro '{name}'"),
            Self::TooLarge(message) => message.clone(),
        }
    }
}

/// Puts macros, given by name and condition, into a condition.
///
/// # Errors
/// A condition does not parse, a macro does not exist or refers to itself.
pub fn resolve_macros(condition: &[u8], macros: &[(String, Vec<u8>)]) -> Result<Arc<Expr>, String> {
    let parsed = |text: &[u8]| crate::parse::parse(text, crate::parse::MAX_DEPTH).map_err(|error| error.to_string());
    let mut known = Macros { trees: HashMap::new(), used: HashSet::new() };
    for (name, condition) in macros {
        known.trees.insert(name, MacroTree { expr: parsed(condition)?, index: 0, resolved: None });
    }
    match known.resolve(&parsed(condition)?, usize::MAX) {
        Ok(resolved) => Ok(resolved.expr),
        Err(error) => Err(error.message()),
    }
}

/// Puts macros into trees.
pub(crate) struct Macros<'a> {
    /// Trees of macros by name: as parsed, or without macros once they are resolved.
    pub(crate) trees: HashMap<&'a str, MacroTree>,
    pub(crate) used: HashSet<String>,
}

/// A macro's tree.
pub(crate) struct MacroTree {
    pub(crate) expr: Arc<Expr>,
    pub(crate) index: usize,
    pub(crate) resolved: Option<Resolved>,
}

impl Macros<'_> {
    /// Replaces the macros of a tree that were first defined before `visibility`.
    pub(crate) fn resolve(&mut self, expr: &Arc<Expr>, visibility: usize) -> Result<Resolved, MacroError> {
        let mut seen = HashMap::new();
        self.walk(expr, visibility, &mut Vec::new(), &mut seen)
    }

    fn walk(
        &mut self,
        expr: &Arc<Expr>,
        visibility: usize,
        inside: &mut Vec<String>,
        seen: &mut HashMap<String, Resolved>,
    ) -> Result<Resolved, MacroError> {
        let leaf = |expr: &Arc<Expr>| Resolved { expr: Arc::clone(expr), nodes: 1, depth: 1 };
        let resolved = match expr.as_ref() {
            Expr::Exists(..) | Expr::Check { .. } => return Ok(leaf(expr)),
            Expr::Not(child, pos) => {
                let inner = self.walk(child, visibility, inside, seen)?;
                let expr = if Arc::ptr_eq(&inner.expr, child) {
                    Arc::clone(expr)
                } else {
                    Arc::new(Expr::Not(Arc::clone(&inner.expr), *pos))
                };
                Resolved { expr, nodes: inner.nodes.saturating_add(1), depth: inner.depth + 1 }
            }
            Expr::And(children, pos) | Expr::Or(children, pos) => {
                let (mut nodes, mut depth, mut changed) = (1_usize, 0, false);
                let mut out = Vec::with_capacity(children.len());
                for child in children {
                    let inner = self.walk(child, visibility, inside, seen)?;
                    nodes = nodes.saturating_add(inner.nodes);
                    depth = depth.max(inner.depth);
                    changed |= !Arc::ptr_eq(&inner.expr, child);
                    out.push(inner.expr);
                }
                let expr = if !changed {
                    Arc::clone(expr)
                } else if matches!(expr.as_ref(), Expr::And(..)) {
                    Arc::new(Expr::And(out, *pos))
                } else {
                    Arc::new(Expr::Or(out, *pos))
                };
                Resolved { expr, nodes, depth: depth + 1 }
            }
            Expr::Macro(name, _) => self.macro_tree(name, visibility, inside, seen)?,
        };
        if resolved.nodes > MAX_NODES || resolved.depth > MAX_DEPTH {
            let message = format!(
                "the condition is too large with its macros put in (more than {MAX_NODES} checks or {MAX_DEPTH} levels)"
            );
            return Err(MacroError::TooLarge(message));
        }
        Ok(resolved)
    }

    fn macro_tree(
        &mut self,
        name: &str,
        visibility: usize,
        inside: &mut Vec<String>,
        seen: &mut HashMap<String, Resolved>,
    ) -> Result<Resolved, MacroError> {
        let Some(tree) = self.trees.get(name).filter(|tree| tree.index < visibility) else {
            let visible = self.trees.iter().filter(|(_, tree)| tree.index < visibility).map(|(name, _)| *name);
            return Err(MacroError::Undefined(name.to_owned(), did_you_mean(name, visible)));
        };
        self.used.insert(name.to_owned());
        if let Some(resolved) = tree.resolved.as_ref().or_else(|| seen.get(name)) {
            return Ok(resolved.clone());
        }
        if inside.iter().any(|outer| outer == name) {
            return Err(MacroError::Loop(name.to_owned()));
        }
        if inside.len() >= MAX_DEPTH / 20 {
            return Err(MacroError::TooLarge("macros are nested too deeply".to_owned()));
        }
        let tree = Arc::clone(&tree.expr);
        inside.push(name.to_owned());
        let resolved = self.walk(&tree, visibility, inside, seen)?;
        inside.pop();
        seen.insert(name.to_owned(), resolved.clone());
        Ok(resolved)
    }
}
