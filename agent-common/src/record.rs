//! The records that cross the ring: a [`Header`], a [`TaskRecord`], the event's fixed part, and
//! sections of bytes whose lengths the fixed part gives, in the order of the length fields.
//!
//! Native byte order, no padding (asserted below). Paths cross as the kernel holds them: names, each
//! with its NUL, from the file upwards; user space puts them together (see [`PathRecord`]).

/// Version of the record format; a record of another version is refused.
pub const RECORD_VERSION: u16 = 3;

/// The start of every record.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Header {
    /// [`RECORD_VERSION`]
    pub version: u16,
    /// [`EventType::code`](crate::EventType::code)
    pub event: u16,
    /// Bytes of the whole record.
    pub length: u32,
    /// The processor.
    pub cpu: u16,
    /// [`HeaderBits`]
    pub bits: u16,
    /// Generation of the policy that let it through.
    pub generation: u32,
    /// Running number on that processor, from 1; counted also when an event is lost ([`Loss::leaves_gap`](crate::Loss::leaves_gap)).
    pub sequence: u64,
    /// `CLOCK_BOOTTIME` in ns.
    pub boot_ns: u64,
    /// Hash of the event's own facts under the policy's key; 0 = none was made.
    pub hash: u64,
}

/// Bits of [`Header::bits`].
pub struct HeaderBits;

impl HeaderBits {
    /// The hash says that the task is in a cgroup that is known to be the host's.
    pub const HOST: u16 = 1;
}

/// Facts of the calling task; fields as in the kernel structures they are named after.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct TaskRecord {
    /// `group_leader->start_boottime`
    pub start_ns: u64,
    /// `real_parent->group_leader->start_boottime`
    pub parent_start_ns: u64,
    /// `cgroups->dfl_cgrp->kn->id`
    pub cgroup_id: u64,
    /// `cred->cap_inheritable`
    pub cap_inheritable: u64,
    /// `cred->cap_permitted`
    pub cap_permitted: u64,
    /// `cred->cap_effective`
    pub cap_effective: u64,
    /// `tgid`
    pub tgid: u32,
    /// `pid`
    pub tid: u32,
    /// `real_parent->tgid`
    pub parent_tgid: u32,
    /// `signal->pids[PIDTYPE_SID]`, number in the initial namespace.
    pub sid: u32,
    /// `signal->pids[PIDTYPE_PGID]`, number in the initial namespace.
    pub pgid: u32,
    /// `signal->pids[PIDTYPE_TGID]`, number in the task's namespace.
    pub vtgid: u32,
    /// `thread_pid`, number in the task's namespace.
    pub vtid: u32,
    /// `signal->pids[PIDTYPE_PGID]`, number in the task's namespace.
    pub vpgid: u32,
    /// `signal->tty` as a device number, 0 = none.
    pub tty: u32,
    /// `loginuid`
    pub loginuid: u32,
    /// `cred->uid`
    pub uid: u32,
    /// `cred->euid`
    pub euid: u32,
    /// `cred->gid`
    pub gid: u32,
    /// `cred->egid`
    pub egid: u32,
    /// `nsproxy->mnt_ns->ns.inum`
    pub mnt_ns: u32,
    /// Inode number of the task's own pid namespace.
    pub pid_ns: u32,
    /// `comm`
    pub comm: [u8; 16],
}

/// An inode and its file system.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct FileRecord {
    /// `i_ino`
    pub ino: u64,
    /// `i_size`
    pub size: u64,
    /// Change time, ns since the epoch.
    pub ctime_ns: i64,
    /// Modification time, ns since the epoch.
    pub mtime_ns: i64,
    /// `i_sb->s_magic`
    pub magic: u64,
    /// `i_sb->s_dev`
    pub dev: u32,
    /// `i_generation`
    pub generation: u32,
    /// `i_mode`
    pub mode: u32,
    /// `i_uid`
    pub uid: u32,
    /// `i_gid`
    pub gid: u32,
    /// `i_nlink`
    pub nlink: u32,
    /// [`FileFlags`]
    pub flags: u32,
    /// Lower layer index of an overlay inode, 1 = top; 0 = none or unknown.
    pub layer: u32,
    /// The backing file of an overlay inode.
    pub overlay: OverlayRecord,
}

/// Bits of [`FileRecord::flags`].
pub struct FileFlags;

impl FileFlags {
    /// On the superblock mounted at the root of the task's mount namespace.
    pub const ON_ROOTFS: u32 = 1;
    /// [`FileRecord::overlay`] is filled in.
    pub const OVERLAY: u32 = 1 << 1;
    /// The content lies in the overlay's upper layer.
    pub const UPPER: u32 = 1 << 2;
    /// Also in a lower layer.
    pub const HAS_LOWER: u32 = 1 << 3;
}

/// An overlay inode's real inode.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct OverlayRecord {
    /// `i_ino`
    pub ino: u64,
    /// `i_size`
    pub size: u64,
    /// Change time, ns since the epoch.
    pub ctime_ns: i64,
    /// `i_version >> 1` (bit 0 is the kernel's own "was queried" mark, `include/linux/iversion.h`).
    pub version: u64,
    /// `i_sb->s_dev`
    pub dev: u32,
    /// `i_generation`
    pub generation: u32,
}

