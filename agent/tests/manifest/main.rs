//! Manifests against real unpackers and real file systems: what the agent lists must be what podman,
//! umoci and containerd write, and the file of an exec must be found in a real overlay. Needs root.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test: its failures are panics, and a skip is said aloud"
)]

mod image;
mod overlay;
mod unpackers;

use std::process::{Command, Stdio};

/// What is missing for a test that needs root and `tools`; said loudly.
pub fn missing(tools: &[&str]) -> bool {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: needs root");
        return true;
    }
    for tool in tools {
        if Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
            eprintln!("SKIPPED: needs {tool}");
            return true;
        }
    }
    false
}
