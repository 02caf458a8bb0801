//! Connects at the system call's exit. Addresses come from the socket: what it is connected to, not what
//! the caller's memory says. A failed connect leaves none there; then the caller's copy is reported, and marked so.

use agent_common::{ConnectRecord, EventType, FillLimit, KernelPolicy, Loss, fact};
use aya_ebpf::helpers::generated::bpf_probe_read_user;

use crate::{
    maps::{self, SMALL_ROOM},
    object::{Object, Raw, Typed, typed_loads},
    open,
    output::{self, Sections, Urgency, lost},
    reject,
    socket::{self, Asked},
    syscall::Call,
    task,
};

/// `include/uapi/asm-generic/errno.h`, `include/linux/errno.h`
const EALREADY: i64 = 114;
const EINPROGRESS: i64 = 115;
const ERESTARTSYS: i64 = 512;
const ERESTART_RESTARTBLOCK: i64 = 516;

/// At the exit of `connect`, or of `socketcall` on i386.
#[inline(always)]
pub unsafe fn on_exit(call: Call, socketcall: bool, result: i64, current: Typed) {
    let Some(policy) = output::wanted(EventType::Connect) else { return };
    if !result_wanted(policy, EventType::Connect, result) {
        return;
    }
    // SAFETY: reads the current task's call, files and memory.
    unsafe {
        if (policy.not_host.contains(EventType::Connect) && task::is_hosts()) || task::is_agent(current) {
            return;
        }
        let (fd, address, length) = if socketcall {
            let mut arguments = [0u32; 3];
            if bpf_probe_read_user((&raw mut arguments).cast(), 12, call.argument1() as *const _) != 0 {
                // Unmapped by another thread since the call read them: that there was a call is told all the same.
                arguments[0] = u32::MAX;
                lost(Loss::AddressUnreadable);
            }
            (arguments[0] as i32, u64::from(arguments[1]), u64::from(arguments[2]))
        } else {
            (call.argument0() as i32, call.argument1(), call.argument2())
        };
        let file = if fd < 0 { core::ptr::null() } else { open::descriptor(current, fd as u64) };
        let asked = Asked { address: address as *const u8, length, user_memory: true };
        let Some(scratch) = output::take(&maps::CONNECT, EventType::Connect.code(), FillLimit::CALLS) else { return };
        let sections = Sections::new(scratch);
        let record = &mut scratch.record;
        if typed_loads() {
            fill::<Typed>(record, sections, Typed::at::<{ fact::ID_FILE }>(file), asked, result);
        } else {
            fill::<Raw>(record, sections, Raw::at::<{ fact::ID_FILE }>(file), asked, result);
        }
        record.fd = fd;
        let Some(mark) = reject::mark::<_, _, SMALL_ROOM>(scratch, EventType::Connect.code(), policy) else {
            scratch.busy = 0;
            return;
        };
        let record = &mut scratch.record;
        output::begin(&mut record.header, EventType::Connect, policy);
        mark.put(&mut record.header);
        task::fill(&mut record.task, current);
        output::send::<_, _, SMALL_ROOM>(scratch, Urgency::Soon);
    }
}

/// Whether the policy wants a connect of this result.
#[inline(always)]
pub fn result_wanted(policy: &KernelPolicy, event: EventType, result: i64) -> bool {
    result >= 0 || under_way(result) || policy.failed.contains(event)
}

/// The socket holds the address: it goes on connecting.
#[inline(always)]
const fn under_way(result: i64) -> bool {
    result == -EINPROGRESS || result == -EALREADY || (result <= -ERESTARTSYS && result >= -ERESTART_RESTARTBLOCK)
}

/// Fills in result and socket.
#[inline(always)]
pub unsafe fn fill<K: Object>(record: &mut ConnectRecord, sections: Sections, file: K, asked: Asked, result: i64) {
    record.result = result;
    // SAFETY: reads a socket.
    unsafe {
        let mut connected = result >= 0 || under_way(result);
        if connected && !socket::is_socket(file) {
            // The descriptor was closed or replaced before the exit: what was asked for is left.
            lost(Loss::FileGone);
            connected = false;
        }
        // VERIFIER: not known to it, or it would follow each of these ways to the end.
        let connected = output::opaque(usize::from(connected)) != 0;
        socket::fill::<K, SMALL_ROOM>(&mut record.socket, sections, file, asked, connected);
    }
}
