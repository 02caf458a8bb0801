//! Containers of real runtimes, identified by their cgroup id: what the bundle says at once, what the runtime says later,
//! and that what they say is the digests the image was written with.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking and says why it is skipped"
)]

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use purser::container::{
    Container, ContainerdEndpoint, Containers, ContainersConfig, Image, ImageRef, ImageStore, Lookup, Runtime,
    image_by_reference,
};
use xtask::rig::{
    command,
    containerd::{Containerd, RunOptions},
    image::{self, Layer, Written},
    podman::Podman,
    runc::Runc,
    unique_name,
};

/// Where cgroup2 is mounted here.
fn cgroup2() -> Option<PathBuf> {
    ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
        .iter()
        .map(PathBuf::from)
        .find(|mount| mount.join("cgroup.controllers").exists())
}

/// Root tests say what they lack and pass.
fn can_run() -> bool {
    let lacks = if !rustix::process::geteuid().is_root() {
        Some("root")
    } else if cgroup2().is_none() {
        Some("cgroup2")
    } else {
        None
    };
    if let Some(lacks) = lacks {
        println!("SKIPPED: this test needs {lacks}");
    }
    lacks.is_none()
}

fn write_image(reference: &str, directory: &Path) -> (Written, PathBuf) {
    let archive = directory.join(format!("{}.tar", unique_name("image")));
    let written = image::Image::new(reference)
        .layer(Layer::busybox(&["sh", "sleep", "true"]).expect("busybox"))
        .layer(Layer::new().file("/etc/salt", unique_name("salt").into_bytes(), 0o644))
        .entrypoint(&["/bin/sleep", "1000"])
        .write_archive(&archive)
        .expect("archive");
    (written, archive)
}

/// The cgroup2 path and id of a process.
fn cgroup_of(pid: u32) -> (String, u64) {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("the process runs");
    let path = text.lines().find_map(|l| l.strip_prefix("0::")).expect("cgroup2").to_owned();
    let id = id_of(&path);
    (path, id)
}

fn id_of(path: &str) -> u64 {
    fs::metadata(format!("{}{path}", cgroup2().expect("cgroup2").display())).expect("the cgroup exists").ino()
}

fn found(lookup: Lookup) -> Arc<Container> {
    match lookup {
        Lookup::Container(container) => container,
        other => panic!("no container: {other:?}"),
    }
}

/// Polls until the container's image is known, as the pipeline does.
fn answered(containers: &mut Containers, cgroup_id: u64) -> Arc<Container> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        containers.poll_updates();
        let container = containers.iter().find(|c| c.cgroup_id == cgroup_id).expect("still known");
        if !container.image_pending {
            return Arc::clone(container);
        }
        assert!(Instant::now() < deadline, "no answer: {:?}", containers.counters());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn assert_identity(image: &Image, written: &Written) {
    assert_eq!(image.manifest_digest.as_ref(), Some(&written.manifest_digest));
    assert_eq!(image.config_digest.as_ref(), Some(&written.config_digest));
    assert_eq!(image.chain_id.as_ref(), Some(&written.chain_id));
    assert_eq!(
        image.layers.iter().map(|l| &l.diff_id).collect::<Vec<_>>(),
        written.diff_ids.iter().collect::<Vec<_>>()
    );
    assert_eq!(
        image.layers.iter().map(|l| &l.digest).collect::<Vec<_>>(),
        written.layer_digests.iter().collect::<Vec<_>>()
    );
}

/// The overlay directories hold what the layers and the container wrote.
fn assert_overlay(container: &Container) {
    assert_eq!(container.rootfs.lower.len(), 2, "{:?}", container.rootfs);
    assert!(container.rootfs.lower[0].join("etc/salt").exists(), "top layer first");
    assert!(container.rootfs.lower[1].join("bin/busybox").exists(), "base layer last");
    assert!(container.rootfs.upper.as_ref().is_some_and(|u| u.is_dir()));
}

fn new() -> Containers {
    Containers::new(&ContainersConfig::default()).expect("containers")
}

