//! Writing to a stream transport.
#![allow(unsafe_code)]

use super::chunk::{Chunk, chunks_of};
use super::os_error;
use super::stream::{State, Stream, assume};
use crate::aio::stdlib::Import;
use crate::obj::Obj;
use crate::raw::{self, Args, Raised, RawResult, This, methods};
use juggler_loop::buffer::MOST_SLICES;
use juggler_loop::net;
use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use std::io::{self, IoSlice};

const WRITE_FAILED: &str = "Fatal write error on socket transport";

/// After so many writes to a connection that is lost there is a warning for each.
const SILENT_WRITES: u32 = 5;

static LOGGER: Import = Import::new("asyncio.log", "logger");

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

impl State {
    fn now(&self, ended: &'static str, waited_for: &'static str) -> Now {
        if self.ended {
            Now::Refuse(ended)
        } else if self.empty_waiter.is_some() {
            Now::Refuse(waited_for)
        } else if self.lost > 0 {
            Now::Ignore
        } else if self.buffer.is_empty() {
            Now::Send
        } else {
            Now::Buffer
        }
    }
}

impl This<'_, '_, Stream> {
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
            state.now("Cannot call write() after write_eof()", "unable to write; sendfile is in progress")
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
            Now::Send => match net::send(self.fd, chunk.as_ref()) {
                Ok(Some(sent)) if sent == length => return Ok(()),
                Ok(sent) => {
                    written = sent.unwrap_or(0);
                    self.watch_writing()?;
                }
                Err(error) => return self.fail_io(&error, WRITE_FAILED),
            },
            _ => {}
        }
        let (bytes, written) = chunk.keep(py, written)?;
        self.with(|state| state.buffer.push(bytes, written));
        self.pause_protocol()
    }

    #[cold]
    fn ignore_write(self) -> Result<(), Raised> {
        let py = self.py();
        let silent = self.with(|state| {
            state.lost = state.lost.saturating_add(1);
            state.lost <= SILENT_WRITES
        });
        if silent {
            return Ok(());
        }
        let warned =
            LOGGER.get(py).and_then(|logger| logger.call_method1("warning", ("socket.send() raised exception.",)));
        warned.map(drop).map_err(|error| Raised::from_err(py, error))
    }

    /// Writes what the system takes of the buffer.
    fn flush(self) -> io::Result<()> {
        let mut done = Vec::new();
        let flushed = self.with(|state| {
            let mut slices = [IoSlice::new(&[]); MOST_SLICES];
            let count = state.buffer.slices(&mut slices);
            let sent = net::send_slices(self.fd, &slices[..count])?.unwrap_or(0);
            state.buffer.advance(sent, &mut done);
            Ok(())
        });
        drop(done);
        flushed
    }

    /// Calls the protocol's `pause_writing` if there is too much in the buffer.
    #[inline]
    pub(super) fn pause_protocol(self) -> Result<(), Raised> {
        let pause = self.with(|state| {
            state.buffer.len() > state.limits.high && !std::mem::replace(&mut state.protocol_paused, true)
        });
        if !pause {
            return Ok(());
        }
        let told = self.tell(intern!(self.py(), "pause_writing"), None).map(drop);
        told.or_else(|raised| self.report_raised("protocol.pause_writing() failed", raised))
    }

    /// Calls the protocol's `resume_writing` if it was paused, and the buffer is empty enough.
    fn resume_protocol(self) -> Result<(), Raised> {
        let resume =
            self.with(|state| state.buffer.len() <= state.limits.low && std::mem::take(&mut state.protocol_paused));
        if !resume {
            return Ok(());
        }
        let told = self.tell(intern!(self.py(), "resume_writing"), None).map(drop);
        told.or_else(|raised| self.report_raised("protocol.resume_writing() failed", raised))
    }

    #[cold]
    fn write_failed(self, error: &io::Error) -> Result<(), Raised> {
        let py = self.py();
        let waiter = self.with(|state| state.empty_waiter.as_ref().map(|waiter| waiter.clone_ref(py)));
        self.fail_io(error, WRITE_FAILED)?;
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
            let lose = state.closing && state.lost == 0;
            state.lost += u32::from(lose);
            (waiter, lose, state.ended)
        });
        if let Some(waiter) = waiter {
            crate::aio::sync::parking::wake(py, &waiter)?;
        }
        if lose {
            return self.lose();
        }
        if end { self.shut_down() } else { Ok(()) }
    }

    fn shut_down(self) -> Result<(), Raised> {
        let shut = net::shut_down_sending(self.fd);
        shut.map_err(|error| Raised::from_err(self.py(), os_error(&error)))
    }
}

