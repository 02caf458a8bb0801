//! The machine of a recording: it answers what was answered then. What was not asked then is unknown, and counted.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use purser_rules::Needs;

use super::entry::{Answer, Asked, Later, Name, Place, Start};
use super::format::{MAX_KEPT, weight};
use super::ledger::Ledger;
use crate::container::{Container, Lookup};
use crate::manifest::judge::{HashFailure, ManifestState, Subject};
use crate::manifest::{ExecFile, Judgement, Manifest, judge};
use crate::outside::{Answers, Outside};
use crate::process::{Process, User};

/// The longest recording: ten years. A later time is no time of a recorder.
const LONGEST_NS: u64 = 10 * 365 * 24 * 3600 * 1_000_000_000;
/// Verdicts that may be awaited; the recorder's machine gave one to each program.
const MAX_AWAITED: usize = 65_536;
/// Manifests that verdicts share.
const MAX_MANIFESTS: usize = 1024;

/// By the container's id, `None`: the host's, and the number.
type AccountKey = (Option<String>, u32);

/// What a recording answers.
pub struct Replayed {
    started: Instant,
    judges_all: bool,
    known_domains: Vec<String>,
    unknown_domains: Vec<String>,
    /// Of answers remembered, and of those of the input at hand.
    kept: usize,
    input: usize,
    now: Cell<Instant>,
    nows: RefCell<VecDeque<Instant>>,
    processes: RefCell<Vec<u32>>,
    found: RefCell<HashMap<u32, VecDeque<Process>>>,
    containers: Vec<Arc<Container>>,
    identities: Ledger<u64, Place>,
    users: RefCell<Ledger<AccountKey, Option<User>>>,
    groups: RefCell<Ledger<AccountKey, Option<Name>>>,
    domains: HashMap<IpAddr, Vec<Bytes>>,
    /// Verdicts that were given at once for the input at hand.
    at_once: HashMap<Asked, VecDeque<Judgement>>,
    /// Verdicts that came with the input at hand.
    came: Vec<(Asked, Judgement)>,
    identified: Vec<Arc<Container>>,
    /// Verdicts that nobody has asked for.
    unclaimed: HashMap<Asked, Judgement>,
    awaited: HashMap<Asked, Vec<u64>>,
    /// How many tickets that are.
    awaiting: usize,
    manifests: HashMap<[u8; 32], Arc<Manifest>>,
    epoch_offset_ns: i64,
    unknown: RefCell<BTreeMap<&'static str, u64>>,
}

impl Replayed {
    /// The machine at the start.
    pub fn new(start: &Start) -> Self {
        let started = Instant::now();
        Self {
            started,
            judges_all: start.reported.everything,
            known_domains: start.domains.clone(),
            unknown_domains: Vec::new(),
            kept: 0,
            input: 0,
            now: Cell::new(started),
            nows: RefCell::default(),
            processes: RefCell::default(),
            found: RefCell::default(),
            containers: Vec::new(),
            identities: Ledger::default(),
            users: RefCell::default(),
            groups: RefCell::default(),
            domains: HashMap::new(),
            at_once: HashMap::new(),
            came: Vec::new(),
            identified: Vec::new(),
            unclaimed: HashMap::new(),
            awaited: HashMap::new(),
            awaiting: 0,
            manifests: HashMap::new(),
            epoch_offset_ns: start.epoch_offset_ns,
            unknown: RefCell::default(),
        }
    }

