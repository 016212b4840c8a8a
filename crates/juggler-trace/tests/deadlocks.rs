//! What is a deadlock and what is not: one test for each rule.

use std::sync::{Arc, Mutex};

use juggler_trace::{Deadlock, Graph, Kind, Live, Reason, Resource, Site, Task, TaskState, ThreadId, Wait};

fn lock(id: usize) -> Resource {
    Resource::new(Kind::Lock, id).named(format!("accounts[{id}]"))
}

fn rlock(id: usize) -> Resource {
    Resource::new(Kind::RLock, id).named(format!("tree[{id}]"))
}

fn at(line: u32) -> Site {
    Site::new("bank.py", line, "transfer")
}

fn nobody_asks() -> Live {
    panic!("a rule for owned locks alone must not ask which threads there are")
}

fn only(threads: &[ThreadId]) -> impl Fn() -> Live {
    let threads = threads.to_vec();
    move || Live { threads: threads.clone(), outside: false }
}

/// Waits for an owned lock, for which the graph needs to ask nobody.
fn wants(graph: &Graph, thread: ThreadId, resource: Resource) -> Option<Deadlock> {
    graph.waiting(thread, Wait::new(resource, at(41)), || true, nobody_asks)
}

fn with(graph: &Graph, thread: ThreadId, resource: &Resource) {
    graph.acquired(thread, resource, &at(39), true);
}

fn threads(deadlock: &Deadlock) -> Vec<ThreadId> {
    deadlock.steps().iter().map(|step| step.thread).collect()
}

fn named(deadlock: Option<Deadlock>) -> String {
    deadlock.expect("a deadlock").named(|thread| Some(format!("Thread-{thread}"))).to_string()
}

#[test]
fn two_threads_that_take_two_locks_in_both_orders() {
    let graph = Graph::new();
    with(&graph, 2, &lock(1));
    with(&graph, 1, &lock(0));
    assert!(wants(&graph, 2, lock(0)).is_none());
    let deadlock = wants(&graph, 1, lock(1)).expect("the second wait closes the cycle");
    assert_eq!(threads(&deadlock), [1, 2]);
    let text = deadlock.named(|thread| Some(format!("Thread-{thread} (worker)"))).to_string();
    let expected = "\
deadlock: 2 threads wait for each other
  Thread-1 (worker) waits for Lock 'accounts[1]' at bank.py:41 in transfer
    which Thread-2 (worker) took at bank.py:39 in transfer
  Thread-2 (worker) waits for Lock 'accounts[0]' at bank.py:41 in transfer
    which Thread-1 (worker) took at bank.py:39 in transfer
take them in one order everywhere, or all at once with juggler.threading.acquire_all(...)";
    assert_eq!(text, expected);
}

#[test]
fn only_one_thread_is_told_and_the_other_goes_on_when_it_unwinds() {
    let graph = Graph::new();
    with(&graph, 1, &lock(0));
    with(&graph, 2, &lock(1));
    assert!(wants(&graph, 1, lock(1)).is_none());
    assert!(wants(&graph, 2, lock(0)).is_some());
    // Thread 2 got the error; as long as it runs, others that come are not stuck.
    assert!(wants(&graph, 3, lock(1)).is_none());
    graph.released(2, 1);
    graph.acquired(1, &lock(1), &at(41), true);
    assert!(wants(&graph, 2, lock(0)).is_none(), "thread 1 runs now");
}

