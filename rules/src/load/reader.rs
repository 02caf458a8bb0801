//! Reads the items of a rule file into the collection: shapes, types, overriding and appending.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use super::collection::{Collection, Trouble};
use super::item::{BLANKS, Entry, Exception, Exceptions, List, Macro, Order, Origin, RuleItem};
use super::yaml::{self, Node, Value};
use crate::diagnostic::Code;
use crate::nearest::{did_you_mean, nearest};
use crate::options::{LoadOptions, Version};
use crate::parse::Op;
use crate::rule::Priority;

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
/// Rule keys that `override` can append to.
const APPENDABLE: [&str; 5] = ["condition", "output", "desc", "tags", "exceptions"];
/// Rule keys that `override` can only replace.
const REPLACEABLE: [&str; 6] =
    ["priority", "enabled", "warn_evttypes", "skip-if-unknown-filter", "capture", "capture_duration"];

/// Most rules of all files. A hundred times what upstream has is half of it.
const MAX_RULES: usize = 20_000;

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

/// What an `override` map asks for.
#[derive(Default)]
struct Overrides {
    append: Vec<String>,
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
    fn is_empty(&self) -> bool {
        self.append.is_empty() && self.replace.is_empty()
    }
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

    fn engine_version(&mut self, item: &Arc<Node>) -> Result<(), Trouble> {
        let text = self.required(item, "required_engine_version")?;
        let version = parse_number(&text).map(|minor| Version(0, minor, 0)).or_else(|| Version::parse(&text));
        let Some(version) = version else {
            return self.fail(Code::YamlValidate, format!("unable to parse engine version '{text}'"), item);
        };
        let engine = self.options.engine_version;
        if version.0 != engine.0 || version > engine {
            let message = format!(
                "rules require engine version {}.{}.{}, but engine version is {}.{}.{}",
                version.0, version.1, version.2, engine.0, engine.1, engine.2
            );
            return self.fail(Code::Validate, message, item);
        }
        self.collection.required_engine = self.collection.required_engine.max(Some(version));
        Ok(())
    }

    fn plugin_versions(&mut self, item: &Arc<Node>) -> Result<(), Trouble> {
        let Some(node) = item.get("required_plugin_versions") else { return Ok(()) };
        let Some(entries) = node.items() else {
            return self.fail(
                Code::YamlValidate,
                "value of required_plugin_versions must be a sequence".to_owned(),
                node,
            );
        };
        for entry in entries {
            if !matches!(entry.value, Value::Map(_)) {
                return self.fail(Code::YamlValidate, "plugin version must be a map".to_owned(), entry);
            }
            let mut named = vec![(entry, self.required(entry, "name")?, self.required(entry, "version")?)];
            if let Some(node) = entry.get("alternatives") {
                let Some(more) = node.items() else {
                    return self.fail(Code::YamlValidate, "alternatives must be a sequence".to_owned(), node);
                };
                for entry in more {
                    if !matches!(entry.value, Value::Map(_)) {
                        return self.fail(Code::YamlValidate, "plugin version must be a map".to_owned(), entry);
                    }
                    named.push((entry, self.required(entry, "name")?, self.required(entry, "version")?));
                }
            }
            let mut alternatives: Vec<(String, Version)> = Vec::with_capacity(named.len());
            for (entry, name, version) in named {
                let Some(version) = Version::parse(&version) else {
                    let message = format!("unable to parse version '{version}' of plugin '{name}'");
                    return self.fail(Code::Validate, message, entry);
                };
                if alternatives.iter().any(|(known, _)| *known == name) {
                    return self.fail(Code::Validate, format!("plugin '{name}' is required twice"), entry);
                }
                alternatives.push((name, version));
            }
            self.collection.required_plugins.push(alternatives);
        }
        Ok(())
    }

