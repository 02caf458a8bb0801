//! A manifest in memory: thousands of files for each image on the node, so rows are of fixed size, paths
//! share one buffer, and both lookups (by path, by digest) are binary searches. Immutable once made.

use std::{collections::HashMap, fmt};

use serde::{Deserialize, Serialize};

use super::{capabilities::FileCapabilities, digest::Digest};

/// Most links that one path is followed through, as the kernel's `MAXSYMLINKS`.
const MAX_LINKS: usize = 40;

/// What a regular file is, judged by its bytes and name in the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Kind {
    /// ELF magic, whatever its mode.
    Elf,
    /// Starts with `#!`.
    Script,
    /// Neither, but an execute bit is set.
    Executable,
    /// None of these, but named as code (`.py`, `.js`, `.jar` ...).
    Code,
    /// Data.
    Other,
}

/// What a manifest was made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A signed statement.
    Attestation,
    /// Layer bytes whose digests were verified.
    Layers,
    /// The unpacked snapshot directories: not bound to any digest.
    Unpacked,
    /// A software bill of materials.
    Sbom,
}

/// How far a manifest can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Status {
    /// Attested and verified.
    Ok,
    /// Being made.
    Pending,
    /// There is none.
    Missing,
    /// Derived from the image's verified layers; nobody signed it.
    Unsigned,
    /// An attestation's signature is wrong.
    BadSignature,
    /// An attestation is signed by nobody we trust.
    UntrustedSigner,
    /// An attestation is for another image.
    WrongSubject,
    /// An attestation is out of date.
    Stale,
    /// Unpackers disagree on what the layers mean.
    Ambiguous,
    /// Taken from unpacked directories: no digest binds it to the image.
    Unbound,
}

/// Which files a manifest lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Coverage {
    /// Every regular file.
    All,
    /// Every file that can run.
    Code,
    /// Files of packages alone: it can confirm, never deny.
    Packages,
}

macro_rules! names {
    ($type:ident { $($variant:ident => $name:literal),+ $(,)? }) => {
        impl $type {
            /// All of them, in order.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The name in rule fields, metrics and files.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.pad(self.as_str())
            }
        }
    };
}
pub(super) use names;

names!(Kind { Elf => "elf", Script => "script", Executable => "executable", Code => "code", Other => "other" });
names!(Source { Attestation => "attestation", Layers => "layers", Unpacked => "unpacked", Sbom => "sbom" });
names!(Coverage { All => "all", Code => "code", Packages => "packages" });
names!(Status {
    Ok => "ok",
    Pending => "pending",
    Missing => "missing",
    Unsigned => "unsigned",
    BadSignature => "bad_signature",
    UntrustedSigner => "untrusted_signer",
    WrongSubject => "wrong_subject",
    Stale => "stale",
    Ambiguous => "ambiguous",
    Unbound => "unbound",
});

/// A regular file of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// SHA-256 of its content.
    pub digest: Digest,
    /// Its length.
    pub size: u64,
    /// Permission bits with setuid, setgid and sticky (`mode & 07777`).
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Owning group.
    pub gid: u32,
    /// File capabilities.
    pub capabilities: Option<FileCapabilities>,
    /// What it is.
    pub kind: Kind,
    /// Index of the layer it comes from, 0 = lowest.
    pub layer: u16,
}

/// A layer as the manifest names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerDigests {
    /// The blob as distributed; absent where the engine does not keep it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// The uncompressed tar.
    #[serde(rename = "diffID")]
    pub diff_id: Digest,
}

/// What a manifest says of the whole image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Reference it was built for; may be empty.
    pub reference: String,
    /// Chain id of all layers: what the content below depends on.
    pub chain_id: Digest,
    /// Digest of the platform manifest.
    pub manifest_digest: Option<Digest>,
    /// Digest of the image configuration.
    pub config_digest: Option<Digest>,
    /// Layers, lowest first.
    pub layers: Vec<LayerDigests>,
    /// `Entrypoint` of the configuration.
    pub entrypoint: Vec<String>,
    /// `Cmd` of the configuration.
    pub cmd: Vec<String>,
    /// `PATH` of the configuration's environment.
    pub search_path: Option<String>,
    /// What is listed.
    pub coverage: Coverage,
    /// What it was made from.
    pub source: Source,
    /// Why unpackers may disagree on this image; empty = they do not.
    pub ambiguities: Vec<String>,
}

