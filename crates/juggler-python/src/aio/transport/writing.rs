//! Writing to a transport of bytes.
#![allow(unsafe_code)]

use super::channel::{State, Transport, assume};
use super::chunk::{Bytes, Chunk, chunks_of};
use super::os_error;
use crate::obj::Obj;
use crate::raw::{self, Args, Raised, RawResult, This};
use juggler_loop::buffer::{MOST_SLICES, WriteBuffer};
use juggler_loop::net;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use std::io::{self, IoSlice};
use std::os::fd::RawFd;

/// How a class of transports writes.
pub trait Writes: Transport<Queue = WriteBuffer<Bytes>> {
    /// What is said when it fails.
    const FAILED: &'static str;

    /// Whether nothing can be written any more once it is being closed, and the protocol goes on only when all is written.
    const ENDS_BY_CLOSING: bool = false;

    /// Writes what the system takes.
    ///
    /// # Errors
    /// The system's.
    fn send(fd: RawFd, bytes: &[u8]) -> io::Result<Option<usize>>;

    /// The same with several slices.
    ///
    /// # Errors
    /// The system's.
    fn send_slices(fd: RawFd, slices: &[IoSlice<'_>]) -> io::Result<Option<usize>>;
}

/// What a transport makes of a write.
enum Now {
    /// Sends at once.
    Send,
    /// Puts it into the buffer, where something waits already.
    Buffer,
    /// The connection is lost.
    Ignore,
    Refuse(&'static str),
}

impl State<WriteBuffer<Bytes>> {
    fn now<T: Writes>(&self, ended: &'static str, waited_for: &'static str) -> Now {
        if self.ended {
            Now::Refuse(ended)
        } else if self.empty_waiter.is_some() {
            Now::Refuse(waited_for)
        } else if self.lost || (T::ENDS_BY_CLOSING && self.closing) {
            Now::Ignore
        } else if self.queue.is_empty() {
            Now::Send
        } else {
            Now::Buffer
        }
    }
}

impl<T: Writes> This<'_, '_, T> {
    /// `write`
    ///
    /// # Errors
    /// `TypeError`, `RuntimeError`; `KeyboardInterrupt` and `SystemExit` out of the protocol.
    #[inline]
    pub fn write(self, data: *mut pyo3::ffi::PyObject) -> Result<(), Raised> {
        self.write_chunk(Chunk::new(self.py(), data)?)
    }

    /// The same for what is known to hold bytes.
    ///
    /// # Errors
    /// `RuntimeError`; `KeyboardInterrupt` and `SystemExit` out of the protocol.
    #[inline]
    pub fn write_chunk(self, chunk: Chunk<'_>) -> Result<(), Raised> {
        let py = self.py();
        let now = self.with(|state| {
            state.now::<T>("Cannot call write() after write_eof()", "unable to write; sendfile is in progress")
        });
        if let Now::Refuse(message) = now {
            return Err(Raised::new::<PyRuntimeError>(py, message));
        }
        let length = chunk.as_ref().len();
        if length == 0 {
            return Ok(());
        }
        let mut written = 0;
        match now {
            Now::Ignore => return self.ignore_write(),
            Now::Send => match T::send(self.fd(), chunk.as_ref()) {
                Ok(Some(sent)) if sent == length => return Ok(()),
                Ok(sent) => {
                    written = sent.unwrap_or(0);
                    self.watch_writing()?;
                }
                Err(error) => return self.fail_io(&error, <T as Writes>::FAILED),
            },
            _ => {}
        }
        let (bytes, written) = chunk.keep(py, written)?;
        self.with(|state| state.queue.push(bytes, written));
        self.pause_protocol()
    }

    /// Writes what the system takes of the buffer.
    fn flush(self) -> io::Result<()> {
        let mut done = Vec::new();
        let flushed = self.with(|state| {
            let mut slices = [IoSlice::new(&[]); MOST_SLICES];
            let count = state.queue.slices(&mut slices);
            let sent = T::send_slices(self.fd(), &slices[..count])?.unwrap_or(0);
            state.queue.advance(sent, &mut done);
            Ok(())
        });
        drop(done);
        flushed
    }

    #[cold]
    fn write_failed(self, error: &io::Error) -> Result<(), Raised> {
        let py = self.py();
        let waiter = self.with(|state| state.empty_waiter.as_ref().map(|waiter| waiter.clone_ref(py)));
        self.fail_io(error, <T as Writes>::FAILED)?;
        let Some(waiter) = waiter else { return Ok(()) };
        let set = waiter.bind(py).call_method1("set_exception", (os_error(error).into_value(py),));
        set.map(drop).map_err(|error| Raised::from_err(py, error))
    }

    /// What happens once the buffer is empty.
    fn emptied(self) -> Result<(), Raised> {
        let py = self.py();
        self.unwatch_writing();
        let (waiter, lose, end) = self.with(|state| {
            let waiter = state.empty_waiter.as_ref().map(|waiter| waiter.clone_ref(py));
            let lose = state.closing && !state.lost;
            state.lost |= lose;
            (waiter, lose, state.ended)
        });
        if let Some(waiter) = waiter {
            crate::aio::sync::parking::wake(py, &waiter)?;
        }
        if lose {
            self.unwatch_reading();
            return self.lose();
        }
        if end { self.shut_down() } else { Ok(()) }
    }

    pub(super) fn shut_down(self) -> Result<(), Raised> {
        let shut = net::shut_down_sending(self.fd());
        shut.map_err(|error| Raised::from_err(self.py(), os_error(&error)))
    }
}

/// Writes what waits.
pub(super) fn ready<T: Writes>(py: Python<'_>, object: Obj) -> Result<(), Raised> {
    let this: This<'_, '_, T> = assume(py, &object);
    if this.with(|state| state.lost || state.queue.is_empty()) {
        return Ok(());
    }
    this.run(|| {
        if let Err(error) = this.flush() {
            return this.write_failed(&error);
        }
        if T::ENDS_BY_CLOSING && this.with(|state| !state.queue.is_empty()) {
            return Ok(());
        }
        // It may write more.
        this.resume_protocol()?;
        let is_empty = this.with(|state| state.queue.is_empty());
        if is_empty { this.emptied() } else { Ok(()) }
    })
}

pub(super) fn write<T: Writes>(this: This<'_, '_, T>, args: Args<'_>) -> RawResult {
    let data = match args.only() {
        Some(data) => data,
        None => args.parse(this.py(), "write", [c"data"], 1)?[0],
    };
    this.write(data)?;
    Ok(raw::none())
}

pub(super) fn writelines<T: Writes>(this: This<'_, '_, T>, args: Args<'_>) -> RawResult {
    let py = this.py();
    let [list] = args.parse(py, "writelines", [c"list_of_data"], 1)?;
    let now = this.with(|state| {
        let waited_for = "unable to writelines; sendfile is in progress";
        state.now::<T>("Cannot call writelines() after write_eof()", waited_for)
    });
    if let Now::Refuse(message) = now {
        return Err(Raised::new::<PyRuntimeError>(py, message));
    }
    // SAFETY: an argument is live.
    let list = unsafe { Bound::from_borrowed_ptr(py, list) };
    let chunks = chunks_of(&list).map_err(|error| Raised::from_err(py, error))?;
    if chunks.is_empty() {
        return Ok(raw::none());
    }
    // Making the list may have run anything.
    let was_empty = match this.with(|state| state.now::<T>("", "")) {
        Now::Ignore => {
            this.ignore_write()?;
            return Ok(raw::none());
        }
        Now::Refuse(_) => return Err(Raised::new::<PyRuntimeError>(py, "the transport was ended meanwhile")),
        now => matches!(now, Now::Send),
    };
    this.with(|state| chunks.into_iter().for_each(|chunk| state.queue.push(chunk, 0)));
    if was_empty {
        if let Err(error) = this.flush() {
            this.write_failed(&error)?;
            return Ok(raw::none());
        }
        if this.with(|state| state.queue.is_empty()) {
            return Ok(raw::none());
        }
        this.watch_writing()?;
    }
    this.pause_protocol()?;
    Ok(raw::none())
}

pub(super) fn can_write_eof<T: Writes>(_this: This<'_, '_, T>) -> RawResult {
    Ok(raw::bool(true))
}
