//! Reads a tar stream as Go's `archive/tar` does, which containerd, CRI-O, podman and Docker unpack with: what
//! the agent lists must be what they write. Where well-known readers disagree (a link that carries data, two
//! names for one entry, sparse maps), the stream is refused: a manifest must not be smuggled past them.
//!
//! Not the `tar` crate's reader: that one reads extension headers of any length into memory and splits PAX
//! records at newlines, which file capabilities may contain.

use std::io::{self, Read};

const BLOCK: usize = 512;
/// Longest extension header, as Go's `maxSpecialFileSize`.
const MAX_EXTENSION: u64 = 1 << 20;
const CAPABILITY: &[u8] = b"SCHILY.xattr.security.capability";

/// What an entry makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryKind {
    File,
    HardLink,
    Symlink,
    Directory,
    CharDevice,
    /// Block device or FIFO.
    Special,
    /// A PAX global header: no file, but containerd removes one of its name.
    GlobalHeader,
}

/// One entry; its data is read from the [`TarReader`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) kind: EntryKind,
    pub(super) size: u64,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Major and minor number of a device.
    pub(super) device: (u64, u64),
    /// The `security.capability` attribute.
    pub(super) capability: Option<Vec<u8>>,
}

/// Why a stream cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The stream below failed, or ended inside an entry.
    #[error("reading failed: {0}")]
    Io(#[from] io::Error),
    /// A header's check sum is wrong: corrupt, or not a tar stream.
    #[error("the header's check sum is wrong")]
    Checksum,
    /// A header field is not a number of its form.
    #[error("the header's field `{0}` is malformed")]
    Field(&'static str),
    /// An extension header is malformed or too long.
    #[error("the extension header is malformed or longer than 1 MiB")]
    Extension,
    /// Readers disagree on what this means.
    #[error("refused, because tar readers disagree on {0}")]
    Disputed(&'static str),
    /// A sparse file, or an unknown type.
    #[error("unsupported entry type {0:?}")]
    Unsupported(char),
}

/// A tar stream.
#[derive(Debug)]
pub(super) struct TarReader<R> {
    inner: R,
    /// Data of the current entry not read yet, and the padding after it.
    remaining: u64,
    padding: u64,
}

impl<R: Read> TarReader<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, remaining: 0, padding: 0 }
    }

    pub(super) fn into_inner(self) -> R {
        self.inner
    }

    /// The next entry; `None` at the end of the archive.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, TarError> {
        self.skip(self.remaining + self.padding)?;
        (self.remaining, self.padding) = (0, 0);
        let mut extensions = Extensions::default();
        loop {
            let Some(header) = self.header()? else {
                return if extensions.any() { Err(TarError::Extension) } else { Ok(None) };
            };
            let size = header.number(124..136, "size")?;
            match header.0[156] {
                b'x' => extensions.pax(&self.extension(size)?)?,
                b'L' => set_once(&mut extensions.long_path, until_nul(&self.extension(size)?).to_vec())?,
                b'K' => set_once(&mut extensions.long_link, until_nul(&self.extension(size)?).to_vec())?,
                b'g' => {
                    self.extension(size)?;
                    if extensions.any() {
                        return Err(TarError::Disputed("a global header between an extension header and its entry"));
                    }
                    return Ok(Some(Entry { kind: EntryKind::GlobalHeader, size: 0, ..header.entry()? }));
                }
                _ => {
                    let entry = extensions.apply(header.entry()?)?;
                    self.remaining = entry.size;
                    self.padding = padding(entry.size);
                    return Ok(Some(entry));
                }
            }
        }
    }

    fn header(&mut self) -> Result<Option<HeaderBlock>, TarError> {
        let mut block = [0; BLOCK];
        if !read_block(&mut self.inner, &mut block)? {
            return Ok(None);
        }
        if block == [0; BLOCK] {
            // The end is two zero blocks, or one and the end of the stream.
            if read_block(&mut self.inner, &mut block)? && block != [0; BLOCK] {
                return Err(TarError::Disputed("a zero block amid entries"));
            }
            return Ok(None);
        }
        let header = HeaderBlock(block);
        let sum =
            header.0.iter().enumerate().fold(0_u64, |sum, (index, &byte)| {
                sum + u64::from(if (148..156).contains(&index) { b' ' } else { byte })
            });
        if header.number(148..156, "check sum").ok() != Some(sum) {
            return Err(TarError::Checksum);
        }
        Ok(Some(header))
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        if size > MAX_EXTENSION {
            return Err(TarError::Extension);
        }
        let mut data = vec![0; size as usize];
        self.inner.read_exact(&mut data)?;
        self.skip(padding(size))?;
        Ok(data)
    }

    fn skip(&mut self, count: u64) -> Result<(), TarError> {
        if io::copy(&mut self.inner.by_ref().take(count), &mut io::sink())? != count {
            return Err(TarError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(())
    }
}

/// Reads the current entry's data.
impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(buffer.len());
        if wanted == 0 {
            return Ok(0);
        }
        let length = self.inner.read(&mut buffer[..wanted])?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.remaining -= length as u64;
        Ok(length)
    }
}

