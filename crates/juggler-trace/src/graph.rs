//! Who holds what, who waits for what, and whether a wait can ever end.
//!
//! # The rule
//! A thread is *stuck* if it waits without a timeout, and every thread that could end its wait is stuck as well. The
//! stuck threads are the greatest such set: start from all that wait, and take out, again and again, each that a thread
//! outside the set could wake. Who could end a wait:
//!
//! | the wait is for | it ends through |
//! |---|---|
//! | an RLock; a Lock that a `with` statement took | its holder; for an RLock whose holder has ended, nobody |
//! | a Lock taken by a bare `acquire()` | any thread |
//! | the end of a thread | that thread |
//! | the result of a task that runs | the worker that runs it |
//! | the result of a task that is queued | any worker of the pool |
//! | anything else | any thread |
//!
//! # When the answer is taken
//! A false alarm breaks a correct program, so whatever is in doubt counts as moving:
//! - A wait counts only once its thread has *looked again* after the graph knew of it (`blocked` in
//!   [`Graph::waiting`]). Whoever wakes a waiter first changes the primitive and then calls [`Graph::signalled`]:
//!   either the look sees the change, or the signal sees the wait (two fences, the scheme of Dekker's algorithm).
//! - A lock's holder is recorded after it has the lock, and struck out before it lets go: a recorded holder really
//!   holds, and a lock that changes hands has none, which counts as moving.
//! - What the graph can't know, it asks with its mutex released: which worker runs a task, which threads there are. An
//!   answer counts only for threads whose waits had begun before the question and are still the same.
//! - Which threads there are is asked only when all that the graph knows of are stuck: as long as one is not, any wait that
//!   any thread could end may end, whoever else there is. That makes the wait of a program that gets on a cheap one.
//! - Of several threads that come to wait at once, the one judged last sees all others, and it alone is told.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering, fence};

use crate::deadlock::{Deadlock, Reason, Step};
use crate::forkable::Forkable;
use crate::hashing::{IdMap, IdSet};
use crate::order::{Inversion, LockOrder};
use crate::site::{Kind, Resource, ResourceId, Site, ThreadId};

/// How often a verdict is put off because more threads came to wait meanwhile; then the wait counts as harmless.
const ROUNDS: usize = 4;

/// Where the task of a future is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskState {
    /// It has a result, an exception, or was cancelled.
    Done,
    /// This worker runs it, and nobody else will finish it.
    Running(ThreadId),
    /// It waits for a worker.
    Queued {
        /// The pool's workers.
        workers: Vec<ThreadId>,
        /// Whether the pool has as many workers as it may have.
        full: bool,
    },
    /// Any thread may finish it: a future that belongs to no pool.
    Unknown,
}

/// Tells where a task is. Called without any lock of this crate, from any thread, while the future's waiter waits.
pub type Task = Arc<dyn Fn() -> TaskState + Send + Sync>;

/// Who can end a wait.
#[derive(Clone)]
pub enum Ender {
    /// The lock's holder, if only it may release it; see the [module](self).
    Holder,
    /// The end of this thread.
    Thread(ThreadId),
    /// Whoever the task's state names.
    Task(Task),
    /// Any thread.
    Anyone,
}

impl fmt::Debug for Ender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Holder => f.write_str("Holder"),
            Self::Thread(thread) => write!(f, "Thread({thread})"),
            Self::Task(_) => f.write_str("Task"),
            Self::Anyone => f.write_str("Anyone"),
        }
    }
}

/// A wait that is about to begin.
#[derive(Clone, Debug)]
pub struct Wait {
    /// What is waited for.
    pub resource: Resource,
    /// Where.
    pub site: Site,
    /// Who can end it.
    pub ender: Ender,
    /// Whether it ends by itself after a time. Such a wait is never part of a deadlock.
    pub timed: bool,
    /// Whether the caller can turn a deadlock into an error. False where an error would break something that the
    /// program relies on, as when a condition takes its lock back: then the wait is recorded, and never reported.
    pub may_fail: bool,
}

