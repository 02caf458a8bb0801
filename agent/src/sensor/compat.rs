//! Whether the machine takes 32-bit calls, found by making one.

/// Whether the kernel takes 32-bit calls (`int 0x80`). It does not where it was built without IA32 emulation or started with
/// `ia32_emulation=0`: then no program can make any.
#[cfg(target_arch = "x86_64")]
pub(crate) fn takes_compat_calls() -> bool {
    let mut status = 0;
    // SAFETY: the child makes system calls only.
    let child = unsafe { libc::fork() };
    if child == 0 {
        make_one();
    }
    // SAFETY: waits for an own child.
    if child < 0 || unsafe { libc::waitpid(child, &raw mut status, 0) } != child {
        // What cannot be tried may be taken.
        return true;
    }
    // Where there is no such call it faults. Any other end is its own affair, as when a filter forbids this process to make it.
    !(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSEGV)
}

/// Asks for its own pid and ends.
#[cfg(target_arch = "x86_64")]
#[allow(clippy::multiple_unsafe_ops_per_block, reason = "a run of system calls")]
fn make_one() -> ! {
    /// `arch/x86/entry/syscalls/syscall_32.tbl`
    const GETPID: u64 = 20;
    let no_core = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: changes this process alone; a fault ends it.
    unsafe {
        libc::setrlimit(libc::RLIMIT_CORE, &raw const no_core);
        libc::signal(libc::SIGSEGV, libc::SIG_DFL);
        std::arch::asm!("int 0x80", inlateout("rax") GETPID => _, lateout("r8") _, lateout("r9") _, lateout("r10") _,
            lateout("r11") _);
        libc::_exit(0)
    }
}

/// Those of other processors are not told apart.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn takes_compat_calls() -> bool {
    false
}
