//! Builds the manifest of an image from its layers, or where their bytes are gone from the unpacked
//! directories. It is given a closed `Image`; that the image is what a container runs is its finder's word.

use std::{io, ops::ControlFlow, path::PathBuf};

use super::{
    digest::{Digest, InvalidDigest},
    layer::{At, LayerError, LayerLimits, read_layer},
    model::{Coverage, Header, LayerDigests, Manifest, Source, TooLarge},
    source::{self, LayerSource},
    tree::{Tree, TreeError},
    unpacked::{self, UnpackedError},
};
use crate::container::{Image, Rootfs};

/// Most layers of an image; overlayfs takes fewer.
const MAX_LAYERS: usize = 1024;

/// How far building has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The layer being read, 0 = lowest.
    pub layer: usize,
    /// Layers in all.
    pub layers: usize,
    /// Bytes read of it, as stored.
    pub bytes: u64,
    /// Its size as stored, where known.
    pub total: Option<u64>,
}

/// Why there is no manifest.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The image is not described well enough.
    #[error("the image's chain id or a layer's diff id is missing: {0}")]
    Image(#[from] InvalidDigest),
    /// The chain id is not that of the layers.
    #[error("the layers' chain id is {0}, but the image names another")]
    ChainId(Digest),
    /// More than 1024.
    #[error("the image has {0} layers")]
    TooManyLayers(usize),
    /// Neither layer blobs nor an unpacked tree.
    #[error("layer {0}: its bytes are in no store, and there is no unpacked tree")]
    NoLayers(String),
    /// A layer's store cannot be read.
    #[error("layer {layer}: {path}: {error}")]
    Store {
        /// Its diff id.
        layer: String,
        /// Where it was looked for.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// A layer was refused as a whole.
    #[error("layer {layer}: {cause}")]
    Layer {
        /// Its digest.
        layer: String,
        /// Why.
        cause: LayerError,
    },
    /// A layer was refused at an entry.
    #[error("layer {layer}, entry {number} '{path}': {cause}")]
    Entry {
        /// Its digest.
        layer: String,
        /// Number of the entry, from 1.
        number: u64,
        /// Its path, escaped.
        path: String,
        /// Why.
        cause: LayerError,
    },
    /// The unpacked tree cannot be read.
    #[error(transparent)]
    Unpacked(#[from] UnpackedError),
    /// The layers together hold too much.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The files do not fit into a manifest.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
}

impl BuildError {
    /// The layers' bytes are not there, rather than wrong.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::NoLayers(_))
            || matches!(self, Self::Store { error, .. } if error.kind() == io::ErrorKind::NotFound)
    }

    /// The caller stopped it.
    pub fn is_cancelled(&self) -> bool {
        matches!(
            self,
            Self::Layer { cause: LayerError::Cancelled, .. } | Self::Entry { cause: LayerError::Cancelled, .. }
        )
    }
}

/// Builds the manifest of `image`: from its layers' bytes where they are in the store, else from `rootfs`.
///
/// # Errors
/// [`BuildError`]. A layer that is there but wrong is an error, never a reason to fall back.
pub fn build(
    image: &Image,
    rootfs: Option<&Rootfs>,
    limits: &LayerLimits,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Manifest, BuildError> {
    let header = header(image)?;
    match from_layers(image, &header, limits, progress) {
        Err(error) if error.is_missing() => {
            let directories = source::unpacked_directories(image, rootfs);
            if directories.is_empty() {
                return Err(error);
            }
            let tree = unpacked::read(&directories, limits, progress)?;
            finish(Header { source: Source::Unpacked, ..header }, tree)
        }
        Err(error) => Err(error),
        Ok(tree) => finish(header, tree),
    }
}

/// The chain id of layers, lowest first (OCI image specification, "Layer `ChainID`").
pub fn chain_id(diff_ids: impl IntoIterator<Item = Digest>) -> Option<Digest> {
    diff_ids.into_iter().reduce(|chain, diff_id| Digest::of(format!("{chain} {diff_id}").as_bytes()))
}

/// What the image says of itself; checks that the chain of its layers closes.
pub(super) fn header(image: &Image) -> Result<Header, BuildError> {
    if image.layers.len() > MAX_LAYERS {
        return Err(BuildError::TooManyLayers(image.layers.len()));
    }
    let layers = image
        .layers
        .iter()
        .map(|layer| {
            let digest = if layer.digest.is_empty() { None } else { Some(layer.digest.parse()?) };
            Ok(LayerDigests { digest, diff_id: layer.diff_id.parse()? })
        })
        .collect::<Result<Vec<_>, InvalidDigest>>()?;
    let named: Digest = image.chain_id.as_deref().unwrap_or_default().parse()?;
    if let Some(actual) = chain_id(layers.iter().map(|layer| layer.diff_id))
        && actual != named
    {
        return Err(BuildError::ChainId(actual));
    }
    let config = source::configuration(image).unwrap_or_default();
    Ok(Header {
        reference: image.reference.clone(),
        chain_id: named,
        manifest_digest: image.manifest_digest.as_deref().and_then(|digest| digest.parse().ok()),
        config_digest: image.config_digest.as_deref().and_then(|digest| digest.parse().ok()),
        layers,
        search_path: config.search_path(),
        entrypoint: config.entrypoint,
        cmd: config.cmd,
        coverage: Coverage::All,
        source: Source::Layers,
        ambiguities: Vec::new(),
    })
}

fn from_layers(
    image: &Image,
    header: &Header,
    limits: &LayerLimits,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Tree, BuildError> {
    let mut merged = Tree::new(limits.tree);
    let mut sources = Vec::with_capacity(image.layers.len());
    // All are looked for first: one that is missing must not be found out after minutes of reading the others.
    for (index, digests) in header.layers.iter().enumerate() {
        sources.push(LayerSource::find(image, index, digests)?);
    }
    if sources.is_empty() {
        return Err(BuildError::NoLayers(header.chain_id.to_string()));
    }
    let layers = sources.len();
    for (index, source) in sources.into_iter().enumerate() {
        let name = source.name();
        let total = source.size();
        let mut report = |bytes| progress(Progress { layer: index, layers, bytes, total });
        if report(0).is_break() {
            return Err(BuildError::Layer { layer: name, cause: LayerError::Cancelled });
        }
        let input = source.open(index as u16)?;
        let tree = read_layer(input, &merged, limits, &mut report).map_err(|At { entry, cause }| match entry {
            None => BuildError::Layer { layer: name, cause },
            Some((number, path)) => {
                let mut path = path.escape_ascii().to_string();
                path.truncate(400);
                BuildError::Entry { layer: name, number, path, cause }
            }
        })?;
        merged.merge(tree)?;
    }
    Ok(merged)
}

fn finish(header: Header, tree: Tree) -> Result<Manifest, BuildError> {
    let (files, links, ambiguities) = tree.into_parts();
    Ok(Manifest::new(Header { ambiguities, ..header }, files, links)?)
}
