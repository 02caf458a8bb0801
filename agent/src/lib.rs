//! Purser.

pub mod container;
pub mod event;
pub mod manifest;
