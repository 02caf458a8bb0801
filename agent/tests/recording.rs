//! A real container's life, recorded while it raises alerts, and replayed by nobody, in another time zone, on a machine
//! without users: the alerts are the same, byte for byte.

#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test fails by panicking")]

mod common;

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use xtask::rig::containerd::Containerd;
use xtask::rig::image::{Image, Layer};
use xtask::rig::runc::Runc;
use xtask::rig::{payload, unique_name};

const RULES: &str = r#"
- rule: Program
  desc: Waits for a verdict, and asks for accounts, ancestors and the image.
  condition: evt.type in (execve, execveat) and container.id != host and manifest.verdict exists
  output: >
    %evt.num %evt.time %evt.datetime %evt.reltime %evt.deltatime exe=%proc.exepath %manifest.verdict %manifest.reason
    %manifest.source %proc.exe.sha256 %proc.exe.layer args=%proc.args env=%proc.env[PATH] %user.name %user.homedir %user.loginname
    %group.name %proc.aname[1] %proc.aname[2] %proc.aexepath[3] %proc.duration %container.name %container.identity
    %container.image.repository %image.manifest_digest %container.start_ts %container.mounts
  priority: NOTICE
- rule: Opened
  desc: A file of the containers under test.
  condition: evt.type in (open, openat, openat2) and fd.name contains MARK
  output: "%evt.num %fd.name %fd.nameraw %fd.ino %evt.rawres %proc.name %user.uid %container.full_id %container.identity"
  priority: WARNING
- rule: Connected
  desc: Also a failed connect.
  condition: evt.type = connect and container.id != host
  output: "%evt.num %fd.name %fd.sip %fd.sport %evt.rawres %proc.cmdline %container.id"
  priority: WARNING
- rule: Called
  desc: Plain calls.
  condition: evt.type in (renameat, renameat2, rename, mkdir, mkdirat, symlink, symlinkat, unlink, unlinkat) and container.id != host
  output: "%evt.num %evt.type %evt.args %evt.arg.name %fs.path.name %container.id"
  priority: INFO
- rule: Changed
  desc: Folded.
  condition: evt.type in (chmod, fchmod, fchmodat, fchmodat2) and container.id != host
  output: "%evt.num %evt.type %evt.args"
  priority: INFO
"#;

const CONFIG: &str = "rule_matching: all\nthrottle: {rules: [{rule: Changed, rate: {alerts: 1, window: 1s}}]}\n";

/// One fills the ring while the other wants to lose nothing.
static ALONE: Mutex<()> = Mutex::new(());

struct Recorder {
    child: Child,
    directory: PathBuf,
}

impl Recorder {
    /// Starts it, and waits until its hooks are attached.
    fn start(directory: &Path, name: &str, args: &[&str]) -> Self {
        let config = directory.join("config.yaml");
        fs::write(&config, format!("{CONFIG}manifest: {{cache_dir: {}}}\n", directory.join("cache").display()))
            .expect("written");
        let output = |suffix: &str| File::create(directory.join(format!("{name}.{suffix}"))).expect("made");
        let child = Command::new(env!("CARGO_BIN_EXE_purser"))
            .args(["record", "--json", "--write"])
            .arg(directory.join(name))
            .arg("--config")
            .arg(&config)
            .args(args)
            .env("TZ", "Asia/Kathmandu")
            .stdin(Stdio::null())
            .stdout(output("alerts"))
            .stderr(output("log"))
            .spawn()
            .expect("started");
        let recorder = Self { child, directory: directory.to_owned() };
        let log = directory.join(format!("{name}.log"));
        common::until("the hooks are attached", || {
            fs::read_to_string(&log).is_ok_and(|log| log.contains("enabled of"))
        });
        recorder
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed()).expect("a pid");
        kill_process(pid, signal).expect("it runs");
    }

    /// Ends it; gives its alerts and its log.
    fn stop(mut self, name: &str) -> (String, String) {
        self.signal(Signal::INT);
        let status = self.child.wait().expect("ended");
        let read = |suffix: &str| fs::read_to_string(self.directory.join(format!("{name}.{suffix}"))).expect("read");
        let (alerts, log) = (read("alerts"), read("log"));
        assert!(status.success(), "{status}: {log}");
        (alerts, log)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// As nobody, who cannot read the file by himself, on a machine with another name and without users, in another time
/// zone.
fn replay(recording: &Path, args: &[&str]) -> Output {
    const ELSEWHERE: &str = "mount --bind /dev/null /etc/passwd && mount --bind /dev/null /etc/group && hostname elsewhere && \
                             exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--uts", "--propagation", "private", "sh", "-c", ELSEWHERE, "sh"]);
    command.arg(env!("CARGO_BIN_EXE_purser")).args(["replay", "-"]).args(args);
    command.env("TZ", "America/St_Johns").stdin(File::open(recording).expect("opened"));
    command.output().expect("started")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What is recorded: a container that holds its events until its image is known, programs with verdicts, calls, a short-lived
