//! Finds a runtime's evidence for a container: the bundle or state directory that belongs to a cgroup. All
//! of it is read synchronously, none of it through a runtime's API, so that a container is known before its
//! first program runs and while every daemon is down.
//!
//! A claim (a directory of the right name, a shim's arguments) counts only when the bundle or state file it
//! leads to belongs to root and names this very cgroup.

use std::{
    collections::{HashMap, HashSet},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    Container, ContainersConfig, Counters, Error, Rootfs, Runtime, Shares,
    bundle::{Bundle, cgroup_of},
    cgroup::{Candidate, Hierarchy, candidate},
    claim::{self, Claim},
    mounts::{self, join_host},
    places, read,
    reference::is_hex,
};

/// `PROC_PID_INIT_INO` (`include/uapi/linux/nsfs.h`): the number of the initial pid namespace.
const PID_INIT_INO: u32 = 0xEFFF_FFFC;
/// `PROC_IPC_INIT_INO`
const IPC_INIT_INO: u32 = 0xEFFF_FFFF;

/// `state.json` holds the whole libcontainer configuration.
const MAX_STATE: u64 = 8 << 20;
/// Bound on what a process of this host can make the agent remember.
const MAX_ROOTS: usize = 64;
/// Bound on state directories that are read in one root.
const MAX_INDEX: usize = 20_000;

/// Who is asked about the container's image.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Engine {
    /// containerd's API.
    Containerd { socket: PathBuf, namespace: String },
    /// containers/storage, from its files.
    Storage { graph_root: PathBuf },
    /// Docker, from its files.
    Docker { root: PathBuf },
    /// Nobody: plain runc has no images.
    None,
}

/// A container with its evidence.
#[derive(Debug, Clone)]
pub(crate) struct Located {
    /// As far as the bundle knows it.
    pub(crate) container: Container,
    /// Whom to ask about the rest.
    pub(crate) engine: Engine,
}

/// A directory `.../io.containerd.runtime.v2.task` and the daemon it belongs to.
#[derive(Debug, Clone)]
struct TaskDir {
    dir: PathBuf,
    socket: Option<PathBuf>,
}

/// The places where runtimes keep their state: configured, well known, or learned from running shims. Host paths.
#[derive(Debug)]
pub(crate) struct Locator {
    host_root: PathBuf,
    proc: PathBuf,
    task_dirs: Vec<TaskDir>,
    /// Folders with `overlay-containers/ID/userdata`: graph roots and run roots of containers/storage.
    storages: Vec<PathBuf>,
    runc_roots: Vec<PathBuf>,
    /// Containers of `runc_roots` by the cgroup that their state names.
    index: HashMap<String, (PathBuf, String)>,
    indexed: HashSet<(PathBuf, String)>,
}

impl Locator {
    pub(crate) fn new(config: &ContainersConfig) -> Self {
        let task_dirs = places::containerd(config).into_iter().map(|endpoint| TaskDir {
            dir: endpoint.state.join("io.containerd.runtime.v2.task"),
            socket: Some(endpoint.socket),
        });
        Self {
            host_root: config.host_root.clone(),
            proc: config.proc.clone(),
            task_dirs: task_dirs.collect(),
            storages: places::storages(config),
            runc_roots: places::oci(config),
            index: HashMap::new(),
            indexed: HashSet::new(),
        }
    }

    /// The container whose own cgroup is `path`, from the state directories.
    pub(crate) fn by_path(&mut self, path: &str, hierarchy: &Hierarchy, counters: &mut Counters) -> Option<Located> {
        let found = candidate(path).and_then(|c| self.by_candidate(path, c, hierarchy, counters));
        found.or_else(|| self.by_index(path, hierarchy, counters))
    }

