//! What the engine and its caller share: how far each file is, and what is finished.

use crate::options::Outcome;
use juggler_sync::monitor::Monitor;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// What is being done for a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It waits for its turn.
    Queued,
    /// A connection is being made, or the answer waited for.
    Asking,
    /// Bytes come.
    Receiving,
    /// The next attempt waits.
    Waiting,
    /// The whole file is brought to the disk.
    Syncing,
}

/// How far one file is.
#[derive(Clone, Debug)]
pub struct Progress {
    /// What is being done.
    pub stage: Stage,
    /// Its name, as far as it is known; the address before.
    pub name: String,
    /// Bytes that are there.
    pub received: u64,
    /// Bytes of the whole file, if the server said.
    pub length: Option<u64>,
    /// Attempts so far.
    pub attempts: u32,
    /// What the last attempt failed of, and how long the next one waits.
    pub waits: Option<(String, Duration)>,
}

/// How far everything is.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Files that are whole.
    pub done: u64,
    /// Files that failed for good.
    pub failed: u64,
    /// Attempts after the first.
    pub retries: u64,
    /// Bytes that came over the network, of all attempts.
    pub received: u64,
}

/// The files that are under way, by their number, and everything in sum.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Those that are not finished.
    pub files: BTreeMap<u64, Progress>,
    /// Everything.
    pub totals: Totals,
}

/// The shared state.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub snapshot: Snapshot,
    pub outcomes: VecDeque<Outcome>,
    /// The engine's thread has ended: no outcome comes any more.
    pub ended: bool,
}

/// The shared state, for which callers wait.
pub(crate) type Board = Monitor<State>;

/// Changes the entry of the file `index`.
pub(crate) fn update(board: &Board, index: u64, change: impl FnOnce(&mut Progress)) {
    board.with(|state| {
        if let Some(progress) = state.snapshot.files.get_mut(&index) {
            change(progress);
        }
    });
}
