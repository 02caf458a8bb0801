//! Recordings: what the pipeline was told, and what it was answered, so that it raises the same alerts again: elsewhere,
//! later, without root, or by other rules.
//!
//! A file is a [`Header`](format::Header) and frames of [`Entry`]s. The pipeline's [`Input`](crate::outside::Input)s are in
//! it in their order, each followed by the answers of the outside world that differ from what was answered before.
//! [`Recording`] writes them while it passes questions on to the machine; [`Replayed`] is the machine that they were of.

pub mod entry;
pub mod format;
mod ledger;
mod outside;
pub mod read;
pub mod replay;
mod replayed;
pub mod serial;
pub mod settings;
mod write;

#[cfg(test)]
mod tests;

pub use entry::{Answer, Ended, Entry, Reported, Start};
pub use outside::Recording;
pub use read::{ReadError, Reader};
pub use replayed::Replayed;
pub use write::{Limits, MIN_BYTES, WriteError, Writer, Written};
