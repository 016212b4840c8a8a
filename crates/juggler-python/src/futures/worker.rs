//! What the threads of a pool do, and what becomes of all pools at a fork and at exit.

use super::stdlib;
use super::task::Task;
use super::tracing;
use crate::gate::{PyGate, current_thread};
use crate::obj::Obj;
use crate::trace::{self, CounterCell};
use juggler_sync::pool::Scheduler;
use juggler_sync::rlock::ThreadId;
use juggler_sync::sync::{Arc, AtomicU32, Ordering};
use juggler_sync::sys::monotonic_nanos;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::sync::PyOnceLock;
use pyo3::types::{PySet, PyTuple};
use std::sync::{Mutex, PoisonError, Weak};

/// What an executor shares with its workers. They hold nothing else of it, so that it can go while they work.
pub struct Pool {
    pub scheduler: Scheduler<Task>,
    broken: AtomicU32,
    /// The class of the exception that calls get then, if the executor's class names one (from 3.14).
    pub broken_class: Option<Obj>,
    /// How often this process was forked off with the pool in it.
    forks: AtomicU32,
    /// Whether the executor still has the threads that stayed behind in the parent.
    forked: AtomicU32,
    /// The identities of the threads.
    workers: Mutex<Vec<ThreadId>>,
    pub counter: CounterCell,
}

impl Pool {
    /// A pool that starts up to `max_workers` threads.
    pub fn new(max_workers: usize, broken_class: Option<Obj>) -> Self {
        Self {
            scheduler: Scheduler::new(max_workers),
            broken: AtomicU32::new(0),
            broken_class,
            forks: AtomicU32::new(0),
            forked: AtomicU32::new(0),
            workers: Mutex::new(Vec::new()),
            counter: CounterCell::new(),
        }
    }

    /// The identities of the threads, for the tracer.
    pub fn worker_ids(&self) -> Vec<ThreadId> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change_workers(&self, change: impl FnOnce(&mut Vec<ThreadId>)) {
        change(&mut self.workers.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Whether an initializer has failed.
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire) != 0
    }

    /// Has `submit` refused from now on.
    pub fn mark_broken(&self) {
        self.broken.store(1, Ordering::Release);
        self.scheduler.close();
    }

    /// Whether the process was forked since this was asked last.
    pub fn take_forked(&self) -> bool {
        self.forked.load(Ordering::Relaxed) != 0 && self.forked.swap(0, Ordering::Relaxed) != 0
    }
}

/// Every pool whose executor or worker lives.
static POOLS: Mutex<Vec<Weak<Pool>>> = Mutex::new(Vec::new());
static EXITING: AtomicU32 = AtomicU32::new(0);

/// Adds `pool` to those that are closed at exit.
pub fn register(pool: Pool) -> Arc<Pool> {
    let pool = Arc::new(pool);
    let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    if pools.len() == pools.capacity() {
        pools.retain(|pool| pool.strong_count() > 0);
    }
    pools.push(Arc::downgrade(&pool));
    drop(pools);
    // After the registration: `close_pools` either finds the pool or was seen here.
    if is_exiting() {
        pool.scheduler.close();
    }
    pool
}

fn pools() -> Vec<Arc<Pool>> {
    let pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    pools.iter().filter_map(Weak::upgrade).collect()
}

/// Whether [`close_pools`] was called.
pub fn is_exiting() -> bool {
    EXITING.load(Ordering::SeqCst) != 0
}

/// Has every pool, also ones that are yet to be made, take no more calls: the interpreter exits.
#[pyfunction]
#[pyo3(name = "_close_pools")]
pub fn close_pools() {
    EXITING.store(1, Ordering::SeqCst);
    for pool in pools() {
        pool.scheduler.close();
    }
}

/// Has every pool forget its workers, which do not exist in a forked child. The calls that waited for them are the
/// parent's to make; here their futures are cancelled, so that nobody waits for them.
#[pyfunction]
#[pyo3(name = "_forget_workers")]
pub fn forget_workers(py: Python<'_>) {
    for pool in pools() {
        let tasks = pool.scheduler.reset_after_fork();
        pool.forks.fetch_add(1, Ordering::Relaxed);
        pool.forked.store(1, Ordering::Relaxed);
        pool.change_workers(Vec::clear);
        for task in tasks {
            task.cancel(py);
        }
    }
}

static STARTER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// Sets the function that starts a thread: called with what it runs, its name and the set that it is added to.
#[pyfunction]
#[pyo3(name = "_set_worker_starter")]
pub fn set_worker_starter(py: Python<'_>, starter: Bound<'_, PyAny>) {
    // Importing the Python module anew changes nothing.
    let _ = STARTER.set(py, starter.unbind());
}

