//! YAML with positions: what the files say, before anything is made of it.
//!
//! libyaml yields events; the tree is built here with limits on depth and size, so that neither deep nesting
//! nor aliases of aliases can exhaust memory or stack.

use std::collections::HashMap;
use std::sync::Arc;

use super::libyaml::{Event, Parser};

/// Deepest nesting of a rule file.
const MAX_DEPTH: usize = 100;

/// Most values of a file with its aliases put in: more would not fit the memory that loading may take.
const MAX_SIZE: u32 = 1_250_000;

/// Bytes of text that count as one value more: an alias of a long text must not be free.
const LONG: u32 = 16;

/// A value and its place. Kept small: a file has a million of them at most.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) at: Place,
    size: u32,
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
        text: Box<str>,
        plain: bool,
    },
    Sequence(Box<[Arc<Node>]>),
    Map(Box<[(Arc<Node>, Arc<Node>)]>),
}

/// Text that is not YAML.
#[derive(Clone, Debug)]
pub(crate) struct YamlError {
    pub(crate) message: String,
    pub(crate) at: Place,
    /// A tag stands where a value should be, as in `[!=]`.
    pub(crate) is_tag: bool,
}

impl Value {
    fn text(&self) -> Option<&str> {
        match self {
            Self::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }
}

impl Node {
    pub(crate) fn text(&self) -> Option<&str> {
        self.value.text()
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

/// The name of an anchor, if there is one.
type Anchor = Option<Box<[u8]>>;

/// A collection that is being read.
struct Open {
    anchor: Anchor,
    at: Place,
    is_map: bool,
    children: Vec<Arc<Node>>,
}

impl Open {
    fn close(self) -> Result<(Node, Anchor), YamlError> {
        let size = self.children.iter().fold(1_u32, |sum, child| sum.saturating_add(child.size));
        let value = if self.is_map {
            let mut children = self.children.into_iter();
            let mut entries = Vec::with_capacity(children.len() / 2);
            while let (Some(key), Some(value)) = (children.next(), children.next()) {
                entries.push((key, value));
            }
            Value::Map(entries.into())
        } else {
            Value::Sequence(self.children.into())
        };
        limited(size, self.at)?;
        Ok((Node { value, at: self.at, size }, self.anchor))
    }
}

/// Reads all documents of a text.
pub(crate) fn documents(text: &str) -> Result<Vec<Arc<Node>>, YamlError> {
    let mut documents = Vec::new();
    let mut anchors: HashMap<Box<[u8]>, Arc<Node>> = HashMap::new();
    let mut open: Vec<Open> = Vec::new();
    // Values read, and values of the documents with their aliases put in.
    let (mut read, mut total) = (0_u32, 0_u32);
    let mut parser = Parser::new(text);
    loop {
        let (event, at) = parser.next()?;
        let (node, anchor) = match event {
            Event::Scalar { text, plain, anchor, has_tag } => {
                let is_null = plain && !has_tag && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let value = if is_null { Value::Null } else { Value::Scalar { text, plain } };
                let size = value.text().map_or(1, |text| 1 + text.len() as u32 / LONG);
                (Arc::new(Node { value, at, size }), anchor)
            }
            Event::Start { anchor, is_map } => {
                if open.len() >= MAX_DEPTH {
                    return fail("the document is nested too deeply", at);
                }
                open.push(Open { anchor, at, is_map, children: Vec::new() });
                continue;
            }
            Event::End => {
                let Some(done) = open.pop() else { return fail("unexpected end of a collection", at) };
                let (node, anchor) = done.close()?;
                (Arc::new(node), anchor)
            }
            Event::Alias(anchor) => match anchors.get(&anchor) {
                Some(node) => (Arc::clone(node), None),
                None => return fail("the alias has no anchor, or is inside of it", at),
            },
            Event::DocumentStart => {
                anchors.clear();
                continue;
            }
            Event::Other => continue,
            Event::StreamEnd => return Ok(documents),
        };
        read += 1;
        limited(read, at)?;
        if let Some(anchor) = anchor {
            anchors.insert(anchor, Arc::clone(&node));
        }
        if let Some(parent) = open.last_mut() {
            parent.children.push(node);
        } else {
            total = total.saturating_add(node.size);
            limited(total, at)?;
            documents.push(node);
        }
    }
}

/// Where a text is nested more deeply than rule files may be: line and column, from 1. For readers of other YAML, which
/// would follow it, at a cost that grows with the square of the depth.
pub fn too_deep(text: &str) -> Option<(usize, usize)> {
    let mut parser = Parser::new(text);
    let mut depth = 0_usize;
    loop {
        // What is no YAML is for that reader to say.
        let (event, at) = parser.next().ok()?;
        match event {
            Event::Start { .. } if depth >= MAX_DEPTH => return Some((at.line, at.column)),
            Event::Start { .. } => depth += 1,
            Event::End => depth = depth.saturating_sub(1),
            Event::StreamEnd => return None,
            _ => {}
        }
    }
}

fn limited(values: u32, at: Place) -> Result<(), YamlError> {
    if values <= MAX_SIZE {
        return Ok(());
    }
    let message =
        format!("the file is too large: it has more than {MAX_SIZE} values with its aliases put in; split it");
    Err(YamlError { message, at, is_tag: false })
}

fn fail<T>(message: &str, at: Place) -> Result<T, YamlError> {
    Err(YamlError { message: message.to_owned(), at, is_tag: false })
}
