//! What reports and deadlock messages call a lock, and where its counter is.
//!
//! Most locks have no name and nobody traces them, so a lock holds one word, null until there is something to say. The
//! word's address is also the lock's identity for the tracer, for as long as the lock lives.

use crate::obj::Obj;
use crate::trace::{self, CounterCell, Target};
use juggler_sync::once::OnceBox;
use juggler_trace::Kind;
use pyo3::prelude::*;
use std::sync::OnceLock;

/// The name and the counter of a lock; see the [module](self).
#[derive(Debug)]
pub struct Label(OnceBox<Record>);

#[derive(Debug, Default)]
struct Record {
    name: OnceLock<Obj>,
    counter: CounterCell,
}

impl Label {
    /// The label of a lock that is being made.
    #[inline(always)]
    pub fn new(py: Python<'_>, class: &'static str, name: Option<Obj>) -> Self {
        let label = Self(OnceBox::new());
        if name.is_some() || trace::on() {
            label.fill(py, class, name);
        }
        label
    }

    #[cold]
    fn fill(&self, py: Python<'_>, class: &'static str, name: Option<Obj>) {
        if let Some(name) = name {
            self.set_name(name);
        }
        trace::created(py, class, self.name(), &self.record().counter);
    }

    fn record(&self) -> &Record {
        self.0.get_or_init(Record::default)
    }

    /// Gives the lock its name, if it has none.
    pub fn set_name(&self, name: Obj) {
        let _ = self.record().name.set(name);
    }

    /// The name.
    pub fn name(&self) -> Option<&Obj> {
        self.0.get()?.name.get()
    }

    /// The name as a `repr` shows it: a space and the name, or nothing.
    pub fn suffix(&self, py: Python<'_>) -> PyResult<String> {
        self.name().map_or_else(|| Ok(String::new()), |name| Ok(format!(" {}", name.bind(py).repr()?)))
    }

    /// The lock's identity.
    pub fn id(&self) -> usize {
        std::ptr::from_ref(self) as usize
    }

    /// The lock, for the tracer.
    pub fn target(&self, kind: Kind, class: &'static str) -> Target<'_> {
        Target { id: self.id(), kind, class, name: self.name(), counter: &self.record().counter }
    }
}

impl Drop for Label {
    #[inline(always)]
    fn drop(&mut self) {
        trace::forget(self.id());
    }
}
