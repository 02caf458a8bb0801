//! The kernel, and what it lets this process do.

use std::fs;
use std::io;
use std::path::Path;

use super::{Check, State};
use crate::sensor::{self, SensorConfig};

/// Capabilities by their number (`include/uapi/linux/capability.h`), and what for.
const CAPABILITIES: &[(&str, u32, &str)] = &[
    ("CAP_BPF", 39, "loads the programs"),
    ("CAP_PERFMON", 38, "loads the programs"),
    ("CAP_SYS_PTRACE", 19, "looks into containers through /proc/PID/root"),
    ("CAP_DAC_READ_SEARCH", 2, "finds a cgroup by its id, and reads files of containers"),
];
/// Stands in for the first two.
const SYS_ADMIN: u32 = 21;

pub(super) fn checks() -> Vec<Check> {
    let uname = rustix::system::uname();
    let kernel = format!("{} {}", uname.release().to_string_lossy(), uname.machine().to_string_lossy());
    let mut checks = vec![Check::ok("kernel", kernel), btf(), user()];
    checks.extend(capabilities());
    checks.extend([
        lsm(),
        lockdown(),
        calls("32-bit calls", Some(sensor::takes_compat_calls())),
        calls("x32 calls", takes_x32()),
    ]);
    checks
}

fn btf() -> Check {
    let path = SensorConfig::default().btf;
    match fs::metadata(&path) {
        Ok(metadata) => Check::ok("BTF", format!("{}, {} KiB", path.display(), metadata.len() >> 10)),
        Err(error) => {
            let what = "the kernel needs CONFIG_DEBUG_INFO_BTF, a container the host's /sys";
            Check::new(State::Missing, "BTF", format!("{}: {error}; {what}", path.display()))
        }
    }
}

fn user() -> Check {
    let user = rustix::process::geteuid();
    if user.is_root() {
        return Check::ok("user", "root");
    }
    Check::new(State::Unchecked, "user", format!("uid {}: `purser run` needs root", user.as_raw()))
}

fn capabilities() -> Vec<Check> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
    let has = |bit: u32| effective.map(|bits| bits >> bit & 1 == 1);
    let is_root = rustix::process::geteuid().is_root();
    let check = |(name, bit, what): &(&str, u32, &str)| {
        let loads = *bit >= 38;
        let text = *what;
        match has(*bit).zip(has(SYS_ADMIN)) {
            Some((true, _)) => Check::ok(*name, text),
            Some((false, true)) if loads => Check::ok(*name, format!("{text}; CAP_SYS_ADMIN stands in for it")),
            Some(_) if !is_root => Check::new(State::Unchecked, *name, format!("{text}; not for this user")),
            Some(_) if loads => Check::new(State::Missing, *name, format!("{text}; give it to the agent")),
            Some(_) => Check::new(State::Limited, *name, format!("{text}; not given")),
            None => Check::new(State::Unchecked, *name, "/proc/self/status does not say"),
        }
    };
    CAPABILITIES.iter().map(check).collect()
}

fn lsm() -> Check {
    match securityfs("lsm") {
        Ok(list) if list.split(',').any(|name| name == "bpf") => Check::ok("LSMs", list),
        Ok(list) => {
            Check::new(State::Limited, "LSMs", format!("{list}: without bpf there are no BPF LSM hooks (tier A)"))
        }
        Err(error) => Check::new(State::Unchecked, "LSMs", error),
    }
}

fn lockdown() -> Check {
    match securityfs("lockdown") {
        Ok(modes) if modes.contains("[confidentiality]") => Check::new(
            State::Missing,
            "lockdown",
            "confidentiality: programs may not read kernel memory; boot with lockdown=integrity or without",
        ),
        Ok(modes) => Check::ok("lockdown", modes),
        Err(_) => Check::new(State::Info, "lockdown", "this kernel has none, or securityfs is not mounted"),
    }
}

fn securityfs(name: &str) -> Result<String, String> {
    let path = Path::new("/sys/kernel/security").join(name);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(format!("{}: not there: is securityfs mounted?", path.display()))
        }
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

fn calls(name: &str, taken: Option<bool>) -> Check {
    match taken {
        Some(true) => Check::new(State::Info, name, "taken by this kernel"),
        Some(false) => Check::new(State::Info, name, "not taken by this kernel"),
        None => Check::new(State::Unchecked, name, "a seccomp filter is in the way of trying"),
    }
}

/// Whether the kernel takes calls by another numbering, made by this very process: it asks for its own pid.
pub(super) fn takes_x32() -> Option<bool> {
    #[cfg(target_arch = "x86_64")]
    {
        /// `__X32_SYSCALL_BIT` (`arch/x86/include/uapi/asm/unistd.h`)
        const X32: libc::c_long = 0x4000_0000;
        if is_filtered() {
            return None;
        }
        // SAFETY: asks for a number.
        let answer = unsafe { libc::syscall(X32 | libc::SYS_getpid) };
        Some(answer == libc::c_long::from(std::process::id() as i32))
    }
    #[cfg(not(target_arch = "x86_64"))]
    Some(false)
}

/// A filter may kill who makes calls by another numbering.
#[cfg(target_arch = "x86_64")]
fn is_filtered() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    !status.lines().any(|line| line.split_whitespace().eq(["Seccomp:", "0"]))
}
