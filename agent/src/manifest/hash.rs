//! Finds the file of an event and hashes it, so that the digest is of the bytes that ran: a file is
//! taken only if inode, size and change time are the event's before and after reading.
//!
//! Where a file is looked for, in this order:
//! 1. on the root file system: by its path in the layer directory that the kernel named (a lower
//!    layer's snapshot, or the upper directory; never through the overlay, whose numbers do not tell a copy-up).
//!    That needs no living process, so a program that ends at once is found too;
//! 2. below `/proc/INIT/root`;
//! 3. as `/proc/PID/exe`, which is first for files on other mounts, memfds and unlinked files: those have no
//!    trusted directory, and a descriptor of it is taken when the event is handed in.
//!
//! FUSE and network file systems are never read. A file that was written within a clock tick of the event is
//! unsettled (see [`FileDigest::settled`]) unless the process that runs it, and so keeps it from being written
//! (`ETXTBSY`; not on Linux 6.11 and 6.12, which had dropped that), is still there after hashing.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use rustix::{
    fs::ResolveFlags,
    io::Errno,
    time::{ClockId, clock_gettime},
};

use super::{
    capabilities::FileCapabilities,
    digest::Hasher,
    digest_cache::{DigestCache, Key},
    judge::{FileDigest, HashFailure},
    open::{self, Found},
};
use crate::{
    container::Container,
    event::{FileIdentity, OVERLAYFS},
};

/// Writes within one tick leave ctime unmoved; ticks are at most 10 ms (`CONFIG_HZ=100`).
const TICK_NS: i64 = 20_000_000;
const BTRFS: u64 = 0x9123_683E;
const BUFFER: usize = 128 << 10;
/// A path can be swapped between two lookups; nobody wins that race twice by chance.
const ROUNDS: usize = 2;

/// The file of an exec, as the event says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecFile {
    /// The file.
    pub identity: FileIdentity,
    /// Its path from the root of the task's mount namespace.
    pub path: Bytes,
    /// Its path from the root of its own file system where that differs; else empty.
    pub fs_path: Bytes,
    /// The process that runs it.
    pub tgid: u32,
    /// The task was in the mount namespace of the runtime that made the container: before the entry point, or by
    /// `setns`.
    pub in_host_mount_namespace: bool,
    /// When, ns since boot.
    pub boot_ns: u64,
}

impl ExecFile {
    /// Its path from the root of the container's root file system; `None` where it lies on another mount. Bind mounts
    /// do not change it: a file has one place on its file system.
    pub fn rootfs_path<'a>(&'a self, container: &'a Container) -> Option<&'a [u8]> {
        if !self.identity.on_rootfs {
            return None;
        }
        let overlay_rootfs = !container.rootfs.lower.is_empty() || container.rootfs.upper.is_some();
        if self.identity.overlay.is_some() || self.fs_path.is_empty() {
            // An overlay's root is the container's root.
            let hidden = overlay_rootfs && self.identity.overlay.is_none() && self.identity.magic != OVERLAYFS;
            return (!hidden).then_some(if self.fs_path.is_empty() { &self.path } else { &self.fs_path });
        }
        // A plain directory of a host file system: its other directories may be mounted as volumes.
        let root = container.rootfs.path.as_os_str().as_encoded_bytes();
        let below = self.fs_path.strip_prefix(root).filter(|_| !root.is_empty())?;
        below.starts_with(b"/").then_some(below)
    }

    /// Neither the layer directories nor a path lead to it.
    fn needs_process(&self, container: &Container) -> bool {
        self.identity.memfd || self.identity.nlink == 0 || self.rootfs_path(container).is_none()
    }

    fn real_ctime_ns(&self) -> i64 {
        self.identity.overlay.map_or(self.identity.ctime_ns, |overlay| overlay.real_ctime_ns)
    }

    fn real_size(&self) -> u64 {
        self.identity.overlay.map_or(self.identity.size, |overlay| overlay.real_size)
    }

    /// Nothing in a container can write it.
    fn lower(&self) -> bool {
        self.identity.overlay.is_some_and(|overlay| !overlay.upper && overlay.layer > 0)
    }

    /// Changed so shortly before the event that a change after it need not show.
    fn unsettled(&self) -> bool {
        let event_ns = (self.boot_ns as i64).saturating_add(realtime_ns().saturating_sub(boottime_ns()));
        !self.lower() && event_ns.saturating_sub(self.real_ctime_ns()) < TICK_NS
    }
}

/// Limits of hashing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashLimits {
    /// Largest file that is read.
    pub max_file_bytes: u64,
    /// Digests remembered.
    pub cached_digests: usize,
}

impl Default for HashLimits {
    fn default() -> Self {
        Self { max_file_bytes: 512 << 20, cached_digests: 65_536 }
    }
}

/// A descriptor of the running file, taken before the process can end.
#[derive(Debug)]
pub struct Held(OwnedFd);

/// Hashes files of containers and remembers the digests.
#[derive(Debug)]
pub struct FileHasher {
    limits: HashLimits,
    cache: Mutex<DigestCache>,
}

