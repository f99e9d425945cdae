//! The node and its cluster: versions, features, quorum, elections, moves, groups, transactions.

use crate::step::{Step, step};

const GROUPS: &str = "groups are not built yet";
const TRANSACTIONS: &str = "transactions are not built yet";
const ENDPOINT: &str = "one process that is broker and controller needs no controller listener";

/// What is asked before there is a topic.
pub(crate) fn before() -> Vec<Step> {
    let groups = |tool, line| step(tool, "--list", line);
    vec![
        api_versions(),
        step("cluster", "cluster-id", "cluster-id"),
        step("cluster", "list-endpoints", "list-endpoints"),
        step("cluster", "list-endpoints", "list-endpoints --include-fenced-brokers"),
        step("cluster", "unregister", "unregister --id 7"),
        step("features", "describe", "describe")
            .all_differ(&["group.version", "share.version", "streams.version"], GROUPS)
            .differs("transaction.version", TRANSACTIONS)
            .differs("kraft.version", "the quorum of ours is not KRaft's"),
        step("features", "version-mapping", "version-mapping"),
        step("features", "feature-dependencies", "feature-dependencies --feature transaction.version=2"),
        step("features", "upgrade", "upgrade --feature no.such.feature=1"),
        step("features", "upgrade", "upgrade --feature group.version=99").differs("group.version", GROUPS),
        step("features", "downgrade", "downgrade --feature metadata.version=1"),
        step("features", "disable", "disable --feature no.such.feature"),
        step("metadata-quorum", "describe --status", "describe --status")
            .figures()
            .differs("CurrentVoters", ENDPOINT),
        step("metadata-quorum", "describe --replication", "describe --replication").figures(),
        step("metadata-quorum", "describe --replication", "describe --replication --human-readable")
            .figures(),
        groups("consumer-groups", "--list"),
        groups("consumer-groups", "--list --state"),
        step("consumer-groups", "--describe", "--describe --all-groups"),
        groups("groups", "--list"),
        groups("share-groups", "--list"),
        groups("streams-groups", "--list"),
        groups("client-metrics", "--list"),
        groups("acls", "--list").differs("Exception", "authorization is not built yet"),
        step("transactions", "list", "list"),
    ]
}

/// Which versions of which requests are served.
fn api_versions() -> Step {
    let groups = [
        "OffsetCommit(8)",
        "OffsetFetch(9)",
        "JoinGroup(11)",
        "Heartbeat(12)",
        "LeaveGroup(13)",
        "SyncGroup(14)",
        "DescribeGroups(15)",
        "DeleteGroups(42)",
        "OffsetDelete(47)",
        "ConsumerGroup",
        "ShareGroup",
        "ShareFetch",
        "ShareAcknowledge",
        "StreamsGroup",
    ];
    let transactions =
        ["AddPartitionsToTxn", "AddOffsetsToTxn", "EndTxn", "WriteTxnMarkers", "TxnOffsetCommit"];
    let security = ["Sasl", "Acls", "DelegationToken", "ScramCredentials"];
    step("broker-api-versions", "run", "")
        .all_differ(&groups, GROUPS)
        .all_differ(&transactions, TRANSACTIONS)
        .all_differ(&security, "security is not built yet")
        .differs("ClientQuotas", "quotas are not built yet")
        .differs("RaftVoter", "the quorum of ours is not KRaft's")
}

/// What is asked about topics with data.
pub(crate) fn after() -> Vec<Step> {
    let elect = |line| step("leader-election", "run", line);
    let reassign = |verb, line| step("reassign-partitions", verb, line);
    vec![
        elect("--election-type preferred --all-topic-partitions"),
        elect("--election-type preferred --topic orders --partition 0"),
        elect("--election-type unclean --topic orders --partition 0"),
        elect("--election-type preferred --topic nowhere --partition 0"),
        elect("--election-type preferred --path-to-json-file {files}/election.json"),
        elect("--election-type preferred --path-to-json-file {files}/election-nowhere.json"),
        reassign("--list", "--list"),
        reassign("--generate", "--generate --topics-to-move-json-file {files}/move.json --broker-list 1"),
        reassign("--generate", "--generate --topics-to-move-json-file {files}/move.json --broker-list 7"),
        reassign("--execute", "--execute --reassignment-json-file {files}/stay.json"),
        reassign("--execute", "--execute --reassignment-json-file {files}/away.json"),
        reassign("--verify", "--verify --reassignment-json-file {files}/stay.json"),
        reassign("--cancel", "--cancel --reassignment-json-file {files}/stay.json"),
        step("transactions", "describe-producers", "describe-producers --topic orders --partition 0"),
        step("transactions", "find-hanging", "find-hanging --broker-id 1"),
        step("metadata-quorum", "describe --status", "describe --status")
            .figures()
            .differs("CurrentVoters", ENDPOINT),
    ]
}
