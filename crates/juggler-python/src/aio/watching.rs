//! `add_reader` and its siblings.
#![allow(unsafe_code)]

use super::entry::Entry;
use super::event_loop::Loop;
use super::handle;
use super::scheduling::{Scheduled, create_handle};
use crate::raw::{self, Args, Raised, RawResult, This, methods};
use juggler_loop::poll::Interest;
use pyo3::ffi;
use pyo3::prelude::*;
use std::os::fd::RawFd;

fn descriptor(object: *mut ffi::PyObject) -> Result<RawFd, Raised> {
    // SAFETY: an argument is live, and callers are attached.
    match unsafe { ffi::PyObject_AsFileDescriptor(object) } {
        -1 => Err(Raised),
        descriptor => Ok(descriptor),
    }
}

/// Cancels the handle of a watcher that was replaced or taken back.
fn dismiss(py: Python<'_>, old: Option<Entry>) -> Result<bool, Raised> {
    match old {
        Some(old) => handle::dismiss(py, &old.object).map(|()| true),
        None => Ok(false),
    }
}

fn add(this: This<'_, '_, Loop>, args: Args<'_>, function: &str, interest: Interest) -> RawResult {
    let py = this.py();
    let scheduled = Scheduled::parse(py, function, [c"fd"], args)?;
    this.check_closed(py)?;
    let fd = descriptor(scheduled.own[0])?;
    let handle = create_handle(this, scheduled.call(py)?)?;
    let old = this.watch(py, fd, interest, Entry { object: handle.clone_ref(py), kind: &handle::KIND })?;
    dismiss(py, old)?;
    Ok(handle.into_ptr())
}

fn remove(this: This<'_, '_, Loop>, args: Args<'_>, function: &str, interest: Interest) -> RawResult {
    let py = this.py();
    let [fd] = args.parse(py, function, [c"fd"], 1)?;
    if this.is_closed() {
        return Ok(raw::bool(false));
    }
    let old = this.unwatch(py, descriptor(fd)?, interest);
    dismiss(py, old).map(raw::bool)
}

fn add_reader(this: This<'_, '_, Loop>, args: Args<'_>) -> RawResult {
    add(this, args, "_add_reader", Interest::Read)
}

fn remove_reader(this: This<'_, '_, Loop>, args: Args<'_>) -> RawResult {
    remove(this, args, "_remove_reader", Interest::Read)
}

fn add_writer(this: This<'_, '_, Loop>, args: Args<'_>) -> RawResult {
    add(this, args, "_add_writer", Interest::Write)
}

fn remove_writer(this: This<'_, '_, Loop>, args: Args<'_>) -> RawResult {
    remove(this, args, "_remove_writer", Interest::Write)
}

methods! { add_methods for Loop {
    "_add_reader" => keywords add_reader, "($self, fd, callback, *args)\n--\n\n";
    "_remove_reader" => keywords remove_reader, "($self, fd)\n--\n\n";
    "_add_writer" => keywords add_writer, "($self, fd, callback, *args)\n--\n\n";
    "_remove_writer" => keywords remove_writer, "($self, fd)\n--\n\n";
} }
