//! `purser.yaml`: every key, its default, its meaning and its checks, in one place. It reads files and gives values;
//! it starts nothing.
//!
//! A key that means what a key of `falco.yaml` means has its name. `docs/config.md` is written from the comments here
//! (`Config::reference`) and held to them by a test.

mod live;
mod schema;
mod throttle;
mod units;

use std::{
    fmt::{self, Write as _},
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use purser_rules::{ExtraFieldSpec, LoadOptions, Selection, Selector};
use serde::{
    Deserialize,
    de::{self, Deserializer, MapAccess, Visitor},
};

use self::schema::{sections, words};
pub use self::{
    schema::{Key, Value},
    throttle::{Dedup, ExemptPriority, RateLimit, Throttle},
    units::{Size, Span, UnitError},
};
use crate::{
    alert::Priority,
    container::{ContainerdEndpoint, ContainersConfig},
    manifest::{self, LayerLimits, hash::HashLimits},
};

/// Where `purser run` looks when `--config` is not given; a missing file there means the defaults.
pub const DEFAULT_PATH: &str = "/etc/purser/purser.yaml";

/// A configuration is written by hand: a larger file is something else.
const MAX_FILE_BYTES: u64 = 1 << 20;

sections! {
    /// The whole configuration.
    Config {
        /// Rule files and directories, loaded in this order; of a directory every `*.yaml` and `*.yml`, alphabetically.
        /// Empty: the rules embedded in the binary. Unlike Falco, a path that does not exist is an error.
        rules_files: Vec<PathBuf> = Vec::new(),
        /// Enables and disables rules by name (`*` matches any run of characters) or tag, in this order.
        rules: Vec<RuleSelection> = Vec::new(),
        /// Whether an event raises the alert of the first rule that matches, in rule order, or of all.
        rule_matching: RuleMatching = RuleMatching::First,
        /// Whether rule files and this file are watched and taken into use when they change; SIGHUP does that in any case.
        watch_config_files: bool = true,
        /// Rules below this priority are not loaded.
        priority: MinimumPriority = MinimumPriority(Priority::Debug),
        /// Alerts as JSON objects, one a line, instead of text.
        json_output: bool = false,
        /// Whether the JSON object has `output`, the text line.
        json_include_output_property: bool = true,
        /// Whether the JSON object has `message`, the text without time and priority.
        json_include_message_property: bool = false,
        /// Whether the JSON object has `tags`.
        json_include_tags_property: bool = true,
        /// Whether the JSON object has `output_fields`.
        json_include_output_fields_property: bool = true,
        /// Times as `2026-01-31T13:53:31.726060287+0000` (UTC) instead of `13:53:31.726060287` (local time).
        time_format_iso_8601: bool = false,
        /// Text and fields added to the output of rules.
        append_output: Vec<AppendOutput> = vec![AppendOutput { suggested_output: true, ..AppendOutput::default() }],
        /// Folding of alerts that repeat: the first are raised, the others are counted and come as one summary alert of the same
        /// rule when the window ends, or at once when the agent ends or the rules are loaded anew. Its `output_fields` have `folded`, their
        /// number, `folded_first` and `folded_last` (ns since the epoch), `folded_reason` (`rate` or `dedup`), `folded_window` (ns), and the fields
        /// of the key. Windows go by the time of events.
        throttle: Throttle = Throttle::default(),
        /// What is done when events are lost: the alert `Purser internal: events lost`, with counts by stage and reason.
        syscall_event_drops: SyscallEventDrops = SyscallEventDrops::default(),
        /// The queue between the worker and each sink.
        outputs_queue: OutputsQueue = OutputsQueue::default(),
        /// Alerts on standard output. Nothing else is ever written there.
        stdout_output: StdoutOutput = StdoutOutput::default(),
        /// Alerts appended to a file.
        file_output: FileOutput = FileOutput::default(),
        /// The least severe level of the agent's own log, on standard error.
        log_level: LogLevel = LogLevel::Info,
        /// Metrics and health over HTTP.
        webserver: Webserver = Webserver::default(),
        /// Which processes are watched: all of the machine, or those in containers.
        scope: Scope = Scope::All,
        /// The kernel half.
        sensor: Sensor = Sensor::default(),
        /// Where containers are described.
        container_engines: ContainerEngines = ContainerEngines::default(),
        /// The expected manifest of each image.
        manifest: Manifest = Manifest::default(),
        /// Events whose container is not known yet.
        hold: Hold = Hold::default(),
    }

    /// One step of enabling or disabling rules: exactly one of the two keys.
    RuleSelection {
        /// The rules to enable.
        enable: Option<RuleSelector> = None,
        /// The rules to disable.
        disable: Option<RuleSelector> = None,
    }

    /// Rules by name or by tag: exactly one of the two keys.
    RuleSelector {
        /// The rule's name; `*` matches any run of characters.
        rule: Option<String> = None,
        /// A tag.
        tag: Option<String> = None,
    }

    /// Text and fields added to the output of the rules that match.
    AppendOutput {
        /// Which rules; without it all.
        r#match: AppendMatch = AppendMatch::default(),
        /// A format string that is appended after one blank.
        extra_output: String = String::new(),
        /// Fields for `output_fields`: `NAME: FORMAT` (as text), or the bare name of a field (as its type).
        extra_fields: Vec<ExtraField> = Vec::new(),
        /// Adds the fields that sources suggest: container id, name and image, pod name and namespace.
        suggested_output: bool = false,
    }

    /// Which rules output is added to; every key that is given must match.
    AppendMatch {
        /// The rule's source.
        source: Option<String> = None,
        /// Tags that the rule must have, all of them.
        tags: Vec<String> = Vec::new(),
        /// The rule's name.
        rule: Option<String> = None,
    }

    /// What is done when events are lost, anywhere from the kernel to the sinks. What comes between two alerts is counted
    /// in the second; when nothing was lost for five seconds, an alert says that it has ended.
    SyscallEventDrops {
        /// What is done: `ignore` (nothing), `log`, `alert`, `exit` (the agent ends with an error).
        actions: Vec<DropAction> = vec![DropAction::Log, DropAction::Alert],
        /// The share of lost events, from 0 to 1, above which it is done, of half a second. Unlike in Falco, where it is 0.1, a
        /// single one is told of.
        threshold: f64 = 0.0,
        /// Alerts a second; those of one burst come on top.
        rate: f64 = 0.03333,
        /// Alerts that may come at once, at least 1.
        max_burst: u32 = 1,
    }

    /// The queue between the worker and each sink.
    OutputsQueue {
        /// Alerts that may wait; an alert that finds the queue full is lost and counted. At least 1: queues are bounded.
        capacity: u32 = 8192,
    }

    /// Alerts on standard output.
    StdoutOutput {
        /// Whether they are written.
        enabled: bool = true,
    }

    /// Alerts appended to a file.
    FileOutput {
        /// Whether they are written.
        enabled: bool = false,
        /// The file; it is made if missing, readable by its owner alone.
        filename: PathBuf = PathBuf::from("./events.txt"),
        /// Keeps the file open (a rotated file needs SIGUSR1 then, or SIGHUP, which reloads the rules as well); otherwise it is opened for each batch.
        keep_alive: bool = false,
    }

    /// Metrics and health over HTTP.
    Webserver {
        /// Whether there is a server.
        enabled: bool = true,
        /// The address it binds. What it shows names rules and counts, so the default is this machine alone.
        listen_address: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST),
        /// The port it binds; 0 takes a free one and logs it.
        listen_port: u16 = 8765,
        /// The path that answers 200 once every hook is attached and the rules are loaded, else 503.
        k8s_healthz_endpoint: String = "/healthz".to_owned(),
        /// Whether there is `/metrics`.
        prometheus_metrics_enabled: bool = true,
    }

    /// The kernel half.
    Sensor {
        /// The hooks: `auto` takes the best tier that the kernel allows and that was tried on it: trampolines (`b`, from Linux
        /// 6.18 on), else tracepoints alone (`c`). A tier that is asked for and not to be had is an error.
        tier: TierChoice = TierChoice::Auto,
        /// Whether 32-bit calls are seen, which a 64-bit program makes by `int 0x80`: `auto` sees them where the kernel takes any, at
        /// about 27 ns for each call of the machine; `off` hooks only the calls that rules need, at about 10 ns for each call
        /// of the machine, and is blind to 32-bit ones. Those are the costs of tier C; in tier B it leaves out the hooks of 32-bit calls.
        compat32: Compat32 = Compat32::Auto,
        /// The ring buffer to user space: a power of two, at least 64KiB.
        ring_bytes: Size = Size(8 << 20),
        /// Whether opens, connects and plain calls stay in the kernel of which the rules have said that none can match
        /// them, whoever does them. `purser doctor --pushdown` says of each rule what it means.
        pushdown: Pushdown = Pushdown::On,
    }

    /// Where containers are described. The well-known places of containerd, podman, CRI-O, Docker, runc and crun are
    /// always looked at; those named here come first.
    ContainerEngines {
        /// The host's root directory as the agent sees it: `/`, or where a pod mounts it.
        host_root: PathBuf = PathBuf::from("/"),
        /// The longest wait for one answer of a runtime.
        timeout: Span = Span(Duration::from_secs(2)),
        /// containerd, through any of its clients, CRI included.
        containerd: Containerd = Containerd::default(),
        /// podman and CRI-O, which share containers/storage.
        podman: Podman = Podman::default(),
        /// runc or crun without an engine above it.
        runc: Runc = Runc::default(),
    }

    /// containerd.
    Containerd {
        /// Further daemons.
        daemons: Vec<ContainerdDaemon> = Vec::new(),
    }

    /// A containerd daemon; both keys are needed.
    ContainerdDaemon {
        /// Its socket on the host, `grpc.address` of its configuration.
        socket: PathBuf = PathBuf::new(),
        /// Its state directory on the host, `state` of its configuration.
        state: PathBuf = PathBuf::new(),
    }

    /// podman and CRI-O.
    Podman {
        /// Further graph or run roots on the host.
        roots: Vec<PathBuf> = Vec::new(),
    }

    /// runc or crun without an engine.
    Runc {
        /// Further state directories on the host (`runc --root`).
        roots: Vec<PathBuf> = Vec::new(),
    }

    /// The expected manifest of each image.
    Manifest {
        /// Where manifests are kept between runs, by chain id.
        cache_dir: PathBuf = PathBuf::from("/var/cache/purser/manifests"),
        /// The space they may take there; the longest unused go first.
        cache_max_bytes: Size = Size(1 << 30),
        /// The memory they may take; the longest unused are read from the cache again.
        memory_max_bytes: Size = Size(64 << 20),
        /// The largest program that is hashed at exec; a larger one is `unverifiable`.
        max_file_bytes: Size = Size(512 << 20),
        /// The largest layer, inflated; an image with a larger one is `unattested`.
        max_layer_bytes: Size = Size(64 << 30),
        /// How long an alert waits for the manifest of its image; then the verdict is `unverifiable`.
        pending_timeout: Span = Span(Duration::from_secs(30)),
        /// Threads that read layers, and as many that hash files.
        workers: u16 = 1,
    }

    /// Events whose container is not known yet wait here, in order per container.
    Hold {
        /// How many may wait; on overflow the oldest go on with `container.identity=pending` and are counted.
        max_events: u32 = 4096,
        /// How long one may wait.
        max_time: Span = Span(Duration::from_secs(2)),
    }
}

