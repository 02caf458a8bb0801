//! Reads docker's own state directory: a container's name and its image's config, hence its layers. The
//! manifest is not kept there by docker's classic image store, so there is no manifest digest.

use std::path::Path;

use serde::Deserialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    Error, Image, Layer,
    ask::Details,
    bundle::Cut,
    image::{self, MAX_BLOB},
    read,
    reference::is_hex,
};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ConfigV2 {
    #[serde(default)]
    name: String,
    #[serde(default)]
    created: String,
    /// `sha256:` digest of the image's config.
    #[serde(default)]
    image: String,
    config: Config,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    #[serde(default)]
    image: String,
    #[serde(default)]
    labels: Option<std::collections::BTreeMap<String, String>>,
}

/// Describes a container from `ROOT/containers/ID/config.v2.json` and `ROOT/image/overlay2`.
pub(crate) fn details(root: &Path, id: &str) -> Result<Details, Error> {
    if !is_hex(id, 64) {
        return Err(Error::NotFound(format!("container {id}")));
    }
    let path = root.join("containers").join(id).join("config.v2.json");
    let bytes = read::bounded_of_root(&path, MAX_BLOB)?;
    let config: ConfigV2 = serde_json::from_slice(&bytes).map_err(|source| Error::Json { path, source })?;
    let created = OffsetDateTime::parse(&config.created, &Rfc3339).ok();
    let reference = read::cut(&config.config.image, 1024).to_owned();
    let image = identity(root, &config.image).unwrap_or_default();
    Ok(Details {
        name: Some(read::cut(config.name.trim_start_matches('/'), 256).to_owned()).filter(|n| !n.is_empty()),
        labels: Cut::default().pairs(config.config.labels.unwrap_or_default()),
        created_ns: created.and_then(|t| i64::try_from(t.unix_timestamp_nanos()).ok()).unwrap_or(0),
        image: (!reference.is_empty()).then_some(Image { reference, ..image }),
    })
}

fn identity(root: &Path, config_digest: &str) -> Result<Image, Error> {
    let hex = image::hex_of(config_digest).ok_or_else(|| Error::NotFound(config_digest.to_owned()))?;
    let path = root.join("image/overlay2/imagedb/content/sha256").join(hex);
    let bytes = image::verify(config_digest, read::bounded_of_root(&path, MAX_BLOB)?)?;
    let layers = image::diff_ids(config_digest, &bytes)?.into_iter().map(|diff_id| Layer {
        digest: String::new(),
        diff_id,
        media_type: String::new(),
        store_id: String::new(),
    });
    // The layers' place in the container's stack is not checked here, so the chain stays open.
    Ok(Image { config_digest: Some(config_digest.to_owned()), layers: layers.collect(), ..Image::default() })
}
