//! `concurrent.futures.Future`.
#![allow(unsafe_code)]

use super::exposed::{self, Exposure};
use super::stdlib::{self, CANCELLED_ERROR, INVALID_STATE_ERROR};
use super::tracing;
use crate::gate::PyGate;
use crate::gc::Ready;
use crate::ipc::pool::Pool;
use crate::obj::Obj;
use crate::raw::{self, Args, Raised, RawResult, This, methods};
use crate::timeout;
use crate::trace;
use juggler_sync::Deadline;
use juggler_sync::future::{self, Started, State, WrongState};
use juggler_sync::guarded::Guarded;
use juggler_sync::sync::Arc;
use pyo3::exceptions::{PyException, PyRuntimeError, PyTimeoutError, PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::{PyDict, PyList, PyString, PyTuple};

/// What came of a future.
pub enum Outcome {
    /// A result.
    Result(Obj),
    /// What was raised, not None.
    Error(Obj),
}

impl Outcome {
    #[inline(always)]
    fn object(&self) -> &Obj {
        match self {
            Self::Result(object) | Self::Error(object) => object,
        }
    }

    /// Another reference to the same.
    pub fn clone_ref(&self, py: Python<'_>) -> Self {
        match self {
            Self::Result(object) => Self::Result(object.clone_ref(py)),
            Self::Error(object) => Self::Error(object.clone_ref(py)),
        }
    }
}

/// The result of a call that may still be running.
///
/// Stands in for `concurrent.futures.Future`, and its subclass `juggler.futures.Future` is one.
#[pyclass(frozen, weakref, dict, subclass, module = "concurrent.futures")]
pub struct Future {
    ready: Ready,
    pub engine: future::Future<Outcome, Obj>,
    /// Set once the program has asked for the condition or the waiters.
    pub exposure: Guarded<Option<Box<Exposure>>>,
    /// Where the call is made, if its result must be fetched by those who wait for it.
    pub source: Option<Source>,
}

/// A call in a process pool. Its result lies in shared memory until somebody collects it: whoever waits for the future,
/// asks how it stands, or has set the collector to it.
pub struct Source {
    pub pool: Arc<Pool>,
    pub id: u64,
    pub priority: i32,
}

impl Future {
    /// A pending future.
    #[inline(always)]
    pub fn new() -> Self {
        Self::from_source(None)
    }

    /// A pending future of a call that is made elsewhere.
    #[inline(always)]
    pub fn from_source(source: Option<Source>) -> Self {
        let (engine, exposure) = (future::Future::new(State::Pending), Guarded::new(None));
        Self { ready: Ready::new(), engine, exposure, source }
    }

    /// Has the result collected as soon as it is there: somebody is to be told who does not ask.
    ///
    /// # Errors
    /// What starting a thread raises.
    #[inline]
    pub fn collect_eagerly(&self, py: Python<'_>) -> Result<(), Raised> {
        match &self.source {
            Some(source) if !self.engine.state().is_done() => source.pool.collect_eagerly(py, true),
            _ => Ok(()),
        }
    }

    /// What came of it, if it is finished.
    pub fn outcome(&self, py: Python<'_>) -> Option<Outcome> {
        if self.engine.state() != State::Finished {
            return None;
        }
        Some(self.held(py).unwrap_or_else(|| Outcome::Result(none(py))))
    }

    /// The value that it holds, whatever its state.
    fn held(&self, py: Python<'_>) -> Option<Outcome> {
        let value = self.engine.value().map(|outcome| outcome.clone_ref(py));
        value.or_else(|| self.engine.with_forced(|value| value.map(|outcome| outcome.clone_ref(py))).flatten())
    }

    /// Whether it is finished with an exception.
    pub fn has_failed(&self, py: Python<'_>) -> bool {
        matches!(self.outcome(py), Some(Outcome::Error(_)))
    }
}

fn none(py: Python<'_>) -> Obj {
    py.None().into_bound(py).into()
}

const STATES: [(State, &str, &str); 5] = [
    (State::Pending, "PENDING", "pending"),
    (State::Running, "RUNNING", "running"),
    (State::Cancelled, "CANCELLED", "cancelled"),
    (State::CancelledAndNotified, "CANCELLED_AND_NOTIFIED", "cancelled"),
    (State::Finished, "FINISHED", "finished"),
];

fn name_of<'py>(py: Python<'py>, state: State) -> &'py Bound<'py, PyString> {
    match state {
        State::Pending => intern!(py, "PENDING"),
        State::Running => intern!(py, "RUNNING"),
        State::Cancelled => intern!(py, "CANCELLED"),
        State::CancelledAndNotified => intern!(py, "CANCELLED_AND_NOTIFIED"),
        State::Finished => intern!(py, "FINISHED"),
    }
}

