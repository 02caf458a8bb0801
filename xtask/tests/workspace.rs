//! The workspace's own invariants: which crate may know which.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// For each member, its edges to other members: the name, with `(dev)` where only its tests have it.
fn edges() -> BTreeMap<String, BTreeSet<String>> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("Cargo.toml");
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline", "--manifest-path"])
        .arg(manifest)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| {
            let inside = package["dependencies"].as_array().unwrap().iter().filter(|edge| edge["path"].is_string());
            let named = inside.map(|edge| match edge["kind"].as_str() {
                None => text(&edge["name"]),
                Some(kind) => format!("{} ({kind})", text(&edge["name"])),
            });
            (text(&package["name"]), named.collect())
        })
        .collect()
}

#[test]
fn dependencies_point_one_way() {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("agent-common", &[][..]),
        ("agent-ebpf", &["agent-common"][..]),
        ("purser-rules", &[][..]),
        ("agent", &["agent-common", "purser-rules", "xtask (dev)"][..]),
        ("xtask", &[][..]),
    ]);
    let found = edges();
    assert_eq!(found.keys().map(String::as_str).collect::<Vec<_>>(), allowed.keys().copied().collect::<Vec<_>>());
    for (package, edges) in &found {
        for edge in edges {
            assert!(allowed[package.as_str()].contains(&edge.as_str()), "{package} must not depend on {edge}");
        }
    }
    assert!(found["agent"].contains("purser-rules") && found["agent-ebpf"].contains("agent-common"));
}

#[test]
fn the_code_map_names_every_folder() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = std::fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    let map = text.split("## Code map").nth(1).unwrap().split("\n## ").next().unwrap();
    let mut folders = 0;
    for place in ["agent/src", "agent-ebpf/src", "rules/src", "xtask/src"] {
        assert!(map.contains(place), "{place}");
        for entry in std::fs::read_dir(root.join(place)).unwrap() {
            let path = entry.unwrap().path();
            // A folder with nothing but a module's tests is part of that module.
            let has_code = |dir: &Path| dir.read_dir().unwrap().any(|file| file.unwrap().file_name() != "tests.rs");
            if path.is_dir() && has_code(&path) {
                folders += 1;
                let name = path.file_name().unwrap().to_str().unwrap();
                let named = [format!("`{name}`"), format!("`{name}/`"), format!("`{place}/{name}/`")];
                assert!(named.iter().any(|name| map.contains(name)), "{place}/{name} is missing from the code map");
            }
        }
    }
    assert!(folders >= 15, "{folders}");
}