#[test]
fn three_threads_in_a_ring_and_the_stacks_that_led_there() {
    let graph = Graph::new();
    for thread in 0..3 {
        graph.acquired(thread, &rlock(thread as usize), &at(10), true);
    }
    assert!(wants(&graph, 0, rlock(1)).is_none());
    assert!(wants(&graph, 1, rlock(2)).is_none());
    let deadlock = graph.waiting(2, Wait::new(rlock(0), at(20)), || true, nobody_asks).expect("a ring");
    assert_eq!(threads(&deadlock), [2, 0, 1]);
    let stacks = |thread, site| {
        assert_eq!(site, if thread == 2 { at(20) } else { at(41) });
        if thread == 1 { vec![] } else { vec![Site::new("bank.py", 60, "pay"), Site::new("bank.py", 90, "main")] }
    };
    let text = deadlock.with_stacks(stacks).to_string();
    assert!(
        text.starts_with("deadlock: 3 threads wait for each other\n  thread 2 waits for RLock 'tree[0]'"),
        "{text}"
    );
    let stacks = "
thread 2 waits (most recent call last):
    bank.py:90 in main
    bank.py:60 in pay
    bank.py:20 in transfer
thread 0 waits (most recent call last):
    bank.py:90 in main
    bank.py:60 in pay
    bank.py:41 in transfer";
    assert!(text.ends_with(stacks), "{text}");
}

#[test]
fn a_holder_that_runs_is_no_deadlock() {
    let graph = Graph::new();
    with(&graph, 1, &lock(0));
    assert!(wants(&graph, 2, lock(0)).is_none());
    assert!(wants(&graph, 3, lock(0)).is_none());
}

#[test]
fn a_lock_taken_before_anyone_watched_has_no_known_holder() {
    assert!(wants(&Graph::new(), 1, lock(0)).is_none());
}

#[test]
fn a_lock_that_changes_hands_has_no_holder() {
    let graph = Graph::new();
    with(&graph, 1, &lock(0));
    with(&graph, 2, &lock(1));
    assert!(wants(&graph, 2, lock(0)).is_none());
    // Thread 2 is awake, and has the lock, but has not yet run so far as to say so.
    graph.released(1, 0);
    assert!(wants(&graph, 1, lock(1)).is_none());
}

#[test]
fn a_reentrant_lock_is_held_until_the_last_release() {
    let graph = Graph::new();
    with(&graph, 1, &rlock(0));
    with(&graph, 1, &rlock(0));
    with(&graph, 2, &rlock(1));
    assert!(wants(&graph, 2, rlock(0)).is_none());
    graph.released(1, 0);
    assert!(wants(&graph, 1, rlock(1)).is_some(), "still held once");
    graph.released(1, 0);
    assert!(wants(&graph, 1, rlock(1)).is_none());
}

#[test]
fn an_rlock_is_its_owners_however_it_was_taken() {
    let graph = Graph::new();
    for thread in [1, 2] {
        graph.acquired(thread, &rlock(thread as usize), &at(39), false);
    }
    assert!(wants(&graph, 1, rlock(2)).is_none());
    assert!(wants(&graph, 2, rlock(1)).is_some());
}

#[test]
fn a_thread_that_takes_its_own_lock_again() {
    let graph = Graph::new();
    with(&graph, 1, &lock(0));
    let expected = "\
deadlock: a thread waits for a lock that it holds itself
  Thread-1 waits for Lock 'accounts[0]' at bank.py:41 in transfer
    which it took itself at bank.py:39 in transfer
release it first, or use juggler.threading.RLock, which its holder may take again";
    assert_eq!(named(wants(&graph, 1, lock(0))), expected);
}

#[test]
fn a_bare_lock_taken_twice_may_be_released_by_a_thread_that_runs() {
    let graph = Graph::new();
    graph.acquired(1, &lock(0), &at(39), false);
    let twice = |live: &[ThreadId]| graph.waiting(1, Wait::new(lock(0), at(41)), || true, only(live));
    assert!(twice(&[1, 2]).is_none());
    graph.stopped_waiting(1);
    let text = named(twice(&[1]));
    assert!(
        text.contains("took itself at bank.py:39 in transfer, and which no other thread is left to release"),
        "{text}"
    );
}

#[test]
fn a_lock_released_by_another_thread_than_its_taker_is_free() {
    let graph = Graph::new();
    graph.acquired(1, &lock(0), &at(39), false);
    graph.released(2, 0);
    assert!(wants(&graph, 1, lock(0)).is_none());
}

#[test]
fn a_with_block_that_lets_go_for_a_while_is_a_bare_lock_after_it() {
    let graph = Graph::new();
    with(&graph, 1, &lock(0));
    graph.released(1, 0);
    graph.acquired(1, &lock(0), &at(40), false);
    let deadlock = graph.waiting(1, Wait::new(lock(0), at(41)), || true, only(&[1, 2]));
    assert!(deadlock.is_none());
}

