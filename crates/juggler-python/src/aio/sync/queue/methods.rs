//! The classes' methods.

use super::super::coroutine;
use super::super::plain::{self, to_raw};
use super::super::reference::Ref;
use super::items::{self, Order};
use super::{Get, HOOKS, Join, LifoQueue, PriorityQueue, Put, Queue};
use crate::obj::Obj;
use crate::queue::overrides;
use crate::raw::{self, Args, Raised, RawResult, This, methods};
use pyo3::exceptions::{PyAttributeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::{PyDict, PyString, PyTuple, PyType};
use std::fmt::Write;

impl Queue {
    /// Moves the items to a Python container, once.
    fn open(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        if this.is_open(py) {
            return Ok(());
        }
        let order = this.inside.with(py, |inside| inside.items.order());
        let container = items::container(py, order, items::listed(py, &this.inside)?)?;
        let before = this.inside.with(py, |inside| {
            inside.is_open = true;
            inside.container = Some(container.into());
            std::mem::replace(&mut inside.items, items::Items::new(order))
        });
        drop(before);
        Ok(())
    }

    /// Whether the class of this object overrides a hook.
    fn is_overridden(slf: &Bound<'_, Self>) -> PyResult<bool> {
        let py = slf.py();
        let class = slf.get_type();
        let base = match slf.get().inside.with(py, |inside| inside.items.order()) {
            Order::Fifo => py.get_type::<Self>(),
            Order::Lifo => py.get_type::<LifoQueue>(),
            Order::Priority => py.get_type::<PriorityQueue>(),
        };
        overrides(&class, &base, &HOOKS)
    }

    fn container<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        Self::open(slf)?;
        let container =
            slf.get().inside.with(py, |inside| inside.container.as_ref().map(|object| object.clone_ref(py)));
        container.map(|object| object.into_bound(py)).ok_or_else(|| PyAttributeError::new_err("_queue"))
    }

    fn set_maxsize_object(&self, maxsize: &Bound<'_, PyAny>) -> PyResult<()> {
        let number = crate::queue::parse_maxsize(maxsize)?;
        let bound = usize::try_from(number).ok().filter(|&bound| bound > 0).unwrap_or(usize::MAX);
        let before = self.inside.with(maxsize.py(), |inside| {
            inside.bound = bound;
            inside.maxsize.replace(maxsize.clone().into())
        });
        drop(before);
        Ok(())
    }
}

