//! Waiting for the deaths of workers.

use crate::sys::{Poller, open_process, signal_process};
use juggler_sync::guarded::Guarded;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// The workers that are watched, by their desks.
#[derive(Debug)]
pub struct Watch {
    poller: Poller,
    processes: Guarded<BTreeMap<usize, OwnedFd>>,
}

impl Watch {
    /// Nobody is watched.
    ///
    /// # Errors
    /// The system's: too many open files.
    pub fn new() -> io::Result<Self> {
        Ok(Self { poller: Poller::new()?, processes: Guarded::new(BTreeMap::new()) })
    }

    /// Watches the process `pid` at desk `worker`.
    ///
    /// # Errors
    /// The system's; `ESRCH` if it is dead already and somebody else has read its exit status.
    pub fn add(&self, worker: usize, pid: u32) -> io::Result<()> {
        let process = open_process(pid)?;
        self.poller.add(process.as_fd(), worker as u64)?;
        self.processes.lock().insert(worker, process);
        Ok(())
    }

    /// Watches it no more.
    pub fn remove(&self, worker: usize) {
        let process = self.processes.lock().remove(&worker);
        if let Some(process) = process {
            // It is there: `add` added it.
            let _ = self.poller.remove(process.as_fd());
        }
    }

    /// Sends a signal to the process at desk `worker`, if it lives.
    pub fn signal(&self, worker: usize, signal: i32) {
        if let Some(process) = self.processes.lock().get(&worker) {
            signal_process(process.as_fd(), signal);
        }
    }

    /// Ends a wait.
    pub fn ring(&self) {
        self.poller.ring();
    }

    /// Sleeps until a worker dies, somebody rings or `timeout` milliseconds are over (-1: never); the desks of
    /// the dead, and whether somebody rang.
    pub fn wait(&self, timeout: i32) -> (Vec<usize>, bool) {
        let (marks, rung) = self.poller.wait(timeout);
        (marks.into_iter().map(|worker| worker as usize).collect(), rung)
    }
}
