//! The program that test containers run: one static file whose first argument says what to do. Without arguments it
//! does nothing and succeeds, under whatever name it was copied to. It is the system under observation, so it makes its calls
//! directly and reports only what the kernel answered: `RESULT` of the call as a number, negative for an errno.

use std::ffi::{CString, c_char, c_int, c_long, c_uint, c_void};
use std::os::fd::{AsRawFd as _, FromRawFd as _, IntoRawFd as _};
use std::os::unix::ffi::OsStringExt;
use std::time::{Duration, Instant};
use std::{env, fs, io, process, ptr, thread};

mod stage;

mod sys {
    use super::{c_char, c_int, c_long, c_uint, c_void};

    unsafe extern "C" {
        pub(super) fn syscall(number: c_long, ...) -> c_long;
        pub(super) fn memfd_create(name: *const c_char, flags: c_uint) -> c_int;
        pub(super) fn fork() -> c_int;
        pub(super) fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
        pub(super) fn execve(path: *const c_char, argv: *const *const c_char, envp: *const *const c_char) -> c_int;
        pub(super) fn mmap(a: *mut c_void, n: usize, prot: c_int, flags: c_int, fd: c_int, off: i64) -> *mut c_void;
        pub(super) fn setsid() -> c_int;
        pub(super) fn dup(fd: c_int) -> c_int;
        pub(super) fn dup2(from: c_int, to: c_int) -> c_int;
        pub(super) fn ioctl(fd: c_int, request: u64, ...) -> c_int;
        pub(super) fn setgid(gid: c_uint) -> c_int;
        pub(super) fn setuid(uid: c_uint) -> c_int;
        pub(super) fn _exit(status: c_int) -> !;
    }

    #[cfg(target_arch = "x86_64")]
    mod numbers {
        pub(crate) const CLOCK_GETTIME: i64 = 228;
        pub(crate) const READ: i64 = 0;
        pub(crate) const WRITE: i64 = 1;
        pub(crate) const CLOSE: i64 = 3;
        pub(crate) const GETPID: i64 = 39;
        pub(crate) const OPENAT: i64 = 257;
        pub(crate) const EXECVEAT: i64 = 322;
        pub(crate) const SOCKET: i64 = 41;
        pub(crate) const CONNECT: i64 = 42;
        pub(crate) const NAME_TO_HANDLE_AT: i64 = 303;
        pub(crate) const OPEN_BY_HANDLE_AT: i64 = 304;
    }
    #[cfg(target_arch = "aarch64")]
    mod numbers {
        pub(crate) const CLOCK_GETTIME: i64 = 113;
        pub(crate) const READ: i64 = 63;
        pub(crate) const WRITE: i64 = 64;
        pub(crate) const CLOSE: i64 = 57;
        pub(crate) const GETPID: i64 = 172;
        pub(crate) const OPENAT: i64 = 56;
        pub(crate) const EXECVEAT: i64 = 281;
        pub(crate) const SOCKET: i64 = 198;
        pub(crate) const CONNECT: i64 = 203;
        pub(crate) const NAME_TO_HANDLE_AT: i64 = 264;
        pub(crate) const OPEN_BY_HANDLE_AT: i64 = 265;
    }
    pub(super) use numbers::*;
    pub(super) const OPENAT2: i64 = 437;
    pub(super) const IO_URING_SETUP: i64 = 425;
    pub(super) const IO_URING_ENTER: i64 = 426;
    pub(super) const AT_FDCWD: i64 = -100;
    pub(super) const AT_EMPTY_PATH: i64 = 0x1000;
}

const EINPROGRESS: i64 = -115;

/// A call's result as the kernel gives it.
macro_rules! call {
    ($($argument:expr),+ $(,)?) => {{
        // SAFETY: every pointer passed lives until the call returns; the kernel checks the rest.
        let result = unsafe { sys::syscall($($argument),+) };
        if result < 0 { -i64::from(io::Error::last_os_error().raw_os_error().unwrap_or(0)) } else { result }
    }};
}

