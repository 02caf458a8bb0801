//! Reads the items of a rule file into the collection: which items there are, a file per kind, and how trouble with them is told.

mod exceptions;
mod lists;
mod macros;
mod overrides;
mod rules;
mod values;
mod versions;

use std::sync::Arc;

use super::collection::{Collection, Trouble};
use super::item::Origin;
use super::yaml::{self, Node, Value};
use crate::diagnostic::Code;
use crate::nearest::did_you_mean;
use crate::options::LoadOptions;

const LIST_KEYS: [&str; 4] = ["list", "items", "append", "override"];
const MACRO_KEYS: [&str; 4] = ["macro", "condition", "append", "override"];
pub(super) const RULE_KEYS: [&str; 15] = [
    "rule",
    "condition",
    "output",
    "desc",
    "priority",
    "source",
    "enabled",
    "capture",
    "capture_duration",
    "warn_evttypes",
    "skip-if-unknown-filter",
    "tags",
    "exceptions",
    "append",
    "override",
];

/// Reads one file. The first error ends it.
pub(super) fn read(file: usize, text: &str, options: &LoadOptions, collection: &mut Collection) -> Result<(), Trouble> {
    let documents = yaml::documents(text).map_err(|error| {
        let origin = Origin { file, at: error.at };
        if error.is_tag {
            let message = "a text that begins with '!' is a YAML tag: put it in quotes, as in \"!=\"".to_owned();
            return Trouble::new(Code::YamlValidate, message, origin);
        }
        Trouble::new(Code::YamlParse, error.message, origin)
    })?;
    for document in documents {
        if document.is_null() {
            continue;
        }
        let Some(items) = document.items() else {
            let origin = Origin { file, at: document.at };
            return Err(Trouble::new(
                Code::YamlValidate,
                "rules content is not a sequence of objects".to_owned(),
                origin,
            ));
        };
        for item in items.iter().filter(|item| !item.is_null()) {
            let mut reader = Reader { file, options, collection, kind: "", name: String::new() };
            if let Err(error) = reader.item(item) {
                let (kind, name) = (reader.kind, reader.name);
                collection.failed(error, kind, name)?;
            }
        }
    }
    Ok(())
}

struct Reader<'a> {
    file: usize,
    options: &'a LoadOptions,
    collection: &'a mut Collection,
    kind: &'static str,
    name: String,
}

impl Reader<'_> {
    fn item(&mut self, item: &Arc<Node>) -> Result<(), Trouble> {
        if !matches!(item.value, Value::Map(_)) {
            return self.fail(Code::YamlValidate, "unexpected element: an item must be a map".to_owned(), item);
        }
        if item.get("required_engine_version").is_some() {
            self.kind = "required_engine_version";
            self.unknown_keys(item, &["required_engine_version"]);
            return self.engine_version(item);
        }
        if item.get("required_plugin_versions").is_some() {
            self.kind = "required_plugin_versions";
            self.unknown_keys(item, &["required_plugin_versions"]);
            return self.plugin_versions(item);
        }
        for (kind, keys) in [("list", &LIST_KEYS[..]), ("macro", &MACRO_KEYS[..]), ("rule", &RULE_KEYS[..])] {
            let Some(name) = item.get(kind) else { continue };
            self.kind = kind;
            name.text().unwrap_or_default().clone_into(&mut self.name);
            self.name = self.required(item, kind)?;
            match kind {
                "list" => self.list(item),
                "macro" => self.macro_item(item),
                _ => self.rule(item),
            }?;
            self.unknown_keys(item, keys);
            return Ok(());
        }
        let origin = self.origin(item);
        let first = item.entries().first().and_then(|(key, _)| key.text()).unwrap_or_default();
        let kinds = ["rule", "macro", "list", "required_engine_version", "required_plugin_versions"];
        let message = format!("unknown top level item{}", did_you_mean(first, kinds));
        self.collection.warn(Code::UnknownItem, message, origin, "item", "");
        Ok(())
    }

    fn unknown_keys(&mut self, item: &Node, known: &[&str]) {
        for (key, _) in item.entries() {
            let name = key.text().unwrap_or_default();
            if !known.contains(&name) {
                let hint = did_you_mean(name, known.iter().copied());
                self.warn(Code::UnknownKey, format!("unknown key '{name}'{hint}"), key);
            }
        }
    }

    fn origin(&self, node: &Node) -> Origin {
        Origin { file: self.file, at: node.at }
    }

    fn warn(&mut self, code: Code, message: String, node: &Node) {
        let origin = self.origin(node);
        let (kind, name) = (self.kind, self.name.clone());
        self.collection.warn(code, message, origin, kind, &name);
    }

    /// The item changes one that does not exist.
    fn missing<T>(&self, message: &str, item: &Node) -> Result<T, Trouble> {
        let hint = match self.kind {
            "list" => did_you_mean(&self.name, self.collection.lists().iter().map(|list| list.name.as_str())),
            "macro" => did_you_mean(&self.name, self.collection.macros().iter().map(|item| item.name.as_str())),
            _ => did_you_mean(&self.name, self.collection.rules().iter().map(|rule| rule.name.as_str())),
        };
        self.fail(Code::Validate, format!("{message}{hint}"), item).map_err(|mut trouble: Trouble| {
            trouble.missing = Some(Box::new((self.kind, self.name.clone())));
            trouble
        })
    }

    fn fail<T>(&self, code: Code, message: String, node: &Node) -> Result<T, Trouble> {
        self.fail_in(code, message, node, &[])
    }

    /// An error in a part of the item.
    fn fail_in<T>(
        &self,
        code: Code,
        message: String,
        node: &Node,
        parts: &[(&'static str, &str)],
    ) -> Result<T, Trouble> {
        let mut trouble = Trouble::new(code, message, self.origin(node));
        let item = (!self.kind.is_empty()).then_some((self.kind, self.name.as_str()));
        trouble.context = item.iter().chain(parts).map(|(kind, name)| (*kind, (*name).to_owned())).collect();
        Err(trouble)
    }
}
