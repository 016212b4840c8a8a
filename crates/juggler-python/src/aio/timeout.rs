//! `asyncio.timeout`.
//!
//! In a loop of ours the timer of a timeout is the timeout itself, without a handle; entering and leaving it costs no frame of
//! Python.
#![allow(unsafe_code)]

use super::any_future;
use super::callback;
use super::current;
use super::entry::{Entry, Kind};
use super::event_loop::{self, Loop, plain_loop, seconds};
use super::stdlib::CANCELLED_ERROR;
#[cfg(Py_3_13)]
use super::stdlib::Import;
use super::sync::coroutine;
use super::sync::operation::{self, Ending, Next, Operation, Step};
use super::sync::reference::Ref;
use crate::attached::Attached;
use crate::layout::{self, Direct, Layout};
use crate::obj::Obj;
use crate::raw::{Args, Raised, RawResult, This, methods};
use pyo3::exceptions::{PyAssertionError, PyRuntimeError, PyTimeoutError};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};

#[derive(Clone, Copy, PartialEq)]
enum State {
    Created,
    Active,
    Expiring,
    Expired,
    Finished,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Active => "active",
            Self::Expiring => "expiring",
            Self::Expired => "expired",
            Self::Finished => "finished",
        }
    }
}

/// What ends the time.
enum Timer {
    None,
    /// In the timers of a loop of ours.
    Scheduled(Obj),
    /// A handle of any other, and of one of ours since a `reschedule`.
    Handle(Obj),
}

struct TimeoutFields {
    state: State,
    /// On the loop's clock, as the program gave it.
    when: Option<Obj>,
    task: Option<Obj>,
    /// How many requests to cancel the task there were already.
    cancels: u32,
    timer: Timer,
}

/// Cancels the task that is inside when the time is over, and turns that into a `TimeoutError`; see `timeout`.
///
/// Stands in for `asyncio.Timeout`.
///
/// Args:
///     when: seconds on the loop's clock; None: never.
#[pyclass(frozen, weakref, module = "juggler.asyncio")]
pub struct Timeout {
    fields: Attached<TimeoutFields>,
}

impl Direct for Timeout {
    #[inline(always)]
    fn layout() -> &'static Layout {
        static LAYOUT: Layout = Layout::new();
        &LAYOUT
    }

    fn make(_py: Python<'_>) -> Self {
        Self::until(None)
    }
}

impl Timeout {
    fn until(when: Option<Obj>) -> Self {
        let fields = TimeoutFields { state: State::Created, when, task: None, cancels: 0, timer: Timer::None };
        Self { fields: Attached::new(fields) }
    }

    fn state(&self, py: Python<'_>) -> State {
        self.fields.with(py, |fields| fields.state)
    }

    fn deadline(&self, py: Python<'_>) -> Option<Obj> {
        self.fields.with(py, |fields| fields.when.as_ref().map(|when| when.clone_ref(py)))
    }
}

fn object_of(this: This<'_, '_, Timeout>) -> Obj {
    // SAFETY: the receiver is live.
    unsafe { Obj::from_borrowed(this.as_any().as_ptr()) }
}

/// Begins: from now on the running task is cancelled when the time is over.
///
/// # Errors
/// `RuntimeError`: it was begun before, or no task runs. What the loop raises.
pub fn enter(this: This<'_, '_, Timeout>) -> Result<(), Raised> {
    let py = this.py();
    if this.state(py) != State::Created {
        return Err(Raised::new::<PyRuntimeError>(py, "Timeout has already been entered"));
    }
    let Some(task) = current::task(py)? else {
        return Err(Raised::new::<PyRuntimeError>(py, "Timeout should be used inside a task"));
    };
    let cancels = any_future::cancelling(py, &task)?;
    let stale = this.fields.with(py, |fields| {
        (fields.state, fields.cancels) = (State::Active, cancels);
        fields.task.replace(task)
    });
    drop(stale);
    let Some(when) = this.deadline(py) else { return Ok(()) };
    let event_loop = running_loop(py)?;
    let Some(ours) = plain_loop(py, &event_loop) else { return schedule_elsewhere(this, &event_loop, &when) };
    // SAFETY: a live object.
    let when = unsafe { ffi::PyFloat_AsDouble(when.as_ptr()) };
    // SAFETY: the thread is attached.
    if when == -1.0 && unsafe { !ffi::PyErr_Occurred().is_null() } {
        return Err(Raised);
    }
    let entry = Entry { object: object_of(this), kind: &EXPIRE };
    this.fields.with(py, |fields| fields.timer = Timer::Scheduled(event_loop.clone_ref(py)));
    if when <= seconds(Loop::now()) {
        ours.push(py, entry);
    } else {
        ours.schedule(py, (when * 1e9).ceil() as u64, entry);
    }
    Ok(())
}

