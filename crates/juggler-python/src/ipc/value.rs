//! A number in shared memory: what `multiprocessing.Value` is for the typecodes of integers and floats.
#![allow(unsafe_code)]

use super::lock::{self, SharedRLock};
use super::memory::SharedBlock;
use crate::obj::Obj;
use crate::raw::{self, Args, Raised, RawResult, This, methods};
use juggler_sync::Deadline;
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use std::ffi::CStr;
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

/// How a number is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    I8,
    U8,
    I16,
    U16,
    I32,
    U32,
    I64,
    U64,
    F32,
    F64,
}

impl Format {
    /// The format of a typecode of C on the platforms that juggler runs on.
    fn of(typecode: &str) -> Option<Self> {
        Some(match typecode {
            "b" => Self::I8,
            "B" => Self::U8,
            "h" => Self::I16,
            "H" => Self::U16,
            "i" => Self::I32,
            "I" => Self::U32,
            "l" | "q" => Self::I64,
            "L" | "Q" => Self::U64,
            "f" => Self::F32,
            "d" => Self::F64,
            _ => return None,
        })
    }

    fn size(self) -> usize {
        match self {
            Self::I8 | Self::U8 => 1,
            Self::I16 | Self::U16 => 2,
            Self::I32 | Self::U32 | Self::F32 => 4,
            Self::I64 | Self::U64 | Self::F64 => 8,
        }
    }

    fn is_integer(self) -> bool {
        !matches!(self, Self::F32 | Self::F64)
    }

    /// The bits of a Python number; integers wrap around, as in C.
    #[inline(always)]
    fn bits(self, py: Python<'_>, value: *mut ffi::PyObject) -> Result<u64, Raised> {
        if self.is_integer() {
            // SAFETY: `value` is a live object and the thread is attached.
            unsafe {
                if ffi::PyLong_Check(value) == 0 {
                    return Err(not_an_int(py, value));
                }
                let bits = ffi::PyLong_AsUnsignedLongLongMask(value);
                return if bits == u64::MAX && !ffi::PyErr_Occurred().is_null() { Err(Raised) } else { Ok(bits) };
            }
        }
        // SAFETY: as above.
        let number = unsafe { ffi::PyFloat_AsDouble(value) };
        // SAFETY: the thread is attached.
        if number == -1.0 && unsafe { !ffi::PyErr_Occurred().is_null() } {
            return Err(Raised);
        }
        Ok(if self == Self::F32 { (number as f32).to_bits().into() } else { number.to_bits() })
    }

    /// The Python number that the lowest bits stand for.
    #[inline(always)]
    fn object(self, bits: u64) -> RawResult {
        // SAFETY: callers are attached.
        let object = unsafe {
            match self {
                Self::I8 => ffi::PyLong_FromLong((bits as i8).into()),
                Self::U8 => ffi::PyLong_FromLong((bits as u8).into()),
                Self::I16 => ffi::PyLong_FromLong((bits as i16).into()),
                Self::U16 => ffi::PyLong_FromLong((bits as u16).into()),
                Self::I32 => ffi::PyLong_FromLong((bits as i32).into()),
                Self::U32 => ffi::PyLong_FromLong((bits as u32).into()),
                Self::I64 => ffi::PyLong_FromLongLong(bits as i64),
                Self::U64 => ffi::PyLong_FromUnsignedLongLong(bits),
                Self::F32 => ffi::PyFloat_FromDouble(f32::from_bits(bits as u32).into()),
                Self::F64 => ffi::PyFloat_FromDouble(f64::from_bits(bits)),
            }
        };
        if object.is_null() { Err(Raised) } else { Ok(object) }
    }
}

#[cold]
fn not_an_int(py: Python<'_>, value: *mut ffi::PyObject) -> Raised {
    // SAFETY: the caller's live object.
    let value = unsafe { pyo3::Borrowed::from_ptr(py, value) };
    let class = value.get_type().name().map_or_else(|_| "object".to_owned(), |name| name.to_string());
    Raised::new::<PyTypeError>(py, &format!("int expected instead of {class} instance"))
}

