//! Every primitive under many threads with random timeouts and signals: nothing is lost, nothing comes twice, nobody hangs.
//!
//! Each test runs for `JUGGLER_STRESS_SECONDS` (1 by default) from the seed `JUGGLER_STRESS_SEED` (random by default),
//! which it prints. A watchdog ends a test that hangs, and says with which seed: the threads' interleaving differs from
//! run to run, but what each of them does is the same. A failed assertion in one thread may leave the others hanging:
//! `--nocapture` shows it.
#![cfg(not(loom))]

use juggler_sync::barrier::{Arrival, Barrier};
use juggler_sync::condition::Condition;
use juggler_sync::event::Event;
use juggler_sync::future::{Collector, Future, Started, State};
use juggler_sync::lock::Lock;
use juggler_sync::park::Waited;
use juggler_sync::pool::{Scheduler, Submitted};
use juggler_sync::queue::{Context, GetError, Order, PutError, Queue, Refusal};
use juggler_sync::rlock::{RLock, ThreadId};
use juggler_sync::rwlock::RwLock;
use juggler_sync::semaphore::Semaphore;
use juggler_sync::sync::Arc;
use juggler_sync::sys::Sleep;
use juggler_sync::{Deadline, Gate, ThreadGate};
use std::cell::Cell;
use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

const THREADS: u64 = 4;

/// How long a test may go on after its time before it counts as hung.
const PATIENCE: Duration = Duration::from_secs(60);

/// One test's run: its seed, its end, and the watchdog that waits for it.
struct Run {
    seed: u64,
    end: Instant,
    _finished: Sender<()>,
}

impl Run {
    fn new(name: &'static str) -> Self {
        let variable = |name| std::env::var(name).ok().map(|value| value.parse::<u64>().expect("a whole number"));
        let seed = variable("JUGGLER_STRESS_SEED").unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
            now.as_nanos() as u64
        });
        println!("{name}: JUGGLER_STRESS_SEED={seed}");
        let time = Duration::from_secs(variable("JUGGLER_STRESS_SECONDS").unwrap_or(1));
        let (finished, watch) = channel();
        thread::spawn(move || {
            if watch.recv_timeout(time + PATIENCE) == Err(RecvTimeoutError::Timeout) {
                // Not by `eprintln!`, which the test harness would keep to itself.
                let _ = writeln!(std::io::stderr(), "{name} hangs: JUGGLER_STRESS_SEED={seed}");
                std::process::abort();
            }
        });
        Self { seed, end: Instant::now() + time, _finished: finished }
    }

    fn goes_on(&self) -> bool {
        Instant::now() < self.end
    }

    /// The user number `number` of what is under test.
    fn user(&self, number: u64) -> User {
        User { me: number, random: Cell::new(self.seed ^ number.wrapping_mul(0xA24B_AED4_963E_E407)) }
    }

    /// Starts [`THREADS`] threads that call `body` until the time is over.
    fn threads<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        body: impl Fn(&User) + Copy + Send + 'scope,
    ) -> Vec<thread::ScopedJoinHandle<'scope, ()>> {
        (1..=THREADS)
            .map(|number| {
                let user = self.user(number);
                scope.spawn(move || {
                    while self.goes_on() {
                        body(&user);
                    }
                })
            })
            .collect()
    }
}

/// A thread with its own random numbers; as a gate, one that gets a signal now and then whose handler raises.
struct User {
    me: ThreadId,
    random: Cell<u64>,
}

#[derive(Debug, PartialEq, Eq)]
struct Raised;

impl User {
    /// Source: S. Vigna, splitmix64, <https://prng.di.unimi.it/splitmix64.c>.
    fn next(&self) -> u64 {
        let state = self.random.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.random.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn one_in(&self, n: u64) -> bool {
        self.next() % n == 0
    }

    /// Never, at once, or up to 200 µs from now.
    fn deadline(&self) -> Deadline {
        match self.next() % 4 {
            0 | 1 => Deadline::NEVER,
            2 => Deadline::PASSED,
            _ => self.soon(),
        }
    }

    fn soon(&self) -> Deadline {
        Deadline::after(Duration::from_micros(self.next() % 200))
    }

    fn dawdle(&self) {
        if self.one_in(4) {
            thread::yield_now();
        }
    }
}

impl Gate for User {
    type Error = Raised;

