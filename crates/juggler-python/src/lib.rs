//! The extension module `juggler._juggler`: juggler's engine as Python classes.
//!
//! One file per class. [`gate`] is the only place that detaches from the interpreter, [`raw`] holds CPython's own calling
//! convention for the hottest methods, [`obj`] the references that the engine's containers hold.

mod gate;
mod lock;
mod obj;
mod raw;
mod rlock;
mod timeout;

use pyo3::prelude::*;

/// juggler's native core.
#[pymodule(gil_used = false)]
mod _juggler {
    use super::*;

    #[pymodule_export]
    use super::lock::{Lock, LockStatistics};
    #[pymodule_export]
    use super::rlock::{RLock, RLockStatistics};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        let py = module.py();
        lock::finish(py)?;
        rlock::finish(py)?;
        Ok(())
    }
}
