//! The sensor: loads the embedded eBPF programs into the running kernel, attaches those that the policy
//! needs, and hands out the records they write. It knows bytes and hooks, nothing of what an event means.

mod arch;
mod bpf;
mod btf;
mod compat;
mod gaps;
mod hooks;
mod limits;
mod overlay;
mod policy;
mod relocate;
mod ring;
mod stubs;
mod tier;
mod tracepoints;

use std::{
    fs, io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::PathBuf,
    thread,
    time::Duration,
};

use agent_common::{EventType, Loss};
use aya::{
    Ebpf, EbpfError, EbpfLoader, VerifierLogLevel,
    maps::{Array, ArrayOfMaps, HashMap, Map, MapError, PerCpuArray, PerCpuValues},
    programs::{FExit, RawTracePoint, RawTracePointRunOptions, TestRun as _},
};

use aya_log::EbpfLogger;

pub(crate) use self::compat::takes_compat_calls;
pub use self::{
    btf::BtfError,
    hooks::{Hook, HookState, hooks_of},
    limits::{Circumstances, LIMITS, Limit},
    policy::{EventSet, Policy},
    relocate::RelocateError,
    tier::{Tier, TierReport},
};
use self::{
    hooks::{CALL_EXITS, HookSpec, program},
    policy::PolicyOwner,
    relocate::Abilities,
    ring::Ring,
    stubs::Stubs,
    tracepoints::Tracepoints,
};

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
        hook: String,
        /// The kernel's answer.
        reason: String,
    },
    /// This kernel does not allow the tier that was asked for.
    #[error("sensor.tier: {tier} is not to be had here ({reason}); set it to auto")]
    Tier {
        /// Which.
        tier: Tier,
        /// What is in the way.
        reason: String,
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

/// The loaded programs. Dropping it detaches them.
pub struct Sensor {
    ebpf: Ebpf,
    specs: Vec<&'static HookSpec>,
    /// What became of each of `specs`, and of the stubs, which are last.
    hooks: Vec<Hook>,
    links: Vec<Option<hooks::Link>>,
    /// In place of `sys_exit`, in tier C.
    tracepoints: Option<Tracepoints>,
    /// Hooks at the exits of calls, in tiers A and B.
    stubs: Option<Stubs>,
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
    specs: &'a [&'static HookSpec],
    hooks: &'a mut [Hook],
    links: &'a mut [Option<hooks::Link>],
    tracepoints: &'a mut Option<Tracepoints>,
    stubs: &'a mut Option<Stubs>,
    policy: &'a mut PolicyOwner,
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

/// Those of them that programs use whose tasks may preempt each other, in tiers A and B, and how many elements they have then.
const PREEMPTIBLE: &[&str] = &["OPEN", "CONNECT", "CALL"];
const SLOTS: u32 = 4;

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
        raise_limits();
        let no_btf = |error| SensorError::NoBtf { path: config.btf.clone(), error };
        let bytes = fs::read(&config.btf).map_err(no_btf)?;
        let mut types = btf::Btf::parse(bytes)?;
        // A module with most distributions; one that is loaded later is known by the kernel's release.
        if let Ok(overlay) = fs::read(config.btf.with_file_name("overlay")) {
            types.add_module(overlay)?;
        }
        let report = tier::probe(&types, config.tier)?;
        let may_do_without = config.tier.is_none() && report.in_use != Tier::C;
        let sensor = match Self::load(config, policy, &types, report) {
            Err(SensorError::Hook { hook, reason }) if may_do_without && hooks::is_trampoline(&hook) => {
                tracing::warn!("tracepoints are used instead: the kernel refuses {hook}: {reason}");
                Self::load(config, policy, &types, TierReport::without(&hook, &reason))
            }
            loaded => loaded,
        };
        drop(types);
        give_back_memory();
        sensor
    }

    fn load(config: &SensorConfig, policy: &Policy, types: &btf::Btf, tier: TierReport) -> Result<Self, SensorError> {
        let no_btf = |error| SensorError::NoBtf { path: config.btf.clone(), error };
        let abilities = Abilities { typed_loads: config.typed_loads, compat: takes_compat_calls() };
        let facts = relocate::Facts::resolve(types, &arch::MACHINE, abilities)?;
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
        let ring = relocate::ring_table(types);
        loader.override_global("RING", &ring, true);
        loader.map_max_entries("EVENTS", config.ring_bytes.max(4096).next_power_of_two());
        loader.override_global("PROCESSORS", &processors, true);
        for name in SCRATCH_MAPS {
            loader.map_max_entries(name, processors);
        }
        let slots = if tier.in_use == Tier::C { 1 } else { SLOTS };
        loader.override_global("SLOTS", &slots, true);
        for name in PREEMPTIBLE {
            loader.map_max_entries(name, processors.saturating_mul(slots));
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
        let mut stubs = None;
        if tier.in_use != Tier::C {
            let functions = stubs::functions(types, &arch::MACHINE, abilities.compat && config.compat_calls);
            let load = |function: &str| load_call_exit(&mut ebpf, function, &kernel_types);
            let refused = |reason| SensorError::Hook { hook: CALL_EXITS.to_owned(), reason };
            stubs = Some(Stubs::new(functions, hooks::sees_opens(types), load).map_err(refused)?);
        }

        // Hooks at single functions see 32-bit calls where they are asked for; those at single tracepoints never do.
        let see_compat = abilities.compat && config.compat_calls;
        let tracepoints = if stubs.is_some() || see_compat { None } else { single_exits(types) };
        let misses_compat = abilities.compat && !see_compat && (stubs.is_some() || tracepoints.is_some());
        if misses_compat {
            tracing::warn!("32-bit calls are not seen: sensor.compat32 is off");
        }
        let specs: Vec<_> = hooks::HOOKS.iter().filter(|spec| spec.is_in(tier.in_use, types)).collect();
        let mut hooks = Vec::with_capacity(specs.len() + 1);
        for spec in &specs {
            let (name, loaded) = match &tracepoints {
                Some(_) if spec.sees_all_calls() => (tracepoints::NAME, tracepoints::load(&mut ebpf)),
                _ => (spec.name, spec.load(&mut ebpf, types, &kernel_types)),
            };
            let state = match loaded {
                Ok(()) => HookState::NotNeeded,
                Err(reason) if spec.required => return Err(SensorError::Hook { hook: name.to_owned(), reason }),
                Err(reason) => HookState::Unavailable(reason),
            };
            hooks.push(Hook { name, state });
        }
        if stubs.is_some() {
            hooks.push(Hook { name: CALL_EXITS, state: HookState::NotNeeded });
        }
        let links = specs.iter().map(|_| None).collect();
        let mut sensor = Self {
            ebpf,
            specs,
            hooks,
            links,
            tracepoints,
            stubs,
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

    /// The hooks that a policy needs, under the names that [`Self::hooks`] gives them.
    pub fn needed(&self, policy: &Policy) -> Vec<&'static str> {
        let specs = self.specs.iter().zip(&self.hooks).filter(|(spec, _)| spec.is_needed(policy));
        let stubs = self.stubs.iter().filter(|stubs| stubs.are_needed(policy)).map(|_| CALL_EXITS);
        specs.map(|(_, hook)| hook.name).chain(stubs).collect()
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
        let Self { ebpf, specs, hooks, links, tracepoints, stubs, policy, ring, .. } = self;
        (Switchboard { ebpf, specs, hooks, links, tracepoints, stubs, policy }, ring)
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
        let mut misses = self.specs.iter().map(|spec| spec.recursion_misses(&self.ebpf)).sum::<u64>();
        if self.tracepoints.is_some() {
            misses += hooks::recursion_misses(&self.ebpf, tracepoints::PROGRAM);
        }
        misses + self.stubs.as_ref().map_or(0, Stubs::recursion_misses)
    }
}

impl Switchboard<'_> {
    fn set(&mut self, policy: &Policy) -> Result<u32, SensorError> {
        let generation = self.policy.set(policy)?;
        for (index, spec) in self.specs.iter().enumerate() {
            if let (true, Some(tracepoints)) = (spec.sees_all_calls(), self.tracepoints.as_mut()) {
                let attached = tracepoints
                    .switch(self.ebpf, &policy.events)
                    .map_err(|reason| SensorError::Hook { hook: tracepoints::NAME.to_owned(), reason })
                    .map(|()| tracepoints.is_attached())?;
                self.hooks[index].state = if attached { HookState::Attached } else { HookState::NotNeeded };
                continue;
            }
            let (hook, link) = (&mut self.hooks[index], &mut self.links[index]);
            let needed = spec.is_needed(policy);
            if matches!(hook.state, HookState::Unavailable(_)) || needed == link.is_some() {
                continue;
            }
            let refused = |reason| SensorError::Hook { hook: spec.name.to_owned(), reason };
            if needed {
                *link = Some(spec.attach(self.ebpf).map_err(refused)?);
                hook.state = HookState::Attached;
            } else if let Some(link) = link.take() {
                spec.detach(self.ebpf, link).map_err(refused)?;
                hook.state = HookState::NotNeeded;
            }
        }
        if let (Some(stubs), Some(hook)) = (self.stubs.as_mut(), self.hooks.last_mut()) {
            let attached = stubs.switch(policy).map_err(|(function, error)| SensorError::Hook {
                hook: format!("fexit/{function}"),
                reason: error.to_string(),
            })?;
            hook.state = if attached == 0 { HookState::NotNeeded } else { HookState::Attached };
        }
        Ok(generation)
    }
}

