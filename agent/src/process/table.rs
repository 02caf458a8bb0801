//! The process table: every live process, and for a while those that ended, by [`ProcessKey`].

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::{Process, ProcessKey, Program};
use crate::event::{Body, Event, Task};
use crate::outside::Outside;

/// Processes kept at most, ended ones included: about 40 MB when full.
const CAPACITY: usize = 65_536;
/// How long a process that ended can still be asked for (late events, children that name it as parent), in ns.
const LINGER_NS: u64 = 30_000_000_000;
/// Ancestors looked at; a longer chain is cut.
pub(crate) const MAX_ANCESTORS: usize = 64;

/// What the table had to do that a user may want to know of.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct ProcessCounters {
    /// Processes first seen by an event and completed from `/proc`.
    pub from_procfs: u64,
    /// Processes first seen by an event that were gone from `/proc`: only the event's own facts are known.
    pub incomplete: u64,
    /// Live processes dropped because the table was full.
    pub evicted: u64,
}

/// All known processes.
#[derive(Debug, Default)]
pub struct ProcessTable {
    processes: HashMap<ProcessKey, Arc<Process>>,
    /// The newest process of each pid.
    by_pid: HashMap<u32, ProcessKey>,
    ended: VecDeque<(u64, ProcessKey)>,
    counters: ProcessCounters,
}

impl ProcessTable {
    /// Takes in what runs already. Call it after the sensor is attached: an event that came in between
    /// is applied afterwards and wins.
    pub fn scan(&mut self, outside: &dyn Outside) {
        for tgid in outside.processes() {
            if let Some(process) = outside.process(tgid) {
                self.insert(Arc::new(process));
            }
        }
    }

    /// Applies `event` and gives the process it belongs to (the new program's for an exec, the parent's for a fork).
    pub fn apply(&mut self, event: &Event, outside: &dyn Outside) -> Arc<Process> {
        self.expire(event.header.boot_ns);
        let before = self.of_task(&event.task, outside);
        match &event.body {
            Body::Exec(exec) => {
                let mut process = (*before).clone();
                process.comm = event.task.comm;
                process.program = Arc::new(Program::from_exec(exec, event.header.boot_ns));
                self.insert(Arc::new(process))
            }
            Body::Fork(fork) => {
                if fork.child_tid == fork.child_tgid {
                    let key = ProcessKey::new(fork.child_tgid, fork.child_start_boottime_ns);
                    self.insert(Arc::new(Process {
                        key,
                        parent: Some(before.key),
                        start_boottime_ns: fork.child_start_boottime_ns,
                        vtgid: fork.child_vtid,
                        cgroup_id: fork.child_cgroup_id,
                        comm: event.task.comm,
                        ..(*before).clone()
                    }));
                }
                before
            }
            Body::Exit(exit) => {
                if exit.group_dead {
                    self.ended.push_back((event.header.boot_ns.saturating_add(LINGER_NS), before.key));
                }
                before
            }
            Body::Open(_) | Body::Connect(_) | Body::Cgroup(_) | Body::Rename | Body::Call(_) => before,
        }
    }

    /// The parent of `process`, as far as known.
    pub fn parent(&self, process: &Process) -> Option<&Arc<Process>> {
        self.processes.get(&process.parent?)
    }

    /// The parent, its parent, and so on up to init or the first unknown one; bounded.
    pub fn ancestors<'a>(&'a self, process: &'a Process) -> impl Iterator<Item = &'a Arc<Process>> + Clone + 'a {
        std::iter::successors(self.parent(process), |p| self.parent(p)).take(MAX_ANCESTORS)
    }

    /// The newest process that has or had this pid: a session or group leader.
    pub fn by_pid(&self, tgid: u32) -> Option<&Arc<Process>> {
        self.processes.get(self.by_pid.get(&tgid)?)
    }

    /// Processes in the table.
    pub fn len(&self) -> usize {
        self.processes.len()
    }

    /// No process is known.
    pub fn is_empty(&self) -> bool {
        self.processes.is_empty()
    }

    /// See [`ProcessCounters`].
    pub fn counters(&self) -> ProcessCounters {
        self.counters
    }

    /// The entry of `task`'s process, made or brought up to date: the event's own facts are newer than the table's.
    fn of_task(&mut self, task: &Task, outside: &dyn Outside) -> Arc<Process> {
        let key = ProcessKey::of(task);
        let Some(known) = self.processes.get(&key) else {
            let process = if let Some(found) = outside.process(task.tgid).filter(|p| p.key == key) {
                self.counters.from_procfs += 1;
                refreshed(&found, task)
            } else {
                self.counters.incomplete += 1;
                from_task(task)
            };
            return self.insert(Arc::new(process));
        };
        if is_current(known, task) {
            return Arc::clone(known);
        }
        let process = Arc::new(refreshed(known, task));
        self.insert(process)
    }

    fn insert(&mut self, process: Arc<Process>) -> Arc<Process> {
        if self.processes.len() >= CAPACITY && !self.processes.contains_key(&process.key) {
            self.make_room();
        }
        self.by_pid.insert(process.key.tgid, process.key);
        self.processes.insert(process.key, Arc::clone(&process));
        process
    }

    fn remove(&mut self, key: &ProcessKey) -> bool {
        if self.by_pid.get(&key.tgid) == Some(key) {
            self.by_pid.remove(&key.tgid);
        }
        self.processes.remove(key).is_some()
    }

    fn make_room(&mut self) {
        while let Some((_, key)) = self.ended.pop_front() {
            if self.remove(&key) {
                return;
            }
        }
        // Nothing has ended: the oldest process is the one whose events are rarest.
        if let Some(oldest) = self.processes.keys().min_by_key(|k| (k.start_ticks, k.tgid)).copied() {
            self.remove(&oldest);
            self.counters.evicted += 1;
        }
    }

    fn expire(&mut self, now_ns: u64) {
        while let Some((_, key)) = self.ended.pop_front_if(|(at, _)| *at <= now_ns) {
            self.remove(&key);
        }
    }
}

