//! Push-down on real programs: two agents side by side watch the same machine, one of which has events stay in the kernel.
//! Both must raise the same alerts, by upstream's rules and the default ones as by some made to be hard to push down.
#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a test says why it skips, and what was kept back")]
#![allow(clippy::multiple_unsafe_ops_per_block, reason = "the workload is a run of system calls")]

mod common;
mod openmetrics;

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{env, fs, thread};

use serde_json::Value;
use xtask::agent::{Agent, Line, Options};
use xtask::rig::containerd::{Container, Containerd};
use xtask::rig::image::{Image, Layer};
use xtask::rig::{payload, unique_name};

/// Where the workload is to be done; it is this program again.
const WORKLOAD: &str = "PURSER_PUSHDOWN_WORKLOAD";
/// How often something is done before its name changes, and after: enough to be learned.
const ROUNDS: usize = 8;
const PAUSE: Duration = Duration::from_millis(4);

const RULES: &str = r"
- rule: Own secret
  desc: Whatever lies below a folder, under any of its names.
  condition: evt.type in (open, openat, openat2) and (fd.name contains /hidden/ or fd.filename = treasure)
  output: name=%fd.name raw=%fd.nameraw real=%fd.realpath type=%evt.type res=%evt.res flags=%evt.arg.flags
  priority: NOTICE
- rule: Own creation
  desc: A file that is made or emptied, but not by cat.
  condition: >
    evt.type in (open, openat, openat2, creat) and not evt.failed = true and fd.name contains /pushdown-
    and (evt.is_open_create = true or evt.arg.flags contains O_TRUNC) and not proc.name in (cat)
  output: name=%fd.name mode=%evt.arg.mode flags=%evt.arg.flags
  priority: NOTICE
  exceptions:
    - name: boring
      fields: [fd.name, proc.name]
      comps: [endswith, startswith]
      values:
        - [.boring, payload]
- rule: Own control
  desc: Calls by their arguments.
  condition: >
    (evt.type = prctl and evt.arg.option = PR_SET_DUMPABLE) or (evt.type = ptrace and evt.arg.request = PTRACE_ATTACH)
    or (evt.type = bpf and evt.arg.cmd = BPF_PROG_GET_NEXT_ID) or (evt.type = chmod and evt.arg.mode contains S_ISUID)
  output: type=%evt.type res=%evt.res option=%evt.arg.option request=%evt.arg.request cmd=%evt.arg.cmd mode=%evt.arg.mode
  priority: NOTICE
- rule: Own door
  desc: A port, or a socket's path.
  condition: evt.type = connect and (fd.sport in (4711, 4712) or fd.name endswith runtime.sock)
  output: name=%fd.name res=%evt.res
  priority: NOTICE
- rule: Own parent
  desc: A name that a process gave itself when its child was there already.
  condition: evt.type in (open, openat, openat2) and fd.name endswith /deep/file and proc.pname = pushed-down
  output: parent=%proc.pname ancestor=%proc.aname[1] name=%fd.name
  priority: NOTICE
- rule: Own move
  desc: Names that change.
  condition: evt.type in (rename, renameat, renameat2) and fs.path.target contains /hidden
  output: from=%fs.path.source to=%fs.path.target
  priority: NOTICE
";

/// What differs between two agents that look at one event.
const DIFFERS: [&str; 4] = ["evt.num", "evt.time", "evt.rawtime", "evt.deltatime"];

fn upstream() -> Vec<PathBuf> {
    let directory = env::var_os("PURSER_FALCO_RULES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/falco/rules"), PathBuf::from);
    let files = ["falco_rules.yaml", "falco-incubating_rules.yaml", "falco-sandbox_rules.yaml"];
    let files: Vec<_> = files.iter().map(|file| directory.join(file)).filter(|file| file.exists()).collect();
    if files.is_empty() {
        eprintln!("without upstream's rule files: none at {} (set PURSER_FALCO_RULES)", directory.display());
    }
    files
}

