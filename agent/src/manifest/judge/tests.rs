//! The table of verdicts: each row fails were the check it stands for removed.

use super::{
    super::model::{Coverage, tests as fixtures},
    *,
};
use crate::event::Overlay;

const LOWER: Overlay = Overlay {
    upper: false,
    has_lower: true,
    layer: 1,
    real_dev: 1,
    real_ino: 2,
    real_generation: 3,
    real_size: 4,
    real_ctime_ns: 5,
    real_version: 6,
};
const UPPER: Overlay = Overlay { upper: true, has_lower: false, layer: 0, ..LOWER };

fn on_rootfs(mode: u32, overlay: Overlay) -> FileIdentity {
    FileIdentity { mode, nlink: 1, on_rootfs: true, overlay: Some(overlay), ..FileIdentity::default() }
}

#[allow(clippy::unnecessary_wraps, reason = "the table's own type")]
fn found(content: &[u8]) -> Result<FileDigest, HashFailure> {
    Ok(FileDigest { digest: Digest::of(content), capabilities: None, settled: true })
}

fn manifest(coverage: Coverage, ambiguous: bool) -> ManifestState {
    let caps = FileCapabilities { permitted: 1 << 13, effective: true, ..FileCapabilities::default() };
    let files = [
        ("/bin/ls", fixtures::file(b"ls")),
        ("/bin/cat", fixtures::file(b"cat")),
        ("/bin/su", File { mode: 0o4755, ..fixtures::file(b"su") }),
        ("/bin/wall", File { mode: 0o2755, gid: 5, ..fixtures::file(b"wall") }),
        ("/bin/job", File { mode: 0o4755, uid: 33, ..fixtures::file(b"job") }),
        ("/bin/ping", File { capabilities: Some(caps), ..fixtures::file(b"ping") }),
    ];
    let header = super::super::model::Header {
        coverage,
        ambiguities: if ambiguous { vec!["hard link".into()] } else { vec![] },
        ..fixtures::header()
    };
    let files = files.map(|(path, file)| (path.as_bytes().to_vec(), file));
    ManifestState::Ready(Arc::new(Manifest::new(header, files, vec![]).unwrap()))
}

fn other_image(digest: &Digest) -> Option<String> {
    (*digest == Digest::of(b"of another image")).then(|| "registry.example/init:1".to_owned())
}

/// One row: state, identity, path on the root file system, digest -> verdict, reason.
type Row<'a> = (&'a ManifestState, FileIdentity, Option<&'a str>, Result<FileDigest, HashFailure>, Verdict, Reason);

