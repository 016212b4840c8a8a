//! `queue.Queue`, `queue.LifoQueue` and `queue.PriorityQueue`.
//!
//! # Open queues
//!
//! The standard library's queues are made of parts that programs use: `q.mutex`, `q.queue`, `q.not_empty`, and the hooks
//! `_init`, `_qsize`, `_put` and `_get` that a subclass overrides. A queue whose parts are asked for, or of which a hook is
//! overridden in its class or set on itself, is *opened*: its items move to a Python container, it gets a real lock and
//! real conditions, and from then on every operation runs in `juggler._open_queue`, which works on those parts as the
//! standard library does. All others never leave the engine.
#![allow(unsafe_code)]

mod calls;

use crate::condition::Condition;
use crate::gate::PyGate;
use crate::gc::Ready;
use crate::layout::Direct;
use crate::lock::Lock;
use crate::obj::Obj;
use crate::raw::Raised;
use crate::trace::{self, CounterCell, Target};
use juggler_sync::guarded::Guarded;
use juggler_sync::queue::{self, GetError, Order, Refusal};
use juggler_trace::Kind;
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyFloat, PyList, PyString, PyTuple, PyType};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};

/// The methods by which an open queue reaches its items.
const HOOKS: [&str; 4] = ["_init", "_qsize", "_put", "_get"];

/// Whether `class` has another of `hooks` than `base`, on which it is based.
pub fn overrides(class: &Bound<'_, PyType>, base: &Bound<'_, PyType>, hooks: &[&str]) -> PyResult<bool> {
    if class.is(base) {
        return Ok(false);
    }
    for hook in hooks {
        if !class.getattr(hook)?.is(&base.getattr(hook)?) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The parts of an open queue.
struct Parts {
    mutex: Obj,
    not_empty: Obj,
    not_full: Obj,
    all_tasks_done: Obj,
}

/// A first-in-first-out queue between threads.
///
/// Stands in for `queue.Queue`, with `statistics()` besides, and `shutdown()` on every version (in the standard library from
/// 3.13). A subclass may override `_init`, `_qsize`, `_put` and `_get`; that, setting one of them on a queue, or asking for
/// `mutex`, `queue` or one of the conditions, *opens* the queue: from then on it works on those parts as the standard library
/// does, and as slowly.
///
/// Fairness: getters and putters that wait are woken first in, first out; a running thread may take an item before a sleeper
/// that is being woken. Fork: the child finds the items as they were; the threads that waited are gone. Blocking: `put` and
/// `get` that need not wait keep the GIL, but for the turn of at most 0.5 ms that a thread gets which had slept for
/// 0.25 ms or more and is woken (from 3.13 on the main thread gives it when that one is awake). May be used from destructors
/// and signal handlers: such a call never deadlocks with an operation that it interrupts, unless the queue is open.
///
/// Deviations: `maxsize` must be a number; one with a fraction is rounded up.
///
/// Args:
///     maxsize: the most items it holds, any number; 0, a negative or an infinite number is no limit.
///
/// Raises:
///     TypeError: `maxsize` is not a number.
///     ValueError: `maxsize` is NaN.
#[pyclass(frozen, weakref, dict, subclass, module = "queue")]
pub struct Queue {
    ready: Ready,
    engine: queue::Queue<Obj>,
    order: Order,
    /// As the program gave it; the engine knows 0 for what is not above.
    maxsize: AtomicI64,
    parts: OnceLock<Parts>,
    /// The container of an open queue.
    container: Guarded<Option<Obj>>,
    counter: CounterCell,
}

/// A last-in-first-out queue between threads, a stack.
///
/// Stands in for `queue.LifoQueue`; as `Queue` in everything but the order.
///
/// Args:
///     maxsize: the most items it holds; 0 or less is no limit.
#[pyclass(frozen, subclass, extends = Queue, module = "queue")]
pub struct LifoQueue;

/// A queue between threads whose smallest item leaves first.
///
/// Stands in for `queue.PriorityQueue`; as `Queue` in everything but the order. Items are ordered by `<`, equal ones as
/// `heapq` orders them.
///
/// Deviations: if a comparison raises, the queue is as before and the exception passes on. A comparison that uses the queue it
/// is part of gets a `RuntimeError`, where the standard library would deadlock.
///
/// Args:
///     maxsize: the most items it holds; 0 or less is no limit.
#[pyclass(frozen, subclass, extends = Queue, module = "queue")]
pub struct PriorityQueue;

/// An exception class of the `queue` module; `ShutDown` is ours where the standard library has none.
fn exception<'py>(py: Python<'py>, name: &'static str) -> PyResult<Bound<'py, PyType>> {
    static FULL: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    static EMPTY: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    static SHUT_DOWN: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let cell = match name {
        "Full" => &FULL,
        "Empty" => &EMPTY,
        _ => &SHUT_DOWN,
    };
    cell.import(py, "juggler.queue", name).cloned()
}

#[cold]
fn raise(py: Python<'_>, name: &'static str) -> Raised {
    match exception(py, name) {
        Ok(class) => {
            // SAFETY: a class of exceptions, and the thread is attached.
            unsafe { ffi::PyErr_SetNone(class.as_ptr()) };
            Raised
        }
        Err(error) => Raised::from_err(py, error),
    }
}

/// The exception for a refusal that is not `Opened`.
#[cold]
fn refused(py: Python<'_>, refusal: Refusal, not_now: &'static str) -> Raised {
    match refusal {
        Refusal::ShutDown => raise(py, "ShutDown"),
        Refusal::Reentered => Raised::new::<PyRuntimeError>(
            py,
            "this queue is used while it compares its own items: a comparison or destructor must not call it",
        ),
        Refusal::NotNow | Refusal::Opened => raise(py, not_now),
    }
}

/// Calls a function of `juggler._open_queue`.
#[cold]
fn call_open<'py>(
    py: Python<'py>,
    function: &str,
    args: impl pyo3::call::PyCallArgs<'py>,
) -> PyResult<Bound<'py, PyAny>> {
    py.import("juggler._open_queue")?.call_method1(function, args)
}

