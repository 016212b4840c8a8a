//! A token bucket with a line in front of it.
//!
//! Only the first in line looks at the bucket, waits until it may take its amount, takes it, and lets the next one come.
//! So a large amount is not overtaken for ever by small ones, and whoever gives up leaves nothing behind: no part of the
//! rate is spent on calls that were cancelled while they waited.

use crate::limit::{Limit, Ticket};
use crate::rate::Bucket;
use crate::time::Time;

/// A bucket, and who waits for it.
#[derive(Clone, Debug)]
pub struct Pace {
    bucket: Bucket,
    line: Limit,
}

impl Pace {
    /// With nobody in line.
    pub fn new(bucket: Bucket) -> Self {
        Self { bucket, line: Limit::new(1) }
    }

    /// Takes `amount` if that may be now and nobody came before.
    pub fn try_take(&mut self, now: Time, amount: u64) -> bool {
        self.line.inside() == 0 && self.bucket.try_take(now, amount)
    }

    /// Joins the line; whether it is the first there.
    pub fn join(&mut self, ticket: Ticket) -> bool {
        self.line.enter(ticket)
    }

    /// For the first in line: takes `amount`, or says from when on it can.
    ///
    /// # Errors
    /// The moment at which to ask again.
    pub fn take(&mut self, now: Time, amount: u64) -> Result<(), Time> {
        if self.bucket.try_take(now, amount) { Ok(()) } else { Err(self.bucket.ready_at(now, amount)) }
    }

    /// The first in line goes; who is first now is to be told.
    #[must_use = "the ticket's owner has to be told"]
    pub fn leave(&mut self) -> Option<Ticket> {
        self.line.leave()
    }

    /// Leaves the line; if this says no, the ticket is the first there, and has to [`leave`](Self::leave).
    #[must_use = "who is first has to leave"]
    pub fn abandon(&mut self, ticket: Ticket) -> bool {
        self.line.abandon(ticket)
    }

    /// Whether somebody is in line.
    pub fn in_use(&self) -> bool {
        self.line.inside() > 0
    }

    /// Holds no more than `other` did: whoever goes on with this instead of that one gains nothing.
    pub fn make_up_for(&mut self, other: &Self) {
        self.bucket.make_up_for(&other.bucket);
    }
}
