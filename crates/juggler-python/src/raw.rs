//! Methods on CPython's own calling convention, for the calls that are too hot for PyO3's.
//!
//! A PyO3 method costs 5-20 ns a call over a C one: it counts attachments in thread-local storage, and unpacks its
//! arguments into owned options. A method made here is a `METH_NOARGS` or `METH_FASTCALL` function that gets its
//! receiver as `&T` and its arguments as the borrowed array in which CPython passes them. The classes themselves, and all
//! that is not hot, stay with PyO3.
//!
//! Errors follow the C convention: the exception is set in the thread's state and [`Raised`] says so.
#![allow(unsafe_code)]

use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::pyclass::boolean_struct::True;
use pyo3::types::{PyString, PyType};
use pyo3::{PyClass, PyTypeInfo};
use std::ffi::{CStr, CString};
use std::ops::Deref;
use std::os::raw::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A Python exception is set in the calling thread.
#[derive(Debug)]
pub struct Raised;

impl Raised {
    /// Sets an exception of the class `kind`.
    #[cold]
    pub fn new<E: PyTypeInfo>(py: Python<'_>, message: &str) -> Self {
        Self::from_err(py, PyErr::from_type(E::type_object(py), message.to_owned()))
    }

    /// Sets `err`.
    #[cold]
    pub fn from_err(py: Python<'_>, err: PyErr) -> Self {
        err.restore(py);
        Self
    }

    /// Takes the exception out of the thread's state, for PyO3.
    #[cold]
    pub fn fetch(self, py: Python<'_>) -> PyErr {
        PyErr::fetch(py)
    }
}

/// What a raw method returns: an owned reference.
pub type RawResult = Result<*mut ffi::PyObject, Raised>;

/// A receiver of class `T`.
pub struct This<'a, 'py, T: PyClass> {
    borrowed: pyo3::Borrowed<'a, 'py, T>,
}

// Derived, these would ask the same of `T`.
impl<T: PyClass> Clone for This<'_, '_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: PyClass> Copy for This<'_, '_, T> {}

impl<'a, 'py, T: PyClass<Frozen = True> + Sync> This<'a, 'py, T> {
    /// # Safety
    /// `ptr` is an instance of `T` that lives for `'a`.
    #[inline(always)]
    pub unsafe fn new(py: Python<'py>, ptr: *mut ffi::PyObject) -> Self {
        // SAFETY: the caller's promise.
        Self { borrowed: unsafe { pyo3::Borrowed::from_ptr(py, ptr).cast_unchecked() } }
    }

    /// The value, for as long as the object is borrowed.
    #[inline(always)]
    pub fn into_ref(self) -> &'a T
    where
        T: 'a,
    {
        // SAFETY: the object lives for `'a`, and a frozen class only gives out shared references.
        unsafe { &*std::ptr::from_ref::<T>(self.borrowed.get()) }
    }

    /// The token.
    #[inline(always)]
    pub fn py(&self) -> Python<'py> {
        self.borrowed.py()
    }

    /// The object, for PyO3.
    #[inline(always)]
    pub fn as_any(&self) -> &Bound<'py, PyAny> {
        self.borrowed.as_any()
    }
}

impl<T: PyClass<Frozen = True> + Sync> Deref for This<'_, '_, T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        self.borrowed.get()
    }
}

/// The arguments of a call, borrowed from the caller's stack.
#[derive(Clone, Copy)]
pub struct Args<'a> {
    values: &'a [*mut ffi::PyObject],
    positional: usize,
    /// Null, or a tuple of the names of the values behind the positional ones.
    names: *mut ffi::PyObject,
}

impl<'a> Args<'a> {
    /// No arguments.
    pub const NONE: Self = Self { values: &[], positional: 0, names: std::ptr::null_mut() };

