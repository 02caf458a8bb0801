//! How many instructions the programs add to a call. Run by `cargo xtask bench --icount` in a machine whose time stamp
//! counter counts instructions (qemu's `-icount shift=0`): exact, whatever else its host does. Elsewhere the numbers are
//! some processor's ticks.

use std::{ffi::CString, fs, os::unix::fs::MetadataExt as _};

use purser::{event::EventType, sensor::Policy};

use crate::{
    processes::cgroup2_root,
    watch::{privileged, sensor, spawn, wait},
};

/// Of each operation, before the median is taken.
const SAMPLES: usize = 401;

/// What is measured: a name, and the calls.
struct Operation<'a> {
    name: &'static str,
    run: &'a dyn Fn(),
}

fn now() -> u64 {
    // SAFETY: reads a counter.
    unsafe { std::arch::x86_64::_rdtsc() }
}

/// The median of each operation, run by a child: this process is the agent, which the programs leave out.
fn measure(operations: &[Operation<'_>]) -> Vec<u64> {
    let bytes = operations.len() * SAMPLES * 8;
    // SAFETY: memory that the child shares.
    let shared = unsafe {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0).cast::<u64>()
    };
    let child = spawn(|| {
        for (nth, operation) in operations.iter().enumerate() {
            // The first ones fill caches.
            for sample in (0..SAMPLES).rev().chain(0..SAMPLES) {
                let before = now();
                (operation.run)();
                let took = now() - before;
                // SAFETY: within the shared memory.
                unsafe { shared.add(nth * SAMPLES + sample).write(took) };
            }
        }
        0
    });
    assert_eq!(wait(child), 0);
    // SAFETY: the child has ended.
    let samples = unsafe { std::slice::from_raw_parts(shared, operations.len() * SAMPLES) };
    let median = |samples: &[u64]| {
        let mut samples = samples.to_vec();
        samples.sort_unstable();
        samples[SAMPLES / 2]
    };
    samples.chunks(SAMPLES).map(median).collect()
}

#[test]
#[ignore = "a measurement: cargo xtask bench --icount"]
fn added_instructions() {
    if !privileged() {
        return;
    }
    // Not on an overlay, where one open is two.
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = folder.path().join("file");
    fs::write(&path, b"").unwrap();
    let path = CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: a constant name.
    let [zero, null] = [c"/dev/zero", c"/dev/null"].map(|name| unsafe { libc::open(name.as_ptr(), libc::O_RDWR) });
    let buffer = std::cell::UnsafeCell::new([0_u8; 1]);
    // SAFETY: system calls on what is there.
    let operations: [Operation<'_>; 4] = unsafe {
        [
            Operation { name: "getpid", run: &|| _ = libc::syscall(libc::SYS_getpid) },
            Operation { name: "read", run: &|| _ = libc::read(zero, buffer.get().cast(), 1) },
            Operation { name: "write", run: &|| _ = libc::write(null, buffer.get().cast(), 1) },
            Operation {
                name: "open+close",
                run: &|| _ = libc::close(libc::openat(libc::AT_FDCWD, path.as_ptr(), libc::O_RDONLY)),
            },
        ]
    };
    let tell = |stage: &str, medians: &[u64], base: &[u64]| {
        for ((operation, median), base) in operations.iter().zip(medians).zip(base) {
            println!("ICOUNT {stage} {} {}", operation.name, i128::from(*median) - i128::from(*base));
        }
    };
    let base = measure(&operations);
    tell("off", &base, &[0; 4]);

    let opens = [EventType::Open, EventType::Openat, EventType::Openat2, EventType::Creat];
    let events: purser::sensor::EventSet = opens.into_iter().collect();
    let full = Policy { events, open_read: true, open_write: true, ..Policy::default() };
    let mut sensor = sensor(&full);
    let medians = measure(&operations);
    tell("full", &medians, &base);
    let mut seen = 0;
    while sensor.poll(std::time::Duration::ZERO, &mut |_| seen += 1).unwrap() > 0 {}
    assert!(seen >= 2 * SAMPLES, "{seen} events of {} opens", 2 * SAMPLES);

    let group = fs::metadata(cgroup2_root().unwrap()).unwrap().ino();
    sensor.add_host_cgroup(group).unwrap();
    sensor.set_policy(&Policy { not_host: events, ..full }).unwrap();
    let medians = measure(&operations);
    tell("unwatched", &medians, &base);
    let mut seen = 0;
    while sensor.poll(std::time::Duration::ZERO, &mut |_| seen += 1).unwrap() > 0 {}
    assert_eq!(seen, 0, "opens of the host came");
    println!("ICOUNT tier {} 0", sensor.tier().in_use);
}
