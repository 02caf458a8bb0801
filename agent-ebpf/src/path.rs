//! Paths from dentries and mounts, up to the root of the mount namespace whatever root or chroot the
//! task has. Names are written innermost first; user space turns them round.

use agent_common::{Loss, PathFlags, PathRecord, fact, limits};
use aya_ebpf::helpers::generated::bpf_probe_read_kernel_str;

use crate::{
    object::{Object, around},
    output::{Sections, lost, store},
};

/// Most steps of one walk: names and mounts crossed.
const STEPS: usize = 96;

/// A place in the tree: dentry and mount.
#[derive(Clone, Copy)]
pub struct Place<K> {
    pub dentry: K,
    /// `struct mount`, not the `vfsmount` inside it.
    pub mount: K,
}

impl<K: Object> Place<K> {
    /// From a `struct path`'s members.
    #[inline(always)]
    pub unsafe fn new(dentry: K, vfsmount: K) -> Self {
        let mount = around::<{ fact::MOUNT_MNT }>(vfsmount.address() as u64);
        // SAFETY: every vfsmount lies inside a mount (fs/mount.h, real_mount).
        Self { dentry, mount: unsafe { K::at::<{ fact::ID_MOUNT }>(mount as *const u8) } }
    }

    /// From addresses that were kept.
    #[inline(always)]
    pub unsafe fn at((dentry, mount): (u64, u64)) -> Self {
        // SAFETY: the caller kept them from a place.
        unsafe {
            Self {
                dentry: K::at::<{ fact::ID_DENTRY }>(dentry as *const u8),
                mount: K::at::<{ fact::ID_MOUNT }>(mount as *const u8),
            }
        }
    }
}

/// Writes the path of `place`, and notes where the sections' landmark lies on it. With `beneath`, also what lies
/// beneath the mount. `SHORT` copies short names without a helper: for events that are frequent, as it is the larger
/// part of what there is to verify.
///
/// VERIFIER: what the loops find goes to memory at once (`record` is in a map), so that their rounds and ways
/// out differ in nothing that the verifier tracks.
#[inline(always)]
pub unsafe fn write<K: Object, const ROOM: usize, const SHORT: bool>(
    record: &mut PathRecord,
    sections: Sections,
    place: Place<K>,
    beneath: bool,
) {
    let start = sections.length();
    // SAFETY: reads dentries and mounts.
    unsafe {
        clear(record);
        set(&raw mut record.flags, PathFlags::TRUNCATED);
        set(&raw mut record.within, u16::MAX);
        let mut dentry = place.dentry;
        let mut mount = place.mount;
        let own_root = mount.object::<{ fact::MOUNT_ROOT }>();
        let mut root = own_root;
        for _ in 0..STEPS {
            let (landmark_dentry, landmark_mount) = sections.landmark();
            if dentry.address() as u64 == landmark_dentry && mount.address() as u64 == landmark_mount {
                set(&raw mut record.landmark, (sections.length() - start) as u16);
                set_flag(record, PathFlags::LANDMARK);
            }
            if dentry.is(root) {
                if (&raw const record.within).read_volatile() == u16::MAX {
                    set(&raw mut record.within, (sections.length() - start) as u16);
                }
                let parent = mount.object::<{ fact::MOUNT_PARENT }>();
                if parent.is(mount) {
                    clear_flag(record, PathFlags::TRUNCATED);
                    break;
                }
                dentry = mount.object::<{ fact::MOUNT_MOUNTPOINT }>();
                mount = parent;
                root = mount.object::<{ fact::MOUNT_ROOT }>();
                continue;
            }
            let parent = dentry.object::<{ fact::DENTRY_PARENT }>();
            if parent.is(dentry) {
                name::<K, ROOM, SHORT>(sections, dentry);
                clear_flag(record, PathFlags::TRUNCATED);
                set_flag(record, PathFlags::ROOTLESS);
                break;
            }
            if sections.length() - start > limits::PATH_MAX || !name::<K, ROOM, SHORT>(sections, dentry) {
                break;
            }
            dentry = parent;
        }
        let length = (sections.length() - start) as u16;
        set(&raw mut record.length, length);
        let flags = (&raw const record.flags).read_volatile();
        if flags & PathFlags::TRUNCATED != 0 {
            lost(Loss::PathTruncated);
        }

        if beneath && flags & PathFlags::ROOTLESS == 0 {
            let mut dentry = own_root;
            let mut parent = dentry.object::<{ fact::DENTRY_PARENT }>();
            if parent.is(dentry) {
                return;
            }
            let start = sections.length();
            set_flag(record, PathFlags::PARTIAL | PathFlags::BENEATH_TRUNCATED);
            for _ in 0..STEPS {
                if parent.is(dentry) {
                    clear_flag(record, PathFlags::BENEATH_TRUNCATED);
                    break;
                }
                if sections.length() - start > limits::PATH_MAX || !name::<K, ROOM, SHORT>(sections, dentry) {
                    break;
                }
                dentry = parent;
                parent = dentry.object::<{ fact::DENTRY_PARENT }>();
            }
            set(&raw mut record.beneath, (sections.length() - start) as u16);
            if (&raw const record.flags).read_volatile() & PathFlags::BENEATH_TRUNCATED != 0 {
                lost(Loss::PathTruncated);
            }
        }
    }
}

