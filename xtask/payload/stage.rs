//! What surrounds a program that plays a part: its terminal, its environment, and others run after one another.

use std::ffi::{CString, OsStr, c_int};
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::{env, fs, io};

use super::{exec_path, sys};

/// For this process and those it starts.
pub(super) fn set_variable(name: &[u8], value: &[u8]) {
    // SAFETY: this program has one thread here.
    unsafe { env::set_var(OsStr::from_bytes(name), OsStr::from_bytes(value)) };
}

/// A new session whose terminal is the other end of a new pseudo terminal, which stays open.
pub(super) fn terminal() -> io::Result<()> {
    // `include/uapi/asm-generic/ioctls.h`
    const TIOCGPTN: u64 = 0x8004_5430;
    const TIOCSPTLCK: u64 = 0x4004_5431;
    let master = fs::OpenOptions::new().read(true).write(true).open("/dev/ptmx")?;
    let (mut number, unlocked) = (0_u32, 0_i32);
    // The copy stays open in the program that this process becomes: without it the terminal would be gone.
    // SAFETY: both pointers are to integers that outlive the calls.
    if unsafe {
        let master = sys::dup(master.as_raw_fd());
        sys::ioctl(master, TIOCSPTLCK, &raw const unlocked) != 0
            || sys::ioctl(master, TIOCGPTN, &raw mut number) != 0
            || sys::setsid() < 0
    } {
        return Err(io::Error::last_os_error());
    }
    // The first terminal that a session's leader opens becomes its own.
    let terminal = fs::OpenOptions::new().read(true).write(true).open(format!("/dev/pts/{number}"))?;
    // SAFETY: takes no pointers.
    if unsafe { sys::dup2(terminal.as_raw_fd(), 0) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Runs the lines of `text`; prints the token and the wait status of each.
pub(super) fn batch(text: &[u8]) -> io::Result<i32> {
    let mut beside = Vec::new();
    for line in text.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
        let mut parts: Vec<Vec<u8>> = line.split(|b| *b == b'\t').map(<[u8]>::to_vec).collect();
        let waits = parts[0].first() != Some(&b'&');
        let token = parts.remove(0).split_off(usize::from(!waits));
        // SAFETY: this program has one thread here; the child only execs or exits.
        let pid = unsafe { sys::fork() };
        if pid == 0 {
            set_variable(b"TRIGGER", &token);
            exec_path(&parts);
            // SAFETY: ends the child without running the parent's handlers.
            unsafe { sys::_exit(127) };
        }
        if waits {
            ended(pid, &token)?;
        } else {
            beside.push((pid, token));
        }
    }
    for (pid, token) in beside {
        ended(pid, &token)?;
    }
    Ok(0)
}

fn ended(pid: c_int, token: &[u8]) -> io::Result<()> {
    let mut status = 0;
    // SAFETY: `status` outlives the call.
    if pid < 0 || unsafe { sys::waitpid(pid, &raw mut status, 0) } != pid {
        return Err(io::Error::last_os_error());
    }
    println!("batch {} {status}", String::from_utf8_lossy(token));
    Ok(())
}

/// The number of a call that this program makes for its own sake.
fn number_of(call: &str) -> Option<i64> {
    #[cfg(target_arch = "x86_64")]
    const CALLS: &[(&str, i64)] = &[
        ("symlinkat", 266),
        ("linkat", 265),
        ("socket", 41),
        ("finit_module", 313),
        ("ptrace", 101),
        ("setns", 308),
        ("unshare", 272),
        ("setuid", 105),
        ("fchmodat", 268),
        ("bpf", 321),
        ("unlinkat", 263),
        ("mkdirat", 258),
        ("userfaultfd", 323),
    ];
    #[cfg(target_arch = "aarch64")]
    const CALLS: &[(&str, i64)] = &[
        ("symlinkat", 36),
        ("linkat", 37),
        ("socket", 198),
        ("finit_module", 273),
        ("ptrace", 117),
        ("setns", 268),
        ("unshare", 97),
        ("setuid", 146),
        ("fchmodat", 53),
        ("bpf", 280),
        ("unlinkat", 35),
        ("mkdirat", 34),
        ("userfaultfd", 282),
    ];
    CALLS.iter().find(|(name, _)| *name == call).map(|(_, number)| *number)
}

/// Makes the call called `name`; gives its result as the kernel does.
pub(super) fn attempt(name: &str, args: &[Vec<u8>]) -> io::Result<i64> {
    let number = number_of(name).ok_or_else(|| io::Error::other(format!("no such call: {name}")))?;
    let mut texts = Vec::new();
    let mut values = [0_i64; 6];
    for (value, arg) in values.iter_mut().zip(args) {
        *value = if let Some(text) = arg.strip_prefix(b"@") {
            let text = CString::new(text).map_err(io::Error::other)?;
            texts.push(text);
            texts.last().map_or(0, |text| text.as_ptr() as i64)
        } else {
            String::from_utf8_lossy(arg).parse().map_err(io::Error::other)?
        };
    }
    let [a, b, c, d, e, f] = values;
    // SAFETY: the texts live on until the call returns; the kernel checks the rest.
    let result = unsafe { sys::syscall(number, a, b, c, d, e, f) };
    Ok(if result < 0 { -i64::from(io::Error::last_os_error().raw_os_error().unwrap_or(0)) } else { result })
}

/// `dup2`
pub(super) fn duplicate(from: c_int, to: c_int) -> i64 {
    // SAFETY: takes no pointers.
    i64::from(unsafe { sys::dup2(from, to) })
}