fn main() {
    let mut args: Vec<Vec<u8>> = env::args_os().skip(1).map(OsStringExt::into_vec).collect();
    if args.is_empty() {
        return;
    }
    let command = String::from_utf8_lossy(&args.remove(0)).into_owned();
    match run(&command, &args) {
        Ok(code) => process::exit(code),
        Err(error) => {
            eprintln!("{command}: {error}");
            process::exit(1);
        }
    }
}

fn run(command: &str, args: &[Vec<u8>]) -> io::Result<i32> {
    let text = |at: usize| args.get(at).map(|arg| String::from_utf8_lossy(arg).into_owned()).unwrap_or_default();
    let name = |at: usize| c_string(args.get(at).map_or(&[][..], Vec::as_slice));
    let number =
        |at: usize| text(at).parse::<u64>().map_err(|error| io::Error::other(format!("{}: {error}", text(at))));
    let result = match command {
        "exit" => return Ok(number(0)? as i32),
        "sleep" => {
            thread::sleep(Duration::from_secs_f64(text(0).parse().map_err(io::Error::other)?));
            0
        }
        // copy-unique SOURCE TARGET: the same program with 32 random bytes after its end.
        "copy-unique" => {
            let mut bytes = fs::read(text(0))?;
            let mut random = [0_u8; 32];
            io::Read::read_exact(&mut fs::File::open("/dev/urandom")?, &mut random)?;
            bytes.extend_from_slice(&random);
            fs::write(text(1), &bytes)?;
            fs::set_permissions(text(1), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
            return Ok(0);
        }
        // memfd PROGRAM [ARGS]: runs PROGRAM with random bytes after its end from a memfd.
        "memfd" => {
            let mut bytes = fs::read(text(0))?;
            let mut random = [0_u8; 32];
            io::Read::read_exact(&mut fs::File::open("/dev/urandom")?, &mut random)?;
            bytes.extend_from_slice(&random);
            // SAFETY: the name is a C string literal.
            let fd = unsafe { sys::memfd_create(c"payload".as_ptr(), 1) };
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            // SAFETY: `fd` was just made and is owned by nothing else.
            let mut file = unsafe { fs::File::from_raw_fd(fd) };
            io::Write::write_all(&mut file, &bytes)?;
            exec_fd(file.into_raw_fd(), &args[..1], args.get(1..).unwrap_or_default())
        }
        // unlinked PROGRAM [ARGS]: opens PROGRAM, removes its name and runs it.
        "unlinked" => {
            let file = fs::File::open(text(0))?;
            fs::remove_file(text(0))?;
            exec_fd(file.into_raw_fd(), &args[..1], args.get(1..).unwrap_or_default())
        }
        // execve PROGRAM [ARGS]
        "execve" => exec_path(args),
        // execveat PROGRAM [ARGS]
        "execveat" => {
            let file = fs::File::open(text(0))?;
            exec_fd(file.into_raw_fd(), &args[..1], args.get(1..).unwrap_or_default())
        }
        // openat PATH FLAGS [MODE]
        "openat" => call!(sys::OPENAT, sys::AT_FDCWD, name(0)?.as_ptr(), number(1)?, number(2).unwrap_or(0o644)),
        #[cfg(target_arch = "x86_64")]
        "open" => call!(2_i64, name(0)?.as_ptr(), number(1)?, number(2).unwrap_or(0o644)),
        #[cfg(target_arch = "x86_64")]
        "creat" => call!(85_i64, name(0)?.as_ptr(), number(1).unwrap_or(0o644)),
        // open-when SIGN PATH: opens PATH once SIGN is there, and stays for a while
        "open-when" => {
            while !fs::exists(text(0))? {
                thread::sleep(Duration::from_millis(5));
            }
            let opened = call!(sys::OPENAT, sys::AT_FDCWD, name(1)?.as_ptr(), 0_i64, 0_i64);
            thread::sleep(Duration::from_secs(5));
            opened
        }
        // openat2 PATH FLAGS [MODE]
        "openat2" => {
            let how = [number(1)?, number(2).unwrap_or(0), 0_u64];
            call!(sys::OPENAT2, sys::AT_FDCWD, name(0)?.as_ptr(), how.as_ptr(), size_of_val(&how))
        }
        // open-handle PATH FLAGS
        "open-handle" => open_by_handle(&name(0)?, number(1)?),
        // connect ADDRESS [udp|begin]: IPv4:PORT, [IPv6]:PORT or a path of a unix socket; `begin` does not wait for an answer
        "connect" => {
            let (family, address) = socket_address(&args[0])?;
            let kind = match text(1).as_str() {
                "udp" => 2_i64,
                "begin" => 1 | 0o4000,
                _ => 1,
            };
            let fd = call!(sys::SOCKET, i64::from(family), kind, 0_i64);
            match call!(sys::CONNECT, fd, address.as_ptr(), address.len()) {
                EINPROGRESS if text(1) == "begin" => 0,
                result => result,
            }
        }
        // attempt CALL [ARGUMENTS]: makes the call, whatever comes of it; an argument is a number, or @TEXT for its address
        "attempt" => {
            println!("{}", stage::attempt(&text(0), args.get(1..).unwrap_or_default())?);
            0
        }
        // redirect ADDRESS FD: connects, and makes the socket the descriptor FD
        "redirect" => {
            let (family, address) = socket_address(&args[0])?;
            let fd = call!(sys::SOCKET, i64::from(family), 2_i64, 0_i64);
            let connected = call!(sys::CONNECT, fd, address.as_ptr(), address.len());
            if connected < 0 { connected } else { stage::duplicate(fd as i32, number(1)? as i32) }
        }
        // after SECONDS COMMAND [ARGS]: the command, when the process is that much older
        "after" => {
            thread::sleep(Duration::from_secs_f64(text(0).parse().map_err(io::Error::other)?));
            return run(&text(1), args.get(2..).unwrap_or_default());
        }
        // terminal PROGRAM [ARGS]: becomes PROGRAM, as leader of a new session with a terminal of its own
        "terminal" => {
            stage::terminal()?;
            exec_path(args)
        }
        // user UID PROGRAM [ARGS]: becomes PROGRAM as that user and group
        "user" => {
            let id = number(0)? as u32;
            // SAFETY: takes no pointers.
            if unsafe { sys::setgid(id) != 0 || sys::setuid(id) != 0 } {
                return Err(io::Error::last_os_error());
            }
            exec_path(args.get(1..).unwrap_or_default())
        }
        // with NAME=VALUE PROGRAM [ARGS]: becomes PROGRAM with this in its environment
        "with" => {
            let (name, value) = args[0].split_at(args[0].iter().position(|b| *b == b'=').unwrap_or(args[0].len()));
            stage::set_variable(name, value.get(1..).unwrap_or_default());
            exec_path(args.get(1..).unwrap_or_default())
        }
        // in DIRECTORY PROGRAM [ARGS]: becomes PROGRAM there
        "in" => {
            env::set_current_dir(text(0))?;
            exec_path(args.get(1..).unwrap_or_default())
        }
        // batch FILE: every line of it is a program to run, its parts between tabs. The first part is the value of the
        // variable TRIGGER in its environment, and is printed before its status. Lines that begin with & run beside the others.
        "batch" => return stage::batch(&fs::read(text(0))?),
        // uring-open PATH FLAGS
        "uring-open" => {
            let path = name(0)?;
            // IORING_OP_OPENAT: fd, addr = path, len = mode, open_flags
            uring(&Submission {
                opcode: 18,
                fd: -100,
                addr: path.as_ptr() as u64,
                len: 0o644,
                flags: number(1)? as u32,
                off: 0,
            })?
        }
        // uring-connect ADDRESS
        "uring-connect" => {
            let (family, address) = socket_address(&args[0])?;
            let fd = call!(sys::SOCKET, i64::from(family), 1_i64, 0_i64) as i32;
            // IORING_OP_CONNECT: fd, addr = sockaddr, off = its length
            let (addr, off) = (address.as_ptr() as u64, address.len() as u64);
            uring(&Submission { opcode: 16, fd, addr, len: 0, flags: 0, off })?
        }
        // repeat-open PATH SECONDS RATE: opens and closes at RATE a second, prints how often
        "repeat-open" => repeat_open(&name(0)?, number(1)?, number(2)?),
        // measure OPERATION COUNT PATH: prints ns per operation
        "measure" => return measure(&text(0), number(1)?, &name(2)?),
        // stamped COUNT PAUSE_MS SOURCE PREFIX: starts COUNT new programs PREFIX-N, and prints N and the time just before each
        "stamped" => {
            for at in 0..number(0)? {
                let program = format!("{}-{at}", text(3));
                run("copy-unique", &[args[2].clone(), program.clone().into_bytes()])?;
                thread::sleep(Duration::from_millis(number(1)?));
                let now = monotonic_ns();
                spawn(&[program.into_bytes()])?;
                println!("{at} {now}");
            }
            return Ok(0);
        }
        // thread COMMAND [ARGS]: the command, from a second thread
        "thread" => {
            let (command, args) = (text(0), args[1..].to_vec());
            return thread::spawn(move || run(&command, &args)).join().map_err(|_| io::Error::other("panicked"))?;
        }
        // times COUNT PROGRAM [ARGS]: runs PROGRAM that often, one after the other
        "times" => {
            for _ in 0..number(0)? {
                spawn(&args[1..])?;
            }
            0
        }
        // Under another name it plays that program: whatever its arguments, it has been run with them.
        _ if env::args_os().next().is_some_and(|own| !own.as_encoded_bytes().ends_with(b"payload")) => return Ok(0),
        other => return Err(io::Error::other(format!("no such command: {other}"))),
    };
    println!("{result}");
    Ok(i32::from(result < 0))
}

fn c_string(bytes: &[u8]) -> io::Result<CString> {
    CString::new(bytes).map_err(io::Error::other)
}

struct Pointers {
    _strings: Vec<CString>,
    pointers: Vec<*const c_char>,
}

fn pointers(args: impl Iterator<Item = Vec<u8>>) -> Pointers {
    let strings: Vec<CString> = args.filter_map(|arg| CString::new(arg).ok()).collect();
    let pointers = strings.iter().map(|arg| arg.as_ptr()).chain([ptr::null()]).collect();
    Pointers { _strings: strings, pointers }
}

fn environment() -> Pointers {
    pointers(env::vars_os().map(|(name, value)| [name.into_vec(), value.into_vec()].join(&b'=')))
}

fn exec_fd(fd: c_int, name: &[Vec<u8>], args: &[Vec<u8>]) -> i64 {
    let argv = pointers(name.iter().chain(args).cloned());
    let envp = environment();
    call!(
        sys::EXECVEAT,
        i64::from(fd),
        c"".as_ptr(),
        argv.pointers.as_ptr(),
        envp.pointers.as_ptr(),
        sys::AT_EMPTY_PATH
    )
}

/// Becomes `args[0]`; one without a slash is looked for beside this program.
fn exec_path(args: &[Vec<u8>]) -> i64 {
    let mut args = args.to_vec();
    if let Some(name) = args.first_mut().filter(|name| !name.contains(&b'/')) {
        let Some(beside) = env::current_exe().ok().and_then(|own| Some(own.parent()?.to_owned())) else { return -2 };
        *name = [beside.into_os_string().into_vec(), name.clone()].join(&b'/');
    }
    let argv = pointers(args.iter().cloned());
    let envp = environment();
    // SAFETY: both arrays end with a null pointer and live on.
    unsafe { sys::execve(argv.pointers[0], argv.pointers.as_ptr(), envp.pointers.as_ptr()) };
    -i64::from(io::Error::last_os_error().raw_os_error().unwrap_or(0))
}

fn spawn(args: &[Vec<u8>]) -> io::Result<()> {
    // SAFETY: this program has one thread here; the child only execs or exits.
    let pid = unsafe { sys::fork() };
    if pid == 0 {
        exec_path(args);
        // SAFETY: ends the child without running the parent's handlers.
        unsafe { sys::_exit(127) };
    }
    let mut status = 0;
    // SAFETY: `status` outlives the call.
    if pid < 0 || unsafe { sys::waitpid(pid, &raw mut status, 0) } != pid {
        return Err(io::Error::last_os_error());
    }
    if status == 0 { Ok(()) } else { Err(io::Error::other(format!("the program ended with status {status:#x}"))) }
}

/// `CLOCK_MONOTONIC`, ns.
fn monotonic_ns() -> i64 {
    let mut now = [0_i64; 2];
    call!(sys::CLOCK_GETTIME, 1_i64, now.as_mut_ptr());
    now[0] * 1_000_000_000 + now[1]
}

fn open_by_handle(path: &CString, flags: u64) -> i64 {
    #[repr(C)]
    struct Handle {
        bytes: u32,
        kind: i32,
        data: [u8; 128],
    }
    let mut handle = Handle { bytes: 128, kind: 0, data: [0; 128] };
    let mut mount = 0_i32;
    let named = call!(sys::NAME_TO_HANDLE_AT, sys::AT_FDCWD, path.as_ptr(), &raw mut handle, &raw mut mount, 0_i64);
    if named < 0 {
        return named;
    }
    let Ok(directory) = fs::File::open("/") else { return -2 };
    call!(sys::OPEN_BY_HANDLE_AT, i64::from(directory.as_raw_fd()), &raw mut handle, flags)
}

/// A `sockaddr` and its family.
fn socket_address(text: &[u8]) -> io::Result<(u16, Vec<u8>)> {
    if text.starts_with(b"/") || text.starts_with(b"@") {
        let mut address = 1_u16.to_ne_bytes().to_vec();
        address.extend(text.strip_prefix(b"@").map_or_else(|| text.to_vec(), |name| [b"\0", name].concat()));
        if text.starts_with(b"/") {
            address.push(0);
        }
        return Ok((1, address));
    }
    match String::from_utf8_lossy(text).parse().map_err(io::Error::other)? {
        std::net::SocketAddr::V4(address) => {
            let mut bytes = 2_u16.to_ne_bytes().to_vec();
            bytes.extend(address.port().to_be_bytes());
            bytes.extend(address.ip().octets());
            bytes.resize(16, 0);
            Ok((2, bytes))
        }
        std::net::SocketAddr::V6(address) => {
            let mut bytes = 10_u16.to_ne_bytes().to_vec();
            bytes.extend(address.port().to_be_bytes());
            bytes.extend([0; 4]);
            bytes.extend(address.ip().octets());
            bytes.extend([0; 4]);
            Ok((10, bytes))
        }
    }
}

struct Submission {
    opcode: u8,
    fd: i32,
    addr: u64,
    len: u32,
    flags: u32,
    off: u64,
}

/// Submits one request through a ring of its own and waits for its result (`include/uapi/linux/io_uring.h`).
fn uring(submission: &Submission) -> io::Result<i64> {
    let mut params = [0_u32; 30];
    let fd = call!(sys::IO_URING_SETUP, 1_i64, params.as_mut_ptr());
    if fd < 0 {
        return Ok(fd);
    }
    let map = |length: usize, offset: i64| {
        // SAFETY: maps the ring's own memory, shared, at an address that the kernel chooses.
        let at = unsafe { sys::mmap(ptr::null_mut(), length, 3, 1, fd as c_int, offset) };
        if at as isize == -1 { Err(io::Error::last_os_error()) } else { Ok(at.cast::<u8>()) }
    };
    // params: [0] sq_entries, [1] cq_entries, [10..20] sq_off, [20..30] cq_off
    let (tail, array) = (params[11] as usize, params[16] as usize);
    let (completion_head, completions) = (params[20] as usize, params[25] as usize);
    let entries = map(64, 0x1000_0000)?;
    let submissions = map(array + 4, 0)?;
    let completed = map(completions + 32, 0x800_0000)?;
    // SAFETY: offsets are the kernel's own for memory of these sizes, nothing else uses the ring.
    unsafe {
        entries.write(submission.opcode);
        entries.add(4).cast::<i32>().write(submission.fd);
        entries.add(8).cast::<u64>().write(submission.off);
        entries.add(16).cast::<u64>().write(submission.addr);
        entries.add(24).cast::<u32>().write(submission.len);
        entries.add(28).cast::<u32>().write(submission.flags);
        submissions.add(array).cast::<u32>().write(0);
        submissions.add(tail).cast::<u32>().write_volatile(1);
    }
    let entered = call!(sys::IO_URING_ENTER, fd, 1_i64, 1_i64, 1_i64, ptr::null::<c_void>(), 0_i64);
    if entered < 0 {
        return Ok(entered);
    }
    // SAFETY: as above; io_uring_enter returned after the completion was written. A completion is user_data u64, res i32.
    let result = unsafe {
        let head = completed.add(completion_head).cast::<u32>().read_volatile();
        completed.add(completions + head as usize * 16 + 8).cast::<i32>().read_volatile()
    };
    Ok(i64::from(result))
}

fn open_close(path: &CString) -> bool {
    let fd = call!(sys::OPENAT, sys::AT_FDCWD, path.as_ptr(), 0o2_000_000_i64, 0_i64);
    fd >= 0 && call!(sys::CLOSE, fd) == 0
}

fn repeat_open(path: &CString, seconds: u64, rate: u64) -> i64 {
    let start = Instant::now();
    let mut opened = 0_u64;
    while start.elapsed() < Duration::from_secs(seconds) {
        let due = (start.elapsed().as_micros() as u64).saturating_mul(rate) / 1_000_000;
        while opened < due {
            if !open_close(path) {
                return -1;
            }
            opened += 1;
        }
        std::hint::spin_loop();
    }
    opened as i64
}

fn measure(operation: &str, count: u64, path: &CString) -> io::Result<i32> {
    let zero = fs::File::open("/dev/zero")?;
    let null = fs::OpenOptions::new().write(true).open("/dev/null")?;
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let mut byte = [0_u8; 1];
    let program = vec![path.as_bytes().to_vec()];
    let mut once = || -> io::Result<()> {
        let done = match operation {
            "getpid" => call!(sys::GETPID) > 0,
            "read" => call!(sys::READ, i64::from(zero.as_raw_fd()), byte.as_mut_ptr(), 1_usize) == 1,
            "write" => call!(sys::WRITE, i64::from(null.as_raw_fd()), byte.as_ptr(), 1_usize) == 1,
            "open" => open_close(path),
            "exec" => return spawn(&program),
            "connect" => {
                let client = std::net::TcpStream::connect(address)?;
                drop(listener.accept()?);
                drop(client);
                true
            }
            other => return Err(io::Error::other(format!("no such operation: {other}"))),
        };
        if done { Ok(()) } else { Err(io::Error::other(format!("{operation} failed"))) }
    };
    for _ in 0..count / 10 + 1 {
        once()?;
    }
    let start = Instant::now();
    for _ in 0..count {
        once()?;
    }
    println!("{:.2}", start.elapsed().as_nanos() as f64 / count as f64);
    Ok(0)
}
