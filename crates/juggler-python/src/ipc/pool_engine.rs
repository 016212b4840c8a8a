//! What the threads and the staff of a `ProcessPoolExecutor` work with.

use super::pool::{Pool, Task};
use super::pool_collect::{BACKLOG, cancelled, finish, name_of};
use crate::futures::future::{Future, Outcome};
use crate::gate::{self, PyGate};
use juggler_ipc::pool::parent::Settled;
use juggler_ipc::pool::table::MAX_WORKERS;
use juggler_sync::sync::{Arc, Ordering};
use juggler_sync::{Deadline, Gate, Waited};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::os::fd::{AsFd, AsRawFd};

/// What the threads and the staff of a process pool work with.
#[pyclass(frozen, module = "juggler.futures")]
pub struct ProcessPoolEngine {
    pub pool: Arc<Pool>,
}

/// A call that a dead worker held: its future, why it was being stopped, of a chunk how many were done.
type Lost<'py> = (Bound<'py, PyAny>, Option<&'static str>, u32);
/// What a dead worker leaves: its desk, the call that it held, whether it ever worked, whether its initializer raised.
type Dead<'py> = (usize, Option<Lost<'py>>, bool, bool);

/// A pool's numbers: waiting, deepest, workers, idle, in flight, moved bytes.
type Numbers = (usize, usize, usize, usize, usize);

