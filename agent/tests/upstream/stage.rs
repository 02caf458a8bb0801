//! Where the triggers are pulled: an image in which one static program has many names, containers of it, and the
//! programs of the host, which are the same file in a directory of the test's own.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use xtask::rig::containerd::{Container, Containerd, RunOptions};
use xtask::rig::image::{Image, Layer, Written};
use xtask::rig::{command, payload, unique_name};

use super::table::{Place, Step};

/// The image of the plain and the privileged container.
pub(crate) const IMAGE: &str = "local.test/triggers:1";
/// Upstream trusts this one with sensitive mounts.
const TRUSTED: &str = "quay.io/sysdig/agent:1";
/// The address that the test gives to the name of the Kubernetes API.
pub(crate) const KUBERNETES: (&str, &str) = ("10.96.0.1", "kubernetes.default.svc.cluster.local");
/// Addresses that the plain container can reach: its own, on its loopback device.
const ADDRESSES: [&str; 5] = [KUBERNETES.0, "10.96.0.2", "192.0.2.1", "169.254.169.254", "169.254.169.253"];

/// Files that are there to be opened.
const FILES: [&str; 10] = [
    "/etc/hostname",
    "/etc/cron.d/known",
    "/host/etc/passwd",
    "/hosts/etc/passwd",
    "/root/.ssh/id_ed25519",
    "/srv/secret",
    "/usr/bin/known",
    "/usr/lib/liblzma.so.5.6.1",
    "/usr/lib/liblzma.so.5.6.2",
    "/var/lib/rpm/Packages",
];
/// Directories that are there to be written in.
const DIRECTORIES: [&str; 7] =
    ["/etc/apt/sources.list.d", "/home/alice/.ssh", "/mnt/etc", "/root/.cache", "/usr/share", "/var/log", "/tmp"];

/// What the kubelet's runtime writes into the bundle of a pod's container.
pub(crate) const POD: [&str; 8] = [
    "--annotation",
    "io.kubernetes.cri.container-type=container",
    "--annotation",
    "io.kubernetes.cri.container-name=shop",
    "--annotation",
    "io.kubernetes.cri.sandbox-name=shop-0",
    "--annotation",
    "io.kubernetes.cri.sandbox-namespace=payments",
];

/// Runs steps and remembers how their programs ended.
pub(crate) struct Stage<'a> {
    directory: &'a Path,
    rig: &'a Containerd,
    plain: Container<'a>,
    privileged: Container<'a>,
    /// Wait statuses by token.
    pub(crate) statuses: BTreeMap<String, i32>,
}

/// The image, imported under both names; what is written of [`IMAGE`].
pub(crate) fn import(rig: &Containerd, directory: &Path, programs: &BTreeSet<&str>) -> Written {
    let mut layer = Layer::new().dir("/bin", 0o755).file("/bin/payload", payload::program(), 0o755);
    for name in programs.iter().filter(|name| **name != "payload") {
        layer = layer.symlink(Path::new("/bin").join(name), "payload");
    }
    let mut made = BTreeSet::from(["/".to_owned(), "/bin".to_owned()]);
    let parents = FILES.iter().filter_map(|file| file.rsplit_once('/')).map(|(parent, _)| parent);
    for path in DIRECTORIES.iter().copied().chain(parents) {
        for (end, _) in path.char_indices().skip(1).filter(|(_, c)| *c == '/').chain([(path.len(), '/')]) {
            if made.insert(path[..end].to_owned()) {
                layer = layer.dir(&path[..end], if path == "/tmp" { 0o1777 } else { 0o755 });
            }
        }
    }
    for file in FILES {
        layer = layer.file(file, "x", 0o644);
    }
    layer = layer
        .file(
            "/etc/passwd",
            "root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/:/bin/sh\nnobody:x:65534:65534::/:\n",
            0o644,
        )
        .file("/etc/group", "root:x:0:\nalice:x:1000:\nnogroup:x:65534:\n", 0o644)
        .file("/etc/shadow", "root:*:20000:0:99999:7:::\n", 0o640);
    let written = [TRUSTED, IMAGE].map(|name| {
        let archive = directory.join("image.tar");
        let image = Image::new(name).layer(layer.clone()).entrypoint(&["/bin/payload", "sleep", "1000"]);
        let written = image.write_archive(&archive).expect("image written");
        rig.import(&archive).expect("imported");
        written
    });
    let [_, written] = written;
    written
}

