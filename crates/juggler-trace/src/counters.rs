//! Counters for a report of what a program's primitives did.
//!
//! Primitives made at one place under one name share a [`Counter`], so that a program with a lock for each of a million
//! objects has one row, not a million. Recording is one relaxed atomic addition: each number is exact once the threads
//! that add to it are done, and a snapshot taken earlier may show one number a little ahead of another.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::forkable::Forkable;
use crate::site::Site;

/// At most this many rows are kept apart; beyond it, what is new is summed per class, without name or place.
pub const MAX_ROWS: usize = 4096;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    class: &'static str,
    name: Option<Arc<str>>,
    site: Option<Site>,
}

/// All counters of a process.
#[derive(Debug, Default)]
pub struct Registry {
    counters: Forkable<HashMap<Key, Arc<Counter>>>,
}

impl Registry {
    /// No counters yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The counter for a new instance of `class` (its name in Python), made at `site` and named `name`. Counts the
    /// instance; keep the handle with it.
    pub fn counter(&self, class: &'static str, name: Option<Arc<str>>, site: Option<Site>) -> Arc<Counter> {
        let key = Key { class, name, site };
        let mut counters = self.counters.lock();
        let key = if counters.len() < MAX_ROWS || counters.contains_key(&key) {
            key
        } else {
            Key { class, name: None, site: None }
        };
        let counter = counters.entry(key).or_default();
        counter.instances.fetch_add(1, Relaxed);
        counter.clone()
    }

    /// Every row, the longest total wait first; then by uses, class, name and place, so that the order is stable.
    pub fn snapshot(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = self.counters.lock().iter().map(|(key, counter)| counter.row(key)).collect();
        let place = |row: &Row| row.site.as_ref().map(|site| (site.file().to_owned(), site.line()));
        rows.sort_by_cached_key(|row| {
            let order = std::cmp::Reverse((row.wait_ns, row.uses));
            (order, row.class, row.name.clone(), place(row))
        });
        rows
    }

    /// Forgets everything; only for a forked child, before it starts a thread. Handles that the child inherited go on
    /// counting, unseen.
    pub fn after_fork_in_child(&self) {
        self.counters.start_afresh();
    }
}

/// What the primitives of one class, name and place did.
#[derive(Debug, Default)]
pub struct Counter {
    instances: AtomicU64,
    uses: AtomicU64,
    waits: AtomicU64,
    wait_ns: AtomicU64,
    longest_ns: AtomicU64,
    deepest: AtomicU64,
    busy_ns: AtomicU64,
    capacity_ns: AtomicU64,
}

impl Counter {
    /// Counts `times` uses: acquisitions, puts and gets, tasks.
    pub fn used(&self, times: u64) {
        self.uses.fetch_add(times, Relaxed);
    }

    /// Counts one wait of `ns` nanoseconds.
    pub fn waited(&self, ns: u64) {
        self.waits.fetch_add(1, Relaxed);
        self.wait_ns.fetch_add(ns, Relaxed);
        self.longest_ns.fetch_max(ns, Relaxed);
    }

    /// Notes that `depth` items were in the queue, or tasks in the pool's, at once.
    pub fn depth(&self, depth: u64) {
        // Mostly it is not the deepest: a load leaves the cache line shared.
        if self.deepest.load(Relaxed) < depth {
            self.deepest.fetch_max(depth, Relaxed);
        }
    }

    /// Adds `ns` nanoseconds that a pool's worker spent in tasks.
    pub fn busy(&self, ns: u64) {
        self.busy_ns.fetch_add(ns, Relaxed);
    }

    /// Adds `ns` nanoseconds that a pool's worker existed, busy or not.
    pub fn capacity(&self, ns: u64) {
        self.capacity_ns.fetch_add(ns, Relaxed);
    }

    fn row(&self, key: &Key) -> Row {
        Row {
            class: key.class,
            name: key.name.clone(),
            site: key.site,
            instances: self.instances.load(Relaxed),
            uses: self.uses.load(Relaxed),
            waits: self.waits.load(Relaxed),
            wait_ns: self.wait_ns.load(Relaxed),
            longest_ns: self.longest_ns.load(Relaxed),
            deepest: self.deepest.load(Relaxed),
            busy_ns: self.busy_ns.load(Relaxed),
            capacity_ns: self.capacity_ns.load(Relaxed),
        }
    }
}

