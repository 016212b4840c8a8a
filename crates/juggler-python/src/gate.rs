//! The one place where a thread leaves the interpreter to wait.
//!
//! Every blocking call of the package ends in [`PyGate::wait`], or for a descriptor in [`PyGate::system_call`]: it
//! detaches (under a GIL: releases it), sleeps in the engine, attaches again, and, if a signal ended the sleep, runs
//! Python's signal handlers. A handler that raises (as `KeyboardInterrupt` does) ends the wait; after any other the engine
//! waits on for what is left of its deadline.
//!
//! When the interpreter is finalizing, no other thread can run Python any more and so nobody can end a wait without a
//! timeout: it raises `PythonFinalizationError` (a `RuntimeError` before 3.13) instead of hanging.
//!
//! # Looking before sleeping
//!
//! A wait begins with a look at the word for some microseconds, while experience says that this pays ([`look`]). Under a GIL the
//! thread looks until the GIL is free too ([`gil`]): if it asked for it at once, it would only fall asleep there.
//!
//! # A busy producer
//!
//! Under the GIL, a thread that is woken must get the GIL, and a thread that computes gives it up only when its switch
//! interval (5 ms by default) is over: so long would each item of a busy producer lie in a queue. [`yield_to`] is called
//! by whoever woke a thread: if that one had been asleep for [`LONG_SLEEP`] or more, so that the system was not in a tight
//! exchange of items, the waker detaches until the woken has run, at most for [`YIELD_LIMIT`]. Threads that exchange items at a
//! high rate don't pay for it.
//!
//! To wake a thread takes tens of microseconds. The main thread need not stand still for that long: it computes on, the woken
//! knocks when it is awake ([`knock`]), and the interpreter has the main thread answer between two instructions ([`answer`]). No
//! other thread can be called like that.
#![allow(unsafe_code)]

use crate::gil;
use crate::raw::Raised;
use juggler_sync::look;
use juggler_sync::park::Waiter;
use juggler_sync::queue::Context;
use juggler_sync::rlock::ThreadId;
use juggler_sync::sync::Arc;
use juggler_sync::sys::{FutexWait, Sleep};
use juggler_sync::{Deadline, Gate, Waited};
use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::prelude::*;
use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::time::Duration;

use crate::obj::Obj;

/// The gate of an attached thread.
#[derive(Clone, Copy)]
pub struct PyGate<'py> {
    py: Python<'py>,
}

impl<'py> PyGate<'py> {
    /// The calling thread's gate.
    #[inline(always)]
    pub fn new(py: Python<'py>) -> Self {
        Self { py }
    }

    /// Makes a system call that may wait for a descriptor, detached. When a signal ends it, signal handlers run, and it is
    /// made again.
    ///
    /// # Errors
    /// What a signal handler raises. The call's own error is the inner one.
    pub fn system_call<T: Send>(
        &self,
        mut call: impl FnMut() -> io::Result<T> + Send,
    ) -> Result<io::Result<T>, Raised> {
        loop {
            // Also before the first: the signal may have come while the call was prepared, or have ended a call before
            // that had moved some bytes and so did not say that it was interrupted.
            // SAFETY: the thread is attached.
            if unsafe { ffi::PyErr_CheckSignals() } != 0 {
                return Err(Raised);
            }
            match self.py.detach(&mut call) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return Ok(done),
            }
        }
    }
}

