//! What a forked child begins with.
//!
//! A fork copies the memory of one thread's process and none of the other threads. The primitives stay as they are, as the
//! standard library's do (a held lock is held); only those who wait in them do not exist in the child, which
//! [`juggler_sync::park::process_forked`] makes every waker know.
#![allow(unsafe_code)]

/// Has every forked child of this process told.
pub fn install() {
    unsafe extern "C" fn in_child() {
        juggler_sync::park::process_forked();
        juggler_ipc::owner::process_forked();
        crate::gate::process_forked();
        crate::trace::after_fork_in_child();
    }
    extern "C" fn in_parent() {
        juggler_ipc::heap::process_forks();
    }
    // SAFETY: the handlers do an atomic addition and some stores, and if tracing is on frees memory, as Python's own child does; registering fails only for want of
    // memory, and then a child's waker may choose a waiter that stayed behind, as the standard library's does.
    unsafe { libc::pthread_atfork(Some(in_parent), None, Some(in_child)) };
}
