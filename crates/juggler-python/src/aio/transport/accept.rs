//! `Acceptor`: takes the connections that wait at a listening socket.

use super::{ends_run, os_error};
use crate::aio::entry::{Entry, Kind};
use crate::aio::event_loop::{Loop, as_loop, report};
use crate::obj::Obj;
use crate::raw::Raised;
use juggler_loop::net;
use juggler_loop::poll::Interest;
use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::PyDict;
use std::os::fd::{IntoRawFd, RawFd};

/// Watches a listening socket, until the loop does not any more.
#[pyclass(frozen, module = "juggler._juggler")]
pub struct Acceptor {
    event_loop: Obj,
    socket: Obj,
    fd: RawFd,
    /// Is called with the descriptor of each connection.
    connected: Obj,
    /// Is called with the error when there can't be more.
    failed: Obj,
    /// How many connections are taken in one turn.
    most: usize,
}

static KIND: Kind = Kind { run, is_cancelled: |_| false };

#[pymethods]
impl Acceptor {
    #[new]
    #[pyo3(signature = (r#loop, socket, connected, failed, most, /))]
    fn new(
        r#loop: Bound<'_, PyAny>,
        socket: Bound<'_, PyAny>,
        connected: Bound<'_, PyAny>,
        failed: Bound<'_, PyAny>,
        most: usize,
    ) -> PyResult<Self> {
        if as_loop(&r#loop).is_none() {
            return Err(PyTypeError::new_err("loop must be a native one"));
        }
        let fd = socket.call_method0(intern!(socket.py(), "fileno"))?.extract()?;
        let [event_loop, socket, connected, failed] = [r#loop, socket, connected, failed].map(Obj::from);
        Ok(Self { event_loop, socket, fd, connected, failed, most })
    }

    /// Begins to watch.
    fn _start(slf: &Bound<'_, Self>) -> PyResult<()> {
        let this = slf.get();
        let entry = Entry { object: slf.clone().into_any().into(), kind: &KIND };
        let watched = this.in_loop(slf.py(), |event_loop| event_loop.watch(slf.py(), this.fd, Interest::Read, entry));
        watched.map(drop).map_err(|raised| raised.fetch(slf.py()))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let objects = [&self.event_loop, &self.socket, &self.connected, &self.failed];
        objects.into_iter().try_for_each(|object| object.visit(&visit))
    }
}

impl Acceptor {
    fn in_loop<R>(&self, py: Python<'_>, body: impl FnOnce(&Loop) -> Result<R, Raised>) -> Result<R, Raised> {
        let event_loop = self.event_loop.bind(py);
        match as_loop(&event_loop) {
            Some(event_loop) => body(event_loop.get()),
            None => Err(Raised::new::<PyTypeError>(py, "loop must be a native one")),
        }
    }

    /// Whether the socket is open still: whoever was told of a connection may have closed it.
    fn is_open(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.socket.bind(py).call_method0(intern!(py, "fileno"))?.extract::<RawFd>()? == self.fd)
    }

    fn accept(&self, py: Python<'_>) -> PyResult<()> {
        for _ in 0..self.most {
            if !self.is_open(py)? {
                return Ok(());
            }
            match net::accept(self.fd) {
                Ok(Some(fd)) => drop(self.connected.bind(py).call1((fd.into_raw_fd(),))?),
                Ok(None) => return Ok(()),
                // It has been given up by the other side.
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    return self.failed.bind(py).call1((os_error(&error).into_value(py),)).map(drop);
                }
            }
        }
        Ok(())
    }
}

fn run(py: Python<'_>, object: Obj) -> Result<(), Raised> {
    let bound = object.into_bound(py);
    let Ok(this) = bound.cast::<Acceptor>() else { return Ok(()) };
    let Err(error) = this.get().accept(py) else { return Ok(()) };
    if ends_run(py, &error) {
        return Err(Raised::from_err(py, error));
    }
    let context = PyDict::new(py);
    let filled = context
        .set_item("message", "Exception while connections were accepted")
        .and_then(|()| context.set_item("exception", error.value(py)));
    filled.map_err(|error| Raised::from_err(py, error))?;
    report(&this.get().event_loop.bind(py), &context)
}
