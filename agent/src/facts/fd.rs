//! `fd.*`: the file or socket of the event, from the kernel's object.

use std::net::SocketAddr;

use agent_common::Parameter;
use purser_rules::{Fact, FieldId, FieldRef, Value};

use super::{NOT_APPLICABLE, NOT_COLLECTED, Sight, UNKNOWN, boolean, signed, unsigned};
use crate::container::short_id;
use crate::event::{Address, Body, Call, EventType, FileIdentity, Open, Socket};

impl Sight<'_> {
    pub(super) fn fd_fact(&self, field: FieldRef<'_>) -> Option<Fact<'_>> {
        if !is_fd_field(field.id) {
            return None;
        }
        Some(match &self.event.body {
            Body::Open(open) => self.file_fact(field.id, open),
            Body::Connect(_) => self.link().map_or(NOT_APPLICABLE, |link| self.socket_fact(field.id, link)),
            Body::Call(call) => self.call_fd_fact(field.id, call),
            _ => NOT_APPLICABLE,
        })
    }

    fn file_fact(&self, field: FieldId, open: &Open) -> Fact<'_> {
        match field {
            // A call that failed made no descriptor, whatever its error.
            FieldId::FD_NUM => signed(open.result.max(-1)),
            FieldId::FD_TYPE => Fact::text(if is_directory(open) { b"directory" } else { b"file" }),
            FieldId::FD_TYPECHAR => Fact::text(if is_directory(open) { b"d" } else { b"f" }),
            FieldId::FD_NAMERAW if !open.name.is_empty() => self.keep_text(&open.name),
            FieldId::FD_NAMERAW => Fact::text(self.name),
            FieldId::FD_UID => self.keep_text(format!("{}{}", self.event.task.tid, open.result).as_bytes()),
            _ => self.path_fact(field, open.file.as_ref(), &open.path),
        }
    }

    /// What a file's name and inode say.
    fn path_fact(&self, field: FieldId, file: Option<&FileIdentity>, path: &[u8]) -> Fact<'_> {
        let of_file = |value: fn(&FileIdentity) -> Fact<'static>| file.map_or(NOT_APPLICABLE, value);
        match field {
            FieldId::FD_NAME => Fact::text(self.name),
            FieldId::FD_REALPATH if path.is_empty() => UNKNOWN,
            FieldId::FD_REALPATH => self.keep_text(path),
            FieldId::FD_DIRECTORY => match self.name.iter().rposition(|b| *b == b'/') {
                Some(0) => Fact::text(b"/"),
                Some(end) => Fact::text(&self.name[..end]),
                None => UNKNOWN,
            },
            FieldId::FD_FILENAME => match self.name.iter().rposition(|b| *b == b'/') {
                Some(end) => Fact::text(&self.name[end + 1..]),
                None => UNKNOWN,
            },
            FieldId::FD_INO => of_file(|file| signed(file.ino as i64)),
            FieldId::FD_DEV => of_file(|file| signed(device(file.dev).into())),
            FieldId::FD_DEV_MAJOR => of_file(|file| signed((file.dev >> 20).into())),
            FieldId::FD_DEV_MINOR => of_file(|file| signed((file.dev & 0xf_ffff).into())),
            FieldId::FD_IS_UPPER_LAYER => of_file(|file| boolean(file.overlay.is_some_and(|overlay| overlay.upper))),
            FieldId::FD_IS_LOWER_LAYER => of_file(|file| boolean(file.overlay.is_some_and(|overlay| !overlay.upper))),
            FieldId::FD_CONTAINERNAME => self.with_container_id(self.name),
            FieldId::FD_CONTAINERDIRECTORY => {
                let end = self.name.iter().rposition(|b| *b == b'/').unwrap_or(0);
                self.with_container_id(&self.name[..end.max(1).min(self.name.len())])
            }
            _ => NOT_APPLICABLE,
        }
    }

    fn socket_fact(&self, field: FieldId, link: Link<'_>) -> Fact<'_> {
        let (local, remote) = (inet(&link.socket.local), inet(&link.socket.remote));
        let (client, server) = (inet(link.client()), inet(link.server()));
        let address = |end: Option<SocketAddr>| end.map_or(UNKNOWN, |end| Fact::One(Value::Ip(end.ip())));
        let port = |end: Option<SocketAddr>| end.map_or(UNKNOWN, |end| unsigned(end.port().into()));
        let socket = link.socket;
        match field {
            FieldId::FD_NUM if link.fd < 0 => UNKNOWN,
            FieldId::FD_NUM => signed(link.fd),
            FieldId::FD_TYPE => match type_char(socket) {
                Some(b'4') => Fact::text(b"ipv4"),
                Some(b'6') => Fact::text(b"ipv6"),
                Some(b'u') => Fact::text(b"unix"),
                Some(b'n') => Fact::text(b"netlink"),
                _ => NOT_COLLECTED,
            },
            FieldId::FD_TYPECHAR => match type_char(socket) {
                Some(b'4') => Fact::text(b"4"),
                Some(b'6') => Fact::text(b"6"),
                Some(b'u') => Fact::text(b"u"),
                Some(b'n') => Fact::text(b"n"),
                _ => NOT_COLLECTED,
            },
            FieldId::FD_SOCKFAMILY => match type_char(socket) {
                Some(b'4' | b'6') => Fact::text(b"ip"),
                Some(b'u') => Fact::text(b"unix"),
                _ => NOT_APPLICABLE,
            },
            FieldId::FD_NAME => self.keep_text(&link.name()),
            // Only a file has a name that was passed.
            FieldId::FD_NAMERAW => Fact::text(b""),
            FieldId::FD_IP | FieldId::FD_PORT | FieldId::FD_NET | FieldId::FD_PROTO => Fact::Many(2),
            FieldId::FD_CIP | FieldId::FD_CNET => address(client),
            FieldId::FD_SIP | FieldId::FD_SNET => address(server),
            FieldId::FD_LIP | FieldId::FD_LNET => address(local),
            FieldId::FD_RIP | FieldId::FD_RNET => address(remote),
            FieldId::FD_CPORT => port(client),
            FieldId::FD_SPORT => port(server),
            FieldId::FD_LPORT => port(local),
            FieldId::FD_RPORT => port(remote),
            FieldId::FD_L4PROTO => Fact::text(match (socket.family, socket.protocol, i32::from(socket.sock_type)) {
                (2 | 10, 6, _) | (2 | 10, 0, libc::SOCK_STREAM) => b"tcp",
                (2 | 10, 17, _) | (2 | 10, 0, libc::SOCK_DGRAM) => b"udp",
                (2 | 10, 1 | 58, _) => b"icmp",
                (2 | 10, _, libc::SOCK_RAW) => b"raw",
                _ => b"<NA>",
            }),
            FieldId::FD_IS_SERVER => boolean(link.role != Role::Client),
            FieldId::FD_CONNECTED => boolean(link.connected),
            // Of a message only the address that it names itself is new.
            FieldId::FD_NAME_CHANGED => boolean(link.role != Role::Listener && link.named),
            FieldId::FD_UID => self.keep_text(format!("{}{}", self.event.task.tid, link.fd).as_bytes()),
            FieldId::FD_CONTAINERNAME => self.with_container_id(&link.name()),
            FieldId::FD_CIP_NAME => self.domains(client),
            FieldId::FD_SIP_NAME => self.domains(server),
            FieldId::FD_LIP_NAME => self.domains(local),
            FieldId::FD_RIP_NAME => self.domains(remote),
            FieldId::FD_CPROTO => self.service(client),
            FieldId::FD_SPROTO => self.service(server),
            FieldId::FD_LPROTO => self.service(local),
            FieldId::FD_RPROTO => self.service(remote),
            _ => NOT_APPLICABLE,
        }
    }

    /// The descriptor of a plain call.
    fn call_fd_fact(&self, field: FieldId, call: &Call) -> Fact<'_> {
        let Some(fd) = call_descriptor(call, self.event.header.event) else { return NOT_APPLICABLE };
        if let Some(link) = self.link() {
            return self.socket_fact(field, link);
        }
        let Some(file) = call.file.as_ref() else {
            return if field == FieldId::FD_NUM { signed(fd) } else { UNKNOWN };
        };
        let (kind, letter) = file_kind(file, &call.path);
        match field {
            FieldId::FD_NUM => signed(fd),
            FieldId::FD_TYPE => Fact::text(kind.as_bytes()),
            FieldId::FD_TYPECHAR => self.keep_text(&[letter]),
            FieldId::FD_NAMERAW => Fact::text(self.name),
            FieldId::FD_UID => self.keep_text(format!("{}{fd}", self.event.task.tid).as_bytes()),
            _ => self.path_fact(field, Some(file), &call.path),
        }
    }

    /// The event's socket, in its role.
    pub(super) fn link(&self) -> Option<Link<'_>> {
        match &self.event.body {
            Body::Connect(connect) => Some(Link {
                socket: &connect.socket,
                fd: connect.fd.into(),
                role: Role::Client,
                connected: connect.result == 0,
                named: true,
            }),
            Body::Call(call) => {
                let socket = call.socket.as_ref()?;
                let role = match self.event.header.event {
                    EventType::Accept | EventType::Accept4 => Role::Server,
                    EventType::Listen | EventType::Bind => Role::Listener,
                    _ => Role::Client,
                };
                Some(Link {
                    socket,
                    fd: call_descriptor(call, self.event.header.event)?,
                    role,
                    connected: socket.remote != Address::None && !socket.remote_from_user,
                    named: role == Role::Server || socket.remote_from_user,
                })
            }
            _ => None,
        }
    }

    /// One end of `fd.ip`, `fd.port`, `fd.net` or `fd.proto`: the client's, then the server's.
    pub(super) fn fd_end(&self, field: FieldId, index: usize) -> Fact<'_> {
        let Some(link) = self.link() else { return NOT_APPLICABLE };
        let end = if index == 0 { link.client() } else { link.server() };
        let Some(end) = inet(end) else { return UNKNOWN };
        match field {
            FieldId::FD_IP | FieldId::FD_NET => Fact::One(Value::Ip(end.ip())),
            _ => unsigned(end.port().into()),
        }
    }

    /// The letter of what is behind the descriptor of a call.
    pub(super) fn call_type_char(&self, call: &Call) -> u8 {
        match (self.link(), &call.file) {
            (Some(link), _) => type_char(link.socket).unwrap_or(b'?'),
            (None, Some(file)) => file_kind(file, &call.path).1,
            (None, None) => b'?',
        }
    }

    /// The name of what is behind the descriptor of a call.
    pub(super) fn call_object_name(&self, call: &Call) -> Vec<u8> {
        self.link().map_or_else(|| call.path.to_vec(), Link::name)
    }

    /// The usual name of a port; its number where it has none.
    fn service(&self, end: Option<SocketAddr>) -> Fact<'_> {
        let Some(end) = end else { return UNKNOWN };
        match purser_rules::service_name(end.port()) {
            Some(name) => Fact::text(name.as_bytes()),
            None => self.keep_text(end.port().to_string().as_bytes()),
        }
    }

    /// The names of an address that rules mention: an address may have several of them, or none.
    fn domains(&self, end: Option<SocketAddr>) -> Fact<'_> {
        let Some(end) = end else { return UNKNOWN };
        match self.outside.domains(end.ip()) {
            [only] => Fact::text(only),
            several => Fact::Many(several.len()),
        }
    }

    /// One of several names of an address.
    pub(super) fn domain(&self, field: FieldId, index: usize) -> Fact<'_> {
        let Some(link) = self.link() else { return NOT_APPLICABLE };
        let end = inet(match field {
            FieldId::FD_CIP_NAME => link.client(),
            FieldId::FD_SIP_NAME => link.server(),
            FieldId::FD_LIP_NAME => &link.socket.local,
            _ => &link.socket.remote,
        });
        end.and_then(|end| self.outside.domains(end.ip()).get(index)).map_or(UNKNOWN, |name| Fact::text(name))
    }

    /// `4`, `6` or `u` for a socket.
    pub(super) fn type_char(&self) -> Option<u8> {
        type_char(self.link()?.socket)
    }

    /// `client:port->server:port`, or the path of a unix socket.
    pub(super) fn socket_name(&self) -> Vec<u8> {
        self.link().map_or_else(Vec::new, Link::name)
    }

    fn with_container_id(&self, text: &[u8]) -> Fact<'_> {
        let mut name = self.container.map_or(&b""[..], |c| short_id(&c.id).as_bytes()).to_vec();
        name.push(b':');
        name.extend_from_slice(text);
        self.keep_text(&name)
    }
}

