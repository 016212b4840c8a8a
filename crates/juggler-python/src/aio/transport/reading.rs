//! What a stream transport does when there is something to read.
#![allow(unsafe_code)]

use super::chunk::Bytes;
use super::sink::{Sink, get_buffer, integer};
use super::stream::{Stream, assume};
use crate::aio::streams::{StreamReader, after_end};
use crate::aio::tls::as_tls;
use crate::obj::Obj;
use crate::raw::{self, Raised, This};
use juggler_loop::buffer::{Scratch, with_scratch};
use juggler_loop::net;
use pyo3::intern;
use pyo3::prelude::*;
use std::io;

const READ_FAILED: &str = "Fatal read error on socket transport";

/// What came of reading.
enum Received<T> {
    Some(T),
    /// Nothing was there.
    Nothing,
    /// Nothing more will come.
    End,
    Failed(io::Error),
}

impl<T> Received<T> {
    fn new(received: io::Result<Option<usize>>, take: impl FnOnce(usize) -> T) -> Self {
        match received {
            Ok(Some(0)) => Self::End,
            Ok(Some(count)) => Self::Some(take(count)),
            Ok(None) => Self::Nothing,
            Err(error) => Self::Failed(error),
        }
    }
}

/// Reads once, and tells the protocol.
pub(super) fn ready(py: Python<'_>, object: Obj) -> Result<(), Raised> {
    let this = assume(py, &object);
    let sink = this.with(|state| state.reading.then(|| state.told.sink.clone_ref(py)));
    match sink {
        None => Ok(()),
        Some(Sink::Protocol) => this.run(|| read(this)),
        Some(Sink::Buffered) => this.run(|| read_into_protocol(this)),
        Some(Sink::Reader(reader)) => read_into_reader(this, &reader),
        Some(Sink::Tls(tls)) => this.run(|| read_into_tls(this, &tls)),
    }
}

fn read_into_reader(this: This<'_, '_, Stream>, reader: &Obj) -> Result<(), Raised> {
    // SAFETY: it is a reader, and lives as long as the reference.
    let reader: This<'_, '_, StreamReader> = unsafe { This::new(this.py(), reader.as_ptr()) };
    let received =
        with_scratch(|scratch| Received::new(net::receive(this.fd, scratch), |count| reader.put(&scratch[..count])));
    match received {
        Received::Some(true) => reader.notify(),
        // It was told of the end by somebody else.
        Received::Some(false) => {
            this.fail_raised(after_end(this.py()), "Fatal error: protocol.data_received() call failed.")
        }
        // The protocol is told in the transport's context, as always.
        other => this.run(|| this.received(other).map(drop)),
    }
}

fn read(this: This<'_, '_, Stream>) -> Result<(), Raised> {
    let py = this.py();
    let received = with_scratch(|scratch| {
        Received::new(net::receive(this.fd, scratch), |count| Bytes::copy(py, &scratch[..count]))
    });
    let Some(data) = this.received(received)? else { return Ok(()) };
    let data = data?.into_obj();
    match this.tell(intern!(py, "data_received"), Some(data.as_ptr())) {
        Ok(result) => drop(result),
        Err(raised) => return this.fail_raised(raised, "Fatal error: protocol.data_received() call failed."),
    }
    Ok(())
}

fn read_into_protocol(this: This<'_, '_, Stream>) -> Result<(), Raised> {
    let py = this.py();
    let Some(protocol) = this.protocol() else { return Ok(()) };
    let buffer = match get_buffer(py, &protocol, -1) {
        Ok(buffer) => buffer,
        Err(raised) => return this.fail_raised(raised, "Fatal error: protocol.get_buffer() call failed."),
    };
    // SAFETY: the buffer is held, can be written to, and is as long as it says. Nothing else is done with it meanwhile.
    let place = unsafe { std::slice::from_raw_parts_mut(buffer.start(), buffer.bytes().len()) };
    let received = Received::new(net::receive(this.fd, place), |count| count);
    drop(buffer);
    let Some(count) = this.received(received)? else { return Ok(()) };
    let told = integer(count as isize).and_then(|count| this.tell(intern!(py, "buffer_updated"), Some(count.as_ptr())));
    match told {
        Ok(result) => drop(result),
        Err(raised) => return this.fail_raised(raised, "Fatal error: protocol.buffer_updated() call failed."),
    }
    Ok(())
}

/// What has come goes to the TLS transport that is the protocol.
fn read_into_tls(this: This<'_, '_, Stream>, tls: &Obj) -> Result<(), Raised> {
    let py = this.py();
    let mut place = Scratch::take();
    let received = Received::new(net::receive(this.fd, &mut place), |count| count);
    let Some(count) = this.received(received)? else { return Ok(()) };
    let Some(tls) = as_tls(py, tls) else { return Ok(()) };
    let told = tls.receive_lent(place, count);
    told.or_else(|raised| this.fail_raised(raised, "Fatal error: protocol.buffer_updated() call failed."))
}

impl This<'_, '_, Stream> {
    /// What was received, if anything was: everything else is dealt with here.
    fn received<T>(self, received: Received<T>) -> Result<Option<T>, Raised> {
        match received {
            Received::Some(data) => Ok(Some(data)),
            Received::Nothing => Ok(None),
            Received::End => self.end().map(|()| None),
            Received::Failed(error) => self.fail_io(&error, READ_FAILED).map(|()| None),
        }
    }

    /// Tells the protocol that nothing more will come.
    fn end(self) -> Result<(), Raised> {
        self.log("%r received EOF", None);
        let told = self.tell(intern!(self.py(), "eof_received"), None);
        match told.and_then(|keep_open| raw::truth(keep_open.as_ptr(), false)) {
            Ok(true) => self.unwatch_reading(),
            Ok(false) => return self.close(),
            Err(raised) => return self.fail_raised(raised, "Fatal error: protocol.eof_received() call failed."),
        }
        Ok(())
    }
}
