//! Request frames as a connection treats them: front, route, header, walk over the body, decoder.
//!
//! Holds: a body that passes the walk is decoded within the memory that the walk announced, to the byte where the walk
//! ended, and encodes to something that decodes to the same if it is as long. Input: a frame without its size prefix.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use gracchus::{
    api::{APIS, Api, fuzzing},
    server::fuzzing::client_id,
};
use gracchus_core::frame;
use kafka_protocol::messages::{ApiKey, RequestKind};

use super::seed;
use crate::{Seed, memory::peak_of};

/// What decoding may take beyond what was announced: the text of an error, a node of a tree.
const SLACK: usize = 4096;

pub(super) fn run(input: &[u8]) -> bool {
    let Some(front) = frame::front(input) else { return false };
    let version = front.api_version;
    let Some(api) = Api::of(front.api_key).filter(|api| api.serves(version)) else { return false };
    let mut body = Bytes::copy_from_slice(&input[frame::HEADER_FRONT_LENGTH..]);
    if client_id(&mut body, fuzzing::header_version(api, version)).is_none() {
        return false;
    }
    let Ok(measured) = api.shape.measure(&body, version) else { return false };
    assert!(measured.length <= body.len());
    let key = ApiKey::try_from(api.key).expect("a key of the table");
    let layout = api.layout(version);
    let mut rest = body.clone();
    let (decoded, peak) = peak_of(|| RequestKind::decode(key, &mut rest, layout));
    assert!(
        peak <= measured.memory + SLACK,
        "{} {version}: decoding took {peak} bytes, {} were announced",
        api.name,
        measured.memory
    );
    let Ok(request) = decoded else { return false };
    assert_eq!(body.len() - rest.remaining(), measured.length, "{} {version}: walk and decoder", api.name);
    let mut again = BytesMut::new();
    // The crate cannot write tags of 32 bits, which it reads as negative ones: then something is missing.
    if request.encode(&mut again, layout).is_ok() && again.len() == measured.length {
        let read =
            RequestKind::decode(key, &mut again.freeze(), layout).expect("what was encoded is decoded");
        assert_eq!(read, request);
    }
    true
}

pub(super) fn seeds() -> Vec<Seed> {
    let mut seeds = Vec::new();
    for api in APIS {
        for version in api.versions.clone() {
            for count in [0, 2] {
                let mut frame = BytesMut::new();
                frame.put_i16(api.key);
                frame.put_i16(version);
                frame.put_i32(7);
                frame.put_i16(2);
                frame.put_slice(b"id");
                if fuzzing::header_version(api, version) >= 2 {
                    frame.put_u8(0);
                }
                frame.put(fuzzing::sample(api, version, count));
                seeds.push(seed(format!("{}-{version:02}-{count}", api.name), frame));
            }
        }
    }
    seeds
}
