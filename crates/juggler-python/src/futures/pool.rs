//! `concurrent.futures.ThreadPoolExecutor`.
#![allow(unsafe_code)]

use super::context::Contexts;
use super::map;
use super::stdlib::BROKEN_THREAD_POOL;
use super::task::Task;
use super::tracing;
use super::worker::{self, Pool, Worker};
use crate::gate;
use crate::gc::Ready;
use crate::obj::Obj;
use crate::raw::{Args, Raised, RawResult, This, methods};
use crate::semaphore::Semaphore;
use crate::trace;
use juggler_sync::pool::Submitted;
use juggler_sync::sync::Arc;
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::{PyDict, PySet, PyTuple};
use std::sync::OnceLock;

/// A pool of threads that make calls.
///
/// Stands in for `concurrent.futures.ThreadPoolExecutor`, and its subclass `juggler.futures.ThreadPoolExecutor` is one.
#[pyclass(frozen, weakref, dict, subclass, module = "concurrent.futures.thread")]
pub struct ThreadPoolExecutor {
    ready: Ready,
    /// Set by `__init__`.
    parts: OnceLock<Parts>,
}

struct Parts {
    pool: Arc<Pool>,
    max_workers: Obj,
    prefix: Obj,
    initializer: Option<Obj>,
    initargs: Obj,
    contexts: Option<Contexts>,
    /// The set of the threads.
    threads: Obj,
}

impl Drop for ThreadPoolExecutor {
    /// Nobody can submit any more: the workers end when they have done what there is to do.
    fn drop(&mut self) {
        if let Some(parts) = self.parts.get() {
            parts.pool.scheduler.close();
        }
    }
}

/// Why `submit` is refused once an initializer has failed.
const BROKEN: &str = "A thread initializer failed, the thread pool is not usable anymore";

impl ThreadPoolExecutor {
    fn parts(&self) -> PyResult<&Parts> {
        self.parts.get().ok_or_else(|| PyRuntimeError::new_err("ThreadPoolExecutor.__init__() was not called"))
    }

    /// Hands `task` to a worker.
    ///
    /// # Errors
    /// `RuntimeError` if the pool was shut down, `BrokenThreadPool` if an initializer failed, what starting a thread
    /// raises.
    #[inline(always)]
    fn enqueue(&self, py: Python<'_>, parts: &Parts, task: Task) -> Result<(), Raised> {
        tracing::queued(&parts.pool, task.key());
        match parts.pool.scheduler.submit(task) {
            Ok(Submitted::Queued(woken)) => {
                gate::yield_to(py, woken);
                Ok(())
            }
            Ok(Submitted::StartWorker) => {
                let started = parts.start_worker(py);
                started.map_err(|error| {
                    parts.pool.scheduler.worker_lost();
                    Raised::from_err(py, error)
                })
            }
            Err(task) => {
                tracing::ended(task.key());
                drop(task);
                Err(parts.pool.refusal(py))
            }
        }
    }

    /// Submits the call of `values[0]` with the others; its future.
    ///
    /// # Errors
    /// As `submit`.
    #[inline(always)]
    pub fn submit_call(&self, py: Python<'_>, values: Box<[Obj]>, names: Option<Obj>) -> Result<Obj, Raised> {
        let parts = self.parts().map_err(|error| Raised::from_err(py, error))?;
        let (values, names) = match &parts.contexts {
            None => (values, names),
            Some(contexts) => (contexts.resolve(py, values, names).map_err(|error| Raised::from_err(py, error))?, None),
        };
        let (task, future) = Task::new(py, values, names)?;
        self.enqueue(py, parts, task)?;
        Ok(future)
    }
}

impl Parts {
    fn threads<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PySet>> {
        let threads = self.threads.bind(py).to_owned().cast_into::<PySet>()?;
        if self.pool.take_forked() {
            threads.clear();
        }
        Ok(threads)
    }

    #[cold]
    fn start_worker(&self, py: Python<'_>) -> PyResult<()> {
        let threads = self.threads(py)?;
        let name = format!("{}_{}", *self.prefix.bind(py), threads.len());
        let initializer = self.initializer.as_ref().map(|initializer| initializer.clone_ref(py));
        let context = self.contexts.as_ref().map(|contexts| contexts.create(py)).transpose()?;
        let worker = Worker::new(self.pool.clone(), initializer, self.initargs.clone_ref(py), context);
        worker::start(py, worker, name, &threads)
    }
}