#[test]
fn containerd_container_started_before_the_agent() {
    if !can_run() {
        return;
    }
    let directory = tempfile::tempdir().expect("directory");
    let (written, archive) = write_image("registry.test:5000/team/web:1", directory.path());
    let rig = Containerd::start().expect("containerd");
    rig.import(&archive).expect("import");
    let id = unique_name("web");
    let running = rig.start_container(&written.reference, &id, &["/bin/sleep", "1000"]).expect("container");
    let pid = running.pid().expect("pid");
    let (path, cgroup_id) = cgroup_of(pid);

    // The daemon's state directory is configured nowhere: it is learned from the shim.
    let mut containers = new();
    let scan = containers.scan();
    assert!(scan.cgroups > 1 && scan.containers >= 1 && !scan.truncated, "{scan:?}");
    let first = found(containers.lookup(cgroup_id, pid));
    assert_eq!(first.id, id);
    assert_eq!(first.name, id);
    assert_eq!(first.runtime, Runtime::Containerd);
    assert_eq!(first.runtime.name(), "containerd");
    assert_eq!((first.cgroup_id, first.cgroup_path.as_str()), (cgroup_id, path.as_str()));
    assert_eq!(first.bundle.as_deref(), Some(running.bundle().as_path()));
    assert_eq!(first.init_pid, pid);
    assert_eq!(first.args, ["/bin/sleep", "1000"]);
    assert!(first.mounts.iter().any(|m| m.destination == "/proc" && m.kind == "proc"));
    assert!(first.pod.is_none() && !first.sandbox && !first.privileged);
    assert!(first.created_ns > 1_700_000_000_000_000_000);
    assert_overlay(&first);

    let container = answered(&mut containers, cgroup_id);
    let image = container.image.as_ref().expect("image");
    assert_eq!(image.reference, written.reference);
    assert_eq!((image.repository(), image.tag()), ("registry.test:5000/team/web", Some("1")));
    assert_identity(image, &written);
    let ImageStore::Blobs(blobs) = &image.store else { panic!("no store: {:?}", image.store) };
    for layer in &image.layers {
        let hex = layer.digest.strip_prefix("sha256:").expect("sha256");
        let bytes = fs::read(blobs.join("blobs/sha256").join(hex)).expect("the layer can be read");
        assert_eq!(image::sha256(&bytes), layer.digest, "its bytes are its digest's");
    }

    // A process that was put into a cgroup below the container's own is the container's.
    let below = format!("{}{path}/below", cgroup2().expect("cgroup2").display());
    fs::create_dir(&below).expect("sub-cgroup");
    let inner = fs::metadata(&below).expect("sub-cgroup").ino();
    assert_eq!(found(containers.lookup(inner, 0)).id, id);
    fs::remove_dir(&below).expect("sub-cgroup removed");

    // Another agent, without a scan: the first event of a process is enough.
    let mut late = new();
    assert_eq!(found(late.lookup(cgroup_id, pid)).id, id);
    assert_identity(answered(&mut late, cgroup_id).image.as_ref().expect("image"), &written);
    // By its name from the command line.
    let by_name = image_by_reference(&ImageRef::Containerd {
        socket: rig.address(),
        namespace: None,
        reference: written.reference.clone(),
    })
    .expect("image");
    assert_identity(&by_name, &written);
    let absent = ImageRef::Containerd { socket: rig.address(), namespace: None, reference: "absent".to_owned() };
    assert!(image_by_reference(&absent).expect_err("absent").to_string().contains("absent"));
}

#[test]
fn processes_outside_containers_are_the_hosts() {
    if !can_run() {
        return;
    }
    let mut containers = new();
    let own = std::process::id();
    let (_, cgroup_id) = cgroup_of(own);
    assert_eq!(containers.lookup(cgroup_id, own), Lookup::Host);
    // A name that looks like a container's is no evidence.
    let hex = format!("{own:064x}");
    for name in [format!("libpod-{hex}"), format!("docker-{hex}.scope"), hex.clone(), unique_name("plain")] {
        let directory = cgroup2().expect("cgroup2").join(&name);
        fs::create_dir(&directory).expect("cgroup");
        let id = fs::metadata(&directory).expect("cgroup").ino();
        containers.on_cgroup_mkdir(id, format!("/{name}").as_bytes(), own);
        let lookup = containers.lookup(id, own);
        fs::remove_dir(&directory).expect("cgroup removed");
        assert_eq!(lookup, Lookup::Host, "{name}");
        // It is gone, but still known for the events on their way.
        containers.on_cgroup_rmdir(id);
        assert_eq!(containers.lookup(id, own), Lookup::Host);
    }
    assert_eq!(containers.lookup(u64::MAX - 5, own), Lookup::Unknown);
    assert_eq!(containers.counters().cgroup_gone, 1);
}

