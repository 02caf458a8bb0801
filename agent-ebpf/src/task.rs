//! Facts of the current task, and which task is the agent's own. Everything that reads a task does so by typed loads
//! where the current task has a type, else by helper.

use agent_common::{TaskRecord, fact};
use aya_ebpf::helpers::generated::bpf_get_current_cgroup_id;

use crate::{
    maps::{self, Process},
    object::{Object, Raw, Typed, typed_tasks, value},
};

/// `enum pid_type` (`include/linux/pid_types.h`) times the size of a pointer.
const PIDTYPE_TGID: i32 = 8;
const PIDTYPE_PGID: i32 = 16;
const PIDTYPE_SID: i32 = 24;

/// Stores the calling process as the agent.
#[inline(always)]
pub unsafe fn identify_agent() {
    // SAFETY: reads the current task.
    let process = unsafe {
        let task = Typed::current();
        if typed_tasks() { process_of(task) } else { process_of(task.raw()) }
    };
    if let Some(agent) = maps::AGENT.get_ptr_mut(0) {
        // SAFETY: the only element; nothing else runs yet.
        unsafe { *agent = process };
    }
}

#[inline(always)]
unsafe fn process_of<T: Object>(task: T) -> Process {
    // SAFETY: reads a task.
    unsafe {
        Process {
            tgid: u64::from(task.u32::<{ fact::TASK_TGID }>()),
            start_ns: task.object::<{ fact::TASK_GROUP_LEADER }>().u64::<{ fact::TASK_START_BOOTTIME }>(),
        }
    }
}

/// Whether a task belongs to the agent's own process.
#[inline(always)]
pub unsafe fn is_agent(task: Typed) -> bool {
    let Some(agent) = maps::AGENT.get(0) else { return false };
    // SAFETY: reads a task.
    unsafe { if typed_tasks() { is_process(task, agent) } else { is_process(task.raw(), agent) } }
}

#[inline(always)]
unsafe fn is_process<T: Object>(task: T, process: &Process) -> bool {
    // SAFETY: reads a task.
    let tgid = unsafe { task.u32::<{ fact::TASK_TGID }>() };
    // SAFETY: as above; the start is read only where the id matches.
    u64::from(tgid) == process.tgid && unsafe { process_of(task) }.start_ns == process.start_ns
}

/// Fills in the facts of the current task.
#[inline(always)]
pub unsafe fn fill(record: &mut TaskRecord, task: Typed) {
    // SAFETY: reads a task.
    unsafe { if typed_tasks() { fill_from(record, task) } else { fill_from(record, task.raw()) } }
}

#[inline(always)]
unsafe fn fill_from<T: Object>(record: &mut TaskRecord, task: T) {
    // SAFETY: typed loads from a task and what it points to.
    unsafe {
        let leader = task.object::<{ fact::TASK_GROUP_LEADER }>();
        record.start_ns = leader.u64::<{ fact::TASK_START_BOOTTIME }>();
        record.tgid = task.u32::<{ fact::TASK_TGID }>();
        record.tid = task.u32::<{ fact::TASK_PID }>();
        let parent = task.object::<{ fact::TASK_REAL_PARENT }>();
        record.parent_tgid = parent.u32::<{ fact::TASK_TGID }>();
        record.parent_start_ns = parent.object::<{ fact::TASK_GROUP_LEADER }>().u64::<{ fact::TASK_START_BOOTTIME }>();

        let signal = task.object::<{ fact::TASK_SIGNAL }>();
        let session = signal.object_past::<{ fact::SIGNAL_PIDS }, PIDTYPE_SID>();
        let group = signal.object_past::<{ fact::SIGNAL_PIDS }, PIDTYPE_PGID>();
        record.sid = session.u32::<{ fact::PID_NUMBERS }>();
        record.pgid = group.u32::<{ fact::PID_NUMBERS }>();
        own_namespace(record, task, signal, group);

        let tty = signal.object::<{ fact::SIGNAL_TTY }>();
        record.tty = 0;
        if !tty.is_null() {
            let driver = tty.object::<{ fact::TTY_DRIVER }>();
            record.tty = driver.u32::<{ fact::TTY_DRIVER_MAJOR }>() << 20
                | (driver.u32::<{ fact::TTY_DRIVER_MINOR_START }>().wrapping_add(tty.u32::<{ fact::TTY_INDEX }>()));
        }
        record.loginuid = u32::MAX;
        if crate::object::have::<{ fact::TASK_LOGINUID }>() {
            record.loginuid = task.u32::<{ fact::TASK_LOGINUID }>();
        }

        let cred = task.object::<{ fact::TASK_CRED }>();
        record.uid = cred.u32::<{ fact::CRED_UID }>();
        record.euid = cred.u32::<{ fact::CRED_EUID }>();
        record.gid = cred.u32::<{ fact::CRED_GID }>();
        record.egid = cred.u32::<{ fact::CRED_EGID }>();
        record.cap_inheritable = cred.u64::<{ fact::CRED_CAP_INHERITABLE }>();
        record.cap_permitted = cred.u64::<{ fact::CRED_CAP_PERMITTED }>();
        record.cap_effective = cred.u64::<{ fact::CRED_CAP_EFFECTIVE }>();

        record.cgroup_id = bpf_get_current_cgroup_id();
        record.mnt_ns = task
            .object::<{ fact::TASK_NSPROXY }>()
            .object::<{ fact::NSPROXY_MNT_NS }>()
            .u32::<{ fact::MNT_NAMESPACE_INUM }>();
        let comm = (&raw mut record.comm).cast::<u64>();
        comm.write_unaligned(task.u64::<{ fact::TASK_COMM }>());
        comm.add(1).write_unaligned(task.u64_past::<{ fact::TASK_COMM }, 8>());
    }
}

