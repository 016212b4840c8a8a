//! `read` and its siblings.
#![allow(unsafe_code)]

use super::reader::{State, StreamReader};
use crate::aio::future::none;
use crate::aio::stdlib::Import;
use crate::aio::sync::coroutine;
use crate::aio::sync::operation::{Ending, Next, Operation, Step, raise};
use crate::aio::transport::chunk::Bytes;
use crate::ipc::pickle::Buffer;
use crate::obj::Obj;
use crate::raw::{self, Args, Raised, RawResult, This, methods};
use juggler_loop::search::find;
use pyo3::exceptions::{PyStopAsyncIteration, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use std::ops::RangeInclusive;

static INCOMPLETE_READ: Import = Import::new("asyncio.exceptions", "IncompleteReadError");
static LIMIT_OVERRUN: Import = Import::new("asyncio.exceptions", "LimitOverrunError");

const FOUND_TOO_LATE: &str = "Separator is found, but chunk is longer than limit";
const NOT_FOUND: &str = "Separator is not found, and chunk exceed the limit";

/// A read of a stream.
pub struct Read {
    reader: Obj,
    what: What,
}

enum What {
    /// At most so many bytes.
    Some(usize),
    /// What there is until the end: what has come so far.
    All(Vec<u8>),
    Exactly(usize),
    /// Up to a separator, which was not found before this place.
    Until(Vec<Vec<u8>>, usize),
    /// The same with the end of a line; as an iterator's next.
    Line(usize, bool),
    /// Until data comes.
    Data(&'static str),
}

/// What comes of trying to read.
pub(super) enum Attempt {
    Done(Result<Obj, Raised>),
    /// More must come.
    Wait,
    /// The end came before so many bytes did; this is what there was.
    Incomplete(Result<Obj, Raised>, Option<usize>),
    /// There is no separator within the limit.
    Overrun(&'static str, usize),
}

impl State {
    fn take(&mut self, py: Python<'_>, count: usize) -> Attempt {
        Attempt::Done(self.incoming.take(py, count))
    }

    fn take_incomplete(&mut self, py: Python<'_>, expected: Option<usize>) -> Attempt {
        Attempt::Incomplete(self.incoming.take(py, self.incoming.len()), expected)
    }

    fn read(&mut self, py: Python<'_>, most: usize) -> Attempt {
        if self.incoming.is_empty() && !self.ended && most > 0 {
            return Attempt::Wait;
        }
        self.take(py, most.min(self.incoming.len()))
    }

    fn read_all(&mut self, py: Python<'_>, all: &mut Vec<u8>) -> Attempt {
        let buffer = self.incoming.buffer();
        all.extend_from_slice(buffer.as_slice());
        buffer.clear();
        if self.ended { Attempt::Done(Bytes::copy(py, all).map(Bytes::into_obj)) } else { Attempt::Wait }
    }

    fn read_exactly(&mut self, py: Python<'_>, count: usize) -> Attempt {
        if self.incoming.len() >= count {
            self.take(py, count)
        } else if self.ended {
            self.take_incomplete(py, Some(count))
        } else {
            Attempt::Wait
        }
    }

    /// The shortest that ends with any of the separators, which are sorted by length.
    fn read_until<T: AsRef<[u8]>>(&mut self, py: Python<'_>, separators: &[T], offset: &mut usize) -> Attempt {
        let lengths = separators.iter().map(|separator| separator.as_ref().len());
        let (shortest, longest) = (lengths.clone().min().unwrap_or(0), lengths.max().unwrap_or(0));
        let data = self.incoming.buffer().as_slice();
        if data.len() - (*offset).min(data.len()) >= shortest {
            let ends = separators.iter().filter_map(|separator| {
                let separator = separator.as_ref();
                let start = *offset + find(&data[*offset..], separator)?;
                Some((start + separator.len(), start))
            });
            // The first of those that end at the same place.
            if let Some((end, start)) = ends.min_by_key(|&(end, _)| end) {
                return if start > self.limit { Attempt::Overrun(FOUND_TOO_LATE, start) } else { self.take(py, end) };
            }
            *offset = (data.len() + 1).saturating_sub(longest);
            if *offset > self.limit {
                return Attempt::Overrun(NOT_FOUND, *offset);
            }
        }
        if self.ended { self.take_incomplete(py, None) } else { Attempt::Wait }
    }

    /// Drops a line that is too long: all of it if its end is there.
    fn drop_line(&mut self, consumed: usize) {
        let buffer = self.incoming.buffer();
        if buffer.as_slice().get(consumed) == Some(&b'\n') {
            buffer.consume(consumed + 1);
        } else {
            buffer.clear();
        }
    }
}

impl Read {
    fn this<'py>(&self, py: Python<'py>) -> This<'_, 'py, StreamReader> {
        // SAFETY: it is a reader; `self` keeps it alive.
        unsafe { This::new(py, self.reader.as_ptr()) }
    }

    fn go(&mut self, py: Python<'_>) -> Next {
        // SAFETY: it is a reader, and lives as long as the coroutine that holds this.
        let this: This<'_, '_, StreamReader> = unsafe { This::new(py, self.reader.as_ptr()) };
        if let What::Data(name) = self.what {
            return this.wait(name, None).map(Step::Await);
        }
        let (attempt, resume) = {
            let what = &mut self.what;
            let attempt = this.with(|state| match what {
                What::Some(most) => state.read(py, *most),
                What::All(all) => state.read_all(py, all),
                What::Exactly(count) => state.read_exactly(py, *count),
                What::Until(separators, offset) => state.read_until(py, separators, offset),
                What::Line(offset, _) => state.read_until(py, &[b"\n"], offset),
                What::Data(_) => Attempt::Wait,
            });
            (attempt, this.with(|state| state.paused && state.incoming.len() <= state.limit))
        };
        let is_line = matches!(self.what, What::Line(..));
        match attempt {
            Attempt::Done(taken) => {
                let taken = taken?;
                if resume {
                    this.resume_transport()?;
                }
                self.done(py, taken)
            }
            Attempt::Wait => this.wait(self.called(), self.wanted()).map(Step::Await),
            Attempt::Incomplete(taken, _) if is_line => self.done(py, taken?),
            Attempt::Incomplete(taken, expected) => Err(INCOMPLETE_READ.raise(py, (taken?.bind(py), expected))),
            Attempt::Overrun(message, consumed) if is_line => {
                this.with(|state| state.drop_line(consumed));
                if this.with(|state| state.paused && state.incoming.len() <= state.limit) {
                    this.resume_transport()?;
                }
                Err(Raised::new::<PyValueError>(py, message))
            }
            Attempt::Overrun(message, consumed) => Err(LIMIT_OVERRUN.raise(py, (message, consumed))),
        }
    }

    fn done(&self, py: Python<'_>, taken: Obj) -> Next {
        // SAFETY: a bytes object.
        if matches!(self.what, What::Line(_, true)) && unsafe { ffi::PyBytes_Size(taken.as_ptr()) } == 0 {
            return Err(Raised::from_err(py, PyStopAsyncIteration::new_err(())));
        }
        Ok(Step::Done(taken))
    }

    /// How many bytes end the read, if there are none yet.
    fn wanted(&self) -> Option<RangeInclusive<usize>> {
        match self.what {
            What::Some(most) => Some(1..=most),
            What::Exactly(count) => Some(count..=count),
            What::All(_) | What::Until(..) | What::Line(..) | What::Data(_) => None,
        }
    }

    /// What the standard library says was called.
    fn called(&self) -> &'static str {
        match self.what {
            What::Some(_) | What::All(_) => "read",
            What::Exactly(_) => "readexactly",
            What::Until(..) | What::Line(..) => "readuntil",
            What::Data(name) => name,
        }
    }
}

impl Operation for Read {
    #[inline(always)]
    fn begin(&mut self, py: Python<'_>) -> Next {
        let exception = match self.what {
            What::Data(_) => None,
            _ => self.this(py).get(|state| &state.exception),
        };
        match exception {
            Some(exception) => Err(raise(py, exception)),
            None => self.go(py),
        }
    }

    fn resume(&mut self, py: Python<'_>, _future: &Obj, ending: Ending) -> Next {
        self.this(py).leave();
        match ending {
            Ending::Thrown(error) => Err(raise(py, error)),
            Ending::Woken(_) if matches!(self.what, What::Data(_)) => Ok(Step::Done(none())),
            // `read()` is a loop of reads.
            Ending::Woken(_) if matches!(self.what, What::All(_)) => self.begin(py),
            Ending::Woken(_) => self.go(py),
        }
    }

    fn name(&self) -> &'static str {
        match self.what {
            What::Some(_) | What::All(_) => "StreamReader.read",
            What::Exactly(_) => "StreamReader.readexactly",
            What::Until(..) => "StreamReader.readuntil",
            What::Line(_, false) => "StreamReader.readline",
            What::Line(_, true) => "StreamReader.__anext__",
            What::Data(_) => "StreamReader._wait_for_data",
        }
    }

    fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.reader.visit(visit)
    }
}

