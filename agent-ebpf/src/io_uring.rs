//! Opens and connects by `io_uring`, which pass no system call's exit: what was asked for is kept at
//! submission (a name from the kernel's copy, an address from the caller's) and reported with the result at completion.

use agent_common::{EventType, FillLimit, KernelPolicy, Loss, fact, limits};
use aya_ebpf::{
    helpers::generated::{bpf_probe_read_kernel_str, bpf_probe_read_user},
    programs::BtfTracePointContext,
};

use crate::{
    connect,
    maps::{self, OPEN_ROOM, Pending, SMALL_ROOM},
    object::{Object, Raw, Typed, have, typed_loads},
    open::{self, Request},
    output::{self, Sections, Urgency, lost},
    socket::Asked,
    task,
};

/// `enum io_uring_op` (`include/uapi/linux/io_uring.h`)
const OP_CONNECT: u8 = 16;
const OP_OPENAT: u8 = 18;
const OP_OPENAT2: u8 = 28;
/// `REQ_F_CQE_SKIP` (`include/linux/io_uring_types.h`): success posts no completion.
const SILENT_SUCCESS: u64 = 1 << 6;
/// `IORING_FILE_INDEX_ALLOC`
const ANY_SLOT: u32 = u32::MAX;
/// Flags in the low bits of `io_rsrc_node.file_ptr` (`io_uring/filetable.h`).
const FILE_PTR_FLAGS: u64 = 7;
/// `sizeof(struct __kernel_sockaddr_storage)`
const SOCKADDR_SIZE: u32 = 128;

const fn event_of(opcode: u8) -> Option<EventType> {
    match opcode {
        OP_OPENAT => Some(EventType::IoUringOpenat),
        OP_OPENAT2 => Some(EventType::IoUringOpenat2),
        OP_CONNECT => Some(EventType::IoUringConnect),
        _ => None,
    }
}

/// `(req)`
#[inline(always)]
pub unsafe fn on_submit(ctx: &BtfTracePointContext) {
    // SAFETY: the argument is that of the tracepoint.
    unsafe {
        let request = Typed::read_only::<{ fact::ID_IO_KIOCB }>(ctx.arg(0));
        let Some(event) = event_of(request.u8::<{ fact::IO_KIOCB_OPCODE }>()) else { return };
        let current = Typed::current();
        if task::is_agent(current) {
            return;
        }
        let Some(policy) = output::wanted(event) else { return };
        let Some(pending) = maps::PENDING_SCRATCH.get_ptr_mut(0) else {
            lost(Loss::NoState);
            return;
        };
        let pending = &mut *pending;
        pending.length = 0;
        if matches!(event, EventType::IoUringConnect) {
            let command = request.embedded::<{ fact::IO_KIOCB_CMD }>();
            let address = command.u64::<{ fact::IO_CONNECT_ADDR }>();
            let mut length = command.u32::<{ fact::IO_CONNECT_ADDR_LEN }>();
            if length > SOCKADDR_SIZE {
                length = SOCKADDR_SIZE;
            }
            if bpf_probe_read_user(pending.bytes.as_mut_ptr().cast(), length, address as *const _) == 0 {
                pending.length = u64::from(length);
            }
        } else {
            let command = request.embedded::<{ fact::IO_KIOCB_CMD }>();
            let filename = Raw::from(command.u64::<{ fact::IO_OPEN_FILENAME }>());
            let name = filename.u64::<{ fact::FILENAME_NAME }>();
            let written =
                bpf_probe_read_kernel_str(pending.bytes.as_mut_ptr().cast(), limits::PATH_MAX as u32, name as *const _);
            if written <= 0 {
                lost(Loss::NameUnreadable);
            } else {
                pending.length = written as u64 - 1;
            }
        }
        let key = request.address() as u64;
        if maps::PENDING.insert(key, &*pending, 0).is_err() {
            lost(Loss::IoUringNameForgotten);
        }
        // Nothing will be heard of its success, so it is reported as one now, without a file. A failure follows by itself.
        if have::<{ fact::IO_KIOCB_FLAGS }>() && request.u64::<{ fact::IO_KIOCB_FLAGS }>() & SILENT_SUCCESS != 0 {
            report(event, request, 0, core::ptr::null(), policy, current);
        }
    }
}

/// `(ctx, req, cqe)` since 6.13, `(ctx, req, user_data, res, ...)` before.
#[inline(always)]
pub unsafe fn on_complete(ctx: &BtfTracePointContext) {
    let request: *const u8 = ctx.arg(1);
    if request.is_null() {
        return;
    }
    // SAFETY: the arguments are those of the tracepoint.
    unsafe {
        // VERIFIER: the tracepoint's argument is a `void *`; without typed loads there is nothing to read it by.
        if !typed_loads() {
            return;
        }
        let request = Typed::at::<{ fact::ID_IO_KIOCB }>(request);
        let Some(event) = event_of(request.u8::<{ fact::IO_KIOCB_OPCODE }>()) else { return };
        let current = Typed::current();
        if task::is_agent(current) {
            return;
        }
        let Some(policy) = output::wanted(event) else { return };
        let result = if have::<{ fact::COMPLETE_HAS_CQE }>() {
            i64::from(Typed::argument(ctx.arg(2)).u32::<{ fact::IO_CQE_RES }>() as i32)
        } else {
            i64::from(ctx.arg::<i32>(3))
        };
        let file = if matches!(event, EventType::IoUringConnect) {
            request.object::<{ fact::IO_KIOCB_FILE }>().address()
        } else if result >= 0 {
            opened(request, result as u32, current)
        } else {
            core::ptr::null()
        };
        report(event, request, result, file, policy, current);
        let _ = maps::PENDING.remove(request.address() as u64);
    }
}

