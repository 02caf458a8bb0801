//! Alerts appended to a file, readable by its owner alone. With `keep_alive` it stays open until it is told to reopen;
//! otherwise it is opened for each batch, so that a rotation needs no signal.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Failure, Sink, line::Lines};
use crate::alert::{Alert, LiveFormat};

/// An alert file.
#[derive(Debug)]
pub struct File {
    path: PathBuf,
    keep: bool,
    open: Option<fs::File>,
    /// Device and inode of the file written last.
    target: (u64, u64),
    lines: Lines,
}

impl File {
    /// Opens it at once, so that a wrong path is an error of the start.
    pub fn open(path: &Path, keep: bool, format: impl Into<LiveFormat>) -> io::Result<Self> {
        let file = append(path)?;
        let target = identity(&file)?;
        Ok(Self { path: path.to_owned(), keep, open: Some(file), target, lines: Lines::new(format.into()) })
    }

    /// The open file, opened if need be.
    fn take(&mut self) -> io::Result<fs::File> {
        if let Some(file) = self.open.take() {
            return Ok(file);
        }
        let file = append(&self.path)?;
        let target = identity(&file)?;
        if target != self.target {
            self.lines.forget_torn();
            self.target = target;
        }
        Ok(file)
    }
}

impl Sink for File {
    fn name(&self) -> &'static str {
        "file"
    }

    fn deliver(&mut self, alerts: &[Arc<Alert>]) -> Result<(), Failure> {
        let mut file = self.take().map_err(|error| Failure { delivered: 0, error, permanent: false })?;
        let result = self.lines.write(alerts, |bytes| file.write(bytes));
        // A line that was written in part is finished in the same file first.
        if self.keep || self.lines.is_torn() {
            self.open = Some(file);
        }
        result
    }

    fn reopen(&mut self) {
        self.open = None;
    }
}

fn append(path: &Path) -> io::Result<fs::File> {
    fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

fn identity(file: &fs::File) -> io::Result<(u64, u64)> {
    let metadata = file.metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}
