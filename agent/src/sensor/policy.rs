//! The one owner of what programs consult: which events leave the kernel. Everything is written as one
//! map and swapped in by its generation, so that no event is judged by half a set.

pub use agent_common::EventSet;
use agent_common::{EventType, KernelPolicy, OwnFacts, PolicyFlags};
use aya::maps::{Array, ArrayOfMaps, MapData, MapError};
use rustix::rand::GetRandomFlags;

/// What the rules need to see. The default is nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches, one rule need each")]
pub struct Policy {
    /// The events.
    pub events: EventSet,
    /// Those of which failures are wanted as well.
    pub failed: EventSet,
    /// Those that are not wanted of tasks in cgroups that [`Sensor::add_host_cgroup`](super::Sensor::add_host_cgroup) was
    /// told of.
    pub not_host: EventSet,
    /// Opens for reading, `O_RDWR` included.
    pub open_read: bool,
    /// Opens for writing, `O_RDWR` included.
    pub open_write: bool,
    /// Environments of new programs.
    pub environment: bool,
    /// Threads as well as processes, at fork and exit.
    pub threads: bool,
    /// The start of what is sent and received.
    pub data: bool,
    /// Messages that name no address: of streams and connected sockets.
    pub plain_messages: bool,
    /// What is hashed of each event, so that those of which [`Sensor::reject`](super::Sensor::reject) is told stay in
    /// the kernel as long as this policy is in force.
    pub own: OwnFacts,
}

impl Policy {
    /// Everything that the sensor can see.
    pub fn everything() -> Self {
        Self {
            events: EventType::ALL.iter().copied().collect(),
            failed: EventType::ALL.iter().copied().collect(),
            not_host: EventSet::default(),
            open_read: true,
            open_write: true,
            environment: true,
            threads: true,
            data: true,
            plain_messages: true,
            own: OwnFacts::NOTHING,
        }
    }

    /// What is reported under both together: everything that either asks for. What no rule of one set can match the
    /// other may: nothing is hashed.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self {
            events: self.events.union(&other.events),
            failed: self.failed.union(&other.failed),
            // This leaves something out.
            not_host: self.not_host.intersection(&other.not_host),
            open_read: self.open_read || other.open_read,
            open_write: self.open_write || other.open_write,
            environment: self.environment || other.environment,
            threads: self.threads || other.threads,
            data: self.data || other.data,
            plain_messages: self.plain_messages || other.plain_messages,
            own: OwnFacts::NOTHING,
        }
    }

    fn kernel(&self, generation: u32, key: [u64; 2]) -> KernelPolicy {
        let flags = [
            (self.open_read, PolicyFlags::OPEN_READ),
            (self.open_write, PolicyFlags::OPEN_WRITE),
            (self.environment, PolicyFlags::ENVIRONMENT),
            (self.threads, PolicyFlags::THREADS),
            (self.data, PolicyFlags::DATA),
            (self.plain_messages, PolicyFlags::PLAIN_MESSAGES),
        ];
        let flags = flags.into_iter().filter(|(wanted, _)| *wanted).fold(0, |all, (_, flag)| all | flag);
        let Self { events, failed, not_host, own, .. } = *self;
        KernelPolicy { events, failed, not_host, flags, generation, own, key }
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

    pub(super) const fn generation(&self) -> u32 {
        self.generation
    }

    /// Puts a policy in force. Programs that run see the old or the new one, whole; the kernel returns
    /// from the swap when none sees the old one any more.
    pub(super) fn set(&mut self, policy: &Policy) -> Result<u32, MapError> {
        let generation = self.generation.wrapping_add(1);
        let mut inner = Array::create(1, 0)?;
        inner.set(0, PolicyValue(policy.kernel(generation, secret()?)), 0)?;
        self.outer.set(0, &inner, 0)?;
        self.generation = generation;
        Ok(generation)
    }
}

/// A key that no one knows, and no policy had before.
fn secret() -> Result<[u64; 2], MapError> {
    let mut bytes = [0; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        filled += rustix::rand::getrandom(&mut bytes[filled..], GetRandomFlags::empty())
            .map_err(|error| MapError::IoError(error.into()))?;
    }
    let [low, high] =
        [&bytes[..8], &bytes[8..]].map(|half| half.iter().fold(0, |all, byte| all << 8 | u64::from(*byte)));
    Ok([low, high])
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
        let nothing = Policy { not_host: EventType::ALL.iter().copied().collect(), ..Policy::default() };
        let everything = Policy::everything();
        assert_eq!(nothing.union(&everything), everything);
        assert_eq!(everything.union(&nothing), everything);
        assert_eq!(nothing.union(&nothing), nothing);
        let opens = Policy { events: [EventType::Openat].into_iter().collect(), open_read: true, ..nothing.clone() };
        let execs = Policy { events: [EventType::Execve].into_iter().collect(), environment: true, ..nothing };
        let both = opens.union(&execs);
        assert!(both.events.contains(EventType::Openat) && both.events.contains(EventType::Execve));
        assert!(both.open_read && both.environment && !both.open_write);
        assert!(both.not_host.contains(EventType::Openat));
        let hashing = Policy { own: OwnFacts([OwnFacts::HASHED; 256]), ..both };
        assert_eq!(hashing.union(&hashing).own, OwnFacts::NOTHING, "even the same needs are those of other rules");
    }

    #[test]
    fn a_secret_is_new_each_time() {
        let secrets = [secret().unwrap(), secret().unwrap()];
        assert_ne!(secrets[0], secrets[1]);
        assert!(secrets.concat().iter().all(|word| *word != 0), "{secrets:?}");
    }

    #[test]
    fn a_policy_becomes_bits() {
        let policy =
            Policy { events: [EventType::Openat].into_iter().collect(), open_write: true, ..Policy::default() };
        let kernel = policy.kernel(7, [1, 2]);
        assert_eq!((kernel.flags, kernel.generation, kernel.key), (PolicyFlags::OPEN_WRITE, 7, [1, 2]));
        assert!(kernel.events.contains(EventType::Openat) && !kernel.events.contains(EventType::Open));
        assert_eq!(Policy::everything().kernel(0, [0; 2]).flags, 0b11_1111);
    }
}
