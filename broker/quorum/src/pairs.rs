//! The files of the cluster metadata read back: frames, log, snapshot, whatever the commands were.
//!
//! An image that loses something on its way through a snapshot would lose it at the next start.

use gracchus_core::{
    BrokerId, PartitionIndex, TopicId,
    controller::{BrokerListener, Command, ConfigChange, ConfigResource, Image, Located, apply},
};
use openraft::{CommittedLeaderId, EntryPayload};
use proptest::prelude::*;
use uuid::Uuid;

use super::{
    frame,
    raft_types::{Entry, LogId, Vote},
    state_machine::State,
    store::{self, Entries},
};

/// Few of each, so that commands meet the topics that others made.
fn id() -> impl Strategy<Value = TopicId> {
    (1..20u128).prop_map(|id| TopicId(Uuid::from_u128(id)))
}

fn text() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["", "a", "retention.ms", "ü \"quoted\"\n", "\\", "\u{1f600}\0"]).prop_map_into()
}

fn assignment() -> impl Strategy<Value = Vec<Vec<BrokerId>>> {
    prop::collection::vec(prop::collection::vec((1..4).prop_map(BrokerId), 1..3), 1..4)
}

fn change() -> impl Strategy<Value = ConfigChange> {
    let words = || prop::collection::vec(text(), 0..3);
    prop_oneof![
        (text(), text()).prop_map(|(key, value)| ConfigChange::Set { key, value }),
        text().prop_map(|key| ConfigChange::Delete { key }),
        (text(), text(), words()).prop_map(|(key, default, words)| ConfigChange::Append {
            key,
            default,
            words
        }),
        (text(), text(), words()).prop_map(|(key, default, words)| ConfigChange::Subtract {
            key,
            default,
            words
        }),
        Just(ConfigChange::Clear),
    ]
}

fn resource() -> impl Strategy<Value = ConfigResource> {
    prop_oneof![
        id().prop_map(ConfigResource::Topic),
        (1..4).prop_map(|id| ConfigResource::Broker(BrokerId(id))),
        Just(ConfigResource::EveryBroker),
    ]
}

/// One of few log directories.
fn directory() -> impl Strategy<Value = Uuid> {
    (100..104u128).prop_map(Uuid::from_u128)
}

fn located() -> impl Strategy<Value = Vec<Located>> {
    let one = (id(), 0..3, directory()).prop_map(|(topic, partition, directory)| Located {
        topic,
        partition: PartitionIndex(partition),
        directory,
    });
    prop::collection::vec(one, 0..4)
}

fn command() -> impl Strategy<Value = Command> {
    let listener =
        (text(), text(), any::<u16>()).prop_map(|(name, host, port)| BrokerListener { name, host, port });
    let register =
        (1..4, prop::collection::vec(listener, 0..3), prop::collection::vec(directory(), 0..3), located())
            .prop_map(|(id, listeners, directories, located)| Command::RegisterBroker {
                id: BrokerId(id),
                listeners,
                directories,
                rack: (id == 1).then(|| "rack".to_owned()),
                located,
            });
    let name = prop::sample::select(vec!["orders", "a.b", "a_b", "x", "y-1"]);
    let configs = || prop::collection::btree_map(text(), text(), 0..3);
    prop_oneof![
        any::<u128>().prop_map(|id| Command::NameCluster { id: Uuid::from_u128(id) }),
        register,
        (1..4, directory())
            .prop_map(|(id, directory)| Command::DirectoryFailed { broker: BrokerId(id), directory }),
        (1..4, located()).prop_map(|(id, located)| Command::Locate { broker: BrokerId(id), located }),
        (name, id(), assignment(), configs()).prop_map(|(name, id, assignment, configs)| {
            Command::CreateTopic { name: name.into(), id, assignment, configs }
        }),
        id().prop_map(|id| Command::DeleteTopic { id }),
        prop::collection::vec(id(), 0..3).prop_map(|ids| Command::ForgetDeleted { ids }),
        (id(), 0..4usize, assignment()).prop_map(|(id, present, assignment)| Command::AddPartitions {
            id,
            present,
            assignment
        }),
        (resource(), prop::collection::vec(change(), 0..4))
            .prop_map(|(resource, changes)| Command::AlterConfigs { resource, changes, seen: None }),
        (1..4, 1..2000).prop_map(|(id, count)| Command::AllocateProducerIds { broker: BrokerId(id), count }),
    ]
}

fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term, 1), index)
}

proptest! {
    #[test]
    fn an_image_loses_nothing_in_a_snapshot(commands in prop::collection::vec(command(), 0..40)) {
        let mut image = Image::default();
        for (number, mut command) in (1..).zip(commands) {
            // No two topics ever have the same id.
            if let Command::CreateTopic { id, .. } = &mut command {
                *id = TopicId(Uuid::from_u128(number));
            }
            apply(&mut image, &command);
        }
        let state = State { last_applied: Some(log_id(3, 40)), image, ..State::default() };
        let read: State = frame::decode(&frame::encode(&state).unwrap()).unwrap();
        prop_assert_eq!(read.image, state.image);
        prop_assert_eq!((read.last_applied, read.membership), (state.last_applied, state.membership));
    }

    #[test]
    fn a_log_reads_back(
        commands in prop::collection::vec(prop::option::of(command()), 0..20),
        purged in prop::option::of(0..1000u64),
        term in 1..9u64,
    ) {
        let purged = purged.map(|index| log_id(term, index));
        let first = purged.map_or(0, |id| id.index + 1);
        let entries: Entries = (first..).zip(commands).map(|(index, command)| {
            let payload = command.map_or(EntryPayload::Blank, EntryPayload::Normal);
            (index, Entry { log_id: log_id(term, index), payload })
        }).collect();
        let bytes = store::encode_log(purged, &entries).unwrap();
        let parsed = store::parse(&bytes).unwrap();
        prop_assert_eq!((parsed.purged, parsed.length), (purged, bytes.len()));
        prop_assert_eq!(parsed.entries.len(), entries.len());
        for ((_, read), (_, written)) in parsed.entries.iter().zip(&entries) {
            // openraft's entries cannot be compared; their forms can.
            prop_assert_eq!(serde_json::to_string(read).unwrap(), serde_json::to_string(written).unwrap());
        }
    }

    #[test]
    fn a_command_reads_back(command in command()) {
        let read: Command = frame::decode(&frame::encode(&command).unwrap()).unwrap();
        prop_assert_eq!(read, command);
    }

    #[test]
    fn a_vote_reads_back(term: u64, node: u64, committed: bool) {
        let vote = if committed { Vote::new_committed(term, node) } else { Vote::new(term, node) };
        let read: Vote = frame::decode(&frame::encode(&vote).unwrap()).unwrap();
        prop_assert_eq!(read, vote);
    }
}
