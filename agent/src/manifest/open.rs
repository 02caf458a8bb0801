//! Opens files that a container controls. A path is resolved below a directory without following any
//! link, a descriptor stays `O_PATH` until its `statx` says that it is the wanted regular file, and only
//! then is it opened for reading: no FIFO blocks, no device is touched, no FUSE daemon is asked.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{AtFlags, Mode, OFlags, ResolveFlags, Statx, StatxFlags},
    io::Errno,
};

/// File systems whose content is another process's or machine's word (`include/uapi/linux/magic.h` and the
/// file systems' own headers).
const REMOTE: &[u64] = &[
    0x6573_5546, // FUSE, virtiofs
    0x6969,      // NFS
    0xFF53_4D42, // CIFS
    0xFE53_4D42, // SMB2
    0x517B,      // SMB
    0x0102_1997, // 9P
    0x00C3_6400, // Ceph
    0x5346_414F, // AFS
    0x6B41_4653, // kAFS
    0x7375_7245, // Coda
    0x0BD0_0BD0, // Lustre
    0x4750_4653, // GPFS
    0x1983_0326, // BeeGFS
    0x0116_1970, // GFS2
    0x7461_636F, // OCFS2
    0x2003_0528, // OrangeFS
];

/// The content of a file there is not the kernel's own word.
pub(crate) fn is_remote(magic: u64) -> bool {
    REMOTE.contains(&(magic & 0xFFFF_FFFF))
}

/// What a descriptor refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    /// Kernel encoding (`major << 20 | minor`).
    pub(crate) dev: u32,
    pub(crate) ino: u64,
    pub(crate) size: u64,
    pub(crate) ctime_ns: i64,
    pub(crate) regular: bool,
    pub(crate) mount: u64,
}

impl Found {
    /// `statx`, without asking a remote server or daemon for fresh attributes.
    pub(crate) fn of(fd: BorrowedFd<'_>) -> Result<Self, Errno> {
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
        Ok(Self::from(&rustix::fs::statx(fd, c"", flags, wanted)?))
    }
}

impl From<&Statx> for Found {
    fn from(stat: &Statx) -> Self {
        Self {
            dev: stat.stx_dev_major << 20 | stat.stx_dev_minor,
            ino: stat.stx_ino,
            size: stat.stx_size,
            ctime_ns: stat.stx_ctime.tv_sec.saturating_mul(1_000_000_000).saturating_add(stat.stx_ctime.tv_nsec.into()),
            regular: u32::from(stat.stx_mode) & 0o170_000 == 0o100_000,
            mount: stat.stx_mnt_id,
        }
    }
}

/// A directory of the host, or `/proc/PID/root`: the one magic link that is followed.
pub(crate) fn directory(path: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// The file that a process runs.
pub(crate) fn executable(pid: u32) -> Result<OwnedFd, Errno> {
    rustix::fs::open(format!("/proc/{pid}/exe"), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

/// A path below a directory as an `O_PATH` descriptor. No link of any kind is followed: the kernel has resolved the
/// paths of events already, so a link on the way means that the path was changed.
pub(crate) fn below(directory: BorrowedFd<'_>, path: &[u8], extra: ResolveFlags) -> Result<OwnedFd, Errno> {
    let start = path.iter().position(|&byte| byte != b'/').ok_or(Errno::ISDIR)?;
    rustix::fs::openat2(
        directory,
        &path[start..],
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS | extra,
    )
}

/// Opens for reading what an `O_PATH` descriptor refers to; the caller has seen that it is a regular file.
pub(crate) fn readable(fd: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    use std::os::fd::AsRawFd;
    rustix::fs::open(
        format!("/proc/self/fd/{}", fd.as_raw_fd()),
        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// `f_type` of the file system that a trusted directory lies on.
pub(crate) fn magic(fd: impl AsFd) -> Result<u64, Errno> {
    let handle = rustix::fs::fstatfs(fd)?;
    #[allow(clippy::unnecessary_cast, reason = "the width of f_type differs between architectures")]
    Ok(handle.f_type as u64)
}
