//! Purser.

pub mod decode;
pub mod event;
pub mod sensor;
