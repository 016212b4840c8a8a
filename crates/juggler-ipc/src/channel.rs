//! A queue between processes: a [ring](crate::ring) with a robust [lock](crate::lock) for each side and [bells](crate::bell)
//! for those who wait.
//!
//! Producers exclude each other, and so do consumers; a producer and a consumer meet only in the ring's two words. Nobody
//! sleeps while holding a lock. Whoever takes a lock over from a dead holder needs no repair: what that one did not finish
//! never counted, and what it finished is whole. So a death inside `put` or `get` loses the item in hand at most.
//!
//! Frames are also counted for [`Channel::done`] and [`Channel::join`]: the frames ever put less those done are unfinished.

use crate::bell::Bell;
use crate::lock::{Acquired, RawLock};
use crate::owner::Owner;
use crate::ring::{Frame, Malformed, PushError, Ring};
use crate::segment::{OutOfBounds, Segment, shared};
use juggler_sync::look;
use juggler_sync::sync::{AtomicU32, Ordering, spin_hint};
use juggler_sync::{Deadline, Gate, Waited};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The address ranges to try for a channel, in bytes: limits of the process may forbid the larger ones.
const LENGTHS: [usize; 3] = [crate::ring::MOST, 1 << 30, 64 << 20];
/// Where the ring's words and its memory are.
const WORDS: usize = 256;
const MEMORY: usize = 4096;
/// How often a consumer that finds nothing looks again before it sleeps: for about as long as a sleep and a wake cost.
const LOOKS: u32 = 60;

shared! {
    /// What lies at the beginning of a channel's segment.
    #[derive(Debug)]
    struct Header {
        /// The most frames to hold, 0 for any number. Written before the segment is shared.
        bound: AtomicU32,
        /// Not 0 once somebody watches the channel by a descriptor.
        watched: AtomicU32,
        /// How many frames were declared done, modulo 2^32.
        done: AtomicU32,
        _rest: [AtomicU32; 13],
        producers: RawLock,
        /// Producers sleep here while there is no room.
        room: Bell,
        _producers_line: [AtomicU32; 14],
        consumers: RawLock,
        /// Consumers sleep here while there are no frames.
        frames: Bell,
        /// Those who sleep here wait for everything to be done.
        finished: Bell,
        _consumers_line: [AtomicU32; 13],
    }
}

/// Why a frame was not put.
#[derive(Debug)]
pub enum PutError<E> {
    /// The deadline passed while there was no room.
    Full,
    /// It is longer than the channel's whole memory.
    TooLong,
    /// Another process has spoiled the channel.
    Malformed(Malformed),
    /// The system has no memory for it.
    System(io::Error),
    /// The gate ended the wait.
    Gate(E),
}

/// Why there is no frame.
#[derive(Debug)]
pub enum GetError<E> {
    /// The deadline passed while there was none.
    Empty,
    /// Another process has spoiled the channel.
    Malformed(Malformed),
    /// The gate ended the wait, or the caller could not take the frame, which stays where it is.
    Gate(E),
}

/// More frames were declared done than were put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllDone;

impl fmt::Display for AllDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("more frames were done than put")
    }
}

impl std::error::Error for AllDone {}

/// A channel, as this process has it mapped.
#[derive(Debug)]
pub struct Channel {
    segment: Segment,
}

impl Channel {
    /// Makes a channel that holds up to `bound` frames, any number if that is 0.
    ///
    /// # Errors
    /// The system's: too many open files, no address space.
    pub fn create(bound: u32) -> io::Result<Self> {
        let mut lengths = LENGTHS.iter();
        let segment = loop {
            let &length = lengths.next().expect("the last length is tried before");
            match Segment::create(c"juggler-queue", length) {
                Ok(segment) => break segment,
                Err(error) if lengths.len() == 0 || error.raw_os_error() == Some(libc::EMFILE) => return Err(error),
                Err(_) => {}
            }
        };
        let channel = Self::of_segment(segment)?;
        channel.header().bound.store(bound, Ordering::Relaxed);
        Ok(channel)
    }

    /// The channel whose descriptor another process passed.
    ///
    /// # Errors
    /// `InvalidInput` if it is not a channel's, or the system's error.
    pub fn open(file: OwnedFd) -> io::Result<Self> {
        Self::of_segment(Segment::open(file)?)
    }

    fn of_segment(segment: Segment) -> io::Result<Self> {
        let check = |segment: &Segment| -> Result<(), OutOfBounds> {
            segment.at::<Header>(0)?;
            Ring::new(segment, WORDS, MEMORY)?;
            Ok(())
        };
        check(&segment).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        Ok(Self { segment })
    }

