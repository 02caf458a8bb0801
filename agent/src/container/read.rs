//! Opens files of runtimes with a bound on their size. A runtime's directory holds text that a pod's
//! author chose; a fifo or an endless file there must not stop or fill the agent.

use std::{
    fs::File,
    io::Read,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

use super::Error;

/// Reads a regular file of at most `limit` bytes.
pub(crate) fn bounded(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    Ok(bounded_with_owner(path, limit)?.0)
}

/// Reads a regular file of at most `limit` bytes that belongs to root: what a runtime's word is worth
/// depends on nobody else being able to write it.
pub(crate) fn bounded_of_root(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    match bounded_with_owner(path, limit)? {
        (bytes, 0) => Ok(bytes),
        (_, owner) => Err(Error::Owner { path: path.to_path_buf(), owner }),
    }
}

fn bounded_with_owner(path: &Path, limit: u64) -> Result<(Vec<u8>, u32), Error> {
    let io = |source| Error::Read { path: path.to_path_buf(), source };
    // O_NONBLOCK: opening a fifo must not wait for its writer.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path).map_err(io)?;
    let meta = file.metadata().map_err(io)?;
    if !meta.is_file() {
        return Err(Error::NotRegular(path.to_path_buf()));
    }
    let mut bytes = Vec::with_capacity(meta.len().min(limit) as usize);
    // procfs says size 0: the bound is on what is read, not on what is announced.
    file.take(limit + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > limit {
        return Err(Error::TooLarge { path: path.to_path_buf(), limit });
    }
    Ok((bytes, meta.uid()))
}

/// Cuts `text` to at most `limit` bytes, at a character's edge.
pub(crate) fn cut(text: &str, limit: usize) -> &str {
    if text.len() <= limit {
        return text;
    }
    let mut end = limit;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_kind_and_owner_are_checked() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        std::fs::write(&file, b"12345").unwrap();
        assert_eq!(bounded(&file, 5).unwrap(), b"12345");
        assert!(matches!(bounded(&file, 4), Err(Error::TooLarge { limit: 4, .. })));
        assert!(matches!(bounded(dir.path(), 4), Err(Error::NotRegular(_))));
        assert!(matches!(bounded(&dir.path().join("absent"), 4), Err(Error::Read { .. })));
        if rustix::process::geteuid().is_root() {
            assert!(bounded_of_root(&file, 5).is_ok());
            std::os::unix::fs::chown(&file, Some(1000), None).unwrap();
            assert!(matches!(bounded_of_root(&file, 5), Err(Error::Owner { owner: 1000, .. })));
        }
    }

    #[test]
    fn cuts_at_characters() {
        assert_eq!(cut("abc", 5), "abc");
        assert_eq!(cut("aä", 2), "a");
        assert_eq!(cut("aä", 3), "aä");
    }
}
