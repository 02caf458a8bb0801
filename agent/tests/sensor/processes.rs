//! Execs, forks and exits.

use std::{
    ffi::CString,
    fs,
    os::unix::{ffi::OsStrExt, fs::MetadataExt, fs::PermissionsExt},
    path::{Path, PathBuf},
};

use purser::event::{Body, EventType};

use crate::watch::{comparable, identity, privileged, watch, watch_policy};

/// Where cgroup v2 is mounted.
pub(crate) fn cgroup2_root() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let path = words.next()?;
        (words.next()? == "cgroup2").then(|| PathBuf::from(path))
    })
}

fn status_field(name: &str) -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned()
}

fn namespace(kind: &str) -> u32 {
    let link = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
    link.to_str().unwrap().split(['[', ']']).nth(1).unwrap().parse().unwrap()
}

fn c(bytes: &[u8]) -> CString {
    CString::new(bytes).unwrap()
}

#[test]
fn an_exec_tells_file_arguments_place_and_task() {
    if !privileged() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    let program = root.join("a-copy-of-true");
    fs::copy("/bin/true", &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).unwrap();
    let path = c(program.as_os_str().as_bytes());
    let cwd = c(root.as_os_str().as_bytes());
    let arguments = [c"zero", c"", c"tw\xffo \n"].map(std::ffi::CStr::as_ptr);
    let argv = [arguments[0], arguments[1], arguments[2], std::ptr::null()];
    let envp = [c"A=1".as_ptr(), c"B=\xfe".as_ptr(), std::ptr::null()];
    // SAFETY: system calls on prepared values.
    let seen = watch(|| unsafe {
        libc::chdir(cwd.as_ptr());
        libc::setsid();
        libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr());
        1
    });
    let (event, exec) = seen.exec();
    assert_eq!(event.header.event, EventType::Execve);
    assert_eq!(exec.path, program.as_os_str().as_bytes());
    assert_eq!(exec.filename, program.as_os_str().as_bytes());
    assert!(exec.interp.is_empty() && exec.fs_path.is_empty());
    assert_eq!(exec.cwd, root.as_os_str().as_bytes());
    assert_eq!(&exec.argv[..], b"zero\0\0tw\xffo \n");
    assert_eq!(&exec.envp[..], b"A=1\0B=\xfe");
    assert!(!exec.argv_truncated && !exec.envp_truncated);
    assert_eq!(comparable(&exec.file), identity(&program));
    assert_eq!(exec.file.mode & 0o7777, 0o4755);
    assert!(!exec.file.memfd);

    let task = &event.task;
    assert_eq!((task.tgid, task.tid, task.sid, task.pgid), (seen.child, seen.child, seen.child, seen.child));
    assert_eq!((task.vtgid, task.vtid, task.vpgid), (seen.child, seen.child, seen.child));
    assert_eq!(task.parent_tgid, std::process::id());
    assert_eq!(task.parent_start_boottime_ns / 10_000_000, own_start_ticks());
    assert!(task.start_boottime_ns > task.parent_start_boottime_ns && task.start_boottime_ns < event.header.boot_ns);
    assert_eq!((task.uid, task.euid, task.gid, task.egid, task.tty), (0, 0, 0, 0, 0));
    let loginuid = fs::read_to_string("/proc/self/loginuid").map_or(u32::MAX, |text| text.trim().parse().unwrap());
    assert_eq!(task.loginuid, loginuid);
    for (name, set) in [
        ("CapInh:", task.capabilities.inheritable),
        ("CapPrm:", task.capabilities.permitted),
        ("CapEff:", task.capabilities.effective),
    ] {
        assert_eq!(set, u64::from_str_radix(&status_field(name), 16).unwrap(), "{name}");
    }
    assert_eq!((task.mnt_ns, task.pid_ns), (namespace("mnt"), namespace("pid")));
    assert_eq!(&task.comm, b"a-copy-of-true\0\0");
    if let Some(root) = cgroup2_root() {
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
        assert_eq!(task.cgroup_id, fs::metadata(root.join(own)).unwrap().ino());
    }
    assert_eq!(exec.file.on_rootfs, fs::metadata("/").unwrap().dev() == fs::metadata(&program).unwrap().dev());
}

/// Field 22 of `/proc/self/stat`, in ticks of 10 ms.
fn own_start_ticks() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    stat.rsplit(')').next().unwrap().split(' ').nth(20).unwrap().parse().unwrap()
}

#[test]
fn the_environment_leaves_the_kernel_only_if_wanted() {
    if !privileged() {
        return;
    }
    let policy = purser::sensor::Policy { environment: false, ..purser::sensor::Policy::everything() };
    let argv = [c"true".as_ptr(), std::ptr::null()];
    let envp = [c"SECRET=1".as_ptr(), std::ptr::null()];
    // SAFETY: a system call on constants.
    let seen = watch_policy(&policy, || unsafe {
        libc::execve(c"/bin/true".as_ptr(), argv.as_ptr(), envp.as_ptr());
        1
    });
    assert!(seen.exec().1.envp.is_empty());
    assert_eq!(&seen.exec().1.argv[..], b"true");
}

