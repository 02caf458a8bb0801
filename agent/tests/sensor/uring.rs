//! `io_uring` by bare system calls: one ring, one request at a time.

use std::ptr;

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
        let mut parameters = Parameters::default();
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
        #[expect(clippy::cast_ptr_alignment, reason = "mapped pages, offsets of aligned words")]
        let word = |base: *mut u8, offset: u32| base.wrapping_add(offset as usize).cast::<u32>();
        // SAFETY: one thread, one request under way; offsets are the kernel's.
        unsafe {
            let tail = word(self.sq, self.parameters.sq[1]);
            let index = *tail & *word(self.sq, self.parameters.sq[2]);
            *self.requests.add(index as usize) = request;
            *word(self.sq, self.parameters.sq[6]).add(index as usize) = index;
            tail.write_volatile(*tail + 1);
            libc::syscall(libc::SYS_io_uring_enter, self.fd, 1, 1, 1, 0, 0);
            let head = word(self.cq, self.parameters.cq[0]);
            let index = *head & *word(self.cq, self.parameters.cq[2]);
            let result = *word(self.cq, self.parameters.cq[5] + index * 16 + 8);
            head.write_volatile(*head + 1);
            result as i32
        }
    }
}
