//! A file on its way: without a name at first, then `NAME.part` with `NAME.part.about` beside it.
//!
//! The bytes of a small file wait in memory until it is whole. A file that comes in no time needs no name but its final one: until
//! then it is one of those that the system deletes when nobody has them open (`O_TMPFILE`). Whatever takes longer is *claimed*: it gets its name as a part, so that another call can
//! continue it. What must hold, whenever the program or the machine stops:
//!
//! * The part holds bytes of one version of one file only. `about` is written before the part has its name; whoever finds
//!   another version empties the part first.
//! * What is continued was really written. After a kill the kernel still has the bytes, so within one boot of the machine the
//!   part's length is to be trusted. After another boot only what an orderly stop has synced is (`synced` in `about`). Where a
//!   part has gaps, `ranges` in `about` says what is there, of what was written before it said so.
//! * One process writes: the part is locked (`flock`) as long as it is open, from before it has its name.
//! * The final name appears in one step, after the bytes are on the disk ([`crate::commit`]).

use crate::about::{About, Version, boot};
use crate::error::{Error, Kind};
use crate::name;
use crate::names::{Names, name_nameless, rename_to_new};
use crate::options::{Checksum, Options, hex};
use crate::ranges::Ranges;
use juggler_sync::guarded::Guarded;
use ring::digest;
use rustix::fs::{self as sys, FallocateFlags, FlockOperation, OFlags};
use rustix::io::Errno;
use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// From this size on, room is made sure of before the first byte; below, looking costs more than failing.
const WORTH_RESERVING: u64 = 4 << 20;

/// Up to this size bytes wait in memory for their file, which a thread that may wait for the disk makes when they are all there.
const HELD: u64 = 64 << 10;

/// So many names are read to know which parts there are, at most.
const MUCH: usize = 10_000;

/// How many pieces of memory for held bytes are kept for the next files.
const SPARES: usize = 64;

/// How long a file may have no name: what is lost in a kill.
const NAMELESS: Duration = Duration::from_millis(100);

/// The bytes of a small file, in memory that goes from file to file: one thread fills it and another empties it, and what one
/// thread allocates and another frees is most of what allocation costs.
#[derive(Default)]
struct Held(Vec<u8>);

static SPARE: LazyLock<Guarded<Vec<Vec<u8>>>> = LazyLock::new(|| Guarded::new(Vec::new()));

impl Held {
    /// Makes room; keeps what is there.
    fn ready(&mut self) {
        if self.0.capacity() == 0 {
            let spare = SPARE.lock().pop();
            self.0 = spare.unwrap_or_else(|| Vec::with_capacity(HELD as usize));
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut spare = SPARE.lock();
        if self.0.capacity() > 0 && spare.len() < SPARES {
            self.0.clear();
            spare.push(std::mem::take(&mut self.0));
        }
    }
}

/// A file on its way; see the [module](self).
pub(crate) struct Part {
    url: String,
    folder: PathBuf,
    path: PathBuf,
    about: PathBuf,
    file: Option<File>,
    /// All bytes, as long as there is no file.
    held: Held,
    /// Whether it has the name `path`, and since when it has none otherwise.
    named: bool,
    begun: Instant,
    /// What is there.
    ranges: Ranges,
    /// Whether it has, or had, gaps: its length alone does not say what is there.
    gaps: bool,
    resumed: u64,
    version: Version,
    checksum: Option<Checksum>,
    /// The hash of the first bytes, and of how many.
    hashed: Option<(digest::Context, u64)>,
    reserved: u64,
    /// Whether anybody waits for the disk.
    sync: bool,
    keep: bool,
}

/// The parts that were in a folder when a call began.
pub(crate) struct Parts(Option<HashSet<OsString>>);

impl Parts {
    /// What is there; nothing is known of a folder with very much in it, as to look would take longer than to ask for each.
    ///
    /// # Errors
    /// [`Kind::Disk`].
    pub fn of(folder: &Path) -> Result<Self, Error> {
        let failed = |error| Error::disk("read the folder", folder, error);
        let mut found = HashSet::new();
        for (count, entry) in fs::read_dir(folder).map_err(failed)?.enumerate() {
            let name = entry.map_err(failed)?.file_name();
            if count == MUCH {
                return Ok(Self(None));
            }
            if name.as_encoded_bytes().ends_with(b".part") {
                found.insert(name);
            }
        }
        Ok(Self(Some(found)))
    }

