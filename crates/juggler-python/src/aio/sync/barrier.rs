//! `asyncio.Barrier`.
//!
//! The standard library's is made of a `Condition` whose lock is never held over an await. What is left without the lock is
//! a line of those who wait for the state to change, and look at it when they are woken.

use super::coroutine;
use super::operation::{self, Ending, Next, Operation, Step};
use super::parking;
use super::plain;
use super::reference::Ref;
use super::running::LoopBound;
use super::waiters::Lane;
use crate::aio::stdlib::Import;
use crate::attached::Attached;
use crate::gc::Ready;
use crate::obj::Obj;
use crate::raw::{Args, Raised, RawResult, This, methods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::{PyDict, PyTuple};

static BROKEN_BARRIER_ERROR: Import = Import::new("asyncio.exceptions", "BrokenBarrierError");

/// A point at which a fixed number of tasks of a loop wait for each other, again and again.
///
/// Stands in for `asyncio.Barrier`. The last to come goes on at once; the others follow in the order in which they came.
/// Who comes for the next round while the tasks of the last one leave waits until all have left. A task that is cancelled
/// while it waits is not counted any more. Not for use between threads.
///
/// Args:
///     parties: how many tasks wait for each other.
///
/// Raises:
///     ValueError: `parties` is below 1.
#[pyclass(frozen, subclass, extends = LoopBound, module = "asyncio.locks")]
pub struct Barrier {
    ready: Ready,
    inside: Attached<Inside>,
    waiters: Lane,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Filling,
    Draining,
    Resetting,
    Broken,
}

#[derive(Clone, Copy)]
struct Inside {
    parties: usize,
    /// The tasks that have come and not left yet.
    count: usize,
    state: State,
}

impl Barrier {
    fn inside(&self, py: Python<'_>) -> Inside {
        self.inside.with(py, |inside| *inside)
    }

    fn state(&self, py: Python<'_>) -> State {
        self.inside(py).state
    }

    fn wake_all(&self, py: Python<'_>) -> Result<(), Raised> {
        self.waiters.wake(py, usize::MAX).map(drop)
    }

    /// Changes the state and tells all.
    fn turn(&self, py: Python<'_>, to: State) -> Result<(), Raised> {
        self.inside.with(py, |inside| inside.state = to);
        self.wake_all(py)
    }

    /// A task that has come leaves.
    fn leave(&self, py: Python<'_>) -> Result<(), Raised> {
        let is_empty = self.inside.with(py, |inside| {
            inside.count -= 1;
            if inside.count == 0 && matches!(inside.state, State::Resetting | State::Draining) {
                inside.state = State::Filling;
            }
            inside.count == 0
        });
        if is_empty { self.wake_all(py) } else { Ok(()) }
    }

    /// Waits for the state to change.
    fn park(this: This<'_, '_, Self>) -> Next {
        let py = this.py();
        let running = LoopBound::of(this)?;
        let future = parking::create(py, &running)?;
        this.waiters.get_or_make(py)?.push(py, future.clone_ref(py));
        Ok(Step::Await(future))
    }
}

/// `Barrier.wait()`, and what `async with` begins with.
pub struct Wait {
    barrier: Ref<Barrier>,
    /// Its number in the round, once it has come.
    index: Option<usize>,
}

impl Wait {
    /// Comes in, unless the last round's tasks are still leaving.
    fn come(&mut self, py: Python<'_>) -> Next {
        let barrier = self.barrier.get(py);
        let Inside { parties, count, state } = barrier.inside(py);
        match state {
            State::Draining | State::Resetting => return Barrier::park(barrier),
            State::Broken => return Err(BROKEN_BARRIER_ERROR.raise(py, ("Barrier aborted",))),
            State::Filling => {}
        }
        barrier.inside.with(py, |inside| inside.count += 1);
        self.index = Some(count);
        if count + 1 == parties {
            barrier.turn(py, State::Draining)?;
            return Self::go(barrier, count);
        }
        match Barrier::park(barrier) {
            Err(raised) => {
                let error = operation::caught(py, raised);
                barrier.leave(py)?;
                Err(operation::raise(py, error))
            }
            parked => parked,
        }
    }

    /// Leaves with a number, if the round ended well.
    fn go(barrier: This<'_, '_, Barrier>, index: usize) -> Next {
        let py = barrier.py();
        let state = barrier.state(py);
        barrier.leave(py)?;
        if matches!(state, State::Broken | State::Resetting) {
            return Err(BROKEN_BARRIER_ERROR.raise(py, ("Abort or reset of barrier",)));
        }
        let index = index.into_pyobject(py).map_err(|never| match never {})?;
        Ok(Step::Done(index.into_any().into()))
    }
}

impl Operation for Wait {
    fn begin(&mut self, py: Python<'_>) -> Next {
        self.come(py)
    }

    fn resume(&mut self, py: Python<'_>, future: &Obj, ending: Ending) -> Next {
        let barrier = self.barrier.get(py);
        barrier.waiters.take(py, future);
        if let Ending::Thrown(error) = ending {
            // It may have been woken, and somebody else is to look at the state then.
            barrier.waiters.wake(py, 1)?;
            if self.index.is_some() {
                barrier.leave(py)?;
            }
            return Err(operation::raise(py, error));
        }
        match self.index {
            None => self.come(py),
            Some(_) if barrier.state(py) == State::Filling => Barrier::park(barrier),
            Some(index) => Self::go(barrier, index),
        }
    }

    fn name(&self) -> &'static str {
        "Barrier.wait"
    }

    fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.barrier.as_obj().visit(visit)
    }
}

