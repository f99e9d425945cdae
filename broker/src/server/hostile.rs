//! What protects the broker from frames made to exhaust it, and a check that the last line of it works here.
//!
//! First line: [`crate::api::shape`] refuses a body before it is decoded when its lengths are not backed by bytes, so
//! no decoder reserves by a length off the wire. Second line: an allocator that gives out large reservations without
//! touching them, so that one that slipped through is an error and not an abort. [`verify_allocator`] tries that.

use std::collections::TryReserveError;

/// A reservation no machine can back, and one that an allocator without overcommit refuses.
const UNBACKED: usize = 1 << 40;

/// Whether a huge reservation that is never touched succeeds here. If not, the second line of defence is missing, and
/// start-up should say so.
pub fn verify_allocator() -> Result<(), TryReserveError> {
    let mut probe: Vec<u8> = Vec::new();
    probe.try_reserve_exact(UNBACKED)?;
    // Keeps the optimiser from leaving the reservation out.
    std::hint::black_box(&probe);
    Ok(())
}
