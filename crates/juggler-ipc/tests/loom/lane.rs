use crate::{model, spawn};
use juggler_ipc::lane::{Arrival, Lane};
use juggler_sync::Deadline;
use juggler_sync::sync::{Arc, AtomicU32, Ordering};
use loom::thread::yield_now;

/// A lane, what lies in it, and the other way: how many messages are under way and which comes next there.
#[derive(Default)]
struct Line {
    lane: Lane,
    message: AtomicU32,
    socket: [AtomicU32; 3],
}

impl Line {
    fn send(&self, message: u32, fits: bool) {
        let write = fits.then_some(|| self.message.store(message, Ordering::Relaxed));
        if !self.lane.send(4, write) {
            self.socket[message as usize].store(1, Ordering::Release);
        }
    }

    /// Receives `message`, wherever it comes.
    fn receive(&self, message: u32) {
        match self.lane.wait(|_| false, Deadline::NEVER) {
            Some(Arrival::Here(length)) => {
                assert_eq!((length, self.message.load(Ordering::Relaxed)), (4, message));
                self.lane.taken();
            }
            Some(Arrival::Elsewhere) => {
                while self.socket[message as usize].load(Ordering::Acquire) == 0 {
                    yield_now();
                }
                self.lane.received_elsewhere();
            }
            None => unreachable!("no signals here"),
        }
    }
}

#[test]
fn a_message_is_received_wherever_it_goes() {
    for fits in [true, false] {
        model(move || {
            let line = Arc::new(Line::default());
            let sender = spawn(&line, move |line| line.send(1, fits));
            line.receive(1);
            sender.join().unwrap();
            assert_eq!(line.lane.arrival(), None);
        });
    }
}

#[test]
fn messages_keep_their_order() {
    model(|| {
        let line = Arc::new(Line::default());
        let sender = spawn(&line, |line| {
            line.send(1, true);
            line.send(2, true);
        });
        line.receive(1);
        line.receive(2);
        sender.join().unwrap();
        assert_eq!(line.lane.arrival(), None);
    });
}

#[test]
fn an_answer_may_come_before_anybody_waits() {
    model(|| {
        let lines = Arc::new([Line::default(), Line::default()]);
        let server = spawn(&lines, |[requests, answers]| {
            requests.receive(1);
            requests.lane.expect();
            answers.send(1, true);
            requests.receive(2);
        });
        let [requests, answers] = &*lines;
        answers.lane.expect();
        requests.send(1, true);
        answers.receive(1);
        requests.send(2, true);
        server.join().unwrap();
    });
}