/// Whether the current task is in a cgroup that the agent knows to be the host's.
#[inline(always)]
pub unsafe fn is_hosts() -> bool {
    // SAFETY: no arguments; the value is not looked at.
    unsafe { maps::HOST_CGROUPS.get(&bpf_get_current_cgroup_id()).is_some() }
}

/// Id of a task's cgroup v2 directory.
#[inline(always)]
pub unsafe fn cgroup_id(task: Typed) -> u64 {
    // SAFETY: reads a task.
    unsafe { if typed_tasks() { cgroup_id_of(task) } else { cgroup_id_of(task.raw()) } }
}

#[inline(always)]
unsafe fn cgroup_id_of<T: Object>(task: T) -> u64 {
    // SAFETY: reads a task.
    unsafe {
        task.object::<{ fact::TASK_CGROUPS }>()
            .object::<{ fact::CSS_SET_DFL_CGRP }>()
            .object::<{ fact::CGROUP_KN }>()
            .u64::<{ fact::KERNFS_NODE_ID }>()
    }
}

/// Ids in the task's own pid namespace.
#[inline(always)]
unsafe fn own_namespace<T: Object>(record: &mut TaskRecord, task: T, signal: T, group: T) {
    // SAFETY: typed loads, and reads by helper where the level is not a constant.
    unsafe {
        let pid = task.object::<{ fact::TASK_THREAD_PID }>();
        let level = pid.u32::<{ fact::PID_LEVEL }>();
        if level == 0 {
            record.vtid = record.tid;
            record.vtgid = record.tgid;
            record.vpgid = record.pgid;
            record.pid_ns = pid
                .embedded::<{ fact::PID_NUMBERS }>()
                .object::<{ fact::UPID_NS }>()
                .u32::<{ fact::PID_NAMESPACE_INUM }>();
            return;
        }
        if level == 1 {
            // A container: the second number of each.
            let upid = second(pid);
            record.vtid = upid.u32::<{ fact::UPID_NR }>();
            record.pid_ns = upid.object::<{ fact::UPID_NS }>().u32::<{ fact::PID_NAMESPACE_INUM }>();
            let leader = signal.object_past::<{ fact::SIGNAL_PIDS }, PIDTYPE_TGID>();
            record.vtgid = second(leader).u32::<{ fact::UPID_NR }>();
            record.vpgid = 0;
            if group.u32::<{ fact::PID_LEVEL }>() >= 1 {
                record.vpgid = second(group).u32::<{ fact::UPID_NR }>();
            }
            return;
        }
        // VERIFIER: a variable offset is not allowed on a typed pointer.
        let bytes = u64::from(level) * value::<{ fact::UPID_SIZE }>();
        let upid =
            Raw::from_member::<{ fact::TASK_THREAD_PID }, _>(task).embedded::<{ fact::PID_NUMBERS }>().past(bytes);
        record.vtid = Raw::read(upid.address());
        record.pid_ns = upid.object::<{ fact::UPID_NS }>().u32::<{ fact::PID_NAMESPACE_INUM }>();
        let leader =
            Raw::read::<u64>(signal.embedded::<{ fact::SIGNAL_PIDS }>().address().wrapping_add(PIDTYPE_TGID as usize));
        record.vtgid = Raw::read(Raw::from(leader).embedded::<{ fact::PID_NUMBERS }>().past(bytes).address());
        record.vpgid = 0;
        // The group of a process that entered the namespace may lie outside of it, with fewer levels.
        if group.u32::<{ fact::PID_LEVEL }>() >= level {
            let group = Raw::read::<u64>(
                signal.embedded::<{ fact::SIGNAL_PIDS }>().address().wrapping_add(PIDTYPE_PGID as usize),
            );
            record.vpgid = Raw::read(Raw::from(group).embedded::<{ fact::PID_NUMBERS }>().past(bytes).address());
        }
    }
}

/// The number of a pid in the namespace below the initial one.
#[inline(always)]
unsafe fn second<T: Object>(pid: T) -> T {
    // SAFETY: adds constants; the pid has that many levels.
    unsafe { pid.embedded::<{ fact::PID_NUMBERS }>().embedded::<{ fact::UPID_SIZE }>() }
}

/// Thread id of another task in its own pid namespace.
#[inline(always)]
pub unsafe fn own_tid(task: Typed) -> u32 {
    // SAFETY: reads a task.
    unsafe { if typed_tasks() { own_tid_of(task) } else { own_tid_of(task.raw()) } }
}

#[inline(always)]
unsafe fn own_tid_of<T: Object>(task: T) -> u32 {
    // SAFETY: as above.
    unsafe {
        let pid = task.object::<{ fact::TASK_THREAD_PID }>();
        let level = pid.u32::<{ fact::PID_LEVEL }>();
        if level == 0 {
            return task.u32::<{ fact::TASK_PID }>();
        }
        let bytes = u64::from(level) * value::<{ fact::UPID_SIZE }>();
        let pid = Raw::from_member::<{ fact::TASK_THREAD_PID }, _>(task);
        Raw::read(pid.embedded::<{ fact::PID_NUMBERS }>().past(bytes).address())
    }
}
