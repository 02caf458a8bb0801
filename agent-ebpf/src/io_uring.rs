//! io_uring
use aya_ebpf::programs::BtfTracePointContext;
#[inline(always)]
pub unsafe fn on_submit(_ctx: &BtfTracePointContext) {}
#[inline(always)]
pub unsafe fn on_complete(_ctx: &BtfTracePointContext) {}
