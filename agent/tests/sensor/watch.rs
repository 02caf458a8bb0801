//! Runs a trigger in a child process while a sensor watches, and gives the events that the child caused.

use std::{
    fs,
    os::fd::{FromRawFd, OwnedFd},
    path::Path,
    time::{Duration, Instant},
};

use purser::{
    decode::decode,
    event::{Body, Event, EventType, FileIdentity},
    sensor::{Policy, Sensor, SensorConfig},
};

/// What was seen.
pub(crate) struct Seen {
    /// The child's process id.
    pub(crate) child: u32,
    /// Events of the child and of what it started, in order.
    pub(crate) events: Vec<Event>,
    /// The kernel's losses.
    pub(crate) losses: Vec<(&'static str, &'static str, u64)>,
}

/// Whether the tests can run; says so if not.
pub(crate) fn privileged() -> bool {
    let root = rustix::process::geteuid().is_root();
    let btf = Path::new("/sys/kernel/btf/vmlinux").exists();
    if !root {
        eprintln!("SKIPPED: missing feature: root");
    } else if !btf {
        eprintln!("SKIPPED: missing feature: kernel BTF (/sys/kernel/btf/vmlinux)");
    }
    root && btf
}

/// Starts a sensor with a policy.
pub(crate) fn sensor(policy: &Policy) -> Sensor {
    Sensor::start(&SensorConfig::default(), policy).unwrap()
}

/// Watches a trigger with everything switched on.
pub(crate) fn watch(trigger: impl FnOnce() -> i32) -> Seen {
    watch_with(&SensorConfig::default(), &Policy::everything(), trigger)
}

/// Watches a trigger. Its result is the child's exit code. It runs after a fork of a threaded process, so it must
/// only make system calls on what was prepared before.
pub(crate) fn watch_with(config: &SensorConfig, policy: &Policy, trigger: impl FnOnce() -> i32) -> Seen {
    let mut policy = policy.clone();
    policy.events.insert(EventType::Procexit);
    let mut sensor = Sensor::start(config, &policy).unwrap();
    let child = spawn(trigger);
    let mut events = Vec::new();
    let mut bad = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut ended = false;
    while !ended && Instant::now() < deadline {
        sensor
            .poll(Duration::from_millis(200), &mut |record| match decode(record) {
                Ok(event) => {
                    ended |= event.task.tgid == child && matches!(&event.body, Body::Exit(exit) if exit.group_dead);
                    events.push(event);
                }
                Err(error) => bad.push(error),
            })
            .unwrap();
    }
    let status = wait(child);
    assert!(ended, "no exit of child {child} was seen (it ended with {status:#x})");
    assert_eq!(status, 0, "the trigger failed");
    assert_eq!(bad, [], "records that do not decode");
    events.retain(|event| {
        event.task.tgid == child || event.task.parent_tgid == child || matches!(event.body, Body::Cgroup(_))
    });
    Seen { child, events, losses: sensor.losses() }
}

/// Forks a child that runs `trigger` and exits with its result.
pub(crate) fn spawn(trigger: impl FnOnce() -> i32) -> u32 {
    // SAFETY: the child only makes system calls, then exits without running destructors.
    match unsafe { libc::fork() } {
        -1 => panic!("fork: {}", std::io::Error::last_os_error()),
        0 => {
            let code = trigger();
            // SAFETY: ends the child.
            unsafe { libc::_exit(code) }
        }
        child => child as u32,
    }
}

/// Waits for a child and gives its wait status.
pub(crate) fn wait(child: u32) -> i32 {
    let mut status = 0;
    // SAFETY: waits for an own child.
    unsafe { libc::waitpid(child as i32, &raw mut status, 0) };
    status
}

impl Seen {
    /// The opens, in order.
    pub(crate) fn opens(&self) -> Vec<(&Event, &purser::event::Open)> {
        self.events
            .iter()
            .filter_map(|event| if let Body::Open(open) = &event.body { Some((event, &**open)) } else { None })
            .collect()
    }

    /// The connects, in order.
    pub(crate) fn connects(&self) -> Vec<(&Event, &purser::event::Connect)> {
        self.events
            .iter()
            .filter_map(|event| if let Body::Connect(connect) = &event.body { Some((event, &**connect)) } else { None })
            .collect()
    }

    /// The only exec.
    pub(crate) fn exec(&self) -> (&Event, &purser::event::Exec) {
        let execs: Vec<_> = self
            .events
            .iter()
            .filter_map(|event| if let Body::Exec(exec) = &event.body { Some((event, &**exec)) } else { None })
            .collect();
        assert_eq!(execs.len(), 1, "{:?}", self.events);
        execs[0]
    }

    /// How much was lost for a reason.
    pub(crate) fn lost(&self, reason: &str) -> u64 {
        self.losses.iter().find(|loss| loss.1 == reason).unwrap().2
    }
}

/// The identity of a file as `stat` tells it.
pub(crate) fn identity(path: &Path) -> FileIdentity {
    use std::os::unix::fs::MetadataExt;
    let stat = fs::metadata(path).unwrap();
    FileIdentity {
        dev: libc::major(stat.dev()) << 20 | libc::minor(stat.dev()),
        ino: stat.ino(),
        mode: stat.mode(),
        uid: stat.uid(),
        gid: stat.gid(),
        nlink: stat.nlink() as u32,
        size: stat.size(),
        ctime_ns: stat.ctime() * 1_000_000_000 + stat.ctime_nsec(),
        mtime_ns: stat.mtime() * 1_000_000_000 + stat.mtime_nsec(),
        ..FileIdentity::default()
    }
}

/// What `stat` can tell of an identity.
pub(crate) fn comparable(file: &FileIdentity) -> FileIdentity {
    FileIdentity { generation: 0, magic: 0, on_rootfs: false, memfd: false, overlay: None, ..*file }
}

/// A pipe.
pub(crate) fn pipe() -> (OwnedFd, OwnedFd) {
    let mut ends = [0; 2];
    // SAFETY: two descriptors are written.
    assert_eq!(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
    // SAFETY: fresh descriptors.
    let read = unsafe { OwnedFd::from_raw_fd(ends[0]) };
    // SAFETY: as above.
    (read, unsafe { OwnedFd::from_raw_fd(ends[1]) })
}
