//! Connects at the system call's exit. Addresses come from the socket: what it is connected to, not what
//! the caller's memory says. A failed connect leaves none there; then the caller's copy is reported, and marked so.

use agent_common::{
    ConnectFlags, ConnectRecord, EventType, InetAddress, KernelPolicy, Loss, PolicyFlags, fact, limits,
};
use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_user};

use crate::{
    maps::{self, SMALL_ROOM},
    object::{Object, Raw, Typed, have, typed_loads},
    open,
    output::{self, Sections, Urgency, lost},
    syscall::Call,
    task,
};

/// `include/linux/socket.h`
const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
/// `SYS_CONNECT` of `include/uapi/linux/net.h`
const SOCKETCALL_CONNECT: u64 = 3;
/// `include/uapi/asm-generic/errno.h`, `include/linux/errno.h`
const EALREADY: i64 = 114;
const EINPROGRESS: i64 = 115;
const ERESTARTSYS: i64 = 512;
const ERESTART_RESTARTBLOCK: i64 = 516;
/// `S_IFMT`, `S_IFSOCK`
const FORMAT: u16 = 0o170_000;
const SOCKET: u16 = 0o140_000;

/// An address that was asked for: in the caller's memory, or a copy from there.
#[derive(Clone, Copy)]
pub struct Asked {
    pub address: *const u8,
    pub length: u64,
    /// The bytes are still in the caller's memory.
    pub user_memory: bool,
}

/// At the exit of `connect`, or of `socketcall` on i386.
#[inline(always)]
pub unsafe fn on_exit(call: Call, socketcall: bool, result: i64, current: Typed) {
    let Some(policy) = output::wanted(EventType::Connect) else { return };
    if !result_wanted(policy, result) {
        return;
    }
    // SAFETY: reads the current task's call, files and memory.
    unsafe {
        if policy.flags & PolicyFlags::CONNECT_NOT_HOST != 0 && task::is_hosts(current) {
            return;
        }
        let (fd, address, length) = if socketcall {
            if call.argument0() != SOCKETCALL_CONNECT {
                return;
            }
            let mut arguments = [0u32; 3];
            if bpf_probe_read_user((&raw mut arguments).cast(), 12, call.argument1() as *const _) != 0 {
                lost(Loss::AddressUnreadable);
                return;
            }
            (arguments[0] as i32, u64::from(arguments[1]), u64::from(arguments[2]))
        } else {
            (call.argument0() as i32, call.argument1(), call.argument2())
        };
        let file = if fd < 0 { core::ptr::null() } else { open::descriptor(current, fd as u64) };
        let asked = Asked { address: address as *const u8, length, user_memory: true };
        let Some(scratch) = output::take(&maps::CONNECT) else { return };
        let sections = Sections::new(scratch);
        let record = &mut scratch.record;
        output::begin(&mut record.header, EventType::Connect, policy);
        if typed_loads() {
            fill::<Typed>(record, sections, Typed::at::<{ fact::ID_FILE }>(file), asked, result, current);
        } else {
            fill::<Raw>(record, sections, Raw::at::<{ fact::ID_FILE }>(file), asked, result, current);
        }
        record.fd = fd;
        output::send::<_, _, SMALL_ROOM>(scratch, Urgency::Soon);
    }
}

/// Whether the policy wants a connect of this result.
#[inline(always)]
pub fn result_wanted(policy: &KernelPolicy, result: i64) -> bool {
    result >= 0 || under_way(result) || policy.flags & PolicyFlags::CONNECT_FAILED != 0
}

/// The socket holds the address: it goes on connecting.
#[inline(always)]
const fn under_way(result: i64) -> bool {
    result == -EINPROGRESS || result == -EALREADY || (result <= -ERESTARTSYS && result >= -ERESTART_RESTARTBLOCK)
}

