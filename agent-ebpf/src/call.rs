//! Plain calls at their exit: registers, the object behind the event's descriptor, and texts and addresses from the
//! caller's memory, as the event's row in the table asks for. No code here knows a particular call.

use agent_common::{
    CallFlags, CallRecord, FillLimit, KernelPolicy, Loss, PathRecord, PolicyFlags, Reads, fact, limits,
};
use aya_ebpf::helpers::generated::{bpf_probe_read_kernel_str, bpf_probe_read_user, bpf_probe_read_user_str};

use crate::{
    file,
    maps::{self, CALL_ROOM, Pending},
    object::{Object, Raw, Typed, around, typed_loads},
    open,
    output::{self, Sections, Urgency, lost},
    path::{self, Place},
    reject,
    socket::{self, Asked},
    syscall::Call,
    task,
};

/// `enum sock_type` (`include/linux/net.h`); a stream has but one far end, whatever a message says.
const SOCK_STREAM: u16 = 1;

/// At the exit of the call of an event code. The arguments are in registers, or `packed` of them in memory.
#[inline(always)]
pub unsafe fn on_exit(code: u16, call: Call, packed: u16, result: i64, current: Typed) {
    let Some(policy) = output::policy() else { return };
    if !policy.events.contains_code(code) || (result < 0 && !policy.failed.contains_code(code)) {
        return;
    }
    // SAFETY: reads the current task's call, files and memory.
    unsafe {
        if (policy.not_host.contains_code(code) && task::is_hosts()) || task::is_agent(current) {
            return;
        }
        let reads = &*(&raw const maps::READS).cast::<Reads>().add(usize::from(code & 0xff));
        // An exec that succeeded is told of by the scheduler.
        if reads.list != 0 && result >= 0 {
            return;
        }
        let Some(scratch) = output::take(&maps::CALL, code, FillLimit::CALLS) else { return };
        let sections = Sections::new(scratch);
        let record = &mut scratch.record;
        set(&raw mut record.flags, if call.compat { CallFlags::COMPAT } else { 0 });
        record.result = result;
        arguments(record, call);
        if packed != 0 {
            unpack(record, call, packed);
        }
        names(record, reads);
        if policy.flags & PolicyFlags::PLAIN_MESSAGES == 0
            && is_message(reads)
            && argument(record, ADDRESS as u8 + 1) == 0
        {
            scratch.busy = 0;
            return;
        }
        text::<0>(record, sections, reads);
        text::<1>(record, sections, reads);
        text::<2>(record, sections, reads);
        data(record, sections, reads, policy);
        list(record, sections, reads);
        if typed_loads() {
            fill::<Typed>(record, sections, reads, current);
        } else {
            fill::<Raw>(record, sections, reads, current);
        }
        let Some(mark) = reject::mark::<_, _, CALL_ROOM>(scratch, code, policy) else {
            scratch.busy = 0;
            return;
        };
        let record = &mut scratch.record;
        output::begin_code(&mut record.header, code, policy);
        mark.put(&mut record.header);
        task::fill(&mut record.task, current);
        output::send::<_, _, CALL_ROOM>(scratch, Urgency::Soon);
    }
}

/// What an operation of a ring asked for, in place of registers and of the caller's memory.
pub struct Kept {
    /// Words and the first name, or the address.
    pub pending: *mut Pending,
    /// Where the second name is kept.
    pub second: u64,
    pub result: i64,
}

