//! A podman with its own storage and configuration. Needs root, and the packages podman and runc.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use super::{command, teardown};

/// podman's storage; dropping it kills and removes its containers and images.
#[derive(Debug)]
pub struct Podman {
    directory: TempDir,
    cgroup_parent: String,
}

impl Podman {
    /// Makes empty storage.
    ///
    /// # Errors
    /// Its configuration cannot be written.
    pub fn new() -> Result<Self> {
        let rig = Self { directory: super::temp_dir("podman")?, cgroup_parent: super::unique_name("purser-rig") };
        let path = rig.directory.path();
        // Without systemd there are neither its cgroups nor its journal; ulimits that this root may not raise are not asked for.
        let engine = format!(
            "[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\nruntime = \"runc\"\ntmp_dir = \"{0}/tmp\"\n\
             [containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\nlog_driver = \"k8s-file\"\n",
            path.display()
        );
        fs::write(path.join("containers.conf"), engine).context("cannot write podman's configuration")?;
        let storage = format!(
            "[storage]\ndriver = \"overlay\"\ngraphroot = \"{0}/root\"\nrunroot = \"{0}/run\"\n",
            path.display()
        );
        fs::write(path.join("storage.conf"), storage).context("cannot write podman's configuration")?;
        fs::write(path.join("policy.json"), r#"{"default":[{"type":"insecureAcceptAnything"}]}"#)
            .context("cannot write podman's configuration")?;
        Ok(rig)
    }

    /// Its storage (`--root`): images, layers, containers.
    pub fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    /// Its run-time state (`--runroot`).
    pub fn runroot(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    /// A `podman` on this storage.
    pub fn podman(&self) -> Command {
        let path = self.directory.path();
        let mut podman = Command::new("podman");
        podman
            .env("CONTAINERS_CONF", path.join("containers.conf"))
            .env("CONTAINERS_STORAGE_CONF", path.join("storage.conf"))
            .env("XDG_RUNTIME_DIR", path)
            .arg("--root")
            .arg(self.root())
            .arg("--runroot")
            .arg(self.runroot());
        podman
    }

    /// Loads an OCI archive and gives the image's name in podman's storage.
    ///
    /// # Errors
    /// podman refuses it.
    pub fn load(&self, archive: impl AsRef<Path>) -> Result<String> {
        let mut load = self.podman();
        load.args(["load", "--quiet", "--signature-policy"]).arg(self.directory.path().join("policy.json"));
        let said = command::stdout(load.arg("--input").arg(archive.as_ref()))?;
        let name = said.trim().rsplit(": ").next().unwrap_or_default();
        Ok(name.to_owned())
    }

    /// Runs `args` (the image's own entry point where empty) in a new container named `name`, without network, waits for its
    /// end, removes it and gives its output.
    ///
    /// # Errors
    /// podman cannot be run. A program that fails is no error: see the status.
    pub fn run(&self, image: &str, name: &str, args: &[&str]) -> Result<Output> {
        command::output(self.run_command(name).args(["--rm", image]).args(args))
    }

    /// Runs `args` in a new container in the background and gives the container's full id.
    ///
    /// # Errors
    /// The container cannot be made or started.
    pub fn start_container(&self, image: &str, name: &str, args: &[&str]) -> Result<String> {
        Ok(command::stdout(self.run_command(name).args(["--detach", image]).args(args))?.trim().to_owned())
    }

    /// Runs a further process in a container and gives its output.
    ///
    /// # Errors
    /// podman cannot be run.
    pub fn exec(&self, name: &str, args: &[&str]) -> Result<Output> {
        command::output(self.podman().args(["exec", name]).args(args))
    }

    fn run_command(&self, name: &str) -> Command {
        let mut run = self.podman();
        run.args(["--runtime", "runc", "run", "--network", "none", "--name", name]);
        run.args(["--cgroup-parent", &format!("/{}", self.cgroup_parent)]);
        run
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let path = self.directory.path();
        let _ = command::output(self.podman().args(["rm", "--all", "--force", "--time", "0"]));
        teardown::kill_with_argument(&self.root());
        teardown::unmount_below(path);
        teardown::remove_cgroups(&self.cgroup_parent);
    }
}
