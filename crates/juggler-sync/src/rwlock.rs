//! A lock that many readers or one writer hold.
//!
//! Writers come first: a reader that arrives while a writer waits lets it pass, so that a stream of readers never starves
//! a writer. Not reentrant: a reader that reads again while a writer waits would wait for itself.

use crate::deadline::Deadline;
use crate::monitor::Monitor;
use crate::park::{Gate, generation};

#[derive(Debug, Default)]
struct State {
    readers: u64,
    writing: bool,
    writers: Writers,
}

/// The writers that wait. In a forked child those of the parent do not exist, and must not keep readers out.
#[derive(Debug, Default)]
struct Writers {
    count: u64,
    generation: u32,
}

impl Writers {
    fn any(&self) -> bool {
        self.count > 0 && self.generation == generation()
    }

    /// One more; give the result to [`Writers::leave`].
    fn enter(&mut self) -> u32 {
        let now = generation();
        if self.generation != now {
            *self = Self { count: 0, generation: now };
        }
        self.count += 1;
        now
    }

    fn leave(&mut self, entered: u32) {
        // Otherwise the thread forked while it waited, in a signal handler, and is counted no more.
        if self.generation == entered {
            self.count -= 1;
        }
    }
}

/// The lock was released by somebody who does not hold it in that way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotHeld;

/// What a [`RwLock`] is doing at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RwLockStatistics {
    /// Readers inside.
    pub readers: u64,
    /// Whether a writer is inside.
    pub writing: bool,
    /// Threads that wait, readers and writers.
    pub waiting: usize,
}

/// A readers-writer lock; see the [module](self).
#[derive(Debug)]
pub struct RwLock {
    state: Monitor<State>,
}

impl Default for RwLock {
    fn default() -> Self {
        Self { state: Monitor::new(State::default()) }
    }
}

impl RwLock {
    /// Enters as a reader, waiting until `deadline`; whether it entered.
    ///
    /// # Errors
    /// The gate's.
    pub fn read<G: Gate>(&self, gate: &G, deadline: Deadline) -> Result<bool, G::Error> {
        let entered = self
            .state
            .wait_until(gate, deadline, |state| (!state.writing && !state.writers.any()).then(|| state.readers += 1))?;
        Ok(entered.is_some())
    }

    /// Enters as the writer, waiting until `deadline`; whether it entered.
    ///
    /// # Errors
    /// The gate's.
    pub fn write<G: Gate>(&self, gate: &G, deadline: Deadline) -> Result<bool, G::Error> {
        let me = self.state.with(|state| state.writers.enter());
        let entered = self
            .state
            .wait_until(gate, deadline, |state| {
                (!state.writing && state.readers == 0).then(|| {
                    state.writing = true;
                    state.writers.leave(me);
                })
            })
            .map(|entered| entered.is_some());
        if !matches!(entered, Ok(true)) {
            // Readers may have waited for this writer only.
            self.state.change(|state| state.writers.leave(me));
        }
        entered
    }

    /// A reader leaves.
    ///
    /// # Errors
    /// [`NotHeld`] if no reader is inside.
    pub fn release_read(&self) -> Result<(), NotHeld> {
        let last = self.state.with(|state| {
            state.readers = state.readers.checked_sub(1).ok_or(NotHeld)?;
            Ok(state.readers == 0)
        })?;
        if last {
            self.state.change(|_| ());
        }
        Ok(())
    }

    /// The writer leaves.
    ///
    /// # Errors
    /// [`NotHeld`] if no writer is inside.
    pub fn release_write(&self) -> Result<(), NotHeld> {
        self.state.change(|state| if std::mem::take(&mut state.writing) { Ok(()) } else { Err(NotHeld) })
    }

    /// A snapshot.
    pub fn statistics(&self) -> RwLockStatistics {
        let waiting = self.state.waiting();
        self.state.with(|state| RwLockStatistics { readers: state.readers, writing: state.writing, waiting })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::park::ThreadGate;

    #[test]
    fn readers_share_and_a_writer_excludes() {
        let lock = RwLock::default();
        assert_eq!(lock.read(&ThreadGate, Deadline::PASSED), Ok(true));
        assert_eq!(lock.read(&ThreadGate, Deadline::PASSED), Ok(true));
        assert_eq!(lock.write(&ThreadGate, Deadline::PASSED), Ok(false));
        assert_eq!(lock.release_read(), Ok(()));
        assert_eq!(lock.release_read(), Ok(()));
        assert_eq!(lock.release_read(), Err(NotHeld));
        assert_eq!(lock.write(&ThreadGate, Deadline::PASSED), Ok(true));
        assert_eq!(lock.read(&ThreadGate, Deadline::PASSED), Ok(false));
        assert_eq!(lock.release_write(), Ok(()));
        assert_eq!(lock.release_write(), Err(NotHeld));
    }
}
