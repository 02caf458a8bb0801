//! One pass over a layer: inflate, verify both digests, list every file. Nothing of a file is kept but
//! its digest, and no length in the stream makes the agent reserve memory.

use std::{
    cell::Cell,
    io::{self, BufRead, BufReader, Read},
    ops::ControlFlow,
};

use flate2::bufread::MultiGzDecoder;

use super::{
    capabilities::FileCapabilities,
    classify::{PREFIX, classify},
    digest::{Digest, Hasher, HashingReader},
    model::File,
    tar_stream::{Entry, EntryKind, TarError, TarReader},
    tree::{Node, Tree, TreeError, TreeLimits},
};

const BUFFER: usize = 128 << 10;
/// Progress is reported, and a cancellation seen, each so many bytes.
const REPORT_EACH: u64 = 4 << 20;

/// Bounds on one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerLimits {
    /// Bytes of the layer after inflating: a small blob can inflate to a thousand times its size.
    pub inflated_bytes: u64,
    /// Files and paths.
    pub tree: TreeLimits,
}

impl Default for LayerLimits {
    fn default() -> Self {
        Self { inflated_bytes: 64 << 30, tree: TreeLimits::default() }
    }
}

/// Why a layer was refused.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// Reading failed, or the compressed stream is damaged.
    #[error("reading failed: {0}")]
    Io(#[from] io::Error),
    /// The stream is no acceptable tar archive.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// An entry cannot be placed.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The blob is not what the manifest names.
    #[error("the blob's digest is {0}, but the image names another")]
    BlobDigest(Digest),
    /// The uncompressed layer is not what the configuration names.
    #[error("the uncompressed layer's digest is {0}, but the image's configuration names another")]
    DiffId(Digest),
    /// It inflates to more than allowed.
    #[error("it inflates to more than {0} bytes")]
    TooLarge(u64),
    /// The caller stopped it.
    #[error("cancelled")]
    Cancelled,
}

/// A [`LayerError`] and the entry it came at.
#[derive(Debug)]
pub(super) struct At {
    /// Number from 1, and path.
    pub(super) entry: Option<(u64, Vec<u8>)>,
    pub(super) cause: LayerError,
}

impl<E: Into<LayerError>> From<E> for At {
    fn from(cause: E) -> Self {
        Self { entry: None, cause: cause.into() }
    }
}

/// A layer's bytes and what they must be.
pub(super) struct LayerInput {
    /// As stored.
    pub(super) reader: Box<dyn Read>,
    /// Digest of the bytes as stored; `None` where the store keeps them in another form.
    pub(super) digest: Option<Digest>,
    /// Digest of the uncompressed bytes.
    pub(super) diff_id: Digest,
    /// Index of the layer, 0 = lowest.
    pub(super) index: u16,
}

/// Reads a layer into a tree of its own. `lower` is what lies below it; `progress` is told how many stored bytes
/// have been read.
pub(super) fn read_layer(
    input: LayerInput,
    lower: &Tree,
    limits: &LayerLimits,
    progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> Result<Tree, At> {
    let stopped = Cell::new(None);
    let stored_count = Cell::new(0);
    let stored = Counted { inner: HashingReader::new(input.reader), count: &stored_count };
    let inflated = Inflate::new(BufReader::with_capacity(BUFFER, stored))?;
    let meter = Meter {
        inner: inflated,
        count: 0,
        limit: limits.inflated_bytes,
        stored: &stored_count,
        progress,
        stopped: &stopped,
    };
    let mut tar = TarReader::new(BufReader::with_capacity(BUFFER, HashingReader::new(meter)));
    let mut pass = Pass { tree: Tree::new(limits.tree), lower, index: input.index, buffer: vec![0; BUFFER] };

    let outcome = pass.entries(&mut tar).and_then(|()| {
        let mut reader = tar.into_inner();
        // Both digests cover all bytes, also those after the archive's end.
        io::copy(&mut reader, &mut io::sink())?;
        let (diff_id, meter) = reader.into_inner().finish();
        let mut stored = meter.inner.into_inner();
        io::copy(&mut stored, &mut io::sink())?;
        let (digest, _) = stored.into_inner().inner.finish();
        Ok((digest, diff_id))
    });
    let (digest, diff_id) = outcome.map_err(|at| match stopped.take() {
        Some(Stop::Cancelled) => At { cause: LayerError::Cancelled, ..at },
        Some(Stop::TooLarge) => At { cause: LayerError::TooLarge(limits.inflated_bytes), ..at },
        None => at,
    })?;
    if input.digest.is_some_and(|expected| expected != digest) {
        return Err(LayerError::BlobDigest(digest).into());
    }
    if diff_id != input.diff_id {
        return Err(LayerError::DiffId(diff_id).into());
    }
    Ok(pass.tree)
}

struct Pass<'a> {
    tree: Tree,
    lower: &'a Tree,
    index: u16,
    buffer: Vec<u8>,
}

