//! The OpenSSL that CPython's `_ssl` module is linked to, and what lies between it and a transport.
#![allow(unsafe_code)]

use crate::aio::stdlib::Import;
use juggler_loop::buffer::{ReadBuffer, SCRATCH, Scratch};
use juggler_sync::guarded::Guarded;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use std::ffi::{CString, c_char, c_int, c_long, c_ulong, c_void};
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::OnceLock;

static MODULE_FILE: Import = Import::new("_ssl", "__file__");
static VERSION: Import = Import::new("_ssl", "OPENSSL_VERSION_NUMBER");
static SOCKET_CLASS: Import = Import::new("_ssl", "_SSLSocket");
static MEMORY_CLASS: Import = Import::new("_ssl", "MemoryBIO");

/// A source or sink of bytes (`BIO_TYPE_SOURCE_SINK`).
const SOURCE_SINK: c_int = 0x400;
const FLAG_READ: c_int = 0x01;
const FLAG_SHOULD_RETRY: c_int = 0x08;
const FLAGS_OF_RETRY: c_int = 0x0f;
const CONTROL_FLUSH: c_int = 11;
const ERROR_WANT_READ: c_int = 2;
const ERROR_WANT_WRITE: c_int = 3;
const ERROR_ZERO_RETURN: c_int = 6;
const RECEIVED_SHUTDOWN: c_int = 2;

type Pointer = *mut c_void;

/// Defines the table of functions, and how to find them. They may call back into Python, and so be
/// [unwound](crate::unwind).
macro_rules! library {
    ($($name:ident($($argument:ty),*) $(-> $result:ty)?;)*) => {
        #[allow(non_snake_case)]
        struct Library {
            $($name: unsafe extern "C-unwind" fn($($argument),*) $(-> $result)?,)*
            /// The method table of our BIO; never freed.
            method: usize,
        }

        impl Library {
            /// Looks all of them up in `module` and what it is linked to.
            fn find(module: Pointer) -> Option<Self> {
                Some(Self {
                    $($name: {
                        let name = concat!(stringify!($name), "\0");
                        // SAFETY: an open library and a name that ends with a zero.
                        let symbol = unsafe { libc::dlsym(module, name.as_ptr().cast()) };
                        if symbol.is_null() {
                            return None;
                        }
                        // SAFETY: OpenSSL's function of that name has had this signature since 1.1.1.
                        unsafe { std::mem::transmute::<Pointer, unsafe extern "C-unwind" fn($($argument),*) $(-> $result)?>(symbol) }
                    },)*
                    method: 0,
                })
            }
        }
    };
}

library! {
    OpenSSL_version_num() -> c_ulong;
    ERR_clear_error();
    SSL_read_ex(Pointer, *mut u8, usize, *mut usize) -> c_int;
    SSL_write_ex(Pointer, *const u8, usize, *mut usize) -> c_int;
    SSL_get_error(Pointer, c_int) -> c_int;
    SSL_get_shutdown(Pointer) -> c_int;
    SSL_has_pending(Pointer) -> c_int;
    SSL_get_rbio(Pointer) -> Pointer;
    SSL_get_wbio(Pointer) -> Pointer;
    SSL_set0_rbio(Pointer, Pointer);
    SSL_set0_wbio(Pointer, Pointer);
    BIO_get_new_index() -> c_int;
    BIO_meth_new(c_int, *const c_char) -> Pointer;
    BIO_meth_set_read(Pointer, unsafe extern "C" fn(Pointer, *mut u8, c_int) -> c_int) -> c_int;
    BIO_meth_set_write(Pointer, unsafe extern "C" fn(Pointer, *const u8, c_int) -> c_int) -> c_int;
    BIO_meth_set_ctrl(Pointer, unsafe extern "C" fn(Pointer, c_int, c_long, Pointer) -> c_long) -> c_int;
    BIO_meth_set_destroy(Pointer, unsafe extern "C" fn(Pointer) -> c_int) -> c_int;
    BIO_new(Pointer) -> Pointer;
    BIO_up_ref(Pointer) -> c_int;
    BIO_set_init(Pointer, c_int);
    BIO_set_data(Pointer, Pointer);
    BIO_get_data(Pointer) -> Pointer;
    BIO_set_flags(Pointer, c_int);
    BIO_clear_flags(Pointer, c_int);
}