    /// The container whose own cgroup is `path` or above it, from what the processes `pid` descends from say.
    /// Also learns the places they name. `contained` tells of a process's cgroup whether it is a container's:
    /// such a process is believed nothing.
    pub(crate) fn by_process(
        &mut self,
        path: &str,
        pid: u32,
        contained: &dyn Fn(&str) -> bool,
        hierarchy: &Hierarchy,
        counters: &mut Counters,
    ) -> Option<Located> {
        let claims = claim::of_ancestors(&self.proc, pid, contained);
        let mut learned = false;
        for claim in &claims {
            learned |= self.learn(claim);
        }
        for claim in &claims {
            let Some(bundle) = claim.bundle() else { continue };
            let state = match claim {
                Claim::Runc { root: Some(root), id, .. } => self.state(root, id),
                _ => None,
            };
            let accepted = super::cgroup::prefixes(path)
                .find_map(|own| self.accept(own, claim.id(), bundle, state.as_ref(), true, hierarchy, counters));
            if let Some(mut located) = accepted {
                name_it(&mut located.container, &claims);
                return Some(located);
            }
        }
        // What the processes named may hold the bundle of a sibling (one shim serves all containers of a pod).
        if !learned {
            return None;
        }
        let found = super::cgroup::prefixes(path).find_map(|own| self.by_path(own, hierarchy, counters));
        found.map(|mut located| {
            name_it(&mut located.container, &claims);
            located
        })
    }

    /// Learns the state directories and sockets of the shims and monitors that run now.
    pub(crate) fn learn_from_processes(&mut self) {
        for claim in claim::of_all(&self.proc) {
            self.learn(&claim);
        }
    }

    /// Fills in what only exists once the container has been created: the first process and the root mount.
    /// Whether all of it is there now; a root that is no overlay never gets there.
    pub(crate) fn complete(&self, container: &mut Container) -> bool {
        if container.init_pid == 0 {
            container.init_pid = self.init_pid(container);
        }
        if container.init_pid != 0 && container.shares.is_none() {
            container.shares = self.shares(container.init_pid);
        }
        // conmon, the parent of the first process, is the only one to say the name without the storage's lists.
        if container.init_pid != 0
            && matches!(container.runtime, Runtime::Podman | Runtime::CriO)
            && container.name == container.id
        {
            name_it(container, &claim::of_ancestors(&self.proc, container.init_pid, &|_| false));
        }
        if container.rootfs.lower.is_empty() {
            let rootfs = self.rootfs(&container.rootfs.path, container.init_pid);
            container.rootfs.lower = rootfs.lower;
            container.rootfs.upper = rootfs.upper;
        }
        container.init_pid != 0 && !container.rootfs.lower.is_empty()
    }

    fn by_candidate(
        &mut self,
        path: &str,
        candidate: Candidate<'_>,
        hierarchy: &Hierarchy,
        counters: &mut Counters,
    ) -> Option<Located> {
        for at in 0..self.task_dirs.len() {
            let dir = self.task_dirs[at].dir.clone();
            let hinted = candidate.namespace.map(|n| dir.join(n).join(candidate.id));
            let mut bundles: Vec<PathBuf> =
                hinted.into_iter().filter(|b| self.exists(&b.join("config.json"))).collect();
            if bundles.is_empty()
                && let Ok(namespaces) = fs::read_dir(self.open_path(&dir))
            {
                // A Kubernetes or Docker id without its namespace: there are few namespaces.
                let all = namespaces.flatten().take(256).map(|n| dir.join(n.file_name()).join(candidate.id));
                bundles.extend(all.filter(|b| self.exists(&b.join("config.json"))));
            }
            for bundle in bundles {
                if let Some(found) = self.accept(path, candidate.id, &bundle, None, false, hierarchy, counters) {
                    return Some(found);
                }
            }
        }
        if is_hex(candidate.id, 64) {
            for storage in self.storages.clone() {
                let bundle = storage.join("overlay-containers").join(candidate.id).join("userdata");
                if self.exists(&bundle.join("config.json"))
                    && let Some(found) = self.accept(path, candidate.id, &bundle, None, false, hierarchy, counters)
                {
                    return Some(found);
                }
            }
        }
        for root in self.runc_roots.clone() {
            if let Some(state) = self.state(&root, candidate.id)
                && let Some(found) = self.accept_state(path, candidate.id, &state, hierarchy, counters)
            {
                return Some(found);
            }
        }
        None
    }

