//! What the primitives tell `juggler-trace`, when somebody asked for it.
//!
//! Tracing has two halves: `DETECT` finds deadlocks and contradicting lock orders, `REPORT` counts uses and waits. Every
//! traced operation begins with one look at [`on`]; while that is false, which is the rule, it is all that tracing costs.
//! A primitive is known to the tracer by the address of its engine part ([`Target::id`]), which is the same for everybody
//! who uses it and which its `Drop` reports with [`forget`].
#![allow(unsafe_code)]

mod places;

use crate::gate::current_thread;
use crate::obj::Obj;
use crate::raw::Raised;
use juggler_sync::Deadline;
use juggler_sync::sys::monotonic_nanos;
use juggler_trace::{Counter, Deadlock, Graph, Hold, Kind, Live, Registry, Resource, Site, Wait};
use pyo3::exceptions::{PyRuntimeError, PyRuntimeWarning};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList};
use std::cell::Cell;
use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

pyo3::create_exception!(
    juggler.threading,
    DeadlockError,
    PyRuntimeError,
    "A wait that could never have ended; raised in one of the threads instead of hanging all of them.\n\n\
    The message draws the cycle: which thread waits for what and where, and where its holder took it. The thread has not \
    taken what it waited for, and may let go of what it holds and try again. Raised only while deadlocks are looked for: \
    under `juggler run`, or after `juggler.threading.detect_deadlocks()`. The standard library has no counterpart."
);
pyo3::create_exception!(
    juggler.threading,
    LockOrderWarning,
    PyRuntimeWarning,
    "Two locks are taken in both orders, which will deadlock when two threads do so at once.\n\n\
    Warned of once for each pair, with both places, even if the program never hung; only while deadlocks are looked for. \
    The standard library has no counterpart."
);

const REPORT: u8 = 1;
const DETECT: u8 = 2;

static FLAGS: AtomicU8 = AtomicU8::new(0);

struct Tracer {
    graph: Graph,
    registry: Registry,
}

static TRACER: LazyLock<Tracer> = LazyLock::new(|| Tracer { graph: Graph::new(), registry: Registry::new() });

/// Whether anything is traced.
#[inline(always)]
pub fn on() -> bool {
    FLAGS.load(Ordering::Relaxed) != 0
}

fn reporting() -> bool {
    FLAGS.load(Ordering::Relaxed) & REPORT != 0
}

/// Whether deadlocks are looked for.
#[inline(always)]
pub fn detecting() -> bool {
    FLAGS.load(Ordering::Relaxed) & DETECT != 0
}

/// Where a primitive keeps its counter, made at its first traced use: one word, null until then.
#[derive(Debug, Default)]
pub struct CounterCell(AtomicPtr<Counter>);

impl CounterCell {
    /// A cell without a counter.
    pub const fn new() -> Self {
        Self(AtomicPtr::new(std::ptr::null_mut()))
    }

    fn get(&self) -> Option<&Counter> {
        // Acquire pairs with the exchange in `get_or_init`.
        // SAFETY: the pointer is null or comes from `Arc::into_raw`, and that reference lives as long as the cell.
        unsafe { self.0.load(Ordering::Acquire).as_ref() }
    }

    fn get_or_init(&self, make: impl FnOnce() -> Arc<Counter>) -> &Counter {
        if let Some(counter) = self.get() {
            return counter;
        }
        let fresh = Arc::into_raw(make()).cast_mut();
        match self.0.compare_exchange(std::ptr::null_mut(), fresh, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: the cell owns the reference now.
            Ok(_) => unsafe { &*fresh },
            Err(first) => {
                // SAFETY: `fresh` was not given away; `first` is the cell's.
                unsafe {
                    drop(Arc::from_raw(fresh));
                    &*first
                }
            }
        }
    }
}

impl Drop for CounterCell {
    fn drop(&mut self) {
        let counter = *self.0.get_mut();
        if !counter.is_null() {
            // SAFETY: the reference that `get_or_init` gave to the cell.
            drop(unsafe { Arc::from_raw(counter) });
        }
    }
}

/// A primitive, as the tracer sees it.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    pub id: usize,
    pub kind: Kind,
    pub class: &'static str,
    pub name: Option<&'a Obj>,
    pub counter: &'a CounterCell,
}

