//! Where the agent's manifests come from: the cache on disk, else the image's layers, else its unpacked
//! directories. A cache that fails costs time, never a verdict.

use std::{
    ops::ControlFlow,
    sync::atomic::{AtomicBool, Ordering},
};

use super::{
    build::{build, header},
    counters::{Count, Counters},
    disk_cache::DiskCache,
    judge::Reason,
    layer::LayerLimits,
    model::{Header, Manifest, Source},
    service::ManifestSource,
};
use crate::container::Container;

/// Builds manifests and keeps them on disk.
#[derive(Debug)]
pub struct ManifestStore {
    cache: Option<DiskCache>,
    limits: LayerLimits,
}

impl ManifestStore {
    /// A store; without a cache every start of the agent builds anew.
    pub fn new(cache: Option<DiskCache>, limits: LayerLimits) -> Self {
        Self { cache, limits }
    }
}

impl ManifestSource for ManifestStore {
    fn manifest(&self, container: &Container, counters: &Counters, cancelled: &AtomicBool) -> Result<Manifest, Reason> {
        let image = container.image.as_ref().ok_or(Reason::NoImage)?;
        let name = &image.reference;
        let header = header(image).map_err(|error| {
            tracing::warn!(image = %name, %error, "no manifest");
            counters.add(Count::BuildFailed);
            Reason::BuildFailed
        })?;
        if let Some(manifest) = self.cached(&header, counters) {
            return Ok(manifest);
        }
        let mut progress = |_| {
            if cancelled.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let manifest = build(image, Some(&container.rootfs), &self.limits, &mut progress).map_err(|error| {
            if !error.is_cancelled() {
                tracing::warn!(image = %name, %error, "no manifest");
                counters.add(Count::BuildFailed);
            }
            if error.is_missing() { Reason::NoLayers } else { Reason::BuildFailed }
        })?;
        counters.add(match manifest.header().source {
            Source::Unpacked => Count::BuiltFromUnpacked,
            _ => Count::BuiltFromLayers,
        });
        if let Some(cache) = &self.cache
            && let Err(error) = cache.write(&manifest)
        {
            tracing::warn!(%error, "the manifest is not kept on disk");
            counters.add(Count::DiskWriteFailed);
        }
        Ok(manifest)
    }
}

impl ManifestStore {
    /// The manifest on disk under this image's own header: images of the same layers share the content.
    fn cached(&self, header: &Header, counters: &Counters) -> Option<Manifest> {
        match self.cache.as_ref()?.read(&header.chain_id) {
            Ok(None) => None,
            Ok(Some(mut manifest)) => {
                counters.add(Count::DiskHit);
                let ambiguities = manifest.header().ambiguities.clone();
                manifest.set_header(Header { ambiguities, ..header.clone() });
                Some(manifest)
            }
            Err(error) => {
                tracing::warn!(%error, "building the manifest anew");
                counters.add(Count::DiskInvalid);
                None
            }
        }
    }
}
