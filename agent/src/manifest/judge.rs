//! The verdict: a pure function of what the manifest lists and what was found. It reads no file and
//! keeps no state, so that every rule of it stands in one table of tests.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    capabilities::FileCapabilities,
    digest::Digest,
    model::{File, Manifest, Source, Status, names},
};
use crate::event::FileIdentity;

/// `S_ISUID`, `S_ISGID`
const SETUID: u32 = 0o4000;
const SETGID: u32 = 0o2000;

/// What a file is to the image of the container that runs it. The order is that of the rules: the first that
/// applies is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Verdict {
    /// Not on this container's mounts: the runtime before the entry point, or a task in the host's mount namespace.
    Host,
    /// A memfd or an unlinked file, its digest not listed.
    Fileless,
    /// No digest could be had.
    Unverifiable,
    /// No usable manifest.
    Unattested,
    /// The listed bytes at the listed path.
    Expected,
    /// The listed bytes at the listed path, but with more rights than listed.
    Escalated,
    /// The path is listed with other bytes.
    Modified,
    /// The bytes are listed at another path.
    Relocated,
    /// The bytes belong to another verified image on the node.
    Foreign,
    /// Unknown bytes on a mount that is not the image's root file system.
    Volume,
    /// Unknown bytes on the root file system.
    Unlisted,
    /// As `Unlisted`, but the manifest does not claim to list everything.
    Unknown,
}

names!(Verdict {
    Host => "host",
    Fileless => "fileless",
    Unverifiable => "unverifiable",
    Unattested => "unattested",
    Expected => "expected",
    Escalated => "escalated",
    Modified => "modified",
    Relocated => "relocated",
    Foreign => "foreign",
    Volume => "volume",
    Unlisted => "unlisted",
    Unknown => "unknown",
});

/// Why the verdict is what it is; also the label of the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// The task is in the host's mount namespace.
    HostMountNamespace,
    /// The file is a memfd.
    Memfd,
    /// The file has no name any more.
    Unlinked,
    /// The file changed while it was looked at.
    Raced,
    /// The file could not be found again.
    Gone,
    /// Reading failed.
    Io,
    /// Larger than the agent is configured to read.
    TooLarge,
    /// On FUSE or a network file system, which can answer differently each time.
    RemoteFilesystem,
    /// Not a regular file.
    NotRegular,
    /// Too many files wait to be hashed.
    QueueFull,
    /// The image or its manifest did not become known in time.
    Pending,
    /// The container has no image.
    NoImage,
    /// The image's chain manifest -> config -> layers -> snapshot does not close.
    ChainOpen,
    /// Neither layer blobs nor an unpacked tree are there.
    NoLayers,
    /// The layers could not be read; the log says why.
    BuildFailed,
    /// Digest and path are listed.
    Listed,
    /// The image is ambiguous, and the file lies unchanged in one of its layers.
    ListedInLayer,
    /// setuid was gained, or a setuid file became root's.
    Setuid,
    /// setgid was gained, or a setgid file became the root group's.
    Setgid,
    /// File capabilities were gained.
    FileCapabilities,
    /// The path is listed with another digest.
    OtherDigest,
    /// The digest is listed at another path.
    OtherPath,
    /// The digest is another image's.
    OtherImage,
    /// Nobody lists the digest.
    UnknownDigest,
}

names!(Reason {
    HostMountNamespace => "host_mount_namespace",
    Memfd => "memfd",
    Unlinked => "unlinked",
    Raced => "raced",
    Gone => "gone",
    Io => "io",
    TooLarge => "too_large",
    RemoteFilesystem => "remote_fs",
    NotRegular => "not_regular",
    QueueFull => "queue_full",
    Pending => "pending",
    NoImage => "no_image",
    ChainOpen => "chain_open",
    NoLayers => "no_layers",
    BuildFailed => "build_failed",
    Listed => "listed",
    ListedInLayer => "listed_in_layer",
    Setuid => "setuid",
    Setgid => "setgid",
    FileCapabilities => "file_capabilities",
    OtherDigest => "other_digest",
    OtherPath => "other_path",
    OtherImage => "other_image",
    UnknownDigest => "unknown_digest",
});

/// Why a file has no digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HashFailure {
    /// It changed while it was looked at.
    Raced,
    /// It could not be found again.
    Gone,
    /// Reading failed.
    Io,
    /// It is larger than configured.
    TooLarge,
    /// It is on FUSE or a network file system.
    RemoteFilesystem,
    /// It is not a regular file.
    NotRegular,
    /// The queue was full.
    QueueFull,
    /// The deadline passed first.
    Pending,
}

names!(HashFailure {
    Raced => "raced",
    Gone => "gone",
    Io => "io",
    TooLarge => "too_large",
    RemoteFilesystem => "remote_fs",
    NotRegular => "not_regular",
    QueueFull => "queue_full",
    Pending => "pending",
});

