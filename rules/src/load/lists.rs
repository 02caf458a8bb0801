//! Puts lists into conditions: in the text, before it is parsed.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::collection::Collection;

/// Longest condition with its lists put in.
const MAX_TEXT: usize = 16 << 20;

/// Largest weight of all conditions together, with their lists put in: what they become must fit into memory. A value in a list
/// weighs one, any other word two.
const MAX_WEIGHT: usize = 1_000_000;

/// Most bytes that are searched and copied while lists are put in one after another.
const MAX_WORK: usize = 1 << 30;

/// Lists with their items; an item that names an earlier list is replaced by that list's items as written.
pub(crate) fn lists(collection: &Collection) -> Vec<(String, Vec<String>)> {
    let items = |list: &super::item::List| {
        let mut items = Vec::with_capacity(list.items.len());
        for item in &list.items {
            match collection.list(item).map(|at| &collection.lists()[at]) {
                Some(other) if other.order.index < list.order.visibility => items.extend(other.items.iter().cloned()),
                _ => items.push(item.clone()),
            }
        }
        items
    };
    collection.lists().iter().map(|list| (list.name.clone(), items(list))).collect()
}

/// Lists with the lists in their items put in, and which of them are used.
pub(crate) struct Lists<'a> {
    names: Vec<&'a str>,
    values: Vec<String>,
    is_empty: Vec<bool>,
    by_name: HashMap<&'a str, usize>,
    /// Lists whose name holds a delimiter: they are not found word by word.
    odd: Vec<usize>,
    pub(crate) used: HashSet<usize>,
    /// Of all conditions so far.
    weight: usize,
    /// Bytes gone through so far.
    work: usize,
}

impl<'a> Lists<'a> {
    pub(crate) fn new(collection: &'a Collection) -> Self {
        let mut used = HashSet::new();
        let mut values = Vec::new();
        let mut is_empty = Vec::new();
        for list in collection.lists() {
            let mut items: Vec<String> = Vec::with_capacity(list.items.len());
            for item in &list.items {
                let other =
                    collection.list(item).filter(|at| collection.lists()[*at].order.index < list.order.visibility);
                match other {
                    Some(at) => {
                        used.insert(at);
                        items.extend(collection.lists()[at].items.iter().map(|item| super::exception::quoted(item)));
                    }
                    None => items.push(super::exception::quoted(item)),
                }
            }
            // Empty texts at the start leave no comma, as upstream.
            let first = items.iter().position(|item| !item.is_empty()).unwrap_or(items.len());
            let value = items[first..].join(", ");
            is_empty.push(value.is_empty());
            values.push(value);
        }
        let names: Vec<&str> = collection.lists().iter().map(|list| list.name.as_str()).collect();
        let by_name = names.iter().enumerate().map(|(at, name)| (*name, at)).collect();
        let odd = (0..names.len()).filter(|at| names[*at].bytes().any(is_delimiter)).collect();
        Self { names, values, is_empty, by_name, odd, used, weight: 0, work: 0 }
    }

    /// Replaces list names in a condition, as if list by list in order of definition.
    ///
    /// # Errors
    /// It grows beyond all bounds.
    pub(crate) fn substitute(&mut self, condition: &str) -> Result<String, String> {
        let text = match self.expand(condition)? {
            Some(text) => text,
            None => self.replace(condition)?,
        };
        self.weight = self.weight.saturating_add(weight(text.as_bytes()));
        if self.weight > MAX_WEIGHT {
            return Err(format!(
                "all conditions together are too large with their lists put in (more than {MAX_WEIGHT} values in lists, or half as many other words)"
            ));
        }
        Ok(text)
    }

    /// Replaces names word by word, in time that grows with the result. Nothing where the order of replacements can make a
    /// difference: names with delimiters, empty lists (which take a comma with them) and quotes (in which blanks count).
    fn expand(&mut self, condition: &str) -> Result<Option<String>, String> {
        let is_quoted = |text: &str| memchr::memchr2(b'\'', b'"', text.as_bytes()).is_some();
        if !self.odd.is_empty() || is_quoted(condition) {
            return Ok(None);
        }
        let mut out = String::with_capacity(condition.len());
        let mut used = Vec::new();
        // Texts still to be copied, and from which list on their words are replaced.
        let mut rest: Vec<(&str, usize)> = vec![(condition, 0)];
        while let Some((text, from)) = rest.pop() {
            let Some((start, end, at)) = self.first_name(text, from) else {
                out.push_str(text);
                continue;
            };
            if self.is_empty[at] || is_quoted(&self.values[at]) {
                return Ok(None);
            }
            used.push(at);
            out.push_str(&text[..start]);
            out.push(' ');
            rest.extend([(&text[end..], from), (" ", usize::MAX), (self.values[at].as_str(), at + 1)]);
            if out.len() > MAX_TEXT {
                return Err(TOO_LARGE.to_owned());
            }
        }
        self.used.extend(used);
        Ok(Some(out))
    }

