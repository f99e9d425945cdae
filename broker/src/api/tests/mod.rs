//! The table against kafka-protocol: versions, headers, and that no bytes whatever get past the walk and hurt.
//!
//! These tests run on the system allocator, where a reservation by an unchecked length would abort the process.

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::{
    messages::*,
    protocol::{Decodable, Encodable, HeaderVersion, Message as _, StrBytes},
};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

/// Runs `$body` with `$Request` standing for the request type of `$key`.
macro_rules! with_request {
    ($key:expr, $Request:ident => $body:expr) => {
        match $key {
            0 => {
                type $Request = ProduceRequest;
                $body
            }
            1 => {
                type $Request = FetchRequest;
                $body
            }
            2 => {
                type $Request = ListOffsetsRequest;
                $body
            }
            3 => {
                type $Request = MetadataRequest;
                $body
            }
            10 => {
                type $Request = FindCoordinatorRequest;
                $body
            }
            16 => {
                type $Request = ListGroupsRequest;
                $body
            }
            18 => {
                type $Request = ApiVersionsRequest;
                $body
            }
            19 => {
                type $Request = CreateTopicsRequest;
                $body
            }
            21 => {
                type $Request = DeleteRecordsRequest;
                $body
            }
            20 => {
                type $Request = DeleteTopicsRequest;
                $body
            }
            22 => {
                type $Request = InitProducerIdRequest;
                $body
            }
            23 => {
                type $Request = OffsetForLeaderEpochRequest;
                $body
            }
            61 => {
                type $Request = DescribeProducersRequest;
                $body
            }
            34 => {
                type $Request = AlterReplicaLogDirsRequest;
                $body
            }
            35 => {
                type $Request = DescribeLogDirsRequest;
                $body
            }
            37 => {
                type $Request = CreatePartitionsRequest;
                $body
            }
            32 => {
                type $Request = DescribeConfigsRequest;
                $body
            }
            33 => {
                type $Request = AlterConfigsRequest;
                $body
            }
            44 => {
                type $Request = IncrementalAlterConfigsRequest;
                $body
            }
            48 => {
                type $Request = DescribeClientQuotasRequest;
                $body
            }
            50 => {
                type $Request = DescribeUserScramCredentialsRequest;
                $body
            }
            74 => {
                type $Request = ListConfigResourcesRequest;
                $body
            }
            43 => {
                type $Request = ElectLeadersRequest;
                $body
            }
            45 => {
                type $Request = AlterPartitionReassignmentsRequest;
                $body
            }
            46 => {
                type $Request = ListPartitionReassignmentsRequest;
                $body
            }
            55 => {
                type $Request = DescribeQuorumRequest;
                $body
            }
            57 => {
                type $Request = UpdateFeaturesRequest;
                $body
            }
            60 => {
                type $Request = DescribeClusterRequest;
                $body
            }
            64 => {
                type $Request = UnregisterBrokerRequest;
                $body
            }
            65 => {
                type $Request = DescribeTransactionsRequest;
                $body
            }
            66 => {
                type $Request = ListTransactionsRequest;
                $body
            }
            75 => {
                type $Request = DescribeTopicPartitionsRequest;
                $body
            }
            key => panic!("no request type for api key {key}"),
        }
    };
}

mod live;
mod log_life;

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

fn encoded(message: &impl Encodable, version: i16) -> Bytes {
    let mut bytes = BytesMut::new();
    message.encode(&mut bytes, version).unwrap();
    bytes.freeze()
}

