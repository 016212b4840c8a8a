//! The poller on real descriptors.

#![cfg(not(loom))]

use juggler_loop::poll::{Bell, Events, Interest, Poller, Timeout};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

fn ready(poller: &Poller<&'static str>, timeout: Timeout) -> Vec<(RawFd, Interest, &'static str)> {
    let mut events = Events::default();
    poller.waiter().wait(&mut events, timeout).unwrap();
    let mut told = Vec::new();
    poller.dispatch(&events, |fd, interest, watcher| told.push((fd, interest, *watcher)));
    told
}

#[test]
fn watchers_are_told_as_long_as_something_is_ready() {
    let (mut a, mut b) = UnixStream::pair().unwrap();
    let fd = a.as_raw_fd();
    let mut poller = Poller::new().unwrap();
    assert_eq!(poller.watch(fd, Interest::Read, "reader").unwrap(), None);
    assert!(ready(&poller, Timeout::Look).is_empty());
    b.write_all(b"x").unwrap();
    for _ in 0..2 {
        assert_eq!(ready(&poller, Timeout::Never), [(fd, Interest::Read, "reader")]);
    }
    a.read_exact(&mut [0]).unwrap();
    assert!(ready(&poller, Timeout::Look).is_empty());
    assert_eq!(poller.watch(fd, Interest::Write, "writer").unwrap(), None);
    assert_eq!(ready(&poller, Timeout::Never), [(fd, Interest::Write, "writer")]);
    assert_eq!(poller.watching(), 2);
    assert_eq!(poller.watch(fd, Interest::Write, "other").unwrap(), Some("writer"));
    assert_eq!(poller.watching(), 2);
    assert_eq!(poller.unwatch(fd, Interest::Write), Some("other"));
    assert_eq!(poller.unwatch(fd, Interest::Write), None);
    drop(b);
    assert_eq!(ready(&poller, Timeout::Never), [(fd, Interest::Read, "reader")]);
    assert_eq!(poller.unwatch(fd, Interest::Read), Some("reader"));
    assert!(ready(&poller, Timeout::Look).is_empty());
    assert_eq!(poller.watching(), 0);
}

#[test]
fn a_peer_that_hangs_up_is_told_to_both() {
    let (a, b) = UnixStream::pair().unwrap();
    let fd = a.as_raw_fd();
    let mut poller = Poller::new().unwrap();
    poller.watch(fd, Interest::Read, "reader").unwrap();
    poller.watch(fd, Interest::Write, "writer").unwrap();
    drop(b);
    assert_eq!(ready(&poller, Timeout::Never), [(fd, Interest::Read, "reader"), (fd, Interest::Write, "writer")]);
}

#[test]
fn a_single_descriptor_is_looked_at_for_what_it_is_watched_for() {
    let (mut a, mut b) = UnixStream::pair().unwrap();
    let fd = a.as_raw_fd();
    let mut poller = Poller::new().unwrap();
    let mut events = Events::default();
    let mut look = |poller: &Poller<&'static str>| {
        poller.look_at(&mut events, fd);
        let mut told = Vec::new();
        poller.dispatch(&events, |fd, interest, watcher| told.push((fd, interest, *watcher)));
        assert_eq!(events.alone(), (!events.is_empty()).then_some(fd));
        told
    };
    let (reader, writer) = ((fd, Interest::Read, "reader"), (fd, Interest::Write, "writer"));
    assert!(look(&poller).is_empty(), "nobody watches it");
    poller.watch(fd, Interest::Read, "reader").unwrap();
    assert!(look(&poller).is_empty());
    b.write_all(b"x").unwrap();
    assert_eq!(look(&poller), [reader]);
    poller.watch(fd, Interest::Write, "writer").unwrap();
    assert_eq!(look(&poller), [reader, writer]);
    poller.unwatch(fd, Interest::Read);
    assert_eq!(look(&poller), [writer]);
    poller.watch(fd, Interest::Read, "reader").unwrap();
    a.read_exact(&mut [0]).unwrap();
    assert_eq!(look(&poller), [writer]);
    drop(b);
    assert_eq!(look(&poller), [reader, writer]);
    drop(a);
    assert!(look(&poller).is_empty(), "it is closed");
}

