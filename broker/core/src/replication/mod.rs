//! What a replica decides, free of I/O and time: the machine and the rules it goes by.

pub mod epochs;
pub mod high_watermark;
mod machine;
#[cfg(test)]
mod properties;
mod turned_away;

pub use machine::{Appended, Assignment, Input, LogEnds, Output, Refusal, ReplicaMachine};
