//! Whether anybody holds the GIL, and who, read without asking for it.
//!
//! From 3.13 on the interpreter publishes where its state lies, for debuggers and profilers: a table of offsets at the
//! beginning of `_PyRuntime` (`Include/internal/pycore_debug_offsets.h`). The places of the main interpreter's
//! `gil.locked` and `gil.last_holder` are looked up once. Before, it can't be told whether anybody holds it, but whether a
//! certain thread does: in 3.12 by a bit in the thread's state, in 3.11 by the runtime's one current state. A
//! free-threaded build has no GIL to wait for.
#![allow(unsafe_code)]

use pyo3::Python;
#[cfg(all(Py_3_12, not(Py_3_13)))]
use std::sync::atomic::AtomicU32;
#[cfg(all(Py_3_13, not(Py_GIL_DISABLED)))]
use std::sync::atomic::AtomicUsize;
#[cfg(not(Py_GIL_DISABLED))]
use std::sync::atomic::{AtomicI32, AtomicPtr, Ordering};

/// The GIL's word, null where it can't be told.
#[cfg(not(Py_GIL_DISABLED))]
static LOCKED: AtomicPtr<AtomicI32> = AtomicPtr::new(std::ptr::null_mut());
/// The state of the thread that holds the GIL, or held it last; null where it can't be told.
#[cfg(all(Py_3_13, not(Py_GIL_DISABLED)))]
static HOLDER: AtomicPtr<AtomicUsize> = AtomicPtr::new(std::ptr::null_mut());

/// Whether nobody holds the GIL at this moment; `None` if that can't be told.
#[cfg(not(Py_GIL_DISABLED))]
#[inline]
pub fn is_free() -> Option<bool> {
    let locked = LOCKED.load(Ordering::Relaxed);
    // SAFETY: the word lies in the main interpreter's state, which lives as long as the process.
    unsafe { locked.as_ref() }.map(|locked| locked.load(Ordering::Relaxed) == 0)
}

/// Nobody holds what there is not. (A module that makes the interpreter bring the GIL back at run time makes the answer a
/// guess, which costs a look in vain.)
#[cfg(Py_GIL_DISABLED)]
#[inline]
#[allow(clippy::unnecessary_wraps)]
pub fn is_free() -> Option<bool> {
    Some(true)
}

/// Whether the interpreter has a GIL.
pub const EXISTS: bool = cfg!(not(Py_GIL_DISABLED));

/// The interpreter's state of a thread.
#[derive(Clone, Copy)]
pub struct State(usize);

impl State {
    /// That of the calling thread.
    pub fn of_this_thread(_py: Python<'_>) -> Self {
        // SAFETY: the thread is attached.
        Self(unsafe { pyo3::ffi::PyThreadState_Get() } as usize)
    }
}

/// Whether a thread holds the GIL at this moment; `None` if that can't be told.
///
/// # Safety
/// The thread of this state is alive.
pub unsafe fn is_held_by(state: State) -> Option<bool> {
    #[cfg(Py_GIL_DISABLED)]
    {
        let _ = state;
        Some(false)
    }
    #[cfg(all(Py_3_13, not(Py_GIL_DISABLED)))]
    {
        let holder = HOLDER.load(Ordering::Relaxed);
        // SAFETY: the word lies beside `locked`.
        let holder = unsafe { holder.as_ref() }?.load(Ordering::Relaxed);
        is_free().map(|free| !free && holder == state.0)
    }
    #[cfg(all(Py_3_12, not(Py_3_13)))]
    {
        /// The beginning of `PyThreadState` (`Include/cpython/pystate.h`).
        #[repr(C)]
        struct ThreadState {
            links: [usize; 3],
            status: AtomicU32,
        }
        const ACTIVE: u32 = 1 << 4;
        // SAFETY: the state of a live thread; the word of bits is aligned, and written by that thread only.
        let status = unsafe { &(*(state.0 as *const ThreadState)).status };
        Some(status.load(Ordering::Relaxed) & ACTIVE != 0)
    }
    #[cfg(not(Py_3_12))]
    {
        unsafe extern "C" {
            /// Reads one word of the runtime, in whatever thread.
            fn _PyThreadState_UncheckedGet() -> *mut pyo3::ffi::PyThreadState;
        }
        // SAFETY: always safe to call.
        Some(unsafe { _PyThreadState_UncheckedGet() } as usize == state.0)
    }
}

/// Looks up the places of the GIL's words. The thread is attached.
#[cfg(all(Py_3_13, not(Py_GIL_DISABLED)))]
pub fn locate() {
    use pyo3::ffi;

    #[repr(C)]
    struct Offsets {
        cookie: [u8; 8],
        version: u64,
        free_threaded: u64,
        runtime: [u64; 3],
        size: u64,
        id: u64,
        next: u64,
        threads_head: u64,
        #[cfg(Py_3_14)]
        threads_main: u64,
        gc: u64,
        imports_modules: u64,
        sysdict: u64,
        builtins: u64,
        ceval_gil: u64,
        gil: u64,
        gil_enabled: u64,
        gil_locked: u64,
        gil_holder: u64,
    }

    unsafe extern "C" {
        static _PyRuntime: Offsets;
        static Py_Version: std::ffi::c_ulong;
    }

    // SAFETY: the runtime begins with this table, filled before the interpreter starts and never changed. The cookie and
    // the version say that the table is the one whose layout this was built for: the upper half of the version is the
    // minor release, which alone may change it. A GIL that has been made holds 0 or 1.
    unsafe {
        let offsets = &_PyRuntime;
        if &offsets.cookie != b"xdebugpy" || offsets.version >> 16 != Py_Version >> 16 {
            return;
        }
        let interpreter = ffi::PyInterpreterState_Main().cast::<u8>();
        let gil = interpreter.add(offsets.ceval_gil as usize).cast::<*mut u8>().read();
        let within = offsets.gil_locked.wrapping_sub(offsets.gil);
        if gil.is_null() || within > 4096 {
            return;
        }
        let locked = gil.add(within as usize).cast::<std::ffi::c_int>();
        if locked.is_aligned() && locked.read() == 1 {
            LOCKED.store(locked.cast(), Ordering::Relaxed);
        }
        let within = offsets.gil_holder.wrapping_sub(offsets.gil);
        let holder = gil.add(within.min(4096) as usize).cast::<usize>();
        if within <= 4096 && holder.is_aligned() && holder.read() == ffi::PyThreadState_Get() as usize {
            HOLDER.store(holder.cast(), Ordering::Relaxed);
        }
    }
}

/// Looks up the places of the GIL's words.
#[cfg(not(all(Py_3_13, not(Py_GIL_DISABLED))))]
pub fn locate() {}
