//! Writes OCI images from nothing: layers described entry by entry or taken from a directory, a config,
//! a manifest, and an archive or layout around them. The same description gives the same bytes.
//!
//! It refuses nothing: an image that no well-meant tool would write (a path with `..`, a link out of the root,
//! an entry twice) is written as described, since hostile images are what the agent has to be tested with.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{self, Read as _, Write};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

use super::payload;

/// Where a file's bytes come from.
#[derive(Debug, Clone)]
enum Content {
    Bytes(Vec<u8>),
    Path(PathBuf),
}

/// What an entry is.
#[derive(Debug, Clone)]
enum Kind {
    Dir,
    File(Content),
    Symlink(Vec<u8>),
    Hardlink(Vec<u8>),
    Device { character: bool, major: u32, minor: u32 },
    Fifo,
}

#[derive(Debug, Clone)]
struct Entry {
    path: Vec<u8>,
    kind: Kind,
    mode: u32,
    uid: u32,
    gid: u32,
    xattrs: Vec<(String, Vec<u8>)>,
}

/// How a layer's tar is stored in its blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// `application/vnd.oci.image.layer.v1.tar+gzip`
    #[default]
    Gzip,
    /// `application/vnd.oci.image.layer.v1.tar`
    Plain,
}

/// One layer: entries in the order in which they stand in its tar.
#[derive(Debug, Clone, Default)]
pub struct Layer {
    entries: Vec<Entry>,
    encoding: Encoding,
}

impl Layer {
    /// A layer without entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// Stores the layer under `encoding` instead of gzip.
    #[must_use]
    pub fn encoding(mut self, encoding: Encoding) -> Self {
        self.encoding = encoding;
        self
    }

    /// A directory. Parents are not made: containerd makes missing ones itself.
    #[must_use]
    pub fn dir(self, path: impl AsRef<Path>, mode: u32) -> Self {
        self.push(path.as_ref(), Kind::Dir, mode)
    }

    /// A regular file owned by root. `mode` may carry setuid, setgid and sticky bits.
    #[must_use]
    pub fn file(self, path: impl AsRef<Path>, bytes: impl Into<Vec<u8>>, mode: u32) -> Self {
        self.push(path.as_ref(), Kind::File(Content::Bytes(bytes.into())), mode)
    }

    /// A regular file whose bytes are read from `source` when the image is written.
    #[must_use]
    pub fn copy(self, path: impl AsRef<Path>, source: impl Into<PathBuf>, mode: u32) -> Self {
        self.push(path.as_ref(), Kind::File(Content::Path(source.into())), mode)
    }

    /// A symbolic link at `path` that holds `target`.
    #[must_use]
    pub fn symlink(self, path: impl AsRef<Path>, target: impl AsRef<Path>) -> Self {
        let target = target.as_ref().as_os_str().as_bytes().to_vec();
        self.push(path.as_ref(), Kind::Symlink(target), 0o777)
    }

    /// A hard link at `path` to `target`, which is named from the root of the image. It has the mode of `target` in this layer,
    /// as unpacking applies the link's mode to the file.
    #[must_use]
    pub fn hardlink(self, path: impl AsRef<Path>, target: impl AsRef<Path>) -> Self {
        let target = relative(target.as_ref());
        let mode = self.entries.iter().rev().find(|entry| entry.path == target).map_or(0o755, |entry| entry.mode);
        self.push(path.as_ref(), Kind::Hardlink(target), mode)
    }

    /// Removes `path` of the layers below (`.wh.NAME`).
    #[must_use]
    pub fn whiteout(self, path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        let mut name = b".wh.".to_vec();
        name.extend_from_slice(path.file_name().unwrap_or_default().as_bytes());
        let path = path.with_file_name(std::ffi::OsString::from_vec(name));
        self.push(&path, Kind::File(Content::Bytes(Vec::new())), 0)
    }

    /// Hides all that the layers below have in the directory `path` (`.wh..wh..opq`).
    #[must_use]
    pub fn opaque(self, path: impl AsRef<Path>) -> Self {
        self.push(&path.as_ref().join(".wh..wh..opq"), Kind::File(Content::Bytes(Vec::new())), 0)
    }

    /// Gives the last entry an extended attribute, e.g. `security.capability`.
    #[must_use]
    pub fn xattr(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        if let Some(entry) = self.entries.last_mut() {
            entry.xattrs.push((name.to_owned(), value.into()));
        }
        self
    }

