//! A reader of the kernel's BTF (`Documentation/bpf/btf.rst`): member offsets, type ids, sizes. It
//! knows only what `relocate` asks for, and refuses damaged data instead of trusting it.

use std::collections::HashMap;

/// Kinds of types, `BTF_KIND_*` of `include/uapi/linux/btf.h`.
mod kind {
    pub(super) const INT: u8 = 1;
    pub(super) const PTR: u8 = 2;
    pub(super) const ARRAY: u8 = 3;
    pub(super) const STRUCT: u8 = 4;
    pub(super) const UNION: u8 = 5;
    pub(super) const ENUM: u8 = 6;
    pub(super) const TYPEDEF: u8 = 8;
    pub(super) const VOLATILE: u8 = 9;
    pub(super) const CONST: u8 = 10;
    pub(super) const RESTRICT: u8 = 11;
    pub(super) const FUNC: u8 = 12;
    pub(super) const FUNC_PROTO: u8 = 13;
    pub(super) const VAR: u8 = 14;
    pub(super) const DATASEC: u8 = 15;
    pub(super) const DECL_TAG: u8 = 17;
    pub(super) const TYPE_TAG: u8 = 18;
    pub(super) const ENUM64: u8 = 19;
}

/// What makes BTF unreadable.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BtfError {
    /// Not BTF, or another byte order.
    #[error("not BTF of this machine's byte order")]
    Magic,
    /// A length or offset points outside of the data.
    #[error("damaged at byte {0}")]
    Damaged(usize),
    /// A kind of type that this version does not know, so that the next one cannot be found.
    #[error("unknown kind {kind} of type {id}")]
    UnknownKind {
        /// The kind.
        kind: u8,
        /// The type's id.
        id: u32,
    },
}

/// Parsed BTF.
pub(super) struct Btf {
    data: Vec<u8>,
    /// Where each type's entry starts; type 0 is `void`.
    types: Vec<usize>,
    strings: usize,
    strings_length: usize,
    /// Where a module's strings are, whose offsets go on where the kernel's end.
    module_strings: Option<usize>,
    /// Structures, functions, typedefs and enumerations, by name.
    named: HashMap<(u8, Vec<u8>), u32>,
}

struct Member {
    offset_bits: u32,
    type_id: u32,
}

impl Btf {
    /// Indexes the kernel's BTF (the content of `/sys/kernel/btf/vmlinux`).
    pub(super) fn parse(data: Vec<u8>) -> Result<Self, BtfError> {
        let mut btf = Self {
            data: Vec::new(),
            types: vec![0],
            strings: 0,
            strings_length: 0,
            module_strings: None,
            named: HashMap::new(),
        };
        btf.index(data)?;
        Ok(btf)
    }

    /// Adds the BTF of a module (`/sys/kernel/btf/NAME`), which goes on where the kernel's ends. Only one can be added.
    pub(super) fn add_module(&mut self, data: Vec<u8>) -> Result<(), BtfError> {
        if self.module_strings.is_some() {
            return Err(BtfError::Magic);
        }
        self.index(data)
    }

