//! The warnings of one file, as many as one can read.

use super::collection::Trouble;

/// Most warnings that are kept of one file. What one can read is far below; a hostile file has one for each of its bytes.
const MAX_WARNINGS: usize = 10_000;

/// Warnings of one file.
#[derive(Debug, Default)]
pub(crate) struct Warnings {
    found: Vec<Trouble>,
    /// How many there were beyond those that are kept.
    more: usize,
}

impl Warnings {
    pub(super) fn push(&mut self, warning: Trouble) {
        if self.found.len() < MAX_WARNINGS {
            self.found.push(warning);
        } else {
            self.more += 1;
        }
    }

    pub(super) fn len(&self) -> usize {
        self.found.len() + self.more
    }

    pub(super) fn append(&mut self, other: Self) {
        self.more += other.more;
        other.found.into_iter().for_each(|warning| self.push(warning));
    }

    /// All of them; the last says how many are not listed.
    pub(super) fn into_listed(mut self) -> Vec<Trouble> {
        if let Some(last) = self.found.last_mut().filter(|_| self.more > 0) {
            last.message.push_str(&format!(" (and {} more warnings that are not listed)", self.more));
        }
        self.found
    }
}
