//! An image's identity: index -> manifest -> config -> `diff_ids` -> chain id. Every link is a digest of
//! bytes that were read and hashed here; a store is never believed. The chain closes only where its end is
//! what the container runs on, and that end comes from the runtime's snapshot, not from the image's name.
//!
//! <https://github.com/opencontainers/image-spec/blob/v1.1.0/config.md#layer-chainid>

use std::path::PathBuf;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::{Error, Image, ImageStore, Layer, containerd, reference::is_hex, storage};

/// Largest index, manifest or config that is read (registries refuse manifests above 4 MiB).
pub(crate) const MAX_BLOB: u64 = 8 << 20;
/// Most manifests of one index that are looked at.
const MAX_MANIFESTS: usize = 128;
/// Most layers of an image; overlayfs allows 500.
const MAX_LAYERS: usize = 512;

/// An image named by a user, with the runtime that has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageRef {
    /// An image of containerd.
    Containerd {
        /// Socket of the daemon.
        socket: PathBuf,
        /// Its namespace; `None` searches all of them.
        namespace: Option<String>,
        /// Reference, as the runtime has it or in short (`busybox`).
        reference: String,
    },
    /// An image of podman or CRI-O.
    Podman {
        /// Graph root (`/var/lib/containers/storage`).
        root: PathBuf,
        /// Reference, id or the beginning of an id.
        reference: String,
    },
}

/// Finds an image by its name: its digests and where its layers are. Blocks; for the command line.
///
/// # Errors
/// If the runtime does not answer, does not have the image, or its parts do not fit together.
pub fn image_by_reference(image: &ImageRef) -> Result<Image, Error> {
    match image {
        ImageRef::Containerd { socket, namespace, reference } => {
            containerd::image_by_reference(socket, namespace.as_deref(), reference)
        }
        ImageRef::Podman { root, reference } => storage::image_by_reference(root, reference),
    }
}

/// The names under which a runtime may have `reference`: as given, then completed as docker does.
pub(crate) fn spellings(reference: &str) -> Vec<String> {
    let mut names = vec![reference.to_owned()];
    let first = reference.split('/').next().unwrap_or_default();
    let has_host = reference.contains('/') && (first.contains(['.', ':']) || first == "localhost");
    let full = match (has_host, reference.contains('/')) {
        (true, _) => reference.to_owned(),
        (false, true) => format!("docker.io/{reference}"),
        (false, false) => format!("docker.io/library/{reference}"),
    };
    let split = super::Reference::split(&full);
    let tagged = if split.tag.is_empty() && split.digest.is_empty() { format!("{full}:latest") } else { full.clone() };
    for name in [full, tagged] {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    // podman gives images without a registry this one.
    if !has_host {
        let split = super::Reference::split(reference);
        let tag = if split.tag.is_empty() && split.digest.is_empty() { ":latest" } else { "" };
        names.push(format!("localhost/{reference}{tag}"));
    }
    names
}

/// `sha256:HEX` of `bytes`.
pub(crate) fn digest_of(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(71);
    text.push_str("sha256:");
    for byte in Sha256::digest(bytes) {
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from(b"0123456789abcdef"[usize::from(nibble)]));
        }
    }
    text
}

/// `bytes` have the digest they are stored under.
pub(crate) fn verify(digest: &str, bytes: Vec<u8>) -> Result<Vec<u8>, Error> {
    if digest_of(&bytes) == digest { Ok(bytes) } else { Err(Error::Digest { digest: digest.to_owned() }) }
}

/// The 64 digits of a `sha256:` digest: safe as a file name.
pub(crate) fn hex_of(digest: &str) -> Option<&str> {
    digest.strip_prefix("sha256:").filter(|hex| is_hex(hex, 64))
}

/// Chain id of layers, lowest first; `None` without layers.
pub(crate) fn chain_id<'a>(diff_ids: impl IntoIterator<Item = &'a str>) -> Option<String> {
    diff_ids.into_iter().fold(None, |chain, diff| {
        Some(match chain {
            None => diff.to_owned(),
            Some(below) => digest_of(format!("{below} {diff}").as_bytes()),
        })
    })
}

/// A reference to a blob.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: String,
    #[serde(default)]
    pub(crate) platform: Option<Platform>,
}

/// The platform that an index gives for a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Platform {
    #[serde(default)]
    pub(crate) architecture: String,
    #[serde(default)]
    pub(crate) os: String,
}

impl Platform {
    /// This machine runs it.
    pub(crate) fn is_native(&self) -> bool {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        self.os == "linux" && self.architecture == architecture
    }
}

/// What an image's name points to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// One manifest for each platform.
    Index(Vec<Descriptor>),
    /// A platform's manifest.
    Manifest { config: Descriptor, layers: Vec<Descriptor> },
}

/// Parses an index or manifest, OCI or docker.
pub(crate) fn parse_target(digest: &str, bytes: &[u8]) -> Result<Target, Error> {
    #[derive(Deserialize)]
    struct Document {
        manifests: Option<Vec<Descriptor>>,
        config: Option<Descriptor>,
        layers: Option<Vec<Descriptor>>,
    }
    let error = |reason| Error::Image { reference: digest.to_owned(), reason };
    let document: Document =
        serde_json::from_slice(bytes).map_err(|source| Error::Json { path: digest.into(), source })?;
    match document {
        // One document that can be read as both is an attack on whoever reads it as the other.
        Document { manifests: Some(_), config: Some(_), .. } => Err(error("both an index and a manifest")),
        Document { manifests: Some(mut manifests), .. } => {
            manifests.truncate(MAX_MANIFESTS);
            Ok(Target::Index(manifests))
        }
        Document { config: Some(config), layers: Some(layers), .. } if layers.len() <= MAX_LAYERS => {
            Ok(Target::Manifest { config, layers })
        }
        Document { layers: Some(_), config: Some(_), .. } => Err(error("more layers than an overlay can have")),
        _ => Err(error("neither an index nor a manifest")),
    }
}