/// At the end of an operation of a ring that is the plain call of an event code. `file` finds the file that the operation
/// is about, or that it made.
#[inline(always)]
pub unsafe fn on_ring<K: Object>(
    code: u16,
    kept: Kept,
    policy: &KernelPolicy,
    current: Typed,
    file: impl FnOnce(&Pending) -> *const u8,
) {
    // SAFETY: reads the current task's call, files and memory, and what was kept.
    unsafe {
        let reads = &*(&raw const maps::READS).cast::<Reads>().add(usize::from(code & 0xff));
        let Some(scratch) = output::take(&maps::IO_URING_CALL, code, FillLimit::CALLS) else { return };
        let sections = Sections::new(scratch);
        let record = &mut scratch.record;
        set(&raw mut record.flags, CallFlags::IO_URING);
        record.result = kept.result;
        let pending = kept.pending;
        clear(record);
        put::<0>(record, (*pending).arguments[0]);
        put::<1>(record, (*pending).arguments[1]);
        put::<2>(record, (*pending).arguments[2]);
        put::<3>(record, (*pending).arguments[3]);
        put::<4>(record, (*pending).arguments[4]);
        put::<5>(record, 0);
        names(record, reads);
        // A received message's address is only in the caller's memory.
        if reads.texts[0] == 0 {
            let asked = argument(record, ADDRESS as u8 + 1);
            if (*pending).length == 0 && asked != 0 {
                let mut length = output::opaque(argument(record, LENGTH as u8 + 1) as usize);
                if length > SOCKADDR_SIZE {
                    length = SOCKADDR_SIZE;
                }
                let to = (&raw mut (*pending).bytes).cast();
                if bpf_probe_read_user(to, length as u32, asked as *const _) == 0 {
                    (*pending).length = length as u64;
                }
            }
            let length = (*pending).length;
            put::<ADDRESS>(record, if length == 0 { 0 } else { (&raw const (*pending).bytes) as u64 });
            put::<LENGTH>(record, length);
        }
        if policy.flags & PolicyFlags::PLAIN_MESSAGES == 0
            && is_message(reads)
            && argument(record, ADDRESS as u8 + 1) == 0
        {
            scratch.busy = 0;
            return;
        }
        output::begin_code(&mut record.header, code, policy);
        task::fill(&mut record.task, current);
        set(&raw mut record.text_lengths[0], 0);
        set(&raw mut record.text_lengths[1], 0);
        set(&raw mut record.text_lengths[2], 0);
        if reads.texts[0] != 0 {
            copy::<0, false>(record, sections, reads, (&raw const (*pending).bytes) as u64);
        }
        if reads.texts[1] != 0
            && let Some(second) = maps::PENDING.get_ptr(kept.second)
        {
            copy::<1, false>(record, sections, reads, (&raw const (*second).bytes) as u64);
        }
        data(record, sections, reads, policy);
        directories::<K>(record, sections, reads, current);
        (&raw mut record.fd).write_volatile(-1);
        // VERIFIER: by way of memory, so that the ways to find it are forgotten.
        put::<{ PLACES + 4 }>(record, if reads.descriptor == 0 { 0 } else { file(&*pending) as u64 });
        let file = argument(record, PLACES as u8 + 5) as *const u8;
        put::<{ PLACES + 4 }>(record, 0);
        objects::<K, false>(record, sections, reads, K::at::<{ fact::ID_FILE }>(file), current);
        output::send::<_, _, CALL_ROOM>(scratch, Urgency::Soon);
    }
}

/// `sizeof(struct __kernel_sockaddr_storage)`
const SOCKADDR_SIZE: usize = 128;

#[inline(always)]
unsafe fn arguments(record: &mut CallRecord, call: Call) {
    // SAFETY: reads saved registers.
    unsafe {
        put::<0>(record, call.argument0());
        put::<1>(record, call.argument1());
        put::<2>(record, call.argument2());
        put::<3>(record, call.argument3());
        put::<4>(record, call.argument4());
        put::<5>(record, call.argument5());
        clear(record);
    }
}

/// Forgets what an earlier call left behind the arguments.
#[inline(always)]
unsafe fn clear(record: &mut CallRecord) {
    // SAFETY: fields of a record in a map.
    unsafe {
        put::<ADDRESS>(record, 0);
        put::<LENGTH>(record, 0);
        put::<BUFFER>(record, 0);
        put::<BUFFER_LENGTH>(record, 0);
        put::<PLACES>(record, 0);
        put::<{ PLACES + 2 }>(record, 0);
        put::<{ PLACES + 4 }>(record, 0);
    }
}

/// Replaces the arguments of `socketcall` by those of the call that it makes.
#[inline(always)]
unsafe fn unpack(record: &mut CallRecord, call: Call, packed: u16) {
    let mut words = [0u32; 6];
    let length = output::opaque(packed as usize * 4);
    let length = if length > size_of_val(&words) { size_of_val(&words) } else { length };
    // SAFETY: the helper checks the address, and the length is that of the words at most.
    unsafe {
        if bpf_probe_read_user((&raw mut words).cast(), length as u32, call.argument1() as *const _) != 0 {
            lost(Loss::AddressUnreadable);
        }
        put::<0>(record, u64::from(words[0]));
        put::<1>(record, u64::from(words[1]));
        put::<2>(record, u64::from(words[2]));
        put::<3>(record, u64::from(words[3]));
        put::<4>(record, u64::from(words[4]));
        put::<5>(record, u64::from(words[5]));
    }
}

/// Where behind the arguments an address that the caller names is kept, and its length; so a buffer.
const ADDRESS: usize = 6;
const LENGTH: usize = 7;
const BUFFER: usize = 8;
const BUFFER_LENGTH: usize = 9;
/// Dentry and mount of each of [`CallRecord::paths`].
const PLACES: usize = 10;

