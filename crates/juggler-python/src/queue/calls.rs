//! The methods that must be fast, by CPython's own calling convention, and what they share.

use super::{LifoQueue, PriorityQueue, Queue, call_open, refused};
use crate::gate::{self, PyGate};
use crate::obj::Obj;
use crate::raw::{self, Args, Raised, RawResult, This, methods};
use crate::timeout;
use crate::trace;
use juggler_sync::Deadline;
use juggler_sync::park::Waiter;
use juggler_sync::queue::{GetError, PutError, Refusal};
use juggler_sync::sync::Arc;
use pyo3::ffi;
use pyo3::prelude::*;

fn to_raw(py: Python<'_>, result: PyResult<Bound<'_, PyAny>>) -> RawResult {
    match result {
        Ok(value) => Ok(value.into_ptr()),
        Err(error) => Err(Raised::from_err(py, error)),
    }
}

#[inline(always)]
fn put_by(this: This<'_, '_, Queue>, item: *mut ffi::PyObject, deadline: Deadline) -> Result<(), PutFailure> {
    // SAFETY: `item` is a live argument.
    let item = unsafe { Obj::from_borrowed(item) };
    let put = if trace::on() {
        put_traced(this, item, deadline)
    } else {
        this.engine.put(&PyGate::new(this.py()), item, deadline)
    };
    match put {
        Ok(woken) => {
            gate::yield_to(this.py(), woken);
            Ok(())
        }
        Err(error) => Err(put_failed(this, error)),
    }
}

/// As the engine's `put`, telling the tracer.
#[cold]
fn put_traced(
    this: This<'_, '_, Queue>,
    item: Obj,
    deadline: Deadline,
) -> Result<Option<Arc<Waiter>>, PutError<Obj, Raised>> {
    let (py, engine, gate) = (this.py(), &this.engine, PyGate::new(this.py()));
    let put = match engine.put(&gate, item, Deadline::PASSED) {
        Err(PutError::Refused(item, Refusal::NotNow)) if deadline != Deadline::PASSED => {
            let item = std::cell::Cell::new(Some(item));
            let take = || item.take().expect("the item is taken once");
            trace::wait(py, this.target(), deadline, || engine.is_full(), || Ok(engine.put(&gate, take(), deadline)))
                .unwrap_or_else(|raised| Err(PutError::Failed(take(), raised)))
        }
        put => put,
    };
    if put.is_ok() {
        trace::signalled(this.target().id);
        this.target().count(py, |counter| {
            counter.used(1);
            counter.depth(engine.statistics().deepest as u64);
        });
    }
    put
}

/// As the engine's `get`, telling the tracer.
#[cold]
fn get_traced(this: This<'_, '_, Queue>, deadline: Deadline) -> Result<(Obj, Option<Arc<Waiter>>), GetError<Raised>> {
    let (py, engine, gate) = (this.py(), &this.engine, PyGate::new(this.py()));
    let got = match engine.get(&gate, Deadline::PASSED) {
        Err(GetError::Refused(Refusal::NotNow)) if deadline != Deadline::PASSED => {
            trace::wait(py, this.target(), deadline, || engine.is_empty(), || Ok(engine.get(&gate, deadline)))
                .unwrap_or_else(|raised| Err(GetError::Failed(raised)))
        }
        got => got,
    };
    if got.is_ok() {
        trace::signalled(this.target().id);
        this.target().count(py, |counter| counter.used(1));
    }
    got
}

enum PutFailure {
    Opened,
    Raised(Raised),
}

#[cold]
fn put_failed(this: This<'_, '_, Queue>, error: PutError<Obj, Raised>) -> PutFailure {
    match error {
        PutError::Refused(_, Refusal::Opened) => PutFailure::Opened,
        PutError::Refused(item, refusal) => {
            let raised = refused(this.py(), refusal, "Full");
            // Its destructor may run Python, which must not see the exception or replace it.
            let error = raised.fetch(this.py());
            drop(item);
            PutFailure::Raised(Raised::from_err(this.py(), error))
        }
        PutError::Failed(item, raised) => {
            let error = raised.fetch(this.py());
            drop(item);
            PutFailure::Raised(Raised::from_err(this.py(), error))
        }
    }
}