words! {
    /// Which matching rules of an event raise an alert.
    RuleMatching {
        /// The first in rule order.
        First = "first",
        /// Every one.
        All = "all",
    }

    /// What is done when events are lost.
    DropAction {
        /// Nothing.
        Ignore = "ignore",
        /// A line in the agent's log.
        Log = "log",
        /// An alert.
        Alert = "alert",
        /// The agent ends.
        Exit = "exit",
    }

    /// Whether events that no rule can match stay in the kernel.
    Pushdown {
        /// They do.
        On = "on",
        /// All come that a rule may need by their type, and whatever else is decided before the first event.
        Off = "off",
    }

    /// Which processes are watched.
    Scope {
        /// All of the machine.
        All = "all",
        /// Those in containers.
        Containers = "containers",
    }

    /// Which kernel hooks are used.
    TierChoice {
        /// The best that the kernel allows.
        Auto = "auto",
        /// BPF LSM.
        A = "a",
        /// fentry trampolines.
        B = "b",
        /// Tracepoints.
        C = "c",
    }

    /// Whether 32-bit calls are seen.
    Compat32 {
        /// Where the kernel takes them.
        Auto = "auto",
        /// Never.
        Off = "off",
    }

    /// The level of the agent's own log. Falco's words for what is worse than an error are taken as `error`.
    LogLevel {
        /// What stops or damages the agent.
        Error = "error" | "emergency" | "alert" | "critical",
        /// What loses something.
        Warning = "warning",
        /// What happens once.
        Info = "info" | "notice" | "informational",
        /// What happens per container or image.
        Debug = "debug",
        /// What happens per event.
        Trace = "trace",
    }
}