/// A request of each API that uses all of its fields, in every version that is served.
fn sample(key: i16, version: i16) -> Bytes {
    let version = later::layout(key, version);
    match key {
        0 => encoded(&produce(version), version),
        1 => encoded(&fetch(version), version),
        2 => encoded(&list_offsets(version), version),
        3 => encoded(&metadata(version), version),
        10 => encoded(&find_coordinator(version), version),
        18 if version >= 3 => {
            let request = ApiVersionsRequest::default().with_client_software_name(text("a"));
            encoded(&request.with_client_software_version(text("1.2")), version)
        }
        16 => {
            let request = ListGroupsRequest::default();
            let request =
                if version >= 4 { request.with_states_filter(vec![text("Stable")]) } else { request };
            let types = vec![text("classic"), text("consumer")];
            encoded(&if version >= 5 { request.with_types_filter(types) } else { request }, version)
        }
        18 => encoded(&ApiVersionsRequest::default(), version),
        19 => encoded(&create_topics(), version),
        21 => encoded(&delete_records(), version),
        22 => encoded(&init_producer_id(version), version),
        23 => encoded(&offset_for_leader_epoch(), version),
        61 => encoded(&describe_producers(), version),
        20 => encoded(&delete_topics(version), version),
        37 => encoded(&create_partitions(), version),
        32 => encoded(&describe_configs(version), version),
        33 => encoded(&alter_configs(), version),
        44 => encoded(&incremental_alter_configs(), version),
        48 => encoded(&describe_client_quotas(), version),
        50 => encoded(&describe_user_scram_credentials(), version),
        74 => encoded(&list_config_resources(version), version),
        34..=35 | 43..=46 | 55..=60 | 64..=66 | 75 => cluster_sample(key, version),
        key => panic!("no sample for api key {key}"),
    }
}

fn delete_records() -> DeleteRecordsRequest {
    use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
    let partition = DeleteRecordsPartition::default().with_partition_index(1).with_offset(7);
    let topic = DeleteRecordsTopic::default().with_name(TopicName(text("t")));
    let topics = vec![topic.clone(), topic.with_partitions(vec![partition.clone(), partition])];
    DeleteRecordsRequest::default().with_topics(topics).with_timeout_ms(9)
}

fn offset_for_leader_epoch() -> OffsetForLeaderEpochRequest {
    use kafka_protocol::messages::offset_for_leader_epoch_request::{
        OffsetForLeaderPartition, OffsetForLeaderTopic,
    };
    let partition = OffsetForLeaderPartition::default().with_partition(1).with_leader_epoch(7);
    let topic = OffsetForLeaderTopic::default().with_topic(TopicName(text("t")));
    let topics = vec![topic.clone(), topic.with_partitions(vec![partition.clone(), partition])];
    OffsetForLeaderEpochRequest::default().with_topics(topics)
}

fn describe_producers() -> DescribeProducersRequest {
    use kafka_protocol::messages::describe_producers_request::TopicRequest;
    let topic = TopicRequest::default().with_name(TopicName(text("t")));
    let topics = vec![topic.clone(), topic.with_partition_indexes(vec![1, 2, 3])];
    DescribeProducersRequest::default().with_topics(topics)
}

fn produce(version: i16) -> ProduceRequest {
    use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
    let records = [Some(Bytes::from_static(b"not checked here")), Some(Bytes::new()), None];
    let partition = |records| PartitionProduceData::default().with_index(7).with_records(records);
    let topic = TopicProduceData::default().with_partition_data(records.map(partition).to_vec());
    let named = |name| {
        let topic = topic.clone();
        if version >= 13 {
            topic.with_topic_id(Uuid::from_u128(5))
        } else {
            topic.with_name(TopicName(text(name)))
        }
    };
    ProduceRequest::default()
        .with_transactional_id(Some(TransactionalId(text("t"))))
        .with_acks(-1)
        .with_timeout_ms(1000)
        .with_topic_data(vec![named("one"), named("another")])
}

