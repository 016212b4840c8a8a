//! From the page cache to the disk, while more comes.

#![allow(unsafe_code)]

use rustix::fs::{Advice, fadvise};
use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::os::fd::AsRawFd;

/// Waits until the `length` bytes from `from` on are written to the disk, and lets the page cache forget them, as it has what others
/// need. Makes nothing durable, but the `fsync` that does finds little left to do; where the system can't, it finds all.
///
/// Who waits for pages is told of a write that failed, once for each opening of a file. Nobody is told here, so `file` must be an
/// opening of its own ([`again`]): that of which the `fsync` is asked is then still told.
pub(crate) fn write_back(file: &File, from: u64, length: NonZeroU64) {
    let steps = libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    let (Ok(at), Ok(count)) = (from.try_into(), length.get().try_into()) else { return };
    // SAFETY: the descriptor is open for the length of the call, which takes nothing else but numbers.
    unsafe { libc::sync_file_range(file.as_raw_fd(), at, count, steps) };
    // What is not written yet is not forgotten either.
    let _ = fadvise(file, from, Some(length), Advice::DontNeed);
}

/// Has the disk begin with all of `file`, and waits for nothing.
pub(crate) fn begin_write_back(file: &File) {
    // SAFETY: the descriptor is open for the length of the call, which takes nothing else but numbers.
    unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
}

/// Another opening of an open file, whether that has a name or not.
///
/// # Errors
/// That the system can't.
pub(crate) fn again(file: &File) -> io::Result<File> {
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn bytes_stay_what_they_are() {
        let path = std::env::temp_dir().join(format!("juggler-write-back-{}", std::process::id()));
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(1 << 20).collect();
        file.write_all_at(&bytes, 0).unwrap();
        write_back(&again(&file).unwrap(), 4096, NonZeroU64::new(500_000).unwrap());
        let mut found = vec![0; bytes.len()];
        file.read_exact_at(&mut found, 0).unwrap();
        assert_eq!(found, bytes);
    }
}