impl Wait {
    /// An untimed wait: for a lock's holder if it is a [`Lock`](Kind::Lock) or an [`RLock`](Kind::RLock), otherwise for
    /// any thread. It may fail if a deadlock of this kind is an error: for locks, conditions, joins and futures.
    /// (Events, semaphores, queues and barriers are often waited for by threads that have nothing else to do, until the
    /// process ends.)
    pub fn new(resource: Resource, site: Site) -> Self {
        let ender = match resource.kind {
            Kind::Lock | Kind::RLock => Ender::Holder,
            _ => Ender::Anyone,
        };
        let may_fail = !matches!(resource.kind, Kind::Event | Kind::Semaphore | Kind::Queue | Kind::Barrier);
        Self { resource, site, ender, timed: false, may_fail }
    }

    /// An untimed wait for the end of `thread`.
    pub fn join(thread: ThreadId, resource: Resource, site: Site) -> Self {
        Self { ender: Ender::Thread(thread), ..Self::new(resource, site) }
    }

    /// An untimed wait for the result of `task`.
    pub fn task(task: Task, resource: Resource, site: Site) -> Self {
        Self { ender: Ender::Task(task), ..Self::new(resource, site) }
    }
}

/// Which threads there are, at a time when some might be needed to end a wait.
#[derive(Clone, Debug)]
pub struct Live {
    /// Every thread that exists, those being started included. (Workers that are parked for want of a task may be left
    /// out if their pool's queue is empty: they move only when another thread does.)
    pub threads: Vec<ThreadId>,
    /// Whether code may run outside these threads: a signal handler written in Python, or a thread of the system that
    /// can call in. Then no wait that any thread could end is ever stuck.
    pub outside: bool,
}

/// A lock that is held.
#[derive(Clone, Debug)]
pub struct Hold {
    resource: Resource,
    thread: ThreadId,
    site: Site,
    scoped: bool,
    depth: usize,
    ended: bool,
}

impl Hold {
    fn may_release(&self) -> Ends<'_> {
        match self.resource.kind {
            Kind::RLock if self.ended => Ends::Never,
            Kind::RLock => Ends::Only(self.thread),
            // A `with` block ends before its thread does, unless it is in a generator: which any thread may close.
            _ if self.scoped && !self.ended => Ends::Only(self.thread),
            _ => Ends::Anyone,
        }
    }
}

/// The wait-for graph of a process; see the [module](self).
#[derive(Debug, Default)]
pub struct Graph {
    state: Forkable<State>,
    /// How many waits there are; lets [`Graph::signalled`] return at once if there are none.
    waits: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    /// In which order locks are taken; here because it is to be told of the same things at the same times.
    order: LockOrder,
    /// The threads that said that they began, and did not end.
    threads: IdSet<ThreadId>,
    holds: IdMap<ResourceId, Hold>,
    waits: IdMap<ThreadId, Waiting>,
    /// How many of the waits are [`Phase::Parked`].
    parked: usize,
    /// The number of the latest wait: tells a thread's wait from an earlier one for the same thing.
    latest: u64,
}

#[derive(Debug)]
struct Waiting {
    wait: Wait,
    number: u64,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Not judged yet: counts as moving for everyone but the thread itself.
    Entering,
    /// Judged: it waits.
    Parked,
    /// What it waits for has changed since: it may be on its way out.
    Signalled,
}

/// Who, of the threads, can end a certain wait.
#[derive(Clone, Copy, Debug)]
enum Ends<'a> {
    Now,
    Only(ThreadId),
    AnyOf(&'a [ThreadId]),
    Anyone,
    Never,
}

/// What the graph assumes of waits that it can't judge alone: those for tasks, and those that any thread can end.
#[derive(Clone, Copy)]
enum Beyond<'a> {
    TheyMove,
    /// Unless it knows of a thread that is not.
    TheyAreStuck,
    Known(&'a Answers),
}