#[test]
fn a_container_gone_before_its_events_are_read() {
    if !can_run() {
        return;
    }
    let directory = tempfile::tempdir().expect("directory");
    let (written, archive) = write_image("local.test/short:1", directory.path());
    let rig = Containerd::start().expect("containerd");
    rig.import(&archive).expect("import");
    // The parent cgroup comes with the first container; from then on new ones are seen in it.
    let first = rig.start_container(&written.reference, &unique_name("first"), &[]).expect("container");
    let parent = format!("/{}", rig.namespace());
    let parent_dir = cgroup2().expect("cgroup2").join(rig.namespace());
    let known: Vec<String> = names(&parent_dir);
    let config = ContainersConfig {
        containerd: vec![ContainerdEndpoint { socket: rig.address(), state: rig.state() }],
        ..ContainersConfig::default()
    };
    let mut containers = Containers::new(&config).expect("containers");
    let mut seen = 0;
    for _ in 0..10 {
        let id = unique_name("short");
        let mut run =
            rig.ctr().args(["run", "--rm", &written.reference, &id, "/bin/sleep", "0.05"]).spawn().expect("ctr");
        let made = loop {
            if let Some(name) = names(&parent_dir).into_iter().find(|n| *n == id && !known.contains(n)) {
                break Some(name);
            }
            if run.try_wait().expect("ctr").is_some() {
                break None;
            }
        };
        // A busy machine can keep this test from looking while the cgroup is there.
        let Some((made, Ok(cgroup))) = made.map(|made| (made.clone(), fs::metadata(parent_dir.join(made)))) else {
            drop(run.wait());
            continue;
        };
        seen += 1;
        let (path, cgroup_id) = (format!("{parent}/{made}"), cgroup.ino());
        containers.on_cgroup_mkdir(cgroup_id, path.as_bytes(), 0);
        assert!(run.wait().expect("ctr ends").success());
        containers.on_cgroup_rmdir(cgroup_id);
        assert!(!parent_dir.join(&made).exists(), "it is gone");
        // Its events come only now.
        let container = found(containers.lookup(cgroup_id, u32::MAX));
        assert_eq!((container.id.as_str(), container.runtime), (id.as_str(), Runtime::Containerd));
        assert_eq!(container.args, ["/bin/sleep", "0.05"]);
        assert_identity(answered(&mut containers, cgroup_id).image.as_ref().expect("image"), &written);
    }
    assert!(seen > 0, "no cgroup was ever seen");
    drop(first);
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().into_string().ok()).collect()
}

/// A runtime makes many events in the container's cgroup before it writes down the first process.
#[test]
fn the_first_process_is_known_however_many_events_came_before_it() {
    if !can_run() {
        return;
    }
    let directory = tempfile::tempdir().expect("directory");
    let (written, archive) = write_image("local.test/first:1", directory.path());
    let rig = Containerd::start().expect("containerd");
    rig.import(&archive).expect("import");
    let config = ContainersConfig {
        containerd: vec![ContainerdEndpoint { socket: rig.address(), state: rig.state() }],
        ..ContainersConfig::default()
    };
    let mut containers = Containers::new(&config).expect("containers");
    let running = rig.start_container(&written.reference, &unique_name("first"), &[]).expect("container");
    let pid = running.pid().expect("pid");
    let (path, cgroup_id) = cgroup_of(pid);
    // As it is before the first process: the bundle is there, and no more.
    let (file, aside) = (running.bundle().join("init.pid"), running.bundle().join("aside"));
    fs::rename(&file, &aside).expect("moved");
    containers.on_cgroup_mkdir(cgroup_id, path.as_bytes(), 0);
    for _ in 0..1000 {
        assert_eq!(found(containers.lookup(cgroup_id, 0)).init_pid, 0);
    }
    fs::rename(&aside, &file).expect("moved back");
    let deadline = Instant::now() + Duration::from_secs(20);
    while found(containers.lookup(cgroup_id, 0)).init_pid != pid {
        assert!(Instant::now() < deadline, "it is never found");
        std::thread::sleep(Duration::from_millis(5));
    }
    let shares = found(containers.lookup(cgroup_id, 0)).shares.expect("its namespaces");
    assert!(!shares.pid && !shares.ipc && shares.network != Some(true), "{shares:?}");
}

