//! The pool between processes that are killed at random.
#![cfg(not(loom))]
#![allow(unsafe_code)]

use juggler_ipc::arena::Block;
use juggler_ipc::pool::parent::{Finished, Options, Parent};
use juggler_ipc::pool::payload::{Apart, Buffer, Payload};
use juggler_ipc::pool::seat::Seat;
use juggler_ipc::pool::table::Table;
use juggler_ipc::sys::open_process;
use juggler_sync::{Deadline, ThreadGate};
use std::convert::Infallible;
use std::os::fd::AsFd;
use std::time::Duration;

const WORKERS: usize = 3;
const TASKS: usize = 20_000;

/// Of the buffers that travel apart.
const LENGTH: usize = 100_000;

/// A buffer of equal bytes: in a block if there is room, else in the payload.
fn send(room: Option<Block>, byte: u8) -> (Apart, Vec<u8>) {
    let mut apart = Apart::default();
    let inline = if room.is_some() { Vec::new() } else { vec![byte; LENGTH] };
    match room {
        Some(block) => {
            // SAFETY: the block is that long, and nobody else knows of it.
            unsafe { block.start().write_bytes(byte, LENGTH) };
            apart.push(block);
        }
        None => apart.push_inline(LENGTH),
    }
    (apart, inline)
}

/// Whether the only buffer of a payload consists of `byte`.
fn is_all(payload: &Payload, blocks: Vec<Block>, byte: u8) -> bool {
    let buffers: Vec<_> = payload.buffers(blocks).collect();
    let [buffer] = &buffers[..] else { return false };
    let bytes = match buffer {
        Buffer::Inline(bytes) => bytes,
        // SAFETY: the block is held, and was written before we were told of it.
        Buffer::Block(block) => unsafe { std::slice::from_raw_parts(block.start().as_ptr(), block.length()) },
    };
    bytes.len() == LENGTH && bytes.iter().all(|&there| there == byte)
}

/// A worker that gives back what it gets, a buffer too; every tenth result does not fit its slot.
fn work(table: &Table, desk: usize) -> i32 {
    let file = table.as_fd().try_clone_to_owned().unwrap();
    let mut seat = Seat::new(Table::open(file).unwrap(), desk).unwrap();
    seat.begin(true);
    loop {
        let next: Result<_, Infallible> = seat.next(&ThreadGate);
        let Ok(Some(task)) = next else { return 0 };
        let arguments = seat.arguments(task).unwrap();
        let bytes = arguments.bytes().to_vec();
        let times = if bytes[0] % 10 == 0 { 300 } else { 1 };
        if arguments.has_buffers() {
            let blocks = seat.hold(&arguments).unwrap();
            assert!(is_all(&arguments, blocks, bytes[0]));
            let (apart, inline) = send(seat.room(LENGTH), bytes[0]);
            seat.finish(task, 8, apart, &[&bytes, &inline]).unwrap();
        } else {
            seat.finish(task, 7, Apart::default(), &vec![&bytes[..]; times]).unwrap();
        }
    }
}

fn fork_worker(parent: &Parent<usize>) -> Option<(usize, i32)> {
    let desk = parent.take_desk()?;
    // SAFETY: the child runs on a copy of this thread, the only one of this test binary that holds locks of ours.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let status = work(parent.table(), desk);
        // SAFETY: ends the child without the harness's own end.
        unsafe { libc::_exit(status) };
    }
    assert!(pid > 0);
    Some((desk, pid))
}

