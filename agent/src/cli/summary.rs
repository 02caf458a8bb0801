//! What a run has counted, as JSON for scripts and as text for people.

use std::{
    collections::BTreeMap,
    fmt, fs,
    io::{self, Write as _},
    path::Path,
};

use serde::Serialize;

use crate::metrics::{EVENTS, Family, LOST, Metrics, RULE_MATCHES, VERDICTS};
use crate::pushdown::REJECTED;
use crate::reload::RELOADS;
use crate::throttle::FOLDED;

/// The sum of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Default)]
pub struct Summary {
    /// Events by type, those that did not occur as 0.
    pub events: BTreeMap<String, u64>,
    /// Events that no rule can match and that stayed in the kernel, by type; those that did not occur as 0.
    pub rejected: BTreeMap<String, u64>,
    /// Losses by stage and reason, those that did not occur as 0.
    pub lost: BTreeMap<String, BTreeMap<String, u64>>,
    /// Alerts by rule, folded ones included, summaries not; only rules that raised one.
    pub alerts: BTreeMap<String, u64>,
    /// How many of these were folded into summaries, by rule; only rules of which one was.
    pub folded: BTreeMap<String, u64>,
    /// Verdicts, those that were not given as 0.
    pub verdicts: BTreeMap<String, u64>,
    /// The sensor's tier.
    pub tier: String,
    /// The attached hooks.
    pub hooks: Vec<String>,
    /// How many rules were enabled at the end.
    pub rules: usize,
    /// Reloads of rules and configuration: `ok` and `failed`.
    pub reloads: BTreeMap<String, u64>,
}

impl Summary {
    /// Reads the numbers out of the metrics.
    pub fn of(metrics: &Metrics, tier: impl Into<String>, hooks: Vec<String>, rules: usize) -> Self {
        let mut lost: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
        for (labels, count) in metrics.read(LOST) {
            if let [stage, reason] = labels.as_slice() {
                *lost.entry(stage.clone()).or_default().entry(reason.clone()).or_default() += count;
            }
        }
        let mut alerts = by_first_label(metrics, RULE_MATCHES);
        alerts.retain(|_, count| *count > 0);
        let mut folded = by_first_label(metrics, FOLDED);
        folded.retain(|_, count| *count > 0);
        Self {
            events: by_first_label(metrics, EVENTS),
            rejected: by_first_label(metrics, REJECTED),
            lost,
            alerts,
            folded,
            verdicts: by_first_label(metrics, VERDICTS),
            tier: tier.into(),
            hooks,
            rules,
            reloads: by_first_label(metrics, RELOADS),
        }
    }

