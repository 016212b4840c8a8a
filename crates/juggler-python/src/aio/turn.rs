//! What the loop does while it runs: one turn after the other.
//!
//! A turn looks for what has become ready (descriptors, then timers), and runs what the ring held then; what comes meanwhile
//! is for the next turn. A loop with nothing to run looks with the interpreter held, and only then sleeps through the
//! gate. One that is busy looks as often as its [pace](juggler_loop::pace) says.
#![allow(unsafe_code)]

use super::contention::{self, Contention};
use super::current;
use super::entry::Entry;
use super::event_loop::{Loop, State};
use super::handle;
use crate::gate::PyGate;
use crate::gil;
use crate::raw::Raised;
use juggler_loop::clock;
use juggler_loop::poll::{Events, Timeout};
use juggler_sync::sys::monotonic_nanos;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use std::time::Duration;

/// Runs turns until the loop is stopped.
///
/// # Errors
/// What ends `run_forever`: `KeyboardInterrupt`, `SystemExit`, or what a signal handler raises.
pub fn run(slf: &Bound<'_, Loop>) -> PyResult<()> {
    let py = slf.py();
    let mut contention = Contention::default();
    let ran = turns(slf, &mut contention).map_err(|raised| raised.fetch(py));
    let settled = current::settle(slf).map_err(|raised| raised.fetch(py));
    let ended = contention.end(py);
    ran.and(settled).and(ended)
}

fn turns(slf: &Bound<'_, Loop>, contention: &mut Contention) -> Result<(), Raised> {
    let (py, this) = (slf.py(), slf.get());
    let mut events = Events::default();
    this.state.hold(py).pace.begin();
    loop {
        if let Some(now) = look(slf, &mut events, contention)? {
            take_due(py, this, now);
        }
        this.state.hold(py).ready.begin_turn();
        loop {
            let entry = this.state.hold(py).ready.pop();
            let Some(entry) = entry else { break };
            this.beat();
            if this.is_debug() { run_watched(slf, entry)? } else { entry.run(py)? }
        }
        if this.is_stopping() {
            return Ok(());
        }
    }
}

/// Puts the entries whose descriptors are ready into the ring, and sleeps if there is nothing to run. Returns what time it is, if
/// a timer may be due.
fn look(slf: &Bound<'_, Loop>, events: &mut Events, contention: &mut Contention) -> Result<Option<u64>, Raised> {
    let (py, this) = (slf.py(), slf.get());
    let tick = clock::tick();
    let mut state = this.state.hold(py);
    let idle = state.ready.is_empty() && !this.is_stopping();
    let is_due = state.pace.is_due(tick);
    let may_be_due = || state.timers.next().is_some_and(|when| when <= tick + clock::LAG);
    if !is_due && !idle {
        return Ok(may_be_due().then(monotonic_nanos));
    }
    if idle && !state.pace.is_late() && !may_be_due() && look_at_one(&mut state, events) {
        drop(state);
        dispatch(py, this, events);
        return Ok(None);
    }
    drop(state);
    look_now(slf, events, contention).map(Some)
}

/// Looks at the descriptor that lately was ready again and again while no other was. Whether it is ready now.
#[inline]
fn look_at_one(state: &mut State, events: &mut Events) -> bool {
    let State { focus, poller: Some(poller), .. } = state else { return false };
    let Some(fd) = focus.get() else { return false };
    poller.look_at(events, fd);
    focus.asked(!events.is_empty());
    !events.is_empty()
}

