//! `juggler.threading.ReadWriteLock`.

use crate::gate::PyGate;
use crate::obj::Obj;
use crate::timeout;
use crate::trace::{self, CounterCell, Target};
use juggler_sync::{Deadline, rwlock};
use juggler_trace::Kind;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyString;

/// A lock that many readers hold together, or one writer alone.
///
/// `with lock.read():` and `with lock.write():`. The standard library has no counterpart.
///
/// Fairness: writers come first. A reader that arrives while a writer waits lets it pass, so readers that keep coming cannot
/// starve a writer. Not reentrant: a thread that reads inside a read may wait for a writer that waits for it. Any thread may
/// release. The deadlock detector does not follow it. Fork: held stays held in the child; the threads that waited are gone.
/// Blocking: entering a free side and leaving never give the GIL up.
///
/// Args:
///     name: what reports call the lock.
#[pyclass(frozen, weakref, module = "juggler.threading")]
pub struct ReadWriteLock {
    engine: rwlock::RwLock,
    name: Option<Obj>,
    counter: CounterCell,
}

impl ReadWriteLock {
    fn target(&self) -> Target<'_> {
        let (id, name) = (std::ptr::from_ref(&self.engine) as usize, self.name.as_ref());
        Target { id, kind: Kind::ReadWriteLock, class: "ReadWriteLock", name, counter: &self.counter }
    }

    fn enter(&self, py: Python<'_>, mode: Mode, deadline: Deadline) -> PyResult<bool> {
        let gate = PyGate::new(py);
        let enter = |deadline| match mode {
            Mode::Read => self.engine.read(&gate, deadline),
            Mode::Write => self.engine.write(&gate, deadline),
        };
        let target = self.target();
        // Counted only: to the deadlock detector a thread that waits here is one that may go on.
        target.count(py, |counter| counter.used(1));
        let entered = match enter(Deadline::PASSED) {
            Ok(false) if deadline != Deadline::PASSED => trace::timed(py, target, || enter(deadline)),
            entered => entered,
        };
        entered.map_err(|raised| raised.fetch(py))
    }

    fn leave(&self, mode: Mode) -> PyResult<()> {
        let left = match mode {
            Mode::Read => self.engine.release_read(),
            Mode::Write => self.engine.release_write(),
        };
        left.map_err(|rwlock::NotHeld| {
            let held = if mode == Mode::Read { "no reader holds" } else { "no writer holds" };
            PyRuntimeError::new_err(format!("release of a ReadWriteLock that {held}"))
        })
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Read,
    Write,
}

fn deadline(py: Python<'_>, timeout: Option<Bound<'_, PyAny>>) -> PyResult<Deadline> {
    let timeout = timeout.map_or(std::ptr::null_mut(), |timeout| timeout.as_ptr());
    timeout::of_wait(py, timeout).map_err(|raised| raised.fetch(py))
}

#[pymethods]
impl ReadWriteLock {
    #[new]
    #[pyo3(signature = (*, name=None))]
    fn new(py: Python<'_>, name: Option<Bound<'_, PyString>>) -> Self {
        let (name, counter) = (name.map(|name| name.into_any().into()), CounterCell::new());
        trace::created(py, "ReadWriteLock", name.as_ref(), &counter);
        Self { engine: rwlock::RwLock::default(), name, counter }
    }

    /// The name given at construction, or None.
    #[getter]
    fn name(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.name.as_ref().map(|name| name.bind(py).to_owned().unbind())
    }

    /// A context manager that holds the lock as a reader.
    ///
    /// Does not enter yet: the `with` statement does, and waits as long as it takes.
    fn read(slf: Py<Self>) -> ReadWriteLockSide {
        ReadWriteLockSide { lock: slf, mode: Mode::Read }
    }

    /// A context manager that holds the lock as the writer.
    ///
    /// Does not enter yet: the `with` statement does, and waits as long as it takes.
    fn write(slf: Py<Self>) -> ReadWriteLockSide {
        ReadWriteLockSide { lock: slf, mode: Mode::Write }
    }

