//! The figures as one object for machines and as Markdown for people.

use std::fs;

use serde::Serialize;

use super::costs::Costs;
use super::hooks;
use super::latency::Latency;
use super::load::{Flood, Load};
use super::manifest::Manifest;

#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) machine: Machine,
    pub(super) costs: Costs,
    pub(super) latency: Latency,
    pub(super) load: Load,
    pub(super) hooks: hooks::Figures,
    pub(super) manifest: Manifest,
}

/// What the figures belong to.
#[derive(Debug, Serialize)]
pub(super) struct Machine {
    pub(super) kernel: String,
    pub(super) processor: String,
    pub(super) processors: usize,
    /// Load average over a minute, before: what else the machine did.
    pub(super) load: String,
}

impl Machine {
    pub(super) fn this() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let info = read("/proc/cpuinfo");
        let processor =
            info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, name)| name);
        Self {
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            processor: processor.unwrap_or("unknown").to_owned(),
            processors: std::thread::available_parallelism().map_or(0, Into::into),
            load: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
        }
    }
}

impl Report {
    pub(super) fn markdown(&self) -> String {
        let Machine { kernel, processor, processors, load } = &self.machine;
        let mut lines = vec![format!("\nLinux {kernel}, {processors} x {processor}, load {load} before\n")];
        lines.push("| operation (ns) | without, min | without, median | with, min | with, median | added, min | added, median |".to_owned());
        lines.push("|---|--:|--:|--:|--:|--:|--:|".to_owned());
        for cost in &self.costs.operations {
            lines.push(format!(
                "| {} | {:.0} | {:.0} | {:.0} | {:.0} | {} | {} |",
                cost.operation,
                cost.without_min,
                cost.without_median,
                cost.with_min,
                cost.with_median,
                added(cost.without_min, cost.with_min),
                added(cost.without_median, cost.with_median),
            ));
        }
        let (costs, latency, load, manifest) = (&self.costs, &self.latency, &self.load, &self.manifest);
        lines.push("\n| agent | |\n|---|--:|".to_owned());
        for (name, value) in [
            (format!("CPU per event, over {} events in {} rounds", costs.events, costs.rounds), {
                format!("{:.2} us", costs.cpu_ns_per_event / 1e3)
            }),
            ("events lost in them".to_owned(), costs.lost.to_string()),
            ("start to /healthz 200, median".to_owned(), format!("{:.0} ms", costs.ready_ms)),
            (format!("exec to alert, p50 of {}/{} alerted", latency.alerted, latency.execs), ms(latency.p50_ms)),
            ("exec to alert, p95".to_owned(), ms(latency.p95_ms)),
            ("exec to alert, longest".to_owned(), ms(latency.max_ms)),
            ("CPU at rest".to_owned(), format!("{:.2} % of a core", load.idle_percent)),
            (format!("RSS at rest, {} images known", load.images), mib(load.idle_rss)),
            (
                format!("manifest of {:.0} MB of compressed layers", manifest.compressed_bytes as f64 / 1e6),
                format!("{:.1} MB/s", manifest.mb_per_second),
            ),
            ("manifest: highest RSS".to_owned(), mib(manifest.rss)),
        ] {
            lines.push(format!("| {name} | {value} |"));
        }
        lines.push(
            "\n| flood of opens | asked for | made | as events | lost | CPU, of a core | highest RSS |".to_owned(),
        );
        lines.push("|---|--:|--:|--:|--:|--:|--:|".to_owned());
        lines.extend(load.floods.iter().map(|flood| {
            let Flood { what, seconds, asked, opened, events, lost, percent, rss } = flood;
            format!("| {seconds} s, {what} | {asked} | {opened} | {events} | {lost} | {percent:.0} % | {} |", mib(*rss))
        }));
        lines.push(format!("\n{}", self.hooks.markdown()));
        lines.join("\n")
    }
}

pub(super) fn added(without: f64, with: f64) -> String {
    format!("{:+.0} ({:+.1} %)", with - without, (with - without) / without * 100.0)
}

fn ms(value: f64) -> String {
    format!("{value:.2} ms")
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
