//! Opens at the system call's exit: the descriptor leads to the open file, so that what is reported is
//! what was opened, whatever the caller's memory says now.

use agent_common::{
    EventType, FillLimit, KernelPolicy, Loss, OpenFlags, OpenRecord, PathFlags, PolicyFlags, fact, limits,
};
use aya_ebpf::helpers::generated::{bpf_probe_read_user, bpf_probe_read_user_str};

use crate::{
    file,
    maps::{self, OPEN_ROOM},
    object::{Object, Raw, Typed, around, pointer_at, typed_loads, typed_tasks},
    output::{self, Sections, Urgency, lost},
    path::{self, Place},
    reject,
    syscall::Call,
    task,
};

/// `include/linux/fs.h`
const FMODE_WRITE: u32 = 2;
const FMODE_READ: u32 = 1;
const FMODE_CREATED: u32 = 0x10_0000;
/// `include/uapi/asm-generic/fcntl.h`, the same on x86 and arm64.
const O_CREAT: u32 = 0o100;
const O_EXCL: u32 = 0o200;
const O_TRUNC: u32 = 0o1000;
const O_CLOEXEC: u32 = 0o2_000_000;
/// Flags that do not stay with the open file.
const AS_ASKED: u32 = O_CREAT | O_EXCL | O_TRUNC | O_CLOEXEC;
pub const AT_FDCWD: i32 = -100;

/// What the caller asked for.
#[derive(Clone, Copy)]
pub struct Request {
    pub dirfd: i32,
    /// Address of the name; 0 = none (a handle).
    pub name: u64,
    pub flags: u32,
    pub mode: u32,
}

/// At the exit of an open of any kind.
#[inline(always)]
pub unsafe fn on_exit(event: EventType, call: Call, result: i64, current: Typed) {
    let Some(policy) = output::wanted(event) else { return };
    if result < 0 && !policy.failed.contains(event) {
        return;
    }
    // SAFETY: reads the current task's call and files.
    unsafe {
        if (policy.not_host.contains(event) && task::is_hosts()) || task::is_agent(current) {
            return;
        }
        let file = if result < 0 { core::ptr::null() } else { descriptor(current, result as u64) };
        with_file(event, call, result, current, policy, file);
    }
}

/// Reports an open that the policy wants of its task. Of a failed call the file is null.
#[inline(always)]
pub unsafe fn with_file(
    event: EventType,
    call: Call,
    result: i64,
    current: Typed,
    policy: &KernelPolicy,
    file: *const u8,
) {
    // SAFETY: reads an open file and the current task.
    unsafe {
        if typed_loads() {
            report::<Typed>(event, call, result, current, policy, Typed::at::<{ fact::ID_FILE }>(file));
        } else {
            report::<Raw>(event, call, result, current, policy, Raw::at::<{ fact::ID_FILE }>(file));
        }
    }
}

#[inline(always)]
unsafe fn report<K: Object>(event: EventType, call: Call, result: i64, current: Typed, policy: &KernelPolicy, file: K) {
    // SAFETY: reads an open file and the current task.
    unsafe {
        if !file.is_null() && !mode_wanted(policy, file.u32::<{ fact::FILE_MODE }>()) {
            return;
        }
        let Some(scratch) = output::take(&maps::OPEN, event.code(), FillLimit::OPENS) else { return };
        let sections = Sections::new(scratch);
        let record = &mut scratch.record;
        let request = request(event, call);
        asked(record, &request);
        record.name_length = user_name(sections, request.name);
        // An absolute name starts at the root, a handle at nothing.
        let relative = record.name_length != 0 && *scratch.sections.as_ptr() != b'/';
        fill::<K, true>(record, sections, result, file, relative, current);
        let Some(mark) = reject::mark::<_, _, OPEN_ROOM>(scratch, event.code(), policy) else {
            scratch.busy = 0;
            return;
        };
        let record = &mut scratch.record;
        output::begin(&mut record.header, event, policy);
        mark.put(&mut record.header);
        task::fill(&mut record.task, current);
        output::send::<_, _, OPEN_ROOM>(scratch, Urgency::Soon);
    }
}

