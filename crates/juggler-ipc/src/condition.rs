//! The waiting room of a condition variable between processes.
//!
//! The lock of the condition is the caller's: [`Room::enter`] and [`Room::notify`] are called by whoever holds it,
//! [`Room::wait`] by who has entered and let go of it.
//!
//! # States of a seat
//!
//! | word | meaning | leaves by |
//! |---|---|---|
//! | 0 | free | `enter` |
//! | process ([`Owner`]) | a thread of it waits | `notify`; the thread itself when it gives up |
//! | process and bit 31 | notified, and the thread has not seen it yet | the thread, or whoever finds the process dead |
//!
//! A seat's ticket says who came first, and who came first is notified first. Notifying and giving up race by
//! compare-and-swap, so a notification never reaches somebody who has given up, and never one who came after it. One that
//! reaches a process which has died is found by the others, who look when a slice of their sleep is over, and is passed on.

use crate::lock::Slices;
use crate::owner::Owner;
use crate::segment::shared;
use juggler_sync::sync::{AtomicU32, Ordering};
use juggler_sync::sys::SharedFutex;
use juggler_sync::{Deadline, Gate, Waited};

const NOTIFIED: u32 = 1 << 31;

/// How many can wait at once.
pub const SEATS: usize = if cfg!(loom) { 3 } else { 511 };

shared! {
    #[derive(Debug, Default)]
    struct Seat {
        word: SharedFutex,
        ticket: AtomicU32,
    }
}

shared! {
    /// A waiting room in shared memory: a page; see the [module](self). All zeros is an empty one.
    #[derive(Debug)]
    pub struct Room {
        next_ticket: AtomicU32,
        /// How many seats, from the first on, were ever taken.
        used: AtomicU32,
        seats: [Seat; SEATS],
    }
}

