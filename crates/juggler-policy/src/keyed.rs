//! A state for each key, in bounded memory.
//!
//! Every key has a state of its own. When there are too many, those that were not used for longest are forgotten, but
//! never one that a call is using: their number is bounded by the calls that are under way. What is forgotten must not be
//! forgiven: a key that comes back, and so each new one, for who can tell them apart, begins with a state that makes up for it
//! ([`State::forget`]).

use crate::circuit::Breaker;
use crate::limit::Limit;
use crate::pace::Pace;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// What may be kept for a key.
pub trait State: Clone {
    /// Whether a call will come back to it.
    fn in_use(&self) -> bool;

    /// This state is dropped: changes the one with which new keys begin so that its key gains nothing by that.
    fn forget(&self, fresh: &mut Self);
}

impl State for Pace {
    fn in_use(&self) -> bool {
        self.in_use()
    }

    fn forget(&self, fresh: &mut Self) {
        fresh.make_up_for(self);
    }
}

impl State for Limit {
    fn in_use(&self) -> bool {
        self.inside() > 0
    }

    fn forget(&self, _: &mut Self) {}
}

/// A breaker's failures are forgotten with it: it guards nobody's promise, and the next failures open it anew.
impl State for Breaker {
    fn in_use(&self) -> bool {
        self.in_use()
    }

    fn forget(&self, _: &mut Self) {}
}

/// How many states are looked at to make room for a new one. What is in use there moves back in the order, so that the
/// next search looks at others.
const LOOKS: usize = 8;

#[derive(Debug)]
struct Entry<S> {
    used: u64,
    state: S,
}

/// States by key.
#[derive(Debug)]
pub struct Keyed<K, S> {
    fresh: S,
    most: usize,
    entries: HashMap<K, Entry<S>>,
    /// The keys by when they were used, on a clock that ticks at each use.
    order: BTreeMap<u64, K>,
    ticks: u64,
}

impl<K: Copy + Eq + Hash, S: State> Keyed<K, S> {
    /// With room for `most` keys; each begins with a copy of `fresh`.
    pub fn new(fresh: S, most: usize) -> Self {
        Self { fresh, most, entries: HashMap::new(), order: BTreeMap::new(), ticks: 0 }
    }

    /// The state of `key`: the same one as before at least for as long as it was in use.
    pub fn state(&mut self, key: K) -> &mut S {
        if !self.entries.contains_key(&key) {
            self.make_room();
        }
        self.ticks += 1;
        let (ticks, order) = (self.ticks, &mut self.order);
        let fresh = &self.fresh;
        let entry = self.entries.entry(key).or_insert_with(|| Entry { used: ticks, state: fresh.clone() });
        order.remove(&entry.used);
        entry.used = ticks;
        order.insert(ticks, key);
        &mut entry.state
    }

    /// How many keys have a state.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no key has a state.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn make_room(&mut self) {
        for _ in 0..LOOKS {
            if self.entries.len() < self.most {
                return;
            }
            let Some((_, key)) = self.order.pop_first() else { return };
            let entry = self.entries.get_mut(&key).expect("what is in the order has an entry");
            if entry.state.in_use() {
                self.ticks += 1;
                entry.used = self.ticks;
                self.order.insert(self.ticks, key);
            } else {
                entry.state.forget(&mut self.fresh);
                self.entries.remove(&key);
            }
        }
    }
}
