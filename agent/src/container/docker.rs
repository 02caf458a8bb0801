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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn name_labels_and_config_of_a_container() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root, docker's files must belong to it");
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let diff = image::digest_of(b"layer");
        let config = json!({"rootfs": {"type": "layers", "diff_ids": [diff]}}).to_string();
        let digest = image::digest_of(config.as_bytes());
        let id = "ab".repeat(32);
        let own = root.path().join("containers").join(&id);
        let images = root.path().join("image/overlay2/imagedb/content/sha256");
        std::fs::create_dir_all(&own).unwrap();
        std::fs::create_dir_all(&images).unwrap();
        let described = json!({"Name": "/web", "Created": "2026-01-02T03:04:05Z", "Image": digest,
            "Config": {"Image": "nginx:1", "Labels": {"b": "2", "a": "1"}}});
        std::fs::write(own.join("config.v2.json"), described.to_string()).unwrap();
        let file = images.join(image::hex_of(&digest).unwrap());
        std::fs::write(&file, &config).unwrap();

        let found = details(root.path(), &id).unwrap();
        assert_eq!(found.name.as_deref(), Some("web"));
        assert_eq!(found.labels[0], ("a".to_owned(), "1".to_owned()));
        assert_eq!(found.created_ns, 1_767_323_045_000_000_000);
        let image = found.image.unwrap();
        assert_eq!((image.reference.as_str(), image.config_digest.as_ref()), ("nginx:1", Some(&digest)));
        assert_eq!(image.layers[0].diff_id, diff);
        assert_eq!((image.manifest_digest, image.chain_id), (None, None));

        // Bytes that are not the digest's are nobody's config.
        std::fs::write(&file, config.replace("layers", "Layers")).unwrap();
        assert_eq!(details(root.path(), &id).unwrap().image.unwrap().config_digest, None);
        assert!(matches!(details(root.path(), "../../etc"), Err(Error::NotFound(_))));
    }
}
