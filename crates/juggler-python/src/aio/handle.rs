//! `Handle` and `TimerHandle`.
//!
//! Programs ask `isinstance(handle, asyncio.Handle)` and look at `handle._callback`; a class with a layout of its own could not
//! inherit from the standard library's, whose instances have slots. So ours are Python classes without slots of their own,
//! based on the standard library's, and this module makes, runs, cancels and frees their instances: it knows where the slots
//! lie ([`Slot`]). Whatever else there is (`repr`, comparison, the constructor) is the standard library's.
#![allow(unsafe_code)]

use super::entry::{Entry, Kind};
use super::event_loop;
use crate::freed::Freed;
use crate::obj::Obj;
use crate::raw::{self, Function, Raised, RawResult};
use juggler_sync::sync::{AtomicUsize, Ordering};
use pyo3::exceptions::{PyKeyboardInterrupt, PySystemExit, PyTypeError};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::sync::critical_section::with_critical_section;
use pyo3::types::{PyString, PyTuple, PyType};

/// The slots of the standard library's classes. The last two are the `TimerHandle`'s.
#[derive(Clone, Copy, Debug)]
#[repr(usize)]
enum Slot {
    Callback,
    Args,
    Cancelled,
    Loop,
    SourceTraceback,
    Repr,
    Context,
    Scheduled,
    When,
}

const SLOTS: [(Slot, &str); 9] = [
    (Slot::Callback, "_callback"),
    (Slot::Args, "_args"),
    (Slot::Cancelled, "_cancelled"),
    (Slot::Loop, "_loop"),
    (Slot::SourceTraceback, "_source_traceback"),
    (Slot::Repr, "_repr"),
    (Slot::Context, "_context"),
    (Slot::Scheduled, "_scheduled"),
    (Slot::When, "_when"),
];
pub(super) const HANDLE_SLOTS: usize = 7;

/// Where the slots lie in an instance, and the two classes. Only written by [`set_handle_classes`].
static OFFSETS: [AtomicUsize; SLOTS.len()] = [const { AtomicUsize::new(0) }; SLOTS.len()];
static HANDLE: AtomicUsize = AtomicUsize::new(0);
static TIMER_HANDLE: AtomicUsize = AtomicUsize::new(0);

/// Instances that were freed: handles and timer handles. Given back to the system, the memory of a burst of calls would have to
/// be got again, page by page, for the next one: a fifth of what scheduling and running 20,000 calls takes. So up to 4 MiB are
/// kept of either.
static FREED: [Freed; 2] = [const { Freed::new(32768) }; 2];

/// What reports an exception that a callback raised: a Python function of the handle and the exception.
static REPORT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// An instance of one of the two classes, or of a subclass.
pub static KIND: Kind = Kind { run, is_cancelled };

/// Any other object with the methods of a handle.
pub static ANY_KIND: Kind = Kind { run: run_any, is_cancelled: |_| false };

#[inline(always)]
fn handle_class() -> *mut ffi::PyTypeObject {
    HANDLE.load(Ordering::Relaxed) as *mut ffi::PyTypeObject
}

#[inline(always)]
fn timer_class() -> *mut ffi::PyTypeObject {
    TIMER_HANDLE.load(Ordering::Relaxed) as *mut ffi::PyTypeObject
}

/// Where `slot` lies in `handle`.
///
/// # Safety
/// `handle` is an instance of a class that has the slot.
#[inline(always)]
unsafe fn place(handle: *mut ffi::PyObject, slot: Slot) -> *mut *mut ffi::PyObject {
    // SAFETY: the offset is the class's own.
    unsafe { handle.byte_add(OFFSETS[slot as usize].load(Ordering::Relaxed)).cast() }
}

/// What is in the slot; `None` if it was never set, or deleted.
///
/// # Safety
/// As [`place`].
#[inline(always)]
unsafe fn get(handle: *mut ffi::PyObject, slot: Slot) -> Option<Obj> {
    // SAFETY: a slot holds null or an object, which it keeps alive. On a build without a GIL the caller has the handle's
    // critical section, in which the interpreter writes slots, too.
    unsafe {
        let value = *place(handle, slot);
        if value.is_null() { None } else { Some(Obj::from_borrowed(value)) }
    }
}

