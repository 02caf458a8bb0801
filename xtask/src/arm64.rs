//! Whether the agent compiles for 64-bit arm. Nothing here runs there: no machine of the project has such a processor.
//!
//! The standard library for it is rustup's, where the pinned toolchain has that target; else Debian's, for Debian's compiler,
//! which building the eBPF programs installs anyway. Its package is for another architecture, so it is not installed but
//! unpacked in the cache; apt checks it against Debian's signatures, with lists of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use xtask::rig::command;

use crate::workspace;

const TARGET: &str = "aarch64-unknown-linux-gnu";
/// For the C code of crates.
const COMPILER: &str = "aarch64-linux-gnu-gcc";

/// Checks the agent with its programs for 64-bit arm.
///
/// # Errors
/// It does not compile, or there is no standard library for it.
pub(crate) fn check(target: &Path) -> Result<()> {
    let mut check = if has_target()? {
        workspace::cargo(&["check"])?
    } else {
        let library = debian_library().with_context(|| {
            format!("there is no Rust standard library for {TARGET}: run `rustup target add {TARGET}`")
        })?;
        let mut cargo = workspace::program("/usr/bin/cargo")?;
        cargo.arg("check").env("RUSTC", "/usr/bin/rustc");
        cargo.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS", format!("--sysroot={}", library.display()));
        cargo
    };
    check.args(["--locked", "--package", "agent", "--target", TARGET]);
    // Apart from the other steps' artefacts, which another compiler made.
    check.env("CARGO_TARGET_DIR", target.join("arm64"));
    check.env("CC_aarch64_unknown_linux_gnu", COMPILER);
    check.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", COMPILER);
    workspace::check(&mut check)
}

/// Whether the pinned toolchain has the target's standard library.
fn has_target() -> Result<bool> {
    let mut rustc = workspace::program("rustc")?;
    let asked = command::output(rustc.args(["--print", "target-libdir", "--target", TARGET]))?;
    let libraries = String::from_utf8_lossy(&asked.stdout).trim().to_owned();
    Ok(asked.status.success() && Path::new(&libraries).is_dir())
}

/// The sysroot with Debian's library, fetched at the first time.
fn debian_library() -> Result<PathBuf> {
    let mut query = Command::new("dpkg-query");
    let version = command::stdout(query.args(["--show", "--showformat=${Version}", "rustc-web"]))
        .context("Debian's rustc-web is not installed")?;
    let sysroots = workspace::cache()?.join("sysroots");
    let folder = sysroots.join(format!("arm64-{version}"));
    let usr = folder.join("usr");
    if usr.is_dir() {
        return Ok(usr);
    }
    fs::create_dir_all(&sysroots).with_context(|| format!("cannot create {}", sysroots.display()))?;
    let partial = tempfile::tempdir_in(&sysroots).context("cannot create a directory for a library")?;
    let package = download(&format!("libstd-rust-web-dev={version}"))?;
    command::stdout(
        Command::new("dpkg-deb").arg("--extract").arg(package.path().join("package.deb")).arg(partial.path()),
    )?;
    // Another run may have put the same there meanwhile.
    if let Err(error) = fs::rename(partial.path(), &folder)
        && !usr.is_dir()
    {
        return Err(error).with_context(|| format!("cannot create {}", folder.display()));
    }
    Ok(usr)
}

/// A package for arm64 as `package.deb` in a directory of its own. The machine's own apt stays as it is.
fn download(package: &str) -> Result<tempfile::TempDir> {
    let folder = tempfile::tempdir().context("cannot create a directory for a package")?;
    for name in ["lists/partial", "archives/partial"] {
        fs::create_dir_all(folder.path().join(name)).context("cannot create a directory for apt")?;
    }
    let state = folder.path().display();
    let apt = |args: &[&str]| {
        let mut apt = Command::new("apt-get");
        apt.current_dir(folder.path()).args([
            "--quiet",
            "-o",
            "APT::Architecture=arm64",
            "-o",
            "APT::Architectures=arm64",
        ]);
        for option in [
            format!("Dir::State::Lists={state}/lists"),
            format!("Dir::Cache={state}"),
            "Dir::State::status=/dev/null".to_owned(),
            "Acquire::Languages=none".to_owned(),
        ] {
            apt.arg("-o").arg(option);
        }
        apt.args(args);
        apt
    };
    eprintln!("arm64: fetching {package}");
    // A source that has nothing for this architecture is an error to it, but not to us.
    let updated = command::output(&mut apt(&["update"]))?;
    let fetched = command::output(&mut apt(&["download", package]))?;
    if !fetched.status.success() {
        bail!("cannot fetch {package}: {}; {}", command::describe(&fetched), command::describe(&updated));
    }
    let entries = fs::read_dir(folder.path()).context("cannot list what apt has fetched")?;
    let found =
        entries.flatten().map(|entry| entry.path()).find(|path| path.extension().is_some_and(|end| end == "deb"));
    let found = found.with_context(|| format!("apt has not fetched {package}"))?;
    fs::rename(&found, folder.path().join("package.deb")).context("cannot rename a package")?;
    Ok(folder)
}
