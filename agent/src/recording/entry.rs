//! What a recording is made of, one after the other: how it began, inputs, the answers that each got, and the end.

use std::net::IpAddr;

use bytes::Bytes;
use purser_rules::{Alert, Priority};
use serde::{Deserialize, Serialize};

use super::serial;
use crate::container::Container;
use crate::event::{EventType, FileIdentity};
use crate::manifest::{ExecFile, Judgement};
use crate::process::{Process, User};
use crate::sensor::Policy;

/// One of them.
#[derive(Debug, Serialize, Deserialize)]
pub enum Entry<'a> {
    /// The first.
    Start(Box<Start>),
    /// A rule file: its name and text.
    Rules(String, #[serde(serialize_with = "serial::bytes::serialize")] &'a [u8]),

    /// [`Input::Scan`](crate::outside::Input::Scan), as those that follow.
    Scan,
    /// A record of the kernel.
    Record(#[serde(serialize_with = "serial::bytes::serialize")] &'a [u8]),
    /// So many ns after the start of the recording.
    Tick(u64),
    /// Seconds east of UTC.
    Clock(i32),
    /// An alert of the agent itself.
    Raise(Box<Raised>),
    /// The pipeline's end.
    Finish,

    /// What was lost so far by stages that a replay does not have: stage, reason, how many.
    Losses(Vec<(String, String, u64)>),

    /// An answer to a question about the input before it.
    Answer(Answer),

    /// The last.
    End(Ended),
}

/// What the outside world said, or which of its earlier words hold.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// [`Outside::processes`](crate::outside::Outside::processes)
    Processes(Vec<u32>),
    /// A process that was asked for by pid and found.
    Process(u32, Box<Process>),
    /// What later entries call by this number; they count from 0.
    Container(u32, Box<Container>),
    /// The cgroup's container.
    Identity(u64, Later<Place>),
    /// An account, by the container's id (`None`: the host's) and the uid.
    User(Option<String>, u32, Later<Option<User>>),
    /// A group, by the container's id and the gid.
    Group(Option<String>, u32, Later<Option<Name>>),
    /// Those names of an address that rules mention.
    Domains(IpAddr, Vec<Name>),
    /// A verdict, given at once or in [`Answers`](crate::outside::Answers).
    Judged(Asked, bool, Box<Judgement>),
    /// A container about which more is known, by its number.
    Identified(u32),
    /// Realtime minus boot time from now on, ns.
    EpochOffset(i64),
    /// [`Outside::now`](crate::outside::Outside::now), ns since the start of the recording.
    Now(u64),
    /// What was answered so far is said anew where it is needed: nobody has to remember more than that.
    Forget,
}

/// An answer that differs from the one known so far, from the call on that has so many before it for the same input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Later<T>(pub u32, pub T);

/// A name of a user database or of the network: bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Name(#[serde(with = "serial::bytes")] pub Bytes);

/// Whose a cgroup is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// The host's.
    Host,
    /// The container's with this number.
    Container(u32),
    /// It was gone.
    Unknown,
}

/// The program that a verdict was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Asked {
    /// The process that runs it.
    pub tgid: u32,
    /// When it was started.
    pub boot_ns: u64,
    /// Its file.
    pub dev: u32,
    /// Its file.
    pub ino: u64,
}

impl From<&ExecFile> for Asked {
    fn from(file: &ExecFile) -> Self {
        let FileIdentity { dev, ino, .. } = file.identity;
        Self { tgid: file.tgid, boot_ns: file.boot_ns, dev, ino }
    }
}

/// How the recording came to be.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Start {
    /// The kernel's release.
    pub kernel: String,
    /// The machine: numbers of flags and calls are its own.
    pub machine: String,
    /// The name of the machine in alerts.
    pub hostname: String,
    /// When the agent started, ns since boot.
    pub started_boot_ns: u64,
    /// Realtime minus boot time, ns.
    pub epoch_offset_ns: i64,
    /// Local time, seconds east of UTC.
    pub clock: i32,
    /// The sensor's tier.
    pub tier: String,
    /// The attached hooks.
    pub hooks: Vec<String>,
    /// What the kernel was asked to report.
    pub reported: Reported,
    /// Domain names that were resolved.
    pub domains: Vec<String>,
    /// The keys of the configuration that alerts depend on, as YAML.
    pub config: String,
    /// How many rule files follow.
    pub rules: u32,
}

/// What the kernel was asked to report.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reported {
    /// Everything: whatever rules ask for is there.
    pub everything: bool,
    /// Events by name.
    pub events: Vec<String>,
    /// Those of which failures were reported as well.
    pub failed: Vec<String>,
    /// What else was: opens for reading, environments and the like.
    pub more: Vec<String>,
}

impl Reported {
    /// What a policy has the kernel report.
    pub fn of(policy: &Policy) -> Self {
        let names = |set: &crate::sensor::EventSet| {
            let mut names: Vec<_> = EventType::ALL
                .iter()
                .filter(|event| set.contains(**event))
                .map(|event| event.name().to_owned())
                .collect();
            names.sort_unstable();
            names.dedup();
            names
        };
        let more = [
            (policy.open_read, "opens for reading"),
            (policy.open_write, "opens for writing"),
            (policy.environment, "environments"),
            (policy.threads, "threads"),
            (policy.data, "data sent and received"),
            (policy.plain_messages, "messages without an address"),
        ];
        Self {
            everything: *policy == Policy::everything(),
            events: names(&policy.events),
            failed: names(&policy.failed),
            more: more.into_iter().filter(|(wanted, _)| *wanted).map(|(_, name)| name.to_owned()).collect(),
        }
    }

    /// What `wanted` asks for and was not reported.
    pub fn missing(&self, wanted: &Self) -> Vec<String> {
        let missing = |what: &str, had: &[String], wanted: &[String]| -> Vec<String> {
            wanted.iter().filter(|name| !had.contains(name)).map(|name| format!("{what}{name}")).collect()
        };
        let events = missing("", &self.events, &wanted.events);
        let failed = missing("failed ", &self.failed, &wanted.failed);
        [events, failed, missing("", &self.more, &wanted.more)].concat()
    }
}

/// An alert of the agent itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Raised {
    rule: String,
    priority: u8,
    source: String,
    tags: Vec<String>,
    time_ns: u64,
    output: String,
    message: String,
    /// A JSON object.
    fields: String,
}

impl Raised {
    /// The alert as it is written.
    pub fn new(alert: &Alert) -> Self {
        Self {
            rule: alert.rule.clone(),
            priority: Priority::ALL.iter().position(|known| *known == alert.priority).unwrap_or_default() as u8,
            source: alert.source.clone(),
            tags: alert.tags.clone(),
            time_ns: alert.time_ns,
            output: alert.output.clone(),
            message: alert.message.clone(),
            fields: serde_json::to_string(&alert.output_fields).unwrap_or_default(),
        }
    }

    /// The alert; `None` where it is none.
    pub fn alert(self) -> Option<Alert> {
        Some(Alert {
            priority: *Priority::ALL.get(usize::from(self.priority))?,
            output_fields: serde_json::from_str(&self.fields).ok()?,
            rule: self.rule,
            source: self.source,
            tags: self.tags,
            time_ns: self.time_ns,
            output: self.output,
            message: self.message,
        })
    }
}

/// Why a recording ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ended {
    /// As it was asked to.
    Asked,
    /// At its largest size: what came later is not in it.
    Full,
}