    /// # Safety
    /// The arguments of a vectorcall, valid for `'a`.
    #[inline(always)]
    pub unsafe fn new(values: *const *mut ffi::PyObject, positional: usize, names: *mut ffi::PyObject) -> Self {
        // SAFETY: the caller's promise; the array may be null when it is empty.
        unsafe {
            let named = if names.is_null() { 0 } else { ffi::PyTuple_GET_SIZE(names) as usize };
            let count = positional + named;
            let values = if count == 0 { &[] } else { std::slice::from_raw_parts(values, count) };
            Self { values, positional, names }
        }
    }

    /// Whether nothing was passed.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The values, positional ones first, then named ones in the order of [`Args::names`].
    #[inline(always)]
    pub fn values(&self) -> &'a [*mut ffi::PyObject] {
        self.values
    }

    /// How many were passed by position.
    #[inline(always)]
    pub fn positional(&self) -> usize {
        self.positional
    }

    /// The tuple of the names, or null.
    #[inline(always)]
    pub fn names(&self) -> *mut ffi::PyObject {
        self.names
    }

    /// The only argument, if exactly one was passed, by position.
    #[inline(always)]
    pub fn only(&self) -> Option<*mut ffi::PyObject> {
        match self.values {
            [value] if self.positional == 1 => Some(*value),
            _ => None,
        }
    }

    /// Sorts the arguments of `function` into the places of its `parameters`, the first `required` of which must be
    /// given; what was not given is null.
    ///
    /// # Errors
    /// `TypeError` for too many, too few, unknown or doubled ones.
    #[inline(always)]
    pub fn parse<const N: usize>(
        &self,
        py: Python<'_>,
        function: &str,
        parameters: [&CStr; N],
        required: usize,
    ) -> Result<[*mut ffi::PyObject; N], Raised> {
        match self.values.try_into() {
            Ok(places) if self.names.is_null() => Ok(places),
            _ => self.parse_slow(py, function, parameters, required),
        }
    }

    fn parse_slow<const N: usize>(
        &self,
        py: Python<'_>,
        function: &str,
        parameters: [&CStr; N],
        required: usize,
    ) -> Result<[*mut ffi::PyObject; N], Raised> {
        let mut places = [std::ptr::null_mut(); N];
        if self.positional > N {
            return Err(self.too_many(py, function, N));
        }
        places[..self.positional].copy_from_slice(&self.values[..self.positional]);
        if !self.names.is_null() {
            self.parse_named(py, function, &parameters, &mut places)?;
        }
        for (place, parameter) in places.iter().zip(parameters).take(required) {
            if place.is_null() {
                let name = parameter.to_string_lossy();
                return Err(Raised::new::<PyTypeError>(
                    py,
                    &format!("{function}() missing required argument: '{name}'"),
                ));
            }
        }
        Ok(places)
    }

    /// Calls `object`'s method `name` with the arguments.
    ///
    /// # Errors
    /// What the look-up or the call raises.
    pub fn call_method(&self, object: &Bound<'_, PyAny>, name: &CStr) -> RawResult {
        // SAFETY: the object is alive, the arguments are those of a vectorcall, and a null result means an exception is set.
        unsafe {
            let method = ffi::PyObject_GetAttrString(object.as_ptr(), name.as_ptr());
            if method.is_null() {
                return Err(Raised);
            }
            let result = ffi::PyObject_Vectorcall(method, self.values.as_ptr(), self.positional, self.names);
            ffi::Py_DECREF(method);
            if result.is_null() { Err(Raised) } else { Ok(result) }
        }
    }

    #[cold]
    fn too_many(&self, py: Python<'_>, function: &str, most: usize) -> Raised {
        let given = self.positional;
        Raised::new::<PyTypeError>(
            py,
            &format!("{function}() takes at most {most} positional arguments ({given} given)"),
        )
    }

    fn parse_named(
        &self,
        py: Python<'_>,
        function: &str,
        parameters: &[&CStr],
        places: &mut [*mut ffi::PyObject],
    ) -> Result<(), Raised> {
        for (at, &value) in self.values[self.positional..].iter().enumerate() {
            // SAFETY: `names` is a tuple with as many strings as there are named values.
            let name = unsafe { ffi::PyTuple_GET_ITEM(self.names, at as ffi::Py_ssize_t) };
            // SAFETY: `name` is a string, each parameter is ASCII and ends with a zero.
            let found = parameters
                .iter()
                .position(|parameter| unsafe { ffi::PyUnicode_CompareWithASCIIString(name, parameter.as_ptr()) } == 0);
            let problem = match found {
                Some(place) if places[place].is_null() => {
                    places[place] = value;
                    continue;
                }
                Some(_) => "got multiple values for argument",
                None => "got an unexpected keyword argument",
            };
            // SAFETY: `name` is borrowed from the live tuple.
            let name = unsafe { Bound::from_borrowed_ptr(py, name) };
            return Err(Raised::new::<PyTypeError>(py, &format!("{function}() {problem} '{name}'")));
        }
        Ok(())
    }
}

