//! A step of a task: its coroutine runs until it waits for something or ends.
#![allow(unsafe_code)]

use super::callback::{self, Callback, owned};
use super::class::as_plain;
use super::current;
use super::event_loop;
use super::future::{self, Outcome};
use super::registry;
use super::stdlib::{CANCELLED_ERROR, INVALID_STATE_ERROR};
use super::swallowed;
use super::task::{self, Task, as_future};
use crate::obj::Obj;
use crate::raw::{Raised, This};
use pyo3::exceptions::{PyKeyboardInterrupt, PyRuntimeError, PyStopIteration, PySystemExit};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyTuple;

/// A turn of the task: it goes on after the future for which it waits, if that is done, or just goes on.
///
/// # Errors
/// `KeyboardInterrupt` and `SystemExit` of the coroutine; `InvalidStateError` if the task is done; what the loop raises.
#[inline]
pub fn turn(this: This<'_, '_, Task>) -> Result<(), Raised> {
    let py = this.py();
    let waiter = this.own.with(py, |own| own.waiter.as_ref().map(|waiter| waiter.clone_ref(py)));
    match waiter {
        Some(waiter) => wake(this, &waiter),
        None => step(this),
    }
}

/// A step that follows the end of `awaited`.
///
/// # Errors
/// As [`turn`].
#[inline]
pub fn wake(this: This<'_, '_, Task>, awaited: &Obj) -> Result<(), Raised> {
    let py = this.py();
    let error = match as_plain(py, awaited) {
        Some(awaited) => match future::outcome(awaited) {
            Outcome::Result(_) => None,
            _ => Some(future::result(awaited)),
        },
        None => Some(outcome_of_other(py, awaited)),
    };
    match error {
        None | Some(Ok(_)) => advance(this, None),
        Some(Err(raised)) => advance(this, Some(taken(py, raised))),
    }
}

fn outcome_of_other(py: Python<'_>, awaited: &Obj) -> Result<Obj, Raised> {
    let result = awaited.bind(py).call_method0(intern!(py, "result"));
    result.map(Obj::from).map_err(|error| Raised::from_err(py, error))
}

/// The exception that is set, taken out of the thread's state.
#[cold]
fn taken(py: Python<'_>, raised: Raised) -> Obj {
    raised.fetch(py).into_value(py).into_bound(py).into_any().into()
}

/// A step that follows nothing, or a mistake of the last one.
///
/// # Errors
/// As [`turn`].
#[inline]
pub fn step(this: This<'_, '_, Task>) -> Result<(), Raised> {
    let injected = as_future(this).fields.with(this.py(), |fields| fields.rare.as_mut()?.injected.take());
    advance(this, injected)
}

/// A step in which the coroutine gets `error`, if there is one.
fn advance(this: This<'_, '_, Task>, error: Option<Obj>) -> Result<(), Raised> {
    let py = this.py();
    let future = as_future(this);
    if future.is_done(py) {
        return Err(already_done(this, error));
    }
    let (must_cancel, waiter) = this.own.with(py, |own| (std::mem::take(&mut own.must_cancel), own.waiter.take()));
    let error = if must_cancel { Some(cancellation(this, error)?) } else { error };
    drop(waiter);
    let event_loop = future.event_loop(py)?;
    let object = task::object(this);
    current::enter(py, &event_loop, &object)?;
    match run(this, &event_loop, error) {
        Ok(()) => current::leave(py, &event_loop, &object),
        Err(raised) => {
            let error = raised.fetch(py);
            current::leave(py, &event_loop, &object)?;
            Err(Raised::from_err(py, error))
        }
    }
}

#[cold]
fn already_done(this: This<'_, '_, Task>, error: Option<Obj>) -> Raised {
    let py = this.py();
    let error = error.unwrap_or_else(future::none);
    match (this.as_any().repr(), error.bind(py).repr()) {
        (Ok(task), Ok(error)) => INVALID_STATE_ERROR.raise(py, (format!("__step(): already done: {task}, {error}"),)),
        (Err(error), _) | (_, Err(error)) => Raised::from_err(py, error),
    }
}

