//! Plain calls at their exit: registers, the object behind the event's descriptor, and texts and addresses from the
//! caller's memory, as the event's row in the table asks for. No code here knows a particular call.

use agent_common::{CallFlags, CallRecord, KernelPolicy, Loss, PolicyFlags, Reads, fact, limits};
use aya_ebpf::helpers::generated::{bpf_probe_read_user, bpf_probe_read_user_str};

use crate::{
    file,
    maps::{self, CALL_ROOM},
    object::{Object, Raw, Typed, typed_loads},
    open,
    output::{self, Sections, Urgency, lost},
    path::{self, Place},
    socket::{self, Asked},
    syscall::Call,
    task,
};

/// `AF_*`: `enum sock_type` of `include/linux/net.h`, a stream has but one far end.
const SOCK_STREAM: u16 = 1;

/// At the exit of the call of an event code.
#[inline(always)]
pub unsafe fn on_exit(code: u16, call: Call, result: i64, current: Typed) {
    let Some(policy) = output::policy() else { return };
    if !policy.events.contains_code(code) || (result < 0 && !policy.failed.contains_code(code)) {
        return;
    }
    // SAFETY: reads the current task's call, files and memory.
    unsafe {
        if policy.not_host.contains_code(code) && task::is_hosts(current) {
            return;
        }
        let reads = &*(&raw const maps::READS).cast::<Reads>().add(usize::from(code & 0xff));
        let Some(scratch) = output::take(&maps::CALL) else { return };
        let sections = Sections::new(scratch);
        let record = &mut scratch.record;
        output::begin_code(&mut record.header, code, policy);
        task::fill(&mut record.task, current);
        record.result = result;
        arguments(record, call);
        if typed_loads() {
            fill::<Typed>(record, sections, reads, policy, call.compat, current);
        } else {
            fill::<Raw>(record, sections, reads, policy, call.compat, current);
        }
        output::send::<_, _, CALL_ROOM>(scratch, Urgency::Soon);
    }
}

#[inline(always)]
unsafe fn arguments(record: &mut CallRecord, call: Call) {
    // SAFETY: reads saved registers.
    unsafe {
        record.arguments[0] = call.argument0();
        record.arguments[1] = call.argument1();
        record.arguments[2] = call.argument2();
        record.arguments[3] = call.argument3();
        record.arguments[4] = call.argument4();
        record.arguments[5] = call.argument5();
        record.arguments[6] = 0;
        record.arguments[7] = 0;
    }
}

/// An argument, counted from 1.
#[inline(always)]
unsafe fn argument(record: &CallRecord, number: u8) -> u64 {
    let index = output::opaque(usize::from(number.wrapping_sub(1))) & 7;
    // SAFETY: the index is within the array.
    unsafe { (&raw const record.arguments).cast::<u64>().add(index).read_volatile() }
}

/// Fills in what the row asks for, in the order of the record's sections.
#[inline(always)]
unsafe fn fill<K: Object>(
    record: &mut CallRecord,
    sections: Sections,
    reads: &Reads,
    policy: &KernelPolicy,
    compat: bool,
    current: Typed,
) {
    // SAFETY: reads the current task's files and memory.
    unsafe {
        set(&raw mut record.flags, 0);
        record.reserved = 0;
        text::<0>(record, sections, reads);
        text::<1>(record, sections, reads);
        text::<2>(record, sections, reads);

        let file = descriptor::<K>(record, reads, current);
        path::clear(&mut record.path);
        let is_socket = socket::is_socket(file);
        if !file.is_null() {
            flag(record, CallFlags::FILE);
            file::fill(&mut record.file, file.object::<{ fact::FILE_INODE }>(), current);
            if !is_socket {
                let place =
                    Place::new(file.object::<{ fact::FILE_PATH_DENTRY }>(), file.object::<{ fact::FILE_PATH_MNT }>());
                path::write::<K, CALL_ROOM>(&mut record.path, sections, place, true);
            }
        }
        directory::<K, 0>(record, sections, reads, current);
        directory::<K, 1>(record, sections, reads, current);

        let mut message = [0u64; 4];
        if reads.message != 0 && !read_message(record, reads, compat, &mut message) {
            lost(Loss::AddressUnreadable);
        }
        let asked = asked(record, reads, &message, is_socket && socket::kind(file) == SOCK_STREAM);
        if is_socket {
            flag(record, CallFlags::SOCKET);
        }
        let by_socket = asked.length == 0 || asked.address.is_null();
        socket::fill::<K, CALL_ROOM>(&mut record.socket, sections, file, asked, by_socket);
        data(record, sections, reads, policy, &message);
    }
}

/// Copies a text from the caller's memory, and notes whether it is a relative path.
#[inline(always)]
unsafe fn text<const NTH: usize>(record: &mut CallRecord, sections: Sections, reads: &Reads) {
    let length = &raw mut record.text_lengths[NTH];
    // SAFETY: the helper checks the address; `end` guarantees the room.
    unsafe {
        length.write_volatile(0);
        if reads.texts[NTH] == 0 {
            return;
        }
        let from = argument(record, reads.texts[NTH]);
        if from == 0 {
            return;
        }
        let to = sections.end::<CALL_ROOM>();
        let written = bpf_probe_read_user_str(to.cast(), limits::PATH_MAX as u32, from as *const _);
        if written <= 0 {
            lost(Loss::NameUnreadable);
            return;
        }
        if NTH < 2 && reads.directories[NTH] != Reads::NOWHERE && to.read_volatile() != b'/' {
            flag(record, CallFlags::DIRECTORY << NTH);
        }
        let bytes = (written as usize - 1) & (limits::PATH_MAX - 1);
        sections.add(bytes);
        length.write_volatile(bytes as u32);
    }
}