static LIBRARY: OnceLock<Option<Library>> = OnceLock::new();

impl Library {
    /// The library, if it can be used.
    fn get(py: Python<'_>) -> Option<&'static Self> {
        LIBRARY.get_or_init(|| Self::open(py)).as_ref()
    }

    fn open(py: Python<'_>) -> Option<Self> {
        let file: String = MODULE_FILE.get(py).ok()?.extract().ok()?;
        let file = CString::new(file).ok()?;
        // SAFETY: a path; the module is loaded already and stays, so no code of it is run.
        let module = unsafe { libc::dlopen(file.as_ptr(), libc::RTLD_NOLOAD | libc::RTLD_LAZY) };
        if module.is_null() {
            return None;
        }
        let mut library = Self::find(module)?;
        let version: c_ulong = VERSION.get(py).ok()?.extract().ok()?;
        // SAFETY: OpenSSL's functions, as it describes them. A method table is set up before it is used.
        unsafe {
            if (library.OpenSSL_version_num)() != version {
                return None;
            }
            let method = (library.BIO_meth_new)((library.BIO_get_new_index)() | SOURCE_SINK, c"juggler".as_ptr());
            if method.is_null() {
                return None;
            }
            (library.BIO_meth_set_read)(method, read);
            (library.BIO_meth_set_write)(method, write);
            (library.BIO_meth_set_ctrl)(method, control);
            (library.BIO_meth_set_destroy)(method, destroy);
            library.method = method as usize;
        }
        Some(library)
    }
}

/// What lies between OpenSSL and the transport below.
#[derive(Default)]
struct Wires {
    /// Has come, and was not read yet.
    incoming: ReadBuffer,
    /// Came just now, after that: where it was received, and which part is left.
    fresh: Option<(Scratch, Range<usize>)>,
    /// Was written, and is not sent yet.
    outgoing: Vec<u8>,
}

impl Wires {
    fn waiting(&self) -> usize {
        self.incoming.len() + self.fresh.as_ref().map_or(0, |(_, rest)| rest.len())
    }

    /// Moves what has come to `to`, as much as there is room for. Returns how much.
    fn take(&mut self, to: &mut [u8]) -> usize {
        if !self.incoming.is_empty() {
            let count = self.incoming.len().min(to.len());
            to[..count].copy_from_slice(&self.incoming.as_slice()[..count]);
            self.incoming.consume(count);
            return count;
        }
        let Some((place, rest)) = &mut self.fresh else { return 0 };
        let count = rest.len().min(to.len());
        to[..count].copy_from_slice(&place[rest.start..rest.start + count]);
        rest.start += count;
        count
    }

