//! Names of users: the host's, and those of each container from its own `/etc/passwd`, which is the container's
//! word and read as hostile: below its root, without magic links or other mounts, a bounded regular file.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::manifest::open;

/// A larger user database is read up to here.
const MAX_BYTES: u64 = 1 << 20;
/// Users remembered of one database.
const MAX_USERS: usize = 10_000;
/// Databases remembered.
const MAX_DATABASES: usize = 512;
/// How long an answer holds before the file is looked at again.
const FRESH: Duration = Duration::from_secs(2);

/// User databases by root directory.
#[derive(Debug, Default)]
pub struct Users {
    databases: RefCell<HashMap<PathBuf, Database>>,
}

#[derive(Debug)]
struct Database {
    checked: Instant,
    /// The file that was read.
    version: Option<open::Found>,
    names: HashMap<u32, Bytes>,
}

impl Users {
    /// The name of `uid` in the database below `root` (`/` or `/proc/PID/root`).
    pub fn name(&self, root: &Path, uid: u32) -> Option<Bytes> {
        let mut databases = self.databases.borrow_mut();
        if databases.len() >= MAX_DATABASES && !databases.contains_key(root) {
            databases.clear();
        }
        let now = Instant::now();
        let database = databases.entry(root.to_owned()).or_insert_with(|| Database {
            checked: now.checked_sub(FRESH).unwrap_or(now),
            version: None,
            names: HashMap::new(),
        });
        if database.version.is_none() || now.duration_since(database.checked) >= FRESH {
            database.refresh(root, now);
        }
        database.names.get(&uid).cloned()
    }
}

impl Database {
    fn refresh(&mut self, root: &Path, now: Instant) {
        self.checked = now;
        // An unreadable database keeps the names of its last reading: its container may be ending.
        let Ok(path) = find(root) else { return };
        let Ok(found) = open::Found::of(path.as_fd()) else { return };
        if !found.regular || self.version == Some(found) {
            return;
        }
        let Ok(fd) = open::readable(path.as_fd()) else { return };
        let mut text = Vec::new();
        if File::from(fd).take(MAX_BYTES).read_to_end(&mut text).is_ok() {
            self.names = parse(&text);
            self.version = Some(found);
        }
    }
}

/// The database as an `O_PATH` descriptor. In a container, a mount on the way is left alone: the worker reads this, and
/// the file system there may be that of a daemon which lets its readers wait.
fn find(root: &Path) -> rustix::io::Result<OwnedFd> {
    let mounts = if root == Path::new("/") { ResolveFlags::empty() } else { ResolveFlags::NO_XDEV };
    rustix::fs::openat2(
        open::directory(root)?,
        "etc/passwd",
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | mounts,
    )
}

/// `name:password:uid:...` lines; the first of a uid counts, as for the C library.
fn parse(text: &[u8]) -> HashMap<u32, Bytes> {
    let mut names = HashMap::new();
    for line in text.split(|b| *b == b'\n') {
        let mut fields = line.splitn(4, |b| *b == b':');
        let (Some(name), Some(_password), Some(uid)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let Some(uid) = str::from_utf8(uid).ok().and_then(|uid| uid.parse().ok()) else { continue };
        if name.is_empty() || names.len() >= MAX_USERS {
            continue;
        }
        names.entry(uid).or_insert_with(|| Bytes::copy_from_slice(name));
    }
    names
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    #[test]
    fn a_database_is_read_anew_when_it_changes() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        let passwd = root.path().join("etc/passwd");
        let users = Users::default();
        assert_eq!(users.name(root.path(), 7), None);
        std::fs::write(&passwd, b"first:x:7:7::/:/bin/sh\nsecond:x:7:7\n:x:8:8\nbroken\nx:y:z\n\xff\xfe:x:9:9:\n")
            .unwrap();
        assert_eq!(users.name(root.path(), 7).as_deref(), Some(&b"first"[..]));
        assert_eq!(users.name(root.path(), 8), None);
        assert_eq!(users.name(root.path(), 9).as_deref(), Some(&b"\xff\xfe"[..]));
        std::fs::write(&passwd, b"another:x:7:7::/:/bin/sh\n").unwrap();
        users.databases.borrow_mut().values_mut().for_each(|d| d.checked -= FRESH);
        assert_eq!(users.name(root.path(), 7).as_deref(), Some(&b"another"[..]));
    }

    #[test]
    fn a_link_out_of_the_root_and_a_pipe_are_harmless() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        let passwd = root.path().join("etc/passwd");
        std::os::unix::fs::symlink("../../../../../../../../../etc/passwd", &passwd).unwrap();
        assert_eq!(Users::default().name(root.path(), 0), None);
        std::fs::remove_file(&passwd).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &passwd, rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert_eq!(Users::default().name(root.path(), 0), None);
    }

    #[test]
    fn a_link_inside_the_root_is_followed_and_a_mount_is_not() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("etc")).unwrap();
        std::fs::write(root.path().join("users"), b"linked:x:7:7::/:/bin/sh\n").unwrap();
        let passwd = root.path().join("etc/passwd");
        std::os::unix::fs::symlink("/users", &passwd).unwrap();
        assert_eq!(Users::default().name(root.path(), 7).as_deref(), Some(&b"linked"[..]));
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
            Users::default().name(&path, 7)
        });
        assert_eq!(seen.join().unwrap(), None);
        assert_eq!(Users::default().name(root.path(), 7).as_deref(), Some(&b"plain"[..]));
    }

    fn mount(source: &CStr, target: &CStr, kind: &CStr, flags: libc::c_ulong) {
        // SAFETY: the texts are NUL terminated and outlive the call.
        let status = unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, std::ptr::null()) };
        assert_eq!(status, 0, "{}", std::io::Error::last_os_error());
    }
}
