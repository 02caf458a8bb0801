//! The one owner of what programs consult: which events leave the kernel. Everything is written as one
//! map and swapped in by its generation, so that no event is judged by half a set.

use agent_common::{EventGroup, EventType, KernelPolicy, PolicyFlags};
use aya::maps::{Array, ArrayOfMaps, MapData, MapError};

/// What the rules need to see. The default is nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches, one rule need each")]
pub struct Policy {
    /// The events.
    pub events: EventSet,
    /// Opens for reading, `O_RDWR` included.
    pub open_read: bool,
    /// Opens for writing, `O_RDWR` included.
    pub open_write: bool,
    /// Opens that failed.
    pub open_failed: bool,
    /// Connects that failed.
    pub connect_failed: bool,
    /// Environments of new programs.
    pub environment: bool,
    /// Threads as well as processes, at fork and exit.
    pub threads: bool,
    /// No opens of tasks in cgroups that [`Sensor::add_host_cgroup`](super::Sensor::add_host_cgroup) was told of.
    pub open_not_host: bool,
    /// No connects of them.
    pub connect_not_host: bool,
}

impl Policy {
    /// Everything that the sensor can see.
    pub fn everything() -> Self {
        Self {
            events: EventType::ALL.iter().copied().collect(),
            open_read: true,
            open_write: true,
            open_failed: true,
            connect_failed: true,
            environment: true,
            threads: true,
            open_not_host: false,
            connect_not_host: false,
        }
    }

    /// What is reported under both together: everything that either asks for.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self {
            events: EventSet(self.events.0 | other.events.0),
            open_read: self.open_read || other.open_read,
            open_write: self.open_write || other.open_write,
            open_failed: self.open_failed || other.open_failed,
            connect_failed: self.connect_failed || other.connect_failed,
            environment: self.environment || other.environment,
            threads: self.threads || other.threads,
            // These leave something out.
            open_not_host: self.open_not_host && other.open_not_host,
            connect_not_host: self.connect_not_host && other.connect_not_host,
        }
    }

    fn kernel(&self, generation: u32) -> KernelPolicy {
        let flags = [
            (self.open_read, PolicyFlags::OPEN_READ),
            (self.open_write, PolicyFlags::OPEN_WRITE),
            (self.open_failed, PolicyFlags::OPEN_FAILED),
            (self.connect_failed, PolicyFlags::CONNECT_FAILED),
            (self.environment, PolicyFlags::ENVIRONMENT),
            (self.threads, PolicyFlags::THREADS),
            (self.open_not_host, PolicyFlags::OPEN_NOT_HOST),
            (self.connect_not_host, PolicyFlags::CONNECT_NOT_HOST),
        ];
        let flags = flags.into_iter().filter(|(wanted, _)| *wanted).fold(0, |all, (_, flag)| all | flag);
        KernelPolicy { events: self.events.0, flags, generation }
    }
}

/// A set of event types.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EventSet(u64);

impl EventSet {
    /// Whether it holds an event.
    pub const fn contains(self, event: EventType) -> bool {
        self.0 & event.bit() != 0
    }

    /// Adds an event.
    pub const fn insert(&mut self, event: EventType) {
        self.0 |= event.bit();
    }

    /// Whether it holds an event that these hooks serve.
    pub fn needs(self, group: EventGroup) -> bool {
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

/// The map with the policy in force.
pub(super) struct PolicyOwner {
    outer: ArrayOfMaps<MapData, Array<MapData, PolicyValue>>,
    generation: u32,
}

impl PolicyOwner {
    pub(super) const fn new(outer: ArrayOfMaps<MapData, Array<MapData, PolicyValue>>) -> Self {
        Self { outer, generation: 0 }
    }

    /// Puts a policy in force. Programs that run see the old or the new one, whole; the kernel returns
    /// from the swap when none sees the old one any more.
    pub(super) fn set(&mut self, policy: &Policy) -> Result<u32, MapError> {
        let generation = self.generation.wrapping_add(1);
        let mut inner = Array::create(1, 0)?;
        inner.set(0, PolicyValue(policy.kernel(generation)), 0)?;
        self.outer.set(0, &inner, 0)?;
        self.generation = generation;
        Ok(generation)
    }
}

/// [`KernelPolicy`] as a map value.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(super) struct PolicyValue(KernelPolicy);

// SAFETY: plain words without padding (asserted in agent-common).
unsafe impl aya::Pod for PolicyValue {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_together_leave_out_only_what_both_leave_out() {
        let nothing = Policy { open_not_host: true, connect_not_host: true, ..Policy::default() };
        let everything = Policy::everything();
        assert_eq!(nothing.union(&everything), everything);
        assert_eq!(everything.union(&nothing), everything);
        assert_eq!(nothing.union(&nothing), nothing);
        let opens = Policy { events: [EventType::Openat].into_iter().collect(), open_read: true, ..nothing.clone() };
        let execs = Policy { events: [EventType::Execve].into_iter().collect(), environment: true, ..nothing };
        let both = opens.union(&execs);
        assert!(both.events.contains(EventType::Openat) && both.events.contains(EventType::Execve));
        assert!(both.open_read && both.environment && both.open_not_host && !both.open_write);
    }

    #[test]
    fn a_policy_becomes_bits() {
        let policy =
            Policy { events: [EventType::Openat].into_iter().collect(), open_write: true, ..Policy::default() };
        let kernel = policy.kernel(7);
        assert_eq!(kernel, KernelPolicy { events: 1 << 9, flags: PolicyFlags::OPEN_WRITE, generation: 7 });
        assert!(policy.events.needs(EventGroup::Open));
        assert!(!policy.events.needs(EventGroup::Exec));
        assert_eq!(Policy::everything().kernel(0).flags, 0b11_1111);
    }
}
