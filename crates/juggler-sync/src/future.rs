//! The state machine of a future.
//!
//! # States of the word
//!
//! | state | meaning | leaves by |
//! |---|---|---|
//! | `Pending` | nobody has begun | `start`, `cancel`, `finish` |
//! | `Running` | a worker computes it | `finish` |
//! | `Cancelled` | cancelled; its executor does not know yet | `start` (to `CancelledAndNotified`) |
//! | `CancelledAndNotified` | cancelled, and whoever waits for several futures was told | final |
//! | `Finished` | the value is there | final |
//!
//! The word also carries `SLEEPERS` while somebody sleeps on it. All changes happen under the guard of the rest of the
//! state, as a [`Change`]; readers look at the word alone: once it says `Finished` (Acquire pairs with the Release that
//! wrote it), the value does not change any more and is read without the guard.
//!
//! Programs also reach into the privates of a future. [`Change::force`] puts it into any state with any value, marks the
//! word `FORCED` for ever, and the value is from then on one that may change: it is read and written under the guard.
//! [`Change::expose`] is for an owner who has to do more with each change than the engine does: it asks
//! [`Change::is_exposed`] under the guard, so that no change slips through between.
//!
//! Waiting for several futures goes through a [`Collector`] that is subscribed to each of them. As in
//! `concurrent.futures`, a collector is told of `CancelledAndNotified` and `Finished`, not of `Cancelled`.
#![allow(unsafe_code)]

use crate::deadline::Deadline;
use crate::guarded::{Guard, Guarded};
use crate::park::{Gate, Waited};
use crate::sync::{Arc, Ordering, UnsafeCell};
use crate::sys::Futex;
use std::collections::VecDeque;

/// Where a future stands; see the [module](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum State {
    /// Nobody has begun.
    Pending = 0,
    /// A worker computes it.
    Running = 1,
    /// Cancelled; its executor does not know yet.
    Cancelled = 2,
    /// Cancelled, and everybody was told.
    CancelledAndNotified = 3,
    /// The value is there.
    Finished = 4,
}

const STATE: u32 = 7;
const SLEEPERS: u32 = 8;
const FORCED: u32 = 16;

impl State {
    #[inline(always)]
    fn of(word: u32) -> Self {
        match word & STATE {
            0 => Self::Pending,
            1 => Self::Running,
            2 => Self::Cancelled,
            3 => Self::CancelledAndNotified,
            _ => Self::Finished,
        }
    }

    /// Cancelled or finished.
    #[inline(always)]
    pub fn is_done(self) -> bool {
        self as u32 >= Self::Cancelled as u32
    }

    /// Done, and collectors have been told.
    #[inline(always)]
    pub fn is_settled(self) -> bool {
        self as u32 >= Self::CancelledAndNotified as u32
    }
}

/// The future was not in a state that allows the operation; the state it was in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongState(pub State);

/// The outcome of [`Future::start`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Started {
    /// Go ahead.
    Run,
    /// It was cancelled; collectors know now.
    Cancelled,
}

#[derive(Debug)]
struct Followers<V, C> {
    callbacks: Vec<C>,
    collectors: Vec<(Arc<Collector>, usize)>,
    /// The value of a `FORCED` future.
    forced: Option<Box<V>>,
    exposed: bool,
}

/// A value of type `V` that will come, with callbacks of type `C`; see the [module](self).
#[derive(Debug)]
pub struct Future<V, C> {
    word: Futex,
    followers: Guarded<Followers<V, C>>,
    value: UnsafeCell<Option<V>>,
}

// SAFETY: `value` is written under the guard before the word says `Finished`, and only read after.
unsafe impl<V: Send + Sync, C: Send> Sync for Future<V, C> {}

impl<V, C> Default for Future<V, C> {
    fn default() -> Self {
        Self::new(State::Pending)
    }
}

impl<V, C> Future<V, C> {
    /// A future in `state`, which is not `Finished`.
    pub fn new(state: State) -> Self {
        debug_assert!(state != State::Finished);
        Self {
            word: Futex::new(state as u32),
            followers: Guarded::new(Followers {
                callbacks: Vec::new(),
                collectors: Vec::new(),
                forced: None,
                exposed: false,
            }),
            value: UnsafeCell::new(None),
        }
    }

    /// Where it stands.
    #[inline(always)]
    pub fn state(&self) -> State {
        State::of(self.word.load(Ordering::Acquire))
    }

    /// The value, once finished, unless the future was [forced](Change::force): see [`Future::with_forced`].
    #[inline(always)]
    pub fn value(&self) -> Option<&V> {
        if self.word.load(Ordering::Acquire) & (STATE | FORCED) != State::Finished as u32 {
            return None;
        }
        // SAFETY: the state is final, its writer stored the value before, and nobody writes it again.
        self.value.with(|value| unsafe { (*value).as_ref() })
    }