    fn index(&mut self, data: Vec<u8>) -> Result<(), BtfError> {
        if data.get(..2) != Some(&0xeb9f_u16.to_ne_bytes()) {
            return Err(BtfError::Magic);
        }
        let first = self.data.len();
        self.data.extend(data);
        let btf = self;
        let header = word(&btf.data, first + 4)? as usize;
        let at = |offset: usize| (first + header).checked_add(offset).ok_or(BtfError::Damaged(header));
        let start = at(word(&btf.data, first + 8)? as usize)?;
        let end = start.checked_add(word(&btf.data, first + 12)? as usize).ok_or(BtfError::Damaged(12))?;
        let strings = at(word(&btf.data, first + 16)? as usize)?;
        if end > btf.data.len() || strings > btf.data.len() {
            return Err(BtfError::Damaged(btf.data.len()));
        }
        if first == 0 {
            btf.strings = strings;
            btf.strings_length = word(&btf.data, 20)? as usize;
        } else {
            btf.module_strings = Some(strings);
        }
        let mut offset = start;
        while offset < end {
            let id = u32::try_from(btf.types.len()).unwrap_or(u32::MAX);
            let info = word(&btf.data, offset + 4)?;
            let (kind, count) = split(info);
            let size = match kind {
                kind::INT | kind::VAR | kind::DECL_TAG => 4,
                kind::ARRAY => 12,
                kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => 12 * count,
                kind::ENUM | kind::FUNC_PROTO => 8 * count,
                // Pointers, modifiers, typedefs, forward declarations, functions, floats.
                kind::PTR | 7..=kind::FUNC | 16 | kind::TYPE_TAG => 0,
                _ => return Err(BtfError::UnknownKind { kind, id }),
            };
            if matches!(kind, kind::STRUCT | kind::FUNC | kind::TYPEDEF | kind::ENUM) {
                let name = btf.string(word(&btf.data, offset)?)?;
                if !name.is_empty() {
                    let name = name.to_vec();
                    btf.named.entry((kind, name)).or_insert(id);
                }
            }
            btf.types.push(offset);
            offset += 12 + size;
        }
        if offset != end {
            return Err(BtfError::Damaged(offset));
        }
        Ok(())
    }

    /// Type id of a structure.
    pub(super) fn structure(&self, name: &str) -> Option<u32> {
        self.named.get(&(kind::STRUCT, name.as_bytes().to_vec())).copied()
    }

    /// Type id of a function.
    pub(super) fn function(&self, name: &str) -> Option<u32> {
        self.named.get(&(kind::FUNC, name.as_bytes().to_vec())).copied()
    }

    /// Whether programs may call a helper: its name in `enum bpf_func_id` without `BPF_FUNC_`.
    pub(super) fn has_helper(&self, name: &str) -> bool {
        self.has_enumerator("bpf_func_id", &format!("BPF_FUNC_{name}"))
    }

    fn has_enumerator(&self, enumeration: &str, name: &str) -> bool {
        let find = || {
            let id = *self.named.get(&(kind::ENUM, enumeration.as_bytes().to_vec()))?;
            let entry = *self.types.get(id as usize)?;
            let (_, count) = split(word(&self.data, entry + 4).ok()?);
            let mut names = (0..count).map_while(|nth| word(&self.data, entry + 12 + 8 * nth).ok());
            names.find(|offset| self.string(*offset).is_ok_and(|found| found == name.as_bytes()))
        };
        find().is_some()
    }

    /// Type ids of a function and of its prototype.
    pub(super) fn function_with_prototype(&self, name: &str) -> Option<(u32, u32)> {
        let id = self.function(name)?;
        let entry = *self.types.get(id as usize)?;
        Some((id, word(&self.data, entry + 8).ok()?))
    }

    /// Size of a structure in bytes.
    pub(super) fn size(&self, name: &str) -> Option<u64> {
        let entry = *self.types.get(self.structure(name)? as usize)?;
        word(&self.data, entry + 8).ok().map(u64::from)
    }

    /// Byte offset of `structure.member[.member]`, through anonymous members. Bit fields have none.
    pub(super) fn offset(&self, path: &str) -> Option<u64> {
        let mut names = path.split('.');
        let mut id = self.structure(names.next()?)?;
        let mut bits = 0;
        for name in names {
            let member = self.member(self.plain(id)?, name.as_bytes(), 0)?;
            bits += u64::from(member.offset_bits);
            id = member.type_id;
        }
        (bits % 8 == 0).then_some(bits / 8)
    }

    /// The name of the structure that argument `index` of a tracepoint points to.
    pub(super) fn tracepoint_argument(&self, tracepoint: &str, index: usize) -> Option<String> {
        let pointed = self.plain(self.referred(self.tracepoint_parameter(tracepoint, index)?)?)?;
        // `void` has no entry.
        if pointed == 0 {
            return None;
        }
        let name = word(&self.data, *self.types.get(pointed as usize)?).ok()?;
        Some(String::from_utf8_lossy(self.string(name).ok()?).into_owned())
    }

