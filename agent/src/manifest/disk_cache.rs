//! Manifests on disk, by chain id, so that a restart of the agent reads no layer twice. A file is believed only if
//! it is the agent's own (owner, mode, no link), whole (check sum) and of this version; anything else is as good as
//! absent. The manifest's content depends on the chain id alone, which is the file's name and stands in it.

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{
    digest::Digest,
    json,
    model::{Manifest, Source},
};

/// Changes with the form and with what builders find.
const MAGIC: &[u8; 16] = b"purser-manifest1";
const SUFFIX: &str = ".manifest";
/// A manifest of a million files is below that.
const MAX_FILE: u64 = 512 << 20;

/// Why a cached manifest was not used, or none was written.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// Reading or writing failed.
    #[error("{path}: {error}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Not written by this agent.
    #[error("{0}: ignored, because it belongs to another user, others may write to it, or it is no plain file")]
    Foreign(PathBuf),
    /// Damaged, or of another version.
    #[error("{0}: ignored, because it is damaged or of another version")]
    Invalid(PathBuf),
}

/// The directory.
#[derive(Debug, Clone)]
pub struct DiskCache {
    directory: PathBuf,
    max_bytes: u64,
}

impl DiskCache {
    /// Opens the directory; makes it where it is not there.
    ///
    /// # Errors
    /// It cannot be made, or others can write to it.
    pub fn open(directory: &Path, max_bytes: u64) -> Result<Self, CacheError> {
        let failed = |error| CacheError::Io { path: directory.into(), error };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        let metadata = fs::symlink_metadata(directory).map_err(failed)?;
        if !metadata.is_dir() || !ours(&metadata) {
            return Err(CacheError::Foreign(directory.into()));
        }
        Ok(Self { directory: directory.into(), max_bytes })
    }

    /// The manifest of a chain id; `None` where there is none.
    ///
    /// # Errors
    /// There is a file, but it is not to be believed.
    pub fn read(&self, chain_id: &Digest) -> Result<Option<Manifest>, CacheError> {
        let path = self.path(chain_id);
        let failed = |error| CacheError::Io { path: path.clone(), error };
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let mut file = match fs::OpenOptions::new().read(true).custom_flags(flags).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Err(CacheError::Foreign(path)),
            Err(error) => return Err(failed(error)),
        };
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() || metadata.nlink() != 1 || !ours(&metadata) {
            return Err(CacheError::Foreign(path));
        }
        let mut bytes = Vec::new();
        (&mut file).take(MAX_FILE).read_to_end(&mut bytes).map_err(failed)?;
        let manifest = decode(&bytes).filter(|manifest| manifest.header().chain_id == *chain_id);
        let Some(manifest) = manifest else { return Err(CacheError::Invalid(path)) };
        // Its age is that of its last use; if that cannot be noted it merely goes earlier.
        let _ = file.set_modified(SystemTime::now());
        Ok(Some(manifest))
    }

    /// Keeps a manifest. One that no digest binds is not kept: it holds for the directories it was taken from.
    ///
    /// # Errors
    /// It could not be written; an earlier one is untouched.
    pub fn write(&self, manifest: &Manifest) -> Result<(), CacheError> {
        if manifest.header().source != Source::Layers {
            return Ok(());
        }
        let path = self.path(&manifest.header().chain_id);
        let temporary =
            self.directory.join(format!(".{}.{}.tmp", manifest.header().chain_id.hex(), std::process::id()));
        let written = self.write_file(manifest, &temporary).and_then(|()| fs::rename(&temporary, &path));
        if let Err(error) = written {
            // Nothing more can be done about a full disk than to leave nothing behind.
            let _ = fs::remove_file(&temporary);
            return Err(CacheError::Io { path, error });
        }
        self.shrink(&path).map_err(|error| CacheError::Io { path: self.directory.clone(), error })
    }

    fn write_file(&self, manifest: &Manifest, path: &Path) -> io::Result<()> {
        let bytes = encode(manifest)?;
        if bytes.len() as u64 > self.max_bytes.min(MAX_FILE) {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let _ = fs::remove_file(path);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(&bytes)?;
        // A power cut may leave the name without the bytes; the check sum finds that.
        Ok(())
    }

    /// Removes the longest unused until the rest fits.
    fn shrink(&self, newest: &Path) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let stale = name.ends_with(".tmp") && metadata.modified()?.elapsed().is_ok_and(|age| age.as_secs() > 600);
            if stale {
                fs::remove_file(entry.path())?;
            } else if name.ends_with(SUFFIX) {
                files.push((metadata.modified()?, metadata.len(), entry.path()));
            }
        }
        files.sort();
        let mut total: u64 = files.iter().map(|(_, size, _)| size).sum();
        for (_, size, path) in files {
            if total <= self.max_bytes {
                break;
            }
            if path != newest {
                fs::remove_file(path)?;
                total -= size;
            }
        }
        Ok(())
    }

    fn path(&self, chain_id: &Digest) -> PathBuf {
        self.directory.join(format!("{}{SUFFIX}", chain_id.hex()))
    }
}

