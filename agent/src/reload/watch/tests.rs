//! With the kernel's own inotify, in a directory of each test's own.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;
use crate::run::Wake;

/// Far less than a look, far more than the kernel takes.
const SOON: Duration = Duration::from_secs(1);

struct Bench {
    directory: TempDir,
    watcher: Watcher,
    watched: Vec<PathBuf>,
}

impl Bench {
    /// Makes the tree and watches `paths` in it.
    fn new(paths: &[&str], make: impl FnOnce(&Path)) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        make(directory.path());
        let watched: Vec<PathBuf> = paths.iter().map(|path| directory.path().join(path)).collect();
        let mut watcher = Watcher::new(&Metrics::new());
        watcher.arm(&watched);
        assert!(!watcher.has_changed(), "watching is no change");
        Self { directory, watcher, watched }
    }

    /// Whether the change is told, soon; then all is watched anew, as it is after reading.
    fn tells(&mut self, change: impl FnOnce(&Path)) -> bool {
        change(self.directory.path());
        let told = self.changed_within(SOON);
        self.watcher.arm(&self.watched);
        while self.watcher.has_changed() {}
        told
    }

    fn changed_within(&mut self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        while !self.watcher.has_changed() {
            if Instant::now() > end {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }

    /// Whether nothing is told of it.
    fn ignores(&mut self, change: impl FnOnce(&Path)) -> bool {
        change(self.directory.path());
        !self.changed_within(Duration::from_millis(50))
    }
}

fn write(path: impl AsRef<Path>, text: &str) {
    fs::write(path, text).expect("written");
}

#[test]
fn a_file_is_seen_however_it_is_saved() {
    let mut bench = Bench::new(&["a.yaml"], |root| write(root.join("a.yaml"), "1"));
    assert!(bench.tells(|root| write(root.join("a.yaml"), "2")), "in place");
    let over = |root: &Path| {
        write(root.join(".a.tmp"), "3");
        fs::rename(root.join(".a.tmp"), root.join("a.yaml")).expect("renamed");
    };
    assert!(bench.tells(over), "renamed over");
    assert!(bench.tells(over), "and again: the new file is watched");
    assert!(bench.tells(|root| write(root.join("a.yaml"), "4")), "in place after that");
    assert!(bench.tells(|root| fs::remove_file(root.join("a.yaml")).expect("removed")), "gone");
    assert!(bench.tells(|root| write(root.join("a.yaml"), "5")), "back");
    assert!(bench.tells(|root| fs::rename(root.join("a.yaml"), root.join("b")).expect("renamed")), "moved away");
    assert!(bench.tells(|root| fs::hard_link(root.join("b"), root.join("a.yaml")).expect("linked")), "linked back");
    assert!(bench.tells(|root| write(root.join("b"), "6")), "written under its other name");
    assert!(bench.ignores(|root| write(root.join("c.yaml"), "")), "a neighbour");
    assert!(bench.ignores(|root| drop(fs::read(root.join("a.yaml")))), "read");
}

#[test]
fn a_directory_stands_for_its_rule_files() {
    let mut bench = Bench::new(&["rules"], |root| {
        fs::create_dir(root.join("rules")).expect("made");
        write(root.join("rules/a.yaml"), "1");
    });
    assert!(bench.tells(|root| write(root.join("rules/a.yaml"), "2")), "changed");
    assert!(bench.tells(|root| write(root.join("rules/b.yml"), "1")), "added");
    assert!(bench.tells(|root| write(root.join("rules/b.yml"), "2")), "the added one changed");
    assert!(bench.tells(|root| fs::remove_file(root.join("rules/a.yaml")).expect("removed")), "removed");
    assert!(bench.ignores(|root| write(root.join("rules/notes.txt"), "")), "no rule file");
    assert!(bench.tells(|root| fs::rename(root.join("rules"), root.join("old")).expect("renamed")), "moved away");
    assert!(bench.tells(|root| fs::create_dir(root.join("rules")).expect("made")), "another in its place");
    assert!(bench.tells(|root| write(root.join("rules/a.yaml"), "1")), "a file in that");
    assert!(bench.ignores(|root| write(root.join("old/b.yml"), "3")), "the old one is no more");
}

#[test]
fn a_config_map_update_is_one_swap_of_a_link() {
    let version = |root: &Path, name: &str, text: &str| {
        fs::create_dir(root.join("map").join(name)).expect("made");
        write(root.join("map").join(name).join("a.yaml"), text);
    };
    let swap = |root: &Path, name: &str| {
        symlink(name, root.join("map/..data_tmp")).expect("linked");
        fs::rename(root.join("map/..data_tmp"), root.join("map/..data")).expect("renamed");
    };
    for watched in ["map/a.yaml", "map", "link.yaml"] {
        let mut bench = Bench::new(&[watched], |root| {
            fs::create_dir(root.join("map")).expect("made");
            version(root, "..2026_1", "1");
            symlink("..2026_1", root.join("map/..data")).expect("linked");
            symlink("..data/a.yaml", root.join("map/a.yaml")).expect("linked");
            symlink("map/a.yaml", root.join("link.yaml")).expect("linked");
        });
        for (old, new) in [("..2026_1", "..2026_2"), ("..2026_2", "..2026_3")] {
            assert!(bench.ignores(|root| version(root, new, "2")), "{watched}: not in use yet");
            assert!(bench.tells(|root| swap(root, new)), "{watched}: {new}");
            bench.ignores(|root| fs::remove_dir_all(root.join("map").join(old)).expect("removed"));
        }
    }
}

#[test]
fn a_directory_on_the_way_may_be_replaced() {
    let mut bench = Bench::new(&["a/b/c.yaml"], |root| {
        fs::create_dir_all(root.join("a/b")).expect("made");
        write(root.join("a/b/c.yaml"), "1");
    });
    assert!(bench.tells(|root| fs::rename(root.join("a"), root.join("x")).expect("renamed")), "moved away");
    assert!(bench.tells(|root| fs::create_dir_all(root.join("a/b")).expect("made")), "made anew");
    assert!(bench.tells(|root| write(root.join("a/b/c.yaml"), "2")), "the file in it");
    assert!(bench.tells(|root| fs::remove_dir_all(root.join("a")).expect("removed")), "removed");
    assert!(bench.tells(|root| fs::rename(root.join("x"), root.join("a")).expect("renamed")), "back");
    assert!(bench.tells(|root| write(root.join("a/b/c.yaml"), "3")), "and watched");
    assert!(bench.ignores(|root| write(root.join("a/other"), "")), "a neighbour on the way");
}

#[test]
fn reading_waits_for_the_end_of_writing_but_not_for_ever() {
    let mut bench = Bench::new(&["a.yaml"], |root| write(root.join("a.yaml"), "1"));
    let path = bench.directory.path().join("a.yaml");
    let mut file = fs::File::create(&path).expect("opened");
    file.write_all(b"half").expect("written");
    assert!(bench.changed_within(SOON));
    let writer = std::thread::spawn(move || {
        std::thread::sleep(QUIET * 3);
        file.write_all(b" and half").expect("written");
    });
    bench.watcher.settle(Instant::now(), &bench.watched);
    assert_eq!(fs::read(&path).expect("read"), b"half and half");
    writer.join().expect("joined");
    // Never closed.
    let mut file = fs::File::options().append(true).open(&path).expect("opened");
    file.write_all(b"more").expect("written");
    assert!(bench.changed_within(SOON));
    let start = Instant::now();
    bench.watcher.settle(start, &bench.watched);
    assert!(start.elapsed() >= PATIENCE, "it was being written");
    drop(file);
}

#[test]
fn without_a_watch_it_is_looked_at() {
    let metrics = Metrics::new();
    let mut watcher = Watcher::new(&metrics);
    let called = Wake::new().expect("an eventfd");
    watcher.refuse(Path::new("/x"), Errno::NOSPC);
    watcher.refuse(Path::new("/x"), Errno::NOSPC);
    let limit = metrics.read(ERRORS).into_iter().find(|(labels, _)| labels == &["limit"]).map(|(_, count)| count);
    assert_eq!(limit, Some(1), "said and counted once");
    let start = Instant::now();
    assert_eq!(watcher.wait(called.fd(), true), Woken::Time);
    assert!(start.elapsed() >= POLL && start.elapsed() < LOOK);
    called.wake();
    assert_eq!(watcher.wait(called.fd(), false), Woken::Called);
}

/// The limit belongs to a user namespace, so the test runs itself again in one of its own, where it is 0.
const CHILD: &str = "PURSER_TEST_NO_WATCHES";

#[test]
fn a_watch_that_the_kernel_refuses_is_no_silence() {
    if std::env::var_os(CHILD).is_some() {
        let metrics = Metrics::new();
        let mut watcher = Watcher::new(&metrics);
        watcher.arm(&["/etc/passwd".into()]);
        println!("refused {} {:?}", watcher.refused.len(), metrics.read(ERRORS));
        return;
    }
    let this = std::env::current_exe().expect("the test's own path");
    let script = "echo 0 > /proc/sys/user/max_inotify_watches && exec \"$0\" --exact --nocapture \
                  reload::watch::tests::a_watch_that_the_kernel_refuses_is_no_silence";
    let mut command = std::process::Command::new("unshare");
    command.args(["--user", "--map-root-user", "sh", "-c", script]).arg(this).env(CHILD, "1");
    let output = command.output().expect("util-linux");
    if !output.status.success() {
        println!("SKIPPED: no user namespaces here: {}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    let said = String::from_utf8_lossy(&output.stdout);
    let wanted = r#"refused 2 [(["limit"], 2), (["memory"], 0), (["other"], 0), (["permission"], 0)]"#;
    assert!(said.contains(wanted), "{said}");
}
