//! Builds `payload/` into one static program, which the library embeds.

use std::path::Path;
use std::process::Command;
use std::{env, io};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=payload");
    let variable = |name| env::var(name).map_err(|error| io::Error::other(format!("{name}: {error}")));
    let output = Path::new(&variable("OUT_DIR")?).join("payload");
    // A compiler of its own, since cargo cannot link one program of a package statically and the others not.
    let status = Command::new(variable("RUSTC")?)
        .args(["--edition", "2024", "--crate-name", "payload", "--target", &variable("TARGET")?])
        .args(["-C", "target-feature=+crt-static", "-C", "opt-level=2", "-C", "panic=abort", "-C", "strip=symbols"])
        .arg("-o")
        .arg(&output)
        .arg("payload/main.rs")
        .status()?;
    if status.success() {
        return Ok(());
    }
    Err(io::Error::other("cannot build the static test program: it needs gcc and libc6-dev (with libc.a)"))
}
