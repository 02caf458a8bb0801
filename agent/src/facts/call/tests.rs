//! Fields of plain calls, as conditions over calls made up.

use super::super::tests::{holds, sh};
use super::*;
use crate::event::{Body, Event, FileIdentity, Socket};
use crate::facts::Names;
use crate::sample::event;

/// A call with nothing but a result and arguments.
fn called(kind: EventType, result: i64, arguments: &[u64], change: impl FnOnce(&mut Call)) -> Event {
    let mut all = [0; 6];
    all[..arguments.len()].copy_from_slice(arguments);
    let mut call = Call {
        io_uring: false,
        data_truncated: false,
        result,
        arguments: all,
        texts: Default::default(),
        directories: Default::default(),
        file: None,
        path: "".into(),
        fs_path: "".into(),
        socket: None,
        data: "".into(),
    };
    change(&mut call);
    let mut event = event(1, sh(), Body::Call(Box::new(call)));
    event.header.event = kind;
    event
}

#[test]
fn an_exec_that_failed_tells_what_it_asked_for_and_the_program_that_goes_on() {
    let failed = called(EventType::FailedExecve, -2, &[], |call| {
        call.texts[0] = "../x".into();
        call.directories[0] = "/a/b".into();
        call.data = "zero\0one\0two".into();
    });
    for condition in [
        "evt.type = execve and evt.res = ENOENT and evt.arg.res = ENOENT and evt.failed = true and evt.rawres = -2",
        "evt.arg.exe = zero and evt.arg.args = 'one two' and evt.arg.filename = ../x",
        "evt.category = process and evt.arg_source = user and proc.name = sh",
        "not fd.name exists and not evt.arg.vm_size exists and evt.arg.pid exists",
    ] {
        assert!(holds(&failed, condition), "{condition}");
    }
}

#[test]
fn a_row_has_as_many_parameters_as_the_rules_know() {
    let rows = EventType::ALL.iter().filter(|event| !event.parameters().is_empty());
    for event in rows.filter(|event| !event.is_failed_exec()) {
        let known = code(*event).event();
        assert_eq!((known.name, known.params.len()), (event.name(), event.parameters().len()), "{event:?}");
    }
}

#[test]
fn parameters_of_calls_print_as_upstream_prints_them() {
    let renamed = called(EventType::Renameat2, 0, &[3, 0, -100_i32 as u64, 0, 1], |call| {
        call.texts = ["a".into(), "/x/./b".into(), "".into()];
        call.directories = ["/tmp".into(), "".into()];
    });
    for condition in [
        "evt.type = renameat2 and evt.res = SUCCESS and evt.rawres = 0 and evt.failed = false",
        "evt.arg.oldpath = /tmp/a and evt.arg.newpath = /x/b",
        "evt.arg.newdirfd = AT_FDCWD and evt.arg.olddirfd = '<d>/tmp'",
        "evt.arg.flags = RENAME_NOREPLACE and evt.rawarg.flags = 1",
        "fs.path.source = /tmp/a and fs.path.target = /x/b and fs.path.sourceraw = a",
        "evt.arg_source = user and evt.category = file",
        "not fd.name exists and not fs.path.name exists",
    ] {
        assert!(holds(&renamed, condition), "{condition}");
    }
    let mode = called(EventType::Chmod, -1, &[0, 0o4755], |call| call.texts[0] = "/bin/x".into());
    for condition in [
        "evt.arg.mode contains S_ISUID and evt.arg.mode contains S_IXOTH and not evt.arg.mode contains S_IWOTH",
        "evt.res = EPERM and evt.arg.res = EPERM and evt.failed = true and fs.path.name = /bin/x",
    ] {
        assert!(holds(&mode, condition), "{condition}");
    }
    let socket = called(EventType::Socket, 5, &[17, 3, 0x300], |_| {});
    assert!(holds(&socket, "evt.arg.domain = AF_PACKET and evt.arg.type = 3 and evt.arg.fd = '<?>' and fd.num = 5"));
    let unshare = called(EventType::Unshare, 0, &[0x1000_0000], |_| {});
    assert!(holds(&unshare, "evt.arg.flags = CLONE_NEWUSER and evt.category = process"));
    let truncate = called(EventType::Truncate, -2, &[0, 3], |_| {});
    assert!(holds(&truncate, "evt.type = truncate and not evt.res exists and not evt.arg.res exists"));
}

