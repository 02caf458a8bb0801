//! Bad and hostile input: a clear error or success, in little memory, never a panic, a stack overflow or endless work.
//!
//! Times are printed and not asserted: `cargo test --release -p purser-rules --test hostile -- --nocapture --test-threads 1`.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test fails by panicking and skips aloud"
)]
#![allow(clippy::format_push_string, reason = "texts for tests, off the hot path")]

mod conditions;
#[path = "../counting/mod.rs"]
mod counting;
mod files;
mod items;
mod measure;
mod random;

/// A rule with a condition.
fn rule(condition: &str) -> String {
    named_rule("r", condition)
}

fn named_rule(name: &str, condition: &str) -> String {
    let condition = serde_json::to_string(condition).expect("JSON");
    format!("- rule: {name}\n  desc: d\n  priority: INFO\n  output: o\n  condition: {condition}\n")
}

/// `item(0)`, `item(1)` ... with `between` between them.
fn joined(count: usize, between: &str, item: impl Fn(usize) -> String) -> String {
    let mut text = String::new();
    for nth in 0..count {
        if nth > 0 {
            text.push_str(between);
        }
        text.push_str(&item(nth));
    }
    text
}
