//! What `std` is for the shipped files: the same, but for what threads share.

pub use std::{cmp, collections, fmt, future, io, mem, net, path, ptr, time};

/// Shuttle's locks and atomics; shared ownership needs no scheduling point.
pub mod sync {
    pub use std::sync::{Arc, PoisonError, Weak};

    pub use shuttle::sync::{Mutex, MutexGuard, RwLock, atomic};
}
