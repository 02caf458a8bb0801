//! All that the checks of a plan ask of one text, told at once: a text is looked up when the first of its checks is made, and
//! what the others come out as is known.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, HashSet};

use foldhash::fast::FixedState;

use super::{Graph, Node, NodeId};
use crate::eval::{FieldSource, OperandSource, TextParts};

/// With fewer checks of a text, making them costs less.
const MIN_CHECKS: usize = 2;

/// What a plan asks of texts, by the number that the graph has given to the field.
#[derive(Debug, Default)]
pub(crate) struct Texts(Vec<Option<Box<TextIndex>>>);

/// What is asked of one text.
#[derive(Debug)]
pub(super) struct TextIndex {
    pub(super) field: FieldSource,
    exact: HashMap<Box<[u8]>, Marks, FixedState>,
    /// Which lengths occur in `exact` (63 and more share a bit).
    lengths: u64,
    prefixes: Beginnings,
    /// Back to front.
    suffixes: Beginnings,
    /// Checks; what is found refers to ranges of it.
    nodes: Vec<NodeId>,
}

/// A range of [`TextIndex::nodes`].
type Marks = (u32, u32);

/// Ordered beginnings of texts.
#[derive(Debug, Default)]
struct Beginnings {
    /// The first bytes of each, as [`head`] has them.
    heads: Vec<u64>,
    all: Vec<Beginning>,
}

#[derive(Debug)]
struct Beginning {
    /// All ones where its first bytes are.
    mask: u64,
    /// What comes behind the first bytes.
    rest: Box<[u8]>,
    marks: Marks,
    /// The longest other beginning with which this one begins.
    parent: Option<usize>,
}

impl Texts {
    /// What is asked below the nodes.
    pub(super) fn new(graph: &Graph, roots: impl Iterator<Item = NodeId>) -> Self {
        let mut checks: BTreeMap<u32, Vec<(NodeId, u32)>> = BTreeMap::new();
        let mut open: Vec<NodeId> = roots.collect();
        let mut seen = HashSet::new();
        while let Some(node) = open.pop() {
            if !seen.insert(node) {
                continue;
            }
            match &graph.nodes[node.0 as usize] {
                Node::Const(_) => {}
                Node::Check(check) => {
                    if let Some(number) = graph.indexed[*check as usize].field {
                        checks.entry(number).or_default().push((node, *check));
                    }
                }
                Node::Not(child) => open.push(*child),
                Node::And(children) | Node::Or(children) => open.extend_from_slice(children),
            }
        }
        let mut texts = Self::default();
        for (number, mut checks) in checks {
            let Some(OperandSource::Field(field)) =
                checks.first().map(|(_, check)| &graph.checks[*check as usize].left)
            else {
                continue;
            };
            if checks.len() < MIN_CHECKS {
                continue;
            }
            checks.sort_unstable();
            let parts = checks.iter().filter_map(|(node, check)| Some((*node, graph.parts[*check as usize].as_ref()?)));
            texts.0.resize_with(number as usize + 1, || None);
            texts.0[number as usize] = Some(Box::new(TextIndex::new(field.clone(), parts)));
        }
        texts
    }

    #[inline]
    pub(super) fn get(&self, number: u32) -> Option<&TextIndex> {
        self.0.get(number as usize)?.as_deref()
    }
}

