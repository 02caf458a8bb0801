//! Loads rule files: reads items, then compiles all that was collected.
//!
//! Files are loaded one after another; after each one everything so far is compiled afresh, because every prefix of the
//! list of files must be valid by itself.

mod collection;
mod compiler;
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
mod suspicions;
mod warnings;
mod yaml;

use std::sync::Arc;

use collection::{Collection, Recovery, Trouble};
use compiler::compile;
use item::Origin;
use report::Diagnostics;

use crate::catalogue::Catalogue;
use crate::diagnostic::{Code, Diagnostic, Severity};
use crate::options::{LoadOptions, Source};
use crate::parse::Expr;
use crate::program::{Graph, NodeId};
use crate::rule::Rule;

pub use macros::resolve_macros;
pub use schema::Schema;
pub use suspicions::suspicions;
pub use yaml::too_deep;

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
