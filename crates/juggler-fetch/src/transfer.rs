//! One file, from the first attempt to the last.
//!
//! What every attempt does with an answer, given what is there already (the *part*) and its version:
//!
//! | asked for | answer | then |
//! |---|---|---|
//! | the whole | 200 | its bytes from the first on |
//! | the rest | 206 from the right byte, of the same version | its bytes are added |
//! | the rest | 206 of another version | the part is emptied, and another attempt made |
//! | the rest | 206 of other bytes | an error: the server can't do it |
//! | the rest | 200 of another version | the file changed: the part is emptied, and these are its bytes from the first on |
//! | the rest | 200 of the same version | an error: the server ignores the range, and would do so again |
//! | the rest | 416 | the file changed: the part is emptied, and another attempt made |
//! | anything | another status | an error; whether it passes is [`Error::is_passing`] |

use crate::board::{self, Board, Stage};
use crate::coding::Decoder;
use crate::error::{Error, Kind, chain};
use crate::exchange::{self, Client, Rest};
use crate::hosts::Hosts;
use crate::name;
use crate::options::{Fetched, Job, Options};
use crate::pace::Pace;
use crate::part::{Names, Part};
use crate::pool::Answer;
use http_body_util::BodyExt;
use hyper::header;
use juggler_policy::{Attempts, Backoff, GiveUp, Jitter, Retry, Time};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};
use url::Url;

/// Waits between attempts never grow beyond this.
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

/// An attempt that brought so many bytes, and kept them, was no failure: retries are counted anew.
const PROGRESS: u64 = 1 << 20;

/// What all files of a call share.
pub(crate) struct Shared {
    pub options: Options,
    pub client: Client,
    pub hosts: Hosts,
    pub names: Arc<Names>,
    pub pace: Option<Pace>,
    pub board: Arc<Board>,
}

/// A whole part, the name that it should get, and where it came from.
struct Whole {
    name: String,
    url: String,
}

/// Fetches `job`, the `nth` of its address; counts `attempts`.
///
/// # Errors
/// That of the last attempt.
pub(crate) async fn fetch(shared: &Shared, job: &Job, nth: u32, attempts: &mut u32) -> Result<Fetched, Error> {
    let url = address(&job.url)?;
    let options = &shared.options;
    let mut part = {
        let (folder, url, checksum, resume) =
            (options.folder.clone(), url.clone(), job.checksum.clone(), options.resume);
        // To hash what is there can take long.
        blocking(move || Part::open(&folder, &url, nth, checksum, resume)).await?
    };
    let backoff = Backoff { base: options.backoff, cap: LONGEST_BACKOFF, jitter: Jitter::Equal };
    let retry = Retry { attempts: options.retries.saturating_add(1), backoff, longest: options.patience };
    let mut failures = Attempts::default();
    let began = Instant::now();
    let whole = loop {
        *attempts += 1;
        let had = part.length();
        let error = match attempt(shared, job, &url, &mut part, *attempts).await {
            Ok(whole) => break whole,
            Err(error) => error,
        };
        if part.length() >= had + PROGRESS {
            failures = Attempts::default();
        }
        if !error.is_passing() {
            return Err(error);
        }
        let latest = options.deadline.map_or(Time::NEVER, |deadline| time(began, deadline));
        let now = time(began, Instant::now());
        let wait = match retry.next(&mut failures, now, error.retry_after, latest, random()) {
            Ok(begins) => now.until(begins),
            Err(GiveUp::Attempts) => return Err(after_all(error, *attempts)),
            Err(GiveUp::Deadline(wait)) => {
                let message = format!("{error}; the deadline comes before the next attempt in {wait:.1?}");
                return Err(Error { kind: Kind::Deadline, message, ..error });
            }
        };
        if error.retry_after.is_some() {
            // The server means every request, not only this one.
            shared.hosts.pause(&url, Instant::now() + wait);
        }
        shared.board.with(|state| state.snapshot.totals.retries += 1);
        board::update(&shared.board, job.index, |progress| {
            progress.stage = Stage::Waiting;
            progress.waits = Some((error.message, wait));
        });
        tokio::time::sleep(wait).await;
    };
    part.verify()?;
    board::update(&shared.board, job.index, |progress| progress.stage = Stage::Syncing);
    let (size, resumed) = (part.length(), part.resumed());
    let names = Arc::clone(&shared.names);
    let Whole { name, url } = whole;
    let path = blocking(move || part.finish(&names, &name)).await?;
    Ok(Fetched { path, url, size, resumed })
}