impl FileHasher {
    /// A hasher with an empty cache.
    pub fn new(limits: HashLimits) -> Self {
        Self { limits, cache: Mutex::new(DigestCache::new(limits.cached_digests)) }
    }

    /// The answer that needs no reading: a remembered digest, or a refusal.
    pub fn known(&self, file: &ExecFile) -> Option<Result<FileDigest, HashFailure>> {
        let identity = &file.identity;
        if open::is_remote(identity.magic) {
            return Some(Err(HashFailure::RemoteFilesystem));
        }
        if identity.mode & 0o170_000 != 0o100_000 {
            return Some(Err(HashFailure::NotRegular));
        }
        if file.real_size() > self.limits.max_file_bytes {
            return Some(Err(HashFailure::TooLarge));
        }
        let key = Key::of(identity)?;
        if file.unsettled() {
            return None;
        }
        self.cache().get(&key).map(Ok)
    }

    /// Takes hold of a file that can only be found through its process. Cheap; call it while the process lives.
    pub fn hold(&self, container: &Container, file: &ExecFile) -> Option<Held> {
        if !file.needs_process(container) || open::is_remote(file.identity.magic) {
            return None;
        }
        open::executable(file.tgid).ok().map(Held)
    }

    /// Finds, reads and hashes the file. `buffer` is scratch space, kept by the caller.
    ///
    /// # Errors
    /// [`HashFailure`]: why there is no digest.
    pub fn hash(
        &self,
        container: &Container,
        file: &ExecFile,
        held: Option<&Held>,
        buffer: &mut Vec<u8>,
    ) -> Result<FileDigest, HashFailure> {
        if let Some(known) = self.known(file) {
            return known;
        }
        let mut failure = HashFailure::Gone;
        for _ in 0..ROUNDS {
            for place in places(file, container) {
                match self.hash_at(*place, container, file, held, buffer) {
                    Ok(digest) => return Ok(digest),
                    Err(HashFailure::Gone) => {}
                    Err(refused @ (HashFailure::RemoteFilesystem | HashFailure::TooLarge)) => return Err(refused),
                    Err(other) => failure = other,
                }
            }
        }
        Err(failure)
    }

    /// Digests remembered now.
    pub fn cached(&self) -> usize {
        self.cache().len()
    }

    fn hash_at(
        &self,
        place: Place,
        container: &Container,
        file: &ExecFile,
        held: Option<&Held>,
        buffer: &mut Vec<u8>,
    ) -> Result<FileDigest, HashFailure> {
        let opened;
        let path_fd = if let (Place::Process, Some(held)) = (place, held) {
            held.0.as_fd()
        } else {
            opened = place.open(container, file)?;
            opened.as_fd()
        };
        let before = Found::of(path_fd).map_err(|_error| HashFailure::Gone)?;
        if !before.regular {
            return Err(HashFailure::Gone);
        }
        place.check(container, file, &before)?;

        let started_ns = realtime_ns();
        let readable = open::readable(path_fd).map_err(|error| match error {
            Errno::NOENT => HashFailure::Gone,
            _ => HashFailure::Io,
        })?;
        let hasher = read(readable.as_fd(), before.size, buffer)?;
        let capabilities = file_capabilities(readable.as_fd());
        let after = Found::of(readable.as_fd()).map_err(|_error| HashFailure::Io)?;
        if after != before {
            return Err(HashFailure::Raced);
        }
        let mut digest = FileDigest { digest: hasher.finish(), capabilities, settled: true };

        let lower = file.lower();
        if (lower || started_ns.saturating_sub(before.ctime_ns) >= TICK_NS)
            && let Some(key) = Key::of(&file.identity)
        {
            self.cache().insert(key, digest);
        }
        digest.settled = !file.unsettled() || still_runs(file);
        Ok(digest)
    }

    fn cache(&self) -> MutexGuard<'_, DigestCache> {
        // A map is whole after every step, so a panic elsewhere leaves it usable.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a file is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The layer's directory on the host.
    Layer,
    /// The container's root, through its first process.
    Root,
    /// The process's executable.
    Process,
    /// The path as the task saw it, mounts included.
    Path,
}

fn places(file: &ExecFile, container: &Container) -> &'static [Place] {
    if file.needs_process(container) {
        if file.identity.memfd || file.identity.nlink == 0 {
            return &[Place::Process];
        }
        return &[Place::Process, Place::Path];
    }
    if file.identity.overlay.is_some() {
        return &[Place::Layer, Place::Root, Place::Process];
    }
    &[Place::Root, Place::Process]
}

