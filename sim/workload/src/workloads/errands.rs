//! A client that asks for whatever else a broker serves, as tools and dashboards do: each API now and then, most answers known
//! beforehand.
//!
//! The model: what there is one of stays what it is (the cluster's id), what only grows does not fall (the quorum's epoch and
//! high watermark), what is not there is said not to be there, and what is asked as a dry run changes nothing (the laws about
//! configurations see to that). A broker that cannot answer now is asked again later.
//! Never: a request that would change anything.

use std::{any::Any, collections::BTreeSet, sync::Arc, time::Duration};

use gracchus_checker::EventKind;
use kafka_protocol::{
    messages::{
        AlterConfigsRequest, AlterPartitionReassignmentsRequest, AlterReplicaLogDirsRequest,
        DescribeClientQuotasRequest, DescribeClusterRequest, DescribeLogDirsRequest,
        DescribeProducersRequest, DescribeQuorumRequest, DescribeTopicPartitionsRequest,
        DescribeTransactionsRequest, DescribeUserScramCredentialsRequest, ElectLeadersRequest,
        FindCoordinatorRequest, ListConfigResourcesRequest, ListGroupsRequest,
        ListPartitionReassignmentsRequest, ListTransactionsRequest, TopicName, UnregisterBrokerRequest,
        UpdateFeaturesRequest,
        alter_configs_request::{AlterConfigsResource, AlterableConfig},
        alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic},
        alter_replica_log_dirs_request::{AlterReplicaLogDir, AlterReplicaLogDirTopic},
        describe_log_dirs_request::DescribableLogDirTopic,
        describe_producers_request::TopicRequest as ProducersOfTopic,
        describe_quorum_request::{PartitionData, TopicData},
        describe_topic_partitions_request::TopicRequest,
        describe_user_scram_credentials_request::UserName,
        elect_leaders_request::TopicPartitions,
        update_features_request::FeatureUpdateKey,
    },
    protocol::{Request, StrBytes},
};
use rand::{Rng, seq::IndexedRandom};

use super::{Context, until_drain};
use crate::{
    client::{ClientError, Topic, is_retriable, serves},
    plan::ErrandsPlan,
};

/// Law: what else is asked is answered as it should be.
const ANSWERED: &str = "errand_answered";

const COORDINATOR_NOT_AVAILABLE: i16 = 15;
const INVALID_REPLICA_ASSIGNMENT: i16 = 39;
const INVALID_REQUEST: i16 = 42;
const KAFKA_STORAGE_ERROR: i16 = 56;
const LOG_DIR_NOT_FOUND: i16 = 57;
const PREFERRED_LEADER_NOT_AVAILABLE: i16 = 80;
const ELECTION_NOT_NEEDED: i16 = 84;
const RESOURCE_NOT_FOUND: i16 = 91;
const INVALID_UPDATE_VERSION: i16 = 95;
const BROKER_ID_NOT_REGISTERED: i16 = 102;
const TRANSACTIONAL_ID_NOT_FOUND: i16 = 105;
/// A broker that never was.
const NOBODY: i32 = 99;

/// Asks until the drain begins.
pub(crate) async fn run_errands(mut context: Context, plan: ErrandsPlan) {
    let phase = context.phase.clone();
    until_drain(phase, async {
        let pause = Duration::from_millis(1_000 / u64::from(plan.rate.max(1)));
        let mut known = Known::default();
        loop {
            context.link.env.sleep(pause).await;
            let topic = context.topics.choose(&mut context.random).cloned().expect("a plan has topics");
            let which = context.random.random_range(0..ERRANDS);
            match errand(&mut context, &topic, which, &mut known).await {
                Ok(Verdict::Right) => context.recorder.progress(),
                Ok(Verdict::Later) => context.link.back_off().await,
                Ok(Verdict::Wrong(story)) => context.recorder.complain(ANSWERED, story),
                Err(error) => context.link.failed(&error).await,
            }
        }
    })
    .await;
}

/// What was told before.
#[derive(Debug, Default)]
struct Known {
    cluster_id: Option<String>,
    /// Epoch and high watermark of the metadata quorum.
    quorum: (i32, i64),
}

/// What an answer is worth.
#[derive(Debug)]
enum Verdict {
    Right,
    /// The broker cannot tell now.
    Later,
    Wrong(String),
}

/// `code` is one of `right`, or says that it may be another later.
fn coded(what: &str, code: i16, right: &[i16]) -> Verdict {
    match code {
        code if right.contains(&code) => Verdict::Right,
        code if is_retriable(code) => Verdict::Later,
        code => Verdict::Wrong(format!("{what}: error {code}, not one of {right:?}")),
    }
}