/// A socket in its role.
#[derive(Clone, Copy)]
pub(super) struct Link<'a> {
    socket: &'a Socket,
    fd: i64,
    role: Role,
    connected: bool,
    /// The event gave it its far end.
    named: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Client,
    Server,
    /// Waits for others and has no far end.
    Listener,
}

const NO_ADDRESS: &Address = &Address::None;

impl<'a> Link<'a> {
    fn client(self) -> &'a Address {
        match self.role {
            Role::Client => &self.socket.local,
            Role::Server => &self.socket.remote,
            Role::Listener => NO_ADDRESS,
        }
    }

    fn server(self) -> &'a Address {
        match self.role {
            Role::Client => &self.socket.remote,
            Role::Server | Role::Listener => &self.socket.local,
        }
    }

    /// `client:port->server:port`, the address that is listened at, or the path of a unix socket.
    pub(super) fn name(self) -> Vec<u8> {
        match (self.client(), self.server()) {
            (Address::Inet(_), Address::Inet(_)) => {
                let mut name = address(self.client());
                name.extend_from_slice(b"->");
                name.extend_from_slice(&address(self.server()));
                name
            }
            (_, server) => address(server),
        }
    }
}

/// `4`, `6`, `u` or `n` for a socket.
fn type_char(socket: &Socket) -> Option<u8> {
    match i32::from(socket.family) {
        libc::AF_INET => Some(b'4'),
        libc::AF_INET6 => Some(b'6'),
        libc::AF_UNIX => Some(b'u'),
        libc::AF_NETLINK => Some(b'n'),
        _ => None,
    }
}

