//! What a worker process of a `ProcessPoolExecutor` does: takes calls, makes them, hands back what came of them.
#![allow(unsafe_code)]

use super::pickle;
use crate::gate::PyGate;
use crate::obj::Obj;
use crate::raw::Raised;
use juggler_ipc::pool::seat::{Seat, Taken};
use juggler_ipc::pool::table::Table;
use juggler_ipc::sys::{await_process, kill_self, open_process};
use juggler_sync::sync::{AtomicUsize, Ordering};
use juggler_sync::sys::monotonic_nanos;
use pyo3::exceptions::{PyException, PyOSError, PyRuntimeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// The result is a pickle.
pub const RESULT: u32 = 0;
/// The result is None.
pub const NONE: u32 = 1;
/// The result is what `dump_error` made.
pub const ERROR: u32 = 2;

/// What stands before the pickles of a call.
pub struct Head {
    /// How long the function's is; 0: it is in the other.
    pub function: u32,
    /// 1: the other is a tuple of function, arguments and keywords; 0: the arguments.
    pub named: u32,
}

impl Head {
    const LENGTH: usize = 8;

    /// As it is sent.
    pub fn bytes(&self) -> [u8; Self::LENGTH] {
        (u64::from(self.function) | u64::from(self.named) << 32).to_ne_bytes()
    }

    fn split(data: &[u8]) -> Option<(Self, &[u8], &[u8])> {
        let (head, rest) = data.split_first_chunk::<{ Self::LENGTH }>()?;
        let head = u64::from_ne_bytes(*head);
        let head = Self { function: head as u32, named: (head >> 32) as u32 };
        let (function, rest) = rest.split_at_checked(head.function as usize)?;
        Some((head, function, rest))
    }
}

/// The seat while a call is made, for [`stop_requested`]. Only the worker's own thread uses it.
static SEAT: AtomicUsize = AtomicUsize::new(0);

struct Worker<'py> {
    seat: Seat,
    /// The last function, and its pickle.
    function: Option<(Vec<u8>, Obj)>,
    /// Whether it is unpickling a call.
    loading: bool,
    dump_error: Bound<'py, PyAny>,
    dump_result: Bound<'py, PyAny>,
}

/// A call that is made, and where.
struct Current<'a> {
    seat: &'a Seat,
    task: Taken,
}

