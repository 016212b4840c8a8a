//! Linux: descriptors that travel beside the bytes of a local socket (`SCM_RIGHTS`, `unix(7)`).
#![allow(unsafe_code)]

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Room for one descriptor and its header, aligned as the header asks.
type Control = [u64; 4];

/// Sends some bytes without waiting, and `file` with the first; how many bytes. A receiver that asks for no descriptor gets
/// the bytes, and the system closes what it was to get.
///
/// # Errors
/// The system's; `WouldBlock` if there is no room; `InvalidInput` and its like if the descriptor is no local socket.
pub fn send_with_file(socket: BorrowedFd<'_>, parts: &[IoSlice<'_>], file: BorrowedFd<'_>) -> io::Result<usize> {
    let mut control: Control = [0; 4];
    // SAFETY: all zeros is a valid header of no message.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = parts.as_ptr().cast_mut().cast(); // `IoSlice` is an `iovec`
    message.msg_iovlen = parts.len();
    message.msg_control = control.as_mut_ptr().cast();
    // SAFETY: computes with a number.
    message.msg_controllen = unsafe { libc::CMSG_SPACE(size_of::<RawFd>() as u32) } as usize;
    debug_assert!(message.msg_controllen <= size_of::<Control>());
    // SAFETY: `control` has room for a header and one descriptor, and is aligned for it.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<RawFd>() as u32) as usize;
        libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(file.as_raw_fd());
    }
    // SAFETY: a call on a descriptor, with buffers that are valid for it.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Waits for some bytes, and the descriptor that came with them, if one did.
///
/// # Errors
/// The system's.
pub fn receive_with_file(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let (mut control, mut part): (Control, _) = ([0; 4], IoSliceMut::new(buffer));
    // SAFETY: all zeros is a valid header of no message.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = std::ptr::from_mut(&mut part).cast(); // `IoSliceMut` is an `iovec`
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    // Room for one: the system closes further ones itself.
    // SAFETY: computes with a number.
    message.msg_controllen = unsafe { libc::CMSG_SPACE(size_of::<RawFd>() as u32) } as usize;
    // SAFETY: a call on a descriptor, with buffers that are valid for it.
    let count = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut message, libc::MSG_CMSG_CLOEXEC) };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the system has written whole headers into `control`, as many as `msg_controllen` says now, and a header of this kind
    // and length is followed by a descriptor that is ours.
    let file = unsafe {
        let header = libc::CMSG_FIRSTHDR(&message);
        let one = libc::CMSG_LEN(size_of::<RawFd>() as u32) as usize;
        (!header.is_null()
            && (*header).cmsg_level == libc::SOL_SOCKET
            && (*header).cmsg_type == libc::SCM_RIGHTS
            && (*header).cmsg_len >= one)
            .then(|| OwnedFd::from_raw_fd(libc::CMSG_DATA(header).cast::<RawFd>().read_unaligned()))
    };
    Ok((count, file))
}

/// Whether there is something to receive, or the end of it, or an error.
pub fn has_arrived(socket: BorrowedFd<'_>) -> bool {
    let mut byte = 0_u8;
    let (place, flags) = (std::ptr::from_mut(&mut byte).cast(), libc::MSG_PEEK | libc::MSG_DONTWAIT);
    // SAFETY: a call on a descriptor, with a buffer that is valid for it.
    let count = unsafe { libc::recv(socket.as_raw_fd(), place, 1, flags) };
    count >= 0 || io::Error::last_os_error().kind() != io::ErrorKind::WouldBlock
}

/// Whether the peer has received all that was sent, by whomever; `false` if the system doesn't know.
pub fn is_drained(socket: BorrowedFd<'_>) -> bool {
    let mut left: libc::c_int = 0;
    // SAFETY: a call on a descriptor, which writes a number.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &mut left) }; // SIOCOUTQ, `unix(7)`
    done == 0 && left == 0
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::sys::{create_memory_file, file_length};
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_file_travels_with_the_first_byte() {
        let (one, mut other) = UnixStream::pair().unwrap();
        let file = create_memory_file(c"test", 4096).unwrap();
        let parts = [IoSlice::new(b"ab"), IoSlice::new(b"cd")];
        assert_eq!(send_with_file(one.as_fd(), &parts, file.as_fd()).unwrap(), 4);
        let mut buffer = [0; 3];
        let (count, received) = receive_with_file(other.as_fd(), &mut buffer).unwrap();
        assert_eq!((count, &buffer), (3, b"abc"));
        assert_eq!(file_length(received.unwrap().as_fd()).unwrap(), 4096);
        other.read_exact(&mut buffer[..1]).unwrap();
        assert_eq!(buffer[0], b'd');
    }

    #[test]
    fn who_asks_for_no_file_gets_the_bytes() {
        let (mut one, mut other) = UnixStream::pair().unwrap();
        let file = create_memory_file(c"test", 4096).unwrap();
        send_with_file(one.as_fd(), &[IoSlice::new(b"a")], file.as_fd()).unwrap();
        one.write_all(b"b").unwrap();
        let mut buffer = [0; 2];
        other.read_exact(&mut buffer).unwrap();
        assert_eq!(&buffer, b"ab");
    }

    #[test]
    fn bytes_without_a_file_are_received() {
        let (mut one, other) = UnixStream::pair().unwrap();
        one.write_all(b"a").unwrap();
        let mut buffer = [0; 2];
        assert!(matches!(receive_with_file(other.as_fd(), &mut buffer), Ok((1, None))));
    }

    #[test]
    fn what_is_on_its_way_is_known_at_both_ends() {
        let (mut one, mut other) = UnixStream::pair().unwrap();
        let look = |one: &UnixStream, other: &UnixStream| (is_drained(one.as_fd()), has_arrived(other.as_fd()));
        assert_eq!(look(&one, &other), (true, false));
        one.write_all(b"ab").unwrap();
        let mut buffer = [0; 1];
        for _ in 0..2 {
            assert_eq!(look(&one, &other), (false, true));
            other.read_exact(&mut buffer).unwrap();
        }
        assert_eq!(look(&one, &other), (true, false));
        drop(one);
        assert!(has_arrived(other.as_fd()), "the end");
    }
}
