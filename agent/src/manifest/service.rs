//! Verdicts away from the event path: manifests are built once per chain id and files are hashed by worker
//! threads, and a request is answered at once where nothing has to be read. Every queue and every wait is
//! bounded; what does not fit or come in time is answered `unverifiable` and counted, never dropped.

use std::{
    collections::{HashMap, VecDeque},
    io, mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{
    counters::{Count, Counters},
    digest::Digest,
    hash::{ExecFile, FileHasher, HashLimits, Held},
    judge::{FileDigest, HashFailure, Judgement, ManifestState, Reason, Subject, judge, judge_without_digest},
    model::{Manifest, Source},
};
use crate::container::Container;

/// How often waiting requests are looked at for their deadline.
const SWEEP: Duration = Duration::from_millis(100);

/// Where manifests come from.
pub trait ManifestSource: Send + Sync + 'static {
    /// The manifest of the container's image; slow. `cancelled` is set when the answer is no longer wanted.
    ///
    /// # Errors
    /// `NoLayers` or `BuildFailed`, after the cause was logged.
    fn manifest(&self, container: &Container, counters: &Counters, cancelled: &AtomicBool) -> Result<Manifest, Reason>;
}

/// Limits of the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Threads that build manifests.
    pub builders: usize,
    /// Threads that hash files.
    pub hashers: usize,
    /// Requests that may wait at a time, for hashing or for a manifest.
    pub queue: usize,
    /// Of these, how many one container may have.
    pub queue_per_container: usize,
    /// How long a request waits for the image or its manifest to become known.
    pub pending_timeout: Duration,
    /// How long a failed build is not tried again.
    pub retry_after: Duration,
    /// Memory for manifests; the least recently used go first (and come back from disk).
    pub manifest_bytes: usize,
    /// Limits of hashing.
    pub hash: HashLimits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            builders: 1,
            hashers: 1,
            queue: 4096,
            queue_per_container: 1024,
            pending_timeout: Duration::from_secs(30),
            retry_after: Duration::from_mins(1),
            manifest_bytes: 64 << 20,
            hash: HashLimits::default(),
        }
    }
}

/// Called after an answer was sent; must not block.
pub type Wake = Box<dyn Fn() + Send + Sync>;

/// The service. Dropping it ends its threads; requests still waiting are not answered.
#[derive(Debug)]
pub struct VerdictService {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl VerdictService {
    /// Starts the workers. Answers that [`Self::request`] does not give come from the receiver, each
    /// followed by a call of `wake`.
    ///
    /// # Errors
    /// A thread could not be started.
    pub fn start(
        config: Config,
        source: impl ManifestSource,
        wake: Wake,
    ) -> io::Result<(Self, mpsc::Receiver<(u64, Judgement)>)> {
        let (answers, receiver) = mpsc::channel();
        let shared = Arc::new(Shared {
            hasher: FileHasher::new(config.hash),
            counters: Arc::default(),
            state: Mutex::default(),
            build: Condvar::new(),
            hash: Condvar::new(),
            cancelled: AtomicBool::new(false),
            source: Box::new(source),
            answers,
            wake,
            config,
        });
        let mut service = Self { shared, threads: Vec::new() };
        for _ in 0..service.shared.config.builders.max(1) {
            service.spawn("manifest-build", Shared::build_manifests)?;
        }
        for _ in 0..service.shared.config.hashers.max(1) {
            service.spawn("manifest-hash", Shared::hash_files)?;
        }
        Ok((service, receiver))
    }

    /// Begins to build the manifest of a container's image, unless it is known or being built.
    pub fn prepare(&self, container: &Arc<Container>) {
        let mut state = self.shared.state();
        self.shared.manifest_state(&mut state, container);
    }

    /// A container became better known: requests that wait for its image go on.
    pub fn container_updated(&self, container: &Arc<Container>) {
        let shared = &self.shared;
        let mut state = shared.state();
        let found = shared.manifest_state(&mut state, container);
        if matches!(found, Lookup::ImagePending) {
            return;
        }
        if state.per_container.contains_key(&container.cgroup_id) {
            state.updated.insert(container.cgroup_id, Arc::clone(container));
        }
        for request in state.unidentified.remove(&container.id).unwrap_or_default() {
            shared.settle(&mut state, request);
        }
    }

