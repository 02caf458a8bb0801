//! Loads rule files: reads items, then compiles all that was collected.
//!
//! Files are loaded one after another; after each one everything so far is compiled afresh, because every prefix of the
//! list of files must be valid by itself.

mod collection;
mod exception;
mod item;
mod libyaml;
mod lists;
mod locate;
mod macros;
mod output;
mod reader;
mod report;
mod schema;
mod warnings;
mod yaml;

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;

use collection::{Collection, Recovery, Trouble};
use item::{Origin, RuleItem};
use lists::Lists;
use locate::{Fault, Locator, Written};
use macros::{MacroError, MacroTree, Macros};
use report::{Diagnostics, MAX_SPOTS, syntax_hint};
use warnings::Warnings;

use crate::catalogue::{Catalogue, FieldId};
use crate::compile::known_operand;
use crate::diagnostic::{Code, Diagnostic, Severity};
use crate::event::{EventCode, EventSet};
use crate::options::{LoadOptions, Source};
use crate::parse::{self, Expr, Op, Operand, Right};
use crate::program::{Graph, NodeId, condition_events};
use crate::rule::Rule;

pub use macros::resolve_macros;
pub use schema::Schema;
pub use yaml::too_deep;

/// Event sets larger than this are worth a warning.
const MANY_EVENTS: usize = 100;

/// Longest canonical condition that is kept with a rule; beyond it only its start is.
const MAX_PRINT: usize = 1 << 20;

/// Most checks of all conditions with their macros put in.
const MAX_TOTAL_NODES: usize = 500_000;

/// What came of loading.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) rules: Vec<(Rule, NodeId, Arc<Expr>)>,
    pub(crate) graph: Graph,
}

/// What the files define, for listings and tests.
#[derive(Clone, Debug, Default)]
pub struct Definitions {
    /// Lists with their items, lists in lists put in.
    pub lists: Vec<(String, Vec<String>)>,
    /// Names of macros.
    pub macros: Vec<String>,
    /// Names of all rules, compiled or not.
    pub rules: Vec<String>,
}

