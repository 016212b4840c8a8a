//! `multiprocessing.Semaphore` and `multiprocessing.BoundedSemaphore`.

use super::lock::{deadline_of, too_many};
use super::memory::{Place, SharedSegment, place, place_of};
use crate::gate::PyGate;
use crate::raw::{self, Args, RawResult, This, methods};
use juggler_ipc::heap::Placed;
use juggler_ipc::semaphore::{Semaphore, VALUE_MAX};
use juggler_sync::Deadline;
use juggler_sync::sync::{AtomicU32, Ordering};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

/// A counter of permits that processes share.
///
/// The engine of `juggler.multiprocessing.synchronize.Semaphore`. It begins without a permit.
///
/// Args:
///     at: where it lies, if another process made it: what `_place` told there. Everything else is left to subclasses.
#[pyclass(frozen, weakref, dict, subclass, module = "juggler.multiprocessing.synchronize")]
pub struct SharedSemaphore {
    engine: Placed<Semaphore>,
    most: AtomicU32,
}

#[pymethods]
impl SharedSemaphore {
    /// The most permits a semaphore can have.
    #[classattr]
    const SEM_VALUE_MAX: u32 = VALUE_MAX;

    #[new]
    #[pyo3(signature = (*_args, at=None, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, at: Option<Place<'_>>, _kwargs: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        Ok(Self { engine: place(at)?, most: AtomicU32::new(VALUE_MAX) })
    }

    /// Give it its permits and the most that it may have; nobody uses it yet.
    fn _set(&self, value: i64, maxvalue: i64) -> PyResult<()> {
        let (Ok(value), Ok(most)) = (u32::try_from(value), u32::try_from(maxvalue)) else {
            return Err(PyValueError::new_err(format!("a semaphore's value must be 0 to {VALUE_MAX}, not {value}")));
        };
        if value > most || most > VALUE_MAX {
            return Err(PyValueError::new_err(format!("a semaphore's value must be 0 to {VALUE_MAX}, not {value}")));
        }
        self._bound(most);
        self.engine.set(value);
        Ok(())
    }

    /// Set the most permits that it may have.
    fn _bound(&self, maxvalue: u32) {
        self.most.store(maxvalue, Ordering::Relaxed);
    }

    /// The most permits it may have.
    #[getter]
    fn maxvalue(&self) -> u32 {
        self.most.load(Ordering::Relaxed)
    }

    /// The segment and the offset in it, for a process that it is sent to.
    fn _place(&self) -> (SharedSegment, usize) {
        place_of(self.engine.block())
    }

    /// How many permits are free.
    fn _get_value(&self) -> u32 {
        self.engine.value()
    }

    /// Whether none is.
    fn _is_zero(&self) -> bool {
        self.engine.value() == 0
    }
}

fn acquire(this: This<'_, '_, SharedSemaphore>, args: Args<'_>) -> RawResult {
    let deadline = deadline_of(this.py(), args)?;
    Ok(raw::bool(this.engine.acquire(&PyGate::new(this.py()), deadline)?))
}

fn enter(this: This<'_, '_, SharedSemaphore>) -> RawResult {
    Ok(raw::bool(this.engine.acquire(&PyGate::new(this.py()), Deadline::NEVER)?))
}

fn release(this: This<'_, '_, SharedSemaphore>) -> RawResult {
    match this.engine.release(this.most.load(Ordering::Relaxed)) {
        Ok(()) => Ok(raw::none()),
        Err(_) => Err(too_many(this.py())),
    }
}

fn exit(this: This<'_, '_, SharedSemaphore>, _exception: Args<'_>) -> RawResult {
    release(this)
}

fn locked(this: This<'_, '_, SharedSemaphore>) -> RawResult {
    Ok(raw::bool(this.engine.value() == 0))
}

fn get_value(this: This<'_, '_, SharedSemaphore>) -> RawResult {
    let Ok(value) = this.engine.value().into_pyobject(this.py());
    Ok(value.into_ptr())
}

methods! { add_methods for SharedSemaphore {
    "acquire" => keywords acquire, "($self, /, block=True, timeout=None)\n--\n\n\
        Take a permit, waiting for one if need be.\n\
        \n\
        A wait releases the GIL; signal handlers run in the middle of it, and one that raises ends it.\n\
        \n\
        Args:\n\
        \x20   block: False returns at once, whether there was a permit or not.\n\
        \x20   timeout: seconds on the monotonic clock to wait at most; None waits for ever, a negative number not at all.\n\
        \n\
        Returns:\n\
        \x20   Whether a permit was taken.";
    "release" => noargs release, "($self, /)\n--\n\n\
        Give a permit back and wake one who waits for it. Never blocks.\n\
        \n\
        Raises:\n\
        \x20   ValueError: there would be more than there may be.";
    "locked" => noargs locked, "($self, /)\n--\n\nWhether no permit is free. Never blocks.";
    "get_value" => noargs get_value, "($self, /)\n--\n\nHow many permits are free. Never blocks.";
    "__enter__" => noargs enter, "($self, /)\n--\n\n\
        Take a permit, waiting as long as it takes; `with semaphore:` calls this. Returns True.";
    "__exit__" => keywords exit, "($self, /, *exc_info)\n--\n\n\
        Give the permit back, whatever the `with` block ended in.";
} }

/// Adds what PyO3 does not to the class.
pub fn finish(py: Python<'_>) -> PyResult<()> {
    add_methods(py)
}