#[test]
fn long_arguments_are_cut_and_marked() {
    if !privileged() {
        return;
    }
    let long = c(&vec![b'x'; 40_000]);
    let argv = [c"true".as_ptr(), long.as_ptr(), std::ptr::null()];
    // SAFETY: a system call on prepared values.
    let seen = watch(|| unsafe {
        libc::execve(c"/bin/true".as_ptr(), argv.as_ptr(), argv[2..].as_ptr());
        1
    });
    let exec = seen.exec().1;
    assert!(exec.argv_truncated && exec.argv.len() == 16 * 1024 + 3 && exec.argv.ends_with(b"x..."));
    assert!(exec.argv.starts_with(b"true\0xxx"));
}

#[test]
fn a_script_tells_its_own_name_and_the_interpreter_that_runs() {
    if !privileged() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().canonicalize().unwrap().join("script");
    fs::write(&script, "#!/bin/sh\nexit 0\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let path = c(script.as_os_str().as_bytes());
    let argv = [path.as_ptr(), std::ptr::null()];
    // SAFETY: a system call on prepared values.
    let seen = watch(|| unsafe {
        libc::execve(path.as_ptr(), argv.as_ptr(), argv[1..].as_ptr());
        1
    });
    let exec = seen.exec().1;
    let interpreter = fs::canonicalize("/bin/sh").unwrap();
    assert_eq!(exec.filename, script.as_os_str().as_bytes());
    assert_eq!(&exec.interp[..], b"/bin/sh");
    assert_eq!(exec.path, interpreter.as_os_str().as_bytes());
    assert_eq!(exec.file.ino, identity(&interpreter).ino);
    assert!(exec.argv.starts_with(b"/bin/sh\0") && exec.argv.ends_with(script.as_os_str().as_bytes()));
}

#[test]
fn a_memfd_that_runs_is_told_as_such() {
    if !privileged() {
        return;
    }
    let program = fs::read("/bin/true").unwrap();
    let argv = [c"innocent".as_ptr(), std::ptr::null()];
    // SAFETY: system calls on prepared values.
    let seen = watch(|| unsafe {
        let fd = libc::memfd_create(c"payload".as_ptr(), 0);
        libc::write(fd, program.as_ptr().cast(), program.len());
        libc::syscall(libc::SYS_execveat, fd, c"".as_ptr(), argv.as_ptr(), argv[1..].as_ptr(), libc::AT_EMPTY_PATH);
        1
    });
    let (event, exec) = seen.exec();
    assert_eq!(event.header.event, EventType::Execveat);
    assert!(exec.file.memfd && exec.file.nlink == 0 && !exec.file.on_rootfs, "{:?}", exec.file);
    assert_eq!(&exec.path[..], b"memfd:payload");
    assert!(exec.filename.starts_with(b"/dev/fd/"), "{:?}", exec.filename);
    assert_eq!(exec.file.size, program.len() as u64);
}

#[test]
fn a_file_named_like_a_memfd_is_none() {
    if !privileged() {
        return;
    }
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let program = folder.path().join("memfd:payload");
    fs::copy("/bin/true", &program).unwrap();
    let path = c(program.as_os_str().as_bytes());
    let argv = [path.as_ptr(), std::ptr::null()];
    // SAFETY: a system call on prepared values.
    let seen = watch(|| unsafe {
        libc::execve(path.as_ptr(), argv.as_ptr(), argv[1..].as_ptr());
        1
    });
    let exec = seen.exec().1;
    assert!(!exec.file.memfd);
    assert_eq!(exec.path, program.as_os_str().as_bytes());
}

#[test]
fn forks_and_exits_tell_ids_call_and_status() {
    if !privileged() {
        return;
    }
    // SAFETY: system calls; the children end at once.
    let seen = watch(|| unsafe {
        let exits = libc::syscall(libc::SYS_fork);
        if exits == 0 {
            libc::_exit(7);
        }
        libc::waitpid(exits as i32, std::ptr::null_mut(), 0);
        // CLONE_INTO_CGROUP and the like come by clone3: struct clone_args, exit_signal at word 4.
        let arguments = [0_u64, 0, 0, 0, libc::SIGCHLD as u64, 0, 0, 0, 0, 0, 0];
        let killed = libc::syscall(libc::SYS_clone3, arguments.as_ptr(), 88);
        if killed == 0 {
            libc::raise(libc::SIGKILL);
        }
        libc::waitpid(killed as i32, std::ptr::null_mut(), 0);
        0
    });
    let forks: Vec<_> = seen
        .events
        .iter()
        .filter_map(|event| if let Body::Fork(fork) = &event.body { Some((event, fork)) } else { None })
        .collect();
    assert_eq!(forks.len(), 2, "{:?}", seen.events);
    assert_eq!(
        forks.iter().map(|(event, _)| event.header.event).collect::<Vec<_>>(),
        [EventType::Fork, EventType::Clone3]
    );
    for ((event, fork), expected) in forks.iter().zip([7 << 8, libc::SIGKILL as u32]) {
        assert_eq!(event.task.tgid, seen.child);
        assert_eq!((fork.child_tid, fork.child_vtid), (fork.child_tgid, fork.child_tgid));
        assert_eq!(fork.child_cgroup_id, event.task.cgroup_id);
        let (exited, exit) = seen
            .events
            .iter()
            .find_map(|event| match &event.body {
                Body::Exit(exit) if event.task.tgid == fork.child_tgid => Some((event, exit)),
                _ => None,
            })
            .unwrap();
        assert_eq!(exited.task.start_boottime_ns, fork.child_start_boottime_ns);
        assert_eq!((exit.status, exit.group_dead), (expected, true));
        assert_eq!(exited.header.event, EventType::Procexit);
    }
}

#[test]
fn ids_inside_a_pid_namespace_are_its_own() {
    if !privileged() {
        return;
    }
    // SAFETY: system calls; the first process of the new namespace execs.
    let seen = watch(|| unsafe {
        if libc::unshare(libc::CLONE_NEWPID) != 0 {
            return 1;
        }
        let init = libc::fork();
        if init == 0 {
            libc::setsid();
            let argv = [c"true".as_ptr(), std::ptr::null()];
            libc::execve(c"/bin/true".as_ptr(), argv.as_ptr(), argv[1..].as_ptr());
            libc::_exit(1);
        }
        libc::waitpid(init, std::ptr::null_mut(), 0);
        0
    });
    let (event, _) = seen.exec();
    assert_eq!((event.task.vtgid, event.task.vtid, event.task.vpgid), (1, 1, 1));
    assert_ne!(event.task.tgid, 1);
    assert_ne!(event.task.pid_ns, namespace("pid"));
    let fork = seen
        .events
        .iter()
        .find_map(|event| if let Body::Fork(fork) = &event.body { Some(fork) } else { None })
        .unwrap();
    assert_eq!((fork.child_tgid, fork.child_vtid), (event.task.tgid, 1));
    assert!(Path::new("/proc").exists());
}

#[test]
fn an_exec_that_fails_tells_what_it_asked_for_and_who_goes_on() {
    if !privileged() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    fs::write(root.join("text"), "no program").unwrap();
    let cwd = c(root.as_os_str().as_bytes());
    let directory = fs::File::open(&root).unwrap();
    let at = std::os::fd::AsRawFd::as_raw_fd(&directory);
    let (none, text) = (c(b"/no/such/\xffprogram"), c(b"text"));
    let argv = [c"zero".as_ptr(), c"".as_ptr(), c"two".as_ptr(), std::ptr::null()];
    let long = c(&[b'x'; 4000]);
    let many: Vec<_> = std::iter::repeat_n(long.as_ptr(), 20).chain([std::ptr::null()]).collect();
    // SAFETY: system calls on prepared values, one of them bad on purpose.
    let seen = watch(|| unsafe {
        // The kernel did not touch them when it gave up, and what is not in memory a program cannot read.
        for text in argv.iter().take(3).chain(many.iter().take(1)) {
            text.read_volatile();
        }
        libc::chdir(cwd.as_ptr());
        libc::execve(none.as_ptr(), argv.as_ptr(), std::ptr::null());
        libc::syscall(libc::SYS_execveat, at, text.as_ptr(), argv.as_ptr(), 0_usize, 0);
        libc::execve(text.as_ptr(), many.as_ptr(), std::ptr::null());
        libc::execve(none.as_ptr(), std::ptr::dangling(), std::ptr::null());
        0
    });
    let failed: Vec<_> = seen
        .events
        .iter()
        .filter_map(|event| match &event.body {
            Body::Call(call) if event.header.event.is_failed_exec() => Some((event.header.event, call)),
            _ => None,
        })
        .collect();
    let results: Vec<_> = failed.iter().map(|(event, call)| (*event, -call.result as i32)).collect();
    assert_eq!(
        results[..3],
        [
            (EventType::FailedExecve, libc::ENOENT),
            (EventType::FailedExecveat, libc::EACCES),
            (EventType::FailedExecve, libc::EACCES),
        ]
    );
    // Which of the two the kernel looks at first depends on its release.
    assert!(matches!(results[3..], [(EventType::FailedExecve, libc::ENOENT | libc::EFAULT)]), "{results:?}");
    let call = |nth: usize| failed[nth].1;
    let base = root.as_os_str().as_bytes();
    assert_eq!((&call(0).texts[0][..], &call(0).data[..]), (&b"/no/such/\xffprogram"[..], &b"zero\0\0two"[..]));
    assert_eq!((&call(1).texts[0][..], &call(1).directories[0][..]), (&b"text"[..], base));
    assert_eq!(&call(1).data[..], b"zero\0\0two");
    assert!(!call(0).data_truncated && call(2).data_truncated);
    assert!(call(2).data.len() >= 2 * 4001 && call(2).data.iter().all(|byte| matches!(byte, b'x' | 0)));
    assert_eq!(&call(3).data[..], b"");
    assert!(!seen.events.iter().any(|event| matches!(event.body, Body::Exec(_))));
}
