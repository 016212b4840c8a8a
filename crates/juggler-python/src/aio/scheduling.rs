//! `call_soon` and its siblings.
#![allow(unsafe_code)]

use super::entry::Entry;
use super::event_loop::{Loop, seconds};
use super::handle::{self, Call};
use crate::obj::Obj;
use crate::raw::{Args, Raised, RawResult, This, methods};
use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use std::ffi::CStr;

/// The arguments of a function that takes some of its own, then a callback and its arguments, and a context by name.
pub(super) struct Scheduled<'a, const N: usize> {
    /// Its own.
    pub own: [*mut ffi::PyObject; N],
    callback: *mut ffi::PyObject,
    args: &'a [*mut ffi::PyObject],
    /// Null or None for a copy of the current one.
    context: *mut ffi::PyObject,
}

impl<'a, const N: usize> Scheduled<'a, N> {
    /// Sorts `args` of `function`, the first of which are named `names`.
    #[inline(always)]
    pub fn parse(py: Python<'_>, function: &str, names: [&CStr; N], args: Args<'a>) -> Result<Self, Raised> {
        let positional = args.positional();
        if positional > N && args.names().is_null() {
            let values = args.values();
            let own = std::array::from_fn(|at| values[at]);
            return Ok(Self { own, callback: values[N], args: &values[N + 1..], context: std::ptr::null_mut() });
        }
        Self::parse_slow(py, function, names, args)
    }

    #[cold]
    fn parse_slow(py: Python<'_>, function: &str, names: [&CStr; N], args: Args<'a>) -> Result<Self, Raised> {
        let (values, positional) = (args.values(), args.positional());
        let mut own = std::array::from_fn(|at| if at < positional { values[at] } else { std::ptr::null_mut() });
        let mut callback = if N < positional { values[N] } else { std::ptr::null_mut() };
        let mut context = std::ptr::null_mut();
        let mut unexpected = None;
        for (at, &value) in values[positional..].iter().enumerate() {
            // SAFETY: there is a tuple with a name for each of these values.
            let name = unsafe { ffi::PyTuple_GET_ITEM(args.names(), at as ffi::Py_ssize_t) };
            // SAFETY: `name` is a string; the other is ASCII and ends with a zero.
            let is = |other: &CStr| unsafe { ffi::PyUnicode_CompareWithASCIIString(name, other.as_ptr()) } == 0;
            if is(c"context") {
                context = value;
            } else if is(c"callback") && callback.is_null() {
                callback = value;
            } else if let Some(place) = names.iter().position(|own| is(own)).filter(|&place| own[place].is_null()) {
                own[place] = value;
            } else {
                unexpected = Some(name);
            }
        }
        if let Some(name) = unexpected {
            // SAFETY: borrowed from the live tuple.
            let name = unsafe { Bound::from_borrowed_ptr(py, name) };
            let message = format!("{function}() got an unexpected or doubled keyword argument '{name}'");
            return Err(Raised::new::<PyTypeError>(py, &message));
        }
        if let Some(missing) = own.iter().position(|value| value.is_null()) {
            let name = names[missing].to_string_lossy();
            return Err(Raised::new::<PyTypeError>(py, &format!("{function}() missing required argument: '{name}'")));
        }
        if callback.is_null() {
            let message = format!("{function}() missing required argument: 'callback'");
            return Err(Raised::new::<PyTypeError>(py, &message));
        }
        Ok(Self { own, callback, args: values.get(N + 1..positional).unwrap_or_default(), context })
    }

    /// What a handle needs of it.
    #[inline(always)]
    pub fn call(&self, _py: Python<'_>) -> Result<Call, Raised> {
        // SAFETY: the arguments are live, and the thread is attached; what may be null is checked.
        unsafe {
            let context = if self.context.is_null() || self.context == ffi::Py_None() {
                let context = ffi::PyContext_CopyCurrent();
                if context.is_null() {
                    return Err(Raised);
                }
                Obj::from_owned(context)
            } else {
                Obj::from_borrowed(self.context)
            };
            let args = ffi::PyTuple_New(self.args.len() as ffi::Py_ssize_t);
            if args.is_null() {
                return Err(Raised);
            }
            for (at, &value) in self.args.iter().enumerate() {
                ffi::Py_INCREF(value);
                ffi::PyTuple_SET_ITEM(args, at as ffi::Py_ssize_t, value);
            }
            Ok(Call { callback: Obj::from_borrowed(self.callback), args: Obj::from_owned(args), context })
        }
    }
}

#[inline(always)]
fn object_of(this: This<'_, '_, Loop>) -> Obj {
    // SAFETY: the receiver is live.
    unsafe { Obj::from_borrowed(this.as_any().as_ptr()) }
}

/// A handle, with where it was made if debug mode is on.
#[inline(always)]
pub(super) fn create_handle(this: This<'_, '_, Loop>, call: Call) -> Result<Obj, Raised> {
    let py = this.py();
    if this.is_debug() {
        handle::create_traced(py, this.as_any(), call, None)
    } else {
        handle::create(py, object_of(this), call)
    }
}