    /// Gives the last entry an owner.
    #[must_use]
    pub fn owner(mut self, uid: u32, gid: u32) -> Self {
        if let Some(entry) = self.entries.last_mut() {
            (entry.uid, entry.gid) = (uid, gid);
        }
        self
    }

    /// A static busybox, as `/bin/busybox` with a symbolic link for each of `applets` in `/bin`, and the
    /// directories and account files that a small system has: `/etc/passwd`, `/etc/group`, `/etc/shadow`, `/tmp`, `/root`.
    ///
    /// # Errors
    /// busybox-static is not installed.
    pub fn busybox(applets: &[&str]) -> Result<Self> {
        let mut layer = Self::new()
            .dir("/bin", 0o755)
            .dir("/etc", 0o755)
            .dir("/root", 0o700)
            .dir("/tmp", 0o1777)
            .dir("/usr", 0o755)
            .dir("/usr/bin", 0o755)
            .file("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n", 0o644)
            .file("/etc/group", "root:x:0:\nnogroup:x:65534:\n", 0o644)
            .file("/etc/shadow", "root:*:20000:0:99999:7:::\n", 0o640)
            .file("/bin/busybox", payload::busybox()?, 0o755);
        for applet in applets {
            layer = layer.symlink(Path::new("/bin").join(applet), "busybox");
        }
        Ok(layer)
    }

    /// Everything below `root`, sorted by name: modes, owners, links, devices, file capabilities. File contents are read when
    /// the image is written. Sockets are left out, as every image builder does.
    ///
    /// # Errors
    /// A directory or link cannot be read.
    pub fn from_tree(root: impl AsRef<Path>) -> Result<Self> {
        let root = root.as_ref();
        let mut layer = Self::new();
        let mut first_name = HashMap::new();
        layer.walk(root, Path::new(""), &mut first_name)?;
        Ok(layer)
    }

    fn walk(&mut self, root: &Path, below: &Path, first_name: &mut HashMap<(u64, u64), PathBuf>) -> Result<()> {
        let directory = root.join(below);
        let mut names: Vec<_> = fs::read_dir(&directory)
            .with_context(|| format!("cannot list {}", directory.display()))?
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<io::Result<_>>()?;
        names.sort();
        for name in names {
            let path = below.join(&name);
            let source = root.join(&path);
            let meta = fs::symlink_metadata(&source).with_context(|| format!("cannot stat {}", source.display()))?;
            let kind = match meta.file_type() {
                kind if kind.is_dir() => Kind::Dir,
                kind if kind.is_symlink() => Kind::Symlink(fs::read_link(&source)?.into_os_string().into_vec()),
                kind if kind.is_fifo() => Kind::Fifo,
                kind if kind.is_socket() => continue,
                kind if kind.is_char_device() || kind.is_block_device() => Kind::Device {
                    character: kind.is_char_device(),
                    major: rustix::fs::major(meta.rdev()),
                    minor: rustix::fs::minor(meta.rdev()),
                },
                _ => match first_name.get(&(meta.dev(), meta.ino())) {
                    Some(first) => Kind::Hardlink(relative(first)),
                    None => Kind::File(Content::Path(source.clone())),
                },
            };
            let is_file = matches!(kind, Kind::File(_));
            self.entries.push(Entry {
                path: relative(&path),
                kind,
                mode: meta.mode() & 0o7777,
                uid: meta.uid(),
                gid: meta.gid(),
                xattrs: if is_file { capability(&source)? } else { Vec::new() },
            });
            if is_file && meta.nlink() > 1 {
                first_name.insert((meta.dev(), meta.ino()), path.clone());
            }
            if meta.is_dir() {
                self.walk(root, &path, first_name)?;
            }
        }
        Ok(())
    }

    fn push(mut self, path: &Path, kind: Kind, mode: u32) -> Self {
        self.entries.push(Entry { path: relative(path), kind, mode, uid: 0, gid: 0, xattrs: Vec::new() });
        self
    }

