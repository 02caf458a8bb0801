//! Users and groups: the host's, and those of each container from its own `/etc/passwd` and `/etc/group`, which are the
//! container's word and read as hostile: below its root, without magic links or other mounts, bounded regular files.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use serde::{Deserialize, Serialize};

use crate::manifest::open;

/// A larger database is read up to here.
const MAX_BYTES: u64 = 1 << 20;
/// Entries remembered of one database.
const MAX_ENTRIES: usize = 10_000;
/// Databases remembered.
const MAX_DATABASES: usize = 512;
/// How long an answer holds before the file is looked at again.
const FRESH: Duration = Duration::from_secs(2);

/// An account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Login name.
    #[serde(with = "crate::recording::serial::bytes")]
    pub name: Bytes,
    /// Home directory; may be empty.
    #[serde(with = "crate::recording::serial::bytes")]
    pub home: Bytes,
    /// Login shell; may be empty.
    #[serde(with = "crate::recording::serial::bytes")]
    pub shell: Bytes,
}

/// User and group databases by root directory.
#[derive(Debug, Default)]
pub struct Users {
    databases: RefCell<HashMap<(PathBuf, Kind), Database>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Passwd,
    Group,
}

#[derive(Debug)]
struct Database {
    checked: Instant,
    /// The file that was read.
    version: Option<open::Found>,
    /// Of a group only the name is set.
    entries: HashMap<u32, User>,
}

impl Users {
    /// The account of `uid` in the database below `root` (`/` or `/proc/PID/root`).
    pub fn user(&self, root: &Path, uid: u32) -> Option<User> {
        self.entry(root, Kind::Passwd, uid)
    }

    /// The name of the group `gid` in the database below `root`.
    pub fn group(&self, root: &Path, gid: u32) -> Option<Bytes> {
        self.entry(root, Kind::Group, gid).map(|group| group.name)
    }

    fn entry(&self, root: &Path, kind: Kind, id: u32) -> Option<User> {
        let mut databases = self.databases.borrow_mut();
        let key = (root.to_owned(), kind);
        if databases.len() >= MAX_DATABASES && !databases.contains_key(&key) {
            databases.clear();
        }
        let now = Instant::now();
        let database = databases.entry(key).or_insert_with(|| Database {
            checked: now.checked_sub(FRESH).unwrap_or(now),
            version: None,
            entries: HashMap::new(),
        });
        if database.version.is_none() || now.duration_since(database.checked) >= FRESH {
            database.refresh(root, kind, now);
        }
        database.entries.get(&id).cloned()
    }
}

impl Database {
    fn refresh(&mut self, root: &Path, kind: Kind, now: Instant) {
        self.checked = now;
        // An unreadable database keeps the entries of its last reading: its container may be ending.
        let Ok(path) = find(root, kind) else { return };
        let Ok(found) = open::Found::of(path.as_fd()) else { return };
        if !found.regular || self.version == Some(found) {
            return;
        }
        let Ok(fd) = open::readable(path.as_fd()) else { return };
        let mut text = Vec::new();
        if File::from(fd).take(MAX_BYTES).read_to_end(&mut text).is_ok() {
            self.entries = parse(&text, kind);
            self.version = Some(found);
        }
    }
}

/// The database as an `O_PATH` descriptor. In a container, a mount on the way is left alone: the worker reads this, and
/// the file system there may be that of a daemon which lets its readers wait.
fn find(root: &Path, kind: Kind) -> rustix::io::Result<OwnedFd> {
    let mounts = if root == Path::new("/") { ResolveFlags::empty() } else { ResolveFlags::NO_XDEV };
    rustix::fs::openat2(
        open::directory(root)?,
        match kind {
            Kind::Passwd => "etc/passwd",
            Kind::Group => "etc/group",
        },
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | mounts,
    )
}

