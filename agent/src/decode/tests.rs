//! Records as the kernel half writes them, and every way in which they can be wrong.

use agent_common::{CallFlags, CallRecord, ExecRecord, OpenRecord, PathRecord, SocketFlags};
use proptest::prelude::*;

use super::*;

fn bytes_of<R: Fixed>(record: &R) -> Vec<u8> {
    let mut bytes = vec![0; size_of::<R>()];
    // SAFETY: `Fixed` types hold integers only, without padding; the vector has their size.
    unsafe { ptr::write_unaligned(bytes.as_mut_ptr().cast::<R>(), *record) };
    bytes
}

fn header(event: EventType) -> HeaderRecord {
    HeaderRecord {
        version: RECORD_VERSION,
        event: event.code(),
        length: 0,
        cpu: 3,
        generation: 9,
        sequence: 77,
        boot_ns: 123_456,
        ..HeaderRecord::default()
    }
}

/// Puts sections behind a fixed part and the length into its header.
fn record<R: Fixed>(fixed: &R, sections: &[&[u8]]) -> Vec<u8> {
    let mut bytes = bytes_of(fixed);
    for section in sections {
        bytes.extend_from_slice(section);
    }
    let length = (bytes.len() as u32).to_ne_bytes();
    bytes[4..8].copy_from_slice(&length);
    bytes
}

fn sample_exec() -> Vec<u8> {
    let fixed = ExecRecord {
        header: header(EventType::Execve),
        task: TaskRecord { tgid: 42, loginuid: 1000, comm: *b"name\0\0\0\0\0\0\0\0\0\0\0\0", ..TaskRecord::default() },
        file: FileRecord { ino: 5, flags: FileFlags::ON_ROOTFS, ..FileRecord::default() },
        argv_length: 6,
        envp_length: 4,
        filename_length: 4,
        interp_length: 0,
        flags: ExecFlags::ARGV_TRUNCATED,
        path: PathRecord { length: 10, within: 10, ..PathRecord::default() },
        cwd: PathRecord { length: 0, within: 0, ..PathRecord::default() },
    };
    record(&fixed, &[b"./sh", b"busy\0bin\0s"[..10].as_ref(), b"sh\0-c\0", b"A=1\0"])
}

/// The start of `/s/bin/busy` by process `tgid` of a cgroup.
pub(crate) fn exec_record(tgid: u32, cgroup_id: u64, boot_ns: u64) -> Vec<u8> {
    of_task(sample_exec(), tgid, cgroup_id, boot_ns)
}

/// A successful open of `/NAME` by process `tgid` of a cgroup, asked for as `asked`.
pub(crate) fn open_record(tgid: u32, cgroup_id: u64, boot_ns: u64, asked: &str) -> Vec<u8> {
    let names = b"passwd\0etc\0";
    let path = PathRecord { length: 11, within: 11, ..PathRecord::default() };
    let open = sample_open(path, OpenFlags::HAS_FILE, &[asked.as_bytes(), names]);
    of_task(open, tgid, cgroup_id, boot_ns)
}

/// Every record begins with a header and the task's facts.
fn of_task(mut record: Vec<u8>, tgid: u32, cgroup_id: u64, boot_ns: u64) -> Vec<u8> {
    let header = HeaderRecord { boot_ns, ..fixed(&record).unwrap() };
    record[..size_of::<HeaderRecord>()].copy_from_slice(&bytes_of(&header));
    let length = (record.len() as u32).to_ne_bytes();
    record[4..8].copy_from_slice(&length);
    let place = size_of::<HeaderRecord>()..size_of::<HeaderRecord>() + size_of::<TaskRecord>();
    let task = TaskRecord { tgid, tid: tgid, cgroup_id, ..task_of(&record[place.clone()]) };
    // SAFETY: integers only, and the place has the size of the type.
    unsafe { ptr::write_unaligned(record[place].as_mut_ptr().cast::<TaskRecord>(), task) };
    record
}

fn task_of(bytes: &[u8]) -> TaskRecord {
    assert_eq!(bytes.len(), size_of::<TaskRecord>());
    // SAFETY: the length was checked; a task record holds integers only.
    unsafe { ptr::read_unaligned(bytes.as_ptr().cast::<TaskRecord>()) }
}

