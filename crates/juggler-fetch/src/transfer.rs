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
//! | the rest | 200 | the file changed, or the server can't continue: the part is emptied, and these are its bytes from the first on |
//! | the rest | 416 | the file changed: the part is emptied, and another attempt made |
//! | anything | another status | an error; whether it passes is [`Error::is_passing`] |

use crate::about::Version;
use crate::board::{self, Board, Stage};
use crate::coding::Decoder;
use crate::commit::{self, Committer};
use crate::error::{Error, Kind, chain};
use crate::exchange::{self, Client, Rest};
use crate::hosts::Hosts;
use crate::name;
use crate::options::{Fetched, Job, Options};
use crate::pace::Pace;
use crate::part::{Part, Parts};
use crate::pool::Answer;
use crate::segments::{self, News, Segments, Stream, Subject};
use hyper::header::{self, HeaderMap};
use juggler_policy::{Attempts, Backoff, GiveUp, Jitter, Retry, Time};
use std::cmp::Ordering;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};
use url::Url;

/// Waits between attempts never grow beyond this.
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

/// An attempt that brought so many bytes, and kept them, was no failure: retries are counted anew.
const PROGRESS: u64 = 1 << 20;

/// How often a transfer is looked after: whether it stalled, needs a name, or deserves another connection.
pub(crate) const LOOK: Duration = Duration::from_millis(100);

/// How often it is written down which bytes of a file with gaps are there.
const TELL: Duration = Duration::from_secs(1);