/// Every seat is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl Seat {
    fn exchange(&self, current: u32, new: u32) -> bool {
        self.word.word.compare_exchange(current, new, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Frees the seat if its process has died; whether it left a notification behind.
    fn vacate_if_dead(&self, me: Owner, word: u32) -> bool {
        Owner::of(word).is_some_and(|owner| owner != me && !owner.is_alive())
            && self.exchange(word, 0)
            && word & NOTIFIED != 0
    }
}

impl Default for Room {
    fn default() -> Self {
        let seats = std::array::from_fn(|_| Seat::default());
        Self { next_ticket: AtomicU32::new(0), used: AtomicU32::new(0), seats }
    }
}

impl Room {
    fn used(&self) -> &[Seat] {
        &self.seats[..(self.used.load(Ordering::Relaxed) as usize).min(SEATS)]
    }

    /// Takes a seat for the calling thread, which will [wait](Room::wait) there.
    ///
    /// # Errors
    /// [`Full`]: nobody more can wait.
    pub fn enter(&self, me: Owner) -> Result<usize, Full> {
        self.sit(me)
            .or_else(|| {
                self.mend(me, 0);
                self.sit(me)
            })
            .ok_or(Full)
    }

    fn sit(&self, me: Owner) -> Option<usize> {
        let free = self.seats.iter().position(|seat| seat.exchange(0, me.word()))?;
        // The caller holds the condition's lock, so nobody notifies before the ticket is there.
        let ticket = self.next_ticket.fetch_add(1, Ordering::Relaxed);
        self.seats[free].ticket.store(ticket, Ordering::Relaxed);
        if free >= self.used().len() {
            self.used.store(free as u32 + 1, Ordering::Release);
        }
        Some(free)
    }

    /// Waits in a seat until notified or `deadline`; whether it was notified. The seat is free then.
    ///
    /// # Errors
    /// The gate's; a notification that had come is passed on.
    pub fn wait<G: Gate>(&self, gate: &G, me: Owner, seat: usize, deadline: Deadline) -> Result<bool, G::Error> {
        let mut slices = Slices::new();
        let seat = &self.seats[seat];
        while seat.word.load(Ordering::Acquire) == me.word() {
            match gate.wait(&seat.word, me.word(), slices.next(deadline)) {
                Ok(Waited::Woken) => {}
                Ok(Waited::TimedOut) if deadline.has_passed() => {
                    if seat.exchange(me.word(), 0) {
                        return Ok(false);
                    }
                }
                Ok(Waited::TimedOut) => self.mend(me, NOTIFIED),
                Err(error) => {
                    if !seat.exchange(me.word(), 0) {
                        seat.word.word.store(0, Ordering::Release);
                        self.notify(1);
                    }
                    return Err(error);
                }
            }
        }
        seat.word.word.store(0, Ordering::Release);
        Ok(true)
    }

    /// Notifies up to `count` of those who wait, first come, first served; how many it were.
    pub fn notify(&self, count: usize) -> usize {
        let now = self.next_ticket.load(Ordering::Relaxed);
        let mut waiting: Vec<_> = self
            .used()
            .iter()
            .map(|seat| (seat, seat.word.load(Ordering::Relaxed)))
            .filter(|&(_, word)| word != 0 && word & NOTIFIED == 0)
            .collect();
        waiting.sort_by_key(|(seat, _)| u32::MAX - now.wrapping_sub(seat.ticket.load(Ordering::Relaxed)));
        waiting
            .into_iter()
            .filter(|(seat, word)| {
                let notified = seat.exchange(*word, word | NOTIFIED);
                if notified {
                    seat.word.wake(1);
                }
                notified
            })
            .take(count)
            .count()
    }

    /// Frees the seats of the dead that have these `bits`, and passes on the notifications they left.
    #[cold]
    fn mend(&self, me: Owner, bits: u32) {
        let words = self.used().iter().map(|seat| (seat, seat.word.load(Ordering::Relaxed)));
        let lost = words.filter(|&(seat, word)| word & bits == bits && seat.vacate_if_dead(me, word)).count();
        if lost > 0 {
            self.notify(lost);
        }
    }

    /// How many wait and have not been notified.
    pub fn waiting(&self) -> usize {
        let words = self.used().iter().map(|seat| seat.word.load(Ordering::Relaxed));
        words.filter(|&word| word != 0 && word & NOTIFIED == 0).count()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::segment::Segment;
    use crate::sys::testing::{Child, fork};
    use juggler_sync::ThreadGate;

    fn room(segment: &Segment) -> &Room {
        segment.at::<Room>(0).unwrap()
    }

    /// A child that waits; it is in its seat when this returns.
    fn waiter(room: &Room) -> Child {
        let before = room.waiting();
        let child = fork(|| {
            let seat = room.enter(Owner::current()).unwrap();
            assert_eq!(room.wait(&ThreadGate, Owner::current(), seat, Deadline::NEVER), Ok(true));
        });
        while room.waiting() == before {
            std::thread::yield_now();
        }
        child
    }

    #[test]
    fn a_room_is_a_page() {
        assert_eq!(size_of::<Room>(), 4096);
    }

    #[test]
    fn as_many_wake_as_are_notified_the_first_first() {
        let segment = Segment::create(c"test", 4096).unwrap();
        let room = room(&segment);
        assert_eq!(room.notify(1), 0);
        let (first, second, third) = (waiter(room), waiter(room), waiter(room));
        assert_eq!(room.notify(1), 1);
        assert!(first.reap());
        // Takes the first one's seat, but comes last.
        let fourth = waiter(room);
        assert_eq!(room.notify(2), 2);
        assert!(second.reap() && third.reap());
        assert_eq!((room.waiting(), room.notify(usize::MAX)), (1, 1));
        assert!(fourth.reap());
        assert_eq!(room.waiting(), 0);
    }

    #[test]
    fn a_notification_of_the_dead_goes_to_the_living() {
        let segment = Segment::create(c"test", 4096).unwrap();
        let room = room(&segment);
        let (dead, alive) = (waiter(room), waiter(room));
        dead.kill();
        assert!(!dead.reap());
        assert_eq!(room.notify(1), 1);
        assert!(alive.reap());
    }

    #[test]
    fn a_full_room_makes_place_by_the_dead() {
        let segment = Segment::create(c"test", 4096).unwrap();
        let room = room(&segment);
        let me = Owner::current();
        let dead = waiter(room);
        let seats: Vec<_> = (1..SEATS).map(|_| room.enter(me).unwrap()).collect();
        assert_eq!(room.enter(me), Err(Full));
        dead.kill();
        assert!(!dead.reap());
        assert!(room.enter(me).is_ok());
        assert_eq!(room.enter(me), Err(Full));
        assert_eq!(room.wait(&ThreadGate, me, seats[0], Deadline::PASSED), Ok(false));
        assert!(room.enter(me).is_ok());
    }
}