/// Hooks at single calls, if they can be had here.
fn single_exits(types: &btf::Btf) -> Option<Tracepoints> {
    Tracepoints::find(types).map_err(|reason| tracing::info!("tp_btf/sys_exit sees all calls: {reason}")).ok()
}

fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, SensorError> {
    ebpf.take_map(name).ok_or(SensorError::Mismatch(name))
}

/// The program that knows what to do at the exit of any call, for functions with the prototype of this one.
fn load_call_exit(ebpf: &mut Ebpf, function: &str, kernel_types: &aya::Btf) -> Result<OwnedFd, String> {
    let program: &mut FExit = program(ebpf, "call_exit")?;
    let loaded = program.load(function, kernel_types).map_err(|error| {
        tracing::debug!(hook = function, %error, "the verifier's log");
        tier::short(&error)
    });
    let fd = loaded.and_then(|()| {
        let fd = program.fd().map_err(|error| error.to_string())?;
        fd.as_fd().try_clone_to_owned().map_err(|error| error.to_string())
    });
    let _ = program.unload();
    fd
}

/// Has the kernel look at this very process, so that the programs can leave it out whatever pid namespace it is in.
fn identify_agent(ebpf: &mut Ebpf) -> Result<(), SensorError> {
    let refused = |reason| SensorError::Hook { hook: "raw_tp/identify_agent".to_owned(), reason };
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

/// Before 5.11 maps count against the locked memory limit; since then raising it may fail without harm. Each hook at a
/// single call takes descriptors: more than the 1,024 that a process is commonly given.
fn raise_limits() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let unlimited = Rlimit { current: None, maximum: None };
    if let Err(error) = setrlimit(Resource::Memlock, unlimited) {
        tracing::debug!(%error, "the locked memory limit stays as it is");
    }
    let files = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files }) {
        tracing::debug!(%error, "the limit of open files stays as it is");
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
