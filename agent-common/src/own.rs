//! The event's own facts: what of a record says what happened, and not who did it, when or how often. Hashed with a
//! secret, they name the event to the kernel's memory of events that no rule can match.
//!
//! Both halves compile this text: the programs hash what they are about to send, and tests hash what was sent.

use core::mem::offset_of;

use crate::{CallFlags, CallRecord, ConnectRecord, OpenFlags, OpenRecord};

/// Records with more bytes of sections are not hashed.
pub const OWN_SECTIONS_MAX: usize = 512;

/// What is hashed of each event, by its code: a bit for each of the six arguments of a plain call, and [`OwnFacts::HASHED`],
/// [`OwnFacts::HOST`]. 0 is nothing at all.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnFacts(pub [u8; 256]);

impl OwnFacts {
    /// Nothing of any event.
    pub const NOTHING: Self = Self([0; 256]);
    /// The event is hashed.
    pub const HASHED: u8 = 1 << 6;
    /// Whether the task is in a cgroup that is known to be the host's is hashed, too.
    pub const HOST: u8 = 1 << 7;

    /// What is hashed of the event of a code.
    #[inline(always)]
    pub const fn of(&self, code: u16) -> u8 {
        self.0[code as usize & 0xff]
    }
}

impl Default for OwnFacts {
    fn default() -> Self {
        Self::NOTHING
    }
}

/// SipHash-1-3 over whole words. Whoever writes the names must not be able to make two events one, and must not
/// learn which are: the key is secret and new with every policy.
#[derive(Debug, Clone, Copy)]
pub struct SipHash {
    v0: u64,
    v1: u64,
    v2: u64,
    v3: u64,
}

impl SipHash {
    /// Nothing hashed yet.
    #[inline(always)]
    pub const fn new(key: [u64; 2]) -> Self {
        Self {
            v0: key[0] ^ 0x736f_6d65_7073_6575,
            v1: key[1] ^ 0x646f_7261_6e64_6f6d,
            v2: key[0] ^ 0x6c79_6765_6e65_7261,
            v3: key[1] ^ 0x7465_6462_7974_6573,
        }
    }

    /// Hashes a word.
    #[inline(always)]
    pub fn word(&mut self, word: u64) {
        self.v3 ^= word;
        self.round();
        self.v0 ^= word;
    }

    /// The hash.
    #[inline(always)]
    pub fn finish(mut self) -> u64 {
        self.v2 ^= 0xff;
        self.round();
        self.round();
        self.round();
        self.v0 ^ self.v1 ^ self.v2 ^ self.v3
    }

    #[inline(always)]
    fn round(&mut self) {
        self.v0 = self.v0.wrapping_add(self.v1);
        self.v2 = self.v2.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(13) ^ self.v0;
        self.v3 = self.v3.rotate_left(16) ^ self.v2;
        self.v0 = self.v0.rotate_left(32);
        self.v2 = self.v2.wrapping_add(self.v1);
        self.v0 = self.v0.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(17) ^ self.v2;
        self.v3 = self.v3.rotate_left(21) ^ self.v0;
        self.v2 = self.v2.rotate_left(32);
    }
}

/// A record that has facts of its own. What it does not hash no cached answer may depend on
/// (`agent/src/facts/own.rs` says which fields these are).
pub trait OwnRecord {
    /// Hashes the own facts of the fixed part, the arguments among them that `own` names. It has the lengths of the
    /// sections, which follow.
    fn hash(&self, own: u8, hash: &mut SipHash);
}

/// A word of a record.
#[inline(always)]
fn word<R: OwnRecord, const OFFSET: usize>(record: &R) -> u64 {
    const { assert!(OFFSET.is_multiple_of(8) && OFFSET + 8 <= size_of::<R>() && align_of::<R>() == 8) };
    let start = (&raw const *record).cast::<u64>();
    // SAFETY: within the record, as asserted; records have no padding (asserted in `record.rs`).
    unsafe { start.wrapping_add(OFFSET / 8).read_volatile() }
}

/// A call that did not fail has a result that differs from time to time (a descriptor): that it did not is all that counts.
#[inline(always)]
const fn failure(result: u64) -> u64 {
    if (result as i64) < 0 { result } else { 0 }
}

const LOW: u64 = 0xffff_ffff;