struct Answers {
    /// The waits that had begun before the questions were asked.
    asked: IdMap<ThreadId, u64>,
    tasks: IdMap<ThreadId, TaskState>,
    /// Nothing if the question was needless: no wait depended on it, or a thread was known that might run.
    live: Option<Live>,
}

struct Questions {
    about: IdMap<ThreadId, u64>,
    tasks: Vec<(ThreadId, Task)>,
    /// Whether any thread could end one of the waits.
    anyone: bool,
    somebody_runs: bool,
}

impl Questions {
    fn ask(self, live: &impl Fn() -> Live) -> Answers {
        let tasks: IdMap<_, _> = self.tasks.into_iter().map(|(thread, task)| (thread, task())).collect();
        let anyone = self.anyone || tasks.values().any(|state| *state == TaskState::Unknown);
        let live = (anyone && !self.somebody_runs).then(live);
        Answers { asked: self.about, tasks, live }
    }
}

enum Verdict {
    GoesOn,
    Stuck(Deadlock),
    Unsure(Questions),
}

type Stuck<'a> = BTreeMap<ThreadId, Ends<'a>>;

impl Graph {
    /// Nobody holds anything, nobody waits.
    pub fn new() -> Self {
        Self::default()
    }

    /// `thread` runs, and will tell when it ends ([`Graph::thread_ended`]). Optional, and at any time: the more threads are
    /// known, the more rarely the graph has to ask which there are.
    pub fn thread_began(&self, thread: ThreadId) {
        self.state.lock().threads.insert(thread);
    }

    /// `thread` is about to take `lock` at `site`, waiting for it as long as it takes; a contradiction of
    /// [orders](crate::order), the first time. Needless for a thread that holds nothing.
    pub fn wanted(&self, thread: ThreadId, lock: &Resource, site: &Site) -> Option<Inversion> {
        self.state.lock().order.wanted(thread, lock, site)
    }

    /// `thread` took `resource`, a [`Lock`](Kind::Lock) or an [`RLock`](Kind::RLock), at `site`: in a `with` statement
    /// of its own frame (`scoped`), or otherwise. To be called after it was taken. Ends the thread's wait. Returns
    /// how many locks the thread holds now.
    pub fn acquired(&self, thread: ThreadId, resource: &Resource, site: &Site, scoped: bool) -> usize {
        let state = &mut *self.state.lock();
        self.end_wait(state, thread);
        state.order.acquired(thread, resource, site, false);
        match state.holds.get_mut(&resource.id) {
            Some(hold) if hold.thread == thread && resource.kind == Kind::RLock => hold.depth += 1,
            _ => {
                let (resource, site) = (resource.clone(), *site);
                state.holds.insert(resource.id, Hold { resource, thread, site, scoped, depth: 1, ended: false });
            }
        }
        state.order.held(thread)
    }

    /// `thread` is about to release `resource`: once, if it took an RLock several times. To be called before it does.
    /// Returns how many locks it holds then.
    pub fn released(&self, thread: ThreadId, resource: ResourceId) -> usize {
        let state = &mut *self.state.lock();
        state.order.released(thread, resource);
        match state.holds.get_mut(&resource) {
            Some(hold) if hold.thread == thread && hold.depth > 1 => hold.depth -= 1,
            // Whoever it was recorded for.
            _ => drop(state.holds.remove(&resource)),
        }
        state.order.held(thread)
    }

    /// A condition is about to release its lock altogether, to wait; give the result to [`Graph::acquire_restore`].
    pub fn release_save(&self, resource: ResourceId) -> Option<Hold> {
        let state = &mut *self.state.lock();
        let hold = state.holds.remove(&resource)?;
        state.order.release_save(hold.thread, resource);
        Some(hold)
    }

    /// A condition has its lock back, as `hold` had it, having waited for it at `site`. Ends the thread's wait.
    pub fn acquire_restore(&self, hold: Hold, site: &Site) {
        let state = &mut *self.state.lock();
        self.end_wait(state, hold.thread);
        // A contradiction was told when the locks were first taken, or will be when they are next.
        state.order.acquire_restore(hold.thread, &hold.resource, site, hold.depth);
        state.holds.insert(hold.resource.id, hold);
    }

