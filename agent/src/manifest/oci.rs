//! An image in an OCI layout (a directory or an archive of one) or in a `docker save` archive: from the index
//! to the platform's manifest, its configuration and the layers, each checked against the digest that names it.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, de::DeserializeOwned};

use super::{
    build::chain_id,
    digest::{Digest, InvalidDigest},
    source::{read_blob, read_named},
};
use crate::container::{Image, ImageStore, Layer};

/// An index may name an index; nobody nests deeper.
const MAX_DEPTH: usize = 4;
const REFERENCE: &[&str] = &["io.containerd.image.name", "org.opencontainers.image.ref.name"];

/// Why a layout holds no image.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// A document cannot be read, or is not what its digest says.
    #[error("{path}: {what}: {error}")]
    Read {
        /// The layout.
        path: PathBuf,
        /// Which document.
        what: String,
        /// Why.
        error: io::Error,
    },
    /// A document is malformed.
    #[error("{path}: {what}: {error}")]
    Parse {
        /// The layout.
        path: PathBuf,
        /// Which document.
        what: String,
        /// Why.
        error: serde_json::Error,
    },
    /// A document names something by other than a SHA-256 digest.
    #[error(transparent)]
    Digest(#[from] InvalidDigest),
    /// The wanted image is not there.
    #[error("{path}: no image `{wanted}` for {platform}; there are: {found}")]
    NotFound {
        /// The layout.
        path: PathBuf,
        /// The reference asked for; empty = any.
        wanted: String,
        /// `os/architecture`.
        platform: String,
        /// What there is.
        found: String,
    },
    /// Several fit.
    #[error("{path}: more than one image; say which: {0}", found.join(", "))]
    Several {
        /// The layout.
        path: PathBuf,
        /// Their references.
        found: Vec<String>,
    },
    /// Manifest and configuration have different layers.
    #[error("the manifest has {manifest} layers, its configuration {config}")]
    Layers {
        /// In the manifest.
        manifest: usize,
        /// In the configuration.
        config: usize,
    },
    /// Indexes name each other.
    #[error("{0}: more than 4 indexes within each other")]
    TooDeep(PathBuf),
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize, Clone)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    #[serde(default)]
    platform: Option<Platform>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize, Clone)]
struct Platform {
    os: String,
    architecture: String,
}

