//! What a worker process of a `ProcessPoolExecutor` does: takes calls, makes them, hands back what came of them.
#![allow(unsafe_code)]

use super::pickle::{self, Pickle};
use super::plain::{self, Row};
use crate::gate::PyGate;
use crate::obj::Obj;
use crate::raw::Raised;
use juggler_ipc::pool::payload::Apart;
use juggler_ipc::pool::seat::{Seat, Taken};
use juggler_ipc::pool::table::Table;
use juggler_ipc::sys::{await_process, kill_self, open_process};
use juggler_sync::sync::{AtomicUsize, Ordering};
use juggler_sync::sys::monotonic_nanos;
use pyo3::exceptions::{PyException, PyOSError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// The result is a pickle.
pub const RESULT: u32 = 0;
/// The result is what `dump_error` made.
pub const ERROR: u32 = 1;
/// The result is a plain object, of the kind that is added to this.
pub const PLAIN: u32 = 1 << 8;

/// What the pickles of a call hold.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The function, and the tuple of its arguments.
    Arguments,
    /// The function, and a tuple: its arguments and the dictionary of those that are named.
    Named,
    /// A tuple: the function, its arguments and the dictionary.
    Whole,
    /// The function, and a row of plain arguments.
    Plain,
}

/// What stands before the pickles of a call.
pub struct Head {
    /// How long the function's is; 0: it is in the other.
    pub function: u32,
    pub form: Form,
    /// Whether the call may change copies of its buffers only.
    pub private: bool,
}

impl Head {
    const LENGTH: usize = 8;

    /// As it is sent.
    pub fn bytes(&self) -> [u8; Self::LENGTH] {
        (u64::from(self.function) | (self.form as u64) << 32 | u64::from(self.private) << 40).to_ne_bytes()
    }