impl From<HashFailure> for Reason {
    fn from(failure: HashFailure) -> Self {
        match failure {
            HashFailure::Raced => Self::Raced,
            HashFailure::Gone => Self::Gone,
            HashFailure::Io => Self::Io,
            HashFailure::TooLarge => Self::TooLarge,
            HashFailure::RemoteFilesystem => Self::RemoteFilesystem,
            HashFailure::NotRegular => Self::NotRegular,
            HashFailure::QueueFull => Self::QueueFull,
            HashFailure::Pending => Self::Pending,
        }
    }
}

/// What hashing a file found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileDigest {
    /// SHA-256 of the content.
    pub digest: Digest,
    /// Its file capabilities.
    pub capabilities: Option<FileCapabilities>,
    /// These are the bytes that the event's file had at the event. Not so where the file was written so shortly before
    /// that another write would not have moved its ctime: then the digest may accuse, but never acquit.
    pub settled: bool,
}

/// What there is to compare with.
#[derive(Debug, Clone)]
pub enum ManifestState {
    /// No manifest, and none will come: `NoImage`, `ChainOpen`, `NoLayers` or `BuildFailed`.
    Missing(Reason),
    /// None in time.
    Pending,
    /// This one.
    Ready(Arc<Manifest>),
}

/// The file in question.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// What the kernel said of it.
    pub identity: &'a FileIdentity,
    /// Its path from the root of the container's root file system; `None` where it lies on another mount.
    pub rootfs_path: Option<&'a [u8]>,
    /// The task was in the host's mount namespace.
    pub in_host_mount_namespace: bool,
    /// Its digest.
    pub digest: Result<FileDigest, HashFailure>,
}

/// A verdict with what it rests on.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// State of the manifest it was judged by.
    pub status: Status,
    /// That manifest.
    #[serde(with = "crate::recording::serial::manifest")]
    pub manifest: Option<Arc<Manifest>>,
    /// SHA-256 of the file; absent where it was not had or not needed.
    pub sha256: Option<Digest>,
    /// Size of the file at the event.
    pub size: u64,
    /// The file lies in the container's writable layer.
    pub upper: bool,
    /// The file was copied up from the image into the writable layer.
    pub copied_up: bool,
    /// The manifest's file that decided: that of the same path, or for `relocated` that of the same digest.
    pub listed: Option<File>,
    /// Where that one is listed.
    pub listed_path: Option<Vec<u8>>,
    /// For `foreign`: the image that lists the digest.
    pub foreign_image: Option<String>,
}

impl Judgement {
    /// What the manifest was made from.
    pub fn source(&self) -> Option<Source> {
        self.manifest.as_ref().map(|manifest| manifest.header().source)
    }

    /// Index of the image layer that the listed file comes from, 0 = lowest.
    pub fn layer(&self) -> Option<u16> {
        self.listed.map(|file| file.layer)
    }
}

impl fmt::Debug for Judgement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Judgement")
            .field("verdict", &self.verdict)
            .field("reason", &self.reason)
            .field("status", &self.status)
            .field("sha256", &self.sha256)
            .field("size", &self.size)
            .field("upper", &self.upper)
            .field("copied_up", &self.copied_up)
            .field("listed_path", &self.listed_path.as_ref().map(|path| String::from_utf8_lossy(path).into_owned()))
            .field("foreign_image", &self.foreign_image)
            .finish_non_exhaustive()
    }
}

/// Judges a file. `foreign` answers whether another verified image on the node lists a digest, with its reference.
pub fn judge(
    state: &ManifestState,
    subject: &Subject<'_>,
    foreign: impl FnOnce(&Digest) -> Option<String>,
) -> Judgement {
    let identity = subject.identity;
    let manifest = match state {
        ManifestState::Ready(manifest) => Some(manifest),
        ManifestState::Missing(_) | ManifestState::Pending => None,
    };
    let found = subject.digest.ok();
    let mut judgement = Judgement {
        verdict: Verdict::Unattested,
        reason: Reason::NoImage,
        status: match state {
            ManifestState::Ready(manifest) => manifest.status(),
            ManifestState::Pending => Status::Pending,
            ManifestState::Missing(_) => Status::Missing,
        },
        manifest: manifest.cloned(),
        sha256: found.map(|found| found.digest),
        size: identity.overlay.map_or(identity.size, |overlay| overlay.real_size),
        upper: identity.overlay.is_some_and(|overlay| overlay.upper),
        copied_up: identity.overlay.is_some_and(|overlay| overlay.upper && overlay.has_lower),
        listed: None,
        listed_path: None,
        foreign_image: None,
    };
    (judgement.verdict, judgement.reason) = decide(state, subject, &mut judgement, foreign);
    judgement
}

