//! Images made for the tests: layer archives with all that unpackers must agree on, in an OCI layout.

use std::{fs, io::Write, path::Path, process::Command};

use purser::manifest::Digest;

pub const BUSYBOX: &str = "/bin/busybox";
/// `setcap cap_net_raw=ep`.
const NET_RAW: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// A layer archive in the making.
pub struct LayerTar(tar::Builder<Vec<u8>>);

impl LayerTar {
    pub fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    fn header(kind: tar::EntryType, mode: u32, size: usize) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        header.set_size(size as u64);
        header
    }

    pub fn file(self, path: &str, content: &[u8]) -> Self {
        self.owned(path, content, 0o755, 0, 0)
    }

    pub fn owned(mut self, path: &str, content: &[u8], mode: u32, uid: u64, gid: u64) -> Self {
        let mut header = Self::header(tar::EntryType::Regular, mode, content.len());
        header.set_uid(uid);
        header.set_gid(gid);
        self.0.append_data(&mut header, path, content).unwrap();
        self
    }

    /// A file whose name and capabilities stand in a PAX header.
    pub fn pax(mut self, path: &[u8], content: &[u8], capability: Option<&[u8]>) -> Self {
        let mut records = vec![("path", path)];
        records.extend(capability.map(|capability| ("SCHILY.xattr.security.capability", capability)));
        self.0.append_pax_extensions(records).unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_path("short").unwrap();
        header.set_mode(0o755);
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    pub fn dir(mut self, path: &str) -> Self {
        self.0.append_data(&mut Self::header(tar::EntryType::Directory, 0o755, 0), path, &b""[..]).unwrap();
        self
    }

    pub fn symlink(mut self, path: &str, target: &str) -> Self {
        self.0.append_link(&mut Self::header(tar::EntryType::Symlink, 0o777, 0), path, target).unwrap();
        self
    }

    pub fn hard_link(mut self, path: &str, target: &str) -> Self {
        self.0.append_link(&mut Self::header(tar::EntryType::Link, 0o755, 0), path, target).unwrap();
        self
    }

    pub fn whiteout(self, path: &str) -> Self {
        let marker = match path.rsplit_once('/') {
            Some((directory, name)) => format!("{directory}/.wh.{name}"),
            None => format!(".wh.{path}"),
        };
        self.file(&marker, b"")
    }

    pub fn opaque(self, directory: &str) -> Self {
        self.file(&format!("{directory}/.wh..wh..opq"), b"")
    }

    pub fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

#[derive(Clone, Copy)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

/// Writes an OCI layout with one image `test` of the given layers.
pub fn write_layout(directory: &Path, layers: &[(Vec<u8>, Compression)]) {
    let blobs = directory.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8]| {
        let digest = Digest::of(bytes);
        fs::write(blobs.join(digest.hex()), bytes).unwrap();
        (digest.to_string(), bytes.len())
    };
    let mut descriptors = Vec::new();
    let mut diff_ids = Vec::new();
    for (tar, compression) in layers {
        diff_ids.push(Digest::of(tar).to_string());
        let (bytes, suffix) = match compression {
            Compression::None => (tar.clone(), ""),
            Compression::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
                encoder.write_all(tar).unwrap();
                (encoder.finish().unwrap(), "+gzip")
            }
            Compression::Zstd => (zstd::encode_all(&tar[..], 3).unwrap(), "+zstd"),
        };
        let (digest, size) = put(&bytes);
        let media_type = format!("application/vnd.oci.image.layer.v1.tar{suffix}");
        descriptors.push(serde_json::json!({"mediaType": media_type, "digest": digest, "size": size}));
    }
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = serde_json::json!({
        "architecture": architecture, "os": "linux",
        "config": {"Entrypoint": ["ls"], "Env": ["PATH=/usr/bin:/bin"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": vec![serde_json::json!({"created_by": "test"}); layers.len()],
    });
    let (config_digest, config_size) = put(config.to_string().as_bytes());
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config_digest, "size": config_size},
        "layers": descriptors,
    });
    let (manifest_digest, manifest_size) = put(manifest.to_string().as_bytes());
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": manifest_digest, "size": manifest_size,
        "annotations": {"org.opencontainers.image.ref.name": "test"},
        "platform": {"os": "linux", "architecture": architecture},
    }]});
    fs::write(directory.join("index.json"), index.to_string()).unwrap();
    fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

/// Layers that every unpacker must agree on, with all that the specification knows.
pub fn agreed_layers() -> Vec<(Vec<u8>, Compression)> {
    let long = format!("{}/{}", "d".repeat(150), "n".repeat(200));
    let busybox = fs::read(BUSYBOX).unwrap_or_else(|_| b"\x7fELF busybox".to_vec());
    let first = LayerTar::new()
        .dir("usr")
        .dir("usr/bin")
        .file("usr/bin/busybox", &busybox)
        .file("usr/bin/ls", b"ls one")
        .file("usr/bin/gone", b"gone")
        .owned("usr/bin/su", b"su", 0o4755, 0, 0)
        .owned("usr/bin/wall", b"wall", 0o2755, 0, 5)
        .owned("etc/secret", b"secret", 0o600, 1000, 1001)
        .hard_link("usr/bin/sh", "usr/bin/busybox")
        .symlink("bin", "usr/bin")
        .symlink("absolute", "/usr/bin")
        .file("opaque/lower", b"hidden")
        .file("opaque/sub/lower", b"hidden")
        .file("removed/a", b"a")
        .file("removed/b/c", b"c")
        .file("kept/a", b"a")
        .file("kept/b", b"b")
        .file("was-a-dir/x", b"x")
        .file("was-a-file", b"x")
        .file("empty", b"")
        .file(&long, b"long")
        .pax("caf\u{e9}".as_bytes(), b"utf-8", None)
        .pax(b"caf\xe9", b"not utf-8", None)
        .pax(b"usr/bin/ping", b"ping", Some(&NET_RAW))
        .pax(b"./dots/../dots/file", b"dots", None);
    let second = LayerTar::new()
        .whiteout("usr/bin/gone")
        .whiteout("removed")
        .whiteout("kept/a")
        .dir("opaque")
        .opaque("opaque")
        .file("opaque/upper", b"seen")
        .file("was-a-dir", b"now a file")
        .dir("was-a-file")
        .file("was-a-file/x", b"now a directory")
        .file("usr/bin/ls", b"ls two")
        .symlink("lib", "usr/lib")
        .dir("usr/lib")
        .file("lib/inside", b"through a link of the same layer");
    let third = LayerTar::new()
        .file("first-name", b"one inode")
        .hard_link("second-name", "first-name")
        .file("usr/bin/gone", b"back again")
        .file("removed/new", b"new")
        .whiteout("nothing-there")
        .file("script", b"#!/bin/sh\n");
    vec![(first.bytes(), Compression::Gzip), (second.bytes(), Compression::Zstd), (third.bytes(), Compression::None)]
}

/// Runs a command that must succeed; what it printed.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