    /// Keeps what is left of what came just now. Returns where it was.
    fn settle(&mut self) -> Option<Scratch> {
        let (place, rest) = self.fresh.take()?;
        self.incoming.extend(&place[rest]);
        Some(place)
    }
}

/// The wires of a BIO of ours.
///
/// # Safety
/// `bio` is one, alive.
unsafe fn wires_of<'a>(library: &Library, bio: Pointer) -> &'a Guarded<Wires> {
    // SAFETY: its data was set when it was made, and is freed with it.
    unsafe { &*(library.BIO_get_data)(bio).cast() }
}

// OpenSSL calls these with BIOs that were made by `Native::attach`, so the library is there.

unsafe extern "C" fn read(bio: Pointer, to: *mut u8, length: c_int) -> c_int {
    let Some(Some(library)) = LIBRARY.get() else { return -1 };
    // SAFETY: a BIO of ours, and a place of that length.
    unsafe {
        (library.BIO_clear_flags)(bio, FLAGS_OF_RETRY);
        let to = std::slice::from_raw_parts_mut(to, usize::try_from(length).unwrap_or(0));
        let count = wires_of(library, bio).lock().take(to);
        if count == 0 {
            (library.BIO_set_flags)(bio, FLAG_READ | FLAG_SHOULD_RETRY);
            return -1;
        }
        count as c_int
    }
}

unsafe extern "C" fn write(bio: Pointer, from: *const u8, length: c_int) -> c_int {
    let Some(Some(library)) = LIBRARY.get() else { return -1 };
    let Ok(count) = usize::try_from(length) else { return -1 };
    // SAFETY: a BIO of ours, and so many bytes.
    unsafe {
        (library.BIO_clear_flags)(bio, FLAGS_OF_RETRY);
        wires_of(library, bio).lock().outgoing.extend_from_slice(std::slice::from_raw_parts(from, count));
    }
    length
}

unsafe extern "C" fn control(_bio: Pointer, command: c_int, _number: c_long, _pointer: Pointer) -> c_long {
    c_long::from(command == CONTROL_FLUSH)
}

unsafe extern "C" fn destroy(bio: Pointer) -> c_int {
    let Some(Some(library)) = LIBRARY.get() else { return 0 };
    // SAFETY: a BIO of ours, which is freed once; nobody else has its wires.
    unsafe { drop(Box::from_raw((library.BIO_get_data)(bio).cast::<Guarded<Wires>>())) };
    1
}

/// How `PySSLSocket` begins, in every version of CPython that we know.
#[repr(C)]
struct SocketHead {
    base: ffi::PyObject,
    /// A reference to the socket; none when it was made from BIOs.
    socket: *mut ffi::PyObject,
    ssl: Pointer,
    context: *mut ffi::PyObject,
}

/// How `PySSLMemoryBIO` begins.
#[repr(C)]
struct MemoryHead {
    base: ffi::PyObject,
    bio: Pointer,
}

/// `object`'s memory as a `T`, if it is of the very class and not smaller.
fn head<'a, T>(object: &'a Bound<'_, PyAny>, class: &Import) -> Option<&'a T> {
    let kind = object.get_type();
    let is_it = class.get(object.py()).is_ok_and(|class| kind.is(class));
    // SAFETY: a live class; and an object that is as large as its class says, whose words may be read as such.
    unsafe {
        let size = (*kind.as_type_ptr()).tp_basicsize;
        (is_it && size.unsigned_abs() >= size_of::<T>()).then(|| &*object.as_ptr().cast())
    }
}

/// What came of a call.
#[derive(Debug, Clone, Copy)]
pub enum Outcome {
    /// So many bytes.
    Some(usize),
    /// More must come first.
    Again,
    /// The other side has said that nothing more will come.
    End,
}

/// The `SSL *` of an object whose data goes directly. Whoever has it keeps the object alive.
pub struct Native {
    ssl: NonNull<c_void>,
    wires: NonNull<Guarded<Wires>>,
    library: &'static Library,
}

// SAFETY: the pointers are used by one attached thread at a time, which the transport's mark `busy` sees to; the wires are
// guarded.
unsafe impl Send for Native {}
// SAFETY: as above.
unsafe impl Sync for Native {}

impl Native {
    /// Takes over the data of `object`, which `wrap_bio` has just made of the two memory BIOs; `None` if it can't.
    pub fn attach(object: &Bound<'_, PyAny>, incoming: &Bound<'_, PyAny>, outgoing: &Bound<'_, PyAny>) -> Option<Self> {
        let py = object.py();
        let library = Library::get(py)?;
        let socket = object.getattr(intern!(py, "_sslobj")).ok()?;
        let context = object.getattr(intern!(py, "context")).ok()?;
        // CPython keeps what such a callback raises in the socket, for its own methods to raise.
        if !context.getattr(intern!(py, "_msg_callback")).ok()?.is_none() {
            return None;
        }
        let socket: &SocketHead = head(&socket, &SOCKET_CLASS)?;
        let incoming: &MemoryHead = head(incoming, &MEMORY_CLASS)?;
        let outgoing: &MemoryHead = head(outgoing, &MEMORY_CLASS)?;
        if !socket.socket.is_null() || socket.context != context.as_ptr() {
            return None;
        }
        let ssl = NonNull::new(socket.ssl)?;
        // SAFETY: what lies between no socket and this context is the `SSL *`, which lives as long as the object. The new
        // BIO is complete before OpenSSL gets it, with a reference for each direction.
        unsafe {
            if (library.SSL_get_rbio)(ssl.as_ptr()) != incoming.bio
                || (library.SSL_get_wbio)(ssl.as_ptr()) != outgoing.bio
            {
                return None;
            }
            let bio = NonNull::new((library.BIO_new)(library.method as Pointer))?.as_ptr();
            let wires = NonNull::from(Box::leak(Box::new(Guarded::new(Wires::default()))));
            (library.BIO_set_data)(bio, wires.as_ptr().cast());
            (library.BIO_set_init)(bio, 1);
            (library.BIO_up_ref)(bio);
            (library.SSL_set0_rbio)(ssl.as_ptr(), bio);
            (library.SSL_set0_wbio)(ssl.as_ptr(), bio);
            Some(Self { ssl, wires, library })
        }
    }

