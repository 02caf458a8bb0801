//! Every verdict, on real containers: each is provoked once, and named with the digest, path and manifest it rests on.

#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::fs;

use xtask::agent::{Agent, Alert, Options};
use xtask::rig::containerd::{Containerd, RunOptions};
use xtask::rig::image::{Image, Layer, sha256};
use xtask::rig::runc::Runc;
use xtask::rig::{payload, unique_name};

fn exec_of(agent: &Agent, path: &str, container: &str) -> Alert {
    common::wait_for(agent, path, |alert| {
        alert.field("proc.exepath") == Some(path) && alert.field("container.full_id") == Some(container)
    })
}

fn verdict_of(agent: &Agent, path: &str, container: &str) -> (String, String) {
    let alert = exec_of(agent, path, container);
    let text = |name: &str| alert.field(name).unwrap_or("null").to_owned();
    (text("manifest.verdict"), text("manifest.reason"))
}

#[test]
fn each_verdict_is_given_for_what_it_means() {
    if !common::is_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("directory");
    let rules = common::rules_file(directory.path(), common::EVERY_EXEC);
    let shipped = payload::unique().expect("payload");
    let other = payload::unique().expect("payload");
    let image = Image::new("local.test/verdicts:1")
        .layer(Layer::busybox(&["sh", "cat", "cp", "chmod", "sleep", "mv", "dd", "ln"]).expect("busybox"))
        .layer(
            Layer::new()
                .file("/usr/bin/shipped", shipped.clone(), 0o755)
                .file("/usr/bin/victim", payload::unique().expect("payload"), 0o755)
                .file("/usr/bin/raised", payload::unique().expect("payload"), 0o755)
                .file("/usr/bin/large", [payload::unique().expect("payload"), vec![0; 5 << 20]].concat(), 0o755),
        )
        .entrypoint(&["/bin/sleep", "1000"]);
    let second = Image::new("local.test/second:1")
        .layer(Layer::busybox(&["sh", "sleep"]).expect("busybox"))
        .layer(Layer::new().file("/usr/bin/theirs", other.clone(), 0o755));

    let containerd = Containerd::start().expect("containerd");
    for (image, name) in [(&image, "verdicts.tar"), (&second, "second.tar")] {
        let archive = directory.path().join(name);
        image.write_archive(&archive).expect("image written");
        containerd.import(&archive).expect("imported");
    }
    let volume = directory.path().join("volume");
    fs::create_dir(&volume).expect("volume");
    fs::write(volume.join("brought"), payload::unique().expect("payload")).expect("written");
    fs::write(volume.join("theirs"), &other).expect("written");
    for name in ["brought", "theirs"] {
        fs::set_permissions(volume.join(name), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("mode");
    }

    // `large` must not be hashed: the limit lies between it and busybox.
    let config = "manifest: {max_file_bytes: 4MiB, cache_dir: CACHE}"
        .replace("CACHE", directory.path().join("cache").to_str().expect("text"));
    let agent = common::start(&Options { rules: vec![rules], config, ..Options::default() });
    let id = unique_name("verdicts");
    let options = RunOptions { mounts: vec![(volume.clone(), "/volume".to_owned(), true)], ..RunOptions::default() };
    let neighbour = containerd
        .start_container("local.test/second:1", &unique_name("second"), &["/bin/sleep", "1000"])
        .expect("neighbour");
    // Its manifest has to be known before a digest of it can be called foreign.
    assert_eq!(verdict_of(&agent, "/bin/busybox", neighbour.id()).0, "expected");
    let container = containerd
        .start_container_with("local.test/verdicts:1", &id, &["/bin/sleep", "1000"], &options)
        .expect("container");
    let run = |args: &[&str]| container.exec_ok(args).unwrap_or_else(|error| panic!("{args:?}: {error:#}"));
    let verdict = |path: &str| verdict_of(&agent, path, &id);

    let entry = exec_of(&agent, "/bin/busybox", &id);
    assert_eq!(entry.field("manifest.verdict"), Some("expected"), "{}", entry.output);
    assert_eq!(entry.field("manifest.source"), Some("layers"), "{}", entry.output);

    run(&["/usr/bin/shipped"]);
    let alert = exec_of(&agent, "/usr/bin/shipped", &id);
    assert_eq!(alert.field("manifest.verdict"), Some("expected"), "{}", alert.output);
    assert_eq!(Some(format!("sha256:{}", alert.field("proc.exe.sha256").unwrap_or_default())), Some(sha256(&shipped)));

    run(&["/bin/cp", "/usr/bin/shipped", "/usr/bin/innocent"]);
    run(&["/usr/bin/innocent"]);
    assert_eq!(verdict("/usr/bin/innocent"), ("relocated".into(), "other_path".into()));

    run(&["/usr/bin/shipped", "copy-unique", "/usr/bin/shipped", "/tmp/new"]);
    run(&["/bin/cp", "/tmp/new", "/usr/bin/victim"]);
    run(&["/usr/bin/victim"]);
    assert_eq!(verdict("/usr/bin/victim"), ("modified".into(), "other_digest".into()));

    run(&["/tmp/new"]);
    assert_eq!(verdict("/tmp/new"), ("unlisted".into(), "unknown_digest".into()));

    // A copied-up file with its own bytes stays what it is, unless it gained rights.
    run(&["/bin/chmod", "0711", "/usr/bin/raised"]);
    run(&["/usr/bin/raised"]);
    assert_eq!(verdict("/usr/bin/raised").0, "expected");
    run(&["/bin/chmod", "4755", "/usr/bin/raised"]);
    run(&["/usr/bin/raised"]);
    assert_eq!(verdict("/usr/bin/raised"), ("escalated".into(), "setuid".into()));

    run(&["/usr/bin/shipped", "memfd", "/usr/bin/shipped", "exit", "0"]);
    let alert = common::wait_for(&agent, "memfd", |alert| {
        alert.field("container.full_id") == Some(id.as_str()) && alert.field("manifest.verdict") == Some("fileless")
    });
    assert!(alert.field("proc.exepath").is_some_and(|path| path.contains("memfd:")), "{}", alert.output);

    run(&["/volume/brought"]);
    assert_eq!(verdict("/volume/brought"), ("volume".into(), "unknown_digest".into()));
    run(&["/volume/theirs"]);
    assert_eq!(verdict("/volume/theirs"), ("foreign".into(), "other_image".into()));

    run(&["/usr/bin/large"]);
    assert_eq!(verdict("/usr/bin/large"), ("unverifiable".into(), "too_large".into()));

    // Without an image there is nothing to compare with.
    let program = payload::unique().expect("payload");
    let bare = Runc::bundle(&[("/program", &program)], &["/program", "sleep", "0.3"]).expect("bundle");
    bare.run().expect("run");
    assert_eq!(verdict_of(&agent, "/program", bare.id()), ("unattested".into(), "no_image".into()));

    drop((container, neighbour));
    let (_, summary) = agent.stop().expect("summary");
    for name in [
        "expected",
        "relocated",
        "modified",
        "unlisted",
        "escalated",
        "fileless",
        "volume",
        "foreign",
        "unverifiable",
        "unattested",
        "host",
    ] {
        assert!(summary.verdicts.get(name).is_some_and(|n| *n > 0), "{name}: {:?}", summary.verdicts);
    }
    assert_eq!(summary.lost(), 0, "{:?}", summary.lost);
}

const VERDICT_OF_OPEN: &str = r"
- rule: Verdict on whoever opens
  desc: A rule that asks for the verdict on a program at something else than its start.
  condition: evt.type=openat and fd.name=/etc/watched and container.id != host and manifest.verdict exists
  output: exepath=%proc.exepath upper=%proc.is_exe_upper_layer %manifest.verdict %manifest.reason %container.full_id
  priority: NOTICE
";

/// The agent comes to a node on which everything runs already.
#[test]
fn programs_that_ran_before_the_agent_are_judged_like_others() {
    if !common::is_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("directory");
    let rules = common::rules_file(directory.path(), VERDICT_OF_OPEN);
    let archive = directory.path().join("early.tar");
    Image::new("local.test/early:1")
        .layer(Layer::busybox(&["sh", "cp", "rm", "sleep"]).expect("busybox"))
        .layer(
            Layer::new()
                .file("/etc/watched", "watched", 0o644)
                .file("/usr/bin/shipped", payload::unique().expect("payload"), 0o755)
                .file("/usr/bin/victim", payload::unique().expect("payload"), 0o755),
        )
        .write_archive(&archive)
        .expect("image");
    let containerd = Containerd::start().expect("containerd");
    containerd.import(&archive).expect("imported");
    let volume = directory.path().join("volume");
    fs::create_dir(&volume).expect("volume");
    let options = RunOptions { mounts: vec![(volume, "/volume".to_owned(), true)], ..RunOptions::default() };
    let id = unique_name("early");
    let script = "
        s=/usr/bin/shipped; n=/tmp/new; wait='open-when /tmp/go /etc/watched'
        $s copy-unique $s $n; cp $n /usr/bin/victim; cp $n /volume/brought; cp $s /usr/bin/copy; cp $n /tmp/gone
        for program in $s $n /usr/bin/victim /volume/brought /usr/bin/copy /tmp/gone; do $program $wait & done
        $s memfd $s $wait &
        sleep 0.5; rm /tmp/gone; : > /tmp/ready; sleep 1000";
    let container = containerd
        .start_container_with("local.test/early:1", &id, &["/bin/sh", "-c", script], &options)
        .expect("container");
    let root = std::path::PathBuf::from(format!("/proc/{}/root", container.pid().expect("pid")));
    common::until("the programs run", || root.join("tmp/ready").exists());

    let config = format!("manifest: {{cache_dir: {}}}", directory.path().join("cache").display());
    let agent = common::start(&Options { rules: vec![rules], config, ..Options::default() });
    fs::write(root.join("tmp/go"), "").expect("written");
    let mut seen = std::collections::BTreeMap::new();
    while seen.len() < 7 {
        let alert = common::wait_for(&agent, &format!("the next after {seen:?}"), |_| true);
        if alert.field("proc.exepath") == Some("/usr/bin/copy") {
            // It is in the upper layer, but `stat` does not tell: better no answer than a wrong one.
            assert!(alert.output_fields["proc.is_exe_upper_layer"].is_null(), "{}", alert.output);
        }
        let text = |name: &str| alert.field(name).unwrap_or("null").to_owned();
        seen.insert(text("proc.exepath"), format!("{} {}", text("manifest.verdict"), text("manifest.reason")));
    }
    let expected = [
        ("/tmp/gone", "fileless unlinked"),
        ("/tmp/new", "unlisted unknown_digest"),
        ("/usr/bin/copy", "relocated other_path"),
        ("/usr/bin/shipped", "expected listed"),
        ("/usr/bin/victim", "modified other_digest"),
        ("/volume/brought", "volume unknown_digest"),
        ("memfd:payload", "fileless memfd"),
    ];
    assert_eq!(seen, expected.map(|(path, verdict)| (path.to_owned(), verdict.to_owned())).into());
}