#[test]
fn a_duplicated_socket_is_the_event_s_descriptor() {
    let inet = |text: &str| Address::Inet(text.parse().expect("an address"));
    let socket = |remote: Address, from_user: bool| Socket {
        family: 2,
        sock_type: 1,
        protocol: 6,
        remote,
        remote_from_user: from_user,
        local: inet("10.0.0.1:80"),
    };
    let copied = called(EventType::Dup2, 0, &[7, 0], |call| call.socket = Some(socket(inet("10.0.0.2:4000"), false)));
    assert!(holds(&copied, "evt.rawres in (0, 1, 2) and fd.type in (ipv4, ipv6) and fd.num = 0 and fd.l4proto = tcp"));
    assert!(holds(&copied, "fd.name = '10.0.0.1:80->10.0.0.2:4000' and fd.name_changed = false"));
    let accepted = called(EventType::Accept4, 4, &[3], |call| call.socket = Some(socket(inet("10.0.0.2:4000"), false)));
    for condition in [
        "fd.sip = 10.0.0.1 and fd.cip = 10.0.0.2 and fd.sport = 80 and fd.is_server = true and fd.connected = true",
        "evt.arg.tuple = '10.0.0.2:4000->10.0.0.1:80' and evt.arg.fd = '<4>10.0.0.2:4000->10.0.0.1:80'",
    ] {
        assert!(holds(&accepted, condition), "{condition}");
    }
    let listening = called(EventType::Listen, 0, &[3, 128], |call| call.socket = Some(socket(Address::None, false)));
    assert!(holds(&listening, "fd.sport = 80 and evt.arg.backlog = 128 and fd.connected = false and fd.num = 3"));
    let sent = called(EventType::Sendto, 5, &[3], |call| {
        call.socket = Some(socket(inet("169.254.169.254:80"), true));
        call.data = "GET /".into();
    });
    for condition in [
        "fd.sip = 169.254.169.254 and fd.name_changed = true and fd.connected = false and evt.arg_source = user",
        "evt.buffer contains GET and evt.buflen = 5",
    ] {
        assert!(holds(&sent, condition), "{condition}");
    }
}

#[test]
fn a_duplicate_by_fcntl_is_told_by_its_command() {
    let copied = called(EventType::Fcntl, 100, &[3, 1030, 100], |_| {});
    assert!(holds(&copied, "evt.arg.cmd = F_DUPFD_CLOEXEC and evt.rawres = 100 and evt.arg.arg = 64 and fd.num = 3"));
}

#[test]
fn a_call_on_a_descriptor_has_the_names_of_its_file() {
    let changed = called(EventType::Fchmod, 0, &[3, 0o777], |call| {
        call.file = Some(FileIdentity { mode: libc::S_IFREG, ..FileIdentity::default() });
        call.path = "/mnt/shadow".into();
        call.fs_path = "/etc/shadow".into();
    });
    assert!(holds(
        &changed,
        "fd.name = /mnt/shadow and fd.type = file and fd.filename = shadow and fs.path.name = /mnt/shadow"
    ));
    assert!(Names::of(&changed).iter().eq(["/mnt/shadow", "/etc/shadow"]));
    let named = called(EventType::Unlink, 0, &[0], |call| {
        call.texts[0] = "../x".into();
        call.directories[0] = "/a/b".into();
    });
    assert!(Names::of(&named).iter().eq(["/a/x", "../x"]));
    assert!(holds(
        &named,
        "evt.arg.path = /a/x and fs.path.name = /a/x and fs.path.nameraw = ../x and not fd.name exists"
    ));
}

