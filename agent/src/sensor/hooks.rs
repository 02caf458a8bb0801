//! Which hooks there are, in which tier, and what each serves: the table that start-up and reloads go by, and what became
//! of each hook on this kernel.

use std::os::fd::AsFd as _;

use agent_common::{EventGroup, EventType};
use aya::{
    Ebpf,
    programs::{BtfTracePoint, FEntry, ProgramError, fentry::FEntryLinkId, tp_btf::BtfTracePointLinkId},
};

use super::{Policy, Tier, bpf, btf::Btf, tier};

/// A hook and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// Kind and place, as `tp_btf/sched_process_exec`.
    pub name: &'static str,
    /// What became of it.
    pub state: HookState,
}

/// What became of a hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HookState {
    /// In place.
    Attached,
    /// No rule needs it: it costs nothing.
    NotNeeded,
    /// This kernel does not have it, or refuses it.
    Unavailable(String),
}

/// A program of the object, and where it goes.
pub(super) struct HookSpec {
    /// Kind and place.
    pub(super) name: &'static str,
    /// The place; the program has its name.
    place: &'static str,
    kind: Kind,
    serves: &'static [EventGroup],
    tiers: &'static [Tier],
    /// Without it the sensor, or this tier, is none.
    pub(super) required: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tracepoint,
    Entry,
}

const ALL: &[Tier] = &[Tier::A, Tier::B, Tier::C];
const TRAMPOLINES: &[Tier] = &[Tier::A, Tier::B];

const fn tracepoint(
    name: &'static str,
    place: &'static str,
    serves: &'static [EventGroup],
    tiers: &'static [Tier],
    required: bool,
) -> HookSpec {
    HookSpec { name, place, kind: Kind::Tracepoint, serves, tiers, required }
}

const fn entry(name: &'static str, place: &'static str, serves: &'static [EventGroup]) -> HookSpec {
    HookSpec { name, place, kind: Kind::Entry, serves, tiers: TRAMPOLINES, required: true }
}

/// The hook that sees all calls.
const SYS_EXIT: &str = "sys_exit";

/// The name under which the stubs at the exits of calls go (`stubs.rs`), in tiers A and B.
pub(super) const CALL_EXITS: &str = "fexit/sys_*";

/// Beside these there are the stubs.
pub(super) const HOOKS: &[HookSpec] = &[
    tracepoint("tp_btf/cgroup_mkdir", "cgroup_mkdir", &[EventGroup::Cgroup], ALL, true),
    tracepoint("tp_btf/cgroup_rmdir", "cgroup_rmdir", &[EventGroup::Cgroup], ALL, true),
    tracepoint("tp_btf/sched_process_fork", "sched_process_fork", &[EventGroup::Fork], ALL, true),
    tracepoint("tp_btf/sched_process_exec", "sched_process_exec", &[EventGroup::Exec], ALL, true),
    tracepoint("tp_btf/sched_process_exit", "sched_process_exit", &[EventGroup::Exit], ALL, true),
    tracepoint("tp_btf/task_rename", "task_rename", &[EventGroup::Rename], ALL, true),
    tracepoint(
        "tp_btf/sys_exit",
        SYS_EXIT,
        &[EventGroup::Open, EventGroup::Connect, EventGroup::Call],
        &[Tier::C],
        true,
    ),
    tracepoint("tp_btf/io_uring_submit_req", "io_uring_submit_req", &[EventGroup::IoUring], ALL, false),
    tracepoint("tp_btf/io_uring_complete", "io_uring_complete", &[EventGroup::IoUring], ALL, false),
    entry("fentry/fd_install", "fd_install", &[EventGroup::Open]),
];

/// The hooks that deliver the event that rules call `name`, as `tp_btf/sched_process_exec`; none if nothing delivers it.
pub fn hooks_of(name: &str) -> Vec<&'static str> {
    let events = || EventType::ALL.iter().filter(|event| event.name() == name);
    let serves = |hook: &&HookSpec| hook.tiers.contains(&Tier::C) && events().any(|event| hook.serves(*event));
    HOOKS.iter().filter(serves).map(|hook| hook.name).collect()
}

/// Whether a hook of that name is one that tier C does without.
pub(super) fn is_trampoline(name: &str) -> bool {
    name.starts_with("fentry/") || name.starts_with("fexit/")
}

