//! What a call does with its time, watched from outside: computing, waiting for a processor, holding the GIL.
//!
//! `juggler.map` makes its first calls between [`Probe::begin`] and [`Probe::end`], in the thread that makes them. Meanwhile a
//! native thread, which never attaches to the interpreter, looks every 50 µs whether that thread has the GIL
//! ([`gil::is_held_by`]). [`Probe::read`] may be called by any thread, also in the middle of a call: the kernel tells the
//! processor time of a running thread to whoever asks.
#![allow(unsafe_code)]

use crate::gil;
use juggler_sync::guarded::Guarded;
use pyo3::prelude::*;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Between two looks at the GIL.
const INTERVAL: Duration = Duration::from_micros(50);
/// Nanoseconds in which clocks are read by who has a processor all the time.
const UNDISTURBED: u64 = 200_000;

/// Watches the calls of one thread at a time.
#[pyclass(frozen, module = "juggler")]
pub struct Probe {
    watched: Arc<Guarded<Watched>>,
}

#[derive(Default)]
struct Watched {
    window: Option<Window>,
    sum: Times,
    looks: u64,
    held: u64,
    /// Whether it could be told who holds the GIL, whenever it was asked.
    told: bool,
    /// Whether there is a thread that looks.
    sampled: bool,
    /// Processor time of that thread, in nanoseconds.
    looking: u64,
}

/// A span of calls, and the clocks when it began.
struct Window {
    /// The interpreter's state of the thread, which is alive as long as the window is there.
    state: gil::State,
    thread: libc::pid_t,
    files: Files,
    began: Times,
}

/// Nanoseconds, and page faults.
#[derive(Clone, Copy, Default)]
struct Times {
    wall: u64,
    running: u64,
    queued: u64,
    process: u64,
    faults: u64,
}

/// What the kernel tells of a thread besides its processor time; absent where there is no `/proc`.
struct Files {
    schedstat: Option<File>,
    stat: Option<File>,
}

#[pymethods]
impl Probe {
    #[new]
    fn new() -> Self {
        Self { watched: Arc::new(Guarded::new(Watched { told: true, ..Watched::default() })) }
    }

    /// The calling thread begins with what is to be watched.
    fn begin(&self, py: Python<'_>) {
        // SAFETY: always safe to call.
        let thread = unsafe { libc::gettid() };
        let state = gil::State::of_this_thread(py);
        let open = |name| File::open(format!("/proc/self/task/{thread}/{name}")).ok();
        let files = Files { schedstat: open("schedstat"), stat: open("stat") };
        // It has the GIL now: if that is not what the words say, they are not what they are taken for.
        // SAFETY: this thread's state.
        let knows = unsafe { gil::is_held_by(state) } == Some(gil::EXISTS);
        let mut watched = self.watched.lock();
        watched.told &= knows;
        if knows && !std::mem::replace(&mut watched.sampled, true) {
            let shared = Arc::downgrade(&self.watched);
            let spawned = std::thread::Builder::new().name("juggler-probe".into()).stack_size(64 * 1024);
            watched.told = spawned.spawn(move || sample(&shared)).is_ok();
        }
        let began = Times::before(thread, &files, watched.looking);
        watched.window = Some(Window { state, thread, files, began });
    }

    /// The calling thread has ended what it began.
    fn end(&self) {
        let mut watched = self.watched.lock();
        if let Some(window) = watched.window.take() {
            watched.sum = watched.sum.plus(window.so_far(watched.looking));
        }
    }

    /// What was seen, also of a call that goes on: nanoseconds that passed, that the thread ran, that it waited for a
    /// processor, and of processor time that the process had, this watching left out; page faults; looks, and how many of them found that it
    /// held the GIL, or `None` if that can't be told.
    fn read(&self) -> (u64, u64, u64, u64, u64, u64, Option<u64>) {
        let watched = self.watched.lock();
        let looking = watched.looking;
        let sum = watched.window.as_ref().map_or(watched.sum, |window| watched.sum.plus(window.so_far(looking)));
        let held = watched.told.then_some(watched.held);
        (sum.wall, sum.running, sum.queued, sum.process, sum.faults, watched.looks, held)
    }
}

