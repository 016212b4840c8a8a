//! A queue between threads: bounded or not; first in first out, last in first out, or smallest first.
//!
//! One [`Guarded`] state holds the items and three lines: getters (wait for an item), putters (wait for room) and joiners
//! (wait until every item is done). An item that comes in wakes one getter, an item that leaves wakes one putter. Barging:
//! the woken take their chance with whoever comes along, and go back to the front of their line if they lost it.
//!
//! No item is compared, dropped or otherwise touched while the state is locked, so no foreign code runs then; this is why
//! a first-in-first-out or last-in-first-out queue may be used from a destructor that interrupts another use of it.
//!
//! # The heap leaves home
//!
//! Comparing items of a priority queue does run foreign code. Whoever needs to compare takes the heap out of the state
//! ([`Items::Heap`] holds `None` then), compares without the lock, and brings it back. Others that need the heap
//! meanwhile wait in a fourth line, as they would for a lock: also those whose deadline has passed. The same thread coming
//! again (from a comparison or a destructor) gets [`Refusal::Reentered`] where it would wait for itself.
//!
//! # Opening
//!
//! A caller that wants to touch the items itself calls [`Queue::open`]: the items move out for good, and every call from
//! then on, also of those that wait, is refused with [`Refusal::Opened`].

use crate::deadline::Deadline;
use crate::guarded::{Guard, Guarded};
use crate::heap;
use crate::park::{Gate, WaitList, Waiter, wake_all};
use crate::rlock::ThreadId;
use crate::sync::Arc;
use std::collections::VecDeque;

/// In which order items leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// First in, first out.
    Fifo,
    /// Last in, first out.
    Lifo,
    /// Smallest first.
    Priority,
}

#[derive(Debug)]
enum Items<T> {
    Fifo(VecDeque<T>),
    Lifo(Vec<T>),
    /// `None` while a thread compares.
    Heap(Option<Vec<T>>),
}

/// Why an operation could not be done at once, or at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Full for a put, empty for a get; the deadline has passed if there was one.
    NotNow,
    /// The queue was shut down.
    ShutDown,
    /// The items have moved out for good ([`Queue::open`]).
    Opened,
    /// The calling thread is itself comparing this queue's items.
    Reentered,
}

/// Why a put failed, with the item.
#[derive(Debug)]
pub enum PutError<T, E> {
    /// Refused.
    Refused(T, Refusal),
    /// The gate or the comparison failed.
    Failed(T, E),
}

/// Why a get failed.
#[derive(Debug)]
pub enum GetError<E> {
    /// Refused.
    Refused(Refusal),
    /// The gate or the comparison failed; nothing was taken.
    Failed(E),
}

/// What a get returns: the item, and the putter that was woken, if one was.
pub type Taken<T, E> = Result<(T, Option<Arc<Waiter>>), GetError<E>>;

/// [`Queue::task_done`] was called more often than items were put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyDone;

/// What a thread needs to work on a queue: how it waits, who it is, and how items compare.
pub trait Context<T>: Gate {
    /// Who is calling.
    fn me(&self) -> ThreadId;

    /// Whether `a` goes before `b`; asked by priority queues only.
    ///
    /// # Errors
    /// Whatever the comparison runs into; the queue is as before then.
    fn less(&self, a: &T, b: &T) -> Result<bool, Self::Error>;
}

#[derive(Debug)]
struct State<T> {
    items: Items<T>,
    /// Items inside, the absent heap's included.
    len: usize,
    /// 0 for no bound.
    maxsize: usize,
    unfinished: u64,
    shut_down: bool,
    opened: bool,
    /// The thread that has the heap, 0 for nobody.
    comparing: ThreadId,
    deepest: usize,
    getters: WaitList,
    putters: WaitList,
    joiners: WaitList,
    comparers: WaitList,
}

impl<T> State<T> {
    #[inline(always)]
    fn may_put(&self) -> Result<(), Refusal> {
        if self.opened {
            Err(Refusal::Opened)
        } else if self.shut_down {
            Err(Refusal::ShutDown)
        } else if self.maxsize != 0 && self.len >= self.maxsize {
            Err(Refusal::NotNow)
        } else {
            Ok(())
        }
    }

    #[inline(always)]
    fn may_get(&self) -> Result<(), Refusal> {
        if self.opened {
            Err(Refusal::Opened)
        } else if self.len > 0 {
            Ok(())
        } else if self.shut_down {
            Err(Refusal::ShutDown)
        } else {
            Err(Refusal::NotNow)
        }
    }

