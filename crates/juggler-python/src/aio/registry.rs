//! The tasks that are not done.
//!
//! A loop holds its tasks from their creation to their end, so that a task nobody refers to is not collected midway, as it
//! can be in the standard library. Ours has its [`Tasks`]; any other loop gets one as an attribute, so that tasks live and
//! die with their loop, which the garbage collector sees through.
//!
//! `asyncio.all_tasks` asks a weak set for the tasks that are not its own. `juggler.asyncio` has that set ask
//! [`pending_tasks`] too, so that a new task need not be added to it.

use super::cell::Attached;
use super::class;
use super::stdlib::Import;
use super::task::Task;
use crate::obj::Obj;
use crate::raw::Raised;
use juggler_sync::sync::Ordering;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::sync::PyOnceLock;

/// The tasks of a loop that are not done.
#[pyclass(frozen, weakref, module = "juggler.asyncio", name = "_Tasks")]
pub struct Tasks {
    tasks: Attached<Vec<Obj>>,
}

impl Tasks {
    /// An empty one, which [`pending_tasks`] knows.
    ///
    /// # Errors
    /// `MemoryError`
    pub fn create(py: Python<'_>) -> PyResult<Bound<'_, Self>> {
        let this = Bound::new(py, Self { tasks: Attached::new(Vec::new()) })?;
        known(py)?.call_method1(intern!(py, "add"), (&this,))?;
        Ok(this)
    }

    /// Holds a task; returns its place.
    #[inline]
    pub fn add(&self, py: Python<'_>, task: &Obj) {
        let held = task.clone_ref(py);
        self.tasks.with(py, |tasks| {
            class::assume::<Task>(py, task).place.store(tasks.len(), Ordering::Relaxed);
            tasks.push(held);
        });
    }

    /// Lets go of a task, if it is held.
    #[inline]
    pub fn discard(&self, py: Python<'_>, task: &Obj) {
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

    /// Lets go of all tasks: nothing will run them any more.
    pub fn clear(&self, py: Python<'_>) {
        let held = self.tasks.with(py, std::mem::take);
        drop(held);
    }
}

#[pymethods]
impl Tasks {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.tasks.peek(|tasks| tasks.iter().try_for_each(|task| task.visit(&visit))).unwrap_or(Ok(()))
    }

    fn __clear__(&self) {
        Python::attach(|py| self.clear(py));
    }
}

fn known(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static WEAK_SET: Import = Import::new("weakref", "WeakSet");
    static KNOWN: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let known = KNOWN.get_or_try_init(py, || PyResult::Ok(WEAK_SET.get(py)?.call0()?.unbind()))?;
    Ok(known.bind(py))
}

/// The tasks of `event_loop`.
///
/// # Errors
/// `MemoryError`
pub fn tasks_of<'py>(py: Python<'py>, event_loop: &Obj) -> Result<Bound<'py, Tasks>, Raised> {
    tasks_of_other(py, &event_loop.bind(py)).map_err(|error| Raised::from_err(py, error))
}

fn tasks_of_other<'py>(py: Python<'py>, event_loop: &Bound<'py, PyAny>) -> PyResult<Bound<'py, Tasks>> {
    static OF_NO_LOOP: PyOnceLock<Py<Tasks>> = PyOnceLock::new();
    let name = intern!(py, "_juggler_tasks");
    // A loop of tests answers to every name.
    if let Ok(Some(tasks)) = event_loop.getattr_opt(name)
        && let Ok(tasks) = tasks.cast_into::<Tasks>()
    {
        return Ok(tasks);
    }
    let tasks = Tasks::create(py)?;
    if event_loop.setattr(name, &tasks).is_ok() {
        return Ok(tasks);
    }
    // A loop without room for an attribute.
    Ok(OF_NO_LOOP.get_or_try_init(py, || PyResult::Ok(tasks.unbind()))?.bind(py).clone())
}

/// All tasks that are not done, of all loops, in all threads.
#[pyfunction]
#[pyo3(name = "_pending_tasks")]
pub fn pending_tasks(py: Python<'_>) -> PyResult<Vec<Bound<'_, PyAny>>> {
    let mut all = Vec::new();
    for registry in known(py)?.call_method0(intern!(py, "copy"))?.try_iter()? {
        let registry = registry?.cast_into::<Tasks>()?;
        let held: Vec<Obj> = registry.get().tasks.with(py, |tasks| tasks.iter().map(|task| task.clone_ref(py)).collect());
        all.extend(held.into_iter().map(|task| task.into_bound(py)));
    }
    Ok(all)
}
