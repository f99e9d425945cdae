//! The simulator: the broker's code unchanged in a world that one seed decides.
//!
//! [`world`] is the world: machines, disks, network, clocks. Never imported by anything that ships.

#[cfg(not(madsim))]
compile_error!(
    "the simulator needs `--cfg madsim`: run cargo inside the repository and without RUSTFLAGS, \
     or .cargo/config.toml is not in effect"
);

pub mod world;
