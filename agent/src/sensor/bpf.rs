//! The few `bpf(2)` calls that aya has no way to make: small programs that are put together at run time, and what the
//! kernel counts of a program. Layouts are those of `union bpf_attr` and `struct bpf_prog_info` (`include/uapi/linux/bpf.h`).

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

const MAP_CREATE: i32 = 0;
const MAP_UPDATE_ELEM: i32 = 2;
const PROG_LOAD: i32 = 5;
const OBJ_PIN: i32 = 6;
const OBJ_GET_INFO_BY_FD: i32 = 15;
const RAW_TRACEPOINT_OPEN: i32 = 17;

const MAP_TYPE_PROG_ARRAY: u32 = 3;
const PROG_TYPE_TRACING: u32 = 26;
const PROG_TYPE_LSM: u32 = 29;
const TRACE_FEXIT: u32 = 25;
const LSM_MAC: u32 = 27;

/// Where a program goes.
#[derive(Clone, Copy)]
pub(super) enum Place {
    /// The exits of a kernel function.
    Exit,
    /// A hook of the security modules (`bpf_lsm_*`).
    Lsm,
}

/// One instruction (`struct bpf_insn`).
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Instruction {
    pub(super) code: u8,
    /// Destination in the low, source in the high half.
    pub(super) registers: u8,
    pub(super) offset: i16,
    pub(super) immediate: i32,
}

#[repr(C)]
#[derive(Default)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

#[repr(C)]
#[derive(Default)]
struct MapElement {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    prog_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    expected_attach_type: u32,
    btf: u32,
    func_info_size: u32,
    func_info: u64,
    func_info_count: u32,
    line_info_size: u32,
    line_info: u64,
    line_info_count: u32,
    attach_btf_id: u32,
    attach_program: u32,
    padding: u32,
}

#[repr(C)]
#[derive(Default)]
struct RawTracepoint {
    name: u64,
    program: u32,
    padding: u32,
}

#[repr(C)]
#[derive(Default)]
struct ObjectName {
    path: u64,
    fd: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct ObjectInfo {
    fd: u32,
    length: u32,
    info: u64,
}

/// Layouts without pointers to anything that a call could outlive.
trait Attribute {}
impl Attribute for MapCreate {}
impl Attribute for MapElement {}
impl Attribute for ProgLoad {}
impl Attribute for RawTracepoint {}
impl Attribute for ObjectName {}
impl Attribute for ObjectInfo {}

fn bpf(command: i32, attribute: &mut impl Attribute) -> io::Result<i32> {
    // SAFETY: the structure is as long as said, and what it points to lives in the caller.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attribute), size_of_val(attribute)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

fn object(command: i32, attribute: &mut impl Attribute) -> io::Result<OwnedFd> {
    let fd = bpf(command, attribute)?;
    // SAFETY: the kernel has just given it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `return 0`
pub(super) const NOTHING: [Instruction; 2] = [
    Instruction { code: 0xb7, registers: 0, offset: 0, immediate: 0 },
    Instruction { code: 0x95, registers: 0, offset: 0, immediate: 0 },
];

/// An array of one program, to be tail-called.
pub(super) fn program_array(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let array = object(
        MAP_CREATE,
        &mut MapCreate { map_type: MAP_TYPE_PROG_ARRAY, key_size: 4, value_size: 4, max_entries: 1 },
    )?;
    let (key, value) = (0_u32, program.as_raw_fd());
    bpf(
        MAP_UPDATE_ELEM,
        &mut MapElement {
            map: array.as_raw_fd() as u32,
            key: std::ptr::from_ref(&key) as u64,
            value: std::ptr::from_ref(&value) as u64,
            ..MapElement::default()
        },
    )?;
    Ok(array)
}

/// Loads a program for a kernel function, by the function's BTF id.
pub(super) fn load(name: &str, place: Place, instructions: &[Instruction], function: u32) -> io::Result<OwnedFd> {
    let (prog_type, expected_attach_type) = match place {
        Place::Exit => (PROG_TYPE_TRACING, TRACE_FEXIT),
        Place::Lsm => (PROG_TYPE_LSM, LSM_MAC),
    };
    let mut attribute = ProgLoad {
        prog_type,
        instruction_count: u32::try_from(instructions.len()).unwrap_or(u32::MAX),
        instructions: instructions.as_ptr() as u64,
        license: c"Dual MIT/GPL".as_ptr() as u64,
        expected_attach_type,
        attach_btf_id: function,
        ..ProgLoad::default()
    };
    for (to, from) in attribute.name.iter_mut().take(15).zip(name.bytes()) {
        *to = from;
    }
    object(PROG_LOAD, &mut attribute)
}

/// Attaches a loaded program where it was loaded for, until the result is dropped.
pub(super) fn attach(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    object(RAW_TRACEPOINT_OPEN, &mut RawTracepoint { program: program.as_raw_fd() as u32, ..RawTracepoint::default() })
}

/// Closes a link without waiting for the kernel to detach it, where that is possible: the last name of a link in a bpf file
/// system is given up by a kernel worker (6.5 on), its last descriptor by whoever closes it.
pub(super) fn close_later(link: OwnedFd) {
    let path = format!("/sys/fs/bpf/purser-{}-{}\0", std::process::id(), link.as_raw_fd());
    let pinned = bpf(
        OBJ_PIN,
        &mut ObjectName { path: path.as_ptr() as u64, fd: link.as_raw_fd() as u32, ..ObjectName::default() },
    );
    drop(link);
    if pinned.is_ok() {
        let _ = std::fs::remove_file(path.trim_end_matches('\0'));
    }
}

/// How often the kernel skipped a program because it already ran on that processor (5.12 on).
pub(super) fn recursion_misses(program: BorrowedFd<'_>) -> io::Result<u64> {
    /// `offsetof(struct bpf_prog_info, recursion_misses)` in words.
    const RECURSION_MISSES: usize = 26;
    let mut info = [0_u64; RECURSION_MISSES + 1];
    bpf(
        OBJ_GET_INFO_BY_FD,
        &mut ObjectInfo {
            fd: program.as_raw_fd() as u32,
            length: size_of_val(&info) as u32,
            info: std::ptr::from_mut(&mut info) as u64,
        },
    )?;
    Ok(info[RECURSION_MISSES])
}

const _: () = {
    assert!(size_of::<Instruction>() == 8);
    assert!(size_of::<ProgLoad>() == 120);
};
