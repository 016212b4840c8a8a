//! How often a loop that has something to run looks at its descriptors.
//!
//! A look is a system call, and costs more than running a small callback. While looks find something, there is one each turn,
//! and a few more turns after: who awaits `sleep(0)` some times for a descriptor to become ready is right to expect that.
//! After [`PATIENCE`] looks in vain, there is one every [`INTERVAL`]. To read the clock costs as much as a small callback, too,
//! so turns are counted: as many as have fit into the interval lately, but none without a look after the system's next
//! [tick](crate::clock), should they take longer than they did.

/// How many looks in vain it takes to look less often.
const PATIENCE: u32 = 16;

/// How long a descriptor may be ready before a busy loop finds out, in nanoseconds.
const INTERVAL: u64 = 20_000;

/// When to look next.
#[derive(Debug, Default)]
pub struct Pace {
    in_vain: u32,
    /// When the last look was.
    last: u64,
    /// How many turns there were since, and how many there may be.
    turns: u64,
    most: u64,
    /// The last tick that a turn saw, and whether this turn was the first to see it.
    tick: u64,
    has_ticked: bool,
}

impl Pace {
    /// Begins anew: the next turn begins with a look.
    pub fn begin(&mut self) {
        self.most = 0;
    }

    /// Whether to look in this turn, the system's last tick having been at `tick`.
    #[inline]
    pub fn is_due(&mut self, tick: u64) -> bool {
        self.turns += 1;
        self.has_ticked = std::mem::replace(&mut self.tick, tick) != tick;
        self.in_vain < PATIENCE || self.is_late()
    }

    /// Whether the last look is an interval ago, as far as this turn can tell; [`is_due`](Self::is_due) was asked in it.
    #[inline]
    pub fn is_late(&self) -> bool {
        self.has_ticked || self.turns >= self.most
    }

    /// Takes note of a look, and of whether something was ready.
    #[inline]
    pub fn looked(&mut self, now: u64, found: bool) {
        let took = now.saturating_sub(self.last).max(1);
        self.most = self.turns.saturating_mul(INTERVAL) / took;
        (self.last, self.turns) = (now, 0);
        self.in_vain = if found { 0 } else { self.in_vain.saturating_add(1) };
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// A pace that has looked in vain often enough, with turns that take `each` nanoseconds.
    fn patient(each: u64) -> Pace {
        let mut pace = Pace::default();
        for turn in 0..u64::from(PATIENCE) {
            assert!(pace.is_due(0));
            pace.looked(turn * each, false);
        }
        pace
    }

    fn turns_without_look(pace: &mut Pace, tick: u64) -> u64 {
        (0..).take_while(|_| !pace.is_due(tick)).count() as u64
    }

    #[test]
    fn a_busy_loop_looks_once_in_an_interval() {
        let mut pace = patient(100);
        let now = u64::from(PATIENCE - 1) * 100;
        assert_eq!(turns_without_look(&mut pace, 0), INTERVAL / 100 - 1);
        // Turns take twice as long now.
        pace.looked(now + 2 * INTERVAL, false);
        assert_eq!(turns_without_look(&mut pace, 0), INTERVAL / 200 - 1);
    }

    #[test]
    fn long_turns_all_begin_with_a_look() {
        assert_eq!(turns_without_look(&mut patient(INTERVAL), 0), 0);
        assert_eq!(turns_without_look(&mut patient(10 * INTERVAL), 0), 0);
    }

    #[test]
    fn a_tick_makes_for_a_look() {
        let mut pace = patient(100);
        assert!(!pace.is_due(0));
        assert!(pace.is_due(1));
        assert!(!pace.is_due(1));
    }

    #[test]
    fn what_finds_something_each_turn_is_late_after_an_interval() {
        let mut pace = Pace::default();
        for turn in 1..10 {
            pace.is_due(0);
            pace.looked(turn * INTERVAL / 4, true);
        }
        let late = [(); 4].map(|()| {
            assert!(pace.is_due(0));
            pace.is_late()
        });
        assert_eq!(late, [false, false, false, true]);
        pace.looked(9 * INTERVAL / 4 + INTERVAL, true);
        assert!(pace.is_due(1) && pace.is_late(), "a tick");
        pace.looked(100 * INTERVAL, true);
        assert!(pace.is_due(1) && pace.is_late(), "a turn that took long");
    }

    #[test]
    fn a_loop_begins_with_a_look() {
        let mut pace = patient(100);
        pace.begin();
        assert!(pace.is_due(0));
    }

    #[test]
    fn a_look_that_finds_something_makes_for_more() {
        let mut pace = patient(100);
        pace.looked(0, true);
        for _ in 1..PATIENCE {
            assert!(pace.is_due(0));
            pace.looked(0, false);
        }
        assert!(pace.is_due(0));
    }
}