    /// The blob, the digest of the tar in it, and the blob's media type.
    fn write(&self) -> Result<(Vec<u8>, String, &'static str)> {
        let (blob, diff_id, media_type) = match self.encoding {
            Encoding::Gzip => {
                let mut tar = tar::Builder::new(Hashing::new(GzEncoder::new(Vec::new(), Compression::new(6))));
                self.append_to(&mut tar)?;
                let (gzip, diff_id) = tar.into_inner()?.finish();
                (gzip.finish()?, diff_id, "application/vnd.oci.image.layer.v1.tar+gzip")
            }
            Encoding::Plain => {
                let mut tar = tar::Builder::new(Hashing::new(Vec::new()));
                self.append_to(&mut tar)?;
                let (blob, diff_id) = tar.into_inner()?.finish();
                (blob, diff_id, "application/vnd.oci.image.layer.v1.tar")
            }
        };
        Ok((blob, diff_id, media_type))
    }

    fn append_to<W: Write>(&self, tar: &mut tar::Builder<W>) -> Result<()> {
        for entry in &self.entries {
            entry
                .append_to(tar)
                .with_context(|| format!("cannot write the layer entry {}", String::from_utf8_lossy(&entry.path)))?;
        }
        Ok(())
    }
}

impl Entry {
    fn append_to<W: Write>(&self, tar: &mut tar::Builder<W>) -> io::Result<()> {
        let mut header = Header::new_ustar();
        header.set_mode(self.mode);
        header.set_uid(u64::from(self.uid));
        header.set_gid(u64::from(self.gid));
        header.set_mtime(0);
        let mut path = self.path.clone();
        if matches!(self.kind, Kind::Dir) && !path.ends_with(b"/") {
            path.push(b'/');
        }
        let link = match &self.kind {
            Kind::Symlink(target) | Kind::Hardlink(target) => target.as_slice(),
            _ => &[],
        };
        let mut extensions: Vec<(String, &[u8])> = Vec::new();
        // Bytes go into the header as they are: `Header::set_path` would refuse what a hostile image holds.
        if !set_bytes(&mut header.as_old_mut().name, &path) {
            extensions.push(("path".to_owned(), &path));
        }
        if !set_bytes(&mut header.as_old_mut().linkname, link) {
            extensions.push(("linkpath".to_owned(), link));
        }
        extensions.extend(self.xattrs.iter().map(|(name, value)| (format!("SCHILY.xattr.{name}"), value.as_slice())));
        tar.append_pax_extensions(extensions.iter().map(|(key, value)| (key.as_str(), *value)))?;

        let kind = match &self.kind {
            Kind::Dir => EntryType::Directory,
            Kind::File(_) => EntryType::Regular,
            Kind::Symlink(_) => EntryType::Symlink,
            Kind::Hardlink(_) => EntryType::Link,
            Kind::Fifo => EntryType::Fifo,
            Kind::Device { character, major, minor } => {
                header.set_device_major(*major)?;
                header.set_device_minor(*minor)?;
                if *character { EntryType::Char } else { EntryType::Block }
            }
        };
        header.set_entry_type(kind);
        match &self.kind {
            Kind::File(Content::Bytes(bytes)) => {
                header.set_size(bytes.len() as u64);
                header.set_cksum();
                tar.append(&header, bytes.as_slice())
            }
            Kind::File(Content::Path(source)) => {
                let file = fs::File::open(source)?;
                let size = file.metadata()?.len();
                header.set_size(size);
                header.set_cksum();
                tar.append(&header, file.take(size))
            }
            _ => {
                header.set_size(0);
                header.set_cksum();
                tar.append(&header, io::empty())
            }
        }
    }
}

/// An image to be written.
#[derive(Debug, Clone)]
pub struct Image {
    reference: String,
    layers: Vec<Layer>,
    entrypoint: Vec<String>,
    cmd: Vec<String>,
    env: Vec<String>,
    workdir: String,
    user: Option<String>,
    other_platforms: Vec<Platform>,
}

/// A further platform of an image index, with layers of its own.
#[derive(Debug, Clone)]
struct Platform {
    architecture: String,
    layers: Vec<Layer>,
}

impl Image {
    /// An image that will be known as `reference`, e.g. `local.test/shop:1`.
    pub fn new(reference: impl Into<String>) -> Self {
        Self {
            reference: reference.into(),
            layers: Vec::new(),
            entrypoint: Vec::new(),
            cmd: Vec::new(),
            env: vec!["PATH=/usr/local/bin:/usr/bin:/bin".to_owned()],
            workdir: "/".to_owned(),
            user: None,
            other_platforms: Vec::new(),
        }
    }

    /// Adds a layer on top of those there are.
    #[must_use]
    pub fn layer(mut self, layer: Layer) -> Self {
        self.layers.push(layer);
        self
    }

