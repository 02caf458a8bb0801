//! Records what rules see of the events in containers while a command runs, for `cargo xtask bench rules`:
//! `cargo run --release -p agent --example record -- OUTPUT.jsonl.gz RULES.yaml... -- COMMAND [ARG...]`, as root.
//! `rules/benches/record.sh` makes the recording in the repository with it.
//!
//! Every field of the catalogue, and every field with an argument that the rules read, is asked for through the agent's own
//! [`Sight`], once per name of an event's file, as the pipeline does. So that a recording tells nothing of the machine it was
//! made on, and looks like one of a pod, some things are stand-ins: ancestors outside of the container, its image and
//! its pod, and the name of the host. At the end the rules are timed on the same events through `Sight` itself.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a tool for the terminal")]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bumpalo::Bump;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use purser::container::{Container, Containers, ContainersConfig, Image, Lookup, Pod};
use purser::decode::decode;
use purser::event::{Body, Exec, FileIdentity};
use purser::facts::{Lineage, Names, Sight};
use purser::live::Live;
use purser::manifest::{Config, ExecFile, Judgement, LayerLimits, ManifestStore, VerdictService};
use purser::outside::{Answers, Outside};
use purser::pipeline::Seen;
use purser::process::{Process, ProcessKey, ProcessTable, Procfs, Program, User};
use purser::sensor::{Policy, Sensor, SensorConfig};
use purser_rules::format::Clock;
use purser_rules::parse::{Operand, parse_operand_prefix};
use purser_rules::{
    Arg, Catalogue, Fact, Facts as _, Field, FieldId, FieldRef, LoadOptions, Matches, Needs, RuleSet, Source, Type,
    Value,
};
use serde_json::{Value as Json, json};

/// Fields whose argument follows a dot.
const DOTTED: [&str; 4] = ["evt.arg", "evt.rawarg", "evt.type.is", "evt.abspath"];
/// How often the rules are evaluated on each event between two looks at the clock, and how often that is done: the shortest
/// counts.
const REPETITIONS: u32 = 20;
const BATCHES: usize = 10;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let dashes = args.iter().position(|arg| arg == "--").context("usage: record OUTPUT RULES... -- COMMAND...")?;
    let ([output, rules @ ..], [_, program, words @ ..]) = args.split_at(dashes) else {
        bail!("usage: record OUTPUT RULES... -- COMMAND...")
    };
    let rules = load(rules)?;
    let (seen, answered) = watch(Command::new(program).args(words))?;
    eprintln!("{} events in containers", seen.len());
    let fields = fields(&rules);
    write(Path::new(output), &fields, &seen, &answered)?;
    time(&rules, &seen, &answered);
    Ok(())
}

fn load(files: &[String]) -> Result<RuleSet> {
    let texts = files
        .iter()
        .map(|file| Ok((file, fs::read(file).with_context(|| format!("cannot read {file}"))?)))
        .collect::<Result<Vec<_>>>()?;
    let sources: Vec<Source<'_>> = texts.iter().map(|(name, text)| Source { name, text }).collect();
    let enable = purser_rules::Selection { enable: true, by: purser_rules::Selector::Wildcard("*".to_owned()) };
    let options = LoadOptions { selection: vec![enable], ..LoadOptions::default() };
    Ok(RuleSet::load(&sources, &options)?.0)
}

/// What was answered while the container was there.
#[derive(Default)]
struct Answered {
    users: HashMap<u32, Option<User>>,
    groups: HashMap<u32, Option<Bytes>>,
}

impl Outside for Answered {
    fn processes(&self) -> Vec<u32> {
        Vec::new()
    }
    fn process(&self, _: u32) -> Option<Process> {
        None
    }
    fn identity(&mut self, _: u64, _: u32) -> Lookup {
        Lookup::Unknown
    }
    fn cgroup_made(&mut self, _: u64, _: &[u8], _: u32) {}
    fn cgroup_removed(&mut self, _: u64) {}
    fn judge(&mut self, _: u64, _: &Arc<Container>, _: ExecFile) -> Option<Judgement> {
        None
    }
    fn answers(&mut self) -> Answers {
        Answers::default()
    }
    fn user(&self, _: Option<&Container>, uid: u32) -> Option<User> {
        self.users.get(&uid).cloned().flatten()
    }
    fn group_name(&self, _: Option<&Container>, gid: u32) -> Option<Bytes> {
        self.groups.get(&gid).cloned().flatten()
    }
    fn prepare(&mut self, _: &Needs) {}
    fn domains(&self, _: IpAddr) -> &[Bytes] {
        &[]
    }
    fn epoch_offset_ns(&self) -> i64 {
        0
    }
}

