//! A barrier between processes.
//!
//! A short lock guards the state, as every step changes several words. It is a [`RawLock`]: who takes it over from a dead
//! process breaks the barrier. Rounds are numbered; who waits sleeps until the number moves and then reads in `broken_rounds`
//! how its round ended, so nobody need wait until all have left. Parties are known by their process, and when one of those that
//! wait dies the others break the barrier: it would not come to the next round either.

use crate::lock::{Acquired, RawLock, Slices};
use crate::owner::Owner;
use crate::segment::shared;
use juggler_sync::sync::{AtomicU32, Ordering};
use juggler_sync::sys::SharedFutex;
use juggler_sync::{Deadline, Gate, ThreadGate, Waited};

const FILLING: u32 = 0;
/// The last party runs the action.
const ACTING: u32 = 1;
const BROKEN: u32 = 2;

shared! {
    /// The state of a barrier; its parties lie in an array of their own. All zeros is a new one.
    #[derive(Debug, Default)]
    pub struct State {
        lock: RawLock,
        /// The number of the round: what the parties sleep on.
        round: SharedFutex,
        /// Whether the rounds with this number, modulo 32, ended broken.
        broken_rounds: AtomicU32,
        phase: AtomicU32,
        count: AtomicU32,
    }
}

/// A barrier in shared memory; see the [module](self).
#[derive(Clone, Copy, Debug)]
pub struct Barrier<'a> {
    /// What is common to all.
    pub state: &'a State,
    /// A word for each party of the round: its process.
    pub parties: &'a [AtomicU32],
}

/// The barrier is broken, was reset, or a party timed out or died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

/// What a party that arrived does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The round is complete; its place, counted from 0.
    Passed(u32),
    /// It came last: it runs the action and calls [`Barrier::finish`].
    Last {
        /// Its place.
        place: u32,
        /// The round.
        round: u32,
    },
}

/// The state's lock, held.
struct Guard<'a>(&'a State);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        // Only a process that has gone wrong could have freed it.
        let _ = self.0.lock.release();
    }
}

