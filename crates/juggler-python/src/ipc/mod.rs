//! Processes: shared memory and what is built on it, as Python classes.

pub mod pickle;
pub mod pool;
pub mod pool_collect;
pub mod pool_engine;
pub mod pool_worker;
