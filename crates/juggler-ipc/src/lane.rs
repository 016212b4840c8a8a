//! A short way past a socket: where a message may lie for a receiver that is looking for it at this moment.
//!
//! A socket between two processes stays what it is; a lane in memory that both have mapped only takes the messages, one at
//! a time, that find their receiver in a [`Wait`], which lasts some microseconds. Every other message goes through the socket.
//! So whoever sleeps does so at the socket, where it learns of its peer's death; whoever looks at the socket without receiving,
//! as `poll` does, misses nothing; and senders and receivers that know nothing of the lane, or share an end of the socket, need
//! not be told of it.
//!
//! # The word
//!
//! ```text
//! bits 0-2 the state, 3-63 when the receiver began to look, in nanoseconds
//! Away      -> Waiting     a receiver looks at the word for a while
//! Waiting   -> Waiting     another one does, as the first has not left for so long that it may be dead
//! Waiting   -> Away        the receiver has looked enough, or found something in the socket
//! Waiting   -> Filling     a sender writes its message here
//! Filling   -> Full        it has written it
//! Full      -> Away        the receiver has taken it
//! Filling   -> Abandoned   the receiver has left
//! Abandoned -> Away        the sender has seen that, and sends through the socket
//! ```
//!
//! Each is a compare-and-swap on the whole word, but for the two that leave a state which is one side's alone.
//!
//! # Order
//!
//! The system knows how much of what was sent through a socket has not been received yet. A message is left here only if that is
//! nothing, and one that lies here is received before the socket is read again: by the receiver that made the word `Waiting`,
//! which does not return without it.
//!
//! # Death
//!
//! A sender that dies while it writes, and a receiver that dies before it has taken what is here, leave the lane to nobody: from
//! then on everything goes through the socket. A receiver that died while it looked, or sleeps against its will, is given
//! nothing after [`FRESH`].
#![allow(unsafe_code)]

use crate::segment::shared;
use juggler_sync::sync::{AtomicU32, AtomicU64, Ordering};

const STATE: u64 = 7;
const AWAY: u64 = 0;
const WAITING: u64 = 1;
const FILLING: u64 = 2;
const FULL: u64 = 3;
const ABANDONED: u64 = 4;

/// For how many nanoseconds a receiver that has begun to look is taken to be looking.
pub const FRESH: u64 = 100_000;

shared! {
    /// One direction; see the [module](self). All zeros is a lane at which nobody waits.
    #[derive(Debug, Default)]
    pub struct Lane {
        word: AtomicU64,
        length: AtomicU32,
        unused: AtomicU32,
    }
}

impl Lane {
    /// Leaves a message of `length` bytes for a receiver that waits here: `true`. Otherwise it is to go through the socket.
    ///
    /// `now` is the time; `drained` whether everything that went through the socket was received, without which nothing
    /// may be left here; and `write` writes the message.
    pub fn send(
        &self,
        length: u32,
        now: impl FnOnce() -> u64,
        drained: impl FnOnce() -> bool,
        write: impl FnOnce(),
    ) -> bool {
        let word = self.word.load(Ordering::Acquire);
        if word & STATE != WAITING || !is_fresh(word, now()) || !drained() {
            return false;
        }
        let (filling, full) = (in_state(word, FILLING), in_state(word, FULL));
        if self.word.compare_exchange(word, filling, Ordering::Acquire, Ordering::Relaxed).is_err() {
            return false;
        }
        write();
        self.length.store(length, Ordering::Relaxed);
        let filled = self.word.compare_exchange(filling, full, Ordering::Release, Ordering::Relaxed).is_ok();
        if !filled {
            self.word.store(AWAY, Ordering::Release);
        }
        filled
    }

    /// Begins to wait, at the time `now`, unless somebody else does.
    pub fn wait(&self, now: u64) -> Option<Wait<'_>> {
        let (before, waiting) = (self.word.load(Ordering::Acquire), in_state(now << STATE.count_ones(), WAITING));
        let free = before == AWAY || before & STATE == WAITING && !is_fresh(before, now);
        let waits = free && self.word.compare_exchange(before, waiting, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        waits.then_some(Wait { lane: self, waiting })
    }
}

fn in_state(word: u64, state: u64) -> u64 {
    word & !STATE | state
}

/// Whether the receiver that waits may be thought to be there. A clock that is not the receiver's says no.
fn is_fresh(word: u64, now: u64) -> bool {
    now.wrapping_sub(word >> STATE.count_ones()) <= FRESH
}

/// A receiver at a lane, until it [ends](Wait::end).
#[derive(Debug)]
#[must_use = "a receiver that waits must look whether a message has come, and leave"]
pub struct Wait<'a> {
    lane: &'a Lane,
    /// The word as the receiver has set it.
    waiting: u64,
}

impl<'a> Wait<'a> {
    /// Whether there is a message, or no use in waiting any more.
    #[inline]
    pub fn is_over(&self) -> bool {
        let word = self.lane.word.load(Ordering::Relaxed);
        word != self.waiting && word != in_state(self.waiting, FILLING)
    }

