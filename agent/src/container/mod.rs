//! Which container a cgroup is: runtime, id, name, image and its digests, root file system, pod.

use std::path::PathBuf;

/// A container as its runtime describes it. Immutable: a later answer of the runtime makes a new one.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    pub bundle: Option<PathBuf>,
    /// Host pid of its first process, 0 = unknown.
    pub init_pid: u32,
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
    pub rootfs: Rootfs,
    /// Its image; `None` where there is none (plain runc) or `image_pending`.
    pub image: Option<Image>,
    /// The runtime has not been asked about the image yet, or has not answered.
    pub image_pending: bool,
}

/// A container runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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

/// One mount of the OCI configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// A pod as the bundle's annotations say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Pod name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Uid.
    pub uid: String,
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
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
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
    pub store: ImageStore,
}

/// One layer of an image.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
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