    /// A container whose cgroup has another name than its id: `linux.cgroupsPath` is free text.
    fn by_index(&mut self, path: &str, hierarchy: &Hierarchy, counters: &mut Counters) -> Option<Located> {
        if self.index.len() > MAX_INDEX {
            self.index.clear();
            self.indexed.clear();
        }
        for root in self.runc_roots.clone() {
            let Ok(entries) = fs::read_dir(self.open_path(&root)) else { continue };
            for entry in entries.flatten().take(MAX_INDEX) {
                let Ok(id) = entry.file_name().into_string() else { continue };
                let key = (root.clone(), id);
                if self.indexed.contains(&key) {
                    continue;
                }
                // The state file comes after the directory: without it, look again the next time.
                if let Some(state) = self.state(&key.0, &key.1) {
                    if let Some(own) = state.cgroup.as_deref().and_then(|p| hierarchy.strip_mount(p)) {
                        self.index.insert(own.to_owned(), key.clone());
                    }
                    self.indexed.insert(key);
                }
            }
        }
        let (root, id) = self.index.get(path)?.clone();
        if let Some(state) = self.state(&root, &id) {
            return self.accept_state(path, &id, &state, hierarchy, counters);
        }
        self.index.remove(path);
        self.indexed.remove(&(root, id));
        None
    }

    fn accept_state(
        &self,
        path: &str,
        id: &str,
        state: &State,
        hierarchy: &Hierarchy,
        counters: &mut Counters,
    ) -> Option<Located> {
        self.accept(path, id, state.bundle.as_deref()?, Some(state), false, hierarchy, counters)
    }

    /// The judge of evidence: does the bundle `dir` describe the container whose own cgroup is `path`?
    #[expect(clippy::too_many_arguments, reason = "each is one piece of the evidence")]
    fn accept(
        &self,
        path: &str,
        id: &str,
        dir: &Path,
        state: Option<&State>,
        claimed: bool,
        hierarchy: &Hierarchy,
        counters: &mut Counters,
    ) -> Option<Located> {
        let bundle = match Bundle::open(&self.open_path(dir)) {
            Ok(bundle) => bundle,
            // The runtime made it and put it in its own place: that it is a container is certain even if the
            // file cannot be understood. Only the name of the cgroup is left to tie them together.
            Err(Error::Json { .. } | Error::TooLarge { .. }) if candidate(path).is_some_and(|c| c.id == id) => {
                counters.bundle_invalid += 1;
                Bundle::default()
            }
            Err(Error::Owner { .. }) => {
                counters.bundle_untrusted += 1;
                return None;
            }
            Err(_) => return None,
        };
        let stated = state.and_then(|s| s.cgroup.as_deref()).and_then(|p| hierarchy.strip_mount(p));
        let same = match (stated, bundle.cgroups_path.as_deref().map(|p| (cgroup_of(p), p))) {
            (Some(stated), _) => stated == path,
            (None, Some((Some(whole), _))) => whole == path,
            // Relative to the runtime's own cgroup: the end is all that is known.
            (None, Some((None, relative))) => ends_with_path(path, relative),
            (None, None) => ends_with_path(path, id) || candidate(path).is_some_and(|c| c.id == id && !claimed),
        };
        if !same {
            return None;
        }
        counters.bundle_truncated += u64::from(bundle.truncated);
        Some(self.describe(path, id, dir, bundle, state))
    }

