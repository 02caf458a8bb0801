//! Operations of a ring that do what a plain call does: each is reported as that call, with what the kernel copied.

use std::{
    ffi::CString,
    fs::File,
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
};

use agent_common::RING_OPERATIONS;
use purser::event::{Address, Body, Call, Event, EventType};

#[allow(clippy::enum_glob_use, reason = "a table of events")]
use EventType::*;

#[allow(clippy::wildcard_imports, reason = "operations by their numbers")]
use crate::uring::*;
use crate::watch::{Seen, is_at_least, privileged, skip, tells_io_uring, watch};

fn calls<'a>(seen: &'a Seen) -> Vec<(&'a Event, &'a Call)> {
    let of_ring = |event: &'a Event| match event {
        Event { body: Body::Call(call), .. } if call.io_uring => Some((event, &**call)),
        _ => None,
    };
    seen.events.iter().filter(|event| event.task.tgid == seen.child).filter_map(of_ring).collect()
}

/// The event and the result of each request, and the request.
type Step = (EventType, Request);

fn request(opcode: u8, fd: i32, addr: i64, len: u32, off: u64, flags: u32) -> Request {
    Request { opcode, fd, addr: addr as u64, len, off, open_flags: flags, ..Request::default() }
}

#[test]
fn files_and_links_are_reported_by_the_kernel_s_copy_of_their_names() {
    if !privileged() || !tells_io_uring("files and links by io_uring") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().canonicalize().unwrap();
    File::create(root.join("file")).unwrap();
    let file = File::options().write(true).open(root.join("file")).unwrap();
    let at = File::open(&root).unwrap();
    let (dir, cwd) = (at.as_raw_fd(), -100_i32);
    let names = ["made", "other", "file", "hard", "soft", "none"].map(|name| CString::new(name).unwrap());
    let [made, other, named, hard, soft, none] = names.each_ref().map(|name| name.as_ptr() as i64);
    let absolute = CString::new(root.join("file").to_str().unwrap()).unwrap();
    let (attribute, value) = (c"user.x".as_ptr() as i64, c"v".as_ptr() as u64);
    let xattr = |opcode, fd, path: u64| Request { pad: [path, 0], ..request(opcode, fd, attribute, 1, value, 0) };
    let mut steps: Vec<Step> = vec![
        (Mkdirat, request(OP_MKDIRAT, dir, made, 0o750, 0, 0)),
        (Renameat, request(OP_RENAMEAT, cwd, made, dir as u32, other as u64, 1)),
        (Unlinkat, request(OP_UNLINKAT, cwd, other, 0, 0, 0x200)),
        (Linkat, request(OP_LINKAT, dir, named, cwd as u32, hard as u64, 0)),
        (Symlinkat, request(OP_SYMLINKAT, dir, named, 0, soft as u64, 0)),
        (Unlinkat, request(OP_UNLINKAT, dir, none, 0, 0, 0)),
        (Setxattr, xattr(OP_SETXATTR, 0, absolute.as_ptr() as u64)),
        (Fsetxattr, xattr(OP_FSETXATTR, file.as_raw_fd(), 0)),
        (Ftruncate, request(OP_FTRUNCATE, file.as_raw_fd(), 0, 0, 7, 0)),
    ];
    if !is_at_least(6, 9) {
        skip("ftruncate by io_uring", "the operation (6.9 on)");
        steps.pop();
    }
    let start = CString::new(root.to_str().unwrap()).unwrap();
    for polled in [false, true] {
        let seen = watch(|| {
            // SAFETY: a prepared path.
            unsafe { libc::chdir(start.as_ptr()) };
            let Ok(ring) = (if polled { Uring::polled() } else { Uring::new() }) else { return 1 };
            for (nth, (_, request)) in steps.iter().enumerate() {
                let result = ring.run(*request);
                if (result == -libc::ENOENT) != (nth == 5) || (nth < 6 && nth != 5 && result < 0) {
                    return 10 + nth as i32;
                }
            }
            for name in [hard, soft] {
                ring.run(request(OP_UNLINKAT, dir, name, 0, 0, 0));
            }
            0
        });
        let calls = calls(&seen);
        assert_eq!(calls.len(), steps.len() + 2, "polled: {polled} {:?}", seen.events);
        for ((event, call), (wanted, _)) in calls.iter().zip(&steps) {
            assert_eq!(event.header.event, *wanted);
            assert!(call.socket.is_none(), "{call:?}");
        }
        let call = |nth: usize| calls[nth].1;
        let base = root.to_str().unwrap().as_bytes();
        assert_eq!(
            (&call(0).texts[0][..], call(0).arguments[2], &call(0).directories[0][..]),
            (&b"made"[..], 0o750, base)
        );
        assert_eq!(call(1).texts[..2], [&b"made"[..], &b"other"[..]]);
        assert_eq!(call(1).directories, [base, base], "the working directory and a descriptor's");
        assert_eq!((call(1).arguments[0] as i32, call(1).arguments[4]), (cwd, 1));
        assert_eq!((&call(2).texts[0][..], call(2).arguments[2], call(2).result), (&b"other"[..], 0x200, 0));
        assert_eq!(call(3).texts[..2], [&b"file"[..], &b"hard"[..]]);
        assert_eq!(call(4).texts[..2], [&b"file"[..], &b"soft"[..]]);
        assert_eq!(call(4).directories, [&b""[..], base], "a link's target starts nowhere");
        assert_eq!((&call(5).texts[0][..], call(5).result), (&b"none"[..], -i64::from(libc::ENOENT)));
        assert_eq!(seen.lost("io_uring_name_forgotten"), 0);
    }
}

