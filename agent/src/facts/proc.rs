//! `proc.*`, `thread.*`, `user.*` and `group.*`: who did it.

use std::borrow::Cow;

use purser_rules::{Arg, Fact, FieldId, FieldRef};

use super::{Lineage, NOT_APPLICABLE, NOT_COLLECTED, Sight, UNKNOWN, boolean, signed, unsigned};
use crate::event::{Body, FileIdentity};
use crate::process::{Process, User, trim_nul};

impl Sight<'_> {
    pub(super) fn proc_fact(&self, field: FieldRef<'_>) -> Option<Fact<'_>> {
        let process = self.process;
        let program = &*process.program;
        let task = &self.event.task;
        Some(match field.id {
            FieldId::PROC_NAME => Fact::text(process.comm()),
            FieldId::PROC_EXE => Fact::text(program.exe()),
            FieldId::PROC_EXEPATH => Fact::text(&program.path),
            FieldId::PROC_CMDLINE => self.command_line(process),
            FieldId::PROC_EXELINE => {
                let mut line = program.exe().to_vec();
                for arg in program.args() {
                    line.push(b' ');
                    line.extend_from_slice(arg);
                }
                self.keep_text(&line)
            }
            FieldId::PROC_ARGS => match field.arg {
                Arg::None => self.keep_text(&program.args_joined()),
                Arg::Index(index) => Fact::text(
                    usize::try_from(index).ok().and_then(|index| program.args().nth(index)).unwrap_or_default(),
                ),
                Arg::Key(_) => NOT_APPLICABLE,
            },
            FieldId::PROC_CMDNARGS => unsigned(program.args().count() as u64),
            FieldId::PROC_CMDLENARGS => unsigned(program.args().map(|arg| arg.len() as u64).sum()),
            FieldId::PROC_ENV => match field.arg {
                Arg::Key(name) => Fact::text(variable(&program.envp, name)),
                _ => self.environment(process),
            },
            FieldId::PROC_CWD => {
                // Falco's working directories end with a slash.
                let mut cwd = self.working_directory().to_vec();
                if !cwd.is_empty() && cwd.last() != Some(&b'/') {
                    cwd.push(b'/');
                }
                self.keep_text(&cwd)
            }
            FieldId::PROC_TTY => unsigned(super::fd::device(process.tty).into()),
            FieldId::PROC_PID => signed(process.key.tgid.into()),
            FieldId::PROC_VPID => signed(process.vtgid.into()),
            FieldId::PROC_SID => signed(process.sid.into()),
            FieldId::PROC_PGID => signed(process.pgid.into()),
            FieldId::PROC_VPGID => signed(process.vpgid.into()),
            FieldId::PROC_IS_SID_LEADER => boolean(process.sid == process.key.tgid),
            FieldId::PROC_IS_PGID_LEADER => boolean(process.pgid == process.key.tgid),
            FieldId::PROC_IS_VPGID_LEADER => boolean(process.vpgid == process.vtgid),
            FieldId::PROC_PPID => signed(task.parent_tgid.into()),
            FieldId::PROC_PVPID => self.of_parent(|parent| signed(parent.vtgid.into())),
            FieldId::PROC_PNAME => self.of_parent(|parent| Fact::text(parent.comm())),
            FieldId::PROC_PEXE => self.of_parent(|parent| Fact::text(parent.program.exe())),
            FieldId::PROC_PEXEPATH => self.of_parent(|parent| Fact::text(&parent.program.path)),
            FieldId::PROC_PCMDLINE => self.of_parent(|parent| self.command_line(parent)),
            FieldId::PROC_ANAME
            | FieldId::PROC_AEXE
            | FieldId::PROC_AEXEPATH
            | FieldId::PROC_ACMDLINE
            | FieldId::PROC_APID
            | FieldId::PROC_AENV => match field.arg {
                Arg::Key(name) => self.variable_of_ancestors(name),
                Arg::Index(0) => self.of_process(field.id, process),
                Arg::Index(index) => usize::try_from(index)
                    .ok()
                    .and_then(|index| self.ancestor(index - 1))
                    .map_or(UNKNOWN, |ancestor| self.of_process(field.id, ancestor)),
                Arg::None => Fact::Many(self.ancestor_count()),
            },
            FieldId::PROC_AARGS => match field.arg {
                Arg::Index(0) => self.keep_text(&program.args_joined()),
                Arg::Index(index) => usize::try_from(index)
                    .ok()
                    .and_then(|index| self.ancestor(index - 1))
                    .map_or(UNKNOWN, |ancestor| self.keep_text(&ancestor.program.args_joined())),
                _ => NOT_APPLICABLE,
            },
            FieldId::PROC_SNAME => self.leader(|p| p.sid, |leader| Fact::text(leader.comm())),
            FieldId::PROC_SID_EXE => self.leader(|p| p.sid, |leader| Fact::text(leader.program.exe())),
            FieldId::PROC_SID_EXEPATH => self.leader(|p| p.sid, |leader| Fact::text(&leader.program.path)),
            // The group leader is one process, whichever namespace numbers it.
            FieldId::PROC_PGID_NAME | FieldId::PROC_VPGID_NAME => {
                self.leader(|p| p.pgid, |leader| Fact::text(leader.comm()))
            }
            FieldId::PROC_PGID_EXE | FieldId::PROC_VPGID_EXE => {
                self.leader(|p| p.pgid, |leader| Fact::text(leader.program.exe()))
            }
            FieldId::PROC_PGID_EXEPATH | FieldId::PROC_VPGID_EXEPATH => {
                self.leader(|p| p.pgid, |leader| Fact::text(&leader.program.path))
            }
            FieldId::PROC_LOGINSHELLID => self.login_shell().map_or(UNKNOWN, |shell| signed(shell.key.tgid.into())),
            FieldId::PROC_DURATION => unsigned(self.age(process)),
            FieldId::PROC_PPID_DURATION => self.of_parent(|parent| unsigned(self.age(parent))),
            FieldId::PROC_PID_TS => unsigned(self.epoch_of(process.start_boottime_ns)),
            FieldId::PROC_PPID_TS => self.of_parent(|parent| unsigned(self.epoch_of(parent.start_boottime_ns))),
            FieldId::PROC_IS_EXE_WRITABLE => program.file.map_or(UNKNOWN, |file| boolean(self.may_write(&file))),
            FieldId::PROC_IS_EXE_UPPER_LAYER => self.exe_in_layer(|overlay| overlay.upper),
            FieldId::PROC_IS_EXE_LOWER_LAYER => self.exe_in_layer(|overlay| !overlay.upper),
            FieldId::PROC_IS_EXE_FROM_MEMFD => boolean(program.file.is_some_and(|file| file.memfd)),
            FieldId::PROC_EXE_INO => program.file.map_or(UNKNOWN, |file| signed(file.ino as i64)),
            FieldId::PROC_EXE_INO_CTIME => program.file.map_or(UNKNOWN, |file| unsigned(file.ctime_ns as u64)),
            FieldId::PROC_EXE_INO_MTIME => program.file.map_or(UNKNOWN, |file| unsigned(file.mtime_ns as u64)),
            FieldId::PROC_EXE_INO_CTIME_DURATION_PROC_START => program.file.map_or(UNKNOWN, |file| {
                unsigned(self.epoch_of(process.start_boottime_ns).saturating_sub(file.ctime_ns as u64))
            }),
            FieldId::THREAD_TID => signed(task.tid.into()),
            FieldId::THREAD_VTID => signed(task.vtid.into()),
            FieldId::THREAD_ISMAIN => boolean(task.tid == task.tgid),
            FieldId::THREAD_NAMETID => {
                let mut text = trim_nul(&task.comm).to_vec();
                text.extend_from_slice(format!(":{}", task.tid).as_bytes());
                self.keep_text(&text)
            }
            FieldId::THREAD_CAP_PERMITTED => self.keep_text(capability_names(task.capabilities.permitted).as_bytes()),
            FieldId::THREAD_CAP_EFFECTIVE => self.keep_text(capability_names(task.capabilities.effective).as_bytes()),
            FieldId::THREAD_CAP_INHERITABLE => {
                self.keep_text(capability_names(task.capabilities.inheritable).as_bytes())
            }
            // The effective ids, as upstream: what decides what the process may do.
            FieldId::USER_UID => unsigned(task.euid.into()),
            FieldId::USER_NAME => match (self.user(), task.euid) {
                (Some(user), _) => Fact::text(&user.name),
                (None, 0) => Fact::text(b"root"),
                _ => Fact::text(b"<NA>"),
            },
            FieldId::USER_HOMEDIR => match (self.user(), task.euid) {
                (Some(user), _) if !user.home.is_empty() => Fact::text(&user.home),
                (_, 0) => Fact::text(b"/root"),
                _ => Fact::text(b"<NA>"),
            },
            FieldId::USER_SHELL => match self.user() {
                Some(user) if !user.shell.is_empty() => Fact::text(&user.shell),
                _ => Fact::text(b"<NA>"),
            },
            FieldId::USER_LOGINUID => signed((task.loginuid as i32).into()),
            // The audit session is the host's, whatever container its processes are in.
            FieldId::USER_LOGINNAME if task.loginuid == u32::MAX => Fact::text(b"<NA>"),
            FieldId::USER_LOGINNAME => match (self.outside.user(None, task.loginuid), task.loginuid) {
                (Some(user), _) => self.keep_text(&user.name),
                (None, 0) => Fact::text(b"root"),
                _ => Fact::text(b"<NA>"),
            },
            FieldId::GROUP_NAME => match (self.outside.group_name(self.container, task.egid), task.egid) {
                (Some(name), _) => self.keep_text(&name),
                (None, 0) => Fact::text(b"root"),
                _ => Fact::text(b"<NA>"),
            },
            FieldId::GROUP_GID => unsigned(task.egid.into()),
            FieldId::PROC_PIDNS_INIT_START_TS | FieldId::THREAD_CGROUPS | FieldId::THREAD_CGROUP => NOT_COLLECTED,
            _ => return None,
        })
    }

    /// One element of an ancestor field without index; the nearest is 0.
    pub(super) fn ancestor_fact(&self, field: FieldId, index: usize) -> Fact<'_> {
        self.ancestor(index).map_or(UNKNOWN, |ancestor| self.of_process(field, ancestor))
    }

    fn ancestor(&self, index: usize) -> Option<&Process> {
        match self.lineage {
            Lineage::Table(table) => table.ancestors(self.process).nth(index).map(|p| &**p),
            Lineage::Kept(kept) => self.kept_chain(kept).nth(index),
        }
    }

    fn ancestor_count(&self) -> usize {
        match self.lineage {
            Lineage::Table(table) => table.ancestors(self.process).count(),
            Lineage::Kept(kept) => self.kept_chain(kept).count(),
        }
    }

    /// Follows the parent keys through the kept processes.
    fn kept_chain<'s>(&'s self, kept: &'s [std::sync::Arc<Process>]) -> impl Iterator<Item = &'s Process> + 's {
        let parent = move |process: &Process| kept.iter().find(|p| Some(p.key) == process.parent).map(|p| &**p);
        std::iter::successors(parent(self.process), move |p| parent(p)).take(kept.len())
    }

    fn of_parent<'s>(&'s self, value: impl FnOnce(&'s Process) -> Fact<'s>) -> Fact<'s> {
        self.ancestor(0).map_or(UNKNOWN, value)
    }

    /// The leader of the process's session or group, or, where it is gone and forgotten, the eldest ancestor in it.
    fn leader<'s>(&'s self, group: fn(&Process) -> u32, value: impl FnOnce(&'s Process) -> Fact<'s>) -> Fact<'s> {
        let id = group(self.process);
        if id == self.process.key.tgid {
            return value(self.process);
        }
        let leader = match self.lineage {
            Lineage::Table(table) => table.by_pid(id).map(|p| &**p),
            Lineage::Kept(kept) => kept.iter().find(|p| p.key.tgid == id).map(|p| &**p),
        };
        let eldest = || {
            let ancestors = (0..self.ancestor_count()).filter_map(|index| self.ancestor(index));
            ancestors.take_while(|ancestor| group(ancestor) == id).last().unwrap_or(self.process)
        };
        // 0: the leader is in another pid namespace than the agent's, or the process is a thread of the kernel.
        if id == 0 { UNKNOWN } else { value(leader.unwrap_or_else(eldest)) }
    }

    /// The oldest shell among the process and its ancestors.
    fn login_shell(&self) -> Option<&Process> {
        const SHELLS: [&[u8]; 8] = [b"ash", b"bash", b"csh", b"ksh", b"sh", b"tcsh", b"zsh", b"dash"];
        let mut found = None;
        let mut index = 0;
        let mut current = Some(self.process);
        while let Some(process) = current {
            if SHELLS.contains(&process.comm()) {
                found = Some(process);
            }
            current = self.ancestor(index);
            index += 1;
        }
        found
    }

    /// As Falco prints it: the command name, which a process can change, then the program's arguments.
    fn command_line<'s>(&'s self, process: &'s Process) -> Fact<'s> {
        match process.program.command_line(process.comm()) {
            Cow::Borrowed(line) => Fact::text(line),
            Cow::Owned(line) => self.keep_text(&line),
        }
    }

    fn of_process<'s>(&'s self, field: FieldId, process: &'s Process) -> Fact<'s> {
        match field {
            FieldId::PROC_ANAME => Fact::text(process.comm()),
            FieldId::PROC_AEXE => Fact::text(process.program.exe()),
            FieldId::PROC_AEXEPATH => Fact::text(&process.program.path),
            FieldId::PROC_ACMDLINE => self.command_line(process),
            FieldId::PROC_APID => signed(process.key.tgid.into()),
            FieldId::PROC_AENV => self.environment(process),
            _ => NOT_COLLECTED,
        }
    }

    /// Whether the process may write to `file`, by the file's mode alone.
    pub(super) fn may_write(&self, file: &FileIdentity) -> bool {
        let task = &self.event.task;
        let bit = if task.euid == file.uid {
            0o200
        } else if task.egid == file.gid {
            0o020
        } else {
            0o002
        };
        // No bit stops root (CAP_DAC_OVERRIDE).
        task.euid == 0 || file.mode & bit != 0
    }

    fn user(&self) -> Option<&User> {
        self.user.get_or_init(|| self.outside.user(self.container, self.event.task.euid)).as_ref()
    }

    /// All variables, with blanks between them.
    fn environment(&self, process: &Process) -> Fact<'_> {
        self.keep_text(&process.program.envp.split(|b| *b == 0).collect::<Vec<_>>().join(&b' '))
    }

    /// The variable as the nearest ancestor has it that has it at all; empty where none does, as for the process itself.
    fn variable_of_ancestors(&self, name: &[u8]) -> Fact<'_> {
        let found = (0..self.ancestor_count())
            .filter_map(|index| self.ancestor(index))
            .map(|ancestor| variable(&ancestor.program.envp, name))
            .find(|value| !value.is_empty());
        Fact::text(found.unwrap_or_default())
    }

    /// Where the process is now, if the event says so: an open of a name relative to it. Else where it was when its program started.
    fn working_directory(&self) -> &[u8] {
        match &self.event.body {
            Body::Open(open) if open.dirfd == libc::AT_FDCWD && !open.dir.is_empty() => &open.dir,
            _ => &self.process.program.cwd,
        }
    }

    fn age(&self, process: &Process) -> u64 {
        // From the clone on, whatever the process has executed since, as upstream (`m_clone_ts`).
        self.event.header.boot_ns.saturating_sub(process.start_boottime_ns)
    }

    fn epoch_of(&self, boot_ns: u64) -> u64 {
        boot_ns.saturating_add_signed(self.epoch_offset_ns)
    }
}

fn variable<'a>(envp: &'a [u8], name: &[u8]) -> &'a [u8] {
    envp.split(|b| *b == 0).find_map(|entry| entry.strip_prefix(name)?.strip_prefix(b"=")).unwrap_or_default()
}

/// Names of the set bits, blank separated, as upstream prints them.
fn capability_names(set: u64) -> String {
    let names: Vec<&str> =
        CAPABILITIES.iter().enumerate().filter(|(bit, _)| set >> bit & 1 == 1).map(|(_, name)| *name).collect();
    names.join(" ")
}

/// `include/uapi/linux/capability.h`, by bit.
const CAPABILITIES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];
