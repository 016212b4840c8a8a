//! `multiprocessing.Event`.

use super::memory::{Place, SharedSegment, place, place_of};
use crate::gate::PyGate;
use crate::raw::{self, Args, RawResult, This, methods};
use crate::timeout;
use juggler_ipc::event::Event;
use juggler_ipc::heap::Placed;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

/// A flag that processes wait for.
///
/// The engine of `juggler.multiprocessing.synchronize.Event`.
///
/// Args:
///     at: where it lies, if another process made it: what `_place` told there. Everything else is left to subclasses.
#[pyclass(frozen, weakref, dict, subclass, module = "juggler.multiprocessing.synchronize")]
pub struct SharedEvent {
    engine: Placed<Event>,
}

#[pymethods]
impl SharedEvent {
    #[new]
    #[pyo3(signature = (*_args, at=None, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, at: Option<Place<'_>>, _kwargs: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        Ok(Self { engine: place(at)? })
    }

    /// The segment and the offset in it, for a process that it is sent to.
    fn _place(&self) -> (SharedSegment, usize) {
        place_of(self.engine.block())
    }
}

fn is_set(this: This<'_, '_, SharedEvent>) -> RawResult {
    Ok(raw::bool(this.engine.is_set()))
}

fn set(this: This<'_, '_, SharedEvent>) -> RawResult {
    this.engine.set();
    Ok(raw::none())
}

fn clear(this: This<'_, '_, SharedEvent>) -> RawResult {
    this.engine.clear();
    Ok(raw::none())
}

fn wait(this: This<'_, '_, SharedEvent>, args: Args<'_>) -> RawResult {
    let [timeout] = args.parse(this.py(), "wait", [c"timeout"], 0)?;
    let deadline = timeout::of_wait(this.py(), timeout)?;
    Ok(raw::bool(this.engine.wait(&PyGate::new(this.py()), deadline)?))
}

methods! { add_methods for SharedEvent {
    "is_set" => noargs is_set, "($self, /)\n--\n\nWhether the flag is set. Never blocks.";
    "set" => noargs set, "($self, /)\n--\n\n\
        Set the flag and wake everybody who waits for it, in every process. Never blocks.";
    "clear" => noargs clear, "($self, /)\n--\n\nClear the flag, so that `wait` waits again. Never blocks.";
    "wait" => keywords wait, "($self, /, timeout=None)\n--\n\n\
        Wait until the flag is set.\n\
        \n\
        A wait releases the GIL; signal handlers run in the middle of it, and one that raises ends it.\n\
        \n\
        Args:\n\
        \x20   timeout: seconds on the monotonic clock to wait at most; None waits for ever, a negative number not at all.\n\
        \n\
        Returns:\n\
        \x20   Whether the flag was set, also if it was cleared again before this thread ran.";
} }

/// Adds what PyO3 does not to the class.
pub fn finish(py: Python<'_>) -> PyResult<()> {
    add_methods(py)
}