/// An event and its ancestors.
struct Watched {
    seen: Seen,
    lineage: Vec<Arc<Process>>,
}

/// The events of containers until the command has ended.
fn watch(command: &mut Command) -> Result<(Vec<Watched>, Answered)> {
    let mut containers = Containers::new(&ContainersConfig::default())?;
    containers.scan();
    let procfs = Procfs::new("/proc", containers.cgroup2_mount().map(Path::to_owned));
    let store = ManifestStore::new(None, LayerLimits::default());
    let verdicts = VerdictService::start(Config::default(), store, Box::new(|| {}))?;
    let mut live = Live::new(procfs, containers, verdicts);
    let mut sensor = Sensor::start(&SensorConfig::default(), &Policy::everything())?;
    let mut table = ProcessTable::default();
    table.scan(&live);
    let mut child = command.spawn().context("cannot start the command")?;
    let (mut watched, mut answered, mut previous) = (Vec::new(), Answered::default(), 0);
    let mut ended: Option<Instant> = None;
    while ended.is_none_or(|at| at.elapsed() < Duration::from_secs(1)) {
        let mut events = Vec::new();
        sensor.poll(Duration::from_millis(20), &mut |record| events.extend(decode(record)))?;
        for event in events {
            if let Body::Cgroup(cgroup) = &event.body {
                if cgroup.made {
                    live.cgroup_made(cgroup.id, &cgroup.path, event.task.tgid);
                } else {
                    live.cgroup_removed(cgroup.id);
                }
                continue;
            }
            let process = table.apply(&event, &live);
            let Lookup::Container(container) = live.identity(event.task.cgroup_id, event.task.tgid) else { continue };
            for uid in [event.task.euid, event.task.loginuid] {
                answered.users.entry(uid).or_insert_with(|| live.user(Some(&container), uid));
            }
            let gid = event.task.egid;
            answered.groups.entry(gid).or_insert_with(|| live.group_name(Some(&container), gid));
            let lineage = lineage(&table, &process, &mut live);
            let boot_ns = event.header.boot_ns;
            let number = watched.len() as u64 + 1;
            let container = Some(Arc::new(in_pod(&container)));
            watched.push(Watched {
                seen: Seen { number, event, process, container, previous_boot_ns: previous },
                lineage,
            });
            previous = boot_ns;
        }
        live.answers();
        if ended.is_none() && child.try_wait()?.is_some() {
            ended = Some(Instant::now());
        }
    }
    for (stage, reason, count) in sensor.losses().into_iter().filter(|(.., count)| *count > 0) {
        eprintln!("lost: {count} events ({stage}, {reason})");
    }
    Ok((watched, answered))
}

/// The ancestors inside of the container, then those that a container of a pod has.
fn lineage(table: &ProcessTable, process: &Arc<Process>, live: &mut Live) -> Vec<Arc<Process>> {
    let mut inside: Vec<Arc<Process>> = Vec::new();
    for ancestor in table.ancestors(process) {
        if !matches!(live.identity(ancestor.cgroup_id, ancestor.key.tgid), Lookup::Container(_)) {
            let systemd = ProcessKey { tgid: 1, start_ticks: 1 };
            let shim =
                "/usr/bin/containerd-shim-runc-v2\0-namespace\0k8s.io\0-address\0/run/containerd/containerd.sock";
            let shim = stand_in(ancestor, ancestor.key, Some(systemd), "containerd-shim", shim);
            inside.push(Arc::new(shim));
            inside.push(Arc::new(stand_in(ancestor, systemd, None, "systemd", "/usr/lib/systemd/systemd\0--system")));
            break;
        }
        inside.push(Arc::clone(ancestor));
    }
    inside
}

