//! The allocator of tests and benchmarks that say what something takes: it counts, thread by thread.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// What a piece of work took.
#[derive(Clone, Copy, Debug)]
#[allow(dead_code, reason = "each target asks for some of it")]
pub(crate) struct Taken {
    /// How often memory was asked for.
    pub(crate) allocations: usize,
    /// Bytes held at most, without those held before.
    pub(crate) peak: isize,
    /// Bytes still held at the end.
    pub(crate) kept: isize,
}

/// Does something and says what this thread took for it. One such cannot be within another.
pub(crate) fn counted<T>(work: impl FnOnce() -> T) -> (T, Taken) {
    let (allocations, held) = (ALLOCATIONS.get(), HELD.get());
    PEAK.set(held);
    let result = work();
    let taken =
        Taken { allocations: ALLOCATIONS.get() - allocations, peak: PEAK.get() - held, kept: HELD.get() - held };
    (result, taken)
}

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn hold(bytes: isize) {
    let held = HELD.get() + bytes;
    HELD.set(held);
    PEAK.set(PEAK.get().max(held));
}

// SAFETY: every call is passed on unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        hold(layout.size() as isize);
        // SAFETY: the caller's obligations are those of the system's allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        hold(-(layout.size() as isize));
        // SAFETY: the pointer came from `alloc`, and so from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
