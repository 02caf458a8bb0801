//! Reads `mountinfo`: where cgroup2 is mounted and which directories an overlay is made of.
//! Bytes stay bytes: a mount point is whatever a container's configuration says.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// One line of `/proc/PID/mountinfo` (`Documentation/filesystems/proc.rst`, section 3.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountLine {
    /// The mounted directory, from its file system's root.
    pub(crate) root: PathBuf,
    /// Where it is mounted, from the reading process's root.
    pub(crate) point: PathBuf,
    /// File system type.
    pub(crate) kind: Vec<u8>,
    /// Options of the superblock, still escaped.
    pub(crate) options: Vec<u8>,
}

/// The directories an overlay is made of, as its mount options name them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct OverlayDirs {
    /// Lower directories, top first.
    pub(crate) lower: Vec<PathBuf>,
    /// Upper directory.
    pub(crate) upper: Option<PathBuf>,
}

/// The kernel's own limit on lower layers (`OVL_MAX_STACK`, 500).
const MAX_LOWER: usize = 500;

/// Parses one line; `None` for a line that is not of the documented form.
pub(crate) fn parse_line(line: &[u8]) -> Option<MountLine> {
    let mut fields = line.split(|&b| b == b' ');
    let root = unescape(fields.nth(3)?);
    let point = unescape(fields.next()?);
    // The optional fields end at a lone hyphen.
    let mut fields = fields.skip_while(|f| *f != b"-");
    fields.next()?;
    let kind = fields.next()?.to_vec();
    let options = fields.nth(1)?.to_vec();
    Some(MountLine { root, point, kind, options })
}

/// The uppermost mount at `point`: the last line that names it.
pub(crate) fn mount_at(mountinfo: &[u8], point: &Path) -> Option<MountLine> {
    // Most lines are other mounts: compare the escaped field before parsing the whole line.
    let escaped = escape(point.as_os_str().as_bytes());
    mountinfo
        .rsplit(|&b| b == b'\n')
        .find(|line| line.split(|&b| b == b' ').nth(4).is_some_and(|f| f == escaped))
        .and_then(parse_line)
}

/// The directories of an overlay mount; `None` for another file system.
pub(crate) fn overlay_dirs(mount: &MountLine) -> Option<OverlayDirs> {
    if mount.kind != b"overlay" && mount.kind != b"fuse.fuse-overlayfs" {
        return None;
    }
    let mut dirs = OverlayDirs::default();
    for option in split_unescaped(&mount.options, b',') {
        if let Some(list) = option.strip_prefix(b"lowerdir=") {
            for dir in split_unescaped(list, b':') {
                push_lower(&mut dirs.lower, dir);
            }
        } else if let Some(dir) = option.strip_prefix(b"lowerdir+=") {
            // Layers appended one by one through fsconfig (6.5 and later).
            push_lower(&mut dirs.lower, dir);
        } else if let Some(dir) = option.strip_prefix(b"upperdir=") {
            dirs.upper = Some(overlay_path(dir));
        }
    }
    Some(dirs)
}

/// Makes the paths of `dirs` absolute below `host_root`. Engines mount long lists with relative names from
/// a common directory: it is the first of `bases` or their parents in which the top lower directory exists.
pub(crate) fn absolute(dirs: OverlayDirs, bases: &[&Path], host_root: &Path) -> OverlayDirs {
    let relative = dirs.lower.iter().chain(&dirs.upper).find(|d| d.is_relative());
    let base = match relative {
        None => PathBuf::new(),
        Some(first) => {
            let candidates = dirs.upper.iter().map(PathBuf::as_path).chain(bases.iter().copied());
            let found = candidates
                .filter(|b| b.is_absolute())
                .flat_map(Path::ancestors)
                .find(|base| join_host(host_root, &base.join(first)).is_dir());
            match found {
                Some(base) => base.to_path_buf(),
                None => return OverlayDirs::default(),
            }
        }
    };
    let place = |dir: PathBuf| join_host(host_root, &base.join(dir));
    OverlayDirs { lower: dirs.lower.into_iter().map(&place).collect(), upper: dirs.upper.map(&place) }
}

/// A path of the host as this process opens it.
pub(crate) fn join_host(host_root: &Path, path: &Path) -> PathBuf {
    match path.strip_prefix("/") {
        Ok(relative) if host_root != Path::new("/") => host_root.join(relative),
        _ => path.to_path_buf(),
    }
}

fn push_lower(lower: &mut Vec<PathBuf>, dir: &[u8]) {
    // "::" separates data-only layers: the empty name between is no layer.
    if !dir.is_empty() && lower.len() < MAX_LOWER {
        lower.push(overlay_path(dir));
    }
}

/// Splits at `separator` where no backslash escapes it (overlayfs's own escaping, kept by mountinfo as `\134`).
fn split_unescaped(text: &[u8], separator: u8) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    let (mut start, mut at) = (0, 0);
    while at < text.len() {
        if text[at..].starts_with(b"\\134") && at + 4 < text.len() {
            at += 5;
        } else {
            if text[at] == separator {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            at += 1;
        }
    }
    parts.push(&text[start..]);
    parts
}

