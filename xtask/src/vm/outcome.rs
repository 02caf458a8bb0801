//! What a machine's output says, and what it has to say.

use std::fmt;
use std::time::Duration;

use super::Tier;
use super::boot::Ended;
use crate::test::Counts;

/// How many tests and rows of tests are skipped on each kernel and tier. A kernel and tier that is not here is not run by
/// `cargo xtask test`. A feature that is missing there, and so a number above zero, has its reason in the tests' output.
pub(crate) const PINNED: &[(&str, Tier, usize)] =
    &[("5.10", Tier::C, 10), ("6.1", Tier::C, 2), ("6.12", Tier::C, 0), ("6.18", Tier::C, 0)];

/// What came of the tests on one kernel and tier.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) series: &'static str,
    pub(crate) tier: Tier,
    pub(crate) counts: Counts,
    pub(crate) skipped: Vec<String>,
    pub(crate) took: Duration,
    /// Why it is a failure whatever was counted.
    pub(crate) trouble: Option<String>,
}

impl Outcome {
    /// Reads a machine's output. With a `filter` the number of skips says nothing.
    pub(crate) fn of(series: &'static str, tier: Tier, filter: bool, took: Duration, ended: &Ended) -> Self {
        let mut counts = Counts::default();
        let mut skipped = Vec::new();
        for line in &ended.lines {
            counts.add(line);
            // After `test NAME ... `, which the harness leaves open.
            if let Some((before, skip)) = line.split_once("SKIP ")
                && (before.is_empty() || before.ends_with(" ... "))
            {
                skipped.push(skip.to_owned());
            }
        }
        let pinned = PINNED.iter().find(|row| (row.0, row.1) == (series, tier)).map(|row| row.2);
        let trouble = ended.trouble.clone().or_else(|| {
            if counts == Counts::default() {
                return Some("no test ran".to_owned());
            }
            let pinned = pinned.filter(|pinned| !filter && *pinned != skipped.len())?;
            Some(format!("{} skipped, but {pinned} in xtask/src/vm/outcome.rs", skipped.len()))
        });
        // The harness counts a test that skips as passed.
        counts.passed = counts.passed.saturating_sub(skipped.len() as u64);
        Self { series, tier, counts, skipped, took, trouble }
    }

    pub(crate) fn is_good(&self) -> bool {
        self.trouble.is_none() && self.counts.failed == 0 && self.counts.passed > 0
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for skipped in &self.skipped {
            writeln!(f, "{} tier {:?}: SKIP {skipped}", self.series, self.tier)?;
        }
        let Counts { passed, failed } = self.counts;
        let (tier, skipped, took) = (self.tier, self.skipped.len(), self.took.as_secs());
        write!(f, "{} tier {tier:?}: {passed} passed, {failed} failed, {skipped} skipped ({took} s)", self.series)?;
        if let Some(trouble) = &self.trouble {
            write!(f, "; FAILED: {trouble}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(series: &'static str, lines: &[&str], trouble: Option<&str>) -> Outcome {
        let ended = Ended {
            lines: lines.iter().map(|line| (*line).to_owned()).collect(),
            trouble: trouble.map(str::to_owned),
            ..Ended::default()
        };
        Outcome::of(series, Tier::C, false, Duration::from_secs(7), &ended)
    }

    #[test]
    fn skips_are_counted_apart_and_held_to_their_number() {
        let result = "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s";
        let skips = ["test a::b ... SKIP b: missing feature: x", "ok", result];
        let of_unpinned = outcome("none", &skips, None);
        assert!(of_unpinned.is_good());
        assert_eq!(
            of_unpinned.to_string(),
            "none tier C: SKIP b: missing feature: x\nnone tier C: 2 passed, 0 failed, 1 skipped (7 s)"
        );
        let (series, _, pinned) = PINNED[0];
        let more = vec!["SKIP b: missing feature: x"; pinned + 1];
        let changed = outcome(series, &[&more[..], &[result]].concat(), None);
        assert!(!changed.is_good());
        assert!(
            changed
                .to_string()
                .ends_with(&format!("FAILED: {} skipped, but {pinned} in xtask/src/vm/outcome.rs", pinned + 1))
        );
    }

    #[test]
    fn nothing_run_and_trouble_are_failures() {
        let result = "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s";
        assert!(outcome("none", &[result], None).is_good());
        assert!(!outcome("none", &[result], Some("it hangs")).is_good());
        assert!(!outcome("none", &[], None).is_good());
        let failed =
            "test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s";
        assert!(!outcome("none", &[failed], None).is_good());
    }
}
