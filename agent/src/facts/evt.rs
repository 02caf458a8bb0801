//! `evt.*` and `syscall.*`: the event itself, its result and its parameters.

use std::borrow::Cow;
use std::sync::OnceLock;

use purser_rules::event::Category;
use purser_rules::{Arg, EventCode, Fact, FieldId, FieldRef, Value};

use super::{NOT_APPLICABLE, Sight, boolean, signed, unsigned};
use crate::event::{Body, Connect, EventType, Exec, FileIdentity, Open};

const NS: u64 = 1_000_000_000;

/// The code that rules know an event by.
pub(crate) fn code(event: EventType) -> EventCode {
    static CODES: OnceLock<Vec<EventCode>> = OnceLock::new();
    let codes = CODES.get_or_init(|| {
        let mut codes = vec![EventCode::GENERIC; 256];
        for event in EventType::ALL {
            codes[usize::from(event.code())] = EventCode::by_name(event.name()).unwrap_or(EventCode::GENERIC);
        }
        codes
    });
    codes[usize::from(event.code())]
}

impl Sight<'_> {
    pub(super) fn evt_fact(&self, field: FieldRef<'_>) -> Option<Fact<'_>> {
        let header = &self.event.header;
        if let Body::Call(call) = &self.event.body
            && let Some(fact) = self.call_fact(call, field)
        {
            return Some(fact);
        }
        Some(match field.id {
            FieldId::EVT_NUM => unsigned(self.number),
            FieldId::EVT_TYPE => Fact::text(header.event.name().as_bytes()),
            FieldId::EVT_TYPE_IS => {
                unsigned(u64::from(matches!(field.arg, Arg::Key(name) if name == header.event.name().as_bytes())))
            }
            FieldId::SYSCALL_TYPE => match self.event.body {
                Body::Exit(_) | Body::Cgroup(_) | Body::Rename => NOT_APPLICABLE,
                _ => Fact::text(header.event.name().as_bytes()),
            },
            FieldId::EVT_CATEGORY => Fact::text(self.category()),
            FieldId::EVT_CPU => signed(i64::from(header.cpu)),
            FieldId::EVT_RAWTIME => unsigned(self.epoch_ns()),
            FieldId::EVT_RAWTIME_S => unsigned(self.epoch_ns() / NS),
            FieldId::EVT_RAWTIME_NS => unsigned(self.epoch_ns() % NS),
            FieldId::EVT_RELTIME => unsigned(self.since_start()),
            FieldId::EVT_RELTIME_S => unsigned(self.since_start() / NS),
            FieldId::EVT_RELTIME_NS => unsigned(self.since_start() % NS),
            FieldId::EVT_DELTATIME => unsigned(self.since_previous()),
            FieldId::EVT_DELTATIME_S => unsigned(self.since_previous() / NS),
            FieldId::EVT_DELTATIME_NS => unsigned(self.since_previous() % NS),
            FieldId::EVT_SOURCE => Fact::text(b"syscall"),
            FieldId::EVT_IS_ASYNC
            | FieldId::EVT_IS_IO
            | FieldId::EVT_IS_IO_READ
            | FieldId::EVT_IS_IO_WRITE
            | FieldId::EVT_IS_WAIT
            | FieldId::EVT_IS_SYSLOG => boolean(false),
            FieldId::EVT_HOSTNAME => {
                static HOSTNAME: OnceLock<String> = OnceLock::new();
                Fact::text(HOSTNAME.get_or_init(crate::alert::hostname).as_bytes())
            }
            FieldId::EVT_DIR => Fact::text(b"<"),
            FieldId::EVT_LATENCY
            | FieldId::EVT_LATENCY_S
            | FieldId::EVT_LATENCY_NS
            | FieldId::EVT_LATENCY_QUANTIZED
            | FieldId::EVT_WAIT_LATENCY => unsigned(0),
            FieldId::EVT_LATENCY_HUMAN => Fact::text(b"0ns"),
            FieldId::EVT_COUNT | FieldId::EVT_COUNT_EXIT => unsigned(1),
            FieldId::EVT_RAWRES => self.result().map_or(NOT_APPLICABLE, signed),
            FieldId::EVT_FAILED => self.result().map_or(NOT_APPLICABLE, |result| boolean(result < 0)),
            FieldId::EVT_RES => {
                self.result().map_or(NOT_APPLICABLE, |result| Fact::text(result_name(result).as_bytes()))
            }
            FieldId::EVT_COUNT_ERROR => unsigned(u64::from(self.result().is_some_and(|result| result < 0))),
            FieldId::EVT_COUNT_ERROR_FILE => self.failed_in(b"file"),
            FieldId::EVT_COUNT_ERROR_NET => self.failed_in(b"net"),
            FieldId::EVT_COUNT_ERROR_MEMORY => self.failed_in(b"memory"),
            FieldId::EVT_COUNT_ERROR_OTHER => {
                let others = !matches!(self.category(), b"file" | b"net" | b"memory");
                unsigned(u64::from(others && self.result().is_some_and(|result| result < 0)))
            }
            FieldId::EVT_IS_OPEN_READ => boolean(self.open().is_some_and(opens_for_reading)),
            FieldId::EVT_IS_OPEN_WRITE => boolean(self.open().is_some_and(opens_for_writing)),
            FieldId::EVT_IS_OPEN_CREATE => boolean(self.open().is_some_and(|open| open.created)),
            FieldId::EVT_IS_OPEN_EXEC => {
                boolean(self.open().is_some_and(|open| makes_a_file(open) && open.mode & 0o111 != 0))
            }
            FieldId::EVT_IO_URING => boolean(match &self.event.body {
                Body::Open(open) => open.io_uring,
                Body::Connect(connect) => connect.io_uring,
                Body::Call(call) => call.io_uring,
                _ => false,
            }),
            // Opens and connects that failed leave no kernel object: their name comes from the caller's memory.
            FieldId::EVT_ARG_SOURCE => Fact::text(match &self.event.body {
                Body::Open(open) if open.file.is_none() && !open.io_uring => b"user",
                Body::Connect(connect) if connect.socket.remote_from_user => b"user",
                Body::Call(call) if call.io_uring => b"kernel",
                Body::Call(call) if call.texts.iter().any(|text| !text.is_empty()) => b"user",
                Body::Call(call) if call.socket.as_ref().is_some_and(|socket| socket.remote_from_user) => b"user",
                _ => b"kernel",
            }),
            FieldId::EVT_ARG => self.argument(field.arg),
            FieldId::EVT_RAWARG => self.raw_argument(field.arg),
            FieldId::EVT_ARGS | FieldId::EVT_INFO => self.all_arguments(),
            FieldId::EVT_ABSPATH => match self.event.body {
                Body::Open(_) if !self.name.is_empty() => Fact::text(self.name),
                _ => NOT_APPLICABLE,
            },
            FieldId::FS_PATH_NAME => match &self.event.body {
                Body::Open(_) if self.has_fs_path() && !self.name.is_empty() => Fact::text(self.name),
                _ => NOT_APPLICABLE,
            },
            FieldId::FS_PATH_NAMERAW => match &self.event.body {
                Body::Open(open) if self.has_fs_path() && !open.name.is_empty() => Fact::text(&open.name),
                _ => NOT_APPLICABLE,
            },
            _ => return None,
        })
    }

    fn category(&self) -> &'static [u8] {
        match self.event.body {
            Body::Open(_) => b"file",
            Body::Connect(_) => b"net",
            Body::Exec(_) | Body::Fork(_) | Body::Exit(_) => b"process",
            Body::Cgroup(_) | Body::Rename => b"other",
            Body::Call(_) => category(code(self.event.header.event).event().category),
        }
    }

    /// 1 for a failed call of a category.
    fn failed_in(&self, category: &[u8]) -> Fact<'static> {
        unsigned(u64::from(self.category() == category && self.result().is_some_and(|result| result < 0)))
    }

    fn since_start(&self) -> u64 {
        self.event.header.boot_ns.saturating_sub(self.started_boot_ns)
    }

    fn since_previous(&self) -> u64 {
        if self.previous_boot_ns == 0 { 0 } else { self.event.header.boot_ns.saturating_sub(self.previous_boot_ns) }
    }

    fn open(&self) -> Option<&Open> {
        match &self.event.body {
            Body::Open(open) => Some(open),
            _ => None,
        }
    }

    /// `creat` and handles have no `fs.path.name` upstream either.
    fn has_fs_path(&self) -> bool {
        matches!(self.event.header.event, EventType::Open | EventType::Openat | EventType::Openat2)
    }

    /// The first parameter of the event, whatever its name.
    fn result(&self) -> Option<i64> {
        match &self.event.body {
            Body::Exec(_) => Some(0),
            Body::Fork(fork) => Some(i64::from(fork.child_vtid)),
            Body::Open(open) => Some(open.result),
            Body::Connect(connect) => Some(connect.result),
            Body::Call(call) => (!code(self.event.header.event).is_generic()).then_some(call.result),
            // No system call returned.
            Body::Exit(_) | Body::Cgroup(_) | Body::Rename => None,
        }
    }

    fn argument(&self, arg: Arg<'_>) -> Fact<'_> {
        let params = code(self.event.header.event).event().params;
        let name = match arg {
            Arg::Index(index) => match usize::try_from(index).ok().and_then(|index| params.get(index)) {
                Some(param) => param.name.as_bytes(),
                None => return NOT_APPLICABLE,
            },
            Arg::Key(name) => name,
            Arg::None => return NOT_APPLICABLE,
        };
        match self.parameter(name) {
            Some(Parameter { text, .. }) => self.keep_text(&text),
            None => NOT_APPLICABLE,
        }
    }

    fn raw_argument(&self, arg: Arg<'_>) -> Fact<'_> {
        let Arg::Key(name) = arg else { return NOT_APPLICABLE };
        match self.parameter(name) {
            Some(Parameter { raw: Some(Raw::Signed(value)), .. }) => signed(value),
            Some(Parameter { raw: Some(Raw::Unsigned(value)), .. }) => unsigned(value),
            Some(Parameter { raw: Some(Raw::Text), text }) => self.keep_text(&text),
            Some(Parameter { raw: Some(Raw::Bytes), text }) => Fact::One(Value::Bytes(self.keep(&text))),
            _ => NOT_APPLICABLE,
        }
    }

    fn all_arguments(&self) -> Fact<'_> {
        let mut line = Vec::new();
        for param in code(self.event.header.event).event().params {
            let Some(value) = self.parameter(param.name.as_bytes()) else { continue };
            if !line.is_empty() {
                line.push(b' ');
            }
            line.extend_from_slice(param.name.as_bytes());
            line.push(b'=');
            match value.raw {
                Some(Raw::Signed(raw)) if value.text != raw.to_string().as_bytes() => {
                    line.extend_from_slice(format!("{raw}(").as_bytes());
                    line.extend_from_slice(&value.text);
                    line.push(b')');
                }
                Some(Raw::Unsigned(raw)) if value.text != raw.to_string().as_bytes() => {
                    line.extend_from_slice(format!("{raw}(").as_bytes());
                    line.extend_from_slice(&value.text);
                    line.push(b')');
                }
                _ => line.extend_from_slice(&value.text),
            }
        }
        self.keep_text(&line)
    }

    /// The parameter called `name`, rendered as upstream renders it.
    fn parameter(&self, name: &[u8]) -> Option<Parameter<'_>> {
        match &self.event.body {
            Body::Exec(exec) => self.exec_parameter(exec, name),
            Body::Fork(fork) => match name {
                b"res" => Some(Parameter::signed(fork.child_vtid.into())),
                _ => self.task_parameter(name),
            },
            Body::Exit(exit) => match name {
                b"status" => Some(Parameter::unsigned(exit.status.into())),
                b"ret" => Some(Parameter::unsigned((exit.status >> 8 & 0xff).into())),
                b"sig" => Some(Parameter::unsigned((exit.status & 0x7f).into())),
                b"core" => Some(Parameter::unsigned((exit.status >> 7 & 1).into())),
                _ => None,
            },
            Body::Open(open) => self.open_parameter(open, name),
            Body::Connect(connect) => self.connect_parameter(connect, name),
            Body::Cgroup(_) | Body::Rename => None,
            Body::Call(call) => self.call_parameter(call, name),
        }
    }

    /// What is told of the task with events of processes.
    pub(super) fn task_parameter(&self, name: &[u8]) -> Option<Parameter<'_>> {
        let task = &self.event.task;
        Some(match name {
            b"exe" => Parameter::text(self.process.program.exe()),
            b"args" => Parameter::text(&self.process.program.args_joined()).into_owned(),
            b"tid" => Parameter::signed(task.tid.into()),
            b"pid" => Parameter::signed(task.tgid.into()),
            b"ptid" => Parameter::signed(task.parent_tgid.into()),
            b"cwd" => Parameter::text(&self.process.program.cwd),
            b"comm" => Parameter::text(self.process.comm()),
            b"tty" => Parameter::unsigned(super::fd::device(task.tty).into()),
            b"vpgid" => Parameter::signed(task.vpgid.into()),
            b"pgid" => Parameter::signed(task.pgid.into()),
            b"loginuid" => Parameter::signed((task.loginuid as i32).into()),
            b"uid" => Parameter::unsigned(task.euid.into()),
            b"gid" => Parameter::unsigned(task.egid.into()),
            b"vtid" => Parameter::signed(task.vtid.into()),
            b"vpid" => Parameter::signed(task.vtgid.into()),
            _ => return None,
        })
    }

    /// A capability set of the task.
    pub(super) fn capability(&self, name: &[u8]) -> Option<Parameter<'_>> {
        let sets = self.event.task.capabilities;
        Some(Parameter::hexadecimal(match name {
            b"cap_inheritable" => sets.inheritable,
            b"cap_permitted" => sets.permitted,
            b"cap_effective" => sets.effective,
            _ => return None,
        }))
    }

    fn exec_parameter<'s>(&'s self, exec: &'s Exec, name: &[u8]) -> Option<Parameter<'s>> {
        match name {
            b"res" => Some(Parameter::signed(0)),
            b"filename" => Some(Parameter::text(&exec.filename)),
            b"trusted_exepath" => Some(Parameter::text(&exec.path)),
            b"env" => Some(Parameter::text(&exec.envp.split(|b| *b == 0).collect::<Vec<_>>().join(&b' ')).into_owned()),
            b"flags" => Some(self.exec_flags_parameter(&exec.file)),
            b"exe_ino" => Some(Parameter::unsigned(exec.file.ino)),
            b"exe_ino_ctime" => Some(Parameter::unsigned(exec.file.ctime_ns as u64)),
            b"exe_ino_mtime" => Some(Parameter::unsigned(exec.file.mtime_ns as u64)),
            _ => self.capability(name).or_else(|| self.task_parameter(name)),
        }
    }

    pub(super) fn exec_flags_parameter(&self, file: &FileIdentity) -> Parameter<'static> {
        let flags = self.exec_flags(file);
        Parameter { text: flag_text(&EXEC_FLAGS, flags).into(), raw: Some(Raw::Unsigned(flags)) }
    }

    fn exec_flags(&self, file: &FileIdentity) -> u64 {
        let upper = file.in_layer(|overlay| overlay.upper) == Some(true);
        let lower = file.in_layer(|overlay| !overlay.upper) == Some(true);
        let set = [(self.may_write(file), 1), (upper, 2), (file.memfd, 4), (lower, 8)];
        set.iter().filter(|(is_set, _)| *is_set).map(|(_, flag)| flag).sum()
    }

    fn open_parameter(&self, open: &Open, name: &[u8]) -> Option<Parameter<'_>> {
        Some(match name {
            b"fd" => descriptor(open.result, b'f', self.name),
            b"dirfd" if open.dirfd == -100 => {
                Parameter { text: Cow::Borrowed(b"AT_FDCWD"), raw: Some(Raw::Signed(-100)) }
            }
            b"dirfd" => descriptor(open.dirfd.into(), b'd', &open.dir),
            b"mountfd" => descriptor(open.dirfd.into(), b'd', &[]),
            b"name" | b"path" => Parameter::text(if open.name.is_empty() { self.name } else { self.keep(&open.name) }),
            b"flags" | b"creat_flags" => {
                let flags = falco_open_flags(open);
                Parameter { text: flag_text(&OPEN_FLAGS, flags).into(), raw: Some(Raw::Unsigned(flags)) }
            }
            b"mode" => {
                let mode = if takes_mode(open) { open.mode } else { 0 };
                Parameter { text: Cow::Owned(format!("{mode:o}").into_bytes()), raw: Some(Raw::Unsigned(mode.into())) }
            }
            b"dev" => {
                let dev = open.file.map_or(0, |file| super::fd::device(file.dev));
                Parameter { text: Cow::Owned(format!("{dev:X}").into_bytes()), raw: Some(Raw::Unsigned(dev.into())) }
            }
            b"ino" => Parameter::unsigned(open.file.map_or(0, |file| file.ino)),
            _ => return None,
        })
    }

    fn connect_parameter(&self, connect: &Connect, name: &[u8]) -> Option<Parameter<'_>> {
        Some(match name {
            b"res" => Parameter {
                text: Cow::Borrowed(if connect.result < 0 { result_name(connect.result).as_bytes() } else { b"0" }),
                raw: Some(Raw::Signed(connect.result)),
            },
            b"fd" => descriptor(connect.fd.into(), self.type_char().unwrap_or(b'4'), self.keep(&self.socket_name())),
            b"tuple" => Parameter { text: Cow::Owned(self.socket_name()), raw: Some(Raw::Bytes) },
            b"addr" => {
                Parameter { text: Cow::Owned(super::fd::address(&connect.socket.remote)), raw: Some(Raw::Bytes) }
            }
            _ => return None,
        })
    }
}

