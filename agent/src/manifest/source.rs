//! Where the bytes of an image are: an OCI layout (a directory, or an archive of one), containerd's content
//! store, or containers/storage. Whatever is read is checked against its digest by the reader of it.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;

use super::{build::BuildError, digest::Digest, layer::LayerInput, model::LayerDigests, tar_split::TarSplit};
use crate::container::{Image, ImageStore, Rootfs};

/// Manifests and configurations are small; a larger one is none.
const MAX_DOCUMENT: u64 = 16 << 20;

/// A layer that was found.
pub(super) struct LayerSource {
    digests: LayerDigests,
    place: Place,
}

enum Place {
    /// A blob of its own.
    Blob { path: PathBuf, size: u64 },
    /// A member of an archive.
    Member { archive: PathBuf, offset: u64, size: u64 },
    /// The unpacked layer and what its archive held besides.
    TarSplit { split: PathBuf, directory: PathBuf },
}

impl LayerSource {
    /// Finds the bytes of a layer.
    pub(super) fn find(image: &Image, index: usize, digests: &LayerDigests) -> Result<Self, BuildError> {
        let digests = *digests;
        let missing = || BuildError::NoLayers(digests.diff_id.to_string());
        let place = match (&image.store, image.layers.get(index)) {
            (ImageStore::Blobs(store), Some(layer)) => {
                let name = match (layer.store_id.as_str(), digests.digest) {
                    ("", Some(digest)) => blob_name(&digest),
                    ("", None) => return Err(missing()),
                    (name, _) => name.to_owned(),
                };
                let failed =
                    |error| BuildError::Store { layer: digests.diff_id.to_string(), path: store.join(&name), error };
                if store.is_file() {
                    let (offset, size) = find_member(store, &name).map_err(failed)?.ok_or_else(missing)?;
                    Place::Member { archive: store.clone(), offset, size }
                } else {
                    let path = store.join(&name);
                    let size = path.metadata().map_err(failed)?.len();
                    Place::Blob { path, size }
                }
            }
            (ImageStore::ContainersStorage(root), Some(layer)) if is_plain_name(&layer.store_id) => {
                let split = root.join("overlay-layers").join(format!("{}.tar-split.gz", layer.store_id));
                let directory = root.join("overlay").join(&layer.store_id).join("diff");
                for path in [&split, &directory] {
                    if let Err(error) = path.metadata() {
                        return Err(BuildError::Store {
                            layer: digests.diff_id.to_string(),
                            path: path.clone(),
                            error,
                        });
                    }
                }
                Place::TarSplit { split, directory }
            }
            _ => return Err(missing()),
        };
        Ok(Self { digests, place })
    }

    /// The digest to name it by.
    pub(super) fn name(&self) -> String {
        self.digests.digest.unwrap_or(self.digests.diff_id).to_string()
    }

    /// Bytes as stored, where known before reading.
    pub(super) fn size(&self) -> Option<u64> {
        match self.place {
            Place::Blob { size, .. } | Place::Member { size, .. } => Some(size),
            Place::TarSplit { .. } => None,
        }
    }

    /// Opens it.
    pub(super) fn open(self, index: u16) -> Result<LayerInput, BuildError> {
        let layer = self.name();
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error| BuildError::Store { layer, path, error }
        };
        let (reader, digest): (Box<dyn Read>, _) = match self.place {
            Place::Blob { path, .. } => (Box::new(File::open(&path).map_err(failed(&path))?), self.digests.digest),
            Place::Member { archive, offset, size } => {
                let member = open_member(&archive, offset, size).map_err(failed(&archive))?;
                (Box::new(member), self.digests.digest)
            }
            // The archive is rebuilt uncompressed: its blob's digest is that of another form of it.
            Place::TarSplit { split, directory } => {
                (Box::new(TarSplit::open(&split, &directory).map_err(failed(&split))?), None)
            }
        };
        Ok(LayerInput { reader, digest, diff_id: self.digests.diff_id, index })
    }
}

