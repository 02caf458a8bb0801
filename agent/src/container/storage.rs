//! Reads containers/storage, the image store of podman and CRI-O, from its files: there is no daemon to ask.
//! The chain closes where the manifest's config lists the very layers that the container's own layer lies on.
//!
//! Layout: <https://github.com/containers/storage> `store.go`, `images.go`, `layers.go`.

use std::{
    collections::HashMap,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, de::DeserializeOwned};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    Error, Image, ImageStore,
    ask::Details,
    image::{self, MAX_BLOB, Target},
    read,
    reference::is_hex,
};

/// Bound on each list; a node with thousands of layers has a few MiB.
const MAX_LIST: u64 = 128 << 20;
/// Most layers below one another.
const MAX_DEPTH: usize = 512;

/// The stores seen so far, re-read when they change.
#[derive(Debug, Default)]
pub(crate) struct Storages {
    known: HashMap<PathBuf, (Stamp, Arc<Storage>)>,
}

/// Modification time and inode of each list: the engine replaces the file at each write.
type Stamp = [(i64, i64, u64); 3];

#[derive(Debug)]
struct Storage {
    root: PathBuf,
    containers: HashMap<String, ContainerRecord>,
    images: Vec<ImageRecord>,
    layers: HashMap<String, LayerRecord>,
}

#[derive(Debug, Deserialize)]
struct ContainerRecord {
    id: String,
    #[serde(default)]
    names: Option<Vec<String>>,
    #[serde(default)]
    image: String,
    #[serde(default)]
    layer: String,
    #[serde(default)]
    metadata: String,
    #[serde(default)]
    created: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct ImageRecord {
    id: String,
    #[serde(default)]
    names: Option<Vec<String>>,
    #[serde(default)]
    layer: String,
    #[serde(default)]
    mapped_layers: Option<Vec<String>>,
    #[serde(default)]
    big_data_names: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct LayerRecord {
    id: String,
    #[serde(default)]
    parent: String,
    #[serde(default)]
    diff_digest: String,
}

impl Storages {
    /// Describes a container.
    pub(crate) fn details(&mut self, root: &Path, id: &str) -> Result<Details, Error> {
        let storage = self.open(root)?;
        let record = storage
            .containers
            .get(id)
            .ok_or_else(|| Error::NotFound(format!("container {id} in {}", root.display())))?;
        let created = OffsetDateTime::parse(&record.created, &Rfc3339).ok();
        let mut details = Details {
            name: record.names.iter().flatten().next().map(|n| read::cut(n, 256).to_owned()),
            labels: Vec::new(),
            created_ns: created.and_then(|t| i64::try_from(t.unix_timestamp_nanos()).ok()).unwrap_or(0),
            image: None,
        };
        if record.image.is_empty() {
            return Ok(details);
        }
        // The name as the container was started with; the image may have lost it since.
        let asked = serde_json::from_str::<Metadata>(&record.metadata).unwrap_or_default().image_name;
        details.image = Some(match storage.image_of_container(record) {
            Ok(image) if asked.is_empty() => image,
            Ok(image) => Image { reference: read::cut(&asked, 1024).to_owned(), ..image },
            Err(error) => {
                tracing::debug!(container = id, %error, "the identity of a container's image does not close");
                Image { reference: read::cut(&asked, 1024).to_owned(), ..Image::default() }
            }
        });
        Ok(details)
    }

    fn open(&mut self, root: &Path) -> Result<Arc<Storage>, Error> {
        let stamp = stamp(root);
        if let Some((known, storage)) = self.known.get(root)
            && *known == stamp
        {
            return Ok(Arc::clone(storage));
        }
        let storage = Arc::new(Storage::read(root)?);
        if self.known.len() >= 16 {
            self.known.clear();
        }
        self.known.insert(root.to_path_buf(), (stamp, Arc::clone(&storage)));
        Ok(storage)
    }
}

/// What podman and CRI-O keep about a container in the store's free-text field.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Metadata {
    image_name: String,
}

/// Finds an image by name, id or beginning of an id.
pub(crate) fn image_by_reference(root: &Path, reference: &str) -> Result<Image, Error> {
    let storage = Storage::read(root)?;
    let spellings = image::spellings(reference);
    let named = |r: &&ImageRecord| spellings.iter().any(|s| r.names.iter().flatten().any(|n| n == s));
    let hex = reference.strip_prefix("sha256:").unwrap_or(reference);
    let by_id = |r: &&ImageRecord| hex.len() >= 4 && r.id.starts_with(hex);
    let record = storage.images.iter().find(named).or_else(|| storage.images.iter().find(by_id));
    let record = record.ok_or_else(|| Error::NotFound(format!("image {reference} in {}", root.display())))?;
    storage.image(record, &record.layer)
}

impl Storage {
    fn read(root: &Path) -> Result<Self, Error> {
        let containers: Vec<ContainerRecord> = list(&root.join("overlay-containers/containers.json"))?;
        let layers: Vec<LayerRecord> = list(&root.join("overlay-layers/layers.json"))?;
        Ok(Self {
            root: root.to_path_buf(),
            containers: containers.into_iter().map(|c| (c.id.clone(), c)).collect(),
            images: list(&root.join("overlay-images/images.json"))?,
            layers: layers.into_iter().map(|l| (l.id.clone(), l)).collect(),
        })
    }

