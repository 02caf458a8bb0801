//! Purser.

pub mod alert;
pub mod config;
