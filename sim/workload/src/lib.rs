//! Clients that load a broker and tell what they saw, the same in the simulator and on real processes.
//!
//! A [`plan::WorkloadPlan`] says who does what; [`Workload::start`] runs it over Envs; what happens streams to a
//! [`history::History`], where the checker judges it. [`scenario`] holds the types of scenario files.
//! Never: the broker's code, the simulator, a clock or a socket that is not Env's.

pub mod client;
pub mod history;
mod packing;
pub mod plan;
pub mod record;
mod run;
pub mod scenario;
pub mod wire;
mod workloads;

pub use history::{Beacon, History};
pub use plan::WorkloadPlan;
pub use run::{Answer, FinalRead, LongSegment, Narrowed, Question, Workload};
