//! Asks containerd's API which image a container runs, and closes its identity chain: the parent of the
//! container's snapshot is a chain id, and only an image whose own layers add up to it is the container's.
//! The reference that the container was started with can have moved to another image since.

use std::{
    collections::HashMap,
    error::Error as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use containerd_client::{
    services::v1::{
        GetContainerRequest, GetImageRequest, ListImagesRequest, ListNamespacesRequest, PluginsRequest,
        ReadContentRequest,
        containers_client::ContainersClient,
        content_client::ContentClient,
        images_client::ImagesClient,
        introspection_client::IntrospectionClient,
        namespaces_client::NamespacesClient,
        snapshots::{StatSnapshotRequest, snapshots_client::SnapshotsClient},
    },
    tonic::{Code, IntoRequest, Request, Response, Status, transport::Channel},
};

use super::{
    Error, Image, ImageStore,
    ask::Details,
    bundle::Cut,
    image::{self, Descriptor, MAX_BLOB, Target},
    mounts::join_host,
    read,
};

/// The reason of [`Error::Unreachable`] for an answer that did not come in time.
pub(crate) const TIMEOUT: &str = "no answer in time";
/// Image targets whose chains are remembered.
const MAX_TARGETS: usize = 512;
/// Most images of a namespace that are looked through for a chain.
const MAX_IMAGES: usize = 4096;

/// One containerd daemon.
#[derive(Debug)]
pub(crate) struct Daemon {
    socket: PathBuf,
    host_root: PathBuf,
    timeout: Duration,
    connection: Option<Connection>,
    /// The images that a target digest stands for (one per platform that is here), by namespace and digest.
    /// Digests name content: an entry never becomes wrong, only incomplete while content is being fetched.
    targets: HashMap<(String, String), Arc<Vec<Image>>>,
}

#[derive(Debug, Clone)]
struct Connection {
    channel: Channel,
    /// Root of the content store, as this process opens it; `None` if it cannot be read.
    content: Option<PathBuf>,
}

impl Daemon {
    pub(crate) fn new(socket: PathBuf, host_root: PathBuf, timeout: Duration) -> Self {
        Self { socket, host_root, timeout, connection: None, targets: HashMap::new() }
    }

    /// There is a connection, which may have broken since.
    pub(crate) fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// Drops the connection: the daemon may come back as another process.
    pub(crate) fn disconnect(&mut self) {
        self.connection = None;
    }

    /// Describes a container.
    pub(crate) async fn details(&mut self, namespace: &str, id: &str) -> Result<Details, Error> {
        let connection = self.connect().await?;
        let mut containers = ContainersClient::new(connection.channel.clone());
        let request = self.request(GetContainerRequest { id: id.to_owned() }, namespace)?;
        let reply = self.call(containers.get(request)).await?;
        let container = reply.container.ok_or_else(|| Error::NotFound(format!("container {id}")))?;
        let mut details = Details {
            name: container.labels.get("nerdctl/name").filter(|n| !n.is_empty()).map(|n| read::cut(n, 256).to_owned()),
            created_ns: container
                .created_at
                .map_or(0, |t| t.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(t.nanos))),
            labels: Cut::default().pairs(container.labels),
            image: None,
        };
        if container.image.is_empty() {
            // Started from a plain directory.
            return Ok(details);
        }
        let reference = read::cut(&container.image, 1024).to_owned();
        let chain =
            self.snapshot_chain(&connection, namespace, &container.snapshotter, &container.snapshot_key).await?;
        let closed = match chain {
            Some(chain) => self.image_of_chain(&connection, namespace, &reference, &chain).await?,
            None => None,
        };
        details.image = Some(Image { reference, ..closed.unwrap_or_default() });
        Ok(details)
    }

    /// The chain id that a container's snapshot was made from.
    async fn snapshot_chain(
        &self,
        connection: &Connection,
        namespace: &str,
        snapshotter: &str,
        key: &str,
    ) -> Result<Option<String>, Error> {
        if snapshotter.is_empty() || key.is_empty() {
            return Ok(None);
        }
        let mut snapshots = SnapshotsClient::new(connection.channel.clone());
        let request = StatSnapshotRequest { snapshotter: snapshotter.to_owned(), key: key.to_owned() };
        let parent = match self.call(snapshots.stat(self.request(request, namespace)?)).await {
            Ok(reply) => reply.info.map(|info| info.parent).unwrap_or_default(),
            Err(Error::NotFound(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        // A snapshot for a user namespace is named CHAIN-UID-GID (containerd `remappedSnapshot`).
        let chain = parent.get(..71).filter(|c| image::hex_of(c).is_some());
        Ok(chain.filter(|_| parent.len() == 71 || parent.as_bytes()[71] == b'-').map(ToOwned::to_owned))
    }

    /// The image whose chain is `chain`: the one that `reference` names if it still is, else any other.
    async fn image_of_chain(
        &mut self,
        connection: &Connection,
        namespace: &str,
        reference: &str,
        chain: &str,
    ) -> Result<Option<Image>, Error> {
        let matching = |images: &[Image]| images.iter().find(|i| i.chain_id.as_deref() == Some(chain)).cloned();
        if let Some(target) = self.target_of(connection, namespace, reference).await?
            && let Some(found) = matching(&self.images_of_target(connection, namespace, &target).await?)
        {
            return Ok(Some(found));
        }
        let mut images = ImagesClient::new(connection.channel.clone());
        let request = self.request(ListImagesRequest { filters: Vec::new() }, namespace)?;
        let listed = self.call(images.list(request)).await?;
        for target in listed.images.into_iter().take(MAX_IMAGES).filter_map(|i| i.target) {
            if let Some(found) = matching(&self.images_of_target(connection, namespace, &target.digest).await?) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The digest that a reference points to now.
    async fn target_of(
        &self,
        connection: &Connection,
        namespace: &str,
        reference: &str,
    ) -> Result<Option<String>, Error> {
        let mut images = ImagesClient::new(connection.channel.clone());
        let request = self.request(GetImageRequest { name: reference.to_owned() }, namespace)?;
        match self.call(images.get(request)).await {
            Ok(reply) => Ok(reply.image.and_then(|i| i.target).map(|t| t.digest)),
            Err(Error::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The images of a target whose manifest and config are here. Damaged or absent content is no error: such
    /// an image closes no chain.
    async fn images_of_target(
        &mut self,
        connection: &Connection,
        namespace: &str,
        digest: &str,
    ) -> Result<Arc<Vec<Image>>, Error> {
        let key = (namespace.to_owned(), digest.to_owned());
        if let Some(known) = self.targets.get(&key) {
            return Ok(Arc::clone(known));
        }
        let mut found = Vec::new();
        let mut whole = true;
        match self.target(connection, namespace, digest).await {
            Ok(Target::Index(manifests)) => {
                for manifest in manifests {
                    match self.image(connection, namespace, &manifest.digest).await {
                        Ok(image) => found.push(Image { index_digest: Some(digest.to_owned()), ..image }),
                        Err(error @ Error::Unreachable { .. }) => return Err(error),
                        // The other platforms' manifests are not fetched.
                        Err(_) => whole = whole && !manifest.platform.as_ref().is_some_and(image::Platform::is_native),
                    }
                }
            }
            Ok(Target::Manifest { config, layers }) => {
                match self.assemble(connection, namespace, digest, &config, layers).await {
                    Ok(image) => found.push(image),
                    Err(error @ Error::Unreachable { .. }) => return Err(error),
                    Err(_) => whole = false,
                }
            }
            Err(error @ Error::Unreachable { .. }) => return Err(error),
            Err(_) => whole = false,
        }
        let found = Arc::new(found);
        if whole {
            if self.targets.len() >= MAX_TARGETS {
                self.targets.clear();
            }
            self.targets.insert(key, Arc::clone(&found));
        }
        Ok(found)
    }

    async fn image(&self, connection: &Connection, namespace: &str, digest: &str) -> Result<Image, Error> {
        match self.target(connection, namespace, digest).await? {
            Target::Manifest { config, layers } => self.assemble(connection, namespace, digest, &config, layers).await,
            Target::Index(_) => Err(Error::Image { reference: digest.to_owned(), reason: "an index within an index" }),
        }
    }

    async fn target(&self, connection: &Connection, namespace: &str, digest: &str) -> Result<Target, Error> {
        image::parse_target(digest, &self.blob(connection, namespace, digest).await?)
    }

    async fn assemble(
        &self,
        connection: &Connection,
        namespace: &str,
        digest: &str,
        config: &Descriptor,
        layers: Vec<Descriptor>,
    ) -> Result<Image, Error> {
        let bytes = self.blob(connection, namespace, &config.digest).await?;
        let store = connection.content.clone().map_or(ImageStore::None, ImageStore::Blobs);
        image::assemble(digest, config, layers, &bytes, store)
    }

    /// Content by digest, verified: from the store's directory, else through the API.
    async fn blob(&self, connection: &Connection, namespace: &str, digest: &str) -> Result<Vec<u8>, Error> {
        let hex = image::hex_of(digest)
            .ok_or_else(|| Error::Image { reference: digest.to_owned(), reason: "not a sha256 digest" })?;
        if let Some(content) = &connection.content
            && let Ok(bytes) = read::bounded(&content.join("blobs/sha256").join(hex), MAX_BLOB)
        {
            return image::verify(digest, bytes);
        }
        let mut content = ContentClient::new(connection.channel.clone());
        let request = ReadContentRequest { digest: digest.to_owned(), offset: 0, size: 0 };
        let mut stream = self.call(content.read(self.request(request, namespace)?)).await?;
        let mut bytes = Vec::new();
        while let Some(part) = self.call_raw(stream.message()).await? {
            bytes.extend_from_slice(&part.data);
            if bytes.len() as u64 > MAX_BLOB {
                return Err(Error::TooLarge { path: digest.into(), limit: MAX_BLOB });
            }
        }
        image::verify(digest, bytes)
    }

    async fn connect(&mut self) -> Result<Connection, Error> {
        if let Some(connection) = &self.connection {
            return Ok(connection.clone());
        }
        let connecting = containerd_client::connect(&self.socket);
        let channel = tokio::time::timeout(self.timeout, connecting)
            .await
            .map_err(|_elapsed| self.unreachable(TIMEOUT))?
            .map_err(|error| self.unreachable(root_cause(&error)))?;
        let mut introspection = IntrospectionClient::new(channel.clone());
        let request = PluginsRequest { filters: vec!["type==io.containerd.content.v1".to_owned()] };
        let plugins = self.call(introspection.plugins(request)).await?.plugins;
        let content = plugins
            .into_iter()
            .find_map(|p| p.exports.get("root").map(PathBuf::from))
            .map(|root| join_host(&self.host_root, &root))
            .filter(|root| root.join("blobs/sha256").is_dir());
        let connection = Connection { channel, content };
        self.connection = Some(connection.clone());
        Ok(connection)
    }

    fn request<T>(&self, message: T, namespace: &str) -> Result<Request<T>, Error> {
        let mut request = message.into_request();
        let value = namespace.parse().map_err(|_invalid| Error::Refused {
            socket: self.socket.clone(),
            status: "the namespace is not ASCII".to_owned(),
        })?;
        request.metadata_mut().insert("containerd-namespace", value);
        Ok(request)
    }

    async fn call<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Error> {
        Ok(self.call_raw(call).await?.into_inner())
    }

    async fn call_raw<T>(&self, call: impl Future<Output = Result<T, Status>>) -> Result<T, Error> {
        let status = match tokio::time::timeout(self.timeout, call).await {
            Ok(Ok(reply)) => return Ok(reply),
            Ok(Err(status)) => status,
            Err(_elapsed) => return Err(self.unreachable(TIMEOUT)),
        };
        Err(match status.code() {
            Code::NotFound => Error::NotFound(status.message().to_owned()),
            Code::DeadlineExceeded => self.unreachable(TIMEOUT),
            Code::Unavailable | Code::Cancelled => self.unreachable(status.message()),
            // With a cause it is the transport's error, without one it is the daemon's answer.
            Code::Unknown if status.source().is_some() => self.unreachable(status.message()),
            _ => Error::Refused { socket: self.socket.clone(), status: status.message().to_owned() },
        })
    }

    fn unreachable(&self, reason: impl Into<String>) -> Error {
        Error::Unreachable { socket: self.socket.clone(), reason: reason.into() }
    }
}

/// Finds an image by name and this machine's platform. Blocks.
pub(crate) fn image_by_reference(socket: &Path, namespace: Option<&str>, reference: &str) -> Result<Image, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Start)?;
    let mut daemon = Daemon::new(socket.to_path_buf(), "/".into(), Duration::from_secs(10));
    runtime.block_on(async {
        let connection = daemon.connect().await?;
        let namespaces = if let Some(one) = namespace {
            vec![one.to_owned()]
        } else {
            let mut client = NamespacesClient::new(connection.channel.clone());
            let listed = daemon.call(client.list(ListNamespacesRequest { filter: String::new() })).await?;
            listed.namespaces.into_iter().map(|n| n.name).collect()
        };
        for namespace in &namespaces {
            for name in image::spellings(reference) {
                if let Some(target) = daemon.target_of(&connection, namespace, &name).await? {
                    let image = daemon.native_image(&connection, namespace, &target).await?;
                    return Ok(Image { reference: name, ..image });
                }
            }
        }
        Err(Error::NotFound(format!("image {reference} in namespaces {}", namespaces.join(", "))))
    })
}

impl Daemon {
    /// The image of a target that this machine would run.
    async fn native_image(&self, connection: &Connection, namespace: &str, digest: &str) -> Result<Image, Error> {
        let Target::Index(manifests) = self.target(connection, namespace, digest).await? else {
            return self.image(connection, namespace, digest).await;
        };
        let native = manifests.iter().filter(|m| m.platform.as_ref().is_none_or(image::Platform::is_native));
        let mut problem = Error::Image {
            reference: digest.to_owned(),
            reason: "the index has no manifest for this machine's platform",
        };
        for manifest in native {
            match self.image(connection, namespace, &manifest.digest).await {
                Ok(image) => return Ok(Image { index_digest: Some(digest.to_owned()), ..image }),
                Err(error) => problem = error,
            }
        }
        Err(problem)
    }
}

/// tonic says "transport error" and keeps the cause to itself.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