/// Puts `value` in, and returns what was there.
///
/// # Safety
/// As [`place`].
#[inline(always)]
unsafe fn set(handle: *mut ffi::PyObject, slot: Slot, value: Obj) -> Option<Obj> {
    // SAFETY: as in `get`; the slot takes the reference over, and gives up the one that it had.
    unsafe {
        let old = place(handle, slot).replace(value.into_ptr());
        if old.is_null() { None } else { Some(Obj::from_owned(old)) }
    }
}

/// Whether the slot holds `True`.
///
/// # Safety
/// As [`place`].
#[inline(always)]
unsafe fn is_true(handle: *mut ffi::PyObject, slot: Slot) -> bool {
    // SAFETY: the pointer is compared, not followed.
    unsafe { *place(handle, slot) == ffi::Py_True() }
}

fn is_cancelled(handle: &Obj) -> bool {
    // SAFETY: entries of this kind are handles.
    unsafe { is_true(handle.as_ptr(), Slot::Cancelled) }
}

/// Whether `object` is a handle of ours.
#[inline(always)]
pub fn is_handle(object: *mut ffi::PyObject) -> bool {
    // SAFETY: `object` is live, and the class is never freed.
    unsafe { ffi::Py_TYPE(object) == handle_class() || ffi::PyObject_TypeCheck(object, handle_class()) != 0 }
}

/// An entry that runs `handle`, an object with the methods of one.
pub fn entry_of(handle: Obj) -> Entry {
    let kind = if is_handle(handle.as_ptr()) { &KIND } else { &ANY_KIND };
    Entry { object: handle, kind }
}

/// What a handle is made of.
#[derive(Debug)]
pub struct Call {
    pub callback: Obj,
    /// A tuple.
    pub args: Obj,
    pub context: Obj,
}

fn owned(object: *mut ffi::PyObject) -> Obj {
    // SAFETY: the singletons that are passed always exist; callers are attached.
    unsafe { Obj::from_borrowed(object) }
}

/// A handle of `call`.
///
/// # Errors
/// `MemoryError`
#[inline(always)]
pub fn create(py: Python<'_>, event_loop: Obj, call: Call) -> Result<Obj, Raised> {
    let handle = allocate(py, 0, handle_class())?;
    // SAFETY: it is a new handle.
    unsafe { fill(handle.as_ptr(), event_loop, call) };
    Ok(handle)
}

/// A timer handle of `call`, which is in the timers.
///
/// # Errors
/// `MemoryError`
#[inline(always)]
pub fn create_timer(py: Python<'_>, event_loop: Obj, call: Call, when: Obj) -> Result<Obj, Raised> {
    let handle = allocate(py, 1, timer_class())?;
    // SAFETY: it is a new timer handle.
    unsafe {
        fill(handle.as_ptr(), event_loop, call);
        *place(handle.as_ptr(), Slot::When) = when.into_ptr();
        *place(handle.as_ptr(), Slot::Scheduled) = owned(ffi::Py_True()).into_ptr();
    }
    Ok(handle)
}

/// A handle that knows where it was made, for debug mode: the standard library's constructor sees to that. A timer handle if
/// there is a time.
///
/// # Errors
/// What the constructor raises.
#[cold]
pub fn create_traced(
    py: Python<'_>,
    event_loop: &Bound<'_, PyAny>,
    call: Call,
    when: Option<Obj>,
) -> Result<Obj, Raised> {
    let Call { callback, args, context } = call;
    let class = if when.is_some() { timer_class() } else { handle_class() };
    // SAFETY: the class is never freed.
    let class = unsafe { Bound::from_borrowed_ptr(py, class.cast()) };
    let (callback, args, context) = (callback.bind(py), args.bind(py), context.bind(py));
    let made = match when {
        Some(when) => class.call1((when.bind(py), callback, args, event_loop, context)),
        None => class.call1((callback, args, event_loop, context)),
    };
    let handle = Obj::from(made.map_err(|error| Raised::from_err(py, error))?);
    if is_timer(handle.as_ptr()) {
        // SAFETY: it has the slot, which holds a bool.
        drop(unsafe { set(handle.as_ptr(), Slot::Scheduled, owned(ffi::Py_True())) });
    }
    Ok(handle)
}