/// The least urgent priority that is loaded, in any case; `info` is `informational`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MinimumPriority(pub Priority);

/// A field added to `output_fields`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtraField {
    /// Its name there.
    pub name: String,
    /// The format string of its text; `None`: the field of that name, with its type.
    pub format: Option<String>,
}

/// Why there is no configuration. Says which file, which line and what to write instead.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}{}", .path.display(), remedy(.source))]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not YAML, or a key or value is not one of ours.
    #[error("{}:{line}:{column}: {message}", .path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What is wrong there.
        message: String,
    },
    /// A value is of its type, but not allowed.
    #[error("{}: {key}: {message}", .path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The key with its sections, `sensor.ring_bytes`.
        key: &'static str,
        /// What is allowed.
        message: String,
    },
    /// A rules path cannot be read.
    #[error("cannot read the rules {}: {source}; `rules_files` and --rules name YAML files or directories of them", .path.display())]
    Rules {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A rules directory holds nothing to load.
    #[error("the rules directory {} holds no *.yaml or *.yml file", .0.display())]
    NoRules(PathBuf),
}

impl Config {
    /// Reads `path`; without one, [`DEFAULT_PATH`] if it exists, else the defaults.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let (path, required) = path.map_or((Path::new(DEFAULT_PATH), false), |path| (path, true));
        match read(path) {
            Ok(text) => Self::parse(path, &text),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !required => Ok(Self::default()),
            Err(source) => Err(ConfigError::Read { path: path.to_owned(), source }),
        }
    }

    /// Parses and checks the text of `path`, which is only named in errors.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        // No document at all (empty, or comments alone) is an end-of-stream error in serde, not a null.
        let blank = text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'));
        let config: Self = if blank {
            Self::default()
        } else if let Some((line, column)) = purser_rules::too_deep(text) {
            let message = "the file is nested too deeply".to_owned();
            return Err(ConfigError::Parse { path: path.to_owned(), line, column, message });
        } else {
            serde_yaml::from_str(text).map_err(|error| parse_error(path, &error))?
        };
        config.check(path)?;
        Ok(config)
    }

    /// The address of the HTTP server; `None` if there is none.
    pub fn listen(&self) -> Option<SocketAddr> {
        self.webserver.enabled.then(|| SocketAddr::new(self.webserver.listen_address, self.webserver.listen_port))
    }

    /// Where container runtimes are looked for.
    pub fn containers(&self) -> ContainersConfig {
        let engines = &self.container_engines;
        let daemons = engines.containerd.daemons.iter();
        ContainersConfig {
            host_root: engines.host_root.clone(),
            containerd: daemons
                .map(|daemon| ContainerdEndpoint { socket: daemon.socket.clone(), state: daemon.state.clone() })
                .collect(),
            storage_roots: engines.podman.roots.clone(),
            runc_roots: engines.runc.roots.clone(),
            api_timeout: engines.timeout.0,
            ..ContainersConfig::default()
        }
    }

    /// Limits of reading layers.
    pub fn layer_limits(&self) -> LayerLimits {
        LayerLimits { inflated_bytes: self.manifest.max_layer_bytes.0, ..LayerLimits::default() }
    }

    /// Limits of the verdict service.
    pub fn verdicts(&self) -> manifest::Config {
        let defaults = manifest::Config::default();
        manifest::Config {
            builders: self.manifest.workers.into(),
            hashers: self.manifest.workers.into(),
            queue: self.hold.max_events as usize,
            pending_timeout: self.manifest.pending_timeout.0,
            manifest_bytes: usize::try_from(self.manifest.memory_max_bytes.0).unwrap_or(usize::MAX),
            hash: HashLimits { max_file_bytes: self.manifest.max_file_bytes.0, ..defaults.hash },
            ..defaults
        }
    }

    /// How the rules are to be loaded.
    pub fn load_options(&self) -> LoadOptions {
        let selection = self.rules.iter().flat_map(|step| {
            let steps = [(true, &step.enable), (false, &step.disable)];
            steps.into_iter().filter_map(|(enable, selector)| {
                let by = match selector.as_ref()? {
                    RuleSelector { rule: Some(name), .. } => Selector::Wildcard(name.clone()),
                    RuleSelector { tag, .. } => Selector::Tags(tag.iter().cloned().collect()),
                };
                Some(Selection { enable, by })
            })
        });
        LoadOptions {
            append_output: self.append_output.iter().map(AppendOutput::rules).collect(),
            min_priority: self.priority.0,
            selection: selection.collect(),
            ..LoadOptions::default()
        }
    }

    /// `docs/config.md`.
    pub fn reference() -> String {
        let mut text = format!(
            "<!-- Written from agent/src/config.rs: change it there, then run \
             `PURSER_BLESS=1 cargo test -p agent --test config`. -->\n\
             # Configuration\n\n\
             `purser run` reads the file that `--config` names, else `{DEFAULT_PATH}` if it exists. Without a file the \
             defaults below hold. Options of the command line win over the file. A key that means what a key of \
             `falco.yaml` means has its name. Keys that are not listed here are errors.\n\n\
             Durations are written `500ms`, `10s`, `1m30s`; sizes `4096`, `64KiB`, `8MiB`.\n\n\
             The file and the rules are watched (`watch_config_files`), and read again on SIGHUP. A key whose \
             `change` is *live* takes effect then; one that says *restart* keeps its value until the agent is started \
             anew, and is named in a warning and counted in `purser_config_restart_pending`. A file that cannot be \
             used changes nothing at all: configuration and rules stay what they were, as a whole. An event is judged by \
             the rules that were in force when it came, also if it has to wait for a verdict; of programs that started \
             before rules first asked for environments (`proc.env`), the environment is not known.\n\n\
             What came through a pipe (`--rules <(...)`) is read once and kept. A path that is gone is an error of a \
             reload, even the default configuration's: the agent does not fall back to defaults while it runs. \
             inotify tells of changes within a tenth of a second; everything is compared every 10 s besides, for mounts \
             and remote file systems, and every 2 s where the kernel refuses a watch, which is logged and counted in \
             `purser_watch_errors_total`.\n"
        );
        reference_section(&mut text, "", &Self::keys().unwrap_or_default());
        text
    }

    fn check(&self, path: &Path) -> Result<(), ConfigError> {
        let fail = |key, message: String| Err(ConfigError::Value { path: path.to_owned(), key, message });
        let ring = self.sensor.ring_bytes.0;
        if !ring.is_power_of_two() || !(64 << 10..=1 << 30).contains(&ring) {
            return fail("sensor.ring_bytes", format!("{ring} is not a power of two from 64KiB to 1GiB"));
        }
        let drops = &self.syscall_event_drops;
        if !(0.0..=1.0).contains(&drops.threshold) {
            return fail("syscall_event_drops.threshold", format!("{} is not from 0 to 1", drops.threshold));
        }
        if !(0.0..=1000.0).contains(&drops.rate) || !(1..=1000).contains(&drops.max_burst) {
            let message = "`rate` is from 0 to 1000 a second, `max_burst` from 1 to 1000".to_owned();
            return fail("syscall_event_drops", message);
        }
        if drops.actions.contains(&DropAction::Ignore) && drops.actions.len() > 1 {
            return fail("syscall_event_drops.actions", "`ignore` stands alone".to_owned());
        }
        if self.outputs_queue.capacity == 0 || self.outputs_queue.capacity > 1 << 24 {
            return fail("outputs_queue.capacity", "must be from 1 to 16777216: queues are bounded here".to_owned());
        }
        if self.file_output.enabled && self.file_output.filename.as_os_str().is_empty() {
            return fail("file_output.filename", "is empty; name the file".to_owned());
        }
        let endpoint = &self.webserver.k8s_healthz_endpoint;
        if !endpoint.starts_with('/') || endpoint.contains(['{', '}', '*', '?', '#']) {
            return fail("webserver.k8s_healthz_endpoint", format!("`{endpoint}` is not a path such as `/healthz`"));
        }
        if matches!(endpoint.as_str(), "/metrics" | "/livez") {
            return fail("webserver.k8s_healthz_endpoint", format!("`{endpoint}` is taken"));
        }
        if !(1..=64).contains(&self.manifest.workers) {
            return fail("manifest.workers", "must be from 1 to 64".to_owned());
        }
        for daemon in &self.container_engines.containerd.daemons {
            if !daemon.socket.is_absolute() || !daemon.state.is_absolute() {
                let message = "each daemon needs `socket:` and `state:`, absolute paths of the host".to_owned();
                return fail("container_engines.containerd.daemons", message);
            }
        }
        for selection in &self.rules {
            let ((Some(selector), None) | (None, Some(selector))) = (&selection.enable, &selection.disable) else {
                return fail("rules", "each item is either `enable:` or `disable:`".to_owned());
            };
            if selector.rule.is_some() == selector.tag.is_some() {
                return fail("rules", "each `enable:` and `disable:` has either `rule:` or `tag:`".to_owned());
            }
        }
        self.throttle.check().or_else(|(key, message)| fail(key, message))
    }
}