fn fetch(version: i16) -> FetchRequest {
    use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic, ReplicaState};
    let mut partition =
        FetchPartition::default().with_partition(3).with_fetch_offset(9).with_partition_max_bytes(1);
    if version >= 9 {
        partition.current_leader_epoch = 4;
    }
    if version >= 12 {
        partition.last_fetched_epoch = 4;
    }
    if version >= 17 {
        partition.replica_directory_id = Uuid::from_u128(8);
    }
    if version >= 18 {
        partition.high_watermark = 5;
    }
    let mut topic = FetchTopic::default().with_partitions(vec![partition.clone(), partition]);
    let mut forgotten = ForgottenTopic::default().with_partitions(vec![1, 2, 3]);
    if version >= 13 {
        (topic.topic_id, forgotten.topic_id) = (Uuid::from_u128(1), Uuid::from_u128(2));
    } else {
        (topic.topic, forgotten.topic) = (TopicName(text("topic")), TopicName(text("f")));
    }
    let mut request = FetchRequest::default().with_max_wait_ms(5).with_topics(vec![topic.clone(), topic]);
    if version >= 7 {
        request =
            request.with_session_id(3).with_session_epoch(4).with_forgotten_topics_data(vec![forgotten]);
    }
    if version >= 11 {
        request.rack_id = text("rack");
    }
    if version >= 12 {
        request.cluster_id = Some(text("cluster"));
    }
    if version >= 15 {
        request.replica_state = ReplicaState::default().with_replica_id(BrokerId(1)).with_replica_epoch(2);
    }
    request
}

fn list_offsets(version: i16) -> ListOffsetsRequest {
    use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
    let mut partition = ListOffsetsPartition::default().with_partition_index(3).with_timestamp(-1);
    if version >= 4 {
        partition.current_leader_epoch = 1;
    }
    let topic = ListOffsetsTopic::default()
        .with_name(TopicName(text("topic")))
        .with_partitions(vec![partition.clone(), partition]);
    let mut request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
    if version >= 2 {
        request.isolation_level = 1;
    }
    if version >= 10 {
        request.timeout_ms = 7;
    }
    request
}

fn metadata(version: i16) -> MetadataRequest {
    use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
    let mut topics = vec![MetadataRequestTopic::default().with_name(Some(TopicName(text("topic"))))];
    if version >= 12 {
        topics.push(MetadataRequestTopic::default().with_name(None).with_topic_id(Uuid::from_u128(3)));
    }
    let mut request = MetadataRequest::default().with_topics(Some(topics));
    if version >= 4 {
        request.allow_auto_topic_creation = true;
    }
    if version >= 8 {
        request.include_topic_authorized_operations = true;
    }
    request
}

fn find_coordinator(version: i16) -> FindCoordinatorRequest {
    let request = FindCoordinatorRequest::default();
    let request = if version >= 1 { request.with_key_type(1) } else { request };
    if version >= 4 {
        request.with_coordinator_keys(vec![text("one"), text(""), text("another")])
    } else {
        request.with_key(text("group"))
    }
}

fn create_topics() -> CreateTopicsRequest {
    use kafka_protocol::messages::create_topics_request::*;
    let config = |value| CreatableTopicConfig::default().with_name(text("retention.ms")).with_value(value);
    let assignment = |index| {
        CreatableReplicaAssignment::default()
            .with_partition_index(index)
            .with_broker_ids(vec![BrokerId(1), BrokerId(2)])
    };
    let topic = CreatableTopic::default()
        .with_name(TopicName(text("topic")))
        .with_num_partitions(3)
        .with_replication_factor(2)
        .with_assignments(vec![assignment(0), assignment(1)])
        .with_configs(vec![config(Some(text("1"))), config(None)]);
    CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(1).with_validate_only(true)
}

