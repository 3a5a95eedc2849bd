//! File formats: bytes to values and back. No I/O here: who has the bytes, and where they go, is the caller's business.

pub mod idx;
pub mod safetensors;
