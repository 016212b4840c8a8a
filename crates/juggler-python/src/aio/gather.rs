//! `asyncio.gather`: one future for many.
//!
//! Each of those that are gathered has a callback that counts; the last one collects the results. They get their turns as
//! any callback does, so that nothing happens earlier or later than with the standard library's `gather`.
#![allow(unsafe_code)]

use super::any_future::{self, cancel_message, make_cancelled_error};
use super::callback::{self, owned};
use super::class::{self, Native, class_cells, drop_value};
use super::current;
use super::future::{self, Future, Outcome};
use super::stdlib::{CANCELLED_ERROR, GET_EVENT_LOOP};
use super::task::Task;
use crate::attached::Attached;
use crate::gc::Ready;
use crate::obj::Obj;
use crate::raw::{self, Args, Raised, RawResult, This, methods};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::{PySet, PyTuple};

/// The future of all that are gathered.
#[pyclass(frozen, extends = Future, module = "juggler.asyncio", name = "_GatheringFuture")]
pub struct Gathering {
    ready: Ready,
    own: Attached<GatherFields>,
}

struct GatherFields {
    children: Vec<Obj>,
    /// The task that asked for it.
    asker: Option<Obj>,
    /// How many different ones are not done yet.
    left: usize,
    return_exceptions: bool,
    cancel_requested: bool,
}

impl Native for Gathering {
    class_cells!(64);

    #[inline(always)]
    fn must_report(this: This<'_, '_, Self>) -> bool {
        Future::must_report(as_future(this))
    }

    #[cold]
    fn report(this: This<'_, '_, Self>) {
        Future::report(as_future(this));
    }

    unsafe fn drop_own(this: *mut ffi::PyObject) {
        // SAFETY: the caller's promise.
        unsafe { drop_value::<Self>(this) }
    }
}

fn as_future<'a, 'py>(this: This<'a, 'py, Gathering>) -> This<'a, 'py, Future> {
    // SAFETY: it begins with a future, and lives as long.
    unsafe { This::new(this.py(), this.as_any().as_ptr()) }
}

impl Gathering {
    fn children(&self, py: Python<'_>) -> Vec<Obj> {
        self.own.with(py, |own| own.children.iter().map(|child| child.clone_ref(py)).collect())
    }
}

/// The task that waits for those that `object`, a gathering, gathers; `None` once it is done.
pub fn asker(py: Python<'_>, object: &Obj) -> Option<Obj> {
    if !class::is_exactly::<Gathering>(object) {
        return None;
    }
    let this = class::assume::<Gathering>(py, object);
    if as_future(this).is_done(py) {
        return None;
    }
    this.own.with(py, |own| own.asker.as_ref().map(|task| task.clone_ref(py)))
}

/// Cancels all that are gathered; whether one of them could be.
///
/// # Errors
/// What cancelling one raises.
pub fn cancel(this: This<'_, '_, Gathering>, message: Option<&Obj>) -> Result<bool, Raised> {
    let py = this.py();
    if as_future(this).is_done(py) {
        return Ok(false);
    }
    let mut any = false;
    for child in &this.children(py) {
        any |= callback::cancel(py, child, message)?;
    }
    if any {
        // The request is passed on whatever becomes of the children, `return_exceptions` or not.
        this.own.with(py, |own| own.cancel_requested = true);
    }
    Ok(any)
}

#[pymethods]
impl Gathering {
    #[getter(__class__)]
    fn class<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        static CLASS: super::stdlib::Import = super::stdlib::Import::new("asyncio.tasks", "_GatheringFuture");
        Ok(CLASS.get(slf.py())?.clone())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if !self.ready.is_ready() {
            return Ok(());
        }
        self.own.traverse(|own| own.children.iter().chain(&own.asker).try_for_each(|object| object.visit(&visit)))
    }

    fn __clear__(&self, py: Python<'_>) {
        let stale = self.own.with(py, |own| (std::mem::take(&mut own.children), own.asker.take()));
        drop(stale);
    }
}