impl Target<'_> {
    fn resource(&self, py: Python<'_>) -> Resource {
        let resource = Resource::new(self.kind, self.id);
        match self.name(py) {
            Some(name) => resource.named(name),
            None => resource,
        }
    }

    fn name(&self, py: Python<'_>) -> Option<Arc<str>> {
        let name = self.name?.bind(py).str().ok()?;
        Some(Arc::from(name.to_string_lossy().as_ref()))
    }

    /// Calls `record` with the counter, if there is a report.
    pub fn count(&self, py: Python<'_>, record: impl FnOnce(&Counter)) {
        if reporting() {
            record(self.counter.get_or_init(|| TRACER.registry.counter(self.class, self.name(py), None)));
        }
    }
}

/// Gives a primitive that has just been made its counter, which remembers where that was.
#[inline(always)]
pub fn created(py: Python<'_>, class: &'static str, name: Option<&Obj>, cell: &CounterCell) {
    if on() {
        created_slow(py, class, name, cell);
    }
}

#[cold]
fn created_slow(py: Python<'_>, class: &'static str, name: Option<&Obj>, cell: &CounterCell) {
    if !reporting() || cell.get().is_some() {
        return;
    }
    let name = name.and_then(|name| name.bind(py).str().ok()).map(|name| Arc::from(name.to_string_lossy().as_ref()));
    cell.get_or_init(|| TRACER.registry.counter(class, name, Some(places::here(py).site)));
}

/// The lock at this address is gone.
#[inline(always)]
pub fn forget(id: usize) {
    if on() {
        TRACER.graph.forget(id);
    }
}

/// Something that threads wait for in `target` has happened.
#[inline(always)]
pub fn signalled(id: usize) {
    if detecting() {
        TRACER.graph.signalled(id);
    }
}

/// The calling thread is about to run a signal handler in the middle of a wait, or has ended a wait.
pub fn stopped_waiting() {
    if detecting() {
        TRACER.graph.stopped_waiting(current_thread());
    }
}

/// Takes a lock, telling the tracer: `try_acquire` takes it if that needs no waiting, `is_blocked` looks whether it still
/// would, `acquire` waits for it.
pub fn acquire(
    py: Python<'_>,
    target: Target<'_>,
    deadline: Deadline,
    scoped: bool,
    try_acquire: impl Fn() -> bool,
    is_blocked: impl FnOnce() -> bool,
    acquire: impl FnOnce() -> Result<bool, Raised>,
) -> Result<bool, Raised> {
    target.count(py, |counter| counter.used(1));
    if !detecting() {
        if try_acquire() {
            return Ok(true);
        }
        return if deadline == Deadline::PASSED { Ok(false) } else { timed(py, target, acquire) };
    }
    let (me, resource, here) = (watch_thread(), target.resource(py), places::here(py));
    if deadline.is_never()
        && holds_others()
        && let Some(inversion) = TRACER.graph.wanted(me, &resource, &here.site)
    {
        // Before the lock is taken: a filter may turn the warning into an error.
        warn(py, &inversion.to_string())?;
    }
    let taken = if try_acquire() {
        Ok(true)
    } else if deadline == Deadline::PASSED {
        Ok(false)
    } else {
        let wait = Wait { timed: !deadline.is_never(), ..Wait::new(resource.clone(), here.site) };
        begin_wait(py, me, wait, is_blocked)?;
        timed(py, target, acquire)
    };
    if matches!(taken, Ok(true)) {
        set_held(TRACER.graph.acquired(me, &resource, &here.site, scoped && here.ends_where_it_began));
    } else {
        TRACER.graph.stopped_waiting(me);
    }
    taken
}

/// The calling thread is about to release the lock at this address, which it may.
pub fn released(id: usize) {
    if detecting() {
        set_held(TRACER.graph.released(watch_thread(), id));
    }
}

/// Waits for something that any thread may bring about, telling the tracer.
pub fn wait<T>(
    py: Python<'_>,
    target: Target<'_>,
    deadline: Deadline,
    is_blocked: impl FnOnce() -> bool,
    wait: impl FnOnce() -> Result<T, Raised>,
) -> Result<T, Raised> {
    if !detecting() {
        return timed(py, target, wait);
    }
    let me = watch_thread();
    if !deadline.is_never() {
        return timed(py, target, wait);
    }
    begin_wait(py, me, Wait::new(target.resource(py), places::here(py).site), is_blocked)?;
    let result = timed(py, target, wait);
    TRACER.graph.stopped_waiting(me);
    result
}