#[pymethods]
impl ThreadPoolExecutor {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs), text_signature = "(max_workers=None, thread_name_prefix='', initializer=None, initargs=())")]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self { ready: Ready::new(), parts: OnceLock::new() }
    }

    #[pyo3(signature = (max_workers=None, thread_name_prefix=None, initializer=None, initargs=None, **ctxkwargs))]
    fn __init__(
        slf: &Bound<'_, Self>,
        max_workers: Option<Bound<'_, PyAny>>,
        thread_name_prefix: Option<Bound<'_, PyAny>>,
        initializer: Option<Bound<'_, PyAny>>,
        initargs: Option<Bound<'_, PyAny>>,
        ctxkwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        let py = slf.py();
        let max_workers = match max_workers {
            Some(max_workers) => max_workers,
            None => default_max_workers(py)?.into_pyobject(py)?.into_any(),
        };
        let limit = limit_of(&max_workers)?;
        let initargs = initargs.unwrap_or_else(|| PyTuple::empty(py).into_any());
        let contexts = Contexts::prepare(slf, initializer.as_ref(), &initargs, ctxkwargs)?;
        if contexts.is_none()
            && let Some(initializer) = &initializer
            && !initializer.is_callable()
        {
            return Err(PyTypeError::new_err("initializer must be a callable"));
        }
        let prefix = match thread_name_prefix {
            Some(prefix) if prefix.is_truthy()? => prefix,
            _ => format!("ThreadPoolExecutor-{}", slf.call_method0("_counter")?).into_pyobject(py)?.into_any(),
        };
        let broken = slf.getattr_opt("BROKEN")?.map(Obj::from);
        let pool = worker::register(Pool::new(limit, broken));
        trace::created(py, "ThreadPoolExecutor", None, &pool.counter);
        let parts = Parts {
            pool,
            max_workers: max_workers.into(),
            prefix: prefix.into(),
            initializer: initializer.map(Obj::from),
            initargs: initargs.into(),
            contexts,
            threads: PySet::empty(py)?.into_any().into(),
        };
        slf.get().parts.set(parts).map_err(|_| PyRuntimeError::new_err("the executor is initialized already"))
    }

    /// Make the calls `fn(*args)` for each `args` of `zip(*iterables)`; as `concurrent.futures.Executor.map`.
    ///
    /// The calls are submitted before this returns; with `buffersize`, only so many are ahead of the results taken. The iterator
    /// waits for the next result with the GIL released and answers signals, so one Ctrl-C ends it. One that was begun and is
    /// closed, dropped or ended by an exception cancels the calls that have not begun; one that was not begun cancels nothing.
    ///
    /// Args:
    ///     fn: what is called.
    ///     iterables: its arguments, as for the built-in `map`.
    ///     timeout: seconds on the monotonic clock from now for all results together; None waits for ever.
    ///     chunksize: without effect, as in the standard library.
    ///     buffersize: how many calls may be submitted whose results were not taken; None for all. On every version (in the
    ///         standard library from 3.14).
    ///
    /// Returns:
    ///     An iterator over the results in the order of the arguments; an exception of a call is raised when its turn comes.
    #[pyo3(signature = (r#fn, *iterables, timeout=None, chunksize=None, buffersize=None), text_signature = "($self, fn, *iterables, timeout=None, chunksize=1, buffersize=None)")]
    fn map<'py>(
        slf: &Bound<'py, Self>,
        r#fn: Bound<'py, PyAny>,
        iterables: &Bound<'py, PyTuple>,
        timeout: Option<Bound<'py, PyAny>>,
        chunksize: Option<Bound<'py, PyAny>>,
        buffersize: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, map::Results>> {
        drop(chunksize);
        map::start(slf, r#fn, iterables, timeout, buffersize)
    }

    /// Take no more calls; as `concurrent.futures.Executor.shutdown`.
    ///
    /// Waits with the GIL released and answers signals.
    ///
    /// Args:
    ///     wait: return when all calls have ended and the threads with them.
    ///     cancel_futures: cancel the calls that have not begun.
    #[pyo3(signature = (wait=Truth(true), *, cancel_futures=Truth(false)), text_signature = "($self, wait=True, *, cancel_futures=False)")]
    fn shutdown(&self, py: Python<'_>, wait: Truth, cancel_futures: Truth) -> PyResult<()> {
        let parts = self.parts()?;
        parts.pool.scheduler.close();
        if cancel_futures.0 {
            for task in parts.pool.scheduler.drain() {
                task.cancel(py);
            }
        }
        if wait.0 {
            // A copy: a submission in another thread may just be adding its worker.
            for thread in parts.threads(py)?.call_method0("copy")?.try_iter()? {
                thread?.call_method0("join")?;
            }
        }
        Ok(())
    }

    /// How many calls wait and how many threads there are, as a `ThreadPoolExecutorStatistics`.
    ///
    /// A snapshot for reports and tests; never blocks, and may be out of date when you read it.
    /// The standard library has no counterpart.
    fn statistics(&self) -> PyResult<ThreadPoolExecutorStatistics> {
        let scheduler = &self.parts()?.pool.scheduler;
        let statistics = scheduler.statistics();
        Ok(ThreadPoolExecutorStatistics {
            queued: statistics.queued,
            deepest: statistics.deepest,
            workers: statistics.workers,
            idle: statistics.idle,
            max_workers: scheduler.max_workers(),
        })
    }

    #[getter(_max_workers)]
    fn max_workers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let parts = self.parts()?;
        let limit = parts.pool.scheduler.max_workers();
        // What was passed, unless it was changed.
        let passed = parts.max_workers.bind(py).to_owned();
        if limit_of(&passed)? == limit { Ok(passed) } else { Ok(limit.into_pyobject(py)?.into_any()) }
    }

    #[setter(_max_workers)]
    fn set_max_workers(&self, max_workers: Bound<'_, PyAny>) -> PyResult<()> {
        self.parts()?.pool.scheduler.set_max_workers(limit_of(&max_workers)?);
        Ok(())
    }

    #[getter(_thread_name_prefix)]
    fn thread_name_prefix<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.parts()?.prefix.bind(py).to_owned())
    }

    #[getter(_threads)]
    fn threads<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PySet>> {
        self.parts()?.threads(py)
    }

    #[getter(_initializer)]
    fn initializer<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        Ok(self.parts()?.initializer.as_ref().map(|initializer| initializer.bind(py).to_owned()))
    }

    #[getter(_initargs)]
    fn initargs<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.parts()?.initargs.bind(py).to_owned())
    }

    #[getter(_shutdown)]
    fn is_shut_down(&self) -> PyResult<bool> {
        Ok(self.parts()?.pool.scheduler.is_closed())
    }

    /// False, or why the pool is broken.
    #[getter(_broken)]
    fn broken<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        if self.parts()?.pool.is_broken() {
            return Ok(BROKEN.into_pyobject(py)?.into_any());
        }
        Ok(pyo3::types::PyBool::new(py, false).to_owned().into_any())
    }

    #[getter(_work_queue)]
    fn work_queue(&self) -> PyResult<WorkQueue> {
        Ok(WorkQueue { pool: self.parts()?.pool.clone() })
    }

    /// A copy: a semaphore that counts the idle workers of this moment.
    #[getter(_idle_semaphore)]
    fn idle_semaphore<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        py.get_type::<Semaphore>().call1((self.parts()?.pool.scheduler.statistics().idle,))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if !self.ready.is_ready() {
            return Ok(());
        }
        // Not the tasks: they belong to the workers, which do them also when the executor is gone.
        let Some(parts) = self.parts.get() else { return Ok(()) };
        for object in [&parts.max_workers, &parts.prefix, &parts.initargs, &parts.threads] {
            object.visit(&visit)?;
        }
        parts.contexts.as_ref().map_or(Ok(()), |contexts| contexts.visit(&visit))?;
        parts.initializer.as_ref().map_or(Ok(()), |initializer| initializer.visit(&visit))
    }
}

