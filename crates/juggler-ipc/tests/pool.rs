//! The pool between processes that are killed at random.
#![cfg(not(loom))]
#![allow(unsafe_code)]

use juggler_ipc::pool::parent::{Finished, Options, Parent};
use juggler_ipc::pool::seat::Seat;
use juggler_ipc::pool::table::Table;
use juggler_ipc::sys::open_process;
use juggler_sync::{Deadline, ThreadGate};
use std::convert::Infallible;
use std::os::fd::AsFd;
use std::time::Duration;

const WORKERS: usize = 3;
const TASKS: usize = 20_000;

/// A worker that gives back what it gets; every tenth result does not fit its slot.
fn work(table: &Table, desk: usize) -> i32 {
    let file = table.as_fd().try_clone_to_owned().unwrap();
    let mut seat = Seat::new(Table::open(file).unwrap(), desk, false).unwrap();
    seat.begin(true);
    loop {
        let next: Result<_, Infallible> = seat.next(&ThreadGate);
        let Ok(Some(task)) = next else { return 0 };
        let bytes = seat.arguments(task).unwrap().bytes().to_vec();
        let times = if bytes[0] % 10 == 0 { 300 } else { 1 };
        seat.finish(task, 7, &vec![&bytes[..]; times]).unwrap();
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
    let parent = Parent::<usize>::new(WORKERS).unwrap();
    let mut workers: Vec<_> = std::iter::from_fn(|| fork_worker(&parent)).collect();
    assert_eq!(workers.len(), WORKERS);
    let mut seen = vec![false; TASKS];
    let (mut submitted, mut done, mut lost, mut kills) = (0, 0, 0, 0);
    let mut finished: Vec<Finished<usize>> = Vec::new();
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    while done + lost < TASKS {
        while submitted < TASKS && submitted < done + lost + 500 {
            let options = Options { retries: u32::from(submitted % 2 == 0), ..Options::default() };
            let sent = parent.submit(parent.next_id(), submitted, options, &[&(submitted as u64).to_ne_bytes()]);
            assert!(sent.is_ok());
            submitted += 1;
        }
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
            if let Some(one) = parent.settle(desk).lost {
                assert!(!std::mem::replace(&mut seen[one.owner], true));
                lost += 1;
            }
            workers.extend(fork_worker(&parent));
        }
        let marks = parent.table().done();
        let count = marks.seen();
        parent.collect(&mut finished);
        for task in &finished {
            assert!(!std::mem::replace(&mut seen[task.owner], true), "task {} is done twice", task.owner);
            assert_eq!(task.kind, 7);
            let result = parent.result(task).unwrap();
            let expected = (task.owner as u64).to_ne_bytes();
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
    for (_, pid) in workers {
        let mut status = 0;
        // SAFETY: the child has not been reaped, and `status` is a valid place.
        unsafe { libc::waitpid(pid, &mut status, 0) };
        assert_eq!(status, 0);
        assert!(open_process(pid.unsigned_abs()).is_err());
    }
}
