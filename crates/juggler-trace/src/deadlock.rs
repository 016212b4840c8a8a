//! A deadlock as found, and the text that explains it: what, where, and what to do.

use std::collections::HashMap;
use std::fmt;

use crate::site::{Kind, Resource, Site, ThreadId};

/// At most this many threads are drawn.
const SHOWN: usize = 12;

/// Threads that wait for each other for ever.
#[derive(Clone, Debug)]
pub struct Deadlock {
    steps: Vec<Step>,
    /// Where the last step leads back to; nowhere if its wait could not be ended even by a thread that runs.
    repeats: Option<usize>,
    names: HashMap<ThreadId, String>,
}

/// One thread of a deadlock.
#[derive(Clone, Debug)]
pub struct Step {
    /// The thread that waits.
    pub thread: ThreadId,
    /// For what.
    pub resource: Resource,
    /// Where.
    pub site: Site,
    /// Why nobody will end the wait.
    pub reason: Reason,
    /// What led to the place, its caller first, then the caller's caller; see [`Deadlock::with_stacks`].
    pub stack: Vec<Site>,
}

/// Why a wait won't end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A thread holds it that waits as well, or has ended.
    Held {
        /// That thread.
        by: ThreadId,
        /// Where it took it.
        at: Site,
        /// Whether it has ended.
        ended: bool,
        /// Whether any other thread might release it; they all wait.
        anyone: bool,
    },
    /// It is the end of a thread that waits.
    Joined {
        /// That thread.
        thread: ThreadId,
    },
    /// It is the result of a task whose worker waits.
    Running {
        /// That worker.
        by: ThreadId,
    },
    /// It is the result of a task that is queued in a pool all of whose workers wait.
    Queued {
        /// How many they are.
        workers: usize,
    },
    /// Any thread could end it; they all wait.
    Nobody,
}

impl Deadlock {
    pub(crate) fn new(steps: Vec<Step>, repeats: Option<usize>) -> Self {
        Self { steps, repeats, names: HashMap::new() }
    }

    /// The threads, from the one that was about to wait along those that could have ended each wait.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Gives the threads their names for the text; one without a name is shown by its number.
    #[must_use]
    pub fn named(mut self, mut name: impl FnMut(ThreadId) -> Option<String>) -> Self {
        for step in &self.steps {
            let other = match step.reason {
                Reason::Held { by, .. } | Reason::Running { by } => by,
                Reason::Joined { thread } => thread,
                Reason::Queued { .. } | Reason::Nobody => step.thread,
            };
            for thread in [step.thread, other] {
                if let Some(name) = name(thread) {
                    self.names.insert(thread, name);
                }
            }
        }
        self
    }

    /// Fills in each step's stack, given the thread and the place where it waits. The threads don't move, so that
    /// nothing of it need be recorded when they come to wait.
    #[must_use]
    pub fn with_stacks(mut self, stack: impl Fn(ThreadId, Site) -> Vec<Site>) -> Self {
        for step in &mut self.steps {
            step.stack = stack(step.thread, step.site);
        }
        self
    }

    fn name(&self, thread: ThreadId) -> String {
        self.names.get(&thread).cloned().unwrap_or_else(|| format!("thread {thread}"))
    }

    fn headline(&self) -> String {
        let count = self.steps.len();
        let threads = if count == 1 { "a thread waits".to_owned() } else { format!("{count} threads wait") };
        if matches!(&self.steps[..], [step] if step.holds_it()) {
            return "a thread waits for a lock that it holds itself".to_owned();
        }
        if self.steps.iter().any(Step::needs_anyone) {
            return "every thread waits, so none can wake another".to_owned();
        }
        if self.steps.iter().any(Step::holder_ended) {
            return format!("{threads} for a lock whose holder has ended");
        }
        match self.repeats {
            Some(0) if count == 1 => match self.steps[0].reason {
                Reason::Queued { .. } => "a pool's only worker waits for a task that is queued behind it".to_owned(),
                _ => "a thread waits for itself".to_owned(),
            },
            Some(first) if first > 0 && count - first == 1 => {
                "this thread waits for one that waits for itself".to_owned()
            }
            Some(first) if first > 0 => {
                format!("this thread waits for {} threads that wait for each other", count - first)
            }
            _ => format!("{threads} for each other"),
        }
    }

