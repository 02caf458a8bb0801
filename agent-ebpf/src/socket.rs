//! Sockets: kind and both ends, from the kernel's own object, or the address that a caller asked for.

use agent_common::{InetAddress, Loss, SocketFlags, SocketRecord, fact, limits};
use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_user};

use crate::{
    object::{Object, have},
    output::{self, Sections, lost},
};

/// `include/linux/socket.h`
const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
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

/// Whether an open file is a socket.
#[inline(always)]
pub unsafe fn is_socket<K: Object>(file: K) -> bool {
    // SAFETY: reads an open file.
    unsafe { !file.is_null() && file.object::<{ fact::FILE_INODE }>().u16::<{ fact::INODE_MODE }>() & FORMAT == SOCKET }
}

/// The kernel's socket behind an open file that is one.
#[inline(always)]
unsafe fn sock<K: Object>(file: K) -> K {
    // SAFETY: reads a socket's file.
    unsafe {
        let socket = K::at::<{ fact::ID_SOCKET }>(file.u64::<{ fact::FILE_PRIVATE_DATA }>() as *const u8);
        socket.object::<{ fact::SOCKET_SK }>()
    }
}

/// `sk_type` of an open file that is a socket.
#[inline(always)]
pub unsafe fn kind<K: Object>(file: K) -> u16 {
    // SAFETY: reads a socket.
    unsafe { sock(file).u16::<{ fact::SOCK_TYPE }>() }
}

/// Nothing known.
#[inline(always)]
fn clear(record: &mut SocketRecord) {
    record.family = 0;
    record.sock_type = 0;
    record.protocol = 0;
    record.flags = 0;
    record.remote_length = 0;
    record.local_length = 0;
    record.remote = InetAddress::default();
    record.local = InetAddress::default();
}

/// Fills in kind and own end of a socket; with `connected` also the far end, else what was `asked` for.
#[inline(always)]
pub unsafe fn fill<K: Object, const ROOM: usize>(
    record: &mut SocketRecord,
    sections: Sections,
    file: K,
    asked: Asked,
    connected: bool,
) {
    // SAFETY: reads a socket.
    unsafe {
        clear(record);
        if is_socket(file) {
            let sock = sock(file);
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
                        record.remote_length = unix_name::<K, ROOM>(sections, peer);
                        record.flags |= SocketFlags::REMOTE_UNIX;
                    }
                    if !connected {
                        from_asked::<ROOM>(record, sections, asked);
                    }
                    record.local_length = unix_name::<K, ROOM>(sections, unix);
                    if record.local_length != 0 {
                        record.flags |= SocketFlags::LOCAL_UNIX;
                    }
                    return;
                }
                _ => {}
            }
        }
        if !connected {
            from_asked::<ROOM>(record, sections, asked);
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
unsafe fn unix_name<K: Object, const ROOM: usize>(sections: Sections, unix: K) -> u16 {
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
        if length == 0 {
            return 0;
        }
        if bpf_probe_read_kernel(sections.end::<ROOM>().cast(), length as u32, from.cast()) != 0 {
            lost(Loss::AddressUnreadable);
            return 0;
        }
        sections.add(length);
        length as u16
    }
}

/// The address as asked for.
#[inline(always)]
unsafe fn from_asked<const ROOM: usize>(record: &mut SocketRecord, sections: Sections, asked: Asked) {
    // SAFETY: the helpers check addresses.
    unsafe {
        record.flags |= SocketFlags::REMOTE_FROM_USER;
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
                if length != 0 && !copy(sections.end::<ROOM>(), asked, 2, length) {
                    lost(Loss::AddressUnreadable);
                    return;
                }
                sections.add(length);
                record.remote_length = length as u16;
                record.flags |= SocketFlags::REMOTE_UNIX;
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
