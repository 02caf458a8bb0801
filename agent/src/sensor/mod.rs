//! The sensor: loads the embedded eBPF programs into the running kernel, attaches those that the policy
//! needs, and hands out the records they write. It knows bytes and hooks, nothing of what an event means.

mod arch;
mod btf;
mod compat;
mod gaps;
mod limits;
mod overlay;
mod policy;
mod relocate;
mod ring;
mod tier;
mod tracepoints;

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    path::PathBuf,
    thread,
    time::Duration,
};

use agent_common::{EventGroup, EventType, Loss};
use aya::{
    Ebpf, EbpfError, EbpfLoader, VerifierLogLevel,
    maps::{Array, ArrayOfMaps, HashMap, Map, MapError, PerCpuArray, PerCpuValues},
    programs::{
        BtfTracePoint, ProgramError, RawTracePoint, RawTracePointRunOptions, TestRun as _, tp_btf::BtfTracePointLinkId,
    },
};

use aya_log::EbpfLogger;

pub(crate) use self::compat::takes_compat_calls;
pub use self::{
    btf::BtfError,
    limits::{Circumstances, LIMITS, Limit},
    policy::{EventSet, Policy},
    relocate::RelocateError,
    tier::{Tier, TierReport},
};
use self::{policy::PolicyOwner, relocate::Abilities, ring::Ring, tracepoints::Tracepoints};

/// How the sensor is set up.
#[derive(Debug, Clone)]
pub struct SensorConfig {
    /// Size of the ring in bytes; rounded up to a power of two.
    pub ring_bytes: u32,
    /// How long records may gather before the consumer looks, while there is a flow of them.
    pub gather: Duration,
    /// Where the kernel's BTF is.
    pub btf: PathBuf,
    /// See 32-bit calls, if the kernel takes any.
    pub compat_calls: bool,
    /// Read kernel objects by typed loads where the kernel can (the faster way).
    pub typed_loads: bool,
    /// Use the hooks of this tier, or fail; none: the best that the kernel allows.
    pub tier: Option<Tier>,
}

impl Default for SensorConfig {
    fn default() -> Self {
        Self {
            ring_bytes: 8 << 20,
            gather: Duration::from_millis(1),
            btf: PathBuf::from("/sys/kernel/btf/vmlinux"),
            compat_calls: true,
            typed_loads: true,
            tier: None,
        }
    }
}