    /// The config's `Entrypoint`.
    #[must_use]
    pub fn entrypoint(mut self, args: &[&str]) -> Self {
        self.entrypoint = args.iter().map(|&arg| arg.to_owned()).collect();
        self
    }

    /// The config's `Cmd`.
    #[must_use]
    pub fn cmd(mut self, args: &[&str]) -> Self {
        self.cmd = args.iter().map(|&arg| arg.to_owned()).collect();
        self
    }

    /// Adds `NAME=VALUE` to the config's `Env`.
    #[must_use]
    pub fn env(mut self, variable: &str) -> Self {
        self.env.push(variable.to_owned());
        self
    }

    /// The config's `WorkingDir`.
    #[must_use]
    pub fn workdir(mut self, directory: &str) -> Self {
        directory.clone_into(&mut self.workdir);
        self
    }

    /// The config's `User`.
    #[must_use]
    pub fn user(mut self, user: &str) -> Self {
        self.user = Some(user.to_owned());
        self
    }

    /// Makes the image an index, with a manifest for `architecture` (in OCI's words, e.g. `arm64`) beside this machine's.
    #[must_use]
    pub fn platform(mut self, architecture: &str, layers: Vec<Layer>) -> Self {
        self.other_platforms.push(Platform { architecture: architecture.to_owned(), layers });
        self
    }

    /// Writes an OCI archive (a tar of a layout), which `ctr images import` and `podman load` read.
    ///
    /// # Errors
    /// A layer's source cannot be read, or `path` cannot be written.
    pub fn write_archive(&self, path: impl AsRef<Path>) -> Result<Written> {
        let path = path.as_ref();
        let blobs = self.build()?;
        let file = fs::File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
        let mut tar = tar::Builder::new(io::BufWriter::new(file));
        for (name, bytes) in blobs.files() {
            let mut header = Header::new_ustar();
            header.set_mode(0o644);
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, name, bytes)?;
        }
        tar.into_inner()?.flush().with_context(|| format!("cannot write {}", path.display()))?;
        Ok(blobs.written)
    }

    /// Writes an OCI layout directory.
    ///
    /// # Errors
    /// A layer's source cannot be read, or `directory` cannot be written.
    pub fn write_layout(&self, directory: impl AsRef<Path>) -> Result<Written> {
        let directory = directory.as_ref();
        let blobs = self.build()?;
        fs::create_dir_all(directory.join("blobs/sha256"))
            .with_context(|| format!("cannot create {}", directory.display()))?;
        for (name, bytes) in blobs.files() {
            let path = directory.join(name);
            fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(blobs.written)
    }

    fn build(&self) -> Result<Blobs> {
        if self.layers.is_empty() {
            bail!("the image {} has no layer", self.reference);
        }
        let native = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let mut blobs = BTreeMap::new();
        let (descriptor, mut written) = self.build_manifest(native, &self.layers, &mut blobs)?;
        let names =
            json!({ "io.containerd.image.name": self.reference, "org.opencontainers.image.ref.name": self.reference });
        let mut top = if self.other_platforms.is_empty() {
            descriptor
        } else {
            let mut manifests = vec![descriptor];
            for platform in &self.other_platforms {
                manifests.push(self.build_manifest(&platform.architecture, &platform.layers, &mut blobs)?.0);
            }
            let media_type = "application/vnd.oci.image.index.v1+json";
            let index = json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": manifests });
            let descriptor = put(&mut blobs, media_type, serde_json::to_vec(&index)?);
            written.index_digest = Some(digest_of(&descriptor));
            descriptor
        };
        top["annotations"] = names;
        let index = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [top],
        });
        Ok(Blobs { index: serde_json::to_vec(&index)?, stored: blobs, written })
    }

    fn build_manifest(
        &self,
        architecture: &str,
        layers: &[Layer],
        blobs: &mut BTreeMap<String, Vec<u8>>,
    ) -> Result<(Value, Written)> {
        let mut descriptors = Vec::new();
        let mut diff_ids = Vec::new();
        for layer in layers {
            let (blob, diff_id, media_type) = layer.write()?;
            descriptors.push(put(blobs, media_type, blob));
            diff_ids.push(diff_id);
        }
        let mut run = json!({ "Env": self.env, "WorkingDir": self.workdir });
        if !self.entrypoint.is_empty() {
            run["Entrypoint"] = json!(self.entrypoint);
        }
        if !self.cmd.is_empty() {
            run["Cmd"] = json!(self.cmd);
        }
        if let Some(user) = &self.user {
            run["User"] = json!(user);
        }
        let config = json!({
            "created": "1970-01-01T00:00:00Z",
            "architecture": architecture,
            "os": "linux",
            "config": run,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = put(blobs, "application/vnd.oci.image.config.v1+json", serde_json::to_vec(&config)?);
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest =
            json!({ "schemaVersion": 2, "mediaType": media_type, "config": &config, "layers": &descriptors });
        let mut manifest = put(blobs, media_type, serde_json::to_vec(&manifest)?);
        manifest["platform"] = json!({ "architecture": architecture, "os": "linux" });
        let written = Written {
            reference: self.reference.clone(),
            index_digest: None,
            manifest_digest: digest_of(&manifest),
            config_digest: digest_of(&config),
            layer_digests: descriptors.iter().map(digest_of).collect(),
            chain_id: chain_id(&diff_ids),
            diff_ids,
        };
        Ok((manifest, written))
    }
}

/// What was written; digests are `sha256:HEX`. Those of manifest, config and layers are this machine's platform's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The name the image imports as.
    pub reference: String,
    /// The index, where the image has several platforms.
    pub index_digest: Option<String>,
    /// The manifest.
    pub manifest_digest: String,
    /// The config, which is podman's image id.
    pub config_digest: String,
    /// The layers' blobs, base first.
    pub layer_digests: Vec<String>,
    /// The layers' tars, base first.
    pub diff_ids: Vec<String>,
    /// The chain over all layers (OCI image spec, "Layer ChainID"): the parent of a container's snapshot.
    pub chain_id: String,
}

