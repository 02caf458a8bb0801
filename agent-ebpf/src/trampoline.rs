//! Hooks of tiers A and B (`fentry`, `fexit`): at the exits of just those calls that the policy wants, and where the
//! kernel gives out a descriptor. No other call meets them.

use core::arch::asm;

use agent_common::{EventGroup, fact};
use aya_ebpf::programs::{FEntryContext, FExitContext};

use crate::{
    maps,
    object::{Object, Typed, have},
    open, output, syscall, task,
};

/// `S_IFMT`, `S_IFSOCK` (`include/uapi/linux/stat.h`)
const FORMAT: u16 = 0o170_000;
const SOCKET: u16 = 0o140_000;
/// `include/linux/fs.h`
const FMODE_PATH: u32 = 1 << 14;

/// `long __x64_sys_X(const struct pt_regs *regs)` and its kind return.
#[inline(always)]
pub unsafe fn on_call_exit(ctx: &FExitContext) {
    // SAFETY: the arguments are those of the function; the tail call is never reached.
    unsafe {
        // The result lies behind the arguments; the helper for it is younger than `fexit`.
        syscall::on_function_exit(Typed::argument(ctx.arg(0)), ctx.arg(1), !have::<{ fact::HELPER_TASK_PT_REGS }>());
        // VERIFIER: since 6.13 a program that cannot run twice on a processor gets a stack at a fixed place of that processor.
        // It is the stubs that are kept from that, not this program: two tasks shared the stack, and a store through what
        // one of them had spilled there brought the kernel down. A program with a tail call in it, even one that is never
        // reached, keeps to the stack of its task (`check_max_stack_depth`): without this one kernels go down.
        if output::opaque(0) != 0 {
            asm!("call 12", lateout("r0") _, lateout("r1") _, lateout("r2") _, lateout("r3") _, lateout("r4") _, lateout("r5") _);
        }
    }
}

/// `(fd, file)`: a descriptor gets its file, for opens, but also for sockets, pipes, duplicates and what is received.
#[inline(always)]
pub unsafe fn on_fd_install(ctx: &FEntryContext) {
    let file: *const u8 = ctx.arg(1);
    // SAFETY: the arguments are those of the function.
    unsafe {
        let opened = Typed::argument(file);
        // First what costs least and rejects most: an open gives a socket only as `O_PATH`.
        if opened.object::<{ fact::FILE_INODE }>().u16::<{ fact::INODE_MODE }>() & FORMAT == SOCKET
            && opened.u32::<{ fact::FILE_MODE }>() & FMODE_PATH == 0
        {
            return;
        }
        let Some((event, call)) = syscall::current(EventGroup::Open) else { return };
        let current = Typed::current();
        if task::is_agent(current) {
            return;
        }
        let Some(policy) = output::wanted(event) else { return };
        if policy.not_host.contains(event) && task::is_hosts() {
            return;
        }
        open::with_file(event, call, i64::from(ctx.arg::<i32>(0)), current, policy, file);
    }
}
