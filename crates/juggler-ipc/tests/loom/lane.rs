use crate::{model, spawn};
use juggler_ipc::lane::{FRESH, Lane};
use juggler_sync::sync::{Arc, AtomicU32, Ordering};
use loom::sync::{Condvar, Mutex};
use loom::thread::yield_now;
use std::collections::VecDeque;

/// A lane, what lies in it, and the socket beside it.
#[derive(Default)]
struct Line {
    lane: Lane,
    message: AtomicU32,
    socket: Mutex<VecDeque<u32>>,
    sent: Condvar,
    received: AtomicU32,
}

impl Line {
    fn send(&self, message: u32, now: u64) {
        let drained = || self.socket.lock().unwrap().is_empty();
        if !self.lane.send(4, || now, drained, || self.message.store(message, Ordering::Relaxed)) {
            self.socket.lock().unwrap().push_back(message);
            self.sent.notify_all();
        }
    }

    /// Receives a message, by a wait at the lane that begins at the time `begin`, or else from the socket.
    fn receive(&self, begin: u64) -> u32 {
        if let Some(message) = self.socket.lock().unwrap().pop_front() {
            return message;
        }
        let arrived = self.lane.wait(begin).and_then(|wait| {
            if !wait.is_over() {
                yield_now();
            }
            wait.end()
        });
        if let Some(arrived) = arrived {
            assert_eq!(arrived.length(), 4);
            return self.message.load(Ordering::Relaxed);
        }
        let mut socket = self.socket.lock().unwrap();
        loop {
            match socket.pop_front() {
                Some(message) => return message,
                None => socket = self.sent.wait(socket).unwrap(),
            }
        }
    }
}

#[test]
fn messages_keep_their_order() {
    model(|| {
        let line = Arc::new(Line::default());
        let sender = spawn(&line, |line| {
            line.send(1, 2);
            line.send(2, 2);
        });
        assert_eq!([line.receive(1), line.receive(2)], [1, 2]);
        sender.join().unwrap();
        assert!(line.lane.wait(3).is_some(), "nobody is there any more");
    });
}

#[test]
fn of_two_senders_messages_none_is_lost() {
    model(|| {
        let line = Arc::new(Line::default());
        let senders = [1, 2].map(|message| spawn(&line, move |line| line.send(message, 2)));
        assert_eq!(line.receive(1) + line.receive(2), 3);
        for sender in senders {
            sender.join().unwrap();
        }
        assert!(line.lane.wait(3).is_some());
    });
}

#[test]
fn of_two_receivers_each_gets_a_message() {
    // The second comes while the first is thought to look, or when that one is given up.
    for begin in [2, 2 + FRESH] {
        model(move || {
            let line = Arc::new(Line::default());
            let receiver = spawn(&line, |line| line.received.store(line.receive(1), Ordering::Relaxed));
            let sender = spawn(&line, |line| {
                line.send(1, 1 + FRESH);
                line.send(2, 2 + FRESH);
            });
            let message = line.receive(begin);
            receiver.join().unwrap();
            sender.join().unwrap();
            assert_eq!(line.received.load(Ordering::Relaxed) + message, 3);
        });
    }
}