fn put(this: This<'_, '_, Queue>, args: Args<'_>) -> RawResult {
    let py = this.py();
    let (item, block, timeout, deadline) = match args.only() {
        Some(item) => (item, std::ptr::null_mut(), std::ptr::null_mut(), Deadline::NEVER),
        None => {
            let [item, block, timeout] = args.parse(py, "put", [c"item", c"block", c"timeout"], 1)?;
            (item, block, timeout, timeout::of_queue(py, block, timeout)?)
        }
    };
    match put_by(this, item, deadline) {
        Ok(()) => Ok(raw::none()),
        Err(PutFailure::Raised(raised)) => Err(raised),
        Err(PutFailure::Opened) => {
            // SAFETY: live arguments, or null for the defaults.
            let (item, block, timeout) = unsafe { (borrow(py, item), optional(py, block), optional(py, timeout)) };
            to_raw(py, call_open(this.py(), "put", (this.as_any(), item, block.unwrap_or_else(|| yes(py)), timeout)))
        }
    }
}

fn put_nowait(this: This<'_, '_, Queue>, args: Args<'_>) -> RawResult {
    let py = this.py();
    let [item] = args.parse(py, "put_nowait", [c"item"], 1)?;
    if is_exact(this) {
        match put_by(this, item, Deadline::PASSED) {
            Ok(()) => return Ok(raw::none()),
            Err(PutFailure::Raised(raised)) => return Err(raised),
            Err(PutFailure::Opened) => {}
        }
    }
    // A subclass may override `put`.
    // SAFETY: `item` is a live argument.
    let item = unsafe { borrow(py, item) };
    to_raw(py, this.as_any().call_method1("put", (item, false)))
}

fn get(this: This<'_, '_, Queue>, args: Args<'_>) -> RawResult {
    let py = this.py();
    if args.is_empty() {
        return get_by(this, Deadline::NEVER, std::ptr::null_mut(), std::ptr::null_mut());
    }
    let [block, timeout] = args.parse(py, "get", [c"block", c"timeout"], 0)?;
    get_by(this, timeout::of_queue(py, block, timeout)?, block, timeout)
}

#[inline(always)]
fn get_by(
    this: This<'_, '_, Queue>,
    deadline: Deadline,
    block: *mut ffi::PyObject,
    timeout: *mut ffi::PyObject,
) -> RawResult {
    let py = this.py();
    let got = if trace::on() { get_traced(this, deadline) } else { this.engine.get(&PyGate::new(py), deadline) };
    match got {
        Ok((item, woken)) => {
            gate::yield_to(py, woken);
            Ok(item.into_ptr())
        }
        Err(GetError::Failed(raised)) => Err(raised),
        Err(GetError::Refused(Refusal::Opened)) => {
            // SAFETY: live arguments, or null for the defaults.
            let (block, timeout) = unsafe { (optional(py, block), optional(py, timeout)) };
            to_raw(py, call_open(this.py(), "get", (this.as_any(), block.unwrap_or_else(|| yes(py)), timeout)))
        }
        Err(GetError::Refused(refusal)) => Err(refused(py, refusal, "Empty")),
    }
}

fn get_nowait(this: This<'_, '_, Queue>) -> RawResult {
    if is_exact(this) && !this.is_open() {
        // SAFETY: `False` always exists.
        return get_by(this, Deadline::PASSED, unsafe { ffi::Py_False() }, std::ptr::null_mut());
    }
    // A subclass may override `get`.
    to_raw(this.py(), this.as_any().call_method1("get", (false,)))
}

fn qsize(this: This<'_, '_, Queue>) -> RawResult {
    if this.is_open() {
        return to_raw(this.py(), call_open(this.py(), "qsize", (this.as_any(),)));
    }
    // SAFETY: makes a new integer; null means that an exception is set.
    let size = unsafe { ffi::PyLong_FromSize_t(this.engine.len()) };
    if size.is_null() { Err(Raised) } else { Ok(size) }
}