fn create(this: This<'_, '_, StreamReader>, what: What) -> RawResult {
    // SAFETY: the receiver is live.
    let reader = unsafe { Obj::from_borrowed(this.as_any().as_ptr()) };
    coroutine::create(this.py(), Read { reader, what })
}

/// A number of bytes, at most what fits a `usize`; `None` if it is negative.
fn count(object: *mut ffi::PyObject) -> Result<Option<usize>, Raised> {
    // SAFETY: an argument is live; who calls is attached.
    let count = unsafe { ffi::PyNumber_AsSsize_t(object, std::ptr::null_mut()) };
    // SAFETY: as above.
    if count == -1 && !unsafe { ffi::PyErr_Occurred() }.is_null() {
        return Err(Raised);
    }
    Ok(usize::try_from(count).ok())
}

fn read(this: This<'_, '_, StreamReader>, args: Args<'_>) -> RawResult {
    let [n] = args.parse(this.py(), "read", [c"n"], 0)?;
    let most = if n.is_null() { None } else { count(n)? };
    create(this, most.map_or(What::All(Vec::new()), What::Some))
}

fn readexactly(this: This<'_, '_, StreamReader>, args: Args<'_>) -> RawResult {
    let py = this.py();
    let [n] = args.parse(py, "readexactly", [c"n"], 1)?;
    let Some(count) = count(n)? else {
        return Err(Raised::new::<PyValueError>(py, "readexactly size can not be less than zero"));
    };
    create(this, What::Exactly(count))
}