fn check(rows: &[Row<'_>]) {
    for (number, (state, identity, path, digest, verdict, reason)) in rows.iter().enumerate() {
        let subject =
            Subject { identity, rootfs_path: path.map(str::as_bytes), in_host_mount_namespace: false, digest: *digest };
        let judgement = judge(state, &subject, other_image);
        assert_eq!((judgement.verdict, judgement.reason), (*verdict, *reason), "row {number}: {judgement:?}");
    }
}

#[test]
fn each_verdict() {
    let all = manifest(Coverage::All, false);
    let packages = manifest(Coverage::Packages, false);
    let none = ManifestState::Missing(Reason::NoImage);
    let plain = on_rootfs(0o100_755, LOWER);
    let written = on_rootfs(0o100_755, UPPER);
    let copied_up = on_rootfs(0o100_755, Overlay { has_lower: true, ..UPPER });
    let volume = FileIdentity { on_rootfs: false, overlay: None, ..plain };
    let memfd = FileIdentity { memfd: true, nlink: 0, ..volume };
    let unlinked = FileIdentity { nlink: 0, ..written };
    check(&[
        (&all, memfd, None, found(b"evil"), Verdict::Fileless, Reason::Memfd),
        (&all, memfd, None, Err(HashFailure::Gone), Verdict::Fileless, Reason::Memfd),
        (&none, memfd, None, found(b"ls"), Verdict::Fileless, Reason::Memfd),
        (&all, memfd, None, found(b"ls"), Verdict::Relocated, Reason::OtherPath),
        (&all, unlinked, Some("/bin/x"), found(b"evil"), Verdict::Fileless, Reason::Unlinked),
        (&all, unlinked, Some("/bin/ls"), found(b"ls"), Verdict::Expected, Reason::Listed),
        (&all, plain, Some("/bin/ls"), Err(HashFailure::Raced), Verdict::Unverifiable, Reason::Raced),
        (&all, plain, Some("/bin/ls"), Err(HashFailure::Gone), Verdict::Unverifiable, Reason::Gone),
        (&none, plain, Some("/bin/ls"), Err(HashFailure::TooLarge), Verdict::Unverifiable, Reason::TooLarge),
        (&ManifestState::Pending, plain, Some("/bin/ls"), found(b"ls"), Verdict::Unverifiable, Reason::Pending),
        (&none, plain, Some("/bin/ls"), found(b"ls"), Verdict::Unattested, Reason::NoImage),
        (
            &ManifestState::Missing(Reason::BuildFailed),
            plain,
            Some("/bin/ls"),
            found(b"ls"),
            Verdict::Unattested,
            Reason::BuildFailed,
        ),
        (&all, plain, Some("/bin/ls"), found(b"ls"), Verdict::Expected, Reason::Listed),
        (&all, copied_up, Some("/bin/ls"), found(b"ls"), Verdict::Expected, Reason::Listed),
        (&all, written, Some("/bin/ls"), found(b"ls"), Verdict::Expected, Reason::Listed),
        (&all, written, Some("/bin/ls"), found(b"evil"), Verdict::Modified, Reason::OtherDigest),
        (&all, written, Some("/bin/ls"), found(b"cat"), Verdict::Modified, Reason::OtherDigest),
        (&all, written, Some("/bin/ls"), found(b"of another image"), Verdict::Modified, Reason::OtherDigest),
        (&all, written, Some("/tmp/ls"), found(b"ls"), Verdict::Relocated, Reason::OtherPath),
        (&all, volume, None, found(b"ls"), Verdict::Relocated, Reason::OtherPath),
        (&all, volume, None, found(b"of another image"), Verdict::Foreign, Reason::OtherImage),
        (&all, written, Some("/tmp/x"), found(b"of another image"), Verdict::Foreign, Reason::OtherImage),
        (&all, volume, None, found(b"evil"), Verdict::Volume, Reason::UnknownDigest),
        (&packages, volume, None, found(b"evil"), Verdict::Volume, Reason::UnknownDigest),
        (&all, written, Some("/tmp/x"), found(b"evil"), Verdict::Unlisted, Reason::UnknownDigest),
        (&packages, written, Some("/tmp/x"), found(b"evil"), Verdict::Unknown, Reason::UnknownDigest),
    ]);
}

#[test]
fn rights_beyond_the_listed() {
    let all = manifest(Coverage::All, false);
    let mode = |mode, uid, gid| FileIdentity { uid, gid, ..on_rootfs(mode, Overlay { has_lower: true, ..UPPER }) };
    let caps = |permitted| FileDigest {
        digest: Digest::of(b"ping"),
        capabilities: Some(FileCapabilities { permitted, effective: true, ..FileCapabilities::default() }),
        settled: true,
    };
    let ls_caps = FileDigest { digest: Digest::of(b"ls"), ..caps(1) };
    check(&[
        (&all, mode(0o104_755, 0, 0), Some("/bin/ls"), found(b"ls"), Verdict::Escalated, Reason::Setuid),
        (&all, mode(0o102_755, 0, 0), Some("/bin/ls"), found(b"ls"), Verdict::Escalated, Reason::Setgid),
        (&all, mode(0o100_777, 0, 0), Some("/bin/ls"), found(b"ls"), Verdict::Expected, Reason::Listed),
        (&all, mode(0o104_755, 0, 0), Some("/bin/su"), found(b"su"), Verdict::Expected, Reason::Listed),
        (&all, mode(0o104_755, 100_000, 0), Some("/bin/su"), found(b"su"), Verdict::Expected, Reason::Listed),
        (&all, mode(0o100_755, 0, 0), Some("/bin/su"), found(b"su"), Verdict::Expected, Reason::Listed),
        (&all, mode(0o104_755, 33, 0), Some("/bin/job"), found(b"job"), Verdict::Expected, Reason::Listed),
        (&all, mode(0o104_755, 0, 0), Some("/bin/job"), found(b"job"), Verdict::Escalated, Reason::Setuid),
        (&all, mode(0o102_755, 0, 5), Some("/bin/wall"), found(b"wall"), Verdict::Expected, Reason::Listed),
        (&all, mode(0o102_755, 0, 0), Some("/bin/wall"), found(b"wall"), Verdict::Escalated, Reason::Setgid),
        (&all, mode(0o100_755, 0, 0), Some("/bin/ping"), Ok(caps(1 << 13)), Verdict::Expected, Reason::Listed),
        (
            &all,
            mode(0o100_755, 0, 0),
            Some("/bin/ping"),
            Ok(caps(1 << 21)),
            Verdict::Escalated,
            Reason::FileCapabilities,
        ),
        (&all, mode(0o100_755, 0, 0), Some("/bin/ls"), Ok(ls_caps), Verdict::Escalated, Reason::FileCapabilities),
        (&all, mode(0o104_755, 0, 0), Some("/bin/ls"), found(b"evil"), Verdict::Modified, Reason::OtherDigest),
    ]);
}

#[test]
fn an_unsettled_digest_accuses_but_never_acquits() {
    let all = manifest(Coverage::All, false);
    let written = on_rootfs(0o100_755, UPPER);
    let fresh = |content: &[u8]| found(content).map(|found| FileDigest { settled: false, ..found });
    check(&[
        (&all, written, Some("/bin/ls"), fresh(b"ls"), Verdict::Unverifiable, Reason::Raced),
        (&all, written, Some("/bin/ls"), fresh(b"evil"), Verdict::Modified, Reason::OtherDigest),
        (&all, written, Some("/tmp/ls"), fresh(b"ls"), Verdict::Relocated, Reason::OtherPath),
        (&all, written, Some("/tmp/x"), fresh(b"evil"), Verdict::Unlisted, Reason::UnknownDigest),
    ]);
}

#[test]
fn an_ambiguous_image_trusts_digests_in_its_own_layers() {
    let ambiguous = manifest(Coverage::All, true);
    let lower = on_rootfs(0o100_755, LOWER);
    let written = on_rootfs(0o100_755, UPPER);
    let raised = on_rootfs(0o104_755, LOWER);
    check(&[
        (&ambiguous, lower, Some("/sbin/ls"), found(b"ls"), Verdict::Expected, Reason::ListedInLayer),
        (&ambiguous, raised, Some("/sbin/ls"), found(b"ls"), Verdict::Escalated, Reason::Setuid),
        (&ambiguous, written, Some("/sbin/ls"), found(b"ls"), Verdict::Relocated, Reason::OtherPath),
        (&ambiguous, lower, Some("/bin/ls"), found(b"evil"), Verdict::Modified, Reason::OtherDigest),
        (&ambiguous, lower, Some("/sbin/x"), found(b"evil"), Verdict::Unlisted, Reason::UnknownDigest),
        (&manifest(Coverage::All, false), lower, Some("/sbin/ls"), found(b"ls"), Verdict::Relocated, Reason::OtherPath),
    ]);
}

#[test]
fn the_hosts_mount_namespace_comes_first() {
    let memfd = FileIdentity { memfd: true, ..FileIdentity::default() };
    for state in [manifest(Coverage::All, false), ManifestState::Missing(Reason::NoImage), ManifestState::Pending] {
        let subject = Subject {
            identity: &memfd,
            rootfs_path: None,
            in_host_mount_namespace: true,
            digest: Err(HashFailure::Gone),
        };
        assert_eq!(judge(&state, &subject, other_image).verdict, Verdict::Host);
        assert_eq!(judge_without_digest(&state, &subject).map(|judgement| judgement.verdict), Some(Verdict::Host));
    }
}

#[test]
fn without_a_digest_only_what_it_cannot_change() {
    let missing = ManifestState::Missing(Reason::NoLayers);
    let lower = on_rootfs(0o100_755, LOWER);
    let memfd = FileIdentity { memfd: true, ..lower };
    for (state, identity, verdict) in [
        (&missing, lower, Some(Verdict::Unattested)),
        (&missing, memfd, Some(Verdict::Fileless)),
        (&ManifestState::Pending, lower, None),
        (&manifest(Coverage::All, false), lower, None),
        (&manifest(Coverage::All, false), memfd, None),
    ] {
        let subject = Subject {
            identity: &identity,
            rootfs_path: Some(b"/bin/ls"),
            in_host_mount_namespace: false,
            digest: Err(HashFailure::Pending),
        };
        let judgement = judge_without_digest(state, &subject);
        assert_eq!(judgement.as_ref().map(|judgement| judgement.verdict), verdict);
        assert_eq!(judgement.and_then(|judgement| judgement.sha256), None);
    }
}

#[test]
fn evidence_is_shown() {
    let all = manifest(Coverage::All, false);
    let copied_up = on_rootfs(0o100_755, Overlay { has_lower: true, ..UPPER });
    let subject = |path, content: &[u8]| Subject {
        identity: &copied_up,
        rootfs_path: Some(path),
        in_host_mount_namespace: false,
        digest: found(content),
    };
    let relocated = judge(&all, &subject(b"/tmp/ls", b"ls"), other_image);
    assert_eq!(relocated.listed_path.as_deref(), Some(b"/bin/ls".as_slice()));
    assert_eq!((relocated.layer(), relocated.source()), (Some(0), Some(Source::Layers)));
    assert_eq!((relocated.upper, relocated.copied_up, relocated.size), (true, true, 4));
    assert_eq!(relocated.status, Status::Unsigned);
    let modified = judge(&all, &subject(b"/bin/ls", b"evil"), other_image);
    assert_eq!(modified.listed.map(|file| file.digest), Some(Digest::of(b"ls")));
    assert_eq!(modified.sha256, Some(Digest::of(b"evil")));
    let foreign = judge(&all, &subject(b"/tmp/x", b"of another image"), other_image);
    assert_eq!(foreign.foreign_image.as_deref(), Some("registry.example/init:1"));
}