#[test]
fn sockets_are_made_bound_listened_at_and_accepted_from() {
    if !privileged() || !tells_io_uring("sockets by io_uring") {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let SocketAddr::V4(to) = udp.local_addr().unwrap() else { panic!("an IPv4 socket") };
    let raw = |port: u16| {
        let mut raw = [0_u8; 16];
        raw[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
        raw[2..4].copy_from_slice(&port.to_be_bytes());
        raw[4..8].copy_from_slice(&[127, 0, 0, 1]);
        raw
    };
    let (far, own) = (raw(to.port()), raw(0));
    let text = *b"hello";
    let mut part = libc::iovec { iov_base: text.as_ptr() as *mut _, iov_len: 5 };
    // SAFETY: all zero is an empty header.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_name = far.as_ptr() as *mut _;
    header.msg_namelen = 16;
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    let from = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (bytes, header) = (text.as_ptr() as i64, &raw const header as i64);
    let stream = libc::SOCK_STREAM as u64;
    // `addr_len` of a send is the lower half of the word where an open has its slot.
    let send = Request { file_index: 16, ..request(OP_SEND, from.as_raw_fd(), bytes, 5, far.as_ptr() as u64, 0) };
    let seen = watch(|| {
        let Ok(ring) = Uring::new() else { return 1 };
        let made = ring.run(request(OP_SOCKET, libc::AF_INET, 0, 0, stream, 0));
        if made < 0 || ring.run(request(OP_BIND, made, own.as_ptr() as i64, 0, 16, 0)) == -libc::EINVAL {
            return 0;
        }
        let results = [
            ring.run(request(OP_LISTEN, made, 0, 7, 0, 0)),
            ring.run(request(OP_ACCEPT, listener.as_raw_fd(), 0, 0, 0, 0)),
            ring.run(send),
            ring.run(request(OP_SENDMSG, from.as_raw_fd(), header, 1, 0, 0)),
            ring.run(request(OP_RECV, udp.as_raw_fd(), bytes, 0, 0, 0)),
        ];
        i32::from(results.iter().any(|result| *result < 0))
    });
    let calls = calls(&seen);
    let events: Vec<_> = calls.iter().map(|(event, _)| event.header.event).collect();
    if events == [Socket] {
        skip("sockets by io_uring", "bind and listen as operations (6.11 on)");
        return;
    }
    assert_eq!(events, [Socket, Bind, Listen, Accept, Sendto, Sendmsg, Recvfrom]);
    let socket = |nth: usize| calls[nth].1.socket.clone().unwrap();
    assert_eq!((socket(0).family, socket(0).sock_type), (libc::AF_INET as u16, libc::SOCK_STREAM as u16));
    assert_eq!(calls[0].1.arguments[..3], [libc::AF_INET as u64, stream, 0]);
    let Address::Inet(own) = socket(1).local else { panic!("{:?}", calls[1]) };
    assert!(own.port() != 0 && socket(2).local == Address::Inet(own));
    assert_eq!((calls[2].1.arguments[1], calls[1].1.arguments[0]), (7, calls[0].1.result as u64));
    assert_eq!(socket(3).local, Address::Inet(listener.local_addr().unwrap()));
    assert_eq!(socket(3).remote, Address::Inet(client.local_addr().unwrap()));
    for nth in [4, 5] {
        assert_eq!((socket(nth).remote, socket(nth).remote_from_user), (Address::Inet(to.into()), true));
        assert_eq!((calls[nth].1.result, &calls[nth].1.data[..]), (5, &b"hello"[..]));
    }
}

#[test]
fn linked_and_silent_requests_are_reported_like_others() {
    if !privileged() || !tells_io_uring("linked requests of io_uring") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().canonicalize().unwrap();
    for name in ["one", "two", "three"] {
        File::create(root.join(name)).unwrap();
    }
    let path = |name: &str| CString::new(root.join(name).to_str().unwrap()).unwrap();
    let paths = ["one", "two", "three", "none"].map(path);
    let unlink =
        |nth: usize, flags: u8| Request { flags, ..request(OP_UNLINKAT, -100, paths[nth].as_ptr() as i64, 0, 0, 0) };
    let seen = watch(|| {
        let Ok(ring) = Uring::new() else { return 1 };
        let results = ring.run_all(&[unlink(0, LINK), unlink(1, LINK | SKIP), unlink(2, 0)]);
        i32::from(results[0] != 0 || results[2] != 0)
    });
    let calls = calls(&seen);
    let mut told: Vec<_> = calls.iter().map(|(_, call)| (call.texts[0].to_vec(), call.result)).collect();
    told.sort();
    let mut wanted: Vec<_> = paths[..3].iter().map(|path| (path.to_bytes().to_vec(), 0)).collect();
    wanted.sort();
    assert_eq!(told, wanted);
}

#[test]
fn every_row_of_the_table_is_known_to_this_kernel_s_tests() {
    let tried = [
        OP_SENDMSG,
        OP_RECVMSG,
        OP_ACCEPT,
        OP_SEND,
        OP_RECV,
        OP_RENAMEAT,
        OP_UNLINKAT,
        OP_MKDIRAT,
        OP_SYMLINKAT,
        OP_LINKAT,
        OP_FSETXATTR,
        OP_SETXATTR,
        OP_SOCKET,
        OP_FTRUNCATE,
        OP_BIND,
        OP_LISTEN,
    ];
    // The two that send without copying are the same structure as their kin.
    for row in RING_OPERATIONS.iter().filter(|row| !matches!(row.opcode, 47 | 48)) {
        assert!(tried.contains(&row.opcode), "{row:?} is not tried");
    }
}
