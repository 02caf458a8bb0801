//! What is not seen here, and what is lost by it.

use std::fmt::Write as _;
use std::path::Path;

use super::{Check, State, containers, machine};
use crate::sensor::{Circumstances, LIMITS};

pub(super) fn checks(hooks: Circumstances) -> Vec<Check> {
    let at = Circumstances {
        x32: machine::takes_x32(),
        cgroup2: containers::cgroup2(Path::new("/proc")).is_some(),
        ..hooks
    };
    let check = |limit: &crate::sensor::Limit| match limit.holds(&at) {
        Some(true) => Some(Check::new(State::Limited, limit.what, limit.lost)),
        Some(false) => None,
        None => Some(Check::new(State::Unchecked, limit.what, format!("holds for {}", limit.place()))),
    };
    LIMITS.iter().filter_map(check).collect()
}

/// `docs/limits.md`.
pub(super) fn page() -> String {
    let mut page = "<!-- Written by `purser doctor`, from agent/src/sensor/limits.rs: change it there, then run \
                    `PURSER_BLESS=1 cargo test -p agent --test docs`. -->\n\
                    # What the kernel half cannot see\n\n\
                    `purser doctor` says which of it holds on a machine.\n\n\
                    | what | where | what is lost by it |\n|---|---|---|\n"
        .to_owned();
    for limit in LIMITS {
        let _ = writeln!(page, "| {} | {} | {} |", limit.what, limit.place(), limit.lost);
    }
    page
}
