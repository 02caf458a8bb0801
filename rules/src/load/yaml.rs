//! YAML with positions: what the files say, before anything is made of it.
//!
//! The crate's parser yields events; the tree is built here with limits on depth and size, so that neither deep nesting
//! nor aliases of aliases can exhaust memory or stack.

use std::collections::HashMap;
use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle};

/// Deepest nesting of a rule file.
const MAX_DEPTH: usize = 100;

/// Most values of a document with its aliases put in.
const MAX_SIZE: u64 = 4_000_000;

/// A value and its place.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) at: Place,
    size: u64,
}

/// Line and column, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Place {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// A value.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    /// Any other scalar; `plain` if it was written without quotes.
    Scalar { text: String, plain: bool },
    Sequence(Vec<Arc<Node>>),
    Map(Vec<(Arc<Node>, Arc<Node>)>),
}

/// Text that is not YAML.
#[derive(Clone, Debug)]
pub(crate) struct YamlError {
    pub(crate) message: String,
    pub(crate) at: Place,
}

impl Node {
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    /// The value of a key of a map; the first, if it is given twice.
    pub(crate) fn get(&self, key: &str) -> Option<&Arc<Self>> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|(known, _)| known.text() == Some(key)).map(|(_, value)| value),
            _ => None,
        }
    }

    pub(crate) fn entries(&self) -> &[(Arc<Self>, Arc<Self>)] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    pub(crate) fn items(&self) -> Option<&[Arc<Self>]> {
        match &self.value {
            Value::Sequence(items) => Some(items),
            _ => None,
        }
    }
}

/// A collection that is being read.
struct Open {
    anchor: usize,
    at: Place,
    is_map: bool,
    children: Vec<Arc<Node>>,
}

/// Reads all documents of a text.
pub(crate) fn documents(text: &str) -> Result<Vec<Arc<Node>>, YamlError> {
    let mut documents = Vec::new();
    let mut anchors: HashMap<usize, Arc<Node>> = HashMap::new();
    let mut open: Vec<Open> = Vec::new();
    let mut total = 0_u64;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| YamlError {
            message: error.info().to_owned(),
            at: Place { line: error.marker().line().max(1), column: error.marker().col() + 1 },
        })?;
        let at = Place { line: span.start.line(), column: span.start.col() + 1 };
        let fail = |message: &str| Err(YamlError { message: message.to_owned(), at });
        let (node, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain;
                let is_null = plain && tag.is_none() && matches!(text.as_ref(), "" | "~" | "null" | "Null" | "NULL");
                let value = if is_null { Value::Null } else { Value::Scalar { text: text.into_owned(), plain } };
                (Arc::new(Node { value, at, size: 1 }), anchor)
            }
            Event::SequenceStart(anchor, _) | Event::MappingStart(anchor, _) => {
                if open.len() >= MAX_DEPTH {
                    return fail("the document is nested too deeply");
                }
                let is_map = matches!(event, Event::MappingStart(..));
                open.push(Open { anchor, at, is_map, children: Vec::new() });
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(done) = open.pop() else { return fail("unexpected end of a collection") };
                let size = done.children.iter().fold(1_u64, |sum, child| sum.saturating_add(child.size));
                if size > MAX_SIZE {
                    return fail("the document is too large with its aliases put in");
                }
                let value = if done.is_map {
                    let mut children = done.children.into_iter();
                    let mut entries = Vec::with_capacity(children.len() / 2);
                    while let (Some(key), Some(value)) = (children.next(), children.next()) {
                        entries.push((key, value));
                    }
                    Value::Map(entries)
                } else {
                    Value::Sequence(done.children)
                };
                (Arc::new(Node { value, at: done.at, size }), done.anchor)
            }
            Event::Alias(anchor) => match anchors.get(&anchor) {
                Some(node) => (Arc::clone(node), 0),
                None => return fail("the alias has no anchor, or is inside of it"),
            },
            Event::DocumentStart(_) => {
                anchors.clear();
                continue;
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => continue,
        };
        if anchor > 0 {
            anchors.insert(anchor, Arc::clone(&node));
        }
        match open.last_mut() {
            Some(parent) => parent.children.push(node),
            None => {
                total = total.saturating_add(node.size);
                if total > MAX_SIZE {
                    return fail("the file is too large with its aliases put in");
                }
                documents.push(node);
            }
        }
    }
    Ok(documents)
}