fn stand_in(like: &Process, key: ProcessKey, parent: Option<ProcessKey>, name: &str, argv: &'static str) -> Process {
    let mut comm = [0; 16];
    comm[..name.len()].copy_from_slice(name.as_bytes());
    let path = argv.split('\0').next().unwrap_or_default();
    let exec = Exec {
        file: FileIdentity::default(),
        path: path.into(),
        fs_path: "".into(),
        filename: path.into(),
        interp: "".into(),
        argv: argv.into(),
        argv_truncated: false,
        envp: "".into(),
        envp_truncated: false,
        cwd: "/".into(),
    };
    Process { key, parent, comm, program: Arc::new(Program::from_exec(&exec, 0)), ..like.clone() }
}

/// The container with an image and a pod.
fn in_pod(container: &Container) -> Container {
    let image = Image { reference: "registry.example/build/debian:12".to_owned(), ..Image::default() };
    let pod = Pod {
        name: "builder-0".to_owned(),
        namespace: "build".to_owned(),
        uid: "6f1d2a52-7c0b-4a39-9c3e-0d2f6a3b1c11".to_owned(),
        sandbox_id: "3b9f61c0a2d8".to_owned(),
        labels: Vec::new(),
    };
    Container {
        name: "builder".to_owned(),
        image: Some(image),
        pod: Some(pod),
        mounts: Vec::new(),
        ..container.clone()
    }
}

fn sight<'a>(watched: &'a Watched, name: &'a [u8], answered: &'a Answered, arena: &'a Bump) -> Sight<'a> {
    let seen = &watched.seen;
    Sight {
        number: seen.number,
        event: &seen.event,
        process: &seen.process,
        lineage: Lineage::Kept(&watched.lineage),
        container: seen.container.as_deref(),
        name,
        epoch_offset_ns: 0,
        started_boot_ns: 0,
        previous_boot_ns: seen.previous_boot_ns,
        clock: Clock::default(),
        outside: answered,
        arena,
        user: OnceCell::new(),
    }
}

/// A field to record, with its argument.
struct Column {
    id: FieldId,
    name: String,
    arg: Json,
}

impl Column {
    fn field(&self) -> FieldRef<'_> {
        let arg = match &self.arg {
            Json::Number(index) => Arg::Index(index.as_u64().unwrap_or_default()),
            Json::String(key) => Arg::Key(key.as_bytes()),
            _ => Arg::None,
        };
        FieldRef { id: self.id, arg }
    }
}

/// Every field of the catalogue that needs no argument, then those with an argument that the rules read. Times, numbers that
/// no two events share, and texts made of other fields are left out unless rules read them: they would be most of the file.
fn fields(rules: &RuleSet) -> Vec<Column> {
    use purser_rules::catalogue::FieldFlags;
    let catalogue = Catalogue::builtin();
    let left_out = FieldFlags::ARG_REQUIRED.with(FieldFlags::TIME).with(FieldFlags::DEPRECATED);
    let unlike = |field: &Field| {
        matches!(field.ty, Type::AbsTime | Type::RelTime)
            || matches!(
                field.id,
                FieldId::EVT_NUM
                    | FieldId::EVT_ARGS
                    | FieldId::EVT_INFO
                    | FieldId::FD_UID
                    | FieldId::FD_CONTAINERNAME
                    | FieldId::FD_CONTAINERDIRECTORY
            )
    };
    let read = |field: &Field| {
        field.id != FieldId::EVT_NUM && rules.rules().iter().any(|rule| rule.fields.contains(&field.id))
    };
    let plain = catalogue.fields().iter().filter(|field| !field.flags.has(left_out) && (!unlike(field) || read(field)));
    let mut columns: Vec<Column> =
        plain.map(|field| Column { id: field.id, name: field.name.to_string(), arg: Json::Null }).collect();
    let mut known = BTreeSet::new();
    for rule in rules.rules() {
        for word in rule.condition.split([' ', '(', ')', ',']) {
            let Ok((Operand::Field { name, arg, .. }, _)) = parse_operand_prefix(word.as_bytes(), true) else {
                continue;
            };
            let dotted = DOTTED.iter().find_map(|base| Some((*base, name.strip_prefix(base)?.strip_prefix('.')?)));
            let (base, arg) = match (dotted, &arg) {
                (Some((base, key)), _) => (base, key.to_owned()),
                (None, Some(arg)) => (name.as_str(), String::from_utf8_lossy(arg).into_owned()),
                (None, None) => continue,
            };
            let arg = arg.parse::<u64>().map_or_else(|_| Json::from(arg), Json::from);
            if let Some(field) = catalogue.get(base)
                && known.insert((base.to_owned(), arg.to_string()))
            {
                columns.push(Column { id: field.id, name: base.to_owned(), arg });
            }
        }
    }
    columns
}

