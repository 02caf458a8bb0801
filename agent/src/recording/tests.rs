//! What was recorded is replayed; what is damaged, cut, foreign or hostile is an error that says where.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::prelude::*;
use purser_rules::RuleMatching;
use purser_rules::format::Clock;

use super::entry::{Asked, Later, Name, Place};
use super::format::{self, FRAME_HEADER, HEADER};
use super::replay::{Choice, Replay, replay};
use super::*;
use crate::active::ActiveRules;
use crate::alert::Format;
use crate::config::Config;
use crate::container::Container;
use crate::decode::tests::{exec_record, open_record};
use crate::manifest::judge::{FileDigest, ManifestState, Subject, judge};
use crate::manifest::model::{Coverage, Header, LayerDigests, Source};
use crate::manifest::{Digest, Judgement, Manifest, Verdict};
use crate::metrics::Metrics;
use crate::pipeline::Pipeline;
use crate::process::User;
use crate::reload::{self, files};
use crate::sample::{Fake, container};
use crate::tally::Tally;
use crate::throttle::Throttle;

const RULES: &str = r#"
- rule: Open
  desc: x
  condition: evt.type = openat
  output: "%evt.num %evt.time %fd.nameraw %user.name %group.name %container.name %container.identity %proc.exepath %evt.deltatime"
  priority: NOTICE
- rule: Exec
  desc: x
  condition: evt.type = execve and manifest.verdict != host
  output: "%proc.exepath %manifest.verdict %manifest.source %manifest.digest %proc.exe.layer %user.loginname %container.id"
  priority: WARNING
"#;
const CONFIG: &str = "rule_matching: all\njson_output: true\nhold: {max_events: 3, max_time: 2s}\n\
                      throttle: {rate: {alerts: 2, window: 3s, key: [proc.pid]}}";

#[derive(Debug, Clone)]
enum Step {
    /// Process, cgroup.
    Exec(u32, u64),
    Open(u32, u64),
    Wait(u64),
    /// Whether the image of a cgroup's container is known.
    Container(u64, bool),
    Gone(u64),
    User(u32, u8),
    AtOnce(bool),
    /// Answers every question after so many.
    Verdicts(usize),
    Clock(i32),
    Raise,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1..5_u32, 1..4_u64).prop_map(|(tgid, cgroup)| Step::Exec(tgid, cgroup)),
        6 => (1..5_u32, 1..4_u64).prop_map(|(tgid, cgroup)| Step::Open(tgid, cgroup)),
        6 => (0..3000_u64).prop_map(Step::Wait),
        2 => (1..4_u64, any::<bool>()).prop_map(|(cgroup, known)| Step::Container(cgroup, known)),
        1 => (1..4_u64).prop_map(Step::Gone),
        2 => (0..2_u32, any::<u8>()).prop_map(|(uid, name)| Step::User(uid, name)),
        1 => any::<bool>().prop_map(Step::AtOnce),
        2 => (0..3_usize).prop_map(Step::Verdicts),
        1 => (-12..13_i32).prop_map(|hours| Step::Clock(hours * 3600)),
        1 => Just(Step::Raise),
    ];
    prop::collection::vec(step, 0..60)
}

fn judgement(verdict: Verdict, size: u64) -> Judgement {
    let state = ManifestState::Ready(Arc::new(manifest()));
    let identity = crate::event::FileIdentity { size, on_rootfs: true, ..Default::default() };
    let digest = Ok(FileDigest { digest: Digest::default(), capabilities: None, settled: true });
    let subject = Subject { identity: &identity, rootfs_path: None, in_host_mount_namespace: false, digest };
    Judgement { verdict, ..judge(&state, &subject, |_| None) }
}

fn manifest() -> Manifest {
    let header = Header {
        reference: "x:1".to_owned(),
        chain_id: Digest([1; 32]),
        manifest_digest: Some(Digest([2; 32])),
        config_digest: None,
        layers: vec![LayerDigests { digest: None, diff_id: Digest([3; 32]) }],
        entrypoint: Vec::new(),
        cmd: Vec::new(),
        search_path: None,
        coverage: Coverage::All,
        source: Source::Layers,
        ambiguities: Vec::new(),
    };
    Manifest::new(header, [], []).expect("small")
}

