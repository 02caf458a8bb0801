//! The table of cgroups: which container, if any, each cgroup id is. A known id costs a hash lookup; an
//! unknown one is resolved on the spot from the bundle. Nothing here waits for a runtime.

use std::{
    collections::{HashMap, VecDeque},
    os::fd::{AsFd, BorrowedFd},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Container, ContainersConfig, Counters, Error,
    ask::{Answer, Asker, Outcome, Question},
    cgroup::{self, Hierarchy},
    locate::{Engine, Located, Locator},
};

/// Cgroups that are remembered at once.
const MAX_CGROUPS: usize = 65_536;
/// A removed cgroup is kept this long: events of its last processes are still on their way.
const KEEP_REMOVED: Duration = Duration::from_secs(10);
/// When a cgroup without evidence is looked at again: its first processes can run before the runtime has
/// written its state.
const LOOK_AGAIN: [Duration; 3] = [Duration::from_millis(20), Duration::from_millis(500), Duration::from_secs(5)];
/// How often the root mount and first process of a new container are looked for: at its next event, then after a
/// millisecond, and after twice as long each time, for four seconds in all. A runtime causes many events in the container's
/// cgroup before it writes these down.
const MAX_COMPLETIONS: u8 = 13;
/// The first of those waits.
const COMPLETE_AGAIN: Duration = Duration::from_millis(1);
/// A question that found the queue full is asked again after this long.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Whose process it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// No container's.
    Host,
    /// This container's.
    Container(Arc<Container>),
    /// The cgroup was gone before it could be identified.
    Unknown,
}

/// What [`Containers::scan`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scan {
    /// Cgroup directories visited.
    pub cgroups: usize,
    /// Containers identified.
    pub containers: usize,
    /// The bound on directories cut the scan short; the rest is identified when it is first seen.
    pub truncated: bool,
}

/// Every cgroup's container.
#[derive(Debug)]
pub struct Containers {
    cgroups: HashMap<u64, Entry>,
    /// By the id of the container's own cgroup.
    owners: HashMap<u64, Owner>,
    /// The containers' own cgroups by path, for what is made below them.
    by_path: HashMap<String, u64>,
    /// Removed cgroups, oldest first.
    removed: VecDeque<(Instant, u64)>,
    /// See [`Self::take_settled_hosts`].
    settled_hosts: Vec<u64>,
    unasked: VecDeque<(Instant, u64)>,
    updated: Vec<u64>,
    hierarchy: Hierarchy,
    locator: Locator,
    asker: Asker,
    counters: Counters,
}

/// One cgroup.
#[derive(Debug)]
struct Entry {
    /// From the mkdir event, or from the kernel; empty until known.
    path: String,
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Seen, not resolved.
    New,
    /// No container's at the look at `since`; the next is due after `LOOK_AGAIN[looks]`, if there is one.
    Host { since: Instant, looks: u8 },
    /// Belongs to the container of this cgroup.
    Owned(u64),
}

#[derive(Debug)]
struct Owner {
    shared: Arc<Container>,
    engine: Engine,
    /// Questions hold a weak reference: they lapse when the container is forgotten.
    alive: Arc<()>,
    complete: bool,
    completions: u8,
    completed: Instant,
}

impl Owner {
    fn is_to_be_completed(&self) -> bool {
        let wait = match self.completions {
            0 => Duration::ZERO,
            tries => COMPLETE_AGAIN * (1 << (tries - 1)),
        };
        !self.complete && self.completions < MAX_COMPLETIONS && self.completed.elapsed() >= wait
    }
}

impl Containers {
    /// Finds the cgroup hierarchy and starts the thread that asks runtimes. Call [`Self::scan`] next.
    ///
    /// # Errors
    /// Only if the thread or its wake-up descriptor cannot be made; absent runtimes are no error.
    pub fn new(config: &ContainersConfig) -> Result<Self, Error> {
        Ok(Self {
            cgroups: HashMap::new(),
            owners: HashMap::new(),
            by_path: HashMap::new(),
            removed: VecDeque::new(),
            settled_hosts: Vec::new(),
            unasked: VecDeque::new(),
            updated: Vec::new(),
            hierarchy: Hierarchy::discover(&config.proc),
            locator: Locator::new(config),
            asker: Asker::start(config).map_err(Error::Start)?,
            counters: Counters::default(),
        })
    }

