//! A replica's queue: what its owner is asked to do, in the order of the log; and apart from it what the owner must hear at once,
//! also while the log is busy.
//!
//! Never: another order than that of the queue, but for what is urgent; an owner woken in its work for what has to wait for it.

use tokio::sync::mpsc;

use super::replica::{Message, Urgent};

/// Where messages are put in.
#[derive(Debug, Clone)]
pub(crate) struct Queue {
    ordered: mpsc::UnboundedSender<Message>,
    urgent: mpsc::UnboundedSender<Urgent>,
}

/// See the module: the owner's end.
pub(crate) struct Inbox {
    ordered: mpsc::UnboundedReceiver<Message>,
    urgent: mpsc::UnboundedReceiver<Urgent>,
    /// Taken from the queue too early: the next.
    next: Option<Message>,
}

/// What comes first.
pub(crate) enum Received {
    Message(Message),
    Urgent(Urgent),
}

/// Both ends of a queue.
pub(crate) fn queue() -> (Queue, Inbox) {
    let (ordered, messages) = mpsc::unbounded_channel();
    let (urgent, notices) = mpsc::unbounded_channel();
    (Queue { ordered, urgent }, Inbox { ordered: messages, urgent: notices, next: None })
}

impl Queue {
    /// Behind everything that was put in before. Once the owner has gone it is dropped, and with it the reply channel, which the
    /// asker takes for "closed".
    pub(crate) fn put(&self, message: Message) {
        let _ = self.ordered.send(message);
    }

    /// Ahead of everything.
    pub(crate) fn tell(&self, urgent: Urgent) {
        let _ = self.urgent.send(urgent);
    }
}

impl Inbox {
    /// What comes next; `None` when nobody can send any more.
    pub(crate) async fn recv(&mut self) -> Option<Received> {
        if let Ok(urgent) = self.urgent.try_recv() {
            return Some(Received::Urgent(urgent));
        }
        if let Some(message) = self.next.take() {
            return Some(Received::Message(message));
        }
        tokio::select! {
            biased;
            Some(urgent) = self.urgent.recv() => Some(Received::Urgent(urgent)),
            message = self.ordered.recv() => message.map(Received::Message),
        }
    }

    /// The next in the queue if there is one.
    pub(crate) fn try_recv(&mut self) -> Option<Message> {
        self.next.take().or_else(|| self.ordered.try_recv().ok())
    }

    /// The message was taken too early: it is the next again.
    pub(crate) fn put_back(&mut self, message: Message) {
        assert!(self.next.replace(message).is_none(), "one message at a time is put back");
    }

    /// What must be heard at once; with `all` also what is in the queue. Waits for ever if nobody can send any more.
    pub(crate) async fn notice(&mut self, all: bool) -> Received {
        let noticed = if all { self.recv().await } else { self.urgent.recv().await.map(Received::Urgent) };
        match noticed {
            Some(noticed) => noticed,
            None => std::future::pending().await,
        }
    }
}