fn config(text: &str) -> Config {
    Config::parse(Path::new("test"), text).expect("valid")
}

fn start(config: &Config, everything: bool) -> Start {
    Start {
        machine: std::env::consts::ARCH.to_owned(),
        hostname: "node".to_owned(),
        epoch_offset_ns: 1_700_000_000_000_000_000,
        clock: 3600,
        tier: "C".to_owned(),
        reported: Reported { everything, ..Reported::default() },
        config: settings::recorded(config).expect("written"),
        rules: 1,
        ..Start::default()
    }
}

/// Runs the steps with a recorder, and gives the alerts.
fn record(path: &Path, limits: Limits, steps: &[Step], everything: bool) -> (Vec<u8>, Result<Written, WriteError>) {
    let config = config(CONFIG);
    let start = start(&config, everything);
    let texts = vec![("rules".to_owned(), RULES.as_bytes().to_vec())];
    let metrics = Arc::new(Metrics::new());
    let set = files::compile(&config, &texts).expect("compiled").0;
    let rules = ActiveRules::new(set, RuleMatching::All, &metrics);
    let mut format = Format::from(&config);
    format.options.hostname = "node".to_owned();
    format.options.clock = Clock { offset: time::UtcOffset::from_whole_seconds(3600).expect("an offset") };
    let mut settings = reload::settings(&config);
    settings.alerts = format.options.clone();
    let lines = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&lines);
    let deliver = Box::new(move |alert| format.write_raised(&alert, &mut sink.lock().expect("lock")));
    let writer = Writer::create(path, limits, Box::new(|| {})).expect("made");
    let fake = Fake { containers: vec![Arc::new(container(true))], ..Fake::default() };
    let recording = Recording::new(fake, writer, &start, &texts);
    let mut pipeline = Pipeline::new(settings, recording, Arc::clone(&rules), Tally::new(&metrics), 0, deliver);
    pipeline.set_throttle(Throttle::new(&config.throttle, &rules.set, &metrics));
    let begun = Instant::now();
    let mut elapsed = Duration::ZERO;
    pipeline.outside().inner().now = Some(begun);
    pipeline.scan();
    let mut answered = 0;
    for (boot, step) in steps.iter().enumerate() {
        let boot_ns = u64::try_from(elapsed.as_nanos()).expect("short") + boot as u64;
        match step {
            Step::Exec(tgid, cgroup) => pipeline.record(&exec_record(*tgid, *cgroup, boot_ns)),
            Step::Open(tgid, cgroup) => pipeline.record(&open_record(*tgid, *cgroup, boot_ns, "../etc/x")),
            Step::Wait(ms) => {
                elapsed += Duration::from_millis(*ms);
                pipeline.outside().inner().now = Some(begun + elapsed);
                pipeline.tick(begun + elapsed);
            }
            Step::Container(cgroup, known) => {
                let new = Container { id: format!("{cgroup:064}"), cgroup_id: *cgroup, ..container(!known) };
                let (new, fake) = (Arc::new(new), pipeline.outside().inner());
                fake.containers.retain(|old| old.cgroup_id != *cgroup);
                fake.gone.retain(|gone| gone != cgroup);
                fake.containers.push(Arc::clone(&new));
                fake.answers.containers.push(new);
            }
            Step::Gone(cgroup) => pipeline.outside().inner().gone.push(*cgroup),
            Step::User(uid, name) => {
                let user = User { name: Bytes::from(vec![*name]), ..User::default() };
                pipeline.outside().inner().users.insert(*uid, user);
            }
            Step::AtOnce(yes) => pipeline.outside().inner().judgement = yes.then(|| judgement(Verdict::Expected, 1)),
            Step::Verdicts(skipped) => {
                let fake = pipeline.outside().inner();
                let asked: Vec<_> = fake.asked.iter().skip(answered + skipped).map(|(ticket, _)| *ticket).collect();
                answered = fake.asked.len();
                fake.answers
                    .judgements
                    .extend(asked.into_iter().map(|ticket| (ticket, judgement(Verdict::Unlisted, 2))));
            }
            Step::Clock(seconds) => {
                pipeline.set_clock(Clock { offset: time::UtcOffset::from_whole_seconds(*seconds).expect("an offset") });
            }
            Step::Raise => {
                pipeline.raise(internal(boot_ns));
            }
        }
    }
    metrics.lost("ring", "full").add(5);
    pipeline.outside().losses(&metrics);
    pipeline.finish();
    pipeline.raise(internal(7));
    let written = pipeline.into_outside().finish();
    let lines = std::mem::take(&mut *lines.lock().expect("lock"));
    (lines, written)
}

