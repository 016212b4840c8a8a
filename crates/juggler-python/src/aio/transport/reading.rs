//! What a transport of bytes does when there is something to read.
#![allow(unsafe_code)]

use super::channel::{Transport, assume};
use super::chunk::Bytes;
use super::sink::{Sink, get_buffer, integer};
use crate::aio::streams::{StreamReader, after_end};
use crate::aio::tls::as_tls;
use crate::obj::Obj;
use crate::raw::{Raised, This};
use juggler_loop::buffer::{Scratch, with_scratch};
use pyo3::intern;
use pyo3::prelude::*;
use std::io;
use std::os::fd::RawFd;

/// How a class of transports reads.
pub trait Reads: Transport {
    /// What is said when it fails.
    const FAILED: &'static str;

    /// Reads what there is. No bytes: nothing more will come.
    ///
    /// # Errors
    /// The system's.
    fn receive(fd: RawFd, to: &mut [u8]) -> io::Result<Option<usize>>;

    /// What follows when nothing more will come.
    ///
    /// # Errors
    /// What ends the loop's run.
    fn end(this: This<'_, '_, Self>) -> Result<(), Raised>;
}

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
pub(super) fn ready<T: Reads>(py: Python<'_>, object: Obj) -> Result<(), Raised> {
    let this: This<'_, '_, T> = assume(py, &object);
    let sink = this.with(|state| state.reading.then(|| state.told.sink.clone_ref(py)));
    match sink {
        None => Ok(()),
        Some(Sink::Protocol) => this.run(|| read(this)),
        Some(Sink::Buffered) => this.run(|| read_into_protocol(this)),
        Some(Sink::Reader(reader)) => read_into_reader(this, &reader),
        Some(Sink::Tls(tls)) => this.run(|| read_into_tls(this, &tls)),
    }
}

fn read_into_reader<T: Reads>(this: This<'_, '_, T>, reader: &Obj) -> Result<(), Raised> {
    // SAFETY: it is a reader, and lives as long as the reference.
    let reader: This<'_, '_, StreamReader> = unsafe { This::new(this.py(), reader.as_ptr()) };
    let received =
        with_scratch(|scratch| Received::new(T::receive(this.fd(), scratch), |count| reader.put(&scratch[..count])));
    match received {
        Received::Some(true) => reader.notify_in_turn(|raised| T::protocol_raised(this, raised, "data_received")),
        // It was told of the end by somebody else.
        Received::Some(false) => T::protocol_raised(this, after_end(this.py()), "data_received"),
        // The protocol is told in the transport's context, as always.
        other => this.run(|| this.received(other).map(drop)),
    }
}

fn read<T: Reads>(this: This<'_, '_, T>) -> Result<(), Raised> {
    let py = this.py();
    let received = with_scratch(|scratch| {
        Received::new(T::receive(this.fd(), scratch), |count| Bytes::copy(py, &scratch[..count]))
    });
    let Some(data) = this.received(received)? else { return Ok(()) };
    let data = data?.into_obj();
    match this.tell(intern!(py, "data_received"), Some(data.as_ptr())) {
        Ok(result) => drop(result),
        Err(raised) => return T::protocol_raised(this, raised, "data_received"),
    }
    Ok(())
}

fn read_into_protocol<T: Reads>(this: This<'_, '_, T>) -> Result<(), Raised> {
    let py = this.py();
    let Some(protocol) = this.protocol() else { return Ok(()) };
    let buffer = match get_buffer(py, &protocol, -1) {
        Ok(buffer) => buffer,
        Err(raised) => return T::protocol_raised(this, raised, "get_buffer"),
    };
    // SAFETY: the buffer is held, can be written to, and is as long as it says. Nothing else is done with it meanwhile.
    let place = unsafe { std::slice::from_raw_parts_mut(buffer.start(), buffer.bytes().len()) };
    let received = Received::new(T::receive(this.fd(), place), |count| count);
    drop(buffer);
    let Some(count) = this.received(received)? else { return Ok(()) };
    let told = integer(count as isize).and_then(|count| this.tell(intern!(py, "buffer_updated"), Some(count.as_ptr())));
    match told {
        Ok(result) => drop(result),
        Err(raised) => return T::protocol_raised(this, raised, "buffer_updated"),
    }
    Ok(())
}

/// What has come goes to the TLS transport that is the protocol.
fn read_into_tls<T: Reads>(this: This<'_, '_, T>, tls: &Obj) -> Result<(), Raised> {
    let py = this.py();
    let mut place = Scratch::take();
    let received = Received::new(T::receive(this.fd(), &mut place), |count| count);
    let Some(count) = this.received(received)? else { return Ok(()) };
    let Some(tls) = as_tls(py, tls) else { return Ok(()) };
    let told = tls.receive_lent(place, count);
    told.or_else(|raised| T::protocol_raised(this, raised, "buffer_updated"))
}

impl<T: Reads> This<'_, '_, T> {
    /// What was received, if anything was: everything else is dealt with here.
    fn received<R>(self, received: Received<R>) -> Result<Option<R>, Raised> {
        match received {
            Received::Some(data) => Ok(Some(data)),
            Received::Nothing => Ok(None),
            Received::End => T::end(self).map(|()| None),
            Received::Failed(error) => self.fail_io(&error, T::FAILED).map(|()| None),
        }
    }
}
