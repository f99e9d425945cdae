//! What can happen to the metadata, and what comes of it. Both are stored and sent: new variants and fields only.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Listener;
use crate::{BrokerId, ProducerId, TopicId, error::ResponseError};

/// One event. Its randomness (ids) and its choices (assignments) were made before it was proposed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Names the cluster; the first one wins.
    NameCluster { cluster_id: Arc<str> },
    /// A broker has started. It may have lost its memory of what it led, so each partition that it leads gets a new
    /// leader epoch.
    RegisterBroker { id: BrokerId, incarnation: Uuid, listeners: Vec<Listener>, rack: Option<String> },
    /// `assignment` has one list of replicas per partition; the first of each leads.
    CreateTopic {
        name: Arc<str>,
        id: TopicId,
        assignment: Vec<Vec<BrokerId>>,
        configs: BTreeMap<String, String>,
    },
    /// By id, so that a namesake created meanwhile is safe.
    DeleteTopic { id: TopicId },
    /// The next `count` producer ids are `broker`'s to give out.
    AllocateProducerIds { broker: BrokerId, count: i32 },
}

/// What applying a command gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    Done,
    BrokerRegistered {
        epoch: i64,
    },
    ProducerIds {
        first: ProducerId,
        count: i32,
    },
    /// Nothing changed. A Kafka error code and its reason.
    Refused {
        code: i16,
        message: String,
    },
}

impl Response {
    pub(super) fn refused(error: ResponseError, message: impl Into<String>) -> Self {
        Self::Refused { code: error.code(), message: message.into() }
    }

    /// The refusal as an error, for callers who only want to know that it is done.
    pub fn done(self) -> Result<Response, (ResponseError, String)> {
        match self {
            Self::Refused { code, message } => {
                let error = ResponseError::try_from_code(code).unwrap_or(ResponseError::UnknownServerError);
                Err((error, message))
            }
            other => Ok(other),
        }
    }
}
