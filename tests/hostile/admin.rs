//! A valid frame of every administrative API: the beginning of all that is made of it.
//!
//! What would take something away from the others (a topic, a configuration) names what is not there.

use bytes::Bytes;
use gracchus_tests::client::{name, text};
use kafka_protocol::messages::{
    AlterConfigsRequest, AlterPartitionReassignmentsRequest, AlterReplicaLogDirsRequest, ApiKey,
    CreatePartitionsRequest, DeleteRecordsRequest, DeleteTopicsRequest, DescribeClientQuotasRequest,
    DescribeClusterRequest, DescribeConfigsRequest, DescribeLogDirsRequest, DescribeProducersRequest,
    DescribeQuorumRequest, DescribeTopicPartitionsRequest, DescribeTransactionsRequest,
    DescribeUserScramCredentialsRequest, ElectLeadersRequest, IncrementalAlterConfigsRequest,
    ListConfigResourcesRequest, ListGroupsRequest, ListPartitionReassignmentsRequest,
    ListTransactionsRequest, OffsetForLeaderEpochRequest, TransactionalId, UnregisterBrokerRequest,
    UpdateFeaturesRequest, alter_configs_request, alter_partition_reassignments_request as reassign,
    alter_replica_log_dirs_request as move_logs, create_partitions_request as grow,
    delete_records_request as cut, delete_topics_request, describe_client_quotas_request,
    describe_configs_request, describe_log_dirs_request, describe_producers_request,
    describe_quorum_request as quorum, describe_topic_partitions_request as paged,
    describe_user_scram_credentials_request, elect_leaders_request, incremental_alter_configs_request,
    list_partition_reassignments_request, offset_for_leader_epoch_request as epochs, update_features_request,
};

use super::{TOPIC, encode};

const NOBODY: &str = "nobody";
/// Kafka's number for topics.
const OF_TOPIC: i8 = 2;

/// Panics for an API that has no frame here yet.
pub(crate) fn valid(key: ApiKey, version: i16) -> Bytes {
    match key {
        ApiKey::DeleteTopics => delete_topics(version),
        ApiKey::DeleteRecords => {
            let partition = cut::DeleteRecordsPartition::default().with_offset(1);
            let topic =
                cut::DeleteRecordsTopic::default().with_name(name(NOBODY)).with_partitions(vec![partition]);
            encode(&DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(10), version)
        }
        ApiKey::OffsetForLeaderEpoch => {
            let topic = epochs::OffsetForLeaderTopic::default()
                .with_topic(name(TOPIC))
                .with_partitions(vec![epochs::OffsetForLeaderPartition::default()]);
            encode(&OffsetForLeaderEpochRequest::default().with_topics(vec![topic]), version)
        }
        ApiKey::DescribeConfigs | ApiKey::AlterConfigs | ApiKey::IncrementalAlterConfigs => {
            configs(key, version)
        }
        ApiKey::CreatePartitions => {
            let assignment = grow::CreatePartitionsAssignment::default().with_broker_ids(vec![1.into()]);
            let topic = grow::CreatePartitionsTopic::default()
                .with_name(name(NOBODY))
                .with_count(2)
                .with_assignments(Some(vec![assignment]));
            encode(&CreatePartitionsRequest::default().with_topics(vec![topic]).with_timeout_ms(10), version)
        }
        ApiKey::AlterReplicaLogDirs | ApiKey::DescribeLogDirs => directories(key, version),
        ApiKey::ElectLeaders
        | ApiKey::AlterPartitionReassignments
        | ApiKey::ListPartitionReassignments
        | ApiKey::DescribeProducers
        | ApiKey::DescribeTopicPartitions => placement(key, version),
        ApiKey::DescribeClientQuotas
        | ApiKey::DescribeUserScramCredentials
        | ApiKey::DescribeTransactions
        | ApiKey::ListTransactions
        | ApiKey::ListConfigResources => lists(key, version),
        ApiKey::ListGroups => {
            let states = if version >= 4 { vec![text("Stable")] } else { Vec::new() };
            encode(&ListGroupsRequest::default().with_states_filter(states), version)
        }
        ApiKey::UnregisterBroker => {
            encode(&UnregisterBrokerRequest::default().with_broker_id(77.into()), version)
        }
        ApiKey::DescribeCluster => encode(&DescribeClusterRequest::default(), version),
        ApiKey::DescribeQuorum => {
            let topic = quorum::TopicData::default()
                .with_topic_name(name("__cluster_metadata"))
                .with_partitions(vec![quorum::PartitionData::default()]);
            encode(&DescribeQuorumRequest::default().with_topics(vec![topic]), version)
        }
        ApiKey::UpdateFeatures => {
            let update = update_features_request::FeatureUpdateKey::default().with_feature(text(NOBODY));
            encode(&UpdateFeaturesRequest::default().with_feature_updates(vec![update]), version)
        }
        other => panic!("{other:?} is advertised: give this test a valid request of it"),
    }
}

fn delete_topics(version: i16) -> Bytes {
    let request = DeleteTopicsRequest::default().with_timeout_ms(10);
    if version >= 6 {
        let topic = delete_topics_request::DeleteTopicState::default().with_name(Some(name(NOBODY)));
        encode(&request.with_topics(vec![topic]), version)
    } else {
        encode(&request.with_topic_names(vec![name(NOBODY)]), version)
    }
}

