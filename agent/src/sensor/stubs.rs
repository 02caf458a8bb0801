//! Hooks of tiers A and B at the exits of system calls. One program knows what to do at any call's exit; at each call
//! that a policy wants a stub of six instructions goes on with it, so that other calls meet nothing at all.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use agent_common::{EventGroup, EventType};

use super::{
    Policy,
    arch::Machine,
    bpf::{self, Instruction, Place},
    btf::Btf,
};

/// A kernel function that carries out a system call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Function {
    name: String,
    /// Its BTF id.
    id: u32,
    /// The BTF id of its prototype: programs of different ones must not tail-call each other (`bpf_prog_map_compatible`).
    prototype: u32,
    /// The events that its calls are.
    events: Vec<EventType>,
}

impl Function {
    /// Whether a policy wants to hear of its exits; with `opened` elsewhere of opens that succeed.
    fn is_needed(&self, policy: &Policy, opened: bool) -> bool {
        self.events.iter().any(|event| {
            let failed = opened && event.group() == EventGroup::Open;
            policy.events.contains(*event) && (!failed || policy.failed.contains(*event))
        })
    }
}

/// The functions of every call of the table that this kernel has; those of 32-bit calls where it takes them.
pub(super) fn functions(btf: &Btf, machine: &Machine, compat: bool) -> Vec<Function> {
    let mut found: BTreeMap<String, Vec<EventType>> = BTreeMap::new();
    let mut add = |name: String, event| found.entry(name).or_default().push(event);
    let compat_function = |name: &str| {
        let mut names = machine.compat_functions.iter().map(|prefix| format!("{prefix}{name}"));
        names.find(|name| btf.function(name).is_some())
    };
    for event in EventType::ALL.iter().copied() {
        if !matches!(event.group(), EventGroup::Open | EventGroup::Connect | EventGroup::Call) {
            continue;
        }
        let own = [event.name()];
        let renamed = RENAMED.iter().find(|renamed| renamed.0 == event);
        let (native, compatible) = renamed.map_or((&own[..], &own[..]), |renamed| (renamed.1, renamed.2));
        for name in native {
            add(format!("{}{name}", machine.native_functions), event);
        }
        for name in compatible.iter().filter_map(|name| compat_function(name)).filter(|_| compat) {
            add(name, event);
        }
    }
    if let Some(name) = compat_function("socketcall").filter(|_| compat) {
        for event in EventType::socketcalls().into_iter().filter_map(|packed| EventType::from_code(packed & 0xff)) {
            add(name.clone(), event);
        }
    }
    let function = |(name, events): (String, _)| {
        let (id, prototype) = btf.function_with_prototype(&name)?;
        Some(Function { name, id, prototype, events })
    };
    found.into_iter().filter_map(function).collect()
}

/// Calls whose functions are not called like them: natively, and as 32-bit calls (`arch/x86/entry/syscalls/`).
const RENAMED: &[(EventType, &[&str], &[&str])] = &[
    (EventType::Umount2, &["umount"], &["umount"]),
    (EventType::Umount, &[], &["oldumount"]),
    (EventType::Mmap, &["mmap"], &["mmap_pgoff"]),
    (EventType::Chown, &["chown"], &["chown", "chown16"]),
    (EventType::Lchown, &["lchown"], &["lchown", "lchown16"]),
    (EventType::Fchown, &["fchown"], &["fchown", "fchown16"]),
    (EventType::Setuid, &["setuid"], &["setuid", "setuid16"]),
    (EventType::Setgid, &["setgid"], &["setgid", "setgid16"]),
    (EventType::Setreuid, &["setreuid"], &["setreuid", "setreuid16"]),
    (EventType::Setregid, &["setregid"], &["setregid", "setregid16"]),
    (EventType::Setresuid, &["setresuid"], &["setresuid", "setresuid16"]),
    (EventType::Setresgid, &["setresgid"], &["setresgid", "setresgid16"]),
    (EventType::Truncate, &["truncate"], &["truncate", "ia32_truncate64"]),
    (EventType::Ftruncate, &["ftruncate"], &["ftruncate", "ia32_ftruncate64"]),
    (EventType::Recvmmsg, &["recvmmsg"], &["recvmmsg_time32", "recvmmsg_time64"]),
];

/// The stubs that are in place.
pub(super) struct Stubs {
    functions: Vec<Function>,
    /// By the functions' prototypes.
    programs: BTreeMap<u32, OwnedFd>,
    attached: Vec<Option<Stub>>,
    /// Opens that succeed are seen where their descriptor gets its file.
    opened: bool,
    leaving: Leaving,
}

struct Stub {
    program: OwnedFd,
    link: OwnedFd,
}

impl Stub {
    fn attach(function: &Function, programs: &BTreeMap<u32, OwnedFd>) -> io::Result<Self> {
        let array = programs.get(&function.prototype).ok_or(io::ErrorKind::NotFound)?;
        let name = function.name.rsplit("sys_").next().unwrap_or_default();
        let program = bpf::load(name, Place::Exit, &tail_call(array.as_fd()), function.id)?;
        let link = bpf::attach(program.as_fd())?;
        Ok(Self { program, link })
    }

    fn recursion_misses(&self) -> u64 {
        bpf::recursion_misses(self.program.as_fd()).unwrap_or(0)
    }
}