impl PyGate<'_> {
    /// Sleeps detached while `futex` holds `expected`, after a look at it if `looks`. The main thread gets up now and then:
    /// a signal that came in the very moment before its sleep did not end it.
    fn sleep<S: Sleep>(
        &self,
        futex: &S,
        expected: u32,
        deadline: Deadline,
        mut looks: bool,
    ) -> Result<FutexWait, Raised> {
        loop {
            let slept = self.py.detach(|| {
                if looks && look::until(|| futex.has_left(expected) && gil::is_free().unwrap_or(true)) {
                    return Some(FutexWait::Woken);
                }
                if !is_main_thread() {
                    let slept = futex.sleep(expected, deadline);
                    knock();
                    return Some(slept);
                }
                if looks {
                    // A signal that came meanwhile would not end the sleep, either.
                    return None;
                }
                let until = deadline.min(Deadline::after(LONGEST_SLEEP));
                let slept = futex.sleep(expected, until);
                (slept != FutexWait::TimedOut || until == deadline).then_some(slept)
            });
            if let Some(slept) = slept {
                return Ok(slept);
            }
            // SAFETY: the thread is attached.
            if unsafe { ffi::PyErr_CheckSignals() } != 0 {
                return Err(Raised);
            }
            looks = false;
        }
    }

    /// Runs signal handlers after a sleep that one may have ended.
    fn waited(&self, slept: FutexWait) -> Result<Waited, Raised> {
        let waited = match slept {
            FutexWait::Woken => return Ok(Waited::Woken),
            // A signal may have come just before the sleep, and not ended it. Who sleeps in slices sees it here.
            FutexWait::TimedOut => Waited::TimedOut,
            FutexWait::Interrupted => Waited::Woken,
        };
        // The handler may do anything: until it waits anew, this thread counts as running.
        crate::trace::stopped_waiting();
        // SAFETY: the thread is attached again.
        if unsafe { ffi::PyErr_CheckSignals() } == 0 { Ok(waited) } else { Err(Raised) }
    }
}

impl Gate for PyGate<'_> {
    type Error = Raised;

    fn wait<S: Sleep>(&self, futex: &S, expected: u32, deadline: Deadline) -> Result<Waited, Raised> {
        if deadline.is_never() && is_finalizing() {
            return Err(finalizing(self.py));
        }
        let slept = if S::SHARED || gil::is_free().is_some() {
            look::learn(|looks| self.sleep(futex, expected, deadline, looks))?
        } else {
            self.sleep(futex, expected, deadline, false)?
        };
        self.waited(slept)
    }

    fn nap<S: Sleep>(&self, futex: &S, expected: u32, deadline: Deadline) -> Result<Waited, Raised> {
        let slept = self.sleep(futex, expected, deadline, false)?;
        self.waited(slept)
    }

    fn resumed(&self, waiter: &Waiter) {
        if cfg!(not(Py_GIL_DISABLED)) {
            waiter.mark_resumed();
        }
    }
}

impl Context<Obj> for PyGate<'_> {
    fn me(&self) -> ThreadId {
        current_thread()
    }

    fn less(&self, a: &Obj, b: &Obj) -> Result<bool, Raised> {
        // SAFETY: both are live objects, and the thread is attached.
        match unsafe { ffi::PyObject_RichCompareBool(a.as_ptr(), b.as_ptr(), ffi::Py_LT) } {
            -1 => Err(Raised),
            less => Ok(less != 0),
        }
    }
}

/// Runs something long that waits for nobody and touches no Python object, such as a large copy, while other threads
/// have the interpreter.
pub fn without_gil<R: Send>(py: Python<'_>, work: impl FnOnce() -> R + Send) -> R {
    py.detach(work)
}

thread_local! {
    /// Whether signal handlers run in this thread, once it has been asked for.
    static IS_MAIN: Cell<Option<bool>> = const { Cell::new(None) };
}

/// Whether signal handlers run in this thread. Remembered: in a thread that has just let the GIL go and is about to sleep,
/// the end of any system call is where whoever waits for the GIL takes its processor.
fn is_main_thread() -> bool {
    IS_MAIN.get().unwrap_or_else(|| {
        // SAFETY: always safe to call.
        let is_main = unsafe { libc::gettid() == libc::getpid() };
        IS_MAIN.set(Some(is_main));
        is_main
    })
}

/// In a forked child: the thread that forked is its main thread.
pub fn process_forked() {
    IS_MAIN.set(Some(true));
}

fn is_finalizing() -> bool {
    #[cfg(Py_3_13)]
    // SAFETY: always safe to call.
    return unsafe { ffi::Py_IsFinalizing() } != 0;
    #[cfg(not(Py_3_13))]
    {
        unsafe extern "C" {
            // Exported by every CPython before 3.13 gave it its public name.
            fn _Py_IsFinalizing() -> std::os::raw::c_int;
        }
        // SAFETY: always safe to call.
        unsafe { _Py_IsFinalizing() != 0 }
    }
}

