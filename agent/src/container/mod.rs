//! Which container a cgroup is: runtime, id, name, image and its digests, root file system, pod.
//!
//! Sources, in this order: the cgroup's path says where to look (`cgroup`); the processes above it and the
//! runtimes' state directories give the OCI bundle (`locate`, `bundle`), synchronously, before the first
//! exec; the runtime answers about the image later, from a thread of its own (`ask`, `containerd`,
//! `storage`, `docker`). A path's shape alone never makes a container.
//!
//! This module does not judge files and knows nothing of events or rules.

mod ask;
mod bundle;
mod cgroup;
mod claim;
mod containerd;
mod counters;
mod docker;
mod image;
mod locate;
pub(crate) mod mounts;
pub(crate) mod places;
mod read;
mod reference;
mod storage;
mod table;

use std::{io, path::PathBuf, time::Duration};

pub use counters::Counters;
pub use image::{ImageRef, image_by_reference};
pub use reference::{Reference, short_id};
pub use table::{Containers, Lookup, Scan};

use serde::{Deserialize, Serialize};

/// Where runtimes are looked for. The well-known places are always looked at; these come first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainersConfig {
    /// The host's root directory as this process sees it (`/`, or a hostPath mount in a pod).
    pub host_root: PathBuf,
    /// The host's procfs as this process sees it.
    pub proc: PathBuf,
    /// Further containerd daemons.
    pub containerd: Vec<ContainerdEndpoint>,
    /// Further graph or run roots of containers/storage (podman, CRI-O).
    pub storage_roots: Vec<PathBuf>,
    /// Further `--root` directories of runc or crun.
    pub runc_roots: Vec<PathBuf>,
    /// Longest wait for one answer of a runtime.
    pub api_timeout: Duration,
}

impl Default for ContainersConfig {
    fn default() -> Self {
        Self {
            host_root: "/".into(),
            proc: "/proc".into(),
            containerd: Vec::new(),
            storage_roots: Vec::new(),
            runc_roots: Vec::new(),
            api_timeout: Duration::from_secs(2),
        }
    }
}

/// A containerd daemon. Both are paths of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerdEndpoint {
    /// `grpc.address` of its configuration.
    pub socket: PathBuf,
    /// `state` of its configuration (`/run/containerd`).
    pub state: PathBuf,
}

/// What can go wrong between the agent and a container runtime.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read.
    #[error("{path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not a regular file.
    #[error("{}: not a regular file", .0.display())]
    NotRegular(PathBuf),
    /// A file is larger than anything a runtime writes.
    #[error("{path}: larger than {limit} bytes", path = path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The bound.
        limit: u64,
    },
    /// A runtime's file belongs to somebody else than root.
    #[error("{path}: belongs to uid {owner}, not to root: not a system runtime's", path = path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// A file is not the JSON it should be.
    #[error("{path}: {source}", path = path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// Content does not have the digest it is stored under.
    #[error("{digest}: the stored content does not have this digest: the store is damaged or was changed")]
    Digest {
        /// The digest asked for.
        digest: String,
    },
    /// An image or a part of it does not exist in the store.
    #[error("{0}: not found; is the image in this runtime and namespace?")]
    NotFound(String),
    /// The image's parts contradict each other, or the form is unknown.
    #[error("{reference}: {reason}")]
    Image {
        /// The image.
        reference: String,
        /// What does not fit.
        reason: &'static str,
    },
    /// The runtime did not answer.
    #[error("{socket}: {reason}; is the daemon running and may this process use its socket?", socket = socket.display())]
    Unreachable {
        /// Its socket.
        socket: PathBuf,
        /// What the connection said.
        reason: String,
    },
    /// The runtime answered with an error.
    #[error("{socket}: {status}", socket = socket.display())]
    Refused {
        /// Its socket.
        socket: PathBuf,
        /// Its answer.
        status: String,
    },
    /// The agent could not set up its own side.
    #[error("cannot start asking container runtimes: {0}")]
    Start(io::Error),
}

