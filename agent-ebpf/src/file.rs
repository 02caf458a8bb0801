//! Identity of an inode: its own numbers and what overlayfs knows of it.

use agent_common::{FileFlags, FileRecord, OverlayRecord, fact};

use crate::object::{Object, Raw, Typed, around, have, typed_tasks};

/// `OVERLAYFS_SUPER_MAGIC` (`include/uapi/linux/magic.h`)
const OVERLAYFS: u64 = 0x794c_7630;

/// Since 6.13 bit 31 of the nanoseconds of a change time marks that it was queried (`include/linux/fs.h`, `I_CTIME_QUERIED`).
const NANOSECONDS: u32 = 0x7fff_ffff;

/// How many mounts on the kernel's own rootfs are looked at.
const ROOT_MOUNTS: usize = 4;

/// Fills in the identity of an inode, as seen by `task`.
#[inline(always)]
pub unsafe fn fill<K: Object>(record: &mut FileRecord, inode: K, task: Typed) {
    // SAFETY: reads an inode and its superblock.
    unsafe {
        let superblock = inode.object::<{ fact::INODE_SB }>();
        record.ino = inode.u64::<{ fact::INODE_INO }>();
        record.size = inode.u64::<{ fact::INODE_SIZE }>();
        record.ctime_ns = change_time(inode);
        record.mtime_ns = inode.u64::<{ fact::INODE_MTIME_SEC }>() as i64 * 1_000_000_000
            + i64::from(inode.u32::<{ fact::INODE_MTIME_NSEC }>() & NANOSECONDS);
        record.magic = superblock.u64::<{ fact::SUPER_BLOCK_MAGIC }>();
        record.dev = superblock.u32::<{ fact::SUPER_BLOCK_DEV }>();
        record.generation = inode.u32::<{ fact::INODE_GENERATION }>();
        record.mode = u32::from(inode.u16::<{ fact::INODE_MODE }>());
        record.uid = inode.u32::<{ fact::INODE_UID }>();
        record.gid = inode.u32::<{ fact::INODE_GID }>();
        record.nlink = inode.u32::<{ fact::INODE_NLINK }>();
        record.layer = 0;
        record.flags = 0;
        let root = if typed_tasks() { root_superblock(task) } else { root_superblock(task.raw()) };
        if root == superblock.address() {
            record.flags |= FileFlags::ON_ROOTFS;
        }
        if record.magic == OVERLAYFS {
            overlay(record, inode);
        }
    }
}

/// The superblock at the root of a task's mount namespace. A namespace's first mount is the kernel's own empty
/// rootfs; what is called the root is mounted over it (`init_mount_tree`, `copy_mnt_ns`, `pivot_root`).
#[inline(always)]
unsafe fn root_superblock<T: Object>(task: T) -> *const u8 {
    // SAFETY: reads a task's mounts.
    unsafe {
        let first = task
            .object::<{ fact::TASK_NSPROXY }>()
            .object::<{ fact::NSPROXY_MNT_NS }>()
            .object::<{ fact::MNT_NAMESPACE_ROOT }>();
        if have::<{ fact::MOUNT_OVERMOUNT }>() {
            let over = first.object::<{ fact::MOUNT_OVERMOUNT }>();
            return if over.is_null() { first } else { over }.object::<{ fact::MOUNT_SB }>().address();
        }
        // Before 6.16: that of its children which is mounted on the root; others may be there from before.
        let mut link = Raw::from_member::<{ fact::MOUNT_MOUNTS }, _>(first);
        for _ in 0..ROOT_MOUNTS {
            let child = Raw::from(around::<{ fact::MOUNT_CHILD }>(link.address() as u64));
            let place = child.object::<{ fact::MOUNT_MOUNTPOINT }>().address();
            if place == first.object::<{ fact::MOUNT_ROOT }>().address() {
                return child.object::<{ fact::MOUNT_SB }>().address();
            }
            link = Raw::from_member::<{ fact::MOUNT_CHILD }, _>(child);
        }
        first.object::<{ fact::MOUNT_SB }>().address()
    }
}

#[inline(always)]
unsafe fn change_time<K: Object>(inode: K) -> i64 {
    // SAFETY: reads an inode.
    unsafe {
        inode.u64::<{ fact::INODE_CTIME_SEC }>() as i64 * 1_000_000_000
            + i64::from(inode.u32::<{ fact::INODE_CTIME_NSEC }>() & NANOSECONDS)
    }
}

/// The overlay's own part of the inode lies around the inode in a structure that BTF may describe only in a
/// module, so it is read by helper. Layouts: 6.5 on has `oe`, 5.19-6.4 `lowerpath`, before that `lower`.
#[inline(always)]
unsafe fn overlay<K: Object>(record: &mut FileRecord, inode: K) {
    record.overlay = OverlayRecord::default();
    if !have::<{ fact::OVL_UPPERDENTRY }>() {
        return;
    }
    // SAFETY: reads by helper.
    unsafe {
        let upper = Raw::from_member::<{ fact::OVL_UPPERDENTRY }, _>(inode);
        let mut lower = Raw::from(0);
        let mut layer = 0;
        if have::<{ fact::OVL_ENTRY }>() {
            let entry = Raw::from_member::<{ fact::OVL_ENTRY }, _>(inode);
            if !entry.is_null() && entry.u32::<{ fact::OVL_ENTRY_NUMLOWER }>() != 0 {
                let top = entry.embedded::<{ fact::OVL_ENTRY_LOWERSTACK }>();
                layer = top.object::<{ fact::OVL_PATH_LAYER }>().u32::<{ fact::OVL_LAYER_IDX }>();
                lower = top.object::<{ fact::OVL_PATH_DENTRY }>().object::<{ fact::DENTRY_INODE }>();
            }
        } else if have::<{ fact::OVL_LOWERPATH }>() {
            let top = Raw::from(inode.embedded::<{ fact::OVL_LOWERPATH }>().address() as u64);
            let dentry = top.object::<{ fact::OVL_PATH_DENTRY }>();
            if !dentry.is_null() {
                layer = top.object::<{ fact::OVL_PATH_LAYER }>().u32::<{ fact::OVL_LAYER_IDX }>();
                lower = dentry.object::<{ fact::DENTRY_INODE }>();
            }
        } else if have::<{ fact::OVL_LOWER_INODE }>() {
            lower = Raw::from_member::<{ fact::OVL_LOWER_INODE }, _>(inode);
        }
        record.flags |= FileFlags::OVERLAY;
        let mut real = lower;
        if !lower.is_null() {
            record.flags |= FileFlags::HAS_LOWER;
            record.layer = layer;
        }
        if !upper.is_null() {
            record.flags |= FileFlags::UPPER;
            record.layer = 0;
            real = upper.object::<{ fact::DENTRY_INODE }>();
        }
        if real.is_null() {
            return;
        }
        record.overlay = OverlayRecord {
            ino: real.u64::<{ fact::INODE_INO }>(),
            size: real.u64::<{ fact::INODE_SIZE }>(),
            ctime_ns: change_time(real),
            version: real.u64::<{ fact::INODE_VERSION }>() >> 1,
            dev: real.object::<{ fact::INODE_SB }>().u32::<{ fact::SUPER_BLOCK_DEV }>(),
            generation: real.u32::<{ fact::INODE_GENERATION }>(),
        };
    }
}