    fn image_of_container(&self, container: &ContainerRecord) -> Result<Image, Error> {
        let error = |reason| Error::Image { reference: container.image.clone(), reason };
        let record = self
            .images
            .iter()
            .find(|i| i.id == container.image)
            .ok_or_else(|| Error::NotFound(format!("image {}", container.image)))?;
        let layer =
            self.layers.get(&container.layer).ok_or_else(|| error("the container's layer is not in the store"))?;
        // A user namespace gives the container a re-owned copy of the image's top layer.
        if layer.parent != record.layer && !record.mapped_layers.iter().flatten().any(|l| *l == layer.parent) {
            return Err(error("the container's layer does not lie on the image's top layer"));
        }
        self.image(record, &record.layer)
    }

    /// The identity of an image, held against the layers below `top`.
    fn image(&self, record: &ImageRecord, top: &str) -> Result<Image, Error> {
        let reference = record.names.iter().flatten().next().cloned().unwrap_or_else(|| record.id.clone());
        let error = |reason| Error::Image { reference: reference.clone(), reason };
        let config_digest = format!("sha256:{}", record.id);
        let config = image::verify(&config_digest, self.big_data(record, &config_digest)?)?;
        let stack = self.stack(top).ok_or_else(|| error("a layer is missing in the store"))?;
        let diff_ids = image::diff_ids(&config_digest, &config)?;
        if !stack.iter().map(|l| l.diff_digest.as_str()).eq(diff_ids.iter().map(String::as_str)) {
            return Err(error("the store's layers are not those of the image's config"));
        }
        let (mut image, index) = self
            .manifest(record, &config_digest, &config)
            .ok_or_else(|| error("the store has no manifest of this image whose digest is right"))?;
        for (layer, record) in image.layers.iter_mut().zip(&stack) {
            layer.store_id.clone_from(&record.id);
        }
        image.reference = reference;
        image.index_digest = index;
        Ok(image)
    }

    /// The manifest whose config is this image, and the index that lists it, where the store kept one.
    fn manifest(&self, record: &ImageRecord, config_digest: &str, config: &[u8]) -> Option<(Image, Option<String>)> {
        let store = || ImageStore::ContainersStorage(self.root.clone());
        let names = record.big_data_names.iter().flatten();
        let documents: Vec<(&str, Target)> = names
            .filter_map(|name| {
                let digest = name.strip_prefix("manifest-")?;
                let bytes = image::verify(digest, self.big_data(record, name).ok()?).ok()?;
                Some((digest, image::parse_target(digest, &bytes).ok()?))
            })
            .take(64)
            .collect();
        let image = documents.iter().find_map(|(digest, target)| match target {
            Target::Manifest { config: c, layers } if c.digest == config_digest => {
                image::assemble(digest, c, layers.clone(), config, store()).ok()
            }
            _ => None,
        })?;
        let index = documents.iter().find_map(|(digest, target)| match target {
            Target::Index(manifests) => {
                let lists = manifests.iter().any(|m| Some(&m.digest) == image.manifest_digest.as_ref());
                lists.then(|| (*digest).to_owned())
            }
            Target::Manifest { .. } => None,
        });
        Some((image, index))
    }

    /// The layers from the lowest up to `top`; `None` if one is missing. An image without layers has no top.
    fn stack(&self, top: &str) -> Option<Vec<&LayerRecord>> {
        let mut stack = Vec::new();
        let mut next = top;
        while !next.is_empty() {
            if stack.len() == MAX_DEPTH {
                return None;
            }
            let layer = self.layers.get(next)?;
            stack.push(layer);
            next = &layer.parent;
        }
        stack.reverse();
        Some(stack)
    }

