//! Places in the program: where a lock is taken, where a thread waits, and what led there.
//!
//! A place is looked up at every traced acquisition, so all that there is to know of an instruction is found out once.
#![allow(unsafe_code)]

use crate::obj::Obj;
use juggler_trace::{IdMap, Site};
use pyo3::ffi;
use pyo3::prelude::*;
use std::sync::{LazyLock, Mutex, PoisonError};

/// Files of which a call is not what a reader looks for.
const INTERNAL: [&str; 4] = ["/threading.py", "/juggler/", "/concurrent/futures/", "/contextlib.py"];

/// At most this many callers are shown.
const DEEPEST: usize = 32;

/// Where the calling thread is.
pub struct Here {
    /// The innermost place in the program's own code.
    pub site: Site,
    /// Whether a `with` statement that the running frame enters will be left by the same thread: another one may close a
    /// generator or a coroutine, or an `ExitStack` that was passed on.
    pub ends_where_it_began: bool,
}

#[derive(Clone, Copy)]
struct Place {
    site: Site,
    internal: bool,
    ends_where_it_began: bool,
}

/// Places by the address of the code object and the instruction.
type Places = IdMap<(usize, i32), (Obj, Place)>;

/// The places that were seen. The code objects stay alive, so that no address comes to mean another; there are no more
/// places than calls in the program's text.
static PLACES: LazyLock<Mutex<Places>> = LazyLock::new(Mutex::default);

/// Where the calling thread is.
pub fn here(py: Python<'_>) -> Here {
    // SAFETY: the thread is attached; the frame is borrowed, or null when no Python runs.
    let frame = unsafe { ffi::PyEval_GetFrame() };
    if frame.is_null() {
        return Here { site: Site::new("<unknown>", 0, "<unknown>"), ends_where_it_began: false };
    }
    // SAFETY: a live frame, which runs until this returns.
    let innermost = unsafe { place_of(py, frame) };
    let ends_where_it_began = innermost.ends_where_it_began;
    let site = if innermost.internal {
        // SAFETY: as above.
        let first = unsafe { Bound::from_borrowed_ptr(py, frame.cast()) };
        let outer = places(first).find(|place| !place.internal);
        outer.map_or(innermost.site, |place| place.site)
    } else {
        innermost.site
    };
    Here { site, ends_where_it_began }
}

/// The stack that led `thread` to `site`, where it waits: its caller first.
pub fn stack(py: Python<'_>, thread: u64, site: Site) -> Vec<Site> {
    let frames = py.import("sys").and_then(|sys| sys.call_method0("_current_frames"));
    let Ok(innermost) = frames.and_then(|frames| frames.get_item(thread)) else { return Vec::new() };
    places(innermost).map(|place| place.site).skip_while(|place| *place != site).skip(1).take(DEEPEST).collect()
}

/// The places of a frame, its caller, and so on.
fn places<'py>(innermost: Bound<'py, PyAny>) -> impl Iterator<Item = Place> + use<'py> {
    let py = innermost.py();
    // SAFETY: a live frame; its caller is owned, or null for the outermost.
    let caller = move |frame: &Bound<'py, PyAny>| unsafe {
        Bound::from_owned_ptr_or_opt(py, ffi::PyFrame_GetBack(frame.as_ptr().cast()).cast())
    };
    // SAFETY: a live frame.
    std::iter::successors(Some(innermost), caller).map(move |frame| unsafe { place_of(py, frame.as_ptr().cast()) })
}

/// # Safety
/// `frame` is a live frame.
#[inline(always)]
unsafe fn place_of(py: Python<'_>, frame: *mut ffi::PyFrameObject) -> Place {
    // SAFETY: the caller's promise; the code is owned.
    let (code, instruction) =
        unsafe { (Obj::from_owned(ffi::PyFrame_GetCode(frame).cast()), ffi::PyFrame_GetLasti(frame)) };
    let key = (code.as_ptr() as usize, instruction);
    if let Some((_, place)) = PLACES.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
        return *place;
    }
    // SAFETY: the caller's promise.
    let line = unsafe { ffi::PyFrame_GetLineNumber(frame) };
    place_slow(py, code, instruction, u32::try_from(line).unwrap_or(0))
}

#[cold]
fn place_slow(py: Python<'_>, code: Obj, instruction: i32, line: u32) -> Place {
    const CO_SUSPENDABLE: i32 = 0x20 | 0x80 | 0x200;
    let text =
        |attribute| code.bind(py).getattr(attribute).and_then(|text| text.extract::<String>()).unwrap_or_default();
    let flags = code.bind(py).getattr("co_flags").and_then(|flags| flags.extract()).unwrap_or(CO_SUSPENDABLE);
    let file = text("co_filename");
    let place = Place {
        internal: INTERNAL.iter().any(|part| file.contains(part)),
        ends_where_it_began: flags & CO_SUSPENDABLE == 0 && !file.ends_with("/contextlib.py"),
        site: Site::new(&file, line, &text("co_qualname")),
    };
    let key = (code.as_ptr() as usize, instruction);
    PLACES.lock().unwrap_or_else(PoisonError::into_inner).insert(key, (code, place));
    place
}