#[test]
fn an_empty_path_stands_for_what_the_descriptor_is() {
    let of = |result| {
        called(EventType::Fchownat, result, &[5, 0, 0, 0, 0x1000], |call| call.directories[0] = "/etc/shadow".into())
    };
    for condition in ["fs.path.name = /etc/shadow", "evt.arg.pathname = /etc/shadow", "evt.arg.flags = AT_EMPTY_PATH"] {
        assert!(holds(&of(0), condition), "{condition}");
    }
    assert!(Names::of(&of(0)).iter().eq(["/etc/shadow"]));
    assert!(holds(&of(-2), "not fs.path.name exists"), "without the flag there is no such file");
    let unmounted = called(EventType::Umount, 0, &[0], |call| call.texts[0] = "/mnt".into());
    assert!(holds(&unmounted, "evt.type = umount and fs.path.name = /mnt and evt.arg.name = /mnt"));
}

#[test]
fn a_number_without_a_name_is_itself() {
    let called = |kind, arguments: &[u64]| called(kind, 0, arguments, |_| {});
    for (event, condition) in [
        (called(EventType::Unlinkat, &[3, 0, 0]), "evt.arg.flags = 0 and evt.rawarg.flags = 0"),
        (called(EventType::Bpf, &[999]), "evt.arg.cmd = 999 and evt.args contains 'cmd=999'"),
        (called(EventType::Unshare, &[0xffff_ffff_0000_0000]), "evt.arg.flags = 0"),
        (
            called(EventType::Unshare, &[1 | 0x1000_0000]),
            "evt.arg.flags = CLONE_NEWUSER and evt.rawarg.flags = 268435457",
        ),
        (called(EventType::Unlinkat, &[0xffff_ff9c, 0, 0]), "evt.arg.dirfd = AT_FDCWD"),
        (called(EventType::Unlinkat, &[0xffff_fff7, 0, 0]), "evt.arg.dirfd = EBADF"),
        (called(EventType::Kill, &[0xffff_ffff, 0xffff_ff09]), "evt.arg.pid = -1 and evt.rawarg.sig = 9"),
    ] {
        assert!(holds(&event, condition), "{condition}");
    }
}

#[test]
fn files_of_the_kernel_s_own_are_told_by_what_they_lie_on() {
    let of = |magic: u64, mode: u32, path: &'static str| {
        called(EventType::Dup, 9, &[3], |call| {
            call.file = Some(FileIdentity { mode, magic, ..FileIdentity::default() });
            call.path = path.into();
        })
    };
    for (event, kind) in [
        (of(0x5049_4446, 0o100_700, ""), "pidfd"),
        (of(0x0904_1934, 0o600, "[pidfd]"), "pidfd"),
        (of(0x0904_1934, 0o600, "[eventfd]"), "event"),
        (of(0x0904_1934, 0o100_600, "[signalfd]"), "signalfd"),
        (of(0x5049_5045, 0o10_600, ""), "pipe"),
        (of(0x6e73_6673, 0o100_444, ""), "file"),
        (of(0xef53, 0o100_600, "/[eventfd]"), "file"),
    ] {
        assert!(holds(&event, &format!("fd.type = {kind} and not fd.name = /")), "{kind}");
    }
}

#[test]
fn a_call_that_failed_made_no_descriptor() {
    let failed = called(EventType::Socket, -13, &[17, 3, 0x300], |_| {});
    assert!(holds(&failed, "fd.num = -1 and evt.arg.fd = EACCES and evt.rawres = -13"));
    let refused = called(EventType::Listen, -95, &[3, 1], |_| {});
    assert!(holds(&refused, "fd.num = 3 and evt.res = EOPNOTSUPP"), "its descriptor was there before");
}
