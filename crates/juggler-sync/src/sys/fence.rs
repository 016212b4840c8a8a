//! Two fences that together do what two sequentially consistent ones do, where one side must be cheap.
//!
//! "I store mine, then look at yours" (Dekker) needs a full fence between store and look on both sides, which costs as much
//! as a compare-and-swap. Where one side runs millions of times a second and the other is about to sleep anyway, the
//! sleeper can pay for both: [`heavy`] makes every thread of the process pass a full fence, by an interrupt where one is
//! running, so that [`light`] need only keep the compiler from reordering.
//!
//! The system has to be asked for that once ([`prepare`]). Until then, and where it refuses, both are full fences.
//!
//! Source: membarrier(2), `MEMBARRIER_CMD_PRIVATE_EXPEDITED`.

#[cfg(not(loom))]
pub use real::{heavy, light, prepare};

#[cfg(not(loom))]
mod real {
    use crate::sys::linux::{every_thread_fences, register_for_fences};
    use std::sync::atomic::{AtomicU8, Ordering, compiler_fence, fence};

    const UNKNOWN: u8 = 0;
    const UNEQUAL: u8 = 1;
    const EQUAL: u8 = 2;

    /// Leaves `UNKNOWN` once, and for good.
    static KIND: AtomicU8 = AtomicU8::new(UNKNOWN);

    /// The side that runs often.
    #[inline(always)]
    pub fn light() {
        if KIND.load(Ordering::Relaxed) == UNEQUAL {
            compiler_fence(Ordering::SeqCst);
        } else {
            fence(Ordering::SeqCst);
        }
    }

    /// The side that may take microseconds. `false` if the system has taken its permission back, as a sandbox may that is
    /// closed late: then there was no fence in the others, and who sleeps must look again by itself.
    #[must_use]
    pub fn heavy() -> bool {
        fence(Ordering::SeqCst);
        // Another thread may have prepared a moment ago, and its light fence have been a light one.
        prepare();
        KIND.load(Ordering::Relaxed) == EQUAL || every_thread_fences()
    }

    /// Asks the system whether the fences may differ. Quickest while the process has one thread.
    pub fn prepare() {
        if KIND.load(Ordering::Relaxed) == UNKNOWN {
            let kind = if register_for_fences() { UNEQUAL } else { EQUAL };
            // Two threads that ask at once get the same answer.
            KIND.store(kind, Ordering::SeqCst);
        }
    }
}

/// In a model both are full.
#[cfg(loom)]
pub fn light() {
    loom::sync::atomic::fence(crate::sync::Ordering::SeqCst);
}

/// In a model both are full.
#[cfg(loom)]
pub fn heavy() -> bool {
    loom::sync::atomic::fence(crate::sync::Ordering::SeqCst);
    true
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::hint::spin_loop;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn at_least_one_side_sees_the_other() {
        const ROUNDS: u32 = 5_000;
        prepare();
        let stored = [AtomicU32::new(0), AtomicU32::new(0)];
        let done = [AtomicU32::new(0), AtomicU32::new(0)];
        // In which rounds a side saw what the other stored in that round, or later.
        let side = |mine: usize, fence: &dyn Fn()| -> Vec<bool> {
            let yours = 1 - mine;
            let round = |round| {
                stored[mine].store(round, Ordering::Release);
                fence();
                let saw = stored[yours].load(Ordering::Relaxed) >= round;
                done[mine].store(round, Ordering::Release);
                while done[yours].load(Ordering::Acquire) < round {
                    spin_loop();
                }
                saw
            };
            (1..=ROUNDS).map(round).collect()
        };
        let (lights, heavies) = std::thread::scope(|scope| {
            let lights = scope.spawn(|| side(0, &light));
            let heavies = side(1, &|| assert!(heavy(), "the system refused"));
            (lights.join().unwrap(), heavies)
        });
        let blind = lights.iter().zip(heavies).filter(|&(&light, heavy)| !light && !heavy).count();
        assert_eq!(blind, 0, "rounds of {ROUNDS} in which neither saw the other");
    }
}