/// What all files of a call share.
pub(crate) struct Shared {
    pub options: Options,
    pub client: Client,
    pub hosts: Arc<Hosts>,
    pub parts: Parts,
    pub committer: Committer,
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
pub(crate) async fn fetch(shared: &Arc<Shared>, job: &Job, nth: u32, attempts: &mut u32) -> Result<Fetched, Error> {
    let url = address(&job.url)?;
    let options = &shared.options;
    let mut part = Part::new(options, &url, nth, job.checksum.clone())?;
    part.find(&shared.parts, options.resume)?;
    let backoff = Backoff { base: options.backoff, cap: LONGEST_BACKOFF, jitter: Jitter::Equal };
    let retry = Retry { attempts: options.retries.saturating_add(1), backoff, longest: options.patience };
    let mut failures = Attempts::default();
    let began = Instant::now();
    // The most that was ever there: who starts over has not got further.
    let mut most = part.length();
    let mut more = true;
    let whole = loop {
        *attempts += 1;
        let error = match attempt(shared, job, &url, &mut part, *attempts, &mut more).await {
            Ok(Some(whole)) => break whole,
            Ok(None) => continue,
            Err(error) => error,
        };
        if part.length() >= most + PROGRESS {
            failures = Attempts::default();
        }
        most = most.max(part.length());
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
    if part.has_checksum() {
        // There may be much to read.
        part = blocking(|| part.verify().map(|()| part)).await?;
    }
    board::update(&shared.board, job.index, |progress| progress.stage = Stage::Syncing);
    let (size, resumed) = (part.length(), part.resumed());
    let Whole { name, url } = whole;
    let path = commit::commit(&shared.committer, part, name).await?;
    Ok(Fetched { path, url, size, resumed })
}

/// One attempt; `None` where a gap was filled and another one is there.
async fn attempt(
    shared: &Arc<Shared>,
    job: &Job,
    url: &Url,
    part: &mut Part,
    count: u32,
    more: &mut bool,
) -> Result<Option<Whole>, Error> {
    let _turn = shared.hosts.turn(url).await;
    if !shared.options.resume && part.length() > 0 {
        part.start_over()?;
    }
    board::update(&shared.board, job.index, |progress| {
        (progress.stage, progress.waits) = (Stage::Asking, None);
        (progress.attempts, progress.received) = (count, part.length());
    });
    let (first, before) = part.missing().first().copied().unwrap_or((0, u64::MAX));
    let rest = part.unfinished().and_then(|version| {
        let to = if version.length == Some(before) { u64::MAX } else { before };
        Some(Rest { from: first, to, validator: version.validator()? })
    });
    let asked_rest = rest.is_some();
    let (answer, from) = shared.client.get(url, rest).await?;
    let status = answer.status;
    let headers = &answer.headers;
    let content_length = exchange::text(headers, header::CONTENT_LENGTH).and_then(|text| text.parse().ok());
    let encoding = exchange::text(headers, header::CONTENT_ENCODING).filter(|_| shared.options.compressed);
    let decoder = Decoder::of(encoding)?;
    let takes_ranges = exchange::text(headers, header::ACCEPT_RANGES) == Some("bytes") || asked_rest;
    let mut version = exchange::version(headers, content_length);
    let (mut at, mut to) = (0, u64::MAX);
    let mut end = content_length;
    match (status.as_u16(), asked_rest) {
        (200 | 203, false) => part.start_over()?,
        (200, true) => {
            *more = false;
            part.start_over()?;
        }
        (206, true) => {
            (at, to) = (first, before);
            (end, version) = check_rest(headers, part, first, before)?;
        }
        (416, true) => {
            part.start_over()?;
            return Err(changed());
        }
        (206, false) => {
            return Err(Error::new(Kind::Range, "the server sends a part of the file, though all was asked for"));
        }
        _ => return Err(exchange::refusal(status, headers)),
    }
    if decoder.is_some() {
        // Neither the length nor the place to continue from is that of the file.
        (end, version) = (None, Version::default());
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
    let is_worth_more = takes_ranges
        && shared.options.resume
        && shared.pace.is_none()
        && version.validator().is_some()
        && decoder.is_none();
    let segments = whole.filter(|whole| *more && is_worth_more && *whole >= segments::WORTH).map(|whole| {
        let subject = Subject { url: url.clone(), source: from.clone(), version: version.clone(), whole };
        Segments::new(Arc::clone(shared), subject)
    });
    part.begin(version)?;
    let transfer = Transfer { shared, index: job.index, end, segments };
    if let Err(error) = transfer.receive(answer, (at, to), part, decoder, more).await {
        match error.kind {
            Kind::Changed => {
                *more = false;
                part.start_over()?;
            }
            Kind::Length => part.discard(),
            _ => {}
        }
        return Err(error);
    }
    if whole.is_some_and(|whole| part.length() > whole) {
        part.discard();
        let message = format!("{} bytes came, though {} were announced", part.length(), whole.unwrap_or(0));
        return Err(Error::new(Kind::Length, message));
    }
    let is_whole = whole.is_none() || part.missing().is_empty();
    Ok(is_whole.then(|| Whole { name, url: from.into() }))
}

/// Looks whether a 206 continues the part, byte for byte; where it ends, and the version that the file then is of.
fn check_rest(headers: &HeaderMap, part: &mut Part, from: u64, to: u64) -> Result<(Option<u64>, Version), Error> {
    let Some(old) = part.unfinished().cloned() else {
        return Err(Error::new(Kind::Range, "there is nothing to continue"));
    };
    match exchange::check_part(headers, &old, from, to) {
        Err(error) if error.kind == Kind::Changed => part.start_over().and(Err(error)),
        Err(error) => Err(error),
        Ok((end, whole)) => Ok((Some(end), Version { length: old.length.or(whole), ..old })),
    }
}

/// The error that it is when the server has another version by now.
pub(crate) fn changed() -> Error {
    Error::new(Kind::Changed, "the file changed meanwhile")
}

/// The bodies of one attempt.
struct Transfer<'a> {
    shared: &'a Shared,
    index: u64,
    /// Where the first connection's bytes end, if that was announced.
    end: Option<u64>,
    segments: Option<Segments>,
}

impl Transfer<'_> {
    /// Brings the body, whose first byte belongs `at` there and whose last before `to`, into the part.
    async fn receive(
        mut self,
        mut answer: Answer,
        (at, to): (u64, u64),
        part: &mut Part,
        decoder: Option<Decoder>,
        more: &mut bool,
    ) -> Result<(), Error> {
        let mut first = Stream::new(at, to);
        let received = self.pump(&mut answer, &mut first, part, decoder, more).await;
        if let Some(segments) = &mut self.segments {
            segments.stop().await;
        }
        received?;
        if first.is_uncut() { answer.end() } else { Ok(()) }
    }

    async fn pump(
        &mut self,
        answer: &mut Answer,
        first: &mut Stream,
        part: &mut Part,
        mut decoder: Option<Decoder>,
        more: &mut bool,
    ) -> Result<(), Error> {
        let stall = self.shared.options.stall;
        let pause = LOOK.min(stall).max(Duration::from_millis(1));
        let mut look = tokio::time::interval_at(tokio::time::Instant::now() + pause, pause);
        let (mut last, mut told) = (Instant::now(), Instant::now());
        let mut open = true;
        while open || self.segments.as_ref().is_some_and(Segments::are_active) {
            tokio::select! {
                came = answer.read(), if open => {
                    let came = came.map_err(|error| {
                        let message = format!("the body broke off after byte {}: {}", first.sink.at(), chain(&error));
                        Error::new(Kind::Truncated, message)
                    })?;
                    let Some(bytes) = came else {
                        open = false;
                        if let Some(decoder) = decoder.take() {
                            decoder.end(|decoded| first.sink.put_now(part, decoded))?;
                        }
                        self.check_end(first)?;
                        continue;
                    };
                    last = Instant::now();
                    match &mut decoder {
                        Some(decoder) => decoder.feed(&bytes, |decoded| first.sink.put_now(part, decoded))?,
                        None => {
                            first.put(part, &bytes).await?;
                            open = !first.is_over();
                        }
                    }
                    self.account(bytes.len());
                    if let Some(pace) = &self.shared.pace {
                        pace.take(bytes.len() as u64).await;
                        last = Instant::now();
                    }
                }
                news = news(&mut self.segments) => {
                    if let Some(segments) = &mut self.segments {
                        let came = segments.take(news, first, part, more).await?;
                        self.account(came);
                        open &= !first.is_over();
                    }
                }
                _ = look.tick() => {
                    if open && last.elapsed() >= stall {
                        let message = format!("stalled: nothing came for {stall:?} after byte {}", first.sink.at());
                        return Err(Error::new(Kind::Stalled, message));
                    }
                    if part.is_to_be_claimed() {
                        part.claim()?;
                    }
                    if let Some(segments) = self.segments.as_mut().filter(|_| *more) {
                        segments.consider(first, part, more)?;
                    }
                    if part.has_gaps() && told.elapsed() >= TELL {
                        part.tell_ranges()?;
                        told = Instant::now();
                    }
                }
            }
        }
        Ok(())
    }

    /// Counts bytes that came.
    fn account(&mut self, bytes: usize) {
        self.shared.board.with(|state| {
            state.snapshot.totals.received += bytes as u64;
            if let Some(progress) = state.snapshot.files.get_mut(&self.index) {
                progress.received += bytes as u64;
            }
        });
        if let Some(segments) = &mut self.segments {
            segments.count(bytes);
        }
    }

    /// Whether the first connection brought what it announced.
    fn check_end(&self, first: &Stream) -> Result<(), Error> {
        let (at, Some(end)) = (first.sink.at(), self.end) else { return Ok(()) };
        match at.cmp(&end) {
            Ordering::Less => {
                Err(Error::new(Kind::Truncated, format!("the body ended after byte {at}, though {end} were announced")))
            }
            Ordering::Greater => Err(Error::new(Kind::Length, format!("{at} bytes came, though {end} were announced"))),
            Ordering::Equal => Ok(()),
        }
    }
}

/// What the segments tell, if there are any.
async fn news(segments: &mut Option<Segments>) -> (u32, News) {
    match segments {
        Some(segments) if segments.are_active() => segments.news().await,
        _ => std::future::pending().await,
    }
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
