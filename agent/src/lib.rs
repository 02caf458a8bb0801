//! Purser.

pub mod alert;
pub mod cli;
pub mod config;
pub mod http;
pub mod metrics;
pub mod sink;
