//! Planted bugs: is the simulator able to find them?
//!
//! [`chosen`] plants the bugs of `sim/mutants/`, which we thought of; [`drawn`] plants changes that a mutation tool makes of the
//! shipped code and chance takes, which we did not. Both lay out a scratch copy of the sources ([`scratch`]) in which
//! every change is a switch, so that one build serves all, and run the default swarm on it, untold. `laws`: every law
//! is named by a bug. Never: a flag or a hook of a mutant in the shipped code.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a command-line tool"
)]

mod chosen;
mod drawn;
#[cfg(test)]
mod laws;
mod page;
mod plant;
mod results;
mod scratch;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};

pub(crate) use self::scratch::{share_libraries, target_directory};
pub use self::{
    chosen::{Options, mutants},
    drawn::{Options as DrawnOptions, drawn},
};
use crate::{child::Limits, laws::is_one as is_law};

/// A run of the swarm takes about three seconds of a core; one that takes many times that does not come to an end.
const RUN: Limits =
    Limits { processor: Duration::from_secs(60), real: Duration::from_secs(290), bytes: 2 << 30 };

/// The repository: where the workspace's manifest is.
fn root() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().map(Path::to_owned).context("the simulator lies in the repository")
}
