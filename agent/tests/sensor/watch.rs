//! Runs a trigger in a child process while a sensor watches, and gives the events that the child caused.

use std::{
    fs,
    os::fd::{FromRawFd, OwnedFd},
    path::Path,
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use purser::{
    decode::decode,
    event::{Body, Event, EventType, FileIdentity},
    sensor::{HookState, Policy, Sensor, SensorConfig, Tier},
};

use crate::uring::Uring;

/// What was seen.
pub(crate) struct Seen {
    /// The child's process id.
    pub(crate) child: u32,
    /// Events of the child and of what it started, in order.
    pub(crate) events: Vec<Event>,
    /// The kernel's losses meanwhile.
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

/// The sensor's settings, with the tier that this machine is there to try.
pub(crate) fn config() -> SensorConfig {
    let tier = std::env::var("PURSER_TEST_TIER").ok().map(|tier| match &*tier {
        "A" => Tier::A,
        "B" => Tier::B,
        "C" => Tier::C,
        other => panic!("PURSER_TEST_TIER={other}: it is A, B or C"),
    });
    SensorConfig { tier, ..SensorConfig::default() }
}

/// Says that a test is not run on this kernel.
pub(crate) fn skip(name: &str, missing: &str) {
    eprintln!("SKIP {name}: missing feature: {missing}");
}

/// Whether io_uring's work is told on this kernel; says so if not.
pub(crate) fn tells_io_uring(name: &str) -> bool {
    if let Err(errno) = Uring::new() {
        skip(name, &format!("io_uring (errno {errno})"));
        return false;
    }
    let sensor = sensor(&Policy::default());
    let missing = sensor
        .hooks()
        .iter()
        .find(|hook| hook.name.starts_with("tp_btf/io_uring") && matches!(hook.state, HookState::Unavailable(_)));
    if let Some(hook) = missing {
        skip(name, &format!("{} that tells of requests (5.19 on)", hook.name));
    }
    missing.is_none()
}

/// Whether the running kernel is of this release or a later one.
pub(crate) fn is_at_least(major: u32, minor: u32) -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|text| text.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (major, minor)
}

/// The sensor that the tests share, with a policy: an emulated machine takes many seconds to load the programs.
pub(crate) fn sensor(policy: &Policy) -> MutexGuard<'static, Sensor> {
    static SENSOR: LazyLock<Mutex<Sensor>> =
        LazyLock::new(|| Mutex::new(Sensor::start(&config(), &Policy::default()).unwrap()));
    let mut sensor = SENSOR.lock().unwrap_or_else(PoisonError::into_inner);
    sensor.set_policy(policy).unwrap();
    // What an earlier policy left.
    while sensor.poll(Duration::ZERO, &mut |_| {}).unwrap() > 0 {}
    sensor
}

/// Watches a trigger with everything switched on.
pub(crate) fn watch(trigger: impl FnOnce() -> i32) -> Seen {
    watch_policy(&Policy::everything(), trigger)
}

/// Watches a trigger with a policy, and with exits.
pub(crate) fn watch_policy(policy: &Policy, trigger: impl FnOnce() -> i32) -> Seen {
    let mut policy = policy.clone();
    policy.events.insert(EventType::Procexit);
    watch_by(&mut sensor(&policy), trigger)
}

/// Watches a trigger with everything switched on, by a sensor of its own.
pub(crate) fn watch_with(config: &SensorConfig, trigger: impl FnOnce() -> i32) -> Seen {
    watch_by(&mut Sensor::start(config, &Policy::everything()).unwrap(), trigger)
}

/// Watches a trigger. Its result is the child's exit code. It runs after a fork of a threaded process, so it must
/// only make system calls on what was prepared before.
fn watch_by(sensor: &mut Sensor, trigger: impl FnOnce() -> i32) -> Seen {
    let before = sensor.losses();
    let child = spawn(trigger);
    let mut events = Vec::new();
    let mut bad = Vec::new();
    let deadline = Instant::now() + Duration::from_mins(1);
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
    let mut losses = sensor.losses();
    for (loss, before) in losses.iter_mut().zip(before) {
        loss.2 -= before.2;
    }
    Seen { child, events, losses }
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