/// The number of a call's descriptor; none where it has none.
fn call_descriptor(call: &Call, event: EventType) -> Option<i64> {
    event.parameters().iter().find_map(|parameter| match parameter {
        // A call that failed made no descriptor, whatever its error.
        Parameter::New => Some(call.result.max(-1)),
        Parameter::Descriptor(argument) => {
            call.arguments.get(usize::from(*argument)).map(|register| i64::from(*register as i32))
        }
        _ => None,
    })
}

/// `PID_FS_MAGIC` (`include/uapi/linux/magic.h`): what pidfds lie on since 6.9.
const PIDFS: u64 = 0x5049_4446;

/// What an open file that is no socket is, in words and as a letter. Files of the kernel's own that hang in no directory
/// are told by their names (`fs/anon_inodes.c`).
fn file_kind(file: &FileIdentity, path: &[u8]) -> (&'static str, u8) {
    if file.memfd {
        return ("memfd", b'm');
    }
    if file.magic == PIDFS {
        return ("pidfd", b'P');
    }
    match file.mode & libc::S_IFMT {
        libc::S_IFDIR => ("directory", b'd'),
        libc::S_IFIFO => ("pipe", b'p'),
        libc::S_IFSOCK => ("unix", b'u'),
        _ if path.starts_with(b"/") => ("file", b'f'),
        _ if path.starts_with(b"[eventfd]") => ("event", b'e'),
        _ if path.starts_with(b"[eventpoll]") => ("eventpoll", b'l'),
        _ if path.starts_with(b"[signalfd]") => ("signalfd", b's'),
        _ if path.starts_with(b"[timerfd]") => ("timerfd", b't'),
        _ if path.starts_with(b"inotify") => ("inotify", b'i'),
        _ if path.starts_with(b"bpf") => ("bpf", b'b'),
        _ if path.starts_with(b"[userfaultfd]") => ("userfaultfd", b'u'),
        _ if path.starts_with(b"[io_uring]") => ("io_uring", b'r'),
        _ if path.starts_with(b"[pidfd]") => ("pidfd", b'P'),
        _ => ("file", b'f'),
    }
}

