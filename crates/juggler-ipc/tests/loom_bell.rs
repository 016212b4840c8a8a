//! Models of the bell: loom runs each through all interleavings with three preemptions, its threads standing for processes.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test -p juggler-ipc --release --test loom_bell
//! ```
//!
//! Sleepers never get up by themselves here, so what passes needs none of that to find its wake-ups.
#![cfg(loom)]

use juggler_ipc::bell::Bell;
use juggler_sync::ThreadGate;
use juggler_sync::deadline::Deadline;
use juggler_sync::park::Waited;
use juggler_sync::sync::{Arc, AtomicU32, Ordering};
use loom::thread;

/// A bell and a number of items; who rings has put one.
#[derive(Default)]
struct Shop {
    bell: Bell,
    items: AtomicU32,
}

impl Shop {
    fn put(&self) {
        self.items.fetch_add(1, Ordering::SeqCst);
        self.bell.ring();
    }

    fn get(&self) {
        loop {
            let items = self.items.load(Ordering::SeqCst);
            if items > 0 {
                if self.items.compare_exchange(items, items - 1, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                    return;
                }
                continue;
            }
            let ready = || self.items.load(Ordering::SeqCst) > 0;
            let Ok(waited) = self.bell.sleep_until(&ThreadGate, Deadline::NEVER, ready);
            assert_eq!(waited, Waited::Woken);
        }
    }
}

fn model(threads: &'static [fn(&Shop)]) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(3);
    builder.check(move || {
        let shop = Arc::new(Shop::default());
        let (last, others) = threads.split_last().expect("a model has threads");
        let others: Vec<_> = others
            .iter()
            .map(|&run| {
                let shop = shop.clone();
                thread::spawn(move || run(&shop))
            })
            .collect();
        last(&shop);
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(shop.items.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn a_sleeper_is_woken() {
    model(&[Shop::get, Shop::put]);
}

#[test]
fn a_sleeper_that_sleeps_again_is_woken_again() {
    model(&[
        |shop| {
            shop.get();
            shop.get();
        },
        |shop| {
            shop.put();
            shop.put();
        },
    ]);
}

#[test]
fn each_of_two_sleepers_is_woken() {
    model(&[Shop::get, Shop::get, |shop| {
        shop.put();
        shop.put();
    }]);
}

#[test]
fn two_ringers_at_once_wake_two_sleepers() {
    model(&[Shop::get, Shop::put, |shop| {
        shop.put();
        shop.get();
    }]);
}

#[test]
fn all_sleepers_are_woken_at_once() {
    fn wait(shop: &Shop) {
        let ready = || shop.items.load(Ordering::SeqCst) == 0;
        if !ready() {
            let Ok(waited) = shop.bell.sleep_until(&ThreadGate, Deadline::NEVER, ready);
            assert_eq!(waited, Waited::Woken);
        }
    }
    model(&[wait, wait, |shop| {
        shop.items.store(1, Ordering::SeqCst);
        shop.items.store(0, Ordering::SeqCst);
        shop.bell.ring_all();
    }]);
}
