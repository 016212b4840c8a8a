//! The program `juggler-fetch`, which `juggler fetch` becomes.
#![allow(unsafe_code)]

use juggler_fetch_cli::fetch;
use std::ffi::c_int;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn interrupt(_signal: c_int) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// Has the first Ctrl-C end the waits; the second ends the process at once. Whoever started it without an ear for Ctrl-C (a
/// shell does so with what it runs in the background) has it stay so.
fn listen_for_ctrl_c() {
    // SAFETY: `sigaction` is plain data for which zeros are right, and the handler does nothing but to set a flag.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        if libc::sigaction(libc::SIGINT, std::ptr::null(), &raw mut action) == 0 && action.sa_sigaction == libc::SIG_IGN
        {
            return;
        }
        action = std::mem::zeroed();
        action.sa_sigaction = interrupt as extern "C" fn(c_int) as libc::sighandler_t;
        // No SA_RESTART: a sleep is to end.
        action.sa_flags = libc::SA_RESETHAND;
        libc::sigaction(libc::SIGINT, &raw const action, std::ptr::null_mut());
    }
}

/// Has the write fail that a limit on the size of files forbids, and with it that file alone.
fn survive_limits() {
    // SAFETY: there is no handler.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

fn main() -> ExitCode {
    listen_for_ctrl_c();
    survive_limits();
    let status = fetch(std::env::args_os().skip(1), || INTERRUPTED.load(Ordering::Relaxed));
    ExitCode::from(status as u8)
}
