//! What a broker must not do to find what it is asked for: read much.
//!
//! The model: a segment holds far more than a look-up needs. After a clean stop the broker starts again, and nobody asks it anything
//! but one client: to open the log, and to find an offset or a time in it, costs some reads around what is looked for, however long
//! the segment is. The disk counts them. What a tool is told of its size is what is there.
//!
//! Never: a look while anything is wrong.

use gracchus_workload::{LongSegment, Question};

use crate::{
    log_format::Place,
    world::{NodeId, World},
};

/// Law: to open a log that was left in order, and to find something in it, reads little of it.
pub(crate) const LAW: &str = "a look-up reads little";
/// Law: the size of a log that a tool is told is that of its segments.
pub(crate) const SIZES: &str = "sizes are as told";

/// So many bytes around what is looked for are little: a few batches, and a few blocks for each step to them.
const LITTLE: u64 = 96 << 10;
/// Who looks for a time looks into batches from the index entry on, and reads a block at a time for that.
const BLOCK: u64 = 256 << 10;

/// What is asked of a long segment, one after the other.
pub(crate) fn questions(long: &LongSegment) -> Vec<Question> {
    let at = |per_cent: usize| long.records[long.records.len() * per_cent / 100];
    let fetch = |per_cent| Question::Fetch { from: at(per_cent).0, max_bytes: 1 };
    // The first one opens the log.
    vec![
        fetch(92),
        fetch(50),
        Question::Timestamp(at(75).1),
        Question::Timestamp(at(30).1),
        fetch(20),
        Question::Fetch { from: at(40).0, max_bytes: 20_000 },
    ]
}

/// The first partition of a long segment's topic.
pub(crate) fn place(long: &LongSegment, partition: i32) -> Place {
    Place { topic: long.topic.name.clone(), topic_id: long.topic.id.as_u128(), partition }
}

/// Judges what the disk of `node` read of the log since the last look.
pub(crate) fn judge(world: &World, node: NodeId, question: &Question) {
    let enough = match question {
        Question::Fetch { .. } => LITTLE,
        Question::Timestamp(_) => LITTLE + BLOCK,
    };
    judge_reads(world, node, enough, &format!("{question:?}"));
}

/// Judges what it read over a clean stop and a start.
pub(crate) fn judge_restart(world: &World, node: NodeId) {
    judge_reads(world, node, LITTLE, "a clean stop and a start");
}

fn judge_reads(world: &World, node: NodeId, enough: u64, what_for: &str) {
    let read = world.reads(node);
    if read > enough {
        let what = format!("{read} bytes of a log were read for {what_for}; {enough} are enough");
        world.violate(LAW, what);
    }
}

/// Judges what a tool was told of the sizes of its partitions.
pub(crate) fn judge_sizes(world: &World, node: NodeId, long: &LongSegment, told: &[(i32, i64)]) {
    for partition in 0..long.topic.partitions {
        let place = place(long, partition);
        let Ok(Some(directory)) = place.directory(world, node) else { continue };
        let files = world.files_ending(node, &directory, ".log");
        let there: usize = files.values().map(Vec::len).sum();
        let size = told.iter().find(|(of, _)| *of == partition).map(|(_, size)| *size);
        if size != Some(there as i64) {
            world.violate(SIZES, format!("{} has {there} bytes and is said to have {size:?}", place.name()));
        }
    }
}
