//! Whether a call that failed is tried again, and when.

use crate::backoff::Backoff;
use crate::time::Time;
use std::time::Duration;

/// The rules for trying again.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// How often to call, the first time included.
    pub attempts: u32,
    /// The waits in between.
    pub backoff: Backoff,
    /// The longest wait that a server can ask for (`Retry-After`).
    pub longest: Duration,
}

/// One call's attempts so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attempts {
    made: u32,
    previous: Duration,
}

impl Attempts {
    /// How many there were.
    pub fn made(&self) -> u32 {
        self.made
    }
}

/// Why there is no further attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GiveUp {
    /// There were as many as there may be.
    Attempts,
    /// It would begin at the deadline or after it; the wait that there would have been.
    Deadline(Duration),
}

impl Retry {
    /// After an attempt that failed: when the next one begins.
    ///
    /// `asked` is the wait that the server asked for, and `latest` the deadline of the whole: an attempt that could not
    /// begin before it is not waited for.
    ///
    /// # Errors
    /// Why there is none.
    pub fn next(
        &self,
        attempts: &mut Attempts,
        now: Time,
        asked: Option<Duration>,
        latest: Time,
        random: f64,
    ) -> Result<Time, GiveUp> {
        attempts.made = attempts.made.saturating_add(1);
        if attempts.made >= self.attempts {
            return Err(GiveUp::Attempts);
        }
        let wait = self.backoff.wait(attempts.made, attempts.previous, random);
        attempts.previous = wait;
        let wait = wait.max(asked.unwrap_or_default().min(self.longest));
        let begins = now.after(wait);
        if begins < latest { Ok(begins) } else { Err(GiveUp::Deadline(wait)) }
    }
}
