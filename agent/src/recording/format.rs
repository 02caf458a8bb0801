//! The file: a header of fixed size, then frames, the last of which says that it is the last.
//!
//! Numbers are little-endian. Each frame is compressed by itself and carries a checksum of all it says, its place in the
//! file included, so that damage and cuts are told from an end, and everything before them can be used.

use agent_common::RECORD_VERSION;

/// Changes with the form of anything that is written; `the_form_is_the_one_of_this_version` tells when it has to.
pub const VERSION: u32 = 1;
/// The high bit and the line ends show what a transfer as text has done to the file.
pub const MAGIC: [u8; 12] = *b"\x89PURSER-R\r\n\n";
/// Bytes of the header.
pub const HEADER: usize = 40;
/// Bytes before the content of a frame.
pub const FRAME_HEADER: usize = 16;
/// The largest content of a frame, plain and as stored: the largest record with what belongs to it is far below.
pub const MAX_FRAME: usize = 16 << 20;
/// The same, compressed: what cannot be compressed grows a little.
pub const MAX_STORED: usize = MAX_FRAME + MAX_FRAME / 64;
/// A frame is full from here on.
pub const FULL_FRAME: usize = 256 << 10;
/// The most that a reader has to remember of one input's answers, and twice that of all earlier ones, by [`weight`].
pub const MAX_KEPT: usize = 128 << 20;

/// Bytes that say which version of Purser wrote the file, NUL padded.
const WRITER: usize = 16;

/// What an answer of so many bytes counts in memory.
pub const fn weight(bytes: usize) -> usize {
    bytes.saturating_add(64)
}

/// The first bytes of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// [`VERSION`]
    pub version: u32,
    /// [`RECORD_VERSION`] of the kernel's records.
    pub records: u32,
    /// The version of Purser.
    pub writer: String,
}

/// Why a file is not one that this version reads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Something else.
    #[error("this is not a recording of Purser: it does not begin as one")]
    NotARecording,
    /// Too short to have a header.
    #[error("the recording ends within its header, at byte {0}")]
    Short(usize),
    /// Damaged.
    #[error("the header of the recording is damaged: its checksum does not fit")]
    Damaged,
    /// Of another version.
    #[error(
        "it is a recording of version {found}, written by Purser {writer}; this one reads version {VERSION}: replay it with that version"
    )]
    Version {
        /// The file's.
        found: u32,
        /// Who wrote it.
        writer: String,
    },
    /// With records of another version.
    #[error(
        "its kernel records are of version {found}, written by Purser {writer}; this one reads version {RECORD_VERSION}: replay it with that version"
    )]
    Records {
        /// The file's.
        found: u32,
        /// Who wrote it.
        writer: String,
    },
}

impl Header {
    /// That of files that are written now.
    pub fn current() -> Self {
        let writer = env!("CARGO_PKG_VERSION").to_owned();
        Self { version: VERSION, records: u32::from(RECORD_VERSION), writer }
    }

    /// As it is in the file.
    pub fn bytes(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..12].copy_from_slice(&MAGIC);
        bytes[12..16].copy_from_slice(&self.version.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.records.to_le_bytes());
        let writer = &self.writer.as_bytes()[..self.writer.len().min(WRITER)];
        bytes[20..20 + writer.len()].copy_from_slice(writer);
        let sum = crc32fast::hash(&bytes[..36]);
        bytes[36..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads and checks the first bytes of a file; there may be fewer than [`HEADER`].
    ///
    /// # Errors
    /// It is not a recording, or not one for this version.
    pub fn parse(bytes: &[u8]) -> Result<Self, HeaderError> {
        if !bytes.starts_with(&MAGIC[..bytes.len().min(MAGIC.len())]) || bytes.is_empty() {
            return Err(HeaderError::NotARecording);
        }
        let Some(bytes) = bytes.first_chunk::<HEADER>() else { return Err(HeaderError::Short(bytes.len())) };
        let version = word(bytes, 12);
        let writer: String = bytes[20..36]
            .iter()
            .take_while(|byte| **byte != 0)
            .map(|byte| if byte.is_ascii_graphic() { char::from(*byte) } else { '?' })
            .collect();
        // Another version may keep its checksum elsewhere.
        if version != VERSION {
            return Err(HeaderError::Version { found: version, writer });
        }
        if word(bytes, 36) != crc32fast::hash(&bytes[..36]) {
            return Err(HeaderError::Damaged);
        }
        let records = word(bytes, 16);
        if records != u32::from(RECORD_VERSION) {
            return Err(HeaderError::Records { found: records, writer });
        }
        Ok(Self { version, records, writer })
    }
}

/// What is before the content of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Bytes that follow.
    pub stored: u32,
    /// Bytes of the content.
    pub plain: u32,
    /// 1 for the last frame, else 0.
    pub last: u32,
    /// The checksum.
    pub sum: u32,
}

impl FrameHeader {
    /// That of the frame with number `frame`.
    ///
    /// # Errors
    /// The content is too large.
    pub fn new(frame: u64, stored: &[u8], plain: usize, last: bool) -> Result<Self, std::num::TryFromIntError> {
        let mut header =
            Self { stored: u32::try_from(stored.len())?, plain: u32::try_from(plain)?, last: last.into(), sum: 0 };
        header.sum = header.sum_of(frame, stored);
        Ok(header)
    }

    /// As it is in the file.
    pub fn bytes(self) -> [u8; FRAME_HEADER] {
        let mut bytes = [0; FRAME_HEADER];
        for (place, word) in bytes.chunks_exact_mut(4).zip([self.stored, self.plain, self.last, self.sum]) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Reads it. Nothing of it is checked.
    pub fn parse(bytes: &[u8; FRAME_HEADER]) -> Self {
        Self { stored: word(bytes, 0), plain: word(bytes, 4), last: word(bytes, 8), sum: word(bytes, 12) }
    }

    /// The lengths are possible: nothing more is read or made room for otherwise.
    pub fn is_possible(self) -> bool {
        self.stored as usize <= MAX_STORED && self.plain as usize <= MAX_FRAME && self.last <= 1
    }

    /// The checksum of a frame with these lengths, this number and this content.
    pub fn sum_of(self, frame: u64, stored: &[u8]) -> u32 {
        let mut sum = crc32fast::Hasher::new();
        sum.update(&frame.to_le_bytes());
        sum.update(&self.bytes()[..12]);
        sum.update(stored);
        sum.finalize()
    }
}

/// A frame whose content is `stored` and was `plain` bytes long, as it is in the file.
///
/// # Errors
/// The content is too large.
pub fn frame(number: u64, stored: &[u8], plain: usize, last: bool) -> Result<Vec<u8>, std::num::TryFromIntError> {
    let header = FrameHeader::new(number, stored, plain, last)?;
    Ok([&header.bytes()[..], stored].concat())
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let word = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>());
    word.map_or(0, |word| u32::from_le_bytes(*word))
}
