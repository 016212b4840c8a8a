//! The items of a queue that is not open.
#![allow(unsafe_code)]

use super::Inside;
use crate::attached::Attached;
use crate::obj::Obj;
use crate::raw::Raised;
use juggler_sync::heap;
use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyList;
use std::collections::VecDeque;

/// In which order items leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Fifo,
    Lifo,
    Priority,
}

/// Items in their order.
pub enum Items {
    /// First in, first out, or last in, first out.
    Line(VecDeque<Obj>, Order),
    /// The smallest first, as `heapq` has them.
    Heap(Vec<Obj>),
    /// A heap whose items are being compared.
    Comparing(usize),
}

impl Items {
    /// No items.
    pub fn new(order: Order) -> Self {
        match order {
            Order::Fifo | Order::Lifo => Self::Line(VecDeque::new(), order),
            Order::Priority => Self::Heap(Vec::new()),
        }
    }

    /// How many there are.
    #[inline(always)]
    pub fn len(&self) -> usize {
        match self {
            Self::Line(items, _) => items.len(),
            Self::Heap(items) => items.len(),
            Self::Comparing(len) => *len,
        }
    }

    /// In which order they leave.
    pub fn order(&self) -> Order {
        match self {
            Self::Line(_, order) => *order,
            Self::Heap(_) | Self::Comparing(_) => Order::Priority,
        }
    }

    /// The items, as the standard library's container has them.
    pub fn iter(&self) -> impl Iterator<Item = &Obj> {
        let (line, heap): (Option<&VecDeque<Obj>>, &[Obj]) = match self {
            Self::Line(items, _) => (Some(items), &[]),
            Self::Heap(items) => (None, items),
            Self::Comparing(_) => (None, &[]),
        };
        line.into_iter().flatten().chain(heap)
    }
}

/// Puts `item` in.
///
/// # Errors
/// What comparing raises.
#[inline(always)]
pub fn put(py: Python<'_>, inside: &Attached<Inside>, item: Obj) -> Result<(), Raised> {
    let item = inside.with(py, |inside| match &mut inside.items {
        Items::Line(items, _) => {
            items.push_back(item);
            None
        }
        Items::Heap(_) | Items::Comparing(_) => Some(item),
    });
    let Some(item) = item else { return Ok(()) };
    compared(py, inside, |heap| heap::push(heap, item, less).map_err(|(_, raised)| raised))
}

/// Takes the next item out.
///
/// # Errors
/// What comparing raises.
#[inline(always)]
pub fn take(py: Python<'_>, inside: &Attached<Inside>) -> Result<Option<Obj>, Raised> {
    let taken = inside.with(py, |inside| match &mut inside.items {
        Items::Line(items, Order::Lifo) => Some(items.pop_back()),
        Items::Line(items, _) => Some(items.pop_front()),
        Items::Heap(_) | Items::Comparing(_) => None,
    });
    match taken {
        Some(item) => Ok(item),
        None => compared(py, inside, |heap| heap::pop(heap, less)),
    }
}

/// Runs `body`, which compares items and so may run Python, with the heap; the queue is unusable meanwhile.
fn compared<R>(
    py: Python<'_>,
    inside: &Attached<Inside>,
    body: impl FnOnce(&mut Vec<Obj>) -> Result<R, Raised>,
) -> Result<R, Raised> {
    let heap = inside.with(py, |inside| {
        let len = inside.items.len();
        match std::mem::replace(&mut inside.items, Items::Comparing(len)) {
            Items::Heap(heap) => Some(heap),
            Items::Line(..) | Items::Comparing(_) => None,
        }
    });
    let Some(mut heap) = heap else { return Err(reentered(py)) };
    let result = body(&mut heap);
    let before = inside.with(py, |inside| std::mem::replace(&mut inside.items, Items::Heap(heap)));
    drop(before);
    result
}

#[cold]
fn reentered(py: Python<'_>) -> Raised {
    Raised::new::<PyRuntimeError>(
        py,
        "this queue is used while it compares its own items: a comparison must not call it",
    )
}

fn less(a: &Obj, b: &Obj) -> Result<bool, Raised> {
    // SAFETY: live objects; whoever has a queue's items is attached.
    match unsafe { ffi::PyObject_RichCompareBool(a.as_ptr(), b.as_ptr(), ffi::Py_LT) } {
        -1 => Err(Raised),
        less => Ok(less != 0),
    }
}

/// The items of a queue, in a list.
///
/// # Errors
/// `MemoryError`
pub fn listed<'py>(py: Python<'py>, inside: &Attached<Inside>) -> PyResult<Bound<'py, PyList>> {
    let items: Vec<Obj> = inside.with(py, |inside| inside.items.iter().map(|item| item.clone_ref(py)).collect());
    PyList::new(py, items.into_iter().map(|item| item.into_bound(py)))
}

/// An empty container for items in this order, as the standard library's `_init` makes.
///
/// # Errors
/// What importing `collections` raises.
pub fn container<'py>(py: Python<'py>, order: Order, items: Bound<'py, PyList>) -> PyResult<Bound<'py, PyAny>> {
    match order {
        Order::Fifo => py.import("collections")?.call_method1("deque", (items,)),
        Order::Lifo | Order::Priority => Ok(items.into_any()),
    }
}
