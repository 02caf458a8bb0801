//! Reads the items of a rule file into the collection: shapes, types, overriding and appending.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use super::collection::{Collection, Trouble};
use super::item::{Entry, Exception, Exceptions, List, Macro, Order, Origin, RuleItem};
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
        let version = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            text.parse().ok().map(|minor| Version(0, minor, 0))
        } else {
            Version::parse(&text)
        };
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
            let mut alternatives = vec![self.plugin_version(entry)?];
            if let Some(node) = entry.get("alternatives") {
                let Some(more) = node.items() else {
                    return self.fail(Code::YamlValidate, "alternatives must be a sequence".to_owned(), node);
                };
                for alternative in more {
                    let alternative_version = self.plugin_version(alternative)?;
                    if alternatives.iter().any(|(name, _)| *name == alternative_version.0) {
                        let message = format!("plugin '{}' is required twice", alternative_version.0);
                        return self.fail(Code::Validate, message, alternative);
                    }
                    alternatives.push(alternative_version);
                }
            }
            self.collection.required_plugins.push(alternatives);
        }
        Ok(())
    }

    fn plugin_version(&self, entry: &Arc<Node>) -> Result<(String, Version), Trouble> {
        let name = self.required(entry, "name")?;
        let version = self.required(entry, "version")?;
        match Version::parse(&version) {
            Some(version) => Ok((name, version)),
            None => self.fail(Code::Validate, format!("unable to parse version '{version}' of plugin '{name}'"), entry),
        }
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
                join(&mut known.condition, &condition);
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
        if condition.is_none() && exceptions.as_ref().is_none_or(Vec::is_empty) {
            let message = "appended rule must have exceptions or condition property".to_owned();
            return self.fail(Code::Validate, message, item);
        }
        self.change(item, "append", |reader, rule| {
            if let Some(condition) = condition {
                reader.append_condition(rule, item, &condition);
            }
            reader.append_exceptions(rule, exceptions.unwrap_or_default())
        })
    }

    fn override_rule(&mut self, item: &Arc<Node>, overrides: &Overrides) -> Result<(), Trouble> {
        // Shapes first: a wrong one is an error whether the rule exists or not.
        self.tags(item)?;
        let appends_exceptions = overrides.append.iter().any(|key| key == "exceptions");
        let exceptions = self.exceptions(item, appends_exceptions)?.unwrap_or_default();
        self.change(item, "override", |reader, rule| reader.apply(item, overrides, &exceptions, rule))
    }

    /// Appends and replaces what an item asks for; appends come first.
    fn apply(
        &mut self,
        item: &Arc<Node>,
        overrides: &Overrides,
        exceptions: &[Exception],
        rule: &mut RuleItem,
    ) -> Result<(), Trouble> {
        for key in &overrides.append {
            match key.as_str() {
                "condition" => {
                    let condition = self.required(item, key)?;
                    self.append_condition(rule, item, &condition);
                }
                "output" => join(&mut rule.output, &self.required(item, key)?),
                "desc" => join(&mut rule.desc, &self.required(item, key)?),
                "tags" => rule.tags.extend(self.tags(item)?),
                _ => self.append_exceptions(rule, exceptions.to_vec())?,
            }
        }
        for key in &overrides.replace {
            match key.as_str() {
                "condition" => {
                    rule.condition = self.required(item, key)?;
                    rule.condition_origin = self.origin(item.get(key).unwrap_or(item));
                    rule.appended.clear();
                }
                "output" => {
                    rule.output = self.required(item, key)?;
                    rule.output_origin = self.origin(item.get(key).unwrap_or(item));
                }
                "desc" => rule.desc = self.required(item, key)?,
                "tags" => rule.tags = self.tags(item)?,
                "exceptions" => rule.exceptions = Exceptions::new(exceptions.to_vec()),
                "priority" => rule.priority = self.priority(item)?,
                "enabled" => rule.enabled = self.boolean(item, key, rule.enabled)?,
                "warn_evttypes" => rule.warn_evttypes = self.boolean(item, key, rule.warn_evttypes)?,
                "skip-if-unknown-filter" => {
                    rule.skip_if_unknown_filter = self.boolean(item, key, rule.skip_if_unknown_filter)?;
                }
                "capture" => rule.capture = self.boolean(item, key, rule.capture)?,
                _ => rule.capture_duration = self.number(item, key)?.unwrap_or(0),
            }
        }
        Ok(())
    }

    fn append_condition(&self, rule: &mut RuleItem, item: &Arc<Node>, condition: &str) {
        let origin = self.origin(item.get("condition").unwrap_or(item));
        rule.appended.push((rule.condition.len() + 1, origin));
        rule.condition = format!("{} {condition}", rule.condition);
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
        let source = self.optional(item, "source")?;
        let name = self.name.clone();
        if let (Some(known), Some(source)) = (self.collection.rule_mut(&name), &source)
            && known.source != *source
        {
            let message = "rule has been re-defined with a different source".to_owned();
            return self.fail(Code::Validate, message, item);
        }
        let known_source = self.collection.rule_mut(&name).map(|known| known.source.clone());
        let source = source.or(known_source).unwrap_or_else(|| "syscall".to_owned());
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
            exceptions: Exceptions::default(),
            order: Order::default(),
            origin: self.origin(item),
            condition_origin: self.origin(item.get("condition").unwrap_or(item)),
            output_origin: self.origin(item.get("output").unwrap_or(item)),
            appended: Vec::new(),
            unknown_source: !self.options.sources.contains(&source),
            source,
        };
        let mut exceptions = self.exceptions(item, false)?.unwrap_or_default();
        if rule.unknown_source {
            let message = format!("unknown source '{}', the rule is skipped", rule.source);
            self.warn(Code::UnknownSource, message, item);
        }
        for exception in &mut exceptions {
            self.validate_exception(exception, rule.unknown_source)?;
        }
        rule.exceptions = Exceptions::new(exceptions);
        self.store(rule, item)
    }

    /// Changes the rule that an item names, in its place: copies would make ten thousand changes of a large rule endless.
    fn change(
        &mut self,
        item: &Arc<Node>,
        what: &str,
        apply: impl FnOnce(&mut Self, &mut RuleItem) -> Result<(), Trouble>,
    ) -> Result<(), Trouble> {
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
        let mut rule = std::mem::take(rule);
        let applied = apply(self, &mut rule);
        // Back in its place even after an error: what is defined can be listed then, too.
        let visibility = self.collection.next_order().visibility;
        rule.order.visibility = visibility;
        if let Some(place) = self.collection.rule_mut(&name) {
            *place = rule;
        }
        applied
    }

    fn store(&mut self, mut rule: RuleItem, item: &Node) -> Result<(), Trouble> {
        let order = self.collection.next_order();
        if let Some(known) = self.collection.rule_mut(&rule.name) {
            rule.order = Order { index: known.order.index, visibility: order.visibility };
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

    fn exceptions(&mut self, item: &Arc<Node>, partial: bool) -> Result<Option<Vec<Exception>>, Trouble> {
        let Some(node) = item.get("exceptions").filter(|node| !node.is_null()) else { return Ok(None) };
        let Some(entries) = node.items() else {
            return self.fail(Code::YamlValidate, "rule exceptions must be a sequence".to_owned(), node);
        };
        let mut exceptions: Vec<Exception> = Vec::with_capacity(entries.len());
        let mut names = HashSet::with_capacity(entries.len());
        for entry in entries {
            if !matches!(entry.value, Value::Map(_)) {
                return self.fail(Code::YamlValidate, "rule exception item must be a map".to_owned(), entry);
            }
            let name = self.required(entry, "name")?;
            if !names.insert(name.clone()) {
                let origin = self.origin(entry);
                let message = format!("multiple definitions of exception '{name}' in the same item");
                self.collection.warn_in(
                    Code::ExceptionNameNotUnique,
                    message,
                    origin,
                    &[(self.kind, &self.name), ("exception", &name)],
                );
            }
            let entry_of = |key: &str| match entry.get(key) {
                None => Ok(None),
                Some(node) => self.entry(node, key, false).map(Some),
            };
            let fields = entry_of("fields")?;
            if fields.is_none() && !partial {
                let message = format!("exception '{name}' has no mapping for key 'fields'");
                let mut trouble = Trouble::new(Code::YamlValidate, message, self.origin(entry));
                trouble.context = vec![(self.kind, self.name.clone()), ("exception", name)];
                return Err(trouble);
            }
            let comps = entry_of("comps")?;
            if partial && entry.get("values").is_none() {
                self.collection.warn_in(
                    Code::AppendNoValues,
                    "appending an exception without values has no effect".to_owned(),
                    self.origin(entry),
                    &[(self.kind, &self.name), ("exception", &name)],
                );
            }
            let values = match entry.get("values") {
                None => Vec::new(),
                Some(node) => match node.items() {
                    Some(items) => {
                        items.iter().map(|item| self.entry(item, "values", true)).collect::<Result<_, _>>()?
                    }
                    None => {
                        return self.fail(Code::YamlValidate, "exception values must be a sequence".to_owned(), node);
                    }
                },
            };
            exceptions.push(Exception { name, fields, comps, values, origin: self.origin(entry) });
        }
        Ok(Some(exceptions))
    }

    /// A scalar, or a sequence of scalars (and for values of sequences).
    fn entry(&self, node: &Arc<Node>, key: &str, nested: bool) -> Result<Entry, Trouble> {
        if let Some(items) = node.items() {
            let items = items.iter().map(|item| {
                if item.items().is_some() && !nested {
                    return self.fail(Code::YamlValidate, format!("'{key}' must hold scalars"), item);
                }
                self.entry(item, key, nested)
            });
            return Ok(Entry::Many(items.collect::<Result<_, _>>()?));
        }
        match node.text() {
            Some(text) if !text.is_empty() => Ok(Entry::One(text.trim_matches(BLANKS).to_owned())),
            Some(_) if nested => Ok(Entry::One(String::new())),
            _ => self.fail(Code::YamlValidate, format!("a value of '{key}' must be a non-empty scalar"), node),
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
                if exception.fields.is_some() {
                    return fail(format!(
                        "can not append exception fields to existing exception '{name}', only values"
                    ));
                }
                if exception.comps.is_some() {
                    return fail(format!("can not append exception comps to existing exception '{name}', only values"));
                }
                known.values.append(&mut exception.values);
            } else {
                if exception.fields.is_none() {
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
        let Some(fields) = exception.fields.clone() else {
            return fail(format!("rule exception '{name}' must have fields property with a list of fields"));
        };
        let (names, comps) = match (&fields, &exception.comps) {
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
        for field in names {
            let Entry::One(field) = field else { return fail("a field must be a text".to_owned()) };
            if !unknown_source && !self.collection.is_field(&field) {
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
                    return self.fail(Code::YamlValidate, message, operation);
                }
            };
            if !allowed.contains(&name.as_str()) {
                let word = operation.text().unwrap_or_default();
                return self.fail(Code::YamlValidate, format!("key '{name}' cannot be overridden with {word}"), key);
            }
            if item.get(&name).is_none() {
                let message = format!("an override for '{name}' was specified but '{name}' is not defined");
                return self.fail(Code::YamlValidate, message, key);
            }
            keys.push(name);
        }
        if legacy && !overrides.is_empty() {
            let message = "keys 'override' and 'append: true' cannot be used together".to_owned();
            return self.fail(Code::YamlValidate, message, item);
        }
        if self.kind == "rule" && !overrides.is_empty() {
            for (key, _) in item.entries() {
                let name = key.text().unwrap_or_default();
                let named = overrides.append.iter().chain(&overrides.replace).any(|known| known == name);
                if replaceable.contains(&name) && !named {
                    let message =
                        format!("unexpected key '{name}': no corresponding entry under 'override' is defined");
                    return self.fail(Code::YamlValidate, message, key);
                }
            }
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
        match self.scalar(node, key)? {
            text if text.is_empty() => {
                self.fail(Code::YamlValidate, format!("the value of '{key}' must not be empty"), node)
            }
            text => Ok(text),
        }
    }

    fn optional(&self, item: &Arc<Node>, key: &str) -> Result<Option<String>, Trouble> {
        item.get(key).map(|node| self.scalar(node, key)).transpose()
    }

    fn scalar(&self, node: &Arc<Node>, key: &str) -> Result<String, Trouble> {
        match &node.value {
            Value::Scalar { text, .. } => Ok(text.as_ref().to_owned()),
            Value::Null => self.fail(Code::YamlValidate, format!("mapping for key '{key}' is empty"), node),
            _ => self.fail(Code::YamlValidate, format!("the value of '{key}' is not a scalar"), node),
        }
    }

    fn scalars(&self, node: &Arc<Node>, key: &str) -> Result<Vec<String>, Trouble> {
        let Some(items) = node.items() else {
            return self.fail(Code::YamlValidate, format!("the value of '{key}' is not a sequence"), node);
        };
        items
            .iter()
            .map(|item| match &item.value {
                Value::Scalar { text, .. } if !text.is_empty() => Ok(text.as_ref().to_owned()),
                _ => self.fail(Code::YamlValidate, format!("an item of '{key}' is not a non-empty scalar"), item),
            })
            .collect()
    }

    fn boolean(&self, item: &Arc<Node>, key: &str, default: bool) -> Result<bool, Trouble> {
        let Some(node) = item.get(key) else { return Ok(default) };
        let text = self.scalar(node, key)?;
        match parse_bool(&text) {
            Some(value) => Ok(value),
            None => self.fail(Code::YamlValidate, format!("the value of '{key}' must be a boolean"), node),
        }
    }

    fn number(&self, item: &Arc<Node>, key: &str) -> Result<Option<u32>, Trouble> {
        let Some(node) = item.get(key) else { return Ok(None) };
        match self.scalar(node, key)?.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => self.fail(Code::YamlValidate, format!("the value of '{key}' must be a number"), node),
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
        let mut trouble = Trouble::new(code, message, self.origin(node));
        if !self.kind.is_empty() {
            trouble.context = vec![(self.kind, self.name.clone())];
        }
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

const BLANKS: [char; 6] = [' ', '\t', '\n', '\r', '\u{b}', '\u{c}'];

/// Joins texts as upstream does: with one blank, and nothing else.
fn join(text: &mut String, more: &str) {
    text.push(' ');
    text.push_str(more);
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
