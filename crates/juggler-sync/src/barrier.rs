//! A barrier for a fixed number of parties, used again and again.
//!
//! Each time that the barrier fills is a round. A party that waits holds its [`Round`] and sleeps on the round's outcome, so
//! the next round can begin to fill as soon as this one has ended, while the parties of this one still wake.
//!
//! # States
//!
//! | phase | meaning | leaves by |
//! |---|---|---|
//! | `Filling` | parties arrive and wait | the last arrival (`Acting`), `abort` or a timeout (`Broken`) |
//! | `Acting` | the last arrival runs the action; newcomers wait for the round to end | [`Barrier::finish`] (`Filling` or `Broken`), `reset` (`Filling`), `abort` (`Broken`) |
//! | `Broken` | everybody gets an error until `reset` | `reset` (`Filling`) |
//!
//! | outcome of a round | told by |
//! |---|---|
//! | `OPEN` | |
//! | `PASSED` | `finish` after an action that went well |
//! | `FAILED` | whatever else ended it: `reset`, `abort`, a timeout, an action that failed |
//!
//! The outcome is stored with Release by whoever ends the round, and read with Acquire by those who wait: what any party did
//! before it arrived (under the state's lock) is visible to all who pass.
//!
//! In a forked child those who were inside do not exist; the first that comes there finds the barrier empty.

use crate::deadline::Deadline;
use crate::guarded::Guarded;
use crate::park::{self, Gate, Waited};
use crate::sync::{Arc, Ordering};
use crate::sys::Futex;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Filling,
    Acting,
    Broken,
}

const OPEN: u32 = 0;
const PASSED: u32 = 1;
const FAILED: u32 = 2;

/// One filling of the barrier: what its parties sleep on.
#[derive(Debug)]
struct Round {
    outcome: Futex,
}

impl Round {
    /// How it ended, or `None` while it is open.
    fn outcome(&self) -> Option<Result<(), Broken>> {
        match self.outcome.load(Ordering::Acquire) {
            OPEN => None,
            PASSED => Some(Ok(())),
            _ => Some(Err(Broken)),
        }
    }

    /// Sleeps until it has ended: how, or `None` at `deadline`.
    fn wait<G: Gate>(&self, gate: &G, deadline: Deadline) -> Result<Option<Result<(), Broken>>, G::Error> {
        loop {
            if let Some(outcome) = self.outcome() {
                return Ok(Some(outcome));
            }
            if deadline == Deadline::PASSED {
                return Ok(None);
            }
            if gate.wait(&self.outcome, OPEN, deadline)? == Waited::TimedOut {
                return Ok(self.outcome());
            }
        }
    }
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// Parties that have arrived in the round.
    count: usize,
    /// The round that fills or acts; made by the first that waits for it.
    round: Option<Arc<Round>>,
    /// Which round that is.
    number: u64,
    /// Of the process that the parties are in.
    generation: u32,
}

impl State {
    /// Forgets those who stayed behind in a parent process.
    fn forget_parent(&mut self) {
        if self.generation == park::generation() {
            return;
        }
        self.generation = park::generation();
        drop(self.end(FAILED));
        if self.phase != Phase::Broken {
            self.phase = Phase::Filling;
        }
    }

    /// The round, for one who is going to wait for it.
    fn join(&mut self) -> Arc<Round> {
        self.round.get_or_insert_with(|| Arc::new(Round { outcome: Futex::new(OPEN) })).clone()
    }

    /// Ends the round; the caller wakes whoever waits for it, after letting go of the state.
    #[must_use]
    fn end(&mut self, outcome: u32) -> Option<Arc<Round>> {
        self.count = 0;
        self.number += 1;
        let round = self.round.take();
        if let Some(round) = &round {
            round.outcome.word.store(outcome, Ordering::Release);
        }
        round
    }
}

/// Wakes everybody who waits for a round that has ended.
fn wake(round: Option<Arc<Round>>) {
    if let Some(round) = round {
        round.outcome.wake(u32::MAX);
    }
}

/// The barrier is broken, was reset, or a party timed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

/// What a party that arrived does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It waited, and the round is complete; its place, counted from 0.
    Passed(usize),
    /// It came last: it runs the action and calls [`Barrier::finish`] with `round`.
    Last {
        /// Its place, counted from 0.
        place: usize,
        /// The round that it ends.
        round: u64,
    },
}

/// A barrier; see the [module](self).
#[derive(Debug)]
pub struct Barrier {
    parties: usize,
    state: Guarded<State>,
}

