//! What user space lets through the kernel half. One value is swapped as a whole, so that no event
//! is judged by half a set; only the agent's policy owner writes it.

use crate::{Arch, EventGroup, EventType, OwnFacts};

/// A set of events, by their codes.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EventSet([u64; 4]);

impl EventSet {
    /// Whether it holds an event.
    #[inline(always)]
    pub const fn contains(&self, event: EventType) -> bool {
        self.contains_code(event.code())
    }

    /// Whether it holds the event of a code.
    #[inline(always)]
    pub const fn contains_code(&self, code: u16) -> bool {
        self.0[code as usize >> 6 & 3] & 1 << (code & 63) != 0
    }

    /// Adds an event.
    pub const fn insert(&mut self, event: EventType) {
        self.0[event.code() as usize >> 6 & 3] |= 1 << (event.code() & 63);
    }

    /// What either holds.
    #[must_use]
    pub const fn union(&self, other: &Self) -> Self {
        Self([self.0[0] | other.0[0], self.0[1] | other.0[1], self.0[2] | other.0[2], self.0[3] | other.0[3]])
    }

    /// What both hold.
    #[must_use]
    pub const fn intersection(&self, other: &Self) -> Self {
        Self([self.0[0] & other.0[0], self.0[1] & other.0[1], self.0[2] & other.0[2], self.0[3] & other.0[3]])
    }

    /// Whether it holds an event that these hooks serve.
    pub fn needs(&self, group: EventGroup) -> bool {
        EventType::ALL.iter().any(|event| event.group() == group && self.contains(*event))
    }
}

impl FromIterator<EventType> for EventSet {
    fn from_iter<I: IntoIterator<Item = EventType>>(events: I) -> Self {
        let mut set = Self::default();
        for event in events {
            set.insert(event);
        }
        set
    }
}

/// The policy that programs consult.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KernelPolicy {
    /// What is reported at all.
    pub events: EventSet,
    /// Of which calls also those that failed (`EINPROGRESS` is not a failure).
    pub failed: EventSet,
    /// What is not reported of tasks in a cgroup that is known to be the host's.
    pub not_host: EventSet,
    /// [`PolicyFlags`].
    pub flags: u32,
    /// Running number of the policy, copied into every record.
    pub generation: u32,
    /// What is hashed of each event, to be looked up among those that no rule can match.
    pub own: OwnFacts,
    /// The secret that it is hashed with: of this policy alone, so that what another one's rules said counts no more.
    pub key: [u64; 2],
}

/// Bits of [`KernelPolicy::flags`].
pub struct PolicyFlags;

impl PolicyFlags {
    /// Opens for reading, `O_RDWR` included (and `O_PATH`).
    pub const OPEN_READ: u32 = 1;
    /// Opens for writing, `O_RDWR` included.
    pub const OPEN_WRITE: u32 = 1 << 1;
    /// The environment of a new program.
    pub const ENVIRONMENT: u32 = 1 << 2;
    /// Tasks created within a process (threads).
    pub const THREADS: u32 = 1 << 3;
    /// What is sent and received.
    pub const DATA: u32 = 1 << 4;
    /// Messages that name no address: of streams and connected sockets.
    pub const PLAIN_MESSAGES: u32 = 1 << 5;
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

/// `socketcall` in the 32-bit byte of a [`CallTable`]: no event of its own, its argument says which call it makes.
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
            if let Some(Arch::I386) = compat {
                let others = event.other_i386_calls();
                let mut nth = 0;
                while nth < others.len() {
                    table[others[nth] as usize] |= event.code() << 8;
                    nth += 1;
                }
            }
            row += 1;
        }
        if let Some(Arch::I386) = compat {
            table[Self::I386_SOCKETCALL as usize] |= (SOCKETCALL_CODE as u16) << 8;
        }
        table
    }
}

const _: () = assert!(size_of::<KernelPolicy>() == 3 * 32 + 8 + 256 + 16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in() {
        let set: EventSet = [EventType::Openat, EventType::Unshare].into_iter().collect();
        let held = EventType::ALL.iter().filter(|event| set.contains(**event));
        assert!(held.eq([&EventType::Openat, &EventType::Unshare]));
        assert!(set.needs(EventGroup::Open) && set.needs(EventGroup::Call) && !set.needs(EventGroup::Exec));
    }

    #[test]
    fn the_call_table_holds_both_numberings() {
        let table = EventType::call_table(Arch::X86_64, Some(Arch::I386));
        assert_eq!(table[257], EventType::Openat.code());
        assert_eq!(table[295], EventType::Openat.code() << 8);
        assert_eq!(table[437], EventType::Openat2.code() | EventType::Openat2.code() << 8);
        assert_eq!(table[102], 0xff00);
        assert_eq!([table[23], table[213]].map(|codes| codes >> 8), [EventType::Setuid.code(); 2]);
        assert_eq!([0, 1, 39].map(|number: usize| table[number] & 0xff), [0; 3], "read, write, getpid");
        assert_eq!(EventType::call_table(Arch::Aarch64, None)[56], EventType::Openat.code());
    }
}
