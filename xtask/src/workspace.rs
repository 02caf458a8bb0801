//! Where things are, and a cargo that is run in the workspace with the project's own tools first on its PATH.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use xtask::rig::command;

/// The workspace's root directory.
pub(crate) fn root() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// Purser's cache directory: `$XDG_CACHE_HOME/purser`, else `~/.cache/purser`.
pub(crate) fn cache() -> Result<PathBuf> {
    let base = match env::var_os("XDG_CACHE_HOME").filter(|path| Path::new(path).is_absolute()) {
        Some(base) => PathBuf::from(base),
        None => env::home_dir().context("neither XDG_CACHE_HOME nor HOME is set")?.join(".cache"),
    };
    Ok(base.join("purser"))
}

/// Where pinned tools are installed (`bin` below it).
pub(crate) fn tools() -> Result<PathBuf> {
    Ok(cache()?.join("tools"))
}

/// A program run in the workspace's root, with the pinned tools first on its PATH.
pub(crate) fn program(name: &str) -> Result<Command> {
    let mut path = vec![tools()?.join("bin")];
    path.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    let path: OsString = env::join_paths(path).context("PATH cannot be extended")?;
    let mut program = Command::new(name);
    // `cargo run` points this at its own toolchain, which is none of another compiler's business.
    program.current_dir(root()).env("PATH", path).env_remove("LD_LIBRARY_PATH");
    Ok(program)
}

/// `cargo` in the workspace.
pub(crate) fn cargo(args: &[&str]) -> Result<Command> {
    let mut cargo = program("cargo")?;
    cargo.args(args);
    Ok(cargo)
}

/// Runs a command with this terminal as its output.
///
/// # Errors
/// It cannot be started, or fails.
pub(crate) fn check(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {}", command::line(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", command::line(command));
    }
    Ok(())
}