async fn attempt(shared: &Shared, job: &Job, url: &Url, part: &mut Part, count: u32) -> Result<Whole, Error> {
    let _turn = shared.hosts.turn(url).await;
    if !shared.options.resume && part.length() > 0 {
        part.start_over()?;
    }
    board::update(&shared.board, job.index, |progress| {
        (progress.stage, progress.waits) = (Stage::Asking, None);
        (progress.attempts, progress.received) = (count, part.length());
    });
    let rest =
        part.unfinished().and_then(|version| Some(Rest { from: part.length(), validator: version.validator()? }));
    let asked_rest = rest.is_some();
    let (answer, from) = shared.client.get(url, rest).await?;
    let status = answer.response.status();
    let headers = answer.response.headers();
    let content_length = exchange::text(headers, header::CONTENT_LENGTH).and_then(|text| text.parse().ok());
    let encoding = exchange::text(headers, header::CONTENT_ENCODING).filter(|_| shared.options.compressed);
    let decoder = Decoder::of(encoding)?;
    let mut version = exchange::version(headers, content_length);
    match (status.as_u16(), asked_rest) {
        (200 | 203, false) => part.start_over()?,
        (200, true) => {
            if part.unfinished().is_some_and(|old| old.validator() == version.validator()) {
                let (have, host) = (part.length(), from.host_str().unwrap_or(""));
                let message = format!(
                    "{host} ignores Range: of the same file it sends all again instead of the rest from byte {have} on; \
                     without resuming (--no-resume) it starts over"
                );
                return Err(Error::new(Kind::Range, message));
            }
            part.start_over()?;
        }
        (206, true) => version = check_rest(&answer, part, content_length)?,
        (416, true) => {
            part.start_over()?;
            return Err(Error::new(Kind::Changed, "the file is shorter than the part that was there"));
        }
        (206, false) => {
            return Err(Error::new(Kind::Range, "the server sends a part of the file, though all was asked for"));
        }
        _ => return Err(exchange::refusal(status, headers)),
    }
    if decoder.is_some() {
        // Neither the length nor the place to continue from is that of the file.
        version = Default::default();
    }
    let disposition = exchange::lossy(headers, header::CONTENT_DISPOSITION);
    let name = match &job.name {
        Some(name) => name::safe(name)?,
        None => name::of_answer(disposition.as_deref(), &from)?,
    };
    board::update(&shared.board, job.index, |progress| {
        progress.stage = Stage::Receiving;
        progress.name.clone_from(&name);
        (progress.length, progress.received) = (version.length, part.length());
    });
    let whole = version.length;
    part.begin(version)?;
    let expected = content_length.map(|length: u64| part.length() + length).filter(|_| decoder.is_none());
    receive(shared, job.index, answer, part, decoder).await?;
    let length = part.length();
    for announced in [expected, whole].into_iter().flatten() {
        if length < announced {
            return Err(Error::new(Kind::Truncated, format!("the body ended after {length} of {announced} bytes")));
        }
        if length > announced {
            part.discard();
            return Err(Error::new(Kind::Length, format!("{length} bytes came, though {announced} were announced")));
        }
    }
    Ok(Whole { name, url: from.into() })
}

