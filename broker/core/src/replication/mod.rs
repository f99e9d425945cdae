//! Rules of replication as pure functions: leader epochs now, ISR and high watermark arithmetic with them.

pub mod epochs;
pub mod high_watermark;
