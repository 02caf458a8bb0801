//! Every kind of event with everything in it that the sensor and the runtimes can fill in.

use std::net::SocketAddr;
use std::sync::Arc;

use agent_common::EventGroup;
use purser_rules::{Arg, Catalogue, Fact, Facts as _, FieldRef, catalogue::FieldFlags};

use super::super::*;
use super::{absent, absent_parameter, waits};
use crate::container::{Image, Mount, Pod, Shares};
use crate::event::{Address, Body, Call, Cgroup, Connect, EventType, Exit, FileIdentity, Overlay, Socket};
use crate::manifest::model::{Coverage, File, Header, Kind, LayerDigests, Source, Status};
use crate::manifest::{Digest, Judgement, Manifest, Verdict};
use crate::sample::{Fake, container, event, exec, fork, open, task};

fn file() -> FileIdentity {
    let overlay = Overlay { upper: true, has_lower: true, ..Overlay::default() };
    FileIdentity { dev: 8 << 20 | 1, ino: 7, ctime_ns: 1, mtime_ns: 1, overlay: Some(overlay), ..Default::default() }
}

fn connect(local: Address, remote: Address, family: i32) -> Body {
    Body::Connect(Box::new(Connect { result: 0, fd: 3, socket: socket(local, remote, family), io_uring: false }))
}

fn socket(local: Address, remote: Address, family: i32) -> Socket {
    Socket {
        family: family as u16,
        sock_type: libc::SOCK_STREAM as u16,
        protocol: if family == libc::AF_UNIX { 0 } else { 6 },
        remote,
        remote_from_user: false,
        local,
    }
}

/// A call on a file, or on a socket.
fn call(socket: Option<Socket>) -> Body {
    Body::Call(Box::new(Call {
        io_uring: false,
        data_truncated: false,
        result: 0,
        arguments: [3; 6],
        texts: ["a".into(), "b".into(), "c".into()],
        directories: ["/x".into(), "/y".into()],
        file: Some(file()),
        path: if socket.is_some() { "" } else { "/etc/passwd" }.into(),
        fs_path: "".into(),
        socket,
        data: "data".into(),
    }))
}

fn bodies() -> Vec<Body> {
    let inet = |text: &str| Address::Inet(text.parse::<SocketAddr>().expect(text));
    let mut program = exec("/bin/app");
    if let Body::Exec(exec) = &mut program {
        (exec.file, exec.argv, exec.envp) = (file(), "app\0one\0two".into(), "A=b\0C=d".into());
    }
    let mut opened = open("/etc/passwd", "passwd", "/etc", "/real/passwd");
    if let Body::Open(open) = &mut opened {
        open.file = Some(file());
    }
    vec![
        program,
        fork(20, 5),
        opened,
        connect(inet("10.0.0.1:40000"), inet("10.0.0.2:80"), libc::AF_INET),
        connect(inet("[::1]:40000"), inet("[::2]:80"), libc::AF_INET6),
        connect(Address::None, Address::Unix("/run/x.sock".into()), libc::AF_UNIX),
        Body::Exit(Exit { status: 1 << 8, group_dead: true }),
        Body::Cgroup(Cgroup { id: 6, path: "/x".into(), made: true }),
        Body::Rename,
        call(None),
        call(Some(socket(inet("10.0.0.1:40000"), inet("10.0.0.2:80"), libc::AF_INET))),
    ]
}

/// Each body under every type of event that can have it.
fn events() -> Vec<(EventType, Body)> {
    let of = |body: Body| {
        // A new kind of body has to come into `bodies`, or its fields are not seen here.
        let groups: &[EventGroup] = match body {
            Body::Exec(_) => &[EventGroup::Exec],
            Body::Fork(_) => &[EventGroup::Fork],
            Body::Exit(_) => &[EventGroup::Exit],
            Body::Open(_) => &[EventGroup::Open, EventGroup::IoUring],
            Body::Connect(_) => &[EventGroup::Connect, EventGroup::IoUring],
            Body::Cgroup(_) => &[EventGroup::Cgroup],
            Body::Rename => &[EventGroup::Rename],
            Body::Call(_) => &[EventGroup::Call],
        };
        let is_open = matches!(body, Body::Open(_));
        let fits = move |event: &&EventType| {
            groups.contains(&event.group())
                && (event.group() != EventGroup::IoUring || is_open == event.name().starts_with("open"))
        };
        EventType::ALL.iter().filter(fits).map(move |event| (*event, body.clone())).collect::<Vec<_>>()
    };
    bodies().into_iter().flat_map(of).collect()
}

fn known_container() -> Container {
    let label = || vec![("l".to_owned(), "v".to_owned())];
    let digest = || Some("sha256:00".to_owned());
    let mount = Mount {
        source: "/s".to_owned(),
        destination: "/d".to_owned(),
        options: vec!["rw".to_owned(), "rprivate".to_owned()],
        kind: "bind".to_owned(),
    };
    Container {
        created_ns: 1,
        privileged: true,
        args: vec!["app".to_owned()],
        mounts: vec![mount],
        pod: Some(Pod {
            name: "p".to_owned(),
            namespace: "n".to_owned(),
            uid: "u".to_owned(),
            sandbox_id: "s".to_owned(),
            labels: label(),
        }),
        shares: Some(Shares { pid: false, network: Some(false), ipc: false }),
        image: Some(Image {
            reference: "registry.test/app:1".to_owned(),
            index_digest: digest(),
            manifest_digest: digest(),
            config_digest: digest(),
            chain_id: digest(),
            ..Image::default()
        }),
        labels: label(),
        ..container(false)
    }
}