/// Puts a manifest and its config together. `config_bytes` are verified already.
pub(crate) fn assemble(
    manifest_digest: &str,
    config: &Descriptor,
    layers: Vec<Descriptor>,
    config_bytes: &[u8],
    store: ImageStore,
) -> Result<Image, Error> {
    let diff_ids = diff_ids(&config.digest, config_bytes)?;
    if diff_ids.len() != layers.len() {
        return Err(Error::Image {
            reference: manifest_digest.to_owned(),
            reason: "the manifest and its config have different numbers of layers",
        });
    }
    let chain = chain_id(diff_ids.iter().map(String::as_str));
    let layers = layers
        .into_iter()
        .zip(diff_ids)
        .map(|(blob, diff_id)| Layer {
            digest: blob.digest,
            diff_id,
            media_type: blob.media_type,
            store_id: String::new(),
        })
        .collect();
    Ok(Image {
        reference: String::new(),
        index_digest: None,
        manifest_digest: Some(manifest_digest.to_owned()),
        config_digest: Some(config.digest.clone()),
        chain_id: chain,
        layers,
        store,
    })
}

/// `rootfs.diff_ids` of an image config.
pub(crate) fn diff_ids(digest: &str, config: &[u8]) -> Result<Vec<String>, Error> {
    #[derive(Deserialize)]
    struct Config {
        rootfs: Rootfs,
    }
    #[derive(Deserialize)]
    struct Rootfs {
        diff_ids: Vec<String>,
    }
    let config: Config =
        serde_json::from_slice(config).map_err(|source| Error::Json { path: digest.into(), source })?;
    let ids = config.rootfs.diff_ids;
    if ids.len() > MAX_LAYERS || ids.iter().any(|id| hex_of(id).is_none()) {
        return Err(Error::Image { reference: digest.to_owned(), reason: "a layer's diff id is no sha256 digest" });
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_ids_as_the_specification_computes_them() {
        let a = digest_of(b"a");
        let b = digest_of(b"b");
        assert_eq!(a, "sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb");
        assert_eq!(chain_id([]), None);
        assert_eq!(chain_id([a.as_str()]), Some(a.clone()));
        assert_eq!(chain_id([a.as_str(), b.as_str()]), Some(digest_of(format!("{a} {b}").as_bytes())));
        assert!(verify(&a, b"b".to_vec()).is_err());
    }

    #[test]
    fn documents_are_one_thing_only() {
        let parse = |text: &str| parse_target("sha256:x", text.as_bytes());
        assert!(matches!(parse(r#"{"manifests":[{"digest":"d"}]}"#), Ok(Target::Index(m)) if m.len() == 1));
        assert!(matches!(parse(r#"{"config":{"digest":"d"},"layers":[]}"#), Ok(Target::Manifest { .. })));
        for bad in [
            r#"{"manifests":[],"config":{"digest":"d"},"layers":[]}"#,
            r#"{"config":{"digest":"d"}}"#,
            "{}",
            "",
            "[]",
            r#"{"manifests":5}"#,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let many = format!(r#"{{"config":{{"digest":"d"}},"layers":[{}]}}"#, vec![r#"{"digest":"d"}"#; 600].join(","));
        assert!(parse(&many).is_err());
        let manifests = format!(r#"{{"manifests":[{}]}}"#, vec![r#"{"digest":"d"}"#; 600].join(","));
        assert!(matches!(parse(&manifests), Ok(Target::Index(m)) if m.len() == MAX_MANIFESTS));
    }

    #[test]
    fn manifest_and_config_must_agree() {
        let config = Descriptor { media_type: String::new(), digest: digest_of(b"c"), platform: None };
        let text = format!(r#"{{"rootfs":{{"diff_ids":["{}"]}}}}"#, digest_of(b"l"));
        assert!(assemble("sha256:m", &config, vec![], text.as_bytes(), ImageStore::None).is_err());
        let one = assemble("sha256:m", &config, vec![config.clone()], text.as_bytes(), ImageStore::None).unwrap();
        assert_eq!(one.chain_id, Some(digest_of(b"l")));
        assert!(diff_ids("d", br#"{"rootfs":{"diff_ids":["sha256:../../etc"]}}"#).is_err());
        assert_eq!(hex_of("sha256:../x"), None);
    }

    #[test]
    fn short_names_are_completed() {
        assert_eq!(
            spellings("busybox"),
            ["busybox", "docker.io/library/busybox", "docker.io/library/busybox:latest", "localhost/busybox:latest"]
        );
        assert_eq!(spellings("a/b:1"), ["a/b:1", "docker.io/a/b:1", "localhost/a/b:1"]);
        assert_eq!(spellings("reg.io/a:1"), ["reg.io/a:1"]);
        assert_eq!(spellings("reg:5000/a"), ["reg:5000/a", "reg:5000/a:latest"]);
    }
}
