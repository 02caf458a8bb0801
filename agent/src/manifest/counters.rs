//! What the verdict service counts. Every name exists from the start, so that a metric is 0 before it is 1.

use std::sync::atomic::{AtomicU64, Ordering};

use super::judge::{HashFailure, Judgement, Reason, Verdict};

/// Counters, and the lengths of the queues.
#[derive(Debug)]
pub struct Counters {
    verdicts: [AtomicU64; Verdict::ALL.len()],
    reasons: [AtomicU64; Reason::ALL.len()],
    events: [AtomicU64; Count::ALL.len()],
}

/// What else is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// Answered at once.
    Immediate,
    /// Digest found in memory.
    DigestHit,
    /// File hashed.
    Hashed,
    /// Manifest built from layers.
    BuiltFromLayers,
    /// Manifest built from the unpacked directories.
    BuiltFromUnpacked,
    /// No manifest could be built.
    BuildFailed,
    /// Manifest read from disk.
    DiskHit,
    /// A manifest on disk was corrupt, foreign or of another version, and was ignored.
    DiskInvalid,
    /// A manifest could not be written to disk.
    DiskWriteFailed,
    /// A worker's step panicked; its request was answered as failed.
    Panicked,
}

super::model::names!(Count {
    Immediate => "immediate",
    DigestHit => "digest_hit",
    Hashed => "hashed",
    BuiltFromLayers => "built_from_layers",
    BuiltFromUnpacked => "built_from_unpacked",
    BuildFailed => "build_failed",
    DiskHit => "disk_hit",
    DiskInvalid => "disk_invalid",
    DiskWriteFailed => "disk_write_failed",
    Panicked => "panicked",
});

impl Default for Counters {
    fn default() -> Self {
        Self { verdicts: zeroes(), reasons: zeroes(), events: zeroes() }
    }
}

impl Counters {
    /// Judgements given, by verdict.
    pub fn verdicts(&self) -> impl Iterator<Item = (Verdict, u64)> {
        Verdict::ALL.iter().zip(&self.verdicts).map(|(&verdict, count)| (verdict, count.load(Ordering::Relaxed)))
    }

    /// Judgements that say nothing of the file (`unverifiable`), by reason: the stage's losses.
    pub fn losses(&self) -> impl Iterator<Item = (HashFailure, u64)> {
        HashFailure::ALL.iter().map(|&failure| (failure, self.unverifiable(failure.into())))
    }

    /// All else that is counted.
    pub fn counts(&self) -> impl Iterator<Item = (Count, u64)> {
        Count::ALL.iter().map(|&what| (what, self.get(what)))
    }

    /// One of them.
    pub fn get(&self, what: Count) -> u64 {
        self.events[what as usize].load(Ordering::Relaxed)
    }

    /// Judgements of one verdict.
    pub fn verdict(&self, verdict: Verdict) -> u64 {
        self.verdicts[verdict as usize].load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, what: Count) {
        self.events[what as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn judged(&self, judgement: &Judgement) {
        self.verdicts[judgement.verdict as usize].fetch_add(1, Ordering::Relaxed);
        if judgement.verdict == Verdict::Unverifiable {
            self.reasons[judgement.reason as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    fn unverifiable(&self, reason: Reason) -> u64 {
        self.reasons[reason as usize].load(Ordering::Relaxed)
    }
}

fn zeroes<const N: usize>() -> [AtomicU64; N] {
    std::array::from_fn(|_| AtomicU64::new(0))
}