/// A path in two or three runs of names, each name with its NUL, innermost first:
/// the names up to the mount's root, then those of the mounts above it up to the mount namespace's
/// root; and, in a run of its own, those from the mount's root up to the file system's root, where
/// the mount shows only a part of its file system.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct PathRecord {
    /// Bytes of the first section: all names of the path.
    pub length: u16,
    /// How many of them lie below the mount's root.
    pub within: u16,
    /// Bytes of the second section: names from the mount's root to the file system's root.
    pub beneath: u16,
    /// Where in the first section the names of the landmark (the directory that a relative name starts from) and
    /// above begin, with [`PathFlags::LANDMARK`].
    pub landmark: u16,
    /// [`PathFlags`]
    pub flags: u16,
    /// Keeps the size a multiple of 4.
    pub reserved: u16,
}

/// Bits of [`PathRecord::flags`].
pub struct PathFlags;

impl PathFlags {
    /// The outermost names are missing.
    pub const TRUNCATED: u16 = 1;
    /// The file hangs in no directory (memfd, pipe, socket): the only name is the object's own.
    pub const ROOTLESS: u16 = 1 << 1;
    /// The mount shows a part of its file system (a bind mount of a subtree).
    pub const PARTIAL: u16 = 1 << 2;
    /// Names of the second section are missing.
    pub const BENEATH_TRUNCATED: u16 = 1 << 3;
    /// The landmark lies on the path.
    pub const LANDMARK: u16 = 1 << 4;
}

/// Sections: filename, interp, path, path beneath, cwd, argv, envp.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct ExecRecord {
    /// The header.
    pub header: Header,
    /// The task, already as the new program.
    pub task: TaskRecord,
    /// `bprm->file`
    pub file: FileRecord,
    /// Bytes of argv.
    pub argv_length: u32,
    /// Bytes of the environment.
    pub envp_length: u32,
    /// Bytes of `bprm->filename`.
    pub filename_length: u16,
    /// Bytes of `bprm->interp`; 0 where it is `filename` itself.
    pub interp_length: u16,
    /// [`ExecFlags`]
    pub flags: u32,
    /// Path of the file.
    pub path: PathRecord,
    /// Working directory.
    pub cwd: PathRecord,
}

/// Bits of [`ExecRecord::flags`].
pub struct ExecFlags;

impl ExecFlags {
    /// argv was cut.
    pub const ARGV_TRUNCATED: u32 = 1;
    /// The environment was cut.
    pub const ENVP_TRUNCATED: u32 = 1 << 1;
}

/// No sections.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct ForkRecord {
    /// The header.
    pub header: Header,
    /// The parent.
    pub task: TaskRecord,
    /// The child leader's start.
    pub child_start_ns: u64,
    /// The child's cgroup.
    pub child_cgroup_id: u64,
    /// The child's `pid`.
    pub child_tid: u32,
    /// The child's `tgid`.
    pub child_tgid: u32,
    /// The child's thread id in its own pid namespace.
    pub child_vtid: u32,
    /// Keeps the size a multiple of 8.
    pub reserved: u32,
}

/// No sections.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct ExitRecord {
    /// The header.
    pub header: Header,
    /// The task that ends.
    pub task: TaskRecord,
    /// Wait status.
    pub status: u32,
    /// 1 = last thread of its process.
    pub group_dead: u32,
}

/// No sections.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct RenameRecord {
    /// The header.
    pub header: Header,
    /// The leader of a process, already by its new name.
    pub task: TaskRecord,
}

/// Sections: name, path, path beneath, directory.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenRecord {
    /// The header.
    pub header: Header,
    /// The calling task.
    pub task: TaskRecord,
    /// The open file, with [`OpenFlags::HAS_FILE`].
    pub file: FileRecord,
    /// The call's result.
    pub result: i64,
    /// `f_flags`, or those asked for where there is no file, with the creation flags as asked for.
    pub flags: u32,
    /// The mode argument.
    pub mode: u32,
    /// The directory descriptor argument.
    pub dirfd: i32,
    /// [`OpenFlags`]
    pub bits: u32,
    /// Bytes of the name as asked for.
    pub name_length: u32,
    /// Keeps the size a multiple of 8.
    pub reserved: u32,
    /// Path of the file; its landmark is the directory that a relative name starts from.
    pub path: PathRecord,
    /// The directory that a relative name starts from, where it does not lie on the path.
    pub directory: PathRecord,
}

/// Bits of [`OpenRecord::bits`].
pub struct OpenFlags;

impl OpenFlags {
    /// There is a file.
    pub const HAS_FILE: u32 = 1;
    /// `FMODE_CREATED`
    pub const CREATED: u32 = 1 << 1;
    /// The directory of the relative name has a section of its own.
    pub const DIRECTORY: u32 = 1 << 2;
    /// By the 32-bit numbering.
    pub const COMPAT: u32 = 1 << 4;
}