/// Waits for the end of a thread or of a task: as [`wait`], for what has no counter.
pub fn wait_for<T>(
    py: Python<'_>,
    make: impl FnOnce(Site) -> Wait,
    is_blocked: impl FnOnce() -> bool,
    wait: impl FnOnce() -> Result<T, Raised>,
) -> Result<T, Raised> {
    if !detecting() {
        return wait();
    }
    let me = watch_thread();
    begin_wait(py, me, make(places::here(py).site), is_blocked)?;
    let result = wait();
    TRACER.graph.stopped_waiting(me);
    result
}

/// A condition is about to release its lock altogether, to wait.
pub fn release_save(id: usize) -> Option<Hold> {
    if detecting() { TRACER.graph.release_save(id) } else { None }
}

/// A condition takes its lock back with `acquire`, which is not to fail.
pub fn acquire_restore(
    py: Python<'_>,
    lock: Target<'_>,
    saved: Option<Hold>,
    is_blocked: impl FnOnce() -> bool,
    acquire: impl FnOnce() -> Result<(), Raised>,
) -> Result<(), Raised> {
    let Some(hold) = saved else { return acquire() };
    let (me, resource, site) = (watch_thread(), lock.resource(py), places::here(py).site);
    let wait = Wait { may_fail: false, ..Wait::new(resource, site) };
    begin_wait(py, me, wait, is_blocked)?;
    let result = acquire();
    TRACER.graph.acquire_restore(hold, &site);
    result
}

/// Runs `wait` and counts how long that took.
pub fn timed<T>(py: Python<'_>, target: Target<'_>, wait: impl FnOnce() -> Result<T, Raised>) -> Result<T, Raised> {
    if !reporting() {
        return wait();
    }
    let begin = monotonic_nanos();
    let result = wait();
    target.count(py, |counter| counter.waited(monotonic_nanos() - begin));
    result
}

/// Announces a wait; a deadlock is an error.
fn begin_wait(py: Python<'_>, me: u64, wait: Wait, is_blocked: impl FnOnce() -> bool) -> Result<(), Raised> {
    match TRACER.graph.waiting(me, wait, is_blocked, || live(py)) {
        None => Ok(()),
        Some(deadlock) => Err(deadlocked(py, deadlock)),
    }
}

#[cold]
fn deadlocked(py: Python<'_>, deadlock: Deadlock) -> Raised {
    let named = deadlock.named(|thread| python_side(py).call_method1("thread_name", (thread,)).ok()?.extract().ok());
    let told = named.with_stacks(|thread, site| places::stack(py, thread, site));
    Raised::from_err(py, DeadlockError::new_err(told.to_string()))
}

#[cold]
fn warn(py: Python<'_>, message: &str) -> Result<(), Raised> {
    let message = std::ffi::CString::new(message.replace('\0', " ")).unwrap_or_default();
    PyErr::warn(py, &py.get_type::<LockOrderWarning>(), &message, 1).map_err(|error| Raised::from_err(py, error))
}

/// Which threads there are; when that can't be told, others may run.
fn live(py: Python<'_>) -> Live {
    python_side(py)
        .call_method0("live")
        .and_then(|live| live.extract::<(Vec<u64>, bool)>())
        .map(|(threads, outside)| Live { threads, outside })
        .unwrap_or_else(|_| Live { threads: Vec::new(), outside: true })
}

/// The module `juggler._tracing`, which [`trace_start`] imported.
fn python_side(py: Python<'_>) -> Bound<'_, PyAny> {
    static MODULE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    MODULE
        .get_or_init(py, || match py.import("juggler._tracing") {
            Ok(module) => module.into_any().unbind(),
            // Every use of the result reports its own failure.
            Err(_) => py.None(),
        })
        .bind(py)
        .clone()
}

/// How often the tracer forgot everything.
static FORGOTTEN: AtomicU64 = AtomicU64::new(0);

fn forget_everything() {
    FORGOTTEN.fetch_add(1, Ordering::Relaxed);
    TRACER.graph.after_fork_in_child();
}

/// What a thread knows of itself.
struct Watch {
    thread: u64,
    /// What [`FORGOTTEN`] was when the tracer last learned of the thread.
    told: Cell<Option<u64>>,
    /// How many locks the tracer has for the thread, or had: others may have released some.
    held: Cell<usize>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        TRACER.graph.thread_ended(self.thread);
    }
}

