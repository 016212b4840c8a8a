//! `Loop`: the native part of an event loop.
//!
//! `juggler.asyncio.EventLoop` is this class first and the standard library's base of loops second. What is here: the loop's
//! state, and the functions that the other modules of this folder use. Tasks, futures and transports get their work done by the
//! loop without a handle: they give it an [`Entry`], which says what to run and how.
#![allow(unsafe_code)]

use super::entry::Entry;
use super::handle;
use super::registry::Held;
use crate::attached::Attached;
#[cfg(not(Py_3_14))]
use crate::gate;
use crate::gc::Ready as GcReady;
use crate::obj::Obj;
use crate::raw::{self, Args, Raised, RawResult, This, methods};
use juggler_loop::focus::Focus;
use juggler_loop::pace::Pace;
use juggler_loop::poll::{Bell, Interest, Poller};
use juggler_loop::ready::Ready;
use juggler_loop::slumber::Slumber;
use juggler_loop::timers::Timers;
use juggler_sync::guarded::Guarded;
use juggler_sync::park;
use juggler_sync::sync::{AtomicU32, AtomicUsize, Ordering};
use juggler_sync::sys::monotonic_nanos;
use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::{PyDict, PyTuple};
use std::os::fd::RawFd;

/// The class, for those that look for it often. Only written while the module is imported.
static CLASS: AtomicUsize = AtomicUsize::new(0);

/// The class of the first loop that was not of the class itself, which nearly all loops are of: `juggler.asyncio.EventLoop`.
static HEIR: AtomicUsize = AtomicUsize::new(0);

const CLOSED: u32 = 1;
const DEBUG: u32 = 2;
const STOPPING: u32 = 4;
const CHECKS: u32 = 8;

/// The native part of an event loop; see `juggler.asyncio.EventLoop`.
#[pyclass(frozen, weakref, dict, subclass, module = "juggler._juggler")]
pub struct Loop {
    gc_ready: GcReady,
    flags: AtomicU32,
    /// The thread that runs the loop, 0 for none.
    thread: AtomicUsize,
    /// How many forks lay behind the process when the loop last had descriptors of its own.
    generation: AtomicU32,
    pub(super) state: Attached<State>,
    pub(super) slumber: Slumber,
    /// How many entries have begun to run. Written by the loop's thread alone; a watchdog reads it.
    beats: AtomicUsize,
    /// What ends the loop's sleep; gone when it is closed.
    bell: Guarded<Option<Bell>>,
    pub(super) tasks: Held,
    /// What makes tasks, if a program has set it.
    pub(super) factory: Attached<Option<Obj>>,
    /// Where `asyncio` has the loop's current task.
    #[cfg(not(Py_3_14))]
    pub(super) place: Attached<super::current::Place>,
}

/// What the loop's thread works with.
#[derive(Debug)]
pub(super) struct State {
    pub ready: Ready<Entry>,
    pub timers: Timers<Entry>,
    pub pace: Pace,
    pub focus: Focus,
    /// Gone when the loop is closed.
    pub poller: Option<Poller<Entry>>,
}

fn system_error(py: Python<'_>, error: std::io::Error) -> Raised {
    Raised::from_err(py, error.into())
}

/// `object` as a loop, if it is one of ours.
#[inline]
pub fn as_loop<'a, 'py>(object: &'a Bound<'py, PyAny>) -> Option<&'a Bound<'py, Loop>> {
    object.cast::<Loop>().ok()
}

/// `object` as a loop, if it is one of ours that is neither closed nor in debug mode: what is scheduled there needs no handle.
#[inline(always)]
pub fn plain_loop<'a, 'py>(py: Python<'py>, object: &'a Obj) -> Option<This<'a, 'py, Loop>> {
    ours(py, object).filter(|this| this.is_plain())
}

