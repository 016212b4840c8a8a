//! What a loop does while other threads compute.
//!
//! Under a GIL, a loop that sleeps has given the interpreter up. A thread that computes gives it back when it is asked to, and
//! whoever wants it asks after the switch interval, 5 ms by default: so long would each request wait that is answered before the
//! next one comes. A loop that has had to wait like that once ([`LONG`]) does three things until it has not had to for a while:
//!
//! * It has the switch interval be [`INTERVAL`]. That is the interpreter's, so threads that compute side by side take turns as
//!   often.
//! * It keeps the interpreter for about as long ([`HOLD`]): with nothing to do, it sleeps at its descriptors without giving the
//!   interpreter up, at most [`QUIET`] at a time. So what follows at once is served at once, and a thread that computes has
//!   about half of the time. A loop that gets nothing within [`QUIET`] gives the interpreter up.
//! * Before it sleeps so, it looks for up to [`LOOK`], if [`look`] has found that this pays, and leaves the processor to others
//!   between two looks: the thread that computes waits, so a processor is free, but the client may have been put on this one.
//!
//! Free-threaded builds need none of this.

use crate::raw::Raised;
use juggler_loop::poll::{Events, Timeout, Waiter};
use juggler_sync::look;
use juggler_sync::sync::{AtomicU64, AtomicUsize, Ordering};
use juggler_sync::sys::monotonic_nanos;
use pyo3::intern;
use pyo3::prelude::*;
use std::io;
use std::thread;
use std::time::Duration;

/// Who waits this long for the interpreter, in nanoseconds, waits for a thread that computes.
const LONG: u64 = 200_000;

/// The switch interval while threads compute beside a loop, in seconds.
const INTERVAL: f64 = 0.00025;

/// For how long a loop that has waited keeps the interpreter, in nanoseconds: it gives it up by itself just before the thread
/// that waits for it now would take it, in the middle of a request, whose rest would be an interval late. That thread's wait
/// ends later than the interval by the slack of the system's timers, 50 µs, and what it takes to wake up.
const HOLD: u64 = 275_000;

/// How long a loop that keeps the interpreter waits for something to do, in nanoseconds.
const QUIET: u64 = 200_000;

/// For how long it looks before it sleeps.
const LOOK: Duration = Duration::from_micros(50);

/// How many times in a row a loop that has slept must have the interpreter at once for all to be as before.
const CALM: u32 = 64;

/// How a loop stands to the threads that compute.
#[derive(Debug, Default)]
pub struct Contention {
    keep_until: u64,
    /// `None` while nobody else seems to compute; how many times in a row the interpreter was there at once.
    calm: Option<u32>,
}

impl Contention {
    /// How long a loop that has nothing to do sleeps before it gives the interpreter up.
    #[inline]
    pub fn patience(&self, now: u64, waiter: &Waiter) -> Option<Duration> {
        let left = self.keep_until.saturating_sub(now);
        (left > 0 && waiter.is_exact()).then(|| Duration::from_nanos(left.min(QUIET)))
    }

    /// The loop has slept for `quiet` in vain.
    pub fn nothing_came(&mut self) {
        self.keep_until = 0;
    }

    /// Takes note of how long the loop has waited for the interpreter, which it has got now.
    ///
    /// # Errors
    /// What changing the switch interval raises.
    #[inline]
    pub fn attached(&mut self, py: Python<'_>, waited: u64, now: u64) -> Result<(), Raised> {
        if cfg!(Py_GIL_DISABLED) || (waited < LONG && self.calm.is_none()) {
            return Ok(());
        }
        self.note(py, waited, now).map_err(|error| Raised::from_err(py, error))
    }

    #[cold]
    fn note(&mut self, py: Python<'_>, waited: u64, now: u64) -> PyResult<()> {
        if waited >= LONG {
            self.keep_until = now + HOLD;
            if self.calm.replace(0).is_none() {
                return lower(py);
            }
        } else if let Some(calm) = &mut self.calm {
            *calm += 1;
            if *calm == CALM {
                return self.end(py);
            }
        }
        Ok(())
    }

    /// Nobody computes any more, or the loop ends.
    pub fn end(&mut self, py: Python<'_>) -> PyResult<()> {
        if self.calm.take().is_some() { restore(py) } else { Ok(()) }
    }
}

/// Waits for what `waiter` waits for, at most for `patience`, with the interpreter held.
///
/// # Errors
/// The system's.
pub fn wait(waiter: &Waiter, events: &mut Events, patience: Duration) -> io::Result<()> {
    look::learn(|looks| {
        let mut left = patience;
        if looks {
            let look = patience.min(LOOK);
            let end = monotonic_nanos() + look.as_nanos() as u64;
            while monotonic_nanos() < end {
                waiter.wait(events, Timeout::Look)?;
                if !events.is_empty() {
                    return Ok(());
                }
                thread::yield_now();
            }
            left -= look;
        }
        waiter.wait(events, Timeout::After(left))
    })
}

/// How many loops want a short switch interval.
static LOOPS: AtomicUsize = AtomicUsize::new(0);

/// What the switch interval was before, as the bits of a number of seconds; 0 if it was not changed.
static BEFORE: AtomicU64 = AtomicU64::new(0);

fn lower(py: Python<'_>) -> PyResult<()> {
    if LOOPS.fetch_add(1, Ordering::Relaxed) == 0 {
        let before = switch_interval(py)?;
        if before > INTERVAL {
            BEFORE.store(before.to_bits(), Ordering::Relaxed);
            return set_switch_interval(py, INTERVAL);
        }
    }
    Ok(())
}

/// What a program has set meanwhile stays.
fn restore(py: Python<'_>) -> PyResult<()> {
    if LOOPS.fetch_sub(1, Ordering::Relaxed) == 1 {
        let before = f64::from_bits(BEFORE.swap(0, Ordering::Relaxed));
        if before != 0.0 && (switch_interval(py)? - INTERVAL).abs() < 1e-6 {
            return set_switch_interval(py, before);
        }
    }
    Ok(())
}

fn switch_interval(py: Python<'_>) -> PyResult<f64> {
    sys(py)?.call_method0(intern!(py, "getswitchinterval"))?.extract()
}

/// The interpreter counts whole microseconds, rounded down.
fn set_switch_interval(py: Python<'_>, seconds: f64) -> PyResult<()> {
    sys(py)?.call_method1(intern!(py, "setswitchinterval"), (seconds + 5e-7,)).map(drop)
}

fn sys(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
    py.import(intern!(py, "sys"))
}
