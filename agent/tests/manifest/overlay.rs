//! Verdicts on files in a real overlay mount, and what a container may try against the agent that reads them.

use std::{
    fs,
    io::Write,
    os::{
        fd::AsRawFd,
        unix::{
            fs::{MetadataExt, PermissionsExt, symlink},
            process::CommandExt,
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::Receiver,
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use purser::{
    container::{Container, Rootfs, Runtime},
    event::{FileIdentity, Overlay},
    manifest::{
        Config, Digest, DiskCache, ExecFile, Judgement, LayerLimits, ManifestStore, Reason, Verdict, VerdictService,
        counters::Count, image_from_oci_layout,
    },
};

use crate::{
    image::{BUSYBOX, Compression, LayerTar, run, write_layout},
    missing,
};

/// A container's root file system: two layers and a writable one.
struct Fixture {
    directory: tempfile::TempDir,
    container: Arc<Container>,
    service: VerdictService,
    answers: Receiver<(u64, Judgement)>,
    ticket: u64,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("purser-overlay-").tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let busybox = fs::read(BUSYBOX).unwrap();
        let layers = [
            LayerTar::new()
                .dir("usr")
                .dir("usr/bin")
                .dir("tmp")
                .file("usr/bin/ls", b"ls")
                .file("usr/bin/cat", b"cat")
                .file("usr/bin/busybox", &busybox)
                .bytes(),
            LayerTar::new().file("usr/bin/app", b"app").bytes(),
        ];
        for (number, layer) in layers.iter().enumerate() {
            fs::create_dir(path(&format!("layer{number}"))).unwrap();
            tar::Archive::new(&layer[..]).unpack(path(&format!("layer{number}"))).unwrap();
        }
        for name in ["upper", "work", "merged"] {
            fs::create_dir(path(name)).unwrap();
        }
        let options =
            format!("lowerdir={0}/layer1:{0}/layer0,upperdir={0}/upper,workdir={0}/work", directory.path().display());
        run(Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options]).arg(path("merged")));
        write_layout(&path("layout"), &layers.map(|layer| (layer, Compression::Gzip)));
        let container = Arc::new(Container {
            id: "c".repeat(64),
            cgroup_id: 7,
            cgroup_path: "/test".into(),
            runtime: Runtime::Containerd,
            name: "test".into(),
            bundle: None,
            init_pid: 0,
            shares: None,
            created_ns: 0,
            privileged: false,
            args: vec![],
            mounts: vec![],
            pod: None,
            sandbox: false,
            rootfs: Rootfs {
                path: path("merged"),
                lower: vec![path("layer1"), path("layer0")],
                upper: Some(path("upper")),
            },
            image: Some(image_from_oci_layout(&path("layout"), None).unwrap()),
            image_pending: false,
            labels: Vec::new(),
        });
        let cache = DiskCache::open(&path("cache"), 1 << 20).unwrap();
        let store = ManifestStore::new(Some(cache), LayerLimits::default());
        let config = Config::default();
        let (service, answers) = VerdictService::start(config, store, Box::new(|| ())).unwrap();
        service.prepare(&container);
        Self { directory, container, service, answers, ticket: 0 }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn merged(&self, path: &str) -> PathBuf {
        self.path("merged").join(path.trim_start_matches('/'))
    }

    /// What the kernel would say of a file at `path` now.
    fn identity(&self, path: &str) -> FileIdentity {
        let relative = path.trim_start_matches('/');
        let upper = self.path("upper").join(relative);
        let lower = [1_u16, 2]
            .into_iter()
            .find(|layer| self.container.rootfs.lower[usize::from(layer - 1)].join(relative).exists());
        let in_upper = upper.symlink_metadata().is_ok();
        let real_path = match (in_upper, lower) {
            (true, _) => upper,
            (false, Some(layer)) => self.container.rootfs.lower[usize::from(layer - 1)].join(relative),
            (false, None) => panic!("{path} is in no layer"),
        };
        let real = identity(&real_path);
        let overlay = Overlay {
            upper: in_upper,
            has_lower: lower.is_some(),
            layer: if in_upper { 0 } else { lower.unwrap() },
            real_dev: real.dev,
            real_ino: real.ino,
            real_generation: 0,
            real_size: real.size,
            real_ctime_ns: real.ctime_ns,
            real_version: 0,
        };
        FileIdentity { on_rootfs: true, overlay: Some(overlay), magic: 0x794C_7630, ..identity(&self.merged(path)) }
    }

    fn exec(&self, path: &str) -> ExecFile {
        exec(self.identity(path), path, 0)
    }

    fn judge(&mut self, file: ExecFile) -> Judgement {
        self.ticket += 1;
        if let Some(judgement) = self.service.request(self.ticket, &self.container, file) {
            return judgement;
        }
        let (ticket, judgement) = self.answers.recv_timeout(Duration::from_mins(1)).unwrap();
        assert_eq!(ticket, self.ticket);
        judgement
    }

    fn verdict(&mut self, file: ExecFile) -> (Verdict, Reason) {
        let judgement = self.judge(file);
        (judgement.verdict, judgement.reason)
    }

    /// Writes through the overlay, and lets the clock go on so that the change is settled.
    fn write(&self, path: &str, content: &[u8]) {
        fs::write(self.merged(path), content).unwrap();
        fs::set_permissions(self.merged(path), fs::Permissions::from_mode(0o755)).unwrap();
        settle();
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path("merged")).status();
    }
}

