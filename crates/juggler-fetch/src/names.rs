//! Final names: given in one step, and never in place of a file that is not this call's own, unless that was asked for.

use crate::error::Error;
use crate::name;
use juggler_sync::guarded::Guarded;
use rustix::fs::{self as sys, AtFlags, RenameFlags};
use rustix::io::Errno;
use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Component, Path, PathBuf};

/// The final names in a folder.
#[derive(Debug)]
pub(crate) struct Names {
    folder: PathBuf,
    /// The folder itself, open since before any file in it.
    opened: File,
    overwrite: bool,
    given: Guarded<HashSet<String>>,
}

impl Names {
    /// Names in `folder`; those of files from before are given anew only if `overwrite`.
    ///
    /// # Errors
    /// [`Kind::Disk`](crate::Kind::Disk) if the folder can't be opened.
    pub fn new(folder: PathBuf, overwrite: bool) -> Result<Self, Error> {
        let opened = File::open(&folder).map_err(|error| Error::disk("open the folder", &folder, error))?;
        Ok(Self { folder, opened, overwrite, given: Guarded::new(HashSet::new()) })
    }

    /// Whether the name may be that of another file, which goes.
    pub fn may_replace(&self) -> bool {
        self.overwrite
    }

    /// Calls `give` with the folder and `wanted`, or the first name beside it that is free; the path that it then has, without
    /// `.` and empty steps, as `pathlib` writes it.
    ///
    /// # Errors
    /// What `give` fails of, but for names that are taken.
    pub fn give(&self, wanted: &str, give: impl Fn(&File, &str) -> io::Result<()>) -> Result<PathBuf, Error> {
        let mut count = 0;
        loop {
            let name = if count == 0 { wanted.to_owned() } else { name::beside(wanted, count) };
            count += 1;
            if !self.given.lock().insert(name.clone()) {
                continue;
            }
            match give(&self.opened, &name) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && !self.overwrite => {}
                Err(error) => return Err(Error::disk("create", &self.folder.join(name), error)),
                Ok(()) => {
                    let path = self.folder.join(name);
                    return Ok(path.components().filter(|part| *part != Component::CurDir).collect());
                }
            }
        }
    }

    /// Waits until everything in the folder's file system is on the disk.
    ///
    /// # Errors
    /// That of any write since the folder was opened.
    pub fn sync_file_system(&self) -> io::Result<()> {
        Ok(sys::syncfs(&self.opened)?)
    }

    /// Waits until the names that were given are on the disk.
    ///
    /// # Errors
    /// [`Kind::Disk`](crate::Kind::Disk).
    pub fn sync(&self) -> Result<(), Error> {
        match self.opened.sync_all() {
            // Not on this file system.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
            done => done.map_err(|error| Error::disk("sync", &self.folder, error)),
        }
    }
}

/// Renames, to `name` in `folder`, but not over another file.
pub(crate) fn rename_to_new(from: &Path, folder: &File, name: &str) -> io::Result<()> {
    match sys::renameat_with(sys::CWD, from, folder, name, RenameFlags::NOREPLACE) {
        // Not on this file system.
        Err(Errno::INVAL | Errno::NOSYS) => {
            sys::linkat(sys::CWD, from, folder, name, AtFlags::empty())?;
            fs::remove_file(from)
        }
        done => Ok(done?),
    }
}

/// Gives a file that has no name its first one, unless there is a file of that name.
pub(crate) fn name_nameless(file: &File, folder: impl AsFd, name: impl AsRef<Path>) -> io::Result<()> {
    match sys::linkat(file, "", &folder, name.as_ref(), AtFlags::EMPTY_PATH) {
        // Before Linux 6.10 not everybody may.
        Err(Errno::NOENT) => {
            let from = format!("/proc/self/fd/{}", file.as_raw_fd());
            Ok(sys::linkat(sys::CWD, from, folder, name.as_ref(), AtFlags::SYMLINK_FOLLOW)?)
        }
        done => Ok(done?),
    }
}