#[cold]
fn finalizing(py: Python<'_>) -> Raised {
    let message = "cannot wait at interpreter finalization: no other thread can end this wait";
    // The class is there from 3.13.
    match py.import("builtins").and_then(|builtins| builtins.getattr_opt("PythonFinalizationError")) {
        Ok(Some(class)) => match class.call1((message,)) {
            Ok(error) => Raised::from_err(py, PyErr::from_value(error)),
            Err(error) => Raised::from_err(py, error),
        },
        _ => Raised::new::<PyRuntimeError>(py, message),
    }
}

/// The calling thread's identity, the same as `threading.get_ident()`.
#[inline(always)]
pub fn current_thread() -> ThreadId {
    // SAFETY: always safe to call.
    unsafe { libc::pthread_self() as ThreadId }
}

/// After how long the thread that handles signals asks for them.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// A thread that slept this long, in nanoseconds, was not in a tight exchange.
const LONG_SLEEP: u64 = 250_000;

/// How long a waker waits for the woken to run.
const YIELD_LIMIT: Duration = Duration::from_micros(500);

/// Lets a thread that was just woken run, if it had slept long.
#[inline(always)]
pub fn yield_to(py: Python<'_>, woken: Option<Arc<Waiter>>) {
    if let Some(woken) = woken {
        if cfg!(not(Py_GIL_DISABLED)) && woken.waited_nanos() >= LONG_SLEEP {
            yield_slow(py, woken);
        }
    }
}

#[cold]
fn yield_slow(py: Python<'_>, woken: Arc<Waiter>) {
    if is_main_thread() && gil::is_free().is_some() {
        drop(swap_expected(Some(woken)));
    } else {
        let_in(py, &woken);
    }
}

/// Detaches until the woken thread has run and let the GIL go again, or [`YIELD_LIMIT`] is over.
fn let_in(py: Python<'_>, woken: &Waiter) {
    py.detach(|| {
        if !look::until(|| woken.has_resumed() && gil::is_free().unwrap_or(true)) {
            woken.await_resumed(Deadline::after(YIELD_LIMIT));
        }
    });
}

/// The thread that the main thread woke last, until it knocks; null if there is none.
static EXPECTED: AtomicPtr<Waiter> = AtomicPtr::new(ptr::null_mut());

/// Expects `next` from now on, and returns whom it expected before.
fn swap_expected(next: Option<Arc<Waiter>>) -> Option<Arc<Waiter>> {
    let next = next.map_or(ptr::null_mut(), |next| Arc::into_raw(next).cast_mut());
    // AcqRel: whoever takes a waiter out sees it as it was put in.
    let before = EXPECTED.swap(next, Ordering::AcqRel);
    // SAFETY: every pointer in there came from `Arc::into_raw`, and the swap gives it to one thread alone.
    (!before.is_null()).then(|| unsafe { Arc::from_raw(before) })
}

/// Called by a thread that is awake and about to attach: asks the main thread for the GIL, if that expects somebody. Who knocks
/// need not be the one expected; that one comes in too, for the main thread waits for it.
#[inline]
fn knock() {
    if !EXPECTED.load(Ordering::Relaxed).is_null() {
        knock_slow();
    }
}

#[cold]
fn knock_slow() {
    let Some(expected) = swap_expected(None) else { return };
    if gil::is_free() != Some(false) {
        return;
    }
    let expected = Arc::into_raw(expected).cast_mut();
    // SAFETY: may be called by any thread, attached or not.
    if unsafe { ffi::Py_AddPendingCall(Some(answer), expected.cast()) } == 0 {
        // Who asked for the GIL now would fall asleep there.
        look::until(|| gil::is_free().unwrap_or(true));
    } else {
        // Too many calls are pending. SAFETY: the pointer was made above and is still ours.
        drop(unsafe { Arc::from_raw(expected) });
    }
}

/// What the interpreter calls in the main thread between two instructions after [`knock`].
extern "C" fn answer(expected: *mut c_void) -> c_int {
    // SAFETY: made by `Arc::into_raw` for this call, which comes once.
    let expected = unsafe { Arc::from_raw(expected.cast::<Waiter>()) };
    // SAFETY: pending calls are made by an attached thread.
    let_in(unsafe { Python::assume_attached() }, &expected);
    0
}
