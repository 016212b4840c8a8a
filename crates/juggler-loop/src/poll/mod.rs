//! Which descriptors are watched, for what, and by whom.

mod epoll;

pub use epoll::{Bell, Events, Waiter};

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

/// What a descriptor is watched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Reading would not block: there are data, an end or an error.
    Read,
    /// Writing would not block: there is room, or an error.
    Write,
}

/// Who watches a descriptor.
#[derive(Debug)]
struct Watchers<W> {
    read: Option<W>,
    write: Option<W>,
}

impl<W> Default for Watchers<W> {
    fn default() -> Self {
        Self { read: None, write: None }
    }
}

impl<W> Watchers<W> {
    fn of(&mut self, interest: Interest) -> &mut Option<W> {
        match interest {
            Interest::Read => &mut self.read,
            Interest::Write => &mut self.write,
        }
    }
}

/// Watchers by descriptor, and the system's own list of the same.
///
/// Level-triggered: a watcher is told each time, for as long as the descriptor is ready. Watchers are handed back, never
/// dropped in here.
#[derive(Debug)]
pub struct Poller<W> {
    epoll: epoll::Epoll,
    /// By descriptor.
    table: Vec<Watchers<W>>,
    /// How many watchers there are.
    watching: usize,
}

impl<W> Poller<W> {
    /// Without watchers.
    ///
    /// # Errors
    /// The system's: too many open files.
    pub fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::Epoll::new()?, table: Vec::new(), watching: 0 })
    }

    /// Has the system told anew of everything: for the child of a fork, which must not share its parent's list.
    ///
    /// # Errors
    /// The system's: too many open files.
    pub fn renew(&mut self) -> io::Result<()> {
        self.epoll = epoll::Epoll::new()?;
        for (fd, watchers) in self.table.iter().enumerate() {
            if watchers.read.is_some() || watchers.write.is_some() {
                // One that was closed meanwhile has nothing to tell.
                let _ = self.epoll.set(fd as RawFd, false, watchers.read.is_some(), watchers.write.is_some());
            }
        }
        Ok(())
    }

    /// How many watchers there are.
    #[inline]
    pub fn watching(&self) -> usize {
        self.watching
    }

    /// Has `watcher` told when `fd` is ready; the one who was told before is returned.
    ///
    /// # Errors
    /// The system's: no such descriptor, one that is always ready (a file), no memory; with the watcher, which is not told then.
    pub fn watch(&mut self, fd: RawFd, interest: Interest, watcher: W) -> Result<Option<W>, (io::Error, W)> {
        let Ok(at) = usize::try_from(fd) else {
            return Err((io::Error::from_raw_os_error(libc::EBADF), watcher));
        };
        let (read, write) = self.watched(fd);
        let (new_read, new_write) = (read || interest == Interest::Read, write || interest == Interest::Write);
        // Also if nothing changes: the descriptor may have been closed, and another one have got its number.
        if let Err(error) = self.epoll.set(fd, read || write, new_read, new_write) {
            return Err((error, watcher));
        }
        if at >= self.table.len() {
            self.table.resize_with(at + 1, Watchers::default);
        }
        let old = self.table[at].of(interest).replace(watcher);
        self.watching += usize::from(old.is_none());
        Ok(old)
    }

    /// Has nobody told any more, and returns who was.
    pub fn unwatch(&mut self, fd: RawFd, interest: Interest) -> Option<W> {
        let watchers = self.table.get_mut(usize::try_from(fd).ok()?)?;
        let old = watchers.of(interest).take()?;
        self.watching -= 1;
        // A descriptor that was closed has left the system's list by itself.
        let _ = self.epoll.set(fd, true, watchers.read.is_some(), watchers.write.is_some());
        Some(old)
    }

    /// Who watches `fd`.
    pub fn watcher(&self, fd: RawFd, interest: Interest) -> Option<&W> {
        let watchers = self.table.get(usize::try_from(fd).ok()?)?;
        match interest {
            Interest::Read => watchers.read.as_ref(),
            Interest::Write => watchers.write.as_ref(),
        }
    }

    /// Has `bell` end a wait when it rings, without a watcher.
    ///
    /// # Errors
    /// The system's: no memory.
    pub fn hear(&mut self, bell: &Bell) -> io::Result<()> {
        self.epoll.hear(bell)
    }

    /// What waits for the descriptors, apart from the table: the table may be used meanwhile.
    #[inline]
    pub fn waiter(&self) -> Waiter {
        self.epoll.waiter()
    }

    /// Looks whether `fd` is ready for who watches it, and puts that down.
    pub fn look_at(&self, events: &mut Events, fd: RawFd) {
        let (read, write) = self.watched(fd);
        self.waiter().look_at(events, fd, read, write);
    }

    /// Whether `fd` is watched: for reading, for writing.
    #[inline]
    fn watched(&self, fd: RawFd) -> (bool, bool) {
        let watchers = usize::try_from(fd).ok().and_then(|at| self.table.get(at));
        watchers.map_or((false, false), |watchers| (watchers.read.is_some(), watchers.write.is_some()))
    }

    /// Calls `tell` for each watcher that `events` concern.
    pub fn dispatch(&self, events: &Events, mut tell: impl FnMut(RawFd, Interest, &W)) {
        for (fd, readable, writable) in events.iter() {
            let Some(watchers) = self.table.get(fd as usize) else { continue };
            if let Some(watcher) = watchers.read.as_ref().filter(|_| readable) {
                tell(fd, Interest::Read, watcher);
            }
            if let Some(watcher) = watchers.write.as_ref().filter(|_| writable) {
                tell(fd, Interest::Write, watcher);
            }
        }
    }

    /// All watchers.
    pub fn iter(&self) -> impl Iterator<Item = &W> {
        self.table.iter().flat_map(|watchers| watchers.read.iter().chain(&watchers.write))
    }

    /// Takes out all watchers.
    #[must_use = "the caller drops them when it may"]
    pub fn clear(&mut self) -> Vec<W> {
        self.watching = 0;
        let table = std::mem::take(&mut self.table);
        table.into_iter().flat_map(|watchers| watchers.read.into_iter().chain(watchers.write)).collect()
    }
}

/// Until when to wait for descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeout {
    /// Only look.
    Look,
    /// At most so long.
    After(Duration),
    /// Until something is ready.
    Never,
}
