//! `asyncio.sleep`.
//!
//! It is a class, whose instances are what `async def sleep` would give: coroutines. Awaiting one costs no frame of Python; in
//! a loop of ours, the timer holds the future for which the task waits, and no handle.
#![allow(unsafe_code)]

use super::awaiting::{self, Sends, Sent};
use super::class;
use super::current;
use super::entry::{Entry, Kind};
use super::event_loop::{self, Loop};
use super::future::{self, Future, State};
use super::stdlib::Import;
use crate::attached::Attached;
use crate::gc::Ready;
use crate::layout::{self, Direct, Layout};
use crate::obj::Obj;
use crate::raw::{self, Args, Raised, This};
use juggler_sync::sync::{AtomicUsize, Ordering};
use pyo3::exceptions::{PyRuntimeError, PyRuntimeWarning, PyStopIteration, PyValueError};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};

/// Where a sleep stands.
enum Stage {
    Created,
    /// It gave its turn away and has not got the next one yet.
    Yielded,
    /// The future is done when it is over; the handle is that of the timer in a loop that is not ours.
    Asleep {
        future: Obj,
        handle: Option<Obj>,
    },
    Over,
}

struct SleepFields {
    delay: Option<Obj>,
    result: Option<Obj>,
    stage: Stage,
}

/// Wait for `delay` seconds, then return `result`; as `asyncio.sleep`.
///
/// With a delay of 0 or less, all that are ready have a turn first. It is never over too early.
///
/// Args:
///     delay: how many seconds.
///     result: what awaiting it gives.
#[pyclass(frozen, weakref, module = "juggler.asyncio", name = "sleep")]
pub struct Sleep {
    ready: Ready,
    fields: Attached<SleepFields>,
}

static CLASS: AtomicUsize = AtomicUsize::new(0);

/// Whether `object` is a sleep.
#[inline(always)]
pub fn is_sleep(object: &Obj) -> bool {
    // SAFETY: `object` is live.
    unsafe { ffi::Py_TYPE(object.as_ptr()) as usize == CLASS.load(Ordering::Relaxed) }
}

impl Direct for Sleep {
    #[inline(always)]
    fn layout() -> &'static Layout {
        static LAYOUT: Layout = Layout::keeping(4096);
        &LAYOUT
    }

    fn make(_py: Python<'_>) -> Self {
        let fields = SleepFields { delay: None, result: None, stage: Stage::Over };
        Self { ready: Ready::new(), fields: Attached::new(fields) }
    }
}

impl Sleep {
    fn new(delay: Obj, result: Obj) -> Self {
        let fields = SleepFields { delay: Some(delay), result: Some(result), stage: Stage::Created };
        Self { ready: Ready::new(), fields: Attached::new(fields) }
    }

    /// Goes on: gives what is yielded, or what it ends with.
    fn go_on(&self, py: Python<'_>) -> Result<Sent, Raised> {
        let stage = self.fields.with(py, |fields| std::mem::replace(&mut fields.stage, Stage::Over));
        match stage {
            Stage::Created => self.begin(py),
            Stage::Yielded => Ok(Sent::Returns(self.take_result(py))),
            Stage::Asleep { future, handle } => {
                let this = class::assume::<Future>(py, &future);
                if !this.is_done(py) {
                    cancel_timer(py, this, handle.as_ref())?;
                    return Err(Raised::new::<PyRuntimeError>(py, "await wasn't used with future"));
                }
                if this.state(py) == State::Cancelled {
                    cancel_timer(py, this, handle.as_ref())?;
                }
                future::result(this).map(Sent::Returns)
            }
            Stage::Over => Err(Raised::new::<PyRuntimeError>(py, "cannot reuse already awaited coroutine")),
        }
    }

    fn take_result(&self, py: Python<'_>) -> Obj {
        self.fields.with(py, |fields| fields.result.take()).unwrap_or_else(future::none)
    }