struct HeaderBlock([u8; BLOCK]);

impl HeaderBlock {
    fn text(&self, range: std::ops::Range<usize>) -> &[u8] {
        until_nul(&self.0[range])
    }

    fn number(&self, range: std::ops::Range<usize>, field: &'static str) -> Result<u64, TarError> {
        number(&self.0[range]).ok_or(TarError::Field(field))
    }

    fn entry(&self) -> Result<Entry, TarError> {
        let mut path = self.text(0..100).to_vec();
        match &self.0[257..265] {
            magic if magic.starts_with(b"ustar\0") => {
                // The star variant has a shorter prefix before its times.
                let end = if &self.0[508..512] == b"tar\0" { 476 } else { 500 };
                let prefix = self.text(345..end);
                if !prefix.is_empty() {
                    path = [prefix, b"/", &path].concat();
                }
            }
            // An old writer's mistake puts a prefix where GNU has times; Go then takes it for one.
            b"ustar  \0" if number(&self.0[345..357]).is_none() || number(&self.0[357..369]).is_none() => {
                return Err(TarError::Disputed("a name's prefix in a GNU header"));
            }
            _ => {}
        }
        let kind = match self.0[156] {
            0 if path.ends_with(b"/") => EntryKind::Directory,
            0 | b'0' => EntryKind::File,
            b'1' => EntryKind::HardLink,
            b'2' => EntryKind::Symlink,
            b'3' => EntryKind::CharDevice,
            b'4' | b'6' => EntryKind::Special,
            b'5' => EntryKind::Directory,
            b'g' => EntryKind::GlobalHeader,
            other => return Err(TarError::Unsupported(char::from(other))),
        };
        let device = match kind {
            EntryKind::CharDevice => (self.number(329..337, "devmajor")?, self.number(337..345, "devminor")?),
            _ => (0, 0),
        };
        Ok(Entry {
            path,
            link: self.text(157..257).to_vec(),
            kind,
            size: self.number(124..136, "size")?,
            mode: self.number(100..108, "mode")? as u32,
            uid: id(self.number(108..116, "uid")?, "uid")?,
            gid: id(self.number(116..124, "gid")?, "gid")?,
            device,
            capability: None,
        })
    }
}

/// What the headers before an entry say of it.
#[derive(Default)]
struct Extensions {
    long_path: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    pax: bool,
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    capability: Option<Vec<u8>>,
}

impl Extensions {
    fn any(&self) -> bool {
        self.pax || self.long_path.is_some() || self.long_link.is_some()
    }

    /// Records are `LENGTH KEY=VALUE\n`; the value may hold any byte.
    fn pax(&mut self, mut data: &[u8]) -> Result<(), TarError> {
        if self.pax {
            return Err(TarError::Disputed("two PAX headers for one entry"));
        }
        self.pax = true;
        while !data.is_empty() {
            let space = data.iter().position(|&byte| byte == b' ').ok_or(TarError::Extension)?;
            let length = decimal(&data[..space]).and_then(|length| usize::try_from(length).ok());
            let length = length.filter(|&length| length > space + 1 && length <= data.len());
            let (record, rest) = data.split_at(length.ok_or(TarError::Extension)?);
            data = rest;
            let record = record[space + 1..].strip_suffix(b"\n").ok_or(TarError::Extension)?;
            let equals = record.iter().position(|&byte| byte == b'=').ok_or(TarError::Extension)?;
            self.record(&record[..equals], &record[equals + 1..])?;
        }
        Ok(())
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), TarError> {
        if key.is_empty() || key.contains(&0) {
            return Err(TarError::Extension);
        }
        if key.starts_with(b"GNU.sparse.") {
            return Err(TarError::Unsupported('S'));
        }
        // An empty value keeps what the header says.
        if value.is_empty() {
            return Ok(());
        }
        let text = || if value.contains(&0) { Err(TarError::Extension) } else { Ok(value.to_vec()) };
        let id = |field| id(decimal(value).ok_or(TarError::Field(field))?, field);
        match key {
            b"path" => self.path = Some(text()?),
            b"linkpath" => self.link = Some(text()?),
            b"size" => self.size = Some(decimal(value).ok_or(TarError::Field("size"))?),
            b"uid" => self.uid = Some(id("uid")?),
            b"gid" => self.gid = Some(id("gid")?),
            CAPABILITY => self.capability = Some(value.to_vec()),
            _ => {}
        }
        Ok(())
    }

