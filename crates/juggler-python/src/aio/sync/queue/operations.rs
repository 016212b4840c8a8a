//! What of a queue may wait.

use super::super::event;
use super::super::operation::{self, Ending, Next, Operation, Step};
use super::super::parking;
use super::super::reference::Ref;
use super::super::running::LoopBound;
use super::super::waiters::Lane;
use super::{self as queue, QUEUE_SHUT_DOWN, Queue};
use crate::obj::Obj;
use crate::raw::{Raised, This};
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};

/// Waits in `lane`.
fn park(queue: This<'_, '_, Queue>, lane: &Lane) -> Next {
    let py = queue.py();
    let running = LoopBound::of(queue)?;
    let future = parking::create(py, &running)?;
    lane.get_or_make(py)?.push(py, future.clone_ref(py));
    Ok(Step::Await(future))
}

/// Leaves `lane` because of `error`; a wake-up that came too late for this one goes to the next.
#[cold]
fn abandon(
    queue: This<'_, '_, Queue>,
    lane: &Lane,
    future: &Obj,
    error: Obj,
    is_possible: impl FnOnce(This<'_, '_, Queue>) -> Result<bool, Raised>,
) -> Raised {
    let py = queue.py();
    let left = || {
        parking::cancel(py, future)?;
        lane.take(py, future);
        if is_possible(queue)? && !parking::is_cancelled(py, future)? {
            queue::wake_next(queue, lane)?;
        }
        Ok(())
    };
    match left() {
        Ok(()) => operation::raise(py, error),
        Err(raised) => raised,
    }
}

/// `Queue.get()`
pub struct Get(pub Ref<Queue>);

impl Operation for Get {
    #[inline(always)]
    fn begin(&mut self, py: Python<'_>) -> Next {
        let queue = self.0.get(py);
        if queue::has_items(queue)? {
            return Ok(Step::Done(queue::get_nowait(queue)?));
        }
        if queue.is_shut_down(py) {
            return Err(QUEUE_SHUT_DOWN.raise(py, ()));
        }
        park(queue, &queue.getters)
    }

    #[inline(always)]
    fn resume(&mut self, py: Python<'_>, future: &Obj, ending: Ending) -> Next {
        let queue = self.0.get(py);
        match ending {
            Ending::Woken(_) => self.begin(py),
            Ending::Thrown(error) => Err(abandon(queue, &queue.getters, future, error, queue::has_items)),
        }
    }

    fn name(&self) -> &'static str {
        "Queue.get"
    }

    fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.0.as_obj().visit(visit)
    }
}

/// `Queue.put(item)`
pub struct Put {
    pub queue: Ref<Queue>,
    pub item: Obj,
}

impl Operation for Put {
    #[inline(always)]
    fn begin(&mut self, py: Python<'_>) -> Next {
        let queue = self.queue.get(py);
        if !queue::has_room(queue)? && !queue.is_shut_down(py) {
            return park(queue, &queue.putters);
        }
        queue::put_nowait(queue, self.item.clone_ref(py))?;
        Ok(operation::nothing(py))
    }

    #[inline(always)]
    fn resume(&mut self, py: Python<'_>, future: &Obj, ending: Ending) -> Next {
        let queue = self.queue.get(py);
        match ending {
            Ending::Woken(_) => self.begin(py),
            Ending::Thrown(error) => Err(abandon(queue, &queue.putters, future, error, queue::has_room)),
        }
    }

    fn name(&self) -> &'static str {
        "Queue.put"
    }

    fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.queue.as_obj().visit(visit)?;
        self.item.visit(visit)
    }
}

/// `Queue.join()`
pub struct Join {
    pub queue: Ref<Queue>,
    /// The wait for the event, once it has begun.
    pub wait: Option<event::Wait>,
}

impl Operation for Join {
    fn begin(&mut self, py: Python<'_>) -> Next {
        let queue = self.queue.get(py);
        if queue.inside.with(py, |inside| inside.unfinished <= 0) {
            return Ok(operation::nothing(py));
        }
        let wait = self.wait.insert(event::Wait::new(Ref::new(queue.finished(py)?)));
        to_none(py, wait.begin(py))
    }

    fn resume(&mut self, py: Python<'_>, future: &Obj, ending: Ending) -> Next {
        match &mut self.wait {
            Some(wait) => to_none(py, wait.resume(py, future, ending)),
            None => self.begin(py),
        }
    }

    fn name(&self) -> &'static str {
        "Queue.join"
    }

    fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.queue.as_obj().visit(visit)?;
        self.wait.as_ref().map_or(Ok(()), |wait| wait.visit(visit))
    }
}

fn to_none(py: Python<'_>, next: Next) -> Next {
    match next? {
        Step::Done(_) => Ok(operation::nothing(py)),
        waiting => Ok(waiting),
    }
}
