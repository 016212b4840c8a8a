//! `asyncio.Condition`.

use super::coroutine;
use super::leave::{Held, Leave};
use super::lock::{self, Lock};
use super::operation::{self, Ending, Next, Operation, Step};
use super::parking;
use super::plain;
use super::reference::Ref;
use super::running::LoopBound;
use super::waiters::Lane;
use crate::attached::Attached;
use crate::gc::Ready;
use crate::obj::Obj;
use crate::raw::{self, Args, Raised, RawResult, This, methods};
use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::{PyDict, PyTuple};

/// A condition that tasks of a loop wait for, holding a lock.
///
/// Stands in for `asyncio.Condition`. `notify` wakes those who wait in the order in which they came; each goes on when it has
/// the lock again. If a task is cancelled that was notified, another one is notified in its place. Not for use between
/// threads.
///
/// Args:
///     lock: the lock to use, anything with `acquire`, `release` and `locked` as of a `Lock`; by default a new `Lock`.
#[pyclass(frozen, subclass, extends = LoopBound, module = "asyncio.locks")]
pub struct Condition {
    ready: Ready,
    /// None before `__init__`.
    lock: Attached<Option<Underlying>>,
    waiters: Lane,
}

/// The lock of a condition.
enum Underlying {
    /// One of ours that no program has changed.
    Native(Ref<Lock>),
    Other(Obj),
}

impl Underlying {
    fn object(&self) -> &Obj {
        match self {
            Self::Native(lock) => lock.as_obj(),
            Self::Other(lock) => lock,
        }
    }

    fn clone_ref(&self, py: Python<'_>) -> Self {
        match self {
            Self::Native(lock) => Self::Native(lock.clone_ref(py)),
            Self::Other(lock) => Self::Other(lock.clone_ref(py)),
        }
    }

    fn call<'py>(&self, py: Python<'py>, method: &str) -> PyResult<Bound<'py, PyAny>> {
        self.object().bind(py).call_method0(method)
    }

    fn is_locked(&self, py: Python<'_>) -> Result<bool, Raised> {
        match self {
            Self::Native(lock) => Ok(lock.get(py).is_locked(py)),
            Self::Other(_) => self
                .call(py, "locked")
                .and_then(|locked| locked.is_truthy())
                .map_err(|error| Raised::from_err(py, error)),
        }
    }
}

impl Condition {
    fn lock(&self, py: Python<'_>) -> Result<Underlying, Raised> {
        match self.lock.with(py, |lock| lock.as_ref().map(|lock| lock.clone_ref(py))) {
            Some(lock) => Ok(lock),
            None => Err(Raised::new::<PyRuntimeError>(py, "Condition.__init__() was not called")),
        }
    }

    /// Wakes the first `count` who wait, whether the lock is held or not.
    fn wake(&self, py: Python<'_>, count: usize) -> Result<(), Raised> {
        self.waiters.wake(py, count).map(drop)
    }

    fn notify(&self, py: Python<'_>, count: usize) -> Result<(), Raised> {
        if !self.lock(py)?.is_locked(py)? {
            return Err(Raised::new::<PyRuntimeError>(py, "cannot notify on un-acquired lock"));
        }
        self.wake(py, count)
    }
}

/// `Condition.wait()`, with a native lock.
pub struct Wait {
    condition: Ref<Condition>,
    lock: Ref<Lock>,
    /// Acquiring the lock again, once the wait itself is over.
    acquiring: Option<lock::Acquire>,
    /// What is to be raised when the lock is held again.
    error: Option<Obj>,
}

impl Wait {
    fn new(py: Python<'_>, condition: &Ref<Condition>, lock: &Ref<Lock>) -> Self {
        Self { condition: condition.clone_ref(py), lock: lock.clone_ref(py), acquiring: None, error: None }
    }

    /// Acts on what acquiring the lock again came to.
    fn acquire(&mut self, py: Python<'_>, mut acquiring: lock::Acquire, mut next: Next) -> Next {
        loop {
            match next {
                Ok(waiting @ (Step::Await(_) | Step::Delegate(_))) => {
                    self.acquiring = Some(acquiring);
                    return Ok(waiting);
                }
                Ok(Step::Done(_)) => break,
                Err(raised) => {
                    let error = operation::caught(py, raised);
                    let is_cancellation = operation::is_cancellation(py, &error)?;
                    self.error = Some(error);
                    if !is_cancellation {
                        break;
                    }
                    // The lock must be held at the end, however often the task is cancelled.
                    next = acquiring.begin(py);
                }
            }
        }
        match self.error.take() {
            None => Ok(operation::yes(py)),
            Some(error) => {
                // It may have been notified, which somebody else is to know then.
                self.condition.get(py).wake(py, 1)?;
                Err(operation::raise(py, error))
            }
        }
    }
}

