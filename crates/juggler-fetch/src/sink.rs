//! From a stream of bytes into a part: as they come, or in blocks past the page cache. Either way they are received where they
//! are written from.

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

/// What is read at once of a body that goes into the page cache.
const CACHED: usize = 256 << 10;

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

    /// Room for the bytes that come next; see [`Sink::took`].
    pub fn room(&mut self, part: &Part) -> &mut [u8] {
        let room = self.block.get_or_insert_with(Block::new).room(self.at);
        let most = if part.direct().is_some() { room.len() } else { room.len().min(CACHED) };
        &mut room[..most]
    }

    /// Takes the first `count` bytes of the room.
    ///
    /// # Errors
    /// [`Kind::Disk`], perhaps of earlier ones.
    pub async fn took(&mut self, part: &mut Part, count: usize) -> Result<(), Error> {
        let Some(block) = &mut self.block else { return Ok(()) };
        let bytes = &block.room(self.at)[..count];
        part.hash(self.at, bytes);
        if part.direct().is_none() {
            part.write(self.at, bytes)?;
        } else {
            block.length += count;
        }
        self.at += count as u64;
        if block.is_full() { self.send(part).await } else { Ok(()) }
    }

    /// Takes bytes.
    ///
    /// # Errors
    /// As [`Sink::took`].
    pub async fn put(&mut self, part: &mut Part, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            let room = self.room(part);
            let count = bytes.len().min(room.len());
            room[..count].copy_from_slice(&bytes[..count]);
            bytes = &bytes[count..];
            self.took(part, count).await?;
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
        let Some(block) = self.block.take() else { return Ok(()) };
        let Some(direct) = part.direct().filter(|_| block.length > 0) else {
            block.spare();
            return Ok(());
        };
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
        block.spare();
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
    fn new() -> Self {
        let memory = SPARE.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; BLOCK + ALIGNED]);
        let start = memory.as_ptr().align_offset(ALIGNED).min(ALIGNED);
        Self { memory, start, length: 0, from: 0 }
    }

    /// Lets another sink have the memory.
    fn spare(self) {
        SPARE.with_borrow_mut(|spare| spare.push(self.memory));
    }

    /// Room for the bytes from `at` on, which follow those that are there.
    fn room(&mut self, at: u64) -> &mut [u8] {
        if self.length == 0 {
            self.from = at;
        }
        let most = BLOCK - (self.from % BLOCK as u64) as usize;
        &mut self.memory[self.start + self.length..self.start + most]
    }

    fn is_full(&self) -> bool {
        self.length == BLOCK - (self.from % BLOCK as u64) as usize
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
