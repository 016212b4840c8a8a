//! The attributes and methods of `Task`.

use super::class::{self, Native};
use super::future::Future;
use super::future_methods::cancel_message_of;
use super::stdlib::{self, TASK, TASK_GET_STACK, TASK_PRINT_STACK, TASK_REPR};
use super::task::{self, Name, Task, TaskFields, as_future};
use crate::obj::Obj;
use crate::raw::{self, Args, Raised, RawResult, This, methods};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::{PyDict, PyTuple, PyType};

#[pymethods]
impl Task {
    #[new]
    #[pyo3(
        signature = (*_args, **_kwargs),
        text_signature = "(coro, *, loop=None, name=None, context=None, eager_start=False)"
    )]
    fn py_new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> PyClassInitializer<Self> {
        let own = Self::new(TaskFields::new(None, None, Name::Number(0)));
        PyClassInitializer::from(Future::new(None)).add_subclass(own)
    }

    #[pyo3(signature = (coro, *, r#loop=None, name=None, context=None, eager_start=None))]
    fn __init__(
        slf: &Bound<'_, Self>,
        coro: Bound<'_, PyAny>,
        r#loop: Option<Bound<'_, PyAny>>,
        name: Option<Bound<'_, PyAny>>,
        context: Option<Bound<'_, PyAny>>,
        eager_start: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let py = slf.py();
        let object: Obj = slf.clone().into_any().into();
        let this = class::assume::<Self>(py, &object);
        let future = as_future(this);
        future.init(py, r#loop)?;
        let coroutine: Obj = coro.into();
        task::check_coroutine(py, &coroutine).map_err(|raised| raised.fetch(py))?;
        let name = match name {
            Some(name) => task::name_of(&name)?,
            None => Name::next(),
        };
        let given = context.as_ref().map_or(std::ptr::null_mut(), Bound::as_ptr);
        let context = task::context_of_new(py, given).map_err(|raised| raised.fetch(py))?;
        let fields = TaskFields::new(Some(coroutine), Some(context), name);
        let stale = this.own.with(py, |own| std::mem::replace(own, fields));
        drop(stale);
        let event_loop = future.event_loop(py).map_err(|raised| raised.fetch(py))?;
        let eager =
            eager_start.map_or(Ok(false), |eager| eager.is_truthy())? && task::is_running(py, &event_loop.bind(py))?;
        let begun =
            if eager { task::begin_eagerly(py, &event_loop, &object) } else { task::begin(py, &event_loop, &object) };
        begun.map_err(|raised| raised.fetch(py))
    }

    #[classmethod]
    #[pyo3(signature = (item, /))]
    fn __class_getitem__<'py>(cls: &Bound<'py, PyType>, item: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        stdlib::GENERIC_ALIAS.get(cls.py())?.call1((cls, item))
    }

    fn __repr__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        TASK_REPR.get(slf.py())?.call1((slf,))
    }

    #[getter(__class__)]
    fn class<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let class = slf.get_type();
        if class.is(py.get_type::<Self>()) { Ok(TASK.get(py)?.clone()) } else { Ok(class.into_any()) }
    }

    #[getter(_coro)]
    fn peek_coro<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.peek(py, |own| &own.coroutine)
    }

    #[getter(_fut_waiter)]
    fn peek_waiter<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.peek(py, |own| &own.waiter)
    }

    #[getter(_context)]
    fn peek_context<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.peek(py, |own| &own.context)
    }

    #[getter(_must_cancel)]
    fn must_cancel(&self, py: Python<'_>) -> bool {
        self.own.with(py, |own| own.must_cancel)
    }

    #[setter(_must_cancel)]
    fn set_must_cancel(&self, py: Python<'_>, must_cancel: &Bound<'_, PyAny>) -> PyResult<()> {
        let must_cancel = must_cancel.is_truthy()?;
        self.own.with(py, |own| own.must_cancel = must_cancel);
        Ok(())
    }

    #[getter(_num_cancels_requested)]
    fn num_cancels_requested(&self, py: Python<'_>) -> u32 {
        self.own.with(py, |own| own.cancels)
    }

    #[getter(_log_destroy_pending)]
    fn report_pending(&self, py: Python<'_>) -> bool {
        self.own.with(py, |own| own.report_pending)
    }

    #[setter(_log_destroy_pending)]
    fn set_report_pending(&self, py: Python<'_>, report: &Bound<'_, PyAny>) -> PyResult<()> {
        let report = report.is_truthy()?;
        self.own.with(py, |own| own.report_pending = report);
        Ok(())
    }

    /// The frames of the coroutine where it is suspended, or those of its exception's traceback.
    ///
    /// Args:
    ///     limit: how many frames at most.
    #[pyo3(signature = (*, limit=None))]
    fn get_stack<'py>(slf: &Bound<'py, Self>, limit: Option<Bound<'py, PyAny>>) -> PyResult<Bound<'py, PyAny>> {
        TASK_GET_STACK.get(slf.py())?.call1((slf, limit))
    }

    /// Print the stack or traceback of the coroutine.
    ///
    /// Args:
    ///     limit: how many frames at most.
    ///     file: where to; to `sys.stderr` if None.
    #[pyo3(signature = (*, limit=None, file=None))]
    fn print_stack<'py>(
        slf: &Bound<'py, Self>,
        limit: Option<Bound<'py, PyAny>>,
        file: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        TASK_PRINT_STACK.get(slf.py())?.call1((slf, limit, file))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.visit(&visit)
    }

    fn __clear__(&self, py: Python<'_>) {
        self.clear(py);
    }
}