    fn list(&mut self, item: &Arc<Node>) -> Result<(), Trouble> {
        if !is_bare_string(&self.name) {
            let message = format!("list has an invalid name: '{}' is not a bare word", self.name);
            self.warn(Code::InvalidListName, message, item);
        }
        let Some(node) = item.get("items") else {
            return self.fail(Code::YamlValidate, "list has no 'items'".to_owned(), item);
        };
        let items = self.scalars(node, "items")?;
        let legacy = self.legacy_append(item)?;
        let overrides = self.overrides(item, &["items"], &["items"], legacy)?;
        let append = legacy || !overrides.append.is_empty();
        let origin = self.origin(item);
        let name = self.name.clone();
        let order = self.collection.next_order();
        match self.collection.list_mut(&name) {
            Some(list) if append => {
                list.items.extend(items);
                list.order.visibility = order.visibility;
            }
            Some(list) => {
                list.items = items;
                list.origin = origin;
                list.order.visibility = order.visibility;
            }
            None if append => {
                let message = format!("list '{name}' has 'append' but no list by that name already exists");
                return self.missing(&message, item);
            }
            None => self.collection.add_list(List { name, items, order, origin }),
        }
        Ok(())
    }

    fn macro_item(&mut self, item: &Arc<Node>) -> Result<(), Trouble> {
        if !is_identifier(&self.name) {
            let message = format!("macro has an invalid name: '{}' is not an identifier", self.name);
            self.warn(Code::InvalidMacroName, message, item);
        }
        let condition = self.required(item, "condition")?;
        let condition_origin = self.origin(item.get("condition").unwrap_or(item));
        let legacy = self.legacy_append(item)?;
        let overrides = self.overrides(item, &["condition"], &["condition"], legacy)?;
        let append = legacy || !overrides.append.is_empty();
        let origin = self.origin(item);
        let name = self.name.clone();
        let order = self.collection.next_order();
        match self.collection.macro_mut(&name) {
            Some(known) if append => {
                known.appended.push((known.condition.len() + 1, condition_origin));
                known.condition.push(' ');
                known.condition.push_str(&condition);
                known.order.visibility = order.visibility;
            }
            Some(known) => {
                known.condition = condition;
                known.origin = origin;
                known.condition_origin = condition_origin;
                known.appended.clear();
                known.order.visibility = order.visibility;
            }
            None if append => {
                let message = format!("macro '{name}' has 'append' but no macro by that name already exists");
                return self.missing(&message, item);
            }
            None => self.collection.add_macro(Macro {
                name,
                condition,
                order,
                origin,
                condition_origin,
                appended: Vec::new(),
            }),
        }
        Ok(())
    }

