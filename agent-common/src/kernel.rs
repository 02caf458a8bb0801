//! Facts of the running kernel's types that the programs need as constants: member offsets, type
//! ids, sizes, and which of them exist. User space finds them in BTF and writes them into the
//! programs' instructions before loading (`sensor/relocate.rs` in the agent), so that the verifier
//! sees plain constants, and one object fits every kernel without clang's CO-RE relocations.
//!
//! An instruction that wants fact N carries the immediate [`immediate`]`(kind, N)`.

/// What a fact is and where BTF has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact {
    /// Byte offset of `struct.member[.member]`; the first spelling that exists.
    Offset(&'static [&'static str]),
    /// As `Offset`, and zero (with `have` false) where no spelling exists.
    OptionalOffset(&'static [&'static str]),
    /// First offset minus second, where both exist: from an embedded structure to a neighbour.
    Distance(&'static str, &'static str),
    /// Type id of a structure.
    TypeId(&'static str),
    /// Size of a structure in bytes.
    Size(&'static str),
    /// Byte offset of the member of `pt_regs` that holds this on the running machine.
    Register(&'static str),
    /// Whether there is a helper: the name in `enum bpf_func_id` without `BPF_FUNC_`.
    Helper(&'static str),
    /// A yes or no that the loader works out, by name.
    Probe(&'static str),
}

/// How an instruction uses a fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Immediate {
    /// The value itself.
    Value = 0x5eed_0000,
    /// 1 where the fact exists (or the probe said yes), else 0.
    Have = 0x5eee_0000,
}

/// The immediate that stands for a fact until the loader replaces it.
pub const fn immediate(kind: Immediate, fact: u32) -> i32 {
    (kind as u32 | fact) as i32
}

macro_rules! facts {
    ($( $name:ident = $fact:expr; )*) => {
        /// Indices into [`KERNEL_FACTS`], by name.
        #[allow(missing_docs, reason = "named after the members in KERNEL_FACTS")]
        pub mod fact {
            #[allow(non_camel_case_types, clippy::upper_case_acronyms, reason = "counts the rows")]
            #[repr(u32)]
            enum Index { $( $name, )* }
            $( pub const $name: u32 = Index::$name as u32; )*
        }

        /// Every fact with the name of its index.
        pub const KERNEL_FACTS: &[(&str, Fact)] = {
            use Fact::{Distance, Helper, Offset, OptionalOffset, Probe, Register, Size, TypeId};
            &[$( (stringify!($name), $fact), )*]
        };
    };
}

facts! {
    TASK_TGID = Offset(&["task_struct.tgid"]);
    TASK_PID = Offset(&["task_struct.pid"]);
    TASK_REAL_PARENT = Offset(&["task_struct.real_parent"]);
    TASK_GROUP_LEADER = Offset(&["task_struct.group_leader"]);
    TASK_START_BOOTTIME = Offset(&["task_struct.start_boottime", "task_struct.real_start_time"]);
    TASK_SIGNAL = Offset(&["task_struct.signal"]);
    TASK_THREAD_PID = Offset(&["task_struct.thread_pid"]);
    TASK_LOGINUID = OptionalOffset(&["task_struct.loginuid"]);
    TASK_CRED = Offset(&["task_struct.cred"]);
    TASK_CGROUPS = Offset(&["task_struct.cgroups"]);
    TASK_NSPROXY = Offset(&["task_struct.nsproxy"]);
    TASK_COMM = Offset(&["task_struct.comm"]);
    TASK_FILES = Offset(&["task_struct.files"]);
    TASK_FS = Offset(&["task_struct.fs"]);
    TASK_MM = Offset(&["task_struct.mm"]);
    TASK_EXIT_CODE = Offset(&["task_struct.exit_code"]);
    TASK_THREAD_STATUS = OptionalOffset(&["task_struct.thread_info.status"]);
    SIGNAL_PIDS = Offset(&["signal_struct.pids"]);
    SIGNAL_TTY = Offset(&["signal_struct.tty"]);
    SIGNAL_LIVE = Offset(&["signal_struct.live"]);
    SIGNAL_FLAGS = Offset(&["signal_struct.flags"]);
    SIGNAL_GROUP_EXIT_CODE = Offset(&["signal_struct.group_exit_code"]);
    PID_LEVEL = Offset(&["pid.level"]);
    PID_NUMBERS = Offset(&["pid.numbers"]);
    UPID_NR = Offset(&["upid.nr"]);
    UPID_NS = Offset(&["upid.ns"]);
    UPID_SIZE = Size("upid");
    PID_NAMESPACE_INUM = Offset(&["pid_namespace.ns.inum"]);
    TTY_INDEX = Offset(&["tty_struct.index"]);
    TTY_DRIVER = Offset(&["tty_struct.driver"]);
    TTY_DRIVER_MAJOR = Offset(&["tty_driver.major"]);
    TTY_DRIVER_MINOR_START = Offset(&["tty_driver.minor_start"]);
    CRED_UID = Offset(&["cred.uid"]);
    CRED_EUID = Offset(&["cred.euid"]);
    CRED_GID = Offset(&["cred.gid"]);
    CRED_EGID = Offset(&["cred.egid"]);
    CRED_CAP_INHERITABLE = Offset(&["cred.cap_inheritable"]);
    CRED_CAP_PERMITTED = Offset(&["cred.cap_permitted"]);
    CRED_CAP_EFFECTIVE = Offset(&["cred.cap_effective"]);
    CSS_SET_DFL_CGRP = Offset(&["css_set.dfl_cgrp"]);
    CGROUP_KN = Offset(&["cgroup.kn"]);
    CGROUP_ROOT = Offset(&["cgroup.root"]);
    CGROUP_ROOT_HIERARCHY_ID = Offset(&["cgroup_root.hierarchy_id"]);
    KERNFS_NODE_ID = Offset(&["kernfs_node.id"]);
    NSPROXY_MNT_NS = Offset(&["nsproxy.mnt_ns"]);
    MNT_NAMESPACE_INUM = Offset(&["mnt_namespace.ns.inum"]);
    MNT_NAMESPACE_ROOT = Offset(&["mnt_namespace.root"]);
    MOUNT_MNT = Offset(&["mount.mnt"]);
    MOUNT_ROOT = Offset(&["mount.mnt.mnt_root"]);
    MOUNT_SB = Offset(&["mount.mnt.mnt_sb"]);
    MOUNT_PARENT = Offset(&["mount.mnt_parent"]);
    MOUNT_OVERMOUNT = OptionalOffset(&["mount.overmount"]);
    MOUNT_MOUNTS = Offset(&["mount.mnt_mounts"]);
    MOUNT_CHILD = Offset(&["mount.mnt_child"]);
    MOUNT_MOUNTPOINT = Offset(&["mount.mnt_mountpoint"]);
    DENTRY_NAME = Offset(&["dentry.d_name.name"]);
    DENTRY_NAME_LEN = Offset(&["dentry.d_name.len"]);
    DENTRY_SHORT_NAME = Offset(&["dentry.d_shortname", "dentry.d_iname"]);
    DENTRY_PARENT = Offset(&["dentry.d_parent"]);
    DENTRY_INODE = Offset(&["dentry.d_inode"]);
    FILES_FDT = Offset(&["files_struct.fdt"]);
    FDTABLE_MAX_FDS = Offset(&["fdtable.max_fds"]);
    FDTABLE_FD = Offset(&["fdtable.fd"]);
    FS_PWD_DENTRY = Offset(&["fs_struct.pwd.dentry"]);
    FS_PWD_MNT = Offset(&["fs_struct.pwd.mnt"]);
    FILE_INODE = Offset(&["file.f_inode"]);
    FILE_PATH_DENTRY = Offset(&["file.f_path.dentry"]);
    FILE_PATH_MNT = Offset(&["file.f_path.mnt"]);
    FILE_FLAGS = Offset(&["file.f_flags"]);
    FILE_MODE = Offset(&["file.f_mode"]);
    FILE_PRIVATE_DATA = Offset(&["file.private_data"]);
    INODE_MODE = Offset(&["inode.i_mode"]);
    INODE_UID = Offset(&["inode.i_uid"]);
    INODE_GID = Offset(&["inode.i_gid"]);
    INODE_SB = Offset(&["inode.i_sb"]);
    INODE_INO = Offset(&["inode.i_ino"]);
    INODE_NLINK = Offset(&["inode.i_nlink"]);
    INODE_SIZE = Offset(&["inode.i_size"]);
    INODE_GENERATION = Offset(&["inode.i_generation"]);
    INODE_VERSION = Offset(&["inode.i_version"]);
    INODE_CTIME_SEC = Offset(&["inode.i_ctime_sec", "inode.__i_ctime.tv_sec", "inode.i_ctime.tv_sec"]);
    INODE_CTIME_NSEC = Offset(&["inode.i_ctime_nsec", "inode.__i_ctime.tv_nsec", "inode.i_ctime.tv_nsec"]);
    INODE_MTIME_SEC = Offset(&["inode.i_mtime_sec", "inode.__i_mtime.tv_sec", "inode.i_mtime.tv_sec"]);
    INODE_MTIME_NSEC = Offset(&["inode.i_mtime_nsec", "inode.__i_mtime.tv_nsec", "inode.i_mtime.tv_nsec"]);
    SUPER_BLOCK_DEV = Offset(&["super_block.s_dev"]);
    SUPER_BLOCK_MAGIC = Offset(&["super_block.s_magic"]);
    OVL_UPPERDENTRY = Distance("ovl_inode.__upperdentry", "ovl_inode.vfs_inode");
    OVL_ENTRY = Distance("ovl_inode.oe", "ovl_inode.vfs_inode");
    OVL_ENTRY_NUMLOWER = OptionalOffset(&["ovl_entry.__numlower", "ovl_entry.numlower"]);
    OVL_ENTRY_LOWERSTACK = OptionalOffset(&["ovl_entry.__lowerstack", "ovl_entry.lowerstack"]);
    OVL_LOWERPATH = Distance("ovl_inode.lowerpath", "ovl_inode.vfs_inode");
    OVL_LOWER_INODE = Distance("ovl_inode.lower", "ovl_inode.vfs_inode");
    OVL_PATH_LAYER = OptionalOffset(&["ovl_path.layer"]);
    OVL_PATH_DENTRY = OptionalOffset(&["ovl_path.dentry"]);
    OVL_LAYER_IDX = OptionalOffset(&["ovl_layer.idx"]);
    MM_ARG_START = Offset(&["mm_struct.arg_start"]);
    MM_ARG_END = Offset(&["mm_struct.arg_end"]);
    MM_ENV_START = Offset(&["mm_struct.env_start"]);
    MM_ENV_END = Offset(&["mm_struct.env_end"]);
    BPRM_FILE = Offset(&["linux_binprm.file"]);
    BPRM_FILENAME = Offset(&["linux_binprm.filename"]);
    BPRM_INTERP = Offset(&["linux_binprm.interp"]);
    BPRM_FDPATH = OptionalOffset(&["linux_binprm.fdpath"]);
    SOCKET_SK = Offset(&["socket.sk"]);
    SOCK_FAMILY = Offset(&["sock.__sk_common.skc_family"]);
    SOCK_TYPE = Offset(&["sock.sk_type"]);
    SOCK_PROTOCOL = Offset(&["sock.sk_protocol"]);
    SOCK_DADDR = Offset(&["sock.__sk_common.skc_daddr"]);
    SOCK_RCV_SADDR = Offset(&["sock.__sk_common.skc_rcv_saddr"]);
    SOCK_DPORT = Offset(&["sock.__sk_common.skc_dport"]);
    SOCK_NUM = Offset(&["sock.__sk_common.skc_num"]);
    SOCK_BOUND_DEV_IF = Offset(&["sock.__sk_common.skc_bound_dev_if"]);
    SOCK_V6_DADDR = OptionalOffset(&["sock.__sk_common.skc_v6_daddr"]);
    SOCK_V6_RCV_SADDR = OptionalOffset(&["sock.__sk_common.skc_v6_rcv_saddr"]);
    UNIX_PEER = Offset(&["unix_sock.peer"]);
    UNIX_ADDR = Offset(&["unix_sock.addr"]);
    UNIX_ADDRESS_LEN = Offset(&["unix_address.len"]);
    UNIX_ADDRESS_NAME = Offset(&["unix_address.name"]);
    IO_KIOCB_OPCODE = OptionalOffset(&["io_kiocb.opcode"]);
    IO_KIOCB_CMD = OptionalOffset(&["io_kiocb.cmd"]);
    IO_KIOCB_FILE = OptionalOffset(&["io_kiocb.file"]);
    IO_KIOCB_FLAGS = OptionalOffset(&["io_kiocb.flags"]);
    IO_KIOCB_CTX = OptionalOffset(&["io_kiocb.ctx"]);
    IO_KIOCB_ASYNC_DATA = OptionalOffset(&["io_kiocb.async_data"]);
    IO_KIOCB_FD = OptionalOffset(&["io_kiocb.cqe.fd"]);
    IO_ASYNC_ADDR = OptionalOffset(&["io_async_msghdr.addr"]);
    IO_ASYNC_NAME = OptionalOffset(&["io_async_msghdr.msg.msg_name"]);
    IO_ASYNC_NAME_LEN = OptionalOffset(&["io_async_msghdr.msg.msg_namelen"]);
    IO_CQE_RES = OptionalOffset(&["io_uring_cqe.res"]);
    IO_OPEN_DFD = OptionalOffset(&["io_open.dfd"]);
    IO_OPEN_FILE_SLOT = OptionalOffset(&["io_open.file_slot"]);
    IO_OPEN_FILENAME = OptionalOffset(&["io_open.filename"]);
    IO_OPEN_FLAGS = OptionalOffset(&["io_open.how.flags"]);
    IO_OPEN_MODE = OptionalOffset(&["io_open.how.mode"]);
    IO_CONNECT_ADDR = OptionalOffset(&["io_connect.addr"]);
    IO_CONNECT_ADDR_LEN = OptionalOffset(&["io_connect.addr_len"]);
    IO_CTX_FILE_NODES = OptionalOffset(&["io_ring_ctx.file_table.data.nodes"]);
    IO_CTX_FILE_NR = OptionalOffset(&["io_ring_ctx.file_table.data.nr"]);
    IO_RSRC_NODE_FILE_PTR = OptionalOffset(&["io_rsrc_node.file_ptr"]);
    FILENAME_NAME = Offset(&["filename.name"]);
    REGS_NR = Register("nr");
    REGS_ARG0 = Register("arg0");
    REGS_ARG1 = Register("arg1");
    REGS_ARG2 = Register("arg2");
    REGS_ARG3 = Register("arg3");
    REGS_ARG4 = Register("arg4");
    REGS_ARG5 = Register("arg5");
    COMPAT_ARG0 = Register("compat0");
    COMPAT_ARG1 = Register("compat1");
    COMPAT_ARG2 = Register("compat2");
    COMPAT_ARG3 = Register("compat3");
    COMPAT_ARG4 = Register("compat4");
    COMPAT_ARG5 = Register("compat5");
    ID_TASK = TypeId("task_struct");
    ID_BPRM = TypeId("linux_binprm");
    ID_FILE = TypeId("file");
    ID_DENTRY = TypeId("dentry");
    ID_MOUNT = TypeId("mount");
    ID_SOCKET = TypeId("socket");
    ID_UNIX_SOCK = TypeId("unix_sock");
    ID_IO_KIOCB = TypeId("io_kiocb");
    ID_PT_REGS = TypeId("pt_regs");
    TASK_STACK = Offset(&["task_struct.stack"]);
    PT_REGS_SIZE = Size("pt_regs");
    HELPER_TASK_PT_REGS = Helper("task_pt_regs");
    ATOMIC_FETCH = Probe("atomic_fetch");
    ID_HLIST_HEAD = TypeId("hlist_head");
    TYPED_LOADS = Probe("typed_loads");
    COMPAT = Probe("compat");
    COMPLETE_HAS_CQE = Probe("complete_has_cqe");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_names_its_row() {
        assert_eq!(KERNEL_FACTS[fact::TASK_TGID as usize].0, "TASK_TGID");
        assert_eq!(KERNEL_FACTS[fact::COMPLETE_HAS_CQE as usize].0, "COMPLETE_HAS_CQE");
        assert!(KERNEL_FACTS.len() < 0x1_0000, "the index is the low half of an immediate");
    }
}
