//! A manifest as JSON: the predicate of an in-toto statement (`Statement` v1), so that what the agent derives and
//! what a build attests have one form. `predicateType` carries the version.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use super::{
    capabilities::FileCapabilities,
    digest::{Digest, to_hex},
    model::{Coverage, File, Header, Kind, LayerDigests, Manifest, Source, TooLarge},
};

/// `_type` of the statement.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// `predicateType`: the version of the predicate below.
pub const PREDICATE_TYPE: &str = "https://purser.dev/attestation/runtime-manifest/v1";

/// Why JSON is no manifest.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// Not JSON, or not of this form.
    #[error("not a runtime manifest: {0}")]
    Syntax(#[from] serde_json::Error),
    /// Another statement or version.
    #[error("`{0}` where `{1}` is expected")]
    Type(String, &'static str),
    /// A file is malformed.
    #[error("file {0}: {1}")]
    File(usize, &'static str),
    /// Too large.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    predicate_type: String,
    predicate: Predicate,
}

#[derive(Serialize, Deserialize)]
struct Subject {
    name: String,
    digest: SubjectDigest,
}

#[derive(Serialize, Deserialize)]
struct SubjectDigest {
    sha256: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Predicate {
    generator: String,
    coverage: Coverage,
    source: Source,
    #[serde(rename = "chainID")]
    chain_id: Digest,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    manifest_digest: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    config_digest: Option<Digest>,
    layers: Vec<LayerDigests>,
    #[serde(default)]
    entrypoint: Vec<String>,
    #[serde(default)]
    cmd: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ambiguities: Vec<String>,
    files: Vec<FileEntry>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    links: Vec<LinkEntry>,
}

#[derive(Serialize, Deserialize)]
struct FileEntry {
    #[serde(flatten)]
    path: Name,
    sha256: String,
    size: u64,
    /// Octal.
    mode: String,
    uid: u32,
    gid: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    capabilities: Option<FileCapabilities>,
    kind: Kind,
    layer: u16,
}

#[derive(Serialize, Deserialize)]
struct LinkEntry {
    #[serde(flatten)]
    path: Name,
    #[serde(flatten)]
    target: Target,
}

/// A path as text where it is UTF-8, else its bytes.
#[derive(Serialize, Deserialize)]
enum Name {
    #[serde(rename = "path")]
    Text(String),
    #[serde(rename = "pathHex")]
    Hex(String),
}

#[derive(Serialize, Deserialize)]
enum Target {
    #[serde(rename = "target")]
    Text(String),
    #[serde(rename = "targetHex")]
    Hex(String),
}

/// Writes a manifest.
///
/// # Errors
/// Writing failed.
pub fn write(manifest: &Manifest, writer: impl Write) -> io::Result<()> {
    let header = manifest.header();
    let subjects = [&header.manifest_digest, &header.config_digest]
        .into_iter()
        .flatten()
        .map(|digest| Subject { name: header.reference.clone(), digest: SubjectDigest { sha256: digest.hex() } });
    let files = manifest.files().map(|(path, file)| FileEntry {
        path: text_or_hex(path, Name::Text, Name::Hex),
        sha256: file.digest.hex(),
        size: file.size,
        mode: format!("{:04o}", file.mode),
        uid: file.uid,
        gid: file.gid,
        capabilities: file.capabilities,
        kind: file.kind,
        layer: file.layer,
    });
    let links = manifest.links().map(|(path, target)| LinkEntry {
        path: text_or_hex(path, Name::Text, Name::Hex),
        target: text_or_hex(target, Target::Text, Target::Hex),
    });
    let statement = Statement {
        kind: STATEMENT_TYPE.into(),
        subject: subjects.collect(),
        predicate_type: PREDICATE_TYPE.into(),
        predicate: Predicate {
            generator: concat!("purser ", env!("CARGO_PKG_VERSION")).into(),
            coverage: header.coverage,
            source: header.source,
            chain_id: header.chain_id,
            manifest_digest: header.manifest_digest,
            config_digest: header.config_digest,
            layers: header.layers.clone(),
            entrypoint: header.entrypoint.clone(),
            cmd: header.cmd.clone(),
            path: header.search_path.clone(),
            ambiguities: header.ambiguities.clone(),
            files: files.collect(),
            links: links.collect(),
        },
    };
    Ok(serde_json::to_writer(writer, &statement)?)
}

/// Reads what [`write()`] wrote.
///
/// # Errors
/// [`JsonError`].
pub fn read(bytes: &[u8]) -> Result<Manifest, JsonError> {
    let statement: Statement = serde_json::from_slice(bytes)?;
    for (found, expected) in [(&statement.kind, STATEMENT_TYPE), (&statement.predicate_type, PREDICATE_TYPE)] {
        if found != expected {
            return Err(JsonError::Type(found.chars().take(100).collect(), expected));
        }
    }
    let reference = statement.subject.into_iter().next().map(|subject| subject.name).unwrap_or_default();
    let predicate = statement.predicate;
    let files = predicate.files.into_iter().enumerate().map(|(index, entry)| {
        let fail = |what| move |_error| JsonError::File(index, what);
        let path = match entry.path {
            Name::Text(text) => text.into_bytes(),
            Name::Hex(hex) => from_hex(&hex).ok_or(JsonError::File(index, "`pathHex` is not hexadecimal"))?,
        };
        if !path.starts_with(b"/") {
            return Err(JsonError::File(index, "`path` is not absolute"));
        }
        let mode =
            u16::from_str_radix(&entry.mode, 8).map_err(|_error| JsonError::File(index, "`mode` is not octal"))?;
        let file = File {
            digest: Digest::from_hex(&entry.sha256).map_err(fail("`sha256` is not a digest"))?,
            size: entry.size,
            mode,
            uid: entry.uid,
            gid: entry.gid,
            capabilities: entry.capabilities,
            kind: entry.kind,
            layer: entry.layer,
        };
        Ok((path, file))
    });
    let files = files.collect::<Result<Vec<_>, JsonError>>()?;
    let links = predicate.links.into_iter().enumerate().map(|(index, entry)| {
        let fail = JsonError::File(index, "a link's path or target is not hexadecimal");
        let path = match entry.path {
            Name::Text(text) => Some(text.into_bytes()),
            Name::Hex(hex) => from_hex(&hex),
        };
        let target = match entry.target {
            Target::Text(text) => Some(text.into_bytes()),
            Target::Hex(hex) => from_hex(&hex),
        };
        path.zip(target).ok_or(fail)
    });
    let links = links.collect::<Result<Vec<_>, JsonError>>()?;
    let header = Header {
        reference,
        chain_id: predicate.chain_id,
        manifest_digest: predicate.manifest_digest,
        config_digest: predicate.config_digest,
        layers: predicate.layers,
        entrypoint: predicate.entrypoint,
        cmd: predicate.cmd,
        search_path: predicate.path,
        coverage: predicate.coverage,
        source: predicate.source,
        ambiguities: predicate.ambiguities,
    };
    Ok(Manifest::new(header, files, links)?)
}

/// Writes a manifest for people: the image, then a line for each file of the given kinds.
///
/// # Errors
/// Writing failed.
pub fn write_table(manifest: &Manifest, all: bool, mut writer: impl Write) -> io::Result<()> {
    let header = manifest.header();
    let digest = |digest: &Option<Digest>| digest.map_or_else(|| "-".to_owned(), |digest| digest.to_string());
    writeln!(writer, "image      {}", header.reference.escape_default())?;
    writeln!(writer, "manifest   {}", digest(&header.manifest_digest))?;
    writeln!(writer, "config     {}", digest(&header.config_digest))?;
    writeln!(writer, "chain id   {}", header.chain_id)?;
    writeln!(writer, "source     {} ({})", header.source, manifest.status())?;
    writeln!(writer, "coverage   {}", header.coverage)?;
    if let Some(path) = manifest.entrypoint_path() {
        writeln!(writer, "starts     {}", path.escape_ascii())?;
    }
    for (index, layer) in header.layers.iter().enumerate() {
        writeln!(writer, "layer {index:<4} {}", layer.diff_id)?;
    }
    for ambiguity in &header.ambiguities {
        writeln!(writer, "ambiguous  {ambiguity}")?;
    }
    let mut counts = [0_usize; Kind::ALL.len()];
    manifest.files().for_each(|(_, file)| counts[file.kind as usize] += 1);
    let counts: Vec<String> = Kind::ALL.iter().zip(counts).map(|(kind, count)| format!("{count} {kind}")).collect();
    writeln!(writer, "files      {} ({})\n", manifest.len(), counts.join(", "))?;
    writeln!(writer, "{:<64}  {:<10}  {:>4}  {:>5}  {:>10}  PATH", "SHA-256", "KIND", "MODE", "LAYER", "SIZE")?;
    for (path, file) in manifest.files().filter(|(_, file)| all || file.kind != Kind::Other) {
        let (hex, path) = (file.digest.hex(), path.escape_ascii());
        writeln!(writer, "{hex}  {:<10}  {:04o}  {:>5}  {:>10}  {path}", file.kind, file.mode, file.layer, file.size)?;
    }
    Ok(())
}

fn text_or_hex<T>(bytes: &[u8], text: fn(String) -> T, hex: fn(String) -> T) -> T {
    match str::from_utf8(bytes) {
        Ok(utf8) => text(utf8.to_owned()),
        Err(_) => hex(to_hex(bytes)),
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|start| u8::from_str_radix(&text[start..start + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::{super::model::tests as fixtures, *};

    fn manifest() -> Manifest {
        let caps = FileCapabilities { permitted: 1 << 40, effective: true, inheritable: 3, root_id: 9 };
        let files = vec![
            (b"/usr/bin/sh".to_vec(), fixtures::file(b"sh")),
            (
                b"/caf\xe9".to_vec(),
                File { mode: 0o6755, uid: 1, gid: 2, capabilities: Some(caps), ..fixtures::file(b"x") },
            ),
        ];
        let links = vec![(b"/bin".to_vec(), b"usr/bin".to_vec()), (b"/l\xff".to_vec(), b"/t\xfe".to_vec())];
        let header = Header { ambiguities: vec!["x".into()], ..fixtures::header() };
        Manifest::new(header, files, links).unwrap()
    }

    #[test]
    fn is_read_back_whole() {
        let mut bytes = Vec::new();
        write(&manifest(), &mut bytes).unwrap();
        assert_eq!(read(&bytes).unwrap(), manifest());
        let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        let predicate = &value["predicate"];
        assert_eq!(predicate["chainID"], fixtures::header().chain_id.to_string());
        assert_eq!(predicate["layers"][0]["diffID"], Digest::of(b"diff").to_string());
        assert_eq!(predicate["files"][0]["pathHex"], "2f636166e9");
        assert_eq!(predicate["files"][1]["path"], "/usr/bin/sh");
        assert_eq!(predicate["files"][1]["sha256"], Digest::of(b"sh").hex());
        assert_eq!(predicate["files"][0]["mode"], "6755");
        assert_eq!(value["subject"][0]["digest"]["sha256"], Digest::of(b"manifest").hex());
    }

    #[test]
    fn refuses_what_is_no_manifest_of_this_version() {
        let mut bytes = Vec::new();
        write(&manifest(), &mut bytes).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        for (from, to) in [
            ("runtime-manifest/v1", "runtime-manifest/v2"),
            ("Statement/v1", "Statement/v0.1"),
            ("\"/usr/bin/sh\"", "\"usr/bin/sh\""),
            ("\"6755\"", "\"rwx\""),
            ("\"2f636166e9\"", "\"2f6\""),
            ("\"sha256\":\"", "\"sha256\":\"0"),
            ("\"chainID\"", "\"chain\""),
        ] {
            assert!(text.contains(from), "{from}");
            assert!(read(text.replace(from, to).as_bytes()).is_err(), "{from}");
        }
        assert!(read(b"").is_err());
    }

    #[test]
    fn the_table_names_image_and_files() {
        let mut bytes = Vec::new();
        write_table(&manifest(), false, &mut bytes).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        for wanted in ["registry.example/app:1", "layers (ambiguous)", "/caf\\xe9", "2 elf", "starts     /usr/bin/sh"] {
            assert!(text.contains(wanted), "{wanted}\n{text}");
        }
    }
}