fn internal(time_ns: u64) -> purser_rules::Alert {
    purser_rules::Alert {
        rule: crate::losses::RULE.to_owned(),
        priority: crate::alert::Priority::Error,
        source: "internal".to_owned(),
        tags: vec!["t".to_owned()],
        time_ns,
        output: "o".to_owned(),
        message: "m".to_owned(),
        output_fields: serde_json::json!({"n": 1}).as_object().cloned().expect("an object"),
    }
}

/// An output that can be looked at afterwards.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("lock").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn replayed(recording: &[u8], choice: &Choice) -> (Vec<u8>, anyhow::Result<Replay>) {
    let output = Shared::default();
    let replay = replay(recording, choice, output.clone());
    let lines = std::mem::take(&mut *output.0.lock().expect("lock"));
    (lines, replay)
}

/// A scenario in which everything waits, and several frames.
fn all_steps() -> Vec<Step> {
    vec![
        Step::User(0, b'r'),
        Step::Exec(1, 1),
        Step::Open(2, 5),
        Step::Wait(1500),
        Step::Container(1, true),
        Step::Exec(2, 1),
        Step::Open(2, 1),
        Step::Clock(-3600),
        Step::Wait(1500),
        Step::Verdicts(0),
        Step::Wait(1500),
        Step::AtOnce(true),
        Step::User(0, b's'),
        Step::Exec(3, 1),
        Step::Open(3, 2),
        Step::Raise,
        Step::Open(3, 2),
        Step::Open(3, 2),
        Step::Wait(1500),
        Step::Open(3, 2),
    ]
}

fn recorded(steps: &[Step], everything: bool) -> (Vec<u8>, Vec<u8>) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("r");
    let (lines, written) = record(&path, LIMITS, steps, everything);
    let written = written.expect("written");
    let file = fs::read(&path).expect("read");
    assert_eq!((written.bytes, written.ended), (file.len() as u64, Ended::Asked));
    (lines, file)
}

const LIMITS: Limits = Limits { max_bytes: 1 << 30, force: false };

fn text(lines: &[u8]) -> String {
    String::from_utf8_lossy(lines).into_owned()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_replay_raises_the_same_alerts_byte_for_byte(steps in steps(), everything: bool) {
        let (lines, file) = recorded(&steps, everything);
        let (again, replay) = replayed(&file, &Choice::default());
        let replay = replay.expect("replayed");
        prop_assert_eq!(text(&again), text(&lines));
        prop_assert!(matches!(replay.ended, Ok(Ended::Asked)), "{:?}", replay.ended);
        prop_assert_eq!(&replay.notes, &Vec::<String>::new());
    }

    #[test]
    fn no_content_makes_a_reader_panic(frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..4)) {
        let (_, file) = recorded(&[], true);
        let mut reader = Reader::new(&file[..]).expect("a header");
        drop(reader.next_entry().expect("a start"));
        // Frame 0 of the file, then hostile ones with the right checksums.
        let length = u32::from_le_bytes(file[HEADER..HEADER + 4].try_into().expect("four")) as usize;
        let mut hostile = file[..HEADER + FRAME_HEADER + length].to_vec();
        for (number, plain) in frames.iter().enumerate() {
            let stored = zstd::bulk::compress(plain, 1).expect("compressed");
            hostile.extend(format::frame(number as u64 + 1, &stored, plain.len(), false).expect("small"));
        }
        if let Ok(replay) = replayed(&hostile, &Choice::default()).1 {
            prop_assert!(replay.ended.is_err());
        }
    }
}