impl OwnRecord for OpenRecord {
    #[inline(always)]
    fn hash(&self, _own: u8, hash: &mut SipHash) {
        const RESULT: usize = offset_of!(OpenRecord, result);
        const FLAGS: usize = offset_of!(OpenRecord, flags);
        const DIRFD: usize = offset_of!(OpenRecord, dirfd);
        const NAME_LENGTH: usize = offset_of!(OpenRecord, name_length);
        const PATH: usize = offset_of!(OpenRecord, path);
        const {
            assert!(RESULT.is_multiple_of(8) && FLAGS == RESULT + 8 && DIRFD == FLAGS + 8 && NAME_LENGTH == DIRFD + 8);
            assert!(offset_of!(Self, mode) == FLAGS + 4 && offset_of!(Self, bits) == DIRFD + 4);
            assert!(PATH == NAME_LENGTH + 8 && offset_of!(Self, directory) == PATH + 12);
        }
        hash.word(failure(word::<_, RESULT>(self)));
        // Flags and mode.
        hash.word(word::<_, FLAGS>(self));
        // The bits; whether the file has one in the overlay's layers belongs to the flags that rules see.
        let bits = word::<_, DIRFD>(self) >> 32;
        let file = if bits & u64::from(OpenFlags::HAS_FILE) == 0 { 0 } else { u64::from(read(&self.file.flags)) };
        hash.word(bits | file << 32);
        hash.word(word::<_, NAME_LENGTH>(self) & LOW);
        // Both paths' lengths and flags.
        hash.word(word::<_, PATH>(self));
        hash.word(word::<_, { PATH + 8 }>(self));
        hash.word(word::<_, { PATH + 16 }>(self));
    }
}

impl OwnRecord for ConnectRecord {
    #[inline(always)]
    fn hash(&self, _own: u8, hash: &mut SipHash) {
        const RESULT: usize = offset_of!(ConnectRecord, result);
        const FD: usize = offset_of!(ConnectRecord, fd);
        const REMOTE: usize = FD + 16;
        const {
            assert!(RESULT.is_multiple_of(8) && FD == RESULT + 8 && offset_of!(Self, socket) == FD + 4);
            assert!(offset_of!(Self, socket.protocol) == FD + 8 && offset_of!(Self, socket.remote) == REMOTE);
        }
        hash.word(word::<_, RESULT>(self));
        // Family and type.
        hash.word(word::<_, FD>(self) >> 32);
        // Protocol, flags and the lengths of unix addresses.
        hash.word(word::<_, { FD + 8 }>(self));
        // Not the own end: its port is another one each time.
        hash.word(word::<_, REMOTE>(self));
        hash.word(word::<_, { REMOTE + 8 }>(self));
        hash.word(word::<_, { REMOTE + 16 }>(self));
    }
}

impl OwnRecord for CallRecord {
    #[inline(always)]
    fn hash(&self, own: u8, hash: &mut SipHash) {
        const RESULT: usize = offset_of!(CallRecord, result);
        const TEXT_LENGTHS: usize = offset_of!(CallRecord, text_lengths);
        const FLAGS: usize = offset_of!(CallRecord, flags);
        const PATHS: usize = offset_of!(CallRecord, paths);
        const {
            assert!(RESULT.is_multiple_of(8) && TEXT_LENGTHS.is_multiple_of(8) && FLAGS.is_multiple_of(8));
            assert!(offset_of!(Self, socket) == TEXT_LENGTHS + 12);
            assert!(offset_of!(Self, socket.remote) == TEXT_LENGTHS + 24);
            assert!(offset_of!(Self, data_length) == FLAGS + 4 && PATHS == FLAGS + 8);
            assert!(offset_of!(Self, fd) == PATHS + 36);
        }
        hash.word(failure(word::<_, RESULT>(self)));
        let mut nth = 0;
        while nth < 6 {
            if own & 1 << nth != 0 {
                hash.word(read(&self.arguments[nth]));
            }
            nth += 1;
        }
        // Lengths of texts; family, type, protocol, flags and lengths of a socket; its far end.
        hash.word(word::<_, TEXT_LENGTHS>(self));
        hash.word(word::<_, { TEXT_LENGTHS + 8 }>(self));
        hash.word(word::<_, { TEXT_LENGTHS + 16 }>(self));
        hash.word(word::<_, { TEXT_LENGTHS + 24 }>(self));
        hash.word(word::<_, { TEXT_LENGTHS + 32 }>(self));
        hash.word(word::<_, { TEXT_LENGTHS + 40 }>(self));
        let flags = word::<_, FLAGS>(self);
        hash.word(flags);
        hash.word(word::<_, PATHS>(self));
        hash.word(word::<_, { PATHS + 8 }>(self));
        hash.word(word::<_, { PATHS + 16 }>(self));
        hash.word(word::<_, { PATHS + 24 }>(self));
        hash.word(word::<_, { PATHS + 32 }>(self) & LOW);
        // What kind of file it is.
        if flags & u64::from(CallFlags::FILE) != 0 {
            hash.word(read(&self.file.magic));
            hash.word(u64::from(read(&self.file.mode)));
        }
    }
}

