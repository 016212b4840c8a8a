//! `DatagramSocket`: what a datagram transport sends and receives all the time.
//!
//! The transport is the standard library's (`juggler.asyncio._transports` has the heir): it asks here first, and does itself
//! what is none of this module's business: addresses that are to be looked up, data other than bytes, a socket that is full.

use super::chunk::Bytes;
use super::os_error;
use crate::aio::sockets::descriptor;
use crate::attached::Attached;
use crate::obj::Obj;
use juggler_loop::buffer::with_scratch;
use juggler_loop::net;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::{PyBytes, PyTuple};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;

/// A socket of an internet protocol, in the non-blocking mode.
#[pyclass(frozen, module = "juggler._juggler")]
pub struct DatagramSocket {
    socket: Obj,
    is_ipv6: bool,
    is_connected: bool,
    /// Who has sent the last datagram: many come from the same, and answers go there.
    last: Attached<Option<(SocketAddr, Obj)>>,
}

#[pymethods]
impl DatagramSocket {
    #[new]
    #[pyo3(signature = (socket, is_ipv6, is_connected, /))]
    fn new(socket: Bound<'_, PyAny>, is_ipv6: bool, is_connected: bool) -> Self {
        Self { socket: socket.into(), is_ipv6, is_connected, last: Attached::new(None) }
    }

    /// The next datagram and the address of its sender; `None` if there is none now.
    fn receive<'py>(&self, py: Python<'py>) -> PyResult<Option<(Bound<'py, PyAny>, Bound<'py, PyAny>)>> {
        let fd = self.descriptor(py)?;
        let received = with_scratch(|scratch| {
            let received = net::receive_from(fd, scratch)?;
            Ok(received.map(|(count, sender)| (Bytes::copy(py, &scratch[..count]), sender)))
        });
        let Some((bytes, sender)) = received.map_err(|error| os_error(&error))? else { return Ok(None) };
        let bytes = bytes.map_err(|raised| raised.fetch(py))?.into_obj();
        Ok(Some((bytes.into_bound(py), self.known(sender, py)?.into_bound(py))))
    }

    /// Sends a datagram to `address`, or with `None` to where the socket is connected. False: nothing was done.
    #[pyo3(signature = (data, address, /))]
    fn send(&self, py: Python<'_>, data: &Bound<'_, PyAny>, address: &Bound<'_, PyAny>) -> PyResult<bool> {
        // What no bytes mean depends on the version.
        let Some(data) = data.cast::<PyBytes>().ok().map(|data| data.as_bytes()).filter(|data| !data.is_empty()) else {
            return Ok(false);
        };
        let sent = if self.is_connected {
            if !address.is_none() {
                return Ok(false);
            }
            net::send(self.descriptor(py)?, data)
        } else {
            let Some(address) = self.parsed(address) else { return Ok(false) };
            net::send_to(self.descriptor(py)?, data, address)
        };
        sent.map(|sent| sent.is_some()).map_err(|error| os_error(&error))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.socket.visit(&visit)
    }
}

impl DatagramSocket {
    /// Asked for each time: a program may have closed the socket.
    fn descriptor(&self, py: Python<'_>) -> PyResult<RawFd> {
        descriptor(&self.socket.bind(py)).map_err(|raised| raised.fetch(py))
    }

    /// `address` as Python has it.
    fn known(&self, address: SocketAddr, py: Python<'_>) -> PyResult<Obj> {
        let last = self.last.with(py, |last| {
            last.as_ref().filter(|(known, _)| *known == address).map(|(_, object)| object.clone_ref(py))
        });
        if let Some(object) = last {
            return Ok(object);
        }
        let object = Obj::from(match address {
            SocketAddr::V4(address) => (address.ip().to_string(), address.port()).into_pyobject(py)?.into_any(),
            SocketAddr::V6(address) => {
                let flow = u32::from_be(address.flowinfo());
                (address.ip().to_string(), address.port(), flow, address.scope_id()).into_pyobject(py)?.into_any()
            }
        });
        let before = self.last.with(py, |last| last.replace((address, object.clone_ref(py))));
        drop(before);
        Ok(object)
    }

    /// The address that Python calls `object`, unless that needs looking up.
    fn parsed(&self, object: &Bound<'_, PyAny>) -> Option<SocketAddr> {
        let last = |last: &mut Option<(SocketAddr, Obj)>| {
            last.as_ref().filter(|(_, known)| known.as_ptr() == object.as_ptr()).map(|(address, _)| *address)
        };
        if let Some(address) = self.last.with(object.py(), last) {
            return Some(address);
        }
        let tuple = object.cast_exact::<PyTuple>().ok().filter(|tuple| tuple.len() == 2)?;
        let host: IpAddr = tuple.get_item(0).ok()?.extract::<&str>().ok()?.parse().ok()?;
        let port = tuple.get_item(1).ok()?.extract::<u16>().ok()?;
        (host.is_ipv6() == self.is_ipv6).then(|| SocketAddr::new(host, port))
    }
}
