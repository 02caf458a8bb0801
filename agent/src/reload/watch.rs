//! Says when files may have changed: inotify on everything that a path's resolution rests on, and a look now and then
//! for what inotify cannot tell (mounts, remote file systems, a watch that the kernel refused). It is a hint only:
//! whoever is woken reads the files and compares.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use super::paths::{Interest, Plan, plan};
use crate::metrics::{Counter, Family, Metrics, counter};

/// Nothing may have happened for so long before files are read: a save is more than one event.
const QUIET: Duration = Duration::from_millis(75);
/// Then they are read in any case: a file that is written without end must not put that off for ever.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);
/// How often files are looked at where every watch is in place.
const LOOK: Duration = Duration::from_secs(10);
/// How often where one is not.
const POLL: Duration = Duration::from_secs(2);
/// Attempts to set watches on a tree that changes meanwhile.
const ATTEMPTS: usize = 8;

const ERRORS: Family =
    counter("purser_watch_errors", "Watches on configuration and rule files that could not be set", &["reason"]);
/// Label values of `ERRORS`.
const REASONS: [&str; 4] = ["limit", "memory", "permission", "other"];

/// Why a wait is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Woken {
    /// Something that matters has happened, or the watches cannot tell whether it has.
    Changed,
    /// The descriptor that was given is readable.
    Called,
    /// Time for a look.
    Time,
}

/// The watches. Without any it only wakes for looks.
pub(super) struct Watcher {
    inotify: Option<OwnedFd>,
    watches: HashMap<i32, Interest>,
    /// Files that were written to and not closed since.
    being_written: HashSet<i32>,
    /// What cannot be watched, as it was logged.
    refused: HashSet<PathBuf>,
    errors: [(&'static str, Counter); REASONS.len()],
}

impl Watcher {
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self {
            inotify: None,
            watches: HashMap::new(),
            being_written: HashSet::new(),
            refused: HashSet::new(),
            errors: REASONS.map(|reason| (reason, metrics.counter(ERRORS, &[reason]))),
        }
    }

    /// Watches these paths from now on, and nothing else: what changes after this call is told.
    pub(super) fn arm(&mut self, paths: &[PathBuf]) {
        if self.inotify.is_none() {
            match inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK) {
                Ok(inotify) => self.inotify = Some(inotify),
                Err(error) => return self.refuse(Path::new("inotify"), error),
            }
            self.refused.remove(Path::new("inotify"));
        }
        let mut wanted = plan(paths);
        for _ in 0..ATTEMPTS {
            self.set(&wanted);
            // Only a tree that is the same after its watches were set is watched whole.
            let again = plan(paths);
            if again == wanted {
                return;
            }
            wanted = again;
        }
    }

    /// Watches nothing, and looks at nothing.
    pub(super) fn disarm(&mut self) {
        self.inotify = None;
        self.watches.clear();
        self.being_written.clear();
        self.refused.clear();
    }

