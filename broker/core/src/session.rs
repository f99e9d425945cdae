//! Fetch sessions (KIP-227) as a pure state machine.
