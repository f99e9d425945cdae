//! A time index that loses its last entry while its broker is down, after a clean stop.
//!
//! The model: the greatest timestamp of the log is that of a record far from its end, and what is left of the index ends with
//! another one that no batch near the end contradicts. Only who counts entries can tell, and what the index knew is found
//! all the same. Never: an index that looks torn.

use gracchus_workload::{Answer, LongSegment, Question};

use crate::{
    frugal,
    world::{NodeId, World},
};

/// Law: an index is a help: without its end everything is found that is found with it.
pub(crate) const LAW: &str = "an index that lost its end hides nothing";

/// The size of an entry of a time index, in bytes.
const ENTRY: usize = 12;

/// Takes the last entry away.
pub(crate) fn inflict(world: &World, node: NodeId, long: &LongSegment) {
    let place = frugal::place(long, LongSegment::AHEAD);
    let Ok(Some(directory)) = place.directory(world, node) else { return };
    for (path, bytes) in world.files_ending(node, &directory, ".timeindex") {
        let Some(left) = bytes.len().checked_sub(ENTRY) else { continue };
        world.tell(format!("only {left} bytes of {path} are left"));
        world.put_file(node, &path, Some(bytes[..left].to_vec()));
    }
}

/// What only that entry knew.
pub(crate) fn question(long: &LongSegment) -> Question {
    Question::Timestamp(long.ahead.1)
}

/// Judges what was found.
pub(crate) fn judge(world: &World, long: &LongSegment, answers: &[(Question, Answer)]) {
    let (offset, timestamp) = long.ahead;
    for (_, answer) in answers {
        if *answer != Answer::Offset(offset) {
            let what =
                format!("timestamp {timestamp} is that of offset {offset}, and {answer:?} is the answer");
            world.violate(LAW, what);
        }
    }
}
