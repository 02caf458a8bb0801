//! Alerts name their container, whatever runs it, and its image by every digest; and they are Falco's object.

#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::process::Command;

use xtask::agent::{Alert, Options};
use xtask::rig::containerd::Containerd;
use xtask::rig::image::{Image, Layer, Written};
use xtask::rig::podman::Podman;
use xtask::rig::runc::Runc;
use xtask::rig::{payload, unique_name};

fn image(reference: &str) -> Image {
    Image::new(reference).layer(Layer::busybox(&["sh", "sleep"]).expect("busybox")).layer(Layer::new().file(
        "/usr/bin/payload",
        payload::unique().expect("payload"),
        0o755,
    ))
}

fn assert_image(alert: &Alert, written: &Written) {
    let text = |name: &str| alert.field(name).map(str::to_owned);
    assert_eq!(text("image.manifest_digest"), Some(written.manifest_digest.clone()), "{}", alert.output);
    assert_eq!(text("image.config_digest"), Some(written.config_digest.clone()), "{}", alert.output);
    assert_eq!(text("image.chain_id"), Some(written.chain_id.clone()), "{}", alert.output);
    assert_eq!(text("manifest.verdict").as_deref(), Some("expected"), "{}", alert.output);
}

#[test]
fn every_runtime_is_named_with_its_image() {
    if !common::is_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("directory");
    let rules = common::rules_file(directory.path(), common::EVERY_EXEC);
    let config = format!("manifest: {{cache_dir: {}}}", directory.path().join("cache").display());
    let agent = common::start(&Options { rules: vec![rules], config, ..Options::default() });
    let archive = directory.path().join("image.tar");
    let exec_in = |id: &str| {
        common::wait_for(&agent, id, |alert| {
            alert.field("container.full_id") == Some(id) && alert.field("proc.exepath") == Some("/usr/bin/payload")
        })
    };

    // An image with two platforms: the tag points to an index, the container runs this machine's manifest.
    let other = vec![Layer::new().file("/other", "x", 0o644)];
    let written = image("local.test/team/shop:1.2").platform("arm64", other).write_archive(&archive).expect("image");
    let containerd = Containerd::start().expect("containerd");
    containerd.import(&archive).expect("imported");
    let id = unique_name("identity");
    containerd.run("local.test/team/shop:1.2", &id, &["/usr/bin/payload"]).expect("run");
    let alert = exec_in(&id);
    assert_image(&alert, &written);
    assert_eq!(alert.field("image.index_digest").map(str::to_owned), written.index_digest, "{}", alert.output);
    assert_eq!(alert.field("container.id"), Some(&id[..12]));
    assert_eq!(alert.field("container.type"), Some("containerd"));
    assert_eq!(alert.field("container.name"), Some(id.as_str()));
    assert_eq!(alert.field("container.image.repository"), Some("local.test/team/shop"));
    assert_eq!(alert.field("container.image.tag"), Some("1.2"));
    assert_eq!(alert.field("user.name"), Some("root"));

    // Falco's object: the test's type refuses other keys, these are their values.
    assert_eq!((alert.rule.as_str(), alert.priority.as_str()), ("Program in a container", "Notice"));
    assert_eq!(alert.source, "syscall");
    assert!(alert.tags.is_empty() && !alert.hostname.is_empty());
    assert!(alert.output_fields["evt.time"].is_u64(), "{:?}", alert.output_fields["evt.time"]);
    assert!(alert.output_fields["k8s.pod.name"].is_null() && alert.output_fields["k8s.ns.name"].is_null());
    assert!(alert.output.contains(": Notice exec exepath=/usr/bin/payload"), "{}", alert.output);
    assert!(alert.output.contains("k8s_pod_name=<NA>"), "{}", alert.output);
    assert!(alert.time.ends_with('Z') && alert.time.len() == 30, "{}", alert.time);

    let podman = Podman::new().expect("podman");
    let written = image("local.test/pod:3").write_archive(&archive).expect("image");
    let name = podman.load(&archive).expect("loaded");
    let container = unique_name("podman");
    let id = podman.start_container(&name, &container, &["/bin/sleep", "100"]).expect("container");
    podman.exec(&container, &["/usr/bin/payload"]).expect("exec");
    let alert = exec_in(&id);
    assert_image(&alert, &written);
    assert_eq!(alert.field("container.type"), Some("podman"));
    assert_eq!(alert.field("container.name"), Some(container.as_str()));
    assert_eq!(alert.field("container.image.repository"), Some("local.test/pod"));

    let program = payload::unique().expect("payload");
    let runc = Runc::bundle(&[("/usr/bin/payload", &program)], &["/usr/bin/payload"]).expect("bundle");
    runc.run().expect("run");
    let alert = exec_in(runc.id());
    assert_eq!(alert.field("manifest.verdict"), Some("unattested"));
    assert_eq!(alert.field("container.image.repository"), None);

    let (_, summary) = agent.stop().expect("summary");
    assert_eq!(summary.lost(), 0, "{:?}", summary.lost);
}

