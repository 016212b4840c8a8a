//! `asyncio.Future`.
//!
//! A future is pending, then cancelled or finished. What happens then is in its callbacks, each of which gets a turn of the
//! loop. The first lies in the future itself: most have one, the task that awaits it.
#![allow(unsafe_code)]
#![expect(clippy::box_collection, reason = "one word for the callbacks that nearly no future has")]

use super::callback::{self, Callback, object_of};
use super::class::{self, Native, class_cells};
use super::event_loop;
use super::gather::Gathering;
use super::shield;
use super::stdlib::{CANCELLED_ERROR, EXTRACT_STACK, GET_EVENT_LOOP, INVALID_STATE_ERROR};
use super::task::{self, Task};
use crate::attached::Attached;
use crate::gc::Ready;
use crate::obj::Obj;
use crate::raw::{Raised, This};
use pyo3::exceptions::{PyRuntimeError, PyStopIteration, PyTypeError};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::PyDict;

/// Where a future stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Pending,
    Cancelled,
    Finished,
}

/// The fields.
pub struct Fields {
    pub event_loop: Option<Obj>,
    /// The result of a finished future, or its exception if it `failed`.
    pub value: Option<Obj>,
    pub first: Option<Callback>,
    pub more: Option<Box<Vec<Callback>>>,
    pub rare: Option<Box<Rare>>,
    pub state: State,
    pub failed: bool,
    /// `_asyncio_future_blocking`: who yields this future to a task says by it that it waits.
    pub blocking: bool,
    /// Whether it matters to somebody that nobody has asked for the exception.
    pub log_traceback: bool,
    /// Whether, while it is pending, `value` is a future that this one shields; see [`shield`].
    shields: bool,
}

/// What few futures have.
#[derive(Default)]
pub struct Rare {
    /// The traceback that the exception came with.
    pub traceback: Option<Obj>,
    pub cancel_message: Option<Obj>,
    /// The exception by which a task was cancelled.
    pub cancelled_error: Option<Obj>,
    pub source_traceback: Option<Obj>,
    /// What a task is to raise in its next step.
    pub injected: Option<Obj>,
    /// Where a task was cancelled and has not ended yet, if such is looked for; see [`swallowed`](super::swallowed).
    pub cancellation: Option<Obj>,
}

impl Rare {
    fn objects(&self) -> [&Option<Obj>; 6] {
        [
            &self.traceback,
            &self.cancel_message,
            &self.cancelled_error,
            &self.source_traceback,
            &self.injected,
            &self.cancellation,
        ]
    }
}

impl Fields {
    fn new(event_loop: Option<Obj>) -> Self {
        Self {
            event_loop,
            value: None,
            first: None,
            more: None,
            rare: None,
            state: State::Pending,
            failed: false,
            blocking: false,
            log_traceback: false,
            shields: false,
        }
    }

    /// Shields `inner` from now on, if it is pending.
    pub fn shield(&mut self, inner: Obj) {
        (self.value, self.shields) = (Some(inner), true);
    }

    /// Shields no more; gives what it shielded.
    #[inline(always)]
    pub fn unshield(&mut self) -> Option<Obj> {
        if std::mem::take(&mut self.shields) { self.value.take() } else { None }
    }

    /// The place for what is rare.
    pub fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    fn take_callbacks(&mut self) -> (Option<Callback>, Option<Box<Vec<Callback>>>) {
        (self.first.take(), self.more.take())
    }

    /// Takes the first callback out.
    pub fn pop(&mut self) -> Option<Callback> {
        self.first.take().or_else(|| {
            let more = self.more.as_mut().filter(|more| !more.is_empty())?;
            Some(more.remove(0))
        })
    }

    /// Takes the callback out if it is the only one, and a task's.
    fn take_only_task(&mut self) -> Option<Obj> {
        let is_only = self.more.is_none() && !self.shields;
        match self.first.take_if(|first| is_only && matches!(first, Callback::Task(_))) {
            Some(Callback::Task(task)) => Some(task),
            _ => None,
        }
    }