/// What ends without waiting.
pub struct Change {
    barrier: Ref<Barrier>,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Reset,
    Abort,
    Leave,
}

impl Operation for Change {
    fn begin(&mut self, py: Python<'_>) -> Next {
        let barrier = self.barrier.get(py);
        match self.kind {
            Kind::Reset => {
                let occupied = barrier.inside(py).count > 0;
                barrier.turn(py, if occupied { State::Resetting } else { State::Filling })?;
            }
            Kind::Abort => barrier.turn(py, State::Broken)?,
            Kind::Leave => {}
        }
        Ok(operation::nothing(py))
    }

    fn resume(&mut self, py: Python<'_>, _future: &Obj, _ending: Ending) -> Next {
        // It never waits.
        Ok(operation::nothing(py))
    }

    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Reset => "Barrier.reset",
            Kind::Abort => "Barrier.abort",
            Kind::Leave => "Barrier.__aexit__",
        }
    }

    fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.barrier.as_obj().visit(visit)
    }
}

#[pymethods]
impl Barrier {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs), text_signature = "(parties)")]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> PyClassInitializer<Self> {
        let inside = Inside { parties: 1, count: 0, state: State::Filling };
        let barrier = Self { ready: Ready::new(), inside: Attached::new(inside), waiters: Lane::new() };
        PyClassInitializer::from(LoopBound::new()).add_subclass(barrier)
    }

    fn __init__(&self, py: Python<'_>, parties: Bound<'_, PyAny>) -> PyResult<()> {
        if parties.lt(1)? {
            return Err(PyValueError::new_err("parties must be >= 1"));
        }
        let parties = parties.extract()?;
        self.inside.with(py, |inside| inside.parties = parties);
        Ok(())
    }

    /// How many tasks wait for each other.
    #[getter]
    fn parties(&self, py: Python<'_>) -> usize {
        self.inside(py).parties
    }

    /// How many tasks wait at this moment.
    #[getter]
    fn n_waiting(&self, py: Python<'_>) -> usize {
        let inside = self.inside(py);
        if inside.state == State::Filling { inside.count } else { 0 }
    }

    /// Whether it was aborted.
    #[getter]
    fn broken(&self, py: Python<'_>) -> bool {
        self.state(py) == State::Broken
    }

    /// The tasks that have come and not left yet. Programs look at it.
    #[getter(_count)]
    fn count(&self, py: Python<'_>) -> usize {
        self.inside(py).count
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let Inside { parties, count, state } = slf.get().inside(slf.py());
        let (name, waiting) = match state {
            State::Filling => ("filling", count),
            State::Draining => ("draining", 0),
            State::Resetting => ("resetting", 0),
            State::Broken => return super::described(slf.as_any(), "broken", ""),
        };
        super::described(slf.as_any(), name, &format!(", waiters:{waiting}/{parties}"))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if self.ready.is_ready() { self.waiters.visit(&visit) } else { Ok(()) }
    }
}

fn wait(this: This<'_, '_, Barrier>) -> RawResult {
    coroutine::create(this.py(), Wait { barrier: Ref::new(this), index: None })
}

fn enter(this: This<'_, '_, Barrier>) -> RawResult {
    if !plain::is_plain(this) {
        return plain::to_raw(this.py(), this.as_any().call_method0("wait"));
    }
    wait(this)
}

fn change(this: This<'_, '_, Barrier>, kind: Kind) -> RawResult {
    coroutine::create(this.py(), Change { barrier: Ref::new(this), kind })
}

fn leave(this: This<'_, '_, Barrier>, _args: Args<'_>) -> RawResult {
    change(this, Kind::Leave)
}

fn reset(this: This<'_, '_, Barrier>) -> RawResult {
    change(this, Kind::Reset)
}

fn abort(this: This<'_, '_, Barrier>) -> RawResult {
    change(this, Kind::Abort)
}

methods! { add_methods for Barrier {
    "wait" => noargs wait, "($self, /)\n--\n\n\
        Wait for the others; as `asyncio.Barrier.wait`. To be awaited.\n\
        \n\
        Returns:\n\
        \x20   A number from 0 to `parties - 1`, another for each task of a round.\n\
        \n\
        Raises:\n\
        \x20   BrokenBarrierError: the barrier was aborted, or reset while this task waited.\n\
        \x20   CancelledError: the task was cancelled while it waited.\n\
        \x20   RuntimeError: it would have to wait, and others did on another loop.";
    "reset" => noargs reset, "($self, /)\n--\n\n\
        Begin anew; those who wait get a `BrokenBarrierError`; as `asyncio.Barrier.reset`. To be awaited.";
    "abort" => noargs abort, "($self, /)\n--\n\n\
        Have all who wait, or will, get a `BrokenBarrierError`; as `asyncio.Barrier.abort`. To be awaited.";
    "__aenter__" => noargs enter, "($self, /)\n--\n\n\
        Wait for the others; gives the number.";
    "__aexit__" => keywords leave, "($self, /, exc_type, exc, tb)\n--\n\n\
        Do nothing.";
} }

/// Adds what PyO3 does not to the class.
pub fn finish(py: Python<'_>) -> PyResult<()> {
    add_methods(py)
}
