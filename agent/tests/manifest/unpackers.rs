//! What the agent lists against what each unpacker writes, file by file.

use std::{
    collections::BTreeMap,
    fs,
    ops::ControlFlow,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use purser::{
    container::{Image, ImageStore, Rootfs},
    manifest::{
        BuildError, Digest, DiskCache, LayerLimits, Manifest, build, capabilities::FileCapabilities,
        image_from_oci_layout, model::Source,
    },
};

use crate::{
    image::{Compression, LayerTar, agreed_layers, run, write_layout},
    missing,
};

fn try_build(image: &Image, rootfs: Option<&Rootfs>) -> Result<Manifest, BuildError> {
    build(image, rootfs, &LayerLimits::default(), &mut |_| ControlFlow::Continue(()))
}

fn build_layout(layout: &Path) -> Manifest {
    try_build(&image_from_oci_layout(layout, None).unwrap(), None).unwrap()
}

/// Every difference between a manifest and a directory.
fn differences(manifest: &Manifest, root: &Path) -> Vec<String> {
    let mut expected: BTreeMap<Vec<u8>, _> = manifest.files().map(|(path, file)| (path.to_vec(), file)).collect();
    let mut differences = Vec::new();
    let mut todo = vec![root.to_owned()];
    while let Some(directory) = todo.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let metadata = match fs::symlink_metadata(&path) {
                Ok(metadata) => metadata,
                Err(error) => {
                    differences.push(format!("{}: {error}", path.display()));
                    continue;
                }
            };
            if metadata.is_dir() {
                todo.push(path);
                continue;
            }
            if !metadata.is_file() {
                continue;
            }
            let inside = [b"/", path.strip_prefix(root).unwrap().as_os_str().as_bytes()].concat();
            let name = inside.escape_ascii().to_string();
            let Some(listed) = expected.remove(&inside) else {
                differences.push(format!("not listed: {name}"));
                continue;
            };
            let mut capability = [0; 64];
            let capability = rustix::fs::lgetxattr(&path, c"security.capability", &mut capability[..])
                .ok()
                .and_then(|length| FileCapabilities::parse(&capability[..length]));
            let found = (
                Digest::of(&fs::read(&path).unwrap()),
                metadata.len(),
                (metadata.mode() & 0o7777) as u16,
                metadata.uid(),
                metadata.gid(),
                capability,
            );
            let listed = (listed.digest, listed.size, listed.mode, listed.uid, listed.gid, listed.capabilities);
            if found != listed {
                differences.push(format!("{name}: listed {listed:?}, found {found:?}"));
            }
        }
    }
    differences.extend(expected.keys().map(|path| format!("not there: {}", path.escape_ascii())));
    differences
}