impl Pass<'_> {
    fn entries(&mut self, tar: &mut TarReader<impl Read>) -> Result<(), At> {
        let mut number = 0;
        loop {
            number += 1;
            let entry = match tar.next() {
                Ok(Some(entry)) => entry,
                Ok(None) => return Ok(()),
                Err(error) => return Err(At { entry: Some((number, Vec::new())), cause: error.into() }),
            };
            self.place(&entry, tar).map_err(|cause| At { entry: Some((number, entry.path)), cause })?;
        }
    }

    fn place(&mut self, entry: &Entry, tar: &mut TarReader<impl Read>) -> Result<(), LayerError> {
        let node = match entry.kind {
            EntryKind::File => Node::File(self.file(entry, tar)?),
            EntryKind::Directory => Node::Directory { opaque: false, explicit: true },
            EntryKind::Symlink if entry.link.len() > 4096 => return Err(TreeError::NameTooLong.into()),
            EntryKind::Symlink => Node::Symlink(entry.link.clone()),
            EntryKind::HardLink => return Ok(self.tree.link(&entry.path, &entry.link, self.lower)?),
            EntryKind::GlobalHeader => return Ok(self.tree.remove_entry(&entry.path)?),
            EntryKind::CharDevice if entry.device == (0, 0) => {
                // Unpacked as it is, overlayfs takes it for a whiteout.
                self.tree.ambiguous("a character device 0:0", &entry.path);
                Node::Whiteout
            }
            EntryKind::CharDevice | EntryKind::Special => Node::Special,
        };
        Ok(self.tree.place(&entry.path, node)?)
    }

    fn file(&mut self, entry: &Entry, data: &mut impl Read) -> Result<File, LayerError> {
        let mut hasher = Hasher::default();
        let mut prefix = [0; PREFIX];
        let mut count = 0;
        loop {
            let length = data.read(&mut self.buffer)?;
            if length == 0 {
                break;
            }
            // A first read may be shorter than the prefix.
            for (slot, byte) in prefix.iter_mut().skip(count).zip(&self.buffer[..length]) {
                *slot = *byte;
            }
            count = count.saturating_add(length);
            hasher.update(&self.buffer[..length]);
        }
        let mode = (entry.mode & 0o7777) as u16;
        Ok(File {
            digest: hasher.finish(),
            size: entry.size,
            mode,
            uid: entry.uid,
            gid: entry.gid,
            capabilities: entry.capability.as_deref().and_then(FileCapabilities::parse),
            kind: classify(&entry.path, mode, &prefix[..count.min(PREFIX)]),
            layer: self.index,
        })
    }
}

/// Inflates what its first bytes say it is: media types are not always there, nor always right.
enum Inflate<R: BufRead> {
    Gzip(Box<MultiGzDecoder<R>>),
    Zstd(zstd::stream::read::Decoder<'static, R>),
    Plain(R),
}

impl<R: BufRead> Inflate<R> {
    fn new(mut reader: R) -> io::Result<Self> {
        let start = reader.fill_buf()?;
        if start.starts_with(&[0x1F, 0x8B]) {
            return Ok(Self::Gzip(Box::new(MultiGzDecoder::new(reader))));
        }
        if start.starts_with(&[0x28, 0xB5, 0x2F, 0xFD]) {
            return Ok(Self::Zstd(zstd::stream::read::Decoder::with_buffer(reader)?));
        }
        Ok(Self::Plain(reader))
    }

