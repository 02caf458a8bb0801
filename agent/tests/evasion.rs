//! A file is watched, not a spelling: whatever way a process takes to it, the rule fires, once.

#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use xtask::agent::Options;
use xtask::rig::containerd::Containerd;
use xtask::rig::image::{Image, Layer};
use xtask::rig::{payload, unique_name};

const RULES: &str = r"
- rule: Secret read
  desc: The secret, under whatever name.
  condition: evt.type in (open, openat, openat2, open_by_handle_at) and evt.is_open_read=true and fd.num >= 0 and fd.name = /etc/secret and container.id != host
  output: >
    name=%fd.name raw=%fd.nameraw real=%fd.realpath type=%evt.type uring=%evt.io_uring cmdline=%proc.cmdline flags=%evt.arg.flags
    full=%container.full_id ino=%fd.ino
  priority: WARNING
- rule: Door knocked
  desc: A connect to the watched port.
  condition: evt.type=connect and fd.sport=4711 and container.id != host
  output: name=%fd.name type=%fd.typechar l4=%fd.l4proto uring=%evt.io_uring res=%evt.res cmdline=%proc.cmdline full=%container.full_id
  priority: WARNING
- rule: Socket of the runtime
  desc: A connect to a unix socket.
  condition: evt.type=connect and fd.name in (/run/runtime.sock, runtime/abstract.sock) and container.id != host
  output: name=%fd.name res=%evt.res type=%fd.typechar cmdline=%proc.cmdline full=%container.full_id
  priority: WARNING
";

#[test]
fn no_way_around_a_watched_file_or_address() {
    if !common::is_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("directory");
    let archive = directory.path().join("image.tar");
    let payload = payload::unique().expect("payload");
    Image::new("local.test/evasion:1")
        .layer(Layer::busybox(&["sh", "sleep", "cat", "ln", "mkdir"]).expect("busybox"))
        .layer(
            Layer::new()
                .file("/etc/secret", "secret", 0o644)
                .file("/usr/bin/payload", payload, 0o755)
                .symlink("/tmp/link", "/etc/secret")
                .symlink("/tmp/etc", "../etc"),
        )
        .write_archive(&archive)
        .expect("image");
    let containerd = Containerd::start().expect("containerd");
    containerd.import(&archive).expect("imported");
    let rules = common::rules_file(directory.path(), RULES);
    let agent = common::start(&Options { rules: vec![rules], ..Options::default() });
    let id = unique_name("evasion");
    let container =
        containerd.start_container("local.test/evasion:1", &id, &["/bin/sleep", "1000"]).expect("container");

    // open_by_handle_at is tested on the host: overlayfs gives out no handles.
    let reads: &[(&[&str], &str, bool)] = &[
        (&["openat", "/etc/secret", "0"], "openat", false),
        (&["open", "/etc/secret", "0"], "open", false),
        (&["openat2", "/etc/secret", "0"], "openat2", false),
        (&["uring-open", "/etc/secret", "0"], "openat", true),
        (&["thread", "openat", "/etc/secret", "0"], "openat", false),
        (&["openat", "/tmp/link", "0"], "openat", false),
        (&["openat", "/tmp/etc/secret", "0"], "openat", false),
        (&["openat", "//etc/./../etc//secret", "0"], "openat", false),
        (&["openat", "/proc/self/root/etc/secret", "0"], "openat", false),
        (&["openat", "etc/secret", "0"], "openat", false),
        (&["openat", "/etc/secret", "2"], "openat", false),
    ];
    for (args, call, uring) in reads {
        let command: Vec<&str> = std::iter::once("/usr/bin/payload").chain(args.iter().copied()).collect();
        container.exec(&command).expect("exec");
        let alert = common::wait_for(&agent, &args.join(" "), |alert| alert.rule == "Secret read");
        assert_eq!(alert.field("evt.type"), Some(*call), "{}", alert.output);
        assert_eq!(alert.output_fields["evt.io_uring"], *uring, "{}", alert.output);
        assert_eq!(alert.field("fd.name"), Some("/etc/secret"), "{}", alert.output);
        assert_eq!(alert.field("fd.realpath"), Some("/etc/secret"), "{}", alert.output);
        assert_eq!(
            alert.field("proc.cmdline"),
            Some(format!("payload {}", args.join(" ")).as_str()),
            "{}",
            alert.output
        );
        assert_eq!(alert.field("container.full_id"), Some(id.as_str()));
    }

    for (args, name, kind, uring) in [
        (["connect", "127.0.0.1:4711"], "127.0.0.1:4711", "4", false),
        (["connect", "[::1]:4711"], "::1:4711", "6", false),
        (["uring-connect", "127.0.0.1:4711"], "127.0.0.1:4711", "4", true),
    ] {
        container.exec(&["/usr/bin/payload", args[0], args[1]]).expect("exec");
        let alert = common::wait_for(&agent, &args.join(" "), |alert| alert.rule == "Door knocked");
        assert_eq!(alert.field("fd.typechar"), Some(kind), "{}", alert.output);
        assert!(alert.field("fd.name").is_some_and(|text| text.ends_with(name)), "{}", alert.output);
        assert_eq!(alert.field("fd.l4proto"), Some("tcp"), "{}", alert.output);
        assert_eq!(alert.output_fields["evt.io_uring"], uring, "{}", alert.output);
    }
    container.exec(&["/usr/bin/payload", "connect", "/run/runtime.sock"]).expect("exec");
    let alert = common::wait_for(&agent, "unix socket", |alert| alert.rule == "Socket of the runtime");
    assert_eq!((alert.field("fd.typechar"), alert.field("evt.res")), (Some("u"), Some("ENOENT")), "{}", alert.output);
    // An abstract name has no file, as containerd's shims once had.
    container.exec(&["/usr/bin/payload", "connect", "@runtime/abstract.sock"]).expect("exec");
    let alert = common::wait_for(&agent, "abstract socket", |alert| alert.rule == "Socket of the runtime");
    assert_eq!(alert.field("fd.name"), Some("runtime/abstract.sock"), "{}", alert.output);

    drop(container);
    let (lines, summary) = agent.stop().expect("summary");
    assert!(lines.is_empty(), "each fires once: {lines:#?}");
    assert_eq!(summary.alerts.get("Secret read"), Some(&(reads.len() as u64)), "{:?}", summary.alerts);
    assert_eq!(summary.lost(), 0, "{:?}", summary.lost);
}
