//! Hedging: a call that takes longer than most gets another one beside it, and the first answer counts.
//!
//! Source: J. Dean and L. A. Barroso, "The Tail at Scale", CACM 56(2), 2013.

use std::time::Duration;

/// How long a call may take before it gets company.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum After {
    /// So long.
    Fixed(Duration),
    /// Longer than this share of the latest calls took, from 0 to 1; as long as the given time until enough are known.
    Quantile(f64, Duration),
}

/// How many of the latest calls are remembered, and how many are enough.
const REMEMBERED: usize = 128;
const ENOUGH: usize = 16;

/// When to start further calls.
#[derive(Clone, Debug)]
pub struct Hedge {
    after: After,
    most: u32,
    latest: Vec<Duration>,
    next: usize,
}

impl Hedge {
    /// With at most `most` calls side by side, the first included.
    pub fn new(after: After, most: u32) -> Self {
        Self { after, most: most.max(1), latest: Vec::new(), next: 0 }
    }

    /// How long to wait for the calls that run, when so many have begun; `None` if there is to be no further one.
    pub fn patience(&self, begun: u32) -> Option<Duration> {
        (begun < self.most).then(|| self.delay())
    }

    /// Remembers how long a call took that succeeded.
    pub fn record(&mut self, took: Duration) {
        if self.latest.len() < REMEMBERED {
            self.latest.push(took);
        } else {
            self.latest[self.next] = took;
            self.next = (self.next + 1) % REMEMBERED;
        }
    }

    fn delay(&self) -> Duration {
        let (share, first) = match self.after {
            After::Fixed(delay) => return delay,
            After::Quantile(share, first) => (share, first),
        };
        if self.latest.len() < ENOUGH {
            return first;
        }
        let mut sorted = self.latest.clone();
        let last = sorted.len() - 1;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a small length")]
        let rank = (share.clamp(0.0, 1.0) * last as f64).ceil() as usize;
        *sorted.select_nth_unstable(rank).1
    }
}