/// Loads files. The last diagnostic is the error, if there is one.
pub(crate) fn load(sources: &[Source<'_>], options: &LoadOptions) -> (Option<Loaded>, Vec<Diagnostic>, Definitions) {
    run(sources, options, None)
}

/// The same, and goes on after errors with the next item: all errors are among the diagnostics, and each diagnostic is there once.
pub(crate) fn check(sources: &[Source<'_>], options: &LoadOptions) -> (Option<Loaded>, Vec<Diagnostic>, Definitions) {
    let (loaded, mut diagnostics, definitions) = run(sources, options, Some(Recovery::default()));
    // Warnings of earlier files repeat with each file.
    let mut seen = std::collections::HashSet::new();
    diagnostics.retain(|found| seen.insert(found.clone()));
    let failed = diagnostics.iter().any(|found| found.severity() == Severity::Error);
    (loaded.filter(|_| !failed), diagnostics, definitions)
}

fn run(
    sources: &[Source<'_>],
    options: &LoadOptions,
    recovery: Option<Recovery>,
) -> (Option<Loaded>, Vec<Diagnostic>, Definitions) {
    let catalogue = options.catalogue.clone().unwrap_or_else(Catalogue::shared);
    let mut collection = Collection::new(catalogue);
    collection.recovery = recovery;
    let mut diagnostics = Diagnostics::new();
    let mut loaded = Loaded { rules: Vec::new(), graph: Graph::default() };
    let mut reported = 0;
    for (file, source) in sources.iter().enumerate() {
        diagnostics.names.push(source.name.to_owned());
        let result = match std::str::from_utf8(source.text) {
            Ok(text) => {
                let text = text.strip_prefix('\u{feff}').unwrap_or(text);
                diagnostics.texts.push(text);
                reader::read(file, text, options, &mut collection)
            }
            Err(error) => {
                let valid = String::from_utf8_lossy(&source.text[..error.valid_up_to()]);
                let at = yaml::Place {
                    line: valid.matches('\n').count() + 1,
                    column: valid.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1,
                };
                diagnostics.texts.push("");
                Err(Trouble::new(Code::YamlParse, "the file is not valid UTF-8".to_owned(), Origin { file, at }))
            }
        };
        let result = match (result, &mut collection.recovery) {
            (Err(error), Some(recovery)) => {
                // What is in the rest of the file is not known.
                recovery.unread();
                recovery.note(error, "", String::new())
            }
            (result, _) => result,
        };
        let graph = std::mem::take(&mut loaded.graph);
        let result = result.and_then(|()| compile(&mut collection, options, graph, &diagnostics.texts));
        let errors =
            collection.recovery.as_mut().map(|recovery| recovery.errors.split_off(reported)).unwrap_or_default();
        for found in std::mem::take(&mut collection.warnings).into_listed().into_iter().chain(errors.iter().cloned()) {
            diagnostics.add(found);
        }
        if let Some(recovery) = &mut collection.recovery {
            recovery.errors.extend(errors);
            reported = recovery.errors.len();
        }
        match result {
            Ok(compiled) => loaded = compiled,
            Err(error) => {
                diagnostics.add(error);
                return (None, diagnostics.found, definitions(&collection));
            }
        }
    }
    if let Some(missing) = missing_plugin(&collection, options) {
        diagnostics.add(missing);
        return (None, diagnostics.found, definitions(&collection));
    }
    loaded.graph.finish();
    let definitions = definitions(&collection);
    (Some(loaded), diagnostics.found, definitions)
}

fn definitions(collection: &Collection) -> Definitions {
    Definitions {
        lists: lists::lists(collection),
        macros: collection.macros().iter().map(|item| item.name.clone()).collect(),
        rules: collection.rules().iter().map(|rule| rule.name.clone()).collect(),
    }
}

/// Checks documents against the shape of rule files, which never keeps them from being loaded.
pub fn check_schema(text: &str) -> Schema {
    yaml::documents(text).map_or(Schema::None, |documents| schema::check(&documents))
}

/// Reads the plugin requirements of a file and says whether `plugins` satisfy them.
///
/// # Errors
/// The file cannot be read.
pub fn plugins_satisfy(source: &Source<'_>, options: &LoadOptions) -> Result<bool, String> {
    let text = std::str::from_utf8(source.text).map_err(|error| error.to_string())?;
    let mut collection = Collection::new(Arc::new(Catalogue::empty()));
    reader::read(0, text, options, &mut collection).map_err(|trouble| trouble.message)?;
    Ok(missing_plugin(&collection, options).is_none())
}

/// A requirement that no loaded plugin satisfies.
fn missing_plugin(collection: &Collection, options: &LoadOptions) -> Option<Trouble> {
    let plugins = options.plugins.as_ref()?;
    let satisfied = |alternatives: &[(String, crate::Version)]| {
        alternatives.iter().any(|(name, version)| {
            plugins.iter().any(|(known, have)| known == name && have.0 == version.0 && have >= version)
        })
    };
    let missing = collection.required_plugins.iter().find(|alternatives| !satisfied(alternatives))?;
    let wanted: Vec<_> =
        missing.iter().map(|(name, version)| format!("{name} {}.{}.{}", version.0, version.1, version.2)).collect();
    let message = format!("plugin requirement not satisfied, must load one of: {}", wanted.join(", "));
    Some(Trouble::new(Code::Validate, message, Origin::default()))
}

/// Compiles everything that was collected. The graph of an earlier file is gone on with: equal checks are there already.
fn compile(
    collection: &mut Collection,
    options: &LoadOptions,
    graph: Graph,
    texts: &[&str],
) -> Result<Loaded, Trouble> {
    let mut warnings = Warnings::default();
    let mut recovery = collection.recovery.take();
    let compiler =
        Compiler { collection, options, texts, warnings: &mut warnings, recovery: recovery.as_mut(), nodes: 0 };
    let result = compiler.run(graph);
    collection.warnings.append(warnings);
    collection.recovery = recovery;
    result
}

struct Compiler<'a, 'w> {
    collection: &'a Collection,
    options: &'a LoadOptions,
    /// The files so far, to point into.
    texts: &'w [&'w str],
    warnings: &'w mut Warnings,
    recovery: Option<&'w mut Recovery>,
    /// Of the conditions so far.
    nodes: usize,
}

/// Why a rule was not compiled.
enum Failed {
    /// It asked for that.
    Skipped(Trouble),
    Error(Trouble),
}

impl<'a> Compiler<'a, '_> {
    fn run(mut self, graph: Graph) -> Result<Loaded, Trouble> {
        let collection = self.collection;
        let mut lists = Lists::new(collection);
        let mut macros = self.macros(&mut lists)?;
        let mut loaded = Loaded { rules: Vec::new(), graph };
        let mut complete = true;
        for item in collection.rules().iter().filter(|item| !item.unknown_source) {
            match self.rule(item, &mut lists, &mut macros, &mut loaded.graph) {
                Ok(rule) => loaded.rules.push(rule),
                Err(Failed::Skipped(trouble)) => self.warnings.push(trouble),
                Err(Failed::Error(trouble)) => {
                    complete = false;
                    self.failed(trouble, "rule", &item.name)?;
                }
            }
        }
        if !complete {
            // What a rule would have used is not known.
            return Ok(loaded);
        }
        for item in collection.macros().iter().filter(|item| !macros.used.contains(&item.name)) {
            let message = "macro not referred to by any other rule or macro".to_owned();
            self.warn(Code::UnusedMacro, message, &item.origin, &[("macro", &item.name)]);
        }
        for (at, item) in collection.lists().iter().enumerate() {
            if !lists.used.contains(&at) {
                let message = "list not referred to by any other rule, macro or list".to_owned();
                self.warn(Code::UnusedList, message, &item.origin, &[("list", &item.name)]);
            }
        }
        Ok(loaded)
    }

    /// Parses all macros and resolves them, in order of definition.
    fn macros(&mut self, lists: &mut Lists<'_>) -> Result<Macros<'a>, Trouble> {
        let collection = self.collection;
        let mut macros = Macros { trees: HashMap::new(), used: std::collections::HashSet::new() };
        for item in collection.macros() {
            let context = [("macro", item.name.as_str()), ("condition", "")];
            let written = Written::of_macro(item);
            match parse_condition(&item.condition, lists) {
                Ok(expr) => {
                    let tree = MacroTree { expr, index: item.order.index, resolved: None };
                    macros.trees.insert(&item.name, tree);
                }
                Err(message) => {
                    let found = trouble(Code::CompileCondition, message, &item.condition_origin, &context);
                    let found = Trouble { spot: self.spot(&written, &Fault::Syntax), ..found };
                    self.failed(found, "macro", &item.name)?;
                }
            }
        }
        for item in collection.macros() {
            let Some(tree) = macros.trees.get(item.name.as_str()) else { continue };
            let expr = Arc::clone(&tree.expr);
            match macros.resolve(&expr, item.order.visibility) {
                Ok(resolved) => {
                    if let Some(tree) = macros.trees.get_mut(item.name.as_str()) {
                        tree.resolved = Some(resolved);
                    }
                }
                Err(error) => {
                    let context = [("macro", item.name.as_str()), ("condition", "")];
                    let found = self.macro_trouble(&error, &Written::of_macro(item), &context);
                    self.failed(found, "macro", &item.name)?;
                    macros.trees.remove(item.name.as_str());
                }
            }
        }
        Ok(macros)
    }

    fn rule(
        &mut self,
        item: &RuleItem,
        lists: &mut Lists<'_>,
        macros: &mut Macros<'_>,
        graph: &mut Graph,
    ) -> Result<(Rule, NodeId, Arc<Expr>), Failed> {
        let catalogue = self.collection.catalogue();
        let text = exception::condition(&item.condition, item.exceptions.all()).map_err(|(name, message)| {
            let origin = item.exceptions.all().iter().find(|known| known.name == name).map(|known| &known.origin);
            let context = [("rule", item.name.as_str()), ("exception", name.as_str())];
            Failed::Error(trouble(Code::Validate, message, origin.unwrap_or(&item.origin), &context))
        })?;

        let output_context = [("rule", item.name.as_str()), ("output", "")];
        let output::Text { text: output_text, removed } = output::text(item, self.options, catalogue);
        if let Some(message) = removed {
            self.warn(Code::DeprecatedItem, message.to_owned(), &item.output_origin, &output_context);
        }
        let output = output::compile(output_text, item, self.options, catalogue).map_err(|error| {
            let found = trouble(Code::CompileOutput, error.message, &item.output_origin, &output_context);
            Self::skippable(item, found, error.unknown_filter)
        })?;
        for message in output.deprecations {
            self.warn(Code::DeprecatedItem, message, &item.output_origin, &output_context);
        }

        let context = [("rule", item.name.as_str()), ("condition", "")];
        let origin = &item.condition_origin;
        let written = Written { condition: &item.condition, origin, appended: &item.appended };
        let parsed = parse_condition(&text, lists).map_err(|message| {
            let found = trouble(Code::CompileCondition, message, origin, &context);
            Failed::Error(Trouble { spot: self.spot(&written, &Fault::Syntax), ..found })
        })?;
        let resolved = macros
            .resolve(&parsed, usize::MAX)
            .map_err(|error| Failed::Error(self.macro_trouble(&error, &written, &context)))?;
        self.nodes = self.nodes.saturating_add(resolved.nodes);
        if self.nodes > MAX_TOTAL_NODES {
            let message = format!(
                "all conditions together are too large with their macros put in (more than {MAX_TOTAL_NODES} checks)"
            );
            return Err(Failed::Error(trouble(Code::CompileCondition, message, origin, &context)));
        }
        for (code, message) in suspicions(&resolved.expr) {
            self.warn(code, message, origin, &context);
        }
        let mut hints = Vec::new();
        let root = graph.add(&resolved.expr, catalogue, &mut hints).map_err(|error| {
            let unknown = error.unknown_filter;
            let spot = self.spot(&written, &Fault::Message(&error.message));
            let found = trouble(Code::CompileCondition, error.message, origin, &context);
            Self::skippable(item, Trouble { spot, ..found }, unknown)
        })?;
        let sought = if self.warnings.len() < MAX_SPOTS { hints.get(..hints.len().min(MAX_SPOTS)) } else { None };
        let mut spots = self.locator().hints(&written, sought.unwrap_or_default());
        for hint in hints {
            let spot = spots.remove(&hint.message);
            let found = trouble(hint.code, hint.message, origin, &context);
            self.warnings.push(Trouble { spot, ..found });
        }
        let mut events = condition_events(&resolved.expr).map_err(|error| {
            Failed::Error(trouble(Code::CompileCondition, error.message.to_owned(), origin, &context))
        })?;
        if item.source == "syscall" && item.warn_evttypes && events.len() > MANY_EVENTS {
            let message =
                "rule matches too many evt.type values; this has a significant performance penalty".to_owned();
            self.warn(Code::NoEvttype, message, origin, &context);
        }
        if item.source == "syscall" {
            events.insert(EventCode::ASYNCEVENT);
        } else {
            let mut own = EventSet::EMPTY;
            own.insert(EventCode::ASYNCEVENT);
            own.insert(EventCode::PLUGINEVENT);
            events = events.intersection(&own);
        }
        let mut fields = output.format.fields();
        fields.extend(output.extra.iter().flat_map(|extra| extra.value.fields()));
        let mut condition_fields = operand_fields(&resolved.expr, catalogue);
        condition_fields.sort_unstable();
        condition_fields.dedup();
        fields.extend(&condition_fields);
        fields.sort_unstable();
        fields.dedup();
        let rule = Rule {
            name: item.name.clone(),
            desc: item.desc.clone(),
            priority: item.priority,
            source: item.source.clone(),
            tags: item.tags.iter().cloned().collect(),
            enabled: item.enabled,
            enabled_by_file: item.enabled,
            condition_text: text,
            condition: printed(&resolved.expr),
            output_text: output.text,
            events,
            fields,
            condition_fields,
            capture: item.capture,
            capture_duration: item.capture_duration,
            defined: (item.origin.file.to_string(), item.origin.at.line),
            format: output.format,
            extra: output.extra,
        };
        Ok((rule, root, resolved.expr))
    }

    /// An error, or a reason to leave the rule out if it asks for that.
    fn skippable(item: &RuleItem, mut found: Trouble, unknown_filter: bool) -> Failed {
        if unknown_filter && item.skip_if_unknown_filter {
            found.code = Code::UnknownFilter;
            Failed::Skipped(found)
        } else {
            Failed::Error(found)
        }
    }

    /// An error: the end, unless all are wanted.
    fn failed(&mut self, trouble: Trouble, kind: &'static str, name: &str) -> Result<(), Trouble> {
        match &mut self.recovery {
            Some(recovery) => recovery.note(trouble, kind, name.to_owned()),
            None => Err(trouble),
        }
    }

    fn macro_trouble(&self, error: &MacroError, written: &Written<'_>, context: &[(&'static str, &str)]) -> Trouble {
        let (code, spot, missing) = match error {
            MacroError::Undefined(name, _) => {
                (Code::Validate, self.spot(written, &Fault::Macro(name)), Some(Box::new(("macro", name.clone()))))
            }
            MacroError::Loop(_) => (Code::Validate, None, None),
            MacroError::TooLarge(_) => (Code::CompileCondition, None, None),
        };
        Trouble { spot, missing, ..trouble(code, error.message(), written.origin, context) }
    }

    fn locator(&self) -> Locator<'_> {
        Locator { collection: self.collection, texts: self.texts, regexes: Cell::new(0) }
    }

    fn spot(&self, written: &Written<'_>, fault: &Fault<'_>) -> Option<Origin> {
        self.locator().spot(written, fault)
    }

    fn warn(&mut self, code: Code, message: String, origin: &Origin, context: &[(&'static str, &str)]) {
        self.warnings.push(trouble(code, message, origin, context));
    }
}

fn parse_condition(text: &str, lists: &mut Lists<'_>) -> Result<Arc<Expr>, String> {
    let written = text;
    let text = lists.substitute(text)?;
    parse::parse(text.as_bytes(), parse::MAX_DEPTH).map_err(|error| {
        let start = text.floor_char_boundary(error.pos.index.saturating_sub(30).min(text.len()));
        let near: String = text[start..].chars().take(60).collect();
        format!(
            "{} at column {} of line {} of the condition{}, near '{}'",
            error.message,
            error.pos.column,
            error.pos.line,
            if text == written { "" } else { " with its lists put in" },
            near.trim()
        ) + &syntax_hint(&text, error.pos.index)
    })
}

fn trouble(code: Code, message: String, origin: &Origin, context: &[(&'static str, &str)]) -> Trouble {
    let context = context.iter().map(|(kind, name)| (*kind, (*name).to_owned())).collect();
    Trouble { context, ..Trouble::new(code, message, origin.clone()) }
}

/// The canonical print; only its start if it is huge.
fn printed(expr: &Expr) -> String {
    let mut text = String::from_utf8_lossy(&parse::print(expr)).into_owned();
    if text.len() > MAX_PRINT {
        text.truncate(text.floor_char_boundary(MAX_PRINT));
    }
    text
}

fn operand_fields(expr: &Expr, catalogue: &Catalogue) -> Vec<FieldId> {
    let mut seen = std::collections::HashSet::new();
    let mut fields = Vec::new();
    expr.operands(&mut |operand| {
        if let Operand::Field { name, arg, .. } = operand
            && seen.insert((name.clone(), arg.clone()))
        {
            fields.extend(known_operand(operand, catalogue).and_then(|typed| typed.field));
        }
    });
    fields
}

/// Fields that should no longer be used.
pub(super) const DEPRECATED: [&str; 6] =
    ["evt.dir", "evt.latency", "evt.latency.s", "evt.latency.ns", "evt.latency.human", "evt.wait_latency"];

/// Warnings that a condition's tree deserves, whatever the catalogue.
pub fn suspicions(expr: &Expr) -> Vec<(Code, String)> {
    let mut found = Vec::new();
    let mut deprecated = Vec::new();
    expr.operands(&mut |operand| {
        if let Operand::Field { name, .. } = operand
            && let Some(field) =
                DEPRECATED.iter().find(|field| *field == name).filter(|field| !deprecated.contains(*field))
        {
            deprecated.push(field);
        }
    });
    found.extend(deprecated.iter().map(|field| {
        (
            Code::DeprecatedItem,
            format!("usage of deprecated field '{field}' has been detected; it has no meaning any more"),
        )
    }));
    if compares_na(expr) {
        let message = "comparing a field with <NA> is unsafe, use 'exists' instead".to_owned();
        found.push((Code::UnsafeNaCheck, message));
    }
    found
}

fn compares_na(expr: &Expr) -> bool {
    match expr {
        Expr::And(children, _) | Expr::Or(children, _) => children.iter().any(|child| compares_na(child)),
        Expr::Not(child, _) => compares_na(child),
        Expr::Check { left, op, right, .. } => {
            let mut unsafe_field = false;
            left.walk(&mut |operand| {
                if let Operand::Field { name, .. } = operand {
                    unsafe_field |= name.starts_with("ka.") || name.starts_with("jevt.");
                }
            });
            let unsafe_op = matches!(op, Op::Eq | Op::EqEq | Op::Ne | Op::In | Op::Intersects | Op::PMatch);
            let values = match right {
                Right::Value(value, _) => std::slice::from_ref(value),
                Right::List(values, _) => values,
                Right::Operand(_) => &[],
            };
            unsafe_field && unsafe_op && values.iter().any(|value| value == b"<NA>")
        }
        _ => false,
    }
}