/// The exception by which a task is cancelled: the one that it gets anyway, if it is of that kind.
#[cold]
fn cancellation(this: This<'_, '_, Task>, error: Option<Obj>) -> Result<Obj, Raised> {
    let py = this.py();
    let made = || {
        if let Some(error) = error
            && error.bind(py).is_instance(CANCELLED_ERROR.get(py)?)?
        {
            return Ok(error);
        }
        future::make_cancelled_error(as_future(this))
    };
    made().map_err(|error| Raised::from_err(py, error))
}

/// Runs the coroutine in the task's context.
///
/// # Errors
/// As [`turn`].
pub fn run_in_context(this: This<'_, '_, Task>, event_loop: &Obj, error: Option<Obj>) -> Result<(), Raised> {
    let context = context(this)?;
    // SAFETY: a context, as `Task.__init__` and `create_task` see to, or an error.
    if unsafe { ffi::PyContext_Enter(context.as_ptr()) } != 0 {
        return Err(Raised);
    }
    let ran = run(this, event_loop, error);
    // An exception that is on its way stays: leaving a context runs nothing.
    // SAFETY: as above.
    if unsafe { ffi::PyContext_Exit(context.as_ptr()) } != 0 {
        return Err(Raised);
    }
    ran
}

fn context(this: This<'_, '_, Task>) -> Result<Obj, Raised> {
    let py = this.py();
    let context = this.own.with(py, |own| own.context.as_ref().map(|context| context.clone_ref(py)));
    context.ok_or_else(|| uninitialized(py))
}

#[cold]
fn uninitialized(py: Python<'_>) -> Raised {
    Raised::new::<PyRuntimeError>(py, "uninitialized Task object")
}

/// Runs the coroutine and acts on what it yields, returns or raises.
#[inline]
fn run(this: This<'_, '_, Task>, event_loop: &Obj, error: Option<Obj>) -> Result<(), Raised> {
    let py = this.py();
    let Some(coroutine) = this.own.with(py, |own| own.coroutine.as_ref().map(|coroutine| coroutine.clone_ref(py)))
    else {
        return Err(uninitialized(py));
    };
    let mut result = std::ptr::null_mut();
    let sent = match error {
        // SAFETY: a live object that is a coroutine; `result` is where an owned reference goes.
        None => unsafe { ffi::PyIter_Send(coroutine.as_ptr(), ffi::Py_None(), &raw mut result) },
        Some(error) => {
            let cancels = this.own.with(py, |own| own.cancels);
            let sent = throw(py, &coroutine, &error, &mut result);
            if sent != ffi::PySendResult::PYGEN_ERROR && event_loop::ours(py, event_loop).is_some_and(|it| it.checks())
            {
                swallowed::survived(this, &error, cancels, sent == ffi::PySendResult::PYGEN_RETURN);
            }
            sent
        }
    };
    match sent {
        // SAFETY: the interpreter gave an owned reference.
        ffi::PySendResult::PYGEN_NEXT => yielded(this, event_loop, unsafe { Obj::from_owned(result) }),
        // SAFETY: as above.
        ffi::PySendResult::PYGEN_RETURN => returned(this, unsafe { Obj::from_owned(result) }),
        ffi::PySendResult::PYGEN_ERROR => raised(this),
    }
}

/// `coroutine.throw(error)`
#[cold]
fn throw(py: Python<'_>, coroutine: &Obj, error: &Obj, result: &mut *mut ffi::PyObject) -> ffi::PySendResult {
    match coroutine.bind(py).call_method1(intern!(py, "throw"), (error.bind(py),)) {
        Ok(value) => {
            *result = value.into_ptr();
            ffi::PySendResult::PYGEN_NEXT
        }
        Err(stop) if stop.is_instance_of::<PyStopIteration>(py) => match stop.value(py).getattr(intern!(py, "value")) {
            Ok(value) => {
                *result = value.into_ptr();
                ffi::PySendResult::PYGEN_RETURN
            }
            Err(error) => {
                error.restore(py);
                ffi::PySendResult::PYGEN_ERROR
            }
        },
        Err(error) => {
            error.restore(py);
            ffi::PySendResult::PYGEN_ERROR
        }
    }
}

/// The coroutine has ended.
#[inline]
fn returned(this: This<'_, '_, Task>, result: Obj) -> Result<(), Raised> {
    let py = this.py();
    let future = as_future(this);
    let (must_cancel, cancels) = this.own.with(py, |own| (std::mem::take(&mut own.must_cancel), own.cancels));
    if cancels > 0 {
        swallowed::returned(this);
    }
    if must_cancel {
        // It was cancelled just before its end.
        let message = future.rare(py, |rare| &rare.cancel_message);
        future::cancel(future, message)?;
    } else {
        future::finish(future, result)?;
    }
    unregister(this)
}

