//! A call that waits for a worker.
#![allow(unsafe_code)]

use super::future::{self, Future, Outcome};
use super::layout;
use super::stdlib;
use super::tracing;
use crate::obj::Obj;
use crate::raw::{Raised, This};
use pyo3::ffi;
use pyo3::prelude::*;

/// A function with its arguments, as a vectorcall takes them.
struct Call {
    /// The function, then its arguments, the named ones last. That the function lies before the arguments lets a bound
    /// method put its object there for the time of the call (`PY_VECTORCALL_ARGUMENTS_OFFSET`).
    values: Box<[Obj]>,
    positional: usize,
    /// A tuple of the names of the last arguments.
    names: Option<Obj>,
}

impl Call {
    /// Makes the call; the result or what was raised.
    #[inline]
    fn make(&mut self, py: Python<'_>) -> Outcome {
        let function = self.values[0].as_ptr();
        let names = self.names.as_ref().map_or(std::ptr::null_mut(), Obj::as_ptr);
        let flags = self.positional | ffi::PY_VECTORCALL_ARGUMENTS_OFFSET;
        // SAFETY: an `Obj` is a pointer to an object and nothing else; there are as many as the flags and the names say,
        // and one before them; the thread is attached.
        let result = unsafe {
            let arguments = self.values.as_mut_ptr().add(1).cast::<*mut ffi::PyObject>();
            ffi::PyObject_Vectorcall(function, arguments, flags, names)
        };
        if result.is_null() {
            return Outcome::Error(raised(py));
        }
        // SAFETY: a call returns an owned reference.
        Outcome::Result(unsafe { Obj::from_owned(result) })
    }
}

/// Takes the exception that is set out of the thread's state, with its traceback.
#[cold]
fn raised(_py: Python<'_>) -> Obj {
    // PyO3's own way would resume a panic here, which belongs into the future as any other exception.
    #[cfg(Py_3_12)]
    // SAFETY: the thread is attached, and an exception is set: the caller saw a null result.
    return unsafe { Obj::from_owned(ffi::PyErr_GetRaisedException()) };
    #[cfg(not(Py_3_12))]
    // SAFETY: as above; normalizing leaves an instance in `value`.
    unsafe {
        let (mut class, mut value, mut traceback) = (std::ptr::null_mut(), std::ptr::null_mut(), std::ptr::null_mut());
        ffi::PyErr_Fetch(&mut class, &mut value, &mut traceback);
        ffi::PyErr_NormalizeException(&mut class, &mut value, &mut traceback);
        if !traceback.is_null() {
            ffi::PyException_SetTraceback(value, traceback);
            ffi::Py_DECREF(traceback);
        }
        ffi::Py_DECREF(class);
        Obj::from_owned(value)
    }
}

/// A call and the future of its result.
pub struct Task {
    future: Obj,
    call: Call,
}

impl Task {
    /// The call of `values[0]` with the others, the last of which are named by the tuple `names`; and its future.
    ///
    /// # Errors
    /// `MemoryError`
    #[inline(always)]
    pub fn new(py: Python<'_>, values: Box<[Obj]>, names: Option<Obj>) -> Result<(Self, Obj), Raised> {
        let future = layout::create(py)?;
        // SAFETY: `names` is a tuple.
        let named = names.as_ref().map_or(0, |names| unsafe { ffi::PyTuple_GET_SIZE(names.as_ptr()) } as usize);
        let positional = values.len() - 1 - named;
        let task = Self { future: future.clone_ref(py), call: Call { values, positional, names } };
        Ok((task, future))
    }

    /// Has `function` called in place of the one that the task was made with.
    pub fn set_function(&mut self, function: Obj) {
        self.call.values[0] = function;
    }

    /// The future, for the tracer.
    pub fn key(&self) -> &Obj {
        &self.future
    }

    fn future<'a, 'py>(&'a self, py: Python<'py>) -> This<'a, 'py, Future> {
        // SAFETY: `layout::create` made it.
        unsafe { This::new(py, self.future.as_ptr()) }
    }

    /// Makes the call, unless the future was cancelled. All references are gone when the future has its result, but for
    /// that to the future itself, which goes at the end.
    #[inline]
    pub fn run(mut self, py: Python<'_>) {
        match future::start(self.future(py)) {
            Ok(true) => tracing::started(&self.future),
            Ok(false) => return tracing::ended(&self.future),
            Err(raised) => {
                tracing::ended(&self.future);
                return report(py, raised);
            }
        }
        let outcome = self.call.make(py);
        tracing::ended(&self.future);
        let Self { future, call } = self;
        drop(call);
        // SAFETY: `layout::create` made it.
        let future = unsafe { This::new(py, future.as_ptr()) };
        if let Err(raised) = future::finish(future, outcome) {
            report(py, raised);
        }
    }

    /// Cancels the future, and settles it: nobody waits for it any more.
    pub fn cancel(self, py: Python<'_>) {
        tracing::ended(&self.future);
        let future = self.future(py);
        let settled =
            future::cancel(future).and_then(|cancelled| if cancelled { future::start(future) } else { Ok(true) });
        if let Err(raised) = settled {
            report(py, raised);
        }
    }

    /// Ends the future with `error`.
    pub fn fail(self, py: Python<'_>, error: &Bound<'_, PyAny>) {
        tracing::ended(&self.future);
        let future = self.future(py);
        // One that was cancelled stays so, and is settled.
        let failed = match future::start(future) {
            Ok(true) => future::finish(future, Outcome::Error(error.clone().into())),
            Ok(false) => Ok(()),
            Err(raised) => Err(raised),
        };
        if let Err(raised) = failed {
            report(py, raised);
        }
    }
}

/// Logs what a worker can't hand to anybody: what a callback raised that is no `Exception`, or that a future was in a
/// state in which it must not be.
#[cold]
fn report(py: Python<'_>, raised: Raised) {
    let error = raised.fetch(py);
    if let Err(error) = stdlib::log(py, "critical", "Exception in worker", &[], Some(&error)) {
        error.write_unraisable(py, None);
    }
}
