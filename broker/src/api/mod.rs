//! What the broker serves: a table with one row per API, and a file per API that is named for it.
//!
//! The table is data. ApiVersions answers from it, connections decide from it how to read a header and whether requests
//! may overlap, and each row names the operation and resource that a client needs to be allowed. A handler decodes,
//! asks the layer to its right (replicas, controller) and puts the answer together. To add an API: write its file with
//! `KEY`, `SHAPE` and `start`, and add its row. Never: protocol state, a lock held across a wait.

pub mod context;
mod exchange;
pub mod fetch_response;
pub mod shape;

pub use context::{ClientSoftware, ConnectionContext, Operation, Principal, RequestContext, Resource};
pub use exchange::{Answer, BadRequest, Envelope, Reply, Request, Route, Service, TooLong};
