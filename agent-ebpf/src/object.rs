//! Reading kernel objects. A field is named by a fact of `agent-common`; the loader writes its
//! offset into the instruction, so the verifier sees constants and a pointer stays typed.
//!
//! Two ways to read: [`Typed`] follows BTF pointers by plain checked loads (a fault reads zero);
//! [`Raw`] copies by helper, for kernels without `bpf_rdonly_cast` (before 6.2) and for computed addresses.

use core::arch::asm;

use agent_common::{Immediate, fact, immediate};
use aya_ebpf::helpers::generated::{bpf_get_current_task, bpf_get_current_task_btf, bpf_probe_read_kernel};

/// A pointer to a kernel structure.
pub trait Object: Copy {
    /// Loads cost next to nothing.
    const TYPED: bool;

    /// The structure at an address of unknown type.
    unsafe fn at<const TYPE_ID: u32>(address: *const u8) -> Self;
    /// Its address, for comparing and for helpers.
    fn address(self) -> *const u8;
    /// The structure embedded at an offset (or, unsafely, `Self` moved on by it).
    unsafe fn embedded<const OFFSET: u32>(self) -> Self;
    unsafe fn u64<const OFFSET: u32>(self) -> u64;
    unsafe fn u32<const OFFSET: u32>(self) -> u32;
    unsafe fn u16<const OFFSET: u32>(self) -> u16;
    unsafe fn u8<const OFFSET: u32>(self) -> u8;
    /// An 8-byte load at a constant number of bytes past a member.
    unsafe fn u64_past<const OFFSET: u32, const BYTES: i32>(self) -> u64;
    /// The structure that a pointer member points to.
    unsafe fn object<const OFFSET: u32>(self) -> Self;

    /// The same, from an array of pointers.
    #[inline(always)]
    unsafe fn object_past<const OFFSET: u32, const BYTES: i32>(self) -> Self {
        // SAFETY: as above.
        unsafe { Self::pointing(self.u64_past::<OFFSET, BYTES>()) }
    }

    /// What an address that was read points to.
    fn pointing(address: u64) -> Self;

    #[inline(always)]
    fn is_null(self) -> bool {
        self.address().is_null()
    }

    #[inline(always)]
    fn is(self, other: Self) -> bool {
        self.address() == other.address()
    }
}

/// The value of a fact.
#[inline(always)]
pub fn value<const FACT: u32>() -> u64 {
    let value: u64;
    // SAFETY: moves a constant; the loader replaces it.
    unsafe {
        asm!("{0} = {imm}", out(reg) value, imm = const immediate(Immediate::Value, FACT), options(pure, nomem, nostack));
    }
    value
}

/// Whether the kernel has a fact. The verifier sees a constant and skips what depends on a missing one.
#[inline(always)]
pub fn have<const FACT: u32>() -> bool {
    let value: u64;
    // SAFETY: moves a constant; the loader replaces it.
    unsafe {
        asm!("{0} = {imm}", out(reg) value, imm = const immediate(Immediate::Have, FACT), options(pure, nomem, nostack));
    }
    value != 0
}

/// The address of the structure around one that is embedded at an offset.
///
/// VERIFIER: one instruction with the constant in it. From a register the compiler would share the constant with other
/// uses and negate it there, and before 6.13 the verifier knows nothing of a negated value: no pointer may move by it.
#[inline(always)]
pub fn around<const OFFSET: u32>(embedded: u64) -> u64 {
    let outer: u64;
    // SAFETY: subtracts a constant.
    unsafe {
        asm!("{0} -= {offset}", inlateout(reg) embedded => outer, offset = const immediate(Immediate::Value, OFFSET),
            options(pure, nomem, nostack));
    }
    outer
}

/// The loader turns a call of this helper number into one of the kfunc (see `agent/src/sensor/relocate.rs`).
macro_rules! rdonly_cast_call {
    () => {
        "call 0x7f000001"
    };
}

/// A BTF-typed pointer that the verifier lets programs load through.
#[derive(Clone, Copy)]
pub struct Typed(*const u8);

