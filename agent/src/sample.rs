//! Events and a world that tests make up.

pub(crate) mod records;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use purser_rules::Needs;

use crate::container::{Container, Lookup, Rootfs, Runtime};
use crate::event::{Body, Capabilities, Event, EventType, Exec, FileIdentity, Fork, Header, Open, Task};
use crate::manifest::{ExecFile, Judgement};
use crate::outside::{Answers, Outside};
use crate::process::{Process, User};

const TICK: u64 = 10_000_000;

/// Answers what it was told.
#[derive(Debug, Default)]
pub(crate) struct Fake {
    /// By pid.
    pub(crate) known: Vec<Process>,
    /// By cgroup id.
    pub(crate) containers: Vec<Arc<Container>>,
    /// Cgroups that were gone before they were looked at.
    pub(crate) gone: Vec<u64>,
    /// Given at the next call of `answers`.
    pub(crate) answers: Answers,
    /// Given at once by `judge`.
    pub(crate) judgement: Option<Judgement>,
    /// By uid, and as groups of the same name by gid.
    pub(crate) users: HashMap<u32, User>,
    /// By address.
    pub(crate) domains: HashMap<IpAddr, Vec<Bytes>>,
    /// How late it is; without it as late as it is.
    pub(crate) now: Option<Instant>,
    /// What was asked for.
    pub(crate) asked: Vec<(u64, ExecFile)>,
}

impl Outside for Fake {
    fn processes(&self) -> Vec<u32> {
        self.known.iter().map(|p| p.key.tgid).collect()
    }
    fn process(&self, tgid: u32) -> Option<Process> {
        self.known.iter().find(|p| p.key.tgid == tgid).cloned()
    }
    fn identity(&mut self, cgroup_id: u64, _tgid: u32) -> Lookup {
        if self.gone.contains(&cgroup_id) {
            return Lookup::Unknown;
        }
        let found = self.containers.iter().find(|c| c.cgroup_id == cgroup_id);
        found.map_or(Lookup::Host, |c| Lookup::Container(Arc::clone(c)))
    }
    fn cgroup_made(&mut self, _id: u64, _path: &[u8], _maker: u32) {}
    fn cgroup_removed(&mut self, _id: u64) {}
    fn judge(&mut self, ticket: u64, _container: &Arc<Container>, file: ExecFile) -> Option<Judgement> {
        self.asked.push((ticket, file));
        self.judgement.clone()
    }
    fn answers(&mut self) -> Answers {
        std::mem::take(&mut self.answers)
    }
    fn user(&self, _container: Option<&Container>, uid: u32) -> Option<User> {
        self.users.get(&uid).cloned()
    }
    fn group_name(&self, _container: Option<&Container>, gid: u32) -> Option<Bytes> {
        Some(self.users.get(&gid)?.name.clone())
    }
    fn prepare(&mut self, _needs: &Needs) {}
    fn domains(&self, address: IpAddr) -> &[Bytes] {
        self.domains.get(&address).map_or(&[], Vec::as_slice)
    }
    fn epoch_offset_ns(&self) -> i64 {
        1_700_000_000_000_000_000
    }
    fn now(&self) -> Instant {
        self.now.unwrap_or_else(Instant::now)
    }
}

/// A process of cgroup 5.
pub(crate) fn task(tgid: u32, start_ticks: u64, parent: (u32, u64), comm: &str) -> Task {
    let mut name = [0; 16];
    name[..comm.len()].copy_from_slice(comm.as_bytes());
    Task {
        tgid,
        tid: tgid,
        start_boottime_ns: start_ticks * TICK + 7,
        parent_tgid: parent.0,
        parent_start_boottime_ns: parent.1 * TICK + 3,
        sid: 1,
        pgid: tgid,
        vtgid: tgid,
        vtid: tgid,
        vpgid: tgid,
        tty: 0,
        loginuid: u32::MAX,
        uid: 0,
        euid: 0,
        gid: 0,
        egid: 0,
        capabilities: Capabilities::default(),
        cgroup_id: 5,
        mnt_ns: 9,
        pid_ns: 8,
        comm: name,
    }
}

/// An event of the type that its body has most often.
pub(crate) fn event(boot_ns: u64, task: Task, body: Body) -> Event {
    let event = match &body {
        Body::Exec(_) => EventType::Execve,
        Body::Fork(_) => EventType::Clone,
        Body::Open(_) => EventType::Openat,
        Body::Connect(_) => EventType::Connect,
        Body::Exit(_) => EventType::Procexit,
        Body::Cgroup(_) => EventType::CgroupMkdir,
        Body::Rename => EventType::TaskRename,
        Body::Call(_) => EventType::Unlinkat,
    };
    Event { header: Header { event, cpu: 0, sequence: 0, boot_ns, generation: 0, hash: 0, of_host: false }, task, body }
}

/// A program.
pub(crate) fn exec(path: &'static str) -> Body {
    Body::Exec(Box::new(Exec {
        file: FileIdentity::default(),
        path: path.into(),
        fs_path: "".into(),
        filename: path.into(),
        interp: "".into(),
        argv: path.into(),
        argv_truncated: false,
        envp: "".into(),
        envp_truncated: false,
        cwd: "/".into(),
    }))
}

/// A child that is a process.
pub(crate) fn fork(child: u32, start_ticks: u64) -> Body {
    Body::Fork(Fork {
        child_tid: child,
        child_tgid: child,
        child_vtid: child,
        child_start_boottime_ns: start_ticks * TICK + 1,
        child_cgroup_id: 5,
    })
}

/// A successful open for reading.
pub(crate) fn open(path: &'static str, name: &'static str, dir: &'static str, fs_path: &'static str) -> Body {
    Body::Open(Box::new(Open {
        result: 3,
        flags: 0,
        mode: 0,
        created: false,
        dirfd: -100,
        file: Some(FileIdentity::default()),
        path: path.into(),
        fs_path: fs_path.into(),
        name: name.into(),
        dir: dir.into(),
        io_uring: false,
    }))
}

/// A container of cgroup 5.
pub(crate) fn container(image_pending: bool) -> Container {
    Container {
        id: "0123456789abcdef".to_owned(),
        cgroup_id: 5,
        cgroup_path: "/default/0123456789abcdef".to_owned(),
        runtime: Runtime::Containerd,
        name: "sample".to_owned(),
        bundle: None,
        init_pid: 0,
        shares: None,
        created_ns: 0,
        privileged: false,
        args: Vec::new(),
        mounts: Vec::new(),
        pod: None,
        sandbox: false,
        rootfs: Rootfs::default(),
        image: None,
        image_pending,
        labels: Vec::new(),
    }
}