    fn begin(&self, py: Python<'_>) -> Result<Sent, Raised> {
        let Some(object) = self.fields.with(py, |fields| fields.delay.take()) else {
            return Ok(Sent::Returns(future::none()));
        };
        // SAFETY: a live object. Of an integer, `PyFloat_AsDouble` would make a float.
        let delay = unsafe {
            if ffi::PyLong_CheckExact(object.as_ptr()) != 0 {
                ffi::PyLong_AsDouble(object.as_ptr())
            } else {
                ffi::PyFloat_AsDouble(object.as_ptr())
            }
        };
        // SAFETY: the thread is attached.
        if delay == -1.0 && unsafe { !ffi::PyErr_Occurred().is_null() } {
            return Err(Raised);
        }
        if delay <= 0.0 {
            self.fields.with(py, |fields| fields.stage = Stage::Yielded);
            return Ok(Sent::Yields(future::none()));
        }
        if delay.is_nan() {
            return Err(Raised::new::<PyValueError>(py, "Invalid delay: NaN (not a number)"));
        }
        let Some(event_loop) = current::running_loop(py)? else {
            return Err(Raised::new::<PyRuntimeError>(py, "no running event loop"));
        };
        let (future, handle) = match event_loop::plain_loop(py, &event_loop) {
            Some(ours) => {
                let future = future::create(py, &event_loop)?;
                // The timer finds the result in the future, which is pending as long.
                let result = self.take_result(py);
                class::assume::<Future>(py, &future).fields.with(py, |fields| fields.value = Some(result));
                let when = Loop::now() as f64 + (delay * 1e9).ceil();
                ours.schedule(py, when as u64, Entry { object: future.clone_ref(py), kind: &KIND });
                (future, None)
            }
            None => {
                let begun = self.begin_elsewhere(&event_loop.bind(py), &object);
                let (future, handle) = begun.map_err(|error| Raised::from_err(py, error))?;
                (future, Some(handle))
            }
        };
        class::assume::<Future>(py, &future).fields.with(py, |fields| fields.blocking = true);
        let yielded = future.clone_ref(py);
        self.fields.with(py, |fields| fields.stage = Stage::Asleep { future, handle });
        Ok(Sent::Yields(yielded))
    }

    /// A future and a timer of a loop that is not ours, or that wants handles.
    #[cold]
    fn begin_elsewhere(&self, event_loop: &Bound<'_, PyAny>, delay: &Obj) -> PyResult<(Obj, Obj)> {
        static SET_RESULT: Import = Import::new("asyncio.futures", "_set_result_unless_cancelled");
        let py = event_loop.py();
        let future = future::create(py, &event_loop.clone().into()).map_err(|raised| raised.fetch(py))?;
        let arguments = (delay.bind(py), SET_RESULT.get(py)?, future.bind(py), self.take_result(py).into_bound(py));
        let handle = event_loop.call_method1(intern!(py, "call_later"), arguments)?;
        Ok((future, handle.into()))
    }

    /// Ends it before its time.
    fn end(&self, py: Python<'_>) -> Result<(), Raised> {
        let stage = self.fields.with(py, |fields| std::mem::replace(&mut fields.stage, Stage::Over));
        if let Stage::Asleep { future, handle } = stage {
            cancel_timer(py, class::assume(py, &future), handle.as_ref())?;
        }
        Ok(())
    }
}

/// A sleeper's future in the timers of a loop of ours. It holds the result already.
static KIND: Kind = Kind { run: wake, is_cancelled };

fn wake(py: Python<'_>, future: Obj) -> Result<(), Raised> {
    let this = class::assume::<Future>(py, &future);
    if this.is_done(py) {
        return Ok(());
    }
    let result = this.fields.with(py, |fields| fields.value.take()).unwrap_or_else(future::none);
    future::finish(this, result)
}

fn is_cancelled(future: &Obj) -> bool {
    // SAFETY: the loop asks attached.
    let py = unsafe { Python::assume_attached() };
    class::assume::<Future>(py, future).is_done(py)
}

/// Has the timer of a sleep forget it.
fn cancel_timer(py: Python<'_>, future: This<'_, '_, Future>, handle: Option<&Obj>) -> Result<(), Raised> {
    if let Some(handle) = handle {
        let cancelled = handle.bind(py).call_method0(intern!(py, "cancel"));
        return cancelled.map(drop).map_err(|error| Raised::from_err(py, error));
    }
    future::cancel(future, None)?;
    if future.state(py) == State::Cancelled
        && let Some(ours) = event_loop::ours(py, &future.event_loop(py)?)
    {
        ours.timer_cancelled(py);
    }
    Ok(())
}

#[pymethods]
impl Sleep {
    #[new]
    #[pyo3(signature = (delay, result=None))]
    fn py_new(delay: Bound<'_, PyAny>, result: Option<Bound<'_, PyAny>>) -> Self {
        Self::new(delay.into(), result.map_or_else(future::none, Obj::from))
    }

