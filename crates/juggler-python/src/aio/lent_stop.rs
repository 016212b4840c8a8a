//! One `StopIteration` for the results of all coroutines of ours that are awaited where they are made.
//!
//! The interpreter has the result of what it awaits from a `StopIteration`, which it drops at once, and then the coroutine.
//! Making and freeing that takes longer than most operations do. So there is one, which is lent: it comes back with the end of the
//! coroutine. Should somebody still have it then, or have left a trace in it, the next is another.
#![allow(unsafe_code)]

#[cfg(not(all(Py_3_12, not(Py_GIL_DISABLED))))]
pub use elsewhere::{raise, take_back};
#[cfg(all(Py_3_12, not(Py_GIL_DISABLED)))]
pub use lending::{raise, take_back};

#[cfg(all(Py_3_12, not(Py_GIL_DISABLED)))]
mod lending {
    use crate::aio::sync::operation;
    use crate::aio::{awaiting, future};
    use crate::attached::Attached;
    use crate::obj::Obj;
    use crate::raw::Raised;
    use pyo3::ffi;
    use pyo3::prelude::*;

    struct Lent {
        /// Holds None, and `(None,)` for its arguments, while nobody has it.
        exception: Option<Obj>,
        /// The address of the coroutine that has it; 0 for none.
        borrower: usize,
    }

    static LENT: Attached<Lent> = Attached::new(Lent { exception: None, borrower: 0 });

    /// Sets a `StopIteration` that carries `result`, the end of `borrower`.
    #[inline]
    pub fn raise(py: Python<'_>, result: Obj, borrower: *mut ffi::PyObject) -> Raised {
        // SAFETY: `True` always exists.
        if result.as_ptr() == unsafe { ffi::Py_True() } {
            return raise_true(py, result);
        }
        let mut lent = LENT.hold(py);
        let exception = match &lent.exception {
            Some(exception) if lent.borrower == 0 => exception.clone_ref(py),
            _ => {
                drop(lent);
                return first(py, result, borrower);
            }
        };
        lent.borrower = borrower as usize;
        drop(lent);
        fill(&exception, result);
        operation::raise(py, exception)
    }

    /// The same for what most have as their result, which can stay in an exception of its own.
    fn raise_true(py: Python<'_>, result: Obj) -> Raised {
        static STOP_TRUE: Attached<Option<Obj>> = Attached::new(None);
        let shared =
            STOP_TRUE.with(py, |stop| stop.as_ref().filter(|stop| is_untouched(stop)).map(|stop| stop.clone_ref(py)));
        if let Some(exception) = shared {
            return operation::raise(py, exception);
        }
        let exception = match awaiting::stop_iteration(py, result) {
            Ok(exception) => exception,
            Err(raised) => return raised,
        };
        let before = STOP_TRUE.with(py, |stop| stop.replace(exception.clone_ref(py)));
        drop(before);
        operation::raise(py, exception)
    }

    /// Whether nobody else has the exception, and nobody has left a trace in it who caught it.
    fn is_untouched(exception: &Obj) -> bool {
        let fields = exception.as_ptr().cast::<ffi::PyStopIterationObject>();
        // SAFETY: whoever has it is attached, and it is of that class.
        unsafe {
            ffi::Py_REFCNT(exception.as_ptr()) == 1
                && [(*fields).dict, (*fields).notes, (*fields).traceback, (*fields).context, (*fields).cause]
                    .iter()
                    .all(|field| field.is_null())
        }
    }

    /// Makes the exception.
    #[cold]
    fn first(py: Python<'_>, result: Obj, borrower: *mut ffi::PyObject) -> Raised {
        let exception = match awaiting::stop_iteration(py, result) {
            Ok(exception) => exception,
            Err(raised) => return raised,
        };
        let lent = Lent { exception: Some(exception.clone_ref(py)), borrower: borrower as usize };
        let before = LENT.with(py, |place| std::mem::replace(place, lent));
        drop(before);
        operation::raise(py, exception)
    }

    /// Puts `result` into the exception, which holds None.
    #[inline]
    fn fill(exception: &Obj, result: Obj) {
        let fields = exception.as_ptr().cast::<ffi::PyStopIterationObject>();
        // SAFETY: the thread is attached, and the exception of that class; its arguments are a tuple of one that nobody else has. The
        // references that were there are owned here, and to None.
        unsafe {
            ffi::Py_INCREF(result.as_ptr());
            drop(replace_first((*fields).args, result.as_ptr()));
            drop(Obj::from_owned(std::mem::replace(&mut (*fields).value, result.into_ptr())));
        }
    }

    /// Puts an owned reference into the first place of a tuple; gives the one that was there.
    ///
    /// # Safety
    /// The tuple has a first place that is not null, and nobody else has it.
    unsafe fn replace_first(tuple: *mut ffi::PyObject, item: *mut ffi::PyObject) -> Obj {
        // SAFETY: the caller's promise.
        unsafe {
            let before = Obj::from_owned(ffi::PyTuple_GET_ITEM(tuple, 0));
            ffi::PyTuple_SET_ITEM(tuple, 0, item);
            before
        }
    }

    /// Takes the exception back from `borrower`, if it has it.
    #[inline]
    pub fn take_back(py: Python<'_>, borrower: *mut ffi::PyObject) {
        let mut lent = LENT.hold(py);
        if lent.borrower != borrower as usize {
            return;
        }
        lent.borrower = 0;
        let Some(exception) = lent.exception.take() else { return };
        if !is_untouched(&exception) {
            drop(lent);
            drop(exception);
            return;
        }
        let fields = exception.as_ptr().cast::<ffi::PyStopIterationObject>();
        // SAFETY: the thread is attached, and the exception of that class; the references that its fields held are owned here.
        // Whoever gets rid of the last one to what it held may run Python, so nothing is held then.
        unsafe {
            let arguments = (*fields).args;
            let is_untouched = !arguments.is_null()
                && ffi::Py_REFCNT(arguments) == 1
                && ffi::PyTuple_CheckExact(arguments) != 0
                && ffi::PyTuple_GET_SIZE(arguments) == 1;
            if !is_untouched {
                drop(lent);
                drop(exception);
                return;
            }
            let argument = replace_first(arguments, future::none().into_ptr());
            let result = Obj::from_owned(std::mem::replace(&mut (*fields).value, future::none().into_ptr()));
            lent.exception = Some(exception);
            drop(lent);
            drop([argument, result]);
        }
    }
}

#[cfg(not(all(Py_3_12, not(Py_GIL_DISABLED))))]
mod elsewhere {
    //! Before 3.12 the interpreter makes no exception until somebody looks at it; without a GIL, threads can't share one.

    use crate::aio::awaiting;
    use crate::obj::Obj;
    use crate::raw::Raised;
    use pyo3::ffi;
    use pyo3::prelude::*;

    /// Sets a `StopIteration` that carries `result`.
    #[inline]
    pub fn raise(py: Python<'_>, result: Obj, _borrower: *mut ffi::PyObject) -> Raised {
        awaiting::stop(py, result)
    }

    /// Nothing was lent.
    #[inline]
    pub fn take_back(_py: Python<'_>, _borrower: *mut ffi::PyObject) {}
}
