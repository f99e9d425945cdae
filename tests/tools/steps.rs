//! The calls, in the order in which they are made. Later ones build on what earlier ones have left.

use std::{fs, path::Path};

use crate::step::Step;

mod data;
mod node;
mod topics;

/// Every call.
pub(crate) fn all() -> Vec<Step> {
    [
        node::before(),
        topics::topics(),
        topics::configs(),
        data::data(),
        node::after(),
        topics::deletion(),
        data::end_to_end(),
    ]
    .concat()
}

/// The files that calls name as `{files}/…`.
pub(crate) fn write_files(folder: &Path) {
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).expect("our own folder");
    let records = |partitions: &str| format!(r#"{{"partitions": [{partitions}], "version": 1}}"#);
    write("delete.json", &records(r#"{"topic": "lines", "partition": 0, "offset": 3}"#));
    write("delete-all.json", &records(r#"{"topic": "keyed", "partition": 0, "offset": -1}"#));
    write("delete-again.json", &records(r#"{"topic": "lines", "partition": 0, "offset": 2}"#));
    write("delete-beyond.json", &records(r#"{"topic": "lines", "partition": 0, "offset": 1000}"#));
    write("move.json", r#"{"topics": [{"topic": "orders"}], "version": 1}"#);
    let assignment = |broker: i32| {
        format!(
            r#"{{"version": 1, "partitions": [{{"topic": "orders", "partition": 0, "replicas": [{broker}], "log_dirs": ["any"]}}]}}"#
        )
    };
    write("stay.json", &assignment(1));
    write("away.json", &assignment(7));
    let election = |topic: &str| format!(r#"{{"partitions": [{{"topic": "{topic}", "partition": 0}}]}}"#);
    write("election.json", &election("orders"));
    write("election-nowhere.json", &election("nowhere"));
}
