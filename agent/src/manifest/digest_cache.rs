//! Digests of files already hashed, by what the kernel says identifies the bytes: bounded, least
//! recently used first out, in two generations so that a hit costs one lookup and no list.

use std::collections::HashMap;

use super::judge::FileDigest;
use crate::event::{FileIdentity, OVERLAYFS};

/// The inode that holds the bytes, and what moves when they change. Never the overlay's own numbers: those stay the
/// lower file's across a copy-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    dev: u32,
    ino: u64,
    generation: u32,
    version: u64,
    ctime_ns: i64,
    size: u64,
}

impl Key {
    /// `None` for a file whose bytes nothing identifies: a memfd, or an overlay file of unknown backing.
    pub(super) fn of(identity: &FileIdentity) -> Option<Self> {
        match identity.overlay {
            Some(overlay) if overlay.real_ino != 0 => Some(Self {
                dev: overlay.real_dev,
                ino: overlay.real_ino,
                generation: overlay.real_generation,
                version: overlay.real_version,
                ctime_ns: overlay.real_ctime_ns,
                size: overlay.real_size,
            }),
            Some(_) => None,
            None if identity.memfd || identity.magic == OVERLAYFS || identity.ino == 0 => None,
            None => Some(Self {
                dev: identity.dev,
                ino: identity.ino,
                generation: identity.generation,
                version: 0,
                ctime_ns: identity.ctime_ns,
                size: identity.size,
            }),
        }
    }
}

/// The cache.
#[derive(Debug)]
pub(super) struct DigestCache {
    half: usize,
    young: HashMap<Key, FileDigest>,
    old: HashMap<Key, FileDigest>,
}

impl DigestCache {
    /// Holds at most `capacity` digests.
    pub(super) fn new(capacity: usize) -> Self {
        Self { half: (capacity / 2).max(1), young: HashMap::new(), old: HashMap::new() }
    }

    pub(super) fn get(&mut self, key: &Key) -> Option<FileDigest> {
        if let Some(digest) = self.young.get(key) {
            return Some(*digest);
        }
        let digest = self.old.remove(key)?;
        self.insert(*key, digest);
        Some(digest)
    }

    pub(super) fn insert(&mut self, key: Key, digest: FileDigest) {
        if self.young.len() >= self.half {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, digest);
    }

    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{event::Overlay, manifest::Digest};

    fn identity(ino: u64) -> FileIdentity {
        FileIdentity { dev: 1, ino, size: 1, ..FileIdentity::default() }
    }

    fn digest() -> FileDigest {
        FileDigest { digest: Digest::of(b""), capabilities: None, settled: true }
    }

    #[test]
    fn is_bounded_and_keeps_what_is_used() {
        let mut cache = DigestCache::new(100);
        let key = |ino| Key::of(&identity(ino)).unwrap();
        for ino in 1..10_000 {
            cache.insert(key(ino), digest());
            assert!(cache.get(&key(1)).is_some(), "used each time, lost at {ino}");
            assert!(cache.len() <= 100);
        }
        assert!(cache.get(&key(5_000)).is_none());
    }

    #[test]
    fn the_key_is_the_real_inode_and_all_that_moves_with_its_bytes() {
        let overlay = Overlay {
            real_dev: 9,
            real_ino: 8,
            real_generation: 7,
            real_size: 6,
            real_ctime_ns: 5,
            real_version: 4,
            ..Overlay::default()
        };
        let lower = FileIdentity { overlay: Some(overlay), ..identity(1) };
        let base = Key::of(&lower);
        assert_eq!(
            base,
            Key::of(&FileIdentity { dev: 77, ino: 78, size: 79, ctime_ns: 80, ..lower }),
            "another container"
        );
        for changed in [
            Overlay { real_dev: 1, ..overlay },
            Overlay { real_ino: 1, ..overlay },
            Overlay { real_generation: 1, ..overlay },
            Overlay { real_size: 1, ..overlay },
            Overlay { real_ctime_ns: 1, ..overlay },
            Overlay { real_version: 1, ..overlay },
        ] {
            assert_ne!(base, Key::of(&FileIdentity { overlay: Some(changed), ..lower }));
        }
        assert_eq!(Key::of(&FileIdentity { overlay: Some(Overlay::default()), ..lower }), None);
        assert_eq!(Key::of(&FileIdentity { magic: OVERLAYFS, ..identity(1) }), None);
        assert_eq!(Key::of(&FileIdentity { memfd: true, ..identity(1) }), None);
    }
}
