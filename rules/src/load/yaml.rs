//! YAML with positions: what the files say, before anything is made of it.
//!
//! The crate's parser yields events; the tree is built here with limits on depth and size, so that neither deep nesting
//! nor aliases of aliases can exhaust memory or stack.

use std::collections::HashMap;
use std::sync::Arc;

use libyaml_safer::{EventData, Mark, Parser, ScalarStyle};

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
    Scalar {
        text: String,
        plain: bool,
    },
    Sequence(Vec<Arc<Node>>),
    Map(Vec<(Arc<Node>, Arc<Node>)>),
}

/// Text that is not YAML.
#[derive(Clone, Debug)]
pub(crate) struct YamlError {
    pub(crate) message: String,
    pub(crate) at: Place,
    /// A tag stands where a value should be, as in `[!=]`.
    pub(crate) is_tag: bool,
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
    anchor: Option<String>,
    at: Place,
    is_map: bool,
    children: Vec<Arc<Node>>,
}

/// Reads all documents of a text.
pub(crate) fn documents(text: &str) -> Result<Vec<Arc<Node>>, YamlError> {
    let mut documents = Vec::new();
    let mut anchors: HashMap<String, Arc<Node>> = HashMap::new();
    let mut open: Vec<Open> = Vec::new();
    let mut total = 0_u64;
    let mut parser = Parser::new();
    let mut input = text.as_bytes();
    parser.set_input_string(&mut input);
    loop {
        let event = parser.parse().map_err(|error| YamlError {
            is_tag: error.context() == Some("while scanning a tag"),
            message: error.problem().to_owned(),
            at: error.problem_mark().map(place).unwrap_or_default(),
        })?;
        let at = place(event.start_mark);
        let fail = |message: &str| Err(YamlError { message: message.to_owned(), at, is_tag: false });
        let (node, anchor) = match event.data {
            EventData::Scalar { anchor, tag, value: text, style, .. } => {
                let plain = style == ScalarStyle::Plain;
                let is_null = plain && tag.is_none() && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL");
                let value = if is_null { Value::Null } else { Value::Scalar { text, plain } };
                (Arc::new(Node { value, at, size: 1 }), anchor)
            }
            data @ (EventData::SequenceStart { .. } | EventData::MappingStart { .. }) => {
                if open.len() >= MAX_DEPTH {
                    return fail("the document is nested too deeply");
                }
                let is_map = matches!(data, EventData::MappingStart { .. });
                let (EventData::SequenceStart { anchor, .. } | EventData::MappingStart { anchor, .. }) = data else {
                    continue;
                };
                open.push(Open { anchor, at, is_map, children: Vec::new() });
                continue;
            }
            EventData::SequenceEnd | EventData::MappingEnd => {
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
            EventData::Alias { anchor } => match anchors.get(&anchor) {
                Some(node) => (Arc::clone(node), None),
                None => return fail("the alias has no anchor, or is inside of it"),
            },
            EventData::DocumentStart { .. } => {
                anchors.clear();
                continue;
            }
            EventData::StreamStart { .. } | EventData::DocumentEnd { .. } => continue,
            EventData::StreamEnd => return Ok(documents),
        };
        if let Some(anchor) = anchor {
            anchors.insert(anchor, Arc::clone(&node));
        }
        if let Some(parent) = open.last_mut() {
            parent.children.push(node);
        } else {
            total = total.saturating_add(node.size);
            if total > MAX_SIZE {
                return fail("the file is too large with its aliases put in");
            }
            documents.push(node);
        }
    }
}

fn place(mark: Mark) -> Place {
    Place { line: mark.line as usize + 1, column: mark.column as usize + 1 }
}
