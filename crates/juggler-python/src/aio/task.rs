//! `asyncio.Task`: a future that runs a coroutine.
//!
//! A task is ready (a turn of the loop is its), waiting (for the future in `waiter`), running, or done. Its step is in
//! [`step`](super::step); here is what others do to it. In our own loop a turn of a task is the task itself in the ring;
//! in any other it is a callable.
#![allow(unsafe_code)]

use super::callback::{self, call_soon, object_of};
use super::class::{self, Native, class_cells, drop_value};
use super::current;
use super::entry::{Entry, Kind};
use super::event_loop::plain_loop;
use super::future::{self, Future, State};
use super::registry;
use super::sleep::is_sleep;
use super::stdlib::IS_COROUTINE;
use super::step;
use crate::attached::Attached;
use crate::gc::Ready;
use crate::obj::Obj;
use crate::raw::{Raised, This};
use juggler_sync::sync::{AtomicU64, AtomicUsize, Ordering};
use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::PyTuple;

/// How a task is called.
pub enum Name {
    /// `Task-N`
    Number(u64),
    Given(Obj),
}

impl Name {
    /// The next number.
    pub fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self::Number(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// The fields that a task has besides those of a future.
pub struct TaskFields {
    pub coroutine: Option<Obj>,
    pub context: Option<Obj>,
    /// What it waits for, until its next step begins.
    pub waiter: Option<Obj>,
    pub name: Name,
    pub cancels: u32,
    pub must_cancel: bool,
    pub report_pending: bool,
}

/// A coroutine that runs by itself.
///
/// Stands in for `asyncio.Task`.
#[pyclass(frozen, subclass, extends = Future, module = "juggler.asyncio", name = "Task")]
pub struct Task {
    ready: Ready,
    pub(super) own: Attached<TaskFields>,
    /// Where it is in the tasks of its loop.
    pub(super) place: AtomicUsize,
}

impl Task {
    /// A task that has nothing to run yet.
    #[inline(always)]
    pub fn new(fields: TaskFields) -> Self {
        Self { ready: Ready::new(), own: Attached::new(fields), place: AtomicUsize::new(usize::MAX) }
    }

    pub(super) fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        if !self.ready.is_ready() {
            return Ok(());
        }
        self.own.traverse(|own| {
            let objects = [&own.coroutine, &own.context, &own.waiter];
            objects.into_iter().flatten().try_for_each(|object| object.visit(visit))?;
            if let Name::Given(name) = &own.name { name.visit(visit) } else { Ok(()) }
        })
    }

    pub(super) fn clear(&self, py: Python<'_>) {
        let stale = self.own.with(py, |own| (own.coroutine.take(), own.context.take(), own.waiter.take()));
        drop(stale);
    }
}

impl TaskFields {
    /// Those of a task that runs `coroutine` in `context`.
    #[inline(always)]
    pub fn new(coroutine: Option<Obj>, context: Option<Obj>, name: Name) -> Self {
        Self { coroutine, context, waiter: None, name, cancels: 0, must_cancel: false, report_pending: true }
    }
}

/// A task as the future that it is.
#[inline(always)]
pub fn as_future<'a, 'py>(this: This<'a, 'py, Task>) -> This<'a, 'py, Future> {
    // SAFETY: a task begins with a future, and lives as long.
    unsafe { This::new(this.py(), this.as_any().as_ptr()) }
}

impl Native for Task {
    class_cells!(4096);

    #[inline(always)]
    fn must_report(this: This<'_, '_, Self>) -> bool {
        let py = this.py();
        let future = as_future(this);
        future
            .fields
            .with(py, |fields| fields.log_traceback || (fields.state == State::Pending && fields.event_loop.is_some()))
            && (Future::must_report(future) || is_lost(this))
    }

    #[cold]
    fn report(this: This<'_, '_, Self>) {
        if is_lost(this) {
            future::report(as_future(this), "Task was destroyed but it is pending!", "task", None);
        }
        if Future::must_report(as_future(this)) {
            future::report_exception(as_future(this));
        }
    }

