//! Reading a recording, which is input like any other: every length is checked before room is made for it, and an error
//! says where the file is wrong and how much came before.

use std::io::{self, Read};

use super::entry::Entry;
use super::format::{FRAME_HEADER, FrameHeader, HEADER, Header, HeaderError};

/// A position in a file, for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The frame, from 0.
    pub frame: u64,
    /// Where it begins, bytes from the start of the file.
    pub offset: u64,
    /// Records of the kernel before it.
    pub records: u64,
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { frame, offset, records } = self;
        write!(f, "frame {frame} at byte {offset}, after {records} events")
    }
}

/// Why a recording cannot be read, or not on.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file is none, or not of this version.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// It cannot be read.
    #[error("cannot read the recording at {0}: {1}")]
    Io(Position, io::Error),
    /// It stops between two frames.
    #[error("the recording has no end: its recorder was killed, or the file is cut; it stops at {0}")]
    NoEnd(Position),
    /// It stops within a frame.
    #[error("the recording is cut: it stops within {0}")]
    Cut(Position),
    /// A frame is not what was written.
    #[error("the recording is damaged: the {1} of {0} does not fit")]
    Damaged(Position, &'static str),
    /// A frame is whole, but what is in it is not what this version writes.
    #[error("the recording is no work of this version: {1} in {0}")]
    Entry(Position, &'static str),
}

/// A recording that is being read.
pub struct Reader<R> {
    source: R,
    header: Header,
    content: Vec<u8>,
    stored: Vec<u8>,
    at: usize,
    /// Of the frame at hand; before the first, of that.
    position: Position,
    next_frame: u64,
    next_offset: u64,
    records: u64,
    last: bool,
    decompressor: zstd::bulk::Decompressor<'static>,
}

impl<R> std::fmt::Debug for Reader<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("header", &self.header).field("position", &self.position).finish_non_exhaustive()
    }
}

impl<R: Read> Reader<R> {
    /// Reads the header of a recording.
    ///
    /// # Errors
    /// It is none that this version reads.
    pub fn new(mut source: R) -> Result<Self, ReadError> {
        let position = Position { frame: 0, offset: HEADER as u64, records: 0 };
        let failed = |error| ReadError::Io(Position { offset: 0, ..position }, error);
        let mut bytes = [0; HEADER];
        let read = fill(&mut source, &mut bytes).map_err(failed)?;
        let header = Header::parse(&bytes[..read])?;
        Ok(Self {
            source,
            header,
            content: Vec::new(),
            stored: Vec::new(),
            at: 0,
            position,
            next_frame: 0,
            next_offset: HEADER as u64,
            records: 0,
            last: false,
            decompressor: zstd::bulk::Decompressor::new().map_err(failed)?,
        })
    }

    /// What the file says of itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Where the entry that was read last is.
    pub fn position(&self) -> Position {
        Position { records: self.records, ..self.position }
    }

    /// The next entry and its bytes; [`Entry::End`] is the last one.
    ///
    /// # Errors
    /// The file is wrong from here on.
    pub fn next_entry(&mut self) -> Result<(Entry<'_>, usize), ReadError> {
        while self.at >= self.content.len() {
            if self.last {
                return Err(ReadError::Entry(self.position(), "no end"));
            }
            self.frame()?;
        }
        let position = self.position();
        let (entry, rest) = postcard::take_from_bytes::<Entry<'_>>(self.content.get(self.at..).unwrap_or_default())
            .map_err(|_malformed| ReadError::Entry(position, "an unknown entry"))?;
        let begun = std::mem::replace(&mut self.at, self.content.len() - rest.len());
        self.records += u64::from(matches!(entry, Entry::Record(_)));
        // The end is alone in the last frame.
        if matches!(entry, Entry::End(_)) != self.last || (self.last && !rest.is_empty()) {
            return Err(ReadError::Entry(position, "an end that is none"));
        }
        Ok((entry, self.at - begun))
    }

    fn frame(&mut self) -> Result<(), ReadError> {
        let position = Position { frame: self.next_frame, offset: self.next_offset, records: self.records };
        self.position = position;
        self.content.clear();
        self.at = 0;
        let failed = |error| ReadError::Io(position, error);
        let mut bytes = [0; FRAME_HEADER];
        match fill(&mut self.source, &mut bytes).map_err(failed)? {
            0 => return Err(ReadError::NoEnd(position)),
            FRAME_HEADER => {}
            _ => return Err(ReadError::Cut(position)),
        }
        let header = FrameHeader::parse(&bytes);
        if !header.is_possible() {
            return Err(ReadError::Damaged(position, "length"));
        }
        self.stored.clear();
        let stored = u64::from(header.stored);
        // Room is made as bytes come: a length alone takes none.
        let read = self.source.by_ref().take(stored).read_to_end(&mut self.stored).map_err(failed)?;
        if read as u64 != stored {
            return Err(ReadError::Cut(position));
        }
        if header.sum_of(position.frame, &self.stored) != header.sum {
            return Err(ReadError::Damaged(position, "checksum"));
        }
        self.content = Vec::with_capacity(header.plain as usize);
        let plain = self.decompressor.decompress_to_buffer(&self.stored, &mut self.content);
        if plain.ok() != Some(header.plain as usize) || self.content.len() != header.plain as usize {
            return Err(ReadError::Damaged(position, "content"));
        }
        if self.content.is_empty() {
            return Err(ReadError::Entry(position, "no entry"));
        }
        self.next_frame += 1;
        self.next_offset += FRAME_HEADER as u64 + stored;
        self.last = header.last == 1;
        Ok(())
    }
}

/// Reads until `bytes` are full or the file ends; gives how many there are.
fn fill(source: &mut impl Read, bytes: &mut [u8]) -> io::Result<usize> {
    let mut read = 0;
    while read < bytes.len() {
        match source.read(&mut bytes[read..]) {
            Ok(0) => break,
            Ok(count) => read += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}
