//! What comes over TLS.
#![allow(unsafe_code)]

use super::openssl::Outcome;
use super::transport::{Stage, Tls, as_tls};
use crate::aio::entry::{Entry, Kind};
use crate::aio::streams::{StreamReader, after_end};
use crate::aio::transport::chunk::{Bytes, Chunk, NewBytes};
use crate::aio::transport::sink::{Sink, get_buffer, integer};
use crate::aio::transport::{self, call_method, in_context};
use crate::obj::Obj;
use crate::raw::{self, Args, Raised, RawResult, This, methods};
use juggler_loop::buffer::Scratch;
use pyo3::intern;
use pyo3::prelude::*;

/// What a record holds at most: so much may have been decrypted before, and not been asked for.
const PLAIN_RECORD: usize = 16 * 1024;

/// Goes on with what has come, in a turn of its own.
static PROCEED: Kind = Kind { run: proceed, is_cancelled: |_| false };

fn proceed(py: Python<'_>, object: Obj) -> Result<(), Raised> {
    let Some(this) = as_tls(py, &object) else { return Ok(()) };
    let proceeded = in_context(&this.context, || this.proceed());
    proceeded.or_else(|raised| this.report_raised("Exception while TLS went on after a pause", raised))
}

impl This<'_, '_, Tls> {
    /// Takes what has come for the transport below.
    ///
    /// # Errors
    /// What its protocol's methods raise, if that is none of `Exception`'s; `ssl.SSLError`.
    pub fn receive(self, bytes: &[u8]) -> Result<(), Raised> {
        self.session.feed(self.py(), bytes)?;
        self.proceed()
    }

