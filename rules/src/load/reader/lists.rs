//! Lists.

use std::sync::Arc;

use super::Reader;
use crate::diagnostic::Code;
use crate::load::collection::Trouble;
use crate::load::item::List;
use crate::load::yaml::Node;

impl Reader<'_> {
    pub(super) fn list(&mut self, item: &Arc<Node>) -> Result<(), Trouble> {
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
}

fn is_bare_string(name: &str) -> bool {
    !name
        .bytes()
        .any(|byte| matches!(byte, b' ' | 8 | b'\t' | b'\n' | b'\r' | b'(' | b')' | b',' | b'=' | b'"' | b'\''))
}
