//! The simulator: the broker's code unchanged in a world that one seed decides.
//!
//! [`world`] is the world: machines, disks, network, clocks. [`plan`] is what a seed decides, as data, or what a file
//! says ([`told`]); [`run`] carries one plan out, with [`faults`] and [`damage`] done to the world and all that shows judged;
//! [`swarm`], [`meta`] and [`mutants`] start many. Never imported by anything that ships.

#[cfg(not(madsim))]
compile_error!(
    "the simulator needs `--cfg madsim`: run cargo inside the repository and without RUSTFLAGS, \
     or .cargo/config.toml is not in effect"
);

pub mod ack_judge;
mod bounds;
mod budget;
pub mod child;
pub mod closed;
mod cluster;
#[cfg(test)]
mod config_laws;
pub mod coverage;
pub mod damage;
mod directories;
pub mod faults;
pub mod files_check;
mod frugal;
mod hosting;
mod journal_format;
mod judge;
mod laws;
pub mod links;
mod liveness;
mod log_format;
mod lost_end;
pub mod meta;
pub mod moments;
pub mod mutants;
mod operator;
mod phases;
pub mod plan;
mod remains;
pub mod report;
pub mod run;
mod segment_limits;
mod slot;
pub mod swarm;
pub mod told;
mod views;
pub mod world;
