//! Hooks at the exits of single calls, `tracepoint/syscalls:sys_exit_X`, in place of the raw `sys_exit` that runs for all
//! calls: one that no rule needs then pays the kernel's own detour and no program. The kernel leaves 32-bit calls out
//! (`perf_syscall_exit`, `kernel/trace/trace_syscalls.c`), so these are for machines without them, and for those whose
//! owner says so.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _},
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use agent_common::{EventGroup, EventSet, EventType};
use aya::{Ebpf, programs::TracePoint};
use rustix::{
    fs::{Mode, OFlags, openat},
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen},
};

use super::{arch::MACHINE, btf::Btf, hooks::program, tier};

/// What they are called together.
pub(super) const NAME: &str = "tp/syscalls/sys_exit_*";

/// The program of the object.
pub(super) const PROGRAM: &str = "single_exit";

/// Where tracefs is mounted, if it is.
const PLACES: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// The hooks in place, by event; dropping one takes it away.
pub(super) struct Tracepoints {
    tracefs: OwnedFd,
    attached: BTreeMap<EventType, OwnedFd>,
}

impl Tracepoints {
    /// Finds out whether this kernel has them: what is missing, if not.
    pub(super) fn find(types: &Btf) -> Result<Self, String> {
        if !types.has_helper("task_pt_regs") {
            return Err("programs cannot ask for the registers of a call (before Linux 5.15)".to_owned());
        }
        let tracefs = tracefs().map_err(|error| format!("tracefs is not to be had: {error}"))?;
        let found = Self { tracefs, attached: BTreeMap::new() };
        // A kernel has all of them or none (CONFIG_FTRACE_SYSCALLS).
        found.id(EventType::Openat).map_err(|error| format!("sys_exit_openat: {error}"))?;
        Ok(found)
    }

    /// Puts a program at the exits of the calls among `events`, and takes it away from others: these last, so that
    /// a call that is needed before and after is never without.
    pub(super) fn switch(&mut self, ebpf: &mut Ebpf, events: &EventSet) -> Result<(), String> {
        let program = program::<TracePoint>(ebpf, PROGRAM)?.fd().map_err(|error| error.to_string())?.as_fd();
        for event in needed(events) {
            if self.attached.contains_key(&event) {
                continue;
            }
            let name = call_name(event);
            let hook = match self.id(event) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    tracing::debug!("this kernel was built without the call {name}");
                    continue;
                }
                id => id.and_then(|id| attach(program, id)),
            };
            self.attached.insert(event, hook.map_err(|error| format!("sys_exit_{name}: {error}"))?);
        }
        self.attached.retain(|event, _| events.contains(*event));
        Ok(())
    }

    pub(super) fn is_attached(&self) -> bool {
        !self.attached.is_empty()
    }

    /// The number under which the kernel knows the hook.
    fn id(&self, event: EventType) -> io::Result<u64> {
        let path = format!("events/syscalls/sys_exit_{}/id", call_name(event));
        let mut text = String::new();
        File::from(openat(&self.tracefs, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
            .read_to_string(&mut text)?;
        text.trim().parse().map_err(io::Error::other)
    }
}

/// Has the kernel verify the program.
pub(super) fn load(ebpf: &mut Ebpf) -> Result<(), String> {
    program::<TracePoint>(ebpf, PROGRAM)?.load().map_err(|error| {
        tracing::debug!(hook = NAME, %error, "the verifier's log");
        tier::short(&error)
    })
}

/// Those of the events that calls of this machine raise.
fn needed(events: &EventSet) -> impl Iterator<Item = EventType> {
    let at_exits = |event: &EventType| {
        matches!(event.group(), EventGroup::Open | EventGroup::Connect | EventGroup::Call)
            && event.call(MACHINE.native).is_some()
    };
    EventType::ALL.iter().copied().filter(move |event| events.contains(*event) && at_exits(event))
}

/// The name of the call in the kernel's source (`SYSCALL_DEFINE`).
fn call_name(event: EventType) -> &'static str {
    match event {
        EventType::Umount2 => "umount",
        event => event.name(),
    }
}

/// tracefs where it is mounted, else a mount of our own that nobody else sees.
fn tracefs() -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    for place in PLACES {
        let found = rustix::fs::open(place, flags, Mode::empty());
        if let Ok(directory) = found
            && rustix::fs::accessat(&directory, "events", rustix::fs::Access::EXISTS, rustix::fs::AtFlags::empty())
                .is_ok()
        {
            return Ok(directory);
        }
    }
    let context = fsopen("tracefs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// Runs a program at a tracepoint, on all processors.
fn attach(program: BorrowedFd<'_>, id: u64) -> io::Result<OwnedFd> {
    /// `include/uapi/linux/perf_event.h`
    const PERF_TYPE_TRACEPOINT: u32 = 2;
    const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 8;
    const PERF_EVENT_IOC_SET_BPF: libc::Ioctl = 0x4004_2408;
    /// `PERF_ATTR_SIZE_VER0`
    const SIZE: u32 = 64;
    const DISABLED: u64 = 1;
    /// The beginning of `struct perf_event_attr`.
    #[repr(C)]
    struct Attributes {
        kind: u32,
        size: u32,
        config: u64,
        sample_period: u64,
        sample_type: u64,
        read_format: u64,
        flags: u64,
        rest: [u64; 2],
    }
    const _: () = assert!(size_of::<Attributes>() == SIZE as usize);
    // It stays disabled: a program runs all the same, and no samples are taken.
    let attributes = Attributes {
        kind: PERF_TYPE_TRACEPOINT,
        size: SIZE,
        config: id,
        sample_period: 1,
        sample_type: 0,
        read_format: 0,
        flags: DISABLED,
        rest: [0; 2],
    };
    // SAFETY: the kernel reads the attributes: any process, the first processor, no group.
    let fd = unsafe {
        libc::syscall(libc::SYS_perf_event_open, &raw const attributes, -1_i32, 0_i32, -1_i32, PERF_FLAG_FD_CLOEXEC)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given this descriptor to this process.
    let event = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    // SAFETY: takes a program's descriptor.
    if unsafe { libc::ioctl(event.as_raw_fd(), PERF_EVENT_IOC_SET_BPF, program.as_raw_fd()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(event)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_has_a_hook_for_each_call_of_the_table() {
        let Ok(tracefs) = tracefs() else {
            return assert!(!rustix::process::geteuid().is_root(), "root can mount tracefs");
        };
        let tracepoints = Tracepoints { tracefs, attached: BTreeMap::new() };
        let all: EventSet = EventType::ALL.iter().copied().collect();
        for event in needed(&all).filter(|event| tracepoints.id(*event).is_err()) {
            let number = event.call(MACHINE.native).unwrap();
            // SAFETY: without arguments there is nothing to read or write.
            let answer = unsafe { libc::syscall(number.into(), 0, 0, 0, 0, 0, 0) };
            let error = io::Error::last_os_error().raw_os_error();
            assert_eq!(
                (answer, error),
                (-1, Some(libc::ENOSYS)),
                "{event:?} has no hook, and is a call of this kernel"
            );
        }
        assert!(needed(&all).count() > 60);
    }
}
