//! The rig against the real runtimes: what the agent's root tests rely on. Without root, or without a runtime, each test says
//! what is missing and passes.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking and says why it is skipped")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use xtask::rig::containerd::{Containerd, Options};
use xtask::rig::image::{Image, Layer};
use xtask::rig::podman::Podman;
use xtask::rig::runc::Runc;
use xtask::rig::{command, payload};

/// False, and said so, where the test cannot run.
fn can_run(programs: &[&str]) -> bool {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: needs root");
        return false;
    }
    for program in programs {
        if Command::new(program).arg("--version").output().is_err() {
            eprintln!("SKIPPED: needs {program}");
            return false;
        }
    }
    true
}

fn image() -> Image {
    Image::new("local.test/rig:1")
        .layer(Layer::busybox(&["sh", "cat", "cp", "ls"]).unwrap())
        .layer(
            Layer::new()
                .dir("/app", 0o755)
                .file("/app/payload", payload::program(), 0o755)
                .hardlink("/app/again", "/app/payload")
                .whiteout("/bin/ls"),
        )
        .entrypoint(&["/app/payload"])
        .cmd(&["exit", "7"])
}

/// Mounts, cgroups and processes that name `needle`.
fn traces(needle: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    found.extend(mounts.lines().filter(|line| line.contains(needle)).map(str::to_owned));
    for line in mounts.lines() {
        let mut words = line.split(' ').skip(1);
        let (mount, kind) = (words.next().unwrap(), words.next().unwrap());
        if kind.starts_with("cgroup") && Path::new(mount).join(needle).exists() {
            found.insert(format!("{mount}/{needle}"));
        }
    }
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(needle) {
            found.insert(line);
        }
    }
    found
}

