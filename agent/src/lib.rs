//! Purser.
pub mod container;
