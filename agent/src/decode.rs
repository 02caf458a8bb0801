//! From the bytes of a ring record to an [`Event`]. The bytes come from the kernel half, but what is in
//! them a container wrote: every length is checked, nothing panics, and a bad record is an error to
//! count. Reads nothing but the record.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    ptr,
};

use agent_common::{
    CallFlags, CallRecord, CgroupRecord, ConnectRecord, EventGroup, EventType, ExecFlags, ExecRecord, ExitRecord,
    FileFlags, FileRecord, ForkRecord, Header as HeaderRecord, HeaderBits, InetAddress, OpenFlags, OpenRecord,
    PathFlags, PathRecord, RECORD_VERSION, RenameRecord, SocketFlags, SocketRecord, TaskRecord,
};
use bytes::{BufMut, Bytes, BytesMut};

use crate::event::{
    Address, Body, Call, Capabilities, Cgroup, Connect, Event, Exec, Exit, FileIdentity, Fork, Header, MEMFD_MAGICS,
    Open, Overlay, Socket, Task,
};

/// Why a record was refused. The variants are metric labels (see [`DecodeError::reason`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Shorter than its header, or than the fixed part of its event.
    #[error("the record ends after {length} bytes, its fixed part needs {needed}")]
    Short {
        /// Bytes there.
        length: usize,
        /// Bytes needed.
        needed: usize,
    },
    /// Written by programs of another build.
    #[error("the record is of version {0}")]
    Version(u16),
    /// The length in the header is not the record's.
    #[error("the record says it has {said} bytes, and has {length}")]
    Length {
        /// By the header.
        said: u32,
        /// In fact.
        length: usize,
    },
    /// No event of the table.
    #[error("the record is of an unknown event, {0}")]
    UnknownEvent(u16),
    /// A section reaches past the end.
    #[error("a section of {section} bytes starts {left} bytes before the record's end")]
    Section {
        /// Its length.
        section: usize,
        /// Bytes left.
        left: usize,
    },
    /// A path's parts do not fit each other.
    #[error("a path's parts do not fit each other")]
    Path,
}

impl DecodeError {
    /// A short, fixed name for metrics.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Short { .. } => "short",
            Self::Version(_) => "version",
            Self::Length { .. } => "length",
            Self::UnknownEvent(_) => "unknown_event",
            Self::Section { .. } => "section",
            Self::Path => "path",
        }
    }

    /// Every name that [`Self::reason`] can give.
    pub const REASONS: &'static [&'static str] = &["short", "version", "length", "unknown_event", "section", "path"];
}

/// Decodes one record.
pub fn decode(record: &[u8]) -> Result<Event, DecodeError> {
    let header: HeaderRecord = fixed(record)?;
    if header.version != RECORD_VERSION {
        return Err(DecodeError::Version(header.version));
    }
    if header.length as usize != record.len() {
        return Err(DecodeError::Length { said: header.length, length: record.len() });
    }
    let event = EventType::from_code(header.event).ok_or(DecodeError::UnknownEvent(header.event))?;
    let (task, body) = match event.group() {
        EventGroup::Exec => exec(record)?,
        EventGroup::Fork => fork(record)?,
        EventGroup::Exit => exit(record)?,
        EventGroup::Open => open(record, false)?,
        EventGroup::Connect => connect(record, false)?,
        EventGroup::IoUring if matches!(event, EventType::IoUringConnect) => connect(record, true)?,
        EventGroup::IoUring => open(record, true)?,
        EventGroup::Cgroup => cgroup(record, event)?,
        EventGroup::Rename => (fixed::<RenameRecord>(record)?.task, Body::Rename),
        EventGroup::Call => call(record, event)?,
    };
    Ok(Event {
        header: Header {
            event,
            cpu: header.cpu,
            sequence: header.sequence,
            boot_ns: header.boot_ns,
            generation: header.generation,
            hash: header.hash,
            of_host: header.bits & HeaderBits::HOST != 0,
        },
        task: convert_task(&task),
        body,
    })
}

/// The fixed parts: plain words of `agent_common`, for which every pattern of bits is a value.
trait Fixed: Copy {}
impl Fixed for HeaderRecord {}
impl Fixed for ExecRecord {}
impl Fixed for ForkRecord {}
impl Fixed for ExitRecord {}
impl Fixed for OpenRecord {}
impl Fixed for ConnectRecord {}
impl Fixed for CgroupRecord {}
impl Fixed for RenameRecord {}
impl Fixed for CallRecord {}

fn fixed<R: Fixed>(record: &[u8]) -> Result<R, DecodeError> {
    if record.len() < size_of::<R>() {
        return Err(DecodeError::Short { length: record.len(), needed: size_of::<R>() });
    }
    // SAFETY: the length was checked; `Fixed` types hold integers only, without padding (asserted in agent-common).
    Ok(unsafe { ptr::read_unaligned(record.as_ptr().cast::<R>()) })
}

