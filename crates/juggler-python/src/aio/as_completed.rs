//! `asyncio.as_completed`: awaitables in the order in which they end.
//!
//! As in the standard library, what has ended goes into a queue, by a callback, and who waits takes it out there; `None` in
//! the queue says that the time was over.
//!
//! Since 3.13 the object is an iterator and an asynchronous iterator, and begins when it is made. Before, it was a generator,
//! which begins when it is first asked for something; this one has a generator's methods then.
#![allow(unsafe_code)]

use super::any_future;
#[cfg(not(Py_3_13))]
use super::awaiting;
use super::current;
use super::stdlib::{GET_EVENT_LOOP, Import};
use super::sync::coroutine;
use super::sync::operation::{Ending, Next, Operation, Step};
use super::sync::queue;
use super::sync::reference::Ref;
use crate::attached::Attached;
use crate::obj::Obj;
use crate::raw::{Raised, This};
use pyo3::exceptions::{PyStopAsyncIteration, PyTimeoutError, PyTypeError};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::PySet;

/// Awaitables that are given out as they end.
#[pyclass(frozen, weakref, module = "juggler.asyncio", name = "_AsCompletedIterator")]
pub struct AsCompleted {
    /// What has ended and was not given out.
    done: Ref<queue::Queue>,
    fields: Attached<Fields>,
}

struct Fields {
    /// The arguments, until it begins.
    given: Option<(Obj, Option<Obj>)>,
    /// A set: the futures that have not ended.
    todo: Option<Obj>,
    /// How many have not been asked for.
    left: usize,
    /// The task that asked for it.
    asker: Option<Obj>,
    /// The handle of the timer.
    timer: Option<Obj>,
}

type Iterating<'a, 'py> = This<'a, 'py, AsCompleted>;

fn receiver<'a, 'py>(object: &'a Bound<'py, AsCompleted>) -> Iterating<'a, 'py> {
    // SAFETY: it is what its type says, and lives as long.
    unsafe { This::new(object.py(), object.as_ptr()) }
}

fn object_of(this: Iterating<'_, '_>) -> Obj {
    // SAFETY: the receiver is live.
    unsafe { Obj::from_borrowed(this.as_any().as_ptr()) }
}

/// The task that waits for those that `object`, an iterator, gives out.
pub fn asker(py: Python<'_>, object: &Obj) -> Option<Obj> {
    let object = object.bind(py);
    let iterator = object.cast::<AsCompleted>().ok()?;
    iterator.get().fields.with(py, |fields| fields.asker.as_ref().map(|task| task.clone_ref(py)))
}

/// The futures of a set, which nobody else may change meanwhile.
fn members(set: &Obj, py: Python<'_>) -> PyResult<Vec<Obj>> {
    Ok(set.bind(py).cast::<PySet>()?.iter().map(Obj::from).collect())
}

impl AsCompleted {
    fn todo(&self, py: Python<'_>) -> Option<Obj> {
        self.fields.with(py, |fields| fields.todo.as_ref().map(|todo| todo.clone_ref(py)))
    }

    /// Takes note that one more was asked for; `false` if there is none left.
    fn take_one(&self, py: Python<'_>) -> bool {
        self.fields.with(py, |fields| {
            let any = fields.left > 0;
            fields.left -= usize::from(any);
            any
        })
    }
}

/// Makes futures of what was given, and has them tell when they are done. Does nothing the second time.
fn begin(this: Iterating<'_, '_>) -> PyResult<()> {
    let py = this.py();
    let Some((awaitables, timeout)) = this.fields.with(py, |fields| fields.given.take()) else { return Ok(()) };
    let fetch = |raised: Raised| raised.fetch(py);
    check(&awaitables.bind(py))?;
    let event_loop: Obj = match current::running_loop(py).map_err(fetch)? {
        Some(event_loop) => event_loop,
        None => GET_EVENT_LOOP.get(py)?.call0()?.into(),
    };
    // Whoever waits is asked for since 3.14, and refused where nobody can wait.
    #[cfg(Py_3_14)]
    let asker = {
        static CURRENT_TASK: Import = Import::new("asyncio.tasks", "current_task");
        Some(CURRENT_TASK.get(py)?.call0()?).filter(|task| !task.is_none()).map(Obj::from)
    };
    #[cfg(not(Py_3_14))]
    let asker = None;
    let different: Obj = py.get_type::<PySet>().call1((awaitables.bind(py),))?.into();
    let todo = PySet::empty(py)?;
    for awaitable in members(&different, py)? {
        todo.add(any_future::ensure(py, &awaitable, Some(&event_loop)).map_err(fetch)?.into_bound(py))?;
    }
    let todo: Obj = todo.into_any().into();
    let futures = members(&todo, py)?;
    let stale = this.fields.with(py, |fields| {
        fields.left = futures.len();
        (fields.todo.replace(todo), std::mem::replace(&mut fields.asker, asker))
    });
    drop(stale);
    let object = object_of(this);
    let subscribed = futures.iter().try_for_each(|future| any_future::subscribe(py, future, &object, completed));
    subscribed.map_err(fetch)?;
    if let Some(timeout) = timeout
        && !futures.is_empty()
    {
        let expire = this.as_any().getattr(intern!(py, "_handle_timeout"))?;
        let timer = event_loop.bind(py).call_method1(intern!(py, "call_later"), (timeout.bind(py), expire))?;
        this.fields.with(py, |fields| fields.timer = Some(timer.into()));
    }
    Ok(())
}