    /// Writes it as JSON: a reader sees the old file or the whole new one. A pipe, a terminal or a device is
    /// written to, and a link is followed: neither is replaced by a file.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let target;
        let path = match fs::metadata(path) {
            Ok(found) if !found.is_file() && !found.is_dir() => {
                return self.write_to(&mut fs::OpenOptions::new().write(true).open(path)?);
            }
            Ok(_) => {
                target = fs::canonicalize(path)?;
                &target
            }
            // Not there yet.
            Err(_) => path,
        };
        let directory = Self::directory(path);
        let name = path.file_name().ok_or_else(|| io::Error::other("not the name of a file"))?;
        let mut temporary = name.to_owned();
        temporary.push(format!(".{}.tmp", std::process::id()));
        let temporary = directory.join(temporary);
        let written = self.write_new(&temporary).and_then(|()| fs::rename(&temporary, path));
        if written.is_err() {
            // Best effort: the error that is reported is the one above.
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    /// The directory a summary at `path` is written in.
    pub(super) fn directory(path: &Path) -> &Path {
        path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    fn write_new(&self, path: &Path) -> io::Result<()> {
        let mut file = fs::File::create(path)?;
        self.write_to(&mut file)?;
        file.sync_all()
    }

    fn write_to(&self, file: &mut fs::File) -> io::Result<()> {
        let mut json = serde_json::to_vec_pretty(self)?;
        json.push(b'\n');
        file.write_all(&json)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "purser: tier {}, {} hooks, {} rules", self.tier, self.hooks.len(), self.rules)?;
        line(f, "events", self.events.iter().map(|(name, count)| (name.clone(), *count)))?;
        if self.rejected.values().any(|count| *count > 0) {
            line(f, "rejected", self.rejected.iter().map(|(name, count)| (name.clone(), *count)))?;
        }
        let lost = self.lost.iter().flat_map(|(stage, reasons)| {
            reasons.iter().map(move |(reason, count)| (format!("{stage}/{reason}"), *count))
        });
        line(f, "lost", lost)?;
        line(f, "verdicts", self.verdicts.iter().map(|(name, count)| (name.clone(), *count)))?;
        if self.reloads.values().any(|count| *count > 0) {
            line(f, "reloads", self.reloads.iter().map(|(name, count)| (name.clone(), *count)))?;
        }
        let total: u64 = self.alerts.values().sum();
        write!(f, "  {:<9} {total}", "alerts")?;
        for (rule, count) in &self.alerts {
            // A rule's name is foreign text.
            write!(f, "\n    {count:>7}  {}", super::one_line(rule))?;
            if let Some(folded) = self.folded.get(rule) {
                write!(f, " ({folded} folded)")?;
            }
        }
        Ok(())
    }
}

/// The total, and what it is made of.
fn line(f: &mut fmt::Formatter<'_>, title: &str, counts: impl Iterator<Item = (String, u64)>) -> fmt::Result {
    let counts: Vec<_> = counts.filter(|(_, count)| *count > 0).collect();
    let total: u64 = counts.iter().map(|(_, count)| count).sum();
    write!(f, "  {title:<9} {total}")?;
    if !counts.is_empty() {
        let parts: Vec<_> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
        write!(f, " ({})", parts.join(", "))?;
    }
    writeln!(f)
}

fn by_first_label(metrics: &Metrics, family: Family) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for (labels, count) in metrics.read(family) {
        if let Some(first) = labels.into_iter().next() {
            *sums.entry(first).or_default() += count;
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::Priority;

    fn summary() -> Summary {
        let metrics = Metrics::new();
        metrics.event("exec").add(3);
        metrics.event("open");
        metrics.counter(REJECTED, &["open"]).add(6);
        metrics.lost("ring", "full").add(2);
        metrics.lost("sink", "queue_full");
        metrics.rule_matches("A", Priority::Warning).add(1);
        metrics.rule_matches("A", Priority::Error).add(1);
        metrics.rule_matches("B", Priority::Error);
        metrics.counter(FOLDED, &["A", "rate"]).add(1);
        metrics.counter(FOLDED, &["B", "rate"]);
        metrics.verdict("expected").add(7);
        metrics.counter(RELOADS, &["ok"]).add(2);
        metrics.counter(RELOADS, &["failed"]);
        Summary::of(&metrics, "C", vec!["sched_process_exec".to_owned()], 8)
    }

    #[test]
    fn json_has_the_promised_keys() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("summary.json");
        fs::write(&path, "old").expect("written");
        summary().write(&path).expect("written");
        let json: serde_json::Value = serde_json::from_slice(&fs::read(&path).expect("read")).expect("JSON");
        assert_eq!(
            json,
            serde_json::json!({
                "events": {"exec": 3, "open": 0},
                "rejected": {"open": 6},
                "lost": {"ring": {"full": 2}, "sink": {"queue_full": 0}},
                "alerts": {"A": 2},
                "folded": {"A": 1},
                "verdicts": {"expected": 7},
                "tier": "C", "hooks": ["sched_process_exec"], "rules": 8,
                "reloads": {"failed": 0, "ok": 2},
            })
        );
        assert_eq!(fs::read_dir(directory.path()).expect("listed").count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_failed_write_leaves_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        let target = directory.path().join("taken");
        fs::create_dir(&target).expect("made");
        assert!(summary().write(&target).is_err());
        assert_eq!(fs::read_dir(directory.path()).expect("listed").count(), 1);
    }

    #[test]
    fn a_device_or_a_link_is_written_to_and_not_replaced() {
        use std::os::unix::fs::{FileTypeExt as _, symlink};

        let directory = tempfile::tempdir().expect("a directory");
        // A pipe stands for what is no regular file, /dev/null above all.
        let pipe = directory.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .expect("a pipe");
        let read = std::thread::spawn({
            let pipe = pipe.clone();
            move || fs::read_to_string(pipe).expect("read")
        });
        summary().write(&pipe).expect("written");
        assert!(fs::symlink_metadata(&pipe).expect("there").file_type().is_fifo(), "the pipe is still one");
        assert!(read.join().expect("read").contains("\"expected\": 7"));

        let (file, link) = (directory.path().join("file"), directory.path().join("link"));
        fs::write(&file, "old").expect("written");
        symlink(&file, &link).expect("linked");
        summary().write(&link).expect("written");
        assert!(fs::symlink_metadata(&link).expect("there").is_symlink(), "the link is still one");
        assert!(fs::read_to_string(&file).expect("read").contains("\"expected\": 7"));
    }

    #[test]
    fn text_for_people() {
        assert_eq!(
            summary().to_string(),
            "purser: tier C, 1 hooks, 8 rules\n  events    3 (exec 3)\n  rejected  6 (open 6)\n  lost      2 (ring/full 2)\n  \
             verdicts  7 (expected 7)\n  reloads   2 (ok 2)\n  alerts    2\n          2  A (1 folded)"
        );
    }
}
