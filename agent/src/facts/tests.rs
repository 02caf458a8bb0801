//! Facts against what upstream's fields say, as conditions over events made up.

use purser_rules::{Catalogue, Filter, Outcome, parse};

use super::*;
use crate::container::{Pod, Shares};
use crate::event::{Address, Body, Connect, Exec, Exit, FileIdentity, Open, Overlay, Socket, Task};
use crate::sample::{Fake, container, event, exec, fork, open, task};

pub(super) fn holds(event: &Event, condition: &str) -> bool {
    holds_after(&[], event, &Fake::default(), None, condition)
}

/// Whether `condition` holds on `event` in `container`, when `before` has happened.
fn holds_after(
    before: &[Event],
    event: &Event,
    outside: &Fake,
    container: Option<&Container>,
    condition: &str,
) -> bool {
    let (mut table, arena) = (ProcessTable::default(), Bump::new());
    for event in before {
        table.apply(event, outside);
    }
    let process = table.apply(event, outside);
    let names = Names::of(event);
    let sight = Sight {
        number: 1,
        event,
        process: &process,
        lineage: Lineage::Table(&table),
        container,
        name: names.get(0),
        epoch_offset_ns: 0,
        started_boot_ns: 0,
        previous_boot_ns: 0,
        clock: Clock::default(),
        outside,
        arena: &arena,
        user: OnceCell::new(),
    };
    let expr = parse::parse(condition.as_bytes(), 100).expect(condition);
    let (filter, _hints) = Filter::new(&expr, Catalogue::builtin()).expect(condition);
    filter.evaluate(&sight) == Outcome::True
}

pub(super) fn sh() -> Task {
    task(10, 1, (1, 0), "sh")
}

fn opened(change: impl FnOnce(&mut Open)) -> Event {
    let mut body = open("/etc/passwd", "/etc/passwd", "", "");
    if let Body::Open(open) = &mut body {
        change(open);
    }
    event(1, sh(), body)
}

#[test]
fn ids_are_the_effective_ones() {
    let of_user = Task { uid: 1000, gid: 1000, euid: 0, egid: 5, ..sh() };
    let event = event(1, of_user, exec("/usr/bin/sudo"));
    for condition in ["user.uid = 0", "user.name = root", "group.gid = 5", "evt.arg.uid = 0", "evt.arg.gid = 5"] {
        assert!(holds(&event, condition), "{condition}");
    }
}

#[test]
fn only_calls_have_results() {
    let end = event(1, sh(), Body::Exit(Exit { status: 1 << 8, group_dead: true }));
    for condition in ["evt.res exists", "evt.rawres exists", "evt.failed exists"] {
        assert!(!holds(&end, condition), "{condition}");
        assert!(holds(&opened(|_| {}), condition), "{condition}");
    }
    assert!(holds(&end, "evt.arg.ret = 1"));
    let failed = opened(|open| open.result = -2);
    assert!(holds(&failed, "evt.res = ENOENT and evt.failed = true and evt.rawres = -2"));
}

#[test]
fn a_directory_has_no_mode_and_an_unnamed_file_is_made() {
    let directory = opened(|open| (open.flags, open.mode) = (libc::O_DIRECTORY as u32, 0o755));
    assert!(holds(&directory, "evt.arg.mode = 0 and evt.is_open_exec = false and fd.type = directory"));
    let unnamed = opened(|open| {
        (open.flags, open.mode) = ((libc::O_TMPFILE | libc::O_RDWR) as u32, 0o755);
        open.created = false;
    });
    assert!(holds(&unnamed, "evt.arg.mode = 755 and evt.is_open_exec = true and evt.is_open_write = true"));
    let refused = opened(|open| (open.flags, open.mode, open.result) = (libc::O_TMPFILE as u32, 0o755, -1));
    assert!(holds(&refused, "evt.is_open_exec = false"));
}

#[test]
fn devices_have_the_numbers_of_user_space() {
    let on = |major: u32, minor: u32| {
        let file = FileIdentity { dev: major << 20 | minor, ..FileIdentity::default() };
        opened(|open| open.file = Some(file))
    };
    assert!(holds(&on(8, 1), "fd.dev = 2049 and evt.arg.dev = 801 and fd.dev.major = 8 and fd.dev.minor = 1"));
    assert!(holds(&on(259, 0x1234), &format!("fd.dev = {}", 0x34 | 259 << 8 | 0x1200 << 12)));
}

#[test]
fn layers_are_the_overlays() {
    let upper = |upper| FileIdentity { overlay: Some(Overlay { upper, ..Overlay::default() }), ..Default::default() };
    assert!(holds(&opened(|open| open.file = Some(upper(true))), "fd.is_upper_layer = true"));
    assert!(holds(&opened(|open| open.file = Some(upper(false))), "fd.is_lower_layer = true"));
    let plain = opened(|open| open.file = Some(FileIdentity::default()));
    assert!(holds(&plain, "fd.is_upper_layer = false and fd.is_lower_layer = false"));
}