#[inline(always)]
unsafe fn put<const INDEX: usize>(record: &mut CallRecord, value: u64) {
    // SAFETY: a field of a record in a map.
    unsafe { (&raw mut record.arguments[INDEX]).write_volatile(value) };
}

/// An argument, counted from 1.
#[inline(always)]
unsafe fn argument(record: &CallRecord, number: u8) -> u64 {
    let index = output::opaque(usize::from(number.wrapping_sub(1))) & 15;
    // SAFETY: the index is within the array.
    unsafe { (&raw const record.arguments).cast::<u64>().add(index).read_volatile() }
}

#[inline(always)]
unsafe fn has(record: &CallRecord, flag: u32) -> bool {
    // SAFETY: a field of a record in a map.
    unsafe { (&raw const record.flags).read_volatile() & flag != 0 }
}

/// Fills in what kernel objects say: directories of relative paths, the event's file or socket.
///
/// VERIFIER: each step leaves what it found in the record and the next reads it from there, so that the ways through one
/// step do not multiply with those through the next.
#[inline(always)]
unsafe fn fill<K: Object>(record: &mut CallRecord, sections: Sections, reads: &Reads, current: Typed) {
    // SAFETY: reads the current task's files.
    unsafe {
        directories::<K>(record, sections, reads, current);
        let file = descriptor::<K>(record, reads, current);
        objects::<K, true>(record, sections, reads, file, current);
    }
}

#[inline(always)]
unsafe fn directories<K: Object>(record: &mut CallRecord, sections: Sections, reads: &Reads, current: Typed) {
    // SAFETY: reads the current task's files.
    unsafe {
        sections.set_landmark(0, 0);
        directory::<K, 0>(record, sections, reads, current);
        directory::<K, 1>(record, sections, reads, current);
    }
}

/// `USER`: the address that was asked for is in the caller's memory.
#[inline(always)]
unsafe fn objects<K: Object, const USER: bool>(
    record: &mut CallRecord,
    sections: Sections,
    reads: &Reads,
    file: K,
    current: Typed,
) {
    // SAFETY: reads an open file.
    unsafe {
        if !file.is_null() {
            flag(record, CallFlags::FILE);
            if socket::is_socket(file) {
                flag(record, CallFlags::SOCKET);
            } else {
                let dentry = file.u64::<{ fact::FILE_PATH_DENTRY }>();
                let mount = file.u64::<{ fact::FILE_PATH_MNT }>();
                put::<{ PLACES + 4 }>(record, dentry);
                put::<{ PLACES + 5 }>(record, around::<{ fact::MOUNT_MNT }>(mount));
            }
        }
        if has(record, CallFlags::FILE) {
            file::fill(&mut record.file, file.object::<{ fact::FILE_INODE }>(), current);
        }
        sections.set_landmark(0, 0);
        paths::<K>(record, sections);
        if has(record, CallFlags::SOCKET) && reads.binds == 0 && socket::kind(file) == SOCK_STREAM {
            put::<ADDRESS>(record, 0);
        }
        let asked = Asked {
            address: argument(record, ADDRESS as u8 + 1) as *const u8,
            length: argument(record, LENGTH as u8 + 1),
            user_memory: USER,
        };
        let by_socket = asked.address.is_null() || asked.length == 0;
        socket::fill::<K, CALL_ROOM>(&mut record.socket, sections, file, asked, by_socket);
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
        if from != 0 {
            copy::<NTH, true>(record, sections, reads, from);
        }
    }
}

/// The same, from anywhere: `USER` says whose memory it is.
#[inline(always)]
unsafe fn copy<const NTH: usize, const USER: bool>(
    record: &mut CallRecord,
    sections: Sections,
    reads: &Reads,
    from: u64,
) {
    let length = &raw mut record.text_lengths[NTH];
    // SAFETY: the helper checks the address; `end` guarantees the room.
    unsafe {
        let to = sections.end::<CALL_ROOM>();
        let written = if USER {
            bpf_probe_read_user_str(to.cast(), limits::PATH_MAX as u32, from as *const _)
        } else {
            bpf_probe_read_kernel_str(to.cast(), limits::PATH_MAX as u32, from as *const _)
        };
        // Up to 6.12 an empty text counts nothing, not even its NUL.
        if written < 0 {
            lost(Loss::NameUnreadable);
            return;
        }
        if NTH < 2 && reads.directories[NTH] != Reads::NOWHERE && to.read_volatile() != b'/' {
            flag(record, CallFlags::DIRECTORY << NTH);
        }
        let bytes = if written > 0 { (written as usize - 1) & (limits::PATH_MAX - 1) } else { 0 };
        sections.add(bytes);
        length.write_volatile(bytes as u32);
    }
}

