//! Exceptions of rules: their shape, their defaults, and how those of one item are added to those of another.

use std::collections::HashSet;
use std::sync::Arc;

use super::Reader;
use crate::diagnostic::Code;
use crate::load::collection::Trouble;
use crate::load::exception::{is_operator, takes_list};
use crate::load::item::{Entry, Exception, RuleItem};
use crate::load::yaml::{Node, Value};
use crate::nearest::did_you_mean;
use crate::parse::Op;

impl Reader<'_> {
    pub(super) fn exceptions(&mut self, item: &Arc<Node>, partial: bool) -> Result<Vec<Exception>, Trouble> {
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

    pub(super) fn append_exceptions(&mut self, rule: &mut RuleItem, exceptions: Vec<Exception>) -> Result<(), Trouble> {
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
    pub(super) fn validate_exception(&self, exception: &mut Exception, unknown_source: bool) -> Result<(), Trouble> {
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
                    if !is_operator(operator) {
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
                if !takes_list(operator) {
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

    fn warn_exception(&mut self, code: Code, message: String, entry: &Node, exception: &str) {
        let origin = self.origin(entry);
        self.collection.warn_in(code, message, origin, &[(self.kind, &self.name), ("exception", exception)]);
    }
}