#[pymethods]
impl Queue {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs), text_signature = "(maxsize=0)")]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> PyClassInitializer<Self> {
        Self::make(Order::Fifo)
    }

    #[pyo3(signature = (maxsize=None))]
    fn __init__(slf: &Bound<'_, Self>, maxsize: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        if let Some(maxsize) = &maxsize {
            slf.get().set_maxsize_object(maxsize)?;
        }
        if Self::is_overridden(slf)? {
            Self::open(slf)?;
            slf.call_method1(intern!(slf.py(), "_init"), (Self::maxsize(slf)?,))?;
        }
        Ok(())
    }

    /// A hook that is set on a queue opens it.
    fn __setattr__(slf: &Bound<'_, Self>, name: &Bound<'_, PyString>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        if HOOKS.iter().any(|hook| *name == *hook) {
            Self::open(slf)?;
        }
        plain::set_attribute(slf.as_any(), name, Some(value))
    }

    fn __delattr__(slf: &Bound<'_, Self>, name: &Bound<'_, PyString>) -> PyResult<()> {
        plain::set_attribute(slf.as_any(), name, None)
    }

    /// `Queue[int]` in annotations, as in the standard library.
    #[classmethod]
    fn __class_getitem__<'py>(class: &Bound<'py, PyType>, item: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        class.py().import("types")?.call_method1("GenericAlias", (class, item))
    }

    /// The most items it holds, as given; 0 or less is no limit.
    #[getter]
    fn maxsize<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let given = slf.get().inside.with(py, |inside| inside.maxsize.as_ref().map(|object| object.clone_ref(py)));
        match given {
            Some(given) => Ok(given.into_bound(py)),
            None => Ok(0_i64.into_pyobject(py)?.into_any()),
        }
    }

    #[getter(_maxsize)]
    fn private_maxsize<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        Self::maxsize(slf)
    }

    #[setter(_maxsize)]
    fn set_private_maxsize(&self, maxsize: Bound<'_, PyAny>) -> PyResult<()> {
        self.set_maxsize_object(&maxsize)
    }

    #[getter]
    fn _unfinished_tasks(&self, py: Python<'_>) -> i64 {
        self.inside.with(py, |inside| inside.unfinished)
    }

    #[setter(_unfinished_tasks)]
    fn set_unfinished_tasks(&self, py: Python<'_>, unfinished: i64) {
        self.inside.with(py, |inside| inside.unfinished = unfinished);
    }

    #[getter]
    fn _is_shutdown(&self, py: Python<'_>) -> bool {
        self.is_shut_down(py)
    }

    #[setter(_is_shutdown)]
    fn set_is_shutdown(&self, py: Python<'_>, is_shut_down: bool) {
        self.inside.with(py, |inside| inside.is_shut_down = is_shut_down);
    }

    /// The container of the items; asking for it opens the queue.
    #[getter(_queue)]
    fn queue<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        Self::container(slf)
    }

    #[setter(_queue)]
    fn set_queue(slf: &Bound<'_, Self>, container: Bound<'_, PyAny>) -> PyResult<()> {
        Self::open(slf)?;
        let before = slf.get().inside.with(slf.py(), |inside| inside.container.replace(container.into()));
        drop(before);
        Ok(())
    }

    /// Those who wait for an item, as futures. Programs look at it.
    #[getter(_getters)]
    fn getters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.getters.exposed(py)
    }

    /// Those who wait for room, as futures. Programs look at it.
    #[getter(_putters)]
    fn putters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.putters.exposed(py)
    }

    /// The event for which `join` waits.
    #[getter(_finished)]
    fn finished_event<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let finished = self.finished(py).map_err(|raised| raised.fetch(py))?;
        Ok(finished.as_any().clone())
    }

    /// Make the container of an open queue; a subclass may override it.
    #[pyo3(text_signature = "($self, maxsize)")]
    fn _init(slf: &Bound<'_, Self>, _maxsize: Bound<'_, PyAny>) -> PyResult<()> {
        let py = slf.py();
        let order = slf.get().inside.with(py, |inside| inside.items.order());
        Self::set_queue(slf, items::container(py, order, pyo3::types::PyList::empty(py))?)
    }

    /// Put an item into the container of an open queue; a subclass may override it.
    fn _put(slf: &Bound<'_, Self>, item: Bound<'_, PyAny>) -> PyResult<()> {
        Self::container(slf)?.call_method1(intern!(slf.py(), "append"), (item,)).map(drop)
    }

    /// Take an item out of the container of an open queue; a subclass may override it.
    fn _get<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        Self::container(slf)?.call_method0(intern!(slf.py(), "popleft"))
    }

    /// Wake the first of `waiters` that is not cancelled.
    #[staticmethod]
    fn _wakeup_next(waiters: Bound<'_, PyAny>) -> PyResult<()> {
        let py = waiters.py();
        plain::overridden(py)?.call_method1(intern!(py, "wake_next"), (waiters,)).map(drop)
    }

    fn _format(slf: &Bound<'_, Self>) -> PyResult<String> {
        let py = slf.py();
        let this = slf.get();
        let mut text = format!("maxsize={}", Self::maxsize(slf)?.repr()?);
        let items = if this.is_open(py) {
            py.import("builtins")?.call_method1("list", (Self::container(slf)?,))?
        } else {
            items::listed(py, &this.inside)?.into_any()
        };
        if items.len()? > 0 {
            let _ = write!(text, " _queue={}", items.repr()?);
        }
        for (name, lane) in [("_getters", &this.getters), ("_putters", &this.putters)] {
            let waiting = lane.len(py);
            if waiting > 0 {
                let _ = write!(text, " {name}[{waiting}]");
            }
        }
        let (unfinished, is_shut_down) = this.inside.with(py, |inside| (inside.unfinished, inside.is_shut_down));
        if unfinished != 0 {
            let _ = write!(text, " tasks={unfinished}");
        }
        if is_shut_down {
            text.push_str(" shutdown");
        }
        Ok(text)
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let format = slf.call_method0("_format")?;
        Ok(format!("<{} at {:#x} {format}>", slf.get_type().name()?, slf.as_ptr() as usize))
    }

    fn __str__(slf: &Bound<'_, Self>) -> PyResult<String> {
        Ok(format!("<{} {}>", slf.get_type().name()?, slf.call_method0("_format")?))
    }

    /// Mark an item that was got as done; as `asyncio.Queue.task_done`.
    ///
    /// `join` returns when all items that were put are done.
    ///
    /// Raises:
    ///     ValueError: called more often than items were put.
    fn task_done(&self, py: Python<'_>) -> PyResult<()> {
        let (was, left) = self.inside.with(py, |inside| {
            let was = inside.unfinished;
            inside.unfinished -= i64::from(was > 0);
            (was, inside.unfinished)
        });
        match (was, left) {
            (..=0, _) => Err(PyValueError::new_err("task_done() called too many times")),
            (_, 0) => self.finish(py).map_err(|raised| raised.fetch(py)),
            _ => Ok(()),
        }
    }

    /// Have `put` and `get` raise `QueueShutDown`; as `asyncio.Queue.shutdown` of 3.13. Wakes all who wait.
    ///
    /// Args:
    ///     immediate: throw the items away, too; else `get` gives those that are there.
    #[pyo3(signature = (immediate=false))]
    fn shutdown(slf: &Bound<'_, Self>, immediate: bool) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        this.inside.with(py, |inside| inside.is_shut_down = true);
        if immediate {
            if this.is_open(py) {
                plain::overridden(py)?.call_method1("drain", (slf,))?;
            } else {
                let items = this.inside.with(py, |inside| {
                    let order = inside.items.order();
                    let items = std::mem::replace(&mut inside.items, items::Items::new(order));
                    inside.unfinished -= inside.unfinished.clamp(0, items.len() as i64);
                    items
                });
                drop(items);
            }
        }
        let is_finished = immediate && this.inside.with(py, |inside| inside.unfinished == 0);
        let woken = if is_finished { this.finish(py) } else { Ok(()) };
        woken
            .and_then(|()| this.getters.wake_and_clear(py))
            .and_then(|()| this.putters.wake_and_clear(py))
            .map_err(|raised| raised.fetch(py))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if !self.ready.is_ready() {
            return Ok(());
        }
        self.getters.visit(&visit)?;
        self.putters.visit(&visit)?;
        self.finished.get().map_or(Ok(()), |finished| finished.as_obj().visit(&visit))?;
        self.inside.traverse(|inside| {
            inside.items.iter().try_for_each(|item| item.visit(&visit))?;
            [&inside.maxsize, &inside.container].into_iter().flatten().try_for_each(|object| object.visit(&visit))
        })
    }

    fn __clear__(&self, py: Python<'_>) {
        let before = self.inside.with(py, |inside| {
            let order = inside.items.order();
            (std::mem::replace(&mut inside.items, items::Items::new(order)), inside.container.take())
        });
        drop(before);
    }
}

