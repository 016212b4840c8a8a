//! System calls that never wait: those on sockets whether the socket is in the non-blocking mode or not.
//!
//! `None` says that the socket is not ready. A signal ends none of them: they are made again. The two that are made for each
//! message ask the system by its number: the C library's functions of the same name are points at which a thread may be cancelled,
//! which takes a few calls within calls, and returning from each is slow right after a system call.
#![allow(unsafe_code)]

use super::buffer::MOST_SLICES;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::ptr::{null, null_mut};

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
    let (start, len, flags, nobody) = (to.as_mut_ptr(), to.len(), libc::MSG_DONTWAIT, null_mut::<libc::c_void>());
    // SAFETY: the system writes to the slice, which lives as long as the call.
    call(|| checked(unsafe { libc::syscall(libc::SYS_recvfrom, fd, start, len, flags, nobody, nobody) } as _))
}

/// `send(2)`. As many bytes are sent as the system has room for.
///
/// # Errors
/// The system's.
#[inline]
pub fn send(fd: RawFd, bytes: &[u8]) -> io::Result<Option<usize>> {
    let (start, len, nobody) = (bytes.as_ptr(), bytes.len(), null::<libc::c_void>());
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the system reads from the slice, which lives as long as the call.
    call(|| checked(unsafe { libc::syscall(libc::SYS_sendto, fd, start, len, flags, nobody, 0) } as _))
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

/// The address of a socket, as the system has it.
#[derive(Clone, Copy)]
pub struct Address {
    storage: libc::sockaddr_storage,
    len: libc::socklen_t,
}

/// Where the path begins in the address of a Unix socket.
const PATH: usize = std::mem::offset_of!(libc::sockaddr_un, sun_path);

impl Address {
    /// None: what has no name.
    fn nobody() -> Self {
        // SAFETY: an address of zeroes is one of no family.
        Self { storage: unsafe { MaybeUninit::zeroed().assume_init() }, len: 0 }
    }

    /// An address that begins with `value`, which is one of the system's structures.
    fn of<T: Copy>(value: T) -> Self {
        const { assert!(size_of::<T>() <= size_of::<libc::sockaddr_storage>()) };
        let mut address = Self::nobody();
        // SAFETY: there is room for it, and what is written is plain data.
        unsafe { std::ptr::from_mut(&mut address.storage).cast::<T>().write(value) };
        address.len = size_of::<T>() as libc::socklen_t;
        address
    }

    /// That of the Unix socket at `path`; `None` if it is too long, or no path.
    pub fn of_path(path: &[u8]) -> Option<Self> {
        // SAFETY: as above.
        let mut unix: libc::sockaddr_un = unsafe { MaybeUninit::zeroed().assume_init() };
        if path.is_empty() || path.len() >= unix.sun_path.len() || path.contains(&0) {
            return None;
        }
        unix.sun_family = libc::AF_UNIX as libc::sa_family_t;
        for (to, from) in unix.sun_path.iter_mut().zip(path) {
            *to = *from as libc::c_char;
        }
        let address = Self::of(unix);
        Some(Self { len: (PATH + path.len() + 1) as libc::socklen_t, ..address })
    }

    fn as_bytes(&self) -> &[u8] {
        // SAFETY: the system, or who made it, has filled so much in; the rest is zeroes.
        unsafe { std::slice::from_raw_parts(std::ptr::from_ref(&self.storage).cast(), self.len as usize) }
    }

    fn is_of(&self, family: libc::c_int) -> bool {
        self.is_named() && libc::c_int::from(self.storage.ss_family) == family
    }

    /// Whether it is anybody's.
    pub fn is_named(&self) -> bool {
        self.len > 0
    }

    /// The path of a Unix socket's: without its last zero, or with a zero at its begin if it is no file's.
    pub fn path(&self) -> Option<&[u8]> {
        let path = self.is_of(libc::AF_UNIX).then(|| &self.as_bytes()[PATH.min(self.len as usize)..])?;
        let is_file = path.first().is_some_and(|first| *first != 0);
        Some(if is_file { path.split(|byte| *byte == 0).next().unwrap_or(path) } else { path })
    }

    /// An internet address.
    pub fn internet(&self) -> Option<SocketAddr> {
        let start = std::ptr::from_ref(&self.storage);
        if self.is_of(libc::AF_INET) {
            // SAFETY: the family says that it is one, and there is room for more.
            let address = unsafe { start.cast::<libc::sockaddr_in>().read() };
            let ip = Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr));
            return Some(SocketAddrV4::new(ip, u16::from_be(address.sin_port)).into());
        }
        if self.is_of(libc::AF_INET6) {
            // SAFETY: as above.
            let address = unsafe { start.cast::<libc::sockaddr_in6>().read() };
            let ip = Ipv6Addr::from(address.sin6_addr.s6_addr);
            let (port, flow) = (u16::from_be(address.sin6_port), address.sin6_flowinfo);
            return Some(SocketAddrV6::new(ip, port, flow, address.sin6_scope_id).into());
        }
        None
    }
}

impl PartialEq for Address {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        // SAFETY: addresses of zeroes are addresses.
        let (mut v4, mut v6): (libc::sockaddr_in, libc::sockaddr_in6) =
            unsafe { (MaybeUninit::zeroed().assume_init(), MaybeUninit::zeroed().assume_init()) };
        match address {
            SocketAddr::V4(address) => {
                v4.sin_family = libc::AF_INET as libc::sa_family_t;
                v4.sin_port = address.port().to_be();
                v4.sin_addr.s_addr = u32::from(*address.ip()).to_be();
                Self::of(v4)
            }
            SocketAddr::V6(address) => {
                v6.sin6_family = libc::AF_INET6 as libc::sa_family_t;
                v6.sin6_port = address.port().to_be();
                v6.sin6_addr.s6_addr = address.ip().octets();
                (v6.sin6_flowinfo, v6.sin6_scope_id) = (address.flowinfo(), address.scope_id());
                Self::of(v6)
            }
        }
    }
}

/// A datagram, which is cut off if there is no room for it, and who has sent it.
///
/// # Errors
/// The system's; it may be about one that was sent.
pub fn receive_from(fd: RawFd, to: &mut [u8]) -> io::Result<Option<(usize, Address)>> {
    let mut sender = Address::nobody();
    let received = call(|| {
        sender.len = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        let (storage, len) = (std::ptr::from_mut(&mut sender.storage), &raw mut sender.len);
        // SAFETY: the system writes to the slice and to the address, with room for any, which live as long as the call.
        checked(unsafe {
            libc::recvfrom(fd, to.as_mut_ptr().cast(), to.len(), libc::MSG_DONTWAIT, storage.cast(), len)
        })
    })?;
    Ok(received.map(|count| (count, sender)))
}

/// Sends a datagram.
///
/// # Errors
/// The system's; it may be about one that was sent before.
pub fn send_to(fd: RawFd, bytes: &[u8], to: &Address) -> io::Result<Option<usize>> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    let address = std::ptr::from_ref(&to.storage).cast();
    // SAFETY: the system reads from the slice and the address, which live as long as the call.
    call(|| checked(unsafe { libc::sendto(fd, bytes.as_ptr().cast(), bytes.len(), flags, address, to.len) }))
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
