//! The names of a file: as asked for, as resolved, and from its file system's own root. Rules are evaluated once
//! under each distinct one, so that no alias (symbolic link, bind mount, `..`) hides a file from a rule.

use bytes::Bytes;

use super::call::{first_path, first_path_resolved};
use crate::event::{Body, Call, Event, EventType, Task};

/// The distinct names of an event's file, the resolved one first; a single empty one for events without a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    first: Bytes,
    more: [Option<Bytes>; 2],
}

impl Names {
    /// The names of `event`'s file.
    pub fn of(event: &Event) -> Self {
        let open = match &event.body {
            Body::Open(open) => open,
            Body::Call(call) => return Self::of_call(call, event.header.event, &event.task),
            _ => return Self::default(),
        };
        let asked = asked_for(&open.dir, &open.name);
        if open.path.is_empty() {
            // A failed call has only the name it asked for.
            let mut names = Self { first: from_own_root(&asked, &event.task), more: [None, None] };
            names.add(asked);
            return names;
        }
        let mut names = Self { first: open.path.clone(), more: [None, None] };
        names.add(asked);
        names.add(open.fs_path.clone());
        names
    }

    /// The names of a descriptor's file; for a call that names paths, the first as absolute and as the caller wrote it,
    /// which stand for all of them.
    fn of_call(call: &Call, event: EventType, task: &Task) -> Self {
        let mut names = Self { first: call.path.clone(), more: [None, None] };
        if !call.path.is_empty() {
            names.add(call.fs_path.clone());
        } else if let Some(asked) = first_path(call, event.parameters()) {
            names.first = first_path_resolved(call, event.parameters(), task).unwrap_or_else(|| asked.clone());
            names.add(asked);
        }
        names
    }

    /// Each name once.
    pub fn iter(&self) -> impl Iterator<Item = &Bytes> {
        std::iter::once(&self.first).chain(self.more.iter().flatten())
    }

    /// The name at a place of [`iter`](Self::iter).
    pub fn get(&self, place: usize) -> &[u8] {
        self.iter().nth(place).map_or(&[], |name| name)
    }

    fn add(&mut self, name: Bytes) {
        if name.is_empty() || self.iter().any(|known| *known == name) {
            return;
        }
        if let Some(free) = self.more.iter_mut().find(|slot| slot.is_none()) {
            *free = Some(name);
        }
    }
}

/// `name` as asked for, made absolute from `dir` and cleaned of `.`, `..` and double slashes without looking at the
/// file system; empty where the directory is not known.
pub(super) fn asked_for(dir: &Bytes, name: &Bytes) -> Bytes {
    if name.first() == Some(&b'/') {
        if is_clean(name) {
            return name.clone();
        }
        return clean(name);
    }
    if name.is_empty() || dir.is_empty() {
        return Bytes::new();
    }
    let mut joined = Vec::with_capacity(dir.len() + 1 + name.len());
    joined.extend_from_slice(dir);
    joined.push(b'/');
    joined.extend_from_slice(name);
    clean(&joined)
}

/// A path through the task's own root (`/proc/self/root/etc/shadow`) without the way there, however often it is gone.
pub(super) fn from_own_root(path: &Bytes, task: &Task) -> Bytes {
    let mut rest = &path[..];
    while let Some(beneath) = beneath_own_root(rest, task) {
        rest = beneath;
    }
    if rest.is_empty() { Bytes::from_static(b"/") } else { path.slice_ref(rest) }
}

fn beneath_own_root<'a>(path: &'a [u8], task: &Task) -> Option<&'a [u8]> {
    let mut parts = path.strip_prefix(b"/proc/")?.splitn(4, |byte| *byte == b'/');
    let is_own = |name: &[u8]| {
        let number = std::str::from_utf8(name).ok().and_then(|name| name.parse::<u32>().ok());
        name == b"self"
            || name == b"thread-self"
            || number.is_some_and(|number| [task.vtgid, task.vtid].contains(&number))
    };
    if !is_own(parts.next()?) {
        return None;
    }
    let end = match parts.next()? {
        b"root" => path.strip_prefix(b"/proc/")?.splitn(3, |byte| *byte == b'/').nth(2),
        b"task" => {
            parts.next()?;
            return match parts.next()? {
                b"root" => Some(b""),
                tail => tail.strip_prefix(b"root").filter(|tail| tail.starts_with(b"/")),
            };
        }
        _ => return None,
    };
    Some(end.map_or(&b""[..], |end| &path[path.len() - end.len() - 1..]))
}

fn is_clean(path: &[u8]) -> bool {
    path.len() == 1 || path[1..].split(|b| *b == b'/').all(|part| !matches!(part, b"" | b"." | b".."))
}

fn clean(path: &[u8]) -> Bytes {
    let mut out: Vec<u8> = Vec::with_capacity(path.len());
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                let parent = out.iter().rposition(|b| *b == b'/').unwrap_or(0);
                out.truncate(parent);
            }
            _ => {
                out.push(b'/');
                out.extend_from_slice(part);
            }
        }
    }
    if out.is_empty() {
        out.push(b'/');
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_by_the_own_root_is_left_out() {
        let task = crate::sample::task(10, 1, (1, 0), "sh");
        let own = task.vtgid;
        for (path, expect) in [
            ("/proc/self/root/etc/shadow", "/etc/shadow"),
            ("/proc/thread-self/root/etc/shadow", "/etc/shadow"),
            ("/proc/self/root/proc/self/root/etc", "/etc"),
            ("/proc/self/task/7/root/etc/x", "/etc/x"),
            ("/proc/self/task/7/root", "/"),
            ("/proc/self/root", "/"),
            ("/proc/self/rootkit/x", "/proc/self/rootkit/x"),
            ("/proc/self/cwd/x", "/proc/self/cwd/x"),
            ("/proc/4000000/root/x", "/proc/4000000/root/x"),
            ("/etc/proc/self/root/x", "/etc/proc/self/root/x"),
            (&format!("/proc/{own}/root/x/y"), "/x/y"),
        ] {
            assert_eq!(from_own_root(&Bytes::copy_from_slice(path.as_bytes()), &task), expect.as_bytes(), "{path}");
        }
    }

    #[test]
    fn names_are_cleaned_without_looking() {
        for (dir, name, expect) in [
            ("", "/etc/shadow", "/etc/shadow"),
            ("", "/etc/../etc//./shadow", "/etc/shadow"),
            ("/etc", "shadow", "/etc/shadow"),
            ("/usr/lib", "../../etc/shadow", "/etc/shadow"),
            ("/", "../../../etc/shadow", "/etc/shadow"),
            ("/", ".", "/"),
            ("", "/", "/"),
            ("", "//", "/"),
            ("", "shadow", ""),
            ("/etc", "", ""),
            ("/tmp", "a\u{7f}\n b", "/tmp/a\u{7f}\n b"),
        ] {
            let asked = asked_for(&Bytes::from_static(dir.as_bytes()), &Bytes::from_static(name.as_bytes()));
            assert_eq!(asked, expect.as_bytes(), "{dir:?} {name:?}");
        }
    }
}
