//! The running loop and its current task, where the standard library looks for them.
//!
//! Before 3.14 the current tasks are in a dictionary by loop, which `asyncio.tasks` exports. Since 3.14 a thread's state
//! holds the running loop, and next to it its current task. `_asyncio` has functions that set them, at 30 ns each, twice a
//! step of a task; so the place in the thread's state is looked for once, by having `_asyncio` write there, and then written
//! to directly. Where it isn't found, and whenever something is not as a step expects it, the functions are called.
#![allow(unsafe_code)]

use super::event_loop::Loop;
use super::stdlib::Import;
use crate::obj::Obj;
use crate::raw::Raised;
use pyo3::prelude::*;

#[cfg(not(Py_3_14))]
mod dictionary;
#[cfg(not(Py_3_14))]
pub use dictionary::Place;

#[cfg(not(Py_3_14))]
static CURRENT_TASKS: Import = Import::new("asyncio.tasks", "_current_tasks");
static ENTER_TASK: Import = Import::new("asyncio.tasks", "_enter_task");
static LEAVE_TASK: Import = Import::new("asyncio.tasks", "_leave_task");
static GET_RUNNING_LOOP: Import = Import::new("asyncio.events", "_get_running_loop");
static CURRENT_TASK: Import = Import::new("asyncio.tasks", "current_task");

#[cfg(Py_3_14)]
mod place {
    //! Where in a thread's state the running loop and the current task are.

    use super::{CURRENT_TASK, GET_RUNNING_LOOP, Import};
    use juggler_sync::sync::{AtomicUsize, Ordering};
    use pyo3::ffi;
    use pyo3::prelude::*;

    static SWAP_CURRENT_TASK: Import = Import::new("asyncio.tasks", "_swap_current_task");
    static SET_RUNNING_LOOP: Import = Import::new("asyncio.events", "_set_running_loop");

    const UNKNOWN: usize = 0;
    const NOWHERE: usize = usize::MAX;
    static PLACE: AtomicUsize = AtomicUsize::new(UNKNOWN);

    /// How far to look, in words. A thread's state is larger than that in every version that has the words.
    const REACH: usize = 64;

    /// The two words of the calling thread, each null or an object that it owns.
    #[inline(always)]
    pub fn words<'py>(py: Python<'py>) -> Option<&'py mut [*mut ffi::PyObject; 2]> {
        let place = match PLACE.load(Ordering::Relaxed) {
            UNKNOWN => find_slow(py),
            place => place,
        };
        // SAFETY: the place was found in the same structure, and only the thread itself uses these two words, while
        // attached. The reference is not kept over anything that runs Python.
        (place != NOWHERE)
            .then(|| unsafe { &mut *ffi::PyThreadState_Get().cast::<*mut ffi::PyObject>().add(place).cast() })
    }

    #[cold]
    fn find_slow(py: Python<'_>) -> usize {
        let place = find(py).ok().flatten().unwrap_or(NOWHERE);
        PLACE.store(place, Ordering::Relaxed);
        place
    }

    /// Sets a loop and a task that can be nowhere else, looks for them, and sets what was there before.
    fn find(py: Python<'_>) -> PyResult<Option<usize>> {
        let event_loop = GET_RUNNING_LOOP.get(py)?.call0()?;
        let task = if event_loop.is_none() {
            py.None().into_bound(py)
        } else {
            let task = CURRENT_TASK.get(py)?.call1((&event_loop,))?;
            SWAP_CURRENT_TASK.get(py)?.call1((&event_loop, py.None()))?;
            task
        };
        let object = py.import("builtins")?.getattr("object")?;
        let (probe, probe_task) = (object.call0()?, object.call0()?);
        SET_RUNNING_LOOP.get(py)?.call1((&probe,))?;
        SWAP_CURRENT_TASK.get(py)?.call1((&probe, &probe_task))?;
        // SAFETY: see `REACH`.
        let state: &[*mut ffi::PyObject] =
            unsafe { std::slice::from_raw_parts(ffi::PyThreadState_Get().cast(), REACH) };
        let pair = [probe.as_ptr(), probe_task.as_ptr()];
        let place = state.windows(2).position(|words| words == pair);
        SWAP_CURRENT_TASK.get(py)?.call1((&probe, py.None()))?;
        SET_RUNNING_LOOP.get(py)?.call1((&event_loop,))?;
        if !task.is_none() {
            SWAP_CURRENT_TASK.get(py)?.call1((&event_loop, &task))?;
        }
        Ok(place)
    }
}

/// The loop that runs in this thread.
///
/// # Errors
/// What importing asyncio raises.
#[inline]
pub fn running_loop(py: Python<'_>) -> Result<Option<Obj>, Raised> {
    #[cfg(Py_3_14)]
    if let Some(words) = place::words(py) {
        // SAFETY: the thread's state owns what is there.
        return Ok((!words[0].is_null()).then(|| unsafe { Obj::from_borrowed(words[0]) }));
    }
    let found = GET_RUNNING_LOOP.get(py).and_then(|function| function.call0());
    let found = found.map_err(|error| Raised::from_err(py, error))?;
    Ok((!found.is_none()).then(|| found.into()))
}

