//! Sinks: order, wholeness of lines, full disks, slow and dead readers, and the count of what was lost.
#![allow(clippy::expect_used, clippy::panic, reason = "a failed expectation is a failed test")]

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

use purser::{
    alert::{Alert, Format, Numbering, Priority},
    config::Config,
    metrics::{LOST, Metrics, QUEUE_LENGTH, SINK_ERRORS, SINK_SENT},
    sink::{Failure, File, Sink, SinkError, Sinks},
};

/// Far longer than anything here takes; only a hang reaches it.
const LONG: Duration = Duration::from_secs(30);

fn alerts(count: usize) -> Vec<Arc<Alert>> {
    let mut numbering = Numbering::default();
    (0..count)
        .map(|index| {
            Arc::new(numbering.number(purser_rules::Alert {
                rule: "Test".to_owned(),
                priority: Priority::Warning,
                source: "syscall".to_owned(),
                tags: Vec::new(),
                time_ns: 1,
                output: format!("alert {index}"),
                message: String::new(),
                output_fields: serde_json::Map::new(),
            }))
        })
        .collect()
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn count(metrics: &Metrics, family: purser::metrics::Family, labels: &[&str]) -> u64 {
    let found = metrics.read(family).into_iter().find(|(have, _)| have == labels);
    found.unwrap_or_else(|| panic!("{}{labels:?} is not exported", family.name)).1
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < LONG, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn start(sink: impl Sink, capacity: usize) -> (Sinks, Metrics) {
    let metrics = Metrics::new();
    let sinks = Sinks::with(vec![Box::new(sink)], capacity, &metrics).expect("started");
    (sinks, metrics)
}

fn format() -> Format {
    Format::from(&Config::default())
}

#[test]
fn a_file_gets_every_alert_in_order() {
    for keep_alive in [false, true] {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("alerts.txt");
        fs::write(&path, "earlier\n").expect("written");
        let file = File::open(&path, keep_alive, format()).expect("opened");
        let (sinks, metrics) = start(file, 10_000);
        for alert in &alerts(5_000) {
            sinks.send(alert);
        }
        assert!(sinks.finish(LONG), "everything is delivered");
        let want: Vec<_> =
            std::iter::once("earlier".to_owned()).chain((0..5_000).map(|i| format!("alert {i}"))).collect();
        assert!(lines(&path) == want, "each alert once, in order, after what was there");
        assert_eq!(count(&metrics, SINK_SENT, &["file"]), 5_000);
        assert_eq!(count(&metrics, QUEUE_LENGTH, &["sink.file"]), 0);
        assert_eq!(metrics.read(LOST).iter().map(|(_, lost)| lost).sum::<u64>(), 0);
    }
}

#[test]
fn a_new_file_is_for_its_owner_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("alerts.txt");
    drop(File::open(&path, true, format()).expect("opened"));
    assert_eq!(fs::metadata(&path).expect("made").permissions().mode() & 0o777, 0o600);
}

#[test]
fn rotation_needs_a_signal_only_with_keep_alive() {
    for (keep_alive, reopen) in [(false, false), (true, true)] {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, old) = (directory.path().join("a"), directory.path().join("a.1"));
        let (sinks, metrics) = start(File::open(&path, keep_alive, format()).expect("opened"), 100);
        let alerts = alerts(3);
        sinks.send(&alerts[0]);
        until("the first is written", || count(&metrics, SINK_SENT, &["file"]) == 1);
        fs::rename(&path, &old).expect("rotated");
        if keep_alive {
            // The open file goes on under its new name, until it is told otherwise.
            sinks.send(&alerts[1]);
            until("the second is written", || count(&metrics, SINK_SENT, &["file"]) == 2);
            assert_eq!(lines(&old), ["alert 0", "alert 1"]);
        }
        if reopen {
            sinks.reopen();
        }
        sinks.send(&alerts[2]);
        assert!(sinks.finish(LONG));
        assert_eq!(lines(&path), ["alert 2"], "keep_alive: {keep_alive}");
    }
}

#[test]
fn a_full_disk_is_counted_and_the_agent_goes_on() {
    let (sinks, metrics) = start(File::open(Path::new("/dev/full"), false, format()).expect("opened"), 4);
    for alert in &alerts(10) {
        sinks.send(alert); // never blocks
    }
    until("the full disk is noticed twice", || count(&metrics, SINK_ERRORS, &["file", "no_space"]) >= 2);
    assert_eq!(count(&metrics, LOST, &["sink", "queue_full"]), 6, "four wait, the others found no room");
    assert!(!sinks.finish(Duration::from_millis(50)));
    assert_eq!(count(&metrics, LOST, &["sink", "shutdown"]), 4, "none vanishes uncounted");
    assert_eq!(count(&metrics, SINK_SENT, &["file"]), 0);
}

