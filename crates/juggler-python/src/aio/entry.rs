//! What the loop runs: an object, and how to run it.

use crate::obj::Obj;
use crate::raw::Raised;
use pyo3::prelude::*;

/// How to run the objects of one class in one way. A class may have several: a task's step and its wake-up, what a transport does
/// when its socket can be read and when it can be written.
#[derive(Debug)]
pub struct Kind {
    /// Runs an object that came up. It is called by the loop's thread, and must stand being called once more than was wanted
    /// (a descriptor may be ready no longer, a watcher have been taken back).
    ///
    /// What it raises ends `run_forever`, so it is meant for `KeyboardInterrupt` and `SystemExit`; everything else it reports by
    /// [`report`](super::event_loop::report).
    pub run: fn(Python<'_>, Obj) -> Result<(), Raised>,
    /// Whether there is nothing left to run: such an entry is taken out of the timers, and not watched for. Runs no Python.
    pub is_cancelled: fn(&Obj) -> bool,
}

/// An entry of the ring, of the timers, or a descriptor's watcher.
#[derive(Debug)]
pub struct Entry {
    /// What is run.
    pub object: Obj,
    /// How.
    pub kind: &'static Kind,
}

impl Entry {
    /// Another reference to the same.
    #[inline(always)]
    pub fn clone_ref(&self, py: Python<'_>) -> Self {
        Self { object: self.object.clone_ref(py), kind: self.kind }
    }

    /// Runs it.
    ///
    /// # Errors
    /// What ends `run_forever`.
    #[inline(always)]
    pub fn run(self, py: Python<'_>) -> Result<(), Raised> {
        (self.kind.run)(py, self.object)
    }

    /// Whether there is nothing left to run.
    #[inline(always)]
    pub fn is_cancelled(&self) -> bool {
        (self.kind.is_cancelled)(&self.object)
    }
}
