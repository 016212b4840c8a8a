//! What is ready to run: in this turn, or in the next.

use std::collections::VecDeque;

/// A ring of entries, first in, first out.
///
/// A turn runs as many as there are when it begins; what comes meanwhile is for the next turn. A turn that is given up leaves
/// its rest where it is, before all that has come meanwhile.
#[derive(Debug)]
pub struct Ready<T> {
    entries: VecDeque<T>,
    /// How many are left of the turn.
    turn: usize,
}

impl<T> Default for Ready<T> {
    fn default() -> Self {
        Self { entries: VecDeque::new(), turn: 0 }
    }
}

impl<T> Ready<T> {
    /// Puts an entry at the end.
    #[inline]
    pub fn push(&mut self, entry: T) {
        self.entries.push_back(entry);
    }

    /// Whether nothing waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entry that comes next.
    #[inline]
    pub fn first(&self) -> Option<&T> {
        self.entries.front()
    }

    /// The entries that wait, first come first.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.entries.iter()
    }

    /// Begins a turn of all that waits now.
    #[inline]
    pub fn begin_turn(&mut self) {
        self.turn = self.entries.len();
    }

    /// Takes the turn's next entry.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        self.turn = self.turn.checked_sub(1)?;
        self.entries.pop_front()
    }

    /// Takes out everything for good.
    pub fn clear(&mut self) -> VecDeque<T> {
        std::mem::take(&mut self.entries)
    }
}
