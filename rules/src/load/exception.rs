//! Exceptions of rules: how they become part of the condition's text.

use super::item::{Entry, Exception};
use crate::parse::{Modifier, Op};

/// Whether a text is an operator, with or without modifier.
pub(super) fn is_operator(text: &str) -> bool {
    let all = || Op::NUMERIC.iter().chain(&Op::TEXT).chain(&Op::LIST);
    text == "exists" || all().any(|op| op.text() == text) || has_modifier(text)
}

/// Whether the operator takes a list on the right.
pub(super) fn takes_list(text: &str) -> bool {
    Op::LIST.iter().any(|op| op.text() == text) || has_modifier(text)
}

fn has_modifier(text: &str) -> bool {
    let mut words = text.split_ascii_whitespace();
    let (Some(operator), Some(modifier), None) = (words.next(), words.next(), words.next()) else { return false };
    Op::TEXT.iter().any(|op| op.text() == operator) && Modifier::ALL.iter().any(|known| known.text() == modifier)
}

/// The condition with its exceptions.
///
/// # Errors
/// Values do not have the shape of the fields.
pub(super) fn condition(condition: &str, exceptions: &[Exception]) -> Result<String, (String, String)> {
    if exceptions.is_empty() {
        return Ok(condition.to_owned());
    }
    let mut out = format!("({condition})");
    for exception in exceptions.iter().filter(|exception| !exception.values.is_empty()) {
        let fail = |message: &str| Err((exception.name.clone(), message.to_owned()));
        match &exception.fields {
            Some(Entry::Many(fields)) => {
                let operators: &[Entry] = match &exception.comps {
                    Some(Entry::Many(operators)) => operators,
                    _ => &[],
                };
                out.push_str(" and not (");
                for (nth, tuple) in exception.values.iter().enumerate() {
                    let Entry::Many(tuple) = tuple else {
                        return fail("fields and values lists must have equal length");
                    };
                    if tuple.len() != fields.len() {
                        return fail("fields and values lists must have equal length");
                    }
                    out.push_str(if nth > 0 { " or (" } else { "(" });
                    for (place, (field, value)) in fields.iter().zip(tuple).enumerate() {
                        let operator = operators.get(place).map_or("", text);
                        if place > 0 {
                            out.push_str(" and ");
                        }
                        out.push_str(&format!(
                            "{} {operator} {}",
                            text(field),
                            value_text(value, takes_list(operator))
                        ));
                    }
                    out.push(')');
                }
                out.push(')');
            }
            Some(Entry::One(field)) => {
                let operator = exception.comps.as_ref().map_or("", text);
                let mut values = Vec::with_capacity(exception.values.len());
                for value in &exception.values {
                    let Entry::One(value) = value else {
                        return fail("values must be scalars where fields is a scalar");
                    };
                    values.push(quoted(value));
                }
                out.push_str(&format!(" and not ({field} {operator} ({}))", values.join(", ")));
            }
            None => return fail("the exception has no fields"),
        }
    }
    Ok(out)
}

fn text(entry: &Entry) -> &str {
    match entry {
        Entry::One(text) => text,
        Entry::Many(_) => "",
    }
}

fn value_text(value: &Entry, as_list: bool) -> String {
    match value {
        Entry::Many(values) => {
            let values: Vec<_> = values.iter().map(|value| quoted(text(value))).collect();
            format!("({})", values.join(", "))
        }
        Entry::One(value) if as_list => {
            if value.starts_with('(') {
                value.clone()
            } else {
                format!("({value})")
            }
        }
        Entry::One(value) => quoted(value),
    }
}

/// In quotes if it contains a space and is not in quotes already.
pub(super) fn quoted(value: &str) -> String {
    if value.contains(' ') && !value.starts_with(['"', '\'']) { format!("\"{value}\"") } else { value.to_owned() }
}
