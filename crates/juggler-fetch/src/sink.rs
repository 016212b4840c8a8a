//! From a stream of bytes into a part, and from the page cache to the disk while more come.

use crate::error::Error;
use crate::part::Part;
use crate::write_back::{again, write_back};
use std::collections::VecDeque;
use std::num::NonZeroU64;
use tokio::task::JoinHandle;

/// So many bytes go to the disk at a time.
const PIECE: u64 = 4 << 20;

/// So many pieces are on their way at once. Who brings more waits for the first of them: otherwise what is not written yet would
/// grow until the system stops every writer, and with it the engine's thread.
const PIECES: usize = 2;

/// Where one stream's bytes go.
pub(crate) struct Sink {
    at: u64,
    /// Up to where they were sent on to the disk.
    sent: u64,
    under_way: VecDeque<JoinHandle<()>>,
}

impl Sink {
    /// For bytes from `at` on.
    pub fn new(at: u64) -> Self {
        Self { at, sent: at, under_way: VecDeque::new() }
    }

    /// Where the next byte goes.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Takes bytes, and waits for the disk if too many are on their way there.
    ///
    /// # Errors
    /// [`Kind::Disk`](crate::Kind::Disk).
    pub async fn put(&mut self, part: &mut Part, bytes: &[u8]) -> Result<(), Error> {
        self.put_now(part, bytes)?;
        if !part.is_synced() || self.at - self.sent < PIECE {
            return Ok(());
        }
        if self.under_way.len() == PIECES {
            if let Some(first) = self.under_way.pop_front() {
                // What failed there, the part's sync tells.
                let _ = first.await;
            }
        }
        if let (Ok(file), Some(length)) = (again(part.file()?), NonZeroU64::new(self.at - self.sent)) {
            let from = self.sent;
            self.under_way.push_back(tokio::task::spawn_blocking(move || write_back(&file, from, length)));
            self.sent = self.at;
        }
        Ok(())
    }

    /// Takes bytes without waiting.
    ///
    /// # Errors
    /// [`Kind::Disk`](crate::Kind::Disk).
    pub fn put_now(&mut self, part: &mut Part, bytes: &[u8]) -> Result<(), Error> {
        part.hash(self.at, bytes);
        part.write(self.at, bytes)?;
        self.at += bytes.len() as u64;
        Ok(())
    }
}
