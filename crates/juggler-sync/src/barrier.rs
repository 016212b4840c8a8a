//! A barrier for a fixed number of parties, used again and again.
//!
//! # States
//!
//! | phase | meaning | leaves by |
//! |---|---|---|
//! | `Filling` | parties arrive and wait | the last arrival (`Acting`), `abort`, a timeout (`Broken`), `reset` |
//! | `Acting` | the last arrival runs the action | [`Barrier::finish`] (`Draining` or `Broken`) |
//! | `Draining` | those who waited leave; newcomers wait for the next round | the last leaver (`Filling`) |
//! | `Resetting` | `reset` came while some waited: they leave with an error | the last leaver (`Filling`) |
//! | `Broken` | everybody gets an error until `reset` | `reset` |
//!
//! The states are those of CPython's `threading.Barrier`; `Acting` is added because the action runs outside the lock here.
//! In a forked child those who were inside do not exist; the first that comes there finds the barrier empty.

use crate::deadline::Deadline;
use crate::monitor::Monitor;
use crate::park::{self, Gate};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Filling,
    Acting,
    Draining,
    Resetting,
    Broken,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// Parties inside, leaving ones included.
    count: usize,
    /// Of the process that they are in.
    generation: u32,
}

impl State {
    /// Forgets those who stayed behind in a parent process.
    fn forget_parent(&mut self) {
        if self.generation == park::generation() {
            return;
        }
        self.generation = park::generation();
        self.count = 0;
        if self.phase != Phase::Broken {
            self.phase = Phase::Filling;
        }
    }

    /// One party leaves; the last one opens the next round.
    fn leave(&mut self) -> bool {
        // One that forks inside may have been forgotten.
        self.count = self.count.saturating_sub(1);
        let opens = self.count == 0 && matches!(self.phase, Phase::Draining | Phase::Resetting);
        if opens {
            self.phase = Phase::Filling;
        }
        opens
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
    /// It came last: it runs the action and calls [`Barrier::finish`]. Its place.
    Last(usize),
}

/// A barrier; see the [module](self).
#[derive(Debug)]
pub struct Barrier {
    parties: usize,
    state: Monitor<State>,
}

impl Barrier {
    /// A barrier for `parties`, at least one.
    pub fn new(parties: usize) -> Self {
        let state = State { phase: Phase::Filling, count: 0, generation: park::generation() };
        Self { parties, state: Monitor::new(state) }
    }

    /// Arrives, and waits for the others until `deadline`, after which the barrier is broken for all.
    ///
    /// # Errors
    /// The gate's (outer); [`Broken`] (inner).
    pub fn arrive<G: Gate>(&self, gate: &G, deadline: Deadline) -> Result<Result<Arrival, Broken>, G::Error> {
        // A newcomer waits for the round before to drain, as long as that takes.
        let entered = self.state.wait_until(gate, Deadline::NEVER, |state| {
            state.forget_parent();
            match state.phase {
                Phase::Acting | Phase::Draining | Phase::Resetting => None,
                Phase::Broken => Some(Err(Broken)),
                Phase::Filling => {
                    state.count += 1;
                    if state.count == self.parties {
                        state.phase = Phase::Acting;
                        return Some(Ok(Arrival::Last(state.count - 1)));
                    }
                    Some(Ok(Arrival::Passed(state.count - 1)))
                }
            }
        })?;
        let index = match entered {
            Some(Ok(Arrival::Passed(index))) => index,
            Some(other) => return Ok(other),
            None => unreachable!("a wait without a deadline does not time out"),
        };
        let outcome = self.wait_for_round(gate, deadline);
        self.leave();
        Ok(outcome?.map(|()| Arrival::Passed(index)))
    }

    /// Waits until the round is complete; breaks the barrier at `deadline`.
    fn wait_for_round<G: Gate>(&self, gate: &G, deadline: Deadline) -> Result<Result<(), Broken>, G::Error> {
        let outcome = |state: &mut State| match state.phase {
            Phase::Filling | Phase::Acting => None,
            Phase::Draining => Some(Ok(())),
            Phase::Resetting | Phase::Broken => Some(Err(Broken)),
        };
        if let Some(outcome) = self.state.wait_until(gate, deadline, outcome)? {
            return Ok(outcome);
        }
        // Only a round that is still to fill is broken: what has ended it in this very moment counts, and once all have
        // come, the action alone decides, however long it takes.
        let broken = self.state.change(|state| {
            let fills = state.phase == Phase::Filling;
            if fills {
                state.phase = Phase::Broken;
            }
            fills
        });
        if broken {
            return Ok(Err(Broken));
        }
        let outcome = self.state.wait_until(gate, Deadline::NEVER, outcome)?;
        Ok(outcome.expect("a wait without a deadline does not time out"))
    }

    /// The last arrival reports whether the action went well, which lets the others go (or breaks the barrier).
    ///
    /// # Errors
    /// [`Broken`] if the barrier was broken or reset meanwhile.
    pub fn finish(&self, ok: bool) -> Result<(), Broken> {
        let result = self.state.change(|state| {
            if state.phase != Phase::Acting {
                return Err(Broken);
            }
            state.phase = if ok { Phase::Draining } else { Phase::Broken };
            Ok(())
        });
        self.leave();
        result
    }

    fn leave(&self) {
        if self.state.with(State::leave) {
            self.state.change(|_| ());
        }
    }

    /// Makes the barrier usable again; those who wait get [`Broken`].
    pub fn reset(&self) {
        self.state.change(|state| {
            state.forget_parent();
            state.phase = match state.phase {
                _ if state.count == 0 => Phase::Filling,
                // A round that is complete drains by itself.
                Phase::Draining => Phase::Draining,
                _ => Phase::Resetting,
            };
        });
    }

    /// Breaks the barrier: everybody gets [`Broken`] until [`Barrier::reset`].
    pub fn abort(&self) {
        self.state.change(|state| state.phase = Phase::Broken);
    }

    /// How many parties a round needs.
    pub fn parties(&self) -> usize {
        self.parties
    }

    /// How many wait for the round to fill.
    pub fn waiting(&self) -> usize {
        self.state.with(|state| {
            state.forget_parent();
            if matches!(state.phase, Phase::Filling | Phase::Acting) { state.count } else { 0 }
        })
    }

    /// Whether it is broken.
    pub fn is_broken(&self) -> bool {
        self.state.with(|state| state.phase == Phase::Broken)
    }
}
