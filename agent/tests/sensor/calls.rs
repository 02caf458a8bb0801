//! Plain calls: every row of the event table is called once, raw, and its event held against what was passed and what
//! the kernel answered.

use std::{
    ffi::{CStr, CString},
    fs::File,
    io::Write as _,
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
    path::Path,
};

use agent_common::{Arch, EventGroup, Parameter};
use purser::{
    event::{Address, Body, Call, Event, EventType},
    sensor::{Policy, Tier},
};

#[allow(clippy::enum_glob_use, reason = "a table of events")]
use EventType::*;

use crate::watch::{Seen, comparable, identity, privileged, sensor, watch};

#[cfg(target_arch = "x86_64")]
const ARCH: Arch = Arch::X86_64;
#[cfg(target_arch = "aarch64")]
const ARCH: Arch = Arch::Aarch64;

/// A call and its arguments.
type Trigger = (EventType, [i64; 6]);

/// Makes the calls one after the other in a child and gives its events and what each call answered.
fn make(triggers: &[Trigger], before: impl FnOnce()) -> (Seen, Vec<i64>) {
    let bytes = (triggers.len() * 8).max(4096);
    // SAFETY: memory that the child shares.
    let shared = unsafe {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0).cast::<i64>()
    };
    let seen = watch(|| {
        before();
        for (nth, (event, [a, b, c, d, e, f])) in triggers.iter().enumerate() {
            let number = i64::from(event.call(ARCH).unwrap());
            // SAFETY: pointers are null, bad on purpose, or to what the test holds.
            unsafe {
                *libc::__errno_location() = 0;
                let result = libc::syscall(number, *a, *b, *c, *d, *e, *f);
                let error = i64::from(*libc::__errno_location());
                shared.add(nth).write(if result == -1 { -error } else { result });
            }
        }
        0
    });
    // SAFETY: the child has ended.
    let results = unsafe { std::slice::from_raw_parts(shared, triggers.len()) }.to_vec();
    (seen, results)
}

/// The calls among a child's events, those that its start made left out.
fn calls<'a>(seen: &'a Seen, triggers: &[Trigger]) -> Vec<(&'a Event, &'a Call)> {
    let mut wanted = triggers.iter().peekable();
    let of_child = seen.events.iter().filter(|event| event.task.tgid == seen.child);
    of_child
        .filter_map(|event| match &event.body {
            Body::Call(call) => wanted
                .next_if(|(trigger, arguments)| {
                    *trigger == event.header.event
                        && call.arguments[..4].iter().zip(arguments).all(|(a, b)| *a == *b as u64)
                })
                .map(|_| (event, &**call)),
            _ => None,
        })
        .collect()
}