/// A container as its runtime describes it. Immutable: a later answer of the runtime makes a new one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Full id.
    pub id: String,
    /// cgroup v2 id of the container's own cgroup.
    pub cgroup_id: u64,
    /// Path of that cgroup from the hierarchy's root.
    pub cgroup_path: String,
    /// What runs it.
    pub runtime: Runtime,
    /// Name; the id where the runtime gives none.
    pub name: String,
    /// The OCI bundle directory on the host.
    #[serde(skip)]
    pub bundle: Option<PathBuf>,
    /// Host pid of its first process, 0 = unknown.
    pub init_pid: u32,
    /// Which namespaces of the host it is in; `None` while its first process is not known.
    pub shares: Option<Shares>,
    /// Created, ns since the epoch; 0 = unknown.
    pub created_ns: i64,
    /// All capabilities and no confinement.
    pub privileged: bool,
    /// Path of the entry point's program as the bundle's `process.args[0]` says.
    pub args: Vec<String>,
    /// Mounts, from the bundle.
    pub mounts: Vec<Mount>,
    /// Its pod.
    pub pod: Option<Pod>,
    /// A pod's pause container.
    pub sandbox: bool,
    /// Its root file system.
    #[serde(skip)]
    pub rootfs: Rootfs,
    /// Its image; `None` where there is none (plain runc) or `image_pending`.
    pub image: Option<Image>,
    /// The runtime has not been asked about the image yet, or has not answered. Until then `image` has at most
    /// the reference that the pod asked for.
    pub image_pending: bool,
    /// Labels of the container, as its engine has them; sorted, bounded.
    pub labels: Vec<(String, String)>,
}

impl Container {
    /// Falco's `container.id`: the first 12 characters of the full id.
    pub fn short_id(&self) -> &str {
        short_id(&self.id)
    }
}

impl Image {
    /// Registry and path of the reference.
    pub fn repository(&self) -> &str {
        Reference::split(&self.reference).repository
    }

    /// Tag of the reference, where it has one.
    pub fn tag(&self) -> Option<&str> {
        Some(Reference::split(&self.reference).tag).filter(|tag| !tag.is_empty())
    }
}

/// A container runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Runtime {
    /// containerd, through any client (`ctr`, nerdctl, CRI).
    Containerd,
    /// CRI-O.
    CriO,
    /// Docker.
    Docker,
    /// podman.
    Podman,
    /// runc or crun without an engine above it.
    Runc,
}

impl Runtime {
    /// Falco's `container.type`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::CriO => "cri-o",
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Runc => "runc",
        }
    }
}

/// One mount of the OCI configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Host path or file system name.
    pub source: String,
    /// Path in the container.
    pub destination: String,
    /// Mount options.
    pub options: Vec<String>,
    /// Type (`bind`, `tmpfs`, ...).
    pub kind: String,
}

/// Namespaces that a container shares with the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shares {
    /// The pid namespace.
    pub pid: bool,
    /// The network namespace; `None` where the agent may not look at the host's.
    pub network: Option<bool>,
    /// The IPC namespace.
    pub ipc: bool,
}

/// A pod as the bundle's annotations say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// Pod name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Uid.
    pub uid: String,
    /// Id of its sandbox container; empty where unknown.
    pub sandbox_id: String,
    /// Labels, sorted.
    pub labels: Vec<(String, String)>,
}

/// Where the container's root lies on the host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rootfs {
    /// `root.path` of the bundle, absolute.
    pub path: PathBuf,
    /// Overlay lower directories, top first; empty where not an overlay or not known.
    pub lower: Vec<PathBuf>,
    /// Overlay upper directory.
    pub upper: Option<PathBuf>,
}

/// An image whose identity is closed: manifest -> config -> `diff_ids` -> chain id == what the container runs on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Image {
    /// Reference as the runtime has it (`docker.io/library/x:1`).
    pub reference: String,
    /// `sha256:...` of the index the reference points to, where it points to one.
    pub index_digest: Option<String>,
    /// `sha256:...` of the platform manifest.
    pub manifest_digest: Option<String>,
    /// `sha256:...` of the image config: the image id.
    pub config_digest: Option<String>,
    /// `sha256:...` chain id of all layers; `None` where the chain does not close (then no manifest is accepted).
    pub chain_id: Option<String>,
    /// Layers, lowest first.
    pub layers: Vec<Layer>,
    /// Where the layers' bytes are.
    #[serde(skip)]
    pub store: ImageStore,
}

/// One layer of an image.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Layer {
    /// `sha256:...` of the blob as distributed; empty where not known.
    pub digest: String,
    /// `sha256:...` of the uncompressed tar.
    pub diff_id: String,
    /// Media type of the blob; empty where not known.
    pub media_type: String,
    /// The engine's own id of the layer (podman: directory below `overlay/`); else empty.
    pub store_id: String,
}

/// Where layer bytes can be read.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum ImageStore {
    /// Nowhere.
    #[default]
    None,
    /// A folder with `blobs/sha256/HEX`: an OCI layout, or containerd's content store.
    Blobs(PathBuf),
    /// containers/storage (podman, CRI-O): its graph root, with `overlay-layers/ID.tar-split.gz` and `overlay/ID/diff`.
    ContainersStorage(PathBuf),
}