#[test]
fn a_scenario_has_what_the_other_tests_need() {
    let (lines, file) = recorded(&all_steps(), false);
    let lines = text(&lines);
    for part in ["\"node\"", "unlisted", "expected", "pending", "Purser internal", "folded", "22:13:2", "layers"] {
        assert!(lines.contains(part), "{part}: {lines}");
    }
    let mut reader = Reader::new(&file[..]).expect("a header");
    let mut frames = 0;
    while !matches!(reader.next_entry().expect("whole").0, Entry::End(_)) {
        frames = reader.position().frame;
    }
    assert!(frames >= 3, "{frames}");
    let (_, replay) = replayed(&file, &Choice::default());
    let summary = replay.expect("replayed").summary;
    assert_eq!(summary.lost["ring"]["full"], 5, "losses of the recorder are there");
    assert_eq!((summary.tier.as_str(), summary.events["execve"], summary.alerts[crate::losses::RULE]), ("C", 3, 2));
}

#[test]
fn every_damaged_byte_is_an_error_and_what_came_before_it_is_replayed() {
    let (lines, file) = recorded(&all_steps(), false);
    for place in 0..file.len() {
        let mut damaged = file.clone();
        damaged[place] ^= 1 << (place % 8);
        let (some, replay) = replayed(&damaged, &Choice::default());
        let error = match replay {
            Ok(replay) => replay.ended.expect_err("an error").to_string(),
            Err(error) => format!("{error:#}"),
        };
        let wanted: &[&str] = match place {
            0..12 => &["this is not a recording"],
            12..16 => &["reads version 1"],
            16..HEADER => &["damaged"],
            _ => &["damaged", "cut"],
        };
        assert!(wanted.iter().any(|wanted| error.contains(wanted)), "{place}: {error}");
        assert!(place < HEADER || (error.contains("frame") && error.contains("at byte")), "{place}: {error}");
        assert_prefix(&some, &lines, place);
    }
}

/// Whole lines of `lines`, from the first. At a cut the pipeline ends, so that what waited comes out as it is then.
fn assert_prefix(some: &[u8], lines: &[u8], place: usize) {
    let (some, lines) = (text(some), text(lines));
    assert!(some.is_empty() || some.ends_with('\n'), "{place}");
    let same = some.lines().zip(lines.lines()).take_while(|(some, line)| some == line).count();
    let (ended, whole) = (some.lines().count() - same, lines.lines().count());
    // Three may be held, two windows may be open.
    assert!(ended <= 5 && same <= whole, "{place}: {ended} lines differ\n{some}\n{lines}");
}

#[test]
fn a_cut_recording_is_replayed_up_to_its_last_whole_frame() {
    let (lines, file) = recorded(&all_steps(), false);
    let mut boundaries = vec![];
    let mut at = HEADER;
    while at < file.len() {
        boundaries.push(at);
        at += FRAME_HEADER + u32::from_le_bytes(file[at..at + 4].try_into().expect("four")) as usize;
    }
    assert_eq!(at, file.len());
    let mut longest = 0;
    for length in 0..file.len() {
        let (some, replay) = replayed(&file[..length], &Choice::default());
        let error = match replay {
            Ok(replay) => replay.ended.expect_err("an error").to_string(),
            Err(error) => format!("{error:#}"),
        };
        let place = boundaries.iter().filter(|boundary| **boundary <= length).max();
        let wanted = match place {
            None if length == 0 => "this is not a recording".to_owned(),
            None if length < 12 => format!("ends within its header, at byte {length}"),
            None => format!("ends within its header, at byte {length}"),
            Some(boundary) if *boundary == length => "has no end".to_owned(),
            Some(_) => "cut: it stops within".to_owned(),
        };
        assert!(error.contains(&wanted), "{length}: {error}");
        if let Some(boundary) = place {
            let frame = boundaries.iter().position(|b| b == boundary).expect("found");
            assert!(error.contains(&format!("frame {frame} at byte {boundary}, after ")), "{length}: {error}");
        }
        assert_prefix(&some, &lines, length);
        longest = longest.max(some.len());
    }
    assert!(longest > 0, "alerts of whole frames are written");
}

#[test]
fn other_versions_are_refused_with_what_to_do() {
    let (_, file) = recorded(&[], false);
    let refused = |file: &[u8]| format!("{:#}", replayed(file, &Choice::default()).1.expect_err("refused"));
    let with = |version: u32, records: u32| {
        let header = format::Header { version, records, writer: "9.8.7".to_owned() };
        [&header.bytes()[..], &file[HEADER..]].concat()
    };
    let current = format::Header::current();
    for version in [0, current.version + 1, u32::MAX] {
        let error = refused(&with(version, current.records));
        assert!(error.contains(&format!("recording of version {version}, written by Purser 9.8.7")), "{error}");
        let error = refused(&with(current.version, version.wrapping_add(100)));
        assert!(error.contains("kernel records are of version") && error.contains("replay it with that"), "{error}");
    }
    assert!(refused(b"{\"json\": 1}").contains("this is not a recording"));
}