/// # Safety
/// `handle` is a new handle.
#[inline(always)]
pub(super) unsafe fn fill(handle: *mut ffi::PyObject, event_loop: Obj, call: Call) {
    // SAFETY: the slots are there and null; the singletons always exist.
    unsafe {
        *place(handle, Slot::Callback) = call.callback.into_ptr();
        *place(handle, Slot::Args) = call.args.into_ptr();
        *place(handle, Slot::Context) = call.context.into_ptr();
        *place(handle, Slot::Loop) = event_loop.into_ptr();
        *place(handle, Slot::Cancelled) = owned(ffi::Py_False()).into_ptr();
        *place(handle, Slot::SourceTraceback) = owned(ffi::Py_None()).into_ptr();
        *place(handle, Slot::Repr) = owned(ffi::Py_None()).into_ptr();
    }
}

#[inline(always)]
fn allocate(py: Python<'_>, list: usize, class: *mut ffi::PyTypeObject) -> Result<Obj, Raised> {
    // The instances in the list are of the class, and their slots are all filled by the caller.
    let object = match FREED[list].pop(py) {
        Some(object) => object,
        // SAFETY: the class is never freed; a new instance has null slots.
        None => unsafe { ffi::PyType_GenericAlloc(class, 0) },
    };
    // SAFETY: if it is not null, it is owned.
    if object.is_null() { Err(Raised) } else { Ok(unsafe { Obj::from_owned(object) }) }
}

/// Takes an instance apart, but for its slots behind the first `count` ones.
///
/// # Safety
/// The thread is attached, and the instance has no references and so many slots, which hold null or an object.
#[inline(always)]
pub(super) unsafe fn take_apart(object: *mut ffi::PyObject, count: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        ffi::PyObject_GC_UnTrack(object.cast());
        let weak = object.byte_offset((*handle_class()).tp_weaklistoffset).cast::<*mut ffi::PyObject>();
        if cfg!(Py_GIL_DISABLED) || !(*weak).is_null() {
            ffi::PyObject_ClearWeakRefs(object);
        }
        for &(slot, _) in &SLOTS[..count] {
            let value = *place(object, slot);
            if !value.is_null() {
                ffi::Py_DECREF(value);
            }
        }
    }
}

unsafe extern "C" fn dealloc(object: *mut ffi::PyObject) {
    // SAFETY: CPython calls it once, attached, for an instance without references, which may be one of a subclass.
    unsafe {
        let class = ffi::Py_TYPE(object);
        let is_timer = class != handle_class() && is_timer(object);
        take_apart(object, if is_timer { SLOTS.len() } else { HANDLE_SLOTS });
        let is_ours = class == handle_class() || class == timer_class();
        if is_ours && FREED[usize::from(is_timer)].push(Python::assume_attached(), object) {
            return;
        }
        if let Some(free) = (*class).tp_free {
            free(object.cast());
        }
        // An instance of a class that was made at run time owns a reference to it.
        ffi::Py_DECREF(class.cast());
    }
}

/// Runs a handle.
pub(super) fn run(py: Python<'_>, handle: Obj) -> Result<(), Raised> {
    let pointer = handle.as_ptr();
    // SAFETY: entries of this kind are handles.
    let read = || unsafe {
        if is_true(pointer, Slot::Cancelled) {
            return None;
        }
        Some((get(pointer, Slot::Callback)?, get(pointer, Slot::Args)?, get(pointer, Slot::Context)?))
    };
    let Some((callback, args, context)) = with_critical_section(&handle.bind(py), read) else { return Ok(()) };
    match call(py, &callback, &args, &context) {
        Ok(result) => {
            drop(result);
            Ok(())
        }
        Err(raised) => failed(py, &handle, raised),
    }
}

