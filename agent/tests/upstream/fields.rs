//! What fields say of real events of a real container, against what the test knows of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::{Value, json};
use xtask::agent::{Agent, Alert, Options};
use xtask::rig::containerd::{Container, Containerd, RunOptions};
use xtask::rig::image::Written;
use xtask::rig::unique_name;

use super::common;
use super::stage::{self, IMAGE, POD};

/// A rule for each event that is looked at, told from others by the variable of its process.
const RULES: &str = r"
- rule: started
  desc: A program
  condition: evt.type = execve and proc.name = vi and proc.env[TRIGGER] = started
  output: started
  priority: INFO
- rule: opened
  desc: A file
  condition: evt.type = openat and fd.name = /etc/hostname and proc.env[TRIGGER] = opened
  output: opened
  priority: INFO
- rule: missed
  desc: A file that is not there
  condition: evt.type = openat and fd.name = /etc/none and proc.env[TRIGGER] = missed
  output: missed
  priority: INFO
- rule: connected
  desc: A connection
  condition: evt.type = connect and proc.env[TRIGGER] = connected
  output: connected
  priority: INFO
- rule: begun
  desc: A connection whose answer is not there yet
  condition: evt.type = connect and proc.env[TRIGGER] = begun
  output: begun
  priority: INFO
";

