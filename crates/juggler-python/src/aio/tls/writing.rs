//! What a program writes over TLS.
#![allow(unsafe_code)]

use super::openssl::Outcome;
use super::transport::{Stage, Tls, as_tls};
use crate::aio::stdlib::Import;
use crate::aio::transport::chunk::{Bytes, Chunk, chunks_of};
use crate::aio::transport::{as_stream, call_method};
use crate::raw::{self, Args, Raised, RawResult, This, methods};
use pyo3::intern;
use pyo3::prelude::*;

/// After so many writes to a connection that is closed there is a warning for each.
const SILENT_WRITES: u32 = 5;

static LOGGER: Import = Import::new("asyncio.log", "logger");

impl This<'_, '_, Tls> {
    /// How much is not with the transport below yet.
    pub(super) fn write_buffer_size(self) -> Result<usize, Raised> {
        Ok(self.session.unsent(self.py())? + self.with(|state| state.backlog.len()))
    }

    /// `write`
    ///
    /// # Errors
    /// `TypeError`; `KeyboardInterrupt` and `SystemExit` out of the protocol.
    #[inline]
    pub fn write(self, data: *mut pyo3::ffi::PyObject) -> Result<(), Raised> {
        self.write_chunk(Chunk::new(self.py(), data)?)
    }

    fn write_chunk(self, chunk: Chunk<'_>) -> Result<(), Raised> {
        if chunk.as_ref().is_empty() {
            return Ok(());
        }
        let (stage, is_first) = self.with(|state| (state.stage, state.backlog.is_empty()));
        match stage {
            Stage::Wrapped if is_first => self.encrypt(chunk).or_else(|raised| self.fail(raised)),
            Stage::Wrapped | Stage::Handshake => {
                let (bytes, _) = chunk.keep(self.py(), 0)?;
                self.with(|state| state.backlog.push(bytes, 0));
                self.write_kept_of(stage)
            }
            _ => self.ignore_write(),
        }
    }

    fn encrypt(self, chunk: Chunk<'_>) -> Result<(), Raised> {
        let py = self.py();
        let outcome = self.call(|session| session.write(py, chunk.as_ref()))?;
        if !matches!(outcome, Outcome::Some(_)) {
            let (bytes, _) = chunk.keep(py, 0)?;
            self.with(|state| state.backlog.push(bytes, 0));
        }
        self.flush()
    }

    /// Encrypts what was kept, if it is time.
    fn write_kept_of(self, stage: Stage) -> Result<(), Raised> {
        match stage {
            Stage::Wrapped => self.write_kept().or_else(|raised| self.fail(raised)),
            _ => Ok(()),
        }
    }

    /// Encrypts what was kept, as far as that can be done, and sends it.
    pub(super) fn write_kept(self) -> Result<(), Raised> {
        let py = self.py();
        let mut done = Vec::new();
        while let Some(first) = self.with(|state| state.backlog.iter().next().map(|first| first.clone_ref(py))) {
            let outcome = self.call(|session| session.write(py, first.as_ref()))?;
            if !matches!(outcome, Outcome::Some(_)) {
                break;
            }
            self.with(|state| {
                let is_first = |known: &Bytes| std::ptr::eq(known.as_ref(), first.as_ref());
                if state.backlog.iter().next().is_some_and(is_first) {
                    state.backlog.advance(first.as_ref().len(), &mut done);
                }
            });
            done.clear();
        }
        self.flush()
    }

    #[cold]
    fn ignore_write(self) -> Result<(), Raised> {
        let py = self.py();
        let silent = self.with(|state| {
            state.ignored = state.ignored.saturating_add(1);
            state.ignored <= SILENT_WRITES
        });
        if silent {
            return Ok(());
        }
        let warned = LOGGER.get(py).and_then(|logger| logger.call_method1("warning", ("SSL connection is closed",)));
        warned.map(drop).map_err(|error| Raised::from_err(py, error))
    }