/// Why the sensor cannot start or go on: what, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum SensorError {
    /// No right to load programs.
    #[error("no permission to load eBPF programs: run as root, or with CAP_BPF, CAP_PERFMON and CAP_SYS_PTRACE")]
    NotPrivileged,
    /// This binary was built without them.
    #[error(
        "this binary was built without its eBPF programs: build it with `cargo xtask build`, which installs what is missing"
    )]
    NoPrograms,
    /// No type information.
    #[error(
        "cannot read the kernel's type information {path}: {error}. Purser needs a kernel built with CONFIG_DEBUG_INFO_BTF; in a container, mount the host's /sys"
    )]
    NoBtf {
        /// Where it was looked for.
        path: PathBuf,
        /// Why it cannot be read.
        error: io::Error,
    },
    /// Type information is there but unreadable.
    #[error("cannot read the kernel's type information: {0}")]
    Btf(#[from] BtfError),
    /// The kernel is not like any known one.
    #[error(transparent)]
    Relocate(#[from] RelocateError),
    /// The kernel refuses the object.
    #[error(
        "the kernel refuses Purser's eBPF maps: {0}. Check that it has CONFIG_BPF_SYSCALL and is 5.10 or newer, and that no lockdown or seccomp filter blocks bpf(2)"
    )]
    Object(#[from] Box<EbpfError>),
    /// The kernel refuses a program that cannot be done without.
    #[error(
        "the kernel refuses hook {hook}: {reason}. Check that it is 5.10 or newer and that no lockdown or seccomp filter blocks bpf(2)"
    )]
    Hook {
        /// Which.
        hook: &'static str,
        /// The kernel's answer.
        reason: String,
    },
    /// The configuration asks for hooks that are not to be had.
    #[error(
        "tier {wanted} is asked for, but not to be had: {report}. Leave the choice to the sensor, or boot a kernel that allows it"
    )]
    Tier {
        /// The tier asked for.
        wanted: Tier,
        /// What there is, and why.
        report: TierReport,
    },
    /// A map operation failed.
    #[error("cannot reach an eBPF map: {0}")]
    Map(#[from] MapError),
    /// The object and this agent do not fit together.
    #[error("the embedded eBPF object has no {0}: the two halves are of different builds")]
    Mismatch(&'static str),
    /// The programs' own log cannot be read.
    #[error("cannot reach the log of the eBPF programs: {0}")]
    Log(#[from] aya_log::Error),
    /// No thread.
    #[error("cannot start the thread that changes the policy: {0}")]
    Thread(io::Error),
    /// Waiting for records failed.
    #[error("cannot wait for kernel records: {0}")]
    Wait(io::Error),
}

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

/// The loaded programs. Dropping it detaches them.
pub struct Sensor {
    ebpf: Ebpf,
    hooks: Vec<Hook>,
    links: Vec<Option<BtfTracePointLinkId>>,
    /// In place of `sys_exit`.
    tracepoints: Option<Tracepoints>,
    misses_compat: bool,
    policy: PolicyOwner,
    lost: PerCpuArray<aya::maps::MapData, u64>,
    dropped: PerCpuArray<aya::maps::MapData, u64>,
    host_cgroups: HashMap<aya::maps::MapData, u64, u8>,
    unmatched: HashMap<aya::maps::MapData, u64, u8>,
    rejected: PerCpuArray<aya::maps::MapData, u64>,
    ring: Ring,
    tier: TierReport,
    /// Passes on what the programs log; they do so on rare paths only.
    flush_log: Box<dyn FnMut() + Send>,
}

/// The parts of a sensor that a policy changes.
struct Switchboard<'a> {
    ebpf: &'a mut Ebpf,
    hooks: &'a mut [Hook],
    links: &'a mut [Option<BtfTracePointLinkId>],
    tracepoints: &'a mut Option<Tracepoints>,
    policy: &'a mut PolicyOwner,
}

/// A program of the object: it has the name of its tracepoint.
struct HookSpec {
    name: &'static str,
    tracepoint: &'static str,
    serves: &'static [EventGroup],
    /// Without it the sensor is no sensor.
    required: bool,
}

impl HookSpec {
    /// Whether it delivers an event, or that event done by another way.
    fn serves(&self, event: EventType) -> bool {
        self.serves.contains(&event.group())
            || (self.serves.contains(&EventGroup::IoUring) && event.is_ring_operation())
    }
}

const fn hook(name: &'static str, tracepoint: &'static str, serves: &'static [EventGroup], required: bool) -> HookSpec {
    HookSpec { name, tracepoint, serves, required }
}

const HOOKS: &[HookSpec] = &[
    hook("tp_btf/cgroup_mkdir", "cgroup_mkdir", &[EventGroup::Cgroup], true),
    hook("tp_btf/cgroup_rmdir", "cgroup_rmdir", &[EventGroup::Cgroup], true),
    hook("tp_btf/sched_process_fork", "sched_process_fork", &[EventGroup::Fork], true),
    hook("tp_btf/sched_process_exec", "sched_process_exec", &[EventGroup::Exec], true),
    hook("tp_btf/sched_process_exit", "sched_process_exit", &[EventGroup::Exit], true),
    hook("tp_btf/task_rename", "task_rename", &[EventGroup::Rename], true),
    hook("tp_btf/sys_exit", "sys_exit", &[EventGroup::Open, EventGroup::Connect, EventGroup::Call], true),
    hook("tp_btf/io_uring_submit_req", "io_uring_submit_req", &[EventGroup::IoUring], false),
    hook("tp_btf/io_uring_complete", "io_uring_complete", &[EventGroup::IoUring], false),
];

/// The hook that sees all calls.
const SYS_EXIT: &str = "sys_exit";

/// The hooks that deliver the event that rules call `name`, as `tp_btf/sched_process_exec`; none if nothing delivers it.
pub fn hooks_of(name: &str) -> Vec<&'static str> {
    let events = || EventType::ALL.iter().filter(|event| event.name() == name);
    let serves = |hook: &&HookSpec| events().any(|event| hook.serves(*event));
    HOOKS.iter().filter(serves).map(|hook| hook.name).collect()
}