    /// Whether argument `index` of a tracepoint is a pointer.
    pub(super) fn tracepoint_takes_pointer(&self, tracepoint: &str, index: usize) -> bool {
        self.tracepoint_parameter(tracepoint, index).is_some_and(|parameter| self.referred(parameter).is_some())
    }

    fn tracepoint_parameter(&self, tracepoint: &str, index: usize) -> Option<u32> {
        let typedef = *self.named.get(&(kind::TYPEDEF, format!("btf_trace_{tracepoint}").into_bytes()))?;
        let prototype = self.plain(self.referred(self.plain(typedef)?)?)?;
        let entry = *self.types.get(prototype as usize)?;
        let (kind, count) = split(word(&self.data, entry + 4).ok()?);
        // The first parameter is the tracepoint's private pointer.
        if kind != kind::FUNC_PROTO || index + 1 >= count {
            return None;
        }
        self.plain(word(&self.data, entry + 12 + 8 * (index + 1) + 4).ok()?)
    }

    /// Whether there is such a tracepoint.
    pub(super) fn has_tracepoint(&self, name: &str) -> bool {
        self.named.contains_key(&(kind::TYPEDEF, format!("btf_trace_{name}").into_bytes()))
    }

    fn member(&self, id: u32, name: &[u8], depth: u32) -> Option<Member> {
        // Anonymous members nest a few levels in the kernel; damaged data could nest for ever.
        if depth > 16 {
            return None;
        }
        let entry = *self.types.get(id as usize)?;
        let info = word(&self.data, entry + 4).ok()?;
        let (kind, count) = split(info);
        if !matches!(kind, kind::STRUCT | kind::UNION) {
            return None;
        }
        for index in 0..count {
            let at = entry + 12 + 12 * index;
            let type_id = word(&self.data, at + 4).ok()?;
            let mut offset_bits = word(&self.data, at + 8).ok()?;
            // With the kind flag the upper byte is the width of a bit field.
            if info >> 31 != 0 {
                offset_bits &= 0xff_ffff;
            }
            let found = self.string(word(&self.data, at).ok()?).ok()?;
            if found == name {
                return Some(Member { offset_bits, type_id });
            }
            if found.is_empty()
                && let Some(inner) = self.member(self.plain(type_id)?, name, depth + 1)
            {
                return Some(Member { offset_bits: offset_bits + inner.offset_bits, type_id: inner.type_id });
            }
        }
        None
    }

    /// The type behind typedefs and qualifiers.
    fn plain(&self, mut id: u32) -> Option<u32> {
        for _ in 0..64 {
            let entry = *self.types.get(id as usize)?;
            let (kind, _) = split(word(&self.data, entry + 4).ok()?);
            match kind {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    id = word(&self.data, entry + 8).ok()?;
                }
                _ => return Some(id),
            }
        }
        None
    }

    /// What a pointer points to.
    fn referred(&self, id: u32) -> Option<u32> {
        let entry = *self.types.get(id as usize)?;
        let (kind, _) = split(word(&self.data, entry + 4).ok()?);
        (kind == kind::PTR).then(|| word(&self.data, entry + 8).ok()).flatten()
    }

    fn string(&self, offset: u32) -> Result<&[u8], BtfError> {
        let offset = offset as usize;
        let start = match self.module_strings {
            Some(strings) if offset >= self.strings_length => strings + (offset - self.strings_length),
            _ => self.strings.saturating_add(offset),
        };
        let tail = self.data.get(start..).ok_or(BtfError::Damaged(start))?;
        let end = tail.iter().position(|byte| *byte == 0).ok_or(BtfError::Damaged(start))?;
        Ok(&tail[..end])
    }
}

fn split(info: u32) -> (u8, usize) {
    (((info >> 24) & 0x1f) as u8, (info & 0xffff) as usize)
}