#[test]
fn an_id_used_again_is_another_container() {
    if !can_run() {
        return;
    }
    let directory = tempfile::tempdir().expect("directory");
    let (one, one_archive) = write_image("local.test/one:1", directory.path());
    let (two, two_archive) = write_image("local.test/two:1", directory.path());
    let rig = Containerd::start().expect("containerd");
    rig.import(&one_archive).expect("import");
    rig.import(&two_archive).expect("import");
    let id = unique_name("again");
    // Once with the event of the first cgroup's removal, once with that event lost.
    for told in [true, false] {
        let mut containers = new();
        let mut seen = Vec::new();
        for written in [&one, &two] {
            let running = rig.start_container(&written.reference, &id, &["/bin/sleep", "1000"]).expect("container");
            let pid = running.pid().expect("pid");
            let (path, cgroup_id) = cgroup_of(pid);
            containers.on_cgroup_mkdir(cgroup_id, path.as_bytes(), 0);
            found(containers.lookup(cgroup_id, pid));
            answered(&mut containers, cgroup_id);
            running.delete();
            if told {
                containers.on_cgroup_rmdir(cgroup_id);
            }
            seen.push((cgroup_id, written));
        }
        assert_ne!(seen[0].0, seen[1].0);
        for (cgroup_id, written) in seen {
            let container = found(containers.lookup(cgroup_id, 0));
            let image = container.image.as_ref().expect("image");
            assert_eq!(image.reference, written.reference, "told: {told}");
            assert_identity(image, written);
        }
    }
}

#[test]
fn a_pods_container_in_a_kubelets_cgroup() {
    if !can_run() {
        return;
    }
    let directory = tempfile::tempdir().expect("directory");
    let (written, archive) = write_image("local.test/pods:1", directory.path());
    let rig = Containerd::start().expect("containerd");
    rig.import(&archive).expect("import");
    let hex = format!("{:064x}", std::process::id());
    let path = format!("/{}/besteffort/podabc/{hex}", rig.namespace());
    let note = [
        ("io.kubernetes.cri.container-type", "container"),
        ("io.kubernetes.cri.container-name", "web"),
        ("io.kubernetes.cri.image-name", "local.test/pods:asked"),
        ("io.kubernetes.cri.sandbox-name", "web-0"),
        ("io.kubernetes.cri.sandbox-namespace", "shop"),
        ("io.kubernetes.cri.sandbox-uid", "abc"),
    ];
    let mut flags = vec!["--cgroup".to_owned(), path.clone(), "--privileged".to_owned()];
    flags.extend(note.iter().flat_map(|(k, v)| ["--annotation".to_owned(), format!("{k}={v}")]));
    flags.extend(["--label".to_owned(), "team=a".to_owned()]);
    let options = RunOptions { flags, mounts: vec![(directory.path().to_path_buf(), "/data".to_owned(), false)] };
    let running =
        rig.start_container_with(&written.reference, &hex, &["/bin/sleep", "1000"], &options).expect("container");
    let pid = running.pid().expect("pid");
    let (seen, cgroup_id) = cgroup_of(pid);
    assert_eq!(seen, path);

    let mut containers = new();
    let container = found(containers.lookup(cgroup_id, pid));
    assert_eq!((container.id.as_str(), container.short_id()), (hex.as_str(), &hex[..12]));
    assert_eq!(container.name, "web");
    let pod = container.pod.as_ref().expect("pod");
    assert_eq!((&*pod.name, &*pod.namespace, &*pod.uid), ("web-0", "shop", "abc"));
    assert!(container.privileged && !container.sandbox);
    let mount = container.mounts.iter().find(|m| m.destination == "/data").expect("mount");
    assert_eq!(mount.source, directory.path().display().to_string());
    assert_eq!(container.image.as_ref().map(|i| i.reference.as_str()), Some("local.test/pods:asked"));
    assert!(container.image_pending);
    let container = answered(&mut containers, cgroup_id);
    assert_eq!(container.name, "web", "the pod's name for it stays");
    assert!(container.labels.contains(&("team".to_owned(), "a".to_owned())), "{:?}", container.labels);
    assert_identity(container.image.as_ref().expect("image"), &written);
}

