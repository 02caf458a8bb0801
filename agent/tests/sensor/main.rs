//! Root tests of the sensor: the real programs, on this kernel, against small triggers; every field of
//! every event against what the trigger or `stat` knows.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "helpers of tests fail by panic and skip loudly"
)]
#![allow(clippy::multiple_unsafe_ops_per_block, reason = "a trigger is a run of system calls")]

mod attack;
mod calls;
#[cfg(target_arch = "x86_64")]
mod compat;
#[cfg(target_arch = "x86_64")]
mod icount;
mod losses;
mod opens;
mod processes;
mod ring_calls;
mod single;
mod sockets;
mod uring;
mod watch;

use std::time::Duration;

use purser::{
    decode::decode,
    event::{Body, EventType},
    sensor::{EventSet, HookState, Policy, SensorConfig, Tier},
};
use watch::{config, privileged, sensor, skip, watch_policy};

fn only(events: &[EventType]) -> Policy {
    Policy { events: events.iter().copied().collect(), open_read: true, open_write: true, ..Policy::default() }
}

fn state<'a>(sensor: &'a purser::sensor::Sensor, name: &str) -> &'a HookState {
    &sensor.hooks().iter().find(|hook| hook.name == name).unwrap().state
}

#[test]
fn what_no_rule_needs_is_not_attached() {
    if !privileged() {
        return;
    }
    let mut sensor = sensor(&Policy::default());
    let first = sensor.set_policy(&only(&[EventType::Execve])).unwrap();
    assert_eq!(*state(&sensor, "tp_btf/sched_process_exec"), HookState::Attached);
    let calls = if sensor.tier().in_use == Tier::C { "tp_btf/sys_exit" } else { "fexit/sys_*" };
    assert_eq!(*state(&sensor, calls), HookState::NotNeeded);
    assert_eq!(sensor.set_policy(&only(&[EventType::Connect])).unwrap(), first + 1);
    assert_eq!(*state(&sensor, "tp_btf/sched_process_exec"), HookState::NotNeeded);
    assert_eq!(*state(&sensor, calls), HookState::Attached);
    assert_eq!(sensor.set_policy(&Policy { events: EventSet::default(), ..Policy::default() }).unwrap(), first + 2);
    assert!(sensor.hooks().iter().all(|hook| hook.state != HookState::Attached));
}

#[test]
fn the_tier_in_use_is_said_with_its_reason() {
    if !privileged() {
        return;
    }
    let sensor = sensor(&Policy::default());
    let report = sensor.tier();
    assert_eq!(
        report.in_use,
        config().tier.unwrap_or(report.available.max(Tier::B)),
        "the best, or the one that was asked for"
    );
    assert!(!report.reason.is_empty());
}

#[test]
fn a_policy_changes_what_is_reported_and_its_generation() {
    if !privileged() {
        return;
    }
    let mut sensor = sensor(&only(&[EventType::Openat]));
    let generation = sensor.set_policy(&Policy { open_read: false, ..only(&[EventType::Openat]) }).unwrap();
    let child = watch::spawn(|| {
        // SAFETY: opens and closes.
        unsafe {
            libc::openat(libc::AT_FDCWD, c"/etc/passwd".as_ptr(), libc::O_RDONLY);
            libc::openat(libc::AT_FDCWD, c"/dev/null".as_ptr(), libc::O_WRONLY);
            libc::openat(libc::AT_FDCWD, c"/nowhere".as_ptr(), libc::O_WRONLY);
        }
        0
    });
    watch::wait(child);
    let mut seen = Vec::new();
    while sensor
        .poll(Duration::from_millis(50), &mut |record| {
            let event = decode(record).unwrap();
            if event.task.tgid == child {
                seen.push(event);
            }
        })
        .unwrap()
        > 0
    {}
    assert_eq!(seen.len(), 1, "the read and the failure are not wanted: {seen:?}");
    assert_eq!(seen[0].header.generation, generation);
    assert!(matches!(&seen[0].body, Body::Open(open) if open.path == b"/dev/null"[..]));
}

#[test]
fn the_agent_itself_is_left_out() {
    if !privileged() {
        return;
    }
    let mut sensor = sensor(&only(&[EventType::Openat, EventType::Open]));
    let own = std::process::id();
    for _ in 0..100 {
        std::fs::read("/etc/hostname").unwrap();
    }
    let mut own_events = 0;
    while sensor
        .poll(Duration::from_millis(20), &mut |record| {
            own_events += u32::from(decode(record).unwrap().task.tgid == own);
        })
        .unwrap()
        > 0
    {}
    assert_eq!(own_events, 0);
}