/// `object` as a loop, if it is one of ours.
#[inline(always)]
pub fn ours<'a, 'py>(py: Python<'py>, object: &'a Obj) -> Option<This<'a, 'py, Loop>> {
    // SAFETY: `object` is live; it is an instance if its class says so.
    unsafe {
        let is_ours = ffi::Py_TYPE(object.as_ptr()) as usize == HEIR.load(Ordering::Relaxed) || is_loop_slow(object);
        is_ours.then(|| This::new(py, object.as_ptr()))
    }
}

/// Asks the interpreter, and takes note of the heir.
#[cold]
fn is_loop_slow(object: &Obj) -> bool {
    // SAFETY: `object` is live, and the class is never freed. The heir is kept for ever, so that no other class can have its
    // address.
    unsafe {
        let (class, native) = (ffi::Py_TYPE(object.as_ptr()), CLASS.load(Ordering::Relaxed) as *mut ffi::PyTypeObject);
        let is_loop = ffi::PyType_IsSubtype(class, native) != 0;
        if is_loop && HEIR.compare_exchange(0, class as usize, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            ffi::Py_INCREF(class.cast());
        }
        is_loop
    }
}

/// What other modules use.
impl Loop {
    /// Has `entry` run in the next turn, after all that waits for it already. For the loop's own thread.
    #[inline(always)]
    pub fn push(&self, py: Python<'_>, entry: Entry) {
        self.state.hold(py).ready.push(entry);
    }

    /// Whether nothing waits to run, and the loop goes on. For the loop's own thread.
    #[inline]
    pub fn is_quiet(&self, py: Python<'_>) -> bool {
        !self.is_stopping() && self.state.hold(py).ready.is_empty()
    }

    /// As [`push`](Self::push) for any thread: the loop is woken if it sleeps.
    #[inline]
    pub fn push_threadsafe(&self, py: Python<'_>, entry: Entry) {
        self.push(py, entry);
        self.ring();
    }

    /// Wakes the loop if it sleeps.
    #[inline]
    pub fn ring(&self) {
        if self.slumber.must_ring()
            && let Some(bell) = &*self.bell.lock()
        {
            bell.ring();
        }
    }

    /// Whether what runs next is a task's step.
    #[cfg(not(Py_3_14))]
    #[inline(always)]
    pub(super) fn is_step_next(&self, py: Python<'_>) -> bool {
        let is_step = |next: &Entry| std::ptr::eq(next.kind, &raw const super::task::KIND);
        !self.is_debug() && self.state.hold(py).ready.first().is_some_and(is_step)
    }

    /// Has `entry` run when the loop's clock shows `when`, in nanoseconds.
    #[inline(always)]
    pub fn schedule(&self, py: Python<'_>, when: u64, entry: Entry) {
        self.state.hold(py).timers.push(when, entry);
    }

    /// Takes note that an entry that was scheduled, and has not come up yet, is cancelled now.
    pub fn timer_cancelled(&self, py: Python<'_>) {
        let mut state = self.state.hold(py);
        if state.timers.note_cancelled() {
            let stale = state.timers.compact(Entry::is_cancelled);
            drop(state);
            stale.iter().for_each(|entry| handle::unschedule(&entry.object));
        }
    }

    /// Has `entry` run, each turn, while `fd` is ready for `interest`. Returns who watched it before.
    ///
    /// A descriptor must be let go of by [`unwatch`](Self::unwatch) before it is closed. The entry may still be run once after
    /// that, if it was in the ring.
    ///
    /// # Errors
    /// `OSError`: no such descriptor, or one that can't be watched. `RuntimeError`: the loop is closed.
    pub fn watch(&self, py: Python<'_>, fd: RawFd, interest: Interest, entry: Entry) -> Result<Option<Entry>, Raised> {
        self.check_fork(py)?;
        let mut state = self.state.hold(py);
        let watched = match &mut state.poller {
            Some(poller) => poller.watch(fd, interest, entry),
            None => {
                drop(state);
                return Err(self.closed(py));
            }
        };
        drop(state);
        watched.map_err(|(error, _)| system_error(py, error))
    }

