//! Processes as `/proc` tells them: what ran before the agent, and what an event left unsaid.
//! Each answer is a snapshot of a thing that changes: a process that is gone half-way is `None`, never an error.

use std::fs;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{AtFlags, Mode, OFlags, Statx, StatxFlags};

use super::{NS_PER_TICK, Process, ProcessKey, Program};
use crate::event::{FileIdentity, MEMFD_MAGICS};

/// Longest argv, and longest environment, kept of a process that was there before the agent.
const MAX_TEXT: usize = 16 << 10;

/// A mounted procfs.
#[derive(Debug, Clone)]
pub struct Procfs {
    root: PathBuf,
    cgroup2: Option<PathBuf>,
    environment: bool,
}

impl Procfs {
    /// `root` is usually `/proc`; `cgroup2` the mount point of the cgroup2 hierarchy, where there is one.
    pub fn new(root: impl Into<PathBuf>, cgroup2: Option<PathBuf>) -> Self {
        Self { root: root.into(), cgroup2, environment: false }
    }

    /// Whether environments are read, too: some rule needs them.
    pub fn read_environment(&mut self, read: bool) {
        self.environment = read;
    }

    /// Pids of all processes, kernel threads included.
    pub fn processes(&self) -> Vec<u32> {
        let Ok(entries) = fs::read_dir(&self.root) else { return Vec::new() };
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    }

    /// One process; `None` when it is gone.
    pub fn process(&self, tgid: u32) -> Option<Process> {
        let dir = self.root.join(tgid.to_string());
        let stat = Stat::parse(&fs::read(dir.join("stat")).ok()?)?;
        let status = fs::read(dir.join("status")).ok()?;
        let parent = self.start_of(stat.ppid).map(|ticks| ProcessKey { tgid: stat.ppid, start_ticks: ticks });
        let envp = if self.environment { strings(&dir.join("environ")) } else { Bytes::new() };
        let start_boottime_ns = stat.start_ticks * NS_PER_TICK;
        let path = link(&dir.join("exe"));
        let file = identity(&dir, &path).ok();
        // The kernel's event names a memfd without the slash that d_path puts in front.
        let path = if file.is_some_and(|file| file.memfd) { path.slice(1..) } else { path };
        Some(Process {
            key: ProcessKey { tgid, start_ticks: stat.start_ticks },
            parent,
            start_boottime_ns,
            vtgid: last_of_row(&status, b"NStgid:").unwrap_or(tgid),
            sid: stat.sid,
            pgid: stat.pgid,
            vpgid: last_of_row(&status, b"NSpgid:").unwrap_or(stat.pgid),
            tty: stat.tty,
            uid: first_of_row(&status, b"Uid:").unwrap_or(0),
            loginuid: fs::read_to_string(dir.join("loginuid"))
                .ok()
                .and_then(|t| t.trim().parse().ok())
                .unwrap_or(u32::MAX),
            cgroup_id: self.cgroup_id(&dir).unwrap_or(0),
            mnt_ns: namespace(&dir.join("ns/mnt")).unwrap_or(0),
            comm: stat.comm,
            program: Arc::new(Program {
                path,
                argv: strings(&dir.join("cmdline")),
                envp,
                cwd: link(&dir.join("cwd")),
                file,
                exec_boot_ns: start_boottime_ns,
                ..Program::default()
            }),
        })
    }

    fn start_of(&self, tgid: u32) -> Option<u64> {
        if tgid == 0 {
            return None;
        }
        Some(Stat::parse(&fs::read(self.root.join(tgid.to_string()).join("stat")).ok()?)?.start_ticks)
    }

    /// The inode of the process's cgroup2 directory, which is the id that BPF reports.
    fn cgroup_id(&self, dir: &Path) -> Option<u64> {
        let mount = self.cgroup2.as_ref()?;
        let text = fs::read(dir.join("cgroup")).ok()?;
        let path = text.split(|b| *b == b'\n').find_map(|line| line.strip_prefix(b"0::"))?;
        let path = Path::new(std::ffi::OsStr::from_bytes(path.strip_prefix(b"/").unwrap_or(path)));
        Some(fs::metadata(mount.join(path)).ok()?.ino())
    }
}

/// Fields of `/proc/PID/stat` (`fs/proc/array.c`, `do_task_stat`).
struct Stat {
    comm: [u8; 16],
    ppid: u32,
    pgid: u32,
    sid: u32,
    tty: u32,
    start_ticks: u64,
}

impl Stat {
    fn parse(text: &[u8]) -> Option<Self> {
        // The name is in parentheses and may hold blanks and parentheses: the last one closes it.
        let open = text.iter().position(|b| *b == b'(')?;
        let close = text.iter().rposition(|b| *b == b')')?;
        let name = text.get(open + 1..close)?;
        let mut comm = [0; 16];
        let length = name.len().min(15);
        comm[..length].copy_from_slice(&name[..length]);
        let rest = str::from_utf8(text.get(close + 1..)?).ok()?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<i64>().ok();
        Some(Self {
            comm,
            ppid: u32::try_from(number(1)?).ok()?,
            // A process whose session leader lies outside this pid namespace has 0 here, a kernel thread -1 as tty group.
            pgid: u32::try_from(number(2)?).unwrap_or(0),
            sid: u32::try_from(number(3)?).unwrap_or(0),
            tty: kernel_device(number(4)? as u32),
            start_ticks: u64::try_from(number(19)?).ok()?,
        })
    }
}

/// User space's numbering of devices (`new_encode_dev`) as the kernel's own, which its events have.
const fn kernel_device(user: u32) -> u32 {
    let (major, minor) = (user >> 8 & 0xfff, user & 0xff | user >> 12 & 0xf_ff00);
    major << 20 | minor
}