/// Calls `callback` with `args` in `context`.
#[inline(always)]
fn call(py: Python<'_>, callback: &Obj, args: &Obj, context: &Obj) -> Result<Obj, Raised> {
    // SAFETY: all are live objects, and the thread is attached.
    unsafe {
        if ffi::PyContext_CheckExact(context.as_ptr()) == 0 || ffi::PyTuple_CheckExact(args.as_ptr()) == 0 {
            return call_slow(py, callback, args, context).map_err(|error| Raised::from_err(py, error));
        }
        if ffi::PyContext_Enter(context.as_ptr()) != 0 {
            return Err(Raised);
        }
        // It jumps to the callback's vectorcall: a return less than from `PyObject_Vectorcall`, and no processor foresees a
        // return after a system call.
        let result = ffi::PyObject_Call(callback.as_ptr(), args.as_ptr(), std::ptr::null_mut());
        // The callback's exception is left as it is: this fails only if the callback has left the context itself.
        let left = ffi::PyContext_Exit(context.as_ptr());
        if result.is_null() {
            return Err(Raised);
        }
        let result = Obj::from_owned(result);
        if left != 0 { Err(Raised) } else { Ok(result) }
    }
}

/// The same for a context that a program has made itself.
#[cold]
fn call_slow(py: Python<'_>, callback: &Obj, args: &Obj, context: &Obj) -> PyResult<Obj> {
    let mut values = vec![callback.bind(py).to_owned()];
    for value in args.bind(py).try_iter()? {
        values.push(value?);
    }
    context.bind(py).call_method1(intern!(py, "run"), PyTuple::new(py, values)?).map(Obj::from)
}

#[cold]
fn failed(py: Python<'_>, handle: &Obj, raised: Raised) -> Result<(), Raised> {
    let error = raised.fetch(py);
    if error.is_instance_of::<PyKeyboardInterrupt>(py) || error.is_instance_of::<PySystemExit>(py) {
        return Err(Raised::from_err(py, error));
    }
    let Some(report) = REPORT.get(py) else { return Err(Raised::from_err(py, error)) };
    let reported = report.bind(py).call1((handle.bind(py), error.value(py)));
    reported.map(drop).map_err(|error| Raised::from_err(py, error))
}

fn run_any(py: Python<'_>, handle: Obj) -> Result<(), Raised> {
    let run = || {
        let handle = handle.bind(py);
        if !handle.getattr(intern!(py, "_cancelled"))?.is_truthy()? {
            handle.call_method0(intern!(py, "_run"))?;
        }
        Ok(())
    };
    run().map_err(|error| Raised::from_err(py, error))
}

/// Cancels a handle; what it held is dropped.
fn cancel(py: Python<'_>, handle: &Bound<'_, PyAny>) -> PyResult<()> {
    let pointer = handle.as_ptr();
    // SAFETY: the caller's handle.
    if unsafe { is_true(pointer, Slot::Cancelled) } {
        return Ok(());
    }
    // SAFETY: as above.
    let Some(owner) = (unsafe { get(pointer, Slot::Loop) }) else { return Ok(()) };
    let owner = owner.into_bound(py);
    let ours = event_loop::as_loop(&owner);
    // SAFETY: a timer handle has the slot.
    let scheduled = is_timer(pointer) && unsafe { is_true(pointer, Slot::Scheduled) };
    // SAFETY: the caller's handle; the singletons always exist.
    let mut dropped = unsafe { [set(pointer, Slot::Cancelled, owned(ffi::Py_True())), None, None] };
    if scheduled {
        match ours {
            Some(ours) => ours.get().timer_cancelled(py),
            None => drop(owner.call_method1(intern!(py, "_timer_handle_cancelled"), (handle,))?),
        }
    }
    let debug = match ours {
        Some(ours) => ours.get().is_debug(),
        None => owner.call_method0(intern!(py, "get_debug"))?.is_truthy()?,
    };
    if debug {
        // Kept to tell what it was: "Executing <Handle ...> took 2.5 seconds".
        handle.setattr(intern!(py, "_repr"), handle.repr()?)?;
    }
    let clear = || {
        // SAFETY: as above.
        unsafe {
            dropped[1] = set(pointer, Slot::Callback, owned(ffi::Py_None()));
            dropped[2] = set(pointer, Slot::Args, owned(ffi::Py_None()));
        }
    };
    with_critical_section(handle, clear);
    drop(dropped);
    Ok(())
}

/// Cancels the handle of a watcher, if it is one.
///
/// # Errors
/// What `repr` raises, in debug mode.
pub fn dismiss(py: Python<'_>, watcher: &Obj) -> Result<(), Raised> {
    if is_handle(watcher.as_ptr()) {
        cancel(py, &watcher.bind(py)).map_err(|error| Raised::from_err(py, error))?;
    }
    Ok(())
}