fn text(argument: i64) -> Vec<u8> {
    if argument == 0 {
        return Vec::new();
    }
    // SAFETY: the triggers pass C strings where a row says text.
    unsafe { CStr::from_ptr(argument as *const _) }.to_bytes().to_vec()
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn every_plain_call_tells_arguments_result_texts_and_file() {
    if !privileged() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().canonicalize().unwrap();
    let path = |name: &str| CString::new(root.join(name).to_str().unwrap()).unwrap();
    File::create(root.join("file")).unwrap().write_all(b"content").unwrap();
    std::fs::create_dir(root.join("mnt")).unwrap();
    let file = File::options().read(true).write(true).open(root.join("file")).unwrap();
    let at = File::open(&root).unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let client2 = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let namespace = File::open("/proc/self/ns/uts").unwrap();
    let fd = i64::from(file.as_raw_fd());
    let dir = i64::from(at.as_raw_fd());
    let cwd = -100_i64;

    let (absolute, other) = (path("a"), path("b"));
    let names: Vec<CString> =
        ["c", "d", "e", "f", "file", "none", "proc", "user.x", "mnt"].map(|name| CString::new(name).unwrap()).into();
    let pointer = |text: &CString| text.as_ptr() as i64;
    let (first, second) = (pointer(&absolute), pointer(&other));
    let [third, fourth, link, node, named, none, kind, attribute, mnt] =
        [0, 1, 2, 3, 4, 5, 6, 7, 8].map(|nth: usize| pointer(&names[nth]));
    let buffer = [b'x'; 16];
    let bytes = buffer.as_ptr() as i64;
    let self_id = 0_i64;
    let call = |event: EventType, arguments: &[i64]| {
        let mut all = [0; 6];
        all[..arguments.len()].copy_from_slice(arguments);
        (event, all)
    };
    let triggers: Vec<Trigger> = [
        call(Mkdir, &[first, 0o755]),
        call(Mkdirat, &[dir, third, 0o750]),
        call(Rename, &[first, second]),
        call(Renameat, &[dir, third, cwd, fourth]),
        call(Renameat2, &[cwd, fourth, dir, third, 1]),
        call(Rmdir, &[second]),
        call(Unlinkat, &[dir, third, 0x200]),
        call(Link, &[named, link]),
        call(Linkat, &[dir, named, cwd, node, 0]),
        call(Unlink, &[link]),
        call(Symlink, &[named, link]),
        call(Symlinkat, &[named, dir, fourth]),
        call(Unlink, &[node]),
        call(Mknod, &[node, 0o010_644, 0]),
        call(Mknodat, &[dir, third, 0o010_600, 0]),
        call(Chmod, &[named, 0o4755]),
        call(Fchmod, &[fd, 0o700]),
        call(Fchmodat, &[dir, named, 0o755]),
        call(Chown, &[named, 1, 2]),
        call(Lchown, &[link, 1, 2]),
        call(Fchown, &[fd, 0, 0]),
        call(Fchownat, &[dir, named, 3, 4, 0]),
        call(Truncate, &[named, 3]),
        call(Ftruncate, &[fd, 5]),
        call(Setxattr, &[named, attribute, bytes, 1, 0]),
        call(Lsetxattr, &[named, attribute, bytes, 2, 0]),
        call(Fsetxattr, &[fd, attribute, bytes, 3, 0]),
        call(Unshare, &[0x0002_0000]),
        call(Mount, &[none, mnt, kind, 1, 0]),
        call(Umount2, &[mnt, 2]),
        call(MoveMount, &[fd, none, cwd, none, 0]),
        call(PivotRoot, &[none, none]),
        call(Chroot, &[none]),
        call(Setns, &[i64::from(namespace.as_raw_fd()), 0]),
        call(Socket, &[17, 3, 0]),
        call(Bind, &[i64::from(udp.as_raw_fd()), bytes, 16]),
        call(Listen, &[i64::from(listener.as_raw_fd()), 7]),
        call(Accept, &[i64::from(listener.as_raw_fd())]),
        call(Accept4, &[i64::from(listener.as_raw_fd()), 0, 0, 0o2_000_000]),
        call(Sendto, &[i64::from(client.as_raw_fd()), bytes, 4, 0, 0, 0]),
        call(Sendmsg, &[i64::from(client2.as_raw_fd()), 0, 0]),
        call(Recvfrom, &[i64::from(udp.as_raw_fd()), bytes, 4, 0x40, 0, 0]),
        call(Recvmsg, &[i64::from(udp.as_raw_fd()), 0, 0x40]),
        call(Dup, &[fd]),
        call(Dup2, &[i64::from(udp.as_raw_fd()), 200]),
        call(Dup3, &[fd, 201, 0o2_000_000]),
        call(Ptrace, &[0x4200, 1, 0, 0]),
        call(ProcessVmReadv, &[self_id, 0, 0, 0, 0, 0]),
        call(ProcessVmWritev, &[self_id, 0, 0, 0, 0, 0]),
        call(MemfdCreate, &[third, 1]),
        call(Mmap, &[0, 4096, 5, 2, fd, 0]),
        call(Mprotect, &[0, 4096, 5]),
        call(Kill, &[0x7fff_fff0, 0]),
        call(Tkill, &[0x7fff_fff0, 0]),
        call(Tgkill, &[0x7fff_fff0, 0x7fff_fff0, 0]),
        call(Prctl, &[4, 1, 0, 0]),
        call(Bpf, &[999, 0, 0]),
        call(InitModule, &[0, 0, third]),
        call(FinitModule, &[fd, third, 1]),
        call(DeleteModule, &[none, 0o4000]),
        call(Userfaultfd, &[0o2_000_000]),
        call(IoUringSetup, &[4, 0]),
        call(Keyctl, &[0, -3, 0]),
        call(PidfdOpen, &[1, 0]),
        call(PidfdGetfd, &[fd, 3, 0]),
        call(Seccomp, &[3, 0, 0]),
        call(PerfEventOpen, &[0, 0, -1, -1, 0]),
        call(Setresgid, &[0, 0, -1]),
        call(Setregid, &[0, -1]),
        call(Setgid, &[0]),
        call(Setresuid, &[0, -1, 0]),
        call(Setreuid, &[0, 0]),
        call(Setuid, &[0]),
        call(Capset, &[0, 0]),
        call(Sendmmsg, &[i64::from(client2.as_raw_fd()), 0, 1, 0]),
        call(Recvmmsg, &[i64::from(udp.as_raw_fd()), 0, 1, 0x40, 0]),
        call(Fsconfig, &[fd, 1, third, fourth, 0]),
        call(Fsopen, &[0, 0]),
        call(Fsmount, &[fd, 0, 0]),
        call(OpenTree, &[fd, none, 0]),
        call(MountSetattr, &[fd, none, 0, 0, 0]),
        call(Fchmodat2, &[dir, named, 0o700, 0]),
        call(PidfdSendSignal, &[fd, 0, 0, 0]),
        call(KexecLoad, &[0, 0, 0, 0xff]),
        call(FailedExecve, &[first, 0, 0]),
        call(FailedExecveat, &[dir, named, 0, 0, 0]),
        call(Fcntl, &[fd, 1030, 100]),
        call(RtSigqueueinfo, &[0x7fff_fff0, 0, 0]),
        call(RtTgsigqueueinfo, &[0x7fff_fff0, 0x7fff_fff0, 0, 0]),
        call(ProcessMadvise, &[-1, 0, 0, 4, 0]),
        call(MemfdSecret, &[-1]),
        call(Setgroups, &[-1, 0]),
        call(Setfsuid, &[0]),
        call(Setfsgid, &[0]),
        call(AddKey, &[0, 0, 0, 0, 0]),
        call(RequestKey, &[0, 0, 0, 0]),
        call(Setxattrat, &[dir, named, 0, attribute, 0, 0]),
        call(Removexattr, &[named, attribute]),
        call(Lremovexattr, &[named, attribute]),
        call(Fremovexattr, &[fd, attribute]),
        call(Removexattrat, &[dir, named, 0, attribute]),
        call(KexecFileLoad, &[-1, -1, 0, 0, 0xff]),
    ]
    .into();
    for event in EventType::ALL.iter().filter(|event| event.group() == EventGroup::Call && event.call(ARCH).is_some()) {
        assert!(triggers.iter().any(|(trigger, _)| trigger == event), "{event:?} is not called");
    }
    let at_root = path("");
    let (seen, results) = make(&triggers, || {
        // SAFETY: a prepared path.
        unsafe { libc::chdir(at_root.as_ptr()) };
    });
    // A call that this kernel does not have has no function to hook: only what sees all calls tells it.
    let tells_all = sensor(&Policy::default()).tier().in_use == Tier::C;
    let there = |result: &i64| tells_all || *result != -i64::from(libc::ENOSYS);
    let (triggers, results): (Vec<_>, Vec<_>) =
        triggers.into_iter().zip(results).filter(|(_, result)| there(result)).unzip();
    let calls = calls(&seen, &triggers);
    for (nth, ((event, arguments), result)) in triggers.iter().zip(&results).enumerate() {
        let Some((_, call)) = calls.get(nth) else { panic!("no {event:?} {arguments:?}: {:#?}", seen.events) };
        assert_eq!(call.result, *result, "{event:?}");
        assert_eq!(call.arguments.map(|argument| argument as i64), *arguments, "{event:?}");
        look(*event, call, arguments, &root);
    }
    for event in [Mkdir, Renameat2, Linkat, Symlinkat, Chmod, Fchownat, Mount, Umount2, Accept4, Setns, Unshare, Dup2] {
        let nth = triggers.iter().position(|(trigger, _)| *trigger == event).unwrap();
        assert!(results[nth] >= 0, "{event:?} failed: {}", results[nth]);
    }
    let file = identity(&root.join("file"));
    let chmod = calls.iter().find(|(event, _)| event.header.event == Fchmod).unwrap().1;
    assert_eq!(comparable(&chmod.file.unwrap()).ino, file.ino);
    assert_eq!(chmod.path, root.join("file").to_str().unwrap().as_bytes());
    let accepted = [Accept, Accept4]
        .map(|wanted| calls.iter().find(|(event, _)| event.header.event == wanted).unwrap().1.socket.clone().unwrap());
    assert!(accepted.iter().all(|socket| socket.local == Address::Inet(listener.local_addr().unwrap())));
    // Which of the two comes first is for the kernel to say: a busy one may end the second handshake sooner.
    let clients = [&client, &client2].map(|client| Address::Inet(client.local_addr().unwrap()));
    assert!(clients.iter().all(|client| accepted.iter().any(|socket| socket.remote == *client)), "{accepted:?}");
    let copied = calls.iter().find(|(event, _)| event.header.event == Dup2).unwrap().1.socket.clone().unwrap();
    assert_eq!((copied.local, copied.sock_type), (Address::Inet(udp.local_addr().unwrap()), libc::SOCK_DGRAM as u16));
    assert_eq!(seen.lost("name_unreadable"), 0);
}

/// Texts, and the directories that relative paths start from.
fn look(event: EventType, call: &Call, arguments: &[i64; 6], root: &Path) {
    let mut texts = Vec::new();
    for parameter in event.parameters() {
        match parameter {
            Parameter::Path(at) | Parameter::PathAt(at, _) => texts.push((text(arguments[usize::from(*at)]), true)),
            Parameter::Text(at) => texts.push((text(arguments[usize::from(*at)]), false)),
            _ => {}
        }
    }
    for (nth, (text, is_path)) in texts.into_iter().enumerate() {
        assert_eq!(call.texts[nth], text, "{event:?}");
        let relative = is_path && !text.starts_with(b"/");
        let from = if relative { root.to_str().unwrap().as_bytes() } else { b"" };
        if let Some(directory) = call.directories.get(nth) {
            assert_eq!(directory, from, "{event:?} {}", String::from_utf8_lossy(&text));
        }
    }
}

#[test]
fn messages_tell_the_address_that_they_name() {
    if !privileged() {
        return;
    }
    let to = UdpSocket::bind("127.0.0.1:0").unwrap();
    let from = UdpSocket::bind("127.0.0.1:0").unwrap();
    let connected = UdpSocket::bind("127.0.0.1:0").unwrap();
    connected.connect(to.local_addr().unwrap()).unwrap();
    let SocketAddr::V4(address) = to.local_addr().unwrap() else { panic!("an IPv4 socket") };
    let mut raw = [0_u8; 16];
    raw[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
    raw[2..4].copy_from_slice(&address.port().to_be_bytes());
    raw[4..8].copy_from_slice(&address.ip().octets());
    let text = *b"hello";
    let mut part = libc::iovec { iov_base: text.as_ptr() as *mut _, iov_len: 5 };
    // SAFETY: all zero is an empty header.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = raw.as_mut_ptr().cast();
    message.msg_namelen = 16;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    let fd = |socket: &UdpSocket| i64::from(socket.as_raw_fd());
    let (bytes, name, header) = (text.as_ptr() as i64, raw.as_ptr() as i64, &raw const message as i64);
    let triggers = [
        (Sendto, [fd(&from), bytes, 5, 0, name, 16]),
        (Sendmsg, [fd(&from), header, 0, 0, 0, 0]),
        (Sendto, [fd(&connected), bytes, 3, 0, 0, 0]),
    ];
    let (seen, results) = make(&triggers, || {});
    assert_eq!(results, [5, 5, 3]);
    let calls = calls(&seen, &triggers);
    assert_eq!(calls.len(), 3, "{:?}", seen.events);
    for (nth, (_, call)) in calls.iter().enumerate() {
        let socket = call.socket.as_ref().unwrap();
        assert_eq!(socket.remote, Address::Inet(to.local_addr().unwrap()), "{nth}");
        assert_eq!(socket.remote_from_user, nth < 2);
        assert_eq!(call.data, &text[..results[nth] as usize]);
    }
}

#[test]
fn calls_without_a_file_have_no_path_and_an_empty_path_is_its_descriptor() {
    if !privileged() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().canonicalize().unwrap();
    let file = File::create(root.join("file")).unwrap();
    let absolute = CString::new(root.join("made").to_str().unwrap()).unwrap();
    let (path, empty) = (absolute.as_ptr() as i64, c"".as_ptr() as i64);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let triggers = [
        (Mkdir, [path, 0o700, 0, 0, 0, 0]),
        (Fchownat, [i64::from(file.as_raw_fd()), empty, 0, 0, 0x1000, 0]),
        (Dup, [i64::from(socket.as_raw_fd()), 0, 0, 0, 0, 0]),
    ];
    let (seen, results) = make(&triggers, || {});
    assert!(results.iter().all(|result| *result >= 0), "{results:?}");
    let calls = calls(&seen, &triggers);
    for (_, call) in &calls {
        assert_eq!((&call.path[..], &call.fs_path[..]), (&b""[..], &b""[..]));
    }
    assert_eq!(calls[1].1.directories[0], root.join("file").to_str().unwrap().as_bytes());
    assert!(calls[2].1.socket.is_some());
}

#[test]
fn descriptors_of_the_kernel_s_own_kinds_have_their_names() {
    if !privileged() {
        return;
    }
    // SAFETY: new descriptors without anything behind them.
    let opened = unsafe {
        let mut signals: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut signals);
        let mut ends = [0; 2];
        libc::pipe(ends.as_mut_ptr());
        [
            ("[eventfd]", libc::eventfd(0, 0)),
            ("[eventpoll]", libc::epoll_create1(0)),
            ("[timerfd]", libc::timerfd_create(libc::CLOCK_MONOTONIC, 0)),
            ("[signalfd]", libc::signalfd(-1, &raw const signals, 0)),
            ("inotify", libc::inotify_init1(0)),
            ("memfd:x", libc::memfd_create(c"x".as_ptr(), 0)),
            ("[userfaultfd]", libc::syscall(libc::SYS_userfaultfd, 0) as i32),
            ("", ends[0]),
            ("", libc::open(c"/proc/self/ns/uts".as_ptr(), 0)),
            ("/dev/null", libc::open(c"/dev/null".as_ptr(), 0)),
        ]
    };
    // SAFETY: a new descriptor.
    let process = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0) };
    let mut triggers = opened.map(|(_, fd)| (Dup, [i64::from(fd), 0, 0, 0, 0, 0])).to_vec();
    triggers.push((Dup, [process, 0, 0, 0, 0, 0]));
    let (seen, _) = make(&triggers, || {});
    let calls = calls(&seen, &triggers);
    for ((name, _), (_, call)) in opened.iter().zip(&calls) {
        assert_eq!(call.path, name.as_bytes());
    }
    // A file system of their own since 6.9.
    let (path, magic) = (&calls[opened.len()].1.path, calls[opened.len()].1.file.unwrap().magic);
    assert!(path == "[pidfd]" || (path.is_empty() && magic == 0x5049_4446), "{path:?} {magic:x}");
}

