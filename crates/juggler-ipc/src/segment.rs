//! A piece of shared memory, with checked access.
//!
//! A segment is an anonymous memory file and its mapping. Processes share it by passing the descriptor: through `fork`,
//! or over a socket. Its memory begins as zeros, so every [`Shared`] structure must mean "new" by all zeros.
//!
//! References into a segment are to atomics only ([`Shared`]); plain bytes are copied in and out, or reached through the
//! pointer of [`Segment::range`] by a caller who knows that nobody else uses them at the time.
#![allow(unsafe_code)]

use crate::sys::{Mapping, create_memory_file, file_length};
use std::ffi::CStr;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

/// Types that may lie in memory that other processes change.
///
/// # Safety
/// All bit patterns are valid, all of it consists of atomics (or cells that are only reached with the synchronisation the
/// type itself documents), it holds no pointer and no reference, and its layout is fixed (`repr(C)` or transparent).
pub unsafe trait Shared: Sync {}

// SAFETY: atomics of plain integers.
unsafe impl Shared for juggler_sync::sync::AtomicU32 {}
// SAFETY: as above.
unsafe impl Shared for juggler_sync::sync::AtomicU64 {}
// SAFETY: one atomic word.
#[cfg(not(loom))]
unsafe impl Shared for juggler_sync::sys::SharedFutex {}
// SAFETY: as its elements.
unsafe impl<T: Shared, const N: usize> Shared for [T; N] {}

/// Defines a structure whose fields are all [`Shared`], and which so is itself.
macro_rules! shared {
    ($(#[$attribute:meta])* $visible:vis struct $name:ident {
        $($(#[$field_attribute:meta])* $field_visible:vis $field:ident: $type:ty,)*
    }) => {
        $(#[$attribute])*
        #[repr(C)]
        $visible struct $name {
            $($(#[$field_attribute])* $field_visible $field: $type,)*
        }

        // SAFETY: its fields are, and its layout is fixed. (Under loom nothing lies in shared memory.)
        #[cfg(not(loom))]
        #[allow(unsafe_code)]
        unsafe impl $crate::segment::Shared for $name where $($type: $crate::segment::Shared,)* {}
    };
}
pub(crate) use shared;

/// An offset, length or alignment that doesn't fit the segment: what another process wrote there is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfBounds {
    /// The offset that was asked for, in bytes.
    pub offset: usize,
    /// How many bytes were asked for.
    pub length: usize,
    /// How many there are.
    pub available: usize,
}

impl fmt::Display for OutOfBounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { offset, length, available } = self;
        write!(f, "{length} bytes at {offset} do not fit a shared segment of {available} bytes")
    }
}

impl std::error::Error for OutOfBounds {}

/// A sealed memory file, mapped.
#[derive(Debug)]
pub struct Segment {
    file: OwnedFd,
    mapping: Mapping,
}

impl Segment {
    /// Makes a segment of `length` zero bytes, more than none. `name` is what `/proc/PID/maps` shows.
    ///
    /// # Errors
    /// The system's: too many open files, no address space.
    pub fn create(name: &CStr, length: usize) -> io::Result<Self> {
        let file = create_memory_file(name, length)?;
        let mapping = Mapping::new(file.as_fd(), length)?;
        Ok(Self { file, mapping })
    }

    /// Maps a segment that was made elsewhere.
    ///
    /// # Errors
    /// `InvalidInput` if the descriptor is not a segment's, or the system's error.
    pub fn open(file: OwnedFd) -> io::Result<Self> {
        let length = file_length(file.as_fd())?;
        let mapping = Mapping::new(file.as_fd(), length)?;
        Ok(Self { file, mapping })
    }

    /// Its length in bytes.
    pub fn length(&self) -> usize {
        self.mapping.length()
    }

    /// Where it begins: on a page's boundary.
    pub fn start(&self) -> NonNull<u8> {
        self.mapping.start()
    }

    /// The structure at `offset`.
    ///
    /// # Errors
    /// [`OutOfBounds`] if it doesn't fit or is not aligned there.
    pub fn at<T: Shared>(&self, offset: usize) -> Result<&T, OutOfBounds> {
        self.array(offset, 1).map(|array| &array[0])
    }

    /// `count` structures in a row, the first at `offset`.
    ///
    /// # Errors
    /// [`OutOfBounds`] if they don't fit or are not aligned there.
    pub fn array<T: Shared>(&self, offset: usize, count: usize) -> Result<&[T], OutOfBounds> {
        let length = count.saturating_mul(size_of::<T>());
        let start = self.range(offset, length)?.cast::<T>();
        if !start.is_aligned() {
            return Err(self.out_of_bounds(offset, length));
        }
        // SAFETY: the range lies within the mapping, which is zeroed or written memory and lives as long as `self`;
        // `T` allows every bit pattern and changes by others; the start is aligned.
        Ok(unsafe { std::slice::from_raw_parts(start.as_ptr(), count) })
    }

    /// Where `length` bytes at `offset` lie, for whoever knows that nobody else writes them.
    ///
    /// # Errors
    /// [`OutOfBounds`] if they don't fit.
    pub fn range(&self, offset: usize, length: usize) -> Result<NonNull<u8>, OutOfBounds> {
        if offset.checked_add(length).is_none_or(|end| end > self.length()) {
            return Err(self.out_of_bounds(offset, length));
        }
        // SAFETY: `offset` lies within the mapping or just behind it.
        Ok(unsafe { self.mapping.start().add(offset) })
    }

    /// Makes `length` bytes at `offset` zeros again, for whoever knows that nobody else uses them.
    ///
    /// # Errors
    /// [`OutOfBounds`] if they don't fit.
    pub fn clear(&self, offset: usize, length: usize) -> Result<(), OutOfBounds> {
        let start = self.range(offset, length)?;
        // SAFETY: the range lies within the mapping; that others may not use it is the caller's to know, and if they do
        // all the same they find atomics that changed.
        unsafe { start.write_bytes(0, length) };
        Ok(())
    }

    fn out_of_bounds(&self, offset: usize, length: usize) -> OutOfBounds {
        OutOfBounds { offset, length, available: self.length() }
    }
}

impl AsFd for Segment {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use juggler_sync::sync::{AtomicU32, AtomicU64, Ordering};

    #[test]
    fn what_one_mapping_writes_another_reads() {
        let one = Segment::create(c"test", 4096).unwrap();
        let other = Segment::open(one.as_fd().try_clone_to_owned().unwrap()).unwrap();
        assert_eq!(other.length(), 4096);
        one.at::<AtomicU64>(8).unwrap().store(7, Ordering::Relaxed);
        assert_eq!(other.at::<AtomicU64>(8).unwrap().load(Ordering::Relaxed), 7);
    }

    #[test]
    fn nothing_outside_is_reached() {
        let segment = Segment::create(c"test", 4096).unwrap();
        assert!(segment.at::<AtomicU32>(4092).is_ok());
        assert_eq!(
            segment.at::<AtomicU32>(4096).unwrap_err(),
            OutOfBounds { offset: 4096, length: 4, available: 4096 }
        );
        assert!(segment.at::<AtomicU32>(2).is_err(), "not aligned");
        assert!(segment.at::<AtomicU64>(usize::MAX - 3).is_err());
        assert!(segment.array::<AtomicU64>(0, usize::MAX / 4).is_err());
        assert!(segment.range(4096, 0).is_ok());
    }

    #[test]
    fn a_file_that_could_shrink_is_refused() {
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        assert_eq!(Segment::open(file.into()).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