/// The hooks that a policy needs, under each name they have.
pub fn needed(policy: &Policy) -> Vec<&'static str> {
    let names = |spec: &HookSpec| [Some(spec.name), (spec.tracepoint == SYS_EXIT).then_some(tracepoints::NAME)];
    HOOKS.iter().filter(|spec| spec.is_needed(policy)).flat_map(names).flatten().collect()
}

impl HookSpec {
    fn is_needed(&self, policy: &Policy) -> bool {
        EventType::ALL.iter().any(|event| policy.events.contains(*event) && self.serves(*event))
    }
}

/// Maps with one element per processor.
const SCRATCH_MAPS: &[&str] = &[
    "EXEC",
    "OPEN",
    "CONNECT",
    "CALL",
    "CGROUP",
    "FORK",
    "EXIT",
    "RENAME",
    "IO_URING_OPEN",
    "IO_URING_CONNECT",
    "IO_URING_CALL",
];

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/purser-bpf.o"));
/// The same programs for kernels before 5.11, which read everything by helper.
static UNTYPED_OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/purser-bpf-untyped.o"));

impl Sensor {
    /// Loads the programs and attaches those that `policy` needs.
    pub fn start(config: &SensorConfig, policy: &Policy) -> Result<Self, SensorError> {
        if OBJECT.is_empty() {
            return Err(SensorError::NoPrograms);
        }
        if !may_load() {
            return Err(SensorError::NotPrivileged);
        }
        raise_memory_limit();
        let no_btf = |error| SensorError::NoBtf { path: config.btf.clone(), error };
        let bytes = fs::read(&config.btf).map_err(no_btf)?;
        let mut types = btf::Btf::parse(bytes)?;
        // A module with most distributions; one that is loaded later is known by the kernel's release.
        if let Ok(overlay) = fs::read(config.btf.with_file_name("overlay")) {
            types.add_module(overlay)?;
        }
        let abilities = Abilities { typed_loads: config.typed_loads, compat: takes_compat_calls() };
        let facts = relocate::Facts::resolve(&types, &arch::MACHINE, abilities)?;
        let typed_tasks = types.has_helper("get_current_task_btf");
        let mut object = if typed_tasks { OBJECT } else { UNTYPED_OBJECT }.to_vec();
        facts.apply(&mut object)?;
        let calls = EventType::call_table(arch::MACHINE.native, arch::MACHINE.compat.filter(|_| abilities.compat));
        let kernel_types = aya::Btf::parse_file(&config.btf, aya::Endianness::default())
            .map_err(|error| no_btf(io::Error::other(error)))?;

        let possible = aya::util::nr_cpus().map_err(|(_, error)| SensorError::Wait(error))?;
        let processors = u32::try_from(possible).unwrap_or(u32::MAX);
        let mut loader = EbpfLoader::new();
        // Not DISABLE: aya then hands the kernel a log buffer without a level, and the refusal's reason becomes EINVAL.
        loader.verifier_log_level(VerifierLogLevel::STATS);
        loader.override_global("CALLS", &calls, true);
        let ring = relocate::ring_table(&types);
        loader.override_global("RING", &ring, true);
        loader.map_max_entries("EVENTS", config.ring_bytes.max(4096).next_power_of_two());
        for name in SCRATCH_MAPS {
            loader.map_max_entries(name, processors);
        }
        let mut ebpf = loader.load(&object).map_err(Box::new)?;

        let policy_map = ArrayOfMaps::try_from(take(&mut ebpf, "POLICY")?)?;
        let lost = PerCpuArray::try_from(take(&mut ebpf, "LOST")?)?;
        let dropped = PerCpuArray::try_from(take(&mut ebpf, "DROPPED")?)?;
        let wake = Array::try_from(take(&mut ebpf, "WAKE")?)?;
        let host_cgroups = HashMap::try_from(take(&mut ebpf, "HOST_CGROUPS")?)?;
        let unmatched = HashMap::try_from(take(&mut ebpf, "UNMATCHED")?)?;
        let rejected = PerCpuArray::try_from(take(&mut ebpf, "REJECTED")?)?;
        let ring = Ring::new(take(&mut ebpf, "EVENTS")?, wake, config.gather, possible).map_err(SensorError::Wait)?;
        let mut log = EbpfLogger::init(&mut ebpf).map_err(SensorError::Log)?;
        identify_agent(&mut ebpf)?;
        let tier = tier::probe(&mut ebpf, &kernel_types);
        if let Some(wanted) = config.tier.filter(|wanted| *wanted != tier.in_use) {
            return Err(SensorError::Tier { wanted, report: tier });
        }

        let tracepoints = if abilities.compat && config.compat_calls { None } else { single_exits(&types) };
        let misses_compat = abilities.compat && tracepoints.is_some();
        if misses_compat {
            tracing::warn!("32-bit calls are not seen: sensor.compat32 is off");
        }
        let mut hooks = Vec::with_capacity(HOOKS.len());
        for spec in HOOKS {
            let (name, loaded) = match &tracepoints {
                Some(_) if spec.tracepoint == SYS_EXIT => (tracepoints::NAME, tracepoints::load(&mut ebpf)),
                _ => (spec.name, load(&mut ebpf, spec, &types, &kernel_types)),
            };
            let state = match loaded {
                Ok(()) => HookState::NotNeeded,
                Err(reason) if spec.required => return Err(SensorError::Hook { hook: name, reason }),
                Err(reason) => HookState::Unavailable(reason),
            };
            hooks.push(Hook { name, state });
        }
        let links = HOOKS.iter().map(|_| None).collect();
        let mut sensor = Self {
            ebpf,
            hooks,
            links,
            tracepoints,
            misses_compat,
            policy: PolicyOwner::new(policy_map),
            lost,
            dropped,
            host_cgroups,
            unmatched,
            rejected,
            ring,
            tier,
            flush_log: Box::new(move || log.flush()),
        };
        sensor.set_policy(policy)?;
        drop((types, kernel_types, object));
        give_back_memory();
        Ok(sensor)
    }

