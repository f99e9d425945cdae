//! The write-ahead journal of a log directory.
