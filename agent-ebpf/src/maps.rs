//! The maps that programs share with the agent, and the scratch buffers of each hook family.
//!
//! A record is put together in a scratch buffer, because its length is known only at its end. Each
//! family has its own, since hooks of two families may interrupt each other. Tracepoints of one family cannot: they run in
//! task context with preemption off. Programs behind `fentry` and `fexit` stay on their processor, but tasks that run them
//! may preempt each other: for those families it has several, and who finds all taken counts a loss.

use agent_common::{
    CallRecord, CallTable, CgroupRecord, ConnectRecord, EventType, ExecRecord, ExitRecord, ForkRecord, KernelPolicy,
    Loss, OpenRecord, RING_OPCODES, RING_ROW, Reads, ReadsTable, RenameRecord, RingTable, WANTED_CALLS, limits,
};
use aya_ebpf::{
    bindings::bpf_map_type::{BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_ARRAY_OF_MAPS},
    helpers::generated::bpf_map_lookup_elem,
    macros::{btf_map, map},
    maps::{Array, LruHashMap, PerCpuArray, RingBuf},
};

/// Records on their way to the agent; the agent sets the size.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(8 << 20, 0);

/// The policy in force: the inner map is replaced as a whole.
#[btf_map]
pub static POLICY: ArrayOfMaps<Values<{ size_of::<KernelPolicy>() }>> = ArrayOfMaps::new();

/// An array of one map, which is one element of `INNER`'s size.
///
/// Not aya's own: that tells the kernel the type of the inner map's elements, and then kernels from 5.15 to 6.2 refuse a
/// map that is made without (`bpf_map_meta_equal` compares whether timers were looked for).
#[repr(C)]
pub struct ArrayOfMaps<INNER> {
    r#type: *const [i32; BPF_MAP_TYPE_ARRAY_OF_MAPS as usize],
    key_size: *const [i32; 4],
    value_size: *const [i32; 4],
    max_entries: *const [i32; 1],
    values: [*const INNER; 0],
}

/// The map inside.
#[repr(C)]
pub struct Values<const SIZE: usize> {
    r#type: *const [i32; BPF_MAP_TYPE_ARRAY as usize],
    key_size: *const [i32; 4],
    value_size: *const [i32; SIZE],
    max_entries: *const [i32; 1],
}

// SAFETY: a description for the loader; only its address is used.
unsafe impl<INNER> Sync for ArrayOfMaps<INNER> {}

impl<INNER> ArrayOfMaps<INNER> {
    const fn new() -> Self {
        Self {
            r#type: core::ptr::null(),
            key_size: core::ptr::null(),
            value_size: core::ptr::null(),
            max_entries: core::ptr::null(),
            values: [],
        }
    }

    /// The element.
    #[inline(always)]
    pub fn element(&'static self) -> *const u8 {
        let first = 0u32;
        // SAFETY: a map in a map; the kernel gives a map, an element, or null.
        unsafe {
            let inner = bpf_map_lookup_elem((&raw const *self).cast_mut().cast(), (&raw const first).cast());
            if inner.is_null() {
                return core::ptr::null();
            }
            bpf_map_lookup_elem(inner, (&raw const first).cast()) as *const u8
        }
    }
}

/// `WakeState` of the consumer, written by the agent.
#[map]
pub static WAKE: Array<u32> = Array::with_max_entries(1, 0);

/// The agent's own process.
#[map]
pub static AGENT: Array<Process> = Array::with_max_entries(1, 0);

/// Running record number of each CPU.
#[map]
pub static SEQUENCE: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// cgroup v2 ids known to be the host's for good; the agent adds them. A forgotten one only lets too much through.
#[map]
pub static HOST_CGROUPS: LruHashMap<u64, u8> = LruHashMap::with_max_entries(8192, 0);

/// Hashes of events that no rule can match, under the key of the policy in force; the agent adds them. A forgotten one
/// only lets too much through.
#[map]
pub static UNMATCHED: LruHashMap<u64, u8> = LruHashMap::with_max_entries(16_384, 0);

/// How many events stayed in the kernel for being among these, by event code.
#[map]
pub static REJECTED: PerCpuArray<u64> = PerCpuArray::with_max_entries(256, 0);

/// Counters by `Loss`.
#[map]
pub static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(Loss::SLOTS, 0);

/// Events lost whole, by their codes.
#[map]
pub static DROPPED: PerCpuArray<u64> = PerCpuArray::with_max_entries(EVENT_CODES, 0);

/// Event codes are bytes.
const EVENT_CODES: u32 = 256;