impl Task {
    fn peek<'py>(&self, py: Python<'py>, which: impl FnOnce(&TaskFields) -> &Option<Obj>) -> Option<Bound<'py, PyAny>> {
        let found = self.own.with(py, |own| which(own).as_ref().map(|object| object.clone_ref(py)));
        found.map(|object| object.into_bound(py))
    }
}

fn cancel(this: This<'_, '_, Task>, args: Args<'_>) -> RawResult {
    let message = cancel_message_of(this.py(), args)?;
    as_future(this).event_loop(this.py())?;
    task::cancel(this, message.as_ref()).map(raw::bool)
}

fn uncancel(this: This<'_, '_, Task>) -> RawResult {
    number(this.py(), task::uncancel(this))
}

fn cancelling(this: This<'_, '_, Task>) -> RawResult {
    number(this.py(), task::cancelling(this))
}

fn number(py: Python<'_>, number: u32) -> RawResult {
    let Ok(number) = number.into_pyobject(py);
    Ok(number.into_any().into_ptr())
}

fn get_coro(this: This<'_, '_, Task>) -> RawResult {
    Ok(this.peek(this.py(), |own| &own.coroutine).map_or_else(raw::none, Bound::into_ptr))
}

fn get_context(this: This<'_, '_, Task>) -> RawResult {
    Ok(this.peek(this.py(), |own| &own.context).map_or_else(raw::none, Bound::into_ptr))
}

fn get_name(this: This<'_, '_, Task>) -> RawResult {
    Ok(task::name(this).into_ptr())
}

fn set_name(this: This<'_, '_, Task>, args: Args<'_>) -> RawResult {
    let py = this.py();
    let [name] = args.parse(py, "set_name", [c"value"], 1)?;
    // SAFETY: an argument is live.
    #[allow(unsafe_code)]
    let name = unsafe { Bound::from_borrowed_ptr(py, name) };
    let name = task::name_of(&name).map_err(|error| Raised::from_err(py, error))?;
    let stale = this.own.with(py, |own| std::mem::replace(&mut own.name, name));
    drop(stale);
    Ok(raw::none())
}

fn set_result(this: This<'_, '_, Task>, _args: Args<'_>) -> RawResult {
    Err(Raised::new::<PyRuntimeError>(this.py(), "Task does not support set_result operation"))
}

fn set_exception(this: This<'_, '_, Task>, _args: Args<'_>) -> RawResult {
    Err(Raised::new::<PyRuntimeError>(this.py(), "Task does not support set_exception operation"))
}

fn del(this: This<'_, '_, Task>) -> RawResult {
    if Task::must_report(this) {
        Task::report(this);
    }
    Ok(raw::none())
}

const CANCEL: &str = "($self, /, msg=None)\n--\n\n\
Have CancelledError raised in the coroutine, at what it waits for or in its next step.\n\n\
Returns False if the task is done. It may go on nevertheless: whether it was cancelled shows when it has ended.";
const UNCANCEL: &str = "($self, /)\n--\n\n\
Take one request to cancel back; returns how many are left. For whoever called `cancel` and has seen its effect.";

methods! { add_methods for Task {
    "cancel" => keywords cancel, CANCEL;
    "uncancel" => noargs uncancel, UNCANCEL;
    "cancelling" => noargs cancelling, "($self, /)\n--\n\nHow many requests to cancel there are that were not taken back.";
    "get_coro" => noargs get_coro, "($self, /)\n--\n\nThe coroutine; None if it ended in its eager first step.";
    "get_context" => noargs get_context, "($self, /)\n--\n\nThe context in which the coroutine runs.";
    "get_name" => noargs get_name, "($self, /)\n--\n\nThe name of the task.";
    "set_name" => keywords set_name, "($self, value, /)\n--\n\nGive the task a name: `str(value)`.";
    "set_result" => keywords set_result, "($self, result, /)\n--\n\nRaises RuntimeError: the result is the coroutine's.";
    "set_exception" => keywords set_exception, "($self, exception, /)\n--\n\nRaises RuntimeError: the exception is the coroutine's.";
    "__del__" => noargs del, "($self, /)\n--\n\nReport a task that never ended, or an exception that nobody has asked for.";
} }

/// Adds what PyO3 does not to the class.
pub fn finish_class(py: Python<'_>) -> PyResult<()> {
    add_methods(py)
}