struct Blobs {
    index: Vec<u8>,
    stored: BTreeMap<String, Vec<u8>>,
    written: Written,
}

impl Blobs {
    fn files(&self) -> impl Iterator<Item = (String, &[u8])> {
        let fixed = [
            ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.as_slice()),
            ("index.json".to_owned(), self.index.as_slice()),
        ];
        let blobs = self.stored.iter().map(|(hex, bytes)| (format!("blobs/sha256/{hex}"), bytes.as_slice()));
        fixed.into_iter().chain(blobs)
    }
}

fn put(blobs: &mut BTreeMap<String, Vec<u8>>, media_type: &str, bytes: Vec<u8>) -> Value {
    let hex = hex(&Sha256::digest(&bytes));
    let descriptor = json!({ "mediaType": media_type, "digest": format!("sha256:{hex}"), "size": bytes.len() });
    blobs.insert(hex, bytes);
    descriptor
}

fn digest_of(descriptor: &Value) -> String {
    descriptor["digest"].as_str().unwrap_or_default().to_owned()
}

fn chain_id(diff_ids: &[String]) -> String {
    let mut chain = String::new();
    for diff_id in diff_ids {
        chain = if chain.is_empty() { diff_id.clone() } else { sha256(format!("{chain} {diff_id}").as_bytes()) };
    }
    chain
}

/// `sha256:HEX` of `bytes`.
pub fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Image paths are stored without the leading slash.
fn relative(path: &Path) -> Vec<u8> {
    let bytes = path.as_os_str().as_bytes();
    bytes.strip_prefix(b"/").unwrap_or(bytes).to_vec()
}

/// False where `bytes` do not fit and must go into a PAX record.
fn set_bytes(field: &mut [u8], bytes: &[u8]) -> bool {
    let fits = bytes.len() <= field.len();
    let cut = bytes.len().min(field.len());
    field.fill(0);
    field[..cut].copy_from_slice(&bytes[..cut]);
    fits
}

fn capability(path: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let name = "security.capability";
    let mut value = [0_u8; 64];
    match rustix::fs::lgetxattr(path, name, &mut value[..]) {
        Ok(length) => Ok(vec![(name.to_owned(), value[..length].to_vec())]),
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::NOTSUP) => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("cannot read the capabilities of {}", path.display())),
    }
}

struct Hashing<W> {
    inner: W,
    hash: Sha256,
}

impl<W> Hashing<W> {
    fn new(inner: W) -> Self {
        Self { inner, hash: Sha256::new() }
    }