#[test]
fn bare_locks_are_stuck_once_every_thread_is() {
    let graph = Graph::new();
    graph.acquired(1, &lock(0), &at(39), false);
    graph.acquired(2, &lock(1), &at(39), false);
    assert!(graph.waiting(1, Wait::new(lock(1), at(41)), || true, only(&[1, 2, 3])).is_none());
    assert!(graph.waiting(2, Wait::new(lock(0), at(41)), || true, only(&[1, 2, 3])).is_none(), "3 may release it");
    let main = graph.waiting(3, Wait::join(1, Resource::new(Kind::Join, 9), at(50)), || true, only(&[1, 2, 3]));
    let text = named(main);
    assert!(text.starts_with("deadlock: every thread waits, so none can wake another\n"), "{text}");
    assert!(text.contains("Thread-3 waits for the end of Thread-1 at bank.py:50"), "{text}");
    assert!(text.contains("Thread-1 waits for Lock 'accounts[1]'"), "{text}");
}

#[test]
fn which_threads_there_are_is_asked_only_once_all_that_are_known_wait() {
    let graph = Graph::new();
    for thread in 1..=3 {
        graph.thread_began(thread);
    }
    let awaits = |thread, live: &dyn Fn() -> Live| {
        graph.waiting(thread, Wait::new(Resource::new(Kind::Condition, 5), at(41)), || true, live)
    };
    assert!(awaits(1, &nobody_asks).is_none(), "2 and 3 run");
    assert!(awaits(2, &nobody_asks).is_none(), "3 runs");
    graph.signalled(5);
    assert!(awaits(3, &nobody_asks).is_none(), "1 and 2 were notified");
    assert!(awaits(1, &nobody_asks).is_none(), "2 was notified");
    assert!(awaits(2, &only(&[1, 2, 3, 4])).is_none(), "4 runs");
    graph.stopped_waiting(2);
    assert!(awaits(2, &only(&[1, 2, 3])).is_some());
    graph.thread_ended(2);
    graph.stopped_waiting(3);
    assert!(awaits(3, &only(&[1, 3])).is_some(), "2 has ended");
}

#[test]
fn a_thread_known_to_run_may_finish_a_future_of_no_pool() {
    let graph = Graph::new();
    let task: Task = Arc::new(|| TaskState::Unknown);
    graph.thread_began(1);
    graph.thread_began(2);
    let wait = || Wait::task(task.clone(), Resource::new(Kind::Future, 7), at(41));
    assert!(graph.waiting(1, wait(), || true, nobody_asks).is_none());
    assert!(graph.waiting(2, wait(), || true, only(&[1, 2])).is_some());
}

#[test]
fn signal_handlers_may_release_what_any_thread_may() {
    let graph = Graph::new();
    graph.acquired(1, &lock(0), &at(39), false);
    let handlers = || Live { threads: vec![1], outside: true };
    assert!(graph.waiting(1, Wait::new(lock(0), at(41)), || true, handlers).is_none());
}

#[test]
fn a_dead_holder_releases_nothing() {
    let graph = Graph::new();
    graph.acquired(1, &rlock(0), &at(39), false);
    graph.thread_ended(1);
    let expected = "\
deadlock: a thread waits for a lock whose holder has ended
  Thread-2 waits for RLock 'tree[0]' at bank.py:41 in transfer
    which Thread-1 took at bank.py:39 in transfer, and never released: it has ended
take the lock in a `with` statement, which releases it however the thread ends";
    assert_eq!(named(wants(&graph, 2, rlock(0))), expected);
}

#[test]
fn a_dead_holders_plain_lock_may_be_released_by_any_thread() {
    let graph = Graph::new();
    for scoped in [true, false] {
        graph.acquired(1, &lock(0), &at(39), scoped);
        graph.thread_ended(1);
        assert!(graph.waiting(2, Wait::new(lock(0), at(41)), || true, only(&[2, 3])).is_none());
        graph.stopped_waiting(2);
        assert!(graph.waiting(2, Wait::new(lock(0), at(41)), || true, only(&[2])).is_some());
    }
}

