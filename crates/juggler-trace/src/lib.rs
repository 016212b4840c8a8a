//! What juggler's primitives report when tracing is on: who waits for what, in which order locks are taken, and how
//! much waiting there is. Nothing here knows Python, and nothing here waits.
//!
//! | module | holds |
//! |---|---|
//! | [`site`] | places in the program, and the names of what is waited for |
//! | [`graph`] | who holds and who waits for what; finds deadlocks |
//! | [`deadlock`] | a deadlock as found, and the text that explains it |
//! | [`order`] | which lock is taken while which is held; finds orders that contradict each other |
//! | [`counters`] | uses and waiting times for a report |
//!
//! There are two recorders, the [`Graph`], which has the [`LockOrder`] with it, and the [`Registry`] of counters. Each is
//! one short critical section over plain maps: the binding calls them only when tracing is on, and never from within one
//! another. No lock of this crate is held while a callback runs.
//! `docs/internals/deadlocks.md` has the rules and the reasons.

pub mod counters;
pub mod deadlock;
mod forkable;
pub mod graph;
mod hashing;
pub mod order;
pub mod site;

pub use counters::{Counter, Registry, Row};
pub use deadlock::{Deadlock, Reason, Step};
pub use graph::{Ender, Graph, Hold, Live, Task, TaskState, Wait};
pub use hashing::IdMap;
pub use order::{Inversion, LockOrder, Pair};
pub use site::{Kind, Resource, ResourceId, Site, ThreadId};
