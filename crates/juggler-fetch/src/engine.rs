//! The thread that fetches, and what its owner sees of it.
//!
//! One thread with one event loop moves all bytes; what waits for the disk's confirmation (`fsync`) runs on threads of the
//! loop's own beside it. They all end when the last outcome is there, or when the engine is dropped.

use crate::board::{Board, Progress, Snapshot, Stage, State};
use crate::commit::{self, DISK_THREADS};
use crate::error::{Error, Kind};
use crate::exchange::Client;
use crate::hosts::Hosts;
use crate::names::Names;
use crate::options::{Job, Options, Outcome};
use crate::pace::Pace;
use crate::part::Parts;
use crate::transfer::{self, Shared};
use juggler_sync::guarded::Guarded;
use juggler_sync::{Deadline, Gate};
use rustix::event::{EventfdFlags, eventfd};
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

/// How long an engine that is stopped waits for what can't be interrupted: a file that is being synced, a name that is
/// being looked up.
const LAST_CALLS: Duration = Duration::from_secs(10);

/// Fetches files in the background.
pub struct Engine {
    board: Arc<Board>,
    bell: Arc<Bell>,
    jobs: Guarded<Option<mpsc::UnboundedSender<Job>>>,
    stop: Guarded<Option<oneshot::Sender<()>>>,
    thread: Guarded<Option<JoinHandle<()>>>,
}

impl Engine {
    /// Starts the engine's thread.
    ///
    /// # Errors
    /// What is wrong with the options or the folder, or that the system has no thread.
    pub fn start(options: Options) -> Result<Self, Error> {
        let failed = |error: io::Error| Error::new(Kind::Disk, format!("cannot start the downloader: {error}"));
        std::fs::create_dir_all(&options.folder)
            .map_err(|error| Error::disk("create the folder", &options.folder, error))?;
        let pace = options.rate.map(Pace::new).transpose();
        let board = Arc::new(Board::new(State::default()));
        let (committer, whole) = mpsc::unbounded_channel();
        let names = Arc::new(Names::new(options.folder.clone(), options.overwrite)?);
        let hosts = Arc::new(Hosts::new(options.limit, options.per_host));
        let shared = Shared {
            client: Client::new(&options)?,
            parts: Parts::of(&options.folder)?,
            hosts: Arc::clone(&hosts),
            committer,
            pace: pace.map_err(|error| Error::new(Kind::Address, error.to_string()))?,
            board: Arc::clone(&board),
            options,
        };
        let is_synced = shared.options.sync;
        let bell = Arc::new(Bell::default());
        let (jobs, queue) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(2 * DISK_THREADS)
            .thread_name("juggler-disk")
            .build()
            .map_err(failed)?;
        let ringer = Arc::clone(&bell);
        let run = move || {
            let end = Ending { board: Arc::clone(&shared.board), bell: Arc::clone(&ringer) };
            runtime.block_on(async {
                tokio::spawn(commit::serve(names, hosts, whole, is_synced));
                // A timer that is sooner than all others costs a system call: with this one, no file's is.
                tokio::spawn(async {
                    let mut pulse = tokio::time::interval(transfer::LOOK);
                    loop {
                        pulse.tick().await;
                    }
                });
                tokio::select! {
                    () = serve(Arc::new(shared), queue, &ringer) => {}
                    _ = stopped => {}
                }
            });
            // What is still under way lets go of its part here.
            runtime.shutdown_timeout(LAST_CALLS);
            drop(end);
        };
        let thread = thread::Builder::new().name("juggler-fetch".into()).spawn(run).map_err(failed)?;
        let (jobs, stop) = (Guarded::new(Some(jobs)), Guarded::new(Some(stop)));
        Ok(Self { board, bell, jobs, stop, thread: Guarded::new(Some(thread)) })
    }

    /// Adds a file; of no effect after [`Engine::close`].
    pub fn add(&self, job: Job) {
        if let Some(jobs) = &*self.jobs.lock() {
            let name = job.name.clone().unwrap_or_else(|| job.url.clone());
            let stage = Stage::Queued;
            let progress = Progress { stage, name, received: 0, length: None, attempts: 0, waits: None };
            self.board.with(|state| state.snapshot.files.insert(job.index, progress));
            // Fails only when the thread is gone, which `next` tells.
            let _ = jobs.send(job);
        }
    }

