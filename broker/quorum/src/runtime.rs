//! openraft's view of time, tasks and chance: all of them those of the Env that the running task belongs to.
//!
//! openraft asks through static functions, so the Env comes from the task's scope ([`gracchus_env::current`]). That
//! way clock skew and the seed reach elections too. Never: a clock, a timer or an entropy source of its own.

use std::{
    fmt,
    future::Future,
    ops::{Add, AddAssign, Sub, SubAssign},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use gracchus_env::{BoxFuture, Env, current};
use openraft::{AsyncRuntime, OptionalSend, async_runtime::AsyncOneshotSendExt};
use tokio::sync::oneshot;

/// The runtime adapter.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct EnvRuntime;

/// Monotonic nanoseconds of the current Env.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant(u64);

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, duration: Duration) -> Instant {
        Instant(self.0.saturating_add(nanoseconds(duration)))
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;

    fn sub(self, duration: Duration) -> Instant {
        Instant(self.0.saturating_sub(nanoseconds(duration)))
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl SubAssign<Duration> for Instant {
    fn sub_assign(&mut self, duration: Duration) {
        *self = *self - duration;
    }
}

impl openraft::Instant for Instant {
    fn now() -> Self {
        Instant(current().now().as_nanos())
    }
}

/// A sleep that may be shared between threads, as openraft asks. The mutex is never locked: it only tells the
/// compiler that whoever polls has the sleep to itself.
pub(crate) struct Sleep(Mutex<BoxFuture<'static, ()>>);

impl Sleep {
    fn until(deadline: gracchus_env::Instant) -> Self {
        Self(Mutex::new(current().sleep_until(deadline)))
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.get_mut().0.get_mut().expect("never locked, so never poisoned").as_mut().poll(context)
    }
}

/// A future with a deadline.
pub(crate) struct Timeout<F> {
    future: Pin<Box<F>>,
    sleep: Sleep,
}

/// The deadline passed first.
#[derive(Debug)]
pub(crate) struct Elapsed;

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("deadline passed")
    }
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(output) = self.future.as_mut().poll(context) {
            return Poll::Ready(Ok(output));
        }
        Pin::new(&mut self.sleep).poll(context).map(|()| Err(Elapsed))
    }
}

/// Random numbers from the current Env. openraft draws election timeouts with it, nothing else.
pub(crate) struct EnvRandom(Arc<dyn Env>);

impl rand_core::RngCore for EnvRandom {
    fn next_u32(&mut self) -> u32 {
        self.0.random() as u32
    }

    fn next_u64(&mut self) -> u64 {
        self.0.random()
    }

    fn fill_bytes(&mut self, destination: &mut [u8]) {
        rand_core::impls::fill_bytes_via_next(self, destination);
    }

    fn try_fill_bytes(&mut self, destination: &mut [u8]) -> Result<(), rand_core::Error> {
        self.fill_bytes(destination);
        Ok(())
    }
}

/// The sending end of a one-shot channel.
pub(crate) struct OneshotSender<T>(oneshot::Sender<T>);

impl<T: OptionalSend> AsyncOneshotSendExt<T> for OneshotSender<T> {
    fn send(self, value: T) -> Result<(), T> {
        self.0.send(value)
    }
}

impl<T> fmt::Debug for OneshotSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OneshotSender")
    }
}

impl AsyncRuntime for EnvRuntime {
    type JoinError = gracchus_env::Aborted;
    type JoinHandle<T: OptionalSend + 'static> = gracchus_env::JoinHandle<T>;
    type Sleep = Sleep;
    type Instant = Instant;
    type TimeoutError = Elapsed;
    type Timeout<R, F: Future<Output = R> + OptionalSend> = Timeout<F>;
    type ThreadLocalRng = EnvRandom;
    type OneshotSender<T: OptionalSend> = OneshotSender<T>;
    type OneshotReceiver<T: OptionalSend> = oneshot::Receiver<T>;
    type OneshotReceiverError = oneshot::error::RecvError;

    fn spawn<F>(future: F) -> Self::JoinHandle<F::Output>
    where
        F: Future + OptionalSend + 'static,
        F::Output: OptionalSend + 'static,
    {
        gracchus_env::spawn(&*current(), "raft", future)
    }

    fn sleep(duration: Duration) -> Sleep {
        Sleep::until(current().now() + duration)
    }

    fn sleep_until(deadline: Instant) -> Sleep {
        Sleep::until(gracchus_env::Instant::from_nanos(deadline.0))
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> Timeout<F> {
        Timeout { future: Box::pin(future), sleep: Self::sleep(duration) }
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: Instant, future: F) -> Timeout<F> {
        Timeout { future: Box::pin(future), sleep: Self::sleep_until(deadline) }
    }

    fn is_panic(_error: &Self::JoinError) -> bool {
        // A panic in a task ends the process (production) or the run (simulation): nobody is left to ask.
        false
    }

    fn thread_rng() -> EnvRandom {
        EnvRandom(current())
    }

    fn oneshot<T: OptionalSend>() -> (OneshotSender<T>, oneshot::Receiver<T>) {
        let (sender, receiver) = oneshot::channel();
        (OneshotSender(sender), receiver)
    }
}