impl Barrier<'_> {
    /// Takes the short lock. No signal ends that, and the thread stays attached: nobody holds it for long.
    fn lock(&self, me: Owner) -> Guard<'_> {
        let Ok(acquired) = self.state.lock.acquire(&ThreadGate, me, Deadline::NEVER);
        if acquired == Acquired::OwnerDied {
            self.break_up();
        }
        Guard(self.state)
    }

    fn phase(&self) -> u32 {
        self.state.phase.load(Ordering::Relaxed)
    }

    fn round(&self) -> u32 {
        self.state.round.load(Ordering::Acquire)
    }

    /// Ends the round. The lock is held.
    fn end_round(&self, broken: bool) {
        let round = self.round();
        let bit = 1 << (round % 32);
        let before = self.state.broken_rounds.load(Ordering::Relaxed);
        self.state.broken_rounds.store(if broken { before | bit } else { before & !bit }, Ordering::Relaxed);
        for party in self.parties {
            party.store(0, Ordering::Relaxed);
        }
        self.state.count.store(0, Ordering::Relaxed);
        // Release pairs with the Acquire in `round`.
        self.state.round.word.store(round.wrapping_add(1), Ordering::Release);
        self.state.round.wake(u32::MAX);
    }

    fn break_up(&self) {
        self.state.phase.store(BROKEN, Ordering::Relaxed);
        self.end_round(true);
    }

    fn outcome(&self, round: u32, place: u32) -> Result<Arrival, Broken> {
        let broken = self.state.broken_rounds.load(Ordering::Relaxed) >> (round % 32) & 1 != 0;
        if broken { Err(Broken) } else { Ok(Arrival::Passed(place)) }
    }

    /// Whether a process that waits here has died. The lock is held.
    fn lost_a_party(&self, me: Owner) -> bool {
        let owners = self.parties.iter().filter_map(|party| Owner::of(party.load(Ordering::Relaxed)));
        owners.filter(|&owner| owner != me).any(|owner| !owner.is_alive())
    }

    /// Arrives and waits for the others until `deadline`; if that passes, the barrier breaks.
    ///
    /// # Errors
    /// The gate's, the party having left; [`Broken`] inside.
    pub fn wait<G: Gate>(&self, gate: &G, me: Owner, deadline: Deadline) -> Result<Result<Arrival, Broken>, G::Error> {
        let (round, place, seat) = loop {
            let guard = self.lock(me);
            let round = self.round();
            match self.phase() {
                BROKEN => return Ok(Err(Broken)),
                ACTING => {}
                _ => {
                    let place = self.state.count.load(Ordering::Relaxed);
                    let Some(seat) = self.parties.iter().find(|party| party.load(Ordering::Relaxed) == 0) else {
                        self.break_up();
                        return Ok(Err(Broken));
                    };
                    seat.store(me.word(), Ordering::Relaxed);
                    self.state.count.store(place + 1, Ordering::Relaxed);
                    if place as usize + 1 >= self.parties.len() {
                        self.state.phase.store(ACTING, Ordering::Relaxed);
                        return Ok(Ok(Arrival::Last { place, round }));
                    }
                    break (round, place, seat);
                }
            }
            drop(guard);
            // The round before is about to end.
            self.sleep(gate, me, round, Deadline::NEVER)?;
        };
        match self.sleep(gate, me, round, deadline) {
            Ok(()) => Ok(self.outcome(round, place)),
            Err(error) => {
                let _guard = self.lock(me);
                if self.round() == round {
                    seat.store(0, Ordering::Relaxed);
                    self.state
                        .count
                        .store(self.state.count.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
                }
                Err(error)
            }
        }
    }

    /// Sleeps until the round has ended, which a deadline or a death may bring about.
    fn sleep<G: Gate>(&self, gate: &G, me: Owner, round: u32, deadline: Deadline) -> Result<(), G::Error> {
        let mut slices = Slices::new();
        while self.round() == round {
            if gate.wait(&self.state.round, round, slices.next(deadline))? == Waited::Woken {
                continue;
            }
            let _guard = self.lock(me);
            let late = deadline.has_passed() && self.phase() == FILLING;
            if self.round() == round && (late || self.lost_a_party(me)) {
                self.break_up();
            }
        }
        Ok(())
    }

    /// The last party's action has ended; the others pass if that went well and the barrier has not been broken meanwhile.
    ///
    /// # Errors
    /// [`Broken`] if it has.
    pub fn finish(&self, me: Owner, round: u32, well: bool) -> Result<(), Broken> {
        let _guard = self.lock(me);
        if self.round() != round {
            return Err(Broken);
        }
        if well {
            self.state.phase.store(FILLING, Ordering::Relaxed);
            self.end_round(false);
        } else {
            self.break_up();
        }
        Ok(())
    }

    /// Breaks the barrier.
    pub fn abort(&self, me: Owner) {
        let _guard = self.lock(me);
        self.break_up();
    }

    /// Makes the barrier as new; who waits gets [`Broken`].
    pub fn reset(&self, me: Owner) {
        let _guard = self.lock(me);
        if self.state.count.load(Ordering::Relaxed) > 0 {
            self.end_round(true);
        }
        self.state.phase.store(FILLING, Ordering::Relaxed);
    }

    /// How many wait.
    pub fn waiting(&self) -> u32 {
        if self.phase() == FILLING { self.state.count.load(Ordering::Relaxed) } else { 0 }
    }

    /// Whether it is broken.
    pub fn is_broken(&self) -> bool {
        self.phase() == BROKEN
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::segment::Segment;
    use crate::sys::testing::{Child, fork};
    use std::time::Duration;

    fn pass(barrier: Barrier<'_>, deadline: Deadline) -> Result<u32, Broken> {
        let me = Owner::current();
        let Ok(arrival) = barrier.wait(&ThreadGate, me, deadline);
        match arrival? {
            Arrival::Passed(place) => Ok(place),
            Arrival::Last { place, round } => barrier.finish(me, round, true).map(|()| place),
        }
    }

    fn barrier(segment: &Segment, parties: usize) -> Barrier<'_> {
        Barrier { state: segment.at(0).unwrap(), parties: segment.array(64, parties).unwrap() }
    }

    /// A child that waits; it has arrived when this returns.
    fn party(barrier: Barrier<'_>, expected: Result<(), Broken>) -> Child {
        let before = barrier.waiting();
        let child = fork(|| assert_eq!(pass(barrier, Deadline::NEVER).map(|_| ()), expected));
        while barrier.waiting() == before {
            std::thread::yield_now();
        }
        child
    }

    #[test]
    fn parties_pass_together_round_after_round() {
        let segment = Segment::create(c"test", 4096).unwrap();
        let barrier = barrier(&segment, 3);
        let rounds = segment.at::<AtomicU32>(512).unwrap();
        let children: Vec<_> = (0..3)
            .map(|_| {
                fork(|| {
                    for round in 0..500 {
                        assert!(rounds.load(Ordering::Relaxed) / 3 <= round);
                        rounds.fetch_add(1, Ordering::Relaxed);
                        assert!(pass(barrier, Deadline::NEVER).is_ok());
                        assert!(rounds.load(Ordering::Relaxed) / 3 > round);
                    }
                })
            })
            .collect();
        assert!(children.into_iter().all(|child| child.reap()));
        assert_eq!((rounds.load(Ordering::Relaxed), barrier.waiting()), (1500, 0));
    }

    #[test]
    fn a_party_that_dies_waiting_breaks_the_barrier_until_its_reset() {
        let segment = Segment::create(c"test", 4096).unwrap();
        let barrier = barrier(&segment, 3);
        let (dead, other) = (party(barrier, Ok(())), party(barrier, Err(Broken)));
        dead.kill();
        assert!(!dead.reap());
        assert!(other.reap());
        assert!(barrier.is_broken());
        assert_eq!(pass(barrier, Deadline::NEVER), Err(Broken));
        barrier.reset(Owner::current());
        let others = [party(barrier, Ok(())), party(barrier, Ok(()))];
        assert_eq!(pass(barrier, Deadline::NEVER), Ok(2));
        assert!(others.into_iter().all(|other| other.reap()));
    }

    #[test]
    fn a_party_that_dies_in_its_action_breaks_the_barrier() {
        let segment = Segment::create(c"test", 4096).unwrap();
        let barrier = barrier(&segment, 2);
        let other = party(barrier, Err(Broken));
        let last = fork(|| {
            assert!(matches!(
                barrier.wait(&ThreadGate, Owner::current(), Deadline::NEVER),
                Ok(Ok(Arrival::Last { place: 1, .. }))
            ));
        });
        assert!(last.reap());
        assert!(other.reap());
    }

    #[test]
    fn a_timeout_an_abort_and_a_reset_send_all_away() {
        let segment = Segment::create(c"test", 4096).unwrap();
        let barrier = barrier(&segment, 3);
        let me = Owner::current();
        let ends: [&dyn Fn(); 3] = [
            &|| assert_eq!(pass(barrier, Deadline::after(Duration::from_millis(5))), Err(Broken)),
            &|| barrier.abort(me),
            &|| barrier.reset(me),
        ];
        for end in ends {
            let other = party(barrier, Err(Broken));
            end();
            assert!(other.reap());
            barrier.reset(me);
            assert!(!barrier.is_broken());
        }
    }
}
