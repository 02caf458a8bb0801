//! What happens when nobody reads: what is refused, what still comes, and whether the counts add up.

use std::{collections::HashMap, time::Duration};

use agent_common::FillLimit;
use purser::{
    decode::decode,
    event::{Body, Event, EventType},
    sensor::{Policy, Sensor, SensorConfig},
};

use super::watch::{privileged, sensor, spawn, wait};

/// A call that nothing else on a machine makes: the counts are those of the test.
fn creat(times: u32) -> u32 {
    let child = spawn(|| {
        for _ in 0..times {
            // SAFETY: opens and closes.
            unsafe { libc::close(libc::creat(c"/dev/null".as_ptr(), 0o600)) };
        }
        0
    });
    wait(child);
    child
}

/// A child that starts so many programs, one after the other.
fn start_programs(times: u32) -> u32 {
    let child = spawn(|| {
        for _ in 0..times {
            // SAFETY: the child of the child starts a program at once.
            unsafe {
                let program = libc::fork();
                if program == 0 {
                    let arguments = [c"true".as_ptr(), std::ptr::null()];
                    libc::execv(c"/bin/true".as_ptr(), arguments.as_ptr());
                    libc::_exit(1);
                }
                libc::waitpid(program, std::ptr::null_mut(), 0);
            }
        }
        0
    });
    assert_eq!(wait(child), 0);
    child
}

fn drain(sensor: &mut Sensor) -> Vec<Event> {
    let mut events = Vec::new();
    while sensor.poll(Duration::from_millis(100), &mut |record| events.push(decode(record).unwrap())).unwrap() > 0 {}
    events
}

struct Counts {
    dropped: HashMap<EventType, u64>,
    lost: HashMap<&'static str, u64>,
}

impl Counts {
    fn of(sensor: &mut Sensor) -> Self {
        let lost = sensor.losses().into_iter().map(|(_, reason, count)| (reason, count)).collect();
        Self { dropped: sensor.dropped().into_iter().collect(), lost }
    }
}

#[test]
fn a_flood_that_nobody_reads_keeps_no_process_out_and_is_counted_to_the_last() {
    const FLOOD: u32 = 40_000;
    const PROGRAMS: u32 = 20;
    const AFTER: u32 = 50;
    if !privileged() {
        return;
    }
    let processes = [
        EventType::Execve,
        EventType::Fork,
        EventType::Vfork,
        EventType::Clone,
        EventType::Clone3,
        EventType::Procexit,
    ];
    let policy = Policy {
        events: processes.into_iter().chain([EventType::Creat]).collect(),
        open_read: true,
        open_write: true,
        ..Policy::default()
    };
    let ring_bytes = SensorConfig::default().ring_bytes;
    // Others of these tests make this call, too, but not while they are kept from the sensor.
    let mut sensor = sensor(&policy);
    let before = Counts::of(&mut sensor);

    let flood = creat(FLOOD);
    let starter = start_programs(PROGRAMS);
    let events = drain(&mut sensor);

    let now = Counts::of(&mut sensor);
    let dropped = |event: EventType| now.dropped[&event] - before.dropped[&event];
    let lost = |reason: &str| now.lost[reason] - before.lost[reason];
    let is_creat = |event: &&Event| event.task.tgid == flood && event.header.event == EventType::Creat;
    let creats = events.iter().filter(is_creat).count() as u64;
    let refused = dropped(EventType::Creat);
    assert_eq!(creats + refused, u64::from(FLOOD), "sent and lost are all that were made");
    assert!(refused > 0, "the ring was too large for this test");
    assert_eq!((lost("back_pressure"), lost("ring_full")), (refused, 0));
    let bytes = creats * size_of::<agent_common::OpenRecord>() as u64;
    assert!(bytes <= u64::from(ring_bytes) / 8 * (FillLimit::OPENS + 1), "{bytes} bytes of opens");

    for event in processes {
        assert_eq!(dropped(event), 0, "{event:?}");
    }
    let mut started: HashMap<u32, [u32; 3]> = HashMap::new();
    for event in &events {
        let (tgid, what) = match &event.body {
            Body::Fork(fork) if event.task.tgid == starter => (fork.child_tgid, 0),
            Body::Exec(_) if event.task.parent_tgid == starter => (event.task.tgid, 1),
            Body::Exit(_) if event.task.parent_tgid == starter => (event.task.tgid, 2),
            _ => continue,
        };
        started.entry(tgid).or_default()[what] += 1;
    }
    assert_eq!(started.len(), PROGRAMS as usize, "{started:?}");
    assert!(started.values().all(|seen| *seen == [1, 1, 1]), "{started:?}");
    assert!(events.iter().any(|event| event.task.tgid == flood && matches!(event.body, Body::Exit(_))));

    // With room again all is let in, and no gap is left to explain.
    let after = creat(AFTER);
    let events = drain(&mut sensor);
    assert_eq!(events.iter().filter(|event| event.task.tgid == after).count(), AFTER as usize + 1, "and its exit");
    for _ in 0..2 {
        let last = Counts::of(&mut sensor);
        assert_eq!(last.dropped[&EventType::Creat], now.dropped[&EventType::Creat]);
        assert_eq!(last.lost["unexplained_gap"], before.lost["unexplained_gap"]);
    }
}