#[test]
fn lists_what_umoci_unpacks() {
    if missing(&["umoci"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let layout = directory.path().join("layout");
    // umoci 0.4 knows no zstd.
    let layers: Vec<_> = agreed_layers().into_iter().map(|(tar, _)| (tar, Compression::Gzip)).collect();
    write_layout(&layout, &layers);
    let bundle = directory.path().join("bundle");
    run(Command::new("umoci").arg("unpack").arg("--image").arg(format!("{}:test", layout.display())).arg(&bundle));
    let manifest = build_layout(&layout);
    assert_eq!(manifest.header().ambiguities, [""; 0]);
    assert_eq!(differences(&manifest, &bundle.join("rootfs")), [""; 0]);
}

#[test]
fn reads_archives_and_layouts_alike() {
    let directory = tempfile::tempdir().unwrap();
    let layout = directory.path().join("layout");
    write_layout(&layout, &agreed_layers());
    let archive = directory.path().join("image.tar");
    let mut builder = tar::Builder::new(fs::File::create(&archive).unwrap());
    builder.append_dir_all("", &layout).unwrap();
    builder.finish().unwrap();

    let image = image_from_oci_layout(&layout, Some("test")).unwrap();
    let manifest = try_build(&image, None).unwrap();
    let from_archive = try_build(&image_from_oci_layout(&archive, Some("test")).unwrap(), None).unwrap();
    assert_eq!(manifest, from_archive);
    assert_eq!(manifest.header().source, Source::Layers);
    assert_eq!(manifest.entrypoint_path().as_deref(), Some(&b"/usr/bin/ls"[..]));
    assert_eq!(manifest.file(b"/usr/bin/ls").map(|file| (file.digest, file.layer)), Some((Digest::of(b"ls two"), 1)));
    let error = image_from_oci_layout(&layout, Some("other")).unwrap_err().to_string();
    assert!(error.contains("there are: test"), "{error}");
}

#[test]
fn a_blob_with_other_bytes_is_refused_and_a_missing_one_is_no_reason_to_guess() {
    let directory = tempfile::tempdir().unwrap();
    write_layout(directory.path(), &agreed_layers());
    let image = image_from_oci_layout(directory.path(), None).unwrap();
    let rootfs = Rootfs { lower: vec![directory.path().join("blobs")], ..Rootfs::default() };
    let blob = directory.path().join(format!("blobs/sha256/{}", &image.layers[2].digest["sha256:".len()..]));
    let whole = fs::read(&blob).unwrap();
    let mut other = whole.clone();
    let content = whole.windows(9).position(|window| window == b"one inode").unwrap();
    other[content] ^= 1;
    fs::write(&blob, &other).unwrap();
    let error = try_build(&image, Some(&rootfs)).unwrap_err();
    assert!(error.to_string().contains("the blob's digest is"), "{error}");
    assert!(!error.is_missing());

    fs::remove_file(&blob).unwrap();
    assert!(try_build(&image, None).unwrap_err().is_missing());
    assert_eq!(try_build(&image, Some(&rootfs)).unwrap().header().source, Source::Unpacked);
    let mut wrong = image;
    wrong.chain_id = Some(Digest::of(b"").to_string());
    assert!(matches!(try_build(&wrong, Some(&rootfs)), Err(BuildError::ChainId(_))));
}

#[test]
fn lists_what_podman_unpacks_and_rebuilds_its_layers() {
    if missing(&["podman"]) {
        return;
    }
    // podman makes an image's name of the path, which must be in lower case.
    let prefix = format!("purser-podman-{}", std::process::id());
    let directory = tempfile::Builder::new().prefix(&prefix).rand_bytes(0).tempdir().unwrap();
    let _mounts = Mounts(directory.path());
    let layout = directory.path().join("layout");
    write_layout(&layout, &agreed_layers());
    let graph = directory.path().join("graph");
    let podman = || {
        let mut command = Command::new("podman");
        command.arg("--root").arg(&graph).arg("--runroot").arg(directory.path().join("run"));
        command.args(["--storage-driver", "overlay", "--events-backend", "file"]);
        command
    };
    let name = run(podman().arg("pull").arg("-q").arg(format!("oci:{}:test", layout.display())));
    let mounted = run(podman().args(["image", "mount", &name]));
    let original = build_layout(&layout);
    let found = differences(&original, Path::new(&mounted));
    run(podman().args(["image", "unmount", "--all", "--force"]));
    assert_eq!(found, [""; 0]);

    let stored: serde_json::Value =
        serde_json::from_slice(&fs::read(graph.join("overlay-layers/layers.json")).unwrap()).unwrap();
    let mut image = image_from_oci_layout(&layout, None).unwrap();
    for layer in &mut image.layers {
        let known = stored.as_array().unwrap().iter().find(|known| known["diff-digest"] == *layer.diff_id).unwrap();
        known["id"].as_str().unwrap().clone_into(&mut layer.store_id);
    }
    image.store = ImageStore::ContainersStorage(graph.clone());
    assert_eq!(try_build(&image, None).unwrap(), original, "entry point and all");

    let changed = graph.join("overlay").join(&image.layers[0].store_id).join("diff/usr/bin/ls");
    fs::write(&changed, b"LS ONE").unwrap();
    let error = try_build(&image, None).unwrap_err().to_string();
    assert!(error.contains("the uncompressed layer's digest is"), "{error}");
    fs::write(&changed, b"ls one").unwrap();

    // Without tar-split records there are the unpacked directories.
    for layer in &image.layers {
        fs::remove_file(graph.join(format!("overlay-layers/{}.tar-split.gz", layer.store_id))).unwrap();
    }
    let unpacked = try_build(&image, None).unwrap();
    assert_eq!((unpacked.header().source, unpacked.status().as_str()), (Source::Unpacked, "unbound"));
    assert!(unpacked.files().eq(original.files()));
    assert!(unpacked.links().eq(original.links()));
}

/// Takes what a failed test has mounted below a directory away before the directory is removed.
struct Mounts<'a>(&'a Path);

impl Drop for Mounts<'_> {
    fn drop(&mut self) {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let prefix = format!("{}/", self.0.display());
        for target in mounts.lines().rev().filter_map(|line| line.split(' ').nth(1)) {
            if target.starts_with(&prefix) {
                let _ = Command::new("umount").arg("-l").arg(target).status();
            }
        }
    }
}

/// A containerd of its own.
struct Containerd {
    child: Child,
    directory: PathBuf,
}