/// Wait for all of `aws` at once, by one future; as `asyncio.gather`.
///
/// Coroutines become tasks. The result is the list of results, in the order of the arguments. The first exception is the
/// future's, while the others go on; with `return_exceptions`, exceptions are results. Cancelling the future cancels all
/// that are not done.
///
/// Args:
///     aws: futures, tasks, coroutines and other awaitables, of one loop.
///     return_exceptions: whether an exception is a result like others.
#[pyfunction]
#[pyo3(signature = (*aws, return_exceptions=None), text_signature = "(*aws, return_exceptions=False)")]
pub fn gather<'py>(
    aws: &Bound<'py, PyTuple>,
    return_exceptions: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = aws.py();
    let return_exceptions = return_exceptions.map_or(Ok(false), |given| given.is_truthy())?;
    if aws.is_empty() {
        let event_loop = GET_EVENT_LOOP.get(py)?.call0()?;
        let outer = event_loop.call_method0(intern!(py, "create_future"))?;
        outer.call_method1(intern!(py, "set_result"), (pyo3::types::PyList::empty(py),))?;
        return Ok(outer);
    }
    let gathered = gather_all(aws, return_exceptions);
    gathered.map(|outer| outer.into_bound(py)).map_err(|raised| raised.fetch(py))
}

fn gather_all(aws: &Bound<'_, PyTuple>, return_exceptions: bool) -> Result<Obj, Raised> {
    let py = aws.py();
    let mut event_loop = current::running_loop(py)?;
    let asker = if event_loop.is_some() { current::task(py)? } else { None };
    let seen = PySet::empty(py).map_err(|error| Raised::from_err(py, error))?;
    let mut children: Vec<Obj> = Vec::with_capacity(aws.len());
    let mut distinct: Vec<usize> = Vec::with_capacity(aws.len());
    for (at, awaitable) in aws.iter().enumerate() {
        seen.add(&awaitable).map_err(|error| Raised::from_err(py, error))?;
        if seen.len() == distinct.len() {
            let known = first_equal(aws, &awaitable).map_err(|error| Raised::from_err(py, error))?;
            children.push(children[known].clone_ref(py));
            continue;
        }
        distinct.push(at);
        let awaitable = Obj::from(awaitable);
        let child = any_future::ensure(py, &awaitable, event_loop.as_ref())?;
        if event_loop.is_none() {
            event_loop = Some(any_future::loop_of(py, &child)?);
        }
        if child.as_ptr() != awaitable.as_ptr() {
            // Nobody else has this task: it need not be reported when it is destroyed with the rest.
            disown(py, &child)?;
        }
        children.push(child);
    }
    let own = GatherFields {
        left: distinct.len(),
        children: children.iter().map(|child| child.clone_ref(py)).collect(),
        asker,
        return_exceptions,
        cancel_requested: false,
    };
    let gathering = Gathering { ready: Ready::new(), own: Attached::new(own) };
    let outer = class::new_heir(py, Future::new(event_loop), gathering)?;
    let mut done = Vec::new();
    for &at in &distinct {
        let child = &children[at];
        if any_future::is_done(py, child)? {
            done.push(child);
        } else {
            any_future::subscribe(py, child, &outer, child_done)?;
        }
    }
    done.into_iter().try_for_each(|child| child_done(py, &outer, child))?;
    Ok(outer)
}

/// Where the first of `aws` is that equals `awaitable`.
#[cold]
fn first_equal(aws: &Bound<'_, PyTuple>, awaitable: &Bound<'_, PyAny>) -> PyResult<usize> {
    for (at, other) in aws.iter().enumerate() {
        if other.is(awaitable) || other.eq(awaitable)? {
            return Ok(at);
        }
    }
    unreachable!("a set held an equal one")
}

