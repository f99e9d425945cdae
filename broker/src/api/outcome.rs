//! The error codes that a response carries, for the metrics: Kafka counts each of them, also those of single partitions.
//!
//! Never: a success; kafka-protocol has no word for "all error codes of this message", so every response says here where
//! its own are.

use kafka_protocol::messages as kafka;

/// Error codes, and how often each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ErrorCodes(Vec<(i16, u64)>);

impl ErrorCodes {
    /// Once more; 0 is no error.
    pub fn add(&mut self, code: i16) {
        match self.0.iter_mut().find(|(known, _)| *known == code) {
            _ if code == 0 => {}
            Some((_, count)) => *count += 1,
            None => self.0.push((code, 1)),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each code with its count.
    pub fn iter(&self) -> impl Iterator<Item = (i16, u64)> + '_ {
        self.0.iter().copied()
    }
}

impl Extend<i16> for ErrorCodes {
    fn extend<I: IntoIterator<Item = i16>>(&mut self, codes: I) {
        codes.into_iter().for_each(|code| self.add(code));
    }
}

/// A response that may say errors.
pub trait Outcome {
    /// All of them.
    fn errors(&self) -> ErrorCodes;
}

/// The rest of a path through a message: `.field` is one value, `/field` each of several.
macro_rules! walk {
    ($codes:ident, $at:expr, . $field:ident) => { $codes.add($at.$field) };
    ($codes:ident, $at:expr, / $field:ident $($rest:tt)+) => {
        for part in &$at.$field {
            walk!($codes, part, $($rest)+);
        }
    };
}

/// Where the error codes of responses are.
macro_rules! outcomes {
    ($($response:ident: $([$($path:tt)+])*;)*) => {$(
        impl Outcome for kafka::$response {
            fn errors(&self) -> ErrorCodes {
                #[allow(unused_mut, reason = "a response may have none")]
                let mut codes = ErrorCodes::default();
                $(walk!(codes, self, $($path)+);)*
                codes
            }
        }
    )*};
}

outcomes! {
    AlterConfigsResponse: [/responses.error_code];
    AlterPartitionReassignmentsResponse: [.error_code] [/responses/partitions.error_code];
    AlterReplicaLogDirsResponse: [/results/partitions.error_code];
    ApiVersionsResponse: [.error_code];
    CreatePartitionsResponse: [/results.error_code];
    CreateTopicsResponse: [/topics.error_code];
    DeleteRecordsResponse: [/topics/partitions.error_code];
    DeleteTopicsResponse: [/responses.error_code];
    DescribeClientQuotasResponse: [.error_code];
    DescribeClusterResponse: [.error_code];
    DescribeLogDirsResponse: [.error_code] [/results.error_code];
    DescribeProducersResponse: [/topics/partitions.error_code];
    DescribeQuorumResponse: [.error_code] [/topics/partitions.error_code];
    DescribeTopicPartitionsResponse: [/topics.error_code] [/topics/partitions.error_code];
    DescribeTransactionsResponse: [/transaction_states.error_code];
    DescribeUserScramCredentialsResponse: [.error_code] [/results.error_code];
    ElectLeadersResponse: [.error_code] [/replica_election_results/partition_result.error_code];
    FindCoordinatorResponse: [.error_code] [/coordinators.error_code];
    IncrementalAlterConfigsResponse: [/responses.error_code];
    InitProducerIdResponse: [.error_code];
    ListConfigResourcesResponse: [.error_code];
    ListGroupsResponse: [.error_code];
    ListOffsetsResponse: [/topics/partitions.error_code];
    ListPartitionReassignmentsResponse: [.error_code];
    ListTransactionsResponse: [.error_code];
    MetadataResponse: [.error_code] [/topics.error_code] [/topics/partitions.error_code];
    OffsetForLeaderEpochResponse: [/topics/partitions.error_code];
    ProduceResponse: [/responses/partition_responses.error_code];
    UnregisterBrokerResponse: [.error_code];
    UpdateFeaturesResponse: [.error_code] [/results.error_code];
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};

    use super::*;

    #[test]
    fn errors_are_found_where_they_are() {
        let partition = |code| PartitionProduceResponse::default().with_error_code(code);
        let topic = |codes: &[i16]| {
            let partitions = codes.iter().map(|code| partition(*code)).collect();
            TopicProduceResponse::default().with_partition_responses(partitions)
        };
        let response = kafka::ProduceResponse::default().with_responses(vec![topic(&[0, 3]), topic(&[3, 6])]);
        assert_eq!(response.errors().iter().collect::<Vec<_>>(), [(3, 2), (6, 1)]);
        let response = kafka::ApiVersionsResponse::default();
        assert!(response.errors().is_empty());
        assert_eq!(response.with_error_code(35).errors().iter().collect::<Vec<_>>(), [(35, 1)]);
    }
}
