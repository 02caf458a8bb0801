//! The way of a record out: scratch buffer, header, sequence number, ring, wake-up, and the count
//! of what got lost on it. Knows nothing of what records hold.

use core::arch::asm;

use agent_common::{EventType, FillLimit, Header, KernelPolicy, Loss, RECORD_VERSION, WakeState, fact};
use aya_ebpf::{
    helpers::generated::{
        bpf_get_smp_processor_id, bpf_ktime_get_boot_ns, bpf_ringbuf_discard, bpf_ringbuf_output, bpf_ringbuf_query,
        bpf_ringbuf_reserve,
    },
    maps::Array,
};

use crate::{
    maps::{self, Scratch},
    object::have,
};

const NO_WAKEUP: u64 = 1;
const FORCE_WAKEUP: u64 = 2;
/// `BPF_RB_AVAIL_DATA`, `BPF_RB_RING_SIZE` (`include/uapi/linux/bpf.h`)
const AVAIL_DATA: u64 = 0;
const RING_SIZE: u64 = 1;
/// The ring's filling is looked at once in so many events of a family and processor, less one; and at each while it is
/// too full. Few records more than that fit between two looks.
const LOOKS: u64 = 15;

/// Whether a record should reach the agent at once or may wait for others.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    Now,
    Soon,
}

/// Counts a loss.
#[inline(always)]
pub fn lost(reason: Loss) {
    if let Some(counter) = maps::LOST.get_ptr_mut(reason as u32) {
        // SAFETY: this CPU's slot; atomic because an interrupting hook may count at the same time.
        unsafe { count(counter) };
    }
}

/// Counts an event that is lost whole.
#[inline(always)]
fn lost_event(reason: Loss, code: u16) {
    lost(reason);
    if let Some(counter) = maps::DROPPED.get_ptr_mut(u32::from(code)) {
        // SAFETY: as above.
        unsafe { count(counter) };
    }
}

/// The next running number of this processor.
#[inline(always)]
fn number() -> u64 {
    match maps::SEQUENCE.get_ptr_mut(0) {
        // SAFETY: this CPU's slot; atomic because a hook of another family may interrupt.
        Some(counter) => unsafe { count_on(counter) },
        None => 0,
    }
}

/// The policy in force.
#[inline(always)]
pub fn policy() -> Option<&'static KernelPolicy> {
    // SAFETY: elements of arrays stay where they are; a map that is replaced lives on until no program uses it.
    let policy = unsafe { maps::POLICY.element().cast::<KernelPolicy>().as_ref() };
    if policy.is_none() {
        lost(Loss::NoState);
    }
    policy
}

/// The policy in force, if it lets `event` through.
#[inline(always)]
pub fn wanted(event: EventType) -> Option<&'static KernelPolicy> {
    let policy = policy()?;
    if policy.events.contains(event) { Some(policy) } else { None }
}

/// This CPU's scratch buffer of a family, marked as taken, for an event of a code; none, counted, while the ring is
/// fuller than `limit` ([`FillLimit`]).
#[inline(always)]
pub unsafe fn take<R, const SIZE: usize>(
    map: &'static Array<Scratch<R, SIZE>>,
    code: u16,
    limit: u64,
) -> Option<&'static mut Scratch<R, SIZE>> {
    // SAFETY: no arguments.
    let mut at = unsafe { bpf_get_smp_processor_id() };
    // VERIFIER: it knows these values, and so how many rounds there are.
    // SAFETY: constants.
    let (processors, slots) =
        unsafe { ((&raw const maps::PROCESSORS).read_volatile(), (&raw const maps::SLOTS).read_volatile()) };
    let mut free = None;
    let mut tried = 0;
    while tried < slots {
        let Some(scratch) = map.get_ptr_mut(at) else { break };
        // SAFETY: the element belongs to this CPU and family; whoever finds it free has it alone.
        if unsafe { exchange(&raw mut (*scratch).busy, 1, slots != 1) } == 0 {
            free = Some(scratch);
            break;
        }
        at += processors;
        tried += 1;
    }
    let Some(scratch) = free else {
        number();
        lost_event(Loss::ScratchBusy, code);
        return None;
    };
    // SAFETY: as above.
    let scratch = unsafe { &mut *scratch };
    if limit < FillLimit::PROCESSES {
        scratch.asked = scratch.asked.wrapping_add(1);
        if scratch.refused != 0 || scratch.asked & LOOKS == 0 {
            scratch.refused = u64::from(is_fuller(limit));
        }
        if scratch.refused != 0 {
            scratch.busy = 0;
            number();
            lost_event(Loss::BackPressure, code);
            return None;
        }
    }
    Some(scratch)
}