/// The sections behind a fixed part, taken one after the other. Copied out of the ring in one piece.
struct Sections {
    rest: Bytes,
}

impl Sections {
    fn new<R: Fixed>(record: &[u8]) -> Self {
        Self { rest: Bytes::copy_from_slice(record.get(size_of::<R>()..).unwrap_or_default()) }
    }

    fn take(&mut self, length: usize) -> Result<Bytes, DecodeError> {
        if length > self.rest.len() {
            return Err(DecodeError::Section { section: length, left: self.rest.len() });
        }
        Ok(self.rest.split_to(length))
    }
}

/// Runs of names as the kernel half wrote them.
struct Walked {
    record: PathRecord,
    names: Bytes,
    beneath: Bytes,
}

impl Walked {
    fn take(record: PathRecord, sections: &mut Sections) -> Result<Self, DecodeError> {
        let names = sections.take(record.length.into())?;
        let beneath = sections.take(record.beneath.into())?;
        if record.landmark > record.length || (record.within > record.length && record.within != u16::MAX) {
            return Err(DecodeError::Path);
        }
        Ok(Self { record, names, beneath })
    }

    fn has(&self, flag: u16) -> bool {
        self.record.flags & flag != 0
    }

    /// The whole path.
    fn path(&self) -> Bytes {
        if self.has(PathFlags::ROOTLESS) {
            // `d_alloc_anon` calls a file so that has no name: a namespace, a pidfd.
            let name = without_nul(&self.names);
            return if name == "/" { Bytes::new() } else { name };
        }
        joined(&[&self.names], self.has(PathFlags::TRUNCATED))
    }

    /// The path from the file system's own root, where the mount shows only a part of it.
    fn fs_path(&self) -> Bytes {
        if !self.has(PathFlags::PARTIAL) {
            return Bytes::new();
        }
        let within = self.names.get(..usize::from(self.record.within)).unwrap_or(&self.names);
        let path = joined(&[within, &self.beneath], self.has(PathFlags::BENEATH_TRUNCATED));
        if path == self.path() { Bytes::new() } else { path }
    }

    /// The landmark's path.
    fn landmark(&self) -> Option<Bytes> {
        let names = self.names.get(usize::from(self.record.landmark)..)?;
        self.has(PathFlags::LANDMARK).then(|| joined(&[names], self.has(PathFlags::TRUNCATED)))
    }
}

/// Puts names, innermost first, into a path. A truncated one starts with `...` in place of the names that are missing.
fn joined(runs: &[&[u8]], truncated: bool) -> Bytes {
    let length: usize = runs.iter().map(|run| run.len()).sum();
    let mut path = BytesMut::with_capacity(length + 4);
    if truncated {
        path.put_slice(b"...");
    }
    for run in runs.iter().rev() {
        let run = run.strip_suffix(b"\0").unwrap_or(run);
        if run.is_empty() {
            continue;
        }
        for name in run.rsplit(|byte| *byte == 0) {
            path.put_u8(b'/');
            path.put_slice(name);
        }
    }
    if path.is_empty() {
        path.put_u8(b'/');
    }
    path.freeze()
}

fn without_nul(bytes: &Bytes) -> Bytes {
    match bytes.iter().position(|byte| *byte == 0) {
        Some(end) => bytes.slice(..end),
        None => bytes.clone(),
    }
}

fn exec(bytes: &[u8]) -> Result<(TaskRecord, Body), DecodeError> {
    let record: ExecRecord = fixed(bytes)?;
    let mut sections = Sections::new::<ExecRecord>(bytes);
    let filename = sections.take(record.filename_length.into())?;
    let interp = sections.take(record.interp_length.into())?;
    let path = Walked::take(record.path, &mut sections)?;
    let cwd = Walked::take(record.cwd, &mut sections)?;
    let argv = sections.take(record.argv_length as usize)?;
    let envp = sections.take(record.envp_length as usize)?;
    let interp = if interp == filename { Bytes::new() } else { interp };
    let argv_truncated = record.flags & ExecFlags::ARGV_TRUNCATED != 0;
    let exec = Exec {
        file: convert_file(&record.file, &path),
        path: path.path(),
        fs_path: path.fs_path(),
        filename,
        interp,
        argv: if argv_truncated { cut(&argv) } else { without_last_nul(argv) },
        argv_truncated,
        envp: without_last_nul(envp),
        envp_truncated: record.flags & ExecFlags::ENVP_TRUNCATED != 0,
        cwd: cwd.path(),
    };
    Ok((record.task, Body::Exec(Box::new(exec))))
}