#[test]
fn a_process_is_as_old_as_its_clone() {
    let old = Task { start_boottime_ns: 1_000, ..sh() };
    let begins = event(9_000, old.clone(), exec("/bin/sh"));
    let later = event(9_500, old, open("/etc/passwd", "/etc/passwd", "", ""));
    assert!(holds(&begins, "proc.duration = 8000 and proc.pid.ts = 1000"));
    assert!(holds(&later, "proc.duration = 8500 and proc.pid.ts = 1000"));
}

fn executed(change: impl FnOnce(&mut Exec)) -> Event {
    let mut body = exec("/usr/bin/vi");
    if let Body::Exec(exec) = &mut body {
        change(exec);
    }
    event(5, sh(), body)
}

fn connected(local: &str, remote: &str) -> Event {
    let inet = |text: &str| text.parse().map_or(Address::None, Address::Inet);
    let body = Connect {
        result: 0,
        fd: 3,
        socket: Socket {
            family: 2,
            sock_type: 1,
            protocol: 6,
            remote: inet(remote),
            remote_from_user: false,
            local: inet(local),
        },
        io_uring: false,
    };
    event(5, sh(), Body::Connect(Box::new(body)))
}

#[test]
fn a_program_has_the_flags_of_its_file() {
    let upper = |upper| FileIdentity { overlay: Some(Overlay { upper, ..Overlay::default() }), ..Default::default() };
    let root = executed(|exec| exec.file = upper(false));
    assert!(holds(&root, "evt.arg.flags = EXE_WRITABLE|EXE_LOWER_LAYER and evt.rawarg.flags = 9"));
    let memory = executed(|exec| exec.file.memfd = true);
    assert!(holds(&memory, "evt.arg.flags = EXE_WRITABLE|EXE_FROM_MEMFD"));
    let user = Task { euid: 1000, egid: 1000, ..sh() };
    let dropped =
        Event { task: user.clone(), ..executed(|exec| exec.file = FileIdentity { mode: 0o755, ..upper(true) }) };
    assert!(holds(&dropped, "evt.arg.flags = EXE_UPPER_LAYER and proc.is_exe_writable = false"));
    let plain = Event { task: user, ..executed(|exec| exec.file.mode = 0o755) };
    assert!(holds(&plain, "evt.arg.flags = 0 and evt.args contains 'flags=0 '"));
    assert!(holds(&plain, "evt.arg.cap_effective = 0 and not evt.arg.fdlimit exists"));
}

#[test]
fn an_open_that_failed_has_no_descriptor() {
    let refused = opened(|open| (open.result, open.file) = (-13, None));
    assert!(holds(&refused, "fd.num = -1 and evt.res = EACCES and evt.rawres = -13 and fd.typechar = f"));
    assert!(holds(&opened(|_| {}), "fd.num = 3"));
}

#[test]
fn accounts_are_of_the_databases() {
    let user = |name: &'static str, home: &'static str, shell: &'static str| User {
        name: name.into(),
        home: home.into(),
        shell: shell.into(),
    };
    let users = [(5, user("five", "/home/5", "/bin/sh")), (6, user("six", "", ""))];
    let outside = Fake { users: users.into(), ..Fake::default() };
    let of = |euid, egid, loginuid| event(5, Task { loginuid, euid, egid, ..sh() }, exec("/bin/vi"));
    for (who, condition) in [
        (of(5, 6, 6), "user.name = five and user.homedir = /home/5 and user.shell = /bin/sh"),
        (of(5, 6, 6), "group.name = six and user.loginname = six and user.loginuid = 6"),
        (of(6, 7, 7), "user.name = six and user.homedir = <NA> and user.shell = <NA> and group.name = <NA>"),
        (of(6, 7, 7), "user.loginname = <NA>"),
        (of(0, 0, u32::MAX), "user.name = root and user.homedir = /root and group.name = root and user.shell = <NA>"),
        (of(0, 0, u32::MAX), "user.loginname = <NA> and user.loginuid = -1"),
    ] {
        assert!(holds_after(&[], &who, &outside, None, condition), "{condition}");
    }
}

#[test]
fn an_address_has_the_names_that_resolve_to_it() {
    let two = vec!["a.test".into(), "b.test".into()];
    let domains = [("192.0.2.1".parse().unwrap(), two), ("192.0.2.2".parse().unwrap(), vec!["c.test".into()])];
    let outside = Fake { domains: domains.into(), ..Fake::default() };
    let holds = |event: &Event, condition: &str| holds_after(&[], event, &outside, None, condition);
    let several = connected("192.0.2.2:1", "192.0.2.1:443");
    for condition in [
        "fd.sip.name = a.test and fd.sip.name = b.test and fd.rip.name in (b.test)",
        "fd.cip.name = c.test and fd.lip.name in (x.test, c.test) and fd.sip.name exists",
        "fd.sip.name != c.test",
    ] {
        assert!(holds(&several, condition), "{condition}");
    }
    for condition in
        ["fd.sip.name != a.test", "fd.sip.name = c.test", "fd.sip.name in (c.test)", "fd.cip.name != c.test"]
    {
        assert!(!holds(&several, condition), "{condition}");
    }
    let nameless = connected("192.0.2.8:1", "192.0.2.9:443");
    assert!(holds(&nameless, "fd.sip.name exists and fd.sip.name != a.test and not fd.sip.name = a.test"));
    assert!(!holds(&opened(|_| {}), "fd.sip.name exists or fd.sip.name != a.test"));
}

