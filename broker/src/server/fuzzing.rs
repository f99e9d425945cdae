//! A door for the fuzz targets (`tests/fuzz`) to what cuts strangers' bytes into requests.
//!
//! The broker itself never comes through here. Never: a decision of its own, or anything that another caller would want.

use std::sync::Arc;

use bytes::Bytes;
use gracchus_env::ReadHalf;
use kafka_protocol::protocol::StrBytes;

use super::{
    budget::Budget,
    buffers::BufferPool,
    frame::{FrameReader, take_client_id},
    watch::Watch,
};

/// All frames that a connection would read from `half`, each without its size prefix, and why it would stop
/// (`None`: the peer closed between two frames). Every frame is dropped by `each` before the next is read.
pub async fn frames(
    half: Box<dyn ReadHalf>,
    largest: i32,
    budget_bytes: u64,
    mut each: impl FnMut(Bytes),
) -> Option<String> {
    let most = largest.unsigned_abs() as usize;
    let (budget, pool) = (Budget::new(budget_bytes, most), BufferPool::new(most));
    let purse = budget.purse(Arc::default());
    let mut reader = FrameReader::new(half, purse, pool, Arc::new(Watch::default()), largest);
    loop {
        match reader.next().await {
            Ok(Some(frame)) => each(frame.bytes),
            Ok(None) => return None,
            Err(error) => return Some(error.to_string()),
        }
    }
}

/// What a connection does with the rest of a request header of version 1 or 2.
pub fn client_id(bytes: &mut Bytes, header_version: i16) -> Option<Option<StrBytes>> {
    take_client_id(bytes, header_version)
}