    fn big_data(&self, record: &ImageRecord, name: &str) -> Result<Vec<u8>, Error> {
        if !is_hex(&record.id, 64) {
            return Err(Error::Image { reference: record.id.clone(), reason: "the image's id is no digest" });
        }
        // `makeBigDataBaseName`: only names of harmless characters are file names as they are.
        let file = format!("={}", base64(name.as_bytes()));
        read::bounded(&self.root.join("overlay-images").join(&record.id).join(file), MAX_BLOB)
    }
}

fn list<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, Error> {
    match read::bounded_of_root(path, MAX_LIST) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|source| Error::Json { path: path.to_path_buf(), source }),
        // A store without a container or image yet has no list of them.
        Err(Error::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn stamp(root: &Path) -> Stamp {
    ["overlay-containers/containers.json", "overlay-images/images.json", "overlay-layers/layers.json"]
        .map(|file| std::fs::metadata(root.join(file)).map_or((0, 0, 0), |m| (m.mtime(), m.mtime_nsec(), m.ino())))
}

/// Standard base64 with padding (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_u32, |w, &b| w << 8 | u32::from(b)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = ALPHABET[(word >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A store with one image of `layers` and one container on it.
    fn store(dir: &Path, layers: &[&str], change: impl FnOnce(&mut Vec<serde_json::Value>)) -> String {
        let diffs: Vec<String> = layers.iter().map(|l| image::digest_of(l.as_bytes())).collect();
        let config = json!({"rootfs": {"type": "layers", "diff_ids": diffs}}).to_string();
        let id = image::digest_of(config.as_bytes());
        let blobs: Vec<_> = layers.iter().map(|l| json!({"digest": image::digest_of(l.as_bytes())})).collect();
        let manifest = json!({"config": {"digest": id}, "layers": blobs}).to_string();
        let manifest_digest = image::digest_of(manifest.as_bytes());
        let hex = &id["sha256:".len()..];
        let own = dir.join("overlay-images").join(hex);
        std::fs::create_dir_all(&own).unwrap();
        let manifest_name = format!("manifest-{manifest_digest}");
        std::fs::write(own.join(format!("={}", base64(id.as_bytes()))), &config).unwrap();
        std::fs::write(own.join(format!("={}", base64(manifest_name.as_bytes()))), &manifest).unwrap();
        let mut records: Vec<_> = layers
            .iter()
            .enumerate()
            .map(|(n, _)| {
                let parent = n.checked_sub(1).map_or(String::new(), |n| format!("l{n}"));
                json!({"id": format!("l{n}"), "parent": parent, "diff-digest": diffs[n]})
            })
            .collect();
        let top = format!("l{}", layers.len() - 1);
        records.push(json!({"id": "c", "parent": top}));
        change(&mut records);
        let images = json!([{"id": hex, "names": ["docker.io/library/x:1"], "layer": top,
            "big-data-names": [id, manifest_name]}]);
        let metadata = json!({"image-name": "docker.io/library/x:old"}).to_string();
        let containers = json!([{"id": "cid", "names": ["web"], "image": hex, "layer": "c", "metadata": metadata}]);
        for (file, value) in [
            ("overlay-images/images.json", images),
            ("overlay-layers/layers.json", json!(records)),
            ("overlay-containers/containers.json", containers),
        ] {
            let path = dir.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, value.to_string()).unwrap();
        }
        manifest_digest
    }

    #[test]
    fn the_chain_closes_or_there_are_no_digests() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root, the store must belong to it");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let manifest = store(dir.path(), &["a", "b"], |_| ());
        let details = Storages::default().details(dir.path(), "cid").unwrap();
        assert_eq!(details.name.as_deref(), Some("web"));
        let image = details.image.unwrap();
        assert_eq!(image.reference, "docker.io/library/x:old");
        assert_eq!(image.manifest_digest, Some(manifest));
        assert_eq!(image.layers.iter().map(|l| l.store_id.as_str()).collect::<Vec<_>>(), ["l0", "l1"]);
        assert_eq!(image_by_reference(dir.path(), "x:1").unwrap().chain_id, image.chain_id);
        assert!(matches!(image_by_reference(dir.path(), "y"), Err(Error::NotFound(_))));
        assert!(matches!(Storages::default().details(dir.path(), "other"), Err(Error::NotFound(_))));

        let broken: [fn(&mut Vec<serde_json::Value>); 4] = [
            |l| l[0]["diff-digest"] = "sha256:other".into(),
            |l| l[2]["parent"] = "l0".into(),
            |l| l[0]["parent"] = "l1".into(),
            |l| drop(l.remove(0)),
        ];
        for change in broken {
            let dir = tempfile::tempdir().unwrap();
            store(dir.path(), &["a", "b"], change);
            let image = Storages::default().details(dir.path(), "cid").unwrap().image.unwrap();
            assert_eq!((image.manifest_digest, image.chain_id), (None, None));
        }
    }

    #[test]
    fn base64_with_padding() {
        for (plain, coded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }
}
