//! `juggler fetch`: files from the web, and none of them ever wrong.
//!
//! The whole command, without Python: to start an interpreter takes as long as to fetch some hundred small files. The program
//! `juggler-fetch` is one door to it, `python -m juggler fetch` the other; they differ in how they learn of Ctrl-C.
//!
//! | module | holds |
//! |---|---|
//! | `words` | the command line, and what it asks the engine for |
//! | `list` | addresses in a file |
//! | `display` | lines for people, JSON for programs |
//! | `bars` | what a terminal gets besides |
//! | `interrupt` | waits that Ctrl-C ends |

mod bars;
mod display;
mod interrupt;
mod list;
mod words;

use display::Display;
use interrupt::{Interrupted, Interruptible};
use juggler_fetch::{Engine, Job};
use juggler_sync::Deadline;
use std::ffi::OsString;
use std::io;
use words::{Order, Words};

/// How a command ends. The numbers are the exit statuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Every file is whole, or help was asked for.
    Whole = 0,
    /// A file is not.
    Failed = 1,
    /// The command line is wrong.
    Wrong = 2,
    /// Ctrl-C.
    Interrupted = 130,
}

/// How many files the engine knows of, at least; the rest stay in the list.
const WINDOW: usize = 512;
/// How many it knows of beside those in flight.
const AHEAD: usize = 256;

/// Fetches what `words`, those after `juggler fetch`, say. Blocks until the files are there, or until `is_interrupted` says so,
/// which it then goes on to say: it is asked after each file, whenever a signal ends a wait, and several times a second.
pub fn fetch(words: impl IntoIterator<Item = OsString>, is_interrupted: impl Fn() -> bool) -> Status {
    let order = match Words::parse(words) {
        Ok(words) => words.order(&is_interrupted),
        Err(said) => {
            return match said.print() {
                // Where there is nobody to tell, the status tells.
                _ if said.use_stderr() => Status::Wrong,
                Ok(()) => Status::Whole,
                Err(error) => broken(&error),
            };
        }
    };
    let started = order.and_then(|Order { options, jobs, shows }| {
        let window = WINDOW.max(options.limit.saturating_add(AHEAD));
        let engine = Engine::start(options).map_err(|error| error.message)?;
        Ok((engine, jobs, window, shows))
    });
    let (engine, jobs, window, shows) = match started {
        Ok(started) => started,
        Err(_) if is_interrupted() => {
            eprint_line("interrupted: nothing was begun");
            return Status::Interrupted;
        }
        Err(wrong) => {
            eprint_line(&format!("error: {wrong}\n\nFor more information, try '--help'."));
            return Status::Wrong;
        }
    };
    let mut display = Display::new(jobs.len(), shows);
    match follow(&engine, jobs, window, &mut display, &Interruptible(is_interrupted)) {
        Ok(status) => status,
        Err(End::Interrupted) => {
            engine.stop();
            display.interrupted();
            Status::Interrupted
        }
        Err(End::Output(error)) => {
            engine.stop();
            drop(display);
            broken(&error)
        }
    }
}

/// Why the command ends before its files do.
enum End {
    Interrupted,
    Output(io::Error),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl From<Interrupted> for End {
    fn from(Interrupted: Interrupted) -> Self {
        Self::Interrupted
    }
}

/// Hands the engine its work, and shows what becomes of it until it is over.
fn follow<F: Fn() -> bool>(
    engine: &Engine,
    jobs: Vec<Job>,
    window: usize,
    display: &mut Display,
    gate: &Interruptible<F>,
) -> Result<Status, End> {
    let (mut ahead, mut known) = (jobs.into_iter(), 0);
    let mut status = Status::Whole;
    loop {
        while known < window {
            let Some(job) = ahead.next() else {
                engine.close();
                break;
            };
            engine.add(job);
            known += 1;
        }
        // Where there is always a file, nothing is waited for.
        gate.check()?;
        let look = display.interval().map_or(Deadline::NEVER, Deadline::after);
        match engine.next(gate, look) {
            Ok(Some(outcome)) => {
                known -= 1;
                if outcome.result.is_err() {
                    status = Status::Failed;
                }
                display.finished(&outcome)?;
            }
            Ok(None) => {
                display.summary(engine.snapshot().totals.received)?;
                return Ok(status);
            }
            Err(None) => {}
            Err(Some(interrupted)) => return Err(interrupted.into()),
        }
        display.refresh(|| engine.snapshot());
    }
}

/// Tells that standard output can't be written: whoever reads it must not take what came for all.
fn broken(error: &io::Error) -> Status {
    eprint_line(&format!("error: standard output: {error}"));
    Status::Failed
}

/// A line to standard error. That it can't be written must not keep files from coming.
fn eprint_line(text: &str) {
    use io::Write;
    let _ = writeln!(io::stderr(), "{text}");
}