/// Zeroes a record, field by field: the compiler's own way is a loop over bytes.
#[inline(always)]
pub unsafe fn clear(record: &mut PathRecord) {
    // SAFETY: fields of a record in a map.
    unsafe {
        set(&raw mut record.length, 0);
        set(&raw mut record.within, 0);
        set(&raw mut record.beneath, 0);
        set(&raw mut record.landmark, 0);
        set(&raw mut record.flags, 0);
        set(&raw mut record.reserved, 0);
    }
}

/// Stores at once, whatever the compiler would like to keep in a register.
#[inline(always)]
unsafe fn set(field: *mut u16, value: u16) {
    // SAFETY: a field of a record in a map.
    unsafe { field.write_volatile(value) };
}

#[inline(always)]
unsafe fn set_flag(record: &mut PathRecord, flag: u16) {
    let flags = &raw mut record.flags;
    // SAFETY: as above.
    unsafe { set(flags, flags.read_volatile() | flag) };
}

#[inline(always)]
unsafe fn clear_flag(record: &mut PathRecord, flag: u16) {
    let flags = &raw mut record.flags;
    // SAFETY: as above.
    unsafe { set(flags, flags.read_volatile() & !flag) };
}

/// Writes a dentry's name with its NUL.
#[inline(always)]
unsafe fn name<K: Object, const ROOM: usize, const SHORT: bool>(sections: Sections, dentry: K) -> bool {
    // SAFETY: reads a dentry; `end` guarantees the room of the longest name.
    unsafe {
        let text = dentry.object::<{ fact::DENTRY_NAME }>().address();
        let to = sections.end::<ROOM>();
        if K::TYPED && SHORT && text == dentry.embedded::<{ fact::DENTRY_SHORT_NAME }>().address() {
            // Most names lie in the dentry itself: four loads and stores at most in place of a helper call.
            let length = dentry.u32::<{ fact::DENTRY_NAME_LEN }>();
            if length < SHORT_NAME {
                store::<0>(to, dentry.u64_past::<{ fact::DENTRY_SHORT_NAME }, 0>());
                if length >= 8 {
                    store::<8>(to, dentry.u64_past::<{ fact::DENTRY_SHORT_NAME }, 8>());
                }
                if length >= 16 {
                    store::<16>(to, dentry.u64_past::<{ fact::DENTRY_SHORT_NAME }, 16>());
                    store::<24>(to, dentry.u64_past::<{ fact::DENTRY_SHORT_NAME }, 24>());
                }
                sections.add((length as usize & (SHORT_NAME as usize - 1)) + 1);
                return true;
            }
        }
        // The helper stops at the NUL or at the size given.
        let written = bpf_probe_read_kernel_str(to.cast(), limits::NAME_SIZE as u32, text.cast());
        if written <= 0 {
            return false;
        }
        sections.add((written as usize) & (2 * limits::NAME_SIZE - 1));
        true
    }
}

/// Bytes that fit a dentry on every kernel, with the NUL (`DNAME_INLINE_LEN`, `DNAME_INLINE_WORDS`: 32 to 40).
const SHORT_NAME: u32 = 32;