/// A manifest.
pub struct Manifest {
    header: Header,
    /// Every path and link target, end to end.
    text: Box<[u8]>,
    /// Sorted by path.
    rows: Box<[Row]>,
    /// Row numbers sorted by digest.
    by_digest: Box<[u32]>,
    /// Symbolic links, sorted by path.
    links: Box<[Link]>,
    /// Distinct file capabilities; a row holds an index + 1.
    capabilities: Box<[FileCapabilities]>,
}

/// One file: 64 bytes.
struct Row {
    digest: Digest,
    size: u64,
    path: Text,
    uid: u32,
    gid: u32,
    layer: u16,
    capabilities: u16,
    /// `mode & 07777` and the kind in the upper four bits.
    mode_kind: u16,
}

const _: () = assert!(size_of::<Row>() == 64);

struct Link {
    path: Text,
    target: Text,
}

/// A piece of `Manifest::text`.
#[derive(Clone, Copy)]
struct Text {
    start: u32,
    length: u16,
}

/// More files, longer paths or more text than a manifest holds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the image has too many files, too long paths, or too many distinct file capabilities for a manifest")]
pub struct TooLarge;

impl Manifest {
    /// A manifest of the given files and symbolic links. Paths are absolute and clean; a path given twice
    /// keeps its last file.
    ///
    /// # Errors
    /// [`TooLarge`].
    pub fn new(
        header: Header,
        files: impl IntoIterator<Item = (Vec<u8>, File)>,
        links: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>,
    ) -> Result<Self, TooLarge> {
        let mut files: Vec<_> = files.into_iter().collect();
        // Reversed before the stable sort, so that of equal paths the last one given comes first and stays.
        files.reverse();
        files.sort_by(|a, b| a.0.cmp(&b.0));
        files.dedup_by(|later, first| later.0 == first.0);
        let mut links: Vec<_> = links.into_iter().collect();
        links.sort();
        links.dedup_by(|a, b| a.0 == b.0);

        let mut builder = Builder::default();
        let rows = files.iter().map(|(path, file)| builder.row(path, file)).collect::<Result<Box<[_]>, _>>()?;
        drop(files);
        let links = links
            .iter()
            .map(|(path, target)| Ok(Link { path: builder.text(path)?, target: builder.text(target)? }))
            .collect::<Result<Box<[_]>, _>>()?;
        let count = u32::try_from(rows.len()).map_err(|_error| TooLarge)?;
        let mut by_digest: Box<[u32]> = (0..count).collect();
        by_digest.sort_unstable_by_key(|&index| (rows[index as usize].digest, index));
        Ok(Self {
            header,
            text: builder.text.into_boxed_slice(),
            rows,
            by_digest,
            links,
            capabilities: builder.capabilities.into_boxed_slice(),
        })
    }

    /// Facts of the whole image.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The same content under another header (an image of the same layers).
    pub(super) fn set_header(&mut self, header: Header) {
        self.header = header;
    }

    /// How far it can be relied on.
    pub fn status(&self) -> Status {
        match self.header.source {
            _ if self.ambiguous() => Status::Ambiguous,
            Source::Attestation => Status::Ok,
            Source::Layers => Status::Unsigned,
            Source::Unpacked | Source::Sbom => Status::Unbound,
        }
    }

    /// Unpackers disagree on the layers.
    pub fn ambiguous(&self) -> bool {
        !self.header.ambiguities.is_empty()
    }

    /// Number of files.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// No file at all.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Bytes of memory it holds, near enough.
    pub fn memory(&self) -> usize {
        size_of::<Self>()
            + self.text.len()
            + size_of_val(&*self.rows)
            + size_of_val(&*self.by_digest)
            + size_of_val(&*self.links)
            + size_of_val(&*self.capabilities)
    }

    /// The file listed at an absolute path of the image.
    pub fn file(&self, path: &[u8]) -> Option<File> {
        let index = self.rows.binary_search_by(|row| self.bytes(row.path).cmp(path)).ok()?;
        Some(self.unpack(&self.rows[index]))
    }

    /// Paths that list `digest`, sorted.
    pub fn paths_of(&self, digest: &Digest) -> impl Iterator<Item = &[u8]> {
        let start = self.by_digest.partition_point(|&index| self.rows[index as usize].digest < *digest);
        self.by_digest[start..]
            .iter()
            .map(|&index| &self.rows[index as usize])
            .take_while(move |row| row.digest == *digest)
            .map(|row| self.bytes(row.path))
    }

