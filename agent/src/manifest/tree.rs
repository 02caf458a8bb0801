//! The file tree of one layer, and layers laid over each other as overlayfs does. A layer is first built by
//! itself, as containerd and containers/storage unpack it into an upper directory of its own, and then merged:
//! so the traps of unpacking (links inside a layer, whiteouts, replaced directories) fall where they fall there.
//! Where other unpackers see another tree, the image is marked ambiguous.

use std::{
    collections::{BTreeMap, HashSet},
    ops::Bound,
};

use super::model::File;

/// Most links on one path, as containerd's `fs.RootPath`.
const MAX_LINKS: usize = 255;
const MAX_NAME: usize = 255;
const MAX_PATH: usize = 4096;
const MAX_AMBIGUITIES: usize = 16;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Bounds on what an image may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeLimits {
    /// Files, directories and links of one layer, and of the image.
    pub entries: usize,
    /// Bytes of their paths.
    pub path_bytes: usize,
}

impl Default for TreeLimits {
    fn default() -> Self {
        Self { entries: 1 << 20, path_bytes: 96 << 20 }
    }
}

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    Directory {
        /// Hides what lower layers hold there.
        opaque: bool,
        /// Has an entry of its own.
        explicit: bool,
    },
    File(File),
    Symlink(Vec<u8>),
    /// Devices, FIFOs.
    Special,
    /// Removes what lower layers hold there.
    Whiteout,
}

/// Why an entry cannot be placed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// More than [`TreeLimits`] allow.
    #[error("more than {0} entries or {1} bytes of paths")]
    TooMany(usize, usize),
    /// The kernel would refuse the name.
    #[error("a path longer than 4096 bytes or a name longer than 255")]
    NameTooLong,
    /// Links lead in circles.
    #[error("more than 255 symbolic links on the way")]
    Loop,
    /// `.wh.`, `.wh..` or `.wh...`: names nothing, its directory or the one above.
    #[error("a whiteout without a name")]
    Whiteout,
}

/// A tree. Paths have no leading slash; a directory sorts before what it holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tree {
    nodes: BTreeMap<Vec<u8>, Node>,
    path_bytes: usize,
    limits: TreeLimits,
    ambiguities: Vec<String>,
}

