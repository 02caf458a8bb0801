//! Output formats.

mod time;

pub use time::{Clock, iso8601};

/// A compiled output.
#[derive(Clone, Debug)]
pub struct Format {}
