//! The order in which tasks are taken: a ring of slot numbers.
//!
//! `tail` is the parent's, `head` is everybody's. A worker reads `head`, looks up the slot, and takes it by the
//! compare-and-swap `Queued(head) -> Taken(me, head)`; then it, or whoever finds the slot taken or gone, moves `head` on.
//! So a worker that dies between the two steps blocks nobody. Lock-free: somebody's compare-and-swap succeeds.

use super::slot::{Phase, Slot, State};
use juggler_sync::sync::{AtomicU64, Ordering};

/// A view of the ring and the slots.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    /// The next ticket to be taken.
    pub head: &'a AtomicU64,
    /// The next ticket to be given out.
    pub tail: &'a AtomicU64,
    /// The slot of each ticket, by the ticket modulo the length: a power of two.
    pub ring: &'a [AtomicU64],
    /// All slots.
    pub slots: &'a [Slot],
}

impl Order<'_> {
    fn place(&self, ticket: u64) -> &AtomicU64 {
        &self.ring[ticket as usize & (self.ring.len() - 1)]
    }

    /// Queues the free slot `slot`, whose arguments are written; `false` if the ring is full. For the parent, one thread
    /// at a time.
    #[inline]
    pub fn push(&self, slot: usize) -> bool {
        let ticket = self.tail.load(Ordering::Relaxed);
        let length = ticket.wrapping_sub(self.head.load(Ordering::Acquire));
        if length >= self.ring.len() as u64 && !self.skip_gone(ticket) {
            return false;
        }
        self.place(ticket).store(slot as u64, Ordering::Relaxed);
        // Release: pairs with the Acquire of `take`, which makes the arguments visible to the worker.
        self.slots[slot].state.store(State::queued(ticket).0, Ordering::Release);
        // Before the submitter looks for sleepers: see `Idle`.
        self.tail.store(ticket + 1, Ordering::SeqCst);
        true
    }

    /// Whether `spare` tickets can be given out.
    #[inline]
    pub fn has_room(&self, spare: usize) -> bool {
        let most = (self.ring.len() - spare) as u64;
        self.length() <= most || (self.skip_gone(self.tail.load(Ordering::Relaxed)) && self.length() <= most)
    }

    /// Moves `head` over tickets that were cancelled; whether there is room now.
    #[cold]
    fn skip_gone(&self, tail: u64) -> bool {
        let most = self.ring.len() as u64;
        loop {
            let head = self.head.load(Ordering::Acquire);
            if tail.wrapping_sub(head) > most {
                // Written by a process gone wrong. All that is queued lies behind this.
                self.head.store(tail.saturating_sub(most - 1), Ordering::Release);
                continue;
            }
            if head == tail || self.queued(head).is_some() {
                return tail - head < most;
            }
            self.advance(head);
        }
    }

    /// The slot that waits as number `ticket`, if it does.
    fn queued(&self, ticket: u64) -> Option<usize> {
        let slot = self.place(ticket).load(Ordering::Relaxed) as usize;
        let state = self.slots.get(slot)?.state.load(Ordering::Acquire);
        (state == State::queued(ticket).0).then_some(slot)
    }

    fn advance(&self, head: u64) {
        // Failure: somebody else did.
        let _ = self.head.compare_exchange(head, head + 1, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Takes the next task for `worker`: its slot and the slot's state.
    #[inline]
    pub fn take(&self, worker: u16) -> Option<(usize, State)> {
        loop {
            let head = self.head.load(Ordering::Acquire);
            // What lies behind the tail may be anything; a tail before a stale head too.
            if head >= self.tail.load(Ordering::SeqCst) {
                return None;
            }
            if let Some(slot) = self.queued(head) {
                let taken = State::taken(head, worker);
                let state = &self.slots[slot].state;
                let won = state.compare_exchange(State::queued(head).0, taken.0, Ordering::AcqRel, Ordering::Relaxed);
                self.advance(head);
                if won.is_ok() {
                    return Some((slot, taken));
                }
            } else {
                self.advance(head);
            }
        }
    }

    /// How many tickets lie between head and tail, those cancelled too.
    #[inline]
    pub fn length(&self) -> u64 {
        let head = self.head.load(Ordering::Acquire);
        self.tail.load(Ordering::SeqCst).saturating_sub(head)
    }

    /// Takes a queued task back: whether no worker was faster.
    pub fn cancel(&self, slot: usize) -> bool {
        let state = &self.slots[slot].state;
        let now = state.load(Ordering::Acquire);
        State(now).phase() == Phase::Queued
            && state.compare_exchange(now, State::FREE.0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}
