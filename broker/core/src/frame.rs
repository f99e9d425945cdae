//! Request frames: size prefix, header, the rules for which header version goes with which request version.
