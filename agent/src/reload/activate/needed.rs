//! Whatever a rule matches the kernel lets through: conditions made up, on events of every kind.

use proptest::prelude::*;
use purser_rules::{LoadOptions, RuleSet, Source};

use super::*;
use crate::container::Container;
use crate::event::{Address, Body, Call, Connect, Event, Socket};
use crate::facts::{Lineage, Names, Sight};
use crate::process::ProcessTable;
use crate::sample::{Fake, container, event, open, task};

/// Events in every combination of what the policy looks at, each with its facts, and whether the kernel lets it through.
fn all_events() -> Vec<(Event, Option<Container>)> {
    let address = |text: &str| Address::Inet(text.parse().expect("an address"));
    let mut all = Vec::new();
    for kind in [
        EventType::Openat,
        EventType::Connect,
        EventType::Sendto,
        EventType::Accept,
        EventType::Listen,
        EventType::Chmod,
        EventType::Truncate,
        EventType::Setxattr,
        EventType::FailedExecve,
    ] {
        // One that succeeds is another event.
        let results: &[i64] = if kind.is_failed_exec() { &[-11] } else { &[-11, 0, 3] };
        for result in results.iter().copied() {
            for (named, hosts, write) in
                [0, 1, 2, 3, 4, 5, 6, 7].map(|bits| (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0))
            {
                let remote = if named { address("10.0.0.2:53") } else { Address::None };
                let socket = Socket {
                    family: 2,
                    sock_type: 2,
                    protocol: 17,
                    remote,
                    remote_from_user: named,
                    local: address("10.0.0.1:1"),
                };
                let body = match kind {
                    EventType::Openat => match open("/a", "/a", "", "") {
                        Body::Open(mut open) => {
                            open.result = result;
                            open.flags = if write { libc::O_WRONLY as u32 } else { 0 };
                            if result < 0 {
                                (open.file, open.path) = (None, "".into());
                            }
                            Body::Open(open)
                        }
                        other => other,
                    },
                    EventType::Connect => Body::Connect(Box::new(Connect { result, fd: 4, socket, io_uring: false })),
                    _ => Body::Call(Box::new(Call {
                        io_uring: false,
                        data_truncated: false,
                        result,
                        arguments: [4, 0, 0, 0, 0, 0],
                        texts: ["/x".into(), "".into(), "".into()],
                        directories: Default::default(),
                        file: None,
                        path: "".into(),
                        fs_path: "".into(),
                        socket: matches!(kind, EventType::Sendto | EventType::Accept | EventType::Listen)
                            .then_some(socket),
                        data: "".into(),
                    })),
                };
                let mut event = event(1, task(10, 1, (1, 0), "sh"), body);
                event.header.event = kind;
                all.push((event, (!hosts).then(|| container(false))));
            }
        }
    }
    all
}

/// Whether a rule of the set matches under any of the event's names.
fn matched(set: &RuleSet, event: &Event, container: Option<&Container>) -> bool {
    let (mut table, arena, outside) = (ProcessTable::default(), bumpalo::Bump::new(), Fake::default());
    let process = table.apply(event, &outside);
    Names::of(event).iter().any(|name| {
        let sight = Sight {
            number: 1,
            event,
            process: &process,
            lineage: Lineage::Table(&table),
            container,
            name,
            epoch_offset_ns: 0,
            started_boot_ns: 0,
            previous_boot_ns: 0,
            outside: &outside,
            arena: &arena,
            user: std::cell::OnceCell::new(),
            clock: purser_rules::format::Clock::default(),
        };
        let mut matches = purser_rules::Matches::new();
        set.evaluate(&sight, &mut matches);
        !matches.is_empty()
    })
}