    /// Has nobody run any more when `fd` is ready for `interest`. Returns who was.
    pub fn unwatch(&self, py: Python<'_>, fd: RawFd, interest: Interest) -> Option<Entry> {
        if self.check_fork(py).is_err() {
            drop(PyErr::take(py));
        }
        self.state.hold(py).poller.as_mut()?.unwatch(fd, interest)
    }

    /// Who is run when `fd` is ready for `interest`.
    pub fn watcher(&self, py: Python<'_>, fd: RawFd, interest: Interest) -> Option<Entry> {
        self.state.hold(py).poller.as_ref()?.watcher(fd, interest).map(|entry| entry.clone_ref(py))
    }

    /// The loop's clock: nanoseconds.
    #[inline(always)]
    pub fn now() -> u64 {
        monotonic_nanos()
    }

    /// Whether debug mode is on.
    #[inline(always)]
    pub fn is_debug(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & DEBUG != 0
    }

    /// Whether what is most likely a mistake of the program's is told of.
    pub(super) fn checks(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & (CHECKS | DEBUG) != 0
    }

    /// Whether the loop is closed.
    #[inline(always)]
    pub fn is_closed(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & CLOSED != 0
    }

    /// Whether the loop is neither closed nor in debug mode: the case that is to be fast.
    #[inline(always)]
    pub(super) fn is_plain(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & (CLOSED | DEBUG) == 0
    }

    /// # Errors
    /// `RuntimeError`: the loop is closed.
    #[inline]
    pub fn check_closed(&self, py: Python<'_>) -> Result<(), Raised> {
        if self.is_closed() { Err(self.closed(py)) } else { Ok(()) }
    }

    #[cold]
    fn closed(&self, py: Python<'_>) -> Raised {
        Raised::new::<PyRuntimeError>(py, "Event loop is closed")
    }

    /// Whether `stop` was called.
    #[inline(always)]
    pub(super) fn is_stopping(&self) -> bool {
        self.flags.load(Ordering::SeqCst) & STOPPING != 0
    }

