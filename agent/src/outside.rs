//! Everything the pipeline reads from outside the event stream, behind one trait: `/proc`, runtimes,
//! manifests, user databases, the clock. Nothing else in the pipeline touches the machine, so a recording
//! that keeps these answers can be replayed elsewhere, and a test can give its own.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use purser_rules::format::Clock;
use purser_rules::{Alert, Needs};

use crate::container::{Container, Lookup};
use crate::event::Task;
use crate::manifest::{ExecFile, Judgement};
use crate::process::{Process, User};

/// Answers that came since the last call.
#[derive(Debug, Default)]
pub struct Answers {
    /// Verdicts by the ticket they were asked for with.
    pub judgements: Vec<(u64, Judgement)>,
    /// Containers whose runtime has said more about them.
    pub containers: Vec<Arc<Container>>,
}

/// What the pipeline is told to do. In this order, and with the answers of [`Outside`], it does the same again.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    /// Take in what runs already.
    Scan,
    /// Take a record of the kernel.
    Record(&'a [u8]),
    /// Let go of what waited too long: it is this late.
    Tick(Instant),
    /// Local time is another one from now on.
    Clock(Clock),
    /// Deliver an alert of the agent itself.
    Raise(&'a Alert),
    /// Come to an end.
    Finish,
}

/// The world outside the event stream.
pub trait Outside {
    /// Pids of all processes.
    fn processes(&self) -> Vec<u32>;
    /// One process; `None` when gone.
    fn process(&self, tgid: u32) -> Option<Process>;
    /// What the cgroup with this id is; `tgid` is a process in it.
    fn identity(&mut self, cgroup_id: u64, tgid: u32) -> Lookup;
    /// A cgroup directory was made, by process `maker`.
    fn cgroup_made(&mut self, id: u64, path: &[u8], maker: u32);
    /// A cgroup directory was removed.
    fn cgroup_removed(&mut self, id: u64);
    /// Judges a program; `None`: the answer comes in [`Answers::judgements`] under `ticket`.
    fn judge(&mut self, ticket: u64, container: &Arc<Container>, file: ExecFile) -> Option<Judgement>;
    /// What has come in since the last call.
    fn answers(&mut self) -> Answers;
    /// An account, of the container's own database or the host's.
    fn user(&self, container: Option<&Container>, uid: u32) -> Option<User>;
    /// The name of a group, in the container's own database or the host's.
    fn group_name(&self, container: Option<&Container>, gid: u32) -> Option<Bytes>;
    /// What the rules will ask for from now on: whether the environment of processes is read, and which domain names are resolved.
    fn prepare(&mut self, needs: &Needs);
    /// Those of the domain names that rules mention that `address` belongs to, as far as known.
    fn domains(&self, address: IpAddr) -> &[Bytes];
    /// Realtime minus boot time, ns.
    fn epoch_offset_ns(&self) -> i64;
    /// How late it is, for what must not wait for ever.
    fn now(&self) -> Instant {
        Instant::now()
    }
    /// The pipeline is about to carry this out.
    fn input(&mut self, _input: Input<'_>) {}
    /// An event of `task` came, before any rule asks anything about it.
    fn seen(&mut self, _task: &Task, _container: Option<&Container>) {}
    /// Whether every program in a container is judged at its first event, not only one that starts or that a rule asks about.
    fn judges_all(&self) -> bool {
        false
    }
}