/// Runs the body of a raw method: turns a panic into an exception and an error into the C convention's null.
///
/// # Safety
/// The thread is attached.
#[inline(always)]
pub unsafe fn guard(body: impl FnOnce(Python<'_>) -> RawResult) -> *mut ffi::PyObject {
    // SAFETY: the caller's promise.
    let py = unsafe { Python::assume_attached() };
    match catch_unwind(AssertUnwindSafe(|| body(py))) {
        Ok(Ok(result)) => result,
        Ok(Err(Raised)) => std::ptr::null_mut(),
        Err(payload) => {
            panicked(py, &payload);
            std::ptr::null_mut()
        }
    }
}

#[cold]
fn panicked(py: Python<'_>, payload: &Box<dyn std::any::Any + Send>) {
    let message = payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("panic without a message");
    pyo3::panic::PanicException::new_err(message.to_owned()).restore(py);
}

/// A function for [`add_method`].
pub enum Function {
    /// `METH_NOARGS`
    NoArgs(unsafe extern "C" fn(*mut ffi::PyObject, *mut ffi::PyObject) -> *mut ffi::PyObject),
    /// `METH_FASTCALL | METH_KEYWORDS`
    Keywords(
        unsafe extern "C" fn(
            *mut ffi::PyObject,
            *const *mut ffi::PyObject,
            ffi::Py_ssize_t,
            *mut ffi::PyObject,
        ) -> *mut ffi::PyObject,
    ),
}

/// Adds a method to the class `T`. `doc` begins with the method's text signature.
///
/// Each of the classes `heirs`, which are based on `T`, gets it as a method of its own: the interpreter calls a method
/// directly only if the object is of the very class that the method is of.
///
/// # Errors
/// What setting an attribute of the class runs into.
pub fn add_method<T: PyTypeInfo>(
    py: Python<'_>,
    heirs: &[Bound<'_, PyType>],
    name: &str,
    function: Function,
    doc: &str,
) -> PyResult<()> {
    let classes: Vec<_> = std::iter::once(T::type_object(py)).chain(heirs.iter().cloned()).collect();
    debug_assert!(
        classes.iter().all(|class| class.is_subclass_of::<T>().unwrap_or(false)),
        "an heir is based on the class"
    );
    // SAFETY: the function takes instances of `T`.
    unsafe { add_method_to(&classes, name, function, doc) }
}

/// Adds a method to each of `classes`, as [`add_method`] does.
///
/// # Errors
/// What setting an attribute of the class runs into.
///
/// # Safety
/// The function takes instances of any of the classes.
pub unsafe fn add_method_to(classes: &[Bound<'_, PyType>], name: &str, function: Function, doc: &str) -> PyResult<()> {
    let (ml_meth, ml_flags) = match function {
        Function::NoArgs(function) => (ffi::PyMethodDefPointer { PyCFunction: function }, ffi::METH_NOARGS),
        Function::Keywords(function) => {
            (ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: function }, ffi::METH_FASTCALL | ffi::METH_KEYWORDS)
        }
    };
    // A method's definition lives as long as the class: for ever.
    let definition = Box::leak(Box::new(ffi::PyMethodDef {
        ml_name: CString::new(name)?.into_raw(),
        ml_meth,
        ml_flags,
        ml_doc: CString::new(format!("{name}{doc}"))?.into_raw(),
    }));
    let definition = std::ptr::from_mut(definition);
    for class in classes {
        // SAFETY: the definition is never freed, and the function takes instances of these classes as the descriptor checks.
        let descriptor = unsafe {
            Bound::from_owned_ptr_or_err(class.py(), ffi::PyDescr_NewMethod(class.as_type_ptr(), definition))?
        };
        class.setattr(name, descriptor)?;
    }
    Ok(())
}

/// Gives `class` the native methods that it inherits as methods of its own, and returns it: a decorator.
///
/// What [`add_method`] does for its heirs, for a class made in Python. A method that another hides stays hidden.
///
/// # Errors
/// What setting an attribute of the class runs into.
#[pyfunction]
#[pyo3(name = "_own_methods")]
pub fn own_methods<'py>(class: &Bound<'py, PyType>) -> PyResult<Bound<'py, PyType>> {
    let py = class.py();
    for base in class.mro().iter().skip(1).filter(|base| !base.is(py.get_type::<PyAny>())) {
        for item in base.getattr("__dict__")?.call_method0("items")?.try_iter()? {
            let (name, method): (Bound<'py, PyString>, Bound<'py, PyAny>) = item?.extract()?;
            let native = method.get_type_ptr() == &raw mut ffi::PyMethodDescr_Type;
            if !native || !class.getattr(&name)?.is(&method) {
                continue;
            }
            let method = method.as_ptr().cast::<ffi::PyMethodDescrObject>();
            // SAFETY: the type was checked, and so is the result; the definition lives as long as `base`, which the class
            // holds, and the function takes instances of the class as it is based on `base`.
            let own = unsafe {
                let own = ffi::PyDescr_NewMethod(class.as_type_ptr(), (*method).d_method);
                Bound::from_owned_ptr_or_err(py, own)?
            };
            class.setattr(&name, own)?;
        }
    }
    Ok(class.clone())
}