#[test]
fn a_full_ring_is_counted_and_leaves_gaps_in_the_sequence() {
    if !privileged() {
        return;
    }
    let config = SensorConfig { ring_bytes: 4096, ..config() };
    let mut sensor = purser::sensor::Sensor::start(&config, &only(&[EventType::Openat])).unwrap();
    let child = watch::spawn(|| {
        for _ in 0..100 {
            // SAFETY: opens and closes.
            unsafe { libc::close(libc::openat(libc::AT_FDCWD, c"/etc/passwd".as_ptr(), libc::O_RDONLY)) };
        }
        0
    });
    watch::wait(child);
    // Each processor counts from 1, so a first record with a higher number is a gap as well.
    let mut last = std::collections::HashMap::new();
    let mut gap = false;
    let mut look = |sensor: &mut purser::sensor::Sensor| {
        let count = sensor.poll(Duration::from_millis(50), &mut |record| {
            let header = decode(record).unwrap().header;
            let last = last.entry(header.cpu).or_insert(0);
            gap |= header.sequence > *last + 1;
            *last = header.sequence;
        });
        count.unwrap()
    };
    look(&mut sensor);
    let losses = sensor.losses();
    let lost = |reason: &str| losses.iter().find(|loss| loss.1 == reason).unwrap();
    let (full, refused) = (lost("ring_full"), lost("back_pressure"));
    assert_eq!((full.0, refused.0), ("kernel", "kernel"));
    assert!(full.2 + refused.2 >= 80, "{losses:?}");
    // What comes after the loss shows the gap, on whichever processor it was.
    for _ in 0..50 {
        watch::wait(watch::spawn(|| {
            // SAFETY: opens.
            unsafe { libc::openat(libc::AT_FDCWD, c"/etc/passwd".as_ptr(), libc::O_RDONLY) };
            0
        }));
        look(&mut sensor);
    }
    assert!(gap, "no gap in the sequence after {losses:?}");
    for _ in 0..2 {
        let unexplained = sensor.losses().into_iter().find(|loss| loss.1 == "unexplained_gap");
        assert_eq!(unexplained, Some(("ring", "unexplained_gap", 0)), "the kernel counted each");
    }
}

#[test]
fn cgroup_directories_come_and_go() {
    if !privileged() {
        return;
    }
    let Some(root) = processes::cgroup2_root() else {
        skip("cgroup_directories_come_and_go", "cgroup v2 mount");
        return;
    };
    let name = format!("purser-sensor-test-{}", std::process::id());
    let folder = root.join(&name);
    let path = std::ffi::CString::new(folder.to_str().unwrap()).unwrap();
    let (read, write) = watch::pipe();
    let seen = watch_policy(&only(&[EventType::CgroupMkdir, EventType::CgroupRmdir]), move || {
        use std::os::fd::AsRawFd;
        // SAFETY: makes, stats and removes a directory.
        unsafe {
            let mut stat: libc::stat = std::mem::zeroed();
            let made = libc::mkdir(path.as_ptr(), 0o755) == 0 && libc::stat(path.as_ptr(), &raw mut stat) == 0;
            let removed = libc::rmdir(path.as_ptr()) == 0;
            libc::write(write.as_raw_fd(), (&raw const stat.st_ino).cast(), 8);
            i32::from(!(made && removed))
        }
    });
    let mut id = [0; 8];
    rustix::io::read(&read, &mut id).unwrap();
    let id = u64::from_ne_bytes(id);
    let found: Vec<_> = seen
        .events
        .iter()
        .filter_map(|event| match &event.body {
            Body::Cgroup(cgroup) if cgroup.path.ends_with(name.as_bytes()) => Some((event, cgroup)),
            _ => None,
        })
        .collect();
    assert_eq!(found.len(), 2, "{:?}", seen.events);
    for ((event, cgroup), made) in found.iter().zip([true, false]) {
        assert_eq!(cgroup.made, made);
        assert_eq!(cgroup.id, id);
        assert_eq!(cgroup.path, format!("/{name}").into_bytes());
        assert_eq!(event.task.tgid, seen.child);
    }
}

#[test]
fn a_process_that_renames_itself_is_told_once_by_each_name() {
    if !privileged() {
        return;
    }
    let seen = watch_policy(&only(&[EventType::TaskRename]), || {
        // SAFETY: names of this process and of a thread that ends; `exec` gives this process one more.
        unsafe {
            libc::prctl(libc::PR_SET_NAME, c"by prctl, and longer than that".as_ptr());
            libc::prctl(libc::PR_SET_NAME, c"by prctl, and l".as_ptr());
            let thread = std::thread::spawn(|| libc::prctl(libc::PR_SET_NAME, c"a thread".as_ptr()));
            let _ = thread.join();
            let renamed = std::fs::write("/proc/self/comm", "by procfs");
            let program = c"/bin/true".as_ptr();
            libc::execv(program, [program, std::ptr::null()].as_ptr());
            i32::from(renamed.is_err()) + 2
        }
    });
    let comm =
        |event: &purser::event::Event| String::from_utf8_lossy(&event.task.comm).trim_end_matches('\0').to_owned();
    let own = |event: &&purser::event::Event| event.task.tgid == seen.child && matches!(event.body, Body::Rename);
    let names: Vec<_> = seen.events.iter().filter(own).map(comm).collect();
    assert_eq!(names, ["by prctl, and l", "by procfs"], "neither a thread nor an exec renames it");
}

#[test]
fn another_thread_wakes_the_consumer_while_records_gather() {
    if !privileged() {
        return;
    }
    let config = SensorConfig { gather: Duration::from_millis(200), ..config() };
    let mut sensor = purser::sensor::Sensor::start(&config, &only(&[EventType::Openat])).unwrap();
    let waker = std::sync::Arc::new(rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK).unwrap());
    sensor.watch(std::os::fd::AsFd::as_fd(&*waker)).unwrap();
    let child = std::process::Command::new("/bin/cat").arg("/etc/hostname").output().unwrap();
    assert!(child.status.success());
    let limit = Duration::from_mins(1);
    assert!(sensor.poll(limit, &mut |_| {}).unwrap() > 0, "records flow");
    // The call comes while the sensor waits for more records, before it goes to sleep.
    let other = std::sync::Arc::clone(&waker);
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        rustix::io::write(&*other, &1_u64.to_ne_bytes()).unwrap();
    });
    let before = std::time::Instant::now();
    while rustix::io::read(&*waker, &mut [0; 8]).is_err() {
        sensor.poll(limit, &mut |_| {}).unwrap();
        assert!(before.elapsed() < limit, "the call was slept through");
    }
    thread.join().unwrap();
}
