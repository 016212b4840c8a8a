//! What is to run at a point in time.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// Below this many entries, cancelled ones are left to come up by themselves.
const FEW: usize = 64;

/// Entries by the time at which they are due; those of the same time in the order in which they came.
///
/// An entry that is cancelled stays in the heap until it comes up or until half of the heap is such. Who cancels one says so
/// with [`Timers::note_cancelled`]; a function that is passed in tells which those are. Entries are handed back, never
/// dropped in here.
#[derive(Debug)]
pub struct Timers<T> {
    heap: BinaryHeap<Reverse<Timer<T>>>,
    sequence: u64,
    cancelled: usize,
}

#[derive(Debug)]
struct Timer<T> {
    when: u64,
    sequence: u64,
    entry: T,
}

impl<T> PartialEq for Timer<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Timer<T> {}

impl<T> PartialOrd for Timer<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Timer<T> {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        (self.when, self.sequence).cmp(&(other.when, other.sequence))
    }
}

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), sequence: 0, cancelled: 0 }
    }
}

impl<T> Timers<T> {
    /// Adds an entry that is due at `when`, in nanoseconds on any clock.
    #[inline]
    pub fn push(&mut self, when: u64, entry: T) {
        self.sequence += 1;
        self.heap.push(Reverse(Timer { when, sequence: self.sequence, entry }));
    }

    /// How many there are, cancelled ones included.
    #[inline]
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// When the first one is due, be it cancelled or not.
    #[inline]
    pub fn next(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse(timer)| timer.when)
    }

    /// Takes the first one out if it is due at `now`, be it cancelled or not.
    #[inline]
    pub fn pop_due(&mut self, now: u64, is_cancelled: impl FnOnce(&T) -> bool) -> Option<T> {
        if self.next()? > now {
            return None;
        }
        self.pop(is_cancelled)
    }

    /// Takes the first one out if it is cancelled, so that [`Timers::next`] tells of one that is not.
    pub fn pop_cancelled(&mut self, is_cancelled: impl Fn(&T) -> bool) -> Option<T> {
        let Reverse(first) = self.heap.peek()?;
        if !is_cancelled(&first.entry) {
            return None;
        }
        self.pop(is_cancelled)
    }

    fn pop(&mut self, is_cancelled: impl FnOnce(&T) -> bool) -> Option<T> {
        let Reverse(Timer { entry, .. }) = self.heap.pop()?;
        if self.cancelled > 0 && is_cancelled(&entry) {
            self.cancelled -= 1;
        }
        Some(entry)
    }

    /// Says that one of the entries is cancelled now. Returns whether it is time to [`compact`](Timers::compact).
    #[inline]
    pub fn note_cancelled(&mut self) -> bool {
        self.cancelled += 1;
        self.cancelled * 2 > self.heap.len() && self.heap.len() >= FEW
    }

    /// Takes all cancelled entries out.
    #[must_use = "the caller drops them when it may"]
    pub fn compact(&mut self, is_cancelled: impl Fn(&T) -> bool) -> Vec<T> {
        let timers = std::mem::take(&mut self.heap).into_vec();
        let (stale, live): (Vec<_>, Vec<_>) = timers.into_iter().partition(|Reverse(timer)| is_cancelled(&timer.entry));
        self.heap = live.into();
        self.cancelled = 0;
        stale.into_iter().map(|Reverse(timer)| timer.entry).collect()
    }

    /// The entries, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.heap.iter().map(|Reverse(timer)| &timer.entry)
    }

    /// Takes out everything.
    #[must_use = "the caller drops them when it may"]
    pub fn clear(&mut self) -> Vec<T> {
        self.cancelled = 0;
        std::mem::take(&mut self.heap).into_iter().map(|Reverse(timer)| timer.entry).collect()
    }
}
