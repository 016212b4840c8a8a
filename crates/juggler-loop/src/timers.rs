//! What is to run at a point in time.
//!
//! Programs use few different delays (a keep-alive, a request's timeout), and timers of the same delay come in the order in
//! which they are due. So there are a few runs, each sorted, to which a timer is appended if it is due after the run's last;
//! what fits none of them goes to a binary heap. The first of all is the first of the runs' and the heap's firsts. With few delays
//! both adding and taking cost the same however many timers there are; in the worst case it is a heap.
//!
//! The idea is patience sorting's: C. L. Mallows, "Problem 62-2, Patience Sorting", SIAM Review 4 (1962).

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, VecDeque};

/// How many runs there are.
const RUNS: usize = 4;

/// Below this many entries, cancelled ones are left to come up by themselves.
const FEW: usize = 64;

/// Entries by the time at which they are due; those of the same time in the order in which they came.
///
/// An entry that is cancelled stays until it comes up or until half of the entries are such. Who cancels one says so with
/// [`Timers::note_cancelled`]; a function that is passed in tells which those are. Entries are handed back, never dropped in here.
#[derive(Debug)]
pub struct Timers<T> {
    runs: [VecDeque<Timer<T>>; RUNS],
    heap: BinaryHeap<Reverse<Timer<T>>>,
    sequence: u64,
    len: usize,
    cancelled: usize,
}

#[derive(Debug)]
struct Timer<T> {
    key: Key,
    entry: T,
}

/// When, then which came first.
type Key = (u64, u64);

impl<T> PartialEq for Timer<T> {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
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
        self.key.cmp(&other.key)
    }
}

impl<T> Default for Timers<T> {
    fn default() -> Self {
        let runs = [const { VecDeque::new() }; RUNS];
        Self { runs, heap: BinaryHeap::new(), sequence: 0, len: 0, cancelled: 0 }
    }
}

/// Where the first timer is.
#[derive(Clone, Copy)]
enum Place {
    Run(usize),
    Heap,
}

impl<T> Timers<T> {
    /// Adds an entry that is due at `when`, in nanoseconds on any clock.
    #[inline]
    pub fn push(&mut self, when: u64, entry: T) {
        self.sequence += 1;
        self.len += 1;
        let timer = Timer { key: (when, self.sequence), entry };
        // The first that takes it: the longest delays come to lie in the first runs.
        match self.runs.iter_mut().find(|run| run.back().is_none_or(|last| last.key <= timer.key)) {
            Some(run) => run.push_back(timer),
            None => self.heap.push(Reverse(timer)),
        }
    }

    /// How many there are, cancelled ones included.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline]
    fn first(&self) -> Option<(&Timer<T>, Place)> {
        if self.len == 0 {
            return None;
        }
        let runs = self.runs.iter().enumerate().filter_map(|(at, run)| Some((run.front()?, Place::Run(at))));
        let heap = self.heap.peek().map(|Reverse(timer)| (timer, Place::Heap));
        runs.chain(heap).min_by_key(|(timer, _)| timer.key)
    }

    /// When the first one is due, be it cancelled or not.
    #[inline]
    pub fn next(&self) -> Option<u64> {
        self.first().map(|(timer, _)| timer.key.0)
    }

    /// Takes the first one out if it is due at `now`, be it cancelled or not.
    #[inline]
    pub fn pop_due(&mut self, now: u64, is_cancelled: impl FnOnce(&T) -> bool) -> Option<T> {
        let (first, place) = self.first()?;
        if first.key.0 > now {
            return None;
        }
        self.pop(place, is_cancelled)
    }

    /// Takes the first one out if it is cancelled, so that [`Timers::next`] tells of one that is not.
    pub fn pop_cancelled(&mut self, is_cancelled: impl Fn(&T) -> bool) -> Option<T> {
        let (first, place) = self.first()?;
        if !is_cancelled(&first.entry) {
            return None;
        }
        self.pop(place, is_cancelled)
    }

    #[inline]
    fn pop(&mut self, place: Place, is_cancelled: impl FnOnce(&T) -> bool) -> Option<T> {
        let Timer { entry, .. } = match place {
            Place::Run(at) => self.runs[at].pop_front()?,
            Place::Heap => self.heap.pop()?.0,
        };
        self.len -= 1;
        if self.cancelled > 0 && is_cancelled(&entry) {
            self.cancelled -= 1;
        }
        Some(entry)
    }

    /// Says that one of the entries is cancelled now. Returns whether it is time to [`compact`](Timers::compact).
    #[inline]
    pub fn note_cancelled(&mut self) -> bool {
        self.cancelled += 1;
        self.cancelled * 2 > self.len && self.len >= FEW
    }

    /// Takes all cancelled entries out.
    #[must_use = "the caller drops them when it may"]
    pub fn compact(&mut self, is_cancelled: impl Fn(&T) -> bool) -> Vec<T> {
        let mut stale = Vec::new();
        for run in &mut self.runs {
            let (cancelled, live): (VecDeque<_>, VecDeque<_>) =
                std::mem::take(run).into_iter().partition(|timer| is_cancelled(&timer.entry));
            *run = live;
            stale.extend(cancelled.into_iter().map(|timer| timer.entry));
        }
        let heap = std::mem::take(&mut self.heap).into_vec();
        let (cancelled, live): (Vec<_>, Vec<_>) =
            heap.into_iter().partition(|Reverse(timer)| is_cancelled(&timer.entry));
        self.heap = live.into();
        stale.extend(cancelled.into_iter().map(|Reverse(timer)| timer.entry));
        self.len -= stale.len();
        self.cancelled = 0;
        stale
    }

    /// The entries, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        let heap = self.heap.iter().map(|Reverse(timer)| timer);
        self.runs.iter().flatten().chain(heap).map(|timer| &timer.entry)
    }

    /// Takes out everything.
    #[must_use = "the caller drops them when it may"]
    pub fn clear(&mut self) -> Vec<T> {
        self.compact(|_| true)
    }
}
