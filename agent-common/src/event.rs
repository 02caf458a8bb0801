//! The event table: one row per event, from which the kernel's call table, the decoder's codes, the
//! rule engine's event names and the documentation are derived. Must hold no behaviour of its own.

use crate::call::Parameter;

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
    /// `task_rename`
    Rename,
    /// Plain calls at their exit: registers, and what the row's parameters name.
    Call,
}

macro_rules! optional {
    (-) => {
        None
    };
    ($number:literal) => {
        Some($number)
    };
    (($number:literal $(, $older:literal)+)) => {
        Some($number)
    };
}

macro_rules! older {
    (($number:literal $(, $older:literal)+)) => {
        &[$($older),+]
    };
    ($number:tt) => {
        &[]
    };
}

macro_rules! events {
    ($( $(#[$doc:meta])* $variant:ident = $code:literal, $name:literal, $ppme:literal, $group:ident,
        [$x86_64:tt, $i386:tt, $aarch64:tt] $(, [$($parameter:expr),*])?; )*) => {
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
            #[inline(always)]
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

            /// Further numbers that i386 has for the same call with the same arguments: with identities of 16 bits, or with
            /// wider times and sizes.
            pub const fn other_i386_calls(self) -> &'static [u16] {
                match self { $( Self::$variant => older!($i386), )* }
            }

            /// Where the parameters of a plain call are, in the order in which rules know them; none for others, and for
            /// calls that rules know by name alone.
            pub const fn parameters(self) -> &'static [Parameter] {
                #[allow(clippy::enum_glob_use, reason = "a row reads as a list of parameters")]
                use Parameter::*;
                match self { $( Self::$variant => &[$($($parameter),*)?], )* }
            }
        }
    };
}

