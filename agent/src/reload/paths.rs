//! What has to be watched so that no change of a path's content goes unseen: every directory and every symbolic link
//! that its resolution passes, and the file at its end. It reads directories and watches nothing itself.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Component, Path, PathBuf};

/// Links that one path may lead through, as in the kernel (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;

/// What matters of one directory or file. Its path has no symbolic links.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Interest {
    /// That it stays the one it is: directories on the way.
    pub(super) itself: bool,
    /// Its bytes: files.
    pub(super) content: bool,
    /// Entries of these names.
    pub(super) names: BTreeSet<OsString>,
    /// Every entry that is called like a rule file.
    pub(super) rule_files: bool,
}

impl Interest {
    /// Whether an event on an entry of that name matters.
    pub(super) fn has(&self, name: &OsStr) -> bool {
        self.names.contains(name) || (self.rule_files && is_rule_file(Path::new(name)))
    }

    /// Both together: one inode may be met under two paths.
    pub(super) fn add(&mut self, other: &Self) {
        self.itself |= other.itself;
        self.content |= other.content;
        self.rule_files |= other.rule_files;
        self.names.extend(other.names.iter().cloned());
    }
}

/// What matters of what.
pub(super) type Plan = BTreeMap<PathBuf, Interest>;

/// The plan for some paths as the file system is now. A directory stands for the rule files in it.
pub(super) fn plan(paths: &[PathBuf]) -> Plan {
    let mut plan = Plan::new();
    for path in paths {
        // Only an empty path cannot be made absolute, and that names nothing.
        let Ok(path) = std::path::absolute(path) else { continue };
        let Some(end) = walk(&path, &mut plan) else { continue };
        if !end.is_dir() {
            continue;
        }
        plan.entry(end.clone()).or_default().rule_files = true;
        for entry in fs::read_dir(&end).into_iter().flatten().flatten() {
            let file = entry.path();
            if is_rule_file(&file) {
                walk(&file, &mut plan);
            }
        }
    }
    plan
}

/// Whether a directory's entry is loaded: `*.yaml` and `*.yml`.
pub(super) fn is_rule_file(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}

/// Resolves an absolute path step by step and notes what each step rests on. Gives the end, free of links; `None`
/// where something is missing, whose coming is then what matters.
fn walk(path: &Path, plan: &mut Plan) -> Option<PathBuf> {
    let mut here = PathBuf::from("/");
    let mut rest: VecDeque<OsString> = parts(path);
    let mut links = 0;
    while let Some(name) = rest.pop_front() {
        if name == ".." {
            here.pop();
            continue;
        }
        let next = here.join(&name);
        let kind = fs::symlink_metadata(&next).map(|metadata| metadata.file_type());
        if kind.as_ref().is_ok_and(fs::FileType::is_dir) {
            plan.entry(next.clone()).or_default().itself = true;
            here = next;
            continue;
        }
        plan.entry(here.clone()).or_default().names.insert(name);
        if !kind.ok()?.is_symlink() {
            plan.entry(next.clone()).or_default().content = true;
            return rest.is_empty().then_some(next);
        }
        links += 1;
        let target = fs::read_link(&next).ok().filter(|_| links <= MAX_LINKS)?;
        if target.is_absolute() {
            here = PathBuf::from("/");
        }
        for part in parts(&target).into_iter().rev() {
            rest.push_front(part);
        }
    }
    Some(here)
}

fn parts(path: &Path) -> VecDeque<OsString> {
    let part = |component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().filter_map(part).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// The plan below `root`, a line per directory or file: `itself`, `content`, `*`, names.
    fn shown(root: &Path, paths: &[PathBuf]) -> Vec<String> {
        let line = |(path, interest): (&PathBuf, &Interest)| {
            let path = path.strip_prefix(root).ok()?;
            let mut words = vec![path.display().to_string() + ":"];
            words.extend(interest.itself.then(|| "itself".to_owned()));
            words.extend(interest.content.then(|| "content".to_owned()));
            words.extend(interest.rule_files.then(|| "*".to_owned()));
            words.extend(interest.names.iter().map(|name| name.to_string_lossy().into_owned()));
            Some(words.join(" "))
        };
        plan(paths).iter().filter_map(line).collect()
    }

    fn root() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path().canonicalize().expect("resolved");
        (directory, root)
    }

    #[test]
    fn a_config_map_is_followed_through_its_links() {
        let (_directory, root) = root();
        fs::create_dir_all(root.join("map/..2026_1")).expect("made");
        fs::write(root.join("map/..2026_1/a.yaml"), "").expect("written");
        symlink("..2026_1", root.join("map/..data")).expect("linked");
        symlink("..data/a.yaml", root.join("map/a.yaml")).expect("linked");
        let file = ["", "map: itself", "map/..2026_1: itself a.yaml", "map/..2026_1/a.yaml: content"];
        let mut want = file.map(str::to_owned).to_vec();
        want[0] = ": itself".to_owned();
        want[1] = "map: itself ..data a.yaml".to_owned();
        assert_eq!(shown(&root, &[root.join("map/a.yaml")]), want);
        want[1] = "map: itself * ..data a.yaml".to_owned();
        assert_eq!(shown(&root, &[root.join("map")]), want, "a directory");
    }

    #[test]
    fn what_is_missing_is_waited_for_where_it_would_come() {
        let (_directory, root) = root();
        assert_eq!(shown(&root, &[root.join("a/b.yaml")]), [": itself a"]);
        fs::create_dir(root.join("a")).expect("made");
        assert_eq!(shown(&root, &[root.join("a/b.yaml")]), [": itself", "a: itself b.yaml"]);
        symlink(root.join("c/d.yaml"), root.join("a/b.yaml")).expect("linked");
        assert_eq!(shown(&root, &[root.join("a/b.yaml")]), [": itself c", "a: itself b.yaml"]);
        assert_eq!(shown(&root, &[root.join("a/../e")]), [": itself e", "a: itself"]);
    }

    #[test]
    fn links_that_never_end_do() {
        let (_directory, root) = root();
        symlink("b", root.join("a")).expect("linked");
        symlink("a", root.join("b")).expect("linked");
        assert_eq!(shown(&root, &[root.join("a")]), [": itself a b"]);
        fs::write(root.join("file"), "").expect("written");
        assert_eq!(shown(&root, &[root.join("file/below")]), [": itself file", "file: content"]);
    }
}