#[test]
fn a_moved_tag_does_not_change_what_runs() {
    if !can_run() {
        return;
    }
    let directory = tempfile::tempdir().expect("directory");
    let (old, old_archive) = write_image("local.test/moving:1", directory.path());
    let (new_image, new_archive) = write_image("local.test/moving:1", directory.path());
    assert_ne!(old.manifest_digest, new_image.manifest_digest);
    let rig = Containerd::start().expect("containerd");
    rig.import(&old_archive).expect("import");
    let id = unique_name("moved");
    let running = rig.start_container(&old.reference, &id, &["/bin/sleep", "1000"]).expect("container");
    let pid = running.pid().expect("pid");
    let (_, cgroup_id) = cgroup_of(pid);
    command::stdout(rig.ctr().args(["images", "tag", &old.reference, "local.test/kept:1"])).expect("tag");
    rig.import(&new_archive).expect("import");

    let mut containers = new();
    containers.scan();
    let container = answered(&mut containers, cgroup_id);
    let image = container.image.as_ref().expect("image");
    assert_eq!(image.reference, old.reference, "the name it was started with");
    assert_identity(image, &old);

    // Once no image of that content is left, there are no digests rather than those of the moved tag.
    command::stdout(rig.ctr().args(["images", "rm", "--sync", "local.test/kept:1"])).expect("rm");
    let mut later = new();
    later.scan();
    let container = answered(&mut later, cgroup_id);
    let image = container.image.as_ref().expect("image");
    assert_eq!(image.reference, old.reference);
    assert_eq!((&image.manifest_digest, &image.config_digest, &image.chain_id), (&None, &None, &None));
    assert_eq!(later.counters().chain_open, 1);
}

#[test]
fn a_hung_daemon_degrades_to_the_bundle_and_is_asked_again() {
    if !can_run() {
        return;
    }
    let directory = tempfile::tempdir().expect("directory");
    let (written, archive) = write_image("local.test/hung:1", directory.path());
    let rig = Containerd::start().expect("containerd");
    rig.import(&archive).expect("import");
    let id = unique_name("hung");
    let running = rig.start_container(&written.reference, &id, &["/bin/sleep", "1000"]).expect("container");
    let pid = running.pid().expect("pid");
    let (_, cgroup_id) = cgroup_of(pid);
    let daemon = rustix::process::Pid::from_raw(rig.pid() as i32).expect("pid");

    rustix::process::kill_process(daemon, rustix::process::Signal::STOP).expect("stopped");
    let config = ContainersConfig { api_timeout: Duration::from_millis(50), ..ContainersConfig::default() };
    let mut containers = Containers::new(&config).expect("containers");
    let container = found(containers.lookup(cgroup_id, pid));
    assert_eq!((container.id.as_str(), container.name.as_str()), (id.as_str(), id.as_str()));
    assert_overlay(&container);
    assert!(container.image_pending && container.image.is_none());
    let deadline = Instant::now() + Duration::from_secs(30);
    while containers.counters().api_timeout == 0 && Instant::now() < deadline {
        containers.poll_updates();
        std::thread::sleep(Duration::from_millis(5));
    }
    let counters: HashMap<_, _> = containers.counters().iter().collect();
    assert!(counters["api_timeout"] >= 1, "{counters:?}");
    assert_eq!(containers.pending(), 1);
    assert!(found(containers.lookup(cgroup_id, pid)).image_pending);

    rustix::process::kill_process(daemon, rustix::process::Signal::CONT).expect("continued");
    assert_identity(answered(&mut containers, cgroup_id).image.as_ref().expect("image"), &written);
}

