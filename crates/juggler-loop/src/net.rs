//! System calls on sockets that never wait, whether the socket is in the non-blocking mode or not.
//!
//! `None` says that the socket is not ready. A signal ends none of them: they are made again.
#![allow(unsafe_code)]

use super::buffer::MOST_SLICES;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Whether the call is to be made later.
fn is_not_ready(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

/// Makes a call until no signal ends it.
#[inline]
fn call(mut call: impl FnMut() -> libc::ssize_t) -> io::Result<Option<usize>> {
    loop {
        let result = call();
        if result >= 0 {
            return Ok(Some(result as usize));
        }
        let error = io::Error::last_os_error();
        if is_not_ready(&error) {
            return Ok(None);
        }
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// `recv(2)`. No bytes: the other side sends no more.
///
/// # Errors
/// The system's.
#[inline]
pub fn receive(fd: RawFd, to: &mut [u8]) -> io::Result<Option<usize>> {
    // SAFETY: the system writes to the slice, which lives as long as the call.
    call(|| unsafe { libc::recv(fd, to.as_mut_ptr().cast(), to.len(), libc::MSG_DONTWAIT) })
}

/// `send(2)`. As many bytes are sent as the system has room for.
///
/// # Errors
/// The system's.
#[inline]
pub fn send(fd: RawFd, bytes: &[u8]) -> io::Result<Option<usize>> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the system reads from the slice, which lives as long as the call.
    call(|| unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), flags) })
}

/// `sendmsg(2)`: the same with several slices.
///
/// # Errors
/// The system's.
pub fn send_slices(fd: RawFd, slices: &[IoSlice<'_>]) -> io::Result<Option<usize>> {
    debug_assert!(slices.len() <= MOST_SLICES);
    // SAFETY: a header of zeroes is an empty one.
    let mut header: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    // `IoSlice` has the layout of an `iovec`. The system only reads.
    header.msg_iov = slices.as_ptr().cast_mut().cast();
    header.msg_iovlen = slices.len() as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the header, and what it refers to, live as long as the call.
    call(|| unsafe { libc::sendmsg(fd, &header, flags) })
}

/// `shutdown(2)` of the side that sends.
///
/// # Errors
/// The system's.
pub fn shut_down_sending(fd: RawFd) -> io::Result<()> {
    // SAFETY: plain numbers.
    if unsafe { libc::shutdown(fd, libc::SHUT_WR) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// `accept4(2)`: a connection that waits, in the non-blocking mode. The listening socket must be in that mode.
///
/// # Errors
/// The system's.
pub fn accept(fd: RawFd) -> io::Result<Option<OwnedFd>> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: plain numbers; no address is asked for.
    let accepted = call(|| unsafe { libc::accept4(fd, std::ptr::null_mut(), std::ptr::null_mut(), flags) } as isize)?;
    // SAFETY: the system just made the descriptor for us.
    Ok(accepted.map(|fd| unsafe { OwnedFd::from_raw_fd(fd as RawFd) }))
}
