//! The consumer's side of the ring: draining, and waiting so that records gather while they flow and
//! nothing is polled while they do not. The wake-up protocol's other half is `output.rs` of the programs.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
    sync::atomic::{Ordering, fence},
    time::{Duration, Instant},
};

use agent_common::WakeState;
use aya::maps::{Array, Map, MapData, RingBuf};
use rustix::event::epoll;

use super::{SensorError, gaps::Gaps};

/// What epoll tells of the ring, and of descriptors that others write to.
const RECORDS: u64 = 0;
const WATCHED: u64 = 1;

/// Records handled in one go: a producer that is faster than the consumer must not keep it from its other work.
const BATCH: usize = 8192;

/// The ring and the state of its consumer.
pub(super) struct Ring {
    records: RingBuf<MapData>,
    wake: Array<MapData, u32>,
    epoll: OwnedFd,
    gather: Duration,
    /// The last poll found records.
    flowing: bool,
    pub(super) gaps: Gaps,
}

impl Ring {
    pub(super) fn new(map: Map, wake: Array<MapData, u32>, gather: Duration, processors: usize) -> io::Result<Self> {
        let records = RingBuf::try_from(map).map_err(io::Error::other)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        // Edge triggered: only a wake-up counts, not that there is something in the ring.
        epoll::add(
            &epoll,
            &records,
            epoll::EventData::new_u64(RECORDS),
            epoll::EventFlags::IN | epoll::EventFlags::ET,
        )?;
        Ok(Self { records, wake, epoll, gather, flowing: false, gaps: Gaps::new(processors) })
    }

    /// Has `poll` end when `fd` becomes readable anew, too.
    pub(super) fn watch(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        Ok(epoll::add(&self.epoll, fd, epoll::EventData::new_u64(WATCHED), flags)?)
    }

    pub(super) fn poll(&mut self, timeout: Duration, handle: &mut dyn FnMut(&[u8])) -> Result<usize, SensorError> {
        let deadline = Instant::now().checked_add(timeout);
        let (mut count, mut called) = (0, false);
        if self.flowing {
            (count, called) = self.wait(WakeState::GATHERING, self.gather.min(timeout), false, handle)?;
        }
        if count == 0 && !called {
            let left = deadline.map_or(timeout, |deadline| deadline.saturating_duration_since(Instant::now()));
            (count, _) = self.wait(WakeState::ASLEEP, left, true, handle)?;
        }
        self.flowing = count > 0;
        Ok(count)
    }

    /// Declares a state, looks once more, and waits. `unless_found`: no wait if that look found something.
    /// Gives the number of records, and whether a watched descriptor ended the wait: its edge comes only once.
    fn wait(
        &mut self,
        state: u32,
        timeout: Duration,
        unless_found: bool,
        handle: &mut dyn FnMut(&[u8]),
    ) -> Result<(usize, bool), SensorError> {
        self.wake.set(0, state, 0)?;
        // Pairs with the barrier in a record's commit: either the program sees the state, or this look sees the record.
        fence(Ordering::SeqCst);
        let mut count = self.drain(handle);
        let found = unless_found && count > 0;
        let called = !found && count < BATCH && !timeout.is_zero() && self.block(timeout)?;
        self.wake.set(0, WakeState::AWAKE, 0)?;
        count += self.drain(handle);
        Ok((count, called))
    }

    /// Sleeps until a wake-up or the time is over; true if a watched descriptor was among what ended it.
    fn block(&self, timeout: Duration) -> Result<bool, SensorError> {
        let mut events = Vec::with_capacity(4);
        let timeout = rustix::event::Timespec {
            tv_sec: timeout.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&timeout)) {
            Ok(_) => Ok(events.iter().any(|event| event.data.u64() == WATCHED)),
            Err(rustix::io::Errno::INTR) => Ok(true),
            Err(error) => Err(SensorError::Wait(error.into())),
        }
    }

    fn drain(&mut self, handle: &mut dyn FnMut(&[u8])) -> usize {
        let mut count = 0;
        while count < BATCH
            && let Some(record) = self.records.next()
        {
            self.gaps.see(&record);
            handle(&record);
            count += 1;
        }
        count
    }
}
