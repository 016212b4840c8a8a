//! `asyncio.Queue`, `asyncio.LifoQueue` and `asyncio.PriorityQueue`.
//!
//! # Open queues
//!
//! The standard library's queues are made of methods that a subclass may override, and keep their items in a container,
//! `_queue`, that programs reach for. A queue of which a method is overridden, in its class or on itself, or whose container
//! was asked for, is *opened*: its items move to a Python container, and from then on its operations run in
//! `juggler.asyncio._overridden`, which calls all of those methods. All others never leave this module.

mod items;
mod methods;
mod operations;

pub use operations::{Get, Join, Put};

use super::event::Event;
use super::plain;
use super::reference::Ref;
use super::running::LoopBound;
use super::waiters::Lane;
use crate::aio::stdlib::Import;
use crate::attached::Attached;
use crate::gc::Ready;
use crate::obj::Obj;
use crate::raw::{Raised, This};
use items::Items;
use pyo3::prelude::*;
use std::sync::OnceLock;

pub use items::Order;

/// What a subclass may override.
const HOOKS: [&str; 9] =
    ["_init", "_get", "_put", "_wakeup_next", "qsize", "empty", "full", "put_nowait", "get_nowait"];

pub static QUEUE_EMPTY: Import = Import::new("asyncio.queues", "QueueEmpty");
pub static QUEUE_FULL: Import = Import::new("asyncio.queues", "QueueFull");
pub static QUEUE_SHUT_DOWN: Import = Import::new("juggler.asyncio.queues", "QueueShutDown");

/// A first-in-first-out queue between the tasks of a loop.
///
/// Stands in for `asyncio.Queue`, with `shutdown()` on every version (in the standard library from 3.13). A subclass may
/// override `_init`, `_put`, `_get` and the methods that the standard library's methods call; that, or asking for `_queue`,
/// *opens* the queue: from then on it works as the standard library's does, and as slowly. Not for use between threads.
///
/// Fairness: getters and putters that wait are woken first in, first out; a task that runs may take an item before the one
/// that is being woken, which then waits again. A getter that is cancelled after it was woken passes that on.
///
/// Deviations: `maxsize` must be a number; one with a fraction is rounded up.
///
/// Args:
///     maxsize: the most items it holds; 0, a negative or an infinite number is no limit.
///
/// Raises:
///     TypeError: `maxsize` is not a number.
///     ValueError: `maxsize` is NaN.
#[pyclass(frozen, subclass, extends = LoopBound, module = "asyncio.queues")]
pub struct Queue {
    ready: Ready,
    inside: Attached<Inside>,
    getters: Lane,
    putters: Lane,
    /// Set while no task is unfinished; there once somebody waits for that.
    finished: OnceLock<Ref<Event>>,
}

/// A last-in-first-out queue between the tasks of a loop, a stack.
///
/// Stands in for `asyncio.LifoQueue`; as `Queue` in everything but the order.
///
/// Args:
///     maxsize: the most items it holds; 0 or less is no limit.
#[pyclass(frozen, subclass, extends = Queue, module = "asyncio.queues")]
pub struct LifoQueue;

/// A queue between the tasks of a loop whose smallest item leaves first.
///
/// Stands in for `asyncio.PriorityQueue`; as `Queue` in everything but the order. Items are ordered by `<`, equal ones as
/// `heapq` orders them.
///
/// Deviations: if a comparison raises, the queue is as before and the exception passes on. A comparison that uses the queue
/// it is part of gets a `RuntimeError`.
///
/// Args:
///     maxsize: the most items it holds; 0 or less is no limit.
#[pyclass(frozen, subclass, extends = Queue, module = "asyncio.queues")]
pub struct PriorityQueue;

struct Inside {
    items: Items,
    /// As the program gave it; None for 0.
    maxsize: Option<Obj>,
    /// The most items; `usize::MAX` for no limit.
    bound: usize,
    unfinished: i64,
    is_shut_down: bool,
    /// The container of an open queue.
    container: Option<Obj>,
    is_open: bool,
}

impl Queue {
    fn make(order: Order) -> PyClassInitializer<Self> {
        let inside = Inside {
            items: Items::new(order),
            maxsize: None,
            bound: usize::MAX,
            unfinished: 0,
            is_shut_down: false,
            container: None,
            is_open: false,
        };
        let queue = Self {
            ready: Ready::new(),
            inside: Attached::new(inside),
            getters: Lane::new(),
            putters: Lane::new(),
            finished: OnceLock::new(),
        };
        PyClassInitializer::from(LoopBound::new()).add_subclass(queue)
    }

    /// A new queue without a limit, first in, first out, for use in this library.
    ///
    /// # Errors
    /// `MemoryError`
    pub fn create(py: Python<'_>) -> PyResult<Ref<Self>> {
        Ok(Bound::new(py, Self::make(Order::Fifo))?.into())
    }

    #[inline(always)]
    fn is_open(&self, py: Python<'_>) -> bool {
        self.inside.with(py, |inside| inside.is_open)
    }

