//! What a file is, by its first bytes, mode and name: which files of an image can run.

use super::model::Kind;

/// Bytes of a file's start that are looked at.
pub(super) const PREFIX: usize = 4;

/// Extensions of files that an interpreter or a virtual machine runs, whatever their mode.
const CODE: &[&[u8]] = &[
    b"py", b"pyc", b"js", b"mjs", b"cjs", b"jar", b"war", b"class", b"rb", b"pl", b"pm", b"sh", b"bash", b"php",
    b"lua", b"wasm",
];

/// Classifies a file.
pub(super) fn classify(path: &[u8], mode: u16, prefix: &[u8]) -> Kind {
    if prefix.starts_with(b"\x7fELF") {
        return Kind::Elf;
    }
    if prefix.starts_with(b"#!") {
        return Kind::Script;
    }
    if mode & 0o111 != 0 {
        return Kind::Executable;
    }
    let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    let extension = name.iter().rposition(|&byte| byte == b'.').map(|dot| &name[dot + 1..]);
    if extension.is_some_and(|extension| CODE.contains(&extension)) {
        return Kind::Code;
    }
    Kind::Other
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_before_mode_before_name() {
        for (path, mode, prefix, kind) in [
            ("/lib/x.so", 0o644, &b"\x7fELF"[..], Kind::Elf),
            ("/bin/x.py", 0o755, b"#!/u", Kind::Script),
            ("/bin/x", 0o644, b"#!/u", Kind::Script),
            ("/bin/x", 0o711, b"text", Kind::Executable),
            ("/x.py", 0o644, b"impo", Kind::Code),
            ("/a.py/x", 0o644, b"impo", Kind::Other),
            ("/x", 0o644, b"", Kind::Other),
            ("/py", 0o644, b"\x7fEL", Kind::Other),
        ] {
            assert_eq!(classify(path.as_bytes(), mode, prefix), kind, "{path}");
        }
    }
}