/// `name:password:uid:gid:comment:home:shell` and `name:password:gid:members` lines; the first of an id counts, as for the C library.
fn parse(text: &[u8], kind: Kind) -> HashMap<u32, User> {
    let mut entries = HashMap::new();
    for line in text.split(|b| *b == b'\n') {
        let fields: Vec<&[u8]> = line.split(|b| *b == b':').collect();
        let [name, _password, id, rest @ ..] = fields.as_slice() else { continue };
        let Some(id) = str::from_utf8(id).ok().and_then(|id| id.parse().ok()) else { continue };
        if name.is_empty() || entries.len() >= MAX_ENTRIES {
            continue;
        }
        entries.entry(id).or_insert_with(|| {
            let text = |field: Option<&&[u8]>| field.map_or_else(Bytes::new, |field| Bytes::copy_from_slice(field));
            let (home, shell) = if kind == Kind::Passwd { (rest.get(2), rest.get(3)) } else { (None, None) };
            User { name: text(Some(name)), home: text(home), shell: text(shell) }
        });
    }
    entries
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    fn name(users: &Users, root: &Path, uid: u32) -> Option<Bytes> {
        users.user(root, uid).map(|user| user.name)
    }

    #[test]
    fn accounts_have_homes_and_shells_and_groups_have_names() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::fs::write(root.path().join("etc/passwd"), "a:x:7:8:A, b:/home/a:/bin/sh\nshort:x:9\n").unwrap();
        std::fs::write(root.path().join("etc/group"), "staff:x:7:a,b\nbare:x:8\nbroken\n").unwrap();
        let users = Users::default();
        let user = users.user(root.path(), 7).unwrap();
        assert_eq!((&*user.name, &*user.home, &*user.shell), (&b"a"[..], &b"/home/a"[..], &b"/bin/sh"[..]));
        assert_eq!(users.user(root.path(), 9).unwrap().home, "");
        assert_eq!(users.group(root.path(), 7).unwrap(), "staff");
        assert_eq!(users.group(root.path(), 8).unwrap(), "bare");
        assert_eq!(users.group(root.path(), 9), None);
    }

    #[test]
    fn a_database_is_read_anew_when_it_changes() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        let passwd = root.path().join("etc/passwd");
        let users = Users::default();
        assert_eq!(name(&users, root.path(), 7), None);
        std::fs::write(&passwd, b"first:x:7:7::/:/bin/sh\nsecond:x:7:7\n:x:8:8\nbroken\nx:y:z\n\xff\xfe:x:9:9:\n")
            .unwrap();
        assert_eq!(name(&users, root.path(), 7).as_deref(), Some(&b"first"[..]));
        assert_eq!(name(&users, root.path(), 8), None);
        assert_eq!(name(&users, root.path(), 9).as_deref(), Some(&b"\xff\xfe"[..]));
        std::fs::write(&passwd, b"another:x:7:7::/:/bin/sh\n").unwrap();
        users.databases.borrow_mut().values_mut().for_each(|d| d.checked -= FRESH);
        assert_eq!(name(&users, root.path(), 7).as_deref(), Some(&b"another"[..]));
    }

    #[test]
    fn a_link_out_of_the_root_and_a_pipe_are_harmless() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        let passwd = root.path().join("etc/passwd");
        std::os::unix::fs::symlink("../../../../../../../../../etc/passwd", &passwd).unwrap();
        assert_eq!(name(&Users::default(), root.path(), 0), None);
        std::fs::remove_file(&passwd).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &passwd, rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert_eq!(name(&Users::default(), root.path(), 0), None);
    }

    #[test]
    fn a_link_inside_the_root_is_followed_and_a_mount_is_not() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("etc")).unwrap();
        std::fs::write(root.path().join("users"), b"linked:x:7:7::/:/bin/sh\n").unwrap();
        let passwd = root.path().join("etc/passwd");
        std::os::unix::fs::symlink("/users", &passwd).unwrap();
        assert_eq!(name(&Users::default(), root.path(), 7).as_deref(), Some(&b"linked"[..]));
        std::fs::remove_file(&passwd).unwrap();
        std::fs::write(&passwd, b"plain:x:7:7::/:/bin/sh\n").unwrap();
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED the mount: it needs root");
            return;
        }
        let etc = std::ffi::CString::new(root.path().join("etc").as_os_str().as_encoded_bytes()).unwrap();
        let path = root.path().to_owned();
        let seen = std::thread::spawn(move || {
            // SAFETY: takes no pointer. This thread gets a mount namespace of its own, which ends with it.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNS) }, 0);
            mount(c"none", c"/", c"none", libc::MS_REC | libc::MS_PRIVATE);
            mount(c"tmpfs", &etc, c"tmpfs", 0);
            std::fs::write(path.join("etc/passwd"), b"mounted:x:7:7::/:/bin/sh\n").unwrap();
            name(&Users::default(), &path, 7)
        });
        assert_eq!(seen.join().unwrap(), None);
        assert_eq!(name(&Users::default(), root.path(), 7).as_deref(), Some(&b"plain"[..]));
    }

    fn mount(source: &CStr, target: &CStr, kind: &CStr, flags: libc::c_ulong) {
        // SAFETY: the texts are NUL terminated and outlive the call.
        let status = unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, std::ptr::null()) };
        assert_eq!(status, 0, "{}", std::io::Error::last_os_error());
    }
}
