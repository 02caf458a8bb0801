//! The service with a source of manifests that answers when told to.

use bytes::Bytes;

use super::{
    super::{
        judge::Verdict,
        model::{Header, tests as fixtures},
    },
    *,
};
use crate::{
    container::{Image, Rootfs, Runtime},
    event::FileIdentity,
};

/// Answers each build with what the test sends.
struct Fake(Mutex<mpsc::Receiver<Result<Manifest, Reason>>>);

impl ManifestSource for Fake {
    fn manifest(&self, _: &Container, _: &Counters, cancelled: &AtomicBool) -> Result<Manifest, Reason> {
        loop {
            let answer = self.0.lock().unwrap().recv_timeout(Duration::from_millis(5));
            match answer {
                Ok(Ok(manifest)) if manifest.is_empty() => panic!("a bug in a parser"),
                Ok(answer) => return answer,
                Err(_) if cancelled.load(Ordering::Relaxed) => return Err(Reason::BuildFailed),
                Err(_) => {}
            }
        }
    }
}

struct Fixture {
    service: VerdictService,
    answers: mpsc::Receiver<(u64, Judgement)>,
    builds: mpsc::Sender<Result<Manifest, Reason>>,
    wakes: Arc<Mutex<usize>>,
    directory: tempfile::TempDir,
}

fn start(config: Config) -> Fixture {
    let (builds, receiver) = mpsc::channel();
    let wakes = Arc::new(Mutex::new(0));
    let counter = Arc::clone(&wakes);
    let wake = Box::new(move || *counter.lock().unwrap() += 1);
    let (service, answers) = VerdictService::start(config, Fake(Mutex::new(receiver)), wake).unwrap();
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("bin")).unwrap();
    Fixture { service, answers, builds, wakes, directory }
}

fn image(chain: &[u8]) -> Image {
    Image { chain_id: Some(Digest::of(chain).to_string()), ..Image::default() }
}

impl Fixture {
    fn container(&self, image: Option<Image>, image_pending: bool) -> Arc<Container> {
        Arc::new(Container {
            id: "c".into(),
            cgroup_id: 7,
            cgroup_path: String::new(),
            runtime: Runtime::Runc,
            name: "c".into(),
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
                path: self.directory.path().into(),
                lower: vec![self.directory.path().into()],
                upper: None,
            },
            image,
            image_pending,
            labels: Vec::new(),
        })
    }

    /// A file of a lower layer.
    fn exec(&self, name: &str, content: &[u8]) -> ExecFile {
        use std::os::unix::fs::MetadataExt;
        let path = self.directory.path().join("bin").join(name);
        if !path.exists() {
            std::fs::write(&path, content).unwrap();
        }
        let metadata = std::fs::metadata(path).unwrap();
        let overlay = crate::event::Overlay {
            layer: 1,
            has_lower: true,
            real_dev: rustix::fs::major(metadata.dev()) << 20 | rustix::fs::minor(metadata.dev()),
            real_ino: metadata.ino(),
            real_size: metadata.len(),
            real_ctime_ns: metadata.ctime() * 1_000_000_000 + metadata.ctime_nsec(),
            ..crate::event::Overlay::default()
        };
        let identity = FileIdentity {
            mode: 0o100_755,
            nlink: 1,
            on_rootfs: true,
            overlay: Some(overlay),
            ..FileIdentity::default()
        };
        ExecFile {
            identity,
            path: Bytes::from(format!("/bin/{name}")),
            fs_path: Bytes::new(),
            tgid: 0,
            in_host_mount_namespace: false,
            boot_ns: 0,
        }
    }

    fn answer(&self) -> (u64, Verdict, Reason) {
        let (ticket, judgement) = self.answers.recv_timeout(Duration::from_mins(1)).unwrap();
        (ticket, judgement.verdict, judgement.reason)
    }
}

fn manifest(chain: &[u8]) -> Manifest {
    let header = Header { chain_id: Digest::of(chain), ..fixtures::header() };
    Manifest::new(header, [(b"/bin/ls".to_vec(), fixtures::file(b"ls"))], []).unwrap()
}