/// Notes what was asked for.
///
/// VERIFIER: it goes to memory at once and is read back from there, so that the rest is verified once and not
/// once for each call of the family.
#[inline(always)]
pub unsafe fn asked(record: &mut OpenRecord, request: &Request) {
    // SAFETY: fields of a record in a map.
    unsafe {
        (&raw mut record.dirfd).write_volatile(request.dirfd);
        (&raw mut record.flags).write_volatile(request.flags);
        (&raw mut record.mode).write_volatile(request.mode);
    }
}

/// Fills in everything behind the name. `SHORT` as in [`path::write`].
#[inline(always)]
pub unsafe fn fill<K: Object, const SHORT: bool>(
    record: &mut OpenRecord,
    sections: Sections,
    result: i64,
    file: K,
    relative: bool,
    current: Typed,
) {
    record.result = result;
    record.bits = 0;
    record.reserved = 0;
    // SAFETY: reads an open file and the current task.
    unsafe {
        path::clear(&mut record.path);
        path::clear(&mut record.directory);
        if relative {
            start::<K>(sections, current, (&raw const record.dirfd).read_volatile());
            if result >= 0 && sections.landmark().0 == 0 {
                lost(Loss::FileGone);
            }
        }
        if !file.is_null() {
            record.bits |= OpenFlags::HAS_FILE;
            let asked = (&raw const record.flags).read_volatile();
            record.flags = file.u32::<{ fact::FILE_FLAGS }>() | asked & AS_ASKED;
            if file.u32::<{ fact::FILE_MODE }>() & FMODE_CREATED != 0 {
                record.bits |= OpenFlags::CREATED;
            }
            file::fill(&mut record.file, file.object::<{ fact::FILE_INODE }>(), current);
            let place =
                Place::new(file.object::<{ fact::FILE_PATH_DENTRY }>(), file.object::<{ fact::FILE_PATH_MNT }>());
            path::write::<K, OPEN_ROOM, SHORT>(&mut record.path, sections, place, true);
        } else if result >= 0 {
            lost(Loss::FileGone);
        }
        let landmark = sections.landmark();
        let flags = (&raw const record.path.flags).read_volatile();
        if landmark.0 != 0 && flags & PathFlags::LANDMARK == 0 {
            record.bits |= OpenFlags::DIRECTORY;
            path::write::<K, OPEN_ROOM, SHORT>(&mut record.directory, sections, Place::at(landmark), false);
        }
    }
}

/// Whether the policy wants an open of this `f_mode`. `O_RDWR` is both, `O_PATH` and such count as reading.
#[inline(always)]
pub fn mode_wanted(policy: &KernelPolicy, mode: u32) -> bool {
    let mut wanted = 0;
    if mode & FMODE_WRITE != 0 {
        wanted |= PolicyFlags::OPEN_WRITE;
    }
    if mode & FMODE_READ != 0 || mode & FMODE_WRITE == 0 {
        wanted |= PolicyFlags::OPEN_READ;
    }
    policy.flags & wanted != 0
}

/// The open file of a descriptor of the current task; null if there is none (any more).
#[inline(always)]
pub unsafe fn descriptor(current: Typed, fd: u64) -> *const u8 {
    // SAFETY: reads the current task.
    unsafe { if typed_tasks() { descriptor_of(current, fd) } else { descriptor_of(current.raw(), fd) } }
}

