//! Random schedules against the truth, which a search through everything that could still happen knows.
//!
//! A small world of threads and primitives runs a random schedule and reports to the graph what the binding would, with
//! the reports as late as they may be: a thread that a release or a signal woke still counts as waiting until its next
//! turn. Whenever a thread comes to wait, the search tries every legal future of the world in which running threads do
//! whatever they like. A thread told of a deadlock must go on in none of them, and a thread that goes on in none of
//! them must be told.

use std::cell::RefCell;
use std::collections::HashSet;

use juggler_trace::{Graph, Kind, Live, Resource, Site, Step, ThreadId, Wait};
use proptest::prelude::*;

const THREADS: usize = 4;
const LOCKS: usize = 3;

/// How the locks of a world are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// By `with` statements, so that only their holders release them.
    Scoped,
    /// By RLocks.
    Reentrant,
    /// By bare `acquire()`, so that any thread may release them; and there is a condition, which anyone may notify.
    Anyones,
    /// By `with` statements or bare `acquire()`, as each thread likes; and the condition.
    Mixed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum State {
    Runs,
    WantsLock {
        lock: usize,
        bare: bool,
        timed: bool,
    },
    Joins(usize),
    OnCondition,
    /// Woken from the condition, but it has not said so.
    Notified,
    Ended,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    threads: [State; THREADS],
    /// Holder, depth, and whether any thread may release it.
    locks: [Option<(usize, usize, bool)>; LOCKS],
}

#[derive(Clone, Debug)]
enum Action {
    Take { lock: usize, bare: bool, timed: bool },
    Release { lock: usize },
    Join { other: usize },
    AwaitNotification,
    Notify,
    End,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        6 => (0..LOCKS, any::<bool>(), prop::bool::weighted(0.15))
            .prop_map(|(lock, bare, timed)| Action::Take { lock, bare, timed }),
        4 => (0..LOCKS).prop_map(|lock| Action::Release { lock }),
        1 => (0..THREADS).prop_map(|other| Action::Join { other }),
        1 => Just(Action::AwaitNotification),
        1 => Just(Action::Notify),
        1 => Just(Action::End),
    ]
}

fn kind(style: Style) -> Kind {
    if style == Style::Reentrant { Kind::RLock } else { Kind::Lock }
}

impl World {
    fn new() -> Self {
        Self { threads: [State::Runs; THREADS], locks: [None; LOCKS] }
    }

    fn may_release(&self, thread: usize, lock: usize) -> bool {
        self.locks[lock].is_some_and(|(holder, _, anyone)| anyone || holder == thread)
    }

    /// Whether a `with` statement of the thread holds the lock: it lets go at the thread's end.
    fn is_scoped(&self, style: Style, thread: usize, lock: usize) -> bool {
        style != Style::Reentrant && self.locks[lock].is_some_and(|(holder, _, anyone)| holder == thread && !anyone)
    }

    /// Every world that one step can lead to.
    fn next(&self, style: Style) -> Vec<World> {
        let mut worlds = Vec::new();
        for thread in 0..THREADS {
            let mut step = |change: &dyn Fn(&mut World)| {
                let mut world = self.clone();
                change(&mut world);
                worlds.push(world);
            };
            match self.threads[thread] {
                State::Runs => {
                    for lock in (0..LOCKS).filter(|&lock| self.may_release(thread, lock)) {
                        step(&|world| world.locks[lock] = None);
                    }
                    if !(0..LOCKS).any(|lock| self.is_scoped(style, thread, lock)) {
                        step(&|world| world.threads[thread] = State::Ended);
                    }
                    step(&|world| world.notify());
                }
                State::WantsLock { lock, timed, .. } => {
                    let mine = kind(style) == Kind::RLock && self.locks[lock].is_some_and(|(by, ..)| by == thread);
                    if self.locks[lock].is_none() || mine || timed {
                        step(&|world| world.threads[thread] = State::Runs);
                    }
                }
                State::Joins(other) if self.threads[other] == State::Ended => {
                    step(&|world| world.threads[thread] = State::Runs);
                }
                State::Notified => step(&|world| world.threads[thread] = State::Runs),
                State::Joins(_) | State::OnCondition | State::Ended => {}
            }
        }
        worlds
    }

