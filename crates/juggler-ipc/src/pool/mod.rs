//! The process pool: tasks in shared memory, workers that take them, a parent that collects what they did.
//!
//! No process trusts another to live on: every change of a task's [`State`](slot::State) is one compare-and-swap, and
//! whatever a worker leaves half done, the parent settles when it sees it dead.
//!
//! | module | holds |
//! |---|---|
//! | [`slot`] | one task in flight and its state word |
//! | [`order`], [`idle`], [`done`] | who is next, who sleeps, what is done: three algorithms over views of shared words |
//! | [`table`] | where these lie in the pool's segment |
//! | [`payload`] | arguments and results |
//! | [`region`] | room for those that don't fit their slots |
//! | [`seat`] | a worker's side |
//! | [`parent`] | the parent's side: slots, backlog, collecting, settling |
//! | [`watch`] | waiting for the deaths of workers |

pub mod done;
pub mod idle;
pub mod order;
#[cfg(not(loom))]
pub mod parent;
#[cfg(not(loom))]
pub mod payload;
#[cfg(not(loom))]
pub mod region;
#[cfg(not(loom))]
pub mod seat;
pub mod slot;
#[cfg(not(loom))]
pub mod table;
#[cfg(not(loom))]
pub mod watch;