    /// Some file has this digest.
    pub fn lists(&self, digest: &Digest) -> bool {
        self.paths_of(digest).next().is_some()
    }

    /// All files by path.
    pub fn files(&self) -> impl Iterator<Item = (&[u8], File)> {
        self.rows.iter().map(|row| (self.bytes(row.path), self.unpack(row)))
    }

    /// All symbolic links by path, with their targets.
    pub fn links(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.links.iter().map(|link| (self.bytes(link.path), self.bytes(link.target)))
    }

    /// The path with the image's symbolic links followed, as the kernel would in a fresh container; `None` for a
    /// relative path or too many links. The result need not be listed.
    pub fn resolve(&self, path: &[u8]) -> Option<Vec<u8>> {
        let mut todo: Vec<&[u8]> = components(path.strip_prefix(b"/")?).rev().collect();
        let mut resolved = Vec::new();
        let mut followed = 0;
        while let Some(name) = todo.pop() {
            if name == b".." {
                let parent = resolved.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
                resolved.truncate(parent);
                continue;
            }
            let parent = resolved.len();
            resolved.push(b'/');
            resolved.extend_from_slice(name);
            let Ok(index) = self.links.binary_search_by(|link| self.bytes(link.path).cmp(&resolved)) else {
                continue;
            };
            followed += 1;
            if followed > MAX_LINKS {
                return None;
            }
            let target = self.bytes(self.links[index].target);
            resolved.truncate(if target.starts_with(b"/") { 0 } else { parent });
            todo.extend(components(target).rev());
        }
        Some(if resolved.is_empty() { b"/".to_vec() } else { resolved })
    }

    /// The file that the image starts: its entry point's program, searched in its `PATH`, links followed.
    pub fn entrypoint_path(&self) -> Option<Vec<u8>> {
        let program = self.header.entrypoint.first().or(self.header.cmd.first())?.as_bytes();
        let candidates: Vec<Vec<u8>> = if program.contains(&b'/') {
            vec![program.to_vec()]
        } else {
            let path = self
                .header
                .search_path
                .as_deref()
                .unwrap_or("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
            path.split(':').map(|directory| [directory.as_bytes(), b"/", program].concat()).collect()
        };
        candidates.iter().filter_map(|path| self.resolve(path)).find(|path| self.file(path).is_some())
    }

    fn bytes(&self, text: Text) -> &[u8] {
        let start = text.start as usize;
        &self.text[start..start + usize::from(text.length)]
    }

    fn unpack(&self, row: &Row) -> File {
        File {
            digest: row.digest,
            size: row.size,
            mode: row.mode_kind & 0o7777,
            uid: row.uid,
            gid: row.gid,
            capabilities: usize::from(row.capabilities).checked_sub(1).map(|index| self.capabilities[index]),
            kind: Kind::ALL[usize::from(row.mode_kind >> 12)],
            layer: row.layer,
        }
    }
}

impl fmt::Debug for Manifest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Manifest")
            .field("chain_id", &self.header.chain_id)
            .field("files", &self.rows.len())
            .finish_non_exhaustive()
    }
}

/// Compares content: all that a verdict depends on.
impl PartialEq for Manifest {
    fn eq(&self, other: &Self) -> bool {
        self.header == other.header && self.files().eq(other.files()) && self.links().eq(other.links())
    }
}

/// Non-empty components of a path, `.` left out.
pub(super) fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/').filter(|name| !name.is_empty() && *name != b".")
}

#[derive(Default)]
struct Builder {
    text: Vec<u8>,
    capabilities: Vec<FileCapabilities>,
    known: HashMap<FileCapabilities, u16>,
}

impl Builder {
    fn text(&mut self, bytes: &[u8]) -> Result<Text, TooLarge> {
        let start = u32::try_from(self.text.len()).map_err(|_error| TooLarge)?;
        let length = u16::try_from(bytes.len()).map_err(|_error| TooLarge)?;
        self.text.extend_from_slice(bytes);
        Ok(Text { start, length })
    }

