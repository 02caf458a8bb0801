//! Programs for test containers: one static program of this crate, and the machine's static busybox.

use std::fs;
use std::io::Read as _;

use anyhow::{Context as _, Result};

/// The static program of `payload/main.rs`; its first argument says what it does, without one it only succeeds.
pub fn program() -> &'static [u8] {
    include_bytes!(concat!(env!("OUT_DIR"), "/payload"))
}

/// `program` with random bytes after its end: it runs alike, and nobody has ever seen its digest.
///
/// # Errors
/// The machine has no `/dev/urandom`.
pub fn unique() -> Result<Vec<u8>> {
    let mut bytes = program().to_vec();
    bytes.extend(random()?);
    Ok(bytes)
}

/// 32 random bytes.
///
/// # Errors
/// The machine has no `/dev/urandom`.
pub fn random() -> Result<[u8; 32]> {
    let mut bytes = [0; 32];
    fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("cannot read /dev/urandom")?;
    Ok(bytes)
}

/// The bytes of the machine's static busybox.
///
/// # Errors
/// It is not installed.
pub fn busybox() -> Result<Vec<u8>> {
    fs::read("/bin/busybox").context("cannot read /bin/busybox: install the package busybox-static")
}