    fn describe(&self, path: &str, id: &str, dir: &Path, bundle: Bundle, state: Option<&State>) -> Located {
        let (runtime, engine) = self.engine(id, dir, &bundle);
        let created = state.and_then(|s| s.created_ns).or_else(|| {
            let meta = fs::metadata(self.open_path(&dir.join("config.json"))).ok()?;
            Some(meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec()))
        });
        let rootfs = if bundle.root.is_absolute() { bundle.root.clone() } else { dir.join(&bundle.root) };
        let image = bundle.image.map(|reference| super::Image { reference, ..super::Image::default() });
        let container = Container {
            id: id.to_owned(),
            cgroup_id: 0,
            cgroup_path: path.to_owned(),
            runtime,
            name: bundle.name.unwrap_or_else(|| id.to_owned()),
            bundle: Some(self.open_path(dir)),
            init_pid: state.map_or(0, |s| s.init_pid),
            shares: None,
            created_ns: created.unwrap_or(0),
            privileged: bundle.privileged,
            args: bundle.args,
            mounts: bundle.mounts,
            pod: bundle.pod,
            sandbox: bundle.sandbox,
            rootfs: Rootfs { path: self.open_path(&rootfs), ..Rootfs::default() },
            image,
            image_pending: engine != Engine::None,
            labels: Vec::new(),
        };
        Located { container, engine }
    }

    fn engine(&self, id: &str, dir: &Path, bundle: &Bundle) -> (Runtime, Engine) {
        if let Some((task_dir, namespace)) = task_of(dir, id) {
            if namespace == "moby" {
                // Docker binds files of its own state directory into every container.
                let own = format!("/containers/{id}/");
                let root = bundle.mounts.iter().find_map(|m| m.source.split_once(&own).map(|(root, _)| root));
                let root = PathBuf::from(root.unwrap_or("/var/lib/docker"));
                return (Runtime::Docker, Engine::Docker { root: self.open_path(&root) });
            }
            let known = self.task_dirs.iter().find(|t| t.dir == task_dir).and_then(|t| t.socket.as_deref());
            let engine = known.map_or(Engine::None, |socket| Engine::Containerd {
                socket: self.open_path(socket),
                namespace: namespace.to_owned(),
            });
            return (Runtime::Containerd, engine);
        }
        let storage = dir.ancestors().nth(3).filter(|_| is_storage_bundle(dir));
        let runtime = match bundle.engine.as_deref() {
            Some("cri-o") => Runtime::CriO,
            Some("libpod") => Runtime::Podman,
            _ if storage.is_some() => Runtime::Podman,
            _ => Runtime::Runc,
        };
        // The root file system lies in the graph root; the bundle may lie in the run root.
        let graph = bundle
            .root
            .ancestors()
            .nth(3)
            .filter(|_| bundle.root.ends_with("merged"))
            .or(storage)
            .filter(|_| runtime != Runtime::Runc);
        let engine = graph.map_or(Engine::None, |g| Engine::Storage { graph_root: self.open_path(g) });
        (runtime, engine)
    }

    /// Remembers the places that a claim names; whether any was new.
    fn learn(&mut self, claim: &Claim) -> bool {
        let add = |list: &mut Vec<PathBuf>, path: &Path| {
            let new = path.is_absolute() && list.len() < MAX_ROOTS && !list.iter().any(|p| p == path);
            if new {
                list.push(path.to_path_buf());
            }
            new
        };
        match claim {
            Claim::Shim { bundle, socket, .. } => {
                let Some(dir) = bundle.as_deref().and_then(Path::parent).and_then(Path::parent) else { return false };
                if let Some(known) = self.task_dirs.iter_mut().find(|t| t.dir == dir) {
                    let new = known.socket != *socket && socket.is_some();
                    if new {
                        known.socket.clone_from(socket);
                    }
                    return new;
                }
                let new = dir.ends_with("io.containerd.runtime.v2.task") && self.task_dirs.len() < MAX_ROOTS;
                if new {
                    self.task_dirs.push(TaskDir { dir: dir.to_path_buf(), socket: socket.clone() });
                }
                new
            }
            Claim::Conmon { bundle, .. } => {
                let root = bundle.ancestors().nth(3).filter(|_| is_storage_bundle(bundle));
                root.is_some_and(|root| add(&mut self.storages, root))
            }
            // containerd's own runc roots hold nothing that its task directory does not.
            Claim::Runc { root: Some(root), .. } if !root.starts_with("/run/containerd") => {
                add(&mut self.runc_roots, root)
            }
            Claim::Runc { .. } => false,
        }
    }

    fn init_pid(&self, container: &Container) -> u32 {
        let Some(bundle) = &container.bundle else { return 0 };
        ["init.pid", "pidfile"]
            .iter()
            .filter_map(|name| read::bounded(&bundle.join(name), 64).ok())
            .find_map(|text| std::str::from_utf8(&text).ok()?.trim().parse().ok())
            .or_else(|| {
                let state = self.runc_roots.iter().find_map(|root| self.state(root, &container.id))?;
                Some(state.init_pid)
            })
            .unwrap_or(0)
    }

    /// A bundle cannot say it: a pod's container is put into its sandbox's namespaces, and those may be the host's.
    fn shares(&self, init_pid: u32) -> Option<Shares> {
        let namespace = |pid: u32, name: &str| {
            let link = fs::read_link(self.proc.join(pid.to_string()).join("ns").join(name)).ok()?;
            let number: u32 = link.to_str()?.split_once('[')?.1.strip_suffix(']')?.parse().ok()?;
            Some(number)
        };
        // The initial network namespace has no number of its own before Linux 6.18, and looking at that of pid 1 takes all of
        // its capabilities.
        let (own, host) = (namespace(init_pid, "net"), namespace(1, "net"));
        Some(Shares {
            pid: namespace(init_pid, "pid")? == PID_INIT_INO,
            network: own.zip(host).map(|(own, host)| own == host),
            ipc: namespace(init_pid, "ipc")? == IPC_INIT_INO,
        })
    }

    /// What the root is mounted from. The host's own view comes first: a container with enough power can
    /// mount over its root, and then its own view lies.
    fn rootfs(&self, path: &Path, init_pid: u32) -> Rootfs {
        let on_host =
            path.strip_prefix(&self.host_root).map_or_else(|_| path.to_path_buf(), |p| Path::new("/").join(p));
        let views = [("1", on_host.as_path()), ("self", path)];
        let pid = init_pid.to_string();
        let own = (init_pid != 0).then_some((pid.as_str(), Path::new("/")));
        for (pid, point) in views.into_iter().chain(own) {
            let Ok(mountinfo) = read::bounded(&self.proc.join(pid).join("mountinfo"), 64 << 20) else { continue };
            if let Some(dirs) = mounts::mount_at(&mountinfo, point).as_ref().and_then(mounts::overlay_dirs) {
                let dirs = mounts::absolute(dirs, &[&on_host], &self.host_root);
                return Rootfs { path: path.to_path_buf(), lower: dirs.lower, upper: dirs.upper };
            }
        }
        Rootfs { path: path.to_path_buf(), ..Rootfs::default() }
    }

    fn state(&self, root: &Path, id: &str) -> Option<State> {
        if id.contains('/') || id == ".." {
            return None;
        }
        let dir = self.open_path(&root.join(id));
        let runc = || {
            let text = read::bounded_of_root(&dir.join("state.json"), MAX_STATE).ok()?;
            Some(State::from(serde_json::from_slice::<RuncState>(&text).ok()?))
        };
        let crun = || {
            let text = read::bounded_of_root(&dir.join("status"), MAX_STATE).ok()?;
            Some(State::from(serde_json::from_slice::<CrunStatus>(&text).ok()?))
        };
        runc().or_else(crun)
    }

    fn open_path(&self, path: &Path) -> PathBuf {
        join_host(&self.host_root, path)
    }

    fn exists(&self, path: &Path) -> bool {
        fs::symlink_metadata(self.open_path(path)).is_ok()
    }
}

