//! juggler's engine for threads: parking, locks, queues, futures and the thread pool's scheduler.
//!
//! Nothing here knows Python. Whoever waits passes a [`Gate`](park::Gate): the one place that decides what happens
//! around the system call (a plain thread just waits; the Python binding detaches from the interpreter and runs
//! signal handlers). The layers, each built on those before it:
//!
//! | module | holds |
//! |---|---|
//! | [`sync`] | the facade over atomics, `Arc` and cells that `loom` replaces |
//! | [`sys`] | the futex, one file per platform |
//! | [`deadline`] | points in time on the monotonic clock |
//! | [`park`] | [`Gate`](park::Gate), [`Waiter`](park::Waiter), [`WaitList`](park::WaitList), [`Line`](park::Line) |
//! | `look` | looking again for a while before falling asleep |
//! | [`guarded`], [`monitor`] | the engine's own short lock, and waiting for what it guards |
//! | [`once`] | a place for a value that is rarely made |
//! | [`lock`], [`rlock`], [`semaphore`], [`event`], [`condition`], [`barrier`], [`rwlock`] | the primitives |
//! | [`queue`], [`heap`] | queues and their priority store |
//! | [`future`], [`pool`] | the future's state machine, the pool's scheduler |

pub mod barrier;
pub mod condition;
pub mod deadline;
pub mod event;
pub mod future;
pub mod guarded;
pub mod heap;
pub mod lock;
#[cfg(not(loom))]
pub mod look;
pub mod monitor;
pub mod once;
pub mod park;
pub mod pool;
pub mod queue;
pub mod rlock;
pub mod rwlock;
pub mod semaphore;
pub mod sync;
pub mod sys;

pub use deadline::Deadline;
pub use park::{Gate, ThreadGate, Waited};
