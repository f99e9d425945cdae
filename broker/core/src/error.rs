//! Kafka's error codes, as a broker answers them. No layer invents numbers; `None` where an `Option` of it stands is
//! success (code 0).

pub use kafka_protocol::error::ResponseError;

/// The number on the wire for an outcome.
pub fn code_of(error: Option<ResponseError>) -> i16 {
    error.map_or(0, |error| error.code())
}