enum Entry {
    Done(Result<Arrival, Broken>),
    /// It counts, at this place, and waits for the round.
    Inside(usize, Arc<Round>),
    /// The action of this round runs.
    Outside(Arc<Round>),
}

impl Barrier {
    /// A barrier for `parties`, at least one.
    pub fn new(parties: usize) -> Self {
        let generation = park::generation();
        let state = State { phase: Phase::Filling, count: 0, round: None, number: 0, generation };
        Self { parties, state: Guarded::new(state) }
    }

    /// Arrives, and waits for the others until `deadline`, after which the barrier is broken for all.
    ///
    /// # Errors
    /// The gate's (outer); [`Broken`] (inner).
    pub fn arrive<G: Gate>(&self, gate: &G, deadline: Deadline) -> Result<Result<Arrival, Broken>, G::Error> {
        loop {
            match self.enter() {
                Entry::Done(arrival) => return Ok(arrival),
                Entry::Inside(place, round) => {
                    let outcome = self.wait_for(&round, gate, deadline)?;
                    return Ok(outcome.map(|()| Arrival::Passed(place)));
                }
                // However long the action takes.
                Entry::Outside(round) => drop(round.wait(gate, Deadline::NEVER)?),
            }
        }
    }

    fn enter(&self) -> Entry {
        let mut state = self.state.lock();
        state.forget_parent();
        match state.phase {
            Phase::Broken => Entry::Done(Err(Broken)),
            Phase::Acting => Entry::Outside(state.join()),
            Phase::Filling => {
                let place = state.count;
                state.count += 1;
                if state.count < self.parties {
                    return Entry::Inside(place, state.join());
                }
                state.phase = Phase::Acting;
                Entry::Done(Ok(Arrival::Last { place, round: state.number }))
            }
        }
    }

    /// Waits until the round is complete; breaks the barrier at `deadline`.
    fn wait_for<G: Gate>(&self, round: &Round, gate: &G, deadline: Deadline) -> Result<Result<(), Broken>, G::Error> {
        match round.wait(gate, deadline) {
            Ok(Some(outcome)) => return Ok(outcome),
            Ok(None) => {}
            Err(error) => {
                let mut state = self.state.lock();
                if round.outcome().is_none() {
                    // One that forks inside may have been forgotten.
                    state.count = state.count.saturating_sub(1);
                }
                return Err(error);
            }
        }
        // Only a round that is still to fill is broken: what has ended it in this very moment counts, and once all have
        // come, the action alone decides, however long it takes.
        let mut state = self.state.lock();
        if round.outcome().is_none() && state.phase == Phase::Filling {
            state.phase = Phase::Broken;
            let broken = state.end(FAILED);
            drop(state);
            wake(broken);
            return Ok(Err(Broken));
        }
        drop(state);
        let outcome = round.wait(gate, Deadline::NEVER)?;
        Ok(outcome.expect("a wait without a deadline does not time out"))
    }

    /// The last arrival reports whether the action went well, which lets the others go (or breaks the barrier).
    ///
    /// # Errors
    /// [`Broken`] if the barrier was broken or reset meanwhile.
    pub fn finish(&self, round: u64, ok: bool) -> Result<(), Broken> {
        let mut state = self.state.lock();
        if state.number != round {
            return Err(Broken);
        }
        state.phase = if ok { Phase::Filling } else { Phase::Broken };
        let ended = state.end(if ok { PASSED } else { FAILED });
        drop(state);
        wake(ended);
        Ok(())
    }

    /// Makes the barrier usable again; those who wait get [`Broken`].
    pub fn reset(&self) {
        self.fail(Phase::Filling);
    }

    /// Breaks the barrier: everybody gets [`Broken`] until [`Barrier::reset`].
    pub fn abort(&self) {
        self.fail(Phase::Broken);
    }

    fn fail(&self, phase: Phase) {
        let mut state = self.state.lock();
        state.forget_parent();
        state.phase = phase;
        let failed = state.end(FAILED);
        drop(state);
        wake(failed);
    }

    /// How many parties a round needs.
    pub fn parties(&self) -> usize {
        self.parties
    }

    /// How many wait for the round to fill.
    pub fn waiting(&self) -> usize {
        let mut state = self.state.lock();
        state.forget_parent();
        state.count
    }

    /// Whether it is broken.
    pub fn is_broken(&self) -> bool {
        self.state.lock().phase == Phase::Broken
    }
}
