//! One kernel event, decoded: what every later stage reads. Plain data, owned, with text as bytes;
//! it knows nothing of rings, containers or rules.
//!
//! Names are the kernel's. Times are nanoseconds of `CLOCK_BOOTTIME` unless a name says otherwise,
//! devices are the kernel's internal encoding (`major << 20 | minor`).

use std::net::SocketAddr;

pub use agent_common::EventType;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// An event and the task that caused it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Where and when it was recorded.
    pub header: Header,
    /// The calling task, as the kernel saw it at the event.
    pub task: Task,
    /// What happened.
    pub body: Body,
}

/// The record header's facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Which event of the table.
    pub event: EventType,
    /// The processor it happened on.
    pub cpu: u16,
    /// Running number on that processor; a gap is a loss.
    pub sequence: u64,
    /// `CLOCK_BOOTTIME` in ns.
    pub boot_ns: u64,
    /// The generation of kernel policy that let it through.
    pub generation: u32,
    /// Hash of the event's own facts, under that policy's key; 0 = none was made.
    pub hash: u64,
    /// The hash says that the task is in a cgroup that is known to be the host's.
    pub of_host: bool,
}

/// Facts of `current`, from `task_struct`. Ids are of the initial pid namespace unless prefixed with `v`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Process (thread group) id.
    pub tgid: u32,
    /// Thread id.
    pub tid: u32,
    /// Start of the thread group's leader, ns since boot: with `tgid` it names the process for ever.
    pub start_boottime_ns: u64,
    /// `real_parent->tgid`.
    pub parent_tgid: u32,
    /// Start of the parent's leader, ns since boot.
    pub parent_start_boottime_ns: u64,
    /// Session id.
    pub sid: u32,
    /// Process group id.
    pub pgid: u32,
    /// Process id in the task's own pid namespace.
    pub vtgid: u32,
    /// Thread id in the task's own pid namespace.
    pub vtid: u32,
    /// Process group id in the task's own pid namespace.
    pub vpgid: u32,
    /// Controlling terminal (`tty_struct` device, 0 = none).
    pub tty: u32,
    /// Audit login uid, `u32::MAX` = unset.
    pub loginuid: u32,
    /// Real uid, in the initial user namespace.
    pub uid: u32,
    /// Effective uid.
    pub euid: u32,
    /// Real gid.
    pub gid: u32,
    /// Effective gid.
    pub egid: u32,
    /// Capability sets.
    pub capabilities: Capabilities,
    /// cgroup v2 id (inode of the cgroup2 directory).
    pub cgroup_id: u64,
    /// Inode number of the mount namespace.
    pub mnt_ns: u32,
    /// Inode number of the pid namespace.
    pub pid_ns: u32,
    /// Command name, NUL padded.
    pub comm: [u8; 16],
}

/// Capability bit sets (`include/uapi/linux/capability.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// `cap_inheritable`
    pub inheritable: u64,
    /// `cap_permitted`
    pub permitted: u64,
    /// `cap_effective`
    pub effective: u64,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// `execve` or `execveat` succeeded.
    Exec(Box<Exec>),
    /// A task was created.
    Fork(Fork),
    /// A task ended.
    Exit(Exit),
    /// A file was opened, or an open failed.
    Open(Box<Open>),
    /// A socket was connected, or a connect failed.
    Connect(Box<Connect>),
    /// A cgroup directory was made or removed.
    Cgroup(Cgroup),
    /// A process was given another name.
    Rename,
    /// A plain call returned.
    Call(Box<Call>),
}

