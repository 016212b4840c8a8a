//! Where the calls of a pool are made, if its class says so: `ThreadPoolExecutor.prepare_context` of 3.14.
//!
//! A subclass that overrides it gives two functions: one makes a context for each worker, the other makes a task of a
//! function and its arguments. The worker then calls `context.run(task)`, between `context.initialize()` and
//! `context.finalize()`. The standard library's own context makes the call, which workers do without one.

use super::pool::ThreadPoolExecutor;
use super::stdlib::THREAD_POOL_EXECUTOR;
use crate::obj::Obj;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::{PyDict, PyTuple};

const PREPARE: &str = "prepare_context";

/// Whether two class methods, which are bound to different classes, are one function.
fn is_same_method(one: &Bound<'_, PyAny>, other: &Bound<'_, PyAny>) -> PyResult<bool> {
    const FUNCTION: &str = "__func__";
    let Some(function) = one.getattr_opt(FUNCTION)? else { return Ok(false) };
    Ok(function.is(&other.getattr(FUNCTION)?))
}

/// What `prepare_context` gave.
pub struct Contexts {
    create: Obj,
    resolve: Obj,
}

impl Contexts {
    /// What the class of `executor` prepares; `None` if that is what the standard library's does.
    ///
    /// # Errors
    /// What `prepare_context` raises; `TypeError` for arguments where there is no such method.
    pub fn prepare(
        executor: &Bound<'_, ThreadPoolExecutor>,
        initializer: Option<&Bound<'_, PyAny>>,
        initargs: &Bound<'_, PyAny>,
        arguments: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Option<Self>> {
        let py = executor.py();
        let arguments = arguments.filter(|arguments| !arguments.is_empty());
        let Some(prepare) = executor.get_type().getattr_opt(PREPARE)? else {
            return match arguments.and_then(|arguments| arguments.iter().next()) {
                Some((name, _)) => {
                    let message = format!("ThreadPoolExecutor.__init__() got an unexpected keyword argument '{name}'");
                    Err(PyTypeError::new_err(message))
                }
                None => Ok(None),
            };
        };
        if arguments.is_none() && is_same_method(&prepare, &THREAD_POOL_EXECUTOR.get(py)?.getattr(PREPARE)?)? {
            return Ok(None);
        }
        let (create, resolve): (Bound<'_, PyAny>, Bound<'_, PyAny>) =
            prepare.call((initializer, initargs), arguments)?.extract()?;
        Ok(Some(Self { create: create.into(), resolve: resolve.into() }))
    }

    /// The context of a new worker.
    pub fn create(&self, py: Python<'_>) -> PyResult<Obj> {
        self.create.bind(py).call0().map(Obj::from)
    }

    /// The call of a context's `run` in place of that of `values[0]` with the others, the last of which are named by
    /// `names`. The worker puts its `run` into the first place.
    pub fn resolve(&self, py: Python<'_>, values: Box<[Obj]>, names: Option<Obj>) -> PyResult<Box<[Obj]>> {
        let mut values = values.into_vec().into_iter().map(|value| value.into_bound(py)).collect::<Vec<_>>();
        let named = PyDict::new(py);
        if let Some(names) = names {
            let names = names.into_bound(py).cast_into::<PyTuple>()?;
            let first = values.len() - names.len();
            for (name, value) in names.iter().zip(values.drain(first..)) {
                named.set_item(name, value)?;
            }
        }
        let function = values.remove(0);
        let task = self.resolve.bind(py).call1((function, PyTuple::new(py, values)?, named))?;
        Ok(Box::new([py.None().into_bound(py).into(), task.into()]))
    }

    /// Shows the functions to the garbage collector.
    pub fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.create.visit(visit)?;
        self.resolve.visit(visit)
    }
}
