//! Where runtimes keep their state and listen: configured places first, then those that everybody knows. Host paths.

use std::path::PathBuf;

use super::{ContainerdEndpoint, ContainersConfig};

/// State directory and socket of each containerd.
const CONTAINERD: &[(&str, &str)] = &[
    ("/run/containerd", "/run/containerd/containerd.sock"),
    ("/run/k3s/containerd", "/run/k3s/containerd/containerd.sock"),
    ("/run/docker/containerd/daemon", "/run/docker/containerd/containerd.sock"),
    ("/var/run/docker/containerd/daemon", "/var/run/docker/containerd/containerd.sock"),
    ("/var/snap/microk8s/common/run/containerd", "/var/snap/microk8s/common/run/containerd.sock"),
];

/// Graph roots and run roots of containers/storage.
const STORAGES: &[&str] = &["/run/containers/storage", "/var/run/containers/storage", "/var/lib/containers/storage"];

/// State directories of OCI runtimes.
const OCI: &[&str] = &["/run/runc", "/run/crun"];

/// containerd's daemons.
pub(crate) fn containerd(config: &ContainersConfig) -> Vec<ContainerdEndpoint> {
    let known =
        CONTAINERD.iter().map(|(state, socket)| ContainerdEndpoint { socket: socket.into(), state: state.into() });
    config.containerd.iter().cloned().chain(known).collect()
}

/// Where podman and CRI-O keep containers.
pub(crate) fn storages(config: &ContainersConfig) -> Vec<PathBuf> {
    with(&config.storage_roots, STORAGES)
}

/// Where runc and crun keep containers.
pub(crate) fn oci(config: &ContainersConfig) -> Vec<PathBuf> {
    with(&config.runc_roots, OCI)
}

fn with(configured: &[PathBuf], known: &[&str]) -> Vec<PathBuf> {
    configured.iter().cloned().chain(known.iter().map(PathBuf::from)).collect()
}