struct Number {
    at: NonNull<u8>,
    format: Format,
    lock: Obj,
    /// Whether the lock is one whose methods can be called directly.
    native: bool,
    /// The ctypes object over the same memory.
    object: Obj,
    _block: Obj,
}

// SAFETY: the memory belongs to the block, which `_block` keeps alive, and is reached through atomics.
unsafe impl Send for Number {}
// SAFETY: as above.
unsafe impl Sync for Number {}

/// Calls the method `$name` of the atomic of the number's size, with and to 64 bits.
macro_rules! atomically {
    ($number:expr, $name:ident, $order:expr $(, $value:expr)*) => {{
        let at = $number.at.as_ptr();
        // SAFETY: the block has the number's size, is aligned to a cache line, and is only reached through atomics here; what a program does
        // with its own views of the memory is its own to order.
        unsafe {
            match $number.format.size() {
                1 => u64::from(AtomicU8::from_ptr(at).$name($($value as u8,)* $order)),
                2 => u64::from(AtomicU16::from_ptr(at.cast()).$name($($value as u16,)* $order)),
                4 => u64::from(AtomicU32::from_ptr(at.cast()).$name($($value as u32,)* $order)),
                _ => AtomicU64::from_ptr(at.cast()).$name($($value,)* $order),
            }
        }
    }};
}

impl Number {
    #[inline(always)]
    fn load(&self) -> u64 {
        atomically!(self, load, Ordering::SeqCst)
    }

    #[inline(always)]
    fn store(&self, bits: u64) {
        atomically!(self, swap, Ordering::SeqCst, bits);
    }

    fn compare_exchange(&self, expected: u64, desired: u64) -> bool {
        let at = self.at.as_ptr();
        let order = Ordering::SeqCst;
        // SAFETY: as in `atomically`.
        unsafe {
            match self.format.size() {
                1 => AtomicU8::from_ptr(at).compare_exchange(expected as u8, desired as u8, order, order).is_ok(),
                2 => AtomicU16::from_ptr(at.cast())
                    .compare_exchange(expected as u16, desired as u16, order, order)
                    .is_ok(),
                4 => AtomicU32::from_ptr(at.cast())
                    .compare_exchange(expected as u32, desired as u32, order, order)
                    .is_ok(),
                _ => AtomicU64::from_ptr(at.cast()).compare_exchange(expected, desired, order, order).is_ok(),
            }
        }
    }

    /// The lock, if its methods can be called directly.
    #[inline(always)]
    fn rlock<'py>(&self, py: Python<'py>) -> Option<This<'_, 'py, SharedRLock>> {
        // SAFETY: `native` says that the lock is a `SharedRLock`, which lives as long as `self`.
        self.native.then(|| unsafe { This::new(py, self.lock.as_ptr()) })
    }

    /// Runs `body` under the lock.
    #[inline(always)]
    fn locked<R>(&self, py: Python<'_>, body: impl FnOnce() -> Result<R, Raised>) -> Result<R, Raised> {
        let Some(lock) = self.rlock(py) else {
            return self.locked_slow(py, body);
        };
        lock.take(lock.as_any(), Deadline::NEVER)?;
        let result = body();
        lock.give_back(py)?;
        result
    }

    #[cold]
    fn locked_slow<R>(&self, py: Python<'_>, body: impl FnOnce() -> Result<R, Raised>) -> Result<R, Raised> {
        let lock = self.lock.bind(py);
        lock.call_method0("acquire").map_err(|error| Raised::from_err(py, error))?;
        let result = body();
        // An error of the body is the thread's until here, and must not be set while Python runs.
        let error = result.is_err().then(|| PyErr::fetch(py));
        lock.call_method0("release").map_err(|error| Raised::from_err(py, error))?;
        if let Some(error) = error {
            error.restore(py);
        }
        result
    }
}