impl TextIndex {
    fn new<'a>(field: FieldSource, checks: impl Iterator<Item = (NodeId, &'a TextParts)>) -> Self {
        let (mut exact, mut prefixes, mut suffixes) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let add = |to: &mut BTreeMap<Box<[u8]>, Vec<NodeId>>, text: Box<[u8]>, node| {
            let nodes = to.entry(text).or_default();
            if nodes.last() != Some(&node) {
                nodes.push(node);
            }
        };
        for (node, parts) in checks {
            parts.equal.iter().chain(&parts.listed).for_each(|text| add(&mut exact, text.clone(), node));
            parts.prefixes.iter().for_each(|text| add(&mut prefixes, text.clone(), node));
            parts.suffixes.iter().for_each(|text| add(&mut suffixes, text.iter().rev().copied().collect(), node));
        }
        let mut nodes = Vec::new();
        let mut keep = |found: Vec<NodeId>| {
            let start = nodes.len() as u32;
            nodes.extend(found);
            (start, nodes.len() as u32)
        };
        let lengths = exact.keys().fold(0, |lengths, text| lengths | length_bit(text));
        let exact = exact.into_iter().map(|(text, nodes)| (text, keep(nodes))).collect();
        let prefixes = Beginnings::new(prefixes, &mut keep);
        let suffixes = Beginnings::new(suffixes, &mut keep);
        Self { field, exact, lengths, prefixes, suffixes, nodes }
    }

    /// Names every check that holds for a text without NUL, but for what it may contain.
    #[inline]
    pub(super) fn look_up(&self, text: &[u8], mut holds: impl FnMut(NodeId)) {
        let mut mark = |(start, end): Marks| {
            self.nodes.get(start as usize..end as usize).unwrap_or_default().iter().for_each(|node| holds(*node));
        };
        if self.lengths & length_bit(text) != 0
            && let Some(marks) = self.exact.get(text)
        {
            mark(*marks);
        }
        if !self.prefixes.all.is_empty() {
            let (first, rest) = head(text);
            self.prefixes.find(first, |prefix| rest.cmp(prefix), |prefix| rest.starts_with(prefix), &mut mark);
        }
        if !self.suffixes.all.is_empty() {
            let (last, rest) = tail(text);
            let is_end =
                |suffix: &[u8]| rest.len() >= suffix.len() && suffix.iter().eq(rest.iter().rev().take(suffix.len()));
            self.suffixes.find(last, |suffix| rest.iter().rev().cmp(suffix), is_end, &mut mark);
        }
    }
}

impl Beginnings {
    fn new(texts: BTreeMap<Box<[u8]>, Vec<NodeId>>, mut keep: impl FnMut(Vec<NodeId>) -> Marks) -> Self {
        let mut beginnings = Self::default();
        let mut known: Vec<Box<[u8]>> = Vec::with_capacity(texts.len());
        for (text, nodes) in texts {
            let mut parent = known.len().checked_sub(1);
            while let Some(at) = parent
                && !text.starts_with(&known[at])
            {
                parent = beginnings.all[at].parent;
            }
            let (first, rest) = head(&text);
            let missing = HEAD.saturating_sub(text.len()) as u32;
            let mask = u64::MAX.checked_shl(8 * missing).unwrap_or(0);
            beginnings.heads.push(first);
            beginnings.all.push(Beginning { mask, rest: rest.into(), marks: keep(nodes), parent });
            known.push(text);
        }
        beginnings
    }

    /// Marks all that a text begins with, told its first bytes, and how what follows compares with what follows in a
    /// beginning. Whatever the text begins with, the last beginning that is not behind the text begins with, too.
    #[inline]
    fn find(
        &self,
        first: u64,
        order: impl Fn(&[u8]) -> Ordering,
        begins: impl Fn(&[u8]) -> bool,
        mut mark: impl FnMut(Marks),
    ) {
        let mut end = self.heads.partition_point(|head| *head < first);
        if self.heads.get(end) == Some(&first) {
            let alike = end + self.heads.get(end..).unwrap_or_default().partition_point(|head| *head == first);
            let before = |it: &Beginning| it.rest.is_empty() || order(&it.rest).is_ge();
            end += self.all.get(end..alike).unwrap_or_default().partition_point(before);
        }
        let mut next = end.checked_sub(1);
        let mut found = false;
        while let Some((at, beginning)) = next.and_then(|at| Some((at, self.all.get(at)?))) {
            let is_head = |head: &u64| *head == first & beginning.mask;
            // Measured: an empty rest that is compared all the same costs more than the rest of the lookup.
            let is_rest = || beginning.rest.is_empty() || begins(&beginning.rest);
            found = found || (self.heads.get(at).is_some_and(is_head) && is_rest());
            if found {
                mark(beginning.marks);
            }
            next = beginning.parent;
        }
    }
}

