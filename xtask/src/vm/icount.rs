//! How many instructions the programs add to a call, counted by an emulated processor: exact, so fit for a gate.
//!
//! The machine's time stamp counter counts instructions (`-icount shift=0`), and `agent/tests/sensor/icount.rs` reads it.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::{Images, Job, Kernel, Tier, each};
use crate::setup::{self, Purpose};
use crate::workspace;

/// Where instructions are counted.
const MACHINES: &[(&str, Tier)] = &[("6.1", Tier::A), ("6.1", Tier::B), ("6.18", Tier::A), ("6.18", Tier::B)];

/// What may be added at most.
struct Limit {
    /// As the test calls them.
    stage: &'static str,
    operation: &'static str,
    what: &'static str,
    /// What is aimed at.
    floor: i64,
    /// What is accepted: the floor, or what was measured where that is above it.
    gate: i64,
}

const LIMITS: &[Limit] = &[
    Limit { stage: "full", operation: "getpid", what: "getpid, which no rule needs", floor: 2, gate: 2 },
    Limit { stage: "full", operation: "read", what: "read, which no rule needs", floor: 2, gate: 2 },
    Limit { stage: "full", operation: "write", what: "write, which no rule needs", floor: 2, gate: 2 },
    Limit { stage: "unwatched", operation: "open+close", what: "open+close, not watched", floor: 255, gate: 255 },
    Limit { stage: "full", operation: "open+close", what: "open+close, full event", floor: 1810, gate: 1810 },
];

/// Instructions by stage and operation.
type Counts = BTreeMap<(String, String), i64>;

/// Counts on each machine and prints a table; false where one adds more than it may.
pub(crate) fn run() -> Result<bool> {
    setup::install(Purpose::Everything)?;
    all(&env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace::root().join("target"), PathBuf::from))
}

/// The same with a target directory, for `cargo xtask test`.
pub(crate) fn all(target: &Path) -> Result<bool> {
    let jobs: Vec<Job> =
        MACHINES.iter().map(|(series, tier)| Ok((Kernel::named(series)?, *tier))).collect::<Result<_>>()?;
    let images = Images::build(target, &jobs)?;
    let counted = each(jobs, |kernel, tier| Ok((kernel.series, tier, count(&images, kernel, tier)?)))?;
    let (table, good) = table(&counted);
    print!("\n{table}");
    Ok(good)
}

fn count(images: &Images, kernel: &Kernel, tier: Tier) -> Result<Counts> {
    let qemu = ["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off", "-smp", "1"];
    let environment = "nokaslr tsc=reliable PURSER_TEST_IGNORED=--ignored PURSER_TEST_FILTER=icount";
    let ended = images.run(kernel, tier, environment, &qemu)?;
    if let Some(trouble) = ended.trouble {
        bail!("{} tier {tier:?}: {trouble}", kernel.series);
    }
    let counts = read(&ended.lines);
    if !counts.contains_key(&("tier".to_owned(), format!("{tier:?}"))) {
        bail!("{} tier {tier:?}: the count did not come to its end", kernel.series);
    }
    Ok(counts)
}

/// `ICOUNT STAGE OPERATION NUMBER`
fn read(lines: &[String]) -> Counts {
    let parse = |line: &String| {
        let mut words = line.split_once("ICOUNT ")?.1.split(' ');
        let key = (words.next()?.to_owned(), words.next()?.to_owned());
        Some((key, words.next()?.trim().parse().ok()?))
    };
    lines.iter().filter_map(parse).collect()
}

/// As Markdown, and whether all limits are kept.
fn table(counted: &[(&str, Tier, Counts)]) -> (String, bool) {
    let mut text = "| added instructions | floor | gate |".to_owned();
    let mut rule = "|---|--:|--:|".to_owned();
    for (series, tier, _) in counted {
        _ = write!(text, " {series} {tier:?} |");
        rule.push_str("--:|");
    }
    text = format!("{text}\n{rule}\n");
    let mut good = true;
    for Limit { stage, operation, what, floor, gate } in LIMITS {
        _ = write!(text, "| {what} | {floor} | {gate} |");
        for (.., counts) in counted {
            match counts.get(&((*stage).to_owned(), (*operation).to_owned())) {
                Some(count) if count <= gate => _ = write!(text, " {count} |"),
                Some(count) => {
                    good = false;
                    _ = write!(text, " **{count}** |");
                }
                None => {
                    good = false;
                    text.push_str(" **not counted** |");
                }
            }
        }
        text.push('\n');
    }
    (text, good)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(open: i64) -> Counts {
        let line = |limit: &Limit| {
            let count = if limit.operation == "open+close" { open } else { 0 };
            format!("test icount::added ... ICOUNT {} {} {count}", limit.stage, limit.operation)
        };
        read(&LIMITS.iter().map(line).collect::<Vec<_>>())
    }

    #[test]
    fn one_number_above_its_gate_is_a_failure() {
        assert_eq!(counts(7)[&("full".to_owned(), "open+close".to_owned())], 7);
        let (text, good) = table(&[("6.1", Tier::A, counts(200))]);
        assert!(good && text.contains("| open+close, not watched | 255 | 255 | 200 |"), "{text}");
        let (text, good) = table(&[("6.1", Tier::A, counts(200)), ("6.1", Tier::B, counts(300))]);
        assert!(!good && text.contains("| 200 | **300** |"), "{text}");
        let (text, good) = table(&[("6.1", Tier::A, Counts::new())]);
        assert!(!good && text.contains("not counted"), "{text}");
    }
}