    fn row(&mut self, path: &[u8], file: &File) -> Result<Row, TooLarge> {
        let capabilities = match file.capabilities {
            None => 0,
            Some(capabilities) => {
                let next = u16::try_from(self.capabilities.len() + 1).map_err(|_error| TooLarge)?;
                let index = *self.known.entry(capabilities).or_insert(next);
                if index == next {
                    self.capabilities.push(capabilities);
                }
                index
            }
        };
        Ok(Row {
            digest: file.digest,
            size: file.size,
            path: self.text(path)?,
            uid: file.uid,
            gid: file.gid,
            layer: file.layer,
            capabilities,
            mode_kind: (file.mode & 0o7777) | (file.kind as u16) << 12,
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::manifest) fn header() -> Header {
        Header {
            reference: "registry.example/app:1".into(),
            chain_id: Digest::of(b"chain"),
            manifest_digest: Some(Digest::of(b"manifest")),
            config_digest: Some(Digest::of(b"config")),
            layers: vec![LayerDigests { digest: Some(Digest::of(b"blob")), diff_id: Digest::of(b"diff") }],
            entrypoint: vec!["sh".into()],
            cmd: vec![],
            search_path: Some("/usr/bin:/bin".into()),
            coverage: Coverage::All,
            source: Source::Layers,
            ambiguities: vec![],
        }
    }

    pub(in crate::manifest) fn file(content: &[u8]) -> File {
        File {
            digest: Digest::of(content),
            size: content.len() as u64,
            mode: 0o755,
            uid: 0,
            gid: 0,
            capabilities: None,
            kind: Kind::Elf,
            layer: 0,
        }
    }

    fn links(pairs: &[(&str, &str)]) -> Vec<(Vec<u8>, Vec<u8>)> {
        pairs.iter().map(|(path, target)| (path.as_bytes().to_vec(), target.as_bytes().to_vec())).collect()
    }

    #[test]
    fn finds_by_path_and_by_digest() {
        let caps = FileCapabilities { permitted: 1, effective: true, ..FileCapabilities::default() };
        let files = vec![
            (b"/usr/bin/sh".to_vec(), file(b"sh")),
            (
                b"/b\xff".to_vec(),
                File { capabilities: Some(caps), kind: Kind::Other, mode: 0o7777, layer: 3, ..file(b"x") },
            ),
            (b"/usr/bin/dash".to_vec(), file(b"sh")),
            (b"/twice".to_vec(), file(b"first")),
            (b"/twice".to_vec(), file(b"last")),
        ];
        let manifest = Manifest::new(header(), files, vec![]).unwrap();
        assert_eq!(manifest.len(), 4);
        assert_eq!(manifest.file(b"/usr/bin/sh"), Some(file(b"sh")));
        let odd = manifest.file(b"/b\xff").unwrap();
        assert_eq!((odd.capabilities, odd.kind, odd.mode, odd.layer), (Some(caps), Kind::Other, 0o7777, 3));
        assert_eq!(manifest.file(b"/usr/bin/s"), None);
        assert_eq!(manifest.file(b"/twice"), Some(file(b"last")));
        let paths: Vec<_> = manifest.paths_of(&Digest::of(b"sh")).collect();
        assert_eq!(paths, [b"/usr/bin/dash".as_slice(), b"/usr/bin/sh"]);
        assert!(!manifest.lists(&Digest::of(b"first")));
    }

    #[test]
    fn follows_links_inside_the_image() {
        let links = links(&[
            ("/bin", "usr/bin"),
            ("/usr/bin/sh", "dash"),
            ("/usr/bin/up", "../../../../usr/bin/dash"),
            ("/abs", "/bin/sh"),
            ("/loop", "loop"),
        ]);
        let manifest = Manifest::new(header(), vec![(b"/usr/bin/dash".to_vec(), file(b"sh"))], links).unwrap();
        for (path, resolved) in [
            ("/bin/sh", Some("/usr/bin/dash")),
            ("/usr/bin/up", Some("/usr/bin/dash")),
            ("/abs", Some("/usr/bin/dash")),
            ("//bin/./../bin/sh", Some("/usr/bin/dash")),
            ("/..", Some("/")),
            ("/none/x", Some("/none/x")),
            ("/loop/x", None),
            ("bin/sh", None),
        ] {
            assert_eq!(manifest.resolve(path.as_bytes()).as_deref(), resolved.map(str::as_bytes), "{path}");
        }
        assert_eq!(manifest.entrypoint_path().as_deref(), Some(b"/usr/bin/dash".as_slice()));
    }
}