    /// `thread` is about to wait; a deadlock if it would wait for ever, in which case it must not wait, and no
    /// [`Graph::stopped_waiting`] is due.
    ///
    /// `blocked` looks at the primitive once more: whether the wait is still needed. `live` tells which threads there
    /// are; it is called rarely, more than once at times. Both run without any lock of this crate.
    ///
    /// A thread that runs a signal handler while it waits reports [`Graph::stopped_waiting`] before it, and waits anew
    /// after it.
    pub fn waiting(
        &self,
        thread: ThreadId,
        wait: Wait,
        blocked: impl FnOnce() -> bool,
        live: impl Fn() -> Live,
    ) -> Option<Deadlock> {
        if wait.timed {
            return None;
        }
        let number = self.enter(thread, wait);
        // Partner: the fence in `signalled`. Either that reads our wait, or `blocked` reads the change before it.
        fence(Ordering::SeqCst);
        if !blocked() {
            return None;
        }
        let mut answers = None;
        for _ in 0..=ROUNDS {
            let mut state = self.state.lock();
            match state.judge(thread, number, answers.as_ref()) {
                Verdict::GoesOn => {
                    state.park(thread, number);
                    return None;
                }
                Verdict::Stuck(deadlock) => {
                    self.end_wait(&mut state, thread);
                    return Some(deadlock);
                }
                Verdict::Unsure(questions) => {
                    drop(state);
                    answers = Some(questions.ask(&live));
                }
            }
        }
        self.state.lock().park(thread, number);
        None
    }

    /// `thread` waits no more, whatever the reason. To be called before it does anything that others may wait for.
    pub fn stopped_waiting(&self, thread: ThreadId) {
        self.end_wait(&mut self.state.lock(), thread);
    }

    /// Something that threads wait for in `resource` has happened: an event was set, a condition notified, an item put
    /// or taken, a permit or a shared lock released, a barrier passed or broken. To be called by the thread that did
    /// it, after it. Not needed for locks, joins and futures.
    pub fn signalled(&self, resource: ResourceId) {
        // Partner: the fence in `waiting`.
        fence(Ordering::SeqCst);
        if self.waits.load(Ordering::Relaxed) == 0 {
            return;
        }
        let state = &mut *self.state.lock();
        for waiting in state.waits.values_mut().filter(|waiting| waiting.wait.resource.id == resource) {
            state.parked -= usize::from(waiting.phase == Phase::Parked);
            waiting.phase = Phase::Signalled;
        }
    }

    /// `thread` runs no more. To be called last of all, after anything that may release a lock.
    pub fn thread_ended(&self, thread: ThreadId) {
        let state = &mut *self.state.lock();
        state.threads.remove(&thread);
        state.order.thread_ended(thread);
        self.end_wait(state, thread);
        for hold in state.holds.values_mut().filter(|hold| hold.thread == thread) {
            hold.ended = true;
        }
    }

    /// `resource` is gone, or was reset: nobody holds it, and its address may come to mean another.
    pub fn forget(&self, resource: ResourceId) {
        let state = &mut *self.state.lock();
        state.holds.remove(&resource);
        state.order.forget(resource);
    }

    /// Forgets everything; only for a forked child, before it starts a thread. Locks that the child's thread holds are
    /// forgotten too, so a deadlock over those goes unseen.
    pub fn after_fork_in_child(&self) {
        self.state.start_afresh();
        self.waits.store(0, Ordering::Relaxed);
    }

    fn enter(&self, thread: ThreadId, wait: Wait) -> u64 {
        let mut state = self.state.lock();
        self.end_wait(&mut state, thread);
        state.latest += 1;
        let number = state.latest;
        state.waits.insert(thread, Waiting { wait, number, phase: Phase::Entering });
        self.waits.store(state.waits.len(), Ordering::Relaxed);
        number
    }