fn agent(directory: &Path, pushdown: &str) -> Agent {
    let mut rules = upstream();
    for (name, text) in purser_rules::DEFAULT_RULES {
        let path = directory.join(name);
        fs::write(&path, text).expect("rules written");
        rules.push(path);
    }
    rules.push(common::rules_file(directory, RULES));
    let config = format!(
        "rule_matching: all\n\
         append_output: [{{extra_fields: [{{trigger: \"%proc.env[TRIGGER]\"}}, {{in: \"%container.id\"}}]}}]\n\
         sensor: {{ring_bytes: 64MiB, pushdown: {pushdown}}}\n\
         manifest: {{cache_dir: {}}}\n",
        directory.join(format!("cache-{pushdown}")).display()
    );
    common::start(&Options { config, rules, args: Vec::new() })
}

/// How many events stayed in the kernel, by type.
fn rejected(agent: &Agent) -> BTreeMap<&'static str, f64> {
    let (_, body) = agent.get("/metrics").expect("metrics");
    let metrics = openmetrics::parse(&body).expect("OpenMetrics");
    let count = |kind| metrics.value("purser_events_rejected_total", &[("type", kind)]).expect("exported");
    ["openat", "connect", "prctl", "ptrace", "bpf", "chmod"].into_iter().map(|kind| (kind, count(kind))).collect()
}

/// The alerts of the workload, each as text, with how often it came.
fn alerts(lines: Vec<Line>, mark: &str, container: &str) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for line in lines {
        let mut alert = line.alert.expect("an alert");
        let is = |field: &str, value: &str| alert.output_fields.get(field).and_then(Value::as_str) == Some(value);
        if is("trigger", mark) || is("in", &container[..12]) {
            alert.output_fields.retain(|name, _| !DIFFERS.contains(&name.as_str()));
            *found.entry(format!("{} {:?}", alert.rule, alert.output_fields)).or_default() += 1;
        }
    }
    found
}

#[test]
fn two_agents_raise_the_same_alerts() {
    if !common::is_root() {
        return;
    }
    let archive_in = tempfile::tempdir().expect("directory");
    let archive = archive_in.path().join("image.tar");
    Image::new("local.test/pushdown:1")
        .layer(Layer::busybox(&["sh", "sleep", "cat", "ln", "mv", "mkdir", "usleep"]).expect("busybox"))
        .layer(
            Layer::new()
                .file("/usr/bin/payload", payload::unique().expect("payload"), 0o755)
                .file("/srv/calm/file", "x", 0o644)
                .file("/srv/hidden/file", "x", 0o644)
                .dir("/tmp", 0o1777),
        )
        .write_archive(&archive)
        .expect("image");
    let rig = Containerd::start().expect("containerd");
    rig.import(&archive).expect("imported");
    for _ in 0..3 {
        let lost = compare(&rig);
        if lost == 0 {
            return;
        }
        println!("once more: this machine does so much else that {lost} events were lost");
    }
    panic!("events were lost each time");
}

