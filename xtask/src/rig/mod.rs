//! A test rig: images written without a registry and real runtimes that run them, each with its own root, state and socket
//! in a temporary directory. A rig ends what it started and removes what it made, also when a test panics; it touches
//! nothing else on the machine, so rigs can run beside each other and beside the machine's own runtimes.
//!
//! It knows nothing of the agent.

pub mod command;
pub mod containerd;
pub mod image;
pub mod payload;
pub mod podman;
pub mod runc;
mod teardown;

use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

/// A name that no other rig on this machine has: usable as namespace, container id and cgroup.
pub fn unique_name(prefix: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A directory for a rig. Its path is short, since sockets in it have to fit 108 bytes.
fn temp_dir(kind: &str) -> anyhow::Result<TempDir> {
    use anyhow::Context as _;
    let prefix = format!("purser-{kind}-");
    tempfile::Builder::new().prefix(&prefix).tempdir().context("cannot make a temporary directory")
}
