//! `io_uring` by bare system calls.

use std::{
    ptr,
    sync::atomic::{AtomicU32, Ordering},
};

/// `struct io_uring_sqe`, the fields that are used.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Request {
    pub(crate) opcode: u8,
    pub(crate) flags: u8,
    pub(crate) ioprio: u16,
    pub(crate) fd: i32,
    pub(crate) off: u64,
    pub(crate) addr: u64,
    pub(crate) len: u32,
    pub(crate) open_flags: u32,
    pub(crate) user_data: u64,
    pub(crate) buf: u16,
    pub(crate) personality: u16,
    pub(crate) file_index: u32,
    pub(crate) pad: [u64; 2],
}

pub(crate) const OP_CONNECT: u8 = 16;
pub(crate) const OP_OPENAT: u8 = 18;
pub(crate) const OP_OPENAT2: u8 = 28;
pub(crate) const OP_SENDMSG: u8 = 9;
pub(crate) const OP_RECVMSG: u8 = 10;
pub(crate) const OP_ACCEPT: u8 = 13;
pub(crate) const OP_SEND: u8 = 26;
pub(crate) const OP_RECV: u8 = 27;
pub(crate) const OP_RENAMEAT: u8 = 35;
pub(crate) const OP_UNLINKAT: u8 = 36;
pub(crate) const OP_MKDIRAT: u8 = 37;
pub(crate) const OP_SYMLINKAT: u8 = 38;
pub(crate) const OP_LINKAT: u8 = 39;
pub(crate) const OP_FSETXATTR: u8 = 41;
pub(crate) const OP_SETXATTR: u8 = 42;
pub(crate) const OP_SOCKET: u8 = 45;
pub(crate) const OP_FTRUNCATE: u8 = 55;
pub(crate) const OP_BIND: u8 = 56;
pub(crate) const OP_LISTEN: u8 = 57;

#[repr(C)]
#[derive(Default)]
struct Parameters {
    sq_entries: u32,
    cq_entries: u32,
    rest: [u32; 8],
    /// `struct io_sqring_offsets`: head 0, tail 1, mask 2, array 6.
    sq: [u32; 10],
    /// `struct io_cqring_offsets`: head 0, tail 1, mask 2, cqes 5.
    cq: [u32; 10],
}

/// `IORING_SETUP_SQPOLL`, `IORING_ENTER_GETEVENTS`, `IORING_ENTER_SQ_WAKEUP`
const SQPOLL: u32 = 1 << 1;
const GET_EVENTS: u32 = 1;
const WAKE_UP: u32 = 1 << 1;
/// `IOSQE_IO_LINK`, `IOSQE_CQE_SKIP_SUCCESS`
pub(crate) const LINK: u8 = 1 << 2;
pub(crate) const SKIP: u8 = 1 << 6;

/// A ring.
pub(crate) struct Uring {
    fd: i32,
    sq: *mut u8,
    cq: *mut u8,
    requests: *mut Request,
    parameters: Parameters,
}

impl Uring {
    /// Sets one up, or gives the errno.
    pub(crate) fn new() -> Result<Self, i32> {
        Self::set_up(0)
    }

    /// One whose requests a thread of the kernel takes.
    pub(crate) fn polled() -> Result<Self, i32> {
        Self::set_up(SQPOLL)
    }

    fn set_up(flags: u32) -> Result<Self, i32> {
        // sq_entries, cq_entries, flags, sq_thread_cpu, sq_thread_idle (ms)
        let mut parameters = Parameters::default();
        parameters.rest[0] = flags;
        parameters.rest[2] = 1000;
        // SAFETY: the kernel writes the parameters.
        let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 8, &raw mut parameters) } as i32;
        if fd < 0 {
            return Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0));
        }
        let map = |length: usize, offset: i64| {
            // SAFETY: maps the ring's memory.
            let address = unsafe {
                libc::mmap(ptr::null_mut(), length, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, fd, offset)
            };
            address.cast::<u8>()
        };
        let sq = map((parameters.sq[6] + parameters.sq_entries * 4) as usize, 0);
        let cq = map((parameters.cq[5] + parameters.cq_entries * 16) as usize, 0x800_0000);
        let requests = map(parameters.sq_entries as usize * 64, 0x1000_0000).cast();
        Ok(Self { fd, sq, cq, requests, parameters })
    }

    /// Runs a request and gives its result.
    pub(crate) fn run(&self, request: Request) -> i32 {
        self.run_all(&[request])[0]
    }

    /// Runs at most eight requests, submitted at once, and gives the results of those that tell one, in their order.
    pub(crate) fn run_all(&self, requests: &[Request]) -> [i32; 8] {
        #[expect(clippy::cast_ptr_alignment, reason = "mapped pages, offsets of aligned words")]
        let word = |base: *mut u8, offset: u32| base.wrapping_add(offset as usize).cast::<u32>();
        // SAFETY: one thread, one request under way; offsets are the kernel's.
        unsafe {
            let tail = word(self.sq, self.parameters.sq[1]);
            let first = *tail;
            for (nth, request) in requests.iter().enumerate() {
                let index = (first + nth as u32) & *word(self.sq, self.parameters.sq[2]);
                *self.requests.add(index as usize) = Request { user_data: nth as u64, ..*request };
                *word(self.sq, self.parameters.sq[6]).add(index as usize) = index;
            }
            (*tail.cast::<AtomicU32>()).store(first + requests.len() as u32, Ordering::Release);
            let told = requests.iter().filter(|request| request.flags & SKIP == 0).count() as u32;
            libc::syscall(libc::SYS_io_uring_enter, self.fd, requests.len(), told, GET_EVENTS | WAKE_UP, 0, 0);
            let head = word(self.cq, self.parameters.cq[0]);
            let mut results = [0; 8];
            for _ in 0..told {
                let index = *head & *word(self.cq, self.parameters.cq[2]);
                let entry = self.parameters.cq[5] + index * 16;
                results[*word(self.cq, entry) as usize & 7] = *word(self.cq, entry + 8) as i32;
                head.write_volatile(*head + 1);
            }
            results
        }
    }
}
