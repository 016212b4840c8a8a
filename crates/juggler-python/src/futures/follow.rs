//! Futures of any kind, watched together: ours through the engine's collector, others through their `_waiters`.

use super::future::Future;
use super::layout;
use crate::obj::Obj;
use crate::raw::This;
use juggler_sync::future::Collector;
use juggler_sync::sync::Arc;
use pyo3::intern;
use pyo3::prelude::*;

/// Stands in the list of waiters of a future that is not ours and passes what it is told on to a collector.
#[pyclass(frozen, module = "juggler.futures")]
pub struct Relay {
    collector: Arc<Collector>,
    token: usize,
}

#[pymethods]
impl Relay {
    fn add_result(&self, _future: &Bound<'_, PyAny>) {
        self.collector.tell(self.token);
    }

    fn add_exception(&self, _future: &Bound<'_, PyAny>) {
        self.collector.tell(self.token);
    }

    fn add_cancelled(&self, _future: &Bound<'_, PyAny>) {
        self.collector.tell(self.token);
    }
}

/// A future that is watched, or may be.
pub struct Followed {
    pub future: Obj,
    /// What stands in the waiters of a future that is not ours.
    relay: Option<Obj>,
    subscribed: bool,
}

impl Followed {
    /// `future`, not yet watched.
    pub fn new(future: Bound<'_, PyAny>) -> Self {
        Self { future: future.into(), relay: None, subscribed: false }
    }

    fn ours<'a, 'py>(&'a self, py: Python<'py>) -> Option<This<'a, 'py, Future>> {
        layout::as_future(py, &self.future)
    }

    /// Whether the future is done and nobody will be told any more.
    ///
    /// # Errors
    /// What looking at the state of a future that is not ours raises.
    #[inline]
    pub fn is_settled(&self, py: Python<'_>) -> PyResult<bool> {
        match self.ours(py) {
            Some(future) => Ok(future.engine.state().is_settled()),
            None => is_settled(&self.future.bind(py)),
        }
    }

    /// Whether the future, which is settled, has an exception.
    ///
    /// # Errors
    /// As above.
    pub fn has_failed(&self, py: Python<'_>) -> PyResult<bool> {
        if let Some(future) = self.ours(py) {
            return Ok(future.has_failed(py));
        }
        let future = self.future.bind(py);
        if future.call_method0(intern!(py, "cancelled"))?.is_truthy()? {
            return Ok(false);
        }
        Ok(!future.call_method0(intern!(py, "exception"))?.is_none())
    }

    /// Has `collector` told, as `token`, when the future is settled; at once if it is.
    ///
    /// # Errors
    /// As above.
    pub fn subscribe(&mut self, py: Python<'_>, collector: &Arc<Collector>, token: usize) -> PyResult<()> {
        if let Some(future) = layout::as_future(py, &self.future) {
            future.engine.subscribe(collector, token);
            self.subscribed = true;
            future.collect_eagerly(py).map_err(|raised| raised.fetch(py))?;
            return Ok(());
        }
        let relay = Bound::new(py, Relay { collector: collector.clone(), token })?.into_any();
        let future = self.future.bind(py);
        let settled = locked(&future, || {
            let settled = is_settled(&future)?;
            if !settled {
                future.getattr(intern!(py, "_waiters"))?.call_method1(intern!(py, "append"), (&relay,))?;
            }
            Ok(settled)
        })?;
        if settled {
            collector.tell(token);
        } else {
            self.relay = Some(relay.into());
        }
        Ok(())
    }

    /// Undoes [`Followed::subscribe`].
    ///
    /// # Errors
    /// As above.
    pub fn unsubscribe(&mut self, py: Python<'_>, collector: &Arc<Collector>) -> PyResult<()> {
        if std::mem::take(&mut self.subscribed)
            && let Some(future) = self.ours(py)
            && !future.engine.state().is_settled()
        {
            future.engine.unsubscribe(collector);
        }
        let Some(relay) = self.relay.take() else { return Ok(()) };
        let future = self.future.bind(py);
        locked(&future, || {
            let waiters = future.getattr(intern!(py, "_waiters"))?;
            waiters.call_method1(intern!(py, "remove"), (relay.bind(py),)).map(drop)
        })
    }
}

fn is_settled(future: &Bound<'_, PyAny>) -> PyResult<bool> {
    let state = future.getattr(intern!(future.py(), "_state"))?;
    Ok(state.eq("FINISHED")? || state.eq("CANCELLED_AND_NOTIFIED")?)
}

/// Runs `look` holding the condition of a future that is not ours.
fn locked<R>(future: &Bound<'_, PyAny>, look: impl FnOnce() -> PyResult<R>) -> PyResult<R> {
    let py = future.py();
    let condition = future.getattr(intern!(py, "_condition"))?;
    condition.call_method0(intern!(py, "acquire"))?;
    let result = look();
    condition.call_method0(intern!(py, "release"))?;
    result
}
