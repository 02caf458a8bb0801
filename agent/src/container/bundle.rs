//! Reads the OCI bundle's `config.json`: the first source about a container, there before its first exec.
//! A pod's author chose most of the text in it, so every part is bounded and no part is required.
//!
//! Specification: <https://github.com/opencontainers/runtime-spec/blob/v1.2.0/config.md>.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::{Error, Mount, Pod, read};

/// Largest `config.json` that is read. Kubernetes bounds annotations at 256 KiB and arguments with
/// environment at about 2 MiB (`ARG_MAX`).
const MAX_CONFIG: u64 = 4 << 20;
/// Bounds of what is kept per container.
const MAX_NAME: usize = 256;
const MAX_TEXT: usize = 1024;
const MAX_ARGS: usize = 64;
const MAX_ARGS_BYTES: usize = 4096;
const MAX_MOUNTS: usize = 128;
const MAX_LABELS: usize = 64;

/// What a bundle says of its container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Bundle {
    /// `linux.cgroupsPath`.
    pub(crate) cgroups_path: Option<String>,
    /// `root.path`, as written (relative to the bundle directory, or absolute).
    pub(crate) root: PathBuf,
    /// `process.args`.
    pub(crate) args: Vec<String>,
    /// `mounts`.
    pub(crate) mounts: Vec<Mount>,
    /// All capabilities, no seccomp profile, nothing masked.
    pub(crate) privileged: bool,
    /// The engine's name of the container, where its annotations say one.
    pub(crate) name: Option<String>,
    /// The image as the pod asks for it; a tag in most cases, so a name and not an identity.
    pub(crate) image: Option<String>,
    /// The pod.
    pub(crate) pod: Option<Pod>,
    /// A pod's pause container.
    pub(crate) sandbox: bool,
    /// `io.container.manager`: `libpod` or `cri-o`.
    pub(crate) engine: Option<String>,
    /// Something was cut to keep the bounds.
    pub(crate) truncated: bool,
}

impl Bundle {
    /// Reads `DIR/config.json`, which must belong to root.
    pub(crate) fn open(dir: &Path) -> Result<Self, Error> {
        let path = dir.join("config.json");
        let bytes = read::bounded_of_root(&path, MAX_CONFIG)?;
        Self::parse(&bytes).map_err(|source| Error::Json { path, source })
    }

    /// Parses the text of a `config.json`.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        Ok(Self::from(serde_json::from_slice::<Spec>(bytes)?))
    }
}

/// The cgroup path that a `cgroupsPath` names, from the hierarchy's root; `None` where it depends on the
/// runtime's own cgroup (absent or relative).
///
/// `slice:prefix:name` is the systemd driver's form (runc `libcontainer/cgroups/systemd/common.go`,
/// `ExpandSlice` and `getUnitName`).
pub(crate) fn cgroup_of(cgroups_path: &str) -> Option<String> {
    let mut parts = cgroups_path.splitn(3, ':');
    if let (Some(slice), Some(prefix), Some(name)) = (parts.next(), parts.next(), parts.next())
        && !slice.contains('/')
    {
        let slice = if slice.is_empty() { "system.slice" } else { slice };
        let unit = match (name.strip_suffix(".slice"), prefix) {
            (Some(_), _) => name.to_owned(),
            (None, "") => format!("{name}.scope"),
            (None, prefix) => format!("{prefix}-{name}.scope"),
        };
        return Some(format!("{}/{unit}", expand_slice(slice)?));
    }
    let trimmed = cgroups_path.trim_end_matches('/');
    (trimmed.starts_with('/') && !trimmed.contains("//")).then(|| trimmed.to_owned())
}

/// `a-b-c.slice` lies in `/a.slice/a-b.slice/a-b-c.slice` (systemd.slice(5)); `-.slice` is the root.
fn expand_slice(slice: &str) -> Option<String> {
    let stem = slice.strip_suffix(".slice")?;
    if stem == "-" {
        return Some(String::new());
    }
    let mut path = String::new();
    for (at, _) in stem.match_indices('-').chain([(stem.len(), "")]) {
        path.push('/');
        path.push_str(&stem[..at]);
        path.push_str(".slice");
    }
    Some(path)
}

