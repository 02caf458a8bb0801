//! The expected manifest of an image, and the verdict on a file that runs: is this program one of
//! the image's own files, with the same bytes at the same path?
//!
//! `layer` and `merge` turn image layers into a [`Manifest`]; `hash` finds and hashes the file of an
//! event; [`judge()`] compares the two and nothing else; [`VerdictService`] runs all of it away from the
//! event path. Nothing here resolves image references or talks to a runtime: an `Image` comes in closed.

pub mod capabilities;
pub mod counters;
pub mod digest;
mod digest_cache;
pub mod hash;
pub mod judge;
pub mod model;
mod open;
pub mod service;

pub use digest::Digest;
pub use hash::ExecFile;
pub use judge::{Judgement, Reason, Verdict, judge};
pub use model::Manifest;
pub use service::{Config, ManifestSource, VerdictService};
