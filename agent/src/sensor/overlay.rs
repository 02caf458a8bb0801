//! Where overlayfs keeps what it knows of an inode (`fs/overlayfs/ovl_entry.h`), by release: for kernels that have it as a
//! module whose types nobody tells, because it is not loaded yet or because there is no BTF of modules (before 5.11).

/// The layouts of a release.
pub(super) struct Layouts {
    /// As 6.1.
    pub(super) release: (u32, u32),
    /// Of `struct inode`, which lies inside the overlay's own.
    pub(super) inode_size: u64,
}

impl Layouts {
    /// Byte offset of a member; those of `ovl_inode` from its `vfs_inode` on.
    pub(super) fn offset(&self, path: &str) -> Option<u64> {
        let behind = self.inode_size + 8;
        Some(match path {
            "ovl_inode.vfs_inode" | "ovl_path.layer" | "ovl_entry.__numlower" => 0,
            "ovl_inode.__upperdentry" => self.inode_size,
            "ovl_inode.oe" if self.release >= (6, 5) => behind,
            "ovl_inode.lowerpath" if self.release >= (5, 19) && self.release < (6, 5) => behind,
            "ovl_inode.lower" if self.release < (5, 19) => behind,
            "ovl_path.dentry" | "ovl_entry.__lowerstack" => 8,
            "ovl_layer.idx" => 24,
            _ => return None,
        })
    }
}

/// The running kernel's release.
pub(super) fn release() -> (u32, u32) {
    parse(&rustix::system::uname().release().to_string_lossy())
}

fn parse(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|text| text.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read() {
        assert_eq!(parse("6.1.0-56-cloud-amd64"), (6, 1));
        assert_eq!(parse("5.10"), (5, 10));
        assert_eq!(parse("odd"), (0, 0));
    }

    #[test]
    fn a_release_has_one_way_to_the_lower_file() {
        for (release, wanted) in [((5, 10), "lower"), ((6, 1), "lowerpath"), ((6, 5), "oe"), ((6, 18), "oe")] {
            let layouts = Layouts { release, inode_size: 600 };
            for name in ["lower", "lowerpath", "oe"] {
                let expected = (name == wanted).then_some(608);
                assert_eq!(layouts.offset(&format!("ovl_inode.{name}")), expected, "{release:?}");
            }
        }
    }
}
