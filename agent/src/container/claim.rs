//! What the processes above a container say about it by their arguments: a containerd shim, conmon, or the
//! low-level runtime itself. Claims only: anybody can run a program with such arguments, so `locate` checks
//! each against the files it names.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use super::read;

/// Depth of the walk to a process's ancestors.
const MAX_ANCESTORS: usize = 16;
/// Bound on a command line that is read.
const MAX_CMDLINE: u64 = 64 << 10;

/// What one process says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Claim {
    /// `containerd-shim-runc-v2 -namespace NS -id ID -address SOCKET`, working directory = bundle.
    Shim { id: String, bundle: Option<PathBuf>, socket: Option<PathBuf> },
    /// `conmon -c ID -n NAME -b BUNDLE`, of podman and CRI-O.
    Conmon { id: String, name: Option<String>, bundle: PathBuf },
    /// `runc [--root ROOT] create|run [--bundle BUNDLE] ID`.
    Runc { id: String, root: Option<PathBuf>, bundle: PathBuf },
}

impl Claim {
    /// The container id it names.
    pub(crate) fn id(&self) -> &str {
        match self {
            Self::Shim { id, .. } | Self::Conmon { id, .. } | Self::Runc { id, .. } => id,
        }
    }

    /// The bundle it names.
    pub(crate) fn bundle(&self) -> Option<&Path> {
        match self {
            Self::Shim { bundle, .. } => bundle.as_deref(),
            Self::Conmon { bundle, .. } | Self::Runc { bundle, .. } => Some(bundle),
        }
    }

    /// The container's name.
    pub(crate) fn name(&self) -> Option<&str> {
        match self {
            Self::Conmon { name, .. } => name.as_deref(),
            Self::Shim { .. } | Self::Runc { .. } => None,
        }
    }
}

/// The claims of `pid` and the processes above it, nearest first. A process that is not root's, or whose
/// cgroup is `contained`, is passed over.
pub(crate) fn of_ancestors(proc: &Path, pid: u32, contained: &dyn Fn(&str) -> bool) -> Vec<Claim> {
    let mut claims = Vec::new();
    let mut next = Some(pid);
    for _ in 0..MAX_ANCESTORS {
        let Some(pid) = next.filter(|&p| p > 1) else { break };
        let dir = proc.join(pid.to_string());
        if let Some(claim) = of_process(&dir)
            && !cgroup_of(&dir).is_some_and(|path| contained(&path))
        {
            claims.push(claim);
        }
        next = parent_of(&dir);
    }
    claims
}

/// The claims of all running shims and monitors.
pub(crate) fn of_all(proc: &Path) -> Vec<Claim> {
    let Ok(entries) = fs::read_dir(proc) else { return Vec::new() };
    entries
        .flatten()
        .filter(|e| e.file_name().as_bytes().first().is_some_and(u8::is_ascii_digit))
        .filter(|e| {
            let comm = read::bounded(&e.path().join("comm"), 64).unwrap_or_default();
            comm.starts_with(b"containerd-shim") || comm.starts_with(b"conmon")
        })
        .filter_map(|e| of_process(&e.path()))
        .collect()
}

fn of_process(dir: &Path) -> Option<Claim> {
    if fs::metadata(dir).ok()?.uid() != 0 {
        return None;
    }
    let cmdline = read::bounded(&dir.join("cmdline"), MAX_CMDLINE).ok()?;
    parse(&cmdline, || fs::read_link(dir.join("cwd")).ok())
}

fn parse(cmdline: &[u8], cwd: impl FnOnce() -> Option<PathBuf>) -> Option<Claim> {
    let args: Vec<&[u8]> = cmdline.strip_suffix(b"\0").unwrap_or(cmdline).split(|&b| b == 0).collect();
    let program = args.first()?.rsplit(|&b| b == b'/').next()?;
    if program.starts_with(b"containerd-shim") {
        let socket = option(&args[1..], &["address"]).map(path);
        return Some(Claim::Shim { id: text(option(&args[1..], &["id"])?)?, bundle: cwd(), socket });
    }
    match program {
        b"conmon" | b"conmon-rs" => Some(Claim::Conmon {
            id: text(option(&args[1..], &["c", "cid"])?)?,
            name: option(&args[1..], &["n", "name"]).and_then(text),
            bundle: path(option(&args[1..], &["b", "bundle"])?),
        }),
        b"runc" | b"crun" | b"youki" | b"crio-runc" | b"docker-runc" => {
            let verb = args.iter().position(|a| matches!(*a, b"create" | b"run" | b"restore"))?;
            let id = text(args[verb + 1..].last().filter(|a| !a.starts_with(b"-"))?)?;
            let cwd = cwd();
            let bundle = match (option(&args[verb..], &["b", "bundle"]).map(path), cwd) {
                (Some(bundle), Some(cwd)) => cwd.join(bundle),
                (Some(bundle), None) => bundle,
                (None, cwd) => cwd?,
            };
            Some(Claim::Runc { id, root: option(&args[..verb], &["root"]).map(path), bundle })
        }
        _ => None,
    }
}

