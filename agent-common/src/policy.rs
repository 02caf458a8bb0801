//! What user space lets through the kernel half. One value is swapped as a whole, so that no event
//! is judged by half a set; only the agent's policy owner writes it.

use crate::{Arch, EventType};

/// The policy that programs consult.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KernelPolicy {
    /// Bits of [`EventType::bit`]: what is reported at all.
    pub events: u64,
    /// [`PolicyFlags`].
    pub flags: u32,
    /// Running number of the policy, copied into every record.
    pub generation: u32,
}

/// Bits of [`KernelPolicy::flags`].
pub struct PolicyFlags;

impl PolicyFlags {
    /// Opens for reading, `O_RDWR` included (and `O_PATH`).
    pub const OPEN_READ: u32 = 1;
    /// Opens for writing, `O_RDWR` included.
    pub const OPEN_WRITE: u32 = 1 << 1;
    /// Opens that failed.
    pub const OPEN_FAILED: u32 = 1 << 2;
    /// Connects that failed (`EINPROGRESS` is not a failure).
    pub const CONNECT_FAILED: u32 = 1 << 3;
    /// The environment of a new program.
    pub const ENVIRONMENT: u32 = 1 << 4;
    /// Tasks created within a process (threads).
    pub const THREADS: u32 = 1 << 5;
    /// Opens of tasks in a cgroup that is known to be the host's are not wanted.
    pub const OPEN_NOT_HOST: u32 = 1 << 6;
    /// The same for connects.
    pub const CONNECT_NOT_HOST: u32 = 1 << 7;
}

/// What the consumer of the ring is doing; programs read it to decide whether to wake it.
pub struct WakeState;

impl WakeState {
    /// Draining: needs no wake-up.
    pub const AWAKE: u32 = 0;
    /// Waiting a moment so that records gather: only urgent ones wake it.
    pub const GATHERING: u32 = 1;
    /// Nothing to do: the next record wakes it.
    pub const ASLEEP: u32 = 2;
}

/// Numbers above this are no call of the table, on any architecture.
pub const WANTED_CALLS: usize = 512;

/// For each call number, the event codes of the native call (low byte) and of the 32-bit one (high byte).
pub type CallTable = [u16; WANTED_CALLS];

/// `socketcall` in the 32-bit byte of a [`CallTable`]: no event of its own, which connect it is decides the argument.
pub const SOCKETCALL_CODE: u8 = 0xff;

impl EventType {
    /// The call table of a machine, from the event table.
    pub const fn call_table(native: Arch, compat: Option<Arch>) -> CallTable {
        let mut table = [0; WANTED_CALLS];
        let mut row = 0;
        while row < Self::ALL.len() {
            let event = Self::ALL[row];
            if let Some(number) = event.call(native) {
                table[number as usize] |= event.code();
            }
            if let Some(arch) = compat
                && let Some(number) = event.call(arch)
            {
                table[number as usize] |= event.code() << 8;
            }
            row += 1;
        }
        if let Some(Arch::I386) = compat {
            table[Self::I386_SOCKETCALL as usize] |= (SOCKETCALL_CODE as u16) << 8;
        }
        table
    }
}

const _: () = assert!(size_of::<KernelPolicy>() == 16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_call_table_holds_both_numberings() {
        let table = EventType::call_table(Arch::X86_64, Some(Arch::I386));
        assert_eq!(table[257], EventType::Openat.code());
        assert_eq!(table[295], EventType::Openat.code() << 8);
        assert_eq!(table[437], EventType::Openat2.code() | EventType::Openat2.code() << 8);
        assert_eq!(table[102], 0xff00);
        assert_eq!([table[0], table[1], table[39]], [0; 3], "read, write, getpid");
        assert_eq!(EventType::call_table(Arch::Aarch64, None)[56], EventType::Openat.code());
    }
}
