//! Further connections for one large file, as long as each of them raises the throughput.
//!
//! A file comes over one connection. Where that is steady and much is missing, another one is tried for the far half of what is
//! missing; if the sum then grows clearly it stays so and a next one is tried, and if not it was the last. Whatever is at odds
//! with the version that the first connection brings ends it all: see [`Segments::take`].

use crate::about::Version;
use crate::error::{Error, Kind, chain};
use crate::exchange::{self, Rest};
use crate::hosts::Turn;
use crate::part::Part;
use crate::ranges::Ranges;
use crate::sink::Sink;
use crate::transfer::{self, Shared};
use hyper::body::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use url::Url;

/// What must be missing so that another connection is worth a try.
pub(crate) const WORTH: u64 = 32 << 20;

/// And how long it would take else.
const WORTH_WAITING: Duration = Duration::from_secs(3);

/// No segment begins with less.
const LEAST: u64 = 1 << 20;

/// How long the throughput is measured; what comes in the first such time after a change does not count.
const WINDOW: Duration = Duration::from_millis(500);

/// How many pieces of a segment may wait to be written.
const AHEAD: usize = 4;

/// The bytes of one connection: those from `from` on and before `to`, which a later segment may cut.
pub(crate) struct Stream {
    from: u64,
    to: u64,
    /// Whether `to` is no longer what was asked for.
    cut: bool,
    pub sink: Sink,
}

impl Stream {
    pub fn new(from: u64, to: u64) -> Self {
        Self { from, to, cut: false, sink: Sink::new(from) }
    }

    /// Whether what still comes is another stream's.
    pub fn is_over(&self) -> bool {
        self.cut && self.sink.at() >= self.to
    }

    /// Whether all that was asked for is to come over this connection, so that it ends well.
    pub fn is_uncut(&self) -> bool {
        !self.cut
    }

    /// Takes bytes, but for those that are another stream's; how many it took.
    ///
    /// # Errors
    /// [`Kind::Length`] for more than was asked for; [`Kind::Disk`].
    pub async fn put(&mut self, part: &mut Part, bytes: &[u8]) -> Result<usize, Error> {
        let most = usize::try_from(self.to - self.sink.at()).map_or(bytes.len(), |most| most.min(bytes.len()));
        if most < bytes.len() && !self.cut {
            return Err(Error::new(
                Kind::Length,
                format!("the server sends bytes from {} on, which were not asked for", self.to),
            ));
        }
        self.sink.put(part, &bytes[..most]).await?;
        Ok(most)
    }
}

/// What a segment's task tells.
pub(crate) enum News {
    /// The server sends these bytes of this version.
    Begun,
    Bytes(Bytes),
    End(Option<Error>),
}

struct Segment {
    stream: Stream,
    task: AbortHandle,
}

/// Which file, for the tasks.
pub(crate) struct Subject {
    pub url: Url,
    /// Where the answer of the first connection came from in the end.
    pub source: Url,
    pub version: Version,
    pub whole: u64,
}

/// The segments of one file beside the first connection.
pub(crate) struct Segments {
    shared: Arc<Shared>,
    subject: Arc<Subject>,
    active: BTreeMap<u32, Segment>,
    count: u32,
    growth: Growth,
    sender: mpsc::Sender<(u32, News)>,
    news: mpsc::Receiver<(u32, News)>,
    tasks: JoinSet<()>,
}

impl Segments {
    pub fn new(shared: Arc<Shared>, subject: Subject) -> Self {
        let (sender, news) = mpsc::channel(AHEAD);
        let (active, tasks) = (BTreeMap::new(), JoinSet::new());
        let growth = Growth::new(Instant::now());
        Self { shared, subject: Arc::new(subject), active, count: 0, growth, sender, news, tasks }
    }

    /// Whether any is there.
    pub fn are_active(&self) -> bool {
        !self.active.is_empty()
    }

    /// What the next task tells that has something to tell.
    pub async fn news(&mut self) -> (u32, News) {
        match self.news.recv().await {
            Some(news) => news,
            // `sender` is ours.
            None => std::future::pending().await,
        }
    }

    /// Counts bytes that came over any of the connections.
    pub fn count(&mut self, bytes: usize) {
        self.growth.bytes += bytes as u64;
    }