    fn advice(&self) -> &'static str {
        let any = |test: fn(&Step) -> bool| self.steps.iter().any(test);
        if any(|step| step.holds_it() && step.resource.kind == Kind::Lock) {
            "release it first, or use juggler.threading.RLock, which its holder may take again"
        } else if any(Step::needs_anyone) {
            "let the thread that wakes the others do so before it waits, or wait with a timeout"
        } else if any(Step::holder_ended) {
            "take the lock in a `with` statement, which releases it however the thread ends"
        } else if any(|step| matches!(step.reason, Reason::Queued { .. })) {
            "give the pool more workers, or let no task wait for another task of its own pool"
        } else if any(|step| matches!(step.reason, Reason::Joined { .. } | Reason::Running { .. })) {
            if any(|step| matches!(step.reason, Reason::Held { .. })) {
                "release the lock before waiting for a thread or a task that needs it"
            } else {
                "let no thread or task wait for one that waits for it"
            }
        } else {
            "take them in one order everywhere, or all at once with juggler.threading.acquire_all(...)"
        }
    }

    fn write_step(&self, f: &mut fmt::Formatter<'_>, step: &Step) -> fmt::Result {
        let thread = self.name(step.thread);
        write!(f, "\n  {thread} waits for ")?;
        match (&step.reason, step.resource.kind) {
            (Reason::Joined { thread }, _) => write!(f, "the end of {}", self.name(*thread))?,
            (_, Kind::Future) => write!(f, "the result of {}", step.resource)?,
            (_, Kind::Condition) => write!(f, "a notification of {}", step.resource)?,
            _ => write!(f, "{}", step.resource)?,
        }
        write!(f, " at {}", step.site)?;
        match &step.reason {
            Reason::Held { by, at, anyone, .. } if *by == step.thread => {
                write!(f, "\n    which it took itself at {at}")?;
                if *anyone { f.write_str(", and which no other thread is left to release") } else { Ok(()) }
            }
            Reason::Held { by, at, ended: true, .. } => {
                write!(f, "\n    which {} took at {at}, and never released: it has ended", self.name(*by))
            }
            Reason::Held { by, at, .. } => write!(f, "\n    which {} took at {at}", self.name(*by)),
            Reason::Joined { .. } => Ok(()),
            Reason::Running { by } if *by == step.thread => f.write_str("\n    which it computes itself"),
            Reason::Running { by } => write!(f, "\n    which {} computes", self.name(*by)),
            Reason::Queued { workers: 1 } => f.write_str("\n    whose task is queued for a pool's only worker"),
            Reason::Queued { workers } => {
                write!(f, "\n    whose task is queued for a pool of {workers} workers, which all wait")
            }
            Reason::Nobody => f.write_str("\n    which no thread is left to end"),
        }
    }
}

impl Step {
    fn needs_anyone(&self) -> bool {
        matches!(self.reason, Reason::Nobody | Reason::Held { anyone: true, .. })
    }

    fn holder_ended(&self) -> bool {
        matches!(self.reason, Reason::Held { ended: true, .. })
    }

    fn holds_it(&self) -> bool {
        matches!(self.reason, Reason::Held { by, .. } if by == self.thread)
    }
}

impl fmt::Display for Deadlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "deadlock: {}", self.headline())?;
        let shown = &self.steps[..self.steps.len().min(SHOWN)];
        for step in shown {
            self.write_step(f, step)?;
        }
        if shown.len() < self.steps.len() {
            write!(f, "\n  and so on, for {} more threads", self.steps.len() - shown.len())?;
        }
        write!(f, "\n{}", self.advice())?;
        for step in shown.iter().filter(|step| !step.stack.is_empty()) {
            write!(f, "\n{} waits (most recent call last):", self.name(step.thread))?;
            for site in step.stack.iter().rev().chain([&step.site]) {
                write!(f, "\n    {site}")?;
            }
        }
        Ok(())
    }
}
