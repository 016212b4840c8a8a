//! The dictionary of the current tasks by loop, which `asyncio` has before 3.14.
//!
//! To put a loop in and to take it out again, a step, are three look-ups, and a new table with every fifth. So a loop of ours
//! whose next entry is the step of another task stays in between the two, with None for its task. For `current_task` that is
//! the same as a loop that is not there. To `_enter_task` it is not: that is called by the steps of tasks that are not ours, which
//! a loop runs by handles. So a loop is taken out before anything but a step can be run.
//!
//! A loop that stays has its task in the same [`Place`] of the dictionary's table, for as long as nobody changes the dictionary,
//! which its version tells. The task is set there directly.
#![allow(unsafe_code)]

use super::CURRENT_TASKS;
use crate::aio::event_loop::{self, Loop};
use crate::aio::future::none;
use crate::obj::Obj;
use crate::raw::Raised;
use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;

/// Where the dictionary has the task of a loop.
#[derive(Debug, Default)]
pub struct Place {
    /// The dictionary's version and the address of its table when it was found; there is no table at 0.
    version: u64,
    table: usize,
    /// How far behind the beginning of the table, in words.
    word: usize,
    /// Whether the loop stays there without a task.
    is_kept: bool,
}

/// The size of the smallest table in words: a head of four, a word of indices, five times a hash, a key and a value.
const REACH: usize = 20;

impl Place {
    /// The place of the loop's task, if the dictionary is as it was when it was found.
    #[inline(always)]
    fn get<'py>(&self, tasks: &Bound<'py, PyAny>) -> Option<&'py mut *mut ffi::PyObject> {
        let dictionary = tasks.as_ptr().cast::<ffi::PyDictObject>();
        // Programs are to leave the version alone as there will be none in 3.14, where this is not needed.
        #[allow(deprecated)]
        // SAFETY: a dictionary.
        let (version, table) = unsafe { ((*dictionary).ma_version_tag, (*dictionary).ma_keys) };
        // SAFETY: the table is the one in which the place was found, and each change of it changes the version. The reference is
        // not kept over anything that runs Python.
        (!cfg!(Py_GIL_DISABLED) && version == self.version && table as usize == self.table)
            .then(|| unsafe { &mut *table.cast::<*mut ffi::PyObject>().add(self.word) })
    }

    /// Looks for the place of `task`, which the dictionary has for `event_loop`.
    fn find(&mut self, tasks: &Bound<'_, PyAny>, event_loop: &Obj, task: &Obj) {
        let dictionary = tasks.as_ptr().cast::<ffi::PyDictObject>();
        #[allow(deprecated)]
        // SAFETY: a dictionary.
        let (version, table, split) =
            unsafe { ((*dictionary).ma_version_tag, (*dictionary).ma_keys, (*dictionary).ma_values) };
        if cfg!(Py_GIL_DISABLED) || !split.is_null() {
            return;
        }
        // SAFETY: a table that holds a key which is no string is as large as that.
        let words: &[*mut ffi::PyObject] = unsafe { std::slice::from_raw_parts(table.cast(), REACH) };
        let pair = [event_loop.as_ptr(), task.as_ptr()];
        if let Some(key) = words.windows(2).position(|words| words == pair) {
            *self = Self { version, table: table as usize, word: key + 1, is_kept: false };
        }
    }

    /// Has the loop stay without its `task`, if the place is known.
    #[inline(always)]
    fn keep(&mut self, tasks: &Bound<'_, PyAny>, task: &Obj) -> Option<Obj> {
        let place = self.get(tasks).filter(|place| **place == task.as_ptr())?;
        let task = std::mem::replace(place, none().into_ptr());
        self.is_kept = true;
        // SAFETY: the dictionary owned it.
        Some(unsafe { Obj::from_owned(task) })
    }
}