impl Stubs {
    /// `load` loads the program that knows calls for a function, and gives it. Once for each prototype.
    pub(super) fn new(
        functions: Vec<Function>,
        opened: bool,
        mut load: impl FnMut(&str) -> Result<OwnedFd, String>,
    ) -> Result<Self, String> {
        let mut programs = BTreeMap::new();
        for function in &functions {
            if let Entry::Vacant(place) = programs.entry(function.prototype) {
                let program = load(&function.name)?;
                place.insert(bpf::program_array(program.as_fd()).map_err(|error| error.to_string())?);
            }
        }
        let attached = functions.iter().map(|_| None).collect();
        Ok(Self { functions, programs, attached, opened, leaving: Leaving::default() })
    }

    /// Whether a policy needs any of them.
    pub(super) fn are_needed(&self, policy: &Policy) -> bool {
        self.functions.iter().any(|function| function.is_needed(policy, self.opened))
    }

    /// Attaches those that a policy needs, detaches the others, and says how many are attached. On failure, at which.
    pub(super) fn switch(&mut self, policy: &Policy) -> Result<usize, (String, io::Error)> {
        for (index, (function, attached)) in self.functions.iter().zip(&mut self.attached).enumerate() {
            if !function.is_needed(policy, self.opened) {
                if let Some(stub) = attached.take() {
                    self.leaving.add(index, stub);
                }
            } else if attached.is_none() {
                let stub = match self.leaving.take_back(index) {
                    Some(stub) => Ok(stub),
                    None => Stub::attach(function, &self.programs),
                };
                *attached = Some(stub.map_err(|error| (function.name.clone(), error))?);
            }
        }
        Ok(self.attached.iter().flatten().count())
    }

    /// How often the kernel skipped a stub because it already ran on that processor.
    pub(super) fn recursion_misses(&self) -> u64 {
        let attached = self.attached.iter().flatten().map(Stub::recursion_misses).sum::<u64>();
        let leaving = self.leaving.lock().iter().map(|(_, stub)| stub.recursion_misses()).sum::<u64>();
        attached + leaving + self.leaving.recursion_misses.load(Ordering::Relaxed)
    }
}

/// Stubs that are no longer needed. They are detached on a thread of its own: for each the kernel waits until no task can be
/// in it any more (`synchronize_rcu_tasks`), a fifth of a second. The policy has made them silent before.
#[derive(Default)]
struct Leaving {
    stubs: Arc<Mutex<Vec<(usize, Stub)>>>,
    thread: Option<JoinHandle<()>>,
    /// Of those that are gone.
    recursion_misses: Arc<AtomicU64>,
}

impl Leaving {
    /// Time in which a stub may be needed again.
    const LINGER: Duration = Duration::from_secs(1);

    fn add(&mut self, index: usize, stub: Stub) {
        self.lock().push((index, stub));
        if self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
            let (stubs, misses) = (Arc::clone(&self.stubs), Arc::clone(&self.recursion_misses));
            let detach = move || {
                thread::sleep(Self::LINGER);
                while let Some((_, stub)) = { locked(&stubs).pop() } {
                    misses.fetch_add(stub.recursion_misses(), Ordering::Relaxed);
                }
            };
            // Without a thread they stay, silent, until the next try.
            self.thread = thread::Builder::new().name("detach".to_owned()).spawn(detach).ok();
        }
    }

    fn take_back(&self, index: usize) -> Option<Stub> {
        let mut stubs = self.lock();
        let at = stubs.iter().position(|stub| stub.0 == index)?;
        Some(stubs.swap_remove(at).1)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(usize, Stub)>> {
        locked(&self.stubs)
    }
}

fn locked(stubs: &Mutex<Vec<(usize, Stub)>>) -> MutexGuard<'_, Vec<(usize, Stub)>> {
    stubs.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Stubs {
    fn drop(&mut self) {
        let leaving: Vec<_> = self.leaving.lock().drain(..).map(|leaving| leaving.1).collect();
        for stub in self.attached.drain(..).flatten().chain(leaving) {
            bpf::close_later(stub.link);
        }
    }
}

/// `bpf_tail_call(ctx, array, 0)`, and 0 where there is nothing to call. The context is in r1 already.
fn tail_call(array: BorrowedFd<'_>) -> [Instruction; 6] {
    const LOAD_64: u8 = 0x18;
    const PSEUDO_MAP_FD: u8 = 1;
    const MOV64_IMM: u8 = 0xb7;
    const CALL: u8 = 0x85;
    const EXIT: u8 = 0x95;
    const TAIL_CALL: i32 = 12;
    let instruction = |code, registers, immediate| Instruction { code, registers, offset: 0, immediate };
    [
        instruction(LOAD_64, PSEUDO_MAP_FD << 4 | 2, array.as_raw_fd()),
        instruction(0, 0, 0),
        instruction(MOV64_IMM, 3, 0),
        instruction(CALL, 0, TAIL_CALL),
        instruction(MOV64_IMM, 0, 0),
        instruction(EXIT, 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(events: &[EventType]) -> Function {
        Function { name: "__x64_sys_x".to_owned(), id: 1, prototype: 2, events: events.to_vec() }
    }

    #[test]
    fn only_what_a_policy_wants_is_needed() {
        let set = |events: &[EventType]| events.iter().copied().collect();
        let opens = Policy { events: set(&[EventType::Openat]), open_read: true, ..Policy::default() };
        assert!(!function(&[EventType::Openat]).is_needed(&opens, true), "the descriptor tells");
        assert!(function(&[EventType::Openat]).is_needed(&opens, false));
        let failed = Policy { failed: set(&[EventType::Openat]), ..opens };
        assert!(function(&[EventType::Openat]).is_needed(&failed, true));
        let binds = Policy { events: set(&[EventType::Bind]), ..Policy::default() };
        assert!(function(&[EventType::Connect, EventType::Bind]).is_needed(&binds, true));
        assert!(!function(&[EventType::Connect]).is_needed(&binds, true));
    }
}
