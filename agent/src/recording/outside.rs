//! The machine, with a recorder between it and the pipeline.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use purser_rules::format::Clock;
use purser_rules::{FieldId, Needs};

use super::entry::{Answer, Asked, Entry, Name, Place, Raised, Start};
use super::format::{MAX_KEPT, weight};
use super::ledger::Known;
use super::write::{WriteError, Writer, Written};
use crate::container::{Container, Lookup};
use crate::event::Task;
use crate::manifest::{ExecFile, Judgement};
use crate::metrics::{LOST, Metrics};
use crate::outside::{Answers, Input, Outside};
use crate::process::{Process, User};

/// How often accounts are asked for ahead of rules.
const FRESH: Duration = Duration::from_secs(2);
/// Stages whose losses a replay counts itself.
const REPLAYED_STAGES: [&str; 3] = ["decode", "identity", "verdict"];

/// Passes everything on to `O`, and writes what it answers.
pub struct Recording<O> {
    inner: O,
    everything: bool,
    started: Instant,
    /// When accounts were asked for ahead last.
    fresh: Instant,
    ahead: HashSet<(Option<usize>, Account)>,
    tape: RefCell<Tape>,
    losses: Vec<(String, String, u64)>,
    epoch_offset_ns: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Account {
    User(u32),
    Group(u32),
}

/// By the container's id, `None`: the host's, and the number.
type AccountKey = (Option<String>, u32);

struct Tape {
    writer: Writer,
    /// Of answers that a reader remembers, and of those of the input at hand.
    kept: usize,
    input: usize,
    identities: Known<u64, Place>,
    users: Known<AccountKey, Option<User>>,
    groups: Known<AccountKey, Option<Name>>,
    domains: Known<IpAddr, Vec<Name>>,
    /// By their addresses, which are theirs as long as they are here.
    containers: HashMap<usize, (u32, Arc<Container>)>,
    /// Verdicts that are awaited, by ticket.
    asked: HashMap<u64, Asked>,
}

impl<O: Outside> Recording<O> {
    /// Records `inner` from now on; `everything`: for any rules.
    pub fn new(inner: O, mut writer: Writer, start: &Start, rules: &[(String, Vec<u8>)]) -> Self {
        let now = Instant::now();
        writer.write(&Entry::Start(Box::new(start.clone())));
        for (name, text) in rules {
            writer.write(&Entry::Rules(name.clone(), text));
        }
        let tape = Tape {
            writer,
            kept: 0,
            input: 0,
            identities: Known::default(),
            users: Known::default(),
            groups: Known::default(),
            domains: Known::default(),
            containers: HashMap::new(),
            asked: HashMap::new(),
        };
        Self {
            inner,
            everything: start.reported.everything,
            started: now,
            fresh: now,
            ahead: HashSet::new(),
            tape: RefCell::new(tape),
            losses: Vec::new(),
            epoch_offset_ns: start.epoch_offset_ns,
        }
    }

    /// What is recorded.
    pub fn inner(&mut self) -> &mut O {
        &mut self.inner
    }

    /// The recording has ended by itself: it is full, or could not be written.
    pub fn has_ended(&self) -> bool {
        self.tape.borrow().writer.has_ended()
    }

    /// Writes what was lost so far, if that is more than was written.
    pub fn losses(&mut self, metrics: &Metrics) {
        let losses = metrics.read(LOST).into_iter().filter_map(|(labels, count)| {
            let [stage, reason] = <[String; 2]>::try_from(labels).ok()?;
            (count > 0 && !REPLAYED_STAGES.contains(&stage.as_str())).then_some((stage, reason, count))
        });
        let losses: Vec<_> = losses.collect();
        if losses != self.losses {
            self.tape.get_mut().writer.write(&Entry::Losses(losses.clone()));
            self.losses = losses;
        }
    }

    /// Ends the recording.
    ///
    /// # Errors
    /// It could not be written to its end.
    pub fn finish(self) -> Result<Written, WriteError> {
        self.tape.into_inner().writer.finish()
    }

