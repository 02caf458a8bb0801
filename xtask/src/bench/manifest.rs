//! How fast a manifest is built from an image's layers, and what memory that takes.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use xtask::agent;
use xtask::rig::image::{Image, Layer};

use super::{Bench, progress};

/// A directory that every machine has, with real programs in it.
const SOURCE: &str = "/usr/bin";

#[derive(Debug, Serialize)]
pub(super) struct Manifest {
    /// The archive's size: gzip-compressed layers.
    pub(super) compressed_bytes: u64,
    pub(super) seconds: f64,
    pub(super) mb_per_second: f64,
    /// Highest resident memory of the whole process, bytes.
    pub(super) rss: u64,
}

pub(super) fn measure(bench: &Bench<'_>) -> Result<Manifest> {
    progress(&format!("writing an image of {SOURCE}"));
    let archive = bench.directory.path().join("large.tar");
    Image::new("local.test/large:1").layer(Layer::from_tree(SOURCE)?).write_archive(&archive)?;
    let compressed_bytes = fs::metadata(&archive).context("cannot stat the archive")?.len();
    progress("building its manifest");
    let mut build = Command::new(&bench.binary);
    build.args(["manifest", "build"]).arg(&archive).stdout(Stdio::null()).stderr(Stdio::inherit());
    let start = Instant::now();
    let mut child = build.spawn().context("cannot run purser manifest build")?;
    let mut rss = 0;
    let status = loop {
        if let Ok((_, highest)) = agent::memory(child.id()) {
            rss = highest;
        }
        match child.try_wait()? {
            Some(status) => break status,
            None => thread::sleep(Duration::from_millis(2)),
        }
    };
    let seconds = start.elapsed().as_secs_f64();
    if !status.success() {
        bail!("purser manifest build ended with {status}");
    }
    Ok(Manifest { compressed_bytes, seconds, mb_per_second: compressed_bytes as f64 / 1e6 / seconds, rss })
}