    /// Gives what is encrypted to the transport below, unless that has too much already.
    pub(super) fn flush(self) -> Result<(), Raised> {
        let py = self.py();
        if !self.with(|state| state.held) {
            let encrypted = self.session.take(py)?;
            if !encrypted.is_empty() {
                self.send(&encrypted)?;
            }
            self.session.give_back(encrypted);
        }
        self.control_writing()
    }

    fn send(self, encrypted: &[u8]) -> Result<(), Raised> {
        let py = self.py();
        let Some(lower) = self.lower() else { return Ok(()) };
        if let Some(stream) = as_stream(py, &lower) {
            return stream.write_chunk(Chunk::Slice(encrypted));
        }
        if let Some(tls) = as_tls(py, &lower) {
            return tls.write_chunk(Chunk::Slice(encrypted));
        }
        let bytes = Bytes::copy(py, encrypted)?.into_obj();
        call_method(&lower, intern!(py, "write"), Some(bytes.as_ptr())).map(drop)
    }

    /// Calls the protocol's `pause_writing` or `resume_writing`, if it is time.
    pub(super) fn control_writing(self) -> Result<(), Raised> {
        let py = self.py();
        let size = self.write_buffer_size()?;
        let pause = self.with(|state| {
            let pause = if state.protocol_paused { size > state.writing.low } else { size >= state.writing.high };
            (std::mem::replace(&mut state.protocol_paused, pause) != pause).then_some(pause)
        });
        let (name, message) = match pause {
            None => return Ok(()),
            Some(true) => (intern!(py, "pause_writing"), "protocol.pause_writing() failed"),
            Some(false) => (intern!(py, "resume_writing"), "protocol.resume_writing() failed"),
        };
        self.tell(name, None).map(drop).or_else(|raised| self.report_raised(message, raised))
    }
}

fn write(this: This<'_, '_, Tls>, args: Args<'_>) -> RawResult {
    let data = match args.only() {
        Some(data) => data,
        None => args.parse(this.py(), "write", [c"data"], 1)?[0],
    };
    this.write(data)?;
    Ok(raw::none())
}

fn writelines(this: This<'_, '_, Tls>, args: Args<'_>) -> RawResult {
    let py = this.py();
    let [list] = args.parse(py, "writelines", [c"list_of_data"], 1)?;
    // SAFETY: an argument is live.
    let list = unsafe { Bound::from_borrowed_ptr(py, list) };
    let chunks = chunks_of(&list).map_err(|error| Raised::from_err(py, error))?;
    let stage = this.with(|state| state.stage);
    if matches!(stage, Stage::Handshake | Stage::Wrapped) {
        this.with(|state| chunks.into_iter().for_each(|chunk| state.backlog.push(chunk, 0)));
        this.write_kept_of(stage)?;
    } else {
        this.ignore_write()?;
    }
    Ok(raw::none())
}

fn pause_writing(this: This<'_, '_, Tls>) -> RawResult {
    this.with(|state| state.held = true);
    Ok(raw::none())
}

fn resume_writing(this: This<'_, '_, Tls>) -> RawResult {
    this.with(|state| state.held = false);
    this.flush()?;
    Ok(raw::none())
}

fn write_kept(this: This<'_, '_, Tls>) -> RawResult {
    this.write_kept()?;
    Ok(raw::none())
}

fn flush(this: This<'_, '_, Tls>) -> RawResult {
    this.flush()?;
    Ok(raw::none())
}

methods! { add_methods for Tls {
    "write" => keywords write, "($self, data)\n--\n\n\
        Write bytes, a bytearray or a memoryview; does not block: what can't be sent at once is kept.\n\n\
        Of a bytearray or a memoryview, what is kept is copied, and it may be changed at once.";
    "writelines" => keywords writelines, "($self, list_of_data)\n--\n\nWrite all items of an iterable.";
    "pause_writing" => noargs pause_writing, "($self, /)\n--\n\n\
        For the transport below: it has too much to write.";
    "resume_writing" => noargs resume_writing, "($self, /)\n--\n\n\
        For the transport below: it takes more again.";
    "_write_kept" => noargs write_kept, "($self, /)\n--\n\n";
    "_flush" => noargs flush, "($self, /)\n--\n\n";
} }
