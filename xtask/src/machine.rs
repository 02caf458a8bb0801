//! What a command needs of the machine, asked before it starts anything.

use std::path::Path;

use anyhow::{Result, bail};

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Checks that eBPF programs can be loaded here.
///
/// # Errors
/// One line that says what is missing and what to do.
pub(crate) fn require_ebpf(task: &str) -> Result<()> {
    if !is_root() {
        bail!(
            "`cargo xtask {task}` needs root to load eBPF programs: run it as root, e.g. `sudo -E env PATH=\"$PATH\" cargo xtask {task}`"
        );
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        bail!(
            "this kernel has no type information (/sys/kernel/btf/vmlinux): boot one built with CONFIG_DEBUG_INFO_BTF=y (5.10 or later; every stock Debian, Ubuntu and Fedora kernel is)"
        );
    }
    if let Err(error) = make_map() {
        bail!(
            "this kernel refuses eBPF to this process ({error}): it needs CAP_BPF and CAP_PERFMON (or CAP_SYS_ADMIN), which containers and lockdown may withhold; run it on the host, or in a privileged container"
        );
    }
    Ok(())
}

/// Creates an array map of one element and forgets it: the cheapest thing that only those may do who may use eBPF.
fn make_map() -> std::io::Result<()> {
    const BPF_MAP_CREATE: libc::c_long = 0;
    // `union bpf_attr`, BPF_MAP_CREATE: map_type (2 = array), key_size, value_size, max_entries
    let attributes: [u32; 4] = [2, 4, 4, 1];
    // SAFETY: the kernel reads `size` bytes of `attributes`, which outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_CREATE, attributes.as_ptr(), size_of_val(&attributes)) };
    let Ok(fd) = i32::try_from(fd).and_then(u32::try_from) else {
        return Err(std::io::Error::last_os_error());
    };
    // SAFETY: the kernel has just given this process the descriptor.
    drop(unsafe { <std::os::fd::OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd.cast_signed()) });
    Ok(())
}