    /// Walks the cgroup tree, so that containers which already run are known. Later calls find what events
    /// were lost for.
    pub fn scan(&mut self) -> Scan {
        self.locator.learn_from_processes();
        let mut scan = Scan::default();
        let mut found = Vec::new();
        scan.truncated = self.hierarchy.walk(|cgroup| {
            found.push(cgroup.clone());
            found.len() < MAX_CGROUPS
        });
        scan.truncated |= found.len() == MAX_CGROUPS;
        for cgroup in found {
            scan.cgroups += 1;
            let known = self.cgroups.get(&cgroup.id).is_some_and(|e| matches!(e.state, State::Owned(_)));
            if !known {
                let state = self.resolve(cgroup.id, &cgroup.path, None);
                self.insert(cgroup.id, cgroup.path, state);
            }
        }
        scan.containers = self.owners.len();
        scan
    }

    /// Whose process `tgid` in cgroup `cgroup_id` is. `tgid` is only used while the cgroup is unknown.
    pub fn lookup(&mut self, cgroup_id: u64, tgid: u32) -> Lookup {
        let cgroup_id = if self.hierarchy.has_ids() { cgroup_id } else { self.enter_v1(tgid) };
        match self.cgroups.get(&cgroup_id).map(|e| e.state) {
            Some(State::Owned(owner)) => return self.owned(owner),
            Some(State::Host { since, looks }) if !due(since, looks) => return Lookup::Host,
            _ => {}
        }
        self.identify(cgroup_id, tgid)
    }

    /// A cgroup directory was made, by process `maker` (0 = unknown). A container's bundle is read at once:
    /// this is before its first program starts.
    pub fn on_cgroup_mkdir(&mut self, id: u64, path: &[u8], maker: u32) {
        self.forget_removed();
        let Some(path) = std::str::from_utf8(path).ok().filter(|p| p.len() <= cgroup::MAX_PATH) else { return };
        self.make_room();
        let state = match self.resolve(id, path, Some(maker).filter(|&pid| pid != 0)) {
            // Too early to say: the runtime may write its state after the directory.
            State::Host { .. } => State::New,
            state => state,
        };
        self.cgroups.insert(id, Entry { path: path.to_owned(), state });
    }

    /// A cgroup directory was removed.
    pub fn on_cgroup_rmdir(&mut self, id: u64) {
        self.forget_removed();
        if let Some(entry) = self.cgroups.get(&id) {
            // The path may be used again at once, by another container.
            if self.by_path.get(&entry.path) == Some(&id) {
                self.by_path.remove(&entry.path);
            }
            self.removed.push_back((Instant::now(), id));
        }
    }

    /// Takes the runtimes' answers and returns the containers that changed since the last call. Never waits;
    /// call it when [`Self::wake_fd`] is readable and every second or so.
    pub fn poll_updates(&mut self) -> Vec<Arc<Container>> {
        self.forget_removed();
        while let Some(answer) = self.asker.next_answer() {
            self.take(answer);
        }
        while self.unasked.front().is_some_and(|(at, _)| at.elapsed() >= ASK_AGAIN) {
            let Some((_, owner)) = self.unasked.pop_front() else { break };
            self.ask(owner);
        }
        let mut updated = std::mem::take(&mut self.updated);
        updated.sort_unstable();
        updated.dedup();
        updated.iter().filter_map(|id| Some(Arc::clone(&self.owners.get(id)?.shared))).collect()
    }

