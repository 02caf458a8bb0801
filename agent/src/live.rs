//! The machine as the pipeline's [`Outside`]: procfs, the container runtimes, the verdict service, user databases.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use bytes::Bytes;
use purser_rules::Needs;

use crate::container::{Container, Containers, Lookup};
use crate::domains::Domains;
use crate::manifest::{ExecFile, Judgement, VerdictService};
use crate::metrics::{Family, Metrics, QUEUE_LENGTH, counter, gauge};
use crate::outside::{Answers, Outside};
use crate::process::{Process, Procfs, User, Users};
use rustix::time::{ClockId, clock_gettime};

/// Cgroups looked up and runtimes asked.
const CONTAINERS: Family =
    counter("purser_container_lookups", "Cgroups identified and runtimes asked, by result", &["result"]);
/// What the verdict service did.
const MANIFESTS: Family =
    counter("purser_manifest_operations", "Manifests built or read, files hashed, by result", &["result"]);
/// Programs whose bytes could not be had. No event is lost by it: the verdict says so.
const UNVERIFIABLE: Family =
    counter("purser_unverifiable", "Programs that could not be hashed, by reason", &["reason"]);
/// Lookups of the domain names that rules mention.
const DOMAIN_LOOKUPS: Family =
    counter("purser_domain_lookups", "Lookups of domain names that rules mention, by result", &["result"]);
/// Those names.
const DOMAINS: Family =
    gauge("purser_domains", "Domain names that rules mention, by what is known of them", &["state"]);
/// How often the distance between the two clocks is measured anew (it moves when the wall clock is set).
const CLOCK_INTERVAL: Duration = Duration::from_secs(1);

/// This machine.
pub struct Live {
    procfs: Procfs,
    containers: Containers,
    verdicts: VerdictService,
    judgements: Receiver<(u64, Judgement)>,
    users: Users,
    domains: Domains,
    epoch_offset_ns: i64,
    measured: Instant,
}

impl Live {
    /// Puts the parts together; `verdicts` as `VerdictService::start` gives it.
    pub fn new(
        procfs: Procfs,
        containers: Containers,
        (verdicts, judgements): (VerdictService, Receiver<(u64, Judgement)>),
    ) -> Self {
        Self {
            procfs,
            containers,
            verdicts,
            judgements,
            users: Users::default(),
            domains: Domains::default(),
            epoch_offset_ns: epoch_offset_ns(),
            measured: Instant::now(),
        }
    }
}

impl Live {
    /// Becomes readable when a runtime has answered.
    pub fn wake_fd(&self) -> io::Result<OwnedFd> {
        self.containers.wake_fd().try_clone_to_owned()
    }

    /// Cgroups that are the host's for good, each once.
    pub fn take_settled_hosts(&mut self) -> Vec<u64> {
        self.containers.take_settled_hosts()
    }

    /// Brings the counts of runtimes and manifests into the metrics.
    pub fn publish(&self, metrics: &Metrics) {
        for (result, count) in self.containers.counters().iter() {
            metrics.counter(CONTAINERS, &[result]).raise_to(count);
        }
        metrics.gauge(QUEUE_LENGTH, &["runtime_questions"], self.containers.pending() as u64);
        for (result, count) in self.verdicts.counters().counts() {
            metrics.counter(MANIFESTS, &[result.as_str()]).raise_to(count);
        }
        for (reason, count) in self.verdicts.counters().losses() {
            metrics.counter(UNVERIFIABLE, &[reason.as_str()]).raise_to(count);
        }
        metrics.gauge(QUEUE_LENGTH, &["verdicts"], self.verdicts.pending() as u64);
        let domains = self.domains.counts();
        for (result, count) in [("resolved", domains.resolved), ("failed", domains.failed)] {
            metrics.counter(DOMAIN_LOOKUPS, &[result]).raise_to(count);
        }
        let states = [("known", domains.known), ("unknown", domains.unknown), ("ignored", domains.ignored)];
        for (state, count) in states {
            metrics.gauge(DOMAINS, &[state], count);
        }
    }
}

impl Outside for Live {
    fn processes(&self) -> Vec<u32> {
        self.procfs.processes()
    }

    fn process(&self, tgid: u32) -> Option<Process> {
        self.procfs.process(tgid)
    }

    fn identity(&mut self, cgroup_id: u64, tgid: u32) -> Lookup {
        self.containers.lookup(cgroup_id, tgid)
    }

    fn cgroup_made(&mut self, id: u64, path: &[u8], maker: u32) {
        self.containers.on_cgroup_mkdir(id, path, maker);
    }

    fn cgroup_removed(&mut self, id: u64) {
        self.containers.on_cgroup_rmdir(id);
    }

    fn judge(&mut self, ticket: u64, container: &Arc<Container>, file: ExecFile) -> Option<Judgement> {
        self.verdicts.request(ticket, container, file)
    }

    fn answers(&mut self) -> Answers {
        if self.measured.elapsed() >= CLOCK_INTERVAL {
            self.epoch_offset_ns = epoch_offset_ns();
            self.measured = Instant::now();
        }
        self.domains.refresh();
        let containers = self.containers.poll_updates();
        for container in &containers {
            // The manifest is built when the image is known, not when its first program asks.
            self.verdicts.prepare(container);
            self.verdicts.container_updated(container);
        }
        Answers { judgements: self.judgements.try_iter().collect(), containers }
    }

    fn user(&self, container: Option<&Container>, uid: u32) -> Option<User> {
        self.users.user(&root_of(container)?, uid)
    }

    fn group_name(&self, container: Option<&Container>, gid: u32) -> Option<Bytes> {
        self.users.group(&root_of(container)?, gid)
    }

    fn prepare(&mut self, needs: &Needs) {
        self.procfs.read_environment(needs.environment());
        self.domains.watch(&needs.domains);
    }

    fn domains(&self, address: IpAddr) -> &[Bytes] {
        self.domains.of(address)
    }

    fn epoch_offset_ns(&self) -> i64 {
        self.epoch_offset_ns
    }
}

/// Where a container's files are seen, or the host's; `None` while a container's first process is not known.
fn root_of(container: Option<&Container>) -> Option<PathBuf> {
    match container {
        None => Some(PathBuf::from("/")),
        Some(container) if container.init_pid != 0 => Some(PathBuf::from(format!("/proc/{}/root", container.init_pid))),
        Some(_) => None,
    }
}

/// `CLOCK_BOOTTIME` now, ns.
pub fn boot_ns() -> u64 {
    ns(clock_gettime(ClockId::Boottime)) as u64
}

/// The time now, ns since the epoch.
pub fn epoch_ns() -> u64 {
    ns(clock_gettime(ClockId::Realtime)) as u64
}

fn epoch_offset_ns() -> i64 {
    ns(clock_gettime(ClockId::Realtime)) - boot_ns() as i64
}

fn ns(time: rustix::time::Timespec) -> i64 {
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec)
}
