//! Which kinds of hooks this kernel allows, found by asking it, and so whose hooks are used.

use std::{fmt, fs, io, path::Path};

use aya::programs::ProgramError;

use super::{
    SensorError,
    bpf::{self, Place},
    btf::Btf,
    overlay::release,
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

/// The first release whose kernel the tests have run with hooks of tier B; an older one gets them only if it is told to.
const TRIED_FROM: (u32, u32) = (6, 18);

const LSM_LIST: &str = "/sys/kernel/security/lsm";

/// Asks the kernel. With `wanted` that tier is used, or it is an error.
pub(super) fn probe(types: &Btf, wanted: Option<Tier>) -> Result<TierReport, SensorError> {
    report(lsm_allowed(types, Path::new(LSM_LIST)), trampolines_allowed(types), wanted, release() >= TRIED_FROM)
}

fn report(
    lsm: Result<(), String>,
    fentry: Result<(), String>,
    wanted: Option<Tier>,
    tried: bool,
) -> Result<TierReport, SensorError> {
    let (available, reason) = match (lsm, fentry) {
        (Ok(()), Ok(())) => {
            (Tier::A, "BPF LSM and trampolines are there, but this version has no hooks of tier A".to_owned())
        }
        (Err(lsm), Ok(())) => (Tier::B, format!("trampolines are there; {lsm}")),
        (Ok(()), Err(fentry)) => (Tier::C, fentry),
        (Err(lsm), Err(fentry)) => (Tier::C, format!("{lsm}; {fentry}")),
    };
    let best = available.max(Tier::B);
    match wanted {
        None if best == Tier::B && !tried => {
            let (major, minor) = TRIED_FROM;
            let reason = format!(
                "{reason}; those of tier B were tried from Linux {major}.{minor} on: `sensor.tier: b` asks for them"
            );
            Ok(TierReport { available, in_use: Tier::C, reason })
        }
        None => Ok(TierReport { available, in_use: best, reason }),
        Some(tier) if tier < best => Err(SensorError::Tier { tier, reason }),
        Some(in_use) => Ok(TierReport { available, in_use, reason }),
    }
}

impl TierReport {
    /// What is used where the kernel refuses this very hook of the better tiers although it allows such hooks.
    pub(super) fn without(hook: &str, reason: &str) -> Self {
        let reason = format!("the kernel refuses {hook}: {reason}");
        Self { available: Tier::C, in_use: Tier::C, reason }
    }
}

fn lsm_allowed(types: &Btf, list: &Path) -> Result<(), String> {
    let active = fs::read_to_string(list).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!("no BPF LSM: {} is not there (securityfs)", list.display()),
        _ => format!("no BPF LSM: cannot read {}: {error}", list.display()),
    })?;
    if !active.trim().split(',').any(|name| name == "bpf") {
        return Err(format!("no BPF LSM: not in the active list ({})", active.trim()));
    }
    probe_program(types, "bpf_lsm_file_open", Place::Lsm)
        .map_err(|error| format!("no BPF LSM: the kernel refuses a program ({error})"))
}

fn trampolines_allowed(types: &Btf) -> Result<(), String> {
    probe_program(types, "security_file_open", Place::Exit)
        .map_err(|error| format!("no trampolines: the kernel refuses an fexit program ({error})"))
}

/// Loads a program that does nothing, and drops it.
fn probe_program(types: &Btf, function: &str, place: Place) -> io::Result<()> {
    let function =
        types.function(function).ok_or_else(|| io::Error::other(format!("it has no function {function}")))?;
    bpf::load("probe", place, &bpf::NOTHING, function).map(drop)
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
    fn the_best_that_both_answers_allow_is_used_and_why() {
        let no = |text: &str| Err(text.to_owned());
        let used =
            |lsm, fentry, wanted| report(lsm, fentry, wanted, true).map(|report| (report.available, report.in_use));
        assert_eq!(used(Ok(()), Ok(()), None).ok(), Some((Tier::A, Tier::B)));
        assert_eq!(used(no("no lsm"), Ok(()), None).ok(), Some((Tier::B, Tier::B)));
        assert_eq!(used(Ok(()), no("no fentry"), None).ok(), Some((Tier::C, Tier::C)));
        assert_eq!(
            report(no("no lsm"), no("no fentry"), None, true).map(|report| report.reason).ok(),
            Some("no lsm; no fentry".to_owned())
        );
        assert_eq!(used(Ok(()), Ok(()), Some(Tier::C)).ok(), Some((Tier::A, Tier::C)), "a lesser one may be asked for");
        let refused = report(no("no lsm"), Ok(()), Some(Tier::A), true).expect_err("not to be had").to_string();
        assert_eq!(refused, "sensor.tier: A is not to be had here (trampolines are there; no lsm); set it to auto");
    }
    #[test]
    fn a_kernel_that_was_not_tried_gets_tier_b_only_if_it_is_told_to() {
        let used = |wanted| report(Ok(()), Ok(()), wanted, false).map(|report| report.in_use).ok();
        assert_eq!((used(None), used(Some(Tier::B))), (Some(Tier::C), Some(Tier::B)));
        let report = report(Ok(()), Ok(()), None, false).expect("tier C");
        assert!(
            report.reason.ends_with("those of tier B were tried from Linux 6.18 on: `sensor.tier: b` asks for them")
        );
    }
}
