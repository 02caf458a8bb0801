//! Splits an image reference the way Falco's `container.image.*` fields show it. Nothing is
//! completed: `busybox` stays `busybox`, without a registry and without a tag.

/// The parts of an image reference, borrowed from it. An absent part is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reference<'a> {
    /// Registry and path: `docker.io/library/nginx`.
    pub repository: &'a str,
    /// Tag: `1.27`.
    pub tag: &'a str,
    /// `sha256:...`.
    pub digest: &'a str,
}

impl<'a> Reference<'a> {
    /// Splits `text`. Any text gives some answer: a reference is whatever the runtime's client typed.
    pub fn split(text: &'a str) -> Self {
        // A bare image id, as the kubelet passes it to the runtime: no repository in it.
        if let Some(hex) = text.strip_prefix("sha256:")
            && is_hex(hex, 64)
        {
            return Self { digest: text, ..Self::default() };
        }
        let (name, digest) = text.split_once('@').unwrap_or((text, ""));
        // A colon before the last slash belongs to the registry's port.
        let last = name.rfind('/').map_or(0, |slash| slash + 1);
        match name[last..].find(':') {
            Some(colon) => Self { repository: &name[..last + colon], tag: &name[last + colon + 1..], digest },
            None => Self { repository: name, tag: "", digest },
        }
    }
}

/// Falco's `container.id`: the first 12 characters of the full id.
pub fn short_id(id: &str) -> &str {
    id.char_indices().nth(12).map_or(id, |(end, _)| &id[..end])
}

/// `text` is `len` lower-case hexadecimal digits.
pub(crate) fn is_hex(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_split_as_falco_does() {
        let id = format!("sha256:{}", "a".repeat(64));
        let pinned = format!("docker.io/library/nginx:1.27@{id}");
        let untagged = format!("registry:5000/a/b@{id}");
        let table: [(&str, &str, &str, &str); 9] = [
            ("docker.io/library/nginx:1.27", "docker.io/library/nginx", "1.27", ""),
            (&pinned, "docker.io/library/nginx", "1.27", &id),
            (&untagged, "registry:5000/a/b", "", &id),
            ("registry:5000/a/b:t", "registry:5000/a/b", "t", ""),
            ("registry:5000/a/b", "registry:5000/a/b", "", ""),
            ("busybox", "busybox", "", ""),
            ("busybox:musl", "busybox", "musl", ""),
            (&id, "", "", &id),
            ("", "", "", ""),
        ];
        for (text, repository, tag, digest) in table {
            assert_eq!(Reference::split(text), Reference { repository, tag, digest }, "{text}");
        }
    }

    #[test]
    fn short_ids_are_twelve_characters() {
        assert_eq!(short_id("0123456789abcdef"), "0123456789ab");
        assert_eq!(short_id("web"), "web");
        assert_eq!(short_id("ääääääääääääb"), "ääääääääääää");
    }
}