fn settle() {
    thread::sleep(Duration::from_millis(40));
}

fn identity(path: &Path) -> FileIdentity {
    let metadata = fs::metadata(path).unwrap();
    let (major, minor) = (rustix::fs::major(metadata.dev()), rustix::fs::minor(metadata.dev()));
    FileIdentity {
        dev: major << 20 | minor,
        ino: metadata.ino(),
        mode: metadata.mode(),
        uid: metadata.uid(),
        gid: metadata.gid(),
        nlink: metadata.nlink() as u32,
        size: metadata.len(),
        ctime_ns: metadata.ctime() * 1_000_000_000 + metadata.ctime_nsec(),
        ..FileIdentity::default()
    }
}

fn exec(identity: FileIdentity, path: &str, tgid: u32) -> ExecFile {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    ExecFile {
        identity,
        path: Bytes::copy_from_slice(path.as_bytes()),
        fs_path: Bytes::new(),
        tgid,
        in_host_mount_namespace: false,
        boot_ns: now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64,
    }
}

/// A process, ended with the test.
struct Running(Child);

impl Running {
    fn sleep(program: &Path) -> Self {
        Self(Command::new(program).arg0("sleep").arg("600").spawn().unwrap())
    }

    fn exec(&self, path: &str, memfd: bool) -> ExecFile {
        let identity = identity(Path::new(&format!("/proc/{}/exe", self.0.id())));
        exec(FileIdentity { memfd, ..identity }, path, self.0.id())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn verdicts_in_a_real_overlay() {
    if missing(&["mount", "busybox"]) {
        return;
    }
    let mut fixture = Fixture::new();
    for path in ["/usr/bin/ls", "/usr/bin/app", "/usr/bin/busybox"] {
        let file = fixture.exec(path);
        assert_eq!(fixture.verdict(file), (Verdict::Expected, Reason::Listed), "{path}");
    }
    // The second time nothing is read.
    let hashed = fixture.service.counters().get(Count::Hashed);
    let again = fixture.exec("/usr/bin/ls");
    let judgement = fixture.service.request(99, &fixture.container, again).expect("an immediate answer");
    assert_eq!((judgement.verdict, judgement.sha256), (Verdict::Expected, Some(Digest::of(b"ls"))));
    assert_eq!(fixture.service.counters().get(Count::Hashed), hashed);

    // A change of mode alone copies up; the bytes are still the image's.
    fs::set_permissions(fixture.merged("/usr/bin/cat"), fs::Permissions::from_mode(0o700)).unwrap();
    settle();
    let file = fixture.exec("/usr/bin/cat");
    let judgement = fixture.judge(file);
    assert_eq!((judgement.verdict, judgement.copied_up, judgement.upper), (Verdict::Expected, true, true));
    fs::set_permissions(fixture.merged("/usr/bin/cat"), fs::Permissions::from_mode(0o4755)).unwrap();
    settle();
    let file = fixture.exec("/usr/bin/cat");
    assert_eq!(fixture.verdict(file), (Verdict::Escalated, Reason::Setuid));
    fs::set_permissions(fixture.merged("/usr/bin/cat"), fs::Permissions::from_mode(0o755)).unwrap();
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(fixture.merged("/usr/bin/cat"), c"security.capability", &capability, flags).unwrap();
    settle();
    let file = fixture.exec("/usr/bin/cat");
    assert_eq!(fixture.verdict(file), (Verdict::Escalated, Reason::FileCapabilities));

    fixture.write("/usr/bin/ls", b"LS");
    let file = fixture.exec("/usr/bin/ls");
    let judgement = fixture.judge(file);
    assert_eq!((judgement.verdict, judgement.sha256), (Verdict::Modified, Some(Digest::of(b"LS"))));
    fixture.write("/tmp/tool", b"app");
    let file = fixture.exec("/tmp/tool");
    let judgement = fixture.judge(file);
    assert_eq!(judgement.verdict, Verdict::Relocated);
    assert_eq!(judgement.listed_path.as_deref(), Some(&b"/usr/bin/app"[..]));
    fixture.write("/tmp/new", b"never seen");
    let file = fixture.exec("/tmp/new");
    assert_eq!(fixture.verdict(file), (Verdict::Unlisted, Reason::UnknownDigest));

    // A bind mount of a new file over a listed path does not make it that path.
    let mut file = fixture.exec("/tmp/new");
    file.fs_path = std::mem::replace(&mut file.path, Bytes::from_static(b"/usr/bin/ls"));
    assert_eq!(fixture.verdict(file), (Verdict::Unlisted, Reason::UnknownDigest));

    let mut file = fixture.exec("/tmp/new");
    file.in_host_mount_namespace = true;
    assert_eq!(fixture.verdict(file), (Verdict::Host, Reason::HostMountNamespace));
}

#[test]
fn verdicts_outside_the_root_file_system() {
    if missing(&["mount", "busybox"]) {
        return;
    }
    let mut fixture = Fixture::new();
    let busybox = fs::read(BUSYBOX).unwrap();
    let unknown = [&busybox[..], b"appended"].concat();
    for (content, verdict, verdict_memfd) in
        [(&busybox, Verdict::Relocated, Verdict::Relocated), (&unknown, Verdict::Volume, Verdict::Fileless)]
    {
        let program = fixture.path("program");
        fs::write(&program, content).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        settle();
        let running = Running::sleep(&program);
        let judgement = fixture.judge(running.exec("/data/program", false));
        assert_eq!((judgement.verdict, judgement.sha256), (verdict, Some(Digest::of(content))));
        drop(running);
        fs::remove_file(&program).unwrap();

        let memfd = rustix::fs::memfd_create("x", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let mut file = fs::File::from(memfd);
        file.write_all(content).unwrap();
        settle();
        let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        let running = Running::sleep(Path::new(&path));
        // The child runs the memfd as soon as spawn returned: a failed exec would have been reported by it.
        drop(file);
        let judgement = fixture.judge(running.exec("/memfd:x", true));
        assert_eq!((judgement.verdict, judgement.sha256), (verdict_memfd, Some(Digest::of(content))));
    }
    // A process that is gone takes a file on a volume with it; the name may stand for anything by now.
    let gone = exec(FileIdentity { nlink: 1, ..identity(Path::new(BUSYBOX)) }, "/none/such", 0);
    assert_eq!(fixture.verdict(gone), (Verdict::Unverifiable, Reason::Gone));
    for magic in [0x6573_5546, 0x6969] {
        let remote = FileIdentity { magic, ..identity(Path::new(BUSYBOX)) };
        assert_eq!(fixture.verdict(exec(remote, BUSYBOX, 0)), (Verdict::Unverifiable, Reason::RemoteFilesystem));
    }
}

#[test]
fn a_container_cannot_make_the_agent_read_something_else() {
    if missing(&["mount"]) {
        return;
    }
    let mut fixture = Fixture::new();
    fixture.write("/tmp/victim", b"ran");
    let event = fixture.exec("/tmp/victim");

    // Replaced after the exec by another file, a FIFO that nobody writes to, a device, and a link out of the root.
    let merged = fixture.merged("/tmp/victim");
    let replace = |make: &dyn Fn(&Path)| {
        fs::remove_file(&merged).unwrap();
        make(&merged);
    };
    let (gone, raced) = ((Verdict::Unverifiable, Reason::Gone), (Verdict::Unverifiable, Reason::Raced));
    replace(&|path| fs::write(path, b"app").unwrap());
    let found = fixture.verdict(event.clone());
    // The inode number may have been taken again at once.
    assert!(found == gone || found == raced, "{found:?}");
    replace(&|path| {
        run(Command::new("mkfifo").arg(path));
    });
    assert_eq!(fixture.verdict(event.clone()), gone);
    replace(&|path| {
        run(Command::new("mknod").arg(path).args(["c", "5", "1"]));
    });
    assert_eq!(fixture.verdict(event.clone()), gone);
    let outside = fixture.path("outside");
    fs::write(&outside, b"app").unwrap();
    replace(&|path| symlink(&outside, path).unwrap());
    assert_eq!(fixture.verdict(event.clone()), gone);
    fs::remove_file(&merged).unwrap();
    assert_eq!(fixture.verdict(event), gone);

    // A directory on the way becomes a link to where the same inode lies: still not followed.
    fs::create_dir(fixture.merged("/tmp/a")).unwrap();
    fixture.write("/tmp/a/x", b"x");
    let event = fixture.exec("/tmp/a/x");
    fs::rename(fixture.merged("/tmp/a"), fixture.merged("/tmp/b")).unwrap();
    symlink("b", fixture.merged("/tmp/a")).unwrap();
    assert_eq!(fixture.verdict(event), gone);

    // Written after the exec.
    fixture.write("/usr/bin/app", b"evil");
    let event = fixture.exec("/usr/bin/app");
    fixture.write("/usr/bin/app", b"app!");
    assert_eq!(fixture.verdict(event), raced);
}

#[test]
fn bytes_just_written_never_acquit() {
    if missing(&["mount"]) {
        return;
    }
    let mut fixture = Fixture::new();
    // The listed bytes at the listed path, but written within the same tick as the exec, by whom and over what nobody
    // can say once the process is gone.
    fs::write(fixture.merged("/usr/bin/app"), b"app").unwrap();
    let file = fixture.exec("/usr/bin/app");
    let mut fresh = file.clone();
    let offset = |clock| {
        let time = rustix::time::clock_gettime(clock);
        time.tv_sec * 1_000_000_000 + time.tv_nsec
    };
    let to_boot = offset(rustix::time::ClockId::Boottime) - offset(rustix::time::ClockId::Realtime);
    fresh.boot_ns = (file.identity.overlay.unwrap().real_ctime_ns + to_boot + 1_000_000) as u64;
    assert_eq!(fixture.verdict(fresh.clone()), (Verdict::Unverifiable, Reason::Raced));
    let mut later = fresh;
    later.boot_ns += 1_000_000_000;
    assert_eq!(fixture.verdict(later), (Verdict::Expected, Reason::Listed));
}

#[test]
fn a_swap_during_hashing_never_gives_anothers_digest() {
    if missing(&["mount"]) {
        return;
    }
    let mut fixture = Fixture::new();
    let evil = vec![0xEE; 3 << 20];
    let good = vec![0x11; 3 << 20];
    fixture.write("/tmp/x", &evil);
    fixture.write("/tmp/other", &good);
    let event = fixture.exec("/tmp/x");
    let stop = Arc::new(AtomicBool::new(false));
    let swapper = {
        let (stop, x, other) = (Arc::clone(&stop), fixture.merged("/tmp/x"), fixture.merged("/tmp/other"));
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(rustix::fs::CWD, &x, rustix::fs::CWD, &other, flags).unwrap();
            }
        })
    };
    for round in 0..60 {
        // Another size of the event each time would be another file; another generation is another cache key.
        let mut event = event.clone();
        event.identity.overlay.as_mut().unwrap().real_generation = round;
        let judgement = fixture.judge(event);
        if judgement.verdict != Verdict::Unverifiable {
            assert_eq!(judgement.sha256, Some(Digest::of(&evil)));
        }
    }
    stop.store(true, Ordering::Relaxed);
    swapper.join().unwrap();