/// The bound as the engine wants it.
fn bound(maxsize: i64) -> usize {
    usize::try_from(maxsize).unwrap_or(0)
}

/// The bound as a number; 0 for an infinite one.
///
/// # Errors
/// `TypeError` if it is no number, `ValueError` if it is NaN.
pub fn parse_maxsize(maxsize: &Bound<'_, PyAny>) -> PyResult<i64> {
    if let Ok(number) = maxsize.cast::<PyFloat>() {
        let number = number.value();
        if number.is_nan() {
            return Err(PyValueError::new_err("maxsize must not be NaN"));
        }
        // A queue of at most 1.5 items is full with 2, as `len >= maxsize` has it; an infinite one never is.
        return Ok(if number.is_infinite() { 0 } else { number.ceil() as i64 });
    }
    maxsize.extract().map_err(|_| {
        let kind = maxsize.get_type();
        PyTypeError::new_err(format!("maxsize must be an integer below 2**63, not {maxsize} of {kind}"))
    })
}

fn class_name(order: Order) -> &'static str {
    match order {
        Order::Fifo => "Queue",
        Order::Lifo => "LifoQueue",
        Order::Priority => "PriorityQueue",
    }
}

/// Sets an attribute as `object.__setattr__` does; null deletes it.
fn set_attribute(slf: &Bound<'_, Queue>, name: &Bound<'_, PyString>, value: *mut ffi::PyObject) -> PyResult<()> {
    // SAFETY: live objects, or null for the value, and the thread is attached.
    if unsafe { ffi::PyObject_GenericSetAttr(slf.as_ptr(), name.as_ptr(), value) } < 0 {
        return Err(PyErr::fetch(slf.py()));
    }
    Ok(())
}

