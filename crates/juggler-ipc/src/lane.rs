//! A short way past a socket: where a message may lie for a receiver that is waiting for it at this moment.
//!
//! A socket between two processes stays what it is; a lane in memory that both have mapped only takes the messages, one at
//! a time, that find their receiver in [`Lane::wait`]. Every other message goes through the socket, and so does all that the lane has
//! no answer for: a receiver that waits long does so at the socket, where it learns of its peer's death; and whoever looks at
//! the socket without receiving, as `poll` does, misses nothing, since what is sent then goes there.
//!
//! # The word
//!
//! ```text
//! bits 0-1 the receiver, 2-31 how many messages are under way through the socket
//! Away    -> Waiting            the receiver looks at the word for a while, or soon will
//! Waiting -> Asleep             it sleeps on it
//! Waiting, Asleep -> Full       the sender has left it a message here
//! Waiting, Asleep -> Away, +1   or there
//! Waiting, Asleep -> Away       the receiver has waited enough
//! Full    -> Away               it has taken the message
//! ```
//!
//! The sender alone makes it `Full` and counts up, the receiver alone makes it `Waiting`, `Asleep` and, but for the message that
//! ends its wait, `Away`, and counts down; each by a compare-and-swap on the whole word. The message is written before the word says
//! `Full`. Messages keep their order: one is left here only if none is under way, and what is here is taken before what is there.
//!
//! # Death
//!
//! A sender that dies before it has changed the word has sent nothing; one that dies after it has counted up, and before it has
//! written to the socket, leaves a receiver that finds the socket's end. A lost message costs no more than that: a count that is too
//! low makes the receiver wait here for the length of its patience, one that is too high keeps it at the socket.
#![allow(unsafe_code)]

use crate::segment::shared;
use juggler_sync::Deadline;
use juggler_sync::sync::{AtomicU32, Ordering};
use juggler_sync::sys::{FutexWait, SharedFutex};

const STATE: u32 = 3;
const AWAY: u32 = 0;
const WAITING: u32 = 1;
const ASLEEP: u32 = 2;
const FULL: u32 = 3;
const ONE_MORE: u32 = 4;

/// Where the next message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// In the lane, of so many bytes, if the sender is right.
    Here(usize),
    /// In the socket, or wherever messages go that don't go here; perhaps not yet.
    Elsewhere,
}

shared! {
    /// One direction; see the [module](self). All zeros is a lane at which nobody waits.
    #[derive(Debug, Default)]
    pub struct Lane {
        word: SharedFutex,
        length: AtomicU32,
    }
}

impl Lane {
    /// Sends a message. If the receiver waits here, and there is a `write` that writes its `length` bytes: `true`. Otherwise
    /// the receiver knows that one more message is under way elsewhere, and the caller is to send it there.
    pub fn send(&self, length: u32, write: Option<impl Fn()>) -> bool {
        let mut word = self.word.load(Ordering::Acquire);
        loop {
            // Nothing is under way if the receiver waits here.
            let write = write.as_ref().filter(|_| matches!(word, WAITING | ASLEEP));
            let next = match (write, word & STATE) {
                (Some(write), _) => {
                    write();
                    self.length.store(length, Ordering::Relaxed);
                    FULL
                }
                (None, FULL) => word.wrapping_add(ONE_MORE),
                (None, _) => (word & !STATE).wrapping_add(ONE_MORE),
            };
            match self.word.word.compare_exchange(word, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    if word == ASLEEP {
                        self.word.wake(1);
                    }
                    return write.is_some();
                }
                Err(now) => word = now,
            }
        }
    }

    /// The receiver will wait in a moment, and until then looks for messages nowhere else.
    pub fn expect(&self) {
        self.change(|word| if word == AWAY { WAITING } else { word });
    }

    /// The message that was to go elsewhere did not.
    pub fn retract(&self) {
        self.count_down();
    }

    /// A message from elsewhere was received.
    pub fn received_elsewhere(&self) {
        self.count_down();
    }

    /// The message that lies here was received.
    pub fn taken(&self) {
        self.change(|word| if word & STATE == FULL { word & !STATE } else { word });
    }

    /// Where the next message is, if the sender has said.
    #[inline]
    pub fn arrival(&self) -> Option<Arrival> {
        self.arrival_by(self.word.load(Ordering::Acquire))
    }

    fn arrival_by(&self, word: u32) -> Option<Arrival> {
        if word & STATE == FULL {
            Some(Arrival::Here(self.length.load(Ordering::Relaxed) as usize))
        } else {
            (word >= ONE_MORE).then_some(Arrival::Elsewhere)
        }
    }

    /// Waits for the next message: first has `look` look for a while whether it has come, then sleeps, until `deadline`,
    /// when the message is [`Arrival::Elsewhere`] if it ever comes. `None` if a signal ended the sleep.
    pub fn wait(&self, look: impl FnOnce(&mut dyn FnMut() -> bool) -> bool, deadline: Deadline) -> Option<Arrival> {
        let awake = self.change(|word| if self.arrival_by(word).is_some() { word } else { WAITING });
        if awake == WAITING {
            self.await_change(look, deadline);
        }
        // The receiver leaves. A message that came just now is there all the same.
        let waited = self.change(|word| if matches!(word, WAITING | ASLEEP) { AWAY } else { word });
        self.arrival_by(waited).or_else(|| deadline.has_passed().then_some(Arrival::Elsewhere))
    }

    fn await_change(&self, look: impl FnOnce(&mut dyn FnMut() -> bool) -> bool, deadline: Deadline) {
        if look(&mut || self.word.load(Ordering::Relaxed) != WAITING) {
            return;
        }
        let word = &self.word.word;
        if word.compare_exchange(WAITING, ASLEEP, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            while self.word.load(Ordering::Relaxed) == ASLEEP && self.word.wait(ASLEEP, deadline) == FutexWait::Woken {}
        }
    }

    /// Lowers the count, which is zero already after an error on the way elsewhere, or if its sender did not count yet.
    fn count_down(&self) {
        self.change(|word| if word >= ONE_MORE { word - ONE_MORE } else { word });
    }

    /// Changes the word and returns what it is now.
    fn change(&self, to: impl Fn(u32) -> u32) -> u32 {
        let mut before = self.word.load(Ordering::Acquire);
        loop {
            match self.word.word.compare_exchange(before, to(before), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return to(before),
                Err(now) => before = now,
            }
        }
    }
}