    fn apply(self, mut entry: Entry) -> Result<Entry, TarError> {
        if (self.long_path.is_some() && self.path.is_some()) || (self.long_link.is_some() && self.link.is_some()) {
            return Err(TarError::Disputed("a GNU and a PAX name for one entry"));
        }
        if let Some(path) = self.long_path.or(self.path) {
            // Old archives mark a directory by its name alone.
            if entry.kind == EntryKind::File && path.ends_with(b"/") != entry.path.ends_with(b"/") {
                return Err(TarError::Disputed("a file whose long name ends in a slash"));
            }
            entry.path = path;
        }
        if let Some(link) = self.long_link.or(self.link) {
            entry.link = link;
        }
        entry.size = self.size.unwrap_or(entry.size);
        entry.uid = self.uid.unwrap_or(entry.uid);
        entry.gid = self.gid.unwrap_or(entry.gid);
        entry.capability = self.capability;
        if entry.kind != EntryKind::File && entry.size != 0 {
            return Err(TarError::Disputed("an entry with data that is not a regular file"));
        }
        if i64::try_from(entry.size).is_err() {
            return Err(TarError::Field("size"));
        }
        Ok(entry)
    }
}

fn set_once(name: &mut Option<Vec<u8>>, value: Vec<u8>) -> Result<(), TarError> {
    match name.replace(value) {
        None => Ok(()),
        Some(_) => Err(TarError::Disputed("two long names for one entry")),
    }
}