/// container. Gives the ids.
fn live(directory: &Path, containerd: &Containerd) -> [String; 2] {
    let id = unique_name("recorded");
    let container =
        containerd.start_container("local.test/recorded:1", &id, &["/bin/sleep", "1000"]).expect("container");
    let run = |args: &[&str]| container.exec_ok(args).unwrap_or_else(|error| panic!("{args:?}: {error:#}"));
    run(&["/usr/bin/shipped"]);
    run(&["/bin/cp", "/usr/bin/shipped", "/tmp/copy"]);
    run(&["/tmp/copy"]);
    run(&[
        "/bin/sh",
        "-c",
        "cat /etc/MARK; ln -s /etc/MARK /tmp/link; cat /tmp/link; mv /tmp/link /tmp/other; rm /tmp/other",
    ]);
    run(&[
        "/bin/sh",
        "-c",
        "mkdir /tmp/d; for n in 1 2 3 4; do chmod 700 /tmp/d; done; nc 127.0.0.1 1 </dev/null; true",
    ]);
    // Long enough for its cgroup to be looked at while there are events of others.
    let script = "/busybox cat /MARK; /busybox sleep 0.3";
    let shell = fs::read("/bin/busybox").expect("busybox");
    let short =
        Runc::bundle(&[("/busybox", &shell), ("/MARK", b"x")], &["/busybox", "sh", "-c", script]).expect("bundle");
    assert!(short.run().expect("run").status.success());
    // A window of folded alerts ends by the clock, too.
    std::thread::sleep(Duration::from_millis(2500));
    drop(container);
    assert!(directory.exists());
    [id, short.id().to_owned()]
}

fn image(directory: &Path) -> Containerd {
    let archive = directory.join("recorded.tar");
    Image::new("local.test/recorded:1")
        .layer(
            Layer::busybox(&["sh", "cat", "cp", "mv", "ln", "rm", "mkdir", "chmod", "nc", "sleep"]).expect("busybox"),
        )
        .layer(
            Layer::new()
                .file("/usr/bin/shipped", payload::unique().expect("payload"), 0o755)
                .file("/etc/MARK", "x", 0o644)
                .file("/etc/passwd", "captain:x:0:0::/cabin:/bin/sh\n", 0o644),
        )
        .write_archive(&archive)
        .expect("image");
    let containerd = Containerd::start().expect("containerd");
    containerd.import(&archive).expect("imported");
    containerd
}