impl<'py> Worker<'py> {
    fn make(&mut self, py: Python<'py>, task: Taken) -> Result<Obj, Raised> {
        let payload = match self.seat.arguments(task) {
            Ok(payload) => payload,
            Err(problem) => return Err(Raised::new::<PyOSError>(py, &format!("cannot read the call: {problem}"))),
        };
        let Some((head, function, rest)) = Head::split(payload.bytes()) else {
            return Err(Raised::new::<PyOSError>(py, "cannot read the call: it is too short"));
        };
        self.loading = true;
        if head.named != 0 {
            let call = pickle::loads(py, rest)?.into_bound(py);
            self.loading = false;
            drop(payload);
            let parts = call.extract().map_err(|error: PyErr| Raised::from_err(py, error))?;
            drop(call);
            let (function, arguments, keywords): (Bound<'_, PyAny>, Bound<'_, PyTuple>, Bound<'_, PyAny>) = parts;
            // SAFETY: live objects; the keywords are a dictionary, as the parent pickled it.
            let result = unsafe { ffi::PyObject_Call(function.as_ptr(), arguments.as_ptr(), keywords.as_ptr()) };
            return owned(result);
        }
        if !matches!(&self.function, Some((known, _)) if known == function) {
            self.function = Some((function.to_vec(), pickle::loads(py, function)?));
        }
        let Some((_, function)) = &self.function else { unreachable!("it was just set") };
        let arguments = pickle::loads(py, rest)?;
        self.loading = false;
        drop(payload);
        // SAFETY: live objects.
        if unsafe { ffi::PyTuple_Check(arguments.as_ptr()) } == 0 {
            return Err(Raised::new::<PyRuntimeError>(py, "cannot read the call: its arguments are no tuple"));
        }
        // SAFETY: live objects, the second a tuple.
        owned(unsafe { ffi::PyObject_Call(function.as_ptr(), arguments.as_ptr(), std::ptr::null_mut()) })
    }

    /// What came of a call, pickled.
    fn result(&self, py: Python<'py>, result: Obj) -> Result<(u32, Option<Obj>), Raised> {
        if result.bind(py).is_none() {
            return Ok((NONE, None));
        }
        match pickle::dumps(py, result.as_ptr()) {
            Ok(data) => Ok((RESULT, Some(data))),
            Err(raised) => {
                let error = raised.fetch(py);
                let data = self.dump_result.call1((result.bind(py), error.into_value(py)));
                let data = data.and_then(|data| Ok(data.cast_into::<PyBytes>()?));
                data.map(|data| (RESULT, Some(data.into_any().into()))).map_err(|error| Raised::from_err(py, error))
            }
        }
    }

    fn work(&mut self, py: Python<'py>, task: Taken) -> PyResult<()> {
        let made = {
            let seat = std::ptr::from_ref(&self.seat);
            // SAFETY: the seat lives longer than the call; what `make` changes of the worker lies beside it.
            let current = Current { seat: unsafe { &*seat }, task };
            SEAT.store(std::ptr::from_ref(&current) as usize, Ordering::Relaxed);
            let made = self.make(py, task).and_then(|result| self.result(py, result));
            SEAT.store(0, Ordering::Relaxed);
            made
        };
        let (kind, data) = match made {
            Ok(made) => made,
            Err(raised) => {
                let error = raised.fetch(py);
                if std::mem::take(&mut self.loading) && !error.is_instance_of::<PyException>(py) {
                    // A payload that exits: it ends this process, as it would in the standard library.
                    return Err(error);
                }
                let data = self.dump_error.call1((error.into_value(py),))?.cast_into::<PyBytes>()?;
                (ERROR, Some(data.into_any().into()))
            }
        };
        let bytes = match &data {
            // SAFETY: `dumps` gives bytes.
            Some(data) => unsafe { pickle::contents(data) },
            None => &[],
        };
        if let Err(problem) = self.seat.finish(task, kind, &[bytes]) {
            let error = PyOSError::new_err(format!("cannot hand back a result of {} bytes: {problem}", bytes.len()));
            let data = self.dump_error.call1((error.into_value(py),))?.cast_into::<PyBytes>()?;
            self.seat.finish(task, ERROR, &[data.as_bytes()])?;
        }
        Ok(())
    }
}

fn owned(result: *mut ffi::PyObject) -> Result<Obj, Raised> {
    // SAFETY: a call returns an owned reference or null.
    if result.is_null() { Err(Raised) } else { Ok(unsafe { Obj::from_owned(result) }) }
}

/// Whether the parent asks that the call be stopped that this thread is making.
#[pyfunction]
#[pyo3(name = "_stop_requested")]
pub fn stop_requested() -> bool {
    let current = SEAT.load(Ordering::Relaxed) as *const Current<'_>;
    // SAFETY: it is not null only while the call is made, by the thread that runs signal handlers: this one.
    unsafe { current.as_ref() }.is_some_and(|current| current.seat.is_to_stop(current.task))
}

/// Calls `function` with each of `items`, with its elements if `star`. Returns the results, what the first call raised
/// that did, and how many nanoseconds it took.
#[pyfunction]
#[pyo3(name = "_run_chunk")]
pub fn run_chunk<'py>(
    py: Python<'py>,
    function: &Bound<'py, PyAny>,
    items: &Bound<'py, PyList>,
    star: bool,
) -> (Bound<'py, PyList>, Option<Bound<'py, PyAny>>, u64) {
    let begin = monotonic_nanos();
    let current = SEAT.load(Ordering::Relaxed) as *const Current<'_>;
    // SAFETY: as in `stop_requested`.
    let progress = unsafe { current.as_ref() }.map(|current| current.seat.progress(current.task));
    let results = PyList::empty(py);
    for (at, item) in items.iter().enumerate() {
        // SAFETY: live objects; with `star` the items are tuples, as the parent zipped them.
        let result = owned(unsafe {
            if star {
                ffi::PyObject_Call(function.as_ptr(), item.as_ptr(), std::ptr::null_mut())
            } else {
                let arguments = [item.as_ptr()];
                ffi::PyObject_Vectorcall(function.as_ptr(), arguments.as_ptr(), 1, std::ptr::null_mut())
            }
        });
        drop(item);
        let added = result.map_err(|raised| raised.fetch(py)).and_then(|result| results.append(result.into_bound(py)));
        if let Err(error) = added {
            return (results, Some(error.into_value(py).into_bound(py).into_any()), monotonic_nanos() - begin);
        }
        if let Some(progress) = progress {
            progress.store(at as u32 + 1, Ordering::Relaxed);
        }
    }
    (results, None, monotonic_nanos() - begin)
}

/// Has this process end when `parent` does: a thread sees to it that never needs the interpreter.
fn end_with(parent: u32) -> PyResult<()> {
    let Ok(process) = open_process(parent) else { kill_self() };
    let wait = move || {
        await_process(process.as_fd());
        kill_self();
    };
    std::thread::Builder::new().name("juggler-end".into()).stack_size(64 * 1024).spawn(wait)?;
    Ok(())
}

/// A worker's life: takes the seat `worker` of the pool whose segment is `file`, calls `initialize()`, and makes calls
/// until the pool closes, or `most` are made (0: no limit).
#[pyfunction]
#[pyo3(name = "_work", signature = (file, worker, most, spins, hooks))]
pub fn work(
    py: Python<'_>,
    file: i32,
    worker: usize,
    most: u64,
    spins: bool,
    hooks: &Bound<'_, PyAny>,
) -> PyResult<()> {
    // SAFETY: the caller hands the descriptor over.
    let table = Table::open(unsafe { OwnedFd::from_raw_fd(file) })?;
    let seat = Seat::new(table, worker, spins)?;
    end_with(seat.parent())?;
    let fit = hooks.call_method0("initialize")?.is_truthy()?;
    seat.begin(fit);
    if !fit {
        return Ok(());
    }
    let dump_error = hooks.getattr("dump_error")?;
    let dump_result = hooks.getattr("dump_result")?;
    let mut worker = Worker { seat, function: None, loading: false, dump_error, dump_result };
    let mut made = 0;
    while let Some(task) = worker.seat.next(&PyGate::new(py)).map_err(|raised| raised.fetch(py))? {
        worker.work(py, task)?;
        made += 1;
        if made == most {
            break;
        }
        if made % 64 == 0 {
            crate::futures::give_way(py);
        }
    }
    while !worker.seat.may_leave() {
        crate::gate::without_gil(py, || std::thread::sleep(Duration::from_millis(1)));
    }
    Ok(())
}