/// Looks whether a 206 continues the part, byte for byte; the version that the file then is of.
fn check_rest(answer: &Answer, part: &mut Part, content_length: Option<u64>) -> Result<crate::part::Version, Error> {
    let headers = answer.response.headers();
    let Some(old) = part.unfinished().cloned() else {
        return Err(Error::new(Kind::Range, "there is nothing to continue"));
    };
    let have = part.length();
    let wrong = |what: String| {
        Error::new(Kind::Range, format!("asked for the rest from byte {have} on, the server sends {what}"))
    };
    let Some((first, last, whole)) = exchange::content_range(headers) else {
        return Err(wrong("a part without saying which (no valid Content-Range)".into()));
    };
    if first != have {
        return Err(wrong(format!("the bytes from {first} on")));
    }
    if content_length.is_some_and(|length| length != last - first + 1) {
        let message = format!("the server says {} bytes ({first} to {last}) and sends others", last - first + 1);
        return Err(Error::new(Kind::Length, message));
    }
    let new = exchange::version(headers, whole);
    // A 206 need not repeat the date, but what it says must be the same, and an ETag it must say (RFC 9110, 15.3.7).
    let says_other = |old: &Option<String>, new: &Option<String>| new.is_some() && old != new;
    let other = old.etag != new.etag
        || says_other(&old.modified, &new.modified)
        || old.length.zip(whole).is_some_and(|(old, new)| old != new);
    if other {
        part.start_over()?;
        return Err(Error::new(Kind::Changed, "the file changed meanwhile"));
    }
    Ok(crate::part::Version { length: old.length.or(whole), ..old })
}

/// Brings the body into the part.
async fn receive(
    shared: &Shared,
    index: u64,
    mut answer: Answer,
    part: &mut Part,
    mut decoder: Option<Decoder>,
) -> Result<(), Error> {
    let stall = shared.options.stall;
    loop {
        let frame = tokio::time::timeout(stall, answer.response.body_mut().frame()).await;
        let frame = frame.map_err(|_| {
            let message = format!("stalled: nothing came for {stall:?} after {} bytes", part.length());
            Error::new(Kind::Stalled, message)
        })?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| {
            Error::new(Kind::Truncated, format!("the body broke off after {} bytes: {}", part.length(), chain(&error)))
        })?;
        let Some(bytes) = frame.data_ref() else { continue };
        match &mut decoder {
            Some(decoder) => decoder.feed(bytes, |decoded| part.write(decoded))?,
            None => part.write(bytes)?,
        }
        shared.board.with(|state| {
            state.snapshot.totals.received += bytes.len() as u64;
            if let Some(progress) = state.snapshot.files.get_mut(&index) {
                progress.received = part.length();
            }
        });
        if let Some(pace) = &shared.pace {
            pace.take(bytes.len() as u64).await;
        }
    }
    if let Some(decoder) = decoder {
        decoder.end(|decoded| part.write(decoded))?;
    }
    answer.end().await.inspect_err(|_| part.discard())
}

fn address(text: &str) -> Result<Url, Error> {
    let wrong =
        |why: &dyn std::fmt::Display| Error::new(Kind::Address, format!("not an address to fetch: {text:?}: {why}"));
    let url = Url::parse(text).map_err(|error| wrong(&error))?;
    if matches!(url.scheme(), "http" | "https") { Ok(url) } else { Err(wrong(&"it is neither http nor https")) }
}

/// Runs what waits for the disk beside the transfers.
async fn blocking<R: Send + 'static>(work: impl FnOnce() -> Result<R, Error> + Send + 'static) -> Result<R, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Error::new(Kind::Disk, format!("a thread of the downloader failed: {error}"))))
}

fn after_all(mut error: Error, attempts: u32) -> Error {
    if attempts > 1 {
        error.message = format!("{} ({attempts} attempts)", error.message);
    }
    error
}

fn time(origin: Instant, point: Instant) -> Time {
    Time::from_nanos(0).after(point.saturating_duration_since(origin))
}

/// A number from 0 to 1, 1 excluded.
fn random() -> f64 {
    (RandomState::new().hash_one(0) >> 11) as f64 / (1_u64 << 53) as f64
}