    fn wait<S: Sleep>(&self, futex: &S, expected: u32, deadline: Deadline) -> Result<Waited, Raised> {
        if self.one_in(8) {
            return Err(Raised);
        }
        let Ok(waited) = ThreadGate.wait(futex, expected, deadline);
        if self.one_in(8) { Err(Raised) } else { Ok(waited) }
    }
}

impl Context<u64> for User {
    fn me(&self) -> ThreadId {
        self.me
    }

    fn less(&self, a: &u64, b: &u64) -> Result<bool, Raised> {
        self.dawdle();
        if self.one_in(64) { Err(Raised) } else { Ok(a < b) }
    }
}

/// A count that loses additions unless one thread at a time adds.
#[derive(Default)]
struct Count(AtomicU64);

impl Count {
    fn add(&self, user: &User) {
        let count = self.0.load(Ordering::Relaxed);
        user.dawdle();
        self.0.store(count + 1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[test]
fn lock() {
    stress_lock("lock", &Lock::new());
}

#[test]
fn fair_lock() {
    let lock = Lock::new();
    lock.make_fair();
    stress_lock("fair_lock", &lock);
}

fn stress_lock(name: &'static str, lock: &Lock) {
    let run = Run::new(name);
    let (count, taken) = (Count::default(), AtomicU64::new(0));
    thread::scope(|scope| {
        run.threads(scope, |user| {
            if lock.acquire(user, user.deadline()) == Ok(true) {
                count.add(user);
                lock.release().unwrap();
                taken.fetch_add(1, Ordering::Relaxed);
            }
        });
    });
    assert_eq!(count.get(), taken.into_inner());
    assert_eq!((lock.is_locked(), lock.waiting()), (false, 0));
}

#[test]
fn rlock() {
    let run = Run::new("rlock");
    let (lock, count, taken) = (RLock::new(), Count::default(), AtomicU64::new(0));
    thread::scope(|scope| {
        run.threads(scope, |user| {
            if lock.acquire(user, user.me, user.deadline()) != Ok(true) {
                return;
            }
            assert_eq!(lock.acquire(user, user.me, Deadline::NEVER), Ok(true));
            count.add(user);
            if user.one_in(4) {
                let depth = lock.release_save(user.me).unwrap();
                lock.restore(&ThreadGate, user.me, depth).unwrap();
            }
            assert_eq!((lock.owner(), lock.depth()), (Some(user.me), 2));
            assert_eq!(lock.release(user.me), Ok(false));
            assert_eq!(lock.release(user.me), Ok(true));
            taken.fetch_add(1, Ordering::Relaxed);
        });
    });
    assert_eq!(count.get(), taken.into_inner());
    assert_eq!((lock.is_locked(), lock.waiting(), lock.owner()), (false, 0, None));
}

#[test]
fn semaphore() {
    stress_semaphore("semaphore", &Semaphore::new(2, 2));
}

#[test]
fn fair_semaphore() {
    let semaphore = Semaphore::new(2, 2);
    semaphore.make_fair();
    stress_semaphore("fair_semaphore", &semaphore);
}

fn stress_semaphore(name: &'static str, semaphore: &Semaphore) {
    let run = Run::new(name);
    let inside = AtomicU64::new(0);
    thread::scope(|scope| {
        run.threads(scope, |user| {
            if semaphore.acquire(user, user.deadline()) == Ok(true) {
                assert!(inside.fetch_add(1, Ordering::Relaxed) < 2);
                user.dawdle();
                inside.fetch_sub(1, Ordering::Relaxed);
                semaphore.release(1).unwrap();
            }
        });
    });
    assert_eq!((semaphore.permits(), semaphore.waiting()), (2, 0));
}

/// Two threads wake each other in turn, while others wait for the same events and give up.
#[test]
fn event() {
    let run = Run::new("event");
    let (events, over, rounds) = ([Event::new(), Event::new()], AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for side in 0..2 {
            let (run, events, over, rounds) = (&run, &events, &over, &rounds);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    events[side].wait(&ThreadGate, Deadline::NEVER).unwrap();
                    events[side].clear();
                    rounds.fetch_add(1, Ordering::Relaxed);
                    over.fetch_or(!run.goes_on(), Ordering::Relaxed);
                    events[1 - side].set();
                }
            });
        }
        events[0].set();
        run.threads(scope, |user| {
            let _ = events[(user.next() % 2) as usize].wait(user, user.soon());
        });
    });
    assert!(rounds.into_inner() > 0);
    assert_eq!(events.map(|event| event.waiting()), [0, 0]);
}

