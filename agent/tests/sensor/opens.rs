//! Opens by every call.

use std::{
    ffi::{CString, OsStr},
    fs,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use purser::{event::EventType, sensor::SensorConfig};

use crate::{
    uring::{OP_OPENAT, OP_OPENAT2, Request, Uring},
    watch::{comparable, config, identity, is_at_least, privileged, skip, tells_io_uring, watch, watch_with},
};

fn c(path: impl AsRef<Path>) -> CString {
    CString::new(path.as_ref().as_os_str().as_bytes()).unwrap()
}

/// How often the race is run.
const ROUNDS: usize = 3000;

/// `struct open_how`
#[repr(C)]
struct How {
    flags: u64,
    mode: u64,
    resolve: u64,
}

#[test]
fn each_call_of_the_family_tells_file_path_name_flags_and_result() {
    if !privileged() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    fs::create_dir(root.join("sub")).unwrap();
    fs::write(root.join("sub/file"), b"content").unwrap();
    fs::set_permissions(root.join("sub/file"), fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink("sub/file", root.join("link")).unwrap();
    let (file, link, sub, created) =
        (c(root.join("sub/file")), c(root.join("link")), c(root.join("sub")), c(root.join("created")));
    let cwd = c(&root);
    // SAFETY: system calls on prepared names.
    let seen = watch(|| unsafe {
        libc::chdir(cwd.as_ptr());
        libc::syscall(libc::SYS_open, file.as_ptr(), libc::O_RDONLY);
        libc::syscall(libc::SYS_open, link.as_ptr(), libc::O_RDWR | libc::O_APPEND);
        libc::openat(libc::AT_FDCWD, c"sub/../link".as_ptr(), libc::O_WRONLY | libc::O_TRUNC);
        let directory = libc::openat(libc::AT_FDCWD, sub.as_ptr(), libc::O_PATH | libc::O_CLOEXEC);
        libc::openat(directory, c"file".as_ptr(), libc::O_RDONLY);
        let how = How { flags: (libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL) as u64, mode: 0o600, resolve: 0 };
        libc::syscall(libc::SYS_openat2, libc::AT_FDCWD, created.as_ptr(), &raw const how, size_of::<How>());
        libc::syscall(libc::SYS_creat, created.as_ptr(), 0o644);
        i32::from(directory < 0)
    });
    let opens = seen.opens();
    let expect = |index: usize, event: EventType, path: &str, name: &[u8], dir: &str, flags: i32| {
        let (header, open) = opens[index];
        assert_eq!(header.header.event, event, "{index}");
        assert_eq!(open.path, root.join(path).as_os_str().as_bytes(), "{index}");
        assert_eq!(open.name, name, "{index}");
        assert_eq!(open.dir, if dir.is_empty() { &b""[..] } else { dir.as_bytes() }, "{index}");
        assert_eq!(open.flags & !(libc::O_LARGEFILE as u32 | 0o100_000), flags as u32, "{index}: {:o}", open.flags);
        assert!(open.fs_path.is_empty() && !open.io_uring, "{index}");
        (open.result, open.mode, open.created, open.dirfd, open.file.unwrap())
    };
    let text = root.to_str().unwrap();
    assert_eq!(opens.len(), 7, "{opens:?}");
    let (result, _, created_now, dirfd, identity_seen) =
        expect(0, EventType::Open, "sub/file", file.as_bytes(), "", libc::O_RDONLY);
    assert!(result >= 3);
    assert_eq!((created_now, dirfd), (false, libc::AT_FDCWD));
    let mut expected = identity(&root.join("sub/file"));
    // It was truncated two calls later.
    expected.size = 7;
    expected.ctime_ns = identity_seen.ctime_ns;
    expected.mtime_ns = identity_seen.mtime_ns;
    assert_eq!(comparable(&identity_seen), expected);
    assert_eq!(identity_seen.magic, magic(&root));
    assert!(!identity_seen.memfd && identity_seen.overlay.is_none() == (identity_seen.magic != 0x794c_7630));

    let next = expect(1, EventType::Open, "sub/file", link.as_bytes(), "", libc::O_RDWR | libc::O_APPEND);
    assert!(next.0 > result, "the descriptor");
    expect(2, EventType::Openat, "sub/file", b"sub/../link", text, libc::O_WRONLY | libc::O_TRUNC);
    let directory = expect(3, EventType::Openat, "sub", sub.as_bytes(), "", libc::O_PATH | libc::O_CLOEXEC).0;
    let sub_text = root.join("sub").to_str().unwrap().to_owned();
    let by_directory = expect(4, EventType::Openat, "sub/file", b"file", &sub_text, libc::O_RDONLY);
    assert_eq!(i64::from(by_directory.3), directory);
    assert_eq!(by_directory.4.size, 0, "truncated by now");
    let (_, mode, created_now, _, file_seen) =
        expect(5, EventType::Openat2, "created", created.as_bytes(), "", libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL);
    assert_eq!((mode, created_now), (0o600, true));
    assert_eq!(file_seen.mode, libc::S_IFREG | 0o600);
    let (_, mode, created_now, ..) =
        expect(6, EventType::Creat, "created", created.as_bytes(), "", libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC);
    assert_eq!((mode, created_now), (0o644, false), "it was there already");
    for (event, _) in &opens {
        assert_eq!(event.task.tgid, seen.child);
    }
}

fn magic(path: &Path) -> u64 {
    // SAFETY: writes the buffer.
    unsafe {
        let mut buffer: libc::statfs = std::mem::zeroed();
        assert_eq!(libc::statfs(c(path).as_ptr(), &raw mut buffer), 0);
        buffer.f_type as u64
    }
}

#[test]
fn reading_by_helper_gives_the_same_as_typed_loads() {
    if !privileged() {
        return;
    }
    let mut both = Vec::new();
    for typed_loads in [true, false] {
        // SAFETY: system calls on constants.
        let trigger = || unsafe {
            libc::chdir(c"/usr".as_ptr());
            i32::from(libc::openat(libc::AT_FDCWD, c"../etc/passwd".as_ptr(), libc::O_RDONLY) < 0)
        };
        let by_helper = SensorConfig { typed_loads: false, ..config() };
        let seen = if typed_loads { watch(trigger) } else { watch_with(&by_helper, trigger) };
        // Other tests of this process hold descriptors that the child inherits.
        both.push(purser::event::Open { result: 0, ..seen.opens()[0].1.clone() });
    }
    assert_eq!(both[0], both[1]);
    assert_eq!(both[0].path, b"/etc/passwd"[..]);
    assert_eq!(both[0].dir, b"/usr"[..]);
}

#[test]
fn failed_opens_tell_what_was_asked_for() {
    if !privileged() {
        return;
    }
    // SAFETY: system calls on constants.
    let seen = watch(|| unsafe {
        libc::chdir(c"/usr".as_ptr());
        libc::openat(libc::AT_FDCWD, c"no/such".as_ptr(), libc::O_RDWR | libc::O_CREAT, 0o600);
        libc::syscall(libc::SYS_open, c"/etc".as_ptr(), libc::O_WRONLY);
        libc::openat(libc::AT_FDCWD, std::ptr::without_provenance(8), libc::O_RDONLY);
        0
    });
    let opens = seen.opens();
    let first = opens[0].1;
    assert_eq!(
        (first.result, first.flags, first.mode),
        (-i64::from(libc::ENOENT), (libc::O_RDWR | libc::O_CREAT) as u32, 0o600)
    );
    assert_eq!((&first.name[..], &first.dir[..], &first.path[..]), (&b"no/such"[..], &b"/usr"[..], &b""[..]));
    assert!(first.file.is_none());
    assert_eq!(opens[1].1.result, -i64::from(libc::EISDIR));
    assert_eq!(opens[2].1.result, -i64::from(libc::EFAULT));
    assert!(opens[2].1.name.is_empty());
    assert_eq!(seen.lost("name_unreadable"), 1);
}

#[test]
fn an_open_by_handle_has_a_path_and_no_name() {
    if !privileged() {
        return;
    }
    // An overlay gives no handles.
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = folder.path().canonicalize().unwrap().join("by-handle");
    fs::write(&path, b"x").unwrap();
    let (name, folder_name) = (c(&path), c(folder.path()));
    // SAFETY: the handle has room for the kernel's largest.
    let seen = watch(|| unsafe {
        let mut handle = [0u32; 34];
        handle[0] = 128;
        let mut mount = 0;
        let got = libc::syscall(
            libc::SYS_name_to_handle_at,
            libc::AT_FDCWD,
            name.as_ptr(),
            handle.as_mut_ptr(),
            &raw mut mount,
            0,
        );
        let at = libc::openat(libc::AT_FDCWD, folder_name.as_ptr(), libc::O_RDONLY);
        let fd = libc::syscall(libc::SYS_open_by_handle_at, at, handle.as_ptr(), libc::O_RDONLY);
        i32::from(got != 0 || fd < 0)
    });
    let (event, open) = seen.opens()[1];
    assert_eq!(event.header.event, EventType::OpenByHandleAt);
    assert_eq!(open.path, path.as_os_str().as_bytes());
    assert!(open.name.is_empty() && open.dir.is_empty());
    assert_eq!(comparable(&open.file.unwrap()), identity(&path));
}

#[test]
fn names_of_any_bytes_and_of_four_kibibytes_come_whole() {
    if !privileged() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    let odd = root.join(OsStr::from_bytes(b"a\xff\x01\n\xc3("));
    fs::write(&odd, b"").unwrap();
    // Sixteen names of 240 bytes: close to PATH_MAX.
    let mut deep = root.clone();
    while deep.as_os_str().len() + 242 < 4096 {
        deep.push("d".repeat(240));
    }
    fs::create_dir_all(&deep).unwrap();
    let (odd_name, deep_name) = (c(&odd), c(&deep));
    // SAFETY: system calls on prepared names.
    let seen = watch(|| unsafe {
        let a = libc::openat(libc::AT_FDCWD, odd_name.as_ptr(), libc::O_RDONLY);
        let b = libc::openat(libc::AT_FDCWD, deep_name.as_ptr(), libc::O_RDONLY);
        i32::from(a < 0 || b < 0)
    });
    let opens = seen.opens();
    for (open, path) in opens.iter().zip([&odd, &deep]) {
        assert_eq!(open.1.path, path.as_os_str().as_bytes());
        assert_eq!(open.1.name, path.as_os_str().as_bytes());
    }
    assert_eq!((opens.len(), seen.lost("path_truncated")), (2, 0));
}

#[test]
fn a_deeper_path_than_is_walked_is_marked_and_counted() {
    if !privileged() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut deep = folder.path().canonicalize().unwrap();
    for _ in 0..200 {
        deep.push("d");
    }
    fs::create_dir_all(&deep).unwrap();
    let name = c(&deep);
    // SAFETY: a system call on a prepared name.
    let seen = watch(|| i32::from(unsafe { libc::openat(libc::AT_FDCWD, name.as_ptr(), libc::O_RDONLY) } < 0));
    let open = seen.opens()[0].1;
    assert!(open.path.starts_with(b".../d/d/"), "{:?}", open.path);
    assert!(open.path.len() > 2 * 64);
    assert_eq!(open.name, deep.as_os_str().as_bytes());
    assert!(seen.lost("path_truncated") >= 1);
}

#[test]
fn a_name_changed_during_the_call_does_not_change_what_is_reported() {
    if !privileged() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    for name in ["a", "b"] {
        fs::write(root.join(name), b"").unwrap();
    }
    let name = c(root.join("a")).into_bytes_with_nul();
    let last = name.len() - 2;
    // SAFETY: shared memory for the child's answers; a byte that two threads write is the very thing under test.
    let (name, opened) = unsafe {
        let shared = |length| {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        let text = shared(4096).cast::<u8>();
        text.copy_from_nonoverlapping(name.as_ptr(), name.len());
        (text, shared(ROUNDS * 8).cast::<AtomicU64>())
    };
    let stop = AtomicBool::new(false);
    let seen = watch(|| {
        let flip = name as usize + last;
        let stop = &stop;
        std::thread::scope(|scope| {
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    // SAFETY: as above.
                    unsafe { (flip as *mut u8).write_volatile((flip as *mut u8).read_volatile() ^ 3) };
                }
            });
            // SAFETY: as above.
            while unsafe { (flip as *const u8).read_volatile() } == b'a' {}
            for round in 0..ROUNDS {
                if round % 100 == 0 {
                    // On a busy machine the other thread needs its turn.
                    // SAFETY: sleeps.
                    unsafe { libc::usleep(100) };
                }
                // SAFETY: system calls on the shared name.
                unsafe {
                    let fd = libc::openat(libc::AT_FDCWD, name.cast(), libc::O_RDONLY);
                    let mut stat: libc::stat = std::mem::zeroed();
                    libc::fstat(fd, &raw mut stat);
                    libc::close(fd);
                    (*opened.add(round)).store(stat.st_ino, Ordering::Relaxed);
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        0
    });
    let inodes = ["a", "b"].map(|name| identity(&root.join(name)).ino);
    let opens: Vec<_> = seen
        .opens()
        .into_iter()
        .map(|(_, open)| open)
        .filter(|open| open.path.starts_with(root.as_os_str().as_bytes()))
        .collect();
    assert_eq!(opens.len(), ROUNDS);
    let mut both = [0, 0];
    for (round, open) in opens.iter().enumerate() {
        // SAFETY: written by the child, which has ended.
        let truth = unsafe { (*opened.add(round)).load(Ordering::Relaxed) };
        assert_eq!(open.file.unwrap().ino, truth, "round {round}");
        let which = usize::from(open.path.ends_with(b"b"));
        assert_eq!(inodes[which], truth, "round {round}: {:?}", open.path);
        both[which] += 1;
    }
    assert!(both.iter().all(|count| *count > 0), "the race was never run: {both:?}");
}

#[test]
fn opens_by_io_uring_are_seen() {
    if !privileged() {
        return;
    }
    if !tells_io_uring("opens_by_io_uring_are_seen") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    fs::write(root.join("there"), b"").unwrap();
    let (cwd, there) = (c(&root), c(root.join("there")));
    let how = How { flags: libc::O_RDONLY as u64, mode: 0, resolve: 0 };
    let flags = (libc::O_CREAT | libc::O_RDWR | libc::O_CLOEXEC) as u32;
    let seen = watch(|| {
        // SAFETY: a system call on a prepared name.
        unsafe { libc::chdir(cwd.as_ptr()) };
        let Ok(ring) = Uring::new() else { return 1 };
        let open = Request { fd: libc::AT_FDCWD, ..Request::default() };
        let made = ring.run(Request {
            opcode: OP_OPENAT,
            addr: c"made".as_ptr() as u64,
            len: 0o600,
            open_flags: flags,
            ..open
        });
        let by_how = ring.run(Request {
            opcode: OP_OPENAT2,
            addr: there.as_ptr() as u64,
            len: 24,
            off: &raw const how as u64,
            ..open
        });
        let failed = ring.run(Request { opcode: OP_OPENAT, addr: c"absent".as_ptr() as u64, ..open });
        i32::from(made < 0 || by_how < 0 || failed != -libc::ENOENT)
    });
    let opens: Vec<_> = seen.opens().into_iter().filter(|(_, open)| open.io_uring).collect();
    assert_eq!(opens.len(), 3, "{:?}", seen.opens());
    let (event, made) = opens[0];
    assert_eq!(event.header.event, EventType::IoUringOpenat);
    assert_eq!(event.header.event.name(), "openat");
    assert_eq!(made.path, root.join("made").as_os_str().as_bytes());
    assert_eq!((&made.name[..], &made.dir[..]), (&b"made"[..], root.as_os_str().as_bytes()));
    assert_eq!((made.mode, made.created, made.dirfd), (0o600, true, libc::AT_FDCWD));
    assert_eq!(made.flags & flags, flags);
    assert_eq!(made.file.unwrap().ino, identity(&root.join("made")).ino);
    let (event, by_how) = opens[1];
    assert_eq!(event.header.event, EventType::IoUringOpenat2);
    assert_eq!(by_how.path, root.join("there").as_os_str().as_bytes());
    assert_eq!(comparable(&by_how.file.unwrap()), identity(&root.join("there")));
    assert_eq!((opens[2].1.result, &opens[2].1.name[..]), (-i64::from(libc::ENOENT), &b"absent"[..]));
}

/// A 32-bit call from a 64-bit program.
#[cfg(target_arch = "x86_64")]
#[test]
fn a_32_bit_call_is_seen() {
    if !privileged() {
        return;
    }
    // SAFETY: a page below 4 GiB for the name; ebx is the compiler's own and is put back.
    let seen = watch(|| unsafe {
        let page = libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT,
            -1,
            0,
        )
        .cast::<u8>();
        let name = c"/etc/passwd".to_bytes_with_nul();
        page.copy_from_nonoverlapping(name.as_ptr(), name.len());
        let result: i64;
        std::arch::asm!("push rbx", "mov ebx, edi", "int 0x80", "pop rbx",
            inlateout("rax") 5_i64 => result, in("rdi") page, in("rcx") 0, in("rdx") 0, lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _);
        // ENOSYS where the kernel takes no 32-bit calls.
        if result < 0 { 2 } else { 0 }
    });
    let (event, open) = seen.opens()[0];
    assert_eq!(event.header.event, EventType::Open);
    assert_eq!((&open.path[..], &open.name[..]), (&b"/etc/passwd"[..], &b"/etc/passwd"[..]));
}

#[test]
fn a_bind_mount_shows_the_path_on_its_own_file_system_too() {
    if !privileged() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    for name in ["secret", "mounted", "tmp"] {
        fs::create_dir(root.join(name)).unwrap();
    }
    fs::write(root.join("secret/key"), b"").unwrap();
    let names = ["secret", "mounted", "tmp", "mounted/key", "tmp/file"].map(|name| c(root.join(name)));
    // SAFETY: system calls in an own mount namespace.
    let seen = watch(|| unsafe {
        let none = std::ptr::null();
        if libc::unshare(libc::CLONE_NEWNS) != 0
            || libc::mount(none, c"/".as_ptr(), none, libc::MS_REC | libc::MS_PRIVATE, none.cast()) != 0
            || libc::mount(names[0].as_ptr(), names[1].as_ptr(), none, libc::MS_BIND, none.cast()) != 0
            || libc::mount(none, names[2].as_ptr(), c"tmpfs".as_ptr(), 0, none.cast()) != 0
        {
            return 1;
        }
        let a = libc::openat(libc::AT_FDCWD, names[3].as_ptr(), libc::O_RDONLY);
        let b = libc::openat(libc::AT_FDCWD, names[4].as_ptr(), libc::O_RDWR | libc::O_CREAT, 0o600);
        i32::from(a < 0 || b < 0)
    });
    let opens = seen.opens();
    assert_eq!(opens[0].1.path, root.join("mounted/key").as_os_str().as_bytes());
    assert!(opens[0].1.fs_path.ends_with(b"/secret/key"), "{:?}", opens[0].1.fs_path);
    assert_eq!(opens[1].1.path, root.join("tmp/file").as_os_str().as_bytes());
    assert!(opens[1].1.fs_path.is_empty());
    assert!(!opens[1].1.file.unwrap().on_rootfs, "a tmpfs is not the root");
    assert_eq!(opens[1].1.file.unwrap().magic, 0x0102_1994);
}

#[test]
fn an_overlay_file_tells_its_layer_and_real_inode() {
    if !privileged() {
        return;
    }
    // The upper layer cannot be on an overlay, as everything is in a container.
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let root = folder.path().canonicalize().unwrap();
    for name in ["lower1", "lower2", "upper", "work", "merged"] {
        fs::create_dir(root.join(name)).unwrap();
    }
    fs::write(root.join("lower1/top"), b"1").unwrap();
    fs::write(root.join("lower2/bottom"), b"22").unwrap();
    fs::write(root.join("lower2/copied"), b"333").unwrap();
    let text = root.to_str().unwrap();
    let options =
        CString::new(format!("lowerdir={text}/lower1:{text}/lower2,upperdir={text}/upper,workdir={text}/work"))
            .unwrap();
    let merged = c(root.join("merged"));
    // SAFETY: system calls in an own mount namespace.
    let seen = watch(|| unsafe {
        let none = std::ptr::null();
        if libc::unshare(libc::CLONE_NEWNS) != 0
            || libc::mount(none, c"/".as_ptr(), none, libc::MS_REC | libc::MS_PRIVATE, none.cast()) != 0
            || libc::mount(none, merged.as_ptr(), c"overlay".as_ptr(), 0, options.as_ptr().cast()) != 0
            || libc::chroot(merged.as_ptr()) != 0
            || libc::chdir(c"/".as_ptr()) != 0
            || libc::chmod(c"copied".as_ptr(), 0o600) != 0
        {
            return 1;
        }
        for name in [c"/top", c"/bottom", c"/copied"] {
            libc::openat(libc::AT_FDCWD, name.as_ptr(), libc::O_RDONLY);
        }
        libc::openat(libc::AT_FDCWD, c"/new".as_ptr(), libc::O_RDWR | libc::O_CREAT, 0o600);
        0
    });
    let opens = seen.opens();
    assert_eq!(opens.len(), 4);
    let cases = [
        ("top", "lower1/top", false, true, 1),
        ("bottom", "lower2/bottom", false, true, 2),
        ("copied", "upper/copied", true, true, 0),
        ("new", "upper/new", true, false, 0),
    ];
    let tells_layer = is_at_least(5, 19);
    if !tells_layer {
        skip("an_overlay_file_tells_its_layer_and_real_inode", "the number of an overlay's layer (5.19 on)");
    }
    for ((_, open), (name, real, upper, has_lower, layer)) in opens.iter().zip(cases) {
        let file = open.file.unwrap();
        let overlay = file.overlay.unwrap();
        let real = identity(&root.join(real));
        // A chroot does not shorten the path.
        assert_eq!(open.path, root.join("merged").join(name).as_os_str().as_bytes());
        assert_eq!(
            (overlay.upper, overlay.has_lower, overlay.layer),
            (upper, has_lower, if tells_layer { layer } else { 0 }),
            "{name}"
        );
        assert_eq!((overlay.real_dev, overlay.real_ino), (real.dev, real.ino), "{name}");
        assert_eq!((overlay.real_size, overlay.real_ctime_ns), (real.size, real.ctime_ns), "{name}");
        assert_eq!(file.magic, 0x794c_7630);
    }
}