    fn may_have(&self, path: &Path) -> bool {
        self.0.as_ref().is_none_or(|found| path.file_name().is_some_and(|name| found.contains(name)))
    }
}

impl Part {
    /// The part of `url` in the folder of `options`. `nth` tells apart jobs with one address.
    ///
    /// # Errors
    /// [`Kind::Name`] of an address with a name that leads out of the folder.
    pub fn new(options: &Options, url: &url::Url, nth: u32, checksum: Option<Checksum>) -> Result<Self, Error> {
        let mut url = url.clone();
        // Neither credentials nor what the server never sees belong in a file.
        let _ = url.set_password(None);
        let _ = url.set_username("");
        url.set_fragment(None);
        let id = hex(&digest::digest(&digest::SHA256, format!("{url} {nth}").as_bytes()).as_ref()[..6]);
        let path = options.folder.join(format!("{}.{id}.part", name::of_url(&url)?));
        let mut about = path.clone().into_os_string();
        about.push(".about");
        Ok(Self {
            url: url.into(),
            folder: options.folder.clone(),
            path,
            about: about.into(),
            file: None,
            held: Held::default(),
            named: false,
            begun: Instant::now(),
            ranges: Ranges::default(),
            gaps: false,
            resumed: 0,
            version: Version::default(),
            hashed: checksum.as_ref().map(|checksum| (digest::Context::new(checksum.algorithm), 0)),
            checksum,
            reserved: 0,
            sync: options.sync,
            keep: true,
        })
    }

    /// Takes over what an earlier call left in the folder of `parts`, if that can be continued and is to be (`resume`); otherwise it goes.
    ///
    /// # Errors
    /// [`Kind::Disk`], also when another process is at it.
    pub fn find(&mut self, parts: &Parts, resume: bool) -> Result<(), Error> {
        if !parts.may_have(&self.path) || !self.path.exists() {
            return Ok(());
        }
        self.take_over(resume).map_err(|error| Error::disk("continue", &self.path, error))
    }

    fn take_over(&mut self, resume: bool) -> io::Result<()> {
        let file = self.create()?;
        let of_use = |about: &About| resume && about.url == self.url && about.version.validator().is_some();
        let Some(about) = About::read(&self.about).filter(of_use) else {
            return fs::remove_file(&self.path).and_then(|()| self.forget());
        };
        let mut ranges = about.trusted(file.metadata()?.len());
        if let Some(whole) = about.version.length {
            // One byte at least is asked for: the answer tells whether the part is still of the newest version.
            ranges.cut(whole.saturating_sub(1));
        }
        self.gaps = about.ranges.is_some();
        if !self.gaps {
            file.set_len(ranges.prefix())?;
        }
        (self.resumed, self.ranges, self.version) = (ranges.sum(), ranges, about.version);
        (self.file, self.named) = (Some(file), true);
        Ok(())
    }

    /// The part's file at its name, locked.
    fn create(&self) -> io::Result<File> {
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .custom_flags(OFlags::NOFOLLOW.bits() as i32)
                .open(&self.path)?;
            lock(&file)?;
            // Another process may have given the file its final name, and then let go of the lock.
            let (opened, named) = (file.metadata()?, fs::symlink_metadata(&self.path));
            if named.is_ok_and(|named| (named.dev(), named.ino()) == (opened.dev(), opened.ino())) {
                return Ok(file);
            }
        }
    }

