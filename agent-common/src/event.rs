//! The event table: one row per event, from which the kernel's call table, the decoder's codes, the
//! rule engine's event names and the documentation are derived. Must hold no behaviour of its own.

/// System call numbering of a task. The kernel half is built once; the numbers are looked up by the
/// architecture that the agent runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    /// `arch/x86/entry/syscalls/syscall_64.tbl`
    X86_64,
    /// `arch/x86/entry/syscalls/syscall_32.tbl`, also reached by `int 0x80` from 64-bit code.
    I386,
    /// `include/uapi/asm-generic/unistd.h`
    Aarch64,
}

/// Which hooks serve an event, and so what has to be attached when a rule asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventGroup {
    /// `sched_process_exec`
    Exec,
    /// `sched_process_fork`
    Fork,
    /// `sched_process_exit`
    Exit,
    /// Opens at the system call's exit.
    Open,
    /// Connects at the system call's exit.
    Connect,
    /// Opens and connects by `io_uring`.
    IoUring,
    /// cgroup directories.
    Cgroup,
}

macro_rules! optional {
    (-) => {
        None
    };
    ($number:literal) => {
        Some($number)
    };
}

macro_rules! events {
    ($( $(#[$doc:meta])* $variant:ident = $code:literal, $name:literal, $ppme:literal, $group:ident,
        [$x86_64:tt, $i386:tt, $aarch64:tt]; )*) => {
        /// What happened. The discriminant is the event code of the wire.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum EventType {
            $( $(#[$doc])* $variant = $code, )*
        }

        impl EventType {
            /// Every row of the table.
            pub const ALL: &'static [Self] = &[$( Self::$variant, )*];

            /// The event of a wire code.
            pub const fn from_code(code: u16) -> Option<Self> {
                match code {
                    $( $code => Some(Self::$variant), )*
                    _ => None,
                }
            }

            /// Falco's `evt.type`.
            pub const fn name(self) -> &'static str {
                match self { $( Self::$variant => $name, )* }
            }

            /// Falco's event code of the exit side (`libs driver/ppm_events_public.h`); empty where it has none.
            pub const fn falco_code(self) -> &'static str {
                match self { $( Self::$variant => $ppme, )* }
            }

            /// The hooks that serve it.
            pub const fn group(self) -> EventGroup {
                match self { $( Self::$variant => EventGroup::$group, )* }
            }

            /// The system call's number, where the event is one.
            pub const fn call(self, arch: Arch) -> Option<u16> {
                match self { $( Self::$variant => match arch {
                    Arch::X86_64 => optional!($x86_64),
                    Arch::I386 => optional!($i386),
                    Arch::Aarch64 => optional!($aarch64),
                }, )* }
            }
        }
    };
}

events! {
    /// `execve` succeeded, or an `execveat` that needed no descriptor (the kernel does not tell them apart).
    Execve = 1, "execve", "PPME_SYSCALL_EXECVE_19_X", Exec, [59, 11, 221];
    /// `execveat` relative to a descriptor succeeded.
    Execveat = 2, "execveat", "PPME_SYSCALL_EXECVEAT_X", Exec, [322, 358, 281];
    /// `fork`
    Fork = 3, "fork", "PPME_SYSCALL_FORK_20_X", Fork, [57, 2, -];
    /// `vfork`
    Vfork = 4, "vfork", "PPME_SYSCALL_VFORK_20_X", Fork, [58, 190, -];
    /// `clone`, and every task that the kernel itself starts.
    Clone = 5, "clone", "PPME_SYSCALL_CLONE_20_X", Fork, [56, 120, 220];
    /// `clone3`
    Clone3 = 6, "clone3", "PPME_SYSCALL_CLONE3_X", Fork, [435, 435, 435];
    /// A task ended.
    Procexit = 7, "procexit", "PPME_PROCEXIT_1_E", Exit, [-, -, -];
    /// `open`
    Open = 8, "open", "PPME_SYSCALL_OPEN_X", Open, [2, 5, -];
    /// `openat`
    Openat = 9, "openat", "PPME_SYSCALL_OPENAT_2_X", Open, [257, 295, 56];
    /// `openat2`
    Openat2 = 10, "openat2", "PPME_SYSCALL_OPENAT2_X", Open, [437, 437, 437];
    /// `creat`
    Creat = 11, "creat", "PPME_SYSCALL_CREAT_X", Open, [85, 8, -];
    /// `open_by_handle_at`
    OpenByHandleAt = 12, "open_by_handle_at", "PPME_SYSCALL_OPEN_BY_HANDLE_AT_X", Open, [304, 342, 265];
    /// `connect`, and on i386 the same by `socketcall`.
    Connect = 13, "connect", "PPME_SOCKET_CONNECT_X", Connect, [42, 362, 203];
    /// `IORING_OP_OPENAT`
    IoUringOpenat = 14, "openat", "PPME_SYSCALL_OPENAT_2_X", IoUring, [-, -, -];
    /// `IORING_OP_OPENAT2`
    IoUringOpenat2 = 15, "openat2", "PPME_SYSCALL_OPENAT2_X", IoUring, [-, -, -];
    /// `IORING_OP_CONNECT`
    IoUringConnect = 16, "connect", "PPME_SOCKET_CONNECT_X", IoUring, [-, -, -];
    /// A cgroup v2 directory was made.
    CgroupMkdir = 17, "cgroup_mkdir", "", Cgroup, [-, -, -];
    /// A cgroup v2 directory was removed.
    CgroupRmdir = 18, "cgroup_rmdir", "", Cgroup, [-, -, -];
}

impl EventType {
    /// The i386 multiplexer of socket calls, whose first argument 3 is `connect` (`include/uapi/linux/net.h`).
    pub const I386_SOCKETCALL: u16 = 102;

    /// The wire code.
    pub const fn code(self) -> u16 {
        self as u16
    }

    /// The event's bit in [`KernelPolicy::events`](crate::KernelPolicy::events).
    pub const fn bit(self) -> u64 {
        1 << self as u8
    }

    /// Done through `io_uring` instead of the call of that name.
    pub const fn is_io_uring(self) -> bool {
        matches!(self, Self::IoUringOpenat | Self::IoUringOpenat2 | Self::IoUringConnect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_round_trip_and_fit_the_policy_word() {
        for event in EventType::ALL {
            assert_eq!(EventType::from_code(event.code()), Some(*event));
            assert!(event.code() < 64, "{event:?} has no bit in the policy");
        }
        assert_eq!(EventType::from_code(0), None);
        assert_eq!(EventType::from_code(999), None);
    }

    #[test]
    fn a_call_number_names_one_event() {
        for arch in [Arch::X86_64, Arch::I386, Arch::Aarch64] {
            let mut seen = [false; 1024];
            for event in EventType::ALL {
                if let Some(number) = event.call(arch) {
                    let slot = &mut seen[usize::from(number)];
                    assert!(!*slot, "{arch:?} {number} is in two rows");
                    *slot = true;
                }
            }
        }
    }
}
