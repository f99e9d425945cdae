//! The cluster metadata state machine: `apply(&mut Image, Command) -> Response`.
