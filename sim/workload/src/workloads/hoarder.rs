//! An address that hoards memory, and a client at another that must be served all the same.
//!
//! The model: the hoarder opens connections, announces a large request on each and sends a part of it: then it stops, or
//! goes on as slowly as a broker has to bear. Nothing else is wrong meanwhile. The other sends requests of some size one
//! after the other; each is answered in time, since no address can have all the memory for requests.
//! Never: a request that ends; a judgement while anything else may be to blame.

use std::{ops::RangeInclusive, sync::Arc, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use gracchus_env::{Connection, Env, Piece, Task, spawn};
use rand::Rng;

use super::{Context, producer::send_one};
use crate::{
    plan::{HoarderPlan, TopicPlan},
    run::make_topic,
};

/// Law: an address that hoards memory keeps no other from being served.
const SERVED_BESIDE: &str = "served_beside_a_hoarder";

/// A request of some size is answered within this, whoever else is there.
const SERVED: Duration = Duration::from_millis(1_500);
/// How many are sent.
const REQUESTS: u32 = 6;
/// The memory for large requests, which this one takes part of, begins behind 64 KiB.
const MODEST: u32 = 80_000;
/// More than the reserve for modest requests holds, and less than an address that is full leaves free.
const LARGE: RangeInclusive<u32> = 205_000..=250_000;

/// Hoards until it is aborted.
pub(crate) async fn hoard(context: Context, plan: HoarderPlan) {
    let mut open = Vec::new();
    for _ in 0..plan.connections {
        let link = &context.link;
        let holding = hold(Arc::clone(&link.env), link.address().to_owned(), plan.clone());
        open.push(spawn(&*link.env, "hoarder", holding));
    }
    let _abort = Abort(open.into_iter().map(|holding| holding.detach()).collect());
    std::future::pending::<()>().await;
}

/// Ends the tasks when it is dropped.
struct Abort(Vec<Task>);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.iter().for_each(Task::abort);
    }
}

/// One connection after the other, each with a request that does not end.
async fn hold(env: Arc<dyn Env>, address: String, plan: HoarderPlan) {
    loop {
        let deadline = env.now() + Duration::from_secs(1);
        if let Ok(connection) = env.connect(&address, deadline).await {
            let Connection { mut reader, mut writer, .. } = connection;
            let mut left = plan.announced / 2;
            let begun = beginning(plan.announced, plan.announced - left);
            let mut open = writer.write(vec![Piece::Bytes(begun)]).await.is_ok();
            let mut unread = BytesMut::new();
            while open {
                // Nothing is ever answered: that it ends is all there is to read.
                tokio::select! {
                    biased;
                    _ = reader.read(&mut unread, 1) => break,
                    () = env.sleep(Duration::from_secs(1)) => {}
                }
                let more = plan.trickle.min(left.saturating_sub(1));
                left -= more;
                let bytes = Bytes::from(vec![0; more as usize]);
                open = more == 0 || writer.write(vec![Piece::Bytes(bytes)]).await.is_ok();
            }
        }
        env.sleep(Duration::from_millis(100)).await;
    }
}

/// The first `sent` bytes of a frame of `announced` bytes: a Produce, as far as anybody can see.
fn beginning(announced: u32, sent: u32) -> Bytes {
    let mut bytes = BytesMut::with_capacity(sent as usize + 64);
    bytes.put_i32(announced as i32);
    bytes.put_i16(0);
    bytes.put_i16(9);
    bytes.put_i32(1);
    bytes.put_i16(-1);
    bytes.resize(sent as usize, 0);
    bytes.freeze()
}

/// Sends large requests one after the other, each of which must be answered in time.
pub(crate) async fn serve_beside(mut context: Context) {
    let described = TopicPlan::plain(format!("beside-{}", context.number), 1);
    let topic = Arc::new(make_topic(&mut context, &described).await);
    for _ in 0..REQUESTS {
        let pause = context.random.random_range(200..=900);
        context.link.env.sleep(Duration::from_millis(pause)).await;
        let filler = match context.random.random_bool(0.5) {
            true => MODEST,
            false => context.random.random_range(LARGE),
        };
        // To connect takes its own time.
        context.link.connection().await;
        let begin = context.link.env.now();
        let outcome = send_one(&mut context, &topic, 0, filler, Duration::from_secs(20)).await;
        if outcome.is_none() {
            return;
        }
        let took = context.link.env.now().since(begin);
        if took > SERVED {
            let story = format!("a produce of {filler} bytes took {took:?}: {outcome:?}");
            context.recorder.complain(SERVED_BESIDE, story);
        }
    }
}