    /// Leaves, with the message if there is one.
    pub fn end(self) -> Option<Arrived<'a>> {
        let mut word = self.waiting;
        loop {
            let left = match word & STATE {
                FULL if word == in_state(self.waiting, FULL) => return Some(Arrived { lane: self.lane }),
                WAITING if word == self.waiting => AWAY,
                FILLING if word == in_state(self.waiting, FILLING) => in_state(self.waiting, ABANDONED),
                // Another receiver is in this one's place.
                _ => return None,
            };
            match self.lane.word.compare_exchange(word, left, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return None,
                Err(now) => word = now,
            }
        }
    }
}

/// A message that lies in a lane, until this is dropped.
#[derive(Debug)]
pub struct Arrived<'a> {
    lane: &'a Lane,
}

impl Arrived<'_> {
    /// How many bytes it has, if the sender is right.
    pub fn length(&self) -> usize {
        self.lane.length.load(Ordering::Relaxed) as usize
    }
}

impl Drop for Arrived<'_> {
    fn drop(&mut self) {
        self.lane.word.store(AWAY, Ordering::Release);
    }
}

#[cfg(not(loom))]
pub use pair::{Lanes, Message};

#[cfg(not(loom))]
mod pair {
    use super::{Arrived, Lane};
    use crate::segment::{Shared, shared};
    use crate::sys::{Mapping, create_memory_file, file_length, reserve_memory};
    use juggler_sync::sync::{AtomicU32, Ordering};
    use juggler_sync::sys::monotonic_nanos;
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
            unused: [AtomicU32; 11],
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

        /// Whether the other side has joined.
        #[inline]
        pub fn is_open(&self) -> bool {
            self.header(self.sends).open.load(Ordering::Acquire) != 0
        }

        /// Sends a message here if its receiver waits for it and everything before it was received: `drained`. See [`Lane::send`].
        #[inline]
        pub fn send(&self, message: &[u8], drained: impl FnOnce() -> bool) -> bool {
            message.len() <= CAPACITY
                && self.header(self.sends).lane.send(message.len() as u32, monotonic_nanos, drained, || {
                    // SAFETY: the message fits behind its header, and nobody but this sender uses that memory now.
                    unsafe {
                        std::ptr::copy_nonoverlapping(message.as_ptr(), self.message(self.sends), message.len());
                    }
                })
        }

        /// Waits for a message here: has `look` look for a while, asking what it is given whether to go on. `None` if there is none,
        /// or another receiver waits.
        pub fn receive(&self, look: impl FnOnce(&mut dyn FnMut() -> bool)) -> Option<Message<'_>> {
            let wait = self.header(1 - self.sends).lane.wait(monotonic_nanos())?;
            look(&mut || wait.is_over());
            wait.end().map(|arrived| Message { lanes: self, arrived })
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