/// Starts a thread named `name` that does `worker`'s work, and adds it to `threads`.
pub fn start(py: Python<'_>, worker: Worker, name: String, threads: &Bound<'_, PySet>) -> PyResult<()> {
    let Some(starter) = STARTER.get(py) else {
        return Err(PyRuntimeError::new_err("juggler.futures has not been imported"));
    };
    starter.bind(py).call1((worker, name, threads)).map(drop)
}

/// How many calls a worker makes before it [gives way](give_way).
const CALLS: u32 = 16;

/// What a thread of a pool runs.
#[pyclass(frozen, module = "juggler.futures")]
pub struct Worker {
    pool: Arc<Pool>,
    initializer: Option<Obj>,
    initargs: Obj,
    /// Where it makes its calls, if the executor's class overrides `prepare_context`.
    context: Option<Obj>,
}

impl Worker {
    /// A worker of `pool` that begins with a call of `initializer` with the tuple `initargs`, or with what `context` does
    /// in its place.
    pub fn new(pool: Arc<Pool>, initializer: Option<Obj>, initargs: Obj, context: Option<Obj>) -> Self {
        Self { pool, initializer, initargs, context }
    }

    /// What comes before the first call; the `run` of the context if there is one.
    fn initialize(&self, py: Python<'_>) -> PyResult<Option<Obj>> {
        if let Some(context) = &self.context {
            context.bind(py).call_method0("initialize")?;
            return Ok(Some(context.bind(py).getattr("run")?.into()));
        }
        if let Some(initializer) = &self.initializer {
            let initargs: Vec<_> = self.initargs.bind(py).try_iter()?.collect::<PyResult<_>>()?;
            initializer.bind(py).call1(PyTuple::new(py, initargs)?)?;
        }
        Ok(None)
    }

    /// Makes calls, through `run` of the context if there is one.
    fn work(&self, py: Python<'_>, run: Option<&Obj>) {
        let forks = self.pool.forks.load(Ordering::Relaxed);
        let gate = PyGate::new(py);
        let mut calls = 0;
        // An error is one of a wait at the interpreter's end, and this thread ends with it.
        while let Some(mut task) = self.pool.scheduler.next(&gate).unwrap_or_else(|raised| {
            drop(raised.fetch(py));
            None
        }) {
            if let Some(run) = run {
                task.set_function(run.clone_ref(py));
            }
            if trace::on() {
                tracing::busy(py, &self.pool, || task.run(py));
            } else {
                task.run(py);
            }
            if self.pool.forks.load(Ordering::Relaxed) != forks {
                // This process was forked off by the call: the pool does not count this thread any more.
                return;
            }
            calls += 1;
            if calls == CALLS {
                calls = 0;
                give_way(py);
            }
        }
    }
}

/// Does what CPython does between the instructions of Python code: it lets another thread run that has waited for its
/// switch interval, and collects garbage if that is due. Calls of C functions one after another never come there, so a
/// Python function that does nothing is called. To detach instead would starve whoever waits: each time it is woken in
/// vain, its interval begins anew.
#[inline]
pub fn give_way(py: Python<'_>) {
    static NOTHING: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let nothing = NOTHING.get_or_try_init(py, || py.eval(c"lambda: None", None, None).map(Bound::unbind));
    if let Err(error) = nothing.and_then(|nothing| nothing.bind(py).call0()) {
        // An exception that another thread sent to this one, which came between two calls.
        error.write_unraisable(py, None);
    }
}

#[pymethods]
impl Worker {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        let run = match self.initialize(py) {
            Ok(run) => run,
            Err(error) => {
                stdlib::log(py, "critical", "Exception in initializer:", &[], Some(&error))?;
                self.pool.break_down(py);
                self.pool.scheduler.worker_lost();
                return Ok(());
            }
        };
        let (begin, me) = (monotonic_nanos(), current_thread());
        self.pool.change_workers(|workers| workers.push(me));
        self.work(py, run.as_ref());
        self.pool.change_workers(|workers| workers.retain(|&worker| worker != me));
        tracing::existed(py, &self.pool, begin);
        self.context.as_ref().map_or(Ok(()), |context| context.bind(py).call_method0("finalize").map(drop))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.initargs.visit(&visit)?;
        self.context.as_ref().map_or(Ok(()), |context| context.visit(&visit))?;
        self.initializer.as_ref().map_or(Ok(()), |initializer| initializer.visit(&visit))
    }
}