#[test]
fn a_recording_is_a_new_file_of_its_owner_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    let create = |name: &str, force| Writer::create(&path(name), Limits { force, ..LIMITS }, Box::new(|| {}));
    let mode = |name: &str| fs::metadata(path(name)).expect("there").permissions().mode() & 0o7777;
    create("new", false).expect("made").finish().expect("ended");
    assert_eq!(mode("new"), 0o600);
    let error = create("new", false).expect_err("there").to_string();
    assert!(error.contains("--force"), "{error}");

    fs::write(path("old"), "old").expect("written");
    fs::set_permissions(path("old"), fs::Permissions::from_mode(0o666)).expect("mode");
    let reader = fs::File::open(path("old")).expect("opened");
    create("old", true).expect("replaced").finish().expect("ended");
    assert_eq!((mode("old"), reader.metadata().expect("there").len()), (0o600, 3), "who had it open reads the old one");

    for (target, name) in [(path("new"), "link"), (path("absent"), "dangling")] {
        symlink(&target, path(name)).expect("linked");
        for force in [false, true] {
            let error = create(name, force).expect_err("a link").to_string();
            assert!(error.contains("never through a link"), "{error}");
        }
    }
    assert!(!path("absent").exists());
    assert!(create("link/x", false).is_err() && create("", false).is_err());
}

#[test]
fn a_recording_that_is_given_up_has_no_end() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("r");
    let (sender, woken) = std::sync::mpsc::channel();
    let wake = Box::new(move || sender.send(()).expect("heard"));
    drop(Writer::create(&path, LIMITS, wake).expect("made"));
    woken.recv().expect("the thread ends");
    let mut reader = Reader::new(fs::File::open(&path).expect("there")).expect("a header");
    assert!(matches!(reader.next_entry(), Err(ReadError::NoEnd(_))));
}

#[test]
fn a_recording_ends_at_its_largest_size() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("r");
    let limits = Limits { max_bytes: 2000, force: false };
    let steps: Vec<Step> = all_steps().into_iter().cycle().take(2000).collect();
    let (lines, written) = record(&path, limits, &steps, false);
    let written = written.expect("written");
    assert_eq!(written.ended, Ended::Full);
    let file = fs::read(&path).expect("read");
    assert!(file.len() as u64 == written.bytes && file.len() <= 2000, "{written:?}");
    let (some, replay) = replayed(&file, &Choice::default());
    assert!(matches!(replay.expect("replayed").ended, Ok(Ended::Full)));
    assert_prefix(&some, &lines, file.len());
    assert!(!some.is_empty() && some.len() < lines.len());
}

#[test]
fn other_rules_are_evaluated_and_what_they_lack_is_said() {
    let (_, file) = recorded(&all_steps(), false);
    let rules = "- rule: Other\n  desc: x\n  condition: evt.type in (openat, ptrace) and user.name = r and fd.sip.name != a.b\n  \
                 output: \"%fd.name\"\n  priority: NOTICE\n";
    let choice = Choice { rules: Some(vec![("x".to_owned(), rules.into())]), ..Choice::default() };
    let notes = replayed(&file, &choice).1.expect("replayed").notes.join("\n");
    for note in ["recorded for its own rules", "ptrace", "a.b"] {
        assert!(notes.contains(note), "{note}: {notes}");
    }
    let (_, file) = recorded(&all_steps(), true);
    let rules = rules.replace(" and fd.sip.name != a.b", "");
    let config = config("json_output: false");
    let choice = Choice { rules: Some(vec![("x".to_owned(), rules.into())]), config: Some(config), json: false };
    let (lines, replay) = replayed(&file, &choice);
    assert_eq!(replay.expect("replayed").notes, Vec::<String>::new());
    assert!(text(&lines).lines().count() >= 2 && text(&lines).contains("Notice /etc/passwd"), "{}", text(&lines));
    let choice = Choice { rules: Some(vec![("x".to_owned(), b"- rule: 1".to_vec())]), ..Choice::default() };
    assert!(replayed(&file, &choice).1.is_err(), "rules that cannot be used are an error of the start");
}

