//! The pickles of functions that are called again and again.
//!
//! Most are pickled by reference, and that stays true. A function of the main module, for workers that have none, is
//! sent by value: with its own code and what it uses of `__main__`. Such a pickle is used again as long as each name that it
//! uses has the value that it had, and only if none of these can change in itself: a list would be pickled anew for every
//! call. `by_value.lasting` decides that, and every use looks the names up.
#![allow(unsafe_code)]

use super::pickle;
use super::pool_collect::hook;
use crate::obj::Obj;
use juggler_sync::guarded::Guarded;
use juggler_sync::sync::Arc;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

/// How many functions are remembered.
const MOST: usize = 16;

/// Of the main module's names: those on which a pickle depends.
struct Uses {
    main: Obj,
    /// A name, and its value: itself or a weak reference, `None` if there was none.
    names: Vec<(Obj, Option<Obj>)>,
}

/// A function that was sent, and how.
struct Known {
    /// Where it is, and a weak reference to it.
    address: usize,
    function: Obj,
    /// Its pickle; `None` if it has to be pickled for every call.
    pickled: Option<Obj>,
    uses: Option<Uses>,
}

/// What is known of functions; does not keep them alive.
pub struct Functions {
    known: Guarded<Places>,
    /// Whether workers have no `__main__` of their own.
    define_main: bool,
}

#[derive(Default)]
struct Places {
    known: Vec<Arc<Known>>,
    /// Which is replaced next.
    next: usize,
}

impl Functions {
    pub fn new(define_main: bool) -> Self {
        Self { known: Guarded::new(Places::default()), define_main }
    }

    /// The pickle of a function; `None` if it has to be pickled with its arguments.
    #[inline]
    pub fn pickle(&self, py: Python<'_>, function: *mut ffi::PyObject) -> Option<Obj> {
        let address = function as usize;
        let known = self.known.lock().known.iter().find(|known| known.address == address).cloned();
        if let Some(known) = known
            && known.is_of(py, function)
        {
            return known.pickled.as_ref().map(|pickled| pickled.clone_ref(py));
        }
        let known = Arc::new(self.learn(py, function)?);
        let pickled = known.pickled.as_ref().map(|pickled| pickled.clone_ref(py));
        let stale = self.known.lock().put(known);
        drop(stale);
        pickled
    }

    /// `None` for what is not pickled by reference or by value: an instance, a method.
    #[cold]
    fn learn(&self, py: Python<'_>, function: *mut ffi::PyObject) -> Option<Known> {
        // SAFETY: `function` is live.
        let (plain, weak) = unsafe {
            let builtin = ffi::PyCFunction_CheckExact(function) != 0 && {
                let of = ffi::PyCFunction_GetSelf(function);
                !of.is_null() && ffi::PyModule_Check(of) != 0
            };
            let plain = ffi::PyFunction_Check(function) != 0;
            if !plain && !builtin && ffi::PyType_CheckExact(function) == 0 {
                return None;
            }
            (plain, pickle::owned(ffi::PyWeakref_NewRef(function, std::ptr::null_mut())))
        };
        let weak = weak.map_err(|raised| drop(raised.fetch(py))).ok()?;
        let by_reference = pickle::dumps_plain(py, function).map_err(|raised| drop(raised.fetch(py))).ok();
        // SAFETY: `dumps_plain` gives bytes.
        let defines = |data: &Obj| self.define_main && pickle::mentions_main(unsafe { pickle::contents(data) });
        if let Some(data) = by_reference.filter(|data| !defines(data)) {
            return Some(Known { address: function as usize, function: weak, pickled: Some(data), uses: None });
        }
        // What can't be pickled at all says so with the call.
        let by_value = plain.then(|| self.by_value(py, function).ok().flatten()).flatten();
        let (pickled, uses) = by_value.unzip();
        Some(Known { address: function as usize, function: weak, pickled, uses })
    }

    /// The pickle by value and what it depends on, if it can be used again.
    fn by_value(&self, py: Python<'_>, function: *mut ffi::PyObject) -> PyResult<Option<(Obj, Uses)>> {
        // SAFETY: `function` is live.
        let function = unsafe { Bound::from_borrowed_ptr(py, function) };
        let made = hook(py, "dump_function")?.call1((function, self.define_main))?;
        if made.is_none() {
            return Ok(None);
        }
        let (data, main, uses): (Bound<'_, PyAny>, Bound<'_, PyDict>, Vec<Bound<'_, PyTuple>>) = made.extract()?;
        let names = uses.into_iter().map(|one| {
            let value = one.get_item(1).ok().map(Obj::from);
            PyResult::Ok((one.get_item(0)?.into(), value))
        });
        let uses = Uses { names: names.collect::<PyResult<_>>()?, main: main.into_any().into() };
        Ok(Some((data.into(), uses)))
    }
}

impl Places {
    /// Puts what is known of a function in the place of what was, or of another's; that.
    fn put(&mut self, known: Arc<Known>) -> Option<Arc<Known>> {
        let place = self.known.iter().position(|old| old.address == known.address).unwrap_or(self.next);
        if place == self.next {
            self.next = (self.next + 1) % MOST;
        }
        if place < self.known.len() {
            return Some(std::mem::replace(&mut self.known[place], known));
        }
        self.known.push(known);
        None
    }
}

impl Known {
    /// Whether this is of `function`, and still true.
    #[inline]
    fn is_of(&self, py: Python<'_>, function: *mut ffi::PyObject) -> bool {
        if refers_to(&self.function) != function {
            return false;
        }
        let Some(Uses { main, names }) = &self.uses else { return true };
        names.iter().all(|(name, value)| {
            let mut found = std::ptr::null_mut();
            // SAFETY: a dictionary and a name, as `by_value` found them.
            if unsafe { ffi::compat::PyDict_GetItemRef(main.as_ptr(), name.as_ptr(), &mut found) } < 0 {
                drop(PyErr::fetch(py));
                return false;
            }
            let unchanged = found == value.as_ref().map_or(std::ptr::null_mut(), refers_to);
            // SAFETY: an owned reference or null.
            unsafe { ffi::Py_XDECREF(found) };
            unchanged
        })
    }
}

/// What a weak reference refers to, only to be compared; any other object itself.
#[inline]
fn refers_to(value: &Obj) -> *mut ffi::PyObject {
    // SAFETY: live objects; the reference that is taken is given back.
    unsafe {
        if ffi::PyWeakref_CheckRefExact(value.as_ptr()) == 0 {
            return value.as_ptr();
        }
        let mut found = std::ptr::null_mut();
        if ffi::compat::PyWeakref_GetRef(value.as_ptr(), &mut found) < 0 {
            ffi::PyErr_Clear();
        }
        ffi::Py_XDECREF(found);
        found
    }
}
