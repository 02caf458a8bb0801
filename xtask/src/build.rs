//! Builds the release binary, runs it, and writes its man page and completions.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context as _, Result, bail};
use xtask::rig::command;

use crate::setup::{self, Purpose};
use crate::{machine, workspace};

/// Builds both halves in release and gives the path of the binary, `target/release/purser`.
pub(crate) fn release() -> Result<PathBuf> {
    setup::install(Purpose::Build)?;
    build_in(&env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace::root().join("target"), PathBuf::from))
}

/// `binary`, or a new release build.
pub(crate) fn given_or_new(binary: Option<PathBuf>) -> Result<PathBuf> {
    match binary {
        Some(binary) => fs::canonicalize(&binary).with_context(|| format!("there is no {}", binary.display())),
        None => release(),
    }
}

/// Builds the release binary in `target`, and leaves it at `target/release/purser` of the workspace.
pub(crate) fn build_in(target: &Path) -> Result<PathBuf> {
    let mut build = workspace::cargo(&["build", "--release", "--locked", "--package", "agent", "--bin", "purser"])?;
    workspace::check(build.env("CARGO_TARGET_DIR", target))?;
    let built = workspace::root().join(target).join("release/purser");
    let binary = workspace::root().join("target/release/purser");
    if built != binary {
        if let Some(directory) = binary.parent() {
            fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
        }
        // Not written in place: the old one may be running.
        let new = binary.with_extension("new");
        fs::copy(&built, &new)
            .and_then(|_| fs::rename(&new, &binary))
            .with_context(|| format!("cannot copy the binary to {}", binary.display()))?;
    }
    Ok(binary)
}

/// Builds, and becomes `purser run ARGS`; so signals and the exit status are the agent's own.
pub(crate) fn run(args: &[OsString]) -> Result<()> {
    if !args.iter().any(|arg| arg == "--help" || arg == "-h") {
        machine::require_ebpf("run")?;
    }
    let binary = release()?;
    let error = Command::new(&binary).arg("run").args(args).exec();
    Err(error).with_context(|| format!("cannot run {}", binary.display()))
}

/// Writes the man page and the completions that the agent generates from its own command line.
pub(crate) fn docs() -> Result<()> {
    let binary = release()?;
    let directory = workspace::root().join("target/docs");
    fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    let pages: [(&str, &[&str]); 4] = [
        ("purser.1", &["man"]),
        ("purser.bash", &["completions", "bash"]),
        ("_purser", &["completions", "zsh"]),
        ("purser.fish", &["completions", "fish"]),
    ];
    for (name, args) in pages {
        let text = command::stdout(Command::new(&binary).args(args))?;
        if text.is_empty() {
            bail!("`purser {}` printed nothing", args.join(" "));
        }
        let path = directory.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}
