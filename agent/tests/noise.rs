//! Quiet by default: a package-rich image in ordinary use raises no alert with the default rules, and every
//! program that starts in it gets a verdict.

#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use xtask::agent::Options;
use xtask::rig::containerd::Containerd;
use xtask::rig::image::{Image, Layer};
use xtask::rig::unique_name;

const ROUNDS: usize = 200;

const NOT_EXPECTED: &str = r"
- rule: Not expected
  desc: A program of a container with any verdict but the good one; the runtime's own steps are the host's.
  condition: evt.type in (execve, execveat) and evt.failed = false and container.id != host and not manifest.verdict in (expected, host)
  output: exe=%proc.exepath verdict=%manifest.verdict reason=%manifest.reason cmdline=%proc.cmdline full=%container.full_id
  priority: NOTICE
";

/// A Debian with shell, apt, perl and python; made once per machine, as that takes a minute.
fn debian() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))
        .expect("HOME is set")
        .join("purser");
    let root = cache.join("debian-bookworm-python");
    if root.is_dir() {
        return root;
    }
    fs::create_dir_all(&cache).expect("cache directory");
    let new = tempfile::Builder::new().prefix("debian-").tempdir_in(&cache).expect("directory");
    let status = Command::new("debootstrap")
        .args(["--variant=minbase", "--include=python3-minimal,perl", "bookworm"])
        .arg(new.path().join("root"))
        .stdout(std::process::Stdio::null())
        .status()
        .expect("debootstrap is installed (cargo xtask setup)");
    assert!(status.success(), "debootstrap: {status}");
    // Another run may have been faster: its tree is as good.
    if fs::rename(new.path().join("root"), &root).is_err() {
        assert!(root.is_dir(), "{} cannot be made", root.display());
    }
    root
}

#[test]
fn ordinary_use_raises_no_alert_and_every_exec_gets_a_verdict() {
    if !common::is_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("directory");
    let archive = directory.path().join("debian.tar");
    let image = Image::new("local.test/debian:1")
        .layer(Layer::from_tree(debian()).expect("tree"))
        .entrypoint(&["/bin/sleep", "1000"])
        .env("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    image.write_archive(&archive).expect("image written");
    let containerd = Containerd::start().expect("containerd");
    containerd.import(&archive).expect("imported");

    // The default rules, and one that names every program of a container that is not expected.
    let strict = common::rules_file(directory.path(), NOT_EXPECTED);
    let rulesets = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../rules/rulesets");
    let defaults = purser_rules::DEFAULT_RULES.iter().map(|(name, _)| rulesets.join(name));
    let config = format!("rule_matching: all\nmanifest: {{cache_dir: {}}}", directory.path().join("cache").display());
    let args = vec!["--scope".to_owned(), "containers".to_owned()];
    let agent = common::start(&Options { config, args, rules: defaults.chain([strict]).collect() });
    let shell = "ls -l /etc > /tmp/list; cat /etc/passwd | wc -l; id; env; \
                 for i in 1 2 3; do echo $i; done; find /usr/share/doc -name copyright | head -3; \
                 (sleep 0.01 &); ps 2>/dev/null; tar cf /tmp/a.tar /etc/hostname /etc/hosts; rm /tmp/list /tmp/a.tar; true";
    let package = "set -e; mkdir -p /tmp/p/DEBIAN /tmp/p/opt; echo hello > /tmp/p/opt/hello; \
                   printf 'Package: hello-local\\nVersion: 1\\nArchitecture: all\\nMaintainer: x <x@example.invalid>\\nDescription: x\\n' \
                   > /tmp/p/DEBIAN/control; printf '#!/bin/sh\\nset -e\\nid > /dev/null\\n' > /tmp/p/DEBIAN/postinst; \
                   chmod 755 /tmp/p/DEBIAN/postinst; dpkg-deb --build /tmp/p /tmp/p.deb; dpkg -i /tmp/p.deb; \
                   dpkg -r hello-local; rm -r /tmp/p /tmp/p.deb";
    let administration = "set -e; useradd -m -s /bin/bash u; passwd -S u; usermod -aG mail u; chage -l u; \
                          adduser --disabled-password --gecos '' v; su -s /bin/sh -c id u; getent passwd u; \
                          grep -r private /etc/apt || true; find / -xdev -name copyright | wc -l; \
                          echo line >> /var/log/app.log; : > /var/log/app.log; ln -s /etc/hostname /tmp/name; \
                          bash -c 'exec 3<>/dev/tcp/127.0.0.1/1' 2> /dev/null || true; \
                          pam-auth-update --package; update-alternatives --list pager || true; rm /tmp/name; \
                          printf 'x = 1\\n' > /tmp/x.py; python3 /tmp/x.py; sed -i s/1/2/ /tmp/x.py; chmod 755 /tmp/x.py; \
                          deluser --quiet v; userdel -r u 2> /dev/null || true";
    let mut own = Vec::new();
    for round in 0..ROUNDS {
        let container = containerd
            .start_container("local.test/debian:1", &unique_name("noise"), &["/bin/sleep", "1000"])
            .expect("container");
        own.push(container.id().to_owned());
        match round % 6 {
            0 => container.exec_ok(&["/bin/sh", "-c", shell]),
            1 => container.exec_ok(&["/bin/bash", "-lc", "apt-get check && apt-cache policy perl-base && dpkg -l"]),
            2 => container.exec_ok(&["/usr/bin/perl", "-e", "open(F, '/etc/passwd'); print <F>; system('true'); print `date`"]),
            3 => container.exec_ok(&[
                "/usr/bin/python3",
                "-c",
                "import os, pwd, sys; print(pwd.getpwuid(0)); os.system('echo hi'); print(open('/etc/os-release').read())",
            ]),
            4 => container.exec_ok(&["/bin/sh", "-c", administration]),
            _ => container.exec_ok(&["/bin/sh", "-c", package]),
        }
        .unwrap_or_else(|error| panic!("round {round}: {error:#}"));
    }
    // The last exits are on their way; nothing that could alert is.
    std::thread::sleep(Duration::from_millis(200));
    let (lines, summary) = agent.stop().expect("summary");
    // Other containers of the machine may well raise alerts.
    let mut alerts = Vec::new();
    for line in lines {
        let alert = line.alert.expect("an alert");
        if alert.field("container.id").is_none_or(|id| own.iter().any(|known| known.starts_with(id))) {
            alerts.push(alert.output);
        }
    }
    assert!(alerts.is_empty(), "{} alerts: {:#?}", alerts.len(), &alerts[..alerts.len().min(10)]);

    let execs =
        summary.events.get("execve").copied().unwrap_or(0) + summary.events.get("execveat").copied().unwrap_or(0);
    let verdicts: u64 = summary.verdicts.values().sum();
    assert_eq!(verdicts, execs, "{:?}", summary.verdicts);
    let given = |name: &str| summary.verdicts.get(name).copied().unwrap_or(0);
    assert!(given("expected") >= 3 * ROUNDS as u64, "{:?}", summary.verdicts);
    assert_eq!(summary.lost(), 0, "{:?}", summary.lost);
}