#[pymethods]
impl Future {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs), text_signature = "()")]
    fn py_new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self::new()
    }

    #[expect(
        clippy::unused_self,
        reason = "`Future(x)` must be a TypeError though `__new__` lets subclasses take arguments"
    )]
    fn __init__(&self) {}

    #[getter(_state)]
    fn state<'py>(slf: &Bound<'py, Self>) -> PyResult<&'py Bound<'py, PyString>> {
        let py = slf.py();
        refresh_bound(slf)?;
        Ok(name_of(py, slf.get().engine.state()))
    }

    #[setter(_state)]
    fn set_state(&self, py: Python<'_>, state: &str) -> PyResult<()> {
        let Some(&(state, ..)) = STATES.iter().find(|(_, name, _)| *name == state) else {
            return Err(PyValueError::new_err(format!("a future has no state {state:?}")));
        };
        let held = self.held(py);
        drop(self.engine.change().force(state, held));
        Ok(())
    }

    #[getter(_result)]
    fn peek_result(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        match self.held(py) {
            Some(Outcome::Result(result)) => Some(result.into_bound(py).unbind()),
            _ => None,
        }
    }

    #[setter(_result)]
    fn poke_result(&self, py: Python<'_>, result: Bound<'_, PyAny>) {
        let outcome = match self.held(py) {
            // An exception counts more than a result, as `result()` reads them.
            Some(error @ Outcome::Error(_)) => error,
            _ => Outcome::Result(result.into()),
        };
        self.force(outcome);
    }

    #[getter(_exception)]
    fn peek_exception(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        match self.held(py) {
            Some(Outcome::Error(error)) => Some(error.into_bound(py).unbind()),
            _ => None,
        }
    }

    #[setter(_exception)]
    fn poke_exception(&self, py: Python<'_>, error: Bound<'_, PyAny>) {
        let outcome = match self.held(py) {
            Some(result @ Outcome::Result(_)) if error.is_none() => result,
            _ if error.is_none() => Outcome::Result(none(py)),
            _ => Outcome::Error(error.into()),
        };
        self.force(outcome);
    }

    #[getter(_condition)]
    fn condition<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(Exposure::of(py, self)?.condition.into_bound(py))
    }

    #[setter(_condition)]
    fn set_condition(&self, py: Python<'_>, condition: Bound<'_, PyAny>) -> PyResult<()> {
        let Exposure { waiters, .. } = Exposure::of(py, self)?;
        self.replace_exposure(Exposure { condition: condition.into(), waiters });
        Ok(())
    }

    #[getter(_waiters)]
    fn waiters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(Exposure::of(py, self)?.waiters.into_bound(py))
    }

    #[setter(_waiters)]
    fn set_waiters(&self, py: Python<'_>, waiters: Bound<'_, PyAny>) -> PyResult<()> {
        let Exposure { condition, .. } = Exposure::of(py, self)?;
        self.replace_exposure(Exposure { condition, waiters: waiters.into() });
        Ok(())
    }

    /// A copy: changing the list changes nothing, setting the attribute does.
    #[getter(_done_callbacks)]
    fn done_callbacks<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let callbacks: Vec<Obj> = self.engine.change().callbacks().iter().map(|fun| fun.clone_ref(py)).collect();
        PyList::new(py, callbacks.into_iter().map(|fun| fun.into_bound(py)))
    }

    #[setter(_done_callbacks)]
    fn set_done_callbacks(&self, callbacks: Vec<Bound<'_, PyAny>>) {
        let callbacks = callbacks.into_iter().map(Obj::from).collect();
        let stale = std::mem::replace(self.engine.change().callbacks(), callbacks);
        drop(stale);
    }

    fn _get_snapshot<'py>(
        &self,
        py: Python<'py>,
    ) -> (bool, bool, Option<Bound<'py, PyAny>>, Option<Bound<'py, PyAny>>) {
        let state = self.engine.state();
        match self.outcome(py) {
            Some(Outcome::Result(result)) => (true, false, Some(result.into_bound(py)), None),
            Some(Outcome::Error(error)) => (true, false, None, Some(error.into_bound(py))),
            None => (state.is_done(), state.is_done(), None, None),
        }
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let (py, future) = (slf.py(), slf.get());
        refresh_bound(slf)?;
        let class = slf.get_type().name()?;
        let state = future.engine.state();
        let (_, _, description) = STATES[state as usize];
        let ending = match future.outcome(py) {
            Some(Outcome::Error(error)) => format!(" raised {}", error.bind(py).get_type().name()?),
            Some(Outcome::Result(result)) => format!(" returned {}", result.bind(py).get_type().name()?),
            None => String::new(),
        };
        Ok(format!("<{class} at {:#x} state={description}{ending}>", slf.as_ptr() as usize))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if !self.ready.is_ready() {
            return Ok(());
        }
        self.engine.visit(|outcome| outcome.object().visit(&visit), |callback| callback.visit(&visit))?;
        match self.exposure.try_lock().as_deref() {
            Some(Some(exposure)) => {
                exposure.condition.visit(&visit)?;
                exposure.waiters.visit(&visit)
            }
            _ => Ok(()),
        }
    }

    fn __clear__(&self) {
        // SAFETY: the collector clears what only garbage refers to.
        let held = unsafe { self.engine.clear() };
        let exposure = self.exposure.lock().take();
        drop((held, exposure));
    }
}