/// One row of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The class's name in Python.
    pub class: &'static str,
    /// The name that the program gave.
    pub name: Option<Arc<str>>,
    /// Where the instances were made.
    pub site: Option<Site>,
    /// How many were made.
    pub instances: u64,
    /// How often they were used.
    pub uses: u64,
    /// How many of the uses had to wait.
    pub waits: u64,
    /// The waits' total, in nanoseconds.
    pub wait_ns: u64,
    /// The longest wait, in nanoseconds.
    pub longest_ns: u64,
    /// The deepest fill of a queue.
    pub deepest: u64,
    /// The time that a pool's workers spent in tasks, in nanoseconds.
    pub busy_ns: u64,
    /// The time that a pool's workers existed, in nanoseconds.
    pub capacity_ns: u64,
}

impl Row {
    /// The share of its workers' time that a pool spent in tasks, from 0 to 1; nothing if it had no workers.
    pub fn busy_share(&self) -> Option<f64> {
        (self.capacity_ns > 0).then(|| self.busy_ns as f64 / self.capacity_ns as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_of_one_place_share_a_row_and_the_longest_wait_comes_first() {
        let registry = Registry::new();
        let site = Some(Site::new("shop.py", 7, "__init__"));
        let first = registry.counter("Lock", None, site);
        let second = registry.counter("Lock", None, site);
        let queue = registry.counter("Queue", Some("orders".into()), site);
        first.used(3);
        second.used(1);
        second.waited(10);
        first.waited(30);
        queue.used(2);
        queue.waited(100);
        queue.depth(9);
        queue.depth(4);

        let rows = registry.snapshot();
        assert_eq!(rows.len(), 2);
        assert_eq!((rows[0].class, rows[0].name.as_deref(), rows[0].deepest), ("Queue", Some("orders"), 9));
        let lock = &rows[1];
        assert_eq!((lock.instances, lock.uses, lock.waits, lock.wait_ns, lock.longest_ns), (2, 4, 2, 40, 30));
        assert_eq!(lock.site, site);
        assert_eq!(lock.busy_share(), None);
    }

    #[test]
    fn a_pools_share_is_busy_over_capacity() {
        let registry = Registry::new();
        let pool = registry.counter("ThreadPoolExecutor", None, None);
        pool.capacity(400);
        pool.busy(100);
        assert_eq!(registry.snapshot()[0].busy_share(), Some(0.25));
    }

    #[test]
    fn rows_are_bounded_and_the_rest_is_summed_by_class() {
        let registry = Registry::new();
        for number in 0..MAX_ROWS + 10 {
            registry.counter("Lock", Some(number.to_string().into()), None).used(1);
        }
        registry.counter("Lock", Some("7".into()), None).used(1);
        let rows = registry.snapshot();
        assert_eq!(rows.len(), MAX_ROWS + 1);
        assert_eq!(rows.iter().map(|row| row.uses).sum::<u64>(), MAX_ROWS as u64 + 11);
        let rest = rows.iter().find(|row| row.name.is_none()).expect("a row for what is beyond the bound");
        assert_eq!((rest.instances, rest.uses), (10, 10));
        let seventh = rows.iter().find(|row| row.name.as_deref() == Some("7")).expect("kept apart");
        assert_eq!(seventh.uses, 2);
    }

    #[test]
    fn threads_add_up() {
        let registry = Registry::new();
        let counter = registry.counter("Event", None, None);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for ns in 0..1000 {
                        counter.used(1);
                        counter.waited(ns);
                    }
                });
            }
        });
        let row = &registry.snapshot()[0];
        assert_eq!((row.uses, row.waits, row.wait_ns, row.longest_ns), (4000, 4000, 4 * 499_500, 999));
    }

    #[test]
    fn a_forked_child_starts_from_nothing() {
        let registry = Registry::new();
        let inherited = registry.counter("Lock", None, None);
        registry.after_fork_in_child();
        inherited.used(1);
        assert_eq!(registry.snapshot(), []);
    }
}