impl Containerd {
    fn start(directory: &Path) -> Self {
        let config = directory.join("config.toml");
        let text = format!(
            "version = 2\nroot = '{0}/root'\nstate = '{0}/state'\ndisabled_plugins = ['io.containerd.grpc.v1.cri']\n\
             [grpc]\naddress = '{0}/sock'\n[plugins.'io.containerd.internal.v1.opt']\npath = '{0}/opt'\n",
            directory.display()
        );
        fs::write(&config, text).unwrap();
        let log = fs::File::create(directory.join("log")).unwrap();
        let child =
            Command::new("containerd").arg("--config").arg(&config).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let started = Self { child, directory: directory.to_owned() };
        for _ in 0..1200 {
            if started.ctr().arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success() {
                return started;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("containerd does not start: {}", fs::read_to_string(directory.join("log")).unwrap());
    }

    fn ctr(&self) -> Command {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.directory.join("sock"));
        command
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn lists_what_containerd_unpacks_traps_included() {
    if missing(&["containerd", "ctr"]) {
        return;
    }
    let directory = tempfile::Builder::new().prefix("purser-ctr-").tempdir().unwrap();
    let _mounts = Mounts(directory.path());
    let containerd = Containerd::start(directory.path());
    let lower = || {
        LayerTar::new()
            .file("usr/bin/x", b"x")
            .symlink("bin", "usr/bin")
            .file("file", b"file")
            .file("dir/lower", b"lower")
            .file("other/lower", b"lower")
    };
    let traps: Vec<(&str, bool, LayerTar)> = vec![
        ("an entry below a lower link replaces it", false, LayerTar::new().file("bin/y", b"y")),
        (
            "a directory after its own whiteout",
            true,
            LayerTar::new().whiteout("dir").dir("dir").file("dir/upper", b"u"),
        ),
        ("an opaque root", true, LayerTar::new().file(".wh..wh..opq", b"").file("new", b"n")),
        ("the last of two", false, LayerTar::new().file("twice", b"first").file("twice", b"the last wins")),
        ("names above the root", false, LayerTar::new().pax(b"../../escape", b"e", None).pax(b"/absolute", b"a", None)),
        ("a link out of the root", false, LayerTar::new().symlink("out", "../../../..").file("out/placed", b"p")),
        ("opaque before content", false, LayerTar::new().opaque("dir").file("dir/upper", b"u")),
        ("opaque after content", false, LayerTar::new().file("dir/upper", b"u").opaque("dir")),
        ("a file replaced by its link", false, LayerTar::new().file("l", b"1").file("k", b"2").hard_link("l", "k")),
        ("a hard link and a new file", false, LayerTar::new().file("a", b"1").hard_link("b", "a").file("a", b"2")),
    ];
    let mut images = vec![("agreed", false, agreed_layers())];
    images.extend(traps.into_iter().map(|(name, ambiguous, upper)| {
        (name, ambiguous, vec![(lower().bytes(), Compression::Gzip), (upper.bytes(), Compression::Gzip)])
    }));
    let mut failures = Vec::new();
    for (number, (name, ambiguous, layers)) in images.into_iter().enumerate() {
        let layout = directory.path().join(format!("layout{number}"));
        write_layout(&layout, &layers);
        let manifest = build_layout(&layout);
        if manifest.ambiguous() != ambiguous {
            failures.push(format!("{name}: ambiguous: {:?}", manifest.header().ambiguities));
        }
        let archive = directory.path().join(format!("{number}.tar"));
        run(Command::new("tar").arg("-C").arg(&layout).arg("-cf").arg(&archive).arg("."));
        let base = format!("image{number}");
        run(containerd.ctr().args(["images", "import", "--base-name", &base]).arg(&archive));
        let mount = directory.path().join(format!("mount{number}"));
        fs::create_dir(&mount).unwrap();
        run(containerd.ctr().args(["images", "mount", &format!("{base}:test")]).arg(&mount));
        let found = differences(&manifest, &mount);
        run(Command::new("umount").arg(&mount));
        if !found.is_empty() {
            failures.push(format!("{name}: {found:?}"));
        }
    }
    assert_eq!(failures, [""; 0]);
}

/// A full disk: nothing is kept, nothing half-written stays behind, and with room again it is kept.
#[test]
fn a_full_disk_keeps_no_manifest_and_no_rest_of_one() {
    if missing(&[]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let layout = directory.path().join("layout");
    write_layout(&layout, &agreed_layers());
    let manifest = build_layout(&layout);
    let disk = directory.path().join("disk");
    fs::create_dir(&disk).unwrap();
    run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k,mode=0700", "purser-test"]).arg(&disk));
    let unmount = Unmount(disk.clone());
    let filler = disk.join("filler");
    let full = fs::write(&filler, vec![0; 1 << 20]).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);

    let cache = DiskCache::open(&disk, 1 << 30).unwrap();
    let error = cache.write(&manifest).unwrap_err().to_string();
    assert!(error.contains("No space left on device"), "{error}");
    let left: Vec<_> = fs::read_dir(&disk).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["filler"]);
    assert_eq!(cache.read(&manifest.header().chain_id).unwrap(), None);

    fs::remove_file(&filler).unwrap();
    cache.write(&manifest).unwrap();
    assert_eq!(cache.read(&manifest.header().chain_id).unwrap(), Some(manifest));
    drop(unmount);
}

/// Takes the test's own mount away again.
struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}