events! {
    /// `execve` succeeded, or an `execveat` that needed no descriptor (the kernel does not tell them apart).
    Execve = 1, "execve", "PPME_SYSCALL_EXECVE_19_X", Exec, [-, -, -];
    /// `execveat` relative to a descriptor succeeded.
    Execveat = 2, "execveat", "PPME_SYSCALL_EXECVEAT_X", Exec, [-, -, -];
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
    /// A process was given another name, but not by an exec.
    TaskRename = 121, "task_rename", "", Rename, [-, -, -];
    /// `rename`
    Rename = 19, "rename", "PPME_SYSCALL_RENAME_X", Call, [82, 38, -], [Result, Path(0), Path(1)];
    /// `renameat`
    Renameat = 20, "renameat", "PPME_SYSCALL_RENAMEAT_X", Call, [264, 302, 38],
        [Result, Directory(0), PathAt(1, 0), Directory(2), PathAt(3, 2)];
    /// `renameat2`
    Renameat2 = 21, "renameat2", "PPME_SYSCALL_RENAMEAT2_X", Call, [316, 353, 276],
        [Result, Directory(0), PathAt(1, 0), Directory(2), PathAt(3, 2), Value(4)];
    /// `unlink`
    Unlink = 22, "unlink", "PPME_SYSCALL_UNLINK_2_X", Call, [87, 10, -], [Result, Path(0)];
    /// `unlinkat`
    Unlinkat = 23, "unlinkat", "PPME_SYSCALL_UNLINKAT_2_X", Call, [263, 301, 35],
        [Result, Directory(0), PathAt(1, 0), Value(2)];
    /// `rmdir`
    Rmdir = 24, "rmdir", "PPME_SYSCALL_RMDIR_2_X", Call, [84, 40, -], [Result, Path(0)];
    /// `mkdir`
    Mkdir = 25, "mkdir", "PPME_SYSCALL_MKDIR_2_X", Call, [83, 39, -], [Result, Path(0), Value(1)];
    /// `mkdirat`
    Mkdirat = 26, "mkdirat", "PPME_SYSCALL_MKDIRAT_X", Call, [258, 296, 34],
        [Result, Directory(0), PathAt(1, 0), Value(2)];
    /// `link`
    Link = 27, "link", "PPME_SYSCALL_LINK_2_X", Call, [86, 9, -], [Result, Path(0), Path(1)];
    /// `linkat`
    Linkat = 28, "linkat", "PPME_SYSCALL_LINKAT_2_X", Call, [265, 303, 37],
        [Result, Directory(0), PathAt(1, 0), Directory(2), PathAt(3, 2), Value(4)];
    /// `symlink`
    Symlink = 29, "symlink", "PPME_SYSCALL_SYMLINK_X", Call, [88, 83, -], [Result, Text(0), Path(1)];
    /// `symlinkat`
    Symlinkat = 30, "symlinkat", "PPME_SYSCALL_SYMLINKAT_X", Call, [266, 304, 36],
        [Result, Text(0), Directory(1), PathAt(2, 1)];
    /// `mknod`
    Mknod = 31, "mknod", "PPME_SYSCALL_MKNOD_X", Call, [133, 14, -], [Result, Path(0), Value(1), Value(2)];
    /// `mknodat`
    Mknodat = 32, "mknodat", "PPME_SYSCALL_MKNODAT_X", Call, [259, 297, 33],
        [Result, Directory(0), PathAt(1, 0), Value(2), Value(3)];
    /// `chmod`
    Chmod = 33, "chmod", "PPME_SYSCALL_CHMOD_X", Call, [90, 15, -], [Result, Path(0), Value(1)];
    /// `fchmod`
    Fchmod = 34, "fchmod", "PPME_SYSCALL_FCHMOD_X", Call, [91, 94, 52], [Result, Descriptor(0), Value(1)];
    /// `fchmodat`
    Fchmodat = 35, "fchmodat", "PPME_SYSCALL_FCHMODAT_X", Call, [268, 306, 53],
        [Result, Directory(0), PathAt(1, 0), Value(2)];
    /// `chown`
    Chown = 36, "chown", "PPME_SYSCALL_CHOWN_X", Call, [92, (212, 182), -], [Result, Path(0), Value(1), Value(2)];
    /// `lchown`
    Lchown = 37, "lchown", "PPME_SYSCALL_LCHOWN_X", Call, [94, (198, 16), -], [Result, Path(0), Value(1), Value(2)];
    /// `fchown`
    Fchown = 38, "fchown", "PPME_SYSCALL_FCHOWN_X", Call, [93, (207, 95), 55], [Result, Descriptor(0), Value(1), Value(2)];
    /// `fchownat`
    Fchownat = 39, "fchownat", "PPME_SYSCALL_FCHOWNAT_X", Call, [260, 298, 54],
        [Result, Directory(0), PathAt(1, 0), Value(2), Value(3), Value(4)];
    /// `mount`
    Mount = 40, "mount", "PPME_SYSCALL_MOUNT_X", Call, [165, 21, 40], [Result, Text(0), Path(1), Text(2), Value(3)];
    /// `umount2`
    Umount2 = 41, "umount2", "PPME_SYSCALL_UMOUNT2_X", Call, [166, 52, 39], [Result, Path(0), Value(1)];
    /// `chroot`
    Chroot = 42, "chroot", "PPME_SYSCALL_CHROOT_X", Call, [161, 61, 51], [Result, Path(0)];
    /// `socket`
    Socket = 43, "socket", "PPME_SOCKET_SOCKET_X", Call, [41, 359, 198], [New, Value(0), Value(1), Value(2), Unknown];
    /// `bind`
    Bind = 44, "bind", "PPME_SOCKET_BIND_X", Call, [49, 361, 200], [Result, Address(1), Descriptor(0)];
    /// `listen`
    Listen = 45, "listen", "PPME_SOCKET_LISTEN_X", Call, [50, 363, 201], [Result, Descriptor(0), Value(1)];
    /// `accept`
    Accept = 46, "accept", "PPME_SOCKET_ACCEPT_5_X", Call, [43, -, 202], [New, Tuple, Unknown, Unknown, Unknown];
    /// `accept4`
    Accept4 = 47, "accept4", "PPME_SOCKET_ACCEPT4_6_X", Call, [288, 364, 242],
        [New, Tuple, Unknown, Unknown, Unknown, Value(3)];
    /// `sendto`
    Sendto = 48, "sendto", "PPME_SOCKET_SENDTO_X", Call, [44, 369, 206],
        [Result, Data(1), Descriptor(0), Value(2), TupleTo(4)];
    /// `sendmsg`
    Sendmsg = 49, "sendmsg", "PPME_SOCKET_SENDMSG_X", Call, [46, 370, 211],
        [Result, MessageData(1), Descriptor(0), Result, TupleMessage(1)];
    /// `recvfrom`
    Recvfrom = 50, "recvfrom", "PPME_SOCKET_RECVFROM_X", Call, [45, 371, 207],
        [Result, Data(1), TupleFrom(4), Descriptor(0), Value(2)];
    /// `recvmsg`
    Recvmsg = 51, "recvmsg", "PPME_SOCKET_RECVMSG_X", Call, [47, 372, 212],
        [Result, Result, MessageData(1), TupleMessage(1), Unknown, Descriptor(0)];
    /// `dup`
    Dup = 52, "dup", "PPME_SYSCALL_DUP_1_X", Call, [32, 41, 23], [New, Value(0)];
    /// `dup2`
    Dup2 = 53, "dup2", "PPME_SYSCALL_DUP2_X", Call, [33, 63, -], [New, Value(0), Value(1)];
    /// `dup3`
    Dup3 = 54, "dup3", "PPME_SYSCALL_DUP3_X", Call, [292, 330, 24], [New, Value(0), Value(1), Value(2)];
    /// `ptrace`
    Ptrace = 55, "ptrace", "PPME_SYSCALL_PTRACE_X", Call, [101, 26, 117],
        [Result, Value(2), Value(3), Value(0), Value(1)];
    /// `process_vm_readv`
    ProcessVmReadv = 56, "process_vm_readv", "PPME_SYSCALL_PROCESS_VM_READV_X", Call, [310, 347, 270],
        [Result, Value(0), Unknown];
    /// `process_vm_writev`
    ProcessVmWritev = 57, "process_vm_writev", "PPME_SYSCALL_PROCESS_VM_WRITEV_X", Call, [311, 348, 271],
        [Result, Value(0), Unknown];
    /// `setuid`
    Setuid = 58, "setuid", "PPME_SYSCALL_SETUID_X", Call, [105, (213, 23), 146], [Result, Value(0)];
    /// `setgid`
    Setgid = 59, "setgid", "PPME_SYSCALL_SETGID_X", Call, [106, (214, 46), 144], [Result, Value(0)];
    /// `setreuid`
    Setreuid = 60, "setreuid", "PPME_SYSCALL_SETREUID_X", Call, [113, (203, 70), 145], [Result, Value(0), Value(1)];
    /// `setregid`
    Setregid = 61, "setregid", "PPME_SYSCALL_SETREGID_X", Call, [114, (204, 71), 143], [Result, Value(0), Value(1)];
    /// `setresuid`
    Setresuid = 62, "setresuid", "PPME_SYSCALL_SETRESUID_X", Call, [117, (208, 164), 147],
        [Result, Value(0), Value(1), Value(2)];
    /// `setresgid`
    Setresgid = 63, "setresgid", "PPME_SYSCALL_SETRESGID_X", Call, [119, (210, 170), 149],
        [Result, Value(0), Value(1), Value(2)];
    /// `capset`
    Capset = 64, "capset", "PPME_SYSCALL_CAPSET_X", Call, [126, 185, 91], [Result, Inheritable, Permitted, Effective];
    /// `setns`
    Setns = 65, "setns", "PPME_SYSCALL_SETNS_X", Call, [308, 346, 268], [Result, Descriptor(0), Value(1)];
    /// `unshare`
    Unshare = 66, "unshare", "PPME_SYSCALL_UNSHARE_X", Call, [272, 310, 97], [Result, Value(0)];
    /// `memfd_create`
    MemfdCreate = 67, "memfd_create", "PPME_SYSCALL_MEMFD_CREATE_X", Call, [319, 356, 279], [New, Text(0), Value(1)];
    /// `mmap`
    Mmap = 68, "mmap", "PPME_SYSCALL_MMAP_X", Call, [9, 192, 222],
        [Result, Unknown, Unknown, Unknown, Value(0), Value(1), Value(2), Value(3), Descriptor(4), Value(5)];
    /// `mprotect`
    Mprotect = 69, "mprotect", "PPME_SYSCALL_MPROTECT_X", Call, [10, 125, 226],
        [Result, Value(0), Value(1), Value(2)];
    /// `kill`
    Kill = 70, "kill", "PPME_SYSCALL_KILL_X", Call, [62, 37, 129], [Result, Value(0), Value(1)];
    /// `tkill`
    Tkill = 71, "tkill", "PPME_SYSCALL_TKILL_X", Call, [200, 238, 130], [Result, Value(0), Value(1)];
    /// `tgkill`
    Tgkill = 72, "tgkill", "PPME_SYSCALL_TGKILL_X", Call, [234, 270, 131], [Result, Value(0), Value(1), Value(2)];
    /// `prctl`
    Prctl = 73, "prctl", "PPME_SYSCALL_PRCTL_X", Call, [157, 172, 167], [Result, Value(0), Unknown, Value(1)];
    /// `bpf`
    Bpf = 74, "bpf", "PPME_SYSCALL_BPF_2_X", Call, [321, 357, 280], [New, Value(0)];
    /// `init_module`
    InitModule = 75, "init_module", "PPME_SYSCALL_INIT_MODULE_X", Call, [175, 128, 105],
        [Result, Unknown, Value(1), Text(2)];
    /// `finit_module`
    FinitModule = 76, "finit_module", "PPME_SYSCALL_FINIT_MODULE_X", Call, [313, 350, 273],
        [Result, Descriptor(0), Text(1), Value(2)];
    /// `delete_module`
    DeleteModule = 77, "delete_module", "PPME_SYSCALL_DELETE_MODULE_X", Call, [176, 129, 106],
        [Result, Text(0), Value(1)];
    /// `userfaultfd`
    Userfaultfd = 78, "userfaultfd", "PPME_SYSCALL_USERFAULTFD_X", Call, [323, 374, 282], [Result, Value(0)];
    /// `io_uring_setup`
    IoUringSetup = 79, "io_uring_setup", "PPME_SYSCALL_IO_URING_SETUP_X", Call, [425, 425, 425],
        [Result, Value(0), Unknown, Unknown, Unknown, Unknown, Unknown, Unknown];
    /// `keyctl`
    Keyctl = 80, "keyctl", "PPME_SYSCALL_KEYCTL_X", Call, [250, 288, 219],
        [Result, Value(0), Value(1), Value(2), Value(3), Value(4)];
    /// `pidfd_open`
    PidfdOpen = 81, "pidfd_open", "PPME_SYSCALL_PIDFD_OPEN_X", Call, [434, 434, 434], [New, Value(0), Value(1)];
    /// `pidfd_getfd`
    PidfdGetfd = 82, "pidfd_getfd", "PPME_SYSCALL_PIDFD_GETFD_X", Call, [438, 438, 438],
        [New, Value(0), Value(1), Value(2)];
    /// `seccomp`
    Seccomp = 83, "seccomp", "PPME_SYSCALL_SECCOMP_X", Call, [317, 354, 277], [Result, Value(0), Value(1)];
    /// `truncate`
    Truncate = 84, "truncate", "", Call, [76, (92, 193), 45], [];
    /// `ftruncate`
    Ftruncate = 85, "ftruncate", "", Call, [77, (93, 194), 46], [];
    /// `pivot_root`
    PivotRoot = 86, "pivot_root", "", Call, [155, 217, 41], [];
    /// `move_mount`
    MoveMount = 87, "move_mount", "", Call, [429, 429, 429], [];
    /// `setxattr`
    Setxattr = 88, "setxattr", "", Call, [188, 226, 5], [];
    /// `lsetxattr`
    Lsetxattr = 89, "lsetxattr", "", Call, [189, 227, 6], [];
    /// `fsetxattr`
    Fsetxattr = 90, "fsetxattr", "", Call, [190, 228, 7], [];
    /// `perf_event_open`
    PerfEventOpen = 91, "perf_event_open", "", Call, [298, 336, 241], [];
    /// `umount` of i386; elsewhere it is `umount2` without flags.
    Umount = 92, "umount", "PPME_SYSCALL_UMOUNT_1_X", Call, [-, 22, -], [Result, Path(0)];
    /// `sendmmsg`; what is told of messages is told of the first.
    Sendmmsg = 93, "sendmmsg", "PPME_SOCKET_SENDMMSG_X", Call, [307, 345, 269],
        [Result, Descriptor(0), Unknown, Unknown, TupleMessage(1)];
    /// `recvmmsg`; what is told of messages is told of the first.
    Recvmmsg = 94, "recvmmsg", "PPME_SOCKET_RECVMMSG_X", Call, [299, (337, 417), 243],
        [Result, Descriptor(0), Unknown, Unknown, TupleMessage(1), Unknown];
    /// `fsconfig`
    Fsconfig = 95, "fsconfig", "PPME_SYSCALL_FSCONFIG_X", Call, [431, 431, 431],
        [Result, Descriptor(0), Value(1), Text(2), Unknown, Text(3), Value(4)];
    /// `fsopen`
    Fsopen = 96, "fsopen", "", Call, [430, 430, 430], [];
    /// `fsmount`
    Fsmount = 97, "fsmount", "", Call, [432, 432, 432], [];
    /// `open_tree`
    OpenTree = 98, "open_tree", "", Call, [428, 428, 428], [];
    /// `mount_setattr`
    MountSetattr = 99, "mount_setattr", "", Call, [442, 442, 442], [];
    /// `fchmodat2`
    Fchmodat2 = 100, "fchmodat2", "", Call, [452, 452, 452], [];
    /// `pidfd_send_signal`
    PidfdSendSignal = 101, "pidfd_send_signal", "", Call, [424, 424, 424], [];
    /// `kexec_load`
    KexecLoad = 102, "kexec_load", "", Call, [246, 283, 104], [];
    /// `kexec_file_load`
    KexecFileLoad = 103, "kexec_file_load", "", Call, [320, -, 294], [];
    /// An `execve` that failed: a call that returns, by a program that stays what it was.
    FailedExecve = 104, "execve", "PPME_SYSCALL_EXECVE_19_X", Call, [59, 11, 221], [Result, Texts(1), Path(0)];
    /// An `execveat` that failed.
    FailedExecveat = 105, "execveat", "PPME_SYSCALL_EXECVEAT_X", Call, [322, 358, 281],
        [Result, Texts(2), PathAt(1, 0)];
    /// `fcntl`
    Fcntl = 106, "fcntl", "PPME_SYSCALL_FCNTL_X", Call, [72, (55, 221), 25],
        [Result, Descriptor(0), Value(1), Value(2)];
    /// `rt_sigqueueinfo`
    RtSigqueueinfo = 107, "rt_sigqueueinfo", "", Call, [129, 178, 138], [];
    /// `rt_tgsigqueueinfo`
    RtTgsigqueueinfo = 108, "rt_tgsigqueueinfo", "", Call, [297, 335, 240], [];
    /// `process_madvise`
    ProcessMadvise = 109, "process_madvise", "", Call, [440, 440, 440], [];
    /// `memfd_secret`
    MemfdSecret = 110, "memfd_secret", "", Call, [447, 447, 447], [];
    /// `setgroups`
    Setgroups = 111, "setgroups", "", Call, [116, (206, 81), 159], [];
    /// `setfsuid`
    Setfsuid = 112, "setfsuid", "", Call, [122, (215, 138), 151], [];
    /// `setfsgid`
    Setfsgid = 113, "setfsgid", "", Call, [123, (216, 139), 152], [];
    /// `add_key`
    AddKey = 114, "add_key", "", Call, [248, 286, 217], [];
    /// `request_key`
    RequestKey = 115, "request_key", "", Call, [249, 287, 218], [];
    /// `setxattrat`
    Setxattrat = 116, "setxattrat", "", Call, [463, 463, 463], [];
    /// `removexattr`
    Removexattr = 117, "removexattr", "", Call, [197, 235, 14], [];
    /// `lremovexattr`
    Lremovexattr = 118, "lremovexattr", "", Call, [198, 236, 15], [];
    /// `fremovexattr`
    Fremovexattr = 119, "fremovexattr", "", Call, [199, 237, 16], [];
    /// `removexattrat`
    Removexattrat = 120, "removexattrat", "", Call, [466, 466, 466], [];
}

