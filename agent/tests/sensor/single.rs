//! Hooks at single calls in place of `sys_exit`: `sensor.compat32: off`.

use std::sync::{Mutex, MutexGuard, PoisonError};

use purser::{
    event::{Body, EventType},
    sensor::{EventSet, HookState, Policy, Sensor, SensorConfig, Tier},
};

use crate::{
    only, state,
    watch::{config, privileged, skip, watch_with},
};

const HOOK: &str = "tp/syscalls/sys_exit_*";

/// The settings, if this kernel has such hooks and this tier uses them; tests of them run one by one, as they count them.
fn single(name: &str) -> Option<(SensorConfig, MutexGuard<'static, ()>)> {
    static ONE_BY_ONE: Mutex<()> = Mutex::new(());
    let alone = ONE_BY_ONE.lock().unwrap_or_else(PoisonError::into_inner);
    if !privileged() {
        return None;
    }
    let config = SensorConfig { compat_calls: false, ..config() };
    let sensor = Sensor::start(&config, &Policy::default()).unwrap();
    if sensor.tier().in_use == Tier::C && sensor.hooks().iter().any(|hook| hook.name == HOOK) {
        return Some((config, alone));
    }
    skip(name, "tracepoints at single calls in use (tier C, CONFIG_FTRACE_SYSCALLS)");
    None
}

#[test]
fn single_calls_are_seen_as_they_are_by_sys_exit() {
    let Some((config, _alone)) = single("single_calls_are_seen_as_they_are_by_sys_exit") else { return };
    let seen = watch_with(&config, || {
        // SAFETY: opens, and calls that fail.
        unsafe {
            libc::open(c"/etc/passwd".as_ptr(), libc::O_RDONLY);
            libc::open(c"/none".as_ptr(), libc::O_WRONLY);
            libc::rename(c"/none".as_ptr(), c"/nowhere".as_ptr());
            libc::umount2(c"/none".as_ptr(), 0);
        }
        0
    });
    let opens = seen.opens();
    assert_eq!(opens.len(), 2, "{:?}", seen.events);
    assert_eq!((&opens[0].1.path[..], opens[0].1.name.as_ref()), (&b"/etc/passwd"[..], &b"/etc/passwd"[..]));
    assert_eq!((opens[1].1.result, opens[1].1.name.as_ref()), (-i64::from(libc::ENOENT), &b"/none"[..]));
    let calls: Vec<_> = seen
        .events
        .iter()
        .filter_map(|event| if let Body::Call(call) = &event.body { Some((event.header.event, call)) } else { None })
        .collect();
    let names: Vec<_> = calls.iter().map(|(event, _)| *event).collect();
    assert_eq!(names, [EventType::Rename, EventType::Umount2]);
    assert_eq!((calls[0].1.result, &calls[0].1.texts[1][..]), (-i64::from(libc::ENOENT), &b"/nowhere"[..]));
}

/// What `docs/config.md` says of it.
#[test]
#[cfg(target_arch = "x86_64")]
fn calls_by_int_80_are_not_seen_by_hooks_at_single_calls() {
    let Some((config, _alone)) = single("calls_by_int_80_are_not_seen_by_hooks_at_single_calls") else { return };
    let seen = watch_with(&config, || {
        // SAFETY: makes directories that cannot be.
        unsafe {
            crate::compat::call_32(39, [0, 0o755, 0, 0, 0]);
            libc::mkdir(c"/proc/none".as_ptr(), 0o755);
        }
        0
    });
    let made = seen.events.iter().filter(|event| event.header.event == EventType::Mkdir).count();
    assert_eq!(made, 1, "{:?}", seen.events);
}

#[test]
fn only_calls_that_a_policy_needs_have_a_hook() {
    let Some((config, _alone)) = single("only_calls_that_a_policy_needs_have_a_hook") else { return };
    let mut sensor = Sensor::start(&config, &only(&[EventType::Execve])).unwrap();
    assert_eq!(*state(&sensor, HOOK), HookState::NotNeeded);
    sensor.set_policy(&only(&[EventType::Openat, EventType::Connect])).unwrap();
    assert_eq!(*state(&sensor, HOOK), HookState::Attached);
    assert_eq!(hooks_in_place(), 2);
    sensor.set_policy(&only(&[EventType::Connect, EventType::Rename, EventType::Setuid])).unwrap();
    assert_eq!(hooks_in_place(), 3);
    sensor.set_policy(&Policy { events: EventSet::default(), ..Policy::default() }).unwrap();
    assert_eq!(*state(&sensor, HOOK), HookState::NotNeeded);
    assert_eq!(hooks_in_place(), 0);
}

/// Descriptors of such hooks that this process holds.
fn hooks_in_place() -> usize {
    let own = std::fs::read_dir("/proc/self/fd").unwrap();
    let links = own.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    links.filter(|link| link.as_os_str() == "anon_inode:[perf_event]").count()
}