/// One line with the fields and the distinct values, then one per event and name: the event, and for each field the number of
/// its value, 0 for none.
fn write(path: &Path, columns: &[Column], watched: &[Watched], answered: &Answered) -> Result<()> {
    let mut values: Vec<Json> = vec![Json::Null];
    let mut known: HashMap<String, usize> = HashMap::new();
    let mut rows = Vec::new();
    let mut arena = Bump::new();
    for watched in watched {
        for name in Names::of(&watched.seen.event).iter() {
            arena.reset();
            let sight = sight(watched, name, answered, &arena);
            let mut row = vec![Json::from(sight.event().name())];
            for column in columns {
                let value = recorded(&sight, column.field());
                let number = if value.is_null() {
                    0
                } else {
                    *known.entry(value.to_string()).or_insert_with(|| {
                        values.push(value);
                        values.len() - 1
                    })
                };
                row.push(number.into());
            }
            rows.push(Json::from(row));
        }
    }
    let fields: Vec<Json> = columns.iter().map(|column| json!([column.name, column.arg])).collect();
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut out = GzEncoder::new(BufWriter::new(file), Compression::best());
    writeln!(out, "{}", json!({ "fields": fields, "values": values }))?;
    for row in rows {
        writeln!(out, "{row}")?;
    }
    out.finish()?.flush()?;
    Ok(())
}

/// A fact as JSON: null, or an object that says how the value is held.
fn recorded(sight: &Sight<'_>, field: FieldRef<'_>) -> Json {
    if field.id == FieldId::EVT_HOSTNAME {
        return json!({ "text": "node-1" });
    }
    match sight.fact(field) {
        Fact::Missing(_) => Json::Null,
        Fact::Pending => json!("pending"),
        Fact::One(value) => shown(value),
        Fact::Many(count) => {
            let element = |nth| match sight.element(field, nth) {
                Fact::One(value) => shown(value),
                _ => Json::Null,
            };
            json!({ "many": (0..count).map(element).collect::<Vec<_>>() })
        }
    }
}

fn shown(value: Value<'_>) -> Json {
    match value {
        Value::Text(text) => json!({ "text": String::from_utf8_lossy(text) }),
        Value::Bytes(bytes) => json!({ "bytes": String::from_utf8_lossy(bytes) }),
        Value::Bool(value) => json!({ "bool": value }),
        Value::I64(value) => json!({ "signed": value }),
        Value::U64(value) => json!({ "unsigned": value }),
        Value::F64(value) => json!({ "double": value }),
        Value::Ip(value) => json!({ "ip": value.to_string() }),
        Value::Net(value) => json!({ "net": value.to_string() }),
    }
}

/// Prints what the rules cost on the events through the agent's own facts.
fn time(rules: &RuleSet, watched: &[Watched], answered: &Answered) {
    let (mut arena, mut matches) = (Bump::new(), Matches::new());
    let mut times: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for watched in watched {
        for name in Names::of(&watched.seen.event).iter() {
            let batches = (0..BATCHES).map(|_| {
                let start = Instant::now();
                for _ in 0..REPETITIONS {
                    arena.reset();
                    rules.evaluate(&sight(watched, name, answered, &arena), &mut matches);
                }
                start.elapsed().as_nanos() as f64 / f64::from(REPETITIONS)
            });
            let ns = batches.fold(f64::INFINITY, f64::min);
            times.entry("all").or_default().push(ns);
            times.entry(watched.seen.event.header.event.name()).or_default().push(ns);
        }
    }
    println!("through the agent's own facts, ns per event evaluated:");
    for (name, mut times) in times {
        times.sort_by(f64::total_cmp);
        let at = |part: usize| times.get((times.len() * part / 100).min(times.len() - 1)).copied().unwrap_or_default();
        println!("  {name}: {} evaluated, median {:.0}, p99 {:.0}", times.len(), at(50), at(99));
    }
}