/// Looks at the GIL until the probe is gone.
fn sample(watched: &Weak<Guarded<Watched>>) {
    while let Some(watched) = watched.upgrade() {
        let mut watched = watched.lock();
        // SAFETY: the thread is in its window, so its state is there: `end` takes the lock that is held here.
        let held = watched.window.as_ref().and_then(|window| unsafe { gil::is_held_by(window.state) });
        if let Some(held) = held {
            watched.looks += 1;
            watched.held += u64::from(held);
        }
        watched.looking = nanos(libc::CLOCK_THREAD_CPUTIME_ID);
        drop(watched);
        std::thread::sleep(INTERVAL);
    }
}

impl Window {
    fn so_far(&self, looking: u64) -> Times {
        Times::after(self.thread, &self.files, looking).since(self.began)
    }
}

impl Times {
    /// The clocks before a span. What takes longest to read comes first: so little of the reading is counted.
    fn before(thread: libc::pid_t, files: &Files, looking: u64) -> Self {
        at_once(|| {
            let wall = nanos(libc::CLOCK_MONOTONIC);
            let (queued, faults) = files.numbers();
            let process = nanos(libc::CLOCK_PROCESS_CPUTIME_ID).saturating_sub(looking);
            let running = nanos(clock_of(thread));
            let times = Self { wall: nanos(libc::CLOCK_MONOTONIC), running, queued, process, faults };
            (times, times.wall - wall)
        })
    }

    /// The clocks after a span, the other way round.
    fn after(thread: libc::pid_t, files: &Files, looking: u64) -> Self {
        at_once(|| {
            let wall = nanos(libc::CLOCK_MONOTONIC);
            let running = nanos(clock_of(thread));
            let process = nanos(libc::CLOCK_PROCESS_CPUTIME_ID).saturating_sub(looking);
            let (queued, faults) = files.numbers();
            (Self { wall, running, queued, process, faults }, nanos(libc::CLOCK_MONOTONIC) - wall)
        })
    }

    fn since(self, other: Self) -> Self {
        Self {
            wall: self.wall.saturating_sub(other.wall),
            running: self.running.saturating_sub(other.running),
            queued: self.queued.saturating_sub(other.queued),
            process: self.process.saturating_sub(other.process),
            faults: self.faults.saturating_sub(other.faults),
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            wall: self.wall + other.wall,
            running: self.running + other.running,
            queued: self.queued + other.queued,
            process: self.process + other.process,
            faults: self.faults + other.faults,
        }
    }
}

/// What a reading of several clocks finds, repeated a few times if it took so long that whoever reads may have lost its
/// processor in the midst of it: the clocks would disagree about that time.
fn at_once(read: impl Fn() -> (Times, u64)) -> Times {
    let mut tries = 0;
    loop {
        let (times, took) = read();
        tries += 1;
        if took < UNDISTURBED || tries == 5 {
            return times;
        }
    }
}

impl Files {
    /// Nanoseconds that the thread waited for a processor, and its page faults.
    fn numbers(&self) -> (u64, u64) {
        (number(self.schedstat.as_ref(), 1), number(self.stat.as_ref(), 7))
    }
}

/// The clock of a thread's processor time, as the kernel numbers them (`CPUCLOCK_PERTHREAD_MASK | CPUCLOCK_SCHED`).
fn clock_of(thread: libc::pid_t) -> libc::clockid_t {
    (!thread << 3) | 6
}

fn nanos(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes a time that lives as long as the call. It is left as it is if there is no such thread.
    unsafe { libc::clock_gettime(clock, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// A number in a file of one line, counted behind the name of the thread if there is one; 0 if it can't be read.
fn number(file: Option<&File>, position: usize) -> u64 {
    let mut line = [0; 512];
    let length = file.and_then(|file| file.read_at(&mut line, 0).ok()).unwrap_or(0);
    let line = String::from_utf8_lossy(&line[..length]);
    let numbers = line.rsplit(')').next().unwrap_or_default();
    numbers.split_whitespace().nth(position).and_then(|word| word.parse().ok()).unwrap_or(0)
}
