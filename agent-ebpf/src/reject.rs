//! Events that no rule can match, whoever does them: the agent says so of an event that it has seen, and from then on its like
//! stays in the kernel. An event is known by a hash of its own facts under a secret key; what a record says besides
//! (who, when, how often) no such answer depends on.

use agent_common::{Header, HeaderBits, KernelPolicy, OWN_SECTIONS_MAX, OwnFacts, OwnRecord, SipHash, first_word};

use crate::{
    maps::{self, Scratch},
    output, task,
};

/// What the agent is told of an event, to ask its rules once for all of its like.
#[derive(Clone, Copy)]
pub struct Mark {
    hash: u64,
    bits: u16,
}

impl Mark {
    const NONE: Self = Self { hash: 0, bits: 0 };

    #[inline(always)]
    pub fn put(self, header: &mut Header) {
        header.hash = self.hash;
        header.bits = self.bits;
    }
}

/// The mark of the record in `scratch`, whose own facts are all there; nothing if it is known that no rule can match
/// it. `ROOM` as in [`output::Sections::end`].
#[inline(always)]
pub unsafe fn mark<R: OwnRecord, const SIZE: usize, const ROOM: usize>(
    scratch: &mut Scratch<R, SIZE>,
    code: u16,
    policy: &KernelPolicy,
) -> Option<Mark> {
    // SAFETY: fields of the policy and of the buffer; the task is only read.
    unsafe {
        let own = (&raw const policy.own).cast::<u8>().add(usize::from(code & 0xff)).read_volatile();
        let length = (&raw const scratch.length).read_volatile() as usize & (ROOM - 1);
        if own & OwnFacts::HASHED == 0 || length > OWN_SECTIONS_MAX {
            return Some(Mark::NONE);
        }
        let host = own & OwnFacts::HOST != 0 && task::is_hosts();
        let sections = scratch.sections.as_mut_ptr();
        // The last word has a tail of zeros, whatever record was here before.
        output::store::<0>(sections.wrapping_add(length & (ROOM - 1)), 0);
        let mut hash =
            SipHash::new([(&raw const policy.key[0]).read_volatile(), (&raw const policy.key[1]).read_volatile()]);
        hash.word(first_word(code, host, length));
        scratch.record.hash(own, &mut hash);
        let mut at = output::opaque(0);
        while at < OWN_SECTIONS_MAX {
            if at >= length {
                break;
            }
            hash.word(sections.wrapping_add(at).cast::<u64>().read_volatile());
            at = output::opaque(at + 8);
        }
        let hash = hash.finish();
        if maps::UNMATCHED.get(&hash).is_some() {
            if let Some(count) = maps::REJECTED.get_ptr_mut(u32::from(code & 0xff)) {
                output::count(count);
            }
            return None;
        }
        Some(Mark { hash, bits: if host { HeaderBits::HOST } else { 0 } })
    }
}