    fn since_start(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.started).as_nanos()).unwrap_or(u64::MAX)
    }

    /// Accounts that any rule may ask for at an event of `task`.
    fn ask_ahead(&mut self, task: &Task, container: Option<&Container>) {
        let its = container.map(address);
        let accounts =
            [(its, Account::User(task.euid)), (None, Account::User(task.loginuid)), (its, Account::Group(task.egid))];
        for (place, account) in accounts {
            if !self.ahead.insert((place, account)) {
                continue;
            }
            let container = container.filter(|_| place.is_some());
            let id = container.map(|container| container.id.clone());
            let tape = self.tape.get_mut();
            match account {
                Account::User(uid) => {
                    let (key, user) = ((id, uid), self.inner.user(container, uid));
                    if let Some(later) = tape.users.found(&key, &user) {
                        tape.answer(Answer::User(key.0, key.1, later));
                    }
                }
                Account::Group(gid) => {
                    let (key, group) = ((id, gid), self.inner.group_name(container, gid).map(Name));
                    if let Some(later) = tape.groups.found(&key, &group) {
                        tape.answer(Answer::Group(key.0, key.1, later));
                    }
                }
            }
        }
    }
}

impl Tape {
    fn input(&mut self, entry: &Entry<'_>) {
        self.writer.write(entry);
        self.input = 0;
        self.identities.next();
        self.users.next();
        self.groups.next();
        self.domains.next();
        if self.kept > MAX_KEPT / 4 {
            self.kept = 0;
            self.identities.forget();
            self.users.forget();
            self.groups.forget();
            self.domains.forget();
            self.containers.clear();
            self.writer.write(&Entry::Answer(Answer::Forget));
        }
    }

    fn answer(&mut self, answer: Answer) {
        let weight = weight(self.writer.write(&Entry::Answer(answer)));
        self.kept += weight;
        self.input += weight;
        if self.input > MAX_KEPT {
            self.writer.fail(WriteError::TooLarge);
        }
    }

    /// The container's number.
    fn container(&mut self, container: &Arc<Container>) -> u32 {
        if let Some((number, _)) = self.containers.get(&address(container)) {
            return *number;
        }
        let number = self.containers.len() as u32;
        self.containers.insert(address(container), (number, Arc::clone(container)));
        self.answer(Answer::Container(number, Box::new((**container).clone())));
        number
    }
}

fn address(container: &Container) -> usize {
    std::ptr::from_ref(container).addr()
}

impl<O: Outside> Outside for Recording<O> {
    fn processes(&self) -> Vec<u32> {
        let processes = self.inner.processes();
        self.tape.borrow_mut().answer(Answer::Processes(processes.clone()));
        processes
    }

    fn process(&self, tgid: u32) -> Option<Process> {
        let process = self.inner.process(tgid)?;
        self.tape.borrow_mut().answer(Answer::Process(tgid, Box::new(process.clone())));
        Some(process)
    }

    fn identity(&mut self, cgroup_id: u64, tgid: u32) -> Lookup {
        let lookup = self.inner.identity(cgroup_id, tgid);
        let tape = self.tape.get_mut();
        let place = match &lookup {
            Lookup::Host => Place::Host,
            Lookup::Unknown => Place::Unknown,
            Lookup::Container(container) => Place::Container(tape.container(container)),
        };
        if let Some(later) = tape.identities.answered(&cgroup_id, &place) {
            tape.answer(Answer::Identity(cgroup_id, later));
        }
        lookup
    }

    fn cgroup_made(&mut self, id: u64, path: &[u8], maker: u32) {
        self.inner.cgroup_made(id, path, maker);
    }

    fn cgroup_removed(&mut self, id: u64) {
        self.inner.cgroup_removed(id);
    }

