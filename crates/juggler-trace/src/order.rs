//! In which order threads take locks, and whether two orders contradict each other.
//!
//! When a thread takes lock B while it holds lock A, the order A→B is noted with both places. If the opposite order,
//! directly or through other locks, was seen too, then two threads that do so at once can deadlock, even if they never
//! did: an [`Inversion`], worth one warning.
//!
//! What would make a warning false is left out:
//! - **Gates.** Two orders both taken under a third lock can't meet. Each order keeps the sets of locks that were held
//!   with it, and a cycle counts only if its threads could hold theirs at once: no lock is in two of the sets.
//! - **Signals.** A plain lock that its own holder waits for, or that another thread releases, does not guard anything:
//!   it tells something. It has no part in any order.
//! - **Attempts.** A lock taken without waiting, or with a timeout, can't complete a deadlock. It counts as held, for
//!   what is taken after it.
//! - **Reentry.** A lock that the thread holds already needs no waiting.

use std::collections::{HashSet, VecDeque};
use std::fmt;

use crate::hashing::{IdMap, IdSet, spread};
use crate::site::{Kind, Resource, ResourceId, Site, ThreadId};

/// At most this many orders are noted; then no new ones are, until locks go away. An order takes some 200 bytes.
pub const MAX_EDGES: usize = 16_384;
/// At most this many ways of coming to one order, which differ in the locks held meanwhile, are told apart.
const MAX_WAYS: usize = 4;

/// Which lock is taken while which is held; see the [module](self).
#[derive(Debug, Default)]
pub struct LockOrder {
    held: IdMap<ThreadId, Vec<Held>>,
    /// `edges[a][b]`: b was taken while a was held.
    edges: IdMap<ResourceId, IdMap<ResourceId, Edge>>,
    /// The locks from which an edge leads to this one.
    before: IdMap<ResourceId, IdSet<ResourceId>>,
    count: usize,
    signals: IdSet<ResourceId>,
    /// Which locks were taken while which were held, summed up to a number each: what was noted needs no second look.
    noted: IdSet<u64>,
    /// The places, in pairs, that a warning was given for.
    warned: HashSet<[(Site, Site); 2]>,
}

#[derive(Debug)]
struct Held {
    resource: Resource,
    site: Site,
    depth: usize,
}

#[derive(Debug)]
struct Edge {
    ways: Vec<Way>,
    /// Whether it was part of a cycle that was told.
    warned: bool,
}

#[derive(Clone, Debug)]
struct Way {
    /// The locks held when the second was taken, the first included; sorted.
    held: Vec<ResourceId>,
    pair: Pair,
}

/// Two locks taken one after the other by one thread.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The lock that was held.
    pub first: Resource,
    /// Where it was taken.
    pub first_site: Site,
    /// The lock that was taken then.
    pub second: Resource,
    /// Where.
    pub second_site: Site,
}

/// Orders that contradict each other: each pair's second lock is the next one's first, all the way round.
#[derive(Clone, Debug)]
pub struct Inversion {
    /// The pairs; the first is the one that was seen last.
    pub pairs: Vec<Pair>,
}

impl LockOrder {
    /// Nothing was taken yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// `thread` is about to wait for `lock` at `site`, without a timeout; what contradicts that order, the first time.
    /// Only needed before a wait: [`LockOrder::acquired`] notes the order as well.
    pub fn wanted(&mut self, thread: ThreadId, lock: &Resource, site: &Site) -> Option<Inversion> {
        self.note(thread, lock, site)
    }

    /// `thread` took `lock`, a [`Lock`](Kind::Lock) or an [`RLock`](Kind::RLock), at `site`; what contradicts that
    /// order, the first time. `waits` tells whether it would have waited, for any time; false for an attempt.
    pub fn acquired(&mut self, thread: ThreadId, lock: &Resource, site: &Site, waits: bool) -> Option<Inversion> {
        let inversion = if waits { self.note(thread, lock, site) } else { None };
        let held = self.held.entry(thread).or_default();
        match held.iter_mut().find(|held| held.resource.id == lock.id) {
            Some(again) if lock.kind == Kind::RLock => again.depth += 1,
            Some(stale) => stale.site = *site,
            None => held.push(Held { resource: lock.clone(), site: *site, depth: 1 }),
        }
        inversion
    }

