//! What the programs in the kernel add to operations: `cargo xtask bench hooks`, or as root
//! `cargo bench -p agent --bench hooks -- ROUNDS [ROW...]`. Prints figures as JSON.
//!
//! A child repeats an operation in short batches. Between two batches the sensor is given another policy, which takes
//! milliseconds: so each round has every policy, and the machine's moods hit all of them alike. Records are
//! drained between batches, and never looked at: the agent's own work is another figure.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a tool for the terminal")]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]

use std::ffi::CString;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use purser::event::EventType;
use purser::sensor::{EventSet, Policy, Sensor, SensorConfig};
use serde_json::{Value as Json, json};

/// An operation of the child.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Getpid,
    Read,
    Write,
    Open,
    Connect,
    Exec,
}

/// Of so many batches the shortest counts: what another program takes away is not a cost.
const BATCHES: u32 = 10;

/// What is measured: an operation under a policy, against the same without one.
struct Row {
    name: &'static str,
    operation: Operation,
    /// Repetitions of a batch, about a millisecond's; the records of all batches fit the ring.
    count: u32,
    policy: fn() -> Policy,
}

const OPENS: [EventType; 5] =
    [EventType::Open, EventType::Openat, EventType::Openat2, EventType::Creat, EventType::OpenByHandleAt];
const TASKS: [EventType; 7] = [
    EventType::Execve,
    EventType::Execveat,
    EventType::Fork,
    EventType::Vfork,
    EventType::Clone,
    EventType::Clone3,
    EventType::Procexit,
];

fn of(events: &[EventType]) -> Policy {
    Policy { events: events.iter().copied().collect(), open_read: true, open_write: true, ..Policy::default() }
}

fn opens() -> Policy {
    of(&OPENS)
}

fn writes() -> Policy {
    Policy { open_read: false, ..opens() }
}

fn of_containers() -> Policy {
    Policy { not_host: OPENS.into_iter().collect::<EventSet>(), ..opens() }
}

fn connects() -> Policy {
    of(&[EventType::Connect])
}

fn connects_of_containers() -> Policy {
    Policy { not_host: [EventType::Connect].into_iter().collect::<EventSet>(), ..connects() }
}

fn tasks() -> Policy {
    of(&TASKS)
}

const fn row(name: &'static str, operation: Operation, count: u32, policy: fn() -> Policy) -> Row {
    Row { name, operation, count, policy }
}

const ROWS: &[Row] = &[
    row("getpid, opens wanted", Operation::Getpid, 8_000, opens),
    row("read, opens wanted", Operation::Read, 6_000, opens),
    row("write, opens wanted", Operation::Write, 6_000, opens),
    row("open+close, only writes wanted", Operation::Open, 1_000, writes),
    row("open+close, only of containers wanted", Operation::Open, 1_000, of_containers),
    row("open+close, full event", Operation::Open, 1_000, opens),
    row("connect+close, only of containers wanted", Operation::Connect, 40, connects_of_containers),
    row("connect+close, full event", Operation::Connect, 40, connects),
    row("fork+exec+exit, full events", Operation::Exec, 4, tasks),
];