pub(super) fn is_fd_field(id: FieldId) -> bool {
    (FieldId::FD_NUM.index()..=FieldId::FD_IS_LOWER_LAYER.index()).contains(&id.index()) || id == FieldId::FD_REALPATH
}

/// Upstream calls it a directory by the flag of the call.
fn is_directory(open: &Open) -> bool {
    open.flags as i32 & libc::O_DIRECTORY != 0
}

/// A device in the numbering of user space (`new_encode_dev`), which upstream prints.
pub(super) const fn device(kernel: u32) -> u32 {
    let (major, minor) = (kernel >> 20, kernel & 0xf_ffff);
    (minor & 0xff) | major << 8 | (minor & !0xff) << 12
}

fn inet(address: &Address) -> Option<SocketAddr> {
    match address {
        Address::Inet(address) => Some(*address),
        _ => None,
    }
}

/// An address as upstream prints it: `1.2.3.4:80`, `::1:80`, a path.
pub(super) fn address(address: &Address) -> Vec<u8> {
    match address {
        Address::None => b"NULL".to_vec(),
        Address::Inet(inet) => format!("{}:{}", inet.ip(), inet.port()).into_bytes(),
        // An abstract name begins with a NUL, which upstream leaves out: with it a text would end before it began.
        Address::Unix(path) => path.strip_prefix(b"\0").unwrap_or(path).to_vec(),
    }
}