    /// Begins another segment if it is time to. `more` becomes false when none is worth it any more.
    ///
    /// # Errors
    /// [`Kind::Disk`].
    pub fn consider(&mut self, first: &Stream, part: &mut Part, more: &mut bool) -> Result<(), Error> {
        let missing = self.subject.whole.saturating_sub(part.length());
        let streams = self.active.len() + usize::from(!first.is_over());
        match self.growth.ask(Instant::now(), missing, streams) {
            Wish::None => return Ok(()),
            Wish::NoneEver => *more = false,
            Wish::More if *more => {
                if let Some((from, to)) = self.place(first, part.ranges()) {
                    if let Some(turn) = self.shared.hosts.try_turn(&self.subject.url) {
                        // From the first byte that is not in its place on, the length of the part says nothing.
                        part.claim()?;
                        part.tell_ranges()?;
                        self.begin(from, to, turn);
                        return Ok(());
                    }
                }
            }
            Wish::More => {}
        }
        self.growth.tried = None;
        Ok(())
    }

    /// What another connection could bring: what nobody is at, or else the far half of what most is missing of.
    fn place(&self, first: &Stream, there: &Ranges) -> Option<(u64, u64)> {
        let whole = self.subject.whole;
        let streams = || std::iter::once(first).chain(self.active.values().map(|segment| &segment.stream));
        let mut taken = there.clone();
        streams().for_each(|stream| taken.add(stream.from, stream.to.min(whole)));
        let length = |gap: &(u64, u64)| gap.1 - gap.0;
        let gap = taken.gaps(whole).into_iter().max_by_key(length).filter(|gap| length(gap) >= LEAST);
        gap.or_else(|| {
            let rest = |stream: &Stream| (stream.sink.at().min(stream.to), stream.to.min(whole));
            let (at, to) = streams().map(rest).max_by_key(length)?;
            let half = at + (to - at).div_ceil(2).next_multiple_of(LEAST);
            (to - at >= WORTH).then_some((half, to))
        })
    }

    fn begin(&mut self, from: u64, to: u64, turn: Turn) {
        self.count += 1;
        let (number, sender) = (self.count, self.sender.clone());
        let (shared, subject) = (Arc::clone(&self.shared), Arc::clone(&self.subject));
        let task = self.tasks.spawn(async move {
            let _turn = turn;
            let ended = bring(&shared, &subject, (from, to), number, &sender).await;
            let _ = sender.send((number, News::End(ended.err()))).await;
        });
        self.active.insert(number, Segment { stream: Stream::new(from, to), task });
    }

    /// Does what follows of news: a segment that is begun cuts the stream that it takes the rest of; bytes go to the part; a
    /// segment that broke off leaves its rest for later. How many bytes came.
    ///
    /// # Errors
    /// [`Kind::Changed`] where the server has another version by now, or is at odds with itself: then no byte of the file is
    /// good for anything. [`Kind::Disk`].
    pub async fn take(
        &mut self,
        (number, news): (u32, News),
        first: &mut Stream,
        part: &mut Part,
        more: &mut bool,
    ) -> Result<usize, Error> {
        while self.tasks.try_join_next().is_some() {}
        let Some(mut segment) = self.active.remove(&number) else { return Ok(0) };
        let mut came = 0;
        match news {
            News::Begun => {
                let from = segment.stream.from;
                let others = self.active.values_mut().map(|segment| &mut segment.stream);
                for stream in others.chain([first]).filter(|stream| stream.from < from && from < stream.to) {
                    // Faster than the answer: the segment's first bytes are there.
                    if stream.sink.at() > from {
                        segment.task.abort();
                        return Ok(0);
                    }
                    (stream.to, stream.cut) = (from, true);
                }
            }
            News::Bytes(bytes) => {
                came = segment.stream.put(part, &bytes).await.map_err(at_odds)?;
                if segment.stream.is_over() {
                    segment.task.abort();
                    return Ok(came);
                }
            }
            News::End(error) => {
                return match error {
                    Some(error) if matches!(error.kind, Kind::Changed | Kind::Length | Kind::Disk) => {
                        Err(at_odds(error))
                    }
                    Some(error) => {
                        *more &= matches!(error.kind, Kind::Truncated | Kind::Stalled);
                        self.growth.tried = None;
                        Ok(0)
                    }
                    None => Ok(0),
                };
            }
        }
        self.active.insert(number, segment);
        Ok(came)
    }

    /// Stops all, and waits until they let go of their turns.
    pub async fn stop(&mut self) {
        self.tasks.shutdown().await;
    }
}

/// What contradicts the announced length is no error yet: over one connection the file may be right.
fn at_odds(error: Error) -> Error {
    let kind = if error.kind == Kind::Length { Kind::Changed } else { error.kind };
    Error { kind, ..error }
}

