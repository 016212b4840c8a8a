//! A file on its way: `NAME.part`, and beside it `NAME.part.about` with what it is a part of.
//!
//! What must hold, whenever the program or the machine stops:
//!
//! * The part holds bytes of one version of one file only. `about` is written while the part is empty, before its first byte;
//!   whoever finds another version empties the part first.
//! * What is continued was really written. After a kill the kernel still has the bytes, so within one boot of the machine the
//!   part's length is to be trusted. After another boot only what an orderly stop has synced is (`synced` in `about`).
//! * One process writes: the part is locked (`flock`) as long as it is open.
//! * The final name appears by a rename, after the bytes are on the disk, and never takes the place of a file that is not this
//!   call's own, unless that was asked for.

use crate::error::{Error, Kind};
use crate::name;
use crate::options::{Checksum, hex};
use juggler_sync::guarded::Guarded;
use ring::digest;
use rustix::fs::{self as sys, FallocateFlags, FlockOperation, OFlags, RenameFlags};
use rustix::io::Errno;
use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// From this size on, room is made sure of before the first byte; below, looking costs more than failing.
const WORTH_RESERVING: u64 = 1 << 20;

/// What tells one version of a file from another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Version {
    /// The `ETag`, where it is a strong one.
    pub etag: Option<String>,
    /// `Last-Modified`, where it is old enough to be sure of.
    pub modified: Option<String>,
    /// How long the whole file is.
    pub length: Option<u64>,
}

impl Version {
    /// What goes into `If-Range`.
    pub fn validator(&self) -> Option<&str> {
        self.etag.as_deref().or(self.modified.as_deref())
    }
}

/// What `about` says.
#[derive(Debug)]
struct About {
    url: String,
    version: Version,
    boot: String,
    synced: Option<u64>,
}

impl About {
    fn write(&self, path: &Path) -> io::Result<()> {
        let mut text = format!("juggler-part 1\nurl {}\nboot {}\n", self.url, self.boot);
        let version = &self.version;
        let numbers = [("length", version.length), ("synced", self.synced)];
        let texts = [("etag", &version.etag), ("modified", &version.modified)];
        for (key, value) in texts {
            text.extend(value.iter().map(|value| format!("{key} {value}\n")));
        }
        for (key, value) in numbers {
            text.extend(value.iter().map(|value| format!("{key} {value}\n")));
        }
        // Who finds no last line finds a torn file.
        text.push_str("end\n");
        fs::write(path, text)
    }

    fn read(path: &Path) -> Option<Self> {
        let text = fs::read_to_string(path).ok()?;
        let lines = text.strip_prefix("juggler-part 1\n")?.strip_suffix("end\n")?;
        let field =
            |key: &str| lines.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')).map(str::to_owned);
        let number = |key| field(key).and_then(|text: String| text.parse().ok());
        Some(Self {
            url: field("url")?,
            version: Version { etag: field("etag"), modified: field("modified"), length: number("length") },
            boot: field("boot")?,
            synced: number("synced"),
        })
    }
}

fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map_or_else(|_| String::new(), |id| id.trim().to_owned())
}

/// A file on its way; see the [module](self).
pub(crate) struct Part {
    url: String,
    path: PathBuf,
    about: PathBuf,
    file: Option<File>,
    length: u64,
    resumed: u64,
    version: Version,
    checksum: Option<Checksum>,
    hashed: Option<digest::Context>,
    reserved: u64,
    keep: bool,
}

impl Part {
    /// The part of `url` in `folder`, with what an earlier call left of it if `resume`. `nth` tells apart jobs with one address.
    ///
    /// # Errors
    /// [`Kind::Name`] of an address with a name that leads out of the folder; [`Kind::Disk`].
    pub fn open(
        folder: &Path,
        url: &url::Url,
        nth: u32,
        checksum: Option<Checksum>,
        resume: bool,
    ) -> Result<Self, Error> {
        let mut url = url.clone();
        // Neither credentials nor what the server never sees belong in a file.
        let _ = url.set_password(None);
        let _ = url.set_username("");
        url.set_fragment(None);
        let id = hex(&digest::digest(&digest::SHA256, format!("{url} {nth}").as_bytes()).as_ref()[..6]);
        let path = folder.join(format!("{}.{id}.part", name::of_url(&url)?));
        let mut about = path.clone().into_os_string();
        about.push(".about");
        let mut part = Self {
            url: url.into(),
            path,
            about: about.into(),
            file: None,
            length: 0,
            resumed: 0,
            version: Version::default(),
            hashed: checksum.as_ref().map(|checksum| digest::Context::new(checksum.algorithm)),
            checksum,
            reserved: 0,
            keep: true,
        };
        if resume && part.path.exists() {
            part.find().map_err(|error| Error::disk("continue", &part.path, error))?;
        }
        Ok(part)
    }