#[test]
fn ports_have_names_where_there_are_any() {
    let secure = connected("192.0.2.2:45678", "192.0.2.1:443");
    assert!(holds(&secure, "fd.sproto = https and fd.rproto = https and fd.cproto = 45678 and fd.lproto = 45678"));
    assert!(holds(&secure, "fd.proto = https and not fd.proto = http and fd.port = 443"));
}

#[test]
fn ancestors_have_environments() {
    let mut body = exec("/bin/sh");
    if let Body::Exec(exec) = &mut body {
        exec.envp = "HOME=/root\0LANG=C".into();
    }
    let before = [event(1, sh(), body), event(2, sh(), fork(11, 2))];
    let child = event(3, task(11, 2, (10, 1), "vi"), exec("/bin/vi"));
    for condition in [
        "proc.aenv[1] = 'HOME=/root LANG=C'",
        "proc.aenv contains 'LANG=C'",
        "proc.aenv[LANG] = C",
        "proc.aenv[0] = '' and proc.env[LANG] = ''",
    ] {
        assert!(holds_after(&before, &child, &Fake::default(), None, condition), "{condition}");
    }
}

#[test]
fn without_its_leader_a_session_has_its_eldest_member() {
    let member = |tgid, parent, comm| Task { sid: 7, pgid: 7, ..task(tgid, u64::from(tgid), parent, comm) };
    let before = [event(1, member(10, (1, 0), "eldest"), exec("/bin/a"))];
    let child = event(3, member(11, (10, 10), "vi"), exec("/bin/vi"));
    for condition in ["proc.sname = eldest", "proc.pgid.name = eldest", "proc.sid.exepath = /bin/a"] {
        assert!(holds_after(&before, &child, &Fake::default(), None, condition), "{condition}");
        let alone = condition.replace("eldest", "vi").replace("/bin/a", "/bin/vi");
        assert!(holds_after(&[], &child, &Fake::default(), None, &alone), "{alone}");
    }
}

#[test]
fn a_relative_open_tells_where_the_process_is_now() {
    let moved = opened(|open| (open.name, open.dir) = ("passwd".into(), "/etc".into()));
    let before = [event(1, sh(), exec("/bin/sh"))];
    assert!(holds_after(&before, &moved, &Fake::default(), None, "proc.cwd = /etc/"));
    let elsewhere = opened(|open| (open.name, open.dir, open.dirfd) = ("passwd".into(), "/etc".into(), 4));
    assert!(holds_after(&before, &elsewhere, &Fake::default(), None, "proc.cwd = / and evt.arg.dirfd = <d>/etc"));
}

#[test]
fn terminals_have_the_numbers_of_user_space() {
    let terminal = event(1, Task { tty: 136 << 20 | 1, ..sh() }, exec("/bin/sh"));
    assert!(holds(&terminal, "proc.tty = 34817 and evt.arg.tty = 34817"));
}

#[test]
fn pods_are_the_bundles_or_the_labels() {
    let pod = Pod {
        name: "web-0".to_owned(),
        namespace: "shop".to_owned(),
        uid: "abc".to_owned(),
        sandbox_id: "0123456789abcdef".to_owned(),
        labels: Vec::new(),
    };
    let inner = Container { pod: Some(pod), ..container(false) };
    let labelled = Container {
        labels: vec![("io.kubernetes.pod.namespace".to_owned(), "shop".to_owned())],
        shares: Some(Shares { pid: false, network: Some(true), ipc: false }),
        ..container(false)
    };
    for (container, condition) in [
        (&inner, "k8s.pod.name = web-0 and k8s.ns.name = shop and k8s.pod.uid = abc"),
        (&inner, "k8s.pod.sandbox_id = 0123456789ab and k8s.pod.full_sandbox_id = 0123456789abcdef"),
        (&inner, "not container.host_pid exists"),
        (&labelled, "k8s.ns.name = shop and not k8s.pod.name exists and not k8s.pod.sandbox_id exists"),
        (&labelled, "container.host_network = true and container.host_pid = false and container.host_ipc = false"),
    ] {
        let event = opened(|_| {});
        assert!(holds_after(&[], &event, &Fake::default(), Some(container), condition), "{condition}");
    }
}
