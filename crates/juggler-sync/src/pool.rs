//! The scheduler of a thread pool: which task runs next, which worker sleeps, when another worker is needed.
//!
//! One [`Guarded`] state holds the tasks, first in first out, and the idle workers, last in first out (the one that worked
//! last has the warmest caches). At most one worker is being woken at a time; when it runs it wakes the next if there is
//! more to do. A burst of submissions thus costs one wake-up, not one each, and under a GIL the woken don't queue up at it.
//!
//! The threads themselves belong to the caller: [`Scheduler::submit`] says when one is wanted, and each calls
//! [`Scheduler::next`] until that returns `None`.

use crate::deadline::Deadline;
use crate::guarded::Guarded;
use crate::park::{Gate, Waiter, wake_all};
use crate::sync::Arc;
use std::collections::VecDeque;

#[derive(Debug)]
struct State<T> {
    tasks: VecDeque<T>,
    idle: Vec<Arc<Waiter>>,
    workers: usize,
    /// A worker was notified and has not yet come for a task.
    waking: bool,
    closed: bool,
    deepest: usize,
    max_workers: usize,
}

impl<T> State<T> {
    /// Chooses an idle worker to wake, unless one is on its way.
    fn summon(&mut self) -> Option<Arc<Waiter>> {
        if self.waking {
            return None;
        }
        while let Some(waiter) = self.idle.pop() {
            if waiter.notify() {
                self.waking = true;
                return Some(waiter);
            }
        }
        None
    }
}

/// What became of a submitted task.
#[derive(Debug)]
pub enum Submitted {
    /// It is queued, and an idle worker was woken if there was one.
    Queued(Option<Arc<Waiter>>),
    /// It is queued, and the caller starts another worker, which is counted already.
    StartWorker,
}

/// A snapshot of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolStatistics {
    /// Tasks that wait for a worker.
    pub queued: usize,
    /// The most that ever waited.
    pub deepest: usize,
    /// Worker threads.
    pub workers: usize,
    /// Those of them that wait for a task.
    pub idle: usize,
}

/// A scheduler for tasks of type `T`; see the [module](self).
#[derive(Debug)]
pub struct Scheduler<T> {
    state: Guarded<State<T>>,
}

impl<T> Scheduler<T> {
    /// A scheduler that asks for up to `max_workers` threads.
    pub fn new(max_workers: usize) -> Self {
        Self {
            state: Guarded::new(State {
                tasks: VecDeque::new(),
                idle: Vec::new(),
                workers: 0,
                waking: false,
                closed: false,
                deepest: 0,
                max_workers,
            }),
        }
    }

    /// Queues `task`.
    ///
    /// # Errors
    /// The task, if the scheduler is closed.
    #[inline]
    pub fn submit(&self, task: T) -> Result<Submitted, T> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(task);
        }
        state.tasks.push_back(task);
        if state.tasks.len() > state.deepest {
            state.deepest = state.tasks.len();
        }
        if state.idle.is_empty() {
            if state.workers < state.max_workers {
                state.workers += 1;
                return Ok(Submitted::StartWorker);
            }
            return Ok(Submitted::Queued(None));
        }
        let woken = state.summon();
        if woken.is_none() && !state.waking && state.workers < state.max_workers {
            // The idle ones are all about to end with an error.
            state.workers += 1;
            return Ok(Submitted::StartWorker);
        }
        drop(state);
        if let Some(waiter) = &woken {
            waiter.wake();
        }
        Ok(Submitted::Queued(woken))
    }

    /// Waits for a task; `None` when the scheduler is closed and empty, and the worker ends (it is not counted any more).
    ///
    /// # Errors
    /// The gate's; the worker is not counted any more, and if it was the last one, tasks may be left without any.
    pub fn next<G: Gate>(&self, gate: &G) -> Result<Option<T>, G::Error> {
        let mut was_woken = false;
        loop {
            let waiter = {
                let mut state = self.state.lock();
                if was_woken {
                    state.waking = false;
                }
                if let Some(task) = state.tasks.pop_front() {
                    let next = if state.tasks.is_empty() { None } else { state.summon() };
                    drop(state);
                    if let Some(next) = next {
                        next.wake();
                    }
                    return Ok(Some(task));
                }
                if state.closed {
                    state.workers -= 1;
                    return Ok(None);
                }
                let waiter = Waiter::new();
                state.idle.push(waiter.clone());
                waiter
            };
            match waiter.park(gate, Deadline::NEVER) {
                Ok(_) => was_woken = true,
                Err((error, notified)) => {
                    let mut state = self.state.lock();
                    state.idle.retain(|other| !Arc::ptr_eq(other, &waiter));
                    state.workers -= 1;
                    if notified {
                        state.waking = false;
                    }
                    let next = if state.tasks.is_empty() { None } else { state.summon() };
                    drop(state);
                    if let Some(next) = next {
                        next.wake();
                    }
                    return Err(error);
                }
            }
        }
    }

    /// Takes tasks from `submit` no more; workers end when the queue is empty.
    pub fn close(&self) {
        let woken: Vec<_> = {
            let mut state = self.state.lock();
            state.closed = true;
            state.idle.drain(..).filter(|waiter| waiter.notify()).collect()
        };
        wake_all(&woken);
    }

    /// A worker that was asked for could not be started, or died: it is not counted any more.
    pub fn worker_lost(&self) {
        self.state.lock().workers -= 1;
    }

    /// Takes every queued task out.
    pub fn drain(&self) -> VecDeque<T> {
        std::mem::take(&mut self.state.lock().tasks)
    }

    /// Whether it takes no more tasks.
    pub fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// The most threads it asks for.
    pub fn max_workers(&self) -> usize {
        self.state.lock().max_workers
    }

    /// Changes how many threads it asks for. Those above the number stay.
    pub fn set_max_workers(&self, max_workers: usize) {
        self.state.lock().max_workers = max_workers;
    }

    /// A snapshot.
    pub fn statistics(&self) -> PoolStatistics {
        let state = self.state.lock();
        PoolStatistics {
            queued: state.tasks.len(),
            deepest: state.deepest,
            workers: state.workers,
            idle: state.idle.len(),
        }
    }

    /// Looks at every queued task, unless the state is locked right now: for a garbage collector. `visit` must not run
    /// foreign code.
    pub fn visit<E>(&self, visit: impl FnMut(&T) -> Result<(), E>) -> Result<(), E> {
        match self.state.try_lock() {
            Some(state) => state.tasks.iter().try_for_each(visit),
            None => Ok(()),
        }
    }

    /// Forgets the workers, which do not exist in a forked child; returns the tasks that were queued.
    pub fn reset_after_fork(&self) -> VecDeque<T> {
        let mut state = self.state.lock();
        state.idle.clear();
        state.workers = 0;
        state.waking = false;
        std::mem::take(&mut state.tasks)
    }
}