/// A stock of one thing behind a condition for each of its two changes.
#[test]
fn condition() {
    struct Stock {
        lock: Lock,
        full: AtomicBool,
        /// Notified when the stock is empty, and when it is full.
        changed: [Condition; 2],
    }

    impl Stock {
        /// Waits for the stock to be full or not, and turns it round; whether it did before the deadline or a signal.
        fn turn(&self, user: &User, full: bool, deadline: Deadline) -> bool {
            self.lock.acquire(&ThreadGate, Deadline::NEVER).unwrap();
            let mut waits = true;
            while waits && self.full.load(Ordering::Relaxed) != full {
                let condition = &self.changed[usize::from(full)];
                let waiter = condition.enqueue();
                self.lock.release().unwrap();
                let parked = condition.park(&waiter, user, deadline);
                self.lock.acquire(&ThreadGate, Deadline::NEVER).unwrap();
                waits = parked == Ok(true);
                if parked == Err((Raised, true)) {
                    // The notification was for somebody who goes on.
                    condition.notify(1);
                }
            }
            let turned = self.full.load(Ordering::Relaxed) == full;
            if turned {
                self.full.store(!full, Ordering::Relaxed);
                self.changed[usize::from(!full)].notify(1);
            }
            self.lock.release().unwrap();
            turned
        }
    }

    let run = Run::new("condition");
    let mut rounds = 0;
    while run.goes_on() {
        let stock =
            Stock { lock: Lock::new(), full: AtomicBool::new(false), changed: [Condition::new(), Condition::new()] };
        thread::scope(|scope| {
            for number in 1..=THREADS {
                let (user, stock) = (run.user(number + rounds * THREADS), &stock);
                // As many turns of the one kind as of the other, so that everybody gets all of his.
                let full = number % 2 == 0;
                scope.spawn(move || {
                    for _ in 0..200 {
                        while !stock.turn(&user, full, user.deadline()) {}
                    }
                });
            }
        });
        assert!(!stock.full.into_inner());
        assert_eq!(stock.changed.map(|condition| condition.waiting()), [0, 0]);
        rounds += 1;
    }
}

/// Nobody is a round ahead of another, and the places of a round are all different.
#[test]
fn barrier_rounds() {
    let run = Run::new("barrier_rounds");
    let (barrier, over) = (Barrier::new(THREADS as usize), AtomicBool::new(false));
    // How often each place was taken.
    let places: [AtomicU64; THREADS as usize] = Default::default();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            let (run, barrier, places, over) = (&run, &barrier, &places, &over);
            let pass = move || {
                let arrival = barrier.arrive(&ThreadGate, Deadline::NEVER).unwrap().unwrap();
                let (Arrival::Passed(place) | Arrival::Last { place, .. }) = arrival;
                places[place].fetch_add(1, Ordering::Relaxed);
                if let Arrival::Last { round, .. } = arrival {
                    barrier.finish(round, true).unwrap();
                }
            };
            scope.spawn(move || {
                let mut rounds = 0;
                while !over.load(Ordering::Relaxed) {
                    pass();
                    // Whoever came to this round has booked the one before.
                    for count in places {
                        let count = count.load(Ordering::Relaxed);
                        assert!(rounds <= count && count <= rounds + 1, "{count} in round {rounds}");
                    }
                    over.fetch_or(!run.goes_on(), Ordering::Relaxed);
                    // All leave `over` alone between this round and their look at it.
                    pass();
                    rounds += 2;
                }
            });
        }
    });
    assert_eq!((barrier.waiting(), barrier.is_broken()), (0, false));
}

