//! The cgroup tree: where it is mounted, which directory an id is, which ids there are. A cgroup v2 id is
//! the inode number of its directory (`kernfs_node.id`, 64-bit kernels from 5.5 on).
//!
//! Nothing here makes a container of a path: `locate` asks a runtime for evidence.

use std::{
    collections::hash_map::DefaultHasher,
    fs::{self, File},
    hash::{Hash, Hasher},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    path::{Path, PathBuf},
};

use super::{mounts, read, reference::is_hex};

/// `FILEID_KERNFS` (`include/linux/exportfs.h`): the handle is the 64-bit kernfs id.
const FILEID_KERNFS: libc::c_int = 0xfe;
/// Most directories that one walk visits.
const MAX_WALK: usize = 200_000;
/// Longest path of a cgroup that is read or kept.
pub(crate) const MAX_PATH: usize = 4096;

/// The cgroup hierarchy that ids refer to.
#[derive(Debug)]
pub(crate) struct Hierarchy {
    /// Mount point of cgroup2; `None` where it is not mounted (pure v1).
    mount: Option<PathBuf>,
    /// The directory of the mount, for `open_by_handle_at`.
    dir: Option<File>,
    /// Path of the mounted directory from the hierarchy's root, as this process's cgroup namespace shows it.
    root: String,
    proc: PathBuf,
}

/// A cgroup directory found by [`Hierarchy::walk`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// Its id.
    pub(crate) id: u64,
    /// Its path from the hierarchy's root.
    pub(crate) path: String,
}

impl Hierarchy {
    /// Finds the cgroup2 mount in `PROC/self/mountinfo`. Of several the one with the widest view is taken.
    pub(crate) fn discover(proc: &Path) -> Self {
        let mountinfo = read::bounded(&proc.join("self/mountinfo"), 64 << 20).unwrap_or_default();
        let best = mountinfo
            .split(|&b| b == b'\n')
            .filter(|line| line.windows(9).any(|w| w == b" cgroup2 "))
            .filter_map(mounts::parse_line)
            .filter(|m| m.kind == b"cgroup2")
            .filter_map(|m| Some((m.root.to_str()?.trim_end_matches('/').to_owned(), m.point)))
            .min_by_key(|(root, point)| (width(root), point.as_os_str().len()));
        match best {
            Some((root, point)) => {
                // A root above this process's namespace ("/../..") is still the top of what can be seen.
                let root = if root.starts_with("/..") { String::new() } else { root };
                Self { dir: File::open(&point).ok(), mount: Some(point), root, proc: proc.to_path_buf() }
            }
            None => Self { dir: None, mount: None, root: String::new(), proc: proc.to_path_buf() },
        }
    }

    /// Where cgroup2 is mounted.
    pub(crate) fn mount(&self) -> Option<&Path> {
        self.mount.as_deref()
    }

    /// cgroup2 is mounted, so that ids are distinct.
    pub(crate) fn has_ids(&self) -> bool {
        self.mount.is_some()
    }

    /// The path of cgroup `id`, asked of the kernel: by handle, else through the process that was seen in it,
    /// else by a walk. `None` if it is gone.
    pub(crate) fn path_of(&self, id: u64, tgid: u32) -> Option<String> {
        self.path_by_handle(id).or_else(|| self.path_by_process(id, tgid)).or_else(|| {
            // Without CAP_DAC_READ_SEARCH there are no handles; a walk is rare then (one per new cgroup).
            let mut path = None;
            self.walk(|found| {
                if found.id == id {
                    path = Some(found.path.clone());
                }
                path.is_none()
            });
            path
        })
    }

    /// The cgroup of process `tgid` in a hierarchy without ids, with an id made from its path.
    pub(crate) fn of_process_v1(&self, tgid: u32) -> Option<Found> {
        let text = read::bounded(&self.proc.join(format!("{tgid}/cgroup")), 64 << 10).ok()?;
        let path = path_of_controllers(&String::from_utf8_lossy(&text))?.to_owned();
        let mut hasher = DefaultHasher::new();
        path.hash(&mut hasher);
        Some(Found { id: hasher.finish(), path })
    }

    /// Visits every directory, parents first, until `visit` answers `false`. Returns whether it was cut short
    /// by the bound on directories.
    pub(crate) fn walk(&self, mut visit: impl FnMut(&Found) -> bool) -> bool {
        let Some(mount) = &self.mount else { return false };
        let mut open = vec![(mount.clone(), self.root.clone())];
        let mut seen = 0;
        while let Some((dir, path)) = open.pop() {
            seen += 1;
            if seen > MAX_WALK {
                return true;
            }
            let Ok(meta) = fs::symlink_metadata(&dir) else { continue };
            let shown = if path.is_empty() { "/".to_owned() } else { path.clone() };
            if !visit(&Found { id: meta.ino(), path: shown }) {
                return false;
            }
            let Ok(entries) = fs::read_dir(&dir) else { continue };
            for entry in entries.flatten() {
                if entry.file_type().is_ok_and(|t| t.is_dir()) {
                    // A name that is not UTF-8 is no runtime's; its processes stay with the parent cgroup.
                    let name = entry.file_name();
                    if let Some(name) = name.to_str()
                        && path.len() + name.len() < MAX_PATH
                    {
                        open.push((entry.path(), format!("{path}/{name}")));
                    }
                }
            }
        }
        false
    }

