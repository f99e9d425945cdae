//! Request frames: the size prefix, the fixed front of the header, and which header version goes with which request.
//!
//! Source: the Kafka protocol guide, KIP-482, KIP-511. Pure arithmetic: the connection reads bytes, asks here what
//! they announce, and decodes no more than was announced. Never: let a declared length decide an allocation.

use kafka_protocol::messages::ApiKey;

/// Bytes of the size in front of every frame.
pub const SIZE_LENGTH: usize = 4;
/// The shortest possible header: api key, version, correlation id. (The client id follows in all but a few.)
pub const HEADER_FRONT_LENGTH: usize = 8;
/// `socket.request.max.bytes`, Kafka's default: a longer frame ends the connection.
pub const REQUEST_MAX_BYTES: i32 = 104_857_600;

/// What the first bytes of a request say, before anything is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Front {
    pub api_key: i16,
    pub api_version: i16,
    pub correlation_id: i32,
}

/// Why a frame cannot be served: the connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a request of {0} bytes is impossible")]
    Size(i32),
    #[error("a request of {size} bytes is over the limit of {limit}")]
    TooLarge { size: i32, limit: i32 },
}

/// The body's length that a size prefix announces, if it is within `limit`.
pub fn frame_size(prefix: [u8; SIZE_LENGTH], limit: i32) -> Result<usize, FrameError> {
    let size = i32::from_be_bytes(prefix);
    if size < HEADER_FRONT_LENGTH as i32 {
        return Err(FrameError::Size(size));
    }
    if size > limit { Err(FrameError::TooLarge { size, limit }) } else { Ok(size as usize) }
}

/// The front of a request's header. `None` if there are fewer than [`HEADER_FRONT_LENGTH`] bytes.
pub fn front(frame: &[u8]) -> Option<Front> {
    let frame: &[u8; HEADER_FRONT_LENGTH] = frame.first_chunk()?;
    let [key_high, key_low, version_high, version_low, correlation @ ..] = *frame;
    Some(Front {
        api_key: i16::from_be_bytes([key_high, key_low]),
        api_version: i16::from_be_bytes([version_high, version_low]),
        correlation_id: i32::from_be_bytes(correlation),
    })
}

/// Version of the request header: 2 where the request is flexible, else 1.
pub fn header_version(api_key: ApiKey, api_version: i16) -> i16 {
    api_key.request_header_version(api_version)
}

/// Version of the response header: 1 where the response is flexible, else 0; always 0 for ApiVersions, whose client
/// cannot know yet what the broker speaks.
pub fn response_header_version(api_key: ApiKey, api_version: i16) -> i16 {
    if api_key == ApiKey::ApiVersions { 0 } else { api_key.response_header_version(api_version) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_outside_the_limits_are_refused() {
        assert_eq!(frame_size(8i32.to_be_bytes(), 100), Ok(8));
        assert_eq!(frame_size(100i32.to_be_bytes(), 100), Ok(100));
        assert_eq!(
            frame_size(101i32.to_be_bytes(), 100),
            Err(FrameError::TooLarge { size: 101, limit: 100 })
        );
        for size in [-1, i32::MIN, 0, 7] {
            assert_eq!(frame_size(size.to_be_bytes(), 100), Err(FrameError::Size(size)));
        }
    }

    #[test]
    fn the_front_is_read_from_eight_bytes() {
        let bytes = [0, 18, 0, 3, 0, 0, 1, 0, 99];
        assert_eq!(front(&bytes), Some(Front { api_key: 18, api_version: 3, correlation_id: 256 }));
        assert_eq!(front(&bytes[..7]), None);
    }

    #[test]
    fn header_versions_follow_flexibility_except_for_api_versions() {
        assert_eq!(header_version(ApiKey::Produce, 8), 1);
        assert_eq!(header_version(ApiKey::Produce, 9), 2);
        assert_eq!(response_header_version(ApiKey::Produce, 8), 0);
        assert_eq!(response_header_version(ApiKey::Produce, 9), 1);
        assert_eq!(header_version(ApiKey::ApiVersions, 3), 2);
        assert_eq!(response_header_version(ApiKey::ApiVersions, 3), 0);
    }
}