/// A number in shared memory and the lock that guards it.
///
/// The engine of what `juggler.multiprocessing.Value` returns for the typecodes of integers and floats. It is of no use
/// until `_bind` has been called; the arguments are left to subclasses.
#[pyclass(frozen, weakref, dict, subclass, module = "juggler.multiprocessing.sharedctypes")]
pub struct SharedNumber {
    number: OnceLock<Number>,
}

impl SharedNumber {
    #[inline(always)]
    fn number(&self, py: Python<'_>) -> Result<&Number, Raised> {
        match self.number.get() {
            Some(number) => Ok(number),
            None => Err(Raised::new::<PyRuntimeError>(py, "this Value was not initialized")),
        }
    }

    fn integer(&self, py: Python<'_>) -> Result<&Number, Raised> {
        let number = self.number(py)?;
        if number.format.is_integer() {
            return Ok(number);
        }
        Err(Raised::new::<PyTypeError>(py, "only a Value of an integer type can be added to atomically"))
    }
}

#[pymethods]
impl SharedNumber {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self { number: OnceLock::new() }
    }

    /// Say which ctypes object it is, where that lies, of which type it is and which lock guards it.
    fn _bind(
        &self,
        object: Bound<'_, PyAny>,
        block: Bound<'_, SharedBlock>,
        typecode: &str,
        lock: Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let format = Format::of(typecode)
            .ok_or_else(|| PyValueError::new_err(format!("{typecode:?} is not a number's typecode")))?;
        let engine = &block.get().engine;
        if engine.length() < format.size() {
            return Err(PyValueError::new_err("the block is too small for the number"));
        }
        let native = lock.is_instance_of::<SharedRLock>();
        let at = engine.start();
        let (object, block) = (object.into(), block.into_any().into());
        let number = Number { at, format, native, lock: lock.into(), object, _block: block };
        self.number.set(number).map_err(|_| PyRuntimeError::new_err("this Value has been initialized already"))
    }

    #[getter]
    fn _obj<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.number(py).map_err(|raised| raised.fetch(py))?.object.bind(py).to_owned())
    }

    #[getter]
    fn _lock<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.number(py).map_err(|raised| raised.fetch(py))?.lock.bind(py).to_owned())
    }

    /// The number, read and written under the lock, which is waited for.
    #[getter]
    fn value(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let get = || {
            let number = self.number(py)?;
            let bits = number.locked(py, || Ok(number.load()))?;
            number.format.object(bits)
        };
        // SAFETY: `object` returns an owned reference.
        get().map(|object| unsafe { Bound::from_owned_ptr(py, object) }.unbind()).map_err(|raised| raised.fetch(py))
    }

    #[setter]
    fn set_value(&self, py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let set = || {
            let number = self.number(py)?;
            let bits = number.format.bits(py, value.as_ptr())?;
            number.locked(py, || {
                number.store(bits);
                Ok(())
            })
        };
        set().map_err(|raised: Raised| raised.fetch(py))
    }
}

fn get_lock(this: This<'_, '_, SharedNumber>) -> RawResult {
    Ok(this.number(this.py())?.lock.clone_ref(this.py()).into_ptr())
}

fn get_obj(this: This<'_, '_, SharedNumber>) -> RawResult {
    Ok(this.number(this.py())?.object.clone_ref(this.py()).into_ptr())
}

/// Calls a method of the lock: by `direct` if it can be.
#[inline(always)]
fn of_lock(
    this: This<'_, '_, SharedNumber>,
    name: &CStr,
    args: Args<'_>,
    direct: impl FnOnce(This<'_, '_, SharedRLock>) -> RawResult,
) -> RawResult {
    let number = this.number(this.py())?;
    match number.rlock(this.py()) {
        Some(lock) => direct(lock),
        None => args.call_method(&number.lock.bind(this.py()), name),
    }
}

fn acquire(this: This<'_, '_, SharedNumber>, args: Args<'_>) -> RawResult {
    of_lock(this, c"acquire", args, |lock| lock::acquire_again(lock, args))
}