thread_local! {
    static WATCH: Watch = Watch { thread: current_thread(), told: Cell::new(None), held: Cell::new(0) };
}

/// The calling thread's identity; the tracer learns that the thread runs, and when it ends.
pub fn watch_thread() -> u64 {
    WATCH
        .try_with(|watch| {
            let forgotten = Some(FORGOTTEN.load(Ordering::Relaxed));
            if watch.told.replace(forgotten) != forgotten {
                TRACER.graph.thread_began(watch.thread);
            }
            watch.thread
        })
        // During the thread's own end the value is gone, and so is what it held.
        .unwrap_or_else(|_| current_thread())
}

fn set_held(held: usize) {
    // Nobody asks any more during the thread's own end.
    let _ = WATCH.try_with(|watch| watch.held.set(held));
}

/// Whether the calling thread may hold a lock.
fn holds_others() -> bool {
    WATCH.try_with(|watch| watch.held.get() > 0).unwrap_or(true)
}

/// Begins to trace: to count for a report, to detect deadlocks, or both. What is on stays on until [`trace_stop`].
#[pyfunction]
pub fn trace_start(py: Python<'_>, report: bool, detect: bool) -> PyResult<()> {
    if detect {
        // Imported now, not in the middle of a wait.
        python_side(py).call_method0("watch_joins")?;
    }
    FLAGS.fetch_or((u8::from(report) * REPORT) | (u8::from(detect) * DETECT), Ordering::Relaxed);
    Ok(())
}

/// Ends what [`trace_start`] began.
#[pyfunction]
pub fn trace_stop(py: Python<'_>) -> PyResult<()> {
    if FLAGS.swap(0, Ordering::Relaxed) & DETECT != 0 {
        python_side(py).call_method0("unwatch_joins")?;
        forget_everything();
    }
    Ok(())
}

/// What was counted: a dictionary for each class, name and place of creation, the longest waits first.
#[pyfunction]
pub fn trace_report(py: Python<'_>) -> PyResult<Bound<'_, PyList>> {
    let rows = PyList::empty(py);
    for row in TRACER.registry.snapshot() {
        let entry = PyDict::new(py);
        entry.set_item("kind", row.class)?;
        entry.set_item("name", row.name.as_deref())?;
        entry.set_item("site", row.site.as_ref().map(|site| format!("{}:{}", site.file(), site.line())))?;
        entry.set_item("instances", row.instances)?;
        entry.set_item("uses", row.uses)?;
        entry.set_item("waits", row.waits)?;
        entry.set_item("wait_seconds", row.wait_ns as f64 / 1e9)?;
        entry.set_item("longest_wait", row.longest_ns as f64 / 1e9)?;
        entry.set_item("deepest", (row.deepest > 0).then_some(row.deepest))?;
        let busy = (row.capacity_ns > 0).then_some(row.busy_ns as f64 / 1e9);
        entry.set_item("busy_seconds", busy)?;
        entry.set_item("capacity_seconds", busy.map(|_| row.capacity_ns as f64 / 1e9))?;
        rows.append(entry)?;
    }
    Ok(rows)
}

/// Waits for the end of `thread` by calling `join`, unless that would be a deadlock.
#[pyfunction]
pub fn trace_join<'py>(thread: Bound<'py, PyAny>, join: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = thread.py();
    let ident: u64 = thread.getattr("ident")?.extract()?;
    let name: String = thread.getattr("name")?.extract()?;
    let resource = Resource::new(Kind::Join, thread.as_ptr() as usize).named(name);
    wait_for(
        py,
        |site| Wait::join(ident, resource, site),
        || thread.call_method0("is_alive").and_then(|alive| alive.is_truthy()).unwrap_or(false),
        || join.call1((&thread,)).map_err(|error| Raised::from_err(py, error)),
    )
    .map_err(|raised| raised.fetch(py))
}

/// Forgets what the parent's threads did; for a forked child.
pub fn after_fork_in_child() {
    if on() {
        forget_everything();
        TRACER.registry.after_fork_in_child();
    }
}
