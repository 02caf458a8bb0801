//! What the kernel half cannot see or cannot vouch for, and on which kernels: one table, from which `purser doctor` and
//! `docs/limits.md` are made.

use super::Tier;

/// Something that is not seen, or seen less well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// What.
    pub what: &'static str,
    /// What is lost by it: what an attacker could do, or a rule misses.
    pub lost: &'static str,
    when: When,
}

/// Where a limit holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Always,
    /// Where this tier's hooks are in use.
    Tier(Tier),
    /// Where hooks of tiers A and B are in use.
    Trampolines,
    /// Where one of these hooks is missing.
    Without(&'static [&'static str]),
    /// Where the kernel takes x32 calls.
    X32,
    /// Where the machine takes 32-bit calls that the programs cannot tell apart.
    ForeignCompat,
    /// Where hooks do not see 32-bit calls that the machine takes.
    CompatOff,
    /// Where no cgroup2 is mounted.
    NoCgroup2,
}

/// What is known of a machine; `None` is what could not be found out.
#[derive(Debug, Clone, Default)]
pub struct Circumstances {
    /// Whose hooks are in use.
    pub tier: Option<Tier>,
    /// The hooks that are not to be had.
    pub missing: Option<Vec<&'static str>>,
    /// Whether it takes x32 calls.
    pub x32: Option<bool>,
    /// Whether it takes 32-bit calls that the hooks do not see.
    pub misses_compat: Option<bool>,
    /// Whether cgroup2 is mounted.
    pub cgroup2: bool,
}

/// The table.
pub const LIMITS: &[Limit] = &[
    Limit {
        what: "a call whose hook a task of higher priority interrupts on its processor by the same call",
        lost: "the kernel runs no fexit program twice on a processor: the second call is not reported, and is counted as lost \
               (reason recursion)",
        when: When::Trampolines,
    },
    Limit {
        what: "blocking",
        lost: "an event is reported when it has happened; nothing is prevented",
        when: When::Always,
    },
    Limit {
        what: "texts of plain calls (rename, unlink, mkdir, chmod, mount ...) as the kernel resolved them",
        lost: "nothing of them is left in the kernel when the call ends: they are the caller's memory then \
               (evt.arg_source=user), which another thread may have changed",
        when: When::Always,
    },
    Limit {
        what: "names and addresses of calls that failed",
        lost: "there is no file and no peer to ask: they are the caller's memory (evt.arg_source=user)",
        when: When::Always,
    },
    Limit {
        what: "a file whose descriptor another thread replaces in the instant between the open and its exit",
        lost: "the resolved name is that of the other file; the name as asked for is reported, too, and rules are tried on both",
        when: When::Tier(Tier::C),
    },
    Limit {
        what: "the second and further messages of one sendmmsg or recvmmsg",
        lost: "their addresses and data are not told",
        when: When::Always,
    },
    Limit {
        what: "opens, connects and other calls that io_uring makes",
        lost: "a program that uses a ring for them is not seen to make them",
        when: When::Without(&["tp_btf/io_uring_submit_req", "tp_btf/io_uring_complete"]),
    },
    Limit {
        what: "connections and messages of a request of io_uring that goes on taking them (IORING_ACCEPT_MULTISHOT and its like)",
        lost: "the kernel tells of each but the last without the request that it belongs to",
        when: When::Always,
    },
    Limit {
        what: "files and sockets that a request of io_uring makes without telling its result (IOSQE_CQE_SKIP_SUCCESS)",
        lost: "that it was made is reported when it is asked for, as a success, without the file; if it fails, that is \
               reported as well",
        when: When::Always,
    },
    Limit {
        what: "calls by the x32 numbering, which this kernel takes",
        lost: "a program built for it makes every call but execs, forks and exits unseen; boot with syscall.x32=n or a kernel \
               without CONFIG_X86_X32_ABI",
        when: When::X32,
    },
    Limit {
        what: "32-bit calls of this processor",
        lost: "their numbers are taken for those of 64-bit calls",
        when: When::ForeignCompat,
    },
    Limit {
        what: "32-bit calls, as sensor.compat32 is off",
        lost: "a program that makes its calls by int 0x80 makes every one but execs, forks and exits unseen",
        when: When::CompatOff,
    },
    Limit {
        what: "cgroup ids, as no cgroup2 is mounted",
        lost: "containers are told apart by the names of their v1 cgroups, read when a process is first seen: one that ends \
               sooner counts as the host's",
        when: When::NoCgroup2,
    },
];

impl Limit {
    /// Whether it holds there; `None` where that could not be found out.
    pub fn holds(&self, at: &Circumstances) -> Option<bool> {
        match self.when {
            When::Always => Some(true),
            When::Tier(tier) => at.tier.map(|used| used == tier),
            When::Trampolines => at.tier.map(|used| used != Tier::C),
            When::Without(hooks) => at.missing.as_ref().map(|missing| hooks.iter().any(|hook| missing.contains(hook))),
            When::X32 => at.x32,
            When::ForeignCompat => Some(cfg!(all(target_pointer_width = "64", not(target_arch = "x86_64")))),
            When::CompatOff => at.misses_compat,
            When::NoCgroup2 => Some(!at.cgroup2),
        }
    }

    /// Where it holds, in words.
    pub fn place(&self) -> String {
        match self.when {
            When::Always => "everywhere".to_owned(),
            When::Tier(tier) => format!("tier {tier}"),
            When::Trampolines => "tiers A and B".to_owned(),
            When::Without(hooks) => format!("kernels without {}", hooks.join(" or ")),
            When::X32 => "kernels that take x32 calls".to_owned(),
            When::ForeignCompat => "64-bit processors other than x86-64".to_owned(),
            When::CompatOff => "x86-64 with sensor.compat32: off".to_owned(),
            When::NoCgroup2 => "machines without a cgroup2 mount".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holding(at: &Circumstances) -> Vec<&'static str> {
        LIMITS.iter().filter(|limit| limit.holds(at) == Some(true)).map(|limit| limit.what).collect()
    }

    #[test]
    fn limits_follow_from_what_is_known() {
        let good = Circumstances {
            tier: Some(Tier::A),
            missing: Some(vec![]),
            x32: Some(false),
            misses_compat: Some(false),
            cgroup2: true,
        };
        assert_eq!(holding(&good).len(), 7 + usize::from(!cfg!(target_arch = "x86_64")));
        let old = Circumstances {
            tier: Some(Tier::C),
            missing: Some(vec!["tp_btf/io_uring_submit_req"]),
            x32: Some(true),
            misses_compat: Some(true),
            cgroup2: false,
        };
        assert!(holding(&old).len() >= LIMITS.len() - 2, "{:?}", holding(&old));
        let unknown = LIMITS.iter().filter(|limit| limit.holds(&Circumstances::default()).is_none()).count();
        assert_eq!(unknown, 5, "what depends on hooks is not claimed without them");
    }
}