    /// Adds a callback.
    pub fn push(&mut self, callback: Callback) {
        if self.first.is_none() && self.more.is_none() {
            self.first = Some(callback);
        } else {
            self.more.get_or_insert_default().push(callback);
        }
    }

    /// Takes some of the callbacks out.
    pub fn remove(&mut self, is_it: impl Fn(&Callback) -> bool) -> (Option<Callback>, Vec<Callback>) {
        let first = self.first.take_if(|callback| is_it(callback));
        let Some(more) = &mut self.more else { return (first, Vec::new()) };
        let (removed, kept) = std::mem::take(&mut **more).into_iter().partition(is_it);
        **more = kept;
        (first, removed)
    }

    /// The callbacks in the order in which they were added.
    pub fn callbacks(&self) -> impl Iterator<Item = &Callback> {
        self.first.iter().chain(self.more.iter().flat_map(|more| more.iter()))
    }
}

/// A result that will be there.
///
/// Stands in for `asyncio.Future`.
#[pyclass(frozen, subclass, weakref, dict, module = "juggler.asyncio", name = "Future")]
pub struct Future {
    pub(super) ready: Ready,
    pub(super) fields: Attached<Fields>,
}

impl Future {
    /// A pending future; without a loop it can't be used yet.
    #[inline(always)]
    pub fn new(event_loop: Option<Obj>) -> Self {
        Self { ready: Ready::new(), fields: Attached::new(Fields::new(event_loop)) }
    }

    /// Where it stands.
    #[inline(always)]
    pub fn state(&self, py: Python<'_>) -> State {
        self.fields.with(py, |fields| fields.state)
    }

    /// Whether it is cancelled or finished.
    #[inline(always)]
    pub fn is_done(&self, py: Python<'_>) -> bool {
        self.state(py) != State::Pending
    }

    /// Its loop.
    ///
    /// # Errors
    /// `RuntimeError` if `__init__` was not called.
    #[inline(always)]
    pub fn event_loop(&self, py: Python<'_>) -> Result<Obj, Raised> {
        match self.fields.with(py, |fields| fields.event_loop.as_ref().map(|event_loop| event_loop.clone_ref(py))) {
            Some(event_loop) => Ok(event_loop),
            None => Err(Raised::new::<PyRuntimeError>(py, "Future object is not initialized.")),
        }
    }

    /// Whether it belongs to `event_loop`.
    #[inline(always)]
    pub fn is_of(&self, py: Python<'_>, event_loop: &Obj) -> bool {
        self.fields.with(py, |fields| fields.event_loop.as_ref().map(Obj::as_ptr) == Some(event_loop.as_ptr()))
    }

    /// Begins anew, as `__init__` does.
    ///
    /// # Errors
    /// What finding the loop and asking it for `debug` raises.
    pub fn init(&self, py: Python<'_>, event_loop: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        let is_initialized = self.fields.with(py, |fields| fields.event_loop.is_some());
        if is_initialized && py.version_info() >= (3, 15) {
            return Err(PyRuntimeError::new_err("the object is already initialized"));
        }
        let event_loop = match event_loop {
            Some(event_loop) => event_loop,
            None => GET_EVENT_LOOP.get(py)?.call0()?,
        };
        let debug = event_loop.call_method0(intern!(py, "get_debug"))?.is_truthy()?;
        let stale = self.fields.with(py, |fields| std::mem::replace(fields, Fields::new(Some(event_loop.into()))));
        drop(stale);
        if debug {
            self.note_source(py)?;
        }
        Ok(())
    }

    /// Notes where the future is made, for reports.
    ///
    /// # Errors
    /// What walking the stack raises.
    #[cold]
    pub fn note_source(&self, py: Python<'_>) -> PyResult<()> {
        let stack = EXTRACT_STACK.get(py)?.call0()?.into();
        let stale = self.fields.with(py, |fields| fields.rare().source_traceback.replace(stack));
        drop(stale);
        Ok(())
    }

