//! Folding of alerts by the real agent: programs that start again and again raise one alert, and one that counts the
//! others.

#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use xtask::agent::{Agent, Alert, Options};
use xtask::rig::containerd::Containerd;
use xtask::rig::image::{Image, Layer};
use xtask::rig::unique_name;

const RULE: &str = "Program again";

fn folded(alert: &Alert) -> Option<u64> {
    alert.output_fields.get("folded").and_then(serde_json::Value::as_u64)
}

/// The next alert and the next summary of a container or the host.
fn pair(agent: &Agent, container: &str) -> (Alert, Alert) {
    let its = |alert: &Alert| alert.rule == RULE && alert.field("container.id") == Some(container);
    let first = common::wait_for(agent, "the first program", its);
    (first, common::wait_for(agent, "the summary", its))
}

fn run(program: &Path, times: usize) {
    for _ in 0..times {
        assert!(Command::new(program).status().expect("started").success());
    }
}

#[test]
fn a_program_that_starts_again_and_again_raises_one_alert_and_a_count() {
    if !common::is_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("directory");
    let name = unique_name("again");
    let program = directory.path().join(&name);
    fs::copy("/bin/true", &program).expect("copied");
    let archive = directory.path().join("image.tar");
    Image::new("local.test/throttle:1")
        .layer(Layer::busybox(&["sh", "sleep", "true"]).expect("busybox"))
        .write_archive(&archive)
        .expect("image");
    let containerd = Containerd::start().expect("containerd");
    containerd.import(&archive).expect("imported");

    let text = format!(
        "- rule: {RULE}\n  desc: x\n  priority: WARNING\n  output: x %proc.exepath\n  condition: evt.type in (execve, \
         execveat) and (proc.exepath = {} or proc.args = {name})\n",
        program.display()
    );
    let rules = vec![common::rules_file(directory.path(), &text)];
    let config = "throttle: {dedup: {window: 6s, key: [container.id, proc.exepath]}}".to_owned();
    let agent = common::start(&Options { config, rules, ..Options::default() });

    // The host: no further program starts, so it is the worker's clock that ends the window.
    run(&program, 40);
    let (first, summary) = pair(&agent, "host");
    assert_eq!(folded(&first), None, "{}", first.output);
    assert_eq!(folded(&summary), Some(39), "{}", summary.output);
    assert_eq!((summary.priority.as_str(), summary.field("proc.exepath")), ("Warning", program.to_str()));
    assert!(
        summary.output.contains("39 more of \\\"Program again\\\" in 6 s (container.id=host"),
        "{}",
        summary.output
    );
    let time = |name: &str| summary.output_fields[name].as_u64().expect("a time");
    assert!(first.output_fields["evt.time"].as_u64() < Some(time("folded_first")));
    assert!(time("folded_first") < time("folded_last"));
    let (status, metrics) = agent.get("/metrics").expect("metrics");
    assert_eq!(status, 200);
    let line = format!("purser_alerts_folded_total{{rule=\"{RULE}\",reason=\"dedup\"}} 39");
    assert!(metrics.lines().any(|found| found == line), "{metrics}");

    // A container is another key, and its summary says which.
    let id = unique_name("throttle");
    let container =
        containerd.start_container("local.test/throttle:1", &id, &["/bin/sleep", "1000"]).expect("container");
    let repeat = format!("i=0; while [ $i -lt 25 ]; do /bin/true {name}; i=$((i+1)); done");
    container.exec_ok(&["/bin/sh", "-c", &repeat]).expect("exec");
    run(&program, 3);
    let short = &id[..id.len().min(12)];
    let (_, summary) = pair(&agent, short);
    assert_eq!(folded(&summary), Some(24), "{}", summary.output);
    drop(container);

    // What is not summed up yet is at the end.
    run(&program, 5);
    let (lines, total) = agent.stop().expect("summary");
    let mut last = lines.into_iter().rev().map(|line| line.alert.expect("an alert")).filter(|alert| alert.rule == RULE);
    assert_eq!(last.next().as_ref().map(folded), Some(Some(4)));
    assert_eq!(last.next().as_ref().map(folded), Some(None));
    assert_eq!(total.alerts.get(RULE), Some(&(40 + 25 + 3 + 5)), "{:?}", total.alerts);
    assert_eq!(total.folded.get(RULE), Some(&(39 + 24 + 2 + 4)), "{:?}", total.folded);
    assert_eq!(total.lost(), 0, "{:?}", total.lost);
}
