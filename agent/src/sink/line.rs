//! Alerts as lines onto a file descriptor. A line that was written in part (full disk, signal) is continued at the
//! byte where it stopped, so that a reader never sees a torn or doubled line.

use std::{io, sync::Arc};

use uuid::Uuid;

use super::Failure;
use crate::alert::{Alert, Format, LiveFormat};

#[derive(Debug)]
pub(super) struct Lines {
    live: LiveFormat,
    /// What the lines at hand are written in.
    format: Arc<Format>,
    buffer: Vec<u8>,
    /// Where each line of the buffer ends.
    ends: Vec<usize>,
    /// An alert of which so many bytes are written.
    torn: Option<(Uuid, usize)>,
}

/// A buffer larger than this is not kept for the next batch.
const KEPT_BYTES: usize = 1 << 20;

impl Lines {
    pub(super) fn new(live: LiveFormat) -> Self {
        Self { format: live.get(), live, buffer: Vec::new(), ends: Vec::new(), torn: None }
    }

    /// The target is another one: what was written of a line is not there.
    pub(super) fn forget_torn(&mut self) {
        self.torn = None;
    }

    /// Whether a line is written in part.
    pub(super) fn is_torn(&self) -> bool {
        self.torn.is_some()
    }

    /// Writes the alerts; `write` is `write(2)`.
    pub(super) fn write(
        &mut self,
        alerts: &[Arc<Alert>],
        mut write: impl FnMut(&[u8]) -> io::Result<usize>,
    ) -> Result<(), Failure> {
        // The rest of a line is written in the format that it was begun in.
        if self.torn.is_none() {
            self.format = self.live.get();
        }
        self.buffer.clear();
        self.buffer.shrink_to(KEPT_BYTES);
        self.ends.clear();
        for alert in alerts {
            self.format.write(alert, &mut self.buffer);
            self.ends.push(self.buffer.len());
        }
        let mut written = match (self.torn.take(), alerts.first()) {
            (Some((id, written)), Some(first)) if first.id == id => written,
            _ => 0,
        };
        while written < self.buffer.len() {
            let error = match write(&self.buffer[written..]) {
                Ok(0) => io::ErrorKind::WriteZero.into(),
                Ok(count) => {
                    written += count;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => error,
            };
            let delivered = self.ends.partition_point(|&end| end <= written);
            let line_start = delivered.checked_sub(1).map_or(0, |last| self.ends[last]);
            if written > line_start {
                self.torn = alerts.get(delivered).map(|alert| (alert.id, written - line_start));
            }
            return Err(Failure { delivered, error, permanent: false });
        }
        Ok(())
    }
}