/// A parameter as text and, where rules may compare it, raw.
pub(super) struct Parameter<'a> {
    pub(super) text: Cow<'a, [u8]>,
    pub(super) raw: Option<Raw>,
}

/// What a raw parameter is; text and bytes are in [`Parameter::text`].
pub(super) enum Raw {
    Signed(i64),
    Unsigned(u64),
    Text,
    Bytes,
}

impl<'a> Parameter<'a> {
    pub(super) fn text(text: &'a [u8]) -> Self {
        // Upstream prints this for an empty text parameter.
        Self { text: Cow::Borrowed(if text.is_empty() { b"<NA>" } else { text }), raw: Some(Raw::Text) }
    }

    pub(super) fn signed(value: i64) -> Self {
        Self { text: Cow::Owned(value.to_string().into_bytes()), raw: Some(Raw::Signed(value)) }
    }

    pub(super) fn unsigned(value: u64) -> Self {
        Self { text: Cow::Owned(value.to_string().into_bytes()), raw: Some(Raw::Unsigned(value)) }
    }

    fn hexadecimal(value: u64) -> Self {
        Self { text: Cow::Owned(format!("{value:X}").into_bytes()), raw: Some(Raw::Unsigned(value)) }
    }

    fn into_owned(self) -> Parameter<'static> {
        Parameter { text: Cow::Owned(self.text.into_owned()), raw: self.raw }
    }
}