impl Future {
    fn force(&self, outcome: Outcome) {
        let change = self.engine.change();
        let state = change.state();
        drop(change.force(state, Some(outcome)));
    }

    fn replace_exposure(&self, exposure: Exposure) {
        let stale = self.exposure.lock().replace(Box::new(exposure));
        drop(stale);
    }
}

/// Makes the future running: `true`, or settles it if it was cancelled: `false`.
///
/// # Errors
/// `RuntimeError` if it is in another state.
#[inline]
pub fn start(this: This<'_, '_, Future>) -> Result<bool, Raised> {
    let change = this.engine.change();
    if change.is_exposed() {
        drop(change);
        return exposed::start(this);
    }
    match change.start() {
        Ok(started) => Ok(started == Started::Run),
        Err(WrongState(state)) => Err(unexpected_state(this, state)),
    }
}

/// Finishes the future with `outcome` and runs its callbacks.
///
/// # Errors
/// `InvalidStateError` if it is done; what a callback raised that is no `Exception`.
#[inline]
pub fn finish(this: This<'_, '_, Future>, outcome: Outcome) -> Result<(), Raised> {
    let change = this.engine.change();
    let callbacks = if change.is_exposed() {
        drop(change);
        exposed::finish(this, outcome)?
    } else {
        match change.finish(outcome) {
            Ok(callbacks) => callbacks,
            Err((WrongState(state), _)) => return Err(invalid_state(this, state)),
        }
    };
    if callbacks.is_empty() { Ok(()) } else { run_callbacks(this, callbacks) }
}