/// What runc's `state.json` or crun's `status` says.
#[derive(Debug, Clone)]
struct State {
    init_pid: u32,
    created_ns: Option<i64>,
    /// As the runtime wrote it: an absolute path below `/sys/fs/cgroup`.
    cgroup: Option<String>,
    bundle: Option<PathBuf>,
}

/// runc `libcontainer/container_linux.go`, `State` and `BaseState`.
#[derive(Deserialize)]
struct RuncState {
    #[serde(default)]
    init_process_pid: u32,
    #[serde(default)]
    created: String,
    #[serde(default)]
    cgroup_paths: HashMap<String, String>,
    config: RuncConfig,
}

#[derive(Deserialize)]
struct RuncConfig {
    #[serde(default)]
    labels: Option<Vec<String>>,
}

impl From<RuncState> for State {
    fn from(state: RuncState) -> Self {
        let bundle = state
            .config
            .labels
            .unwrap_or_default()
            .into_iter()
            .find_map(|l| l.strip_prefix("bundle=").map(PathBuf::from));
        let mut cgroups = state.cgroup_paths;
        let created = OffsetDateTime::parse(&state.created, &Rfc3339).ok();
        Self {
            init_pid: state.init_process_pid,
            created_ns: created.and_then(|t| i64::try_from(t.unix_timestamp_nanos()).ok()),
            cgroup: cgroups.remove("").or_else(|| {
                let path = cgroups.remove("pids")?;
                path.strip_prefix("/sys/fs/cgroup/pids").map(|p| format!("/sys/fs/cgroup{p}"))
            }),
            bundle,
        }
    }
}