fn cluster_sample(key: i16, version: i16) -> Bytes {
    match key {
        34 => {
            use kafka_protocol::messages::alter_replica_log_dirs_request::*;
            let topic = AlterReplicaLogDirTopic::default()
                .with_name(TopicName(text("topic")))
                .with_partitions(vec![0, 1]);
            let directory = AlterReplicaLogDir::default()
                .with_path(text("/data"))
                .with_topics(vec![topic.clone(), topic]);
            encoded(&AlterReplicaLogDirsRequest::default().with_dirs(vec![directory]), version)
        }
        35 => {
            use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
            let topic = DescribableLogDirTopic::default()
                .with_topic(TopicName(text("topic")))
                .with_partitions(vec![0, 1]);
            encoded(&DescribeLogDirsRequest::default().with_topics(Some(vec![topic.clone(), topic])), version)
        }
        43 => encoded(&elect_leaders(version), version),
        45 => encoded(&alter_reassignments(), version),
        46 => {
            use kafka_protocol::messages::list_partition_reassignments_request::ListPartitionReassignmentsTopics;
            let topic = ListPartitionReassignmentsTopics::default()
                .with_name(TopicName(text("topic")))
                .with_partition_indexes(vec![1, 2]);
            encoded(&ListPartitionReassignmentsRequest::default().with_topics(Some(vec![topic])), version)
        }
        55 => {
            use kafka_protocol::messages::describe_quorum_request::{PartitionData, TopicData};
            let topic = TopicData::default()
                .with_topic_name(TopicName(text("__cluster_metadata")))
                .with_partitions(vec![PartitionData::default(), PartitionData::default()]);
            encoded(&DescribeQuorumRequest::default().with_topics(vec![topic]), version)
        }
        57 => encoded(&update_features(version), version),
        60 => {
            let request = DescribeClusterRequest::default().with_include_cluster_authorized_operations(true);
            let request = if version >= 1 { request.with_endpoint_type(1) } else { request };
            encoded(&request, version)
        }
        64 => encoded(&UnregisterBrokerRequest::default().with_broker_id(BrokerId(7)), version),
        65 => {
            let ids = vec![TransactionalId(text("one")), TransactionalId(text(""))];
            encoded(&DescribeTransactionsRequest::default().with_transactional_ids(ids), version)
        }
        66 => {
            let request = ListTransactionsRequest::default()
                .with_state_filters(vec![text("Ongoing"), text("Nonsense")])
                .with_producer_id_filters(vec![ProducerId(1), ProducerId(2)]);
            let request =
                if version >= 2 { request.with_transactional_id_pattern(Some(text("a.*"))) } else { request };
            encoded(&if version >= 1 { request.with_duration_filter(5) } else { request }, version)
        }
        75 => encoded(&describe_topic_partitions(), version),
        key => panic!("no sample for api key {key}"),
    }
}

fn elect_leaders(version: i16) -> ElectLeadersRequest {
    use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
    let topic = TopicPartitions::default().with_topic(TopicName(text("topic"))).with_partitions(vec![0, 1]);
    let request = ElectLeadersRequest::default().with_topic_partitions(Some(vec![topic]));
    if version >= 1 { request.with_election_type(1) } else { request }
}

fn alter_reassignments() -> AlterPartitionReassignmentsRequest {
    use kafka_protocol::messages::alter_partition_reassignments_request::{
        ReassignablePartition, ReassignableTopic,
    };
    let partition =
        |replicas| ReassignablePartition::default().with_partition_index(1).with_replicas(replicas);
    let topic = ReassignableTopic::default()
        .with_name(TopicName(text("topic")))
        .with_partitions(vec![partition(None), partition(Some(vec![BrokerId(1), BrokerId(2)]))]);
    AlterPartitionReassignmentsRequest::default().with_topics(vec![topic])
}

fn update_features(version: i16) -> UpdateFeaturesRequest {
    use kafka_protocol::messages::update_features_request::FeatureUpdateKey;
    let update = FeatureUpdateKey::default().with_feature(text("metadata.version")).with_max_version_level(3);
    let update = if version >= 1 { update.with_upgrade_type(2) } else { update.with_allow_downgrade(true) };
    let request = UpdateFeaturesRequest::default().with_feature_updates(vec![update.clone(), update]);
    if version >= 1 { request.with_validate_only(true) } else { request }
}

fn describe_topic_partitions() -> DescribeTopicPartitionsRequest {
    use kafka_protocol::messages::describe_topic_partitions_request::{Cursor, TopicRequest};
    let topic = TopicRequest::default().with_name(TopicName(text("topic")));
    let cursor = Cursor::default().with_topic_name(TopicName(text("topic"))).with_partition_index(2);
    DescribeTopicPartitionsRequest::default().with_topics(vec![topic]).with_cursor(Some(cursor))
}

