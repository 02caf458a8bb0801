//! Rules: those that an item defines, and how an item without `override` changes one.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Reader;
use super::overrides::{APPENDABLE, REPLACEABLE};
use crate::diagnostic::Code;
use crate::load::collection::Trouble;
use crate::load::item::{BLANKS, Exceptions, Order, RuleItem};
use crate::load::yaml::Node;
use crate::nearest::nearest;
use crate::rule::Priority;

/// Most rules of all files. A hundred times what upstream has is half of it.
const MAX_RULES: usize = 20_000;

impl Reader<'_> {
    pub(super) fn rule(&mut self, item: &Arc<Node>) -> Result<(), Trouble> {
        let legacy = self.legacy_append(item)?;
        let replaceable: Vec<&str> = APPENDABLE.iter().chain(&REPLACEABLE).copied().collect();
        let overrides = self.overrides(item, &APPENDABLE, &replaceable, legacy)?;
        if !overrides.is_empty() {
            return self.override_rule(item, &overrides);
        }
        if legacy {
            return self.append_rule(item);
        }
        let defines = ["condition", "output", "desc", "priority"].iter().any(|key| item.get(key).is_some());
        if !defines {
            return self.switch_rule(item);
        }
        self.define_rule(item)
    }

    /// `append: true`: only condition and exceptions count.
    fn append_rule(&mut self, item: &Arc<Node>) -> Result<(), Trouble> {
        let condition = self.optional(item, "condition")?;
        let exceptions = self.exceptions(item, true)?;
        self.existing(item, "append")?;
        if item.get("condition").is_none() && item.get("exceptions").is_none() {
            let message = "appended rule must have exceptions or condition property".to_owned();
            return self.fail(Code::Validate, message, item);
        }
        let mut rule = self.take();
        if let Some(condition) = condition {
            self.append_condition(&mut rule, item, &condition);
        }
        let appended = self.append_exceptions(&mut rule, exceptions);
        self.store(rule, item).and(appended)
    }

    pub(super) fn append_condition(&self, rule: &mut RuleItem, item: &Arc<Node>, condition: &str) {
        let origin = self.origin(item.get("condition").unwrap_or(item));
        rule.appended.push((rule.condition.len() + 1, origin));
        rule.condition.push(' ');
        rule.condition.push_str(condition);
    }

    /// Only `enabled`: switches a rule on or off.
    fn switch_rule(&mut self, item: &Arc<Node>) -> Result<(), Trouble> {
        if item.get("enabled").is_none() {
            let missing = ["condition", "output", "desc", "priority"].join(", ");
            return self.fail(Code::YamlValidate, format!("rule must have properties {missing}"), item);
        }
        let enabled = self.boolean(item, "enabled", true)?;
        let message = "the standalone 'enabled' key is deprecated, use 'override: {enabled: replace}'".to_owned();
        self.warn(Code::DeprecatedItem, message, item);
        let name = self.name.clone();
        if let Some(rule) = self.collection.rule_mut(&name) {
            rule.enabled = enabled;
        } else {
            let message = "rule has 'enabled' key but no rule by that name already exists";
            return self.missing(message, item);
        }
        Ok(())
    }

    fn define_rule(&mut self, item: &Arc<Node>) -> Result<(), Trouble> {
        let condition = self.required(item, "condition")?;
        let output = self.required(item, "output")?.trim_matches(BLANKS).to_owned();
        let desc = self.required(item, "desc")?;
        let priority = self.priority(item)?;
        let own_source = self.optional(item, "source")?;
        let name = self.name.clone();
        let known_source = self.collection.rule_mut(&name).map(|known| known.source.clone());
        let source = own_source.clone().or_else(|| known_source.clone()).unwrap_or_else(|| "syscall".to_owned());
        let mut rule = RuleItem {
            name,
            condition,
            output,
            desc,
            priority,
            enabled: self.boolean(item, "enabled", true)?,
            capture: self.boolean(item, "capture", false)?,
            capture_duration: self.number(item, "capture_duration")?.unwrap_or(0),
            warn_evttypes: self.boolean(item, "warn_evttypes", true)?,
            skip_if_unknown_filter: self.boolean(item, "skip-if-unknown-filter", false)?,
            tags: self.tags(item)?,
            exceptions: Exceptions::new(self.exceptions(item, false)?),
            order: Order::default(),
            origin: self.origin(item),
            condition_origin: self.origin(item.get("condition").unwrap_or(item)),
            output_origin: self.origin(item.get("output").unwrap_or(item)),
            appended: Vec::new(),
            unknown_source: !self.options.sources.contains(&source),
            source,
        };
        if own_source.is_some() && known_source.is_some_and(|known| known != rule.source) {
            let message = "rule has been re-defined with a different source".to_owned();
            return self.fail(Code::Validate, message, item);
        }
        if rule.unknown_source {
            let message = format!("unknown source '{}', the rule is skipped", rule.source);
            self.warn(Code::UnknownSource, message, item);
        }
        let unknown_source = rule.unknown_source;
        for exception in rule.exceptions.all_mut() {
            self.validate_exception(exception, unknown_source)?;
        }
        self.store(rule, item)
    }

    /// The rule that an item changes has to be there.
    pub(super) fn existing(&mut self, item: &Arc<Node>, what: &str) -> Result<(), Trouble> {
        let source = match item.get("source") {
            Some(node) if !node.is_null() => self.optional(item, "source")?,
            _ => None,
        };
        let name = self.name.clone();
        let Some(rule) = self.collection.rule_mut(&name) else {
            let message = format!("rule has '{what}' key but no rule by that name already exists");
            return self.missing(&message, item);
        };
        if source.is_some_and(|source| source != rule.source) {
            let message = "rule has been re-defined with a different source".to_owned();
            return self.fail(Code::Validate, message, item);
        }
        Ok(())
    }

    /// The rule that an item changes, out of its place, to be stored again whatever happens: copies would make ten thousand
    /// changes of a large rule endless.
    pub(super) fn take(&mut self) -> RuleItem {
        self.collection.rule_mut(&self.name).map(std::mem::take).unwrap_or_default()
    }

    pub(super) fn store(&mut self, mut rule: RuleItem, item: &Arc<Node>) -> Result<(), Trouble> {
        let order = self.collection.next_order();
        if let Some(known) = self.collection.rule_mut(&rule.name) {
            // One of the two is new, and 0.
            rule.order = Order { index: known.order.index.max(rule.order.index), visibility: order.visibility };
            *known = rule;
        } else {
            rule.order = order;
            self.collection.add_rule(rule);
        }
        if self.collection.rules().len() > MAX_RULES {
            return self.fail(Code::Validate, format!("there are more than {MAX_RULES} rules"), item);
        }
        Ok(())
    }

    pub(super) fn tags(&self, item: &Arc<Node>) -> Result<BTreeSet<String>, Trouble> {
        match item.get("tags") {
            None => Ok(BTreeSet::new()),
            Some(node) => Ok(self.scalars(node, "tags")?.into_iter().collect()),
        }
    }

    pub(super) fn priority(&self, item: &Arc<Node>) -> Result<Priority, Trouble> {
        let word = self.required(item, "priority")?;
        match Priority::parse(&word) {
            Some(priority) => Ok(priority),
            None => self.fail(
                Code::YamlValidate,
                format!("invalid priority '{word}'{}", priority_hint(&word)),
                item.get("priority").unwrap_or(item),
            ),
        }
    }
}

/// The nearest priority, in the case that most files have.
fn priority_hint(word: &str) -> String {
    let names: Vec<String> = Priority::ALL.iter().map(|priority| priority.name().to_ascii_uppercase()).collect();
    let word = word.to_ascii_uppercase();
    let near = nearest(&word, names.iter().map(String::as_str).chain(["INFO"]));
    near.map_or_else(|| format!("; known are {}", names.join(", ")), |near| format!("; did you mean '{near}'?"))
}
