//! The events rules can speak of: names, kinds and parameters.
//!
//! Falco numbers events so that one name can stand for several codes (old and new versions, enter and exit); rules and
//! event sets work on the codes. System calls without an event of their own share the *generic* event, which names the
//! call.

mod set;
mod table;

use std::fmt;

pub use set::EventSet;
pub use table::{EVENTS, SYSCALLS};

use crate::types::{PrintFormat, Type};

/// What happened: one event of the table, or one system call of those that share the generic event.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventCode(u16);

/// One row of the event table.
#[derive(Debug)]
pub struct Event {
    /// Name, as `evt.type` gives it; `NA` where unused.
    pub name: &'static str,
    /// Where such events come from.
    pub origin: Origin,
    /// What it is about.
    pub category: Category,
    /// See the constants of [`Event`].
    pub flags: u8,
    /// Parameters in order.
    pub params: &'static [Param],
}

/// A parameter of an event.
#[derive(Debug)]
pub struct Param {
    /// Its name, as in `evt.arg.NAME`.
    pub name: &'static str,
    /// Its type.
    pub ty: Type,
    /// How it prints.
    pub print: PrintFormat,
}

/// Where events come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Origin {
    Syscall,
    Tracepoint,
    Plugin,
    Meta,
    Iterator,
    Unused,
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Category {
    Unknown,
    Other,
    File,
    Net,
    Ipc,
    Memory,
    Process,
    Sleep,
    System,
    Signal,
    User,
    Time,
    Wait,
    IoRead,
    IoWrite,
    IoOther,
    Scheduler,
    Internal,
}

impl Event {
    /// No flag.
    pub const NONE: u8 = 0;
    /// A version that no sensor produces any more.
    pub const OLD: u8 = 1;
    /// A number that names nothing.
    pub const UNUSED: u8 = 2;
    /// Reads from a descriptor.
    pub const READS: u8 = 4;
    /// Writes to a descriptor.
    pub const WRITES: u8 = 8;
    /// Waits.
    pub const WAITS: u8 = 16;
    /// Works on a descriptor.
    pub const USES_FD: u8 = 32;

    /// Whether a number stands for an event at all.
    pub fn is_used(&self) -> bool {
        self.flags & Self::UNUSED == 0
    }

    /// The parameter called `name` and its position.
    pub fn param(&self, name: &[u8]) -> Option<(usize, &'static Param)> {
        self.params.iter().enumerate().find(|(_, param)| param.name.as_bytes() == name)
    }
}

impl EventCode {
    /// Set in codes that name a system call of the generic event; the rest is its place in [`SYSCALLS`].
    const CALL: u16 = 0x8000;

    /// The event with number `number` of the table.
    pub fn from_number(number: u16) -> Option<Self> {
        (usize::from(number) < EVENTS.len()).then_some(Self(number))
    }

    /// The current event called `name`, or the generic event for the system call called `name`.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::current().iter().find(|(known, _)| *known == name).map(|(_, code)| *code).or_else(|| {
            let place = SYSCALLS.iter().position(|call| *call == name)?;
            Some(Self(Self::CALL | place as u16))
        })
    }

    /// The number in the event table: that of the generic event for the calls that share it.
    pub const fn number(self) -> u16 {
        if self.0 & Self::CALL != 0 { Self::GENERIC.0 } else { self.0 }
    }

    /// The row of the table.
    pub fn event(self) -> &'static Event {
        &EVENTS[usize::from(self.number())]
    }

    /// The name, as `evt.type` gives it.
    pub fn name(self) -> &'static str {
        match self.syscall() {
            Some(call) => call,
            None => self.event().name,
        }
    }

    /// The name of the system call, of those that share the generic event.
    pub fn syscall(self) -> Option<&'static str> {
        (self.0 & Self::CALL != 0).then(|| SYSCALLS[usize::from(self.0 & !Self::CALL)])
    }

    /// Whether the call shares the generic event: it has no result and no parameters of its own.
    pub const fn is_generic(self) -> bool {
        self.number() <= Self::GENERIC.0
    }

    /// Whether it is a system call.
    pub fn is_syscall(self) -> bool {
        self.event().origin == Origin::Syscall
    }
}

/// Names of the system calls that share the generic event.
pub fn generic_calls() -> impl Iterator<Item = &'static str> {
    SYSCALLS.into_iter().filter(|call| !EVENTS.iter().any(|event| event.is_used() && event.name == *call))
}

impl fmt::Debug for EventCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.name(), self.number())
    }
}