/// What is checked in debug mode, and whether the loop is closed.
#[cold]
fn check(this: This<'_, '_, Loop>, method: &str, callback: *mut ffi::PyObject, any_thread: bool) -> Result<(), Raised> {
    let py = this.py();
    this.check_closed(py)?;
    let check = || {
        if !any_thread {
            this.as_any().call_method0(intern!(py, "_check_thread"))?;
        }
        // SAFETY: an argument is live.
        let callback = unsafe { Bound::from_borrowed_ptr(py, callback) };
        this.as_any().call_method1(intern!(py, "_check_callback"), (callback, method)).map(drop)
    };
    check().map_err(|error| Raised::from_err(py, error))
}

fn call_soon(this: This<'_, '_, Loop>, args: Args<'_>) -> RawResult {
    let py = this.py();
    let scheduled = Scheduled::parse(py, "call_soon", [], args)?;
    if !this.is_plain() {
        check(this, "call_soon", scheduled.callback, false)?;
    }
    let handle = create_handle(this, scheduled.call(py)?)?;
    this.push(py, Entry { object: handle.clone_ref(py), kind: &handle::KIND });
    Ok(handle.into_ptr())
}

fn call_soon_threadsafe(this: This<'_, '_, Loop>, args: Args<'_>) -> RawResult {
    let py = this.py();
    let scheduled = Scheduled::parse(py, "call_soon_threadsafe", [], args)?;
    if !this.is_plain() {
        check(this, "call_soon_threadsafe", scheduled.callback, true)?;
    }
    let call = scheduled.call(py)?;
    let handle = handle::create_threadsafe(this.as_any(), call)?;
    this.push_threadsafe(py, handle::entry_of(handle.clone_ref(py)));
    Ok(handle.into_ptr())
}

fn timer(this: This<'_, '_, Loop>, when: f64, object: Option<Obj>, scheduled: &Scheduled<'_, 1>) -> RawResult {
    let py = this.py();
    if !this.is_plain() {
        check(this, "call_at", scheduled.callback, false)?;
    }
    let object = match object {
        Some(object) => object,
        None => {
            // SAFETY: the thread is attached.
            let object = unsafe { ffi::PyFloat_FromDouble(when) };
            if object.is_null() {
                return Err(Raised);
            }
            // SAFETY: a new float.
            unsafe { Obj::from_owned(object) }
        }
    };
    let call = scheduled.call(py)?;
    let handle = if this.is_debug() {
        handle::create_traced(py, this.as_any(), call, Some(object))?
    } else {
        handle::create_timer(py, object_of(this), call, object)?
    };
    // Rounded up, never too early; what lies before the clock's beginning or beyond its end goes there.
    let nanos = (when * 1e9).ceil() as u64;
    this.schedule(py, nanos, Entry { object: handle.clone_ref(py), kind: &handle::KIND });
    Ok(handle.into_ptr())
}

/// A number of seconds that a program passed.
#[inline(always)]
fn number(py: Python<'_>, object: *mut ffi::PyObject, none: &str) -> Result<f64, Raised> {
    // SAFETY: an argument is live, and the thread is attached.
    unsafe {
        if object == ffi::Py_None() {
            return Err(Raised::new::<PyTypeError>(py, none));
        }
        let number = ffi::PyFloat_AsDouble(object);
        if number == -1.0 && !ffi::PyErr_Occurred().is_null() { Err(Raised) } else { Ok(number) }
    }
}

fn call_later(this: This<'_, '_, Loop>, args: Args<'_>) -> RawResult {
    let py = this.py();
    let scheduled = Scheduled::parse(py, "call_later", [c"delay"], args)?;
    let delay = number(py, scheduled.own[0], "delay must not be None")?;
    timer(this, seconds(Loop::now()) + delay, None, &scheduled)
}

fn call_at(this: This<'_, '_, Loop>, args: Args<'_>) -> RawResult {
    let py = this.py();
    let scheduled = Scheduled::parse(py, "call_at", [c"when"], args)?;
    let when = number(py, scheduled.own[0], "when cannot be None")?;
    // SAFETY: an argument is live.
    let object = unsafe { Obj::from_borrowed(scheduled.own[0]) };
    timer(this, when, Some(object), &scheduled)
}

const CALL_SOON: &str = "($self, callback, *args, context=None)\n--\n\n\
    Call `callback` in the loop's next turn, after what was scheduled before.\n\n\
    Not for other threads: see `call_soon_threadsafe`. The callback runs in `context`, by default a copy of the current one.\n\
    Returns a `Handle`, by which it can be cancelled.";
const CALL_SOON_THREADSAFE: &str = "($self, callback, *args, context=None)\n--\n\n\
    The same as `call_soon` for any thread: the loop is woken if it sleeps.";
const CALL_LATER: &str = "($self, delay, callback, *args, context=None)\n--\n\n\
    Call `callback` in `delay` seconds; never too early.\n\n\
    Calls that are due at the same time are made in the order in which they were scheduled. Returns a `TimerHandle`.";
const CALL_AT: &str = "($self, when, callback, *args, context=None)\n--\n\n\
    The same as `call_later` at a point in time: seconds on the loop's clock, `time()`.";

methods! { add_methods for Loop {
    "call_soon" => keywords call_soon, CALL_SOON;
    "call_soon_threadsafe" => keywords call_soon_threadsafe, CALL_SOON_THREADSAFE;
    "call_later" => keywords call_later, CALL_LATER;
    "call_at" => keywords call_at, CALL_AT;
} }
