//! Points in time on the monotonic clock.

use crate::sys::monotonic_nanos;
use std::time::Duration;

/// When a wait gives up: never, or at a point on the monotonic clock.
///
/// A deadline is computed once, when the caller's timeout comes in, so that a wait that is interrupted and goes on
/// still ends on time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(u64);

const NEVER: u64 = u64::MAX;

impl Deadline {
    /// A wait without a timeout.
    pub const NEVER: Self = Self(NEVER);

    /// A deadline that has passed: whoever waits by it only tries.
    pub const PASSED: Self = Self(0);

    /// `timeout` from now; [`Deadline::NEVER`] if that lies beyond what the clock can hold.
    pub fn after(timeout: Duration) -> Self {
        let nanos = u64::try_from(timeout.as_nanos()).unwrap_or(NEVER);
        // The kernel takes a signed number of seconds: anything past i64 nanoseconds (292 years) is never.
        match monotonic_nanos().checked_add(nanos) {
            Some(at) if at <= i64::MAX as u64 => Self(at),
            _ => Self::NEVER,
        }
    }

    /// The point in nanoseconds, `None` for never.
    #[inline]
    pub fn nanos(self) -> Option<u64> {
        (self.0 != NEVER).then_some(self.0)
    }

    /// Whether the point has come.
    #[inline]
    pub fn has_passed(self) -> bool {
        self.0 != NEVER && (self.0 == 0 || monotonic_nanos() >= self.0)
    }

    /// Whether this deadline never comes.
    #[inline]
    pub fn is_never(self) -> bool {
        self.0 == NEVER
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_beyond_the_clock_never_comes() {
        assert!(Deadline::after(Duration::MAX).is_never());
        assert!(!Deadline::after(Duration::from_secs(1)).is_never());
    }

    #[test]
    fn a_zero_timeout_has_passed() {
        assert!(Deadline::after(Duration::ZERO).has_passed());
        assert!(Deadline::PASSED.has_passed());
        assert!(!Deadline::NEVER.has_passed());
    }
}