    /// No more files come: the engine ends with the last one.
    pub fn close(&self) {
        *self.jobs.lock() = None;
    }

    /// The next outcome, waited for until `deadline` (`Err(None)` then); `Ok(None)` when all are told.
    ///
    /// # Errors
    /// The gate's.
    pub fn next<G: Gate>(&self, gate: &G, deadline: Deadline) -> Result<Option<Outcome>, Option<G::Error>> {
        let ready = |state: &mut State| match state.outcomes.pop_front() {
            Some(outcome) => Some(Some(outcome)),
            None => state.ended.then_some(None),
        };
        match self.board.wait_until(gate, deadline, ready) {
            Ok(Some(next)) => Ok(next),
            Ok(None) => Err(None),
            Err(error) => Err(Some(error)),
        }
    }

    /// A descriptor that is readable when [`Engine::next`] may have something. Reading it empties it.
    ///
    /// # Errors
    /// That the system has none to give.
    pub fn bell(&self) -> io::Result<BorrowedFd<'_>> {
        match self.bell.0.get() {
            Some(bell) => Ok(bell.as_fd()),
            None => {
                // Rung, as there may be something already.
                let bell = eventfd(1, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
                Ok(self.bell.0.get_or_init(|| bell).as_fd())
            }
        }
    }

    /// Forgets that the bell rang; to be called before the outcomes are looked at.
    pub fn hush(&self) {
        if let Some(bell) = self.bell.0.get() {
            let _ = rustix::io::read(bell, &mut [0; 8]);
        }
    }

    /// How far everything is.
    pub fn snapshot(&self) -> Snapshot {
        self.board.with(|state| state.snapshot.clone())
    }

    /// Stops at once, and waits until every thread is gone. Parts that can be continued are kept.
    pub fn stop(&self) {
        self.close();
        *self.stop.lock() = None;
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            // A panic there was reported there, and `Ending` told the board.
            let _ = thread.join();
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Readable when there is an outcome, or when there will be none any more; where somebody listens, as a ring is a system call.
#[derive(Default)]
struct Bell(OnceLock<OwnedFd>);

impl Bell {
    fn ring(&self) {
        if let Some(bell) = self.0.get() {
            // Full after 2^64 rings: then it is readable anyway.
            let _ = rustix::io::write(bell, &1_u64.to_ne_bytes());
        }
    }
}

/// Tells, however the thread ends, that it did.
struct Ending {
    board: Arc<Board>,
    bell: Arc<Bell>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.board.change(|state| state.ended = true);
        self.bell.ring();
    }
}

async fn serve(shared: Arc<Shared>, mut queue: mpsc::UnboundedReceiver<Job>, bell: &Arc<Bell>) {
    let mut under_way = JoinSet::new();
    let mut same: HashMap<String, u32> = HashMap::new();
    let mut open = true;
    while open || !under_way.is_empty() {
        tokio::select! {
            job = queue.recv(), if open => match job {
                Some(job) => {
                    let count = same.entry(job.url.clone()).or_default();
                    let nth = std::mem::replace(count, *count + 1);
                    under_way.spawn(one(Arc::clone(&shared), job, nth, Arc::clone(bell)));
                }
                None => open = false,
            },
            Some(_) = under_way.join_next() => {}
        }
    }
}

/// Fetches one file, and puts its outcome on the board.
async fn one(shared: Arc<Shared>, job: Job, nth: u32, bell: Arc<Bell>) {
    let began = Instant::now();
    let mut attempts = 0;
    let fetched = transfer::fetch(&shared, &job, nth, &mut attempts);
    let result = match shared.options.deadline {
        Some(deadline) => match tokio::time::timeout_at(deadline.into(), fetched).await {
            Ok(result) => result,
            Err(_) => Err(Error::new(Kind::Deadline, "not whole at the deadline")),
        },
        None => fetched.await,
    };
    let outcome = Outcome { job, attempts, took: began.elapsed(), result };
    shared.board.change(|state| {
        let totals = &mut state.snapshot.totals;
        *(if outcome.result.is_ok() { &mut totals.done } else { &mut totals.failed }) += 1;
        state.snapshot.files.remove(&outcome.job.index);
        state.outcomes.push_back(outcome);
    });
    bell.ring();
}
