//! A containerd of one's own, driven by `ctr`. Needs root, and the packages containerd and runc.
//!
//! Its namespace is unique on the machine, since the namespace is the container's parent cgroup and two rigs must not
//! share one.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use super::{command, teardown};

/// How a containerd is to be set up.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The namespace of images and containers; a unique one where `None`.
    pub namespace: Option<String>,
    /// Serve the CRI as well.
    pub cri: bool,
}

/// A running containerd; dropping it ends its containers and itself and removes all that it wrote.
#[derive(Debug)]
pub struct Containerd {
    directory: TempDir,
    namespace: String,
    daemon: Child,
}

/// What to run, beyond image, id and arguments.
#[derive(Debug, Clone, Default)]
pub struct RunOptions {
    /// Further flags for `ctr run`, e.g. `--env`, `A=B`, `--read-only`.
    pub flags: Vec<String>,
    /// Bind mounts: host path, path in the container, writable.
    pub mounts: Vec<(PathBuf, String, bool)>,
}

impl Containerd {
    /// Starts a containerd in a namespace of its own and waits until it answers.
    ///
    /// # Errors
    /// Not root, containerd is not installed, or it does not come up within 30 s.
    pub fn start() -> Result<Self> {
        Self::start_with(&Options::default())
    }

    /// As `start`, with `options`.
    ///
    /// # Errors
    /// As `start`.
    pub fn start_with(options: &Options) -> Result<Self> {
        let directory = super::temp_dir("ctrd")?;
        let root = directory.path();
        let config = root.join("config.toml");
        fs::write(&config, configuration(root, options)).context("cannot write containerd's configuration")?;
        let log = fs::File::create(root.join("log")).context("cannot write containerd's log")?;
        let daemon = Command::new("containerd")
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("cannot start containerd: install the packages containerd and runc")?;
        let namespace = options.namespace.clone().unwrap_or_else(|| super::unique_name("purser-rig"));
        let mut rig = Self { directory, namespace, daemon };
        rig.wait_until_ready(Duration::from_secs(30))?;
        Ok(rig)
    }

    fn wait_until_ready(&mut self, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.daemon.try_wait()? {
                bail!("containerd ended with {status}:\n{}", self.log_tail());
            }
            // The socket is there before the services are, and `ctr` waits long for a socket that is not.
            let answers = UnixStream::connect(self.address()).is_ok()
                && command::output(self.ctr().args(["namespaces", "list"]))?.status.success();
            if answers {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("containerd did not answer within {} s:\n{}", patience.as_secs(), self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        let mut lines: Vec<&str> = log.lines().rev().take(8).collect();
        lines.reverse();
        lines.join("\n")
    }

    /// Its gRPC socket.
    pub fn address(&self) -> PathBuf {
        self.directory.path().join("containerd.sock")
    }

    /// Where it keeps content, snapshots and metadata (`root` of its configuration).
    pub fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    /// Where it keeps bundles (`state` of its configuration).
    pub fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// The namespace of its images and containers, which is its containers' parent cgroup, too.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The daemon's pid.
    pub fn pid(&self) -> u32 {
        self.daemon.id()
    }

    /// A `ctr` that talks to it, in its namespace.
    pub fn ctr(&self) -> Command {
        let mut ctr = Command::new("ctr");
        ctr.arg("--address").arg(self.address()).args(["--namespace", &self.namespace]);
        ctr
    }

    /// Imports an OCI archive; its images have the names written in it.
    ///
    /// # Errors
    /// containerd refuses it.
    pub fn import(&self, archive: impl AsRef<Path>) -> Result<()> {
        command::stdout(self.ctr().args(["images", "import"]).arg(archive.as_ref()))?;
        Ok(())
    }

    /// Removes a blob, e.g. a layer, as a node that discards unpacked layers does.
    ///
    /// # Errors
    /// containerd does not have it.
    pub fn forget(&self, digest: &str) -> Result<()> {
        command::stdout(self.ctr().args(["content", "delete", digest]))?;
        Ok(())
    }

    /// Runs `args` (the image's own entry point where empty) as the first process of a new container, without network,
    /// waits for its end, removes the container and gives its output.
    ///
    /// # Errors
    /// The container cannot be made. A program that fails is no error: see the status.
    pub fn run(&self, image: &str, id: &str, args: &[&str]) -> Result<Output> {
        self.run_with(image, id, args, &RunOptions::default())
    }

    /// As `run`, with `options`.
    ///
    /// # Errors
    /// As `run`.
    pub fn run_with(&self, image: &str, id: &str, args: &[&str], options: &RunOptions) -> Result<Output> {
        command::output(self.ctr_run(options).args(["--rm", image, id]).args(args))
    }

    /// Runs `args` in a new container and comes back as soon as it runs.
    ///
    /// # Errors
    /// The container cannot be made or started.
    pub fn start_container(&self, image: &str, id: &str, args: &[&str]) -> Result<Container<'_>> {
        self.start_container_with(image, id, args, &RunOptions::default())
    }

    /// As `start_container`, with `options`.
    ///
    /// # Errors
    /// As `start_container`.
    pub fn start_container_with(
        &self,
        image: &str,
        id: &str,
        args: &[&str],
        options: &RunOptions,
    ) -> Result<Container<'_>> {
        let log = self.directory.path().join(format!("{id}.log"));
        let container = Container { rig: self, id: id.to_owned() };
        let mut run = self.ctr_run(options);
        run.arg("--detach").arg("--log-uri").arg(format!("file://{}", log.display())).args([image, id]).args(args);
        command::stdout(&mut run)?;
        Ok(container)
    }