    /// `thread` is about to release `lock`: once, if it took it several times. To be called before it does.
    pub fn released(&mut self, thread: ThreadId, lock: ResourceId) {
        self.release(thread, lock, false);
    }

    /// A condition is about to release `lock` altogether, to wait; give the result to [`LockOrder::acquire_restore`].
    pub fn release_save(&mut self, thread: ThreadId, lock: ResourceId) -> usize {
        self.release(thread, lock, true)
    }

    /// A condition has `lock` back, at the depth that it had. It had to wait for it like anyone, so what the thread
    /// held meanwhile comes before `lock` now, even if it was taken after it at first.
    pub fn acquire_restore(
        &mut self,
        thread: ThreadId,
        lock: &Resource,
        site: &Site,
        depth: usize,
    ) -> Option<Inversion> {
        if depth == 0 {
            return None;
        }
        let inversion = self.acquired(thread, lock, site, true);
        let held = self.held.entry(thread).or_default();
        if let Some(held) = held.iter_mut().find(|held| held.resource.id == lock.id) {
            held.depth = depth;
        }
        inversion
    }

    /// `thread` runs no more.
    pub fn thread_ended(&mut self, thread: ThreadId) {
        self.held.remove(&thread);
    }

    /// `lock` is gone, and its address may come to mean another.
    pub fn forget(&mut self, lock: ResourceId) {
        if self.signals.remove(&lock) {
            self.noted.clear();
        }
        self.drop_edges(lock);
        for held in self.held.values_mut() {
            held.retain(|held| held.resource.id != lock);
        }
    }

    /// How many locks `thread` holds.
    pub fn held(&self, thread: ThreadId) -> usize {
        self.held.get(&thread).map_or(0, Vec::len)
    }

    fn note(&mut self, thread: ThreadId, lock: &Resource, site: &Site) -> Option<Inversion> {
        let held = self.held.get(&thread).filter(|held| !held.is_empty())?;
        let together = held.iter().fold(0, |sum: u64, held| sum.wrapping_add(spread(held.resource.id as u64)));
        let taking = spread(together).wrapping_add(spread(lock.id as u64));
        if self.noted.contains(&taking) {
            return None;
        }
        if held.iter().any(|held| held.resource.id == lock.id) {
            if lock.kind == Kind::Lock {
                self.becomes_signal(lock.id);
            }
            return None;
        }
        if self.signals.contains(&lock.id) {
            return None;
        }
        let mut ids: Vec<ResourceId> = held.iter().map(|held| held.resource.id).collect();
        ids.sort_unstable();
        let ways: Vec<Way> = held
            .iter()
            .filter(|first| !self.signals.contains(&first.resource.id))
            .filter(|first| self.is_new(first.resource.id, lock.id, &ids))
            .map(|first| {
                let pair = Pair {
                    first: first.resource.clone(),
                    first_site: first.site,
                    second: lock.clone(),
                    second_site: *site,
                };
                Way { held: ids.clone(), pair }
            })
            .collect();
        if self.noted.len() < MAX_EDGES {
            self.noted.insert(taking);
        }
        // The lock taken last is the likeliest culprit: its cycle is the one to tell.
        ways.into_iter().rev().fold(None, |found, way| {
            let inversion = self.add(way);
            found.or(inversion)
        })
    }

    /// Whether that order was not yet seen with these locks, or fewer, held: fewer make more cycles possible.
    fn is_new(&self, first: ResourceId, second: ResourceId, held: &[ResourceId]) -> bool {
        match self.edges.get(&first).and_then(|edges| edges.get(&second)) {
            None => self.count < MAX_EDGES,
            Some(edge) => edge.ways.len() < MAX_WAYS && !edge.ways.iter().any(|way| is_subset(&way.held, held)),
        }
    }