/// Gives how many events were lost; if none was, both agents have raised the same.
fn compare(rig: &Containerd) -> u64 {
    let directory = tempfile::Builder::new().prefix("pushdown-").tempdir().expect("directory");
    let (on, off) = (agent(directory.path(), "on"), agent(directory.path(), "off"));
    let id = unique_name("pushdown");
    let container = rig.start_container("local.test/pushdown:1", &id, &["/bin/sleep", "1000"]).expect("container");
    let mark = unique_name("mark");
    in_container(&container);
    let work = directory.path().join("work");
    fs::create_dir(&work).expect("directory");
    let own = env::current_exe().expect("this program");
    let status = Command::new(own)
        .args(["--exact", "the_workload", "--nocapture"])
        .env(WORKLOAD, &work)
        .env("TRIGGER", &mark)
        .status()
        .expect("ran");
    assert!(status.success(), "the workload failed");
    drop(container);
    // Numbers are brought into the metrics twice a second.
    thread::sleep(Duration::from_millis(1200));
    let (kept_back, none) = (rejected(&on), rejected(&off));
    let (on, off) = (on.stop().expect("summary"), off.stop().expect("summary"));
    let lost = ["kernel", "decode", "sink"]
        .iter()
        .flat_map(|stage| [&on.1, &off.1].map(|summary| summary.lost.get(*stage).map_or(0, |all| all.values().sum())))
        .sum::<u64>();
    if lost != 0 {
        return lost;
    }
    let (with, without) = (alerts(on.0, &mark, &id), alerts(off.0, &mark, &id));
    let differ = |a: &BTreeMap<String, usize>, b: &BTreeMap<String, usize>| {
        a.iter()
            .filter(|(alert, count)| b.get(*alert) != Some(count))
            .map(|(alert, count)| format!("{count} {alert}"))
            .collect::<Vec<_>>()
    };
    let (only_on, only_off) = (differ(&with, &without), differ(&without, &with));
    assert!(only_on.is_empty() && only_off.is_empty(), "on: {only_on:#?}\noff: {only_off:#?}");
    println!("{} alerts, {} of them different; kept back: {kept_back:?}", with.values().sum::<usize>(), with.len());
    for rule in ["Own secret", "Own creation", "Own control", "Own door", "Own parent", "Own move"] {
        assert!(with.keys().any(|alert| alert.starts_with(rule)), "{rule} was never raised: {with:#?}");
    }
    for (kind, count) in &kept_back {
        assert!(*count > 0.0, "no {kind} stayed in the kernel: {kept_back:?}");
    }
    assert!(none.values().all(|count| *count == 0.0), "{none:?}");
    lost
}

/// Opens and connects in a container: of calm names, then of the hidden ones, by links and after renames.
fn in_container(container: &Container<'_>) {
    let script = "
        cd /srv
        for i in 1 2 3 4 5 6 7 8 9 10; do cat /srv/calm/file calm/file; echo x > /tmp/pushdown-$i; echo x > /tmp/pushdown.boring; usleep 4000; done
        ln -s /srv/hidden/file /tmp/pushdown-link; ln /srv/hidden/file /tmp/treasure
        for i in 1 2 3 4 5 6; do cat /tmp/pushdown-link /tmp/treasure /srv/calm/../hidden/file; done
        mv /srv/calm /srv/hidden/calm
        for i in 1 2 3; do cat /srv/hidden/calm/file hidden/calm/file; done
    ";
    container.exec(&["/bin/sh", "-c", script]).expect("ran");
    for _ in 0..ROUNDS {
        for address in ["127.0.0.1:4710", "127.0.0.1:4711", "/run/runtime.sock", "/run/other.sock"] {
            container.exec(&["/usr/bin/payload", "connect", address]).expect("ran");
        }
        thread::sleep(PAUSE);
    }
}

/// Done by this program in a process of its own, on the host.
#[test]
fn the_workload() {
    let Some(work) = env::var_os(WORKLOAD).map(PathBuf::from) else { return };
    opens(&work);
    bind_mount(&work);
    calls(&work);
    connects();
    renamed_parent(&work);
}

fn repeat(what: impl Fn()) {
    for _ in 0..ROUNDS {
        what();
        thread::sleep(PAUSE);
    }
}

fn read(path: &Path) {
    // Whether it is there is part of the workload.
    let _ = fs::read(path);
}