impl<'a> Stage<'a> {
    /// Starts the containers and puts up what programs of the host and of the containers need.
    pub(crate) fn new(
        rig: &'a Containerd,
        directory: &'a Path,
        programs: &BTreeSet<&str>,
        starts: impl Fn(Step) -> String,
    ) -> Self {
        let host = directory.join("host");
        fs::create_dir(&host).expect("directory");
        fs::write(host.join("payload"), payload::program()).expect("payload");
        fs::set_permissions(host.join("payload"), fs::Permissions::from_mode(0o755)).expect("mode");
        for name in programs.iter().filter(|name| **name != "payload") {
            symlink("payload", host.join(name)).expect("link");
        }
        let shared = directory.join("etc");
        fs::create_dir(&shared).expect("directory");
        let mounts = vec![(shared, "/mnt/etc".to_owned(), false)];
        let start = |step: Step, image: &str, flags: &[&str]| {
            let trigger = format!("TRIGGER={}", starts(step));
            let flags = ["--env", &trigger].iter().chain(flags).map(|&flag| flag.to_owned()).collect();
            let options = RunOptions { flags, mounts: mounts.clone() };
            rig.start_container_with(image, &unique_name("trigger"), &[], &options).expect("container")
        };
        let plain = start(Step::PlainStarts, IMAGE, &POD);
        let privileged = start(Step::PrivilegedStarts, IMAGE, &["--privileged"]);
        drop(start(Step::TrustedStarts, TRUSTED, &[]));
        let stage = Self { directory, rig, plain, privileged, statuses: BTreeMap::new() };
        give_addresses(&stage.plain);
        stage
    }

    /// Does everything, in place after place, and waits for its end.
    pub(crate) fn run(&mut self, steps: &[(String, Step)]) {
        for place in [Place::Host, Place::Plain, Place::Privileged] {
            let mut batch = String::new();
            for (token, step) in steps {
                let (mark, program) = match step {
                    Step::Run(at, program) if *at == place => ("", program),
                    Step::Slow(at, program) if *at == place => ("&", program),
                    _ => continue,
                };
                let _ = writeln!(batch, "{mark}{token}\t{}", program.join("\t"));
            }
            let output = self.batch(place, &batch);
            for line in output.lines() {
                let mut words = line.split(' ');
                if let (Some("batch"), Some(token), Some(status)) = (words.next(), words.next(), words.next()) {
                    self.statuses.insert(token.to_owned(), status.parse().expect("status"));
                }
            }
        }
        for (token, step) in steps {
            let status = match step {
                Step::Exec(args) => self.exec(token, args, false),
                Step::ExecWithTerminal(args) => self.exec(token, args, true),
                _ => continue,
            };
            self.statuses.insert(token.clone(), status);
        }
    }

    fn batch(&self, place: Place, text: &str) -> String {
        let name = "batch";
        let path = self.directory.join(name);
        fs::write(&path, text).expect("batch");
        let container = match place {
            Place::Host => {
                let mut run = Command::new(self.directory.join("host/payload"));
                return command::stdout(run.arg("batch").arg(&path)).expect("batch of the host");
            }
            Place::Plain => &self.plain,
            Place::Privileged => &self.privileged,
        };
        // Read through the mount of the container.
        fs::rename(&path, self.directory.join("etc").join(name)).expect("batch");
        container.exec_ok(&["/bin/payload", "batch", "/mnt/etc/batch"]).expect("batch of a container")
    }

    /// The runtime starts a process; its token is its last argument, as `ctr` sets no environment.
    fn exec(&self, token: &str, args: &[&str], terminal: bool) -> i32 {
        let ctr = self.rig.ctr();
        let mut run = Command::new(self.directory.join("host/payload"));
        // `ctr` passes on the terminal that it has itself.
        run.args(if terminal { ["terminal"].as_slice() } else { &["in", "/"] });
        run.arg(path_of("ctr")).args(ctr.get_args()).args(["tasks", "exec", "--exec-id", &unique_name("exec")]);
        if terminal {
            run.arg("--tty");
        }
        run.arg(self.plain.id()).args(args).arg(format!("trigger={token}"));
        let output = command::output(&mut run).expect("ctr runs");
        output.status.code().unwrap_or(-1)
    }
}

/// Gives the container addresses to connect to, in its own network namespace.
pub(crate) fn give_addresses(container: &Container<'_>) {
    let pid = container.pid().expect("pid").to_string();
    for address in ADDRESSES {
        let mut ip = Command::new("nsenter");
        ip.args(["--target", &pid, "--net", "ip", "address", "add"]).arg(format!("{address}/32")).args(["dev", "lo"]);
        command::stdout(&mut ip).expect("address");
    }
}

fn path_of(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|path| path.exists())
        .expect("the program is installed")
}