#[test]
fn a_process_of_the_host_is_the_hosts() {
    if !common::is_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("directory");
    let marker = unique_name("host");
    let rules = common::rules_file(
        directory.path(),
        &format!(
            "- rule: On the host\n  desc: x\n  condition: evt.type = execve and proc.args contains {marker}\n  \
             output: \"type=%container.type id=%container.id verdict=%manifest.verdict parent=%proc.pname tty=%proc.tty \
             pid=%proc.pid ppid=%proc.ppid\"\n  priority: WARNING\n"
        ),
    );
    let agent = common::start(&Options { rules: vec![rules], ..Options::default() });
    let child = Command::new("/bin/true").arg(&marker).spawn().expect("true");
    let pid = child.id();
    child.wait_with_output().expect("true ends");
    let alert = common::wait_for(&agent, &marker, |_| true);
    for (field, value) in [("container.type", "host"), ("container.id", "host"), ("manifest.verdict", "host")] {
        assert_eq!(alert.field(field), Some(value), "{}", alert.output);
    }
    assert_eq!(alert.output_fields["proc.pid"], u64::from(pid));
    assert_eq!(alert.output_fields["proc.ppid"], u64::from(std::process::id()));
}

/// Opens that no rule can match stay in the kernel; those that one can match do not.
#[test]
fn opens_of_the_host_leave_the_kernel_only_for_rules_about_the_host() {
    const OPENS: u64 = 500;
    if !common::is_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("directory");
    let archive = directory.path().join("image.tar");
    image("local.test/opens:1").write_archive(&archive).expect("image");
    let containerd = Containerd::start().expect("containerd");
    containerd.import(&archive).expect("imported");
    let file = directory.path().join(unique_name("opened"));
    std::fs::write(&file, "x").expect("written");
    let mut opened = Vec::new();
    for (scope, condition) in [("containers", "container.id != host"), ("all", "container.id exists")] {
        let text = format!(
            "- rule: Passwd\n  desc: x\n  condition: evt.type = openat and fd.name = /etc/passwd and {condition}\n  \
             output: full=%container.full_id\n  priority: NOTICE\n"
        );
        let rules = common::rules_file(directory.path(), &text);
        let agent = common::start(&Options { rules: vec![rules], ..Options::default() });
        let status = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "opens_a_file_often", "--nocapture"])
            .env("PURSER_TEST_OPEN", &file)
            .env("PURSER_TEST_OPENS", OPENS.to_string())
            .output()
            .expect("run");
        assert!(status.status.success());
        let id = unique_name("opens");
        containerd.run("local.test/opens:1", &id, &["/usr/bin/payload", "openat", "/etc/passwd", "0"]).expect("run");
        common::wait_for(&agent, scope, |alert| alert.field("container.full_id") == Some(id.as_str()));
        let (_, summary) = agent.stop().expect("summary");
        opened.push(summary.events["openat"]);
    }
    assert!(opened[0] < OPENS, "{opened:?}: the host's opens left the kernel");
    assert!(opened[1] >= OPENS, "{opened:?}: the host's opens were not seen");
}

/// Not a test of its own: the program of the test above.
#[test]
fn opens_a_file_often() {
    let (Some(file), Ok(count)) = (std::env::var_os("PURSER_TEST_OPEN"), std::env::var("PURSER_TEST_OPENS")) else {
        return;
    };
    for _ in 0..count.parse::<u64>().expect("a number") {
        std::fs::File::open(&file).expect("opened");
    }
}
