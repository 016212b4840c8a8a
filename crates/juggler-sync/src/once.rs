//! A place for a value that most owners never have: one word, null until the value is made.
//!
//! The word goes from null to the value once, by compare-exchange; whoever loses that race drops its own and takes the
//! winner's. So a reference to the value is good for as long as the place lives.
#![allow(unsafe_code)]

use crate::sync::{AtomicPtr, Ordering};
use std::marker::PhantomData;
use std::ptr;

/// At most one value, on the heap; see the [module](self).
#[derive(Debug)]
pub struct OnceBox<T> {
    value: AtomicPtr<T>,
    owned: PhantomData<Box<T>>,
}

// SAFETY: the value moves with the place, and a shared place gives out shared references and takes values in.
unsafe impl<T: Send + Sync> Sync for OnceBox<T> {}

impl<T> Default for OnceBox<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> OnceBox<T> {
    /// A place without a value.
    #[inline(always)]
    pub fn new() -> Self {
        Self { value: AtomicPtr::new(ptr::null_mut()), owned: PhantomData }
    }

    /// The value, if there is one.
    #[inline(always)]
    pub fn get(&self) -> Option<&T> {
        // Acquire pairs with the exchange in `get_or_init`.
        // SAFETY: the pointer is null or was given up by a `Box`, and is freed by `Drop` alone.
        unsafe { self.value.load(Ordering::Acquire).as_ref() }
    }

    /// The value, which `make` makes if there is none. It may be called for nothing, if two threads are here at once.
    pub fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        if let Some(value) = self.get() {
            return value;
        }
        let fresh = Box::into_raw(Box::new(make()));
        match self.value.compare_exchange(ptr::null_mut(), fresh, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: the place owns it from now on.
            Ok(_) => unsafe { &*fresh },
            Err(first) => {
                // SAFETY: nobody else has seen `fresh`.
                drop(unsafe { Box::from_raw(fresh) });
                // SAFETY: as in `get`.
                unsafe { &*first }
            }
        }
    }
}

impl<T> Drop for OnceBox<T> {
    #[inline(always)]
    fn drop(&mut self) {
        let value = self.value.load(Ordering::Acquire);
        if !value.is_null() {
            // SAFETY: it came from a `Box`, and with `&mut self` no reference into it is left.
            drop(unsafe { Box::from_raw(value) });
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn keeps_the_first_value_and_drops_it_once() {
        let (first, second) = (Arc::new(1), Arc::new(2));
        let place = OnceBox::new();
        assert_eq!(place.get(), None);
        assert_eq!(**place.get_or_init(|| first.clone()), 1);
        assert_eq!(**place.get_or_init(|| second.clone()), 1);
        assert_eq!((Arc::strong_count(&first), Arc::strong_count(&second)), (2, 1));
        drop(place);
        assert_eq!(Arc::strong_count(&first), 1);
    }

    #[test]
    fn racing_threads_see_one_value() {
        let place = OnceBox::new();
        let place = &place;
        let seen = |n: usize| std::ptr::from_ref(place.get_or_init(|| n)) as usize;
        let values: Vec<usize> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|n| scope.spawn(move || seen(n))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(values.iter().all(|&value| value == values[0]));
    }
}
