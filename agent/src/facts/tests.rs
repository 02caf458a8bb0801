//! Facts against what upstream's fields say, as conditions over events made up.

use purser_rules::{Catalogue, Filter, Outcome, parse};

use super::*;
use crate::event::{Body, Exit, FileIdentity, Open, Overlay, Task};
use crate::sample::{Fake, event, exec, open, task};

fn holds(event: &Event, condition: &str) -> bool {
    let (mut table, outside, arena) = (ProcessTable::default(), Fake::default(), Bump::new());
    let process = table.apply(event, &outside);
    let names = Names::of(event);
    let sight = Sight {
        number: 1,
        event,
        process: &process,
        lineage: Lineage::Table(&table),
        container: None,
        name: names.get(0),
        epoch_offset_ns: 0,
        started_boot_ns: 0,
        previous_boot_ns: 0,
        outside: &outside,
        arena: &arena,
        user_name: OnceCell::new(),
    };
    let expr = parse::parse(condition.as_bytes(), 100).expect(condition);
    let (filter, _hints) = Filter::new(&expr, Catalogue::builtin()).expect(condition);
    filter.evaluate(&sight) == Outcome::True
}

fn sh() -> Task {
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
