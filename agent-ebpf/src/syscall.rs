//! System calls: registers, numbering, and the way from a call's exit to the module of its event.

use agent_common::{EventGroup, EventType, SOCKETCALL_CODE, WANTED_CALLS, fact};
use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::{bpf_get_current_task_btf, bpf_task_pt_regs},
    programs::{BtfTracePointContext, TracePointContext},
};

use crate::{
    call, connect, maps,
    object::{Object, Raw, Typed, have, typed_tasks, value},
    open,
};

/// `TS_COMPAT` (`arch/x86/include/asm/thread_info.h`): in a call by `int 0x80` or its kind.
const TS_COMPAT: u32 = 2;

/// `THREAD_SIZE` of x86-64 and arm64 kernels with pages of 4 KiB and without KASAN. Saved registers lie at the stack's end
/// (`task_pt_regs`); where that is not so, as in other builds or since 6.9, there is a helper to ask.
const THREAD_SIZE: u64 = 16 << 10;

/// The call that a task is in.
#[derive(Clone, Copy)]
pub struct Call {
    regs: Typed,
    /// By the 32-bit numbering.
    pub compat: bool,
}

macro_rules! argument {
    ($name:ident, $native:ident, $compat:ident) => {
        #[inline(always)]
        pub unsafe fn $name(self) -> u64 {
            // SAFETY: reads saved registers.
            unsafe {
                if have::<{ fact::COMPAT }>() && self.compat {
                    self.regs.u64::<{ fact::$compat }>() & 0xffff_ffff
                } else {
                    self.regs.u64::<{ fact::$native }>()
                }
            }
        }
    };
}

impl Call {
    argument!(argument0, REGS_ARG0, COMPAT_ARG0);
    argument!(argument1, REGS_ARG1, COMPAT_ARG1);
    argument!(argument2, REGS_ARG2, COMPAT_ARG2);
    argument!(argument3, REGS_ARG3, COMPAT_ARG3);
    argument!(argument4, REGS_ARG4, COMPAT_ARG4);
    argument!(argument5, REGS_ARG5, COMPAT_ARG5);
}

/// The kernel looks at 32 bits of the number, whatever else the register holds.
#[inline(always)]
unsafe fn number(regs: Typed) -> usize {
    // SAFETY: reads saved registers.
    unsafe { regs.u32::<{ fact::REGS_NR }>() as usize }
}

/// The codes of the events of a call, native and (in the upper half) 32-bit; 0 = none.
#[inline(always)]
unsafe fn codes(number: usize) -> u16 {
    if number >= WANTED_CALLS {
        return 0;
    }
    // SAFETY: within the table.
    unsafe { (&raw const maps::CALLS).cast::<u16>().add(number).read_volatile() }
}

/// `sys_exit(regs, result)`: every call of the machine comes by, so the first lines decide what it costs.
#[inline(always)]
pub unsafe fn on_any_exit(ctx: &BtfTracePointContext) {
    let regs = Typed::argument(ctx.arg(0));
    // SAFETY: the arguments are those of the tracepoint.
    unsafe {
        let codes = codes(number(regs));
        if codes != 0 {
            any_exit(regs, ctx.arg(1), codes);
        }
    }
}

/// A function of its own, so that a call without an event saves no registers and makes no room on the stack.
#[inline(never)]
unsafe fn any_exit(regs: Typed, result: i64, codes: u16) {
    // SAFETY: reads the current task.
    unsafe {
        exit_by_codes(regs, result, codes, true);
    }
}

/// At the exit of a call of a function that some rule needs. Without `opened`, opens that succeeded are known from elsewhere.
#[inline(always)]
pub unsafe fn on_function_exit(regs: Typed, result: i64, opened: bool) {
    // SAFETY: the caller gives the registers of the call that ends.
    unsafe {
        let codes = codes(number(regs));
        if codes != 0 {
            exit_by_codes(regs, result, codes, opened);
        }
    }
}

/// At the exit of a call whose number stands for these events.
#[inline(always)]
unsafe fn exit_by_codes(regs: Typed, result: i64, codes: u16, opened: bool) {
    // SAFETY: reads the current task.
    unsafe {
        let current = Typed::current();
        let compat = is_compat(current);
        exit(Call { regs, compat }, if compat { codes >> 8 } else { codes & 0xff }, result, opened, current);
    }
}

/// At the exit of a native call that some rule needs: `struct syscall_trace_exit` (`include/trace/syscall.h`). The kernel
/// leaves 32-bit calls out (`perf_syscall_exit`).
#[inline(always)]
pub unsafe fn on_single_exit(ctx: &TracePointContext) {
    let fields = ctx.as_ptr().cast::<i64>();
    // SAFETY: number and result lie behind the common fields; the rest reads the current task.
    unsafe {
        let number = fields.add(1).cast::<u32>().read_volatile();
        let result = fields.add(2).read_volatile();
        let codes = codes(number as usize);
        if have::<{ fact::HELPER_TASK_PT_REGS }>() && codes & 0xff != 0 {
            exit(Call { regs: current_registers(), compat: false }, codes & 0xff, result, true, Typed::current());
        }
    }
}