    /// Some process in the cgroup at `path`, or in one below it.
    pub(crate) fn a_process_in(&self, path: &str) -> Option<u32> {
        let dir = self.directory(path)?;
        let first = |dir: &Path| {
            let text = read::bounded(&dir.join("cgroup.procs"), 1 << 20).ok()?;
            // A process of another pid namespace shows as 0.
            std::str::from_utf8(&text).ok()?.lines().find_map(|l| l.parse().ok().filter(|&pid| pid != 0))
        };
        first(&dir).or_else(|| {
            let below = fs::read_dir(&dir).ok()?;
            below.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).take(64).find_map(|e| first(&e.path()))
        })
    }

    /// Identity of the directory at `path`, while it exists.
    pub(crate) fn id_of(&self, path: &str) -> Option<u64> {
        fs::symlink_metadata(self.directory(path)?).ok().map(|m| m.ino())
    }

    /// The path in a value that a runtime wrote as an absolute host path (`/sys/fs/cgroup/unified/a/b`).
    pub(crate) fn strip_mount<'a>(&self, absolute: &'a str) -> Option<&'a str> {
        let hybrid = self.mount.as_ref().is_some_and(|m| m.ends_with("unified"));
        if hybrid && let Some(path) = absolute.strip_prefix("/sys/fs/cgroup/unified") {
            return Some(path);
        }
        let path = absolute.strip_prefix("/sys/fs/cgroup")?;
        Some(path.strip_prefix("/unified").unwrap_or(path))
    }

    fn directory(&self, path: &str) -> Option<PathBuf> {
        let below = path.strip_prefix(self.root.as_str())?;
        Some(self.mount.as_ref()?.join(below.trim_start_matches('/')))
    }

    fn path_by_handle(&self, id: u64) -> Option<String> {
        #[repr(C)]
        struct Handle {
            bytes: libc::c_uint,
            kind: libc::c_int,
            id: [u8; 8],
        }
        let dir = self.dir.as_ref()?;
        let mut handle = Handle { bytes: 8, kind: FILEID_KERNFS, id: id.to_ne_bytes() };
        // SAFETY: `Handle` has the layout of `struct file_handle` with its 8 bytes of `f_handle`, and lives
        // until the call returns.
        let fd = unsafe {
            libc::open_by_handle_at(dir.as_raw_fd(), (&raw mut handle).cast(), libc::O_PATH | libc::O_CLOEXEC)
        };
        if fd < 0 {
            return None;
        }
        // SAFETY: the call above returned a new descriptor that nothing else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let link = fs::read_link(self.proc.join(format!("self/fd/{}", fd.as_raw_fd()))).ok()?;
        // A removed directory reads "PATH (deleted)": its former name still tells whose it was.
        let bytes = link.as_os_str().as_bytes();
        let text = std::str::from_utf8(bytes.strip_suffix(b" (deleted)").unwrap_or(bytes)).ok()?;
        let below = Path::new(text).strip_prefix(self.mount.as_ref()?).ok()?.to_str()?;
        Some(self.join(below))
    }

    /// Only if the process still is in that very cgroup: a pid can be another process by now.
    fn path_by_process(&self, id: u64, tgid: u32) -> Option<String> {
        let text = read::bounded(&self.proc.join(format!("{tgid}/cgroup")), 64 << 10).ok()?;
        let path = std::str::from_utf8(&text).ok()?.lines().find_map(|l| l.strip_prefix("0::"))?.to_owned();
        (self.id_of(&path) == Some(id)).then_some(path)
    }

    fn join(&self, below: &str) -> String {
        if below.is_empty() && self.root.is_empty() {
            return "/".to_owned();
        }
        if below.is_empty() { self.root.clone() } else { format!("{}/{below}", self.root) }
    }
}

/// The path of the first controller that container runtimes always use (cgroup v1).
fn path_of_controllers(text: &str) -> Option<&str> {
    ["pids", "memory", "cpu", "name=systemd"].iter().find_map(|wanted| {
        text.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':');
            let controllers = fields.nth(1)?;
            controllers.split(',').any(|c| c == *wanted).then(|| fields.next())?
        })
    })
}

/// How much of the tree a mount of directory `root` shows: less is wider.
fn width(root: &str) -> usize {
    if root.starts_with("/..") { 0 } else { root.matches('/').count() + 1 }
}

/// What the shape of a cgroup's name suggests. A hint where to look, never a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Candidate<'a> {
    /// The container id to look for.
    pub(crate) id: &'a str,
    /// The containerd namespace to look in first.
    pub(crate) namespace: Option<&'a str>,
}