#[test]
fn a_recording_gives_the_same_alerts_elsewhere_byte_for_byte() {
    if !common::is_root() {
        return;
    }
    let _alone = ALONE.lock();
    let directory = tempfile::tempdir().expect("directory");
    let directory = directory.path();
    let containerd = image(directory);
    let rules = common::rules_file(directory, RULES);
    let rules = rules.to_str().expect("text");

    let recorder = Recorder::start(directory, "some", &["--rules", rules]);
    recorder.signal(Signal::HUP);
    let [id, short] = live(directory, &containerd);
    let (alerts, log) = recorder.stop("some");
    assert!(log.contains("stay as they are while they are recorded"), "{log}");
    assert!(log.contains("recorded "), "{log}");
    for part in ["captain", "expected", "relocated", "127.0.0.1", "\"folded\":", "symlinkat", &id[..12], &short[..12]] {
        assert!(alerts.contains(part), "no {part} in {alerts}");
    }
    let recording = directory.join("some");
    let metadata = fs::metadata(&recording).expect("there");
    assert_eq!((metadata.permissions().mode() & 0o7777, metadata.uid()), (0o600, 0));
    let again = replay(&recording, &[]);
    assert_eq!(text(&again.stdout), alerts, "{}", text(&again.stderr));
    assert!(again.status.success(), "{}", text(&again.stderr));
    let summary = |log: &str| {
        log[log.find("purser: tier").expect("a summary")..].lines().take(6).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(summary(&text(&again.stderr)), summary(&log), "events, losses and verdicts as well");

    // Everything, under the default rules; then the rules from above, which nobody knew then.
    let recorder = Recorder::start(directory, "all", &[]);
    let [id, short] = live(directory, &containerd);
    let (alerts, _) = recorder.stop("all");
    let again = replay(&directory.join("all"), &[]);
    assert_eq!(text(&again.stdout), alerts, "{}", text(&again.stderr));
    let shared = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().expect("directory");
    let shared_rules = common::rules_file(shared.path(), RULES);
    let other = replay(&directory.join("all"), &["--rules", shared_rules.to_str().expect("text")]);
    assert!(other.status.success(), "{}", text(&other.stderr));
    let alerts = text(&other.stdout);
    for part in ["captain", "expected", "relocated", "127.0.0.1", "\"folded\":", "symlinkat", &id[..12], &short[..12]] {
        assert!(alerts.contains(part), "no {part} in {alerts}");
    }
    assert!(!text(&other.stderr).contains("unknown, because"), "{}", text(&other.stderr));
}

#[test]
fn a_recording_that_is_killed_or_full_is_replayed_as_far_as_it_goes() {
    if !common::is_root() {
        return;
    }
    let _alone = ALONE.lock();
    let directory = tempfile::tempdir().expect("directory");
    let directory = directory.path();
    let rules = common::rules_file(directory, RULES);
    let rules = ["--rules", rules.to_str().expect("text")];
    fs::write(directory.join("MARK"), "").expect("written");

    let mut recorder = Recorder::start(directory, "killed", &rules);
    for _ in 0..30 {
        drop(File::open(directory.join("MARK")).expect("opened"));
        std::thread::sleep(Duration::from_millis(100));
    }
    recorder.signal(Signal::KILL);
    recorder.child.wait().expect("ended");
    let some = replay(&directory.join("killed"), &[]);
    let error = text(&some.stderr);
    assert_eq!(some.status.code(), Some(1), "{error}");
    assert!(error.contains("has no end: its recorder was killed") || error.contains("is cut"), "{error}");
    let opened = text(&some.stdout).lines().filter(|line| line.contains("\"Opened\"")).count();
    assert!(opened >= 10 && error.contains("at byte"), "{opened}: {error}");

    let mut full = Recorder::start(directory, "full", &[&rules[..], &["--max-size", "1MiB"]].concat());
    let deadline = std::time::Instant::now() + Duration::from_mins(2);
    let status = loop {
        for number in 0..1000_u32 {
            let name = format!("{:08x}", number.wrapping_mul(0x9E37_79B1));
            drop(File::create(directory.join("MARK").with_file_name(name)));
        }
        if let Some(status) = full.child.try_wait().expect("waited") {
            break status;
        }
        assert!(std::time::Instant::now() < deadline, "the recording does not end");
    };
    let log = fs::read_to_string(directory.join("full.log")).expect("read");
    assert!(status.success() && log.contains("ended at --max-size 1MiB"), "{status}: {log}");
    assert!(fs::metadata(directory.join("full")).expect("there").len() <= 1 << 20);
    let whole = replay(&directory.join("full"), &[]);
    assert!(whole.status.success() && text(&whole.stderr).contains("largest size"), "{}", text(&whole.stderr));

    symlink(directory.join("full"), directory.join("link")).expect("linked");
    for (name, want) in [("full", "is there already"), ("link", "never through a link")] {
        let path = directory.join(name);
        let refused = Command::new(env!("CARGO_BIN_EXE_purser")).arg("record").arg("-w").arg(&path).output().expect("");
        let error = text(&refused.stderr);
        assert!(refused.status.code() == Some(1) && error.contains(want), "{error}");
    }
    let mut file = Vec::new();
    File::open(directory.join("full")).and_then(|mut full| full.read_to_end(&mut file)).expect("read");
    assert!(file.starts_with(b"\x89PURSER-R"), "the refused ones left it as it was");
}
