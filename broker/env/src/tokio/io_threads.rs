//! A fixed number of threads that wait for the disk so that the runtime's workers need not.
//!
//! A job is queued when [`Pool::run`] is called, not when its future is first polled, and runs to its end whether or
//! not anybody still waits for it. Jobs start in the order in which they were queued.
//!
//! Each thread notes for how long it has worked, in a cell of its own that nobody else writes.
//!
//! Never: grow, or run a job on the thread that submitted it.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use crate::{BoxFuture, Work};

type Job = Box<dyn FnOnce() + Send>;

/// The threads and their queue. They end when the pool is dropped and the queue is empty.
pub(super) struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<Queue>,
    ready: Condvar,
    /// What the clocks count from.
    origin: Instant,
    /// One per thread.
    clocks: Box<[Clock]>,
}

/// Nanoseconds that one thread has worked. On a line of memory of its own.
#[derive(Default)]
#[repr(align(64))]
struct Clock {
    /// In jobs that have ended.
    done: AtomicU64,
    /// When the job under way began, since the origin; 0: there is none.
    begun: AtomicU64,
}

impl Clock {
    /// At `now`. May miss, for a moment, the job that ends just now.
    fn busy(&self, now: u64) -> u64 {
        let under_way = match self.begun.load(Relaxed) {
            0 => 0,
            begun => now.saturating_sub(begun),
        };
        self.done.load(Relaxed) + under_way
    }
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
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            ready: Condvar::new(),
            origin: Instant::now(),
            clocks: (0..count.max(1)).map(|_| Clock::default()).collect(),
        });
        for index in 0..count.max(1) {
            let shared = shared.clone();
            thread::Builder::new()
                .name(format!("{name}-{index}"))
                .spawn(move || shared.work(index))
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

    /// What its threads have worked so far, jobs under way included.
    pub(super) fn worked(&self) -> Work {
        let Shared { clocks, .. } = &*self.shared;
        let now = self.shared.now();
        let busy = clocks.iter().map(|clock| clock.busy(now)).sum();
        Work { threads: clocks.len(), busy: Duration::from_nanos(busy) }
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

    /// Nanoseconds since the origin, at least 1.
    fn now(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1)
    }

    fn work(&self, thread: usize) {
        let clock = &self.clocks[thread];
        while let Some(job) = self.next() {
            let begun = self.now();
            clock.begun.store(begun, Relaxed);
            job();
            clock.begun.store(0, Relaxed);
            // Only this thread writes here.
            clock.done.store(clock.done.load(Relaxed) + (self.now() - begun), Relaxed);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn threads_count_what_they_work_and_not_what_they_wait() {
        let pool = Pool::new("counted", 2);
        assert_eq!(pool.worked(), Work { threads: 2, busy: Duration::ZERO });
        let (begin, wait) = std::sync::mpsc::channel::<()>();
        let job = pool.run(move || {
            thread::sleep(Duration::from_millis(40));
            let _ = wait.recv();
            Ok(())
        });
        thread::sleep(Duration::from_millis(60));
        let under_way = pool.worked().busy;
        assert!(under_way >= Duration::from_millis(20), "a job under way counts: {under_way:?}");
        drop(begin);
        job.await.unwrap();
        // Until the thread has put its job away.
        thread::sleep(Duration::from_millis(20));
        let done = pool.worked().busy;
        thread::sleep(Duration::from_millis(50));
        assert_eq!(pool.worked().busy, done, "waiting for work is none");
        assert!(done >= Duration::from_millis(40), "{done:?}");
    }
}
