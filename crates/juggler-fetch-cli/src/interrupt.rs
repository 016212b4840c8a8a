//! Waits that Ctrl-C ends.

use juggler_sync::sys::{FutexWait, Sleep};
use juggler_sync::{Deadline, Gate, Waited};
use std::time::Duration;

/// A signal that came in the very moment before a sleep does not end it; so no sleep is longer.
const LONGEST_SLEEP: Duration = Duration::from_millis(100);

/// Ctrl-C came.
#[derive(Debug)]
pub struct Interrupted;

/// The gate of a thread that asks, each time it wakes up, whether to go on waiting.
pub struct Interruptible<F>(pub F);

impl<F: Fn() -> bool> Interruptible<F> {
    /// # Errors
    /// That Ctrl-C came.
    pub fn check(&self) -> Result<(), Interrupted> {
        if (self.0)() { Err(Interrupted) } else { Ok(()) }
    }
}

impl<F: Fn() -> bool> Gate for Interruptible<F> {
    type Error = Interrupted;

    fn wait<S: Sleep>(&self, futex: &S, expected: u32, deadline: Deadline) -> Result<Waited, Interrupted> {
        loop {
            let until = deadline.min(Deadline::after(LONGEST_SLEEP));
            let slept = futex.sleep(expected, until);
            if slept == FutexWait::Woken {
                return Ok(Waited::Woken);
            }
            self.check()?;
            match slept {
                FutexWait::TimedOut if until == deadline => return Ok(Waited::TimedOut),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use juggler_sync::monitor::Monitor;
    use std::cell::Cell;
    use std::time::Instant;

    #[test]
    fn a_wait_ends_when_it_is_interrupted() {
        let asked = Cell::new(0);
        let gate = Interruptible(|| asked.replace(asked.get() + 1) == 2);
        let began = Instant::now();
        let waited = Monitor::new(()).wait_until(&gate, Deadline::NEVER, |()| None::<()>);
        assert!(matches!(waited, Err(Interrupted)));
        assert!(asked.get() == 3 && began.elapsed() >= 2 * LONGEST_SLEEP);
    }

    #[test]
    fn a_wait_ends_at_its_deadline() {
        let deadline = Deadline::after(LONGEST_SLEEP + LONGEST_SLEEP / 2);
        let began = Instant::now();
        let waited = Monitor::new(()).wait_until(&Interruptible(|| false), deadline, |()| None::<()>);
        assert!(matches!(waited, Ok(None)) && began.elapsed() >= LONGEST_SLEEP);
    }
}
