//! What logs, quorum and shell of the broker share, on nothing but the seam: cells that the hot path counts in, warnings
//! that cannot flood, and patience where file handles are lacking.
//!
//! Never: anything that knows a record, a topic or a request.

pub mod cells;
mod complaints;
mod handles;

use std::{any::Any, sync::Arc};

pub use complaints::Complaints;
pub use handles::{Handles, Lacking, STOP_PATIENCE};

/// The directory of the cluster metadata within a log directory. Not a partition's name.
pub const METADATA_DIRECTORY: &str = "cluster-metadata";

/// Whatever a request borrowed for its payload (memory budget); given back when dropped.
pub type Charge = Arc<dyn Any + Send + Sync>;