    fn ctr_run(&self, options: &RunOptions) -> Command {
        let mut run = self.ctr();
        run.arg("run").arg("--runc-root").arg(self.directory.path().join("runc")).args(&options.flags);
        for (source, target, writable) in &options.mounts {
            let mode = if *writable { "rw" } else { "ro" };
            run.arg("--mount").arg(format!("type=bind,src={},dst={target},options=rbind:{mode}", source.display()));
        }
        run
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let listed = command::stdout(self.ctr().args(["containers", "list", "--quiet"])).unwrap_or_default();
        for id in listed.split_whitespace() {
            Container { rig: self, id: id.to_owned() }.remove();
        }
        let sockets = self.shim_sockets();
        teardown::end(&mut self.daemon, Duration::from_secs(5));
        teardown::kill_with_argument(&self.address());
        for socket in sockets {
            let _ = fs::remove_file(socket);
        }
        teardown::unmount_below(self.directory.path());
        teardown::remove_cgroups(&self.namespace);
    }
}

impl Containerd {
    /// The sockets of the shims that still run: they are outside the rig's directory, in a directory that is compiled into the shim.
    fn shim_sockets(&self) -> Vec<PathBuf> {
        let bundles = self.state().join("io.containerd.runtime.v2.task").join(&self.namespace);
        let bundles = fs::read_dir(bundles).into_iter().flatten().flatten();
        bundles
            .filter_map(|bundle| fs::read_to_string(bundle.path().join("address")).ok())
            .filter_map(|address| Some(PathBuf::from(address.strip_prefix("unix://")?)))
            .collect()
    }
}

/// A container that runs in the background; dropping it kills and removes it.
#[derive(Debug)]
pub struct Container<'a> {
    rig: &'a Containerd,
    id: String,
}

impl Container<'_> {
    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The host's pid of its first process.
    ///
    /// # Errors
    /// The container does not run.
    pub fn pid(&self) -> Result<u32> {
        let pid = fs::read_to_string(self.bundle().join("init.pid"))
            .with_context(|| format!("the container {} does not run", self.id))?;
        pid.trim().parse().with_context(|| format!("the pid of {} is not a number: {pid}", self.id))
    }

    /// Its OCI bundle.
    pub fn bundle(&self) -> PathBuf {
        self.rig.state().join("io.containerd.runtime.v2.task").join(&self.rig.namespace).join(&self.id)
    }

    /// Runs a further process in it, waits for its end and gives its output.
    ///
    /// # Errors
    /// `ctr` cannot be run. A program that fails or cannot be started is no error: see the status.
    pub fn exec(&self, args: &[&str]) -> Result<Output> {
        let exec_id = super::unique_name("exec");
        command::output(self.rig.ctr().args(["tasks", "exec", "--exec-id", &exec_id, &self.id]).args(args))
    }

    /// As `exec`, and gives stdout.
    ///
    /// # Errors
    /// The program cannot be started or fails.
    pub fn exec_ok(&self, args: &[&str]) -> Result<String> {
        let output = self.exec(args)?;
        if !output.status.success() {
            bail!("`{}` in the container {}: {}", args.join(" "), self.id, command::describe(&output));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What its first process wrote.
    pub fn output(&self) -> Vec<u8> {
        fs::read(self.rig.directory.path().join(format!("{}.log", self.id))).unwrap_or_default()
    }

    /// Kills its processes and removes it, as dropping does.
    pub fn delete(self) {
        drop(self);
    }

    fn remove(&self) {
        let quiet = |args: &[&str]| {
            let _ = command::output(self.rig.ctr().args(args));
        };
        quiet(&["tasks", "kill", "--all", "--signal", "KILL", &self.id]);
        quiet(&["tasks", "delete", "--force", &self.id]);
        quiet(&["containers", "delete", &self.id]);
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        self.remove();
    }
}

fn configuration(root: &Path, options: &Options) -> String {
    let disabled = if options.cri { "" } else { "\"io.containerd.grpc.v1.cri\"" };
    // oom_score 0 and restrict_oom_score_adj: lowering a score needs CAP_SYS_RESOURCE, which not every root has.
    format!(
        r#"version = 2
root = "{root}/root"
state = "{root}/state"
oom_score = 0
disabled_plugins = [{disabled}]

[grpc]
address = "{root}/containerd.sock"

[plugins."io.containerd.internal.v1.opt"]
path = "{root}/opt"

[plugins."io.containerd.grpc.v1.cri"]
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{root}/cni/bin"
conf_dir = "{root}/cni/net.d"
"#,
        root = root.display(),
    )
}
