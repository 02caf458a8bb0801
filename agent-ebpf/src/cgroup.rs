//! Directories of the cgroup v2 hierarchy: a container is known before its first program starts.

use agent_common::{EventType, FillLimit, Loss, fact, limits};
use aya_ebpf::{helpers::generated::bpf_probe_read_kernel_str, programs::BtfTracePointContext};

use crate::{
    maps::{self, CGROUP_ROOM},
    object::{Object, Typed},
    output::{self, Sections, Urgency, lost},
    task,
};

#[inline(always)]
pub unsafe fn on_mkdir(ctx: &BtfTracePointContext) {
    // SAFETY: `(cgroup, path)`
    unsafe { report(ctx, EventType::CgroupMkdir) };
}

#[inline(always)]
pub unsafe fn on_rmdir(ctx: &BtfTracePointContext) {
    // SAFETY: `(cgroup, path)`
    unsafe { report(ctx, EventType::CgroupRmdir) };
}

#[inline(always)]
unsafe fn report(ctx: &BtfTracePointContext, event: EventType) {
    let cgroup = Typed::argument(ctx.arg(0));
    let path: *const u8 = ctx.arg(1);
    // SAFETY: the arguments are those of the tracepoint.
    unsafe {
        // Only the v2 hierarchy, which is the first to be numbered (kernel/cgroup/cgroup.c, cgroup_init).
        if cgroup.object::<{ fact::CGROUP_ROOT }>().u32::<{ fact::CGROUP_ROOT_HIERARCHY_ID }>() != 0 {
            return;
        }
        let Some(policy) = output::wanted(event) else { return };
        let Some(scratch) = output::take(&maps::CGROUP, event.code(), FillLimit::PROCESSES) else { return };
        let sections = Sections::new(scratch);
        let record = &mut scratch.record;
        output::begin(&mut record.header, event, policy);
        task::fill(&mut record.task, Typed::current());
        record.id = cgroup.object::<{ fact::CGROUP_KN }>().u64::<{ fact::KERNFS_NODE_ID }>();
        record.reserved = 0;
        let written =
            bpf_probe_read_kernel_str(sections.end::<CGROUP_ROOM>().cast(), limits::PATH_MAX as u32, path.cast());
        if written <= 0 {
            lost(Loss::NameUnreadable);
        }
        let length = if written > 1 { (written as usize - 1) & (limits::PATH_MAX - 1) } else { 0 };
        record.path_length = length as u32;
        sections.add(length);
        output::send::<_, _, CGROUP_ROOM>(scratch, Urgency::Now);
    }
}
