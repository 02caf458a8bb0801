//! `container.*`, `image.*` and `k8s.*`: where it happened.

use purser_rules::{Arg, Fact, FieldId, FieldRef};

use super::{NOT_APPLICABLE, NOT_COLLECTED, Sight, UNKNOWN, boolean, text_or_missing, unsigned};
use crate::container::{Container, Pod, Reference, short_id};

impl Sight<'_> {
    pub(super) fn container_fact(&self, field: FieldRef<'_>) -> Option<Fact<'_>> {
        if !is_container_field(field.id) {
            return None;
        }
        Some(match self.container {
            Some(container) => self.of_container(field, container),
            None => on_host(field.id),
        })
    }

    fn of_container<'s>(&'s self, field: FieldRef<'_>, container: &'s Container) -> Fact<'s> {
        let image = container.image.as_ref();
        let reference = image.map(|image| Reference::split(&image.reference));
        match field.id {
            FieldId::CONTAINER_ID => Fact::text(short_id(&container.id).as_bytes()),
            FieldId::CONTAINER_FULL_ID => Fact::text(container.id.as_bytes()),
            FieldId::CONTAINER_NAME => Fact::text(container.name.as_bytes()),
            FieldId::CONTAINER_TYPE => Fact::text(container.runtime.name().as_bytes()),
            FieldId::CONTAINER_PRIVILEGED => boolean(container.privileged),
            FieldId::CONTAINER_IDENTITY => Fact::text(if container.image_pending { b"pending" } else { b"known" }),
            FieldId::CONTAINER_IMAGE => text_or_missing(image.map(|image| image.reference.as_str())),
            FieldId::CONTAINER_IMAGE_REPOSITORY => part(reference.map(|reference| reference.repository)),
            FieldId::CONTAINER_IMAGE_TAG => part(reference.map(|reference| reference.tag)),
            FieldId::CONTAINER_IMAGE_DIGEST => text_or_missing(
                image.and_then(|image| image.index_digest.as_deref().or(image.manifest_digest.as_deref())),
            ),
            FieldId::CONTAINER_IMAGE_ID => text_or_missing(
                image
                    .and_then(|image| image.config_digest.as_deref())
                    .map(|id| id.strip_prefix("sha256:").unwrap_or(id)),
            ),
            FieldId::IMAGE_MANIFEST_DIGEST => text_or_missing(image.and_then(|image| image.manifest_digest.as_deref())),
            FieldId::IMAGE_INDEX_DIGEST => text_or_missing(image.and_then(|image| image.index_digest.as_deref())),
            FieldId::IMAGE_CONFIG_DIGEST => text_or_missing(image.and_then(|image| image.config_digest.as_deref())),
            FieldId::IMAGE_CHAIN_ID => text_or_missing(image.and_then(|image| image.chain_id.as_deref())),
            FieldId::CONTAINER_LABEL => match field.arg {
                Arg::Key(key) => label(&container.labels, key),
                _ => UNKNOWN,
            },
            FieldId::CONTAINER_LABELS => self.keep_text(all_labels(&container.labels).as_bytes()),
            FieldId::CONTAINER_START_TS if container.created_ns > 0 => unsigned(container.created_ns as u64),
            FieldId::CONTAINER_DURATION if container.created_ns > 0 => {
                unsigned(self.epoch_ns().saturating_sub(container.created_ns as u64))
            }
            FieldId::CONTAINER_HOST_PID => container.shares.map_or(UNKNOWN, |shares| boolean(shares.pid)),
            FieldId::CONTAINER_HOST_NETWORK => {
                container.shares.and_then(|shares| shares.network).map_or(UNKNOWN, boolean)
            }
            FieldId::CONTAINER_HOST_IPC => container.shares.map_or(UNKNOWN, |shares| boolean(shares.ipc)),
            FieldId::CONTAINER_MOUNTS => {
                let mounts: Vec<String> = container.mounts.iter().map(mount_text).collect();
                self.keep_text(mounts.join(",").as_bytes())
            }
            FieldId::CONTAINER_MOUNT => self.mount(field, container, mount_text),
            FieldId::CONTAINER_MOUNT_SOURCE => self.mount(field, container, |m| m.source.clone()),
            FieldId::CONTAINER_MOUNT_DEST => self.mount(field, container, |m| m.destination.clone()),
            FieldId::CONTAINER_MOUNT_MODE => self.mount(field, container, |m| m.options.join(",")),
            FieldId::CONTAINER_MOUNT_RDWR => self.mount(field, container, |m| (!read_only(m)).to_string()),
            FieldId::CONTAINER_MOUNT_PROPAGATION => self.mount(field, container, propagation),
            FieldId::K8S_POD_NAME => of_pod(container, |pod| &pod.name, b"io.kubernetes.pod.name"),
            FieldId::K8S_NS_NAME => of_pod(container, |pod| &pod.namespace, b"io.kubernetes.pod.namespace"),
            FieldId::K8S_POD_UID | FieldId::K8S_POD_ID => of_pod(container, |pod| &pod.uid, b"io.kubernetes.pod.uid"),
            FieldId::K8S_POD_SANDBOX_ID => sandbox(container, short_id),
            FieldId::K8S_POD_FULL_SANDBOX_ID => sandbox(container, |id| id),
            FieldId::K8S_POD_LABEL => match (field.arg, &container.pod) {
                (Arg::Key(key), Some(pod)) => label(&pod.labels, key),
                _ => UNKNOWN,
            },
            FieldId::K8S_POD_LABELS => match &container.pod {
                Some(pod) => self.keep_text(all_labels(&pod.labels).as_bytes()),
                None => UNKNOWN,
            },
            _ => NOT_COLLECTED,
        }
    }

    /// One mount: by position, or the first whose source (for `.source`: destination) the expression is found in.
    fn mount(
        &self,
        field: FieldRef<'_>,
        container: &Container,
        text: impl Fn(&crate::container::Mount) -> String,
    ) -> Fact<'_> {
        let found = match field.arg {
            Arg::Index(index) => usize::try_from(index).ok().and_then(|index| container.mounts.get(index)),
            Arg::Key(pattern) => {
                let Some(pattern) = str::from_utf8(pattern).ok().and_then(|p| regex::Regex::new(p).ok()) else {
                    return NOT_APPLICABLE;
                };
                container.mounts.iter().find(|mount| {
                    pattern.is_match(if field.id == FieldId::CONTAINER_MOUNT_SOURCE {
                        &mount.destination
                    } else {
                        &mount.source
                    })
                })
            }
            Arg::None => None,
        };
        found.map_or(UNKNOWN, |mount| self.keep_text(text(mount).as_bytes()))
    }
}