fn disown(py: Python<'_>, task: &Obj) -> Result<(), Raised> {
    if class::is_exactly::<Task>(task) {
        class::assume::<Task>(py, task).own.with(py, |own| own.report_pending = false);
        return Ok(());
    }
    let set = task.bind(py).setattr(intern!(py, "_log_destroy_pending"), false);
    set.map_err(|error| Raised::from_err(py, error))
}

/// One of those that are gathered is done.
fn child_done(py: Python<'_>, outer: &Obj, child: &Obj) -> Result<(), Raised> {
    let this = class::assume::<Gathering>(py, outer);
    let (left, return_exceptions) = this.own.with(py, |own| {
        own.left -= 1;
        (own.left, own.return_exceptions)
    });
    // Asking for it takes note of an exception that comes too late.
    let outcome = any_future::outcome(py, child)?;
    let outer = as_future(this);
    if outer.is_done(py) {
        return Ok(());
    }
    if !return_exceptions {
        match outcome {
            Outcome::Cancelled => return fail(outer, make_cancelled_error(py, child)),
            Outcome::Failed(error) => return fail(outer, Ok(error)),
            Outcome::Result(_) | Outcome::Pending => {}
        }
    }
    if left > 0 {
        return Ok(());
    }
    if this.own.with(py, |own| own.cancel_requested) {
        return fail(outer, make_cancelled_error(py, child));
    }
    future::finish(outer, results(this)?)
}

fn fail(outer: This<'_, '_, Future>, error: PyResult<Obj>) -> Result<(), Raised> {
    let py = outer.py();
    let error = error.and_then(|error| future::exception_of(py, &error.bind(py)));
    future::fail(outer, error.map_err(|error| Raised::from_err(py, error))?)
}

/// The list of results.
fn results(this: This<'_, '_, Gathering>) -> Result<Obj, Raised> {
    let py = this.py();
    let children = this.children(py);
    // SAFETY: the thread is attached.
    let list = owned(unsafe { ffi::PyList_New(children.len() as ffi::Py_ssize_t) })?;
    for (at, child) in children.iter().enumerate() {
        let result = match any_future::outcome(py, child)? {
            Outcome::Result(object) | Outcome::Failed(object) => object,
            Outcome::Cancelled | Outcome::Pending => {
                cancelled(py, child).map_err(|error| Raised::from_err(py, error))?
            }
        };
        // SAFETY: the list is new and long enough; it takes the reference over.
        unsafe { ffi::PyList_SET_ITEM(list.as_ptr(), at as ffi::Py_ssize_t, result.into_ptr()) };
    }
    Ok(list)
}

/// The exception that stands for a cancelled child among the results; making it twice does no harm.
fn cancelled(py: Python<'_>, child: &Obj) -> PyResult<Obj> {
    let class = CANCELLED_ERROR.get(py)?;
    let error = match cancel_message(py, child)? {
        Some(message) => class.call1((message.bind(py),))?,
        None => class.call1(("",))?,
    };
    Ok(error.into())
}

fn py_cancel(this: This<'_, '_, Gathering>, args: Args<'_>) -> RawResult {
    let message = super::future_methods::cancel_message_of(this.py(), args)?;
    cancel(this, message.as_ref()).map(raw::bool)
}

fn set_result(this: This<'_, '_, Gathering>, args: Args<'_>) -> RawResult {
    super::future_methods::set_result(as_future(this), args)
}

fn set_exception(this: This<'_, '_, Gathering>, args: Args<'_>) -> RawResult {
    super::future_methods::set_exception(as_future(this), args)
}

methods! { add_methods for Gathering {
    "cancel" => keywords py_cancel, "($self, /, msg=None)\n--\n\nCancel all that are gathered and not done.";
    "set_result" => keywords set_result, "($self, result, /)\n--\n\nEnd the future with a result.";
    "set_exception" => keywords set_exception, "($self, exception, /)\n--\n\nEnd the future with an exception.";
} }

/// Adds what PyO3 does not to the class.
pub fn finish_class(py: Python<'_>) -> PyResult<()> {
    add_methods(py)
}