#[test]
fn a_socket_that_comes_later() {
    if !can_run() {
        return;
    }
    let directory = tempfile::tempdir().expect("directory");
    let (written, archive) = write_image("local.test/later:1", directory.path());
    let rig = Containerd::start().expect("containerd");
    rig.import(&archive).expect("import");
    let running = rig.start_container(&written.reference, &unique_name("later"), &[]).expect("container");
    let pid = running.pid().expect("pid");
    let (_, cgroup_id) = cgroup_of(pid);
    let socket = directory.path().join("later.sock");
    let config = ContainersConfig {
        containerd: vec![ContainerdEndpoint { socket: socket.clone(), state: rig.state() }],
        ..ContainersConfig::default()
    };
    let mut containers = Containers::new(&config).expect("containers");
    assert_eq!(found(containers.lookup(cgroup_id, pid)).id, running.id());
    let deadline = Instant::now() + Duration::from_secs(30);
    while containers.counters().api_unreachable == 0 && Instant::now() < deadline {
        containers.poll_updates();
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(containers.counters().api_unreachable >= 1, "{:?}", containers.counters());
    assert_eq!(containers.pending(), 1);
    std::os::unix::fs::symlink(rig.address(), &socket).expect("symlink");
    assert_identity(answered(&mut containers, cgroup_id).image.as_ref().expect("image"), &written);
}

/// Ends a process that this test started, also when the test panics.
struct Ended(std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn a_daemon_that_is_restarted() {
    if !can_run() {
        return;
    }
    let directory = tempfile::tempdir().expect("directory");
    let (written, archive) = write_image("local.test/restart:1", directory.path());
    let rig = Containerd::start().expect("containerd");
    rig.import(&archive).expect("import");
    let one = rig.start_container(&written.reference, &unique_name("one"), &[]).expect("container");
    let (_, first) = cgroup_of(one.pid().expect("pid"));
    let mut containers = new();
    containers.lookup(first, one.pid().expect("pid"));
    answered(&mut containers, first);

    let two = rig.start_container(&written.reference, &unique_name("two"), &[]).expect("container");
    let pid = two.pid().expect("pid");
    let (_, second) = cgroup_of(pid);
    let daemon = rustix::process::Pid::from_raw(rig.pid() as i32).expect("pid");
    rustix::process::kill_process(daemon, rustix::process::Signal::KILL).expect("killed");
    // From the bundle alone: the daemon is dead when the container is first seen.
    let container = found(containers.lookup(second, pid));
    assert_eq!((container.id.as_str(), container.image_pending), (two.id(), true));
    let config = rig.address().with_file_name("config.toml");
    let daemon = Command::new("containerd").arg("--config").arg(config).stderr(Stdio::null()).spawn();
    let daemon = Ended(daemon.expect("containerd"));
    assert_identity(answered(&mut containers, second).image.as_ref().expect("image"), &written);
    assert_eq!(found(containers.lookup(first, 0)).id, one.id(), "what was known stays known");
    drop((one, two));
    drop(daemon);
}

#[test]
fn an_image_of_several_platforms() {
    if !can_run() {
        return;
    }
    let directory = tempfile::tempdir().expect("directory");
    let archive = directory.path().join("many.tar");
    let foreign = if cfg!(target_arch = "x86_64") { "arm64" } else { "amd64" };
    let written = image::Image::new("local.test/many:1")
        .layer(Layer::busybox(&["sh", "sleep"]).expect("busybox"))
        .layer(Layer::new().file("/etc/salt", *b"native", 0o644))
        .platform(foreign, vec![Layer::new().file("/etc/salt", *b"foreign", 0o644)])
        .entrypoint(&["/bin/sleep", "1000"])
        .write_archive(&archive)
        .expect("archive");
    assert!(written.index_digest.is_some());
    let rig = Containerd::start().expect("containerd");
    rig.import(&archive).expect("import");
    let running = rig.start_container(&written.reference, &unique_name("many"), &[]).expect("container");
    let pid = running.pid().expect("pid");
    let (_, cgroup_id) = cgroup_of(pid);
    let mut containers = new();
    containers.lookup(cgroup_id, pid);
    let container = answered(&mut containers, cgroup_id);
    let image = container.image.as_ref().expect("image");
    assert_identity(image, &written);
    assert_eq!(image.index_digest, written.index_digest);
    let reference = written.reference.clone();
    let by_name =
        ImageRef::Containerd { socket: rig.address(), namespace: Some(rig.namespace().to_owned()), reference };
    let by_name = image_by_reference(&by_name).expect("image");
    assert_identity(&by_name, &written);
    assert_eq!(by_name.index_digest, written.index_digest);
}

/// A cgroup made by the test, removed when it ends.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(path: &str) -> Self {
        let directory = cgroup2().expect("cgroup2").join(path.trim_start_matches('/'));
        fs::create_dir_all(&directory).expect("cgroup");
        Self(directory)
    }
    fn id(&self) -> u64 {
        fs::metadata(&self.0).expect("cgroup").ino()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        drop(fs::remove_dir(&self.0));
        // Its parent, if that was made for it.
        drop(self.0.parent().map(fs::remove_dir));
    }
}