#[derive(Deserialize)]
struct Spec {
    #[serde(default, deserialize_with = "lenient")]
    process: Process,
    #[serde(default, deserialize_with = "lenient")]
    root: Root,
    #[serde(default, deserialize_with = "lenient")]
    mounts: Vec<SpecMount>,
    #[serde(default, deserialize_with = "lenient")]
    annotations: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "lenient")]
    linux: Linux,
}

#[derive(Deserialize, Default)]
struct Process {
    #[serde(default, deserialize_with = "lenient")]
    args: Vec<String>,
    #[serde(default, deserialize_with = "lenient")]
    capabilities: Capabilities,
}

#[derive(Deserialize, Default)]
struct Capabilities {
    #[serde(default, deserialize_with = "lenient")]
    effective: Vec<String>,
    #[serde(default, deserialize_with = "lenient")]
    bounding: Vec<String>,
}

#[derive(Deserialize, Default)]
struct Root {
    #[serde(default, deserialize_with = "lenient")]
    path: PathBuf,
}

#[derive(Deserialize)]
struct SpecMount {
    #[serde(default, deserialize_with = "lenient")]
    source: String,
    #[serde(default, deserialize_with = "lenient")]
    destination: String,
    #[serde(default, deserialize_with = "lenient")]
    options: Vec<String>,
    #[serde(default, rename = "type", deserialize_with = "lenient")]
    kind: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Linux {
    #[serde(default, deserialize_with = "lenient")]
    cgroups_path: String,
    /// Only whether there is one.
    #[serde(default)]
    seccomp: Option<serde::de::IgnoredAny>,
    #[serde(default, deserialize_with = "lenient")]
    masked_paths: Vec<String>,
}

/// A field of another type than the specification's counts as absent: one odd field must not hide the
/// container that the others name.
fn lenient<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: for<'a> Deserialize<'a> + Default,
{
    let value = Value::deserialize(deserializer)?;
    Ok(T::deserialize(value).unwrap_or_default())
}

impl From<Spec> for Bundle {
    fn from(spec: Spec) -> Self {
        let mut cut = Cut::default();
        let note = &spec.annotations;
        let text = |keys: &[&str]| keys.iter().find_map(|k| note.get(*k)).filter(|v| !v.is_empty());
        let name = text(&[
            "io.kubernetes.cri.container-name",
            "io.kubernetes.cri-o.ContainerName",
            "io.kubernetes.container.name",
            "nerdctl/name",
        ]);
        let image = text(&["io.kubernetes.cri.image-name", "io.kubernetes.cri-o.ImageName"]);
        let kind = text(&["io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType"]);
        let engine = text(&["io.container.manager"]);
        let privileged = note.get("io.podman.annotations.privileged").is_some_and(|v| v == "TRUE")
            || is_privileged(&spec.process.capabilities, &spec.linux);
        Self {
            cgroups_path: Some(spec.linux.cgroups_path).filter(|p| !p.is_empty() && p.len() <= 4096),
            root: spec.root.path,
            privileged,
            name: name.map(|n| cut.text(n, MAX_NAME)),
            image: image.map(|n| cut.text(n, MAX_TEXT)),
            pod: pod(note, &mut cut),
            sandbox: kind.is_some_and(|k| k == "sandbox"),
            engine: engine.map(|n| cut.text(n, MAX_NAME)),
            args: cut.args(&spec.process.args),
            mounts: cut.mounts(spec.mounts),
            truncated: cut.happened,
        }
    }
}

/// Privileged as the engines mean it: every capability, no seccomp profile, no masked path. The set of
/// capabilities grows with the kernel, so it is those that no unprivileged default ever holds.
fn is_privileged(capabilities: &Capabilities, linux: &Linux) -> bool {
    const NEVER_DEFAULT: [&str; 6] =
        ["CAP_SYS_ADMIN", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_PTRACE", "CAP_SYS_BOOT", "CAP_MAC_ADMIN"];
    let holds = |set: &[String]| NEVER_DEFAULT.iter().all(|cap| set.iter().any(|c| c == cap));
    linux.seccomp.is_none()
        && linux.masked_paths.is_empty()
        && (holds(&capabilities.effective) || holds(&capabilities.bounding))
}

fn pod(note: &BTreeMap<String, String>, cut: &mut Cut) -> Option<Pod> {
    // CRI-O keeps the labels that the kubelet sent as one JSON object.
    let labels: BTreeMap<String, String> =
        note.get("io.kubernetes.cri-o.Labels").and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let mut value = |keys: &[&str], label: &str| {
        let text = keys.iter().find_map(|k| note.get(*k)).or_else(|| labels.get(label))?;
        (!text.is_empty()).then(|| cut.text(text, MAX_NAME))
    };
    let name = value(&["io.kubernetes.cri.sandbox-name", "io.kubernetes.cri-o.KubeName"], "io.kubernetes.pod.name")?;
    let namespace =
        value(&["io.kubernetes.cri.sandbox-namespace", "io.kubernetes.cri-o.Namespace"], "io.kubernetes.pod.namespace");
    let uid = value(&["io.kubernetes.cri.sandbox-uid"], "io.kubernetes.pod.uid");
    let sandbox_id = value(&["io.kubernetes.cri.sandbox-id", "io.kubernetes.cri-o.SandboxID"], "");
    Some(Pod {
        name,
        namespace: namespace.unwrap_or_default(),
        uid: uid.unwrap_or_default(),
        sandbox_id: sandbox_id.unwrap_or_default(),
        labels: cut.pairs(labels),
    })
}

/// Cuts texts and lists to their bounds and remembers that it did.
#[derive(Default)]
pub(crate) struct Cut {
    /// Something was cut.
    pub(crate) happened: bool,
}

impl Cut {
    /// `text` within `limit` bytes.
    pub(crate) fn text(&mut self, text: &str, limit: usize) -> String {
        let short = read::cut(text, limit);
        self.happened |= short.len() != text.len();
        short.to_owned()
    }

    /// Key-value pairs within the bounds of labels, in order.
    pub(crate) fn pairs(&mut self, pairs: impl IntoIterator<Item = (String, String)>) -> Vec<(String, String)> {
        let mut pairs: Vec<_> = pairs.into_iter().collect();
        pairs.sort_unstable();
        self.happened |= pairs.len() > MAX_LABELS;
        pairs.truncate(MAX_LABELS);
        pairs.into_iter().map(|(k, v)| (self.text(&k, MAX_NAME), self.text(&v, MAX_NAME))).collect()
    }

    fn args(&mut self, args: &[String]) -> Vec<String> {
        let mut left = MAX_ARGS_BYTES;
        let mut kept = Vec::new();
        for arg in args {
            if kept.len() == MAX_ARGS || left == 0 {
                self.happened = true;
                break;
            }
            let arg = self.text(arg, left);
            left -= arg.len();
            kept.push(arg);
        }
        kept
    }

    fn mounts(&mut self, mounts: Vec<SpecMount>) -> Vec<Mount> {
        self.happened |= mounts.len() > MAX_MOUNTS;
        mounts
            .into_iter()
            .take(MAX_MOUNTS)
            .map(|m| Mount {
                source: self.text(&m.source, MAX_TEXT),
                destination: self.text(&m.destination, MAX_TEXT),
                options: m.options.iter().take(32).map(|o| self.text(o, MAX_NAME)).collect(),
                kind: self.text(&m.kind, MAX_NAME),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(value: &Value) -> Bundle {
        Bundle::parse(value.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_pod_container_of_containerd() {
        let bundle = parse(&json!({
            "process": {"args": ["/app", "-x"], "capabilities": {"effective": ["CAP_CHOWN"]}},
            "root": {"path": "rootfs"},
            "mounts": [{"destination": "/data", "type": "bind", "source": "/v", "options": ["rbind", "ro"]}],
            "annotations": {
                "io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.container-name": "web",
                "io.kubernetes.cri.sandbox-name": "web-0", "io.kubernetes.cri.sandbox-namespace": "shop",
                "io.kubernetes.cri.sandbox-uid": "u", "io.kubernetes.cri.image-name": "reg/web:1"},
            "linux": {"cgroupsPath": "/kubepods/podu/abc", "seccomp": {}}
        }));
        assert_eq!(bundle.args, ["/app", "-x"]);
        assert_eq!(bundle.root, Path::new("rootfs"));
        assert_eq!(bundle.mounts[0].options, ["rbind", "ro"]);
        assert_eq!(bundle.name.as_deref(), Some("web"));
        assert_eq!(bundle.image.as_deref(), Some("reg/web:1"));
        let pod = bundle.pod.unwrap();
        assert_eq!((&*pod.name, &*pod.namespace, &*pod.uid), ("web-0", "shop", "u"));
        assert!(!bundle.sandbox && !bundle.privileged && !bundle.truncated);
    }

    #[test]
    fn a_sandbox_of_cri_o_with_labels() {
        let labels = json!({"io.kubernetes.pod.uid": "u", "app": "web"}).to_string();
        let bundle = parse(&json!({"annotations": {
            "io.kubernetes.cri-o.ContainerType": "sandbox", "io.kubernetes.cri-o.KubeName": "web-0",
            "io.kubernetes.cri-o.Namespace": "shop", "io.kubernetes.cri-o.Labels": labels,
            "io.container.manager": "cri-o"}}));
        assert!(bundle.sandbox);
        assert_eq!(bundle.engine.as_deref(), Some("cri-o"));
        let pod = bundle.pod.unwrap();
        assert_eq!((&*pod.name, &*pod.namespace, &*pod.uid), ("web-0", "shop", "u"));
        assert_eq!(pod.labels[0], ("app".to_owned(), "web".to_owned()));
    }

    #[test]
    fn privileged_needs_capabilities_and_no_confinement() {
        let caps = json!([
            "CAP_SYS_ADMIN",
            "CAP_SYS_MODULE",
            "CAP_SYS_RAWIO",
            "CAP_SYS_PTRACE",
            "CAP_SYS_BOOT",
            "CAP_MAC_ADMIN",
            "CAP_CHOWN"
        ]);
        let spec = |linux: Value| json!({"process": {"capabilities": {"effective": caps}}, "linux": linux});
        assert!(parse(&spec(json!({}))).privileged);
        assert!(!parse(&spec(json!({"seccomp": {"defaultAction": "SCMP_ACT_ERRNO"}}))).privileged);
        assert!(!parse(&spec(json!({"maskedPaths": ["/proc/kcore"]}))).privileged);
        assert!(!parse(&json!({})).privileged);
    }

    #[test]
    fn odd_types_cost_only_their_own_field() {
        let bundle = parse(&json!({
            "process": {"args": "not a list"}, "root": 5, "mounts": {"a": 1}, "annotations": ["x"],
            "linux": {"cgroupsPath": "/a/b", "seccomp": 3, "maskedPaths": null}
        }));
        assert_eq!(bundle.cgroups_path.as_deref(), Some("/a/b"));
        assert!(bundle.args.is_empty() && bundle.mounts.is_empty());
        for bad in ["", "{", "null", "{\"process\":", "\u{0}\u{1}"] {
            assert!(Bundle::parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
        // Deep nesting is refused by the parser, not answered with a stack overflow.
        assert!(Bundle::parse("{\"linux\":[".repeat(100_000).as_bytes()).is_err());
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let long = "ä".repeat(5000);
        let bundle = parse(&json!({
            "process": {"args": vec![long.clone(); 100]},
            "mounts": vec![json!({"source": long, "destination": long, "options": vec!["ro"; 100]}); 500],
            "annotations": {"io.kubernetes.cri.sandbox-name": long, "io.kubernetes.cri.container-name": long}
        }));
        assert!(bundle.truncated);
        assert!(bundle.args.iter().map(String::len).sum::<usize>() <= MAX_ARGS_BYTES);
        assert_eq!(bundle.mounts.len(), MAX_MOUNTS);
        assert!(bundle.mounts.iter().all(|m| m.source.len() <= MAX_TEXT && m.options.len() <= 32));
        assert!(bundle.name.unwrap().len() <= MAX_NAME && bundle.pod.unwrap().name.len() <= MAX_NAME);
    }

    #[test]
    fn cgroup_paths_of_both_drivers() {
        let table = [
            ("/default/web", Some("/default/web")),
            ("/kubepods/besteffort/podu/abc/", Some("/kubepods/besteffort/podu/abc")),
            ("relative", None),
            ("", None),
            ("system.slice:docker:abc", Some("/system.slice/docker-abc.scope")),
            (":cri-containerd:abc", Some("/system.slice/cri-containerd-abc.scope")),
            (
                "kubepods-besteffort-podu.slice:cri-containerd:abc",
                Some(
                    "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podu.slice/cri-containerd-abc.scope",
                ),
            ),
            ("-.slice:crio:abc", Some("/crio-abc.scope")),
            ("notaslice:crio:abc", None),
            ("/weird:with:colons", Some("/weird:with:colons")),
        ];
        for (given, expected) in table {
            assert_eq!(cgroup_of(given).as_deref(), expected, "{given}");
        }
    }
}
