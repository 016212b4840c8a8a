//! Linux: `epoll(7)` and `eventfd(2)`.
#![allow(unsafe_code)]

use super::Timeout;
use juggler_sync::sync::{AtomicU32, Ordering};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// How many descriptors a single wait tells of. What is ready beyond that is told of by the next one.
const MOST_EVENTS: usize = 512;

/// The mark of bells.
const BELL: u64 = u64::MAX;

fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn owned(result: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: the system just made the descriptor for us.
    checked(result).map(|descriptor| unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// The system's list of descriptors.
#[derive(Debug)]
pub(super) struct Epoll {
    descriptor: OwnedFd,
}

impl Epoll {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: plain numbers.
        Ok(Self { descriptor: owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })? })
    }

    /// Says what to tell of `fd`, which is `listed` already, or should be.
    pub(super) fn set(&mut self, fd: RawFd, listed: bool, read: bool, write: bool) -> io::Result<()> {
        let mut events = 0;
        if read {
            events |= libc::EPOLLIN as u32;
        }
        if write {
            events |= libc::EPOLLOUT as u32;
        }
        if events == 0 {
            return self.control(libc::EPOLL_CTL_DEL, fd, 0, 0);
        }
        let (first, error, second) = if listed {
            // Closed behind our back, and the number given to another.
            (libc::EPOLL_CTL_MOD, libc::ENOENT, libc::EPOLL_CTL_ADD)
        } else {
            // Left in the list by somebody who duplicated it.
            (libc::EPOLL_CTL_ADD, libc::EEXIST, libc::EPOLL_CTL_MOD)
        };
        match self.control(first, fd, events, fd as u64) {
            Err(failed) if failed.raw_os_error() == Some(error) => self.control(second, fd, events, fd as u64),
            result => result,
        }
    }

    /// Edge-triggered: each ring is told once, and the bell's counter need not be read.
    pub(super) fn hear(&mut self, bell: &Bell) -> io::Result<()> {
        let events = (libc::EPOLLIN | libc::EPOLLET) as u32;
        self.control(libc::EPOLL_CTL_ADD, bell.descriptor.as_raw_fd(), events, BELL)
    }

    fn control(&self, operation: libc::c_int, fd: RawFd, events: u32, mark: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events, u64: mark };
        // SAFETY: `event` lives as long as the call; the descriptors are plain numbers to the system.
        checked(unsafe { libc::epoll_ctl(self.descriptor.as_raw_fd(), operation, fd, &mut event) }).map(drop)
    }

    pub(super) fn waiter(&self) -> Waiter {
        Waiter { epoll: self.descriptor.as_raw_fd() }
    }
}

/// What waits for the descriptors of a poller.
#[derive(Clone, Copy, Debug)]
pub struct Waiter {
    epoll: RawFd,
}

/// Set once the kernel has said that it does not have `epoll_pwait2`, which came with Linux 5.11.
static MILLISECONDS_ONLY: AtomicU32 = AtomicU32::new(0);

impl Waiter {
    /// Whether a wait may be shorter than a millisecond, as far as is known.
    #[inline]
    pub fn is_exact(&self) -> bool {
        MILLISECONDS_ONLY.load(Ordering::Relaxed) == 0
    }