impl Tree {
    pub(super) fn new(limits: TreeLimits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Files with absolute paths, and links.
    #[allow(clippy::type_complexity, reason = "exactly what a manifest is made of")]
    pub(super) fn into_parts(self) -> (Vec<(Vec<u8>, File)>, Vec<(Vec<u8>, Vec<u8>)>, Vec<String>) {
        let (mut files, mut links) = (Vec::new(), Vec::new());
        for (path, node) in self.nodes {
            let path = || [b"/", path.as_slice()].concat();
            match node {
                Node::File(file) => files.push((path(), file)),
                Node::Symlink(target) => links.push((path(), target)),
                Node::Directory { .. } | Node::Special | Node::Whiteout => {}
            }
        }
        (files, links, self.ambiguities)
    }

    /// Why unpackers may disagree.
    pub(super) fn ambiguous(&mut self, what: &str, path: &[u8]) {
        if self.ambiguities.len() < MAX_AMBIGUITIES {
            let mut path = path.escape_ascii().to_string();
            path.truncate(200);
            self.ambiguities.push(format!("{what}: {path}"));
        }
    }

    /// Puts an entry of a layer archive into the tree, as containerd's `archive.Apply` into an empty directory.
    pub(super) fn place(&mut self, name: &[u8], node: Node) -> Result<(), TreeError> {
        let Some(path) = self.locate(name)? else { return Ok(()) };
        let base = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        if base == OPAQUE {
            let parent = parent(&path);
            if parent.is_empty() {
                // overlayfs does not read the attribute of a layer's root, others remove everything below.
                self.ambiguous("the root directory is opaque", name);
            } else {
                self.insert(parent.to_vec(), Node::Directory { opaque: true, explicit: true })?;
            }
            return Ok(());
        }
        if let Some(hidden) = base.strip_prefix(WHITEOUT) {
            if matches!(hidden, b"" | b"." | b"..") {
                return Err(TreeError::Whiteout);
            }
            let target = [&path[..path.len() - base.len()], hidden].concat();
            if self.nodes.contains_key(&target) {
                // containerd refuses the layer; the specification lets a whiteout hide lower layers only.
                self.ambiguous("a whiteout after its own entry", name);
                return Ok(());
            }
            return self.insert(target, Node::Whiteout);
        }
        self.put(path, node)
    }

    /// Makes a hard link; its target lies in this layer or, where unpackers disagree, below it.
    pub(super) fn link(&mut self, name: &[u8], target: &[u8], lower: &Self) -> Result<(), TreeError> {
        let Some(path) = self.locate(name)? else { return Ok(()) };
        let Some(target) = self.resolve(target)? else { return Ok(()) };
        if path == target {
            self.ambiguous("a hard link to itself", name);
            return Ok(());
        }
        let node = match self.nodes.get(&target) {
            Some(node @ (Node::File(_) | Node::Symlink(_) | Node::Special)) => node.clone(),
            Some(Node::Directory { .. } | Node::Whiteout) => {
                self.ambiguous("a hard link to no file", name);
                return Ok(());
            }
            None => {
                self.ambiguous("a hard link into a lower layer", name);
                match lower.nodes.get(&target) {
                    Some(node @ (Node::File(_) | Node::Symlink(_) | Node::Special)) => node.clone(),
                    _ => return Ok(()),
                }
            }
        };
        self.put(path, node)
    }

    /// Removes what an entry of no kind (a PAX global header) stands at; containerd does.
    pub(super) fn remove_entry(&mut self, name: &[u8]) -> Result<(), TreeError> {
        if let Some(path) = self.resolve(name)?
            && self.nodes.contains_key(&path)
        {
            self.ambiguous("a global header with the name of a file", name);
        }
        Ok(())
    }

    /// Puts a node at a path that is known to be clean and whose parents are directories.
    pub(super) fn put(&mut self, path: Vec<u8>, node: Node) -> Result<(), TreeError> {
        match (self.nodes.get_mut(&path), &node) {
            (Some(Node::Directory { explicit, opaque }), Node::Directory { opaque: now, .. }) => {
                *explicit = true;
                *opaque |= *now;
                return Ok(());
            }
            (Some(Node::Whiteout), Node::Directory { .. }) => {
                // overlayfs then merges it with the lower directory, which the specification's order removes first.
                self.ambiguous("a directory after its own whiteout", &path);
            }
            _ => {}
        }
        self.remove_below(&path);
        self.insert(path, node)
    }

    /// Lays `upper` over this tree.
    pub(super) fn merge(&mut self, upper: Self) -> Result<(), TreeError> {
        let bare = upper.bare_directories();
        let mut skipped: Vec<Vec<u8>> = Vec::new();
        for ambiguity in upper.ambiguities {
            if self.ambiguities.len() < MAX_AMBIGUITIES {
                self.ambiguities.push(ambiguity);
            }
        }
        for (path, node) in upper.nodes {
            if skipped.iter().any(|directory| is_below(&path, directory)) {
                continue;
            }
            match node {
                Node::Whiteout => self.remove(&path),
                Node::Directory { opaque, .. } => match self.nodes.get(&path) {
                    Some(Node::Directory { .. }) if opaque => self.remove_below(&path),
                    Some(Node::Directory { .. }) => {}
                    // Only whiteouts lie in it: nothing says that the lower file is to become a directory.
                    Some(_) if bare.contains(&path) => {
                        self.ambiguous("whiteouts below a file", &path);
                        skipped.push(path);
                    }
                    _ => self.insert(path, Node::Directory { opaque: false, explicit: true })?,
                },
                node => {
                    self.remove_below(&path);
                    self.insert(path, node)?;
                }
            }
        }
        Ok(())
    }

    /// Implied directories that hold nothing but whiteouts.
    fn bare_directories(&self) -> HashSet<Vec<u8>> {
        let mut bare: HashSet<Vec<u8>> = self
            .nodes
            .iter()
            .filter(|(_, node)| matches!(node, Node::Directory { explicit: false, .. }))
            .map(|(path, _)| path.clone())
            .collect();
        if bare.is_empty() {
            return bare;
        }
        for (path, node) in &self.nodes {
            let holds = match node {
                Node::Directory { explicit, .. } => *explicit,
                node => *node != Node::Whiteout,
            };
            let mut above = parent(path);
            while holds && bare.remove(above) {
                above = parent(above);
            }
        }
        bare
    }

    /// The clean path of an entry below this tree, with its parent directories made; `None` for the root itself.
    fn locate(&mut self, name: &[u8]) -> Result<Option<Vec<u8>>, TreeError> {
        let Some(path) = self.resolve(name)? else { return Ok(None) };
        let slashes: Vec<usize> =
            path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(index, _)| index).collect();
        for end in slashes {
            let directory = &path[..end];
            if matches!(self.nodes.get(directory), Some(Node::Directory { .. })) {
                continue;
            }
            if self.nodes.contains_key(directory) {
                // containerd refuses the layer.
                self.ambiguous("an entry below a file of its own layer", name);
                self.remove(directory);
            }
            self.insert(directory.to_vec(), Node::Directory { opaque: false, explicit: false })?;
        }
        Ok(Some(path))
    }

