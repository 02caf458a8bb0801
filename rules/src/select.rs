//! Selecting rules by name and tag.

use crate::options::Selector;

/// Whether a selector names a rule.
pub(crate) fn matches(selector: &Selector, name: &str, tags: &[String]) -> bool {
    match selector {
        Selector::Exact(pattern) => pattern.is_empty() || pattern == name,
        Selector::Substring(pattern) => name.contains(pattern.as_str()),
        Selector::Wildcard(pattern) => matches_wildcard(pattern, name),
        Selector::Tags(wanted) => wanted.iter().any(|tag| tags.contains(tag)),
    }
}

/// Whether a name fits a pattern in which `*` stands for any characters and nothing else is special.
pub fn matches_wildcard(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(first) else { return false };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return name.ends_with(part);
        }
        match name.find(part) {
            Some(at) => name = &name[at + part.len()..],
            None => return false,
        }
    }
    true
}