/// Puts something in the place of a `config.json`, given what an honest one says.
type Write = fn(&Path, &str);

#[test]
fn bundles_that_lie_or_are_broken() {
    if !can_run() {
        return;
    }
    let json = |path: &str| format!(r#"{{"process":{{"args":["/x"]}},"linux":{{"cgroupsPath":"{path}"}}}}"#);
    let table: [(&str, Write, &str); 7] = [
        ("honest", |file, json| fs::write(file, json).expect("written"), "container identified"),
        ("broken", |file, json| fs::write(file, &json[..json.len() / 2]).expect("written"), "container bundle_invalid"),
        (
            "huge",
            |file, json| fs::write(file, format!("{json}{}", " ".repeat(5 << 20))).expect("written"),
            "container bundle_invalid",
        ),
        ("other", |file, json| fs::write(file, json.replace("/purser", "/other/purser")).expect("written"), "host"),
        (
            "foreign",
            |file, json| {
                fs::write(file, json).expect("written");
                std::os::unix::fs::chown(file, Some(1000), None).expect("chown");
            },
            "host bundle_untrusted",
        ),
        ("fifo", |file, _| assert!(Command::new("mkfifo").arg(file).status().expect("mkfifo").success()), "host"),
        ("folder", |file, _| fs::create_dir(file).expect("folder"), "host"),
    ];
    for (kind, write, expected) in table {
        let host = tempfile::tempdir().expect("directory");
        let (namespace, id) = (unique_name("purser"), format!("{kind}-1"));
        let path = format!("/{namespace}/{id}");
        let cgroup = Cgroup::new(&path);
        let bundle = host.path().join("run/containerd/io.containerd.runtime.v2.task").join(&namespace).join(&id);
        fs::create_dir_all(&bundle).expect("bundle");
        write(&bundle.join("config.json"), &json(&path));
        let config = ContainersConfig { host_root: host.path().to_path_buf(), ..ContainersConfig::default() };
        let mut containers = Containers::new(&config).expect("containers");
        containers.on_cgroup_mkdir(cgroup.id(), path.as_bytes(), 0);
        let lookup = containers.lookup(cgroup.id(), std::process::id());
        let counted: HashMap<_, _> = containers.counters().iter().collect();
        let mut expected = expected.split(' ');
        match (expected.next(), lookup) {
            (Some("container"), Lookup::Container(container)) => {
                assert_eq!((&container.id, &container.name), (&id, &id), "{kind}");
                assert_eq!(container.bundle.as_deref(), Some(bundle.as_path()));
            }
            (Some("host"), Lookup::Host) => {}
            (expected, lookup) => panic!("{kind}: {lookup:?} instead of {expected:?}"),
        }
        for reason in expected {
            assert!(counted[reason] > 0, "{kind}: {reason} in {counted:?}");
        }
    }
}

#[test]
fn podman_containers_by_their_monitor_and_storage() {
    if !can_run() {
        return;
    }
    let directory = tempfile::tempdir().expect("directory");
    let (written, archive) = write_image("local.test/pod:1", directory.path());
    let rig = Podman::new().expect("podman");
    let name = rig.load(&archive).expect("load");
    let own = unique_name("pod");
    let id = rig.start_container(&name, &own, &[]).expect("container");
    let pid = command::stdout(rig.podman().args(["inspect", "--format", "{{.State.Pid}}", &own])).expect("inspect");
    let pid: u32 = pid.trim().parse().expect("pid");
    let (path, cgroup_id) = cgroup_of(pid);

    // Neither the graph root nor the run root is configured: conmon's arguments tell.
    for scan in [true, false] {
        let mut containers = new();
        if scan {
            containers.scan();
        }
        let container = found(containers.lookup(cgroup_id, pid));
        assert_eq!((container.id.as_str(), container.runtime), (id.as_str(), Runtime::Podman));
        assert_eq!(container.name, own, "the name is known before the storage is asked");
        assert!(path.starts_with(container.cgroup_path.as_str()), "{path} {}", container.cgroup_path);
        assert_eq!(container.init_pid, pid);
        assert_overlay(&container);
        let container = answered(&mut containers, container.cgroup_id);
        let image = container.image.as_ref().expect("image");
        assert_eq!(image.reference, name);
        assert_identity(image, &written);
        assert_eq!(image.store, ImageStore::ContainersStorage(rig.root()));
        for layer in &image.layers {
            let split = rig.root().join("overlay-layers").join(format!("{}.tar-split.gz", layer.store_id));
            assert!(split.exists(), "{}", split.display());
        }
    }
    for reference in [name.as_str(), &written.config_digest["sha256:".len()..][..12]] {
        let image = ImageRef::Podman { root: rig.root(), reference: reference.to_owned() };
        assert_identity(&image_by_reference(&image).expect("image"), &written);
    }
}

#[test]
fn plain_runc_containers_have_no_image() {
    if !can_run() {
        return;
    }
    let busybox = xtask::rig::payload::busybox().expect("busybox");
    let rig = Runc::bundle(&[("bin/busybox", &busybox)], &["/bin/busybox", "sleep", "1000"]).expect("bundle");
    // In the foreground, with a state directory of its own: it is learned from runc's arguments.
    let mut run = rig.runc();
    run.args(["run", "--bundle"]).arg(rig.path()).arg(rig.id()).stdin(Stdio::null());
    let mut run = run.stdout(Stdio::null()).spawn().expect("runc");
    let pid = wait_for_state(&rig);
    let (path, cgroup_id) = cgroup_of(pid);

    let mut containers = new();
    let container = found(containers.lookup(cgroup_id, pid));
    assert_eq!((container.id.as_str(), container.name.as_str()), (rig.id(), rig.id()));
    assert_eq!((container.runtime, container.runtime.name()), (Runtime::Runc, "runc"));
    assert_eq!(container.cgroup_path, path);
    assert_eq!(container.args[0], "/bin/busybox");
    assert_eq!(container.rootfs.path, rig.rootfs());
    assert!(container.image.is_none() && !container.image_pending && container.pod.is_none());
    assert_eq!(container.init_pid, pid);

    // By its state directory alone, as an agent finds it that starts after a detached runc.
    let config = ContainersConfig { runc_roots: vec![rig.path().join("state")], ..ContainersConfig::default() };
    let mut configured = Containers::new(&config).expect("containers");
    configured.scan();
    assert_eq!(found(configured.lookup(cgroup_id, 1)).id, rig.id());

    drop(Command::new("kill").args(["-KILL", &pid.to_string()]).status());
    run.wait().expect("runc ends");
}

fn wait_for_state(rig: &Runc) -> u32 {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let state = rig.runc().args(["state", rig.id()]).output().expect("runc state");
        let text = String::from_utf8_lossy(&state.stdout).into_owned();
        if text.contains("\"running\"") {
            let pid = text.lines().find_map(|l| l.trim().strip_prefix("\"pid\": ")?.trim_end_matches(',').parse().ok());
            return pid.expect("pid");
        }
        assert!(Instant::now() < deadline, "runc does not start: {text}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
