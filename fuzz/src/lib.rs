//! Runs a law on one input of the fuzzer, and counts the memory that this takes.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

/// What a law may hold at once, whatever it is given.
const MEMORY: usize = 4 << 20;
/// And beyond that, for each byte that it is given.
const MEMORY_PER_BYTE: usize = 2048;

/// The system's allocator, counting.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is the system allocator's own, which keeps what the trait asks for; counting touches no memory
// of its callers.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Relaxed).wrapping_add(layout.size());
        MOST.fetch_max(held, Relaxed);
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs `law`, which panics where it is broken.
///
/// # Panics
/// As `law`, and if it holds more memory at once than its input explains.
pub fn bounded(input: &[u8], law: fn(&[u8])) {
    let before = HELD.load(Relaxed);
    MOST.store(before, Relaxed);
    law(input);
    let taken = MOST.load(Relaxed) - before;
    let allowed = MEMORY + MEMORY_PER_BYTE * input.len();
    assert!(taken <= allowed, "{} bytes of input made it hold {taken} bytes, more than {allowed}", input.len());
}

/// The `main` of a target: the fuzzer's bytes go to the law of that path.
#[macro_export]
macro_rules! target {
    ($law:path) => {
        libfuzzer_sys::fuzz_target!(|input: &[u8]| $crate::bounded(input, $law));
    };
}
