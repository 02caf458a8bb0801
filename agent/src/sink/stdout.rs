//! Alerts on standard output: alerts alone, each batch one write, nothing buffered beyond it.

use std::{
    fs,
    io::{self, Write as _},
    os::fd::AsFd as _,
    sync::Arc,
};

use super::{Failure, Sink, line::Lines};
use crate::alert::{Alert, LiveFormat};

/// Standard output. When its reader is gone the alerts are lost and counted, and the agent goes on for the others.
#[derive(Debug)]
pub struct Stdout {
    // A descriptor of one's own: the std handle buffers, and would hide how much of a line was written.
    output: fs::File,
    lines: Lines,
}

impl Stdout {
    /// Takes standard output.
    pub fn open(format: impl Into<LiveFormat>) -> io::Result<Self> {
        let output = io::stdout().as_fd().try_clone_to_owned()?;
        Ok(Self { output: output.into(), lines: Lines::new(format.into()) })
    }
}

impl Sink for Stdout {
    fn name(&self) -> &'static str {
        "stdout"
    }

    fn deliver(&mut self, alerts: &[Arc<Alert>]) -> Result<(), Failure> {
        let output = &mut self.output;
        self.lines.write(alerts, |bytes| output.write(bytes)).map_err(|mut failure| {
            failure.permanent = failure.error.kind() == io::ErrorKind::BrokenPipe;
            failure
        })
    }
}