/// Makes calling the class `T` a `TypeError`.
pub fn forbid_construction<T: PyTypeInfo>(py: Python<'_>) {
    let class = T::type_object(py).as_type_ptr();
    // SAFETY: the type object is live and not in use by other threads yet; CPython checks the field before it uses it.
    unsafe { (*class).tp_new = None };
}

/// `None`, owned.
#[inline(always)]
pub fn none() -> *mut ffi::PyObject {
    // SAFETY: `None` always exists; callers are attached.
    unsafe {
        let none = ffi::Py_None();
        ffi::Py_INCREF(none);
        none
    }
}

/// `True` or `False`, owned.
#[inline(always)]
pub fn bool(value: bool) -> *mut ffi::PyObject {
    // SAFETY: both always exist; callers are attached.
    unsafe {
        let object = if value { ffi::Py_True() } else { ffi::Py_False() };
        ffi::Py_INCREF(object);
        object
    }
}

/// The truth of `object`, `default` if it is null.
///
/// # Errors
/// What `__bool__` raises.
#[inline]
pub fn truth(object: *mut ffi::PyObject, default: bool) -> Result<bool, Raised> {
    if object.is_null() {
        return Ok(default);
    }
    // SAFETY: `object` is a live argument; callers are attached.
    match unsafe { ffi::PyObject_IsTrue(object) } {
        -1 => Err(Raised),
        truth => Ok(truth as c_int != 0),
    }
}

