//! The owner's end of a replica's queue, which it can also listen to while it is busy with something long.
//!
//! Never: another order than that of the queue.

use std::collections::VecDeque;

use tokio::sync::mpsc;

use super::replica::Message;

/// See the module.
pub(crate) struct Inbox {
    queue: mpsc::UnboundedReceiver<Message>,
    /// Heard early, not yet dealt with.
    heard: VecDeque<Message>,
}

impl Inbox {
    pub(crate) fn new(queue: mpsc::UnboundedReceiver<Message>) -> Self {
        Self { queue, heard: VecDeque::new() }
    }

    /// The next message; `None` when nobody can send any more.
    pub(crate) async fn recv(&mut self) -> Option<Message> {
        match self.heard.pop_front() {
            Some(message) => Some(message),
            None => self.queue.recv().await,
        }
    }

    /// The next message if there is one.
    pub(crate) fn try_recv(&mut self) -> Option<Message> {
        self.heard.pop_front().or_else(|| self.queue.try_recv().ok())
    }

    /// Whether a message came in that says that the topic was deleted. It stays where it is in the order. Waits for a
    /// message; dropped half-way it has done nothing.
    pub(crate) async fn listen(&mut self) -> Option<bool> {
        let message = self.queue.recv().await?;
        let deleted = matches!(message, Message::Delete(_));
        self.heard.push_back(message);
        Some(deleted)
    }

    /// Takes everything that came in so far.
    pub(crate) fn drain(&mut self) -> Vec<Message> {
        std::iter::from_fn(|| self.try_recv()).collect()
    }
}