impl AppendOutput {
    fn rules(&self) -> purser_rules::AppendOutput {
        let fields = self.extra_fields.iter().map(|field| match &field.format {
            Some(format) => ExtraFieldSpec::Formatted(field.name.clone(), format.clone()),
            None => ExtraFieldSpec::Raw(field.name.clone()),
        });
        purser_rules::AppendOutput {
            source: self.r#match.source.clone(),
            tags: self.r#match.tags.clone(),
            rule: self.r#match.rule.clone(),
            extra_output: Some(self.extra_output.clone()).filter(|output| !output.is_empty()),
            extra_fields: fields.collect(),
            suggested_output: self.suggested_output,
        }
    }
}

impl From<RuleMatching> for purser_rules::RuleMatching {
    fn from(matching: RuleMatching) -> Self {
        match matching {
            RuleMatching::First => Self::First,
            RuleMatching::All => Self::All,
        }
    }
}

/// Opens up directories: their `*.yaml` and `*.yml`, alphabetically. Files stay as they are.
pub fn rule_paths(paths: &[PathBuf]) -> Result<Vec<PathBuf>, ConfigError> {
    let mut files = Vec::new();
    for path in paths {
        let fail = |source| ConfigError::Rules { path: path.clone(), source };
        if !fs::metadata(path).map_err(fail)?.is_dir() {
            files.push(path.clone());
            continue;
        }
        let mut found = Vec::new();
        for entry in fs::read_dir(path).map_err(fail)? {
            let file = entry.map_err(fail)?.path();
            let yaml = file.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
            // Through the link: a ConfigMap's files are links.
            if yaml && file.is_file() {
                found.push(file);
            }
        }
        if found.is_empty() {
            return Err(ConfigError::NoRules(path.clone()));
        }
        found.sort();
        files.append(&mut found);
    }
    Ok(files)
}