impl Operation for Wait {
    fn begin(&mut self, py: Python<'_>) -> Next {
        let (condition, lock) = (self.condition.get(py), self.lock.get(py));
        if !lock.is_locked(py) {
            return Err(Raised::new::<PyRuntimeError>(py, "cannot wait on un-acquired lock"));
        }
        let running = LoopBound::of(condition)?;
        let future = parking::create(py, &running)?;
        lock.release(py)?;
        condition.waiters.get_or_make(py)?.push(py, future.clone_ref(py));
        Ok(Step::Await(future))
    }

    fn resume(&mut self, py: Python<'_>, future: &Obj, ending: Ending) -> Next {
        if let Some(mut acquiring) = self.acquiring.take() {
            let next = acquiring.resume(py, future, ending);
            return self.acquire(py, acquiring, next);
        }
        self.condition.get(py).waiters.take(py, future);
        if let Ending::Thrown(error) = ending {
            self.error = Some(error);
        }
        let mut acquiring = lock::Acquire::new(self.lock.clone_ref(py), false);
        let next = acquiring.begin(py);
        self.acquire(py, acquiring, next)
    }

    fn name(&self) -> &'static str {
        "Condition.wait"
    }

    fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.condition.as_obj().visit(visit)?;
        self.lock.as_obj().visit(visit)?;
        self.acquiring.as_ref().map_or(Ok(()), |acquiring| acquiring.visit(visit))?;
        self.error.as_ref().map_or(Ok(()), |error| error.visit(visit))
    }
}

/// `Condition.wait_for(predicate)`, with a native lock.
pub struct WaitFor {
    predicate: Obj,
    wait: Wait,
}

impl WaitFor {
    /// Goes on after a wait, or before the first.
    fn check(&mut self, py: Python<'_>, mut next: Option<Next>) -> Next {
        loop {
            match next {
                None | Some(Ok(Step::Done(_))) => {}
                Some(waits) => return waits,
            }
            let result = self.predicate.bind(py).call0().and_then(|result| Ok((result.is_truthy()?, result)));
            match result {
                Ok((true, result)) => return Ok(Step::Done(result.into())),
                Ok((false, _)) => next = Some(self.wait.begin(py)),
                Err(error) => return Err(Raised::from_err(py, error)),
            }
        }
    }
}

impl Operation for WaitFor {
    fn begin(&mut self, py: Python<'_>) -> Next {
        self.check(py, None)
    }

    fn resume(&mut self, py: Python<'_>, future: &Obj, ending: Ending) -> Next {
        let next = self.wait.resume(py, future, ending);
        self.check(py, Some(next))
    }

    fn name(&self) -> &'static str {
        "Condition.wait_for"
    }

    fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.predicate.visit(visit)?;
        self.wait.visit(visit)
    }
}

#[pymethods]
impl Condition {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs), text_signature = "(lock=None)")]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> PyClassInitializer<Self> {
        let condition = Self { ready: Ready::new(), lock: Attached::new(None), waiters: Lane::new() };
        PyClassInitializer::from(LoopBound::new()).add_subclass(condition)
    }

    #[pyo3(signature = (lock=None))]
    fn __init__(&self, py: Python<'_>, lock: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        let lock = match lock {
            Some(lock) => lock,
            None => py.get_type::<Lock>().call0()?,
        };
        let lock = match Ref::of_plain(&lock) {
            Some(native) => Underlying::Native(native),
            None => Underlying::Other(lock.into()),
        };
        let before = self.lock.with(py, |place| place.replace(lock));
        drop(before);
        Ok(())
    }

    /// The lock.
    #[getter(_lock)]
    fn underlying<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let lock = self.lock(py).map_err(|raised| raised.fetch(py))?;
        Ok(lock.object().bind(py).to_owned())
    }

    /// Those who wait, as futures. Programs look at it.
    #[getter(_waiters)]
    fn waiters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.waiters.exposed(py)
    }

    fn _notify(&self, py: Python<'_>, n: usize) -> PyResult<()> {
        self.wake(py, n).map_err(|raised| raised.fetch(py))
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let py = slf.py();
        let this = slf.get();
        let is_locked = this.lock(py).and_then(|lock| lock.is_locked(py)).map_err(|raised| raised.fetch(py))?;
        let state = if is_locked { "locked" } else { "unlocked" };
        super::described(slf.as_any(), state, &this.waiters.described(py))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if !self.ready.is_ready() {
            return Ok(());
        }
        self.waiters.visit(&visit)?;
        self.lock.traverse(|lock| lock.as_ref().map_or(Ok(()), |lock| lock.object().visit(&visit)))
    }

    fn __clear__(&self, py: Python<'_>) {
        let lock = self.lock.with(py, Option::take);
        drop(lock);
    }
}

fn locked(this: This<'_, '_, Condition>) -> RawResult {
    let py = this.py();
    Ok(raw::bool(this.lock(py)?.is_locked(py)?))
}

fn acquire(this: This<'_, '_, Condition>) -> RawResult {
    let py = this.py();
    match this.lock(py)? {
        Underlying::Native(lock) => coroutine::create(py, lock::Acquire::new(lock, false)),
        other => plain::to_raw(py, other.call(py, "acquire")),
    }
}