/// Whether more than so many eighths of the ring are not read yet.
#[inline(always)]
fn is_fuller(limit: u64) -> bool {
    let ring = (&raw const maps::EVENTS).cast_mut().cast();
    // SAFETY: asks a ring for two numbers.
    unsafe { bpf_ringbuf_query(ring, AVAIL_DATA) > bpf_ringbuf_query(ring, RING_SIZE) / 8 * limit }
}

/// Fills in the header.
#[inline(always)]
pub unsafe fn begin(header: &mut Header, event: EventType, policy: &KernelPolicy) {
    // SAFETY: as below.
    unsafe { begin_code(header, event.code(), policy) };
}

/// The same, by the event's code.
#[inline(always)]
pub unsafe fn begin_code(header: &mut Header, code: u16, policy: &KernelPolicy) {
    *header = Header {
        version: RECORD_VERSION,
        event: code,
        length: 0,
        // SAFETY: no arguments.
        cpu: unsafe { bpf_get_smp_processor_id() } as u16,
        bits: 0,
        generation: policy.generation,
        sequence: number(),
        // SAFETY: no arguments.
        boot_ns: unsafe { bpf_ktime_get_boot_ns() },
        hash: 0,
    };
}

/// Sends the record with its sections, and gives the buffer back. `ROOM` as in [`Sections::end`].
#[inline(always)]
pub unsafe fn send<R, const SIZE: usize, const ROOM: usize>(scratch: &mut Scratch<R, SIZE>, urgency: Urgency) {
    // SAFETY: a field of the buffer.
    let sections = unsafe { (&raw const scratch.length).read_volatile() } as usize & (ROOM - 1);
    let length = size_of::<R>() + sections;
    let record = &raw mut scratch.record;
    // SAFETY: every record starts with its header.
    unsafe { (*record.cast::<Header>()).length = length as u32 };
    // SAFETY: record and sections lie side by side (repr(C), sizes are multiples of 8).
    let result = unsafe {
        bpf_ringbuf_output((&raw const maps::EVENTS).cast_mut().cast(), record.cast(), length as u64, NO_WAKEUP)
    };
    scratch.busy = 0;
    if result == 0 {
        wake(urgency);
    } else {
        // SAFETY: every record starts with its header.
        lost_event(Loss::RingFull, unsafe { (*record.cast::<Header>()).event });
    }
}

/// Wakes the consumer if it waits for this.
///
/// The record is committed by a full barrier before the state is read, and the consumer publishes its
/// state before it looks at the ring a last time: one of the two sees the other.
#[inline(always)]
fn wake(urgency: Urgency) {
    let Some(state) = maps::WAKE.get_ptr_mut(0) else { return };
    // SAFETY: a word that the agent writes as a whole.
    let now = unsafe { state.read_volatile() };
    if now == WakeState::AWAKE || (now == WakeState::GATHERING && urgency == Urgency::Soon) {
        return;
    }
    // SAFETY: as above; two CPUs that both wake it do no harm.
    unsafe { state.write_volatile(WakeState::AWAKE) };
    // A discarded record of no content is the only way to ring the bell without adding to the ring.
    // SAFETY: a reserved record is always discarded.
    unsafe {
        let bell = bpf_ringbuf_reserve((&raw const maps::EVENTS).cast_mut().cast(), 8, 0);
        if !bell.is_null() {
            bpf_ringbuf_discard(bell, FORCE_WAKEUP);
        }
    }
}

/// A growing run of sections behind a record.
#[derive(Clone, Copy)]
pub struct Sections {
    start: *mut u8,
    length: *mut u64,
    landmark: *mut u64,
}