fn configs(key: ApiKey, version: i16) -> Bytes {
    match key {
        ApiKey::DescribeConfigs => {
            let resource = describe_configs_request::DescribeConfigsResource::default()
                .with_resource_type(OF_TOPIC)
                .with_resource_name(text(TOPIC))
                .with_configuration_keys(Some(vec![text("retention.ms")]));
            encode(&DescribeConfigsRequest::default().with_resources(vec![resource]), version)
        }
        ApiKey::AlterConfigs => {
            use alter_configs_request::{AlterConfigsResource, AlterableConfig};
            let config =
                AlterableConfig::default().with_name(text("retention.ms")).with_value(Some(text("1")));
            let resource = AlterConfigsResource::default()
                .with_resource_type(OF_TOPIC)
                .with_resource_name(text(NOBODY))
                .with_configs(vec![config]);
            encode(&AlterConfigsRequest::default().with_resources(vec![resource]), version)
        }
        _ => {
            use incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
            let config =
                AlterableConfig::default().with_name(text("retention.ms")).with_value(Some(text("1")));
            let resource = AlterConfigsResource::default()
                .with_resource_type(OF_TOPIC)
                .with_resource_name(text(NOBODY))
                .with_configs(vec![config]);
            encode(&IncrementalAlterConfigsRequest::default().with_resources(vec![resource]), version)
        }
    }
}

fn directories(key: ApiKey, version: i16) -> Bytes {
    if key == ApiKey::AlterReplicaLogDirs {
        let topic =
            move_logs::AlterReplicaLogDirTopic::default().with_name(name(NOBODY)).with_partitions(vec![0]);
        let directory =
            move_logs::AlterReplicaLogDir::default().with_path(text("/nowhere")).with_topics(vec![topic]);
        return encode(&AlterReplicaLogDirsRequest::default().with_dirs(vec![directory]), version);
    }
    let topic = describe_log_dirs_request::DescribableLogDirTopic::default()
        .with_topic(name(TOPIC))
        .with_partitions(vec![0]);
    encode(&DescribeLogDirsRequest::default().with_topics(Some(vec![topic])), version)
}

fn placement(key: ApiKey, version: i16) -> Bytes {
    match key {
        ApiKey::ElectLeaders => {
            let topic = elect_leaders_request::TopicPartitions::default()
                .with_topic(name(TOPIC))
                .with_partitions(vec![0]);
            let request = ElectLeadersRequest::default().with_timeout_ms(10);
            encode(&request.with_topic_partitions(Some(vec![topic])), version)
        }
        ApiKey::AlterPartitionReassignments => {
            let partition = reassign::ReassignablePartition::default().with_replicas(Some(vec![1.into()]));
            let topic = reassign::ReassignableTopic::default()
                .with_name(name(NOBODY))
                .with_partitions(vec![partition]);
            encode(&AlterPartitionReassignmentsRequest::default().with_topics(vec![topic]), version)
        }
        ApiKey::ListPartitionReassignments => {
            let topic = list_partition_reassignments_request::ListPartitionReassignmentsTopics::default()
                .with_name(name(TOPIC))
                .with_partition_indexes(vec![0]);
            encode(&ListPartitionReassignmentsRequest::default().with_topics(Some(vec![topic])), version)
        }
        ApiKey::DescribeProducers => {
            let topic = describe_producers_request::TopicRequest::default()
                .with_name(name(TOPIC))
                .with_partition_indexes(vec![0]);
            encode(&DescribeProducersRequest::default().with_topics(vec![topic]), version)
        }
        _ => {
            let topic = paged::TopicRequest::default().with_name(name(TOPIC));
            let cursor = paged::Cursor::default().with_topic_name(name(TOPIC));
            let request = DescribeTopicPartitionsRequest::default().with_topics(vec![topic]);
            encode(&request.with_response_partition_limit(100).with_cursor(Some(cursor)), version)
        }
    }
}

fn lists(key: ApiKey, version: i16) -> Bytes {
    match key {
        ApiKey::DescribeClientQuotas => {
            let component = describe_client_quotas_request::ComponentData::default()
                .with_entity_type(text("user"))
                .with_match(Some(text(NOBODY)));
            encode(&DescribeClientQuotasRequest::default().with_components(vec![component]), version)
        }
        ApiKey::DescribeUserScramCredentials => {
            let user = describe_user_scram_credentials_request::UserName::default().with_name(text(NOBODY));
            encode(&DescribeUserScramCredentialsRequest::default().with_users(Some(vec![user])), version)
        }
        ApiKey::DescribeTransactions => {
            let ids = vec![TransactionalId::from(text(NOBODY))];
            encode(&DescribeTransactionsRequest::default().with_transactional_ids(ids), version)
        }
        ApiKey::ListTransactions => {
            encode(&ListTransactionsRequest::default().with_state_filters(vec![text("Ongoing")]), version)
        }
        _ => {
            let request = ListConfigResourcesRequest::default();
            // Version 0 asks for client metrics only, and has no list.
            let types = if version >= 1 { vec![OF_TOPIC] } else { Vec::new() };
            encode(&request.with_resource_types(types), version)
        }
    }
}