    /// Waits until something happens, or `called` is readable, or it is time for a look.
    pub(super) fn wait(&mut self, called: BorrowedFd<'_>, looks: bool) -> Woken {
        let whole = self.inotify.is_some() && self.refused.is_empty();
        let end = looks.then(|| Instant::now() + if whole { LOOK } else { POLL });
        loop {
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Woken::Time;
            }
            if self.sleep(called, left) {
                return Woken::Called;
            }
            if self.has_changed() {
                return Woken::Changed;
            }
        }
    }

    /// Waits until nothing has happened for a moment, at the longest [`PATIENCE`] after `since`; watches what comes
    /// meanwhile.
    pub(super) fn settle(&mut self, since: Instant, paths: &[PathBuf]) {
        let end = since + PATIENCE;
        let mut last = Instant::now();
        loop {
            let now = Instant::now();
            let quiet = if self.being_written.is_empty() { last + QUIET } else { end };
            let left = quiet.min(end).saturating_duration_since(now);
            if left.is_zero() {
                return;
            }
            let Some(inotify) = &self.inotify else { return std::thread::sleep(left) };
            // An error is a wake-up too many: the time is looked at again.
            let _ = poll(&mut [PollFd::new(inotify, PollFlags::IN)], Some(&timespec(left)));
            if self.has_changed() {
                last = Instant::now();
                self.arm(paths);
            }
        }
    }

    /// Whether that happened since the last call which may change what is read.
    pub(super) fn has_changed(&mut self) -> bool {
        let Some(inotify) = &self.inotify else { return false };
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(inotify, &mut buffer);
        let mut changed = false;
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::INTR) => continue,
                Err(_) => return changed,
            };
            let (watch, what) = (event.wd(), event.events());
            if what.contains(ReadFlags::QUEUE_OVERFLOW) {
                changed = true;
                continue;
            }
            let Some(interest) = self.watches.get(&watch) else { continue };
            changed |= event.file_name().is_none_or(|name| interest.has(OsStr::from_bytes(name.to_bytes())));
            if event.file_name().is_none() && interest.content {
                if what.contains(ReadFlags::MODIFY) {
                    self.being_written.insert(watch);
                }
                if what.intersects(ReadFlags::CLOSE_WRITE | ReadFlags::DELETE_SELF | ReadFlags::IGNORED) {
                    self.being_written.remove(&watch);
                }
            }
        }
    }

    fn set(&mut self, plan: &Plan) {
        let Some(inotify) = &self.inotify else { return };
        let mut watches: HashMap<i32, Interest> = HashMap::new();
        let mut refused = Vec::new();
        for (path, interest) in plan {
            match inotify::add_watch(inotify, path, flags(interest)) {
                Ok(watch) => watches.entry(watch).or_default().add(interest),
                // Gone meanwhile: the plan that is made next knows.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(error) => refused.push((path.clone(), error)),
            }
        }
        for watch in self.watches.keys().filter(|watch| !watches.contains_key(watch)) {
            // The kernel has dropped that of a file that is gone itself.
            let _ = inotify::remove_watch(inotify, *watch);
        }
        self.being_written.retain(|watch| watches.contains_key(watch));
        self.watches = watches;
        self.refused.retain(|path| refused.iter().any(|(still, _)| still == path));
        for (path, error) in refused {
            self.refuse(&path, error);
        }
    }

    /// Says and counts once that something cannot be watched.
    fn refuse(&mut self, path: &Path, error: Errno) {
        if !self.refused.insert(path.to_owned()) {
            return;
        }
        let (reason, remedy) = match error {
            Errno::NOSPC => ("limit", "; raise fs.inotify.max_user_watches"),
            Errno::MFILE => ("limit", "; raise fs.inotify.max_user_instances"),
            Errno::NFILE => ("limit", "; raise fs.file-max"),
            Errno::NOMEM => ("memory", ""),
            Errno::ACCESS | Errno::PERM => ("permission", ""),
            _ => ("other", ""),
        };
        if let Some((_, counter)) = self.errors.iter().find(|(known, _)| *known == reason) {
            counter.increment();
        }
        let (path, seconds) = (path.display(), POLL.as_secs());
        tracing::warn!("cannot watch {path} for changes: {error}{remedy}; it is looked at every {seconds} s instead");
    }

    /// True: `called` is readable.
    fn sleep(&self, called: BorrowedFd<'_>, limit: Option<Duration>) -> bool {
        let limit = limit.map(timespec);
        let mut waited = vec![PollFd::from_borrowed_fd(called, PollFlags::IN)];
        waited.extend(self.inotify.iter().map(|inotify| PollFd::from_borrowed_fd(inotify.as_fd(), PollFlags::IN)));
        poll(&mut waited, limit.as_ref()).is_ok() && !waited[0].revents().is_empty()
    }
}

fn flags(interest: &Interest) -> WatchFlags {
    let mut flags = WatchFlags::MASK_ADD | WatchFlags::DONT_FOLLOW;
    if interest.itself {
        // Not ATTRIB, which tells of every entry as well: a busy directory on the way must not keep the thread awake.
        flags |= WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
    }
    if interest.content {
        flags |= WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF | WatchFlags::ATTRIB;
        flags |= WatchFlags::MODIFY | WatchFlags::CLOSE_WRITE;
    }
    if interest.rule_files || !interest.names.is_empty() {
        flags |= WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVED_FROM | WatchFlags::MOVED_TO;
    }
    flags
}

fn timespec(time: Duration) -> Timespec {
    Timespec { tv_sec: time.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: time.subsec_nanos().into() }
}

#[cfg(test)]
mod tests;
