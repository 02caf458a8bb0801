//! The expected manifest of an image, and the verdict on a file that runs: is this program one of
//! the image's own files, with the same bytes at the same path?
//!
//! `layer` and `merge` turn image layers into a [`Manifest`]; `hash` finds and hashes the file of an
//! event; [`judge()`] compares the two and nothing else; `VerdictService` runs all of it away from the
//! event path. Nothing here resolves image references or talks to a runtime: an `Image` comes in closed.

pub mod capabilities;
pub mod digest;
pub mod judge;
pub mod model;

pub use digest::Digest;
pub use judge::{Judgement, Verdict, judge};
pub use model::Manifest;