    /// A new file, without a name where the file system has such.
    fn begin_file(&mut self) -> io::Result<File> {
        let flags = OFlags::TMPFILE.bits() as i32;
        match OpenOptions::new().read(true).write(true).custom_flags(flags).mode(0o666).open(&self.folder) {
            Ok(file) => {
                self.named = false;
                Ok(file)
            }
            Err(_) => {
                let file = self.create()?;
                file.set_len(0)?;
                self.named = true;
                Ok(file)
            }
        }
    }

    /// Whether all bytes wait in memory for [`Part::open`].
    pub fn is_held(&self) -> bool {
        self.file.is_none()
    }

    /// Makes the file, if there is none yet, with the bytes that wait for it.
    ///
    /// # Errors
    /// [`Kind::Disk`].
    pub fn open(&mut self) -> Result<(), Error> {
        if self.file.is_some() {
            return Ok(());
        }
        let created =
            self.begin_file().and_then(|file| if self.named { self.tell(None).map(|()| file) } else { Ok(file) });
        let file = self.file.insert(created.map_err(|error| Error::disk("create", &self.path, error))?);
        let held = std::mem::take(&mut self.held);
        file.write_all_at(&held.0, 0).map_err(|error| {
            self.ranges = Ranges::default();
            self.write_error(error)
        })
    }

    /// Gives the file its name as a part, so that it is there for another call. Of no effect if it has one.
    ///
    /// # Errors
    /// [`Kind::Disk`], also when another process has the part.
    pub fn claim(&mut self) -> Result<(), Error> {
        self.open()?;
        let Some(file) = self.file.as_ref().filter(|_| !self.named) else { return Ok(()) };
        let name = || {
            lock(file)?;
            // Held until ours has the name, so that nobody takes over what it goes in place of.
            let old = if self.path.exists() { Some(self.create()?) } else { None };
            if old.is_some() {
                fs::remove_file(&self.path)?;
            }
            self.tell(None)?;
            name_nameless(file, sys::CWD, &self.path)
        };
        name().map_err(|error: io::Error| Error::disk("create", &self.path, error))?;
        self.named = true;
        Ok(())
    }

    /// Whether it is time for [`Part::claim`].
    pub fn is_to_be_claimed(&self) -> bool {
        !self.named && self.begun.elapsed() >= NAMELESS
    }

    /// How many bytes are there.
    pub fn length(&self) -> u64 {
        self.ranges.sum()
    }

    /// Which are there.
    pub fn ranges(&self) -> &Ranges {
        &self.ranges
    }

    /// Whether there may be gaps, so that it must be written down what is there.
    pub fn has_gaps(&self) -> bool {
        self.gaps
    }

    /// How many of them an earlier call left.
    pub fn resumed(&self) -> u64 {
        self.resumed
    }

    /// What is missing, the end of the last gap being that of the file, or [`u64::MAX`].
    pub fn missing(&self) -> Vec<(u64, u64)> {
        self.ranges.gaps(self.version.length.unwrap_or(u64::MAX))
    }

    /// The version that the part is of, if it can be continued.
    pub fn unfinished(&self) -> Option<&Version> {
        (self.length() > 0 && self.version.validator().is_some()).then_some(&self.version)
    }

    /// Forgets every byte. Nothing may be under way to the file.
    ///
    /// # Errors
    /// [`Kind::Disk`].
    pub fn start_over(&mut self) -> Result<(), Error> {
        if let Some(file) = &self.file {
            file.set_len(0).map_err(|error| Error::disk("empty", &self.path, error))?;
        }
        (self.ranges, self.gaps, self.version) = (Ranges::default(), false, Version::default());
        (self.resumed, self.reserved) = (0, 0);
        self.held.0.clear();
        self.hashed = self.checksum.as_ref().map(|checksum| (digest::Context::new(checksum.algorithm), 0));
        Ok(())
    }

    /// Gets ready for bytes of `version`, which must be the one that is there if there are any.
    ///
    /// # Errors
    /// [`Kind::Disk`], also when there is no room for all that is missing.
    pub fn begin(&mut self, version: Version) -> Result<(), Error> {
        let length = version.length.unwrap_or(0);
        self.version = version;
        match &self.file {
            Some(_) if self.named => self.tell(None).map_err(|error| Error::disk("create", &self.path, error))?,
            None if length > HELD => self.open()?,
            None => self.held.ready(),
            Some(_) => {}
        }
        self.reserve()
    }