    fn __await__(slf: Bound<'_, Self>) -> awaiting::Wrapper {
        awaiting::Wrapper::new(slf.into_any())
    }

    /// Go on with the coroutine.
    #[pyo3(name = "send")]
    fn py_send<'py>(&self, py: Python<'py>, _value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        match self.go_on(py).map_err(|raised| raised.fetch(py))? {
            Sent::Yields(value) => Ok(value.into_bound(py)),
            Sent::Returns(result) => Err(PyStopIteration::new_err((result.into_bound(py).unbind(),))),
        }
    }

    /// Raise an exception in the coroutine, which ends it.
    #[pyo3(signature = (kind, value=None, traceback=None, /))]
    fn throw<'py>(
        &self,
        kind: Bound<'py, PyAny>,
        value: Option<Bound<'py, PyAny>>,
        traceback: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = kind.py();
        self.end(py).map_err(|raised| raised.fetch(py))?;
        Err(awaiting::thrown(kind, value, traceback)?)
    }

    /// End the coroutine.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.end(py).map_err(|raised| raised.fetch(py))
    }

    #[getter(__name__)]
    fn name(&self) -> &'static str {
        "sleep"
    }

    #[getter(__qualname__)]
    fn qualname(&self) -> &'static str {
        "sleep"
    }

    fn __repr__(slf: &Bound<'_, Self>) -> String {
        format!("<coroutine object sleep at {:#x}>", slf.as_ptr() as usize)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if !self.ready.is_ready() {
            return Ok(());
        }
        self.fields.traverse(|fields| {
            fields.delay.iter().chain(&fields.result).try_for_each(|object| object.visit(&visit))?;
            match &fields.stage {
                Stage::Asleep { future, handle } => {
                    future.visit(&visit)?;
                    handle.iter().try_for_each(|handle| handle.visit(&visit))
                }
                _ => Ok(()),
            }
        })
    }

    fn __clear__(&self, py: Python<'_>) {
        let stale = self.fields.with(py, |fields| {
            (fields.delay.take(), fields.result.take(), std::mem::replace(&mut fields.stage, Stage::Over))
        });
        drop(stale);
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        // SAFETY: objects are freed by attached threads.
        let py = unsafe { Python::assume_attached() };
        if self.fields.with(py, |fields| matches!(fields.stage, Stage::Created) && fields.delay.is_some()) {
            // SAFETY: as above.
            unsafe { super::stdlib::finalize(warn_never_awaited) };
        }
    }
}

#[cold]
fn warn_never_awaited(py: Python<'_>) {
    let warned = PyErr::warn(py, &py.get_type::<PyRuntimeWarning>(), c"coroutine 'sleep' was never awaited", 1);
    if let Err(error) = warned {
        error.write_unraisable(py, None);
    }
}

impl Sends for Sleep {
    #[inline(always)]
    fn send(this: This<'_, '_, Self>, _value: *mut ffi::PyObject) -> Result<Sent, Raised> {
        this.go_on(this.py())
    }
}

unsafe extern "C" fn construct(
    _class: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    flags: usize,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython calls constructors attached and with the arguments of a vectorcall. The class has no heirs.
    unsafe {
        raw::guard(|py| {
            let args = Args::new(args, ffi::PyVectorcall_NARGS(flags) as usize, names);
            let [delay, result] = match args.only() {
                Some(delay) => [delay, std::ptr::null_mut()],
                None => args.parse(py, "sleep", [c"delay", c"result"], 1)?,
            };
            let result = if result.is_null() { future::none() } else { Obj::from_borrowed(result) };
            layout::create(py, Sleep::new(Obj::from_borrowed(delay), result)).map(Obj::into_ptr)
        })
    }
}

/// Has instances made, freed and awaited without PyO3's detours.
///
/// # Errors
/// `MemoryError`
pub fn finish_class(py: Python<'_>) -> PyResult<()> {
    layout::install::<Sleep>(py)?;
    let class = py.get_type::<Sleep>().as_type_ptr();
    CLASS.store(class as usize, Ordering::Relaxed);
    // SAFETY: the class is live, nobody uses it yet, and a heap type has all the groups of slots.
    unsafe {
        awaiting::install::<Sleep>(class);
        (*class).tp_vectorcall = Some(construct);
    }
    Ok(())
}
