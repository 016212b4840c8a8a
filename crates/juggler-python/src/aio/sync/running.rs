//! Which loop a primitive belongs to: the one that runs when somebody first has to wait.
#![allow(unsafe_code)]

use crate::aio::current;
#[cfg(not(Py_3_14))]
use crate::aio::event_loop;
use crate::aio::future::none;
use crate::attached::Attached;
use crate::gc::Ready;
use crate::obj::Obj;
use crate::raw::{Raised, This};
use pyo3::PyClass;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::pyclass::boolean_struct::True;
use pyo3::pyclass::{PyTraverseError, PyVisit};

/// What the primitives have in common: the loop that they are bound to.
#[pyclass(frozen, weakref, dict, subclass, name = "_LoopBoundMixin", module = "asyncio.mixins")]
pub struct LoopBound {
    ready: Ready,
    /// None until somebody waits.
    bound_to: Attached<Option<Obj>>,
}

impl LoopBound {
    /// Not bound yet.
    pub fn new() -> Self {
        Self { ready: Ready::new(), bound_to: Attached::new(None) }
    }

    /// As [`LoopBound::running`], of an heir.
    ///
    /// # Errors
    /// As there.
    #[inline(always)]
    pub fn of<T>(heir: This<'_, '_, T>) -> Result<Obj, Raised>
    where
        T: PyClass<Frozen = True, BaseType = Self> + Sync,
    {
        // SAFETY: an instance of `T` is one of its base, too.
        let base: This<'_, '_, Self> = unsafe { This::new(heir.py(), heir.as_any().as_ptr()) };
        base.running(heir.as_any())
    }

    /// The running loop, to which `owner`, whose base this is, is bound from now on; None if none runs.
    ///
    /// # Errors
    /// `RuntimeError` if `owner` is bound to another one.
    pub fn running(&self, owner: &Bound<'_, PyAny>) -> Result<Obj, Raised> {
        let py = owner.py();
        #[cfg(not(Py_3_14))]
        if let Some(running) = self.bound_and_running(py) {
            return Ok(running);
        }
        let running = current::running_loop(py)?;
        let is_ours = self.bound_to.with(py, |bound_to| {
            if bound_to.is_none() {
                *bound_to = running.as_ref().map(|running| running.clone_ref(py));
            }
            bound_to.as_ref().map(Obj::as_ptr) == running.as_ref().map(Obj::as_ptr)
        });
        if is_ours { Ok(running.unwrap_or_else(none)) } else { Err(bound_elsewhere(owner)) }
    }
}

#[cfg(not(Py_3_14))]
impl LoopBound {
    /// The loop it is bound to, if that is one of ours and runs in this thread. Before 3.14, to ask the standard library which
    /// loop runs takes a call. If a program has another loop run within this one, a task of that other loop will be told when
    /// it awaits this one's future.
    fn bound_and_running(&self, py: Python<'_>) -> Option<Obj> {
        let bound = self.bound_to.with(py, |bound_to| bound_to.as_ref().map(|bound| bound.clone_ref(py)))?;
        event_loop::ours(py, &bound).is_some_and(|ours| ours.runs_here()).then_some(bound)
    }
}

#[cold]
fn bound_elsewhere(owner: &Bound<'_, PyAny>) -> Raised {
    match owner.repr() {
        Ok(repr) => Raised::new::<PyRuntimeError>(owner.py(), &format!("{repr} is bound to a different event loop")),
        Err(error) => Raised::from_err(owner.py(), error),
    }
}

#[pymethods]
impl LoopBound {
    /// The loop that it is bound to, or None.
    #[getter(_loop)]
    fn bound_to(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        let bound_to = self.bound_to.with(py, |bound_to| bound_to.as_ref().map(|ours| ours.clone_ref(py)));
        bound_to.map(|ours| ours.into_bound(py).unbind())
    }

    #[setter(_loop)]
    fn bind(&self, py: Python<'_>, to: Option<Bound<'_, PyAny>>) {
        let before = self.bound_to.with(py, |bound_to| std::mem::replace(bound_to, to.map(Obj::from)));
        drop(before);
    }

    /// The running loop, to which the object is bound from now on.
    fn _get_loop<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let running = slf.get().running(slf.as_any()).map_err(|raised| raised.fetch(py))?;
        Ok(running.into_bound(py))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if !self.ready.is_ready() {
            return Ok(());
        }
        self.bound_to.traverse(|bound_to| bound_to.as_ref().map_or(Ok(()), |ours| ours.visit(&visit)))
    }

    fn __clear__(&self, py: Python<'_>) {
        self.bind(py, None);
    }
}