/// Whether opens can be seen where their descriptor gets its file: the program asks for the task's registers (5.15 on).
/// Else they are seen at their calls' exits.
pub(super) fn sees_opens(types: &Btf) -> bool {
    types.has_helper("task_pt_regs") && types.function("fd_install").is_some()
}

/// An attached program.
pub(super) enum Link {
    Tracepoint(BtfTracePointLinkId),
    Entry(FEntryLinkId),
}

impl HookSpec {
    /// Whether it is one of a tier's on this kernel.
    pub(super) fn is_in(&self, tier: Tier, types: &Btf) -> bool {
        self.tiers.contains(&tier) && (self.kind != Kind::Entry || sees_opens(types))
    }

    pub(super) fn is_needed(&self, policy: &Policy) -> bool {
        EventType::ALL.iter().any(|event| policy.events.contains(*event) && self.serves(*event))
    }

    /// Whether it delivers an event, or that event done by another way.
    fn serves(&self, event: EventType) -> bool {
        self.serves.contains(&event.group())
            || (self.serves.contains(&EventGroup::IoUring) && event.is_ring_operation())
    }

    /// Has the kernel verify the program.
    pub(super) fn load(&self, ebpf: &mut Ebpf, types: &Btf, kernel_types: &aya::Btf) -> Result<(), String> {
        let result = match self.kind {
            Kind::Tracepoint => {
                let tracepoint = tracepoint_here(self.place, types)?;
                program::<BtfTracePoint>(ebpf, self.place)?.load(tracepoint, kernel_types)
            }
            Kind::Entry => program::<FEntry>(ebpf, self.place)?.load(self.place, kernel_types),
        };
        result.map_err(|error| {
            tracing::debug!(hook = self.name, %error, "the verifier's log");
            tier::short(&error)
        })
    }

    pub(super) fn attach(&self, ebpf: &mut Ebpf) -> Result<Link, String> {
        let link = match self.kind {
            Kind::Tracepoint => program::<BtfTracePoint>(ebpf, self.place)?.attach().map(Link::Tracepoint),
            Kind::Entry => program::<FEntry>(ebpf, self.place)?.attach().map(Link::Entry),
        };
        link.map_err(|error| tier::short(&error))
    }

    pub(super) fn detach(&self, ebpf: &mut Ebpf, link: Link) -> Result<(), String> {
        let result = match link {
            Link::Tracepoint(link) => program::<BtfTracePoint>(ebpf, self.place)?.detach(link),
            Link::Entry(link) => program::<FEntry>(ebpf, self.place)?.detach(link),
        };
        result.map_err(|error| tier::short(&error))
    }

    /// How often the kernel skipped the program because it already ran on that processor.
    pub(super) fn recursion_misses(&self, ebpf: &Ebpf) -> u64 {
        recursion_misses(ebpf, self.place)
    }

    /// Whether it is at the exits of all calls of the machine.
    pub(super) fn sees_all_calls(&self) -> bool {
        self.place == SYS_EXIT
    }
}

/// The tracepoint that tells on this kernel what a hook's tracepoint tells on the newest.
fn tracepoint_here(newest: &'static str, types: &Btf) -> Result<&'static str, String> {
    match newest {
        // Before 6.2, from 5.19 on; the same name told less before.
        "io_uring_submit_req" if !types.has_tracepoint(newest) => {
            let before = "io_uring_submit_sqe";
            let request = types.tracepoint_argument(before, 0);
            if request.as_deref() == Some("io_kiocb") {
                Ok(before)
            } else {
                Err("this kernel has no such tracepoint".to_owned())
            }
        }
        "io_uring_complete" if types.has_tracepoint(newest) && !types.tracepoint_takes_pointer(newest, 1) => {
            Err("this kernel's tracepoint does not tell which request it is".to_owned())
        }
        _ if types.has_tracepoint(newest) => Ok(newest),
        _ => Err("this kernel has no such tracepoint".to_owned()),
    }
}

/// How often the kernel skipped a program of the object because it already ran on that processor.
pub(super) fn recursion_misses(ebpf: &Ebpf, name: &str) -> u64 {
    let fd = ebpf.program(name).and_then(|program| program.fd().ok());
    fd.and_then(|fd| bpf::recursion_misses(fd.as_fd()).ok()).unwrap_or(0)
}

/// A program of the object.
pub(super) fn program<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P, String>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    ebpf.program_mut(name)
        .ok_or_else(|| format!("the embedded object has no program {name}"))?
        .try_into()
        .map_err(|error: ProgramError| error.to_string())
}