impl Typed {
    /// The current task. Its type is known only with [`typed_tasks`]; what reads a task asks for that.
    #[inline(always)]
    pub unsafe fn current() -> Self {
        // SAFETY: no arguments.
        unsafe {
            if typed_tasks() {
                Self::read_only::<{ fact::ID_TASK }>(bpf_get_current_task_btf() as *const u8)
            } else {
                Self(bpf_get_current_task() as *const u8)
            }
        }
    }

    /// The same, to be read by helper.
    #[inline(always)]
    pub fn raw(self) -> Raw {
        Raw(self.0)
    }

    /// A pointer that the kernel already types, as one that is only read through.
    ///
    /// VERIFIER: each load by a pointer that it trusts makes it search the whole BTF by name (`btf_nested_type_is_trusted`,
    /// 6.2 on), which took two thirds of the loading time; the cast costs no instruction.
    #[inline(always)]
    pub unsafe fn read_only<const TYPE_ID: u32>(pointer: *const u8) -> Self {
        // SAFETY: the caller names the pointer's own type.
        if typed_loads() { unsafe { Self::at::<TYPE_ID>(pointer) } } else { Self(pointer) }
    }

    /// A pointer that the kernel types.
    #[inline(always)]
    pub const fn argument(pointer: *const u8) -> Self {
        Self(pointer)
    }

    /// The 8 bytes at the very start.
    #[inline(always)]
    unsafe fn u64_at_start(self) -> u64 {
        let value: u64;
        // SAFETY: a checked load.
        unsafe { asm!("{0} = *(u64 *)({0} + 0)", inlateout(reg) self.0 => value, options(nostack)) };
        value
    }
}

macro_rules! typed_load {
    ($name:ident, $type:ty, $text:literal) => {
        #[inline(always)]
        unsafe fn $name<const OFFSET: u32>(self) -> $type {
            let value: u64;
            // SAFETY: a load that the verifier checks; a fault reads zero.
            unsafe {
                asm!("{0} += {offset}", $text, inlateout(reg) self.0 => value,
                    offset = const immediate(Immediate::Value, OFFSET), options(nostack));
            }
            value as $type
        }
    };
}

impl Object for Typed {
    const TYPED: bool = true;

    #[inline(always)]
    unsafe fn at<const TYPE_ID: u32>(address: *const u8) -> Self {
        let typed: *const u8;
        // SAFETY: bpf_rdonly_cast(address, type id) changes nothing but the verifier's view.
        unsafe {
            asm!("r2 = {id}", rdonly_cast_call!(), id = const immediate(Immediate::Value, TYPE_ID),
                inlateout("r1") address => _, lateout("r0") typed, out("r2") _, lateout("r3") _, lateout("r4") _,
                lateout("r5") _);
        }
        Self(typed)
    }

    #[inline(always)]
    fn address(self) -> *const u8 {
        self.0
    }

    #[inline(always)]
    unsafe fn embedded<const OFFSET: u32>(self) -> Self {
        let moved: *const u8;
        // SAFETY: adds a constant.
        unsafe {
            asm!("{0} += {offset}", inlateout(reg) self.0 => moved,
                offset = const immediate(Immediate::Value, OFFSET), options(nostack));
        }
        Self(moved)
    }

    #[inline(always)]
    fn pointing(address: u64) -> Self {
        Self(address as *const u8)
    }

    typed_load!(u64, u64, "{0} = *(u64 *)({0} + 0)");
    typed_load!(u32, u32, "{0} = *(u32 *)({0} + 0)");
    typed_load!(u16, u16, "{0} = *(u16 *)({0} + 0)");
    typed_load!(u8, u8, "{0} = *(u8 *)({0} + 0)");

    #[inline(always)]
    unsafe fn u64_past<const OFFSET: u32, const BYTES: i32>(self) -> u64 {
        let value: u64;
        // SAFETY: a checked load.
        unsafe {
            asm!("{0} += {offset}", "{0} = *(u64 *)({0} + {bytes})", inlateout(reg) self.0 => value,
                offset = const immediate(Immediate::Value, OFFSET), bytes = const BYTES, options(nostack));
        }
        value
    }