fn running_loop(py: Python<'_>) -> Result<Obj, Raised> {
    current::running_loop(py)?.ok_or_else(|| Raised::new::<PyRuntimeError>(py, "no running event loop"))
}

/// By a handle.
#[cold]
fn schedule_elsewhere(this: This<'_, '_, Timeout>, event_loop: &Obj, when: &Obj) -> Result<(), Raised> {
    let py = this.py();
    let schedule = || {
        let (event_loop, when) = (event_loop.bind(py), when.bind(py));
        let expire = this.as_any().getattr(intern!(py, "_on_timeout"))?;
        if when.le(event_loop.call_method0(intern!(py, "time"))?)? {
            event_loop.call_method1(intern!(py, "call_soon"), (expire,))
        } else {
            event_loop.call_method1(intern!(py, "call_at"), (when, expire))
        }
    };
    let handle = schedule().map_err(|error| Raised::from_err(py, error))?;
    let stale = this.fields.with(py, |fields| std::mem::replace(&mut fields.timer, Timer::Handle(handle.into())));
    drop(stale);
    Ok(())
}

/// Takes the timer back.
fn unschedule(this: This<'_, '_, Timeout>) -> Result<(), Raised> {
    let py = this.py();
    match this.fields.with(py, |fields| std::mem::replace(&mut fields.timer, Timer::None)) {
        Timer::None => {}
        Timer::Scheduled(event_loop) => {
            if let Some(ours) = event_loop::ours(py, &event_loop) {
                ours.timer_cancelled(py);
            }
        }
        Timer::Handle(handle) => {
            let cancelled = handle.bind(py).call_method0(intern!(py, "cancel"));
            cancelled.map_err(|error| Raised::from_err(py, error))?;
        }
    }
    Ok(())
}

/// Ends, with the exception that ended what was inside, if one did.
///
/// # Errors
/// `TimeoutError` in place of a `CancelledError` that is this one's doing; `AssertionError`: it was not begun.
pub fn leave(this: This<'_, '_, Timeout>, error: Option<&Obj>) -> Result<(), Raised> {
    let py = this.py();
    let state = this.state(py);
    if !matches!(state, State::Active | State::Expiring) {
        return Err(Raised::new::<PyAssertionError>(py, "Timeout has not been entered"));
    }
    unschedule(this)?;
    if state == State::Active {
        this.fields.with(py, |fields| fields.state = State::Finished);
        return Ok(());
    }
    let (task, cancels) = this.fields.with(py, |fields| {
        fields.state = State::Expired;
        (fields.task.as_ref().map(|task| task.clone_ref(py)), fields.cancels)
    });
    let left = task.map_or(Ok(0), |task| any_future::uncancel(py, &task))?;
    match error {
        // Nobody else has cancelled it.
        Some(error) if left <= cancels => turn(py, error).map_err(|error| Raised::from_err(py, error)),
        _ => Ok(()),
    }
}

/// The `TimeoutError` that a cancellation stands for.
///
/// # Errors
/// `MemoryError`
#[cold]
pub fn timeout_error(cancellation: &Bound<'_, PyAny>) -> PyResult<PyErr> {
    let py = cancellation.py();
    let timeout = PyTimeoutError::new_err(());
    timeout.set_cause(py, Some(PyErr::from_value(cancellation.clone())));
    timeout.value(py).setattr(intern!(py, "__context__"), cancellation)?;
    Ok(timeout)
}

/// Turns the cancellation in `error`, if it is one or came of one, into a `TimeoutError`.
#[cold]
fn turn(py: Python<'_>, error: &Obj) -> PyResult<()> {
    let error = error.bind(py);
    if error.is_instance(CANCELLED_ERROR.get(py)?)? {
        return Err(timeout_error(&error)?);
    }
    #[cfg(Py_3_13)]
    {
        static TIMEOUT: Import = Import::new("juggler.asyncio.timeouts", "_StdlibTimeout");
        let insert = TIMEOUT.get(py)?.getattr(intern!(py, "_insert_timeout_error"))?;
        insert.call1((error.to_owned(),))?;
        if error.is_instance(&py.import("builtins")?.getattr("ExceptionGroup")?)? {
            for each in error.getattr(intern!(py, "exceptions"))?.try_iter()? {
                insert.call1((each?,))?;
            }
        }
    }
    Ok(())
}

