//! System calls that never wait: those on sockets whether the socket is in the non-blocking mode or not.
//!
//! `None` says that the socket is not ready. A signal ends none of them: they are made again.
#![allow(unsafe_code)]

use super::buffer::MOST_SLICES;
use std::io::{self, IoSlice};
use std::mem::{ManuallyDrop, MaybeUninit};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Whether the call is to be made later.
fn is_not_ready(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

/// Makes a call until no signal ends it.
#[inline]
fn call<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<Option<T>> {
    loop {
        match call() {
            Ok(value) => return Ok(Some(value)),
            Err(error) if is_not_ready(&error) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// What a system call's result says.
#[inline]
fn checked(result: libc::ssize_t) -> io::Result<usize> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as usize) }
}

/// `recv(2)`. No bytes: the other side sends no more.
///
/// # Errors
/// The system's.
#[inline]
pub fn receive(fd: RawFd, to: &mut [u8]) -> io::Result<Option<usize>> {
    // SAFETY: the system writes to the slice, which lives as long as the call.
    call(|| checked(unsafe { libc::recv(fd, to.as_mut_ptr().cast(), to.len(), libc::MSG_DONTWAIT) }))
}

/// `send(2)`. As many bytes are sent as the system has room for.
///
/// # Errors
/// The system's.
#[inline]
pub fn send(fd: RawFd, bytes: &[u8]) -> io::Result<Option<usize>> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the system reads from the slice, which lives as long as the call.
    call(|| checked(unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), flags) }))
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
    call(|| checked(unsafe { libc::sendmsg(fd, &header, flags) }))
}

/// `read(2)` of a descriptor in the non-blocking mode. No bytes: nobody writes any more.
///
/// # Errors
/// The system's.
#[inline]
pub fn read(fd: RawFd, to: &mut [u8]) -> io::Result<Option<usize>> {
    // SAFETY: the system writes to the slice, which lives as long as the call.
    call(|| checked(unsafe { libc::read(fd, to.as_mut_ptr().cast(), to.len()) }))
}

/// `write(2)` to a descriptor in the non-blocking mode.
///
/// # Errors
/// The system's. If nobody reads any more, a signal comes with it that kills a process which does not ignore it, as Python does.
#[inline]
pub fn write(fd: RawFd, bytes: &[u8]) -> io::Result<Option<usize>> {
    // SAFETY: the system reads from the slice, which lives as long as the call.
    call(|| checked(unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) }))
}

/// `writev(2)`: the same with several slices.
///
/// # Errors
/// As [`write`].
pub fn write_slices(fd: RawFd, slices: &[IoSlice<'_>]) -> io::Result<Option<usize>> {
    debug_assert!(slices.len() <= MOST_SLICES);
    // SAFETY: `IoSlice` has the layout of an `iovec`; the system only reads, and what it reads lives as long as the call.
    call(|| checked(unsafe { libc::writev(fd, slices.as_ptr().cast(), slices.len() as libc::c_int) }))
}

/// A datagram of an internet protocol, which was cut off if there was no room for it, and who sent it. The socket must be in the
/// non-blocking mode.
///
/// # Errors
/// The system's; it may be about one that was sent.
pub fn receive_from(fd: RawFd, to: &mut [u8]) -> io::Result<Option<(usize, SocketAddr)>> {
    call(|| borrowed(fd).recv_from(to))
}

/// Sends a datagram. The socket must be in the non-blocking mode.
///
/// # Errors
/// The system's; it may be about one that was sent before.
pub fn send_to(fd: RawFd, bytes: &[u8], to: SocketAddr) -> io::Result<Option<usize>> {
    call(|| borrowed(fd).send_to(bytes, to))
}

/// The standard library's socket of a descriptor that belongs to somebody else.
fn borrowed(fd: RawFd) -> ManuallyDrop<UdpSocket> {
    // SAFETY: it is never closed here; whoever calls has it open.
    ManuallyDrop::new(unsafe { UdpSocket::from_raw_fd(fd) })
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
    let accept = || unsafe { libc::accept4(fd, std::ptr::null_mut(), std::ptr::null_mut(), flags) };
    let accepted = call(|| checked(accept() as libc::ssize_t))?;
    // SAFETY: the system just made the descriptor for us.
    Ok(accepted.map(|fd| unsafe { OwnedFd::from_raw_fd(fd as RawFd) }))
}