fn word(data: &[u8], offset: usize) -> Result<u32, BtfError> {
    let bytes = data.get(offset..).and_then(|tail| tail.first_chunk::<4>()).ok_or(BtfError::Damaged(offset))?;
    Ok(u32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct s { int a; struct { int b; int c; }; }` with ids 1 (int), 2 (anonymous), 3 (s); 4 is `enum c { a }`.
    fn sample() -> Vec<u8> {
        let strings = b"\0int\0s\0a\0b\0c\0";
        let mut types: Vec<u32> = vec![1, 1 << 24, 4, 32];
        types.extend([0, 4 << 24 | 2, 8, 9, 1, 0, 11, 1, 32]);
        types.extend([5, 4 << 24 | 2, 12, 7, 1, 0, 0, 2, 32]);
        types.extend([11, 6 << 24 | 1, 4, 7, 0]);
        let types: Vec<u8> = types.into_iter().flat_map(u32::to_ne_bytes).collect();
        let mut data = 0xeb9f_u16.to_ne_bytes().to_vec();
        data.extend([1, 0]);
        for value in [24, 0, types.len() as u32, types.len() as u32, strings.len() as u32] {
            data.extend(value.to_ne_bytes());
        }
        data.extend(types);
        data.extend(strings);
        data
    }

    #[test]
    fn members_are_found_through_anonymous_ones() {
        let btf = Btf::parse(sample()).unwrap();
        assert_eq!(btf.offset("s.a"), Some(0));
        assert_eq!(btf.offset("s.b"), Some(4));
        assert_eq!(btf.offset("s.c"), Some(8));
        assert_eq!(btf.offset("s.d"), None);
        assert_eq!(btf.offset("t.a"), None);
        assert_eq!((btf.structure("s"), btf.size("s")), (Some(3), Some(12)));
    }

    /// `struct m { char x[4]; struct s y; }` of a module on top of the sample: its type 5, its strings from 13 on.
    fn module() -> Vec<u8> {
        let strings = b"m\0x\0y\0";
        let types: Vec<u32> = vec![13, 4 << 24 | 2, 16, 15, 1, 0, 17, 3, 32];
        let types: Vec<u8> = types.into_iter().flat_map(u32::to_ne_bytes).collect();
        let mut data = 0xeb9f_u16.to_ne_bytes().to_vec();
        data.extend([1, 0]);
        for value in [24, 0, types.len() as u32, types.len() as u32, strings.len() as u32] {
            data.extend(value.to_ne_bytes());
        }
        data.extend(types);
        data.extend(strings);
        data
    }

    #[test]
    fn a_module_goes_on_where_the_kernel_ends() {
        let mut btf = Btf::parse(sample()).unwrap();
        btf.add_module(module()).unwrap();
        assert_eq!((btf.structure("m"), btf.size("m")), (Some(5), Some(16)));
        assert_eq!((btf.offset("m.y"), btf.offset("m.y.c"), btf.offset("s.c")), (Some(4), Some(12), Some(8)));
        assert_eq!(btf.add_module(module()), Err(BtfError::Magic));
        for length in 0..module().len() {
            let mut btf = Btf::parse(sample()).unwrap();
            let _ = btf.add_module(module()[..length].to_vec());
            btf.offset("m.y.c");
        }
    }

    #[test]
    fn enumerators_are_found() {
        let btf = Btf::parse(sample()).unwrap();
        assert!(btf.has_enumerator("c", "a"));
        assert!(!btf.has_enumerator("c", "b") && !btf.has_enumerator("s", "a"));
    }

    #[test]
    fn damaged_data_is_refused_and_never_panics() {
        assert_eq!(Btf::parse(vec![]).err(), Some(BtfError::Magic));
        let whole = sample();
        for length in 0..whole.len() {
            let _ = Btf::parse(whole[..length].to_vec()).map(|btf| btf.offset("s.c"));
        }
        for index in 0..whole.len() {
            for value in [0, 0x7f, 0xff] {
                let mut bad = whole.clone();
                bad[index] = value;
                let _ = Btf::parse(bad).map(|btf| (btf.offset("s.c"), btf.has_enumerator("c", "a")));
            }
        }
    }
}