    /// The first word that names a list from number `from` on: where it begins and ends, and the list.
    fn first_name(&self, text: &str, from: usize) -> Option<(usize, usize, usize)> {
        let bytes = text.as_bytes();
        let mut end = 0;
        while from < self.names.len() && end < bytes.len() {
            let start = end + bytes[end..].iter().position(|byte| !is_delimiter(*byte))?;
            end = start + bytes[start..].iter().position(|byte| is_delimiter(*byte)).unwrap_or(bytes.len() - start);
            match self.by_name.get(&text[start..end]) {
                Some(at) if *at >= from => return Some((start, end, *at)),
                _ => {}
            }
        }
        None
    }

    /// Replaces names list by list in order of definition.
    fn replace(&mut self, condition: &str) -> Result<String, String> {
        let mut text = condition.to_owned();
        let mut wanted: BTreeSet<usize> = self.odd.iter().copied().collect();
        self.find(&text, 0, &mut wanted);
        while let Some(at) = wanted.pop_first() {
            let name = self.names[at];
            let value = &self.values[at];
            self.work += text.len() + name.len();
            if self.work > MAX_WORK {
                return Err("too many lists are put into large conditions".to_owned());
            }
            let mut changed = false;
            let mut out = String::with_capacity(text.len());
            let mut rest = text.as_str();
            let mut searched = 0;
            while let Some(found) = rest[searched..].find(name) {
                let start = searched + found;
                let end = start + name.len();
                let before = rest[..start].bytes().next_back().or_else(|| out.bytes().next_back());
                let after = rest[end..].bytes().next();
                if name.is_empty() || !before.is_none_or(is_delimiter) || !after.is_none_or(is_delimiter) {
                    searched = start + rest[start..].chars().next().map_or(1, char::len_utf8);
                    continue;
                }
                changed = true;
                out.push_str(rest[..start].trim_end_matches(BLANKS));
                rest = rest[end..].trim_start_matches(BLANKS);
                if self.is_empty[at] {
                    if out.ends_with(',') {
                        out.pop();
                    } else {
                        rest = rest.strip_prefix(',').unwrap_or(rest);
                    }
                }
                if !out.is_empty() {
                    out.push(' ');
                }
                out.push_str(value);
                out.push(' ');
                searched = 0;
                if out.len() + rest.len() > MAX_TEXT {
                    return Err(TOO_LARGE.to_owned());
                }
            }
            if !changed {
                continue;
            }
            self.used.insert(at);
            out.push_str(rest);
            text = out;
            let value = self.values[at].clone();
            self.find(&value, at + 1, &mut wanted);
        }
        Ok(text)
    }

    /// Lists from number `from` on whose name is a word of the text.
    fn find(&self, text: &str, from: usize, wanted: &mut BTreeSet<usize>) {
        let words = text.split(|c: char| c.is_ascii() && is_delimiter(c as u8));
        wanted.extend(words.filter_map(|word| self.by_name.get(word)).filter(|at| **at >= from));
    }
}

/// What a condition weighs, roughly: its words twice, less those that end at a comma.
fn weight(text: &[u8]) -> usize {
    let mut weight = 0_usize;
    let mut in_word = false;
    for byte in text {
        let delimits = is_delimiter(*byte);
        weight += 2 * usize::from(!delimits && !in_word);
        weight = weight.saturating_sub(usize::from(*byte == b','));
        in_word = !delimits;
    }
    weight
}

const TOO_LARGE: &str = "the condition is too large with its lists put in";

const BLANKS: [char; 4] = [' ', '\t', '\n', '\r'];

const fn is_delimiter(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b'(' | b')' | b',' | b'=')
}
