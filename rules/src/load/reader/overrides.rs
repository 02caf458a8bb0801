//! `override`, and `append: true` which came before it: what an item appends to and replaces of one that is there.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Reader;
use crate::diagnostic::Code;
use crate::load::collection::Trouble;
use crate::load::item::{Exception, Exceptions};
use crate::load::yaml::{Node, Value};
use crate::rule::Priority;

/// Rule keys that `override` can append to.
pub(super) const APPENDABLE: [&str; 5] = ["condition", "output", "desc", "tags", "exceptions"];
/// Rule keys that `override` can only replace.
pub(super) const REPLACEABLE: [&str; 6] =
    ["priority", "enabled", "warn_evttypes", "skip-if-unknown-filter", "capture", "capture_duration"];

/// What an `override` map asks for.
#[derive(Default)]
pub(super) struct Overrides {
    pub(super) append: Vec<String>,
    replace: Vec<String>,
}

/// What an `override` gives a rule.
#[derive(Default)]
struct Change {
    condition: Option<String>,
    output: Option<String>,
    desc: Option<String>,
    tags: Option<BTreeSet<String>>,
    exceptions: Option<Vec<Exception>>,
    priority: Option<Priority>,
    enabled: Option<bool>,
    warn_evttypes: Option<bool>,
    skip_if_unknown_filter: Option<bool>,
    capture: Option<bool>,
    capture_duration: Option<u32>,
}

impl Overrides {
    pub(super) fn is_empty(&self) -> bool {
        self.append.is_empty() && self.replace.is_empty()
    }
}

impl Reader<'_> {
    pub(super) fn legacy_append(&mut self, item: &Arc<Node>) -> Result<bool, Trouble> {
        let append = self.boolean(item, "append", false)?;
        if append {
            let message = "'append' key is deprecated, use 'override' instead".to_owned();
            self.warn(Code::DeprecatedItem, message, item.get("append").unwrap_or(item));
        }
        Ok(append)
    }

    pub(super) fn overrides(
        &self,
        item: &Arc<Node>,
        appendable: &[&str],
        replaceable: &[&str],
        legacy: bool,
    ) -> Result<Overrides, Trouble> {
        let mut overrides = Overrides::default();
        let Some(node) = item.get("override") else { return Ok(overrides) };
        if !matches!(node.value, Value::Map(_)) {
            return Ok(overrides);
        }
        for (key, operation) in node.entries() {
            let name = key.text().unwrap_or_default().to_owned();
            let (keys, allowed) = match operation.text() {
                Some("append") => (&mut overrides.append, appendable),
                Some("replace") => (&mut overrides.replace, replaceable),
                _ => {
                    let message = format!("invalid override operation for '{name}': only append and replace exist");
                    return self.fail_in(
                        Code::YamlValidate,
                        message,
                        operation,
                        &[("overrides", ""), ("value for", &name)],
                    );
                }
            };
            if !allowed.contains(&name.as_str()) {
                let word = operation.text().unwrap_or_default();
                let message = format!("key '{name}' cannot be overridden with {word}");
                return self.fail_in(Code::YamlValidate, message, key, &[("overrides", &name)]);
            }
            keys.push(name);
        }
        if legacy && !overrides.is_empty() {
            let message = "keys 'override' and 'append: true' cannot be used together".to_owned();
            return self.fail(Code::YamlValidate, message, item);
        }
        Ok(overrides)
    }

    /// Appends, then replaces; of either first what the item says, then whether there is such a rule.
    pub(super) fn override_rule(&mut self, item: &Arc<Node>, overrides: &Overrides) -> Result<(), Trouble> {
        if !overrides.append.is_empty() {
            let change = self.change(item, &overrides.append, true)?;
            self.existing(item, "override")?;
            let mut rule = self.take();
            let append = |text: &mut String, more: Option<String>| {
                if let Some(more) = more {
                    text.push(' ');
                    text.push_str(&more);
                }
            };
            if let Some(condition) = change.condition {
                self.append_condition(&mut rule, item, &condition);
            }
            append(&mut rule.output, change.output);
            append(&mut rule.desc, change.desc);
            rule.tags.extend(change.tags.unwrap_or_default());
            let appended = self.append_exceptions(&mut rule, change.exceptions.unwrap_or_default());
            self.store(rule, item).and(appended)?;
        }
        if !overrides.replace.is_empty() {
            let change = self.change(item, &overrides.replace, false)?;
            self.existing(item, "override")?;
            let mut rule = self.take();
            if let Some(condition) = change.condition {
                rule.condition = condition;
                rule.condition_origin = self.origin(item.get("condition").unwrap_or(item));
                rule.appended.clear();
            }
            if let Some(output) = change.output {
                rule.output = output;
                rule.output_origin = self.origin(item.get("output").unwrap_or(item));
            }
            rule.desc = change.desc.unwrap_or(rule.desc);
            rule.tags = change.tags.unwrap_or(rule.tags);
            rule.exceptions = change.exceptions.map_or(rule.exceptions, Exceptions::new);
            rule.priority = change.priority.unwrap_or(rule.priority);
            rule.enabled = change.enabled.unwrap_or(rule.enabled);
            rule.warn_evttypes = change.warn_evttypes.unwrap_or(rule.warn_evttypes);
            rule.skip_if_unknown_filter = change.skip_if_unknown_filter.unwrap_or(rule.skip_if_unknown_filter);
            rule.capture = change.capture.unwrap_or(rule.capture);
            rule.capture_duration = change.capture_duration.unwrap_or(rule.capture_duration);
            self.store(rule, item)?;
        }
        for (key, _) in item.entries() {
            let name = key.text().unwrap_or_default();
            let named = overrides.append.iter().chain(&overrides.replace).any(|known| known == name);
            if !named && (APPENDABLE.contains(&name) || REPLACEABLE.contains(&name)) {
                let message = format!("unexpected key '{name}': no corresponding entry under 'override' is defined");
                return self.fail_in(Code::YamlValidate, message, key, &[("overrides", name)]);
            }
        }
        Ok(())
    }

    /// What an item says for the keys that its `override` appends or replaces.
    fn change(&mut self, item: &Arc<Node>, keys: &[String], append: bool) -> Result<Change, Trouble> {
        if let Some(key) = keys.iter().find(|key| item.get(key).is_none()) {
            let message = format!("an override for '{key}' was specified but '{key}' is not defined");
            return self.fail(Code::YamlValidate, message, item.get("override").unwrap_or(item));
        }
        let has = |key: &str| keys.iter().any(|known| known == key);
        let mut change = Change::default();
        if has("condition") {
            change.condition = Some(self.required(item, "condition")?);
        }
        if has("exceptions") {
            change.exceptions = Some(self.exceptions(item, append)?);
        }
        if has("output") {
            change.output = Some(self.required(item, "output")?);
        }
        if has("desc") {
            change.desc = Some(self.required(item, "desc")?);
        }
        if has("tags") {
            change.tags = Some(self.tags(item)?);
        }
        if has("priority") {
            change.priority = Some(self.priority(item)?);
        }
        let boolean = |key: &str| if has(key) { self.boolean(item, key, false).map(Some) } else { Ok(None) };
        change.enabled = boolean("enabled")?;
        change.warn_evttypes = boolean("warn_evttypes")?;
        change.skip_if_unknown_filter = boolean("skip-if-unknown-filter")?;
        change.capture = boolean("capture")?;
        if has("capture_duration") {
            change.capture_duration = self.number(item, "capture_duration")?;
        }
        Ok(change)
    }
}