    fn judge(&mut self, ticket: u64, container: &Arc<Container>, file: ExecFile) -> Option<Judgement> {
        let asked = Asked::from(&file);
        let judgement = self.inner.judge(ticket, container, file);
        let tape = self.tape.get_mut();
        match &judgement {
            Some(judgement) => tape.answer(Answer::Judged(asked, true, Box::new(judgement.clone()))),
            None => {
                tape.asked.insert(ticket, asked);
            }
        }
        judgement
    }

    fn answers(&mut self) -> Answers {
        let answers = self.inner.answers();
        let tape = self.tape.get_mut();
        let epoch_offset_ns = self.inner.epoch_offset_ns();
        if std::mem::replace(&mut self.epoch_offset_ns, epoch_offset_ns) != epoch_offset_ns {
            tape.answer(Answer::EpochOffset(epoch_offset_ns));
        }
        for (ticket, judgement) in &answers.judgements {
            if let Some(asked) = tape.asked.remove(ticket) {
                tape.answer(Answer::Judged(asked, false, Box::new(judgement.clone())));
            }
        }
        for container in &answers.containers {
            let number = tape.container(container);
            tape.answer(Answer::Identified(number));
        }
        answers
    }

    fn user(&self, container: Option<&Container>, uid: u32) -> Option<User> {
        let user = self.inner.user(container, uid);
        let mut tape = self.tape.borrow_mut();
        let key = (container.map(|container| container.id.clone()), uid);
        if let Some(later) = tape.users.answered(&key, &user) {
            tape.answer(Answer::User(key.0, key.1, later));
        }
        user
    }

    fn group_name(&self, container: Option<&Container>, gid: u32) -> Option<Bytes> {
        let group = self.inner.group_name(container, gid);
        let mut tape = self.tape.borrow_mut();
        let key = (container.map(|container| container.id.clone()), gid);
        if let Some(later) = tape.groups.answered(&key, &group.clone().map(Name)) {
            tape.answer(Answer::Group(key.0, key.1, later));
        }
        group
    }

    fn prepare(&mut self, needs: &Needs) {
        let mut needs = needs.clone();
        if self.everything
            && let Err(place) = needs.fields.binary_search(&FieldId::PROC_ENV)
        {
            needs.fields.insert(place, FieldId::PROC_ENV);
        }
        self.inner.prepare(&needs);
    }

    fn domains(&self, address: IpAddr) -> &[Bytes] {
        let names = self.inner.domains(address);
        let mut tape = self.tape.borrow_mut();
        let named = names.iter().cloned().map(Name).collect();
        if let Some(later) = tape.domains.answered(&address, &named) {
            tape.answer(Answer::Domains(address, later.1));
        }
        names
    }

    fn epoch_offset_ns(&self) -> i64 {
        self.inner.epoch_offset_ns()
    }

    fn now(&self) -> Instant {
        let now = self.inner.now();
        self.tape.borrow_mut().answer(Answer::Now(self.since_start(now)));
        // As a replay knows it.
        now.max(self.started)
    }

    fn input(&mut self, input: Input<'_>) {
        self.inner.input(input);
        if let Input::Tick(now) = input {
            self.tape.get_mut().writer.age(now);
            if now.saturating_duration_since(self.fresh) >= FRESH {
                self.ahead.clear();
                self.fresh = now;
            }
        }
        let entry = match input {
            Input::Scan => Entry::Scan,
            Input::Record(record) => Entry::Record(record),
            Input::Tick(now) => Entry::Tick(self.since_start(now)),
            Input::Clock(Clock { offset }) => Entry::Clock(offset.whole_seconds()),
            Input::Raise(alert) => Entry::Raise(Box::new(Raised::new(alert))),
            Input::Finish => Entry::Finish,
        };
        self.tape.get_mut().input(&entry);
    }

    fn seen(&mut self, task: &Task, container: Option<&Container>) {
        self.inner.seen(task, container);
        self.ask_ahead(task, container);
    }

    fn judges_all(&self) -> bool {
        self.everything
    }
}