/// A small real file system that fills up in the middle of a line and has room again later.
#[test]
fn a_line_torn_by_a_full_disk_is_completed() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED a_line_torn_by_a_full_disk_is_completed: needs root to mount a tmpfs");
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let mount = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=16k", "purser-test"])
        .arg(directory.path())
        .status()
        .expect("mount(8)");
    assert!(mount.success());
    let unmount = Unmount(directory.path());
    let (path, filler) = (directory.path().join("alerts.txt"), directory.path().join("filler"));
    // Room for one page of the file, less than the 600 lines need.
    fs::write(&filler, vec![0; 12 << 10]).expect("filled");
    let (sinks, metrics) = start(File::open(&path, false, format()).expect("opened"), 1000);
    for alert in &alerts(600) {
        sinks.send(alert);
    }
    until("the disk is full", || count(&metrics, SINK_ERRORS, &["file", "no_space"]) >= 1);
    let torn = fs::read(&path).expect("read");
    assert!(!torn.is_empty() && !torn.ends_with(b"\n"), "the disk was full in the middle of a line");
    fs::remove_file(&filler).expect("room again");
    assert!(sinks.finish(LONG));
    let want: Vec<_> = (0..600).map(|i| format!("alert {i}")).collect();
    assert!(lines(&path) == want, "no line is torn, doubled or missing");
    drop(unmount);
}

struct Unmount<'a>(&'a Path);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        let unmounted = std::process::Command::new("umount").arg(self.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

#[test]
fn a_wrong_path_is_an_error_of_the_start() {
    let mut config = Config::default();
    config.stdout_output.enabled = false;
    config.file_output.enabled = true;
    config.file_output.filename = "/nonexistent/alerts.txt".into();
    let error = Sinks::start(&config, &format().into(), &Metrics::new()).expect_err("no such directory");
    assert!(matches!(&error, SinkError::Open { path, .. } if path == Path::new("/nonexistent/alerts.txt")));
    assert!(error.to_string().contains("file_output.filename"), "{error}");
}

/// A sink that holds every alert until it is let go.
#[derive(Default)]
struct Gate {
    state: Mutex<(bool, Vec<u64>)>,
    opened: Condvar,
}

struct Gated(Arc<Gate>, &'static str);

impl Sink for Gated {
    fn name(&self) -> &'static str {
        self.1
    }

    fn deliver(&mut self, alerts: &[Arc<Alert>]) -> Result<(), Failure> {
        let state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.0.opened.wait_while(state, |(open, _)| !*open).unwrap_or_else(PoisonError::into_inner);
        state.1.extend(alerts.iter().map(|alert| alert.sequence));
        Ok(())
    }
}

#[test]
fn one_blocked_sink_holds_up_neither_the_worker_nor_the_others() {
    let (blocked, free) = (Arc::new(Gate::default()), Arc::new(Gate::default()));
    free.state.lock().expect("whole").0 = true;
    let metrics = Metrics::new();
    let gated: [Box<dyn Sink>; 2] =
        [Box::new(Gated(Arc::clone(&blocked), "blocked")), Box::new(Gated(Arc::clone(&free), "free"))];
    let sinks = Sinks::with(gated.into(), 100, &metrics).expect("started");
    let alerts = alerts(150);
    for (sent, alert) in alerts.iter().enumerate() {
        sinks.send(alert);
        until("the free sink has it", || free.state.lock().expect("whole").1.len() == sent + 1);
    }
    assert_eq!(count(&metrics, QUEUE_LENGTH, &["sink.blocked"]), 100, "in flight counts as waiting");
    assert_eq!(count(&metrics, LOST, &["sink", "queue_full"]), 50);
    blocked.state.lock().expect("whole").0 = true;
    blocked.opened.notify_all();
    assert!(sinks.finish(LONG));
    assert_eq!(blocked.state.lock().expect("whole").1, (1..=100).collect::<Vec<u64>>(), "the first hundred, in order");
}

#[test]
fn the_end_is_bounded_even_if_a_sink_never_returns() {
    let gate = Arc::new(Gate::default());
    let (sinks, metrics) = start(Gated(Arc::clone(&gate), "stuck"), 10);
    for alert in &alerts(3) {
        sinks.send(alert);
    }
    until("it is stuck", || count(&metrics, QUEUE_LENGTH, &["sink.stuck"]) == 3);
    assert!(!sinks.finish(Duration::from_millis(20)));
    assert_eq!(count(&metrics, LOST, &["sink", "shutdown"]), 3);
}

struct Broken;

impl Sink for Broken {
    fn name(&self) -> &'static str {
        "broken"
    }

    fn deliver(&mut self, _: &[Arc<Alert>]) -> Result<(), Failure> {
        panic!("a bug");
    }
}