impl Queue {
    fn target(&self) -> Target<'_> {
        let id = std::ptr::from_ref(&self.engine) as usize;
        Target { id, kind: Kind::Queue, class: class_name(self.order), name: None, counter: &self.counter }
    }

    fn with_order(py: Python<'_>, order: Order) -> Self {
        let counter = CounterCell::new();
        trace::created(py, class_name(order), None, &counter);
        Self {
            ready: Ready::new(),
            engine: queue::Queue::new(order, 0),
            order,
            maxsize: AtomicI64::new(0),
            parts: OnceLock::new(),
            container: Guarded::new(None),
            counter,
        }
    }

    /// Whether the class of `this` overrides a hook of the class it is based on.
    fn overrides_hooks(slf: &Bound<'_, Self>) -> PyResult<bool> {
        let py = slf.py();
        let class = slf.get_type();
        let base = match slf.get().order {
            Order::Fifo => py.get_type::<Self>(),
            Order::Lifo => py.get_type::<LifoQueue>(),
            Order::Priority => py.get_type::<PriorityQueue>(),
        };
        overrides(&class, &base, &HOOKS)
    }

    /// Moves the items out of the engine and makes the parts, once.
    fn open(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        if this.parts.get().is_some() {
            return Ok(());
        }
        let mutex = Bound::new(py, Lock::make(py))?.into_any();
        let condition = || py.get_type::<Condition>().call1((&mutex,)).map(Obj::from);
        let parts = Parts {
            not_empty: condition()?,
            not_full: condition()?,
            all_tasks_done: condition()?,
            mutex: mutex.clone().into(),
        };
        // Nobody gets past the mutex before the items are in place.
        mutex.call_method0("acquire")?;
        if this.parts.set(parts).is_err() {
            return Ok(());
        }
        let moved = this.move_items(py);
        mutex.call_method0("release")?;
        moved
    }

    fn move_items(&self, py: Python<'_>) -> PyResult<()> {
        let items = match self.engine.open(&PyGate::new(py)) {
            Ok(items) => items.unwrap_or_default(),
            Err(GetError::Refused(refusal)) => return Err(refused(py, refusal, "Empty").fetch(py)),
            Err(GetError::Failed(raised)) => return Err(raised.fetch(py)),
        };
        let list = PyList::new(py, items.into_iter().map(|item| item.into_bound(py)))?;
        let container = match self.order {
            Order::Fifo => py.import("collections")?.call_method1("deque", (list,))?,
            Order::Lifo | Order::Priority => list.into_any(),
        };
        self.set_container(Some(container.into()));
        Ok(())
    }

    fn set_container(&self, container: Option<Obj>) {
        let before = std::mem::replace(&mut *self.container.lock(), container);
        drop(before);
    }

    fn part<'py>(slf: &Bound<'py, Self>, part: impl Fn(&Parts) -> &Obj) -> PyResult<Bound<'py, PyAny>> {
        Self::open(slf)?;
        let parts = slf.get().parts.get().ok_or_else(|| PyRuntimeError::new_err("the queue could not be opened"))?;
        Ok(part(parts).bind(slf.py()).to_owned())
    }

    fn is_open(&self) -> bool {
        self.parts.get().is_some()
    }
}

#[pymethods]
impl Queue {
    #[new]
    #[pyo3(signature = (*args, **_kwargs), text_signature = "(maxsize=0)")]
    fn new(args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self::with_order(args.py(), Order::Fifo)
    }

    #[pyo3(signature = (maxsize=None))]
    fn __init__(slf: &Bound<'_, Self>, maxsize: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        let number = maxsize.as_ref().map_or(Ok(0), parse_maxsize)?;
        slf.get().set_maxsize(number);
        if Self::overrides_hooks(slf)? {
            Self::open(slf)?;
            slf.call_method1("_init", (number,))?;
        }
        Ok(())
    }

    /// A hook that is set on a queue opens it.
    fn __setattr__(slf: &Bound<'_, Self>, name: &Bound<'_, PyString>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        if HOOKS.iter().any(|hook| *name == *hook) {
            Self::open(slf)?;
        }
        set_attribute(slf, name, value.as_ptr())
    }

    fn __delattr__(slf: &Bound<'_, Self>, name: &Bound<'_, PyString>) -> PyResult<()> {
        set_attribute(slf, name, std::ptr::null_mut())
    }

