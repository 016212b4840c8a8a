//! `ProcessPoolExecutor`: submitting.
#![allow(unsafe_code)]

use super::functions::Functions;
use super::pickle::{self, Packed, Pickle};
use super::plain::Row;
use super::pool_engine::ProcessPoolEngine;
use super::pool_worker::{Form, Head};
use crate::futures::future::{self, Future, Outcome, Source};
use crate::futures::layout;
use crate::gc::Ready;
use crate::obj::Obj;
use crate::raw::{Args, Raised, RawResult, This, methods};
use juggler_ipc::pool::idle::Pace;
use juggler_ipc::pool::parent::{Options, Parent};
use juggler_ipc::pool::payload::Apart;
use juggler_ipc::pool::watch::Watch;
use juggler_sync::guarded::Guarded;
use juggler_sync::sync::{Arc, AtomicU32, Ordering};
use juggler_sync::sys::{Futex, monotonic_nanos};
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::{PyDict, PyList, PyTuple};
use std::sync::{Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

/// What the parent keeps of a call.
pub struct Task {
    pub future: Obj,
}

/// The arguments of a call, as they are sent.
enum Arguments {
    Plain(Row),
    Pickled(Pickle, Packed),
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
    /// How often results come.
    pub pace: Pace,
    /// Whether the collector was started.
    pub collector: AtomicU32,
    /// Whether the collector is to collect at once, as somebody waits to be told.
    pub eager: AtomicU32,
    functions: Functions,
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
    pub fn new(max_workers: usize, define_main: bool, memory_limit: Option<u64>, arena: usize) -> PyResult<Arc<Self>> {
        let pool = Arc::new(Self {
            parent: Parent::new(max_workers, arena)?,
            watch: Watch::new()?,
            leader: AtomicU32::new(0),
            turn: Futex::new(0),
            followers: AtomicU32::new(0),
            pace: Pace::default(),
            collector: AtomicU32::new(0),
            eager: AtomicU32::new(0),
            functions: Functions::new(define_main),
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

    /// Submits a call: `values` are the function and its arguments, the last ones named by the tuple `names`. Tells no worker.
    ///
    /// # Errors
    /// `RuntimeError` if the pool is closed, `BrokenProcessPool` if it is broken. What can't be pickled fails the future,
    /// which is then not queued.
    #[inline]
    pub fn submit(
        self: &Arc<Self>,
        py: Python<'_>,
        values: &[*mut ffi::PyObject],
        names: *mut ffi::PyObject,
        options: Options,
    ) -> Result<(Obj, bool), Raised> {
        if self.is_foreign() {
            let message = "the executor belongs to the process that this one was forked from";
            return Err(Raised::new::<PyRuntimeError>(py, message));
        }
        let id = self.parent.next_id();
        let source = Source { pool: self.clone(), id, priority: options.priority };
        let future = layout::create_from(py, Some(source))?;
        let task = Task { future: future.clone_ref(py) };
        let submitted = match self.encode(py, values, names) {
            Ok((mut head, function, arguments)) => {
                // A retry has to find what the first one found.
                head.private = options.retries > 0;
                // SAFETY: it is bytes.
                let function = function.as_ref().map_or(&[][..], |function| unsafe { pickle::contents(function) });
                let head = head.bytes();
                match arguments {
                    Arguments::Plain(row) => {
                        self.parent.submit(id, task, options, Apart::default(), &[&head, function, row.bytes()])
                    }
                    Arguments::Pickled(data, mut packed) => {
                        let apart = std::mem::take(&mut packed.apart);
                        if !apart.blocks.is_empty() {
                            self.tend();
                        }
                        let first = [&head, function, data.bytes()];
                        if apart.count() == 0 {
                            self.parent.submit(id, task, options, apart, &first)
                        } else {
                            self.parent.submit(id, task, options, apart, &packed.parts(&first))
                        }
                    }
                }
            }
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
            Ok(waits) => {
                if waits || id % COLLECTED == 0 {
                    self.collect_plain(py);
                }
                if waits && self.parent.has_backlog() {
                    self.ensure_collector(py, true)?;
                }
                if options.timeout > 0 {
                    self.watch.ring();
                }
                Ok((future, true))
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

    /// Has the supervisor look after the arena.
    #[inline]
    pub fn tend(&self) {
        if self.parent.wants_tending() {
            self.watch.ring();
        }
    }

    /// A call as it is sent: its head, the function's pickle if that is apart, the rest.
    #[inline]
    fn encode(
        &self,
        py: Python<'_>,
        values: &[*mut ffi::PyObject],
        names: *mut ffi::PyObject,
    ) -> Result<(Head, Option<Obj>, Arguments), Raised> {
        if let Some(function) = self.functions.pickle(py, values[0]) {
            // SAFETY: `Functions` has bytes.
            let length = unsafe { pickle::contents(&function) }.len() as u32;
            let head = |form| Head { function: length, form, private: false };
            if names.is_null()
                && let Some(row) = Row::of(&values[1..])?
            {
                return Ok((head(Form::Plain), Some(function), Arguments::Plain(row)));
            }
            // SAFETY: `names` is null or a tuple of as many names as there are named values; the values are live.
            let arguments = unsafe { arguments(py, &values[1..], names)? };
            match pickle::dumps(py, arguments.as_ptr()) {
                Ok(data) if !(self.define_main && pickle::mentions_main(data.bytes())) => {
                    let form = if names.is_null() { Form::Arguments } else { Form::Named };
                    return Ok((head(form), Some(function), self.pack(py, data)?));
                }
                Ok(_) => {}
                Err(raised) => drop(raised.fetch(py)),
            }
        }
        let data = self.encode_whole(py, values, names)?;
        Ok((Head { function: 0, form: Form::Whole, private: false }, None, self.pack(py, data)?))
    }

    fn pack(&self, py: Python<'_>, data: Pickle) -> Result<Arguments, Raised> {
        let packed = data.pack(py, |length| self.parent.room(length))?;
        Ok(Arguments::Pickled(data, packed))
    }

    /// The function, its arguments and their names in one pickle.
    #[cold]
    fn encode_whole(
        &self,
        py: Python<'_>,
        values: &[*mut ffi::PyObject],
        names: *mut ffi::PyObject,
    ) -> Result<Pickle, Raised> {
        let encode = || {
            // SAFETY: as in `encode`.
            let (function, arguments) = unsafe {
                let arguments = arguments(py, &values[1..], names).map_err(|raised| raised.fetch(py))?;
                (Bound::from_borrowed_ptr(py, values[0]), arguments.into_bound(py))
            };
            let (arguments, keywords) = match arguments.get_item(1) {
                Ok(keywords) if !names.is_null() => (arguments.get_item(0)?, keywords),
                _ => (arguments, PyDict::new(py).into_any()),
            };
            let call = PyTuple::new(py, [function, arguments, keywords])?;
            match pickle::dumps(py, call.as_ptr()) {
                Ok(data) if !(self.define_main && pickle::mentions_main(data.bytes())) => return Ok(data),
                Ok(_) => {}
                Err(raised) => drop(raised.fetch(py)),
            }
            Pickle::from_python(&super::pool_collect::hook(py, "dump_call")?.call1((call, self.define_main))?)
        };
        encode().map_err(|error| Raised::from_err(py, error))
    }

    /// Ends `future`, which no worker knows of, with `error`.
    #[cold]
    fn fail(&self, py: Python<'_>, future: Obj, error: &PyErr) -> Result<(Obj, bool), Raised> {
        // SAFETY: `layout::create_from` made it.
        let this = unsafe { This::<Future>::new(py, future.as_ptr()) };
        future::finish(this, Outcome::Error(error.value(py).clone().into_any().into()))?;
        Ok((future, false))
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

/// The tuple of `values`; if the last ones have `names`, the tuple of the others and the dictionary of these.
///
/// # Safety
/// The values are live objects, and `names` is null or a tuple of as many as there are named ones at most.
unsafe fn arguments(py: Python<'_>, values: &[*mut ffi::PyObject], names: *mut ffi::PyObject) -> Result<Obj, Raised> {
    // SAFETY: the caller's promise.
    unsafe {
        if names.is_null() {
            return tuple(values);
        }
        let (positional, named) = values.split_at(values.len() - ffi::PyTuple_GET_SIZE(names).unsigned_abs());
        let keywords = PyDict::new(py);
        for (at, &value) in named.iter().enumerate() {
            if ffi::PyDict_SetItem(keywords.as_ptr(), ffi::PyTuple_GET_ITEM(names, at as ffi::Py_ssize_t), value) < 0 {
                return Err(Raised);
            }
        }
        tuple(&[tuple(positional)?.as_ptr(), keywords.as_ptr()])
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

impl Parts {
    /// Has a worker see to what was submitted; whether one was missing, and has been started. A call that was not even
    /// `queued` starts one too, as in the standard library, which finds out when there is a worker.
    #[inline]
    fn call(&self, py: Python<'_>, queued: bool) -> PyResult<bool> {
        let missing = !queued || self.pool.parent.call();
        if missing {
            self.staff.bind(py).call_method0("grow")?;
        }
        Ok(missing)
    }
}

/// After how many calls whoever submits collects. The slots are used again while their memory is in the cache, or has never
/// been touched at all, and calls don't have to wait for slots that nobody frees.
const COLLECTED: u64 = 64;

/// While calls are submitted together, how long the first may wait until a worker is told, in nanoseconds. A worker that is
/// done with it before the next is there falls asleep, and every wake costs as much as a call.
const GATHER: u64 = 50_000;

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
        let (future, queued) = parts.pool.submit(py, values, names, options)?;
        parts.call(py, queued).map_err(|error| Raised::from_err(py, error))?;
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

    /// `submit` of `function` with each of `items`, or with its elements if `star`: the futures.
    fn _submit_all<'py>(
        &self,
        py: Python<'py>,
        function: &Bound<'py, PyAny>,
        items: &Bound<'py, PyList>,
        star: bool,
    ) -> PyResult<Bound<'py, PyList>> {
        let parts = self.parts()?;
        let futures = PyList::empty(py);
        let mut due = 0;
        let mut told = true;
        let mut submit = |item: Bound<'py, PyAny>| {
            let mut values = vec![function.as_ptr()];
            if star {
                values.extend(item.cast::<PyTuple>()?.iter_borrowed().map(|value| value.as_ptr()));
            } else {
                values.push(item.as_ptr());
            }
            let submitted = parts.pool.submit(py, &values, std::ptr::null_mut(), Options::default());
            let (future, queued) = submitted.map_err(|raised| raised.fetch(py))?;
            futures.append(future.into_bound(py))?;
            let now = monotonic_nanos();
            told = now >= due || !queued;
            if told && !parts.call(py, queued)? {
                due = now + GATHER;
            }
            PyResult::Ok(())
        };
        let submitted = items.iter().try_for_each(&mut submit);
        if !told {
            parts.call(py, true)?;
        }
        submitted.map(|()| futures)
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
