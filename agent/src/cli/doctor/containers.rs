//! The cgroup layout, and the container runtimes whose places are there.

use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::{Check, State};
use crate::container::{ContainersConfig, mounts, places};

pub(super) fn checks(config: &ContainersConfig) -> Vec<Check> {
    let mut checks = vec![cgroups(&config.proc)];
    for endpoint in places::containerd(config) {
        let configured = config.containerd.contains(&endpoint);
        checks.extend(socket(&mounts::join_host(&config.host_root, &endpoint.socket), configured));
    }
    let storages = places::storages(config).into_iter().map(|path| ("containers/storage", path));
    let oci = places::oci(config).into_iter().map(|path| ("OCI runtime", path));
    for (what, path) in storages.chain(oci) {
        let configured = config.storage_roots.contains(&path) || config.runc_roots.contains(&path);
        checks.extend(directory(what, &mounts::join_host(&config.host_root, &path), configured));
    }
    if checks.len() == 1 {
        checks.push(Check::new(State::Info, "runtimes", "none found: nothing runs in containers here, or not as root"));
    }
    checks
}

/// Where cgroup2 is mounted.
pub(super) fn cgroup2(proc: &Path) -> Option<PathBuf> {
    mounted(proc).into_iter().find(|(kind, _)| kind == b"cgroup2").map(|(_, point)| point)
}

fn mounted(proc: &Path) -> Vec<(Vec<u8>, PathBuf)> {
    let mountinfo = fs::read(proc.join("self/mountinfo")).unwrap_or_default();
    let lines = mountinfo.split(|byte| *byte == b'\n').filter_map(mounts::parse_line);
    lines.filter(|line| line.kind.starts_with(b"cgroup")).map(|line| (line.kind, line.point)).collect()
}

fn cgroups(proc: &Path) -> Check {
    let v1 = mounted(proc).iter().any(|(kind, _)| kind == b"cgroup");
    match (cgroup2(proc), v1) {
        (Some(point), false) => Check::ok("cgroups", format!("v2 at {}", point.display())),
        (Some(point), true) => Check::ok("cgroups", format!("v1 and v2 (hybrid), v2 at {}", point.display())),
        (None, true) => Check::new(State::Limited, "cgroups", "v1 alone: containers are known by their cgroup's name"),
        (None, false) => Check::new(State::Limited, "cgroups", "none mounted: containers cannot be told apart"),
    }
}

/// What is not there and was not asked for is not worth a line.
fn absent(error: &io::Error, configured: bool) -> bool {
    error.kind() == io::ErrorKind::NotFound && !configured
}

fn socket(path: &Path, configured: bool) -> Option<Check> {
    let name = "containerd";
    let shown = path.display();
    match UnixStream::connect(path) {
        Ok(_) => Some(Check::ok(name, format!("{shown}: answers"))),
        Err(error) if absent(&error, configured) => None,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Some(Check::new(State::Unchecked, name, format!("{shown}: {error}")))
        }
        Err(error) => Some(Check::new(State::Limited, name, format!("{shown}: {error}"))),
    }
}

fn directory(what: &str, path: &Path, configured: bool) -> Option<Check> {
    let shown = path.display();
    match fs::read_dir(path) {
        Ok(_) => Some(Check::ok(what, shown.to_string())),
        Err(error) if absent(&error, configured) => None,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Some(Check::new(State::Unchecked, what, format!("{shown}: {error}")))
        }
        Err(error) => Some(Check::new(State::Limited, what, format!("{shown}: {error}"))),
    }
}
