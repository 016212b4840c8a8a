//! An owned reference to an object whose class is known.
#![allow(unsafe_code)]

use super::plain;
use crate::layout::{self, Direct};
use crate::obj::Obj;
use crate::raw::{Raised, This};
use pyo3::PyClass;
use pyo3::prelude::*;
use pyo3::pyclass::boolean_struct::True;
use std::marker::PhantomData;

/// As [`Obj`], of an instance of `T`.
pub struct Ref<T> {
    object: Obj,
    class: PhantomData<fn() -> T>,
}

impl<T: PyClass<Frozen = True> + Sync> Ref<T> {
    /// Another reference to `this`.
    #[inline(always)]
    pub fn new(this: This<'_, '_, T>) -> Self {
        // SAFETY: a live object of an attached thread, as `this` shows.
        let object = unsafe { Obj::from_borrowed(this.as_any().as_ptr()) };
        Self { object, class: PhantomData }
    }

    /// `object`, if it is of the class itself and no program has changed it.
    pub fn of_plain(object: &Bound<'_, PyAny>) -> Option<Self> {
        let object = plain::is_plain_of::<T>(object).then(|| object.clone().into())?;
        Some(Self { object, class: PhantomData })
    }

    /// Another reference to the same.
    #[inline(always)]
    pub fn clone_ref(&self, py: Python<'_>) -> Self {
        Self { object: self.object.clone_ref(py), class: PhantomData }
    }

    /// The object.
    #[inline(always)]
    pub fn get<'py>(&self, py: Python<'py>) -> This<'_, 'py, T> {
        // SAFETY: the object is an instance of `T`, and `self` keeps it alive.
        unsafe { This::new(py, self.object.as_ptr()) }
    }

    /// The reference without its class.
    #[inline(always)]
    pub fn as_obj(&self) -> &Obj {
        &self.object
    }
}

impl<T: Direct> Ref<T> {
    /// A new object.
    ///
    /// # Errors
    /// `MemoryError`
    #[inline(always)]
    pub fn create(py: Python<'_>, value: T) -> Result<Self, Raised> {
        Ok(Self { object: layout::create(py, value)?, class: PhantomData })
    }
}

impl<T: PyClass<Frozen = True> + Sync> From<Bound<'_, T>> for Ref<T> {
    fn from(bound: Bound<'_, T>) -> Self {
        Self { object: bound.into_any().into(), class: PhantomData }
    }
}
