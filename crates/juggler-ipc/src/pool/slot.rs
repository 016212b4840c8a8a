//! A slot: one task in flight, and the word that says whose it is.

use juggler_sync::sync::{AtomicU32, AtomicU64};

/// What a slot's task is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The slot holds no task.
    Free,
    /// The task waits for a worker.
    Queued,
    /// A worker makes the call.
    Taken,
    /// The result is there.
    Done,
}

/// The state word: bits 0-7 phase, 8-23 worker, 24-63 ticket.
///
/// ```text
/// Free -> Queued(ticket) -> Taken(worker, ticket) -> Done(worker, ticket) -> Free
/// Queued -> Free                 cancelled before it ran
/// Taken  -> Queued(new ticket)   its worker died, and it may be tried again
/// Taken  -> Free                 its worker died, and it may not
/// ```
///
/// Only the parent makes slots `Queued` and `Free`, only a worker makes `Queued` into `Taken` and `Taken` into `Done`.
/// A ticket is used once, so a compare-and-swap of the whole word can't take one task for another.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct State(pub u64);

impl State {
    /// Without a task.
    pub const FREE: Self = Self(0);

    /// Waits as number `ticket` of the [order](super::order).
    pub fn queued(ticket: u64) -> Self {
        Self(1 | ticket << 24)
    }

    /// Taken by `worker`.
    #[must_use]
    pub fn taken(ticket: u64, worker: u16) -> Self {
        Self(2 | u64::from(worker) << 8 | ticket << 24)
    }

    /// Done by whoever took it.
    #[must_use]
    pub fn done(self) -> Self {
        Self(self.0 & !0xff | 3)
    }

    /// What the task is doing. A word that no process of ours writes counts as free.
    pub fn phase(self) -> Phase {
        match self.0 & 0xff {
            1 => Phase::Queued,
            2 => Phase::Taken,
            3 => Phase::Done,
            _ => Phase::Free,
        }
    }

    /// Who took it.
    pub fn worker(self) -> u16 {
        (self.0 >> 8) as u16
    }

    /// Its place in the order.
    pub fn ticket(self) -> u64 {
        self.0 >> 24
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}(worker {}, ticket {})", self.phase(), self.worker(), self.ticket())
    }
}

/// Where a payload is. Written by one process before it changes the slot's state, read by another after it saw that.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Place {
    /// In bytes.
    pub length: AtomicU64,
    /// 0: in the slot's own room; else where in the segment, or the file of a process.
    pub file: AtomicU64,
    /// How many buffers travel apart: see [`payload`](super::payload).
    pub apart: AtomicU64,
}

/// One task in flight.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Slot {
    /// A [`State`].
    pub state: AtomicU64,
    /// When the worker took it, in nanoseconds on the monotonic clock.
    pub started: AtomicU64,
    /// Where the arguments are.
    pub arguments: Place,
    /// Where the result is.
    pub result: Place,
    /// What kind of result it is: the worker's word to whoever collects.
    pub kind: AtomicU32,
    /// What [`stop_mark`](super::seat::stop_mark) makes of the state, if its worker is asked to stop it.
    pub stop: AtomicU32,
    /// Of a task that consists of several calls: how many are done.
    pub progress: AtomicU32,
}
