//! The native part of `asyncio.wait`: it watches futures until enough of them are done.
#![allow(unsafe_code)]

use super::any_future::{self, subscribe, unsubscribe};
use super::class;
use super::current;
use super::future::{self, Outcome};
use crate::attached::Attached;
use crate::obj::Obj;
use crate::raw::Raised;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::PySet;

/// Futures that are watched together.
#[pyclass(frozen, module = "juggler._juggler", name = "_Watch")]
pub struct Watch {
    fields: Attached<WatchFields>,
}

struct WatchFields {
    futures: Vec<Obj>,
    /// Done when enough of them are.
    waiter: Option<Obj>,
    asker: Option<Obj>,
    /// How many have to be done.
    left: usize,
    /// Whether one with an exception is enough.
    until_failed: bool,
}

/// The task that waits for those that `object` watches.
pub fn asker(py: Python<'_>, object: &Obj) -> Option<Obj> {
    let object = object.bind(py);
    let watch = object.cast::<Watch>().ok()?;
    watch.get().fields.with(py, |fields| fields.asker.as_ref().map(|task| task.clone_ref(py)))
}

fn future_done(py: Python<'_>, watch: &Obj, future: &Obj) -> Result<(), Raised> {
    let watch = watch.bind(py);
    let this = watch.cast::<Watch>().map_err(|error| Raised::from_err(py, error.into()))?.get();
    let (left, until_failed, waiter) = this.fields.with(py, |fields| {
        fields.left = fields.left.saturating_sub(1);
        (fields.left, fields.until_failed, fields.waiter.as_ref().map(|waiter| waiter.clone_ref(py)))
    });
    if left == 0 || (until_failed && matches!(any_future::outcome(py, future)?, Outcome::Failed(_))) {
        if let Some(waiter) = waiter {
            future::finish_if_pending(class::assume(py, &waiter), future::none())?;
        }
    }
    Ok(())
}

#[pymethods]
impl Watch {
    /// Watches `futures` until `left` of them are done, or one has failed if that is enough.
    #[new]
    fn new(
        futures: &Bound<'_, PySet>,
        left: usize,
        until_failed: bool,
        event_loop: Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        let py = event_loop.py();
        let futures = futures.iter().map(Obj::from).collect();
        let asker = current::task(py).map_err(|raised| raised.fetch(py))?;
        let waiter = future::create(py, &event_loop.into()).map_err(|raised| raised.fetch(py))?;
        Ok(Self { fields: Attached::new(WatchFields { futures, waiter: Some(waiter), asker, left, until_failed }) })
    }

    /// Begins to watch; returns a future that is done when enough of the others are.
    fn begin<'py>(slf: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = slf.py();
        let (futures, waiter) = slf.get().copy(py);
        let object = slf.clone().into_any().into();
        let begun = futures.iter().try_for_each(|future| subscribe(py, future, &object, future_done));
        begun.map_err(|raised| raised.fetch(py))?;
        Ok(waiter.map(|waiter| waiter.into_bound(py)))
    }

    /// Watches no more.
    fn end(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let (futures, _) = slf.get().copy(py);
        let object = slf.clone().into_any().into();
        let ended = futures.iter().try_for_each(|future| unsubscribe(py, future, &object, future_done));
        ended.map_err(|raised| raised.fetch(py))?;
        slf.get().__clear__(py);
        Ok(())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.fields.traverse(|fields| {
            let objects = fields.futures.iter().chain(&fields.waiter).chain(&fields.asker);
            objects.into_iter().try_for_each(|object| object.visit(&visit))
        })
    }

    fn __clear__(&self, py: Python<'_>) {
        let stale = self
            .fields
            .with(py, |fields| (std::mem::take(&mut fields.futures), fields.waiter.take(), fields.asker.take()));
        drop(stale);
    }
}

impl Watch {
    fn copy(&self, py: Python<'_>) -> (Vec<Obj>, Option<Obj>) {
        self.fields.with(py, |fields| {
            let futures = fields.futures.iter().map(|future| future.clone_ref(py)).collect();
            (futures, fields.waiter.as_ref().map(|waiter| waiter.clone_ref(py)))
        })
    }
}
