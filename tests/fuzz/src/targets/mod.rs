//! The table of targets, one file for each family.

mod batches;
mod configurations;
mod connections;
mod directories;
mod indexes;
mod journal;
mod metadata;
mod producer_snapshots;
mod records;
mod requests;
mod small_files;

use crate::{Seed, Target};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// All of them.
pub static TARGETS: &[Target] = &[
    Target {
        name: "requests",
        about: "a request frame: header, walk over the body, kafka-protocol's decoder, for every row of the api table",
        run: requests::run,
        seeds: requests::seeds,
        ours: false,
        longest: 16 * KIB,
        memory: MIB,
        memory_per_byte: 1024,
    },
    Target {
        name: "connections",
        about: "what a connection receives, in pieces of any size, cut into frames",
        run: connections::run,
        seeds: connections::seeds,
        ours: false,
        longest: 256 * KIB,
        memory: 512 * KIB,
        memory_per_byte: 8,
    },
    Target {
        name: "batches",
        about: "a produced batch: header, checks, validation, append time, a look at its records",
        run: batches::run,
        seeds: batches::seeds,
        ours: false,
        longest: 16 * KIB,
        memory: 64 * MIB,
        memory_per_byte: 256,
    },
    Target {
        name: "records",
        about: "compressed records of every codec: decompression within a limit, two readers that must agree",
        run: records::run,
        seeds: records::seeds,
        ours: false,
        longest: 16 * KIB,
        memory: 32 * MIB,
        memory_per_byte: 256,
    },
    Target {
        name: "indexes",
        about: "offset index and time index files",
        run: indexes::run,
        seeds: indexes::seeds,
        ours: true,
        longest: 8 * KIB,
        memory: 16 * KIB,
        memory_per_byte: 16,
    },
    Target {
        name: "producer_snapshots",
        about: "`.snapshot` files, Kafka's and ours",
        run: producer_snapshots::run,
        seeds: producer_snapshots::seeds,
        ours: true,
        longest: 8 * KIB,
        memory: 64 * KIB,
        memory_per_byte: 64,
    },
    Target {
        name: "small_files",
        about: "checkpoints of offsets and of leader epochs, partition.metadata, meta.properties, clean marker, names, ids",
        run: small_files::run,
        seeds: small_files::seeds,
        ours: true,
        longest: 8 * KIB,
        memory: 64 * KIB,
        memory_per_byte: 128,
    },
    Target {
        name: "configurations",
        about: "server.properties to the broker's configuration, topic configurations, topic names",
        run: configurations::run,
        seeds: configurations::seeds,
        ours: false,
        longest: 8 * KIB,
        memory: 512 * KIB,
        memory_per_byte: 512,
    },
    Target {
        name: "journal",
        about: "groups of journal entries and the headers of journal parts",
        run: journal::run,
        seeds: journal::seeds,
        ours: true,
        longest: 16 * KIB,
        memory: 128 * KIB,
        memory_per_byte: 64,
    },
    Target {
        name: "metadata",
        about: "log, snapshot and vote of the cluster metadata",
        run: metadata::run,
        seeds: metadata::seeds,
        ours: true,
        longest: 16 * KIB,
        memory: 512 * KIB,
        memory_per_byte: 512,
    },
    Target {
        name: "directories",
        about: "a whole log directory with damaged files: journal replay, recovery, reading, appending, opening again",
        run: directories::run,
        seeds: directories::seeds,
        ours: true,
        longest: 16 * KIB,
        memory: 32 * MIB,
        memory_per_byte: 256,
    },
];

/// A seed with this name.
fn seed(name: impl Into<String>, input: impl Into<Vec<u8>>) -> Seed {
    (name.into(), input.into())
}