    /// `Queue[int]` in annotations, as in the standard library.
    #[classmethod]
    fn __class_getitem__<'py>(class: &Bound<'py, PyType>, item: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        class.py().import("types")?.call_method1("GenericAlias", (class, item))
    }

    /// The most items it holds, as given; 0 or less is no limit. May be set.
    #[getter]
    fn maxsize(&self) -> i64 {
        self.maxsize.load(Ordering::Relaxed)
    }

    #[setter]
    fn set_maxsize(&self, maxsize: i64) {
        self.maxsize.store(maxsize, Ordering::Relaxed);
        self.engine.set_maxsize(bound(maxsize));
    }

    /// Items put for which `task_done` was not called yet.
    #[getter]
    fn unfinished_tasks(&self) -> u64 {
        self.engine.unfinished()
    }

    #[setter]
    fn set_unfinished_tasks(&self, unfinished: u64) {
        self.engine.set_unfinished(unfinished);
    }

    /// Whether `shutdown` was called.
    #[getter]
    fn is_shutdown(&self) -> bool {
        self.engine.is_shut_down()
    }

    #[setter]
    fn set_is_shutdown(&self, is_shutdown: bool) {
        self.engine.set_shut_down(is_shutdown);
    }

    /// The lock of the queue's parts; asking for it opens the queue.
    #[getter]
    fn mutex<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        Self::part(slf, |parts| &parts.mutex)
    }

    /// Notified when an item comes in; asking for it opens the queue.
    #[getter]
    fn not_empty<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        Self::part(slf, |parts| &parts.not_empty)
    }

    /// Notified when an item leaves; asking for it opens the queue.
    #[getter]
    fn not_full<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        Self::part(slf, |parts| &parts.not_full)
    }

    /// Notified when all tasks are done; asking for it opens the queue.
    #[getter]
    fn all_tasks_done<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        Self::part(slf, |parts| &parts.all_tasks_done)
    }

    /// The container of the items; asking for it opens the queue.
    #[getter]
    fn queue<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        Self::open(slf)?;
        let container = slf.get().container.lock().as_ref().map(|container| container.clone_ref(slf.py()));
        container
            .map(|container| container.into_bound(slf.py()))
            .ok_or_else(|| pyo3::exceptions::PyAttributeError::new_err("queue"))
    }

    #[setter]
    fn set_queue(slf: &Bound<'_, Self>, container: Bound<'_, PyAny>) -> PyResult<()> {
        Self::open(slf)?;
        slf.get().set_container(Some(container.into()));
        Ok(())
    }

    /// Make the container of an open queue; a subclass may override it.
    fn _init(slf: &Bound<'_, Self>, maxsize: Bound<'_, PyAny>) -> PyResult<()> {
        call_open(slf.py(), "init_fifo", (slf.as_any(), maxsize)).map(drop)
    }

    /// How many items the container of an open queue holds; a subclass may override it.
    fn _qsize(slf: &Bound<'_, Self>) -> PyResult<usize> {
        Self::queue(slf)?.len()
    }

    /// Put an item into the container of an open queue; a subclass may override it.
    fn _put(slf: &Bound<'_, Self>, item: Bound<'_, PyAny>) -> PyResult<()> {
        Self::queue(slf)?.call_method1("append", (item,)).map(drop)
    }

    /// Take an item out of the container of an open queue; a subclass may override it.
    fn _get<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        Self::queue(slf)?.call_method0("popleft")
    }

    /// Mark an item that was got as done; as `queue.Queue.task_done`. Never blocks.
    ///
    /// `join` returns when all items that were put are done.
    ///
    /// Raises:
    ///     ValueError: called more often than items were put.
    fn task_done(slf: &Bound<'_, Self>) -> PyResult<()> {
        if slf.get().is_open() {
            return call_open(slf.py(), "task_done", (slf.as_any(),)).map(drop);
        }
        let done = slf.get().engine.task_done();
        done.map_err(|queue::TooManyDone| PyValueError::new_err("task_done() called too many times"))
    }

    /// Wait until `task_done` was called for every item that was put; as `queue.Queue.join`.
    ///
    /// There is no timeout. A wait releases the GIL; signal handlers run in the middle of it, and one that raises ends it.
    fn join(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        match slf.get().engine.join(&PyGate::new(py)) {
            Ok(()) => Ok(()),
            Err(GetError::Refused(_)) => call_open(slf.py(), "join", (slf.as_any(),)).map(drop),
            Err(GetError::Failed(raised)) => Err(raised.fetch(py)),
        }
    }

    /// Refuse every `put` from now on, and every `get` once the queue is empty, with `ShutDown`.
    ///
    /// As `queue.Queue.shutdown` of 3.13, here on every version. Wakes all who wait. Never blocks.
    ///
    /// Args:
    ///     immediate: empty the queue at once; what was inside counts as done.
    #[pyo3(signature = (immediate=false))]
    fn shutdown(slf: &Bound<'_, Self>, immediate: bool) -> PyResult<()> {
        let py = slf.py();
        match slf.get().engine.shut_down(&PyGate::new(py), immediate) {
            Ok(items) => {
                drop(items);
                Ok(())
            }
            Err(GetError::Refused(Refusal::Opened)) => {
                call_open(slf.py(), "shutdown", (slf.as_any(), immediate)).map(drop)
            }
            Err(GetError::Refused(refusal)) => Err(refused(py, refusal, "Empty").fetch(py)),
            Err(GetError::Failed(raised)) => Err(raised.fetch(py)),
        }
    }

    /// Whether a `put` would have to wait; as `queue.Queue.full`. May have changed when you read it.
    fn full(slf: &Bound<'_, Self>) -> PyResult<bool> {
        if slf.get().is_open() {
            return call_open(slf.py(), "full", (slf.as_any(),))?.extract();
        }
        Ok(slf.get().engine.is_full())
    }

    /// How full the queue is and was, what is unfinished, and who waits, as a `QueueStatistics`.
    ///
    /// A snapshot for reports and tests; never blocks, and may be out of date when you read it.
    /// The standard library has no counterpart.
    fn statistics(&self) -> QueueStatistics {
        let now = self.engine.statistics();
        QueueStatistics {
            size: now.len,
            maxsize: self.maxsize(),
            unfinished: now.unfinished,
            deepest: now.deepest,
            getters: now.getters,
            putters: now.putters,
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if !self.ready.is_ready() {
            return Ok(());
        }
        self.engine.visit(|item| item.visit(&visit))?;
        if let Some(parts) = self.parts.get() {
            for part in [&parts.mutex, &parts.not_empty, &parts.not_full, &parts.all_tasks_done] {
                part.visit(&visit)?;
            }
        }
        match self.container.try_lock() {
            Some(container) => container.as_ref().map_or(Ok(()), |container| container.visit(&visit)),
            None => Ok(()),
        }
    }

    fn __clear__(&self) {
        drop(self.engine.clear());
        self.set_container(None);
    }
}