#[test]
fn an_output_that_is_gone_ends_a_replay() {
    struct Gone;
    impl Write for Gone {
        fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (_, file) = recorded(&all_steps(), false);
    let replay = replay(&file[..], &Choice::default(), Gone).expect("begun");
    assert_eq!(replay.written.expect_err("gone").kind(), io::ErrorKind::BrokenPipe);
}

/// A change of what this test writes is a change of the form: then [`format::VERSION`] has to change as well.
#[test]
fn the_form_is_the_one_of_this_version() {
    let crate::event::Body::Exec(mut program) = crate::sample::exec("/p") else { panic!("no exec") };
    program.file.overlay = Some(crate::event::Overlay::default());
    let process = crate::process::Process {
        key: crate::process::ProcessKey { tgid: 1, start_ticks: 2 },
        parent: Some(crate::process::ProcessKey { tgid: 3, start_ticks: 4 }),
        start_boottime_ns: 5,
        vtgid: 6,
        sid: 7,
        pgid: 8,
        vpgid: 9,
        tty: 10,
        uid: 11,
        loginuid: 12,
        cgroup_id: 13,
        mnt_ns: 14,
        comm: [15; 16],
        program: Arc::new(crate::process::Program::from_exec(&program, 16)),
    };
    let asked = Asked { tgid: 1, boot_ns: 2, dev: 3, ino: 4 };
    let image = crate::container::Image {
        layers: vec![crate::container::Layer {
            digest: "d".to_owned(),
            diff_id: "i".to_owned(),
            media_type: "m".to_owned(),
            store_id: "s".to_owned(),
        }],
        ..Default::default()
    };
    let full = Container {
        shares: Some(crate::container::Shares { pid: true, network: None, ipc: false }),
        image: Some(image),
        mounts: vec![crate::container::Mount {
            source: "s".to_owned(),
            destination: "d".to_owned(),
            options: vec!["ro".to_owned()],
            kind: "bind".to_owned(),
        }],
        pod: Some(crate::container::Pod {
            name: "n".to_owned(),
            namespace: "s".to_owned(),
            uid: "u".to_owned(),
            sandbox_id: "i".to_owned(),
            labels: vec![("k".to_owned(), "v".to_owned())],
        }),
        labels: vec![("k".to_owned(), "v".to_owned())],
        ..container(true)
    };
    let answer = Entry::Answer;
    let entries = [
        Entry::Start(Box::new(Start { hooks: vec!["h".to_owned()], ..start(&config(CONFIG), true) })),
        Entry::Rules("r".to_owned(), b"t"),
        Entry::Scan,
        Entry::Record(b"record"),
        Entry::Tick(300),
        Entry::Clock(-1),
        Entry::Finish,
        Entry::Losses(vec![("s".to_owned(), "r".to_owned(), 1)]),
        answer(Answer::Processes(vec![1, 2])),
        answer(Answer::Process(1, Box::new(process))),
        answer(Answer::Container(0, Box::new(full))),
        answer(Answer::Identity(1, Later(0, Place::Container(0)))),
        answer(Answer::User(Some("c".to_owned()), 1, Later(1, Some(User { name: "n".into(), ..User::default() })))),
        answer(Answer::Group(None, 1, Later(0, Some(Name("g".into()))))),
        answer(Answer::Domains([127, 0, 0, 1].into(), vec![Name("d".into())])),
        answer(Answer::Judged(asked, true, Box::new(judgement(Verdict::Unlisted, 9)))),
        answer(Answer::Identified(0)),
        answer(Answer::EpochOffset(-1)),
        answer(Answer::Now(1)),
        answer(Answer::Forget),
        Entry::End(Ended::Full),
    ];
    let bytes: Vec<u8> = entries.iter().flat_map(|entry| postcard::to_allocvec(entry).expect("written")).collect();
    assert_eq!(
        (format::VERSION, Digest::of(&bytes).hex().as_str()),
        (1, "09bde89e58c8f340c8ff22fcb0358a2a2425b3891322c11498e103dd23452cf6")
    );
}