/// The task that runs in the running loop of this thread.
///
/// # Errors
/// What importing asyncio raises.
#[inline]
pub fn task(py: Python<'_>) -> Result<Option<Obj>, Raised> {
    #[cfg(Py_3_14)]
    if let Some(words) = place::words(py) {
        // SAFETY: the thread's state owns what is there.
        return Ok((!words[1].is_null()).then(|| unsafe { Obj::from_borrowed(words[1]) }));
    }
    let Some(event_loop) = running_loop(py)? else { return Ok(None) };
    let found = CURRENT_TASK.get(py).and_then(|function| function.call1((event_loop.bind(py),)));
    let found = found.map_err(|error| Raised::from_err(py, error))?;
    Ok((!found.is_none()).then(|| found.into()))
}

/// Makes `task` the current one of `event_loop`.
///
/// # Errors
/// `RuntimeError` if another is, or if the loop does not run.
#[inline]
pub fn enter(py: Python<'_>, event_loop: &Obj, task: &Obj) -> Result<(), Raised> {
    #[cfg(Py_3_14)]
    if let Some(words) = place::words(py)
        && *words == [event_loop.as_ptr(), std::ptr::null_mut()]
    {
        words[1] = task.clone_ref(py).into_ptr();
        return Ok(());
    }
    #[cfg(not(Py_3_14))]
    if dictionary::enter(py, event_loop, task)? {
        return Ok(());
    }
    call_slow(py, &ENTER_TASK, event_loop, task)
}

/// Undoes [`enter`].
///
/// # Errors
/// `RuntimeError` if it is not the current one.
#[inline]
pub fn leave(py: Python<'_>, event_loop: &Obj, task: &Obj) -> Result<(), Raised> {
    #[cfg(Py_3_14)]
    if let Some(words) = place::words(py)
        && *words == [event_loop.as_ptr(), task.as_ptr()]
    {
        // SAFETY: the thread's state owned it.
        drop(unsafe { Obj::from_owned(std::mem::replace(&mut words[1], std::ptr::null_mut())) });
        return Ok(());
    }
    #[cfg(not(Py_3_14))]
    if dictionary::leave(py, event_loop, task)? {
        return Ok(());
    }
    call_slow(py, &LEAVE_TASK, event_loop, task)
}

/// Has everybody see that no task of the loop is current, before anything but a task's step is run. See `dictionary`.
///
/// # Errors
/// `MemoryError`
#[inline(always)]
#[cfg_attr(Py_3_14, allow(unused_variables))]
pub fn settle(event_loop: &Bound<'_, Loop>) -> Result<(), Raised> {
    #[cfg(not(Py_3_14))]
    dictionary::settle(event_loop)?;
    Ok(())
}

#[cold]
fn call_slow(py: Python<'_>, function: &Import, event_loop: &Obj, task: &Obj) -> Result<(), Raised> {
    let called = function.get(py).and_then(|function| function.call1((event_loop.bind(py), task.bind(py))));
    called.map(drop).map_err(|error| Raised::from_err(py, error))
}

/// Makes `task`, or none, the current one of `event_loop`, and gives the one that was; for steps within steps.
///
/// # Errors
/// `RuntimeError` if the loop does not run.
pub fn swap(py: Python<'_>, event_loop: &Obj, task: Option<&Obj>) -> Result<Option<Obj>, Raised> {
    #[cfg(Py_3_14)]
    if let Some(words) = place::words(py)
        && words[0] == event_loop.as_ptr()
    {
        let new = task.map_or(std::ptr::null_mut(), |task| task.clone_ref(py).into_ptr());
        let old = std::mem::replace(&mut words[1], new);
        // SAFETY: the thread's state owned it.
        return Ok((!old.is_null()).then(|| unsafe { Obj::from_owned(old) }));
    }
    #[cfg(all(Py_3_12, not(Py_3_14)))]
    if let Some(new) = task
        && let Some(old) = dictionary::swap(py, event_loop, new)
    {
        return Ok(Some(old));
    }
    #[cfg(Py_3_12)]
    {
        static SWAP: Import = Import::new("asyncio.tasks", "_swap_current_task");
        let new = task.map_or_else(|| py.None().into_bound(py), |task| task.bind(py).to_owned());
        let old = SWAP.get(py).and_then(|function| function.call1((event_loop.bind(py), new)));
        let old = old.map_err(|error| Raised::from_err(py, error))?;
        Ok((!old.is_none()).then(|| old.into()))
    }
    #[cfg(not(Py_3_12))]
    {
        let old = self::task(py)?;
        if let Some(old) = &old {
            leave(py, event_loop, old)?;
        }
        if let Some(new) = task {
            enter(py, event_loop, new)?;
        }
        Ok(old)
    }
}
