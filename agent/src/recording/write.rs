//! Writing a recording: entries gather in a frame, and a thread compresses and stores the frame that is full.
//!
//! Nobody waits for a disk while there is room in the queue; where there is none the worker waits, and what the kernel
//! then cannot report is counted there as ever.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::Serialize as _;

use super::entry::{Ended, Entry};
use super::format::{self, FRAME_HEADER, FULL_FRAME, HEADER, Header, MAX_FRAME};

/// Frames that may wait for the disk.
const QUEUE: usize = 16;
/// A frame is stored when it is so old: what a recorder that is killed loses.
const AGE: Duration = Duration::from_secs(1);
/// Fast enough for a processor core to keep up with the ring.
const LEVEL: i32 = 1;
/// What is kept free for the last frame.
const RESERVE: u64 = 256;

/// How a recording is bounded and made.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The largest file, bytes.
    pub max_bytes: u64,
    /// A file that is there may be replaced.
    pub force: bool,
}

/// Why a recording cannot be made, or does not go on.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// There is something already.
    #[error("{} is there already; name another file, or replace it with --force", .0.display())]
    Exists(PathBuf),
    /// It is no regular file: a link, a device.
    #[error("{} is not a regular file: a recording is made as a new file and never through a link", .0.display())]
    NotRegular(PathBuf),
    /// Making or writing it failed.
    #[error("cannot write the recording {}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An entry does not fit into a frame.
    #[error("cannot write the recording: one entry has more than {} MiB", MAX_FRAME >> 20)]
    TooLarge,
    /// Nobody ended it: so the file has no end, and says so to a reader.
    #[error("the recording was given up")]
    Abandoned,
    /// The thread is gone.
    #[error("the thread that writes the recording has failed: this is a bug")]
    Thread,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Records of the kernel that the file holds.
    pub records: u64,
    /// Its size.
    pub bytes: u64,
    /// Why it ends.
    pub ended: Ended,
}

/// A recording that is being written.
#[derive(Debug)]
pub struct Writer {
    frame: Vec<u8>,
    /// Records in the frame.
    records: u64,
    since: Instant,
    /// Frames with the number of their records, and nothing as the end.
    frames: SyncSender<Option<(Vec<u8>, u64)>>,
    thread: Option<JoinHandle<Result<Written, WriteError>>>,
    ended: Arc<AtomicBool>,
    failure: Option<WriteError>,
}

impl Writer {
    /// Makes the file at `path`, readable by its owner alone, and the thread that fills it. `wake` is called when the
    /// recording ends by itself.
    ///
    /// # Errors
    /// The file is there, or cannot be made.
    pub fn create(path: &Path, limits: Limits, wake: Box<dyn Fn() + Send>) -> Result<Self, WriteError> {
        let file = create(path, limits.force)?;
        let ended = Arc::new(AtomicBool::new(false));
        let (frames, queue) = mpsc::sync_channel::<Option<(Vec<u8>, u64)>>(QUEUE);
        let mut store = Store {
            file,
            path: path.to_owned(),
            max_bytes: limits.max_bytes,
            bytes: 0,
            frame: 0,
            records: 0,
            compressor: zstd::bulk::Compressor::new(LEVEL)
                .map_err(|source| WriteError::Io { path: path.to_owned(), source })?,
        };
        store.write(&Header::current().bytes())?;
        let flag = Arc::clone(&ended);
        let thread = thread::Builder::new().name("recording".to_owned()).spawn(move || {
            let result = (|| {
                while let Some((plain, records)) = queue.recv().map_err(|_gone| WriteError::Abandoned)? {
                    if !store.store(&plain, records, false)? {
                        return store.end(Ended::Full);
                    }
                }
                store.end(Ended::Asked)
            })();
            flag.store(true, Ordering::Release);
            wake();
            result
        });
        let thread = thread.map_err(|source| WriteError::Io { path: path.to_owned(), source })?;
        Ok(Self {
            frame: Vec::with_capacity(FULL_FRAME),
            records: 0,
            since: Instant::now(),
            frames,
            thread: Some(thread),
            ended,
            failure: None,
        })
    }