    fn end_wait(&self, state: &mut State, thread: ThreadId) {
        if let Some(waiting) = state.waits.remove(&thread) {
            state.parked -= usize::from(waiting.phase == Phase::Parked);
            self.waits.store(state.waits.len(), Ordering::Relaxed);
        }
    }
}

impl State {
    fn park(&mut self, thread: ThreadId, number: u64) {
        match self.waits.get_mut(&thread) {
            Some(waiting) if waiting.number == number && waiting.phase == Phase::Entering => {
                waiting.phase = Phase::Parked;
                self.parked += 1;
            }
            _ => {}
        }
    }

    /// Whether `me`'s wait, of that number, can end.
    fn judge(&self, me: ThreadId, number: u64, answers: Option<&Answers>) -> Verdict {
        let Some(mine) = self.waits.get(&me) else { return Verdict::GoesOn };
        if mine.number != number || mine.phase == Phase::Signalled || !mine.wait.may_fail {
            return Verdict::GoesOn;
        }
        // By far the most frequent cases, so they are told without a look at everyone: the holder runs, or somebody does.
        match self.ends(me, mine, Beyond::TheyAreStuck) {
            Ends::Now => return Verdict::GoesOn,
            Ends::Only(thread) if !self.waits.contains_key(&thread) => return Verdict::GoesOn,
            Ends::Anyone if self.threads.len() > self.parked + usize::from(self.threads.contains(&me)) => {
                return Verdict::GoesOn;
            }
            _ => {}
        }
        let certainly = self.stuck(me, Beyond::TheyMove);
        if certainly.contains_key(&me) {
            return Verdict::Stuck(self.describe(me, &certainly));
        }
        let at_worst = self.stuck(me, Beyond::TheyAreStuck);
        if !at_worst.contains_key(&me) {
            return Verdict::GoesOn;
        }
        if let Some(answers) = answers {
            let stuck = self.stuck(me, Beyond::Known(answers));
            if stuck.contains_key(&me) {
                return Verdict::Stuck(self.describe(me, &stuck));
            }
            if at_worst.keys().all(|thread| answers.asked.get(thread) == Some(&self.waits[thread].number)) {
                return Verdict::GoesOn;
            }
        }
        let mut questions = Questions {
            about: IdMap::default(),
            tasks: Vec::new(),
            anyone: at_worst.values().any(|ends| matches!(ends, Ends::Anyone)),
            somebody_runs: self.somebody_runs(&at_worst),
        };
        for &thread in at_worst.keys() {
            let waiting = &self.waits[&thread];
            questions.about.insert(thread, waiting.number);
            if let Ender::Task(task) = &waiting.wait.ender {
                questions.tasks.push((thread, task.clone()));
            }
        }
        Verdict::Unsure(questions)
    }

    /// Whether a thread is known that is not among `stuck`.
    fn somebody_runs(&self, stuck: &Stuck) -> bool {
        self.threads.iter().any(|thread| !stuck.contains_key(thread))
    }

    /// The threads that can never go on, on that assumption; `me` counts as one that waits.
    fn stuck<'a>(&'a self, me: ThreadId, beyond: Beyond<'a>) -> Stuck<'a> {
        let counts = |thread, waiting: &Waiting| {
            (waiting.phase == Phase::Parked || thread == me)
                && match beyond {
                    Beyond::Known(answers) => answers.asked.get(&thread) == Some(&waiting.number),
                    Beyond::TheyMove | Beyond::TheyAreStuck => true,
                }
        };
        let mut stuck: Stuck = self
            .waits
            .iter()
            .filter(|&(&thread, waiting)| counts(thread, waiting))
            .map(|(&thread, waiting)| (thread, self.ends(thread, waiting, beyond)))
            .collect();
        loop {
            let somebody_runs = match beyond {
                Beyond::TheyMove => true,
                Beyond::TheyAreStuck => self.somebody_runs(&stuck),
                Beyond::Known(Answers { live, .. }) => live
                    .as_ref()
                    .is_none_or(|live| live.outside || !live.threads.iter().all(|thread| stuck.contains_key(thread))),
            };
            let moves = |ends: &Ends| match *ends {
                Ends::Now => true,
                Ends::Only(thread) => !stuck.contains_key(&thread),
                Ends::AnyOf(threads) => !threads.iter().all(|thread| stuck.contains_key(thread)),
                Ends::Never => false,
                Ends::Anyone => somebody_runs,
            };
            let moving: Vec<ThreadId> =
                stuck.iter().filter(|(_, ends)| moves(ends)).map(|(&thread, _)| thread).collect();
            if moving.is_empty() {
                return stuck;
            }
            for thread in moving {
                stuck.remove(&thread);
            }
        }
    }