impl Place {
    /// Any failure to open it means that the file is not to be found here.
    fn open(self, container: &Container, file: &ExecFile) -> Result<OwnedFd, HashFailure> {
        let gone = |_errno: Errno| HashFailure::Gone;
        let on_rootfs = || file.rootfs_path(container).ok_or(HashFailure::Gone);
        match self {
            Self::Layer => {
                let path = layer_directory(container, &file.identity).ok_or(HashFailure::Gone)?;
                let directory = open::directory(path).map_err(gone)?;
                if open::is_remote(open::magic(&directory).map_err(gone)?) {
                    return Err(HashFailure::RemoteFilesystem);
                }
                open::below(directory.as_fd(), on_rootfs()?, ResolveFlags::NO_XDEV).map_err(gone)
            }
            Self::Root => {
                let root = container_root(container, file).map_err(gone)?;
                open::below(root.as_fd(), on_rootfs()?, ResolveFlags::NO_XDEV).map_err(gone)
            }
            Self::Process => open::executable(file.tgid).map_err(gone),
            // The walk may cross mounts that the container made: only names that the kernel still has at hand are
            // looked up, so that no FUSE daemon can hold this thread.
            Self::Path => {
                let root = container_root(container, file).map_err(gone)?;
                open::below(root.as_fd(), &file.path, ResolveFlags::CACHED).map_err(gone)
            }
        }
    }

    /// The file found here is the event's.
    fn check(self, container: &Container, file: &ExecFile, found: &Found) -> Result<(), HashFailure> {
        let identity = &file.identity;
        let same_file = match (self, identity.overlay) {
            (Self::Layer, Some(overlay)) => {
                found.ino == overlay.real_ino && (found.dev == overlay.real_dev || layer_on_btrfs(container, identity))
            }
            (Self::Layer, None) => false,
            // Through the overlay the number is the overlay's or the real one, as the layers' file systems allow; what
            // makes it that overlay's file is the device, or the mount where the device is a made-up one.
            (_, Some(overlay)) => {
                (found.ino == identity.ino || found.ino == overlay.real_ino)
                    && (found.dev == identity.dev || on_root_mount(container, file, found))
            }
            (Self::Process, None) => {
                found.ino == identity.ino && (found.dev == identity.dev || identity.magic == BTRFS)
            }
            (_, None) => found.ino == identity.ino && found.dev == identity.dev,
        };
        if !same_file {
            return Err(HashFailure::Gone);
        }
        if found.size != file.real_size() || found.ctime_ns != file.real_ctime_ns() {
            return Err(HashFailure::Raced);
        }
        Ok(())
    }
}

/// The snapshot directory that holds the file's bytes.
fn layer_directory<'a>(container: &'a Container, identity: &FileIdentity) -> Option<&'a Path> {
    let overlay = identity.overlay?;
    if overlay.upper {
        return container.rootfs.upper.as_deref();
    }
    let index = usize::from(overlay.layer).checked_sub(1)?;
    container.rootfs.lower.get(index).map(AsRef::as_ref)
}

/// btrfs reports another device to user space than the kernel's superblock has.
fn layer_on_btrfs(container: &Container, identity: &FileIdentity) -> bool {
    layer_directory(container, identity)
        .and_then(|path| open::directory(path).ok())
        .is_some_and(|directory| open::magic(&directory) == Ok(BTRFS))
}

fn container_root(container: &Container, file: &ExecFile) -> Result<OwnedFd, Errno> {
    let pid = if container.init_pid == 0 { file.tgid } else { container.init_pid };
    open::directory(Path::new(&format!("/proc/{pid}/root")))
}

/// The file lies on the mount that is the container's root, and that one is the event's overlay.
fn on_root_mount(container: &Container, file: &ExecFile, found: &Found) -> bool {
    let root = container_root(container, file).and_then(|root| Found::of(root.as_fd()));
    root.is_ok_and(|root| root.dev == file.identity.dev && root.mount == found.mount)
}

/// The process of the event still runs the event's file.
fn still_runs(file: &ExecFile) -> bool {
    let identity = &file.identity;
    let found = open::executable(file.tgid).and_then(|executable| Found::of(executable.as_fd()));
    found.is_ok_and(|found| {
        (found.ino == identity.ino || identity.overlay.is_some_and(|overlay| found.ino == overlay.real_ino))
            && found.size == file.real_size()
            && found.ctime_ns == file.real_ctime_ns()
    })
}

fn read(fd: BorrowedFd<'_>, size: u64, buffer: &mut Vec<u8>) -> Result<Hasher, HashFailure> {
    buffer.resize(BUFFER, 0);
    let mut hasher = Hasher::default();
    let mut count = 0_u64;
    loop {
        match rustix::io::read(fd, &mut buffer[..]) {
            Ok(0) if count == size => return Ok(hasher),
            Ok(0) => return Err(HashFailure::Raced),
            Ok(length) => {
                hasher.update(&buffer[..length]);
                count += length as u64;
                if count > size {
                    return Err(HashFailure::Raced);
                }
            }
            Err(Errno::INTR) => {}
            Err(_) => return Err(HashFailure::Io),
        }
    }
}

fn file_capabilities(fd: BorrowedFd<'_>) -> Option<FileCapabilities> {
    let mut value = [0; 64];
    let length = rustix::fs::fgetxattr(fd, c"security.capability", &mut value[..]).ok()?;
    FileCapabilities::parse(&value[..length])
}

fn realtime_ns() -> i64 {
    nanoseconds(ClockId::Realtime)
}

fn boottime_ns() -> i64 {
    nanoseconds(ClockId::Boottime)
}

fn nanoseconds(clock: ClockId) -> i64 {
    let time = clock_gettime(clock);
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec)
}