impl EventType {
    /// The i386 multiplexer of socket calls.
    pub const I386_SOCKETCALL: u16 = 102;

    /// What `socketcall` calls for each of its first arguments (`include/uapi/linux/net.h`): the event's code, or 0 for none of
    /// the table, and in the high byte the number of its arguments. `send` and `recv` are calls without an address.
    pub const fn socketcalls() -> [u16; 32] {
        const CALLS: [(usize, EventType, u16); 14] = [
            (1, EventType::Socket, 3),
            (2, EventType::Bind, 3),
            (3, EventType::Connect, 3),
            (4, EventType::Listen, 2),
            (5, EventType::Accept, 3),
            (9, EventType::Sendto, 4),
            (10, EventType::Recvfrom, 4),
            (11, EventType::Sendto, 6),
            (12, EventType::Recvfrom, 6),
            (16, EventType::Sendmsg, 3),
            (17, EventType::Recvmsg, 3),
            (18, EventType::Accept4, 4),
            (19, EventType::Recvmmsg, 5),
            (20, EventType::Sendmmsg, 4),
        ];
        let mut table = [0; 32];
        let mut nth = 0;
        while nth < CALLS.len() {
            let (operation, event, arguments) = CALLS[nth];
            table[operation] = event.code() | arguments << 8;
            nth += 1;
        }
        table
    }

    /// The first of the plain calls: of events with a call's number they have the highest codes.
    pub const FIRST_CALL: Self = Self::Rename;

    /// An exec that failed; it has the call's number, for one that succeeds is told of by the scheduler.
    pub const fn is_failed_exec(self) -> bool {
        matches!(self, Self::FailedExecve | Self::FailedExecveat)
    }

    /// The wire code.
    pub const fn code(self) -> u16 {
        self as u16
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
            if [Arch::X86_64, Arch::I386, Arch::Aarch64].iter().any(|arch| event.call(*arch).is_some()) {
                let is_plain = event.group() == EventGroup::Call;
                assert_eq!(is_plain, *event >= EventType::FIRST_CALL, "{event:?} is out of place");
            }
        }
        assert_eq!(EventType::from_code(0), None);
        assert_eq!(EventType::from_code(255), None, "a code is a byte that is not all ones");
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
                if arch == Arch::I386 {
                    for number in event.other_i386_calls() {
                        let slot = &mut seen[usize::from(*number)];
                        assert!(!*slot, "{arch:?} {number} is in two rows");
                        *slot = true;
                    }
                }
            }
        }
    }
}
