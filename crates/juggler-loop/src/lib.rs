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
//! | [`clock`] | a time that costs little to know |
//! | [`pace`] | how often a busy loop looks at its descriptors |
//! | [`focus`] | which descriptor it may ask for alone |
//! | [`buffer`] | what waits to be written, and what was read |
//! | [`search`] | where some bytes are in others |
//! | [`net`] | system calls on sockets |
//! | [`slumber`] | how other threads wake a loop that sleeps |

pub mod buffer;
#[cfg(not(loom))]
pub mod clock;
pub mod focus;
#[cfg(not(loom))]
pub mod net;
pub mod pace;
#[cfg(not(loom))]
pub mod poll;
pub mod ready;
pub mod search;
pub mod slumber;
pub mod timers;