impl Sections {
    #[inline(always)]
    pub fn new<R, const SIZE: usize>(scratch: &mut Scratch<R, SIZE>) -> Self {
        scratch.length = 0;
        scratch.landmark = [0; 2];
        Self {
            start: scratch.sections.as_mut_ptr(),
            length: &raw mut scratch.length,
            landmark: (&raw mut scratch.landmark).cast(),
        }
    }

    /// Where the next write goes. `ROOM` is a power of two and the buffer holds `ROOM` plus the longest write.
    #[inline(always)]
    pub fn end<const ROOM: usize>(self) -> *mut u8 {
        // VERIFIER: the mask bounds the offset; the length cannot exceed it, as every section is bounded.
        self.start.wrapping_add(self.length() & (ROOM - 1))
    }

    /// What a path walk looks out for.
    #[inline(always)]
    pub fn landmark(self) -> (u64, u64) {
        // SAFETY: fields of the buffer.
        unsafe { (self.landmark.read_volatile(), self.landmark.add(1).read_volatile()) }
    }

    #[inline(always)]
    pub fn set_landmark(self, dentry: u64, mount: u64) {
        // SAFETY: fields of the buffer.
        unsafe {
            self.landmark.write_volatile(dentry);
            self.landmark.add(1).write_volatile(mount);
        }
    }

    #[inline(always)]
    pub fn add(self, bytes: usize) {
        // SAFETY: a field of the buffer.
        unsafe { self.length.write_volatile((self.length() + bytes) as u64) };
    }

    #[inline(always)]
    pub fn length(self) -> usize {
        // SAFETY: a field of the buffer.
        unsafe { self.length.read_volatile() as usize }
    }
}

/// Stores and gives the value from before; at once if it has to be `atomic`.
#[inline(always)]
unsafe fn exchange(place: *mut u64, value: u64, atomic: bool) -> u64 {
    let before: u64;
    // SAFETY: the caller gives a map value.
    unsafe {
        if atomic && have::<{ fact::ATOMIC_FETCH }>() {
            // As in `count_on`.
            asm!("{0} = xchg_64({1} + 0, {0})", inlateout(reg) value => before, in(reg) place, options(nostack));
            return before;
        }
        before = place.read_volatile();
        place.write_volatile(value);
    }
    before
}

/// Hides a value's history from the compiler, so that it cannot drop a bound that the verifier needs.
#[inline(always)]
pub fn opaque(value: usize) -> usize {
    let mut value = value;
    // An empty text would share its place in the line table with the next, which the kernel refuses.
    // SAFETY: moves a register to itself.
    unsafe { asm!("{0} = {0}", inout(reg) value, options(pure, nomem, nostack)) };
    value
}

/// Adds one atomically. (The compiler's BPF target offers no atomics.)
#[inline(always)]
pub unsafe fn count(counter: *mut u64) {
    // SAFETY: the caller gives a map value.
    unsafe { asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) counter, in(reg) 1_u64, options(nostack)) };
}

/// The same, and gives the new count.
#[inline(always)]
unsafe fn count_on(counter: *mut u64) -> u64 {
    let mut count = 1;
    // SAFETY: the caller gives a map value.
    unsafe {
        if have::<{ fact::ATOMIC_FETCH }>() {
            // The loader takes the fetching out where the kernel does not know it, even where it is never reached.
            asm!("{0} = atomic_fetch_add((u64 *)({1} + 0), {0})", inlateout(reg) count, in(reg) counter, options(nostack));
            return count + 1;
        }
        // Two steps: the kernels without it (before 5.12) have no hook that interrupts another.
        asm!("lock *(u64 *)({1} + 0) += {0}", "{0} = *(u64 *)({1} + 0)", inlateout(reg) count, in(reg) counter,
            options(nostack));
    }
    count
}

/// Stores a word at any alignment; the compiler would take it apart into bytes.
#[inline(always)]
pub unsafe fn store<const BYTES: i32>(to: *mut u8, word: u64) {
    // SAFETY: the caller gives the room, and the verifier checks it.
    unsafe {
        asm!("*(u64 *)({0} + {bytes}) = {1}", in(reg) to, in(reg) word, bytes = const BYTES, options(nostack));
    }
}