/// The new program, after the point of no return. `Task` already is the new one (comm, creds).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exec {
    /// The file that runs (`bprm->file`; for a `#!` script its interpreter).
    pub file: FileIdentity,
    /// Resolved path of `file`: mounts walked up to the root of the mount namespace.
    pub path: Bytes,
    /// Path of `file` from its own file system's root, where that differs from `path`
    /// (bind mounts); else empty.
    pub fs_path: Bytes,
    /// `bprm->filename`: the name as asked for (or `/dev/fd/N...` for execveat).
    pub filename: Bytes,
    /// `bprm->interp` where it differs from `filename`; else empty.
    pub interp: Bytes,
    /// argv, NUL separated, without the last NUL.
    pub argv: Bytes,
    /// argv did not fit, or could not be read, and ends with `...`.
    pub argv_truncated: bool,
    /// Environment, NUL separated; empty unless a rule reads it.
    pub envp: Bytes,
    /// Environment did not fit and was cut.
    pub envp_truncated: bool,
    /// Working directory, resolved as `path`.
    pub cwd: Bytes,
}

/// A new task; `Event::task` is the parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fork {
    /// The child's thread id.
    pub child_tid: u32,
    /// The child's thread group id; equal to `child_tid` for a new process.
    pub child_tgid: u32,
    /// The child's thread id in its own pid namespace.
    pub child_vtid: u32,
    /// The child leader's start, ns since boot.
    pub child_start_boottime_ns: u64,
    /// The child's cgroup v2 id (`CLONE_INTO_CGROUP`).
    pub child_cgroup_id: u64,
}

/// The end of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// Wait status: `code << 8 | signal`.
    pub status: u32,
    /// This was the last thread of its process.
    pub group_dead: bool,
}

/// An open of any kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// The descriptor, or the negated errno.
    pub result: i64,
    /// `open(2)` flags (`O_*`), the kernel's of the open file where there is one, with `O_CREAT|O_EXCL|O_TRUNC`
    /// as asked for.
    pub flags: u32,
    /// Mode argument (meaningful with `O_CREAT` and `O_TMPFILE`).
    pub mode: u32,
    /// `FMODE_CREATED`: this open made the file.
    pub created: bool,
    /// The directory descriptor argument (`AT_FDCWD` = -100).
    pub dirfd: i32,
    /// The open file; `None` for a failed call.
    pub file: Option<FileIdentity>,
    /// Resolved path of `file`: mounts walked up to the mount namespace's root; empty for a failed call.
    pub path: Bytes,
    /// Path from the file system's own root where it differs from `path`; else empty.
    pub fs_path: Bytes,
    /// The name as asked for (user memory, or io_uring's kernel copy); may be relative; empty for handles.
    pub name: Bytes,
    /// The directory that a relative `name` starts from, resolved; empty where `name` is absolute or unknown.
    pub dir: Bytes,
    /// Done through io_uring.
    pub io_uring: bool,
}

/// A connect of any family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connect {
    /// 0, or the negated errno (`-EINPROGRESS` = -115 included).
    pub result: i64,
    /// The socket's descriptor; -1 where the hook cannot know it (io_uring).
    pub fd: i32,
    /// The socket; its far end is what it is connected (or connecting) to, after a failure what was asked for.
    pub socket: Socket,
    /// Done through io_uring.
    pub io_uring: bool,
}

/// A socket, from the kernel's object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Socket {
    /// `AF_*`.
    pub family: u16,
    /// `SOCK_STREAM`, `SOCK_DGRAM`, ...
    pub sock_type: u16,
    /// `IPPROTO_*`.
    pub protocol: u16,
    /// Its far end.
    pub remote: Address,
    /// `remote` is the caller's copy in user memory: a failed call, or a message of a socket that is not connected,
    /// leaves no kernel object that holds it (`evt.arg_source=user`).
    pub remote_from_user: bool,
    /// Its own address after the call, where the kernel object has one.
    pub local: Address,
}