    /// Which tier this kernel allows, which is in use, and why.
    pub fn tier(&self) -> &TierReport {
        &self.tier
    }

    /// The machine takes 32-bit calls, and these hooks do not see them.
    pub fn misses_compat_calls(&self) -> bool {
        self.misses_compat
    }

    /// Every hook and what became of it.
    pub fn hooks(&self) -> &[Hook] {
        &self.hooks
    }

    /// The generation of the policy in force.
    pub fn generation(&self) -> u32 {
        self.policy.generation()
    }

    /// Puts a policy in force: what programs report first, then which of them are attached. Returns its
    /// generation, which records carry.
    pub fn set_policy(&mut self, policy: &Policy) -> Result<u32, SensorError> {
        self.parts().0.set(policy)
    }

    /// The same, but records are handed to `handle` meanwhile: the kernel takes tens of milliseconds to be sure that no
    /// program uses the former policy any more, in which the ring would fill up.
    pub fn set_policy_while(&mut self, policy: &Policy, handle: &mut dyn FnMut(&[u8])) -> Result<u32, SensorError> {
        let (mut switchboard, ring) = self.parts();
        thread::scope(|scope| {
            let setting = thread::Builder::new()
                .name("policy".to_owned())
                .spawn_scoped(scope, move || switchboard.set(policy))
                .map_err(SensorError::Thread)?;
            while !setting.is_finished() {
                ring.poll(Duration::from_millis(1), handle)?;
            }
            setting.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn parts(&mut self) -> (Switchboard<'_>, &mut Ring) {
        let Self { ebpf, hooks, links, tracepoints, policy, ring, .. } = self;
        (Switchboard { ebpf, hooks, links, tracepoints, policy }, ring)
    }

    /// Says that a cgroup is the host's and stays so. A full map forgets others, whose events then come again.
    pub fn add_host_cgroup(&mut self, id: u64) -> Result<(), SensorError> {
        Ok(self.host_cgroups.insert(id, 1, 0)?)
    }

    /// Has events stay in the kernel that have this hash ([`Header::hash`](crate::event::Header::hash)), as long as the policy
    /// is in force that it was made under. A full map forgets others, which then come again.
    pub fn reject(&mut self, hash: u64) -> Result<(), SensorError> {
        Ok(self.unmatched.insert(hash, 1, 0)?)
    }

    /// How many events stayed in the kernel for [`Self::reject`], by type.
    pub fn rejected(&self) -> impl Iterator<Item = (EventType, u64)> + '_ {
        EventType::ALL.iter().map(|event| {
            let counts = self.rejected.get(&u32::from(event.code()), 0);
            (*event, counts.map_or(0, |counts| counts.iter().sum()))
        })
    }

    /// Has `poll` end when `fd` (an eventfd) becomes readable, so that one thread can wait for records and for others.
    pub fn watch(&self, fd: BorrowedFd<'_>) -> Result<(), SensorError> {
        self.ring.watch(fd).map_err(SensorError::Wait)
    }

    /// Hands every record that is there to `handle`; if there is none, waits for one up to `timeout`.
    /// Returns how many there were.
    pub fn poll(&mut self, timeout: Duration, handle: &mut dyn FnMut(&[u8])) -> Result<usize, SensorError> {
        let count = self.ring.poll(timeout, handle)?;
        if count == 0 {
            (self.flush_log)();
        }
        Ok(count)
    }

    /// What got lost in the kernel since the start: stage, reason, how many. Every reason is there from the start.
    pub fn losses(&mut self) -> Vec<(&'static str, &'static str, u64)> {
        let counts = |loss: &Loss| self.lost.get(&(*loss as u32), 0).ok();
        let counts: Vec<_> = Loss::ALL.iter().map(|loss| (*loss, counts(loss))).collect();
        let of = |counts: &PerCpuValues<u64>, cpu: usize| counts.get(cpu).copied().unwrap_or(0);
        let unexplained = self.ring.gaps.reconcile(|cpu| {
            let gaps = counts.iter().filter(|(loss, _)| loss.leaves_gap());
            gaps.filter_map(|(_, counts)| Some(of(counts.as_ref()?, cpu))).sum()
        });
        let total = |counts: Option<&PerCpuValues<u64>>| counts.map_or(0, |counts| counts.iter().sum());
        let mut losses: Vec<_> =
            counts.iter().map(|(loss, counts)| (loss.stage(), loss.reason(), total(counts.as_ref()))).collect();
        losses.push(("kernel", "recursion", self.recursion_misses()));
        losses.push(("ring", "unexplained_gap", unexplained));
        losses
    }

    /// Events that got lost whole in the kernel since the start, by type; those that did not, as 0.
    pub fn dropped(&self) -> Vec<(EventType, u64)> {
        let count = |event: &EventType| self.dropped.get(&u32::from(event.code()), 0).ok();
        EventType::ALL.iter().map(|event| (*event, count(event).map_or(0, |counts| counts.iter().sum()))).collect()
    }

    /// How often the kernel skipped a program because it already ran on that processor.
    fn recursion_misses(&self) -> u64 {
        let mut misses = 0;
        for name in HOOKS.iter().map(|spec| spec.tracepoint).chain([tracepoints::PROGRAM]) {
            let Some(program) = self.ebpf.program(name) else { continue };
            let Ok(fd) = program.fd() else { continue };
            let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd())).unwrap_or_default();
            let count = info.lines().find_map(|line| line.strip_prefix("recursion_misses:"));
            misses += count.and_then(|count| count.trim().parse::<u64>().ok()).unwrap_or(0);
        }
        misses
    }
}