    /// Looks at the value of a forced future, whatever its state; `look` must not run foreign code. `None` if the future
    /// was not forced.
    pub fn with_forced<R>(&self, look: impl FnOnce(Option<&V>) -> R) -> Option<R> {
        if !self.is_forced() {
            return None;
        }
        Some(look(self.followers.lock().forced.as_deref()))
    }

    /// Whether [`Change::force`] was used.
    #[inline(always)]
    pub fn is_forced(&self) -> bool {
        self.word.load(Ordering::Acquire) & FORCED != 0
    }

    /// Begins a change: nobody else changes the future while the result lives.
    #[inline(always)]
    pub fn change(&self) -> Change<'_, V, C> {
        Change { future: self, followers: self.followers.lock() }
    }

    /// Begins the computation, or settles a cancelled future.
    ///
    /// # Errors
    /// [`WrongState`] if it was started or is settled already.
    #[inline]
    pub fn start(&self) -> Result<Started, WrongState> {
        self.change().start()
    }

    /// Cancels a pending future: the callbacks for the caller to run; empty and no error if it was cancelled before.
    ///
    /// # Errors
    /// [`WrongState`] if it runs or is finished.
    #[inline]
    pub fn cancel(&self) -> Result<Vec<C>, WrongState> {
        self.change().cancel()
    }

    /// Gives the future its value and returns the callbacks for the caller to run, in the order in which they came.
    ///
    /// # Errors
    /// [`WrongState`] with the value, if it is done already.
    #[inline]
    pub fn finish(&self, value: V) -> Result<Vec<C>, (WrongState, V)> {
        self.change().finish(value)
    }

    /// Changes the state; the guard is held. Release pairs with the Acquire in [`Future::state`].
    #[inline(always)]
    fn advance(&self, to: State, mark: u32) {
        // A sleeper sets its mark under the guard too, so plain load and store lose nothing.
        let word = self.word.load(Ordering::Relaxed);
        self.word.word.store(to as u32 | (word & FORCED) | mark, Ordering::Release);
        if word & SLEEPERS != 0 {
            self.word.wake(u32::MAX);
        }
    }

    /// Waits until the future is done, at most until `deadline`; the state it is in then.
    ///
    /// # Errors
    /// The gate's.
    #[inline]
    pub fn wait<G: Gate>(&self, gate: &G, deadline: Deadline) -> Result<State, G::Error> {
        let state = self.state();
        if state.is_done() || deadline == Deadline::PASSED {
            return Ok(state);
        }
        self.wait_slow(gate, deadline)
    }

    #[cold]
    fn wait_slow<G: Gate>(&self, gate: &G, deadline: Deadline) -> Result<State, G::Error> {
        loop {
            let word = {
                let _guard = self.followers.lock();
                let word = self.word.load(Ordering::Relaxed);
                if State::of(word).is_done() {
                    return Ok(self.state());
                }
                self.word.word.store(word | SLEEPERS, Ordering::Relaxed);
                word | SLEEPERS
            };
            if gate.wait(&self.word, word, deadline)? == Waited::TimedOut {
                return Ok(self.state());
            }
        }
    }

    /// Adds a callback; gives it back if the future is done, for the caller to run.
    pub fn add_callback(&self, callback: C) -> Option<C> {
        let mut followers = self.followers.lock();
        if self.state().is_done() {
            return Some(callback);
        }
        followers.callbacks.push(callback);
        None
    }

    /// Has `collector` told of this future, as `token`, when it settles; at once if it has.
    pub fn subscribe(&self, collector: &Arc<Collector>, token: usize) {
        let mut followers = self.followers.lock();
        if self.state().is_settled() {
            drop(followers);
            collector.tell(token);
        } else {
            followers.collectors.push((collector.clone(), token));
        }
    }

    /// Undoes [`Future::subscribe`].
    pub fn unsubscribe(&self, collector: &Arc<Collector>) {
        self.followers.lock().collectors.retain(|(other, _)| !Arc::ptr_eq(other, collector));
    }

    /// Looks at all that the future holds, unless it is being changed right now: for a garbage collector. `value` and
    /// `callback` must not run foreign code.
    ///
    /// # Errors
    /// Those of `value` and `callback`.
    pub fn visit<E>(
        &self,
        mut value: impl FnMut(&V) -> Result<(), E>,
        callback: impl FnMut(&C) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(followers) = self.followers.try_lock() else { return Ok(()) };
        let finished = self.word.load(Ordering::Acquire) & STATE == State::Finished as u32;
        // SAFETY: a value is only written under the guard, which is held.
        if finished && let Some(held) = self.value.with(|value| unsafe { (*value).as_ref() }) {
            value(held)?;
        }
        if let Some(held) = &followers.forced {
            value(held)?;
        }
        followers.callbacks.iter().try_for_each(callback)
    }

    /// Takes out all that the future holds, for the caller to drop: for a garbage collector that breaks a cycle.
    ///
    /// # Safety
    /// Nobody reads the value meanwhile: the future is only reachable from garbage.
    pub unsafe fn clear(&self) -> (Option<V>, Option<Box<V>>, Vec<C>) {
        let mut followers = self.followers.lock();
        // SAFETY: the guard excludes writers, the caller's promise readers.
        let value = self.value.with_mut(|value| unsafe { (*value).take() });
        (value, followers.forced.take(), std::mem::take(&mut followers.callbacks))
    }
}

