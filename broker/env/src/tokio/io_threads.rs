//! A fixed number of threads that wait for the disk so that the runtime's workers need not.
//!
//! A job is queued when [`Pool::run`] is called, not when its future is first polled, and runs to its end whether or
//! not anybody still waits for it. Jobs start in the order in which they were queued.
//!
//! Never: grow, or run a job on the thread that submitted it.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

use tokio::sync::oneshot;

use crate::BoxFuture;

type Job = Box<dyn FnOnce() + Send>;

/// The threads and their queue. They end when the pool is dropped and the queue is empty.
pub(super) struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<Queue>,
    ready: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    idle: usize,
    closed: bool,
}

impl Pool {
    /// Starts `count` threads named `name-0`, `name-1`, ….
    ///
    /// # Panics
    /// When the system refuses a thread.
    pub(super) fn new(name: &str, count: usize) -> Self {
        let shared = Arc::new(Shared { queue: Mutex::default(), ready: Condvar::new() });
        for index in 0..count.max(1) {
            let shared = shared.clone();
            thread::Builder::new()
                .name(format!("{name}-{index}"))
                .spawn(move || shared.work())
                .expect("the system refuses an I/O thread");
        }
        Self { shared }
    }

    /// Queues `work` at once; the future waits for its result.
    pub(super) fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> BoxFuture<'static, io::Result<T>> {
        let (sender, receiver) = oneshot::channel();
        self.push(Box::new(move || {
            // Nobody waits any more: the work counts all the same.
            let _ = sender.send(work());
        }));
        Box::pin(async move {
            receiver.await.unwrap_or_else(|_| Err(io::Error::other("the I/O thread went down")))
        })
    }

    /// Queues `work`; nobody learns how it ends.
    pub(super) fn push(&self, work: Job) {
        let mut queue = self.shared.lock();
        queue.jobs.push_back(work);
        let wake = queue.idle > 0;
        drop(queue);
        if wake {
            self.shared.ready.notify_one();
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.ready.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // The queue is consistent between any two statements that can panic.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        while let Some(job) = self.next() {
            job();
        }
    }

    fn next(&self) -> Option<Job> {
        let mut queue = self.lock();
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                return Some(job);
            }
            if queue.closed {
                return None;
            }
            queue.idle += 1;
            queue = self.ready.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.idle -= 1;
        }
    }
}