    fn wires(&self) -> &Guarded<Wires> {
        // SAFETY: the wires live as long as the `SSL *`.
        unsafe { self.wires.as_ref() }
    }

    /// Puts what has come where OpenSSL reads.
    pub fn feed(&self, bytes: &[u8]) {
        let mut wires = self.wires().lock();
        let place = wires.settle();
        wires.incoming.extend(bytes);
        drop(wires);
        drop(place);
    }

    /// The same for the first `count` bytes of `place`, which are not copied: [`settle`](Self::settle) in the end.
    pub fn lend(&self, place: Scratch, count: usize) {
        let mut wires = self.wires().lock();
        let before = wires.settle();
        wires.fresh = Some((place, 0..count));
        drop(wires);
        drop(before);
    }

    /// Copies what was not read of what was lent.
    pub fn settle(&self) {
        let place = self.wires().lock().settle();
        drop(place);
    }

    /// How much has come, and was not read yet.
    pub fn waiting(&self) -> usize {
        self.wires().lock().waiting()
    }

    /// How much is to be sent.
    pub fn unsent(&self) -> usize {
        self.wires().lock().outgoing.len()
    }

    /// Takes what is to be sent; [`give_back`](Self::give_back) its memory.
    pub fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.wires().lock().outgoing)
    }

    /// Keeps the memory of what was sent for what comes next.
    pub fn give_back(&self, mut sent: Vec<u8>) {
        let mut wires = self.wires().lock();
        if wires.outgoing.capacity() == 0 && sent.capacity() <= SCRATCH {
            sent.clear();
            wires.outgoing = sent;
        }
    }

    /// Decrypts into `to`: at most one record. `None`: CPython is to say what is wrong.
    pub fn read(&self, to: &mut [u8]) -> Option<Outcome> {
        let (ssl, mut count) = (self.ssl.as_ptr(), 0);
        // SAFETY: a live `SSL *`, used by one thread at a time, and a place of that length.
        unsafe {
            if self.waiting() == 0 && (self.library.SSL_has_pending)(ssl) == 0 {
                return Some(Outcome::Again);
            }
            let result = guarded(|| {
                (self.library.ERR_clear_error)();
                (self.library.SSL_read_ex)(ssl, to.as_mut_ptr(), to.len(), &raw mut count)
            });
            self.outcome(result, count)
        }
    }

    /// Encrypts all of `bytes`. `None`: CPython is to say what is wrong.
    pub fn write(&self, bytes: &[u8]) -> Option<Outcome> {
        let mut count = 0;
        // SAFETY: a live `SSL *`, used by one thread at a time, and so many bytes.
        unsafe {
            let result = guarded(|| {
                (self.library.ERR_clear_error)();
                (self.library.SSL_write_ex)(self.ssl.as_ptr(), bytes.as_ptr(), bytes.len(), &raw mut count)
            });
            self.outcome(result, count)
        }
    }

    /// What a call's result means.
    ///
    /// # Safety
    /// It was the last call, and nobody uses the `SSL *` otherwise.
    unsafe fn outcome(&self, result: c_int, count: usize) -> Option<Outcome> {
        if result > 0 {
            return Some(Outcome::Some(count));
        }
        let ssl = self.ssl.as_ptr();
        // SAFETY: a live `SSL *`, whose last call was this one.
        unsafe {
            match (self.library.SSL_get_error)(ssl, result) {
                ERROR_WANT_READ | ERROR_WANT_WRITE => Some(Outcome::Again),
                ERROR_ZERO_RETURN if (self.library.SSL_get_shutdown)(ssl) == RECEIVED_SHUTDOWN => Some(Outcome::End),
                _ => None,
            }
        }
    }
}

/// Calls OpenSSL, which may call back into Python.
#[inline(always)]
fn guarded<R>(call: impl FnOnce() -> R) -> R {
    #[cfg(not(Py_3_14))]
    return crate::unwind::guarded(call);
    #[cfg(Py_3_14)]
    call()
}
