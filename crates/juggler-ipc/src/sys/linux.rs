//! Linux: `memfd_create(2)`, `mmap(2)` and `/proc/PID/stat`.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::{self, NonNull};

/// Makes a memory file of `length` zeros, which take no memory until they are written. It has no name in any file
/// system and is gone with its last descriptor and mapping. It is closed on exec and sealed against every change of its
/// length, so that a mapping of it can never fault.
///
/// # Errors
/// The system's: too many open files, out of memory.
pub fn create_memory_file(name: &CStr, length: usize) -> io::Result<OwnedFd> {
    // SAFETY: `name` ends with a zero.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and is owned by nobody else.
    let file = unsafe { OwnedFd::from_raw_fd(fd) };
    let length = libc::off_t::try_from(length).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    // SAFETY: a call on a descriptor.
    if unsafe { libc::ftruncate(fd, length) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a call on a descriptor.
    if unsafe { libc::fcntl(fd, libc::F_ADD_SEALS, SEALS) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(file)
}

const SEALS: i32 = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;

/// The length of a file made by [`create_memory_file`], perhaps by another process.
///
/// # Errors
/// `InvalidInput` if the file could shrink under a mapping, or the system's error.
pub fn file_length(file: BorrowedFd<'_>) -> io::Result<usize> {
    // SAFETY: a call on a descriptor.
    let seals = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS) };
    if seals < 0 || seals & libc::F_SEAL_SHRINK == 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a sealed memory file"));
    }
    // SAFETY: all zeros is a valid `stat`, and a valid place for the result.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `stat` is valid for the call.
    if unsafe { libc::fstat(file.as_raw_fd(), &mut stat) } < 0 {
        return Err(io::Error::last_os_error());
    }
    usize::try_from(stat.st_size).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))
}

/// Has the system provide the memory of a part of a memory file, so that writing there can't fail.
///
/// # Errors
/// The system's: out of memory.
pub fn reserve_memory(file: BorrowedFd<'_>, offset: usize, length: usize) -> io::Result<()> {
    #[cfg(all(test, not(loom)))]
    if super::testing::MEMORY_IS_SHORT.get() {
        return Err(io::Error::from_raw_os_error(libc::ENOSPC));
    }
    allocate(file, 0, offset, length)
}

/// Gives the memory of a part of a memory file back; it reads as zeros again.
///
/// # Errors
/// The system's.
pub fn return_memory(file: BorrowedFd<'_>, offset: usize, length: usize) -> io::Result<()> {
    allocate(file, libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, offset, length)
}

fn allocate(file: BorrowedFd<'_>, mode: i32, offset: usize, length: usize) -> io::Result<()> {
    let too_large = |_| io::Error::from(io::ErrorKind::FileTooLarge);
    let offset = libc::off_t::try_from(offset).map_err(too_large)?;
    let length = libc::off_t::try_from(length).map_err(too_large)?;
    if length == 0 {
        return Ok(()); // which the system takes for a mistake
    }
    loop {
        // SAFETY: a call on a descriptor.
        if unsafe { libc::fallocate(file.as_raw_fd(), mode, offset, length) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Has this process killed as soon as the thread that forked it ends, which for a process with one thread means: as soon
/// as its parent ends. The kernel keeps the wish over an exec, and drops it in the children of this process.
///
/// Returns whether `parent` still is the parent: it may have ended just before, and then nothing will happen any more.
///
/// # Errors
/// The system's.
pub fn end_with_parent(parent: u32) -> io::Result<bool> {
    // SAFETY: the call takes a number and changes only when this process ends.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(std::os::unix::process::parent_id() == parent)
}

/// A file mapped for reading and writing, shared with every other process that maps it.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread; what is in it is reached through atomics and copies.
unsafe impl Send for Mapping {}
// SAFETY: as for `Send`.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `length` bytes of `file`, at least one. Memory is not reserved for it.
    ///
    /// # Errors
    /// The system's.
    pub fn new(file: BorrowedFd<'_>, length: usize) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice takes nothing away from anybody.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_NORESERVE,
                file.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(start.cast()).map(|start| Self { start, length }).ok_or_else(|| io::ErrorKind::Other.into())
    }

    /// Where it begins: on a page's boundary.
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Its length in bytes.
    pub fn length(&self) -> usize {
        self.length
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new`, and whoever refers to its memory borrows `self`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

/// What is known of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It runs; `start` is when it began, in a unit of the kernel's, or `None` if that can't be read.
    Alive {
        /// When it began.
        start: Option<u64>,
    },
    /// There is no such process, or it has ended and waits to be reaped.
    Dead,
}

/// Whether the process with this id lives.
pub fn process_life(pid: u32) -> Life {
    let mut text = [0; 512];
    let read = File::open(format!("/proc/{pid}/stat")).and_then(|mut file| file.read(&mut text));
    if let Some(life) = read.ok().and_then(|length| parse_stat(&text[..length])) {
        return life;
    }
    // No /proc, or no descriptor left to look there. (An id of 0 or below would name a group of processes.)
    let pid = libc::pid_t::try_from(pid).unwrap_or(0).max(1);
    // SAFETY: signal 0 only asks.
    let missing = unsafe { libc::kill(pid, 0) } < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH);
    if missing { Life::Dead } else { Life::Alive { start: None } }
}

/// Reads `proc_pid_stat(5)`: after the name, which may hold anything but ends with the last parenthesis, the fields from
/// the third on.
fn parse_stat(text: &[u8]) -> Option<Life> {
    let after_name = text.iter().rposition(|&byte| byte == b')')? + 1;
    let fields = std::str::from_utf8(&text[after_name..]).ok()?;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?;
    let threads: u32 = fields.nth(16)?.parse().ok()?;
    let start = fields.nth(1)?.parse().ok()?;
    // The state is the main thread's: others may go on without it.
    if matches!(state, "Z" | "X") && threads <= 1 { Some(Life::Dead) } else { Some(Life::Alive { start: Some(start) }) }
}
