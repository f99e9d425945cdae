//! Kafka's error codes, as a broker answers them.

/// A Kafka error code as it goes over the wire. Re-exported so that no layer invents numbers.
pub use kafka_protocol::error::ResponseError;

/// `None` is success (code 0).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCode {
    /// Code 0.
    None,
    /// Any other code.
    Error(ResponseError),
}

impl ErrorCode {
    /// The number on the wire.
    pub fn code(self) -> i16 {
        match self {
            ErrorCode::None => 0,
            ErrorCode::Error(error) => error.code(),
        }
    }
}

impl From<ResponseError> for ErrorCode {
    fn from(error: ResponseError) -> Self {
        ErrorCode::Error(error)
    }
}

impl<T> From<&Result<T, ResponseError>> for ErrorCode {
    fn from(result: &Result<T, ResponseError>) -> Self {
        match result {
            Ok(_) => ErrorCode::None,
            Err(error) => ErrorCode::Error(*error),
        }
    }
}
