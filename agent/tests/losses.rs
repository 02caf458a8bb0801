//! Losses as who reads the alerts hears of them: an agent that was stopped while much was going on.

#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt as _;

use rustix::process::{Pid, Signal, kill_process};
use xtask::agent::{Agent, Alert, Options};

const RULE: &str = "Purser internal: events lost";

fn number(alert: &Alert, field: &str) -> u64 {
    alert.output_fields.get(field).and_then(serde_json::Value::as_u64).unwrap_or(0)
}

fn send(agent: &Agent, signal: Signal) {
    let pid = Pid::from_raw(agent.pid() as i32).expect("a pid");
    kill_process(pid, signal).expect("sent");
}

/// Makes a file anew so many times, by a call that nothing else on a machine makes.
fn creat(path: &std::path::Path, times: u32) {
    let path = CString::new(path.as_os_str().as_bytes()).expect("a path");
    for _ in 0..times {
        // SAFETY: a string that lives.
        let made = unsafe { libc::creat(path.as_ptr(), 0o600) };
        // SAFETY: an own descriptor.
        assert_eq!(unsafe { libc::close(made) }, 0);
    }
}

#[test]
fn an_agent_that_was_stopped_says_what_it_missed_and_when_it_was_over() {
    if !common::is_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("directory");
    let file = directory.path().join("watched");
    let text = format!(
        "- rule: Watched\n  desc: x\n  priority: WARNING\n  output: x\n  condition: evt.type = creat and fd.name = {}\n",
        file.display()
    );
    let rules = vec![common::rules_file(directory.path(), &text)];
    // The alerts of the rule fill the queue many times over.
    let config = "sensor: {ring_bytes: 256KiB}\nsyscall_event_drops: {rate: 0.5}\noutputs_queue: {capacity: 4}\n";
    let agent = common::start(&Options { config: config.to_owned(), rules, ..Options::default() });
    send(&agent, Signal::STOP);
    creat(&file, 5_000);
    send(&agent, Signal::CONT);

    let first = common::wait_for(&agent, "the loss", |alert| alert.rule == RULE);
    assert_eq!((first.priority.as_str(), first.source.as_str()), ("Critical", "internal"), "{}", first.output);
    assert!(number(&first, "lost.kernel.back_pressure") > 1000, "{}", first.output);
    assert!(number(&first, "lost_type.creat") > 1000, "{}", first.output);
    assert!(number(&first, "lost_since") < number(&first, "lost_until"), "{}", first.output);
    let mut told = number(&first, "n_drops");
    let mut last = first;
    while last.output_fields["ended"] != true {
        last = common::wait_for(&agent, "the end of it", |alert| alert.rule == RULE);
        told += number(&last, "n_drops");
    }
    assert_eq!(number(&last, "lost_altogether"), told, "{}", last.output);
    let (rest, summary) = agent.stop().expect("summary");
    let rest = rest.into_iter().filter_map(|line| line.alert.ok());
    told += rest.filter(|alert| alert.rule == RULE).map(|alert| number(&alert, "n_drops")).sum::<u64>();
    let whole = summary.lost.iter().filter(|(stage, _)| !matches!(stage.as_str(), "kernel_fact" | "identity"));
    let whole: u64 = whole.flat_map(|(_, reasons)| reasons.values()).sum();
    assert_eq!(told, whole, "{:?}", summary.lost);
    assert!(summary.lost["sink"]["queue_full"] > 0, "the queue was not too short: {:?}", summary.lost);
    assert_eq!(summary.lost["ring"]["unexplained_gap"], 0);
}
