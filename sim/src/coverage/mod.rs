//! What a swarm reaches: the named moments ([`crate::moments`]) and the lines of the broker, as a page.
//!
//! Never: part of a run; it only starts runs and reads what they say.

pub mod page;
mod source;
