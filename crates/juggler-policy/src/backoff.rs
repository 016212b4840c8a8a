//! How long to wait before another attempt.
//!
//! Source of the kinds of jitter: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog (2015).

use std::time::Duration;

/// How chance changes a wait, so that those who failed together do not come back together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jitter {
    /// Not at all.
    None,
    /// Anything from nothing to the whole wait.
    Full,
    /// Half of the wait, and anything up to the other half.
    Equal,
    /// Anything from the base to three times the wait before.
    Decorrelated,
}

/// Waits that double from `base` to `cap`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// The first wait, before chance changes it.
    pub base: Duration,
    /// No wait is longer.
    pub cap: Duration,
    /// How chance changes a wait.
    pub jitter: Jitter,
}

impl Backoff {
    /// The wait after the attempt with this number, from 1.
    ///
    /// `previous` is the wait before, and `random` a number from 0 to 1, 1 excluded.
    pub fn wait(&self, attempt: u32, previous: Duration, random: f64) -> Duration {
        let doubled = 2_u32.checked_pow(attempt.saturating_sub(1)).and_then(|factor| self.base.checked_mul(factor));
        let wait = doubled.unwrap_or(self.cap).min(self.cap);
        match self.jitter {
            Jitter::None => wait,
            Jitter::Full => part(wait, random),
            Jitter::Equal => wait / 2 + part(wait / 2, random),
            Jitter::Decorrelated => {
                let most = previous.max(self.base).saturating_mul(3).min(self.cap);
                self.base.min(self.cap) + part(most.saturating_sub(self.base), random)
            }
        }
    }
}

/// The share `random` of `span`.
fn part(span: Duration, random: f64) -> Duration {
    Duration::try_from_secs_f64(span.as_secs_f64() * random).map_or(span, |part| part.min(span))
}