/// What `asyncio` has, which is looked into here: it had better be what it is taken for.
#[inline(always)]
fn tasks(py: Python<'_>) -> Result<&Bound<'_, PyAny>, Raised> {
    let tasks = CURRENT_TASKS.get(py).map_err(|error| Raised::from_err(py, error))?;
    // SAFETY: a live object.
    if unsafe { ffi::PyDict_Check(tasks.as_ptr()) } == 0 {
        return Err(Raised::new::<PyTypeError>(py, "asyncio.tasks._current_tasks must be a dictionary"));
    }
    Ok(tasks)
}

/// Sets the task of a loop that has none; says whether it did.
///
/// # Errors
/// `MemoryError`; `TypeError` if `asyncio` has no such dictionary.
#[inline]
pub fn enter(py: Python<'_>, event_loop: &Obj, task: &Obj) -> Result<bool, Raised> {
    let tasks = tasks(py)?;
    if let Some(ours) = event_loop::ours(py, event_loop) {
        let mut place = ours.place.hold(py);
        if std::mem::take(&mut place.is_kept) {
            if let Some(place) = place.get(tasks) {
                let before = std::mem::replace(place, task.clone_ref(py).into_ptr());
                // SAFETY: the dictionary owned it; it is None.
                drop(unsafe { Obj::from_owned(before) });
                return Ok(true);
            }
            drop(place);
            take_out(tasks, event_loop)?;
        }
    }
    // SAFETY: a dictionary and two live objects; what it gives is borrowed.
    let current = unsafe { ffi::PyDict_SetDefault(tasks.as_ptr(), event_loop.as_ptr(), task.as_ptr()) };
    if current.is_null() { Err(Raised) } else { Ok(current == task.as_ptr()) }
}

/// Undoes [`enter`]; says whether it did, which is not so if another task is there.
///
/// # Errors
/// `MemoryError`; `TypeError` if `asyncio` has no such dictionary.
#[inline]
pub fn leave(py: Python<'_>, event_loop: &Obj, task: &Obj) -> Result<bool, Raised> {
    let tasks = tasks(py)?;
    let goes_on = event_loop::ours(py, event_loop).filter(|ours| ours.is_step_next(py));
    if let Some(ours) = goes_on {
        let kept = ours.place.with(py, |place| place.keep(tasks, task));
        if kept.is_some() {
            return Ok(true);
        }
    }
    // SAFETY: a dictionary and a live object; what it gives is borrowed.
    let current = unsafe { ffi::PyDict_GetItemWithError(tasks.as_ptr(), event_loop.as_ptr()) };
    if current != task.as_ptr() {
        return Ok(false);
    }
    if let Some(ours) = goes_on {
        let kept = ours.place.with(py, |place| {
            place.find(tasks, event_loop, task);
            place.keep(tasks, task)
        });
        if kept.is_some() {
            return Ok(true);
        }
    }
    // SAFETY: as above.
    if unsafe { ffi::PyDict_DelItem(tasks.as_ptr(), event_loop.as_ptr()) } == 0 { Ok(true) } else { Err(Raised) }
}

/// Takes a loop out that stays without a task.
///
/// # Errors
/// `MemoryError`; `TypeError` if `asyncio` has no such dictionary.
#[inline]
pub fn settle(event_loop: &Bound<'_, Loop>) -> Result<(), Raised> {
    let py = event_loop.py();
    if event_loop.get().place.with(py, |place| std::mem::take(&mut place.is_kept)) {
        take_out(tasks(py)?, &event_loop.clone().into_any().into())?;
    }
    Ok(())
}

/// Takes the loop out if it has no task. A finalizer that ran between two steps may have done so already.
fn take_out(tasks: &Bound<'_, PyAny>, event_loop: &Obj) -> Result<(), Raised> {
    // SAFETY: a dictionary and a live object; what it gives is borrowed. None always exists.
    unsafe {
        let current = ffi::PyDict_GetItemWithError(tasks.as_ptr(), event_loop.as_ptr());
        if current == ffi::Py_None() && ffi::PyDict_DelItem(tasks.as_ptr(), event_loop.as_ptr()) != 0 {
            return Err(Raised);
        }
        if current.is_null() && !ffi::PyErr_Occurred().is_null() { Err(Raised) } else { Ok(()) }
    }
}

/// Replaces the task of a loop that has one, if its place is known; gives the one that was.
#[cfg(Py_3_12)]
pub fn swap(py: Python<'_>, event_loop: &Obj, task: &Obj) -> Option<Obj> {
    let tasks = tasks(py).ok()?;
    let ours = event_loop::ours(py, event_loop)?;
    let place = ours.place.hold(py);
    let place = place.get(tasks).filter(|_| !place.is_kept)?;
    let before = std::mem::replace(place, task.clone_ref(py).into_ptr());
    // SAFETY: the dictionary owned it.
    Some(unsafe { Obj::from_owned(before) })
}