/// The event's open file; null if it has none.
#[inline(always)]
unsafe fn descriptor<K: Object>(record: &mut CallRecord, reads: &Reads, current: Typed) -> K {
    let fd = &raw mut record.fd;
    // SAFETY: reads the current task's descriptors.
    unsafe {
        match reads.descriptor {
            0 => fd.write_volatile(-1),
            Reads::RESULT => fd.write_volatile((&raw const record.result).read_volatile() as i32),
            number => fd.write_volatile(argument(record, number) as i32),
        }
        let number = fd.read_volatile();
        let file = if number < 0 { core::ptr::null() } else { open::descriptor(current, number as u64) };
        if file.is_null() && number >= 0 && (&raw const record.result).read_volatile() >= 0 {
            lost(Loss::FileGone);
        }
        K::at::<{ fact::ID_FILE }>(file)
    }
}

/// Notes the directory that a relative path starts from.
#[inline(always)]
unsafe fn directory<K: Object, const NTH: usize>(
    record: &mut CallRecord,
    sections: Sections,
    reads: &Reads,
    current: Typed,
) {
    // SAFETY: reads the current task's directories.
    unsafe {
        if !has(record, CallFlags::DIRECTORY << NTH) {
            return;
        }
        let from = &raw mut record.fd;
        match reads.directories[NTH] {
            Reads::WORKING_DIRECTORY => from.write_volatile(open::AT_FDCWD),
            number => from.write_volatile(argument(record, number) as i32),
        }
        sections.set_landmark(0, 0);
        open::start::<K>(sections, current, from.read_volatile());
        let (dentry, mount) = sections.landmark();
        if dentry == 0 && (&raw const record.result).read_volatile() >= 0 {
            lost(Loss::FileGone);
        }
        let place = (&raw mut record.arguments).cast::<u64>().add(PLACES + 2 * NTH);
        place.write_volatile(dentry);
        place.add(1).write_volatile(mount);
    }
}

/// Writes the paths of the places that were noted.
///
/// VERIFIER: one loop, so that there is one walk to verify.
#[inline(always)]
unsafe fn paths<K: Object>(record: &mut CallRecord, sections: Sections) {
    let mut nth = output::opaque(0);
    while nth < 3 {
        // SAFETY: three places and three paths; the places were read from kernel objects.
        unsafe {
            let path = &mut *(&raw mut record.paths).cast::<PathRecord>().add(nth);
            path::clear(path);
            let place = (&raw const record.arguments).cast::<u64>().add(PLACES + 2 * nth);
            let place = (place.read_volatile(), place.add(1).read_volatile());
            if place.0 != 0 {
                path::write::<K, CALL_ROOM, false>(path, sections, Place::at(place), nth == 2);
            }
        }
        nth = output::opaque(nth + 1);
    }
}

/// Notes the address that the caller names, if it is the far end of a message or what a bind asked for that failed, and
/// of a `struct user_msghdr` (`include/linux/socket.h`) also the first buffer.
#[inline(always)]
unsafe fn names(record: &mut CallRecord, reads: &Reads) {
    // SAFETY: the helpers check addresses.
    unsafe {
        if reads.message != 0 {
            message(record, argument(record, reads.message));
            return;
        }
        if reads.address == 0 || (reads.binds != 0 && (&raw const record.result).read_volatile() >= 0) {
            return;
        }
        put::<ADDRESS>(record, argument(record, reads.address));
        let behind = argument(record, reads.address + 1);
        if reads.length_by_pointer == 0 {
            put::<LENGTH>(record, behind & 0xffff_ffff);
            return;
        }
        let mut length = 0u32;
        if behind == 0 {
            return;
        }
        if bpf_probe_read_user((&raw mut length).cast(), 4, behind as *const _) != 0 {
            lost(Loss::AddressUnreadable);
            return;
        }
        put::<LENGTH>(record, u64::from(length));
    }
}

