//! Records of opens, connects and plain calls as the programs write them, made up.

use agent_common::{
    CallFlags, CallRecord, ConnectRecord, EventGroup, FileFlags, FileRecord, Header, HeaderBits, InetAddress,
    OpenFlags, OpenRecord, OwnFacts, PathFlags, PathRecord, RECORD_VERSION, Reads, SocketFlags, SocketRecord,
    TaskRecord, own_hash,
};
use proptest::prelude::*;
use proptest::sample::select;

use crate::event::EventType;
use crate::pushdown::is_hashable;

/// A fixed part of a record.
#[derive(Debug, Clone)]
pub(crate) enum Fixed {
    Open(Box<OpenRecord>),
    Connect(Box<ConnectRecord>),
    Call(Box<CallRecord>),
}

/// A record in its parts.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) event: EventType,
    pub(crate) fixed: Fixed,
    pub(crate) sections: Vec<u8>,
}

impl Fixed {
    /// Its bytes, of which any pattern is a value.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        fn bytes<R>(record: &mut R) -> &mut [u8] {
            // SAFETY: records hold integers only, without padding (asserted in agent-common).
            unsafe { std::slice::from_raw_parts_mut((&raw mut *record).cast(), size_of::<R>()) }
        }
        match self {
            Self::Open(record) => bytes(&mut **record),
            Self::Connect(record) => bytes(&mut **record),
            Self::Call(record) => bytes(&mut **record),
        }
    }

    pub(crate) fn task(&mut self) -> &mut TaskRecord {
        match self {
            Self::Open(record) => &mut record.task,
            Self::Connect(record) => &mut record.task,
            Self::Call(record) => &mut record.task,
        }
    }

    fn header(&mut self) -> &mut Header {
        match self {
            Self::Open(record) => &mut record.header,
            Self::Connect(record) => &mut record.header,
            Self::Call(record) => &mut record.header,
        }
    }
}

impl Record {
    /// As the programs hash it.
    pub(crate) fn hash(&self, host: bool, own: u8, key: [u64; 2]) -> Option<u64> {
        let code = self.event.code();
        match &self.fixed {
            Fixed::Open(record) => own_hash(&**record, &self.sections, code, host, own, key),
            Fixed::Connect(record) => own_hash(&**record, &self.sections, code, host, own, key),
            Fixed::Call(record) => own_hash(&**record, &self.sections, code, host, own, key),
        }
    }

    /// As it leaves the kernel.
    pub(crate) fn bytes(&self, boot_ns: u64, hash: u64, host: bool, own: u8) -> Vec<u8> {
        let mut fixed = self.fixed.clone();
        let length = fixed.bytes_mut().len() + self.sections.len();
        *fixed.header() = Header {
            version: RECORD_VERSION,
            event: self.event.code(),
            length: length as u32,
            bits: if host && own & OwnFacts::HOST != 0 { HeaderBits::HOST } else { 0 },
            generation: 1,
            boot_ns,
            hash,
            ..Header::default()
        };
        let mut bytes = fixed.bytes_mut().to_vec();
        bytes.extend_from_slice(&self.sections);
        bytes
    }
}

const NAMES: &[&str] = &["/etc/shadow", "shadow", "/tmp/a", "./a", "../b", "/proc/self/root/etc/shadow", ""];
/// Innermost first, each with its NUL.
const PATHS: &[&str] = &["shadow\0etc\0", "a\0tmp\0", "memfd:x\0", "b\0deep\0tmp\0", "socket:[7]\0", ""];

fn task() -> impl Strategy<Value = TaskRecord> {
    (10..13_u32, select(vec![0, 1000_u32]), select(vec![5, 6_u64]), any::<u64>()).prop_map(
        |(tgid, uid, cgroup_id, caps)| {
            let comm = if tgid == 10 { *b"sh\0\0\0\0\0\0\0\0\0\0\0\0\0\0" } else { *b"cat\0\0\0\0\0\0\0\0\0\0\0\0\0" };
            TaskRecord {
                tgid,
                tid: tgid,
                parent_tgid: 1,
                start_ns: 7,
                uid,
                euid: uid,
                cgroup_id,
                cap_effective: caps,
                comm,
                ..TaskRecord::default()
            }
        },
    )
}

