//! Stories about the flusher and its journal, told with crashes at every step.

mod model;
mod stories;
mod world;