/// Unless `holds`, the answer is wrong.
fn holds(holds: bool, story: impl FnOnce() -> String) -> Verdict {
    if holds { Verdict::Right } else { Verdict::Wrong(story()) }
}

impl Verdict {
    /// This one, unless it is right: then what `next` says.
    fn then(self, next: impl FnOnce() -> Verdict) -> Verdict {
        if let Verdict::Right = self { next() } else { self }
    }
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

async fn call<R: Request + Any>(context: &mut Context, request: &R) -> Result<R::Response, ClientError> {
    let connection = context.link.connection().await;
    connection.call(request, context.link.request_timeout()).await
}

const ERRANDS: usize = 19;

/// One question of one API, by number.
async fn errand(
    context: &mut Context,
    topic: &Arc<Topic>,
    which: usize,
    known: &mut Known,
) -> Result<Verdict, ClientError> {
    match which {
        0 => find_coordinator(context).await,
        1 => {
            let listed = call(context, &ListGroupsRequest::default()).await?;
            Ok(coded("ListGroups", listed.error_code, &[0])
                .then(|| holds(listed.groups.is_empty(), || format!("groups: {:?}", listed.groups))))
        }
        2 => alter_configs(context, topic).await,
        3 => alter_replica_log_dirs(context, topic).await,
        4 => describe_log_dirs(context, topic).await,
        5 => elect_leaders(context, topic).await,
        6 => alter_reassignments(context, topic).await,
        7 => {
            let request =
                ListPartitionReassignmentsRequest::default().with_timeout_ms(1_000).with_topics(None);
            let listed = call(context, &request).await?;
            Ok(coded("ListPartitionReassignments", listed.error_code, &[0])
                .then(|| holds(listed.topics.is_empty(), || format!("reassignments: {:?}", listed.topics))))
        }
        8 => {
            let quotas = call(context, &DescribeClientQuotasRequest::default()).await?;
            let none = quotas.entries.as_ref().is_none_or(Vec::is_empty);
            Ok(coded("DescribeClientQuotas", quotas.error_code, &[0])
                .then(|| holds(none, || format!("quotas: {:?}", quotas.entries))))
        }
        9 => {
            let user = UserName::default().with_name(text("nobody"));
            let request = DescribeUserScramCredentialsRequest::default().with_users(Some(vec![user]));
            let told = call(context, &request).await?;
            let code = told.results.first().map_or(told.error_code, |result| result.error_code);
            Ok(coded("DescribeUserScramCredentials", code, &[RESOURCE_NOT_FOUND]))
        }
        10 => describe_quorum(context, known).await,
        11 => update_features(context).await,
        12 => describe_cluster(context, known).await,
        13 => describe_producers(context, topic).await,
        14 => {
            let request = UnregisterBrokerRequest::default().with_broker_id(NOBODY.into());
            let told = call(context, &request).await?;
            Ok(coded("UnregisterBroker", told.error_code, &[BROKER_ID_NOT_REGISTERED]))
        }
        15 => {
            let request =
                DescribeTransactionsRequest::default().with_transactional_ids(vec![text("nobody").into()]);
            let told = call(context, &request).await?;
            let code = told.transaction_states.first().map_or(0, |state| state.error_code);
            Ok(coded("DescribeTransactions", code, &[TRANSACTIONAL_ID_NOT_FOUND]))
        }
        16 => {
            let listed = call(context, &ListTransactionsRequest::default()).await?;
            let none = listed.transaction_states.is_empty();
            Ok(coded("ListTransactions", listed.error_code, &[0])
                .then(|| holds(none, || format!("transactions: {:?}", listed.transaction_states))))
        }
        17 => list_config_resources(context, topic).await,
        _ => describe_topic_partitions(context, topic).await,
    }
}

async fn find_coordinator(context: &mut Context) -> Result<Verdict, ClientError> {
    const SEVERAL: i16 = 4;
    let version = context.link.connection().await.version::<FindCoordinatorRequest>()?;
    let request = FindCoordinatorRequest::default();
    let request = match version {
        SEVERAL.. => request.with_coordinator_keys(vec![text("nobody")]),
        _ => request.with_key(text("nobody")),
    };
    let found = call(context, &request).await?;
    let code = found.coordinators.first().map_or(found.error_code, |coordinator| coordinator.error_code);
    Ok(coded("FindCoordinator", code, &[COORDINATOR_NOT_AVAILABLE]))
}

/// A dry run: the topic keeps what it has.
async fn alter_configs(context: &mut Context, topic: &Topic) -> Result<Verdict, ClientError> {
    const TOPIC: i8 = 2;
    let config = AlterableConfig::default().with_name(text("retention.ms")).with_value(Some(text("1")));
    let resource = AlterConfigsResource::default()
        .with_resource_type(TOPIC)
        .with_resource_name(topic.wire_name().0)
        .with_configs(vec![config]);
    let request = AlterConfigsRequest::default().with_resources(vec![resource]).with_validate_only(true);
    let altered = call(context, &request).await?;
    Ok(coded("AlterConfigs", altered.responses.first().map_or(-1, |result| result.error_code), &[0]))
}

async fn alter_replica_log_dirs(context: &mut Context, topic: &Topic) -> Result<Verdict, ClientError> {
    let moved = AlterReplicaLogDirTopic::default().with_name(topic.wire_name()).with_partitions(vec![0]);
    let place = AlterReplicaLogDir::default().with_path(text("/nowhere")).with_topics(vec![moved]);
    let told = call(context, &AlterReplicaLogDirsRequest::default().with_dirs(vec![place])).await?;
    let result = told.results.first().and_then(|topic| topic.partitions.first());
    let code = result.map_or(-1, |partition| partition.error_code);
    Ok(coded("AlterReplicaLogDirs", code, &[LOG_DIR_NOT_FOUND]))
}

/// Every log has one place and a size; who asks for one is told of no other.
async fn describe_log_dirs(context: &mut Context, topic: &Topic) -> Result<Verdict, ClientError> {
    let all = context.random.random_bool(0.5);
    let one = DescribableLogDirTopic::default().with_topic(topic.wire_name()).with_partitions(vec![0]);
    let asked = if all { None } else { Some(vec![one]) };
    let told = call(context, &DescribeLogDirsRequest::default().with_topics(asked)).await?;
    let mut places = BTreeSet::new();
    for directory in &told.results {
        if !matches!(directory.error_code, 0 | KAFKA_STORAGE_ERROR) {
            return Ok(coded("DescribeLogDirs", directory.error_code, &[0, KAFKA_STORAGE_ERROR]));
        }
        for told_of in &directory.topics {
            for partition in &told_of.partitions {
                let index = partition.partition_index;
                let fresh = places.insert((told_of.name.to_string(), index));
                let wanted = all || told_of.name.as_str() == &*topic.name && index == 0;
                if !fresh || !wanted || partition.partition_size < 0 || partition.is_future_key {
                    let name = told_of.name.as_str();
                    return Ok(Verdict::Wrong(format!("DescribeLogDirs: {name}-{index}: {partition:?}")));
                }
            }
        }
    }
    Ok(coded("DescribeLogDirs", told.error_code, &[0]))
}

async fn elect_leaders(context: &mut Context, topic: &Topic) -> Result<Verdict, ClientError> {
    let asked = TopicPartitions::default().with_topic(topic.wire_name()).with_partitions(vec![0]);
    let request =
        ElectLeadersRequest::default().with_timeout_ms(1_000).with_topic_partitions(Some(vec![asked]));
    let told = call(context, &request).await?;
    let result = told.replica_election_results.first().and_then(|topic| topic.partition_result.first());
    let code = result.map_or(told.error_code, |result| result.error_code);
    Ok(coded("ElectLeaders", code, &[ELECTION_NOT_NEEDED, PREFERRED_LEADER_NOT_AVAILABLE]))
}

/// To a broker that is not there.
async fn alter_reassignments(context: &mut Context, topic: &Topic) -> Result<Verdict, ClientError> {
    let partition = ReassignablePartition::default().with_replicas(Some(vec![NOBODY.into()]));
    let asked = ReassignableTopic::default().with_name(topic.wire_name()).with_partitions(vec![partition]);
    let request =
        AlterPartitionReassignmentsRequest::default().with_timeout_ms(1_000).with_topics(vec![asked]);
    let told = call(context, &request).await?;
    let result = told.responses.first().and_then(|topic| topic.partitions.first());
    let code = result.map_or(told.error_code, |result| result.error_code);
    Ok(coded("AlterPartitionReassignments", code, &[INVALID_REPLICA_ASSIGNMENT]))
}

/// The quorum's epoch and high watermark do not fall.
async fn describe_quorum(context: &mut Context, known: &mut Known) -> Result<Verdict, ClientError> {
    let name = TopicName(text("__cluster_metadata"));
    let asked = TopicData::default().with_topic_name(name).with_partitions(vec![PartitionData::default()]);
    let told = call(context, &DescribeQuorumRequest::default().with_topics(vec![asked])).await?;
    let Some(partition) = told.topics.first().and_then(|topic| topic.partitions.first()) else {
        return Ok(coded("DescribeQuorum", told.error_code, &[]));
    };
    let now = (partition.leader_epoch, partition.high_watermark);
    let before = known.quorum;
    let verdict = coded("DescribeQuorum", partition.error_code, &[0]).then(|| {
        holds(now.0 >= before.0 && now.1 >= before.1, || {
            format!("DescribeQuorum: (epoch, high watermark) {now:?} after {before:?}")
        })
    });
    if let Verdict::Right = verdict {
        known.quorum = now;
    }
    Ok(verdict)
}

/// Of a feature that is none.
async fn update_features(context: &mut Context) -> Result<Verdict, ClientError> {
    let update = FeatureUpdateKey::default().with_feature(text("nothing.version")).with_max_version_level(1);
    let request = UpdateFeaturesRequest::default().with_timeout_ms(1_000).with_feature_updates(vec![update]);
    let told = call(context, &request).await?;
    let code = told.results.first().map_or(told.error_code, |result| result.error_code);
    let code = if code == 0 { told.error_code } else { code };
    Ok(coded("UpdateFeatures", code, &[INVALID_UPDATE_VERSION, INVALID_REQUEST]))
}

/// The cluster's id stays, and somebody is there.
async fn describe_cluster(context: &mut Context, known: &mut Known) -> Result<Verdict, ClientError> {
    let told = call(context, &DescribeClusterRequest::default()).await?;
    if told.error_code != 0 {
        return Ok(coded("DescribeCluster", told.error_code, &[0]));
    }
    let id = told.cluster_id.to_string();
    let before = known.cluster_id.get_or_insert_with(|| id.clone());
    Ok(holds(*before == id, || format!("DescribeCluster: the cluster's id is {id:?}, it was {before:?}"))
        .then(|| holds(!told.brokers.is_empty(), || "DescribeCluster: no broker is there".to_owned())))
}

/// Each producer once.
async fn describe_producers(context: &mut Context, topic: &Topic) -> Result<Verdict, ClientError> {
    if !serves::<DescribeProducersRequest>(&mut context.link).await {
        return Ok(Verdict::Later);
    }
    let asked = ProducersOfTopic::default().with_name(topic.wire_name()).with_partition_indexes(vec![0]);
    let told = call(context, &DescribeProducersRequest::default().with_topics(vec![asked])).await?;
    let Some(partition) = told.topics.first().and_then(|topic| topic.partitions.first()) else {
        return Ok(Verdict::Wrong("DescribeProducers left out what was asked for".to_owned()));
    };
    let mut ids = BTreeSet::new();
    let odd = partition.active_producers.iter().find(|producer| {
        !ids.insert(producer.producer_id.0) || producer.producer_epoch < 0 || producer.last_sequence < -1
    });
    Ok(coded("DescribeProducers", partition.error_code, &[0])
        .then(|| holds(odd.is_none(), || format!("DescribeProducers of {}: {odd:?}", topic.name))))
}

/// A topic that is there has a configuration.
async fn list_config_resources(context: &mut Context, topic: &Topic) -> Result<Verdict, ClientError> {
    const TOPICS: i16 = 1;
    let version = context.link.connection().await.version::<ListConfigResourcesRequest>()?;
    let listed = call(context, &ListConfigResourcesRequest::default()).await?;
    let name = topic.wire_name().0;
    let there = listed.config_resources.iter().any(|resource| resource.resource_name == name);
    Ok(coded("ListConfigResources", listed.error_code, &[0]).then(|| {
        holds(there || version < TOPICS, || format!("ListConfigResources does not show {}", topic.name))
    }))
}

/// Tells of the topic as metadata do.
async fn describe_topic_partitions(context: &mut Context, topic: &Topic) -> Result<Verdict, ClientError> {
    let asked = TopicRequest::default().with_name(topic.wire_name());
    let request = DescribeTopicPartitionsRequest::default()
        .with_topics(vec![asked])
        .with_response_partition_limit(2_000);
    let invoked_ns = context.recorder.now_ns();
    let told = call(context, &request).await?;
    let Some(shown) = told.topics.first() else {
        return Ok(Verdict::Wrong("DescribeTopicPartitions left out what was asked for".to_owned()));
    };
    if shown.error_code == 0 {
        context.recorder.tell(EventKind::MetadataSeen {
            client: context.number,
            topic: topic.name.clone(),
            topic_id: shown.topic_id.as_u128(),
            partitions: shown.partitions.len() as i32,
            invoked_ns,
        });
    }
    Ok(coded("DescribeTopicPartitions", shown.error_code, &[0]))
}