/// The right to change a [`Future`], as long as it lives.
#[derive(Debug)]
pub struct Change<'a, V, C> {
    future: &'a Future<V, C>,
    followers: Guard<'a, Followers<V, C>>,
}

impl<V, C> Change<'_, V, C> {
    /// See [`Future::start`].
    ///
    /// # Errors
    /// [`WrongState`] if it was started or is settled already.
    #[inline]
    pub fn start(mut self) -> Result<Started, WrongState> {
        match self.future.state() {
            State::Pending => {
                // Nobody waits for this: sleepers sleep on, their mark stays.
                let word = self.future.word.load(Ordering::Relaxed);
                self.future.word.word.store(word & !STATE | State::Running as u32, Ordering::Release);
                Ok(Started::Run)
            }
            State::Cancelled => {
                self.future.advance(State::CancelledAndNotified, 0);
                let collectors = std::mem::take(&mut self.followers.collectors);
                drop(self);
                tell(collectors);
                Ok(Started::Cancelled)
            }
            state => Err(WrongState(state)),
        }
    }

    /// See [`Future::cancel`].
    ///
    /// # Errors
    /// [`WrongState`] if it runs or is finished.
    pub fn cancel(mut self) -> Result<Vec<C>, WrongState> {
        match self.future.state() {
            State::Pending => {
                self.future.advance(State::Cancelled, 0);
                Ok(std::mem::take(&mut self.followers.callbacks))
            }
            State::Cancelled | State::CancelledAndNotified => Ok(Vec::new()),
            state => Err(WrongState(state)),
        }
    }

    /// Makes a running future pending again: whoever computes it has been stopped.
    pub fn reconsider(self) {
        if self.future.state() == State::Running {
            let word = self.future.word.load(Ordering::Relaxed);
            self.future.word.word.store(word & !STATE | State::Pending as u32, Ordering::Release);
        }
    }

    /// See [`Future::finish`].
    ///
    /// # Errors
    /// [`WrongState`] with the value, if it is done already.
    #[inline]
    pub fn finish(mut self, value: V) -> Result<Vec<C>, (WrongState, V)> {
        let word = self.future.word.load(Ordering::Relaxed);
        if State::of(word).is_done() {
            return Err((WrongState(State::of(word)), value));
        }
        let stale = if word & FORCED == 0 {
            // SAFETY: the guard is held and the state is not final, so nobody reads or writes the value.
            self.future.value.with_mut(|place| unsafe { *place = Some(value) });
            None
        } else {
            self.followers.forced.replace(Box::new(value))
        };
        self.future.advance(State::Finished, 0);
        let callbacks = std::mem::take(&mut self.followers.callbacks);
        let collectors = std::mem::take(&mut self.followers.collectors);
        drop(self);
        drop(stale);
        tell(collectors);
        Ok(callbacks)
    }

    /// Puts the future into `state` with `value`, and returns the value that an earlier `force` gave it. Wakes who waits
    /// for it, but tells no collector.
    pub fn force(mut self, state: State, value: Option<V>) -> Option<Box<V>> {
        let stale = std::mem::replace(&mut self.followers.forced, value.map(Box::new));
        self.future.advance(state, FORCED);
        stale
    }

    /// Where the future stands.
    pub fn state(&self) -> State {
        self.future.state()
    }

    /// Marks the future as exposed, for ever.
    pub fn expose(&mut self) {
        self.followers.exposed = true;
    }

    /// Whether it was exposed.
    #[inline(always)]
    pub fn is_exposed(&self) -> bool {
        self.followers.exposed
    }

    /// The callbacks.
    pub fn callbacks(&mut self) -> &mut Vec<C> {
        &mut self.followers.callbacks
    }
}

fn tell(collectors: Vec<(Arc<Collector>, usize)>) {
    for (collector, token) in collectors {
        collector.tell(token);
    }
}

