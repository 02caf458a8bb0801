//! Lists the unpacked directories of an image's layers, where the layers' bytes are gone: overlayfs' own
//! form, with whiteouts as devices and opaque directories as an attribute. Nothing binds what is found to a digest.

use std::{
    ffi::OsStr,
    io,
    ops::ControlFlow,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat},
    io::Errno,
};

use super::{
    build::Progress,
    capabilities::FileCapabilities,
    classify::{PREFIX, classify},
    digest::Hasher,
    layer::LayerLimits,
    model::File,
    tree::{Node, Tree, TreeError},
};

const BUFFER: usize = 128 << 10;
/// Deeper trees are refused: each level holds a descriptor.
const MAX_DEPTH: usize = 256;

/// Why a directory cannot be listed.
#[derive(Debug, thiserror::Error)]
pub enum UnpackedError {
    /// Reading failed.
    #[error("unpacked layer, {path}: {error}")]
    Io {
        /// What could not be read.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It holds too much.
    #[error("unpacked layer {path}: {error}")]
    Tree {
        /// The layer's directory.
        path: PathBuf,
        /// Why.
        error: TreeError,
    },
    /// The caller stopped it.
    #[error("cancelled")]
    Cancelled,
}

/// Lists `directories`, lowest first, laid over each other.
pub(super) fn read(
    directories: &[PathBuf],
    limits: &LayerLimits,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Tree, UnpackedError> {
    let mut merged = Tree::new(limits.tree);
    for (index, path) in directories.iter().enumerate() {
        let mut report = |bytes| progress(Progress { layer: index, layers: directories.len(), bytes, total: None });
        if report(0).is_break() {
            return Err(UnpackedError::Cancelled);
        }
        let mut walk = Walk {
            root: path,
            tree: Tree::new(limits.tree),
            layer: index as u16,
            bytes: 0,
            buffer: vec![0; BUFFER],
            report: &mut report,
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| walk.failed(b"", errno))?;
        walk.directory(&root, &mut Vec::new(), 0)?;
        let tree = walk.tree;
        merged.merge(tree).map_err(|error| UnpackedError::Tree { path: path.clone(), error })?;
    }
    Ok(merged)
}

struct Walk<'a> {
    root: &'a Path,
    tree: Tree,
    layer: u16,
    bytes: u64,
    buffer: Vec<u8>,
    report: &'a mut dyn FnMut(u64) -> ControlFlow<()>,
}

impl Walk<'_> {
    fn directory(&mut self, directory: &OwnedFd, path: &mut Vec<u8>, depth: usize) -> Result<(), UnpackedError> {
        if depth > MAX_DEPTH {
            return Err(self.failed(path, Errno::NAMETOOLONG));
        }
        if (self.report)(self.bytes).is_break() {
            return Err(UnpackedError::Cancelled);
        }
        let entries = Dir::read_from(directory).map_err(|errno| self.failed(path, errno))?;
        for entry in entries {
            let entry = entry.map_err(|errno| self.failed(path, errno))?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let length = path.len();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name);
            self.entry(directory.as_fd(), name, path, depth)?;
            path.truncate(length);
        }
        Ok(())
    }

    fn entry(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        path: &mut Vec<u8>,
        depth: usize,
    ) -> Result<(), UnpackedError> {
        let stat =
            rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|errno| self.failed(path, errno))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let directory =
                    rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(|errno| self.failed(path, errno))?;
                self.put(path, Node::Directory { opaque: is_opaque(directory.as_fd()), explicit: true })?;
                self.directory(&directory, path, depth + 1)
            }
            FileType::RegularFile => {
                let file = self.file(parent, name, path, &stat)?;
                self.put(path, Node::File(file))
            }
            FileType::Symlink => {
                let target =
                    rustix::fs::readlinkat(parent, name, Vec::new()).map_err(|errno| self.failed(path, errno))?;
                self.put(path, Node::Symlink(target.into_bytes()))
            }
            FileType::CharacterDevice if stat.st_rdev == 0 => self.put(path, Node::Whiteout),
            _ => self.put(path, Node::Special),
        }
    }

    fn file(&mut self, parent: BorrowedFd<'_>, name: &[u8], path: &[u8], stat: &Stat) -> Result<File, UnpackedError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(|errno| self.failed(path, errno))?;
        let mut hasher = Hasher::default();
        let mut prefix = Vec::with_capacity(PREFIX);
        let mut size = 0_u64;
        loop {
            match rustix::io::read(&file, &mut self.buffer[..]) {
                Ok(0) => break,
                Ok(length) => {
                    let missing = PREFIX - prefix.len();
                    prefix.extend_from_slice(&self.buffer[..length.min(missing)]);
                    hasher.update(&self.buffer[..length]);
                    size += length as u64;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(self.failed(path, errno)),
            }
        }
        self.bytes += size;
        let mut capability = [0; 64];
        let capabilities = rustix::fs::fgetxattr(&file, c"security.capability", &mut capability[..])
            .ok()
            .and_then(|length| FileCapabilities::parse(&capability[..length]));
        let mode = (stat.st_mode & 0o7777) as u16;
        Ok(File {
            digest: hasher.finish(),
            size,
            mode,
            uid: stat.st_uid,
            gid: stat.st_gid,
            capabilities,
            kind: classify(path, mode, &prefix),
            layer: self.layer,
        })
    }

    fn put(&mut self, path: &[u8], node: Node) -> Result<(), UnpackedError> {
        self.tree.put(path.to_vec(), node).map_err(|error| UnpackedError::Tree { path: self.root.into(), error })
    }

    fn failed(&self, path: &[u8], errno: Errno) -> UnpackedError {
        UnpackedError::Io { path: self.root.join(OsStr::from_bytes(path)), error: errno.into() }
    }
}

fn is_opaque(directory: BorrowedFd<'_>) -> bool {
    [c"trusted.overlay.opaque", c"user.overlay.opaque"].into_iter().any(|name| {
        let mut value = [0; 4];
        rustix::fs::fgetxattr(directory, name, &mut value[..]).is_ok_and(|length| &value[..length] == b"y")
    })
}
