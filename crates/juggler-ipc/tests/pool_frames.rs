//! The pool's table with whatever a worker gone wrong may have written there: its frames are refused or lie within the
//! segment, and nobody panics or waits.
#![cfg(not(loom))]

use juggler_ipc::pool::parent::{Finished, Options, Parent, Reason};
use juggler_ipc::pool::payload::Apart;
use juggler_ipc::pool::seat::Seat;
use juggler_ipc::pool::slot::{Place, State};
use juggler_ipc::pool::table::{SLOTS, Table};
use juggler_sync::ThreadGate;
use juggler_sync::sync::Ordering::Relaxed;
use proptest::collection::vec;
use proptest::prelude::*;
use std::os::fd::{AsFd, AsRawFd};

const WORKERS: usize = 2;

/// What is spoiled. Slots and desks are numbers of those in use, or nearly.
#[derive(Clone, Debug)]
enum Spoil {
    State(usize, u64),
    Arguments(usize, u64, u64),
    Result(usize, u64, u64),
    Progress(usize, u32),
    Ring(usize, u64),
    Head(u64),
    Done(usize, u64),
    Summary(u64),
    Idle(u64),
    Desk(usize, u32),
}

#[derive(Clone, Debug)]
enum Step {
    Spoil(Spoil),
    Submit(usize),
    Work(usize),
    Collect,
    Settle(usize),
    Cancel(u64),
    Stop(u64),
    Tick,
}

/// The slots that a new pool uses first.
fn slot() -> impl Strategy<Value = usize> {
    prop_oneof![9 => 0..8_usize, 1 => 0..SLOTS]
}

fn state() -> impl Strategy<Value = u64> {
    let nearly = (0..5_u64, 0..4_u64, 0..16_u64).prop_map(|(phase, worker, ticket)| phase | worker << 8 | ticket << 24);
    prop_oneof![nearly, any::<u64>()]
}

/// Where a payload is: in the room, in the segment, in a file of this process.
fn file() -> impl Strategy<Value = u64> {
    let in_segment = prop_oneof![0..1_u64 << 31, 0..1_u64 << 22, any::<u64>()].prop_map(|at| at | 1_u64 << 63);
    let own = (0..64_u64).prop_map(|descriptor| u64::from(std::process::id()) << 32 | descriptor);
    prop_oneof![Just(0), in_segment, own, Just(u64::MAX >> 1)]
}

fn length() -> impl Strategy<Value = u64> {
    prop_oneof![0..2000_u64, 0..4_u64 << 30, 0..1_u64 << 60]
}

