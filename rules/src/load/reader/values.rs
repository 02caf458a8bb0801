//! Values of keys: texts, sequences of texts, booleans and numbers.

use std::sync::Arc;

use super::{RULE_KEYS, Reader};
use crate::diagnostic::Code;
use crate::load::collection::Trouble;
use crate::load::yaml::{Node, Value};
use crate::nearest::nearest;

impl Reader<'_> {
    pub(super) fn required(&self, item: &Arc<Node>, key: &str) -> Result<String, Trouble> {
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

    pub(super) fn optional(&self, item: &Arc<Node>, key: &str) -> Result<Option<String>, Trouble> {
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

    pub(super) fn scalars(&self, node: &Arc<Node>, key: &str) -> Result<Vec<String>, Trouble> {
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

    pub(super) fn boolean(&self, item: &Arc<Node>, key: &str, default: bool) -> Result<bool, Trouble> {
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

    pub(super) fn number(&self, item: &Arc<Node>, key: &str) -> Result<Option<u32>, Trouble> {
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
}

/// A number of 32 bits as YAML has it: decimal, hexadecimal after `0x`, octal after `0`.
pub(super) fn parse_number(text: &str) -> Option<u32> {
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
fn parse_bool(text: &str) -> Option<bool> {
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