fn read(path: &Path) -> io::Result<String> {
    let bytes = read_at_most(path, MAX_FILE_BYTES)?;
    String::from_utf8(bytes).map_err(|_error| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8 text"))
}

/// A file's content, or an error where it is larger than `limit`, a whole number of MiB: a device never ends.
pub fn read_at_most(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    use io::Read as _;
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file that is too large from one that just fits.
    if fs::File::open(path)?.take(limit + 1).read_to_end(&mut bytes)? as u64 > limit {
        return Err(io::Error::other(format!("it is larger than {}MiB", limit >> 20)));
    }
    Ok(bytes)
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "; name an existing file with --config, or leave it out for the defaults",
        io::ErrorKind::PermissionDenied => "; run as root, or make it readable",
        _ => "",
    }
}

fn parse_error(path: &Path, error: &serde_yaml::Error) -> ConfigError {
    let (line, column) = error.location().map_or((1, 1), |at| (at.line(), at.column()));
    // serde_yaml appends the place that the prefix already says.
    let text = error.to_string();
    let message = text.split_once(" at line ").map_or(text.as_str(), |(message, _)| message).to_owned();
    ConfigError::Parse { path: path.to_owned(), line, column, message }
}

/// `section`: the keys above, with dots; empty at the top.
fn reference_section(text: &mut String, section: &str, keys: &[Key]) {
    let path = |key: &Key| live::path(section, key.name);
    let title = if section.is_empty() { "Top level" } else { section };
    let mut table = format!("\n## {title}\n\n| key | type | default | change | meaning |\n|---|---|---|---|---|\n");
    for key in keys {
        let default = match key.default.as_str() {
            "" | "{}" => String::new(),
            default => format!("`{default}`"),
        };
        // A write to a String cannot fail.
        let change = match (live::is_live(&path(key)), key.kind == "section") {
            (true, _) => "live",
            // Its keys say it themselves.
            (false, true) => "",
            (false, false) => "restart",
        };
        let _ = writeln!(table, "| `{}` | {} | {default} | {change} | {} |", key.name, key.kind, key.doc);
    }
    text.push_str(&table);
    for key in keys {
        if let Some(keys) = &key.keys {
            reference_section(text, &path(key), keys);
        }
    }
}

