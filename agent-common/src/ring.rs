//! Operations of `io_uring` that do what a plain call does: one row per operation, which names its event and where the
//! kernel's own copy of a request has what the call has in its arguments. No code knows a particular operation.

use crate::EventType;

/// Where an argument of the call is in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// Nowhere: a pointer into the caller's memory that the kernel has followed, or no argument of the operation.
    Nowhere,
    /// The descriptor that the request is about, unless that is one of the ring's own.
    Descriptor,
    /// A member of the request's own structure, and its size in bytes.
    Member(&'static str, u8),
}

/// Where the kernel has its copy of a socket address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RingAddress {
    /// The operation has none, or the caller's memory gets it.
    None,
    /// In the request's `struct io_async_msghdr`; its length is a member of the request.
    Plain(&'static str),
    /// In the same, as the name of a message.
    Message,
}

/// A row: an operation and the plain call that it is.
#[derive(Debug, Clone, Copy)]
pub struct RingOperation {
    /// `enum io_uring_op` (`include/uapi/linux/io_uring.h`)
    pub opcode: u8,
    /// The event that is reported.
    pub event: EventType,
    /// The call's arguments, in its order.
    pub arguments: &'static [Word],
    /// Members that are a `struct filename *`, in the order of the event's texts.
    pub names: &'static [&'static str],
    /// The socket address.
    pub address: RingAddress,
    /// The member that says whether a new file goes into a slot of the ring in place of a descriptor.
    pub slot: Option<&'static str>,
}

const fn int(member: &'static str) -> Word {
    Word::Member(member, 4)
}

const fn operation(opcode: u8, event: EventType, arguments: &'static [Word]) -> RingOperation {
    RingOperation { opcode, event, arguments, names: &[], address: RingAddress::None, slot: None }
}

const fn named(
    opcode: u8,
    event: EventType,
    arguments: &'static [Word],
    names: &'static [&'static str],
) -> RingOperation {
    RingOperation { names, ..operation(opcode, event, arguments) }
}

const SEND: &[Word] =
    &[Word::Descriptor, Word::Member("io_sr_msg.buf", 8), int("io_sr_msg.len"), int("io_sr_msg.msg_flags")];
const MESSAGE: &[Word] = &[Word::Descriptor, Word::Member("io_sr_msg.umsg", 8), int("io_sr_msg.msg_flags")];

const fn message(opcode: u8, event: EventType, arguments: &'static [Word]) -> RingOperation {
    RingOperation { address: RingAddress::Message, ..operation(opcode, event, arguments) }
}

/// Every row.
pub const RING_OPERATIONS: &[RingOperation] = {
    use Word::{Descriptor, Nowhere};
    &[
        message(9, EventType::Sendmsg, MESSAGE),
        operation(10, EventType::Recvmsg, MESSAGE),
        RingOperation {
            slot: Some("io_accept.file_slot"),
            ..operation(13, EventType::Accept, &[Descriptor, Nowhere, Nowhere, int("io_accept.flags")])
        },
        message(26, EventType::Sendto, SEND),
        operation(27, EventType::Recvfrom, SEND),
        named(
            35,
            EventType::Renameat,
            &[int("io_rename.old_dfd"), Nowhere, int("io_rename.new_dfd"), Nowhere, int("io_rename.flags")],
            &["io_rename.oldpath", "io_rename.newpath"],
        ),
        named(
            36,
            EventType::Unlinkat,
            &[int("io_unlink.dfd"), Nowhere, int("io_unlink.flags")],
            &["io_unlink.filename"],
        ),
        named(
            37,
            EventType::Mkdirat,
            &[int("io_mkdir.dfd"), Nowhere, Word::Member("io_mkdir.mode", 2)],
            &["io_mkdir.filename"],
        ),
        named(
            38,
            EventType::Symlinkat,
            &[Nowhere, int("io_link.new_dfd"), Nowhere],
            &["io_link.oldpath", "io_link.newpath"],
        ),
        named(
            39,
            EventType::Linkat,
            &[int("io_link.old_dfd"), Nowhere, int("io_link.new_dfd"), Nowhere, int("io_link.flags")],
            &["io_link.oldpath", "io_link.newpath"],
        ),
        operation(41, EventType::Fsetxattr, &[Descriptor]),
        operation(42, EventType::Setxattr, &[]),
        RingOperation {
            slot: Some("io_socket.file_slot"),
            ..operation(
                45,
                EventType::Socket,
                &[int("io_socket.domain"), int("io_socket.type"), int("io_socket.protocol")],
            )
        },
        message(47, EventType::Sendto, SEND),
        message(48, EventType::Sendmsg, MESSAGE),
        operation(55, EventType::Ftruncate, &[Descriptor, Word::Member("io_ftrunc.len", 8)]),
        RingOperation {
            address: RingAddress::Plain("io_bind.addr_len"),
            ..operation(56, EventType::Bind, &[Descriptor, Nowhere, int("io_bind.addr_len")])
        },
        operation(57, EventType::Listen, &[Descriptor, int("io_listen.backlog")]),
    ]
};