    /// Books an item that came in; the getter to wake.
    #[inline(always)]
    fn came_in(&mut self) -> Option<Arc<Waiter>> {
        self.len += 1;
        self.unfinished += 1;
        if self.len > self.deepest {
            self.deepest = self.len;
        }
        if self.getters.is_empty() { None } else { self.getters.notify_one() }
    }

    /// Books an item that left; the putter to wake.
    #[inline(always)]
    fn went_out(&mut self) -> Option<Arc<Waiter>> {
        self.len -= 1;
        if self.putters.is_empty() { None } else { self.putters.notify_one() }
    }

    /// Whether a thread compares, and has the heap.
    fn heap_is_away(&self) -> bool {
        matches!(self.items, Items::Heap(None))
    }

    fn line(&mut self, line: Line) -> &mut WaitList {
        match line {
            Line::Getters => &mut self.getters,
            Line::Putters => &mut self.putters,
            Line::Joiners => &mut self.joiners,
            Line::Comparers => &mut self.comparers,
        }
    }

    /// Whether the condition that `line` waits for holds now.
    fn can_go_on(&self, line: Line) -> bool {
        match line {
            Line::Getters => self.may_get() != Err(Refusal::NotNow),
            Line::Putters => self.may_put() != Err(Refusal::NotNow),
            Line::Joiners => self.unfinished == 0,
            Line::Comparers => self.comparing == 0,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Line {
    Getters,
    Putters,
    Joiners,
    Comparers,
}

/// A snapshot of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueStatistics {
    /// Items inside.
    pub len: usize,
    /// The bound, 0 for none.
    pub maxsize: usize,
    /// Items put and not yet done.
    pub unfinished: u64,
    /// The most items that were ever inside.
    pub deepest: usize,
    /// Threads that wait for an item.
    pub getters: usize,
    /// Threads that wait for room.
    pub putters: usize,
}

/// A queue; see the [module](self).
#[derive(Debug)]
pub struct Queue<T> {
    state: Guarded<State<T>>,
}

impl<T> Queue<T> {
    /// An empty queue that holds up to `maxsize` items, any number if 0.
    pub fn new(order: Order, maxsize: usize) -> Self {
        let items = match order {
            Order::Fifo => Items::Fifo(VecDeque::new()),
            Order::Lifo => Items::Lifo(Vec::new()),
            Order::Priority => Items::Heap(Some(Vec::new())),
        };
        Self {
            state: Guarded::new(State {
                items,
                len: 0,
                maxsize,
                unfinished: 0,
                shut_down: false,
                opened: false,
                comparing: 0,
                deepest: 0,
                getters: WaitList::default(),
                putters: WaitList::default(),
                joiners: WaitList::default(),
                comparers: WaitList::default(),
            }),
        }
    }

    /// Puts `item`, waiting for room until `deadline`. Returns the getter that was woken, if one was.
    ///
    /// # Errors
    /// [`PutError`], with the item.
    #[inline(always)]
    pub fn put<C: Context<T>>(
        &self,
        context: &C,
        item: T,
        deadline: Deadline,
    ) -> Result<Option<Arc<Waiter>>, PutError<T, C::Error>> {
        let mut state = self.state.lock();
        if state.may_put().is_ok() {
            match &mut state.items {
                Items::Fifo(items) => items.push_back(item),
                Items::Lifo(items) => items.push(item),
                Items::Heap(_) => return self.put_slow(state, context, item, deadline),
            }
            let woken = state.came_in();
            drop(state);
            if let Some(waiter) = &woken {
                waiter.wake();
            }
            return Ok(woken);
        }
        self.put_slow(state, context, item, deadline)
    }

    #[inline(never)]
    fn put_slow<'a, C: Context<T>>(
        &'a self,
        mut state: Guard<'a, State<T>>,
        context: &C,
        item: T,
        deadline: Deadline,
    ) -> Result<Option<Arc<Waiter>>, PutError<T, C::Error>> {
        let mut in_front = false;
        loop {
            let (line, until) = match state.may_put() {
                Ok(()) if !state.heap_is_away() => return self.put_now(state, context, item),
                Err(Refusal::NotNow) if deadline == Deadline::PASSED => {
                    return Err(PutError::Refused(item, Refusal::NotNow));
                }
                Ok(()) | Err(Refusal::NotNow) if state.comparing == context.me() => {
                    return Err(PutError::Refused(item, Refusal::Reentered));
                }
                Ok(()) => (Line::Comparers, Deadline::NEVER),
                Err(Refusal::NotNow) => (Line::Putters, deadline),
                Err(refusal) => return Err(PutError::Refused(item, refusal)),
            };
            match self.wait(state, context, line, in_front, until) {
                Ok(Some(locked)) => {
                    state = locked;
                    in_front |= matches!(line, Line::Putters);
                }
                Ok(None) => return Err(PutError::Refused(item, Refusal::NotNow)),
                Err(error) => return Err(PutError::Failed(item, error)),
            }
        }
    }

    /// Puts into a queue that has room and whose items are at home.
    fn put_now<'a, C: Context<T>>(
        &'a self,
        mut state: Guard<'a, State<T>>,
        context: &C,
        item: T,
    ) -> Result<Option<Arc<Waiter>>, PutError<T, C::Error>> {
        let woken = match &mut state.items {
            Items::Fifo(items) => {
                items.push_back(item);
                state.came_in()
            }
            Items::Lifo(items) => {
                items.push(item);
                state.came_in()
            }
            Items::Heap(home) => {
                let heap = home.take().expect("the caller saw the heap at home");
                return self.push(state, heap, context, item);
            }
        };
        drop(state);
        if let Some(waiter) = &woken {
            waiter.wake();
        }
        Ok(woken)
    }