/// Where settled futures report to somebody who waits for several: a list of their tokens, in the order they settled.
///
/// One thread at a time waits on it.
#[derive(Debug)]
pub struct Collector {
    tokens: Guarded<VecDeque<usize>>,
    /// 1 while the waiting thread may sleep.
    asleep: Futex,
    /// Wake only when this many tokens are there.
    threshold: crate::sync::AtomicUsize,
}

impl Default for Collector {
    fn default() -> Self {
        Self::new()
    }
}

impl Collector {
    /// A collector that has been told nothing.
    pub fn new() -> Self {
        Self {
            tokens: Guarded::new(VecDeque::new()),
            asleep: Futex::new(0),
            threshold: crate::sync::AtomicUsize::new(1),
        }
    }

    /// Reports `token`.
    pub fn tell(&self, token: usize) {
        let enough = {
            let mut tokens = self.tokens.lock();
            tokens.push_back(token);
            tokens.len() >= self.threshold.load(Ordering::Relaxed)
        };
        if enough && self.asleep.word.swap(0, Ordering::AcqRel) == 1 {
            self.asleep.wake(1);
        }
    }

    /// Waits until at least `count` tokens are there, at most until `deadline`, and takes all that are.
    ///
    /// # Errors
    /// The gate's; the tokens stay.
    pub fn collect<G: Gate>(&self, gate: &G, count: usize, deadline: Deadline) -> Result<VecDeque<usize>, G::Error> {
        loop {
            {
                let mut tokens = self.tokens.lock();
                if tokens.len() >= count || deadline == Deadline::PASSED {
                    return Ok(std::mem::take(&mut *tokens));
                }
                // Under the guard: a teller comes before and was counted above, or after and sees both.
                self.threshold.store(count, Ordering::Relaxed);
                // An exchange, as the tellers' is: their order decides who wakes whom.
                self.asleep.word.swap(1, Ordering::Release);
            }
            while self.asleep.load(Ordering::Acquire) == 1 {
                if gate.wait(&self.asleep, 1, deadline)? == Waited::TimedOut {
                    return Ok(std::mem::take(&mut *self.tokens.lock()));
                }
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::park::ThreadGate;

    type TestFuture = Future<i32, u8>;

    #[test]
    fn finishes_once() {
        let future = TestFuture::default();
        assert_eq!(future.start(), Ok(Started::Run));
        assert!(future.add_callback(7).is_none());
        assert_eq!(future.finish(1).unwrap(), [7]);
        assert_eq!(future.finish(2).unwrap_err(), (WrongState(State::Finished), 2));
        assert_eq!(future.value(), Some(&1));
        assert_eq!(future.add_callback(8), Some(8));
        assert_eq!(future.cancel(), Err(WrongState(State::Finished)));
    }

    #[test]
    fn a_forced_value_may_change() {
        let future = TestFuture::default();
        future.finish(1).unwrap();
        assert!(future.change().force(State::Finished, Some(2)).is_none());
        assert_eq!(future.value(), None);
        assert_eq!(future.with_forced(|value| value.copied()), Some(Some(2)));
        assert_eq!(future.change().force(State::Pending, None).as_deref(), Some(&2));
        assert_eq!(future.state(), State::Pending);
        future.finish(3).unwrap();
        assert_eq!(future.with_forced(|value| value.copied()), Some(Some(3)));
    }

    #[test]
    fn an_exposed_future_says_so_to_each_change() {
        let future = TestFuture::default();
        assert!(!future.change().is_exposed());
        future.change().expose();
        assert!(future.change().is_exposed());
    }

    #[test]
    fn a_cancelled_future_settles_when_its_executor_takes_it() {
        let future = TestFuture::default();
        let collector = Arc::new(Collector::new());
        future.subscribe(&collector, 5);
        assert_eq!(future.cancel(), Ok(vec![]));
        assert!(collector.collect(&ThreadGate, 1, Deadline::PASSED).unwrap().is_empty());
        assert_eq!(future.start(), Ok(Started::Cancelled));
        assert_eq!(collector.collect(&ThreadGate, 1, Deadline::NEVER).unwrap(), [5]);
        assert_eq!(future.start(), Err(WrongState(State::CancelledAndNotified)));
    }

    #[test]
    fn a_sleeper_wakes_when_the_value_comes() {
        let future = Arc::new(TestFuture::default());
        let sleeper = std::thread::spawn({
            let future = future.clone();
            move || future.wait(&ThreadGate, Deadline::NEVER)
        });
        std::thread::yield_now();
        future.finish(1).unwrap();
        assert_eq!(sleeper.join().unwrap(), Ok(State::Finished));
    }
}
