//! What processes share, as Python has it: one file per class or group of functions.

pub mod parent;
pub mod pickle;
pub mod pool;
pub mod pool_collect;
pub mod pool_engine;
pub mod pool_worker;