    /// Another reference to something rare.
    pub fn rare(&self, py: Python<'_>, which: impl FnOnce(&Rare) -> &Option<Obj>) -> Option<Obj> {
        self.fields.with(py, |fields| {
            let rare = fields.rare.as_ref()?;
            which(rare).as_ref().map(|object| object.clone_ref(py))
        })
    }

    /// What a collection sees.
    pub(super) fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        if !self.ready.is_ready() {
            return Ok(());
        }
        self.fields.traverse(|fields| {
            let rare = fields.rare.as_ref().map(|rare| rare.objects());
            let objects = [&fields.event_loop, &fields.value].into_iter().chain(rare.into_iter().flatten());
            objects.flatten().try_for_each(|object| object.visit(visit))?;
            fields.callbacks().try_for_each(|callback| callback.visit(visit))
        })
    }

    /// Lets go of what it holds.
    pub(super) fn clear(&self, py: Python<'_>) {
        let stale = self.fields.with(py, |fields| {
            fields.log_traceback = false;
            (fields.event_loop.take(), fields.value.take(), fields.take_callbacks(), fields.rare.take())
        });
        drop(stale);
    }
}

impl Native for Future {
    class_cells!(4096);

    #[inline(always)]
    fn must_report(this: This<'_, '_, Self>) -> bool {
        this.fields.with(this.py(), |fields| fields.log_traceback)
    }

    #[cold]
    fn report(this: This<'_, '_, Self>) {
        report_exception(this);
    }

    unsafe fn drop_own(_this: *mut ffi::PyObject) {}
}

/// Tells the loop's exception handler that nobody has asked for the exception.
#[cold]
pub fn report_exception(this: This<'_, '_, Future>) {
    let py = this.py();
    this.fields.with(py, |fields| fields.log_traceback = false);
    let name = this.as_any().get_type().name().map_or_else(|_| "Future".to_owned(), |name| name.to_string());
    let exception = this.fields.with(py, |fields| fields.value.as_ref().map(|value| value.clone_ref(py)));
    report(this, &format!("{name} exception was never retrieved"), "future", exception);
}

/// Tells the loop's exception handler of a future that is about to be freed.
#[cold]
pub fn report(this: This<'_, '_, Future>, message: &str, role: &str, exception: Option<Obj>) {
    let py = this.py();
    let told = this.event_loop(py).map_err(|raised| raised.fetch(py)).and_then(|event_loop| {
        let context = PyDict::new(py);
        context.set_item("message", message)?;
        if let Some(exception) = exception {
            context.set_item("exception", exception.into_bound(py))?;
        }
        context.set_item(role, this.as_any())?;
        if let Some(traceback) = this.rare(py, |rare| &rare.source_traceback) {
            context.set_item("source_traceback", traceback.into_bound(py))?;
        }
        event_loop.bind(py).call_method1(intern!(py, "call_exception_handler"), (context,))
    });
    if let Err(error) = told {
        error.write_unraisable(py, Some(this.as_any()));
    }
}

/// A new future of `event_loop`, as its `create_future` gives.
///
/// # Errors
/// `MemoryError`
#[inline]
pub fn create(py: Python<'_>, event_loop: &Obj) -> Result<Obj, Raised> {
    class::new_future(py, Future::new(Some(event_loop.clone_ref(py))))
}

/// Ends the future, and gives its callbacks a turn.
///
/// # Errors
/// What the loop's `call_soon` raises.
#[inline]
fn end(this: This<'_, '_, Future>, change: impl FnOnce(&mut Fields)) -> Result<(), Raised> {
    let py = this.py();
    let (shielded, (first, more)) = this.fields.with(py, |fields| {
        let shielded = fields.unshield();
        change(fields);
        (shielded, fields.take_callbacks())
    });
    if first.is_none() && more.is_none() && shielded.is_none() {
        return Ok(());
    }
    let event_loop = this.event_loop(py)?;
    let future = object_of(this);
    if let Some(object) = shielded {
        Callback::Native { object, run: shield::outer_done }.schedule(py, &event_loop, &future)?;
    }
    let more = more.map_or_else(Vec::new, |more| *more);
    first.into_iter().chain(more).try_for_each(|callback| callback.schedule(py, &event_loop, &future))
}