    /// Puts into a heap that has just been taken out of the state.
    fn push<'a, C: Context<T>>(
        &'a self,
        mut state: Guard<'a, State<T>>,
        mut heap: Vec<T>,
        context: &C,
        item: T,
    ) -> Result<Option<Arc<Waiter>>, PutError<T, C::Error>> {
        state.comparing = context.me();
        drop(state);
        let pushed = heap::push(&mut heap, item, |a, b| context.less(a, b));
        let (mut state, mut woken) = self.bring_home(heap);
        let getter = match pushed {
            Ok(()) => Ok(state.came_in()),
            Err((item, error)) => {
                // The room that this putter may have been woken for is left to the next.
                woken.extend(state.putters.notify_one());
                Err(PutError::Failed(item, error))
            }
        };
        drop(state);
        wake_all(&woken);
        if let Ok(Some(waiter)) = &getter {
            waiter.wake();
        }
        getter
    }

    /// Takes an item, waiting for one until `deadline`. Returns the putter that was woken, if one was.
    ///
    /// # Errors
    /// [`GetError`].
    #[inline(always)]
    pub fn get<C: Context<T>>(&self, context: &C, deadline: Deadline) -> Taken<T, C::Error> {
        let mut state = self.state.lock();
        if state.may_get().is_ok() {
            let item = match &mut state.items {
                Items::Fifo(items) => items.pop_front(),
                Items::Lifo(items) => items.pop(),
                Items::Heap(_) => return self.get_slow(state, context, deadline),
            };
            if let Some(item) = item {
                let woken = state.went_out();
                drop(state);
                if let Some(waiter) = &woken {
                    waiter.wake();
                }
                return Ok((item, woken));
            }
        }
        self.get_slow(state, context, deadline)
    }

    #[inline(never)]
    fn get_slow<'a, C: Context<T>>(
        &'a self,
        mut state: Guard<'a, State<T>>,
        context: &C,
        deadline: Deadline,
    ) -> Taken<T, C::Error> {
        let mut in_front = false;
        loop {
            let (line, until) = match state.may_get() {
                Ok(()) if !state.heap_is_away() => return self.get_now(state, context),
                Err(Refusal::NotNow) if deadline == Deadline::PASSED => {
                    return Err(GetError::Refused(Refusal::NotNow));
                }
                Ok(()) | Err(Refusal::NotNow) if state.comparing == context.me() => {
                    return Err(GetError::Refused(Refusal::Reentered));
                }
                Ok(()) => (Line::Comparers, Deadline::NEVER),
                Err(Refusal::NotNow) => (Line::Getters, deadline),
                Err(refusal) => return Err(GetError::Refused(refusal)),
            };
            match self.wait(state, context, line, in_front, until) {
                Ok(Some(locked)) => {
                    state = locked;
                    in_front |= matches!(line, Line::Getters);
                }
                Ok(None) => return Err(GetError::Refused(Refusal::NotNow)),
                Err(error) => return Err(GetError::Failed(error)),
            }
        }
    }

    /// Takes from a queue that holds something and whose items are at home.
    fn get_now<'a, C: Context<T>>(&'a self, mut state: Guard<'a, State<T>>, context: &C) -> Taken<T, C::Error> {
        let item = match &mut state.items {
            Items::Fifo(items) => items.pop_front(),
            Items::Lifo(items) => items.pop(),
            Items::Heap(home) => {
                let heap = home.take().expect("the caller saw the heap at home");
                return self.pop(state, heap, context);
            }
        };
        let item = item.expect("the caller saw an item");
        let woken = state.went_out();
        drop(state);
        if let Some(waiter) = &woken {
            waiter.wake();
        }
        Ok((item, woken))
    }

    /// Takes from a heap that has just been taken out of the state, and holds something.
    fn pop<'a, C: Context<T>>(
        &'a self,
        mut state: Guard<'a, State<T>>,
        mut heap: Vec<T>,
        context: &C,
    ) -> Taken<T, C::Error> {
        state.comparing = context.me();
        drop(state);
        let popped = heap::pop(&mut heap, |a, b| context.less(a, b));
        let (mut state, mut woken) = self.bring_home(heap);
        let taken = match popped {
            Ok(item) => Ok((item.expect("the caller saw an item"), state.went_out())),
            Err(error) => {
                // The item that this getter may have been woken for is left to the next.
                woken.extend(state.getters.notify_one());
                Err(GetError::Failed(error))
            }
        };
        drop(state);
        wake_all(&woken);
        if let Ok((_, Some(waiter))) = &taken {
            waiter.wake();
        }
        taken
    }

    /// Ends a comparison: the heap is back. The state stays locked until the caller has booked what it did, so that nobody
    /// sees a length that is not the heap's; then the caller wakes those who wait for the heap.
    fn bring_home(&self, heap: Vec<T>) -> (Guard<'_, State<T>>, Vec<Arc<Waiter>>) {
        let mut state = self.state.lock();
        state.comparing = 0;
        state.items = Items::Heap(Some(heap));
        let woken = state.comparers.notify_all();
        (state, woken)
    }

    /// Waits in `line`: the state, locked again, when it may be worth another look; `None` at `deadline`.
    ///
    /// A waiter that leaves with an error passes on the notification that it may have had.
    fn wait<'a, C: Context<T>>(
        &'a self,
        mut state: Guard<'a, State<T>>,
        context: &C,
        line: Line,
        in_front: bool,
        deadline: Deadline,
    ) -> Result<Option<Guard<'a, State<T>>>, C::Error> {
        let waiter = state.line(line).enqueue(in_front);
        drop(state);
        let parked = waiter.park(context, deadline);
        state = self.state.lock();
        match parked {
            Ok(true) => Ok(Some(state)),
            Ok(false) => {
                state.line(line).remove(&waiter);
                // What it waited for may have come in this very moment.
                Ok(state.can_go_on(line).then_some(state))
            }
            Err((error, notified)) => {
                state.line(line).remove(&waiter);
                let lines: &[Line] = match line {
                    // Before it came here it may have been notified of an item or of room.
                    Line::Comparers => &[Line::Getters, Line::Putters],
                    _ if notified => &[line],
                    _ => &[],
                };
                let next: Vec<_> = lines
                    .iter()
                    .filter_map(|&line| if state.can_go_on(line) { state.line(line).notify_one() } else { None })
                    .collect();
                drop(state);
                wake_all(&next);
                Err(error)
            }
        }
    }

    /// Marks one item as done; the joiners wake when all are.
    ///
    /// # Errors
    /// [`TooManyDone`] if no item is unfinished.
    pub fn task_done(&self) -> Result<(), TooManyDone> {
        let woken = {
            let mut state = self.state.lock();
            state.unfinished = state.unfinished.checked_sub(1).ok_or(TooManyDone)?;
            if state.unfinished > 0 || state.joiners.is_empty() {
                return Ok(());
            }
            state.joiners.notify_all()
        };
        wake_all(&woken);
        Ok(())
    }

    /// Waits until every item is done.
    ///
    /// # Errors
    /// [`GetError`]: the gate's error, or [`Refusal::Opened`].
    pub fn join<C: Context<T>>(&self, context: &C) -> Result<(), GetError<C::Error>> {
        let mut state = self.state.lock();
        loop {
            if state.opened {
                return Err(GetError::Refused(Refusal::Opened));
            }
            if state.unfinished == 0 {
                return Ok(());
            }
            match self.wait(state, context, Line::Joiners, false, Deadline::NEVER) {
                Ok(Some(locked)) => state = locked,
                Ok(None) => unreachable!("a wait without a deadline does not time out"),
                Err(error) => return Err(GetError::Failed(error)),
            }
        }
    }

    /// Refuses puts from now on, and gets once the queue is empty; with `immediate`, empties it at once and counts what
    /// was inside as done. Returns what was inside, for the caller to drop.
    ///
    /// # Errors
    /// [`GetError`]: the gate's error while waiting for a comparison to end, or a [`Refusal`].
    pub fn shut_down<C: Context<T>>(&self, context: &C, immediate: bool) -> Result<Vec<T>, GetError<C::Error>> {
        let mut state = self.at_home(context)?;
        state.shut_down = true;
        let mut items = Vec::new();
        let mut woken = Vec::new();
        if immediate {
            items = state.take_items();
            state.unfinished = state.unfinished.saturating_sub(items.len() as u64);
            // They look again: items that are still being worked on keep them.
            woken = state.joiners.notify_all();
        }
        woken.extend(state.getters.notify_all());
        woken.extend(state.putters.notify_all());
        drop(state);
        wake_all(&woken);
        Ok(items)
    }

    /// Moves the items out for good, first those that would have left first (a heap in its own order); every later call
    /// is refused with [`Refusal::Opened`]. `None` if that has been done already.
    ///
    /// # Errors
    /// [`GetError`]: the gate's error while waiting for a comparison to end, or a [`Refusal`].
    pub fn open<C: Context<T>>(&self, context: &C) -> Result<Option<Vec<T>>, GetError<C::Error>> {
        let mut state = match self.at_home(context) {
            Err(GetError::Refused(Refusal::Opened)) => return Ok(None),
            other => other?,
        };
        state.opened = true;
        let items = state.take_items();
        let mut woken = state.getters.notify_all();
        woken.extend(state.putters.notify_all());
        woken.extend(state.joiners.notify_all());
        woken.extend(state.comparers.notify_all());
        drop(state);
        wake_all(&woken);
        Ok(Some(items))
    }

    /// Locks the state when nobody has the heap.
    fn at_home<C: Context<T>>(&self, context: &C) -> Result<Guard<'_, State<T>>, GetError<C::Error>> {
        let mut state = self.state.lock();
        loop {
            if state.opened {
                return Err(GetError::Refused(Refusal::Opened));
            }
            if !state.heap_is_away() {
                return Ok(state);
            }
            if state.comparing == context.me() {
                return Err(GetError::Refused(Refusal::Reentered));
            }
            match self.wait(state, context, Line::Comparers, false, Deadline::NEVER) {
                Ok(Some(locked)) => state = locked,
                Ok(None) => unreachable!("a wait without a deadline does not time out"),
                Err(error) => return Err(GetError::Failed(error)),
            }
        }
    }

    /// Items inside.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.state.lock().len
    }

    /// Whether nothing is inside.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a put would have to wait.
    pub fn is_full(&self) -> bool {
        let state = self.state.lock();
        state.maxsize != 0 && state.len >= state.maxsize
    }

    /// Items put and not yet done.
    pub fn unfinished(&self) -> u64 {
        self.state.lock().unfinished
    }

    /// Sets the number of unfinished items, and lets the joiners go if it is 0.
    pub fn set_unfinished(&self, unfinished: u64) {
        let woken = {
            let mut state = self.state.lock();
            state.unfinished = unfinished;
            if unfinished > 0 {
                return;
            }
            state.joiners.notify_all()
        };
        wake_all(&woken);
    }

    /// Sets the bound, 0 for none, and lets the putters see whether there is room.
    pub fn set_maxsize(&self, maxsize: usize) {
        let woken = {
            let mut state = self.state.lock();
            state.maxsize = maxsize;
            state.putters.notify_all()
        };
        wake_all(&woken);
    }

    /// Whether it was shut down.
    pub fn is_shut_down(&self) -> bool {
        self.state.lock().shut_down
    }

    /// Sets whether it was shut down, without waking anybody: for an open queue, whose waiters wait elsewhere.
    pub fn set_shut_down(&self, shut_down: bool) {
        self.state.lock().shut_down = shut_down;
    }

    /// A snapshot.
    pub fn statistics(&self) -> QueueStatistics {
        let state = self.state.lock();
        QueueStatistics {
            len: state.len,
            maxsize: state.maxsize,
            unfinished: state.unfinished,
            deepest: state.deepest,
            getters: state.getters.len(),
            putters: state.putters.len(),
        }
    }

    /// Shows every item that is at home to `visit`, unless the state is locked right now: for a garbage collector, to
    /// which an item it is not shown is merely alive. `visit` must not run foreign code.
    pub fn visit<E>(&self, mut visit: impl FnMut(&T) -> Result<(), E>) -> Result<(), E> {
        let Some(state) = self.state.try_lock() else { return Ok(()) };
        match &state.items {
            Items::Fifo(items) => items.iter().try_for_each(&mut visit),
            Items::Lifo(items) | Items::Heap(Some(items)) => items.iter().try_for_each(&mut visit),
            Items::Heap(None) => Ok(()),
        }
    }

    /// Takes every item out and returns them for the caller to drop: for a garbage collector that breaks a cycle.
    pub fn clear(&self) -> Vec<T> {
        self.state.lock().take_items()
    }
}

