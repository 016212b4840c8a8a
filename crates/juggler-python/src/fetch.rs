//! The downloader's engine; `juggler.downloads` is what users see of it.

use crate::gate::{self, PyGate};
use crate::timeout;
use juggler_fetch::{Checksum, Engine, Error, Job, Options, Outcome, Rate, Stage};
use juggler_sync::Deadline;
use pyo3::exceptions::{PyRuntimeError, PyTimeoutError, PyValueError};
use pyo3::prelude::*;
use std::os::fd::{AsRawFd, RawFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Path, address, size, and how much of it was there before.
type Fetched = (PathBuf, String, u64, u64);
/// Kind, message and the server's status.
type Failure = (&'static str, String, Option<u16>);
/// Number, stage, name, bytes received, length, attempts, and why and how long the next one waits.
type Progress = (u64, &'static str, String, u64, Option<u64>, u32, Option<(String, f64)>);
/// Files done and failed, retries, bytes received.
type Totals = (u64, u64, u64, u64);

/// Fetches files in a thread of its own, which never needs the interpreter.
#[pyclass(frozen, module = "juggler._juggler")]
pub struct FetchEngine {
    engine: Engine,
    owner: u32,
}

#[pymethods]
impl FetchEngine {
    /// Starts the thread. Times are in seconds, `rate` is text such as `10MB/s`.
    #[new]
    #[pyo3(signature = (folder, *, limit, per_host, rate, retries, backoff, timeout, stall, deadline, patience, resume,
        overwrite, compressed, headers, netrc, proxy, cacert))]
    #[expect(clippy::too_many_arguments, reason = "one caller, by keyword")]
    fn new(
        folder: PathBuf,
        limit: usize,
        per_host: usize,
        rate: Option<&str>,
        retries: u32,
        backoff: f64,
        timeout: f64,
        stall: f64,
        deadline: Option<f64>,
        patience: f64,
        resume: bool,
        overwrite: bool,
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
            limit,
            per_host,
            rate: rate.map(Rate::parse).transpose().map_err(wrong)?,
            retries,
            backoff: span("backoff", backoff)?,
            timeout: span("timeout", timeout)?,
            stall: span("stall", stall)?,
            // Beyond what the clock can tell is the same as none.
            deadline: deadline.and_then(|span| Instant::now().checked_add(span)),
            patience: span("patience", patience)?,
            resume,
            overwrite,
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
        Ok(Self { engine, owner: std::process::id() })
    }

    /// Adds a file, known as `index`; `checksum` is `ALGORITHM:HEX`.
    #[pyo3(signature = (index, url, name, checksum))]
    fn add(&self, index: u64, url: String, name: Option<String>, checksum: Option<&str>) -> PyResult<()> {
        let checksum = checksum.map(str::parse::<Checksum>).transpose().map_err(PyValueError::new_err)?;
        self.engine.add(Job { index, url, name, checksum });
        Ok(())
    }

    /// Says that no further file comes.
    fn close(&self) {
        self.engine.close();
    }

    /// Waits for the next file that is finished, and returns its number, what was fetched, why it failed, the attempts and
    /// the seconds; `None` when all are told. Raises `TimeoutError` after `timeout` seconds.
    #[pyo3(signature = (timeout=None))]
    fn next(
        &self,
        py: Python<'_>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Option<(u64, Option<Fetched>, Option<Failure>, u32, f64)>> {
        if self.owner != std::process::id() {
            return Err(PyRuntimeError::new_err(
                "the downloads run in the process that began them, not in a fork of it",
            ));
        }
        let deadline = match timeout {
            Some(timeout) => timeout::of_wait(py, timeout.as_ptr()).map_err(|raised| raised.fetch(py))?,
            None => Deadline::NEVER,
        };
        match self.engine.next(&PyGate::new(py), deadline) {
            Ok(next) => Ok(next.map(told)),
            Err(None) => Err(PyTimeoutError::new_err("no file is finished yet")),
            Err(Some(raised)) => Err(raised.fetch(py)),
        }
    }

    /// How far each file is that is not finished, and everything in sum.
    fn snapshot(&self) -> (Vec<Progress>, Totals) {
        let snapshot = self.engine.snapshot();
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
        (files.collect(), (totals.done, totals.failed, totals.retries, totals.received))
    }

    /// A descriptor that is readable when `next` may have something to return.
    fn fileno(&self) -> RawFd {
        self.engine.bell().as_raw_fd()
    }

    /// Makes the descriptor wait for news; to be called before `next(0)`.
    fn hush(&self) {
        self.engine.hush();
    }

    /// Stops everything, and waits until no thread is left.
    fn stop(&self, py: Python<'_>) {
        if self.owner == std::process::id() {
            gate::without_gil(py, || self.engine.stop());
        }
    }
}

impl Drop for FetchEngine {
    fn drop(&mut self) {
        if self.owner != std::process::id() {
            self.engine.disown();
        }
    }
}

fn told(outcome: Outcome) -> (u64, Option<Fetched>, Option<Failure>, u32, f64) {
    let (fetched, failure) = match outcome.result {
        Ok(file) => (Some((file.path, file.url, file.size, file.resumed)), None),
        Err(Error { kind, message, status, .. }) => (None, Some((kind.name(), message, status))),
    };
    (outcome.job.index, fetched, failure, outcome.attempts, outcome.took.as_secs_f64())
}

fn span(name: &str, seconds: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(seconds)
        .map_err(|_| PyValueError::new_err(format!("{name}={seconds}: not a number of seconds that can be waited")))
}