/// Fills `block`; `false` at the end of the stream.
fn read_block(reader: &mut impl Read, block: &mut [u8; BLOCK]) -> io::Result<bool> {
    let mut filled = 0;
    while filled < BLOCK {
        match reader.read(&mut block[filled..]) {
            Ok(0) if filled == 0 => return Ok(false),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// Octal text, or GNU's base 256 for what does not fit.
fn number(field: &[u8]) -> Option<u64> {
    match field {
        [first, rest @ ..] if first & 0x80 != 0 => {
            // Bit 6 is the sign.
            let start = (first & 0x40 == 0).then_some(u64::from(first & 0x3F))?;
            rest.iter().try_fold(start, |value, &byte| Some(value.checked_mul(256)? | u64::from(byte)))
        }
        _ => {
            let padding = |byte: &u8| matches!(byte, b' ' | 0);
            let start = field.iter().position(|byte| !padding(byte)).unwrap_or(field.len());
            let end = field.iter().rposition(|byte| !padding(byte)).map_or(start, |last| last + 1);
            until_nul(&field[start..end]).iter().try_fold(0_u64, |value, &byte| match byte {
                b'0'..=b'7' => value.checked_mul(8)?.checked_add(u64::from(byte - b'0')),
                _ => None,
            })
        }
    }
}

fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn id(number: u64, field: &'static str) -> Result<u32, TarError> {
    u32::try_from(number).map_err(|_error| TarError::Field(field))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(kind: u8, path: &str, size: u64) -> tar::Header {
        let mut header = tar::Header::new_ustar();
        header.set_path(path).unwrap();
        header.as_mut_bytes()[156] = kind;
        header.set_mode(0o755);
        header.set_uid(1);
        header.set_gid(2);
        header.set_size(size);
        header.set_cksum();
        header
    }

    fn block(header: &tar::Header, data: &[u8]) -> Vec<u8> {
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        bytes
    }

    fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
        let mut data = Vec::new();
        for (key, value) in records {
            let body = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
            let mut length = body.len() + 1;
            while length.to_string().len() + body.len() != length {
                length = length.to_string().len() + body.len();
            }
            data.extend_from_slice(length.to_string().as_bytes());
            data.extend_from_slice(&body);
        }
        block(&header(b'x', "pax", data.len() as u64), &data)
    }

    fn read(stream: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, TarError> {
        let mut reader = TarReader::new(stream);
        let mut entries = Vec::new();
        while let Some(entry) = reader.next()? {
            let mut data = Vec::new();
            reader.read_to_end(&mut data)?;
            entries.push((entry, data));
        }
        Ok(entries)
    }

    #[test]
    fn reads_what_writers_write() {
        let long = format!("{}/{}", "d".repeat(180), "n".repeat(200));
        let mut builder = tar::Builder::new(Vec::new());
        let mut file = header(b'0', "x", 3);
        builder.append_data(&mut file, &long, &b"abc"[..]).unwrap();
        let mut link = header(b'2', "x", 0);
        builder.append_link(&mut link, "link", format!("/{long}")).unwrap();
        let mut stream = builder.into_inner().unwrap();
        stream.truncate(stream.len() - 2 * BLOCK);
        // A capability's value may hold newlines, equals signs and NULs.
        let capability = b"\x01\0\0\x02\n1 a=b\n\0\0\0\0\0\0\0\0\0\0";
        stream.extend(pax(&[
            ("path", b"caf\xe9"),
            ("size", b"2"),
            ("uid", b"70000"),
            ("SCHILY.xattr.security.capability", capability),
        ]));
        stream.extend(block(&header(b'0', "short", 2), b"hi"));
        stream.extend(block(&header(0, "dir/", 0), b""));
        stream.extend([0; 2 * BLOCK]);
        stream.extend(b"what follows the end is not read");

        let entries = read(&stream).unwrap();
        assert_eq!(entries.len(), 4);
        assert_eq!((entries[0].0.path.as_slice(), entries[0].1.as_slice()), (long.as_bytes(), &b"abc"[..]));
        assert_eq!((entries[1].0.kind, entries[1].0.link.len()), (EntryKind::Symlink, long.len() + 1));
        let odd = &entries[2].0;
        assert_eq!((odd.path.as_slice(), odd.uid, odd.gid, odd.mode), (&b"caf\xe9"[..], 70_000, 2, 0o755));
        assert_eq!(odd.capability.as_deref(), Some(&capability[..]));
        assert_eq!(entries[3].0.kind, EntryKind::Directory);
    }

    #[test]
    fn refuses_what_readers_disagree_on() {
        let file = block(&header(b'0', "f", 1), b"x");
        let long_name = |name: &[u8]| {
            let mut header = header(b'L', "long", name.len() as u64);
            header.set_cksum();
            block(&header, name)
        };
        let mut zero_then_entry = vec![0; BLOCK];
        zero_then_entry.extend(&file);
        let mut checksum = file.clone();
        checksum[0] ^= 1;
        let huge = header(b'x', "pax", 1 << 30).as_bytes().to_vec();
        let mut negative = header(b'0', "f", 0);
        negative.as_mut_bytes()[124..136].copy_from_slice(&[0xFF; 12]);
        negative.set_cksum();
        for (what, stream) in [
            ("link with data", block(&header(b'1', "l", 5), b"12345")),
            ("directory with data", block(&header(b'5', "d", 5), b"12345")),
            ("link with PAX data", [pax(&[("size", b"5")]), block(&header(b'2', "l", 0), b"12345")].concat()),
            ("two names", [long_name(b"a\0"), pax(&[("path", b"b")]), file.clone()].concat()),
            ("two PAX headers", [pax(&[("path", b"a")]), pax(&[("path", b"b")]), file.clone()].concat()),
            ("two long names", [long_name(b"a\0"), long_name(b"b\0"), file.clone()].concat()),
            ("sparse", [pax(&[("GNU.sparse.major", b"1")]), file.clone()].concat()),
            ("old sparse", block(&header(b'S', "s", 0), b"")),
            ("NUL in a name", [pax(&[("path", b"a\0b")]), file.clone()].concat()),
            ("zero block", zero_then_entry),
            ("check sum", checksum),
            ("huge extension", huge),
            ("negative size", negative.as_bytes().to_vec()),
            ("truncated", file[..=BLOCK].to_vec()),
            ("truncated header", file[..100].to_vec()),
            ("dangling extension", pax(&[("path", b"a")])),
            ("record too long", block(&header(b'x', "pax", 9), b"99 path=a")),
            ("record without end", block(&header(b'x', "pax", 10), b"10 path=ab")),
        ] {
            assert!(read(&stream).is_err(), "{what}");
        }
        assert_eq!(read(&file).unwrap().len(), 1, "a stream may end without zero blocks");
    }

    #[test]
    fn numbers() {
        for (field, value) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0", Some(0)),
            (b"64x\0", None),
            (b"8\0", None),
            (b"\x80\0\0\x01\x02", Some(0x102)),
            (b"\xff\xff\xff\xff", None),
            (b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
        ] {
            assert_eq!(number(field), value, "{field:?}");
        }
    }
}
