//! What differs between processor architectures: call numbering and where saved registers hold a
//! call's number and arguments. The programs themselves are the same for all.

use agent_common::Arch;

/// Numbering of the machine's own calls, and of the 32-bit ones it also takes.
pub(super) struct Machine {
    /// Native numbering.
    pub(super) native: Arch,
    /// Numbering of 32-bit calls that are told apart in the programs.
    pub(super) compat: Option<Arch>,
    /// How the names of functions that carry out native calls begin.
    pub(super) native_functions: &'static str,
    /// The same for 32-bit calls; the first that exists carries them out.
    pub(super) compat_functions: &'static [&'static str],
    /// `pt_regs` member of the call's number.
    number: &'static str,
    arguments: [Register; 6],
    compat_arguments: [Register; 6],
}

/// A `pt_regs` member, and how many bytes past it.
type Register = (&'static str, u64);

/// The machine this agent was built for.
#[cfg(target_arch = "x86_64")]
pub(super) const MACHINE: Machine = Machine {
    native: Arch::X86_64,
    compat: Some(Arch::I386),
    // arch/x86/include/asm/syscall_wrapper.h
    native_functions: "__x64_sys_",
    compat_functions: &["__ia32_compat_sys_", "__ia32_sys_"],
    number: "pt_regs.orig_ax",
    arguments: [
        ("pt_regs.di", 0),
        ("pt_regs.si", 0),
        ("pt_regs.dx", 0),
        ("pt_regs.r10", 0),
        ("pt_regs.r8", 0),
        ("pt_regs.r9", 0),
    ],
    compat_arguments: [
        ("pt_regs.bx", 0),
        ("pt_regs.cx", 0),
        ("pt_regs.dx", 0),
        ("pt_regs.si", 0),
        ("pt_regs.di", 0),
        ("pt_regs.bp", 0),
    ],
};

/// The machine this agent was built for. 32-bit arm calls have a numbering of their own that the event table
/// does not hold.
#[cfg(target_arch = "aarch64")]
pub(super) const MACHINE: Machine = Machine {
    native: Arch::Aarch64,
    compat: None,
    native_functions: "__arm64_sys_",
    compat_functions: &[],
    number: "pt_regs.syscallno",
    // The result has taken the place of the first argument by the call's exit.
    arguments: [
        ("pt_regs.orig_x0", 0),
        ("pt_regs.regs", 8),
        ("pt_regs.regs", 16),
        ("pt_regs.regs", 24),
        ("pt_regs.regs", 32),
        ("pt_regs.regs", 40),
    ],
    compat_arguments: [
        ("pt_regs.orig_x0", 0),
        ("pt_regs.regs", 8),
        ("pt_regs.regs", 16),
        ("pt_regs.regs", 24),
        ("pt_regs.regs", 32),
        ("pt_regs.regs", 40),
    ],
};

impl Machine {
    /// The `pt_regs` member of a register by its name in `agent_common::Fact::Register`.
    pub(super) fn register(&self, name: &str) -> Option<Register> {
        let (set, index) = match name.split_at_checked(name.len().checked_sub(1)?)? {
            _ if name == "nr" => return Some((self.number, 0)),
            ("arg", index) => (&self.arguments, index),
            ("compat", index) => (&self.compat_arguments, index),
            _ => return None,
        };
        set.get(index.parse::<usize>().ok()?).copied()
    }
}
