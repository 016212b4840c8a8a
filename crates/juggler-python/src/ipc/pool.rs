//! `ProcessPoolExecutor`: submitting.
#![allow(unsafe_code)]

use super::pickle;
use super::pool_engine::ProcessPoolEngine;
use super::pool_worker::Head;
use crate::futures::future::{self, Future, Outcome, Source};
use crate::futures::layout;
use crate::gc::Ready;
use crate::obj::Obj;
use crate::raw::{Args, Raised, RawResult, This, methods};
use juggler_ipc::pool::parent::{Options, Parent, Submitted};
use juggler_ipc::pool::watch::Watch;
use juggler_sync::guarded::Guarded;
use juggler_sync::sync::{Arc, AtomicU32, Ordering};
use juggler_sync::sys::Futex;
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::{PyDict, PyTuple};
use std::sync::{Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

/// What the parent keeps of a call.
pub struct Task {
    pub future: Obj,
}

/// What an executor, its futures and its threads share.
pub struct Pool {
    pub parent: Parent<Task>,
    pub watch: Watch,
    /// 1 while a thread leads: sleeps on the shared count and collects for all.
    pub leader: AtomicU32,
    /// Counts what those who wait behind the leader must look at.
    pub turn: Futex,
    pub followers: AtomicU32,
    /// Whether the collector was started.
    pub collector: AtomicU32,
    /// Whether the collector is to collect at once, as somebody waits to be told.
    pub eager: AtomicU32,
    /// The last function, and its pickle.
    function: Guarded<Option<(Obj, Obj)>>,
    /// Whether workers have no `__main__` of their own.
    pub define_main: bool,
    pub memory_limit: Option<u64>,
    /// Why it is broken.
    pub broken: Guarded<Option<Obj>>,
    /// 1 in a process that was forked off with it.
    foreign: AtomicU32,
}

/// Every pool that lives.
static POOLS: Mutex<Vec<Weak<Pool>>> = Mutex::new(Vec::new());
static EXITING: AtomicU32 = AtomicU32::new(0);

fn pools() -> Vec<Arc<Pool>> {
    POOLS.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect()
}

/// Has every process pool take no more calls: the interpreter exits.
#[pyfunction]
#[pyo3(name = "_close_process_pools")]
pub fn close_process_pools() {
    EXITING.store(1, Ordering::SeqCst);
    for pool in pools() {
        pool.close();
    }
}

/// In a forked child: the pools are the parent's.
#[pyfunction]
#[pyo3(name = "_disown_process_pools")]
pub fn disown_process_pools() {
    for pool in pools() {
        pool.foreign.store(1, Ordering::Relaxed);
    }
}

impl Pool {
    pub fn new(max_workers: usize, define_main: bool, memory_limit: Option<u64>) -> PyResult<Arc<Self>> {
        let pool = Arc::new(Self {
            parent: Parent::new(max_workers)?,
            watch: Watch::new()?,
            leader: AtomicU32::new(0),
            turn: Futex::new(0),
            followers: AtomicU32::new(0),
            collector: AtomicU32::new(0),
            eager: AtomicU32::new(0),
            function: Guarded::new(None),
            define_main,
            memory_limit,
            broken: Guarded::new(None),
            foreign: AtomicU32::new(0),
        });
        let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
        pools.retain(|pool| pool.strong_count() > 0);
        pools.push(Arc::downgrade(&pool));
        Ok(pool)
    }

    /// Whether this process was forked off with the pool in it: its workers are not ours.
    pub fn is_foreign(&self) -> bool {
        self.foreign.load(Ordering::Relaxed) != 0
    }

    /// Refuses calls; the supervisor sees to the rest.
    pub fn close(&self) {
        if !self.is_foreign() {
            self.parent.close();
            // The supervisor and the collector.
            self.watch.ring();
            self.nudge();
        }
    }

    /// The pickle of a function that is pickled by reference; `None` for everything else.
    #[inline]
    fn function(&self, py: Python<'_>, function: *mut ffi::PyObject) -> Option<Obj> {
        if let Some((known, pickled)) = &*self.function.lock()
            && known.as_ptr() == function
        {
            return Some(pickled.clone_ref(py));
        }
        self.pickle_function(py, function)
    }

    #[cold]
    fn pickle_function(&self, py: Python<'_>, function: *mut ffi::PyObject) -> Option<Obj> {
        // SAFETY: `function` is live.
        if unsafe { ffi::PyFunction_Check(function) } == 0 {
            return None;
        }
        let pickled = match pickle::dumps(py, function) {
            Ok(pickled) => pickled,
            Err(raised) => {
                drop(raised.fetch(py));
                return None;
            }
        };
        // SAFETY: `dumps` gives bytes.
        if self.define_main && pickle::mentions_main(unsafe { pickle::contents(&pickled) }) {
            return None;
        }
        // SAFETY: `function` is live.
        let entry = unsafe { (Obj::from_borrowed(function), pickled.clone_ref(py)) };
        let stale = self.function.lock().replace(entry);
        drop(stale);
        Some(pickled)
    }

    /// Submits a call: `values` are the function and its arguments, the last ones named by the tuple `names`.
    ///
    /// # Errors
    /// `RuntimeError` if the pool is closed, `BrokenProcessPool` if it is broken. What can't be pickled fails the future.
    #[inline]
    pub fn submit(
        self: &Arc<Self>,
        py: Python<'_>,
        values: &[*mut ffi::PyObject],
        names: *mut ffi::PyObject,
        options: Options,
    ) -> Result<(Obj, Submitted), Raised> {
        if self.is_foreign() {
            let message = "the executor belongs to the process that this one was forked from";
            return Err(Raised::new::<PyRuntimeError>(py, message));
        }
        let id = self.parent.next_id();
        let source = Source { pool: self.clone(), id, priority: options.priority };
        let future = layout::create_from(py, Some(source))?;
        let task = Task { future: future.clone_ref(py) };
        let submitted = match self.encode(py, values, names) {
            // SAFETY: both are bytes.
            Ok((head, function, arguments)) => unsafe {
                let function = function.as_ref().map_or(&[][..], |function| pickle::contents(function));
                self.parent.submit(id, task, options, &[&head.bytes(), function, pickle::contents(&arguments)])
            },
            Err(raised) => {
                let error = raised.fetch(py);
                drop(task);
                if self.parent.is_closed() {
                    return Err(self.refusal(py));
                }
                return self.fail(py, future, &error);
            }
        };
        match submitted {
            Ok(submitted) => {
                if submitted.waits {
                    self.ensure_collector(py)?;
                }
                if options.timeout > 0 {
                    self.watch.ring();
                }
                Ok((future, submitted))
            }
            Err((task, None)) => {
                drop(task);
                Err(self.refusal(py))
            }
            Err((task, Some(problem))) => {
                drop(task);
                self.fail(py, future, &problem.into())
            }
        }
    }

    /// The pickle of a call: its head, the function if that is apart, the rest.
    #[inline]
    fn encode(
        &self,
        py: Python<'_>,
        values: &[*mut ffi::PyObject],
        names: *mut ffi::PyObject,
    ) -> Result<(Head, Option<Obj>, Obj), Raised> {
        if names.is_null()
            && let Some(function) = self.function(py, values[0])
        {
            // SAFETY: the values are live.
            let arguments = unsafe { tuple(&values[1..])? };
            match pickle::dumps(py, arguments.as_ptr()) {
                // SAFETY: `dumps` gives bytes.
                Ok(data) if !(self.define_main && pickle::mentions_main(unsafe { pickle::contents(&data) })) => {
                    // SAFETY: `pickle_function` made bytes.
                    let length = unsafe { pickle::contents(&function) }.len();
                    return Ok((Head { function: length as u32, named: 0 }, Some(function), data));
                }
                Ok(_) => {}
                Err(raised) => drop(raised.fetch(py)),
            }
        }
        self.encode_whole(py, values, names)
    }

    /// The function, its arguments and their names in one pickle.
    #[cold]
    fn encode_whole(
        &self,
        py: Python<'_>,
        values: &[*mut ffi::PyObject],
        names: *mut ffi::PyObject,
    ) -> Result<(Head, Option<Obj>, Obj), Raised> {
        // SAFETY: `names` is null or a tuple of as many names as there are named values.
        let named = if names.is_null() { 0 } else { unsafe { ffi::PyTuple_GET_SIZE(names) as usize } };
        let positional = values.len() - named;
        let encode = || {
            let keywords = PyDict::new(py);
            for at in 0..named {
                // SAFETY: as above; the values are live.
                unsafe {
                    let name = ffi::PyTuple_GET_ITEM(names, at as ffi::Py_ssize_t);
                    if ffi::PyDict_SetItem(keywords.as_ptr(), name, values[positional + at]) < 0 {
                        return Err(PyErr::fetch(py));
                    }
                }
            }
            // SAFETY: the values are live.
            let (function, arguments) = unsafe {
                let arguments = tuple(&values[1..positional]).map_err(|raised| raised.fetch(py))?;
                (Bound::from_borrowed_ptr(py, values[0]), arguments.into_bound(py))
            };
            let call = PyTuple::new(py, [function, arguments, keywords.into_any()])?;
            match pickle::dumps(py, call.as_ptr()) {
                // SAFETY: `dumps` gives bytes.
                Ok(data) if !(self.define_main && pickle::mentions_main(unsafe { pickle::contents(&data) })) => {
                    return Ok(data);
                }
                Ok(_) => {}
                Err(raised) => drop(raised.fetch(py)),
            }
            let data = super::pool_collect::hook(py, "dump_call")?.call1((call, self.define_main))?;
            Ok(data.cast_into::<pyo3::types::PyBytes>()?.into_any().into())
        };
        let data = encode().map_err(|error| Raised::from_err(py, error))?;
        Ok((Head { function: 0, named: 1 }, None, data))
    }

    /// Ends `future`, which no worker knows of, with `error`.
    #[cold]
    fn fail(&self, py: Python<'_>, future: Obj, error: &PyErr) -> Result<(Obj, Submitted), Raised> {
        // SAFETY: `layout::create_from` made it.
        let this = unsafe { This::<Future>::new(py, future.as_ptr()) };
        future::finish(this, Outcome::Error(error.value(py).clone().into_any().into()))?;
        // As the standard library, which finds out when there is a worker.
        Ok((future, Submitted { needs_worker: true, waits: false }))
    }

    /// The exception for a submission that comes too late.
    #[cold]
    fn refusal(&self, py: Python<'_>) -> Raised {
        if let Some(why) = self.broken.lock().as_ref().map(|why| why.clone_ref(py)) {
            return match super::pool_collect::hook(py, "broken").and_then(|broken| broken.call1((why.bind(py),))) {
                Ok(error) => Raised::from_err(py, PyErr::from_value(error)),
                Err(error) => Raised::from_err(py, error),
            };
        }
        let reason = if EXITING.load(Ordering::SeqCst) != 0 { "interpreter shutdown" } else { "shutdown" };
        Raised::new::<PyRuntimeError>(py, &format!("cannot schedule new futures after {reason}"))
    }
}

/// A tuple of `values`.
///
/// # Safety
/// They are live objects.
unsafe fn tuple(values: &[*mut ffi::PyObject]) -> Result<Obj, Raised> {
    // SAFETY: the caller's promise; the tuple is new and has as many places.
    unsafe {
        let tuple = ffi::PyTuple_New(values.len() as ffi::Py_ssize_t);
        if tuple.is_null() {
            return Err(Raised);
        }
        for (at, &value) in values.iter().enumerate() {
            ffi::Py_INCREF(value);
            ffi::PyTuple_SET_ITEM(tuple, at as ffi::Py_ssize_t, value);
        }
        Ok(Obj::from_owned(tuple))
    }
}

/// A pool of processes that make calls.
///
/// The native part of `juggler.futures.ProcessPoolExecutor`, its only subclass.
#[pyclass(frozen, weakref, dict, subclass, module = "juggler.futures")]
pub struct ProcessPool {
    ready: Ready,
    /// Set by `_open`.
    parts: OnceLock<Parts>,
}

struct Parts {
    pool: Arc<Pool>,
    /// Who starts workers.
    staff: Obj,
}

impl Drop for ProcessPool {
    /// Nobody can submit any more: the workers end when they have done what there is to do.
    fn drop(&mut self) {
        if let Some(parts) = self.parts.get() {
            parts.pool.close();
        }
    }
}

impl ProcessPool {
    fn parts(&self) -> PyResult<&Parts> {
        self.parts.get().ok_or_else(|| PyRuntimeError::new_err("ProcessPoolExecutor.__init__() was not called"))
    }

    #[inline]
    fn submit_call(
        &self,
        py: Python<'_>,
        values: &[*mut ffi::PyObject],
        names: *mut ffi::PyObject,
        options: Options,
    ) -> RawResult {
        let parts = self.parts().map_err(|error| Raised::from_err(py, error))?;
        let (future, submitted) = parts.pool.submit(py, values, names, options)?;
        if submitted.needs_worker {
            let grown = parts.staff.bind(py).call_method0("grow");
            grown.map_err(|error| Raised::from_err(py, error))?;
        }
        Ok(future.into_ptr())
    }
}

#[pymethods]
impl ProcessPool {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self { ready: Ready::new(), parts: OnceLock::new() }
    }

    /// Makes the pool; `staff.grow()` is called when there are too few workers.
    fn _open(&self, engine: &Bound<'_, ProcessPoolEngine>, staff: Bound<'_, PyAny>) -> PyResult<()> {
        let parts = Parts { pool: engine.get().pool.clone(), staff: staff.into() };
        self.parts.set(parts).map_err(|_| PyRuntimeError::new_err("the executor is open"))
    }

    /// `submit` with a priority, a number of retries and a timeout in seconds (0: none).
    fn _submit_with<'py>(
        &self,
        py: Python<'py>,
        priority: i32,
        retries: u32,
        timeout: f64,
        call: &Bound<'py, PyTuple>,
        keywords: &Bound<'py, PyDict>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let timeout = Duration::try_from_secs_f64(timeout).unwrap_or(Duration::MAX).as_nanos();
        let options = Options { priority, retries, timeout: u64::try_from(timeout).unwrap_or(u64::MAX) };
        let names = PyTuple::new(py, keywords.keys())?;
        let named: Vec<Bound<'_, PyAny>> = keywords.values().iter().collect();
        let values: Vec<_> =
            call.iter_borrowed().map(|value| value.as_ptr()).chain(named.iter().map(Bound::as_ptr)).collect();
        let names = if named.is_empty() { std::ptr::null_mut() } else { names.as_ptr() };
        match self.submit_call(py, &values, names, options) {
            // SAFETY: an owned reference.
            Ok(future) => Ok(unsafe { Bound::from_owned_ptr(py, future) }),
            Err(raised) => Err(raised.fetch(py)),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if !self.ready.is_ready() {
            return Ok(());
        }
        self.parts.get().map_or(Ok(()), |parts| parts.staff.visit(&visit))
    }
}

fn submit(this: This<'_, '_, ProcessPool>, args: Args<'_>) -> RawResult {
    let py = this.py();
    if args.positional() == 0 {
        let message = "submit() missing 1 required positional argument: 'fn'";
        return Err(Raised::new::<PyTypeError>(py, message));
    }
    this.submit_call(py, args.values(), args.names(), Options::default())
}

const SUBMIT: &str = "($self, fn, /, *args, **kwargs)\n--\n\n\
Have a worker call `fn(*args, **kwargs)`; the future of its result.\n\n\
The call is pickled by this thread, at once. Never waits for a worker; may start one.\n\n\
Raises RuntimeError after `shutdown` and at interpreter exit, BrokenProcessPool when an initializer has failed or \
workers can't be started. What can't be pickled is an error of the call: its future has it.";

methods! { add_methods for ProcessPool {
    "submit" => keywords submit, SUBMIT;
} }

/// Adds what PyO3 does not to the class.
pub fn finish(py: Python<'_>) -> PyResult<()> {
    add_methods(py)
}
