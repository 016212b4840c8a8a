//! The downloader's engine; `juggler.downloads` is what users see of it.

use crate::gate::{self, PyGate};
use crate::timeout;
use juggler_fetch::{Checksum, Engine, Error, Job, Options, Outcome, Rate, Stage};
use juggler_sync::Deadline;
use pyo3::exceptions::{PyKeyboardInterrupt, PyRuntimeError, PyTimeoutError, PyValueError};
use pyo3::prelude::*;
use std::cell::OnceCell;
use std::ffi::OsString;
use std::os::fd::{AsRawFd, RawFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Path, address, size, and how much of it was there before.
type Fetched = (OsString, String, u64, u64);
/// Kind, message and the server's status.
type Failure = (&'static str, String, Option<u16>);
/// Number, file or failure, attempts and seconds.
type Told = (u64, Option<Fetched>, Option<Failure>, u32, f64);
/// Number, stage, name, bytes received, length, attempts, and why and how long the next one waits.
type Progress = (u64, &'static str, String, u64, Option<u64>, u32, Option<(String, f64)>);
/// Files done and failed, retries, bytes received.
type Totals = (u64, u64, u64, u64);

/// Fetches files in a thread of its own, which never needs the interpreter.
#[pyclass(frozen, module = "juggler._juggler")]
pub struct FetchEngine {
    /// Always there, until the end.
    engine: Option<Engine>,
    owner: u32,
}

impl FetchEngine {
    /// The engine, in the process that it runs in: in a fork its locks may be held by threads that are not there.
    fn engine(&self) -> PyResult<&Engine> {
        self.engine.as_ref().filter(|_| self.owner == std::process::id()).ok_or_else(|| {
            PyRuntimeError::new_err("the downloads run in the process that began them, not in a fork of it")
        })
    }
}

#[pymethods]
impl FetchEngine {
    /// Starts the thread. Times are in seconds, `rate` is text such as `10MB/s`.
    #[new]
    #[pyo3(signature = (folder, *, limit, per_host, rate, retries, backoff, timeout, stall, deadline, patience, resume,
        overwrite, sync, compressed, headers, netrc, proxy, cacert))]
    #[expect(clippy::too_many_arguments, reason = "one caller, by keyword")]
    fn new(
        folder: PathBuf,
        limit: i64,
        per_host: i64,
        rate: Option<&str>,
        retries: i64,
        backoff: f64,
        timeout: f64,
        stall: f64,
        deadline: Option<f64>,
        patience: f64,
        resume: bool,
        overwrite: bool,
        sync: bool,
        compressed: bool,
        headers: Vec<(String, String)>,
        netrc: Option<PathBuf>,
        proxy: Option<String>,
        cacert: Option<PathBuf>,
    ) -> PyResult<Self> {
        let wrong = |error: juggler_fetch::RateError| PyValueError::new_err(format!("rate={rate:?}: {error}"));
        let deadline = deadline.map(|seconds| span("deadline", seconds)).transpose()?;
        let options = Options {
            folder,
            limit: count("limit", limit, 1)? as usize,
            per_host: count("per_host", per_host, 1)? as usize,
            rate: rate.map(Rate::parse).transpose().map_err(wrong)?,
            retries: count("retries", retries, 0)?,
            backoff: span("backoff", backoff)?,
            timeout: span("timeout", timeout)?,
            stall: span("stall", stall)?,
            // Beyond what the clock can tell is the same as none.
            deadline: deadline.and_then(|span| Instant::now().checked_add(span)),
            patience: span("patience", patience)?,
            resume,
            overwrite,
            sync,
            compressed,
            headers,
            netrc,
            proxy,
            cacert,
        };
        let engine = Engine::start(options).map_err(|error| match error.kind {
            juggler_fetch::Kind::Disk => pyo3::exceptions::PyOSError::new_err(error.message),
            _ => PyValueError::new_err(error.message),
        })?;
        Ok(Self { engine: Some(engine), owner: std::process::id() })
    }

    /// Adds a file, known as `index`; `checksum` is `ALGORITHM:HEX`.
    #[pyo3(signature = (index, url, name, checksum))]
    fn add(&self, index: u64, url: String, name: Option<String>, checksum: Option<&str>) -> PyResult<()> {
        let checksum = checksum.map(str::parse::<Checksum>).transpose().map_err(PyValueError::new_err)?;
        self.engine()?.add(Job { index, url, name, checksum });
        Ok(())
    }

    /// Says that no further file comes.
    fn close(&self) -> PyResult<()> {
        self.engine()?.close();
        Ok(())
    }

    /// Waits for the next file that is finished, and returns its number, what was fetched, why it failed, the attempts and
    /// the seconds; `None` when all are told. Raises `TimeoutError` after `timeout` seconds.
    #[pyo3(signature = (timeout=None))]
    fn next(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Told>> {
        let engine = self.engine()?;
        let deadline = match timeout {
            Some(timeout) => timeout::of_wait(py, timeout.as_ptr()).map_err(|raised| raised.fetch(py))?,
            None => Deadline::NEVER,
        };
        match engine.next(&PyGate::new(py), deadline) {
            Ok(next) => Ok(next.map(told)),
            Err(None) => Err(PyTimeoutError::new_err("no file is finished yet")),
            Err(Some(raised)) => Err(raised.fetch(py)),
        }
    }

    /// How far each file is that is not finished, and everything in sum.
    fn snapshot(&self) -> PyResult<(Vec<Progress>, Totals)> {
        let snapshot = self.engine()?.snapshot();
        let files = snapshot.files.into_iter().map(|(index, file)| {
            let stage = match file.stage {
                Stage::Queued => "queued",
                Stage::Asking => "asking",
                Stage::Receiving => "receiving",
                Stage::Waiting => "waiting",
                Stage::Syncing => "syncing",
            };
            let waits = file.waits.map(|(why, wait)| (why, wait.as_secs_f64()));
            (index, stage, file.name, file.received, file.length, file.attempts, waits)
        });
        let totals = snapshot.totals;
        Ok((files.collect(), (totals.done, totals.failed, totals.retries, totals.received)))
    }

    /// A descriptor that is readable when `next` may have something to return.
    fn fileno(&self) -> PyResult<RawFd> {
        Ok(self.engine()?.bell()?.as_raw_fd())
    }

    /// Makes the descriptor wait for news; to be called before `next(0)`.
    fn hush(&self) -> PyResult<()> {
        self.engine()?.hush();
        Ok(())
    }

    /// Stops everything, and waits until no thread is left; nothing in a fork.
    fn stop(&self, py: Python<'_>) {
        if let Ok(engine) = self.engine() {
            gate::without_gil(py, || engine.stop());
        }
    }
}

impl Drop for FetchEngine {
    fn drop(&mut self) {
        if self.owner != std::process::id() {
            std::mem::forget(self.engine.take());
        }
    }
}

fn told(outcome: Outcome) -> Told {
    let (fetched, failure) = match outcome.result {
        Ok(file) => (Some((file.path.into_os_string(), file.url, file.size, file.resumed)), None),
        Err(Error { kind, message, status, .. }) => (None, Some((kind.name(), message, status))),
    };
    (outcome.job.index, fetched, failure, outcome.attempts, outcome.took.as_secs_f64())
}

/// More than a `u32` holds is as good as no limit.
fn count(name: &str, value: i64, least: i64) -> PyResult<u32> {
    if value < least {
        return Err(PyValueError::new_err(format!("{name}={value}: at least {least}")));
    }
    Ok(u32::try_from(value).unwrap_or(u32::MAX))
}

fn span(name: &str, seconds: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(seconds)
        .map_err(|_| PyValueError::new_err(format!("{name}={seconds}: not a number of seconds that can be waited")))
}

/// The command `juggler fetch` with the words after its name; its exit status. Raises what a signal's handler raises, but for
/// `KeyboardInterrupt`, of which the command tells.
#[pyfunction]
pub fn fetch_command(py: Python<'_>, words: Vec<OsString>) -> PyResult<u8> {
    gate::without_gil(py, || {
        let raised = OnceCell::new();
        let is_interrupted = || {
            if raised.get().is_none()
                && let Err(error) = Python::attach(|py| py.check_signals())
            {
                let _ = raised.set(error);
            }
            raised.get().is_some()
        };
        let status = juggler_fetch_cli::fetch(words, is_interrupted) as u8;
        match raised.into_inner() {
            Some(error) if !Python::attach(|py| error.is_instance_of::<PyKeyboardInterrupt>(py)) => Err(error),
            _ => Ok(status),
        }
    })
}