/// A verdict that no digest can change, so that none need be computed: `host`, and what runs without a manifest.
/// The subject's own digest is not looked at.
pub fn judge_without_digest(state: &ManifestState, subject: &Subject<'_>) -> Option<Judgement> {
    let without_manifest = matches!(state, ManifestState::Missing(_));
    if !subject.in_host_mount_namespace && !without_manifest {
        return None;
    }
    // Nothing is listed: a made-up digest leads to the verdict of any other, as long as it is not shown.
    let digest = Ok(FileDigest { digest: Digest::default(), capabilities: None, settled: false });
    let mut judgement = judge(state, &Subject { digest, ..*subject }, |_| None);
    judgement.sha256 = None;
    Some(judgement)
}

fn decide(
    state: &ManifestState,
    subject: &Subject<'_>,
    evidence: &mut Judgement,
    foreign: impl FnOnce(&Digest) -> Option<String>,
) -> (Verdict, Reason) {
    let identity = subject.identity;
    if subject.in_host_mount_namespace {
        return (Verdict::Host, Reason::HostMountNamespace);
    }
    let manifest = match state {
        ManifestState::Ready(manifest) => Some(&**manifest),
        ManifestState::Missing(_) | ManifestState::Pending => None,
    };
    let fileless = match () {
        () if identity.memfd => Some(Reason::Memfd),
        () if identity.nlink == 0 => Some(Reason::Unlinked),
        () => None,
    };
    if let Some(reason) = fileless {
        let listed = subject.digest.is_ok_and(|found| manifest.is_some_and(|manifest| manifest.lists(&found.digest)));
        if !listed {
            return (Verdict::Fileless, reason);
        }
    }
    let found = match subject.digest {
        Ok(found) => found,
        Err(failure) => return (Verdict::Unverifiable, failure.into()),
    };
    let manifest = match (manifest, state) {
        (Some(manifest), _) => manifest,
        (None, ManifestState::Missing(reason)) => return (Verdict::Unattested, *reason),
        (None, _) => return (Verdict::Unverifiable, Reason::Pending),
    };

    let at_path = subject.rootfs_path.and_then(|path| manifest.file(path).map(|file| (path, file)));
    if let Some((path, file)) = at_path {
        evidence.listed = Some(file);
        evidence.listed_path = Some(path.to_vec());
        return if file.digest != found.digest {
            (Verdict::Modified, Reason::OtherDigest)
        } else if !found.settled {
            (Verdict::Unverifiable, Reason::Raced)
        } else if let Some(reason) = escalation(identity, &found, &file) {
            (Verdict::Escalated, reason)
        } else {
            (Verdict::Expected, Reason::Listed)
        };
    }
    if let Some(path) = manifest.paths_of(&found.digest).next() {
        evidence.listed = manifest.file(path);
        evidence.listed_path = Some(path.to_vec());
        // Where unpackers disagree the path proves little, but a file that lies in a lower layer came with the image.
        let in_layer = identity.overlay.is_some_and(|overlay| !overlay.upper && overlay.layer > 0);
        if manifest.ambiguous() && in_layer && subject.rootfs_path.is_some() && found.settled {
            return match evidence.listed.and_then(|file| escalation(identity, &found, &file)) {
                Some(reason) => (Verdict::Escalated, reason),
                None => (Verdict::Expected, Reason::ListedInLayer),
            };
        }
        return (Verdict::Relocated, Reason::OtherPath);
    }
    if let Some(image) = foreign(&found.digest) {
        evidence.foreign_image = Some(image);
        return (Verdict::Foreign, Reason::OtherImage);
    }
    let verdict = match (subject.rootfs_path, manifest.header().coverage) {
        (None, _) => Verdict::Volume,
        (Some(_), super::model::Coverage::Packages) => Verdict::Unknown,
        (Some(_), _) => Verdict::Unlisted,
    };
    (verdict, Reason::UnknownDigest)
}

/// Rights that the running file has and the listed one has not. Owners differ by a constant in a user namespace,
/// so an owner counts only where it became the host's root.
fn escalation(identity: &FileIdentity, found: &FileDigest, listed: &File) -> Option<Reason> {
    let gained = |bit: u32, id: u32, listed_id: u32| {
        identity.mode & bit != 0 && (u32::from(listed.mode) & bit == 0 || (id == 0 && listed_id != 0))
    };
    if gained(SETUID, identity.uid, listed.uid) {
        return Some(Reason::Setuid);
    }
    if gained(SETGID, identity.gid, listed.gid) {
        return Some(Reason::Setgid);
    }
    let capabilities = found.capabilities.filter(|caps| caps.exceeds(listed.capabilities.as_ref()));
    capabilities.map(|_| Reason::FileCapabilities)
}

#[cfg(test)]
mod tests;