    /// Becomes readable when [`Self::poll_updates`] has something to do (an eventfd, for `poll` or `epoll`).
    pub fn wake_fd(&self) -> BorrowedFd<'_> {
        self.asker.as_fd()
    }

    /// Where cgroup2 is mounted, alone or beside version 1.
    pub fn cgroup2_mount(&self) -> Option<&Path> {
        self.hierarchy.mount()
    }

    /// Cgroups that have turned out to be the host's for good since the last call: nobody needs to look at them again.
    pub fn take_settled_hosts(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.settled_hosts)
    }

    /// Every known container.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Container>> {
        self.owners.values().map(|o| &o.shared)
    }

    /// Questions about images that wait for their answer.
    pub fn pending(&self) -> usize {
        self.owners.values().filter(|o| o.shared.image_pending).count()
    }

    /// Counts since the start.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn owned(&mut self, id: u64) -> Lookup {
        let Some(owner) = self.owners.get_mut(&id) else { return Lookup::Unknown };
        if owner.is_to_be_completed() {
            owner.completions += 1;
            owner.completed = Instant::now();
            let mut container = Container::clone(&owner.shared);
            owner.complete = self.locator.complete(&mut container);
            if container != *owner.shared {
                owner.shared = Arc::new(container);
                self.updated.push(id);
            }
        }
        Lookup::Container(Arc::clone(&owner.shared))
    }

    /// The slow path of [`Self::lookup`].
    fn identify(&mut self, id: u64, tgid: u32) -> Lookup {
        self.forget_removed();
        let (path, looks) = match self.cgroups.get(&id) {
            Some(Entry { path, state: State::Host { looks, .. } }) => (path.clone(), looks + 1),
            Some(entry) => (entry.path.clone(), 0),
            None => {
                let Some(path) = self.hierarchy.path_of(id, tgid) else {
                    self.counters.cgroup_gone += 1;
                    return Lookup::Unknown;
                };
                (path, 0)
            }
        };
        let state = match self.resolve(id, &path, Some(tgid)) {
            State::Host { since, looks: already } => {
                self.counters.host += u64::from(looks == 0);
                State::Host { since, looks: looks.max(already) }
            }
            state => state,
        };
        self.make_room();
        self.insert(id, path, state);
        match state {
            State::Owned(owner) => self.owned(owner),
            State::New | State::Host { .. } => Lookup::Host,
        }
    }

    fn insert(&mut self, id: u64, path: String, state: State) {
        let settled = matches!(state, State::Host { looks, .. } if LOOK_AGAIN.get(usize::from(looks)).is_none());
        // Without cgroup2 the ids are not the kernel's.
        if settled && self.hierarchy.has_ids() && self.settled_hosts.len() < MAX_CGROUPS {
            self.settled_hosts.push(id);
        }
        self.cgroups.insert(id, Entry { path, state });
    }

    /// Finds the container of the cgroup at `path`: one that is known above it, else by evidence.
    fn resolve(&mut self, id: u64, path: &str, pid: Option<u32>) -> State {
        let host = |looks| State::Host { since: Instant::now(), looks };
        if path == "/" {
            return host(u8::MAX);
        }
        // Another cgroup had this path before: whatever was in it has ended, even if no event said so.
        if self.by_path.get(path).is_some_and(|&former| former != id) {
            self.by_path.remove(path);
        }
        // Outermost first: what a container makes below its own cgroup is its own, whatever its name.
        if let Some(owner) = cgroup::prefixes(path).find_map(|p| self.by_path.get(p)) {
            return State::Owned(*owner);
        }
        let found = cgroup::prefixes(path)
            .find_map(|own| self.locator.by_path(own, &self.hierarchy, &mut self.counters))
            .or_else(|| {
                // At a scan, any process in it will do.
                let pid = pid.or_else(|| self.hierarchy.a_process_in(path))?;
                let by_path = &self.by_path;
                let contained = |cgroup: &str| cgroup::prefixes(cgroup).any(|p| by_path.contains_key(p));
                self.locator.by_process(path, pid, &contained, &self.hierarchy, &mut self.counters)
            });
        match found {
            Some(located) => State::Owned(self.adopt(id, path, located)),
            None => host(0),
        }
    }

    /// Enters a new container; returns the id of its own cgroup.
    fn adopt(&mut self, id: u64, path: &str, located: Located) -> u64 {
        let Located { mut container, engine } = located;
        let own_path = container.cgroup_path.clone();
        // `path` may lie below the container's own cgroup. If that is gone its name still is an identity.
        let own = if own_path == path { id } else { self.hierarchy.id_of(&own_path).unwrap_or(id) };
        container.cgroup_id = own;
        let complete = self.locator.complete(&mut container);
        let shared = Arc::new(container);
        self.counters.identified += 1;
        self.by_path.insert(own_path.clone(), own);
        self.owners.insert(
            own,
            Owner { shared, engine, alive: Arc::new(()), complete, completions: 0, completed: Instant::now() },
        );
        if own != id {
            self.cgroups.insert(own, Entry { path: own_path, state: State::Owned(own) });
        }
        self.ask(own);
        own
    }

    fn ask(&mut self, id: u64) {
        let Some(owner) = self.owners.get(&id) else { return };
        if !owner.shared.image_pending {
            return;
        }
        let question = Question {
            cgroup_id: id,
            container: Arc::clone(&owner.shared),
            engine: owner.engine.clone(),
            alive: Arc::downgrade(&owner.alive),
            failures: 0,
        };
        if !self.asker.ask(question) {
            self.ask_later(id);
        }
    }

    fn ask_later(&mut self, id: u64) {
        self.counters.queue_full += 1;
        self.unasked.push_back((Instant::now(), id));
    }

    fn take(&mut self, answer: Answer) {
        let counters = &mut self.counters;
        match answer.outcome {
            Outcome::Found(details) => {
                counters.api_answered += 1;
                counters.chain_open += u64::from(details.image.as_ref().is_some_and(|i| i.chain_id.is_none()));
                let Some(owner) = self.owners.get_mut(&answer.cgroup_id) else { return };
                let container = Arc::make_mut(&mut owner.shared);
                container.image_pending = false;
                container.image = details.image.or(container.image.take());
                if let Some(name) = details.name {
                    container.name = name;
                }
                container.labels = details.labels;
                if details.created_ns != 0 {
                    container.created_ns = details.created_ns;
                }
                self.updated.push(answer.cgroup_id);
            }
            Outcome::Gone => {
                counters.api_not_found += 1;
                let Some(owner) = self.owners.get_mut(&answer.cgroup_id) else { return };
                Arc::make_mut(&mut owner.shared).image_pending = false;
                self.updated.push(answer.cgroup_id);
            }
            Outcome::Overflow => self.ask_later(answer.cgroup_id),
            // The asking thread tries again by itself.
            Outcome::Timeout => counters.api_timeout += 1,
            Outcome::Unreachable => counters.api_unreachable += 1,
            Outcome::Failed => counters.api_error += 1,
        }
    }

    /// Drops cgroups whose removal is long enough ago.
    fn forget_removed(&mut self) {
        while self.removed.front().is_some_and(|(at, _)| at.elapsed() >= KEEP_REMOVED) {
            let Some((_, id)) = self.removed.pop_front() else { break };
            self.forget(id);
        }
    }

    fn forget(&mut self, id: u64) {
        self.cgroups.remove(&id);
        if let Some(owner) = self.owners.remove(&id) {
            let path = &owner.shared.cgroup_path;
            if self.by_path.get(path) == Some(&id) {
                self.by_path.remove(path);
            }
        }
    }

    /// Keeps the table bounded. Host cgroups go first: they are found again at the cost of a few file look-ups.
    fn make_room(&mut self) {
        if self.cgroups.len() < MAX_CGROUPS {
            return;
        }
        let before = self.cgroups.len();
        self.cgroups.retain(|_, e| matches!(e.state, State::Owned(_)));
        while self.cgroups.len() >= MAX_CGROUPS
            && let Some((_, id)) = self.removed.pop_front()
        {
            self.forget(id);
        }
        if self.cgroups.len() >= MAX_CGROUPS {
            self.cgroups.clear();
            self.owners.clear();
            self.by_path.clear();
            self.removed.clear();
        }
        self.counters.evicted += (before - self.cgroups.len()) as u64;
    }

    /// Without cgroup2 every kernel id is 1: the process's v1 path stands for it.
    fn enter_v1(&mut self, tgid: u32) -> u64 {
        let Some(found) = self.hierarchy.of_process_v1(tgid) else { return 0 };
        self.cgroups.entry(found.id).or_insert(Entry { path: found.path, state: State::New });
        found.id
    }
}

/// A look at a cgroup without evidence is due.
fn due(since: Instant, looks: u8) -> bool {
    LOOK_AGAIN.get(usize::from(looks)).is_some_and(|&wait| since.elapsed() >= wait)
}