/// Cancels the future, unless it runs or is finished, and runs its callbacks; whether it is cancelled.
///
/// # Errors
/// What a callback raised that is no `Exception`.
pub fn cancel(this: This<'_, '_, Future>) -> Result<bool, Raised> {
    let change = this.engine.change();
    let callbacks = if change.is_exposed() {
        drop(change);
        exposed::cancel(this)?
    } else {
        change.cancel().ok()
    };
    match callbacks {
        Some(callbacks) => run_callbacks(this, callbacks).map(|()| true),
        None => Ok(false),
    }
}

/// Cancels the future, also if it runs, and runs its callbacks.
///
/// # Errors
/// What a callback raised that is no `Exception`.
pub fn cancel_begun(this: This<'_, '_, Future>) -> Result<(), Raised> {
    if this.engine.state() == State::Running {
        this.engine.change().reconsider();
    }
    cancel(this).map(drop)
}

#[cold]
pub fn invalid_state(this: This<'_, '_, Future>, state: State) -> Raised {
    let py = this.py();
    match this.as_any().repr() {
        Ok(repr) => INVALID_STATE_ERROR.raise(py, (format!("{}: {repr}", name_of(py, state)),)),
        Err(error) => Raised::from_err(py, error),
    }
}

#[cold]
pub fn unexpected_state(this: This<'_, '_, Future>, state: State) -> Raised {
    let py = this.py();
    let id = (this.as_any().as_ptr() as usize).into_pyobject(py);
    let Ok(id) = id;
    let args = [id.as_any(), name_of(py, state).as_any()];
    match stdlib::log(py, "critical", "Future %s in unexpected state: %s", &args, None) {
        Ok(()) => Raised::new::<PyRuntimeError>(py, "Future in unexpected state"),
        Err(error) => Raised::from_err(py, error),
    }
}

fn run_callbacks(this: This<'_, '_, Future>, callbacks: Vec<Obj>) -> Result<(), Raised> {
    callbacks.into_iter().try_for_each(|callback| run_callback(this, &callback))
}

fn run_callback(this: This<'_, '_, Future>, callback: &Obj) -> Result<(), Raised> {
    let py = this.py();
    let Err(error) = callback.bind(py).call1((this.as_any(),)) else { return Ok(()) };
    if !error.is_instance_of::<PyException>(py) {
        return Err(Raised::from_err(py, error));
    }
    stdlib::log(py, "exception", "exception calling callback for %r", &[this.as_any()], Some(&error))
        .map_err(|error| Raised::from_err(py, error))
}

/// Raises `error`, as `raise error` does: with the traceback that it has, in the context of what is being handled.
#[cold]
fn raise(py: Python<'_>, error: &Obj) -> Raised {
    let error = error.as_ptr();
    // SAFETY: `error` is live, and the thread is attached.
    unsafe {
        if ffi::PyExceptionInstance_Check(error) != 0 {
            ffi::PyErr_SetObject(ffi::Py_TYPE(error).cast(), error);
            Raised
        } else if ffi::PyExceptionClass_Check(error) != 0 {
            ffi::PyErr_SetNone(error);
            Raised
        } else {
            Raised::new::<PyTypeError>(py, "exceptions must derive from BaseException")
        }
    }
}

/// Waits until the future is done and gives what came of it.
///
/// # Errors
/// `CancelledError`, `TimeoutError`, what a signal handler raises.
#[cold]
fn await_outcome(this: This<'_, '_, Future>, deadline: Deadline) -> Result<Outcome, Raised> {
    let py = this.py();
    if !this.engine.state().is_done() {
        if let Some(source) = &this.source {
            source.pool.wait(this, deadline)?;
        } else if trace::on() {
            tracing::wait(this, deadline)?;
        } else {
            this.engine.wait(&PyGate::new(py), deadline)?;
        }
        if this.engine.is_forced() {
            exposed::settle_pokes(py, &this)?;
        }
    }
    match this.engine.state() {
        State::Finished => Ok(this.outcome(py).unwrap_or_else(|| Outcome::Result(none(py)))),
        State::Cancelled | State::CancelledAndNotified => Err(CANCELLED_ERROR.raise(py, ())),
        State::Pending | State::Running => Err(Raised::from_err(py, PyErr::new::<PyTimeoutError, _>(()))),
    }
}

