//! The native part of `asyncio.TaskGroup`: making tasks, and taking note that they are done.
//!
//! `juggler.asyncio.TaskGroup` is this class first and the standard library's second, whose code runs when the group is left,
//! when it is aborted and when a task fails; it finds what it looks for under the standard library's names.
#![allow(unsafe_code)]

use super::any_future;
use super::callback::owned;
use super::class::as_plain;
use super::creating;
use super::future::{self, Outcome};
use crate::attached::Attached;
use crate::gc::Ready;
use crate::obj::Obj;
use crate::raw::{Args, Raised, RawResult, This, methods};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::{PyDict, PySet, PyTuple};

struct GroupFields {
    event_loop: Option<Obj>,
    parent: Option<Obj>,
    /// What the group waits for when it is left.
    completed: Option<Obj>,
    /// A set: the tasks that are not done.
    tasks: Option<Obj>,
    entered: bool,
    exiting: bool,
    aborting: bool,
}

/// The native part of a task group; see `juggler.asyncio.TaskGroup`.
#[pyclass(frozen, subclass, dict, weakref, module = "juggler._juggler", name = "TaskGroup")]
pub struct TaskGroup {
    ready: Ready,
    fields: Attached<GroupFields>,
}

impl TaskGroup {
    fn peek<'py>(
        &self,
        py: Python<'py>,
        which: impl FnOnce(&mut GroupFields) -> &mut Option<Obj>,
    ) -> Option<Bound<'py, PyAny>> {
        let found = self.fields.with(py, |fields| which(fields).as_ref().map(|object| object.clone_ref(py)));
        found.map(|object| object.into_bound(py))
    }

    fn poke(
        &self,
        py: Python<'_>,
        which: impl FnOnce(&mut GroupFields) -> &mut Option<Obj>,
        value: Option<Bound<'_, PyAny>>,
    ) {
        let value = value.map(Obj::from);
        let stale = self.fields.with(py, |fields| std::mem::replace(which(fields), value));
        drop(stale);
    }
}

#[pymethods]
impl TaskGroup {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs), text_signature = "()")]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        let fields = GroupFields {
            event_loop: None,
            parent: None,
            completed: None,
            tasks: None,
            entered: false,
            exiting: false,
            aborting: false,
        };
        Self { ready: Ready::new(), fields: Attached::new(fields) }
    }

    #[getter(_loop)]
    fn event_loop<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.peek(py, |fields| &mut fields.event_loop)
    }

    #[setter(_loop)]
    fn set_event_loop(&self, py: Python<'_>, event_loop: Option<Bound<'_, PyAny>>) {
        self.poke(py, |fields| &mut fields.event_loop, event_loop);
    }

    #[getter(_parent_task)]
    fn parent<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.peek(py, |fields| &mut fields.parent)
    }

    #[setter(_parent_task)]
    fn set_parent(&self, py: Python<'_>, parent: Option<Bound<'_, PyAny>>) {
        self.poke(py, |fields| &mut fields.parent, parent);
    }

    #[getter(_on_completed_fut)]
    fn completed<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.peek(py, |fields| &mut fields.completed)
    }

    #[setter(_on_completed_fut)]
    fn set_completed(&self, py: Python<'_>, completed: Option<Bound<'_, PyAny>>) {
        self.poke(py, |fields| &mut fields.completed, completed);
    }

    #[getter(_tasks)]
    fn tasks<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.peek(py, |fields| &mut fields.tasks)
    }

    #[setter(_tasks)]
    fn set_tasks(&self, py: Python<'_>, tasks: Bound<'_, PySet>) {
        self.poke(py, |fields| &mut fields.tasks, Some(tasks.into_any()));
    }

    #[getter(_entered)]
    fn entered(&self, py: Python<'_>) -> bool {
        self.fields.with(py, |fields| fields.entered)
    }

    #[setter(_entered)]
    fn set_entered(&self, py: Python<'_>, entered: bool) {
        self.fields.with(py, |fields| fields.entered = entered);
    }

    #[getter(_exiting)]
    fn exiting(&self, py: Python<'_>) -> bool {
        self.fields.with(py, |fields| fields.exiting)
    }

    #[setter(_exiting)]
    fn set_exiting(&self, py: Python<'_>, exiting: bool) {
        self.fields.with(py, |fields| fields.exiting = exiting);
    }

    #[getter(_aborting)]
    fn aborting(&self, py: Python<'_>) -> bool {
        self.fields.with(py, |fields| fields.aborting)
    }

    #[setter(_aborting)]
    fn set_aborting(&self, py: Python<'_>, aborting: bool) {
        self.fields.with(py, |fields| fields.aborting = aborting);
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if !self.ready.is_ready() {
            return Ok(());
        }
        self.fields.traverse(|fields| {
            let objects = [&fields.event_loop, &fields.parent, &fields.completed, &fields.tasks];
            objects.into_iter().flatten().try_for_each(|object| object.visit(&visit))
        })
    }

    fn __clear__(&self, py: Python<'_>) {
        let stale = self.fields.with(py, |fields| {
            (fields.event_loop.take(), fields.parent.take(), fields.completed.take(), fields.tasks.take())
        });
        drop(stale);
    }
}