/// Finishes a future that is pending with a result.
///
/// # Errors
/// What the loop's `call_soon` raises.
#[inline]
pub fn finish(this: This<'_, '_, Future>, result: Obj) -> Result<(), Raised> {
    end(this, |fields| {
        fields.state = State::Finished;
        fields.value = Some(result);
    })
}

/// Finishes a pending future with a result, for the loop itself: in the turn of a descriptor, say. A task that alone waits for it
/// goes on within that turn instead of getting one of its own.
///
/// # Errors
/// As [`finish`]; `KeyboardInterrupt` and `SystemExit` of the task.
pub fn finish_in_turn(this: This<'_, '_, Future>, result: Obj) -> Result<(), Raised> {
    let py = this.py();
    let task = this.fields.with(py, Fields::take_only_task);
    finish(this, result)?;
    match task {
        Some(task) if event_loop::plain_loop(py, &this.event_loop(py)?).is_some() => task::take_turn(py, task),
        Some(task) => Callback::Task(task).schedule(py, &this.event_loop(py)?, &object_of(this)),
        None => Ok(()),
    }
}

/// Finishes a future that is pending with an exception.
///
/// # Errors
/// As [`finish`].
pub fn fail(this: This<'_, '_, Future>, error: Obj) -> Result<(), Raised> {
    // SAFETY: `error` is an exception; the result is owned or null.
    let traceback = unsafe { ffi::PyException_GetTraceback(error.as_ptr()) };
    // SAFETY: as above.
    let traceback = (!traceback.is_null()).then(|| unsafe { Obj::from_owned(traceback) });
    end(this, |fields| {
        fields.state = State::Finished;
        fields.failed = true;
        fields.value = Some(error);
        fields.log_traceback = true;
        if traceback.is_some() {
            fields.rare().traceback = traceback;
        }
    })
}

/// `Future.cancel`, whatever the class: `false` if it is done.
///
/// # Errors
/// As [`finish`].
pub fn cancel(this: This<'_, '_, Future>, message: Option<Obj>) -> Result<bool, Raised> {
    let py = this.py();
    let pending = this.fields.with(py, |fields| {
        fields.log_traceback = false;
        fields.state == State::Pending
    });
    if pending {
        end(this, |fields| {
            fields.state = State::Cancelled;
            if message.is_some() {
                fields.rare().cancel_message = message;
            }
        })?;
    }
    Ok(pending)
}

/// What `cancel` of a future of one of our own classes does.
///
/// # Errors
/// What it raises.
pub fn cancel_plain(this: This<'_, '_, Future>, message: Option<&Obj>) -> Result<bool, Raised> {
    let py = this.py();
    let object = object_of(this);
    if class::is_exactly::<Task>(&object) {
        return task::cancel(class::assume(py, &object), message);
    }
    if class::is_exactly::<Gathering>(&object) {
        return super::gather::cancel(class::assume(py, &object), message);
    }
    cancel(this, message.map(|message| message.clone_ref(py)))
}

/// Adds a callback; of a future that is done it gets its turn at once.
///
/// # Errors
/// What the loop's `call_soon` raises.
#[inline]
pub fn add_callback(this: This<'_, '_, Future>, callback: Callback) -> Result<(), Raised> {
    let py = this.py();
    let rejected = this.fields.with(py, |fields| {
        if fields.state == State::Pending {
            fields.push(callback);
            return None;
        }
        Some(callback)
    });
    match rejected {
        None => Ok(()),
        Some(callback) => callback.schedule(py, &this.event_loop(py)?, &object_of(this)),
    }
}

