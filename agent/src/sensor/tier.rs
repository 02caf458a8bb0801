//! Which kinds of hooks this kernel allows, found by asking it. Today every tier is served by tier C's
//! hooks; the probe says what a kernel offers beyond them.

use std::{fmt, fs, io, path::Path};

use aya::{
    Btf, Ebpf,
    programs::{FEntry, Lsm, Program, ProgramError},
};

/// A class of kernels, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// BPF LSM hooks work: facts before the fact, and blocking.
    A,
    /// No BPF LSM, but trampolines: `fentry` on the same functions.
    B,
    /// Tracepoints only.
    C,
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "A",
            Self::B => "B",
            Self::C => "C",
        })
    }
}

/// What the probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TierReport {
    /// What the kernel would allow.
    pub available: Tier,
    /// Whose hooks are in use.
    pub in_use: Tier,
    /// Why no better one.
    pub reason: String,
}

impl fmt::Display for TierReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tier {} ({})", self.in_use, self.reason)
    }
}

const LSM_LIST: &str = "/sys/kernel/security/lsm";

/// Asks the kernel.
pub(super) fn probe(ebpf: &mut Ebpf, btf: &Btf) -> TierReport {
    let lsm = lsm_allowed(ebpf, btf, Path::new(LSM_LIST));
    let fentry = match &lsm {
        Ok(()) => Ok(()),
        Err(_) => fentry_allowed(ebpf, btf),
    };
    report(lsm, fentry)
}

fn report(lsm: Result<(), String>, fentry: Result<(), String>) -> TierReport {
    let (available, reason) = match (lsm, fentry) {
        (Ok(()), _) => {
            (Tier::A, "BPF LSM and trampolines are there, but this version has hooks of tier C only".to_owned())
        }
        (Err(lsm), Ok(())) => {
            (Tier::B, format!("{lsm}; trampolines are there, but this version has hooks of tier C only"))
        }
        (Err(lsm), Err(fentry)) => (Tier::C, format!("{lsm}; {fentry}")),
    };
    TierReport { available, in_use: Tier::C, reason }
}

fn lsm_allowed(ebpf: &mut Ebpf, btf: &Btf, list: &Path) -> Result<(), String> {
    let active = fs::read_to_string(list).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!("no BPF LSM: {} is not there (securityfs)", list.display()),
        _ => format!("no BPF LSM: cannot read {}: {error}", list.display()),
    })?;
    if !active.trim().split(',').any(|name| name == "bpf") {
        return Err(format!("no BPF LSM: not in the active list ({})", active.trim()));
    }
    let program: &mut Lsm = find(ebpf, "probe_lsm")?;
    let result = program.load("file_open", btf);
    let _ = program.unload();
    result.map_err(|error| format!("no BPF LSM: the kernel refuses a program ({})", short(&error)))
}

fn fentry_allowed(ebpf: &mut Ebpf, btf: &Btf) -> Result<(), String> {
    let program: &mut FEntry = find(ebpf, "probe_fentry")?;
    let result = program.load("security_file_open", btf);
    let _ = program.unload();
    result.map_err(|error| format!("no trampolines: the kernel refuses an fentry program ({})", short(&error)))
}

fn find<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P, String>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    ebpf.program_mut(name)
        .ok_or_else(|| format!("the embedded object has no {name}"))?
        .try_into()
        .map_err(|error: ProgramError| error.to_string())
}

/// The system error without the verifier's log.
pub(super) fn short(error: &ProgramError) -> String {
    match error {
        ProgramError::LoadError { io_error, .. } => io_error.to_string(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_that_both_answers_allow_is_named_and_why() {
        let no = |text: &str| Err(text.to_owned());
        assert_eq!(report(Ok(()), Ok(())).available, Tier::A);
        assert_eq!(report(no("no lsm"), Ok(())).available, Tier::B);
        let last = report(no("no lsm"), no("no fentry"));
        assert_eq!((last.available, last.reason.as_str()), (Tier::C, "no lsm; no fentry"));
        assert_eq!(last.in_use, Tier::C);
    }
}