#[cfg(not(loom))]
pub use pair::Lanes;

#[cfg(not(loom))]
mod pair {
    use super::{Arrival, Lane};
    use crate::segment::{Shared, shared};
    use crate::sys::{Mapping, create_memory_file, file_length, reserve_memory};
    use juggler_sync::Deadline;
    use juggler_sync::sync::{AtomicU32, Ordering};
    use std::io;
    use std::os::fd::{AsFd, OwnedFd};

    /// The memory of one direction: the header, and the message.
    const HALF: usize = 16 << 10;
    /// Longer messages go through the socket.
    const CAPACITY: usize = HALF - size_of::<Header>();

    shared! {
        struct Header {
            lane: Lane,
            /// Whether whoever receives here has mapped the memory.
            open: AtomicU32,
            unused: [AtomicU32; 13],
        }
    }

    /// A lane for each direction of a socket.
    #[derive(Debug)]
    pub struct Lanes {
        mapping: Mapping,
        /// The half in which this side sends: 0 for who made the memory, 1 for who was given it.
        sends: usize,
    }

    impl Lanes {
        /// Makes the memory, and the file by which the other side gets it.
        ///
        /// # Errors
        /// The system's: out of memory, too many open files.
        pub fn create() -> io::Result<(Self, OwnedFd)> {
            let file = create_memory_file(c"juggler-lanes", 2 * HALF)?;
            reserve_memory(file.as_fd(), 0, 2 * HALF)?;
            let lanes = Self { mapping: Mapping::new(file.as_fd(), 2 * HALF)?, sends: 0 };
            lanes.header(1).open.store(1, Ordering::Release);
            Ok((lanes, file))
        }