    /// Takes over what an earlier call left, if that can be continued.
    fn find(&mut self) -> io::Result<()> {
        let Some(about) = About::read(&self.about) else { return Ok(()) };
        if about.url != self.url || about.version.validator().is_none() {
            return Ok(());
        }
        let mut file = self.create()?;
        let mut length = file.metadata()?.len();
        if about.boot != boot() || about.boot.is_empty() {
            length = length.min(about.synced.unwrap_or(0));
        }
        if let Some(whole) = about.version.length {
            // One byte at least is asked for: the answer tells whether the part is still of the newest version.
            length = length.min(whole.saturating_sub(1));
        }
        if let Some(hashed) = &mut self.hashed {
            let mut buffer = vec![0; 1 << 18];
            let mut rest = (&mut file).take(length);
            loop {
                match rest.read(&mut buffer)? {
                    0 => break,
                    count => hashed.update(&buffer[..count]),
                }
            }
        }
        file.set_len(length)?;
        (self.length, self.resumed, self.version, self.file) = (length, length, about.version, Some(file));
        Ok(())
    }

    /// The part's file, locked.
    fn create(&self) -> io::Result<File> {
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .custom_flags(OFlags::NOFOLLOW.bits() as i32)
                .open(&self.path)?;
            match sys::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) => return Err(io::Error::other("another process is writing it")),
                Err(error) => return Err(error.into()),
                Ok(()) => {}
            }
            // Another process may have given the file its final name, and then let go of the lock.
            let (opened, named) = (file.metadata()?, fs::symlink_metadata(&self.path));
            if named.is_ok_and(|named| (named.dev(), named.ino()) == (opened.dev(), opened.ino())) {
                return Ok(file);
            }
        }
    }

    /// How many bytes are there.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// How many of them an earlier call left.
    pub fn resumed(&self) -> u64 {
        self.resumed
    }

    /// The version that the part is of, if it can be continued.
    pub fn unfinished(&self) -> Option<&Version> {
        (self.length > 0 && self.version.validator().is_some()).then_some(&self.version)
    }

    /// Forgets every byte.
    ///
    /// # Errors
    /// [`Kind::Disk`].
    pub fn start_over(&mut self) -> Result<(), Error> {
        if let Some(file) = &self.file {
            file.set_len(0).map_err(|error| Error::disk("empty", &self.path, error))?;
        }
        (self.length, self.resumed, self.reserved, self.version) = (0, 0, 0, Version::default());
        self.hashed = self.checksum.as_ref().map(|checksum| digest::Context::new(checksum.algorithm));
        Ok(())
    }

    /// Gets ready for bytes of `version`, which must be the one that is there if there are any.
    ///
    /// # Errors
    /// [`Kind::Disk`], also when there is no room for all that is missing.
    pub fn begin(&mut self, version: Version) -> Result<(), Error> {
        let prepare = |part: &mut Self| {
            if part.file.is_none() {
                let file = part.create()?;
                file.set_len(0)?;
                part.file = Some(file);
            }
            part.version = version;
            part.tell(None)
        };
        prepare(self).map_err(|error| Error::disk("create", &self.path, error))?;
        self.reserve()
    }

    fn tell(&self, synced: Option<u64>) -> io::Result<()> {
        if self.version.validator().is_none() {
            return Ok(());
        }
        About { url: self.url.clone(), version: self.version.clone(), boot: boot(), synced }.write(&self.about)
    }

    /// Makes sure of room for what is missing.
    fn reserve(&mut self) -> Result<(), Error> {
        let (Some(file), Some(whole)) = (&self.file, self.version.length) else { return Ok(()) };
        let missing = whole.saturating_sub(self.length.max(self.reserved));
        if missing < WORTH_RESERVING {
            return Ok(());
        }
        let free = sys::fstatvfs(file).map_or(u64::MAX, |room| room.f_bavail.saturating_mul(room.f_frsize));
        let full = free < missing
            || match sys::fallocate(file, FallocateFlags::KEEP_SIZE, self.length, whole - self.length) {
                Err(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => true,
                // Some file systems can't; then the write will tell.
                _ => false,
            };
        if full {
            let message = format!("no room for {}: {missing} bytes are missing, {free} are free", self.path.display());
            return Err(Error::new(Kind::Disk, message));
        }
        self.reserved = whole;
        Ok(())
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// [`Kind::Disk`]; what was there stays.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let Some(file) = &self.file else { return Err(Error::new(Kind::Disk, "the part is not open")) };
        file.write_all_at(bytes, self.length).map_err(|error| Error::disk("write", &self.path, error))?;
        self.length += bytes.len() as u64;
        if let Some(hashed) = &mut self.hashed {
            hashed.update(bytes);
        }
        Ok(())
    }

    /// The bytes are no use to anybody: they go when this is dropped.
    pub fn discard(&mut self) {
        self.keep = false;
    }

    /// Whether the content is what the checksum promises.
    ///
    /// # Errors
    /// [`Kind::Digest`].
    pub fn verify(&mut self) -> Result<(), Error> {
        let (Some(hashed), Some(checksum)) = (&self.hashed, &self.checksum) else { return Ok(()) };
        let found = hashed.clone().finish();
        if found.as_ref() == checksum.digest {
            return Ok(());
        }
        let (found, wanted) = (hex(found.as_ref()), hex(&checksum.digest));
        let message = format!("wrong digest: {:?} is {found}, not {wanted}", checksum.algorithm);
        self.discard();
        Err(Error::new(Kind::Digest, message))
    }

    /// Gives the whole file its final name, `wanted` or one beside it, and returns that. Waits for the disk.
    ///
    /// # Errors
    /// [`Kind::Disk`].
    pub fn finish(mut self, names: &Names, wanted: &str) -> Result<PathBuf, Error> {
        let Some(file) = self.file.take() else { return Err(Error::new(Kind::Disk, "the part is not open")) };
        if self.reserved > self.length {
            file.set_len(self.length).map_err(|error| Error::disk("cut", &self.path, error))?;
        }
        file.sync_all().map_err(|error| Error::disk("sync", &self.path, error))?;
        let path = names.give(&self.path, wanted)?;
        let _ = fs::remove_file(&self.about);
        Ok(path)
    }
}