    fn into_inner(self) -> R {
        match self {
            Self::Gzip(decoder) => decoder.into_inner(),
            Self::Zstd(decoder) => decoder.finish(),
            Self::Plain(reader) => reader,
        }
    }
}

impl<R: BufRead> Read for Inflate<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Gzip(decoder) => decoder.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
            Self::Plain(reader) => reader.read(buffer),
        }
    }
}

struct Counted<'a, R> {
    inner: R,
    count: &'a Cell<u64>,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.count.set(self.count.get() + length as u64);
        Ok(length)
    }
}

#[derive(Clone, Copy)]
enum Stop {
    TooLarge,
    Cancelled,
}

/// Ends a stream that grows beyond its limit or is no longer wanted, and reports progress.
struct Meter<'a, R> {
    inner: R,
    count: u64,
    limit: u64,
    stored: &'a Cell<u64>,
    progress: &'a mut dyn FnMut(u64) -> ControlFlow<()>,
    stopped: &'a Cell<Option<Stop>>,
}

impl<R: Read> Read for Meter<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        let before = self.count;
        self.count += length as u64;
        let stop = if self.count > self.limit {
            Some(Stop::TooLarge)
        } else if before / REPORT_EACH != self.count / REPORT_EACH && (self.progress)(self.stored.get()).is_break() {
            Some(Stop::Cancelled)
        } else {
            None
        };
        match stop {
            None => Ok(length),
            Some(stop) => {
                self.stopped.set(Some(stop));
                Err(io::Error::other("stopped"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use super::*;

    fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, content) in files {
            let mut header = tar::Header::new_ustar();
            header.set_mode(0o755);
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, path, *content).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn limits(inflated_bytes: u64) -> LayerLimits {
        LayerLimits { inflated_bytes, ..LayerLimits::default() }
    }

    fn read(stored: &[u8], tar: &[u8], limits: &LayerLimits) -> Result<Tree, At> {
        let input = LayerInput {
            reader: Box::new(Cursor::new(stored.to_vec())),
            digest: Some(Digest::of(stored)),
            diff_id: Digest::of(tar),
            index: 3,
        };
        read_layer(input, &Tree::default(), limits, &mut |_| ControlFlow::Continue(()))
    }

    #[test]
    fn every_compression_gives_the_same() {
        let tar = tar(&[("bin/ls", b"\x7fELF"), ("empty", b""), ("a.py", b"x")]);
        let two_members = [gzip(&tar[..700]), gzip(&tar[700..])].concat();
        let plain = read(&tar, &tar, &limits(1 << 20)).unwrap();
        for stored in [gzip(&tar), zstd::encode_all(&tar[..], 3).unwrap(), two_members] {
            assert_eq!(read(&stored, &tar, &limits(1 << 20)).unwrap(), plain);
        }
        let (files, ..) = plain.into_parts();
        let names: Vec<_> = files.iter().map(|(path, file)| (path.as_slice(), file.layer, file.size)).collect();
        assert_eq!(names, [(&b"/a.py"[..], 3, 1), (b"/bin/ls", 3, 4), (b"/empty", 3, 0)]);
        assert_eq!(files[2].1.digest, Digest::of(b""));
    }

    #[test]
    fn damage_is_an_error_that_says_where() {
        let tar = tar(&[("one", &[7; 4000]), ("two", &[9; 4000])]);
        let whole = gzip(&tar);
        for cut in [0, 1, 5, 20, whole.len() / 2, whole.len() - 1] {
            assert!(read(&whole[..cut], &tar, &limits(1 << 20)).is_err(), "cut at {cut}");
        }
        for at in (0..whole.len()).step_by(7) {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            // A header field without meaning may change: then the blob's digest is the caller's to compare.
            if let Ok(tree) = read(&damaged, &tar, &limits(1 << 20)) {
                assert_eq!(tree, read(&whole, &tar, &limits(1 << 20)).unwrap());
            }
        }
        let mut header = tar.clone();
        header[4608] ^= 1;
        let At { entry, cause } = read(&header, &header, &limits(1 << 20)).unwrap_err();
        assert_eq!(entry.map(|(number, _)| number), Some(2));
        assert!(matches!(cause, LayerError::Tar(TarError::Checksum)), "{cause}");
        let cut = &tar[..4608 + 512 + 10];
        let At { entry, .. } = read(cut, cut, &limits(1 << 20)).unwrap_err();
        assert_eq!(entry, Some((2, b"two".to_vec())));
    }

    #[test]
    fn both_digests_are_checked() {
        let tar = tar(&[("one", b"1")]);
        let stored = gzip(&tar);
        let input = |digest: &[u8], diff_id: &[u8]| LayerInput {
            reader: Box::new(Cursor::new(stored.clone())),
            digest: Some(Digest::of(digest)),
            diff_id: Digest::of(diff_id),
            index: 0,
        };
        let go = |input| read_layer(input, &Tree::default(), &limits(1 << 20), &mut |_| ControlFlow::Continue(()));
        assert!(go(input(&stored, &tar)).is_ok());
        assert!(matches!(go(input(b"", &tar)), Err(At { cause: LayerError::BlobDigest(_), .. })));
        assert!(matches!(go(input(&stored, b"")), Err(At { cause: LayerError::DiffId(_), .. })));
        // What follows the archive's end belongs to the blob too.
        let longer = [&tar[..], b"more"].concat();
        assert!(matches!(read(&longer, &tar, &limits(1 << 20)), Err(At { cause: LayerError::DiffId(_), .. })));
        assert!(read(&longer, &longer, &limits(1 << 20)).is_ok());
    }

    #[test]
    fn bombs_are_stopped() {
        let zeroes = vec![0; 8 << 20];
        let bomb = gzip(&tar(&[("zeroes", &zeroes)]));
        assert!(bomb.len() < 20_000);
        let At { entry, cause } = read(&bomb, b"", &limits(1 << 20)).unwrap_err();
        assert!(matches!(cause, LayerError::TooLarge(_)), "{cause}");
        assert_eq!(entry.map(|(_, path)| path), Some(b"zeroes".to_vec()));
        let tail = gzip(&[tar(&[]), zeroes].concat());
        let At { cause, .. } = read(&tail, b"", &limits(1 << 20)).unwrap_err();
        assert!(matches!(cause, LayerError::TooLarge(_)), "after the end: {cause}");

        let names: Vec<String> = (0..100).map(|number| format!("file{number}")).collect();
        let many: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b""[..])).collect();
        let many = tar(&many);
        for tree in [TreeLimits { entries: 99, path_bytes: 1 << 20 }, TreeLimits { entries: 100, path_bytes: 500 }] {
            let limits = LayerLimits { tree, ..limits(1 << 20) };
            let At { cause, .. } = read(&many, &many, &limits).unwrap_err();
            assert!(matches!(cause, LayerError::Tree(TreeError::TooMany(..))), "{cause}");
        }
    }

    #[test]
    fn can_be_cancelled() {
        let tar = tar(&[("zeroes", &vec![0; 20 << 20])]);
        let input = LayerInput {
            reader: Box::new(Cursor::new(tar.clone())),
            digest: None,
            diff_id: Digest::of(&tar),
            index: 0,
        };
        let mut calls = 0;
        let At { cause, .. } = read_layer(input, &Tree::default(), &LayerLimits::default(), &mut |_| {
            calls += 1;
            ControlFlow::Break(())
        })
        .unwrap_err();
        assert!(matches!(cause, LayerError::Cancelled));
        assert_eq!(calls, 1);
    }
}
