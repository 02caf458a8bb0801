//! Comparisons of texts.
//!
//! Scalar operators see a text up to its first NUL; set operators see all of it but trailing NULs.

use std::hash::{BuildHasher, Hasher};

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

fn length_bit(text: &[u8]) -> u64 {
    1 << text.len().min(63)
}

/// The text up to its first NUL.
pub(crate) fn c_text(text: &[u8]) -> &[u8] {
    memchr::memchr(0, text).map_or(text, |end| &text[..end])
}

pub(crate) fn without_trailing_nuls(mut text: &[u8]) -> &[u8] {
    while let [rest @ .., 0] = text {
        text = rest;
    }
    text
}

/// Whether the text up to its first NUL is `want`, which has none.
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