#[test]
fn a_wait_with_a_timeout_goes_on() {
    let graph = Graph::new();
    with(&graph, 1, &lock(0));
    with(&graph, 2, &lock(1));
    let timed = |resource| Wait { timed: true, ..Wait::new(resource, at(41)) };
    assert!(graph.waiting(1, timed(lock(1)), || true, nobody_asks).is_none());
    assert!(wants(&graph, 2, lock(0)).is_none(), "thread 1 gives up some time");
    assert!(graph.waiting(1, timed(lock(1)), || true, nobody_asks).is_none());
}

#[test]
fn threads_that_join_each_other() {
    let graph = Graph::new();
    let join = |thread, other| {
        graph.waiting(thread, Wait::join(other, Resource::new(Kind::Join, 0), at(5)), || true, nobody_asks)
    };
    assert!(join(3, 1).is_none());
    assert!(join(1, 2).is_none());
    let deadlock = join(2, 1).expect("they wait for each other's end");
    assert_eq!(threads(&deadlock), [2, 1]);
    assert!(deadlock.to_string().contains("let no thread or task wait for one that waits for it"));
    // An outsider that comes to a deadlock nobody broke is told as well.
    assert!(join(2, 1).is_some());
    graph.waiting(
        2,
        Wait { may_fail: false, ..Wait::join(1, Resource::new(Kind::Join, 0), at(5)) },
        || true,
        nobody_asks,
    );
    let text = join(4, 1).expect("stuck, though not in the cycle").to_string();
    assert!(text.starts_with("deadlock: this thread waits for 2 threads that wait for each other"), "{text}");
}

#[test]
fn a_thread_joined_by_one_that_holds_the_lock_it_needs() {
    let graph = Graph::new();
    with(&graph, 1, &lock(0));
    assert!(wants(&graph, 2, lock(0)).is_none());
    let wait = Wait::join(2, Resource::new(Kind::Join, 7), at(50));
    let expected = "\
deadlock: 2 threads wait for each other
  Thread-1 waits for the end of Thread-2 at bank.py:50 in transfer
  Thread-2 waits for Lock 'accounts[0]' at bank.py:41 in transfer
    which Thread-1 took at bank.py:39 in transfer
release the lock before waiting for a thread or a task that needs it";
    assert_eq!(named(graph.waiting(1, wait, || true, nobody_asks)), expected);
}

#[test]
fn a_joined_thread_that_has_ended_is_not_waited_for() {
    let graph = Graph::new();
    with(&graph, 1, &lock(0));
    assert!(wants(&graph, 2, lock(0)).is_none());
    graph.stopped_waiting(2);
    graph.thread_ended(2);
    assert!(graph.waiting(1, Wait::join(2, Resource::new(Kind::Join, 7), at(50)), || true, nobody_asks).is_none());
}

struct Pool {
    state: Arc<Mutex<TaskState>>,
}

impl Pool {
    fn new(state: TaskState) -> Self {
        Self { state: Arc::new(Mutex::new(state)) }
    }

    fn wait(&self, id: usize) -> Wait {
        let state = self.state.clone();
        let task: Task = Arc::new(move || state.lock().unwrap().clone());
        Wait::task(task, Resource::new(Kind::Future, id), at(70))
    }
}

#[test]
fn a_pool_whose_every_worker_waits_for_a_queued_task() {
    let graph = Graph::new();
    let queued = |full| Pool::new(TaskState::Queued { workers: vec![1, 2], full });
    // Thread 9 runs, and does not matter: it is no worker.
    let live = only(&[1, 2, 9]);
    assert!(graph.waiting(1, queued(true).wait(11), || true, &live).is_none(), "worker 2 can take it");
    assert!(graph.waiting(2, queued(false).wait(12), || true, &live).is_none(), "the pool can have more workers");
    graph.stopped_waiting(2);
    let text = named(graph.waiting(2, queued(true).wait(12), || true, &live));
    let expected = "\
deadlock: 2 threads wait for each other
  Thread-2 waits for the result of Future at 0xc at bank.py:70 in transfer
    whose task is queued for a pool of 2 workers, which all wait
  Thread-1 waits for the result of Future at 0xb at bank.py:70 in transfer
    whose task is queued for a pool of 2 workers, which all wait
give the pool more workers, or let no task wait for another task of its own pool";
    assert_eq!(text, expected);
}