#[test]
fn datagrams_between_unix_sockets_and_received_ones_tell_who() {
    if !privileged() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path().canonicalize().unwrap().join("s");
    let to = std::os::unix::net::UnixDatagram::bind(&at).unwrap();
    let from = std::os::unix::net::UnixDatagram::unbound().unwrap();
    let raw = |name: &[u8]| [&(libc::AF_UNIX as u16).to_ne_bytes(), name].concat();
    let (path, hidden) = (raw(&[at.to_str().unwrap().as_bytes(), b"\0"].concat()), raw(b"\0purser-none\0x"));
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    sender.send_to(b"hi", receiver.local_addr().unwrap()).unwrap();
    let (mut name, mut length, buffer) = ([0xff_u8; 28], 28_u32, [0_u8; 8]);
    let (name, length) = (name.as_mut_ptr() as i64, &raw mut length as i64);
    let (from, to, receiver) = (from.as_raw_fd(), to.as_raw_fd(), receiver.as_raw_fd());
    let bytes = buffer.as_ptr() as i64;
    let triggers = [
        (Sendto, [i64::from(from), bytes, 2, 0, path.as_ptr() as i64, path.len() as i64]),
        (Sendto, [i64::from(from), bytes, 2, 0, hidden.as_ptr() as i64, hidden.len() as i64]),
        (Recvfrom, [i64::from(to), bytes, 8, 0, 0, 0]),
        (Recvfrom, [i64::from(receiver), bytes, 8, 0x40, name, length]),
        (Recvfrom, [i64::from(receiver), bytes, 8, 0x40, name, length]),
    ];
    let (seen, results) = make(&triggers, || {});
    assert_eq!(results, [2, -i64::from(libc::ECONNREFUSED), 2, 2, -i64::from(libc::EAGAIN)]);
    let calls = calls(&seen, &triggers);
    let far = |nth: usize| {
        let socket = calls[nth].1.socket.clone().unwrap();
        (socket.remote, socket.remote_from_user)
    };
    let named = Address::Unix(at.to_str().unwrap().to_owned().into());
    assert_eq!(far(0), (named.clone(), true));
    assert_eq!(far(1), (Address::Unix((&b"\0purser-none\0x"[..]).into()), true));
    assert_eq!(calls[2].1.socket.as_ref().unwrap().local, named);
    assert_eq!(far(3), (Address::Inet(sender.local_addr().unwrap()), true));
    assert_eq!(far(4), (Address::None, false), "nothing came, so nobody sent it");
    assert_eq!(&calls[3].1.data[..], b"hi");
}
