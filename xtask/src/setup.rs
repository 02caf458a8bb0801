//! Installs what the other commands need and what is missing of it: Debian packages, two Rust tools at pinned versions, and the
//! formatter and linter of the pinned toolchain. Where all is there it only looks.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use xtask::rig::command;

use crate::{machine, workspace};

/// What is to be made possible. Each includes those above it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Purpose {
    /// Compiling the user-space half, and the tests that need neither root nor eBPF.
    Compile,
    /// The release binary, with its eBPF programs.
    Build,
    /// Real containers and other kernels: demo, benchmarks, all tests.
    Everything,
}

const COMPILE: &[&str] = &["gcc", "libc6-dev", "protobuf-compiler"];
/// A compiler whose core library is built for the BPF target, for those who have no rustup nightly.
const BPF_COMPILER: &[&str] = &["cargo-web", "libstd-rust-web-dev-bpf", "rustc-web"];
const BPF_LINKER: &[&str] = &["libpolly-22-dev", "libxml2-dev", "libzstd-dev", "llvm-22-dev", "zlib1g-dev"];
const CONTAINERS: &[&str] =
    &["busybox-static", "containerd", "debootstrap", "iproute2", "podman", "prometheus", "runc", "skopeo", "umoci"];
/// Other kernels: an emulator, and what takes Debian's packages and programs apart.
const MACHINES: &[&str] = &["binutils", "busybox-static", "qemu-system-x86", "xz-utils"];
/// The C code of crates for 64-bit arm.
const ARM64: &[&str] = &["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"];

/// A program from crates.io. Its version is pinned here, and its dependencies by its own lock file.
struct Tool {
    name: &'static str,
    version: &'static str,
    purpose: Purpose,
    features: &'static [&'static str],
    environment: &'static [(&'static str, &'static str)],
    remedy: &'static str,
}

const TOOLS: &[Tool] = &[
    Tool {
        name: "bpf-linker",
        version: "0.13.0",
        purpose: Purpose::Build,
        features: &["--no-default-features", "--features", "llvm-22"],
        environment: &[("LLVM_PREFIX", "/usr/lib/llvm-22")],
        remedy: "it links against LLVM 22 in /usr/lib/llvm-22 (package llvm-22-dev, in Debian and at https://apt.llvm.org)",
    },
    Tool {
        name: "cargo-deny",
        version: "0.20.2",
        purpose: Purpose::Compile,
        features: &[],
        environment: &[],
        remedy: "it needs crates.io",
    },
];

/// Installs what `purpose` needs.
///
/// # Errors
/// One line with the remedy: not root and packages are missing, or an installation fails.
pub(crate) fn install(purpose: Purpose) -> Result<()> {
    install_packages(purpose)?;
    install_components()?;
    let tools = workspace::tools()?;
    fs::create_dir_all(&tools).with_context(|| format!("cannot create {}", tools.display()))?;
    // Two set-ups at once would each build the same tool.
    let lock = fs::File::create(tools.join(".lock")).context("cannot create the lock of the tools")?;
    lock.lock().context("cannot lock the tools")?;
    for tool in TOOLS.iter().filter(|tool| tool.purpose <= purpose) {
        tool.install(&tools)?;
    }
    Ok(())
}

fn install_packages(purpose: Purpose) -> Result<()> {
    let mut wanted = COMPILE.to_vec();
    if purpose >= Purpose::Build {
        wanted.extend(BPF_LINKER);
        if !has_nightly_with_source() {
            wanted.extend(BPF_COMPILER);
        }
    }
    if purpose >= Purpose::Everything {
        wanted.extend(CONTAINERS);
        wanted.extend(MACHINES);
        wanted.extend(ARM64);
    }
    wanted.sort_unstable();
    wanted.dedup();
    let Some(missing) = missing_packages(&wanted)? else {
        eprintln!(
            "setup: no dpkg here; taking it that what these Debian packages hold is installed: {}",
            wanted.join(" ")
        );
        return Ok(());
    };
    if missing.is_empty() {
        return Ok(());
    }
    let install = format!("apt-get install --yes --no-install-recommends {}", missing.join(" "));
    if !machine::is_root() {
        bail!("packages are missing: run `sudo {install}`");
    }
    eprintln!("setup: installing {}", missing.join(" "));
    // The lists may be absent (a fresh container image) or old; only then is it worth the time to fetch them.
    let tried = apt(&missing).output().context("cannot run apt-get")?;
    if tried.status.success() {
        return Ok(());
    }
    let mut update = Command::new("apt-get");
    command::stdout(update.args(["update", "--quiet"]))
        .context("cannot fetch the package lists; is the network there?")?;
    let installed = command::output(&mut apt(&missing))?;
    if !installed.status.success() {
        bail!("`{install}` failed, install these by hand: {}", command::describe(&installed));
    }
    Ok(())
}