    // The same file written while it is read.
    fixture.write("/tmp/y", &evil);
    let event = fixture.exec("/tmp/y");
    let path = fixture.merged("/tmp/y");
    let writer = thread::spawn(move || fs::write(path, &good).unwrap());
    let judgement = fixture.judge(event);
    writer.join().unwrap();
    assert!(judgement.verdict == Verdict::Unverifiable || judgement.sha256 == Some(Digest::of(&evil)), "{judgement:?}");
}

#[test]
fn another_images_file_is_foreign_and_the_cache_serves_the_next_start() {
    if missing(&["mount"]) {
        return;
    }
    let mut fixture = Fixture::new();
    write_layout(&fixture.path("init"), &[(LayerTar::new().file("bin/init", b"init tool").bytes(), Compression::Gzip)]);
    let image = image_from_oci_layout(&fixture.path("init"), None).unwrap();
    let chain: Digest = image.chain_id.as_deref().unwrap().parse().unwrap();
    let other = Arc::new(Container { id: "d".repeat(64), image: Some(image), ..(*fixture.container).clone() });
    fixture.service.prepare(&other);
    while fixture.service.manifest(&chain).is_none() {
        thread::sleep(Duration::from_millis(5));
    }
    fixture.write("/tmp/tool", b"init tool");
    let file = fixture.exec("/tmp/tool");
    assert_eq!(fixture.verdict(file), (Verdict::Foreign, Reason::OtherImage));

    let cache = DiskCache::open(&fixture.path("cache"), 1 << 20).unwrap();
    let store = ManifestStore::new(Some(cache), LayerLimits::default());
    let config = Config::default();
    let (service, _answers) = VerdictService::start(config, store, Box::new(|| ())).unwrap();
    fs::remove_dir_all(fixture.path("init/blobs")).unwrap();
    service.prepare(&other);
    while service.manifest(&chain).is_none() {
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!((service.counters().get(Count::DiskHit), service.counters().get(Count::BuiltFromLayers)), (1, 0));
}
