//! The shape that editors and linters expect of rule files; a document that does not have it is still loaded.

use std::sync::Arc;

use super::reader::RULE_KEYS;
use super::yaml::{Node, Value};

/// Outcome of the check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schema {
    /// It has the shape.
    Ok,
    /// It has not.
    Failed,
    /// There was nothing to check.
    None,
}

/// Keys of items other than rules.
const OTHER_KEYS: [&str; 5] = ["required_engine_version", "required_plugin_versions", "list", "macro", "items"];

const PRIORITIES: [&str; 9] =
    ["EMERGENCY", "ALERT", "CRITICAL", "ERROR", "WARNING", "NOTICE", "INFO", "INFORMATIONAL", "DEBUG"];

pub(super) fn check(documents: &[Arc<Node>]) -> Schema {
    let mut documents = documents.iter().filter(|document| !document.is_null()).peekable();
    if documents.peek().is_none() {
        return Schema::None;
    }
    let fits = documents.all(|document| document.items().is_some_and(|items| items.iter().all(item_fits)));
    if fits { Schema::Ok } else { Schema::Failed }
}

fn item_fits(item: &Arc<Node>) -> bool {
    matches!(item.value, Value::Map(_))
        && item.entries().iter().all(|(key, value)| {
            let Some(key) = key.text() else { return false };
            match key {
                "rule" | "macro" | "list" | "condition" | "output" | "desc" | "source" => value.text().is_some(),
                "priority" => value.text().is_some_and(|word| PRIORITIES.contains(&word)),
                "enabled" | "append" | "capture" | "warn_evttypes" | "skip-if-unknown-filter" => is_boolean(value),
                "items" | "tags" => value.items().is_some(),
                "exceptions" => value.items().is_some_and(|entries| {
                    let known = |key: &Arc<Node>| matches!(key.text(), Some("name" | "fields" | "comps" | "values"));
                    entries.iter().all(|entry| entry.entries().iter().all(|(key, _)| known(key)))
                }),
                "override" => {
                    !value.entries().is_empty()
                        && value.entries().iter().all(|(key, operation)| {
                            key.text().is_some_and(|key| key == "items" || RULE_KEYS.contains(&key))
                                && matches!(operation.text(), Some("append" | "replace"))
                        })
                }
                _ => RULE_KEYS.contains(&key) || OTHER_KEYS.contains(&key),
            }
        })
}

fn is_boolean(node: &Node) -> bool {
    matches!(&node.value, Value::Scalar { text, plain: true } if matches!(&**text, "true" | "false"))
}