/// The value of the first option of one of `names`, with one hyphen or two, apart or after `=`.
fn option<'a>(args: &[&'a [u8]], names: &[&str]) -> Option<&'a [u8]> {
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let Some(name) = arg.strip_prefix(b"-") else { continue };
        let name = name.strip_prefix(b"-").unwrap_or(name);
        let (name, value) = match name.iter().position(|&b| b == b'=') {
            Some(at) => (&name[..at], Some(&name[at + 1..])),
            None => (name, None),
        };
        if names.iter().any(|n| n.as_bytes() == name) {
            return value.or_else(|| args.next().copied());
        }
    }
    None
}

/// Ids and names of containers: short, printable, no path of their own.
fn text(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    (!text.is_empty() && text.len() <= 256 && !text.contains('/') && text != "..").then(|| text.to_owned())
}

fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

fn cgroup_of(dir: &Path) -> Option<String> {
    let text = read::bounded(&dir.join("cgroup"), 64 << 10).ok()?;
    let text = String::from_utf8_lossy(&text);
    text.lines().find_map(|l| l.strip_prefix("0::")).map(ToOwned::to_owned)
}

fn parent_of(dir: &Path) -> Option<u32> {
    let stat = read::bounded(&dir.join("stat"), 4096).ok()?;
    // The command name may hold anything: fields start after its last parenthesis.
    let end = stat.iter().rposition(|&b| b == b')')?;
    std::str::from_utf8(&stat[end + 1..]).ok()?.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(args: &[&str]) -> Option<Claim> {
        let cmdline: Vec<u8> = args.iter().flat_map(|a| a.bytes().chain([0])).collect();
        parse(&cmdline, || Some("/cwd".into()))
    }

    #[test]
    fn arguments_of_every_monitor() {
        assert_eq!(
            claim(&["/usr/bin/containerd-shim-runc-v2", "-namespace", "k8s.io", "-id", "abc", "-address", "/c.sock"]),
            Some(Claim::Shim { id: "abc".into(), bundle: Some("/cwd".into()), socket: Some("/c.sock".into()) })
        );
        assert_eq!(
            claim(&[
                "/usr/bin/conmon",
                "--api-version",
                "1",
                "-c",
                "abc",
                "-u",
                "abc",
                "-r",
                "/usr/sbin/runc",
                "-b",
                "/g/overlay-containers/abc/userdata",
                "-p",
                "/p",
                "-n",
                "web"
            ]),
            Some(Claim::Conmon {
                id: "abc".into(),
                name: Some("web".into()),
                bundle: "/g/overlay-containers/abc/userdata".into()
            })
        );
        assert_eq!(
            claim(&["runc", "--root", "/r", "--log", "/l", "create", "--bundle", "/b", "--pid-file", "/p", "abc"]),
            Some(Claim::Runc { id: "abc".into(), root: Some("/r".into()), bundle: "/b".into() })
        );
        assert_eq!(
            claim(&["/usr/sbin/runc", "--root=/r", "run", "-b", "rel", "abc"]),
            Some(Claim::Runc { id: "abc".into(), root: Some("/r".into()), bundle: "/cwd/rel".into() })
        );
        assert_eq!(
            claim(&["runc", "run", "abc"]),
            Some(Claim::Runc { id: "abc".into(), root: None, bundle: "/cwd".into() })
        );
    }

    proptest::proptest! {
        #[test]
        fn any_arguments_are_some_answer(args in proptest::collection::vec("(runc|conmon|create|-b|--root=?|-c|-n|[a-z./]{0,4}|\\PC)", 0..8), raw: Vec<u8>) {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            if let Some(claim) = claim(&args) {
                // An id becomes part of a path below a runtime's directory.
                proptest::prop_assert!(!claim.id().contains('/') && claim.id() != "..");
            }
            let _ = parse(&raw, || None);
        }
    }

    #[test]
    fn other_or_broken_arguments_claim_nothing() {
        for args in [
            &["runc", "init"][..],
            &["runc", "create"],
            &["runc", "create", "../x"],
            &["conmon", "-c", "abc"],
            &["containerd-shim-runc-v2", "-id"],
            &["sh", "-c", "runc create abc"],
            &[""],
            &[],
        ] {
            assert_eq!(claim(args), None, "{args:?}");
        }
    }
}
