//! The command `juggler`: a door that costs a millisecond.
//!
//! `juggler run program.py` becomes `python program.py` (see `docs/internals/run.md`), and a start of Python only to find
//! that out would be most of its price. So this small program does it for the usual command lines; and `juggler fetch` becomes
//! `juggler-fetch`, which needs no Python at all. For all others, and where it is not sure, it becomes `juggler-cli`, the
//! command in Python. The installer has put both beside it.
//!
//! Whom it becomes finds the process as it was: descriptors, signals and their mask, and an environment that nobody
//! but itself has changed. This is why there is no runtime of Rust's (`no_main`), which would ignore SIGPIPE
//! and open descriptors that are closed.

#![cfg_attr(not(test), no_main)]
#![cfg_attr(test, allow(dead_code))]

use std::ffi::{CString, OsStr, OsString, c_char, c_int};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

mod shortcut;

/// The command in Python.
const SCRIPT: &str = "juggler-cli";
/// What shells say of a command that can't be started.
const NOT_STARTED: c_int = 127;

#[cfg(not(test))]
#[allow(unsafe_code)]
// SAFETY: no other function of this name is linked, and the C library calls it as it is declared.
#[unsafe(no_mangle)]
extern "C" fn main(count: c_int, words: *const *const c_char) -> c_int {
    let words = (1..usize::try_from(count).unwrap_or(0))
        .map(|index| {
            // SAFETY: the kernel hands over `count` pointers to strings that end in a zero and stay.
            let word = unsafe { std::ffi::CStr::from_ptr(*words.add(index)) };
            OsStr::from_bytes(word.to_bytes()).to_owned()
        })
        .collect();
    run(words)
}

/// Become what the words ask for. Returns the exit status if that can't be.
fn run(words: Vec<OsString>) -> c_int {
    let script = match std::env::current_exe() {
        Ok(path) => path.with_file_name(SCRIPT),
        Err(error) => return complain(Path::new(SCRIPT), &error),
    };
    let environment: Vec<_> = std::env::vars_os().collect();
    if let Some(start) = shortcut::shortcut(&script, &words, environment.clone()) {
        // It fails where the script will tell more: go on to that.
        let _ = become_program(&start.words, &start.environment);
    }
    let words: Vec<_> = [script.clone().into_os_string()].into_iter().chain(words).collect();
    let error = become_program(&words, &environment);
    complain(&script, &error)
}

fn complain(script: &Path, error: &io::Error) -> c_int {
    let script = script.display();
    // There is nowhere to say that this could not be said.
    let _ = writeln!(
        io::stderr(),
        "juggler: {script} can't be started: {error}\ninstall juggler again, or use: python -m juggler"
    );
    NOT_STARTED
}

/// `execve`: returns only if that fails.
#[allow(unsafe_code)]
fn become_program(words: &[OsString], environment: &[(OsString, OsString)]) -> io::Error {
    let entry = |(name, value): &(OsString, OsString)| terminated(&[name, OsStr::new("="), value]);
    let words: Vec<_> = words.iter().map(|word| terminated(&[word])).collect();
    let environment: Vec<_> = environment.iter().map(entry).collect();
    let pointers = |strings: &[CString]| -> Vec<*const c_char> {
        strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (argv, envp) = (pointers(&words), pointers(&environment));
    // SAFETY: both arrays end in a null, and what they point to lives until the call returns.
    unsafe { libc::execve(argv[0], argv.as_ptr(), envp.as_ptr()) };
    io::Error::last_os_error()
}

/// The parts in one string of C's. They come from strings of C's, so none has a zero inside.
fn terminated(parts: &[&OsStr]) -> CString {
    let bytes: Vec<u8> = parts.iter().flat_map(|part| part.as_bytes()).copied().collect();
    CString::new(bytes).unwrap_or_default()
}