impl Drop for Part {
    /// Leaves what can be continued, and nothing else.
    fn drop(&mut self) {
        let Some(file) = &self.file else { return };
        let of_use = self.keep && self.unfinished().is_some();
        // Nobody is left to be told of an error; without `synced` the part is not trusted after another boot.
        if of_use && file.sync_data().is_ok() {
            let _ = self.tell(Some(self.length));
        } else if !of_use {
            let _ = fs::remove_file(&self.path);
            let _ = fs::remove_file(&self.about);
        }
    }
}

/// The final names in a folder.
#[derive(Debug)]
pub(crate) struct Names {
    folder: PathBuf,
    overwrite: bool,
    given: Guarded<HashSet<String>>,
}

impl Names {
    /// Names in `folder`; those of files from before are given anew only if `overwrite`.
    pub fn new(folder: PathBuf, overwrite: bool) -> Self {
        Self { folder, overwrite, given: Guarded::new(HashSet::new()) }
    }

    /// Renames `part` to `wanted`, or to the first name beside it that is free.
    fn give(&self, part: &Path, wanted: &str) -> Result<PathBuf, Error> {
        let mut count = 0;
        loop {
            let name = if count == 0 { wanted.to_owned() } else { name::beside(wanted, count) };
            let path = self.folder.join(&name);
            count += 1;
            if !self.given.lock().insert(name) {
                continue;
            }
            let renamed = if self.overwrite { fs::rename(part, &path) } else { rename_to_new(part, &path) };
            match renamed {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && !self.overwrite => {}
                Err(error) => return Err(Error::disk("create", &path, error)),
                Ok(()) => return Ok(path),
            }
        }
    }

    /// Makes the names that were given last: waits until the folder is on the disk.
    pub fn sync(&self) {
        if !self.given.lock().is_empty() {
            // The files are there; only after a loss of power could a name be missing.
            let _ = File::open(&self.folder).and_then(|folder| folder.sync_all());
        }
    }
}

/// Renames, but not over another file.
fn rename_to_new(from: &Path, to: &Path) -> io::Result<()> {
    match sys::renameat_with(sys::CWD, from, sys::CWD, to, RenameFlags::NOREPLACE) {
        // Not on this file system.
        Err(Errno::INVAL | Errno::NOSYS) => {
            fs::hard_link(from, to)?;
            fs::remove_file(from)
        }
        done => Ok(done?),
    }
}