impl Switchboard<'_> {
    fn set(&mut self, policy: &Policy) -> Result<u32, SensorError> {
        let generation = self.policy.set(policy)?;
        for (index, spec) in HOOKS.iter().enumerate() {
            if spec.tracepoint == SYS_EXIT && self.tracepoints.is_some() {
                self.switch_single_exits(index, policy)?;
            } else {
                self.switch(index, spec.is_needed(policy))?;
            }
        }
        Ok(generation)
    }

    fn switch_single_exits(&mut self, index: usize, policy: &Policy) -> Result<(), SensorError> {
        let refused = |reason| SensorError::Hook { hook: tracepoints::NAME, reason };
        let Some(tracepoints) = self.tracepoints else { return Ok(()) };
        tracepoints.switch(self.ebpf, &policy.events).map_err(refused)?;
        let attached = tracepoints.is_attached();
        self.hooks[index].state = if attached { HookState::Attached } else { HookState::NotNeeded };
        Ok(())
    }

    fn switch(&mut self, index: usize, needed: bool) -> Result<(), SensorError> {
        let spec = &HOOKS[index];
        let hook = &mut self.hooks[index];
        if matches!(hook.state, HookState::Unavailable(_)) || needed == self.links[index].is_some() {
            return Ok(());
        }
        let refused = |error: ProgramError| SensorError::Hook { hook: spec.name, reason: tier::short(&error) };
        let program = program::<BtfTracePoint>(self.ebpf, spec.tracepoint)
            .map_err(|reason| SensorError::Hook { hook: spec.name, reason })?;
        if needed {
            self.links[index] = Some(program.attach().map_err(refused)?);
            hook.state = HookState::Attached;
        } else if let Some(link) = self.links[index].take() {
            program.detach(link).map_err(refused)?;
            hook.state = HookState::NotNeeded;
        }
        Ok(())
    }
}