#[test]
fn a_bug_in_a_sink_is_counted_and_does_not_stop_the_end() {
    let (sinks, metrics) = start(Broken, 10);
    sinks.send(&alerts(1)[0]);
    until("it is counted", || count(&metrics, LOST, &["sink", "panic"]) == 1);
    sinks.send(&alerts(1)[0]);
    assert_eq!(count(&metrics, LOST, &["sink", "queue_full"]), 1, "later ones are counted too");
    assert!(sinks.finish(LONG), "it does not wait for the dead");
}

/// Delivers a part, then fails: as often as told.
struct Flaky {
    failures: usize,
    got: Arc<Mutex<Vec<u64>>>,
}

impl Sink for Flaky {
    fn name(&self) -> &'static str {
        "flaky"
    }

    fn deliver(&mut self, alerts: &[Arc<Alert>]) -> Result<(), Failure> {
        let delivered = if self.failures > 0 { 1 } else { alerts.len() };
        self.got.lock().expect("whole").extend(alerts[..delivered].iter().map(|alert| alert.sequence));
        if delivered == alerts.len() {
            return Ok(());
        }
        self.failures -= 1;
        Err(Failure { delivered, error: io::ErrorKind::TimedOut.into(), permanent: false })
    }
}

#[test]
fn what_is_delivered_is_not_offered_again() {
    let got = Arc::new(Mutex::new(Vec::new()));
    let (sinks, metrics) = start(Flaky { failures: 3, got: Arc::clone(&got) }, 100);
    for alert in &alerts(50) {
        sinks.send(alert);
    }
    assert!(sinks.finish(LONG));
    assert_eq!(*got.lock().expect("whole"), (1..=50).collect::<Vec<u64>>());
    assert_eq!(count(&metrics, SINK_SENT, &["flaky"]), 50);
}

/// Standard output belongs to the process, so the test runs itself again: `whole` or `left` says what its reader does.
const CHILD: &str = "PURSER_TEST_STDOUT";

#[test]
fn stdout_child() {
    let Ok(reader) = std::env::var(CHILD) else { return };
    let kept = rustix::io::dup(io::stdout()).expect("kept");
    if reader == "left" {
        let (_, writer) = io::pipe().expect("a pipe"); // its reading end is closed at once
        rustix::stdio::dup2_stdout(&writer).expect("replaced");
    }
    let metrics = Metrics::new();
    let sinks = Sinks::start(&Config::default(), &format().into(), &metrics).expect("started");
    for alert in &alerts(2000) {
        sinks.send(alert);
    }
    let whole = sinks.finish(LONG);
    rustix::stdio::dup2_stdout(&kept).expect("restored"); // the test harness prints, too
    let (lost, sent) = (count(&metrics, LOST, &["sink", "closed"]), count(&metrics, SINK_SENT, &["stdout"]));
    eprintln!("lost={lost} sent={sent} whole={whole}");
}

fn child(reader: &str) -> (String, String) {
    let mut command = std::process::Command::new(std::env::current_exe().expect("the test's own path"));
    command.args(["stdout_child", "--exact", "--nocapture", "--quiet"]).env(CHILD, reader);
    let output = command.output().expect("ran");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (text(output.stdout), text(output.stderr))
}

#[test]
fn stdout_carries_the_alerts() {
    let (out, err) = child("whole");
    let alerts: Vec<_> = out.lines().filter(|line| line.starts_with("alert ")).collect();
    assert!(alerts.iter().enumerate().all(|(index, line)| *line == format!("alert {index}")));
    assert_eq!(alerts.len(), 2000, "{out}");
    assert!(err.contains("lost=0 sent=2000 whole=true"), "{err}");
}

#[test]
fn a_reader_that_leaves_ends_the_alerts_there_and_not_the_agent() {
    let (out, err) = child("left");
    assert!(!out.contains("alert "), "{out}");
    assert!(err.contains("lost=2000 sent=0 whole=true"), "{err}");
}