#[pymethods]
impl LifoQueue {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs), text_signature = "(maxsize=0)")]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> PyClassInitializer<Self> {
        Queue::make(Order::Lifo).add_subclass(Self)
    }

    fn _get<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        Queue::container(slf.as_super())?.call_method0(intern!(slf.py(), "pop"))
    }
}

#[pymethods]
impl PriorityQueue {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs), text_signature = "(maxsize=0)")]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> PyClassInitializer<Self> {
        Queue::make(Order::Priority).add_subclass(Self)
    }

    fn _put(slf: &Bound<'_, Self>, item: Bound<'_, PyAny>) -> PyResult<()> {
        let heap = Queue::container(slf.as_super())?;
        slf.py().import("heapq")?.call_method1("heappush", (heap, item)).map(drop)
    }

    fn _get<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let heap = Queue::container(slf.as_super())?;
        slf.py().import("heapq")?.call_method1("heappop", (heap,))
    }
}

fn put(this: This<'_, '_, Queue>, args: Args<'_>) -> RawResult {
    let py = this.py();
    let item = plain::argument(py, args, "put", c"item")?;
    coroutine::create(py, Put { queue: Ref::new(this), item: item.into() })
}

fn get(this: This<'_, '_, Queue>) -> RawResult {
    coroutine::create(this.py(), Get(Ref::new(this)))
}

fn join(this: This<'_, '_, Queue>) -> RawResult {
    coroutine::create(this.py(), Join { queue: Ref::new(this), wait: None })
}

fn put_nowait(this: This<'_, '_, Queue>, args: Args<'_>) -> RawResult {
    let py = this.py();
    let item = plain::argument(py, args, "put_nowait", c"item")?;
    if this.is_open(py) {
        return plain::call(py, "put_nowait", (this.as_any(), item));
    }
    Queue::put_nowait(&this, py, item.into())?;
    Ok(raw::none())
}