#[test]
fn a_pool_of_one_that_waits_for_its_own_queue() {
    let graph = Graph::new();
    let queued = Pool::new(TaskState::Queued { workers: vec![1], full: true });
    let text = named(graph.waiting(1, queued.wait(11), || true, only(&[1, 9])));
    assert!(text.starts_with("deadlock: a pool's only worker waits for a task that is queued behind it\n"), "{text}");
}

#[test]
fn a_task_that_needs_a_lock_of_the_thread_that_waits_for_it() {
    let graph = Graph::new();
    with(&graph, 1, &lock(0));
    assert!(wants(&graph, 2, lock(0)).is_none());
    let running = Pool::new(TaskState::Running(2));
    let deadlock = graph.waiting(1, running.wait(11), || true, only(&[1, 2, 3])).expect("only worker 2 ends the task");
    assert_eq!(deadlock.steps()[0].reason, Reason::Running { by: 2 });
    // And the other way about: the worker comes second.
    let graph = Graph::new();
    with(&graph, 1, &lock(0));
    assert!(graph.waiting(1, running.wait(11), || true, only(&[1, 2, 3])).is_none(), "worker 2 runs");
    let second = graph.waiting(2, Wait::new(lock(0), at(41)), || true, only(&[1, 2, 3]));
    assert_eq!(threads(&second.expect("a cycle")), [2, 1]);
}

#[test]
fn a_task_that_waits_for_itself() {
    let running = Pool::new(TaskState::Running(1));
    let text = named(Graph::new().waiting(1, running.wait(11), || true, only(&[1, 2])));
    assert!(text.starts_with("deadlock: a thread waits for itself\n"), "{text}");
    assert!(text.contains("which it computes itself"), "{text}");
}

#[test]
fn a_task_that_is_done_or_anyones_is_not_waited_for() {
    let graph = Graph::new();
    let state = |state| Pool::new(state).wait(11);
    assert!(graph.waiting(1, state(TaskState::Done), || true, only(&[1])).is_none());
    assert!(graph.waiting(1, state(TaskState::Unknown), || true, only(&[1, 2])).is_none());
    assert!(graph.waiting(1, state(TaskState::Unknown), || true, only(&[1])).is_some());
}

#[test]
fn an_answer_is_taken_back_if_a_thread_moved_after_the_question() {
    let graph = Arc::new(Graph::new());
    with(&graph, 2, &lock(0));
    with(&graph, 1, &lock(1));
    assert!(wants(&graph, 1, lock(0)).is_none());
    // While the graph asks, worker 1 ends its wait, and begins another that looks just the same.
    let task: Task = {
        let graph = graph.clone();
        Arc::new(move || {
            graph.released(2, 0);
            graph.acquired(1, &lock(0), &at(41), true);
            graph.released(1, 0);
            with(&graph, 2, &lock(0));
            assert!(wants(&graph, 1, lock(0)).is_none());
            TaskState::Running(1)
        })
    };
    let wait = Wait::task(task, Resource::new(Kind::Future, 3), at(70));
    assert!(graph.waiting(2, wait, || true, only(&[1, 2])).is_none(), "the task may have ended in between");
}

#[test]
fn a_condition_nobody_is_left_to_notify() {
    let graph = Graph::new();
    let condition = || Wait::new(Resource::new(Kind::Condition, 5).named("not_empty"), at(30));
    assert!(graph.waiting(1, condition(), || true, only(&[1, 2])).is_none());
    let text = named(graph.waiting(2, condition(), || true, only(&[1, 2])));
    let expected = "\
deadlock: every thread waits, so none can wake another
  Thread-2 waits for a notification of Condition 'not_empty' at bank.py:30 in transfer
    which no thread is left to end
  Thread-1 waits for a notification of Condition 'not_empty' at bank.py:30 in transfer
    which no thread is left to end
let the thread that wakes the others do so before it waits, or wait with a timeout";
    assert_eq!(text, expected);
}

