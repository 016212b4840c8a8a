//! What processes share, as Python has it: one file per class or group of functions.

pub mod arena;
pub mod barrier;
pub mod condition;
pub mod connection;
pub mod event;
pub mod lock;
pub mod memory;
pub mod parent;
pub mod payload;
pub mod queue;
pub mod semaphore;
pub mod value;
