//! What is known of a plain system call: where each parameter of its event comes from, and so what the program at
//! its exit has to read beside the registers.

use crate::EventType;

/// Where a parameter of a plain call is. Numbers are those of arguments, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parameter {
    /// The call's result.
    Result,
    /// The result, a new descriptor, whose object is the event's.
    New,
    /// An argument, as a number.
    Value(u8),
    /// A descriptor, whose object is the event's.
    Descriptor(u8),
    /// A descriptor that a name starts from.
    Directory(u8),
    /// A path in the caller's memory; a relative one starts at the working directory.
    Path(u8),
    /// A path in the caller's memory, and the argument with the directory that a relative one starts from.
    PathAt(u8, u8),
    /// A text in the caller's memory that is no path.
    Text(u8),
    /// A socket address in the caller's memory, its length in the argument behind it.
    Address(u8),
    /// Both ends of the event's socket.
    Tuple,
    /// The same; the far end of one that is not connected is an address in the caller's memory, its length behind it.
    TupleTo(u8),
    /// The same, where a pointer to the length is behind it.
    TupleFrom(u8),
    /// The same, in a `struct user_msghdr`; of several messages the first.
    TupleMessage(u8),
    /// A buffer of as many bytes as the result says.
    Data(u8),
    /// The first buffer of a `struct user_msghdr`.
    MessageData(u8),
    /// Texts, by a list of pointers in the caller's memory that a null ends.
    Texts(u8),
    /// A capability set of the task after the call.
    Inheritable,
    /// A capability set of the task after the call.
    Permitted,
    /// A capability set of the task after the call.
    Effective,
    /// Known to rules, and not reported.
    Unknown,
}

/// What the program at a plain call's exit reads; arguments are counted from 1, 0 is nothing.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reads {
    /// Texts in the caller's memory.
    pub texts: [u8; 3],
    /// Where the first two texts start if they are relative paths: an argument, or one of the constants.
    pub directories: [u8; 2],
    /// The event's descriptor: an argument or [`Reads::RESULT`].
    pub descriptor: u8,
    /// A socket address.
    pub address: u8,
    /// A `struct user_msghdr`.
    pub message: u8,
    /// A buffer, or the message that has it.
    pub data: u8,
    /// The address's length is behind a pointer.
    pub length_by_pointer: u8,
    /// The address is the socket's own: the socket itself has it, unless the call failed.
    pub binds: u8,
    /// A list of texts.
    pub list: u8,
}

/// A row for every code.
pub type ReadsTable = [Reads; 256];

impl Reads {
    /// Nothing.
    pub const NOTHING: Self = Self {
        texts: [0; 3],
        directories: [0; 2],
        descriptor: 0,
        address: 0,
        message: 0,
        data: 0,
        length_by_pointer: 0,
        binds: 0,
        list: 0,
    };
    /// In [`Reads::descriptor`]: the call's result.
    pub const RESULT: u8 = 0xff;
    /// In [`Reads::directories`]: the text is no path.
    pub const NOWHERE: u8 = 0;
    /// In [`Reads::directories`]: the working directory.
    pub const WORKING_DIRECTORY: u8 = 0xff;

    /// What a call's parameters ask for.
    pub const fn of(parameters: &[Parameter]) -> Self {
        let mut reads = Self::NOTHING;
        let (mut nth, mut texts) = (0, 0);
        while nth < parameters.len() {
            let text = match parameters[nth] {
                Parameter::Path(argument) => Some((argument, Self::WORKING_DIRECTORY)),
                Parameter::PathAt(argument, directory) => Some((argument, directory + 1)),
                Parameter::Text(argument) => Some((argument, Self::NOWHERE)),
                _ => None,
            };
            if let Some((argument, directory)) = text {
                reads.texts[texts] = argument + 1;
                if directory != Self::NOWHERE {
                    reads.directories[texts] = directory;
                }
                texts += 1;
            }
            match parameters[nth] {
                Parameter::New => reads.descriptor = Self::RESULT,
                Parameter::Descriptor(argument) => reads.descriptor = argument + 1,
                Parameter::Address(argument) => {
                    reads.address = argument + 1;
                    reads.binds = 1;
                }
                Parameter::TupleTo(argument) => reads.address = argument + 1,
                Parameter::TupleFrom(argument) => {
                    reads.address = argument + 1;
                    reads.length_by_pointer = 1;
                }
                Parameter::TupleMessage(argument) => reads.message = argument + 1,
                Parameter::MessageData(argument) => {
                    reads.message = argument + 1;
                    reads.data = argument + 1;
                }
                Parameter::Data(argument) => reads.data = argument + 1,
                Parameter::Texts(argument) => reads.list = argument + 1,
                _ => {}
            }
            nth += 1;
        }
        reads
    }

    /// What every event asks for, by its code.
    pub const fn table() -> ReadsTable {
        let mut table = [Self::NOTHING; 256];
        let mut row = 0;
        while row < EventType::ALL.len() {
            let event = EventType::ALL[row];
            table[event.code() as usize] = Self::of(event.parameters());
            row += 1;
        }
        table
    }
}

const _: () = assert!(size_of::<Reads>() == 12);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_say_what_is_read() {
        let reads = Reads::of(EventType::Renameat2.parameters());
        assert_eq!((reads.texts, reads.directories), ([2, 4, 0], [1, 3]));
        let reads = Reads::of(EventType::Mount.parameters());
        assert_eq!((reads.texts, reads.directories), ([1, 2, 3], [Reads::NOWHERE, Reads::WORKING_DIRECTORY]));
        assert_eq!(Reads::of(EventType::Dup2.parameters()).descriptor, Reads::RESULT);
        let reads = Reads::of(EventType::Sendto.parameters());
        assert_eq!((reads.descriptor, reads.address, reads.data), (1, 5, 2));
        assert_eq!(Reads::of(EventType::Truncate.parameters()), Reads::NOTHING);
    }

    #[test]
    fn no_call_asks_for_more_than_six_arguments() {
        for event in EventType::ALL {
            let reads = Reads::of(event.parameters());
            for argument in reads.texts.into_iter().chain([reads.address, reads.message, reads.data]) {
                assert!(argument <= 6, "{event:?}");
            }
            for argument in reads.directories.into_iter().chain([reads.descriptor]) {
                assert!(argument <= 6 || argument == 0xff, "{event:?}");
            }
        }
    }
}
