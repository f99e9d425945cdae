//! The cluster metadata state machine: `apply(&mut Image, &Command) -> Response`.
//!
//! Every node applies the same commands in the same order to the same image, so [`apply`] depends on nothing but its
//! arguments. What must be decided atomically (does the topic exist?) is decided here and nowhere else; a command that
//! is refused changes nothing. One event is one command and costs what it changes.

mod apply;
mod command;
mod image;

pub use apply::apply;
pub use command::{Command, Response};
pub use image::{Broker, Image, Listener, Partition, Topic};