#[test]
fn one_build_serves_all_who_wait_and_all_who_come() {
    let fixture = start(Config::default());
    let container = fixture.container(Some(image(b"1")), false);
    let other = Arc::new(Container { id: "other".into(), cgroup_id: 8, ..(*container).clone() });
    fixture.service.prepare(&container);
    fixture.service.prepare(&other);
    let file = fixture.exec("ls", b"ls");
    assert_eq!(fixture.service.request(1, &container, file.clone()), None);
    assert_eq!(fixture.service.request(2, &other, file.clone()), None);
    assert!(fixture.answers.recv_timeout(Duration::from_millis(50)).is_err(), "nothing is known yet");
    fixture.builds.send(Ok(manifest(b"1"))).unwrap();
    let mut answered = [fixture.answer(), fixture.answer()];
    answered.sort_by_key(|answer| answer.0);
    assert_eq!(answered, [(1, Verdict::Expected, Reason::Listed), (2, Verdict::Expected, Reason::Listed)]);
    assert_eq!((fixture.service.pending(), *fixture.wakes.lock().unwrap()), (0, 2));
    let third = fixture.service.request(3, &other, file).expect("an immediate answer");
    assert_eq!(third.verdict, Verdict::Expected);
    let counters = fixture.service.counters();
    assert_eq!((counters.verdict(Verdict::Expected), counters.get(Count::Immediate)), (3, 1));
    assert!(counters.get(Count::Hashed) <= 2);
}

#[test]
fn waits_for_the_image_and_not_for_ever() {
    let fixture = start(Config { pending_timeout: Duration::from_millis(300), ..Config::default() });
    let pending = fixture.container(None, true);
    assert_eq!(fixture.service.request(1, &pending, fixture.exec("ls", b"ls")), None);
    assert_eq!(fixture.answer(), (1, Verdict::Unverifiable, Reason::Pending));
    let losses: Vec<_> = fixture.service.counters().losses().filter(|(_, count)| *count > 0).collect();
    assert_eq!((losses, fixture.service.pending()), (vec![(HashFailure::Pending, 1)], 0));

    let fixture = start(Config::default());
    let pending = fixture.container(None, true);
    assert_eq!(fixture.service.request(2, &pending, fixture.exec("ls", b"ls")), None);
    fixture.builds.send(Ok(manifest(b"1"))).unwrap();
    fixture.service.container_updated(&fixture.container(Some(image(b"1")), false));
    assert_eq!(fixture.answer(), (2, Verdict::Expected, Reason::Listed));
    assert_eq!(fixture.service.request(3, &pending, fixture.exec("new", b"new")), None);
    fixture.service.container_updated(&fixture.container(None, false));
    assert_eq!(fixture.answer(), (3, Verdict::Unattested, Reason::NoImage));
    assert_eq!(fixture.service.pending(), 0);
}

#[test]
fn what_needs_no_digest_is_answered_at_once() {
    let fixture = start(Config::default());
    let file = fixture.exec("ls", b"ls");
    let host = ExecFile { in_host_mount_namespace: true, ..file.clone() };
    let remote = ExecFile { identity: FileIdentity { magic: 0x6573_5546, ..file.identity }, ..file.clone() };
    let memfd = ExecFile {
        identity: FileIdentity { memfd: true, overlay: None, on_rootfs: false, ..file.identity },
        ..file.clone()
    };
    let mut large = file.clone();
    large.identity.overlay.as_mut().unwrap().real_size = 1 << 40;
    let (none, building) = (fixture.container(None, false), fixture.container(Some(image(b"1")), false));
    let open = fixture.container(Some(Image::default()), false);
    for (container, file, verdict, reason) in [
        (&none, &file, Verdict::Unattested, Reason::NoImage),
        (&open, &file, Verdict::Unattested, Reason::ChainOpen),
        (&none, &memfd, Verdict::Fileless, Reason::Memfd),
        (&none, &host, Verdict::Host, Reason::HostMountNamespace),
        (&building, &host, Verdict::Host, Reason::HostMountNamespace),
        (&building, &remote, Verdict::Unverifiable, Reason::RemoteFilesystem),
        (&building, &large, Verdict::Unverifiable, Reason::TooLarge),
    ] {
        let judgement = fixture.service.request(1, container, file.clone()).expect("an immediate answer");
        assert_eq!((judgement.verdict, judgement.reason), (verdict, reason));
    }
    assert_eq!(fixture.service.counters().get(Count::Hashed), 0);
}