macro_rules! codes {
    ($($konst:ident = $number:literal, $name:literal;)*) => {
        impl EventCode {
            $(#[doc = concat!("`", $name, "` (number ", stringify!($number), ")")] pub const $konst: Self = Self($number);)*

            /// The current code of every event name.
            pub const fn current() -> &'static [(&'static str, Self)] {
                &[$(($name, Self::$konst)),*]
            }
        }
    };
}

codes! {
    GENERIC = 1, "syscall";
    OPEN = 3, "open";
    CLOSE = 5, "close";
    READ = 7, "read";
    WRITE = 9, "write";
    SOCKET = 19, "socket";
    BIND = 21, "bind";
    CONNECT = 23, "connect";
    LISTEN = 25, "listen";
    SEND = 29, "send";
    SENDTO = 31, "sendto";
    RECV = 33, "recv";
    RECVFROM = 35, "recvfrom";
    SHUTDOWN = 37, "shutdown";
    GETSOCKNAME = 39, "getsockname";
    GETPEERNAME = 41, "getpeername";
    SOCKETPAIR = 43, "socketpair";
    SETSOCKOPT = 45, "setsockopt";
    GETSOCKOPT = 47, "getsockopt";
    SENDMSG = 49, "sendmsg";
    SENDMMSG = 51, "sendmmsg";
    RECVMSG = 53, "recvmsg";
    RECVMMSG = 55, "recvmmsg";
    CREAT = 59, "creat";
    PIPE = 61, "pipe";
    EVENTFD = 63, "eventfd";
    FUTEX = 65, "futex";
    STAT = 67, "stat";
    LSTAT = 69, "lstat";
    FSTAT = 71, "fstat";
    STAT64 = 73, "stat64";
    LSTAT64 = 75, "lstat64";
    FSTAT64 = 77, "fstat64";
    EPOLL_WAIT = 79, "epoll_wait";
    POLL = 81, "poll";
    SELECT = 83, "select";
    LSEEK = 87, "lseek";
    LLSEEK = 89, "llseek";
    GETCWD = 93, "getcwd";
    CHDIR = 95, "chdir";
    FCHDIR = 97, "fchdir";
    PREAD = 113, "pread";
    PWRITE = 115, "pwrite";
    READV = 117, "readv";
    WRITEV = 119, "writev";
    PREADV = 121, "preadv";
    PWRITEV = 123, "pwritev";
    SIGNALFD = 127, "signalfd";
    KILL = 129, "kill";
    TKILL = 131, "tkill";
    TGKILL = 133, "tgkill";
    NANOSLEEP = 135, "nanosleep";
    TIMERFD_CREATE = 137, "timerfd_create";
    INOTIFY_INIT = 139, "inotify_init";
    GETRLIMIT = 141, "getrlimit";
    SETRLIMIT = 143, "setrlimit";
    PRLIMIT = 145, "prlimit";
    DROP = 149, "drop";
    FCNTL = 151, "fcntl";
    SWITCH = 152, "switch";
    BRK = 159, "brk";
    MMAP = 161, "mmap";
    MMAP2 = 163, "mmap2";
    MUNMAP = 165, "munmap";
    SPLICE = 167, "splice";
    PTRACE = 169, "ptrace";
    IOCTL = 171, "ioctl";
    RENAME = 175, "rename";
    RENAMEAT = 177, "renameat";
    SYMLINK = 179, "symlink";
    SYMLINKAT = 181, "symlinkat";
    PROCEXIT = 186, "procexit";
    SENDFILE = 189, "sendfile";
    QUOTACTL = 191, "quotactl";
    SETRESUID = 193, "setresuid";
    SETRESGID = 195, "setresgid";
    SCAPEVENT = 196, "scapevent";
    SETUID = 199, "setuid";
    SETGID = 201, "setgid";
    GETUID = 203, "getuid";
    GETEUID = 205, "geteuid";
    GETGID = 207, "getgid";
    GETEGID = 209, "getegid";
    GETRESUID = 211, "getresuid";
    GETRESGID = 213, "getresgid";
    CLONE = 223, "clone";
    FORK = 225, "fork";
    VFORK = 227, "vfork";
    SIGNALDELIVER = 232, "signaldeliver";
    PROCINFO = 234, "procinfo";
    GETDENTS = 237, "getdents";
    GETDENTS64 = 239, "getdents64";
    SETNS = 241, "setns";
    FLOCK = 243, "flock";
    CPU_HOTPLUG = 244, "cpu_hotplug";
    ACCEPT = 247, "accept";
    SEMOP = 251, "semop";
    SEMCTL = 253, "semctl";
    PPOLL = 255, "ppoll";
    MOUNT = 257, "mount";
    K8S = 260, "k8s";
    SEMGET = 263, "semget";
    ACCESS = 265, "access";
    CHROOT = 267, "chroot";
    TRACER = 268, "tracer";
    MESOS = 270, "mesos";
    SETSID = 275, "setsid";
    MKDIR = 277, "mkdir";
    RMDIR = 279, "rmdir";
    NOTIFICATION = 280, "notification";
    UNSHARE = 285, "unshare";
    INFRA = 286, "infra";
    PAGE_FAULT = 290, "page_fault";
    EXECVE = 293, "execve";
    SETPGID = 295, "setpgid";
    SECCOMP = 299, "seccomp";
    UNLINK = 301, "unlink";
    UNLINKAT = 303, "unlinkat";
    MKDIRAT = 305, "mkdirat";
    OPENAT = 307, "openat";
    LINK = 309, "link";
    LINKAT = 311, "linkat";
    FCHMODAT = 313, "fchmodat";
    CHMOD = 315, "chmod";
    FCHMOD = 317, "fchmod";
    RENAMEAT2 = 319, "renameat2";
    USERFAULTFD = 321, "userfaultfd";
    PLUGINEVENT = 322, "pluginevent";
    CONTAINER = 324, "container";
    OPENAT2 = 327, "openat2";
    MPROTECT = 329, "mprotect";
    EXECVEAT = 331, "execveat";
    COPY_FILE_RANGE = 333, "copy_file_range";
    CLONE3 = 335, "clone3";
    OPEN_BY_HANDLE_AT = 337, "open_by_handle_at";
    IO_URING_SETUP = 339, "io_uring_setup";
    IO_URING_ENTER = 341, "io_uring_enter";
    IO_URING_REGISTER = 343, "io_uring_register";
    MLOCK = 345, "mlock";
    MUNLOCK = 347, "munlock";
    MLOCKALL = 349, "mlockall";
    MUNLOCKALL = 351, "munlockall";
    CAPSET = 353, "capset";
    USERADDED = 354, "useradded";
    USERDELETED = 356, "userdeleted";
    GROUPADDED = 358, "groupadded";
    GROUPDELETED = 360, "groupdeleted";
    DUP2 = 363, "dup2";
    DUP3 = 365, "dup3";
    DUP = 367, "dup";
    BPF = 369, "bpf";
    MLOCK2 = 371, "mlock2";
    FSCONFIG = 373, "fsconfig";
    EPOLL_CREATE = 375, "epoll_create";
    EPOLL_CREATE1 = 377, "epoll_create1";
    CHOWN = 379, "chown";
    LCHOWN = 381, "lchown";
    FCHOWN = 383, "fchown";
    FCHOWNAT = 385, "fchownat";
    UMOUNT = 387, "umount";
    ACCEPT4 = 389, "accept4";
    UMOUNT2 = 391, "umount2";
    PIPE2 = 393, "pipe2";
    INOTIFY_INIT1 = 395, "inotify_init1";
    EVENTFD2 = 397, "eventfd2";
    SIGNALFD4 = 399, "signalfd4";
    PRCTL = 401, "prctl";
    ASYNCEVENT = 402, "asyncevent";
    MEMFD_CREATE = 405, "memfd_create";
    PIDFD_GETFD = 407, "pidfd_getfd";
    PIDFD_OPEN = 409, "pidfd_open";
    INIT_MODULE = 411, "init_module";
    FINIT_MODULE = 413, "finit_module";
    MKNOD = 415, "mknod";
    MKNODAT = 417, "mknodat";
    NEWFSTATAT = 419, "newfstatat";
    PROCESS_VM_READV = 421, "process_vm_readv";
    PROCESS_VM_WRITEV = 423, "process_vm_writev";
    DELETE_MODULE = 425, "delete_module";
    SETREUID = 427, "setreuid";
    SETREGID = 429, "setregid";
    TASK = 430, "task";
    TASK_FILE_PIPE = 432, "task_file_pipe";
    TASK_FILE_MEMFD = 434, "task_file_memfd";
    TASK_FILE_REGULAR = 436, "task_file_regular";
    TASK_FILE_DIRECTORY = 438, "task_file_directory";
    TASK_FILE_SOCKET_INET = 440, "task_file_socket_inet";
    TASK_FILE_SOCKET_INET6 = 442, "task_file_socket_inet6";
    TASK_FILE_SOCKET_UNIX = 444, "task_file_socket_unix";
    TASK_FILE_SOCKET_NETLINK = 446, "task_file_socket_netlink";
    TASK_FILE_ANON_INODE = 448, "task_file_anon_inode";
    CLOSE_RANGE = 451, "close_range";
    KEYCTL = 453, "keyctl";
}