/// Reads a field anew, whatever the compiler would like to have kept in a register.
#[inline(always)]
fn read<T: Copy>(field: &T) -> T {
    // SAFETY: a reference is valid to read.
    unsafe { (&raw const *field).read_volatile() }
}

/// The first word to be hashed: the event, who is known of the task, and how long the sections are.
#[inline(always)]
pub const fn first_word(code: u16, host: bool, sections: usize) -> u64 {
    code as u64 | (host as u64) << 16 | (sections as u64) << 32
}

/// Hashes a record as the programs do, `sections` being what follows the fixed part; nothing if they would not.
pub fn own_hash<R: OwnRecord>(
    record: &R,
    sections: &[u8],
    code: u16,
    host: bool,
    own: u8,
    key: [u64; 2],
) -> Option<u64> {
    if own & OwnFacts::HASHED == 0 || sections.len() > OWN_SECTIONS_MAX {
        return None;
    }
    let mut hash = SipHash::new(key);
    hash.word(first_word(code, host && own & OwnFacts::HOST != 0, sections.len()));
    record.hash(own, &mut hash);
    for chunk in sections.chunks(8) {
        let mut bytes = [0; 8];
        bytes[..chunk.len()].copy_from_slice(chunk);
        hash.word(u64::from_ne_bytes(bytes));
    }
    Some(hash.finish())
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::hash::{DefaultHasher, Hasher as _};

    use super::*;

    #[test]
    fn it_is_siphash() {
        // The standard library's, with a key of zeros; it hashes the length as a last word.
        let words = [1, 0x0123_4567_89ab_cdef, u64::MAX];
        let mut expect = DefaultHasher::new();
        let mut hash = SipHash::new([0; 2]);
        for word in words {
            expect.write(&word.to_le_bytes());
            hash.word(word);
        }
        hash.word(24 << 56);
        assert_eq!(hash.finish(), expect.finish());
    }

    #[test]
    fn the_key_and_every_part_count() {
        let record = OpenRecord { name_length: 3, ..OpenRecord::default() };
        let hashed = OwnFacts::HASHED;
        let of = |record: &OpenRecord, sections: &[u8], code, host, own, key| {
            own_hash(record, sections, code, host, own, key)
        };
        let base = of(&record, b"/ab", 7, false, hashed, [1, 2]);
        assert!(base.is_some());
        assert_ne!(of(&record, b"/ab", 7, false, hashed, [1, 3]), base);
        assert_ne!(of(&record, b"/ab", 7, false, hashed, [3, 2]), base);
        assert_ne!(of(&record, b"/ac", 7, false, hashed, [1, 2]), base);
        assert_ne!(of(&record, b"/ab\0", 7, false, hashed, [1, 2]), base);
        assert_ne!(of(&record, b"/ab", 8, false, hashed, [1, 2]), base);
        assert_eq!(of(&record, b"/ab", 7, true, hashed, [1, 2]), base, "where nobody asks for it");
        assert_ne!(of(&record, b"/ab", 7, true, hashed | OwnFacts::HOST, [1, 2]), base);
        assert_eq!(of(&record, &[0; 513], 7, false, hashed, [1, 2]), None);
        assert_eq!(of(&record, b"/ab", 7, false, 0, [1, 2]), None);
    }

    /// Bytes of a record that are hashed, or not.
    type Part = std::ops::Range<usize>;

    macro_rules! part {
        ($record:ty, $($field:tt)+) => {{
            // The size of a field is that of what a pointer to it points to.
            const fn size_of_behind<T>(_: *const T) -> usize {
                size_of::<T>()
            }
            let record = <$record>::default();
            let start = offset_of!($record, $($field)+);
            start..start + size_of_behind(&raw const record.$($field)+)
        }};
    }

    /// Changes each byte of a record, and sees that the hash changes with those of the parts and no other.
    fn counts<R: OwnRecord + Copy>(record: R, own: u8, parts: &[Part]) {
        let hash = |record: &R| own_hash(record, b"name", 9, false, own, [1, 2]);
        for at in 0..size_of::<R>() {
            let mut changed = record;
            // SAFETY: a record holds integers only, without padding.
            let bytes = unsafe { core::slice::from_raw_parts_mut((&raw mut changed).cast::<u8>(), size_of::<R>()) };
            bytes[at] ^= 0x40;
            let is_part = parts.iter().any(|part| part.contains(&at));
            assert_eq!(hash(&changed) != hash(&record), is_part, "byte {at} of {}", core::any::type_name::<R>());
        }
    }

    #[test]
    fn exactly_these_facts_of_an_open_are_hashed() {
        let parts = [
            part!(OpenRecord, flags),
            part!(OpenRecord, mode),
            part!(OpenRecord, bits),
            part!(OpenRecord, name_length),
            part!(OpenRecord, path),
            part!(OpenRecord, directory),
        ];
        let flags = part!(OpenRecord, file.flags);
        let failed = OpenRecord { result: -2, ..OpenRecord::default() };
        counts(failed, OwnFacts::HASHED, &[&parts[..], &[part!(OpenRecord, result)]].concat());
        let opened = OpenRecord { result: 3, bits: OpenFlags::HAS_FILE | 0x40, ..OpenRecord::default() };
        counts(opened, OwnFacts::HASHED, &[&parts[..], &[flags]].concat());
        let hash = |result| own_hash(&OpenRecord { result, ..opened }, b"", 9, false, OwnFacts::HASHED, [1, 2]);
        assert_ne!(hash(-1), hash(3), "that it failed");
        assert_eq!(hash(4), hash(3), "another descriptor");
    }

    #[test]
    fn exactly_these_facts_of_a_connect_are_hashed() {
        let parts = [
            part!(ConnectRecord, result),
            part!(ConnectRecord, socket.family),
            part!(ConnectRecord, socket.sock_type),
            part!(ConnectRecord, socket.protocol),
            part!(ConnectRecord, socket.flags),
            part!(ConnectRecord, socket.remote_length),
            part!(ConnectRecord, socket.local_length),
            part!(ConnectRecord, socket.remote),
        ];
        counts(ConnectRecord::default(), OwnFacts::HASHED, &parts);
    }

    #[test]
    fn exactly_these_facts_of_a_call_are_hashed() {
        let parts = [
            part!(CallRecord, text_lengths),
            part!(CallRecord, socket.family),
            part!(CallRecord, socket.sock_type),
            part!(CallRecord, socket.protocol),
            part!(CallRecord, socket.flags),
            part!(CallRecord, socket.remote_length),
            part!(CallRecord, socket.local_length),
            part!(CallRecord, socket.remote),
            part!(CallRecord, flags),
            part!(CallRecord, data_length),
            part!(CallRecord, paths),
        ];
        let failed = CallRecord { result: -2, ..CallRecord::default() };
        let result = part!(CallRecord, result);
        counts(failed, OwnFacts::HASHED, &[&parts[..], std::slice::from_ref(&result)].concat());
        let of_file = [part!(CallRecord, file.magic), part!(CallRecord, file.mode)];
        let about_file = CallRecord { flags: CallFlags::FILE | 0x40, ..CallRecord::default() };
        counts(about_file, OwnFacts::HASHED, &[&parts[..], &of_file].concat());
        let first = part!(CallRecord, arguments).start;
        for argument in 0..6 {
            let at = first + 8 * argument..first + 8 * argument + 8;
            let all = [&parts[..], &[at]].concat();
            counts(CallRecord::default(), OwnFacts::HASHED | 1 << argument, &all);
        }
    }
}