/// Hooks at single calls, if they can be had here.
fn single_exits(types: &btf::Btf) -> Option<Tracepoints> {
    Tracepoints::find(types).map_err(|reason| tracing::info!("{SYS_EXIT} sees all calls: {reason}")).ok()
}

fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, SensorError> {
    ebpf.take_map(name).ok_or(SensorError::Mismatch(name))
}

fn program<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P, String>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    ebpf.program_mut(name)
        .ok_or_else(|| format!("the embedded object has no program {name}"))?
        .try_into()
        .map_err(|error: ProgramError| error.to_string())
}

fn load(ebpf: &mut Ebpf, spec: &HookSpec, types: &btf::Btf, kernel_types: &aya::Btf) -> Result<(), String> {
    let tracepoint = tracepoint(spec.tracepoint, types)?;
    let program: &mut BtfTracePoint = program(ebpf, spec.tracepoint)?;
    program.load(tracepoint, kernel_types).map_err(|error| {
        tracing::debug!(hook = spec.name, %error, "the verifier's log");
        tier::short(&error)
    })
}

/// The tracepoint that tells on this kernel what a hook's tracepoint tells on the newest.
fn tracepoint(newest: &'static str, types: &btf::Btf) -> Result<&'static str, String> {
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

/// Has the kernel look at this very process, so that the programs can leave it out whatever pid namespace it is in.
fn identify_agent(ebpf: &mut Ebpf) -> Result<(), SensorError> {
    let refused = |reason| SensorError::Hook { hook: "raw_tp/identify_agent", reason };
    let program: &mut RawTracePoint = program(ebpf, "identify_agent").map_err(refused)?;
    program.load().map_err(|error| refused(tier::short(&error)))?;
    program.test_run(RawTracePointRunOptions::new()).map_err(|error| refused(tier::short(&error)))?;
    program.unload().map_err(|error| refused(tier::short(&error)))
}

/// Whether the effective capabilities allow loading (`include/uapi/linux/capability.h`).
fn may_load() -> bool {
    const SYS_ADMIN: u64 = 1 << 21;
    const PERFMON_AND_BPF: u64 = 1 << 38 | 1 << 39;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    // Where the answer cannot be read, the kernel's own refusal will tell.
    let Some(effective) = effective.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()) else { return true };
    effective & SYS_ADMIN != 0 || effective & PERFMON_AND_BPF == PERFMON_AND_BPF
}

/// Before 5.11 maps count against the locked memory limit; since then raising it may fail without harm.
fn raise_memory_limit() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let unlimited = Rlimit { current: None, maximum: None };
    if let Err(error) = setrlimit(Resource::Memlock, unlimited) {
        tracing::debug!(%error, "the locked memory limit stays as it is");
    }
}

/// Gives back what was taken for a moment: reading the kernel's types takes tens of megabytes, loading rules takes some;
/// the allocator would keep them.
pub(crate) fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}
