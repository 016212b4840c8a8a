//! What is ready to run: in this turn, or in the next.

use std::collections::VecDeque;

/// A ring of entries, first in, first out.
///
/// A turn takes all that is there, so that running an entry needs no access to the ring; what comes meanwhile is for the next
/// turn. The two buffers change places each turn, so nothing is allocated once they are large enough.
#[derive(Debug)]
pub struct Ready<T> {
    entries: VecDeque<T>,
    spare: VecDeque<T>,
}

impl<T> Default for Ready<T> {
    fn default() -> Self {
        Self { entries: VecDeque::new(), spare: VecDeque::new() }
    }
}

impl<T> Ready<T> {
    /// Puts an entry at the end.
    #[inline]
    pub fn push(&mut self, entry: T) {
        self.entries.push_back(entry);
    }

    /// How many entries wait for the next turn.
    #[inline]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing waits for the next turn.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entries that wait, first come first.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.entries.iter()
    }

    /// Begins a turn: takes everything. The caller runs it, and gives back what it did not run with [`Ready::end_turn`].
    #[inline]
    #[must_use = "what is taken must be run or given back"]
    pub fn begin_turn(&mut self) -> VecDeque<T> {
        std::mem::replace(&mut self.entries, std::mem::take(&mut self.spare))
    }

    /// Ends a turn. What is left of it goes before all that has come meanwhile.
    #[inline]
    pub fn end_turn(&mut self, mut turn: VecDeque<T>) {
        if !turn.is_empty() {
            turn.append(&mut self.entries);
            std::mem::swap(&mut turn, &mut self.entries);
        }
        self.spare = turn;
    }

    /// Takes out everything for good.
    pub fn clear(&mut self) -> VecDeque<T> {
        std::mem::take(&mut self.entries)
    }
}
