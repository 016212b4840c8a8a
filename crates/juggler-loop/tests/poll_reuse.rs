//! A number that is a descriptor's, then another's. Apart from other tests, which would take the number.

#![cfg(not(loom))]

use juggler_loop::poll::{Events, Interest, Poller, Timeout};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

#[test]
fn a_descriptor_that_was_closed_and_given_away_is_watched_anew() {
    let (a, b) = UnixStream::pair().unwrap();
    let fd = a.as_raw_fd();
    let mut poller = Poller::new().unwrap();
    poller.watch(fd, Interest::Read, "old").unwrap();
    drop((a, b));
    let (c, mut d) = UnixStream::pair().unwrap();
    assert_eq!(c.as_raw_fd(), fd, "the system gives the lowest free number");
    assert_eq!(poller.watch(fd, Interest::Read, "new").unwrap(), Some("old"));
    d.write_all(b"x").unwrap();
    let mut events = Events::default();
    poller.waiter().wait(&mut events, Timeout::Never).unwrap();
    let mut told = Vec::new();
    poller.dispatch(&events, |fd, interest, watcher| told.push((fd, interest, *watcher)));
    assert_eq!(told, [(fd, Interest::Read, "new")]);
}
