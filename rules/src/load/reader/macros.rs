//! Macros.

use std::sync::Arc;

use super::Reader;
use crate::diagnostic::Code;
use crate::load::collection::Trouble;
use crate::load::item::Macro;
use crate::load::yaml::Node;

impl Reader<'_> {
    pub(super) fn macro_item(&mut self, item: &Arc<Node>) -> Result<(), Trouble> {
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
}

fn is_identifier(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