    /// So many ns after the start.
    ///
    /// # Errors
    /// That is no time: too late, or before what was.
    pub fn at(&self, ns: u64) -> Result<Instant, &'static str> {
        let at = (ns <= LONGEST_NS).then(|| self.started.checked_add(Duration::from_nanos(ns))).flatten();
        at.filter(|at| *at >= self.now.get()).ok_or("an impossible time")
    }

    /// It is that late.
    pub fn set_now(&self, now: Instant) {
        self.now.set(now);
    }

    /// An answer for the input that comes next, of so many bytes.
    ///
    /// # Errors
    /// No recorder writes that.
    pub fn take(&mut self, answer: Answer, bytes: usize) -> Result<(), &'static str> {
        let weight = weight(bytes);
        self.input += weight;
        self.kept += weight;
        if self.input > MAX_KEPT || self.kept > 2 * MAX_KEPT {
            return Err("more answers than a recorder writes");
        }
        match answer {
            Answer::Processes(processes) => *self.processes.get_mut() = processes,
            Answer::Process(tgid, process) => {
                self.found.get_mut().entry(tgid).or_default().push_back(*process);
            }
            Answer::Container(number, container) => {
                if number as usize != self.containers.len() {
                    return Err("a container out of order");
                }
                self.containers.push(Arc::from(container));
            }
            Answer::Identity(cgroup, Later(before, place)) => {
                if let Place::Container(number) = place {
                    self.container(number)?;
                }
                self.identities.take(cgroup, Later(before, place));
            }
            Answer::User(container, uid, user) => self.users.get_mut().take((container, uid), user),
            Answer::Group(container, gid, group) => self.groups.get_mut().take((container, gid), group),
            Answer::Domains(address, names) => {
                self.domains.insert(address, names.into_iter().map(|Name(name)| name).collect());
            }
            Answer::Judged(asked, at_once, judgement) => {
                let judgement = self.shared(*judgement);
                if at_once {
                    self.at_once.entry(asked).or_default().push_back(judgement);
                } else {
                    self.came.push((asked, judgement));
                }
            }
            Answer::Identified(number) => {
                let container = self.container(number)?;
                self.identified.push(container);
            }
            Answer::EpochOffset(ns) => self.epoch_offset_ns = ns,
            Answer::Now(ns) => {
                let last = self.nows.get_mut().back().copied();
                let now = self.at(ns)?;
                if last.is_some_and(|last| now < last) {
                    return Err("an impossible time");
                }
                self.nows.get_mut().push_back(now);
            }
            Answer::Forget => self.forget(weight),
        }
        Ok(())
    }

    /// The input is done: what was answered and not asked for is known from now on.
    pub fn done(&mut self) {
        self.input = 0;
        if let Some(last) = self.nows.get_mut().drain(..).next_back() {
            self.now.set(last);
        }
        self.processes.get_mut().clear();
        self.found.get_mut().clear();
        self.identities.done();
        self.users.get_mut().done();
        self.groups.get_mut().done();
        let at_once = std::mem::take(&mut self.at_once).into_iter();
        let at_once = at_once.filter_map(|(asked, mut judgements)| Some((asked, judgements.pop_back()?)));
        self.unclaimed.extend(at_once);
        self.unclaimed.extend(self.came.drain(..));
        self.identified.clear();
    }

    /// Domain names that rules mention and the recorder's did not: no address is known to be theirs.
    pub fn unknown_domains(&self) -> &[String] {
        &self.unknown_domains
    }

    /// Questions that the recording does not answer, by what they ask for.
    pub fn unknown(&self) -> BTreeMap<&'static str, u64> {
        self.unknown.borrow().clone()
    }

    /// The recorder says everything anew.
    fn forget(&mut self, weight: usize) {
        self.kept = weight;
        self.containers.clear();
        self.identities.forget();
        self.users.get_mut().forget();
        self.groups.get_mut().forget();
        self.domains.clear();
        self.unclaimed.clear();
    }

    fn container(&self, number: u32) -> Result<Arc<Container>, &'static str> {
        self.containers.get(number as usize).cloned().ok_or("an unknown container")
    }

    /// The verdict with the manifest of others that have the same.
    fn shared(&mut self, mut judgement: Judgement) -> Judgement {
        if let Some(manifest) = &mut judgement.manifest {
            let chain_id = manifest.header().chain_id.0;
            match self.manifests.get(&chain_id) {
                Some(known) if known.header() == manifest.header() => *manifest = Arc::clone(known),
                _ => {
                    if self.manifests.len() >= MAX_MANIFESTS {
                        self.manifests.clear();
                    }
                    self.manifests.insert(chain_id, Arc::clone(manifest));
                }
            }
        }
        judgement
    }

    fn count(&self, what: &'static str) {
        *self.unknown.borrow_mut().entry(what).or_default() += 1;
    }

    /// Something was asked that the recorder's pipeline did not ask.
    fn account<T: Clone>(&self, known: Option<&Option<T>>, what: &'static str) -> Option<T> {
        if known.is_none() {
            self.count(what);
        }
        known.cloned().flatten()
    }
}