/// The task that waits for those of `object`, a group.
pub fn asker(py: Python<'_>, object: &Obj) -> Option<Obj> {
    let object = object.bind(py);
    object.cast::<TaskGroup>().ok()?.get().peek(py, |fields| &mut fields.parent).map(Obj::from)
}

/// How many tasks are not done.
fn len(tasks: &Obj) -> usize {
    // SAFETY: `_tasks` is a set.
    unsafe { ffi::PySet_Size(tasks.as_ptr()) as usize }
}

fn create_task(this: This<'_, '_, TaskGroup>, args: Args<'_>) -> RawResult {
    let py = this.py();
    let open = this.fields.with(py, |fields| {
        let tasks = fields.tasks.as_ref().filter(|_| fields.entered && !fields.aborting)?;
        let event_loop = fields.event_loop.as_ref()?;
        Some((event_loop.clone_ref(py), tasks.clone_ref(py), fields.exiting))
    });
    let Some((event_loop, tasks, _)) = open.filter(|(_, tasks, exiting)| !exiting || len(tasks) > 0) else {
        return refuse(this, args);
    };
    let task = creating::create_in(py, &event_loop, args)?;
    // SAFETY: a set and a live object.
    if unsafe { ffi::PySet_Add(tasks.as_ptr(), task.as_ptr()) } != 0 {
        return Err(Raised);
    }
    // Also of a task that is done already, having started eagerly: what it raised must not cancel the parent too early.
    // SAFETY: the receiver is live.
    let object = unsafe { Obj::from_borrowed(this.as_any().as_ptr()) };
    any_future::subscribe(py, &task, &object, task_done)?;
    if this.aborting(py) && !any_future::is_done(py, &task)? {
        // An eager first step has aborted the group.
        super::callback::cancel(py, &task, None)?;
    }
    Ok(task.into_ptr())
}

/// The standard library's error.
#[cold]
fn refuse(this: This<'_, '_, TaskGroup>, args: Args<'_>) -> RawResult {
    static CLASS: super::stdlib::Import = super::stdlib::Import::new("juggler.asyncio.taskgroups", "_StdlibTaskGroup");
    let py = this.py();
    let function = CLASS.get(py).and_then(|class| class.getattr(intern!(py, "create_task")));
    let function = function.map_err(|error| Raised::from_err(py, error))?;
    let mut values = vec![this.as_any().as_ptr()];
    values.extend(args.values());
    // SAFETY: the arguments are those of the call, behind the receiver.
    owned(unsafe { ffi::PyObject_Vectorcall(function.as_ptr(), values.as_ptr(), args.positional() + 1, args.names()) })
        .map(Obj::into_ptr)
}

/// A task of the group is done.
fn task_done(py: Python<'_>, group: &Obj, task: &Obj) -> Result<(), Raised> {
    let failed = match as_plain(py, task) {
        Some(this) => this.fields.with(py, |fields| fields.failed),
        None => matches!(any_future::outcome(py, task)?, Outcome::Failed(_)),
    };
    if failed {
        let told = group.bind(py).call_method1(intern!(py, "_on_task_done"), (task.bind(py),));
        return told.map(drop).map_err(|error| Raised::from_err(py, error));
    }
    let group = group.bind(py);
    // SAFETY: callbacks of this kind belong to groups.
    let this: This<'_, '_, TaskGroup> = unsafe { This::new(py, group.as_ptr()) };
    let (tasks, completed) = this.fields.with(py, |fields| {
        (
            fields.tasks.as_ref().map(|tasks| tasks.clone_ref(py)),
            fields.completed.as_ref().map(|future| future.clone_ref(py)),
        )
    });
    let Some(tasks) = tasks else { return Ok(()) };
    // SAFETY: a set and a live object.
    if unsafe { ffi::PySet_Discard(tasks.as_ptr(), task.as_ptr()) } < 0 {
        return Err(Raised);
    }
    if let Some(completed) = completed.filter(|_| len(&tasks) == 0)
        && !any_future::is_done(py, &completed)?
    {
        return complete(py, &completed);
    }
    Ok(())
}

fn complete(py: Python<'_>, completed: &Obj) -> Result<(), Raised> {
    if let Some(this) = as_plain(py, completed) {
        // SAFETY: always there.
        return future::finish(this, unsafe { Obj::from_borrowed(ffi::Py_True()) });
    }
    let set = completed.bind(py).call_method1(intern!(py, "set_result"), (true,));
    set.map(drop).map_err(|error| Raised::from_err(py, error))
}

methods! { add_methods for TaskGroup {
    "create_task" => keywords create_task,
        "($self, coro, *, name=None, context=None, **kwargs)\n--\n\nSchedule a coroutine as a task of the group.";
} }

/// Adds what PyO3 does not to the class.
pub fn finish_class(py: Python<'_>) -> PyResult<()> {
    add_methods(py)
}
