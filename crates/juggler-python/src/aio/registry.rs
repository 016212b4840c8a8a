//! The tasks that are not done.
//!
//! A loop holds its tasks from their creation to their end, so that a task nobody refers to is not collected midway, as it
//! can be in the standard library. Ours has them in [`Held`]; any other loop gets [`Tasks`] as an attribute, so that tasks
//! live and die with their loop, which the garbage collector sees through.
//!
//! `asyncio.all_tasks` asks a weak set for the tasks that are not its own. `juggler.asyncio` has that set ask
//! [`pending_tasks`] too, so that a new task need not be added to it.

use super::class;
use super::event_loop::{self, Loop};
use super::stdlib::Import;
use super::task::Task;
use crate::attached::Attached;
use crate::obj::Obj;
use crate::raw::Raised;
use juggler_sync::sync::{AtomicU32, Ordering};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::sync::PyOnceLock;

/// Tasks, each of which knows its place here.
pub struct Held {
    tasks: Attached<Vec<Obj>>,
    /// Whether [`pending_tasks`] asks the owner.
    remembered: AtomicU32,
}

impl Default for Held {
    fn default() -> Self {
        Self { tasks: Attached::new(Vec::new()), remembered: AtomicU32::new(0) }
    }
}

impl Held {
    #[inline]
    fn add(&self, py: Python<'_>, task: &Obj) {
        let held = task.clone_ref(py);
        self.tasks.with(py, |tasks| {
            class::assume::<Task>(py, task).place.store(tasks.len(), Ordering::Relaxed);
            tasks.push(held);
        });
    }

    #[inline]
    fn discard(&self, py: Python<'_>, task: &Obj) {
        let place = &class::assume::<Task>(py, task).place;
        let held = self.tasks.with(py, |tasks| {
            let at = place.load(Ordering::Relaxed);
            if tasks.get(at).is_none_or(|held| held.as_ptr() != task.as_ptr()) {
                return None;
            }
            let held = tasks.swap_remove(at);
            if let Some(moved) = tasks.get(at) {
                class::assume::<Task>(py, moved).place.store(at, Ordering::Relaxed);
            }
            Some(held)
        });
        drop(held);
    }

    /// Lets go of all: nothing will run them any more.
    pub fn clear(&self, py: Python<'_>) {
        let held = self.tasks.with(py, std::mem::take);
        drop(held);
    }

    fn copy(&self, py: Python<'_>) -> Vec<Obj> {
        self.tasks.with(py, |tasks| tasks.iter().map(|task| task.clone_ref(py)).collect())
    }

    /// Shows them to the garbage collector.
    pub fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.tasks.traverse(|tasks| tasks.iter().try_for_each(|task| task.visit(visit)))
    }
}

/// The tasks of a loop that is not ours.
#[pyclass(frozen, weakref, module = "juggler.asyncio", name = "_Tasks")]
pub struct Tasks {
    held: Held,
}

#[pymethods]
impl Tasks {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.held.visit(&visit)
    }

    fn __clear__(&self, py: Python<'_>) {
        self.held.clear(py);
    }
}

/// Has `event_loop` hold `task`.
///
/// # Errors
/// `MemoryError`
#[inline]
pub fn add(py: Python<'_>, event_loop: &Obj, task: &Obj) -> Result<(), Raised> {
    match event_loop::ours(py, event_loop) {
        Some(ours) => {
            if ours.tasks.remembered.load(Ordering::Relaxed) == 0 {
                remember(ours.as_any()).map_err(|error| Raised::from_err(py, error))?;
                ours.tasks.remembered.store(1, Ordering::Relaxed);
            }
            ours.tasks.add(py, task);
        }
        None => of_other(py, event_loop)?.get().held.add(py, task),
    }
    Ok(())
}

/// Has `event_loop` let go of `task`, if it holds it.
///
/// # Errors
/// `MemoryError`
#[inline]
pub fn discard(py: Python<'_>, event_loop: &Obj, task: &Obj) -> Result<(), Raised> {
    match event_loop::ours(py, event_loop) {
        Some(ours) => ours.tasks.discard(py, task),
        None => of_other(py, event_loop)?.get().held.discard(py, task),
    }
    Ok(())
}

fn of_other<'py>(py: Python<'py>, event_loop: &Obj) -> Result<Bound<'py, Tasks>, Raised> {
    find_or_make(&event_loop.bind(py)).map_err(|error| Raised::from_err(py, error))
}

fn find_or_make<'py>(event_loop: &Bound<'py, PyAny>) -> PyResult<Bound<'py, Tasks>> {
    static OF_NO_LOOP: PyOnceLock<Py<Tasks>> = PyOnceLock::new();
    let py = event_loop.py();
    let name = intern!(py, "_juggler_tasks");
    // A mock answers to every name.
    if let Ok(Some(tasks)) = event_loop.getattr_opt(name)
        && let Ok(tasks) = tasks.cast_into::<Tasks>()
    {
        return Ok(tasks);
    }
    let tasks = Bound::new(py, Tasks { held: Held::default() })?;
    remember(tasks.as_any())?;
    if event_loop.setattr(name, &tasks).is_ok() {
        return Ok(tasks);
    }
    // A loop without room for an attribute.
    Ok(OF_NO_LOOP.get_or_try_init(py, || PyResult::Ok(tasks.unbind()))?.bind(py).clone())
}

fn known(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static WEAK_SET: Import = Import::new("weakref", "WeakSet");
    static KNOWN: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let known = KNOWN.get_or_try_init(py, || PyResult::Ok(WEAK_SET.get(py)?.call0()?.unbind()))?;
    Ok(known.bind(py))
}

/// Has [`pending_tasks`] ask `holder`, a loop of ours or the tasks of another.
///
/// # Errors
/// `MemoryError`
fn remember(holder: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = holder.py();
    known(py)?.call_method1(intern!(py, "add"), (holder,)).map(drop)
}

/// All tasks that are not done, of all loops, in all threads.
#[pyfunction]
#[pyo3(name = "_pending_tasks")]
pub fn pending_tasks(py: Python<'_>) -> PyResult<Vec<Bound<'_, PyAny>>> {
    let mut all = Vec::new();
    for holder in known(py)?.call_method0(intern!(py, "copy"))?.try_iter()? {
        let holder = holder?;
        let held = match holder.cast::<Loop>() {
            Ok(ours) => ours.get().tasks.copy(py),
            Err(_) => holder.cast::<Tasks>()?.get().held.copy(py),
        };
        all.extend(held.into_iter().map(|task| task.into_bound(py)));
    }
    Ok(all)
}
