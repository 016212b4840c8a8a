//! What processes share, as Python has it: one file per class or group of functions.

pub mod arena;
pub mod parent;
