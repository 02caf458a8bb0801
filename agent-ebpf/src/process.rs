//! Tasks that come and go, and their names: `sched_process_fork`, `sched_process_exit`, `task_rename`.

use agent_common::{EventType, FillLimit, Loss, PolicyFlags, fact};
use aya_ebpf::{
    helpers::generated::{bpf_get_current_pid_tgid, bpf_probe_read_kernel_str},
    programs::BtfTracePointContext,
};

use crate::{
    maps,
    object::{Object, Typed},
    output::{self, Urgency, lost},
    syscall, task,
};

/// `SIGNAL_GROUP_EXIT` (`include/linux/sched/signal.h`)
const GROUP_EXIT: u32 = 4;

/// `(parent, child)`
#[inline(always)]
pub unsafe fn on_fork(ctx: &BtfTracePointContext) {
    // SAFETY: the arguments are those of the tracepoint.
    unsafe {
        let parent = Typed::read_only::<{ fact::ID_TASK }>(ctx.arg(0));
        let child = Typed::read_only::<{ fact::ID_TASK }>(ctx.arg(1));
        if task::is_agent(parent) {
            return;
        }
        let event = syscall::current_call(EventType::Clone);
        let Some(policy) = output::wanted(event) else { return };
        let tid = child.u32::<{ fact::TASK_PID }>();
        let tgid = child.u32::<{ fact::TASK_TGID }>();
        if tid != tgid && policy.flags & PolicyFlags::THREADS == 0 {
            return;
        }
        let Some(scratch) = output::take(&maps::FORK, event.code(), FillLimit::PROCESSES) else { return };
        let record = &mut scratch.record;
        output::begin(&mut record.header, event, policy);
        task::fill(&mut record.task, parent);
        record.child_start_ns = child.object::<{ fact::TASK_GROUP_LEADER }>().u64::<{ fact::TASK_START_BOOTTIME }>();
        record.child_cgroup_id = task::cgroup_id(child);
        record.child_tid = tid;
        record.child_tgid = tgid;
        record.child_vtid = task::own_tid(child);
        record.reserved = 0;
        output::send::<_, _, 1>(scratch, Urgency::Soon);
    }
}

/// `(task, group_dead)`; the second argument exists since 6.16 only, the count of live threads always.
#[inline(always)]
pub unsafe fn on_exit(ctx: &BtfTracePointContext) {
    // SAFETY: the argument is that of the tracepoint.
    unsafe {
        let task = Typed::read_only::<{ fact::ID_TASK }>(ctx.arg(0));
        if task::is_agent(task) {
            return;
        }
        let Some(policy) = output::wanted(EventType::Procexit) else { return };
        let signal = task.object::<{ fact::TASK_SIGNAL }>();
        let group_dead = signal.u32::<{ fact::SIGNAL_LIVE }>() == 0;
        if !group_dead && policy.flags & PolicyFlags::THREADS == 0 {
            return;
        }
        let Some(scratch) = output::take(&maps::EXIT, EventType::Procexit.code(), FillLimit::PROCESSES) else { return };
        let record = &mut scratch.record;
        output::begin(&mut record.header, EventType::Procexit, policy);
        task::fill(&mut record.task, task);
        record.status = task.u32::<{ fact::TASK_EXIT_CODE }>();
        if signal.u32::<{ fact::SIGNAL_FLAGS }>() & GROUP_EXIT != 0 {
            record.status = signal.u32::<{ fact::SIGNAL_GROUP_EXIT_CODE }>();
        }
        record.group_dead = u32::from(group_dead);
        output::send::<_, _, 1>(scratch, Urgency::Soon);
    }
}

/// `(task, comm)`: a process that renames itself, by `prctl` or its `comm` in `/proc`. Nothing else may tell of it before
/// a child's ancestors are asked for: what it does besides can stay in the kernel. An exec tells of itself; threads have
/// names of their own.
#[inline(always)]
pub unsafe fn on_rename(ctx: &BtfTracePointContext) {
    // SAFETY: the arguments are those of the tracepoint.
    unsafe {
        let task = Typed::read_only::<{ fact::ID_TASK }>(ctx.arg(0));
        let tgid = task.u32::<{ fact::TASK_TGID }>();
        // A thread of the kernel is named by who asks for it.
        let own = (bpf_get_current_pid_tgid() >> 32) as u32;
        if tgid != own || tgid != task.u32::<{ fact::TASK_PID }>() || task::is_agent(task) || syscall::in_exec() {
            return;
        }
        let Some(policy) = output::wanted(EventType::TaskRename) else { return };
        // It can be done as often as any call.
        let code = EventType::TaskRename.code();
        let Some(scratch) = output::take(&maps::RENAME, code, FillLimit::CALLS) else { return };
        let record = &mut scratch.record;
        task::fill(&mut record.task, task);
        let mut name = [0u64; 2];
        let read = bpf_probe_read_kernel_str((&raw mut name).cast(), 16, ctx.arg::<*const u8>(1).cast());
        if read < 0 {
            lost(Loss::NameUnreadable);
        }
        let comm = (&raw mut record.task.comm).cast::<u64>();
        let same = comm.read_unaligned() == name[0] && comm.add(1).read_unaligned() == name[1];
        if same || read < 0 {
            scratch.busy = 0;
            return;
        }
        comm.write_unaligned(name[0]);
        comm.add(1).write_unaligned(name[1]);
        output::begin(&mut record.header, EventType::TaskRename, policy);
        output::send::<_, _, 1>(scratch, Urgency::Soon);
    }
}