    fn is_shut_down(&self, py: Python<'_>) -> bool {
        self.inside.with(py, |inside| inside.is_shut_down)
    }

    /// How many items there are, of a queue that is not open.
    #[inline(always)]
    fn len(&self, py: Python<'_>) -> usize {
        self.inside.with(py, |inside| inside.items.len())
    }

    /// Whether there is no room, of a queue that is not open.
    #[inline(always)]
    fn is_full(&self, py: Python<'_>) -> bool {
        self.inside.with(py, |inside| inside.items.len() >= inside.bound)
    }

    /// Puts `item` in, of a queue that is not open.
    ///
    /// # Errors
    /// `QueueShutDown`, `QueueFull`, what comparing items and waking a getter raises.
    #[inline(always)]
    pub fn put_nowait(&self, py: Python<'_>, item: Obj) -> Result<(), Raised> {
        let refusal = self.inside.with(py, |inside| {
            if inside.is_shut_down {
                Some(&QUEUE_SHUT_DOWN)
            } else if inside.items.len() >= inside.bound {
                Some(&QUEUE_FULL)
            } else {
                None
            }
        });
        if let Some(refusal) = refusal {
            return Err(refusal.raise(py, ()));
        }
        items::put(py, &self.inside, item)?;
        self.inside.with(py, |inside| inside.unfinished += 1);
        if let Some(finished) = self.finished.get() {
            finished.get(py).clear(py);
        }
        self.getters.wake_next(py)
    }

    /// Takes an item out, of a queue that is not open.
    ///
    /// # Errors
    /// `QueueEmpty`, `QueueShutDown`, what comparing items and waking a putter raises.
    #[inline(always)]
    fn get_nowait(&self, py: Python<'_>) -> Result<Obj, Raised> {
        match items::take(py, &self.inside)? {
            Some(item) => {
                self.putters.wake_next(py)?;
                Ok(item)
            }
            None if self.is_shut_down(py) => Err(QUEUE_SHUT_DOWN.raise(py, ())),
            None => Err(QUEUE_EMPTY.raise(py, ())),
        }
    }

    /// The event that is set while no task is unfinished.
    fn finished<'py>(&self, py: Python<'py>) -> Result<This<'_, 'py, Event>, Raised> {
        if let Some(finished) = self.finished.get() {
            return Ok(finished.get(py));
        }
        let is_set = self.inside.with(py, |inside| inside.unfinished <= 0);
        let event = Bound::new(py, Event::make(is_set)).map_err(|error| Raised::from_err(py, error))?;
        // Somebody else may have been faster.
        Ok(self.finished.get_or_init(|| event.into()).get(py))
    }

    /// Wakes those who wait for all tasks to be done.
    fn finish(&self, py: Python<'_>) -> Result<(), Raised> {
        self.finished.get().map_or(Ok(()), |finished| finished.get(py).set(py))
    }
}

/// Whether `get` need not wait.
///
/// # Errors
/// What the methods of an open queue raise, here and below.
#[inline(always)]
fn has_items(queue: This<'_, '_, Queue>) -> Result<bool, Raised> {
    let py = queue.py();
    if queue.is_open(py) { plain::ask(queue.as_any(), "empty").map(|empty| !empty) } else { Ok(queue.len(py) > 0) }
}

/// Whether `put` need not wait.
#[inline(always)]
fn has_room(queue: This<'_, '_, Queue>) -> Result<bool, Raised> {
    let py = queue.py();
    if queue.is_open(py) { plain::ask(queue.as_any(), "full").map(|full| !full) } else { Ok(!queue.is_full(py)) }
}

#[inline(always)]
fn get_nowait(queue: This<'_, '_, Queue>) -> Result<Obj, Raised> {
    let py = queue.py();
    if queue.is_open(py) {
        let item = queue.as_any().call_method0("get_nowait");
        return item.map(Obj::from).map_err(|error| Raised::from_err(py, error));
    }
    queue.get_nowait(py)
}

#[inline(always)]
fn put_nowait(queue: This<'_, '_, Queue>, item: Obj) -> Result<(), Raised> {
    let py = queue.py();
    if queue.is_open(py) {
        let put = queue.as_any().call_method1("put_nowait", (item.bind(py),));
        return put.map(drop).map_err(|error| Raised::from_err(py, error));
    }
    queue.put_nowait(py, item)
}

/// Wakes the first of `lane` who was not woken yet.
fn wake_next(queue: This<'_, '_, Queue>, lane: &Lane) -> Result<(), Raised> {
    let py = queue.py();
    if queue.is_open(py) {
        let woken = lane.exposed(py).and_then(|lane| queue.as_any().call_method1("_wakeup_next", (lane,)));
        return woken.map(drop).map_err(|error| Raised::from_err(py, error));
    }
    lane.wake_next(py)
}

/// Adds what PyO3 does not to the classes.
pub fn finish(py: Python<'_>) -> PyResult<()> {
    methods::finish(py)
}
