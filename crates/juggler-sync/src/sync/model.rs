//! Loom's atomics, with sequential consistency as this crate relies on it.
//!
//! Loom takes a `SeqCst` access for an `AcqRel` one, which breaks every pair of the kind "I store mine, then look at
//! yours" (Dekker); only its `SeqCst` fence is the real thing. So a `SeqCst` load or exchange that follows a `SeqCst`
//! store or exchange of the same thread puts that fence between the two. If either access of a pair is made weaker, the
//! fence is gone and the model finds the lost wake-up.

use loom::sync::atomic::{Ordering, fence};
use std::cell::Cell;

loom::thread_local! {
    /// Whether this thread's last `SeqCst` store has not been fenced off yet.
    static STORED: Cell<bool> = Cell::new(false);
}

fn before_load(order: Ordering) {
    if order == Ordering::SeqCst && STORED.with(|stored| stored.replace(false)) {
        fence(Ordering::SeqCst);
    }
}

fn after_store(order: Ordering) {
    if order == Ordering::SeqCst {
        STORED.with(|stored| stored.set(true));
    }
}

macro_rules! atomic {
    ($name:ident, $value:ty) => {
        /// Loom's type of this name with its `SeqCst` accesses strengthened; see the [module](self).
        #[derive(Debug, Default)]
        pub struct $name(loom::sync::atomic::$name);

        impl $name {
            /// Wraps `value`.
            pub fn new(value: $value) -> Self {
                Self(loom::sync::atomic::$name::new(value))
            }

            /// Reads the value.
            pub fn load(&self, order: Ordering) -> $value {
                before_load(order);
                self.0.load(order)
            }

            /// Writes the value.
            pub fn store(&self, value: $value, order: Ordering) {
                self.0.store(value, order);
                after_store(order);
            }

            /// Writes the value and returns the one before.
            pub fn swap(&self, value: $value, order: Ordering) -> $value {
                before_load(order);
                let before = self.0.swap(value, order);
                after_store(order);
                before
            }

            /// Adds to the value and returns the one before.
            pub fn fetch_add(&self, value: $value, order: Ordering) -> $value {
                before_load(order);
                let before = self.0.fetch_add(value, order);
                after_store(order);
                before
            }

            /// Subtracts from the value and returns the one before.
            pub fn fetch_sub(&self, value: $value, order: Ordering) -> $value {
                before_load(order);
                let before = self.0.fetch_sub(value, order);
                after_store(order);
                before
            }

            /// Sets bits and returns the value before.
            pub fn fetch_or(&self, value: $value, order: Ordering) -> $value {
                before_load(order);
                let before = self.0.fetch_or(value, order);
                after_store(order);
                before
            }

            /// Keeps some bits and returns the value before.
            pub fn fetch_and(&self, value: $value, order: Ordering) -> $value {
                before_load(order);
                let before = self.0.fetch_and(value, order);
                after_store(order);
                before
            }

            /// Writes `new` if the value is `current`.
            pub fn compare_exchange(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                before_load(success);
                let outcome = self.0.compare_exchange(current, new, success, failure);
                if outcome.is_ok() {
                    after_store(success);
                }
                outcome
            }

            /// As [`Self::compare_exchange`]: in a model neither fails for no reason.
            pub fn compare_exchange_weak(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.compare_exchange(current, new, success, failure)
            }
        }
    };
}

atomic!(AtomicU32, u32);
atomic!(AtomicU64, u64);
atomic!(AtomicUsize, usize);