#[pymethods]
impl LifoQueue {
    #[new]
    #[pyo3(signature = (*args, **_kwargs), text_signature = "(maxsize=0)")]
    fn new(args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> PyClassInitializer<Self> {
        PyClassInitializer::from(Queue::with_order(args.py(), Order::Lifo)).add_subclass(Self)
    }

    fn _init(slf: &Bound<'_, Self>, maxsize: Bound<'_, PyAny>) -> PyResult<()> {
        call_open(slf.py(), "init_list", (slf.as_any(), maxsize)).map(drop)
    }

    fn _get<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        Queue::queue(slf.as_super())?.call_method0("pop")
    }
}

#[pymethods]
impl PriorityQueue {
    #[new]
    #[pyo3(signature = (*args, **_kwargs), text_signature = "(maxsize=0)")]
    fn new(args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> PyClassInitializer<Self> {
        PyClassInitializer::from(Queue::with_order(args.py(), Order::Priority)).add_subclass(Self)
    }

    fn _init(slf: &Bound<'_, Self>, maxsize: Bound<'_, PyAny>) -> PyResult<()> {
        call_open(slf.py(), "init_list", (slf.as_any(), maxsize)).map(drop)
    }

    fn _put(slf: &Bound<'_, Self>, item: Bound<'_, PyAny>) -> PyResult<()> {
        let heap = Queue::queue(slf.as_super())?;
        slf.py().import("heapq")?.call_method1("heappush", (heap, item)).map(drop)
    }

    fn _get<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let heap = Queue::queue(slf.as_super())?;
        slf.py().import("heapq")?.call_method1("heappop", (heap,))
    }
}

/// What a `Queue` is doing at a moment; see `Queue.statistics`.
#[pyclass(frozen, get_all, module = "juggler.queue")]
pub struct QueueStatistics {
    /// Items inside.
    size: usize,
    /// The bound; 0 or less for none.
    maxsize: i64,
    /// Items put and not yet done.
    unfinished: u64,
    /// The most items that were ever inside.
    deepest: usize,
    /// Threads that wait for an item.
    getters: usize,
    /// Threads that wait for room.
    putters: usize,
}

#[pymethods]
impl QueueStatistics {
    fn __repr__(&self) -> String {
        let Self { size, maxsize, unfinished, deepest, getters, putters } = self;
        format!(
            "QueueStatistics(size={size}, maxsize={maxsize}, unfinished={unfinished}, deepest={deepest}, \
             getters={getters}, putters={putters})"
        )
    }
}

/// Adds what PyO3 does not to the classes.
pub fn finish(py: Python<'_>) -> PyResult<()> {
    calls::add_methods(py)
}
