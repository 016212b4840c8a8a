//! juggler's engine for the event loop.
//!
//! Nothing here knows Python: what the loop runs, whom it wakes and what watches a descriptor are type parameters. Every part
//! but [`slumber`] is used by one thread at a time, which the binding sees to.
//!
//! | module | holds |
//! |---|---|
//! | [`ready`] | what runs in this turn and in the next |
//! | [`timers`] | what runs later |
//! | [`poll`] | which descriptors are watched, and waiting for them |
//! | [`pace`] | how often a busy loop looks at its descriptors |
//! | [`slumber`] | how other threads wake a loop that sleeps |

pub mod pace;
#[cfg(not(loom))]
pub mod poll;
pub mod ready;
pub mod slumber;
pub mod timers;
