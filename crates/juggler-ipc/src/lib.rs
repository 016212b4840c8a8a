//! juggler's engine for processes: shared memory, the primitives and rings that live in it, and the process pool.
//!
//! Nothing here knows Python. What lies in shared memory may be changed by another process at any moment, also by one
//! that has gone wrong: every offset and length read from it is checked before it is used, every structure there consists
//! of atomics, and no process trusts another to stay alive. The layers, each built on those before it:
//!
//! | module | holds |
//! |---|---|
//! | [`sys`] | what depends on the platform: memory files, mappings |
//! | [`segment`] | a piece of shared memory, with checked access |
//! | [`arena`] | memory for large payloads, allocated by one process and held by several |
//! | [`owner`] | which process holds something, and whether it lives |
//! | [`heap`] | many small blocks in few segments |
//! | [`lock`] | a lock that survives its holder |
//! | [`bell`] | where those who wait for something sleep |
//! | [`ring`] | frames of bytes, in at one end and out at the other |
//! | [`channel`] | a queue between processes |
//! | [`lane`] | a short way past a socket |
//! | [`semaphore`], [`event`], [`condition`], [`barrier`] | what else processes wait for |
//! | [`pool`] | the process pool |

#[cfg(not(loom))]
pub mod arena;
pub mod barrier;
pub mod bell;
#[cfg(not(loom))]
pub mod channel;
pub mod condition;
pub mod event;
#[cfg(not(loom))]
pub mod heap;
pub mod lane;
pub mod lock;
pub mod owner;
pub mod pool;
#[cfg(not(loom))]
pub mod ring;
pub mod segment;
pub mod semaphore;
pub mod sys;