/// A plain call at its exit. What its arguments mean says [`EventType::parameters`]; texts are the caller's memory at the
/// call's end (`evt.arg_source=user`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The call's result; a failure is the negated errno.
    pub result: i64,
    /// Done through `io_uring`: texts and addresses are the kernel's own copies.
    pub io_uring: bool,
    /// The registers; of a request of a ring what stands for them.
    pub arguments: [u64; 6],
    /// The texts, in the order of the parameters; a path is as asked for.
    pub texts: [Bytes; 3],
    /// The directories that the first two texts start from if they are relative paths, resolved; else empty.
    pub directories: [Bytes; 2],
    /// The event's open file.
    pub file: Option<FileIdentity>,
    /// Resolved path of `file`, as in [`Open::path`].
    pub path: Bytes,
    /// Path of `file` from its own file system's root where it differs; else empty.
    pub fs_path: Bytes,
    /// `file` as a socket; or no more than the address that the call names, where there is none.
    pub socket: Option<Socket>,
    /// What was sent or received, its start; empty unless a rule reads it. Of an exec that failed its argv, NUL separated.
    pub data: Bytes,
    /// That argv did not fit and was cut.
    pub data_truncated: bool,
}

/// A socket address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// None known.
    None,
    /// `AF_INET` or `AF_INET6`.
    Inet(SocketAddr),
    /// `AF_UNIX`: path, or abstract name with its leading NUL.
    Unix(Bytes),
}

/// A cgroup2 directory came or went (`tracepoint:cgroup:cgroup_mkdir`, `cgroup_rmdir`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroup {
    /// The directory's id.
    pub id: u64,
    /// Its path from the hierarchy's root.
    pub path: Bytes,
    /// Made (`true`) or removed.
    pub made: bool,
}

/// `TMPFS_MAGIC`, `HUGETLBFS_MAGIC` (`include/uapi/linux/magic.h`): what memfds lie on.
pub(crate) const MEMFD_MAGICS: [u64; 2] = [0x0102_1994, 0x9584_58f6];

/// `OVERLAYFS_SUPER_MAGIC`
pub(crate) const OVERLAYFS: u64 = 0x794C_7630;

/// A file as the kernel object says, at the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct FileIdentity {
    /// `inode->i_sb->s_dev`.
    pub dev: u32,
    /// `inode->i_ino`.
    pub ino: u64,
    /// `inode->i_generation`.
    pub generation: u32,
    /// `inode->i_mode`: type, setuid, permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Owning group.
    pub gid: u32,
    /// Link count; 0 = unlinked.
    pub nlink: u32,
    /// Size in bytes.
    pub size: u64,
    /// Inode change time, ns since the epoch.
    pub ctime_ns: i64,
    /// Modification time, ns since the epoch.
    pub mtime_ns: i64,
    /// `s_magic` of its file system.
    pub magic: u64,
    /// Its superblock is the one mounted at the root of the task's mount namespace.
    pub on_rootfs: bool,
    /// It lies on a memfd (`memfd:` name on the kernel's internal shmem mount).
    pub memfd: bool,
    /// What overlayfs knows of it.
    pub overlay: Option<Overlay>,
}

impl FileIdentity {
    /// Whether the file lies in a layer as `is` says; `None` where that is not known: of a program that ran before the
    /// agent, `stat` tells only that it is on an overlay.
    pub fn in_layer(&self, is: impl FnOnce(&Overlay) -> bool) -> Option<bool> {
        match &self.overlay {
            Some(overlay) => Some(is(overlay)),
            None => (self.magic != OVERLAYFS).then_some(false),
        }
    }
}

/// An overlay inode's backing file. `real_*` name the file on the layer's own file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Overlay {
    /// The content lies in the upper layer.
    pub upper: bool,
    /// Also present in a lower layer (with `upper`: copied up).
    pub has_lower: bool,
    /// Lower layer index, 1 = top; 0 = unknown or upper.
    pub layer: u16,
    /// Device of the real inode.
    pub real_dev: u32,
    /// Number of the real inode.
    pub real_ino: u64,
    /// Generation of the real inode.
    pub real_generation: u32,
    /// Size of the real inode.
    pub real_size: u64,
    /// Inode change time of the real inode, ns since the epoch.
    pub real_ctime_ns: i64,
    /// `i_version` of the real inode.
    pub real_version: u64,
}