fn apt(packages: &[&str]) -> Command {
    let mut apt = Command::new("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive");
    apt.args(["install", "--yes", "--quiet", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"]);
    apt.args(packages);
    apt
}

/// Which of `packages` are not installed; `None` where there is no dpkg to ask.
fn missing_packages<'a>(packages: &[&'a str]) -> Result<Option<Vec<&'a str>>> {
    let asked = Command::new("dpkg-query")
        .args(["--show", "--showformat", "${db:Status-Status} ${Package}\n"])
        .args(packages)
        .output();
    match asked {
        Ok(output) => Ok(Some(not_installed(packages, &String::from_utf8_lossy(&output.stdout)))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context("cannot run dpkg-query"),
    }
}

fn not_installed<'a>(packages: &[&'a str], listing: &str) -> Vec<&'a str> {
    let installed: Vec<&str> = listing.lines().filter_map(|line| line.strip_prefix("installed ")).collect();
    packages.iter().copied().filter(|package| !installed.contains(package)).collect()
}

/// rustup's nightly with rust-src can build `core` for the BPF target.
fn has_nightly_with_source() -> bool {
    let asked = Command::new("rustup").args(["run", "nightly", "rustc", "--print", "sysroot"]).output();
    asked.is_ok_and(|output| {
        let sysroot = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success() && Path::new(&sysroot).join("lib/rustlib/src/rust/library/core").is_dir()
    })
}

/// The pinned toolchain's formatter and linter, which rustup's minimal profile leaves out.
fn install_components() -> Result<()> {
    for (subcommand, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        if command::output(&mut workspace::cargo(&[subcommand, "--version"])?)?.status.success() {
            continue;
        }
        eprintln!("setup: installing the component {component}");
        command::stdout(workspace::program("rustup")?.args(["component", "add", component]))
            .with_context(|| format!("cargo {subcommand} is missing: run `rustup component add {component}`"))?;
    }
    Ok(())
}

impl Tool {
    fn install(&self, tools: &Path) -> Result<()> {
        let program = tools.join("bin").join(self.name);
        let there = Command::new(&program).arg("--version").output();
        if there.is_ok_and(|output| is_version(&String::from_utf8_lossy(&output.stdout), self.version)) {
            return Ok(());
        }
        eprintln!("setup: building {} {} (some minutes, once)", self.name, self.version);
        let mut install = workspace::cargo(&["install", self.name, "--locked", "--force", "--quiet"])?;
        install.arg(format!("--version={}", self.version)).arg("--root").arg(tools).args(self.features);
        install.envs(self.environment.iter().copied());
        workspace::check(&mut install)
            .with_context(|| format!("cannot install {} {}; {}", self.name, self.version, self.remedy))
    }
}

/// `NAME VERSION`, as these tools print it.
fn is_version(printed: &str, version: &str) -> bool {
    printed.split_whitespace().nth(1) == Some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_installed_packages_count() {
        let listing = "installed gcc\nconfig-files runc\nhalf-installed podman\n";
        assert_eq!(not_installed(&["gcc", "podman", "runc", "umoci"], listing), ["podman", "runc", "umoci"]);
        assert_eq!(not_installed(&["gcc"], listing), Vec::<&str>::new());
        assert_eq!(not_installed(&["gcc"], ""), ["gcc"]);
    }

    #[test]
    fn a_tool_of_another_version_is_replaced() {
        assert!(is_version("bpf-linker 0.13.0\n", "0.13.0"));
        assert!(!is_version("bpf-linker 0.13.1\n", "0.13.0"));
        assert!(!is_version("", "0.13.0"));
    }

    #[test]
    fn each_purpose_includes_those_before_it() {
        assert!(Purpose::Compile < Purpose::Build);
        assert!(Purpose::Build < Purpose::Everything);
    }
}