#[test]
fn what_does_not_fit_is_answered_and_counted() {
    let fixture = start(Config { queue: 3, queue_per_container: 2, ..Config::default() });
    let container = fixture.container(Some(image(b"1")), false);
    let other = Arc::new(Container { cgroup_id: 8, ..(*container).clone() });
    let file = fixture.exec("ls", b"ls");
    for (ticket, container, accepted) in
        [(1, &container, true), (2, &container, true), (3, &container, false), (4, &other, true), (5, &other, false)]
    {
        let answer = fixture.service.request(ticket, container, file.clone());
        let expected = (!accepted).then_some((Verdict::Unverifiable, Reason::QueueFull));
        assert_eq!(answer.map(|judgement| (judgement.verdict, judgement.reason)), expected, "{ticket}");
    }
    fixture.builds.send(Ok(manifest(b"1"))).unwrap();
    let mut tickets = [fixture.answer().0, fixture.answer().0, fixture.answer().0];
    tickets.sort_unstable();
    assert_eq!(tickets, [1, 2, 4]);
    assert!(fixture.service.request(6, &container, file).is_some());
    assert_eq!(fixture.service.counters().losses().find(|(_, count)| *count > 0), Some((HashFailure::QueueFull, 2)));
}

#[test]
fn a_failed_build_is_unattested_and_tried_again_later() {
    let fixture = start(Config { retry_after: Duration::ZERO, ..Config::default() });
    let container = fixture.container(Some(image(b"1")), false);
    let file = fixture.exec("ls", b"ls");
    // With the digest known a request waits for the build at once, and for nothing else.
    fixture.service.shared.hasher.hash(&container, &file, None, &mut Vec::new()).unwrap();
    let empty = Manifest::new(fixtures::header(), [], []).unwrap();
    for (ticket, build, verdict, reason) in [
        (1, Err(Reason::NoLayers), Verdict::Unattested, Reason::NoLayers),
        // It panics on this one.
        (2, Ok(empty), Verdict::Unattested, Reason::BuildFailed),
        (3, Ok(manifest(b"1")), Verdict::Expected, Reason::Listed),
    ] {
        assert_eq!(fixture.service.request(ticket, &container, file.clone()), None);
        fixture.builds.send(build).unwrap();
        assert_eq!(fixture.answer(), (ticket, verdict, reason));
    }
    assert_eq!(fixture.service.counters().get(Count::Panicked), 1);

    let patient = start(Config::default());
    patient.builds.send(Err(Reason::NoLayers)).unwrap();
    let file = patient.exec("ls", b"ls");
    let container = patient.container(Some(image(b"1")), false);
    assert_eq!(patient.service.request(1, &container, file.clone()), None);
    assert_eq!(patient.answer(), (1, Verdict::Unattested, Reason::NoLayers));
    assert!(patient.service.request(2, &container, file).is_some());
}

#[test]
fn manifests_stay_within_their_memory() {
    let fixture = start(Config { manifest_bytes: 2 * manifest(b"1").memory(), ..Config::default() });
    for number in 0..10_u8 {
        fixture.builds.send(Ok(manifest(&[number]))).unwrap();
        fixture.service.prepare(&fixture.container(Some(image(&[number])), false));
        while fixture.service.manifest(&Digest::of(&[number])).is_none() {
            thread::sleep(Duration::from_millis(1));
        }
    }
    let kept: Vec<u8> = (0..10).filter(|number| fixture.service.manifest(&Digest::of(&[*number])).is_some()).collect();
    assert_eq!(kept, [8, 9]);
}

#[test]
fn a_wait_ends_although_there_is_always_a_file_to_hash() {
    let fixture = start(Config::default());
    let (service, now) = (&fixture.service.shared, Instant::now());
    let request = |ticket, deadline| Request {
        ticket,
        container: fixture.container(None, true),
        file: fixture.exec("ls", b"ls"),
        held: None,
        digest: None,
        deadline,
    };
    // The hasher's own thread has looked, found nothing, and sleeps until it is told of something.
    while service.state().swept.is_none() {
        thread::sleep(Duration::from_millis(1));
    }
    {
        let mut state = service.state();
        state.swept = None;
        state.pending = 2;
        state.unidentified.insert("c".to_owned(), vec![request(1, now)]);
        state.to_hash.push_back(request(2, now + Duration::from_mins(1)));
    }
    // It is told of nothing: this is what it would do.
    assert_eq!(service.next_hash().map(|request| request.ticket), Some(2));
    assert_eq!(fixture.answer(), (1, Verdict::Unverifiable, Reason::Pending));
}
