//! Gaps in the running numbers of each processor, held against what the programs say they lost: a gap that no counter
//! explains is a loss of its own.
//!
//! Records of one processor may come in another order than their numbers: a hook that interrupts another takes the
//! later number and is finished first. So not neighbours are compared, but how many there are with the highest number.

use std::mem::offset_of;

use agent_common::Header;

/// What came from each processor.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    processors: Vec<Processor>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Processor {
    highest: u64,
    came: u64,
    /// What was unexplained at the last look: what is still on its way is explained by the next.
    before: u64,
    unexplained: u64,
}

impl Gaps {
    pub(super) fn new(processors: usize) -> Self {
        Self { processors: vec![Processor::default(); processors] }
    }

    /// A record came. One that is no record is the decoder's to refuse.
    pub(super) fn see(&mut self, record: &[u8]) {
        let field = |offset: usize| record.get(offset..);
        let cpu =
            field(offset_of!(Header, cpu)).and_then(|bytes| bytes.first_chunk()).map(|half| u16::from_ne_bytes(*half));
        let number = field(offset_of!(Header, sequence))
            .and_then(|bytes| bytes.first_chunk())
            .map(|word| u64::from_ne_bytes(*word));
        let (Some(cpu), Some(number)) = (cpu, number) else { return };
        if let Some(processor) = self.processors.get_mut(usize::from(cpu)) {
            processor.highest = processor.highest.max(number);
            processor.came += 1;
        }
    }

    /// Holds the gaps against what each processor counted as lost by now; gives how many events no counter explains, since
    /// the start.
    pub(super) fn reconcile(&mut self, counted: impl Fn(usize) -> u64) -> u64 {
        for (cpu, processor) in self.processors.iter_mut().enumerate() {
            let missing = processor.highest.saturating_sub(processor.came);
            let now = missing.saturating_sub(counted(cpu));
            processor.unexplained = processor.unexplained.max(now.min(processor.before));
            processor.before = now;
        }
        self.processors.iter().map(|processor| processor.unexplained).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(cpu: u16, number: u64) -> Vec<u8> {
        let mut record = vec![0; size_of::<Header>()];
        record[offset_of!(Header, cpu)..][..2].copy_from_slice(&cpu.to_ne_bytes());
        record[offset_of!(Header, sequence)..][..8].copy_from_slice(&number.to_ne_bytes());
        record
    }

    fn seen(records: &[(u16, u64)]) -> Gaps {
        let mut gaps = Gaps::new(2);
        for (cpu, number) in records {
            gaps.see(&record(*cpu, *number));
        }
        gaps
    }

    #[test]
    fn a_gap_that_is_counted_is_explained() {
        let mut gaps = seen(&[(0, 1), (0, 5), (1, 3)]);
        for _ in 0..3 {
            assert_eq!(gaps.reconcile(|cpu| [3, 2][cpu]), 0);
        }
        assert_eq!(gaps.reconcile(|cpu| [3, 1][cpu]), 0, "not at the first look");
        assert_eq!(gaps.reconcile(|cpu| [3, 1][cpu]), 1);
        assert_eq!(gaps.reconcile(|_| 9), 1, "it only rises");
    }

    #[test]
    fn the_counts_of_one_processor_explain_nothing_of_another() {
        let mut gaps = seen(&[(0, 4), (1, 1)]);
        gaps.reconcile(|cpu| [0, 3][cpu]);
        assert_eq!(gaps.reconcile(|cpu| [0, 3][cpu]), 3);
    }

    #[test]
    fn what_was_overtaken_is_not_missing() {
        let mut gaps = seen(&[(0, 2)]);
        assert_eq!(gaps.reconcile(|_| 0), 0);
        gaps.see(&record(0, 1));
        assert_eq!((gaps.reconcile(|_| 0), gaps.reconcile(|_| 0)), (0, 0));
    }

    #[test]
    fn what_is_no_record_is_left_alone() {
        let mut gaps = seen(&[(7, 9)]);
        gaps.see(b"short");
        gaps.see(&[]);
        assert_eq!((gaps.reconcile(|_| 0), gaps.reconcile(|_| 0)), (0, 0));
    }
}