fn is_current(known: &Process, task: &Task) -> bool {
    known.parent == ProcessKey::parent_of(task)
        && known.cgroup_id == task.cgroup_id
        && known.mnt_ns == task.mnt_ns
        && known.sid == task.sid
        && known.pgid == task.pgid
        && known.tty == task.tty
        && known.uid == task.uid
        && known.vtgid == task.vtgid
        && known.vpgid == task.vpgid
        && known.loginuid == task.loginuid
        && known.start_boottime_ns == task.start_boottime_ns
        // Threads have names of their own; the leader's is the process's.
        && (task.tid != task.tgid || known.comm == task.comm)
}

fn refreshed(known: &Process, task: &Task) -> Process {
    let comm = if task.tid == task.tgid { task.comm } else { known.comm };
    Process { comm, program: Arc::clone(&known.program), ..from_task(task) }
}

fn from_task(task: &Task) -> Process {
    Process {
        key: ProcessKey::of(task),
        parent: ProcessKey::parent_of(task),
        start_boottime_ns: task.start_boottime_ns,
        vtgid: task.vtgid,
        sid: task.sid,
        pgid: task.pgid,
        vpgid: task.vpgid,
        tty: task.tty,
        uid: task.uid,
        loginuid: task.loginuid,
        cgroup_id: task.cgroup_id,
        mnt_ns: task.mnt_ns,
        comm: task.comm,
        program: Arc::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Exit;
    use crate::sample::{Fake, event, exec, fork, task};

    #[test]
    fn a_child_runs_its_parents_program_until_it_execs() {
        let (mut table, outside) = (ProcessTable::default(), Fake::default());
        table.apply(&event(1, task(10, 1, (1, 0), "sh"), exec("/bin/sh")), &outside);
        table.apply(&event(2, task(10, 1, (1, 0), "sh"), fork(11, 2)), &outside);
        let child = Arc::clone(table.by_pid(11).unwrap());
        assert_eq!(child.program.path, "/bin/sh");
        assert_eq!(table.parent(&child).unwrap().key.tgid, 10);
        let after = table.apply(&event(3, task(11, 2, (10, 1), "cat"), exec("/bin/cat")), &outside);
        assert_eq!((after.comm(), &after.program.path[..]), (&b"cat"[..], &b"/bin/cat"[..]));
        assert_eq!(table.by_pid(10).unwrap().program.path, "/bin/sh");
        assert_eq!(child.program.path, "/bin/sh", "what was seen before stays");
    }

    #[test]
    fn a_reused_pid_is_another_process() {
        let (mut table, outside) = (ProcessTable::default(), Fake::default());
        table.apply(&event(1, task(10, 1, (1, 0), "old"), exec("/bin/old")), &outside);
        let exit = Body::Exit(Exit { status: 0, group_dead: true });
        table.apply(&event(2, task(10, 1, (1, 0), "old"), exit), &outside);
        let new = table.apply(&event(3, task(10, 50, (1, 0), "new"), exec("/bin/new")), &outside);
        assert_eq!(new.program.path, "/bin/new");
        assert_eq!(table.len(), 2);
        table.apply(&event(3 + LINGER_NS, task(10, 50, (1, 0), "new"), exec("/bin/new")), &outside);
        assert_eq!(table.len(), 1, "what ended is forgotten");
        assert_eq!(table.by_pid(10).unwrap().key, new.key);
    }

    #[test]
    fn a_new_parent_counts_and_a_loop_ends() {
        let (mut table, outside) = (ProcessTable::default(), Fake::default());
        table.apply(&event(1, task(10, 1, (11, 1), "a"), exec("/a")), &outside);
        table.apply(&event(1, task(11, 1, (10, 1), "b"), exec("/b")), &outside);
        let a = Arc::clone(table.by_pid(10).unwrap());
        assert_eq!(table.ancestors(&a).count(), MAX_ANCESTORS);
        let moved = table.apply(&event(2, task(10, 1, (1, 0), "a"), exec("/a")), &outside);
        assert_eq!(table.ancestors(&moved).count(), 0);
    }

    #[test]
    fn a_child_sees_the_name_that_its_parent_took() {
        let (mut table, outside) = (ProcessTable::default(), Fake::default());
        table.apply(&event(1, task(10, 1, (1, 0), "sh"), exec("/bin/sh")), &outside);
        table.apply(&event(2, task(10, 1, (1, 0), "sh"), fork(11, 2)), &outside);
        table.apply(&event(3, task(10, 1, (1, 0), "innocent"), Body::Rename), &outside);
        let child = table.by_pid(11).unwrap();
        let parent = table.parent(child).unwrap();
        assert_eq!((child.comm(), parent.comm()), (&b"sh"[..], &b"innocent"[..]));
        assert_eq!(parent.program.path, "/bin/sh");
    }

    #[test]
    fn a_full_table_forgets_the_oldest_and_says_so() {
        let (mut table, outside) = (ProcessTable::default(), Fake::default());
        for tgid in 1..=CAPACITY as u32 + 1 {
            table.apply(&event(1, task(tgid, u64::from(tgid), (0, 0), "x"), exec("/x")), &outside);
        }
        assert_eq!(table.len(), CAPACITY);
        assert_eq!(table.counters().evicted, 1);
        assert!(table.by_pid(1).is_none());
    }
}