impl std::str::FromStr for MinimumPriority {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let words: Vec<_> = Priority::ALL.iter().map(|priority| priority.name()).collect();
        Priority::parse(word).map(Self).ok_or_else(|| schema::unknown("priority", word, &words))
    }
}

impl Value for MinimumPriority {
    fn kind() -> String {
        Priority::ALL.map(|priority| format!("`{}`", priority.name().to_ascii_lowercase())).join(" \\| ")
    }

    fn show(&self) -> String {
        self.0.name().to_ascii_lowercase()
    }
}

impl<'de> Deserialize<'de> for MinimumPriority {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        schema::parsed(deserializer, "a priority such as `warning`")
    }
}

impl Value for ExtraField {
    fn kind() -> String {
        "`NAME: FORMAT` or `NAME`".to_owned()
    }

    fn show(&self) -> String {
        match &self.format {
            Some(format) => format!("{{{}: {}}}", schema::quoted(&self.name), schema::quoted(format)),
            None => schema::quoted(&self.name),
        }
    }
}

impl<'de> Deserialize<'de> for ExtraField {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Field;
        impl<'de> Visitor<'de> for Field {
            type Value = ExtraField;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`NAME: FORMAT` or the bare name of a field")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<ExtraField, E> {
                Ok(ExtraField { name: name.to_owned(), format: None })
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ExtraField, A::Error> {
                let Some((name, format)) = map.next_entry()? else {
                    return Err(de::Error::invalid_length(0, &self));
                };
                if map.next_key::<String>()?.is_some() {
                    return Err(de::Error::custom("one field per item: start the next with `- `"));
                }
                Ok(ExtraField { name, format: Some(format) })
            }
        }
        deserializer.deserialize_any(Field)
    }
}
