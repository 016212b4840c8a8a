//! Child processes and want of memory, for unit tests.
#![allow(unsafe_code)]

use std::cell::Cell;

thread_local! {
    /// Whether the system refuses memory that this thread asks for.
    pub static MEMORY_IS_SHORT: Cell<bool> = const { Cell::new(false) };
}

/// A forked child; killed if a test ends before it.
#[derive(Debug)]
pub struct Child(libc::pid_t);

/// Runs `body` in a forked child, which then ends with success, or with failure if it panicked.
pub fn fork(body: impl FnOnce()) -> Child {
    // SAFETY: the child runs on a copy of this thread alone; `body` takes no lock that another thread may hold.
    match unsafe { libc::fork() } {
        -1 => panic!("{}", std::io::Error::last_os_error()),
        0 => {
            crate::owner::process_forked();
            juggler_sync::park::process_forked();
            let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).is_err();
            // SAFETY: ends the child without what the test harness registered for its own end.
            unsafe { libc::_exit(failed.into()) }
        }
        pid => Child(pid),
    }
}

impl Child {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.0.unsigned_abs()
    }

    /// Kills it; it is still to be reaped.
    pub fn kill(&self) {
        // SAFETY: the child has not been reaped, so the id is its own.
        unsafe { libc::kill(self.0, libc::SIGKILL) };
    }

    /// Waits for its end; whether it succeeded.
    pub fn reap(self) -> bool {
        let mut status = 0;
        // SAFETY: as above, and `status` is a valid place.
        unsafe { libc::waitpid(self.0, &mut status, 0) };
        std::mem::forget(self);
        status == 0
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
        // SAFETY: as above.
        unsafe { libc::waitpid(self.0, std::ptr::null_mut(), 0) };
    }
}
