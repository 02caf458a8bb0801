//! Callers that lie: other threads that change what a call was given, other ways to make a call, and names that are made
//! to be misread. What is reported is held against what the kernel did.

use std::{
    ffi::{CString, OsStr},
    fs,
    io::Read as _,
    os::fd::AsRawFd as _,
    os::unix::ffi::OsStrExt as _,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU16, Ordering},
};

use purser::event::{Address, Body, EventType, Exec};

use crate::{
    uring::{OP_CONNECT, OP_OPENAT, Request, Uring},
    watch::{Seen, identity, pipe, privileged, skip, tells_io_uring, wait, watch},
};

fn c(path: impl AsRef<Path>) -> CString {
    CString::new(path.as_ref().as_os_str().as_bytes()).unwrap()
}

/// Memory that a child shares with its parent and its own children.
fn shared<T>(count: usize) -> *mut T {
    let length = count * size_of::<T>();
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    // SAFETY: new memory.
    let memory = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, -1, 0) };
    assert_ne!(memory, libc::MAP_FAILED);
    memory.cast()
}

/// Runs `rounds` while another thread writes one of two values and the other again and again.
fn racing(byte: *mut u8, values: [u8; 2], mut round: impl FnMut(usize), rounds: usize) {
    let stop = AtomicBool::new(false);
    let address = byte as usize;
    std::thread::scope(|scope| {
        let stop = &stop;
        scope.spawn(move || {
            for value in values.iter().cycle() {
                // SAFETY: a byte that two threads write is the very thing under test.
                unsafe { (address as *mut u8).write_volatile(*value) };
                if stop.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        for number in 0..rounds {
            if number % 50 == 0 {
                // On a busy machine the other thread needs its turn.
                // SAFETY: sleeps.
                unsafe { libc::usleep(100) };
            }
            round(number);
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn an_address_changed_during_a_connect_does_not_change_what_is_reported() {
    const ROUNDS: usize = 4_000;
    if !privileged() {
        return;
    }
    // 127.0.0.1, port 0x12AA or 0x12BB.
    let mut address = [0_u8; 16];
    address[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
    address[2..8].copy_from_slice(&[0x12, 0xaa, 127, 0, 0, 1]);
    let text = shared::<u8>(16);
    // SAFETY: room for it.
    unsafe { text.copy_from_nonoverlapping(address.as_ptr(), 16) };
    let truth = shared::<AtomicU16>(ROUNDS);
    let seen = watch(|| {
        let one = |round: usize| {
            // SAFETY: system calls on the shared address; what a datagram socket is connected to, the kernel says.
            unsafe {
                let fd = libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0);
                libc::connect(fd, text.cast(), 16);
                let (mut peer, mut length) = ([0_u8; 16], 16);
                libc::getpeername(fd, peer.as_mut_ptr().cast(), &raw mut length);
                (*truth.add(round)).store(u16::from_be_bytes([peer[2], peer[3]]), Ordering::Relaxed);
                libc::close(fd);
            }
        };
        racing(text.wrapping_add(3), [0xaa, 0xbb], one, ROUNDS);
        0
    });
    let connects: Vec<_> = seen.connects().into_iter().filter(|(_, connect)| connect.socket.sock_type == 2).collect();
    assert_eq!(connects.len(), ROUNDS);
    let mut ports = [0, 0];
    for (round, (_, connect)) in connects.iter().enumerate() {
        // SAFETY: written by the child, which has ended.
        let port = unsafe { (*truth.add(round)).load(Ordering::Relaxed) };
        let remote = Address::Inet(std::net::SocketAddr::from(([127, 0, 0, 1], port)));
        assert_eq!((&connect.socket.remote, connect.socket.remote_from_user), (&remote, false), "round {round}");
        ports[usize::from(port == 0x12bb)] += 1;
    }
    assert!(ports.iter().all(|count| *count > 0), "the race was never run: {ports:?}");
}

fn execs(seen: &Seen) -> Vec<&Exec> {
    let of_child = seen.events.iter().filter(|event| event.task.parent_tgid == seen.child);
    of_child.filter_map(|event| if let Body::Exec(exec) = &event.body { Some(&**exec) } else { None }).collect()
}

#[test]
fn an_argument_changed_during_an_exec_does_not_change_what_is_reported() {
    const ROUNDS: usize = 150;
    if !privileged() {
        return;
    }
    let name = shared::<u8>(8);
    // SAFETY: room for it.
    unsafe { name.copy_from_nonoverlapping(c"cat-a".as_ptr().cast(), 6) };
    let (mut read, write) = {
        let (read, write) = pipe();
        (fs::File::from(read), write)
    };
    let argv = [name.cast::<libc::c_char>().cast_const(), c"/proc/self/cmdline".as_ptr(), std::ptr::null()];
    let seen = watch(|| {
        let one = |_| {
            // SAFETY: a child that starts a program, which prints what arguments it got.
            unsafe {
                let child = libc::fork();
                if child == 0 {
                    libc::dup2(write.as_raw_fd(), 1);
                    libc::execv(c"/bin/cat".as_ptr(), argv.as_ptr());
                    libc::_exit(1);
                }
                libc::waitpid(child, std::ptr::null_mut(), 0);
            }
        };
        racing(name.wrapping_add(4), *b"ab", one, ROUNDS);
        0
    });
    drop(write);
    let mut printed = Vec::new();
    read.read_to_end(&mut printed).unwrap();
    let truth: Vec<_> = printed.split(|byte| *byte == 0).filter(|text| !text.is_empty()).collect();
    let execs = execs(&seen);
    assert_eq!((execs.len(), truth.len()), (ROUNDS, 2 * ROUNDS));
    let mut names = [0, 0];
    for (round, (exec, truth)) in execs.iter().zip(truth.chunks(2)).enumerate() {
        assert_eq!(exec.argv, truth.join(&0), "round {round}");
        names[usize::from(truth[0].ends_with(b"b"))] += 1;
    }
    assert!(names.iter().all(|count| *count > 0), "the race was never run: {names:?}");
}

#[test]
fn a_ring_that_the_kernel_polls_hides_neither_opens_nor_connects() {
    if !privileged() || !tells_io_uring("a_ring_that_the_kernel_polls") {
        return;
    }
    if let Err(errno) = Uring::polled() {
        return skip("a_ring_that_the_kernel_polls", &format!("io_uring with SQPOLL (errno {errno})"));
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().canonicalize().unwrap().join("secret");
    fs::write(&file, b"").unwrap();
    let (path, link) = (c(&file), c(file.with_file_name("link")));
    std::os::unix::fs::symlink(&file, file.with_file_name("link")).unwrap();
    let mut address = [0_u8; 16];
    address[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
    address[2..8].copy_from_slice(&[0x12, 0xaa, 127, 0, 0, 1]);
    let seen = watch(|| {
        let Ok(ring) = Uring::polled() else { return 1 };
        let open = |name: &CString| {
            let addr = name.as_ptr() as u64;
            ring.run(Request { opcode: OP_OPENAT, fd: libc::AT_FDCWD, addr, ..Request::default() })
        };
        let (direct, linked) = (open(&path), open(&link));
        // SAFETY: a system call.
        let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0) };
        let connect = Request { opcode: OP_CONNECT, fd, addr: address.as_ptr() as u64, off: 16, ..Request::default() };
        i32::from(direct < 0 || linked < 0 || ring.run(connect) != 0)
    });
    let opens: Vec<_> = seen.opens().into_iter().filter(|(_, open)| open.io_uring).collect();
    assert_eq!(opens.len(), 2, "{opens:?}");
    for ((event, open), name) in opens.iter().zip([&path, &link]) {
        assert_eq!((event.task.tgid, &open.name[..]), (seen.child, name.to_bytes()));
        assert_eq!((&open.path[..], open.file.unwrap().ino), (path.to_bytes(), identity(&file).ino));
    }
    let connects = seen.connects();
    let remote = Address::Inet(std::net::SocketAddr::from(([127, 0, 0, 1], 0x12aa)));
    assert_eq!(connects.len(), 1, "{connects:?}");
    assert_eq!((connects[0].0.task.tgid, &connects[0].1.socket.remote), (seen.child, &remote));
}

#[test]
fn a_changed_root_does_not_change_where_a_file_is() {
    if !privileged() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    fs::write(root.join("secret"), b"").unwrap();
    let place = c(&root);
    // SAFETY: system calls on prepared names.
    let seen = watch(|| unsafe {
        let changed = libc::chroot(place.as_ptr()) == 0 && libc::chdir(c"/".as_ptr()) == 0;
        let names = [c"/secret", c"secret", c"/../../secret"];
        let opened = names.map(|name| libc::openat(libc::AT_FDCWD, name.as_ptr(), libc::O_RDONLY));
        i32::from(!changed || opened.iter().any(|fd| *fd < 0))
    });
    let opens = seen.opens();
    assert_eq!(opens.len(), 3, "{opens:?}");
    for (_, open) in opens {
        assert_eq!(open.path, root.join("secret").as_os_str().as_bytes(), "{open:?}");
    }
}

#[test]
fn a_program_started_by_its_descriptor_is_the_file_behind_it() {
    if !privileged() {
        return;
    }
    let program = fs::canonicalize("/bin/true").unwrap();
    let path = c(&program);
    let argv = [c"innocent".as_ptr(), std::ptr::null()];
    // SAFETY: system calls on prepared values.
    let seen = watch(|| unsafe {
        let fd = libc::open(path.as_ptr(), libc::O_PATH);
        libc::syscall(libc::SYS_execveat, fd, c"".as_ptr(), argv.as_ptr(), argv[1..].as_ptr(), libc::AT_EMPTY_PATH);
        1
    });
    let (event, exec) = seen.exec();
    assert_eq!(event.header.event, EventType::Execveat);
    assert_eq!((&exec.path[..], exec.file.ino), (path.to_bytes(), identity(&program).ino));
    assert!(exec.filename.starts_with(b"/dev/fd/"), "{:?}", exec.filename);
    assert_eq!(exec.argv, "innocent");
}

#[test]
fn a_program_started_by_a_thread_is_its_process_s() {
    if !privileged() {
        return;
    }
    let argv = [c"true".as_ptr() as usize, 0];
    let seen = watch(|| {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // SAFETY: ends every other thread, and this program.
                unsafe { libc::execv(c"/bin/true".as_ptr(), argv.as_ptr().cast()) };
            });
        });
        1
    });
    let (event, exec) = seen.exec();
    assert_eq!((event.task.tgid, event.task.tid, &exec.argv[..]), (seen.child, seen.child, &b"true"[..]));
}

#[test]
fn a_program_started_after_vfork_has_its_parent() {
    if !privileged() {
        return;
    }
    // posix_spawn is vfork's heir: the parent sleeps, and lends its memory, until the program starts.
    let argv = [c"true".as_ptr().cast_mut(), std::ptr::null_mut()];
    // SAFETY: system calls on prepared values.
    let seen = watch(|| unsafe {
        let mut pid = 0;
        let (none, environment) = (std::ptr::null(), argv[1..].as_ptr());
        let path = c"/bin/true".as_ptr();
        let failed = libc::posix_spawn(&raw mut pid, path, none, std::ptr::null(), argv.as_ptr(), environment);
        libc::waitpid(pid, std::ptr::null_mut(), 0);
        failed
    });
    let (event, exec) = seen.exec();
    assert_eq!((event.task.parent_tgid, &exec.argv[..]), (seen.child, &b"true"[..]));
    assert_ne!(event.task.tgid, seen.child);
    let forks =
        seen.events.iter().filter_map(|event| if let Body::Fork(fork) = &event.body { Some(fork) } else { None });
    assert_eq!(forks.map(|fork| fork.child_tgid).collect::<Vec<_>>(), [event.task.tgid]);
}

#[test]
fn a_place_deeper_than_any_name_can_say_is_marked_and_its_file_named() {
    if !privileged() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let root = c(folder.path().canonicalize().unwrap());
    let part = c(OsStr::from_bytes(&[b'd'; 255]));
    // SAFETY: system calls on prepared names; 20 * 256 bytes are more than a name may have.
    let seen = watch(|| unsafe {
        libc::chdir(root.as_ptr());
        for _ in 0..20 {
            libc::mkdir(part.as_ptr(), 0o700);
            if libc::chdir(part.as_ptr()) != 0 {
                return 1;
            }
        }
        let fd = libc::openat(libc::AT_FDCWD, c"secret".as_ptr(), libc::O_CREAT | libc::O_RDWR, 0o600);
        i32::from(fd < 0)
    });
    let (_, open) = seen.opens()[0];
    assert_eq!((&open.name[..], open.created), (&b"secret"[..], true));
    assert!(open.path.starts_with(b".../ddd") && open.path.ends_with(b"d/secret"), "{:?}", open.path);
    assert!(open.path.len() > 4096, "{}", open.path.len());
    assert!(seen.lost("path_truncated") >= 1);
}

#[test]
fn the_longest_argument_is_cut_and_says_so() {
    if !privileged() {
        return;
    }
    // MAX_ARG_STRLEN, with its NUL.
    let long = c(OsStr::from_bytes(&vec![b'x'; 128 * 1024 - 1]));
    let argv = [c"true".as_ptr(), long.as_ptr(), c"last".as_ptr(), std::ptr::null()];
    // SAFETY: a system call on prepared values.
    let seen = watch(|| unsafe {
        libc::execve(c"/bin/true".as_ptr(), argv.as_ptr(), argv[3..].as_ptr());
        1
    });
    let exec = seen.exec().1;
    assert!(exec.argv_truncated && exec.argv.starts_with(b"true\0xxx") && exec.argv.ends_with(b"x..."));
    assert!(exec.argv.len() < 32 * 1024, "bounded");
}

#[test]
fn a_number_used_again_is_another_process() {
    if !privileged() {
        return;
    }
    let argv = [c"true".as_ptr(), std::ptr::null()];
    let number = 4242_i32;
    // SAFETY: system calls; in a namespace of its own a process can ask for its number.
    let seen: Seen = watch(|| unsafe {
        if libc::unshare(libc::CLONE_NEWPID) != 0 {
            return 1;
        }
        let init = libc::fork();
        if init == 0 {
            for _ in 0..2 {
                // struct clone_args (include/uapi/linux/sched.h): exit_signal, set_tid, set_tid_size
                let mut arguments = [0_u64; 10];
                arguments[4] = libc::SIGCHLD as u64;
                arguments[8] = &raw const number as u64;
                arguments[9] = 1;
                let child = libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of_val(&arguments));
                if child == 0 {
                    libc::execv(c"/bin/true".as_ptr(), argv.as_ptr());
                    libc::_exit(1);
                }
                libc::waitpid(child as i32, std::ptr::null_mut(), 0);
            }
            libc::_exit(0);
        }
        wait(init as u32)
    });
    let forks: Vec<_> = seen
        .events
        .iter()
        .filter_map(|event| match &event.body {
            Body::Fork(fork) if fork.child_vtid == number as u32 => Some(fork),
            _ => None,
        })
        .collect();
    assert_eq!(forks.len(), 2, "{:?}", seen.events);
    let [first, second] = [forks[0], forks[1]];
    assert!(first.child_start_boottime_ns < second.child_start_boottime_ns, "{first:?} {second:?}");
}