/// Fills in everything behind the header but the descriptor.
#[inline(always)]
pub unsafe fn fill<K: Object>(
    record: &mut ConnectRecord,
    sections: Sections,
    file: K,
    asked: Asked,
    result: i64,
    current: Typed,
) {
    // SAFETY: reads a socket and the current task.
    unsafe {
        task::fill(&mut record.task, current);
        record.result = result;
        record.family = 0;
        record.sock_type = 0;
        record.protocol = 0;
        record.flags = 0;
        record.remote_length = 0;
        record.local_length = 0;
        record.remote = InetAddress::default();
        record.local = InetAddress::default();
        let connected = result >= 0 || under_way(result);
        let is_socket =
            !file.is_null() && file.object::<{ fact::FILE_INODE }>().u16::<{ fact::INODE_MODE }>() & FORMAT == SOCKET;
        if is_socket {
            let socket = K::at::<{ fact::ID_SOCKET }>(file.u64::<{ fact::FILE_PRIVATE_DATA }>() as *const u8);
            let sock = socket.object::<{ fact::SOCKET_SK }>();
            record.family = sock.u16::<{ fact::SOCK_FAMILY }>();
            record.sock_type = sock.u16::<{ fact::SOCK_TYPE }>();
            record.protocol = sock.u16::<{ fact::SOCK_PROTOCOL }>();
            match record.family {
                AF_INET => {
                    record.local = v4(sock.u32::<{ fact::SOCK_RCV_SADDR }>(), sock.u16::<{ fact::SOCK_NUM }>());
                    if connected {
                        record.remote =
                            v4(sock.u32::<{ fact::SOCK_DADDR }>(), sock.u16::<{ fact::SOCK_DPORT }>().swap_bytes());
                    }
                }
                AF_INET6 if have::<{ fact::SOCK_V6_DADDR }>() => {
                    let scope = sock.u32::<{ fact::SOCK_BOUND_DEV_IF }>();
                    record.local = v6(
                        sock.u64::<{ fact::SOCK_V6_RCV_SADDR }>(),
                        sock.u64_past::<{ fact::SOCK_V6_RCV_SADDR }, 8>(),
                        sock.u16::<{ fact::SOCK_NUM }>(),
                        scope,
                    );
                    if connected {
                        record.remote = v6(
                            sock.u64::<{ fact::SOCK_V6_DADDR }>(),
                            sock.u64_past::<{ fact::SOCK_V6_DADDR }, 8>(),
                            sock.u16::<{ fact::SOCK_DPORT }>().swap_bytes(),
                            scope,
                        );
                    }
                }
                AF_UNIX => {
                    let unix = K::at::<{ fact::ID_UNIX_SOCK }>(sock.address());
                    let peer = unix.object::<{ fact::UNIX_PEER }>();
                    if connected && !peer.is_null() {
                        let peer = K::at::<{ fact::ID_UNIX_SOCK }>(peer.address());
                        record.remote_length = unix_name(sections, peer);
                        record.flags |= ConnectFlags::REMOTE_UNIX;
                    }
                    if !connected {
                        from_asked(record, sections, asked);
                    }
                    record.local_length = unix_name(sections, unix);
                    if record.local_length != 0 {
                        record.flags |= ConnectFlags::LOCAL_UNIX;
                    }
                    return;
                }
                _ => {}
            }
        }
        if !connected {
            from_asked(record, sections, asked);
        }
    }
}

/// An address that is all zero is none: a socket that was disconnected (`AF_UNSPEC`) or has no address yet.
#[inline(always)]
fn v4(address: u32, port: u16) -> InetAddress {
    if address == 0 && port == 0 {
        return InetAddress::default();
    }
    v6_or_v4(AF_INET, u64::from(address), 0, port, 0)
}

#[inline(always)]
fn v6(first: u64, second: u64, port: u16, scope: u32) -> InetAddress {
    if first == 0 && second == 0 && port == 0 {
        return InetAddress::default();
    }
    v6_or_v4(AF_INET6, first, second, port, scope)
}

