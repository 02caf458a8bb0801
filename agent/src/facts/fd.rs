//! `fd.*`: the file or socket of the event, from the kernel's object.

use std::net::SocketAddr;

use purser_rules::{Fact, FieldId, FieldRef, Value};

use super::{NOT_APPLICABLE, NOT_COLLECTED, Sight, UNKNOWN, boolean, signed, unsigned};
use crate::container::short_id;
use crate::event::{Address, Body, Connect, FileIdentity, Open};

impl Sight<'_> {
    pub(super) fn fd_fact(&self, field: FieldRef<'_>) -> Option<Fact<'_>> {
        if !is_fd_field(field.id) {
            return None;
        }
        Some(match &self.event.body {
            Body::Open(open) => self.file_fact(field.id, open),
            Body::Connect(connect) => self.socket_fact(field.id, connect),
            _ => NOT_APPLICABLE,
        })
    }

    fn file_fact(&self, field: FieldId, open: &Open) -> Fact<'_> {
        let file = |value: fn(&FileIdentity) -> Fact<'static>| open.file.as_ref().map_or(NOT_APPLICABLE, value);
        match field {
            // A call that failed made no descriptor, whatever its error.
            FieldId::FD_NUM => signed(open.result.max(-1)),
            FieldId::FD_TYPE => Fact::text(if is_directory(open) { b"directory" } else { b"file" }),
            FieldId::FD_TYPECHAR => Fact::text(if is_directory(open) { b"d" } else { b"f" }),
            FieldId::FD_NAME => Fact::text(self.name),
            FieldId::FD_NAMERAW => {
                if open.name.is_empty() {
                    Fact::text(self.name)
                } else {
                    self.keep_text(&open.name)
                }
            }
            FieldId::FD_REALPATH if open.path.is_empty() => UNKNOWN,
            FieldId::FD_REALPATH => self.keep_text(&open.path),
            FieldId::FD_DIRECTORY => match self.name.iter().rposition(|b| *b == b'/') {
                Some(0) => Fact::text(b"/"),
                Some(end) => Fact::text(&self.name[..end]),
                None => UNKNOWN,
            },
            FieldId::FD_FILENAME => match self.name.iter().rposition(|b| *b == b'/') {
                Some(end) => Fact::text(&self.name[end + 1..]),
                None => UNKNOWN,
            },
            FieldId::FD_INO => file(|file| signed(file.ino as i64)),
            FieldId::FD_DEV => file(|file| signed(device(file.dev).into())),
            FieldId::FD_DEV_MAJOR => file(|file| signed((file.dev >> 20).into())),
            FieldId::FD_DEV_MINOR => file(|file| signed((file.dev & 0xf_ffff).into())),
            FieldId::FD_IS_UPPER_LAYER => file(|file| boolean(file.overlay.is_some_and(|overlay| overlay.upper))),
            FieldId::FD_IS_LOWER_LAYER => file(|file| boolean(file.overlay.is_some_and(|overlay| !overlay.upper))),
            FieldId::FD_UID => self.keep_text(format!("{}{}", self.event.task.tid, open.result).as_bytes()),
            FieldId::FD_CONTAINERNAME => self.with_container_id(self.name),
            FieldId::FD_CONTAINERDIRECTORY => {
                let end = self.name.iter().rposition(|b| *b == b'/').unwrap_or(0);
                self.with_container_id(&self.name[..end.max(1).min(self.name.len())])
            }
            _ => NOT_APPLICABLE,
        }
    }

    fn socket_fact(&self, field: FieldId, connect: &Connect) -> Fact<'_> {
        // The one that connects is the client.
        let local = inet(&connect.local);
        let remote = inet(&connect.remote);
        let address = |end: Option<SocketAddr>| end.map_or(UNKNOWN, |end| Fact::One(Value::Ip(end.ip())));
        let port = |end: Option<SocketAddr>| end.map_or(UNKNOWN, |end| unsigned(end.port().into()));
        match field {
            FieldId::FD_NUM if connect.fd < 0 => UNKNOWN,
            FieldId::FD_NUM => signed(connect.fd.into()),
            FieldId::FD_TYPE => match self.type_char() {
                Some(b'4') => Fact::text(b"ipv4"),
                Some(b'6') => Fact::text(b"ipv6"),
                Some(b'u') => Fact::text(b"unix"),
                _ => NOT_COLLECTED,
            },
            FieldId::FD_TYPECHAR => match self.type_char() {
                Some(b'4') => Fact::text(b"4"),
                Some(b'6') => Fact::text(b"6"),
                Some(b'u') => Fact::text(b"u"),
                _ => NOT_COLLECTED,
            },
            FieldId::FD_SOCKFAMILY => match self.type_char() {
                Some(b'4' | b'6') => Fact::text(b"ip"),
                Some(b'u') => Fact::text(b"unix"),
                _ => NOT_APPLICABLE,
            },
            FieldId::FD_NAME => self.keep_text(&self.socket_name()),
            // Only a file has a name that was passed.
            FieldId::FD_NAMERAW => Fact::text(b""),
            FieldId::FD_IP | FieldId::FD_PORT | FieldId::FD_NET | FieldId::FD_PROTO => Fact::Many(2),
            FieldId::FD_CIP | FieldId::FD_LIP | FieldId::FD_CNET | FieldId::FD_LNET => address(local),
            FieldId::FD_SIP | FieldId::FD_RIP | FieldId::FD_SNET | FieldId::FD_RNET => address(remote),
            FieldId::FD_CPORT | FieldId::FD_LPORT => port(local),
            FieldId::FD_SPORT | FieldId::FD_RPORT => port(remote),
            FieldId::FD_L4PROTO => Fact::text(match (connect.family, connect.protocol, i32::from(connect.sock_type)) {
                (2 | 10, 6, _) | (2 | 10, 0, libc::SOCK_STREAM) => b"tcp",
                (2 | 10, 17, _) | (2 | 10, 0, libc::SOCK_DGRAM) => b"udp",
                (2 | 10, 1 | 58, _) => b"icmp",
                (2 | 10, _, libc::SOCK_RAW) => b"raw",
                _ => b"<NA>",
            }),
            FieldId::FD_IS_SERVER => boolean(false),
            FieldId::FD_CONNECTED => boolean(connect.result == 0),
            FieldId::FD_NAME_CHANGED => boolean(true),
            FieldId::FD_UID => self.keep_text(format!("{}{}", self.event.task.tid, connect.fd).as_bytes()),
            FieldId::FD_CONTAINERNAME => self.with_container_id(&self.socket_name()),
            FieldId::FD_CIP_NAME | FieldId::FD_LIP_NAME => self.domains(local),
            FieldId::FD_SIP_NAME | FieldId::FD_RIP_NAME => self.domains(remote),
            FieldId::FD_CPROTO | FieldId::FD_LPROTO => self.service(local),
            FieldId::FD_SPROTO | FieldId::FD_RPROTO => self.service(remote),
            _ => NOT_APPLICABLE,
        }
    }

    /// One end of `fd.ip`, `fd.port`, `fd.net` or `fd.proto`: the client's, then the server's.
    pub(super) fn fd_end(&self, field: FieldId, index: usize) -> Fact<'_> {
        let Body::Connect(connect) = &self.event.body else { return NOT_APPLICABLE };
        let end = if index == 0 { &connect.local } else { &connect.remote };
        let Some(end) = inet(end) else { return UNKNOWN };
        match field {
            FieldId::FD_IP | FieldId::FD_NET => Fact::One(Value::Ip(end.ip())),
            _ => unsigned(end.port().into()),
        }
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
        let Body::Connect(connect) = &self.event.body else { return NOT_APPLICABLE };
        let is_local = matches!(field, FieldId::FD_CIP_NAME | FieldId::FD_LIP_NAME);
        let end = inet(if is_local { &connect.local } else { &connect.remote });
        end.and_then(|end| self.outside.domains(end.ip()).get(index)).map_or(UNKNOWN, |name| Fact::text(name))
    }

    /// `4`, `6` or `u` for a socket.
    pub(super) fn type_char(&self) -> Option<u8> {
        let Body::Connect(connect) = &self.event.body else { return None };
        match i32::from(connect.family) {
            libc::AF_INET => Some(b'4'),
            libc::AF_INET6 => Some(b'6'),
            libc::AF_UNIX => Some(b'u'),
            _ => None,
        }
    }

    /// `client:port->server:port`, or the path of a unix socket.
    pub(super) fn socket_name(&self) -> Vec<u8> {
        let Body::Connect(connect) = &self.event.body else { return Vec::new() };
        match (&connect.local, &connect.remote) {
            (Address::Inet(_), Address::Inet(_)) => {
                let mut name = address(&connect.local);
                name.extend_from_slice(b"->");
                name.extend_from_slice(&address(&connect.remote));
                name
            }
            (_, remote) => address(remote),
        }
    }

    fn with_container_id(&self, text: &[u8]) -> Fact<'_> {
        let mut name = self.container.map_or(&b""[..], |c| short_id(&c.id).as_bytes()).to_vec();
        name.push(b':');
        name.extend_from_slice(text);
        self.keep_text(&name)
    }
}

fn is_fd_field(id: FieldId) -> bool {
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
