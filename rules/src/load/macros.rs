//! Puts macros into conditions: in the tree, by reference, so that macros of macros do not multiply memory.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::nearest::did_you_mean;
use crate::parse::Expr;
use crate::program::{MAX_DEPTH, MAX_NODES};

/// A tree without macros, and how large it is with all that it refers to.
#[derive(Clone, Debug)]
pub(crate) struct Resolved {
    pub(crate) expr: Arc<Expr>,
    pub(super) nodes: usize,
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
        self.walk(expr, visibility, 1, &mut Vec::new(), &mut seen)
    }

    fn walk(
        &mut self,
        expr: &Arc<Expr>,
        visibility: usize,
        level: usize,
        inside: &mut Vec<String>,
        seen: &mut HashMap<String, Resolved>,
    ) -> Result<Resolved, MacroError> {
        // Also on the way down: macros in macros must not exhaust the stack before their depth is known.
        if level > MAX_DEPTH {
            return Err(too_large());
        }
        let leaf = |expr: &Arc<Expr>| Resolved { expr: Arc::clone(expr), nodes: 1, depth: 1 };
        let resolved = match expr.as_ref() {
            Expr::Exists(..) | Expr::Check { .. } => return Ok(leaf(expr)),
            Expr::Not(child, pos) => {
                let inner = self.walk(child, visibility, level + 1, inside, seen)?;
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
                    let inner = self.walk(child, visibility, level + 1, inside, seen)?;
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
            Expr::Macro(name, _) => self.macro_tree(name, visibility, level, inside, seen)?,
        };
        if resolved.nodes > MAX_NODES || resolved.depth > MAX_DEPTH {
            return Err(too_large());
        }
        Ok(resolved)
    }

    fn macro_tree(
        &mut self,
        name: &str,
        visibility: usize,
        level: usize,
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
        let resolved = self.walk(&tree, visibility, level + 1, inside, seen)?;
        inside.pop();
        seen.insert(name.to_owned(), resolved.clone());
        Ok(resolved)
    }
}

fn too_large() -> MacroError {
    MacroError::TooLarge(format!(
        "the condition is too large with its macros put in (more than {MAX_NODES} checks or {MAX_DEPTH} levels)"
    ))
}
