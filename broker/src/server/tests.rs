//! Connections over in-memory halves: framing, order, memory, and what happens to those who misbehave.