fn main() -> ExitCode {
    match run() {
        Ok(figures) => {
            println!("{figures}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<Json> {
    // Cargo adds --bench.
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let rounds: u32 = args.next().and_then(|word| word.parse().ok()).context("usage: hooks ROUNDS [ROW...]")?;
    let only: Vec<String> = args.collect();
    let rows: Vec<&Row> =
        ROWS.iter().filter(|row| only.is_empty() || only.iter().any(|word| row.name.contains(word.as_str()))).collect();
    let mut child = Child::start()?;
    let compat_calls = std::env::var_os("PURSER_COMPAT_OFF").is_none();
    let config = SensorConfig { compat_calls, ..SensorConfig::default() };
    let mut sensor = Sensor::start(&config, &Policy::default())?;
    sensor.add_host_cgroup(child.cgroup)?;
    let mut times = vec![[Vec::new(), Vec::new()]; rows.len()];
    for round in 0..rounds {
        for (row, times) in rows.iter().zip(&mut times) {
            // The one that goes first alternates.
            for with in [round % 2 == 0, round % 2 != 0] {
                let policy = if with { (row.policy)() } else { Policy::default() };
                sensor.set_policy(&policy)?;
                times[usize::from(with)].push(child.measure(row.operation, row.count)?);
                while sensor.poll(Duration::ZERO, &mut |_| {})? > 0 {}
            }
        }
    }
    let lost: u64 = sensor.losses().iter().map(|loss| loss.2).sum();
    let rows: Vec<Json> = rows
        .iter()
        .zip(times)
        .map(|(row, [without, with])| json!({ "name": row.name, "without": spread(without), "with": spread(with) }))
        .collect();
    Ok(json!({ "rounds": rounds, "rows": rows, "lost": lost }))
}

fn spread(mut times: Vec<f64>) -> Json {
    times.sort_by(f64::total_cmp);
    json!({ "min": times.first(), "median": times.get(times.len() / 2) })
}

/// The process that does what is measured.
struct Child {
    socket: UnixStream,
    cgroup: u64,
}

impl Child {
    fn start() -> Result<Self> {
        let (ours, its) = UnixStream::pair()?;
        // SAFETY: there is no other thread yet.
        match unsafe { libc::fork() } {
            -1 => bail!("fork: {}", io::Error::last_os_error()),
            0 => {
                drop(ours);
                // It ends when its socket does.
                let ended = serve(its).is_err();
                std::process::exit(i32::from(ended));
            }
            pid => Ok(Self { socket: ours, cgroup: cgroup(pid)? }),
        }
    }

    /// ns of one repetition.
    fn measure(&mut self, operation: Operation, count: u32) -> Result<f64> {
        let mut request = [0; 5];
        request[0] = operation as u8;
        request[1..].copy_from_slice(&count.to_ne_bytes());
        self.socket.write_all(&request)?;
        let mut answer = [0; 8];
        self.socket.read_exact(&mut answer).context("the measured process ended")?;
        Ok(u64::from_ne_bytes(answer) as f64 / f64::from(count))
    }
}

/// The id of a process's cgroup v2.
fn cgroup(pid: i32) -> Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::")).context("no cgroup v2")?;
    let roots = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
    let root = roots.into_iter().find(|root| std::path::Path::new(root).join("cgroup.procs").exists());
    Ok(std::fs::metadata(format!("{}{path}", root.context("no cgroup v2 is mounted")?))?.ino())
}

fn serve(mut socket: UnixStream) -> Result<()> {
    let directory = tempfile::tempdir()?;
    std::fs::create_dir_all(directory.path().join("some/folder/deeper"))?;
    let data = directory.path().join("some/folder/deeper/data");
    std::fs::write(&data, "data")?;
    let data = CString::new(data.as_os_str().as_bytes())?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    pin()?;
    let mut request = [0; 5];
    while socket.read_exact(&mut request).is_ok() {
        let [operation, count @ ..] = request;
        let operation = [
            Operation::Getpid,
            Operation::Read,
            Operation::Write,
            Operation::Open,
            Operation::Connect,
            Operation::Exec,
        ][usize::from(operation)];
        let count = u32::from_ne_bytes(count);
        let zero = std::fs::File::open("/dev/zero")?;
        let null = std::fs::OpenOptions::new().write(true).open("/dev/null")?;
        let once = || once(operation, &data, &zero, &null, &listener, address);
        for _ in 0..=count / 10 {
            once()?;
        }
        let mut shortest = u64::MAX;
        for _ in 0..BATCHES {
            let start = Instant::now();
            for _ in 0..count {
                once()?;
            }
            shortest = shortest.min(start.elapsed().as_nanos() as u64);
        }
        socket.write_all(&shortest.to_ne_bytes())?;
    }
    Ok(())
}

/// On the last processor, so that it does not wander in the middle of a measurement.
fn pin() -> Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    set.set(std::thread::available_parallelism()?.get() - 1);
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

#[inline]
fn once(
    operation: Operation,
    data: &CString,
    zero: &std::fs::File,
    null: &std::fs::File,
    listener: &TcpListener,
    address: SocketAddr,
) -> Result<()> {
    use std::os::fd::AsRawFd as _;
    let mut byte = [0_u8];
    match operation {
        // SAFETY: no arguments.
        Operation::Getpid => ensure!(unsafe { libc::syscall(libc::SYS_getpid) } > 0),
        Operation::Read => {
            // SAFETY: one byte of an own buffer.
            ensure!(unsafe { libc::read(zero.as_raw_fd(), byte.as_mut_ptr().cast(), 1) } == 1);
        }
        Operation::Write => {
            // SAFETY: as above.
            ensure!(unsafe { libc::write(null.as_raw_fd(), byte.as_ptr().cast(), 1) } == 1);
        }
        Operation::Open => {
            // SAFETY: a C string.
            let fd = unsafe { libc::openat(libc::AT_FDCWD, data.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
            ensure!(fd >= 0);
            // SAFETY: the descriptor that was just opened.
            unsafe { libc::close(fd) };
        }
        Operation::Connect => {
            let client = TcpStream::connect(address)?;
            drop(listener.accept()?);
            drop(client);
        }
        Operation::Exec => {
            let status = std::process::Command::new("/bin/true").env_clear().status()?;
            ensure!(status.success());
        }
    }
    Ok(())
}
