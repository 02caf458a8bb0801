//! The default rules on a real container: tricks that hide a name or a path, and an escape, are seen, and each is
//! reported as what it is and nothing more.

#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use xtask::agent::Options;
use xtask::rig::containerd::Containerd;
use xtask::rig::image::{Image, Layer};
use xtask::rig::unique_name;

/// What is done in the container, and the rules that it must lead to.
const TRICKS: [(&str, &[&str]); 13] = [
    ("busybox cat /proc/self/root/etc/shadow", &["Sensitive file read in a container"]),
    ("cd /usr/bin/../../etc && cat shadow", &["Sensitive file read in a container"]),
    ("busybox nc 127.0.0.1 1 -e /bin/sh || true", &["Netcat with a program attached"]),
    ("ln -s /bin/busybox /run/nc; /run/nc 127.0.0.1 1 -e /bin/sh || true", &["Netcat with a program attached"]),
    ("busybox nc 127.0.0.1 1 -e/bin/sh || true", &["Netcat with a program attached"]),
    ("echo true > /dev/shm/x; cd /dev/shm; /bin/sh x", &["Program started from shared memory"]),
    ("echo x > /run/x; mv /run/x /etc/shadow", &["Login configuration written in a container"]),
    ("echo x > /etc/x; cd /root; ln ../etc/x .profile", &["Shell start-up file written in a container"]),
    ("busybox find / -xdev -name id_rsa", &["Search for keys or credentials"]),
    ("echo true > /dev/shm/x; cd /dev/shm; /bin/sh ./x", &["Program started from shared memory"]),
    (
        "cp /bin/busybox /run/busybox && /run/busybox cat /etc/shadow",
        &["Program moved", "Secret read by a program that is not the image's", "Sensitive file read in a container"],
    ),
    ("echo 'echo hello' >> /root/.profile", &["Shell start-up file written in a container"]),
    // Near misses: the same tools in ordinary use.
    ("cat /etc/hostname; busybox nc -z 127.0.0.1 1; find /etc -name hostname; echo x > /root/notes; true", &[]),
];

#[test]
fn tricks_are_seen_and_named() {
    if !common::is_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("directory");
    let archive = directory.path().join("image.tar");
    let image = Image::new("local.test/tricks:1")
        .layer(Layer::busybox(&["sh", "cat", "cp", "ln", "mv", "find", "nc", "sleep", "true"]).expect("busybox"))
        .layer(
            Layer::new()
                .file("/etc/shadow", b"root:*:1::::::\n".to_vec(), 0o600)
                .file("/etc/hostname", b"tricks\n".to_vec(), 0o644)
                .file("/root/notes", Vec::new(), 0o644)
                .file("/run/nothing", Vec::new(), 0o644)
                .file("/usr/bin/nothing", Vec::new(), 0o644),
        )
        .entrypoint(&["/bin/sleep", "1000"]);
    image.write_archive(&archive).expect("image written");
    let containerd = Containerd::start().expect("containerd");
    containerd.import(&archive).expect("imported");

    let config = format!("rule_matching: all\nmanifest: {{cache_dir: {}}}", directory.path().join("cache").display());
    let agent = common::start(&Options { config, ..Options::default() });
    let mut seen = Vec::new();
    for (trick, _) in TRICKS {
        let container = containerd
            .start_container("local.test/tricks:1", &unique_name("tricks"), &["/bin/sleep", "1000"])
            .expect("container");
        container.exec_ok(&["/bin/sh", "-c", trick]).unwrap_or_else(|error| panic!("{trick}: {error:#}"));
        seen.push(container.id().to_owned());
    }
    let escaped = containerd
        .start_container("local.test/tricks:1", &unique_name("escaped"), &["/bin/sleep", "1000"])
        .expect("container");
    escape(escaped.pid().expect("it runs"));
    std::thread::sleep(Duration::from_millis(500));

    let (lines, summary) = agent.stop().expect("summary");
    let alerts: Vec<_> = lines.into_iter().map(|line| line.alert.expect("an alert")).collect();
    let rules_of = |id: &str| -> BTreeSet<&str> {
        let alerts = alerts.iter().filter(|alert| alert.field("container.name") == Some(id));
        alerts.map(|alert| alert.rule.as_str()).collect()
    };
    for ((trick, rules), id) in TRICKS.iter().zip(&seen) {
        assert_eq!(rules_of(id), rules.iter().copied().collect(), "{trick}");
    }
    assert_eq!(rules_of(escaped.id()), BTreeSet::from(["Program of the host in a container"]));
    assert_eq!(summary.lost(), 0, "{:?}", summary.lost);
}

/// Starts a program of the host in the cgroup of the container whose first process is `pid`, as a process does that has
/// joined the host's mount namespace.
fn escape(pid: u32) {
    let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("the container runs");
    let path = cgroups.lines().find_map(|line| line.strip_prefix("0::/")).expect("cgroup2");
    let mounts = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new);
    let mount = mounts.into_iter().find(|mount| mount.join("cgroup.controllers").exists()).expect("cgroup2 is mounted");
    let procs = mount.join(path).join("cgroup.procs");
    let joined = format!("echo $$ > {} && exec /bin/true", procs.display());
    assert!(Command::new("/bin/sh").args(["-c", &joined]).status().expect("started").success());
}
