//! openraft's types as this cluster uses them. Everything else of the module says `Entry`, `Vote`, … and stays free of
//! type parameters, so that another version of openraft touches few lines.

use std::io::Cursor;

use gracchus_core::controller::{Command, Response};

use super::runtime::EnvRuntime;

/// A node of the quorum: its `node.id`.
pub(super) type NodeId = u64;

openraft::declare_raft_types!(
    /// The replicated state machine is [`gracchus_core::controller`]. Entries without a command (a new leader's blank
    /// one, changes of the membership) have no response.
    pub(super) TypeConfig:
        D = Command,
        R = Option<Response>,
        NodeId = NodeId,
        Node = openraft::BasicNode,
        Entry = openraft::Entry<TypeConfig>,
        SnapshotData = Cursor<Vec<u8>>,
        AsyncRuntime = EnvRuntime,
);

pub(super) type Raft = openraft::Raft<TypeConfig>;
pub(super) type Entry = openraft::Entry<TypeConfig>;
pub(super) type LogId = openraft::LogId<NodeId>;
pub(super) type Vote = openraft::Vote<NodeId>;
pub(super) type StorageError = openraft::StorageError<NodeId>;
pub(super) type Snapshot = openraft::Snapshot<TypeConfig>;
pub(super) type SnapshotMeta = openraft::SnapshotMeta<NodeId, openraft::BasicNode>;
pub(super) type StoredMembership = openraft::StoredMembership<NodeId, openraft::BasicNode>;
