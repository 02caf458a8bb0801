//! Stock Debian kernels, kept in the cache: the image, and the overlayfs module, which Debian does not build in.
//!
//! A kernel is pinned by its package and digest. Debian's mirrors forget a version some time after the next one: then a new row
//! is due, and the error says so.

use std::fs::{self, File};
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use xtask::rig::command;

use crate::workspace;

/// A kernel of Debian.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Kernel {
    /// As `cargo xtask vm` names it.
    pub(crate) series: &'static str,
    /// Below `pool/main/l/` of a mirror.
    package: &'static str,
    sha256: &'static str,
}

/// One of each Debian release since bullseye, and the newest long-term one from its backports.
pub(crate) const KERNELS: &[Kernel] = &[
    Kernel {
        series: "5.10",
        package: "linux-signed-amd64/linux-image-5.10.0-32-cloud-amd64_5.10.223-1_amd64.deb",
        sha256: "fb4a1229952d892138532c1d9f40a7fd0bd408e4dcf969c12e4524b6a89fdcb8",
    },
    Kernel {
        series: "6.1",
        package: "linux-signed-amd64/linux-image-6.1.0-50-cloud-amd64_6.1.176-1_amd64.deb",
        sha256: "efe19f605b6f54a8352e68d85a629abb2d30b72a085faef603a9152590baa791",
    },
    Kernel {
        series: "6.12",
        package: "linux-signed-amd64/linux-image-6.12.107+deb13-cloud-amd64_6.12.107-1_amd64.deb",
        sha256: "04434ff520f860423eafe4203d986a35682ce73c2f71baa39e988ca0da93ac91",
    },
    Kernel {
        series: "6.18",
        package: "linux-signed-amd64/linux-image-6.18.15+deb13-cloud-amd64_6.18.15-1~bpo13+1_amd64.deb",
        sha256: "5a507681ea8c978d02265a7fec2f02c9588fb48b54b7f71edc1059e86007f3ec",
    },
];

/// Where the parts of a kernel are.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) image: PathBuf,
    pub(crate) overlay: PathBuf,
}

impl Kernel {
    /// The kernel named `series`.
    ///
    /// # Errors
    /// There is no such row.
    pub(crate) fn named(series: &str) -> Result<&'static Self> {
        KERNELS.iter().find(|kernel| kernel.series == series).with_context(|| {
            let known: Vec<_> = KERNELS.iter().map(|kernel| kernel.series).collect();
            format!("no kernel {series}: there are {}", known.join(", "))
        })
    }

    /// Its files, fetched at the first time.
    ///
    /// # Errors
    /// The mirror does not have the package, or it is not the one that is pinned.
    pub(crate) fn files(&self) -> Result<Files> {
        let name = self.package.rsplit('/').next().unwrap_or(self.package);
        let kernels = workspace::cache()?.join("kernels");
        let folder = kernels.join(name.trim_end_matches(".deb"));
        let files = Files { image: folder.join("vmlinuz"), overlay: folder.join("overlay.ko") };
        if files.image.is_file() && files.overlay.is_file() {
            return Ok(files);
        }
        fs::create_dir_all(&kernels).with_context(|| format!("cannot create {}", kernels.display()))?;
        let partial = tempfile::tempdir_in(&kernels).context("cannot create a directory for a kernel")?;
        let package = partial.path().join("package.deb");
        self.fetch(&package).with_context(|| {
            format!(
                "cannot get Linux {}. Where the mirror has a newer version instead, write that into xtask/src/vm/kernels.rs; \
                 without a mirror, put vmlinuz and overlay.ko of {name} into {}",
                self.series,
                folder.display()
            )
        })?;
        unpack(&package, partial.path()).with_context(|| format!("cannot unpack {name}"))?;
        fs::remove_file(&package).context("cannot remove a package that was unpacked")?;
        // Another run may have put the same there meanwhile.
        if let Err(error) = fs::rename(partial.path(), &folder)
            && !files.image.is_file()
        {
            return Err(error).with_context(|| format!("cannot create {}", folder.display()));
        }
        Ok(files)
    }

    /// By apt's own downloader: its proxies and mirrors are the machine's, and it checks the digest.
    fn fetch(&self, to: &Path) -> Result<()> {
        let address = format!("{}pool/main/l/{}", mirror(), self.package);
        eprintln!("vm: fetching {address}");
        let mut helper = Command::new("/usr/lib/apt/apt-helper");
        helper.args(["-o", "Acquire::Retries=3", "download-file"]).arg(&address).arg(to);
        command::stdout(helper.arg(format!("SHA256:{}", self.sha256)))?;
        Ok(())
    }
}

/// The Debian mirror that apt is configured for, with a slash at its end; Debian's own where it is configured for none.
fn mirror() -> String {
    let mut targets = Command::new("apt-get");
    targets.args(["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Origin: Debian"]);
    let asked = command::stdout(&mut targets).unwrap_or_default();
    let main = asked.lines().find(|line| line.ends_with("/debian/"));
    main.unwrap_or("http://deb.debian.org/debian/").to_owned()
}

/// Writes `vmlinuz` and `overlay.ko` of a package into `folder`.
fn unpack(package: &Path, folder: &Path) -> Result<()> {
    let mut dpkg = Command::new("dpkg-deb");
    dpkg.arg("--fsys-tarfile").arg(package).stdout(Stdio::piped());
    let mut child = dpkg.spawn().context("cannot run dpkg-deb")?;
    let stdout = child.stdout.take().context("dpkg-deb has no output")?;
    let mut archive = tar::Archive::new(stdout);
    for entry in archive.entries().context("cannot read the package")? {
        let mut entry = entry.context("cannot read the package")?;
        let path = entry.path().context("cannot read the package")?.to_string_lossy().into_owned();
        if path.contains("/boot/vmlinuz-") {
            write(&mut entry, &folder.join("vmlinuz"))?;
        } else if path.ends_with("/overlayfs/overlay.ko") {
            write(&mut entry, &folder.join("overlay.ko"))?;
        } else if path.ends_with("/overlayfs/overlay.ko.xz") {
            write(&mut entry, &folder.join("overlay.ko.xz"))?;
            command::stdout(Command::new("xz").arg("--decompress").arg(folder.join("overlay.ko.xz")))?;
        }
    }
    let status = child.wait().context("cannot wait for dpkg-deb")?;
    if !status.success() {
        bail!("dpkg-deb failed ({status})");
    }
    for part in ["vmlinuz", "overlay.ko"] {
        if !folder.join(part).is_file() {
            bail!("it has no {part}");
        }
    }
    Ok(())
}

fn write(from: &mut impl Read, to: &Path) -> Result<()> {
    let mut file = File::create(to).with_context(|| format!("cannot create {}", to.display()))?;
    std::io::copy(from, &mut file).and_then(|_| file.flush()).with_context(|| format!("cannot write {}", to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_is_found_by_its_series() {
        for kernel in KERNELS {
            assert_eq!(Kernel::named(kernel.series).unwrap(), kernel);
            assert!(kernel.package.contains(&format!("linux-image-{}.", kernel.series)), "{}", kernel.package);
            assert_eq!(kernel.sha256.len(), 64);
        }
        let error = Kernel::named("4.19").unwrap_err().to_string();
        assert_eq!(error, "no kernel 4.19: there are 5.10, 6.1, 6.12, 6.18");
    }
}
