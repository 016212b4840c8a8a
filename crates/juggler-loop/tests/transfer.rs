//! What goes through the buffers and a socket comes out whole and in order, however little moves at a time.

#![cfg(not(loom))]

use juggler_loop::buffer::{MOST_SLICES, ReadBuffer, WriteBuffer, with_scratch};
use juggler_loop::net::{self, Address};
use proptest::prelude::*;
use std::io::IoSlice;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixDatagram, UnixStream};

/// The bytes that a buffer's slices show.
fn shown(buffer: &WriteBuffer<Vec<u8>>) -> Vec<u8> {
    let mut slices = [IoSlice::new(&[]); MOST_SLICES];
    let count = buffer.slices(&mut slices);
    slices[..count].iter().flat_map(|slice| slice.to_vec()).collect()
}

fn chunks() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 1..600), 0..80)
}

proptest! {
    #[test]
    fn writing_any_number_of_bytes_at_a_time_loses_none(chunks in chunks(), steps in prop::collection::vec(1..5000_usize, 1..20)) {
        let whole = chunks.concat();
        let mut buffer = WriteBuffer::default();
        let (mut written, mut done) = (Vec::new(), Vec::new());
        let mut steps = steps.iter().cycle();
        let mut coming = chunks.clone().into_iter();
        while written.len() < whole.len() {
            // Chunks come while others are being written.
            coming.by_ref().take(3).for_each(|chunk| buffer.push(chunk, 0));
            let bytes = shown(&buffer);
            let count = bytes.len().min(*steps.next().unwrap());
            written.extend_from_slice(&bytes[..count]);
            buffer.advance(count, &mut done);
        }
        prop_assert_eq!(&written, &whole);
        prop_assert!(buffer.is_empty());
        prop_assert_eq!(buffer.len(), 0);
        prop_assert_eq!(done, chunks);
    }

    #[test]
    fn a_chunk_that_is_partly_written_goes_on_where_it_ended(chunk in prop::collection::vec(any::<u8>(), 2..100), next in prop::collection::vec(any::<u8>(), 1..10), at in any::<prop::sample::Index>()) {
        let at = at.index(chunk.len() - 1);
        let mut buffer = WriteBuffer::default();
        buffer.push(chunk.clone(), at);
        buffer.push(next.clone(), 0);
        prop_assert_eq!(buffer.len(), chunk.len() - at + next.len());
        prop_assert_eq!(shown(&buffer), [&chunk[at..], &next].concat());
        prop_assert_eq!(buffer.clear(), [chunk, next]);
        prop_assert_eq!(buffer.len(), 0);
    }

    #[test]
    fn reading_any_number_of_bytes_at_a_time_loses_none(chunks in chunks(), steps in prop::collection::vec(1..3000_usize, 1..20)) {
        let whole = chunks.concat();
        let mut buffer = ReadBuffer::default();
        let mut read = Vec::new();
        let mut steps = steps.iter().cycle();
        let mut fed = 0;
        for chunk in &chunks {
            buffer.extend(chunk);
            fed += chunk.len();
            let count = buffer.len().min(*steps.next().unwrap());
            read.extend_from_slice(&buffer.as_slice()[..count]);
            buffer.consume(count);
            prop_assert_eq!(read.len() + buffer.len(), fed);
        }
        read.extend_from_slice(buffer.as_slice());
        buffer.consume(buffer.len());
        prop_assert!(buffer.is_empty());
        prop_assert_eq!(read, whole);
    }

    #[test]
    fn a_socket_passes_everything_on(chunks in chunks()) {
        let whole = chunks.concat();
        let (from, to) = UnixStream::pair().unwrap();
        let mut buffer = WriteBuffer::default();
        chunks.into_iter().for_each(|chunk| buffer.push(chunk, 0));
        let (mut read, mut done) = (Vec::new(), Vec::new());
        while read.len() < whole.len() {
            let mut slices = [IoSlice::new(&[]); MOST_SLICES];
            let count = buffer.slices(&mut slices);
            if count > 0 && let Some(sent) = net::send_slices(from.as_raw_fd(), &slices[..count]).unwrap() {
                buffer.advance(sent, &mut done);
            }
            with_scratch(|scratch| {
                if let Some(count) = net::receive(to.as_raw_fd(), &mut scratch[..1500]).unwrap() {
                    read.extend_from_slice(&scratch[..count]);
                }
            });
        }
        prop_assert_eq!(read, whole);
    }
}

