//! What is taken from the standard library: its exceptions, and the logger that it reports callbacks and workers to.
#![allow(unsafe_code)]

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple};

use crate::raw::Raised;

const BASE: &str = "concurrent.futures._base";

/// An object of the standard library, imported when it is first used.
pub struct Import {
    module: &'static str,
    name: &'static str,
    object: PyOnceLock<Py<PyAny>>,
}

impl Import {
    /// `name` of `module`.
    pub const fn new(module: &'static str, name: &'static str) -> Self {
        Self { module, name, object: PyOnceLock::new() }
    }

    /// The object.
    pub fn get<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyAny>> {
        let object =
            self.object.get_or_try_init(py, || PyResult::Ok(py.import(self.module)?.getattr(self.name)?.unbind()))?;
        Ok(object.bind(py))
    }

    /// Sets the exception that calling the object, a class, with `args` makes.
    #[cold]
    pub fn raise<'py>(&self, py: Python<'py>, args: impl pyo3::call::PyCallArgs<'py>) -> Raised {
        let error = match self.get(py).and_then(|class| class.call1(args)) {
            Ok(error) => PyErr::from_value(error),
            Err(error) => error,
        };
        Raised::from_err(py, error)
    }
}

pub static CANCELLED_ERROR: Import = Import::new(BASE, "CancelledError");
pub static INVALID_STATE_ERROR: Import = Import::new(BASE, "InvalidStateError");
pub static DONE_AND_NOT_DONE: Import = Import::new(BASE, "DoneAndNotDoneFutures");
pub static BROKEN_THREAD_POOL: Import = Import::new("concurrent.futures.thread", "BrokenThreadPool");
pub static THREAD_POOL_EXECUTOR: Import = Import::new("concurrent.futures.thread", "ThreadPoolExecutor");
static LOGGER: Import = Import::new(BASE, "LOGGER");

/// Logs `message` with `level`, the name of a logger's method, and the exception `error`.
///
/// # Errors
/// What the logger raises.
#[cold]
pub fn log<'py>(
    py: Python<'py>,
    level: &str,
    message: &str,
    args: &[&Bound<'py, PyAny>],
    error: Option<&PyErr>,
) -> PyResult<()> {
    let keywords = PyDict::new(py);
    if let Some(error) = error {
        keywords.set_item("exc_info", error.value(py))?;
    }
    let mut values = vec![pyo3::types::PyString::new(py, message).into_any()];
    values.extend(args.iter().map(|&arg| arg.clone()));
    LOGGER.get(py)?.call_method(level, PyTuple::new(py, values)?, Some(&keywords))?;
    Ok(())
}

/// Runs `end` in a destructor, in which an exception may be on its way that is none of `end`'s business. Also while the
/// interpreter ends, which is when what is left over goes, and PyO3's way to attach panics.
///
/// # Safety
/// The thread is attached.
pub unsafe fn finalize(end: impl FnOnce(Python<'_>)) {
    // SAFETY: the caller's promise.
    let py = unsafe { Python::assume_attached() };
    let pending = PyErr::take(py);
    end(py);
    if let Some(pending) = pending {
        pending.restore(py);
    }
}
