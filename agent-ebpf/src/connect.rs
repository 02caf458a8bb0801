//! Connects at the system call's exit: addresses come from the socket, so that neither a second
//! thread nor a failed call can show another one than the kernel used, where the socket keeps it.
use crate::{object::Typed, syscall::Call};
use aya_ebpf::programs::BtfTracePointContext;
#[inline(always)]
pub unsafe fn on_exit(_call: Call, _socketcall: bool, _result: i64, _current: Typed) {}