    /// The clean path of a name: `.` and `..` resolved first and never above the root (Go's `filepath.Clean`), then
    /// the links of this tree on the way to the last component.
    fn resolve(&self, name: &[u8]) -> Result<Option<Vec<u8>>, TreeError> {
        if name.len() > MAX_PATH {
            return Err(TreeError::NameTooLong);
        }
        let mut clean: Vec<&[u8]> = Vec::new();
        for component in super::model::components(name) {
            if component == b".." {
                clean.pop();
            } else {
                clean.push(component);
            }
        }
        let Some(last) = clean.pop() else { return Ok(None) };
        let mut todo: Vec<&[u8]> = clean;
        todo.reverse();
        let mut path = Vec::new();
        let mut links = 0;
        while let Some(component) = todo.pop() {
            if component == b".." {
                path.truncate(parent(&path).len());
                continue;
            }
            let above = path.len();
            push(&mut path, component)?;
            if let Some(Node::Symlink(target)) = self.nodes.get(&path) {
                links += 1;
                if links > MAX_LINKS {
                    return Err(TreeError::Loop);
                }
                path.truncate(if target.starts_with(b"/") { 0 } else { above });
                todo.extend(super::model::components(target).rev());
            }
        }
        push(&mut path, last)?;
        Ok(Some(path))
    }

    fn insert(&mut self, path: Vec<u8>, node: Node) -> Result<(), TreeError> {
        let length = path.len();
        if self.nodes.insert(path, node).is_none() {
            self.path_bytes += length;
            if self.nodes.len() > self.limits.entries || self.path_bytes > self.limits.path_bytes {
                return Err(TreeError::TooMany(self.limits.entries, self.limits.path_bytes));
            }
        }
        Ok(())
    }

    fn remove(&mut self, path: &[u8]) {
        self.remove_below(path);
        if self.nodes.remove(path).is_some() {
            self.path_bytes -= path.len();
        }
    }

    fn remove_below(&mut self, path: &[u8]) {
        if !matches!(self.nodes.get(path), Some(Node::Directory { .. })) {
            return;
        }
        let start = [path, b"/"].concat();
        // '0' follows '/': everything between begins with the path and a slash.
        let end = [path, b"0"].concat();
        let below: Vec<Vec<u8>> = self
            .nodes
            .range::<[u8], _>((Bound::Included(start.as_slice()), Bound::Excluded(end.as_slice())))
            .map(|(path, _)| path.clone())
            .collect();
        for path in below {
            self.nodes.remove(&path);
            self.path_bytes -= path.len();
        }
    }
}

fn push(path: &mut Vec<u8>, component: &[u8]) -> Result<(), TreeError> {
    if component.len() > MAX_NAME || path.len() + component.len() + 1 > MAX_PATH {
        return Err(TreeError::NameTooLong);
    }
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(component);
    Ok(())
}

fn parent(path: &[u8]) -> &[u8] {
    path.iter().rposition(|&byte| byte == b'/').map_or(&[], |slash| &path[..slash])
}

fn is_below(path: &[u8], directory: &[u8]) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.starts_with(b"/"))
}

#[cfg(test)]
mod tests {
    use super::{super::model::tests as fixtures, *};

    const DIR: Node = Node::Directory { opaque: false, explicit: true };

    fn file(content: &str) -> Node {
        Node::File(fixtures::file(content.as_bytes()))
    }

    fn layer(entries: &[(&str, Node)]) -> Tree {
        let mut tree = Tree::default();
        for (name, node) in entries {
            tree.place(name.as_bytes(), node.clone()).unwrap();
        }
        tree
    }

    fn merged(layers: Vec<Tree>) -> Tree {
        let mut merged = Tree::default();
        for layer in layers {
            merged.merge(layer).unwrap();
        }
        merged
    }

    fn paths(tree: &Tree) -> Vec<&str> {
        let files = tree.nodes.iter().filter(|(_, node)| !matches!(node, Node::Directory { .. }));
        files.map(|(path, _)| str::from_utf8(path).unwrap()).collect()
    }

    #[test]
    fn whiteouts_hide_lower_layers_only() {
        let lower = || layer(&[("d/a", file("a")), ("d/b/c", file("c")), ("d-e", file("e")), ("d0", file("0"))]);
        for (upper, left) in [
            (vec![("d/.wh.a", file(""))], vec!["d-e", "d/b/c", "d0"]),
            (vec![(".wh.d", file(""))], vec!["d-e", "d0"]),
            (vec![("d/.wh..wh..opq", file("")), ("d/x", file("x"))], vec!["d-e", "d/x", "d0"]),
            (vec![("d/x", file("x")), ("d/.wh..wh..opq", file(""))], vec!["d-e", "d/x", "d0"]),
            (vec![("d", file("now a file"))], vec!["d", "d-e", "d0"]),
            (vec![("d-e/x", file("x"))], vec!["d-e/x", "d/a", "d/b/c", "d0"]),
            (vec![(".wh.none", file(""))], vec!["d-e", "d/a", "d/b/c", "d0"]),
        ] {
            let tree = merged(vec![lower(), layer(&upper)]);
            assert_eq!(paths(&tree), left, "{upper:?}");
            assert_eq!(tree.path_bytes, tree.nodes.keys().map(Vec::len).sum::<usize>());
            assert!(tree.ambiguities.is_empty(), "{:?}", tree.ambiguities);
        }
    }