/// Removes mountinfo's octal escapes, then overlayfs's backslashes.
fn overlay_path(dir: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(dir.len());
    let plain = unescape(dir).into_os_string();
    let mut bytes = plain.as_bytes().iter();
    while let Some(&b) = bytes.next() {
        out.push(if b == b'\\' { bytes.next().copied().unwrap_or(b) } else { b });
    }
    PathBuf::from(OsStr::from_bytes(&out))
}

fn unescape(field: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        if let [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] = rest {
            out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
            rest = &rest[4..];
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    PathBuf::from(OsStr::from_bytes(&out))
}

/// The kernel's `mangle_path` set for mountinfo: blank, tab, newline, backslash and `#`.
fn escape(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    for &b in path {
        if matches!(b, b' ' | b'\t' | b'\n' | b'\\' | b'#') {
            out.extend_from_slice(format!("\\{b:03o}").as_bytes());
        } else {
            out.push(b);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &[u8] = b"41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
45 27 0:39 / /run/c/rootfs rw,relatime shared:3 master:1 - overlay overlay rw,lowerdir=/s/2/fs:/s/1/fs,upperdir=/s/3/fs,workdir=/s/3/work
46 27 0:40 / /run/with\\040blank rw - overlay none rw,lowerdir=a\\134:b:/x\\040y,upperdir=/u
47 27 0:41 / /new rw - overlay none rw,lowerdir+=/l1,lowerdir+=/l2,datadir+=/d
48 27 0:42 / /run/c/rootfs rw - tmpfs tmpfs rw
garbage
";

    #[test]
    fn lines_of_every_shape() {
        let overlay = parse_line(HOST.split(|&b| b == b'\n').nth(1).unwrap()).unwrap();
        assert_eq!(overlay.kind, b"overlay");
        assert_eq!(
            overlay_dirs(&overlay).unwrap(),
            OverlayDirs { lower: vec!["/s/2/fs".into(), "/s/1/fs".into()], upper: Some("/s/3/fs".into()) }
        );
        let blank = mount_at(HOST, Path::new("/run/with blank")).unwrap();
        assert_eq!(
            overlay_dirs(&blank).unwrap(),
            OverlayDirs { lower: vec!["a:b".into(), "/x y".into()], upper: Some("/u".into()) }
        );
        let new = mount_at(HOST, Path::new("/new")).unwrap();
        assert_eq!(overlay_dirs(&new).unwrap().lower, [PathBuf::from("/l1"), PathBuf::from("/l2")]);
        // What is mounted last at a path is what is seen there.
        assert_eq!(mount_at(HOST, Path::new("/run/c/rootfs")).unwrap().kind, b"tmpfs");
        assert_eq!(mount_at(HOST, Path::new("/absent")), None);
        for bad in [&b""[..], b"garbage", b"1 2 3 / /x rw", b"1 2 3 / /x rw - ext4", b"1 2 3 / /x rw - ext4 dev"] {
            assert_eq!(parse_line(bad), None, "{}", String::from_utf8_lossy(bad));
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_some_answer(bytes: Vec<u8>, text in "[0-9 /a-z\\\\:,=+-]{0,80}") {
            for line in [&bytes[..], text.as_bytes(), &[b"1 2 3 / /x rw - overlay o lowerdir=", &bytes[..]].concat()] {
                if let Some(mount) = parse_line(line) {
                    overlay_dirs(&mount);
                }
            }
        }

        #[test]
        fn escaping_is_undone(path: Vec<u8>) {
            let path: Vec<u8> = path.into_iter().filter(|&b| b != 0).collect();
            proptest::prop_assert_eq!(unescape(&escape(&path)), PathBuf::from(OsStr::from_bytes(&path)));
        }
    }

    #[test]
    fn relative_lists_are_anchored_where_they_exist() {
        let home = tempfile::tempdir().unwrap();
        let snapshots = home.path().join("snapshots");
        for n in ["1", "2", "3"] {
            std::fs::create_dir_all(snapshots.join(n).join("fs")).unwrap();
        }
        let relative = OverlayDirs { lower: vec!["2/fs".into(), "1/fs".into()], upper: Some(snapshots.join("3/fs")) };
        let got = absolute(relative.clone(), &[], Path::new("/"));
        assert_eq!(got.lower, [snapshots.join("2/fs"), snapshots.join("1/fs")]);
        assert_eq!(got.upper, Some(snapshots.join("3/fs")));
        // podman: the upper directory is relative too, the base is above the root file system's path.
        let all = OverlayDirs { upper: Some("3/fs".into()), ..relative };
        let rootfs = snapshots.join("3/merged");
        assert_eq!(absolute(all.clone(), &[&rootfs], Path::new("/")).upper, Some(snapshots.join("3/fs")));
        // Nowhere to be found: no directories rather than wrong ones.
        assert_eq!(absolute(all, &[Path::new("/nonexistent")], Path::new("/")), OverlayDirs::default());
    }

    #[test]
    fn host_paths_are_opened_below_the_host_root() {
        assert_eq!(join_host(Path::new("/"), Path::new("/run/x")), Path::new("/run/x"));
        assert_eq!(join_host(Path::new("/host"), Path::new("/run/x")), Path::new("/host/run/x"));
    }
}