/// Refuses what is no iterable of awaitables, but one awaitable.
fn check(awaitables: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = awaitables.py();
    #[cfg(Py_3_13)]
    let (is_one, expected) = {
        static IS_AWAITABLE: Import = Import::new("inspect", "isawaitable");
        (IS_AWAITABLE.get(py)?.call1((awaitables,))?.is_truthy()?, "expects an iterable of awaitables")
    };
    #[cfg(not(Py_3_13))]
    let (is_one, expected) = {
        static IS_FUTURE: Import = Import::new("asyncio.futures", "isfuture");
        let is_future = IS_FUTURE.get(py)?.call1((awaitables,))?.is_truthy()?;
        let is_one = is_future || super::stdlib::IS_COROUTINE.get(py)?.call1((awaitables,))?.is_truthy()?;
        (is_one, "expect an iterable of futures")
    };
    if is_one {
        return Err(PyTypeError::new_err(format!("{expected}, not {}", awaitables.get_type().name()?)));
    }
    Ok(())
}

/// One of the futures is done.
fn completed(py: Python<'_>, iterator: &Obj, future: &Obj) -> Result<(), Raised> {
    let object = iterator.bind(py);
    let this = object.cast::<AsCompleted>().map_err(|error| Raised::from_err(py, error.into()))?;
    let this = receiver(&this);
    let Some(todo) = this.todo(py) else { return Ok(()) };
    // SAFETY: a set and a live object.
    match unsafe { ffi::PySet_Discard(todo.as_ptr(), future.as_ptr()) } {
        1 => {}
        // The time was over before.
        0 => return Ok(()),
        _ => return Err(Raised),
    }
    this.done.get(py).put_nowait(py, future.clone_ref(py))?;
    // SAFETY: a set.
    if unsafe { ffi::PySet_Size(todo.as_ptr()) } == 0
        && let Some(timer) = this.fields.with(py, |fields| fields.timer.take())
    {
        timer.bind(py).call_method0(intern!(py, "cancel")).map_err(|error| Raised::from_err(py, error))?;
    }
    Ok(())
}

/// The wait for the next one.
pub struct WaitForOne {
    iterator: Obj,
    get: queue::Get,
    /// Whether the future itself is wanted, or its result.
    wants_future: bool,
}

impl WaitForOne {
    fn create<'py>(this: Iterating<'_, 'py>, wants_future: bool) -> PyResult<Bound<'py, PyAny>> {
        let py = this.py();
        let get = queue::Get(this.done.clone_ref(py));
        let made = coroutine::create(py, Self { iterator: object_of(this), get, wants_future });
        let made = made.and_then(super::callback::owned);
        made.map(|made| made.into_bound(py)).map_err(|raised| raised.fetch(py))
    }

    /// Goes on with what comes out of the queue.
    fn arrive(&self, py: Python<'_>, next: Next) -> Next {
        match next {
            // SAFETY: `None` always exists.
            Ok(Step::Done(future)) if future.as_ptr() == unsafe { ffi::Py_None() } => {
                Err(Raised::from_err(py, PyTimeoutError::new_err(())))
            }
            Ok(Step::Done(future)) if self.wants_future => Ok(Step::Done(future)),
            Ok(Step::Done(future)) => any_future::result(py, &future).map(Step::Done),
            Ok(waiting) => Ok(waiting),
            Err(raised) => Err(self.give_back(py, raised)),
        }
    }

    /// The wait came to nothing: in newer releases, the next one may have what was waited for.
    #[cold]
    fn give_back(&self, py: Python<'_>, raised: Raised) -> Raised {
        let error = raised.fetch(py);
        match gives_back(py) {
            Ok(true) => {
                if let Ok(iterator) = self.iterator.bind(py).cast::<AsCompleted>() {
                    iterator.get().fields.with(py, |fields| fields.left += 1);
                }
                Raised::from_err(py, error)
            }
            Ok(false) => Raised::from_err(py, error),
            Err(error) => Raised::from_err(py, error),
        }
    }
}

/// Whether the standard library's iterator counts those that it waited for in vain among those that are left.
#[cfg(Py_3_13)]
fn gives_back(py: Python<'_>) -> PyResult<bool> {
    static ANSWER: pyo3::sync::PyOnceLock<bool> = pyo3::sync::PyOnceLock::new();
    let answer = ANSWER.get_or_try_init(py, || {
        let class = py.import("asyncio.tasks")?.getattr("_AsCompletedIterator")?;
        let names = class.getattr("_wait_for_one")?.getattr("__code__")?.getattr("co_names")?;
        names.contains("_todo_left")
    });
    answer.copied()
}

#[cfg(not(Py_3_13))]
fn gives_back(_py: Python<'_>) -> PyResult<bool> {
    Ok(false)
}

