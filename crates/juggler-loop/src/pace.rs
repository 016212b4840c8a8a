//! How often a loop that has something to run looks at its descriptors.
//!
//! A look is a system call, and costs more than running a small callback. While looks find something, there is one each turn,
//! and a few more turns after: who awaits `sleep(0)` some times for a descriptor to become ready is right to expect that.
//! After [`PATIENCE`] looks in vain, there is one every [`INTERVAL`].

/// How many looks in vain it takes to look less often.
const PATIENCE: u32 = 16;

/// How long a descriptor may be ready before a busy loop finds out, in nanoseconds.
const INTERVAL: u64 = 20_000;

/// When to look next.
#[derive(Debug, Default)]
pub struct Pace {
    in_vain: u32,
    last: u64,
}

impl Pace {
    /// Whether to look now.
    #[inline]
    pub fn is_due(&self, now: u64) -> bool {
        self.in_vain < PATIENCE || now.saturating_sub(self.last) >= INTERVAL
    }

    /// Takes note of a look, and of whether something was ready.
    #[inline]
    pub fn looked(&mut self, now: u64, found: bool) {
        self.last = now;
        self.in_vain = if found { 0 } else { self.in_vain.saturating_add(1) };
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_look_that_finds_something_makes_for_more() {
        let mut pace = Pace::default();
        for _ in 0..PATIENCE {
            assert!(pace.is_due(5));
            pace.looked(5, false);
        }
        assert!(!pace.is_due(5));
        assert!(!pace.is_due(5 + INTERVAL - 1));
        assert!(pace.is_due(5 + INTERVAL));
        pace.looked(5 + INTERVAL, false);
        assert!(!pace.is_due(5 + INTERVAL));
        pace.looked(5 + INTERVAL, true);
        assert!(pace.is_due(5 + INTERVAL));
    }
}