/// `<f>/path`, the bare `<6>` without a name, or the error.
pub(super) fn descriptor(fd: i64, kind: u8, name: &[u8]) -> Parameter<'static> {
    let text = if fd < 0 {
        result_name(fd).as_bytes().to_vec()
    } else {
        let mut text = vec![b'<', kind, b'>'];
        text.extend_from_slice(name);
        text
    };
    Parameter { text: Cow::Owned(text), raw: Some(Raw::Signed(fd)) }
}

/// A category as upstream prints it (libs `sinsp_evt::get_category`).
const fn category(category: Category) -> &'static [u8] {
    match category {
        Category::File | Category::IoOther => b"file",
        Category::Net | Category::IoRead | Category::IoWrite => b"net",
        Category::Ipc => b"ipc",
        Category::Memory => b"memory",
        Category::Process => b"process",
        Category::Sleep => b"sleep",
        Category::System => b"system",
        Category::Signal => b"signal",
        Category::User => b"user",
        Category::Time => b"time",
        Category::Wait => b"wait",
        Category::Scheduler => b"scheduler",
        Category::Internal => b"internal",
        Category::Other | Category::Unknown => b"other",
    }
}

/// The mode argument means something: `O_TMPFILE` contains the bit of `O_DIRECTORY`, which alone makes nothing.
fn takes_mode(open: &Open) -> bool {
    open.flags as i32 & libc::O_CREAT != 0 || is_unnamed(open)
}