fn release(this: This<'_, '_, SharedNumber>) -> RawResult {
    of_lock(this, c"release", Args::NONE, lock::release_again)
}

fn enter(this: This<'_, '_, SharedNumber>) -> RawResult {
    of_lock(this, c"__enter__", Args::NONE, lock::enter_again)
}

fn exit(this: This<'_, '_, SharedNumber>, exception: Args<'_>) -> RawResult {
    of_lock(this, c"__exit__", exception, lock::release_again)
}

fn fetch_add(this: This<'_, '_, SharedNumber>, args: Args<'_>) -> RawResult {
    let py = this.py();
    let number = this.integer(py)?;
    let bits = match args.only() {
        Some(n) => number.format.bits(py, n)?,
        None => {
            let [n] = args.parse(py, "fetch_add", [c"n"], 0)?;
            if n.is_null() { 1 } else { number.format.bits(py, n)? }
        }
    };
    number.format.object(atomically!(number, fetch_add, Ordering::SeqCst, bits))
}

fn compare_exchange(this: This<'_, '_, SharedNumber>, args: Args<'_>) -> RawResult {
    let py = this.py();
    let number = this.integer(py)?;
    let [expected, desired] = args.parse(py, "compare_exchange", [c"expected", c"desired"], 2)?;
    let (expected, desired) = (number.format.bits(py, expected)?, number.format.bits(py, desired)?);
    Ok(raw::bool(number.compare_exchange(expected, desired)))
}

fn load(this: This<'_, '_, SharedNumber>) -> RawResult {
    let number = this.number(this.py())?;
    number.format.object(number.load())
}

fn store(this: This<'_, '_, SharedNumber>, args: Args<'_>) -> RawResult {
    let number = this.number(this.py())?;
    let [value] = args.parse(this.py(), "store", [c"value"], 1)?;
    number.store(number.format.bits(this.py(), value)?);
    Ok(raw::none())
}

methods! { add_methods for SharedNumber {
    "get_lock" => noargs get_lock, "($self, /)\n--\n\nThe lock that guards the number.";
    "get_obj" => noargs get_obj, "($self, /)\n--\n\n\
        The ctypes object, which can be read and written without the lock.";
    "acquire" => keywords acquire, lock::ACQUIRE;
    "release" => noargs release, "($self, /)\n--\n\nFree the lock and wake one who waits for it. Never blocks.";
    "__enter__" => noargs enter, lock::ENTER;
    "__exit__" => keywords exit, lock::EXIT;
    "fetch_add" => keywords fetch_add, "($self, /, n=1)\n--\n\n\
        Add `n` in one atomic step, without the lock, and return the number before. Never blocks.\n\
        \n\
        Any number of processes may do so at once and no addition is lost; what somebody reads and writes under the lock\n\
        meanwhile is not protected from it. Wraps around as C does. The standard library has no counterpart.\n\
        \n\
        Raises:\n\
        \x20   TypeError: the number is not of an integer type, or `n` is not an integer.";
    "compare_exchange" => keywords compare_exchange, "($self, /, expected, desired)\n--\n\n\
        Make the number `desired` if it is `expected`, in one atomic step and without the lock. Never blocks.\n\
        \n\
        The standard library has no counterpart.\n\
        \n\
        Returns:\n\
        \x20   Whether it was `expected`.\n\
        \n\
        Raises:\n\
        \x20   TypeError: the number is not of an integer type, or an argument is not an integer.";
    "load" => noargs load, "($self, /)\n--\n\n\
        The number, read without the lock. Never blocks. The standard library has no counterpart.";
    "store" => keywords store, "($self, /, value)\n--\n\n\
        Write the number without the lock. Never blocks. The standard library has no counterpart.";
} }

/// Adds what PyO3 does not to the class.
pub fn finish(py: Python<'_>) -> PyResult<()> {
    add_methods(py)
}