/// A timeout in the timers of a loop of ours.
static EXPIRE: Kind = Kind { run: expire, is_cancelled };

fn expire(py: Python<'_>, object: Obj) -> Result<(), Raised> {
    if is_cancelled(&object) {
        return Ok(());
    }
    let object = object.bind(py);
    // SAFETY: entries of this kind are timeouts.
    let this: This<'_, '_, Timeout> = unsafe { This::new(py, object.as_ptr()) };
    on_timeout(this).or_else(|raised| {
        let event_loop = running_loop(py)?;
        let context = pyo3::types::PyDict::new(py);
        let filled = context
            .set_item("message", "a timeout could not cancel its task")
            .and_then(|()| context.set_item("exception", raised.fetch(py).into_value(py)));
        filled.map_err(|error| Raised::from_err(py, error))?;
        event_loop::report(&event_loop.bind(py), &context)
    })
}

fn is_cancelled(object: &Obj) -> bool {
    // SAFETY: the loop asks attached, and entries of this kind are timeouts.
    let (py, this) = unsafe {
        let py = Python::assume_attached();
        (py, This::<Timeout>::new(py, object.as_ptr()))
    };
    this.fields.with(py, |fields| !matches!(fields.timer, Timer::Scheduled(_)))
}

/// The time is over.
fn on_timeout(this: This<'_, '_, Timeout>) -> Result<(), Raised> {
    let py = this.py();
    let (stale, task) = this.fields.with(py, |fields| {
        fields.state = State::Expiring;
        let stale = std::mem::replace(&mut fields.timer, Timer::None);
        (stale, fields.task.as_ref().map(|task| task.clone_ref(py)))
    });
    drop(stale);
    task.map_or(Ok(()), |task| callback::cancel(py, &task, None).map(drop))
}

/// `Timeout.__aenter__()`
pub struct Enter(Ref<Timeout>);

impl Operation for Enter {
    #[inline(always)]
    fn begin(&mut self, py: Python<'_>) -> Next {
        enter(self.0.get(py))?;
        Ok(Step::Done(self.0.as_obj().clone_ref(py)))
    }

    fn resume(&mut self, py: Python<'_>, _future: &Obj, _ending: Ending) -> Next {
        // It never waits.
        Ok(operation::nothing(py))
    }

    fn name(&self) -> &'static str {
        "Timeout.__aenter__"
    }

    fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.0.as_obj().visit(visit)
    }
}

/// `Timeout.__aexit__()`
pub struct Exit {
    timeout: Ref<Timeout>,
    error: Option<Obj>,
}

impl Operation for Exit {
    #[inline(always)]
    fn begin(&mut self, py: Python<'_>) -> Next {
        leave(self.timeout.get(py), self.error.as_ref())?;
        Ok(operation::nothing(py))
    }

    fn resume(&mut self, py: Python<'_>, _future: &Obj, _ending: Ending) -> Next {
        // It never waits.
        Ok(operation::nothing(py))
    }

    fn name(&self) -> &'static str {
        "Timeout.__aexit__"
    }

    fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.timeout.as_obj().visit(visit)?;
        self.error.as_ref().map_or(Ok(()), |error| error.visit(visit))
    }
}

#[pymethods]
impl Timeout {
    #[new]
    #[pyo3(signature = (when))]
    fn py_new(when: Option<Bound<'_, PyAny>>) -> Self {
        Self::until(when.map(Obj::from))
    }

