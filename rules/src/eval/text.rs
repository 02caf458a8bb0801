//! Comparisons of texts.
//!
//! Scalar operators see a text up to its first NUL; set operators see all of it but trailing NULs.

use std::hash::{BuildHasher, Hasher};

use aho_corasick::AhoCorasick;
use foldhash::fast::FixedState;
use hashbrown::HashTable;

/// A set of texts.
#[derive(Clone, Debug, Default)]
pub(crate) struct TextSet {
    table: HashTable<Box<[u8]>>,
    /// Which lengths occur (63 and more share a bit): most values are ruled out without hashing.
    lengths: u64,
    hasher: FixedState,
}

impl TextSet {
    pub(crate) fn new<'a>(texts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut set = Self::default();
        for text in texts {
            let text = without_trailing_nuls(text);
            let hash = set.hash(text);
            if set.table.find(hash, |known| known.as_ref() == text).is_none() {
                let hasher = set.hasher.clone();
                set.table.insert_unique(hash, text.into(), |text| hash_with(&hasher, text));
                set.lengths |= length_bit(text);
            }
        }
        set
    }

    #[inline]
    pub(crate) fn contains(&self, text: &[u8]) -> bool {
        let text = without_trailing_nuls(text);
        self.lengths & length_bit(text) != 0
            && self.table.find(self.hash(text), |known| known.as_ref() == text).is_some()
    }

    fn hash(&self, text: &[u8]) -> u64 {
        hash_with(&self.hasher, text)
    }
}

fn hash_with(hasher: &FixedState, text: &[u8]) -> u64 {
    let mut hasher = hasher.build_hasher();
    hasher.write(text);
    hasher.finish()
}

#[inline]
fn length_bit(text: &[u8]) -> u64 {
    1 << text.len().min(63)
}

/// The text up to its first NUL.
#[inline]
pub(crate) fn c_text(text: &[u8]) -> &[u8] {
    memchr::memchr(0, text).map_or(text, |end| &text[..end])
}

#[inline]
pub(crate) fn without_trailing_nuls(mut text: &[u8]) -> &[u8] {
    while let [rest @ .., 0] = text {
        text = rest;
    }
    text
}

/// Whether the text up to its first NUL is `want`, which has none.
#[inline]
pub(crate) fn equals(text: &[u8], want: &[u8]) -> bool {
    text.strip_prefix(want).is_some_and(|rest| matches!(rest, [] | [0, ..]))
}

/// Whether `text` contains `needle` (lower case), ASCII letters compared without case.
pub(crate) fn contains_folded(text: &[u8], needle: &[u8]) -> bool {
    let Some(&first) = needle.first() else { return true };
    let Some(last_start) = text.len().checked_sub(needle.len()) else { return false };
    let upper = first.to_ascii_uppercase();
    let mut from = 0;
    while from <= last_start {
        let Some(at) = memchr::memchr2(first, upper, &text[from..=last_start]) else { return false };
        let start = from + at;
        if text[start..start + needle.len()].eq_ignore_ascii_case(needle) {
            return true;
        }
        from = start + 1;
    }
    false
}

/// What several checks of one text ask for.
#[derive(Clone, Debug, Default)]
pub(crate) struct TextParts {
    pub(crate) equal: Vec<Box<[u8]>>,
    pub(crate) listed: Vec<Box<[u8]>>,
    pub(crate) prefixes: Vec<Box<[u8]>>,
    pub(crate) suffixes: Vec<Box<[u8]>>,
    pub(crate) contained: Vec<Box<[u8]>>,
}

impl TextParts {
    /// Whether more is asked than what a text contains, and none of it for texts with a NUL, of which not all checks see the
    /// same.
    pub(crate) fn can_be_looked_up(&self) -> bool {
        let mut texts = self.equal.iter().chain(&self.listed).chain(&self.prefixes).chain(&self.suffixes).peekable();
        texts.peek().is_some() && texts.all(|text| !text.contains(&0))
    }

    /// Adds what another check asks for.
    pub(crate) fn extend(&mut self, other: &Self) {
        self.equal.extend_from_slice(&other.equal);
        self.listed.extend_from_slice(&other.listed);
        self.prefixes.extend_from_slice(&other.prefixes);
        self.suffixes.extend_from_slice(&other.suffixes);
        self.contained.extend_from_slice(&other.contained);
    }
}

/// Whether any of many checks of one text holds, decided at once.
#[derive(Clone, Debug)]
pub(crate) struct AnyText {
    all: TextSet,
    equal: TextSet,
    prefixes: Prefixes,
    /// Back to front.
    suffixes: Prefixes,
    contained: Option<AhoCorasick>,
}

/// Beginnings, none of which begins with another, ordered: only the last one that is not behind a text can be its
/// beginning.
#[derive(Clone, Debug)]
struct Prefixes(Vec<Box<[u8]>>);

impl Prefixes {
    fn new(texts: impl Iterator<Item = Box<[u8]>>) -> Self {
        let mut all: Vec<_> = texts.collect();
        all.sort_unstable();
        // What another begins comes right behind it, with nothing but its like between them.
        all.dedup_by(|next, kept| next.starts_with(kept));
        Self(all)
    }

    /// Whether the bytes begin with one of the texts.
    fn begin<'a>(&self, bytes: impl Iterator<Item = &'a u8> + Clone) -> bool {
        let end = self.0.partition_point(|prefix| prefix.iter().le(bytes.clone()));
        let last = end.checked_sub(1).and_then(|at| self.0.get(at));
        last.is_some_and(|prefix| prefix.iter().eq(bytes.take(prefix.len())))
    }
}

impl AnyText {
    /// Nothing if the automaton would be too large.
    pub(crate) fn new(parts: &TextParts) -> Option<Self> {
        let contained = match parts.contained.as_slice() {
            [] => None,
            needles => Some(AhoCorasick::new(needles).ok()?),
        };
        Some(Self {
            all: TextSet::new(parts.equal.iter().chain(&parts.listed).map(AsRef::as_ref)),
            equal: TextSet::new(parts.equal.iter().map(AsRef::as_ref)),
            prefixes: Prefixes::new(parts.prefixes.iter().cloned()),
            suffixes: Prefixes::new(parts.suffixes.iter().map(|text| text.iter().rev().copied().collect())),
            contained,
        })
    }

    pub(crate) fn matches(&self, text: &[u8]) -> bool {
        let cut = c_text(text);
        self.all.contains(text)
            || (cut.len() < text.len() && self.equal.contains(cut))
            || self.prefixes.begin(cut.iter())
            || self.suffixes.begin(cut.iter().rev())
            || self.contained.as_ref().is_some_and(|needles| needles.is_match(cut))
    }
}