/// crun `src/libcrun/status.c`.
#[derive(Deserialize)]
struct CrunStatus {
    #[serde(default)]
    pid: u32,
    #[serde(default, rename = "cgroup-path")]
    cgroup_path: String,
    #[serde(default)]
    created: String,
    bundle: PathBuf,
}

impl From<CrunStatus> for State {
    fn from(status: CrunStatus) -> Self {
        let created = OffsetDateTime::parse(&status.created, &Rfc3339).ok();
        Self {
            init_pid: status.pid,
            created_ns: created.and_then(|t| i64::try_from(t.unix_timestamp_nanos()).ok()),
            cgroup: (!status.cgroup_path.is_empty())
                .then(|| format!("/sys/fs/cgroup/{}", status.cgroup_path.trim_start_matches('/'))),
            bundle: Some(status.bundle),
        }
    }
}

/// The name that a monitor was given for the container, where the bundle has none.
fn name_it(container: &mut Container, claims: &[Claim]) {
    let name = claims.iter().filter(|c| c.id() == container.id).find_map(Claim::name);
    if let Some(name) = name.filter(|_| container.name == container.id) {
        name.clone_into(&mut container.name);
    }
}

/// The task directory and namespace of a containerd bundle `.../io.containerd.runtime.v2.task/NAMESPACE/ID`.
fn task_of<'a>(dir: &'a Path, id: &str) -> Option<(&'a Path, &'a str)> {
    let namespace = dir.parent()?;
    let task_dir = namespace.parent()?;
    let matches = dir.file_name()? == id && task_dir.file_name()? == "io.containerd.runtime.v2.task";
    matches.then_some((task_dir, namespace.file_name()?.to_str()?))
}

/// `ROOT/overlay-containers/ID/userdata`, of containers/storage.
fn is_storage_bundle(dir: &Path) -> bool {
    dir.file_name().is_some_and(|n| n == "userdata")
        && dir.ancestors().nth(2).and_then(Path::file_name).is_some_and(|n| n == "overlay-containers")
}

/// `path` ends with the whole components of `end`.
fn ends_with_path(path: &str, end: &str) -> bool {
    !end.is_empty() && Path::new(path).ends_with(Path::new(end.trim_start_matches('/')))
}
