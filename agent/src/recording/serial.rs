//! How values of other modules are written: bytes in one piece, what is shared each time, of a manifest what rules can
//! ask about.

/// [`bytes::Bytes`].
pub mod bytes {
    use ::bytes::Bytes;
    use serde::{Deserialize as _, Deserializer, Serializer};

    /// Writes the bytes.
    pub fn serialize<S: Serializer>(bytes: &impl AsRef<[u8]>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes.as_ref())
    }

    /// Reads them.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        <&[u8]>::deserialize(deserializer).map(Bytes::copy_from_slice)
    }
}

/// What an [`Arc`](std::sync::Arc) holds.
pub mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// Writes the value.
    pub fn serialize<T: Serialize, S: Serializer>(value: &Arc<T>, serializer: S) -> Result<S::Ok, S::Error> {
        value.as_ref().serialize(serializer)
    }

    /// Reads it; it is shared with nobody.
    pub fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<T>, D::Error> {
        T::deserialize(deserializer).map(Arc::new)
    }
}

/// What a verdict's manifest says of itself; it lists no file afterwards.
pub mod manifest {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

    use crate::manifest::Manifest;
    use crate::manifest::digest::Digest;
    use crate::manifest::model::{Coverage, Header, LayerDigests, Source};

    #[derive(Serialize, Deserialize)]
    struct Written {
        reference: String,
        chain_id: [u8; 32],
        manifest_digest: Option<[u8; 32]>,
        config_digest: Option<[u8; 32]>,
        layers: Vec<(Option<[u8; 32]>, [u8; 32])>,
        coverage: Coverage,
        source: Source,
    }

    /// Writes the manifest's header.
    pub fn serialize<S: Serializer>(manifest: &Option<Arc<Manifest>>, serializer: S) -> Result<S::Ok, S::Error> {
        let written = manifest.as_ref().map(|manifest| {
            let header = manifest.header();
            let layer = |layer: &LayerDigests| (layer.digest.map(|digest| digest.0), layer.diff_id.0);
            Written {
                reference: header.reference.clone(),
                chain_id: header.chain_id.0,
                manifest_digest: header.manifest_digest.map(|digest| digest.0),
                config_digest: header.config_digest.map(|digest| digest.0),
                layers: header.layers.iter().map(layer).collect(),
                coverage: header.coverage,
                source: header.source,
            }
        });
        written.serialize(serializer)
    }

    /// Reads it.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Arc<Manifest>>, D::Error> {
        let Some(written) = Option::<Written>::deserialize(deserializer)? else { return Ok(None) };
        let layer = |(digest, diff_id): (Option<[u8; 32]>, [u8; 32])| LayerDigests {
            digest: digest.map(Digest),
            diff_id: Digest(diff_id),
        };
        let header = Header {
            reference: written.reference,
            chain_id: Digest(written.chain_id),
            manifest_digest: written.manifest_digest.map(Digest),
            config_digest: written.config_digest.map(Digest),
            layers: written.layers.into_iter().map(layer).collect(),
            entrypoint: Vec::new(),
            cmd: Vec::new(),
            search_path: None,
            coverage: written.coverage,
            source: written.source,
            ambiguities: Vec::new(),
        };
        Manifest::new(header, [], []).map(|manifest| Some(Arc::new(manifest))).map_err(D::Error::custom)
    }
}