/// An argument of which only the truth counts, whatever it is.
struct Truth(bool);

impl<'py> FromPyObject<'_, 'py> for Truth {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        object.is_truthy().map(Self)
    }
}

/// How many workers `max_workers` stands for; a fraction of a worker is one.
fn limit_of(max_workers: &Bound<'_, PyAny>) -> PyResult<usize> {
    if max_workers.le(0)? {
        return Err(PyValueError::new_err("max_workers must be greater than 0"));
    }
    if let Ok(number) = max_workers.extract::<usize>() {
        return Ok(number);
    }
    // More than any machine has: infinity, or an integer beyond the machine's.
    Ok(max_workers.extract::<f64>()?.ceil() as usize)
}

/// `min(32, os.process_cpu_count() + 4)`: more than processors, for calls that wait, but not very many.
fn default_max_workers(py: Python<'_>) -> PyResult<usize> {
    let os = py.import("os")?;
    let processors = match os.getattr_opt("process_cpu_count")? {
        Some(count) => count.call0()?.extract::<Option<usize>>()?.unwrap_or(1),
        // What it counts, where it does not exist yet.
        None => os.call_method1("sched_getaffinity", (0,))?.len()?,
    };
    Ok((processors + 4).min(32))
}

/// What the calls wait in, as far as programs look at it.
#[pyclass(frozen, module = "juggler.futures")]
pub struct WorkQueue {
    pool: Arc<Pool>,
}