/// Removes the native callbacks of `object`.
pub fn remove_native(this: This<'_, '_, Future>, object: &Obj) {
    let is_it = |callback: &Callback| matches!(callback, Callback::Native { object: other, .. } if other.as_ptr() == object.as_ptr());
    let stale = this.fields.with(this.py(), |fields| fields.remove(is_it));
    drop(stale);
}

/// The exception of a cancelled future: the one that cancelled the task, once, or a new one with the message.
///
/// # Errors
/// What making it raises.
pub fn make_cancelled_error(this: This<'_, '_, Future>) -> PyResult<Obj> {
    let py = this.py();
    let (known, message) = this.fields.with(py, |fields| match &mut fields.rare {
        Some(rare) => (rare.cancelled_error.take(), rare.cancel_message.as_ref().map(|object| object.clone_ref(py))),
        None => (None, None),
    });
    if let Some(error) = known {
        return Ok(error);
    }
    let class = CANCELLED_ERROR.get(py)?;
    let error = match message {
        Some(message) => class.call1((message.bind(py),))?,
        None => class.call0()?,
    };
    Ok(error.into())
}

/// What came of a future.
pub enum Outcome {
    Pending,
    Cancelled,
    Failed(Obj),
    Result(Obj),
}

/// What came of the future; whoever asks has taken note of the exception.
#[inline]
pub fn outcome(this: This<'_, '_, Future>) -> Outcome {
    let py = this.py();
    this.fields.with(py, |fields| match fields.state {
        State::Pending => Outcome::Pending,
        State::Cancelled => Outcome::Cancelled,
        State::Finished => {
            fields.log_traceback = false;
            let value = match &fields.value {
                Some(value) => value.clone_ref(py),
                None => none(),
            };
            if fields.failed { Outcome::Failed(value) } else { Outcome::Result(value) }
        }
    })
}

/// `None`, owned.
#[inline(always)]
pub fn none() -> Obj {
    // SAFETY: an owned reference.
    unsafe { Obj::from_owned(crate::raw::none()) }
}

/// The result.
///
/// # Errors
/// `InvalidStateError` while it is pending, `CancelledError`, or the exception.
#[inline]
pub fn result(this: This<'_, '_, Future>) -> Result<Obj, Raised> {
    let py = this.py();
    match outcome(this) {
        Outcome::Result(result) => Ok(result),
        Outcome::Failed(error) => Err(raise(this, error)),
        Outcome::Cancelled => Err(raise_cancelled(this)),
        Outcome::Pending => Err(INVALID_STATE_ERROR.raise(py, ("Result is not set.",))),
    }
}

/// Raises the exception of a future, with the traceback that it came with.
#[cold]
fn raise(this: This<'_, '_, Future>, error: Obj) -> Raised {
    let py = this.py();
    let traceback = this.rare(py, |rare| &rare.traceback).unwrap_or_else(none);
    // SAFETY: `error` is an exception, the traceback is one or `None`; both are live.
    unsafe {
        if ffi::PyException_SetTraceback(error.as_ptr(), traceback.as_ptr()) == 0 {
            ffi::PyErr_SetObject(ffi::Py_TYPE(error.as_ptr()).cast(), error.as_ptr());
        }
    }
    Raised
}

/// Raises the exception of a cancelled future.
#[cold]
pub fn raise_cancelled(this: This<'_, '_, Future>) -> Raised {
    let py = this.py();
    match make_cancelled_error(this) {
        // SAFETY: a live exception.
        Ok(error) => unsafe {
            ffi::PyErr_SetObject(ffi::Py_TYPE(error.as_ptr()).cast(), error.as_ptr());
            Raised
        },
        Err(error) => Raised::from_err(py, error),
    }
}