/// `MAGIC`, SHA-256 of the rest, zstd of the JSON form.
fn encode(manifest: &Manifest) -> io::Result<Vec<u8>> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3)?;
    json::write(manifest, &mut encoder)?;
    let body = encoder.finish()?;
    Ok([MAGIC.as_slice(), &Digest::of(&body).0, &body].concat())
}

fn decode(bytes: &[u8]) -> Option<Manifest> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (sum, body) = rest.split_at_checked(32)?;
    if Digest::of(body).0 != *sum {
        return None;
    }
    let mut text = Vec::new();
    zstd::stream::read::Decoder::with_buffer(body).ok()?.take(8 * MAX_FILE).read_to_end(&mut text).ok()?;
    json::read(&text).ok()
}

fn ours(metadata: &fs::Metadata) -> bool {
    metadata.uid() == rustix::process::geteuid().as_raw() && metadata.mode() & 0o022 == 0
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::{super::model::tests as fixtures, *};

    fn manifest(chain: &[u8], files: usize) -> Manifest {
        let header = super::super::model::Header { chain_id: Digest::of(chain), ..fixtures::header() };
        let files =
            (0..files).map(|number| (format!("/bin/{number}").into_bytes(), fixtures::file(&number.to_le_bytes())));
        Manifest::new(header, files, vec![]).unwrap()
    }

    fn cache(max_bytes: u64) -> (tempfile::TempDir, DiskCache) {
        let directory = tempfile::tempdir().unwrap();
        let cache = DiskCache::open(&directory.path().join("a/b"), max_bytes).unwrap();
        (directory, cache)
    }

    #[test]
    fn gives_back_what_it_was_given() {
        let (_directory, cache) = cache(1 << 20);
        let one = manifest(b"1", 100);
        assert!(cache.read(&one.header().chain_id).unwrap().is_none());
        cache.write(&one).unwrap();
        assert_eq!(cache.read(&one.header().chain_id).unwrap(), Some(manifest(b"1", 100)));
        assert_eq!(fs::metadata(&cache.directory).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn does_not_believe_a_damaged_or_foreign_file() {
        let (_directory, cache) = cache(1 << 20);
        let one = manifest(b"1", 100);
        let id = one.header().chain_id;
        cache.write(&one).unwrap();
        let path = cache.path(&id);
        let whole = fs::read(&path).unwrap();
        for at in [0, 15, 16, 47, 48, whole.len() / 2, whole.len() - 1] {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(&path, damaged).unwrap();
            assert!(matches!(cache.read(&id), Err(CacheError::Invalid(_))), "byte {at}");
            fs::write(&path, &whole[..at]).unwrap();
            assert!(matches!(cache.read(&id), Err(CacheError::Invalid(_))), "cut at {at}");
        }
        fs::write(cache.path(&Digest::of(b"2")), &whole).unwrap();
        assert!(matches!(cache.read(&Digest::of(b"2")), Err(CacheError::Invalid(_))), "another image's");

        fs::write(&path, &whole).unwrap();
        assert!(cache.read(&id).unwrap().is_some());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(matches!(cache.read(&id), Err(CacheError::Foreign(_))), "writable by others");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::hard_link(&path, cache.directory.join("link")).unwrap();
        assert!(matches!(cache.read(&id), Err(CacheError::Foreign(_))), "hard link");
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(cache.directory.join("link"), &path).unwrap();
        assert!(matches!(cache.read(&id), Err(CacheError::Foreign(_))), "symbolic link");
        if rustix::process::geteuid().is_root() {
            fs::remove_file(&path).unwrap();
            fs::write(&path, &whole).unwrap();
            std::os::unix::fs::chown(&path, Some(12_345), None).unwrap();
            assert!(matches!(cache.read(&id), Err(CacheError::Foreign(_))), "another user's");
        }
        fs::set_permissions(&cache.directory, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(DiskCache::open(&cache.directory, 1), Err(CacheError::Foreign(_))));
    }

    #[test]
    fn stays_within_its_size() {
        let (_directory, cache) = cache(40_000);
        for number in 0..20_u32 {
            let path = cache.path(&Digest::of(&number.to_le_bytes()));
            cache.write(&manifest(&number.to_le_bytes(), 200)).unwrap();
            let modified = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1000 + u64::from(number));
            fs::File::options().write(true).open(path).unwrap().set_modified(modified).unwrap();
        }
        let total: u64 =
            fs::read_dir(&cache.directory).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
        assert!(total <= 40_000, "{total}");
        assert!(cache.read(&Digest::of(&19_u32.to_le_bytes())).unwrap().is_some());
        assert!(cache.read(&Digest::of(&0_u32.to_le_bytes())).unwrap().is_none());
    }

    #[test]
    fn a_disk_without_room_leaves_nothing_behind() {
        let (_directory, cache) = cache(100);
        assert!(cache.write(&manifest(b"1", 1000)).is_err());
        assert_eq!(fs::read_dir(&cache.directory).unwrap().count(), 0);
    }

    #[test]
    fn an_unbound_manifest_is_not_kept() {
        let (_directory, cache) = cache(1 << 20);
        let mut unbound = manifest(b"1", 1);
        unbound.set_header(super::super::model::Header { source: Source::Unpacked, ..fixtures::header() });
        cache.write(&unbound).unwrap();
        assert_eq!(fs::read_dir(&cache.directory).unwrap().count(), 0);
    }
}
