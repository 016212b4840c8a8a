//! Whether anybody holds the GIL, read without asking for it.
//!
//! From 3.13 on the interpreter publishes where its state lies, for debuggers and profilers: a table of offsets at the
//! beginning of `_PyRuntime` (`Include/internal/pycore_debug_offsets.h`). The place of the main interpreter's
//! `gil.locked` is looked up once. A free-threaded build has no GIL to wait for.
#![allow(unsafe_code)]

#[cfg(not(Py_GIL_DISABLED))]
use std::sync::atomic::{AtomicI32, AtomicPtr, Ordering};

/// The GIL's word, null where it can't be told.
#[cfg(not(Py_GIL_DISABLED))]
static LOCKED: AtomicPtr<AtomicI32> = AtomicPtr::new(std::ptr::null_mut());

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

/// Looks up the place of the GIL's word. The thread is attached.
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
    }
}

/// Looks up the place of the GIL's word.
#[cfg(not(all(Py_3_13, not(Py_GIL_DISABLED))))]
pub fn locate() {}