    fn finish(self) -> (W, String) {
        (self.inner, format!("sha256:{}", hex(&self.hash.finalize())))
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn sample() -> Image {
        Image::new("local.test/sample:1")
            .layer(Layer::new().dir("/bin", 0o755).file("/bin/a", "one", 0o4755).hardlink("/bin/b", "/bin/a"))
            .layer(Layer::new().whiteout("/bin/b").opaque("/etc").symlink("/x", "/bin/a"))
            .entrypoint(&["/bin/a"])
    }

    fn layer_paths(layer: &Layer) -> Vec<String> {
        let (blob, _, _) = layer.write().unwrap();
        let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(blob.as_slice()));
        tar.entries().unwrap().map(|entry| String::from_utf8(entry.unwrap().path_bytes().to_vec()).unwrap()).collect()
    }

    #[test]
    fn the_same_description_gives_the_same_digests() {
        let directory = tempfile::tempdir().unwrap();
        let first = sample().write_archive(directory.path().join("1.tar")).unwrap();
        let second = sample().write_archive(directory.path().join("2.tar")).unwrap();
        assert_eq!(first, second);
        assert_eq!(
            fs::read(directory.path().join("1.tar")).unwrap(),
            fs::read(directory.path().join("2.tar")).unwrap()
        );
        let other = sample().env("A=B").write_archive(directory.path().join("3.tar")).unwrap();
        assert_ne!(first.manifest_digest, other.manifest_digest);
        assert_eq!(first.chain_id, other.chain_id);
    }

    #[test]
    fn every_digest_names_the_bytes_stored_under_it() {
        let directory = tempfile::tempdir().unwrap();
        let written =
            sample().platform("arm64", vec![Layer::new().dir("/arm", 0o755)]).write_layout(&directory).unwrap();
        let blob = |digest: &str| {
            let bytes = fs::read(directory.path().join("blobs").join(digest.replace(':', "/"))).unwrap();
            assert_eq!(sha256(&bytes), digest);
            bytes
        };
        let index: Value = serde_json::from_slice(&blob(written.index_digest.as_ref().unwrap())).unwrap();
        assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
        let manifest: Value = serde_json::from_slice(&blob(&written.manifest_digest)).unwrap();
        assert_eq!(manifest["config"]["digest"], written.config_digest.as_str());
        blob(&written.config_digest);
        for (digest, diff_id) in written.layer_digests.iter().zip(&written.diff_ids) {
            let mut tar = Vec::new();
            flate2::read::GzDecoder::new(blob(digest).as_slice()).read_to_end(&mut tar).unwrap();
            assert_eq!(&sha256(&tar), diff_id);
        }
        let chain = sha256(format!("{} {}", written.diff_ids[0], written.diff_ids[1]).as_bytes());
        assert_eq!(written.chain_id, chain);
    }

    #[test]
    fn names_that_no_builder_would_write_are_kept() {
        let long = "d/".repeat(80) + "file";
        let layer = Layer::new()
            .file("../escape", "", 0o644)
            .file(&long, "x", 0o644)
            .whiteout("/etc/gone")
            .opaque("/var")
            .dir("/srv", 0o755);
        assert_eq!(layer_paths(&layer), ["../escape", &long, "etc/.wh.gone", "var/.wh..wh..opq", "srv/"]);
    }

    #[test]
    fn a_tree_keeps_modes_and_links() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        fs::create_dir(root.join("bin")).unwrap();
        fs::write(root.join("bin/a"), "one").unwrap();
        fs::hard_link(root.join("bin/a"), root.join("bin/b")).unwrap();
        std::os::unix::fs::symlink("a", root.join("bin/c")).unwrap();
        let layer = Layer::from_tree(root).unwrap();
        let (blob, _, _) = layer.write().unwrap();
        let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(blob.as_slice()));
        let kinds: Vec<_> = tar
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let link = entry.link_name_bytes().map(|link| String::from_utf8_lossy(&link).into_owned());
                (String::from_utf8_lossy(&entry.path_bytes()).into_owned(), entry.header().entry_type(), link)
            })
            .collect();
        assert_eq!(
            kinds,
            [
                ("bin/".to_owned(), EntryType::Directory, None),
                ("bin/a".to_owned(), EntryType::Regular, None),
                ("bin/b".to_owned(), EntryType::Link, Some("bin/a".to_owned())),
                ("bin/c".to_owned(), EntryType::Symlink, Some("a".to_owned())),
            ]
        );
    }
}
