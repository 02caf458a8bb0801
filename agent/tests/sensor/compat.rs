//! Other ways into the kernel: 32-bit calls from a 64-bit program with their older numbers and `socketcall`, and call
//! numbers whose upper half the kernel ignores.

use purser::event::{Address, Body, Call, EventType};

#[allow(clippy::enum_glob_use, reason = "a table of events")]
use EventType::*;

use crate::watch::{Seen, privileged, watch};

/// A call by `int 0x80`.
pub(crate) unsafe fn call_32(number: u64, arguments: [u64; 5]) -> i64 {
    let [ebx, ecx, edx, esi, edi] = arguments;
    let result: u64;
    // SAFETY: ebx is the compiler's own and is put back; the caller answers for the call.
    unsafe {
        std::arch::asm!("push rbx", "mov rbx, r12", "int 0x80", "pop rbx",
            inlateout("rax") number => result, in("r12") ebx, in("rcx") ecx, in("rdx") edx, in("rsi") esi,
            in("rdi") edi,
            lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _);
    }
    i64::from(result as i32)
}

/// A page that 32-bit calls can name.
fn low_page() -> *mut u8 {
    let (protection, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT);
    // SAFETY: new memory.
    unsafe { libc::mmap(std::ptr::null_mut(), 4096, protection, flags, -1, 0).cast() }
}

fn call_of(seen: &Seen, wanted: EventType) -> &Call {
    let of_child = seen.events.iter().filter(|event| event.task.tgid == seen.child && event.header.event == wanted);
    let mut calls = of_child.filter_map(|event| if let Body::Call(call) = &event.body { Some(&**call) } else { None });
    calls.next().unwrap_or_else(|| panic!("no {wanted:?}: {:?}", seen.events))
}

#[test]
fn the_upper_half_of_a_call_number_hides_nothing() {
    if !privileged() {
        return;
    }
    let call = |number: u64, first: u64, second: u64| {
        let result: u64;
        // SAFETY: calls that read a name.
        unsafe {
            std::arch::asm!("syscall", inlateout("rax") 0xdead_beef_0000_0000 | number => result, in("rdi") first,
                in("rsi") second, in("rdx") 0, lateout("rcx") _, lateout("r11") _);
        }
        result as i64
    };
    let seen = watch(|| {
        let opened = call(257, -100_i64 as u64, c"/etc/passwd".as_ptr() as u64);
        call(83, c"/proc/none".as_ptr() as u64, 0);
        i32::from(opened < 0)
    });
    assert_eq!(seen.opens()[0].1.path, "/etc/passwd");
    assert_eq!(call_of(&seen, Mkdir).texts[0], "/proc/none");
}

#[test]
fn older_numbers_of_32_bit_calls_are_seen() {
    if !privileged() {
        return;
    }
    let numbers = [
        (182, Chown),
        (16, Lchown),
        (95, Fchown),
        (170, Setresgid),
        (71, Setregid),
        (46, Setgid),
        (164, Setresuid),
        (70, Setreuid),
        (23, Setuid),
        (193, Truncate),
        (194, Ftruncate),
        (22, Umount),
        (417, Recvmmsg),
    ];
    let seen = watch(|| {
        let page = low_page();
        let name = c"/proc/none".to_bytes_with_nul();
        for (number, event) in numbers {
            let named = matches!(event, Chown | Lchown | Truncate | Umount);
            // SAFETY: a name, or an identity and a descriptor that are none.
            unsafe {
                page.copy_from_nonoverlapping(name.as_ptr(), name.len());
                call_32(number, [if named { page as u64 } else { 0xffff }, 0xffff, 0xffff, 0, 0]);
            }
        }
        0
    });
    for (_, event) in numbers {
        let call = call_of(&seen, event);
        assert_eq!(&call.texts[0][..], if matches!(event, Chown | Lchown | Umount) { &b"/proc/none"[..] } else { b"" });
    }
}

#[test]
fn socketcall_is_the_call_that_it_makes() {
    if !privileged() {
        return;
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let to = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let from = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let fd = |socket: &dyn std::os::fd::AsRawFd| socket.as_raw_fd() as u32;
    let port = to.local_addr().unwrap().port();
    let seen = watch(|| {
        let page = low_page();
        let write = |at: usize, words: &[u32]| {
            for (nth, word) in words.iter().enumerate() {
                // SAFETY: within the page.
                unsafe { page.add(at + 4 * nth).cast::<[u8; 4]>().write(word.to_ne_bytes()) };
            }
        };
        let call = |operation: u64, arguments: &[u32]| {
            write(0, arguments);
            // SAFETY: the calls read and write within the page.
            unsafe { call_32(102, [operation, page as u64, 0, 0, 0]) }
        };
        let (address, header, text) = (page as u32 + 64, page as u32 + 128, page as u32 + 256);
        write(64, &[libc::AF_INET as u32 | u32::from(port.to_be()) << 16, u32::from_ne_bytes([127, 0, 0, 1])]);
        write(128, &[address, 16, header + 64, 1]);
        write(192, &[text, 5]);
        write(256, &[u32::from_ne_bytes(*b"hell"), u32::from_ne_bytes(*b"o\0\0\0")]);
        let results = [
            call(1, &[17, 3, 0]),
            call(4, &[fd(&listener), 7]),
            call(5, &[fd(&listener), 0, 0]),
            call(9, &[fd(&client), text, 3, 0]),
            call(11, &[fd(&from), text, 5, 0, address, 16]),
            call(16, &[fd(&from), header, 0]),
            call(20, &[fd(&from), header, 1, 0]),
            call(10, &[fd(&to), text, 5, 0x40]),
            call(12, &[fd(&to), text, 5, 0x40, address, header + 32]),
            call(17, &[fd(&to), header, 0x40]),
            call(2, &[fd(&to), address, 16]),
            call(18, &[fd(&from), 0, 0, 0]),
            call(19, &[fd(&to), header, 1, 0x40, 0]),
            call(3, &[fd(&from), address, 16]),
            call(8, &[1, 1, 0, 0]),
        ];
        i32::from(results[..7].iter().any(|result| *result < 0))
    });
    for event in [Socket, Listen, Accept, Sendto, Sendmsg, Sendmmsg, Recvfrom, Recvmsg, Bind, Accept4, Recvmmsg] {
        call_of(&seen, event);
    }
    assert_eq!(call_of(&seen, Socket).arguments[..4], [17, 3, 0, 0]);
    assert_eq!(call_of(&seen, Accept).socket.as_ref().unwrap().remote, Address::Inet(client.local_addr().unwrap()));
    assert_eq!(&call_of(&seen, Sendto).data[..], b"hel");
    for event in [Sendmsg, Sendmmsg] {
        assert_eq!(call_of(&seen, event).socket.as_ref().unwrap().remote, Address::Inet(to.local_addr().unwrap()));
    }
    assert_eq!(&call_of(&seen, Sendmsg).data[..], b"hello");
    assert_eq!(&call_of(&seen, Sendmmsg).data[..], b"", "how much each message has is not known");
    assert_eq!(seen.connects().len(), 1);
}
