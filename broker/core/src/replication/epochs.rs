//! The leader-epoch cache: which epoch begins at which offset (KIP-101, KIP-279).