#[inline(always)]
fn v6_or_v4(family: u16, first: u64, second: u64, port: u16, scope: u32) -> InetAddress {
    let mut address = [0; 16];
    address[..8].copy_from_slice(&first.to_ne_bytes());
    address[8..].copy_from_slice(&second.to_ne_bytes());
    InetAddress { family, port, scope, address }
}

/// Copies the name that a unix socket is bound to, without the family in front.
#[inline(always)]
unsafe fn unix_name<K: Object>(sections: Sections, unix: K) -> u16 {
    // SAFETY: reads a unix socket; the helper checks the address, `end` guarantees the room.
    unsafe {
        let address = unix.object::<{ fact::UNIX_ADDR }>();
        if address.is_null() {
            return 0;
        }
        let length = (address.u32::<{ fact::UNIX_ADDRESS_LEN }>() as usize).saturating_sub(2);
        let from = address.embedded::<{ fact::UNIX_ADDRESS_NAME }>().address().wrapping_add(2);
        let mut length = output::opaque(length);
        if length > limits::UNIX_PATH_MAX {
            length = limits::UNIX_PATH_MAX;
        }
        if length == 0 || bpf_probe_read_kernel(sections.end::<SMALL_ROOM>().cast(), length as u32, from.cast()) != 0 {
            return 0;
        }
        sections.add(length);
        length as u16
    }
}

/// The address as asked for.
#[inline(always)]
pub unsafe fn from_asked(record: &mut ConnectRecord, sections: Sections, asked: Asked) {
    // SAFETY: the helpers check addresses.
    unsafe {
        record.flags |= ConnectFlags::REMOTE_FROM_USER;
        // struct sockaddr_in6 { u16 family; be16 port; be32 flow; u8 address[16]; u32 scope }; sockaddr_in is shorter.
        let mut words = [0u32; 7];
        if asked.length < 2 || !copy(&raw mut words as *mut u8, asked, 0, 2) {
            lost(Loss::AddressUnreadable);
            return;
        }
        let family = words[0] as u16;
        match family {
            AF_INET if copy(&raw mut words as *mut u8, asked, 0, 16) => {
                let port = ((words[0] >> 16) as u16).swap_bytes();
                record.remote = v6_or_v4(AF_INET, u64::from(words[1]), 0, port, 0);
            }
            AF_INET6 if copy(&raw mut words as *mut u8, asked, 0, 28) => {
                let port = ((words[0] >> 16) as u16).swap_bytes();
                let first = u64::from(words[2]) | u64::from(words[3]) << 32;
                let second = u64::from(words[4]) | u64::from(words[5]) << 32;
                record.remote = v6_or_v4(AF_INET6, first, second, port, words[6]);
            }
            AF_UNIX => {
                let mut length = output::opaque((asked.length - 2) as usize);
                if length > limits::UNIX_PATH_MAX {
                    length = limits::UNIX_PATH_MAX;
                }
                if length != 0 && !copy(sections.end::<SMALL_ROOM>(), asked, 2, length) {
                    lost(Loss::AddressUnreadable);
                    return;
                }
                sections.add(length);
                record.remote_length = length as u16;
                record.flags |= ConnectFlags::REMOTE_UNIX;
            }
            AF_INET | AF_INET6 => lost(Loss::AddressUnreadable),
            _ => {}
        }
    }
}

#[inline(always)]
unsafe fn copy(to: *mut u8, asked: Asked, skip: usize, length: usize) -> bool {
    let from = asked.address.wrapping_add(skip).cast();
    // SAFETY: the caller gives the room; the helpers check the source.
    unsafe {
        if asked.user_memory {
            bpf_probe_read_user(to.cast(), length as u32, from) == 0
        } else {
            bpf_probe_read_kernel(to.cast(), length as u32, from) == 0
        }
    }
}