fn delete_topics(version: i16) -> DeleteTopicsRequest {
    use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
    let request = DeleteTopicsRequest::default().with_timeout_ms(1);
    if version >= 6 {
        let by_name = DeleteTopicState::default().with_name(Some(TopicName(text("topic"))));
        let by_id = DeleteTopicState::default().with_name(None).with_topic_id(Uuid::from_u128(3));
        request.with_topics(vec![by_name, by_id])
    } else {
        request.with_topic_names(vec![TopicName(text("topic")), TopicName(text("another"))])
    }
}

fn create_partitions() -> CreatePartitionsRequest {
    use kafka_protocol::messages::create_partitions_request::{
        CreatePartitionsAssignment, CreatePartitionsTopic,
    };
    let assignment = CreatePartitionsAssignment::default().with_broker_ids(vec![BrokerId(1), BrokerId(2)]);
    let topic = CreatePartitionsTopic::default().with_name(TopicName(text("topic"))).with_count(3);
    let manual = topic.clone().with_assignments(Some(vec![assignment.clone(), assignment]));
    CreatePartitionsRequest::default()
        .with_topics(vec![topic.with_assignments(None), manual])
        .with_timeout_ms(1)
        .with_validate_only(true)
}

fn init_producer_id(version: i16) -> InitProducerIdRequest {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(Some(TransactionalId(text("t"))))
        .with_transaction_timeout_ms(3);
    if version >= 3 { request.with_producer_id(ProducerId(4)).with_producer_epoch(1) } else { request }
}

fn describe_configs(version: i16) -> DescribeConfigsRequest {
    use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
    let resource = |kind, keys| {
        DescribeConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(text("1"))
            .with_configuration_keys(keys)
    };
    let keys = vec![text("retention.ms"), text("")];
    let request = DescribeConfigsRequest::default()
        .with_resources(vec![resource(2, Some(keys)), resource(4, None)])
        .with_include_synonyms(true);
    if version >= 3 { request.with_include_documentation(true) } else { request }
}

fn alter_configs() -> AlterConfigsRequest {
    use kafka_protocol::messages::alter_configs_request::{AlterConfigsResource, AlterableConfig};
    let config = |value| AlterableConfig::default().with_name(text("retention.ms")).with_value(value);
    let resource = AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text("topic"))
        .with_configs(vec![config(Some(text("1"))), config(None)]);
    AlterConfigsRequest::default().with_resources(vec![resource.clone(), resource]).with_validate_only(true)
}

fn incremental_alter_configs() -> IncrementalAlterConfigsRequest {
    use kafka_protocol::messages::incremental_alter_configs_request::{
        AlterConfigsResource, AlterableConfig,
    };
    let config = |operation, value| {
        AlterableConfig::default()
            .with_name(text("retention.ms"))
            .with_config_operation(operation)
            .with_value(value)
    };
    let resource = AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text("topic"))
        .with_configs(vec![config(0, Some(text("1"))), config(1, None)]);
    let request = IncrementalAlterConfigsRequest::default().with_validate_only(true);
    request.with_resources(vec![resource.clone(), resource])
}

fn describe_client_quotas() -> DescribeClientQuotasRequest {
    use kafka_protocol::messages::describe_client_quotas_request::ComponentData;
    let component = |kind, word: Option<&'static str>| {
        let component = ComponentData::default().with_entity_type(text(kind));
        component.with_match_type(i8::from(word.is_none())).with_match(word.map(text))
    };
    let components = vec![component("user", Some("alice")), component("client-id", None)];
    DescribeClientQuotasRequest::default().with_components(components).with_strict(true)
}

fn describe_user_scram_credentials() -> DescribeUserScramCredentialsRequest {
    use kafka_protocol::messages::describe_user_scram_credentials_request::UserName;
    let users = ["alice", "bob"].map(|name| UserName::default().with_name(text(name)));
    DescribeUserScramCredentialsRequest::default().with_users(Some(users.to_vec()))
}

fn list_config_resources(version: i16) -> ListConfigResourcesRequest {
    let request = ListConfigResourcesRequest::default();
    if version >= 1 { request.with_resource_types(vec![2, 4]) } else { request }
}