    /// Counts an entry that begins to run.
    #[inline(always)]
    pub(super) fn beat(&self) {
        self.beats.store(self.beats.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// Whether the loop runs, in this process.
    pub fn is_running(&self) -> bool {
        self.thread.load(Ordering::Relaxed) != 0 && self.generation.load(Ordering::Relaxed) == park::generation()
    }

    /// Whether the calling thread runs the loop.
    #[cfg(not(Py_3_14))]
    pub fn runs_here(&self) -> bool {
        self.thread.load(Ordering::Relaxed) == gate::current_thread() as usize && self.is_running()
    }

    fn set_flag(&self, flag: u32, on: bool) {
        if on {
            self.flags.fetch_or(flag, Ordering::SeqCst);
        } else {
            self.flags.fetch_and(!flag, Ordering::SeqCst);
        }
    }

    /// Gives the child of a fork descriptors of its own: those that it inherited are its parent's, too.
    ///
    /// # Errors
    /// `OSError`: too many open files.
    #[inline]
    pub(super) fn check_fork(&self, py: Python<'_>) -> Result<(), Raised> {
        let generation = park::generation();
        if self.generation.load(Ordering::Relaxed) == generation { Ok(()) } else { self.renew(py, generation) }
    }

    #[cold]
    fn renew(&self, py: Python<'_>, generation: u32) -> Result<(), Raised> {
        let renew = || {
            let mut state = self.state.hold(py);
            if let Some(poller) = &mut state.poller {
                poller.renew()?;
                let bell = Bell::new()?;
                poller.hear(&bell)?;
                *self.bell.lock() = Some(bell);
            }
            Ok(())
        };
        renew().map_err(|error| system_error(py, error))?;
        self.thread.store(0, Ordering::Relaxed);
        self.generation.store(generation, Ordering::Relaxed);
        Ok(())
    }
}

/// Reports what went wrong in something that `event_loop`, of any kind, ran: `call_exception_handler(context)`.
///
/// # Errors
/// `KeyboardInterrupt` and `SystemExit` out of the handler.
pub fn report(event_loop: &Bound<'_, PyAny>, context: &Bound<'_, PyDict>) -> Result<(), Raised> {
    let py = event_loop.py();
    let reported = event_loop.call_method1(intern!(py, "call_exception_handler"), (context,));
    reported.map(drop).map_err(|error| Raised::from_err(py, error))
}

#[pymethods]
impl Loop {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs), text_signature = "()")]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        let mut poller = Poller::new()?;
        let bell = Bell::new()?;
        poller.hear(&bell)?;
        Ok(Self {
            gc_ready: GcReady::new(),
            flags: AtomicU32::new(0),
            thread: AtomicUsize::new(0),
            generation: AtomicU32::new(park::generation()),
            state: Attached::new(State {
                ready: Ready::default(),
                timers: Timers::default(),
                pace: Pace::default(),
                focus: Focus::default(),
                poller: Some(poller),
            }),
            slumber: Slumber::default(),
            beats: AtomicUsize::new(0),
            bell: Guarded::new(Some(bell)),
            tasks: Held::default(),
            factory: Attached::new(None),
            #[cfg(not(Py_3_14))]
            place: Attached::new(super::current::Place::default()),
        })
    }

    #[getter(_debug)]
    fn debug(&self) -> bool {
        self.is_debug()
    }

    #[setter(_debug)]
    fn set_debug(&self, enabled: &Bound<'_, PyAny>) -> PyResult<()> {
        self.set_flag(DEBUG, enabled.is_truthy()?);
        Ok(())
    }

    #[getter(_checks)]
    fn has_checks(&self) -> bool {
        self.checks()
    }

    #[setter(_checks)]
    fn set_checks(&self, enabled: bool) {
        self.set_flag(CHECKS, enabled);
    }

    #[getter(_task_factory)]
    fn task_factory<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let factory = self.factory.with(py, |factory| factory.as_ref().map(|factory| factory.clone_ref(py)));
        factory.map(|factory| factory.into_bound(py))
    }

    #[setter(_task_factory)]
    fn set_task_factory(&self, py: Python<'_>, factory: Option<Bound<'_, PyAny>>) {
        let factory = factory.map(Obj::from);
        let stale = self.factory.with(py, |known| std::mem::replace(known, factory));
        drop(stale);
    }

    #[getter(_closed)]
    fn closed_flag(&self) -> bool {
        self.is_closed()
    }

    #[setter(_closed)]
    fn set_closed(&self, closed: bool) {
        self.set_flag(CLOSED, closed);
    }

    #[getter(_stopping)]
    fn stopping(&self) -> bool {
        self.is_stopping()
    }

    #[setter(_stopping)]
    fn set_stopping(&self, stopping: bool) {
        self.set_flag(STOPPING, stopping);
    }

    /// The identity of the thread that runs the loop, None if it does not run.
    #[getter(_thread_id)]
    fn thread_id(&self) -> Option<usize> {
        self.is_running().then(|| self.thread.load(Ordering::Relaxed))
    }

    #[setter(_thread_id)]
    fn set_thread_id(&self, py: Python<'_>, thread: Option<usize>) -> PyResult<()> {
        self.check_fork(py).map_err(|raised| raised.fetch(py))?;
        self.thread.store(thread.unwrap_or(0), Ordering::Relaxed);
        Ok(())
    }

    /// Whether somebody watches `fd`: for reading, for writing.
    fn _watched(&self, py: Python<'_>, fd: RawFd) -> (bool, bool) {
        let state = self.state.hold(py);
        let watched = |interest| state.poller.as_ref().is_some_and(|poller| poller.watcher(fd, interest).is_some());
        (watched(Interest::Read), watched(Interest::Write))
    }

    /// Lets everything go that waits to run or watches a descriptor, and the loop's own descriptors.
    fn _release(&self, py: Python<'_>) {
        let mut state = self.state.hold(py);
        let (ready, timers) = (state.ready.clear(), state.timers.clear());
        let watchers = state.poller.as_mut().map(Poller::clear);
        let poller = state.poller.take();
        drop(state);
        let bell = self.bell.lock().take();
        timers.iter().for_each(|entry| handle::unschedule(&entry.object));
        drop((ready, timers, watchers, poller, bell));
        self.tasks.clear(py);
    }

    /// A number that differs from the last one if the loop has moved since, for a watchdog in another thread; `None` while
    /// the loop sleeps or does not run.
    fn _pulse(&self) -> Option<usize> {
        let awake = self.thread.load(Ordering::Relaxed) != 0 && !self.slumber.is_asleep();
        awake.then(|| self.beats.load(Ordering::Relaxed))
    }

    /// Runs turns until `stop` is called.
    fn _run(slf: &Bound<'_, Self>) -> PyResult<()> {
        super::turn::run(slf)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if !self.gc_ready.is_ready() {
            return Ok(());
        }
        self.tasks.visit(&visit)?;
        self.factory.traverse(|factory| factory.as_ref().map_or(Ok(()), |factory| factory.visit(&visit)))?;
        let Some(state) = self.state.peek() else { return Ok(()) };
        let watchers = state.poller.iter().flat_map(Poller::iter);
        state.ready.iter().chain(state.timers.iter()).chain(watchers).try_for_each(|entry| entry.object.visit(&visit))
    }

    fn __clear__(&self, py: Python<'_>) {
        self._release(py);
        self.set_task_factory(py, None);
    }
}