#[test]
fn what_is_alone_is_one_descriptor() {
    let pairs = [UnixStream::pair().unwrap(), UnixStream::pair().unwrap()];
    let bell = Bell::new().unwrap();
    let mut poller = Poller::new().unwrap();
    poller.hear(&bell).unwrap();
    let mut events = Events::default();
    let mut alone = |poller: &Poller<()>| {
        poller.waiter().wait(&mut events, Timeout::Look).unwrap();
        events.alone()
    };
    for (a, _) in &pairs {
        poller.watch(a.as_raw_fd(), Interest::Read, ()).unwrap();
    }
    assert_eq!(alone(&poller), None, "none");
    bell.ring();
    assert_eq!(alone(&poller), None, "a bell");
    (&pairs[0].1).write_all(b"x").unwrap();
    assert_eq!(alone(&poller), Some(pairs[0].0.as_raw_fd()));
    (&pairs[1].1).write_all(b"x").unwrap();
    assert_eq!(alone(&poller), None, "two");
}

#[test]
fn what_cannot_be_watched_is_handed_back() {
    let mut poller = Poller::new().unwrap();
    let (error, watcher) = poller.watch(-1, Interest::Read, "nobody").unwrap_err();
    assert_eq!((error.raw_os_error(), watcher), (Some(libc::EBADF), "nobody"));
    let file = std::fs::File::open("Cargo.toml").unwrap();
    let (error, watcher) = poller.watch(file.as_raw_fd(), Interest::Read, "file").unwrap_err();
    assert_eq!((error.raw_os_error(), watcher), (Some(libc::EPERM), "file"));
    assert_eq!(poller.unwatch(-1, Interest::Read), None);
    assert_eq!(poller.unwatch(1_000_000, Interest::Read), None);
    assert_eq!(poller.watching(), 0);
}

#[test]
fn a_bell_ends_a_wait_once_a_ring() {
    let mut poller = Poller::<&str>::new().unwrap();
    let bell = Bell::new().unwrap();
    poller.hear(&bell).unwrap();
    let mut events = Events::default();
    std::thread::scope(|scope| {
        scope.spawn(|| bell.ring());
        poller.waiter().wait(&mut events, Timeout::Never).unwrap();
    });
    assert!(!events.is_empty());
    poller.waiter().wait(&mut events, Timeout::Look).unwrap();
    assert!(events.is_empty());
    bell.ring();
    poller.waiter().wait(&mut events, Timeout::Never).unwrap();
    assert!(!events.is_empty());
}

#[test]
fn a_wait_is_never_too_short() {
    let poller = Poller::<&str>::new().unwrap();
    let mut events = Events::default();
    for micros in [1, 50, 300, 1_500] {
        let (began, timeout) = (Instant::now(), Duration::from_micros(micros));
        poller.waiter().wait(&mut events, Timeout::After(timeout)).unwrap();
        assert!(began.elapsed() >= timeout);
    }
}

#[test]
fn a_renewed_poller_knows_the_same_watchers() {
    let (a, mut b) = UnixStream::pair().unwrap();
    let (c, d) = UnixStream::pair().unwrap();
    let fd = a.as_raw_fd();
    let mut poller = Poller::new().unwrap();
    poller.watch(fd, Interest::Read, "reader").unwrap();
    poller.watch(c.as_raw_fd(), Interest::Read, "closed").unwrap();
    drop((c, d));
    poller.renew().unwrap();
    b.write_all(b"x").unwrap();
    assert_eq!(ready(&poller, Timeout::Never), [(fd, Interest::Read, "reader")]);
    assert_eq!(poller.iter().count(), 2);
    assert_eq!(poller.clear().len(), 2);
}
