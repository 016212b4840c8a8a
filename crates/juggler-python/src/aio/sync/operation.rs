//! What a coroutine of ours does, step by step.
#![allow(unsafe_code)]

use super::leave::Leave;
use super::{barrier, condition, event, lock, queue, semaphore};
use crate::aio::as_completed::WaitForOne;
use crate::aio::sockets::SocketCall;
use crate::aio::stdlib::CANCELLED_ERROR;
use crate::aio::streams;
use crate::aio::timeout;
use crate::aio::wait_for::WaitFor;
use crate::obj::Obj;
use crate::raw::Raised;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};

/// What an operation does next.
pub enum Step {
    /// It has ended, with this result.
    Done(Obj),
    /// It goes on when this future is done.
    Await(Obj),
    /// It goes on when this awaitable has ended, which gets to know of all that is thrown in meanwhile.
    Delegate(Obj),
}

/// A step, or an exception that ends the operation.
pub type Next = Result<Step, Raised>;

/// How the wait for a future ended.
pub enum Ending {
    /// With a result.
    Woken(Obj),
    /// With an exception: the future's, or one that was thrown into the coroutine.
    Thrown(Obj),
}

/// A call that may have to wait. It is run by a [`Coroutine`](super::coroutine::Coroutine), one step at a time.
pub trait Operation {
    /// The first step.
    ///
    /// # Errors
    /// What the operation raises.
    fn begin(&mut self, py: Python<'_>) -> Next;

    /// The step after the wait for `future`.
    ///
    /// # Errors
    /// What the operation raises.
    fn resume(&mut self, py: Python<'_>, future: &Obj, ending: Ending) -> Next;

    /// The name of the coroutine, as the standard library's has it.
    fn name(&self) -> &'static str;

    /// Shows what it holds to the garbage collector.
    ///
    /// # Errors
    /// The visit's.
    fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError>;
}

/// A large one, so that the others are moved as what they are.
impl<T: Operation> Operation for Box<T> {
    fn begin(&mut self, py: Python<'_>) -> Next {
        T::begin(self, py)
    }

    fn resume(&mut self, py: Python<'_>, future: &Obj, ending: Ending) -> Next {
        T::resume(self, py, future, ending)
    }

    fn name(&self) -> &'static str {
        T::name(self)
    }

    fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        T::visit(self, visit)
    }
}

/// The exception that is set, as an object.
///
/// Not by PyO3, which panics where it has to make an exception of its parts while the interpreter ends; what waits then is
/// closed, which is done with exceptions.
#[cold]
pub fn caught(_py: Python<'_>, _raised: Raised) -> Obj {
    // SAFETY: an exception is set, as `_raised` says, and the thread is attached; what is taken is owned.
    unsafe {
        #[cfg(Py_3_12)]
        return Obj::from_owned(ffi::PyErr_GetRaisedException());
        #[cfg(not(Py_3_12))]
        {
            let [mut class, mut value, mut traceback] = [std::ptr::null_mut(); 3];
            ffi::PyErr_Fetch(&raw mut class, &raw mut value, &raw mut traceback);
            ffi::PyErr_NormalizeException(&raw mut class, &raw mut value, &raw mut traceback);
            if !traceback.is_null() {
                ffi::PyException_SetTraceback(value, traceback);
                ffi::Py_DECREF(traceback);
            }
            ffi::Py_DECREF(class);
            Obj::from_owned(value)
        }
    }
}

/// Sets an exception.
pub fn raise(_py: Python<'_>, error: Obj) -> Raised {
    // SAFETY: an exception, whose references are handed over, and the thread is attached.
    unsafe {
        #[cfg(Py_3_12)]
        ffi::PyErr_SetRaisedException(error.into_ptr());
        #[cfg(not(Py_3_12))]
        {
            let class = ffi::Py_TYPE(error.as_ptr()).cast::<ffi::PyObject>();
            ffi::Py_INCREF(class);
            let traceback = ffi::PyException_GetTraceback(error.as_ptr());
            ffi::PyErr_Restore(class, error.into_ptr(), traceback);
        }
    }
    Raised
}

/// Whether `error` says that somebody was cancelled.
///
/// # Errors
/// What importing `asyncio` raises.
#[cold]
pub fn is_cancellation(py: Python<'_>, error: &Obj) -> Result<bool, Raised> {
    let class = CANCELLED_ERROR.get(py);
    class.and_then(|class| error.bind(py).is_instance(class)).map_err(|error| Raised::from_err(py, error))
}

/// `True`, as the result of an operation.
#[inline(always)]
pub fn yes(py: Python<'_>) -> Step {
    Step::Done(pyo3::types::PyBool::new(py, true).to_owned().into_any().into())
}

/// `None`, as the result of an operation.
#[inline(always)]
pub fn nothing(_py: Python<'_>) -> Step {
    Step::Done(crate::aio::future::none())
}

macro_rules! operations {
    ($($name:ident($kind:ty),)*) => {
        /// Any of the operations.
        pub enum Any {
            $($name($kind),)*
        }

        $(impl From<$kind> for Any {
            #[inline(always)]
            fn from(operation: $kind) -> Self {
                Self::$name(operation)
            }
        })*

        impl Operation for Any {
            #[inline(always)]
            fn begin(&mut self, py: Python<'_>) -> Next {
                match self {
                    $(Self::$name(operation) => operation.begin(py),)*
                }
            }

            #[inline(always)]
            fn resume(&mut self, py: Python<'_>, future: &Obj, ending: Ending) -> Next {
                match self {
                    $(Self::$name(operation) => operation.resume(py, future, ending),)*
                }
            }

            fn name(&self) -> &'static str {
                match self {
                    $(Self::$name(operation) => operation.name(),)*
                }
            }

            fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
                match self {
                    $(Self::$name(operation) => operation.visit(visit),)*
                }
            }
        }
    };
}

operations! {
    LockAcquire(lock::Acquire),
    LockLeave(Leave<lock::Lock>),
    EventWait(event::Wait),
    ConditionWait(condition::Wait),
    ConditionWaitFor(Box<condition::WaitFor>),
    SemaphoreAcquire(semaphore::Acquire),
    SemaphoreLeave(Leave<semaphore::Semaphore>),
    BarrierWait(barrier::Wait),
    BarrierChange(barrier::Change),
    QueueGet(queue::Get),
    QueuePut(queue::Put),
    QueueJoin(queue::Join),
    StreamRead(streams::Read),
    StreamDrain(streams::Drain),
    Socket(SocketCall),
    TimeoutEnter(timeout::Enter),
    TimeoutExit(timeout::Exit),
    WaitFor(WaitFor),
    WaitForOne(WaitForOne),
}
