//! Purser: a Kubernetes runtime detection agent. `pipeline.rs` is the main path; `ARCHITECTURE.md` tells the rest.

pub mod active;
pub mod alert;
pub mod cli;
pub mod config;
pub mod container;
pub mod decode;
pub mod domains;
pub mod event;
pub mod facts;
pub mod http;
pub mod live;
pub mod losses;
pub mod manifest;
pub mod metrics;
pub mod outside;
pub mod pipeline;
pub mod process;
pub mod pushdown;
pub mod recording;
pub mod reload;
pub mod run;
#[cfg(test)]
mod sample;
pub mod sensor;
pub mod sink;
mod tally;
pub mod throttle;
mod waiting;
