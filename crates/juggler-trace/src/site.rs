//! Places in the program, and the names of what is waited for.

use std::collections::HashSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// A thread, by a number that no other thread of the process has had or will have. (The system's thread identifiers
/// will not do: they are given out again, and a lock would seem to be held by a thread that never took it.)
pub type ThreadId = u64;

/// A primitive, by its address. Its owner reports the end of its life, before the address can be given out again.
pub type ResourceId = usize;

/// What a thread waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A lock that any thread may release.
    Lock,
    /// A lock that only its owner may release, and may take again.
    RLock,
    /// A condition's notification.
    Condition,
    /// The end of a thread.
    Join,
    /// A future's result.
    Future,
    /// An event's being set.
    Event,
    /// A semaphore's permit.
    Semaphore,
    /// An item of a queue, or room in it.
    Queue,
    /// The other parties of a barrier.
    Barrier,
    /// A lock with shared and exclusive holders.
    ReadWriteLock,
}

impl Kind {
    /// The name of the class in Python.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lock => "Lock",
            Self::RLock => "RLock",
            Self::Condition => "Condition",
            Self::Join => "Thread",
            Self::Future => "Future",
            Self::Event => "Event",
            Self::Semaphore => "Semaphore",
            Self::Queue => "Queue",
            Self::Barrier => "Barrier",
            Self::ReadWriteLock => "ReadWriteLock",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A primitive, as reports name it: `Lock 'accounts[0]'`, or by its address if it has no name.
#[derive(Clone, Debug)]
pub struct Resource {
    /// Its address.
    pub id: ResourceId,
    /// What it is.
    pub kind: Kind,
    /// The name that the program gave it.
    pub name: Option<Arc<str>>,
}

impl Resource {
    /// A primitive without a name.
    pub fn new(kind: Kind, id: ResourceId) -> Self {
        Self { id, kind, name: None }
    }

    /// The same, named.
    #[must_use]
    pub fn named(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = Some(name.into());
        self
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{} '{name}'", self.kind),
            None => write!(f, "{} at {:#x}", self.kind, self.id),
        }
    }
}

/// A place in the program. Two are equal if file, line and function are.
///
/// Places are made at every use of a lock and kept by whatever is recorded: so each is stored once and for ever, which
/// makes a copy of it a pointer. There are no more than calls in the program's text.
#[derive(Clone, Copy)]
pub struct Site(&'static Place);

#[derive(PartialEq, Eq, Hash)]
struct Place {
    file: Box<str>,
    line: u32,
    function: Box<str>,
}

static PLACES: LazyLock<Mutex<HashSet<&'static Place>>> = LazyLock::new(Mutex::default);

impl Site {
    /// The place `file:line` in `function`.
    pub fn new(file: &str, line: u32, function: &str) -> Self {
        let place = Place { file: file.into(), line, function: function.into() };
        let mut places = PLACES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = places.get(&place) {
            return Self(known);
        }
        let place: &'static Place = Box::leak(Box::new(place));
        places.insert(place);
        Self(place)
    }

    /// The file's name.
    pub fn file(self) -> &'static str {
        &self.0.file
    }

    /// The line, from 1.
    pub fn line(self) -> u32 {
        self.0.line
    }

    /// The function's name.
    pub fn function(self) -> &'static str {
        &self.0.function
    }
}

impl PartialEq for Site {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.0, other.0)
    }
}

impl Eq for Site {}

impl Hash for Site {
    fn hash<H: Hasher>(&self, state: &mut H) {
        std::ptr::hash(self.0, state);
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} in {}", self.file(), self.line(), self.function())
    }
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