fn is_unnamed(open: &Open) -> bool {
    open.flags as i32 & libc::O_TMPFILE == libc::O_TMPFILE
}

/// A file without a name can be given one later (`linkat`).
fn makes_a_file(open: &Open) -> bool {
    open.created || (is_unnamed(open) && open.result >= 0)
}

pub(super) fn opens_for_reading(open: &Open) -> bool {
    matches!(open.flags as i32 & libc::O_ACCMODE, libc::O_RDONLY | libc::O_RDWR)
        && open.flags as i32 & libc::O_PATH == 0
}

pub(super) fn opens_for_writing(open: &Open) -> bool {
    matches!(open.flags as i32 & libc::O_ACCMODE, libc::O_WRONLY | libc::O_RDWR)
        && open.flags as i32 & libc::O_PATH == 0
}

/// Names and values of what upstream says of an executable (libs `flags_table.c`, `execve_flags`).
const EXEC_FLAGS: [(&str, u64); 4] =
    [("EXE_WRITABLE", 1), ("EXE_UPPER_LAYER", 2), ("EXE_FROM_MEMFD", 4), ("EXE_LOWER_LAYER", 8)];

/// Names and values of open flags as upstream prints them (libs `flags_table.c`, `file_flags`), in its order.
const OPEN_FLAGS: [(&str, u64); 17] = [
    ("O_LARGEFILE", 1 << 11),
    ("O_DIRECTORY", 1 << 10),
    ("O_DIRECT", 1 << 9),
    ("O_TRUNC", 1 << 8),
    ("O_SYNC", 1 << 7),
    ("O_NONBLOCK", 1 << 6),
    ("O_EXCL", 1 << 5),
    ("O_DSYNC", 1 << 4),
    ("O_APPEND", 1 << 3),
    ("O_CREAT", 1 << 2),
    ("O_RDWR", 3),
    ("O_WRONLY", 2),
    ("O_RDONLY", 1),
    ("O_CLOEXEC", 1 << 12),
    ("O_TMPFILE", 1 << 13),
    ("O_F_CREATED", 1 << 14),
    ("FD_UPPER_LAYER", 1 << 15),
];