    #[inline(always)]
    unsafe fn object<const OFFSET: u32>(self) -> Self {
        // SAFETY: as u64.
        Self(unsafe { self.u64::<OFFSET>() } as *const u8)
    }
}

/// An address that is read by helper.
#[derive(Clone, Copy)]
pub struct Raw(*const u8);

impl Raw {
    /// Copies a plain value; zero where the address is bad.
    #[inline(always)]
    pub unsafe fn read<T: Copy + Default>(address: *const u8) -> T {
        let mut value = T::default();
        // SAFETY: the helper checks the address.
        unsafe { bpf_probe_read_kernel((&raw mut value).cast(), size_of::<T>() as u32, address.cast()) };
        value
    }

    /// Moves on by a computed number of bytes.
    #[inline(always)]
    pub fn past(self, bytes: u64) -> Self {
        Self(self.0.wrapping_add(bytes as usize))
    }

    /// The pointer at a member of a typed object, without its type.
    #[inline(always)]
    pub unsafe fn from_member<const OFFSET: u32, K: Object>(of: K) -> Self {
        // SAFETY: reads by helper.
        Self(unsafe { Self::read::<u64>(of.embedded::<OFFSET>().address()) } as *const u8)
    }
}

impl From<u64> for Raw {
    #[inline(always)]
    fn from(address: u64) -> Self {
        Self(address as *const u8)
    }
}

impl Object for Raw {
    const TYPED: bool = false;

    #[inline(always)]
    unsafe fn at<const TYPE_ID: u32>(address: *const u8) -> Self {
        Self(address)
    }

    #[inline(always)]
    fn pointing(address: u64) -> Self {
        Self(address as *const u8)
    }

    #[inline(always)]
    fn address(self) -> *const u8 {
        self.0
    }

    #[inline(always)]
    unsafe fn embedded<const OFFSET: u32>(self) -> Self {
        self.past(value::<OFFSET>())
    }

    #[inline(always)]
    unsafe fn u64<const OFFSET: u32>(self) -> u64 {
        // SAFETY: reads by helper.
        unsafe { Self::read(self.embedded::<OFFSET>().0) }
    }

    #[inline(always)]
    unsafe fn u32<const OFFSET: u32>(self) -> u32 {
        // SAFETY: reads by helper.
        unsafe { Self::read(self.embedded::<OFFSET>().0) }
    }

    #[inline(always)]
    unsafe fn u16<const OFFSET: u32>(self) -> u16 {
        // SAFETY: reads by helper.
        unsafe { Self::read(self.embedded::<OFFSET>().0) }
    }

    #[inline(always)]
    unsafe fn u8<const OFFSET: u32>(self) -> u8 {
        // SAFETY: reads by helper.
        unsafe { Self::read(self.embedded::<OFFSET>().0) }
    }

    #[inline(always)]
    unsafe fn u64_past<const OFFSET: u32, const BYTES: i32>(self) -> u64 {
        // SAFETY: reads by helper.
        unsafe { Self::read(self.embedded::<OFFSET>().past(BYTES as u64).0) }
    }

    #[inline(always)]
    unsafe fn object<const OFFSET: u32>(self) -> Self {
        // SAFETY: reads by helper.
        Self(unsafe { self.u64::<OFFSET>() } as *const u8)
    }
}

/// Whether [`Typed::at`] works on this kernel.
#[inline(always)]
pub fn typed_loads() -> bool {
    typed_tasks() && have::<{ fact::TYPED_LOADS }>()
}

/// Whether the verifier knows the type of the current task (from 5.11 on).
///
/// VERIFIER: an object of its own, not a fact: the question asked at every read costs a seventh more to verify.
#[inline(always)]
pub const fn typed_tasks() -> bool {
    !cfg!(feature = "untyped")
}

/// The pointer at a computed address.
#[inline(always)]
pub unsafe fn pointer_at(address: *const u8) -> *const u8 {
    // SAFETY: a bad address reads as null.
    unsafe {
        if typed_loads() {
            // VERIFIER: any structure with a pointer at its start will do.
            Typed::at::<{ fact::ID_HLIST_HEAD }>(address).u64_at_start() as *const u8
        } else {
            Raw::read::<u64>(address) as *const u8
        }
    }
}