    fn header(&self) -> &Header {
        self.segment.at(0).expect("checked when it was opened")
    }

    fn ring(&self) -> Ring<'_> {
        Ring::new(&self.segment, WORDS, MEMORY).expect("checked when it was opened")
    }

    /// Adds a frame, waiting for room until `deadline`.
    ///
    /// # Errors
    /// See [`PutError`]; then nothing was added.
    pub fn put<G: Gate>(
        &self,
        gate: &G,
        deadline: Deadline,
        kind: u8,
        parts: &[&[u8]],
    ) -> Result<(), PutError<G::Error>> {
        let (header, ring) = (self.header(), self.ring());
        loop {
            let before = ring.popped();
            if hold(&header.producers, gate, deadline).map_err(PutError::Gate)?.is_none() {
                return Err(PutError::Full);
            }
            let pushed = if self.is_full() { Err(PushError::Full) } else { ring.push(kind, parts) };
            let _ = header.producers.release();
            match pushed {
                Ok(()) => {
                    header.frames.ring();
                    return Ok(());
                }
                Err(PushError::Full) => {}
                Err(PushError::TooLong) => return Err(PutError::TooLong),
                Err(PushError::Malformed(malformed)) => return Err(PutError::Malformed(malformed)),
                Err(PushError::System(error)) => return Err(PutError::System(error)),
            }
            if deadline == Deadline::PASSED {
                return Err(PutError::Full);
            }
            let ready = || if self.is_bounded() { !self.is_full() } else { ring.popped() != before || ring.is_empty() };
            let waited = header.room.sleep_until(gate, deadline, ready).map_err(PutError::Gate)?;
            if waited == Waited::TimedOut {
                return Err(PutError::Full);
            }
        }
    }

    /// Takes the next frame out, waiting for one until `deadline`. `take` copies it; if that fails, the frame stays.
    /// It is called with the consumers' lock held and must not come back here.
    ///
    /// # Errors
    /// See [`GetError`].
    pub fn get<G: Gate, R>(
        &self,
        gate: &G,
        deadline: Deadline,
        mut take: impl FnMut(Frame) -> Result<R, G::Error>,
    ) -> Result<R, GetError<G::Error>> {
        let (header, ring) = (self.header(), self.ring());
        loop {
            if hold(&header.consumers, gate, deadline).map_err(GetError::Gate)?.is_none() {
                return Err(GetError::Empty);
            }
            let taken = match ring.front() {
                Ok(None) => None,
                Ok(Some(frame)) => Some(take(frame).map_err(GetError::Gate).inspect(|_| ring.pop(frame))),
                Err(malformed) => Some(Err(GetError::Malformed(malformed))),
            };
            let _ = header.consumers.release();
            if let Some(taken) = taken {
                header.room.ring();
                return taken;
            }
            if deadline == Deadline::PASSED {
                return Err(GetError::Empty);
            }
            if self.look_again() {
                continue;
            }
            // What is to be given back may be wanted again at once: memory that is there already is much the faster.
            let lingers = ring.holds_too_much();
            let until = if lingers { deadline.min(Deadline::after(LINGER)) } else { deadline };
            let waited = header.frames.sleep_until(gate, until, || !ring.is_empty()).map_err(GetError::Gate)?;
            if waited == Waited::TimedOut {
                if lingers {
                    self.trim();
                }
                if deadline.has_passed() {
                    return Err(GetError::Empty);
                }
            }
        }
    }

    /// Looks for a while whether a frame comes.
    fn look_again(&self) -> bool {
        let ring = self.ring();
        look::processors() > 1
            && (0..LOOKS).any(|_| {
                spin_hint();
                !ring.is_empty()
            })
    }

    /// Gives memory back that a long queue has left, if nobody uses the channel right now.
    fn trim(&self) {
        let (header, ring, me) = (self.header(), self.ring(), Owner::current());
        if ring.holds_too_much() && header.consumers.try_acquire(me) {
            if header.producers.try_acquire(me) {
                ring.trim();
                let _ = header.producers.release();
            }
            let _ = header.consumers.release();
        }
    }

    fn is_bounded(&self) -> bool {
        self.bound() != 0
    }

    /// The most frames it holds, 0 if there is no bound.
    pub fn bound(&self) -> u32 {
        self.header().bound.load(Ordering::Relaxed)
    }

    /// How many frames are in it.
    pub fn len(&self) -> usize {
        self.ring().len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether any frame was ever put.
    pub fn was_used(&self) -> bool {
        self.ring().pushed() != 0
    }

    /// Whether it holds as many frames as it may.
    pub fn is_full(&self) -> bool {
        self.is_bounded() && self.len() >= self.bound() as usize
    }

    /// How many of the frames ever put have not been declared done.
    pub fn unfinished(&self) -> u32 {
        let done = self.header().done.load(Ordering::SeqCst);
        self.ring().pushed().wrapping_sub(done)
    }

    /// Declares one of the frames put to be done.
    ///
    /// # Errors
    /// [`AllDone`] if all are.
    pub fn done(&self) -> Result<(), AllDone> {
        let header = self.header();
        let mut done = header.done.load(Ordering::SeqCst);
        loop {
            let pushed = self.ring().pushed();
            if done == pushed {
                return Err(AllDone);
            }
            let next = done.wrapping_add(1);
            match header.done.compare_exchange(done, next, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) if next == pushed => {
                    header.finished.ring_all();
                    return Ok(());
                }
                Ok(_) => return Ok(()),
                Err(now) => done = now,
            }
        }
    }

    /// Waits until all frames ever put are done.
    ///
    /// # Errors
    /// The gate's.
    pub fn join<G: Gate>(&self, gate: &G) -> Result<(), G::Error> {
        if self.unfinished() != 0 {
            self.header().finished.sleep_until(gate, Deadline::NEVER, || self.unfinished() == 0)?;
        }
        Ok(())
    }

    /// Says, for ever and to all processes, that somebody watches the channel by a descriptor.
    pub fn watch(&self) {
        self.header().watched.store(1, Ordering::SeqCst);
    }

    /// Whether somebody does.
    #[inline(always)]
    pub fn is_watched(&self) -> bool {
        self.header().watched.load(Ordering::SeqCst) != 0
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.segment.as_fd()
    }
}

