//! Which descriptor is ready again and again while no other is.
//!
//! To ask the system for one descriptor costs a third less than to ask for all that are watched. So a busy loop that finds
//! nothing but the same one ready asks for that alone for a while, until it is [late](crate::pace::Pace::is_late): as long as any
//! descriptor may be ready before a busy loop finds out. To ask in vain costs a system call, so who does that must
//! be found alone twice as often the next time.

use std::os::fd::RawFd;

/// How many looks must find the same descriptor alone: to begin with, and at most.
const FEWEST: u32 = 2;
const MOST: u32 = 64;

/// The descriptor, and how sure it is.
#[derive(Debug)]
pub struct Focus {
    fd: RawFd,
    /// How many looks have found it, and it alone.
    found: u32,
    /// How many it takes.
    needed: u32,
}

impl Default for Focus {
    fn default() -> Self {
        Self { fd: -1, found: 0, needed: FEWEST }
    }
}

impl Focus {
    /// The descriptor that may be asked for alone.
    #[inline]
    pub fn get(&self) -> Option<RawFd> {
        (self.found >= self.needed).then_some(self.fd)
    }

    /// Takes note of a look at all descriptors, which has found this one `alone`, or none or several.
    #[inline]
    pub fn looked(&mut self, alone: Option<RawFd>) {
        match alone {
            Some(fd) if fd == self.fd => self.found = self.found.saturating_add(1),
            _ => (self.fd, self.found) = (alone.unwrap_or(-1), u32::from(alone.is_some())),
        }
    }

    /// Takes note of whether the descriptor that was asked for alone was ready.
    #[inline]
    pub fn asked(&mut self, ready: bool) {
        if ready {
            self.needed = FEWEST;
        } else {
            self.found = 0;
            self.needed = (self.needed * 2).min(MOST);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn is_on_what_was_found_alone() {
        let mut focus = Focus::default();
        assert_eq!(focus.get(), None);
        for looks in 1..=FEWEST {
            assert_eq!(focus.get(), None, "after {looks}");
            focus.looked(Some(3));
        }
        assert_eq!(focus.get(), Some(3));
        focus.looked(Some(4));
        assert_eq!(focus.get(), None, "another one");
        focus.looked(Some(4));
        assert_eq!(focus.get(), Some(4));
        focus.looked(None);
        assert_eq!(focus.get(), None, "none, or several");
    }

    /// How many looks it takes.
    fn takes(focus: &mut Focus) -> u32 {
        (0..)
            .take_while(|_| {
                focus.get().is_none() && {
                    focus.looked(Some(3));
                    true
                }
            })
            .count() as u32
    }

    #[test]
    fn who_asks_in_vain_asks_less_often() {
        let mut focus = Focus::default();
        let mut needed = FEWEST;
        while needed <= MOST {
            assert_eq!(takes(&mut focus), needed);
            focus.asked(false);
            needed *= 2;
        }
        assert_eq!(takes(&mut focus), MOST);
        focus.asked(true);
        assert_eq!(focus.get(), Some(3));
        focus.looked(None);
        assert_eq!(takes(&mut focus), FEWEST);
    }
}