/// Arguments that were cut say so at their end, as a path that was cut does at its beginning: rules and alerts show it.
fn cut(arguments: &Bytes) -> Bytes {
    // Nothing could be read: the name of the program is not what is missing.
    let start: &[u8] = if arguments.is_empty() { b"\0" } else { arguments };
    [start, b"..."].concat().into()
}

fn without_last_nul(mut bytes: Bytes) -> Bytes {
    if bytes.last() == Some(&0) {
        bytes.truncate(bytes.len() - 1);
    }
    bytes
}

fn fork(bytes: &[u8]) -> Result<(TaskRecord, Body), DecodeError> {
    let record: ForkRecord = fixed(bytes)?;
    let fork = Fork {
        child_tid: record.child_tid,
        child_tgid: record.child_tgid,
        child_vtid: record.child_vtid,
        child_start_boottime_ns: record.child_start_ns,
        child_cgroup_id: record.child_cgroup_id,
    };
    Ok((record.task, Body::Fork(fork)))
}

fn exit(bytes: &[u8]) -> Result<(TaskRecord, Body), DecodeError> {
    let record: ExitRecord = fixed(bytes)?;
    Ok((record.task, Body::Exit(Exit { status: record.status, group_dead: record.group_dead != 0 })))
}

fn open(bytes: &[u8], io_uring: bool) -> Result<(TaskRecord, Body), DecodeError> {
    let record: OpenRecord = fixed(bytes)?;
    let mut sections = Sections::new::<OpenRecord>(bytes);
    let name = sections.take(record.name_length as usize)?;
    let path = Walked::take(record.path, &mut sections)?;
    let directory = Walked::take(record.directory, &mut sections)?;
    let has_file = record.bits & OpenFlags::HAS_FILE != 0;
    let dir = match path.landmark() {
        Some(landmark) => landmark,
        None if record.bits & OpenFlags::DIRECTORY != 0 => directory.path(),
        None => Bytes::new(),
    };
    let open = Open {
        result: result(record.result),
        flags: record.flags,
        mode: record.mode,
        created: record.bits & OpenFlags::CREATED != 0,
        dirfd: record.dirfd,
        file: has_file.then(|| convert_file(&record.file, &path)),
        path: if has_file { path.path() } else { Bytes::new() },
        fs_path: if has_file { path.fs_path() } else { Bytes::new() },
        name,
        dir,
        io_uring,
    };
    Ok((record.task, Body::Open(Box::new(open))))
}

/// A call interrupted by a signal leaves with one of the kernel's own restart codes (`include/linux/errno.h`), which
/// the signal code then turns into `EINTR` or a restart; user space never sees them.
const fn result(result: i64) -> i64 {
    if result <= -512 && result >= -516 { -(libc::EINTR as i64) } else { result }
}

fn connect(bytes: &[u8], io_uring: bool) -> Result<(TaskRecord, Body), DecodeError> {
    let record: ConnectRecord = fixed(bytes)?;
    let mut sections = Sections::new::<ConnectRecord>(bytes);
    let connect = Connect {
        result: result(record.result),
        fd: record.fd,
        socket: socket(&record.socket, &mut sections)?,
        io_uring,
    };
    Ok((record.task, Body::Connect(Box::new(connect))))
}

fn socket(record: &SocketRecord, sections: &mut Sections) -> Result<Socket, DecodeError> {
    let remote = sections.take(record.remote_length.into())?;
    let local = sections.take(record.local_length.into())?;
    let has = |flag| record.flags & flag != 0;
    Ok(Socket {
        family: record.family,
        sock_type: record.sock_type,
        protocol: record.protocol,
        remote: address(&record.remote, remote, has(SocketFlags::REMOTE_UNIX)),
        remote_from_user: has(SocketFlags::REMOTE_FROM_USER),
        local: address(&record.local, local, has(SocketFlags::LOCAL_UNIX)),
    })
}

fn call(bytes: &[u8], event: EventType) -> Result<(TaskRecord, Body), DecodeError> {
    let record: CallRecord = fixed(bytes)?;
    let mut sections = Sections::new::<CallRecord>(bytes);
    let has = |flag| record.flags & flag != 0;
    let mut texts = [const { Bytes::new() }; 3];
    for (text, length) in texts.iter_mut().zip(record.text_lengths) {
        *text = sections.take(length as usize)?;
    }
    let data = sections.take(record.data_length as usize)?;
    let data = if event.is_failed_exec() { without_last_nul(data) } else { data };
    let [first, second, path] = record.paths;
    let first = Walked::take(first, &mut sections)?;
    let second = Walked::take(second, &mut sections)?;
    let path = Walked::take(path, &mut sections)?;
    let named = has(CallFlags::FILE) && !has(CallFlags::SOCKET);
    let directory = |flag, walked: &Walked| if has(flag) { walked.path() } else { Bytes::new() };
    let directories = [directory(CallFlags::DIRECTORY, &first), directory(CallFlags::DIRECTORY << 1, &second)];
    let mut socket = socket(&record.socket, &mut sections)?;
    if record.result < 0 && matches!(event, EventType::Recvfrom | EventType::Recvmsg | EventType::Recvmmsg) {
        // Nothing came: what the caller's memory holds is from before.
        socket.remote_from_user = false;
        socket.remote = Address::None;
    }
    let mut arguments = [0; 6];
    arguments.copy_from_slice(&record.arguments[..6]);
    let call = Call {
        result: result(record.result),
        io_uring: has(CallFlags::IO_URING),
        arguments,
        texts,
        directories,
        file: has(CallFlags::FILE).then(|| convert_file(&record.file, &path)),
        path: if named { path.path() } else { Bytes::new() },
        fs_path: if named { path.fs_path() } else { Bytes::new() },
        socket: (has(CallFlags::SOCKET) || socket.remote_from_user).then_some(socket),
        data,
        data_truncated: has(CallFlags::LIST_TRUNCATED),
    };
    Ok((record.task, Body::Call(Box::new(call))))
}