fn spoil() -> impl Strategy<Value = Spoil> {
    prop_oneof![
        (slot(), state()).prop_map(|(slot, state)| Spoil::State(slot, state)),
        (slot(), length(), file()).prop_map(|(slot, length, file)| Spoil::Arguments(slot, length, file)),
        (slot(), length(), file()).prop_map(|(slot, length, file)| Spoil::Result(slot, length, file)),
        (slot(), any::<u32>()).prop_map(|(slot, count)| Spoil::Progress(slot, count)),
        (0..16_usize, any::<u64>()).prop_map(|(at, slot)| Spoil::Ring(at, slot)),
        prop_oneof![0..16_u64, any::<u64>()].prop_map(Spoil::Head),
        (0..SLOTS / 64, any::<u64>()).prop_map(|(at, bits)| Spoil::Done(at, bits)),
        any::<u64>().prop_map(Spoil::Summary),
        any::<u64>().prop_map(Spoil::Idle),
        (0..WORKERS, any::<u32>()).prop_map(|(desk, busy)| Spoil::Desk(desk, busy)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => spoil().prop_map(Step::Spoil),
        4 => prop_oneof![0..900_usize, 900..200_000_usize].prop_map(Step::Submit),
        4 => (0..WORKERS).prop_map(Step::Work),
        4 => Just(Step::Collect),
        2 => (0..WORKERS).prop_map(Step::Settle),
        1 => (0..20_u64).prop_map(Step::Cancel),
        1 => (0..20_u64).prop_map(Step::Stop),
        1 => Just(Step::Tick),
    ]
}

fn place(place: &Place, length: u64, file: u64) {
    place.length.store(length, Relaxed);
    place.file.store(file, Relaxed);
}

fn apply(table: &Table, spoil: Spoil) {
    let slots = table.slots();
    match spoil {
        Spoil::State(slot, state) => slots[slot].state.store(state, Relaxed),
        Spoil::Arguments(slot, length, file) => place(&slots[slot].arguments, length, file),
        Spoil::Result(slot, length, file) => place(&slots[slot].result, length, file),
        Spoil::Progress(slot, count) => slots[slot].progress.store(count, Relaxed),
        Spoil::Ring(at, slot) => table.order().ring[at].store(slot, Relaxed),
        Spoil::Head(head) => table.order().head.store(head, Relaxed),
        Spoil::Done(at, bits) => table.done().bits[at].store(bits, Relaxed),
        Spoil::Summary(bits) => table.done().summary.store(bits, Relaxed),
        Spoil::Idle(bits) => table.idle().bits[0].store(bits, Relaxed),
        Spoil::Desk(desk, busy) => table.desk(desk).busy.store(busy, Relaxed),
    }
}

/// Reads the first and the last byte: out of bounds, that would end this process.
fn touch(bytes: &[u8]) {
    std::hint::black_box((bytes.first().copied(), bytes.last().copied()));
}

/// A worker that sits down, makes the call that is next, if one is, and is killed.
fn work(parent: &Parent<usize>, desk: usize) {
    let table = Table::open(parent.table().as_fd().try_clone_to_owned().unwrap()).unwrap();
    let Ok(mut seat) = Seat::new(table, desk) else { return };
    if parent.table().order().length() == 0 {
        return; // it would sleep
    }
    let order = parent.table().order();
    // What is cancelled or spoiled is no call; with none, it would sleep.
    let (head, tail) = (order.head.load(Relaxed), order.tail.load(Relaxed));
    let waits = (head..tail).any(|ticket| {
        let slot = order.ring[ticket as usize % order.ring.len()].load(Relaxed) as usize;
        order.slots.get(slot).is_some_and(|slot| slot.state.load(Relaxed) == State::queued(ticket).0)
    });
    if !waits {
        return;
    }
    let Ok(Some(task)) = seat.next(&ThreadGate) else { return };
    let length = match seat.arguments(task) {
        Ok(arguments) => {
            touch(arguments.bytes());
            arguments.bytes().len().min(300_000)
        }
        Err(_) => 1,
    };
    seat.finish(task, 1, Apart::default(), &[&vec![7; length]]).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_spoiled_table_is_an_error_or_a_frame_within(steps in vec(step(), 1..60)) {
        let parent = Parent::<usize>::new(WORKERS, 1 << 20).unwrap();
        prop_assert!(parent.table().as_fd().as_raw_fd() > 2);
        let mut finished: Vec<Finished<usize>> = Vec::new();
        for step in steps {
            match step {
                Step::Spoil(spoil) => apply(parent.table(), spoil),
                Step::Submit(length) => {
                    let options = Options { retries: length as u32 % 2, ..Options::default() };
                    let _ = parent.submit(parent.next_id(), length, options, Apart::default(), &[&vec![1; length]]);
                }
                Step::Work(desk) => work(&parent, desk),
                Step::Collect => {
                    parent.collect(&mut finished, |_| true);
                    for task in &mut finished {
                        if let Ok(result) = parent.result(task) {
                            touch(result.0.bytes());
                        }
                    }
                    parent.release(finished.drain(..));
                }
                Step::Settle(desk) => drop(parent.settle(desk)),
                Step::Cancel(id) => drop(parent.cancel(id, 0)),
                Step::Stop(id) => drop(parent.stop(id, Reason::Cancelled)),
                Step::Tick => drop(parent.tick(None, |_, _| {})),
            }
        }
        drop(parent.abandon());
        prop_assert!(!parent.is_busy());
    }
}

/// A length beyond 32 bits, in memory that nothing takes but its last page.
#[test]
fn a_payload_beyond_four_gigabytes_is_read_whole() {
    use juggler_ipc::segment::Segment;
    const LENGTH: usize = (5 << 30) + 3;
    let parent = Parent::<usize>::new(1, 1 << 20).unwrap();
    assert!(parent.submit(parent.next_id(), 0, Options::default(), Apart::default(), &[b"small"]).is_ok());
    let file = Segment::create(c"test", LENGTH).unwrap();
    let last = file.array::<juggler_sync::sync::AtomicU64>(LENGTH / 8 * 8 - 8, 1).unwrap();
    last[0].store(u64::MAX, Relaxed);
    let slot = parent.table().slots().iter().position(|slot| slot.state.load(Relaxed) != 0).unwrap();
    let name = u64::from(std::process::id()) << 32 | (file.as_fd().as_raw_fd() as u64 + 1);
    place(&parent.table().slots()[slot].arguments, LENGTH as u64, name);
    let table = Table::open(parent.table().as_fd().try_clone_to_owned().unwrap()).unwrap();
    let mut seat = Seat::new(table, 0).unwrap();
    let task = seat.next(&ThreadGate).unwrap().unwrap();
    let arguments = seat.arguments(task).unwrap();
    assert_eq!(arguments.bytes().len(), LENGTH);
    assert_eq!((arguments.bytes()[0], arguments.bytes()[LENGTH - 4]), (0, 255));
}
