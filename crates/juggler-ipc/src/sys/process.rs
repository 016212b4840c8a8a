//! Linux: processes as descriptors (`pidfd_open(2)`), and waiting for several with `epoll(7)`.
#![allow(unsafe_code)]

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

fn checked(result: libc::c_long) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as libc::c_int) }
}

fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    // SAFETY: the system just made the descriptor for us.
    checked(result).map(|descriptor| unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// A descriptor of the process `pid`, readable when it is dead.
///
/// # Errors
/// The system's: no such process, too many open files.
pub fn open_process(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: plain numbers.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
}

/// Sends a signal to a process, if it lives.
pub fn signal_process(process: BorrowedFd<'_>, signal: i32) {
    // SAFETY: plain numbers and a null pointer. Failure: it is dead.
    unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), signal, std::ptr::null::<u8>(), 0) };
}

/// Sleeps until the process is dead.
pub fn await_process(process: BorrowedFd<'_>) {
    let mut entry = libc::pollfd { fd: process.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid entry.
    while unsafe { libc::poll(&mut entry, 1, -1) } <= 0 {}
}

/// Kills this process, at once.
pub fn kill_self() -> ! {
    // SAFETY: plain numbers.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    std::process::abort()
}

/// How much memory a process has, in bytes, without what it shares with others and with files.
pub fn resident_bytes(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let mut fields = text.split(' ').skip(1).map(str::parse::<u64>);
    let (resident, shared) = (fields.next()?.ok()?, fields.next()?.ok()?);
    let pages = resident.saturating_sub(shared);
    // SAFETY: a plain number.
    Some(pages * unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u64)
}

/// Several descriptors to wait for.
#[derive(Debug)]
pub struct Poller {
    epoll: OwnedFd,
    bell: OwnedFd,
}

/// The bell's mark.
const BELL: u64 = u64::MAX;

impl Poller {
    /// With nothing but a bell.
    ///
    /// # Errors
    /// The system's: too many open files.
    pub fn new() -> io::Result<Self> {
        // SAFETY: plain numbers.
        let epoll = owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }.into())?;
        // SAFETY: plain numbers.
        let bell = owned(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) }.into())?;
        let poller = Self { epoll, bell };
        poller.control(libc::EPOLL_CTL_ADD, poller.bell.as_raw_fd(), BELL)?;
        Ok(poller)
    }

    fn control(&self, operation: i32, descriptor: i32, mark: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: mark };
        // SAFETY: valid descriptors and a valid event.
        checked(unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), operation, descriptor, &mut event) }.into()).map(drop)
    }

    /// Waits for `descriptor` too, as `mark`.
    ///
    /// # Errors
    /// The system's.
    pub fn add(&self, descriptor: BorrowedFd<'_>, mark: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, descriptor.as_raw_fd(), mark)
    }

    /// Waits for it no more.
    ///
    /// # Errors
    /// The system's.
    pub fn remove(&self, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, descriptor.as_raw_fd(), 0)
    }

    /// Ends the wait.
    pub fn ring(&self) {
        let one = 1_u64.to_ne_bytes();
        // SAFETY: eight valid bytes. Failure: it rings already.
        unsafe { libc::write(self.bell.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Sleeps until something is readable, somebody rings or `timeout` milliseconds are over (-1: never); the marks of
    /// what is readable, and whether somebody rang.
    pub fn wait(&self, timeout: i32) -> (Vec<u64>, bool) {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 32];
        // SAFETY: there is room for as many events as it is told.
        let count = unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), events.as_mut_ptr(), 32, timeout) };
        let mut marks = Vec::new();
        let mut rung = false;
        for event in &events[..count.max(0) as usize] {
            let mark = event.u64;
            if mark != BELL {
                marks.push(mark);
                continue;
            }
            rung = true;
            let mut count = [0_u8; 8];
            // SAFETY: eight valid bytes.
            unsafe { libc::read(self.bell.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
        }
        (marks, rung)
    }
}
