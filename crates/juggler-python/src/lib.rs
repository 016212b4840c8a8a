//! The extension module `juggler._juggler`: juggler's engine as Python classes.
//!
//! One file per class. [`gate`] is the only place that detaches from the interpreter, [`raw`] holds CPython's own calling
//! convention for the hottest methods, [`layout`] makes and frees the hottest classes' instances, [`obj`] holds the
//! references that the engine's containers own, [`label`] the names of locks.

mod aio;
mod attached;
mod barrier;
mod choosing;
mod condition;
mod event;
mod fetch;
mod fork;
mod freed;
mod futures;
mod gate;
mod gc;
mod gil;
mod ipc;
mod label;
mod layout;
mod lock;
mod obj;
mod policy;
mod queue;
mod raw;
mod rlock;
mod rwlock;
mod semaphore;
mod timeout;
mod trace;
#[cfg(not(Py_3_14))]
mod unwind;

use pyo3::prelude::*;

/// juggler's native core.
#[pymodule(gil_used = false)]
mod _juggler {
    use super::*;

    #[pymodule_export]
    use super::aio::creating::create_task;
    #[pymodule_export]
    use super::aio::event_loop::Loop;
    #[pymodule_export]
    use super::aio::gather::gather;
    #[pymodule_export]
    use super::aio::handle::set_handle_classes;
    #[pymodule_export]
    use super::aio::registry::pending_tasks;
    #[pymodule_export]
    use super::aio::shield::shield;
    #[pymodule_export]
    use super::aio::sleep::Sleep;
    #[pymodule_export]
    use super::aio::streams::{StreamReader, StreamWriter, set_child_protocol_class, set_stream_protocol_class};
    #[pymodule_export]
    use super::aio::timeout::{Timeout, timeout};
    #[pymodule_export]
    use super::aio::tls::Tls;
    #[pymodule_export]
    use super::aio::transport::accept::Acceptor;
    #[pymodule_export]
    use super::aio::transport::datagram::Datagram;
    #[pymodule_export]
    use super::aio::transport::pipes::{ReadPipe, WritePipe};
    #[pymodule_export]
    use super::aio::transport::stream::{Stream, set_transport_class};
    #[pymodule_export]
    use super::aio::wait::Watch;
    #[pymodule_export]
    use super::aio::wait_for::wait_for;
    #[pymodule_export]
    use super::barrier::{Barrier, BarrierStatistics};
    #[pymodule_export]
    use super::choosing::Probe;
    #[pymodule_export]
    use super::condition::{Condition, ConditionStatistics};
    #[pymodule_export]
    use super::event::{Event, EventStatistics};
    #[pymodule_export]
    use super::fetch::{FetchEngine, fetch_command};
    #[pymodule_export]
    use super::futures::completed::as_completed;
    #[pymodule_export]
    use super::futures::future::Future;
    #[pymodule_export]
    use super::futures::pool::{ThreadPoolExecutor, ThreadPoolExecutorStatistics};
    #[pymodule_export]
    use super::futures::wait::wait;
    #[pymodule_export]
    use super::futures::{close_pools, forget_workers, set_future_class, set_worker_starter};
    #[pymodule_export]
    use super::ipc::arena::Block;
    #[pymodule_export]
    use super::ipc::barrier::SharedBarrier;
    #[pymodule_export]
    use super::ipc::condition::SharedRoom;
    #[pymodule_export]
    use super::ipc::connection::Connection;
    #[pymodule_export]
    use super::ipc::event::SharedEvent;
    #[pymodule_export]
    use super::ipc::lock::{OwnerDied, SharedLock, SharedRLock};
    #[pymodule_export]
    use super::ipc::memory::{SharedBlock, SharedSegment};
    #[pymodule_export]
    use super::ipc::parent::end_with_parent;
    #[pymodule_export]
    use super::ipc::pickle::set_channel_dumps;
    #[pymodule_export]
    use super::ipc::pool::{ProcessPool, close_process_pools, disown_process_pools};
    #[pymodule_export]
    use super::ipc::pool_collect::set_process_pool_hooks;
    #[pymodule_export]
    use super::ipc::pool_engine::ProcessPoolEngine;
    #[pymodule_export]
    use super::ipc::pool_worker::{run_chunk, stop_requested, work};
    #[pymodule_export]
    use super::ipc::queue::ProcessQueue;
    #[pymodule_export]
    use super::ipc::semaphore::SharedSemaphore;
    #[pymodule_export]
    use super::ipc::value::SharedNumber;
    #[pymodule_export]
    use super::lock::{Lock, LockStatistics};
    #[pymodule_export]
    use super::policy::{PolicyAttempts, PolicyCircuit, PolicyHedge, PolicyLimit, PolicyRate};
    #[pymodule_export]
    use super::queue::{LifoQueue, PriorityQueue, Queue, QueueStatistics};
    #[pymodule_export]
    use super::raw::own_methods;
    #[pymodule_export]
    use super::rlock::{RLock, RLockStatistics};
    #[pymodule_export]
    use super::rwlock::{ReadWriteLock, ReadWriteLockSide, ReadWriteLockStatistics};
    #[pymodule_export]
    use super::semaphore::{BoundedSemaphore, Semaphore, SemaphoreStatistics};

    #[pymodule_export]
    use super::trace::{DeadlockError, LockOrderWarning, trace_join, trace_report, trace_start, trace_stop};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        let py = module.py();
        juggler_sync::sys::fence::prepare();
        fork::install();
        gil::locate();
        module.add("PROFILE_GUIDED", cfg!(profile_guided))?;
        module.add("allocate_lock", pyo3::wrap_pyfunction!(lock::allocate_lock, module)?)?;
        aio::finish(module)?;
        condition::finish(py)?;
        event::finish(py)?;
        futures::finish(py)?;
        ipc::connection::finish(py)?;
        ipc::event::finish(py)?;
        ipc::lock::finish(py)?;
        ipc::pool::finish(py)?;
        ipc::queue::finish(py)?;
        ipc::semaphore::finish(py)?;
        ipc::value::finish(py)?;
        lock::finish(py)?;
        queue::finish(py)?;
        rlock::finish(py)?;
        semaphore::finish(py)?;
        Ok(())
    }
}