/// The file that an open gave: by descriptor, or in the ring's own table.
#[inline(always)]
unsafe fn opened(request: Typed, result: u32, current: Typed) -> *const u8 {
    // SAFETY: reads a request, its ring and the current task.
    unsafe {
        let slot = request.embedded::<{ fact::IO_KIOCB_CMD }>().u32::<{ fact::IO_OPEN_FILE_SLOT }>();
        if slot == 0 {
            return open::descriptor(current, u64::from(result));
        }
        if !have::<{ fact::IO_CTX_FILE_NODES }>() || !have::<{ fact::IO_RSRC_NODE_FILE_PTR }>() {
            return core::ptr::null();
        }
        let index = if slot == ANY_SLOT { result } else { slot - 1 };
        let ring = request.object::<{ fact::IO_KIOCB_CTX }>();
        if index >= ring.u32::<{ fact::IO_CTX_FILE_NR }>() {
            return core::ptr::null();
        }
        let nodes = Raw::from(ring.u64::<{ fact::IO_CTX_FILE_NODES }>()).past(u64::from(index) * 8);
        let node = Raw::from(Raw::read::<u64>(nodes.address()));
        if node.is_null() {
            return core::ptr::null();
        }
        (node.u64::<{ fact::IO_RSRC_NODE_FILE_PTR }>() & !FILE_PTR_FLAGS) as *const u8
    }
}

#[inline(always)]
unsafe fn report(
    event: EventType,
    request: Typed,
    result: i64,
    file: *const u8,
    policy: &KernelPolicy,
    current: Typed,
) {
    // SAFETY: reads a request and the current task.
    unsafe {
        let pending = maps::PENDING.get_ptr(request.address() as u64);
        if matches!(event, EventType::IoUringConnect) {
            if !connect::result_wanted(policy, event, result) {
                return;
            }
            let Some(scratch) = output::take(&maps::IO_URING_CONNECT, event.code(), FillLimit::CALLS) else { return };
            let sections = Sections::new(scratch);
            let record = &mut scratch.record;
            output::begin(&mut record.header, event, policy);
            let asked = match pending {
                Some(pending) => Asked {
                    address: (&raw const (*pending).bytes).cast(),
                    length: (*pending).length,
                    user_memory: false,
                },
                None => Asked { address: core::ptr::null(), length: 0, user_memory: false },
            };
            connect::fill::<Typed>(record, sections, Typed::at::<{ fact::ID_FILE }>(file), asked, result, current);
            record.fd = -1;
            output::send::<_, _, SMALL_ROOM>(scratch, Urgency::Soon);
            return;
        }
        if result < 0 && !policy.failed.contains(event) {
            return;
        }
        let file = Typed::at::<{ fact::ID_FILE }>(file);
        if !file.is_null() && !open::mode_wanted(policy, file.u32::<{ fact::FILE_MODE }>()) {
            return;
        }
        let Some(scratch) = output::take(&maps::IO_URING_OPEN, event.code(), FillLimit::OPENS) else { return };
        let sections = Sections::new(scratch);
        let record = &mut scratch.record;
        output::begin(&mut record.header, event, policy);
        task::fill(&mut record.task, current);
        let command = request.embedded::<{ fact::IO_KIOCB_CMD }>();
        let request = Request {
            dirfd: command.u32::<{ fact::IO_OPEN_DFD }>() as i32,
            name: 0,
            flags: command.u64::<{ fact::IO_OPEN_FLAGS }>() as u32,
            mode: command.u64::<{ fact::IO_OPEN_MODE }>() as u32,
        };
        open::asked(record, &request);
        record.name_length = 0;
        match pending {
            Some(pending) => record.name_length = name(sections, pending),
            None => lost(Loss::IoUringNameForgotten),
        }
        let relative = record.name_length != 0 && *scratch.sections.as_ptr() != b'/';
        open::fill::<Typed>(record, sections, result, file, relative, current);
        output::send::<_, _, OPEN_ROOM>(scratch, Urgency::Soon);
    }
}

/// Copies the name that was kept.
#[inline(always)]
unsafe fn name(sections: Sections, pending: *const Pending) -> u32 {
    // SAFETY: a map value; `end` guarantees the room.
    let written = unsafe {
        bpf_probe_read_kernel_str(
            sections.end::<OPEN_ROOM>().cast(),
            limits::PATH_MAX as u32,
            (&raw const (*pending).bytes).cast(),
        )
    };
    let length = if written > 1 { (written as usize - 1) & (limits::PATH_MAX - 1) } else { 0 };
    sections.add(length);
    length as u32
}