    #[test]
    fn links_are_followed_within_a_layer_only() {
        let link = |target: &str| Node::Symlink(target.as_bytes().to_vec());
        let upper =
            layer(&[("lib", link("usr/lib")), ("lib/x", file("x")), ("out", link("../../..")), ("out/y", file("y"))]);
        assert_eq!(paths(&upper), ["lib", "out", "usr/lib/x", "y"]);
        let tree = merged(vec![layer(&[("bin", link("usr/bin"))]), layer(&[("bin/x", file("x"))])]);
        assert_eq!(paths(&tree), ["bin/x"]);
        let mut looped = layer(&[("a", link("b")), ("b", link("a"))]);
        assert_eq!(looped.place(b"a/x", file("")), Err(TreeError::Loop));
    }

    #[test]
    fn names_are_cleaned_and_bounded() {
        let tree =
            layer(&[("/../../a", file("")), ("./b/../c", file("")), ("d//e/.", file("")), (".", DIR), ("..", DIR)]);
        assert_eq!(paths(&tree), ["a", "c", "d/e"]);
        let mut tree = Tree::default();
        assert_eq!(tree.place(&[b'x'; 256], DIR), Err(TreeError::NameTooLong));
        assert_eq!(tree.place(&b"x/".repeat(2100), DIR), Err(TreeError::NameTooLong));
        for name in [".wh.", "a/.wh..", "a/.wh..."] {
            assert_eq!(tree.place(name.as_bytes(), file("")), Err(TreeError::Whiteout), "{name}");
        }
    }

    #[test]
    fn what_unpackers_disagree_on_is_marked() {
        let lower = || layer(&[("f", file("f")), ("d/x", file("x"))]);
        for (upper, left) in [
            (vec![("f/.wh.x", file(""))], vec!["d/x", "f"]),
            (vec![("f/g/.wh.x", file("")), ("f-g", file(""))], vec!["d/x", "f", "f-g"]),
            (vec![(".wh.d", file("")), ("d", DIR)], vec!["d/x", "f"]),
            (vec![("n", file("n")), (".wh.n", file(""))], vec!["d/x", "f", "n"]),
            (vec![("n", file("n")), ("n/x", file("x"))], vec!["d/x", "f", "n/x"]),
            (vec![(".wh..wh..opq", file(""))], vec!["d/x", "f"]),
        ] {
            let tree = merged(vec![lower(), layer(&upper)]);
            assert_eq!(paths(&tree), left, "{upper:?}");
            assert!(!tree.ambiguities.is_empty(), "{upper:?}");
        }
        let mut noisy = Tree::default();
        for number in 0..100 {
            noisy.ambiguous("x", format!("{number}").repeat(5000).as_bytes());
        }
        assert!(noisy.ambiguities.len() <= MAX_AMBIGUITIES && noisy.ambiguities.iter().all(|text| text.len() < 300));
    }

    #[test]
    fn hard_links() {
        let lower = layer(&[("below", file("below"))]);
        let mut tree = layer(&[("a", file("1")), ("s", Node::Symlink(b"a".to_vec())), ("d", DIR)]);
        tree.link(b"b", b"./a", &lower).unwrap();
        tree.place(b"a", file("2")).unwrap();
        assert_eq!(tree.nodes.get(&b"b"[..]), Some(&file("1")));
        tree.link(b"t", b"s", &lower).unwrap();
        assert_eq!(tree.nodes.get(&b"t"[..]), Some(&Node::Symlink(b"a".to_vec())));
        assert!(tree.ambiguities.is_empty());
        tree.link(b"c", b"below", &lower).unwrap();
        assert_eq!(tree.nodes.get(&b"c"[..]), Some(&file("below")));
        assert_eq!(tree.ambiguities.len(), 1);
        for (name, target) in [("e", "none"), ("e", "d"), ("b", "b")] {
            tree.link(name.as_bytes(), target.as_bytes(), &lower).unwrap();
        }
        assert_eq!(tree.nodes.get(&b"e"[..]), None);
        assert_eq!(tree.nodes.get(&b"b"[..]), Some(&file("1")));
        assert_eq!(tree.ambiguities.len(), 4);
    }
}
