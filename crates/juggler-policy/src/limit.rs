//! So many at once, and a line for the others.

use std::collections::BTreeSet;

/// Who waits, by a number that the caller draws from a counter: the lower ones came earlier.
pub type Ticket = u64;

/// Counts who is inside, and knows who is next.
///
/// A place that becomes free is handed to the first in line, so nobody who comes later takes it: while somebody waits,
/// all places are taken.
#[derive(Clone, Debug)]
pub struct Limit {
    most: usize,
    inside: usize,
    line: BTreeSet<Ticket>,
}

impl Limit {
    /// With `most` places, one at least.
    pub fn new(most: usize) -> Self {
        Self { most: most.max(1), inside: 0, line: BTreeSet::new() }
    }

    /// Takes a place if one is free.
    pub fn try_enter(&mut self) -> bool {
        let free = self.inside < self.most;
        self.inside += usize::from(free);
        free
    }

    /// Takes a place, or one in the line: then [`leave`](Self::leave) says when it is this ticket's turn.
    pub fn enter(&mut self, ticket: Ticket) -> bool {
        let entered = self.try_enter();
        if !entered {
            self.line.insert(ticket);
        }
        entered
    }

    /// Gives a place back: to the first in line, which is returned and is inside now.
    #[must_use = "the ticket's owner has to be told"]
    pub fn leave(&mut self) -> Option<Ticket> {
        let next = self.line.pop_first();
        if next.is_none() {
            self.inside = self.inside.saturating_sub(1);
        }
        next
    }

    /// Leaves the line. If this says no, the ticket had its turn meanwhile: it is inside, and has to leave.
    #[must_use = "who is inside has to leave"]
    pub fn abandon(&mut self, ticket: Ticket) -> bool {
        self.line.remove(&ticket)
    }

    /// How many are inside.
    pub fn inside(&self) -> usize {
        self.inside
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.line.len()
    }
}