/// What the programs decide (`agent-ebpf/src/{open,connect,call}.rs`).
fn lets_through(policy: &Policy, event: &Event, hosts: bool) -> bool {
    let kind = event.header.event;
    let (result, detail) = match &event.body {
        Body::Open(open) => {
            let write = open.flags & 3 == libc::O_WRONLY as u32;
            (open.result, open.result < 0 || if write { policy.open_write } else { policy.open_read })
        }
        Body::Connect(connect) => (connect.result, true),
        Body::Call(call) => {
            let named = call.socket.as_ref().is_some_and(|socket| socket.remote_from_user);
            (call.result, kind != EventType::Sendto || named || policy.plain_messages)
        }
        _ => panic!("no call"),
    };
    policy.events.contains(kind)
        && (result >= 0 || policy.failed.contains(kind))
        && !(hosts && policy.not_host.contains(kind))
        && detail
}

fn condition() -> impl Strategy<Value = String> {
    let event = |name: &str| {
        prop::sample::select(vec![
            "openat", "connect", "sendto", "accept", "listen", "chmod", "execve", "truncate", "setxattr",
        ])
        .prop_map({
            let name = name.to_owned();
            move |event| format!("{name} {event}")
        })
    };
    let leaf = prop_oneof![
        event("evt.type ="),
        event("evt.type !="),
        event("syscall.type ="),
        Just("evt.type in (openat, sendto, truncate)".to_owned()),
        Just("not evt.type in (sendto, listen)".to_owned()),
        prop::sample::select(vec![
            "container.id = host",
            "container.id != host",
            "container.id in (host)",
            "container",
            "evt.is_open_read = true",
            "evt.is_open_read = false",
            "evt.is_open_write = true",
            "evt.is_open_write != true",
            "evt.failed = true",
            "evt.failed = false",
            "evt.failed != true",
            "evt.res = SUCCESS",
            "evt.res != SUCCESS",
            "evt.res in (SUCCESS, EAGAIN)",
            "evt.rawres >= 0",
            "evt.rawres > -1",
            "evt.rawres < 0",
            "evt.rawres = -11",
            "fd.num >= 0",
            "fd.num > 0",
            "fd.num = 4",
            "fd.num < 0",
            "fd.name_changed = true",
            "fd.name_changed = false",
            "fd.name_changed != false",
            "fd.sport = 53",
        ])
        .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(|all| format!("({})", all.join(" and "))),
            prop::collection::vec(inner.clone(), 2..4).prop_map(|all| format!("({})", all.join(" or "))),
            inner.prop_map(|one| format!("not ({one})")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn what_a_rule_matches_leaves_the_kernel(condition in condition()) {
        let text = format!(
            "- macro: container\n  condition: container.id != host\n\
             - rule: R\n  desc: x\n  condition: {condition}\n  output: x\n  priority: NOTICE\n"
        );
        let sources = [Source { name: "test", text: text.as_bytes() }];
        // What the rule language refuses is no condition.
        let Ok((set, _)) = RuleSet::load(&sources, &LoadOptions::default()) else { return Ok(()) };
        let policy = policy(&set, Scope::All, Pushdown::Off);
        for (event, container) in all_events() {
            if !lets_through(&policy, &event, container.is_none()) {
                prop_assert!(!matched(&set, &event, container.as_ref()), "{condition}: {event:?}");
            }
        }
    }
}

#[test]
fn of_generic_calls_only_those_named_leave_the_kernel() {
    let generic = |condition: &str| {
        let text = format!("- rule: R\n  desc: x\n  condition: {condition}\n  output: x\n  priority: NOTICE\n");
        let sources = [Source { name: "test", text: text.as_bytes() }];
        let (set, _) = RuleSet::load(&sources, &LoadOptions::default()).expect("the rule loads");
        let policy = policy(&set, Scope::All, Pushdown::Off);
        [EventType::Truncate, EventType::Setxattr, EventType::Chmod].map(|event| policy.events.contains(event))
    };
    assert_eq!(generic("evt.type = truncate"), [true, false, false]);
    assert_eq!(generic("evt.type in (setxattr, chmod)"), [false, true, true]);
    assert_eq!(generic("evt.type != chmod"), [true, true, false]);
}
