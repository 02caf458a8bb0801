//! Ends processes, mounts and cgroups that a rig made, found by a path or name that only this rig has.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

/// Asks a child to end, and kills it after `patience`.
pub(super) fn end(child: &mut Child, patience: Duration) {
    let deadline = Instant::now() + patience;
    if let Some(pid) = Pid::from_raw(child.id().cast_signed()) {
        let _ = rustix::process::kill_process(pid, Signal::TERM);
    }
    while matches!(child.try_wait(), Ok(None)) {
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Kills the processes whose command line has `argument`, which must be a path below the rig's own directory,
/// and waits until they are gone.
pub(super) fn kill_with_argument(argument: &Path) {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let found: Vec<Pid> = processes().filter(|&pid| has_argument(pid, argument)).collect();
        if found.is_empty() || Instant::now() > deadline {
            return;
        }
        for pid in found {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn processes() -> impl Iterator<Item = Pid> {
    fs::read_dir("/proc").into_iter().flatten().filter_map(|entry| {
        let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
        Pid::from_raw(pid)
    })
}

fn has_argument(pid: Pid, argument: &Path) -> bool {
    let line = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
    line.split(|&byte| byte == 0).any(|word| word == argument.as_os_str().as_bytes())
}

/// Detaches every mount below `directory`, the innermost first.
pub(super) fn unmount_below(directory: &Path) {
    let mut mounts: Vec<PathBuf> = mounts().map(|(path, _)| path).filter(|path| path.starts_with(directory)).collect();
    mounts.sort();
    for mount in mounts.iter().rev() {
        let _ = rustix::mount::unmount(mount, rustix::mount::UnmountFlags::DETACH);
    }
}

/// Removes the cgroup `name`, and the empty ones in it, from every hierarchy. Removing a cgroup in use fails, and harms nobody.
pub(super) fn remove_cgroups(name: &str) {
    for (mount, kind) in mounts() {
        if kind == "cgroup" || kind == "cgroup2" {
            remove_cgroup(&mount.join(name));
        }
    }
}

fn remove_cgroup(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    let _ = fs::remove_dir(path);
}

/// Mount points and file system types of this mount namespace.
fn mounts() -> impl Iterator<Item = (PathBuf, String)> {
    let text = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mounts: Vec<_> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            let path = words.next()?.replace(r"\040", " ");
            Some((PathBuf::from(path), words.next()?.to_owned()))
        })
        .collect();
    mounts.into_iter()
}