/// How many bytes the decoder takes, if it takes them at all.
fn decoded(key: i16, version: i16, body: &Bytes) -> Option<usize> {
    let version = later::layout(key, version);
    let mut rest = body.clone();
    with_request!(key, R => drop(R::decode(&mut rest, version).ok()?));
    Some(body.len() - rest.remaining())
}

fn pairs() -> impl Iterator<Item = (&'static Api, i16)> {
    APIS.iter().flat_map(|api| api.versions.clone().map(move |version| (api, version)))
}

#[test]
fn the_table_is_sorted_and_within_what_the_crate_knows() {
    assert!(APIS.is_sorted_by(|one, other| one.key < other.key));
    for api in APIS {
        let known = with_request!(api.key, R => R::VERSIONS);
        for version in api.versions.clone() {
            let layout = api.layout(version);
            assert!(known.min <= layout && layout <= known.max, "{} {version}", api.name);
            assert!(layout == version || version > known.max, "the crate knows {} {version} now", api.name);
            assert_eq!(version >= api.shape.flexible_from, layout >= api.shape.flexible_from);
        }
        assert_eq!(ApiKey::try_from(api.key).map(|key| format!("{key:?}")), Ok(api.name.to_owned()));
        assert!(api.advertised_from <= *api.versions.start());
    }
}

#[test]
fn headers_are_those_of_the_protocol() {
    for (api, version) in pairs() {
        let key = ApiKey::try_from(api.key).unwrap();
        let route = api.route(version);
        assert_eq!(route.request_header_version, with_request!(api.key, R => R::header_version(version)));
        assert_eq!(
            route.response_header_version,
            key.response_header_version(version),
            "{} {version}",
            api.name
        );
    }
}

#[test]
fn a_valid_request_is_walked_and_decoded_to_its_last_byte() {
    for (api, version) in pairs() {
        let body = sample(api.key, version);
        let measured = api.shape.measure(&body, version).unwrap();
        assert_eq!(measured.length, body.len(), "{} {version}", api.name);
        assert_eq!(decoded(api.key, version, &body), Some(body.len()));
        let layout = api.layout(version);
        let again =
            with_request!(api.key, R => encoded(&R::decode(&mut body.clone(), layout).unwrap(), layout));
        assert_eq!(again, body);
        // Trailing bytes are left alone.
        let longer = Bytes::from([&body[..], b"trailing"].concat());
        assert_eq!(api.shape.measure(&longer, version), Ok(measured));
    }
}

#[test]
fn a_request_cut_anywhere_is_malformed() {
    for (api, version) in pairs() {
        let body = sample(api.key, version);
        for length in 0..body.len() {
            let cut = body.slice(..length);
            assert!(api.shape.measure(&cut, version).is_err(), "{} {version} cut at {length}", api.name);
            assert_eq!(decoded(api.key, version, &cut), None);
        }
    }
}

#[test]
fn the_fifteen_bytes_that_ask_for_412_gigabytes() {
    // Produce 9: null transactional id, acks, timeout, and an array of 2^32 − 2 topics.
    let body = [&[0u8; 7][..], &[0xff, 0xff, 0xff, 0xff, 0x0f]].concat();
    let api = Api::of(produce::API.key).unwrap();
    assert_eq!(api.shape.measure(&body, 9), Err(shape::Malformed::Truncated));
}

#[test]
fn decoding_is_charged_for() {
    let api = Api::of(metadata::API.key).unwrap();
    let count = 100_000usize;
    // Version 0: topics with names of no characters.
    let body = [&(count as u32).to_be_bytes()[..], &vec![0; 2 * count]].concat();
    let measured = api.shape.measure(&body, 0).unwrap();
    let decoded = MetadataRequest::decode(&mut Bytes::from(body), 0).unwrap().topics.unwrap();
    assert!(measured.memory >= decoded.capacity() * size_of::<metadata_request::MetadataRequestTopic>());
}