    /// Judges the file of an exec. `None`: the answer comes later, under `ticket`.
    pub fn request(&self, ticket: u64, container: &Arc<Container>, file: ExecFile) -> Option<Judgement> {
        let shared = &self.shared;
        let known = shared.hasher.known(&file);
        let mut state = shared.state();
        let lookup = shared.manifest_state(&mut state, container);
        let pending = ManifestState::Pending;
        let decided = match (&lookup, known) {
            (Lookup::Known(manifest), Some(digest)) => Some(Shared::judge(&state, manifest, container, &file, digest)),
            (Lookup::Known(manifest), None) => Shared::without_digest(manifest, container, &file),
            (_, Some(Err(failure))) => Some(Shared::judge(&state, &pending, container, &file, Err(failure))),
            (_, _) => Shared::without_digest(&pending, container, &file),
        };
        if let Some(judgement) = decided {
            if matches!(known, Some(Ok(_))) {
                shared.counters.add(Count::DigestHit);
            }
            shared.counters.add(Count::Immediate);
            shared.counters.judged(&judgement);
            return Some(judgement);
        }

        let held = if known.is_none() { shared.hasher.hold(container, &file) } else { None };
        let request = Request {
            ticket,
            container: Arc::clone(container),
            file,
            held,
            digest: known,
            deadline: Instant::now() + shared.config.pending_timeout,
        };
        let of_container = state.per_container.get(&container.cgroup_id).copied().unwrap_or(0);
        if state.pending >= shared.config.queue || of_container >= shared.config.queue_per_container {
            let manifest = lookup.into_state();
            let full = Err(HashFailure::QueueFull);
            let judgement = Shared::judge(&state, &manifest, container, &request.file, full);
            shared.counters.judged(&judgement);
            return Some(judgement);
        }
        state.pending += 1;
        *state.per_container.entry(container.cgroup_id).or_default() += 1;
        if request.digest.is_some() {
            shared.settle(&mut state, request);
        } else {
            state.to_hash.push_back(request);
            shared.hash.notify_one();
        }
        None
    }

    /// The manifest of a chain id, where it is in memory.
    pub fn manifest(&self, chain_id: &Digest) -> Option<Arc<Manifest>> {
        match &self.shared.state().slots.get(chain_id)?.content {
            Content::Ready(manifest) => Some(Arc::clone(manifest)),
            Content::Building(_) | Content::Missing { .. } => None,
        }
    }

    /// What was counted.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.shared.counters
    }

    /// Requests not answered yet.
    pub fn pending(&self) -> usize {
        self.shared.state().pending
    }

    fn spawn(&mut self, name: &str, work: fn(&Shared)) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        self.threads.push(thread::Builder::new().name(name.into()).spawn(move || work(&shared))?);
        Ok(())
    }
}

impl Drop for VerdictService {
    fn drop(&mut self) {
        {
            // Under the lock, so that no worker misses it between its look and its wait.
            let _state = self.shared.state();
            self.shared.cancelled.store(true, Ordering::Relaxed);
        }
        self.shared.build.notify_all();
        self.shared.hash.notify_all();
        for thread in self.threads.drain(..) {
            // Its panic was reported when it happened.
            let _ = thread.join();
        }
    }
}