/// Parties time out, get signals, abort and reset; when all is over the barrier is as new.
#[test]
fn barrier_chaos() {
    let run = Run::new("barrier_chaos");
    let (barrier, passed) = (Barrier::new(2), AtomicU64::new(0));
    thread::scope(|scope| {
        let threads = run.threads(scope, |user| {
            match barrier.arrive(user, user.deadline()) {
                Ok(Ok(Arrival::Last { round, .. })) => {
                    user.dawdle();
                    let _ = barrier.finish(round, !user.one_in(16));
                }
                Ok(Ok(Arrival::Passed(_))) => {
                    passed.fetch_add(1, Ordering::Relaxed);
                }
                Ok(Err(_)) | Err(Raised) => {}
            }
            match user.next() % 16 {
                0 => barrier.abort(),
                1..4 => barrier.reset(),
                _ => {}
            }
        });
        while threads.iter().any(|thread| !thread.is_finished()) {
            thread::sleep(Duration::from_millis(5));
            barrier.abort();
        }
    });
    barrier.reset();
    assert!(passed.into_inner() > 0);
    assert_eq!((barrier.waiting(), barrier.is_broken()), (0, false));
}

#[test]
fn rwlock() {
    let run = Run::new("rwlock");
    let (lock, counts, written) = (RwLock::default(), [Count::default(), Count::default()], AtomicU64::new(0));
    thread::scope(|scope| {
        run.threads(scope, |user| {
            if user.one_in(4) {
                if lock.write(user, user.deadline()) == Ok(true) {
                    counts.iter().for_each(|count| count.add(user));
                    lock.release_write().unwrap();
                    written.fetch_add(1, Ordering::Relaxed);
                }
            } else if lock.read(user, user.deadline()) == Ok(true) {
                let first = counts[0].get();
                user.dawdle();
                assert_eq!(counts[1].get(), first);
                lock.release_read().unwrap();
            }
        });
    });
    assert_eq!(counts[0].get(), written.into_inner());
    let statistics = lock.statistics();
    assert_eq!((statistics.readers, statistics.writing, statistics.waiting), (0, false, 0));
}

/// What went in comes out once, is handed back once by a shutdown, or was never in.
fn queue(name: &'static str, order: Order, immediate: bool) {
    let run = Run::new(name);
    let user = run.user(0);
    let queue = Queue::new(order, (user.next() % 4) as usize);
    let (put, got) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for number in 1..=THREADS {
            let (user, run, queue, put) = (run.user(number), &run, &queue, &put);
            scope.spawn(move || {
                let mut mine = Vec::new();
                for item in (number..).step_by(THREADS as usize) {
                    match queue.put(&user, item, user.deadline()) {
                        Ok(_) => mine.push(item),
                        Err(PutError::Refused(back, Refusal::NotNow) | PutError::Failed(back, Raised)) => {
                            assert_eq!(back, item);
                        }
                        Err(PutError::Refused(_, Refusal::ShutDown)) => break,
                        Err(PutError::Refused(_, refusal)) => panic!("{refusal:?}"),
                    }
                    // An unbounded queue would grow without end.
                    while queue.len() > 100 && run.goes_on() {
                        thread::yield_now();
                    }
                }
                put.lock().unwrap().extend(mine);
            });
            let (user, got) = (self::User { me: number + THREADS, random: Cell::new(run.seed ^ number) }, &got);
            scope.spawn(move || {
                let mut mine = Vec::new();
                loop {
                    match queue.get(&user, user.deadline()) {
                        Ok((item, _)) => {
                            mine.push(item);
                            queue.task_done().unwrap();
                        }
                        Err(GetError::Refused(Refusal::NotNow) | GetError::Failed(Raised)) => {}
                        Err(GetError::Refused(Refusal::ShutDown)) => break,
                        Err(GetError::Refused(refusal)) => panic!("{refusal:?}"),
                    }
                }
                got.lock().unwrap().extend(mine);
            });
        }
        while run.goes_on() {
            thread::sleep(Duration::from_millis(5));
        }
        let handed_back = loop {
            match queue.shut_down(&user, immediate) {
                Ok(items) => break items,
                Err(error) => assert!(matches!(error, GetError::Failed(Raised))),
            }
        };
        got.lock().unwrap().extend(handed_back);
        while queue.join(&user).is_err() {}
    });
    let (mut put, mut got) = (put.into_inner().unwrap(), got.into_inner().unwrap());
    put.sort_unstable();
    got.sort_unstable();
    assert!(!put.is_empty());
    assert_eq!(put, got);
    let statistics = queue.statistics();
    assert_eq!((statistics.len, statistics.unfinished), (0, 0));
    assert_eq!((statistics.getters, statistics.putters), (0, 0));
}

#[test]
fn queue_fifo() {
    queue("queue_fifo", Order::Fifo, false);
}