impl Operation for WaitForOne {
    fn begin(&mut self, py: Python<'_>) -> Next {
        if self.wants_future {
            let object = self.iterator.bind(py);
            let iterator = object.cast::<AsCompleted>().map_err(|error| Raised::from_err(py, error.into()))?;
            if !iterator.get().take_one(py) {
                return Err(Raised::from_err(py, PyStopAsyncIteration::new_err(())));
            }
        }
        let next = self.get.begin(py);
        self.arrive(py, next)
    }

    fn resume(&mut self, py: Python<'_>, future: &Obj, ending: Ending) -> Next {
        let next = self.get.resume(py, future, ending);
        self.arrive(py, next)
    }

    fn name(&self) -> &'static str {
        if self.wants_future {
            "_AsCompletedIterator.__anext__"
        } else if cfg!(Py_3_13) {
            "_AsCompletedIterator._wait_for_one"
        } else {
            "as_completed.<locals>._wait_for_one"
        }
    }

    fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.iterator.visit(visit)?;
        self.get.visit(visit)
    }
}

#[pymethods]
impl AsCompleted {
    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__<'py>(slf: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let this = receiver(slf);
        begin(this)?;
        if this.take_one(slf.py()) { WaitForOne::create(this, false).map(Some) } else { Ok(None) }
    }

    #[cfg(Py_3_13)]
    fn __aiter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[cfg(Py_3_13)]
    fn __anext__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        WaitForOne::create(receiver(slf), true)
    }

    /// Go on; as a generator's `send`.
    #[cfg(not(Py_3_13))]
    #[pyo3(signature = (value, /))]
    fn send<'py>(slf: &Bound<'py, Self>, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        if !value.is_none() && slf.get().fields.with(py, |fields| fields.given.is_some()) {
            return Err(PyTypeError::new_err("can't send non-None value to a just-started generator"));
        }
        Self::__next__(slf)?.ok_or_else(|| pyo3::exceptions::PyStopIteration::new_err(()))
    }

    /// Raise an exception, which ends the iteration; as a generator's `throw`.
    #[cfg(not(Py_3_13))]
    #[pyo3(signature = (kind, value=None, traceback=None, /))]
    fn throw<'py>(
        &self,
        kind: Bound<'py, PyAny>,
        value: Option<Bound<'py, PyAny>>,
        traceback: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.close(kind.py());
        Err(awaiting::thrown(kind, value, traceback)?)
    }

    /// End the iteration; as a generator's `close`.
    #[cfg(not(Py_3_13))]
    fn close(&self, py: Python<'_>) {
        let stale = self.fields.with(py, |fields| {
            fields.left = 0;
            fields.given.take()
        });
        drop(stale);
    }

    /// The time is over: whoever waits, and whoever will, is told so.
    fn _handle_timeout(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let this = receiver(slf);
        let Some(todo) = this.todo(py) else { return Ok(()) };
        let object = object_of(this);
        for future in members(&todo, py)? {
            let told = any_future::unsubscribe(py, &future, &object, completed)
                .and_then(|()| this.done.get(py).put_nowait(py, super::future::none()));
            told.map_err(|raised| raised.fetch(py))?;
        }
        todo.bind(py).cast::<PySet>()?.clear();
        Ok(())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.done.as_obj().visit(&visit)?;
        self.fields.traverse(|fields| {
            if let Some((awaitables, timeout)) = &fields.given {
                awaitables.visit(&visit)?;
                timeout.iter().try_for_each(|timeout| timeout.visit(&visit))?;
            }
            let objects = fields.todo.iter().chain(&fields.asker).chain(&fields.timer);
            objects.into_iter().try_for_each(|object| object.visit(&visit))
        })
    }

    fn __clear__(&self, py: Python<'_>) {
        let stale = self
            .fields
            .with(py, |fields| (fields.given.take(), fields.todo.take(), fields.asker.take(), fields.timer.take()));
        drop(stale);
    }
}

/// Iterate over awaitables as they end; as `asyncio.as_completed`.
///
/// Coroutines become tasks. Before CPython 3.13, the awaitables are looked at, and the time begins, when the iteration does.
///
/// Args:
///     fs: what to await, all at once.
///     timeout: how many seconds it may take; None: without end.
///
/// Returns:
///     An iterator: ``for`` gives coroutines, which give the results in the order in which they come. Since CPython 3.13,
///     ``async for`` gives the futures and tasks that are done, in the same order.
#[pyfunction]
#[pyo3(signature = (fs, *, timeout=None))]
pub fn as_completed<'py>(
    fs: Bound<'py, PyAny>,
    timeout: Option<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, AsCompleted>> {
    let py = fs.py();
    let given = Some((fs.into(), timeout.map(Obj::from)));
    let fields = Fields { given, todo: None, left: 0, asker: None, timer: None };
    let done = queue::Queue::create(py)?;
    let iterator = Bound::new(py, AsCompleted { done, fields: Attached::new(fields) })?;
    if cfg!(Py_3_13) {
        begin(receiver(&iterator))?;
    }
    Ok(iterator)
}