#[test]
fn containerd_runs_an_image_and_leaves_nothing_behind() {
    if !can_run(&["containerd", "runc", "ctr"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let archive = directory.path().join("image.tar");
    let written = image().write_archive(&archive).unwrap();
    let rig = Containerd::start().unwrap();
    rig.import(&archive).unwrap();
    let listed = command::stdout(rig.ctr().args(["images", "list"])).unwrap();
    assert!(listed.contains(&written.manifest_digest), "{listed}");

    let ended = rig.run(&written.reference, "short", &[]).unwrap();
    assert_eq!(ended.status.code(), Some(7), "{}", command::describe(&ended));

    let container = rig.start_container(&written.reference, "long", &["/app/payload", "sleep", "1000"]).unwrap();
    assert!(Path::new("/proc").join(container.pid().unwrap().to_string()).exists());
    assert!(container.bundle().join("config.json").exists());
    assert_eq!(container.exec_ok(&["/bin/cat", "/etc/hostname", "/etc/group"]).unwrap_or_default(), "");
    assert!(container.exec_ok(&["/bin/cat", "/etc/group"]).unwrap().contains("nogroup"));
    assert!(!container.exec(&["/bin/ls"]).unwrap().status.success(), "the whiteout hides it");
    container.exec_ok(&["/app/again", "copy-unique", "/app/payload", "/tmp/new"]).unwrap();
    container.exec_ok(&["/tmp/new"]).unwrap();
    container.exec_ok(&["/app/payload", "memfd", "/app/payload"]).unwrap();
    container.exec_ok(&["/app/payload", "execveat", "/app/payload"]).unwrap();
    container.exec_ok(&["/app/payload", "unlinked", "/tmp/new"]).unwrap();
    assert!(!container.exec(&["/tmp/new"]).unwrap().status.success(), "its name is gone");
    container.exec_ok(&["/app/payload", "times", "3", "/app/payload"]).unwrap();
    let opened = container.exec_ok(&["/app/payload", "uring-open", "/etc/passwd", "0"]).unwrap();
    assert!(opened.trim().parse::<i32>().unwrap() > 2, "{opened}");
    for call in ["open", "openat", "openat2"] {
        let opened = container.exec_ok(&["/app/payload", call, "/etc/passwd", "0"]).unwrap();
        assert!(opened.trim().parse::<i32>().unwrap() > 2, "{call}: {opened}");
    }
    let refused = container.exec(&["/app/payload", "connect", "127.0.0.1:9"]).unwrap();
    assert!(
        ["-111", "-101"].contains(&String::from_utf8_lossy(&refused.stdout).trim()),
        "ECONNREFUSED, or no loopback"
    );
    container.exec_ok(&["/app/payload", "measure", "exec", "3", "/app/payload"]).unwrap();

    let (path, namespace) = (rig.address().parent().unwrap().display().to_string(), rig.namespace().to_owned());
    assert!(!traces(&namespace).is_empty(), "the container's cgroup");
    std::mem::forget(container); // the rig has to end it by itself
    drop(rig);
    assert_eq!(traces(&namespace), BTreeSet::new());
    assert_eq!(traces(&path), BTreeSet::new());
    assert!(!Path::new(&path).exists());
}

#[test]
fn two_containerds_run_beside_each_other() {
    if !can_run(&["containerd", "runc", "ctr"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let archive = directory.path().join("image.tar");
    let written = image().platform("arm64", vec![Layer::new().dir("/x", 0o755)]).write_archive(&archive).unwrap();
    let with_cri = Options { cri: true, ..Options::default() };
    let rigs = [Containerd::start().unwrap(), Containerd::start_with(&with_cri).unwrap()];
    for rig in &rigs {
        rig.import(&archive).unwrap();
        let ended = rig.run(&written.reference, "same-id", &["/app/payload", "exit", "3"]).unwrap();
        assert_eq!(ended.status.code(), Some(3), "{}", command::describe(&ended));
    }
    let listed = command::stdout(rigs[0].ctr().args(["images", "list"])).unwrap();
    assert!(listed.contains(written.index_digest.as_ref().unwrap()), "{listed}");
    let plugins = |rig: &Containerd| command::stdout(rig.ctr().args(["plugins", "list"])).unwrap();
    assert!(
        !plugins(&rigs[0])
            .lines()
            .any(|line| line.contains("grpc.v1") && line.contains(" cri ") && line.contains("ok"))
    );
    assert!(
        plugins(&rigs[1]).lines().any(|line| line.contains("grpc.v1") && line.contains(" cri ") && line.contains("ok"))
    );

    rigs[0].forget(&written.layer_digests[0]).unwrap();
    let blobs = |rig: &Containerd| command::stdout(rig.ctr().args(["content", "list", "--quiet"])).unwrap();
    assert!(!blobs(&rigs[0]).contains(&written.layer_digests[0]));
    assert!(blobs(&rigs[1]).contains(&written.layer_digests[0]));
}

#[test]
fn podman_loads_and_runs_the_same_image() {
    if !can_run(&["podman", "runc"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let archive = directory.path().join("image.tar");
    let written = image().write_archive(&archive).unwrap();
    let rig = Podman::new().unwrap();
    let name = rig.load(&archive).unwrap();
    let id = command::stdout(rig.podman().args(["image", "inspect", "--format", "{{.Id}}", &name])).unwrap();
    assert_eq!(format!("sha256:{}", id.trim()), written.config_digest);
    let ended = rig.run(&name, "short", &[]).unwrap();
    assert_eq!(ended.status.code(), Some(7), "{}", command::describe(&ended));
    let id = rig.start_container(&name, "long", &["sleep", "1000"]).unwrap();
    assert_eq!(id.len(), 64, "{id}");
    let said = rig.exec("long", &["/bin/cat", "/etc/group"]).unwrap();
    assert!(String::from_utf8_lossy(&said.stdout).contains("nogroup"), "{}", command::describe(&said));
    let path = rig.root().parent().unwrap().display().to_string();
    drop(rig);
    assert_eq!(traces(&path), BTreeSet::new());
}

#[test]
fn runc_runs_a_bundle() {
    if !can_run(&["runc"]) {
        return;
    }
    let rig = Runc::bundle(&[("/app/payload", payload::program())], &["/app/payload", "exit", "5"]).unwrap();
    let ended = rig.run().unwrap();
    assert_eq!(ended.status.code(), Some(5), "{}", command::describe(&ended));
    let rig = Runc::bundle(&[("/app/payload", payload::program())], &["/app/payload", "sleep", "1000"]).unwrap();
    rig.start().unwrap();
    let ended = rig.exec(&["/app/payload", "exit", "4"]).unwrap();
    assert_eq!(ended.status.code(), Some(4), "{}", command::describe(&ended));
    let (id, path) = (rig.id().to_owned(), rig.path().display().to_string());
    drop(rig);
    assert_eq!(traces(&id), BTreeSet::new());
    assert_eq!(traces(&path), BTreeSet::new());
}