fn row<'a>(status: &'a [u8], key: &[u8]) -> Option<std::str::SplitAsciiWhitespace<'a>> {
    let line = status.split(|b| *b == b'\n').find_map(|line| line.strip_prefix(key))?;
    Some(str::from_utf8(line).ok()?.split_ascii_whitespace())
}

fn first_of_row(status: &[u8], key: &[u8]) -> Option<u32> {
    row(status, key)?.next()?.parse().ok()
}

fn last_of_row(status: &[u8], key: &[u8]) -> Option<u32> {
    row(status, key)?.next_back()?.parse().ok()
}

/// NUL separated strings, bounded, without the last NUL.
fn strings(path: &Path) -> Bytes {
    let mut text = Vec::new();
    let Ok(file) = fs::File::open(path) else { return Bytes::new() };
    if file.take(MAX_TEXT as u64).read_to_end(&mut text).is_err() {
        return Bytes::new();
    }
    if text.last() == Some(&0) {
        text.pop();
    }
    text.into()
}

fn link(path: &Path) -> Bytes {
    let Ok(target) = fs::read_link(path) else { return Bytes::new() };
    let target = target.as_os_str().as_bytes();
    Bytes::copy_from_slice(target.strip_suffix(b" (deleted)").unwrap_or(target))
}

fn namespace(path: &Path) -> Option<u32> {
    // `mnt:[4026531841]`
    let target = fs::read_link(path).ok()?;
    target.to_str()?.split_once('[')?.1.strip_suffix(']')?.parse().ok()
}

/// What `stat` knows of the program of the process that `dir` describes. Through an overlay that is less than the kernel's
/// event says: no layer, no real inode.
fn identity(dir: &Path, path: &[u8]) -> rustix::io::Result<FileIdentity> {
    // O_PATH: no daemon of a FUSE file system is asked to open anything.
    let open = |name| rustix::fs::open(dir.join(name), OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let stat = |fd: &OwnedFd| {
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
        rustix::fs::statx(fd, c"", flags, StatxFlags::BASIC_STATS | StatxFlags::MNT_ID)
    };
    let exe = open("exe")?;
    let file = stat(&exe)?;
    #[allow(clippy::unnecessary_cast, reason = "the width of f_type differs between architectures")]
    let magic = rustix::fs::fstatfs(&exe)?.f_type as u64;
    let device = |stat: &Statx| (stat.stx_dev_major, stat.stx_dev_minor);
    // Files of an overlay's layers can have device numbers of their own, but not a mount of their own.
    let on_rootfs = open("root")
        .and_then(|root| stat(&root))
        .is_ok_and(|root| root.stx_mnt_id == file.stx_mnt_id || device(&root) == device(&file));
    let ns = |time: rustix::fs::StatxTimestamp| {
        time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec.into())
    };
    Ok(FileIdentity {
        dev: file.stx_dev_major << 20 | file.stx_dev_minor,
        ino: file.stx_ino,
        mode: file.stx_mode.into(),
        uid: file.stx_uid,
        gid: file.stx_gid,
        nlink: file.stx_nlink,
        size: file.stx_size,
        ctime_ns: ns(file.stx_ctime),
        mtime_ns: ns(file.stx_mtime),
        magic,
        on_rootfs,
        memfd: file.stx_nlink == 0 && path.starts_with(b"/memfd:") && MEMFD_MAGICS.contains(&magic),
        ..FileIdentity::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_process_is_read_whole() {
        let procfs = Procfs::new("/proc", None);
        let own = procfs.process(std::process::id()).expect("own process");
        assert_eq!(own.key.tgid, std::process::id());
        assert_eq!(own.program.path, std::env::current_exe().unwrap().as_os_str().as_bytes());
        assert!(own.program.envp.is_empty(), "nobody asked for it");
        let mut reading = Procfs::new("/proc", None);
        reading.read_environment(true);
        let with = reading.process(std::process::id()).expect("own process");
        let environ = fs::read("/proc/self/environ").unwrap();
        let kept = environ.len().min(MAX_TEXT);
        assert_eq!(with.program.envp, environ[..kept].strip_suffix(b"\0").unwrap_or(&environ[..kept]));
        let argv: Vec<Vec<u8>> = std::env::args_os().map(|a| a.as_bytes().to_vec()).collect();
        assert_eq!(own.program.argv, argv.join(&0));
        assert_eq!(own.parent.map(|p| p.tgid), Some(std::os::unix::process::parent_id()));
        assert!(own.start_boottime_ns > 0);
        assert!(procfs.processes().contains(&std::process::id()));
    }

    #[test]
    fn a_name_cannot_break_the_stat_line() {
        let stat = Stat::parse(b"7 (a) R 1 (x\n) S 3 4 5 6 7 0 0 0 0 0 0 0 0 0 20 0 1 0 99 0 0\n").unwrap();
        assert_eq!(&stat.comm[..8], b"a) R 1 (");
        assert_eq!((stat.ppid, stat.pgid, stat.sid, stat.tty, stat.start_ticks), (3, 4, 5, 6, 99));
        assert_eq!(kernel_device(0x8801), 136 << 20 | 1, "the second pseudo terminal");
        assert_eq!(kernel_device(0x1234_5678), 0x456 << 20 | 0x1_2378);
        for bad in [&b""[..], b"7 (a", b"7 (a)", b"7 (a) S x", b"7 )a( S 1", b"7 (a) S 1 2 3 4"] {
            assert!(Stat::parse(bad).is_none());
        }
    }
}