#[test]
fn every_task_is_done_or_lost_with_its_worker() {
    // Room for some of the buffers only.
    let parent = Parent::<usize>::new(WORKERS, 40 << 16).unwrap();
    let mut workers: Vec<_> = std::iter::from_fn(|| fork_worker(&parent)).collect();
    assert_eq!(workers.len(), WORKERS);
    let mut seen = vec![false; TASKS];
    let (mut submitted, mut done, mut lost, mut kills) = (0, 0, 0, 0);
    let mut finished: Vec<Finished<usize>> = Vec::new();
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    while done + lost < TASKS {
        while submitted < TASKS && submitted < done + lost + 500 {
            let options = Options { retries: u32::from(submitted % 2 == 0), ..Options::default() };
            let bytes = (submitted as u64).to_ne_bytes();
            let (apart, inline) =
                if submitted % 64 == 7 { send(parent.room(LENGTH), bytes[0]) } else { Default::default() };
            let sent = parent.submit(parent.next_id(), submitted, options, apart, &[&bytes, &inline]);
            assert!(sent.is_ok());
            if submitted % 3 == 0 {
                parent.call();
            }
            submitted += 1;
        }
        parent.call();
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        if kills < 200 && random % 8 == 0 {
            let (desk, pid) = workers.swap_remove(random as usize / 8 % workers.len());
            kills += 1;
            // SAFETY: the child has not been reaped.
            unsafe {
                libc::kill(pid, libc::SIGKILL);
                libc::waitpid(pid, std::ptr::null_mut(), 0);
            }
            let settled = parent.settle(desk);
            parent.leave_desk(desk);
            if let Some(one) = settled.lost {
                assert!(!std::mem::replace(&mut seen[one.owner], true));
                lost += 1;
            }
            workers.extend(fork_worker(&parent));
        }
        let marks = parent.table().done();
        let count = marks.seen();
        // Now and then only what has no buffers.
        parent.collect(&mut finished, |kind| random % 4 != 1 || kind == 7);
        for task in &mut finished {
            assert!(!std::mem::replace(&mut seen[task.owner], true), "task {} is done twice", task.owner);
            let expected = (task.owner as u64).to_ne_bytes();
            assert_eq!(task.kind, if task.owner % 64 == 7 { 8 } else { 7 });
            let (result, blocks) = parent.result(task).unwrap();
            if task.kind == 8 {
                assert_eq!(result.bytes(), expected);
                assert!(is_all(&result, blocks, expected[0]));
                continue;
            }
            assert_eq!(result.bytes().len(), if expected[0] % 10 == 0 { 2400 } else { 8 });
            assert!(result.bytes().chunks(8).all(|chunk| chunk == expected));
        }
        done += finished.len();
        if finished.is_empty() && kills >= 200 && marks.about_to_sleep(count) {
            marks.completions.wait(count, Deadline::after(Duration::from_secs(10)));
        }
        parent.release(finished.drain(..));
    }
    assert!(seen.iter().all(|&seen| seen));
    // A task with a retry is lost only to the second death.
    assert!(lost <= kills);
    parent.close();
    assert_eq!(parent.table().arena().usage().used, 0);
    for (_, pid) in workers {
        let mut status = 0;
        // SAFETY: the child has not been reaped, and `status` is a valid place.
        unsafe { libc::waitpid(pid, &mut status, 0) };
        assert_eq!(status, 0);
        assert!(open_process(pid.unsigned_abs()).is_err());
    }
}

#[test]
fn a_result_outlives_its_worker_and_the_next_at_that_desk() {
    let parent = Parent::<usize>::new(1, 40 << 16).unwrap();
    parent.submit(parent.next_id(), 0, Options::default(), Apart::default(), &[b"call"]).unwrap();
    let desk = parent.take_desk().unwrap();
    let file = parent.table().as_fd().try_clone_to_owned().unwrap();
    let mut seat = Seat::new(Table::open(file).unwrap(), desk).unwrap();
    let next: Result<_, Infallible> = seat.next(&ThreadGate);
    let task = next.unwrap().unwrap();
    let (apart, inline) = send(seat.room(LENGTH), 9);
    assert!(inline.is_empty());
    seat.finish(task, 8, apart, &[b"head"]).unwrap();
    for _ in 0..2 {
        assert!(parent.settle(desk).lost.is_none());
        parent.leave_desk(desk);
        assert_eq!(parent.take_desk(), Some(desk));
    }
    let mut finished = Vec::new();
    parent.collect(&mut finished, |_| true);
    let (result, blocks) = parent.result(&mut finished[0]).unwrap();
    assert!(is_all(&result, blocks, 9));
}
