//! Operations of `io_uring`, which pass no system call's exit: what was asked for is kept at submission and reported with
//! the result at completion. Opens and connects have records of their own; all others are plain calls, by a row of a table.

use agent_common::{EventType, FillLimit, KernelPolicy, Loss, RING_OPCODES, RingReads, fact, limits};
use aya_ebpf::{
    helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_kernel_str, bpf_probe_read_user},
    programs::BtfTracePointContext,
};

use crate::{
    call::{self, Kept},
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
/// `REQ_F_FIXED_FILE`: the descriptor is a slot of the ring.
const FIXED_FILE: u32 = 1;
/// `REQ_F_CQE_SKIP` (`include/linux/io_uring_types.h`): success posts no completion.
const SILENT_SUCCESS: u32 = 1 << 6;
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
        if typed_loads() { submitted(request) } else { submitted(request.raw()) }
    }
}

#[inline(always)]
unsafe fn submitted<K: Object>(request: K) {
    // SAFETY: reads a request and the current task.
    unsafe {
        let opcode = request.u8::<{ fact::IO_KIOCB_OPCODE }>();
        let Some(event) = event_of(opcode) else { return on_submit_call(request, opcode) };
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
        if flags(request) & SILENT_SUCCESS != 0 {
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
    // SAFETY: the arguments are those of the tracepoint, whose request is a `void *`.
    unsafe {
        if typed_loads() {
            completed(ctx, Typed::at::<{ fact::ID_IO_KIOCB }>(request));
        } else {
            completed(ctx, Raw::at::<{ fact::ID_IO_KIOCB }>(request));
        }
    }
}

#[inline(always)]
unsafe fn completed<K: Object>(ctx: &BtfTracePointContext, request: K) {
    // SAFETY: reads a request and the current task.
    unsafe {
        let opcode = request.u8::<{ fact::IO_KIOCB_OPCODE }>();
        let result = result(ctx);
        let Some(event) = event_of(opcode) else { return on_complete_call(request, opcode, result) };
        let current = Typed::current();
        if task::is_agent(current) {
            return;
        }
        let Some(policy) = output::wanted(event) else { return };
        let file = if matches!(event, EventType::IoUringConnect) {
            request.object::<{ fact::IO_KIOCB_FILE }>().address()
        } else if result >= 0 {
            let slot = request.embedded::<{ fact::IO_KIOCB_CMD }>().u32::<{ fact::IO_OPEN_FILE_SLOT }>();
            opened(request, slot, result as u32, current)
        } else {
            core::ptr::null()
        };
        report(event, request, result, file, policy, current);
        let _ = maps::PENDING.remove(request.address() as u64);
    }
}

#[inline(always)]
unsafe fn result(ctx: &BtfTracePointContext) -> i64 {
    // SAFETY: the arguments are those of the tracepoint.
    unsafe {
        if have::<{ fact::COMPLETE_HAS_CQE }>() {
            i64::from(Typed::argument(ctx.arg(2)).u32::<{ fact::IO_CQE_RES }>() as i32)
        } else {
            i64::from(ctx.arg::<i32>(3))
        }
    }
}

/// `req->flags`, where the kernel has them in one word; before 6.8 that is of 32 bits.
#[inline(always)]
unsafe fn flags<K: Object>(request: K) -> u32 {
    // SAFETY: reads a request.
    if have::<{ fact::IO_KIOCB_FLAGS }>() { unsafe { request.u32::<{ fact::IO_KIOCB_FLAGS }>() } } else { 0 }
}

/// What is read of an operation that is a plain call, if the policy lets the call through.
#[inline(always)]
unsafe fn reads_of(opcode: u8, current: Typed) -> Option<(&'static RingReads, &'static KernelPolicy)> {
    if usize::from(opcode) >= RING_OPCODES {
        return None;
    }
    // The compiler knows the table as it is before the loader writes it, and must not read that.
    let table = output::opaque(&raw const maps::RING as usize) as *const RingReads;
    // SAFETY: the index is within the table.
    let reads = unsafe { &*table.add(output::opaque(opcode as usize) & (RING_OPCODES - 1)) };
    if reads.event == 0 {
        return None;
    }
    let policy = output::policy()?;
    let code = u16::from(reads.event);
    // SAFETY: reads the current task.
    let left_out = unsafe { task::is_agent(current) || (policy.not_host.contains_code(code) && task::is_hosts()) };
    if left_out || !policy.events.contains_code(code) { None } else { Some((reads, policy)) }
}

/// A word of the request's own structure.
#[inline(always)]
unsafe fn word(command: *const u8, offset: u8, size: usize) -> u64 {
    let mut word = 0u64;
    let mut size = output::opaque(size);
    if size > 8 {
        size = 8;
    }
    // SAFETY: the helper checks the address; the size is that of the word at most.
    unsafe {
        bpf_probe_read_kernel((&raw mut word).cast(), size as u32, command.wrapping_add(offset as usize).cast());
    }
    word
}

#[inline(always)]
unsafe fn on_submit_call<K: Object>(request: K, opcode: u8) {
    // SAFETY: reads a request and the current task.
    unsafe {
        let current = Typed::current();
        let Some((reads, policy)) = reads_of(opcode, current) else { return };
        let Some(pending) = maps::PENDING_SCRATCH.get_ptr_mut(0) else { return lost(Loss::NoState) };
        let pending = &mut *pending;
        let command = request.embedded::<{ fact::IO_KIOCB_CMD }>().address();
        let flags = flags(request);
        // VERIFIER: a loop, and words go to memory at once, so that there is one round to verify.
        let mut nth = output::opaque(0);
        while nth < reads.arguments.len() {
            let offset = (&raw const reads.arguments).cast::<u8>().add(nth).read_volatile();
            let value = if offset == RingReads::DESCRIPTOR {
                let fixed = flags & FIXED_FILE != 0;
                if fixed { u64::MAX } else { i64::from(request.u32::<{ fact::IO_KIOCB_FD }>() as i32) as u64 }
            } else {
                let size = (&raw const reads.sizes).cast::<u8>().add(nth).read_volatile();
                word(command, offset, usize::from(size))
            };
            (&raw mut pending.arguments).cast::<u64>().add(nth).write_volatile(value);
            nth = output::opaque(nth + 1);
        }
        pending.slot = if reads.slot == 0 { 0 } else { word(command, reads.slot, 4) };
        pending.length = 0;
        let key = request.address() as u64;
        if reads.names[1] != 0 {
            name_of(pending, word(command, reads.names[1], 8));
            keep(key.wrapping_add(1), pending);
        }
        if reads.names[0] != 0 {
            name_of(pending, word(command, reads.names[0], 8));
        } else if reads.address != 0 {
            address_of(pending, reads, request, command);
        }
        keep(key, pending);
        // As for opens.
        if flags & SILENT_SUCCESS != 0 {
            report_call(reads, request, 0, true, policy, current);
        }
    }
}

#[inline(always)]
unsafe fn keep(key: u64, pending: &Pending) {
    if maps::PENDING.insert(key, pending, 0).is_err() {
        lost(Loss::IoUringNameForgotten);
    }
}

/// Copies the name of a `struct filename`.
#[inline(always)]
unsafe fn name_of(pending: &mut Pending, filename: u64) {
    // SAFETY: the helper checks addresses.
    unsafe {
        pending.length = 0;
        pending.bytes[0] = 0;
        let name = Raw::from(filename).u64::<{ fact::FILENAME_NAME }>();
        let to = pending.bytes.as_mut_ptr().cast();
        let written = bpf_probe_read_kernel_str(to, limits::PATH_MAX as u32, name as *const _);
        if written > 1 {
            pending.length = written as u64 - 1;
        }
    }
}

/// Copies the address that the kernel copied when it took the request.
#[inline(always)]
unsafe fn address_of<K: Object>(pending: &mut Pending, reads: &RingReads, request: K, command: *const u8) {
    if !have::<{ fact::IO_KIOCB_ASYNC_DATA }>() || !have::<{ fact::IO_ASYNC_ADDR }>() {
        return;
    }
    // SAFETY: the helper checks addresses.
    unsafe {
        let message = Raw::from(request.u64::<{ fact::IO_KIOCB_ASYNC_DATA }>());
        if message.is_null() {
            return;
        }
        let length = if reads.address == RingReads::PLAIN {
            word(command, reads.length, 4)
        } else if message.u64::<{ fact::IO_ASYNC_NAME }>() != 0 {
            u64::from(message.u32::<{ fact::IO_ASYNC_NAME_LEN }>())
        } else {
            0
        };
        let mut length = output::opaque(length as usize);
        if length > SOCKADDR_SIZE as usize {
            length = SOCKADDR_SIZE as usize;
        }
        let from = message.embedded::<{ fact::IO_ASYNC_ADDR }>().address();
        if bpf_probe_read_kernel(pending.bytes.as_mut_ptr().cast(), length as u32, from.cast()) == 0 {
            pending.length = length as u64;
        }
    }
}

#[inline(always)]
unsafe fn on_complete_call<K: Object>(request: K, opcode: u8, result: i64) {
    // SAFETY: reads a request and the current task.
    unsafe {
        let current = Typed::current();
        let Some((reads, policy)) = reads_of(opcode, current) else { return };
        if result >= 0 || policy.failed.contains_code(u16::from(reads.event)) {
            report_call(reads, request, result, false, policy, current);
        }
        let key = request.address() as u64;
        let _ = maps::PENDING.remove(key);
        if reads.names[1] != 0 {
            let _ = maps::PENDING.remove(key.wrapping_add(1));
        }
    }
}

#[inline(always)]
unsafe fn report_call<K: Object>(
    reads: &RingReads,
    request: K,
    result: i64,
    silent: bool,
    policy: &KernelPolicy,
    current: Typed,
) {
    // SAFETY: reads a request, its ring and the current task.
    unsafe {
        let key = request.address() as u64;
        let Some(pending) = maps::PENDING.get_ptr_mut(key) else { return lost(Loss::IoUringNameForgotten) };
        let kept = Kept { pending, second: key.wrapping_add(1), result };
        call::on_ring::<K>(u16::from(reads.event), kept, policy, current, |pending| {
            if reads.slot == 0 {
                request.object::<{ fact::IO_KIOCB_FILE }>().address()
            } else if result >= 0 && !silent {
                opened(request, pending.slot as u32, result as u32, current)
            } else {
                core::ptr::null()
            }
        });
    }
}

/// The file that a request made: by descriptor, or in the ring's own table.
#[inline(always)]
unsafe fn opened<K: Object>(request: K, slot: u32, result: u32, current: Typed) -> *const u8 {
    // SAFETY: reads a request, its ring and the current task.
    unsafe {
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
unsafe fn report<K: Object>(
    event: EventType,
    request: K,
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
            connect::fill::<K>(record, sections, K::at::<{ fact::ID_FILE }>(file), asked, result);
            task::fill(&mut record.task, current);
            record.fd = -1;
            output::send::<_, _, SMALL_ROOM>(scratch, Urgency::Soon);
            return;
        }
        if result < 0 && !policy.failed.contains(event) {
            return;
        }
        let file = K::at::<{ fact::ID_FILE }>(file);
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
        open::fill::<K, false>(record, sections, result, file, relative, current);
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
