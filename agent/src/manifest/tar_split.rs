//! Rebuilds the tar stream of a layer that containers/storage (podman, CRI-O) has unpacked, from the unpacked
//! files and the `tar-split` record of everything between them (github.com/vbatts/tar-split, JSON lines:
//! type 1 = a file's content by name, type 2 = raw bytes). The stream's diff id proves the result.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Cursor, Read},
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use flate2::read::GzDecoder;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use serde::Deserialize;

/// Longest line: a segment holds the headers between two files.
const MAX_LINE: u64 = 64 << 20;

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "type")]
    kind: u8,
    #[serde(default)]
    name: String,
    /// The name where it is not UTF-8.
    #[serde(default)]
    name_raw: Option<String>,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    payload: Option<String>,
}

/// The rebuilt stream.
pub(super) struct TarSplit {
    lines: BufReader<GzDecoder<File>>,
    line: Vec<u8>,
    directory: OwnedFd,
    current: Current,
}

enum Current {
    Segment(Cursor<Vec<u8>>),
    File { file: File, remaining: u64 },
}

impl TarSplit {
    /// Opens the record `split` of the layer unpacked in `directory`.
    pub(super) fn open(split: &Path, directory: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            lines: BufReader::new(GzDecoder::new(File::open(split)?)),
            line: Vec::new(),
            directory: rustix::fs::open(directory, flags, Mode::empty())?,
            current: Current::Segment(Cursor::default()),
        })
    }

    /// Goes to the next piece; `false` at the end.
    fn advance(&mut self) -> io::Result<bool> {
        self.line.clear();
        self.lines.by_ref().take(MAX_LINE).read_until(b'\n', &mut self.line)?;
        if self.line.is_empty() {
            return Ok(false);
        }
        let line: Line = serde_json::from_slice(&self.line)?;
        let decode = |text: &str| STANDARD.decode(text).map_err(|error| invalid(&error.to_string()));
        self.current = match line.kind {
            1 if line.size > 0 => {
                let name = match &line.name_raw {
                    Some(raw) => decode(raw)?,
                    None => line.name.into_bytes(),
                };
                let file = self.open_file(&name).map_err(|error| {
                    io::Error::new(error.kind(), format!("unpacked file '{}': {error}", name.escape_ascii()))
                })?;
                if file.metadata()?.len() != line.size {
                    return Err(invalid(&format!("unpacked file '{}' has another size", name.escape_ascii())));
                }
                Current::File { file, remaining: line.size }
            }
            1 => Current::Segment(Cursor::default()),
            2 => Current::Segment(Cursor::new(decode(line.payload.as_deref().unwrap_or_default())?)),
            kind => return Err(invalid(&format!("unknown tar-split record type {kind}"))),
        };
        Ok(true)
    }

    fn open_file(&self, name: &[u8]) -> io::Result<File> {
        let start = name.iter().position(|&byte| byte != b'/').unwrap_or(0);
        // Links on the way are the layer's own, as when it was unpacked; they cannot lead out of it.
        let fd = rustix::fs::openat2(
            self.directory.as_fd(),
            &name[start..],
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV,
        )?;
        let file = File::from(fd);
        if file.metadata()?.is_file() { Ok(file) } else { Err(invalid("not a regular file")) }
    }
}

impl Read for TarSplit {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let length = match &mut self.current {
                Current::Segment(bytes) => bytes.read(buffer)?,
                Current::File { file, remaining } => {
                    let length = file.take(*remaining).read(buffer)?;
                    if length == 0 && *remaining > 0 && !buffer.is_empty() {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    *remaining -= length as u64;
                    length
                }
            };
            if length > 0 || buffer.is_empty() || !self.advance()? {
                return Ok(length);
            }
        }
    }
}

fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}