fn readline(this: This<'_, '_, StreamReader>) -> RawResult {
    create(this, What::Line(0, false))
}

fn readuntil(this: This<'_, '_, StreamReader>, args: Args<'_>) -> RawResult {
    let py = this.py();
    let [separator] = args.parse(py, "readuntil", [c"separator"], 0)?;
    let mut separators = Vec::new();
    // SAFETY: arguments are live, and so are the items of a tuple.
    unsafe {
        if separator.is_null() {
            separators.push(b"\n".to_vec());
        } else if ffi::PyTuple_Check(separator) != 0 {
            for at in 0..ffi::PyTuple_GET_SIZE(separator) {
                separators.push(copied(ffi::PyTuple_GET_ITEM(separator, at))?);
            }
        } else {
            separators.push(copied(separator)?);
        }
    }
    separators.sort_by_key(Vec::len);
    let problem = match separators.first().map(Vec::len) {
        None => "Separator should contain at least one element",
        Some(0) => "Separator should be at least one-byte string",
        Some(_) => return create(this, What::Until(separators, 0)),
    };
    Err(Raised::new::<PyValueError>(py, problem))
}

fn copied(object: *mut ffi::PyObject) -> Result<Vec<u8>, Raised> {
    Ok(Buffer::new(object, ffi::PyBUF_SIMPLE)?.bytes().to_vec())
}

fn anext(this: This<'_, '_, StreamReader>) -> RawResult {
    create(this, What::Line(0, true))
}

fn wait_for_data(this: This<'_, '_, StreamReader>, args: Args<'_>) -> RawResult {
    args.parse(this.py(), "_wait_for_data", [c"func_name"], 1)?;
    create(this, What::Data("_wait_for_data"))
}

fn aiter(this: This<'_, '_, StreamReader>) -> RawResult {
    // SAFETY: the receiver is live.
    Ok(unsafe { Obj::from_borrowed(this.as_any().as_ptr()) }.into_ptr())
}

fn maybe_resume_transport(this: This<'_, '_, StreamReader>) -> RawResult {
    if this.with(|state| state.paused && state.incoming.len() <= state.limit) {
        this.resume_transport()?;
    }
    Ok(raw::none())
}

methods! { add_methods for StreamReader {
    "read" => keywords read, "($self, n=-1)\n--\n\n\
        Read what there is, at most `n` bytes; waits for the first. A negative `n`: everything until the end.\n\n\
        Coroutine. Empty bytes: the end.";
    "readexactly" => keywords readexactly, "($self, n)\n--\n\n\
        Read `n` bytes. Coroutine.\n\n\
        Raises:\n    IncompleteReadError: the end came before; its `partial` has what there was.";
    "readline" => noargs readline, "($self, /)\n--\n\n\
        Read up to the end of a line, which is included; at the end of the stream what there is. Coroutine.\n\n\
        Raises:\n    ValueError: the line is longer than the limit.";
    "readuntil" => keywords readuntil, "($self, separator=b'\\n')\n--\n\n\
        Read up to a separator, or to the first of several in a tuple, which is included. Coroutine.\n\n\
        Raises:\n    IncompleteReadError: the end came before.\n    LimitOverrunError: it is not found within the limit.";
    "__aiter__" => noargs aiter, "($self, /)\n--\n\nThe lines.";
    "__anext__" => noargs anext, "($self, /)\n--\n\nThe next line.";
    "_wait_for_data" => keywords wait_for_data, "($self, func_name)\n--\n\n";
    "_maybe_resume_transport" => noargs maybe_resume_transport, "($self, /)\n--\n\n";
} }