    /// A message that was received, in memory that is the sender's again when this is dropped.
    #[derive(Debug)]
    pub struct Message<'a> {
        lanes: &'a Lanes,
        arrived: Arrived<'a>,
    }

    impl Message<'_> {
        /// How many bytes it has, if the sender is right.
        pub fn length(&self) -> usize {
            self.arrived.length()
        }

        /// Copies it to a buffer of its length. If that can't be, what is in the buffer means nothing: `false`.
        pub fn copy_to(&self, buffer: &mut [u8]) -> bool {
            let fits = buffer.len() <= CAPACITY;
            if fits {
                let message = self.lanes.message(1 - self.lanes.sends);
                // SAFETY: the bytes lie within the mapping. The sender leaves them alone until they are taken; one that doesn't
                // makes them nonsense.
                unsafe { std::ptr::copy_nonoverlapping(message, buffer.as_mut_ptr(), buffer.len()) };
            }
            fits
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use juggler_sync::sync::spin_hint;
    use proptest::prelude::*;
    use std::sync::Mutex;

    fn pair() -> (Lanes, Lanes) {
        let (one, file) = Lanes::create().unwrap();
        assert!(!one.is_open());
        let other = Lanes::join(file).unwrap();
        assert!(one.is_open() && other.is_open());
        (one, other)
    }

    /// What the lane holds after `send`, which is called while somebody waits there.
    fn received(lanes: &Lanes, send: impl FnOnce()) -> Option<Vec<u8>> {
        let message = lanes.receive(|_| send())?;
        let mut bytes = vec![0; message.length()];
        assert!(message.copy_to(&mut bytes));
        Some(bytes)
    }

    #[test]
    fn a_message_is_left_for_who_waits_only() {
        let (one, other) = pair();
        assert!(!one.send(b"early", || true));
        assert_eq!(received(&other, || assert!(one.send(b"in time", || true))).unwrap(), b"in time");
        assert_eq!(received(&one, || assert!(other.send(b"", || true))).unwrap(), b"");
        assert!(!one.send(b"late", || true));
        assert_eq!(received(&other, || ()), None);
    }

    #[test]
    fn a_message_that_must_go_elsewhere_ends_no_wait() {
        let (one, other) = pair();
        let sends = || {
            assert!(!one.send(b"after another", || false));
            assert!(!one.send(&[0; 20_000], || true));
            assert!(one.send(b"first", || true));
            assert!(!one.send(b"second", || true));
        };
        assert_eq!(received(&other, sends).unwrap(), b"first");
    }

    #[test]
    fn messages_pass_in_their_order() {
        let (one, other) = pair();
        let (socket, count) = (Mutex::new(std::collections::VecDeque::new()), 5_000_u32);
        let mut here = 0;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0..count {
                    let drained = || socket.lock().unwrap().is_empty();
                    if !one.send(&number.to_ne_bytes(), drained) {
                        socket.lock().unwrap().push_back(number);
                    }
                    while number % 8 == 0 && !drained() {
                        spin_hint();
                    }
                }
            });
            for number in 0..count {
                let got = loop {
                    if let Some(got) = socket.lock().unwrap().pop_front() {
                        break got;
                    }
                    let message = other.receive(|over| while !over() && socket.lock().unwrap().is_empty() {});
                    if let Some(message) = message {
                        let mut got = [0; 4];
                        assert!(message.length() == 4 && message.copy_to(&mut got));
                        here += 1;
                        break u32::from_ne_bytes(got);
                    }
                };
                assert_eq!(got, number);
            }
        });
        assert!(here > 0);
    }

    #[test]
    fn who_has_looked_too_long_may_be_dead() {
        let lane = Lane::default();
        let (send, begin) = (|now| lane.send(1, || now, || true, || ()), 1_000_000);
        let first = lane.wait(begin).unwrap();
        assert!(!send(begin + FRESH + 1), "it may be dead");
        assert!(!send(begin - 1), "its clock is another");
        assert!(lane.wait(begin + FRESH).is_none());
        let second = lane.wait(begin + FRESH + 1).unwrap();
        assert!(first.is_over() && !second.is_over());
        assert!(send(begin + 2 * FRESH + 1) && second.is_over());
        assert!(first.end().is_none(), "the message is not for who was given up");
        assert!(lane.wait(begin + 9 * FRESH).is_none(), "a message is never given up");
        assert_eq!(second.end().unwrap().length(), 1);
        assert!(lane.wait(begin + 9 * FRESH).is_some());
    }

    #[test]
    fn a_receiver_leaves_in_the_middle_of_a_message() {
        let lane = Lane::default();
        let mut wait = lane.wait(1);
        let leaves = || {
            let wait = wait.take().unwrap();
            assert!(!wait.is_over());
            assert!(wait.end().is_none());
            assert!(lane.wait(9 * FRESH).is_none(), "the sender is still writing");
        };
        assert!(!lane.send(1, || 1, || true, leaves));
        assert!(lane.wait(2).is_some());
    }

    #[test]
    fn a_sender_that_dies_while_it_writes_leaves_the_lane_to_nobody() {
        let lane = Lane::default();
        let wait = lane.wait(1).unwrap();
        let dies = || std::panic::resume_unwind(Box::new(()));
        let died = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| lane.send(1, || 1, || true, dies)));
        assert!(died.is_err() && !wait.is_over() && wait.end().is_none());
        assert!(lane.wait(9 * FRESH).is_none() && !lane.send(1, || 1, || true, || ()));
    }

    #[test]
    fn a_file_of_another_kind_is_refused() {
        let file = crate::sys::create_memory_file(c"test", 4096).unwrap();
        assert_eq!(Lanes::join(file).unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
    }

    const NOW: u64 = 1 << 40;

    /// A word of a receiver that came some time ago, or any other.
    fn words() -> impl Strategy<Value = u64> {
        let of_late = (0..3 * FRESH, 0..8_u64).prop_map(|(ago, state)| (NOW - ago) << STATE.count_ones() | state);
        prop_oneof![of_late, any::<u64>()]
    }

    proptest! {
        #[test]
        fn a_lane_of_any_content_gives_its_message_or_none(
            before in words(),
            meanwhile in prop_oneof![(0..8_u64).prop_map(Ok), words().prop_map(Err)],
            length in any::<u32>(),
        ) {
            let lane = Lane::default();
            lane.word.store(before, Ordering::Relaxed);
            if let Some(wait) = lane.wait(NOW) {
                let full = in_state(wait.waiting, FULL);
                let spoilt = meanwhile.map_or_else(|word| word, |state| in_state(wait.waiting, state));
                lane.word.store(spoilt, Ordering::Relaxed);
                lane.length.store(length, Ordering::Relaxed);
                prop_assert!(wait.is_over() || spoilt != full);
                let length_seen = wait.end().map(|arrived| arrived.length());
                prop_assert_eq!(length_seen, (spoilt == full).then_some(length as usize));
            }
            lane.word.store(before, Ordering::Relaxed);
            let sent = lane.send(1, || NOW, || true, || ());
            prop_assert_eq!(sent, before & STATE == WAITING && is_fresh(before, NOW));
        }
    }

    #[test]
    fn a_length_that_cannot_be_is_noticed() {
        let (one, other) = pair();
        let message = other.receive(|_| assert!(one.send(b"short", || true))).unwrap();
        assert!(!message.copy_to(&mut vec![0; 1 << 20]));
    }
}