fn judgement() -> Judgement {
    let digest = Digest::of(b"app");
    let listed = File { digest, size: 1, mode: 0o755, uid: 0, gid: 0, capabilities: None, kind: Kind::Elf, layer: 0 };
    let header = Header {
        reference: "registry.test/app:1".to_owned(),
        chain_id: digest,
        manifest_digest: Some(digest),
        config_digest: Some(digest),
        layers: vec![LayerDigests { digest: Some(digest), diff_id: digest }],
        entrypoint: Vec::new(),
        cmd: Vec::new(),
        search_path: None,
        coverage: Coverage::All,
        source: Source::Layers,
        ambiguities: Vec::new(),
    };
    Judgement {
        verdict: Verdict::Expected,
        reason: crate::manifest::Reason::Listed,
        status: Status::Ok,
        manifest: Some(Arc::new(Manifest::new(header, [(b"/bin/app".to_vec(), listed)], []).expect("small"))),
        sha256: Some(digest),
        size: 1,
        upper: false,
        copied_up: false,
        listed: Some(listed),
        listed_path: Some(b"/bin/app".to_vec()),
        foreign_image: None,
    }
}

/// Whether a field has a value under any argument that fits it.
fn answers(sight: &Sight<'_>, id: FieldId) -> bool {
    let params = sight.event().event().params.iter().map(|param| param.name.as_bytes());
    let keys = [&b"A"[..], b"l", b".", b"src", b"cpu", b"openat"].into_iter().chain(params).map(Arg::Key);
    let indices = (0..3).map(Arg::Index);
    let mut args = std::iter::once(Arg::None).chain(indices).chain(keys);
    args.any(|arg| match sight.fact(FieldRef { id, arg }) {
        Fact::One(_) => true,
        Fact::Many(count) => (0..count).any(|at| matches!(sight.element(FieldRef { id, arg }, at), Fact::One(_))),
        Fact::Missing(_) | Fact::Pending => false,
    })
}

/// Looks at every event, on the host and in a container.
fn look(judged: bool, mut at: impl FnMut(&Sight<'_>)) {
    let names = ["10.0.0.1", "10.0.0.2"].map(|address| (address.parse().expect(address), vec!["a.test".into()]));
    let outside = Fake { domains: names.into(), ..Fake::default() };
    let container = known_container();
    for (event_type, body) in events() {
        let (mut table, arena) = (ProcessTable::default(), Bump::new());
        let parent = task(9, 1, (1, 0), "bash");
        table.apply(&event(1, parent, exec("/bin/bash")), &outside);
        let child = crate::event::Task { loginuid: 1000, sid: 9, pgid: 9, ..task(10, 2, (9, 1), "app") };
        let program = bodies().swap_remove(0);
        table.apply(&event(2, child.clone(), program), &outside);
        let mut event = event(3, child, body);
        event.header.event = event_type;
        let process = table.apply(&event, &outside);
        if judged {
            process.program.judgement.get_or_init(judgement);
        }
        let names = Names::of(&event);
        let sight = |container| Sight {
            number: 1,
            event: &event,
            process: &process,
            lineage: Lineage::Table(&table),
            container,
            name: names.get(0),
            epoch_offset_ns: 0,
            started_boot_ns: 0,
            previous_boot_ns: 1,
            clock: Clock::default(),
            outside: &outside,
            arena: &arena,
            user: OnceCell::new(),
        };
        at(&sight(None));
        at(&sight(Some(&container)));
    }
}

#[test]
fn fields_without_value_are_listed_with_the_reason() {
    let mut answered = Vec::new();
    look(true, |sight| {
        let fields = Catalogue::builtin().fields();
        answered.extend(fields.iter().filter(|field| answers(sight, field.id)).map(|field| field.id));
    });
    let mut wrong = Vec::new();
    for field in Catalogue::builtin().fields() {
        // Clock times are printed from `evt.rawtime`.
        let has_value = field.flags.has(FieldFlags::TIME) || answered.contains(&field.id);
        match (has_value, absent(field.id)) {
            (true, Some(_)) => wrong.push(format!("{} has a value: remove it from the table", field.name)),
            (false, None) => wrong.push(format!("{} has no value: the table has to say why", field.name)),
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn parameters_without_value_are_listed() {
    let mut found: std::collections::BTreeMap<(&str, &str), bool> = std::collections::BTreeMap::new();
    look(true, |sight| {
        for param in sight.event().event().params.iter().filter(|_| sight.event() != EventCode::GENERIC) {
            let arg = Arg::Key(param.name.as_bytes());
            let has_value = matches!(sight.fact(FieldRef { id: FieldId::EVT_ARG, arg }), Fact::One(_));
            *found.entry((sight.event().name(), param.name)).or_default() |= has_value;
        }
    });
    assert!(found.len() > 100, "{}", found.len());
    let wrong: Vec<_> = found
        .into_iter()
        .filter(|((event, param), has_value)| absent_parameter(event, param) == *has_value)
        .map(|((event, param), has_value)| {
            format!("{event}: {param} {}", if has_value { "has a value" } else { "has none" })
        })
        .collect();
    assert!(wrong.is_empty(), "the table is wrong about these parameters:\n{}", wrong.join("\n"));
}

#[test]
fn fields_that_wait_for_a_verdict_are_listed() {
    let mut waiting = std::collections::BTreeSet::new();
    look(false, |sight| {
        let fields = Catalogue::builtin().fields().iter().map(|field| field.id);
        waiting.extend(fields.filter(|id| sight.fact(id.plain()) == Fact::Pending));
    });
    assert!(!waiting.is_empty());
    for field in Catalogue::builtin().fields() {
        assert_eq!(waits(field.id), waiting.contains(&field.id), "{}", field.name);
    }
}