fn get_nowait(this: This<'_, '_, Queue>) -> RawResult {
    let py = this.py();
    if this.is_open(py) {
        return plain::call(py, "get_nowait", (this.as_any(),));
    }
    Queue::get_nowait(&this, py).map(Obj::into_ptr)
}

/// The container of `this`, which is open.
fn container<'py>(this: This<'_, 'py, Queue>) -> PyResult<Bound<'py, PyAny>> {
    Queue::container(this.as_any().cast::<Queue>()?)
}

fn qsize(this: This<'_, '_, Queue>) -> RawResult {
    let py = this.py();
    let size = if this.is_open(py) { container(this).and_then(|items| items.len()) } else { Ok(this.len(py)) };
    match size.and_then(|size| Ok(size.into_pyobject(py)?)) {
        Ok(size) => Ok(size.into_ptr()),
        Err(error) => Err(Raised::from_err(py, error)),
    }
}

fn empty(this: This<'_, '_, Queue>) -> RawResult {
    let py = this.py();
    if this.is_open(py) {
        let empty = container(this).and_then(|items| Ok(!items.is_truthy()?));
        return empty.map(raw::bool).map_err(|error| Raised::from_err(py, error));
    }
    Ok(raw::bool(this.len(py) == 0))
}

fn full(this: This<'_, '_, Queue>) -> RawResult {
    let py = this.py();
    let bound = this.inside.with(py, |inside| inside.bound);
    if bound < usize::MAX && this.is_open(py) {
        let size = this.as_any().call_method0(intern!(py, "qsize"));
        return to_raw(
            py,
            size.and_then(|size| Ok(pyo3::types::PyBool::new(py, size.ge(bound)?).to_owned().into_any())),
        );
    }
    Ok(raw::bool(this.is_full(py)))
}

methods! { add_methods for Queue, LifoQueue, PriorityQueue {
    "put" => keywords put, "($self, /, item)\n--\n\n\
        Put an item in, waiting for room if need be; as `asyncio.Queue.put`. To be awaited.\n\
        \n\
        Args:\n\
        \x20   item: any object; in a `PriorityQueue`, one that can be compared with the others.\n\
        \n\
        Raises:\n\
        \x20   QueueShutDown: the queue was shut down.\n\
        \x20   CancelledError: the task was cancelled while it waited. The item is not in the queue.\n\
        \x20   RuntimeError: it would have to wait, and others did on another loop.";
    "get" => noargs get, "($self, /)\n--\n\n\
        Take an item out, waiting for one if need be; as `asyncio.Queue.get`. To be awaited.\n\
        \n\
        Returns:\n\
        \x20   The item that is next in the queue's order.\n\
        \n\
        Raises:\n\
        \x20   QueueShutDown: the queue was shut down and is empty.\n\
        \x20   CancelledError: the task was cancelled while it waited. No item is lost.\n\
        \x20   RuntimeError: it would have to wait, and others did on another loop.";
    "put_nowait" => keywords put_nowait, "($self, /, item)\n--\n\n\
        Put an item in if there is room; as `asyncio.Queue.put_nowait`.\n\
        \n\
        Raises:\n\
        \x20   QueueFull: there is no room.\n\
        \x20   QueueShutDown: the queue was shut down.";
    "get_nowait" => noargs get_nowait, "($self, /)\n--\n\n\
        Take an item out if there is one; as `asyncio.Queue.get_nowait`.\n\
        \n\
        Raises:\n\
        \x20   QueueEmpty: there is no item.\n\
        \x20   QueueShutDown: the queue was shut down and is empty.";
    "join" => noargs join, "($self, /)\n--\n\n\
        Wait until every item that was put is done; as `asyncio.Queue.join`. To be awaited.";
    "qsize" => noargs qsize, "($self, /)\n--\n\n\
        How many items are inside; as `asyncio.Queue.qsize`.";
    "empty" => noargs empty, "($self, /)\n--\n\n\
        Whether nothing is inside; as `asyncio.Queue.empty`.";
    "full" => noargs full, "($self, /)\n--\n\n\
        Whether there is no room; as `asyncio.Queue.full`.";
} }

/// Adds what PyO3 does not to the classes.
pub fn finish(py: Python<'_>) -> PyResult<()> {
    add_methods(py)
}
