//! `asyncio`: the event loop, and what runs on it.
//!
//! | module | holds |
//! |---|---|
//! | [`attached`] | state that attached threads reach, one at a time |
//! | [`entry`] | what the loop runs: an object and how to run it |
//! | [`handle`] | the classes `Handle` and `TimerHandle` |
//! | [`event_loop`] | the class `Loop`: its state, and what the other modules of this folder use |
//! | [`scheduling`] | `call_soon` and its siblings |
//! | [`watching`] | `add_reader` and its siblings |
//! | [`turn`] | what the loop does while it runs |

pub mod attached;
pub mod entry;
pub mod event_loop;
pub mod handle;
mod scheduling;
mod turn;
mod watching;

use pyo3::prelude::*;

/// Adds what PyO3 does not to the classes.
pub fn finish(py: Python<'_>) -> PyResult<()> {
    event_loop::finish(py)
}