fn sample_open(path: PathRecord, bits: u32, sections: &[&[u8]]) -> Vec<u8> {
    let fixed = OpenRecord {
        header: header(EventType::Openat),
        result: 3,
        bits,
        name_length: sections[0].len() as u32,
        path,
        ..OpenRecord::default()
    };
    record(&fixed, sections)
}

fn open_of(bytes: &[u8]) -> Open {
    match decode(bytes).unwrap().body {
        Body::Open(open) => *open,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_exec_record_becomes_an_exec() {
    let event = decode(&sample_exec()).unwrap();
    assert_eq!(
        event.header,
        Header {
            event: EventType::Execve,
            cpu: 3,
            sequence: 77,
            boot_ns: 123_456,
            generation: 9,
            hash: 0,
            of_host: false
        }
    );
    assert_eq!((event.task.tgid, event.task.loginuid, &event.task.comm[..5]), (42, 1000, &b"name\0"[..]));
    let Body::Exec(exec) = event.body else { panic!("not an exec") };
    assert_eq!(&exec.filename[..], b"./sh");
    assert_eq!(&exec.path[..], b"/s/bin/busy");
    assert_eq!(&exec.cwd[..], b"/");
    assert_eq!((&exec.argv[..], exec.argv_truncated), (&b"sh\0-c\0..."[..], true));
    assert_eq!((&exec.envp[..], exec.envp_truncated), (&b"A=1"[..], false));
    assert_eq!((exec.file.ino, exec.file.on_rootfs, exec.file.overlay), (5, true, None));
}

/// Runs of names as the kernel half writes them, and what they mean.
struct Case {
    names: &'static [u8],
    flags: u16,
    within: u16,
    landmark: u16,
    beneath: &'static [u8],
    path: &'static str,
    dir: &'static str,
    fs_path: &'static str,
}

#[test]
fn names_become_paths() {
    let file = OpenFlags::HAS_FILE;
    let plain =
        Case { names: b"f\0d\0", flags: 0, within: 4, landmark: 0, beneath: b"", path: "/d/f", dir: "", fs_path: "" };
    let cases = [
        Case { names: b"", within: 0, path: "/", ..plain },
        Case { names: b"passwd\0etc\0", within: 11, path: "/etc/passwd", ..plain },
        Case { flags: PathFlags::LANDMARK, landmark: 2, dir: "/d", ..plain },
        Case { flags: PathFlags::LANDMARK, landmark: 4, dir: "/", ..plain },
        Case {
            names: b"key\0mnt\0",
            flags: PathFlags::PARTIAL,
            beneath: b"secret\0home\0",
            path: "/mnt/key",
            fs_path: "/home/secret/key",
            ..plain
        },
        Case { flags: PathFlags::TRUNCATED, path: ".../d/f", ..plain },
        Case { names: b"memfd:x\0", flags: PathFlags::ROOTLESS, within: 8, path: "memfd:x", ..plain },
        Case { names: b"/\0", flags: PathFlags::ROOTLESS, within: 2, path: "", ..plain },
        plain,
    ];
    for Case { names, flags, within, landmark, beneath, path, dir, fs_path } in cases {
        let walked = PathRecord {
            length: names.len() as u16,
            within,
            beneath: beneath.len() as u16,
            landmark,
            flags,
            reserved: 0,
        };
        let open = open_of(&sample_open(walked, file, &[b"\xff asked", names, beneath]));
        assert_eq!(open.path, path, "{names:?}");
        assert_eq!((&open.dir[..], &open.fs_path[..]), (dir.as_bytes(), fs_path.as_bytes()), "{names:?}");
        assert_eq!(&open.name[..], b"\xff asked");
    }
}

#[test]
fn a_memfd_is_one_only_where_the_kernel_keeps_them() {
    let cases =
        [(PathFlags::ROOTLESS, 0x0102_1994, true), (0, 0x0102_1994, false), (PathFlags::ROOTLESS, 0xef53, false)];
    for (flags, magic, memfd) in cases {
        let fixed = OpenRecord {
            header: header(EventType::Openat),
            file: FileRecord { magic, ..FileRecord::default() },
            bits: OpenFlags::HAS_FILE,
            path: PathRecord { length: 8, within: 8, flags, ..PathRecord::default() },
            ..OpenRecord::default()
        };
        assert_eq!(open_of(&record(&fixed, &[b"memfd:x\0"])).file.unwrap().memfd, memfd);
    }
}

/// A rename of relative names with data, both directories, a file or a socket, and all that a record can hold.
fn sample_call(flags: u32) -> Vec<u8> {
    let names = |length: u16| PathRecord { length, within: length, ..PathRecord::default() };
    let fixed = CallRecord {
        header: header(EventType::Renameat2),
        text_lengths: [2, 3, 1],
        data_length: 4,
        paths: [names(4), names(2), names(if flags & CallFlags::SOCKET == 0 { 2 } else { 0 })],
        socket: SocketRecord {
            family: 1,
            remote_length: 3,
            local_length: 2,
            flags: SocketFlags::REMOTE_UNIX | SocketFlags::LOCAL_UNIX,
            ..SocketRecord::default()
        },
        flags: flags | CallFlags::DIRECTORY | CallFlags::DIRECTORY << 1,
        ..CallRecord::default()
    };
    let path: &[u8] = if flags & CallFlags::SOCKET == 0 { b"f\0" } else { b"" };
    record(&fixed, &[b"./", b"b/c", b"t", b"data", b"d\0e\0", b"g\0", path, b"/s\0", b"\0l"])
}

fn call_of(bytes: &[u8]) -> Call {
    match decode(bytes).unwrap().body {
        Body::Call(call) => *call,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_call_record_becomes_a_call() {
    let call = call_of(&sample_call(CallFlags::FILE));
    assert_eq!(call.texts, ["./", "b/c", "t"]);
    assert_eq!((&call.data[..], call.directories), (&b"data"[..], ["/e/d".into(), "/g".into()]));
    assert_eq!((&call.path[..], call.file.is_some(), call.socket), (&b"/f"[..], true, None));
    let call = call_of(&sample_call(CallFlags::FILE | CallFlags::SOCKET));
    let socket = call.socket.unwrap();
    assert_eq!((socket.remote, socket.local), (Address::Unix("/s".into()), Address::Unix("\0l".into())));
    assert_eq!((&call.path[..], &call.fs_path[..]), (&b""[..], &b""[..]), "a socket has no path");
    let call = call_of(&sample_call(0));
    assert_eq!((&call.path[..], call.file), (&b""[..], None), "without a file there is no path, not that of the root");
}

#[test]
fn a_failed_receive_has_no_sender() {
    for (event, result, sender) in [
        (EventType::Recvfrom, 5, true),
        (EventType::Recvfrom, -11, false),
        (EventType::Recvmsg, -11, false),
        (EventType::Sendto, -11, true),
    ] {
        let fixed = CallRecord {
            header: header(event),
            result,
            flags: CallFlags::FILE | CallFlags::SOCKET,
            socket: SocketRecord {
                flags: SocketFlags::REMOTE_FROM_USER,
                remote: InetAddress { family: 2, port: 53, ..InetAddress::default() },
                ..SocketRecord::default()
            },
            ..CallRecord::default()
        };
        let socket = call_of(&record(&fixed, &[])).socket.unwrap();
        assert_eq!((socket.remote != Address::None, socket.remote_from_user), (sender, sender), "{event:?} {result}");
    }
}

#[test]
fn restart_codes_are_interruptions() {
    for (raw, seen) in [(-512, -4), (-516, -4), (-511, -511), (-517, -517), (3, 3), (-2, -2), (i64::MIN, i64::MIN)] {
        assert_eq!(result(raw), seen);
    }
}

#[test]
fn addresses_are_told_as_they_are() {
    let inet = |family: i32, address: [u8; 16]| InetAddress { family: family as u16, port: 443, scope: 7, address };
    let mut v4 = [0; 16];
    v4[..4].copy_from_slice(&[10, 0, 0, 1]);
    let mapped = Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped().octets();
    let link_local = "fe80::1".parse::<Ipv6Addr>().unwrap().octets();
    let cases = [
        (address(&inet(libc::AF_INET, v4), Bytes::new(), false), Address::Inet("10.0.0.1:443".parse().unwrap())),
        (address(&inet(libc::AF_INET6, mapped), Bytes::new(), false), Address::Inet("10.0.0.1:443".parse().unwrap())),
        (
            address(&inet(libc::AF_INET6, link_local), Bytes::new(), false),
            Address::Inet("[fe80::1%7]:443".parse().unwrap()),
        ),
        (address(&inet(0, v4), Bytes::new(), false), Address::None),
        (
            address(&inet(0, v4), Bytes::from_static(b"/run/s\0rest"), true),
            Address::Unix(Bytes::from_static(b"/run/s")),
        ),
        (address(&inet(0, v4), Bytes::from_static(b"\0a\0b"), true), Address::Unix(Bytes::from_static(b"\0a\0b"))),
    ];
    for (seen, expected) in cases {
        assert_eq!(seen, expected);
    }
}

#[test]
fn foreign_and_cut_records_are_named_errors() {
    let good = sample_exec();
    let changed = |offset: usize, value: &[u8]| {
        let mut bytes = good.clone();
        bytes[offset..offset + value.len()].copy_from_slice(value);
        decode(&bytes).err().map(DecodeError::reason)
    };
    assert_eq!(decode(&[]).err().map(DecodeError::reason), Some("short"));
    assert_eq!(changed(0, &9_u16.to_ne_bytes()), Some("version"));
    assert_eq!(changed(2, &200_u16.to_ne_bytes()), Some("unknown_event"));
    assert_eq!(changed(2, &0_u16.to_ne_bytes()), Some("unknown_event"));
    assert_eq!(changed(4, &1_u32.to_ne_bytes()), Some("length"));
    let argv_length = size_of::<HeaderRecord>() + size_of::<TaskRecord>() + size_of::<FileRecord>();
    assert_eq!(changed(argv_length, &u32::MAX.to_ne_bytes()), Some("section"));
    let landmark = PathRecord { landmark: 1, ..PathRecord::default() };
    let bad = sample_open(landmark, OpenFlags::HAS_FILE, &[b""]);
    assert_eq!(decode(&bad).err().map(DecodeError::reason), Some("path"));

    for length in 0..good.len() {
        let mut cut = good[..length].to_vec();
        assert!(decode(&cut).is_err(), "cut to {length} bytes");
        // The same with a header that agrees.
        if length >= 8 {
            cut[4..8].copy_from_slice(&(length as u32).to_ne_bytes());
            assert!(decode(&cut).is_err(), "cut to {length} bytes, and says so");
        }
    }
    for reason in ["short", "version", "length", "unknown_event", "section", "path"] {
        assert!(DecodeError::REASONS.contains(&reason));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_it_panic(event in 0_u16..260, body in proptest::collection::vec(any::<u8>(), 0..900)) {
        let fixed = HeaderRecord { event, ..header(EventType::Execve) };
        let _ = decode(&record(&fixed, &[&body]));
        let _ = decode(&body);
    }

    #[test]
    fn no_change_of_a_good_record_makes_it_panic(at in 8_usize..300, value in any::<[u8; 4]>()) {
        for mut bytes in [sample_exec(), sample_open(PathRecord { length: 4, within: 2, ..PathRecord::default() }, 7, &[b"n", b"f\0d\0"])] {
            let end = (at + 4).min(bytes.len());
            bytes[at.min(end)..end].copy_from_slice(&value[..end - at.min(end)]);
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn lengths_of_a_call_that_lie_are_refused_or_stay_within_the_record(
        at in proptest::collection::vec((24_usize..700, any::<u8>()), 1..6),
        socket in any::<bool>(),
    ) {
        let mut bytes = sample_call(CallFlags::FILE | if socket { CallFlags::SOCKET } else { 0 });
        for (at, value) in at {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        match decode(&bytes) {
            Ok(Event { body: Body::Call(call), .. }) => {
                let held: usize = call.texts.iter().map(Bytes::len).sum::<usize>() + call.data.len();
                prop_assert!(held <= bytes.len());
            }
            Ok(_) => {}
            Err(error) => prop_assert!(DecodeError::REASONS.contains(&error.reason())),
        }
    }
}