/// Brings the bytes from `from` on and before `to`, as the segment `number`.
async fn bring(
    shared: &Shared,
    subject: &Subject,
    (from, to): (u64, u64),
    number: u32,
    sender: &mpsc::Sender<(u32, News)>,
) -> Result<(), Error> {
    let Some(validator) = subject.version.validator() else { return Ok(()) };
    let rest = Rest { from, to: if to == subject.whole { u64::MAX } else { to }, validator };
    let (mut answer, source) = shared.client.get(&subject.url, Some(rest)).await?;
    let headers = &answer.headers;
    if source != subject.source {
        return Err(Error::new(Kind::Range, format!("another server answers: {source}")));
    }
    match answer.status.as_u16() {
        206 => {
            exchange::check_part(headers, &subject.version, from, to)?;
        }
        200 if exchange::version(headers, None).validator() == Some(validator) => {
            return Err(Error::new(Kind::Range, "the server ignores Range"));
        }
        200 | 416 => return Err(transfer::changed()),
        _ => return Err(exchange::refusal(answer.status, headers)),
    }
    if sender.send((number, News::Begun)).await.is_err() {
        return Ok(());
    }
    let mut at = from;
    loop {
        let read = tokio::time::timeout(shared.options.stall, answer.read()).await;
        let read = read.map_err(|_| Error::new(Kind::Stalled, "a segment stalled"))?;
        let Some(bytes) = read.map_err(|error| Error::new(Kind::Truncated, chain(&error)))? else { break };
        at += bytes.len() as u64;
        if sender.send((number, News::Bytes(bytes))).await.is_err() {
            return Ok(());
        }
    }
    if at < to {
        return Err(Error::new(Kind::Truncated, format!("a segment ended before byte {to}")));
    }
    answer.end()
}

/// Whether the throughput grows.
struct Growth {
    since: Instant,
    bytes: u64,
    /// Whether the time in which a change takes effect is over.
    settled: bool,
    /// The throughput before the last segment, until it is known what it brought.
    tried: Option<f64>,
}

#[derive(Debug, PartialEq, Eq)]
enum Wish {
    /// Not now.
    None,
    NoneEver,
    More,
}

impl Growth {
    fn new(now: Instant) -> Self {
        Self { since: now, bytes: 0, settled: false, tried: None }
    }

    /// Whether to try another connection beside the `streams` that there are.
    fn ask(&mut self, now: Instant, missing: u64, streams: usize) -> Wish {
        let took = now - self.since;
        if took < WINDOW {
            return Wish::None;
        }
        let rate = self.bytes as f64 / took.as_secs_f64();
        (self.since, self.bytes) = (now, 0);
        if !std::mem::replace(&mut self.settled, true) {
            return Wish::None;
        }
        if let Some(before) = self.tried.take() {
            // Half of what one of so many equal ones brings, and more than noise.
            let others = streams.saturating_sub(1).max(1) as f64;
            if rate < before * (1.0 + 0.5 / others).max(1.1) {
                return Wish::NoneEver;
            }
        }
        if missing < WORTH || (missing as f64) < rate * WORTH_WAITING.as_secs_f64() {
            return Wish::None;
        }
        self.tried = Some(rate);
        self.settled = false;
        Wish::More
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many connections there are in the end, where `rate` says how many MiB a second so many bring.
    fn connections(rate: impl Fn(usize) -> f64) -> usize {
        let mut now = Instant::now();
        let (mut growth, mut streams) = (Growth::new(now), 1);
        for _ in 0..100 {
            now += WINDOW;
            growth.bytes = (rate(streams) * WINDOW.as_secs_f64() * f64::from(1 << 20)) as u64;
            match growth.ask(now, 10 << 30, streams) {
                Wish::None => {}
                Wish::NoneEver => return streams,
                Wish::More => streams += 1,
            }
        }
        streams
    }

    #[test]
    fn as_many_as_raise_the_throughput() {
        // One more is tried, and found to be of no use.
        assert_eq!(connections(|_| 50.0), 2);
        assert_eq!(connections(|streams| 50.0 + streams as f64), 2);
        // Each connection is slowed down, up to what the line can bear.
        assert_eq!(connections(|streams| 10.0 * streams.min(4) as f64), 5);
    }

    #[test]
    fn what_is_over_soon_is_left_alone() {
        assert_eq!(connections(|_| 5000.0), 1);
        let now = Instant::now();
        let mut growth = Growth::new(now);
        assert_eq!(growth.ask(now + WINDOW, WORTH - 1, 1), Wish::None);
        assert_eq!(growth.ask(now + WINDOW * 2, WORTH - 1, 1), Wish::None);
    }
}
