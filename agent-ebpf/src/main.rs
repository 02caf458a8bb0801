//! Purser's eBPF programs. This file is the list of hooks; each is one line into the module that
//! owns its event. Records are laid out by `agent-common`; what is let through is decided by the
//! policy map alone.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![allow(missing_docs, unreachable_pub, reason = "a program's symbols, used by name by the loader")]

mod call;
mod cgroup;
mod connect;
mod exec;
mod file;
mod io_uring;
mod maps;
mod object;
mod open;
mod output;
mod path;
mod process;
mod reject;
mod socket;
mod syscall;
mod task;
mod trampoline;

use aya_ebpf::{
    macros::{btf_tracepoint, fentry, fexit, raw_tracepoint, tracepoint},
    programs::{BtfTracePointContext, FEntryContext, FExitContext, RawTracePointContext, TracePointContext},
};

/// Run once by the agent on itself, never attached: learns whom to leave out.
#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn identify_agent(_ctx: RawTracePointContext) -> i32 {
    // SAFETY: runs as a BPF program.
    unsafe { task::identify_agent() }
    0
}

/// At the exits of single calls, `tracepoint/syscalls:sys_exit_X`; in place of `sys_exit`.
#[tracepoint]
pub fn single_exit(ctx: TracePointContext) -> u32 {
    // SAFETY: runs as a BPF program on tracepoints of that kind.
    unsafe { syscall::on_single_exit(&ctx) }
    0
}

macro_rules! hooks {
    ($( $(#[$doc:meta])* $name:ident($tracepoint:literal) => $handler:path; )*) => {
        $(
            $(#[$doc])*
            #[btf_tracepoint(function = $tracepoint)]
            #[inline(always)]
            pub fn $name(ctx: BtfTracePointContext) -> i32 {
                // SAFETY: runs as a BPF program on the tracepoint whose arguments the handler names.
                unsafe { $handler(&ctx) }
                0
            }
        )*
    };
}

hooks! {
    /// `(task, old_pid, bprm)`
    sched_process_exec("sched_process_exec") => exec::on_exec;
    /// `(parent, child)`
    sched_process_fork("sched_process_fork") => process::on_fork;
    /// `(task, group_dead since 6.16)`
    sched_process_exit("sched_process_exit") => process::on_exit;
    /// `(task, comm)`
    task_rename("task_rename") => process::on_rename;
    /// `(regs, result)`
    sys_exit("sys_exit") => syscall::on_any_exit;
    /// `(req)`
    io_uring_submit_req("io_uring_submit_req") => io_uring::on_submit;
    /// `(ctx, req, cqe)` since 6.13, `(ctx, req, user_data, res, cflags, extra1, extra2)` before.
    io_uring_complete("io_uring_complete") => io_uring::on_complete;
    /// `(cgroup, path)`
    cgroup_mkdir("cgroup_mkdir") => cgroup::on_mkdir;
    /// `(cgroup, path)`
    cgroup_rmdir("cgroup_rmdir") => cgroup::on_rmdir;
}

/// Never attached itself: what stubs at the exits of calls go on with (`agent/src/sensor/stubs.rs`).
#[fexit(function = "__x64_sys_unlink")]
pub fn call_exit(ctx: FExitContext) -> i32 {
    // SAFETY: runs as a BPF program at the exit of a `long (const struct pt_regs *)`.
    unsafe { trampoline::on_call_exit(&ctx) }
    0
}

/// `(fd, file)`
#[fentry(function = "fd_install")]
pub fn fd_install(ctx: FEntryContext) -> i32 {
    // SAFETY: runs as a BPF program on the function whose arguments the handler names.
    unsafe { trampoline::on_fd_install(&ctx) }
    0
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Helpers that read kernel memory are for GPL-compatible programs only (`kernel/bpf/helpers.c`).
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