    unsafe fn drop_own(this: *mut ffi::PyObject) {
        // SAFETY: the caller's promise.
        unsafe { drop_value::<Self>(this) }
    }
}

/// Whether the task can't come to its end any more, and somebody may want to know.
fn is_lost(this: This<'_, '_, Task>) -> bool {
    let py = this.py();
    let begun = this.own.with(py, |own| own.report_pending && own.coroutine.is_some());
    begun && !as_future(this).is_done(py)
}

/// Makes and schedules a task, as `loop.create_task` does.
///
/// # Errors
/// `TypeError` if it is no coroutine; what the loop raises.
pub fn spawn(
    py: Python<'_>,
    event_loop: &Obj,
    coroutine: Obj,
    context: *mut ffi::PyObject,
    name: Name,
    debug: bool,
    eager: bool,
) -> Result<Obj, Raised> {
    check_coroutine(py, &coroutine)?;
    let context = context_of_new(py, context)?;
    let future = Future::new(Some(event_loop.clone_ref(py)));
    let task = class::new_heir(py, future, Task::new(TaskFields::new(Some(coroutine), Some(context), name)))?;
    if debug {
        let this = as_future(class::assume(py, &task));
        this.note_source(py).map_err(|error| Raised::from_err(py, error))?;
    }
    if eager {
        begin_eagerly(py, event_loop, &task)?
    } else {
        begin(py, event_loop, &task)?
    }
    Ok(task)
}

/// Schedules the first step.
///
/// # Errors
/// What the loop raises.
pub fn begin(py: Python<'_>, event_loop: &Obj, task: &Obj) -> Result<(), Raised> {
    schedule(py, event_loop, task)?;
    registry::add(py, event_loop, task)
}

/// Makes the first step at once, within the task that runs.
///
/// # Errors
/// `KeyboardInterrupt` and `SystemExit` of the coroutine; what the loop raises.
pub fn begin_eagerly(py: Python<'_>, event_loop: &Obj, task: &Obj) -> Result<(), Raised> {
    let this = class::assume::<Task>(py, task);
    let outer = current::swap(py, event_loop, Some(task))?;
    // `asyncio.all_tasks` is to see it during its first step too.
    let stepped = registry::add(py, event_loop, task).and_then(|()| step::run_in_context(this, event_loop, None));
    let problem = stepped.map_err(|raised| raised.fetch(py));
    let swapped = current::swap(py, event_loop, outer.as_ref()).map(drop);
    if as_future(this).is_done(py) {
        registry::discard(py, event_loop, task)?;
        let stale = this.own.with(py, |own| own.coroutine.take());
        drop(stale);
    }
    match problem {
        Ok(()) => swapped,
        Err(error) => Err(Raised::from_err(py, error)),
    }
}

/// # Errors
/// `TypeError` if it is no coroutine.
#[inline]
pub fn check_coroutine(py: Python<'_>, coroutine: &Obj) -> Result<(), Raised> {
    // SAFETY: a live object.
    if unsafe { ffi::PyCoro_CheckExact(coroutine.as_ptr()) } != 0 {
        return Ok(());
    }
    if is_sleep(coroutine) {
        return Ok(());
    }
    check_coroutine_slow(coroutine.bind(py).as_any()).map_err(|error| Raised::from_err(py, error))
}

#[cold]
fn check_coroutine_slow(coroutine: &Bound<'_, PyAny>) -> PyResult<()> {
    if IS_COROUTINE.get(coroutine.py())?.call1((coroutine,))?.is_truthy()? {
        return Ok(());
    }
    Err(PyTypeError::new_err(format!("a coroutine was expected, got {}", coroutine.repr()?)))
}

/// A turn of a task in the ring of a loop of ours.
pub(super) static KIND: Kind = Kind { run: take_turn, is_cancelled: |_| false };

/// Runs the task's next step, in its context.
///
/// # Errors
/// `KeyboardInterrupt` and `SystemExit` of the coroutine.
pub fn take_turn(py: Python<'_>, task: Obj) -> Result<(), Raised> {
    step::turn_in_context(class::assume(py, &task)).or_else(|raised| callback::report(py, &task, raised))
}

/// Gives the task a turn of the loop.
///
/// # Errors
/// What the loop's `call_soon` raises.
#[inline]
pub fn schedule(py: Python<'_>, event_loop: &Obj, task: &Obj) -> Result<(), Raised> {
    if let Some(ours) = plain_loop(py, event_loop) {
        ours.push(py, Entry { object: task.clone_ref(py), kind: &KIND });
        return Ok(());
    }
    let call = Bound::new(py, Step { task: task.clone_ref(py) }).map_err(|error| Raised::from_err(py, error))?;
    call_soon(py, event_loop, &call.into_any().into(), None, context_of(py, task).as_ref())
}

/// Gives the task, which has waited for `future`, a turn of the loop.
///
/// # Errors
/// What the loop's `call_soon` raises.
#[inline]
pub fn schedule_wakeup(py: Python<'_>, event_loop: &Obj, task: Obj, future: &Obj) -> Result<(), Raised> {
    if let Some(ours) = plain_loop(py, event_loop) {
        ours.push(py, Entry { object: task, kind: &KIND });
        return Ok(());
    }
    let context = context_of(py, &task);
    let call = wakeup(py, task).map_err(|error| Raised::from_err(py, error))?;
    call_soon(py, event_loop, &call, Some(future), context.as_ref())
}

fn context_of(py: Python<'_>, task: &Obj) -> Option<Obj> {
    let this = class::assume::<Task>(py, task);
    this.own.with(py, |own| own.context.as_ref().map(|context| context.clone_ref(py)))
}

/// What other classes of futures are given as the callback of a task that waits for them.
///
/// # Errors
/// `MemoryError`
pub fn wakeup(py: Python<'_>, task: Obj) -> PyResult<Obj> {
    Bound::new(py, Wakeup { task }).map(|call| call.into_any().into())
}

/// The task as a callback of the future that it waits for, as programs see it.
pub fn expose_wakeup<'py>(py: Python<'py>, task: &Obj) -> PyResult<Bound<'py, PyTuple>> {
    let context = context_of(py, task).unwrap_or_else(future::none);
    PyTuple::new(py, [wakeup(py, task.clone_ref(py))?.into_bound(py), context.into_bound(py)])
}

