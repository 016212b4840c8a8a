//! When the garbage collector may look into an object.
//!
//! CPython begins to track an object when its memory is allocated, all zero, and PyO3 writes the Rust value there a moment
//! later. For a subclass on 3.11 and 3.12 a dictionary is made in between, which can start a collection: `__traverse__`
//! then runs on zeroes, and a zero is not a valid value of most Rust types (a `OnceLock` of zeroes even passes for a set
//! one). Every class that subclasses may have and that is traversed therefore begins its traversal by asking a [`Ready`].

/// In a value, `true`; in the zeroes before it, `false`.
#[derive(Debug)]
pub struct Ready(bool);

impl Ready {
    /// The mark of a value.
    pub const fn new() -> Self {
        Self(true)
    }

    /// Whether the value is there.
    pub fn is_ready(&self) -> bool {
        self.0
    }
}