#[test]
fn a_socket_that_is_not_ready_says_so() {
    // In the blocking mode: the calls must not wait all the same.
    let (one, other) = UnixStream::pair().unwrap();
    assert_eq!(net::receive(one.as_raw_fd(), &mut [0; 10]).unwrap(), None);
    let large = vec![7; 1 << 20];
    while net::send(other.as_raw_fd(), &large).unwrap().is_some() {}
    assert!(net::receive(one.as_raw_fd(), &mut [0; 10]).unwrap() == Some(10));
    net::shut_down_sending(one.as_raw_fd()).unwrap();
    assert_eq!(net::receive(other.as_raw_fd(), &mut [0; 10]).unwrap(), Some(0));
    drop(one);
    assert!(net::send(other.as_raw_fd(), &large).is_err());
}

#[test]
fn accepting_gives_what_waits_and_then_nothing() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    assert!(net::accept(listener.as_raw_fd()).unwrap().is_none());
    let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let accepted = net::accept(listener.as_raw_fd()).unwrap().unwrap();
    assert_eq!(net::receive(accepted.as_raw_fd(), &mut [0; 1]).unwrap(), None);
    assert!(net::accept(listener.as_raw_fd()).unwrap().is_none());
}

#[test]
fn addresses_are_what_the_system_says() {
    for address in ["127.0.0.1:9", "[::1]:65535", "[fe80::1%3]:80"] {
        let address: SocketAddr = address.parse().unwrap();
        assert_eq!(Address::from(address).internet(), Some(address));
        assert_eq!(Address::from(address).path(), None);
    }
    let path = Address::of_path(b"/a/path").unwrap();
    assert_eq!((path.path(), path.internet()), (Some(&b"/a/path"[..]), None));
    for none in [&b""[..], b"\0abstract", &[b'x'; 108]] {
        assert!(Address::of_path(none).is_none());
    }
}

#[test]
fn datagrams_come_with_their_sender() {
    let ends = [0, 1].map(|_| UdpSocket::bind("127.0.0.1:0").unwrap());
    let [ours, theirs] = ends.each_ref().map(|end| end.local_addr().unwrap());
    let [one, two] = ends.each_ref().map(AsRawFd::as_raw_fd);
    let mut place = [0; 100];
    assert!(net::receive_from(two, &mut place).unwrap().is_none(), "it does not wait");
    for datagram in [&b"one"[..], b"", b"three"] {
        assert_eq!(net::send_to(one, datagram, &theirs.into()).unwrap(), Some(datagram.len()));
        let (count, sender) = net::receive_from(two, &mut place).unwrap().unwrap();
        assert_eq!((&place[..count], sender.internet()), (datagram, Some(ours)));
        assert!(sender == ours.into() && sender.is_named());
    }
    let (one, two) = UnixDatagram::pair().unwrap();
    one.send(b"from nobody").unwrap();
    let (_, sender) = net::receive_from(two.as_raw_fd(), &mut place).unwrap().unwrap();
    assert!(!sender.is_named() && sender.path().is_none() && sender.internet().is_none());
}

#[test]
fn what_is_read_and_written_like_a_pipe() {
    let (read, write) = UnixStream::pair().unwrap();
    read.set_nonblocking(true).unwrap();
    write.set_nonblocking(true).unwrap();
    let mut place = vec![0; 2_000_000];
    assert_eq!(net::read(read.as_raw_fd(), &mut place).unwrap(), None);
    let large = vec![7; 1_000_000];
    let slices = [IoSlice::new(b"one"), IoSlice::new(&large)];
    let written = net::write_slices(write.as_raw_fd(), &slices).unwrap().unwrap();
    assert!(written < 1_000_003, "it takes what it has room for");
    let mut got = Vec::new();
    while let Some(count) = net::read(read.as_raw_fd(), &mut place).unwrap() {
        got.extend_from_slice(&place[..count]);
    }
    assert_eq!((got.len(), &got[..5]), (written, &b"one\x07\x07"[..]));
    assert_eq!(net::write(write.as_raw_fd(), b"x").unwrap(), Some(1));
    drop(write);
    assert_eq!(net::read(read.as_raw_fd(), &mut place).unwrap(), Some(1));
    assert_eq!(net::read(read.as_raw_fd(), &mut place).unwrap(), Some(0), "the end");
}