/// The kernel's flags in upstream's numbering (libs `ppm_flag_helpers.h`, `open_flags_to_scap`). Without `O_LARGEFILE`: a
/// 64-bit kernel adds it to every open, and upstream shows what was asked for.
fn falco_open_flags(open: &Open) -> u64 {
    let flags = open.flags as i32;
    let mut out = match flags & libc::O_ACCMODE {
        libc::O_RDONLY => 1,
        libc::O_WRONLY => 2,
        _ => 3,
    };
    for (kernel, falco) in [
        (libc::O_CREAT, 1 << 2),
        (libc::O_APPEND, 1 << 3),
        (libc::O_DSYNC, 1 << 4),
        (libc::O_EXCL, 1 << 5),
        (libc::O_NONBLOCK, 1 << 6),
        (libc::O_SYNC, 1 << 7),
        (libc::O_TRUNC, 1 << 8),
        (libc::O_DIRECT, 1 << 9),
        (libc::O_DIRECTORY, 1 << 10),
        (libc::O_CLOEXEC, 1 << 12),
        (libc::O_TMPFILE, 1 << 13),
    ] {
        if flags & kernel == kernel {
            out |= falco;
        }
    }
    if open.created {
        out |= 1 << 14;
    }
    if open.file.and_then(|file| file.overlay).is_some_and(|overlay| overlay.upper) {
        out |= 1 << 15;
    }
    out
}