    /// The same for the first `count` bytes of `place`.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub fn receive_lent(self, place: Scratch, count: usize) -> Result<(), Raised> {
        self.session.lend(self.py(), place, count)?;
        let proceeded = self.proceed();
        self.session.settle();
        proceeded
    }

    /// Does with what has come what belongs to the stage.
    fn proceed(self) -> Result<(), Raised> {
        let py = self.py();
        match self.with(|state| state.stage) {
            Stage::Unwrapped => Ok(()),
            Stage::Handshake => self.ask(intern!(py, "_do_handshake")),
            Stage::Wrapped => self.read(),
            Stage::Flushing => self.ask(intern!(py, "_do_flush")),
            Stage::Shutdown => self.ask(intern!(py, "_do_shutdown")),
        }
    }

    /// Has [`proceed`](Self::proceed) called in a turn of its own.
    fn proceed_later(self) {
        self.event_loop().push(self.py(), Entry { object: self.object(), kind: &PROCEED });
    }

    /// Decrypts what has come, and tells the protocol.
    fn read(self) -> Result<(), Raised> {
        match self.with(|state| state.stage) {
            Stage::Wrapped | Stage::Flushing => self.read_now().or_else(|raised| self.fail(raised)),
            _ => Ok(()),
        }
    }

    fn read_now(self) -> Result<(), Raised> {
        let sink = self.with(|state| (!state.paused).then(|| state.told.sink.clone_ref(self.py())));
        if let Some(sink) = sink {
            let ended = match sink {
                Sink::Buffered => self.read_into_protocol()?,
                sink => self.read_all(&sink)?,
            };
            if ended {
                self.ask(intern!(self.py(), "_ended"))?;
            }
            if self.with(|state| state.backlog.is_empty()) { self.flush() } else { self.write_kept() }?;
        }
        self.control_reading()
    }

    /// Gives all that can be decrypted to `sink`, at once. Says whether it was the end.
    fn read_all(self, sink: &Sink) -> Result<bool, Raised> {
        let py = self.py();
        let waiting = self.session.waiting(py)?;
        // Much is decrypted to where it is to be, instead of being copied there.
        if matches!(sink, Sink::Protocol) && waiting > PLAIN_RECORD {
            let mut data = NewBytes::new(waiting + PLAIN_RECORD)?;
            let (count, ended) = self.decrypt(data.place())?;
            if count > 0 {
                let data = data.finish(count)?;
                drop(self.tell(intern!(py, "data_received"), Some(data.as_ptr()))?);
            }
            return Ok(ended);
        }
        let mut place = Scratch::take();
        place.reserve(waiting + PLAIN_RECORD);
        let (count, ended) = self.decrypt(&mut place)?;
        let data = &place[..count];
        match sink {
            _ if data.is_empty() => {}
            Sink::Reader(reader) => {
                // SAFETY: it is a reader, and lives as long as the reference.
                let reader: This<'_, '_, StreamReader> = unsafe { This::new(py, reader.as_ptr()) };
                if !reader.put(data) {
                    return Err(after_end(py));
                }
                reader.notify()?;
            }
            Sink::Tls(outer) => {
                if let Some(outer) = as_tls(py, outer) {
                    outer.receive_lent(place, count)?;
                }
            }
            Sink::Protocol | Sink::Buffered => {
                let data = Bytes::copy(py, data)?.into_obj();
                drop(place);
                drop(self.tell(intern!(py, "data_received"), Some(data.as_ptr()))?);
            }
        }
        Ok(ended)
    }

    /// Decrypts all that has come, or as much as `place` has room for: the rest has its turn later. Says how much it was, and
    /// whether the end came after it.
    fn decrypt(self, place: &mut [u8]) -> Result<(usize, bool), Raised> {
        let py = self.py();
        let mut count = 0;
        while count < place.len() {
            match self.call(|session| session.read(py, &mut place[count..]))? {
                Outcome::Some(more) => count += more,
                Outcome::Again => return Ok((count, false)),
                Outcome::End => return Ok((count, true)),
            }
        }
        self.proceed_later();
        Ok((count, false))
    }

    /// Decrypts into the protocol's own buffer. Says whether it was the end.
    fn read_into_protocol(self) -> Result<bool, Raised> {
        let py = self.py();
        let Some(protocol) = self.protocol() else { return Ok(false) };
        let buffer = get_buffer(py, &protocol, self.session.waiting(py)? as isize)?;
        // SAFETY: the buffer is held, can be written to, and is as long as it says. Nothing else is done with it meanwhile.
        let place = unsafe { std::slice::from_raw_parts_mut(buffer.start(), buffer.bytes().len()) };
        let (count, ended) = self.decrypt(place)?;
        drop(buffer);
        if count > 0 {
            let count = integer(count as isize)?;
            drop(call_method(&protocol, intern!(py, "buffer_updated"), Some(count.as_ptr()))?);
        }
        Ok(ended)
    }

    /// Has the transport below pause or resume, as much as waits to be decrypted.
    pub(super) fn control_reading(self) -> Result<(), Raised> {
        let py = self.py();
        let waiting = self.session.waiting(py)?;
        let pause = self.with(|state| {
            let pause = if state.lower_paused { waiting > state.reading.low } else { waiting >= state.reading.high };
            (std::mem::replace(&mut state.lower_paused, pause) != pause).then_some(pause)
        });
        let (Some(pause), Some(lower)) = (pause, self.lower()) else { return Ok(()) };
        if pause { transport::pause_reading(py, &lower) } else { transport::resume_reading(py, &lower) }
    }
}

fn data_received(this: This<'_, '_, Tls>, args: Args<'_>) -> RawResult {
    let py = this.py();
    let [data] = args.parse(py, "data_received", [c"data"], 1)?;
    let chunk = Chunk::new(py, data)?;
    this.receive(chunk.as_ref())?;
    Ok(raw::none())
}

fn read(this: This<'_, '_, Tls>) -> RawResult {
    this.read()?;
    Ok(raw::none())
}

fn pause_reading(this: This<'_, '_, Tls>) -> RawResult {
    this.with(|state| state.paused = true);
    Ok(raw::none())
}

fn resume_reading(this: This<'_, '_, Tls>) -> RawResult {
    if this.with(|state| std::mem::replace(&mut state.paused, false)) {
        this.event_loop().check_closed(this.py())?;
        this.proceed_later();
    }
    Ok(raw::none())
}

methods! { add_methods for Tls {
    "data_received" => keywords data_received, "($self, data)\n--\n\nFor the transport below: this has come.";
    "pause_reading" => noargs pause_reading, "($self, /)\n--\n\nRead nothing until `resume_reading` is called.";
    "resume_reading" => noargs resume_reading, "($self, /)\n--\n\nRead again.";
    "_read" => noargs read, "($self, /)\n--\n\n";
} }
