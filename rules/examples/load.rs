//! Measures loading: `cargo run --release -p purser-rules --example load -- FILE...` prints the time of the fastest and the
//! median of 30 loads, and the most memory that one held. Figures are printed, not judged.

#![allow(clippy::print_stdout, clippy::expect_used, reason = "a tool for the terminal")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use purser_rules::{LoadOptions, RuleSet, Source};

struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(held, Relaxed);
        // SAFETY: the caller's obligations are those of the system's allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the pointer came from `alloc`, and so from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() {
    let files: Vec<(String, Vec<u8>)> = std::env::args()
        .skip(1)
        .map(|name| {
            let text = std::fs::read(&name).expect("a rule file");
            (name, text)
        })
        .collect();
    let sources: Vec<_> = files.iter().map(|(name, text)| Source { name, text }).collect();
    let mut times = Vec::new();
    let (mut peak, mut kept, mut count) = (0, 0, 0);
    for _ in 0..30 {
        let before = HELD.load(Relaxed);
        PEAK.store(before, Relaxed);
        let start = Instant::now();
        let (rules, warnings) = RuleSet::load(&sources, &LoadOptions::default()).expect("rules");
        times.push(start.elapsed().as_secs_f64() * 1e3);
        drop(warnings);
        count = rules.rules().len();
        peak = PEAK.load(Relaxed) - before;
        kept = HELD.load(Relaxed) - before;
    }
    times.sort_by(f64::total_cmp);
    println!("{count} rules: {:.1} ms at best, {:.1} ms in the median", times[0], times[times.len() / 2]);
    println!("{} KiB held at most while loading, {} KiB by the set", peak >> 10, kept >> 10);
}