#[derive(Deserialize)]
struct ImageManifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Config {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// The image `reference` (by name, tag or digest; `None`: the only one) of the layout or archive at `path`.
///
/// # Errors
/// [`LayoutError`].
pub fn image_from_oci_layout(path: &Path, reference: Option<&str>) -> Result<Image, LayoutError> {
    match read_named(path, "index.json") {
        Ok(bytes) => from_index(path, &parse(path, "index.json", &bytes)?, reference),
        Err(error) if error.kind() == io::ErrorKind::NotFound && path.is_file() => from_docker_archive(path, reference),
        Err(error) => Err(LayoutError::Read { path: path.into(), what: "index.json".into(), error }),
    }
}

fn from_index(path: &Path, index: &Index, reference: Option<&str>) -> Result<Image, LayoutError> {
    let named: Vec<&Descriptor> = index
        .manifests
        .iter()
        .filter(|descriptor| reference.is_none_or(|wanted| descriptor.is_named(wanted)))
        .collect();
    let mut images = Vec::new();
    for descriptor in &named {
        if let Some(found) = descend(path, descriptor, 0)? {
            images.push((*descriptor, found));
        }
    }
    images.dedup_by(|a, b| a.1.1 == b.1.1);
    let (named, (index_digest, manifest)) = match images.len() {
        1 => images.remove(0),
        0 => {
            let found: Vec<String> = index.manifests.iter().map(Descriptor::describe).collect();
            return Err(LayoutError::NotFound {
                path: path.into(),
                wanted: reference.unwrap_or_default().into(),
                platform: format!("{}/{}", platform().0, platform().1),
                found: found.join(", "),
            });
        }
        _ => {
            let found = images.iter().map(|(descriptor, _)| descriptor.describe()).collect();
            return Err(LayoutError::Several { path: path.into(), found });
        }
    };
    let document: ImageManifest = parse(path, &manifest.to_string(), &blob(path, &manifest)?)?;
    let config: Digest = document.config.digest.parse()?;
    let diff_ids = diff_ids(path, &config.to_string(), &blob(path, &config)?)?;
    let layers = document.layers.into_iter().map(|layer| (layer.digest, layer.media_type, String::new())).collect();
    let name = reference.map_or_else(|| named.reference().unwrap_or_default().to_owned(), str::to_owned);
    image(path, name, index_digest, Some(manifest), &config, &diff_ids, layers)
}

/// The manifest for this platform that a descriptor leads to, and the index it was found in.
fn descend(
    path: &Path,
    descriptor: &Descriptor,
    depth: usize,
) -> Result<Option<(Option<Digest>, Digest)>, LayoutError> {
    if depth > MAX_DEPTH {
        return Err(LayoutError::TooDeep(path.into()));
    }
    let digest: Digest = descriptor.digest.parse()?;
    if !descriptor.is_index() {
        let ours = descriptor.platform.as_ref().is_none_or(Platform::is_ours);
        return Ok((ours && !descriptor.is_attestation()).then_some((None, digest)));
    }
    let index: Index = parse(path, &digest.to_string(), &blob(path, &digest)?)?;
    for inner in &index.manifests {
        if let Some((index_digest, manifest)) = descend(path, inner, depth + 1)? {
            return Ok(Some((Some(index_digest.unwrap_or(digest)), manifest)));
        }
    }
    Ok(None)
}

fn from_docker_archive(path: &Path, reference: Option<&str>) -> Result<Image, LayoutError> {
    let what = "manifest.json";
    let read = |name: &str| {
        read_named(path, name).map_err(|error| LayoutError::Read { path: path.into(), what: name.into(), error })
    };
    let mut saved: Vec<Saved> = parse(path, what, &read(what)?)?;
    let tags = |saved: &Saved| saved.repo_tags.clone().unwrap_or_default();
    let all: Vec<String> = saved.iter().map(|saved| tags(saved).join(" ")).collect();
    saved.retain(|saved| reference.is_none_or(|wanted| tags(saved).iter().any(|tag| tag == wanted)));
    if saved.len() > 1 {
        return Err(LayoutError::Several { path: path.into(), found: all });
    }
    let Some(saved) = saved.pop() else {
        return Err(LayoutError::NotFound {
            path: path.into(),
            wanted: reference.unwrap_or_default().into(),
            platform: format!("{}/{}", platform().0, platform().1),
            found: all.join(", "),
        });
    };
    let bytes = read(&saved.config)?;
    let diff_ids = diff_ids(path, &saved.config, &bytes)?;
    let name = reference.map_or_else(|| tags(&saved).into_iter().next().unwrap_or_default(), str::to_owned);
    // No digests of blobs: each layer is proved by its diff id alone.
    let layers = saved.layers.into_iter().map(|member| (String::new(), String::new(), member)).collect();
    image(path, name, None, None, &Digest::of(&bytes), &diff_ids, layers)
}

fn image(
    path: &Path,
    reference: String,
    index_digest: Option<Digest>,
    manifest_digest: Option<Digest>,
    config: &Digest,
    diff_ids: &[Digest],
    layers: Vec<(String, String, String)>,
) -> Result<Image, LayoutError> {
    if layers.len() != diff_ids.len() {
        return Err(LayoutError::Layers { manifest: layers.len(), config: diff_ids.len() });
    }
    let layers = layers.into_iter().zip(diff_ids).map(|((digest, media_type, store_id), diff_id)| Layer {
        digest,
        diff_id: diff_id.to_string(),
        media_type,
        store_id,
    });
    Ok(Image {
        reference,
        index_digest: index_digest.map(|digest| digest.to_string()),
        manifest_digest: manifest_digest.map(|digest| digest.to_string()),
        config_digest: Some(config.to_string()),
        chain_id: chain_id(diff_ids.iter().copied()).map(|digest| digest.to_string()),
        layers: layers.collect(),
        store: ImageStore::Blobs(path.into()),
    })
}

fn diff_ids(path: &Path, what: &str, bytes: &[u8]) -> Result<Vec<Digest>, LayoutError> {
    let config: Config = parse(path, what, bytes)?;
    config.rootfs.diff_ids.iter().map(|digest| Ok(digest.parse()?)).collect()
}

fn blob(path: &Path, digest: &Digest) -> Result<Vec<u8>, LayoutError> {
    read_blob(path, digest).map_err(|error| LayoutError::Read { path: path.into(), what: digest.to_string(), error })
}

fn parse<T: DeserializeOwned>(path: &Path, what: &str, bytes: &[u8]) -> Result<T, LayoutError> {
    serde_json::from_slice(bytes).map_err(|error| LayoutError::Parse { path: path.into(), what: what.into(), error })
}

impl Descriptor {
    fn reference(&self) -> Option<&str> {
        let annotations = self.annotations.as_ref()?;
        REFERENCE.iter().find_map(|key| annotations.get(*key)).map(String::as_str)
    }

    fn is_named(&self, wanted: &str) -> bool {
        let annotations = self.annotations.as_ref();
        self.digest == wanted
            || annotations
                .is_some_and(|all| REFERENCE.iter().any(|key| all.get(*key).is_some_and(|name| name == wanted)))
    }

    fn describe(&self) -> String {
        self.reference().unwrap_or(&self.digest).to_owned()
    }

    fn is_index(&self) -> bool {
        self.media_type.ends_with(".image.index.v1+json") || self.media_type.ends_with(".manifest.list.v2+json")
    }

    /// buildkit puts attestations beside images, for a platform that does not exist.
    fn is_attestation(&self) -> bool {
        self.platform.as_ref().is_some_and(|platform| platform.os == "unknown")
    }
}

impl Platform {
    fn is_ours(&self) -> bool {
        (self.os.as_str(), self.architecture.as_str()) == platform()
    }
}

/// This machine in Go's words.
fn platform() -> (&'static str, &'static str) {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    ("linux", architecture)
}