    /// Waits until a descriptor is ready, a bell rings, a signal comes or `timeout` is over, and puts down what is ready.
    ///
    /// # Errors
    /// The system's. A signal is none: nothing is ready then.
    pub fn wait(&self, events: &mut Events, timeout: Timeout) -> io::Result<()> {
        events.ready = 0;
        match self.wait_interruptibly(events, timeout) {
            Ok(ready) => events.ready = ready as usize,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Looks whether `fd`, and what it is watched for, is ready: `poll(2)`, which knows nothing of the list.
    pub(super) fn look_at(self, events: &mut Events, fd: RawFd, read: bool, write: bool) {
        events.ready = 0;
        if !read && !write {
            return;
        }
        let events_of = |wanted, event| if wanted { event } else { 0 };
        let wanted = events_of(read, libc::POLLIN) | events_of(write, libc::POLLOUT);
        let mut polled = libc::pollfd { fd, events: wanted, revents: 0 };
        // SAFETY: one entry, which lives as long as the call.
        let ready = unsafe { libc::poll(&mut polled, 1, 0) };
        // One that is closed is none of ours any more.
        if ready > 0 && polled.revents & libc::POLLNVAL == 0 {
            // The two calls have the same bits.
            events.buffer[0] = libc::epoll_event { events: polled.revents as u32, u64: fd as u64 };
            events.ready = 1;
        }
    }

    fn wait_interruptibly(&self, events: &mut Events, timeout: Timeout) -> io::Result<libc::c_int> {
        let (buffer, most) = (events.buffer.as_mut_ptr(), events.buffer.len() as libc::c_int);
        let milliseconds = match timeout {
            Timeout::Look => 0,
            Timeout::Never => -1,
            Timeout::After(duration) if self.is_exact() => {
                let time = libc::timespec {
                    tv_sec: libc::time_t::try_from(duration.as_secs()).unwrap_or(libc::time_t::MAX),
                    tv_nsec: duration.subsec_nanos().into(),
                };
                // SAFETY: `time` and the buffer live as long as the call, which writes `most` events at most.
                let ready = unsafe {
                    libc::syscall(
                        libc::SYS_epoll_pwait2,
                        self.epoll,
                        buffer,
                        most,
                        &time,
                        std::ptr::null::<libc::sigset_t>(),
                        0,
                    )
                };
                match checked(ready as libc::c_int) {
                    Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
                        MILLISECONDS_ONLY.store(1, Ordering::Relaxed);
                        return self.wait_interruptibly(events, timeout);
                    }
                    result => return result,
                }
            }
            // Rounded up: never too early.
            Timeout::After(duration) => {
                libc::c_int::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(libc::c_int::MAX)
            }
        };
        // SAFETY: the buffer lives as long as the call, which writes `most` events at most.
        checked(unsafe { libc::epoll_wait(self.epoll, buffer, most, milliseconds) })
    }
}

/// What a wait has found ready.
#[derive(Debug)]
pub struct Events {
    buffer: Box<[libc::epoll_event]>,
    ready: usize,
}

impl Default for Events {
    fn default() -> Self {
        Self { buffer: vec![libc::epoll_event { events: 0, u64: 0 }; MOST_EVENTS].into_boxed_slice(), ready: 0 }
    }
}

impl Events {
    /// Whether nothing is ready, and no bell has rung.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.ready == 0
    }

    /// The only descriptor that is ready, if it is one.
    #[inline]
    pub fn alone(&self) -> Option<RawFd> {
        let alone = self.ready == 1 && self.buffer[0].u64 != BELL;
        alone.then(|| self.buffer[0].u64 as RawFd)
    }

    /// Each descriptor, and whether it can be read and written. One that has hung up or failed can be both.
    pub(super) fn iter(&self) -> impl Iterator<Item = (RawFd, bool, bool)> {
        self.buffer[..self.ready].iter().filter(|event| event.u64 != BELL).map(|event| {
            let readable = event.events & !(libc::EPOLLOUT as u32) != 0;
            let writable = event.events & !(libc::EPOLLIN as u32) != 0;
            (event.u64 as RawFd, readable, writable)
        })
    }
}

/// What any thread can ring to end a wait.
#[derive(Debug)]
pub struct Bell {
    descriptor: OwnedFd,
}

impl Bell {
    /// A bell that nobody hears yet.
    ///
    /// # Errors
    /// The system's: too many open files.
    pub fn new() -> io::Result<Self> {
        // SAFETY: plain numbers.
        Ok(Self { descriptor: owned(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })? })
    }

    /// Rings.
    pub fn ring(&self) {
        let one = 1_u64.to_ne_bytes();
        // SAFETY: eight bytes that live as long as the call. It fails when the counter is full, which nobody lives to see.
        unsafe { libc::write(self.descriptor.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }
}