/// What the bundle says of the pod; else the label that the kubelet gives to containers of runtimes without such bundles.
fn of_pod<'a>(container: &'a Container, part: fn(&Pod) -> &String, key: &[u8]) -> Fact<'a> {
    match container.pod.as_ref().map(part).filter(|text| !text.is_empty()) {
        Some(text) => Fact::text(text.as_bytes()),
        None => label(&container.labels, key),
    }
}

/// The sandbox of the container's pod: the container itself, where it is the sandbox.
fn sandbox(container: &Container, form: fn(&str) -> &str) -> Fact<'_> {
    let id = container.pod.as_ref().map(|pod| if container.sandbox { &container.id } else { &pod.sandbox_id });
    text_or_missing(id.filter(|id| !id.is_empty()).map(|id| form(id)))
}

/// A part of a reference; an absent one is empty.
fn part(text: Option<&str>) -> Fact<'_> {
    text_or_missing(text.filter(|text| !text.is_empty()))
}

/// What upstream's container plugin says of processes outside containers.
fn on_host(field: FieldId) -> Fact<'static> {
    match field {
        FieldId::CONTAINER_ID | FieldId::CONTAINER_FULL_ID | FieldId::CONTAINER_NAME | FieldId::CONTAINER_TYPE => {
            Fact::text(b"host")
        }
        FieldId::CONTAINER_IDENTITY => Fact::text(b"known"),
        FieldId::CONTAINER_IMAGE
        | FieldId::CONTAINER_IMAGE_ID
        | FieldId::CONTAINER_IMAGE_REPOSITORY
        | FieldId::CONTAINER_IMAGE_TAG
        | FieldId::CONTAINER_IMAGE_DIGEST
        | FieldId::CONTAINER_MOUNTS => Fact::text(b""),
        FieldId::CONTAINER_PRIVILEGED => boolean(false),
        _ => NOT_APPLICABLE,
    }
}

fn label<'a>(labels: &'a [(String, String)], key: &[u8]) -> Fact<'a> {
    text_or_missing(labels.iter().find(|(name, _)| name.as_bytes() == key).map(|(_, value)| value.as_str()))
}

fn all_labels(labels: &[(String, String)]) -> String {
    let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}:{value}")).collect();
    labels.join(", ")
}

pub(super) fn is_container_field(id: FieldId) -> bool {
    (FieldId::CONTAINER_ID.index()..=FieldId::K8S_DEPLOYMENT_LABELS.index()).contains(&id.index())
        || (FieldId::IMAGE_MANIFEST_DIGEST.index()..=FieldId::IMAGE_CHAIN_ID.index()).contains(&id.index())
        || id == FieldId::CONTAINER_IDENTITY
}

fn mount_text(mount: &crate::container::Mount) -> String {
    format!(
        "{}:{}:{}:{}:{}",
        mount.source,
        mount.destination,
        mount.options.join(","),
        !read_only(mount),
        propagation(mount)
    )
}

fn read_only(mount: &crate::container::Mount) -> bool {
    mount.options.iter().any(|option| option == "ro")
}

fn propagation(mount: &crate::container::Mount) -> String {
    const KINDS: [&str; 6] = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];
    mount.options.iter().find(|option| KINDS.contains(&option.as_str())).cloned().unwrap_or_default()
}