fn told(py: Python<'_>, worker: usize, settled: Settled<Task>) -> Dead<'_> {
    let lost = settled.lost.map(|lost| (lost.owner.future.into_bound(py), name_of(lost.stop), lost.progress));
    (worker, lost, settled.worked, settled.unfit)
}

#[pymethods]
impl ProcessPoolEngine {
    #[new]
    fn new(max_workers: usize, define_main: bool, memory_limit: Option<u64>, arena: usize) -> PyResult<Self> {
        if max_workers > MAX_WORKERS {
            return Err(PyValueError::new_err(format!("max_workers must be {MAX_WORKERS} at most")));
        }
        Ok(Self { pool: Pool::new(max_workers, define_main, memory_limit, arena)? })
    }

    /// The descriptor of the pool's segment.
    fn fileno(&self) -> i32 {
        self.pool.parent.table().as_fd().as_raw_fd()
    }

    /// The number of a free desk, which is taken now.
    fn take_desk(&self) -> Option<usize> {
        self.pool.parent.take_desk()
    }

    /// Watches the process at a desk; False if it is dead already.
    fn watch(&self, worker: usize, pid: u32) -> PyResult<bool> {
        match self.pool.watch.add(worker, pid) {
            Ok(()) => {
                self.pool.watch.ring();
                Ok(true)
            }
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Refuses calls from now on.
    fn close(&self) {
        self.pool.close();
    }

    /// Refuses calls with BrokenProcessPool(why), and takes out all that are not done: their futures.
    fn break_down<'py>(&self, py: Python<'py>, why: Bound<'py, PyAny>) -> Vec<Bound<'py, PyAny>> {
        let stale = self.pool.broken.lock().replace(why.into());
        drop(stale);
        self.pool.close();
        self.pool.parent.abandon().into_iter().map(|task| task.future.into_bound(py)).collect()
    }

    /// Why it is broken, or None.
    #[getter]
    fn broken<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let why = self.pool.broken.lock().as_ref().map(|why| why.clone_ref(py));
        why.map(|why| why.into_bound(py))
    }

    #[getter]
    fn closed(&self) -> bool {
        self.pool.parent.is_closed()
    }

    /// Whether calls are not done, or not collected.
    #[getter]
    fn busy(&self) -> bool {
        self.pool.parent.is_busy()
    }

    #[getter]
    fn foreign(&self) -> bool {
        self.pool.is_foreign()
    }

    /// Whether workers have no `__main__` of their own.
    #[getter]
    fn define_main(&self) -> bool {
        self.pool.define_main
    }

    /// Whether workers are told to end.
    #[getter]
    fn closing(&self) -> bool {
        self.pool.parent.table().is_closing()
    }

    /// Cancels the calls that no worker has.
    fn cancel_all(&self, py: Python<'_>) {
        let tasks = self.pool.parent.cancel_all();
        for task in tasks {
            cancelled(py, task);
        }
        self.pool.nudge();
    }

    /// The numbers of the pool.
    fn numbers(&self) -> Numbers {
        let numbers = self.pool.parent.statistics();
        (numbers.waiting, numbers.deepest, numbers.workers, numbers.idle, numbers.in_flight)
    }

    /// Of the memory for large buffers: how many bytes there are, are used, and are free but keep their memory.
    fn arena(&self) -> (usize, usize, usize) {
        let usage = self.pool.parent.table().arena().usage();
        (usage.capacity, usage.used, usage.warm)
    }

    /// Of a desk: process, whether it is busy, calls done, bytes moved.
    fn desk(&self, worker: usize) -> (u32, bool, u64, u64) {
        let desk = self.pool.parent.table().desk(worker);
        (
            desk.pid.load(Ordering::Acquire),
            desk.busy.load(Ordering::Relaxed) != 0,
            desk.tasks.load(Ordering::Relaxed),
            desk.bytes.load(Ordering::Relaxed),
        )
    }

    /// Waits until workers die or somebody rings, or `most` milliseconds (-1: for ever); what the dead leave. Stops calls at
    /// their deadlines meanwhile.
    fn supervise<'py>(&self, py: Python<'py>, most: i32) -> Vec<Dead<'py>> {
        let pool = &self.pool;
        let settled: Vec<_> = gate::without_gil(py, || {
            loop {
                let ticking = pool.parent.tick(pool.memory_limit, |worker, signal| pool.watch.signal(worker, signal));
                let tending = pool.parent.tend();
                let patience = match (ticking, tending) {
                    _ if most >= 0 => most,
                    (true, _) => 10,
                    (false, true) => 1000,
                    (false, false) => -1,
                };
                let (dead, rung) = pool.watch.wait(patience);
                for &worker in &dead {
                    pool.watch.remove(worker);
                }
                if rung || !dead.is_empty() || most >= 0 {
                    return dead.into_iter().map(|worker| (worker, pool.parent.settle(worker))).collect();
                }
            }
        });
        settled.into_iter().map(|(worker, settled)| told(py, worker, settled)).collect()
    }

    /// What the worker at a desk leaves that is dead and was not watched.
    fn settle<'py>(&self, py: Python<'py>, worker: usize) -> Dead<'py> {
        told(py, worker, self.pool.parent.settle(worker))
    }

    /// Gives back the desk of a worker that is buried, or was never born.
    fn leave_desk(&self, worker: usize) {
        self.pool.parent.leave_desk(worker);
    }

    /// Ends a future with an exception, unless it is done.
    fn fail(&self, future: &Bound<'_, Future>, error: Bound<'_, PyAny>) -> PyResult<()> {
        let task = Task { future: future.clone().into_any().into() };
        let finished = finish(future.py(), &task, Outcome::Error(error.into()));
        self.pool.nudge();
        finished
    }

    /// Whether calls wait for a worker.
    #[getter]
    fn waiting(&self) -> bool {
        self.pool.parent.statistics().waiting > 0
    }

    /// Ends the futures of all that is done.
    fn collect(&self, py: Python<'_>) -> PyResult<()> {
        self.pool.collect(py).map(drop).map_err(|raised| raised.fetch(py))
    }

    /// Has calls collected without anybody waiting for them, or raises what keeps a thread from being started.
    fn collect_eagerly(&self, py: Python<'_>) -> PyResult<()> {
        self.pool.collect_eagerly(py, false).map_err(|raised| raised.fetch(py))
    }

    /// What the collector does, until the pool is closed and everything is collected.
    fn collect_all(&self, py: Python<'_>) -> PyResult<()> {
        let pool = &self.pool;
        let gate = PyGate::new(py);
        let led = loop {
            let turn = pool.turn.load(Ordering::SeqCst);
            let busy = pool.parent.is_busy();
            if !busy {
                pool.eager.store(0, Ordering::SeqCst);
            }
            if pool.parent.is_closed() && !busy {
                break Ok(());
            }
            if pool.eager.load(Ordering::SeqCst) != 0 {
                // Until nothing is left to be told.
                if let Err(raised) = pool.wait_until(py, Deadline::NEVER, || !pool.parent.is_busy()) {
                    break Err(raised);
                }
                continue;
            }
            let deadline = if pool.parent.has_backlog() { Deadline::after(BACKLOG) } else { Deadline::NEVER };
            pool.followers.fetch_add(1, Ordering::SeqCst);
            let waited = gate.wait(&pool.turn, turn, deadline);
            pool.followers.fetch_sub(1, Ordering::SeqCst);
            match waited {
                Ok(Waited::TimedOut) => {
                    if let Err(raised) = pool.collect(py) {
                        break Err(raised);
                    }
                }
                Ok(Waited::Woken) => {}
                Err(raised) => break Err(raised),
            }
        };
        led.map_err(|raised| raised.fetch(py))
    }
}
