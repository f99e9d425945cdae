//! Producer ids from blocks that the controller allocates by command.
//!
//! A block is this node's alone once the command is committed; what is left of it at a stop is never used, so no id is
//! handed out twice whatever happens. One task owns the block and answers in order. Never: an id before its block is
//! committed.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use gracchus_core::{
    BrokerId, ProducerId,
    controller::{Command, Response},
};
use gracchus_env::{Env, Task, spawn};
use tokio::sync::{mpsc, oneshot};

use super::{ControllerError, raft_types::Raft, submit};

/// Ids per command, as in Kafka.
pub const DEFAULT_BLOCK: i32 = 1000;

type Request = oneshot::Sender<Result<ProducerId, ControllerError>>;

/// The way to the owner of the current block.
#[derive(Debug)]
pub(super) struct ProducerIds {
    requests: mpsc::UnboundedSender<Request>,
    task: Task,
    /// The task ends a moment after it was told to.
    stopped: AtomicBool,
}

impl ProducerIds {
    pub(super) fn start(env: &Arc<dyn Env>, node: BrokerId, per_block: i32, raft: Raft) -> Self {
        let (requests, receiver) = mpsc::unbounded_channel();
        let owner = Owner { env: env.clone(), node, raft, per_block, block: 0..0 };
        let task = spawn(&**env, "producer-ids", owner.run(receiver)).detach();
        Self { requests, task, stopped: AtomicBool::new(false) }
    }

    pub(super) async fn next(&self) -> Result<ProducerId, ControllerError> {
        if self.stopped.load(Ordering::Acquire) {
            return Err(ControllerError::Stopped);
        }
        let (sender, receiver) = oneshot::channel();
        self.requests.send(sender).map_err(|_| ControllerError::Stopped)?;
        receiver.await.unwrap_or(Err(ControllerError::Stopped))
    }

    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.task.abort();
    }
}

struct Owner {
    env: Arc<dyn Env>,
    node: BrokerId,
    raft: Raft,
    per_block: i32,
    block: Range<i64>,
}

impl Owner {
    async fn run(mut self, mut requests: mpsc::UnboundedReceiver<Request>) {
        while let Some(request) = requests.recv().await {
            let answer = self.next().await;
            // Who asked may be gone; the id is then lost, which costs nothing.
            let _ = request.send(answer);
        }
    }

    async fn next(&mut self) -> Result<ProducerId, ControllerError> {
        loop {
            if let Some(id) = self.block.next() {
                return Ok(ProducerId(id));
            }
            gracchus_env::moment!(PRODUCER_IDS_ALLOCATED);
            let command = Command::AllocateProducerIds { broker: self.node, count: self.per_block };
            match submit(&self.env, &self.raft, command).await? {
                Response::ProducerIds { first, count } => self.block = first.0..first.0 + i64::from(count),
                other => unreachable!("AllocateProducerIds answered {other:?}"),
            }
        }
    }
}