/// The exception, or `None`.
///
/// # Errors
/// `InvalidStateError` while it is pending, `CancelledError`.
pub fn exception(this: This<'_, '_, Future>) -> Result<Option<Obj>, Raised> {
    match outcome(this) {
        Outcome::Result(_) => Ok(None),
        Outcome::Failed(error) => Ok(Some(error)),
        Outcome::Cancelled => Err(raise_cancelled(this)),
        Outcome::Pending => Err(INVALID_STATE_ERROR.raise(this.py(), ("Exception is not set.",))),
    }
}

/// What `set_exception` was given as the exception to set: an instance, or a class to make one of.
///
/// # Errors
/// `TypeError` for anything else.
pub fn exception_of(py: Python<'_>, given: &Bound<'_, PyAny>) -> PyResult<Obj> {
    // SAFETY: a live object.
    let error =
        if unsafe { ffi::PyExceptionClass_Check(given.as_ptr()) } != 0 { given.call0()? } else { given.clone() };
    // SAFETY: a live object.
    if unsafe { ffi::PyExceptionInstance_Check(error.as_ptr()) } == 0 {
        return Err(PyTypeError::new_err("invalid exception object"));
    }
    let message = "StopIteration interacts badly with generators and cannot be raised into a Future";
    if cfg!(not(Py_3_13)) && error.get_type().is(py.get_type::<PyStopIteration>()) {
        return Err(PyTypeError::new_err(message));
    }
    if error.is_instance_of::<PyStopIteration>() {
        let replacement = PyRuntimeError::new_err(message);
        replacement.set_cause(py, Some(PyErr::from_value(error.clone())));
        let replacement = replacement.into_value(py).into_bound(py).into_any();
        replacement.setattr("__context__", error)?;
        return Ok(replacement.into());
    }
    Ok(error.into())
}

/// Raises unless the future can be finished now.
///
/// # Errors
/// `InvalidStateError` if it is done, `RuntimeError` if `__init__` was not called.
#[inline(always)]
pub fn check_pending(this: This<'_, '_, Future>) -> Result<(), Raised> {
    let py = this.py();
    match this.fields.with(py, |fields| (fields.state, fields.event_loop.is_some())) {
        (State::Pending, true) => Ok(()),
        (_, false) => this.event_loop(py).map(drop),
        _ => Err(INVALID_STATE_ERROR.raise(py, ("invalid state",))),
    }
}

/// Finishes the future unless it is done.
///
/// # Errors
/// As [`finish`].
pub fn finish_if_pending(this: This<'_, '_, Future>, result: Obj) -> Result<(), Raised> {
    if this.is_done(this.py()) { Ok(()) } else { finish(this, result) }
}

/// Adds a program's function as a callback.
///
/// # Errors
/// As [`add_callback`].
pub fn add_function(this: This<'_, '_, Future>, function: Obj, context: *mut ffi::PyObject) -> Result<(), Raised> {
    let py = this.py();
    this.event_loop(py)?;
    let context = callback::context_or_current(py, context)?;
    add_callback(this, Callback::Python { function, context })
}

/// Removes all callbacks that equal `function`; how many there were.
///
/// # Errors
/// What comparing raises.
pub fn remove_function(this: This<'_, '_, Future>, function: &Obj) -> PyResult<usize> {
    let py = this.py();
    let functions: Vec<Obj> = this.fields.with(py, |fields| {
        let known = fields.callbacks().filter_map(|callback| match callback {
            Callback::Python { function, .. } => Some(function.clone_ref(py)),
            _ => None,
        });
        known.collect()
    });
    // Comparing runs the program's code, which may change the callbacks.
    let mut equal = Vec::new();
    for other in functions {
        if function.bind(py).eq(other.bind(py))? {
            equal.push(other);
        }
    }
    let is_it = |callback: &Callback| match callback {
        Callback::Python { function, .. } => equal.iter().any(|other| other.as_ptr() == function.as_ptr()),
        _ => false,
    };
    let (first, more) = this.fields.with(py, |fields| fields.remove(is_it));
    Ok(usize::from(first.is_some()) + more.len())
}