/// What a field has to be.
enum Want {
    Is(Value),
    /// A number above this one.
    Above(i64),
    /// A text with this in it.
    Has(&'static str),
    Null,
}

use Want::{Above, Has, Is, Null};

fn is(value: impl Into<Value>) -> Want {
    Is(value.into())
}

fn wanted(container: &Container<'_>, written: &Written) -> Vec<(&'static str, &'static str, Want)> {
    let mut wanted = of_container(container, written);
    wanted.extend(of_program());
    wanted.extend(of_files());
    wanted.extend(of_connection());
    wanted
}

fn of_container(container: &Container<'_>, written: &Written) -> Vec<(&'static str, &'static str, Want)> {
    let short: String = container.id().chars().take(12).collect();
    let config = written.config_digest.trim_start_matches("sha256:");
    vec![
        ("started", "container.id", is(short)),
        ("started", "container.full_id", is(container.id())),
        ("started", "container.name", is("shop")),
        ("started", "container.type", is("containerd")),
        ("started", "container.privileged", is(false)),
        ("started", "container.image", is(IMAGE)),
        ("started", "container.image.repository", is("local.test/triggers")),
        ("started", "container.image.tag", is("1")),
        ("started", "container.image.id", is(config)),
        ("started", "container.image.digest", is(written.manifest_digest.as_str())),
        ("started", "container.mounts", Has(":/mnt/etc:")),
        ("started", "container.mount.dest[shared$]", is("/mnt/etc")),
        ("started", "container.mount.dest[/no/such/source]", Null),
        ("started", "container.mount.source[/mnt/etc]", Has("/shared")),
        ("started", "container.mount.rdwr[shared$]", is("false")),
        ("started", "container.start_ts", Above(1_700_000_000_000_000_000)),
        ("started", "container.duration", Above(0)),
        ("started", "container.healthcheck", Null),
        ("started", "container.host_pid", is(false)),
        // Not everyone may look at the host's.
        ("started", "container.host_network", fs::read_link("/proc/1/ns/net").map_or(Null, |_| is(false))),
        ("started", "container.host_ipc", is(false)),
        ("started", "container.label[team]", is("a")),
        ("started", "k8s.pod.name", is("shop-0")),
        ("started", "k8s.ns.name", is("payments")),
    ]
}

/// Started as user 1000 by the payload, as leader of a session with a terminal.
fn of_program() -> Vec<(&'static str, &'static str, Want)> {
    vec![
        ("started", "evt.type", is("execve")),
        ("started", "evt.dir", is("<")),
        ("started", "evt.category", is("process")),
        ("started", "evt.res", is("SUCCESS")),
        ("started", "evt.rawres", is(0)),
        ("started", "evt.failed", is(false)),
        ("started", "evt.buffer", Null),
        ("started", "evt.arg.exe", is("/bin/vi")),
        ("started", "evt.arg.filename", is("/bin/vi")),
        ("started", "evt.arg.flags", is("EXE_LOWER_LAYER")),
        ("started", "evt.arg.uid", is("1000")),
        ("started", "evt.arg.nowhere", Null),
        ("started", "evt.args", Has("flags=8(EXE_LOWER_LAYER)")),
        ("started", "evt.info", Has("exe=/bin/vi args=a b c ")),
        ("started", "proc.name", is("vi")),
        ("started", "proc.exe", is("/bin/vi")),
        ("started", "proc.exepath", is("/bin/payload")),
        ("started", "proc.args", is("a b c")),
        ("started", "proc.args[0]", is("a")),
        ("started", "proc.args[1]", is("b c")),
        ("started", "proc.args[2]", is("")),
        ("started", "proc.cmdline", is("vi a b c")),
        ("started", "proc.exeline", is("/bin/vi a b c")),
        ("started", "proc.cmdnargs", is(2)),
        ("started", "proc.cmdlenargs", is(4)),
        ("started", "proc.cwd", is("/tmp/")),
        ("started", "proc.env[TRIGGER]", is("started")),
        ("started", "proc.env[NONE]", is("")),
        ("started", "proc.tty", Above(34_815)),
        ("started", "proc.vpid", Above(1)),
        ("started", "proc.is_vpgid_leader", is(true)),
        ("started", "proc.is_sid_leader", is(true)),
        ("started", "proc.sname", is("vi")),
        ("started", "proc.pname", is("payload")),
        ("started", "proc.pexe", is("/bin/payload")),
        ("started", "proc.pexepath", is("/bin/payload")),
        ("started", "proc.pcmdline", is("payload batch /mnt/etc/batch")),
        ("started", "proc.aname[1]", is("payload")),
        ("started", "proc.aexe[1]", is("/bin/payload")),
        ("started", "proc.aexepath[1]", is("/bin/payload")),
        ("started", "proc.acmdline[1]", is("payload batch /mnt/etc/batch")),
        ("started", "proc.aargs[1]", is("batch /mnt/etc/batch")),
        ("started", "proc.aenv[SHOP]", is("open")),
        ("started", "proc.duration", Above(0)),
        ("started", "proc.ppid.duration", Above(0)),
        ("started", "proc.is_exe_writable", is(false)),
        ("started", "proc.is_exe_upper_layer", is(false)),
        ("started", "proc.is_exe_lower_layer", is(true)),
        ("started", "proc.is_exe_from_memfd", is(false)),
        ("started", "proc.exe_ino", Above(0)),
        ("started", "proc.exe_ino.mtime", is(0)),
        ("started", "proc.exe_ino.ctime", Above(1_700_000_000_000_000_000)),
        ("started", "proc.exe_ino.ctime_duration_proc_start", Above(0)),
        ("started", "user.uid", is(1000)),
        ("started", "user.name", is("alice")),
        ("started", "user.homedir", is("/")),
        ("started", "user.shell", is("/bin/sh")),
        ("started", "user.loginuid", is(-1)),
        ("started", "user.loginname", is("<NA>")),
        ("started", "group.gid", is(1000)),
        ("started", "group.name", is("alice")),
        ("started", "thread.cap_permitted", is("")),
        ("started", "fd.name", Null),
        ("opened", "user.name", is("root")),
        ("opened", "group.name", is("root")),
        ("opened", "thread.cap_permitted", Has("CAP_CHOWN CAP_DAC_OVERRIDE")),
        ("opened", "thread.cap_effective", Has("CAP_SETUID")),
        ("opened", "thread.cap_inheritable", is("")),
        ("opened", "proc.tty", is(0)),
        ("opened", "proc.is_vpgid_leader", is(false)),
    ]
}

fn of_files() -> Vec<(&'static str, &'static str, Want)> {
    vec![
        ("opened", "evt.type", is("openat")),
        ("opened", "evt.is_open_read", is(true)),
        ("opened", "evt.is_open_write", is(false)),
        ("opened", "evt.is_open_exec", is(false)),
        ("opened", "evt.is_open_create", is(false)),
        ("opened", "evt.arg.flags", Has("O_RDONLY")),
        ("opened", "evt.arg.name", is("etc/../etc/hostname")),
        ("opened", "evt.arg.fd", is("<f>/etc/hostname")),
        ("opened", "evt.arg.dirfd", is("AT_FDCWD")),
        ("opened", "evt.arg.mode", is("0")),
        ("opened", "fd.num", Above(2)),
        ("opened", "fd.type", is("file")),
        ("opened", "fd.typechar", is("f")),
        ("opened", "fd.name", is("/etc/hostname")),
        ("opened", "fd.nameraw", is("etc/../etc/hostname")),
        ("opened", "fd.directory", is("/etc")),
        ("opened", "fd.filename", is("hostname")),
        ("opened", "fd.ino", Above(0)),
        ("opened", "fd.is_lower_layer", is(true)),
        ("opened", "fd.is_upper_layer", is(false)),
        ("opened", "fs.path.name", is("/etc/hostname")),
        ("opened", "fs.path.nameraw", is("etc/../etc/hostname")),
        ("opened", "fd.sip", Null),
        ("opened", "fd.l4proto", Null),
        ("opened", "proc.cwd", is("/")),
        ("missed", "fd.num", is(-1)),
        ("missed", "fd.name", is("/etc/none")),
        ("missed", "fd.typechar", is("f")),
        ("missed", "evt.res", is("ENOENT")),
        ("missed", "evt.rawres", is(-2)),
        ("missed", "evt.failed", is(true)),
        ("missed", "evt.arg.fd", is("ENOENT")),
        ("missed", "fd.ino", Null),
    ]
}

fn of_connection() -> Vec<(&'static str, &'static str, Want)> {
    vec![
        ("connected", "evt.type", is("connect")),
        ("connected", "evt.category", is("net")),
        ("connected", "evt.res", is("SUCCESS")),
        ("connected", "evt.rawres", is(0)),
        ("connected", "evt.arg.res", is("0")),
        ("connected", "evt.arg.addr", is("192.0.2.1:80")),
        ("connected", "evt.arg.tuple", Has("->192.0.2.1:80")),
        ("connected", "fd.num", Above(2)),
        ("connected", "fd.type", is("ipv4")),
        ("connected", "fd.typechar", is("4")),
        ("connected", "fd.name", Has("->192.0.2.1:80")),
        ("connected", "fd.sip", is("192.0.2.1")),
        ("connected", "fd.rip", is("192.0.2.1")),
        ("connected", "fd.cip", is("192.0.2.1")),
        ("connected", "fd.lip", is("192.0.2.1")),
        ("connected", "fd.sport", is(80)),
        ("connected", "fd.rport", is(80)),
        ("connected", "fd.cport", Above(0)),
        ("connected", "fd.lport", Above(0)),
        ("connected", "fd.sproto", is("http")),
        ("connected", "fd.rproto", is("http")),
        ("connected", "fd.l4proto", is("udp")),
        ("connected", "fd.sockfamily", is("ip")),
        ("connected", "fd.is_server", is(false)),
        ("connected", "fd.connected", is(true)),
        ("connected", "fd.name_changed", is(true)),
        ("connected", "fd.sip.name", Null),
        ("connected", "fd.directory", Null),
        ("begun", "evt.res", is("EINPROGRESS")),
        ("begun", "evt.rawres", is(-115)),
        ("begun", "evt.arg.res", is("EINPROGRESS")),
        ("begun", "fd.l4proto", is("tcp")),
        ("begun", "fd.connected", is(false)),
        ("begun", "fd.sip", is("192.0.2.1")),
        ("begun", "fd.sport", is(80)),
    ]
}

#[test]
fn fields_say_what_is_known_of_real_events() {
    if !common::is_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("directory");
    let rig = Containerd::start().expect("containerd");
    let written = stage::import(&rig, directory.path(), &BTreeSet::from(["payload", "vi"]));
    let shared = directory.path().join("shared");
    fs::create_dir(&shared).expect("directory");
    let batch = "started\tpayload\tin\t/tmp\tpayload\tterminal\tpayload\tuser\t1000\tvi\ta\tb c\n\
                 opened\tpayload\topenat\tetc/../etc/hostname\t0\n\
                 missed\tpayload\topenat\t/etc/none\t0\n\
                 connected\tpayload\tconnect\t192.0.2.1:80\tudp\n\
                 begun\tpayload\tconnect\t192.0.2.1:80\tbegin\n";
    fs::write(shared.join("batch"), batch).expect("batch");
    let flags = ["--label", "team=a", "--env", "SHOP=open"].iter().chain(&POD).map(|&flag| flag.to_owned()).collect();
    let options = RunOptions { flags, mounts: vec![(shared, "/mnt/etc".to_owned(), false)] };
    // It runs before the agent does: what is known of its first process comes from /proc.
    let container = rig.start_container_with(IMAGE, &unique_name("fields"), &[], &options).expect("container");
    stage::give_addresses(&container);

    let wanted = wanted(&container, &written);
    // Unknown arguments are no fields of any event.
    let fields: BTreeSet<&str> =
        wanted.iter().map(|(_, field, _)| *field).filter(|field| *field != "evt.arg.nowhere").collect();
    let names: Vec<String> = fields.iter().map(|field| format!("\"{field}\"")).collect();
    let config = format!(
        "append_output: [{{extra_fields: [{}]}}]\nsensor: {{ring_bytes: 64MiB}}\nmanifest: {{cache_dir: {}}}\n",
        names.join(", "),
        directory.path().join("cache").display()
    );
    let rules = vec![common::rules_file(directory.path(), RULES)];
    let agent = common::start(&Options { config, rules, args: Vec::new() });
    let ended = container.exec_ok(&["/bin/payload", "batch", "/mnt/etc/batch"]).expect("batch");
    for line in ["batch started 0", "batch opened 0", "batch connected 0", "batch begun 0"] {
        assert!(ended.contains(line), "{ended}");
    }
    compare(&alerts(&agent), &wanted);
}

/// The first alert of each rule.
fn alerts(agent: &Agent) -> BTreeMap<String, Alert> {
    let mut alerts = BTreeMap::new();
    while alerts.len() < 5 {
        let alert = common::wait_for(agent, "each rule", |alert| !alerts.contains_key(&alert.rule));
        alerts.insert(alert.rule.clone(), alert);
    }
    alerts
}

fn compare(alerts: &BTreeMap<String, Alert>, wanted: &[(&str, &str, Want)]) {
    let mut wrong = Vec::new();
    for (rule, field, want) in wanted {
        let got = alerts[*rule].output_fields.get(*field).cloned().unwrap_or(Value::Null);
        let holds = match want {
            Is(value) => got == *value,
            Above(bound) => got.as_i64().is_some_and(|number| number > *bound),
            Has(part) => got.as_str().is_some_and(|text| text.contains(part)),
            Null => got.is_null(),
        };
        if !holds {
            let wanted = match want {
                Is(value) => value.clone(),
                Above(bound) => json!(format!("above {bound}")),
                Has(part) => json!(format!("with {part}")),
                Null => Value::Null,
            };
            wrong.push(format!("{rule}: {field} is {got}, not {wanted}"));
        }
    }
    println!("{} of {} fields as they have to be", wanted.len() - wrong.len(), wanted.len());
    assert!(wrong.is_empty(), "{wrong:#?}");
}