/// A process for ever: `tgid` and its leader's start.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Process {
    pub start_ns: u64,
    pub tgid: u64,
}

/// What an `io_uring` request asked for, by the request's address, until it completes; a second name by the address behind
/// it. The least recently used is forgotten (and counted when it is missed), never refused.
#[map]
pub static PENDING: LruHashMap<u64, Pending> = LruHashMap::with_max_entries(512, 0);

/// The words of a request, and a name or a socket address.
#[repr(C)]
pub struct Pending {
    pub arguments: [u64; 5],
    pub slot: u64,
    pub length: u64,
    pub bytes: [u8; limits::PATH_MAX],
}

/// Where a `Pending` is put together.
#[map]
pub static PENDING_SCRATCH: PerCpuArray<Pending> = PerCpuArray::with_max_entries(1, 0);

/// Calls that concern any event, by number; set by the loader, frozen.
#[unsafe(no_mangle)]
pub static CALLS: CallTable = [0; WANTED_CALLS];

/// What is read at the exits of plain calls, by event code.
pub static READS: ReadsTable = Reads::table();

/// What is read of the operations of a ring, by their numbers; set by the loader, frozen.
#[unsafe(no_mangle)]
pub static RING: RingTable = [[0; RING_ROW]; RING_OPCODES];

/// What `socketcall` calls.
pub static SOCKETCALLS: [u16; 32] = EventType::socketcalls();

/// How many processors there may be; set by the loader.
#[unsafe(no_mangle)]
pub static PROCESSORS: u32 = 1;

/// How many buffers a processor has of a family, at most; set by the loader.
#[unsafe(no_mangle)]
pub static SLOTS: u32 = 1;

/// A buffer for one record: fixed part, then sections.
#[repr(C)]
pub struct Scratch<R, const SIZE: usize> {
    /// Taken by a hook that was interrupted on this CPU, or whose task was preempted.
    pub busy: u64,
    /// How often it was asked for: the ring's filling is looked at now and then.
    pub asked: u64,
    /// Not zero: the ring was too full for this family when it was last looked at.
    pub refused: u64,
    /// Bytes of sections so far. In memory, not in a register: the verifier then forgets its value, and sees every
    /// round of a loop and every way out of it as the same.
    pub length: u64,
    /// Addresses of the dentry and the mount that a path walk looks out for; 0 = none. In memory for the same reason.
    pub landmark: [u64; 2],
    pub record: R,
    pub sections: [u8; SIZE],
}

/// Room for `$room` bytes of sections, plus one write of at most `$write` at their end.
macro_rules! scratch {
    ($( $(#[$doc:meta])* $map:ident: $record:ty, room $room:expr, write $write:expr; )*) => {
        $(
            $(#[$doc])*
            #[map]
            pub static $map: Array<Scratch<$record, { $room + $write }>> = Array::with_max_entries(1, 0);
        )*
    };
}

// The agent sets the number of entries: one per possible CPU, or `SLOTS` of them. (A per-CPU map holds at most 32 KiB per element.)
scratch! {
    EXEC: ExecRecord, room EXEC_ROOM, write limits::ARGV_MAX;
    OPEN: OpenRecord, room OPEN_ROOM, write limits::PATH_MAX;
    CONNECT: ConnectRecord, room SMALL_ROOM, write NAME;
    CALL: CallRecord, room CALL_ROOM, write limits::PATH_MAX;
    CGROUP: CgroupRecord, room CGROUP_ROOM, write limits::PATH_MAX;
    FORK: ForkRecord, room 0, write 8;
    EXIT: ExitRecord, room 0, write 8;
    RENAME: RenameRecord, room 0, write 8;
    /// For opens and connects by `io_uring`: their hooks can run while a system call's exit is traced.
    IO_URING_OPEN: OpenRecord, room OPEN_ROOM, write limits::PATH_MAX;
    IO_URING_CONNECT: ConnectRecord, room SMALL_ROOM, write NAME;
    IO_URING_CALL: CallRecord, room CALL_ROOM, write limits::PATH_MAX;
}

const NAME: usize = limits::NAME_SIZE;
/// filename, interp, path, path beneath, cwd, argv, envp
pub const EXEC_ROOM: usize = 64 << 10;
/// name, path, path beneath, directory
pub const OPEN_ROOM: usize = 32 << 10;
/// three texts, path, path beneath, two directories, two unix addresses, data
pub const CALL_ROOM: usize = 32 << 10;
pub const CGROUP_ROOM: usize = 8 << 10;
pub const SMALL_ROOM: usize = 256;