        /// Maps the memory that the other side made.
        ///
        /// # Errors
        /// `InvalidInput` if the file is none of [`Lanes::create`], or the system's error.
        pub fn join(file: OwnedFd) -> io::Result<Self> {
            if file_length(file.as_fd())? != 2 * HALF {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            let lanes = Self { mapping: Mapping::new(file.as_fd(), 2 * HALF)?, sends: 1 };
            lanes.header(0).open.store(1, Ordering::Release);
            Ok(lanes)
        }

        /// Whether the other side has joined. Until then everything goes through the socket, uncounted.
        #[inline]
        pub fn is_open(&self) -> bool {
            self.header(self.sends).open.load(Ordering::Acquire) != 0
        }

        /// Sends a message, as [`Lane::send`], to which there will be an answer: the peer may be faster with it than the caller
        /// with waiting for it.
        pub fn send(&self, message: &[u8]) -> bool {
            self.receiving().expect();
            let write = (message.len() <= CAPACITY).then_some(|| {
                // SAFETY: the message fits behind its header, and while its receiver waits nobody but the sender uses that memory.
                unsafe { std::ptr::copy_nonoverlapping(message.as_ptr(), self.message(self.sends), message.len()) };
            });
            self.header(self.sends).lane.send(message.len() as u32, write)
        }

        /// As [`Lane::retract`].
        pub fn retract(&self) {
            self.header(self.sends).lane.retract();
        }

        /// As [`Lane::arrival`].
        #[inline]
        pub fn arrival(&self) -> Option<Arrival> {
            self.receiving().arrival()
        }

        /// As [`Lane::wait`].
        pub fn wait(&self, look: impl FnOnce(&mut dyn FnMut() -> bool) -> bool, deadline: Deadline) -> Option<Arrival> {
            self.receiving().wait(look, deadline)
        }

        /// As [`Lane::received_elsewhere`].
        pub fn received_elsewhere(&self) {
            self.receiving().received_elsewhere();
        }

        /// Takes the message that lies here, which [`Lanes::arrival`] or [`Lanes::wait`] said has the length of `buffer`.
        /// If that can't be, what is in the buffer means nothing: `false`.
        pub fn take(&self, buffer: &mut [u8]) -> bool {
            let fits = buffer.len() <= CAPACITY;
            if fits {
                let message = self.message(1 - self.sends);
                // SAFETY: the bytes lie within the mapping. The sender leaves them alone until they are taken; one that doesn't
                // makes them nonsense.
                unsafe { std::ptr::copy_nonoverlapping(message, buffer.as_mut_ptr(), buffer.len()) };
            }
            self.receiving().taken();
            fits
        }

        fn receiving(&self) -> &Lane {
            &self.header(1 - self.sends).lane
        }

        fn header(&self, half: usize) -> &Header {
            const fn lies_in_shared_memory<T: Shared>() {}
            const { lies_in_shared_memory::<Header>() };
            // SAFETY: each of the two halves begins with a header, which consists of atomics, within the mapping that `self` keeps;
            // the mapping begins on a page's boundary.
            unsafe { &*self.mapping.start().as_ptr().add(half * HALF).cast() }
        }

        fn message(&self, half: usize) -> *mut u8 {
            // SAFETY: behind the header, within the mapping.
            unsafe { self.mapping.start().as_ptr().add(half * HALF + size_of::<Header>()) }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::time::Duration;

    fn pair() -> (Lanes, Lanes) {
        let (one, file) = Lanes::create().unwrap();
        assert!(!one.is_open());
        let other = Lanes::join(file).unwrap();
        assert!(one.is_open() && other.is_open());
        (one, other)
    }

    fn soon() -> Deadline {
        Deadline::after(Duration::from_millis(20))
    }

    #[test]
    fn a_message_goes_elsewhere_unless_somebody_waits() {
        let (one, other) = pair();
        assert!(!one.send(b"early"));
        assert_eq!(other.wait(|_| false, Deadline::NEVER), Some(Arrival::Elsewhere));
        other.received_elsewhere();
        assert_eq!(other.arrival(), None);
        assert_eq!(other.wait(|_| false, soon()), Some(Arrival::Elsewhere), "patience has an end");
        assert!(!one.send(b"nobody waits any more"));
        one.retract();
        assert_eq!(other.arrival(), None);
    }

    #[test]
    fn messages_pass_both_ways() {
        let (one, other) = pair();
        let trips = 20_000_u32;
        let mut received = 0;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // What goes elsewhere stands for itself.
                for _ in 0..trips {
                    match other.wait(|come| (0..).any(|_| come()), Deadline::NEVER).unwrap() {
                        Arrival::Here(length) => {
                            let mut message = vec![0; length];
                            assert!(other.take(&mut message));
                            other.send(&message);
                        }
                        Arrival::Elsewhere => {
                            other.received_elsewhere();
                            other.send(b"?");
                        }
                    }
                }
            });
            for trip in 0..trips {
                let sent = trip.to_ne_bytes();
                let here = one.send(&sent);
                match one.wait(|come| (0..10).any(|_| come()), Deadline::NEVER).unwrap() {
                    Arrival::Here(length) => {
                        let mut message = vec![0; length];
                        assert!(one.take(&mut message));
                        assert_eq!(message, if here { &sent[..] } else { b"?" });
                        received += 1;
                    }
                    Arrival::Elsewhere => one.received_elsewhere(),
                }
            }
        });
        assert!(received > 0);
        assert_eq!((one.arrival(), other.arrival()), (None, None));
    }

    #[test]
    fn what_is_too_long_wakes_who_sleeps_and_goes_elsewhere() {
        let (one, other) = pair();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| other.wait(|_| false, Deadline::NEVER));
            std::thread::sleep(Duration::from_millis(10));
            assert!(!one.send(&[0; 20_000]));
            assert_eq!(waiter.join().unwrap(), Some(Arrival::Elsewhere));
        });
    }

    #[test]
    fn what_is_here_comes_before_what_is_elsewhere() {
        let lane = Lane::default();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| lane.wait(|_| false, Deadline::NEVER));
            while lane.word.load(Ordering::Relaxed) != ASLEEP {
                std::thread::yield_now();
            }
            assert!(lane.send(3, Some(|| ())));
            assert!(!lane.send(3, Some(|| ())));
            assert_eq!(waiter.join().unwrap(), Some(Arrival::Here(3)));
        });
        lane.taken();
        assert_eq!(lane.arrival(), Some(Arrival::Elsewhere));
    }

    #[test]
    fn a_file_of_another_kind_is_refused() {
        let file = crate::sys::create_memory_file(c"test", 4096).unwrap();
        assert_eq!(Lanes::join(file).unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_length_that_cannot_be_is_noticed() {
        let (_one, other) = pair();
        assert!(!other.take(&mut vec![0; 1 << 20]));
    }
}
