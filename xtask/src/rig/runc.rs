//! Plain runc: a bundle, its container, no engine above it. Needs root and the package runc.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{command, teardown};

/// A bundle and the runc that runs it; dropping it kills and removes the container.
#[derive(Debug)]
pub struct Runc {
    directory: TempDir,
    id: String,
}

impl Runc {
    /// Makes a bundle whose root file system has the files of `root`: pairs of a path and its bytes, all executable. `args` is
    /// the first process.
    ///
    /// # Errors
    /// The bundle cannot be written.
    pub fn bundle(root: &[(&str, &[u8])], args: &[&str]) -> Result<Self> {
        let rig = Self { directory: super::temp_dir("runc")?, id: super::unique_name("purser-rig") };
        for directory in ["proc", "dev", "sys", "tmp"] {
            fs::create_dir_all(rig.rootfs().join(directory))?;
        }
        for (path, bytes) in root {
            let path = rig.rootfs().join(path.trim_start_matches('/'));
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        }
        let config = serde_json::to_vec_pretty(&configuration(&rig.id, args))?;
        fs::write(rig.path().join("config.json"), config).context("cannot write the bundle's config.json")?;
        Ok(rig)
    }

    /// The container's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The bundle directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The container's root directory on the host.
    pub fn rootfs(&self) -> PathBuf {
        self.path().join("rootfs")
    }

    /// A `runc` with the rig's own state directory.
    pub fn runc(&self) -> Command {
        let mut runc = Command::new("runc");
        runc.arg("--root").arg(self.path().join("state"));
        runc
    }

    /// Runs the container's first process to its end and gives its output.
    ///
    /// # Errors
    /// runc cannot be run. A program that fails is no error: see the status.
    pub fn run(&self) -> Result<Output> {
        command::output(self.runc().args(["run", "--bundle"]).arg(self.path()).arg(&self.id))
    }

    /// Starts the container in the background, its output in `log` of the bundle.
    ///
    /// # Errors
    /// The container cannot be made.
    pub fn start(&self) -> Result<()> {
        // The container keeps runc's stdout: a pipe would never reach its end.
        let log = self.path().join("log");
        let file = fs::File::create(&log).context("cannot write the container's log")?;
        let mut run = self.runc();
        run.args(["run", "--detach", "--bundle"]).arg(self.path()).arg(&self.id);
        run.stdin(std::process::Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let status = run.status().with_context(|| format!("cannot run {}", command::line(&run)))?;
        anyhow::ensure!(
            status.success(),
            "{}: {status}: {}",
            command::line(&run),
            fs::read_to_string(&log).unwrap_or_default()
        );
        Ok(())
    }

    /// Runs a further process in the container and gives its output.
    ///
    /// # Errors
    /// runc cannot be run.
    pub fn exec(&self, args: &[&str]) -> Result<Output> {
        command::output(self.runc().args(["exec", &self.id]).args(args))
    }
}

impl Drop for Runc {
    fn drop(&mut self) {
        let _ = command::output(self.runc().args(["delete", "--force", &self.id]));
        teardown::unmount_below(self.path());
        teardown::remove_cgroups(&self.id);
    }
}

fn configuration(id: &str, args: &[&str]) -> Value {
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": args,
            "env": ["PATH=/usr/bin:/bin"],
            "cwd": "/",
            "capabilities": { "bounding": [], "effective": [], "permitted": [] },
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs" },
        "hostname": "rig",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"] },
        ],
        "linux": {
            "cgroupsPath": format!("/{id}"),
            "namespaces": [
                { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" },
            ],
        },
    })
}
