//! File capabilities: the `security.capability` attribute, as the kernel's `struct vfs_cap_data`
//! (`include/uapi/linux/capability.h`) and as an order of strength.

use serde::{Deserialize, Serialize};

/// Revision bits of `magic_etc`.
const REVISION_MASK: u32 = 0xFF00_0000;
const REVISION_1: u32 = 0x0100_0000;
const REVISION_2: u32 = 0x0200_0000;
const REVISION_3: u32 = 0x0300_0000;
/// `VFS_CAP_FLAGS_EFFECTIVE`.
const EFFECTIVE: u32 = 1;

/// What an exec of the file adds to the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FileCapabilities {
    /// Permitted set.
    pub permitted: u64,
    /// Inheritable set.
    pub inheritable: u64,
    /// Permitted capabilities are effective at once.
    pub effective: bool,
    /// The user namespace's root they are valid for; 0 = every namespace.
    #[serde(default)]
    pub root_id: u32,
}

impl FileCapabilities {
    /// Reads the attribute's bytes; `None` where the kernel would refuse them (`-EINVAL` at exec).
    pub fn parse(attribute: &[u8]) -> Option<Self> {
        let word = |index: usize| -> Option<u32> {
            let bytes = attribute.get(index * 4..index * 4 + 4)?;
            Some(u32::from_le_bytes(bytes.try_into().ok()?))
        };
        let magic = word(0)?;
        let (words, root_id) = match magic & REVISION_MASK {
            REVISION_1 => (3, 0),
            REVISION_2 => (5, 0),
            REVISION_3 => (6, word(5)?),
            _ => return None,
        };
        if attribute.len() != words * 4 {
            return None;
        }
        let high = |index| if words == 3 { Some(0) } else { word(index) };
        Some(Self {
            permitted: u64::from(word(1)?) | u64::from(high(3)?) << 32,
            inheritable: u64::from(word(2)?) | u64::from(high(4)?) << 32,
            effective: magic & EFFECTIVE != 0,
            root_id,
        })
    }

    /// Grants something that `listed` does not.
    pub fn exceeds(&self, listed: Option<&Self>) -> bool {
        let listed = listed.copied().unwrap_or_default();
        let gains = self.permitted & !listed.permitted != 0 || self.inheritable & !listed.inheritable != 0;
        let takes_effect = self.effective && !listed.effective && self.permitted != 0;
        let reaches_further = listed.root_id != 0 && self.root_id == 0 && self.permitted != 0;
        gains || takes_effect || reaches_further
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `setcap cap_net_raw=ep`: revision 2, effective, bit 13.
    const NET_RAW: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

    #[test]
    fn reads_the_kernels_form() {
        let net_raw = FileCapabilities { permitted: 1 << 13, effective: true, ..FileCapabilities::default() };
        assert_eq!(FileCapabilities::parse(&NET_RAW), Some(net_raw));
        let mut version_3 = NET_RAW.to_vec();
        version_3[3] = 3;
        version_3.extend([0xE8, 3, 0, 0]);
        assert_eq!(FileCapabilities::parse(&version_3), Some(FileCapabilities { root_id: 1000, ..net_raw }));
        let mut high = NET_RAW;
        high[12] = 1;
        assert_eq!(FileCapabilities::parse(&high).map(|caps| caps.permitted), Some(1 << 13 | 1 << 32));
        for bad in [&NET_RAW[..0], &NET_RAW[..3], &NET_RAW[..19], &version_3[..23], &[0; 20]] {
            assert_eq!(FileCapabilities::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn strength() {
        let caps = |permitted, effective, root_id| FileCapabilities { permitted, inheritable: 0, effective, root_id };
        let inheritable = FileCapabilities { inheritable: 2, ..FileCapabilities::default() };
        for (actual, listed, stronger) in [
            (caps(1, true, 0), None, true),
            (caps(1, true, 0), Some(caps(1, true, 0)), false),
            (caps(1, true, 0), Some(caps(3, true, 0)), false),
            (caps(3, true, 0), Some(caps(1, true, 0)), true),
            (caps(1, true, 0), Some(caps(1, false, 0)), true),
            (caps(1, true, 0), Some(caps(1, true, 1000)), true),
            (caps(1, true, 1000), Some(caps(1, true, 0)), false),
            (caps(0, true, 0), None, false),
            (inheritable, None, true),
        ] {
            assert_eq!(actual.exceeds(listed.as_ref()), stronger, "{actual:?} {listed:?}");
        }
    }
}