/// The result, waited for until `deadline`.
///
/// # Errors
/// What the call raised, and those of [`await_outcome`].
#[inline]
pub fn result_by(this: This<'_, '_, Future>, deadline: Deadline) -> Result<Obj, Raised> {
    let py = this.py();
    let waited;
    let outcome = match this.engine.value() {
        Some(outcome) => outcome,
        None => {
            waited = await_outcome(this, deadline)?;
            &waited
        }
    };
    match outcome {
        Outcome::Result(result) => Ok(result.clone_ref(py)),
        Outcome::Error(error) => Err(raise(py, error)),
    }
}

#[inline(always)]
fn deadline_of(py: Python<'_>, function: &str, args: Args<'_>) -> Result<Deadline, Raised> {
    if args.is_empty() {
        return Ok(Deadline::NEVER);
    }
    let [timeout] = args.parse(py, function, [c"timeout"], 0)?;
    timeout::of_wait(py, timeout)
}

fn result(this: This<'_, '_, Future>, args: Args<'_>) -> RawResult {
    let deadline = deadline_of(this.py(), "result", args)?;
    result_by(this, deadline).map(Obj::into_ptr)
}

fn exception(this: This<'_, '_, Future>, args: Args<'_>) -> RawResult {
    let py = this.py();
    let deadline = deadline_of(py, "exception", args)?;
    let waited;
    let outcome = match this.engine.value() {
        Some(outcome) => outcome,
        None => {
            waited = await_outcome(this, deadline)?;
            &waited
        }
    };
    Ok(match outcome {
        Outcome::Result(_) => raw::none(),
        Outcome::Error(error) => error.clone_ref(py).into_ptr(),
    })
}

fn set_result(this: This<'_, '_, Future>, args: Args<'_>) -> RawResult {
    let result = match args.only() {
        Some(result) => result,
        None => args.parse(this.py(), "set_result", [c"result"], 1)?[0],
    };
    // SAFETY: an argument is live.
    finish(this, Outcome::Result(unsafe { Obj::from_borrowed(result) }))?;
    Ok(raw::none())
}

fn set_exception(this: This<'_, '_, Future>, args: Args<'_>) -> RawResult {
    let py = this.py();
    let [error] = args.parse(py, "set_exception", [c"exception"], 1)?;
    // SAFETY: an argument is live.
    let error = unsafe { Obj::from_borrowed(error) };
    let outcome = if error.bind(py).is_none() { Outcome::Result(error) } else { Outcome::Error(error) };
    finish(this, outcome)?;
    Ok(raw::none())
}

fn add_done_callback(this: This<'_, '_, Future>, args: Args<'_>) -> RawResult {
    let [callback] = args.parse(this.py(), "add_done_callback", [c"fn"], 1)?;
    // SAFETY: an argument is live.
    if let Some(callback) = this.engine.add_callback(unsafe { Obj::from_borrowed(callback) }) {
        run_callback(this, &callback)?;
    }
    this.collect_eagerly(this.py())?;
    Ok(raw::none())
}

fn set_running_or_notify_cancel(this: This<'_, '_, Future>) -> RawResult {
    start(this).map(raw::bool)
}

fn py_cancel(this: This<'_, '_, Future>, args: Args<'_>) -> RawResult {
    let running = if args.is_empty() {
        false
    } else {
        let [running] = args.parse(this.py(), "cancel", [c"running"], 0)?;
        raw::truth(running, false)?
    };
    match &this.source {
        Some(source) => source.cancel(this, running).map(raw::bool),
        None => cancel(this).map(raw::bool),
    }
}

/// Learns what has become of a call that is made elsewhere.
#[inline(always)]
fn refresh(this: This<'_, '_, Future>) -> Result<(), Raised> {
    match &this.source {
        Some(source) => source.refresh(this),
        None => Ok(()),
    }
}

