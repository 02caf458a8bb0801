//! Tasks that come and go: `sched_process_fork`, `sched_process_exit`.

use agent_common::{EventType, FillLimit, PolicyFlags, fact};
use aya_ebpf::programs::BtfTracePointContext;

use crate::{
    maps,
    object::{Object, Typed},
    output::{self, Urgency},
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