    /// Enter as a reader, waiting until that is possible.
    ///
    /// A wait releases the GIL; signal handlers run in the middle of it, and one that raises ends it.
    ///
    /// Args:
    ///     timeout: seconds on the monotonic clock to wait at most; None waits for ever, 0 not at all.
    ///
    /// Returns:
    ///     Whether it entered.
    #[pyo3(signature = (timeout=None))]
    fn acquire_read(&self, py: Python<'_>, timeout: Option<Bound<'_, PyAny>>) -> PyResult<bool> {
        self.enter(py, Mode::Read, deadline(py, timeout)?)
    }

    /// Enter as the writer, waiting until that is possible.
    ///
    /// A wait releases the GIL; signal handlers run in the middle of it, and one that raises ends it.
    ///
    /// Args:
    ///     timeout: seconds on the monotonic clock to wait at most; None waits for ever, 0 not at all.
    ///
    /// Returns:
    ///     Whether it entered.
    #[pyo3(signature = (timeout=None))]
    fn acquire_write(&self, py: Python<'_>, timeout: Option<Bound<'_, PyAny>>) -> PyResult<bool> {
        self.enter(py, Mode::Write, deadline(py, timeout)?)
    }

    /// Leave as a reader and wake whoever may enter now. Never blocks.
    ///
    /// Raises:
    ///     RuntimeError: no reader is inside.
    fn release_read(&self) -> PyResult<()> {
        self.leave(Mode::Read)
    }

    /// Leave as the writer and wake whoever may enter now. Never blocks.
    ///
    /// Raises:
    ///     RuntimeError: no writer is inside.
    fn release_write(&self) -> PyResult<()> {
        self.leave(Mode::Write)
    }

    /// Who is inside and who waits, as a `ReadWriteLockStatistics`.
    ///
    /// A snapshot for reports and tests; never blocks, and may be out of date when you read it.
    /// The standard library has no counterpart.
    fn statistics(&self) -> ReadWriteLockStatistics {
        let now = self.engine.statistics();
        ReadWriteLockStatistics { readers: now.readers, writing: now.writing, waiting: now.waiting }
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let now = slf.get().engine.statistics();
        let state = match (now.writing, now.readers) {
            (true, _) => "writing".to_owned(),
            (false, 0) => "unlocked".to_owned(),
            (false, readers) => format!("readers={readers}"),
        };
        let name = match &slf.get().name {
            Some(name) => format!(" {}", name.bind(slf.py()).repr()?),
            None => String::new(),
        };
        Ok(format!("<{state} threading.ReadWriteLock object{name} at {:#x}>", slf.as_ptr() as usize))
    }
}

/// One side of a `ReadWriteLock` as a context manager, from its `read()` or `write()`; may be used again and again.
///
/// The standard library has no counterpart.
#[pyclass(frozen, module = "juggler.threading")]
pub struct ReadWriteLockSide {
    lock: Py<ReadWriteLock>,
    mode: Mode,
}

#[pymethods]
impl ReadWriteLockSide {
    /// Enter this side, waiting as long as it takes.
    fn __enter__(&self, py: Python<'_>) -> PyResult<bool> {
        self.lock.get().enter(py, self.mode, Deadline::NEVER)
    }

    /// Leave this side, whatever the `with` block ended in.
    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, _exception: &Bound<'_, pyo3::types::PyTuple>) -> PyResult<()> {
        self.lock.get().leave(self.mode)
    }
}

/// What a `ReadWriteLock` is doing at a moment; see `ReadWriteLock.statistics`.
#[pyclass(frozen, get_all, module = "juggler.threading")]
pub struct ReadWriteLockStatistics {
    /// Readers inside.
    readers: u64,
    /// Whether a writer is inside.
    writing: bool,
    /// Threads that wait, readers and writers.
    waiting: usize,
}

#[pymethods]
impl ReadWriteLockStatistics {
    fn __repr__(&self) -> String {
        let writing = if self.writing { "True" } else { "False" };
        format!("ReadWriteLockStatistics(readers={}, writing={writing}, waiting={})", self.readers, self.waiting)
    }
}
