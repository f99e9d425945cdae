//! How much heap a piece of code takes at its highest.
//!
//! Counts every reservation in full, touched or not: a decoder that reserves by a length off the wire is found also
//! where the memory would never be used. What C libraries allocate for themselves (zstd) is not seen here; the resident
//! memory that libFuzzer reports covers it. Never: a measure while other threads allocate.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use peak_alloc::PeakAlloc;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// The highest level of the whole run before the last [`peak_of`] began.
static HIGHEST: AtomicUsize = AtomicUsize::new(0);

/// What `work` gives, and by how much the heap grew at its highest, in bytes.
pub(crate) fn peak_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    HIGHEST.fetch_max(HEAP.peak_usage(), Relaxed);
    HEAP.reset_peak_usage();
    let before = HEAP.current_usage();
    let result = work();
    (result, HEAP.peak_usage().saturating_sub(before))
}

/// The same around a whole run that may call [`peak_of`].
pub(crate) fn whole_run<T>(work: impl FnOnce() -> T) -> (T, usize) {
    HIGHEST.store(0, Relaxed);
    HEAP.reset_peak_usage();
    let before = HEAP.current_usage();
    let result = work();
    (result, HIGHEST.load(Relaxed).max(HEAP.peak_usage()).saturating_sub(before))
}