/// A step of a task, as a loop that is not ours calls it: in the task's context.
#[pyclass(frozen, module = "juggler.asyncio", name = "TaskStep")]
struct Step {
    task: Obj,
}

#[pymethods]
impl Step {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        step::step(class::assume(py, &self.task)).map_err(|raised| raised.fetch(py))
    }

    #[getter(__self__)]
    fn receiver<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.task.bind(py).to_owned()
    }

    #[getter(__qualname__)]
    fn qualname(&self) -> &'static str {
        "Task.__step"
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.task.visit(&visit)
    }
}

/// The end of a task's wait, as a loop that is not ours calls it: in the task's context.
#[pyclass(frozen, module = "juggler.asyncio", name = "TaskWakeup")]
struct Wakeup {
    task: Obj,
}

#[pymethods]
impl Wakeup {
    fn __call__(&self, future: Bound<'_, PyAny>) -> PyResult<()> {
        let py = future.py();
        step::wake(class::assume(py, &self.task), &future.into()).map_err(|raised| raised.fetch(py))
    }

    #[getter(__self__)]
    fn receiver<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.task.bind(py).to_owned()
    }

    #[getter(__qualname__)]
    fn qualname(&self) -> &'static str {
        "Task.__wakeup"
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.task.visit(&visit)
    }
}

/// `Task.cancel`: asks for it; `false` if the task is done.
///
/// # Errors
/// What cancelling the future raises for which it waits.
pub fn cancel(this: This<'_, '_, Task>, message: Option<&Obj>) -> Result<bool, Raised> {
    let py = this.py();
    let future = as_future(this);
    let done = future.fields.with(py, |fields| {
        fields.log_traceback = false;
        fields.state != State::Pending
    });
    if done {
        return Ok(false);
    }
    let waiter = this.own.with(py, |own| {
        own.cancels += 1;
        own.waiter.as_ref().map(|waiter| waiter.clone_ref(py))
    });
    if let Some(waiter) = waiter
        && callback::cancel(py, &waiter, message)?
    {
        // It may be a task that goes on in spite of it: it stays the one to be cancelled next time.
        return Ok(true);
    }
    this.own.with(py, |own| own.must_cancel = true);
    let message = message.map(|message| message.clone_ref(py));
    let stale = future.fields.with(py, |fields| match (&mut fields.rare, message) {
        (None, None) => None,
        (_, message) => std::mem::replace(&mut fields.rare().cancel_message, message),
    });
    drop(stale);
    Ok(true)
}

/// `Task.cancelling`
pub fn cancelling(this: This<'_, '_, Task>) -> u32 {
    this.own.with(this.py(), |own| own.cancels)
}

/// `Task.uncancel`
pub fn uncancel(this: This<'_, '_, Task>) -> u32 {
    this.own.with(this.py(), |own| {
        own.cancels = own.cancels.saturating_sub(1);
        if own.cancels == 0 {
            own.must_cancel = false;
        }
        own.cancels
    })
}

/// The task's name.
pub fn name<'py>(this: This<'_, 'py, Task>) -> Bound<'py, PyAny> {
    let py = this.py();
    let name = this.own.with(py, |own| match &own.name {
        Name::Number(number) => Err(*number),
        Name::Given(name) => Ok(name.clone_ref(py)),
    });
    match name {
        Ok(name) => name.into_bound(py),
        Err(number) => {
            let name = pyo3::types::PyString::new(py, &format!("Task-{number}")).into_any();
            let given = Name::Given(name.clone().into());
            let stale = this.own.with(py, |own| std::mem::replace(&mut own.name, given));
            drop(stale);
            name
        }
    }
}

/// A name as an argument.
///
/// # Errors
/// What `str` raises.
pub fn name_of(name: &Bound<'_, PyAny>) -> PyResult<Name> {
    Ok(Name::Given(name.str()?.into_any().into()))
}

/// Whether the coroutine of a native task must not be looked at: an attribute lookup that never raises.
pub fn is_running(py: Python<'_>, event_loop: &Bound<'_, PyAny>) -> PyResult<bool> {
    event_loop.call_method0(intern!(py, "is_running"))?.is_truthy()
}

/// The context for a task: the one that is given, by default a copy of the current one.
///
/// # Errors
/// `TypeError` if it is no context.
#[inline]
pub fn context_of_new(py: Python<'_>, context: *mut ffi::PyObject) -> Result<Obj, Raised> {
    let context = callback::context_or_current(py, context)?;
    // SAFETY: a live object.
    if unsafe { ffi::PyContext_CheckExact(context.as_ptr()) } != 0 {
        return Ok(context);
    }
    let class = context.bind(py).get_type();
    let name = class.name().map_or_else(|_| String::new(), |name| name.to_string());
    Err(Raised::new::<PyTypeError>(py, &format!("a contextvars.Context was expected, got {name}")))
}

/// The receiver, owned.
pub fn object(this: This<'_, '_, Task>) -> Obj {
    object_of(as_future(this))
}