    fn add(&mut self, way: Way) -> Option<Inversion> {
        let (first, second) = (way.pair.first.id, way.pair.second.id);
        let edges = self.edges.entry(first).or_default();
        let edge = edges.entry(second).or_insert_with(|| {
            self.count += 1;
            Edge { ways: Vec::new(), warned: false }
        });
        edge.ways.retain(|other| !is_subset(&way.held, &other.held));
        edge.ways.push(way.clone());
        let warned = edge.warned;
        self.before.entry(second).or_default().insert(first);
        if warned {
            return None;
        }
        let cycle = self.cycle(way)?;
        for pair in &cycle {
            if let Some(edge) = self.edges.get_mut(&pair.first.id).and_then(|edges| edges.get_mut(&pair.second.id)) {
                edge.warned = true;
            }
        }
        let places = |pair: &Pair| (pair.first_site, pair.second_site);
        let (one, other) = (places(&cycle[0]), places(&cycle[1]));
        // Either way round: the pair of pairs has no order.
        if self.warned.contains(&[other, one]) || !self.warned.insert([one, other]) {
            return None;
        }
        Some(Inversion { pairs: cycle })
    }

    /// The shortest way back from `way`'s second lock to its first whose threads could all hold their locks at once.
    /// Each lock is visited once, so a cycle that exists only along a detour is missed.
    fn cycle(&self, way: Way) -> Option<Vec<Pair>> {
        let goal = way.pair.first.id;
        let mut visited = IdSet::default();
        let mut paths = VecDeque::from([vec![&way]]);
        while let Some(path) = paths.pop_front() {
            let Some(last) = path.last() else { continue };
            let Some(edges) = self.edges.get(&last.pair.second.id) else { continue };
            for (&next, edge) in edges {
                let free = |way: &&Way| path.iter().all(|other| !other.held.iter().any(|id| way.held.contains(id)));
                let Some(step) = edge.ways.iter().find(free) else { continue };
                if next == goal {
                    return Some(path.iter().copied().chain([step]).map(|way| way.pair.clone()).collect());
                }
                if visited.insert(next) {
                    paths.push_back(path.iter().copied().chain([step]).collect());
                }
            }
        }
        None
    }

    /// Takes one level, or all, off what `thread` holds of `lock`; how many there were.
    fn release(&mut self, thread: ThreadId, lock: ResourceId, all: bool) -> usize {
        if let Some(held) = self.held.get_mut(&thread) {
            if let Some(index) = held.iter().rposition(|held| held.resource.id == lock) {
                let depth = held[index].depth;
                if all || depth == 1 {
                    held.remove(index);
                } else {
                    held[index].depth -= 1;
                }
                return depth;
            }
        }
        // Another thread's, if anyone's.
        let mut found = false;
        for held in self.held.values_mut() {
            let before = held.len();
            held.retain(|held| held.resource.id != lock);
            found |= held.len() < before;
        }
        if found {
            self.becomes_signal(lock);
        }
        0
    }

    fn becomes_signal(&mut self, lock: ResourceId) {
        if self.signals.insert(lock) {
            self.drop_edges(lock);
        }
    }

    fn drop_edges(&mut self, lock: ResourceId) {
        let had = self.count;
        for second in self.edges.remove(&lock).unwrap_or_default().into_keys() {
            self.count -= 1;
            if let Some(before) = self.before.get_mut(&second) {
                before.remove(&lock);
            }
        }
        for first in self.before.remove(&lock).unwrap_or_default() {
            if self.edges.get_mut(&first).and_then(|edges| edges.remove(&lock)).is_some() {
                self.count -= 1;
            }
        }
        if self.count < had {
            self.noted.clear();
        }
    }
}

/// Whether `some` are all in `all`; both sorted.
fn is_subset(some: &[ResourceId], all: &[ResourceId]) -> bool {
    let mut all = all.iter();
    some.iter().all(|id| all.any(|other| other == id))
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, first_site, second, second_site } = self;
        write!(f, "{first} taken at {first_site}, then {second} at {second_site}")
    }
}

impl fmt::Display for Inversion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.pairs[..] {
            [pair, _] => write!(f, "{} and {} are taken in both orders", pair.first, pair.second)?,
            pairs => write!(f, "{} locks are taken in orders that contradict each other", pairs.len())?,
        }
        f.write_str(": threads that do so at once wait for each other for ever")?;
        for pair in &self.pairs {
            write!(f, "\n  {pair}")?;
        }
        f.write_str("\ntake them in one order everywhere, or all at once with juggler.threading.acquire_all(...)")
    }
}
