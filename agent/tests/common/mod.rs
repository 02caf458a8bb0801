//! What root tests share: the agent under test, and alerts by what they are about.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking and says why it skips"
)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use xtask::agent::{Agent, Alert, Options};

/// Alerts on every program that starts in a container, with all that Purser knows of it.
pub const EVERY_EXEC: &str = r"
- rule: Program in a container
  desc: Every program, once its verdict is known.
  condition: evt.type in (execve, execveat) and container.id != host and manifest.verdict exists
  output: >
    exec exepath=%proc.exepath verdict=%manifest.verdict reason=%manifest.reason status=%manifest.status
    source=%manifest.source sha256=%proc.exe.sha256 args=%proc.args cmdline=%proc.cmdline name=%proc.name
    pname=%proc.pname full=%container.full_id type=%container.type digest=%image.manifest_digest
    config=%image.config_digest index=%image.index_digest chain=%image.chain_id user=%user.name
  priority: NOTICE
";

/// Root tests say what they lack and pass; everything else they need is installed by the project.
pub fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("SKIPPED: this test needs root (eBPF, containers)");
    }
    root
}

/// A file with rules, in a directory that lives as long as the test.
pub fn rules_file(directory: &Path, text: &str) -> PathBuf {
    let path = directory.join("rules.yaml");
    std::fs::write(&path, text).expect("rules written");
    path
}

/// The agent that was built with this test.
pub fn start(options: &Options) -> Agent {
    Agent::start(Path::new(env!("CARGO_BIN_EXE_purser")), options).expect("the agent starts")
}

/// The first alert that `wanted` picks; panics with what came instead.
pub fn wait_for(agent: &Agent, what: &str, wanted: impl Fn(&Alert) -> bool) -> Alert {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut others = Vec::new();
    while let Some(line) = agent.next_line(deadline.saturating_duration_since(Instant::now())) {
        let alert = line.alert.unwrap_or_else(|error| panic!("stdout has a line that is no alert: {error}"));
        if wanted(&alert) {
            return alert;
        }
        others.push(alert.output);
    }
    panic!("no alert for {what}; there were {others:#?}\n{}", agent.log_tail());
}

/// Waits until `there`; panics with what was waited for.
pub fn until(what: &str, there: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !there() {
        assert!(Instant::now() < deadline, "in vain waited until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