/// The candidate that the last component of `path` names; `None` for names that no runtime gives to a container.
pub(crate) fn candidate(path: &str) -> Option<Candidate<'_>> {
    let mut parts = path.rsplit('/');
    let name = parts.next().filter(|n| !n.is_empty())?;
    let parent = parts.next().unwrap_or("");
    if let Some(unit) = name.strip_suffix(".scope") {
        // The systemd driver: PREFIX-ID.scope. The id itself may hold hyphens; prefixes are known words.
        let (prefix, id) = ["cri-containerd", "docker", "crio", "libpod", "nerdctl", "runc"]
            .iter()
            .find_map(|p| unit.strip_prefix(p)?.strip_prefix('-').map(|id| (*p, id)))
            .or_else(|| unit.rsplit_once('-'))?;
        let namespace = match prefix {
            "cri-containerd" => Some("k8s.io"),
            "docker" => Some("moby"),
            "nerdctl" => Some("default"),
            _ => None,
        };
        return Some(Candidate { id, namespace });
    }
    if [".slice", ".service", ".mount", ".socket", ".swap"].iter().any(|s| name.ends_with(s)) {
        return None;
    }
    let id = name.strip_prefix("libpod-").or_else(|| name.strip_prefix("crio-")).unwrap_or(name);
    let namespace = match parent {
        "docker" => Some("moby"),
        _ if path.starts_with("/kubepods") => Some("k8s.io"),
        _ if is_hex(id, 64) => None,
        "" => None,
        parent => Some(parent),
    };
    // The id becomes part of a path below a runtime's directory.
    (!matches!(id, "" | "." | "..")).then_some(Candidate { id, namespace })
}

/// `path` and its parents, outermost first, without the root.
pub(crate) fn prefixes(path: &str) -> impl Iterator<Item = &str> {
    path.char_indices()
        .skip(1)
        .filter(|&(_, c)| c == '/')
        .map(|(at, _)| &path[..at])
        .chain(Some(path))
        .filter(|p| p.len() > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_every_runtime() {
        let hex = "0123456789abcdef".repeat(4);
        let table = [
            ("/default/web".into(), Some(("web", Some("default")))),
            (format!("/libpod_parent/libpod-{hex}"), Some((&hex, None))),
            (format!("/kubepods/besteffort/pod1-2/{hex}"), Some((&hex, Some("k8s.io")))),
            (format!("/kubepods/pod1-2/{hex}"), Some((&hex, Some("k8s.io")))),
            (format!("/kubepods.slice/x.slice/cri-containerd-{hex}.scope"), Some((&hex, Some("k8s.io")))),
            (format!("/kubepods.slice/x.slice/crio-{hex}.scope"), Some((&hex, None))),
            (format!("/system.slice/docker-{hex}.scope"), Some((&hex, Some("moby")))),
            (format!("/docker/{hex}"), Some((&hex, Some("moby")))),
            (format!("/machine.slice/libpod-{hex}.scope"), Some((&hex, None))),
            ("/system.slice/runc-my-web.scope".into(), Some(("my-web", None))),
            ("/web".into(), Some(("web", None))),
            ("/user.slice/session-3.scope".into(), Some(("3", None))),
            ("/system.slice".into(), None),
            ("/system.slice/ssh.service".into(), None),
            ("/init.scope".into(), None),
            ("/".into(), None),
            ("/a/..".into(), None),
            (String::new(), None),
        ];
        for (path, expected) in table {
            let got = candidate(&path).map(|c| (c.id, c.namespace));
            assert_eq!(got, expected, "{path}");
        }
    }

    #[test]
    fn prefixes_come_outermost_first() {
        assert_eq!(prefixes("/a/b/c").collect::<Vec<_>>(), ["/a", "/a/b", "/a/b/c"]);
        assert_eq!(prefixes("/").count(), 0);
        assert_eq!(prefixes("").count(), 0);
    }

    #[test]
    fn v1_controllers_name_the_path() {
        let text = "9:name=systemd:/s\n8:pids:/p\n4:cpu,cpuacct:/c\n0::/u\n";
        assert_eq!(path_of_controllers(text), Some("/p"));
        assert_eq!(path_of_controllers("4:cpu,cpuacct:/c:d\n"), Some("/c:d"));
        assert_eq!(path_of_controllers("0::/u\n"), None);
        assert_eq!(path_of_controllers("garbage"), None);
    }

    /// Needs root for the handle; the other ways must agree with it in any case.
    #[test]
    fn own_cgroup_is_found_by_id() {
        let hierarchy = Hierarchy::discover(Path::new("/proc"));
        if !hierarchy.has_ids() {
            eprintln!("skipped: cgroup2 is not mounted");
            return;
        }
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = own.lines().find_map(|l| l.strip_prefix("0::")).unwrap();
        let id = hierarchy.id_of(own).unwrap();
        assert_eq!(hierarchy.path_of(id, std::process::id()).as_deref(), Some(own));
        assert_eq!(hierarchy.path_by_process(id, std::process::id()).as_deref(), Some(own));
        assert_eq!(hierarchy.path_by_process(id + 1, std::process::id()), None);
        assert_eq!(hierarchy.path_of(u64::MAX - 1, std::process::id()), None);
    }
}
