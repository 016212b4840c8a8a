//! What is shown: bars on a terminal, plain lines elsewhere, JSON for programs.

use crate::bars::Bars;
use crate::eprint_line;
use indicatif::DecimalBytes;
use juggler_fetch::{Outcome, Snapshot};
use serde::Serialize;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// What is asked to be shown.
#[derive(Clone, Copy, Debug)]
pub struct Shows {
    /// JSON on standard output.
    pub json: bool,
    /// Failures only.
    pub quiet: bool,
}

/// Tells of files as they end.
pub struct Display {
    shows: Shows,
    bars: Option<Bars>,
    files: usize,
    began: Instant,
    done: usize,
    failed: usize,
    size: u64,
}

impl Display {
    /// Of `files` files that are to be fetched.
    pub fn new(files: usize, shows: Shows) -> Self {
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let bars = (!shows.quiet && !is_dumb && io::stderr().is_terminal()).then(Bars::new);
        Self { shows, bars, files, began: Instant::now(), done: 0, failed: 0, size: 0 }
    }

    /// How long after one `refresh` the next is due, if there is anything to refresh.
    pub fn interval(&self) -> Option<Duration> {
        self.bars.is_some().then_some(Bars::INTERVAL)
    }

    /// Tells of a file that is whole, or failed.
    ///
    /// # Errors
    /// That standard output can't be written.
    pub fn finished(&mut self, outcome: &Outcome) -> io::Result<()> {
        match &outcome.result {
            Ok(file) => {
                self.done += 1;
                self.size += file.size;
            }
            Err(_) => self.failed += 1,
        }
        if self.shows.json {
            print_json(&Ended::of(outcome))?;
        }
        match &outcome.result {
            Err(error) => self.line(&format!("failed  {}: {error}", outcome.job.url)),
            Ok(_) if self.shows.quiet => {}
            Ok(file) => {
                let mut extras = format!("{:.1} s", outcome.took.as_secs_f64());
                if file.resumed > 0 {
                    extras += &format!(", {} were there", DecimalBytes(file.resumed));
                }
                if outcome.attempts > 1 {
                    extras += &format!(", {} attempts", outcome.attempts);
                }
                self.line(&format!("whole   {}  {}  ({extras})", file.path.display(), DecimalBytes(file.size)));
            }
        }
        Ok(())
    }

    /// Shows how far the files are, which `snapshot` tells.
    pub fn refresh(&mut self, snapshot: impl FnOnce() -> Snapshot) {
        if let Some(bars) = &mut self.bars {
            let failed = failures(self.failed);
            bars.show(&snapshot(), format!("{} of {} files{failed}", self.done, self.files));
        }
    }

    /// Tells of everything; `received` bytes came over the network.
    ///
    /// # Errors
    /// That standard output can't be written.
    pub fn summary(&mut self, received: u64) -> io::Result<()> {
        self.bars = None;
        let seconds = self.began.elapsed().as_secs_f64();
        if self.shows.json {
            print_json(&Sum {
                files: self.files,
                whole: self.done,
                failed: self.failed,
                bytes: self.size,
                received,
                seconds: rounded(seconds),
            })?;
        }
        if !self.shows.quiet {
            let failures = failures(self.failed);
            let speed = DecimalBytes((received as f64 / seconds.max(1e-9)) as u64);
            self.line(&format!(
                "{} of {} files whole{failures}: {} in {seconds:.1} s, {speed}/s",
                self.done,
                self.files,
                DecimalBytes(self.size),
            ));
        }
        Ok(())
    }

    /// Tells of Ctrl-C.
    pub fn interrupted(&mut self) {
        self.bars = None;
        self.line(&format!(
            "interrupted: {} of {} files whole; the same command continues the parts",
            self.done, self.files
        ));
    }

    /// A line for people.
    pub fn line(&self, text: &str) {
        // What servers and addresses say must not command the terminal.
        let plain = text.replace(char::is_control, "\u{fffd}");
        match &self.bars {
            Some(bars) => bars.line(&plain),
            None => eprint_line(&plain),
        }
    }
}

/// A file that ended, for programs.
#[derive(Serialize)]
struct Ended<'a> {
    url: &'a str,
    path: Option<String>,
    source: &'a str,
    size: u64,
    resumed: u64,
    attempts: u32,
    seconds: f64,
    error: Option<Failure<'a>>,
}

#[derive(Serialize)]
struct Failure<'a> {
    kind: &'static str,
    message: &'a str,
    status: Option<u16>,
}

#[derive(Serialize)]
struct Sum {
    files: usize,
    whole: usize,
    failed: usize,
    bytes: u64,
    received: u64,
    seconds: f64,
}

impl<'a> Ended<'a> {
    fn of(outcome: &'a Outcome) -> Self {
        let url = outcome.job.url.as_str();
        let (attempts, seconds) = (outcome.attempts, rounded(outcome.took.as_secs_f64()));
        match &outcome.result {
            Ok(file) => Self {
                url,
                path: Some(file.path.to_string_lossy().into_owned()),
                source: &file.url,
                size: file.size,
                resumed: file.resumed,
                attempts,
                seconds,
                error: None,
            },
            Err(error) => {
                let error = Failure { kind: error.kind.name(), message: &error.message, status: error.status };
                Self { url, path: None, source: url, size: 0, resumed: 0, attempts, seconds, error: Some(error) }
            }
        }
    }
}

/// What a count of files ends in.
fn failures(count: usize) -> String {
    if count > 0 { format!(", {count} failed") } else { String::new() }
}

/// To a thousandth.
fn rounded(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

fn print_json(value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    let mut output = io::stdout().lock();
    output.write_all(&line)?;
    output.flush()
}