#[inline(always)]
unsafe fn descriptor_of<T: Object>(current: T, fd: u64) -> *const u8 {
    // SAFETY: the table lives as long as the RCU section that programs run in; its size bounds the index.
    unsafe {
        let table = current.object::<{ fact::TASK_FILES }>().object::<{ fact::FILES_FDT }>();
        if fd >= u64::from(table.u32::<{ fact::FDTABLE_MAX_FDS }>()) {
            return core::ptr::null();
        }
        let files = table.u64::<{ fact::FDTABLE_FD }>() as *const u8;
        pointer_at(files.wrapping_add(fd as usize * 8))
    }
}

/// Sets the landmark to where a relative name starts.
#[inline(always)]
pub unsafe fn start<K: Object>(sections: Sections, current: Typed, dirfd: i32) {
    // SAFETY: reads the current task's file system facts and descriptors.
    unsafe {
        let (dentry, mount) = if dirfd == AT_FDCWD {
            if typed_tasks() { working_directory(current) } else { working_directory(current.raw()) }
        } else {
            if dirfd < 0 {
                return;
            }
            let file = K::at::<{ fact::ID_FILE }>(descriptor(current, dirfd as u64));
            if file.is_null() {
                return;
            }
            (file.u64::<{ fact::FILE_PATH_DENTRY }>(), file.u64::<{ fact::FILE_PATH_MNT }>())
        };
        sections.set_landmark(dentry, around::<{ fact::MOUNT_MNT }>(mount));
    }
}

/// Dentry and `vfsmount` of a task's working directory.
#[inline(always)]
unsafe fn working_directory<T: Object>(task: T) -> (u64, u64) {
    // SAFETY: reads a task's file system facts.
    unsafe {
        let fs = task.object::<{ fact::TASK_FS }>();
        (fs.u64::<{ fact::FS_PWD_DENTRY }>(), fs.u64::<{ fact::FS_PWD_MNT }>())
    }
}

/// The arguments of a call of the open family.
#[inline(always)]
unsafe fn request(event: EventType, call: Call) -> Request {
    // SAFETY: reads saved registers and, for openat2, user memory.
    unsafe {
        match event {
            EventType::Open => Request {
                dirfd: AT_FDCWD,
                name: call.argument0(),
                flags: call.argument1() as u32,
                mode: call.argument2() as u32,
            },
            EventType::Creat => Request {
                dirfd: AT_FDCWD,
                name: call.argument0(),
                flags: O_CREAT | O_TRUNC | 1,
                mode: call.argument1() as u32,
            },
            EventType::Openat => Request {
                dirfd: call.argument0() as i32,
                name: call.argument1(),
                flags: call.argument2() as u32,
                mode: call.argument3() as u32,
            },
            EventType::Openat2 => {
                // struct open_how: u64 flags, u64 mode, u64 resolve (include/uapi/linux/openat2.h)
                let mut how = [0u64; 2];
                if bpf_probe_read_user((&raw mut how).cast(), 16, call.argument2() as *const _) != 0 {
                    lost(Loss::NameUnreadable);
                }
                Request {
                    dirfd: call.argument0() as i32,
                    name: call.argument1(),
                    flags: how[0] as u32,
                    mode: how[1] as u32,
                }
            }
            _ => Request { dirfd: call.argument0() as i32, name: 0, flags: call.argument2() as u32, mode: 0 },
        }
    }
}

/// Copies the name as asked for, without its NUL.
#[inline(always)]
unsafe fn user_name(sections: Sections, address: u64) -> u32 {
    if address == 0 {
        return 0;
    }
    // SAFETY: the helper checks the address; `end` guarantees the room.
    let written = unsafe {
        bpf_probe_read_user_str(sections.end::<OPEN_ROOM>().cast(), limits::PATH_MAX as u32, address as *const _)
    };
    if written <= 0 {
        // Up to 6.12 an empty name counts nothing, not even its NUL.
        if written < 0 {
            lost(Loss::NameUnreadable);
        }
        return 0;
    }
    let length = (written as usize - 1) & (limits::PATH_MAX - 1);
    sections.add(length);
    length as u32
}