/// The same as [`look`] when it is time to look at all.
fn look_now(slf: &Bound<'_, Loop>, events: &mut Events, contention: &mut Contention) -> Result<u64, Raised> {
    let (py, this) = (slf.py(), slf.get());
    // What a signal's handler does is part of no task.
    current::settle(slf)?;
    // SAFETY: the thread is attached.
    if unsafe { ffi::PyErr_CheckSignals() } != 0 {
        return Err(Raised);
    }
    this.check_fork(py)?;
    let mut now = monotonic_nanos();
    let state = this.state.hold(py);
    let idle = state.ready.is_empty() && !this.is_stopping();
    let Some(waiter) = state.poller.as_ref().map(|poller| poller.waiter()) else {
        drop(state);
        return this.check_closed(py).map(|()| now);
    };
    drop(state);
    let failed = |error: std::io::Error| Raised::from_err(py, error.into());
    match contention.patience(now, &waiter).filter(|_| idle) {
        None => waiter.wait(events, Timeout::Look).map_err(failed)?,
        Some(patience) => {
            let due = next_timer(py, this).map_or(Duration::MAX, |when| Duration::from_nanos(when.saturating_sub(now)));
            contention::wait(&waiter, events, patience.min(due)).map_err(failed)?;
            now = monotonic_nanos();
            if events.is_empty() && patience < due {
                contention.nothing_came();
            }
        }
    }
    looked(py, this, now, events);
    if !events.is_empty() || !idle {
        dispatch(py, this, events);
        return Ok(now);
    }
    let timeout = match next_timer(py, this) {
        None => Timeout::Never,
        Some(when) if when <= now => return Ok(now),
        Some(when) => Timeout::After(Duration::from_nanos(when - now)),
    };
    // Since when the interpreter was asked for while somebody else had it.
    let mut asked = None;
    this.slumber.doze();
    let waited = if this.state.hold(py).ready.is_empty() && !this.is_stopping() {
        PyGate::new(py).system_call(|| {
            let waited = waiter.wait(events, timeout);
            asked = (gil::is_free() != Some(true)).then(monotonic_nanos);
            waited
        })
    } else {
        Ok(Ok(()))
    };
    this.slumber.wake();
    waited?.map_err(failed)?;
    let now = monotonic_nanos();
    contention.attached(py, asked.map_or(0, |asked| now.saturating_sub(asked)), now)?;
    let mut state = this.state.hold(py);
    state.pace.looked(now, true);
    state.focus.looked(None);
    drop(state);
    dispatch(py, this, events);
    Ok(now)
}

/// Takes note of a look.
#[inline]
fn looked(py: Python<'_>, this: &Loop, now: u64, events: &Events) {
    let mut state = this.state.hold(py);
    state.pace.looked(now, !events.is_empty());
    state.focus.looked(events.alone());
}

/// Puts the watchers of what is ready into the ring.
fn dispatch(py: Python<'_>, this: &Loop, events: &Events) {
    let mut held = this.state.hold(py);
    let state = &mut *held;
    let Some(poller) = &mut state.poller else { return };
    let mut cancelled = Vec::new();
    poller.dispatch(events, |fd, interest, entry| {
        if entry.is_cancelled() {
            cancelled.push((fd, interest));
        } else {
            state.ready.push(entry.clone_ref(py));
        }
    });
    let dropped: Vec<_> = cancelled.into_iter().filter_map(|(fd, interest)| poller.unwatch(fd, interest)).collect();
    drop(held);
    drop(dropped);
}

/// When the next timer is due that is not cancelled.
fn next_timer(py: Python<'_>, this: &Loop) -> Option<u64> {
    loop {
        let mut state = this.state.hold(py);
        let Some(cancelled) = state.timers.pop_cancelled(Entry::is_cancelled) else { return state.timers.next() };
        drop(state);
        handle::unschedule(&cancelled.object);
    }
}

/// Puts the timers that are due into the ring.
#[inline]
fn take_due(py: Python<'_>, this: &Loop, now: u64) {
    loop {
        let mut state = this.state.hold(py);
        let Some(entry) = state.timers.pop_due(now, Entry::is_cancelled) else { return };
        handle::unschedule(&entry.object);
        state.ready.push(entry);
    }
}

/// Runs an entry in debug mode: what takes long is logged.
#[cold]
fn run_watched(slf: &Bound<'_, Loop>, entry: Entry) -> Result<(), Raised> {
    let py = slf.py();
    if entry.is_cancelled() {
        return Ok(());
    }
    let raised = |error| Raised::from_err(py, error);
    let object = entry.object.bind(py).to_owned();
    slf.setattr(intern!(py, "_current_handle"), &object).map_err(raised)?;
    let began = monotonic_nanos();
    let result = entry.run(py);
    let took = super::event_loop::seconds(monotonic_nanos() - began);
    let error = result.err().map(|raised| raised.fetch(py));
    slf.setattr(intern!(py, "_current_handle"), py.None()).map_err(raised)?;
    match error {
        Some(error) => Err(raised(error)),
        None => slf.call_method1(intern!(py, "_ran"), (object, took)).map(drop).map_err(raised),
    }
}