/// The event's open file; null if it has none.
#[inline(always)]
unsafe fn descriptor<K: Object>(record: &CallRecord, reads: &Reads, current: Typed) -> K {
    // SAFETY: reads the current task's descriptors.
    unsafe {
        let fd = match reads.descriptor {
            0 => -1,
            Reads::RESULT => (&raw const record.result).read_volatile() as i32,
            number => argument(record, number) as i32,
        };
        let file = if fd < 0 { core::ptr::null() } else { open::descriptor(current, fd as u64) };
        K::at::<{ fact::ID_FILE }>(file)
    }
}

/// Writes the path of the directory that a relative path starts from.
#[inline(always)]
unsafe fn directory<K: Object, const NTH: usize>(
    record: &mut CallRecord,
    sections: Sections,
    reads: &Reads,
    current: Typed,
) {
    // SAFETY: reads the current task's directories.
    unsafe {
        path::clear(&mut record.directories[NTH]);
        if (&raw const record.flags).read_volatile() & (CallFlags::DIRECTORY << NTH) == 0 {
            return;
        }
        let from = match reads.directories[NTH] {
            Reads::WORKING_DIRECTORY => open::AT_FDCWD,
            number => argument(record, number) as i32,
        };
        sections.set_landmark(0, 0);
        open::start::<K>(sections, current, from);
        let place = sections.landmark();
        if place.0 == 0 {
            return;
        }
        path::write::<K, CALL_ROOM>(&mut record.directories[NTH], sections, Place::at(place), false);
    }
}

/// The members of a `struct user_msghdr` (`include/linux/socket.h`) that matter: address, its length, and the first
/// buffer and its length. False if they cannot be read.
#[inline(always)]
unsafe fn read_message(record: &CallRecord, reads: &Reads, compat: bool, message: &mut [u64; 4]) -> bool {
    // SAFETY: the helpers check addresses.
    unsafe {
        let from = argument(record, reads.message);
        if compat {
            let (mut header, mut buffer) = ([0u32; 4], [0u32; 2]);
            if bpf_probe_read_user((&raw mut header).cast(), 16, from as *const _) != 0 {
                return false;
            }
            message[0] = u64::from(header[0]);
            message[1] = u64::from(header[1]);
            if header[3] != 0 && bpf_probe_read_user((&raw mut buffer).cast(), 8, header[2] as *const _) == 0 {
                message[2] = u64::from(buffer[0]);
                message[3] = u64::from(buffer[1]);
            }
            return true;
        }
        let (mut header, mut buffer) = ([0u64; 4], [0u64; 2]);
        if bpf_probe_read_user((&raw mut header).cast(), 32, from as *const _) != 0 {
            return false;
        }
        message[0] = header[0];
        message[1] = header[1] & 0xffff_ffff;
        if header[3] != 0 && bpf_probe_read_user((&raw mut buffer).cast(), 16, header[2] as *const _) == 0 {
            message[2] = buffer[0];
            message[3] = buffer[1];
        }
        true
    }
}

/// The address that the caller names, if it is the far end of a message (a stream has but one, whatever the caller
/// says), or what a bind asked for that failed. Else its length is 0.
#[inline(always)]
unsafe fn asked(record: &CallRecord, reads: &Reads, message: &[u64; 4], is_stream: bool) -> Asked {
    let nothing = Asked { address: core::ptr::null(), length: 0, user_memory: true };
    // SAFETY: the helper checks the address.
    unsafe {
        if reads.binds != 0 {
            if (&raw const record.result).read_volatile() >= 0 {
                return nothing;
            }
        } else if is_stream {
            return nothing;
        }
        if reads.message != 0 {
            return Asked { address: message[0] as *const u8, length: message[1], user_memory: true };
        }
        if reads.address == 0 {
            return nothing;
        }
        let behind = argument(record, reads.address + 1);
        let mut length = behind & 0xffff_ffff;
        if reads.length_by_pointer != 0 {
            let mut pointed = 0u32;
            if behind == 0 || bpf_probe_read_user((&raw mut pointed).cast(), 4, behind as *const _) != 0 {
                return nothing;
            }
            length = u64::from(pointed);
        }
        Asked { address: argument(record, reads.address) as *const u8, length, user_memory: true }
    }
}

/// What was sent or received.
#[inline(always)]
unsafe fn data(record: &mut CallRecord, sections: Sections, reads: &Reads, policy: &KernelPolicy, message: &[u64; 4]) {
    record.data_length = 0;
    // SAFETY: the helper checks the address; `end` guarantees the room.
    unsafe {
        let result = (&raw const record.result).read_volatile();
        if policy.flags & PolicyFlags::DATA == 0 || result <= 0 {
            return;
        }
        let mut length = result as u64;
        let from = if reads.message != 0 {
            if message[3] < length {
                length = message[3];
            }
            message[2]
        } else if reads.data != 0 {
            argument(record, reads.data)
        } else {
            return;
        };
        let mut length = output::opaque(length as usize);
        if length > limits::DATA_MAX {
            length = limits::DATA_MAX;
        }
        if length == 0 || bpf_probe_read_user(sections.end::<CALL_ROOM>().cast(), length as u32, from as *const _) != 0
        {
            return;
        }
        sections.add(length);
        record.data_length = length as u32;
    }
}

#[inline(always)]
unsafe fn flag(record: &mut CallRecord, flag: u32) {
    let flags = &raw mut record.flags;
    // SAFETY: a field of a record in a map.
    unsafe { set(flags, flags.read_volatile() | flag) };
}

/// Stores at once, whatever the compiler would like to keep in a register.
#[inline(always)]
unsafe fn set(field: *mut u32, value: u32) {
    // SAFETY: a field of a record in a map.
    unsafe { field.write_volatile(value) };
}