#[test]
fn a_notified_thread_is_on_its_way_out() {
    let graph = Graph::new();
    let condition = |id| Wait::new(Resource::new(Kind::Condition, id), at(30));
    assert!(graph.waiting(1, condition(5), || true, only(&[1, 2])).is_none());
    graph.signalled(5);
    assert!(graph.waiting(2, condition(6), || true, only(&[1, 2])).is_none());
    // Thread 1 waits again, and this time nobody notified.
    assert!(graph.waiting(1, condition(5), || true, only(&[1, 2])).is_some());
}

#[test]
fn a_look_at_the_primitive_saves_the_wait() {
    let graph = Graph::new();
    let condition = |id| Wait::new(Resource::new(Kind::Condition, id), at(30));
    assert!(graph.waiting(1, condition(5), || false, only(&[1, 2])).is_none());
    assert!(graph.waiting(2, condition(6), || true, only(&[1, 2])).is_none(), "thread 1 did not come to wait");
}

#[test]
fn some_kinds_of_waits_never_fail_but_count_for_others() {
    let graph = Graph::new();
    for kind in [Kind::Event, Kind::Semaphore, Kind::Queue, Kind::Barrier] {
        let wait = Wait::new(Resource::new(kind, 5), at(30));
        assert!(graph.waiting(1, wait, || true, only(&[1])).is_none(), "{kind}");
    }
    let join = Wait::join(1, Resource::new(Kind::Join, 7), at(50));
    let deadlock = graph.waiting(2, join, || true, only(&[1, 2])).expect("all wait");
    assert_eq!(threads(&deadlock), [2, 1]);
}

#[test]
fn a_condition_gives_its_lock_back_and_takes_it_again_as_it_was() {
    let graph = Graph::new();
    with(&graph, 1, &rlock(0));
    with(&graph, 1, &rlock(0));
    let saved = graph.release_save(0).expect("held");
    assert!(graph.release_save(0).is_none());
    with(&graph, 2, &rlock(0));
    assert!(wants(&graph, 1, rlock(0)).is_none());
    graph.released(2, 0);
    graph.acquire_restore(saved, &at(41));
    graph.released(1, 0);
    with(&graph, 2, &rlock(1));
    assert!(wants(&graph, 2, rlock(0)).is_none());
    assert!(wants(&graph, 1, rlock(1)).is_some(), "one of the two holds is left");
}

#[test]
fn a_forgotten_lock_and_a_forked_child_hold_nothing() {
    let graph = Graph::new();
    with(&graph, 1, &lock(0));
    graph.forget(0);
    assert!(wants(&graph, 1, lock(0)).is_none());
    graph.stopped_waiting(1);
    with(&graph, 1, &lock(0));
    graph.wanted(1, &lock(1), &at(40));
    with(&graph, 1, &lock(1));
    graph.after_fork_in_child();
    with(&graph, 1, &lock(1));
    assert!(graph.wanted(1, &lock(0), &at(40)).is_none(), "the opposite order was forgotten");
    graph.released(1, 1);
    assert!(wants(&graph, 1, lock(0)).is_none());
    graph.stopped_waiting(1);
    with(&graph, 1, &lock(0));
    assert!(wants(&graph, 1, lock(0)).is_some());
}

#[test]
fn a_long_ring_is_drawn_in_part() {
    let graph = Graph::new();
    for thread in 0..20 {
        with(&graph, thread, &lock(thread as usize));
    }
    for thread in 0..19 {
        assert!(wants(&graph, thread, lock(thread as usize + 1)).is_none());
    }
    let deadlock = wants(&graph, 19, lock(0)).expect("a ring");
    assert_eq!(deadlock.steps().len(), 20);
    assert!(deadlock.to_string().contains("\n  and so on, for 8 more threads\n"), "{deadlock}");
}
