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