    fn split(data: &[u8]) -> Option<(Self, &[u8], &[u8])> {
        let (head, rest) = data.split_first_chunk::<{ Self::LENGTH }>()?;
        let head = u64::from_ne_bytes(*head);
        let form = match head >> 32 & 0xff {
            0 => Form::Arguments,
            1 => Form::Named,
            3 => Form::Plain,
            _ => Form::Whole,
        };
        let head = Self { function: head as u32, form, private: head >> 40 != 0 };
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
struct Current {
    seat: *const Seat,
    task: Taken,
}

/// Ends a call with a result. What runs afterwards, as destructors of the result do, can't be stopped.
fn finish(
    py: Python<'_>,
    seat: &mut Seat,
    task: Taken,
    kind: u32,
    apart: Apart,
    parts: &[&[u8]],
) -> Result<(), Raised> {
    SEAT.store(0, Ordering::Relaxed);
    seat.finish(task, kind, apart, parts).map_err(|problem| {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        Raised::new::<PyOSError>(py, &format!("cannot hand back a result of {length} bytes: {problem}"))
    })
}

impl<'py> Worker<'py> {
    fn make(&mut self, py: Python<'py>, task: Taken) -> Result<Obj, Raised> {
        let malformed =
            |problem: &dyn std::fmt::Display| Raised::new::<PyOSError>(py, &format!("cannot read the call: {problem}"));
        let payload = self.seat.arguments(task).map_err(|problem| malformed(&problem))?;
        let blocks = self.seat.hold(&payload).map_err(|problem| malformed(&problem))?;
        let Some((head, function, rest)) = Head::split(payload.bytes()) else {
            return Err(malformed(&"it is too short"));
        };
        self.loading = true;
        if head.form != Form::Whole && !matches!(&self.function, Some((known, _)) if known == function) {
            self.function = Some((function.to_vec(), pickle::loads(py, function, None)?));
        }
        if head.form == Form::Plain {
            let Some(arguments) = Row::objects(py, rest)? else { return Err(malformed(&"it is no row of objects")) };
            self.loading = false;
            drop(payload);
            let function = self.last_function(py);
            // SAFETY: live objects, as many as said; an `Obj` is a pointer to one.
            return unsafe {
                let (start, count) = (arguments.as_ptr().cast(), arguments.len());
                pickle::owned(ffi::PyObject_Vectorcall(function.as_ptr(), start, count, std::ptr::null_mut()))
            };
        }
        let loaded = pickle::unpack(py, &payload, rest, blocks, head.private)?;
        self.loading = false;
        drop(payload);
        let wrong = |error: PyErr| Raised::from_err(py, error);
        let (function, arguments, keywords): (Obj, Obj, Option<Obj>) = match head.form {
            Form::Plain | Form::Arguments => (self.last_function(py), loaded, None),
            Form::Named => {
                let parts = loaded.bind(py).extract().map_err(wrong)?;
                let (arguments, keywords): (Bound<'_, PyTuple>, Bound<'_, PyDict>) = parts;
                drop(loaded);
                (self.last_function(py), arguments.into_any().into(), Some(keywords.into_any().into()))
            }
            Form::Whole => {
                if matches!(&self.function, Some((known, _)) if pickle::mentions_main(known)) {
                    // This call may have brought other definitions than the last function came with.
                    self.function = None;
                }
                let parts = loaded.bind(py).extract().map_err(wrong)?;
                let (function, arguments, keywords): (Bound<'_, PyAny>, Bound<'_, PyTuple>, Bound<'_, PyDict>) = parts;
                drop(loaded);
                (function.into(), arguments.into_any().into(), Some(keywords.into_any().into()))
            }
        };
        // SAFETY: live objects.
        if unsafe { ffi::PyTuple_Check(arguments.as_ptr()) } == 0 {
            return Err(malformed(&"its arguments are no tuple"));
        }
        let keywords = keywords.as_ref().map_or(std::ptr::null_mut(), Obj::as_ptr);
        // SAFETY: live objects: a tuple, and a dictionary or null.
        unsafe { pickle::owned(ffi::PyObject_Call(function.as_ptr(), arguments.as_ptr(), keywords)) }
    }

    /// The last function.
    fn last_function(&self, py: Python<'py>) -> Obj {
        let Some((_, function)) = &self.function else { unreachable!("it was just set") };
        function.clone_ref(py)
    }

    /// Hands back what came of a call.
    fn hand_back(&mut self, py: Python<'py>, task: Taken, result: Obj) -> Result<(), Raised> {
        let send =
            |kind, bytes: &[u8]| finish(py, &mut self.seat, task, PLAIN + u32::from(kind), Apart::default(), &[bytes]);
        if let Some(sent) = plain::look(result.as_ptr(), pickle::THRESHOLD - 1, send)? {
            return sent;
        }
        let data = match pickle::dumps(py, result.as_ptr()) {
            Ok(data) => data,
            Err(raised) => {
                let error = raised.fetch(py);
                let data = self.dump_result.call1((result.bind(py), error.into_value(py)));
                data.and_then(|data| Pickle::from_python(&data)).map_err(|error| Raised::from_err(py, error))?
            }
        };
        let mut packed = data.pack(py, |length| self.seat.room(length))?;
        drop(result);
        let apart = std::mem::take(&mut packed.apart);
        if apart.count() == 0 {
            finish(py, &mut self.seat, task, RESULT, apart, &[data.bytes()])
        } else {
            finish(py, &mut self.seat, task, RESULT, apart, &packed.parts(&[data.bytes()]))
        }
    }

    fn work(&mut self, py: Python<'py>, task: Taken) -> PyResult<()> {
        let current = Current { seat: &raw const self.seat, task };
        SEAT.store(std::ptr::from_ref(&current) as usize, Ordering::Relaxed);
        let made = self.make(py, task).and_then(|result| self.hand_back(py, task, result));
        SEAT.store(0, Ordering::Relaxed);
        let Err(raised) = made else { return Ok(()) };
        let error = raised.fetch(py);
        if std::mem::take(&mut self.loading) && !error.is_instance_of::<PyException>(py) {
            // A payload that exits: it ends this process, as it would in the standard library.
            return Err(error);
        }
        self.fail(py, task, error)
    }

    /// Ends a call with an exception.
    fn fail(&mut self, py: Python<'py>, task: Taken, error: PyErr) -> PyResult<()> {
        let data = self.dump_error.call1((error.into_value(py),))?.cast_into::<PyBytes>()?;
        Ok(self.seat.finish(task, ERROR, Apart::default(), &[data.as_bytes()])?)
    }
}

/// Whether the parent asks that the call be stopped that this thread is making.
#[pyfunction]
#[pyo3(name = "_stop_requested")]
pub fn stop_requested() -> bool {
    let current = SEAT.load(Ordering::Relaxed) as *const Current;
    // SAFETY: it is not null only while the call is made, by the thread that runs signal handlers: this one.
    unsafe { current.as_ref().is_some_and(|current| (*current.seat).is_to_stop(current.task)) }
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
    let current = SEAT.load(Ordering::Relaxed) as *const Current;
    // SAFETY: as in `stop_requested`.
    let progress = unsafe { current.as_ref().map(|current| (*current.seat).progress(current.task)) };
    let results = PyList::empty(py);
    for (at, item) in items.iter().enumerate() {
        // SAFETY: live objects; with `star` the items are tuples, as the parent zipped them.
        let result = unsafe {
            pickle::owned(if star {
                ffi::PyObject_Call(function.as_ptr(), item.as_ptr(), std::ptr::null_mut())
            } else {
                let arguments = [item.as_ptr()];
                ffi::PyObject_Vectorcall(function.as_ptr(), arguments.as_ptr(), 1, std::ptr::null_mut())
            })
        };
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
#[pyo3(name = "_work", signature = (file, worker, most, hooks))]
pub fn work(py: Python<'_>, file: i32, worker: usize, most: u64, hooks: &Bound<'_, PyAny>) -> PyResult<()> {
    // SAFETY: the caller hands the descriptor over.
    let table = Table::open(unsafe { OwnedFd::from_raw_fd(file) })?;
    let seat = Seat::new(table, worker)?;
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
