//! Whose turn it is: so many at once, so many from each host, and none from a host that asked for a pause.

use juggler_sync::guarded::Guarded;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use url::Url;

/// The limits of one call.
pub(crate) struct Hosts {
    all: Arc<Semaphore>,
    limit: usize,
    per_host: usize,
    hosts: Guarded<HashMap<String, Arc<Host>>>,
}

struct Host {
    places: Arc<Semaphore>,
    paused_until: Guarded<Option<Instant>>,
}

/// Leave to make one attempt.
pub(crate) struct Turn {
    _host: Option<OwnedSemaphorePermit>,
    _all: Option<OwnedSemaphorePermit>,
}

impl Hosts {
    /// `limit` at once, and of these `per_host` from one host.
    pub fn new(limit: usize, per_host: usize) -> Self {
        let places = |count: usize| count.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            all: Arc::new(Semaphore::new(places(limit))),
            limit: places(limit),
            per_host: places(per_host),
            hosts: Guarded::new(HashMap::new()),
        }
    }

    fn host(&self, url: &Url) -> Arc<Host> {
        let key = url[url::Position::BeforeHost..url::Position::AfterPort].to_owned();
        let new = || Host { places: Arc::new(Semaphore::new(self.per_host)), paused_until: Guarded::new(None) };
        Arc::clone(self.hosts.lock().entry(key).or_insert_with(|| Arc::new(new())))
    }

    /// Waits for a turn; the host's first, so that nobody who waits for a busy host keeps others from theirs.
    pub async fn turn(&self, url: &Url) -> Turn {
        let host = self.host(url);
        let places = Arc::clone(&host.places).acquire_owned().await.ok();
        loop {
            let pause = host.paused_until.lock().filter(|until| *until > Instant::now());
            let Some(until) = pause else { break };
            tokio::time::sleep_until(until.into()).await;
        }
        Turn { _host: places, _all: Arc::clone(&self.all).acquire_owned().await.ok() }
    }

    /// A turn, if one is to be had at once.
    pub fn try_turn(&self, url: &Url) -> Option<Turn> {
        let host = self.host(url);
        if host.paused_until.lock().is_some_and(|until| until > Instant::now()) {
            return None;
        }
        let places = Arc::clone(&host.places).try_acquire_owned().ok()?;
        Some(Turn { _host: Some(places), _all: Some(Arc::clone(&self.all).try_acquire_owned().ok()?) })
    }

    /// Whether nobody has a turn.
    pub fn are_idle(&self) -> bool {
        self.all.available_permits() == self.limit
    }

    /// Nobody asks the host of `url` anything before `until`.
    pub fn pause(&self, url: &Url, until: Instant) {
        let host = self.host(url);
        let mut paused = host.paused_until.lock();
        *paused = Some(paused.map_or(until, |other| other.max(until)));
    }
}
