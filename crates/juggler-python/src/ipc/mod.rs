//! What processes share, as Python has it: one file per class or group of functions.

pub mod arena;
pub mod barrier;
pub mod condition;
pub mod connection;
pub mod event;
pub mod functions;
pub mod lock;
pub mod memory;
pub mod parent;
pub mod pickle;
pub mod plain;
pub mod pool;
pub mod pool_collect;
pub mod pool_engine;
pub mod pool_worker;
pub mod queue;
pub mod semaphore;
pub mod value;