fn refresh_bound(this: &Bound<'_, Future>) -> PyResult<()> {
    // SAFETY: `this` keeps the future alive.
    refresh(unsafe { This::new(this.py(), this.as_ptr()) }).map_err(|raised| raised.fetch(this.py()))
}

fn cancelled(this: This<'_, '_, Future>) -> RawResult {
    Ok(raw::bool(matches!(this.engine.state(), State::Cancelled | State::CancelledAndNotified)))
}

fn running(this: This<'_, '_, Future>) -> RawResult {
    refresh(this)?;
    Ok(raw::bool(this.engine.state() == State::Running))
}

fn done(this: This<'_, '_, Future>) -> RawResult {
    refresh(this)?;
    Ok(raw::bool(this.engine.state().is_done()))
}

const RESULT: &str = "($self, /, timeout=None)\n--\n\n\
        The result of the call, waited for if need be; as `concurrent.futures.Future.result`.\n\
        \n\
        A wait releases the GIL; signal handlers run in the middle of it, and one that raises ends it.\n\
        \n\
        Args:\n\
        \x20   timeout: seconds on the monotonic clock to wait at most; None waits for ever.\n\
        \n\
        Raises:\n\
        \x20   Exception: what the call raised, with the worker's frames in its traceback.\n\
        \x20   CancelledError: the future was cancelled.\n\
        \x20   TimeoutError: it was not done in time.\n\
        \x20   DeadlockError: deadlocks are looked for, and every worker of the pool waits for calls that are queued in it.";
const EXCEPTION: &str = "($self, /, timeout=None)\n--\n\n\
        What the call raised, or None, waited for if need be; as `concurrent.futures.Future.exception`.\n\
        \n\
        A wait releases the GIL; signal handlers run in the middle of it, and one that raises ends it.\n\
        \n\
        Args:\n\
        \x20   timeout: seconds on the monotonic clock to wait at most; None waits for ever.\n\
        \n\
        Raises:\n\
        \x20   CancelledError: the future was cancelled.\n\
        \x20   TimeoutError: it was not done in time.";
const CANCEL: &str = "($self, /, running=False)\n--\n\n\
Cancel the call unless it has begun. Returns whether it is cancelled.\n\n\
With `running`, also one that a process pool's worker is making: the future is cancelled at once, and the worker is \
stopped: by an exception in the call first, by signals after 0.5 s and 1 s. A thread's call can't be stopped.\n\n\
When an asyncio task that awaits a process pool's call is cancelled, as in `loop.run_in_executor`, that counts as \
`running` too; the standard library lets the call run on for nobody.";
const ADD_DONE_CALLBACK: &str = "($self, /, fn)\n--\n\n\
Call `fn` with this future when it is done, at once if it is.\n\n\
Callbacks are called in the order in which they were added, by the thread that ends the future. An Exception that one \
raises is logged and otherwise ignored.";

methods! { add_methods for Future {
    "result" => keywords result, RESULT;
    "exception" => keywords exception, EXCEPTION;
    "set_result" => keywords set_result, "($self, /, result)\n--\n\nEnd the future with `result`; for executors.";
    "set_exception" => keywords set_exception, "($self, /, exception)\n--\n\nEnd the future with `exception`; for executors.";
    "add_done_callback" => keywords add_done_callback, ADD_DONE_CALLBACK;
    "set_running_or_notify_cancel" => noargs set_running_or_notify_cancel,
        "($self, /)\n--\n\nSay that the call begins, or that its cancellation is known; for executors.\n\n\
        Returns False if the future was cancelled: then the call must not be made.";
    "cancel" => keywords py_cancel, CANCEL;
    "cancelled" => noargs cancelled, "($self, /)\n--\n\nWhether the call was cancelled.";
    "running" => noargs running, "($self, /)\n--\n\nWhether the call is being made.";
    "done" => noargs done, "($self, /)\n--\n\nWhether the call was cancelled or has ended.";
} }

/// Adds what PyO3 does not to the class.
pub fn finish_class(py: Python<'_>) -> PyResult<()> {
    add_methods(py)
}
