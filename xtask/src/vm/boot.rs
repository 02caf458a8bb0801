//! One test machine: qemu without hardware support, a kernel, an initramfs, and what came of it.
//!
//! The kernel speaks on the first serial line, the tests on the second, so that neither breaks the other's lines. Any warning of
//! the kernel is a panic, and a machine that does not reach the end of its script, whatever the reason, has failed.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use xtask::rig::command;

/// What the script prints last, before the exit status of the tests.
pub(crate) const END: &str = "=== END ";
/// Enough for the tests and the layers that they write to.
const MEMORY: &str = "1536M";

/// What is to be started.
#[derive(Debug)]
pub(crate) struct Machine<'a> {
    pub(crate) kernel: &'a Path,
    pub(crate) initramfs: &'a Path,
    /// More of the kernel's command line. What it does not know becomes the environment of the tests.
    pub(crate) arguments: &'a str,
    /// More of qemu's.
    pub(crate) qemu: &'a [&'a str],
    /// How long it may take.
    pub(crate) limit: Duration,
}

/// What came of a machine.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    /// The second serial line.
    pub(crate) lines: Vec<String>,
    /// The first.
    pub(crate) console: String,
    /// Why what it printed is not to be trusted.
    pub(crate) trouble: Option<String>,
}

impl Machine<'_> {
    /// Starts it and waits for its end; each line of the tests goes to `hear` at once.
    ///
    /// # Errors
    /// qemu cannot be run. Whatever else happens is told in the result.
    pub(crate) fn run(&self, hear: &mut dyn FnMut(&str)) -> Result<Ended> {
        let folder = tempfile::tempdir().context("cannot create a directory for a machine")?;
        let console = folder.path().join("console");
        let mut qemu = Command::new("qemu-system-x86_64");
        // Without cmpxchg16b: 6.12 crashes in it under this emulation.
        qemu.args([
            "-cpu",
            "max,-cx16",
            "-m",
            MEMORY,
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
            "-display",
            "none",
        ]);
        qemu.arg("-serial").arg(format!("file:{}", console.display())).args(["-serial", "stdio"]).args(self.qemu);
        qemu.arg("-kernel").arg(self.kernel).arg("-initrd").arg(self.initramfs).arg("-append").arg(format!(
            // On a busy host timers come late, which old kernels take for broken ones.
            "console=ttyS0 loglevel=5 panic=-1 panic_on_warn=1 oops=panic mitigations=off no_timer_check {}",
            self.arguments
        ));
        let mut child = qemu
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", command::line(&qemu)))?;
        let mut ended = Ended::default();
        let in_time = self.listen(&mut child, &mut |line| {
            hear(&line);
            ended.lines.push(line);
        })?;
        if !in_time {
            // It may have ended between the two; then there is nothing to kill.
            let _ = child.kill();
        }
        let output = child.wait_with_output().context("cannot wait for qemu")?;
        ended.console = String::from_utf8_lossy(&fs::read(&console).unwrap_or_default()).replace('\r', "");
        ended.trouble = if !in_time {
            Some(format!("it did not end within {} s", self.limit.as_secs()))
        } else if !output.status.success() {
            Some(format!("qemu: {}", command::describe(&output)))
        } else {
            trouble(&ended.lines, &ended.console)
        };
        Ok(ended)
    }

    /// Hands over lines until there are no more; false where that takes too long.
    fn listen(&self, child: &mut Child, hear: &mut dyn FnMut(String)) -> Result<bool> {
        let stdout = child.stdout.take().context("qemu has no output")?;
        let (sender, lines) = mpsc::channel();
        // It ends with qemu.
        thread::spawn(move || {
            for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
                if sender.send(String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned()).is_err() {
                    break;
                }
            }
        });
        let end = Instant::now() + self.limit;
        loop {
            match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => hear(line),
                Err(RecvTimeoutError::Disconnected) => return Ok(true),
                Err(RecvTimeoutError::Timeout) => return Ok(false),
            }
        }
    }
}

/// What is wrong with a machine that ended by itself.
fn trouble(lines: &[String], console: &str) -> Option<String> {
    const WORDS: &[&str] = &["Kernel panic", "Oops", "BUG:", "WARNING:", "general protection fault", "Call Trace:"];
    let bad = console.lines().find(|line| WORDS.iter().any(|word| line.contains(word)));
    if let Some(bad) = bad {
        return Some(format!("the kernel said: {}", bad.trim()));
    }
    let Some(status) = lines.iter().find_map(|line| line.strip_prefix(END)) else {
        return Some("it ended before its tests did".to_owned());
    };
    // 101: tests failed, which their own lines tell.
    match status.split_whitespace().next() {
        Some("0" | "101") => None,
        _ => Some(format!("the tests ended with status {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_quiet_kernel_and_a_reached_end_are_trusted() {
        let said = |lines: &[&str], console: &str| {
            trouble(&lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>(), console)
        };
        assert_eq!(said(&["test a ... ok", "=== END 0"], "[ 1.0] reboot: Power down\n"), None);
        assert_eq!(said(&["=== END 101"], ""), None);
        assert_eq!(said(&["=== END 139"], "").unwrap(), "the tests ended with status 139");
        assert_eq!(said(&["test a ... ok"], "").unwrap(), "it ended before its tests did");
        let warned = said(&["=== END 0"], "[ 1.0] WARNING: CPU: 0 PID: 1 at kernel/bpf/verifier.c:1\n");
        assert_eq!(warned.unwrap(), "the kernel said: [ 1.0] WARNING: CPU: 0 PID: 1 at kernel/bpf/verifier.c:1");
        assert!(said(&["=== END 0"], "Kernel panic - not syncing").is_some());
    }
}