#[test]
fn a_string_longer_than_any_can_be_is_refused() {
    let api = Api::of(fetch::API.key).unwrap();
    // A compact length could say more than what version 11 can carry back.
    for (length, passes) in [(249, true), (0x7fff, true), (0x8000, false), (100_000, false)] {
        let name = StrBytes::from_string("x".repeat(length));
        let topic = fetch_request::FetchTopic::default().with_topic(TopicName(name));
        let body = encoded(&FetchRequest::default().with_topics(vec![topic]), 12);
        let expected = if passes { Ok(body.len()) } else { Err(shape::Malformed::TextLength(length)) };
        assert_eq!(api.shape.measure(&body, 12).map(|measured| measured.length), expected);
    }
}

#[test]
fn an_answer_is_charged_for_by_the_element() {
    use kafka_protocol::messages::{
        alter_partition_reassignments_request as moved, describe_quorum_request as quorum,
        offset_for_leader_epoch_request as epochs,
    };
    const COUNT: usize = 1000;
    let moved = moved::ReassignableTopic::default()
        .with_partitions(vec![moved::ReassignablePartition::default().with_replicas(None); COUNT]);
    let moved = AlterPartitionReassignmentsRequest::default().with_topics(vec![moved]);
    let quorum = quorum::TopicData::default().with_partitions(vec![quorum::PartitionData::default(); COUNT]);
    let quorum = DescribeQuorumRequest::default().with_topics(vec![quorum]);
    let epochs = epochs::OffsetForLeaderTopic::default()
        .with_partitions(vec![epochs::OffsetForLeaderPartition::default(); COUNT]);
    let epochs = OffsetForLeaderEpochRequest::default().with_topics(vec![epochs]);
    for (key, body, each) in [
        (reassignments::ALTER.key, encoded(&moved, 1), 640),
        (describe_quorum::API.key, encoded(&quorum, 2), 200),
        (offset_for_leader_epoch::API.key, encoded(&epochs, 4), 200),
    ] {
        let api = Api::of(key).unwrap();
        let measured = api.shape.measure(&body, *api.versions.end()).unwrap();
        assert!(measured.memory >= each * COUNT, "{}: {} bytes charged", api.name, measured.memory);
    }
}

/// Whatever passes the walk must be harmless to decode, and mean the same bytes.
fn check(api: &Api, version: i16, body: Vec<u8>) {
    if let Ok(measured) = api.shape.measure(&body, version)
        && let Some(length) = decoded(api.key, version, &Bytes::from(body))
    {
        assert_eq!(measured.length, length, "{} {version}", api.name);
    }
}

#[test]
fn extremes_in_every_place() {
    let extremes: [&[u8]; 6] = [
        &[0xff; 4],
        &[0x7f, 0xff, 0xff, 0xff],
        &[0x80, 0, 0, 0],
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[0x7f, 0xff],
    ];
    for (api, version) in pairs() {
        let body = sample(api.key, version);
        for at in 0..body.len() {
            for extreme in extremes {
                let replaced = [&body[..at], extreme, body.get(at + extreme.len()..).unwrap_or(&[])].concat();
                check(api, version, replaced);
                check(api, version, [&body[..at], extreme, &body[at + 1..]].concat());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn noise_is_harmless(row in 0..APIS.len(), pick in any::<i16>(), body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let api = &APIS[row];
        let version = api.versions.start() + pick.rem_euclid(api.versions.end() - api.versions.start() + 1);
        check(api, version, body);
    }

    #[test]
    fn flipped_bits_are_harmless(
        row in 0..APIS.len(),
        pick in any::<i16>(),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), 0u8..8), 1..6),
    ) {
        let api = &APIS[row];
        let version = api.versions.start() + pick.rem_euclid(api.versions.end() - api.versions.start() + 1);
        let mut body = sample(api.key, version).to_vec();
        if body.is_empty() {
            return Ok(());
        }
        for (at, bit) in flips {
            let at = at.index(body.len());
            body[at] ^= 1 << bit;
        }
        check(api, version, body);
    }
}