/// Writes what waits.
pub(super) fn ready(py: Python<'_>, object: Obj) -> Result<(), Raised> {
    let this = assume(py, &object);
    if this.with(|state| state.lost > 0 || state.buffer.is_empty()) {
        return Ok(());
    }
    this.run(|| {
        if let Err(error) = this.flush() {
            return this.write_failed(&error);
        }
        // It may write more.
        this.resume_protocol()?;
        let is_empty = this.with(|state| state.buffer.is_empty());
        if is_empty { this.emptied() } else { Ok(()) }
    })
}

fn write(this: This<'_, '_, Stream>, args: Args<'_>) -> RawResult {
    let data = match args.only() {
        Some(data) => data,
        None => args.parse(this.py(), "write", [c"data"], 1)?[0],
    };
    this.write(data)?;
    Ok(raw::none())
}

fn writelines(this: This<'_, '_, Stream>, args: Args<'_>) -> RawResult {
    let py = this.py();
    let [list] = args.parse(py, "writelines", [c"list_of_data"], 1)?;
    let now = this.with(|state| {
        let waited_for = "unable to writelines; sendfile is in progress";
        state.now("Cannot call writelines() after write_eof()", waited_for)
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
    let was_empty = match this.with(|state| state.now("", "")) {
        Now::Ignore => {
            this.ignore_write()?;
            return Ok(raw::none());
        }
        Now::Refuse(_) => return Err(Raised::new::<PyRuntimeError>(py, "the transport was ended meanwhile")),
        now => matches!(now, Now::Send),
    };
    this.with(|state| chunks.into_iter().for_each(|chunk| state.buffer.push(chunk, 0)));
    if was_empty {
        if let Err(error) = this.flush() {
            this.write_failed(&error)?;
            return Ok(raw::none());
        }
        if this.with(|state| state.buffer.is_empty()) {
            return Ok(raw::none());
        }
        this.watch_writing()?;
    }
    this.pause_protocol()?;
    Ok(raw::none())
}

fn write_eof(this: This<'_, '_, Stream>) -> RawResult {
    let shut_down = this.with(|state| {
        let begins = !state.closing && !std::mem::replace(&mut state.ended, true);
        begins && state.buffer.is_empty()
    });
    if shut_down {
        this.shut_down()?;
    }
    Ok(raw::none())
}

fn can_write_eof(_this: This<'_, '_, Stream>) -> RawResult {
    Ok(raw::bool(true))
}

fn get_write_buffer_size(this: This<'_, '_, Stream>) -> RawResult {
    let size = this.with(|state| state.buffer.len());
    // SAFETY: the thread is attached.
    crate::aio::callback::owned(unsafe { pyo3::ffi::PyLong_FromSize_t(size) }).map(Obj::into_ptr)
}

methods! { add_methods for Stream {
    "write" => keywords write, "($self, data)\n--\n\n\
        Write bytes, a bytearray or a memoryview; does not block: what the system does not take at once is kept.\n\n\
        Of a bytearray or a memoryview, what is kept is copied, and it may be changed at once.";
    "writelines" => keywords writelines, "($self, list_of_data)\n--\n\n\
        Write all items of an iterable, with one system call if the system takes them.";
    "write_eof" => noargs write_eof, "($self, /)\n--\n\n\
        End this side of the connection when everything is written; the other may go on.";
    "can_write_eof" => noargs can_write_eof, "($self, /)\n--\n\nTrue: there is `write_eof`.";
    "get_write_buffer_size" => noargs get_write_buffer_size, "($self, /)\n--\n\n\
        How many bytes are waiting to be written.";
} }