impl EventType {
    /// Whether an operation of a ring does the same.
    pub fn is_ring_operation(self) -> bool {
        RING_OPERATIONS.iter().any(|row| row.event == self)
    }
}

/// What the programs read of a request; offsets are from the request's own structure, where 0 is nothing.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RingReads {
    /// The event's code; 0 for an operation of no row.
    pub event: u8,
    /// [`RingReads::PLAIN`] or [`RingReads::MESSAGE`]
    pub address: u8,
    /// The length of a plain address.
    pub length: u8,
    /// The slot.
    pub slot: u8,
    /// The names.
    pub names: [u8; 2],
    /// The arguments, or [`RingReads::DESCRIPTOR`].
    pub arguments: [u8; 5],
    /// Their sizes.
    pub sizes: [u8; 5],
}

/// Operations by their numbers.
pub const RING_OPCODES: usize = 64;
/// Bytes of a row of the table.
pub const RING_ROW: usize = size_of::<RingReads>();
/// A [`RingReads`] for each number, as the bytes that the loader writes.
pub type RingTable = [[u8; RING_ROW]; RING_OPCODES];

impl RingReads {
    /// An argument that is the request's descriptor.
    pub const DESCRIPTOR: u8 = 0xff;
    /// As [`RingAddress::Plain`]
    pub const PLAIN: u8 = 1;
    /// As [`RingAddress::Message`]
    pub const MESSAGE: u8 = 2;

    /// What a row asks for, where the running kernel has all of it. `offset` knows the kernel's members.
    pub fn of(row: &RingOperation, offset: &dyn Fn(&str) -> Option<u8>) -> Option<Self> {
        let mut reads = Self { event: row.event as u8, ..Self::default() };
        for (nth, word) in row.arguments.iter().enumerate() {
            (reads.arguments[nth], reads.sizes[nth]) = match word {
                Word::Nowhere => (0, 0),
                Word::Descriptor => (Self::DESCRIPTOR, 0),
                Word::Member(member, size) => (offset(member)?, *size),
            };
        }
        for (to, member) in reads.names.iter_mut().zip(row.names) {
            *to = offset(member)?;
        }
        (reads.address, reads.length) = match row.address {
            RingAddress::None => (0, 0),
            RingAddress::Plain(member) => (Self::PLAIN, offset(member)?),
            RingAddress::Message => (Self::MESSAGE, 0),
        };
        if let Some(member) = row.slot {
            reads.slot = offset(member)?;
        }
        Some(reads)
    }

    /// The bytes of the programs' own view.
    pub const fn bytes(self) -> [u8; RING_ROW] {
        let [first, second] = self.names;
        let [a0, a1, a2, a3, a4] = self.arguments;
        let [s0, s1, s2, s3, s4] = self.sizes;
        let Self { event, address, length, slot, names: _, arguments: _, sizes: _ } = self;
        [event, address, length, slot, first, second, a0, a1, a2, a3, a4, s0, s1, s2, s3, s4]
    }
}

const _: () = assert!(RING_ROW == 16);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EventGroup, Reads};

    #[test]
    fn a_row_has_what_its_call_reads() {
        let mut seen = [false; RING_OPCODES];
        for row in RING_OPERATIONS {
            assert!(!core::mem::replace(&mut seen[usize::from(row.opcode)], true), "{row:?} is there twice");
            assert_eq!(row.event.group(), EventGroup::Call, "{row:?}");
            let reads = Reads::of(row.event.parameters());
            assert_eq!(reads.texts.iter().filter(|text| **text != 0).count(), row.names.len(), "{row:?}");
            assert_eq!(reads.descriptor == Reads::RESULT, row.slot.is_some(), "{row:?}");
            for argument in reads.directories.into_iter().filter(|argument| (1..=6).contains(argument)) {
                assert!(matches!(row.arguments[usize::from(argument) - 1], Word::Member(_, 4)), "{row:?}");
            }
        }
    }

    #[test]
    fn an_operation_that_the_kernel_does_not_know_is_left_out() {
        let rename = RING_OPERATIONS.iter().find(|row| row.opcode == 35).expect("a row");
        let reads = RingReads::of(rename, &|member| Some(member.len() as u8)).expect("all members");
        assert_eq!(reads.bytes()[..6], [EventType::Renameat as u8, 0, 0, 0, 17, 17]);
        assert_eq!(reads.bytes()[6..], [17, 0, 17, 0, 15, 4, 0, 4, 0, 4]);
        assert_eq!(RingReads::of(rename, &|member| (member != "io_rename.newpath").then_some(8)), None);
    }
}