fn empty(this: This<'_, '_, Queue>) -> RawResult {
    if this.is_open() {
        return to_raw(this.py(), call_open(this.py(), "empty", (this.as_any(),)));
    }
    Ok(raw::bool(this.engine.is_empty()))
}

/// Whether the object is of one of the three classes themselves, so that no method is overridden.
#[inline(always)]
fn is_exact(this: This<'_, '_, Queue>) -> bool {
    let py = this.py();
    let class = this.as_any().get_type_ptr();
    class == py.get_type::<Queue>().as_type_ptr()
        || class == py.get_type::<LifoQueue>().as_type_ptr()
        || class == py.get_type::<PriorityQueue>().as_type_ptr()
}

/// # Safety
/// `object` is a live object.
unsafe fn borrow<'py>(py: Python<'py>, object: *mut ffi::PyObject) -> Bound<'py, PyAny> {
    // SAFETY: the caller's promise.
    unsafe { Bound::from_borrowed_ptr(py, object) }
}

/// # Safety
/// `object` is a live object, or null.
unsafe fn optional<'py>(py: Python<'py>, object: *mut ffi::PyObject) -> Option<Bound<'py, PyAny>> {
    // SAFETY: the caller's promise.
    unsafe { Bound::from_borrowed_ptr_or_opt(py, object) }
}

fn yes(py: Python<'_>) -> Bound<'_, PyAny> {
    pyo3::types::PyBool::new(py, true).to_owned().into_any()
}

methods! { add_methods for Queue, LifoQueue, PriorityQueue {
    "put" => keywords put, "($self, /, item, block=True, timeout=None)\n--\n\n\
        Put an item in, waiting for room if need be; as `queue.Queue.put`.\n\
        \n\
        A wait releases the GIL; signal handlers run in the middle of it, and one that raises ends it.\n\
        The item is then not in the queue.\n\
        \n\
        Args:\n\
        \x20   item: any object; in a `PriorityQueue`, one that can be compared with the others.\n\
        \x20   block: False does not wait for room.\n\
        \x20   timeout: seconds on the monotonic clock to wait at most; None waits for ever.\n\
        \n\
        Raises:\n\
        \x20   Full: there was no room in time.\n\
        \x20   ShutDown: the queue was shut down.\n\
        \x20   ValueError: a negative timeout.\n\
        \x20   DeadlockError: deadlocks are looked for, and this wait could never have ended.";
    "put_nowait" => keywords put_nowait, "($self, /, item)\n--\n\n\
        Put an item in if there is room; as `queue.Queue.put_nowait`. Never blocks.\n\
        \n\
        Raises:\n\
        \x20   Full: there is no room.\n\
        \x20   ShutDown: the queue was shut down.";
    "get" => keywords get, "($self, /, block=True, timeout=None)\n--\n\n\
        Take an item out, waiting for one if need be; as `queue.Queue.get`.\n\
        \n\
        A wait releases the GIL; signal handlers run in the middle of it, and one that raises ends it.\n\
        No item is then taken.\n\
        \n\
        Args:\n\
        \x20   block: False does not wait for an item.\n\
        \x20   timeout: seconds on the monotonic clock to wait at most; None waits for ever.\n\
        \n\
        Returns:\n\
        \x20   The item that is next in the queue's order.\n\
        \n\
        Raises:\n\
        \x20   Empty: no item came in time.\n\
        \x20   ShutDown: the queue was shut down and is empty.\n\
        \x20   ValueError: a negative timeout.\n\
        \x20   DeadlockError: deadlocks are looked for, and this wait could never have ended.";
    "get_nowait" => noargs get_nowait, "($self, /)\n--\n\n\
        Take an item out if there is one; as `queue.Queue.get_nowait`. Never blocks.\n\
        \n\
        Raises:\n\
        \x20   Empty: there is no item.\n\
        \x20   ShutDown: the queue was shut down and is empty.";
    "qsize" => noargs qsize, "($self, /)\n--\n\n\
        How many items are inside; as `queue.Queue.qsize`. May have changed when you read it.";
    "empty" => noargs empty, "($self, /)\n--\n\n\
        Whether nothing is inside; as `queue.Queue.empty`. May have changed when you read it.";
} }
