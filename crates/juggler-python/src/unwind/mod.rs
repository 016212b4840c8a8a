//! The end of the interpreter while a daemon thread runs Python code that was called from here.
//!
//! Before 3.14, CPython ends a thread that wants the GIL of a finalizing interpreter by `pthread_exit`, which unwinds its
//! stack by force. Rust allows no unwinding through a call of a C function, nor out of one of its own: the process would
//! abort, where a program on the standard library exits. Since 3.14, CPython lets such a thread hang instead, and so does
//! this module before: every call of a function of the interpreter that may run Python code goes through a wrapper that
//! may be unwound into, and whose cleanup sleeps until the process is gone. PyO3 does the same for attaching.
//!
//! The linker redirects the calls (`--wrap`), so that those of PyO3 are wrapped too and no caller can forget to. What is
//! called through a pointer to the slot of a type is not seen by it.
#![allow(unsafe_code)]

/// Hangs a thread that is unwound through the frame that holds it.
struct HangUnwound;

impl Drop for HangUnwound {
    fn drop(&mut self) {
        loop {
            // SAFETY: always safe to call.
            unsafe { libc::pause() };
        }
    }
}

/// Makes a call that may run Python code, of a function that the linker can't redirect.
pub fn guarded<R>(call: impl FnOnce() -> R) -> R {
    let guard = HangUnwound;
    let result = call();
    std::mem::forget(guard);
    result
}

/// Defines the wrapper of each function. Whatever the types, arguments and results of all of them are single words, and
/// the upper half of a word that holds an `int` is passed on as it came.
macro_rules! guarded_calls {
    ($($(#[$cfg:meta])? $name:ident($($argument:ident),*);)*) => {$(
        $(#[$cfg])?
        const _: () = {
            unsafe extern "C-unwind" {
                #[link_name = concat!("__real_", stringify!($name))]
                fn real($($argument: usize),*) -> usize;
                fn $name();
            }

            // The linker resolves the real one only where the name itself is used; it may not be in every build.
            #[used]
            static USED: unsafe extern "C-unwind" fn() = $name;

            #[unsafe(export_name = concat!("__wrap_", stringify!($name)))]
            unsafe extern "C" fn wrapped($($argument: usize),*) -> usize {
                let guard = HangUnwound;
                // SAFETY: the caller's promises to the function of the interpreter.
                let result = unsafe { real($($argument),*) };
                std::mem::forget(guard);
                result
            }
        };
    )*};
}

include!("calls.rs");

/// What PyO3 calls before 3.12 instead of `PyObject_Vectorcall`: the function behind it. It gets that one, guarded.
#[cfg(not(Py_3_12))]
#[unsafe(export_name = "__wrap_PyVectorcall_Function")]
unsafe extern "C" fn vectorcall_function(_callable: *mut pyo3::ffi::PyObject) -> Option<pyo3::ffi::vectorcallfunc> {
    Some(pyo3::ffi::PyObject_Vectorcall)
}