#[pymethods]
impl WorkQueue {
    /// How many calls wait for a worker.
    fn qsize(&self) -> usize {
        self.pool.scheduler.statistics().queued
    }

    /// Whether none does.
    fn empty(&self) -> bool {
        self.qsize() == 0
    }
}

/// What a `ThreadPoolExecutor` is doing at a moment; see `ThreadPoolExecutor.statistics`.
#[pyclass(frozen, get_all, module = "juggler.futures")]
pub struct ThreadPoolExecutorStatistics {
    /// Calls that wait for a worker.
    queued: usize,
    /// The most that ever waited.
    deepest: usize,
    /// Threads.
    workers: usize,
    /// Threads that wait for a call.
    idle: usize,
    /// The most threads it starts.
    max_workers: usize,
}

#[pymethods]
impl ThreadPoolExecutorStatistics {
    fn __repr__(&self) -> String {
        let Self { queued, deepest, workers, idle, max_workers } = self;
        format!(
            "ThreadPoolExecutorStatistics(queued={queued}, deepest={deepest}, workers={workers}, idle={idle}, \
             max_workers={max_workers})"
        )
    }
}

impl Pool {
    /// The exception for a submission that comes too late.
    #[cold]
    fn refusal(&self, py: Python<'_>) -> Raised {
        if self.is_broken() {
            let error = self.broken_error(py).map_or_else(|error| error, PyErr::from_value);
            return Raised::from_err(py, error);
        }
        let reason = if worker::is_exiting() { "interpreter shutdown" } else { "shutdown" };
        Raised::new::<PyRuntimeError>(py, &format!("cannot schedule new futures after {reason}"))
    }

    /// What calls get when an initializer has failed.
    fn broken_error<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match &self.broken_class {
            Some(class) => class.bind(py).call1((BROKEN,)),
            None => BROKEN_THREAD_POOL.get(py)?.call1((BROKEN,)),
        }
    }

    /// Ends every queued call: an initializer has failed.
    #[cold]
    pub fn break_down(&self, py: Python<'_>) {
        self.mark_broken();
        for task in self.scheduler.drain() {
            match self.broken_error(py) {
                Ok(error) => task.fail(py, &error),
                Err(error) => error.write_unraisable(py, None),
            }
        }
    }
}

fn submit(this: This<'_, '_, ThreadPoolExecutor>, args: Args<'_>) -> RawResult {
    let py = this.py();
    if args.positional() == 0 {
        let message = "submit() missing 1 required positional argument: 'fn'";
        return Err(Raised::new::<PyTypeError>(py, message));
    }
    // SAFETY: arguments are live objects, and the names a tuple or null.
    let (values, names) = unsafe {
        let values = args.values().iter().map(|&value| Obj::from_borrowed(value)).collect();
        let names = args.names();
        (values, (!names.is_null()).then(|| Obj::from_borrowed(names)))
    };
    this.submit_call(py, values, names).map(Obj::into_ptr)
}

const SUBMIT: &str = "($self, fn, /, *args, **kwargs)\n--\n\n\
Have a worker call `fn(*args, **kwargs)`; the future of its result.\n\n\
Calls begin in the order in which they were submitted. Does not wait and does not give the GIL up, but for at most 0.5 ms \
to a worker that had slept for 0.25 ms or more.\n\n\
Raises RuntimeError after `shutdown` and at interpreter exit, BrokenThreadPool when an initializer has failed.";

methods! { add_methods for ThreadPoolExecutor {
    "submit" => keywords submit, SUBMIT;
} }

/// Whether `executor.submit` is the method above, not one that a subclass or the instance puts in its place.
pub fn has_own_submit(executor: &Bound<'_, ThreadPoolExecutor>) -> PyResult<bool> {
    let submit = executor.getattr("submit")?;
    let found = submit.as_ptr();
    // SAFETY: `submit` is live; the flags and the receiver are read of a C function only.
    unsafe { Ok(ffi::PyCFunction_CheckExact(found) != 0 && ffi::PyCFunction_GetSelf(found) == executor.as_ptr()) }
}

/// Adds what PyO3 does not to the class.
pub fn finish(py: Python<'_>) -> PyResult<()> {
    add_methods(py)
}
