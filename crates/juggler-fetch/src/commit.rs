//! Whole files get their names in groups.
//!
//! What makes a file durable is a turn of the file system's journal and a flush of the disk, and one of each serves all files
//! that are written by then. So the write-back of a larger file begins when it is whole, and those that become whole while a group is
//! under way are the next group, which waits a moment for more where these are on their way. Of each group
//!
//! 1. all are synced: with their whole file system where that is less, or else one by one, many at once;
//! 2. each gets its final name;
//! 3. the folder is synced, and only then are the files told to be there.
//!
//! What a loss of power leaves at each of these moments is in `docs/internals/fetch.md`.

use crate::error::{Error, Kind};
use crate::hosts::Hosts;
use crate::names::Names;
use crate::part::Part;
use crate::write_back::begin_write_back;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};

/// How many files are synced at once.
pub(crate) const DISK_THREADS: usize = 16;

/// From so many files on, they are synced with their file system: one turn of the journal and one flush of the disk, where each
/// file's own would be a flush for each.
const MANY: usize = 16;

/// But only while no more than so many bytes of others would be written along.
const LITTLE: u64 = 32 << 20;

/// A group of so many waits for no more.
const FULL: usize = 64;

/// Nor does one wait longer than this after the group before.
const GATHERING: Duration = Duration::from_millis(10);

/// The final name of a file, or why it has none.
type Told = Result<PathBuf, Error>;

/// A whole file, the name that it should get, and who wants to know which it got.
pub(crate) struct Ready {
    part: Part,
    name: String,
    told: oneshot::Sender<Told>,
}

/// The way to [`serve`].
pub(crate) type Committer = mpsc::UnboundedSender<Ready>;

/// Gives the whole file its final name, `name` or one beside it, and returns that once it is on the disk.
///
/// # Errors
/// [`Kind::Disk`].
pub(crate) async fn commit(committer: &Committer, part: Part, name: String) -> Result<PathBuf, Error> {
    let (told, tells) = oneshot::channel();
    let gone = || Error::new(Kind::Disk, "the downloader ends");
    committer.send(Ready { part, name, told }).map_err(|_| gone())?;
    tells.await.map_err(|_| gone())?
}

/// Commits what comes, group by group, for ever; while one group gets its names the next is synced, if it `is_synced`, and a
/// third begun. What `hosts` send is on its way.
pub(crate) async fn serve(
    names: Arc<Names>,
    hosts: Arc<Hosts>,
    queue: mpsc::UnboundedReceiver<Ready>,
    is_synced: bool,
) {
    let (forward, written) = mpsc::unbounded_channel();
    if !is_synced {
        tokio::join!(begin(queue, forward, is_synced), name(&names, written, is_synced));
        return;
    }
    let (pass, durable) = mpsc::unbounded_channel();
    tokio::join!(
        begin(queue, forward, is_synced),
        sync(&names, &hosts, written, pass),
        name(&names, durable, is_synced)
    );
}

/// Lets the disk begin with what comes, while it waits for its group.
async fn begin(mut queue: mpsc::UnboundedReceiver<Ready>, forward: mpsc::UnboundedSender<Ready>, is_synced: bool) {
    let mut group = Vec::new();
    while queue.recv_many(&mut group, usize::MAX).await > 0 {
        let group = std::mem::take(&mut group);
        // A thread that failed has let go of its files, whose owners are told so.
        for ready in spawn_blocking(move || begun(group, is_synced)).await.unwrap_or_default() {
            // `serve` has the other end as well.
            let _ = forward.send(ready);
        }
    }
}

/// Brings what comes to the disk.
async fn sync(
    names: &Arc<Names>,
    hosts: &Hosts,
    mut queue: mpsc::UnboundedReceiver<Ready>,
    pass: mpsc::UnboundedSender<Ready>,
) {
    let mut group = Vec::new();
    let mut latest = Instant::now() + GATHERING;
    while queue.recv_many(&mut group, usize::MAX).await > 0 {
        // Of what was on its way, the last to come finds the hosts idle.
        while group.len() < FULL && !hosts.are_idle() {
            if !matches!(timeout_at(latest, queue.recv_many(&mut group, usize::MAX)).await, Ok(1..)) {
                break;
            }
        }
        latest = Instant::now() + GATHERING;
        for ready in synced(names, std::mem::take(&mut group)).await {
            let _ = pass.send(ready);
        }
    }
}