    fn ends<'a>(&'a self, thread: ThreadId, waiting: &'a Waiting, beyond: Beyond<'a>) -> Ends<'a> {
        match &waiting.wait.ender {
            Ender::Holder => self.holds.get(&waiting.wait.resource.id).map_or(Ends::Now, Hold::may_release),
            Ender::Thread(other) => Ends::Only(*other),
            Ender::Anyone => Ends::Anyone,
            Ender::Task(_) => match beyond {
                Beyond::TheyMove => Ends::Now,
                Beyond::TheyAreStuck => Ends::Never,
                Beyond::Known(answers) => match answers.tasks.get(&thread) {
                    None | Some(TaskState::Done | TaskState::Queued { full: false, .. }) => Ends::Now,
                    Some(TaskState::Running(worker)) => Ends::Only(*worker),
                    Some(TaskState::Queued { workers, full: true }) if workers.is_empty() => Ends::Now,
                    Some(TaskState::Queued { workers, full: true }) => Ends::AnyOf(workers),
                    Some(TaskState::Unknown) => Ends::Anyone,
                },
            },
        }
    }

    /// The way from `me` along those who could end each wait, until it comes back to a thread or ends.
    fn describe(&self, me: ThreadId, stuck: &Stuck) -> Deadlock {
        let mut steps: Vec<Step> = Vec::new();
        let mut next = Some(me);
        let mut repeats = None;
        while let Some(thread) = next {
            repeats = steps.iter().position(|step| step.thread == thread);
            if repeats.is_some() {
                break;
            }
            let wait = &self.waits[&thread].wait;
            // The last place is the one that `thread` is about to get.
            let place = |other: &ThreadId| match steps.iter().position(|step| step.thread == *other) {
                None if *other == thread => Some(steps.len()),
                place => place,
            };
            let seen = |other: &ThreadId| place(other).is_some();
            let hold = match wait.ender {
                Ender::Holder => self.holds.get(&wait.resource.id),
                _ => None,
            };
            let anyone = matches!(stuck[&thread], Ends::Anyone);
            next = match stuck[&thread] {
                Ends::Only(other) => Some(other),
                Ends::AnyOf(threads) => threads
                    .iter()
                    .find(|other| !seen(other))
                    .or_else(|| threads.iter().min_by_key(|other| place(other)))
                    .copied(),
                // Any thread will do: the holder if there is one, otherwise whoever was not shown yet.
                Ends::Anyone => hold
                    .map(|hold| hold.thread)
                    .filter(|holder| stuck.contains_key(holder) && !seen(holder))
                    .or_else(|| stuck.keys().find(|other| !seen(other)).copied()),
                Ends::Now | Ends::Never => None,
            };
            let reason = match (&wait.ender, hold, stuck[&thread]) {
                (_, Some(hold), _) => Reason::Held { by: hold.thread, at: hold.site, ended: hold.ended, anyone },
                (Ender::Thread(other), ..) => Reason::Joined { thread: *other },
                (_, _, Ends::Only(worker)) => Reason::Running { by: worker },
                (_, _, Ends::AnyOf(workers)) => Reason::Queued { workers: workers.len() },
                _ => Reason::Nobody,
            };
            steps.push(Step { thread, resource: wait.resource.clone(), site: wait.site, reason, stack: Vec::new() });
        }
        Deadlock::new(steps, repeats)
    }
}