fn file() -> impl Strategy<Value = FileRecord> {
    let flags = [0, FileFlags::OVERLAY, FileFlags::OVERLAY | FileFlags::UPPER, FileFlags::ON_ROOTFS];
    let magics = [0xef53_u64, 0x0102_1994, 0x5049_4446];
    let modes = [0o100_644_u32, 0o40_755, 0o10_600];
    (select(flags.to_vec()), select(magics.to_vec()), select(modes.to_vec()), any::<u16>()).prop_map(
        |(flags, magic, mode, ino)| FileRecord { flags, magic, mode, ino: ino.into(), ..FileRecord::default() },
    )
}

/// A path's record and its sections.
fn path() -> impl Strategy<Value = (PathRecord, Vec<u8>)> {
    let flags = [0, 0, PathFlags::TRUNCATED, PathFlags::ROOTLESS, PathFlags::LANDMARK, PathFlags::PARTIAL];
    (select(PATHS.to_vec()), select(vec!["", "beneath\0"]), select(flags.to_vec()), any::<bool>()).prop_map(
        |(names, beneath, flags, whole)| {
            let beneath = if flags == PathFlags::PARTIAL { beneath } else { "" };
            let first = names.find('\0').map_or(0, |end| end + 1);
            let record = PathRecord {
                length: names.len() as u16,
                within: if whole { names.len() } else { first } as u16,
                beneath: beneath.len() as u16,
                landmark: first as u16,
                flags,
                reserved: 0,
            };
            (record, [names, beneath].concat().into_bytes())
        },
    )
}

fn result() -> impl Strategy<Value = i64> {
    select(vec![-13_i64, -2, -512, 0, 3, 4])
}

fn open() -> impl Strategy<Value = (Fixed, Vec<u8>)> {
    let flags = [0_u32, 1, 2, 0o101, 0o1101, 0o20_200_001, 0o2_200_000, 0o10_000_000];
    (
        (task(), file(), result(), select(flags.to_vec()), select(vec![0_u32, 0o644, 0o755])),
        (any::<bool>(), any::<bool>(), select(NAMES.to_vec()), path(), path(), -100..5_i32),
    )
        .prop_map(|((task, file, result, flags, mode), (created, directory, name, path, dir, dirfd))| {
            let mut bits = 0;
            let ((path, mut names), mut sections) = (path, name.as_bytes().to_vec());
            let mut record_path = PathRecord::default();
            if result >= 0 {
                bits |= OpenFlags::HAS_FILE | if created { OpenFlags::CREATED } else { 0 };
                record_path = path;
                sections.append(&mut names);
            }
            let mut record_directory = PathRecord::default();
            if directory && record_path.flags & PathFlags::LANDMARK == 0 {
                bits |= OpenFlags::DIRECTORY;
                record_directory = PathRecord { beneath: 0, ..dir.0 };
                sections.extend_from_slice(&dir.1[..usize::from(dir.0.length)]);
            }
            let record = OpenRecord {
                task,
                file,
                result,
                flags,
                mode,
                dirfd,
                bits,
                name_length: name.len() as u32,
                path: record_path,
                directory: record_directory,
                ..OpenRecord::default()
            };
            (Fixed::Open(Box::new(record)), sections)
        })
}

fn inet(family: u16) -> impl Strategy<Value = InetAddress> {
    (select(vec![10, 127, 8_u8]), select(vec![53, 80, 443_u16]), any::<bool>()).prop_map(move |(first, port, there)| {
        let mut address = [0; 16];
        address[0] = first;
        if there { InetAddress { family, port, scope: 0, address } } else { InetAddress::default() }
    })
}

