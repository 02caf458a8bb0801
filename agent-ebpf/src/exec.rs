//! A new program, after the point of no return: `sched_process_exec`.

use agent_common::{EventType, ExecFlags, FillLimit, Loss, PolicyFlags, fact, limits};
use aya_ebpf::{
    helpers::generated::{bpf_probe_read_kernel_str, bpf_probe_read_user},
    programs::BtfTracePointContext,
};

use crate::{
    file,
    maps::{self, EXEC_ROOM},
    object::{Object, Raw, Typed, have, typed_loads},
    output::{self, Sections, Urgency, lost},
    path::{self, Place},
    task,
};

/// `(task, old_pid, bprm)`
#[inline(always)]
pub unsafe fn on_exec(ctx: &BtfTracePointContext) {
    // SAFETY: the arguments are those of the tracepoint.
    unsafe {
        let task = Typed::read_only::<{ fact::ID_TASK }>(ctx.arg(0));
        let bprm = Typed::read_only::<{ fact::ID_BPRM }>(ctx.arg(2));
        if task::is_agent(task) {
            return;
        }
        // The registers no longer tell: set_personality_64bit and its kind write __NR_execve there.
        let by_descriptor = have::<{ fact::BPRM_FDPATH }>() && bprm.u64::<{ fact::BPRM_FDPATH }>() != 0;
        let event = if by_descriptor { EventType::Execveat } else { EventType::Execve };
        let Some(policy) = output::wanted(event) else { return };
        let Some(scratch) = output::take(&maps::EXEC, event.code(), FillLimit::PROCESSES) else { return };
        let sections = Sections::new(scratch);
        let record = &mut scratch.record;
        output::begin(&mut record.header, event, policy);
        task::fill(&mut record.task, task);
        record.flags = 0;

        let filename = bprm.u64::<{ fact::BPRM_FILENAME }>();
        let interp = bprm.u64::<{ fact::BPRM_INTERP }>();
        record.filename_length = string(sections, filename);
        record.interp_length = if interp == filename { 0 } else { string(sections, interp) };

        if typed_loads() {
            files::<Typed>(
                record,
                sections,
                bprm.object::<{ fact::BPRM_FILE }>(),
                task.object::<{ fact::TASK_FS }>(),
                task,
            );
        } else {
            files::<Raw>(
                record,
                sections,
                Raw::from_member::<{ fact::BPRM_FILE }, _>(bprm),
                Raw::from_member::<{ fact::TASK_FS }, _>(task),
                task,
            );
        }

        let mm = task.object::<{ fact::TASK_MM }>();
        let (length, cut) = memory(
            sections,
            mm.u64::<{ fact::MM_ARG_START }>(),
            mm.u64::<{ fact::MM_ARG_END }>(),
            Loss::ArgvUnreadable,
        );
        record.argv_length = length;
        if cut {
            record.flags |= ExecFlags::ARGV_TRUNCATED;
            if length == 0 {
                aya_log_ebpf::debug!(ctx, "argv of {} is paged out", record.task.tgid);
            }
        }
        record.envp_length = 0;
        if policy.flags & PolicyFlags::ENVIRONMENT != 0 {
            let (length, cut) = memory(
                sections,
                mm.u64::<{ fact::MM_ENV_START }>(),
                mm.u64::<{ fact::MM_ENV_END }>(),
                Loss::EnvUnreadable,
            );
            record.envp_length = length;
            if cut {
                record.flags |= ExecFlags::ENVP_TRUNCATED;
            }
        }
        // Ringing the bell costs the exec 25 us in a VM: worth it only where a verdict is to be given.
        let urgency = if task::is_hosts() { Urgency::Soon } else { Urgency::Now };
        output::send::<_, _, EXEC_ROOM>(scratch, urgency);
    }
}

#[inline(always)]
unsafe fn files<K: Object>(record: &mut agent_common::ExecRecord, sections: Sections, file: K, fs: K, task: Typed) {
    // SAFETY: reads an open file and a task's file system facts.
    unsafe {
        file::fill(&mut record.file, file.object::<{ fact::FILE_INODE }>(), task);
        let place = Place::new(file.object::<{ fact::FILE_PATH_DENTRY }>(), file.object::<{ fact::FILE_PATH_MNT }>());
        path::write::<K, EXEC_ROOM, true>(&mut record.path, sections, place, true);
        let cwd = Place::new(fs.object::<{ fact::FS_PWD_DENTRY }>(), fs.object::<{ fact::FS_PWD_MNT }>());
        path::write::<K, EXEC_ROOM, true>(&mut record.cwd, sections, cwd, false);
    }
}

/// Copies a kernel string without its NUL.
#[inline(always)]
unsafe fn string(sections: Sections, address: u64) -> u16 {
    // SAFETY: the helper checks the address; `end` guarantees the room.
    let written = unsafe {
        bpf_probe_read_kernel_str(sections.end::<EXEC_ROOM>().cast(), limits::PATH_MAX as u32, address as *const _)
    };
    if written <= 0 {
        lost(Loss::NameUnreadable);
    }
    if written <= 1 {
        return 0;
    }
    let length = (written as usize - 1) & (limits::PATH_MAX - 1);
    sections.add(length);
    length as u16
}

/// Copies a range of the new program's memory, and says whether it was cut.
#[inline(always)]
unsafe fn memory(sections: Sections, start: u64, end: u64, reason: Loss) -> (u32, bool) {
    let whole = end.wrapping_sub(start);
    let mut length = whole as usize;
    let cut = whole > limits::ARGV_MAX as u64;
    if cut {
        length = limits::ARGV_MAX;
    }
    if length == 0 {
        return (0, false);
    }
    let to = sections.end::<EXEC_ROOM>();
    // VERIFIER: the length must be bounded where the helper sees it.
    let mut length = output::opaque(length);
    if length > limits::ARGV_MAX {
        length = limits::ARGV_MAX;
    }
    // SAFETY: the helper checks the user address; `end` guarantees the room.
    if unsafe { bpf_probe_read_user(to.cast(), length as u32, start as *const _) } != 0 {
        lost(reason);
        return (0, true);
    }
    sections.add(length);
    (length as u32, cut)
}