/// Says that a timer handle has left the timers.
pub fn unschedule(handle: &Obj) {
    if is_timer(handle.as_ptr()) {
        // SAFETY: it has the slot, which holds a bool.
        drop(unsafe { set(handle.as_ptr(), Slot::Scheduled, owned(ffi::Py_False())) });
    }
}

#[inline(always)]
fn is_timer(object: *mut ffi::PyObject) -> bool {
    // SAFETY: `object` is live, and the class is never freed.
    unsafe { ffi::Py_TYPE(object) == timer_class() || ffi::PyObject_TypeCheck(object, timer_class()) != 0 }
}

/// Defines a method without arguments: `fn(Python, &Bound<PyAny>) -> RawResult`.
macro_rules! noargs {
    ($function:expr) => {{
        unsafe extern "C" fn method(this: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
            // SAFETY: CPython calls methods attached, and with an instance of the class as the descriptor checks.
            unsafe { raw::guard(|py| $function(py, &*Bound::ref_from_ptr(py, &this))) }
        }
        Function::NoArgs(method)
    }};
}

fn py_cancel(py: Python<'_>, handle: &Bound<'_, PyAny>) -> RawResult {
    cancel(py, handle).map_err(|error| Raised::from_err(py, error))?;
    Ok(raw::none())
}

fn py_cancelled(_py: Python<'_>, handle: &Bound<'_, PyAny>) -> RawResult {
    // SAFETY: it is a handle.
    Ok(raw::bool(unsafe { is_true(handle.as_ptr(), Slot::Cancelled) }))
}

fn py_run(py: Python<'_>, handle: &Bound<'_, PyAny>) -> RawResult {
    run(py, handle.clone().into())?;
    Ok(raw::none())
}

/// Where the slot `name` of a class lies in an instance.
///
/// # Errors
/// `TypeError` if it is no slot.
pub(super) fn offset_of(class: &Bound<'_, PyAny>, name: &str) -> PyResult<usize> {
    let descriptor = class.getattr(PyString::new(class.py(), name))?;
    if !descriptor.get_type().name()?.eq("member_descriptor") {
        return Err(PyTypeError::new_err(format!("{name} must be a slot of {class}")));
    }
    // SAFETY: it is a descriptor of that type, whose definition lives as long as the class.
    Ok(unsafe { (*(*descriptor.as_ptr().cast::<ffi::PyMemberDescrObject>()).d_member).offset } as usize)
}

/// Makes `handle` and `timer_handle`, which are based on the standard library's classes and have their layout, the classes of
/// all handles that loops make. `report` is called with a handle and what its callback raised.
#[pyfunction]
#[pyo3(name = "_set_handle_classes")]
pub fn set_handle_classes(
    handle: &Bound<'_, PyType>,
    timer_handle: &Bound<'_, PyType>,
    report: Py<PyAny>,
) -> PyResult<()> {
    let py = handle.py();
    for (slot, name) in SLOTS {
        OFFSETS[slot as usize].store(offset_of(timer_handle, name)?, Ordering::Relaxed);
    }
    for (class, place) in [(handle, &HANDLE), (timer_handle, &TIMER_HANDLE)] {
        // SAFETY: the class is live and handed over for ever (`forget`), and no instance of it exists yet.
        unsafe { (*class.as_type_ptr()).tp_dealloc = Some(dealloc) };
        std::mem::forget(class.clone());
        place.store(class.as_type_ptr() as usize, Ordering::Relaxed);
    }
    let _ = REPORT.set(py, report);
    let classes = [handle.clone(), timer_handle.clone()];
    // SAFETY: the functions take instances of both.
    unsafe {
        let cancel = "($self, /)\n--\n\nCancel the callback; does nothing if it was cancelled or has run.";
        raw::add_method_to(&classes, "cancel", noargs!(py_cancel), cancel)?;
        let cancelled = "($self, /)\n--\n\nWhether the callback was cancelled.";
        raw::add_method_to(&classes, "cancelled", noargs!(py_cancelled), cancelled)?;
        raw::add_method_to(&classes, "_run", noargs!(py_run), "($self, /)\n--\n\n")
    }
}
