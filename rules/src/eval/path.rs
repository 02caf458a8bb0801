//! `pmatch`: is any of many paths a prefix, component by component, of a value?

use std::collections::BTreeMap;

use super::glob::Glob;

/// A set of path prefixes. Components with `?`, `*` or `[` are shell patterns for one component.
#[derive(Clone, Debug, Default)]
pub struct PathSet {
    nodes: Vec<Node>,
}

#[derive(Clone, Debug, Default)]
struct Node {
    children: BTreeMap<Box<[u8]>, usize>,
    globs: Vec<(Box<[u8]>, Glob, usize)>,
    is_end: bool,
}

impl PathSet {
    /// A set of `paths`.
    pub fn new<'a>(paths: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut set = Self { nodes: vec![Node::default()] };
        for path in paths {
            set.insert(path);
        }
        set
    }

    /// Whether any path of the set is a prefix of `value`.
    pub fn matches(&self, value: &[u8]) -> bool {
        !self.nodes.is_empty() && self.matches_from(0, value)
    }

    /// The paths that matter: those that no other path of the set covers, ordered.
    pub fn paths(&self) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        let mut stack = vec![(0, Vec::new())];
        while let Some((node, path)) = stack.pop() {
            let node: &Node = &self.nodes[node];
            if node.is_end {
                out.push(if path.is_empty() { b"/".to_vec() } else { path });
                continue;
            }
            let children = node.children.iter().map(|(name, child)| (name, *child));
            for (name, child) in children.chain(node.globs.iter().map(|(name, _, child)| (name, *child))) {
                stack.push((child, [path.as_slice(), b"/", name].concat()));
            }
        }
        out.sort_unstable();
        out
    }

    fn insert(&mut self, path: &[u8]) {
        let mut at = 0;
        for component in components(path) {
            if self.nodes[at].is_end {
                return;
            }
            let next = self.nodes.len();
            let is_glob = component.iter().any(|byte| matches!(byte, b'?' | b'*' | b'['));
            let node = &mut self.nodes[at];
            let known = if is_glob {
                node.globs.iter().find(|(text, ..)| text.as_ref() == component).map(|(.., child)| *child)
            } else {
                node.children.get(component).copied()
            };
            if let Some(known) = known {
                at = known;
                continue;
            }
            if is_glob {
                node.globs.push((component.into(), Glob::new(component, false), next));
            } else {
                node.children.insert(component.into(), next);
            }
            self.nodes.push(Node::default());
            at = next;
        }
        self.nodes[at].is_end = true;
    }

    /// Every node is reached along one path only, so the work is bounded by the size of the set, and the depth by the
    /// longest pattern that fits the value: a stack of our own holds it.
    fn matches_from(&self, start: usize, value: &[u8]) -> bool {
        let mut open: Vec<(usize, &[u8])> = Vec::new();
        let mut next = Some((start, value));
        while let Some((at, rest)) = next.take().or_else(|| open.pop()) {
            let node = &self.nodes[at];
            if node.is_end {
                return true;
            }
            let Some((component, tail)) = split(rest) else { continue };
            for (_, glob, child) in &node.globs {
                if glob.matches(component) {
                    open.push((*child, tail));
                }
            }
            next = node.children.get(component).map(|child| (*child, tail));
        }
        false
    }
}

fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|component| !component.is_empty())
}

/// The first component and what follows.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let start = path.iter().position(|byte| *byte != b'/')?;
    let path = &path[start..];
    let end = memchr::memchr(b'/', path).unwrap_or(path.len());
    Some(path.split_at(end))
}