/// The coroutine has raised.
#[cold]
fn raised(this: This<'_, '_, Task>) -> Result<(), Raised> {
    let py = this.py();
    let future = as_future(this);
    let error = PyErr::fetch(py);
    let cancelled = CANCELLED_ERROR.get(py).map_err(|error| Raised::from_err(py, error))?;
    let is_cancelled = error.value(py).is_instance(cancelled).map_err(|error| Raised::from_err(py, error))?;
    let is_exit = error.is_instance_of::<PyKeyboardInterrupt>(py) || error.is_instance_of::<PySystemExit>(py);
    let value: Obj = error.into_value(py).into_bound(py).into_any().into();
    if is_cancelled {
        let stale = future.fields.with(py, |fields| fields.rare().cancelled_error.replace(value));
        drop(stale);
        future::cancel(future, None)?;
    } else {
        future::fail(future, value.clone_ref(py))?;
        if is_exit {
            unregister(this)?;
            return Err(Raised::from_err(py, PyErr::from_value(value.into_bound(py))));
        }
    }
    unregister(this)
}

/// Has the loop let go of the task.
#[inline]
fn unregister(this: This<'_, '_, Task>) -> Result<(), Raised> {
    let py = this.py();
    registry::discard(py, &as_future(this).event_loop(py)?, &task::object(this))
}

/// How a future stands to the task that was given it.
enum Yielded {
    Awaited,
    OfOtherLoop,
    NotAwaited,
    Itself,
}

/// The coroutine waits for what it has yielded.
#[inline]
fn yielded(this: This<'_, '_, Task>, event_loop: &Obj, result: Obj) -> Result<(), Raised> {
    let py = this.py();
    if let Some(awaited) = as_plain(py, &result) {
        let itself = result.as_ptr() == this.as_any().as_ptr();
        let found = awaited.fields.with(py, |fields| {
            if fields.event_loop.as_ref().map(Obj::as_ptr) != Some(event_loop.as_ptr()) {
                Yielded::OfOtherLoop
            } else if !fields.blocking {
                Yielded::NotAwaited
            } else if itself {
                Yielded::Itself
            } else {
                fields.blocking = false;
                Yielded::Awaited
            }
        });
        return match found {
            Yielded::Awaited => {
                future::add_callback(awaited, Callback::Task(task::object(this)))?;
                wait(this, result)
            }
            mistake => complain(this, event_loop, &mistake, &result),
        };
    }
    // SAFETY: always there.
    if result.as_ptr() == unsafe { ffi::Py_None() } {
        return task::schedule(py, event_loop, &task::object(this));
    }
    yielded_other(this, event_loop, result)
}

/// Notes what the task waits for, and cancels that if the task is to be.
#[inline]
fn wait(this: This<'_, '_, Task>, awaited: Obj) -> Result<(), Raised> {
    let py = this.py();
    let (must_cancel, stale) = this.own.with(py, |own| {
        let noted = awaited.clone_ref(py);
        (own.must_cancel, own.waiter.replace(noted))
    });
    drop(stale);
    if must_cancel {
        let message = as_future(this).rare(py, |rare| &rare.cancel_message);
        if callback::cancel(py, &awaited, message.as_ref())? {
            this.own.with(py, |own| own.must_cancel = false);
        }
    }
    Ok(())
}

/// The coroutine has yielded something that is not a future of one of our own classes.
fn yielded_other(this: This<'_, '_, Task>, event_loop: &Obj, result: Obj) -> Result<(), Raised> {
    let py = this.py();
    let awaited = result.bind(py);
    let found = judge_other(this, event_loop, &awaited).map_err(|error| Raised::from_err(py, error))?;
    match found {
        Some(Yielded::Awaited) => {
            subscribe_other(this, &awaited).map_err(|error| Raised::from_err(py, error))?;
            wait(this, result)
        }
        Some(mistake) => complain(this, event_loop, &mistake, &result),
        // SAFETY: a live object.
        None if unsafe { ffi::PyGen_CheckExact(result.as_ptr()) } != 0 => inject(this, event_loop, |task| {
            let generator = awaited.repr()?;
            Ok(format!("yield was used instead of yield from for generator in task {task} with {generator}"))
        }),
        None => inject(this, event_loop, |_| Ok(format!("Task got bad yield: {}", awaited.repr()?))),
    }
}

