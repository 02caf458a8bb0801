//! The expected manifest of an image, and the verdict on a file that runs: is this program one of
//! the image's own files, with the same bytes at the same path?
//!
//! [`build()`] turns image layers into a [`Manifest`] (`tar_stream` -> `layer` -> `tree`); `hash` finds and hashes
//! the file of an event; [`judge()`] compares the two and nothing else; [`VerdictService`] runs all of it away from
//! the event path. Nothing here resolves references of a runtime: an `Image` comes in closed.

pub mod build;
pub mod capabilities;
mod classify;
pub mod counters;
pub mod digest;
mod digest_cache;
pub mod disk_cache;
pub mod hash;
pub mod json;
pub mod judge;
pub mod layer;
pub mod model;
pub mod oci;
pub(crate) mod open;
pub mod service;
mod source;
pub mod store;
mod tar_split;
pub mod tar_stream;
pub mod tree;
pub mod unpacked;

pub use build::{BuildError, Progress, build, chain_id};
pub use digest::{Digest, Hasher};
pub use disk_cache::DiskCache;
pub use hash::ExecFile;
pub use judge::{Judgement, Reason, Verdict, judge};
pub use layer::LayerLimits;
pub use model::Manifest;
pub use oci::image_from_oci_layout;
pub use service::{Config, ManifestSource, VerdictService};
pub use store::ManifestStore;
