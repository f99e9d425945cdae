//! The Env of the running task. Exists because openraft's runtime adapter has only static functions: its timers,
//! tasks and random numbers must come from the process they belong to. Everyone else holds an `Arc<dyn Env>`.

use std::{future::Future, sync::Arc};

use crate::Env;

tokio::task_local! {
    static SCOPE: Arc<dyn Env>;
}

/// The Env that the running task was spawned on.
///
/// # Panics
/// Outside a task that [`Env::spawn_boxed`] started.
pub fn current() -> Arc<dyn Env> {
    SCOPE.with(Arc::clone)
}

/// Runs `future` in the scope of `env`. Implementations of [`Env::spawn_boxed`] wrap every task in it, and a process
/// its main future.
pub fn in_scope<F: Future>(env: Arc<dyn Env>, future: F) -> impl Future<Output = F::Output> {
    SCOPE.scope(env, future)
}