#[inline(always)]
unsafe fn message(record: &mut CallRecord, from: u64) {
    let (mut header, mut buffer) = ([0u64; 4], [0u64; 2]);
    // SAFETY: the helpers check addresses.
    unsafe {
        if has(record, CallFlags::COMPAT) {
            let (mut short, mut short_buffer) = ([0u32; 4], [0u32; 2]);
            if bpf_probe_read_user((&raw mut short).cast(), 16, from as *const _) != 0 {
                lost(Loss::AddressUnreadable);
                return;
            }
            header = [u64::from(short[0]), u64::from(short[1]), u64::from(short[2]), u64::from(short[3])];
            if short[3] != 0 && bpf_probe_read_user((&raw mut short_buffer).cast(), 8, short[2] as *const _) != 0 {
                lost(Loss::DataUnreadable);
            }
            buffer = [u64::from(short_buffer[0]), u64::from(short_buffer[1])];
        } else {
            if bpf_probe_read_user((&raw mut header).cast(), 32, from as *const _) != 0 {
                lost(Loss::AddressUnreadable);
                return;
            }
            if header[3] != 0 && bpf_probe_read_user((&raw mut buffer).cast(), 16, header[2] as *const _) != 0 {
                lost(Loss::DataUnreadable);
            }
        }
        put::<ADDRESS>(record, header[0]);
        put::<LENGTH>(record, header[1] & 0xffff_ffff);
        put::<BUFFER>(record, buffer[0]);
        put::<BUFFER_LENGTH>(record, buffer[1]);
    }
}

/// A message may name an address; a bind always does.
#[inline(always)]
const fn is_message(reads: &Reads) -> bool {
    reads.message != 0 || (reads.address != 0 && reads.binds == 0)
}

/// What was sent or received.
#[inline(always)]
unsafe fn data(record: &mut CallRecord, sections: Sections, reads: &Reads, policy: &KernelPolicy) {
    set(&raw mut record.data_length, 0);
    // SAFETY: the helper checks the address; `end` guarantees the room.
    unsafe {
        let result = (&raw const record.result).read_volatile();
        if policy.flags & PolicyFlags::DATA == 0 || result <= 0 || reads.data == 0 {
            return;
        }
        let length = if reads.message != 0 {
            core::cmp::min(argument(record, BUFFER_LENGTH as u8 + 1), result as u64)
        } else {
            put::<BUFFER>(record, argument(record, reads.data));
            result as u64
        };
        let mut length = output::opaque(length as usize);
        if length > limits::DATA_MAX {
            length = limits::DATA_MAX;
        }
        let from = argument(record, BUFFER as u8 + 1);
        if length == 0 {
            return;
        }
        if bpf_probe_read_user(sections.end::<CALL_ROOM>().cast(), length as u32, from as *const _) != 0 {
            lost(Loss::DataUnreadable);
            return;
        }
        sections.add(length);
        set(&raw mut record.data_length, length as u32);
    }
}

/// Copies a list of texts, each with its NUL, as the data.
#[inline(always)]
unsafe fn list(record: &mut CallRecord, sections: Sections, reads: &Reads) {
    if reads.list == 0 {
        return;
    }
    // SAFETY: the helpers check addresses; `end` guarantees the room.
    unsafe {
        // VERIFIER: a number without a branch, and what a round finds goes to memory at once.
        let short = u64::from((&raw const record.flags).read_volatile() & CallFlags::COMPAT) >> 2;
        let size = output::opaque((8 - short) as usize);
        let start = sections.length();
        let next = (&raw mut record.arguments).cast::<u64>().add(BUFFER);
        next.write_volatile(argument(record, reads.list));
        let mut nth = output::opaque(0);
        while nth < limits::LIST_TEXTS {
            let mut pointer = 0u64;
            bpf_probe_read_user((&raw mut pointer).cast(), size as u32, next.read_volatile() as *const _);
            if pointer == 0 {
                next.write_volatile(0);
                break;
            }
            if sections.length() - start > limits::LIST_MAX {
                break;
            }
            let to = sections.end::<CALL_ROOM>();
            to.write_volatile(0);
            let written = bpf_probe_read_user_str(to.cast(), limits::PATH_MAX as u32, pointer as *const _);
            if written < 0 {
                break;
            }
            // Up to 6.12 an empty text counts nothing, and gets no NUL. VERIFIER: no branch for that.
            let last = written - 1;
            sections.add(((last & !(last >> 63)) as usize & (limits::PATH_MAX - 1)) + 1);
            next.write_volatile(next.read_volatile() + size as u64);
            nth = output::opaque(nth + 1);
        }
        set(&raw mut record.data_length, (sections.length() - start) as u32);
        if next.read_volatile() != 0 {
            flag(record, CallFlags::LIST_TRUNCATED);
        }
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
fn set(field: *mut u32, value: u32) {
    // SAFETY: a field of a record in a map.
    unsafe { field.write_volatile(value) };
}
