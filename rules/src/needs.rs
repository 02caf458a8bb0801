//! What the loaded rules need from a sensor, so that events no rule can match never leave the kernel.
//!
//! Only ever too much, never too little: where a condition cannot be told, everything is needed.

use crate::catalogue::FieldId;
use crate::event::EventSet;

/// What the enabled rules need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Events that some rule can match.
    pub events: EventSet,
    /// Names of the generic system calls that some rule can match; none means all of them (if `events` has the
    /// generic event at all).
    pub generic_calls: Option<Vec<&'static str>>,
    /// Fields that conditions and outputs read, each once, ordered.
    pub fields: Vec<FieldId>,
    /// Opens (`open`, `openat`, `openat2`, ...) that some rule can match.
    pub opens: Opens,
    /// Per event code number: whether only events of containers can match.
    pub container_only: EventSet,
    /// Events of which some rule can match a failed call.
    pub failed: EventSet,
}

/// Which opens are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opens {
    /// Opens for reading only.
    pub read: bool,
    /// Opens for writing.
    pub write: bool,
}

impl Needs {
    /// Whether any rule reads a field.
    pub fn reads(&self, field: FieldId) -> bool {
        self.fields.binary_search(&field).is_ok()
    }

    /// Whether any rule reads the environment of a process.
    pub fn environment(&self) -> bool {
        self.reads(FieldId::PROC_ENV) || self.reads(FieldId::PROC_AENV)
    }

    /// Whether any rule waits for a manifest's verdict or reads a digest.
    pub fn digests(&self) -> bool {
        self.fields.iter().any(|field| FieldId::MANIFEST_VERDICT <= *field && *field <= FieldId::LIB_VERDICT)
    }
}
