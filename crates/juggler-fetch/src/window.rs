//! How much a server may send before we have read it.
//!
//! A connection begins with room for 64 KiB, and the system adds to it as it sees the program read. Until it has, the server stops
//! after each of them, and is told to go on, which costs both sides as much as the bytes of a file of 1 MiB do.

#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd};

/// So many bytes may be under way: files of 1 MiB come in one go, and more makes nothing faster.
const ROOM: u32 = 2 << 20;

/// Gives `socket` room from the beginning. The system still adds more to it, which it would not with `SO_RCVBUF`.
/// Where it can't, all stays as it was.
pub(crate) fn widen(socket: impl AsFd) {
    // Who wants to be woken for so many bytes only must have room for them (since Linux 4.18); nobody here wants that.
    for least in [ROOM, 1] {
        let (place, size) = ((&raw const least).cast(), size_of_val(&least) as libc::socklen_t);
        let socket = socket.as_fd().as_raw_fd();
        // SAFETY: the descriptor is borrowed, and the number lives, for the length of the call.
        unsafe { libc::setsockopt(socket, libc::SOL_SOCKET, libc::SO_RCVLOWAT, place, size) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_server_can_send_more_at_once_and_we_are_woken_for_any_byte() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let room = |socket: &TcpStream| rustix::net::sockopt::socket_recv_buffer_size(socket).unwrap();
        let before = room(&client);
        widen(&client);
        assert!(room(&client) >= before.max(ROOM as usize), "{before} {}", room(&client));
        let (mut server, _) = listener.accept().unwrap();
        server.write_all(b"x").unwrap();
        rustix::event::poll(&mut [rustix::event::PollFd::new(&client, rustix::event::PollFlags::IN)], None).unwrap();
        assert_eq!((&client).read(&mut [0; 2]).unwrap(), 1);
    }
}