impl Outside for Replayed {
    fn processes(&self) -> Vec<u32> {
        self.processes.take()
    }

    fn process(&self, tgid: u32) -> Option<Process> {
        self.found.borrow_mut().get_mut(&tgid)?.pop_front()
    }

    fn identity(&mut self, cgroup_id: u64, _tgid: u32) -> Lookup {
        match self.identities.answer(&cgroup_id) {
            Some(Place::Host) => Lookup::Host,
            Some(Place::Container(number)) => {
                self.containers.get(*number as usize).map_or(Lookup::Unknown, |c| Lookup::Container(Arc::clone(c)))
            }
            Some(Place::Unknown) => Lookup::Unknown,
            None => {
                self.count("cgroups");
                Lookup::Unknown
            }
        }
    }

    fn cgroup_made(&mut self, _id: u64, _path: &[u8], _maker: u32) {}

    fn cgroup_removed(&mut self, _id: u64) {}

    fn judge(&mut self, ticket: u64, _container: &Arc<Container>, file: ExecFile) -> Option<Judgement> {
        let asked = Asked::from(&file);
        if let Some(judgement) = self.at_once.get_mut(&asked).and_then(VecDeque::pop_front) {
            return Some(judgement);
        }
        if let Some(judgement) = self.unclaimed.get(&asked) {
            return Some(judgement.clone());
        }
        if self.awaiting >= MAX_AWAITED {
            // The recorder's machine would have answered.
            self.count("verdicts");
            return Some(unknown(&file));
        }
        self.awaiting += 1;
        self.awaited.entry(asked).or_default().push(ticket);
        None
    }

    fn answers(&mut self) -> Answers {
        let mut judgements = Vec::new();
        for (asked, judgement) in std::mem::take(&mut self.came) {
            match self.awaited.remove(&asked) {
                Some(tickets) => {
                    self.awaiting -= tickets.len();
                    judgements.extend(tickets.into_iter().map(|ticket| (ticket, judgement.clone())));
                }
                None => {
                    self.unclaimed.insert(asked, judgement);
                }
            }
        }
        Answers { judgements, containers: std::mem::take(&mut self.identified) }
    }

    fn user(&self, container: Option<&Container>, uid: u32) -> Option<User> {
        let key = (container.map(|container| container.id.clone()), uid);
        self.account(self.users.borrow_mut().answer(&key), "users")
    }

    fn group_name(&self, container: Option<&Container>, gid: u32) -> Option<Bytes> {
        let key = (container.map(|container| container.id.clone()), gid);
        self.account(self.groups.borrow_mut().answer(&key), "groups").map(|Name(name)| name)
    }

    fn prepare(&mut self, needs: &Needs) {
        let unknown = needs.domains.iter().filter(|name| !self.known_domains.contains(name));
        self.unknown_domains = unknown.cloned().collect();
    }

    fn domains(&self, address: IpAddr) -> &[Bytes] {
        self.domains.get(&address).map_or(&[], Vec::as_slice)
    }

    fn epoch_offset_ns(&self) -> i64 {
        self.epoch_offset_ns
    }

    fn now(&self) -> Instant {
        if let Some(now) = self.nows.borrow_mut().pop_front() {
            self.now.set(now);
        }
        self.now.get()
    }

    fn judges_all(&self) -> bool {
        self.judges_all
    }
}

/// The verdict on a program about which the recording says nothing: that of one whose manifest did not come in time.
fn unknown(file: &ExecFile) -> Judgement {
    let subject = Subject {
        identity: &file.identity,
        rootfs_path: None,
        in_host_mount_namespace: false,
        digest: Err(HashFailure::Pending),
    };
    judge(&ManifestState::Pending, &subject, |_| None)
}
