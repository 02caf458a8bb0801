//! Builds the eBPF programs, once for kernels from 5.11 on and once for older ones, and leaves them where `sensor`
//! embeds them.
//!
//! Takes the first tool chain that is there: rustup's nightly with `rust-src`, or Debian's `rustc-web`
//! with its prebuilt `core` for BPF; both need `bpf-linker`. Without one, a debug build gets an empty
//! object (the sensor then refuses to start and says why) and a release build fails.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

const TARGET: &str = "bpfel-unknown-none";
const REMEDY: &str = "run `cargo xtask setup`, or install bpf-linker and one of: rustup's nightly with rust-src, \
                      Debian's rustc-web + cargo-web + libstd-rust-web-dev-bpf";

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "a build script's way to say why it fails")]
            {
                eprintln!("error: {error}");
            }
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let workspace = PathBuf::from(variable("CARGO_MANIFEST_DIR")?).join("..");
    let out = PathBuf::from(variable("OUT_DIR")?);
    let objects = [("purser-bpf.o", None), ("purser-bpf-untyped.o", Some("untyped"))];
    for part in ["agent-ebpf", "agent-common"] {
        println!("cargo:rerun-if-changed={}", workspace.join(part).join("src").display());
        println!("cargo:rerun-if-changed={}", workspace.join(part).join("Cargo.toml").display());
    }
    println!("cargo:rerun-if-changed=build.rs");
    for name in ["PURSER_ALLOW_NO_BPF", "XDG_CACHE_HOME", "PURSER_BPF_TOOLCHAIN"] {
        println!("cargo:rerun-if-env-changed={name}");
    }

    let missing = match toolchain() {
        Ok((toolchain, linker)) => {
            println!("cargo:rerun-if-changed={}", linker.display());
            for (object, feature) in objects {
                let built = toolchain.build(&workspace, &out.join("bpf"), &linker, feature)?;
                fs::copy(&built, out.join(object))
                    .map_err(|error| format!("cannot copy {}: {error}", built.display()))?;
            }
            return Ok(());
        }
        Err(missing) => missing,
    };
    let release = variable("PROFILE")? == "release";
    if release && env::var_os("PURSER_ALLOW_NO_BPF").is_none_or(|value| value != "1") {
        return Err(format!(
            "cannot build the eBPF programs: {missing}. To remedy: {REMEDY}; or set PURSER_ALLOW_NO_BPF=1 for a \
             binary that cannot watch anything"
        ));
    }
    println!(
        "cargo:warning=building WITHOUT eBPF programs ({missing}): `purser run` will not work. To remedy: {REMEDY}"
    );
    // A file that never exists: cargo asks again at the next build, when the tools may be there.
    println!("cargo:rerun-if-changed={}", out.join("built-without-bpf-tools").display());
    for (object, _) in objects {
        fs::write(out.join(object), []).map_err(|error| format!("cannot write {object}: {error}"))?;
    }
    Ok(())
}

enum Toolchain {
    /// Builds `core` from source.
    Nightly,
    /// Comes with `core` for BPF.
    Debian,
}

impl Toolchain {
    fn build(
        &self,
        workspace: &Path,
        target_dir: &Path,
        linker: &Path,
        feature: Option<&str>,
    ) -> Result<PathBuf, String> {
        let mut command = match self {
            Self::Nightly => {
                let mut command = Command::new("rustup");
                command.args(["run", "nightly", "cargo", "build", "-Z", "build-std=core"]);
                command
            }
            Self::Debian => {
                let mut command = Command::new("/usr/bin/cargo");
                command.arg("build").env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1");
                command
            }
        };
        // The outer cargo's settings would follow into the inner build.
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            let inherited = text.starts_with("CARGO_") && text != "CARGO_HOME"
                || text.starts_with("RUSTC_")
                || text.starts_with("RUSTUP_TOOLCHAIN")
                || ["RUSTFLAGS", "RUSTDOC", "PROFILE", "OUT_DIR", "TARGET", "HOST"].contains(&&*text);
            if inherited && !(text == "RUSTC_BOOTSTRAP" && matches!(self, Self::Debian)) {
                command.env_remove(&name);
            }
        }
        if matches!(self, Self::Nightly) {
            command.env_remove("RUSTC");
        }
        command
            .args([
                "--package",
                "agent-ebpf",
                "--bin",
                "purser-bpf",
                "--profile",
                "bpf",
                "--target",
                TARGET,
                "--locked",
            ])
            .args(feature.map(|feature| format!("--features={feature}")))
            .arg("--target-dir")
            .arg(target_dir)
            .env("CARGO_ENCODED_RUSTFLAGS", rustflags(linker))
            .current_dir(workspace);
        let output = command.output().map_err(|error| format!("cannot run {command:?}: {error}"))?;
        if !output.status.success() {
            return Err(format!(
                "building the eBPF programs failed ({}): {command:?}\n{}",
                output.status,
                String::from_utf8_lossy(&output.stderr)
            ));
        }
        Ok(target_dir.join(TARGET).join("bpf").join("purser-bpf"))
    }
}

/// BTF for the kernel, debug information to make it from, and the linker by its full path.
fn rustflags(linker: &Path) -> String {
    let linker = format!("-Clinker={}", linker.display());
    [linker.as_str(), "-Clink-arg=--btf", "-Cdebuginfo=2"].join("\x1f")
}

/// The first usable tool chain, or what is missing.
fn toolchain() -> Result<(Toolchain, PathBuf), String> {
    let linker = linker().ok_or("no bpf-linker on PATH nor in the tool cache")?;
    let forced = env::var("PURSER_BPF_TOOLCHAIN").unwrap_or_default();
    if forced != "debian" && nightly_has_source() {
        return Ok((Toolchain::Nightly, linker));
    }
    if forced != "nightly" && debian_has_core() {
        return Ok((Toolchain::Debian, linker));
    }
    Err(format!("no Rust tool chain has a core for {TARGET}"))
}

fn linker() -> Option<PathBuf> {
    let cache = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    let cached = cache.map(|cache| cache.join("purser/tools/bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    cached
        .into_iter()
        .chain(env::split_paths(&path))
        .map(|folder| folder.join("bpf-linker"))
        .find(|candidate| candidate.is_file())
}

fn nightly_has_source() -> bool {
    let Ok(output) = Command::new("rustup").args(["run", "nightly", "rustc", "--print", "sysroot"]).output() else {
        return false;
    };
    let sysroot = String::from_utf8_lossy(&output.stdout);
    output.status.success() && Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file()
}

fn debian_has_core() -> bool {
    if !Path::new("/usr/bin/cargo").is_file() {
        return false;
    }
    let Ok(output) = Command::new("/usr/bin/rustc").args(["--print", "sysroot"]).output() else { return false };
    let sysroot = String::from_utf8_lossy(&output.stdout);
    output.status.success() && Path::new(sysroot.trim()).join("lib/rustlib").join(TARGET).is_dir()
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("{name}: {error}; this is a cargo build script"))
}