/// How many bytes are compared as a number.
const HEAD: usize = 8;

/// The first bytes, ordered as they are (zeros where there are none), and the rest.
#[inline]
fn head(text: &[u8]) -> (u64, &[u8]) {
    if let Some((first, rest)) = text.split_first_chunk::<HEAD>() {
        return (u64::from_be_bytes(*first), rest);
    }
    let mut first = [0; HEAD];
    first.iter_mut().zip(text).for_each(|(to, from)| *to = *from);
    (u64::from_be_bytes(first), &[])
}

/// [`head`] of the text back to front; the rest is not turned.
#[inline]
fn tail(text: &[u8]) -> (u64, &[u8]) {
    if let Some((rest, last)) = text.split_last_chunk::<HEAD>() {
        return (u64::from_le_bytes(*last), rest);
    }
    let mut last = [0; HEAD];
    last.iter_mut().zip(text.iter().rev()).for_each(|(to, from)| *to = *from);
    (u64::from_be_bytes(last), &[])
}

#[inline]
fn length_bit(text: &[u8]) -> u64 {
    1 << text.len().min(63)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FieldId;
    use crate::eval::{FieldKind, OwnedArg};

    /// All texts of up to so many bytes of an alphabet.
    fn words(alphabet: &[u8], longest: usize) -> Vec<Vec<u8>> {
        let mut words = vec![Vec::new()];
        let mut start = 0;
        for _ in 0..longest {
            let end = words.len();
            for at in start..end {
                let word = words[at].clone();
                words.extend(alphabet.iter().map(|byte| [word.as_slice(), &[*byte]].concat()));
            }
            start = end;
        }
        words
    }

    #[test]
    fn what_is_looked_up_is_what_each_check_says() {
        let field = FieldSource { id: FieldId::PROC_NAME, arg: OwnedArg::None, kind: FieldKind::Scalar };
        // Around the length that is compared as a number, and far from it.
        for padding in [0, 5, 6, 7, 8, 9, 70] {
            let pad = |word: &[u8], front: bool| -> Box<[u8]> {
                let pad = vec![b'm'; padding];
                if front { [&pad, word].concat().into() } else { [word, &pad].concat().into() }
            };
            let all = words(b"a\x01\xff", 3);
            // One check of each kind for each fifth word, and one with many words of all kinds.
            let mut checks: Vec<TextParts> = Vec::new();
            for word in all.iter().step_by(5) {
                let equal = vec![pad(word, true)];
                checks.push(TextParts { equal, ..TextParts::default() });
                checks.push(TextParts { prefixes: vec![pad(word, true)], ..TextParts::default() });
                checks.push(TextParts { suffixes: vec![pad(word, false)], ..TextParts::default() });
                checks.push(TextParts { prefixes: vec![word.as_slice().into()], ..TextParts::default() });
            }
            checks.push(TextParts {
                listed: all.iter().step_by(7).map(|word| pad(word, true)).collect(),
                prefixes: all.iter().skip(30).step_by(9).map(|word| pad(word, true)).collect(),
                suffixes: all.iter().skip(30).step_by(9).map(|word| pad(word, false)).collect(),
                ..TextParts::default()
            });
            let numbered = checks.iter().enumerate().map(|(at, parts)| (NodeId(at as u32), parts));
            let index = TextIndex::new(field.clone(), numbered);
            for text in all.iter().flat_map(|word| [word.as_slice().into(), pad(word, true), pad(word, false)]) {
                let mut found = vec![false; checks.len()];
                index.look_up(&text, |node| found[node.0 as usize] = true);
                for (parts, found) in checks.iter().zip(found) {
                    let holds = parts.equal.contains(&text)
                        || parts.listed.contains(&text)
                        || parts.prefixes.iter().any(|prefix| text.starts_with(prefix))
                        || parts.suffixes.iter().any(|suffix| text.ends_with(suffix));
                    assert_eq!(found, holds, "{parts:?} of {text:?}");
                }
            }
        }
    }
}