/// An internet address as the socket holds it.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct InetAddress {
    /// `AF_INET` (address in the first four bytes), `AF_INET6`, or 0 = none.
    pub family: u16,
    /// Port, host byte order.
    pub port: u16,
    /// IPv6 scope.
    pub scope: u32,
    /// Address, network byte order.
    pub address: [u8; 16],
}

/// A socket's kind and ends. Its two unix addresses are sections.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct SocketRecord {
    /// `sk_family`
    pub family: u16,
    /// `sk_type`
    pub sock_type: u16,
    /// `sk_protocol`
    pub protocol: u16,
    /// [`SocketFlags`]
    pub flags: u16,
    /// Bytes of the remote unix address.
    pub remote_length: u16,
    /// Bytes of the local unix address.
    pub local_length: u16,
    /// Remote address, if it is an internet one.
    pub remote: InetAddress,
    /// Local address, if it is an internet one.
    pub local: InetAddress,
}

/// Bits of [`SocketRecord::flags`].
pub struct SocketFlags;

impl SocketFlags {
    /// The remote address is the caller's copy in user memory: no kernel object holds it (a failed call).
    pub const REMOTE_FROM_USER: u16 = 1;
    /// The remote unix address is there, though perhaps empty (an unnamed peer).
    pub const REMOTE_UNIX: u16 = 1 << 1;
    /// The local unix address is there.
    pub const LOCAL_UNIX: u16 = 1 << 2;
}

/// Sections: remote unix address, local unix address.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct ConnectRecord {
    /// The header.
    pub header: Header,
    /// The calling task.
    pub task: TaskRecord,
    /// The call's result.
    pub result: i64,
    /// The socket's descriptor.
    pub fd: i32,
    /// The socket.
    pub socket: SocketRecord,
}

/// A plain call. Sections: the texts, data, the paths (each with what lies beneath), remote unix
/// address, local unix address.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct CallRecord {
    /// The header.
    pub header: Header,
    /// The calling task, after the call.
    pub task: TaskRecord,
    /// The call's result.
    pub result: i64,
    /// The six arguments; behind them the programs keep what they read. Any four bits are an index.
    pub arguments: [u64; 16],
    /// The event's open file, with [`CallFlags::FILE`].
    pub file: FileRecord,
    /// Bytes of the texts.
    pub text_lengths: [u32; 3],
    /// The socket behind the event's descriptor, with [`CallFlags::SOCKET`].
    pub socket: SocketRecord,
    /// [`CallFlags`]
    pub flags: u32,
    /// Bytes of data.
    pub data_length: u32,
    /// The directories that the first two texts start from, and the file's path.
    pub paths: [PathRecord; 3],
    /// The event's descriptor.
    pub fd: i32,
}

/// Bits of [`CallRecord::flags`].
pub struct CallFlags;

impl CallFlags {
    /// There is a file.
    pub const FILE: u32 = 1;
    /// The file is a socket.
    pub const SOCKET: u32 = 1 << 1;
    /// The first text is a relative path whose directory is there; shifted by one for the second.
    pub const DIRECTORY: u32 = 1 << 2;
    /// By the 32-bit numbering.
    pub const COMPAT: u32 = 1 << 4;
    /// By an operation of `io_uring`: texts and addresses are the kernel's own copies.
    pub const IO_URING: u32 = 1 << 5;
    /// The list of texts, which is the data, was cut.
    pub const LIST_TRUNCATED: u32 = 1 << 6;
}

/// Section: path.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct CgroupRecord {
    /// The header.
    pub header: Header,
    /// Who made or removed it.
    pub task: TaskRecord,
    /// `cgroup->kn->id`
    pub id: u64,
    /// Bytes of the path from the hierarchy's root.
    pub path_length: u32,
    /// Keeps the size a multiple of 8.
    pub reserved: u32,
}

const _: () = {
    assert!(size_of::<Header>() == 40);
    assert!(size_of::<TaskRecord>() == 6 * 8 + 16 * 4 + 16);
    assert!(size_of::<OverlayRecord>() == 40);
    assert!(size_of::<FileRecord>() == 5 * 8 + 8 * 4 + 40);
    assert!(size_of::<PathRecord>() == 12);
    assert!(size_of::<ExecRecord>() == 40 + 128 + 112 + 2 * 4 + 2 * 2 + 4 + 2 * 12);
    assert!(size_of::<ForkRecord>() == 40 + 128 + 2 * 8 + 4 * 4);
    assert!(size_of::<ExitRecord>() == 40 + 128 + 8);
    assert!(size_of::<RenameRecord>() == 40 + 128);
    assert!(size_of::<OpenRecord>() == 40 + 128 + 112 + 8 + 4 * 4 + 2 * 4 + 2 * 12);
    assert!(size_of::<InetAddress>() == 24);
    assert!(size_of::<SocketRecord>() == 6 * 2 + 2 * 24);
    assert!(size_of::<ConnectRecord>() == 40 + 128 + 8 + 4 + 60);
    assert!(size_of::<CallRecord>() == 40 + 128 + 8 + 128 + 112 + 3 * 4 + 60 + 2 * 4 + 3 * 12 + 4);
    assert!(size_of::<CgroupRecord>() == 40 + 128 + 8 + 2 * 4);
};