/// The unpacked directories of the image's layers, lowest first; empty where none are known.
pub(super) fn unpacked_directories(image: &Image, rootfs: Option<&Rootfs>) -> Vec<PathBuf> {
    if let ImageStore::ContainersStorage(root) = &image.store {
        let directories: Vec<PathBuf> = image
            .layers
            .iter()
            .filter(|layer| is_plain_name(&layer.store_id))
            .map(|layer| root.join("overlay").join(&layer.store_id).join("diff"))
            .filter(|directory| directory.is_dir())
            .collect();
        if !directories.is_empty() && directories.len() == image.layers.len() {
            return directories;
        }
    }
    rootfs.map(|rootfs| rootfs.lower.iter().rev().cloned().collect()).unwrap_or_default()
}

/// What an image's configuration says of how it starts.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Configuration {
    #[serde(default, deserialize_with = "null_is_default")]
    pub(super) entrypoint: Vec<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(super) cmd: Vec<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    env: Vec<String>,
}

impl Configuration {
    /// `PATH`.
    pub(super) fn search_path(&self) -> Option<String> {
        self.env.iter().find_map(|variable| variable.strip_prefix("PATH=")).map(str::to_owned)
    }
}

/// The image's configuration, where it is in the store.
pub(super) fn configuration(image: &Image) -> Option<Configuration> {
    #[derive(Deserialize)]
    struct Document {
        config: Option<Configuration>,
    }
    let digest: Digest = image.config_digest.as_deref()?.parse().ok()?;
    let bytes = match &image.store {
        ImageStore::Blobs(store) => read_blob(store, &digest).ok()?,
        ImageStore::ContainersStorage(root) => {
            let name = format!("={}", STANDARD.encode(digest.to_string()));
            let path = root.join("overlay-images").join(digest.hex()).join(name);
            read_verified(File::open(path).ok()?, &digest).ok()?
        }
        ImageStore::None => return None,
    };
    serde_json::from_slice::<Document>(&bytes).ok()?.config
}

/// A document of an OCI layout by its digest, checked.
pub(super) fn read_blob(store: &Path, digest: &Digest) -> io::Result<Vec<u8>> {
    read_verified(open_named(store, &blob_name(digest))?, digest)
}

/// A document of a layout by its name.
pub(super) fn read_named(store: &Path, name: &str) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_named(store, name)?.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_DOCUMENT {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("{name} is larger than {MAX_DOCUMENT} bytes")));
    }
    Ok(bytes)
}

fn open_named(store: &Path, name: &str) -> io::Result<Box<dyn Read>> {
    if !store.is_file() {
        return Ok(Box::new(File::open(store.join(name))?));
    }
    let (offset, size) = find_member(store, name)?
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no {name} in the archive")))?;
    Ok(Box::new(open_member(store, offset, size)?))
}

fn read_verified(reader: impl Read, digest: &Digest) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(MAX_DOCUMENT).read_to_end(&mut bytes)?;
    let actual = Digest::of(&bytes);
    if actual != *digest {
        let message = format!("{digest} has other content: {actual}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok(bytes)
}

/// Offset and length of a regular member; the last of a name, as when unpacked.
fn find_member(archive: &Path, name: &str) -> io::Result<Option<(u64, u64)>> {
    let mut archive = tar::Archive::new(File::open(archive)?);
    let mut found = None;
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        let path = entry.path_bytes();
        let path = path.strip_prefix(b"./").unwrap_or(&path);
        if path == name.as_bytes() && entry.header().entry_type().is_file() {
            found = Some((entry.raw_file_position(), entry.size()));
        }
    }
    Ok(found)
}

fn open_member(archive: &Path, offset: u64, size: u64) -> io::Result<io::Take<File>> {
    let mut file = File::open(archive)?;
    file.seek(SeekFrom::Start(offset))?;
    Ok(file.take(size))
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// A name that stays in its directory.
fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

fn null_is_default<'de, D: serde::Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