/// A socket and its sections.
fn socket() -> impl Strategy<Value = (SocketRecord, Vec<u8>)> {
    let unix = || select(vec!["", "/run/docker.sock", "\0abstract"]);
    let families = select(vec![1, 2, 2, 10, 16_u16]);
    (families, select(vec![1, 2, 3_u16]), select(vec![0, 6, 17_u16]), unix(), unix(), any::<bool>()).prop_flat_map(
        |(family, sock_type, protocol, remote_path, local_path, from_user)| {
            (inet(family), inet(family)).prop_map(move |(remote, local)| {
                let is_unix = family == 1;
                let is_inet = family == 2 || family == 10;
                let (remote_path, local_path) = if is_unix { (remote_path, local_path) } else { ("", "") };
                let mut flags = if from_user { SocketFlags::REMOTE_FROM_USER } else { 0 };
                if is_unix {
                    flags |= SocketFlags::REMOTE_UNIX;
                    if !local_path.is_empty() {
                        flags |= SocketFlags::LOCAL_UNIX;
                    }
                }
                let record = SocketRecord {
                    family,
                    sock_type,
                    protocol,
                    flags,
                    remote_length: remote_path.len() as u16,
                    local_length: local_path.len() as u16,
                    remote: if is_inet { remote } else { InetAddress::default() },
                    local: if is_inet { local } else { InetAddress::default() },
                };
                (record, [remote_path, local_path].concat().into_bytes())
            })
        },
    )
}

fn connect() -> impl Strategy<Value = (Fixed, Vec<u8>)> {
    (task(), result(), 3..6_i32, socket()).prop_map(|(task, result, fd, (socket, sections))| {
        let record = ConnectRecord { task, result: result.min(0), fd, socket, ..ConnectRecord::default() };
        (Fixed::Connect(Box::new(record)), sections)
    })
}

fn call(event: EventType) -> impl Strategy<Value = (Fixed, Vec<u8>)> {
    let arguments = prop::collection::vec(select(vec![0, 1, 2, 3, 16, 0xffff_ffff_u64]), 6);
    let texts = prop::collection::vec(select(NAMES.to_vec()), 3);
    let data = select(vec!["", "/etc/shadow\0a\0", "sh\0"]);
    ((task(), file(), result(), arguments, texts, data), (path(), path(), path(), socket(), 0..3_u32, any::<bool>()))
        .prop_map(
            move |((task, file, result, values, texts, data), (first, second, third, socket, object, directories))| {
                let reads = Reads::of(event.parameters());
                // One that did not fail is no call.
                let result = if event.is_failed_exec() && result >= 0 { -2 } else { result };
                let mut record = CallRecord { task, file, result, fd: 3, ..CallRecord::default() };
                record.arguments[..6].copy_from_slice(&values);
                let mut sections = Vec::new();
                for (nth, text) in texts.iter().enumerate().filter(|(nth, _)| reads.texts[*nth] != 0) {
                    record.text_lengths[nth] = text.len() as u32;
                    sections.extend_from_slice(text.as_bytes());
                }
                if reads.data != 0 || reads.list != 0 {
                    record.data_length = data.len() as u32;
                    sections.extend_from_slice(data.as_bytes());
                }
                let plain = |(path, names): (PathRecord, Vec<u8>)| {
                    let names = names[..usize::from(path.length)].to_vec();
                    (PathRecord { beneath: 0, ..path }, names)
                };
                if directories {
                    for (nth, path) in [plain(first), plain(second)].into_iter().enumerate() {
                        if reads.directories.get(nth).is_some_and(|from| *from != Reads::NOWHERE) {
                            record.flags |= CallFlags::DIRECTORY << nth;
                            record.paths[nth] = path.0;
                            sections.extend_from_slice(&path.1);
                        }
                    }
                }
                if reads.descriptor != 0 && object == 1 {
                    record.flags |= CallFlags::FILE;
                    record.paths[2] = third.0;
                    sections.extend_from_slice(&third.1);
                }
                if reads.descriptor != 0 && object == 2 {
                    record.flags |= CallFlags::FILE | CallFlags::SOCKET;
                    record.socket = socket.0;
                    sections.extend_from_slice(&socket.1);
                }
                (Fixed::Call(Box::new(record)), sections)
            },
        )
}

/// A record of an event type.
pub(crate) fn of(event: EventType) -> BoxedStrategy<Record> {
    let parts = match event.group() {
        EventGroup::Open => open().boxed(),
        EventGroup::Connect => connect().boxed(),
        _ => call(event).boxed(),
    };
    parts.prop_map(move |(fixed, sections)| Record { event, fixed, sections }).boxed()
}

/// A record of any of them.
pub(crate) fn any_record() -> impl Strategy<Value = Record> {
    select(EventType::ALL.iter().copied().filter(|event| is_hashable(*event)).collect::<Vec<_>>()).prop_flat_map(of)
}
