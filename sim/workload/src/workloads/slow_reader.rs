//! A reader that asks for much and takes it slowly, or not at all, and goes away while an answer is on its way.
//!
//! The model: fetches from the beginning of every partition, several one behind the other, over a connection of its own
//! whose bytes it takes in small portions; or questions about all topics, of whose answers it takes nothing. What it reads is
//! not looked at: judged is that it disturbs nobody. Never: a request that a reader may not send.

use std::{sync::Arc, time::Duration};

use bytes::BytesMut;
use gracchus_env::Piece;
use kafka_protocol::{
    messages::{
        FetchRequest, MetadataRequest,
        fetch_request::{FetchPartition, FetchTopic},
    },
    protocol::StrBytes,
};

use super::{Context, until_drain};
use crate::{
    client::{Link, frame},
    plan::SlowReaderPlan,
};

/// It names topics by name and is the last one of the old encoding.
const VERSION: i16 = 11;
const MOST_BYTES: i32 = 1 << 20;
/// The last version of Metadata in the old encoding.
const OLD_METADATA: i16 = 8;

/// Reads until the drain begins.
pub(crate) async fn read_slowly(mut context: Context, plan: SlowReaderPlan) {
    let phase = context.phase.clone();
    until_drain(phase, async {
        loop {
            read_once(&mut context, &plan).await;
            context.link.back_off().await;
        }
    })
    .await;
}

/// One connection, from its beginning to its sudden end.
async fn read_once(context: &mut Context, plan: &SlowReaderPlan) {
    let env = Arc::clone(&context.link.env);
    let Some(mut connection) = context.link.raw().await else { return };
    let topics = plan.topics.iter().map(|topic| {
        let topic = &context.topics[*topic];
        let partition = |index| {
            FetchPartition::default()
                .with_partition(index)
                .with_fetch_offset(0)
                .with_current_leader_epoch(-1)
                .with_log_start_offset(-1)
                .with_partition_max_bytes(MOST_BYTES)
        };
        FetchTopic::default()
            .with_topic(topic.wire_name())
            .with_partitions((0..topic.partitions).map(partition).collect())
    });
    let request = FetchRequest::default()
        .with_max_wait_ms(0)
        .with_min_bytes(0)
        .with_max_bytes(MOST_BYTES)
        .with_session_epoch(-1)
        .with_topics(topics.collect())
        .with_rack_id(StrBytes::default())
        .with_replica_id((-1).into());
    let mut frames = Vec::new();
    for correlation in 0..plan.requests as i32 {
        match frame(&request, VERSION, correlation) {
            Ok(frame) => frames.push(Piece::Bytes(frame)),
            Err(error) => return context.link.note(&error),
        }
    }
    if connection.writer.write(frames).await.is_err() {
        return;
    }
    let mut buffer = BytesMut::new();
    for _ in 0..plan.reads.draw(&mut context.random) {
        let pause = plan.pause_ms.draw(&mut context.random);
        env.sleep(Duration::from_millis(pause.into())).await;
        buffer.clear();
        match connection.reader.read(&mut buffer, plan.bytes as usize).await {
            Ok(bytes) if bytes > 0 => {}
            _ => return,
        }
    }
}

/// Asks for the metadata of all topics, `requests` times, and takes no answer; does not end.
pub(crate) async fn take_nothing(mut link: Link, requests: u32) {
    let request = MetadataRequest::default().with_topics(None);
    let frames = (0..requests as i32).map(|correlation| frame(&request, OLD_METADATA, correlation));
    let frames: Result<Vec<Piece>, _> = frames.map(|frame| frame.map(Piece::Bytes)).collect();
    let Some(mut connection) = link.raw().await else { return };
    match frames {
        // They do not all fit: the broker reads no further than it can answer.
        Ok(frames) => _ = connection.writer.write(frames).await,
        Err(error) => link.note(&error),
    }
    std::future::pending::<()>().await;
}