fn release(this: This<'_, '_, Condition>) -> RawResult {
    let py = this.py();
    match this.lock(py)? {
        Underlying::Native(lock) => lock.get(py).release(py).map(|()| raw::none()),
        other => plain::to_raw(py, other.call(py, "release")),
    }
}

fn enter(this: This<'_, '_, Condition>) -> RawResult {
    let py = this.py();
    match this.lock(py)? {
        Underlying::Native(lock) if plain::is_plain(this) => coroutine::create(py, lock::Acquire::new(lock, true)),
        _ => plain::call(py, "enter", (this.as_any(),)),
    }
}

fn leave(this: This<'_, '_, Condition>, _args: Args<'_>) -> RawResult {
    let py = this.py();
    match this.lock(py)? {
        Underlying::Native(lock) if plain::is_plain(this) => coroutine::create(py, Leave::new(lock)),
        _ => plain::call(py, "leave", (this.as_any(),)),
    }
}

fn wait(this: This<'_, '_, Condition>) -> RawResult {
    let py = this.py();
    match this.lock(py)? {
        Underlying::Native(lock) => coroutine::create(py, Wait::new(py, &Ref::new(this), &lock)),
        Underlying::Other(_) => plain::call(py, "wait", (this.as_any(),)),
    }
}

fn wait_for(this: This<'_, '_, Condition>, args: Args<'_>) -> RawResult {
    let py = this.py();
    let predicate = plain::argument(py, args, "wait_for", c"predicate")?;
    match this.lock(py)? {
        Underlying::Native(lock) if plain::is_plain(this) => {
            let wait = Wait::new(py, &Ref::new(this), &lock);
            coroutine::create(py, Box::new(WaitFor { predicate: predicate.into(), wait }))
        }
        _ => plain::call(py, "wait_for", (this.as_any(), predicate)),
    }
}

fn notify(this: This<'_, '_, Condition>, args: Args<'_>) -> RawResult {
    let py = this.py();
    let count = if args.is_empty() {
        1
    } else {
        let count = plain::argument(py, args, "notify", c"n")?;
        count.extract::<isize>().map_err(|error| Raised::from_err(py, error))?
    };
    Condition::notify(&this, py, usize::try_from(count).unwrap_or(0))?;
    Ok(raw::none())
}

fn notify_all(this: This<'_, '_, Condition>) -> RawResult {
    let py = this.py();
    if !plain::is_plain(this) {
        let count = this.waiters.len(py);
        return plain::to_raw(py, this.as_any().call_method1(intern!(py, "notify"), (count,)));
    }
    Condition::notify(&this, py, this.waiters.len(py))?;
    Ok(raw::none())
}

methods! { add_methods for Condition {
    "locked" => noargs locked, "($self, /)\n--\n\n\
        Whether the lock is taken.";
    "acquire" => noargs acquire, "($self, /)\n--\n\n\
        Take the lock; as `Lock.acquire`. To be awaited.";
    "release" => noargs release, "($self, /)\n--\n\n\
        Give the lock back; as `Lock.release`.";
    "__aenter__" => noargs enter, "($self, /)\n--\n\n\
        Take the lock for the length of an `async with`.";
    "__aexit__" => keywords leave, "($self, /, exc_type, exc, tb)\n--\n\n\
        Give the lock back.";
    "wait" => noargs wait, "($self, /)\n--\n\n\
        Give the lock back, wait to be notified, and take the lock again; as `asyncio.Condition.wait`. To be awaited.\n\
        \n\
        It may return though nobody has notified it: look again at what you wait for.\n\
        \n\
        Returns:\n\
        \x20   True.\n\
        \n\
        Raises:\n\
        \x20   CancelledError: the task was cancelled meanwhile. It holds the lock again.\n\
        \x20   RuntimeError: the lock is free, or others waited on another loop.";
    "wait_for" => keywords wait_for, "($self, /, predicate)\n--\n\n\
        Wait until `predicate()` is true; as `asyncio.Condition.wait_for`. To be awaited.\n\
        \n\
        Args:\n\
        \x20   predicate: is called, holding the lock, before the first wait and after each.\n\
        \n\
        Returns:\n\
        \x20   What `predicate` returned at last.";
    "notify" => keywords notify, "($self, /, n=1)\n--\n\n\
        Wake the first `n` who wait; as `asyncio.Condition.notify`. Never waits.\n\
        \n\
        Args:\n\
        \x20   n: how many to wake at most.\n\
        \n\
        Raises:\n\
        \x20   RuntimeError: the lock is free.";
    "notify_all" => noargs notify_all, "($self, /)\n--\n\n\
        Wake all who wait; as `asyncio.Condition.notify_all`. Never waits.\n\
        \n\
        Raises:\n\
        \x20   RuntimeError: the lock is free.";
} }

/// Adds what PyO3 does not to the class.
pub fn finish(py: Python<'_>) -> PyResult<()> {
    add_methods(py)
}