    /// When the time is over, in seconds on the loop's clock; None: never.
    fn when<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.deadline(py).map(|when| when.into_bound(py))
    }

    /// Set when the time is over.
    ///
    /// Args:
    ///     when: seconds on the loop's clock; None: never.
    ///
    /// Raises:
    ///     RuntimeError: it is not active.
    fn reschedule(slf: &Bound<'_, Self>, when: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        let py = slf.py();
        match slf.get().state(py) {
            State::Active => {}
            State::Created => return Err(PyRuntimeError::new_err("Timeout has not been entered")),
            state => {
                return Err(PyRuntimeError::new_err(format!("Cannot change state of {} Timeout", state.name())));
            }
        }
        let when: Option<Obj> = when.map(Obj::from);
        let noted = when.as_ref().map(|when| when.clone_ref(py));
        let stale = slf.get().fields.with(py, |fields| std::mem::replace(&mut fields.when, noted));
        drop(stale);
        // SAFETY: the receiver is live.
        let this = unsafe { This::new(py, slf.as_ptr()) };
        let scheduled = unschedule(this).and_then(|()| match &when {
            Some(when) => schedule_elsewhere(this, &running_loop(py)?, when),
            None => Ok(()),
        });
        scheduled.map_err(|raised| raised.fetch(py))
    }

    /// Whether the time was over before the end.
    fn expired(&self, py: Python<'_>) -> bool {
        matches!(self.state(py), State::Expiring | State::Expired)
    }

    fn _on_timeout(slf: &Bound<'_, Self>) -> PyResult<()> {
        // SAFETY: the receiver is live.
        let this = unsafe { This::new(slf.py(), slf.as_ptr()) };
        on_timeout(this).map_err(|raised| raised.fetch(slf.py()))
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let state = self.state(py);
        let when = match self.deadline(py) {
            _ if state != State::Active => String::new(),
            None => " when=None".to_owned(),
            Some(when) => {
                let rounded = when.bind(py).call_method1(intern!(py, "__round__"), (3,))?;
                format!(" when={rounded}")
            }
        };
        Ok(format!("<Timeout [{}]{when}>", state.name()))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.fields.traverse(|fields| {
            fields.when.iter().chain(&fields.task).try_for_each(|object| object.visit(&visit))?;
            match &fields.timer {
                Timer::None => Ok(()),
                Timer::Scheduled(object) | Timer::Handle(object) => object.visit(&visit),
            }
        })
    }

    fn __clear__(&self, py: Python<'_>) {
        let stale = self.fields.with(py, |fields| {
            (fields.when.take(), fields.task.take(), std::mem::replace(&mut fields.timer, Timer::None))
        });
        drop(stale);
    }
}

fn aenter(this: This<'_, '_, Timeout>) -> RawResult {
    coroutine::create(this.py(), Enter(Ref::new(this)))
}

fn aexit(this: This<'_, '_, Timeout>, args: Args<'_>) -> RawResult {
    let py = this.py();
    let [_, error, _] = args.parse(py, "__aexit__", [c"exc_type", c"exc_val", c"exc_tb"], 3)?;
    // SAFETY: an argument is live.
    let error = unsafe { (error != ffi::Py_None()).then(|| Obj::from_borrowed(error)) };
    coroutine::create(py, Exit { timeout: Ref::new(this), error })
}

methods! { add_methods for Timeout {
    "__aenter__" => noargs aenter, "($self, /)\n--\n\nBegin: the running task has until `when`.";
    "__aexit__" => keywords aexit, "($self, /, exc_type, exc_val, exc_tb)\n--\n\n\
        End; raises TimeoutError in place of the CancelledError that came of it.";
} }

/// A timeout in `delay` seconds, as an object may say, or never.
///
/// # Errors
/// No loop runs; what adding raises.
pub fn after(py: Python<'_>, delay: Option<&Bound<'_, PyAny>>) -> Result<Ref<Timeout>, Raised> {
    let event_loop = running_loop(py)?;
    let when = match delay {
        None => None,
        Some(delay) => {
            let raised = |error| Raised::from_err(py, error);
            let now = match plain_loop(py, &event_loop) {
                Some(_) => pyo3::types::PyFloat::new(py, seconds(Loop::now())).into_any(),
                None => event_loop.bind(py).call_method0(intern!(py, "time")).map_err(raised)?,
            };
            Some(now.add(delay).map_err(raised)?.into())
        }
    };
    Ref::create(py, Timeout::until(when))
}

/// Give what is inside `async with` so many seconds; as `asyncio.timeout`.
///
/// When they are over the task is cancelled, which turns into a `TimeoutError` as the block is left.
///
/// Args:
///     delay: how many seconds; None: without end.
#[pyfunction]
#[pyo3(signature = (delay))]
pub fn timeout<'py>(py: Python<'py>, delay: Option<Bound<'py, PyAny>>) -> PyResult<Bound<'py, PyAny>> {
    let made = after(py, delay.as_ref()).map_err(|raised| raised.fetch(py))?;
    Ok(made.as_obj().clone_ref(py).into_bound(py))
}

/// Adds what PyO3 does not to the class.
pub fn finish_class(py: Python<'_>) -> PyResult<()> {
    add_methods(py)?;
    layout::install::<Timeout>(py)
}