    /// Adds an entry; gives its bytes. One that does not fit ends the recording.
    pub fn write(&mut self, entry: &Entry<'_>) -> usize {
        if self.has_ended() {
            return 0;
        }
        if !matches!(entry, Entry::Answer(_)) && self.frame.len() >= FULL_FRAME {
            self.flush();
        }
        let before = self.frame.len();
        // An error leaves what was written before.
        let mut serializer = postcard::Serializer { output: Appended(&mut self.frame) };
        let written = entry.serialize(&mut serializer);
        if written.is_err() || self.frame.len() - before > MAX_FRAME {
            self.frame.truncate(before);
            self.fail(WriteError::TooLarge);
            return 0;
        }
        let bytes = self.frame.len() - before;
        if self.frame.len() > MAX_FRAME {
            let entry = self.frame.split_off(before);
            self.flush();
            self.frame = entry;
        }
        self.records += u64::from(matches!(entry, Entry::Record(_)));
        bytes
    }

    /// Has the frame stored if it is old; call it between two inputs.
    pub fn age(&mut self, now: Instant) {
        if now.saturating_duration_since(self.since) >= AGE {
            self.flush();
            self.since = now;
        }
    }

    /// It has ended by itself: at its largest size, or by a failure.
    pub fn has_ended(&self) -> bool {
        self.failure.is_some() || self.ended.load(Ordering::Acquire)
    }

    /// Ends the recording and waits until all of it is stored.
    ///
    /// # Errors
    /// It could not be written to its end: what was stored before is usable.
    pub fn finish(mut self) -> Result<Written, WriteError> {
        self.flush();
        let _ended = self.frames.send(None);
        let result = match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) | None => Err(WriteError::Thread),
        };
        match self.failure.take() {
            Some(failure) => Err(failure),
            None => result,
        }
    }

    fn flush(&mut self) {
        if self.frame.is_empty() {
            return;
        }
        let frame = std::mem::replace(&mut self.frame, Vec::with_capacity(FULL_FRAME));
        let records = std::mem::take(&mut self.records);
        // A thread that has ended says why at the end.
        let _ended = self.frames.send(Some((frame, records)));
    }

    /// The recording cannot go on.
    pub(super) fn fail(&mut self, failure: WriteError) {
        tracing::error!("{failure}");
        self.failure.get_or_insert(failure);
    }
}

/// Appends what is serialised.
struct Appended<'a>(&'a mut Vec<u8>);

impl postcard::ser_flavors::Flavor for Appended<'_> {
    type Output = ();

    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(data);
        Ok(())
    }

    fn try_push(&mut self, data: u8) -> postcard::Result<()> {
        self.0.push(data);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// The thread's side.
struct Store {
    file: File,
    path: PathBuf,
    max_bytes: u64,
    bytes: u64,
    frame: u64,
    records: u64,
    compressor: zstd::bulk::Compressor<'static>,
}

impl Store {
    /// Stores a frame; `false` where there is no room left for it.
    fn store(&mut self, plain: &[u8], records: u64, last: bool) -> Result<bool, WriteError> {
        let stored = self.compressor.compress(plain).map_err(|source| self.failed(source))?;
        let size = (FRAME_HEADER + stored.len()) as u64;
        if !last && self.bytes + size + RESERVE > self.max_bytes {
            return Ok(false);
        }
        let frame = format::frame(self.frame, &stored, plain.len(), last).map_err(|_too_large| WriteError::TooLarge)?;
        self.write(&frame)?;
        self.frame += 1;
        self.records += records;
        Ok(true)
    }

    fn end(&mut self, ended: Ended) -> Result<Written, WriteError> {
        let end = postcard::to_allocvec(&Entry::End(ended)).map_err(|_too_large| WriteError::TooLarge)?;
        self.store(&end, 0, true)?;
        self.file.sync_all().map_err(|source| self.failed(source))?;
        Ok(Written { records: self.records, bytes: self.bytes, ended })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.file.write_all(bytes).map_err(|source| self.failed(source))?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    fn failed(&self, source: io::Error) -> WriteError {
        WriteError::Io { path: self.path.clone(), source }
    }
}

/// The smallest limit that leaves room for anything.
pub const MIN_BYTES: u64 = HEADER as u64 + FRAME_HEADER as u64 + RESERVE;

/// A new file; one that is there is never written into, as others may have it open or own it.
fn create(path: &Path, force: bool) -> Result<File, WriteError> {
    let failed = |source| WriteError::Io { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => return Err(WriteError::NotRegular(path.to_owned())),
        Ok(_) if force => fs::remove_file(path).map_err(failed)?,
        Ok(_) => return Err(WriteError::Exists(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    // `O_EXCL` follows no link, whatever was put there meanwhile.
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    file.set_permissions(fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(file)
}
