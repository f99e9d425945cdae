//! Who asks: what a handler may know about the connection and the client behind a request.
//!
//! Exists from the first day so that authentication, authorization and quotas are filled in here and in the table of
//! [`crate::api`], without touching a handler. Never: wire formats, or a decision that depends on a client's software.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, OnceLock},
};

/// Kafka's principal: a type and a name, `User:alice`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Principal {
    /// `User` for all that authenticate over a connection.
    pub kind: Arc<str>,
    /// The name within that type.
    pub name: Arc<str>,
}

impl Principal {
    /// Whoever comes in over a listener that does not authenticate.
    pub fn anonymous() -> Self {
        Self { kind: "User".into(), name: "ANONYMOUS".into() }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.name)
    }
}

/// What a client says about itself in ApiVersions 3+ (KIP-511). For logs and metrics only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientSoftware {
    /// For example `apache-kafka-java`.
    pub name: String,
    /// For example `4.3.1`.
    pub version: String,
}

/// What all requests of a connection share.
#[derive(Debug)]
pub struct ConnectionContext {
    /// Counts up over the life of the process; for logs.
    pub id: u64,
    /// The other end.
    pub peer: SocketAddr,
    /// Name of the listener that the connection came in on; decides which endpoints Metadata shows.
    pub listener: Arc<str>,
    /// Who the connection speaks for.
    pub principal: Principal,
    software: OnceLock<ClientSoftware>,
}

impl ConnectionContext {
    /// A connection that has not introduced itself yet.
    pub fn new(id: u64, peer: SocketAddr, listener: Arc<str>, principal: Principal) -> Self {
        Self { id, peer, listener, principal, software: OnceLock::new() }
    }

    /// Remembers the first introduction; later ones are ignored.
    pub fn introduce(&self, software: ClientSoftware) {
        let _ = self.software.set(software);
    }

    /// The introduction, if there was one.
    pub fn software(&self) -> Option<&ClientSoftware> {
        self.software.get()
    }
}

impl fmt::Display for ConnectionContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connection {} from {} on {}", self.id, self.peer, self.listener)?;
        match self.software() {
            Some(software) => write!(f, " ({} {})", software.name, software.version),
            None => Ok(()),
        }
    }
}

/// What a handler gets beside the body of a request.
#[derive(Debug, Clone)]
pub struct RequestContext {
    /// Shared by all requests of the connection.
    pub connection: Arc<ConnectionContext>,
    /// `client.id` from the request header; quotas are kept by it and the principal.
    pub client_id: Option<Arc<str>>,
}

impl RequestContext {
    /// `throttle_time_ms` of the answer. Every handler asks, so that quotas have one place to come in; as long as none
    /// can be configured there is nothing to throttle.
    pub fn throttle_ms(&self) -> i32 {
        0
    }
}

/// Kafka's ACL operations, as far as a row of the api table names one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Nothing is asked of the client.
    None,
    Read,
    Write,
    Create,
    Delete,
    Alter,
    AlterConfigs,
    Describe,
    DescribeConfigs,
    IdempotentWrite,
}

/// What an operation is done to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    Cluster,
    Topic,
    /// A consumer group or a transactional id, depending on the request's key type.
    Coordinated,
}