/// Defines raw methods of a class and a function that adds them to it:
///
/// ```text
/// methods! { add_lock_methods for Lock {
///     "locked" => noargs locked, "($self, /)\n--\n\nWhether it is held.";
///     "acquire" => keywords acquire, "($self, blocking=True)\n--\n\nTakes it.";
/// } }
/// ```
///
/// Classes based on it may be named after it: `for Lock, NamedLock`. A `noargs` function is
/// `fn(This<T>) -> RawResult`, a `keywords` function `fn(This<T>, Args) -> RawResult`.
macro_rules! methods {
    ($add:ident for $class:ty $(, $heir:ty)* { $($name:literal => $kind:ident $function:path, $doc:expr;)* }) => {
        /// Adds the raw methods to the class.
        #[allow(unsafe_code)]
        pub fn $add(py: ::pyo3::Python<'_>) -> ::pyo3::PyResult<()> {
            let heirs = [$(py.get_type::<$heir>()),*];
            $($crate::raw::add_method::<$class>(py, &heirs, $name, $crate::raw::methods!(@$kind $class, $function), $doc)?;)*
            Ok(())
        }
    };
    (@noargs $class:ty, $function:path) => {{
        unsafe extern "C" fn method(
            this: *mut ::pyo3::ffi::PyObject,
            _: *mut ::pyo3::ffi::PyObject,
        ) -> *mut ::pyo3::ffi::PyObject {
            // SAFETY: CPython calls methods attached, and with an instance of the class as the descriptor checks.
            unsafe { $crate::raw::guard(|py| $function($crate::raw::This::<$class>::new(py, this))) }
        }
        $crate::raw::Function::NoArgs(method)
    }};
    (@keywords $class:ty, $function:path) => {{
        unsafe extern "C" fn method(
            this: *mut ::pyo3::ffi::PyObject,
            args: *const *mut ::pyo3::ffi::PyObject,
            count: ::pyo3::ffi::Py_ssize_t,
            names: *mut ::pyo3::ffi::PyObject,
        ) -> *mut ::pyo3::ffi::PyObject {
            // SAFETY: as above, and the arguments are those of a vectorcall.
            unsafe {
                $crate::raw::guard(|py| {
                    let this = $crate::raw::This::<$class>::new(py, this);
                    $function(this, $crate::raw::Args::new(args, count as usize, names))
                })
            }
        }
        $crate::raw::Function::Keywords(method)
    }};
}
pub(crate) use methods;

/// Constructs through `tp_new` and `tp_init`, as `type.__call__` does without a vectorcall.
///
/// # Safety
/// The arguments are those of a vectorcall of `class`, and the thread is attached.
#[cold]
pub unsafe fn construct_slow(
    class: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> RawResult {
    // SAFETY: the caller's promises; every result is checked, and what is owned is released.
    unsafe {
        let tuple = ffi::PyTuple_New(count);
        if tuple.is_null() {
            return Err(Raised);
        }
        for at in 0..count {
            let value = *args.offset(at);
            ffi::Py_INCREF(value);
            ffi::PyTuple_SET_ITEM(tuple, at, value);
        }
        let mut keywords = std::ptr::null_mut();
        if !names.is_null() {
            keywords = ffi::PyDict_New();
            for at in 0..ffi::PyTuple_GET_SIZE(names) {
                ffi::PyDict_SetItem(keywords, ffi::PyTuple_GET_ITEM(names, at), *args.offset(count + at));
            }
        }
        let class = class.cast::<ffi::PyTypeObject>();
        let mut object = std::ptr::null_mut();
        if let Some(new) = (*class).tp_new {
            object = new(class, tuple, keywords);
        }
        if !object.is_null()
            && let Some(init) = (*class).tp_init
            && init(object, tuple, keywords) < 0
        {
            ffi::Py_DECREF(object);
            object = std::ptr::null_mut();
        }
        ffi::Py_DECREF(tuple);
        ffi::Py_XDECREF(keywords);
        if object.is_null() { Err(Raised) } else { Ok(object) }
    }
}