struct Shared {
    config: Config,
    hasher: FileHasher,
    counters: Arc<Counters>,
    state: Mutex<State>,
    build: Condvar,
    hash: Condvar,
    cancelled: AtomicBool,
    source: Box<dyn ManifestSource>,
    answers: mpsc::Sender<(u64, Judgement)>,
    wake: Wake,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("VerdictService").field("config", &self.config).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct State {
    /// By chain id.
    slots: HashMap<Digest, Slot>,
    to_build: VecDeque<(Digest, Arc<Container>)>,
    to_hash: VecDeque<Request>,
    /// Requests whose container's image is not known, by container id.
    unidentified: HashMap<String, Vec<Request>>,
    /// Requests accepted and not answered, in all and by container.
    pending: usize,
    per_container: HashMap<u64, usize>,
    /// What became known of containers, by cgroup id, while requests of theirs were under way.
    updated: HashMap<u64, Arc<Container>>,
    /// Runs on with every use of a slot.
    clock: u64,
    /// When waiting requests were last looked at for their deadline.
    swept: Option<Instant>,
}

struct Slot {
    content: Content,
    used: u64,
}

enum Content {
    /// With the requests that wait for it.
    Building(Vec<Request>),
    Ready(Arc<Manifest>),
    Missing {
        reason: Reason,
        since: Instant,
    },
}

struct Request {
    ticket: u64,
    container: Arc<Container>,
    file: ExecFile,
    held: Option<Held>,
    digest: Option<Result<FileDigest, HashFailure>>,
    deadline: Instant,
}

/// What is known of a container's manifest.
enum Lookup {
    Known(ManifestState),
    Building(Digest),
    ImagePending,
}

impl Lookup {
    fn into_state(self) -> ManifestState {
        match self {
            Self::Known(state) => state,
            Self::Building(_) | Self::ImagePending => ManifestState::Pending,
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every step leaves the state whole; a panic under the lock would be a bug of ours, not a reason to stop.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopped(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// What is known of the container's manifest; starts to build it where nothing is.
    fn manifest_state(&self, state: &mut State, container: &Arc<Container>) -> Lookup {
        let image = match &container.image {
            Some(image) => image,
            None if container.image_pending => return Lookup::ImagePending,
            None => return Lookup::Known(ManifestState::Missing(Reason::NoImage)),
        };
        let Some(chain_id) = image.chain_id.as_deref().and_then(|text| text.parse::<Digest>().ok()) else {
            return Lookup::Known(ManifestState::Missing(Reason::ChainOpen));
        };
        state.clock += 1;
        let used = state.clock;
        if let Some(slot) = state.slots.get_mut(&chain_id) {
            slot.used = used;
            match &slot.content {
                Content::Ready(manifest) => return Lookup::Known(ManifestState::Ready(Arc::clone(manifest))),
                Content::Building(_) => return Lookup::Building(chain_id),
                Content::Missing { reason, since } if since.elapsed() < self.config.retry_after => {
                    return Lookup::Known(ManifestState::Missing(*reason));
                }
                Content::Missing { .. } => {}
            }
        }
        state.slots.insert(chain_id, Slot { content: Content::Building(Vec::new()), used });
        state.to_build.push_back((chain_id, Arc::clone(container)));
        self.build.notify_one();
        Lookup::Building(chain_id)
    }

    fn without_digest(manifest: &ManifestState, container: &Container, file: &ExecFile) -> Option<Judgement> {
        judge_without_digest(manifest, &Self::subject(container, file, Err(HashFailure::Pending)))
    }

    fn subject<'a>(
        container: &'a Container,
        file: &'a ExecFile,
        digest: Result<FileDigest, HashFailure>,
    ) -> Subject<'a> {
        Subject {
            identity: &file.identity,
            rootfs_path: file.rootfs_path(container),
            in_host_mount_namespace: file.in_host_mount_namespace,
            digest,
        }
    }

    fn judge(
        state: &State,
        manifest: &ManifestState,
        container: &Container,
        file: &ExecFile,
        digest: Result<FileDigest, HashFailure>,
    ) -> Judgement {
        judge(manifest, &Self::subject(container, file, digest), |digest| {
            state.slots.values().find_map(|slot| match &slot.content {
                Content::Ready(other) if verified(other) && other.lists(digest) => {
                    Some(other.header().reference.clone())
                }
                _ => None,
            })
        })
    }

    /// Answers a request whose digest is known or known to be missing, or lets it wait for its manifest.
    fn settle(&self, state: &mut State, mut request: Request) {
        if let Some(updated) = state.updated.get(&request.container.cgroup_id) {
            request.container = Arc::clone(updated);
        }
        let Some(digest) = request.digest else {
            // Not hashed yet: the hasher settles it.
            state.to_hash.push_back(request);
            self.hash.notify_one();
            return;
        };
        let lookup = self.manifest_state(state, &request.container);
        match lookup {
            Lookup::Building(chain_id) if digest.is_ok() => {
                if let Some(Slot { content: Content::Building(waiting), .. }) = state.slots.get_mut(&chain_id) {
                    waiting.push(request);
                }
            }
            Lookup::ImagePending if digest.is_ok() => {
                state.unidentified.entry(request.container.id.clone()).or_default().push(request);
            }
            lookup => self.answer(state, &request, &lookup.into_state(), digest),
        }
    }

    fn answer(
        &self,
        state: &mut State,
        request: &Request,
        manifest: &ManifestState,
        digest: Result<FileDigest, HashFailure>,
    ) {
        let judgement = Self::judge(state, manifest, &request.container, &request.file, digest);
        state.pending -= 1;
        if let Some(count) = state.per_container.get_mut(&request.container.cgroup_id) {
            *count -= 1;
            if *count == 0 {
                state.per_container.remove(&request.container.cgroup_id);
                state.updated.remove(&request.container.cgroup_id);
            }
        }
        self.counters.judged(&judgement);
        // The receiver is gone only when the agent ends.
        let _ = self.answers.send((request.ticket, judgement));
        (self.wake)();
    }

    fn build_manifests(&self) {
        // Building may take seconds of a core; what the node is there for goes first.
        let _ = rustix::process::nice(10);
        while let Some((chain_id, container)) = self.next_build() {
            let built =
                catch_unwind(AssertUnwindSafe(|| self.source.manifest(&container, &self.counters, &self.cancelled)))
                    .unwrap_or_else(|_panic| {
                        self.counters.add(Count::Panicked);
                        Err(Reason::BuildFailed)
                    });
            let mut state = self.state();
            let (content, outcome) = match built.map(Arc::new) {
                Ok(manifest) => (Content::Ready(Arc::clone(&manifest)), ManifestState::Ready(manifest)),
                Err(reason) => (Content::Missing { reason, since: Instant::now() }, ManifestState::Missing(reason)),
            };
            state.clock += 1;
            let used = state.clock;
            let former = state.slots.insert(chain_id, Slot { content, used });
            if let Some(Slot { content: Content::Building(waiting), .. }) = former {
                for request in waiting {
                    let digest = request.digest.unwrap_or(Err(HashFailure::Pending));
                    self.answer(&mut state, &request, &outcome, digest);
                }
            }
            self.evict(&mut state, chain_id);
        }
    }

    fn next_build(&self) -> Option<(Digest, Arc<Container>)> {
        let mut state = self.state();
        loop {
            if self.stopped() {
                return None;
            }
            if let Some(job) = state.to_build.pop_front() {
                return Some(job);
            }
            state = self.build.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Keeps manifests within their memory, the newest always.
    fn evict(&self, state: &mut State, newest: Digest) {
        loop {
            let mut total = 0;
            let mut oldest: Option<(u64, Digest)> = None;
            for (chain_id, slot) in &state.slots {
                let size = match &slot.content {
                    Content::Ready(manifest) => manifest.memory(),
                    Content::Missing { .. } => size_of::<Slot>(),
                    Content::Building(_) => continue,
                };
                total += size;
                if *chain_id != newest && oldest.is_none_or(|(used, _)| slot.used < used) {
                    oldest = Some((slot.used, *chain_id));
                }
            }
            match oldest {
                Some((_, chain_id)) if total > self.config.manifest_bytes => state.slots.remove(&chain_id),
                _ => return,
            };
        }
    }

    fn hash_files(&self) {
        let mut buffer = Vec::new();
        while let Some(mut request) = self.next_hash() {
            let hashed = catch_unwind(AssertUnwindSafe(|| {
                self.hasher.hash(&request.container, &request.file, request.held.as_ref(), &mut buffer)
            }))
            .unwrap_or_else(|_panic| {
                self.counters.add(Count::Panicked);
                Err(HashFailure::Io)
            });
            self.counters.add(Count::Hashed);
            request.held = None;
            request.digest = Some(hashed);
            let mut state = self.state();
            self.settle(&mut state, request);
        }
    }

    fn next_hash(&self) -> Option<Request> {
        let mut state = self.state();
        loop {
            if self.stopped() {
                return None;
            }
            // Also where there is always a file to hash.
            let now = Instant::now();
            if state.swept.is_none_or(|swept| now.duration_since(swept) >= SWEEP) {
                state.swept = Some(now);
                self.expire(&mut state, now);
            }
            if let Some(request) = state.to_hash.pop_front() {
                if now < request.deadline {
                    return Some(request);
                }
                self.answer(&mut state, &request, &ManifestState::Pending, Err(HashFailure::Pending));
                continue;
            }
            if state.pending == 0 {
                state = self.hash.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state = self.hash.wait_timeout(state, SWEEP).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Answers what has waited too long for an image or a manifest.
    fn expire(&self, state: &mut State, now: Instant) {
        let mut late = Vec::new();
        let mut take = |waiting: &mut Vec<Request>| {
            let (expired, rest) = mem::take(waiting).into_iter().partition(|request| request.deadline <= now);
            *waiting = rest;
            late.extend::<Vec<Request>>(expired);
        };
        for slot in state.slots.values_mut() {
            if let Content::Building(waiting) = &mut slot.content {
                take(waiting);
            }
        }
        for waiting in state.unidentified.values_mut() {
            take(waiting);
        }
        state.unidentified.retain(|_, waiting| !waiting.is_empty());
        for request in late {
            let digest = request.digest.unwrap_or(Err(HashFailure::Pending));
            self.answer(state, &request, &ManifestState::Pending, digest);
        }
    }
}

/// Its list is bound to the image's digests.
fn verified(manifest: &Manifest) -> bool {
    matches!(manifest.header().source, Source::Layers | Source::Attestation)
}

#[cfg(test)]
mod tests;
