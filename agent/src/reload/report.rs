//! What a reload says of itself: numbers, and an alert where rules cannot be used.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use purser_rules::Alert;
use serde_json::{Map, Value as Json};

use super::files::Failure;
use crate::alert::{self, Priority};
use crate::metrics::{Counter, Family, Metrics, counter, gauge, seconds};

/// The name of the alert, in the manner of Falco's own (`Falco internal: hot restart failure`).
pub const RULE: &str = "Purser internal: rules reload failed";

/// Reloads of rules and configuration.
pub const RELOADS: Family =
    counter("purser_rules_reloads", "Reloads of rules and configuration, by result", &["result"]);
const FAILED: Family = gauge("purser_rules_reload_failed", "1 while the files cannot be used and older ones are", &[]);
const SUCCESS: Family = gauge(
    "purser_rules_last_reload_success_timestamp_seconds",
    "When the rules in force were loaded, seconds since the epoch",
    &[],
);
const DURATION: Family = seconds(
    "purser_rules_reload_duration_seconds",
    "What the last reload took, from files at rest to rules in force",
    &[],
);
const INFO: Family =
    gauge("purser_rules_info", "The rules in force: sha256 of all files, one after another", &["sha256"]);
const ENABLED: Family = gauge("purser_rules_enabled", "Rules in force", &[]);
const RESTART: Family =
    gauge("purser_config_restart_pending", "Changed keys of the configuration that need a restart", &[]);

/// The numbers of reloads.
pub(super) struct Report {
    metrics: Arc<Metrics>,
    ok: Counter,
    failed: Counter,
    alerts: Counter,
    sha256: String,
}

impl Report {
    /// Exports all, after the first load.
    pub(super) fn new(metrics: &Arc<Metrics>, sha256: &str, enabled: usize) -> Self {
        let mut report = Self {
            metrics: Arc::clone(metrics),
            ok: metrics.counter(RELOADS, &["ok"]),
            failed: metrics.counter(RELOADS, &["failed"]),
            alerts: metrics.rule_matches(RULE, Priority::Critical),
            sha256: String::new(),
        };
        metrics.gauge(DURATION, &[], 0);
        metrics.gauge(RESTART, &[], 0);
        report.in_force(sha256, enabled);
        report
    }

    /// A reload is in force; it took so long.
    pub(super) fn succeeded(&mut self, sha256: &str, enabled: usize, took: Duration) {
        self.ok.increment();
        self.metrics.gauge(DURATION, &[], took.as_nanos() as u64);
        self.in_force(sha256, enabled);
    }

    /// Files cannot be used.
    pub(super) fn failed(&self) {
        self.failed.increment();
        self.metrics.gauge(FAILED, &[], 1);
    }

    /// So many keys wait for a restart.
    pub(super) fn restart_pending(&self, keys: usize) {
        self.metrics.gauge(RESTART, &[], keys as u64);
    }

    /// The alert on a failure, counted.
    pub(super) fn alert(&self, failure: &Failure, options: &purser_rules::AlertOptions) -> Alert {
        self.alerts.increment();
        alert_of(failure, options, since_epoch().as_nanos() as u64)
    }

    fn in_force(&mut self, sha256: &str, enabled: usize) {
        if self.sha256 != sha256 {
            self.metrics.remove(INFO, &[&self.sha256]);
            sha256.clone_into(&mut self.sha256);
        }
        self.metrics.gauge(INFO, &[sha256], 1);
        self.metrics.gauge(ENABLED, &[], enabled as u64);
        self.metrics.gauge(FAILED, &[], 0);
        self.metrics.gauge(SUCCESS, &[], since_epoch().as_secs());
    }
}

fn alert_of(failure: &Failure, options: &purser_rules::AlertOptions, time_ns: u64) -> Alert {
    let mut output_fields = Map::new();
    output_fields.insert("file".to_owned(), failure.file.as_deref().map_or(Json::Null, Json::from));
    output_fields.insert("line".to_owned(), failure.line.map_or(Json::Null, Json::from));
    output_fields.insert("error".to_owned(), failure.error.as_str().into());
    alert::internal(RULE, Priority::Critical, &failure.to_string(), output_fields, time_ns, options)
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_names_file_line_and_error() {
        let error = "/a.yaml:3:1: error LOAD_ERR_YAML_PARSE: no";
        let failure = Failure { file: Some("/a.yaml".to_owned()), line: Some(3), error: error.to_owned() };
        let options = purser_rules::AlertOptions { time_format_iso_8601: true, ..Default::default() };
        let alert = alert_of(&failure, &options, 1_700_000_000_000_000_001);
        assert_eq!(alert.output, format!("2023-11-14T22:13:20.000000001+0000: Critical {RULE}: {error}"));
        assert_eq!((alert.source.as_str(), alert.message.as_str()), ("internal", &*format!("{RULE}: {error}")));
        assert_eq!(Json::from(alert.output_fields), serde_json::json!({"error": error, "file": "/a.yaml", "line": 3}));
    }

    #[test]
    fn one_digest_is_exported_and_the_failed_state_ends() {
        let metrics = Arc::new(Metrics::new());
        let mut report = Report::new(&metrics, "aa", 3);
        let read = |family| metrics.read(family);
        report.failed();
        assert_eq!(read(FAILED), [(Vec::new(), 1)]);
        report.succeeded("bb", 4, Duration::from_millis(2));
        assert_eq!((read(FAILED), read(ENABLED)), (vec![(Vec::new(), 0)], vec![(Vec::new(), 4)]));
        assert_eq!(read(INFO), [(vec!["bb".to_owned()], 1)]);
        assert_eq!(read(RELOADS), [(vec!["failed".to_owned()], 1), (vec!["ok".to_owned()], 1)]);
        let text = metrics.encode().expect("encoded");
        assert!(text.contains("\npurser_rules_reload_duration_seconds 0.002\n"), "{text}");
    }
}
