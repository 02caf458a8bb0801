//! Who a task is: its process, the program it runs, its ancestors. Built from events alone, seeded and
//! repaired from `/proc` through [`crate::outside::Outside`]. It knows nothing of rules.

mod procfs;
mod table;
mod users;

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use procfs::Procfs;
pub use table::{ProcessCounters, ProcessTable};
pub use users::{User, Users};

use crate::event::{Exec, FileIdentity, Task};
use crate::manifest::Judgement;

/// Names a process for ever: a pid alone is reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProcessKey {
    /// Thread group id in the initial pid namespace.
    pub tgid: u32,
    /// Start of the group's leader in clock ticks (1/100 s) since boot: the finest unit that both
    /// `task_struct.start_boottime` and `/proc/PID/stat` can be brought to.
    pub start_ticks: u64,
}

/// `USER_HZ` ticks are 10 ms on every architecture Linux supports eBPF trampolines on.
const NS_PER_TICK: u64 = 10_000_000;

impl ProcessKey {
    /// From the kernel's values.
    pub fn new(tgid: u32, start_boottime_ns: u64) -> Self {
        Self { tgid, start_ticks: start_boottime_ns / NS_PER_TICK }
    }

    /// The process that `task` belongs to.
    pub fn of(task: &Task) -> Self {
        Self::new(task.tgid, task.start_boottime_ns)
    }

    /// Its parent; `None` for pid 1 and kernel threads' root.
    pub fn parent_of(task: &Task) -> Option<Self> {
        (task.parent_tgid != 0).then(|| Self::new(task.parent_tgid, task.parent_start_boottime_ns))
    }
}

/// One process. Replaced, never changed, so that a parked event keeps what it saw.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Process {
    /// Its name for ever.
    pub key: ProcessKey,
    /// Its parent's.
    pub parent: Option<ProcessKey>,
    /// Start, ns since boot (of tick precision where read from `/proc`).
    pub start_boottime_ns: u64,
    /// Id in its own pid namespace.
    pub vtgid: u32,
    /// Session id.
    pub sid: u32,
    /// Process group id.
    pub pgid: u32,
    /// Process group id in its own pid namespace.
    pub vpgid: u32,
    /// Controlling terminal, 0 = none.
    pub tty: u32,
    /// Real uid.
    pub uid: u32,
    /// Audit login uid.
    pub loginuid: u32,
    /// cgroup v2 id.
    pub cgroup_id: u64,
    /// Inode number of its mount namespace.
    pub mnt_ns: u32,
    /// Command name of the leader, NUL padded.
    pub comm: [u8; 16],
    /// What it runs; shared with the processes that forked from it since.
    #[serde(with = "crate::recording::serial::shared")]
    pub program: Arc<Program>,
}

impl Process {
    /// Command name without padding.
    pub fn comm(&self) -> &[u8] {
        trim_nul(&self.comm)
    }
}

/// What one successful exec started.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Program {
    /// Resolved path of the executable; empty where unknown (kernel threads).
    #[serde(with = "crate::recording::serial::bytes")]
    pub path: Bytes,
    /// Path from its own file system's root where different.
    #[serde(with = "crate::recording::serial::bytes")]
    pub fs_path: Bytes,
    /// Name as asked for; empty where unknown.
    #[serde(with = "crate::recording::serial::bytes")]
    pub filename: Bytes,
    /// argv, NUL separated.
    #[serde(with = "crate::recording::serial::bytes")]
    pub argv: Bytes,
    /// Environment, NUL separated; empty unless a rule reads it.
    #[serde(with = "crate::recording::serial::bytes")]
    pub envp: Bytes,
    /// Working directory at exec.
    #[serde(with = "crate::recording::serial::bytes")]
    pub cwd: Bytes,
    /// The executable file; `None` for kernel threads and unreadable processes.
    pub file: Option<FileIdentity>,
    /// Time of the exec, ns since boot.
    pub exec_boot_ns: u64,
    /// The manifest verdict, once known.
    #[serde(skip)]
    pub judgement: OnceLock<Judgement>,
    /// The number under which the verdict was asked for.
    #[serde(skip)]
    pub ticket: OnceLock<u64>,
    /// The command line as Falco prints it, made at first use, and how much of it is the command name.
    #[serde(skip)]
    command_line: OnceLock<(usize, Vec<u8>)>,
}

impl Program {
    /// From an exec event.
    pub fn from_exec(exec: &Exec, boot_ns: u64) -> Self {
        Self {
            path: exec.path.clone(),
            fs_path: exec.fs_path.clone(),
            filename: exec.filename.clone(),
            argv: exec.argv.clone(),
            envp: exec.envp.clone(),
            cwd: exec.cwd.clone(),
            file: Some(exec.file),
            exec_boot_ns: boot_ns,
            ..Self::default()
        }
    }

    /// `argv[0]`.
    pub fn exe(&self) -> &[u8] {
        self.argv.split(|b| *b == 0).next().unwrap_or_default()
    }

    /// The arguments after `argv[0]`.
    pub fn args(&self) -> impl Iterator<Item = &[u8]> {
        let mut all = self.argv.split(|b| *b == 0);
        let _argv0 = all.next();
        all
    }

    /// `args` joined by blanks.
    pub fn args_joined(&self) -> Vec<u8> {
        self.args().collect::<Vec<_>>().join(&b' ')
    }

    /// Falco's `proc.cmdline`: the command name, then the arguments. Made anew only for a process that has
    /// another name than the first one asked for: the program is shared, the name is not.
    pub fn command_line(&self, comm: &[u8]) -> Cow<'_, [u8]> {
        let compose = || {
            let mut line = comm.to_vec();
            for arg in self.args() {
                line.push(b' ');
                line.extend_from_slice(arg);
            }
            line
        };
        let (named, line) = self.command_line.get_or_init(|| (comm.len(), compose()));
        if line.get(..*named) == Some(comm) { Cow::Borrowed(line) } else { Cow::Owned(compose()) }
    }
}

/// Text up to the first NUL.
pub(crate) fn trim_nul(text: &[u8]) -> &[u8] {
    text.iter().position(|b| *b == 0).map_or(text, |end| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_has_the_name_of_the_process_that_is_asked_about() {
        let program = Program { argv: Bytes::from_static(b"/bin/x\0b c\0d"), ..Program::default() };
        assert_eq!(&*program.command_line(b"a b"), b"a b b c d");
        assert!(matches!(program.command_line(b"a b"), Cow::Borrowed(_)), "made once");
        assert_eq!(&*program.command_line(b"a"), b"a b c d");
        assert_eq!(&*program.command_line(b"another"), b"another b c d");
    }
}
