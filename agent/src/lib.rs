//! Purser.

pub mod event;
pub mod sensor;
