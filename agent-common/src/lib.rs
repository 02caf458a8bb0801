//! The wire contract between Purser's eBPF programs and its agent: the event table, the records
//! that cross the ring, the kernel policy, the loss counters and the kernel facts that user space
//! looks up in BTF for the programs.
//!
//! `no_std`, no dependencies: both halves compile the same text. It knows nothing of rules,
//! containers or sinks.
#![no_std]

mod call;
mod event;
mod kernel;
mod loss;
mod own;
mod policy;
mod record;
mod ring;

pub use call::{Parameter, Reads, ReadsTable};
pub use event::{Arch, EventGroup, EventType};
pub use kernel::{Fact, Immediate, KERNEL_FACTS, immediate};
pub use loss::{FillLimit, Loss};
pub use own::{OWN_SECTIONS_MAX, OwnFacts, OwnRecord, SipHash, first_word, own_hash};
pub use policy::{CallTable, EventSet, KernelPolicy, PolicyFlags, SOCKETCALL_CODE, WANTED_CALLS, WakeState};
pub use record::{
    CallFlags, CallRecord, CgroupRecord, ConnectRecord, ExecFlags, ExecRecord, ExitRecord, FileFlags, FileRecord,
    ForkRecord, Header, HeaderBits, InetAddress, OpenFlags, OpenRecord, OverlayRecord, PathFlags, PathRecord,
    RECORD_VERSION, RenameRecord, SocketFlags, SocketRecord, TaskRecord,
};
pub use ring::{RING_OPCODES, RING_OPERATIONS, RING_ROW, RingAddress, RingOperation, RingReads, RingTable, Word};

/// Names of the kernel facts, for use as const generic arguments in the programs.
pub use kernel::fact;

/// Sizes that both halves agree on.
pub mod limits {
    /// Longest name or path that is carried, in bytes (`PATH_MAX` of `include/uapi/linux/limits.h`).
    pub const PATH_MAX: usize = 4096;
    /// Longest single file name with its NUL (`NAME_MAX` + 1).
    pub const NAME_SIZE: usize = 256;
    /// Most bytes of argv, and of the environment, that are carried.
    pub const ARGV_MAX: usize = 16 * 1024;
    /// Most texts of a failed exec's list that are carried, and bytes after which it is cut.
    pub const LIST_TEXTS: usize = 128;
    /// See above.
    pub const LIST_MAX: usize = 8 * 1024;
    /// Longest unix socket address (`sun_path`).
    pub const UNIX_PATH_MAX: usize = 108;
    /// Most bytes of what is sent or received that are carried, as upstream's `snaplen`.
    pub const DATA_MAX: usize = 80;
    /// Longest record.
    pub const RECORD_MAX: usize = 96 * 1024;
}