/// `None` if it is no future at all.
fn judge_other(this: This<'_, '_, Task>, event_loop: &Obj, awaited: &Bound<'_, PyAny>) -> PyResult<Option<Yielded>> {
    let py = this.py();
    let blocking = match awaited.getattr_opt(intern!(py, "_asyncio_future_blocking"))? {
        Some(blocking) if !blocking.is_none() => blocking,
        _ => return Ok(None),
    };
    let its_loop = match awaited.getattr_opt(intern!(py, "get_loop"))? {
        Some(get_loop) => get_loop.call0()?,
        None => awaited.getattr(intern!(py, "_loop"))?,
    };
    Ok(Some(if !its_loop.is(&*event_loop.bind(py)) {
        Yielded::OfOtherLoop
    } else if !blocking.is_truthy()? {
        Yielded::NotAwaited
    } else if awaited.is(this.as_any()) {
        Yielded::Itself
    } else {
        Yielded::Awaited
    }))
}

/// Has the task woken by a future of another class.
fn subscribe_other(this: This<'_, '_, Task>, awaited: &Bound<'_, PyAny>) -> PyResult<()> {
    static NAMES: PyOnceLock<Py<PyTuple>> = PyOnceLock::new();
    let py = this.py();
    awaited.setattr(intern!(py, "_asyncio_future_blocking"), false)?;
    let context = context(this).map_err(|raised| raised.fetch(py))?;
    let wakeup = task::wakeup(py, task::object(this))?;
    let names = NAMES.get_or_try_init(py, || PyTuple::new(py, ["context"]).map(Bound::unbind))?;
    let values = [awaited.as_ptr(), wakeup.as_ptr(), context.as_ptr()];
    // SAFETY: two positional values, one with a name; all are live.
    let added = unsafe {
        let name = intern!(py, "add_done_callback").as_ptr();
        ffi::PyObject_VectorcallMethod(name, values.as_ptr(), 2, names.as_ptr())
    };
    owned(added).map(drop).map_err(|raised| raised.fetch(py))
}

#[cold]
fn complain(this: This<'_, '_, Task>, event_loop: &Obj, mistake: &Yielded, result: &Obj) -> Result<(), Raised> {
    let result = result.bind(this.py());
    inject(this, event_loop, |task| {
        Ok(match mistake {
            Yielded::OfOtherLoop => format!("Task {task} got Future {} attached to a different loop", result.repr()?),
            Yielded::Itself => format!("Task cannot await on itself: {task}"),
            Yielded::NotAwaited | Yielded::Awaited => {
                format!("yield was used instead of yield from in task {task} with {}", result.repr()?)
            }
        })
    })
}

/// Has the coroutine get a `RuntimeError` in its next step.
#[cold]
fn inject(
    this: This<'_, '_, Task>,
    event_loop: &Obj,
    message: impl FnOnce(String) -> PyResult<String>,
) -> Result<(), Raised> {
    let py = this.py();
    let made = this.as_any().repr().and_then(|task| message(task.to_string()));
    let message = made.map_err(|error| Raised::from_err(py, error))?;
    let error: Obj = PyRuntimeError::new_err(message).into_value(py).into_bound(py).into_any().into();
    let stale = as_future(this).fields.with(py, |fields| fields.rare().injected.replace(error));
    drop(stale);
    task::schedule(py, event_loop, &task::object(this))
}

/// A turn of the task in a loop of ours, which enters no context by itself.
///
/// # Errors
/// As [`turn`].
#[inline]
pub fn turn_in_context(this: This<'_, '_, Task>) -> Result<(), Raised> {
    let context = context(this)?;
    // SAFETY: a context, as `Task.__init__` and `create_task` see to, or an error.
    if unsafe { ffi::PyContext_Enter(context.as_ptr()) } != 0 {
        return Err(Raised);
    }
    let ran = turn(this);
    // SAFETY: as above.
    if unsafe { ffi::PyContext_Exit(context.as_ptr()) } != 0 {
        return Err(Raised);
    }
    ran
}