    /// Writes down what is there; from now on there may be gaps.
    ///
    /// # Errors
    /// [`Kind::Disk`].
    pub fn tell_ranges(&mut self) -> Result<(), Error> {
        self.gaps = true;
        self.tell(None).map_err(|error| Error::disk("write", &self.about, error))
    }

    /// Writes what the part is of, if it can be continued.
    fn tell(&self, synced: Option<u64>) -> io::Result<()> {
        if self.version.validator().is_none() {
            return self.forget();
        }
        let ranges = self.gaps.then(|| self.ranges.clone());
        About { url: self.url.clone(), version: self.version.clone(), boot: boot().into(), ranges, synced }
            .write(&self.about)
    }

    /// Removes what stands beside the part.
    fn forget(&self) -> io::Result<()> {
        match fs::remove_file(&self.about) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Makes sure of room for what is missing.
    fn reserve(&mut self) -> Result<(), Error> {
        let (Some(file), Some(whole)) = (&self.file, self.version.length) else { return Ok(()) };
        if self.reserved >= whole || whole - self.length() < WORTH_RESERVING {
            return Ok(());
        }
        let missing = whole - self.length();
        let free = match sys::fstatvfs(file) {
            // Without blocks, such as one in memory without a limit, a file system does not say.
            Ok(room) if room.f_blocks > 0 => room.f_bavail.saturating_mul(room.f_frsize),
            _ => u64::MAX,
        };
        let from = self.ranges.prefix();
        let full = free < missing
            || match sys::fallocate(file, FallocateFlags::KEEP_SIZE, from, whole - from) {
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

    /// Adds bytes that come at `from`.
    ///
    /// # Errors
    /// [`Kind::Disk`]; what was there stays.
    pub fn write(&mut self, from: u64, bytes: &[u8]) -> Result<(), Error> {
        let end = from + bytes.len() as u64;
        if self.file.is_none() && end <= HELD {
            self.held.0.extend_from_slice(bytes);
        } else {
            self.open()?;
            self.file()?.write_all_at(bytes, from).map_err(|error| self.write_error(error))?;
        }
        self.written(from, end);
        Ok(())
    }

    /// Says that the bytes from `from` on and before `to` are there.
    pub fn written(&mut self, from: u64, to: u64) {
        self.ranges.add(from, to);
    }

    /// Counts `bytes`, which belong at `from`, into the hash, if they are its next.
    pub fn hash(&mut self, from: u64, bytes: &[u8]) {
        if let Some((hashed, count)) = &mut self.hashed {
            let end = from + bytes.len() as u64;
            if (from..end).contains(count) {
                hashed.update(&bytes[(*count - from) as usize..]);
                *count = end;
            }
        }
    }

    /// The open file.
    ///
    /// # Errors
    /// [`Kind::Disk`] before [`Part::begin`].
    pub fn file(&self) -> Result<&File, Error> {
        self.file.as_ref().ok_or_else(|| Error::new(Kind::Disk, "the part is not open"))
    }

    /// Whether somebody waits until it is on the disk.
    pub fn is_synced(&self) -> bool {
        self.sync
    }

    /// The error that a failed write is.
    pub fn write_error(&self, error: io::Error) -> Error {
        Error::disk("write", &self.path, error)
    }

    /// The bytes are no use to anybody: they go when this is dropped.
    pub fn discard(&mut self) {
        self.keep = false;
    }

    /// Whether the file comes with a checksum, so that [`Part::verify`] may have much to read.
    pub fn has_checksum(&self) -> bool {
        self.checksum.is_some()
    }

    /// Whether the content is what the checksum promises; reads what did not come in order.
    ///
    /// # Errors
    /// [`Kind::Digest`], [`Kind::Disk`].
    pub fn verify(&mut self) -> Result<(), Error> {
        self.open()?;
        let (Some((hashed, count)), Some(checksum), Some(file)) = (&mut self.hashed, &self.checksum, &self.file) else {
            return Ok(());
        };
        let end = self.ranges.prefix();
        let mut buffer = vec![0; 1 << 18];
        while *count < end {
            let most = usize::try_from(end - *count).map_or(buffer.len(), |rest| rest.min(buffer.len()));
            match file.read_at(&mut buffer[..most], *count) {
                Ok(0) => break,
                Ok(read) => {
                    hashed.update(&buffer[..read]);
                    *count += read as u64;
                }
                Err(error) => return Err(Error::disk("read", &self.path, error)),
            }
        }
        let found = hashed.clone().finish();
        if found.as_ref() == checksum.digest {
            return Ok(());
        }
        let (found, wanted) = (hex(found.as_ref()), hex(&checksum.digest));
        let message = format!("wrong digest: {:?} is {found}, not {wanted}", checksum.algorithm);
        self.discard();
        Err(Error::new(Kind::Digest, message))
    }

    /// Brings the whole file to the disk. Waits for it.
    ///
    /// # Errors
    /// [`Kind::Disk`].
    pub fn sync(&self) -> Result<(), Error> {
        self.file()?.sync_all().map_err(|error| Error::disk("sync", &self.path, error))
    }

    /// Lets go of room that is not needed.
    ///
    /// # Errors
    /// [`Kind::Disk`].
    pub fn fit(&self) -> Result<(), Error> {
        if self.reserved <= self.length() {
            return Ok(());
        }
        self.file()?.set_len(self.length()).map_err(|error| Error::disk("cut", &self.path, error))
    }

    /// Gives the file, which is on the disk, its final name, `wanted` or one beside it, and returns that.
    ///
    /// # Errors
    /// [`Kind::Disk`].
    pub fn finish(mut self, names: &Names, wanted: &str) -> Result<PathBuf, Error> {
        if names.may_replace() {
            self.claim()?;
        }
        if self.named {
            // Before the name, as whoever is stopped in between leaves a part that the next call sees, and not an `about` of
            // nothing, which nobody looks for.
            let _ = self.forget();
        }
        let file = self.file()?;
        let path = names.give(wanted, |folder, name| match (self.named, names.may_replace()) {
            (false, _) => name_nameless(file, folder, name),
            (true, true) => Ok(sys::renameat(sys::CWD, &self.path, folder, name)?),
            (true, false) => rename_to_new(&self.path, folder, name),
        })?;
        (self.named, self.keep) = (false, false);
        Ok(path)
    }
}

impl Drop for Part {
    /// Leaves what can be continued, and nothing else.
    fn drop(&mut self) {
        // Nobody is left to be told of an error; without `synced` the part is not trusted after another boot.
        if self.keep && self.unfinished().is_some() && self.claim().is_ok() {
            if self.sync && self.file.as_ref().is_some_and(|file| file.sync_data().is_ok()) {
                let _ = self.tell(Some(self.ranges.prefix()));
            }
        } else if self.named {
            let _ = fs::remove_file(&self.path);
            let _ = self.forget();
        }
    }
}

fn lock(file: &File) -> io::Result<()> {
    match sys::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => Err(io::Error::other("another process is writing it")),
        done => Ok(done?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_asked_once_for_its_parts_or_else_for_each() {
        let folder = std::env::temp_dir().join(format!("juggler-parts-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("a.1.part"), "").unwrap();
        let parts = Parts::of(&folder).unwrap();
        let found = ["a.1.part", "b.1.part"].map(|name| parts.may_have(&folder.join(name)));
        assert_eq!(found, [true, false]);
        for number in 0..MUCH {
            fs::write(folder.join(number.to_string()), "").unwrap();
        }
        assert!(Parts::of(&folder).unwrap().may_have(&folder.join("b.1.part")));
        fs::remove_dir_all(folder).unwrap();
    }
}