    fn notify(&mut self) {
        for state in &mut self.threads {
            if *state == State::OnCondition {
                *state = State::Notified;
            }
        }
    }

    /// The threads that run in some future.
    fn can_go_on(&self, style: Style) -> [bool; THREADS] {
        let mut can = [false; THREADS];
        let mut seen = HashSet::from([self.clone()]);
        let mut worlds = vec![self.clone()];
        while let Some(world) = worlds.pop() {
            for (can, state) in can.iter_mut().zip(world.threads) {
                *can |= state == State::Runs;
            }
            worlds.extend(world.next(style).into_iter().filter(|next| seen.insert(next.clone())));
        }
        can
    }
}

/// A world that reports to a graph.
struct Reporter {
    style: Style,
    graph: Graph,
    world: World,
    told: usize,
}

fn site(thread: usize) -> Site {
    Site::new("model.py", thread as u32, "run")
}

impl Reporter {
    fn lock(&self, lock: usize) -> Resource {
        Resource::new(kind(self.style), lock)
    }

    /// Lets `thread` take its turn: what it does if it runs, otherwise whether its wait is over.
    fn turn(&mut self, thread: usize, action: &Action) -> Result<(), TestCaseError> {
        let id = thread as ThreadId;
        match self.world.threads[thread] {
            State::Runs => return self.act(thread, action),
            State::WantsLock { timed: true, .. } if matches!(action, Action::Release { .. }) => {
                self.graph.stopped_waiting(id);
                self.world.threads[thread] = State::Runs;
            }
            State::WantsLock { lock, bare, .. } if self.world.locks[lock].is_none() => {
                self.world.threads[thread] = State::Runs;
                self.take(thread, lock, bare);
            }
            State::Joins(other) if self.world.threads[other] == State::Ended => {
                self.graph.stopped_waiting(id);
                self.world.threads[thread] = State::Runs;
            }
            State::Notified => {
                self.graph.stopped_waiting(id);
                self.world.threads[thread] = State::Runs;
            }
            _ => {}
        }
        Ok(())
    }

    fn take(&mut self, thread: usize, lock: usize, bare: bool) {
        let depth = self.world.locks[lock].map_or(0, |(_, depth, _)| depth);
        let anyone = bare && self.style != Style::Reentrant;
        self.world.locks[lock] = Some((thread, depth + 1, anyone));
        self.graph.acquired(thread as ThreadId, &self.lock(lock), &site(thread), !bare);
    }

    fn release(&mut self, thread: usize, lock: usize) {
        self.graph.released(thread as ThreadId, lock);
        self.world.locks[lock] = match self.world.locks[lock] {
            Some((holder, depth, anyone)) if depth > 1 => Some((holder, depth - 1, anyone)),
            _ => None,
        };
    }

