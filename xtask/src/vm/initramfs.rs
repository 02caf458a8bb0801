//! The file system that a test machine starts with, as the kernel takes it: a cpio archive in the "newc" format
//! (`Documentation/driver-api/early-userspace/buffer-format.rst`). `/lower` in it is the lower layer of the overlay that the
//! tests run on: the test programs, what they call, and the shared libraries of both.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use xtask::rig::command;

const INIT: &str = include_str!("init.sh");
/// What tests run and open, by the paths they use.
const PROGRAMS: &[&str] = &["/bin/true", "/bin/cat", "/bin/sh"];
const FILES: &[&str] = &["/etc/passwd", "/etc/group", "/etc/hostname"];
/// Directories that something is mounted on, or written to.
const FOLDERS: &[&str] = &["dev", "etc", "merged", "proc", "sys", "upper", "work"];
const LOWER_FOLDERS: &[&str] = &["dev", "etc", "proc", "root", "sys", "tests", "tmp", "usr", "var"];
/// Merged, as on every Debian since bookworm.
const LOWER_LINKS: &[(&str, &str)] =
    &[("bin", "usr/bin"), ("sbin", "usr/sbin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")];

/// Builds the archive: `tests` are programs for `/tests`, `script` is what is run in the end.
///
/// # Errors
/// A program or library is missing on this machine.
pub(crate) fn build(overlay: &Path, tests: &[&Path], script: &str) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    archive.folders(FOLDERS)?;
    archive.file("init", INIT.as_bytes(), 0o755)?;
    archive.file("overlay.ko", &read(overlay)?, 0o644)?;
    archive.file("bin/busybox", &read(Path::new("/bin/busybox"))?, 0o755)?;

    archive.folders(LOWER_FOLDERS.iter().map(|name| format!("lower/{name}")).collect::<Vec<_>>().as_slice())?;
    for (link, to) in LOWER_LINKS {
        archive.folders(&[format!("lower/{to}")])?;
        archive.link(&format!("lower/{link}"), to)?;
    }
    archive.file("lower/run-tests", script.as_bytes(), 0o644)?;
    archive.file("lower/usr/bin/busybox", &read(Path::new("/bin/busybox"))?, 0o755)?;
    let mut libraries = BTreeSet::new();
    for path in PROGRAMS {
        archive.file(&lower(path), &read(Path::new(path))?, 0o755)?;
        libraries.extend(shared_libraries(Path::new(path))?);
    }
    for path in FILES {
        archive.file(&lower(path), &read(Path::new(path))?, 0o644)?;
    }
    for test in tests {
        let name = test.file_name().unwrap_or_default().to_string_lossy();
        archive.file(&format!("lower/tests/{name}"), &read(test)?, 0o755)?;
        libraries.extend(shared_libraries(test)?);
    }
    for library in libraries {
        archive.file(&lower(&library), &read(Path::new(&library))?, 0o755)?;
    }
    archive.finish()
}

/// Where a file of this machine is in the archive: below the merged `/usr`.
fn lower(path: &str) -> String {
    let merged = LOWER_LINKS
        .iter()
        .any(|(link, _)| path.strip_prefix('/').is_some_and(|path| path.starts_with(&format!("{link}/"))));
    if merged { format!("lower/usr{path}") } else { format!("lower{path}") }
}

/// The libraries that the loader would take for a program.
fn shared_libraries(program: &Path) -> Result<Vec<String>> {
    let output = command::output(Command::new("ldd").arg(program))?;
    // A static program is an error to it.
    Ok(libraries_in(&String::from_utf8_lossy(&output.stdout)))
}

/// `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x...)`, or only a path, as the loader's own.
fn libraries_in(listing: &str) -> Vec<String> {
    let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(str::to_owned);
    listing.lines().filter_map(path).collect()
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// A growing archive. The directories above an entry come into it by themselves.
#[derive(Debug, Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    folders: BTreeSet<String>,
}

const DIRECTORY: u32 = 0o040_755;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_777;

impl Archive {
    fn folders(&mut self, paths: &[impl AsRef<str>]) -> Result<()> {
        for path in paths {
            let path = path.as_ref();
            let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
            for end in ends {
                if self.folders.insert(path[..end].to_owned()) {
                    self.entry(&path[..end], DIRECTORY, &[])?;
                }
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &str, content: &[u8], mode: u32) -> Result<()> {
        if let Some((folder, _)) = path.rsplit_once('/') {
            self.folders(&[folder])?;
        }
        self.entry(path, REGULAR | mode, content)
    }

    fn link(&mut self, path: &str, to: &str) -> Result<()> {
        self.entry(path, SYMLINK, to.as_bytes())
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        let Ok(size) = u32::try_from(content.len()) else { bail!("{path} is too big for a cpio archive") };
        self.entries += 1;
        let links = if mode == DIRECTORY { 2 } else { 1 };
        // c_ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
        let header = [self.entries, mode, 0, 0, links, 0, size, 0, 0, 0, 0, path.len() as u32 + 1, 0];
        self.bytes.extend(b"070701");
        for number in header {
            self.bytes.extend(format!("{number:08x}").bytes());
        }
        self.bytes.extend(path.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
        Ok(())
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Result<Vec<u8>> {
        self.entry("TRAILER!!!", 0, &[])?;
        Ok(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_folders_come_once_and_first() {
        let mut archive = Archive::default();
        archive.file("a/b/c", b"12345", 0o755).unwrap();
        archive.file("a/b/d", b"", 0o644).unwrap();
        archive.link("l", "a/b").unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8_lossy(&bytes);
        let names: Vec<_> =
            text.split("070701").skip(1).map(|entry| entry[104..].split('\0').next().unwrap()).collect();
        assert_eq!(names, ["a", "a/b", "a/b/c", "a/b/d", "l", "TRAILER!!!"]);
        let file = text.split("070701").nth(3).unwrap();
        assert_eq!((&file[8..16], &file[48..56]), ("000081ed", "00000005"));
        assert_eq!(&file[110..115], "12345");
    }

    #[test]
    fn what_the_loader_lists_is_found_below_the_merged_usr() {
        let listing = "\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x2)\n\t/lib64/ld-linux-x86-64.so.2 (0x3)\n";
        let found = libraries_in(listing);
        assert_eq!(found, ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
        assert_eq!(lower(&found[1]), "lower/usr/lib64/ld-linux-x86-64.so.2");
        assert_eq!(lower("/etc/passwd"), "lower/etc/passwd");
        assert_eq!(lower("/usr/lib/x"), "lower/usr/lib/x");
    }
}