/// Takes a side's lock; `None` if the deadline passed.
#[inline(always)]
fn hold<G: Gate>(lock: &RawLock, gate: &G, deadline: Deadline) -> Result<Option<()>, G::Error> {
    let me = Owner::current();
    if lock.try_acquire(me) {
        return Ok(Some(()));
    }
    // Locks are held for as long as it takes to copy a frame. Not to wait at all means not to wait for others' frames.
    let deadline = if deadline == Deadline::PASSED { Deadline::after(PATIENCE) } else { deadline };
    Ok(match lock.acquire(gate, me, deadline)? {
        Acquired::Acquired | Acquired::OwnerDied => Some(()),
        Acquired::TimedOut => None,
    })
}

/// For how long a queue that has run empty keeps its memory.
const LINGER: std::time::Duration = std::time::Duration::from_secs(1);

/// How long a call that must not wait waits for a side's lock: if its holder died, it takes a moment to see that.
const PATIENCE: std::time::Duration = std::time::Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing::{Child, fork};
    use juggler_sync::ThreadGate;
    use juggler_sync::sync::AtomicU64;
    use std::time::Duration;

    fn put(channel: &Channel, deadline: Deadline, payload: &[u8]) -> bool {
        match channel.put(&ThreadGate, deadline, 1, &[payload]) {
            Ok(()) => true,
            Err(PutError::Full) => false,
            Err(error) => panic!("{error:?}"),
        }
    }

    fn get(channel: &Channel, deadline: Deadline) -> Option<Vec<u8>> {
        let copy = |frame: Frame| {
            assert_eq!(frame.kind, 1);
            let mut copy = vec![0; frame.length];
            // SAFETY: the frame's payload is readable, and `copy` as long.
            #[allow(unsafe_code)]
            unsafe {
                std::ptr::copy_nonoverlapping(frame.start.as_ptr(), copy.as_mut_ptr(), frame.length)
            };
            Ok(copy)
        };
        match channel.get(&ThreadGate, deadline, copy) {
            Ok(payload) => Some(payload),
            Err(GetError::Empty) => None,
            Err(error) => panic!("{error:?}"),
        }
    }

    #[test]
    fn a_bound_is_kept_and_room_is_announced() {
        let channel = Channel::create(2).unwrap();
        assert!(put(&channel, Deadline::PASSED, b"a") && put(&channel, Deadline::PASSED, b"b"));
        assert!(!put(&channel, Deadline::PASSED, b"c") && channel.is_full());
        assert!(!put(&channel, Deadline::after(Duration::from_millis(30)), b"c"));
        let child = fork(|| assert!(put(&channel, Deadline::NEVER, b"c")));
        for expected in [b"a", b"b", b"c"] {
            assert_eq!(get(&channel, Deadline::NEVER).unwrap(), expected);
        }
        assert_eq!(get(&channel, Deadline::PASSED), None);
        assert_eq!(get(&channel, Deadline::after(Duration::from_millis(30))), None);
        assert!(child.reap());
    }

    #[test]
    fn frames_are_done_once() {
        let channel = Channel::create(0).unwrap();
        assert_eq!(channel.done(), Err(AllDone));
        put(&channel, Deadline::NEVER, b"a");
        put(&channel, Deadline::NEVER, b"b");
        let child = fork(|| {
            let Ok(()) = channel.join(&ThreadGate);
            assert_eq!(channel.unfinished(), 0);
        });
        std::thread::sleep(Duration::from_millis(10));
        assert_eq!((channel.done(), channel.done(), channel.done()), (Ok(()), Ok(()), Err(AllDone)));
        assert!(child.reap());
    }

    #[test]
    fn a_long_queue_gives_its_memory_back() {
        let memory = |channel: &Channel| {
            let file = std::fs::File::from(channel.as_fd().try_clone_to_owned().unwrap());
            std::os::unix::fs::MetadataExt::blocks(&file.metadata().unwrap()) * 512
        };
        let channel = Channel::create(0).unwrap();
        for round in 0..3 {
            for at in 0..2000_u32 {
                put(&channel, Deadline::NEVER, &vec![at as u8; 10_000 + round]);
            }
            assert!(memory(&channel) > 20_000_000);
            for at in 0..2000_u32 {
                assert_eq!(get(&channel, Deadline::NEVER).unwrap(), vec![at as u8; 10_000 + round]);
            }
            assert_eq!(get(&channel, Deadline::after(Duration::from_millis(1))), None);
            assert!(memory(&channel) < 1_000_000);
        }
    }

    /// Producers and consumers are killed at random points. Nobody hangs, no frame is torn, each of a producer's frames
    /// comes in order, and each death loses or adds one frame at most.
    #[test]
    fn deaths_lose_no_more_than_what_was_in_hand() {
        const SIDE: usize = 3;
        const DEATHS: u64 = 60;
        for bound in [0, 5] {
            let channel = Channel::create(bound).unwrap();
            let counts = Segment::create(c"test", 4096).unwrap();
            let [put_count, got_count, end]: &[AtomicU64] = counts.array::<AtomicU64>(0, 3).unwrap() else { panic!() };
            let frame = |producer: u64, at: u64| -> Vec<u8> {
                let length = (producer.wrapping_mul(31).wrapping_add(at * 977) % 5000) as usize;
                [&producer.to_ne_bytes()[..], &at.to_ne_bytes(), &vec![at as u8; length]].concat()
            };
            let check = |payload: &[u8], last: &mut std::collections::HashMap<u64, u64>| {
                let number = |at: usize| u64::from_ne_bytes(payload[at..at + 8].try_into().unwrap());
                let (producer, at) = (number(0), number(8));
                assert!(payload == frame(producer, at), "a frame is torn");
                assert!(last.insert(producer, at).is_none_or(|before| before < at), "out of order");
            };
            let start = |n: usize, generation: u64| -> Child {
                fork(|| {
                    let mut last = std::collections::HashMap::new();
                    if n < SIDE {
                        for at in 0.. {
                            if end.load(Ordering::Relaxed) != 0 {
                                return;
                            }
                            // Not faster than it is consumed.
                            while channel.len() > 1000 {
                                std::thread::yield_now();
                            }
                            if put(&channel, Deadline::after(Duration::from_millis(50)), &frame(generation, at)) {
                                put_count.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    }
                    while let Some(payload) = get(&channel, Deadline::after(Duration::from_secs(3))) {
                        got_count.fetch_add(1, Ordering::Relaxed);
                        check(&payload, &mut last);
                    }
                })
            };
            let mut children: Vec<_> = (0..2 * SIDE).map(|n| start(n, n as u64)).collect();
            let mut seed = 88172645463325252_u64;
            for death in 0..DEATHS {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                std::thread::sleep(Duration::from_micros(seed % 20_000));
                let n = (seed >> 32) as usize % (2 * SIDE);
                let fresh = start(n, 100 + death);
                let victim = std::mem::replace(&mut children[n], fresh);
                victim.kill();
                assert!(!victim.reap());
            }
            end.store(1, Ordering::Relaxed);
            assert!(children.into_iter().all(|child| child.reap()), "a child found something wrong");
            assert!(channel.is_empty());
            let (put, got) = (put_count.load(Ordering::Relaxed), got_count.load(Ordering::Relaxed));
            assert!(put > 1000 && put.abs_diff(got) <= DEATHS, "{put} put, {got} got");
        }
    }
}
