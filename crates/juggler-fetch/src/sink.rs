//! From a stream of bytes into a part: as they come, or in blocks past the page cache.

use crate::error::{Error, Kind};
use crate::part::Part;
use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use tokio::task::JoinHandle;

/// One write. Two of them are a stream's: one is filled while the other goes to the disk.
const BLOCK: usize = 1 << 20;

/// What addresses, places and lengths must be multiples of, past the page cache.
const ALIGNED: usize = 4096;

/// Where one stream's bytes go. [`Sink::flush`] is to be called at its end, however it ends.
pub(crate) struct Sink {
    at: u64,
    block: Option<Block>,
    pending: Option<JoinHandle<(Block, io::Result<()>)>>,
}

thread_local! {
    /// Blocks that no sink fills. All sinks are in the engine's thread, with which these go.
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

impl Sink {
    /// For bytes from `at` on.
    pub fn new(at: u64) -> Self {
        Self { at, block: None, pending: None }
    }

    /// Where the next byte goes.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Takes bytes.
    ///
    /// # Errors
    /// [`Kind::Disk`], perhaps of earlier ones.
    pub async fn put(&mut self, part: &mut Part, mut bytes: &[u8]) -> Result<(), Error> {
        if part.direct().is_none() {
            return self.put_now(part, bytes);
        }
        part.hash(self.at, bytes);
        while !bytes.is_empty() {
            let block = self.block.get_or_insert_with(|| Block::new(self.at));
            let taken = block.fill(bytes);
            bytes = &bytes[taken..];
            self.at += taken as u64;
            if block.is_full() {
                self.send(part).await?;
            }
        }
        Ok(())
    }

    /// Takes bytes into the page cache.
    ///
    /// # Errors
    /// [`Kind::Disk`].
    pub fn put_now(&mut self, part: &mut Part, bytes: &[u8]) -> Result<(), Error> {
        part.hash(self.at, bytes);
        part.write(self.at, bytes)?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    /// Waits until everything is written.
    ///
    /// # Errors
    /// [`Kind::Disk`].
    pub async fn flush(&mut self, part: &mut Part) -> Result<(), Error> {
        let sent = self.send(part).await;
        self.settle(part).await.and(sent)
    }

    /// Lets the block that is being filled be written.
    async fn send(&mut self, part: &mut Part) -> Result<(), Error> {
        self.settle(part).await?;
        let (Some(block), Some(direct)) = (self.block.take(), part.direct()) else { return Ok(()) };
        let (file, direct) = (Arc::clone(part.file()?), Arc::clone(direct));
        self.pending = Some(tokio::task::spawn_blocking(move || {
            let written = block.write(&file, &direct);
            (block, written)
        }));
        Ok(())
    }

    /// Waits for the block that is being written.
    async fn settle(&mut self, part: &mut Part) -> Result<(), Error> {
        let Some(pending) = self.pending.take() else { return Ok(()) };
        let failed = |error| Error::new(Kind::Disk, format!("a thread of the downloader failed: {error}"));
        let (block, written) = pending.await.map_err(failed)?;
        written.map_err(|error| part.write_error(error))?;
        part.written(block.from, block.from + block.length as u64);
        SPARE.with_borrow_mut(|spare| spare.push(block.memory));
        Ok(())
    }
}

/// Bytes that follow each other; they end where a whole number of blocks does.
struct Block {
    memory: Vec<u8>,
    /// Where in `memory` it begins, at an aligned address.
    start: usize,
    length: usize,
    /// Where in the file it begins.
    from: u64,
}

impl Block {
    fn new(from: u64) -> Self {
        let memory = SPARE.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; BLOCK + ALIGNED]);
        let start = memory.as_ptr().align_offset(ALIGNED).min(ALIGNED);
        Self { memory, start, length: 0, from }
    }

    fn room(&self) -> usize {
        BLOCK - (self.from % BLOCK as u64) as usize - self.length
    }

    fn is_full(&self) -> bool {
        self.room() == 0
    }

    /// Takes as many of `bytes` as fit, and returns how many.
    fn fill(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(self.room());
        let end = self.start + self.length;
        self.memory[end..end + taken].copy_from_slice(&bytes[..taken]);
        self.length += taken;
        taken
    }

    /// Writes what can be by `direct`, and what is not aligned through the page cache.
    fn write(&self, file: &File, direct: &File) -> io::Result<()> {
        let bytes = &self.memory[self.start..self.start + self.length];
        let is_aligned = self.from % ALIGNED as u64 == 0;
        let (mut whole, rest) = bytes.split_at(if is_aligned { bytes.len() / ALIGNED * ALIGNED } else { 0 });
        match direct.write_all_at(whole, self.from) {
            Ok(()) => whole = &[],
            // Larger units than ours, or not on this file system after all.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
            Err(error) => return Err(error),
        }
        file.write_all_at(whole, self.from)?;
        file.write_all_at(rest, self.from + (bytes.len() - rest.len()) as u64)
    }
}