impl<T> State<T> {
    fn take_items(&mut self) -> Vec<T> {
        let items = match &mut self.items {
            Items::Fifo(items) => std::mem::take(items).into(),
            Items::Lifo(items) | Items::Heap(Some(items)) => std::mem::take(items),
            Items::Heap(None) => return Vec::new(),
        };
        self.len = 0;
        items
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::park::{ThreadGate, Waited};
    use crate::sys::Sleep;
    use std::convert::Infallible;

    struct Thread(ThreadId);

    impl Gate for Thread {
        type Error = Infallible;
        fn wait<S: Sleep>(&self, futex: &S, expected: u32, deadline: Deadline) -> Result<Waited, Infallible> {
            ThreadGate.wait(futex, expected, deadline)
        }
    }

    impl Context<i32> for Thread {
        fn me(&self) -> ThreadId {
            self.0
        }
        fn less(&self, a: &i32, b: &i32) -> Result<bool, Infallible> {
            Ok(a < b)
        }
    }

    fn drain(queue: &Queue<i32>) -> Vec<i32> {
        std::iter::from_fn(|| queue.get(&Thread(1), Deadline::PASSED).ok().map(|(item, _)| item)).collect()
    }

    #[test]
    fn items_leave_in_their_order() {
        for (order, expected) in [(Order::Fifo, [3, 1, 2]), (Order::Lifo, [2, 1, 3]), (Order::Priority, [1, 2, 3])] {
            let queue = Queue::new(order, 0);
            for item in [3, 1, 2] {
                queue.put(&Thread(1), item, Deadline::PASSED).unwrap();
            }
            assert_eq!(queue.statistics().deepest, 3);
            assert_eq!(drain(&queue), expected);
            assert_eq!(queue.unfinished(), 3);
        }
    }

    #[test]
    fn a_full_queue_gives_the_item_back() {
        let queue = Queue::new(Order::Fifo, 1);
        queue.put(&Thread(1), 1, Deadline::PASSED).unwrap();
        match queue.put(&Thread(1), 2, Deadline::PASSED) {
            Err(PutError::Refused(2, Refusal::NotNow)) => {}
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn shutting_down_refuses_puts_and_lets_gets_finish() {
        let queue = Queue::new(Order::Lifo, 0);
        queue.put(&Thread(1), 1, Deadline::PASSED).unwrap();
        assert!(queue.shut_down(&Thread(1), false).unwrap().is_empty());
        assert!(matches!(queue.put(&Thread(1), 2, Deadline::PASSED), Err(PutError::Refused(2, Refusal::ShutDown))));
        assert_eq!(drain(&queue), [1]);
        assert!(matches!(queue.get(&Thread(1), Deadline::NEVER), Err(GetError::Refused(Refusal::ShutDown))));
    }

    #[test]
    fn done_more_often_than_put_is_an_error() {
        let queue = Queue::new(Order::Fifo, 0);
        assert_eq!(queue.task_done(), Err(TooManyDone));
        queue.put(&Thread(1), 1, Deadline::PASSED).unwrap();
        assert_eq!(queue.task_done(), Ok(()));
        assert!(queue.join(&Thread(1)).is_ok());
    }
}
