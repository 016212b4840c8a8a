//! A circuit breaker: who fails again and again is left alone for a while.
//!
//! | state | calls | changes |
//! |---|---|---|
//! | closed | go through | opens after so many failures in a row |
//! | open | are refused | half open when its time is over |
//! | half open | some go through, on trial | closes when all of them succeed, opens when one fails |
//!
//! Each change begins a new generation. A call that ends in another generation than it began in says nothing about the
//! present one, and is passed over.
//!
//! Source: M. Nygard, "Release It!" (2007), chapter 5.

use crate::time::Time;
use std::time::Duration;

/// When to open and to close.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// So many failures in a row open it; one at least.
    pub failures: u32,
    /// How long it stays open.
    pub reset: Duration,
    /// So many successes close it when it is half open; no more calls go through at once then. One at least.
    pub trials: u32,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The other side answered.
    Success,
    /// It did not.
    Failure,
    /// The call was cancelled, and says nothing.
    Neither,
}

/// A call was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// When a call may get through; `None` if that depends on the trials that are running.
    pub until: Option<Time>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Closed { failures: u32 },
    Open { until: Time },
    HalfOpen { running: u32, succeeded: u32 },
}

/// The breaker of one counterpart.
#[derive(Clone, Copy, Debug)]
pub struct Breaker {
    rules: Rules,
    phase: Phase,
    generation: u64,
    /// Calls that were let through and have not ended.
    inside: u32,
}

impl Breaker {
    /// A closed one.
    pub fn new(rules: Rules) -> Self {
        Self { rules, phase: Phase::Closed { failures: 0 }, generation: 0, inside: 0 }
    }

    /// Lets a call through, with the generation to [`record`](Self::record) its end in.
    ///
    /// # Errors
    /// [`Refused`], which is not recorded.
    pub fn admit(&mut self, now: Time) -> Result<u64, Refused> {
        match &mut self.phase {
            Phase::Closed { .. } => {}
            Phase::Open { until } if now < *until => return Err(Refused { until: Some(*until) }),
            Phase::Open { .. } => self.change(Phase::HalfOpen { running: 1, succeeded: 0 }),
            Phase::HalfOpen { running, succeeded } => {
                if *running + *succeeded >= self.rules.trials.max(1) {
                    return Err(Refused { until: None });
                }
                *running += 1;
            }
        }
        self.inside += 1;
        Ok(self.generation)
    }

    /// A call of this generation has ended.
    pub fn record(&mut self, now: Time, generation: u64, outcome: Outcome) {
        self.inside = self.inside.saturating_sub(1);
        if generation != self.generation {
            return;
        }
        let trials = self.rules.trials.max(1);
        match (&mut self.phase, outcome) {
            (Phase::Closed { failures }, Outcome::Success) => *failures = 0,
            (Phase::Closed { failures }, Outcome::Failure) => {
                *failures += 1;
                if *failures >= self.rules.failures {
                    self.open(now);
                }
            }
            (Phase::HalfOpen { .. }, Outcome::Failure) => self.open(now),
            (Phase::HalfOpen { running, succeeded }, outcome) => {
                *running = running.saturating_sub(1);
                *succeeded += u32::from(outcome == Outcome::Success);
                if *succeeded >= trials {
                    self.change(Phase::Closed { failures: 0 });
                }
            }
            (Phase::Closed { .. }, Outcome::Neither) | (Phase::Open { .. }, _) => {}
        }
    }

    /// How often it has changed between closed, open and half open.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether a call that it let through is under way.
    pub fn in_use(&self) -> bool {
        self.inside > 0
    }

    fn open(&mut self, now: Time) {
        self.change(Phase::Open { until: now.after(self.rules.reset) });
    }

    fn change(&mut self, phase: Phase) {
        self.phase = phase;
        self.generation += 1;
    }
}
