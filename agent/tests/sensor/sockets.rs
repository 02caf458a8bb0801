//! Connects of every family.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr as UnixAddr, UnixListener},
    },
};

use purser::event::{Address, EventType};

use crate::{
    uring::{OP_CONNECT, Request, Uring},
    watch::{privileged, tells_io_uring, watch},
};

/// A `sockaddr` and its length.
struct Raw([u8; 110], u32);

impl Raw {
    fn inet(address: SocketAddr) -> Self {
        let mut bytes = [0; 110];
        bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
        match address {
            SocketAddr::V4(address) => {
                bytes[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
                bytes[4..8].copy_from_slice(&address.ip().octets());
                Self(bytes, 16)
            }
            SocketAddr::V6(address) => {
                bytes[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
                bytes[8..24].copy_from_slice(&address.ip().octets());
                Self(bytes, 28)
            }
        }
    }

    fn unix(name: &[u8]) -> Self {
        let mut bytes = [0; 110];
        bytes[..2].copy_from_slice(&(libc::AF_UNIX as u16).to_ne_bytes());
        bytes[2..2 + name.len()].copy_from_slice(name);
        Self(bytes, 2 + name.len() as u32)
    }

    /// Connects a fresh socket. Gives the descriptor.
    fn connect(&self, family: i32, kind: i32) -> i32 {
        // SAFETY: system calls on prepared bytes.
        unsafe {
            let fd = libc::socket(family, kind, 0);
            libc::connect(fd, self.0.as_ptr().cast(), self.1);
            fd
        }
    }
}

#[test]
fn internet_connects_tell_both_ends() {
    if !privileged() {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let listener6 = TcpListener::bind("[::1]:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (to, to6, to_udp) =
        (listener.local_addr().unwrap(), listener6.local_addr().unwrap(), udp.local_addr().unwrap());
    let mapped = SocketAddr::new(Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(), to.port());
    let closed: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let raw = [to, to6, mapped, to_udp, closed].map(Raw::inet);
    let seen = watch(|| {
        raw[0].connect(libc::AF_INET, libc::SOCK_STREAM);
        raw[1].connect(libc::AF_INET6, libc::SOCK_STREAM);
        raw[2].connect(libc::AF_INET6, libc::SOCK_STREAM);
        raw[3].connect(libc::AF_INET, libc::SOCK_DGRAM);
        raw[4].connect(libc::AF_INET, libc::SOCK_STREAM);
        raw[0].connect(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK);
        0
    });
    let connects = seen.connects();
    let stream = libc::SOCK_STREAM as u16;
    let expected = [
        (0, libc::AF_INET, stream, 6, to, false),
        (0, libc::AF_INET6, stream, 6, to6, false),
        (0, libc::AF_INET6, stream, 6, to, false),
        (0, libc::AF_INET, libc::SOCK_DGRAM as u16, 17, to_udp, false),
        (-libc::ECONNREFUSED, libc::AF_INET, stream, 6, closed, true),
        (-libc::EINPROGRESS, libc::AF_INET, stream, 6, to, false),
    ];
    assert_eq!(connects.len(), expected.len(), "{connects:?}");
    let mut last_fd = connects[0].1.fd - 1;
    for ((event, connect), (result, family, kind, protocol, remote, from_user)) in connects.iter().zip(expected) {
        assert_eq!(event.header.event, EventType::Connect);
        assert_eq!(event.task.tgid, seen.child);
        // A nonblocking connect over loopback may be done before the call ends.
        assert!(connect.result == i64::from(result) || (result == -libc::EINPROGRESS && connect.result == 0));
        assert_eq!(
            (i32::from(connect.socket.family), connect.socket.sock_type, connect.socket.protocol),
            (family, kind, protocol)
        );
        assert_eq!(connect.socket.remote, Address::Inet(remote));
        assert_eq!(connect.socket.remote_from_user, from_user);
        // Not the next: what other tests close meanwhile leaves holes in the child's table.
        assert!(connect.fd > last_fd);
        last_fd = connect.fd;
        assert!(!connect.io_uring);
        if result == 0 {
            let Address::Inet(local) = &connect.socket.local else { panic!("{connect:?}") };
            assert!(local.ip().is_loopback() && local.port() != 0);
        }
    }
}

#[test]
fn unix_connects_tell_paths_and_abstract_names() {
    if !privileged() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let _listener = UnixListener::bind(&path).unwrap();
    let name = format!("purser-test-{}", std::process::id());
    let _abstract = UnixListener::bind_addr(&UnixAddr::from_abstract_name(&name).unwrap()).unwrap();
    let path_bytes = path.to_str().unwrap().as_bytes().to_vec();
    let abstract_bytes = [b"\0", name.as_bytes()].concat();
    let raw = [Raw::unix(&path_bytes), Raw::unix(&abstract_bytes), Raw::unix(b"/no/such/socket\0")];
    let seen = watch(|| {
        for address in &raw {
            address.connect(libc::AF_UNIX, libc::SOCK_STREAM);
        }
        0
    });
    let connects = seen.connects();
    let expected = [
        (0, path_bytes, false),
        (0, abstract_bytes, false),
        (-i64::from(libc::ENOENT), b"/no/such/socket".to_vec(), true),
    ];
    assert_eq!(connects.len(), 3);
    for ((_, connect), (result, remote, from_user)) in connects.iter().zip(expected) {
        assert_eq!(connect.result, result);
        assert_eq!(i32::from(connect.socket.family), libc::AF_UNIX);
        assert_eq!(connect.socket.remote, Address::Unix(remote.into()));
        assert_eq!(connect.socket.remote_from_user, from_user);
        assert_eq!(connect.socket.local, Address::None);
    }
}

#[test]
fn connects_by_io_uring_are_seen() {
    if !privileged() {
        return;
    }
    if !tells_io_uring("connects_by_io_uring_are_seen") {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let closed: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let raw = [to, closed].map(Raw::inet);
    let seen = watch(|| {
        let Ok(ring) = Uring::new() else { return 1 };
        for address in &raw {
            // SAFETY: a system call.
            let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0) };
            ring.run(Request {
                opcode: OP_CONNECT,
                fd,
                addr: address.0.as_ptr() as u64,
                off: u64::from(address.1),
                ..Request::default()
            });
        }
        0
    });
    let connects = seen.connects();
    let expected = [(0, to), (-i64::from(libc::ECONNREFUSED), closed)];
    assert_eq!(connects.len(), 2, "{connects:?}");
    for ((event, connect), (result, remote)) in connects.iter().zip(expected) {
        assert_eq!((event.header.event, event.header.event.name()), (EventType::IoUringConnect, "connect"));
        assert_eq!((connect.result, connect.fd, connect.io_uring), (result, -1, true));
        assert_eq!((&connect.socket.remote, connect.socket.remote_from_user), (&Address::Inet(remote), result != 0));
    }
}
