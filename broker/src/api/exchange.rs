//! One request and its answer, as they pass between a connection and a handler.
//!
//! A handler is called in the order of the requests on their connection and does at once what has to happen in that
//! order (decode, enqueue). Whatever it must wait for goes into the future of [`Reply::Later`], which the connection
//! awaits when all earlier requests are answered. Never: block, or put a response together out of turn.

use std::{borrow::Cow, fmt};

use bytes::{BufMut, Bytes, BytesMut};
use gracchus_env::{BoxFuture, Piece};
use kafka_protocol::protocol::{Decodable, Encodable};

use super::{
    context::RequestContext,
    later,
    outcome::{ErrorCodes, Outcome},
    shape::Message,
};
use gracchus_common::Charge;

/// How a request is to be treated, decided from its key and version before anything else is read.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// 1, or 2 with tagged fields.
    pub request_header_version: i16,
    /// 0, or 1 with tagged fields.
    pub response_header_version: i16,
    /// Whether it may start while earlier requests that also overlap still wait for their answer.
    pub overlaps: bool,
    /// Whether its answer takes no more memory than the request, however much there is to tell.
    pub small_answer: bool,
    /// What its body must look like; `None` when the body is not to be read.
    pub shape: Option<&'static Message>,
}

/// The layer behind the connections. A trait so that connections can be tested with a layer of their own.
pub trait Service: Send + Sync + 'static {
    /// `None` when such a request is not served: the connection is closed.
    fn route(&self, api_key: i16, api_version: i16) -> Option<Route>;

    /// Starts a request whose body has the shape of its route. Requests of a connection are started in order.
    fn start(&self, request: Request) -> Result<Reply, BadRequest>;
}

/// A request, its body still encoded.
#[derive(Debug)]
pub struct Request {
    /// Who asks.
    pub context: RequestContext,
    /// Number of the API.
    pub api_key: i16,
    /// Version of the body.
    pub api_version: i16,
    /// Where the answer goes.
    pub envelope: Envelope,
    /// What follows the header; slices of it keep the receive buffer.
    pub body: Bytes,
    /// The memory that the frame borrowed from the budget; give it on with the payload.
    pub charge: Option<Charge>,
}

impl Request {
    /// The body as one of kafka-protocol's messages. Trailing bytes are ignored, as Apache Kafka does.
    pub fn decode<M: Decodable>(&self) -> Result<M, BadRequest> {
        let mut body = self.body.clone();
        M::decode(&mut body, later::layout(self.api_key, self.api_version))
            .map_err(|error| BadRequest(error.to_string().into()))
    }
}

/// What turns a message into the response to one request.
#[derive(Debug, Clone, Copy)]
pub struct Envelope {
    /// The client's number for the request.
    pub correlation_id: i32,
    /// 0, or 1 with tagged fields.
    pub response_header_version: i16,
    /// Version of the response body.
    pub api_version: i16,
}

impl Envelope {
    /// Size prefix and response header, the size yet to be filled in by [`Envelope::seal`].
    pub fn open(&self, capacity: usize) -> BytesMut {
        let mut frame = BytesMut::with_capacity(9 + capacity);
        frame.put_i32(0);
        frame.put_i32(self.correlation_id);
        if self.response_header_version >= 1 {
            frame.put_u8(0);
        }
        frame
    }

    /// Fills in the size of a frame that goes on for `more` bytes outside of `frame`.
    pub fn seal(frame: &mut BytesMut, more: u64) -> Result<(), TooLong> {
        let size = i32::try_from(frame.len() as u64 - 4 + more).map_err(|_| TooLong)?;
        frame[..4].copy_from_slice(&size.to_be_bytes());
        Ok(())
    }

    /// A whole response frame around `message`. A message that its version cannot carry closes the connection.
    pub fn answer<M: Encodable + Outcome>(&self, message: &M) -> Answer {
        self.answer_as(message, self.api_version)
    }

    /// The same, with the body laid out as in `version`.
    pub fn answer_as<M: Encodable + Outcome>(&self, message: &M, version: i16) -> Answer {
        self.answer_with(message, |frame| message.encode(frame, version).map_err(|error| error.to_string()))
    }

    /// A whole response frame around what `write` writes of `message`.
    pub fn answer_with(
        &self,
        message: &impl Outcome,
        write: impl FnOnce(&mut BytesMut) -> Result<(), String>,
    ) -> Answer {
        let mut frame = self.open(120);
        if let Err(error) = write(&mut frame) {
            return Answer::Close(format!("the response cannot be encoded: {error}").into());
        }
        match Envelope::seal(&mut frame, 0) {
            Ok(()) => Answer::Frame(frame.freeze()).telling(message.errors()),
            Err(TooLong) => Answer::Close("the response is longer than 2 GiB".into()),
        }
    }
}

/// A response would not fit the 31 bits of its size prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong;

/// What goes back over the connection.
#[derive(Debug)]
pub enum Answer {
    /// One response frame.
    Frame(Bytes),
    /// One response frame in parts, some of them ranges of files.
    Pieces(Vec<Piece>),
    /// One that says errors, which are counted.
    Failed(Box<Answer>, ErrorCodes),
    /// No response at all (Produce with acks=0).
    Nothing,
    /// The connection is closed instead, for this reason.
    Close(Cow<'static, str>),
}

impl Answer {
    /// The same answer, which says `errors`.
    pub fn telling(self, errors: ErrorCodes) -> Answer {
        if errors.is_empty() { self } else { Answer::Failed(Box::new(self), errors) }
    }

    /// What is sent of it.
    #[cfg(test)]
    pub(super) fn plain(self) -> Answer {
        match self {
            Answer::Failed(answer, _) => *answer,
            answer => answer,
        }
    }
}

/// A started request.
pub enum Reply {
    /// Answered already.
    Now(Answer),
    /// Answered when this completes. May be dropped at any await when the connection goes away.
    Later(BoxFuture<'static, Answer>),
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reply::Now(answer) => f.debug_tuple("Now").field(answer).finish(),
            Reply::Later(_) => f.write_str("Later"),
        }
    }
}

/// A request that gets no answer: the connection is closed, for this reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRequest(pub Cow<'static, str>);

impl fmt::Display for BadRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