fn time(_this: This<'_, '_, Loop>) -> RawResult {
    // SAFETY: the thread is attached.
    let time = unsafe { ffi::PyFloat_FromDouble(seconds(Loop::now())) };
    if time.is_null() { Err(Raised) } else { Ok(time) }
}

/// Nanoseconds as Python has them: seconds.
#[inline(always)]
pub(super) fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

fn stop(this: This<'_, '_, Loop>) -> RawResult {
    this.set_flag(STOPPING, true);
    this.ring();
    Ok(raw::none())
}

fn is_running(this: This<'_, '_, Loop>) -> RawResult {
    Ok(raw::bool(this.is_running()))
}

fn is_closed(this: This<'_, '_, Loop>) -> RawResult {
    Ok(raw::bool(this.is_closed()))
}

fn get_debug(this: This<'_, '_, Loop>) -> RawResult {
    Ok(raw::bool(this.is_debug()))
}

fn check_closed(this: This<'_, '_, Loop>) -> RawResult {
    this.check_closed(this.py())?;
    Ok(raw::none())
}

fn write_to_self(this: This<'_, '_, Loop>) -> RawResult {
    this.ring();
    Ok(raw::none())
}

/// Runs an object with the methods of a handle in the next turn.
fn add_callback(this: This<'_, '_, Loop>, args: Args<'_>) -> RawResult {
    let [handle] = args.parse(this.py(), "_add_callback", [c"handle"], 1)?;
    // SAFETY: an argument is live.
    this.push(this.py(), handle::entry_of(unsafe { Obj::from_borrowed(handle) }));
    Ok(raw::none())
}

methods! { add_methods for Loop {
    "time" => noargs time, "($self, /)\n--\n\nThe loop's clock: seconds, monotonic.";
    "stop" => noargs stop, "($self, /)\n--\n\nEnd `run_forever` after this turn.";
    "is_running" => noargs is_running, "($self, /)\n--\n\nWhether the loop runs.";
    "is_closed" => noargs is_closed, "($self, /)\n--\n\nWhether the loop was closed.";
    "get_debug" => noargs get_debug, "($self, /)\n--\n\nWhether debug mode is on.";
    "_check_closed" => noargs check_closed, "($self, /)\n--\n\n";
    "_write_to_self" => noargs write_to_self, "($self, /)\n--\n\n";
    "_add_callback" => keywords add_callback, "($self, handle, /)\n--\n\n";
} }

/// Adds what PyO3 does not to the class.
pub fn finish(py: Python<'_>) -> PyResult<()> {
    CLASS.store(py.get_type::<Loop>().as_type_ptr() as usize, Ordering::Relaxed);
    add_methods(py)?;
    super::scheduling::add_methods(py)?;
    super::watching::add_methods(py)
}