/// Names what comes, and tells that it is there.
async fn name(names: &Arc<Names>, mut queue: mpsc::UnboundedReceiver<Ready>, is_synced: bool) {
    let mut group = Vec::new();
    while queue.recv_many(&mut group, usize::MAX).await > 0 {
        let (names, whole) = (Arc::clone(names), std::mem::take(&mut group));
        // A thread that failed has let go of the files, whose owners are told so.
        for (path, told) in spawn_blocking(move || named(&names, whole, is_synced)).await.unwrap_or_default() {
            // Nobody listens any more if the deadline passed meanwhile.
            let _ = told.send(path);
        }
    }
}

/// Begins the write-back of a group; those for which it could be.
fn begun(group: Vec<Ready>, is_synced: bool) -> Vec<Ready> {
    each(group, |ready| {
        if ready.part.is_held() {
            // Little enough to be written with its group, by one who writes all of it at once.
            return ready.part.open();
        }
        ready.part.fit()?;
        if is_synced {
            begin_write_back(ready.part.file()?);
        }
        Ok(())
    })
}

/// Waits for the disk; those that are on it.
async fn synced(names: &Arc<Names>, group: Vec<Ready>) -> Vec<Ready> {
    let names = Arc::clone(names);
    let at_once = move || if synced_at_once(&names, &group) { (group, Vec::new()) } else { (Vec::new(), group) };
    let Ok((mut whole, others)) = spawn_blocking(at_once).await else { return Vec::new() };
    let share = others.len().div_ceil(DISK_THREADS);
    let mut others = others.into_iter().peekable();
    let mut syncs = Vec::new();
    while others.peek().is_some() {
        let share: Vec<_> = others.by_ref().take(share).collect();
        syncs.push(spawn_blocking(|| each(share, |ready| ready.part.sync())));
    }
    for sync in syncs {
        whole.extend(sync.await.unwrap_or_default());
    }
    whole
}

/// Syncs a group with its whole file system, where that is less than to sync each file. Whether all are on the disk.
fn synced_at_once(names: &Names, group: &[Ready]) -> bool {
    let ours: u64 = group.iter().map(|ready| ready.part.length()).sum();
    // After an error, which may be any file's, each is asked for its own.
    group.len() >= MANY
        && tells_errors()
        && dirty().is_some_and(|dirty| dirty <= ours + LITTLE)
        && names.sync_file_system().is_ok()
}

/// How many bytes wait for their disk, of everybody.
fn dirty() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let number =
        |key| text.lines().find_map(|line| line.strip_prefix(key)?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Some((number("Dirty:")? + number("Writeback:")?) * 1024)
}

/// Whether `syncfs` tells of what could not be written: from Linux 5.8 on.
fn tells_errors() -> bool {
    static TELLS: OnceLock<bool> = OnceLock::new();
    *TELLS.get_or_init(|| {
        let uname = rustix::system::uname();
        let release = uname.release().to_string_lossy();
        let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
        (numbers.next(), numbers.next()) >= (Some(5), Some(8))
    })
}

/// What `step` succeeds with; the others are told why not.
fn each(group: Vec<Ready>, step: impl Fn(&mut Ready) -> Result<(), Error>) -> Vec<Ready> {
    let mut good = Vec::with_capacity(group.len());
    for mut ready in group {
        match step(&mut ready) {
            Ok(()) => good.push(ready),
            Err(error) => {
                let _ = ready.told.send(Err(error));
            }
        }
    }
    good
}

/// Names the files of a group; what each is told.
fn named(names: &Names, group: Vec<Ready>, is_synced: bool) -> Vec<(Told, oneshot::Sender<Told>)> {
    let named: Vec<_> = group.into_iter().map(|ready| (ready.part.finish(names, &ready.name), ready.told)).collect();
    let synced = if is_synced { names.sync() } else { Ok(()) };
    let tell = |(path, told): (Told, _)| (path.and_then(|path| synced.clone().map(|()| path)), told);
    named.into_iter().map(tell).collect()
}
