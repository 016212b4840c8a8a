//! What processes share, as Python has it: one file per class or group of functions.

pub mod connection;
pub mod parent;
pub mod payload;
pub mod queue;