    fn act(&mut self, thread: usize, action: &Action) -> Result<(), TestCaseError> {
        let signals = matches!(self.style, Style::Anyones | Style::Mixed);
        match *action {
            Action::Take { lock, bare, timed } => {
                let bare = match self.style {
                    Style::Scoped => false,
                    Style::Reentrant | Style::Mixed => bare,
                    Style::Anyones => true,
                };
                let mine = self.world.locks[lock].is_some_and(|(holder, ..)| holder == thread);
                if self.world.locks[lock].is_none() || (mine && self.style == Style::Reentrant) {
                    self.take(thread, lock, bare);
                    return Ok(());
                }
                let wait = Wait { timed, ..Wait::new(self.lock(lock), site(thread)) };
                self.wait(thread, State::WantsLock { lock, bare, timed }, wait)
            }
            Action::Release { lock } => {
                if self.world.may_release(thread, lock) {
                    self.release(thread, lock);
                }
                Ok(())
            }
            Action::Join { other } if self.world.threads[other] != State::Ended && other != thread => {
                let wait = Wait::join(other as ThreadId, Resource::new(Kind::Join, 100 + other), site(thread));
                self.wait(thread, State::Joins(other), wait)
            }
            Action::AwaitNotification if signals => {
                let wait = Wait::new(Resource::new(Kind::Condition, 200), site(thread));
                self.wait(thread, State::OnCondition, wait)
            }
            Action::Notify if signals => {
                self.world.notify();
                self.graph.signalled(200);
                Ok(())
            }
            Action::End => {
                for lock in 0..LOCKS {
                    if self.world.is_scoped(self.style, thread, lock) {
                        self.release(thread, lock);
                    }
                }
                self.world.threads[thread] = State::Ended;
                self.graph.thread_ended(thread as ThreadId);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn wait(&mut self, thread: usize, state: State, wait: Wait) -> Result<(), TestCaseError> {
        let timed = wait.timed;
        self.world.threads[thread] = state;
        let asked = RefCell::new(0);
        let live = || {
            *asked.borrow_mut() += 1;
            let lives = |&thread: &usize| self.world.threads[thread] != State::Ended;
            let threads = (0..THREADS).filter(lives).map(|thread| thread as ThreadId).collect();
            Live { threads, outside: false }
        };
        let deadlock = self.graph.waiting(thread as ThreadId, wait, || true, live);
        let can = self.world.can_go_on(self.style);
        let owned = matches!(self.style, Style::Scoped | Style::Reentrant);
        prop_assert!(!owned || *asked.borrow() == 0, "owned locks alone tell a deadlock");
        let Some(deadlock) = deadlock else {
            prop_assert!(can[thread] || timed, "missed: {:?}", self.world);
            return Ok(());
        };
        for &Step { thread, .. } in deadlock.steps() {
            prop_assert!(!can[thread as usize], "{} can go on in {:?}\n{}", thread, self.world, deadlock);
        }
        self.told += 1;
        // The error unwinds the thread's `with` blocks.
        self.world.threads[thread] = State::Runs;
        for lock in 0..LOCKS {
            while self.world.locks[lock].is_some_and(|(holder, ..)| holder == thread) {
                self.release(thread, lock);
            }
        }
        Ok(())
    }
}

fn check(style: Style, known: &[ThreadId], schedule: &[(usize, Action)]) -> Result<usize, TestCaseError> {
    let mut reporter = Reporter { style, graph: Graph::new(), world: World::new(), told: 0 };
    for &thread in known {
        reporter.graph.thread_began(thread);
    }
    for (thread, action) in schedule {
        reporter.turn(*thread, action)?;
    }
    Ok(reporter.told)
}

/// Runs random schedules, and fails as well if too few of them came to a deadlock to prove anything.
fn check_many(style: Style) {
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1500) };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let told = RefCell::new(0);
    let known = prop::sample::subsequence(Vec::from_iter(0..THREADS as ThreadId), 0..=THREADS);
    let schedule = prop::collection::vec((0..THREADS, action()), 1..60);
    let result = runner.run(&(known, schedule), |(known, schedule)| {
        *told.borrow_mut() += check(style, &known, &schedule)?;
        Ok(())
    });
    if let Err(failure) = result {
        panic!("{style:?}: {failure}");
    }
    assert!(*told.borrow() > 50, "{style:?}: only {} deadlocks", told.borrow());
}

#[test]
fn scoped_locks() {
    check_many(Style::Scoped);
}

#[test]
fn reentrant_locks() {
    check_many(Style::Reentrant);
}

#[test]
fn locks_and_conditions_that_anyone_may_signal() {
    check_many(Style::Anyones);
}

#[test]
fn locks_taken_either_way() {
    check_many(Style::Mixed);
}