fn address(inet: &InetAddress, unix: Bytes, is_unix: bool) -> Address {
    if is_unix {
        // A path is NUL terminated within its size; an abstract name starts with a NUL and is as long as said.
        let name = if unix.first() == Some(&0) { unix } else { without_nul(&unix) };
        return Address::Unix(name);
    }
    match i32::from(inet.family) {
        libc::AF_INET => {
            let [a, b, c, d, ..] = inet.address;
            Address::Inet(SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), inet.port)))
        }
        libc::AF_INET6 => {
            let ip = Ipv6Addr::from(inet.address);
            // A dual-stack socket that talks IPv4 is what it talks.
            if let Some(ip) = ip.to_ipv4_mapped() {
                return Address::Inet(SocketAddr::new(IpAddr::V4(ip), inet.port));
            }
            // Elsewhere the interface says nothing about the address.
            let scope = if ip.is_unicast_link_local() { inet.scope } else { 0 };
            Address::Inet(SocketAddr::V6(SocketAddrV6::new(ip, inet.port, 0, scope)))
        }
        _ => Address::None,
    }
}

fn cgroup(bytes: &[u8], event: EventType) -> Result<(TaskRecord, Body), DecodeError> {
    let record: CgroupRecord = fixed(bytes)?;
    let path = Sections::new::<CgroupRecord>(bytes).take(record.path_length as usize)?;
    Ok((record.task, Body::Cgroup(Cgroup { id: record.id, path, made: matches!(event, EventType::CgroupMkdir) })))
}

const fn convert_task(record: &TaskRecord) -> Task {
    Task {
        tgid: record.tgid,
        tid: record.tid,
        start_boottime_ns: record.start_ns,
        parent_tgid: record.parent_tgid,
        parent_start_boottime_ns: record.parent_start_ns,
        sid: record.sid,
        pgid: record.pgid,
        vtgid: record.vtgid,
        vtid: record.vtid,
        vpgid: record.vpgid,
        tty: record.tty,
        loginuid: record.loginuid,
        uid: record.uid,
        euid: record.euid,
        gid: record.gid,
        egid: record.egid,
        capabilities: Capabilities {
            inheritable: record.cap_inheritable,
            permitted: record.cap_permitted,
            effective: record.cap_effective,
        },
        cgroup_id: record.cgroup_id,
        mnt_ns: record.mnt_ns,
        pid_ns: record.pid_ns,
        comm: record.comm,
    }
}

fn convert_file(record: &FileRecord, path: &Walked) -> FileIdentity {
    let has = |flag| record.flags & flag != 0;
    let overlay = has(FileFlags::OVERLAY).then(|| Overlay {
        upper: has(FileFlags::UPPER),
        has_lower: has(FileFlags::HAS_LOWER),
        layer: u16::try_from(record.layer).unwrap_or(0),
        real_dev: record.overlay.dev,
        real_ino: record.overlay.ino,
        real_generation: record.overlay.generation,
        real_size: record.overlay.size,
        real_ctime_ns: record.overlay.ctime_ns,
        real_version: record.overlay.version,
    });
    FileIdentity {
        dev: record.dev,
        ino: record.ino,
        generation: record.generation,
        mode: record.mode,
        uid: record.uid,
        gid: record.gid,
        nlink: record.nlink,
        size: record.size,
        ctime_ns: record.ctime_ns,
        mtime_ns: record.mtime_ns,
        magic: record.magic,
        on_rootfs: has(FileFlags::ON_ROOTFS),
        // A container can name a file so, but cannot have it hang in no directory.
        memfd: path.has(PathFlags::ROOTLESS)
            && path.names.starts_with(b"memfd:")
            && MEMFD_MAGICS.contains(&record.magic),
        overlay,
    }
}

#[cfg(test)]
pub(crate) mod tests;