    fn rule(&mut self, item: &Arc<Node>) -> Result<(), Trouble> {
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

    /// Appends, then replaces; of either first what the item says, then whether there is such a rule.
    fn override_rule(&mut self, item: &Arc<Node>, overrides: &Overrides) -> Result<(), Trouble> {
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

    fn append_condition(&self, rule: &mut RuleItem, item: &Arc<Node>, condition: &str) {
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
    fn existing(&mut self, item: &Arc<Node>, what: &str) -> Result<(), Trouble> {
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
    fn take(&mut self) -> RuleItem {
        self.collection.rule_mut(&self.name).map(std::mem::take).unwrap_or_default()
    }

    fn store(&mut self, mut rule: RuleItem, item: &Arc<Node>) -> Result<(), Trouble> {
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

    fn tags(&self, item: &Arc<Node>) -> Result<BTreeSet<String>, Trouble> {
        match item.get("tags") {
            None => Ok(BTreeSet::new()),
            Some(node) => Ok(self.scalars(node, "tags")?.into_iter().collect()),
        }
    }

    fn priority(&self, item: &Arc<Node>) -> Result<Priority, Trouble> {
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

    fn exceptions(&mut self, item: &Arc<Node>, partial: bool) -> Result<Vec<Exception>, Trouble> {
        let Some(node) = item.get("exceptions").filter(|node| !node.is_null()) else { return Ok(Vec::new()) };
        let Some(entries) = node.items() else {
            return self.fail(Code::YamlValidate, "rule exceptions must be a sequence".to_owned(), node);
        };
        let mut exceptions: Vec<Exception> = Vec::with_capacity(entries.len());
        let mut names = HashSet::with_capacity(entries.len());
        for entry in entries {
            if !matches!(entry.value, Value::Map(_)) {
                let message = "rule exception item must be a map".to_owned();
                return self.fail_in(Code::YamlValidate, message, entry, &[("exception", "")]);
            }
            let name = self.required(entry, "name").map_err(|mut trouble| {
                trouble.context.insert(1.min(trouble.context.len()), ("exception", String::new()));
                trouble
            })?;
            if !names.insert(name.clone()) {
                let message = format!("multiple definitions of exception '{name}' in the same item");
                self.warn_exception(Code::ExceptionNameNotUnique, message, entry, &name);
            }
            exceptions.push(self.exception(entry, name, partial)?);
        }
        Ok(exceptions)
    }

    fn exception(&mut self, entry: &Arc<Node>, name: String, partial: bool) -> Result<Exception, Trouble> {
        let entry_of = |key: &str| entry.get(key).map(|node| self.entry(node, key, &name)).transpose();
        let fields = entry_of("fields")?;
        if fields.is_none() && !partial {
            let message = format!("exception '{name}' has no mapping for key 'fields'");
            return self.fail_in(Code::YamlValidate, message, entry, &[("exception", &name)]);
        }
        let comps = entry_of("comps")?.map(Entry::trimmed);
        let values = match entry.get("values") {
            Some(node) => {
                let Some(items) = node.items() else {
                    let message = "exception values must be a sequence".to_owned();
                    return self.fail_in(Code::YamlValidate, message, node, &[("exception", &name)]);
                };
                items.iter().map(|item| self.entry(item, "values", &name)).collect::<Result<_, _>>()?
            }
            None => {
                if partial {
                    let message = "appending an exception without values has no effect".to_owned();
                    self.warn_exception(Code::AppendNoValues, message, entry, &name);
                }
                Vec::new()
            }
        };
        Ok(Exception { name, fields, comps, values, origin: self.origin(entry) })
    }

    /// A scalar, or a sequence of entries. Anything else says nothing.
    fn entry(&self, node: &Arc<Node>, key: &str, exception: &str) -> Result<Entry, Trouble> {
        match &node.value {
            Value::Sequence(items) => {
                Ok(Entry::Many(items.iter().map(|item| self.entry(item, key, exception)).collect::<Result<_, _>>()?))
            }
            Value::Scalar { text, .. } if text.is_empty() => {
                let message = format!("a value of '{key}' must not be empty");
                self.fail_in(Code::YamlValidate, message, node, &[("exception", exception), ("value for", key)])
            }
            Value::Scalar { text, .. } => Ok(Entry::One(text.as_ref().to_owned())),
            Value::Null | Value::Map(_) => Ok(Entry::One(String::new())),
        }
    }

    fn append_exceptions(&mut self, rule: &mut RuleItem, exceptions: Vec<Exception>) -> Result<(), Trouble> {
        for mut exception in exceptions {
            let origin = exception.origin.clone();
            let name = exception.name.clone();
            let context = [("rule", self.name.clone()), ("exception", name.clone())];
            let fail = |message: String| {
                let mut trouble = Trouble::new(Code::Validate, message, origin.clone());
                trouble.context = context.iter().map(|(kind, name)| (*kind, name.clone())).collect();
                Err(trouble)
            };
            if let Some(known) = rule.exceptions.get_mut(&name) {
                if exception.fields.as_ref().is_some_and(Entry::is_given) {
                    return fail(format!(
                        "can not append exception fields to existing exception '{name}', only values"
                    ));
                }
                if exception.comps.as_ref().is_some_and(Entry::is_given) {
                    return fail(format!("can not append exception comps to existing exception '{name}', only values"));
                }
                known.values.append(&mut exception.values);
            } else {
                if !exception.fields.as_ref().is_some_and(Entry::is_given) {
                    return fail(format!("rule exception '{name}' must have fields property with a list of fields"));
                }
                if exception.values.is_empty() {
                    return fail(format!("rule exception '{name}' must have values"));
                }
                self.validate_exception(&mut exception, rule.unknown_source)?;
                rule.exceptions.push(exception);
            }
        }
        Ok(())
    }

    /// Fills in the default operators and checks fields and operators.
    fn validate_exception(&self, exception: &mut Exception, unknown_source: bool) -> Result<(), Trouble> {
        let name = exception.name.clone();
        let fail = |message: String| {
            let mut trouble = Trouble::new(Code::Validate, message, exception.origin.clone());
            trouble.context = vec![("rule", self.name.clone()), ("exception", name.clone())];
            Err(trouble)
        };
        let Some(fields) = exception.fields.clone().filter(Entry::is_given) else {
            return fail(format!("rule exception '{name}' must have fields property with a list of fields"));
        };
        let given_comps = exception.comps.clone().filter(Entry::is_given);
        let (names, comps) = match (&fields, &given_comps) {
            (Entry::Many(names), comps) => {
                let default = || Entry::Many(vec![Entry::One("=".to_owned()); names.len()]);
                let comps = comps.clone().unwrap_or_else(default);
                let Entry::Many(operators) = &comps else {
                    return fail("fields and comps must both be strings or both be lists".to_owned());
                };
                if operators.len() != names.len() {
                    return fail("fields and comps lists must have equal length".to_owned());
                }
                for operator in operators {
                    let Entry::One(operator) = operator else { return fail("an operator must be a text".to_owned()) };
                    if !super::exception::is_operator(operator) {
                        let hint = did_you_mean(operator, Op::names());
                        return fail(format!("'{operator}' is not a supported comparison operator{hint}"));
                    }
                }
                (names.clone(), comps)
            }
            (Entry::One(field), comps) => {
                let comps = comps.clone().unwrap_or_else(|| Entry::One("in".to_owned()));
                let Entry::One(operator) = &comps else {
                    return fail("fields and comps must both be strings or both be lists".to_owned());
                };
                if !super::exception::takes_list(operator) {
                    return fail("if fields is a string, comps must take a list: in, pmatch, intersects or an operator with a modifier".to_owned());
                }
                (vec![Entry::One(field.clone())], comps)
            }
        };
        for field in names.into_iter().filter(|_| !unknown_source) {
            let Entry::One(field) = field else { return fail("a field must be a text".to_owned()) };
            if !self.collection.is_field(&field) {
                let near = self.collection.catalogue().nearest(&field);
                let hint = near.map(|near| format!("; did you mean '{near}'?")).unwrap_or_default();
                return fail(format!("'{field}' is not a supported filter field{hint}"));
            }
        }
        exception.comps = Some(comps);
        Ok(())
    }

    fn legacy_append(&mut self, item: &Arc<Node>) -> Result<bool, Trouble> {
        let append = self.boolean(item, "append", false)?;
        if append {
            let message = "'append' key is deprecated, use 'override' instead".to_owned();
            self.warn(Code::DeprecatedItem, message, item.get("append").unwrap_or(item));
        }
        Ok(append)
    }

    fn overrides(
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

    fn required(&self, item: &Arc<Node>, key: &str) -> Result<String, Trouble> {
        let Some(node) = item.get(key) else {
            // A key that is misspelt is one that is missing, and this error comes first.
            let keys = item.entries().iter().filter_map(|(key, _)| key.text());
            let near = nearest(key, keys.filter(|key| !RULE_KEYS.contains(key)));
            let hint = near.map(|near| format!("; is '{near}' meant to be it?")).unwrap_or_default();
            let misspelt = item.entries().iter().map(|(key, _)| key).find(|key| near.is_some() && key.text() == near);
            return self
                .fail(Code::YamlValidate, format!("item has no mapping for key '{key}'{hint}"), item)
                .map_err(|trouble: Trouble| Trouble { spot: misspelt.map(|key| self.origin(key)), ..trouble });
        };
        self.scalar(node, key)
    }

    fn optional(&self, item: &Arc<Node>, key: &str) -> Result<Option<String>, Trouble> {
        item.get(key).map(|node| self.scalar(node, key)).transpose()
    }

    /// A scalar that is not empty.
    fn scalar(&self, node: &Arc<Node>, key: &str) -> Result<String, Trouble> {
        let fail = |message: String| self.fail_in(Code::YamlValidate, message, node, &[("value for", key)]);
        match &node.value {
            Value::Scalar { text, .. } if text.is_empty() => fail(format!("the value of '{key}' must not be empty")),
            Value::Scalar { text, .. } => Ok(text.as_ref().to_owned()),
            Value::Null => self.fail(Code::YamlValidate, format!("mapping for key '{key}' is empty"), node),
            _ => fail(format!("the value of '{key}' is not a scalar")),
        }
    }

    fn scalars(&self, node: &Arc<Node>, key: &str) -> Result<Vec<String>, Trouble> {
        let parts = [("value for", key)];
        let Some(items) = node.items() else {
            return self.fail_in(Code::YamlValidate, format!("the value of '{key}' is not a sequence"), node, &parts);
        };
        let scalar = |item: &Arc<Node>| match item.text() {
            Some(text) => Ok(text.to_owned()),
            None => self.fail_in(Code::YamlValidate, format!("an item of '{key}' is not a scalar"), item, &parts),
        };
        items.iter().map(scalar).collect()
    }

    fn boolean(&self, item: &Arc<Node>, key: &str, default: bool) -> Result<bool, Trouble> {
        let Some(node) = item.get(key) else { return Ok(default) };
        let text = self.scalar(node, key)?;
        parse_bool(&text).map_or_else(
            || {
                let message = format!("the value of '{key}' must be a boolean");
                self.fail_in(Code::YamlValidate, message, node, &[("value for", key)])
            },
            Ok,
        )
    }

    fn number(&self, item: &Arc<Node>, key: &str) -> Result<Option<u32>, Trouble> {
        let Some(node) = item.get(key) else { return Ok(None) };
        let text = self.scalar(node, key)?;
        match parse_number(&text) {
            Some(number) => Ok(Some(number)),
            None => {
                let message = format!("the value of '{key}' must be a number from 0 to {}", u32::MAX);
                self.fail_in(Code::YamlValidate, message, node, &[("value for", key)])
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

    fn warn_exception(&mut self, code: Code, message: String, entry: &Node, exception: &str) {
        let origin = self.origin(entry);
        self.collection.warn_in(code, message, origin, &[(self.kind, &self.name), ("exception", exception)]);
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

/// The nearest priority, in the case that most files have.
fn priority_hint(word: &str) -> String {
    let names: Vec<String> = Priority::ALL.iter().map(|priority| priority.name().to_ascii_uppercase()).collect();
    let word = word.to_ascii_uppercase();
    let near = nearest(&word, names.iter().map(String::as_str).chain(["INFO"]));
    near.map_or_else(|| format!("; known are {}", names.join(", ")), |near| format!("; did you mean '{near}'?"))
}

/// A number of 32 bits as YAML has it: decimal, hexadecimal after `0x`, octal after `0`.
fn parse_number(text: &str) -> Option<u32> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let (digits, radix) = match text.as_bytes() {
        [b'0', b'x' | b'X', _, ..] => (&text[2..], 16),
        [b'0', _, ..] => (&text[1..], 8),
        _ => (text, 10),
    };
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| char::from(byte).is_digit(radix));
    if is_number { u32::from_str_radix(digits, radix).ok() } else { None }
}

/// YAML 1.1's booleans but for single letters in all their cases.
pub(super) fn parse_bool(text: &str) -> Option<bool> {
    let cases = |word: &str| {
        let mut capital = word.to_owned();
        capital[..1].make_ascii_uppercase();
        text == word || text == capital || text == word.to_ascii_uppercase()
    };
    if ["y", "yes", "true", "on"].into_iter().any(cases) {
        return Some(true);
    }
    ["n", "no", "false", "off"].into_iter().any(cases).then_some(false)
}

fn is_identifier(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn is_bare_string(name: &str) -> bool {
    !name
        .bytes()
        .any(|byte| matches!(byte, b' ' | 8 | b'\t' | b'\n' | b'\r' | b'(' | b')' | b',' | b'=' | b'"' | b'\''))
}