#[test]
fn queue_fifo_shut_down_at_once() {
    queue("queue_fifo_shut_down_at_once", Order::Fifo, true);
}

#[test]
fn queue_lifo() {
    queue("queue_lifo", Order::Lifo, false);
}

#[test]
fn queue_priority() {
    queue("queue_priority", Order::Priority, false);
}

#[test]
fn queue_priority_shut_down_at_once() {
    queue("queue_priority_shut_down_at_once", Order::Priority, true);
}

/// Every future settles once and is heard of once, every callback runs once, whoever finishes or cancels.
#[test]
fn futures() {
    const BATCH: usize = 16;
    let run = Run::new("futures");
    thread::scope(|scope| {
        run.threads(scope, |user| {
            let futures: Vec<Future<u64, u64>> = (0..BATCH).map(|_| Future::default()).collect();
            let (collector, called) = (Arc::new(Collector::new()), AtomicU64::new(0));
            let call = |callbacks: Vec<u64>| {
                called.fetch_add(callbacks.into_iter().sum(), Ordering::Relaxed);
            };
            let (worker, canceller) = (User { me: 0, random: Cell::new(user.next()) }, user);
            thread::scope(|scope| {
                let (futures, call) = (&futures, &call);
                scope.spawn(move || {
                    for (number, future) in futures.iter().enumerate() {
                        worker.dawdle();
                        if future.start() == Ok(Started::Run) {
                            worker.dawdle();
                            call(future.finish(number as u64).unwrap());
                        }
                    }
                });
                let mut tokens = Vec::new();
                for (token, future) in futures.iter().enumerate() {
                    future.subscribe(&collector, token);
                    call(future.add_callback(1).into_iter().collect());
                    if canceller.one_in(4) {
                        call(futures[canceller.next() as usize % BATCH].cancel().unwrap_or_default());
                    }
                    if canceller.one_in(4) {
                        let _ = future.wait(canceller, canceller.soon());
                    }
                    if canceller.one_in(4) {
                        tokens.extend(collector.collect(canceller, 2, canceller.soon()).unwrap_or_default());
                    }
                }
                while tokens.len() < BATCH {
                    let left = BATCH - tokens.len();
                    tokens.extend(collector.collect(canceller, left, Deadline::NEVER).unwrap_or_default());
                }
                tokens.sort_unstable();
                assert!(tokens.iter().copied().eq(0..BATCH));
            });
            for (number, future) in futures.iter().enumerate() {
                match future.state() {
                    State::Finished => assert_eq!(future.value(), Some(&(number as u64))),
                    State::CancelledAndNotified => assert_eq!(future.value(), None),
                    state => panic!("{state:?}"),
                }
            }
            assert_eq!(called.into_inner(), BATCH as u64);
        });
    });
}

/// Every task runs once, though workers end with a signal and new ones come.
#[test]
fn pool() {
    let run = Run::new("pool");
    let (scheduler, submitted, ran) = (Scheduler::new(3), AtomicU64::new(0), AtomicU64::new(0));
    let number = AtomicU64::new(100);
    thread::scope(|scope| {
        let submit = |task: u64| match scheduler.submit(task).unwrap() {
            Submitted::Queued(_) => {}
            Submitted::StartWorker => {
                let user = run.user(number.fetch_add(1, Ordering::Relaxed));
                let (scheduler, ran) = (&scheduler, &ran);
                scope.spawn(move || {
                    while let Ok(Some(task)) = scheduler.next(&user) {
                        ran.fetch_add(task, Ordering::Relaxed);
                    }
                });
            }
        };
        thread::scope(|submitters| {
            run.threads(submitters, |user| {
                submitted.fetch_add(1, Ordering::Relaxed);
                submit(1);
                if user.one_in(2) {
                    thread::sleep(Duration::from_micros(user.next() % 100));
                }
            });
        });
        // A worker that ended last may have left tasks behind: the next submission starts another.
        while ran.load(Ordering::Relaxed) < submitted.load(Ordering::Relaxed) {
            submit(0);
            thread::sleep(Duration::from_micros(100));
        }
        scheduler.close();
    });
    assert_eq!(ran.into_inner(), submitted.into_inner());
    let statistics = scheduler.statistics();
    assert_eq!((statistics.queued, statistics.workers, statistics.idle), (0, 0, 0));
}