fn opens(work: &Path) {
    let (calm, hidden) = (work.join("calm"), work.join("hidden"));
    fs::create_dir_all(calm.join("deep")).expect("made");
    fs::create_dir(&hidden).expect("made");
    for file in [calm.join("deep/file"), calm.join("moved"), hidden.join("file")] {
        fs::write(file, "x").expect("written");
    }
    symlink(hidden.join("file"), work.join("link")).expect("linked");
    fs::hard_link(hidden.join("file"), work.join("treasure")).expect("linked");
    env::set_current_dir(&calm).expect("there");
    repeat(|| {
        read(&calm.join("deep/file"));
        read(&calm.join("moved"));
        read(Path::new("deep/file"));
        read(Path::new("../calm/./moved"));
        read(&calm.join("not there"));
        fs::write(work.join("boring"), "x").expect("written");
    });
    repeat(|| {
        read(&work.join("link"));
        read(&work.join("treasure"));
        read(Path::new("../hidden/file"));
        read(Path::new("/proc/self/cwd/../hidden/file"));
    });
    // The same file descriptors, the same inodes, the same relative name: only the names above have changed.
    fs::rename(calm.join("moved"), hidden.join("moved")).expect("renamed");
    repeat(|| read(&hidden.join("moved")));
    fs::rename(&calm, hidden.join("calm")).expect("renamed");
    repeat(|| {
        read(Path::new("deep/file"));
        read(&hidden.join("calm/deep/file"));
    });
    fs::rename(hidden.join("calm"), &calm).expect("renamed");
    repeat(|| read(Path::new("deep/file")));
    env::set_current_dir("/").expect("there");
}

/// In a mount namespace of its own: a calm name for what is hidden.
fn bind_mount(work: &Path) {
    let place = work.join("bound");
    fs::create_dir(&place).expect("made");
    fs::write(place.join("file"), "x").expect("written");
    let script = "i=0; while [ $i -lt 6 ]; do cat \"$2/file\"; i=$((i+1)); sleep 0.01; done
        mount --bind \"$1\" \"$2\"; i=0; while [ $i -lt 6 ]; do cat \"$2/file\"; i=$((i+1)); sleep 0.01; done";
    let status = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"])
        .args([&work.join("hidden"), &place])
        .stdout(Stdio::null())
        .status();
    assert!(status.expect("ran").success(), "the bind mount failed");
}

fn calls(work: &Path) {
    let file = CString::new(work.join("boring").into_os_string().into_encoded_bytes()).expect("a name");
    let text = [0_u8; 64];
    repeat(|| {
        // SAFETY: calls that change nothing of this process, on buffers that are there.
        unsafe {
            libc::prctl(libc::PR_GET_NAME, text.as_ptr(), 0, 0, 0);
            libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0);
            libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0);
            libc::ptrace(libc::PTRACE_PEEKDATA, 0x7fff_0000, 0, 0);
            libc::ptrace(libc::PTRACE_ATTACH, 0x7fff_0000, 0, 0);
            for command in [0_i32, 1, 11, 12] {
                libc::syscall(libc::SYS_bpf, command, text.as_ptr(), 0);
            }
            for mode in [0o644, 0o600, 0o4755] {
                libc::chmod(file.as_ptr(), mode);
            }
        }
    });
}

/// This process takes another name while its child waits, and from then on does what stays in the kernel.
fn renamed_parent(work: &Path) {
    let file = work.join("calm/deep/file");
    let mut child = Command::new("sh")
        .args(["-c", "read go; cat \"$1\"; exec cat \"$1\"", "sh"])
        .arg(&file)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("started");
    let name = fs::read("/proc/self/comm").expect("a name");
    fs::write("/proc/self/comm", "pushed-down").expect("renamed");
    repeat(|| read(&file));
    child.stdin.take().expect("a pipe").write_all(b"go\n").expect("written");
    assert!(child.wait().expect("ran").success(), "the child failed");
    fs::write("/proc/self/comm", name.trim_ascii_end()).expect("renamed");
}

fn connects() {
    repeat(|| {
        for port in [4710, 4711, 4713] {
            // Nobody listens: what counts is what was asked for.
            let _ = std::net::TcpStream::connect(("127.0.0.1", port));
            let _ = std::net::UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.connect(("127.0.0.1", port)));
        }
        for path in ["/nowhere/runtime.sock", "/nowhere/other.sock"] {
            let _ = std::os::unix::net::UnixStream::connect(path);
        }
    });
}