/// Names of flags, or the number where none has a name.
fn flag_text(table: &[(&str, u64)], flags: u64) -> Vec<u8> {
    let mut rest = flags;
    let mut names: Vec<&str> = Vec::new();
    for (name, value) in table {
        if rest & value == *value {
            names.push(name);
            rest &= !value;
        }
    }
    if names.is_empty() { format!("{flags:X}").into_bytes() } else { names.join("|").into_bytes() }
}

/// `SUCCESS`, or the name of the error.
pub(super) fn result_name(result: i64) -> &'static str {
    if result >= 0 {
        return "SUCCESS";
    }
    ERRNO.iter().find(|(value, _)| i64::from(*value) == -result).map_or("EUNKNOWN", |(_, name)| name)
}

macro_rules! errno {
    ($($name:ident)*) => { [$((libc::$name, stringify!($name))),*] };
}

/// Error numbers (`include/uapi/asm-generic/errno-base.h`, `errno.h`).
const ERRNO: [(i32, &str); 86] = errno![
    EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT ENOTBLK EBUSY EEXIST EXDEV
    ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG ENOSPC ESPIPE EROFS EMLINK EPIPE EDOM ERANGE EDEADLK
    ENAMETOOLONG ENOLCK ENOSYS ENOTEMPTY ELOOP ENODATA ETIME ENOLINK EPROTO EBADMSG EOVERFLOW EILSEQ EUSERS ENOTSOCK
    EDESTADDRREQ EMSGSIZE EPROTOTYPE ENOPROTOOPT EPROTONOSUPPORT ESOCKTNOSUPPORT EOPNOTSUPP EPFNOSUPPORT EAFNOSUPPORT
    EADDRINUSE EADDRNOTAVAIL ENETDOWN ENETUNREACH ENETRESET ECONNABORTED ECONNRESET ENOBUFS EISCONN ENOTCONN ESHUTDOWN
    ETOOMANYREFS ETIMEDOUT ECONNREFUSED EHOSTDOWN EHOSTUNREACH EALREADY EINPROGRESS ESTALE EDQUOT ENOMEDIUM EMEDIUMTYPE
    ECANCELED ENOKEY EKEYEXPIRED EKEYREVOKED EKEYREJECTED EOWNERDEAD
];