/// The saved registers of the current task.
#[inline(always)]
unsafe fn current_registers() -> Typed {
    // VERIFIER: the helper wants the task as the kernel gave it.
    // SAFETY: no other arguments.
    Typed::argument(unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) } as *const u8)
}

/// At the exit of a call with an event.
#[inline(always)]
unsafe fn exit(call: Call, code: u16, result: i64, opened: bool, current: Typed) {
    // SAFETY: reads the current task.
    unsafe {
        let (code, packed) = if code == u16::from(SOCKETCALL_CODE) { socketcall(call) } else { (code, 0) };
        if code >= EventType::FIRST_CALL.code() {
            call::on_exit(code, call, packed, result, current);
            return;
        }
        let Some(event) = EventType::from_code(code) else { return };
        match event.group() {
            EventGroup::Open if opened || result < 0 => open::on_exit(event, call, result, current),
            EventGroup::Connect => connect::on_exit(call, packed != 0, result, current),
            _ => {}
        }
    }
}

/// The event's code of the call that `socketcall` makes, and how many arguments it has.
///
/// VERIFIER: from a table, whose values it does not know: each that it knew it would follow through all that comes.
#[inline(always)]
unsafe fn socketcall(call: Call) -> (u16, u16) {
    // SAFETY: reads saved registers; the index is within the table.
    unsafe {
        let operation = call.argument0();
        if operation > 31 {
            return (0, 0);
        }
        let entry = (&raw const maps::SOCKETCALLS).cast::<u16>().add(operation as usize & 31).read_volatile();
        (entry & 0xff, entry >> 8)
    }
}

/// The current task's call, if it is of `otherwise`'s group; else (kernel threads and the like) `otherwise`.
#[inline(always)]
pub unsafe fn current_call(otherwise: EventType) -> EventType {
    // SAFETY: reads saved registers of the current task.
    match EventType::from_code(unsafe { current_code() }) {
        Some(event) if event.group() as u8 == otherwise.group() as u8 => event,
        _ => otherwise,
    }
}

/// Whether the current task is about to become another program.
#[inline(always)]
pub unsafe fn in_exec() -> bool {
    // SAFETY: as above.
    let code = unsafe { current_code() };
    code == EventType::FailedExecve.code() || code == EventType::FailedExecveat.code()
}

/// The code of the event of the current task's call; 0 = none.
#[inline(always)]
unsafe fn current_code() -> u16 {
    // SAFETY: reads saved registers of the current task.
    unsafe {
        let current = Typed::current();
        let number = if have::<{ fact::HELPER_TASK_PT_REGS }>() {
            number(current_registers())
        } else {
            let stack = Raw::from_member::<{ fact::TASK_STACK }, _>(current);
            let regs = stack.past(THREAD_SIZE - value::<{ fact::PT_REGS_SIZE }>());
            regs.u32::<{ fact::REGS_NR }>() as usize
        };
        let codes = codes(number);
        if is_compat(current) { codes >> 8 } else { codes & 0xff }
    }
}

/// The call that the current task is in, if it is of a group; none where the kernel does not give its registers.
#[inline(always)]
pub unsafe fn current(group: EventGroup) -> Option<(EventType, Call)> {
    if !have::<{ fact::HELPER_TASK_PT_REGS }>() {
        return None;
    }
    // SAFETY: reads saved registers of the current task.
    unsafe {
        let regs = current_registers();
        let compat = is_compat(Typed::current());
        event_of(number(regs), compat, group).map(|event| (event, Call { regs, compat }))
    }
}

/// The event of a call's number, if it is of a group.
#[inline(always)]
unsafe fn event_of(number: usize, compat: bool, group: EventGroup) -> Option<EventType> {
    // SAFETY: any number may be asked for.
    let codes = unsafe { codes(number) };
    let event = EventType::from_code(if compat { codes >> 8 } else { codes & 0xff })?;
    if event.group() as u8 == group as u8 { Some(event) } else { None }
}

#[inline(always)]
unsafe fn is_compat(task: Typed) -> bool {
    if !have::<{ fact::COMPAT }>() {
        return false;
    }
    // SAFETY: reads a task.
    let status = unsafe {
        if typed_tasks() {
            task.u32::<{ fact::TASK_THREAD_STATUS }>()
        } else {
            task.raw().u32::<{ fact::TASK_THREAD_STATUS }>()
        }
    };
    status & TS_COMPAT != 0
}
